"""Sums over features, strip by strip: Gram matrices and the content loss.

Written with whole arrays, each would need temporary arrays as large as the features. Here the
temporaries fit in the cache, and the threads share the work. `layers3.py` has the formulas.
"""

from math import ceil

import numpy as np

from fast.strips import run_strips, scratch, strips_of_rows

STRIP_BYTES = 1 << 19  # of features that a thread works on at a time


def _strips_of(x):
    """Return (picture, first row, last row + 1) of the strips of x (N, H, W, C)."""
    N, H, W, C = x.shape
    rows = STRIP_BYTES // (W * C * x.itemsize)
    return strips_of_rows(N, H, min(rows, ceil(H / 2)))


def gram(features):
    """Return the Gram matrices G (N, C, C) of features F (N, C, H, W).

    G[n, i, j], the sum over h, w of F[n, i, h, w] * F[n, j, h, w], says how strongly the channels i
    and j occur together.
    """
    x = features.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    N, H, W, C = x.shape
    strips = _strips_of(x)
    each = len(strips) // N  # strips of one picture
    groups = min(each, 8)  # the order of summation must not depend on the number of threads
    sums = np.zeros((N, groups, C, C), x.dtype)

    def group(n, g):
        for _, y0, y1 in strips[n * each + g : (n + 1) * each : groups]:
            rows = scratch("features", (y1 - y0, W, C), x.dtype)
            np.copyto(rows, x[n, y0:y1])
            rows = rows.reshape(-1, C)
            sums[n, g] += rows.T @ rows  # NumPy sees the symmetry and computes one half

    run_strips(group, [(n, g) for n in range(N) for g in range(groups)])
    return sums.sum(axis=1)


def squared_distance(x, y):
    """Return the sum of (x - y)^2 of two arrays of shape (N, C, H, W), a float."""
    x, y = x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), views
    strips = _strips_of(x)
    sums = np.zeros(len(strips))

    def strip(i, n, y0, y1):
        difference = x[n, y0:y1] - y[n, y0:y1]
        np.square(difference, out=difference)
        sums[i] = difference.sum()

    run_strips(strip, [(i, *part) for i, part in enumerate(strips)])
    return float(sums.sum())


def scaled_difference(x, y, factor):
    """Return factor * (x - y) of two arrays of shape (N, C, H, W), in the dtype of x."""
    x, y = x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), views
    result = np.empty(x.shape, x.dtype)

    def strip(n, y0, y1):
        np.subtract(x[n, y0:y1], y[n, y0:y1], out=result[n, y0:y1], casting="same_kind")
        result[n, y0:y1] *= factor

    run_strips(strip, _strips_of(x))
    return result.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

"""The losses of `layers3.py` for large features, strip by strip: the same sums, faster.

For a large picture, the formulas of `layers3.py` take several passes through memory. Here threads
share strips of rows, each in the cache. The functions return what `FusedNetwork.backward` needs.
"""

from math import ceil

import numpy as np

from fast.strips import STRIP_BYTES, run_strips, scratch, strips_of_rows


def content_loss(features, target):
    """Return the loss of `layers3.ContentLossLayer`, a float, and its gradient (N, C, H, W).

    X is `features` and Y is `target`, both (N, C, H, W).
    """
    # (N, C, H, W) -> (N, H, W, C), views
    x, y = (array.transpose(0, 2, 3, 1) for array in (features, target))
    strips = _strips(x)
    sums = np.zeros(len(strips))
    dx = np.empty(x.shape, x.dtype)

    def strip(i, n, y0, y1):
        difference = np.subtract(x[n, y0:y1], y[n, y0:y1], out=dx[n, y0:y1])
        sums[i] = np.square(difference).sum()
        difference *= 1 / features.size

    run_strips(strip, [(i, *part) for i, part in enumerate(strips)])
    return float(sums.sum()) / (2 * features.size), dx.transpose(0, 3, 1, 2)  # -> (N, C, H, W)


def style_loss(grams, target, positions):
    """Return the loss of `layers3.StyleLossLayer`, and S (N, C, C) of its gradient S X.

    `grams` (N, C, C) and `target`, (N, C, C) or (1, C, C), are the Gram matrices of X and of the
    style, each divided by its number of positions: the fourth power of that number would overflow
    float32. `positions` is H W of X, and S = (G - A) / (N C^2 H W) for such G and A.
    """
    N, C, _ = grams.shape
    difference = grams - target
    loss = float(np.sum(np.square(difference))) / (4 * N * C**2)
    return loss, difference / float(N * C**2 * positions)  # NumPy 1 makes large ints float64


def gram(features):
    """Return the Gram matrices (N, C, C) of features (N, C, H, W), as `layers3.gram` does."""
    x = features.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    N, H, W, C = x.shape
    strips = _strips(x)
    each = len(strips) // N  # strips of one picture
    groups = min(each, 8)  # the order of summation must not depend on the number of threads
    sums = np.zeros((N, groups, C, C), x.dtype)

    def group(n, g):
        for _, y0, y1 in strips[n * each + g : (n + 1) * each : groups]:
            rows = scratch("features", (y1 - y0, W, C), x.dtype)
            np.copyto(rows, x[n, y0:y1])
            rows = rows.reshape((y1 - y0) * W, C)
            sums[n, g] += rows.T @ rows  # NumPy sees the symmetry and computes one half

    run_strips(group, [(n, g) for n in range(N) for g in range(groups)])
    return sums.sum(axis=1)


def _strips(x):
    """Return (picture, first row, last row + 1) of the parts of x (N, H, W, C) for threads."""
    N, H, W, C = x.shape
    rows = STRIP_BYTES // (W * C * x.itemsize)
    return strips_of_rows(N, H, min(rows, ceil(H / 2)))

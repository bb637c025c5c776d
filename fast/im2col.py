"""Kernel 1, im2col: copy each window into a row, so that a convolution is a matrix product.

Its reason: matrix products run at the processor's full speed. It works for any kernel, stride and
number of channels.

K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
Processing", 2006.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fast.strips import SMALL_PRODUCT, run_strips, scratch, strips_of_bytes


def prepare(weight):
    """Return the filters (C, K, K, Co) as (K K C, Co), rows in the order of a window's values."""
    C, K, _, Co = weight.shape
    # (C, K, K, Co) -> (K, K, C, Co) -> (K K C, Co)
    return np.ascontiguousarray(weight.transpose(1, 2, 0, 3)).reshape(K * K * C, Co)


def _windows(padded, K, s, Ho, Wo):
    """Return a view (N, Ho, Wo, K, K C) of all windows, and how to cut it into strips."""
    N, _, _, C = padded.array.shape  # K pixels of a row are contiguous: one axis of K C values
    sn, sy, sx, sc = padded.array.strides
    shape, strides = (N, Ho, Wo, K, K * C), (sn, s * sy, s * sx, sy, sc)
    windows = as_strided(padded.array, shape, strides, writeable=False)
    return windows, strips_of_bytes(N, Ho, Wo * K * K * C * windows.itemsize)


def _gathered(windows):
    """Return windows (n, rows, Wo, K, K C) copied to a scratch matrix (P, K K C).

    NumPy copies run by run, and a run costs as much as twenty values. With few channels the runs
    along Wo are longer than those along K C; the matrix is then the transpose of the copy.
    """
    n, rows, Wo, K, KC = windows.shape
    transposed = KC < Wo
    if transposed:
        windows = windows.transpose(3, 4, 0, 1, 2)  # (n, rows, Wo, K, KC) -> (K, KC, n, rows, Wo)
    copy = scratch("windows", windows.shape, windows.dtype)
    np.copyto(copy, windows)
    if transposed:
        return copy.reshape(K * KC, n * rows * Wo).T
    return copy.reshape(n * rows * Wo, K * KC)


def convolve(padded, filters, bias, out, epilogue=None):
    """Convolve into `out` (N, Ho, Wo, Co); see `fast.convolution.convolve`.

    A strip of P output pixels is a matrix (P, K K C) of windows. Times the (K K C, Co) filters it
    gives all P x Co outputs. Cost for each output pixel: K K C copies, K K C Co multiplications.
    """
    _, Ho, Wo, Co = out.shape
    windows, strips = _windows(padded, filters.kernel_size, filters.stride, Ho, Wo)

    def strip(n, y0, y1):
        block, matrix = out[n, y0:y1], _gathered(windows[n, y0:y1])
        if Wo * filters.matrices.size <= SMALL_PRODUCT:  # row by row
            product = block
            np.matmul(matrix.reshape(*block.shape[:3], -1), filters.matrices, out=block)
        else:
            product = scratch("product", block.shape, out.dtype)
            np.matmul(matrix, filters.matrices, out=product.reshape(-1, Co))
        np.add(product, 0 if bias is None else bias, out=block)
        if epilogue:
            for picture, part in enumerate(block, n.start):
                epilogue(picture, y0, 0, part)

    run_strips(strip, strips)


def weight_gradient(padded, dy, K, s):
    """Return dL/dW (C, K, K, Co) from the layer's padded input and dy (N, Ho, Wo, Co).

    The forward pass multiplies windows (P, K K C) by filters (K K C, Co). The gradient with respect
    to the filters is the transposed windows times dy: (K K C, P) @ (P, Co), summed over the strips.
    """
    _, Ho, Wo, Co = dy.shape
    C = padded.array.shape[3]
    windows, strips = _windows(padded, K, s, Ho, Wo)
    # The order of summation must not depend on the number of threads: each group has its own sum.
    groups = min(len(strips), 8)
    sums = np.zeros((groups, K * K * C, Co), dy.dtype)

    def group(g):
        for n, y0, y1 in strips[g::groups]:
            rows = _gathered(windows[n, y0:y1])
            top = scratch("product", dy[n, y0:y1].shape, dy.dtype)
            np.copyto(top, dy[n, y0:y1])
            sums[g] += rows.T @ top.reshape(-1, Co)

    run_strips(group, [(g,) for g in range(groups)])
    # (K K C, Co) -> (K, K, C, Co) -> (C, K, K, Co)
    return np.ascontiguousarray(sums.sum(axis=0).reshape(K, K, C, Co).transpose(2, 0, 1, 3))

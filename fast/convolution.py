"""Which kernel when: the three algorithms for one convolution behind one interface.

Multiplications for each output value: im2col and kn2row K K C, winograd 36 / 16 C, which is a
quarter of 3 * 3 * C.
"""

from typing import NamedTuple

import numpy as np

from fast import im2col, kn2row, winograd
from fast.padded import pad, whole_tiles

ALGORITHMS = {"im2col": im2col, "kn2row": kn2row, "winograd": winograd}


def choose(kernel_size, stride, channel_in, channel_out):
    """Return the name of the fastest algorithm for a convolution of this shape."""
    if channel_out < 16 and stride == 1:  # a matrix product with so few columns is slow
        return "kn2row"
    if kernel_size == 3 and stride == 1 and channel_in >= 16:
        return "winograd"
    return "im2col"


def check_algorithm(algorithm, kernel_size, stride):
    """Raise ValueError unless `algorithm` is None or one that can do this kernel and stride."""
    can = {"im2col": True, "kn2row": stride == 1, "winograd": stride == 1 and kernel_size == 3}
    if algorithm is not None and not can.get(algorithm):
        raise ValueError(
            "algorithm must be im2col, kn2row (stride 1 only) or winograd (3x3 kernels at stride 1 "
            f"only), got {algorithm!r} for {kernel_size}x{kernel_size} at stride {stride}"
        )


class Filters(NamedTuple):
    """Filters in the form their algorithm multiplies with, and their geometry."""

    matrices: np.ndarray  # see `prepare` of the algorithm's module
    algorithm: str
    kernel_size: int
    stride: int
    channel_out: int


def prepare(weight, stride, algorithm, keep=True):
    """Return `weight` (C, K, K, Co) as `Filters` for one of ALGORITHMS.

    With keep=False, they may be in a buffer that the next call in this thread overwrites.
    """
    _, K, _, Co = weight.shape
    if algorithm == "winograd":
        matrices = winograd.prepare(weight, keep)
    else:
        matrices = ALGORITHMS[algorithm].prepare(weight)
    return Filters(matrices, algorithm, K, stride, Co)


def convolve(padded, filters, bias):
    """Return the convolution (N, Ho, Wo, Co) of a `Padded` with `Filters`; `bias` (Co,) or None."""
    Ho, Wo = padded.output_size(filters.kernel_size, filters.stride)
    x = padded.array
    out = np.empty((len(x), whole_tiles(Ho), whole_tiles(Wo), filters.channel_out), x.dtype)
    exact = out[:, :Ho, :Wo]  # a view
    if filters.algorithm == "winograd":
        winograd.convolve(padded, filters, bias, out)
    else:
        ALGORITHMS[filters.algorithm].convolve(padded, filters, bias, exact)
    return exact


def weight_gradient(padded, top_diff, kernel_size, stride, algorithm=None):
    """Return dL/dW (C, K, K, Co) from the layer's padded input and `top_diff` (N, Co, Ho, Wo).

    With algorithm=None the fastest one; kn2row has no form of its own here and uses im2col's.
    """
    C, Co = padded.array.shape[3], top_diff.shape[1]
    algorithm = algorithm or choose(kernel_size, stride, min(C, Co), max(C, Co))
    if algorithm == "winograd":
        return winograd.weight_gradient(padded, pad(top_diff, 0))
    dy = top_diff.transpose(0, 2, 3, 1)  # (N, Co, Ho, Wo) -> (N, Ho, Wo, Co)
    return im2col.weight_gradient(padded, dy, kernel_size, stride)

"""Which kernel when: the three algorithms for one convolution behind one interface.

Multiplications for each output value: im2col and kn2row K K C, winograd4 36 / 16 C, which is a
quarter of 3 * 3 * C, winograd6 64 / 36 C, a fifth.
"""

from math import ceil
from typing import NamedTuple

import numpy as np

from fast import im2col, kn2row, winograd
from fast.padded import pad

TILES = {"winograd4": 4, "winograd6": 6}  # the side of a tile of outputs
ALGORITHMS = {"im2col": im2col, "kn2row": kn2row, "winograd4": winograd, "winograd6": winograd}
FILTER_READ = 40  # fitted to the layers of VGG-19 at 192x320 and 512x512


def choose(kernel_size, stride, channel_in, channel_out, shape):
    """Return the name of the fastest algorithm for a convolution with outputs (N, Ho, Wo)."""
    if channel_out < 16 and stride == 1:  # a matrix product with so few columns is slow
        return "kn2row"
    if kernel_size == 3 and stride == 1 and channel_in >= 16:
        return choose_tile(shape)
    return "im2col"


def choose_tile(shape):
    """Return the name of Winograd's faster tile for outputs (N, Ho, Wo).

    The larger one needs fewer multiplications, unless much of the last tiles is outside the
    picture. But it has more filters: to fetch them from memory takes as long as to multiply them by
    about FILTER_READ tiles.
    """
    N, Ho, Wo = shape
    costs = {
        name: (m + 2) ** 2 * (N * ceil(Ho / m) * ceil(Wo / m) + FILTER_READ)
        for name, m in TILES.items()
    }
    return min(costs, key=costs.get)


def check_algorithm(algorithm, kernel_size, stride):
    """Raise ValueError unless `algorithm` is None or one that can do this kernel and stride."""
    fits = algorithm == "kn2row" or (algorithm in TILES and kernel_size == 3)
    if algorithm not in (None, "im2col") and not (fits and stride == 1):
        raise ValueError(
            "algorithm must be im2col, kn2row (stride 1 only), winograd4 or winograd6 (3x3 kernels "
            f"at stride 1 only), got {algorithm!r} for {kernel_size}x{kernel_size} at stride "
            f"{stride}"
        )


class Filters(NamedTuple):
    """Filters in the form their algorithm multiplies with, and their geometry."""

    matrices: np.ndarray  # see `prepare` of the algorithm's module
    algorithm: str
    kernel_size: int
    stride: int
    channel_out: int
    flipped: bool  # use them rotated by 180 degrees and with C and Co swapped


def prepare(weight, stride, algorithm, flipped=False, keep=True):
    """Return `weight` (C, K, K, Co) as `Filters` for one of ALGORITHMS.

    With `flipped`, for the data gradient: rotated by 180 degrees, C and Co swapped. With
    keep=False, they may be in a buffer that the next call in this thread overwrites.
    """
    K = weight.shape[1]
    channel_out = weight.shape[0 if flipped else 3]
    tile = TILES.get(algorithm)
    flip_later = flipped and winograd.two_way(tile, weight.shape[0], weight.shape[3])
    if flipped and not flip_later:
        weight = weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)  # (C, K, K, Co) -> (Co, K, K, C)
    if tile:
        matrices = winograd.prepare(weight, tile, keep)
    else:
        matrices = ALGORITHMS[algorithm].prepare(weight)
    return Filters(matrices, algorithm, K, stride, channel_out, flip_later)


def convolve(padded, filters, bias):
    """Return the convolution (N, Ho, Wo, Co) of a `Padded` with `Filters`; `bias` (Co,) or None."""
    Ho, Wo = padded.output_size(filters.kernel_size, filters.stride)
    x = padded.array
    m = TILES.get(filters.algorithm, 1)  # Winograd writes whole tiles
    out = np.empty((len(x), ceil(Ho / m) * m, ceil(Wo / m) * m, filters.channel_out), x.dtype)
    ALGORITHMS[filters.algorithm].convolve(padded, filters, bias, out)
    return out[:, :Ho, :Wo]


def weight_gradient(padded, top_diff, kernel_size, stride, algorithm=None):
    """Return dL/dW (C, K, K, Co) from the layer's padded input and `top_diff` (N, Co, Ho, Wo).

    With algorithm=None the fastest one; kn2row has no form of its own here and uses im2col's.
    """
    C = padded.array.shape[3]
    N, Co, Ho, Wo = top_diff.shape
    algorithm = algorithm or choose(kernel_size, stride, min(C, Co), max(C, Co), (N, Ho, Wo))
    if algorithm in TILES:
        return winograd.weight_gradient(padded, pad(top_diff, 0), TILES[algorithm])
    dy = top_diff.transpose(0, 2, 3, 1)  # (N, Co, Ho, Wo) -> (N, Ho, Wo, Co)
    return im2col.weight_gradient(padded, dy, kernel_size, stride)

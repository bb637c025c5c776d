"""Channels-last pictures in a border of zeros, the form that all convolutions here read.

Winograd's tiles have up to 6x6 outputs; the last ones may extend beyond the picture by up to five
rows and columns. Every padded array therefore has five more zeros at the bottom and on the right.
Only this module knows that rule.
"""

from math import ceil
from typing import NamedTuple

import numpy as np

from fast.strips import run_strips, strips_of_bytes

OVERHANG = 5  # the side of Winograd's largest tile, less 1


class Padded(NamedTuple):
    """Pictures with `padding` zeros on each side, and the overhang.

    `array` is of shape (N, H + 2 p + OVERHANG, W + 2 p + OVERHANG, C); the others are views of it.
    """

    array: np.ndarray
    padding: int

    @property
    def size(self):
        """(H, W), without the zeros."""
        return tuple(side - 2 * self.padding - OVERHANG for side in self.array.shape[1:3])

    @property
    def inside(self):
        """The pictures alone, (N, H, W, C)."""
        return self._part(self.padding, *self.size)

    @property
    def tiles(self):
        """The pictures and as much below and to their right as a last tile may cover."""
        return self._part(self.padding, *(side + OVERHANG for side in self.size))

    @property
    def without_overhang(self):
        """The pictures and their padding, (N, H + 2 p, W + 2 p, C)."""
        return self._part(0, *(side + 2 * self.padding for side in self.size))

    def _part(self, start, height, width):
        return self.array[:, start : start + height, start : start + width]

    def output_size(self, kernel_size, stride=1):
        """Return (Ho, Wo), the size of a convolution's output."""
        return tuple((n + 2 * self.padding - kernel_size) // stride + 1 for n in self.size)


def padded_shape(shape, padding):
    """Return the shape of `Padded.array` for pictures of shape (N, H, W, C)."""
    N, H, W, C = shape
    return N, H + 2 * padding + OVERHANG, W + 2 * padding + OVERHANG, C


def bordered(array, padding):
    """Return `array`, of such a shape, as `Padded`, having set its border to zero."""
    padded = Padded(array, padding)
    H, W = padded.size
    array[:, :padding] = array[:, :, :padding] = 0
    array[:, padding + H :] = array[:, :, padding + W :] = 0
    return padded


def pad(pictures, padding):
    """Return pictures (N, C, H, W), of any memory layout, as `Padded`."""
    x = pictures.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    N, H, W, C = x.shape
    padded = bordered(np.empty(padded_shape(x.shape, padding), x.dtype), padding)
    inside = padded.inside

    def strip(n, y0, y1):
        np.copyto(inside[n, y0:y1], x[n, y0:y1])

    run_strips(strip, strips_of_bytes(N, H, W * C * x.itemsize))
    return padded


def dilated(top_diff, size, kernel_size, stride, padding):
    """Return a gradient so that one convolution at stride 1 propagates it to the layer's input.

    The gradient of pixel h of the padded input sums dy[o] * w[h - s o] over the outputs o whose
    windows contain it. This is a convolution with the flipped filter if dy is dilated (s - 1 zeros
    between its values), has K - 1 zeros before the first, and loses the layer's padding again:

        row j of the result = dy[o]  if  j = s o + K - 1 - p,  else 0;  0 <= j < H + K - 1.

    `top_diff` is dy (N, Co, Ho, Wo); `size` is (H, W) of the layer's input, and the rest are K, s
    and p of the layer.
    """
    shift = kernel_size - 1 - padding
    if stride == 1 and shift >= 0:
        return pad(top_diff, shift)
    N, Co, _, _ = top_diff.shape
    H, W = (length + kernel_size - 1 for length in size)
    padded = Padded(np.zeros(padded_shape((N, H, W, Co), 0), top_diff.dtype), 0)
    first = max(0, ceil(-shift / stride))  # the outputs before it read only padding
    start = stride * first + shift
    target = padded.inside[:, start::stride, start::stride]
    dy = top_diff.transpose(0, 2, 3, 1)[:, first:, first:]  # (N, Co, Ho, Wo) -> (N, Ho, Wo, Co)
    rows, columns = np.minimum(dy.shape, target.shape)[1:3]  # the last ones may read only padding
    target[:, :rows, :columns] = dy[:, :rows, :columns]
    return padded

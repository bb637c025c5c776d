"""Channels-last pictures in a border of zeros, the form all convolutions here read.

Winograd's tiles are 4x4 outputs, and the last ones may extend beyond the picture by up to three
rows and columns. Every padded array therefore has that many more zeros at the bottom and on the
right. This module is the only one that knows this rule.
"""

from math import ceil, prod
from typing import NamedTuple

import numpy as np

from fast.strips import run_strips, strips_of_bytes

TILE = 4  # outputs along the side of a Winograd tile; it reads TILE + 2 inputs
OVERHANG = TILE - 1


def whole_tiles(length):
    """Return `length` rounded up to a multiple of TILE; at most OVERHANG more."""
    return ceil(length / TILE) * TILE


class Padded(NamedTuple):
    """Pictures with zeros around them.

    Attributes
    ----------
    array : ndarray of shape (N, H + 2 p + OVERHANG, W + 2 p + OVERHANG, C)
    size : tuple
        (H, W), without the zeros.
    padding : int
        p, zeros on each side, not counting the overhang.
    """

    array: np.ndarray
    size: tuple
    padding: int

    @property
    def inside(self):
        """The pictures alone, a view of shape (N, H, W, C)."""
        return self._from(self.padding, *self.size)

    @property
    def tiles(self):
        """As `inside`, with H and W rounded up to whole tiles."""
        return self._from(self.padding, *map(whole_tiles, self.size))

    @property
    def without_overhang(self):
        """The pictures and their padding, a view of shape (N, H + 2 p, W + 2 p, C)."""
        H, W = self.size
        return self._from(0, H + 2 * self.padding, W + 2 * self.padding)

    def _from(self, start, height, width):
        return self.array[:, start : start + height, start : start + width]

    def output_size(self, kernel_size, stride=1):
        """Return (Ho, Wo), the size of a convolution's output."""
        H, W = (length + 2 * self.padding - kernel_size for length in self.size)
        return H // stride + 1, W // stride + 1


def padded_size(shape, padding):
    """Return how many values `bordered` needs for pictures of shape (N, H, W, C)."""
    return prod(_padded_shape(shape, padding))


def _padded_shape(shape, padding):
    N, H, W, C = shape
    return N, H + 2 * padding + OVERHANG, W + 2 * padding + OVERHANG, C


def bordered(shape, padding, dtype, memory=None):
    """Return a border of zeros around pictures whose values are not initialised.

    Parameters
    ----------
    shape : tuple
        (N, H, W, C), without the border.
    padding : int
    dtype : dtype
    memory : ndarray of shape (size,), optional
        Where to put it, instead of new memory: of this dtype, at least `padded_size` values.
    """
    full = _padded_shape(shape, padding)
    array = np.empty(full, dtype) if memory is None else memory[: prod(full)].reshape(full)
    _, H, W, _ = shape
    rows, columns = slice(padding, padding + H), slice(padding, padding + W)
    array[:, : rows.start] = 0
    array[:, rows.stop :] = 0
    array[:, rows, : columns.start] = 0
    array[:, rows, columns.stop :] = 0
    return Padded(array, (H, W), padding)


def pad(pictures, padding):
    """Return pictures (N, C, H, W), in whatever memory layout, as `Padded`."""
    x = pictures.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    N, H, W, C = x.shape
    padded = bordered(x.shape, padding, x.dtype)
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

    Parameters
    ----------
    top_diff : ndarray of shape (N, Co, Ho, Wo)
    size : tuple
        (H, W) of the layer's input.
    kernel_size, stride, padding : int
        K, s and p of the layer.

    Returns
    -------
    Padded
        Its `output_size(K)` is `size`.
    """
    shift = kernel_size - 1 - padding
    if stride == 1 and shift >= 0:
        return pad(top_diff, shift)
    N, Co, Ho, Wo = top_diff.shape
    H, W = (length + kernel_size - 1 for length in size)
    padded = Padded(np.zeros(_padded_shape((N, H, W, Co), 0), top_diff.dtype), (H, W), 0)
    first = max(0, ceil(-shift / stride))  # the outputs before it read only padding
    start = stride * first + shift
    target = padded.inside[:, start::stride, start::stride]
    rows, columns = min(Ho - first, target.shape[1]), min(Wo - first, target.shape[2])
    if rows > 0 and columns > 0:
        # (N, Co, Ho, Wo) -> (N, Ho, Wo, Co)
        dy = top_diff.transpose(0, 2, 3, 1)[:, first : first + rows, first : first + columns]
        target[:, :rows, :columns] = dy
    return padded

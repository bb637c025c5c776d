"""Tiles of an image that is too large to be computed at once.

A Gram matrix is a sum over positions, and a gradient is a sum over features. Both can be added up
tile by tile, exactly, if each tile is computed together with the pixels around it that its features
depend on: its margin.
"""

from bisect import bisect_left
from itertools import pairwise, product
from math import ceil
from typing import NamedTuple


class Tile(NamedTuple):
    """A rectangle of an image. Both fields are (rows, columns), two slices.

    Attributes
    ----------
    area : tuple of slice
        Of the image: the tile with its margin. At the image's own edges there is none.
    own : tuple of slice
        Of the area: the tile alone.
    """

    area: tuple
    own: tuple


def cut(height, width, side, grid, margin):
    """Return the tiles of an image, in each of whose areas are at most side x side pixels.

    An image of so few pixels is one tile. Of all ways to cut a larger one into rows and columns of
    tiles, the one with the fewest pixels in all areas together is chosen.

    Parameters
    ----------
    height, width : int
    side : int
        Raised to the least that margins allow.
    grid, margin : int
        What `FusedNetwork.reach` returns.

    Returns
    -------
    list of Tile
    """
    most = max(side, 2 * (margin + grid)) ** 2

    def longest(length, number):  # side of an area, if `length` is cut into so many tiles
        own = ceil(length // grid / number) * grid + length % grid
        return length if number == 1 else min(length, own + 2 * margin)

    choices = []
    for down in range(1, max(1, height // grid) + 1):
        room = most // longest(height, down)
        numbers = range(1, max(1, width // grid) + 1)
        i = bisect_left(numbers, True, key=lambda n, room=room: longest(width, n) <= room)
        if i < len(numbers):
            across = numbers[i]
            sides = height + 2 * margin * (down - 1), width + 2 * margin * (across - 1)
            choices.append((sides[0] * sides[1], down, across))
    _, down, across = min(choices)
    pairs = product(_cut(height, down, grid, margin), _cut(width, across, grid, margin))
    return [Tile(*zip(rows, columns, strict=True)) for rows, columns in pairs]


def _cut(length, number, grid, margin):
    """Return (area, own), two slices, of each of `number` nearly equal parts of a side."""
    edges = [length // grid * i // number * grid for i in range(number)] + [length]
    parts = []
    for start, stop in pairwise(edges):
        first = max(0, start - margin)
        area = slice(first, min(length, stop + margin))
        parts.append((area, slice(start - first, stop - first)))
    return parts

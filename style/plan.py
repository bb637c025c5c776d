"""The plan of a run: the sizes, the steps at each, and the memory they need; and where a run is.

A picture is optimised from coarse to fine. At a small size a large stroke is a few pixels wide, so
strokes and composition are found quickly; each size starts from the enlarged result of the last.
"""

from bisect import bisect_left
from dataclasses import replace
from math import inf
from typing import NamedTuple

import numpy as np

from style.settings import INITS, MADE_FILTERS, depth, flag
from support.command import InputError
from support.machine import available_bytes, format_bytes
from support.pictures import fitted

# Pixels: the automatic choice starts with a longest side of at least this. At a smaller size the
# houses and faces of a photograph dissolve, and no later size brings them back.
COARSEST = 190
SAFETY = 1.25  # not all memory that is free can be used: it is allocated in large blocks
OVERHEAD = 16_000  # a step takes as long as one for its pixels and so many more
SMALL = 32  # pixels a side; smaller results are useless
TILES = (1024, 512, 256)  # pixels: sides of the tiles to choose from (`fast/tiles.py`)
TILED = 1.6  # a pixel in tiles takes so many times as long: a second forward pass, and margins
PAIRS = 10  # steps that L-BFGS remembers, if memory allows
LEAST_PAIRS = 3  # with fewer, Adam is better


class Scale(NamedTuple):
    """One of the sizes to work at."""

    height: int  # of the generated picture, in pixels
    width: int
    style_sizes: list  # (height, width) of each style picture
    steps: int = 0

    @property
    def work(self):
        """How long a step takes, in a unit that depends on the machine and the settings."""
        pixels = self.width * self.height
        # an integer: sums of fractions can exceed the total that the bar shows
        return round(pixels * (TILED if pixels > TILES[0] ** 2 else 1)) + OVERHEAD


class Position(NamedTuple):
    """Where a run is: everything the next step depends on, besides settings and pictures.

    Attributes
    ----------
    scale, step : int
        Number of the scale, from 0, and steps done at this scale.
    image : ndarray of shape (1, 3, H, W)
        The picture so far, as network input.
    optimizer_state : dict of str to array_like
        m and v of Adam, s and y of L-BFGS (`style.optimizers`). Empty before the first step.
    """

    scale: int
    step: int
    image: np.ndarray
    optimizer_state: dict


def check_fit(settings, styles, start, layer_names):
    """Raise `InputError` unless the arguments of `stylize` fit the settings and the network."""
    for option in ("content_layers", "style_layers"):
        for name in set(getattr(settings, option)) - set(layer_names):
            last = layer_names[-1]
            raise InputError(f"{flag(option)}: there is no layer {name!r}; the last is {last}")
    blend = settings.style_blend
    if not styles:
        raise InputError("there is no style picture; give at least one")
    if blend is not None and len(blend) != len(styles):
        raise InputError(
            f"--style-blend has {len(blend)} numbers for {len(styles)} --style pictures; "
            "give one for each"
        )
    if start is None and settings.init not in INITS:
        raise InputError(f"init is {settings.init!r}: give the picture itself as `start`")


def plan_scales(content, styles, settings):
    """Return the scales of a run, from coarse to fine, with their shares of the steps.

    A step at twice the size takes four times as long and improves what coarser sizes have begun, so
    each size gets fewer steps: in proportion to 1 / sqrt(longest side). If there are fewer steps
    than sizes, the coarsest sizes are left out. `InputError` if a picture is too small for the
    layers at every size. The arguments are those of `stylize`.
    """
    number_of_scales = settings.scales
    if number_of_scales is None and settings.init not in INITS:
        number_of_scales = 1  # a coarse scale would only blur the picture to start from
    sizes = plan_sizes(content, styles, settings, number_of_scales)[-settings.steps :]
    shares = np.cumsum([max(size.height, size.width) ** -0.5 for size in sizes])
    ends = np.round(settings.steps * shares / shares[-1]).astype(int)
    counts = np.diff(ends, prepend=0).tolist()
    return [size._replace(steps=steps) for size, steps in zip(sizes, counts, strict=True)]


def plan_larger(content, styles, settings):
    """Return the scales of a run at up to twice the size, [] if the content is no larger."""
    longest = max(content.shape[:2])
    if longest <= settings.size:
        return []
    return plan_scales(content, styles, replace(settings, size=min(2 * settings.size, longest)))


def plan_sizes(content, styles, settings, number_of_scales=None, coarsest=COARSEST):
    """Return the sizes to work at, as `Scale` without steps; see `plan_scales`.

    Sizes that are too small for the layers are left out. Without `number_of_scales`, the first is
    the smallest that is not below `coarsest`.
    """
    least = least_side(settings)
    longest = min(settings.size, max(content.shape[:2]))  # enlarging would show nothing new
    if number_of_scales is None:
        number_of_scales = 1 + max(0, int(np.log2(longest / coarsest)))
    sizes = []
    for side in (round(longest / 2**i) for i in range(number_of_scales)):  # from fine to coarse
        height, width = fitted(content, side)
        style_sizes = [fitted(style, side * settings.style_scale) for style in styles]
        if min([height, width, *np.ravel(style_sizes)]) < least:
            break
        sizes.insert(0, Scale(height, width, style_sizes))
    if not sizes:
        shown = ", ".join(f"{w}x{h}" for h, w in style_sizes)
        raise InputError(
            f"with these layers every picture needs at least {least} pixels a side, but at "
            f"--size {settings.size} the content is {width}x{height} and the style {shown}; give "
            "larger ones, or shallower layers"
        )
    return sizes


def least_side(settings):
    """Return the least height and width, in pixels, that every picture needs.

    Statistics need two positions a side in the deepest layer; filters need patches to learn from.
    """
    content_layers, style_layers = settings.used_layers()
    block, is_pool, _ = max(map(depth, (*content_layers, *style_layers)))
    pools = block - 1 + is_pool
    return max(12 if settings.weights in MADE_FILTERS else 8, 2 * 2**pools)


def style_transfer_bytes(scale, layers, settings):
    """Estimate how many bytes style transfer takes at a scale, besides pictures and weights.

    Fitted to the peak memory in the reports (`--report FILE.json`) of runs at sizes from 256 to
    4096 pixels, with networks of 64 and of 4 channels. `layers` are those in use, by name. If they
    are shallow, the estimate is too high.
    """
    convolutions = [layer for layer in layers.values() if layer.kind == "convolution"]
    channels = convolutions[0].channel_out
    filters = sum(36 * layer.channel_in * layer.channel_out for layer in convolutions)
    pixels, style_pixels = scale.height * scale.width, sum(h * w for h, w in scale.style_sizes)
    at_once = min(max(pixels, style_pixels), (settings.tile or TILES[0]) ** 2)
    targets = 0  # bytes a pixel of the content's features
    for block, is_pool, _ in map(depth, settings.used_layers()[0]):
        targets += 4 * channels * min(2 ** (block - 1), 8) / 4 ** (block - 1 + is_pool)
    # images, gradients, the optimiser's memory: bytes a pixel
    memory = 140 if settings.optimizer == "adam" else 100 + 24 * (settings.pairs or PAIRS)
    return int(
        12 * filters  # transformed, forward and backward
        + 18 * channels * at_once  # features, masks and gradients of a tile
        + (memory + targets) * pixels
        + 16 * style_pixels
    )


def fit_memory(settings, scale, layers, choose=True):
    """Return the settings with what fits into memory at the last scale, and the bytes it needs.

    Where the defaults, tiles of 1024 pixels and ten pairs of L-BFGS, do not fit and `settings` do
    not say them, smaller tiles are tried, then fewer pairs, then Adam. `InputError` if nothing
    fits, or if `choose` is False and the settings as they are do not.
    """
    available = available_bytes()
    room = inf if available is None else available / SAFETY
    choices = [settings]
    if choose and settings.tile is None:
        choices += [replace(settings, tile=tile) for tile in TILES[1:]]
    if choose and settings.optimizer == "lbfgs" and settings.pairs is None:
        fewer = range(PAIRS - 1, LEAST_PAIRS - 1, -1)
        choices += [replace(choices[-1], pairs=pairs) for pairs in fewer]
        choices.append(replace(choices[-1], pairs=None, optimizer="adam"))
    for choice in choices:
        needed = style_transfer_bytes(scale, layers, choice)
        if needed <= room:
            return choice, needed

    def is_too_large(side):
        h, w, styles = (side / size * np.array(each) for each in scale[:3])
        return style_transfer_bytes(Scale(h, w, styles), layers, choice) > room

    size = max(scale.height, scale.width)
    advice = "close other programs or raise the memory limit"
    largest = bisect_left(range(size), True, key=is_too_large) - 1
    if choose and largest >= SMALL:
        advice = f"the largest that fits is --size {largest}"
    raise InputError(
        f"--size {size} needs about {format_bytes(needed)} of memory, but only "
        f"{format_bytes(available)} are free; {advice}"
    )

"""The plan of a run: the sizes, the steps at each, and the memory they need; and where a run is.

A picture is optimised from coarse to fine. At a small size a large stroke is a few pixels wide, so
strokes and composition are found quickly; each size starts from the enlarged result of the last.
"""

from dataclasses import replace
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


class Scale(NamedTuple):
    """One of the sizes to work at.

    Attributes
    ----------
    height, width : int
        Of the generated picture, in pixels.
    style_sizes : list of (int, int)
        Height and width of each style picture.
    steps : int
    """

    height: int
    width: int
    style_sizes: list
    steps: int = 0

    @property
    def work(self):
        """How long a step takes, in a unit that depends on the machine and the settings."""
        return self.width * self.height + OVERHEAD


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


def style_transfer_bytes(pixels, channels, optimizer):
    """Estimate how many bytes style transfer takes besides pictures and weights.

    Fitted to the "peak_memory_bytes" of ``style_transfer_cpu.py --scales 1 --report FILE.json`` at
    sizes from 256 to 1536, with networks of 64 and 4 channels. With the default layers the estimate
    is within a tenth of the measured values; with shallow layers only it is too high. `pixels` are
    those of the largest picture that the network sees, `channels` those of its first layer.
    """
    width = channels / 64
    filters = 620e6 * width**2  # plain and transformed, forward and backward
    features = 1900 * width  # a pixel: buffers, masks and targets of the layers
    optimisation = {"lbfgs": 420, "adam": 180}[optimizer]  # a pixel: ten pairs of L-BFGS are 240
    return int(filters + pixels * (features + optimisation))


def check_memory(size, pixels, channels, optimizer):
    """Return the bytes that a run needs; raise `InputError` if there are not so many.

    `size` is the longest side of the result, the others are those of `style_transfer_bytes`.
    """
    needed, available = style_transfer_bytes(pixels, channels, optimizer), available_bytes()
    if available is None or SAFETY * needed <= available:
        return needed
    fixed = style_transfer_bytes(0, channels, optimizer)
    largest = int(size * (max(0, available / SAFETY - fixed) / (needed - fixed)) ** 0.5)
    advice = f"the largest that fits is --size {largest}"
    if largest < SMALL:
        advice = "no size fits; close other programs or raise the memory limit"
    raise InputError(
        f"--size {size} needs about {format_bytes(needed)} of memory, but only "
        f"{format_bytes(available)} are free; {advice}"
    )

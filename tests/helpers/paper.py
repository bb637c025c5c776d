"""Photographs of digits, made from digits of 28x28 pixels, for the tests of `find_digit`."""

import numpy as np
from PIL import Image
from scipy import ndimage

SCENES = ("enlarged", "inverted", "shifted", "paper")


def photograph(digit, scene, rng):
    """Return a picture (H, W, 3) of `digit` (28, 28), 6 to 13 times as large.

    "inverted": dark on light. "shifted": anywhere on a larger sheet. "paper": dark grey on a grey
    sheet, half of it in a shadow, lit from one side, with grain.
    """
    side = 28 * int(rng.integers(6, 14))
    image = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(image) / 255.0
    if scene in ("shifted", "paper"):
        height, width = (int(side * rng.uniform(1.2, 2)) for _ in range(2))
        y, x = rng.integers(0, (height - side + 1, width - side + 1))
        ink = np.pad(ink, ((y, height - side - y), (x, width - side - x)))
    grey = 255 * ink if scene in ("enlarged", "shifted") else 255 * (1 - ink)
    if scene == "paper":
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        shadow = np.cos(angle) * x + np.sin(angle) * y > rng.uniform(0.2, 0.6)
        light = ndimage.gaussian_filter(1 - 0.35 * shadow, side / 28) * (1 - 0.25 * x)
        grey = 190 * light * (1 - 0.8 * ink) + rng.normal(scale=4, size=ink.shape)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=2)  # (H, W) -> (H, W, 3)

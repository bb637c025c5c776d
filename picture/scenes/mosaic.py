"""A mosaic: overlapping discs made of rings; each ring is cut into pieces (tesserae)."""

import numpy as np
from scipy.ndimage import gaussian_filter

from picture.scenes.tools import average_down, canvas, fractal, make_lattice, mix, smoothstep

STONES = {  # five warm ones, then five cool ones
    "gold": (0.86, 0.66, 0.22),
    "ochre": (0.74, 0.46, 0.16),
    "vermilion": (0.80, 0.22, 0.12),
    "wine": (0.45, 0.08, 0.16),
    "cream": (0.93, 0.87, 0.72),
    "turquoise": (0.16, 0.60, 0.60),
    "cobalt": (0.08, 0.22, 0.58),
    "night": (0.06, 0.09, 0.26),
    "leaf": (0.26, 0.48, 0.24),
    "sky": (0.48, 0.70, 0.80),
}
NAMES = list(STONES)
SIDE = 0.0225  # of a piece, in heights of the picture


def choose_stones(rng, cx, cy, rings):
    """Return the stone of each ring of the disc at (cx, cy), as indices into `STONES`.

    Each disc has three stones of the warm or the cool half and one of the other half. Warm discs
    lie around one point. Neighbouring rings often share a stone; the outermost is gold.
    """
    warm = np.hypot(cx - 0.72, cy - 0.58) < 0.40
    halves = rng.permutation(5), rng.permutation(5) + 5
    family = np.append(halves[0 if warm else 1][:3], halves[1 if warm else 0][0])
    stones = family[np.cumsum(rng.random(rings) < 0.45) % 4]
    stones[0], stones[-1] = NAMES.index("cream"), NAMES.index("gold")
    return stones


def cut_disc(rng, x, y, cx, cy, radius):
    """Cut the disc at (cx, cy) into pieces.

    Parameters
    ----------
    x, y : ndarrays of shape (n,)
        The visible points of the disc.

    Returns
    -------
    colour : ndarray of shape (n, 3)
    tilt : ndarray of shape (n, 2)
        How the piece at each point is inclined, -0.5..0.5.
    gap : ndarray of shape (n,)
        Distance from the nearest joint, in sides of a piece.
    """
    rings = round(radius / SIDE)
    r = np.hypot(x - cx, y - cy) / radius * rings
    ring = np.minimum(r.astype(int), rings - 1)
    angle = np.arctan2(y - cy, x - cx) / (2 * np.pi) + 0.5
    pieces = np.round(2 * np.pi * (np.arange(rings) + 0.5))[ring]  # about as long as wide
    place = (angle + rng.random(rings)[ring]) * pieces
    piece = (place % pieces).astype(int)

    stones = choose_stones(rng, cx, cy, rings)
    dice = rng.random((rings, int(pieces.max(initial=1)) + 1, 6))[ring, piece]
    any_stone = (dice[:, 5] * len(STONES)).astype(int)
    stone = np.where(dice[:, 0] < 0.08, any_stone, stones[ring])
    colour = np.array(list(STONES.values()))[stone] * (0.74 + 0.46 * dice[:, 1:2])
    across = np.minimum(r - ring, ring + 1 - r)
    along = np.minimum(place % 1, 1 - place % 1) * 2 * np.pi * np.maximum(r, 0.3) / pieces
    return colour, dice[:, 2:4] - 0.5, np.minimum(across, along) * (0.8 + 0.4 * dice[:, 4])


def paint(rng, height, width):
    """Return the mosaic as colours of shape (height, width, 3)."""
    x, y = canvas(height, width)
    lattice = make_lattice(rng)
    # Circles cut by hand are not perfect.
    x = x + 0.006 * fractal(lattice, x * 7, y * 7, 2)
    y = y + 0.006 * fractal(lattice, x * 7 + 40, y * 7, 2)
    gap = np.zeros(x.shape)
    colour = np.zeros((*x.shape, 3))
    tilt = np.zeros((*x.shape, 2))
    top = np.full(x.shape, -1)  # the number of the disc that lies on top

    discs = rng.uniform([-0.1, -0.1, 0.13], [1.35, 1.1, 0.34], (60, 3))
    discs = discs[np.argsort(-discs[:, 2])]  # small discs lie over large ones
    for number, (cx, cy, radius) in enumerate(discs):
        top[np.hypot(x - cx, y - cy) < radius] = number
    for number, disc in enumerate(discs):
        here = top == number
        colour[here], tilt[here], gap[here] = cut_disc(rng, x[here], y[here], *disc)
    # Where one disc covers another, its rim is a joint too.
    edge = np.hypot(*np.gradient(top.astype(float))) > 0
    gap = gap * (1 - gaussian_filter(edge.astype(float), 0.0024 * x.shape[0])) ** 2

    # The pieces are domed, and light falls on them from the upper left.
    dome = gaussian_filter(smoothstep(0.03, 0.30, gap), 0.0012 * x.shape[0])
    slope_y, slope_x = np.gradient(dome * SIDE * x.shape[0])
    grain = fractal(lattice, x * 130, y * 130, 3)
    facing = 0.11 * (slope_x + slope_y) + 0.22 * (tilt[..., 0] + tilt[..., 1]) + 0.06 * grain
    surface = colour * (1 + facing)[..., None]
    surface = surface + (0.20 * np.clip(facing - 0.12, 0, 1))[..., None]
    grout = np.array([0.13, 0.11, 0.11]) * (1 + 0.4 * grain)[..., None]
    return average_down(mix(grout, surface, smoothstep(0.045, 0.13, gap)))

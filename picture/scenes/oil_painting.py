"""An oil painting: thousands of bristle strokes that follow a swirling flow."""

import numpy as np
from scipy.ndimage import gaussian_filter

from picture.scenes.tools import (
    average_down,
    canvas,
    fractal,
    gradient,
    make_lattice,
    mix,
    smoothstep,
)

EDDIES = [  # x, y, radius, sense of rotation: where the paint curls up
    (0.27, 0.27, 0.23, 1.0),
    (0.93, 0.74, 0.25, -1.0),
    (0.74, 0.15, 0.13, -1.0),
    (0.50, 0.90, 0.15, 1.0),
    (1.16, 0.33, 0.12, 1.0),
    (0.05, 0.62, 0.11, -1.0),
]
NIGHT = [
    (-0.5, (0.03, 0.06, 0.22)),
    (-0.2, (0.05, 0.14, 0.40)),
    (0.0, (0.07, 0.30, 0.52)),
    (0.2, (0.06, 0.44, 0.50)),
    (0.45, (0.36, 0.66, 0.62)),
]
RINGS = [  # around an eddy; the last colour is the first, so the rings repeat
    (0.0, (0.05, 0.12, 0.36)),
    (0.25, (0.06, 0.34, 0.56)),
    (0.50, (0.16, 0.60, 0.60)),
    (0.66, (0.72, 0.84, 0.66)),
    (0.76, (0.86, 0.40, 0.20)),
    (0.88, (0.34, 0.10, 0.26)),
    (1.0, (0.05, 0.12, 0.36)),
]
LIGHT = [  # from the middle of the stream of light to its edge
    (0.00, (1.00, 0.93, 0.62)),
    (0.05, (0.99, 0.80, 0.30)),
    (0.11, (0.90, 0.58, 0.14)),
    (0.16, (0.80, 0.28, 0.10)),
    (0.20, (0.50, 0.14, 0.16)),
]
STROKES = (  # width and length in pixels of a canvas of 640 rows, and how many
    (42, 240, 420),
    (26, 165, 1000),
    (16, 110, 1700),
    (9, 70, 1700),
)


def distance_from_stream(x, y):
    """Return the signed distance from the middle of the stream of light across the canvas."""
    return (y - 0.66 + 0.42 * (x - 0.35) - 0.11 * np.sin(5.0 * x + 0.6)) / 1.1


def flow_field(lattice, x, y):
    """Return the direction of the brush at every pixel: unit vectors of shape (H, W, 2).

    The field is the curl of a potential. It has no divergence, so strokes neither gather nor
    part.
    """
    stream = distance_from_stream(x, y)
    potential = 0.055 * fractal(lattice, x * 2.6, y * 2.6, 3) - 0.165 * np.tanh(stream / 0.30)
    for ex, ey, radius, rotation in EDDIES:
        r2 = ((x - ex) ** 2 + (y - ey) ** 2) / radius**2
        potential = potential + 0.9 * rotation * radius * np.exp(-r2 * 0.9)
    along_y, along_x = np.gradient(potential)
    field = np.stack([along_y, -along_x], axis=-1)
    return field / (np.linalg.norm(field, axis=-1, keepdims=True) + 1e-12)


def underpainting(lattice, x, y):
    """Return the colours that the strokes sample, of shape (H, W, 3)."""
    wander = fractal(lattice, x * 2.2 + 4, y * 2.2, 5)
    stream = distance_from_stream(x, y) + 0.10 * wander
    shade = fractal(lattice, x * 3 + 2.0 * wander, y * 3 + 20, 4) + 0.35 * (y - 0.5)
    colours = gradient(shade, NIGHT)
    for ex, ey, radius, rotation in EDDIES:
        r = np.hypot(x - ex, y - ey) / radius
        # The colours shift with the angle, which winds the rings into a spiral.
        winding = rotation * np.arctan2(y - ey, x - ex) / (2 * np.pi)
        rings = gradient((1.9 * np.sqrt(r + 0.02) + winding + 0.2 * wander) % 1, RINGS)
        colours = mix(colours, rings, smoothstep(1.15, 0.75, r))
    light = gradient(np.abs(stream), LIGHT)
    return mix(colours, light, smoothstep(0.235, 0.17, np.abs(stream)))


def sample(array, place):
    """Return `array` at the (column, row) places of shape (n, 2), those outside at its edge."""
    height, width = array.shape[:2]
    column = np.clip(place[:, 0], 0, width - 1).astype(int)
    row = np.clip(place[:, 1], 0, height - 1).astype(int)
    return array[row, column]


def follow_flow(field, start, lengths, deviation, steps):
    """Return the centre line and the normals of n strokes, both of shape (n, steps, 2).

    Parameters
    ----------
    field : ndarray of shape (H, W, 2)
    start : ndarray of shape (n, 2), column and row
    lengths : ndarray of shape (n,), pixels
    deviation : ndarray of shape (n,)
        Angle between each stroke and the flow, radians.
    """
    place = start.copy()
    spine, normal = np.empty((len(start), steps, 2)), np.empty((len(start), steps, 2))
    cos, sin = np.cos(deviation), np.sin(deviation)
    for step in range(steps):
        flow = sample(field, place)
        direction = np.stack(
            [flow[:, 0] * cos - flow[:, 1] * sin, flow[:, 0] * sin + flow[:, 1] * cos], axis=-1
        )
        spine[:, step], normal[:, step] = place, direction[:, ::-1] * [-1, 1]
        place += direction * (lengths / steps)[:, None]
    return spine, normal


def bristle_tracks(rng, bristles, n, along, across):
    """Return random pieces of the bristle pattern and the part of each that leaves paint.

    Returns
    -------
    furrow : ndarray of shape (n, len(along), len(across)), 0..1
    visible : bool ndarray of the same shape
    """
    pattern = rng.integers(bristles.shape[0] - len(across), size=n)
    shift = rng.integers(bristles.shape[1] - len(along), size=n)
    rows = pattern[:, None, None] + np.arange(len(across))[None, None, :]
    furrow = bristles[rows, shift[:, None, None] + np.arange(len(along))[None, :, None]]
    u, v = along[None, :, None], across[None, None, :]
    dry = 0.10 + 0.75 * smoothstep(0.5, 1.05, u) + 0.5 * smoothstep(0.10, 0.0, u)
    outline = np.abs(v) ** 3 + np.abs(2 * u - 1) ** 9
    return furrow, (furrow + 0.30 > dry * 0.95) & (outline < 0.9 + 0.3 * furrow)


def lay_strokes(rng, paint, relief, field, colours, bristles, width, length, count):
    """Paint `count` strokes of `width` x `length` pixels over `paint` and `relief`, in place.

    A stroke is a strip of samples (along, across) bent along the flow. The bristles leave
    furrows, run dry towards the end, and push the paint up into ridges at both edges.
    """
    rows, columns = relief.shape
    along = np.linspace(0, 1, int(length * 1.25) + 2, dtype=np.float32)
    across = np.linspace(-1, 1, int(width * 1.35) + 2, dtype=np.float32)
    starts = rng.uniform(-0.08, 1.08, (count, 2)) * [columns, rows]
    lengths = length * rng.uniform(0.55, 1.0, count)
    widths = width * rng.uniform(0.6, 1.0, count)
    at_once = max(1, 1_000_000 // (len(along) * len(across)))  # limits the memory
    for first in range(0, count, at_once):
        group = slice(first, first + at_once)
        n = len(starts[group])
        deviation = rng.normal(0, 0.14, n)
        spine, normal = follow_flow(field, starts[group], lengths[group], deviation, len(along))

        middle = spine[:, len(along) // 2]
        colour = sample(colours, middle) * rng.uniform(0.84, 1.18, (n, 1))
        colour = colour + rng.normal(0, 0.03, (n, 3))
        # A brush that was not cleaned carries another colour of the neighbourhood on one side.
        second = sample(colours, middle + rng.normal(0, 0.09 * rows, (n, 2)))

        furrow, visible = bristle_tracks(rng, bristles, n, along, across)
        reach = across[None, None, :] * widths[group][:, None, None] / 2
        column = (spine[:, :, None, 0] + reach * normal[:, :, None, 0]).astype(int)
        row = (spine[:, :, None, 1] + reach * normal[:, :, None, 1]).astype(int)
        visible &= (column >= 0) & (column < columns) & (row >= 0) & (row < rows)

        # From here on: one flat list of the samples that leave paint.
        stroke, step, track = np.nonzero(visible)
        row, column, furrow = row[visible], column[visible], furrow[visible]
        v = across[track]
        side = rng.choice([-1, 1], n)[stroke] * v
        dab = mix(colour[stroke], second[stroke], 0.5 * smoothstep(0.2, 1.0, side + 0.5 * furrow))
        paint[row, column] = dab * (0.80 + 0.40 * furrow)[:, None]  # the last stroke is on top
        load = (0.35 + 0.75 * furrow + 0.55 * v**4) * (1 - 0.5 * along[step]) * (8 + width / 2)
        relief[row, column] = 0.35 * relief[row, column] + load


def paint(rng, height, width):
    """Return the oil painting as colours of shape (height, width, 3)."""
    lattice = make_lattice(rng)
    x, y = canvas(height, width)
    field, colours = flow_field(lattice, x, y), underpainting(lattice, x, y)
    pigment = colours * 0.45 + np.array([0.10, 0.06, 0.05])
    relief = np.zeros(x.shape)
    unit = x.shape[0] / 640
    # The bristle pattern: fine across the brush (rows), long along the stroke (columns).
    size = max(512, round(256 * unit)), max(2048, round(1024 * unit))  # larger than any stroke
    bristles = gaussian_filter(rng.normal(size=size), (0.9 * unit, 26 * unit))
    bristles = np.clip(0.5 + 0.30 * bristles / bristles.std(), 0, 1).astype(np.float32)
    for broad, long, count in STROKES:
        lay_strokes(
            rng, pigment, relief, field, colours, bristles, broad * unit, long * unit, count
        )
    # Thick paint (impasto) has relief: light from the upper left brightens one side of it.
    relief = gaussian_filter(relief, 0.7 * unit) / unit
    slope_y, slope_x = np.gradient(relief)
    facing = 0.075 * (slope_x + slope_y)
    shine = np.clip(facing - 0.10, 0, 0.5) ** 1.5
    pigment = pigment * (1 + np.clip(facing, -0.45, 0.34))[..., None] + 0.35 * shine[..., None]
    return average_down(pigment)

"""Tools that all scenes share: colours, noise and the supersampled canvas.

Colours are float RGB in 0..1. A scene is painted `SUPERSAMPLING` times larger in each direction
and then averaged down, which smooths all edges.
"""

import numpy as np

SUPERSAMPLING = 2


def smoothstep(low, high, x):
    """Return 0 below `low`, 1 above `high`, and a smooth S-curve between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, amount):
    """Return the blend of the colours `a` and `b`; `amount` is 0 for `a`, 1 for `b`.

    `amount` has the shape of the colours without their last axis.
    """
    amount = np.asarray(amount)[..., None]
    return np.asarray(a) * (1 - amount) + np.asarray(b) * amount


def gradient(position, stops):
    """Return colours interpolated between `stops`.

    Parameters
    ----------
    position : ndarray of any shape (...)
    stops : list of (position, (red, green, blue)), by rising position

    Returns
    -------
    ndarray of shape (..., 3)
    """
    places = [place for place, _ in stops]
    colours = np.array([colour for _, colour in stops])
    return np.stack([np.interp(position, places, colours[:, c]) for c in range(3)], axis=-1)


def make_lattice(rng):
    """Return the random lattice that `noise` reads, of shape (256, 256)."""
    return rng.uniform(-1, 1, (256, 256)).astype(np.float32)


def noise(lattice, x, y):
    """Return value noise in about -1..1: random numbers on a lattice, smoothly interpolated."""
    x0, y0 = np.floor(x), np.floor(y)
    u, v = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    left, top = x0.astype(np.int32), y0.astype(np.int32)
    # The lattice is 256 x 256 and repeats, so the last 8 bits of the coordinate are the index.
    left, right = left & 255, (left + 1) & 255
    top, bottom = (top & 255) << 8, ((top + 1) & 255) << 8
    a, b = lattice.take(top | left), lattice.take(top | right)
    c, d = lattice.take(bottom | left), lattice.take(bottom | right)
    a, c = a + u * (b - a), c + u * (d - c)
    return a + v * (c - a)


def fractal(lattice, x, y, octaves=5, ridged=False):
    """Return octaves of `noise`, each twice as fine and half as strong, in about -1..1.

    With `ridged`, each octave is 1 - 2 |noise|, which has sharp crests like a mountain range.
    """
    x, y = np.asarray(x), np.asarray(y)
    total = 0
    for octave in range(octaves):
        # Without the shift, the lattices of all octaves would meet at the origin.
        layer = noise(lattice, x * 2**octave + 37.3 * octave, y * 2**octave + 11.7 * octave)
        total = total + (1 - 2 * np.abs(layer) if ridged else layer) * 0.5 ** (octave + 1)
    return total


def canvas(height, width):
    """Return x, y of every supersampled pixel: y runs 0..1 downwards, x in the same unit."""
    rows, columns = np.mgrid[: height * SUPERSAMPLING, : width * SUPERSAMPLING]
    unit = height * SUPERSAMPLING
    return (columns + 0.5) / unit, (rows + 0.5) / unit


def average_down(colours):
    """Return the colours averaged over squares of s x s pixels, s being `SUPERSAMPLING`."""
    s = SUPERSAMPLING
    height, width = colours.shape[0] // s, colours.shape[1] // s
    blocks = colours.reshape(height, s, width, s, 3)  # (s H, s W, 3) -> (H, s, W, s, 3)
    return blocks.mean(axis=(1, 3))  # (H, s, W, s, 3) -> (H, W, 3)


def to_uint8(colours):
    """Return the colours as 8-bit values, 0..255; what lies outside 0..1 is clipped."""
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)

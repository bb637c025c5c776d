"""Paint the project's own pictures: one content scene and four styles.

    python picture/make_scenes.py

Nothing is photographed or borrowed; every pixel is computed from a seed with NumPy, SciPy and
Pillow, so the pictures are free to use and can be made again.

content.jpg       a lake town at dusk: a landscape of fractal noise seen through a pinhole camera
style.jpg         an oil painting: thousands of bristle strokes that follow a swirling flow
style_mosaic.jpg  discs of stone and gold tesserae in dark grout
style_ink.jpg     a woodcut: carved lines whose thickness is the tone

Every scene is drawn larger than needed and averaged down, which smooths all its edges at once.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, only picture/ would be on the path

from support.command import InputError  # noqa: E402
from support.files import atomic_path  # noqa: E402

SUPERSAMPLING = 2  # drawn this many times larger in each direction, then averaged


# ----------------------------------------------------------------------------------------------
# Tools that all scenes share. Colours are float RGB in 0..1.
# ----------------------------------------------------------------------------------------------


def smoothstep(low, high, x):
    """Return 0 below `low`, 1 above `high`, and a smooth S-curve between them."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, amount):
    """Return the blend of colours `a` and `b`; `amount` (0: a, 1: b) gets a channel axis."""
    amount = np.asarray(amount)[..., None]
    return np.asarray(a) * (1 - amount) + np.asarray(b) * amount


def gradient(position, stops):
    """Return colours interpolated between `stops`, a list of (position, (r, g, b)).

    Parameters
    ----------
    position : ndarray of any shape (...)
    stops : list of (float, tuple), in rising order

    Returns
    -------
    ndarray of shape (..., 3)
    """
    places = [place for place, _ in stops]
    colours = np.array([colour for _, colour in stops])
    return np.stack([np.interp(position, places, colours[:, c]) for c in range(3)], axis=-1)


def noise(lattice, x, y):
    """Return value noise in about -1..1: random numbers on a lattice, smoothly interpolated."""
    x0, y0 = np.floor(x), np.floor(y)
    u, v = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    left, top = x0.astype(np.int32), y0.astype(np.int32)
    # The lattice is 256 x 256 and repeats, so the last 8 bits of the place are the index.
    left, right = left & 255, (left + 1) & 255
    top, bottom = (top & 255) << 8, ((top + 1) & 255) << 8
    a, b = lattice.take(top | left), lattice.take(top | right)
    c, d = lattice.take(bottom | left), lattice.take(bottom | right)
    a, c = a + u * (b - a), c + u * (d - c)
    return a + v * (c - a)


def fractal(lattice, x, y, octaves=5, ridged=False):
    """Return octaves of `noise`, each twice as fine and half as strong, in about -1..1.

    With `ridged`, every octave is folded at zero, which makes sharp crests as on mountains.
    """
    x, y = np.asarray(x), np.asarray(y)
    total = 0
    for octave in range(octaves):
        # The shift keeps the lattices of the octaves from lining up at the origin.
        layer = noise(lattice, x * 2**octave + 37.3 * octave, y * 2**octave + 11.7 * octave)
        total = total + (1 - 2 * np.abs(layer) if ridged else layer) * 0.5 ** (octave + 1)
    return total


def make_lattice(rng):
    """Return the random lattice that `noise` reads, of shape (256, 256)."""
    return rng.uniform(-1, 1, (256, 256)).astype(np.float32)


def shrink(picture):
    """Return the picture averaged down by `SUPERSAMPLING`; (s H, s W, 3) -> (H, W, 3)."""
    s = SUPERSAMPLING
    height, width = picture.shape[0] // s, picture.shape[1] // s
    return picture.reshape(height, s, width, s, 3).mean(axis=(1, 3))


def canvas(height, width):
    """Return x, y of every supersampled pixel: y runs 0..1 downwards, x in the same unit."""
    rows, columns = np.mgrid[: height * SUPERSAMPLING, : width * SUPERSAMPLING]
    unit = height * SUPERSAMPLING
    return (columns + 0.5) / unit, (rows + 0.5) / unit


# ----------------------------------------------------------------------------------------------
# Content: a lake town at dusk
#
# The world is measured in metres: x to the right, z upwards (0 is the water), d away from us.
# A mirror in the water is what a camera as far below the surface would see, turned upside down,
# so the whole scene is painted twice, with the eye at +h and at -h.
# ----------------------------------------------------------------------------------------------

SUN = np.array([-0.80, 0.38, -0.46])  # where the light comes from: left, above, a little behind us
SUNLIGHT = np.array([1.15, 0.72, 0.42])
SKYLIGHT = np.array([0.40, 0.44, 0.60])
HAZE = np.array([0.80, 0.60, 0.56])
HAZE_LENGTH = 6000.0  # metres after which 1/e of an object's own colour is left
LAMP = np.array([1.0, 0.80, 0.42])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along d; rows and columns count supersampled pixels."""

    height: int
    width: int
    horizon: float  # row
    focal: float  # pixels
    eye: float  # metres above the water

    def project(self, points):
        """Return pixel columns and rows of world points; (..., 3) -> (..., 2)."""
        points = np.asarray(points)
        x, z, d = points[..., 0], points[..., 1], points[..., 2]
        column = self.width / 2 + self.focal * x / d
        row = self.horizon - self.focal * (z - self.eye) / d
        return np.stack([column, row], axis=-1)


def lit(colour, normal, distance):
    """Return the colour of a surface under the sun and the sky, seen through the haze.

    Parameters
    ----------
    colour : array_like of shape (3,) or (n, 3)
    normal : ndarray of shape (3,) or (n, 3)
        Unit vector, or n of them for as many surfaces.
    distance : float, metres
    """
    direct = np.maximum(normal @ SUN, 0)[..., None]
    shaded = np.asarray(colour) * (0.85 * SKYLIGHT + 0.62 * direct * SUNLIGHT)
    own = np.exp(-distance / HAZE_LENGTH)
    return shaded * own + HAZE * (1 - own)


def ink(colour):
    """Return the colour as the 8-bit tuple that Pillow draws with."""
    return tuple(int(255 * min(max(c, 0.0), 1.0) + 0.5) for c in colour)


def land_height(lattice, x, d):
    """Return the height of the ground in metres; below 0 it lies under the lake."""
    far = smoothstep(3500, 7500, d)
    crests = fractal(lattice, x / 5200 + 3.1, d / 5200, 9, ridged=True)
    peaks = sum(
        top * np.exp(-(((x - px) / spread) ** 2) - ((d - pd) / 2600) ** 2)
        for px, pd, spread, top in [
            (-1300, 10500, 1500, 2350),
            (1500, 12500, 1700, 1900),
            (-5200, 9500, 1500, 1750),
            (5000, 9500, 1700, 1750),
        ]
    )
    mountains = far * (peaks * (0.62 + 0.75 * crests) + 420 * crests + 160)
    bay = 1500 + 500 * fractal(lattice, x / 700, d * 0 + 5.5, 3)
    rise = smoothstep(0, 2400, d - bay)
    folds = fractal(lattice, x / 1300 + 9.2, d / 1300, 8, ridged=True)
    hills = rise * (150 + 420 * folds)
    hill = 66 * np.exp(-(((x - 168) / 112) ** 2) - ((d - 455) / 165) ** 2)
    hill = hill + 5 * fractal(lattice, x / 60, d / 60, 5) * smoothstep(2, 14, hill) - 4
    rocks = 12.0 * np.exp(-(((x + 72) / 27) ** 2) - ((d - 205) / 22) ** 2)
    rocks = rocks * (1 + 0.55 * fractal(lattice, x / 9, d / 9, 4)) - 3
    return np.maximum.reduce([mountains + hills - 6, hill, rocks])


class Land:
    """The ground, sampled along the camera's columns at growing distances.

    Attributes
    ----------
    d : ndarray of shape (n, 1), distances in metres
    height : ndarray of shape (n, columns), metres
    colour : ndarray of shape (n, columns, 3), lit and hazed
    """

    def __init__(self, lattice, camera):
        near, far = np.geomspace(90, 3500, 520, endpoint=False), np.linspace(3500, 15000, 620)
        self.d = np.concatenate([near, far])[:, None]
        sideways = (np.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal
        x = sideways * self.d
        self.height = land_height(lattice, x, self.d)
        self.colour = self._paint(lattice, x, sideways)

    def _paint(self, lattice, x, sideways):
        d, height = self.d, self.height
        slope_x = np.gradient(height, axis=1) / np.gradient(x, axis=1)
        # Along a column x grows with d; its share is taken out to keep the slope along d alone.
        slope_d = np.gradient(height, axis=0) / np.gradient(d, axis=0) - slope_x * sideways
        normal = np.stack([-slope_x, np.ones_like(height), -slope_d], axis=-1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        speckle = fractal(lattice, x / 40, d / 40, 4)
        patches = fractal(lattice, x / 420, d / 420, 5)

        forest = mix([0.08, 0.17, 0.13], [0.27, 0.29, 0.13], smoothstep(-0.5, 0.6, patches))
        forest = forest * (1 + 0.7 * speckle[..., None])
        rock = mix([0.30, 0.27, 0.30], [0.46, 0.40, 0.38], smoothstep(-0.4, 0.4, patches))
        colour = mix(forest, rock, smoothstep(480, 900, height + 260 * patches))
        snow = smoothstep(1150, 1500, height + 420 * patches) * smoothstep(
            0.42, 0.62, normal[..., 1]
        )
        colour = mix(colour, [0.84, 0.85, 0.95], snow)
        shore = smoothstep(4.5, 1.5, height + 2 * speckle) * (d < 900)
        pebbles = 1 + 0.9 * fractal(lattice, x / 5, d / 5, 3)
        colour = mix(colour, np.array([0.40, 0.36, 0.34]) * pebbles[..., None], shore)

        direct = np.clip(normal @ SUN, 0, None)
        direct *= np.where(d > 900, 0.75 + 0.6 * smoothstep(150, 900, height), 0.75)
        colour = colour * (SKYLIGHT + 0.86 * direct[..., None] * SUNLIGHT)
        air = 1 - np.exp(-d / HAZE_LENGTH)
        mist = 0.72 * smoothstep(900, 3200, d) * np.exp(-np.clip(height, 0, None) / 120)
        return mix(colour, HAZE, np.maximum(air * np.exp(-height / 2200), mist))

    def look(self, camera):
        """Return what the camera sees: distance (inf: no land) and colour of every pixel.

        A ray meets the ground at the first distance whose land reaches as high as the ray. Per
        column that is a search in the running maximum of the projected heights.
        """
        rise = camera.focal * (self.height - camera.eye) / self.d  # pixels above the horizon
        highest = np.maximum.accumulate(np.where(self.height > 0, rise, -np.inf), axis=0)
        above = camera.horizon - (np.arange(camera.height) + 0.5)
        seen = np.full((camera.height, camera.width), np.inf)
        colour = np.zeros((camera.height, camera.width, 3))
        for column in range(camera.width):
            reached = highest[:, column]
            hit = np.searchsorted(reached, above)
            rows = np.flatnonzero(hit < len(reached))
            hit = hit[rows]
            before = np.maximum(hit - 1, 0)
            # Between two samples the ground is a straight line, unless water lies before.
            gap = reached[hit] - reached[before]
            whole = ~np.isfinite(gap) | (gap <= 0)
            part = np.where(whole, 1, (above[rows] - reached[before]) / np.where(whole, 1, gap))
            seen[rows, column] = self.d[hit, 0]
            colour[rows, column] = mix(self.colour[before, column], self.colour[hit, column], part)
        return seen, colour


def paint_sky(lattice, camera):
    """Return the evening sky, of shape (height, width, 3)."""
    rows, columns = np.mgrid[: camera.height, : camera.width].astype(np.float32)
    across = (columns - camera.width / 2) / camera.focal
    up = np.clip((camera.horizon - rows) / camera.focal, 0, None)
    away = np.hypot(across + 0.16, (up - 0.03) * 1.5)  # from the place where the sun went down
    sky = gradient(
        up + 0.18 * smoothstep(0.1, 0.8, away),
        [
            (0.00, (1.00, 0.74, 0.42)),
            (0.10, (0.97, 0.66, 0.46)),
            (0.22, (0.80, 0.58, 0.58)),
            (0.38, (0.46, 0.50, 0.68)),
            (0.60, (0.20, 0.30, 0.54)),
            (0.80, (0.11, 0.19, 0.42)),
        ],
    )
    sky = sky + np.exp(-((away / 0.30) ** 2))[..., None] * np.array([0.34, 0.22, 0.02])

    def cloud_density(shift):
        # The clouds lie on a plane overhead, so they crowd together towards the horizon.
        far = 1 / (up + 0.16)
        u, v = across * far * 1.25 + shift, far * 2.1
        warp = fractal(lattice, u * 0.9 + 7.7, v * 0.9, 3)
        return fractal(lattice, u + 0.7 * warp + 1.3, v + 0.7 * warp, 7)

    density = cloud_density(0.0)
    cover = smoothstep(-0.02, 0.42, density + 0.08) * smoothstep(0.02, 0.14, up)
    towards_sun = density - cloud_density(-0.16 * np.tanh(8 * (across + 0.16)))
    glow = smoothstep(-0.22, 0.30, towards_sun) * np.exp(-0.9 * away)
    shadow = mix([0.56, 0.44, 0.54], [0.24, 0.29, 0.47], smoothstep(0.1, 0.7, away))
    bright = mix([1.06, 0.80, 0.50], [0.98, 0.60, 0.50], smoothstep(0.05, 0.55, away))
    return mix(sky, mix(shadow, bright, glow), 0.86 * cover)


def draw_polygon(draw, camera, points, colour):
    """Fill the polygon with these world points."""
    draw.polygon(camera.project(points).ravel().tolist(), fill=ink(colour))


def draw_windows(draw, camera, rng, wall, columns, rows, normal, distance):
    """Draw a grid of windows on a `wall` of four corners: bottom left, then around."""
    bottom_left, bottom_right, top_right, top_left = wall
    dark = lit([0.20, 0.24, 0.34], normal, distance)
    for row in range(rows):
        for column in range(columns):
            u = (column + np.array([0.30, 0.70, 0.70, 0.30])) / columns
            v = (row + np.array([0.25, 0.25, 0.78, 0.78])) / rows
            low = bottom_left + u[:, None] * (bottom_right - bottom_left)
            high = top_left + u[:, None] * (top_right - top_left)
            at_home = rng.random() < 0.5
            pane = LAMP * rng.uniform(0.85, 1.1) if at_home else dark
            draw_polygon(draw, camera, low + v[:, None] * (high - low), pane)


def draw_house(draw, camera, seed, x, z, d, size, floors, wall_colour, roof_colour):
    """Draw a house with a gabled roof: a prism of which only the faces towards us are painted."""
    rng = np.random.default_rng(seed)
    width, length = size
    turn = rng.uniform(-0.5, 0.5) + (np.pi / 2 if rng.random() < 0.4 else 0)
    right = np.array([np.cos(turn), 0, np.sin(turn)])
    back = np.array([-np.sin(turn), 0, np.cos(turn)])
    up = np.array([0.0, 1.0, 0.0])
    centre, eye = np.array([x, z, d]), np.array([0, camera.eye, 0])
    eaves, ridge = 2.9 * floors, 2.9 * floors + 0.42 * width

    def corner(side, end, height):
        return centre + side * right * width / 2 + end * back * length / 2 + up * height

    def faces_us(point, normal):
        return np.dot(point - eye, normal) < 0

    below = -3.5  # walls go down into the slope
    for sign in (-1, 1):
        # The long wall at side `sign`, then the gable wall at end `sign`.
        for normal, a, b, wide, gable in (
            (sign * right, (sign, sign), (sign, -sign), length, False),
            (sign * back, (sign, sign), (-sign, sign), width, True),
        ):
            if not faces_us(corner(*a, 0), normal):
                continue
            outline = [corner(*a, below), corner(*b, below), corner(*b, eaves), corner(*a, eaves)]
            if gable:
                outline.insert(3, corner(0, sign, ridge))
            draw_polygon(draw, camera, np.array(outline), lit(wall_colour, normal, d))
            wall = corner(*a, 0), corner(*b, 0), corner(*b, eaves), corner(*a, eaves)
            draw_windows(draw, camera, rng, wall, max(2, int(wide / 2.8)), floors, normal, d)
    for sign in (-1, 1):
        normal = sign * right * 0.64 + up * 0.77
        if faces_us(corner(sign, 0, eaves), normal):
            roof = [corner(1.16 * sign, e, eaves - 0.3) for e in (-1.08, 1.08)]
            roof += [corner(0, e, ridge) for e in (1.08, -1.08)]
            draw_polygon(draw, camera, roof, lit(roof_colour, normal, d))
    chimney = corner(0.3, rng.uniform(-0.5, 0.5), ridge - 1.2)
    post = chimney + np.array([(-0.5, 0, 0), (0.5, 0, 0), (0.5, 2.6, 0), (-0.5, 2.6, 0)])
    draw_polygon(draw, camera, post, lit([0.45, 0.30, 0.25], up * 0.3, d))


def draw_round(draw, camera, x, z, d, profile, colours):
    """Draw a turned body (tower, spire, mast): a stack of rings shaded around the axis.

    `profile` is a list of (height, radius) from the bottom, `colours` one for each ring.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 17)
    for ((h0, r0), (h1, r1)), colour in zip(pairwise(profile), colours, strict=True):
        for a, b in pairwise(angles):
            side = np.sin([a, b, b, a]) * [r0, r0, r1, r1]
            points = np.stack([x + side, z + np.array([h0, h0, h1, h1]), np.full(4, d)], -1)
            middle = (a + b) / 2
            normal = np.array([np.sin(middle), 0.15, -np.cos(middle)])
            draw_polygon(draw, camera, points, lit(colour, normal, d))


def draw_lighthouse(draw, camera, x, z, d):
    """Draw the lighthouse with its gallery, lantern and roof."""
    white, red, dark = (0.92, 0.88, 0.82), (0.72, 0.16, 0.12), (0.20, 0.20, 0.24)
    profile = [(-4, 3.6), (3, 3.4), (8, 2.9), (13, 2.5), (18, 2.15), (22, 1.9), (22.6, 2.9)]
    draw_round(draw, camera, x, z, d, profile, [white, red, white, red, white, dark])
    draw_round(draw, camera, x, z, d, [(22.6, 1.5), (25.6, 1.5)], [LAMP * 2.6])
    draw_round(draw, camera, x, z, d, [(25.6, 2.0), (27.6, 0.2)], [red])


def draw_church(draw, camera, seed, x, z, d):
    """Draw the church: a nave like a house, and a tower with a spire in front of it."""
    rng = np.random.default_rng(seed)
    stone, slate = (0.80, 0.74, 0.66), (0.24, 0.30, 0.34)
    draw_house(draw, camera, seed, x + 9, z, d + 3, (11, 20), 3, stone, slate)
    left, right = np.array([-0.8, 0, -0.6]), np.array([0.6, 0, -0.8])
    for normal, a, b in ((left, (-3.4, 2.0), (-0.8, -2.0)), (right, (-0.8, -2.0), (3.4, 1.0))):
        corners = (a, -5), (b, -5), (b, 22), (a, 22)
        wall = [np.array([x + dx, z + h, d + dd]) for (dx, dd), h in corners]
        draw_polygon(draw, camera, wall, lit(stone, normal, d))
        belfry = [wall[0] + [0, 21, 0], wall[1] + [0, 21, 0], wall[2], wall[3]]
        draw_windows(draw, camera, rng, belfry, 2, 1, normal, d)
        spire = [wall[3], wall[2], np.array([x, z + 37, d])]
        draw_polygon(draw, camera, spire, lit(slate, normal, d))


def draw_tree(draw, camera, seed, x, z, d, height, conifer):
    """Draw a tree as many small blobs, from dark ones below to lit ones at the upper left."""
    rng = np.random.default_rng(seed)
    green = np.array([0.15, 0.25, 0.15]) if conifer else np.array([0.34, 0.32, 0.13])
    green = green * rng.uniform(0.7, 1.25) + rng.uniform(-0.03, 0.05, 3) * [1, 0.3, 0.2]
    pixels = camera.focal / d
    count = int(np.clip(0.22 * height * pixels, 10, 90))
    level = (np.arange(count) + rng.random(count)) / count  # 0 at the bottom, 1 at the top
    if conifer:
        spread, size = 0.14 * (1 - level), 0.045 + 0.10 * (1 - level)
    else:
        spread, size = 0.36 * np.sqrt(1 - (2 * level - 1) ** 2), 0.15
    side = rng.uniform(-1, 1, count) * spread * height
    radius = pixels * height * size * rng.uniform(0.6, 1.2, count)
    normal = np.stack([side / (0.36 * height), 0.5 + level, np.full(count, -0.5)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    colour = lit(green * (0.6 + 0.6 * level[:, None]), normal, d)
    bottom = 0.06 if conifer else 0.2
    up = z + height * (bottom + (1 - bottom) * level)
    centre = camera.project(np.stack([x + side, up, np.full(count, d)], axis=-1))
    reach = np.stack([radius, 0.65 * radius], axis=-1)
    boxes = np.concatenate([centre - reach, centre + reach], axis=-1).tolist()
    for blob in np.argsort(level - side / height):
        draw.ellipse(boxes[blob], ink(colour[blob]))


def draw_boat(draw, camera, x, d, length, hull_colour, sail_colour=None, turn=1):
    """Draw a boat seen from the side; `turn` is +1 for a bow at the right, -1 at the left."""
    along = np.linspace(-0.5, 0.5, 15)
    sheer = length * (0.075 + 0.26 * (along + 0.1) ** 2)
    keel = np.zeros_like(along)
    keel_along = along * 0.86 - 0.03

    def at(u, h):
        u, h = np.broadcast_arrays(np.asarray(u, float), np.asarray(h, float))
        return np.stack([x + turn * u * length, h, np.full_like(u, d)], axis=-1)

    def shape(points, colour, normal=(-0.35, 0.3, -0.88)):
        draw_polygon(draw, camera, points, lit(colour, np.array(normal), d))

    hull = np.concatenate([at(along, sheer), at(keel_along, keel)[::-1]])
    shape(hull, hull_colour)
    stripe = np.concatenate([at(along, sheer), at(along, sheer - 0.022 * length)[::-1]])
    shape(stripe, (0.92, 0.86, 0.74))
    if length < 6:
        return  # a rowing boat has neither cabin nor mast
    cabin = at([-0.26, 0.04, 0.01, -0.24], np.array([0.08, 0.08, 0.19, 0.19]) * length)
    shape(cabin, (0.80, 0.74, 0.62))
    for u in (-0.20, -0.11, -0.02):
        pane = at(u + np.array([-2, 2, 2, -2]) / 100, np.array([12, 12, 16, 16]) * length / 100)
        draw_polygon(draw, camera, pane, LAMP)
    mast = at([0.075, 0.09, 0.085, 0.08], np.array([0.1, 0.1, 1.15, 1.15]) * length)
    shape(mast, (0.42, 0.28, 0.18))
    if sail_colour is None:
        return
    for strip in range(8):  # each cloth of the sails a little different, as the wind rounds it
        low, high = strip / 8, (strip + 1) / 8
        shade = np.array(sail_colour) * (0.82 + 0.30 * np.sin(np.pi * (low + 0.12)))
        v = np.linspace(0, 1, 9)
        bulge = 0.05 * np.sin(np.pi * v)

        def main_edge(t, v=v, bulge=bulge):
            return at(0.07 - (0.50 * t + bulge * t) * (1 - v) ** 0.8, (0.24 + 0.86 * v) * length)

        def jib_edge(t, v=v, bulge=bulge):
            height = (0.16 + 0.80 * v + 0.05 * t) * length
            return at(0.10 + (0.38 * t + bulge * t) * (1 - v), height)

        for edge in (main_edge, jib_edge):
            shape(np.concatenate([edge(low), edge(high)[::-1]]), shade)


def draw_jetty(draw, camera, seed):
    """Draw the wooden jetty at the right, plank by plank, and the man who waits at its end."""
    rng = np.random.default_rng(seed)
    left, right, deck = 3.4, 6.0, 1.15

    def post(x, d, top, radius=0.16):
        draw_round(draw, camera, x, 0, d, [(-0.4, radius), (top, radius)], [(0.30, 0.23, 0.19)])

    for d in np.arange(42, 9, -0.42):
        if int(d / 0.42) % 9 == 0:
            post(right, d, 2.0)
        wood = np.array([0.68, 0.56, 0.47]) * rng.uniform(0.65, 1.2) + rng.uniform(0, 0.03, 3)
        slack = rng.uniform(-0.12, 0.12, 2)
        plank = [(left + slack[0], deck, d), (right + slack[1], deck, d)]
        plank += [(right + slack[1], deck, d - 0.37), (left + slack[0], deck, d - 0.37)]
        draw_polygon(draw, camera, plank, lit(wood, np.array([0, 1, 0]), d))
        side = [(left, deck, d), (left, deck, d - 0.42), (left, deck - 0.3, d - 0.42)]
        side += [(left, deck - 0.3, d)]
        draw_polygon(draw, camera, side, lit(wood * 0.6, np.array([-1, 0, 0]), d))
        if int(d / 0.42) % 9 == 0:
            post(left, d, 2.0)
    coat, skin = (0.16, 0.13, 0.17), (0.50, 0.36, 0.28)
    man = [
        ([(0, 0.16), (0.8, 0.24), (1.2, 0.30), (1.5, 0.12)], coat),
        ([(1.48, 0.12), (1.6, 0.17), (1.8, 0.10)], skin),
        ([(1.7, 0.22), (1.74, 0.14), (1.88, 0.12)], coat),  # his hat
    ]
    for profile, colour in man:
        draw_round(draw, camera, 4.9, deck, 38.0, profile, [colour] * (len(profile) - 1))
    draw_round(draw, camera, 3.4, 0, 40.0, [(0, 0.10), (5.2, 0.07)], [(0.18, 0.16, 0.18)])
    draw_round(draw, camera, 3.4, 0, 40.0, [(4.9, 0.20), (5.5, 0.24)], [LAMP * 2.6])


def draw_reeds(draw, camera, seed):
    """Draw the reeds at the left: bent blades that taper to a point, some with a brown head."""
    rng = np.random.default_rng(seed)
    up = np.linspace(0, 1, 7)
    for d in np.sort(rng.uniform(13.6, 17.5, 170))[::-1]:
        x, tall = rng.uniform(-8.6, -5.2) - 0.5 * rng.random() * (d - 13), rng.uniform(0.7, 2.3)
        tall *= np.clip((-4.9 - x) / 1.8, 0.25, 1)  # lower towards the open water
        bulrush = rng.random() < 0.1  # it stands straight, bears a brown head, does not taper
        bend = (0.05 if bulrush else rng.normal(0.25, 0.35)) * tall * up**2.2
        half = np.full_like(up, 0.016) if bulrush else 0.035 * (1 - up**2)
        height, depth = tall * up, np.full_like(up, d)
        left = np.stack([x + bend - half, height, depth], axis=-1)
        right = np.stack([x + bend + half, height, depth], axis=-1)
        green = np.array([0.34, 0.36, 0.16]) * rng.uniform(0.4, 1.3)
        colour = lit(green, np.array([-0.5, 0.5, -0.7]), d)
        draw_polygon(draw, camera, np.concatenate([left, right[::-1]]), colour)
        if bulrush:
            tip = x + bend[-2], height[-2], d
            draw_round(draw, camera, *tip, [(-0.15, 0.045), (0.12, 0.04)], [(0.40, 0.24, 0.14)])


def settle(lattice, rng):
    """Choose where houses and trees stand.

    Returns
    -------
    list of (distance, function, arguments)
        What is drawn at random takes a seed, so that it looks the same in the mirror.
    """
    things, taken = [], []
    walls = [(0.92, 0.84, 0.68), (0.90, 0.70, 0.46), (0.84, 0.52, 0.40), (0.94, 0.90, 0.84)]
    walls += [(0.62, 0.72, 0.78), (0.88, 0.78, 0.52)]
    roofs = [(0.50, 0.26, 0.20), (0.58, 0.34, 0.24), (0.42, 0.25, 0.22), (0.33, 0.33, 0.38)]

    def add(d, function, *arguments):
        things.append((d, function, (int(rng.integers(2**32)), *arguments)))

    def candidates(count, x_range, d_range):
        x, d = rng.uniform(*x_range, count), rng.uniform(*d_range, count)
        return zip(x, d, land_height(lattice, x, d), strict=True)

    def free(x, d, share=1.0):
        other_x, other_d, radius = np.transpose(taken)  # (n, 3) -> (3, n)
        return np.all(np.hypot(x - other_x, d - other_d) >= share * radius)

    ((x, d, height),) = candidates(1, (118, 119), (400, 401))
    taken.append((x, d, 17.0))
    add(d, draw_church, x, height, d)
    for x, d, height in candidates(1500, (20, 340), (285, 560)):
        if not 1.2 < height < 46 or not free(x, d):
            continue
        taken.append((x, d, 11.0))
        size = rng.uniform(7, 10), rng.uniform(8, 14)
        wall, roof = walls[rng.integers(len(walls))], roofs[rng.integers(len(roofs))]
        floors = int(rng.integers(2, 4))
        wall, roof = wall * rng.uniform(0.85, 1.05, 3), roof * rng.uniform(0.8, 1.2, 3)
        add(d, draw_house, x, height - 0.5, d, size, floors, wall, roof)
        # Bushes hide where the walls meet the slope.
        for bx, bd, foot in candidates(4, (x - 6, x + 6), (d - 9, d - 6)):
            if foot > 0.8:
                add(bd, draw_tree, bx, foot - 2, bd, rng.uniform(3, 6), False)
    for x, d, height in candidates(1400, (-20, 420), (285, 640)):
        if height > 1.5 and free(x, d, 0.55) and rng.random() < (0.25 if height < 46 else 0.8):
            add(d, draw_tree, x, height - 1, d, rng.uniform(6, 13), rng.random() < 0.5)
    for x, d, height in candidates(1600, (-1400, 1400), (1100, 2600)):
        if 1 < height < 250:
            add(d, draw_tree, x, height - 2, d, rng.uniform(16, 34), True)
    for x, d, height in candidates(30, (-100, -55), (206, 224)):
        if height > 2.5:
            add(d, draw_tree, x, height - 1, d, rng.uniform(2, 5), False)
    ((x, d, height),) = candidates(1, (-72, -71.9), (204, 204.1))
    things.append((d, draw_lighthouse, (x, height - 0.5, d)))
    return things


def paint_objects(lattice, picture, camera, things):
    """Draw houses, trees, boats and the jetty over the picture, the farthest first."""
    bare = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = Image.fromarray(bare)
    draw = ImageDraw.Draw(image)
    for _, function, arguments in sorted(things, key=lambda thing: -thing[0]):
        function(draw, camera, *arguments)
    drawn = np.asarray(image)
    touched = (drawn != bare).any(axis=-1)
    # Nothing that is built has one even colour: plaster, wood and cloth get a little texture.
    rows, columns = np.nonzero(touched)
    unit = camera.height / 640
    grain = fractal(lattice, columns / (9 * unit), rows / (9 * unit), 5)
    result = drawn.astype(np.float32) / 255
    result[touched] *= (1 + 0.16 * grain)[:, None]
    return result


def paint_water(lattice, camera, mirror):
    """Return the lake for the rows below the horizon, given what the mirror shows."""
    first = int(np.ceil(camera.horizon))
    rows, columns = np.mgrid[first : camera.height, : camera.width].astype(np.float32)
    below = rows + 0.5 - camera.horizon
    d = camera.focal * camera.eye / below
    x = (columns - camera.width / 2) * d / camera.focal
    pixel = d * d / (camera.focal * camera.eye)  # metres of water that one row covers
    slope_d, slope_x, hidden = 0.0, 0.0, 0.0
    for length, strength in ((9.0, 0.012), (3.2, 0.018), (1.1, 0.020), (0.42, 0.016)):
        shown = np.exp(-((pixel / length) ** 2) * 2)  # waves finer than a pixel only blur
        u, v = x / length * 0.42 + 5 * length, d / length
        slope_d = slope_d + strength * shown * fractal(lattice, u, v, 2)
        slope_x = slope_x + strength * shown * fractal(lattice, u + 50, v + 50, 2)
        hidden = hidden + (strength * (1 - shown)) ** 2
    hidden = 0.35 * np.sqrt(hidden)
    calm = 0.35 + 0.65 * smoothstep(-0.35, 0.35, fractal(lattice, x / 60, d / 45 + 3, 3))

    reflected = 0
    for quantile in (-1.4, -0.76, -0.37, 0, 0.37, 0.76, 1.4):
        tilt = 2 * camera.focal * (slope_d + hidden * quantile) * calm
        mirror_row = camera.horizon - np.maximum(np.abs(below + tilt), 1)
        mirror_column = columns + camera.focal * slope_x * calm
        at = [np.clip(mirror_row, 0, None), np.clip(mirror_column, 0, camera.width - 1)]
        reflected = reflected + np.stack(
            [map_coordinates(mirror[..., c], at, order=1, mode="nearest") for c in range(3)], -1
        )
    reflected /= 7

    facing = np.clip(camera.eye / np.hypot(camera.eye, d) - slope_d * 3, 0, 1)
    strength = 0.30 + 0.66 * (1 - facing) ** 3.2  # Schlick's curve, lifted: dusk water shines
    deep = mix([0.025, 0.13, 0.17], [0.05, 0.20, 0.24], smoothstep(-0.02, 0.03, slope_d))
    return first, mix(deep, reflected * [0.97, 0.96, 1.0], strength)


def paint_content(rng, height, width):
    """Return the lake town, a float picture of shape (height, width, 3)."""
    lattice = make_lattice(rng)
    s = SUPERSAMPLING
    camera = Camera(height * s, width * s, 0.535 * height * s, 0.96 * width * s, 5.2)
    below = replace(camera, eye=-camera.eye)
    land = Land(lattice, camera)
    sky = paint_sky(lattice, camera)
    things = settle(lattice, rng)
    for d, *boat in [
        (62.0, -13.5, 11.5, (0.16, 0.28, 0.36), (0.74, 0.36, 0.20), -1),
        (120.0, -9.0, 10.0, (0.62, 0.20, 0.14), (0.95, 0.86, 0.68), 1),
        (150.0, 22.0, 9.0, (0.86, 0.82, 0.74), None, -1),
        (190.0, 42.0, 10.0, (0.20, 0.36, 0.42), None, 1),
        (215.0, 70.0, 10.0, (0.70, 0.30, 0.18), None, -1),
        (235.0, 94.0, 11.0, (0.88, 0.84, 0.78), None, 1),
        (420.0, -130.0, 12.0, (0.30, 0.24, 0.26), (0.93, 0.80, 0.62), 1),
        (34.0, -0.2, 5.5, (0.66, 0.30, 0.16), None, 1),
    ]:
        things.append((d, draw_boat, (boat[0], d, *boat[1:])))
    things.append((25.0, draw_jetty, (7,)))
    things.append((15.0, draw_reeds, (8,)))

    seen, colour = land.look(below)
    mirror = np.where(np.isfinite(seen)[..., None], colour, sky)
    mirror = paint_objects(lattice, mirror, below, things)

    seen, colour = land.look(camera)
    picture = np.where(np.isfinite(seen)[..., None], colour, sky)
    first, water = paint_water(lattice, camera, mirror)
    rows = np.arange(first, camera.height) + 0.5
    surface = camera.focal * camera.eye / (rows - camera.horizon)  # distance of the water there
    wet = seen[first:] > surface[:, None]
    picture[first:][wet] = water[wet]
    picture = 1.07 * shrink(paint_objects(lattice, picture, camera, things))

    # The lens: bright lights bleed, the corners darken, and the film has a little grain.
    unit = height / 640
    lights = np.clip(picture - 0.80, 0, None) * 2.0
    for reach in (2.5, 9):
        picture = picture + 0.30 * gaussian_filter(lights, (reach * unit, reach * unit, 0))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = picture * (1 - 0.16 * (x * x + y * y) / 2)[..., None]
    picture = picture + rng.normal(0, 0.006, picture.shape)
    return mix(picture, smoothstep(-0.02, 1.02, picture), 0.45 * np.ones((height, width)))


# ----------------------------------------------------------------------------------------------
# Style 1: oil paint
# ----------------------------------------------------------------------------------------------


def current(x, y):
    """Return the signed distance from the middle of the stream of light that crosses the canvas."""
    return (y - 0.66 + 0.42 * (x - 0.35) - 0.11 * np.sin(5.0 * x + 0.6)) / 1.1


EDDIES = [  # x, y, radius, turn: where the paint curls up
    (0.27, 0.27, 0.23, 1.0),
    (0.93, 0.74, 0.25, -1.0),
    (0.74, 0.15, 0.13, -1.0),
    (0.50, 0.90, 0.15, 1.0),
    (1.16, 0.33, 0.12, 1.0),
    (0.05, 0.62, 0.11, -1.0),
]


def flow_field(lattice, x, y):
    """Return the direction of the brush at every pixel: unit vectors of shape (H, W, 2).

    The field is the curl of a potential, so strokes neither gather nor part anywhere.
    """
    stream = current(x, y)
    potential = 0.055 * fractal(lattice, x * 2.6, y * 2.6, 3) - 0.165 * np.tanh(stream / 0.30)
    for ex, ey, radius, turn in EDDIES:
        r2 = ((x - ex) ** 2 + (y - ey) ** 2) / radius**2
        potential = potential + 0.9 * turn * radius * np.exp(-r2 * 0.9)
    along_y, along_x = np.gradient(potential)
    field = np.stack([along_y, -along_x], axis=-1)
    return field / (np.linalg.norm(field, axis=-1, keepdims=True) + 1e-12)


def oil_colours(lattice, x, y):
    """Return the picture in the painter's mind: what the strokes take their colours from."""
    wander = fractal(lattice, x * 2.2 + 4, y * 2.2, 5)
    stream = current(x, y) + 0.10 * wander
    night = gradient(
        fractal(lattice, x * 3 + 2.0 * wander, y * 3 + 20, 4) + 0.35 * (y - 0.5),
        [
            (-0.5, (0.03, 0.06, 0.22)),
            (-0.2, (0.05, 0.14, 0.40)),
            (0.0, (0.07, 0.30, 0.52)),
            (0.2, (0.06, 0.44, 0.50)),
            (0.45, (0.36, 0.66, 0.62)),
        ],
    )
    for ex, ey, radius, turn in EDDIES:
        r = np.hypot(x - ex, y - ey) / radius
        # The colours turn with the angle, which winds the rings into a spiral.
        winding = turn * np.arctan2(y - ey, x - ex) / (2 * np.pi)
        rings = gradient(
            (1.9 * np.sqrt(r + 0.02) + winding + 0.2 * wander) % 1,
            [
                (0.0, (0.05, 0.12, 0.36)),
                (0.25, (0.06, 0.34, 0.56)),
                (0.50, (0.16, 0.60, 0.60)),
                (0.66, (0.72, 0.84, 0.66)),
                (0.76, (0.86, 0.40, 0.20)),
                (0.88, (0.34, 0.10, 0.26)),
                (1.0, (0.05, 0.12, 0.36)),
            ],
        )
        night = mix(night, rings, smoothstep(1.15, 0.75, r))
    light = gradient(
        np.abs(stream),
        [
            (0.00, (1.00, 0.93, 0.62)),
            (0.05, (0.99, 0.80, 0.30)),
            (0.11, (0.90, 0.58, 0.14)),
            (0.16, (0.80, 0.28, 0.10)),
            (0.20, (0.50, 0.14, 0.16)),
        ],
    )
    return mix(night, light, smoothstep(0.235, 0.17, np.abs(stream)))


def lay_strokes(rng, paint, relief, field, colours, width, length, count, bristles):
    """Paint `count` strokes of `width` x `length` pixels over `paint` and `relief`, in place.

    A stroke is a strip of samples (along, across) bent along the flow. The bristles leave
    furrows, run dry towards the end, and push the paint up into ridges at both edges.
    """
    height, columns = relief.shape
    along = np.linspace(0, 1, int(length * 1.25) + 2, dtype=np.float32)
    across = np.linspace(-1, 1, int(width * 1.35) + 2, dtype=np.float32)
    start = rng.uniform(-0.08, 1.08, (count, 2)) * [columns, height]
    lengths = length * rng.uniform(0.55, 1.0, count)
    widths = width * rng.uniform(0.6, 1.0, count)
    at_once = max(1, 1_000_000 // (len(along) * len(across)))  # keeps the memory small
    for first in range(0, count, at_once):
        group = slice(first, first + at_once)
        place = start[group].copy()
        n = len(place)
        spine, normal = np.empty((n, len(along), 2)), np.empty((n, len(along), 2))
        turn = rng.normal(0, 0.14, n)  # the hand is never exact
        for step in range(len(along)):
            column = np.clip(place[:, 0], 0, columns - 1).astype(int)
            row = np.clip(place[:, 1], 0, height - 1).astype(int)
            way = field[row, column]
            way = np.stack(
                [
                    way[:, 0] * np.cos(turn) - way[:, 1] * np.sin(turn),
                    way[:, 0] * np.sin(turn) + way[:, 1] * np.cos(turn),
                ],
                axis=-1,
            )
            spine[:, step], normal[:, step] = place, way[:, ::-1] * [-1, 1]
            place += way * (lengths[group] / len(along))[:, None]
        def colour_at(place):
            column = np.clip(place[:, 0].astype(int), 0, columns - 1)
            row = np.clip(place[:, 1].astype(int), 0, height - 1)
            return colours[row, column]

        middle = spine[:, len(along) // 2]
        colour = colour_at(middle) * rng.uniform(0.84, 1.18, (n, 1)) + rng.normal(0, 0.03, (n, 3))
        # A brush that was not wiped carries another colour of the neighbourhood on one side.
        second = colour_at(middle + rng.normal(0, 0.09 * height, (n, 2)))

        pattern = rng.integers(bristles.shape[0] - len(across), size=n)
        shift = rng.integers(bristles.shape[1] - len(along), size=n)
        rows = pattern[:, None, None] + np.arange(len(across))[None, None, :]
        furrow = bristles[rows, shift[:, None, None] + np.arange(len(along))[None, :, None]]
        u, v = along[None, :, None], across[None, None, :]
        dry = 0.10 + 0.75 * smoothstep(0.5, 1.05, u) + 0.5 * smoothstep(0.10, 0.0, u)
        outline = np.abs(v) ** 3 + np.abs(2 * u - 1) ** 9
        visible = (furrow + 0.30 > dry * 0.95) & (outline < 0.9 + 0.3 * furrow)
        reach = v * widths[group][:, None, None] / 2
        column = (spine[:, :, None, 0] + reach * normal[:, :, None, 0]).astype(int)
        row = (spine[:, :, None, 1] + reach * normal[:, :, None, 1]).astype(int)
        visible &= (column >= 0) & (column < columns) & (row >= 0) & (row < height)

        # From here on one flat list of the samples that leave paint.
        stroke, step, track = np.nonzero(visible)
        row, column, furrow = row[visible], column[visible], furrow[visible]
        v = across[track]
        side = rng.choice([-1, 1], n)[stroke] * v
        dab = mix(colour[stroke], second[stroke], 0.5 * smoothstep(0.2, 1.0, side + 0.5 * furrow))
        paint[row, column] = dab * (0.80 + 0.40 * furrow)[:, None]  # the last stroke lies on top
        load = (0.35 + 0.75 * furrow + 0.55 * v**4) * (1 - 0.5 * along[step]) * (8 + width / 2)
        relief[row, column] = 0.35 * relief[row, column] + load


def paint_oil(rng, height, width):
    """Return the oil painting, a float picture of shape (height, width, 3)."""
    lattice = make_lattice(rng)
    x, y = canvas(height, width)
    field, colours = flow_field(lattice, x, y), oil_colours(lattice, x, y)
    paint = colours * 0.45 + np.array([0.10, 0.06, 0.05])
    relief = np.zeros(x.shape)
    unit = x.shape[0] / 640  # strokes are given for a canvas of 640 rows
    # The bristles' tracks: fine across the brush (rows), long along it (columns).
    bristles = gaussian_filter(rng.normal(size=(512, 2048)), (0.9 * unit, 26 * unit))
    bristles = np.clip(0.5 + 0.30 * bristles / bristles.std(), 0, 1).astype(np.float32)
    for breadth, long, count in ((42, 240, 420), (26, 165, 1000), (16, 110, 1700), (9, 70, 1700)):
        lay_strokes(
            rng, paint, relief, field, colours, breadth * unit, long * unit, count, bristles
        )
    # Impasto: the light rakes over the paint from the upper left.
    relief = gaussian_filter(relief, 0.7 * unit) / unit
    slope_y, slope_x = np.gradient(relief)
    facing = 0.075 * (slope_x + slope_y)
    shine = np.clip(facing - 0.10, 0, 0.5) ** 1.5
    paint = paint * (1 + np.clip(facing, -0.45, 0.34))[..., None] + 0.35 * shine[..., None]
    return shrink(paint)


# ----------------------------------------------------------------------------------------------
# Style 2: mosaic
# ----------------------------------------------------------------------------------------------

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


def paint_mosaic(rng, height, width):
    """Return the mosaic: discs that overlap, each of rings, each ring cut into tesserae."""
    x, y = canvas(height, width)
    lattice = make_lattice(rng)
    # No hand lays a perfect circle.
    x = x + 0.006 * fractal(lattice, x * 7, y * 7, 2)
    y = y + 0.006 * fractal(lattice, x * 7 + 40, y * 7, 2)
    side = 0.0225  # of a tessera, in heights of the picture
    names = list(STONES)
    stones = np.array(list(STONES.values()))
    gap = np.zeros(x.shape)  # distance from the nearest joint, in tesserae
    colour = np.zeros((*x.shape, 3))
    tilt = np.zeros((*x.shape, 2))
    top = np.full(x.shape, -1)

    discs = rng.uniform([-0.1, -0.1, 0.13], [1.35, 1.1, 0.34], (60, 3))
    discs = discs[np.argsort(-discs[:, 2])]  # small discs lie over large ones
    for number, (cx, cy, radius) in enumerate(discs):
        top[np.hypot(x - cx, y - cy) < radius] = number
    for number, (cx, cy, radius) in enumerate(discs):
        here = top == number
        rings = round(radius / side)
        r = np.hypot(x[here] - cx, y[here] - cy) / radius * rings
        ring = np.minimum(r.astype(int), rings - 1)
        angle = np.arctan2(y[here] - cy, x[here] - cx) / (2 * np.pi) + 0.5
        pieces = np.round(2 * np.pi * (np.arange(rings) + 0.5))[ring]  # about as long as wide
        place = (angle + rng.random(rings)[ring]) * pieces
        piece = (place % pieces).astype(int)

        # A few neighbouring rings share a stone; the rim is gold; one stone in twelve is another.
        # Warm discs gather around one place, cool ones around them, with one stone exchanged.
        warm = np.hypot(cx - 0.72, cy - 0.58) < 0.40
        halves = rng.permutation(5), rng.permutation(5) + 5
        family = np.append(halves[0 if warm else 1][:3], halves[1 if warm else 0][0])
        bands = family[np.cumsum(rng.random(rings) < 0.45) % 4]
        bands[0], bands[-1] = names.index("cream"), names.index("gold")
        dice = rng.random((rings, int(pieces.max(initial=1)) + 1, 6))[ring, piece]
        odd = (dice[:, 5] * len(stones)).astype(int)
        stone = np.where(dice[:, 0] < 0.08, odd, bands[ring])
        colour[here] = stones[stone] * (0.74 + 0.46 * dice[:, 1:2])
        tilt[here] = dice[:, 2:4] - 0.5
        across = np.minimum(r - ring, ring + 1 - r)
        along = np.minimum(place % 1, 1 - place % 1) * 2 * np.pi * np.maximum(r, 0.3) / pieces
        gap[here] = np.minimum(across, along) * (0.8 + 0.4 * dice[:, 4])
    # Where one disc covers another, its rim is a joint too.
    edge = np.hypot(*np.gradient(top.astype(float))) > 0
    gap = gap * (1 - gaussian_filter(edge.astype(float), 0.0024 * x.shape[0])) ** 2

    stone = smoothstep(0.045, 0.13, gap)
    dome = gaussian_filter(smoothstep(0.03, 0.30, gap), 0.0012 * x.shape[0])
    slope_y, slope_x = np.gradient(dome * side * x.shape[0])
    grain = fractal(lattice, x * 130, y * 130, 3)
    facing = 0.11 * (slope_x + slope_y) + 0.22 * (tilt[..., 0] + tilt[..., 1]) + 0.06 * grain
    surface = colour * (1 + facing)[..., None]
    surface = surface + (0.20 * np.clip(facing - 0.12, 0, 1))[..., None]
    grout = np.array([0.13, 0.11, 0.11]) * (1 + 0.4 * grain)[..., None]
    return shrink(mix(grout, surface, stone))


# ----------------------------------------------------------------------------------------------
# Style 3: woodcut
# ----------------------------------------------------------------------------------------------


def carve(phase, darkness):
    """Return where ink prints: parallel lines, one per unit of `phase`, as thick as it is dark."""
    return np.abs(phase % 1 - 0.5) * 2 < darkness


def paint_woodcut(rng, height, width):
    """Return the woodcut, printed from four blocks: tone, ochre, vermilion and the dark key."""
    x, y = canvas(height, width)
    lattice = make_lattice(rng)
    wobble = fractal(lattice, x * 9, y * 9, 3)
    fine = fractal(lattice, x * 45, y * 45, 2)
    lines = 62  # to the height of the picture

    # Sky: rings around the sun.
    sun_x, sun_y, sun_r = 0.80, 0.27, 0.125
    r = np.hypot(x - sun_x, y - sun_y)
    clouds = fractal(lattice, x * 1.6 + 3, y * 4.2, 4)
    dark = 0.16 + 0.62 * smoothstep(0.2, 1.0, r) + 0.7 * clouds + 0.10 * fine
    around = r > sun_r + 0.02
    key = carve(r * lines + 0.7 * wobble + 1.2 * clouds, dark) & around
    tone = smoothstep(-0.05, 0.10, clouds + 0.25 * (0.4 - y)) * around
    ochre = 0.8 * smoothstep(0.42, 0.16, r) * around
    sun = (r < sun_r + 0.003 * wobble).astype(float)

    def lay(shape, lines_of_key, tone_block, ochre_block, sun_block=0.0):
        # Whatever is nearer hides what lies behind it, on every block.
        for block, new in (
            (key, lines_of_key),
            (tone, tone_block),
            (ochre, ochre_block),
            (sun, sun_block),
        ):
            block[shape] = np.broadcast_to(new, shape.shape)[shape]

    def hill(number, level, swing, pace, tint, earth):
        crest = level - 1.6 * swing * fractal(lattice, x * pace + 17 * number, 0 * y + number, 5)
        depth = y - crest
        slope = gaussian_filter(np.gradient(crest[0]), 0.02 * x.shape[0]) * x.shape[0]
        folds = fractal(lattice, x * 5 + 9 * number, y * 5 - 2 * crest, 4)
        # The lines run down the slope and bend with it; the sun stands at the right.
        phase = (x - 0.45 * depth * np.tanh(2 * slope) + 0.06 * folds) * lines * 0.95
        dark = 0.86 - 0.55 * smoothstep(-0.6, 0.6, slope) - 1.2 * depth + 0.8 * folds
        cut = carve(phase + 0.35 * wobble, np.clip(dark + 0.12 * fine, 0.05, 0.97))
        cut |= depth < 0.0055 * (1 + wobble)
        lit_up = smoothstep(0.02, 0.05, folds)
        lay(depth > 0, cut, tint * (1 - lit_up), earth * lit_up)

    hill(0, 0.46, 0.16, 1.3, 0.45, 0.0)
    hill(1, 0.56, 0.13, 1.9, 0.95, 0.25)

    # Lake: level lines that draw apart towards us, broken where the sun is mirrored.
    depth = np.clip(y - 0.60, 0, None)
    path = np.abs(x - sun_x + 0.02 * wobble) / (0.05 + 0.30 * depth)
    swell = fractal(lattice, x * 3.2, depth * 16 + 40, 4)
    dark = 0.66 - 0.60 * smoothstep(1.1, 0.3, path) + 0.9 * swell - 0.8 * depth + 0.1 * fine
    level = 38 * np.sqrt(depth + 0.004) + 0.5 * wobble + 0.5 * swell
    ripple = carve(level, np.clip(dark, 0.04, 0.95))
    glint = carve(level + 0.5, 0.75 * smoothstep(1.25, 0.5, path + 1.2 * swell))
    lay(y > 0.60 + 0.002 * wobble, ripple, 0.9 * (swell < 0.06) * ~glint, 0.0, glint)

    hill(4, 0.85, 0.12, 1.5, 0.7, 1.0)
    pines = draw_pines(rng, x.shape)
    halo = gaussian_filter(pines.astype(np.float32), 0.0035 * x.shape[0]) > 0.08
    lay(halo, False, 0.5, 0.0)  # the carver clears the wood around what shall stand out
    cuts = carve((y - 0.4 * x) * lines * 1.3 + wobble, np.clip(0.9 * wobble + 0.2 * fine, 0, 0.6))
    lay(pines, ~cuts, 0.9, 0.0)

    # Printing: paper fibres show through, and the blocks are a little out of register.
    fibres = fractal(lattice, x * 90, y * 20, 3)
    worn = 1 - 0.30 * smoothstep(0.15, 0.55, fractal(lattice, x * 70, y * 70, 4))
    slip = max(1, round(0.004 * x.shape[0]))
    picture = np.array([0.95, 0.90, 0.79]) * (1 + 0.03 * fibres)[..., None]
    blues, yellows, reds = (0.58, 0.72, 0.74), (0.90, 0.68, 0.34), (0.82, 0.25, 0.15)
    for block, pigment in ((tone, blues), (ochre, yellows), (sun, reds)):
        cover = gaussian_filter(block, 1.0) * worn
        cover = np.pad(cover, ((slip, 0), (0, slip)), mode="edge")[:-slip, slip:]
        picture = picture * mix(np.ones(3), pigment, cover)
    printed = gaussian_filter(key.astype(float), 0.8) * (0.72 + 0.28 * worn)
    return shrink(mix(picture, [0.09, 0.11, 0.22], printed))


def draw_pines(rng, shape):
    """Return the mask of the pines in front: trunks with ragged tiers of branches."""
    image = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    unit = shape[0]
    for foot_x, foot_y, tall in [
        (0.115, 1.02, 0.84),
        (0.265, 1.04, 0.60),
        (0.005, 1.03, 0.52),
        (1.15, 1.06, 0.56),
        (1.235, 1.04, 0.40),
    ]:
        trunk = 0.013 * tall
        points = [(foot_x - trunk, foot_y), (foot_x, foot_y - tall), (foot_x + trunk, foot_y)]
        draw.polygon([(a * unit, b * unit) for a, b in points], fill=1)
        tiers = round(tall * 19)
        gap = 0.86 * tall / tiers
        for tier in range(tiers):
            y = foot_y - tall + gap * (tier + 0.6)
            for side in (-1, 1):
                long = tall * 0.19 * ((tier + 0.7) / tiers) ** 0.9 * rng.uniform(0.72, 1.15)
                drop = long * rng.uniform(0.28, 0.42)
                points = [(0, -0.55 * gap), (0.5 * long, 0.30 * drop - 0.1 * gap), (long, drop)]
                for share in (0.8, 0.6, 0.4, 0.2):  # needles hang from the branch
                    points.append((share * long, share * drop + gap * rng.uniform(0.25, 0.6)))
                    points.append(((share - 0.1) * long, (share - 0.1) * drop + 0.1 * gap))
                points = [((foot_x + side * a) * unit, (y + b) * unit) for a, b in points]
                draw.polygon(points, fill=1)
    return np.asarray(image)


# ----------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------

SCENES = {  # file name: (painter, height, width, JPEG quality)
    "content.jpg": (paint_content, 640, 960, 92),
    "style.jpg": (paint_oil, 640, 800, 90),
    "style_mosaic.jpg": (paint_mosaic, 640, 800, 85),
    "style_ink.jpg": (paint_woodcut, 640, 800, 90),
}


def make_scene(name, seed=0, scale=1.0):
    """Return one scene as an 8-bit RGB picture.

    Parameters
    ----------
    name : str
        One of `SCENES`.
    seed : int, default=0
    scale : float, default=1.0
        Size relative to the committed picture. The composition stays the same.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
    """
    painter, height, width, _ = SCENES[name]
    rng = np.random.default_rng([seed, sorted(SCENES).index(name)])
    picture = painter(rng, max(1, round(height * scale)), max(1, round(width * scale)))
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def main(argv=None):
    """Make the pictures; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Paint the content scene and the styles that the style transfer starts with.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output-dir", type=Path, default=HERE, help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    parser.add_argument("--scale", type=float, default=1.0, help="size factor, 0.1 to 2")
    parser.add_argument("--only", choices=SCENES, nargs="+", metavar="FILE",
                        default=list(SCENES), help="which pictures to make")
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"argument --seed: must not be negative, got {options.seed}")
    if not 0.1 <= options.scale <= 2:
        parser.error(f"argument --scale: must be from 0.1 to 2, got {options.scale}")
    try:
        for name in options.only:
            path = options.output_dir / name
            picture = make_scene(name, options.seed, options.scale)
            with atomic_path(path) as temporary:
                # subsampling=0 keeps the full colour resolution, which thin strokes need.
                Image.fromarray(picture).save(temporary, quality=SCENES[name][3], subsampling=0)
            print(f"{path}: {picture.shape[1]} x {picture.shape[0]}")
    except InputError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

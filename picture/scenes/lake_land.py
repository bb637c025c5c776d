"""The ground of the lake town, its light, and the camera that sees it.

The world is measured in metres: x to the right, z upwards (0 is the water), d away from the
camera. A point is (x, z, d).
"""

from dataclasses import dataclass

import numpy as np

from picture.scenes.tools import fractal, mix, smoothstep

SUN = np.array([-0.80, 0.38, -0.46])  # direction to the light: left, above, behind the camera
SUNLIGHT = np.array([1.15, 0.72, 0.42])
SKYLIGHT = np.array([0.40, 0.44, 0.60])
HAZE = np.array([0.80, 0.60, 0.56])
HAZE_LENGTH = 6000.0  # metres after which 1/e of an object's own colour is left
PEAKS = [  # x, d, half width, height
    (-1300, 10500, 1500, 2350),
    (1500, 12500, 1700, 1900),
    (-5200, 9500, 1500, 1750),
    (5000, 9500, 1700, 1750),
]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along d; rows and columns are supersampled pixels."""

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
        Unit vector, or one for each of n surfaces.
    distance : float, metres
    """
    direct = np.maximum(normal @ SUN, 0)[..., None]
    shaded = np.asarray(colour) * (0.85 * SKYLIGHT + 0.62 * direct * SUNLIGHT)
    own = np.exp(-distance / HAZE_LENGTH)
    return shaded * own + HAZE * (1 - own)


def land_height(lattice, x, d):
    """Return the height of the ground in metres; where it is below 0, there is water."""
    far = smoothstep(3500, 7500, d)
    crests = fractal(lattice, x / 5200 + 3.1, d / 5200, 9, ridged=True)
    peaks = sum(
        top * np.exp(-(((x - px) / half_width) ** 2) - ((d - pd) / 2600) ** 2)
        for px, pd, half_width, top in PEAKS
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
    colour : ndarray of shape (n, columns, 3), with light and haze
    """

    def __init__(self, lattice, camera):
        near, far = np.geomspace(90, 3500, 520, endpoint=False), np.linspace(3500, 15000, 620)
        self.d = np.concatenate([near, far])[:, None]
        sideways = (np.arange(camera.width) + 0.5 - camera.width / 2) / camera.focal
        x = sideways * self.d
        self.height = land_height(lattice, x, self.d)
        slope_x = np.gradient(self.height, axis=1) / np.gradient(x, axis=1)
        # Along a column x grows with d; subtracting its part leaves the slope along d alone.
        slope_d = np.gradient(self.height, axis=0) / np.gradient(self.d, axis=0)
        slope_d = slope_d - slope_x * sideways
        normal = np.stack([-slope_x, np.ones_like(self.height), -slope_d], axis=-1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        self.colour = land_colour(lattice, x, self.d, self.height, normal)

    def look(self, camera):
        """Return the distance (inf: no land) and the colour of the land at every pixel.

        A ray meets the ground at the first distance where the land is as high as the ray. In
        each column that is a search in the running maximum of the projected heights.
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
            # Between two samples the ground is a straight line, unless the first is water.
            gap = reached[hit] - reached[before]
            whole = ~np.isfinite(gap) | (gap <= 0)
            part = np.where(whole, 1, (above[rows] - reached[before]) / np.where(whole, 1, gap))
            seen[rows, column] = self.d[hit, 0]
            colour[rows, column] = mix(self.colour[before, column], self.colour[hit, column], part)
        return seen, colour


def land_colour(lattice, x, d, height, normal):
    """Return the colour of the ground, with light and haze: forest, rock, snow and shore."""
    speckle = fractal(lattice, x / 40, d / 40, 4)
    patches = fractal(lattice, x / 420, d / 420, 5)

    forest = mix([0.08, 0.17, 0.13], [0.27, 0.29, 0.13], smoothstep(-0.5, 0.6, patches))
    forest = forest * (1 + 0.7 * speckle[..., None])
    rock = mix([0.30, 0.27, 0.30], [0.46, 0.40, 0.38], smoothstep(-0.4, 0.4, patches))
    colour = mix(forest, rock, smoothstep(480, 900, height + 260 * patches))
    flat = smoothstep(0.42, 0.62, normal[..., 1])  # snow does not stay on steep rock
    snow = smoothstep(1150, 1500, height + 420 * patches) * flat
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

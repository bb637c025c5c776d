"""A lake town at dusk: a landscape of fractal noise, seen through a pinhole camera.

A mirror in the water is what a camera as far below the surface would see, upside down. So the
scene is painted twice, with the eye at +h and at -h.
"""

from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from picture.scenes.lake_land import Camera, Land, land_height
from picture.scenes.lake_objects import (
    Pen,
    draw_boat,
    draw_church,
    draw_house,
    draw_jetty,
    draw_lighthouse,
    draw_reeds,
    draw_tree,
)
from picture.scenes.tools import (
    SUPERSAMPLING,
    average_down,
    fractal,
    gradient,
    make_lattice,
    mix,
    smoothstep,
    to_uint8,
)

SKY = [  # by the height above the horizon, in focal lengths
    (0.00, (1.00, 0.74, 0.42)),
    (0.10, (0.97, 0.66, 0.46)),
    (0.22, (0.80, 0.58, 0.58)),
    (0.38, (0.46, 0.50, 0.68)),
    (0.60, (0.20, 0.30, 0.54)),
    (0.80, (0.11, 0.19, 0.42)),
]
WALLS = [
    (0.92, 0.84, 0.68),
    (0.90, 0.70, 0.46),
    (0.84, 0.52, 0.40),
    (0.94, 0.90, 0.84),
    (0.62, 0.72, 0.78),
    (0.88, 0.78, 0.52),
]
ROOFS = [(0.50, 0.26, 0.20), (0.58, 0.34, 0.24), (0.42, 0.25, 0.22), (0.33, 0.33, 0.38)]
BOATS = [  # x, d, length, hull, sails, direction
    (-13.5, 62.0, 11.5, (0.16, 0.28, 0.36), (0.74, 0.36, 0.20), -1),
    (-9.0, 120.0, 10.0, (0.62, 0.20, 0.14), (0.95, 0.86, 0.68), 1),
    (22.0, 150.0, 9.0, (0.86, 0.82, 0.74), None, -1),
    (42.0, 190.0, 10.0, (0.20, 0.36, 0.42), None, 1),
    (70.0, 215.0, 10.0, (0.70, 0.30, 0.18), None, -1),
    (94.0, 235.0, 11.0, (0.88, 0.84, 0.78), None, 1),
    (-130.0, 420.0, 12.0, (0.30, 0.24, 0.26), (0.93, 0.80, 0.62), 1),
    (-0.2, 34.0, 5.5, (0.66, 0.30, 0.16), None, 1),
]
WAVES = ((9.0, 0.012), (3.2, 0.018), (1.1, 0.020), (0.42, 0.016))  # length in metres, slope


def paint_sky(lattice, camera):
    """Return the evening sky, of shape (height, width, 3)."""
    rows, columns = np.mgrid[: camera.height, : camera.width].astype(np.float32)
    across = (columns - camera.width / 2) / camera.focal
    up = np.clip((camera.horizon - rows) / camera.focal, 0, None)
    away = np.hypot(across + 0.16, (up - 0.03) * 1.5)  # from the point where the sun has set
    sky = gradient(up + 0.18 * smoothstep(0.1, 0.8, away), SKY)
    sky = sky + np.exp(-((away / 0.30) ** 2))[..., None] * np.array([0.34, 0.22, 0.02])

    def cloud_density(shift):
        # The clouds are in a horizontal plane, so they are denser towards the horizon.
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


def place_town(lattice, rng):
    """Choose where church, houses and trees are.

    Returns
    -------
    list of (distance, function, arguments)
        ``function(pen, *arguments)`` draws the thing.
    """
    things, taken = [], []

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
        wall, roof = WALLS[rng.integers(len(WALLS))], ROOFS[rng.integers(len(ROOFS))]
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


def draw_things(lattice, colours, camera, things):
    """Return the colours with all things drawn over them, the farthest first."""
    bare = to_uint8(colours)
    image = Image.fromarray(bare)
    pen = Pen(image, camera)
    for _, function, arguments in sorted(things, key=lambda thing: -thing[0]):
        function(pen, *arguments)
    drawn = np.asarray(image)
    touched = (drawn != bare).any(axis=-1)
    # Plaster, wood and cloth do not have one even colour: they get a little texture.
    rows, columns = np.nonzero(touched)
    unit = camera.height / 640
    grain = fractal(lattice, columns / (9 * unit), rows / (9 * unit), 5)
    result = drawn.astype(np.float32) / 255
    result[touched] *= (1 + 0.16 * grain)[:, None]
    return result


def paint_water(lattice, camera, mirror):
    """Return the first row below the horizon, and the lake from there on.

    `mirror` is what the camera below the surface sees, of shape (height, width, 3).
    """
    first = int(np.ceil(camera.horizon))
    rows, columns = np.mgrid[first : camera.height, : camera.width].astype(np.float32)
    below = rows + 0.5 - camera.horizon
    d = camera.focal * camera.eye / below
    x = (columns - camera.width / 2) * d / camera.focal
    pixel = d * d / (camera.focal * camera.eye)  # metres of water that one row covers
    slope_d, slope_x, hidden = 0.0, 0.0, 0.0
    for length, strength in WAVES:
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
    # Schlick's approximation of the Fresnel reflection, made stronger for water at dusk.
    strength = 0.30 + 0.66 * (1 - facing) ** 3.2
    deep = mix([0.025, 0.13, 0.17], [0.05, 0.20, 0.24], smoothstep(-0.02, 0.03, slope_d))
    return first, mix(deep, reflected * [0.97, 0.96, 1.0], strength)


def develop(rng, colours):
    """Return the colours after lens and film: glow around lights, dark corners, grain, contrast."""
    height, width = colours.shape[:2]
    unit = height / 640
    lights = np.clip(colours - 0.80, 0, None) * 2.0
    for reach in (2.5, 9):
        colours = colours + 0.30 * gaussian_filter(lights, (reach * unit, reach * unit, 0))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    colours = colours * (1 - 0.16 * (x * x + y * y) / 2)[..., None]
    colours = colours + rng.normal(0, 0.006, colours.shape)
    return mix(colours, smoothstep(-0.02, 1.02, colours), 0.45 * np.ones((height, width)))


def paint(rng, height, width):
    """Return the lake town as colours of shape (height, width, 3)."""
    lattice = make_lattice(rng)
    s = SUPERSAMPLING
    camera = Camera(height * s, width * s, 0.535 * height * s, 0.96 * width * s, 5.2)
    below = replace(camera, eye=-camera.eye)
    land = Land(lattice, camera)
    sky = paint_sky(lattice, camera)
    things = place_town(lattice, rng)
    things += [(boat[1], draw_boat, boat) for boat in BOATS]
    things += [(25.0, draw_jetty, (7,)), (15.0, draw_reeds, (8,))]

    seen, colour = land.look(below)
    mirror = np.where(np.isfinite(seen)[..., None], colour, sky)
    mirror = draw_things(lattice, mirror, below, things)

    seen, colour = land.look(camera)
    view = np.where(np.isfinite(seen)[..., None], colour, sky)
    first, water = paint_water(lattice, camera, mirror)
    rows = np.arange(first, camera.height) + 0.5
    surface = camera.focal * camera.eye / (rows - camera.horizon)  # distance of the water there
    wet = seen[first:] > surface[:, None]
    view[first:][wet] = water[wet]
    return develop(rng, 1.07 * average_down(draw_things(lattice, view, camera, things)))

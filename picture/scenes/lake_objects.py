"""What stands in the lake town: houses, church, lighthouse, trees, boats, jetty and reeds.

Every function draws one thing with a `Pen`. `x`, `z`, `d` is the place of its foot in metres (see
`lake_land`). What is drawn at random takes a seed, so that the thing and its mirror image in the
water are the same.
"""

from itertools import pairwise

import numpy as np
from PIL import ImageDraw

from picture.scenes.lake_land import lit
from picture.scenes.tools import to_uint8

LAMP = np.array([1.0, 0.80, 0.42])


class Pen:
    """Fills shapes of the world on a Pillow image, as the camera sees them."""

    def __init__(self, image, camera):
        self.camera = camera
        self.draw = ImageDraw.Draw(image)

    def polygon(self, points, colour):
        """Fill the polygon with these world points."""
        self.draw.polygon(self.camera.project(points).ravel().tolist(), fill=ink(colour))


def ink(colour):
    """Return the colour as the 8-bit tuple that Pillow draws with."""
    return tuple(to_uint8(colour).tolist())


def draw_windows(pen, rng, wall, columns, rows, normal, distance):
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
            pen.polygon(low + v[:, None] * (high - low), pane)


def draw_house(pen, seed, x, z, d, size, floors, wall_colour, roof_colour):
    """Draw a house with a gabled roof: a prism, of which only the visible faces are drawn."""
    rng = np.random.default_rng(seed)
    width, length = size
    angle = rng.uniform(-0.5, 0.5) + (np.pi / 2 if rng.random() < 0.4 else 0)
    right = np.array([np.cos(angle), 0, np.sin(angle)])
    back = np.array([-np.sin(angle), 0, np.cos(angle)])
    up = np.array([0.0, 1.0, 0.0])
    centre, eye = np.array([x, z, d]), np.array([0, pen.camera.eye, 0])
    eaves, ridge = 2.9 * floors, 2.9 * floors + 0.42 * width

    def corner(side, end, height):
        return centre + side * right * width / 2 + end * back * length / 2 + up * height

    def faces_us(point, normal):
        return np.dot(point - eye, normal) < 0

    below = -3.5  # the walls reach into the slope
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
            pen.polygon(outline, lit(wall_colour, normal, d))
            wall = corner(*a, 0), corner(*b, 0), corner(*b, eaves), corner(*a, eaves)
            draw_windows(pen, rng, wall, max(2, int(wide / 2.8)), floors, normal, d)
    for sign in (-1, 1):
        normal = sign * right * 0.64 + up * 0.77
        if faces_us(corner(sign, 0, eaves), normal):
            roof = [corner(1.16 * sign, e, eaves - 0.3) for e in (-1.08, 1.08)]
            roof += [corner(0, e, ridge) for e in (1.08, -1.08)]
            pen.polygon(roof, lit(roof_colour, normal, d))
    chimney = corner(0.3, rng.uniform(-0.5, 0.5), ridge - 1.2)
    post = chimney + np.array([(-0.5, 0, 0), (0.5, 0, 0), (0.5, 2.6, 0), (-0.5, 2.6, 0)])
    pen.polygon(post, lit([0.45, 0.30, 0.25], up * 0.3, d))


def draw_round(pen, x, z, d, profile, colours):
    """Draw a solid of revolution with a vertical axis (tower, post), as a stack of rings.

    `profile` is a list of (height, radius) from the bottom, `colours` one for each ring.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 17)
    for ((h0, r0), (h1, r1)), colour in zip(pairwise(profile), colours, strict=True):
        for a, b in pairwise(angles):
            side = np.sin([a, b, b, a]) * [r0, r0, r1, r1]
            points = np.stack([x + side, z + np.array([h0, h0, h1, h1]), np.full(4, d)], -1)
            middle = (a + b) / 2
            normal = np.array([np.sin(middle), 0.15, -np.cos(middle)])
            pen.polygon(points, lit(colour, normal, d))


def draw_lighthouse(pen, x, z, d):
    """Draw the lighthouse with its gallery, lantern and roof."""
    white, red, dark = (0.92, 0.88, 0.82), (0.72, 0.16, 0.12), (0.20, 0.20, 0.24)
    profile = [(-4, 3.6), (3, 3.4), (8, 2.9), (13, 2.5), (18, 2.15), (22, 1.9), (22.6, 2.9)]
    draw_round(pen, x, z, d, profile, [white, red, white, red, white, dark])
    draw_round(pen, x, z, d, [(22.6, 1.5), (25.6, 1.5)], [LAMP * 2.6])
    draw_round(pen, x, z, d, [(25.6, 2.0), (27.6, 0.2)], [red])


def draw_church(pen, seed, x, z, d):
    """Draw the church: a nave like a house, and a tower with a spire in front of it."""
    rng = np.random.default_rng(seed)
    stone, slate = (0.80, 0.74, 0.66), (0.24, 0.30, 0.34)
    draw_house(pen, seed, x + 9, z, d + 3, (11, 20), 3, stone, slate)
    left, right = np.array([-0.8, 0, -0.6]), np.array([0.6, 0, -0.8])
    for normal, a, b in ((left, (-3.4, 2.0), (-0.8, -2.0)), (right, (-0.8, -2.0), (3.4, 1.0))):
        corners = (a, -5), (b, -5), (b, 22), (a, 22)
        wall = [np.array([x + dx, z + h, d + dd]) for (dx, dd), h in corners]
        pen.polygon(wall, lit(stone, normal, d))
        belfry = [wall[0] + [0, 21, 0], wall[1] + [0, 21, 0], wall[2], wall[3]]
        draw_windows(pen, rng, belfry, 2, 1, normal, d)
        pen.polygon([wall[3], wall[2], np.array([x, z + 37, d])], lit(slate, normal, d))


def draw_tree(pen, seed, x, z, d, height, conifer):
    """Draw a tree as many small blobs, from dark ones below to lit ones at the upper left."""
    rng = np.random.default_rng(seed)
    green = np.array([0.15, 0.25, 0.15]) if conifer else np.array([0.34, 0.32, 0.13])
    green = green * rng.uniform(0.7, 1.25) + rng.uniform(-0.03, 0.05, 3) * [1, 0.3, 0.2]
    pixels = pen.camera.focal / d
    count = int(np.clip(0.22 * height * pixels, 10, 90))
    level = (np.arange(count) + rng.random(count)) / count  # 0 at the bottom, 1 at the top
    if conifer:
        half_width, size = 0.14 * (1 - level), 0.045 + 0.10 * (1 - level)
    else:
        half_width, size = 0.36 * np.sqrt(1 - (2 * level - 1) ** 2), 0.15
    side = rng.uniform(-1, 1, count) * half_width * height
    radius = pixels * height * size * rng.uniform(0.6, 1.2, count)
    normal = np.stack([side / (0.36 * height), 0.5 + level, np.full(count, -0.5)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    colour = lit(green * (0.6 + 0.6 * level[:, None]), normal, d)
    bottom = 0.06 if conifer else 0.2
    up = z + height * (bottom + (1 - bottom) * level)
    centre = pen.camera.project(np.stack([x + side, up, np.full(count, d)], axis=-1))
    reach = np.stack([radius, 0.65 * radius], axis=-1)
    boxes = np.concatenate([centre - reach, centre + reach], axis=-1).tolist()
    for blob in np.argsort(level - side / height):
        pen.draw.ellipse(boxes[blob], ink(colour[blob]))


def draw_boat(pen, x, d, length, hull_colour, sail_colour, direction):
    """Draw a boat seen from the side; without sails if `sail_colour` is None.

    `direction` is +1 for a bow at the right, -1 at the left.
    """

    def at(u, h):  # u along the boat, in lengths; h above the water, in metres
        u, h = np.broadcast_arrays(np.asarray(u, float), np.asarray(h, float))
        return np.stack([x + direction * u * length, h, np.full_like(u, d)], axis=-1)

    def shape(points, colour):
        pen.polygon(points, lit(colour, np.array([-0.35, 0.3, -0.88]), d))

    along = np.linspace(-0.5, 0.5, 15)
    sheer = length * (0.075 + 0.26 * (along + 0.1) ** 2)
    keel = at(along * 0.86 - 0.03, np.zeros_like(along))
    shape(np.concatenate([at(along, sheer), keel[::-1]]), hull_colour)
    stripe = np.concatenate([at(along, sheer), at(along, sheer - 0.022 * length)[::-1]])
    shape(stripe, (0.92, 0.86, 0.74))
    if length < 6:
        return  # a rowing boat has neither cabin nor mast
    cabin = at([-0.26, 0.04, 0.01, -0.24], np.array([0.08, 0.08, 0.19, 0.19]) * length)
    shape(cabin, (0.80, 0.74, 0.62))
    for u in (-0.20, -0.11, -0.02):
        pane = at(u + np.array([-2, 2, 2, -2]) / 100, np.array([12, 12, 16, 16]) * length / 100)
        pen.polygon(pane, LAMP)
    mast = at([0.075, 0.09, 0.085, 0.08], np.array([0.1, 0.1, 1.15, 1.15]) * length)
    shape(mast, (0.42, 0.28, 0.18))
    if sail_colour is not None:
        draw_sails(shape, at, length, sail_colour)


def draw_sails(shape, at, length, colour):
    """Draw mainsail and jib in eight strips, each of a different shade, as on a curved sail.

    `shape` and `at` are the functions of `draw_boat`.
    """
    v = np.linspace(0, 1, 9)  # up the mast
    bulge = 0.05 * np.sin(np.pi * v)

    def main_edge(t):
        return at(0.07 - (0.50 * t + bulge * t) * (1 - v) ** 0.8, (0.24 + 0.86 * v) * length)

    def jib_edge(t):
        height = (0.16 + 0.80 * v + 0.05 * t) * length
        return at(0.10 + (0.38 * t + bulge * t) * (1 - v), height)

    for strip in range(8):
        low, high = strip / 8, (strip + 1) / 8
        shade = np.array(colour) * (0.82 + 0.30 * np.sin(np.pi * (low + 0.12)))
        for edge in (main_edge, jib_edge):
            shape(np.concatenate([edge(low), edge(high)[::-1]]), shade)


def draw_jetty(pen, seed):
    """Draw the wooden jetty at the right, plank by plank, with a man and a lamp at its end."""
    rng = np.random.default_rng(seed)
    left, right, deck = 3.4, 6.0, 1.15

    def post(x, d, top):
        draw_round(pen, x, 0, d, [(-0.4, 0.16), (top, 0.16)], [(0.30, 0.23, 0.19)])

    for d in np.arange(42, 9, -0.42):
        if int(d / 0.42) % 9 == 0:
            post(right, d, 2.0)
        wood = np.array([0.68, 0.56, 0.47]) * rng.uniform(0.65, 1.2) + rng.uniform(0, 0.03, 3)
        slack = rng.uniform(-0.12, 0.12, 2)
        plank = [(left + slack[0], deck, d), (right + slack[1], deck, d)]
        plank += [(right + slack[1], deck, d - 0.37), (left + slack[0], deck, d - 0.37)]
        pen.polygon(plank, lit(wood, np.array([0, 1, 0]), d))
        side = [(left, deck, d), (left, deck, d - 0.42), (left, deck - 0.3, d - 0.42)]
        side += [(left, deck - 0.3, d)]
        pen.polygon(side, lit(wood * 0.6, np.array([-1, 0, 0]), d))
        if int(d / 0.42) % 9 == 0:
            post(left, d, 2.0)
    coat, skin = (0.16, 0.13, 0.17), (0.50, 0.36, 0.28)
    man = [
        ([(0, 0.16), (0.8, 0.24), (1.2, 0.30), (1.5, 0.12)], coat),
        ([(1.48, 0.12), (1.6, 0.17), (1.8, 0.10)], skin),
        ([(1.7, 0.22), (1.74, 0.14), (1.88, 0.12)], coat),  # his hat
    ]
    for profile, colour in man:
        draw_round(pen, 4.9, deck, 38.0, profile, [colour] * (len(profile) - 1))
    draw_round(pen, 3.4, 0, 40.0, [(0, 0.10), (5.2, 0.07)], [(0.18, 0.16, 0.18)])
    draw_round(pen, 3.4, 0, 40.0, [(4.9, 0.20), (5.5, 0.24)], [LAMP * 2.6])


def draw_reeds(pen, seed):
    """Draw the reeds at the left: bent blades that taper to a point, some with a brown head."""
    rng = np.random.default_rng(seed)
    up = np.linspace(0, 1, 7)
    for d in np.sort(rng.uniform(13.6, 17.5, 170))[::-1]:
        x, tall = rng.uniform(-8.6, -5.2) - 0.5 * rng.random() * (d - 13), rng.uniform(0.7, 2.3)
        tall *= np.clip((-4.9 - x) / 1.8, 0.25, 1)  # lower towards the open water
        bulrush = rng.random() < 0.1  # straight, does not taper, has a brown head
        bend = (0.05 if bulrush else rng.normal(0.25, 0.35)) * tall * up**2.2
        half = np.full_like(up, 0.016) if bulrush else 0.035 * (1 - up**2)
        height, depth = tall * up, np.full_like(up, d)
        left = np.stack([x + bend - half, height, depth], axis=-1)
        right = np.stack([x + bend + half, height, depth], axis=-1)
        green = np.array([0.34, 0.36, 0.16]) * rng.uniform(0.4, 1.3)
        colour = lit(green, np.array([-0.5, 0.5, -0.7]), d)
        pen.polygon(np.concatenate([left, right[::-1]]), colour)
        if bulrush:
            tip = x + bend[-2], height[-2], d
            draw_round(pen, *tip, [(-0.15, 0.045), (0.12, 0.04)], [(0.40, 0.24, 0.14)])

"""Synthetic handwritten digits, used where MNIST is not available.

Each digit starts as a skeleton, the path of a pen, from digits.json. For every picture the skeleton
is deformed at random (slant, rotation, proportions, a smooth elastic deformation), brought to
MNIST's size and position, and drawn by a soft pen of random width. The same seed gives the same
digits. In comments, B is the number of pictures drawn together.

The set does not replace MNIST: the perceptron of mnist_mlp_cpu.py, trained on these digits, reads
98.5 % of their test set, but only 89 % of MNIST's.
"""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from mnist.data import BOX, MNIST_FILES, SIDE, as_rows, data_folder, read_mnist, write_idx
from support.files import write_json

SKELETONS_FILE = Path(__file__).with_name("digits.json")
VERSION = 1  # raise it whenever the same seed gives different pictures
SEED = 20120
TRAIN_COUNT, TEST_COUNT = 12_000, 2_000
POINTS = 128  # pen positions along a skeleton
BATCH = 500  # pictures drawn together: they need about 60 MB


def load_digits(data_dir=None):
    """Return the folder of the digits, "mnist" or "synthetic", and the training and test digits.

    The folder is that of `data_folder`; print what it holds. The digits are as in `as_rows`.
    Synthetic ones are drawn the first time.
    """
    folder, source = data_folder(data_dir)
    if source == "synthetic":
        make_synthetic_mnist(folder)
    train_images, train_labels, test_images, test_labels = read_mnist(folder)
    sizes = f"{len(train_labels):,} training and {len(test_labels):,} test digits"
    if source == "mnist":
        print(f"MNIST from {folder}: {sizes}")
    else:
        print(
            f"{folder.parent} holds no MNIST: using SYNTHETIC digits drawn by this program "
            f"({sizes}); --download fetches the real ones"
        )
    return folder, source, as_rows(train_images, train_labels), as_rows(test_images, test_labels)


def make_synthetic_mnist(folder, train_count=TRAIN_COUNT, test_count=TEST_COUNT, seed=SEED):
    """Write the synthetic set to `folder` as four IDX files, unless it is there already.

    The counts are at least 1. Return whether digits were drawn. `InputError` if the files cannot be
    written.
    """
    folder = Path(folder)
    counts = {"train": train_count, "test": test_count}
    recipe = {"version": VERSION, "seed": seed, **counts}
    marker = folder / "recipe.json"  # complete only if the set is
    with suppress(OSError, ValueError):  # absent or damaged; InputError is a ValueError
        if json.loads(marker.read_text("utf-8")) == recipe:
            train_images, _, test_images, _ = read_mnist(folder)
            if (len(train_images), len(test_images)) == (train_count, test_count):
                return False
    write_json(marker, {})
    # Two independent streams: the test digits do not depend on the number of training digits.
    streams = np.random.SeedSequence(seed).spawn(2)
    for (part, count), stream in zip(counts.items(), streams, strict=True):
        images, labels = draw_digits(count, np.random.default_rng(stream))
        write_idx(folder / MNIST_FILES[f"{part}_images"], images)
        write_idx(folder / MNIST_FILES[f"{part}_labels"], labels)
    write_json(marker, recipe)
    return True


def draw_digits(count, rng=None):
    """Draw `count` digits in random order, each of the ten equally often (or once more).

    Returns
    -------
    images : ndarray of shape (count, 28, 28), uint8, 0 (paper) to 255 (ink)
    labels : ndarray of shape (count,), uint8, 0 to 9
    """
    rng = np.random.default_rng(rng)
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    table = json.loads(SKELETONS_FILE.read_text("utf-8"))["digits"]
    skeletons = [[_skeleton(strokes) for strokes in table[str(digit)]] for digit in range(10)]
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    for start in range(0, count, BATCH):
        batch = labels[start : start + BATCH]
        choices = [skeletons[digit] for digit in batch]
        ways = [int(r * len(c)) for r, c in zip(rng.random(len(batch)), choices, strict=True)]
        chosen = np.array([c[way] for c, way in zip(choices, ways, strict=True)])  # (B, POINTS, 3)
        path = _place(_deform(chosen[..., :2], rng), rng)
        images[start : start + BATCH] = _draw(path, chosen[..., 2], rng)
    return images, labels


def _skeleton(strokes):
    """Return equally spaced points on `strokes`, (POINTS, 3): x, y, distance to the next point."""
    curves = [_smooth(np.array(stroke)) for stroke in strokes]
    steps = [np.linalg.norm(np.diff(curve, axis=0), axis=1) for curve in curves]
    lengths = np.array([step.sum() for step in steps])
    ends = np.round(np.cumsum(lengths) / lengths.sum() * POINTS).astype(int)
    counts = np.diff(ends, prepend=0)
    points = []
    for curve, step, length, count in zip(curves, steps, lengths, counts, strict=True):
        along = np.concatenate([[0.0], np.cumsum(step)])
        at = np.linspace(0.0, length, count)
        x, y = (np.interp(at, along, curve[:, axis]) for axis in (0, 1))
        points.append(np.stack([x, y, np.full(count, length / count)], axis=1))
    return np.concatenate(points)


def _smooth(points, per_piece=24):
    """Return the Catmull-Rom curve through `points`, finely sampled."""
    before, after = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p = np.concatenate([[before], points, [after]])
    t = np.linspace(0, 1, per_piece, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
               + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]  # fmt: skip
    return np.concatenate([*pieces, points[-1:]])


def _deform(path, rng):
    """Deform each path (B, POINTS, 2) at random: first elastically, then by an affine map.

    The elastic part moves every point by a sum of slow sine waves over the plane. The movement
    depends on the position only, so strokes that meet stay together.
    """
    count = len(path)
    path = path - 0.5
    # two long waves change the shape, two short ones make the line tremble
    for wavelength, amplitude in ((1.6, 0.060), (1.1, 0.050), (0.65, 0.022), (0.45, 0.010)):
        angle = rng.uniform(0, 2 * np.pi, size=(count, 1))
        wave = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (2 * np.pi / wavelength)
        phase = rng.uniform(0, 2 * np.pi, size=(count, 1))
        push = rng.normal(scale=amplitude, size=(count, 1, 2))
        # (B, POINTS, 2) * (B, 1, 2) -> (B, POINTS) -> (B, POINTS, 1)
        path = path + push * np.sin((path * wave).sum(axis=-1) + phase)[..., None]
    turn = rng.normal(scale=0.12, size=count)  # radians
    slant = rng.normal(loc=-0.14, scale=0.26, size=count)  # most handwriting leans to the right
    width = np.exp(rng.normal(loc=-0.08, scale=0.17, size=count))
    cos, sin = np.cos(turn), np.sin(turn)
    # rows: x' = cos (width x + slant y) - sin y,  y' = sin (width x + slant y) + cos y
    matrix = np.stack(
        [cos * width, cos * slant - sin, sin * width, sin * slant + cos], axis=-1
    ).reshape(count, 2, 2)  # (B, 4) -> (B, 2, 2)
    return path @ matrix.swapaxes(1, 2)  # each 2 x 2 matrix transposed


def _place(path, rng):
    """Scale each path to its box and move it to the centre, in pixels."""
    size = np.ptp(path, axis=1).max(axis=1)  # (B, POINTS, 2) -> (B, 2) -> (B,)
    box = BOX - 2.5 + rng.uniform(-1.2, 0.6, size=len(path))  # the width of the pen is added to it
    path = path * (box / size)[:, None, None]
    centre = path.mean(axis=1, keepdims=True)  # of mass, since the points are equally spaced
    offset = rng.normal(scale=0.35, size=(len(path), 1, 2))
    return path - centre + (SIDE - 1) / 2 + offset


def _draw(path, spacing, rng):
    """Draw each path with a soft pen; return uint8 pictures (B, 28, 28).

    Each pen position leaves a Gaussian spot. A Gaussian is a product of one in x and one in y, so
    all spots of a picture are summed by one matrix product. The paper saturates: darkness =
    1 - exp(-ink), so strokes are black in the middle and smooth at the edges.
    """
    count = len(path)
    path = path.astype(np.float32)
    radius = rng.uniform(0.55, 0.95, size=(count, 1, 1)).astype(np.float32)  # pixels
    flow = np.exp(rng.normal(loc=1.45, scale=0.40, size=(count, 1)))  # how wet the pen is
    # the pressure rises and falls once or twice along the path
    along = np.linspace(0, 1, POINTS)
    beat = rng.uniform(0.5, 2.0, size=(count, 1)) * along + rng.random((count, 1))
    pressure = 1 + rng.uniform(0, 0.45, size=(count, 1)) * np.sin(2 * np.pi * beat)
    # weighted by the distance to the next spot: dense spots must not give more ink
    spot = flow * pressure * spacing * BOX / (radius[:, 0] * np.sqrt(2 * np.pi))
    grid = np.arange(SIDE, dtype=np.float32)
    across = np.exp(-0.5 * ((grid - path[..., :1]) / radius) ** 2)  # (B, POINTS, 28 columns)
    down = np.exp(-0.5 * ((grid - path[..., 1:]) / radius) ** 2)  # (B, POINTS, 28 rows)
    down *= spot[..., None].astype(np.float32)
    ink = down.swapaxes(1, 2) @ across  # (B, 28, POINTS) @ (B, POINTS, 28) -> (B, 28, 28)
    ink *= rng.normal(1, 0.12, size=ink.shape).astype(np.float32)  # paper grain
    picture = 255 * (1 - np.exp(-np.maximum(ink, 0)))
    picture += rng.normal(scale=6, size=picture.shape).astype(np.float32)  # scanner noise
    return np.where(picture < 12, 0, np.minimum(picture, 255)).astype(np.uint8)

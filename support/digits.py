"""Handwritten-looking digits, drawn by the computer: a stand-in for MNIST where it is not at hand.

A digit starts as a skeleton, the path of the pen. Every picture bends it in its own way (slant,
turn, proportions, a smooth elastic warp), brings it to MNIST's size and place, and lets a soft pen
of its own width run along it. The same seed gives the same digits.

The set is a stand-in, no more: the perceptron of mnist_mlp_cpu.py that was trained on these digits
reads 98.6 % of them, but 88.7 % of MNIST's.
"""

import json
from pathlib import Path

import numpy as np

from support.command import InputError
from support.files import write_json
from support.mnist import MNIST_FILES, SIDE, read_mnist, write_idx

VERSION = 1  # to be raised whenever other pictures come out of the same seed
SEED = 20120
TRAIN_COUNT, TEST_COUNT = 12_000, 2_000
POINTS = 128  # pen positions along a skeleton
BATCH = 500  # pictures drawn together: about 60 MB of work space
BOX = 20.0  # MNIST: the digit fits a box of 20 pixels, its centre of mass in the middle of the 28

# The skeletons: digit -> ways to write it -> strokes -> points (x to the right, y downwards, in a
# box about 1 high). A stroke is the smooth curve through its points; a corner is where one stroke
# ends and the next begins.
SKELETONS = {
    0: [
        [[(0.50, 0.00), (0.20, 0.18), (0.12, 0.52), (0.24, 0.88), (0.50, 1.00), (0.78, 0.86),
          (0.88, 0.50), (0.78, 0.14), (0.50, 0.00)]],
        [[(0.50, 0.00), (0.34, 0.20), (0.28, 0.55), (0.36, 0.88), (0.52, 1.00), (0.68, 0.84),
          (0.74, 0.48), (0.66, 0.14), (0.50, 0.00)]],
        [[(0.66, 0.04), (0.38, 0.04), (0.14, 0.34), (0.12, 0.72), (0.36, 0.98), (0.68, 0.86),
          (0.88, 0.50), (0.82, 0.16), (0.56, 0.02), (0.40, 0.12)]],
        [[(0.42, 0.02), (0.16, 0.30), (0.14, 0.72), (0.40, 1.00), (0.74, 0.84), (0.86, 0.46),
          (0.72, 0.12), (0.46, 0.06)]],
    ],
    1: [
        [[(0.50, 0.00), (0.50, 0.50), (0.50, 1.00)]],
        [[(0.60, 0.00), (0.50, 0.52), (0.42, 1.00)]],
        [[(0.32, 0.22), (0.46, 0.12), (0.56, 0.00)], [(0.56, 0.00), (0.53, 0.50), (0.52, 1.00)]],
        [[(0.30, 0.24), (0.44, 0.14), (0.54, 0.00)], [(0.54, 0.00), (0.52, 0.50), (0.52, 1.00)],
         [(0.26, 1.00), (0.52, 0.99), (0.78, 1.00)]],
        [[(0.68, 0.00), (0.56, 0.34), (0.42, 0.70), (0.34, 1.00)]],
    ],
    2: [
        [[(0.18, 0.22), (0.30, 0.05), (0.56, 0.00), (0.78, 0.16), (0.74, 0.42), (0.46, 0.72),
          (0.14, 0.98)], [(0.14, 0.98), (0.50, 0.97), (0.88, 0.96)]],
        [[(0.20, 0.18), (0.44, 0.00), (0.74, 0.10), (0.76, 0.36), (0.50, 0.68), (0.22, 0.94),
          (0.12, 0.88), (0.26, 0.78), (0.50, 0.90), (0.72, 0.98), (0.92, 0.88)]],
        [[(0.22, 0.12), (0.50, 0.00), (0.72, 0.14), (0.66, 0.42), (0.38, 0.76), (0.18, 0.94),
          (0.34, 0.92), (0.60, 0.98), (0.88, 0.94)]],
        [[(0.14, 0.06), (0.48, 0.00), (0.74, 0.12), (0.70, 0.40), (0.42, 0.74), (0.20, 1.00)],
         [(0.20, 1.00), (0.54, 1.00), (0.80, 0.98)]],
    ],
    3: [
        [[(0.20, 0.14), (0.44, 0.00), (0.74, 0.10), (0.72, 0.34), (0.44, 0.46)],
         [(0.44, 0.46), (0.74, 0.54), (0.84, 0.76), (0.62, 0.98), (0.32, 0.98), (0.12, 0.84)]],
        [[(0.18, 0.02), (0.48, 0.02), (0.80, 0.00)], [(0.80, 0.00), (0.60, 0.22), (0.44, 0.40)],
         [(0.44, 0.40), (0.72, 0.46), (0.84, 0.70), (0.62, 0.96), (0.34, 0.98), (0.14, 0.86)]],
        [[(0.22, 0.10), (0.50, 0.00), (0.72, 0.16), (0.62, 0.38), (0.44, 0.46), (0.38, 0.52),
          (0.48, 0.52), (0.72, 0.60), (0.78, 0.80), (0.54, 1.00), (0.22, 0.92)]],
        [[(0.24, 0.06), (0.54, 0.00), (0.76, 0.16), (0.64, 0.40), (0.40, 0.48)],
         [(0.40, 0.48), (0.64, 0.54), (0.74, 0.72), (0.58, 0.92), (0.34, 1.00), (0.16, 0.98)]],
    ],
    4: [
        [[(0.22, 0.02), (0.18, 0.30), (0.18, 0.54)], [(0.18, 0.54), (0.50, 0.56), (0.86, 0.52)],
         [(0.74, 0.00), (0.70, 0.50), (0.68, 1.00)]],
        [[(0.66, 0.00), (0.40, 0.32), (0.10, 0.66)], [(0.10, 0.66), (0.50, 0.66), (0.92, 0.64)],
         [(0.66, 0.00), (0.66, 0.50), (0.64, 1.00)]],
        [[(0.26, 0.00), (0.14, 0.34), (0.24, 0.54), (0.50, 0.54), (0.76, 0.44)],
         [(0.80, 0.02), (0.74, 0.50), (0.66, 1.00)]],
        [[(0.34, 0.00), (0.14, 0.40), (0.12, 0.58)], [(0.12, 0.58), (0.46, 0.52), (0.88, 0.46)],
         [(0.66, 0.22), (0.60, 0.60), (0.52, 1.00)]],
    ],
    5: [
        [[(0.26, 0.02), (0.24, 0.22), (0.20, 0.44)],
         [(0.20, 0.44), (0.48, 0.36), (0.76, 0.50), (0.80, 0.74), (0.56, 0.98), (0.14, 0.92)],
         [(0.26, 0.02), (0.52, 0.02), (0.82, 0.00)]],
        [[(0.82, 0.02), (0.56, 0.02), (0.34, 0.06)], [(0.34, 0.06), (0.28, 0.26), (0.26, 0.42)],
         [(0.26, 0.42), (0.56, 0.44), (0.74, 0.64), (0.62, 0.90), (0.36, 1.00), (0.12, 0.94)]],
        [[(0.86, 0.00), (0.56, 0.04), (0.34, 0.16), (0.28, 0.34), (0.46, 0.46), (0.68, 0.58),
          (0.72, 0.80), (0.50, 0.98), (0.18, 0.94)]],
        [[(0.32, 0.08), (0.30, 0.30), (0.26, 0.46)],
         [(0.26, 0.46), (0.54, 0.42), (0.76, 0.58), (0.70, 0.86), (0.42, 1.00), (0.14, 0.90)],
         [(0.32, 0.10), (0.58, 0.06), (0.84, 0.06)]],
    ],
    6: [
        [[(0.72, 0.02), (0.42, 0.18), (0.22, 0.50), (0.22, 0.80), (0.46, 1.00), (0.74, 0.88),
          (0.76, 0.64), (0.54, 0.52), (0.30, 0.62), (0.22, 0.76)]],
        [[(0.46, 0.00), (0.30, 0.34), (0.24, 0.70), (0.38, 0.97), (0.64, 0.97), (0.78, 0.78),
          (0.64, 0.58), (0.40, 0.60), (0.26, 0.76)]],
        [[(0.78, 0.08), (0.58, 0.00), (0.32, 0.18), (0.18, 0.54), (0.28, 0.90), (0.56, 1.00),
          (0.80, 0.84), (0.74, 0.60), (0.48, 0.54), (0.22, 0.68)]],
        [[(0.60, 0.00), (0.36, 0.34), (0.26, 0.76), (0.46, 1.00), (0.66, 0.86), (0.62, 0.64),
          (0.42, 0.66), (0.30, 0.84)]],
    ],
    7: [
        [[(0.14, 0.04), (0.46, 0.03), (0.84, 0.02)], [(0.84, 0.02), (0.60, 0.48), (0.42, 1.00)]],
        [[(0.14, 0.04), (0.46, 0.04), (0.84, 0.00)], [(0.84, 0.00), (0.60, 0.50), (0.44, 1.00)],
         [(0.34, 0.52), (0.56, 0.50), (0.80, 0.50)]],
        [[(0.14, 0.22), (0.15, 0.12), (0.18, 0.02)], [(0.18, 0.02), (0.48, 0.05), (0.80, 0.02)],
         [(0.80, 0.02), (0.64, 0.34), (0.56, 0.66), (0.54, 1.00)]],
        [[(0.12, 0.12), (0.36, 0.00), (0.62, 0.08), (0.82, 0.06), (0.72, 0.32), (0.52, 0.66),
          (0.40, 1.00)]],
    ],
    8: [
        [[(0.72, 0.14), (0.50, 0.00), (0.24, 0.14), (0.34, 0.38), (0.66, 0.58), (0.78, 0.82),
          (0.50, 1.00), (0.22, 0.82), (0.36, 0.58), (0.66, 0.38), (0.74, 0.14)]],
        [[(0.50, 0.46), (0.28, 0.32), (0.32, 0.08), (0.52, 0.00), (0.72, 0.10), (0.72, 0.32),
          (0.50, 0.46)], [(0.50, 0.46), (0.22, 0.60), (0.20, 0.86), (0.50, 1.00), (0.80, 0.86),
                          (0.76, 0.60), (0.50, 0.46)]],
        [[(0.80, 0.04), (0.52, 0.02), (0.28, 0.18), (0.42, 0.42), (0.64, 0.66), (0.58, 0.94),
          (0.34, 1.00), (0.24, 0.80), (0.46, 0.54), (0.70, 0.30), (0.84, 0.06)]],
        [[(0.56, 0.42), (0.38, 0.26), (0.46, 0.02), (0.68, 0.04), (0.72, 0.24), (0.52, 0.48),
          (0.30, 0.74), (0.34, 0.96), (0.56, 0.98), (0.66, 0.76), (0.56, 0.42)]],
    ],
    9: [
        [[(0.74, 0.22), (0.54, 0.02), (0.26, 0.12), (0.22, 0.38), (0.46, 0.50), (0.70, 0.34),
          (0.76, 0.14)], [(0.76, 0.14), (0.72, 0.56), (0.66, 1.00)]],
        [[(0.72, 0.14), (0.48, 0.00), (0.24, 0.20), (0.32, 0.44), (0.58, 0.42), (0.74, 0.14),
          (0.78, 0.44), (0.70, 0.78), (0.48, 1.00), (0.24, 0.92)]],
        [[(0.70, 0.10), (0.44, 0.02), (0.24, 0.24), (0.36, 0.44), (0.60, 0.34), (0.72, 0.08)],
         [(0.72, 0.08), (0.62, 0.44), (0.46, 0.76), (0.34, 1.00)]],
        [[(0.66, 0.06), (0.36, 0.10), (0.22, 0.36), (0.42, 0.50), (0.68, 0.34), (0.74, 0.06),
          (0.70, 0.50), (0.72, 0.98)]],
    ],
}  # fmt: skip


def make_synthetic_mnist(folder, train_count=TRAIN_COUNT, test_count=TEST_COUNT, seed=SEED):
    """See to it that `folder` holds the synthetic set as four IDX files.

    A complete set of the same version, seed and counts is left as it is.

    Parameters
    ----------
    folder : str or Path
    train_count, test_count : int
        How many digits, at least 1.
    seed : int

    Returns
    -------
    bool
        True if the digits were drawn, False if they were there already.

    Raises
    ------
    InputError
        If the files cannot be written.
    """
    folder = Path(folder)
    recipe = {"version": VERSION, "seed": seed, "train": train_count, "test": test_count}
    marker = folder / "recipe.json"  # written last: without it the files may be incomplete
    try:
        if json.loads(marker.read_text("utf-8")) == recipe:
            train_images, _, test_images, _ = read_mnist(folder)
            if (len(train_images), len(test_images)) == (train_count, test_count):
                return False
    except (OSError, ValueError):  # absent or damaged (JSON's and ours are ValueErrors): draw anew
        pass
    try:
        marker.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {marker}: {error.strerror}") from error
    # independent streams, so that the test digits do not depend on the number of training digits
    for part, count, stream in zip(
        ("train", "test"), (train_count, test_count), np.random.SeedSequence(seed).spawn(2),
        strict=True,
    ):  # fmt: skip
        images, labels = draw_digits(count, np.random.default_rng(stream))
        write_idx(folder / MNIST_FILES[f"{part}_images"], images)
        write_idx(folder / MNIST_FILES[f"{part}_labels"], labels)
    write_json(marker, recipe)
    return True


def draw_digits(count, rng=None):
    """Draw `count` digits in random order, each of the ten equally often (to within one).

    Parameters
    ----------
    count : int
    rng : None, int or numpy.random.Generator

    Returns
    -------
    images : ndarray of shape (count, 28, 28), uint8, 0 (paper) to 255 (ink)
    labels : ndarray of shape (count,), uint8, 0 to 9
    """
    rng = np.random.default_rng(rng)
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    skeletons = {digit: np.array([_skeleton(way) for way in ways])  # (ways, POINTS, 3)
                 for digit, ways in SKELETONS.items()}  # fmt: skip
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    for start in range(0, count, BATCH):
        batch = labels[start : start + BATCH]
        ways = rng.random(len(batch))
        chosen = np.array(
            [skeletons[digit][int(way * len(skeletons[digit]))]
             for digit, way in zip(batch.tolist(), ways.tolist(), strict=True)]
        )  # fmt: skip
        path = _place(_bend(chosen[..., :2], rng), rng)
        images[start : start + BATCH] = _ink(path, chosen[..., 2], rng)
    return images, labels


def _skeleton(strokes):
    """Return POINTS equally spaced points (x, y, share of the length) along all `strokes`."""
    curves = [_smooth(np.array(stroke)) for stroke in strokes]
    steps = [np.linalg.norm(np.diff(curve, axis=0), axis=1) for curve in curves]
    lengths = np.array([step.sum() for step in steps])
    ends = np.round(np.cumsum(lengths) / lengths.sum() * POINTS).astype(int)
    points = []
    for curve, step, length, count in zip(
        curves, steps, lengths, np.diff(ends, prepend=0), strict=True
    ):
        along = np.concatenate([[0.0], np.cumsum(step)])
        at = np.linspace(0.0, length, count)
        xy = [np.interp(at, along, curve[:, axis]) for axis in (0, 1)]
        points.append(np.stack([*xy, np.full(count, length / count)], axis=1))
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


def _bend(path, rng):
    """Bend each path (B, POINTS, 2) in its own way: first elastically, then by an affine map.

    The elastic part moves every point by a sum of a few slow sine waves over the plane. As a
    function of the place alone, it keeps together strokes that meet.
    """
    count = len(path)
    path = path - 0.5
    # two long waves change the form, two short ones make the hand tremble
    for wavelength, amplitude in ((1.6, 0.060), (1.1, 0.050), (0.65, 0.022), (0.45, 0.010)):
        angle = rng.uniform(0, 2 * np.pi, size=(count, 1))
        wave = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (2 * np.pi / wavelength)
        phase = rng.uniform(0, 2 * np.pi, size=(count, 1))
        push = rng.normal(scale=amplitude, size=(count, 1, 2))
        # (B, POINTS, 2) * (B, 1, 2) -> (B, POINTS) -> (B, POINTS, 1)
        path = path + push * np.sin((path * wave).sum(axis=-1) + phase)[..., None]
    turn = rng.normal(scale=0.12, size=count)  # radians
    slant = rng.normal(loc=-0.14, scale=0.26, size=count)  # most hands lean to the right
    width = np.exp(rng.normal(loc=-0.08, scale=0.17, size=count))
    cos, sin = np.cos(turn), np.sin(turn)
    # rows: x' = cos (width x + slant y) - sin y,  y' = sin (width x + slant y) + cos y
    matrix = np.stack(
        [cos * width, cos * slant - sin, sin * width, sin * slant + cos], axis=-1
    ).reshape(count, 2, 2)
    return path @ matrix.swapaxes(1, 2)  # (B, 2, 2) -> (B, 2, 2) transposed


def _place(path, rng):
    """Scale each path to its box and put its centre into the middle, in pixels."""
    size = np.ptp(path, axis=1).max(axis=1)  # (B, POINTS, 2) -> (B, 2) -> (B,)
    box = BOX - 2.5 + rng.uniform(-1.2, 0.6, size=len(path))  # the pen's width comes on top
    path = path * (box / size)[:, None, None]
    middle = path.mean(axis=1, keepdims=True)  # equally spaced points: the centre of mass
    wobble = rng.normal(scale=0.35, size=(len(path), 1, 2))
    return path - middle + (SIDE - 1) / 2 + wobble


def _ink(path, spacing, rng):
    """Let a soft pen run along each path; return uint8 pictures (B, 28, 28).

    Each pen position leaves a Gaussian blot. A Gaussian is a product of one in x and one in y, so
    that all blots of a picture add up in a single matrix product. Paper takes only so much ink:
    darkness = 1 - exp(-ink), which makes the strokes' middle black and their edges smooth.
    """
    count = len(path)
    path = path.astype(np.float32)
    radius = rng.uniform(0.55, 0.95, size=(count, 1, 1)).astype(np.float32)  # pixels
    flow = np.exp(rng.normal(loc=1.45, scale=0.40, size=(count, 1)))  # how wet the pen is
    # the pressure swells and fades once or twice along the way
    along = np.linspace(0, 1, POINTS)
    beat = rng.uniform(0.5, 2.0, size=(count, 1)) * along + rng.random((count, 1))
    pressure = 1 + rng.uniform(0, 0.45, size=(count, 1)) * np.sin(2 * np.pi * beat)
    # a denser row of blots must not give more ink: weigh each by the way to the next
    blot = flow * pressure * spacing * BOX / (radius[:, 0] * np.sqrt(2 * np.pi))
    grid = np.arange(SIDE, dtype=np.float32)
    across = np.exp(-0.5 * ((grid - path[..., :1]) / radius) ** 2)  # (B, POINTS, 28 columns)
    down = np.exp(-0.5 * ((grid - path[..., 1:]) / radius) ** 2)  # (B, POINTS, 28 rows)
    down *= blot[..., None].astype(np.float32)
    ink = down.swapaxes(1, 2) @ across  # (B, 28, POINTS) @ (B, POINTS, 28) -> (B, 28, 28)
    ink *= rng.normal(1, 0.12, size=ink.shape).astype(np.float32)  # grain of the paper
    picture = 255 * (1 - np.exp(-np.maximum(ink, 0)))
    picture += rng.normal(scale=6, size=picture.shape).astype(np.float32)  # noise of the scanner
    return np.where(picture < 12, 0, np.minimum(picture, 255)).astype(np.uint8)

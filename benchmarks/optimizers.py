"""L-BFGS of `style/optimizers.py` against SciPy's L-BFGS-B: loss by evaluations, and time.

    python benchmarks/optimizers.py                            # the project's own pictures
    python benchmarks/optimizers.py me.jpg art.jpg --size 256  # a content and a style picture

Both minimise the same objective from the same start, at one size, with k-means filters and ten
pairs. SciPy works in double precision and runs without interruption.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import scipy.optimize
from common import ROOT, describe_machine, print_table

import style_transfer_cpu as demo
from fast.fused import FusedNetwork
from style.objective import Objective
from style.optimizers import PAIRS, lbfgs
from style.plan import Position, plan_scales
from style.settings import Settings
from support.pictures import read_picture

MARKS = (20, 40, 60)  # evaluations after which the losses are compared
OWN = [  # content, style, size
    ("content.jpg", "style.jpg", 128),
    ("content.jpg", "style.jpg", 256),
    ("content.jpg", "style_mosaic.jpg", 192),
    ("style.jpg", "content.jpg", 192),
]
TIMED_SIZES = (400, 512)


class Enough(Exception):
    """All evaluations are done."""


class Recorder:
    """An objective that notes each loss and when the evaluation began and ended."""

    def __init__(self, objective, evaluations):
        self.objective, self.evaluations = objective, evaluations
        self.losses, self.times = [], []

    def __call__(self, image):
        if len(self.losses) == self.evaluations:
            raise Enough
        begin = time.perf_counter()
        losses, gradient = self.objective(image)
        self.times.append((begin, time.perf_counter()))
        self.losses.append(sum(losses.values()))
        return losses, gradient

    def own_seconds(self):
        """Return the median time from one evaluation to the next, once all pairs are there."""
        return median(later[0] - earlier[1] for earlier, later in pairwise(self.times[PAIRS + 2 :]))

    def evaluation_seconds(self):
        return median(end - begin for begin, end in self.times[PAIRS + 2 :])


def problem(content, style, size):
    """Return objective, first image and bounds of a run at one size."""
    settings = Settings(size=size, scales=1).complete("kmeans")
    content, styles = read_picture(content), [read_picture(style)]
    rng = np.random.default_rng(settings.seed)
    network = demo.make_network(content, styles, settings, rng)
    (scale,) = plan_scales(content, styles, settings)
    content, styles = demo.scaled(content, styles, scale)
    content_image, style_images = network.prepare(content), list(map(network.prepare, styles))
    mean = network.image_mean.reshape(1, 3, 1, 1)
    bounds = -mean, 255 - mean
    start = np.clip(demo.first_image(network, content, styles, None, settings, rng), *bounds)
    fused = FusedNetwork(demo.used_part(network, settings))
    return Objective(fused, content_image, style_images, settings), start, bounds


def ours(objective, start, bounds):
    lbfgs(objective, Position(0, 0, start, {}), 10**6, bounds, lambda position, losses: None)


def scipys(objective, start, bounds):
    """Run SciPy's L-BFGS-B; its first step has length 1 over all pixels, hence the unit."""
    unit = np.sqrt(start.size)

    def evaluate(x):
        losses, gradient = objective((unit * x).reshape(start.shape).astype(start.dtype))
        return sum(losses.values()), unit * gradient.astype(np.float64, order="C").ravel()

    low, high = (np.broadcast_to(bound, start.shape).ravel() / unit for bound in bounds)
    scipy.optimize.minimize(
        evaluate, start.ravel() / unit, method="L-BFGS-B", jac=True,
        bounds=scipy.optimize.Bounds(low, high),
        options={"maxiter": 10**6, "maxfun": 10**6, "ftol": 0, "gtol": 0, "maxcor": PAIRS},
    )  # fmt: skip


def record(minimise, objective, start, bounds, evaluations):
    """Return the `Recorder` of a run of so many evaluations."""
    recorder = Recorder(objective, evaluations)
    try:
        minimise(recorder, start, bounds)
    except Enough:
        pass
    return recorder


def compare_losses(cases):
    """Print the least loss so far of both, after each number of evaluations in `MARKS`."""
    rows = []
    for content, style, size in cases:
        objective, start, bounds = problem(content, style, size)
        runs = [record(each, objective, start, bounds, max(MARKS)) for each in (ours, scipys)]
        cells = []
        for mark in MARKS:
            our_loss, their_loss = (min(run.losses[:mark]) for run in runs)
            cells.append(f"{our_loss:.3f} / {their_loss:.3f} ({our_loss / their_loss - 1:+.1%})")
        _, _, height, width = start.shape
        rows.append([f"{Path(content).stem}, {Path(style).stem}", f"{width}x{height}", *cells])
    marks = [f"after {mark}: ours / SciPy" for mark in MARKS]
    print_table(["content, style", "size", *marks], rows)


def compare_times(content, style):
    """Print the milliseconds of both from one evaluation to the next, and of an evaluation."""
    rows = []
    for size in TIMED_SIZES:
        objective, start, bounds = problem(content, style, size)
        runs = [record(each, objective, start, bounds, 2 * PAIRS + 4) for each in (ours, scipys)]
        seconds = [*(run.own_seconds() for run in runs), runs[0].evaluation_seconds()]
        _, _, height, width = start.shape
        rows.append([f"{width}x{height}", *(f"{1000 * each:.1f} ms" for each in seconds)])
    print_table(["size", "ours", "SciPy", "one evaluation"], rows)


def main():
    parser = argparse.ArgumentParser(
        description="L-BFGS of style/optimizers.py against SciPy's L-BFGS-B."
    )
    parser.add_argument(
        "pictures", nargs="*", metavar="FILE",
        help="content and style pictures in turn (default: the project's own)",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=256, help="longest side (default: 256)")
    arguments = parser.parse_args()
    if len(arguments.pictures) % 2:
        parser.error("give a style picture for each content picture")
    own = [(ROOT / "picture" / a, ROOT / "picture" / b, size) for a, b, size in OWN]
    named = zip(arguments.pictures[::2], arguments.pictures[1::2], strict=True)
    cases = [(*pair, arguments.size) for pair in named] or own
    print(describe_machine() + "\n\nLeast loss so far:\n")
    compare_losses(cases)
    print("\nTime of the optimiser itself, per evaluation, beside an evaluation:\n")
    compare_times(*cases[0][:2])


if __name__ == "__main__":
    main()

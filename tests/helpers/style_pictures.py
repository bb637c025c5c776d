"""Small pictures, narrow weights and calls of the command, for the tests of style transfer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from helpers.matconvnet_files import make_weights, write_matconvnet
from style_transfer_cpu import main
from support.pictures import read_picture, write_picture

ROOT = Path(__file__).resolve().parents[2]
NARROW = make_weights(divisor=16, last_layer="pool5")  # 4, 8, 16, 32 and 32 channels

# (height, width), of different shapes, so that swapped sides are found out
SIZES = {"content": (60, 90), "other": (60, 90), "style": (80, 70), "second": (64, 96),
         "tiny": (20, 90)}  # fmt: skip

STARTED = []  # processes that a test must have waited for by its end

WEIGHTS = ["--weights", "narrow.mat"]
QUICK = ["--content", "content.png", "--style", "style.png", *WEIGHTS]
SHALLOW = ["--content-layers", "relu2_1", "--style-layers", "relu1_1", "relu2_1", "relu3_1"]


def waves(height, width, seed):
    """Return a smooth, colourful picture, uint8 of shape (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width] / 9.0
    speeds = np.random.default_rng(seed).uniform(0.3, 2, 3)
    channels = [np.sin(x + k * y) + np.cos(k * x - y) for k in speeds]
    return (127.5 + 60 * np.stack(channels, axis=2)).clip(0, 255).astype(np.uint8)


def write_folder(path):
    """Write narrow.mat and the pictures of `SIZES` to a folder; return it."""
    write_matconvnet(path / "narrow.mat", NARROW, last_layer="pool5")
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        write_picture(path / f"{name}.png", waves(height, width, seed))
    return path


def call(*options, on_step=None):
    """Run the command in this process; return its exit status."""
    try:
        return main([str(option) for option in options], on_step)
    except SystemExit as exit:  # of --help
        return exit.code


def at_step(number, act):
    """Return an `on_step` that calls ``act()`` at the step with this number, from 1."""
    count = 0

    def on_step(step):
        nonlocal count
        count += bool(step.losses)
        if step.losses and count == number:
            act()

    return on_step


def paint(path, *options, on_step=None):
    """Run the command, which must succeed; return the picture at `path` and its report."""
    report = path.with_suffix(".json")
    assert call(*options, "--output", path, "--report", report, on_step=on_step) == 0
    return read_picture(path), json.loads(report.read_text("utf-8"))


def start(folder, *options):
    """Start the command as a user does, in `folder`; return the process."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "style_transfer_cpu.py", *map(str, options)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    STARTED.append(process)
    return process

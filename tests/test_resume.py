"""Stopping and resuming style transfer: the picture is that of a run without interruption."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers.matconvnet_files import make_weights, write_matconvnet
from helpers.style_pictures import (
    NARROW,
    QUICK,
    ROOT,
    SHALLOW,
    at_step,
    call,
    paint,
    start,
    waves,
)
from PIL import Image

import style_transfer_cpu as demo
from style import checkpoint as checkpoints
from style import journal, objective, plan
from style.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from style.plan import Position
from style.settings import OPTIONS
from support.command import InputError
from support.pictures import read_picture, write_picture

OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])

# Sizes of 15x10, 30x20 and 60x40 pixels.
THREE_SCALES = [*QUICK, *SHALLOW, "--size", 60, "--scales", 3]

# Learnt filters, noise, blended styles, kept colours: all that a run draws or works out anew.
ELABORATE = [
    "--content", "content.png", "--style", "style.png", "--style", "second.png",
    "--style-blend", 2, 1, "--content-layers", "pool1:2", "relu1_2", "--style-layers", "relu1_1",
    "relu1_2:0.5", "--weights", "kmeans", "--init", "mix", "--seed", 5, "--size", 48,
    "--scales", 2, "--pooling", "average", "--preserve-color", "match", "--tv-weight", 0.01,
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("in_folder")


def keep_checkpoints(path, folder):
    """Return an `on_step` that copies the checkpoint at `path` when it changes, and the copies."""
    copies, seen = [], [None]

    def on_step(step):
        if identity(path) != seen[0]:
            seen[0] = identity(path)
            copies.append(folder / f"kept-{len(copies):02d}.npz")
            shutil.copy(path, copies[-1])

    return on_step, copies


def interrupt_at(number):
    """Return an `on_step` that raises SIGINT at this step."""
    return at_step(number, lambda: signal.raise_signal(signal.SIGINT))


def losses(report):
    """Return the report's losses, without the seconds."""
    return [[step[name] for name in ("content", "style", "tv")] for step in report["steps"]]


def printed_command(error):
    """Return the words of the command that the program printed."""
    return shlex.split(re.search(r"^to resume: (.*)$", error, re.MULTILINE)[1])


# ---------------------------------------------------------------- at every checkpoint


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([*THREE_SCALES, "--optimizer", "adam", "--steps", 9, "--checkpoint-every", 1], 9),
        ([*THREE_SCALES, "--optimizer", "adam", "--steps", 12, "--checkpoint-every", 3], 5),
        ([*THREE_SCALES, "--optimizer", "lbfgs", "--steps", 9, "--checkpoint-every", 1], 9),
        ([*THREE_SCALES, "--optimizer", "lbfgs", "--steps", 12, "--checkpoint-every", 3], 5),
        ([*THREE_SCALES, "--tile", 32, "--steps", 6, "--checkpoint-every", 1], 6),
        ([*ELABORATE, "--optimizer", "adam", "--steps", 3, "--checkpoint-every", 1], 3),
        ([*ELABORATE, "--optimizer", "lbfgs", "--steps", 3, "--checkpoint-every", 1], 3),
    ],
    ids=["adam-1", "adam-3", "lbfgs-1", "lbfgs-3", "tiles", "elaborate-adam", "elaborate-lbfgs"],
)
def test_from_every_checkpoint_the_picture_is_the_same(tmp_path, options, count):
    path = tmp_path / "whole.png"
    keep, kept = keep_checkpoints(tmp_path / "a.npz", tmp_path)
    _, report = paint(path, *options, "--checkpoint", tmp_path / "a.npz", on_step=keep)
    assert len(kept) == count
    assert len(report["steps"]) == options[options.index("--steps") + 1]
    places = [read_checkpoint(path).position[:2] for path in kept]
    assert places == sorted(set(places))
    for number, checkpoint in enumerate(kept[:count]):
        again = tmp_path / f"{number}.png"
        _, report_again = paint(
            again, "--resume", checkpoint, "--checkpoint", tmp_path / "b.npz"
        )
        assert again.read_bytes() == path.read_bytes(), checkpoint
        np.testing.assert_allclose(losses(report_again), losses(report), rtol=1e-6)
        assert report_again["scales"] == report["scales"]


def test_checkpoints_come_when_they_are_due(tmp_path):
    """Every so many steps, and at the end of each scale; there, counting begins anew."""
    options = [*THREE_SCALES, "--optimizer", "adam", "--steps", 12, "--checkpoint-every", 3]
    keep, kept = keep_checkpoints(tmp_path / "a.npz", tmp_path)
    files = ["--output", tmp_path / "a.png", "--checkpoint", tmp_path / "a.npz"]
    assert call(*options, *files, on_step=keep) == 0
    places = [read_checkpoint(path).position[:2] for path in kept]
    assert places == [(0, 3), (0, 5), (1, 3), (1, 4), (2, 3)]
    assert [len(read_checkpoint(path).losses) for path in kept] == [3, 5, 8, 9, 12]


def test_a_checkpoint_comes_with_its_picture(tmp_path):
    """Beside each checkpoint is the picture that it holds; in the end, the result alone."""
    seen = []

    def look(step):
        if (tmp_path / "a.npz").exists():
            image = read_checkpoint(tmp_path / "a.npz").position.image
            seen.append((image, read_picture(tmp_path / "made.unfinished.jpg")))

    options = [*THREE_SCALES, "--steps", 6, "--scales", 2, "--checkpoint-every", 2]
    files = ["--output", tmp_path / "made.jpg", "--checkpoint", tmp_path / "a.npz"]
    assert call(*options, *files, on_step=look) == 0
    assert len(seen) == 5  # after steps 2 to 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "made.jpg"]
    vgg = demo.VGG19("narrow.mat")
    vgg.load_model()
    for image, picture in seen:
        assert picture.shape == (40, 60, 3)
        held = Image.fromarray(vgg.picture(image)).resize((60, 40), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(held, float) - picture).mean() < 5  # JPEG


@OPTIMIZERS
def test_a_finished_run_resumes_to_the_same_picture(tmp_path, optimizer):
    options = [*THREE_SCALES, "--optimizer", optimizer, "--steps", 6, "--output",
               tmp_path / "made.png", "--checkpoint", tmp_path / "a.npz"]  # fmt: skip
    assert call(*options) == 0
    expected = (tmp_path / "made.png").read_bytes()
    (tmp_path / "made.png").unlink()
    no_step = at_step(1, lambda: pytest.fail("there is nothing left to do"))
    assert call("--resume", tmp_path / "a.npz", on_step=no_step) == 0
    assert (tmp_path / "made.png").read_bytes() == expected


@pytest.mark.parametrize(
    ("free", "chosen", "said"),
    [
        (500, ["--pairs", 4], "in tiles of 256 pixels, with 4 of 10 pairs of lbfgs"),
        (100, ["--optimizer", "adam"], "in tiles of 256 pixels, by adam"),
    ],
)
def test_what_was_chosen_for_lack_of_memory_is_resumed(
    tmp_path, monkeypatch, capsys, free, chosen, said
):
    options = [*THREE_SCALES, "--scales", 1, "--steps", 12]
    expected = tmp_path / "expected.png"
    assert call(*options, *chosen, "--output", expected) == 0
    assert "memory" not in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(plan, "available_bytes", lambda: free)
        patch.setattr(
            plan, "style_transfer_bytes",
            lambda scale, layers, settings:
                50 if settings.optimizer == "adam" else 100 * (settings.pairs or 10),
        )  # fmt: skip
        output = tmp_path / "made.png"
        assert call(*options, "--output", output, on_step=interrupt_at(9)) == 130
    out, error = capsys.readouterr()
    assert said in out
    checkpoint = Path(printed_command(error)[3])
    assert len(read_checkpoint(checkpoint).position.optimizer_state.get("s", [])) in (0, 4)
    assert call("--resume", checkpoint) == 0  # with enough memory
    assert output.read_bytes() == expected.read_bytes()


@OPTIMIZERS
def test_a_resumed_run_takes_no_more_memory(tmp_path, optimizer):
    write_picture("large.png", waves(120, 160, 0))
    options = ["--content", "large.png", "--style", "style.png", "--weights", "narrow.mat",
               *SHALLOW, "--size", 160, "--scales", 1, "--steps", 12,
               "--optimizer", optimizer, "--output", tmp_path / "made.png"]  # fmt: skip

    def peak(status, *options, on_step=None):
        tracemalloc.start()
        assert call(*options, on_step=on_step) == status
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    whole = peak(0, *options)
    assert whole > 120 * 160 * (24 * 10 if optimizer == "lbfgs" else 24)
    checkpoint = ["--checkpoint", tmp_path / "a.npz"]
    assert peak(130, *options, *checkpoint, on_step=interrupt_at(11)) < 1.05 * whole
    assert peak(0, "--resume", tmp_path / "a.npz") < 1.1 * whole


# ---------------------------------------------------------------- killed


def wait_for_change(path, before, process):
    """Wait until the file at `path` is another than `before`, or the process has ended."""
    while process.poll() is None and identity(path) == before:
        time.sleep(0.002)


def identity(path):
    """Return what tells a file from the one that it replaced; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


@pytest.mark.parametrize(
    "how", [["adam"], ["lbfgs"], ["lbfgs", "--tile", 32]], ids=["adam", "lbfgs", "tiles"]
)
def test_killed_again_and_again_it_still_makes_the_same_picture(folder, tmp_path, how):
    """SIGKILL at random moments, most of them amid a step or the writing of a file."""
    options = [*THREE_SCALES, "--optimizer", *how, "--steps", 48, "--checkpoint-every", 2]
    expected = tmp_path / "expected.png"
    assert call(*options, "--output", expected) == 0
    output, checkpoint = tmp_path / "made.png", tmp_path / "made.npz"
    so_far = tmp_path / "made.unfinished.png"
    chance = random.Random(4)
    begin = [*options, "--output", output, "--checkpoint", checkpoint]
    kills = 0
    while True:
        process = start(folder, *(["--resume", checkpoint] if checkpoint.exists() else begin))
        if kills < 4:
            # It gets on by a checkpoint or more, and then its time is measured by chance.
            wait_for_change(checkpoint, identity(checkpoint), process)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        error = process.communicate(timeout=120)[1]
        # whatever the moment was, both files are whole
        state = read_checkpoint(checkpoint)
        if process.returncode == 0:
            break
        assert read_picture(so_far).shape == (40, 60, 3)
        assert process.returncode == -signal.SIGKILL, error
        kills += 1
        assert len(state.losses) >= 2 * kills
    assert kills >= 2
    assert output.read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- asked to stop


@SIGNALS
@OPTIMIZERS
@pytest.mark.parametrize("stop_at", [2, 8])
def test_a_signal_saves_and_says_how_to_resume(tmp_path, capsys, optimizer, number, stop_at):
    options = [*THREE_SCALES, "--optimizer", optimizer, "--steps", 12, "--checkpoint-every", 3]
    expected = tmp_path / "expected.png"
    _, report = paint(expected, *options)
    output = tmp_path / "my picture's.png"
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    on_step = at_step(stop_at, lambda: signal.raise_signal(number))
    assert call(*options, "--output", output, "--save-every", 1, on_step=on_step) == 128 + number
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    out, error = capsys.readouterr()
    assert "stopping after this step" in error
    step = int(re.search(r"^stopped after step (\d+)", error, re.MULTILINE)[1])
    assert step == stop_at
    # the step was finished, and its picture is there
    saved = sorted(tmp_path.glob("my picture's_*.png"))
    assert len(saved) == step
    assert (tmp_path / "my picture's.unfinished.png").read_bytes() == saved[-1].read_bytes()
    assert not output.exists()
    # without --checkpoint, that is beside the picture
    state = read_checkpoint(tmp_path / "my picture's.checkpoint.npz")
    assert len(state.losses) == step
    assert not list(tmp_path.glob(".*"))
    command = printed_command(error)
    assert command[0] == "python"
    assert Path(command[1]).resolve() == ROOT / "style_transfer_cpu.py"
    again = tmp_path / "again.json"
    assert call(*command[2:], "--report", again) == 0
    assert output.read_bytes() == expected.read_bytes()
    report_again = json.loads(again.read_text("utf-8"))
    np.testing.assert_allclose(losses(report_again), losses(report), rtol=1e-6)


@SIGNALS
def test_a_signal_from_outside_and_the_printed_command(folder, tmp_path, number):
    """As a user does it: the printed line goes through the shell as it is."""
    options = [*QUICK, *SHALLOW, "--size", 32, "--scales", 1, "--steps", 150]
    options += ["--optimizer", "adam", "--checkpoint-every", 5]
    output, checkpoint = tmp_path / "it's made.png", tmp_path / "it's kept.npz"
    process = start(folder, *options, "--output", output, "--checkpoint", checkpoint)
    wait_for_change(checkpoint, None, process)
    process.send_signal(number)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    step = int(re.search(r"stopped after step (\d+)", error)[1])
    assert 5 <= step < 150
    assert read_picture(tmp_path / "it's made.unfinished.png").shape == (21, 32, 3)
    assert len(read_checkpoint(checkpoint).losses) == step
    # "python" is the one that runs the tests
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    line = re.search(r"^to resume: (.*)$", error, re.MULTILINE)[1]
    report = tmp_path / "report.json"
    done = subprocess.run(
        f"{line} --report {report}", shell=True, cwd=folder, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(report.read_text("utf-8"))["steps"]) == 150
    assert call(*options, "--output", tmp_path / "expected.png") == 0
    assert output.read_bytes() == (tmp_path / "expected.png").read_bytes()


@SIGNALS
@OPTIMIZERS
def test_a_signal_inside_a_step_stops_it_there(tmp_path, capsys, monkeypatch, optimizer, number):
    """The step may take minutes; the last finished one is kept."""
    expected = tmp_path / "expected.png"
    options = [*THREE_SCALES, "--steps", 9, "--optimizer", optimizer]
    assert call(*options, "--output", expected) == 0
    real, calls = objective.total_variation, []

    def interrupted(image):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(number)
            pytest.fail("it went on")
        return real(image)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "total_variation", interrupted)
        assert call(*options, "--output", tmp_path / "made.png") == 128 + number
    error = capsys.readouterr().err
    assert "repeat to stop at once" not in error
    step = int(re.search(r"^stopped after step (\d+)", error, re.MULTILINE)[1])
    assert 3 <= step < 7
    assert len(read_checkpoint(tmp_path / "made.checkpoint.npz").losses) == step
    assert call("--resume", tmp_path / "made.checkpoint.npz") == 0
    assert (tmp_path / "made.png").read_bytes() == expected.read_bytes()


@SIGNALS
def test_a_signal_while_filters_are_learnt(folder, tmp_path, number):
    process = start(folder, "--weights", "kmeans", "--output", tmp_path / "made.png")
    assert "k-means" in process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert error == "style_transfer_cpu.py: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_keeps_an_earlier_result(tmp_path, capsys):
    made = tmp_path / "made.png"
    options = [*THREE_SCALES, "--steps", 6, "--output", made]
    assert call(*options) == 0
    finished = made.read_bytes()
    options += ["--seed", 1, "--init", "noise", "--checkpoint-every", 1]
    assert call(*options, "--checkpoint", tmp_path / "a.npz", on_step=interrupt_at(4)) == 130
    assert made.read_bytes() == finished
    so_far = tmp_path / "made.unfinished.png"
    assert f"{so_far} is the picture so far" in capsys.readouterr().err
    assert read_picture(so_far).shape == (40, 60, 3)
    assert call("--resume", tmp_path / "a.npz") == 0
    assert made.read_bytes() != finished
    assert not so_far.exists()


def test_the_second_signal_stops_at_once(tmp_path, capsys):
    def twice():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal should not have been waited with")

    options = [*THREE_SCALES, "--steps", 9, "--output", tmp_path / "made.png"]
    assert call(*options, "--optimizer", "adam", on_step=at_step(4, twice)) == 130
    error = capsys.readouterr().err
    assert "repeat to stop at once" in error
    assert error.splitlines()[-1] == "style_transfer_cpu.py: interrupted"
    assert list(tmp_path.iterdir()) == []


@SIGNALS
def test_a_signal_before_the_first_step_writes_nothing(tmp_path, capsys, monkeypatch, number):
    options = [*THREE_SCALES, "--steps", 3, "--output", tmp_path / "made.png",
               "--checkpoint", tmp_path / "made.npz"]  # fmt: skip

    def at_the_start(step):
        signal.raise_signal(number)

    assert call(*options, on_step=at_the_start) == 128 + number
    assert "stopped before the first step; nothing was written" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # still reading
        patch.setattr(demo, "read_picture", lambda *arguments: signal.raise_signal(number))
        assert call(*options) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == "style_transfer_cpu.py: interrupted"
    assert list(tmp_path.iterdir()) == []


@OPTIMIZERS
def test_stopped_again_it_keeps_to_the_checkpoint_it_came_from(tmp_path, capsys, optimizer):
    options = [*THREE_SCALES, "--scales", 1, "--optimizer", optimizer, "--steps", 20]
    options += ["--checkpoint-every", 2]
    expected = tmp_path / "expected.png"
    assert call(*options, "--output", expected) == 0
    assert call(*options, "--output", tmp_path / "made.png", on_step=interrupt_at(8)) == 130
    checkpoint = tmp_path / "moved.npz"
    (tmp_path / "made.checkpoint.npz").rename(checkpoint)
    first = read_checkpoint(checkpoint).position.step
    assert first > 0
    assert call("--resume", checkpoint, on_step=interrupt_at(8)) == 130
    assert printed_command(capsys.readouterr().err)[2] == "--resume"
    assert not (tmp_path / "made.checkpoint.npz").exists()
    second = read_checkpoint(checkpoint)
    assert first < second.position.step < 20
    assert second.position.step == len(second.losses)
    assert call("--resume", checkpoint) == 0
    assert (tmp_path / "made.png").read_bytes() == expected.read_bytes()


# ---------------------------------------------------------------- what must agree


@pytest.fixture(scope="module")
def started(folder):
    """Options, and a checkpoint of a run with them, stopped after its third step of six."""
    options = [*QUICK, *SHALLOW, "--size", 48, "--steps", 6, "--optimizer", "adam"]
    path = folder / "started.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        files = ["--output", folder / "started.png", "--checkpoint", path]
        assert call(*options, *files, on_step=interrupt_at(3)) == 130
    return path


# Other values than those of `started`, and how the refusal shows both: the old, and the new.
OTHER_VALUES = {
    "size": (["49"], "--size 48", "--size 49"),
    "background": (["black"], "--background white", "--background black"),
    "style_blend": (["2"], "no --style-blend", "--style-blend 2.0"),
    "style_scale": (["1.5"], "--style-scale 1.0", "--style-scale 1.5"),
    "content_weight": (["4"], "--content-weight 5.0", "--content-weight 4.0"),
    "style_weight": (["0"], "--style-weight 400.0", "--style-weight 0.0"),
    "tv_weight": (["0.5"], "--tv-weight 0.002", "--tv-weight 0.5"),
    "content_layers": (
        ["relu2_1:2", "relu1_1"], "--content-layers relu2_1:1.0",
        "--content-layers relu1_1:1.0 relu2_1:2.0",
    ),
    "style_layers": (
        ["relu2_1"], "--style-layers relu1_1:1.0 relu2_1:1.0 relu3_1:1.0",
        "--style-layers relu2_1:1.0",
    ),
    "pooling": (["average"], "--pooling max", "--pooling average"),
    "preserve_color": (["match"], "no --preserve-color", "--preserve-color match"),
    "init": (["noise"], "--init palette", "--init noise"),
    "noise": (["0.25"], "--noise 0.5", "--noise 0.25"),
    "seed": (["7"], "--seed 0", "--seed 7"),
    "steps": (["7"], "--steps 6", "--steps 7"),
    "optimizer": (["lbfgs"], "--optimizer adam", "--optimizer lbfgs"),
    "learning_rate": (["2"], "--learning-rate 1.0", "--learning-rate 2.0"),
    "scales": (["2"], "no --scales", "--scales 2"),
    "tile": (["64"], "no --tile", "--tile 64"),
    "pairs": (["4"], "no --pairs", "--pairs 4"),
}  # fmt: skip


def refused(capsys, *options):
    """Run the command, which must refuse; return the line that says why."""
    assert call(*options) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_every_option_that_changes_the_picture_is_tried():
    assert {name for name, each in OPTIONS.items() if each.metadata["fixed"]} == {*OTHER_VALUES}


@OPTIMIZERS
def test_the_picture_does_not_depend_on_when_checkpoints_come(tmp_path, optimizer):
    options = [*THREE_SCALES, "--optimizer", optimizer, "--steps", 12]
    expected = paint(tmp_path / "a.png", *options)[0]
    options += ["--checkpoint", tmp_path / "b.npz", "--checkpoint-every", 3]
    made, _ = paint(tmp_path / "b.png", *options)
    np.testing.assert_array_equal(made, expected)
    interrupted = [*options, "--output", tmp_path / "c.png"]
    assert call(*interrupted, on_step=interrupt_at(7)) == 130
    made, _ = paint(tmp_path / "c.png", "--resume", tmp_path / "b.npz", "--checkpoint-every", 2)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_another_option_is_refused_with_both_values(started, tmp_path, capsys, name):
    values, old, new = OTHER_VALUES[name]
    option = "--" + name.replace("_", "-")
    before = started.read_bytes()
    error = refused(capsys, "--resume", started, option, *values, "--output", tmp_path / "a.png")
    assert f"{started} was made with {old}, and now it is {new};" in error
    assert list(tmp_path.iterdir()) == []
    assert started.read_bytes() == before


def test_a_picture_to_start_from_instead_of_none_is_refused(started, capsys):
    error = refused(capsys, "--resume", started, "--init", "other.png")
    assert "was made with --init palette, and now it is --init other.png;" in error


def test_the_same_options_are_accepted(started, tmp_path):
    expected = paint(tmp_path / "a.png", "--resume", started, "--checkpoint", tmp_path / "a.npz")[0]
    given = [*QUICK, *SHALLOW, "--size", 48, "--steps", 6, "--optimizer", "adam", "--init",
             "palette", "--background", "white", "--seed", 0, "--checkpoint-every", 7,
             "--threads", 2, "--save-every", 5]  # fmt: skip
    made, report = paint(
        tmp_path / "b.png", "--resume", started, *given, "--checkpoint", tmp_path / "b.npz"
    )
    np.testing.assert_array_equal(made, expected)
    assert report["threads"] == 2
    assert (tmp_path / "b_0005.png").exists()
    assert (tmp_path / "b.npz").exists()


def test_the_same_pictures_elsewhere_are_accepted(folder, started, tmp_path, monkeypatch):
    """Under other names, in another format, from another folder."""
    copied = tmp_path / "copy.npz"
    shutil.copy(started, copied)
    expected = paint(tmp_path / "a.png", "--resume", copied, "--checkpoint", copied)[0]
    write_picture(tmp_path / "moved.tif", read_picture("content.png"))
    shutil.copy("style.png", tmp_path / "also moved.png")
    shutil.copy("narrow.mat", tmp_path / "filters.mat")
    monkeypatch.chdir(tmp_path)
    shutil.copy(started, copied)
    made, _ = paint(
        Path("b.png"), "--resume", "copy.npz", "--content", "moved.tif", "--style",
        "also moved.png", "--weights", "filters.mat", "--checkpoint", "copy.npz",
    )  # fmt: skip
    np.testing.assert_array_equal(made, expected)
    # and from any folder the checkpoint finds the pictures itself
    shutil.copy(started, copied)
    made, _ = paint(Path("c.png"), "--resume", "copy.npz", "--checkpoint", "copy.npz")
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--content", "other.png"], "content picture"),
        (["--style", "second.png"], "set of style pictures"),
        (["--style", "style.png", "--style", "style.png"], "set of style pictures"),
        (["--weights", "other.mat"], "set of filters"),
        (["--weights", "random"], "set of filters"),
    ],
)  # fmt: skip
def test_other_files_are_refused(started, folder, tmp_path, capsys, options, what):
    write_matconvnet(
        folder / "other.mat", make_weights(16, seed=1, last_layer="pool5"), last_layer="pool5"
    )
    error = refused(capsys, "--resume", started, *options, "--output", tmp_path / "a.png")
    assert f"{started} was made with a different {what}; give the same one" in error
    assert list(tmp_path.iterdir()) == []


def test_a_different_picture_to_start_from_is_refused(tmp_path, capsys):
    write_picture(tmp_path / "first.png", waves(60, 90, 11))
    shutil.copy(tmp_path / "first.png", tmp_path / "copy.png")
    output = ["--output", tmp_path / "made.png"]
    options = [*QUICK, *SHALLOW, "--size", 48, "--steps", 4, *output]
    assert call(*options, "--init", tmp_path / "first.png", on_step=interrupt_at(2)) == 130
    resume = ["--resume", tmp_path / "made.checkpoint.npz", *output]
    resume += ["--checkpoint", tmp_path / "b.npz"]
    error = refused(capsys, *resume, "--init", "other.png")
    assert "was made with a different picture to start from;" in error
    error = refused(capsys, *resume, "--init", "noise")
    assert re.search(r"was made with --init \S+first.png, and now it is --init noise;", error)
    assert call(*resume) == 0
    expected = (tmp_path / "made.png").read_bytes()
    assert call(*resume, "--init", tmp_path / "copy.png") == 0
    assert (tmp_path / "made.png").read_bytes() == expected
    # its own file may hold another picture by now
    write_picture(tmp_path / "first.png", waves(60, 90, 12))
    assert "picture to start from" in refused(capsys, *resume)


def test_a_picture_that_is_gone_is_named(tmp_path, capsys):
    shutil.copy("content.png", tmp_path / "brief.png")
    checkpoint = tmp_path / "a.npz"
    options = [*QUICK, *SHALLOW, "--steps", 2, "--output", tmp_path / "a.png"]
    options += ["--checkpoint", checkpoint]
    assert call(*options, "--content", tmp_path / "brief.png") == 0
    (tmp_path / "brief.png").unlink()
    error = refused(capsys, "--resume", checkpoint)
    assert f"there is no picture {tmp_path / 'brief.png'}" in error


# ---------------------------------------------------------------- reports of a resumed run


@OPTIMIZERS
def test_the_frames_from_before_are_in_the_animation(tmp_path, monkeypatch, optimizer):
    drawn = []
    monkeypatch.setattr(
        journal, "write_animation", lambda path, frames, result: drawn.append((frames, result))
    )
    options = [*THREE_SCALES, "--optimizer", optimizer, "--steps", 12, "--checkpoint-every", 3]
    options += ["--animation", tmp_path / "a.gif"]
    assert call(*options, "--output", tmp_path / "a.png") == 0
    assert call(*options, "--output", tmp_path / "b.png", on_step=interrupt_at(7)) == 130
    state = read_checkpoint(tmp_path / "b.checkpoint.npz")
    assert len(state.losses) == 7
    assert [step for step, _ in state.frames] == list(range(len(state.losses) + 1))
    assert call("--resume", tmp_path / "b.checkpoint.npz") == 0
    (whole, result), (resumed, result_resumed) = drawn
    assert [step for step, _ in whole] == list(range(13))
    assert [step for step, _ in resumed] == list(range(13))
    for (_, frame), (_, frame_resumed) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(frame, frame_resumed)
    np.testing.assert_array_equal(result, result_resumed)


# ---------------------------------------------------------------- the file


def test_a_digest_goes_by_shapes_values_and_order():
    a, b = np.arange(12, dtype=np.uint8).reshape(3, 4), np.zeros((3, 4), np.uint8)
    others = [(b,), (a.T,), (a.reshape(4, 3),), (a.astype(np.int8),), (a, b), (b, a), (a[:2],)]
    digests = {checkpoints.digest(*arrays) for arrays in [(a,), *others]}
    assert len(digests) == 1 + len(others)
    # not by the layout in memory
    assert checkpoints.digest(np.asfortranarray(a)) == checkpoints.digest(a.copy())


def some_checkpoint():
    rng = np.random.default_rng(8)
    shape = (1, 3, 5, 7)
    # the memory layout of the optimisers' pictures, channels last
    arrays = [rng.standard_normal((1, 5, 7, 3)).astype(np.float32).transpose(0, 3, 1, 2)
              for _ in range(3)]  # fmt: skip
    assert arrays[0].shape == shape
    options = {"content": "/a/b.png", "style": ["/c.png", "/d.png"], "report": [], "plot": None,
               "output": "/e f.png", "animation": None, "contact_sheet": None, "checkpoint": None,
               "style_blend": [2.0, 0.1], "style_layers": {"relu1_1": 1.0, "relu2_1": 0.3}}
    position = Position(2, 3, arrays[0], {"m": arrays[1], "v": arrays[2]})
    return Checkpoint(
        options, {"content picture": "abc"}, position,
        [{"content": 0.1 * i, "style": 1 / 3, "tv": 1e-30, "seconds": 0.01} for i in range(5)],
        [(0, rng.integers(0, 256, (4, 6, 3), np.uint8)), (5, np.zeros((4, 6, 3), np.uint8))],
    )  # fmt: skip


def assert_same(checkpoint, read):
    """`read` is what must come back of `some_checkpoint`."""
    assert read.digests == checkpoint.digests
    assert read.losses == checkpoint.losses
    assert read.position[:2] == checkpoint.position[:2]
    state, state_read = checkpoint.position.optimizer_state, read.position.optimizer_state
    assert list(state_read) == list(state)
    pairs = [(checkpoint.position.image, read.position.image)]
    for array, again in [*pairs, *((state[name], state_read[name]) for name in state)]:
        assert np.asarray(again).dtype == np.float32
        np.testing.assert_array_equal(again, array)
    assert [step for step, _ in read.frames] == [0, 5]
    for (_, frame), (_, again) in zip(checkpoint.frames, read.frames, strict=True):
        np.testing.assert_array_equal(frame, again)


def move(checkpoint, **changes):
    """Change parts of the position of a checkpoint."""
    checkpoint.position = checkpoint.position._replace(**changes)


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path):
    state = some_checkpoint()
    write_checkpoint(tmp_path / "a.npz", state)
    read = read_checkpoint(tmp_path / "a.npz")
    assert_same(state, read)
    assert read.options == state.options
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_checkpoint_holds_the_pairs_of_lbfgs(tmp_path, number):
    state = some_checkpoint()
    m, v = state.position.optimizer_state.values()
    move(state, optimizer_state={"s": number * [m], "y": number * [v]})
    write_checkpoint(tmp_path / "a.npz", state)
    read = read_checkpoint(tmp_path / "a.npz")
    assert_same(state, read)
    assert [len(arrays) for arrays in read.position.optimizer_state.values()] == [number, number]


def test_a_checkpoint_before_the_first_step_and_any_frame(tmp_path):
    state = some_checkpoint()
    state.frames, state.losses = [], []
    move(state, step=0, optimizer_state={})
    write_checkpoint(tmp_path / "a.npz", state)
    read = read_checkpoint(tmp_path / "a.npz")
    assert (read.position.optimizer_state, read.frames, read.losses) == ({}, [], [])


def test_nothing_in_it_is_pickled(tmp_path):
    write_checkpoint(tmp_path / "a.npz", some_checkpoint())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert {kind for name, kind in kinds.items() if name != "head"} <= set("fiu")
    assert kinds["head"] == "U"


def test_nothing_in_it_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.savez(tmp_path / "a.npz", head=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="or pickled"):
        read_checkpoint(tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_checkpoint(path, some_checkpoint())
    before = path.read_bytes()

    def fill_the_disk(file, array, allow_pickle):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fill_the_disk)
    with pytest.raises(InputError, match=r"cannot write the checkpoint .*a\.npz.*No space left"):
        write_checkpoint(path, some_checkpoint())
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_shortened_checkpoint_is_refused(tmp_path):
    write_checkpoint(tmp_path / "a.npz", some_checkpoint())
    whole = (tmp_path / "a.npz").read_bytes()
    for length in (1, 30, 500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.npz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.npz \(.* bytes\) is no whole \.npz"):
            read_checkpoint(tmp_path / "a.npz")


def test_a_damaged_checkpoint_is_refused_or_read_right(tmp_path):
    """A zip file has a few bytes that do not matter, such as the date."""
    state = some_checkpoint()
    write_checkpoint(tmp_path / "a.npz", state)
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(9)
    refusals = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            read = read_checkpoint(tmp_path / "a.npz")
        except InputError:
            refusals += 1
        else:
            assert_same(state, read)
    assert refusals > 50


@pytest.mark.parametrize(
    "change",
    [
        lambda state: move(state, image=state.position.image.astype(np.float64)),
        lambda state: move(state, image=state.position.image[0]),
        lambda state: move(state, image=state.position.image[:, :2]),
        lambda state: state.position.image.fill(np.nan),
        lambda state: state.position.optimizer_state["v"].fill(np.inf),
        lambda state: state.position.optimizer_state.update(m=state.position.image[:, :, 1:]),
        lambda state: state.position.optimizer_state.update(m=[]),
        lambda state: move(state, optimizer_state={"s": 2 * [state.position.image[:, :2]]}),
        lambda state: move(state, optimizer_state={
            "s": 2 * [state.position.image], "y": 3 * [state.position.image]}),
        lambda state: move(state, step=6),
        lambda state: move(state, step=-1),
        lambda state: move(state, scale=-1),
        lambda state: state.losses[2].update(style=float("nan")),
        lambda state: setattr(state, "digests", ["a"]),
        lambda state: setattr(state, "frames", [(0, np.zeros((4, 6), np.uint8))]),
        lambda state: setattr(state, "options", ["a"]),
        lambda state: move(state, scale=0.5),
        lambda state: move(state, step=1.0),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_form_is_refused(tmp_path, change):
    state = some_checkpoint()
    change(state)
    write_checkpoint(tmp_path / "a.npz", state)
    with pytest.raises(InputError, match=r"a\.npz \(.* bytes\) is not a checkpoint of this"):
        read_checkpoint(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: move(state, scale=99), "does not fit its own options"),
        (lambda state: move(state, image=state.position.image[:, :, :5]), "does not fit"),
        (lambda state: state.position.optimizer_state.clear(), "does not fit its own options"),
        (lambda state: state.options.update(steps=1), "does not fit its own options"),
        (lambda state: state.options.update(optimizer="lbfgs"), "does not fit its own options"),
        (lambda state: state.options.update(threads=0), "--threads: expected a whole number"),
        (lambda state: state.options.update(seed="x"), "--seed: expected a whole number"),
        (lambda state: state.options.update(style_layers={"relu9_9": 1}), "no layer 'relu9_9'"),
        (lambda state: state.options.update(style=["--help"]), "is damaged: its options"),
        (lambda state: state.options.update(nonsense=1), "is not a checkpoint of this program"),
        (lambda state: state.options.pop("content"), "was made with a different content picture"),
        (lambda state: state.options.pop("init"), None),
    ],
)  # fmt: skip
def test_a_checkpoint_that_was_altered_is_refused_or_harmless(
    started, tmp_path, capsys, change, said
):
    state = read_checkpoint(started)
    change(state)
    _, _, image, arrays = state.position
    if arrays:
        height = image.shape[2]
        fitting = {name: array[:, :, :height].copy() for name, array in arrays.items()}
        move(state, optimizer_state=fitting)
    write_checkpoint(tmp_path / "a.npz", state)
    status = call("--resume", tmp_path / "a.npz", "--output", tmp_path / "a.png")
    error = capsys.readouterr().err.splitlines()[-1]
    if said is None:  # what is missing is the default
        assert status == 0
    else:
        assert status == 2
        assert said in error
        assert error.startswith("style_transfer_cpu.py: error: ")


def test_what_is_no_checkpoint_is_not_overwritten_by_one(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", x=np.arange(3))
    before = (tmp_path / "mine.npz").read_bytes()
    options = [*QUICK, "--output", tmp_path / "a.png", "--checkpoint", tmp_path / "mine.npz"]
    line = refused(capsys, *options)
    assert re.search(r"mine\.npz \(.* bytes\) is not a checkpoint of this program", line)
    assert (tmp_path / "mine.npz").read_bytes() == before


def test_weights_that_differ_in_their_biases_or_mean_alone_are_refused(started, tmp_path, capsys):
    biased = {name: (weight, bias + 0.5) for name, (weight, bias) in NARROW.items()}
    write_matconvnet(tmp_path / "biased.mat", biased, last_layer="pool5")
    error = refused(
        capsys, "--resume", started, "--weights", tmp_path / "biased.mat", "--output",
        tmp_path / "a.png",
    )  # fmt: skip
    assert "was made with a different set of filters" in error


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", "style transfer checkpoint 0")
    write_checkpoint(tmp_path / "a.npz", some_checkpoint())
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"a different version .*style transfer checkpoint 0"):
        read_checkpoint(tmp_path / "a.npz")


def as_earlier_format(path, scale, step, digests=None):
    """Rewrite the checkpoint at `path` as the first version of the program wrote it."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if not name.startswith("memory_")}
    head = json.loads(str(arrays["head"]))
    for name in ("tile", "overwrite", "download"):
        del head["options"][name]
    head["options"]["content"] = head["options"]["content"][0]
    del head["coarsest"]
    head |= {"format": "style transfer checkpoint 1", "scale": scale, "step": step, "memory": []}
    head["digests"] |= digests or {}
    arrays["head"] = np.array(json.dumps(head))
    np.savez(path, **arrays)


@OPTIMIZERS
def test_a_checkpoint_of_the_earlier_format_is_resumed(tmp_path, capsys, optimizer):
    """With its options, from its picture, for the steps that were left."""
    path = tmp_path / "a.npz"
    options = [*THREE_SCALES, "--init", "content", "--steps", 12, "--optimizer", optimizer]
    options += ["--checkpoint", path, "--output", tmp_path / "a.png"]
    assert call(*options, on_step=interrupt_at(7)) == 130
    as_earlier_format(path, 1, 2)  # it had four steps for each of the three sizes
    image, kept = read_checkpoint(path).position.image, read_checkpoint(path).losses
    seen = []
    made, report = paint(tmp_path / "a.png", "--resume", path, on_step=seen.append)
    out = capsys.readouterr().out
    assert "note: an earlier version of this program made the checkpoint" in out
    assert "resuming after step 7 of 12\n" in out
    assert made.shape == (40, 60, 3)
    np.testing.assert_array_equal(seen[0].position.image, image)
    assert len(report["steps"]) == 12
    assert report["steps"][:7] == kept
    assert sum(scale["steps"] for scale in report["scales"]) == 12
    assert [scale["width"] for scale in report["scales"]] == [30, 60]
    # what it writes is of today's format, and resumes as any other
    shutil.copy(path, tmp_path / "b.npz")
    again, _ = paint(tmp_path / "b.png", "--resume", tmp_path / "b.npz")
    np.testing.assert_array_equal(again, made)


def test_a_resumed_run_of_the_earlier_format_can_be_stopped_again(tmp_path, capsys):
    path, options = tmp_path / "a.npz", [*THREE_SCALES, "--init", "content", "--steps", 12]
    options += ["--checkpoint", path, "--output", tmp_path / "a.png"]
    assert call(*options, on_step=interrupt_at(7)) == 130
    as_earlier_format(path, 1, 2)
    shutil.copy(path, tmp_path / "b.npz")
    expected, _ = paint(tmp_path / "b.png", "--resume", tmp_path / "b.npz")
    assert call("--resume", path, on_step=interrupt_at(3)) == 130
    capsys.readouterr()
    assert call("--resume", path) == 0
    out = capsys.readouterr().out
    assert "note:" not in out
    assert "resuming after step 10 of 12\n" in out
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), expected)


def test_a_finished_checkpoint_of_the_earlier_format(tmp_path):
    path, options = tmp_path / "a.npz", [*THREE_SCALES, "--init", "content", "--steps", 6]
    made, _ = paint(tmp_path / "a.png", *options, "--checkpoint", path)
    as_earlier_format(path, 2, 2)
    again, report = paint(tmp_path / "b.png", "--resume", path)
    np.testing.assert_array_equal(again, made)
    assert len(report["steps"]) == 6


def test_filters_of_the_earlier_format_were_learnt_at_other_sizes(tmp_path, capsys):
    """From 96 pixels, so that the same are learnt again."""
    pictures = [waves(130, 200, 1), waves(200, 180, 2)]
    for name, picture in zip(("c.png", "s.png"), pictures, strict=True):
        write_picture(tmp_path / name, picture)
    path = tmp_path / "a.npz"
    options = ["--content", tmp_path / "c.png", "--style", tmp_path / "s.png", *SHALLOW]
    options += ["--weights", "random", "--steps", 3, "--init", "content", "--checkpoint", path]
    assert call(*options, "--output", tmp_path / "a.png", on_step=interrupt_at(1)) == 130
    settings = demo.Settings(weights="random", content_layers={"relu2_1": 1.0})
    network = demo.make_network(pictures[0], pictures[1:], settings, coarsest=96)
    layers = {name: network.layers[name] for name in network.param_layer_name[:11]}  # to conv3_1
    digests = checkpoints.run_digests(pictures[0], pictures[1:], None, network.image_mean, layers)
    as_earlier_format(path, 0, 1, {"set of filters": digests["set of filters"]})
    assert call("--resume", path) == 0
    assert "note: an earlier version" in capsys.readouterr().out


def test_other_versions_of_the_libraries_are_noted(started, tmp_path, capsys):
    checkpoint = read_checkpoint(started)
    for versions, noted in (({"numpy": "1.0.0"}, True), ({}, False)):
        write_checkpoint(tmp_path / "a.npz", checkpoint)
        with np.load(tmp_path / "a.npz") as file:
            arrays = dict(file)
        head = json.loads(str(arrays["head"]))
        head["versions"] |= versions
        arrays["head"] = np.array(json.dumps(head))
        np.savez(tmp_path / "a.npz", **arrays)
        capsys.readouterr()
        assert call("--resume", tmp_path / "a.npz", "--output", tmp_path / "a.png") == 0
        assert ("made with other versions of Python" in capsys.readouterr().out) == noted


def test_resuming_a_copy_leaves_the_original_alone(tmp_path, capsys):
    original, copied = tmp_path / "a.npz", tmp_path / "b.npz"
    options = [*THREE_SCALES, "--optimizer", "adam", "--steps", 9, "--output", tmp_path / "a.png"]
    options += ["--checkpoint", original, "--checkpoint-every", 2]
    assert call(*options, on_step=interrupt_at(5)) == 130
    shutil.copy(original, copied)
    before, steps = original.read_bytes(), len(read_checkpoint(original).losses)
    capsys.readouterr()
    assert call("--resume", copied, "--output", tmp_path / "b.png") == 0
    assert f"resuming after step {steps} of 9\n" in capsys.readouterr().out
    assert original.read_bytes() == before
    assert len(read_checkpoint(copied).losses) == 9

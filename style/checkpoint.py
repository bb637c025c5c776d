"""Checkpoints of style transfer: everything a run needs to resume and make the very same picture.

A checkpoint is an .npz file of plain arrays, nothing pickled: the picture so far, the optimiser's
state, the losses and frames so far, and a text (JSON) with the options, the position in the run,
and digests that identify the pictures and filters.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from style.plan import COARSEST, Position
from style.settings import (
    DEFAULTS,
    FILTERS,
    INITS,
    OPTIONS,
    Files,
    Settings,
    as_arguments,
    flag,
    output_path,
    parse,
    texts,
)
from support.command import InputError, as_path, one_line
from support.files import FormatError
from support.machine import library_versions
from support.npz import read_npz, write_npz

FORMAT = "style transfer checkpoint 2"
EARLIER_FORMAT, EARLIER_COARSEST = "style transfer checkpoint 1", 96
LOSSES = ("content", "style", "tv", "seconds")
OPTIMIZER_STATE = {"adam": {"m", "v"}, "lbfgs": {"s", "y"}}  # names of the arrays


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    options: dict = field(default_factory=dict)  # of the command, see `options_to_keep`
    digests: dict = field(default_factory=dict)  # of pictures and filters, see `run_digests`
    position: Position | None = None  # None before the first step
    losses: list = field(default_factory=list)  # of each step, {name in `LOSSES`: float}
    frames: list = field(default_factory=list)  # (step, picture) for animation and reports
    versions: dict = field(default_factory=dict)  # of the libraries that made the checkpoint
    coarsest: int = COARSEST  # for filters made from the pictures, see `plan_sizes`
    earlier: bool = False  # whether it is of the earlier format, see `rest_of_earlier_run`


def read_options(argv):
    """Return the command's options and the checkpoint to resume from.

    An option has the value on the command line, else that in the checkpoint of --resume, else its
    default. Returns `Files`, `Settings` and a `Checkpoint`, an empty one without --resume.
    """
    given = parse(argv)
    checkpoint, saved = Checkpoint(), {}
    if "resume" in given:
        checkpoint = read_checkpoint(given["resume"])
        # Read as a command line, the content of the file is checked like one.
        try:
            saved = parse(as_arguments(checkpoint.options))
        except InputError as error:
            reason = f"is damaged: its options: {one_line(error)}"
            raise InputError(f"{given['resume']} {reason}") from None
        check_same_options(given["resume"], saved, given)
        saved["checkpoint"] = given["resume"]  # not the file that this one may be a copy of
    elif "checkpoint" in given and os.path.isfile(given["checkpoint"]):
        read_checkpoint(given["checkpoint"])  # a file of another kind is not overwritten
    options = {**DEFAULTS, **saved, **given}
    files, settings = (
        kind(**{name: options[name] for name in kind.__dataclass_fields__})
        for kind in (Files, Settings)
    )
    return files, settings, checkpoint


def options_to_keep(files, settings):
    """Return the options as JSON can hold them, with absolute paths."""
    kept = {}
    for name, value in {**vars(files), **vars(settings)}.items():
        if OPTIONS[name].metadata["read"] in (as_path, output_path):
            paths = [str(Path(path).absolute()) for path in texts(value)]
            value = paths if isinstance(value, list) else next(iter(paths), None)
        elif name in ("init", "weights") and value not in (None, *INITS, *FILTERS):
            value = str(Path(value).absolute())
        kept[name] = value
    return kept


def digest(*arrays):
    """Return a digest (SHA-256) of the shapes and values of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def run_digests(content, styles, start, image_mean, layers):
    """Return what identifies the pictures and filters of a run, as a dict of what to digest."""
    digests = {"content picture": digest(content), "set of style pictures": digest(*styles)}
    if start is not None:
        digests["picture to start from"] = digest(start)
    convolutions = [layer for name, layer in layers.items() if name.startswith("conv")]
    parameters = [array for layer in convolutions for array in (layer.weight, layer.bias)]
    return {**digests, "set of filters": digest(image_mean, *parameters)}


def write_checkpoint(path, checkpoint):
    """Write `checkpoint` to `path`, completely or not at all."""
    position, frames = checkpoint.position, checkpoint.frames
    state = position.optimizer_state
    head = {
        "format": FORMAT,
        "options": checkpoint.options,
        "digests": checkpoint.digests,
        "scale": position.scale,
        "step": position.step,
        "memory": list(state),
        "coarsest": checkpoint.coarsest,
        "versions": library_versions("numpy", "scipy"),
    }
    losses = [[losses[name] for name in LOSSES] for losses in checkpoint.losses]
    arrays = {
        "head": np.array(json.dumps(head)),
        "image": position.image,
        "losses": np.array(losses, np.float64).reshape(-1, len(LOSSES)),
        "frame_steps": np.array([step for step, _ in frames], np.int64),
        "frames": np.array([frame for _, frame in frames], np.uint8),
        **{f"memory_{k}": list(x) or np.empty(0, np.float32) for k, x in state.items()},
    }
    write_npz(path, arrays, "the checkpoint")


def read_checkpoint(path):
    """Return the `Checkpoint` in a file; `InputError` if there is none or it is damaged."""
    with read_npz(path, "checkpoint") as file:
        try:
            head = json.loads(str(file["head"]))
            earlier = head["format"] == EARLIER_FORMAT
            if head["format"] != FORMAT and not earlier:
                version = one_line(head["format"])
                raise FormatError(f"was made by a different version of this program ({version})")
            state = {name: file[f"memory_{name}"] for name in head["memory"]}
            position = Position(head["scale"], head["step"], file["image"], state)
            losses = [dict(zip(LOSSES, row, strict=True)) for row in file["losses"].tolist()]
            frames = list(zip(file["frame_steps"].tolist(), file["frames"], strict=True))
            coarsest = EARLIER_COARSEST if earlier else head.get("coarsest", COARSEST)
            checkpoint = Checkpoint(
                head["options"], head["digests"], position, losses, frames, head["versions"],
                coarsest, earlier,
            )  # fmt: skip
            _check(checkpoint)
            for name, stack in state.items():
                if stack.ndim == 5:  # each an array of its own, which lbfgs can forget
                    state[name] = [array.copy() for array in stack]
        except (InputError, MemoryError):
            raise
        except Exception as error:  # of many types: the text can hold anything
            raise FormatError("is not a checkpoint of this program, or is damaged") from error
    return checkpoint


def _check(checkpoint):
    """Raise `ValueError` unless the parts of a checkpoint have the form that they must have."""
    scale, step, image, state = checkpoint.position
    arrays = [image, *state.values()]
    losses = [loss for losses in checkpoint.losses for loss in losses.values()]
    well_formed = (
        image.ndim == 4
        and image.shape[:2] == (1, 3)
        and all(array.dtype == np.float32 for array in arrays)
        and all(array.shape[-4:] == image.shape or array.size == 0 for array in state.values())
        and len({array.shape for array in state.values()}) <= 1
        and all(np.isfinite(array).all() for array in arrays)
        and type(scale) is type(step) is int
        and scale >= 0
        and 0 <= step <= len(checkpoint.losses)
        and all(map(math.isfinite, losses))
        and all(frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
                for _, frame in checkpoint.frames)
        and isinstance(checkpoint.options, dict)
        and checkpoint.options.keys() <= OPTIONS.keys()
        and isinstance(checkpoint.digests, dict)
        and type(checkpoint.coarsest) is int
        and checkpoint.coarsest > 0
    )  # fmt: skip
    if not well_formed:
        raise ValueError("unexpected shapes or values")


def rest_of_earlier_run(checkpoint, settings, content):
    """Return the checkpoint of the earlier format as one of today's, and settings that fit.

    It was made with SciPy's L-BFGS-B, whose memory it lacks, and with as many steps at each size.
    What is left becomes a run of its own: the same options, the sizes from that of the picture so
    far up, the steps that were left, and an empty memory.
    """
    left = settings.steps - len(checkpoint.losses)
    image = checkpoint.position.image
    longest = min(settings.size, max(content.shape[:2]))
    sizes = 1 + max(0, round(math.log2(longest / max(image.shape[2:]))))
    state = {} if left > 0 else dict.fromkeys(OPTIMIZER_STATE[settings.optimizer], ())
    position = Position(0, int(left <= 0), image, state)
    settings = replace(settings, scales=sizes, steps=max(left, sizes))
    print(
        "note: an earlier version of this program made the checkpoint; the steps that are left use "
        "the present optimisers, with an empty memory"
    )
    return replace(checkpoint, position=position, earlier=False), settings


def check_same_options(path, saved, given):
    """Raise `InputError` if options of the command line differ from those of the checkpoint `path`.

    `given` and `saved` are options by name. Those that do not change the picture may differ.
    """
    for name, value in given.items():
        if name == "init" and not {value, saved.get(name)} & set(INITS):
            continue  # two files, or one and nothing: their digests tell
        if OPTIONS[name].metadata["fixed"] and value != saved.get(name):
            old, new = (
                f"no {flag(name)}" if each is None else " ".join([flag(name), *texts(each)])
                for each in (saved.get(name), value)
            )
            raise InputError(
                f"{path} was made with {old}, and now it is {new}; leave it out to resume, or "
                "start a new run (--init takes a picture to start from)"
            )


def check_resumable(path, checkpoint, digests, scales, optimizer):
    """Raise `InputError` unless the checkpoint at `path` fits these digests and scales.

    Print a note if other versions of the libraries made it.
    """
    for what, value in digests.items():
        if checkpoint.digests.get(what) != value:
            raise InputError(
                f"{path} was made with a different {what}; give the same one, or start a new run"
            )
    number, step, image, state = checkpoint.position
    scale = scales[min(number, len(scales) - 1)]
    if (
        number >= len(scales)
        or step > scale.steps
        or image.shape != (1, 3, scale.height, scale.width)
        or (step > 0 and set(state) != OPTIMIZER_STATE[optimizer])
    ):
        raise InputError(f"{path} is damaged: it does not fit its own options")
    if checkpoint.versions != library_versions("numpy", "scipy"):
        print(
            f"note: {path} was made with other versions of Python, NumPy or SciPy; the picture may "
            "differ in its last bits"
        )

"""Checkpoints of style transfer: all that it takes to go on to the very same picture.

A checkpoint is an .npz file of plain arrays, nothing pickled: the picture as it stands, the
optimiser's memory, the losses and the frames so far, and a text (JSON) with the options, the place
in the run, and digests of the pictures and filters, by which they are recognised.
"""

import argparse
import hashlib
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from style.settings import INITS, PICTURE_OPTIONS, as_arguments, check_options, parse
from support.command import InputError
from support.files import atomic_path
from support.machine import library_versions
from support.pictures import parse_colour, read_picture

FORMAT = "style transfer checkpoint 1"
LOSSES = ("content", "style", "tv", "seconds")
LISTS_OF_PATHS = ("style", "report")
MEMORY = {"adam": {"m", "v"}, "lbfgs": set()}  # what each optimiser keeps
NAMES = (None, *INITS, "kmeans", "random")  # what --init and --weights take besides files


@dataclass
class State:
    """Where a run stands.

    Attributes
    ----------
    options : dict
        The command's options as JSON can hold them, with absolute paths.
    digests : dict of str to str
        Of the pictures and filters it works with.
    scale, step : int
        Number of the scale, from 0, and steps done at this scale.
    image : ndarray of shape (1, 3, H, W) or None
        The picture as it stands, a network's input; None before the start.
    memory : dict of str to ndarray
        What the optimiser knows besides: m and v of Adam, nothing for L-BFGS.
    losses : list of dict of str to float
        'content', 'style', 'tv' and 'seconds' of each step.
    frames : list of (int, ndarray of shape (h, w, 3))
        Steps and uint8 pictures for the animation and the reports.
    versions : dict of str to str
        Of the libraries that the checkpoint was made with.
    """

    options: dict = field(default_factory=dict)
    digests: dict = field(default_factory=dict)
    scale: int = 0
    step: int = 0
    image: np.ndarray | None = None
    memory: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    versions: dict = field(default_factory=dict)


def settle(argv, defaults, layer_names):
    """Return the command's options, and the state to begin from.

    An option is what the command line says, else what the checkpoint of --resume has, else the
    default.

    Parameters
    ----------
    argv, defaults, layer_names
        See `style.settings.parse`.

    Returns
    -------
    options : argparse.Namespace
    state : State
    """
    given = parse(argv, defaults, layer_names)
    state, saved = State(), {}
    if "resume" in given:
        state = read_checkpoint(given["resume"])
        # Read as a command line, what is in the file is checked like one.
        saved = parse(as_arguments(argparse.Namespace(**state.options)), defaults, layer_names)
        check_same_options(given["resume"], saved, given)
        saved["checkpoint"] = given["resume"]  # and not the file that this one may be a copy of
    elif "checkpoint" in given and given["checkpoint"].is_file():
        read_checkpoint(given["checkpoint"])  # what is something else is not overwritten
    options = argparse.Namespace(**{**defaults, **saved, **given})
    if options.init not in INITS and options.scales is None:
        options.scales = 1  # a coarse scale would only blur the picture to start from
    check_options(options)
    return options, state


def read_pictures(options, state):
    """Read what the options name; raise `InputError` if a checkpoint was made with other pictures.

    Returns
    -------
    content : ndarray of shape (H, W, 3)
    styles : list of ndarray of shape (h, w, 3)
    start : ndarray of shape (h, w, 3) or None
        The picture that --init names, if it names one.
    """
    background = parse_colour(options.background)
    content = read_picture(options.content, background)
    styles = [read_picture(path, background) for path in options.style]
    start = None if options.init in INITS else read_picture(options.init, background)
    digests = {"content picture": digest(content), "set of style pictures": digest(*styles)}
    if start is not None:
        digests["picture to start from"] = digest(start)
    if options.resume:
        check_same_digests(options.resume, state, digests)
    state.digests.update(digests)
    return content, styles, start


def digest(*arrays):
    """Return a digest (SHA-256) of the shapes and values of arrays."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def options_to_keep(options):
    """Return the command's options (a Namespace) as JSON can hold them, with absolute paths."""
    kept = {}
    for name, value in vars(options).items():
        if isinstance(value, Path):
            value = str(value.absolute())
        elif name in LISTS_OF_PATHS:
            value = [str(path.absolute()) for path in value]
        elif name in ("init", "weights") and value not in NAMES:
            value = str(Path(value).absolute())
        kept[name] = value
    return kept


def write_checkpoint(path, state):
    """Write `state` to `path`, complete or not at all."""
    head = {
        "format": FORMAT,
        "options": state.options,
        "digests": state.digests,
        "scale": state.scale,
        "step": state.step,
        "memory": list(state.memory),
        "versions": library_versions("numpy", "scipy"),
    }
    done = len(state.losses)
    frames = [(step, frame) for step, frame in state.frames if step <= done]
    losses = [[losses[name] for name in LOSSES] for losses in state.losses]
    with atomic_path(path, "the checkpoint") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            head=np.array(json.dumps(head)),
            image=state.image,
            losses=np.array(losses, np.float64).reshape(done, len(LOSSES)),
            frame_steps=np.array([step for step, _ in frames], np.int64),
            frames=np.array([frame for _, frame in frames], np.uint8),
            **{f"memory_{name}": array for name, array in state.memory.items()},
        )


def read_checkpoint(path):
    """Return the `State` in a file of `write_checkpoint`.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged or something else.
    """
    try:
        # Opened here: NumPy would leave the file open where it is no whole .npz.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
            if head["format"] != FORMAT:
                raise InputError(f"{path} is of another version of this program ({head['format']})")
            state = State(
                head["options"], head["digests"], head["scale"], head["step"], file["image"],
                {name: file[f"memory_{name}"] for name in head["memory"]},
            )  # fmt: skip
            for row in file["losses"].tolist():
                state.losses.append(dict(zip(LOSSES, row, strict=True)))
            steps, frames = file["frame_steps"].tolist(), file["frames"]
            state.frames = list(zip(steps, frames, strict=True))
            state.versions = head["versions"]
            _check(state)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint {path}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
            NotImplementedError) as error:  # fmt: skip
        raise InputError(f"{path} is no checkpoint of this program, or is damaged") from error
    return state


def _check(state):
    """Raise `ValueError` unless the arrays of a state have the form that they must have."""
    image = state.image
    arrays = [image, *state.memory.values()]
    well_formed = (
        image.ndim == 4
        and image.shape[:2] == (1, 3)
        and all(array.dtype == np.float32 and array.shape == image.shape for array in arrays)
        and all(np.isfinite(array).all() for array in arrays)
        and type(state.scale) is type(state.step) is int
        and state.scale >= 0
        and 0 <= state.step <= len(state.losses)
        and all(math.isfinite(loss) for losses in state.losses for loss in losses.values())
        and all(frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
                for _, frame in state.frames)
        and isinstance(state.options, dict)
        and isinstance(state.digests, dict)
    )  # fmt: skip
    if not well_formed:
        raise ValueError("unexpected shapes or values")


def check_same_options(path, saved, given):
    """Raise `InputError` if options given on the command line differ from a checkpoint's.

    Parameters
    ----------
    path : Path
        The checkpoint's.
    saved : dict
        Its options, without those that are None.
    given : dict
        Options that were given; those that do not change the picture may differ.
    """
    for name in PICTURE_OPTIONS:
        if name == "init" and not {given.get(name), saved.get(name)} & set(INITS):
            continue  # two files, or one and nothing: their digests tell
        if name == "checkpoint_every" and saved.get("optimizer") == "adam":
            continue
        if name in given and given[name] != saved.get(name):
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{path} was made with {_shown(option, saved.get(name))}, and now it is "
                f"{_shown(option, given[name])}; leave it out to go on, or start anew (--init "
                "takes a picture to start from)"
            )


def _shown(option, value):
    """Return an option and its value as the command line has them."""
    if isinstance(value, dict):
        value = " ".join(f"{layer}:{weight:g}" for layer, weight in value.items())
    elif isinstance(value, list):
        value = " ".join(map(str, value))
    return f"no {option}" if value is None else f"{option} {value}"


def check_place(options, state, scales):
    """Raise `InputError` unless the place that a checkpoint names is one of this run.

    Parameters
    ----------
    options : argparse.Namespace
    state : State
    scales : list of dict
        'height', 'width' and 'steps' of each size.
    """
    if state.image is None:
        return
    scale = scales[min(state.scale, len(scales) - 1)]
    if (
        state.scale >= len(scales)
        or state.step > scale["steps"]
        or state.image.shape != (1, 3, scale["height"], scale["width"])
        or (state.step > 0 and set(state.memory) != MEMORY[options.optimizer])
    ):
        raise InputError(f"{options.resume} is damaged: it does not fit its own options")
    versions = library_versions("numpy", "scipy")
    if versions != state.versions:
        print(f"note: {options.resume} was made with other versions of Python, NumPy or SciPy; the "
              "picture may differ in its last bits")  # fmt: skip


def check_filters(options, state, image_mean, network):
    """Raise `InputError` if a checkpoint was made with other filters than the network's.

    Parameters
    ----------
    options : argparse.Namespace
    state : State
        Takes the digest.
    image_mean : ndarray of shape (3,)
    network : FusedNetwork
    """
    convolutions = [stage.conv for stage in network.stages]
    parameters = [array for conv in convolutions for array in (conv.weight, conv.bias)]
    digests = {"set of filters": digest(image_mean, *parameters)}
    if options.resume:
        check_same_digests(options.resume, state, digests)
    state.digests.update(digests)


def check_same_digests(path, state, digests):
    """Raise `InputError` if pictures or filters are not those that a checkpoint was made with.

    Parameters
    ----------
    path : Path
        The checkpoint's.
    state : State
    digests : dict of str to str
        Some or all of those that are to agree.
    """
    for what, value in digests.items():
        if state.digests.get(what) != value:
            raise InputError(
                f"{path} was made with another {what}; give the same again, or start anew"
            )

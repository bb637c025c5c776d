"""Reads the weights of a VGG network from a file of any kind that is used here.

============  =======================================================================
.mat          MatConvNet's VGG-19 or VGG-16 (`support.matconvnet`)
.h5           the filters trained on photographs (`support.trained_filters`)
.npz          arrays conv1_1_weight, conv1_1_bias, ... and image_mean (`write_weights`)
============  =======================================================================

The first bytes of a file say which kind it is; its name does not matter.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from support.command import InputError
from support.files import atomic_path
from support.matconvnet import Network, read_matconvnet
from support.trained_filters import read_trained_filters


def read_weights(path, *tables):
    """Return the `Network` in a weights file.

    Parameters
    ----------
    path : str or Path
    *tables : sequence of str
        Names of the layers of each network that the file may hold, as in MatConvNet's files.

    Raises
    ------
    InputError
        If the file is missing, damaged or of a different kind; the message says what to do.
    """
    path = Path(path)
    beginning = b""
    if path.is_file():
        try:
            with path.open("rb") as file:
                beginning = file.read(10)
        except OSError as error:
            raise InputError(f"cannot read the weights file {path}: {error.strerror}") from None
    if beginning.startswith(b"\x89HDF"):
        return Network(*read_trained_filters(path), [], [])
    if beginning.startswith(b"PK"):
        return _read_npz(path, tables)
    if beginning.startswith(b"MATLAB") or not path.is_file() or path.suffix.lower() == ".mat":
        return read_matconvnet(path, *tables)
    raise InputError(
        f"{path} is not a weights file of a known kind; expected MatConvNet's .mat, the trained "
        "filters (.h5) or an .npz of this program"
    )


def write_weights(path, layers, image_mean):
    """Write the weights of convolutions to an .npz file, completely or not at all.

    Parameters
    ----------
    path : str or Path
    layers : dict of str to (weight, bias)
        Shapes (channel_in, 3, 3, channel_out) and (channel_out,).
    image_mean : ndarray of shape (3,)
    """
    arrays = {"image_mean": image_mean}
    for name, (weight, bias) in layers.items():
        arrays |= {f"{name}_weight": weight, f"{name}_bias": bias}
    with atomic_path(path, "the weights") as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read_npz(path, tables):
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} is not an .npz file of plain arrays, or is damaged; files of PyTorch and "
            "other pickled files are not read, since opening them can run any program"
        ) from error
    names = [name.removesuffix("_weight") for name in arrays if name.endswith("_weight")]
    for table in tables:
        wanted = [name for name in table if name.startswith(("conv", "fc"))]
        if wanted and set(wanted) == set(names) and "image_mean" in arrays:
            break
    else:
        raise InputError(f"{path} has no arrays conv1_1_weight, conv1_1_bias, ..., image_mean")
    layers, channels = {}, 3
    for name in wanted:
        weight, bias = arrays[f"{name}_weight"], arrays.get(f"{name}_bias", np.empty(0))
        shape = (channels, 3, 3, bias.size)
        finite = all(a.dtype.kind == "f" and np.isfinite(a).all() for a in (weight, bias))
        if weight.shape != shape or bias.ndim != 1 or not finite:
            raise InputError(
                f"{path}: {name} has arrays of shapes {weight.shape} and {bias.shape}; expected "
                f"finite numbers of shapes {shape} and ({bias.size},)"
            )
        layers[name] = weight.astype(np.float32), bias.astype(np.float32)
        channels = bias.size
    mean = arrays["image_mean"]
    if mean.shape != (3,) or mean.dtype.kind != "f" or not np.isfinite(mean).all():
        raise InputError(f"{path}: image_mean has shape {mean.shape}; expected 3 finite numbers")
    return Network(layers, mean.astype(np.float32), [], [])

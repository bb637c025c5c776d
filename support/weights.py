"""Reads the weights of a VGG network from a file of any kind that is used here.

============  =======================================================================
.mat          MatConvNet's VGG-19 or VGG-16 (`support.matconvnet`)
.h5           the filters trained on photographs (`support.trained_filters`)
.npz          plain arrays, written by `write_weights`
============  =======================================================================

The first bytes of a file say which kind it is; its name does not matter.
"""

import os
from pathlib import Path

import numpy as np

from support.command import InputError
from support.files import FormatError, input_file
from support.matconvnet import Network, read_matconvnet
from support.npz import read_npz, write_npz
from support.trained_filters import read_trained_filters

NAMES = ("class_names", "wordnet_ids")  # fields of `Network`


def read_weights(path, *tables):
    """Return the `Network` in a weights file.

    `tables` are the names of the layers of each network that the file may hold, as in MatConvNet's
    files. `InputError` says what to do if the file is missing, damaged or of a different kind.
    """
    path = Path(path)
    beginning = b""
    if os.path.exists(path):  # if not, `read_matconvnet` says how to get it
        with input_file(path, "weights file") as file:
            beginning = file.read(10)
    if beginning.startswith(b"\x89HDF"):
        return Network(*read_trained_filters(path), [], [])
    if beginning.startswith(b"PK"):
        with read_npz(path, "weights file") as arrays:
            return _network(arrays, tables)
    if beginning.startswith(b"MATLAB") or not os.path.exists(path) or path.suffix.lower() == ".mat":
        return read_matconvnet(path, *tables)
    raise InputError(
        f"{path} is not a weights file of a known kind; expected MatConvNet's .mat, the trained "
        "filters (.h5) or an .npz of this program"
    )


def load_network(path, kinds, **options):
    """Return the network that a weights file holds: one of `kinds`, with its parameters.

    `options` are passed to `kinds`. Raises `InputError` if the file is missing or holds none of
    them.
    """
    candidates = [kind(path, **options) for kind in kinds]
    weights = read_weights(path, *(vgg.file_layers() for vgg in candidates))
    for vgg in candidates:
        if list(weights.layers) == [n for n in vgg.file_layers() if n.startswith(("conv", "fc"))]:
            vgg.load_weights(weights)
            return vgg
    raise InputError(f"{path} has only convolutions, without fully connected layers")


def write_weights(path, network):
    """Write a `Network` to an .npz file of plain arrays, completely or not at all.

    The names are conv1_1_weight, conv1_1_bias and so on, image_mean, class_names, wordnet_ids.
    """
    arrays = {"image_mean": network.image_mean}
    for name in NAMES:
        arrays[name] = np.array(getattr(network, name), str)
    for name, (weight, bias) in network.layers.items():
        arrays |= {f"{name}_weight": weight, f"{name}_bias": bias}
    write_npz(path, arrays, "the weights")


def _network(arrays, tables):
    """Return the `Network` of the first table that fits the open .npz file."""
    found = {name.removesuffix("_weight") for name in arrays if name.endswith("_weight")}
    for table in tables:
        wanted = [name for name in table if name.startswith(("conv", "fc"))]
        # Fully connected layers may be left out, convolutions not: VGG-16 has a part of VGG-19's.
        unused = found - set(wanted)
        if wanted and set(wanted) <= found and not any(name.startswith("conv") for name in unused):
            break
    else:
        raise FormatError("has no arrays conv1_1_weight, conv1_1_bias, ..., image_mean")
    layers, channels = {}, 3
    for name in wanted:
        weight, bias = arrays.floats(f"{name}_weight"), arrays.floats(f"{name}_bias")
        inputs = 49 * channels if name == "fc6" else channels
        shape = (channels, 3, 3, bias.size) if name.startswith("conv") else (inputs, bias.size)
        if weight.shape != shape or bias.ndim != 1 or weight.size == 0:
            found = f"shapes {weight.shape} and {bias.shape}"
            raise FormatError(f"has {found} for {name}, expected {shape} and ({bias.size},)")
        layers[name] = weight, bias
        channels = bias.size
    mean = arrays.floats("image_mean")
    if mean.shape != (3,):
        raise FormatError(f"has an image_mean of shape {mean.shape}, expected (3,)")
    names = [_texts(arrays, name, channels) if "fc8" in layers else [] for name in NAMES]
    return Network(layers, mean, *names)


def _texts(arrays, name, count):
    """Return an array of `count` strings as a list; [] if it is missing or empty."""
    texts = arrays[name].reshape(-1).tolist() if name in arrays else []
    if texts and (len(texts) != count or not all(isinstance(text, str) for text in texts)):
        raise FormatError(f"has {name} that are not the {count} names of the classes")
    return texts

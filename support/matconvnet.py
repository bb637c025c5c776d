"""Reads the VGG weights that the MatConvNet project publishes as a MATLAB file.

Two generations of the file are in use, with the same weights. The names and places of their fields
differ, so everything is looked up by name:

==============  ====================================  ==========================================
                older, "beta16"                       newer, "beta17+"
==============  ====================================  ==========================================
top level       layers, classes, normalization        layers, meta
average colour  normalization.averageImage            meta.normalization.averageImage
                (224, 224, 3)                         (1, 1, 3)
classes         classes.description, classes.name     meta.classes.description, .name
==============  ====================================  ==========================================

`layers` is a cell array of structs, one for each layer. Convolutions and fully connected layers
have the fields `name` and `weights` (filters and biases); the other layers have no weights.
"""

import os
import shlex
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

from support.command import one_line
from support.downloads import download_verified
from support.files import FormatError, input_file
from support.matlab import HEADER, read_variables
from support.npz import finite_float32

FILE_NAME = "imagenet-vgg-verydeep-19.mat"
URL = f"https://www.vlfeat.org/matconvnet/models/{FILE_NAME}"
FILE_SIZE = 534_904_783  # bytes
SHA256 = "abdb57167f82a2a1fbab1e1c16ad9373411883f262a1a37ee5db2e6fb0044695"

# Mean red, green and blue of the ImageNet training pictures, from 0 to 255. Both generations of
# the file hold these values; they are needed here for networks without a file.
IMAGE_MEAN = (123.68, 116.779, 103.939)


class Network(NamedTuple):
    """The content of a weights file; all arrays are float32.

    The weight of a convolution has the shape (channel_in, K, K, channel_out), with the height of
    the kernel before its width. That of a fully connected layer has (num_input, num_output); the
    inputs of fc6 are in the order height, width, channel. A bias has one axis.
    """

    layers: dict  # {name: (weight, bias)} in the order of the network
    image_mean: np.ndarray  # (3,): red, green, blue from 0 to 255, to subtract from a picture
    class_names: list  # descriptions in the order of fc8's outputs; empty if the file has none
    wordnet_ids: list  # numbers of the classes in WordNet, such as 'n02123045'; may be empty


def read_matconvnet(path, *tables):
    """Read a MatConvNet file of a VGG network.

    The numbers of channels come from the file. The names of the layers, the 3x3 kernels, padding,
    stride and the 7x7 input of fc6 must be VGG's.

    Parameters
    ----------
    path : str or Path
        If the file is missing or unsuitable, `InputError` says how to get the right one.
    *tables : sequence of str
        Names of the file's layers, in order, for each network that it may be; the first that fits
        counts. Layers after these are not read.

    Returns
    -------
    Network
    """
    path = Path(path)
    with input_file(path, "weights file", _how_to_get(path)) as file:
        most_layers = max(len(table) for table in tables)
        return _network(_load_variables(file, most_layers), tables)


def download_vgg19(path):
    """Download the newer VGG-19 file to `path` and verify its SHA-256.

    If `path` already is that file, nothing is downloaded; any other file there is replaced.
    `InputError` if the download fails or is not the right file; no part of it is kept.
    """
    there = os.path.isfile(path) and os.path.getsize(path) == FILE_SIZE
    if there and pooch.file_hash(path) == SHA256:
        return
    download_verified([URL], path, SHA256, FILE_SIZE)


def _how_to_get(path):
    """Return the end of a message: which file is expected and how to get it."""
    # Never advise to download onto a file of a different kind.
    target = f" --weights {shlex.quote(str(path))}" if path.suffix.lower() == ".mat" else ""
    return (
        f"expected {FILE_NAME}, {FILE_SIZE:,} bytes, SHA-256 {SHA256}: download it with "
        f"`python vgg_cpu.py --download{target}`, or from {URL} and put it there"
    )


def _load_variables(file, most_layers):
    """Return the file's variables by name."""
    header = file.read(HEADER)
    if header.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise FormatError("has MATLAB's format 7.3 (HDF5), not 5; save it with -v7")
    if not header.startswith(b"MATLAB 5.0") or len(header) < HEADER:
        raise FormatError("is not a MATLAB file, or only the beginning of one")
    names = ["layers", "meta", "classes", "normalization"]
    try:
        return read_variables(file, names, most_layers)
    except (ValueError, zlib.error, struct.error) as error:
        raise FormatError(f"is damaged or cut short ({one_line(error)})") from error


def _network(variables, tables):
    """Return the `Network` of the first table that fits. The layers in `variables` are used up."""
    structs = _field(variables, "layers", "its variables")
    if not isinstance(structs, list):
        raise FormatError("has no list of layers in its variable 'layers'")
    found = [_text(_field(s, "name", f"layer {i}")) for i, s in enumerate(structs, start=1)]
    fitting = [table for table in tables if found[: len(table)] == list(table)]
    names = (fitting or tables)[0]
    for i, name in enumerate(names):
        if i == len(found):
            raise FormatError(f"ends after {i} layers, before {name!r}")
        if found[i] != name:
            raise FormatError(f"has {found[i]!r} as layer {i + 1}, expected {name!r}")

    top = variables.get("meta", variables)
    where = "meta" if "meta" in variables else "its variables"
    image_mean = _image_mean(_field(top, "normalization", where))
    classes = _field(top, "classes", where, optional=True)
    class_names = _strings(_field(classes, "description", "classes", optional=True))
    wordnet_ids = _strings(_field(classes, "name", "classes", optional=True))

    layers = {}
    channels = 3  # red, green, blue
    for name, fields in zip(names, structs, strict=False):
        if name.startswith(("conv", "fc")):
            layers[name] = _parameters(fields, name, channels)
            channels = layers[name][1].size
        fields.clear()  # free the memory as soon as the weights are copied
    for count in len(class_names), len(wordnet_ids):
        if "fc8" in layers and count not in (0, channels):
            raise FormatError(f"has {count} class names for the {channels} outputs of fc8")
    return Network(layers, image_mean, class_names, wordnet_ids)


def _parameters(fields, name, channel_in):
    """Return (weight, bias) of the convolution or fully connected layer `name`."""
    arrays = _field(fields, "weights", name)
    pair = isinstance(arrays, list) and [type(array) for array in arrays] == [np.ndarray] * 2
    if not pair:
        raise FormatError(f"has no pair of filters and biases in layer {name!r}")
    weight, bias = arrays[0], arrays[1].reshape(-1)
    kernel = 3 if name.startswith("conv") else 7 if name == "fc6" else 1
    shape = (kernel, kernel, channel_in, bias.size)
    found, expected = (tuple(n for n in s if n != 1) for s in (weight.shape, shape))
    if found != expected or weight.size == 0:
        raise FormatError(
            f"has filters of shape {found} and {bias.size} biases in layer {name!r}, "
            f"expected filters of shape {expected} (axes of length 1 left out)"
        )
    floats = weight.dtype.kind == bias.dtype.kind == "f"
    weight, bias = (finite_float32(array) if floats else None for array in (weight, bias))
    if weight is None or bias is None:
        raise FormatError(f"has values that are not finite numbers in layer {name!r}")
    for field, value in (("pad", 1 if name.startswith("conv") else 0), ("stride", 1)):
        if field in fields and not np.all(fields[field] == value):
            raise FormatError(f"has a {field} different from {value} in layer {name!r}")
    weight = weight.reshape(shape)
    if name.startswith("conv"):
        weight = np.ascontiguousarray(weight.transpose(2, 0, 1, 3))  # (K,K,C,Co) -> (C,K,K,Co)
        return weight, bias
    return weight.reshape(-1, bias.size), bias  # (K, K, C, Co) -> (K K C, Co)


def _image_mean(normalization):
    """Return the mean colour, shape (3,), from the struct `normalization`."""
    average = _field(normalization, "averageImage", "normalization")
    if not isinstance(average, np.ndarray) or average.shape[-1] != 3 or average.size == 0:
        raise FormatError("has no average image of three channels")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = average.reshape(-1, 3).mean(axis=0, dtype=np.float64)  # (H, W, 3) -> (3,)
    mean = finite_float32(mean)
    if mean is None:
        raise FormatError("has an average image that is not finite")
    return mean


def _field(fields, name, where, optional=False):
    """Return a field of a struct. If it is missing: None if `optional`, otherwise an error."""
    if isinstance(fields, dict) and name in fields:
        return fields[name]
    if optional:
        return None
    raise FormatError(f"has no {name!r} in {where}")


def _strings(cells):
    """Return the strings of a cell array, which may be nested, as a list; empty for None."""
    if isinstance(cells, list):
        return [text for cell in cells for text in _strings(cell)]
    return [] if cells is None else [_text(cells)]


def _text(value):
    """Return a MATLAB string without the spaces around it."""
    if isinstance(value, np.ndarray) and value.size == 0:
        return ""
    if not isinstance(value, str):
        raise FormatError("has something else where a name should be")
    return value.strip()

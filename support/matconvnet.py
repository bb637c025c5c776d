"""Reading the VGG-19 weights that the MatConvNet project publishes as a MATLAB file.

Two generations of the file are in use, with the same weights. They differ in what their fields are
called and where they stand, so everything is looked up by name:

==============  ====================================  ==========================================
                older, "beta16"                       newer, "beta17+"
==============  ====================================  ==========================================
top level       layers, classes, normalization        layers, meta
average colour  normalization.averageImage            meta.normalization.averageImage
                (224, 224, 3)                         (1, 1, 3)
classes         classes.description, classes.name     meta.classes.description, .name
==============  ====================================  ==========================================

`layers` is a cell array of 43 structs, one a layer: 16 convolutions and 3 fully connected layers
with the fields `name` and `weights` (filters and biases), and 24 layers without parameters.
"""

import shlex
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import scipy.io

from support.command import InputError
from support.downloads import download_verified

FILE_NAME = "imagenet-vgg-verydeep-19.mat"
URL = f"https://www.vlfeat.org/matconvnet/models/{FILE_NAME}"
FILE_SIZE = 534_904_783  # bytes
SHA256 = "abdb57167f82a2a1fbab1e1c16ad9373411883f262a1a37ee5db2e6fb0044695"

# Convolutions in each of the five blocks; a ReLU follows each, a pooling layer ends each block.
CONVOLUTIONS = (2, 2, 4, 4, 4)

# The mean colour of the ImageNet training pictures: red, green, blue, from 0 to 255. It is what
# both files hold, for those who have no file.
IMAGE_MEAN = (123.68, 116.779, 103.939)


def _layer_names():
    """Return the names of VGG-19's layers from 'conv1_1' to 'prob', as in the file."""
    names = []
    for block, convolutions in enumerate(CONVOLUTIONS, start=1):
        for i in range(1, convolutions + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return (*names, "fc6", "relu6", "fc7", "relu7", "fc8", "prob")


LAYER_NAMES = _layer_names()


class Network(NamedTuple):
    """What a weights file holds.

    Attributes
    ----------
    layers : dict of str to (weight, bias)
        By name, 'conv1_1' first; float32. A convolution's weight has the shape
        (channel_in, 3, 3, channel_out) with the kernel's axes in the order height, width. A fully
        connected layer's has (num_input, num_output); the inputs of fc6 count in the order height,
        width, channel. A bias has (channel_out,) or (num_output,).
    image_mean : ndarray of shape (3,)
        float32; red, green, blue from 0 to 255; to be taken from a picture before the first layer.
    class_names : list of str
        Descriptions in the order of fc8's outputs; empty where the file has none.
    wordnet_ids : list of str
        The same classes by their number in WordNet, such as 'n02123045'; may be empty, too.
    variant : {"beta16", "beta17+"}
        The generation of the file.
    """

    layers: dict
    image_mean: np.ndarray
    class_names: list
    wordnet_ids: list
    variant: str


def read_matconvnet(path, last_layer="prob"):
    """Read a MatConvNet file of VGG-19, or of a narrower network of the same form.

    The numbers of channels come from the file; the sequence of layers, the 3x3 kernels and the
    7x7 positions that fc6 looks at have to be VGG-19's. Loading needs about twice the memory of
    the weights for a moment, since every array is brought into another order of axes.

    Parameters
    ----------
    path : str or Path
    last_layer : str, default="prob"
        Parameters up to this layer are kept, and the file may end there: 'pool5' for the
        convolutions alone. One of `LAYER_NAMES`.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If there is no such file or its content is not as described. The message says which file
        is expected and how to fetch it.
    ValueError
        If `last_layer` is not the name of a layer.

    Notes
    -----
    A file cut short anywhere and a damaged compressed file are recognised. SciPy's reader is not
    made for files that mean harm, though: read weights only from where you trust them to be.
    """
    path = Path(path)
    if last_layer not in LAYER_NAMES:
        raise ValueError(f"last_layer must be one of {', '.join(LAYER_NAMES)}, got {last_layer!r}")
    try:
        return _network(_load_variables(path), LAYER_NAMES[: LAYER_NAMES.index(last_layer) + 1])
    except FileNotFoundError:
        raise InputError(f"there is no weights file {path}; {_how_to_get(path)}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot read the weights file {path}: {error.strerror}") from None
    except _FormatError as error:
        size = path.stat().st_size
        message = f"the weights file {path} ({size:,} bytes) {error}; {_how_to_get(path)}"
        raise InputError(message) from error


def download_vgg19(path):
    """Fetch the newer VGG-19 file to `path`, verified by its SHA-256.

    Nothing is fetched if `path` already is that very file; any other file there is replaced.

    Raises
    ------
    InputError
        If it cannot be fetched or is not the right file; nothing is left behind then.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size == FILE_SIZE and pooch.file_hash(path) == SHA256:
        return
    download_verified([URL], path, SHA256, FILE_SIZE)


class _FormatError(Exception):
    """The file is not what it should be; the message continues 'the weights file ...'."""


def _how_to_get(path):
    """Return what file is needed and how to get it to `path`."""
    command = f"python vgg_cpu.py --download --weights {shlex.quote(str(path))}"
    return (
        f"expected is {FILE_NAME}, {FILE_SIZE:,} bytes, SHA-256 {SHA256}: "
        f"fetch it with `{command}`, or from {URL} and put it there"
    )


def _load_variables(path):
    """Return the file's variables by name, in SciPy's nested arrays."""
    with path.open("rb") as file:
        header = file.read(128)
        if header.startswith((b"MATLAB 7.3", b"\x89HDF")):
            raise _FormatError("is of MATLAB's format 7.3 (HDF5), not 5; save it with -v7")
        if not header.startswith(b"MATLAB 5.0") or len(header) < 128:
            raise _FormatError("is not a MATLAB file, or only the beginning of one")
        names = ["layers", "meta", "classes", "normalization"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # SciPy only warns of a variable it cannot read
                return scipy.io.loadmat(file, variable_names=names)
        except MemoryError:
            raise
        except Exception as error:  # SciPy and zlib raise many kinds, depending on where it is cut
            reason = " ".join(str(error).split())
            raise _FormatError(f"is damaged or cut short ({reason})") from error


def _network(variables, names):
    """Return the `Network` of the layers `names` from the file's variables, which are used up."""
    for name, alternative in (("layers", "layers"), ("meta", "normalization")):
        if name not in variables and alternative not in variables:
            raise _FormatError(f"holds no variable {alternative!r}")
    variant = "beta17+" if "meta" in variables else "beta16"
    top = variables.get("meta", variables)
    image_mean = _image_mean(_field(top, "normalization", "meta"))
    classes = _field(top, "classes", "meta", optional=True)
    class_names = _strings(_field(classes, "description", "classes", optional=True))
    wordnet_ids = _strings(_field(classes, "name", "classes", optional=True))

    cells = variables["layers"].reshape(-1)  # (1, 43) -> (43,)
    found = [_text(_field(cell, "name", f"layer {i}")) for i, cell in enumerate(cells, start=1)]
    for i, name in enumerate(names):
        if i == len(found):
            raise _FormatError(f"ends after {i} layers, before {name!r}")
        if found[i] != name:
            raise _FormatError(f"has {found[i]!r} as layer {i + 1}, where VGG-19 has {name!r}")

    cells[len(names) :] = None  # what is not asked for is free at once,
    layers = {}
    channels = 3  # red, green, blue
    for i, name in enumerate(names):
        if name.startswith(("conv", "fc")):
            layers[name] = _parameters(cells[i], name, channels)
            channels = layers[name][1].size  # as many as there are biases
        cells[i] = None  # and the rest as soon as it is copied
    for count in (len(class_names), len(wordnet_ids)) if "fc8" in layers else ():
        if count not in (0, channels):
            raise _FormatError(f"has {count} class names for the {channels} outputs of fc8")
    return Network(layers, image_mean, class_names, wordnet_ids, variant)


def _parameters(struct, name, channel_in):
    """Return (weight, bias) of the convolution or fully connected layer `name`."""
    arrays = _field(struct, "weights", name)
    if not isinstance(arrays, np.ndarray) or arrays.dtype != object or arrays.size != 2:
        raise _FormatError(f"has no pair of filters and biases in layer {name!r}")
    weight, bias = arrays.reshape(-1)
    kernel = 3 if name.startswith("conv") else 7 if name == "fc6" else 1
    # Trailing axes of length 1 are not stored in MATLAB files.
    weight = weight.reshape(weight.shape + (1,) * (4 - weight.ndim))
    channel_out = weight.shape[-1]
    expected = (kernel, kernel, channel_in, channel_out)
    if weight.shape != expected or weight.size == 0:
        shape = f"({kernel}, {kernel}, {channel_in}, any)"
        raise _FormatError(f"has weights of shape {weight.shape} in {name!r}, expected {shape}")
    if bias.size != channel_out:
        raise _FormatError(f"has {bias.size} biases for {channel_out} filters in layer {name!r}")
    for array in (weight, bias):
        # The extremes carry NaN and infinity along, and need no array of their own.
        if array.dtype.kind != "f" or not np.isfinite([array.min(), array.max()]).all():
            raise _FormatError(f"has values that are not finite numbers in layer {name!r}")
    _check_geometry(struct, name)
    bias = np.array(bias.reshape(-1), dtype=np.float32)  # (1, K) or (K, 1) -> (K,)
    if name.startswith("conv"):
        return _in_c_order(weight.transpose(2, 0, 1, 3)), bias  # (H,W,Cin,Cout) -> (Cin,H,W,Cout)
    return _in_c_order(weight).reshape(-1, channel_out), bias  # (H,W,Cin,Cout) -> (H W Cin, Cout)


def _in_c_order(array, block=64):
    """Return a C-ordered float32 copy of `array`, which MATLAB stores with the last axis slowest.

    Copied as a whole, almost every number would be fetched from memory by itself: 2.7 s for fc6.
    A few of the last axis at a time stay in the cache until their neighbours are due: 0.4 s.
    """
    copy = np.empty(array.shape, dtype=np.float32)
    for start in range(0, array.shape[-1], block):
        copy[..., start : start + block] = array[..., start : start + block]
    return copy


def _check_geometry(struct, name):
    """Raise unless padding and stride, where the file states them, are those of VGG-19."""
    padding = 1 if name.startswith("conv") else 0
    for field, expected in (("pad", padding), ("stride", 1)):
        if field in struct.dtype.names and not np.all(struct[field].flat[0] == expected):
            raise _FormatError(f"has another {field} than {expected} in layer {name!r}")


def _image_mean(normalization):
    """Return the mean colour, shape (3,), from the struct `normalization`."""
    average = _field(normalization, "averageImage", "normalization")
    if not isinstance(average, np.ndarray) or average.shape[-1:] != (3,):
        raise _FormatError("has no average image of three channels")
    mean = average.reshape(-1, 3).mean(axis=0, dtype=np.float64)  # (H, W, 3) -> (3,)
    if not np.isfinite(mean).all():
        raise _FormatError("has an average image that is not finite")
    return mean.astype(np.float32)


def _field(struct, name, where, optional=False):
    """Return the field `name` of a 1x1 MATLAB struct, or of the dict of the file's variables.

    A field that is not there is None if `optional`, and an error otherwise.
    """
    if isinstance(struct, dict) and name in struct:
        return struct[name]
    if isinstance(struct, np.ndarray) and name in (struct.dtype.names or ()) and struct.size == 1:
        return struct[name].flat[0]
    if optional:
        return None
    raise _FormatError(f"has no field {name!r} in {where}")


def _strings(cells):
    """Return the strings of a cell array; each, and all of them, may lie in a further cell."""
    if cells is None:
        return []
    while cells.dtype == object and cells.size == 1 and cells.flat[0].dtype == object:
        cells = cells.flat[0]
    return [_text(cell) for cell in cells.reshape(-1)]  # (1, K) or (K, 1) -> (K,)


def _text(value):
    """Return the string in a MATLAB character array, or in cells around one."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    if isinstance(value, np.ndarray) and value.size == 0:
        return ""
    if not isinstance(value, str):
        raise _FormatError("has something else where a name should be")
    return value.strip()

"""The files of the digits and of the parameters: where they are, MNIST's format IDX, its download.

A file of images holds, in big-endian byte order,

    int32 magic = 2051, int32 count, int32 rows, int32 columns, then count * rows * columns bytes

and a file of labels

    int32 magic = 2049, int32 count, then count bytes.

The last byte of the magic number is the number of dimensions (3 or 1), the byte before it means
"unsigned bytes" (8). Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".

A file that is missing, damaged or cannot be written raises `InputError`, which names the file and
what is wrong with it.
"""

import gzip
import os
import re
import zlib
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from support.command import InputError
from support.downloads import download_verified
from support.files import FormatError, files_in, input_file, most_unpacked, write_bytes
from support.npz import finite_float32, read_npz, write_npz

MNIST_DIR = Path(__file__).resolve().parent.parent / "mnist_data"
BOOK_MNIST_DIR = Path("../mnist_data")  # where the book's programs have it
PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4")  # the last two only of the CNN
HIDDEN_BIASES = {"mlp": ("b1", "b2"), "cnn": ("b3",)}  # as long as the hidden layers are wide

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
SIDE = 28  # height and width of an MNIST picture in pixels
BOX = 20  # a digit fits a box of this many pixels; its centre of mass is the picture's centre
CLASSES = 10
MAX_COUNT = 1_000_000  # a larger count means damage: EMNIST, the largest relative, has 814,255
GZIP_START = b"\x1f\x8b"

# The four files by their published names. Some copies are named "train-images.idx3-ubyte", or with
# the name of a data set before: "emnist-digits-train-images-idx3-ubyte".
MNIST_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
FILE_NAMES = re.compile(r"(.+[-_])?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
PLACES = ("", "raw", "MNIST/raw")  # in a folder; the last two are PyTorch's

# The original server refuses downloads; these two have exact copies of its files.
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# file at the mirrors -> size in bytes, SHA-256
MNIST_DOWNLOADS = {
    "train-images-idx3-ubyte.gz":
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte.gz":
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte.gz":
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte.gz":
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}  # fmt: skip


def download_mnist(folder):
    """Download the four files of MNIST (11.6 MB) to `folder`, unless it holds a readable set.

    A file that has the right checksum is kept, so a second call resumes where the first one failed.
    """
    with suppress(InputError):  # files are missing or damaged
        read_mnist(folder)
        return
    for name, (size, sha256) in MNIST_DOWNLOADS.items():
        urls = [mirror + name for mirror in MNIST_MIRRORS]
        download_verified(urls, Path(folder) / name, sha256, size)


def data_folder(data_dir=None):
    """Return the folder with the digits, and whether they are "mnist" or "synthetic".

    It is `data_dir` if given, else the first of `mnist_data` beside the program and the book's
    folder `../mnist_data` that holds MNIST, else the place of the synthetic digits.
    """
    if data_dir is None:
        synthetic = MNIST_DIR / "synthetic"
        data_dir = next(filter(find_mnist, (MNIST_DIR, BOOK_MNIST_DIR)), synthetic)
    folder = Path(data_dir)
    return folder, "synthetic" if folder == MNIST_DIR / "synthetic" else "mnist"


def find_mnist(folder):
    """Return {"train_images": Path, ...}, the four files in `folder`, or None if it has none.

    Having only some of them, or several sets, is an `InputError`.
    """
    sets = {}  # by the name of the data set
    for place in PLACES:
        here = Path(folder, place)
        paths = files_in(here) if os.path.isdir(here) else []
        for path in sorted(paths, key=lambda path: path.suffix == ".gz"):  # uncompressed first
            if match := FILE_NAMES.fullmatch(path.name):
                prefix, part, kind, _ = match.groups()
                key = f"{'train' if part == 'train' else 'test'}_{kind}"
                sets.setdefault(prefix or "", {}).setdefault(key, path)
        if sets:
            break
    found = sets.get("")  # MNIST itself, if there are others too
    if found is None and len(sets) > 1:
        raise InputError(f"{folder} holds several sets of digits: {', '.join(sorted(sets))}")
    if found is None and sets:
        (found,) = sets.values()
    if found and len(found) < len(MNIST_FILES):
        missing = [name for key, name in MNIST_FILES.items() if key not in found]
        raise InputError(
            f"{folder} holds only a part of MNIST: {' and '.join(missing)} (or .gz) "
            f"{'is' if len(missing) == 1 else 'are'} missing; --download fetches the rest"
        )
    return found


def read_mnist(folder):
    """Return `(train_images, train_labels, test_images, test_labels)` from the files in `folder`.

    Returns
    -------
    images : ndarray of shape (N, 28, 28), uint8, 0 (paper) to 255 (ink)
    labels : ndarray of shape (N,), uint8, 0 to 9
    """
    paths = find_mnist(folder)
    if paths is None:
        raise InputError(
            f"{folder} holds no MNIST: looked there, in raw and in MNIST/raw for "
            f"{', '.join(MNIST_FILES.values())} (or .gz)"
        )
    arrays = []
    for part in ("train", "test"):
        images_path, labels_path = paths[f"{part}_images"], paths[f"{part}_labels"]
        images, labels = read_idx_images(images_path), read_idx_labels(labels_path)
        if len(images) != len(labels):
            raise InputError(
                f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels"
            )
        arrays += [images, labels]
    return tuple(arrays)


def read_idx_images(path):
    """Return the images in `path` as an array of shape (N, 28, 28), uint8."""
    sizes, data = _read(path, IMAGES_MAGIC, dimensions=3)
    return data.reshape(sizes)


def read_idx_labels(path):
    """Return the labels in `path` as an array of shape (N,), uint8, 0 to 9."""
    _, labels = _read(path, LABELS_MAGIC, dimensions=1)
    if labels.max() >= CLASSES:
        index = int(np.argmax(labels >= CLASSES))
        raise InputError(f"{path}: label {index} is {labels[index]}, expected 0 to {CLASSES - 1}")
    return labels


def write_idx(path, array):
    """Write a uint8 `array` of any shape to `path`."""
    if array.dtype != np.uint8:
        raise TypeError(f"expected an array of uint8, got {array.dtype}")
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    write_bytes(path, header + array.tobytes())


def as_rows(images, labels):
    """Return images (N, 28, 28) and labels (N,) as `MNIST_MLP.train_data` has them."""
    rows = images.reshape(len(images), -1)  # (N, 28, 28) -> (N, 784)
    return np.column_stack([rows, labels])  # (N, 784) and (N,) -> (N, 785)


def shift_pictures(pictures, largest, rng):
    """Return the pictures (N, 784), each moved by up to `largest` pixels along both axes.

    Each picture gets a margin of paper (0), then a random window of the old size is cut out. What
    leaves the window is lost.
    """
    count = len(pictures)
    margin = (largest, largest)
    padded = np.pad(pictures.reshape(count, SIDE, SIDE), ((0, 0), margin, margin))
    # a view of all P x P windows, P = 2 largest + 1: (N, 27 + P, 27 + P) -> (N, P, P, 28, 28)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    row, column = rng.integers(0, 2 * largest, size=(2, count), endpoint=True)
    return windows[np.arange(count), row, column].reshape(count, -1)  # (N, 28, 28) -> (N, 784)


def read_parameters(path):
    """Return {"w1": array, "b1": array, ...} from the npz file `path`; shapes are not checked."""
    with read_npz(path, "file of parameters") as arrays:
        names = PARAMETERS if "w4" in arrays else PARAMETERS[:6]
        for name in names:
            if name not in arrays:
                raise FormatError(f"holds no {name}; expected {', '.join(names)}")
        return {name: arrays.floats(name) for name in names}


def write_parameters(path, layers):
    """Write the (weight, bias) of each of `layers` to `path`, for `read_parameters`."""
    parameters = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        parameters |= {f"w{number}": finite_float32(weight), f"b{number}": finite_float32(bias)}
    if any(array is None for array in parameters.values()):
        raise InputError(f"{path} is not written: some parameters are no finite numbers")
    write_npz(path, parameters, "the parameters")


def architecture(parameters):
    """Return the model of `read_parameters`, "mlp" or "cnn", and the sizes of its hidden layers."""
    model = "cnn" if "w4" in parameters else "mlp"
    return model, [parameters[name].size for name in HIDDEN_BIASES[model]]


def _read(path, magic, dimensions):
    """Return the sizes and the flat uint8 data of an IDX file, after checking all of it."""
    with input_file(path, "MNIST file") as file:
        compressed = file.read(2) == GZIP_START  # an IDX file starts with two zeros
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if compressed else file
        try:
            header = stream.read(4 * (1 + dimensions))
            sizes = _sizes(header, magic, dimensions)
            count = prod(sizes)
            if compressed and count > most_unpacked(os.fstat(file.fileno()).st_size):
                raise FormatError(f"is too small to unpack to {count:,} bytes")
            content = stream.read(count + 1)  # one more, to see whether there is more
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(f"has compressed data, damaged or cut off ({error})") from error
        has, expected = len(header) + len(content), len(header) + count
        if has < expected:
            raise FormatError(f"is cut short: it has {has} bytes, expected {expected}")
        if has > expected:
            raise FormatError(f"is too long: expected {expected} bytes")
    return sizes, np.frombuffer(content, dtype=np.uint8)


def _sizes(header, magic, dimensions):
    """Return the sizes in an IDX header, checked."""
    if len(header) < 4 * (1 + dimensions):
        raise FormatError(f"is cut short: it has {len(header)} bytes, its header alone needs more")
    found, count, *sides = np.frombuffer(header, dtype=">u4").tolist()
    if found != magic:
        kind = {IMAGES_MAGIC: "images", LABELS_MAGIC: "labels"}
        raise FormatError(
            f"does not hold MNIST {kind[magic]}: its magic number is {found}"
            f"{f' (that of {kind[found]})' if found in kind else ''}, expected {magic}"
        )
    if not 1 <= count <= MAX_COUNT:
        raise FormatError(f"has a count of {count} in its header, expected 1 to {MAX_COUNT}")
    if any(side != SIDE for side in sides):
        raise FormatError(f"holds pictures of {sides[0]} x {sides[1]} pixels, expected 28 x 28")
    return (count, *sides)

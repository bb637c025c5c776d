"""The bounded reader of MATLAB files, held against SciPy's on files that SciPy writes."""

import io
import re
import struct
import time
import zlib

import numpy as np
import psutil
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from support import matlab
from support.matlab import read_variables

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]

numbers = hnp.arrays(
    st.sampled_from(DTYPES), hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)
)
texts = st.text(st.characters(codec="latin-1", exclude_characters="\0"), min_size=1, max_size=9)
names = st.text("abcXYZ_", min_size=1, max_size=8).filter(lambda name: name[0] != "_")
values = st.recursive(
    numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def for_scipy(value):
    """Return a value as SciPy writes it: cell arrays are arrays of objects."""
    if isinstance(value, dict):
        return {name: for_scipy(field) for name, field in value.items()}
    if isinstance(value, list):
        cells = np.empty((1, len(value)), dtype=object)
        for i, item in enumerate(value):
            cells[0, i] = for_scipy(item)
        return cells
    return value


def from_scipy(value):
    """Return what SciPy has read in the form of `read_variables`."""
    if value.dtype.names:
        fields = [{n: from_scipy(s[n]) for n in value.dtype.names} for s in value.ravel("F")]
        return fields[0] if len(fields) == 1 else fields
    if value.dtype == object:
        return [from_scipy(cell) for cell in value.ravel("F")]
    return str(value[0]) if value.dtype.kind == "U" and value.size == 1 else value


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert list(found) == list(expected)
        for name in found:
            assert_equal(found[name], expected[name])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_equal(*pair)
    elif isinstance(found, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def mat_file(variables, compress=False):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compress)
    return file


def element(kind, data, order="<"):
    """Return an element with its tag and padding."""
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind, shape, *parts, name=b"layers", flags=0, order="<"):
    """Return the element of an array of a class."""
    data = element(6, struct.pack(f"{order}II", kind | flags, 0), order)
    data += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, data + element(1, name, order) + b"".join(parts), order)


def read(*elements, most_cells=None, header=HEADER):
    return read_variables(io.BytesIO(header + b"".join(elements)), ["layers"], most_cells)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, values, min_size=1, max_size=3), st.booleans())
def test_files_of_scipy_are_read_as_scipy_reads_them(variables, compress):
    variables = {name: for_scipy(value) for name, value in variables.items()}
    file = mat_file(variables, compress)
    expected = scipy.io.loadmat(file, variable_names=list(variables), chars_as_strings=True)
    found = read_variables(file, list(variables))
    assert set(found) == set(variables)
    for name in variables:
        assert_equal(found[name], from_scipy(expected[name]))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("rows", [3, 70_000])
def test_large_arrays_come_in_several_blocks(monkeypatch, rows, compress):
    monkeypatch.setattr(matlab, "BLOCK", 1 << 16)
    values = np.random.default_rng(0).integers(0, 9, (rows, 2, 1, 11)).astype(np.float32)
    (found,) = read_variables(mat_file({"x": values}, compress), ["x"]).values()
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, values)


def test_other_byte_order_and_kinds_of_numbers_and_texts():
    big = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    numbers = array(6, (1, 2), element(3, struct.pack(">2h", -2, 700), ">"), order=">")
    np.testing.assert_array_equal(read(numbers, header=big)["layers"], [[-2.0, 700.0]])
    for kind, encoding, text in ((16, "utf-8", "é图"), (17, "utf-16-le", "é图"),
                                 (18, "utf-32-le", "é图"), (4, "utf-16-le", "é"),
                                 (2, "latin-1", "é")):  # fmt: skip
        content = element(kind, text.encode(encoding))
        assert read(array(4, (1, len(text)), content)) == {"layers": text}


def test_only_the_first_cells_are_read():
    cells = [array(6, (1, 1), element(2, bytes([i]))) for i in range(5)]
    (found,) = read(array(1, (1, 5), *cells), most_cells=2).values()
    assert [cell.item() for cell in found] == [0, 1]


def test_what_has_no_numbers_is_left_out():
    """Sparse arrays, objects, functions, texts of several rows, complex numbers."""
    for kind in (3, 5, 16, 17):
        assert read(array(kind, (1, 1), b"16 bytes of data")) == {"layers": None}
    assert read(array(4, (2, 3), element(1, b"adbecf"))) == {"layers": None}
    assert read(array(6, (1, 1), element(2, b"\1"), flags=0x800)) == {"layers": None}


NUMBER = array(6, (1, 1), element(2, b"\1"))


@pytest.mark.parametrize(("content", "reason"), [
    (array(6, (1, 1), struct.pack("<HH4s", 2, 9, b"\1")), "9 bytes of type 2 for shape"),
    (array(4, (1, 9), struct.pack("<HH4s", 16, 9, b"\1")), "exceeds"),
    (array(6, (3, 1), element(2, b"\1")), "1 bytes of type 2 for shape"),
    (array(6, (-1, -1), element(2, b"\1")), "shape"),
    (array(6, (1,), element(2, b"\1")), "shape"),
    (array(6, (1, 1), element(11, b"\1")), "type 11"),
    (array(6, (65536, 65536, 65536, 65536), element(2, b"")), "0 bytes"),
    (array(6, (2**31 - 1, 2), element(9, b"")), "0 bytes"),
    (array(1, (2**31 - 1, 2**31 - 1)), "cells"),
    (array(1, (1, 90_000)), "exceeds"),
    (array(2, (1, 90_000), element(5, b"\1\0\0\0"), element(1, b"")), None),
    (array(2, (1, 1), element(5, b"\0\0\0\0"), element(1, b"a")), "itemsize"),
    (array(2, (1, 1), element(5, b"\xff\xff\xff\xff"), element(1, b"a")), "itemsize"),
    (array(2, (1, 1), element(5, b"\1\0"), element(1, b"a")), "bytes"),
    (array(4, (1, 1), element(9, bytes(8))), "in place of a text"),
    (array(4, (1, 1), element(16, b"\xff")), "decode"),
    (array(4, (1, 1), element(18, b"\xff\xff\xff\xff")), "decode"),
    (array(1, (1, 1), element(2, b"\1")), "in place of an array"),
    (element(9, bytes(8)), "in place of a variable"),
    (NUMBER + NUMBER, "twice"),
    (NUMBER[:-9], "exceeds|early"),
    (NUMBER[:4], "exceeds|early"),
    (struct.pack("<II", 15, 5) + b"rubb", "exceeds"),
    (element(15, b"rubbish"), "decompressing"),
    (element(15, zlib.compress(NUMBER)[:-9]), "ends within"),
    (element(15, zlib.compress(NUMBER + bytes(8))), "too many"),
], ids=str)  # fmt: skip
def test_damage_is_an_error(content, reason):
    try:
        found = read(content)
    except (ValueError, zlib.error, struct.error) as error:
        assert reason and re.search(reason, str(error)), error
    else:
        assert reason is None and found == {"layers": [{}] * 90_000}


def test_deep_nesting_ends():
    content = NUMBER
    for _ in range(3000):
        content = array(1, (1, 1), content)
    with pytest.raises(ValueError, match="nested too deeply"):
        read(content)


def test_a_changed_checksum_is_found():
    packed = bytearray(zlib.compress(NUMBER))
    packed[-1] ^= 1
    with pytest.raises(zlib.error, match="incorrect data check"):
        read(element(15, bytes(packed)))


@pytest.mark.parametrize("what", ["numbers", "cells", "after"])
def test_a_small_file_does_not_unpack_to_gigabytes(what):
    """8 GB in 8 MB: refused at the stated lengths, or where the data exceed them."""
    packer, size = zlib.compressobj(9), (100 << 20) if what == "cells" else (1 << 32) - 8
    start = element(6, bytes([9, 0, 0, 0, 0, 0, 0, 0]))
    start += element(5, struct.pack("<2i", 1, size // 2)) + element(1, b"layers")
    start += struct.pack("<II", 2, size // 2)
    if what == "cells":
        start = array(1, (1, 99_999))[8:]
    first = NUMBER if what == "after" else struct.pack("<II", 14, size - 1) + start
    block = packer.compress(first) + packer.compress(bytes(1 << 20)) + packer.flush(2)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(2)
    content = element(15, block + zeros * 8000)
    process, began = psutil.Process(), time.process_time()
    before = process.memory_info().rss
    with pytest.raises(ValueError, match=r"exceeds|too many|in place of an array"):
        read(content)
    assert time.process_time() - began < 5
    assert process.memory_info().rss - before < 100e6

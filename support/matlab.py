"""Reads MATLAB files of format 5, from any source.

SciPy's reader can crash the interpreter on a damaged file. This one reads what weights files hold:
numbers, texts, cell arrays and structs, compressed or not. It compares every length with what is
left of the part around it, and a small file cannot take much memory. Arrays are converted to C
order piece by piece, so that a large one is never in memory twice.

The format (The MathWorks, "MAT-File Format"): after a header of 128 bytes come *elements*, each a
tag of 8 bytes (type, length) and data, padded to a multiple of 8 bytes. The data of an array are
elements again: flags, dimensions and name, then its numbers, cells or fields.
"""

import io
import math
import struct
import zlib

import numpy as np

from support.files import most_unpacked

HEADER = 128  # bytes; the last two tell the byte order
MATRIX, COMPRESSED = 14, 15  # types of elements; the other types hold numbers:
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8", 16: "u1", 17: "u2", 18: "u4"}  # fmt: skip
TEXTS = {1: "latin-1", 2: "latin-1", 16: "utf-8"}  # and in the file's byte order:
WIDE_TEXTS = {4: "utf-16", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR = 1, 2, 4  # classes of arrays; the classes of numbers:
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8",
           15: "u8"}  # fmt: skip
COMPLEX = 0x800  # a flag

MOST_ELEMENTS, MOST_DEPTH = 100_000, 20  # of one variable; those of VGG-19 have about 10,000
BLOCK = 1 << 22  # bytes of an array that are converted at once: they stay in the cache


def read_variables(file, names, most_cells=None):
    """Return variables of an open MATLAB file by name.

    Only those in `names` are read, and at most `most_cells` cells of each; the rest is skipped. A
    ValueError, zlib.error or struct.error says that the file is damaged.

    Returns
    -------
    dict
        A variable is an ndarray, a str, a list (cell array, in MATLAB's order), a dict (struct), a
        list of dicts (array of structs), or None (anything else).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(HEADER - 2)
    order = {b"IM": "<", b"MI": ">"}.get(file.read(2))
    if order is None:
        raise ValueError("it has a damaged header")
    variables, position = {}, HEADER
    while position < size:
        file.seek(position)
        reader = _Reader(file, order, size - position, most_cells)
        kind, length, _ = reader.tag(reader.end)
        position += 8 + length
        if kind == COMPRESSED:
            unpacked = io.BufferedReader(_Inflated(file, length), 1 << 16)
            reader = _Reader(unpacked, order, most_unpacked(size), most_cells)
            kind, length, _ = reader.tag(reader.end)
        if kind != MATRIX:
            raise ValueError(f"it has an element of type {kind} in place of a variable")
        end = reader.position + length
        name, value = reader.array(end, names)
        if name in variables:
            raise ValueError(f"it has the variable {name!r} twice")
        if name in names:
            variables[name] = value
            if reader.stream is not file:  # to its end, where the checksum is
                reader.skip(end)
                if reader.stream.read(1):
                    raise ValueError("it has too many data in a compressed variable")
    return variables


class _Inflated(io.RawIOBase):
    """What a compressed part of a file unpacks to."""

    def __init__(self, file, length):
        self.file = file
        self.left = length  # bytes to read
        self.inflater = zlib.decompressobj()

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.inflater.eof:
            packed = self.inflater.unconsumed_tail or self.file.read(min(self.left, 1 << 16))
            self.left -= 0 if self.inflater.unconsumed_tail else len(packed)
            part = self.inflater.decompress(packed, len(buffer))
            if part:
                buffer[: len(part)] = part
                return len(part)
            if not packed:
                raise ValueError("it ends within compressed data")
        return 0


class _Reader:
    """Reads the elements of one variable from a stream. `end` is always where a part ends."""

    def __init__(self, stream, order, end, most_cells):
        self.stream = stream
        self.order = order  # "<" or ">"
        self.end = end
        self.most_cells = most_cells
        self.position = 0
        self.elements = 0

    def bytes(self, count, end):
        if not 0 <= count <= end - self.position:
            raise ValueError("it has a length that exceeds the part around it")
        data = self.stream.read(count)
        if len(data) < count:
            raise ValueError("it ends early")
        self.position += count
        return data

    def skip(self, end):
        while self.position < end:
            self.bytes(min(1 << 20, end - self.position), end)

    def tag(self, end):
        """Return type and length of the next element, and the number of bytes that pad it."""
        self.elements += 1
        if self.elements > MOST_ELEMENTS:
            raise ValueError(f"it has a variable of more than {MOST_ELEMENTS:,} elements")
        (kind,) = struct.unpack(f"{self.order}I", self.bytes(4, end))
        if length := kind >> 16:  # of 1 to 4 bytes: all is in the 8 bytes of the tag
            return kind & 0xFFFF, length, 4 - length
        (length,) = struct.unpack(f"{self.order}I", self.bytes(4, end))
        if length > end - self.position:
            raise ValueError("it has a length that exceeds the part around it")
        return kind, length, min(-length % 8, end - self.position - length)

    def element(self, end):
        """Return type and data of the next element, which is not long."""
        kind, length, padding = self.tag(end)
        data = self.bytes(length, end)
        self.bytes(padding, end)
        return kind, data

    def array(self, end, names=None, depth=0):
        """Return name and value of an array whose tag was read; no value if not in `names`."""
        if depth > MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        if self.position == end:
            return "", np.empty((0, 0))
        _, flags = self.element(end)
        flags = struct.unpack_from(f"{self.order}I", flags)[0]
        shape = np.frombuffer(self.element(end)[1], f"{self.order}i4").tolist()
        name = self.element(end)[1].decode("latin-1")
        if names is not None and name not in names:
            return name, None
        count = math.prod(shape)
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"it has an array of shape {tuple(shape)}")
        kind, value = flags & 0xFF, None
        if kind in (CELL, STRUCT) and count > MOST_ELEMENTS:
            raise ValueError(f"it has {count:,} cells")
        if kind == CELL:
            few = count if depth or self.most_cells is None else min(count, self.most_cells)
            value = [self.value(end, depth) for _ in range(few)]
            if few < count:
                return name, value
        elif kind == STRUCT:
            value = self.structs(end, count, depth)
        elif kind == CHAR:
            value = self.text(end) if shape[0] <= 1 else None
        elif kind in CLASSES and not flags & COMPLEX:
            value = self.numbers(end, shape, CLASSES[kind])
        self.skip(end)
        return name, value

    def value(self, end, depth):
        """Return the array in a cell or field."""
        kind, length, _ = self.tag(end)
        if kind != MATRIX:
            raise ValueError(f"it has an element of type {kind} in place of an array")
        return self.array(self.position + length, None, depth + 1)[1]

    def structs(self, end, count, depth):
        (width,) = struct.unpack(f"{self.order}i", self.element(end)[1])
        names = np.frombuffer(self.element(end)[1], (np.bytes_, width)).tolist()
        fields = [name.split(b"\0")[0].decode("latin-1") for name in names]
        structs = [{f: self.value(end, depth) for f in fields} for _ in range(count)]
        return structs[0] if count == 1 else structs

    def text(self, end):
        kind, data = self.element(end)
        if kind in WIDE_TEXTS:
            return data.decode(WIDE_TEXTS[kind] + {"<": "-le", ">": "-be"}[self.order])
        if kind not in TEXTS:
            raise ValueError(f"it has an element of type {kind} in place of a text")
        return data.decode(TEXTS[kind])

    def numbers(self, end, shape, dtype):
        """Return an array in C order; in the file, the first axis is the fastest."""
        kind, length, padding = self.tag(end)
        stored = np.dtype(self.order + NUMBERS.get(kind, "V0"))
        if math.prod(shape) * stored.itemsize != length or kind not in NUMBERS:
            raise ValueError(f"it has {length:,} bytes of type {kind} for shape {tuple(shape)}")
        array = np.empty(shape, dtype)
        column = math.prod(shape[:-1]) * stored.itemsize
        step = max(1, BLOCK // max(1, column))
        with np.errstate(all="ignore"):
            for start in range(0, shape[-1] if length else 0, step):
                part = array[..., start : start + step]
                content = self.bytes(part.size * stored.itemsize, end)
                part[...] = np.frombuffer(content, stored).reshape(part.shape, order="F")
        self.bytes(padding, end)
        return array

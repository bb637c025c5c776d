"""Makes picture files byte by byte, in variants that no writer at hand makes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from support.decoding import ADAM7

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour


def chunk(kind, data, good=True):
    """Return a PNG chunk, with a wrong checksum if not `good`."""
    checksum = zlib.crc32(kind + data) ^ (not good)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def packed(samples, depth, order=">"):
    """Return rows of samples (H, W * channels) as bytes, each row padded to a whole byte."""
    samples = np.asarray(samples)
    if depth == 16:
        return [row.astype(f"{order}u2").tobytes() for row in samples]
    if depth == 12:
        bits = (samples[..., np.newaxis] >> np.arange(11, -1, -1)) & 1
    else:
        bits = (samples[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1)).tobytes() for row in bits]


def png(samples, depth, colour, before=(), after=(), interlaced=False, rows=None, data=None):
    """Return a PNG file.

    Parameters
    ----------
    samples : array of shape (H, W, channels)
    depth, colour : int
        As in the header.
    before, after : sequence of bytes
        Chunks before and after the pixels.
    rows : int, optional
        How many rows of pixels the file really has.
    data : bytes, optional
        In place of the compressed pixels.
    """
    samples = np.asarray(samples)
    height, width, channels = samples.shape
    assert channels == PNG_CHANNELS[colour]
    passes = ADAM7 if interlaced else ((0, 1, 0, 1),)
    lines = []
    for left, right_step, top, down_step in passes:
        part = samples[top::down_step, left::right_step]
        if part.size:
            lines += packed(part.reshape(len(part), -1), depth)
    content = b"".join(b"\0" + line for line in lines[:rows])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = zlib.compress(content) if data is None else data
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(samples, depth, photometric, order="<", planes=1, tags=(), compressed=False):
    """Return a TIFF file of samples (H, W, channels); `tags` is {number: (type, values)}."""
    samples = np.asarray(samples)
    height, width, channels = samples.shape
    parts = [samples] if planes == 1 else [samples[:, :, i : i + 1] for i in range(channels)]
    strips = [b"".join(packed(part.reshape(height, -1), depth, order)) for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    places, content = [], b""
    for strip in strips:
        places.append(8 + len(content))
        content += strip + bytes(len(strip) % 2)
    short, long = 3, 4
    entries = {
        256: (long, [width]), 257: (long, [height]), 258: (short, [depth] * channels),
        259: (short, [8 if compressed else 1]), 262: (short, [photometric]), 273: (long, places),
        277: (short, [channels]), 278: (long, [height]), 279: (long, list(map(len, strips))),
        284: (short, [planes]), **dict(tags),
    }  # fmt: skip
    start = 8 + len(content)
    beyond = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for number, (kind, numbers) in sorted(entries.items()):
        data = struct.pack(f"{order}{len(numbers)}{'?BBHI'[kind]}", *numbers)
        if len(data) > 4:
            place, values = struct.pack(f"{order}I", beyond + len(values)), values + data
        else:
            place = data.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", number, kind, len(numbers)) + place
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return magic + struct.pack(f"{order}I", start) + content + directory + bytes(4) + values


def bmp(pixels, bits, palette=b"", masks=b"", compression=0, top_down=False):
    """Return a BMP file of rows of bytes, from bottom to top unless `top_down`."""
    height, width = len(pixels), 2
    header = struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits,
                         compression, 0, 2835, 2835, len(palette) // 4, 0)  # fmt: skip
    start = 14 + len(header) + len(masks) + len(palette)
    content = b"".join(row + bytes(-len(row) % 4) for row in pixels)
    size = start + len(content)
    return struct.pack("<2sIHHI", b"BM", size, 0, 0, start) + header + masks + palette + content


def saved(image, file_format, **options):
    """Return the file that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gif(canvas, frame, indices, palette, transparent=None, background=0):
    """Return a GIF file whose one frame (left, top, width, height) is in a canvas of some size."""
    left, top, width, height = frame
    image = Image.new("P", (width, height))
    image.putdata(list(indices))
    content = bytearray(saved(image, "GIF", optimize=False))
    start = content.index(b",\0\0\0\0")
    data = bytes(content[start + 10 :])
    if content[start + 9] & 0x80:  # a palette of the frame
        data = data[3 * 2 ** ((content[start + 9] & 7) + 1) :]
    colours = bytes(palette).ljust(12, b"\0")
    header = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, background, 0) + colours
    control = b"" if transparent is None else b"!\xf9\4\1\0\0" + bytes([transparent]) + b"\0"
    return header + control + struct.pack("<BHHHHB", 44, left, top, width, height, 0) + data

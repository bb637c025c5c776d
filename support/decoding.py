"""Opens picture files with Pillow, and mends what it reads differently from a browser.

PNG files are reduced to the chunks that make the picture, so that a text of any size or a damaged
one does no harm, and pixel data that end early are noticed.
"""

import io
import os
import struct
import zlib
from contextlib import contextmanager, nullcontext, suppress

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from support.command import InputError

LONGEST_SIDE = 1_000_000  # pixels; more is damage, and each row costs memory of its own

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # if one of these is damaged, so is the picture
PNG_CHUNKS = (*PNG_CRITICAL, b"tRNS", b"gAMA", b"sRGB", b"iCCP", b"eXIf")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour
# Start and step of columns and rows in the seven passes of an interlaced PNG.
ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
         (0, 1, 1, 2))  # fmt: skip
DEFLATE_RATIO = 1032  # the most that deflate can shrink data
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 25  # bytes; also for colour profiles, which can have megabytes

# Two ends of a JPEG file whose data would stop: what depends on them was missing.
JPEG_ENDS = (b"\0" * 64 + b"\xff\xd9", b"\xaa" * 64 + b"\xff\xd9")

BITS, PHOTOMETRIC, EXTRA, PLANES = 258, 262, 338, 284  # tags of TIFF
FILL_ORDER, SAMPLE_FORMAT, SUBSAMPLING = 266, 339, 530
YCBCR = 6  # a value of PHOTOMETRIC

# Forms of grey TIFF that Pillow before 13 does not know: with something beside it, or multiplied.
for order in (b"II", b"MM"):
    for extra, mode in ((0, "LA"), (1, "La")):
        form = (order, 1, (1,), 1, (8, 8), (extra,))
        TiffImagePlugin.OPEN_INFO.setdefault(form, (mode, mode))


def decode(file, formats):
    """Return the Pillow image in an open file, loaded, its first frame.

    In its ``info``, "white" is the value of white in 16-bit pixels, 65535 if missing, and
    "negative" is True if 0 is white.
    """
    start = file.read(len(PNG_START))
    file.seek(0)
    if not start:
        raise InputError("the file is empty")
    if start == PNG_START:
        content, header, pixels = _essential_png(file)
        file = io.BytesIO(content)
    with _quiet_libtiff() if start[:2] in (b"II", b"MM") else nullcontext():
        image = Image.open(file, formats=formats)
        if max(image.size) > LONGEST_SIDE:
            raise InputError(f"it is {image.width} x {image.height} pixels; give a smaller picture")
        if start == PNG_START:
            _check_png_pixels(header, pixels)
        mend = {"PNG": _png, "TIFF": _tiff, "GIF": _gif, "JPEG": _jpeg, "MPO": _jpeg}
        if image.format in mend:
            return mend[image.format](image, file)
        image.load()
    return image


@contextmanager
def _quiet_libtiff():
    """Let libtiff, which writes to the process's standard error itself, write nothing."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _essential_png(file):
    """Return a PNG file with only the chunks that make the picture; its header and pixel data."""
    content, header, pixels = [PNG_START], b"", []
    file.seek(len(PNG_START))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind not in PNG_CHUNKS:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data, checksum = file.read(length), file.read(4)
        if kind in PNG_CRITICAL or checksum == struct.pack(">I", zlib.crc32(kind + data)):
            content += [start, data, checksum]
        if kind == b"IHDR":
            header = data
        elif kind == b"IDAT":
            pixels.append(data)
        elif kind == b"IEND":
            break
    return b"".join(content), header, pixels


def _check_png_pixels(header, parts):
    """Raise ValueError if the compressed pixels of a PNG unpack to fewer bytes than it has."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    passes = ADAM7 if interlaced else ((0, 1, 0, 1),)
    expected = 0
    for left, right_step, top, down_step in passes:
        columns, rows = -(-(width - left) // right_step), -(-(height - top) // down_step)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * depth * PNG_CHANNELS.get(colour, 0) + 7) // 8)
    unpacked, inflater = 0, zlib.decompressobj()
    if expected <= DEFLATE_RATIO * sum(map(len, parts)):
        with suppress(zlib.error):  # Pillow reports it, or the rest is not needed
            for part in parts:
                while part and unpacked < expected:
                    unpacked += len(inflater.decompress(part, 1 << 20))
                    part = inflater.unconsumed_tail
            if unpacked < expected:  # else the rest is not needed: it may be gigabytes
                unpacked += len(inflater.flush())
    if unpacked < expected:
        raise ValueError(f"its pixels end early, after {unpacked:,} of {expected:,} bytes")


def _png(image, file):
    raw_mode, clear = image.tile[0].args, image.info.get("transparency")
    image.load()
    if raw_mode in ("L;2", "L;4") and clear is not None:  # Pillow scales the pixels alone
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[raw_mode]
    if raw_mode == "RGB;16B" and clear is not None:  # Pillow reads the high bytes of the pixels
        low = Image.open(file, formats=["PNG"])
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        low.load()
        high, low = np.asarray(image), np.asarray(low)
        opaque = (high != np.array(clear) // 256) | (low != np.array(clear) % 256)
        image.putalpha(Image.fromarray(opaque.any(axis=2).astype(np.uint8) * 255))
        del image.info["transparency"]
    return image


def _tiff(image, file):
    tags = image.tag_v2
    bits, plain = tags.get(BITS, (1,)), image.tile[0].codec_name != "libtiff"
    if plain and tags.get(PHOTOMETRIC) == YCBCR and tags.get(SUBSAMPLING) != (1, 1):
        raise InputError("Pillow cannot read its subsampled colours; save it as PNG")
    if plain and tags.get(PLANES) == 2:
        # Pillow takes one letter of the raw mode for each plane and forgets the depth.
        key = (tags.prefix, tags[PHOTOMETRIC], tags.get(SAMPLE_FORMAT, (1,))[:1],
               tags.get(FILL_ORDER, 1), bits, tags.get(EXTRA, ()))  # fmt: skip
        raw_mode = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))[1]
        depth = raw_mode.partition(";")[1:]
        for i, tile in enumerate(image.tile):
            name = raw_mode if len(bits) == 1 else "".join((tile.args[0], *depth))
            image.tile[i] = tile._replace(args=(name, *tile.args[1:]))
    rgb_of_ycbcr = plain and tags.get(PHOTOMETRIC) == YCBCR and image.mode == "RGB"
    if rgb_of_ycbcr:  # Pillow before 13 takes one for the other
        image.tile = [tile._replace(args=("RGB", *tile.args[1:])) for tile in image.tile]
    image.load()
    if rgb_of_ycbcr:
        image, info = Image.merge("YCbCr", image.split()), image.info
        image.info = info
    if image.mode == "LA" and tags.get(EXTRA) == (0,):
        image.putalpha(255)  # what is beside the grey is no opacity
    if image.mode.startswith("I;16"):
        image.info["white"] = (1 << bits[0]) - 1
        image.info["negative"] = tags.get(PHOTOMETRIC) == 0
    return image


def _gif(image, file):
    frame = image.tile[0].extents
    image.load()
    if frame == (0, 0, *image.size):
        return image
    rgba = image.convert("RGBA").crop(frame)  # nothing is around the frame
    canvas = Image.new("RGBA", image.size)
    canvas.paste(rgba, frame[:2])
    canvas.info = {k: v for k, v in image.info.items() if k != "transparency"}
    return canvas


def _jpeg(image, file):
    """Load a JPEG; one without its end mark is whole if no pixel depends on what comes after.

    A progressive one never is: whether scans are missing cannot be known.
    """
    try:
        image.load()
        return image
    except OSError:
        if "progressive" in image.info:
            raise
        file.seek(0)
        content = file.read().rstrip(b"\xff")  # the first half of the end mark
        images = [Image.open(io.BytesIO(content + end), formats=["JPEG"]) for end in JPEG_ENDS]
        first, second = (np.asarray(image) for image in images)
        if not np.array_equal(first, second):
            raise
        return images[0]

"""Variants of picture files that people have, and the pixels that a browser or viewer shows.

Each file is made here. A pixel is one number for grey or three; white stands behind transparency.
"""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers.picture_files import bmp, chunk, gif, packed, png, saved, tiff
from PIL import Image, ImageCms

from support.command import InputError
from support.pictures import read_picture

W = 255
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # types of colour of a PNG
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = [[[10, 200, 30], [250, 0, 128]]]
WIDE = [[[2570, 51400, 7710], [64250, 0, 32896]]]  # the same times 257
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# the same curve with a very long name: more than 1 MB, as some profiles of printers have
LARGE = PROFILE[:128] + PROFILE[128:] + bytes(3 << 20)


def transparent(*values):
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def text(size, good=True):
    return chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(size)), good)


def palette(*colours):
    return chunk(b"PLTE", bytes(colours))


TWO = palette(1, 2, 3, 4, 5, 6)
PNGS = {
    "grey 1": (png([[[0], [1]]], 1, GREY), [0, W]),
    "grey 2": (png([[[0], [1], [3]]], 2, GREY), [0, 85, W]),
    "grey 4": (png([[[0], [7], [15]]], 4, GREY), [0, 119, W]),
    "grey 16": (png([[[0], [257], [65535]]], 16, GREY), [0, 1, W]),
    "rgb 8": (png(COLOURS, 8, RGB), COLOURS[0]),
    "rgb 16": (png(WIDE, 16, RGB), COLOURS[0]),
    "palette 1": (png([[[1], [0]]], 1, PALETTE, [TWO]), [[4, 5, 6], [1, 2, 3]]),
    "palette 2": (png([[[1], [0]]], 2, PALETTE, [TWO]), [[4, 5, 6], [1, 2, 3]]),
    "palette 4": (png([[[1], [0]]], 4, PALETTE, [TWO]), [[4, 5, 6], [1, 2, 3]]),
    "grey alpha 8": (png([[[100, 51], [9, 255]]], 8, GREY_ALPHA), [224, 9]),
    "grey alpha 16": (png([[[25700, 13107], [2313, 65535]]], 16, GREY_ALPHA), [224, 9]),
    "rgba 16": (png([[[25700, 0, 0, 0], [0, 65535, 0, 65535]]], 16, RGBA), [W, [0, W, 0]]),
    # one transparent value, at every depth
    "clear 1": (png([[[0], [1]]], 1, GREY, [transparent(0)]), [W, W]),
    "clear 1, white": (png([[[0], [1]]], 1, GREY, [transparent(1)]), [0, W]),
    "clear 2": (png([[[0], [1], [2]]], 2, GREY, [transparent(1)]), [0, W, 170]),
    "clear 4": (png([[[0], [3], [4]]], 4, GREY, [transparent(3)]), [0, W, 68]),
    "clear 8": (png([[[0], [3], [4]]], 8, GREY, [transparent(3)]), [0, W, 4]),
    "clear 16": (png([[[0], [771], [772]]], 16, GREY, [transparent(771)]), [0, W, 3]),
    "clear rgb 8": (png(COLOURS, 8, RGB, [transparent(250, 0, 128)]), [COLOURS[0][0], W]),
    "clear rgb 16": (png(WIDE, 16, RGB, [transparent(64250, 0, 32896)]), [COLOURS[0][0], W]),
    "clear rgb 16, near": (png(WIDE, 16, RGB, [transparent(64250, 1, 32896)]), COLOURS[0]),
    "clear palette": (
        png([[[1], [0]]], 4, PALETTE, [palette(1, 2, 3, 4, 5, 6), chunk(b"tRNS", b"\0")]),
        [[4, 5, 6], W],
    ),
    # gamma
    "gamma 1": (png([[[128], [0], [255], [3]]], 8, GREY, [gamma(1)]), [188, 0, 255, 28]),
    "gamma 1, rgb": (png([[[128, 0, 255]]], 8, RGB, [gamma(1)]), [[188, 0, 255]]),
    "gamma 1, palette": (png([[[0]]], 8, PALETTE, [gamma(1), palette(128, 0, 255)]), [[188, 0, W]]),
    "gamma 1, alpha": (png([[[128, 128]]], 8, GREY_ALPHA, [gamma(1)]), [221]),
    "gamma 1, grey 16": (png([[[32896]]], 16, GREY, [gamma(1)]), [188]),
    "gamma 1/2.2": (png([[[128]]], 8, GREY, [gamma(0.45455)]), [128]),
    "gamma 1/1.8": (png([[[128]]], 8, GREY, [gamma(0.55556)]), [147]),
    "gamma 0": (png([[[128]]], 8, GREY, [gamma(0)]), [128]),
    "gamma and sRGB": (png([[[128]]], 8, GREY, [chunk(b"sRGB", b"\0"), gamma(1)]), [128]),
    "gamma, damaged": (png([[[128]]], 8, GREY, [chunk(b"gAMA", bytes(4), good=False)]), [128]),
    # side chunks: of any size, or damaged
    "text of 3 MB": (png([[[7]]], 8, GREY, [text(3 << 20)]), [7]),
    "texts of 100 MB": (png([[[7]]], 8, GREY, [text(20 << 20)] * 5, [text(20 << 20)]), [7]),
    "text, wrong checksum": (png([[[7]]], 8, GREY, [text(9, good=False)]), [7]),
    "text after, wrong checksum": (png([[[7]]], 8, GREY, (), [text(9, good=False)]), [7]),
    "profile of 3 MB": (
        png(COLOURS, 8, RGB, [chunk(b"iCCP", b"p\0\0" + zlib.compress(LARGE))]), COLOURS[0],
    ),
    "profile, wrong checksum": (
        png(COLOURS, 8, RGB, [chunk(b"iCCP", b"p\0\0rubbish", good=False)]), COLOURS[0],
    ),
    "exif, wrong checksum": (png([[[7]]], 8, GREY, [chunk(b"eXIf", b"MM", good=False)]), [7]),
    "clear, wrong checksum": (png([[[7]]], 8, GREY, [chunk(b"tRNS", b"\0\7", good=False)]), [7]),
    "unknown chunk": (png([[[7]]], 8, GREY, [chunk(b"abCd", bytes(99))]), [7]),
    "more data than pixels": (
        png([[[7]]], 8, GREY, data=zlib.compress(b"\0\7" + bytes(99))), [7],
    ),
    "no end chunk": (png([[[7]]], 8, GREY)[:-12], [7]),
    "data after the end": (png([[[7]]], 8, GREY) + b"more", [7]),
}  # fmt: skip

SIGNED = {339: (3, [2])}
TIFFS = {
    "grey 1": (tiff([[[0], [1]]], 1, 1), [0, W]),
    "grey 1, negative": (tiff([[[0], [1]]], 1, 0), [W, 0]),
    "grey 2, negative": (tiff([[[0], [1]]], 2, 0), [W, 170]),
    "grey 4": (tiff([[[0], [7]]], 4, 1), [0, 119]),
    "grey 4, negative": (tiff([[[0], [7]]], 4, 0), [W, 136]),
    "grey 8, negative": (tiff([[[0], [7]]], 8, 0), [W, 248]),
    "grey 12": (tiff([[[0], [2048], [4095], [1024]]], 12, 1), [0, 128, W, 64]),
    "grey 16": (tiff([[[0], [32768], [65535]]], 16, 1), [0, 128, W]),
    "grey 16, big-endian": (tiff([[[0], [32768], [65535]]], 16, 1, ">"), [0, 128, W]),
    "grey 16, deflate": (tiff([[[0], [32768], [65535]]], 16, 1, compressed=True), [0, 128, W]),
    "grey 16, negative": (tiff([[[0], [257], [65535]]], 16, 0), [W, 254, 0]),
    "grey 16, negative, deflate": (tiff([[[0], [257]]], 16, 0, compressed=True), [W, 254]),
    "grey 8, own plane": (tiff([[[0], [7]]], 8, 1, planes=2), [0, 7]),
    "grey 8, negative, own plane": (tiff([[[0], [7]]], 8, 0, planes=2), [W, 248]),
    "grey 16, own plane": (tiff([[[0], [32768]]], 16, 1, planes=2), [0, 128]),
    "grey alpha": (tiff([[[100, 51]]], 8, 1, tags={338: (3, [2])}), [224]),
    "grey, multiplied by alpha": (tiff([[[20, 51]]], 8, 1, tags={338: (3, [1])}), [224]),
    "grey, more": (tiff([[[20, 51]]], 8, 1, tags={338: (3, [0])}), [20]),
    "rgb 8": (tiff(COLOURS, 8, 2), COLOURS[0]),
    "rgb 8, planes": (tiff(COLOURS, 8, 2, planes=2), COLOURS[0]),
    "rgb 8, planes, deflate": (tiff(COLOURS, 8, 2, planes=2, compressed=True), COLOURS[0]),
    "rgb 16": (tiff(WIDE, 16, 2), COLOURS[0]),
    "rgb 16, big-endian": (tiff(WIDE, 16, 2, ">"), COLOURS[0]),
    "rgb 16, planes": (tiff(WIDE, 16, 2, planes=2), COLOURS[0]),
    "rgb 16, planes, big-endian": (tiff(WIDE, 16, 2, ">", planes=2), COLOURS[0]),
    "rgb 16, planes, deflate": (tiff(WIDE, 16, 2, planes=2, compressed=True), COLOURS[0]),
    "rgb 16, planes, big-endian, deflate": (
        tiff(WIDE, 16, 2, ">", planes=2, compressed=True), COLOURS[0],
    ),
    "rgba": (tiff([[[9, 9, 9, 0], [1, 2, 3, 255]]], 8, 2, tags={338: (3, [2])}), [W, [1, 2, 3]]),
    "rgba, planes": (
        tiff([[[9, 9, 9, 0], [1, 2, 3, 255]]], 8, 2, planes=2, tags={338: (3, [2])}),
        [W, [1, 2, 3]],
    ),
    "rgba 16": (tiff([[[0, 65535, 0, 65535]]], 16, 2, tags={338: (3, [2])}), [[0, W, 0]]),
    "rgb, multiplied": (tiff([[[20, 20, 20, 51]]], 8, 2, tags={338: (3, [1])}), [224]),
    "palette": (
        tiff([[[1], [0]]], 4, 3, tags={320: (3, [0, 257] + [0] * 14 + [514] * 16 + [65535] * 16)}),
        [[1, 2, W], [0, 2, W]],
    ),
    "ycbcr": (tiff([[[99, 128, 128]]], 8, 6, tags={530: (3, [1, 1])}), [99]),
    "cmyk": (tiff([[[255, 0, 102, 0]]], 8, 5), [[0, 255, 153]]),
    "cmyk 16": (tiff([[[65535, 0, 26214, 0]]], 16, 5), [[0, 255, 153]]),
}  # fmt: skip

MASKS_565 = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
BMPS = {
    "palette 1": (bmp([b"\x40"], 1, bytes([1, 2, 3, 0, 4, 5, 6, 0])), [[3, 2, 1], [6, 5, 4]]),
    "palette 4": (bmp([b"\x01"], 4, bytes([1, 2, 3, 0, 4, 5, 6, 0])), [[3, 2, 1], [6, 5, 4]]),
    "palette 8": (bmp([b"\0\1"], 8, bytes([1, 2, 3, 0, 4, 5, 6, 0])), [[3, 2, 1], [6, 5, 4]]),
    "rgb 555": (bmp([struct.pack("<HH", 0x7C00, 0x03FF)], 16), [[W, 0, 0], [0, W, W]]),
    "rgb 565": (
        bmp([struct.pack("<HH", 0xF800, 0x07FF)], 16, b"", MASKS_565, 3), [[W, 0, 0], [0, W, W]],
    ),
    "rgb 24": (bmp([bytes([1, 2, 3, 4, 5, 6])], 24), [[3, 2, 1], [6, 5, 4]]),
    "rgb 32": (bmp([bytes([1, 2, 3, 0, 4, 5, 6, 0])], 32), [[3, 2, 1], [6, 5, 4]]),
    "top down": (bmp([bytes([1, 2, 3, 4, 5, 6])], 24, top_down=True), [[3, 2, 1], [6, 5, 4]]),
}  # fmt: skip

RED_GREEN = (255, 0, 0, 0, 200, 0)
GIFS = {
    "whole": (gif((2, 1), (0, 0, 2, 1), [0, 1], RED_GREEN), [[W, 0, 0], [0, 200, 0]]),
    "a frame on the right": (
        gif((3, 1), (1, 0, 2, 1), [0, 1], RED_GREEN), [W, [W, 0, 0], [0, 200, 0]],
    ),
    "a frame on the left": (gif((3, 1), (0, 0, 1, 1), [1], RED_GREEN), [[0, 200, 0], W, W]),
    "a frame with a clear colour": (
        gif((3, 1), (1, 0, 2, 1), [0, 1], RED_GREEN, transparent=0), [W, W, [0, 200, 0]],
    ),
    "a background colour, which browsers ignore": (
        gif((2, 1), (0, 0, 1, 1), [0], RED_GREEN, background=1), [[W, 0, 0], W],
    ),
}  # fmt: skip

WEBP_RGBA = np.array([[[200, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)
WEBPS = {
    "lossless": (saved(Image.fromarray(np.uint8(COLOURS)), "WEBP", lossless=True), COLOURS[0]),
    "alpha": (saved(Image.fromarray(WEBP_RGBA), "WEBP", lossless=True), [[200, 0, 0], W]),
}

GREY_JPEG = saved(Image.new("L", (8, 8), 90), "JPEG", quality=100)
CMYK_JPEG = saved(Image.new("CMYK", (8, 8), (255, 0, 102, 0)), "JPEG", quality=100)
JPEGS = {
    "grey": (GREY_JPEG, [90] * 8),
    "no end mark": (GREY_JPEG[:-2], [90] * 8),
    "half an end mark": (GREY_JPEG[:-1], [90] * 8),
    "data after the end": (GREY_JPEG + b"more", [90] * 8),
    "cmyk": (CMYK_JPEG, [[0, 255, 153]] * 8),
}

VARIANTS = {
    f"{kind}: {name}": variant
    for kind, variants in (("PNG", PNGS), ("TIFF", TIFFS), ("BMP", BMPS), ("GIF", GIFS),
                           ("WebP", WEBPS), ("JPEG", JPEGS))
    for name, variant in variants.items()
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_read_as_a_viewer_shows_it(tmp_path, name, capfd):
    content, pixels = VARIANTS[name]
    (tmp_path / "a").write_bytes(content)
    expected = [pixel if isinstance(pixel, list) else [pixel] * 3 for pixel in pixels]
    found = read_picture(tmp_path / "a")
    assert found.shape[1] == len(expected)
    np.testing.assert_allclose(found[0], expected, atol=3 if name == "JPEG: cmyk" else 1)
    exact = not name.startswith("JPEG") and "16" not in name and "gamma" not in name
    if exact and "multiplied" not in name:
        np.testing.assert_array_equal(found[0], expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 3), (3, 17)])
@pytest.mark.parametrize(("depth", "colour"), [(1, GREY), (8, GREY), (8, RGB), (16, RGBA)])
def test_png_pixels_that_end_early_are_noticed(tmp_path, size, depth, colour, interlaced):
    """Interlaced too: the whole file is read, and one row less is refused."""
    channels = {GREY: 1, RGB: 3, RGBA: 4}[colour]
    samples = np.full((*size, channels), (1 << depth) - 1)
    path = tmp_path / "a.png"
    path.write_bytes(png(samples, depth, colour, interlaced=interlaced))
    np.testing.assert_array_equal(read_picture(path), np.full((*size, 3), 255))
    path.write_bytes(png(samples, depth, colour, interlaced=interlaced, rows=-1))
    with pytest.raises(InputError, match=r"its pixels end early, after .* of .* bytes"):
        read_picture(path)


def test_what_a_png_has_beyond_its_pixels_is_not_unpacked(tmp_path):
    """2 GB in 2 MB, after 16 pixels."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, RGB, 0, 0, 0))
    pixels = chunk(b"IDAT", start + again * 2000)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    tracemalloc.start()
    try:
        assert not read_picture(path).any()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_whole_or_refused_wherever_it_ends(tmp_path, progressive):
    """Without the end mark every pixel is there; without more, some are missing.

    A progressive file may end after any of its scans, which all add details.
    """
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "JPEG", progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    whole = read_picture(path)
    read = 0
    for cut in range(1, 700, 1 if progressive else 3):
        path.write_bytes(content[:-cut])
        try:
            np.testing.assert_array_equal(read_picture(path), whole)
            read += 1
        except InputError as error:
            assert "cut short" in str(error)
    assert read == 0 if progressive else 1 <= read <= 4


@pytest.mark.parametrize("tags", [{}, {530: (3, [2, 2])}])
def test_subsampled_colours_that_pillow_would_mix_up_are_refused(tmp_path, tags):
    (tmp_path / "a").write_bytes(tiff([[[99, 128, 128]] * 2] * 2, 8, 6, tags=tags))
    with pytest.raises(InputError, match="subsampled colours; save it as PNG"):
        read_picture(tmp_path / "a")


def test_a_large_number_of_rows_is_refused_at_once(tmp_path):
    """80 bytes that state 170 million pixels."""
    header = struct.pack(">IIBBBBB", 170, 1_000_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(InputError, match="its pixels end early, after 0 of 511,000,000 bytes"):
        read_picture(tmp_path / "a.png")
    content = tiff([[[0]]], 8, 1, tags={257: (4, [170_000_000])})
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="it is 1 x 170000000 pixels; give a smaller picture"):
        read_picture(tmp_path / "a.tif")


def test_libtiff_writes_nothing_about_a_broken_file(tmp_path, capfd):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "TIFF", compression="tiff_lzw")
    content = bytearray(buffer.getvalue())
    for place in range(100, len(content) - 3000, 50):
        content[place] ^= 255
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_picture(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_rows_are_packed_as_the_formats_say():
    assert packed([[0xABC, 0x123]], 12) == [b"\xab\xc1\x23"]
    assert packed([[1, 0, 1]], 1) == [b"\xa0"]
    assert packed([[0x1234]], 16, "<") == [b"\x34\x12"]

"""Pictures are read as a viewer shows them; what is written is read back the same."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from support.command import InputError
from support.pictures import (
    BACKGROUND,
    WRITE_FORMATS,
    check_picture_path,
    cover_picture,
    fitted,
    parse_colour,
    read_picture,
    resize_picture,
    shrunk,
    write_picture,
)


@pytest.fixture
def rgb():
    """A picture of random pixels, higher than wide."""
    return np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def saved(tmp_path, image, name, **options):
    """Save a Pillow image and return its path."""
    path = tmp_path / name
    image.save(path, **options)
    return path


def png_file(width, height, pixels=b""):
    """Return the bytes of an 8-bit RGB PNG that claims the given size."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- what viewers do ---


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: a.swapaxes(0, 1)[:, ::-1]),  # stored rotated to the left
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: a.swapaxes(0, 1)[::-1]),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_exif_orientation_is_applied(tmp_path, rgb, name, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation  # the tag Orientation of the EXIF standard
    path = saved(tmp_path, Image.fromarray(rgb), name, exif=exif)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture, upright(rgb))
    assert picture.dtype == np.uint8
    picture[0, 0] = 0  # the caller may write to it


def test_damaged_exif_data_is_ignored(tmp_path):
    image = Image.new("RGB", (4, 3), (10, 200, 30))
    path = saved(tmp_path, image, "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert read_picture(path).shape == (3, 4, 3)


def permuted_profile():
    """Return an ICC profile whose red, green and blue channels are sRGB's green, blue and red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    entries = {
        bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * count, 12)
    }  # each: signature, offset, size (ICC.1, 7.3)
    places = [entries[tag] for tag in (b"rXYZ", b"gXYZ", b"bXYZ")]
    offsets = [bytes(profile[i + 4 : i + 12]) for i in places]
    for i, offset in zip(places, offsets[1:] + offsets[:1], strict=True):
        profile[i + 4 : i + 12] = offset
    return bytes(profile)


def test_an_embedded_profile_is_converted_to_srgb(tmp_path, rgb):
    path = saved(tmp_path, Image.fromarray(rgb), "a.png", icc_profile=permuted_profile())
    picture = read_picture(path).astype(int)
    assert np.abs(picture - rgb[:, :, [2, 0, 1]]).max() <= 1  # channels permuted, up to rounding


def test_a_profile_applies_under_transparency_and_in_palettes(tmp_path):
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    path = saved(tmp_path, image, "a.png", icc_profile=permuted_profile())
    picture = read_picture(path).astype(int)
    assert np.abs(picture[0] - [(50, 200, 100), BACKGROUND]).max() <= 1

    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    path = saved(tmp_path, image, "p.png", icc_profile=permuted_profile())
    assert np.abs(read_picture(path)[0].astype(int) - (50, 200, 100)).max() <= 1


def test_a_grey_picture_with_a_colour_profile(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exponents = [struct.pack(">i", round(exponent * 65536)) for exponent in (2.4, 1.8)]
    assert exponents[0] in profile  # of sRGB's curve, ((v + 0.055) / 1.055) ** 2.4
    options = {"icc_profile": profile.replace(*exponents)}
    path = saved(tmp_path, Image.new("L", (3, 2), 77), "a.png", **options)
    linear = ((77 / 255 + 0.055) / 1.055) ** 1.8
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert expected > 90
    assert np.abs(read_picture(path) - expected).max() <= 1.5


@pytest.mark.parametrize("profile", [b"not a profile" * 20, b"\0"])
def test_a_damaged_profile_is_ignored(tmp_path, rgb, profile):
    path = saved(tmp_path, Image.fromarray(rgb), "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_picture(path), rgb)


def test_a_profile_of_a_different_colour_space_is_ignored(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = saved(tmp_path, Image.new("RGB", (3, 2), (9, 8, 7)), "a.png", icc_profile=lab)
    np.testing.assert_array_equal(read_picture(path)[1, 2], (9, 8, 7))


# --- every kind of pixel ---


def test_alpha_is_composited_over_the_background(tmp_path):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)])  # 51 / 255 = 1/5
    picture = read_picture(saved(tmp_path, image, "a.png"))
    np.testing.assert_array_equal(picture[0], [(200, 100, 0), (255, 255, 255), (244, 224, 204)])


def test_grey_with_alpha(tmp_path):
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 255), (100, 51)])  # 100/5 + 255*4/5 = 224
    picture = read_picture(saved(tmp_path, image, "a.png"))
    np.testing.assert_array_equal(picture[0], [(100, 100, 100), (224, 224, 224)])


def test_a_different_background_shows_through(tmp_path):
    """A fifth of the picture's colour, four fifths of the background (10, 200, 60)."""
    background = (10, 200, 60)

    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)])
    picture = read_picture(saved(tmp_path, image, "rgba.png"), background)
    np.testing.assert_array_equal(picture[0], [(200, 100, 0), background, (48, 180, 48)])

    image = Image.new("LA", (3, 1))
    image.putdata([(100, 255), (100, 0), (100, 51)])
    picture = read_picture(saved(tmp_path, image, "la.png"), background=background)
    np.testing.assert_array_equal(picture[0], [(100, 100, 100), background, (28, 180, 68)])

    image = Image.new("P", (3, 1))
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image.putdata([0, 1, 2])
    path = saved(tmp_path, image, "p.png", transparency=b"\xff\0\x33")
    picture = read_picture(path, background)
    np.testing.assert_array_equal(picture[0], [(250, 0, 0), background, (8, 160, 98)])

    path = saved(tmp_path, Image.new("L", (1, 1), 7), "opaque.png")
    np.testing.assert_array_equal(read_picture(path, background), [[(7, 7, 7)]])


@pytest.mark.parametrize("transparency", [1, b"\xff\0\x33"])
def test_a_palette_with_transparency(tmp_path, transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image.putdata([0, 1, 2])
    picture = read_picture(saved(tmp_path, image, "a.png", transparency=transparency))
    blue = (0, 0, 250) if transparency == 1 else (204, 204, 254)  # a fifth of it, on white
    np.testing.assert_array_equal(picture[0], [(250, 0, 0), (255, 255, 255), blue])


def test_one_transparent_colour(tmp_path):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    picture = read_picture(saved(tmp_path, image, "a.png", transparency=(4, 5, 6)))
    np.testing.assert_array_equal(picture[0], [(1, 2, 3), (255, 255, 255)])


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("CMYK", (255, 0, 102, 0), (0, 255, 153)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, expected):
    path = saved(tmp_path, Image.new(mode, (3, 2), colour), "a.tif")
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, np.broadcast_to(expected, (2, 3, 3)), atol=1)


def test_cmyk_jpeg(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (255, 0, 102, 0)), "a.jpg", quality=100)
    assert np.abs(read_picture(path).astype(int) - (0, 255, 153)).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_of_16_bits_is_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    picture = read_picture(saved(tmp_path, Image.fromarray(values), name))
    np.testing.assert_array_equal(picture[0, :, 0], [0, 0, 1, 1, 128, 255])
    assert (picture == picture[:, :, :1]).all()


def test_grey_of_16_bits_with_a_transparent_value(tmp_path):
    values = np.array([[0, 300]], dtype=np.uint16)
    picture = read_picture(saved(tmp_path, Image.fromarray(values), "a.png", transparency=0))
    np.testing.assert_array_equal(picture[0], [(255, 255, 255), (1, 1, 1)])


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 1 << 20), ("I", -1)])
def test_pixels_without_a_fixed_range_are_refused(tmp_path, mode, value):
    path = saved(tmp_path, Image.new(mode, (3, 2), value), "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: .*no fixed white; save it with 8 or 16 bits"):
        read_picture(path)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture, np.broadcast_to((255, 0, 0), (4, 6, 3)))


def test_the_content_decides_the_format_not_the_name(tmp_path, rgb):
    path = saved(tmp_path, Image.fromarray(rgb), "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_picture(str(path)), rgb)


# --- files that cannot be read ---


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no picture .*missing\.png"):
        read_picture(tmp_path / "missing.png")


def test_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the picture .*: it is a folder"):
        read_picture(tmp_path)


@pytest.mark.parametrize("size", [0.5, 0.9])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"])
def test_a_file_cut_short(tmp_path, name, size):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    content = buffer.getvalue()
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert read_picture(path).shape == (40, 30, 3)
    path.write_bytes(content[: int(size * len(content))])
    with pytest.raises(InputError, match=r"picture is (damaged|not .*) or (is )?cut short") as info:
        read_picture(path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty"),
        (b"<html>404</html>", "is not a picture of a known format .PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
        (png_file(0, 5), "is not a picture"),
        (png_file(4, 4, pixels=b"\0" * 20), "is damaged or cut short"),
        (png_file(60000, 60000), "more than 178,956,970 pixels"),
    ],
    ids=["empty", "html", "eps", "no pixels", "too few pixels", "decompression bomb"],
)
def test_what_is_not_a_picture(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as info:
        read_picture(path)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)


# --- colours as users write them ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("white", (255, 255, 255)),
        ("Black", (0, 0, 0)),
        ("rebeccapurple", (102, 51, 153)),
        ("#102030", (16, 32, 48)),
        ("#fA0", (255, 170, 0)),
        ("rgb(1, 2,255)", (1, 2, 255)),
        ("rgb(0%, 100%, 20%)", (0, 255, 51)),
        ("hsl(120, 100%, 50%)", (0, 255, 0)),
    ],
)
def test_colours(text, expected):
    assert parse_colour(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "whit", "102030", "#10203", "rgb(1,2)", "rgb(-1, 2, 3)", "rgb(256, 0, 0)", "rgb(0,0,999)",
     "hsl(0, 0%, 200%)", "hsl(0, 500%, 50%)", "red\nblue", "#" + "0" * 300],
)  # fmt: skip
def test_what_is_not_a_colour(text):
    with pytest.raises(InputError, match="is not a colour; give one such as white") as info:
        parse_colour(text)
    assert repr(text) in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("text", ["#10203040", "#1234", "#102030ff", "rgba(1, 2, 3, 255)"])
def test_a_colour_with_an_opacity_is_refused(text):
    with pytest.raises(InputError, match="has an opacity; give red, green and blue alone") as info:
        parse_colour(text)
    assert repr(text) in str(info.value)


# --- resizing ---


def test_resize_takes_the_height_first_and_keeps_flat_colour():
    rgb = np.broadcast_to(np.array([10, 20, 30], dtype=np.uint8), (8, 6, 3))
    for dtype in (np.uint8, np.float32):
        before = rgb.astype(dtype)
        for filter in ("bilinear", "lanczos"):
            resized = resize_picture(before, 5, 9, filter)
            assert resized.shape == (5, 9, 3)
            assert resized.dtype == dtype
            np.testing.assert_allclose(resized, np.broadcast_to([10, 20, 30], (5, 9, 3)), rtol=1e-6)


def test_resize_by_hand():
    """To half the size, the bilinear filter covers four pixels, with the weights 1 3 3 1."""
    row = np.array([0, 40, 80, 120], dtype=np.uint8)
    rgb = np.broadcast_to(row[:, np.newaxis, np.newaxis], (4, 2, 3)).copy()
    left = (3 * 0 + 3 * 40 + 1 * 80) / 7  # the pixel before the border has no weight
    right = (1 * 40 + 3 * 80 + 3 * 120) / 7
    expected = np.broadcast_to(np.array([left, right])[:, np.newaxis, np.newaxis], (2, 2, 3))
    np.testing.assert_allclose(resize_picture(rgb, 2, 2), expected, atol=0.5)
    exact = resize_picture(rgb.astype(np.float32), 2, 2)
    np.testing.assert_allclose(exact, expected, rtol=1e-6)


def test_resize_of_floats_is_not_clipped_and_agrees_with_bytes(rgb):
    before = rgb.copy()
    as_float = resize_picture(rgb.astype(np.float32), 12, 3, "lanczos")
    as_bytes = resize_picture(rgb, 12, 3, "lanczos")
    assert np.abs(np.clip(as_float, 0, 255) - as_bytes).max() < 2  # Pillow rounds after each axis
    shifted = resize_picture(rgb.astype(np.float32) - 1000, 12, 3, "lanczos")
    np.testing.assert_allclose(shifted, as_float - 1000, atol=1e-2)
    np.testing.assert_array_equal(rgb, before)


def test_resize_refuses(rgb):
    with pytest.raises(ValueError, match="filter must be one of bilinear, lanczos, got 'cubic'"):
        resize_picture(rgb, 2, 2, "cubic")
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        resize_picture(rgb, 0, 2)
    with pytest.raises(ValueError, match=r"expected pixels of shape \(H, W, 3\), got \(7, 5\)"):
        resize_picture(rgb[:, :, 0], 2, 2)
    with pytest.raises(TypeError, match="expected uint8 or float32 pixels, got float64 array"):
        resize_picture(rgb.astype(np.float64), 2, 2)


def test_cover_with_the_same_aspect_is_a_resize():
    rgb = np.random.default_rng(2).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for height, width in [(4, 6), (6, 9), (10, 15)]:
        expected = resize_picture(rgb, height, width)
        np.testing.assert_array_equal(cover_picture(rgb, height, width), expected)


def test_cover_cuts_the_middle_out():
    """The red of every pixel is its row, the green its column."""
    rows, columns = np.mgrid[:6, :12].astype(np.uint8)
    rgb = np.stack([rows, columns, np.full_like(rows, 7)], axis=2)
    before = rgb.copy()
    for height, width, expected in [
        (6, 12, rgb),
        (6, 4, rgb[:, 4:8]),  # without the sides
        (2, 12, rgb[2:4]),  # without top and bottom
        (12, 8, resize_picture(np.ascontiguousarray(rgb[:, 4:8]), 12, 8)),
    ]:
        covered = cover_picture(rgb, height, width)
        assert covered.dtype == np.uint8
        np.testing.assert_array_equal(covered, expected)
    np.testing.assert_array_equal(rgb, before)


@pytest.mark.parametrize("side", [1, 2, 3, 7, 50])
def test_cover_keeps_flat_colour_at_any_aspect(side):
    rgb = np.broadcast_to(np.array([10, 20, 30], dtype=np.uint8), (side, 9, 3))
    for height, width in [(1, 1), (1, 40), (40, 1), (13, 7), (3, 2)]:
        expected = np.broadcast_to([10, 20, 30], (height, width, 3))
        np.testing.assert_array_equal(cover_picture(rgb, height, width), expected)


def test_cover_refuses(rgb):
    with pytest.raises(ValueError, match="at least 1, got 2 and 0"):
        cover_picture(rgb, 2, 0)
    with pytest.raises(ValueError, match=r"expected pixels of shape \(H, W, 3\), got \(7, 5\)"):
        cover_picture(rgb[:, :, 0], 2, 2)
    with pytest.raises(TypeError, match="expected uint8 pixels, got float32 array"):
        cover_picture(rgb.astype(np.float32), 2, 2)


# --- writing ---


@pytest.mark.parametrize("extension", [".png", ".webp", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_are_read_back_the_same(tmp_path, rgb, extension):
    path = tmp_path / "new" / f"a{extension}"
    before = rgb.copy()
    write_picture(path, rgb)
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(read_picture(path), rgb)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("extension", [".jpg", ".jpeg"])
def test_jpeg_is_written_with_high_quality_and_full_chroma(tmp_path, extension):
    # columns of pure red and blue: subsampled chroma would mix them to purple
    rgb = np.zeros((16, 16, 3), dtype=np.uint8)
    rgb[:, ::2, 0] = 255
    rgb[:, 1::2, 2] = 255
    path = tmp_path / f"a{extension}"
    write_picture(path, rgb)
    assert np.abs(read_picture(path).astype(int) - rgb).mean() < 10
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # sampling of Y, Cb, Cr
        # quality 95 makes the first entry of the standard's luminance table, 16, a 2
        assert image.quantization[0][0] == 2


@pytest.mark.parametrize("extension", WRITE_FORMATS)
def test_an_srgb_profile_is_embedded_and_the_bytes_repeat(tmp_path, rgb, extension):
    paths = [tmp_path / f"{i}{extension}" for i in range(2)]
    write_picture(paths[0], rgb)
    with Image.open(paths[0]) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        year = int.from_bytes(image.info["icc_profile"][24:26], "big")  # of the profile's header
        assert year == 2000  # and not the time of writing
    write_picture(paths[1], rgb)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a", "a.png.txt"])
def test_other_extensions_are_refused_before_any_work(tmp_path, rgb, name):
    with pytest.raises(InputError, match=r"use one of \.png, \.jpg, \.jpeg, \.webp, \.tif"):
        check_picture_path(tmp_path / name)
    with pytest.raises(InputError, match="cannot write the picture"):
        write_picture(tmp_path / name, rgb)
    assert not list(tmp_path.iterdir())


def test_check_picture_path_accepts_and_writes_nothing(tmp_path):
    for extension in WRITE_FORMATS:
        check_picture_path(str(tmp_path / "folder" / f"a{extension.upper()}"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_picture_path(tmp_path / "folder.png")


def test_too_large_for_the_format_leaves_the_old_file(tmp_path, rgb):
    path = tmp_path / "a.webp"
    write_picture(path, rgb)
    with pytest.raises(InputError, match=r"cannot write the picture .*a\.webp: .*16383"):
        write_picture(path, np.zeros((1, 20000, 3), dtype=np.uint8))
    np.testing.assert_array_equal(read_picture(path), rgb)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.webp"]


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros((2, 2, 3), np.float32), TypeError),
        ([[[1, 2, 3]]], TypeError),
        (np.zeros((2, 2), np.uint8), ValueError),
        (np.zeros((2, 2, 4), np.uint8), ValueError),
        (np.zeros((0, 2, 3), np.uint8), ValueError),
    ],
)
def test_only_uint8_rgb_is_written(tmp_path, pixels, error):
    with pytest.raises(error, match="expected"):
        write_picture(tmp_path / "a.png", pixels)
    assert not list(tmp_path.iterdir())


def test_fitted_sets_the_longest_side():
    assert fitted(np.zeros((600, 900, 3)), 300) == (200, 300)
    assert fitted(np.zeros((900, 601, 3)), 300) == (300, 200)
    assert fitted(np.zeros((60, 90, 3)), 180) == (120, 180)
    assert fitted(np.zeros((1, 300, 3)), 30) == (1, 30)


def test_shrunk_never_enlarges():
    picture = np.full((20, 40, 3), (10, 200, 30), np.uint8)
    assert shrunk(picture, 40) is picture
    small = shrunk(picture, 10)
    assert small.shape == (5, 10, 3)
    assert (small == (10, 200, 30)).all()

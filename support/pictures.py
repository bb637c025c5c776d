"""Reads pictures as a viewer shows them, resizes them and writes them.

A picture is a uint8 array of shape (H, W, 3): rows from top to bottom, columns from left to right;
red, green and blue from 0 to 255 in the sRGB colour space. Every function that takes a picture
checks it: TypeError for a wrong type or dtype, ValueError for a wrong shape or size. What the user
gave (files, colours) raises `InputError` if it cannot be used.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from support.command import InputError, one_line
from support.decoding import decode
from support.files import check_extension, check_output, input_file, write_bytes

# What shows through transparent parts: white, like paper.
BACKGROUND = (255, 255, 255)

# Formats that are tried, whatever the name of the file. Some of Pillow's other readers start
# programs (Ghostscript for EPS), which a picture from an unknown source must not do.
READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")

# Format and options for each file extension. All but JPEG are lossless.
WRITE_FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 0: full chroma resolution
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}

# Pillow's mode for each colour space, by its name in ICC profiles.
PROFILE_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}


def read_picture(path, background=BACKGROUND):
    """Read a picture file of any common kind.

    The orientation in the file (EXIF) is applied, an embedded colour profile (ICC) is converted to
    sRGB, and transparent parts show `background`. Grey, palette and CMYK pictures become RGB, 16
    bits a channel are scaled to 8, and only the first frame of an animation is read. A damaged
    profile or orientation is ignored, as viewers do. `InputError` if the file is missing, empty,
    damaged, not a picture of a known format, or so large that it may be a decompression bomb.

    Parameters
    ----------
    path : str or Path
    background : (red, green, blue), default=BACKGROUND
        Each from 0 to 255, sRGB; see `parse_colour`.
    """
    Image.init()  # registers all readers; AVIF is missing from older versions of Pillow
    formats = [name for name in READ_FORMATS if name in Image.OPEN]
    # Pillow warns of oddities that do not change the pixels, and of pictures of more than half the
    # size at which it raises DecompressionBombError. The user needs neither.
    with input_file(path, "picture") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode(file, formats)
            return np.array(_as_srgb(_upright(image), background))
        except MemoryError:
            raise
        except InputError as error:
            raise InputError(f"cannot use the picture {path}: {error}") from None
        except UnidentifiedImageError:
            known = f"a picture of a known format ({', '.join(formats)})"
            raise InputError(f"{path} is not {known}, or is cut short") from None
        except Image.DecompressionBombError:
            limit = f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
            raise InputError(f"{path} has {limit}; give a smaller picture") from None
        except Exception as error:  # of many types, depending on the format and the damage
            raise InputError(
                f"the picture {path} is damaged or cut short ({one_line(error)})"
            ) from error


def parse_colour(text):
    """Return (red, green, blue), each from 0 to 255, of a colour that the user wrote.

    `text` is as in a web page: ``white``, ``#102030``, ``#123``, ``rgb(16, 32, 48)``, ``rgb(0%,
    50%, 100%)``, ``hsl(...)`` or ``hsv(...)``; without opacity, as nothing is behind a background.
    """
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        colour = ()
    if len(colour) == 4:
        raise InputError(f"the colour {text!r} has an opacity; give red, green and blue alone")
    if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
        examples = "white, #102030 or rgb(16, 32, 48)"
        raise InputError(f"{text!r} is not a colour; give one such as {examples}")
    return colour


def resize_picture(rgb, height, width, filter="bilinear"):
    """Return `rgb`, uint8 or float32 of any range, resized to (height, width, 3), in its dtype.

    When a picture shrinks, the filter widens, so that every pixel counts and fine patterns do not
    alias. `filter` is "bilinear" or "lanczos", which is sharper and may overshoot at hard edges.
    """
    check_rgb(rgb, (np.uint8, np.float32))
    _check_size(height, width)
    if filter not in FILTERS:
        raise ValueError(f"filter must be one of {', '.join(FILTERS)}, got {filter!r}")
    size = (width, height)  # Pillow takes the width first
    if rgb.dtype == np.uint8:
        return np.array(Image.fromarray(rgb).resize(size, FILTERS[filter]))
    # Pillow's floating-point pictures have one channel.
    channels = rgb.transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    resized = [Image.fromarray(c.copy()).resize(size, FILTERS[filter]) for c in channels]
    return np.stack(resized, axis=2)  # 3 x (height, width) -> (height, width, 3)


def fitted(picture, longest):
    """Return (height, width) that `picture` has when its longest side is `longest` pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrunk(picture, longest):
    """Return `picture` with its longest side reduced to `longest` pixels if it is longer."""
    if max(picture.shape[:2]) <= longest:
        return picture
    return resize_picture(picture, *fitted(picture, longest), "lanczos")


def cover_picture(rgb, height, width):
    """Return the largest centred part of `rgb` with the aspect height : width, at that size.

    The filter is the "bilinear" of `resize_picture`. The part may begin and end inside a pixel.
    """
    check_rgb(rgb, (np.uint8,))
    _check_size(height, width)
    return np.array(ImageOps.fit(Image.fromarray(rgb), (width, height), FILTERS["bilinear"]))


def check_picture_path(path):
    """Raise `InputError` unless `write_picture` can write to `path`; see `check_output`."""
    check_extension("picture", WRITE_FORMATS, path)
    check_output(path)


def write_picture(path, rgb):
    """Write `rgb` to a picture file with an sRGB profile, completely or not at all.

    The extension of `path` chooses the format, see `WRITE_FORMATS`. Its folder is created if
    needed. The same pixels give the same bytes, on any day.
    """
    check_rgb(rgb, (np.uint8,))
    check_picture_path(path)
    file_format, options = WRITE_FORMATS[Path(path).suffix.lower()]
    buffer = io.BytesIO()
    try:
        image = Image.fromarray(rgb)
        image.save(buffer, format=file_format, icc_profile=_srgb_profile(), **options)
    except (OSError, ValueError) as error:  # more pixels than the format can hold
        raise InputError(f"cannot write the picture {path}: {error}") from error
    write_bytes(path, buffer.getvalue(), "the picture")


def check_rgb(rgb, dtypes):
    """Raise TypeError or ValueError unless `rgb` is an array (H, W, 3) of one of `dtypes`."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype not in dtypes:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        got = f"{rgb.dtype} array" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise TypeError(f"expected {names} pixels, got {got}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"expected pixels of shape (H, W, 3), got {rgb.shape}")


def _check_size(height, width):
    """Raise ValueError if a picture of this size would be empty."""
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")


def _upright(image):
    """Return the Pillow image rotated and mirrored as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data, errors of many types; the pixels are good without it
        return image


def _as_srgb(image, background):
    """Return the loaded Pillow image in mode RGB and sRGB, on `background`."""
    pixels, alpha = _split_alpha(image)
    pixels = _convert_profile(pixels, image.info)
    if alpha is None:
        return pixels
    return Image.composite(pixels, Image.new("RGB", pixels.size, background), alpha)


def _split_alpha(image):
    """Return `image` in mode L, RGB or CMYK, and its opacity in mode L (None if opaque)."""
    if image.mode == "F":
        raise InputError("floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if image.mode == "La":  # grey that is multiplied by its opacity
        image = image.convert("LA")
    if image.mode.startswith("I"):
        return _split_alpha_of_16_bits(image)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:  # an alpha channel, a palette with one, or one clear colour
        rgba = image.convert("RGBA")
        return rgba.getchannel("R") if grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode == "CMYK":
        return image, None
    return image.convert("L" if grey else "RGB"), None


def _split_alpha_of_16_bits(image):
    """Do the same for 16-bit grey, which Pillow's own conversion clips instead of scaling."""
    values, white = np.asarray(image), image.info.get("white", 65535)
    if values.min() < 0 or values.max() > 65535:
        raise InputError("32-bit pixels have no fixed white; save it with 8 or 16 bits")
    levels = (values.astype(np.uint32) * 255 + white // 2) // white  # rounded
    levels = 255 - levels if image.info.get("negative") else levels
    grey = Image.fromarray(levels.astype(np.uint8))
    if "transparency" not in image.info:
        return grey, None
    clear = values == image.info["transparency"]  # PNG: this one value is transparent
    return grey, Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))


def _convert_profile(pixels, info):
    """Return `pixels` (mode L, RGB or CMYK) in sRGB, from the ICC profile or gamma in `info`."""
    profile, gamma = info.get("icc_profile"), info.get("gamma", 0)
    if gamma > 0 and not profile and "srgb" not in info and abs(2.2 * gamma - 1) > 0.05:
        # PNG: value = light ** gamma. About 1/2.2 means sRGB, to all viewers.
        light = np.linspace(0, 1, 256) ** (1 / gamma)
        curve = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
        table = np.rint(255 * curve).astype(int).tolist()
        return pixels.point(table * len(pixels.getbands())).convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = PROFILE_SPACES[source.profile.xcolor_space]
            if mode == "RGB" and pixels.mode == "L":
                pixels = pixels.convert("RGB")  # a grey picture saved with a colour profile
            if mode == pixels.mode:
                target = ImageCms.createProfile("sRGB")
                return ImageCms.profileToProfile(pixels, source, target, outputMode="RGB")
        except (OSError, KeyError, ImageCms.PyCMSError):
            pass  # a damaged profile, or one of a colour space that picture files do not use
    return pixels.convert("RGB")


def _srgb_profile():
    """Return an sRGB profile as bytes, without the time at which it was made."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 of the header hold date and time as six big-endian numbers (ICC.1, 7.2).
    profile[24:36] = np.array([2000, 1, 1, 0, 0, 0], dtype=">u2").tobytes()
    return bytes(profile)

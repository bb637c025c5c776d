"""Reading pictures as a viewer shows them, resizing them, and writing them.

Arrays of pixels are uint8 of shape (H, W, 3): rows from top to bottom, columns from left to right,
red, green and blue from 0 to 255 in the sRGB colour space.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from support.command import InputError
from support.files import atomic_path, check_output

# What shows through the transparent parts of a picture: white, as on a page.
BACKGROUND = (255, 255, 255)

# Formats that are tried, whatever a file's name says. The list is closed, because some of Pillow's
# other readers start programs (Ghostscript for EPS), which a picture from anywhere must not do.
READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")

# Formats by file extension, with the options they are saved with. All but JPEG are lossless.
WRITE_FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 0: chroma as fine as brightness
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}

# The colour spaces (as ICC profiles name them) that fit pixels of each of Pillow's modes.
PROFILE_SPACES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}


def read_picture(path, background=BACKGROUND):
    """Read a picture file of any common kind.

    The orientation noted in the file (EXIF) is applied, an embedded colour profile (ICC) is
    converted to sRGB, and what is transparent shows `background`. Grey, palette and CMYK pictures
    become RGB, 16 bits a channel are scaled to 8, and of an animation the first frame is taken. A
    profile or orientation that is itself damaged is ignored, as viewers do.

    Parameters
    ----------
    path : str or Path
    background : (red, green, blue), default=BACKGROUND
        Each from 0 to 255, sRGB; see `parse_colour`.

    Returns
    -------
    ndarray of shape (H, W, 3)
        uint8, sRGB; a new array that the caller may write to.

    Raises
    ------
    InputError
        If the file is missing, not a picture of a known format, damaged or cut short, empty, or
        so large that it must be taken for a decompression bomb.
    """
    path = Path(path)
    Image.init()  # registers all readers; AVIF is missing from older versions of Pillow
    formats = [name for name in READ_FORMATS if name in Image.OPEN]
    # Pillow warns of oddities that do not change the pixels, and of pictures above half the size
    # at which it raises DecompressionBombError; neither concerns the user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                if not file.read(1):
                    raise InputError("the file is empty")
                with Image.open(file, formats=formats) as image:
                    image.load()
                    return np.array(_as_srgb(_turned_upright(image), background))
        except InputError as error:
            raise InputError(f"cannot use the picture {path}: {error}") from None
        except UnidentifiedImageError:
            known = ", ".join(formats)
            message = f"{path} is not a picture of a known format ({known}), or is cut short"
            raise InputError(message) from None
        except FileNotFoundError:
            raise InputError(f"there is no picture {path}") from None
        except (IsADirectoryError, PermissionError) as error:
            raise InputError(f"cannot read the picture {path}: {error.strerror}") from None
        except Image.DecompressionBombError:
            limit = 2 * Image.MAX_IMAGE_PIXELS
            message = f"{path} claims more than {limit:,} pixels; give a smaller picture"
            raise InputError(message) from None
        except Exception as error:  # a dozen kinds, depending on the format and the damage
            reason = " ".join(str(error).split()) or type(error).__name__
            message = f"the picture {path} is damaged or cut short ({reason})"
            raise InputError(message) from error


def parse_colour(text):
    """Return the (red, green, blue), each from 0 to 255, that a user's `text` means.

    Parameters
    ----------
    text : str
        As in a web page: ``white``, ``#102030``, ``#123``, ``rgb(16, 32, 48)``, ``rgb(0%, 50%,
        100%)``, ``hsl(...)``, ``hsv(...)``.

    Raises
    ------
    InputError
        If it is no such colour, or one with an opacity: there is nothing behind a background.
    """
    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        colour = ()
    if len(colour) == 4:
        raise InputError(f"the colour {text!r} has an opacity; give red, green and blue alone")
    if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
        message = f"{text!r} is not a colour; give one such as white, #102030 or rgb(16, 32, 48)"
        raise InputError(message)
    return colour


def resize_picture(rgb, height, width, filter="bilinear"):
    """Return `rgb` resized to (height, width, 3).

    When a picture shrinks, the filter widens with it, so that every pixel has its say and fine
    patterns do not turn into coarse ones.

    Parameters
    ----------
    rgb : ndarray of shape (H, W, 3)
        uint8, or float32 of any range (not rounded).
    height, width : int
        At least 1.
    filter : {"bilinear", "lanczos"}, default="bilinear"
        "lanczos" is sharper, and may overshoot beside hard edges.

    Returns
    -------
    ndarray of shape (height, width, 3)
        Of the dtype of `rgb`.

    Raises
    ------
    ValueError, TypeError
        If the shape, size, filter or dtype is another.
    """
    check_rgb(rgb, (np.uint8, np.float32))
    if filter not in FILTERS:
        raise ValueError(f"filter must be one of {', '.join(FILTERS)}, got {filter!r}")
    _check_size(height, width)
    size = (width, height)  # Pillow has the width first
    if rgb.dtype == np.uint8:
        return np.array(Image.fromarray(rgb).resize(size, FILTERS[filter]))
    # Pillow's floating-point pictures have one channel
    channels = [
        Image.fromarray(np.ascontiguousarray(rgb[:, :, i])).resize(size, FILTERS[filter])
        for i in range(3)
    ]
    return np.stack(channels, axis=2)  # 3 x (height, width) -> (height, width, 3)


def fitted(picture, longest):
    """Return (height, width) of `picture` with its longest side brought to `longest` pixels."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrunk(picture, longest):
    """Return `picture` with its longest side brought down to `longest` pixels, if it has more."""
    if max(picture.shape[:2]) <= longest:
        return picture
    return resize_picture(picture, *fitted(picture, longest), "lanczos")


def cover_picture(rgb, height, width):
    """Return the largest centred piece of `rgb` of the aspect height : width, at that size.

    Parameters
    ----------
    rgb : ndarray of shape (H, W, 3)
        uint8.
    height, width : int
        At least 1.

    Returns
    -------
    ndarray of shape (height, width, 3)
        uint8, resized as `resize_picture` does with its "bilinear" filter. The piece may begin and
        end within a pixel.

    Raises
    ------
    ValueError, TypeError
        If the shape, size or dtype is another.
    """
    check_rgb(rgb, (np.uint8,))
    _check_size(height, width)
    return np.array(ImageOps.fit(Image.fromarray(rgb), (width, height), FILTERS["bilinear"]))


def check_picture_path(path):
    """Raise `InputError` unless `write_picture` knows the format that the name of `path` asks for.

    To be called before the work whose result shall be written there.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITE_FORMATS:
        known = ", ".join(WRITE_FORMATS)
        asked = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        raise InputError(f"cannot write the picture {path} with {asked}; use one of {known}")
    check_output(path)


def write_picture(path, rgb):
    """Write pixels to a picture file, complete or not at all, with an sRGB profile.

    The same pixels make the same bytes, on any day.

    Parameters
    ----------
    path : str or Path
        Its extension chooses the format, see `WRITE_FORMATS`. Its folder is made if need be.
    rgb : ndarray of shape (H, W, 3)
        uint8, sRGB.

    Raises
    ------
    InputError
        If the extension is not known or the file cannot be written.
    ValueError, TypeError
        If `rgb` has another shape or dtype.
    """
    check_rgb(rgb, (np.uint8,))
    check_picture_path(path)
    file_format, options = WRITE_FORMATS[Path(path).suffix.lower()]
    with atomic_path(path, "the picture") as temporary:
        try:
            image = Image.fromarray(rgb)
            image.save(temporary, format=file_format, icc_profile=_srgb_profile(), **options)
        except ValueError as error:  # more pixels than the format can hold
            raise InputError(f"cannot write the picture {path}: {error}") from error


def check_rgb(rgb, dtypes):
    """Raise `TypeError` or `ValueError` unless `rgb` is a picture of one of `dtypes`."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype not in dtypes:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        got = f"{rgb.dtype} array" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise TypeError(f"expected {names} pixels, got {got}")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"expected pixels of shape (H, W, 3), got {rgb.shape}")


def _check_size(height, width):
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")


def _turned_upright(image):
    """Return the Pillow image turned and mirrored as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raises many kinds; the pixels are good without it
        return image


def _as_srgb(image, background):
    """Return the loaded Pillow image as one of mode RGB in sRGB, on `background`."""
    pixels, alpha = _split_alpha(image)
    pixels = _convert_profile(pixels, image.info.get("icc_profile"))
    if alpha is None:
        return pixels
    return Image.composite(pixels, Image.new("RGB", pixels.size, background), alpha)


def _split_alpha(image):
    """Return `image` in mode L, RGB or CMYK, and its opacity in mode L (None: opaque)."""
    if image.mode == "F":
        raise InputError("floating-point pixels have no fixed white; save it with 8 or 16 bits")
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
    """The same for grey of 16 bits, which Pillow's own conversion clips instead of scaling."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError("32-bit pixels have no fixed white; save it with 8 or 16 bits")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    clear = image.info.get("transparency")  # PNG: this one value is transparent
    if clear is None:
        return grey, None
    return grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))


def _convert_profile(pixels, profile):
    """Return `pixels` (mode L, RGB or CMYK) in sRGB, taken from the bytes of an ICC profile."""
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
            pass  # a damaged profile, or one of a space that no picture file has
    return pixels.convert("RGB")


def _srgb_profile():
    """Return an sRGB profile as bytes, without the time of its making."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Bytes 24 to 35 of the header hold date and time as six big-endian numbers (ICC.1, 7.2).
    profile[24:36] = np.array([2000, 1, 1, 0, 0, 0], dtype=">u2").tobytes()
    return bytes(profile)

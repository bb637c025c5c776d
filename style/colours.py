"""Which colours a style transfer gives its result: the content's, in two ways, or the style's.

`keep_chroma` changes the finished result: it keeps its lightness and takes the content's colours.
`match_colours` changes the style before the transfer: it gets the content's palette.
`match_palette` and `smooth_change` make the picture to start from: the content in the style's
colours.

Pictures are uint8 of shape (H, W, 3) in sRGB; so are the results, which are new arrays. The first
two functions compute in strips of rows, so they need little more memory than the pictures. They
raise ValueError or TypeError for other shapes or dtypes.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from fast.strips import run_strips, strips_of_rows
from support.pictures import check_rgb

# From linear sRGB to the responses of the eye's three kinds of cones, and from their cube roots to
# lightness L, green-red a and blue-yellow b [1]_; one row for each result.
RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
LAB_TO_CONES = np.linalg.inv(CONES_TO_LAB)
CONES_TO_RGB = np.linalg.inv(RGB_TO_CONES)

# The linear light, 0 to 1, of each of the 256 levels [2]_.
LEVELS = np.arange(256) / 255
LINEAR_LIGHT = np.where(LEVELS <= 0.04045, LEVELS / 12.92, ((LEVELS + 0.055) / 1.055) ** 2.4)

# How far outside 0..1 linear light may be and still be a colour of sRGB: the matrices are published
# with ten digits, so white is not exactly white. One level of 255 is 300 times as much.
GAMUT_TOLERANCE = 1e-6

# Halvings of the interval that contains the largest chroma of sRGB: precise to 1 part in 4096.
BISECTIONS = 12

# The variance, in levels squared, that counts as noise in every direction of colour.
NOISE_VARIANCE = 1.0

STRIP_PIXELS = 1 << 15

# Of `match_palette`: noise in levels, rounds, and the part of the way that each of them goes.
PALETTE_NOISE, PALETTE_ROUNDS, PALETTE_STEP = 2.0, 60, 0.35

GRAIN = 2.0  # pixels: `smooth_change` leaves no finer differences of colour in plain areas


def keep_chroma(result, content):
    """Return the lightness of `result` with the chroma of `content`.

    Lightness and chroma are those of Oklab [1]_, computed from linear light [2]_. At the lightness
    of the result, sRGB often cannot show the content's chroma. Such a colour keeps its lightness
    and hue and gets the largest chroma that sRGB has for them (clipping each channel would change
    all three). This is why the space is Oklab and not CIELAB: its lines of constant hue are
    straight, while CIELAB's blue turns purple when its chroma is reduced.

    The pictures have the same size.

    References
    ----------
    .. [1] B. Ottosson, "A perceptual color space for image processing", 2020,
       https://bottosson.github.io/posts/oklab/
    .. [2] IEC 61966-2-1, "Default RGB colour space - sRGB", 1999.
    """
    check_rgb(result, (np.uint8,))
    check_rgb(content, (np.uint8,))
    if result.shape != content.shape:
        raise ValueError(f"expected pictures of one size, got {result.shape} and {content.shape}")
    H, W, _ = result.shape
    kept = np.empty((H, W, 3), np.uint8)

    def strip(_, y0, y1):
        lab = _oklab(content[y0:y1].reshape(-1, 3))  # (rows, W, 3) -> (rows * W, 3)
        lab[:, 0] = _oklab(result[y0:y1].reshape(-1, 3))[:, 0]
        kept[y0:y1] = _encoded(_into_gamut(lab)).reshape(-1, W, 3)  # -> (rows, W, 3)

    run_strips(strip, strips_of_rows(1, H, STRIP_PIXELS // W))
    return kept


def match_colours(style, content):
    """Return the picture `style` with the mean and the covariance of the colours of `content`.

    Every pixel s becomes T (s - mean(style)) + mean(content). Many matrices T turn one covariance
    into the other; this is the Monge-Kantorovitch map [1]_, which changes the colours least::

        T = S^(-1/2) (S^(1/2) C S^(1/2))^(1/2) S^(-1/2)

    S is the covariance of the style, C that of the content. They are computed from the stored sRGB
    values, as in the paper that proposed this for style transfer [2]_. `NOISE_VARIANCE` is added to
    both: a grey or uniform style has no variance in some directions, and its noise there must not
    be amplified. Two equal pictures still give T = 1. Values outside 0..255 are clipped.

    The sizes of the pictures may differ.

    References
    ----------
    .. [1] F. Pitié and A. Kokaram, "The linear Monge-Kantorovitch linear colour mapping for
       example-based colour transfer", CVMP 2007.
    .. [2] L. Gatys, M. Bethge, A. Hertzmann and E. Shechtman, "Preserving color in neural artistic
       style transfer", arXiv:1606.05897, 2016.
    """
    check_rgb(style, (np.uint8,))
    check_rgb(content, (np.uint8,))
    style_mean, S = _mean_and_covariance(style)
    content_mean, C = _mean_and_covariance(content)
    noise = NOISE_VARIANCE * np.eye(3)
    root = _power(S + noise, 0.5)
    inverse_root = _power(S + noise, -0.5)
    T = inverse_root @ _power(root @ (C + noise) @ root, 0.5) @ inverse_root
    H, W, _ = style.shape
    matched = np.empty((H, W, 3), np.uint8)

    def strip(_, y0, y1):
        values = (style[y0:y1] - style_mean) @ T.T + content_mean
        matched[y0:y1] = np.rint(values.clip(0, 255))

    run_strips(strip, strips_of_rows(1, H, STRIP_PIXELS // W))
    return matched


def match_palette(content, styles, shares, rng):
    """Return `content` with the colours of the styles, moved from each pixel as little as possible.

    Matching means and covariances gives colours that a style does not have. This matches the whole
    distribution, by sliced optimal transport [1]_: along any one axis of the colour space, moving
    the i-th smallest value of the content to the i-th smallest of the style is the shortest way to
    the style's distribution. Each round does a part of that along three random orthogonal axes.

    Parameters
    ----------
    content : ndarray of shape (H, W, 3)
    styles : list of ndarray of shape (h, w, 3)
    shares : sequence of float
        How much of the content gets the colours of each style; at least one is above 0.
    rng : numpy.random.Generator

    References
    ----------
    .. [1] F. Pitié, A. Kokaram and R. Dahyot, "Automated colour grading using colour distribution
       transfer", Computer Vision and Image Understanding 107, 2007.
    """
    pixels = content.reshape(-1, 3).T.astype(np.float32)  # (H, W, 3) -> (H W, 3) -> (3, H W)
    count = pixels.shape[1]
    ends = np.round(count * np.cumsum(shares) / sum(shares)).astype(int)
    target = np.concatenate(
        [rng.choice(style.reshape(-1, 3), n)  # (h, w, 3) -> (h w, 3) -> (n, 3)
         for style, n in zip(styles, np.diff(ends, prepend=0), strict=True)]
    ).T.astype(np.float32)  # (H W, 3) -> (3, H W): as many as the content has
    # Equal values have no order, and would be torn apart in bands: noise gives them one.
    pixels += rng.normal(0, PALETTE_NOISE, pixels.shape).astype(np.float32)
    for _ in range(PALETTE_ROUNDS):
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
        along, wanted = axes @ pixels, axes @ target
        for values, goal in zip(along, wanted, strict=True):
            order = np.argsort(values)
            values[order] += PALETTE_STEP * (np.sort(goal) - values[order])
        pixels = axes.T @ along  # the axes are orthogonal: back to red, green and blue
    return np.rint(pixels.T.clip(0, 255)).astype(np.uint8).reshape(content.shape)


def smooth_change(content, changed):
    """Return `content` plus the change from it to `changed`, blurred.

    In a plain sky all pixels are nearly equal, and `match_palette` tears them apart: its picture
    has grain there. Blurred, the change gives areas their colours, and details are the content's.
    """
    change = gaussian_filter(changed.astype(np.float32) - content, (GRAIN, GRAIN, 0))
    return np.rint((content + change).clip(0, 255)).astype(np.uint8)


def _encoded(linear):
    """Return the nearest sRGB levels, uint8, of linear light."""
    linear = linear.clip(0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * values).astype(np.uint8)


def _oklab(rgb):
    """Return L, a and b, float64 of shape (P, 3), of the sRGB levels `rgb`, uint8 of that shape."""
    return np.cbrt(LINEAR_LIGHT[rgb] @ RGB_TO_CONES.T) @ CONES_TO_LAB.T


def _linear_rgb(lab):
    """Return the linear light, of any range, of colours in Oklab; both of shape (P, 3)."""
    cones = lab @ LAB_TO_CONES.T
    return (cones * cones * cones) @ CONES_TO_RGB.T


def _into_gamut(lab):
    """Return the linear light of colours in Oklab, with less chroma where sRGB has less.

    The chroma is found by bisection: grey, with chroma 0, is in the gamut at any lightness.
    """
    linear = _linear_rgb(lab)
    outside = np.flatnonzero(~_in_gamut(linear))
    lightness, a, b = lab[outside].T  # (P, 3) -> 3 x (P,)

    def reduced(part):
        """Return the linear light of these colours with this part of their chroma."""
        return _linear_rgb(np.stack([lightness, part * a, part * b], axis=1))  # 3 x (P,) -> (P, 3)

    part = np.zeros(len(outside))  # the largest part of the chroma known to be in the gamut
    for i in range(1, BISECTIONS + 1):
        larger = part + 0.5**i
        part = np.where(_in_gamut(reduced(larger)), larger, part)
    linear[outside] = reduced(part)
    return linear


def _in_gamut(linear):
    """Return for each colour in linear light whether sRGB has it; (P, 3) -> (P,)."""
    return (np.abs(linear - 0.5) <= 0.5 + GAMUT_TOLERANCE).all(axis=1)


def _mean_and_covariance(rgb):
    """Return the mean (3,) and the covariance (3, 3) of the colours of a picture, float64.

    The sums are whole numbers below 2^53, so they have no rounding error.
    """
    H, W, _ = rgb.shape
    total, products = np.zeros(3), np.zeros((3, 3))
    for _, y0, y1 in strips_of_rows(1, H, STRIP_PIXELS // W):
        values = rgb[y0:y1].reshape(-1, 3).astype(np.float64)  # (rows, W, 3) -> (rows * W, 3)
        total += values.sum(axis=0)
        products += values.T @ values
    mean = total / (H * W)
    return mean, products / (H * W) - np.outer(mean, mean)


def _power(matrix, exponent):
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T

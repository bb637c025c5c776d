"""Digits of one's own: finds the digit in a photograph or drawing, and says what it is read as."""

import numpy as np
from scipy import ndimage

from mnist.data import BOX, SIDE
from support.command import InputError
from support.figures import enlarged, in_rows, sheet
from support.pictures import shrunk, write_picture

LARGEST = 400  # pixels: longer pictures are reduced first
LUMA = (0.299, 0.587, 0.114)  # grey from red, green and blue (ITU-R BT.601)
FAINT = 0.1  # of the paper's light: what the darkest ink must take away
THIN, STROKE = 1.6, 2.0  # pixels in the box: thinner lines are thickened to STROKE


def read_digits(pictures):
    """Return {path: digit} of a `PictureList`; a digit is what the network gets, (28, 28).

    A picture that cannot be used is named on the standard error and left out.
    """
    digits = {}
    for path, picture in pictures:
        try:
            digits[path] = find_digit(picture)
        except InputError as error:
            pictures.skip(path, f"cannot use the picture {path}: {error}")
    return digits


def predict(mlp, digits):
    """Print what the network `mlp` reads in each of `digits`; return {path: ten probabilities}."""
    probabilities = {}
    data = np.array([[*digit.flat, 0] for digit in digits.values()])  # (28, 28) -> (N, 784 + 1)
    for path, prob in zip(digits, mlp.probabilities(data), strict=True):
        best = prob.argsort()[::-1][:3]
        most = ", ".join(f"{number} {prob[number]:.1%}" for number in best)
        print(f"{path}: {best[0]}  ({most})")
        probabilities[str(path)] = prob.round(6).tolist()
    return probabilities


def write_seen(path, digits, probabilities):
    """Write the pixels of `digits` (28, 28) to the picture file `path`, with what they are read as.

    `probabilities` is that of `predict`.
    """
    cells = []
    for (name, digit), prob in zip(digits.items(), probabilities.values(), strict=True):
        pixels = enlarged(np.stack([digit] * 3, axis=2), 5 * SIDE)  # (28, 28) -> (28, 28, 3)
        cells.append((f"{name.name}: {np.argmax(prob)}", pixels))
    write_picture(path, sheet("what the network gets, and reads", in_rows(cells, 5)))


def find_digit(picture):
    """Return the digit in a photograph or drawing, as MNIST would hold it.

    MNIST's own preparation: the digit is scaled to fit a box of 20 x 20 pixels, then moved so that
    its centre of mass is at pixel (14, 14). Strokes thinner than MNIST's are thickened first.

    Parameters
    ----------
    picture : ndarray of shape (H, W, 3), uint8
        One digit, dark on light or light on dark, with some paper around it.

    Returns
    -------
    ndarray of shape (28, 28), uint8
        0 (paper) to 255 (ink). `InputError` if the picture shows nothing that stands out.
    """
    ink = _ink(shrunk(picture, LARGEST).astype(np.float64) @ LUMA)  # (H, W, 3) -> (H, W)
    digit = _digit_mask(ink)
    near = ndimage.binary_dilation(digit, iterations=max(1, min(ink.shape) // 30))
    ink = np.clip(ink / np.percentile(ink[digit], 90), 0, 1) * near
    ink[ink < 0.1] = 0  # the grain of the paper
    rows, columns = np.nonzero(ink > 0.25)
    scale = BOX / (1 + max(np.ptp(rows), np.ptp(columns)))
    # the mean distance from inside a line of width w to its edge is w / 4
    stroke = 4 * ndimage.distance_transform_edt(digit)[digit].mean()
    if stroke * scale < THIN:
        ink = ndimage.grey_dilation(ink, size=1 + round(STROKE / scale - stroke))
    start = [centre - SIDE / 2 / scale for centre in ndimage.center_of_mass(ink)]
    if scale < 1:  # without aliasing
        ink = ndimage.gaussian_filter(ink, 0.3 / scale)
    seen = ndimage.affine_transform(ink, np.eye(2) / scale, start, (SIDE, SIDE), order=1)
    return np.round(255 * seen).astype(np.uint8)


def _ink(grey):
    """Return how much of the paper's light each pixel lacks, 0 to 1; of a negative for light ink.

    From the mean around it, ink differs much in few places and paper little in many: the sign of
    the third moment says which side the ink is on. The paper is then the picture without its narrow
    dark parts (a morphological closing), with all its shadows.
    """
    side = min(grey.shape)
    difference = grey - ndimage.uniform_filter(grey, 1 + side // 4, mode="nearest")
    if np.sum(difference**3) > 0:
        grey = 255 - grey
    grey = ndimage.gaussian_filter(grey, side / 200)
    paper = ndimage.grey_closing(grey, size=max(3, round(0.3 * side)), mode="nearest")
    return 1 - (grey + 1) / (paper + 1)  # 1, so that black paper does not divide by 0


def _digit_mask(ink):
    """Return where the digit is: the largest connected piece of ink, and others not much smaller.

    Pieces at the picture's edge (a shadow, the table) are left out, unless the largest is one.
    """
    if ink.max() < FAINT:
        raise InputError("no digit stands out from the paper")
    parts, number = ndimage.label(ink > _otsu(ink), structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(ink, parts, np.arange(number + 1))
    sizes[0] = 0  # the paper
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    keep = sizes >= sizes.max() / 10
    if sizes.argmax() not in edge:
        keep[edge] = False
    return keep[parts]


def _otsu(values):
    """Return the threshold between two classes with the largest variance between them.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    above = counts.sum() - below
    mean = sums[-1] / counts.sum()
    between = (mean * below - sums[:-1]) ** 2 / (below * above)
    return centres[np.argmax(between)]

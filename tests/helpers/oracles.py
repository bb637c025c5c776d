"""Independent computations of the same quantities, for comparison in the tests.

Convolutions use `scipy.signal`, pooling uses loops over every position of the definition, losses
and Adam use plain sums, Oklab its published code. All of it is in float64, for any input, and none
of it shares code with what it checks.
"""

import numpy as np
from scipy import signal

# Memory layouts of one array; see `laid_out`.
LAYOUTS = ("contiguous", "channels-last", "transposed", "sliced", "reversed", "read-only")


def laid_out(array, layout):
    """Return a copy of a (N, C, H, W) array with this memory layout."""
    if layout == "contiguous":
        return np.ascontiguousarray(array).copy()
    if layout == "channels-last":
        # (N, C, H, W) -> (N, H, W, C) in memory, seen as (N, C, H, W)
        return array.transpose(0, 2, 3, 1).copy(order="C").transpose(0, 3, 1, 2)
    if layout == "transposed":
        # (N, C, H, W) -> (W, H, C, N) in memory, seen as (N, C, H, W)
        return array.transpose(3, 2, 1, 0).copy(order="C").transpose(3, 2, 1, 0)
    if layout == "sliced":
        n, c, h, w = array.shape
        wide = np.full((n, c + 1, 2 * h, w + 3), np.nan, dtype=array.dtype)
        wide[:, 1:, ::2, 2:-1] = array
        return wide[:, 1:, ::2, 2:-1]
    if layout == "reversed":
        return array[:, ::-1, ::-1, ::-1].copy(order="C")[:, ::-1, ::-1, ::-1]
    if layout == "read-only":
        return read_only(array)
    raise ValueError(f"no layout {layout!r}")


def read_only(array):
    """Return a copy in which any assignment raises, to show that an input is not changed."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def distinct(rng, shape, dtype=np.float64):
    """Return shuffled values from -1 to 1, far enough apart that a small step makes no tie."""
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(-1.0, 1.0, size)).reshape(shape).astype(dtype)


def relative_error(actual, expected):
    """Return |actual - expected| / |expected|, both as the root of the sum of squares."""
    expected = np.asarray(expected, dtype=np.float64)
    difference = np.asarray(actual, dtype=np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


def output_size(size, kernel, padding, stride):
    """Return how many windows fit along a side."""
    return (size + 2 * padding - kernel) // stride + 1


def convolution(x, weight, bias, padding, stride):
    """Return the convolution layer's output, by `scipy.signal.correlate`."""
    x, weight, bias = (np.asarray(a, dtype=np.float64) for a in (x, weight, bias))
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return np.stack(
        [
            [
                signal.correlate(image, weight[..., o], mode="valid", method="direct")[
                    0, ::stride, ::stride
                ]
                + bias[o]
                for o in range(weight.shape[3])
            ]
            for image in padded
        ]
    )


def convolution_gradients(x, weight, top_diff, padding, stride):
    """Return (bottom_diff, d_weight, d_bias), by full and valid correlations.

    A stride s is the same as stride 1 with s - 1 zeros between the entries of `top_diff`.
    """
    x, weight, top_diff = (np.asarray(a, dtype=np.float64) for a in (x, weight, top_diff))
    kernel, channel_out = weight.shape[1], weight.shape[3]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    d_padded = np.zeros_like(padded)
    d_weight = np.zeros_like(weight)
    # rows and columns that a window reaches; a stride may leave some out at the far edge
    rows = (top_diff.shape[2] - 1) * stride + kernel
    columns = (top_diff.shape[3] - 1) * stride + kernel
    for n in range(x.shape[0]):
        for o in range(channel_out):
            dilated = np.zeros((1, rows - kernel + 1, columns - kernel + 1))
            dilated[0, ::stride, ::stride] = top_diff[n, o]
            d_padded[n, :, :rows, :columns] += signal.convolve(
                weight[..., o], dilated, mode="full", method="auto"
            )
            d_weight[..., o] += signal.correlate(
                padded[n, :, :rows, :columns], dilated, mode="valid", method="direct"
            )
    height, width = x.shape[2:]
    bottom_diff = d_padded[:, :, padding : padding + height, padding : padding + width]
    return bottom_diff, d_weight, top_diff.sum(axis=(0, 2, 3))


def _windows(x, kernel, stride):
    """Yield (index of the output, corner of the window) over every window of every channel."""
    n, c, h, w = x.shape
    shape = (n, c, output_size(h, kernel, 0, stride), output_size(w, kernel, 0, stride))
    for index in np.ndindex(shape):
        yield index, (index[2] * stride, index[3] * stride)


def max_pooling(x, kernel, stride):
    """Return (output, places): the maxima, and for each the (row, column) it came from."""
    output, places = {}, {}
    for index, (top, left) in _windows(x, kernel, stride):
        best = (top, left)
        for row in range(top, top + kernel):
            for column in range(left, left + kernel):
                if x[(*index[:2], row, column)] > x[(*index[:2], *best)]:
                    best = (row, column)
        output[index] = x[(*index[:2], *best)]
        places[index] = best
    shape = tuple(1 + np.max(list(output), axis=0))
    return np.array(list(output.values()), dtype=np.float64).reshape(shape), places


def max_pooling_gradient(x, top_diff, kernel, stride):
    """Return the input's gradient: the maximum of each window gets that window's `top_diff`."""
    bottom_diff = np.zeros(x.shape)
    for index, place in max_pooling(x, kernel, stride)[1].items():
        bottom_diff[(*index[:2], *place)] += top_diff[index]
    return bottom_diff


def max_pooling_mask(x, kernel, stride):
    """Return an int array of the input's shape, 1 where some window has its maximum."""
    mask = np.zeros(x.shape, dtype=int)
    for index, place in max_pooling(x, kernel, stride)[1].items():
        mask[(*index[:2], *place)] = 1
    return mask


def average_pooling(x, kernel, stride):
    """Return the mean of every window."""
    output = {}
    for index, (top, left) in _windows(x, kernel, stride):
        window = x[index[0], index[1], top : top + kernel, left : left + kernel]
        output[index] = sum(float(value) for value in window.ravel()) / kernel**2
    shape = tuple(1 + np.max(list(output), axis=0))
    return np.array(list(output.values())).reshape(shape)


def average_pooling_gradient(x, top_diff, kernel, stride):
    """Return the input's gradient: every pixel of a window gets an equal share."""
    bottom_diff = np.zeros(x.shape)
    for index, (top, left) in _windows(x, kernel, stride):
        for row in range(top, top + kernel):
            for column in range(left, left + kernel):
                bottom_diff[(*index[:2], row, column)] += float(top_diff[index]) / kernel**2
    return bottom_diff


def gram(features):
    """Return the Gram matrices (N, C, C) of features (N, C, H, W)."""
    features = np.asarray(features, dtype=np.float64)
    return np.einsum("nahw,nbhw->nab", features, features)


def style_loss(features, style):
    """Return (loss, gradient): Gatys' style loss, the style's Gram matrix scaled to the size."""
    features, style = (np.asarray(a, dtype=np.float64) for a in (features, style))
    n, c, h, w = features.shape
    difference = gram(features) - gram(style) * (h * w) / (style.shape[2] * style.shape[3])
    scale = 1.0 / (n * c**2 * h**2 * w**2)
    gradient = scale * np.einsum("nab,nbhw->nahw", difference, features)
    return 0.25 * scale * float(np.sum(difference**2)), gradient


def adam(x, gradients, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Return the list of numbers `x` after Adam's steps, one number and one step at a time."""
    x = list(x)
    for i in range(len(x)):
        first = second = 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = float(gradient[i])
            first = beta1 * first + (1 - beta1) * g
            second = beta2 * second + (1 - beta2) * g * g
            unbiased_first = first / (1 - beta1**t)
            unbiased_second = second / (1 - beta2**t)
            x[i] -= lr * unbiased_first / (unbiased_second**0.5 + eps)
    return x


def oklab(rgb):
    """Return L, a and b by the author's published C code.

    Levels of sRGB are from 0 to 255; fractions are allowed.
    """
    values = np.clip(np.asarray(rgb, dtype=np.float64), 0, 255) / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    r, g, b = np.moveaxis(linear, -1, 0)
    long = np.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    medium = np.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    short = np.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return np.stack(
        [
            0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
            1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
            0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
        ],
        axis=-1,
    )

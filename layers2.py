"""Convolution, pooling and flattening (course book, experiments 3-1 and 3-3).

Every layer that slides a window exists twice. `type=0` is the definition: the loops of the book,
term by term, slow enough to watch. `type=1` computes the same sums with whole arrays; for the
convolution that is a story of its own, told in `conv_kernels.py`. The tests hold the two against
each other, and both against finite differences.

Letters: N pictures, C channels, H x W pixels, K the side of a window, s the stride, p the padding.
Arrays are (N, C, H, W) in shape. In memory the fast paths keep the C values of a pixel side by
side (channels last); transposing such an array costs nothing, so callers need not care.
Output size, with or without loops:  Ho = floor((H + 2p - K) / s) + 1, and Wo likewise.
"""

import time

import numpy as np

from fast import convolution as conv_kernels
from fast.strips import run_strips, strips_of_rows
from layers1 import descend, draw_weights
from support.checks import (
    check_floating,
    check_not_negative,
    check_pictures,
    check_positive,
    check_shape,
)


def output_size(height, width, kernel_size, stride, padding=0):
    """Return (Ho, Wo), how many windows fit below and beside each other.

    Raises
    ------
    ValueError
        If not even one fits.
    """
    if kernel_size > min(height, width) + 2 * padding:
        raise ValueError(
            f"a {kernel_size}x{kernel_size} window does not fit: the input is {height}x{width}, "
            f"with padding {padding} {height + 2 * padding}x{width + 2 * padding}"
        )
    return (
        (height + 2 * padding - kernel_size) // stride + 1,
        (width + 2 * padding - kernel_size) // stride + 1,
    )


def _check_type(type):
    if type not in (0, 1):
        raise ValueError(f"type must be 0 (raw loops) or 1 (fast), got {type!r}")


class ConvolutionalLayer:
    """A small window of weights slides over the picture and answers where it finds its pattern.

        y[n, k, h, w] = b[k] + sum over c, i, j of  x_pad[n, c, s h + i, s w + j] * W[c, i, j, k]

    Book: sections 3-1 and 3-3. (Strictly a cross-correlation: the window is not turned.)

    Parameters
    ----------
    kernel_size, channel_in, channel_out : int
        K, C and the number of output channels, each at least 1.
    padding : int
        Zeros put around the picture, at least 0.
    stride : int
        Pixels between neighbouring windows, at least 1.
    type : {1, 0}, default=1
        1 the fast path, 0 the raw loops. The book's lab defaults to 0.
    algorithm : {None, 'im2col', 'kn2row', 'winograd'}, default=None
        Forces the fast path to one algorithm of `conv_kernels`; None leaves the choice to
        `conv_kernels.choose_algorithm`.

    Attributes
    ----------
    weight : ndarray of shape (channel_in, K, K, channel_out)
    bias : ndarray of shape (channel_out,)
    d_weight, d_bias : ndarray
        Gradients of the shapes of `weight` and `bias`; set by `backward`.
    input : ndarray of shape (N, channel_in, H, W)
        What the last `forward` was given.
    input_pad : ndarray of shape (N, channel_in, H + 2 padding, W + 2 padding)
        The same with zeros around it.
    output : ndarray of shape (N, channel_out, Ho, Wo)
    forward_time, backward_time : float
        Seconds of the last call.

    Examples
    --------
    >>> layer = ConvolutionalLayer(3, 1, 1, 1, 1)
    >>> layer.load_param(np.ones((1, 3, 3, 1)), np.zeros(1))
    >>> layer.forward(np.ones((1, 1, 2, 3)))
    array([[[[4., 6., 4.],
             [4., 6., 4.]]]])
    """

    def __init__(
        self, kernel_size, channel_in, channel_out, padding, stride, type=1, algorithm=None
    ):
        check_positive(
            kernel_size=kernel_size, channel_in=channel_in, channel_out=channel_out, stride=stride
        )
        check_not_negative(padding=padding)
        _check_type(type)
        conv_kernels.check_algorithm(algorithm, kernel_size, stride)
        self.kernel_size = kernel_size
        self.channel_in = channel_in
        self.channel_out = channel_out
        self.padding = padding
        self.stride = stride
        self.type = type
        self.algorithm = algorithm
        # parameters
        self.weight = None
        self.bias = None
        self.frozen = False
        self._prepared = {}  # while frozen: which weight, and its form for each algorithm
        # gradients
        self.d_weight = None
        self.d_bias = None
        # saved by forward
        self.input = None
        self.input_pad = None
        self.output = None
        self._padded = None  # the buffer that `input_pad` is a view of
        # seconds
        self.forward_time = None
        self.backward_time = None

    def init_param(self, std=0.01, rng=None):
        """Draw new float32 weights from a normal distribution around 0; the bias becomes 0.

        Parameters
        ----------
        std : float or "he", default=0.01
            Standard deviation; "he" stands for sqrt(2 / (channel_in K K)).
        rng : None, int or numpy.random.Generator, default=None
            Source of randomness; an int is a seed.
        """
        K = self.kernel_size
        shape = (self.channel_in, K, K, self.channel_out)
        weight = draw_weights(shape, std, self.channel_in * K * K, rng)
        self._set_param(weight, np.zeros(self.channel_out, dtype=np.float32))

    def load_param(self, weight, bias):
        """Replace the parameters by copies of `weight` and `bias`.

        Parameters
        ----------
        weight : ndarray of shape (channel_in, K, K, channel_out)
        bias : ndarray of shape (channel_out,)

        Raises
        ------
        ValueError, TypeError
            If a shape is another, or the values are not floating point.
        """
        K = self.kernel_size
        check_shape("weight", weight, (self.channel_in, K, K, self.channel_out))
        check_shape("bias", bias, (self.channel_out,))
        self._set_param(weight.copy(), bias.copy())

    def _set_param(self, weight, bias):
        self.weight, self.bias = weight, bias
        self.frozen = False
        self._prepared = {}

    def save_param(self):
        """Return copies of (weight, bias)."""
        self._check_has_param()
        return self.weight.copy(), self.bias.copy()

    def freeze(self):
        """Declare the parameters final, as in a network that is used but not trained.

        Their transforms are then computed once and kept, and `backward` leaves out the weight and
        bias gradients. The arrays become read-only, so that nothing can change behind the
        transforms; `init_param` and `load_param` end the state.
        """
        self._check_has_param()
        self.weight.flags.writeable = False
        self.bias.flags.writeable = False
        self.frozen = True

    def update_param(self, lr):
        """Take one step of gradient descent: W <- W - lr dL/dW, b <- b - lr dL/db."""
        d_weight, d_bias = self.get_gradient()
        self.weight = descend(self.weight, d_weight, lr)
        self.bias = descend(self.bias, d_bias, lr)

    def get_gradient(self):
        """Return (d_weight, d_bias) of the last `backward`.

        Raises
        ------
        RuntimeError
            If there was none, or the layer is frozen.
        """
        if self.frozen:
            raise RuntimeError("a frozen layer has no weight gradients")
        if self.d_weight is None:
            raise RuntimeError("the gradients need a backward pass first")
        return self.d_weight, self.d_bias

    def get_forward_time(self):
        """Return the seconds that the last `forward` took."""
        if self.forward_time is None:
            raise RuntimeError("the time needs a forward pass first")
        return self.forward_time

    def get_backward_time(self):
        """Return the seconds that the last `backward` took."""
        if self.backward_time is None:
            raise RuntimeError("the time needs a backward pass first")
        return self.backward_time

    def _check_has_param(self):
        if self.weight is None:
            raise RuntimeError("the layer has no parameters: call init_param or load_param first")

    def _start_forward(self, input):
        """Check everything `forward` needs; return (Ho, Wo)."""
        self._check_has_param()
        check_pictures("input", input, self.channel_in)
        return output_size(*input.shape[2:], self.kernel_size, self.stride, self.padding)

    def _start_backward(self, top_diff):
        """Check everything `backward` needs; return top_diff in the dtype of the input."""
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        check_shape("top_diff", top_diff, self.output.shape)
        return top_diff.astype(self.input.dtype, copy=False)

    def forward(self, input):
        """Convolve, the way `type` says; see `forward_raw` for shapes and errors."""
        return self.forward_speedup(input) if self.type else self.forward_raw(input)

    def backward(self, top_diff):
        """Carry the gradient back, the way `type` says; see `backward_raw`."""
        return self.backward_speedup(top_diff) if self.type else self.backward_raw(top_diff)

    # ---- type=0: the definition ---------------------------------------------------------------

    def forward_raw(self, input):
        """Convolve with the four loops of the definition.

        Parameters
        ----------
        input : ndarray of shape (N, channel_in, H, W)

        Returns
        -------
        output : ndarray of shape (N, channel_out, Ho, Wo)
            Of the input's dtype.

        Raises
        ------
        ValueError, TypeError
            If the shape or dtype does not fit the layer, or no window fits the picture.
        RuntimeError
            If the layer has no parameters.
        """
        start = time.perf_counter()
        Ho, Wo = self._start_forward(input)
        N, C, H, W = input.shape
        K, s, p = self.kernel_size, self.stride, self.padding
        self.input = input
        self._padded = None
        self.input_pad = np.zeros((N, C, H + 2 * p, W + 2 * p), input.dtype)
        self.input_pad[:, :, p : p + H, p : p + W] = input
        self.output = np.zeros((N, self.channel_out, Ho, Wo), input.dtype)
        for n in range(N):
            for k in range(self.channel_out):
                for h in range(Ho):
                    for w in range(Wo):
                        window = self.input_pad[n, :, s * h : s * h + K, s * w : s * w + K]
                        self.output[n, k, h, w] = (
                            np.sum(window * self.weight[:, :, :, k]) + self.bias[k]
                        )
        self.forward_time = time.perf_counter() - start
        return self.output

    def backward_raw(self, top_diff):
        """Carry the gradient back with the four loops of the definition.

        Each output y[n, k, h, w] is a sum over one window, so each of its terms has a partial
        derivative that can be read off:

            dy/dW[:, :, :, k] = the window of x_pad
            dy/db[k]          = 1
            dy/d(window)      = W[:, :, :, k]

        A weight, a bias and a pixel each take part in many outputs; their gradients add up over
        all of these, weighted by top_diff = dL/dy. Windows overlap, hence `+=`.

        Parameters
        ----------
        top_diff : ndarray of shape (N, channel_out, Ho, Wo)

        Returns
        -------
        bottom_diff : ndarray of shape (N, channel_in, H, W)

        Raises
        ------
        RuntimeError
            If called before `forward`.
        ValueError, TypeError
            If `top_diff` has another shape or no floating-point values.
        """
        start = time.perf_counter()
        top_diff = self._start_backward(top_diff)
        N, C, H, W = self.input.shape
        Ho, Wo = top_diff.shape[2:]
        K, s, p = self.kernel_size, self.stride, self.padding
        self.d_weight = np.zeros(self.weight.shape, top_diff.dtype)
        self.d_bias = np.zeros(self.bias.shape, top_diff.dtype)
        pad_diff = np.zeros(self.input_pad.shape, top_diff.dtype)
        for n in range(N):
            for k in range(self.channel_out):
                for h in range(Ho):
                    for w in range(Wo):
                        rows, columns = slice(s * h, s * h + K), slice(s * w, s * w + K)
                        g = top_diff[n, k, h, w]
                        self.d_weight[:, :, :, k] += g * self.input_pad[n, :, rows, columns]
                        self.d_bias[k] += g
                        pad_diff[n, :, rows, columns] += g * self.weight[:, :, :, k]
        self.backward_time = time.perf_counter() - start
        return pad_diff[:, :, p : p + H, p : p + W]  # what fell on the padding is of no use

    # ---- type=1: the same sums as matrix products ---------------------------------------------

    def forward_speedup(self, input):
        """Convolve by the algorithm that suits the shapes; interface of `forward_raw`."""
        start = time.perf_counter()
        Ho, Wo = self._start_forward(input)
        H, W = input.shape[2:]
        p = self.padding
        self.input = input
        padded = self._padded = conv_kernels.pad(input, p)
        # (N, Hp, Wp, C) -> (N, C, Hp, Wp), without the overhang that `pad` adds for the tiles
        self.input_pad = padded[:, : H + 2 * p, : W + 2 * p].transpose(0, 3, 1, 2)
        algorithm = self.algorithm or conv_kernels.choose_algorithm(
            self.kernel_size, self.stride, self.channel_in, self.channel_out
        )
        self.output = conv_kernels.convolve(
            padded,
            self.prepared(algorithm, input.dtype),
            self.bias.astype(input.dtype, copy=False),
            (Ho, Wo, self.channel_out),
            self.kernel_size,
            self.stride,
            algorithm,
        ).transpose(0, 3, 1, 2)  # (N, Ho, Wo, K) -> (N, K, Ho, Wo)
        self.forward_time = time.perf_counter() - start
        return self.output

    def backward_speedup(self, top_diff):
        """Carry the gradient back as another convolution; interface of `backward_raw`.

        The pixel x[h, w] took part in the outputs y[h - i, w - j] with the weights W[i, j] (stride
        1, no padding, one channel), so

            dL/dx[h, w] = sum over i, j of  dy[h - i, w - j] * W[i, j]

        which is the convolution of dy, padded by K - 1 zeros, with the filter turned by 180
        degrees; C and K change places. With a stride, dy is first spread out, zeros between. The
        weight gradient is a correlation too, of the padded input with dy:

            dL/dW[c, i, j, k] = sum over n, h, w of  x_pad[n, c, s h + i, s w + j] * dy[n, k, h, w]

        A frozen layer computes the first of the two only.
        """
        start = time.perf_counter()
        top_diff = self._start_backward(top_diff)
        if not self.frozen:
            if self._padded is None:  # the forward pass was the raw one
                self._padded = conv_kernels.pad(self.input, self.padding)
            self.d_weight = conv_kernels.weight_gradient(
                self._padded, top_diff, self.kernel_size, self.stride, self.algorithm
            )
            self.d_bias = top_diff.sum(axis=(0, 2, 3))
        H, W = self.input.shape[2:]
        spread = conv_kernels.spread(top_diff, (H, W), self.kernel_size, self.stride, self.padding)
        algorithm = self.algorithm or conv_kernels.choose_algorithm(
            self.kernel_size, 1, self.channel_out, self.channel_in
        )
        bottom_diff = conv_kernels.convolve(
            spread,
            self.prepared(algorithm, top_diff.dtype, turned=True),
            None,
            (H, W, self.channel_in),
            self.kernel_size,
            1,
            algorithm,
        ).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        self.backward_time = time.perf_counter() - start
        return bottom_diff

    def prepared(self, algorithm, dtype, turned=False):
        """Return the filters in the form that `algorithm` multiplies with.

        With `turned`, those of the data gradient: rotated by 180 degrees, C and K exchanged. A
        frozen layer computes each form once; otherwise it may be overwritten by the next call.
        """
        key = (algorithm, np.dtype(dtype), turned)
        of, filters = self._prepared.get(key, (None, None))
        if of is self.weight:
            return filters
        weight = self.weight.astype(dtype, copy=False)
        if turned:
            weight = weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)  # (C, K, K, Co) -> (Co, K, K, C)
        filters = conv_kernels.prepare_filters(weight, algorithm, keep=self.frozen)
        if self.frozen:
            self._prepared[key] = (self.weight, filters)
        return filters


class _PoolingLayer:
    """What the two pooling layers have in common: geometry, checks and the choice by `type`."""

    def __init__(self, kernel_size, stride, type=1):
        check_positive(kernel_size=kernel_size, stride=stride)
        _check_type(type)
        self.kernel_size = kernel_size
        self.stride = stride
        self.type = type
        # saved by forward
        self.input = None
        self.output = None

    def forward(self, input):
        """Pool, the way `type` says; see `forward_raw` for shapes and errors."""
        return self.forward_speedup(input) if self.type else self.forward_raw(input)

    def backward(self, top_diff):
        """Carry the gradient back, the way `type` says; see `backward_raw`."""
        return self.backward_speedup(top_diff) if self.type else self.backward_raw(top_diff)

    def _start_forward(self, input):
        """Check and keep `input`; return (Ho, Wo)."""
        check_pictures("input", input)
        size = output_size(*input.shape[2:], self.kernel_size, self.stride)
        self.input = input
        return size

    def _start_backward(self, top_diff):
        """Check `top_diff`; return it in the dtype of the input."""
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        check_shape("top_diff", top_diff, self.output.shape)
        return top_diff.astype(self.input.dtype, copy=False)

    def _window(self, h, w):
        """Return the slices of rows and columns under the window of output (h, w)."""
        K, s = self.kernel_size, self.stride
        return slice(s * h, s * h + K), slice(s * w, s * w + K)

    def _shifted(self, array, i, j, y0, y1, Wo):
        """Return the view of what position (i, j) of all windows of rows y0 to y1 looks at.

        `array` is one picture, (H, W, C). One such view for each position in the window, K * K in
        all, holds the whole layer: pooling is a fold over them.
        """
        s = self.stride
        return array[s * y0 + i : s * (y1 - 1) + i + 1 : s, j : s * (Wo - 1) + j + 1 : s]

    def _strips(self, Ho, overlap_matters):
        """Return (picture, first row, last row + 1) of the parts that threads may share."""
        N, C, _, W = self.input.shape
        rows = conv_kernels.STRIP_BYTES // (W * C * self.input.itemsize * self.stride)
        if overlap_matters and self.kernel_size > self.stride:
            rows = Ho  # windows of neighbouring rows add to the same pixels
        return strips_of_rows(N, Ho, rows)


class MaxPoolingLayer(_PoolingLayer):
    """Of each window only the largest value is kept.

        y[n, c, h, w] = max over i, j of  x[n, c, s h + i, s w + j]

    Book: section 3-1. The picture shrinks by s, and what was found counts more than where.

    Parameters
    ----------
    kernel_size, stride : int
        K and s, each at least 1; windows overlap where K > s.
    type : {1, 0}, default=1
        1 the fast path, 0 the raw loops.

    Attributes
    ----------
    input : ndarray of shape (N, C, H, W)
    output : ndarray of shape (N, C, Ho, Wo)
    winner : ndarray of shape (N, C, Ho, Wo), integers
        Where in its window each maximum stood, as i * K + j; the first in that order on a tie.
    max_index : ndarray of shape (N, C, H, W)
        1 where a pixel is the maximum of some window, 0 elsewhere; built when asked for.

    Examples
    --------
    >>> layer = MaxPoolingLayer(2, 2)
    >>> layer.forward(np.array([[[[1.0, 2.0, 5.0, 5.0], [4.0, 3.0, 5.0, 0.0]]]]))
    array([[[[4., 5.]]]])
    >>> layer.backward(np.array([[[[10.0, 20.0]]]]))
    array([[[[ 0.,  0., 20.,  0.],
             [10.,  0.,  0.,  0.]]]])
    """

    def __init__(self, kernel_size, stride, type=1):
        super().__init__(kernel_size, stride, type)
        self.winner = None  # saved by forward

    @property
    def max_index(self):
        if self.winner is None:
            raise RuntimeError("max_index needs a forward pass first")
        mask = np.zeros(self.input.shape, self.input.dtype)
        K, s = self.kernel_size, self.stride
        n, c, h, w = np.indices(self.winner.shape)
        mask[n, c, s * h + self.winner // K, s * w + self.winner % K] = 1
        return mask

    def forward_raw(self, input):
        """Take the maximum of each window, one window at a time.

        Parameters
        ----------
        input : ndarray of shape (N, C, H, W)

        Returns
        -------
        output : ndarray of shape (N, C, Ho, Wo)

        Raises
        ------
        ValueError, TypeError
            If `input` is not a floating-point array of this form, or no window fits into it.
        """
        Ho, Wo = self._start_forward(input)
        N, C = input.shape[:2]
        self.output = np.zeros((N, C, Ho, Wo), input.dtype)
        self.winner = np.zeros((N, C, Ho, Wo), np.intp)
        for n in range(N):
            for c in range(C):
                for h in range(Ho):
                    for w in range(Wo):
                        window = input[n, c][self._window(h, w)]
                        self.winner[n, c, h, w] = np.argmax(window)  # the first, row by row
                        self.output[n, c, h, w] = np.max(window)
        return self.output

    def backward_raw(self, top_diff):
        """Hand each gradient to the pixel that was the maximum, one window at a time.

        y = x[winner], so dy/dx is 1 there and 0 at the other pixels of the window. A pixel that
        won several overlapping windows collects from all of them.

        Parameters
        ----------
        top_diff : ndarray of shape (N, C, Ho, Wo)

        Returns
        -------
        bottom_diff : ndarray of shape (N, C, H, W)

        Raises
        ------
        RuntimeError
            If called before `forward`.
        ValueError, TypeError
            If `top_diff` has another shape or no floating-point values.
        """
        top_diff = self._start_backward(top_diff)
        bottom_diff = np.zeros(self.input.shape, top_diff.dtype)
        K, s = self.kernel_size, self.stride
        for n, c, h, w in np.ndindex(top_diff.shape):
            i, j = divmod(int(self.winner[n, c, h, w]), K)
            bottom_diff[n, c, s * h + i, s * w + j] += top_diff[n, c, h, w]
        return bottom_diff

    def forward_speedup(self, input):
        """Take the maximum over the K * K shifted views; interface of `forward_raw`."""
        Ho, Wo = self._start_forward(input)
        N, C = input.shape[:2]
        K = self.kernel_size
        x = input.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        output = np.empty((N, Ho, Wo, C), input.dtype)
        winner = np.zeros((N, Ho, Wo, C), np.min_scalar_type(K * K - 1))

        def strip(n, y0, y1):
            best, where = output[n, y0:y1], winner[n, y0:y1]
            best[...] = self._shifted(x[n], 0, 0, y0, y1, Wo)
            for position in range(1, K * K):
                candidate = self._shifted(x[n], *divmod(position, K), y0, y1, Wo)
                # Positions only grow, so the largest that was ever greater is the last winner.
                np.maximum(where, (candidate > best) * where.dtype.type(position), out=where)
                np.maximum(best, candidate, out=best)

        run_strips(strip, self._strips(Ho, overlap_matters=False))
        self.winner = winner.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        self.output = output.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        return self.output

    def backward_speedup(self, top_diff):
        """Hand the gradients back through the shifted views; interface of `backward_raw`."""
        top_diff = self._start_backward(top_diff)
        N, C, H, W = self.input.shape
        Ho, Wo = top_diff.shape[2:]
        K = self.kernel_size
        dy = top_diff.transpose(0, 2, 3, 1)  # (N, C, Ho, Wo) -> (N, Ho, Wo, C)
        winner = self.winner.transpose(0, 2, 3, 1)  # (N, C, Ho, Wo) -> (N, Ho, Wo, C)
        dx = np.zeros((N, H, W, C), dy.dtype)

        def strip(n, y0, y1):
            for position in range(K * K):
                view = self._shifted(dx[n], *divmod(position, K), y0, y1, Wo)
                view += dy[n, y0:y1] * (winner[n, y0:y1] == position)

        run_strips(strip, self._strips(Ho, overlap_matters=True))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class AveragePoolingLayer(_PoolingLayer):
    """Each window is replaced by its mean.

        y[n, c, h, w] = 1/K^2 sum over i, j of  x[n, c, s h + i, s w + j]

    Gatys et al. (CVPR 2016, section 2) prefer it to the maximum for style transfer. Parameters,
    interface and errors are those of `MaxPoolingLayer`.

    Attributes
    ----------
    input : ndarray of shape (N, C, H, W)
    output : ndarray of shape (N, C, Ho, Wo)

    Examples
    --------
    >>> layer = AveragePoolingLayer(2, 2)
    >>> layer.forward(np.array([[[[1.0, 2.0], [4.0, 3.0]]]]))
    array([[[[2.5]]]])
    """

    def forward_raw(self, input):
        """Take the mean of each window, one window at a time; see `MaxPoolingLayer`."""
        Ho, Wo = self._start_forward(input)
        N, C = input.shape[:2]
        self.output = np.zeros((N, C, Ho, Wo), input.dtype)
        for n, c, h, w in np.ndindex(N, C, Ho, Wo):
            self.output[n, c, h, w] = np.mean(input[n, c][self._window(h, w)])
        return self.output

    def backward_raw(self, top_diff):
        """Spread each gradient evenly over its window: dy/dx = 1/K^2 at each of its pixels."""
        top_diff = self._start_backward(top_diff)
        bottom_diff = np.zeros(self.input.shape, top_diff.dtype)
        for n, c, h, w in np.ndindex(top_diff.shape):
            bottom_diff[n, c][self._window(h, w)] += top_diff[n, c, h, w] / self.kernel_size**2
        return bottom_diff

    def forward_speedup(self, input):
        """Add up the K * K shifted views; interface of `forward_raw`."""
        Ho, Wo = self._start_forward(input)
        N, C = input.shape[:2]
        K = self.kernel_size
        x = input.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        output = np.empty((N, Ho, Wo, C), input.dtype)

        def strip(n, y0, y1):
            total = output[n, y0:y1]
            total[...] = self._shifted(x[n], 0, 0, y0, y1, Wo)
            for position in range(1, K * K):
                total += self._shifted(x[n], *divmod(position, K), y0, y1, Wo)
            total /= K * K

        run_strips(strip, self._strips(Ho, overlap_matters=False))
        self.output = output.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        return self.output

    def backward_speedup(self, top_diff):
        """Spread the gradients through the shifted views; interface of `backward_raw`."""
        top_diff = self._start_backward(top_diff)
        N, C, H, W = self.input.shape
        Ho, Wo = top_diff.shape[2:]
        K = self.kernel_size
        dy = top_diff.transpose(0, 2, 3, 1)  # (N, C, Ho, Wo) -> (N, Ho, Wo, C)
        dx = np.zeros((N, H, W, C), dy.dtype)

        def strip(n, y0, y1):
            share = dy[n, y0:y1] / (K * K)
            for position in range(K * K):
                view = self._shifted(dx[n], *divmod(position, K), y0, y1, Wo)
                view += share

        run_strips(strip, self._strips(Ho, overlap_matters=True))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class FlattenLayer:
    """Lays the maps of a picture out as one row of features, for a fully connected layer.

    MatConvNet, whose weights the book uses, orders the features by height, width, channel; so does
    this layer. Book: section 3-1.

    Parameters
    ----------
    input_shape : sequence of 3 int
        (C, H, W) of a picture.
    output_shape : sequence of int
        Shape of a picture's features, usually [C * H * W].

    Examples
    --------
    >>> layer = FlattenLayer([2, 1, 2], [4])
    >>> layer.forward(np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]]))  # two channels, of 1x2 pixels
    array([[1., 3., 2., 4.]])
    """

    def __init__(self, input_shape, output_shape):
        if len(input_shape) != 3:
            raise ValueError(f"expected input_shape (C, H, W), got {tuple(input_shape)}")
        if min(*input_shape, *output_shape, 1) < 1:
            raise ValueError(
                f"every size must be at least 1, got input_shape {tuple(input_shape)} "
                f"and output_shape {tuple(output_shape)}"
            )
        if np.prod(input_shape) != np.prod(output_shape):
            raise ValueError(
                f"input_shape {tuple(input_shape)} and output_shape {tuple(output_shape)} "
                "hold different numbers of values"
            )
        self.input_shape = tuple(input_shape)
        self.output_shape = tuple(output_shape)
        # saved by forward
        self.batch_size = None
        self.output = None

    def forward(self, input):
        """Return the features of each picture, a new array.

        Parameters
        ----------
        input : ndarray of shape (N, C, H, W)

        Returns
        -------
        output : ndarray of shape (N, *output_shape)

        Raises
        ------
        ValueError, TypeError
            If the shape is another or the values are not floating point.
        """
        check_floating("input", input)
        if input.ndim != 4 or len(input) == 0 or input.shape[1:] != self.input_shape:
            raise ValueError(
                f"expected input of shape (N, {', '.join(map(str, self.input_shape))}), "
                f"got {input.shape}"
            )
        self.batch_size = len(input)
        # (N, C, H, W) -> (N, H, W, C) -> (N, H W C)
        self.output = input.transpose(0, 2, 3, 1).reshape(len(input), *self.output_shape).copy()
        return self.output

    def backward(self, top_diff):
        """Put every value back where it came from, the exact inverse of `forward`.

        Parameters
        ----------
        top_diff : ndarray of shape (N, *output_shape)

        Returns
        -------
        bottom_diff : ndarray of shape (N, C, H, W)

        Raises
        ------
        RuntimeError
            If called before `forward`.
        ValueError, TypeError
            If `top_diff` has another shape or no floating-point values.
        """
        if self.batch_size is None:
            raise RuntimeError("backward needs a forward pass first")
        check_shape("top_diff", top_diff, (self.batch_size, *self.output_shape))
        C, H, W = self.input_shape
        # (N, H W C) -> (N, H, W, C) -> (N, C, H, W)
        return top_diff.reshape(self.batch_size, H, W, C).transpose(0, 3, 1, 2).copy()

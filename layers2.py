"""Convolution, pooling and flattening (course book, experiments 3-1 and 3-3).

Every layer with a sliding window has two paths with one interface. `type=0` is the definition: the
loops of the book, term by term, slow enough to watch. `type=1` computes the same sums with whole
arrays; `fast/` explains how the convolution gets fast.

Letters: N pictures, C channels in, H x W pixels, K the side of a window, Co channels out, Ho x Wo
output pixels, s the stride, p the padding, L the loss.

- `forward` takes the input x (N, C, H, W) and returns the output y (N, Co, Ho, Wo), or for pooling
  (N, C, Ho, Wo), with  Ho = floor((H + 2p - K) / s) + 1,  and Wo likewise.
- `backward` takes `top_diff` = dL/dy, of the shape of y, and returns `bottom_diff` = dL/dx, of the
  shape of x. Both paths exist as `forward_raw`, `forward_speedup` and so on.
- Results are new arrays of the dtype of x, float32 or float64; integers and booleans count as
  float32.
- Every method checks its arguments: TypeError for a wrong type or dtype, ValueError for a wrong
  shape or value, RuntimeError if it is called too early.
"""

import time

import numpy as np

from fast import convolution, winograd
from fast.padded import dilated, pad
from fast.strips import product, run_strips, strips_of_bytes
from layers1 import check_has_param, descend, draw_weights, select
from support.checks import check_not_negative, check_pictures, check_positive, check_shape


class _WindowLayer:
    """What the layers with a sliding window share: the choice by `type`, windows and checks."""

    padding = 0  # of pooling; the convolution has its own

    def __init__(self, kernel_size, stride, type=1):
        check_positive(kernel_size=kernel_size, stride=stride)
        if type not in (0, 1):
            raise ValueError(f"type must be 0 (raw loops) or 1 (fast), got {type!r}")
        self.kernel_size = kernel_size
        self.stride = stride
        self.type = type
        self.input = self.output = None  # saved by forward

    def forward(self, input):
        """Return the output, by the path that `type` selects."""
        return self.forward_speedup(input) if self.type else self.forward_raw(input)

    def backward(self, top_diff):
        """Return the gradient with respect to the input, by the path that `type` selects."""
        return self.backward_speedup(top_diff) if self.type else self.backward_raw(top_diff)

    def _start_forward(self, input, channels=None):
        """Check and keep the input; return it and (N, C, Ho, Wo)."""
        input = check_pictures("input", input, channels)
        N, C, H, W = input.shape
        K, s, p = self.kernel_size, self.stride, self.padding
        if K > min(H, W) + 2 * p:
            raise ValueError(
                f"a {K}x{K} window does not fit: the input is {H}x{W}, "
                f"with padding {p} {H + 2 * p}x{W + 2 * p}"
            )
        self.input = input
        return input, (N, C, (H + 2 * p - K) // s + 1, (W + 2 * p - K) // s + 1)

    def _window(self, h, w):
        """Return the rows and columns of the padded input that output pixel (h, w) reads."""
        K, s = self.kernel_size, self.stride
        return slice(s * h, s * h + K), slice(s * w, s * w + K)

    def _checked(self, top_diff):
        """Check everything `backward` needs; return top_diff in the dtype of the input."""
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        top_diff = check_shape("top_diff", top_diff, self.output.shape)
        return top_diff.astype(self.input.dtype, copy=False)


class ConvolutionalLayer(_WindowLayer):
    """A small window of weights slides over the picture; the output is large at its pattern.

        y[n, k, h, w] = b[k] + sum over c, i, j of  x_pad[n, c, s h + i, s w + j] * W[c, i, j, k]

    Book: sections 3-1 and 3-3. (Strictly a cross-correlation: the window is not flipped.)

    Parameters
    ----------
    kernel_size, channel_in, channel_out, padding, stride : int
        K, C, Co, p and s; p is at least 0, the others at least 1.
    type : {1, 0}, default=1
        1 the fast path, 0 the raw loops. The book's lab has 0 as default.
    algorithm : {None, 'im2col', 'kn2row', 'winograd4', 'winograd6'}, default=None
        What the fast path uses; None is the fastest, by `fast.convolution.choose`.

    Attributes
    ----------
    weight, bias : ndarrays of shape (C, K, K, Co) and (Co,)
    d_weight, d_bias : ndarrays of the same shapes
        dL/dW and dL/db, set by `backward`.
    input, output : ndarray
        x and y of the last `forward`.
    input_pad : ndarray of shape (N, C, H + 2p, W + 2p)
        x with zeros around it.
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

    kind = "convolution"

    def __init__(
        self, kernel_size, channel_in, channel_out, padding, stride, type=1, algorithm=None
    ):
        super().__init__(kernel_size, stride, type)
        check_positive(channel_in=channel_in, channel_out=channel_out)
        check_not_negative(padding=padding)
        convolution.check_algorithm(algorithm, kernel_size, stride)
        self.channel_in = channel_in
        self.channel_out = channel_out
        self.padding = padding
        self.algorithm = algorithm
        self.weight = self.bias = None
        self.frozen = False
        self._prepared = {}  # while frozen: the weight, and its last form for each dtype
        self.d_weight = self.d_bias = None
        self.input_pad = self._padded = None  # saved by forward; the first is a view of the second
        self.forward_time = self.backward_time = None

    def init_param(self, std=0.01, rng=None):
        """Draw new float32 weights (see `layers1.draw_weights`) and set the bias to 0."""
        K = self.kernel_size
        shape = (self.channel_in, K, K, self.channel_out)
        weight = draw_weights(shape, std, self.channel_in * K * K, self.channel_out * K * K, rng)
        self.load_param(weight, np.zeros(self.channel_out, dtype=np.float32))

    def load_param(self, weight, bias):
        """Replace the parameters by copies of `weight` (C, K, K, Co) and `bias` (Co,)."""
        K = self.kernel_size
        weight = check_shape("weight", weight, (self.channel_in, K, K, self.channel_out))
        bias = check_shape("bias", bias, (self.channel_out,))
        self.weight, self.bias = weight.copy(), bias.copy()
        self.frozen = False
        self._prepared = {}

    def save_param(self):
        """Return copies of (weight, bias)."""
        check_has_param(self)
        return self.weight.copy(), self.bias.copy()

    def freeze(self):
        """Declare the parameters final, as in a network that is used but not trained.

        Their transforms are then computed once and kept, and `backward` computes only dL/dx. The
        arrays become read-only, because a stored transform would be wrong after a change.
        `init_param` and `load_param` unfreeze the layer.
        """
        check_has_param(self)
        self.weight.flags.writeable = False
        self.bias.flags.writeable = False
        self.frozen = True
        self.d_weight = self.d_bias = None

    def __setstate__(self, state):
        """Restore a copied or unpickled layer: NumPy makes the arrays of copies writeable."""
        self.__dict__.update(state)
        self._prepared = {}
        if self.frozen:
            self.freeze()

    def update_param(self, lr):
        """Take one step of gradient descent: W <- W - lr dL/dW, b <- b - lr dL/db."""
        d_weight, d_bias = self.get_gradient()
        self.weight = descend(self.weight, d_weight, lr)
        self.bias = descend(self.bias, d_bias, lr)

    def get_gradient(self):
        """Return (d_weight, d_bias) of the last `backward`; a frozen layer has none."""
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

    # ---- type=0: the definition ---------------------------------------------------------------

    def forward_raw(self, input):
        """Convolve one window at a time, with one filter after the other."""
        start = time.perf_counter()
        check_has_param(self)
        input, (N, C, Ho, Wo) = self._start_forward(input, self.channel_in)
        _, _, H, W = input.shape
        p = self.padding
        self._padded = None
        self.input_pad = np.zeros((N, C, H + 2 * p, W + 2 * p), input.dtype)
        self.input_pad[:, :, p : p + H, p : p + W] = input
        self.output = np.zeros((N, self.channel_out, Ho, Wo), input.dtype)
        for n, k, h, w in np.ndindex(self.output.shape):
            rows, columns = self._window(h, w)
            window = self.input_pad[n, :, rows, columns]  # (C, K, K)
            self.output[n, k, h, w] = np.sum(window * self.weight[:, :, :, k]) + self.bias[k]
        self.forward_time = time.perf_counter() - start
        return self.output

    def backward(self, top_diff, need_bottom_diff=True):
        """Set `d_weight` and `d_bias`, and return the gradient with respect to the input.

        With need_bottom_diff=False the result is None: for the first layer of a network, where
        nothing uses it.
        """
        backward = self.backward_speedup if self.type else self.backward_raw
        return backward(top_diff) if need_bottom_diff else backward(top_diff, False)

    def backward_raw(self, top_diff, need_bottom_diff=True):
        """Propagate the gradient back one window at a time.

        Each output y[n, k, h, w] is a sum over one window. The partial derivatives of its terms are

            dy/dW[:, :, :, k] = the window of x_pad
            dy/db[k]          = 1
            dy/d(window)      = W[:, :, :, k]

        A weight, a bias and a pixel each contribute to many outputs. Their gradients are the sums
        over all of these, weighted by top_diff = dL/dy. Windows overlap, hence `+=`.
        """
        start = time.perf_counter()
        top_diff = self._checked(top_diff)
        _, _, H, W = self.input.shape
        p = self.padding
        self.d_weight = np.zeros(self.weight.shape, top_diff.dtype)
        self.d_bias = np.zeros(self.bias.shape, top_diff.dtype)
        weight = self.weight.astype(top_diff.dtype, copy=False)
        pad_diff = np.zeros(self.input_pad.shape, top_diff.dtype)
        for n, k, h, w in np.ndindex(top_diff.shape):
            rows, columns = self._window(h, w)
            g = top_diff[n, k, h, w]
            self.d_weight[:, :, :, k] += g * self.input_pad[n, :, rows, columns]
            self.d_bias[k] += g
            pad_diff[n, :, rows, columns] += g * weight[:, :, :, k]
        if self.frozen:
            self.d_weight = self.d_bias = None
        self.backward_time = time.perf_counter() - start
        # nothing uses the gradient of the padding
        return pad_diff[:, :, p : p + H, p : p + W] if need_bottom_diff else None

    # ---- type=1: the same sums as matrix products ---------------------------------------------

    def forward_speedup(self, input):
        """Convolve by the algorithm that suits the shapes."""
        start = time.perf_counter()
        check_has_param(self)
        input, _ = self._start_forward(input, self.channel_in)
        padded = self._padded = pad(input, self.padding)
        # (N, H + 2p, W + 2p, C) -> (N, C, H + 2p, W + 2p)
        self.input_pad = padded.without_overhang.transpose(0, 3, 1, 2)
        bias = self.bias.astype(input.dtype, copy=False)
        output = convolution.convolve(padded, self.prepared(padded), bias)
        self.output = output.transpose(0, 3, 1, 2)  # (N, Ho, Wo, Co) -> (N, Co, Ho, Wo)
        self.forward_time = time.perf_counter() - start
        return self.output

    def backward_speedup(self, top_diff, need_bottom_diff=True):
        """Propagate the gradient back as another convolution.

        The pixel x[h, w] contributes to the outputs y[h - i, w - j] with the weights W[i, j]
        (stride 1, no padding, one channel), so

            dL/dx[h, w] = sum over i, j of  dy[h - i, w - j] * W[i, j]

        This is a convolution: pad dy by K - 1 zeros, rotate the filter by 180 degrees, swap input
        and output channels. With a stride, dy is first dilated: zeros between its values. The
        weight gradient is a correlation too, of the padded input with dy:

            dL/dW[c, i, j, k] = sum over n, h, w of  x_pad[n, c, s h + i, s w + j] * dy[n, k, h, w]

        A frozen layer computes only the first of the two.
        """
        start = time.perf_counter()
        top_diff = self._checked(top_diff)
        K, s, p = self.kernel_size, self.stride, self.padding
        if not self.frozen:
            if self._padded is None:  # the forward pass was the raw one
                self._padded = pad(self.input, p)
            self.d_weight = convolution.weight_gradient(
                self._padded, top_diff, K, s, self.algorithm
            )
            # as a matrix product: NumPy's sum over all axes but the last is ten times as slow
            rows = top_diff.transpose(0, 2, 3, 1).reshape(-1, self.channel_out)  # -> (P, Co)
            self.d_bias = product(np.ones((1, len(rows)), rows.dtype), rows)[0]
        bottom_diff = None
        if need_bottom_diff:
            dy = dilated(top_diff, self.input.shape[2:], K, s, p)
            flipped = self.prepared(dy, flipped=True)
            # (N, H, W, C) -> (N, C, H, W)
            bottom_diff = convolution.convolve(dy, flipped, None).transpose(0, 3, 1, 2)
        self.backward_time = time.perf_counter() - start
        return bottom_diff

    def prepared(self, padded, algorithm=None, flipped=False):
        """Return the `fast.convolution.Filters` of this layer for a `Padded`.

        With `flipped`, those of the data gradient, at stride 1. A frozen layer keeps the form that
        it used last, for each direction; otherwise the next call may overwrite it.
        """
        K, C, Co, s = self.kernel_size, self.channel_in, self.channel_out, self.stride
        if flipped:
            C, Co, s = Co, C, 1
        shape = (len(padded.array), *padded.output_size(K, s))
        algorithm = algorithm or self.algorithm or convolution.choose(K, s, C, Co, shape)
        dtype = padded.array.dtype
        two_way = winograd.two_way(convolution.TILES.get(algorithm), C, Co)
        key = (dtype, flipped and not two_way)
        source, filters = self._prepared.get(key, (None, None))
        if source is not self.weight or filters.algorithm != algorithm:
            weight = self.weight.astype(dtype, copy=False)
            filters = convolution.prepare(weight, s, algorithm, flipped, keep=self.frozen)
            if self.frozen:
                self._prepared[key] = (self.weight, filters)
        return filters._replace(flipped=flipped and two_way, channel_out=Co, stride=s)


class _PoolingLayer(_WindowLayer):
    """What the two pooling layers share: shifted views, and sums over overlapping windows."""

    def _shifted(self, array, position, y0, y1, Wo):
        """Return the view of pictures (n, H, W, C) that position i K + j of all windows reads.

        Only the windows of output rows y0 to y1. Pooling is a reduction over these K K views.
        """
        i, j = divmod(position, self.kernel_size)
        s = self.stride
        return array[:, s * y0 + i : s * (y1 - 1) + i + 1 : s, j : s * (Wo - 1) + j + 1 : s]

    def _strips(self, Ho, whole=False):
        """Return the strips of output rows, or of whole pictures."""
        N, C, _, W = self.input.shape
        row_bytes = W * C * self.input.itemsize * self.stride
        if whole:
            return [(n, 0, Ho) for n, _, _ in strips_of_bytes(N, 1, Ho * row_bytes)]
        return strips_of_bytes(N, Ho, row_bytes)

    def _add_up(self, top_diff, share):
        """Return dL/dx: at each position, add share(dy, n, y0, y1, position) to its pixels."""
        N, C, H, W = self.input.shape
        Ho, Wo = top_diff.shape[2:]
        dy = top_diff.transpose(0, 2, 3, 1)  # (N, C, Ho, Wo) -> (N, Ho, Wo, C)
        dx = np.zeros((N, H, W, C), dy.dtype)
        overlap = self.kernel_size > self.stride

        def strip(n, y0, y1):
            for position in range(self.kernel_size**2):
                view = self._shifted(dx[n], position, y0, y1, Wo)
                part = share(dy[n, y0:y1], n, y0, y1, position)
                if overlap:
                    view += part
                else:  # no pixel is in two windows; writing takes half the time
                    view[...] = part

        # Where windows overlap, neighbouring rows add to the same pixels.
        run_strips(strip, self._strips(Ho, whole=overlap))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class MaxPoolingLayer(_PoolingLayer):
    """Keep only the largest value of each window.

        y[n, c, h, w] = max over i, j of  x[n, c, s h + i, s w + j]

    Book: section 3-1. Height and width become s times smaller; the layer keeps whether a feature
    was found, not exactly where.

    Parameters
    ----------
    kernel_size, stride : int
        K and s, each at least 1; windows overlap if K > s.
    type : {1, 0}, default=1
        1 the fast path, 0 the raw loops.

    Attributes
    ----------
    argmax : ndarray of shape (N, C, Ho, Wo), integers
        The position of each maximum in its window, as i K + j; the first in that order on a tie.
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

    kind = "max pooling"
    argmax = None  # saved by forward

    @property
    def max_index(self):
        if self.argmax is None:  # an AttributeError, so that hasattr is False
            raise AttributeError("max_index needs a forward pass first")
        mask = np.zeros(self.input.shape, self.input.dtype)
        K, s = self.kernel_size, self.stride
        n, c, h, w = np.indices(self.argmax.shape)
        mask[n, c, s * h + self.argmax // K, s * w + self.argmax % K] = 1
        return mask

    def forward_raw(self, input):
        """Take the maximum of each window, one window at a time."""
        input, shape = self._start_forward(input)
        self.output = np.zeros(shape, input.dtype)
        self.argmax = np.zeros(shape, np.intp)
        for n, c, h, w in np.ndindex(shape):
            window = input[n, c][self._window(h, w)]
            self.argmax[n, c, h, w] = np.argmax(window)  # on a tie the first, row by row
            self.output[n, c, h, w] = np.max(window)
        return self.output

    def backward_raw(self, top_diff):
        """Give each gradient to the pixel that was the maximum, one window at a time.

        y = x[argmax], so dy/dx is 1 there and 0 at the other pixels of the window. A pixel that
        is the maximum of several overlapping windows receives the sum of their gradients.
        """
        top_diff = self._checked(top_diff)
        bottom_diff = np.zeros(self.input.shape, top_diff.dtype)
        K, s = self.kernel_size, self.stride
        for n, c, h, w in np.ndindex(top_diff.shape):
            i, j = divmod(int(self.argmax[n, c, h, w]), K)
            bottom_diff[n, c, s * h + i, s * w + j] += top_diff[n, c, h, w]
        return bottom_diff

    def forward_speedup(self, input):
        """Take the maximum over the K K shifted views."""
        input, (N, C, Ho, Wo) = self._start_forward(input)
        positions = self.kernel_size**2
        x = input.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        output = np.empty((N, Ho, Wo, C), input.dtype)
        argmax = np.zeros((N, Ho, Wo, C), np.min_scalar_type(positions - 1))

        def strip(n, y0, y1):
            best, where = output[n, y0:y1], argmax[n, y0:y1]
            best[...] = self._shifted(x[n], 0, y0, y1, Wo)
            for position in range(1, positions):
                candidate = self._shifted(x[n], position, y0, y1, Wo)
                # Positions are visited in increasing order, so the last one that is greater than
                # the maximum so far is the argmax.
                np.maximum(where, (candidate > best) * where.dtype.type(position), out=where)
                np.maximum(best, candidate, out=best)
            if np.isnan(best.min()):  # no comparison finds a NaN; the argmax is the first one
                for position in reversed(range(positions)):
                    where[np.isnan(self._shifted(x[n], position, y0, y1, Wo))] = position

        run_strips(strip, self._strips(Ho))
        self.argmax = argmax.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        self.output = output.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        return self.output

    def backward_speedup(self, top_diff):
        """Add the gradients to the K K shifted views."""
        top_diff = self._checked(top_diff)
        argmax = self.argmax.transpose(0, 2, 3, 1)  # (N, C, Ho, Wo) -> (N, Ho, Wo, C)
        return self._add_up(
            top_diff, lambda dy, n, y0, y1, position: select(argmax[n, y0:y1] == position, dy)
        )


class AveragePoolingLayer(_PoolingLayer):
    """Replace each window by its mean.

        y[n, c, h, w] = 1/K^2 sum over i, j of  x[n, c, s h + i, s w + j]

    Gatys et al. (CVPR 2016, section 2) prefer it to the maximum for style transfer. Parameters and
    interface are those of `MaxPoolingLayer`, without `argmax` and `max_index`.

    Examples
    --------
    >>> layer = AveragePoolingLayer(2, 2)
    >>> layer.forward(np.array([[[[1.0, 2.0], [4.0, 3.0]]]]))
    array([[[[2.5]]]])
    """

    kind = "average pooling"

    def forward_raw(self, input):
        """Take the mean of each window, one window at a time."""
        input, shape = self._start_forward(input)
        self.output = np.zeros(shape, input.dtype)
        for n, c, h, w in np.ndindex(self.output.shape):
            self.output[n, c, h, w] = np.mean(input[n, c][self._window(h, w)])
        return self.output

    def backward_raw(self, top_diff):
        """Divide each gradient equally among its window: dy/dx = 1/K^2 at each of its pixels."""
        top_diff = self._checked(top_diff)
        bottom_diff = np.zeros(self.input.shape, top_diff.dtype)
        for n, c, h, w in np.ndindex(top_diff.shape):
            bottom_diff[n, c][self._window(h, w)] += top_diff[n, c, h, w] / self.kernel_size**2
        return bottom_diff

    def forward_speedup(self, input):
        """Add up the K K shifted views."""
        input, (N, C, Ho, Wo) = self._start_forward(input)
        positions = self.kernel_size**2
        x = input.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        output = np.empty((N, Ho, Wo, C), input.dtype)

        def strip(n, y0, y1):
            total = output[n, y0:y1]
            total[...] = self._shifted(x[n], 0, y0, y1, Wo)
            for position in range(1, positions):
                total += self._shifted(x[n], position, y0, y1, Wo)
            total /= positions

        run_strips(strip, self._strips(Ho))
        self.output = output.transpose(0, 3, 1, 2)  # (N, Ho, Wo, C) -> (N, C, Ho, Wo)
        return self.output

    def backward_speedup(self, top_diff):
        """Add the shares of the gradients to the K K shifted views."""
        share = self._checked(top_diff) / self.kernel_size**2
        return self._add_up(share, lambda dy, *_: dy)


class BatchNormLayer:
    """Give every channel mean 0 and variance 1 over the batch, then a learnt scale and shift.

        x^ = (x - mean) / sqrt(var + eps)         mean and var over N, H and W, for each channel
        y  = gamma x^ + beta

    Activations then keep their size whatever the layers before learn, so larger learning rates
    work. At test time there may be no batch: running averages of mean and var take their place, and
    the layer is a linear map. Source: S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating
    Deep Network Training by Reducing Internal Covariate Shift", ICML 2015, algorithms 1 and 2.

    The mean over whole arrays is the definition; there is no second path.

    Parameters
    ----------
    channels : int
        C of the input (N, C, H, W).
    momentum : float, default=0.1
        Weight of the new batch in the running averages.
    eps : float, default=1e-5
        Keeps the root away from 0.

    Attributes
    ----------
    weight, bias : ndarrays of shape (C,)
        gamma and beta, set by `init_param` (1 and 0) or `load_param`.
    d_weight, d_bias : ndarrays of shape (C,)
        dL/dgamma and dL/dbeta, set by `backward`.
    mean, var : ndarrays of shape (C,)
        The running averages; of var without bias, multiplied by P / (P - 1), P = N H W.
    training : bool, default=False
        Whether `forward` uses the batch, and updates the running averages.
    """

    def __init__(self, channels, momentum=0.1, eps=1e-5):
        check_positive(channels=channels)
        self.channels = channels
        self.momentum = momentum
        self.eps = eps
        self.training = False
        self.weight = self.bias = None
        self.mean = self.var = None
        self.d_weight = self.d_bias = None
        self.normalized = self.scale = None  # saved by forward: x^ (P, C), gamma / sqrt(var + eps)
        self.shape = None  # of the input; also saved by forward

    def init_param(self, std=None, rng=None):
        """Set gamma 1 and beta 0; the arguments are those of other layers and have no effect."""
        ones, zeros = np.ones(self.channels, np.float32), np.zeros(self.channels, np.float32)
        self.load_param(ones, zeros, zeros, ones)

    def load_param(self, weight, bias, mean, var):
        """Replace gamma, beta and the running averages by copies, each of shape (C,)."""
        arrays = {"weight": weight, "bias": bias, "mean": mean, "var": var}
        for name, array in arrays.items():
            setattr(self, name, check_shape(name, array, (self.channels,)).copy())

    def save_param(self):
        """Return copies of gamma, beta, and the running mean and variance."""
        check_has_param(self)
        return tuple(array.copy() for array in (self.weight, self.bias, self.mean, self.var))

    def update_param(self, lr):
        """Take one step of gradient descent in gamma and beta."""
        if self.d_weight is None:
            raise RuntimeError("update_param needs a backward pass first")
        self.weight = descend(self.weight, self.d_weight, lr)
        self.bias = descend(self.bias, self.d_bias, lr)

    def forward(self, input):
        """Return y (N, C, H, W) for `input` of that shape."""
        check_has_param(self)
        input = check_pictures("input", input, self.channels)
        self.shape, dtype = input.shape, input.dtype
        # (N, C, H, W) -> (N, H, W, C) -> (P, C)
        x = input.transpose(0, 2, 3, 1).reshape(-1, self.channels)
        mean, var = self.mean, self.var
        if self.training:
            P, new = len(x), self.momentum
            mean = x.mean(axis=0, dtype=np.float64)  # a float32 sum of many values is not exact
            x = x - mean.astype(dtype)
            var = np.square(x).mean(axis=0, dtype=np.float64)
            unbiased = var * P / max(1, P - 1)
            self.mean = ((1 - new) * self.mean + new * mean).astype(self.mean.dtype)
            self.var = ((1 - new) * self.var + new * unbiased).astype(self.var.dtype)
        else:
            x = x - mean.astype(dtype)
        deviation = np.sqrt(var + self.eps).astype(dtype)
        self.normalized = x / deviation
        self.scale = self.weight.astype(dtype) / deviation
        return self._as_pictures(
            self.normalized * self.weight.astype(dtype) + self.bias.astype(dtype)
        )

    def backward(self, top_diff):
        """Set `d_weight` and `d_bias`, and return the gradient with respect to the input.

        y = gamma x^ + beta, with sums over the P values of a channel:

            dL/dgamma = sum dy x^          dL/dbeta = sum dy          dL/dx^ = gamma dy

        Let s = sqrt(var + eps). x reaches x^ = (x - mean) / s directly, through the mean, with
        dmean/dx = 1/P, and through s, with ds/dx = x^ / P, as the derivative of var is
        2 (x - mean) / P. The three ways together:

            dL/dx = gamma / s (dy - mean(dy) - x^ mean(dy x^))

        At test time mean and s are constants, and only the first term is left.
        """
        if self.normalized is None:
            raise RuntimeError("backward needs a forward pass first")
        top_diff = check_shape("top_diff", top_diff, self.shape)
        # (N, C, H, W) -> (N, H, W, C) -> (P, C)
        dy = top_diff.transpose(0, 2, 3, 1).reshape(-1, self.channels)
        dy = dy.astype(self.normalized.dtype, copy=False)
        self.d_bias = dy.sum(axis=0)
        self.d_weight = (dy * self.normalized).sum(axis=0)
        if not self.training:
            return self._as_pictures(dy * self.scale)
        P = len(dy)
        dx = dy - self.d_bias / P - self.normalized * (self.d_weight / P)
        return self._as_pictures(dx * self.scale)

    def folded_into(self, weight, bias):
        """Return the `weight` and `bias` of the convolution before, changed to do this layer too.

        At test time the layer is linear, and so is the convolution before it.
        """
        scale = self.weight / np.sqrt(self.var + self.eps)
        return weight * scale, (bias - self.mean) * scale + self.bias

    def _as_pictures(self, rows):
        N, C, H, W = self.shape
        return rows.reshape(N, H, W, C).transpose(0, 3, 1, 2)  # (P, C) -> (N, C, H, W)


class FlattenLayer:
    """Put the channels of a picture into one row of features, for a fully connected layer.

    The order is height, width, channel, as in MatConvNet, whose weights the book uses. Book:
    section 3-1.

    Parameters
    ----------
    input_shape, output_shape : sequence of int
        (C, H, W) of a picture, and the shape of its features, usually [C * H * W].

    Examples
    --------
    >>> layer = FlattenLayer([2, 1, 2], [4])
    >>> layer.forward(np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]]))  # two channels, of 1x2 pixels
    array([[1., 3., 2., 4.]])
    """

    def __init__(self, input_shape, output_shape):
        shapes = f"input_shape {tuple(input_shape)} and output_shape {tuple(output_shape)}"
        if len(input_shape) != 3:
            raise ValueError(f"expected input_shape (C, H, W), got {tuple(input_shape)}")
        if min(*input_shape, *output_shape, 1) < 1:
            raise ValueError(f"every size must be at least 1, got {shapes}")
        if np.prod(input_shape) != np.prod(output_shape):
            raise ValueError(f"{shapes} hold different numbers of values")
        self.input_shape = tuple(input_shape)
        self.output_shape = tuple(output_shape)
        self.batch_size = self.output = None  # saved by forward

    def forward(self, input):
        """Return the features (N, *output_shape) of pictures (N, C, H, W)."""
        input = check_pictures("input", input, self.input_shape[0])
        check_shape("input", input, (len(input), *self.input_shape))
        self.batch_size = len(input)
        # (N, C, H, W) -> (N, H, W, C) -> (N, H W C)
        self.output = input.transpose(0, 2, 3, 1).reshape(len(input), *self.output_shape).copy()
        return self.output

    def backward(self, top_diff):
        """Put every value back where it came from, the exact inverse of `forward`."""
        if self.batch_size is None:
            raise RuntimeError("backward needs a forward pass first")
        top_diff = check_shape("top_diff", top_diff, (self.batch_size, *self.output_shape))
        C, H, W = self.input_shape
        # (N, H W C) -> (N, H, W, C) -> (N, C, H, W)
        return top_diff.reshape(self.batch_size, H, W, C).transpose(0, 3, 1, 2).copy()

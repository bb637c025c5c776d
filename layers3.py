"""What style transfer adds: two losses and an optimiser (course book, experiment 3-3).

A trained network's features say what is in a picture: two pictures with like features look alike
in content. How often features occur *together*, wherever that is, says what a picture is made of:
its style. Both are compared here, and Adam then moves the pixels towards smaller differences.

Letters: N pictures, C channels, H x W positions; X the features of the picture being made, Y those
of the content picture.

References
----------
.. [1] L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks",
       CVPR 2016.
.. [2] D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
"""

import weakref
from math import ceil

import numpy as np

from fast.strips import run_strips, scratch, strips_of_rows
from support.checks import check_pictures, check_positive, check_shape

STRIP_BYTES = 1 << 19  # of features that a thread works on at a time


def strips_of(x):
    """Return (picture, first row, last row + 1) of the parts of x (N, H, W, C) for threads."""
    N, H, W, C = x.shape
    rows = STRIP_BYTES // (W * C * x.itemsize)
    return strips_of_rows(N, H, min(rows, ceil(H / 2)))


class ContentLossLayer:
    """How far the features of two pictures differ, position by position.

        L     = 1 / (2 N C H W) * sum (X - Y)^2
        dL/dX = 1 / (N C H W) * (X - Y)

    Book: section 3-3; paper: [1]_, equation 1, here divided by the number of features so that the
    loss does not grow with the picture.

    Examples
    --------
    >>> layer = ContentLossLayer()
    >>> x, y = np.array([[[[1.0, 5.0]]]]), np.array([[[[1.0, 2.0]]]])
    >>> layer.forward(x, y)
    2.25
    >>> layer.backward(x, y)
    array([[[[0. , 1.5]]]])
    """

    def forward(self, input_layer, content_layer):
        """Return the loss.

        Parameters
        ----------
        input_layer, content_layer : ndarray of shape (N, C, H, W)
            X and Y.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            If the two differ in shape, or are not floating-point arrays of this form.
        """
        self._check(input_layer, content_layer)
        # (N, C, H, W) -> (N, H, W, C), views
        x, y = (features.transpose(0, 2, 3, 1) for features in (input_layer, content_layer))
        strips = strips_of(x)
        sums = np.zeros(len(strips))

        def strip(i, n, y0, y1):
            difference = x[n, y0:y1] - y[n, y0:y1]
            np.square(difference, out=difference)
            sums[i] = difference.sum()

        run_strips(strip, [(i, *part) for i, part in enumerate(strips)])
        return float(sums.sum()) / (2 * input_layer.size)

    def backward(self, input_layer, content_layer):
        """Return dL/dX, of the shape of `input_layer`; parameters and errors as in `forward`.

        Of the sum only one term holds a given X, and d/dX (X - Y)^2 / 2 = X - Y.
        """
        self._check(input_layer, content_layer)
        # (N, C, H, W) -> (N, H, W, C), views
        x, y = (features.transpose(0, 2, 3, 1) for features in (input_layer, content_layer))
        dx = np.empty(x.shape, x.dtype)

        def strip(n, y0, y1):
            np.subtract(x[n, y0:y1], y[n, y0:y1], out=dx[n, y0:y1], casting="same_kind")
            dx[n, y0:y1] *= 1 / input_layer.size

        run_strips(strip, strips_of(x))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def _check(self, input_layer, content_layer):
        check_pictures("input_layer", input_layer)
        check_shape("content_layer", content_layer, input_layer.shape)


def gram(features):
    """Return the Gram matrices of features: how strongly each two channels occur together.

        G[n, i, j] = sum over h, w of  F[n, i, h, w] * F[n, j, h, w]

    Where something is has gone from G, as the sum runs over all positions.

    Parameters
    ----------
    features : ndarray of shape (N, C, H, W)

    Returns
    -------
    ndarray of shape (N, C, C)
    """
    x = features.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    N, H, W, C = x.shape
    strips = strips_of(x)
    each = len(strips) // N  # strips of one picture
    groups = min(each, 8)  # which strips add up in which order must not hang on the threads
    sums = np.zeros((N, groups, C, C), x.dtype)

    def group(n, g):
        for _, y0, y1 in strips[n * each + g : (n + 1) * each : groups]:
            rows = scratch("features", (y1 - y0, W, C), x.dtype)
            np.copyto(rows, x[n, y0:y1])
            rows = rows.reshape((y1 - y0) * W, C)
            sums[n, g] += rows.T @ rows  # NumPy sees the symmetry and computes one half

    run_strips(group, [(n, g) for n in range(N) for g in range(groups)])
    return sums.sum(axis=1)


def _nothing():
    """Stand in for a weak reference before there is anything to refer to."""


class StyleLossLayer:
    """How far the Gram matrices of two pictures differ.

        L     = 1 / (4 N C^2 H^2 W^2) * sum (G - A)^2        G = gram(X), A = gram(style)
        dL/dX = 1 / (N C^2 H^2 W^2) * (G - A) X              for each picture, X as (C, H W)

    Book: section 3-3; paper: [1]_, equations 3 to 6.

    Attributes
    ----------
    gram_input : ndarray of shape (N, C, C)
        G of the last `forward`.
    gram_style : ndarray of shape (N, C, C) or (1, C, C)
        A, as it was compared with G.
    style_per_position : ndarray of shape (N, C, C) or (1, C, C)
        Gram matrices of the style as it was given, divided by its number of positions.
    div : int
        C^2 H^2 W^2 of the last `forward`.

    Notes
    -----
    A Gram matrix grows with the number of positions. For a style picture of another size (H'x W')
    A is therefore multiplied by H W / (H' W'): the same texture then gives the same A.

    The gradient multiplies X, the features of the picture being made; many published versions
    multiply those of the style picture, which is not the gradient of this loss.

    A is computed once for each style: as long as `forward` is given the same array object (do not
    change it in place) or none at all, it is kept.

    Examples
    --------
    >>> layer = StyleLossLayer()
    >>> x, style = np.array([[[[1.0, 2.0]]]]), np.array([[[[3.0, 0.0]]]])
    >>> layer.forward(x, style)  # G = 5, A = 9: 16 / (4 * 1 * 4)
    1.0
    >>> layer.backward(x, style)  # -4 / 4 * X
    array([[[[-1., -2.]]]])
    """

    def __init__(self):
        self.style_per_position = None
        self.gram_style = None
        self.gram_input = None
        self.div = None
        # the arrays seen last; weak references, which only serve to tell whether these are others
        self._input = _nothing
        self._style = _nothing
        self._positions = None  # H W of that input
        self._style_shape = None

    def set_style(self, style_layer):
        """Compute and keep A; the features themselves are not kept.

        Parameters
        ----------
        style_layer : ndarray of shape (N, C, H', W') or (1, C, H', W')
            Features of the style picture.
        """
        check_pictures("style_layer", style_layer)
        self.set_gram(gram(style_layer) / (style_layer.shape[2] * style_layer.shape[3]))
        self._style = weakref.ref(style_layer)
        self._style_shape = style_layer.shape

    def set_gram(self, per_position):
        """Keep A as it is given, for example the mean of several styles'.

        Parameters
        ----------
        per_position : ndarray of shape (N, C, C) or (1, C, C)
            Gram matrices divided by the number of positions they were summed over.
        """
        self.style_per_position = per_position
        self._style = _nothing
        self._style_shape = per_position.shape
        self.gram_style = None

    def forward(self, input_layer, style_layer=None):
        """Return the loss.

        Parameters
        ----------
        input_layer : ndarray of shape (N, C, H, W)
            X.
        style_layer : ndarray of shape (N, C, H', W') or (1, C, H', W'), optional
            Features of the style picture; H' and W' may differ from H and W. None stands for the
            style of the last call, or of `set_style`.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            If the numbers of channels or pictures do not match, or one of the two is not a
            floating-point array of this form.
        """
        check_pictures("input_layer", input_layer)
        if style_layer is not None and self._style() is not style_layer:
            check_pictures("style_layer", style_layer, input_layer.shape[1])
            self._check_match(input_layer, style_layer.shape)
            self.set_style(style_layer)
        self._check_match(input_layer, self._style_shape)
        N, C, H, W = input_layer.shape
        if self.gram_style is None or self._positions != H * W:
            self.gram_style = self.style_per_position * (H * W)
        self.div = C**2 * (H * W) ** 2
        self.gram_input = gram(input_layer)
        self._input = weakref.ref(input_layer)
        self._positions = H * W
        difference = (self.gram_input - self.gram_style) / (H * W)  # scaled first: no overflow
        return float(np.sum(np.square(difference))) / (4 * N * C**2)

    def backward(self, input_layer, style_layer=None):
        """Return dL/dX, from the Gram matrices of `forward`.

        By the chain rule dL/dX = sum over i, j of  dL/dG[i, j] * dG[i, j]/dX. The first factor is
        (G - A)[i, j] / (2 N C^2 H^2 W^2); X[i, p] occurs in row i and in column i of G, each time
        multiplied by the other channel at the same position p, and G - A is symmetric:

            dL/dX[i, p] = 2 * sum over j of  (G - A)[i, j] X[j, p] / (2 N C^2 H^2 W^2)

        Parameters
        ----------
        input_layer, style_layer : ndarray
            As in `forward`, which is called first if these are not the arrays it saw last.

        Returns
        -------
        ndarray of shape (N, C, H, W)

        Raises
        ------
        ValueError, TypeError
            As in `forward`.
        """
        another_style = style_layer is not None and self._style() is not style_layer
        if self._input() is not input_layer or another_style or self.gram_style is None:
            self.forward(input_layer, style_layer)
        N, C, H, W = input_layer.shape
        scaled = self.gram_gradient()
        x = input_layer.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        dx = np.empty((N, H, W, C), x.dtype)

        def strip(n, y0, y1):
            rows = scratch("features", (y1 - y0, W, C), x.dtype)
            np.copyto(rows, x[n, y0:y1])
            # As rows of pixels, X^T (G - A): (P, C) @ (C, C)
            np.matmul(rows.reshape(-1, C), scaled[n], out=dx[n, y0:y1].reshape(-1, C))

        run_strips(strip, strips_of(x))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def gram_gradient(self):
        """Return the matrix that `backward` multiplies with: (G - A) / (N C^2 H^2 W^2).

        It is all that a network needs to know of this loss which has X at hand itself
        (`fast.fused`), and far smaller than the gradient.

        Returns
        -------
        ndarray of shape (N, C, C)

        Raises
        ------
        RuntimeError
            If called before `forward`.
        """
        if self.gram_input is None or self.gram_style is None:
            raise RuntimeError("gram_gradient needs a forward pass first")
        # in two steps: the number of positions to the fourth power would overflow float32
        positions = self._positions
        difference = (self.gram_input - self.gram_style) / positions
        scaled = difference / (len(difference) * difference.shape[1] ** 2 * positions)
        return scaled.astype(self.gram_input.dtype, copy=False)

    def _check_match(self, input_layer, style_shape):
        if style_shape is None:
            raise RuntimeError("the first call needs a style_layer, or set_style before it")
        N, C = input_layer.shape[:2]
        if style_shape[0] not in (1, N) or style_shape[1] != C:
            raise ValueError(
                f"expected style_layer of 1 or {N} pictures with {C} channels, got {style_shape}"
            )


class AdamOptimizer:
    """Gradient descent in which every pixel has a step length of its own.

        m <- beta1 m + (1 - beta1) g             mean of the recent gradients
        v <- beta2 v + (1 - beta2) g^2           mean of their squares
        x <- x - lr * m^ / (sqrt(v^) + eps)      m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)

    Where the gradient keeps its sign, m^ / sqrt(v^) is near 1 and x moves by lr a step; where it
    flickers, x stays. m and v start at 0 and would be too small at first; m^ and v^ make up for
    that, from step t = 1. Book: section 3-3; paper: [2]_, algorithm 1.

    Parameters
    ----------
    lr : float
        Learning rate, the longest step, in units of x (for a picture, levels of 0 to 255).
    diff_shape : sequence of int
        Shape of x and of its gradient.

    Attributes
    ----------
    mt, vt : ndarray of shape diff_shape
        m and v above, of the dtype of the gradients.
    step : int
        t above, the number of updates so far.
    beta1, beta2, eps : float
        0.9, 0.999 and 1e-8; eps stands outside the root.

    Examples
    --------
    >>> adam = AdamOptimizer(0.1, (2,))
    >>> adam.update(np.array([1.0, 1.0]), np.array([5.0, -0.001]))
    array([0.9     , 1.099999])
    """

    def __init__(self, lr, diff_shape):
        check_positive(**{f"diff_shape[{i}]": size for i, size in enumerate(diff_shape)})
        if not (np.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be finite and greater than 0, got {lr}")
        self.lr = lr
        self.beta1 = 0.9
        self.beta2 = 0.999
        self.eps = 1e-8
        self.mt = np.zeros(diff_shape)
        self.vt = np.zeros(diff_shape)
        self.step = 0

    def update(self, input, grad):
        """Return x after one more step.

        Parameters
        ----------
        input : ndarray of shape diff_shape
            x.
        grad : ndarray of shape diff_shape
            Gradient of the loss at x.

        Returns
        -------
        ndarray of shape diff_shape
            Of the dtype of `input`; a new array.

        Raises
        ------
        ValueError, TypeError
            If a shape is another or the values are not floating point.
        """
        check_shape("input", input, self.mt.shape)
        check_shape("grad", grad, self.mt.shape)
        self.step += 1
        # m and v keep the dtype of x
        self.mt = (self.beta1 * self.mt + (1 - self.beta1) * grad).astype(input.dtype, copy=False)
        self.vt = (self.beta2 * self.vt + (1 - self.beta2) * grad**2).astype(
            input.dtype, copy=False
        )
        m = self.mt / (1 - self.beta1**self.step)
        v = self.vt / (1 - self.beta2**self.step)
        return input - float(self.lr) * m / (np.sqrt(v) + self.eps)

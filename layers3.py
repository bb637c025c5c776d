"""What style transfer adds: two losses and an optimiser (course book, experiment 3-3).

The features of a trained network describe what is in a picture: two pictures with similar features
have similar content. Which features occur *together*, anywhere in the picture, describes its style.
Each loss below compares one of the two. Adam then changes the pixels to make the losses smaller.

The losses here are their formulas. `fast/losses.py` has the same sums for large pictures.

Letters: N pictures, C channels, H x W positions; X the features of the generated picture, Y those
of the content picture. Features are float32 or float64 arrays of shape (N, C, H, W); integers and
booleans count as float32. Every method checks its arguments: TypeError for other values, ValueError
for shapes that do not match.

References
----------
.. [1] L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks",
       CVPR 2016.
.. [2] D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
"""

import numpy as np

from support.checks import check_pictures, check_positive, check_shape


class ContentLossLayer:
    """The difference between the features of two pictures, position by position.

        L     = 1 / (2 N C H W) * sum (X - Y)^2
        dL/dX = 1 / (N C H W) * (X - Y)

    Book: section 3-3; paper: [1]_, equation 1, here divided by the number of features so that the
    loss does not grow with the size of the picture.

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
        """Return the loss, a float, for X = `input_layer` and Y = `content_layer`."""
        input_layer, content_layer = self._checked(input_layer, content_layer)
        return float(np.sum(np.square(input_layer - content_layer))) / (2 * input_layer.size)

    def backward(self, input_layer, content_layer):
        """Return dL/dX, an array of the shape of `input_layer`.

        Each X occurs in one term of the sum, and d/dX (X - Y)^2 / 2 = X - Y.
        """
        input_layer, content_layer = self._checked(input_layer, content_layer)
        return ((input_layer - content_layer) / input_layer.size).astype(input_layer.dtype)

    @staticmethod
    def _checked(input_layer, content_layer):
        input_layer = check_pictures("input_layer", input_layer)
        return input_layer, check_shape("content_layer", content_layer, input_layer.shape)


def gram(features):
    """Return the Gram matrices G (N, C, C) of features F: which channels are active together.

        G[n, i, j] = sum over h, w of  F[n, i, h, w] * F[n, j, h, w]

    G does not say where a feature occurs, because the sum runs over all positions. Paper: [1]_,
    equation 3.
    """
    N, C, H, W = features.shape
    F = features.reshape(N, C, H * W)  # (N, C, H, W) -> (N, C, H W)
    return F @ F.transpose(0, 2, 1)  # (N, C, H W) @ (N, H W, C) -> (N, C, C)


class StyleLossLayer:
    """The difference between the Gram matrices of two pictures.

        L     = 1 / (4 N C^2 H^2 W^2) * sum (G - A)^2        G = gram(X), A = gram(style)
        dL/dX = 1 / (N C^2 H^2 W^2) * (G - A) X              for each picture, X as (C, H W)

    Book: section 3-3; paper: [1]_, equations 3 to 6.

    Attributes
    ----------
    gram_input, gram_style : ndarrays of shape (N, C, C); A is (1, C, C) for a single style
        G and A of the last call.
    div : int
        C^2 H^2 W^2 of the last call.

    Notes
    -----
    A Gram matrix grows with the number of positions. For a style picture of a different size
    (H' x W') A is therefore multiplied by H W / (H' W'): the same texture then gives the same A.

    The gradient multiplies X, the features of the generated picture. Many published versions
    multiply the features of the style picture, which is not the gradient of this loss.

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
        self.gram_input = self.gram_style = self.div = None

    def forward(self, input_layer, style_layer):
        """Return the loss, a float, for X = `input_layer` and the features of a style picture.

        `style_layer` is of shape (N, C, H', W'), or (1, C, H', W') for one style of all pictures.
        """
        N, C, H, W = self._compare(input_layer, style_layer).shape
        # Divided by H W before squaring: the squares of large features would overflow float32.
        difference = (self.gram_input - self.gram_style) / (H * W)
        return float(np.sum(np.square(difference))) / (4 * N * C**2)

    def backward(self, input_layer, style_layer):
        """Return dL/dX, an array of the shape of `input_layer`.

        By the chain rule dL/dX = sum over i, j of  dL/dG[i, j] * dG[i, j]/dX. The first factor is
        (G - A)[i, j] / (2 N C^2 H^2 W^2). X[i, p] occurs in row i and in column i of G, each time
        multiplied by the other channel at the same position p, and G - A is symmetric, so

            dL/dX[i, p] = 2 * sum over j of  (G - A)[i, j] X[j, p] / (2 N C^2 H^2 W^2)
        """
        input_layer = self._compare(input_layer, style_layer)
        N, C, H, W = input_layer.shape
        X = input_layer.reshape(N, C, H * W)  # (N, C, H, W) -> (N, C, H W)
        scaled = (self.gram_input - self.gram_style) / (H * W) / (N * C**2 * H * W)
        dX = scaled.astype(X.dtype) @ X  # (N, C, C) @ (N, C, H W) -> (N, C, H W)
        return dX.reshape(N, C, H, W)

    def _compare(self, input_layer, style_layer):
        """Set G, A and div; return `input_layer`, checked."""
        input_layer = check_pictures("input_layer", input_layer)
        style_layer = check_pictures("style_layer", style_layer, input_layer.shape[1])
        N, C, H, W = input_layer.shape
        if len(style_layer) not in (1, N):
            raise ValueError(
                f"expected style_layer of 1 or {N} pictures with {C} channels, "
                f"got {style_layer.shape}"
            )
        ratio = H * W / (style_layer.shape[2] * style_layer.shape[3])
        self.gram_input = gram(input_layer)
        self.gram_style = gram(style_layer) * ratio
        self.div = C**2 * (H * W) ** 2
        return input_layer


class AdamOptimizer:
    """Gradient descent in which every pixel has its own step length.

        m <- beta1 m + (1 - beta1) g             mean of the recent gradients
        v <- beta2 v + (1 - beta2) g^2           mean of their squares
        x <- x - lr * m^ / (sqrt(v^) + eps)      m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)

    Where the gradient keeps its sign, m^ / sqrt(v^) is near 1 and x moves by lr a step. Where the
    sign changes often, x hardly moves. m and v start at 0 and are too small at first; m^ and v^
    correct this, from step t = 1. Book: section 3-3; paper: [2]_, algorithm 1.

    Parameters
    ----------
    lr : float
        Learning rate: about the longest step, in units of x (for a picture, levels of 0 to 255).
    diff_shape : sequence of int
        Shape of x and of its gradient.

    Attributes
    ----------
    mt, vt : ndarray of shape diff_shape
        m and v above, of the dtype of x.
    step : int
        t above, the number of updates so far.
    beta1, beta2, eps : float
        0.9, 0.999 and 1e-8; eps is outside the root.

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
        self.beta1, self.beta2, self.eps = 0.9, 0.999, 1e-8
        self.mt, self.vt = np.zeros(diff_shape), np.zeros(diff_shape)
        self.step = 0

    def update(self, input, grad):
        """Return x after one more step, for x = `input` and g = `grad`, the gradient at x.

        The result is a new array of the dtype of `input`.
        """
        input = check_shape("input", input, self.mt.shape)
        grad = check_shape("grad", grad, self.mt.shape)
        self.step += 1
        m = self.beta1 * self.mt + (1 - self.beta1) * grad
        v = self.beta2 * self.vt + (1 - self.beta2) * grad**2
        self.mt, self.vt = (moment.astype(input.dtype, copy=False) for moment in (m, v))
        m_hat = self.mt / (1 - self.beta1**self.step)
        v_hat = self.vt / (1 - self.beta2**self.step)
        return input - float(self.lr) * m_hat / (np.sqrt(v_hat) + self.eps)

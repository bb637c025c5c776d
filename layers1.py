"""The three layers of a multilayer perceptron (course book, experiments 2-1 and 3-1).

A network is a chain of layers. Going forward, each layer turns its `input` into its `output`. Going
backward, each is handed `top_diff`, the derivative of the loss by its output, and returns
`bottom_diff`, the derivative of the loss by its input, which is the next layer's `top_diff`. That
hand-over is the chain rule, and the whole of back-propagation.

Letters: N rows (samples) in a batch, D columns (features) of a row, L the loss, a single number.
Arrays keep their precision: float32 in gives float32 out, float64 in gives float64 out.
"""

import numpy as np

from support.checks import check_floating, check_positive, check_rows, check_shape


def draw_weights(shape, std, fan_in, rng=None):
    """Draw float32 weights from a normal distribution around 0.

    Parameters
    ----------
    shape : tuple of int
    std : float or "he"
        Standard deviation. "he" stands for sqrt(2 / fan_in), with which the activations neither
        fade nor grow from one ReLU layer to the next [1]_.
    fan_in : int
        How many inputs each output sums over.
    rng : None, int or numpy.random.Generator, default=None
        Source of randomness. An int is a seed, so that runs repeat; None differs every time.

    References
    ----------
    .. [1] He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10.
    """
    if isinstance(std, str):
        if std != "he":
            raise ValueError(f'std must be a number or "he", got {std!r}')
        std = np.sqrt(2.0 / fan_in)
    elif not (np.isfinite(std) and std >= 0):
        raise ValueError(f"std must be finite and not negative, got {std}")
    return np.random.default_rng(rng).normal(scale=std, size=shape).astype(np.float32)


def descend(parameter, gradient, lr):
    """Return ``parameter - lr * gradient``, a new array of the parameter's dtype."""
    new = np.multiply(gradient, -float(lr), dtype=parameter.dtype, casting="same_kind")
    new += parameter
    return new


class FullyConnectedLayer:
    """Every output is a weighted sum of all inputs plus a bias.

        y = x W + b        for each row x of the batch

    Book: sections 2-1 and 3-1.

    Parameters
    ----------
    num_input : int
        Features per input row, at least 1.
    num_output : int
        Features per output row, at least 1.

    Attributes
    ----------
    weight : ndarray of shape (num_input, num_output)
        W above; set by `init_param` or `load_param`.
    bias : ndarray of shape (1, num_output)
        b above; set by `init_param` or `load_param`.
    d_weight, d_bias : ndarray
        dL/dW and dL/db, of the shapes of `weight` and `bias`; set by `backward`.
    input : ndarray of shape (N, num_input)
        What the last `forward` was given.
    output : ndarray of shape (N, num_output)
        What the last `forward` returned.

    Examples
    --------
    >>> layer = FullyConnectedLayer(2, 1)
    >>> layer.load_param(np.array([[2.0], [3.0]]), np.array([[0.5]]))
    >>> layer.forward(np.array([[1.0, 10.0], [0.0, 1.0]]))
    array([[32.5],
           [ 3.5]])
    """

    def __init__(self, num_input, num_output):
        check_positive(num_input=num_input, num_output=num_output)
        self.num_input = num_input
        self.num_output = num_output
        # parameters
        self.weight = None
        self.bias = None
        # their gradients
        self.d_weight = None
        self.d_bias = None
        # saved by forward
        self.input = None
        self.output = None

    def init_param(self, std=0.01, rng=None):
        """Draw new float32 weights from a normal distribution around 0; the bias becomes 0.

        Parameters
        ----------
        std : float or "he", default=0.01
            Standard deviation; "he" stands for sqrt(2 / num_input).
        rng : None, int or numpy.random.Generator, default=None
            Source of randomness; an int is a seed (see `draw_weights`).
        """
        self.weight = draw_weights((self.num_input, self.num_output), std, self.num_input, rng)
        self.bias = np.zeros((1, self.num_output), dtype=np.float32)

    def forward(self, input):
        """Return `input @ weight + bias`.

        Parameters
        ----------
        input : ndarray of shape (N, num_input), N at least 1
            float32 or float64.

        Returns
        -------
        ndarray of shape (N, num_output)
            Of the input's dtype, also where the parameters have another.

        Raises
        ------
        ValueError
            If the shape is another.
        TypeError
            If `input` is not a floating-point array.
        RuntimeError
            If the layer has no parameters yet.
        """
        if self.weight is None:
            raise RuntimeError("forward needs parameters: call init_param or load_param first")
        check_rows("input", input)
        if input.shape[1] != self.num_input:
            raise ValueError(f"expected input of shape (N, {self.num_input}), got {input.shape}")
        weight = self.weight.astype(input.dtype, copy=False)
        bias = self.bias.astype(input.dtype, copy=False)
        self.input = input
        self.output = input @ weight  # (N, num_input) @ (num_input, num_output)
        self.output += bias
        return self.output

    def backward(self, top_diff, need_bottom_diff=True):
        """Set `d_weight` and `d_bias`, and return the derivative by the input.

        With y_nj = sum_i x_ni W_ij + b_j and g_nj = dL/dy_nj (`top_diff`), the chain rule sums over
        every output that the variable in question reaches:

            dL/dW_ij = sum_n x_ni g_nj      that is   x^T g
            dL/db_j  = sum_n g_nj           that is   the column sums of g
            dL/dx_ni = sum_j g_nj W_ij      that is   g W^T

        The transposed weight stands on the right: x and g have one row a sample. (Some printings
        have it on the left, where the shapes do not even fit.)

        Parameters
        ----------
        top_diff : ndarray of shape (N, num_output)
        need_bottom_diff : bool, default=True
            False for the first layer of a network, below which nobody asks: a third of its work.

        Returns
        -------
        bottom_diff : ndarray of shape (N, num_input), or None where it is not needed

        Raises
        ------
        RuntimeError
            If called before `forward`.
        ValueError, TypeError
            If `top_diff` has another shape or no floating-point values.
        """
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        check_shape("top_diff", top_diff, (self.input.shape[0], self.num_output))
        dtype = self.input.dtype
        top_diff = top_diff.astype(dtype, copy=False)
        weight = self.weight.astype(dtype, copy=False)
        self.d_weight = self.input.T @ top_diff  # (N, num_input) -> (num_input, N), then @
        self.d_bias = top_diff.sum(axis=0, keepdims=True)  # (N, num_output) -> (1, num_output)
        if not need_bottom_diff:
            return None
        return top_diff @ weight.T  # (num_input, num_output) -> (num_output, num_input)

    def update_param(self, lr):
        """Take one step of gradient descent: W <- W - lr dL/dW, b <- b - lr dL/db.

        Parameters
        ----------
        lr : float
            Learning rate, the length of the step. The parameters keep their dtype.

        Raises
        ------
        RuntimeError
            If called before `backward`.
        """
        if self.d_weight is None:
            raise RuntimeError("update_param needs a backward pass first")
        # new arrays, not `-=`: whoever holds on to the old ones keeps them as they were
        self.weight = descend(self.weight, self.d_weight, lr)
        self.bias = descend(self.bias, self.d_bias, lr)

    def load_param(self, weight, bias):
        """Replace the parameters by copies of `weight` and `bias`.

        Parameters
        ----------
        weight : ndarray of shape (num_input, num_output)
        bias : ndarray of shape (1, num_output)

        Raises
        ------
        ValueError, TypeError
            If a shape is another, or the values are not floating point.
        """
        check_shape("weight", weight, (self.num_input, self.num_output))
        check_shape("bias", bias, (1, self.num_output))
        self.weight = weight.copy()
        self.bias = bias.copy()

    def save_param(self):
        """Return copies of `(weight, bias)`, which later training leaves alone."""
        if self.weight is None:
            raise RuntimeError("there are no parameters yet: call init_param or load_param first")
        return self.weight.copy(), self.bias.copy()


class ReLULayer:
    """Negative values become 0, the others pass.

        y = max(0, x)

    Without something bent between them, two fully connected layers would only make up another one.
    Book: sections 2-1 and 3-1.

    Attributes
    ----------
    input : ndarray
        What the last `forward` was given; any shape.

    Notes
    -----
    At x = 0 any slope from 0 to 1 could be taken. The book lets the gradient pass there (x >= 0),
    and so does this layer; most frameworks do not (x > 0).

    Examples
    --------
    >>> layer = ReLULayer()
    >>> layer.forward(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    >>> layer.backward(np.array([10.0, 20.0, 30.0]))
    array([ 0., 20., 30.])
    """

    kind = "relu"

    def __init__(self):
        # saved by forward for backward
        self.input = None

    def forward(self, input):
        """Return max(0, input) as a new array of the same shape and dtype.

        Raises
        ------
        TypeError, ValueError
            If `input` is not a floating-point array, or is empty.
        """
        check_floating("input", input)
        if input.size == 0:
            raise ValueError(f"expected an input with at least one value, got shape {input.shape}")
        self.input = input
        return np.maximum(input, 0)

    def backward(self, top_diff):
        """Return `top_diff` where the input was at least 0, and 0 elsewhere.

        Each y depends on its own x alone, with slope 1 on the right of 0 and slope 0 on the left,
        so that dL/dx = dL/dy * [x >= 0].

        Raises
        ------
        RuntimeError
            If called before `forward`.
        ValueError, TypeError
            If `top_diff` has not the input's shape or no floating-point values.
        """
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        check_shape("top_diff", top_diff, self.input.shape)
        # times true or false, which is ten times as fast as `np.where`
        return np.multiply(top_diff, self.input >= 0, dtype=self.input.dtype)


class SoftmaxLossLayer:
    """Turns scores into probabilities, and says how badly they fit the labels.

        p_nj = exp(x_nj) / sum_k exp(x_nk)
        L    = -(1/N) sum_n ln p_n,label(n)

    The sum in the denominator runs over the row's own entries. An untrained network, whose
    probabilities are all about 1/D, starts with a loss near ln D. Book: sections 2-1 and 3-1.

    Attributes
    ----------
    prob : ndarray of shape (N, D)
        The probabilities of the last `forward`; each row sums to 1.
    label_onehot : ndarray of shape (N, D)
        1 at each row's label and 0 elsewhere; set by `get_loss`.
    batch_size : int
        N of the last `forward`.

    Notes
    -----
    The loss is computed from the scores rather than from `prob`, with the logarithm taken by hand:
    -ln p_label = ln(sum_k exp(x_k)) - x_label. A probability that rounds to 0 would give -ln 0;
    this form stays finite for any finite scores.

    Examples
    --------
    >>> layer = SoftmaxLossLayer()
    >>> layer.forward(np.array([[0.0, 0.0], [0.0, np.log(3.0)]]))
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])
    >>> round(layer.get_loss(np.array([0, 1])), 4)  # (ln 2 + ln 4/3) / 2
    0.4904
    """

    def __init__(self):
        # saved by forward
        self.prob = None
        self.batch_size = None
        self.log_prob = None
        # saved by get_loss for backward
        self.label_onehot = None

    def forward(self, input):
        """Return the probabilities of each row's classes.

        Each row's largest score is subtracted first. That multiplies numerator and denominator by
        the same number, so p stays as it is, but exp can no longer overflow.

        Parameters
        ----------
        input : ndarray of shape (N, D), neither of them 0
            Scores of any size; float32 or float64.

        Returns
        -------
        prob : ndarray of shape (N, D)

        Raises
        ------
        ValueError, TypeError
            If `input` is not two-dimensional, empty, or not floating point.
        """
        check_rows("input", input)
        with np.errstate(over="ignore"):  # two huge scores may differ by more than the dtype holds
            shifted = input - input.max(axis=1, keepdims=True)  # (N, D) -> (N, 1), broadcast over D
        shifted = np.maximum(shifted, np.finfo(input.dtype).min / 2)  # -inf -> finite
        exponential = np.exp(shifted)
        total = exponential.sum(axis=1, keepdims=True)  # (N, D) -> (N, 1); at least 1
        self.batch_size = input.shape[0]
        self.log_prob = shifted - np.log(total)
        self.prob = exponential / total
        self.label_onehot = None  # belongs to the batch before
        return self.prob

    def get_loss(self, label):
        """Return the mean of -ln(probability of the right class) over the batch.

        Parameters
        ----------
        label : ndarray of shape (N,), integers from 0 to D - 1
            The right class of each row.

        Returns
        -------
        float

        Raises
        ------
        RuntimeError
            If called before `forward`.
        TypeError
            If the labels are not integers.
        ValueError
            If the shape is not (N,) ((N, 1) is refused: used as an index it would silently mark
            the wrong entries) or a label is outside its range.
        """
        if self.prob is None:
            raise RuntimeError("get_loss needs a forward pass first")
        label = np.asarray(label)
        if not np.issubdtype(label.dtype, np.integer):
            raise TypeError(f"expected integer labels, got {label.dtype}")
        if label.shape != (self.batch_size,):
            raise ValueError(f"expected labels of shape ({self.batch_size},), got {label.shape}")
        classes = self.prob.shape[1]
        if label.min() < 0 or label.max() >= classes:
            raise ValueError(
                f"expected labels from 0 to {classes - 1}, got {label.min()} to {label.max()}"
            )
        rows = np.arange(self.batch_size)
        self.label_onehot = np.zeros_like(self.prob)
        self.label_onehot[rows, label] = 1
        # divided before they are added up, since their sum could overflow
        return float(np.sum(-self.log_prob[rows, label] / self.batch_size))

    def backward(self):
        """Return dL/dx for the scores x of the last `forward`.

        With one row's loss written as L = ln(sum_k exp(x_k)) - x_label,

            dL/dx_j = exp(x_j) / sum_k exp(x_k) - [j = label] = p_j - [j = label]

        and the mean over the batch divides it by N: (prob - label_onehot) / N.

        Returns
        -------
        bottom_diff : ndarray of shape (N, D)

        Raises
        ------
        RuntimeError
            If the last `forward` was not followed by `get_loss`.
        """
        if self.label_onehot is None:
            raise RuntimeError("backward needs a forward pass and get_loss first")
        return (self.prob - self.label_onehot) / self.batch_size

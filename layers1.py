"""The layers of a multilayer perceptron (course book, sections 2-1 and 3-1), and its optimiser.

A network is a chain of layers. In the forward pass each layer computes its `output` from its
`input`. In the backward pass each layer gets `top_diff`, the gradient of the loss with respect to
its output, and returns `bottom_diff`, the gradient with respect to its input, which is the
`top_diff` of the layer before it. This is the chain rule, and all of back-propagation.

Letters: N samples (rows) in a batch, D features (columns) in a row, L the loss (one number).
Inputs and gradients are float32 or float64 arrays; a result has the dtype of the input.
Integers and booleans count as float32.

Every method checks its arguments: TypeError for a wrong type or dtype, ValueError for a wrong shape
or value, RuntimeError when it is called too early. No method changes an array it was given.
"""

import numpy as np

from fast.strips import matmul
from support.checks import check_array, check_positive, check_rows, check_shape


def random_generator(rng=None):
    """Return a numpy.random.Generator for `rng`: a Generator, a seed, or None.

    None uses NumPy's global state, which the book's programs set by np.random.seed.
    """
    if rng is None:
        return np.random.Generator(np.random.get_bit_generator())
    return np.random.default_rng(rng)


def draw_weights(shape, std, fan_in, fan_out, rng=None):
    """Draw float32 weights of the given shape from a normal distribution with mean 0.

    `std` is the standard deviation, or the name of a rule, where each output sums fan_in inputs and
    each input contributes to fan_out outputs:

    - "he": sqrt(2 / fan_in) keeps the size of the activations about the same from one ReLU layer to
      the next (He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10).
    - "xavier": sqrt(2 / (fan_in + fan_out)), the same for linear layers, a compromise between
      activations and gradients (Glorot and Bengio, "Understanding the difficulty of training deep
      feedforward neural networks", AISTATS 2010, equation 12).

    `rng` is that of `random_generator`; the same seed gives the same weights.
    """
    if isinstance(std, str):
        rules = {"he": 2.0 / fan_in, "xavier": 2.0 / (fan_in + fan_out)}
        if std not in rules:
            raise ValueError(f'std must be a number, "he" or "xavier", got {std!r}')
        std = np.sqrt(rules[std])
    elif not (np.isfinite(std) and std >= 0):
        raise ValueError(f"std must be finite and not negative, got {std}")
    return random_generator(rng).normal(scale=std, size=shape).astype(np.float32)


def descend(parameter, gradient, lr):
    """Return the parameter after one step of gradient descent, a new array of the same dtype."""
    return parameter - float(lr) * gradient.astype(parameter.dtype, copy=False)


class MomentumOptimizer:
    """Gradient descent with momentum: steps that agree add up, steps that alternate cancel.

        v <- mu v + g              a velocity: the sum of the gradients, older ones less
        x <- x - lr v

    With a constant gradient, v grows to g / (1 - mu): ten times the step for mu = 0.9. With mu = 0
    this is plain gradient descent. Source: B. Polyak, "Some methods of speeding up the convergence
    of iteration methods", 1964. The interface is that of `layers3.AdamOptimizer`.

    Parameters
    ----------
    lr : float
        Learning rate.
    diff_shape : sequence of int
        Shape of x and of its gradient.
    momentum : float, default=0.9
        mu, from 0 to below 1.

    Examples
    --------
    >>> optimizer = MomentumOptimizer(0.1, (1,))
    >>> x = optimizer.update(np.array([1.0]), np.array([2.0]))
    >>> x, optimizer.update(x, np.array([2.0]))  # 1 - 0.1 * 2, then 0.8 - 0.1 * (0.9 * 2 + 2)
    (array([0.8]), array([0.42]))
    """

    def __init__(self, lr, diff_shape, momentum=0.9):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
        self.lr = lr
        self.momentum = momentum
        self.velocity = np.zeros(diff_shape)

    def update(self, input, grad):
        """Return x after one more step, for x = `input` and g = `grad`, the gradient at x."""
        input = check_shape("input", input, self.velocity.shape)
        grad = check_shape("grad", grad, self.velocity.shape)
        velocity = self.momentum * self.velocity + grad
        self.velocity = velocity.astype(input.dtype, copy=False)
        return descend(input, self.velocity, self.lr)


def select(mask, values):
    """Return `values` where the boolean `mask` is true, and 0 elsewhere.

    By AND with all bits or none: ten times as fast as np.where, and unlike values * mask right for
    infinite values and NaN.
    """
    bits = -mask.astype(f"i{values.itemsize}")  # -1, all bits, or 0
    bits &= values.view(bits.dtype)
    return bits.view(values.dtype)


def check_has_param(layer):
    """Raise RuntimeError if the layer has no weights yet."""
    if layer.weight is None:
        raise RuntimeError("the layer has no parameters: call init_param or load_param first")


class FullyConnectedLayer:
    """Each output is a weighted sum of all inputs, plus a bias: y = x W + b for each row x.

    Parameters
    ----------
    num_input, num_output : int
        Features of an input row and of an output row, at least 1.

    Attributes
    ----------
    weight, bias : ndarrays of shape (num_input, num_output) and (1, num_output)
        W and b, set by `init_param` or `load_param`.
    d_weight, d_bias : ndarrays of the same shapes
        dL/dW and dL/db, set by `backward`.
    input, output : ndarrays of shape (N, num_input) and (N, num_output)
        Of the last `forward`.

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
        self.weight = self.bias = None  # parameters
        self.frozen = False
        self.d_weight = self.d_bias = None  # gradients
        self.input = self.output = None  # saved by forward

    def init_param(self, std=0.01, rng=None):
        """Draw new float32 weights (see `draw_weights`) and set the bias to 0."""
        shape = self.num_input, self.num_output
        self.weight = draw_weights(shape, std, *shape, rng)
        self.bias = np.zeros((1, self.num_output), dtype=np.float32)
        self.frozen = False

    def freeze(self):
        """Declare the parameters final: `backward` then computes only dL/dx.

        `init_param` and `load_param` unfreeze the layer.
        """
        check_has_param(self)
        self.frozen = True
        self.d_weight = self.d_bias = None

    def forward(self, input):
        """Return the outputs (N, num_output) for a batch of inputs (N, num_input)."""
        check_has_param(self)
        input = check_rows("input", input)
        if input.shape[1] != self.num_input:
            raise ValueError(f"expected input of shape (N, {self.num_input}), got {input.shape}")
        weight = self.weight.astype(input.dtype, copy=False)
        bias = self.bias.astype(input.dtype, copy=False)
        self.input = input

        self.output = matmul(input, weight) + bias
        return self.output

    def backward(self, top_diff, need_bottom_diff=True):
        """Set `d_weight` and `d_bias`, and return the gradient with respect to the input.

        With y_nj = sum_i x_ni W_ij + b_j and g_nj = dL/dy_nj (`top_diff`), the chain rule sums over
        all outputs that a variable contributes to:

            dL/dW_ij = sum_n x_ni g_nj      the matrix product x^T g
            dL/db_j  = sum_n g_nj           the column sums of g
            dL/dx_ni = sum_j g_nj W_ij      the matrix product g W^T: (N, num_input)

        Some printings of the book have W^T on the left, where the shapes do not fit.

        A frozen layer computes only the last of these. With need_bottom_diff=False the result is
        None. This is for the first layer of a network: nothing uses that gradient, and leaving it
        out saves a third of the work.
        """
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        top_diff = check_shape("top_diff", top_diff, (len(self.input), self.num_output))
        top_diff = top_diff.astype(self.input.dtype, copy=False)

        if not self.frozen:
            self.d_weight = matmul(self.input.T, top_diff)  # (N, num_input) -> (num_input, N)
            self.d_bias = top_diff.sum(axis=0, keepdims=True)  # (N, num_output) -> (1, num_output)
        if not need_bottom_diff:
            return None
        weight = self.weight.astype(self.input.dtype, copy=False)
        return matmul(top_diff, weight.T)  # (num_input, num_output) -> (num_output, num_input)

    def update_param(self, lr):
        """Take one step of gradient descent with learning rate `lr`: W <- W - lr dL/dW, same for b.

        The parameters become new arrays, so that code holding the old ones does not see a change.
        """
        if self.frozen:
            raise RuntimeError("a frozen layer has no weight gradients")
        if self.d_weight is None:
            raise RuntimeError("update_param needs a backward pass first")
        self.weight = descend(self.weight, self.d_weight, lr)
        self.bias = descend(self.bias, self.d_bias, lr)

    def load_param(self, weight, bias):
        """Replace the parameters by copies of `weight` and `bias`, arrays of the shapes above."""
        weight = check_shape("weight", weight, (self.num_input, self.num_output))
        bias = check_shape("bias", bias, (1, self.num_output))
        self.weight = weight.copy()
        self.bias = bias.copy()
        self.frozen = False

    def save_param(self):
        """Return copies of `weight` and `bias`."""
        check_has_param(self)
        return self.weight.copy(), self.bias.copy()


class ReLULayer:
    """Negative values become 0, all others stay: y = max(0, x).

    Two fully connected layers in a row are one linear layer; a non-linear function between them is
    needed. At x = 0 any slope from 0 to 1 is possible: the book and this layer let the gradient
    pass (x >= 0), most frameworks do not (x > 0).

    Attributes
    ----------
    input : ndarray of any shape
        Of the last `forward`.

    Examples
    --------
    >>> layer = ReLULayer()
    >>> layer.forward(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    >>> layer.backward(np.array([10.0, 20.0, 30.0]))
    array([ 0., 20., 30.])
    """

    kind = "relu"  # fast/fused.py recognises the layers it is given by this attribute

    def __init__(self):
        self.input = None  # saved by forward

    def forward(self, input):
        """Return max(0, input), a new array of the same shape and dtype."""
        input = check_array("input", input)
        if input.size == 0:
            raise ValueError(f"expected an input with at least one value, got shape {input.shape}")
        self.input = input

        return np.maximum(input, 0)

    def backward(self, top_diff):
        """Return `top_diff` where the input was at least 0, and 0 elsewhere.

        Each y depends only on its own x, with slope 1 for x >= 0 and slope 0 for x < 0:
        dL/dx = dL/dy [x >= 0].
        """
        if self.input is None:
            raise RuntimeError("backward needs a forward pass first")
        top_diff = check_shape("top_diff", top_diff, self.input.shape)
        top_diff = top_diff.astype(self.input.dtype, copy=False)

        return select(self.input >= 0, top_diff)


class DropoutLayer:
    """In training, set a random share of the values to 0, so that none can be relied on alone.

        y = x m / (1 - rate)       m is 0 with probability `rate`, else 1; drawn for every value

    The division keeps the mean of y at x. At test time y = x. Source: Srivastava, Hinton,
    Krizhevsky, Sutskever and Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", JMLR 2014.

    Parameters
    ----------
    rate : float
        From 0 to below 1.
    rng : None, int or numpy.random.Generator, default=None
        See `random_generator`.

    Attributes
    ----------
    training : bool, default=False
        Whether values are dropped.
    factor : ndarray of the shape of the input
        m / (1 - rate) of the last `forward`; 1 at test time.

    Examples
    --------
    >>> layer = DropoutLayer(0.5, 0)
    >>> layer.training = True
    >>> layer.forward(np.array([[1.0, 2.0, 3.0, 4.0]]))
    array([[2., 0., 0., 0.]])
    >>> layer.backward(np.array([[1.0, 1.0, 1.0, 1.0]]))
    array([[2., 0., 0., 0.]])
    """

    def __init__(self, rate, rng=None):
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1, got {rate}")
        self.rate = rate
        self.rng = random_generator(rng)
        self.training = False
        self.factor = None  # saved by forward

    def forward(self, input):
        """Return y, an array of the shape and dtype of `input`."""
        input = check_array("input", input)
        if self.training:
            kept = self.rng.random(input.shape) >= self.rate
            self.factor = (kept / (1 - self.rate)).astype(input.dtype)
        else:
            self.factor = np.ones((1,) * input.ndim, input.dtype)
        return input * self.factor

    def backward(self, top_diff):
        """Return the gradient with respect to the input.

        Each y is its x times a constant, the factor: dL/dx = dL/dy m / (1 - rate).
        """
        if self.factor is None:
            raise RuntimeError("backward needs a forward pass first")
        return check_array("top_diff", top_diff) * self.factor


class SoftmaxLossLayer:
    """Turns scores into probabilities, and measures how well they fit the labels.

        p_nj = exp(x_nj) / sum_k exp(x_nk)          the softmax of row n
        L    = -(1/N) sum_n ln p_n,label(n)         the mean cross-entropy

    An untrained network gives each of D classes a probability of about 1/D: its loss is about ln D.

    Attributes
    ----------
    prob : ndarray of shape (N, D)
        The probabilities of the last `forward`; each row sums to 1.
    label_onehot : ndarray of shape (N, D)
        1 at each row's label, 0 elsewhere; set by `get_loss`.
    batch_size : int
        N of the last `forward`.

    Notes
    -----
    The loss does not use `prob`, since ln p fails when p has been rounded to 0. It uses the
    logarithm of the formula above, ln p_j = x_j - ln(sum_k exp(x_k)), whose second term is called
    log-sum-exp, in float64: float32 scores can differ by more than the largest float32.

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
        self.prob = self.log_prob = self.batch_size = None  # saved by forward
        self.label_onehot = None  # saved by get_loss

    def forward(self, input):
        """Return the probabilities (N, D) for finite scores `input` (N, D).

        The largest score of each row is subtracted first. This divides numerator and denominator
        by the same number, so p does not change, and exp cannot overflow.
        """
        input = check_rows("input", input)
        self.batch_size = input.shape[0]
        self.label_onehot = None  # the labels of the last batch are not those of this one
        largest = input.max(axis=1, keepdims=True)  # (N, D) -> (N, 1)
        with np.errstate(over="ignore"):  # the difference of two huge scores can become -inf
            exp = np.exp(input - largest)
            shifted = input.astype(np.float64) - largest
        sum_exp = exp.sum(axis=1, keepdims=True)  # (N, D) -> (N, 1); at least 1
        self.prob = exp / sum_exp
        # The loss is finite for all finite scores: -inf becomes half of the least number.
        self.log_prob = np.maximum(shifted, np.finfo(np.float64).min / 2) - np.log(sum_exp)
        return self.prob

    def get_loss(self, label):
        """Return the loss, a float, for `label` (N,): the right class of each row, from 0 to D - 1.

        Labels of shape (N, 1) are refused: as an index they would mark every row's label in every
        row.
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

        # each term is divided before the sum, because the sum could overflow
        return float(np.sum(-self.log_prob[rows, label] / self.batch_size))

    def backward(self):
        """Return the gradient (N, D) of the loss with respect to the scores.

        The loss of one row is L = ln(sum_k exp(x_k)) - x_label, so

            dL/dx_j = exp(x_j) / sum_k exp(x_k) - [j = label] = p_j - [j = label]

        The mean over the batch divides it by N.
        """
        if self.label_onehot is None:
            raise RuntimeError("backward needs a forward pass and get_loss first")
        return (self.prob - self.label_onehot) / float(self.batch_size)

"""The optimisers: each takes a `Position` and emits one after each step."""

import numpy as np

from layers3 import AdamOptimizer
from style.plan import PAIRS, Position

# Constants of `lbfgs`.
TRIALS = 20  # lengths that its line search tries
DECREASE = 1e-4  # share of the predicted decrease that a step must reach
CURVATURE = 1e-6  # least cosine between s and y
TINY = 1e-30  # against division by 0


def adam(objective, position, steps, bounds, emit, learning_rate):
    """Minimise by the Adam of `layers3.py`; the step length falls to 0 along a cosine.

    With a constant step length every pixel keeps jittering by about that many levels, which is
    visible as a grey haze.

    Parameters
    ----------
    objective : callable
        An `Objective`: returns the losses of an image and their gradient, a new array.
    position : Position
        Where to start.
    steps : int
        To be done at this scale, those before `position` included.
    bounds : tuple of ndarray of shape (1, 3, 1, 1)
        The least and largest value of a pixel in each channel.
    emit : callable
        ``emit(position, losses)`` is called after each step.
    learning_rate : float
        Longest step of a pixel, in levels of 0 to 255.

    Returns
    -------
    ndarray of shape (1, 3, H, W)
    """
    scale, done, image, state = position
    optimizer = AdamOptimizer(learning_rate, image.shape)
    zeros = np.zeros_like(image)  # its own are in double precision
    optimizer.step, optimizer.mt, optimizer.vt = done, state.get("m", zeros), state.get("v", zeros)
    for step in range(done, steps):
        losses, gradient = objective(image)
        optimizer.lr = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        image = optimizer.update(image, gradient)
        np.clip(image, *bounds, out=image)
        emit(Position(scale, step + 1, image, {"m": optimizer.mt, "v": optimizer.vt}), losses)
    return image


def lbfgs(objective, position, steps, bounds, emit, most=PAIRS):
    """Minimise by L-BFGS, the optimiser of the original paper; interface of `adam`.

    Newton's method steps from x to x - H g, where g is the gradient and H the inverse of the matrix
    of second derivatives. L-BFGS never stores H. It estimates H g from the last steps s = x' - x
    and from the changes of the gradient y = g' - g that they caused, because H y is near s; see
    `newton_direction`.

    Bounds are kept by projection. A pixel at a bound stays there while its gradient points outward;
    other pixels move by -H g and stop at the bounds.

    A step is one iteration: one evaluation of the objective, or more if the first trial was too
    long; see `line_search`. The very first step, before its projection, changes a pixel by one
    level on average, whatever the scale of the objective. If no step reduces the loss, the pairs
    s, y are forgotten and the direction of the gradient is tried. If that fails too, the
    optimisation ends early.

    Notes
    -----
    The `optimizer_state` has the keys "s" and "y": at most `most` arrays of the image's shape each,
    oldest first. A list, because stacking them would copy them all at every step. All later
    steps follow from them and the image: a resumed run is the same to the last bit.

    References
    ----------
    J. Nocedal, S. Wright, "Numerical Optimization", second edition, 2006: algorithms 3.1
    (backtracking) and 7.4 (L-BFGS), section 16.7 (gradient projection).
    """
    scale, done, image, state = position
    pairs = []
    for s, y in zip(state.get("s", ()), state.get("y", ()), strict=True):
        pairs = with_pair(pairs, s, y, most)
    image = np.ascontiguousarray(image)  # one memory order: sums are then the same to the bit
    losses, gradient = objective(image)
    gradient = np.ascontiguousarray(gradient)
    while done < steps:
        free = ((image > bounds[0]) | (gradient < 0)) & ((image < bounds[1]) | (gradient > 0))
        direction = newton_direction(free * gradient, pairs)
        direction *= free
        np.negative(direction, out=direction)
        found = line_search(objective, image, losses, gradient, direction, bounds)
        if found is None:
            if not pairs:
                break
            pairs = []
            continue
        new_image, losses, new_gradient = found
        s = np.subtract(new_image, image, out=direction)  # in memory that is no longer needed
        y = np.subtract(new_gradient, gradient, out=gradient)
        pairs = with_pair(pairs, s, y, most)
        image, gradient = new_image, new_gradient
        done += 1
        state = {"s": [s for s, _, _ in pairs], "y": [y for _, y, _ in pairs]}
        emit(Position(scale, done, image, state), losses)
    return image


def newton_direction(gradient, pairs):
    """Return H g by the two-loop recursion (Nocedal and Wright, algorithm 7.4).

    Every pair s, y updates H, with rho = 1 / (s . y), so that afterwards H y = s:

        H <- (I - rho s y^T) H (I - rho y s^T) + rho s s^T

    The first loop multiplies g by the factors on the right, newest pair first. In the middle, H is
    (s . y) / (y . y) of the newest pair, times the identity. The second loop multiplies by the
    factors on the left, oldest pair first, and adds the last terms. Without pairs, H g is g divided
    by its mean absolute value.

    `gradient` is g, of shape (1, 3, H, W); `pairs` are tuples of s, y and s . y, oldest first.
    """
    if not pairs:
        return gradient / max(np.mean(np.abs(gradient)), TINY)
    q, alphas = gradient.copy(), []
    for s, y, curvature in reversed(pairs):
        alphas.insert(0, dot(s, q) / curvature)
        q -= alphas[0] * y
    _, y, curvature = pairs[-1]
    q *= curvature / dot(y, y)
    r = q  # in the same memory
    for (s, y, curvature), alpha in zip(pairs, alphas, strict=True):
        r += (alpha - dot(y, r) / curvature) * s
    return r


def with_pair(pairs, s, y, most=PAIRS):
    """Return the newest `most` of `pairs` and s, y.

    Only pairs with s . y clearly above 0 count: they keep H positive definite, and -H g then is a
    descent direction.
    """
    curvature = dot(s, y)
    if curvature > CURVATURE * np.sqrt(dot(s, s) * dot(y, y)) > 0:
        pairs = [*pairs, (s, y, curvature)][-most:]
    return pairs


def line_search(objective, image, losses, gradient, direction, bounds):
    """Return image, losses and gradient after a step along `direction` that reduces the loss.

    Backtracking (Nocedal and Wright, algorithm 3.1): the whole step first, then half of it and so
    on, until the loss falls by at least `DECREASE` times what the gradient predicts. None if no
    trial does.
    """
    loss = sum(losses.values())
    for halvings in range(TRIALS):
        new_image = 0.5**halvings * direction
        new_image += image
        np.clip(new_image, *bounds, out=new_image)
        predicted = dot(gradient, new_image - image)
        if predicted >= 0:  # no descent direction, or too short to move any pixel
            return None
        new_losses, new_gradient = objective(new_image)
        if sum(new_losses.values()) - loss <= DECREASE * predicted:
            return new_image, new_losses, np.ascontiguousarray(new_gradient)
        del new_gradient  # the next trial needs its memory
    return None


def dot(a, b):
    """Return the inner product of two images (1, 3, H, W).

    Each row is summed in the precision of the images, the rows in double precision. It does not use
    BLAS, whose order of summation depends on the number of threads.
    """
    return float(np.einsum("nchw,nchw->nch", a, b).sum(dtype=np.float64))

"""The optimisers: each takes a `Position` and emits one after each step."""

import numpy as np
import scipy.optimize

from layers3 import AdamOptimizer
from style.plan import Position


def adam(objective, position, steps, bounds, emit, learning_rate):
    """Minimise by the Adam of `layers3.py`; the step length falls to 0 along a cosine.

    With a constant step length every pixel keeps jittering by about that many levels, which is
    visible as a grey haze.

    Parameters
    ----------
    objective : callable
        An `Objective`: returns the losses of an image and their gradient.
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
    if done:
        optimizer.step, optimizer.mt, optimizer.vt = done, state["m"], state["v"]
    for step in range(done, steps):
        losses, gradient = objective(image)
        optimizer.lr = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        image = np.clip(optimizer.update(image, gradient), *bounds)
        emit(Position(scale, step + 1, image, {"m": optimizer.mt, "v": optimizer.vt}), losses)
    return image


def lbfgs(objective, position, steps, bounds, emit, restart_every):
    """Minimise by SciPy's L-BFGS-B, the optimiser of the original paper; interface of `adam`.

    From its last ten steps it estimates the curvature of the loss, and from that good step lengths.
    It tries again when a step was too long, so some steps take two evaluations.

    SciPy gives no access to L-BFGS's memory, so it restarts every `restart_every` steps, whether a
    run is interrupted or not. At a restart only the image matters: a run can resume from there.

    SciPy gets the pixels in units of the square root of their number. Its first step has length 1
    over all pixels together, which is then one level a pixel instead of almost nothing.
    """
    scale, done, image, _ = position
    unit = np.sqrt(image.size)
    layout = image.transpose(0, 2, 3, 1).shape  # (N, H, W, 3), the pixels' order in memory

    def pack(image):
        # (N, 3, H, W) -> (N, H, W, 3), flat, in the double precision that SciPy needs
        return image.transpose(0, 2, 3, 1).astype(np.float64).ravel()

    def unpack(x):
        # (N, H, W, 3) -> (N, 3, H, W)
        return (unit * x).reshape(layout).astype(image.dtype).transpose(0, 3, 1, 2)

    low, high = (np.broadcast_to(bound.reshape(3) / unit, layout).ravel() for bound in bounds)
    latest, end = {}, done

    def evaluate(x):
        losses, gradient = objective(unpack(x))
        latest.update(losses)
        return sum(losses.values()), unit * pack(gradient)  # chain rule: pixels = unit * x

    def report(x):
        nonlocal done
        done += 1
        emit(Position(scale, done, unpack(x), {} if done == end else None), dict(latest))

    while done < steps:
        end = min(done + restart_every, steps)
        limits = {"maxiter": end - done, "maxfun": 3 * (end - done) + 20}
        result = scipy.optimize.minimize(
            evaluate, pack(image) / unit, method="L-BFGS-B", jac=True, callback=report,
            bounds=scipy.optimize.Bounds(low, high),
            options={**limits, "ftol": 0, "gtol": 0, "maxcor": 10},
        )  # fmt: skip
        image = unpack(result.x)
        if result.nit == 0:  # no step reduces the loss
            break
    return image

"""Finite differences, against which every backward pass is checked."""

import numpy as np


def check_gradient(function, x, analytic, name="x", rtol=1e-6, atol=1e-9, step=1e-5):
    """Compare `analytic` with centred differences of `function` over every element of `x`.

    Each element in turn is changed by a small h in both directions, and

        d f / d x_i  ~  (f(x + h e_i) - f(x - h e_i)) / (2 h)

    with an error of order h². Make `function` the sum of `output * top_diff` for a random
    `top_diff`: a constant one hides swapped axes and lost terms.

    Parameters
    ----------
    function : callable
        Takes a float64 array of the shape of `x`, returns a number. It must be smooth around `x`:
        keep the data away from kinks and ties by more than `step`.
    x : ndarray
        Where to differentiate; floating point, any shape, left unchanged.
    analytic : ndarray
        The gradient to be checked, of the shape of `x`.
    name : str, default="x"
        The name of this gradient in the failure message.
    rtol, atol : float
        An element passes if |analytic - numeric| <= atol + rtol * the largest |numeric|. The
        largest element is the scale because all differences share its rounding errors.
    step : float, default=1e-5
        The h above, relative to max(1, |x_i|).

    Raises
    ------
    AssertionError
        If a shape or an element differs; names index, analytic and numeric value of the worst.
    """
    x = np.array(x, dtype=np.float64)  # a copy, changed element by element
    analytic = np.asarray(analytic)
    if analytic.shape != x.shape:
        raise AssertionError(f"gradient of {name}: shape {analytic.shape}, expected {x.shape}")
    numeric = np.empty_like(x)
    for index in np.ndindex(x.shape):
        centre = x[index]
        h = step * max(1.0, abs(centre))
        upper, lower = centre + h, centre - h
        x[index] = upper
        above = float(function(x.copy()))
        x[index] = lower
        below = float(function(x.copy()))
        x[index] = centre
        numeric[index] = (above - below) / (upper - lower)
    if not x.size:
        return
    error = np.abs(analytic - numeric)
    allowed = atol + rtol * np.abs(numeric).max()
    wrong = ~(error <= allowed)  # "not smaller", so that a NaN is wrong too
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), x.shape)
        raise AssertionError(
            f"gradient of {name} is wrong at {int(wrong.sum())} of {x.size} elements; the worst is "
            f"index {tuple(map(int, worst))}: analytic {float(analytic[worst])!r}, "
            f"numeric {float(numeric[worst])!r} (difference {float(error[worst]):.3g}, "
            f"allowed {float(allowed):.3g})"
        )

"""Checks of the layers' arguments; each message says what was expected and what was given.

`check_array` and the functions that use it return the array as the layers compute with it.
"""

import numpy as np


def check_positive(**numbers):
    """Raise unless every number is an int of at least 1 (``check_positive(stride=stride)``)."""
    _check_integers(numbers, least=1)


def check_not_negative(**numbers):
    """Raise unless every number is an int of at least 0."""
    _check_integers(numbers, least=0)


def _check_integers(numbers, least):
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            raise TypeError(f"{name} must be an int, got {type(number).__name__}")
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")


def check_array(name, array):
    """Return a NumPy array of float32 or float64 as it is, integers and booleans as float32.

    TypeError for anything else. A matrix becomes an array; a masked array is refused, because the
    layers would use its hidden values.
    """
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"expected {name} to be a NumPy array, got {type(array).__name__}")
    array = np.asarray(array)  # of a subclass, such as np.matrix or np.memmap
    if array.dtype.kind in "iub":
        return array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"expected {name} of float32, float64 or integers, got {array.dtype}")
    return array


def check_shape(name, array, shape):
    """Return `array` unless its shape is not exactly this one."""
    array = check_array(name, array)
    if array.shape != tuple(shape):
        raise ValueError(f"expected {name} of shape {tuple(shape)}, got {array.shape}")
    return array


def check_rows(name, array):
    """Return `array` unless it is not a batch of rows (N, D), neither of them 0."""
    array = check_array(name, array)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"expected {name} of shape (N, D), neither of them 0, got {array.shape}")
    return array


def check_pictures(name, array, channels=None):
    """Return `array` unless it is not a batch of images (N, C, H, W), none of them 0."""
    array = check_array(name, array)
    if array.ndim != 4 or array.size == 0:
        shape = f"(N, {channels or 'C'}, H, W)"
        raise ValueError(f"expected {name} of shape {shape}, none of them 0, got {array.shape}")
    if channels not in (None, array.shape[1]):
        got = f"{array.shape[1]}: {array.shape}"
        raise ValueError(f"expected {name} with {channels} channels, got {got}")
    return array

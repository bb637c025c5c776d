"""Shared by the tests of the layers and of their kernels."""

import re

import numpy as np
import pytest

from helpers import oracles
from layers2 import ConvolutionalLayer

KINDS = pytest.mark.parametrize("kind", [0, 1], ids=["raw", "fast"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


ROUTES = pytest.mark.parametrize("route", ["raw", "speedup"])


# relative L2 error against an oracle in float64
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-9}


def conv_layer(rng, kernel, cin, cout, padding, stride, kind=1, dtype=np.float64):
    """Return a layer with random weights and biases, none of them zero."""
    layer = ConvolutionalLayer(kernel, cin, cout, padding, stride, kind)
    layer.load_param(
        rng.standard_normal((cin, kernel, kernel, cout)).astype(dtype),
        rng.standard_normal(cout).astype(dtype),
    )
    return layer


def says(*parts):
    """Return a pattern for a message that holds all of `parts`, in any order."""
    return re.compile("".join(f"(?=.*{re.escape(str(part))})" for part in parts), re.DOTALL)


def assert_close(actual, expected, dtype):
    """Same shape, dtype and content, over all and also at the worst element."""
    expected = np.asarray(expected)
    assert isinstance(actual, np.ndarray)
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    error = oracles.relative_error(actual, expected)
    assert error <= TOLERANCE[dtype]
    # one wrong tile in a corner of a large picture would drown in the sum above
    worst = np.abs(actual - expected).max()
    assert worst <= 10 * TOLERANCE[dtype] * np.abs(expected).max()


def assert_convolution(layer, x, top_diff, padding, stride, dtype):
    """Forward and backward agree with SciPy and do not change what they are given."""
    weight, bias = layer.save_param()
    x_before, top_before = x.copy(), top_diff.copy()
    output = layer.forward(x)
    assert_close(output, oracles.convolution(x, weight, bias, padding, stride), dtype)
    bottom_diff = layer.backward(top_diff)
    expected = oracles.convolution_gradients(x, weight, top_diff, padding, stride)
    assert_close(bottom_diff, expected[0], dtype)
    assert_close(layer.d_weight, expected[1], dtype)
    assert_close(layer.d_bias, expected[2], dtype)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(top_diff, top_before)
    np.testing.assert_array_equal(layer.weight, weight)
    np.testing.assert_array_equal(layer.bias, bias)

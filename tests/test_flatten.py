"""FlattenLayer: the order of the features, and back."""

import numpy as np
import pytest
from helpers import oracles
from helpers.gradients import check_gradient
from helpers.layer_checks import DTYPES, says

from layers2 import FlattenLayer


@pytest.mark.layers
@DTYPES
def test_flatten_worked_by_hand(dtype):
    layer = FlattenLayer((2, 2, 3), (12,))
    x = np.arange(12, dtype=dtype).reshape(1, 2, 2, 3)
    output = layer.forward(x)
    # height, then width, then channel: the two channels of one place are side by side
    np.testing.assert_array_equal(output, [[0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]])
    assert output.dtype == dtype
    bottom_diff = layer.backward(output)
    np.testing.assert_array_equal(bottom_diff, x)
    assert bottom_diff.dtype == dtype


@DTYPES
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("output_shape", [(60,), [60], (20, 3), (1, 60)])
def test_flatten_and_back(dtype, layout, batch, output_shape):
    rng = np.random.default_rng(101)
    x = oracles.laid_out(rng.standard_normal((batch, 3, 4, 5)).astype(dtype), layout)
    before = x.copy()
    layer = FlattenLayer([3, 4, 5], output_shape)
    output = layer.forward(x)
    assert output.shape == (batch, *output_shape)
    assert output.dtype == dtype
    flat = output.reshape(batch, 60)
    for c, h, w in np.ndindex(3, 4, 5):
        np.testing.assert_array_equal(flat[:, (h * 5 + w) * 3 + c], before[:, c, h, w])
    bottom_diff = layer.backward(output)
    np.testing.assert_array_equal(bottom_diff, before)
    assert bottom_diff.dtype == dtype
    np.testing.assert_array_equal(x, before)
    top_diff = oracles.read_only(rng.standard_normal(output.shape).astype(dtype))
    np.testing.assert_array_equal(layer.forward(layer.backward(top_diff)), top_diff)


@pytest.mark.layers
def test_flatten_gradient_by_finite_differences():
    rng = np.random.default_rng(103)
    layer = FlattenLayer((3, 2, 4), (24,))
    x, top_diff = rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((2, 24))
    layer.forward(x)
    check_gradient(lambda x: np.sum(layer.forward(x) * top_diff), x, layer.backward(top_diff))


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "named"),
    [
        ((3, 4, 5), (59,), "(59,)"),
        ((1, 2, 3), (), "()"),
        ((3, 4), (12,), "(3, 4)"),
        ((3, 0, 5), (0,), "0"),
        ((-3, 4, -5), (60,), "-3"),
        ((3, 4, 5), (-60,), "-60"),
    ],
)
def test_flatten_refuses_shapes_that_do_not_fit(input_shape, output_shape, named):
    with pytest.raises(ValueError, match=says(named)):
        FlattenLayer(input_shape, output_shape)


@pytest.mark.parametrize(
    "shape", [(2, 4, 5, 3), (2, 3, 5, 4), (3, 4, 5), (2, 60), (0, 3, 4, 5), (1, 1, 4, 5), ()]
)
def test_flatten_refuses_inputs_of_a_different_shape(shape):
    with pytest.raises(ValueError, match=says(3, shape)):
        FlattenLayer((3, 4, 5), (60,)).forward(np.ones(shape))


@pytest.mark.parametrize(
    "shape", [(2, 59), (2, 3, 4, 5), (60,), (120,), (0, 60), (2, 60, 1), (1, 60)]
)
def test_flatten_refuses_top_diffs_of_a_different_shape(shape):
    layer = FlattenLayer((3, 4, 5), (60,))
    layer.forward(np.ones((2, 3, 4, 5)))
    with pytest.raises(ValueError, match=says("60", shape)):
        layer.backward(np.ones(shape))


def test_flatten_refuses_types_and_order():
    layer = FlattenLayer((3, 4, 5), (60,))
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones((1, 60)))
    with pytest.raises(TypeError, match="float16"):
        layer.forward(np.ones((1, 3, 4, 5), np.float16))
    layer.forward(np.ones((1, 3, 4, 5)))
    with pytest.raises(TypeError, match="float16"):
        layer.backward(np.ones((1, 60), np.float16))

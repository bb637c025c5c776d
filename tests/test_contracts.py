"""What all layers promise: dtypes and kinds of arrays, values that are not finite, copies."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from helpers.layer_checks import KINDS, conv_layer

from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer, random_generator, select
from layers2 import AveragePoolingLayer, ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer

MAKE = {
    "fully connected": lambda kind: with_param(FullyConnectedLayer(5, 3)),
    "relu": lambda kind: ReLULayer(),
    "convolution": lambda kind: with_param(ConvolutionalLayer(3, 2, 3, 1, 2, kind)),
    "max pooling": lambda kind: MaxPoolingLayer(2, 1, kind),
    "average pooling": lambda kind: AveragePoolingLayer(2, 1, kind),
    "flatten": lambda kind: FlattenLayer((2, 4, 5), (40,)),
}
LAYERS = pytest.mark.parametrize("name", MAKE)
INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.uint64, bool]


def with_param(layer):
    layer.init_param(0.5, rng=0)
    return layer


def inputs(name, seed=1):
    """Return integers for a layer of this name: negative ones, and ties."""
    shape = (4, 5) if name == "fully connected" else (2, 2, 4, 5)
    return np.random.default_rng(seed).integers(-3, 9, shape)


# Dtypes and kinds of arrays ------------------------------------------------------------------


@KINDS
@LAYERS
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_and_booleans_count_as_float32(name, kind, dtype):
    x = inputs(name).astype(dtype)
    layer, expected = MAKE[name](kind), MAKE[name](kind)
    output = layer.forward(x)
    np.testing.assert_array_equal(output, expected.forward(x.astype(np.float32)))
    assert output.dtype == np.float32
    top_diff = np.arange(output.size).reshape(output.shape)
    bottom_diff = layer.backward(top_diff)
    np.testing.assert_array_equal(bottom_diff, expected.backward(top_diff.astype(np.float32)))
    assert bottom_diff.dtype == np.float32
    np.testing.assert_array_equal(x, inputs(name).astype(dtype))


def test_losses_and_adam_take_integers():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, (2, 1, 3, 4, 5))
    for layer in (ContentLossLayer(), StyleLossLayer()):
        expected = layer.forward(x.astype(np.float32), y.astype(np.float32))
        assert layer.forward(x, y) == expected > 0
        diff = layer.backward(x, y)
        assert diff.dtype == np.float32
        np.testing.assert_array_equal(
            diff, layer.backward(x.astype(np.float32), y.astype(np.float32))
        )
    moved = AdamOptimizer(0.5, x.shape).update(x, y + 1)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, x - 0.5, rtol=1e-5)
    softmax = SoftmaxLossLayer()
    prob = softmax.forward(np.array([[0, 0], [1, 1]]))
    assert prob.dtype == np.float32
    np.testing.assert_array_equal(prob, np.full((2, 2), 0.5))


def test_parameters_may_be_integers():
    layer = FullyConnectedLayer(2, 1)
    layer.load_param(np.array([[2], [3]]), np.array([[1]]))
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    np.testing.assert_array_equal(layer.forward(np.array([[1, 10]])), [[33]])


@KINDS
@LAYERS
def test_a_matrix_or_a_file_in_memory_is_an_array(name, kind, tmp_path):
    x = inputs(name).astype(np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[...] = x
    given = [mapped]
    if x.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            given.append(np.matrix(x))
    expected = MAKE[name](kind).forward(x)
    for array in given:
        output = MAKE[name](kind).forward(array)
        assert type(output) is np.ndarray
        np.testing.assert_array_equal(output, expected)


@KINDS
@LAYERS
def test_masked_arrays_are_refused(name, kind):
    x = inputs(name).astype(np.float64)
    layer = MAKE[name](kind)
    with pytest.raises(TypeError, match="MaskedArray"):
        layer.forward(np.ma.masked_less(x, 0))
    output = layer.forward(x)
    with pytest.raises(TypeError, match="MaskedArray"):
        layer.backward(np.ma.masked_array(output))


# Randomness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fully connected", "convolution"])
def test_without_a_generator_np_random_seed_decides(name):
    layer = MAKE[name](1)
    weights = []
    for seed in (3, 3, 4):
        np.random.seed(seed)  # noqa: NPY002  as the book's programs do
        layer.init_param()
        weights.append(layer.weight)
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    layer.init_param()  # the state moves on
    assert not np.array_equal(layer.weight, weights[2])


def test_a_seed_or_a_generator_leaves_the_global_state_alone():
    before = np.random.get_state()[1:3]  # noqa: NPY002
    random_generator(5).normal(size=100)
    generator = np.random.default_rng(6)
    assert random_generator(generator) is generator
    MAKE["fully connected"](1)
    after = np.random.get_state()[1:3]  # noqa: NPY002
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]


# Values that are not finite ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_select(dtype):
    values = np.array([1.5, -2, 0, np.inf, -np.inf, np.nan, 1e-45, 3], dtype)
    mask = np.array([True, False] * 4)
    selected = select(mask, values)
    assert selected.dtype == dtype
    np.testing.assert_array_equal(selected, np.where(mask, values, 0))
    assert not np.shares_memory(selected, values)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_relu_stops_gradients_that_are_not_finite(value):
    layer = ReLULayer()
    layer.forward(np.array([-1.0, 0.0, 2.0, np.nan, -np.inf, np.inf]))
    bottom_diff = layer.backward(np.full(6, value))
    np.testing.assert_array_equal(bottom_diff, [0, value, value, 0, 0, value])


@KINDS
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_max_pooling_gives_a_gradient_to_one_pixel_only(kind, value):
    layer = MaxPoolingLayer(2, 2, kind)
    layer.forward(np.array([[[[1.0, 2.0, 8.0, 5.0], [4.0, 3.0, 6.0, 7.0]]]]))
    bottom_diff = layer.backward(np.array([[[[value, 1.0]]]]))
    np.testing.assert_array_equal(bottom_diff, [[[[0, 0, 1, 0], [value, 0, 0, 0]]]])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_max_pooling_picks_the_first_nan_as_the_loops_do(stride, share):
    rng = np.random.default_rng(7)
    x = rng.choice([-np.inf, 0.0, 1.0, np.inf], (2, 3, 9, 10))
    x[rng.random(x.shape) < share] = np.nan
    raw, fast = MaxPoolingLayer(3, stride, 0), MaxPoolingLayer(3, stride, 1)
    np.testing.assert_array_equal(fast.forward(x), raw.forward(x))
    np.testing.assert_array_equal(fast.argmax, raw.argmax)
    np.testing.assert_array_equal(fast.max_index, raw.max_index)
    top_diff = rng.normal(size=raw.output.shape)
    np.testing.assert_allclose(fast.backward(top_diff), raw.backward(top_diff), rtol=1e-12)


def test_the_loss_of_float32_scores_far_apart_is_exact():
    layer = SoftmaxLossLayer()
    prob = layer.forward(np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32))
    np.testing.assert_array_equal(prob, [[1, 0], [0, 1]])
    assert layer.get_loss(np.array([1, 1])) == pytest.approx(3e38)  # (6e38 + 0) / 2
    np.testing.assert_array_equal(layer.backward(), [[0.5, -0.5], [0, 0]])


# Copies --------------------------------------------------------------------------------------

COPIES = pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "deepcopy", "pickle"],
)


@COPIES
@KINDS
def test_a_copy_of_a_frozen_layer_is_frozen(kind, copied):
    rng = np.random.default_rng(8)
    layer = conv_layer(rng, 3, 16, 16, 1, 1, kind)
    layer.freeze()
    x = rng.normal(size=(1, 16, 4, 5))
    expected = layer.forward(x)
    twin = copied(layer)
    for array in (twin.weight, twin.bias):
        with pytest.raises(ValueError, match="read-only"):
            array += 1
    np.testing.assert_array_equal(twin.forward(x), expected)
    with pytest.raises(RuntimeError, match="frozen"):
        twin.get_gradient()
    twin.load_param(2 * layer.weight, 2 * layer.bias)
    np.testing.assert_allclose(twin.forward(x), 2 * expected)
    np.testing.assert_array_equal(layer.forward(x), expected)


@COPIES
@KINDS
@LAYERS
def test_copies_in_the_middle_of_training(name, kind, copied):
    layer = MAKE[name](kind)
    output = layer.forward(inputs(name))
    twin = copied(layer)
    top_diff = np.random.default_rng(9).normal(size=output.shape)
    np.testing.assert_array_equal(twin.backward(top_diff), layer.backward(top_diff))
    if hasattr(layer, "update_param"):
        layer.update_param(0.1)
        twin.update_param(0.1)
        np.testing.assert_array_equal(twin.weight, layer.weight)


@COPIES
def test_losses_and_optimisers_can_be_copied(copied):
    x, y = np.random.default_rng(10).normal(size=(2, 1, 3, 4, 5))
    layer = StyleLossLayer()
    layer.forward(x, y)
    twin = copied(layer)
    np.testing.assert_array_equal(twin.gram_style, layer.gram_style)
    np.testing.assert_array_equal(twin.backward(x, y), layer.backward(x, y))
    adam = AdamOptimizer(0.1, x.shape)
    adam.update(x, y)
    np.testing.assert_array_equal(copied(adam).update(x, y), adam.update(x, y))
    softmax = SoftmaxLossLayer()
    softmax.forward(x.reshape(4, 15))
    softmax.get_loss(np.arange(4))
    np.testing.assert_array_equal(copied(softmax).backward(), softmax.backward())


# A frozen layer ------------------------------------------------------------------------------


@KINDS
def test_a_frozen_layer_keeps_no_gradients(kind):
    layer = conv_layer(np.random.default_rng(11), 3, 2, 3, 1, 1, kind)
    x = np.ones((1, 2, 4, 5))
    layer.backward(layer.forward(x))
    assert layer.d_weight is not None
    layer.freeze()
    layer.backward(layer.forward(x))
    assert layer.d_weight is None
    assert layer.d_bias is None


# Attributes ----------------------------------------------------------------------------------


@KINDS
@LAYERS
def test_attributes_are_there_from_the_start(name, kind):
    layer, new = MAKE[name](kind), MAKE[name](kind)
    layer.backward(layer.forward(inputs(name).astype(np.float64)))
    assert all(hasattr(new, attribute) for attribute in vars(layer))


def test_attributes_of_losses_are_there_from_the_start():
    x, y = np.random.default_rng(0).standard_normal((2, 1, 3, 4, 5))
    for layer in (ContentLossLayer(), StyleLossLayer()):
        before = set(vars(layer))
        layer.forward(x, y)
        layer.backward(x, y)
        assert set(vars(layer)) == before
    layer, before = SoftmaxLossLayer(), set(vars(SoftmaxLossLayer()))
    layer.forward(x[0, 0])
    layer.get_loss(np.zeros(4, int))
    layer.backward()
    assert set(vars(layer)) == before

"""layers1.py against values worked by hand, against finite differences, and its error messages."""

import doctest

import numpy as np
import pytest
from helpers.gradients import check_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

import layers1
from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer

BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def fully_connected(weight, bias):
    """Return a layer with these parameters."""
    layer = FullyConnectedLayer(*weight.shape)
    layer.load_param(weight, bias)
    return layer


def non_contiguous(array):
    """Return the same values as every second column of a larger array, in column-major order."""
    wide = np.zeros((array.shape[0], 2 * array.shape[1]), dtype=array.dtype, order="F")
    wide[:, ::2] = array
    view = wide[:, ::2]
    assert not view.flags.c_contiguous or view.size == 1
    return view


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(layers1, extraglobs={"np": np})
    assert results.attempted >= 9
    assert results.failed == 0


# Fully connected -----------------------------------------------------------------------------


@pytest.mark.layers
@BOTH_DTYPES
def test_fully_connected_by_hand(dtype):
    layer = fully_connected(
        np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype), np.array([[10, 20, 30]], dtype=dtype)
    )
    output = layer.forward(np.array([[1, 1], [2, -1]], dtype=dtype))
    # row 1: 1+4+10, 2+5+20, 3+6+30; row 2: 2-4+10, 4-5+20, 6-6+30
    np.testing.assert_array_equal(output, [[15, 27, 39], [8, 19, 30]])
    bottom_diff = layer.backward(np.array([[1, 0, 2], [0, 3, -1]], dtype=dtype))
    # dx = g W^T: 1*1+2*3, 1*4+2*6; 3*2-1*3, 3*5-1*6
    np.testing.assert_array_equal(bottom_diff, [[7, 16], [3, 9]])
    # dW = x^T g: 1*1+2*0, 1*0+2*3, 1*2+2*-1; 1*1-1*0, 1*0-1*3, 1*2-1*-1
    np.testing.assert_array_equal(layer.d_weight, [[1, 6, 0], [1, -3, 3]])
    np.testing.assert_array_equal(layer.d_bias, [[1, 3, 1]])
    layer.update_param(0.5)
    np.testing.assert_array_equal(layer.weight, [[0.5, -1, 3], [3.5, 6.5, 4.5]])
    np.testing.assert_array_equal(layer.bias, [[9.5, 18.5, 29.5]])
    for array in (output, bottom_diff, layer.d_weight, layer.d_bias, layer.weight, layer.bias):
        assert array.dtype == dtype


@pytest.mark.layers
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize(("rows", "columns_in", "columns_out"), [(1, 1, 1), (3, 4, 2), (2, 3, 5)])
def test_fully_connected_gradients(rows, columns_in, columns_out, strided):
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, columns_in))
    weight = rng.normal(size=(columns_in, columns_out))
    bias = rng.normal(size=(1, columns_out))
    top_diff = rng.normal(size=(rows, columns_out))
    if strided:
        x, top_diff = non_contiguous(x), non_contiguous(top_diff)
    layer = fully_connected(weight, bias)
    before = [array.copy() for array in (x, top_diff, layer.weight, layer.bias)]
    output = layer.forward(x)
    assert output.shape == (rows, columns_out)
    bottom_diff = layer.backward(top_diff)
    for old, new in zip(before, (x, top_diff, layer.weight, layer.bias), strict=True):
        np.testing.assert_array_equal(new, old)

    def loss(x=x, weight=weight, bias=bias):
        return np.sum(fully_connected(weight, bias).forward(x) * top_diff)

    check_gradient(lambda a: loss(x=a), x, bottom_diff, "x")
    check_gradient(lambda a: loss(weight=a), weight, layer.d_weight, "weight")
    check_gradient(lambda a: loss(bias=a), bias, layer.d_bias, "bias")


@pytest.mark.parametrize("param", [np.float32, np.float64])
@BOTH_DTYPES
def test_fully_connected_results_have_the_dtype_of_the_input(dtype, param):
    layer = fully_connected(np.ones((3, 2), dtype=param), np.ones((1, 2), dtype=param))
    assert layer.forward(np.ones((4, 3), dtype=dtype)).dtype == dtype
    assert layer.backward(np.ones((4, 2), dtype=param)).dtype == dtype
    assert layer.d_weight.dtype == layer.d_bias.dtype == dtype
    layer.update_param(np.float64(0.1))
    assert layer.weight.dtype == layer.bias.dtype == param


@pytest.mark.layers
def test_fully_connected_gradients_are_those_of_the_last_batch():
    layer = fully_connected(np.ones((2, 2)), np.zeros((1, 2)))
    for _ in range(2):
        layer.forward(np.ones((3, 2)))
        layer.backward(np.ones((3, 2)))
    np.testing.assert_array_equal(layer.d_weight, np.full((2, 2), 3))
    np.testing.assert_array_equal(layer.d_bias, np.full((1, 2), 3))


def test_parameters_are_copied_in_and_out():
    weight, bias = np.ones((2, 3)), np.zeros((1, 3))
    layer = fully_connected(weight, bias)
    saved_weight, saved_bias = layer.save_param()
    held_weight, held_bias = layer.weight, layer.bias
    layer.forward(np.ones((1, 2)))
    layer.backward(np.ones((1, 3)))
    layer.update_param(1.0)
    for array in (weight, saved_weight, held_weight):
        np.testing.assert_array_equal(array, np.ones((2, 3)))
    for array in (bias, saved_bias, held_bias):
        np.testing.assert_array_equal(array, np.zeros((1, 3)))


def test_changing_a_loaded_or_saved_array_leaves_the_layer_alone():
    weight, bias = np.ones((2, 3)), np.zeros((1, 3))
    layer = fully_connected(weight, bias)
    weight[:], bias[:] = 7, 7
    for array in layer.save_param():
        array[:] = 8
    np.testing.assert_array_equal(layer.weight, np.ones((2, 3)))
    np.testing.assert_array_equal(layer.bias, np.zeros((1, 3)))


@pytest.mark.layers
def test_a_frozen_layer_computes_only_the_gradient_of_its_input():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 2)), rng.normal(size=(1, 2))
    x, top_diff = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
    layer = fully_connected(weight, bias)
    layer.forward(x)
    expected = layer.backward(top_diff)
    layer.freeze()
    layer.forward(x)
    np.testing.assert_array_equal(layer.backward(top_diff), expected)
    assert layer.d_weight is layer.d_bias is None
    with pytest.raises(RuntimeError, match="a frozen layer has no weight gradients"):
        layer.update_param(0.1)
    for unfreeze in (lambda: layer.load_param(weight, bias), layer.init_param):
        layer.freeze()
        unfreeze()
        layer.forward(x)
        layer.backward(top_diff)
        layer.update_param(0.1)
    with pytest.raises(RuntimeError, match="call init_param or load_param first"):
        FullyConnectedLayer(2, 3).freeze()


def test_init_param():
    layer = FullyConnectedLayer(300, 200)
    layer.init_param(rng=1)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer.weight.shape == (300, 200)
    np.testing.assert_array_equal(layer.bias, np.zeros((1, 200)))
    # 60,000 draws: the deviation of the sample deviation is 0.3 %
    assert layer.weight.std() == pytest.approx(0.01, rel=0.02)
    assert abs(layer.weight.mean()) < 0.0003
    first = layer.weight
    layer.init_param(0.01, np.random.default_rng(1))
    np.testing.assert_array_equal(layer.weight, first)
    layer.init_param(rng=2)
    assert not np.array_equal(layer.weight, first)
    layer.init_param(std="he", rng=1)
    assert layer.weight.std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)
    layer.init_param(0)
    np.testing.assert_array_equal(layer.weight, np.zeros((300, 200)))
    for std in ("glorot", -1, np.nan):
        with pytest.raises(ValueError, match="std"):
            layer.init_param(std)


def test_fully_connected_errors():
    layer = FullyConnectedLayer(3, 2)
    for call in (
        lambda: layer.forward(np.ones((1, 3))),
        lambda: layer.backward(np.ones((1, 2))),
        lambda: layer.update_param(0.1),
        layer.save_param,
    ):
        with pytest.raises(RuntimeError):
            call()
    for shape in ((0, 2), (2, -1)):
        with pytest.raises(ValueError, match="at least 1"):
            FullyConnectedLayer(*shape)
    for size in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="num_output must be an int"):
            FullyConnectedLayer(2, size)

    layer.init_param(rng=0)
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(5, 4\)"):
        layer.forward(np.ones((5, 4)))
    for shape in ((3,), (1, 1, 3), (0, 3), ()):
        with pytest.raises(ValueError, match=r"expected input .* got"):
            layer.forward(np.ones(shape))
    for wrong in (np.ones((1, 3), complex), np.ones((1, 3), dtype=np.float16), [[1.0, 2.0, 3.0]]):
        with pytest.raises(TypeError, match="expected input"):
            layer.forward(wrong)
    layer.forward(np.ones((4, 3)))
    for shape in ((4, 3), (1, 2), (4, 1), (4,)):
        with pytest.raises(ValueError, match=r"top_diff of shape \(4, 2\)"):
            layer.backward(np.ones(shape))
    with pytest.raises(TypeError, match="top_diff"):
        layer.backward(np.ones((4, 2), np.float16))

    good = np.ones((3, 2)), np.ones((1, 2))
    for weight, bias in ((np.ones((2, 3)), good[1]), (good[0], np.ones(2)), (good[0], np.ones(1))):
        with pytest.raises(ValueError, match="of shape"):
            layer.load_param(weight, bias)
    with pytest.raises(TypeError, match="weight"):
        layer.load_param(np.ones((3, 2), object), good[1])
    with pytest.raises(TypeError, match="bias"):
        layer.load_param(good[0], [[1.0, 1.0]])


# ReLU ----------------------------------------------------------------------------------------


@pytest.mark.layers
@BOTH_DTYPES
def test_relu_by_hand(dtype):
    layer = ReLULayer()
    x = np.array([[-2, 0, 3], [1, -1, 0]], dtype=dtype)
    top_diff = np.array([[1, 2, 3], [4, 5, -6]], dtype=dtype)
    output, bottom_diff = layer.forward(x), layer.backward(top_diff)
    np.testing.assert_array_equal(output, [[0, 0, 3], [1, 0, 0]])
    np.testing.assert_array_equal(bottom_diff, [[0, 2, 3], [4, 0, -6]])  # x = 0 the gradient passes
    assert output.dtype == bottom_diff.dtype == dtype
    assert layer.input is x
    assert layer.kind == "relu"
    for other in (np.float32, np.float64):
        assert layer.backward(top_diff.astype(other)).dtype == dtype
    np.testing.assert_array_equal(x, [[-2, 0, 3], [1, -1, 0]])
    np.testing.assert_array_equal(top_diff, [[1, 2, 3], [4, 5, -6]])


@pytest.mark.layers
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4, 5)])
def test_relu_gradient(shape):
    rng = np.random.default_rng(3)
    x = rng.uniform(0.1, 2, size=shape) * rng.choice([-1, 1], size=shape)  # away from the kink
    top_diff = rng.normal(size=shape)
    layer = ReLULayer()
    layer.forward(x)
    bottom_diff = layer.backward(top_diff)
    check_gradient(lambda a: np.sum(ReLULayer().forward(a) * top_diff), x, bottom_diff)


def test_relu_keeps_the_memory_order():
    """The convolutional layers return NCHW views of NHWC memory; copying them would cost time."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 3, 4, 5)).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
    layer = ReLULayer()
    assert layer.forward(x).strides == x.strides
    assert layer.backward(x).strides == x.strides
    np.testing.assert_array_equal(layer.backward(x), np.where(x >= 0, x, 0))


def test_relu_errors():
    layer = ReLULayer()
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones(3))
    with pytest.raises(TypeError, match="complex128"):
        layer.forward(np.ones(3, complex))
    with pytest.raises(ValueError, match="at least one"):
        layer.forward(np.ones((0, 3)))
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(1, 3\)"):
        layer.backward(np.ones((1, 3)))
    with pytest.raises(TypeError, match="list"):
        layer.backward([1.0])


# Softmax loss --------------------------------------------------------------------------------


@pytest.mark.layers
@BOTH_DTYPES
def test_softmax_by_hand(dtype):
    layer = SoftmaxLossLayer()
    scores = np.log(np.array([[1, 2, 5], [3, 3, 2]])).astype(dtype)
    kept = scores.copy()
    prob = layer.forward(scores)
    expected = np.array([[1, 2, 5], [3, 3, 2]]) / 8
    np.testing.assert_allclose(prob, expected, rtol=4 * np.finfo(dtype).eps)
    loss = layer.get_loss(np.array([1, 2]))
    assert type(loss) is float
    assert loss == pytest.approx(np.log(4), rel=float(4 * np.finfo(dtype).eps))  # both have 2/8
    bottom_diff = layer.backward()
    np.testing.assert_allclose(
        bottom_diff, np.array([[1, -6, 5], [3, 3, -6]]) / 16, rtol=8 * np.finfo(dtype).eps
    )
    np.testing.assert_array_equal(layer.label_onehot, [[0, 1, 0], [0, 0, 1]])
    assert layer.batch_size == 2
    assert layer.prob is prob
    assert prob.dtype == bottom_diff.dtype == layer.label_onehot.dtype == dtype
    np.testing.assert_array_equal(scores, kept)


@pytest.mark.layers
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (1, 1), (3, 4), (4, 3)])
def test_softmax_gradient(rows, classes):
    rng = np.random.default_rng(5)
    scores = non_contiguous(rng.normal(scale=2, size=(rows, classes)))
    label = rng.integers(classes, size=rows)

    def loss(a):
        layer = SoftmaxLossLayer()
        layer.forward(a)
        return layer.get_loss(label)

    layer = SoftmaxLossLayer()
    layer.forward(scores)
    layer.get_loss(label)
    check_gradient(loss, scores, layer.backward())


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(
    dtype=st.sampled_from([np.float32, np.float64]),
    scale=st.sampled_from([1.0, 1e4, 1e30, "largest"]),
    seed=st.integers(0, 999),
)
def test_softmax_stays_finite(dtype, scale, seed):
    rng = np.random.default_rng(seed)
    largest = np.finfo(dtype).max
    signs = rng.choice(np.array([-1, -0.5, 0, 1], dtype=dtype), size=(7, 3))
    scores = signs * (largest if scale == "largest" else dtype(scale))
    layer = SoftmaxLossLayer()
    prob = layer.forward(scores)
    np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-6)
    assert np.isfinite(layer.get_loss(rng.integers(3, size=7)))
    assert np.isfinite(layer.backward()).all()


def test_softmax_of_scores_far_apart():
    layer = SoftmaxLossLayer()
    for dtype in (np.float32, np.float64):
        layer.forward(np.array([[0, 1e4], [1e4, 0]], dtype=dtype))
        assert layer.get_loss(np.array([0, 0])) == 5000  # (10,000 + 0) / 2
        np.testing.assert_array_equal(layer.backward(), [[-0.5, 0.5], [0, 0]])
        assert layer.get_loss(np.array([1, 0])) == 0


def test_softmax_of_an_untrained_network():
    layer = SoftmaxLossLayer()
    layer.forward(np.random.default_rng(6).normal(scale=0.01, size=(100, 10)))
    assert layer.get_loss(np.arange(100) % 10) == pytest.approx(np.log(10), rel=0.01)


def test_softmax_errors():
    layer = SoftmaxLossLayer()
    for call in (lambda: layer.get_loss(np.array([0])), layer.backward):
        with pytest.raises(RuntimeError, match="forward"):
            call()
    for shape in ((3,), (2, 3, 1), (0, 3), (3, 0)):
        with pytest.raises(ValueError, match="expected input"):
            layer.forward(np.ones(shape))
    with pytest.raises(TypeError, match="float16"):
        layer.forward(np.ones((2, 3), np.float16))
    layer.forward(np.ones((2, 3)))
    with pytest.raises(RuntimeError, match="get_loss"):
        layer.backward()
    for label in ([[0], [1]], [0], [0, 1, 2], 0, [[0, 1]]):
        with pytest.raises(ValueError, match=r"shape \(2,\)"):
            layer.get_loss(np.array(label))
    for label in ([0.0, 1.0], [True, False], ["0", "1"]):
        with pytest.raises(TypeError, match="integer"):
            layer.get_loss(np.array(label))
    for label in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="from 0 to 2"):
            layer.get_loss(np.array(label))
    assert layer.get_loss(np.array([2, 0], dtype=np.uint8)) == pytest.approx(np.log(3))
    layer.forward(np.ones((2, 3)))  # a new batch, without labels yet
    with pytest.raises(RuntimeError, match="get_loss"):
        layer.backward()


# The three together --------------------------------------------------------------------------


@pytest.mark.layers
def test_a_chain_of_layers_has_the_right_gradient():
    rng = np.random.default_rng(7)
    x, label = rng.normal(size=(3, 4)), np.array([1, 0, 2])
    first, second = FullyConnectedLayer(4, 5), FullyConnectedLayer(5, 3)
    for layer in (first, second):
        layer.load_param(*(rng.normal(size=p.shape) for p in empty_param(layer)))
    relu, softmax = ReLULayer(), SoftmaxLossLayer()

    def loss(x):
        softmax.forward(second.forward(relu.forward(first.forward(x))))
        return softmax.get_loss(label)

    loss(x)
    bottom_diff = first.backward(relu.backward(second.backward(softmax.backward())))
    check_gradient(loss, x, bottom_diff)


def empty_param(layer):
    layer.init_param(rng=0)
    return layer.save_param()


def test_twenty_samples_can_be_memorised():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(20, 12)).astype(np.float32)
    label = np.arange(20) % 4
    chain = [FullyConnectedLayer(12, 32), ReLULayer(), FullyConnectedLayer(32, 4)]
    chain[0].init_param("he", rng)
    chain[2].init_param("he", rng)
    softmax = SoftmaxLossLayer()
    for _ in range(300):
        y = x
        for layer in chain:
            y = layer.forward(y)
        prob = softmax.forward(y)
        loss = softmax.get_loss(label)
        diff = softmax.backward()
        for layer in reversed(chain):
            diff = layer.backward(diff)
        chain[0].update_param(0.5)
        chain[2].update_param(0.5)
    assert loss < 0.02
    np.testing.assert_array_equal(prob.argmax(axis=1), label)


# check_gradient itself -----------------------------------------------------------------------


def test_check_gradient_finds_errors():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    kept = x.copy()
    check_gradient(lambda a: np.sum(a**3), x, 3 * x**2)
    np.testing.assert_array_equal(x, kept)
    off = 3 * x**2
    off[0, 1] *= 1 + 1e-5
    with pytest.raises(AssertionError, match=r"index \(0, 1\): analytic 12.00012"):
        check_gradient(lambda a: np.sum(a**3), x, off)
    with pytest.raises(AssertionError, match="shape"):
        check_gradient(lambda a: np.sum(a**3), x, (3 * x**2)[0])
    off[0, 1] = np.nan
    with pytest.raises(AssertionError, match="nan"):
        check_gradient(lambda a: np.sum(a**3), x, off)

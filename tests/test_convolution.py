"""ConvolutionalLayer: compared with literals worked by hand, SciPy and finite differences."""

import time

import numpy as np
import pytest
from helpers import oracles
from helpers.gradients import check_gradient
from helpers.layer_checks import (
    DTYPES,
    KINDS,
    ROUTES,
    assert_close,
    assert_convolution,
    conv_layer,
    says,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fast import convolution, winograd
from fast.convolution import ALGORITHMS
from fast.padded import Padded
from layers2 import ConvolutionalLayer


@pytest.mark.layers
@KINDS
@DTYPES
def test_convolution_worked_by_hand(kind, dtype):
    layer = ConvolutionalLayer(2, 1, 1, 0, 1, kind)
    layer.load_param(np.array([[[[1], [2]], [[3], [4]]]], dtype), np.array([0.5], dtype))
    x = np.array([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], dtype)
    # upper left: 1*1 + 2*2 + 3*4 + 4*5 = 37, plus the bias
    output = layer.forward(x)
    np.testing.assert_allclose(output, [[[[37.5, 47.5], [67.5, 77.5]]]], rtol=1e-6)
    bottom_diff = layer.backward(np.array([[[[1, 10], [100, 1000]]]], dtype))
    # centre, in all four windows: 4*1 + 3*10 + 2*100 + 1*1000
    np.testing.assert_allclose(
        bottom_diff, [[[[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]]], rtol=1e-6
    )
    # upper left weight: 1*1 + 10*2 + 100*4 + 1000*5
    np.testing.assert_allclose(layer.d_weight, [[[[5421], [6532]], [[8754], [9865]]]], rtol=1e-6)
    np.testing.assert_allclose(layer.d_bias, [1111], rtol=1e-6)
    for array in (output, bottom_diff, layer.d_weight, layer.d_bias):
        assert array.dtype == dtype


@pytest.mark.layers
@KINDS
def test_convolution_with_padding_and_stride_by_hand(kind):
    layer = ConvolutionalLayer(3, 1, 1, 1, 2, kind)
    layer.load_param(np.arange(1.0, 10.0).reshape(1, 3, 3, 1), np.array([-4.0]))
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    # upper left window [[0, 0, 0], [0, 1, 2], [0, 4, 5]]: 5*1 + 6*2 + 8*4 + 9*5 = 94
    np.testing.assert_allclose(layer.forward(x), [[[[90, 102], [102, 90]]]])
    # each corner of x is in one window, each edge in two, the centre in all four
    bottom_diff = layer.backward(np.array([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    expected = [[5, 46, 50], [208, 1 * 1000 + 3 * 100 + 7 * 10 + 9 * 1, 2080], [500, 4600, 5000]]
    np.testing.assert_allclose(bottom_diff, [[expected]])
    np.testing.assert_allclose(layer.d_weight[0, 1, 1], [1 + 30 + 700 + 9000])
    np.testing.assert_allclose(layer.d_weight[0, 0, 0], [5000])  # only the last window has a value


@pytest.mark.layers
@KINDS
def test_convolution_channel_order_by_hand(kind):
    # weight is (channel_in, K, K, channel_out); a 1x1 kernel mixes the channels alone
    layer = ConvolutionalLayer(1, 2, 3, 0, 1, kind)
    layer.load_param(
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).reshape(2, 1, 1, 3), np.array([0.1, 0.2, 0.3])
    )
    output = layer.forward(np.array([1.0, 10.0]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(output.ravel(), [41.1, 52.2, 63.3])
    bottom_diff = layer.backward(np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1))
    np.testing.assert_allclose(bottom_diff.ravel(), [321, 654])
    np.testing.assert_allclose(layer.d_weight.reshape(2, 3), [[1, 10, 100], [10, 100, 1000]])
    np.testing.assert_allclose(layer.d_bias, [1, 10, 100])


@KINDS
@DTYPES
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution_matches_scipy(kind, dtype, kernel, padding, stride):
    batch = 1 + 2 * (stride % 2)
    rng = np.random.default_rng(kernel * 100 + padding * 10 + stride)
    layer = conv_layer(rng, kernel, 2, 3, padding, stride, kind, dtype)
    height, width = 7, 6
    x = rng.standard_normal((batch, 2, height, width)).astype(dtype)
    rows = oracles.output_size(height, kernel, padding, stride)
    columns = oracles.output_size(width, kernel, padding, stride)
    top_diff = rng.standard_normal((batch, 3, rows, columns)).astype(dtype)
    assert_convolution(layer, x, top_diff, padding, stride, dtype)


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
    kernel=st.integers(1, 6),
    padding=st.integers(0, 4),
    stride=st.integers(1, 5),
    batch=st.integers(1, 3),
    cin=st.integers(1, 5),
    cout=st.integers(1, 5),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    layout=st.sampled_from(oracles.LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_fast_convolution_of_any_geometry(
    kernel, padding, stride, batch, cin, cout, height, width, layout, seed
):
    assume(min(height, width) + 2 * padding >= kernel)
    rng = np.random.default_rng(seed)
    layer = conv_layer(rng, kernel, cin, cout, padding, stride)
    rows = oracles.output_size(height, kernel, padding, stride)
    columns = oracles.output_size(width, kernel, padding, stride)
    # positive values, so that no expected gradient is zero all over
    x = oracles.laid_out(rng.uniform(0.5, 1.5, (batch, cin, height, width)), layout)
    top_diff = oracles.laid_out(rng.uniform(0.5, 1.5, (batch, cout, rows, columns)), layout)
    weight, bias = layer.save_param()
    expected = oracles.convolution(x, weight, bias, padding, stride)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-9, atol=1e-10)
    results = (layer.backward(top_diff), layer.d_weight, layer.d_bias)
    gradients = oracles.convolution_gradients(x, weight, top_diff, padding, stride)
    for actual, wanted in zip(results, gradients, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-10)


# every height and every width from 1 to 40 once, in pairs that are far from square
SIZES = [(height, 1 + (17 * height) % 40) for height in range(1, 41)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_3x3_convolution_at_every_size(height, width):
    # the geometry of VGG's convolutions, mostly not a whole number of tiles
    rng = np.random.default_rng(height)
    cin, cout, batch = [(16, 16, 2), (5, 16, 1), (16, 20, 1), (3, 8, 3)][height % 4]
    x = rng.standard_normal((batch, cin, height, width)).astype(np.float32)
    top_diff = rng.standard_normal((batch, cout, height, width)).astype(np.float32)
    single = conv_layer(rng, 3, cin, cout, 1, 1, dtype=np.float32)
    weight, bias = single.save_param()
    double = ConvolutionalLayer(3, cin, cout, 1, 1)
    double.load_param(weight.astype(np.float64), bias.astype(np.float64))
    output = oracles.convolution(x, weight, bias, 1, 1)
    gradients = oracles.convolution_gradients(x, weight, top_diff, 1, 1)
    for layer, dtype in ((single, np.float32), (double, np.float64)):
        assert_close(layer.forward(x.astype(dtype)), output, dtype)
        assert_close(layer.backward(top_diff.astype(dtype)), gradients[0], dtype)
        assert_close(layer.d_weight, gradients[1], dtype)
        assert_close(layer.d_bias, gradients[2], dtype)


@pytest.mark.layers
@DTYPES
@pytest.mark.parametrize(
    ("kernel", "cin", "cout", "padding", "stride", "shape"),
    [
        (3, 48, 32, 1, 1, (1, 48, 12, 20)),
        (3, 8, 8, 1, 1, (3, 8, 13, 9)),
        (3, 16, 16, 0, 1, (1, 16, 11, 6)),
        (5, 3, 6, 2, 2, (3, 3, 11, 15)),
        (2, 4, 5, 1, 3, (1, 4, 10, 7)),
        (1, 7, 9, 0, 1, (3, 7, 5, 6)),
        (4, 6, 3, 3, 5, (1, 6, 9, 17)),
    ],
)
def test_raw_and_fast_convolution_agree(kernel, cin, cout, padding, stride, shape, dtype):
    rng = np.random.default_rng(11)
    raw = conv_layer(rng, kernel, cin, cout, padding, stride, 0, dtype)
    fast = ConvolutionalLayer(kernel, cin, cout, padding, stride, 1)
    fast.load_param(*raw.save_param())
    x = rng.standard_normal(shape).astype(dtype)
    output = raw.forward(x)
    assert_close(fast.forward(x), output, dtype)
    top_diff = rng.standard_normal(output.shape).astype(dtype)
    assert_close(fast.backward(top_diff), raw.backward(top_diff), dtype)
    assert_close(fast.d_weight, raw.d_weight, dtype)
    assert_close(fast.d_bias, raw.d_bias, dtype)


# every kernel, stride, padding and batch size, with rows or columns left over in some
GRADIENT_CASES = [
    # batch, cin, cout, height, width, kernel, padding, stride
    (1, 2, 3, 4, 3, 1, 0, 1),
    (3, 2, 1, 3, 4, 1, 1, 2),
    (1, 1, 2, 5, 4, 1, 2, 3),
    (3, 2, 3, 3, 2, 2, 0, 1),
    (1, 2, 3, 5, 4, 2, 1, 2),
    (1, 3, 2, 4, 5, 2, 2, 3),
    (1, 2, 3, 5, 4, 3, 0, 1),
    (1, 2, 3, 5, 6, 3, 1, 1),
    (3, 2, 1, 6, 5, 3, 1, 2),
    (1, 3, 2, 3, 4, 3, 2, 1),
    (1, 1, 2, 6, 5, 3, 2, 3),
    (1, 2, 1, 6, 5, 5, 0, 1),
    (3, 1, 2, 4, 3, 5, 1, 1),
    (1, 2, 3, 6, 5, 5, 2, 2),
]


@pytest.mark.layers
@KINDS
@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_convolution_gradients_by_finite_differences(kind, case):
    batch, cin, cout, height, width, kernel, padding, stride = case
    rng = np.random.default_rng(sum(case))
    layer = conv_layer(rng, kernel, cin, cout, padding, stride, kind)
    weight, bias = layer.save_param()
    x = rng.standard_normal((batch, cin, height, width))
    top_diff = rng.standard_normal(layer.forward(x).shape)
    bottom_diff = layer.backward(top_diff)
    d_weight, d_bias = layer.get_gradient()

    def loss(x=x, weight=weight, bias=bias):
        layer.load_param(weight, bias)
        return np.sum(layer.forward(x) * top_diff)

    check_gradient(loss, x, bottom_diff, "input")
    check_gradient(lambda weight: loss(weight=weight), weight, d_weight, "weight")
    check_gradient(lambda bias: loss(bias=bias), bias, d_bias, "bias")


@pytest.mark.layers
@KINDS
def test_convolution_ignores_rows_that_no_window_reaches(kind):
    # stride 3 over 3 + 2 rows and 3 + 1 columns: the last ones belong to no window
    rng = np.random.default_rng(3)
    layer = conv_layer(rng, 3, 2, 4, 0, 3, kind)
    x = rng.standard_normal((1, 2, 8, 7))
    output = layer.forward(x)
    assert output.shape == (1, 4, 2, 2)
    bottom_diff = layer.backward(np.ones_like(output))
    assert np.all(bottom_diff[:, :, 6:] == 0)
    assert np.all(bottom_diff[:, :, :, 6:] == 0)
    assert np.all(bottom_diff[:, :, :6, :6] != 0)


@pytest.mark.parametrize("algorithm", ["", "fast", "Winograd", 1])
def test_convolution_refuses_unknown_algorithms(algorithm):
    with pytest.raises(ValueError, match=says("winograd", repr(algorithm))):
        ConvolutionalLayer(3, 3, 4, 1, 1, algorithm=algorithm)


@KINDS
@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
def test_a_frozen_layer_gives_the_same_results(kind, algorithm):
    rng = np.random.default_rng(109)
    layer = ConvolutionalLayer(3, 4, 16, 1, 1, kind, algorithm=algorithm)
    weight, bias = rng.standard_normal((4, 3, 3, 16)), rng.standard_normal(16)
    layer.load_param(weight, bias)
    layer.freeze()
    for height, dtype in ((6, np.float64), (6, np.float32), (9, np.float64), (6, np.float64)):
        x = rng.standard_normal((1, 4, height, 7)).astype(dtype)
        top_diff = rng.standard_normal((1, 16, height, 7)).astype(dtype)
        assert_close(layer.forward(x), oracles.convolution(x, weight, bias, 1, 1), dtype)
        expected = oracles.convolution_gradients(x, weight, top_diff, 1, 1)[0]
        assert_close(layer.backward(top_diff), expected, dtype)


@KINDS
def test_a_frozen_layer_does_not_learn(kind):
    layer = conv_layer(np.random.default_rng(113), 3, 4, 16, 1, 1, kind)
    with pytest.raises(RuntimeError, match=r"init_param|load_param"):
        ConvolutionalLayer(3, 4, 16, 1, 1).freeze()
    layer.backward(layer.forward(np.ones((1, 4, 6, 7))))
    layer.freeze()
    layer.backward(layer.forward(np.ones((1, 4, 6, 7))))
    for refused in (layer.get_gradient, lambda: layer.update_param(0.1)):
        with pytest.raises(RuntimeError, match="frozen"):
            refused()
    for parameter in (layer.weight, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            parameter[...] = 0
    weight, bias = layer.save_param()
    weight[:] = bias[:] = 0  # copies are writable


def test_a_frozen_layer_transforms_its_filters_once(monkeypatch):
    calls = []

    def counting(weight, stride, algorithm, flipped, keep, original=convolution.prepare):
        calls.append((flipped, weight.dtype.name))
        return original(weight, stride, algorithm, flipped, keep)

    monkeypatch.setattr(convolution, "prepare", counting)
    layer = conv_layer(np.random.default_rng(119), 3, 20, 16, 1, 1)
    layer.freeze()
    for dtype in (np.float32, np.float64, np.float32):
        for _ in range(2):
            layer.backward(layer.forward(np.ones((1, 20, 6, 7), dtype)))
    assert sorted(calls) == [
        (flipped, name) for flipped in (False, True) for name in ("float32", "float64")
    ]


def test_a_frozen_deep_layer_has_one_form_for_both_directions(monkeypatch):
    monkeypatch.setattr(winograd, "TWO_WAY", 16 * 20)
    layer = conv_layer(np.random.default_rng(119), 3, 20, 16, 1, 1)
    layer.freeze()
    x = Padded(np.ones((1, 80, 80, 20)), 1)
    forward, flipped = layer.prepared(x), layer.prepared(x, flipped=True)
    assert forward.matrices is flipped.matrices
    assert (forward.flipped, forward.channel_out) == (False, 16)
    assert (flipped.flipped, flipped.channel_out) == (True, 20)


def test_a_frozen_layer_computes_no_weight_gradients():
    layer = conv_layer(np.random.default_rng(117), 3, 4, 16, 1, 1)
    layer.freeze()
    layer.backward(layer.forward(np.ones((1, 4, 6, 7))))
    assert layer.d_weight is None
    assert layer.d_bias is None


@KINDS
def test_a_frozen_layer_is_exact_or_refuses_when_its_weights_are_replaced(kind):
    # by assignment, without load_param: the stored transforms are those of the old weights
    rng = np.random.default_rng(125)
    layer = conv_layer(rng, 3, 16, 16, 1, 1, kind)
    layer.freeze()
    x = rng.standard_normal((1, 16, 6, 7))
    layer.backward(layer.forward(x))
    try:
        layer.weight = rng.standard_normal(layer.weight.shape)
        output = layer.forward(x)
        bottom_diff = layer.backward(x)
    except (AttributeError, RuntimeError, ValueError):
        return
    assert_close(output, oracles.convolution(x, layer.weight, layer.bias, 1, 1), np.float64)
    expected = oracles.convolution_gradients(x, layer.weight, x, 1, 1)[0]
    assert_close(bottom_diff, expected, np.float64)


@KINDS
@pytest.mark.parametrize("change", ["loaded", "drawn"])
def test_new_parameters_unfreeze_a_layer(kind, change):
    rng = np.random.default_rng(127)
    layer = conv_layer(rng, 3, 4, 16, 1, 1, kind)
    layer.freeze()
    x, top_diff = rng.standard_normal((1, 4, 6, 7)), rng.standard_normal((1, 16, 6, 7))
    layer.backward(layer.forward(x))
    if change == "loaded":
        layer.load_param(rng.standard_normal((4, 3, 3, 16)), rng.standard_normal(16))
    else:
        layer.init_param(1.0, rng=5)
    assert_convolution(layer, x, top_diff, 1, 1, np.float64)
    before = layer.weight.copy()
    layer.update_param(0.5)
    np.testing.assert_allclose(layer.weight, before - 0.5 * layer.d_weight, rtol=1e-5, atol=1e-5)
    layer.freeze()  # again, with different parameters
    expected = oracles.convolution(x, layer.weight, layer.bias, 1, 1)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-5, atol=1e-5)
    expected = oracles.convolution_gradients(x, layer.weight, top_diff, 1, 1)[0]
    np.testing.assert_allclose(layer.backward(top_diff), expected, rtol=1e-5, atol=1e-5)


@KINDS
@DTYPES
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "cin", "cout"),
    [(3, 1, 1, 4, 6), (3, 0, 2, 2, 3), (1, 0, 1, 3, 2), (1, 0, 2, 3, 2), (2, 1, 1, 3, 2)],
)
def test_convolution_of_any_memory_layout(kind, dtype, layout, kernel, padding, stride, cin, cout):
    rng = np.random.default_rng(17)
    layer = conv_layer(rng, kernel, cin, cout, padding, stride, kind, dtype)
    rows = oracles.output_size(9, kernel, padding, stride)
    columns = oracles.output_size(7, kernel, padding, stride)
    x = oracles.laid_out(rng.standard_normal((3, cin, 9, 7)).astype(dtype), layout)
    top_diff = rng.standard_normal((3, cout, rows, columns)).astype(dtype)
    assert_convolution(layer, x, oracles.laid_out(top_diff, layout), padding, stride, dtype)


@DTYPES
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
def test_wide_convolution_of_any_memory_layout(layout, dtype):
    rng = np.random.default_rng(18)
    layer = conv_layer(rng, 3, 16, 24, 1, 1, dtype=dtype)
    x = oracles.laid_out(rng.standard_normal((2, 16, 6, 9)).astype(dtype), layout)
    top_diff = oracles.laid_out(rng.standard_normal((2, 24, 6, 9)).astype(dtype), layout)
    assert_convolution(layer, x, top_diff, 1, 1, dtype)


@KINDS
def test_convolution_weights_of_any_memory_layout(kind):
    rng = np.random.default_rng(19)
    layer = ConvolutionalLayer(3, 8, 12, 1, 1, kind)
    weight = rng.standard_normal((12, 3, 3, 8)).transpose(3, 2, 1, 0)
    layer.load_param(weight, rng.standard_normal(24)[::2])
    x, top_diff = rng.standard_normal((1, 8, 6, 5)), rng.standard_normal((1, 12, 6, 5))
    assert_convolution(layer, x, top_diff, 1, 1, np.float64)


@KINDS
@pytest.mark.parametrize("channels", [2, 16])
def test_convolution_takes_its_dtype_from_the_input(kind, channels):
    rng = np.random.default_rng(23)
    x = rng.standard_normal((1, channels, 6, 5))
    layer = conv_layer(rng, 3, channels, 4, 1, 1, kind, np.float32)
    output = layer.forward(x)
    # float32 weights, but all arithmetic in float64
    assert_close(output, oracles.convolution(x, layer.weight, layer.bias, 1, 1), np.float64)
    assert layer.backward(np.ones_like(output)).dtype == np.float64
    layer = conv_layer(rng, 3, channels, 4, 1, 1, kind, np.float64)
    output = layer.forward(x.astype(np.float32))
    assert output.dtype == np.float32
    assert layer.backward(np.ones_like(output)).dtype == np.float32
    assert layer.weight.dtype == np.float64


@KINDS
def test_convolution_keeps_no_result_in_a_reused_buffer(kind):
    rng = np.random.default_rng(29)
    layer = conv_layer(rng, 3, 8, 8, 1, 1, kind)
    x = [rng.standard_normal((1, 8, 9, 6)) for _ in range(2)]
    outputs = [layer.forward(x[0])]
    gradients = [layer.backward(outputs[0]), *layer.get_gradient()]
    before = [array.copy() for array in outputs + gradients]
    layer.backward(layer.forward(x[1]))
    for array, copy in zip(outputs + gradients, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@KINDS
def test_convolution_takes_pictures_of_changing_size(kind):
    rng = np.random.default_rng(31)
    layer = conv_layer(rng, 3, 8, 6, 1, 1, kind)
    for batch, height, width in [(1, 9, 6), (3, 4, 11), (1, 2, 3), (1, 9, 6)]:
        x = rng.standard_normal((batch, 8, height, width))
        top_diff = rng.standard_normal((batch, 6, height, width))
        assert_convolution(layer, x, top_diff, 1, 1, np.float64)


@KINDS
def test_convolution_backward_twice_gives_the_same(kind):
    rng = np.random.default_rng(37)
    layer = conv_layer(rng, 3, 2, 3, 1, 2, kind)
    top_diff = rng.standard_normal(layer.forward(rng.standard_normal((1, 2, 5, 6))).shape)
    first = [layer.backward(top_diff), layer.d_weight.copy(), layer.d_bias.copy()]
    second = [layer.backward(top_diff), layer.d_weight, layer.d_bias]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@KINDS
def test_convolution_attributes(kind):
    rng = np.random.default_rng(41)
    layer = conv_layer(rng, 3, 2, 4, 2, 1, kind)
    x = rng.standard_normal((3, 2, 5, 4))
    output = layer.forward(x)
    np.testing.assert_array_equal(layer.input, x)
    np.testing.assert_array_equal(layer.input_pad, np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))))
    assert layer.input_pad.dtype == x.dtype
    np.testing.assert_array_equal(layer.output, output)
    layer.backward(rng.standard_normal(output.shape))
    assert layer.d_weight.shape == layer.weight.shape == (2, 3, 3, 4)
    assert layer.d_bias.shape == layer.bias.shape == (4,)
    d_weight, d_bias = layer.get_gradient()
    np.testing.assert_array_equal(d_weight, layer.d_weight)
    np.testing.assert_array_equal(d_bias, layer.d_bias)


@ROUTES
def test_convolution_times_are_those_of_the_last_call(route):
    layer = conv_layer(np.random.default_rng(42), 3, 2, 4, 2, 1)
    x = np.ones((3, 2, 5, 4))
    for _ in range(2):
        start = time.perf_counter()
        output = getattr(layer, f"forward_{route}")(x)
        middle = time.perf_counter()
        getattr(layer, f"backward_{route}")(output)
        end = time.perf_counter()
        assert isinstance(layer.get_forward_time(), float)
        assert isinstance(layer.get_backward_time(), float)
        assert 0 < layer.get_forward_time() <= middle - start
        assert 0 < layer.get_backward_time() <= end - middle
        assert layer.get_forward_time() == layer.forward_time
        assert layer.get_backward_time() == layer.backward_time


@ROUTES
@KINDS
def test_every_convolution_has_both_paths(kind, route):
    rng = np.random.default_rng(43)
    layer = conv_layer(rng, 3, 2, 4, 1, 2, kind)
    x = rng.standard_normal((2, 2, 6, 5))
    output = getattr(layer, f"forward_{route}")(x)
    assert_close(output, oracles.convolution(x, layer.weight, layer.bias, 1, 2), np.float64)
    top_diff = rng.standard_normal(output.shape)
    expected = oracles.convolution_gradients(x, layer.weight, top_diff, 1, 2)
    for backward in (layer.backward_raw, layer.backward_speedup):  # after the forward of either
        assert_close(backward(top_diff), expected[0], np.float64)
        assert_close(layer.d_weight, expected[1], np.float64)
        assert_close(layer.d_bias, expected[2], np.float64)


def test_init_param_draws_float32_weights_and_zero_biases():
    layer = ConvolutionalLayer(5, 30, 20, 2, 1)
    layer.init_param()
    assert layer.weight.shape == (30, 5, 5, 20)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer.weight.std() == pytest.approx(0.01, rel=0.05)  # 15,000 draws: about 0.6 %
    assert abs(layer.weight.mean()) < 0.0005
    np.testing.assert_array_equal(layer.bias, np.zeros(20))
    assert layer.bias.shape == (20,)
    layer.init_param(0.5)
    assert layer.weight.std() == pytest.approx(0.5, rel=0.05)


def test_init_param_he_takes_the_fan_in():
    layer = ConvolutionalLayer(5, 30, 20, 2, 1)
    layer.init_param("he", rng=1)
    assert layer.weight.std() == pytest.approx((2 / (30 * 5 * 5)) ** 0.5, rel=0.05)
    assert layer.weight.dtype == np.float32


def test_init_param_repeats_with_a_seed():
    def draw(**keywords):
        layer = ConvolutionalLayer(3, 2, 4, 1, 1)
        layer.init_param(**keywords)
        return layer.weight

    np.testing.assert_array_equal(draw(rng=7), draw(rng=7))
    np.testing.assert_array_equal(draw(rng=7), draw(rng=np.random.default_rng(7)))
    np.testing.assert_array_equal(draw(std="he", rng=7), draw(std="he", rng=7))
    assert not np.array_equal(draw(rng=7), draw(rng=8))
    assert not np.array_equal(draw(), draw())
    generator = np.random.default_rng(7)
    assert not np.array_equal(draw(rng=generator), draw(rng=generator))  # its state has changed


@pytest.mark.parametrize("std", ["glorot", -1.0, float("nan"), float("inf")])
def test_init_param_refuses(std):
    with pytest.raises(ValueError, match="std"):
        ConvolutionalLayer(3, 2, 4, 1, 1).init_param(std)


@KINDS
def test_update_param_descends(kind):
    rng = np.random.default_rng(47)
    layer = conv_layer(rng, 3, 8, 8, 1, 1, kind, np.float32)
    weight, bias = layer.save_param()
    x = rng.standard_normal((1, 8, 6, 7)).astype(np.float32)
    layer.backward(rng.standard_normal(layer.forward(x).shape).astype(np.float32))
    d_weight, d_bias = (array.copy() for array in layer.get_gradient())
    layer.update_param(0.25)
    np.testing.assert_allclose(layer.weight, weight - 0.25 * d_weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.bias, bias - 0.25 * d_bias, rtol=1e-5, atol=1e-6)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    np.testing.assert_array_equal(layer.d_weight, d_weight)
    # the next forward pass uses the new parameters
    expected = oracles.convolution(x, layer.weight, layer.bias, 1, 1)
    assert_close(layer.forward(x), expected, np.float32)


@KINDS
def test_update_param_keeps_the_dtype(kind):
    layer = conv_layer(np.random.default_rng(51), 3, 2, 3, 1, 1, kind, np.float32)
    layer.backward(layer.forward(np.ones((1, 2, 5, 4))))  # float64, and so are the gradients
    layer.update_param(np.float64(0.1))
    assert layer.weight.dtype == layer.bias.dtype == np.float32


@pytest.mark.parametrize("change", ["replaced", "in place", "loaded", "drawn"])
def test_convolution_notices_changed_weights(change):
    # nothing that is kept from one pass to the next may be used with new weights
    rng = np.random.default_rng(53)
    layer = conv_layer(rng, 3, 16, 16, 1, 1)
    x = rng.standard_normal((1, 16, 6, 9))
    layer.backward(layer.forward(x))
    new = rng.standard_normal(layer.weight.shape)
    if change == "replaced":
        layer.weight = new
    elif change == "in place":
        layer.weight[...] = new
    elif change == "loaded":
        layer.load_param(new, layer.bias)
    else:
        layer.init_param(1.0, rng=3)
    assert_convolution(layer, x, rng.standard_normal((1, 16, 6, 9)), 1, 1, np.float64)


def test_load_and_save_param_copy():
    rng = np.random.default_rng(59)
    weight, bias = rng.standard_normal((2, 3, 3, 4)), rng.standard_normal(4)
    layer = ConvolutionalLayer(3, 2, 4, 1, 1)
    layer.load_param(weight, bias)
    given_weight, given_bias = weight.copy(), bias.copy()
    weight[:] = bias[:] = 0
    np.testing.assert_array_equal(layer.weight, given_weight)
    np.testing.assert_array_equal(layer.bias, given_bias)
    saved_weight, saved_bias = layer.save_param()
    np.testing.assert_array_equal(saved_weight, given_weight)
    np.testing.assert_array_equal(saved_bias, given_bias)
    saved_weight[:] = saved_bias[:] = 0
    np.testing.assert_array_equal(layer.weight, given_weight)
    np.testing.assert_array_equal(layer.bias, given_bias)
    layer.backward(layer.forward(np.ones((1, 2, 3, 3))))
    held_weight, held_bias = layer.save_param()
    layer.update_param(1.0)  # training does not change the saved copies
    np.testing.assert_array_equal(held_weight, given_weight)
    np.testing.assert_array_equal(held_bias, given_bias)


@DTYPES
def test_load_param_keeps_the_dtype(dtype):
    layer = ConvolutionalLayer(1, 2, 4, 0, 1)
    layer.load_param(np.ones((2, 1, 1, 4), dtype), np.ones(4, dtype))
    assert [array.dtype for array in layer.save_param()] == [dtype, dtype]


@pytest.mark.parametrize(
    ("weight_shape", "bias_shape", "expected", "got"),
    [
        ((4, 3, 3, 2), (4,), (2, 3, 3, 4), (4, 3, 3, 2)),  # the other frameworks' order
        ((2, 3, 3, 1), (4,), (2, 3, 3, 4), (2, 3, 3, 1)),  # would broadcast
        ((1, 3, 3, 4), (4,), (2, 3, 3, 4), (1, 3, 3, 4)),
        ((2, 3, 2, 4), (4,), (2, 3, 3, 4), (2, 3, 2, 4)),
        ((2 * 3 * 3 * 4,), (4,), (2, 3, 3, 4), (72,)),
        ((2, 3, 3, 4), (1,), (4,), (1,)),
        ((2, 3, 3, 4), (1, 4), (4,), (1, 4)),
        ((2, 3, 3, 4), (), (4,), ()),
    ],
)
def test_load_param_refuses_shapes(weight_shape, bias_shape, expected, got):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    before = layer.save_param()
    with pytest.raises(ValueError, match=says(expected, got)):
        layer.load_param(np.zeros(weight_shape), np.zeros(bias_shape))
    for now, then in zip(layer.save_param(), before, strict=True):  # all or nothing
        np.testing.assert_array_equal(now, then)


def test_load_param_refuses_other_types():
    layer = ConvolutionalLayer(3, 2, 4, 1, 1)
    with pytest.raises(TypeError, match="float16"):
        layer.load_param(np.zeros((2, 3, 3, 4), np.float16), np.zeros(4))
    with pytest.raises(TypeError, match="float16"):
        layer.load_param(np.zeros((2, 3, 3, 4)), np.zeros(4, np.float16))


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ((0, 2, 4, 1, 1), "kernel_size", 0),
        ((-3, 2, 4, 1, 1), "kernel_size", -3),
        ((3, 0, 4, 1, 1), "channel_in", 0),
        ((3, 2, -1, 1, 1), "channel_out", -1),
        ((3, 2, 4, -1, 1), "padding", -1),
        ((3, 2, 4, 1, 0), "stride", 0),
        ((3, 2, 4, 1, -2), "stride", -2),
        ((3, 2, 4, 1, 1, 2), "type", 2),
        ((3, 2, 4, 1, 1, -1), "type", -1),
    ],
)
def test_convolution_refuses_sizes(arguments, name, value):
    with pytest.raises(ValueError, match=says(name, value)):
        ConvolutionalLayer(*arguments)


@pytest.mark.parametrize("position", range(5))
def test_convolution_refuses_fractions(position):
    arguments = [3, 2, 4, 1, 1]
    arguments[position] = 2.5
    with pytest.raises(TypeError, match="float"):
        ConvolutionalLayer(*arguments)


def test_convolution_takes_numpy_integers():
    layer = ConvolutionalLayer(*(np.int64(size) for size in (3, 2, 4, 1, 1)))
    layer.init_param(rng=0)
    assert layer.forward(np.ones((1, 2, 5, 6))).shape == (1, 4, 5, 6)


@ROUTES
@pytest.mark.parametrize("shape", [(2, 5, 6), (5,), (), (1, 1, 2, 5, 6)])
def test_convolution_refuses_ranks(route, shape):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    with pytest.raises(ValueError, match=says(shape)):
        getattr(layer, f"forward_{route}")(np.ones(shape))


@ROUTES
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_convolution_refuses_channel_counts(route, channels):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    with pytest.raises(ValueError, match=says(2, channels)):
        getattr(layer, f"forward_{route}")(np.ones((1, channels, 5, 6)))


@ROUTES
@pytest.mark.parametrize("shape", [(0, 2, 5, 6), (1, 2, 0, 6), (1, 2, 5, 0), (1, 0, 5, 6)])
def test_convolution_refuses_empty_arrays(route, shape):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 2, 1)
    with pytest.raises(ValueError, match=says(shape)):
        getattr(layer, f"forward_{route}")(np.ones(shape))


@ROUTES
@pytest.mark.parametrize("shape", [(1, 2, 2, 9), (1, 2, 9, 2)])
def test_convolution_refuses_kernels_larger_than_the_padded_input(route, shape):
    layer = conv_layer(np.random.default_rng(0), 5, 2, 4, 1, 1)
    sizes = f"{shape[2]}x{shape[3]}", f"{shape[2] + 2}x{shape[3] + 2}"  # as it is, and padded
    with pytest.raises(ValueError, match=says("5x5", *sizes)):
        getattr(layer, f"forward_{route}")(np.ones(shape))
    assert getattr(layer, f"forward_{route}")(np.ones((1, 2, 3, 3))).shape == (1, 4, 1, 1)


@ROUTES
@pytest.mark.parametrize("dtype", [object, np.float16, complex, np.longdouble])
def test_convolution_refuses_dtypes(route, dtype):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        getattr(layer, f"forward_{route}")(np.ones((1, 2, 5, 6)).astype(dtype))


@ROUTES
def test_convolution_refuses_a_list(route):
    layer = conv_layer(np.random.default_rng(0), 1, 1, 1, 0, 1)
    with pytest.raises(TypeError, match="list"):
        getattr(layer, f"forward_{route}")([[[[1.0]]]])


@ROUTES
@pytest.mark.parametrize(
    "shape",
    [(1, 4, 5, 6), (3, 1, 5, 6), (3, 4, 1, 6), (3, 4, 5, 1), (3, 4, 6, 5), (4, 5, 6), (3, 4, 30)],
)
def test_convolution_refuses_top_diffs_of_a_different_shape(route, shape):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    layer.forward(np.ones((3, 2, 5, 6)))
    with pytest.raises(ValueError, match=says((3, 4, 5, 6), shape)):
        getattr(layer, f"backward_{route}")(np.ones(shape))


@ROUTES
def test_convolution_refuses_top_diffs_of_a_different_type(route):
    layer = conv_layer(np.random.default_rng(0), 3, 2, 4, 1, 1)
    output = layer.forward(np.ones((3, 2, 5, 6)))
    backward = getattr(layer, f"backward_{route}")
    with pytest.raises(TypeError, match="float16"):
        backward(np.ones(output.shape, np.float16))
    with pytest.raises(TypeError, match="list"):
        backward(output.tolist())


@ROUTES
def test_convolution_out_of_order(route):
    layer = ConvolutionalLayer(3, 2, 4, 1, 1)
    with pytest.raises(RuntimeError, match=r"init_param|load_param"):
        getattr(layer, f"forward_{route}")(np.ones((1, 2, 5, 6)))
    with pytest.raises(RuntimeError, match=r"init_param|load_param"):
        layer.save_param()
    with pytest.raises(RuntimeError, match="backward"):
        layer.get_gradient()
    layer.init_param(rng=0)
    with pytest.raises(RuntimeError, match="forward"):
        getattr(layer, f"backward_{route}")(np.ones((1, 4, 5, 6)))
    with pytest.raises(RuntimeError, match="forward"):
        layer.get_forward_time()
    layer.forward(np.ones((1, 2, 5, 6)))
    with pytest.raises(RuntimeError, match="backward"):
        layer.get_backward_time()
    with pytest.raises(RuntimeError, match="backward"):
        layer.get_gradient()
    with pytest.raises(RuntimeError, match="backward"):
        layer.update_param(0.1)


@pytest.mark.layers
@pytest.mark.parametrize("kind", [0, 1])
def test_the_first_layer_of_a_network_needs_no_input_gradient(kind):
    rng = np.random.default_rng(0)
    layer = ConvolutionalLayer(3, 2, 4, 1, 1, kind)
    layer.init_param(0.5, rng)
    x = rng.standard_normal((2, 2, 5, 6))
    top_diff = rng.standard_normal(layer.forward(x).shape)
    assert layer.backward(top_diff).shape == x.shape
    expected = layer.get_gradient()
    layer.d_weight = layer.d_bias = None
    assert layer.backward(top_diff, need_bottom_diff=False) is None
    for gradient, same in zip(layer.get_gradient(), expected, strict=True):
        np.testing.assert_array_equal(gradient, same)

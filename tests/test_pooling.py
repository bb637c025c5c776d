"""MaxPoolingLayer and AveragePoolingLayer: literals, the definition, finite differences."""

import numpy as np
import pytest
from helpers import oracles
from helpers.gradients import check_gradient
from helpers.layer_checks import DTYPES, KINDS, ROUTES, says
from hypothesis import given, settings
from hypothesis import strategies as st

import layers2
from fast import strips as threads
from layers2 import AveragePoolingLayer, MaxPoolingLayer

POOLS = pytest.mark.parametrize("pool_class", [MaxPoolingLayer, AveragePoolingLayer])


@pytest.mark.layers
@KINDS
@DTYPES
def test_max_pooling_worked_by_hand(kind, dtype):
    layer = MaxPoolingLayer(2, 1, kind)  # overlapping windows
    x = np.array([[[[1, 2, 0], [3, 9, 4], [5, 7, 8]]]], dtype)
    output = layer.forward(x)
    np.testing.assert_array_equal(output, [[[[9, 9], [9, 9]]]])
    bottom_diff = layer.backward(np.array([[[[1, 10], [100, 1000]]]], dtype))
    np.testing.assert_array_equal(bottom_diff, [[[[0, 0, 0], [0, 1111, 0], [0, 0, 0]]]])
    np.testing.assert_array_equal(layer.max_index, [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]])
    assert output.dtype == bottom_diff.dtype == dtype


@pytest.mark.layers
@KINDS
@DTYPES
def test_average_pooling_worked_by_hand(kind, dtype):
    layer = AveragePoolingLayer(2, 1, kind)
    output = layer.forward(np.array([[[[1, 2, 0], [3, 10, 4]]]], dtype))
    np.testing.assert_array_equal(output, [[[[4, 4]]]])
    bottom_diff = layer.backward(np.array([[[[4, 40]]]], dtype))
    np.testing.assert_array_equal(bottom_diff, [[[[1, 11, 10], [1, 11, 10]]]])
    assert output.dtype == bottom_diff.dtype == dtype


POOL_ORACLES = {
    MaxPoolingLayer: (
        lambda x, kernel, stride: oracles.max_pooling(x, kernel, stride)[0],
        oracles.max_pooling_gradient,
    ),
    AveragePoolingLayer: (oracles.average_pooling, oracles.average_pooling_gradient),
}


def assert_pooling(layer, x, top_diff, kernel, stride):
    """Forward and backward agree with the definition and do not change their arguments."""
    forward, backward = POOL_ORACLES[type(layer)]
    x_before, top_before = x.copy(), top_diff.copy()
    tolerance = 1e-6 if x.dtype == np.float32 else 1e-12
    output = layer.forward(x)
    expected = forward(x, kernel, stride)
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=tolerance, atol=tolerance)
    bottom_diff = layer.backward(top_diff)
    expected = backward(x, top_diff, kernel, stride)
    assert bottom_diff.shape == x.shape
    np.testing.assert_allclose(bottom_diff, expected, rtol=tolerance, atol=tolerance)
    assert output.dtype == bottom_diff.dtype == x.dtype
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(top_diff, top_before)
    if isinstance(layer, MaxPoolingLayer):
        np.testing.assert_array_equal(layer.max_index, oracles.max_pooling_mask(x, kernel, stride))


def pooled_shape(shape, kernel, stride):
    n, c, h, w = shape
    return n, c, (h - kernel) // stride + 1, (w - kernel) // stride + 1


@POOLS
@KINDS
@DTYPES
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])  # overlapping, side by side, and with gaps
@pytest.mark.parametrize("strip_bytes", [threads.STRIP_BYTES, 600], ids=["usual", "tiny"])
def test_pooling_matches_its_definition(
    pool_class, kind, dtype, batch, kernel, stride, strip_bytes, monkeypatch
):
    monkeypatch.setattr(threads, "STRIP_BYTES", strip_bytes)
    rng = np.random.default_rng(batch * 100 + kernel * 10 + stride)
    shape = (batch, 2, 7, 8)
    x = rng.standard_normal(shape).astype(dtype)
    top_diff = rng.standard_normal(pooled_shape(shape, kernel, stride)).astype(dtype)
    assert_pooling(pool_class(kernel, stride, kind), x, top_diff, kernel, stride)


@POOLS
@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 6),
    batch=st.integers(1, 2),
    channels=st.integers(1, 4),
    extra_rows=st.integers(0, 6),
    extra_columns=st.integers(0, 6),
    values=st.integers(1, 5),
    layout=st.sampled_from(oracles.LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_fast_pooling_of_any_geometry(
    pool_class, kernel, stride, batch, channels, extra_rows, extra_columns, values, layout, seed
):
    rng = np.random.default_rng(seed)
    shape = (batch, channels, kernel + extra_rows, kernel + extra_columns)
    x = rng.integers(-values, values, shape).astype(np.float64)  # few values, so many ties
    top_diff = rng.standard_normal(pooled_shape(shape, kernel, stride))
    layer = pool_class(kernel, stride)
    assert_pooling(
        layer, oracles.laid_out(x, layout), oracles.laid_out(top_diff, layout), kernel, stride
    )


@pytest.mark.layers
@POOLS
@KINDS
@pytest.mark.parametrize(
    ("kernel", "stride", "shape"),
    [
        (2, 2, (1, 3, 4, 6)),
        (2, 2, (3, 2, 5, 3)),  # last row and column left over
        (2, 1, (1, 2, 4, 3)),
        (3, 2, (3, 1, 5, 7)),
        (3, 1, (1, 2, 5, 4)),
        (1, 2, (1, 2, 4, 5)),
        (2, 3, (1, 2, 6, 8)),
        (5, 4, (1, 1, 9, 6)),
    ],
)
def test_pooling_gradients_by_finite_differences(pool_class, kind, kernel, stride, shape):
    rng = np.random.default_rng(61)
    layer = pool_class(kernel, stride, kind)
    x = oracles.distinct(rng, shape)
    top_diff = rng.standard_normal(layer.forward(x).shape)
    bottom_diff = layer.backward(top_diff)
    check_gradient(lambda x: np.sum(layer.forward(x) * top_diff), x, bottom_diff, "input")


@POOLS
@KINDS
@DTYPES
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (1, 1)])
def test_pooling_of_any_memory_layout(pool_class, kind, dtype, layout, kernel, stride):
    rng = np.random.default_rng(67)
    shape = (2, 3, 9, 6)
    x = oracles.laid_out(rng.standard_normal(shape).astype(dtype), layout)
    top_diff = rng.standard_normal(pooled_shape(shape, kernel, stride)).astype(dtype)
    layer = pool_class(kernel, stride, kind)
    assert_pooling(layer, x, oracles.laid_out(top_diff, layout), kernel, stride)


@pytest.mark.layers
@POOLS
def test_pooling_at_the_size_of_a_picture(pool_class):
    # many channels and odd sides
    rng = np.random.default_rng(71)
    shape = (2, 24, 33, 27)
    x = oracles.laid_out(rng.standard_normal(shape).astype(np.float32), "channels-last")
    layer, raw = pool_class(2, 2), pool_class(2, 2, 0)
    top_diff = rng.standard_normal(pooled_shape(shape, 2, 2)).astype(np.float32)
    windows = x[:, :, :32, :26].reshape(*shape[:2], 16, 2, 13, 2)
    reduce = np.max if pool_class is MaxPoolingLayer else np.mean
    expected = reduce(windows, axis=(3, 5))
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.forward(x), raw.forward(x), rtol=1e-5, atol=1e-6)
    bottom_diff = layer.backward(top_diff)
    np.testing.assert_allclose(bottom_diff, raw.backward(top_diff), rtol=1e-5, atol=1e-6)
    assert np.all(bottom_diff[:, :, 32:] == 0) and np.all(bottom_diff[:, :, :, 26:] == 0)


@pytest.mark.layers
@KINDS
@pytest.mark.parametrize("fill", [0.0, -3.0, 5.0])
def test_on_a_tie_the_first_in_row_major_order_gets_the_gradient(kind, fill):
    layer = MaxPoolingLayer(2, 2, kind)
    layer.forward(np.full((1, 2, 4, 4), fill))
    bottom_diff = layer.backward(np.arange(1.0, 9.0).reshape(1, 2, 2, 2))
    expected = np.zeros((1, 2, 4, 4))
    expected[:, :, ::2, ::2] = np.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(bottom_diff, expected)
    np.testing.assert_array_equal(layer.max_index, expected > 0)


@KINDS
@pytest.mark.parametrize(
    ("window", "place"),
    [
        ([[1, 2], [2, 1]], (0, 1)),  # row-major: not the lower left
        ([[1, 1], [2, 2]], (1, 0)),
        ([[2, 1], [2, 1]], (0, 0)),
        ([[1, 2], [1, 2]], (0, 1)),
        ([[2, 1], [1, 2]], (0, 0)),
        ([[1, 2], [2, 2]], (0, 1)),
        ([[1, 1], [1, 2]], (1, 1)),
        ([[-0.0, 0.0], [0.0, 0.0]], (0, 0)),  # minus zero equals zero
    ],
)
def test_ties_window_by_window(kind, window, place):
    layer = MaxPoolingLayer(2, 2, kind)
    x = np.zeros((1, 2, 2, 4))
    x[0, 1, :, 2:] = window
    layer.forward(x)
    bottom_diff = layer.backward(np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]]))
    expected = np.zeros((2, 4))
    expected[0, 0] = 3
    expected[place[0], 2 + place[1]] = 4
    np.testing.assert_array_equal(bottom_diff[0, 1], expected)


@pytest.mark.layers
@KINDS
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 1), (4, 3)])
def test_ties_in_overlapping_windows(kind, kernel, stride):
    rng = np.random.default_rng(73)
    x = rng.integers(0, 3, (2, 3, 7, 8)).astype(np.float64)
    top_diff = rng.standard_normal(pooled_shape(x.shape, kernel, stride))
    assert_pooling(MaxPoolingLayer(kernel, stride, kind), x, top_diff, kernel, stride)


@KINDS
@pytest.mark.parametrize("kernel", [16, 17])
def test_max_pooling_in_windows_of_more_positions_than_a_byte_holds(kind, kernel):
    x = np.zeros((1, 1, kernel, 2 * kernel))
    x[0, 0, -1, kernel - 1] = x[0, 0, -2, -1] = 1  # place K^2 - 1, place K^2 - 1 - K
    layer = MaxPoolingLayer(kernel, kernel, kind)
    assert_pooling(layer, x, np.array([[[[3.0, 4.0]]]]), kernel, kernel)


@KINDS
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 3)])
def test_max_pooling_of_negative_inputs(kind, kernel, stride):
    rng = np.random.default_rng(79)
    x = -np.exp(rng.uniform(-5, 80, (2, 3, 7, 9)))
    top_diff = rng.standard_normal(pooled_shape(x.shape, kernel, stride))
    layer = MaxPoolingLayer(kernel, stride, kind)
    assert_pooling(layer, x, top_diff, kernel, stride)
    assert np.all(layer.forward(x) < 0)


@KINDS
def test_max_index_is_of_the_last_forward(kind):
    layer = MaxPoolingLayer(2, 2, kind)
    assert not hasattr(layer, "max_index")
    with pytest.raises(AttributeError, match="forward"):
        _ = layer.max_index
    layer.forward(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    np.testing.assert_array_equal(layer.max_index, [[[[0, 0], [0, 1]]]])
    layer.forward(np.array([[[[1.0, 7.0, 9.0], [3.0, 4.0, 9.0]]]]))
    np.testing.assert_array_equal(layer.max_index, [[[[0, 1, 0], [0, 0, 0]]]])


@KINDS
def test_max_index_marks_a_shared_maximum_once(kind):
    layer = MaxPoolingLayer(2, 1, kind)
    layer.forward(np.array([[[[1.0, 8.0, 3.0, 2.0], [0.0, 1.0, 2.0, 5.0]]]]))
    np.testing.assert_array_equal(layer.max_index, [[[[0, 1, 0, 0], [0, 0, 0, 1]]]])
    bottom_diff = layer.backward(np.array([[[[1.0, 10.0, 100.0]]]]))
    np.testing.assert_array_equal(bottom_diff, [[[[0, 11, 0, 0], [0, 0, 0, 100]]]])


@ROUTES
@KINDS
@POOLS
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1)])
def test_every_pool_has_both_paths(pool_class, kind, route, kernel, stride):
    rng = np.random.default_rng(83)
    layer = pool_class(kernel, stride, kind)
    forward, backward = POOL_ORACLES[pool_class]
    x = rng.standard_normal((2, 3, 6, 5))
    output = getattr(layer, f"forward_{route}")(x)
    np.testing.assert_allclose(output, forward(x, kernel, stride), atol=1e-12)
    top_diff = rng.standard_normal(output.shape)
    expected = backward(x, top_diff, kernel, stride)
    np.testing.assert_allclose(layer.backward_raw(top_diff), expected, atol=1e-12)
    np.testing.assert_allclose(layer.backward_speedup(top_diff), expected, atol=1e-12)


@KINDS
@POOLS
def test_pooling_keeps_no_result_in_a_reused_buffer(pool_class, kind):
    rng = np.random.default_rng(89)
    layer = pool_class(2, 2, kind)
    x = [rng.standard_normal((1, 2, 6, 4)) for _ in range(2)]
    output = layer.forward(x[0])
    bottom_diff = layer.backward(output)
    before = output.copy(), bottom_diff.copy()
    layer.backward(layer.forward(x[1]))
    np.testing.assert_array_equal(output, before[0])
    np.testing.assert_array_equal(bottom_diff, before[1])
    second = layer.backward(output)
    np.testing.assert_array_equal(layer.backward(output), second)  # nothing adds to it


@KINDS
@POOLS
def test_pooling_takes_pictures_of_changing_size(pool_class, kind):
    rng = np.random.default_rng(97)
    layer = pool_class(2, 2, kind)
    for shape in [(1, 2, 6, 4), (3, 1, 4, 9), (1, 4, 2, 2), (1, 2, 6, 4)]:
        x = rng.standard_normal(shape)
        assert_pooling(layer, x, rng.standard_normal(pooled_shape(shape, 2, 2)), 2, 2)


@POOLS
def test_threads_do_not_add_to_the_same_pixels_where_windows_overlap(pool_class, monkeypatch):
    # strips of one row, each window three rows high: all neighbours add to the same pixels.
    # (A lost addition is a matter of luck on one processor; on two this fails nearly always.)
    monkeypatch.setattr(threads, "STRIP_BYTES", 1)
    rng = np.random.default_rng(139)
    x = oracles.laid_out(rng.standard_normal((1, 64, 24, 150)).astype(np.float32), "channels-last")
    layer = pool_class(3, 1)
    before = threads.get_threads()
    try:
        threads.set_threads(1)
        top_diff = rng.integers(1, 9, layer.forward(x).shape).astype(np.float32)
        alone = layer.backward(top_diff)
        threads.set_threads(4)
        for _ in range(5):
            np.testing.assert_array_equal(layer.backward(top_diff), alone)
    finally:
        threads.set_threads(before)


@POOLS
@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ((0, 2), "kernel_size", 0),
        ((-1, 2), "kernel_size", -1),
        ((2, 0), "stride", 0),
        ((2, -2), "stride", -2),
        ((2, 2, 3), "type", 3),
    ],
)
def test_pooling_refuses_sizes(pool_class, arguments, name, value):
    with pytest.raises(ValueError, match=says(name, value)):
        pool_class(*arguments)


@POOLS
@pytest.mark.parametrize("arguments", [(2.0, 2), (2, 1.5)])
def test_pooling_refuses_fractions(pool_class, arguments):
    with pytest.raises(TypeError, match="float"):
        pool_class(*arguments)


@POOLS
@ROUTES
@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 2, 4, 4), (0, 2, 4, 4), (1, 0, 4, 4)])
def test_pooling_refuses_shapes(pool_class, route, shape):
    with pytest.raises(ValueError, match=says(shape)):
        getattr(pool_class(2, 2), f"forward_{route}")(np.ones(shape))


@POOLS
@ROUTES
@pytest.mark.parametrize("shape", [(1, 2, 2, 8), (1, 2, 8, 2)])
def test_pooling_refuses_windows_larger_than_the_input(pool_class, route, shape):
    with pytest.raises(ValueError, match=says(3, 2)):
        getattr(pool_class(3, 1), f"forward_{route}")(np.ones(shape))


@POOLS
@ROUTES
def test_pooling_refuses_types(pool_class, route):
    layer = pool_class(2, 2)
    with pytest.raises(TypeError, match="float16"):
        getattr(layer, f"forward_{route}")(np.ones((1, 2, 4, 4), np.float16))
    with pytest.raises(TypeError, match="list"):
        getattr(layer, f"forward_{route}")(np.ones((1, 2, 4, 4)).tolist())
    output = layer.forward(np.ones((1, 2, 4, 4)))
    with pytest.raises(TypeError, match="complex128"):
        getattr(layer, f"backward_{route}")(output.astype(complex))


@POOLS
@ROUTES
@pytest.mark.parametrize("shape", [(1, 2, 2, 3), (3, 1, 2, 3), (3, 2, 1, 1), (3, 2, 3, 2), (2, 3)])
def test_pooling_refuses_top_diffs_of_a_different_shape(pool_class, route, shape):
    layer = pool_class(2, 2)
    layer.forward(np.ones((3, 2, 5, 6)))
    with pytest.raises(ValueError, match=says((3, 2, 2, 3), shape)):
        getattr(layer, f"backward_{route}")(np.ones(shape))


@POOLS
@ROUTES
def test_pooling_backward_needs_forward(pool_class, route):
    with pytest.raises(RuntimeError, match="forward"):
        getattr(pool_class(2, 2), f"backward_{route}")(np.ones((1, 1, 2, 2)))


@pytest.mark.parametrize("stride", [2, 3])
def test_a_strip_of_a_pool_reads_no_more_than_the_cache_holds(stride, monkeypatch):
    read = []

    def run_strips(function, strips):
        read.extend((n.stop - n.start) * (y1 - y0) * stride * 30 * 4 * 8 for n, y0, y1 in strips)
        threads.run_strips(function, strips)

    monkeypatch.setattr(layers2, "run_strips", run_strips)
    monkeypatch.setattr(threads, "STRIP_BYTES", 10_000)
    layer = MaxPoolingLayer(2, stride)
    layer.backward(layer.forward(np.ones((3, 4, 60, 30))))
    assert 2_500 < min(read)
    assert max(read) <= 10_000

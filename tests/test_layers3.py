"""ContentLossLayer, StyleLossLayer and AdamOptimizer.

The losses are held against literals worked by hand, the plain sums of `oracles.py` and finite
differences; Adam against the same algorithm one number and one step at a time.
"""

import re

import numpy as np
import pytest
from helpers import oracles
from helpers.gradients import check_gradient

from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LOSSES = pytest.mark.parametrize("loss_class", [ContentLossLayer, StyleLossLayer])
LAYOUTS = pytest.mark.parametrize("layout", oracles.LAYOUTS)

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def says(*parts):
    """Return a pattern for a message that holds all of `parts`, in any order."""
    return re.compile("".join(f"(?=.*{re.escape(str(part))})" for part in parts), re.DOTALL)


def assert_style(layer, x, style, rtol=1e-12):
    """Loss and gradient agree with the formula."""
    expected_loss, expected_gradient = oracles.style_loss(x, style)
    loss = layer.forward(x, style)
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected_loss, rel=10 * rtol)
    channels, height, width = x.shape[1:]
    assert layer.div == channels**2 * (height * width) ** 2
    gradient = layer.backward(x, style)
    assert gradient.shape == x.shape
    assert gradient.dtype == x.dtype
    error = oracles.relative_error(gradient, expected_gradient)
    assert error <= rtol


# ---------------------------------------------------------------- content loss


@DTYPES
def test_content_loss_worked_by_hand(dtype):
    layer = ContentLossLayer()
    x = np.array([1, 2, 3, 4, 5, 6], dtype).reshape(1, 1, 2, 3)
    content = np.array([1, 0, 3, 1, 9, 6], dtype).reshape(1, 1, 2, 3)
    loss = layer.forward(x, content)
    assert isinstance(loss, float)
    assert loss == pytest.approx((4 + 9 + 16) / (2 * 6), rel=1e-6)
    gradient = layer.backward(x, content)
    expected = np.array([0, 2, 0, 3, -4, 0]).reshape(1, 1, 2, 3) / 6
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    assert gradient.dtype == dtype


@pytest.mark.layers
@DTYPES
@LAYOUTS
@pytest.mark.parametrize("batch", [1, 3])
def test_content_loss_matches_its_formula(dtype, layout, batch):
    rng = np.random.default_rng(batch)
    x = oracles.laid_out(rng.standard_normal((batch, 4, 5, 7)).astype(dtype), layout)
    content = oracles.laid_out(rng.standard_normal((batch, 4, 5, 7)).astype(dtype), layout)
    before = x.copy(), content.copy()
    layer = ContentLossLayer()
    difference = x.astype(np.float64) - content.astype(np.float64)
    expected = float(np.sum(difference**2)) / (2 * batch * 4 * 5 * 7)
    assert layer.forward(x, content) == pytest.approx(expected, rel=TOLERANCE[dtype])
    gradient = layer.backward(x, content)
    np.testing.assert_allclose(gradient, difference / (batch * 4 * 5 * 7), rtol=1e-5, atol=1e-9)
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(content, before[1])


@pytest.mark.layers
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (3, 4, 2, 1)])
def test_content_gradient_by_finite_differences(shape):
    rng = np.random.default_rng(2)
    layer = ContentLossLayer()
    x, content = rng.standard_normal(shape), rng.standard_normal(shape)
    layer.forward(x, content)
    gradient = layer.backward(x, content)
    check_gradient(lambda x: layer.forward(x, content), x, gradient, "input_layer")


def test_content_loss_of_a_large_picture():
    # a million equal terms: added up one by one in float32 they would lose three digits
    x = np.full((1, 64, 128, 128), 100.3, np.float32)
    loss = ContentLossLayer().forward(x, np.zeros_like(x))
    assert loss == pytest.approx(float(x[0, 0, 0, 0]) ** 2 / 2, rel=1e-5)


def test_content_loss_of_itself_is_zero():
    x = np.random.default_rng(3).standard_normal((1, 3, 4, 5)).astype(np.float32)
    layer = ContentLossLayer()
    assert layer.forward(x, x) == 0.0
    np.testing.assert_array_equal(layer.backward(x, x), np.zeros_like(x))


# ---------------------------------------------------------------- style loss: content


@DTYPES
def test_style_loss_worked_by_hand(dtype):
    layer = StyleLossLayer()
    # two channels, one row of two positions: x = [[1, 2], [3, 0]], style = [[1, 0], [2, 1]]
    x = np.array([1, 2, 3, 0], dtype).reshape(1, 2, 1, 2)
    style = np.array([1, 0, 2, 1], dtype).reshape(1, 2, 1, 2)
    # G = [[5, 3], [3, 9]], A = [[1, 2], [2, 5]], G - A = [[4, 1], [1, 4]], C^2 (HW)^2 = 16
    loss = layer.forward(x, style)
    assert isinstance(loss, float)
    assert loss == pytest.approx((16 + 1 + 1 + 16) / (4 * 16), rel=1e-6)
    gradient = layer.backward(x, style)
    # (G - A) @ x = [[4 + 3, 8 + 0], [1 + 12, 2 + 0]]
    np.testing.assert_allclose(gradient.reshape(2, 2), np.array([[7, 8], [13, 2]]) / 16, rtol=1e-6)
    assert gradient.shape == x.shape
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.squeeze(layer.gram_input), [[5, 3], [3, 9]], rtol=1e-6)
    np.testing.assert_allclose(np.squeeze(layer.gram_style), [[1, 2], [2, 5]], rtol=1e-6)
    assert layer.div == 16


@pytest.mark.layers
@DTYPES
@LAYOUTS
@pytest.mark.parametrize("batch", [1, 3])
def test_style_loss_matches_its_formula(dtype, layout, batch):
    rng = np.random.default_rng(batch)
    x = oracles.laid_out(rng.standard_normal((batch, 5, 4, 7)).astype(dtype), layout)
    style = oracles.laid_out(rng.standard_normal((batch, 5, 4, 7)).astype(dtype), layout)
    before = x.copy(), style.copy()
    layer = StyleLossLayer()
    assert_style(layer, x, style, TOLERANCE[dtype])
    np.testing.assert_allclose(layer.gram_input, oracles.gram(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.gram_style, oracles.gram(style), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(style, before[1])


@DTYPES
@pytest.mark.parametrize("style_size", [(9, 4), (2, 3), (1, 1), (7, 4), (4, 14)])
def test_style_of_another_size_matches_its_formula(dtype, style_size):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 5, 4, 7)).astype(dtype)
    style = rng.standard_normal((1, 5, *style_size)).astype(dtype)
    assert_style(StyleLossLayer(), x, style, TOLERANCE[dtype])


@DTYPES
def test_style_loss_of_many_channels(dtype):
    # the width of a VGG layer, more channels than positions and the other way round
    rng = np.random.default_rng(7)
    for channels, size in ((192, (5, 9)), (64, (33, 41))):
        x = rng.standard_normal((1, channels, *size)).astype(dtype)
        style = rng.standard_normal((1, channels, 8, 11)).astype(dtype)
        assert_style(StyleLossLayer(), np.maximum(x, 0), np.maximum(style, 0), TOLERANCE[dtype])


@pytest.mark.layers
@pytest.mark.parametrize(
    ("shape", "style_shape"),
    [
        ((1, 3, 2, 4), (1, 3, 2, 4)),
        ((1, 3, 4, 2), (1, 3, 3, 5)),
        ((3, 2, 3, 2), (3, 2, 3, 2)),
        ((2, 2, 1, 4), (2, 2, 3, 3)),
        ((1, 1, 3, 2), (1, 1, 2, 1)),
    ],
)
def test_style_gradient_by_finite_differences(shape, style_shape):
    rng = np.random.default_rng(11)
    layer = StyleLossLayer()
    x, style = rng.standard_normal(shape), rng.standard_normal(style_shape)
    layer.forward(x, style)
    gradient = layer.backward(x, style)
    # atol: the gradient itself is of the size of 1e-2
    check_gradient(
        lambda x: layer.forward(x, style), x, gradient, "input_layer", rtol=1e-6, atol=1e-10
    )


@DTYPES
def test_equal_statistics_give_no_style_loss(dtype):
    # the style twice as wide and three times as high holds the same textures, only more of them
    rng = np.random.default_rng(13)
    x = rng.standard_normal((1, 4, 3, 5)).astype(dtype)
    style = np.tile(x, (1, 1, 3, 2))
    layer = StyleLossLayer()
    scale, _ = oracles.style_loss(x, np.zeros_like(x))
    tiny = 1e-10 if dtype == np.float32 else 1e-25
    assert 0 <= layer.forward(x, style) <= tiny * scale
    assert np.abs(layer.backward(x, style)).max() <= 1e-6
    # positions may be shuffled: a Gram does not know where
    shuffled = rng.permutation(x.reshape(1, 4, 15), axis=2).reshape(1, 4, 5, 3)
    assert 0 <= layer.forward(x, shuffled) <= tiny * scale


def test_style_gradient_descends():
    # multiplied by the style's features instead, as often printed, it does not
    rng = np.random.default_rng(17)
    layer = StyleLossLayer()
    x, style = rng.standard_normal((1, 4, 5, 6)), 2 * rng.standard_normal((1, 4, 6, 4))
    losses = [layer.forward(x, style)]
    for _ in range(200):
        x = x - 2.0 * layer.backward(x, style)
        losses.append(layer.forward(x, style))
    assert losses[-1] < 1e-3 * losses[0]
    assert np.all(np.diff(losses) <= 0)


def test_one_style_for_a_batch_is_exact_or_refused():
    # a style of batch 1 may serve every picture of a batch, but never in a half-right way
    rng = np.random.default_rng(19)
    x, style = rng.standard_normal((3, 4, 5, 2)), rng.standard_normal((1, 4, 3, 3))
    layer = StyleLossLayer()
    try:
        layer.forward(x, style)
    except ValueError as error:
        assert says(3, 1).search(str(error))
    else:
        assert_style(layer, x, style)


def test_backward_goes_by_its_own_arguments():
    """Whatever forward saw last: other arrays, or nothing."""
    rng = np.random.default_rng(23)
    x, other, style = rng.standard_normal((3, 1, 4, 5, 6))
    _, expected = oracles.style_loss(x, style)
    layer = StyleLossLayer()
    for before in (None, (other, style), (x, other)):
        if before:
            layer.forward(*before)
        assert oracles.relative_error(layer.backward(x, style), expected) < 1e-12
    style[:] = other  # changed in place
    assert_style(layer, x, other)
    assert_style(layer, x, style)


# ---------------------------------------------------------------- losses: shared rules


@LOSSES
@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
def test_gradients_take_their_dtype_from_the_input(loss_class, dtypes):
    rng = np.random.default_rng(60)
    x, target = (rng.standard_normal((1, 3, 4, 5)).astype(dtype) for dtype in dtypes)
    layer, reference = loss_class(), loss_class()
    wide = x.astype(np.float64), target.astype(np.float64)
    assert layer.forward(x, target) == pytest.approx(reference.forward(*wide), rel=1e-5)
    gradient = layer.backward(x, target)
    assert gradient.dtype == dtypes[0]
    np.testing.assert_allclose(gradient, reference.backward(*wide), rtol=1e-4, atol=1e-7)


@LOSSES
def test_losses_keep_no_result_in_a_reused_buffer(loss_class):
    rng = np.random.default_rng(61)
    layer = loss_class()
    first, second, target = (rng.standard_normal((1, 3, 4, 5)) for _ in range(3))
    layer.forward(first, target)
    gradient = layer.backward(first, target)
    before = gradient.copy()
    np.testing.assert_array_equal(layer.backward(first, target), before)  # nothing adds up
    layer.forward(second, target)
    layer.backward(second, target)
    np.testing.assert_array_equal(gradient, before)


@LOSSES
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (1, 1, 3, 4, 5), (60,), (), (0, 3, 4, 5), (1, 3, 0, 5)]
)
def test_losses_refuse_shapes(loss_class, direction, shape):
    layer = loss_class()
    good = np.ones((1, 3, 4, 5))
    layer.forward(good, good)
    with pytest.raises(ValueError, match=says(shape)):
        getattr(layer, direction)(np.ones(shape), np.ones(shape))
    with pytest.raises(ValueError, match=says(shape)):
        getattr(layer, direction)(good, np.ones(shape))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 3, 5, 4)])
def test_content_loss_refuses_contents_of_another_shape(direction, shape):
    layer = ContentLossLayer()
    x = np.ones((2, 3, 4, 5))
    layer.forward(x, x)
    with pytest.raises(ValueError, match=says((2, 3, 4, 5), shape)):
        getattr(layer, direction)(x, np.ones(shape))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 4, 4, 5), (3, 3, 4, 5)])
def test_style_loss_refuses_styles_of_another_shape(direction, shape):
    layer = StyleLossLayer()
    x = np.ones((2, 3, 4, 5))
    layer.forward(x, x)
    with pytest.raises(ValueError, match=says(shape)):
        getattr(layer, direction)(x, np.ones(shape))


@LOSSES
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_losses_refuse_types(loss_class, direction):
    layer = loss_class()
    good = np.ones((1, 3, 4, 5))
    layer.forward(good, good)
    method = getattr(layer, direction)
    for bad, name in ((good.astype(np.float16), "float16"), (good.tolist(), "list")):
        with pytest.raises(TypeError, match=name):
            method(bad, good)
        with pytest.raises(TypeError, match=name):
            method(good, bad)


# ---------------------------------------------------------------- Adam


def test_the_style_loss_has_no_matrices_before_a_call():
    layer = StyleLossLayer()
    assert layer.gram_input is layer.gram_style is layer.div is None


def test_adam_starts_at_nothing():
    optimizer = AdamOptimizer(0.5, (2, 3))
    assert optimizer.lr == 0.5
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.9, 0.999, 1e-8)
    assert optimizer.step == 0
    np.testing.assert_array_equal(optimizer.mt, np.zeros((2, 3)))
    np.testing.assert_array_equal(optimizer.vt, np.zeros((2, 3)))


@DTYPES
def test_adams_first_step_is_lr_long(dtype):
    # bias correction: m / 0.1 = g and v / 0.001 = g^2, so m / sqrt(v) is the sign of g
    gradient = np.array([[[[3.0, -1e-3], [-7e4, 0.5]]]], dtype)
    x = np.array([[[[1.0, 2.0], [-3.0, 0.0]]]], dtype)
    optimizer = AdamOptimizer(0.25, x.shape)
    updated = optimizer.update(x, gradient)
    np.testing.assert_allclose(updated, x - 0.25 * np.sign(gradient), rtol=1e-4)
    assert updated.dtype == dtype
    assert optimizer.step == 1
    np.testing.assert_allclose(optimizer.mt, 0.1 * gradient, rtol=1e-5)
    np.testing.assert_allclose(optimizer.vt, 0.001 * gradient.astype(np.float64) ** 2, rtol=1e-4)


@DTYPES
def test_adams_eps_is_outside_the_root(dtype):
    # a gradient of the size of eps: 1e-8 / (sqrt(1e-16) + 1e-8) is a half
    x = np.zeros((1, 1, 1, 2), dtype)
    updated = AdamOptimizer(1.0, x.shape).update(x, np.array([[[[1e-8, -3e-8]]]], dtype))
    np.testing.assert_allclose(updated.ravel(), [-0.5, 0.75], rtol=1e-4)
    # and none at all is no division by zero
    still = AdamOptimizer(1.0, x.shape).update(x, np.zeros_like(x))
    np.testing.assert_array_equal(still, x)


@pytest.mark.layers
@DTYPES
@LAYOUTS
def test_ten_steps_of_adam_match_the_algorithm(dtype, layout):
    rng = np.random.default_rng(67)
    shape = (1, 3, 4, 5)
    start = rng.uniform(-100, 100, shape).astype(dtype)
    gradients = [
        oracles.laid_out((rng.standard_normal(shape) * 10.0**scale).astype(dtype), layout)
        for scale in rng.uniform(-3, 3, 10)
    ]
    optimizer = AdamOptimizer(1.5, shape)
    x = oracles.laid_out(start, layout)
    for step, gradient in enumerate(gradients, start=1):
        before = x.copy(), gradient.copy()
        updated = optimizer.update(x, gradient)
        assert not np.shares_memory(updated, x)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(gradient, before[1])
        assert updated.shape == shape
        assert updated.dtype == dtype
        assert optimizer.step == step
        expected = oracles.adam(start.ravel(), [g.ravel() for g in gradients[:step]], 1.5)
        atol = 1e-10 if dtype == np.float64 else 2e-3
        np.testing.assert_allclose(updated.ravel(), expected, rtol=0, atol=atol)
        x = updated


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
def test_adams_lr_does_not_widen_the_result(number):
    x = np.ones((2, 3), np.float32)
    optimizer = AdamOptimizer(number(0.25), x.shape)
    for step in (1, 2):
        x = optimizer.update(x, np.ones((2, 3), np.float32))
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, np.full((2, 3), 1 - 0.25 * step), rtol=1e-5)


def test_adam_forgets_at_its_own_two_rates():
    optimizer = AdamOptimizer(1.0, (1,))
    x = np.zeros(1)
    for gradient in (1.0, 2.0, -4.0):
        x = optimizer.update(x, np.array([gradient]))
    assert optimizer.mt == pytest.approx(0.1 * (0.81 * 1 + 0.9 * 2 - 4))
    assert optimizer.vt == pytest.approx(0.001 * (0.998001 * 1 + 0.999 * 4 + 16))


def test_adams_results_stay_as_they_were():
    rng = np.random.default_rng(71)
    optimizer = AdamOptimizer(0.1, (2, 3))
    first = optimizer.update(rng.standard_normal((2, 3)), rng.standard_normal((2, 3)))
    before = first.copy()
    optimizer.update(first, rng.standard_normal((2, 3)))
    np.testing.assert_array_equal(first, before)


def test_adams_do_not_share_their_moments():
    first, second = AdamOptimizer(0.1, (2,)), AdamOptimizer(0.1, (2,))
    first.update(np.zeros(2), np.ones(2))
    assert second.step == 0
    np.testing.assert_array_equal(second.mt, [0, 0])
    np.testing.assert_allclose(second.update(np.zeros(2), -np.ones(2)), [0.1, 0.1])


def test_adam_finds_a_minimum():
    target = np.random.default_rng(73).uniform(-5, 5, (1, 2, 3, 4))
    x = np.zeros_like(target)
    optimizer = AdamOptimizer(0.1, x.shape)
    for _ in range(500):
        x = optimizer.update(x, x - target)
    np.testing.assert_allclose(x, target, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3,), (), (3, 2), (6,), (1, 2, 3), (0, 3)])
def test_adam_refuses_shapes(shape):
    optimizer = AdamOptimizer(0.1, (2, 3))
    good = np.zeros((2, 3))
    with pytest.raises(ValueError, match=says((2, 3), shape)):
        optimizer.update(good, np.ones(shape))
    with pytest.raises(ValueError, match=says((2, 3), shape)):
        optimizer.update(np.ones(shape), good)
    assert optimizer.step == 0  # a refused step is no step
    np.testing.assert_array_equal(optimizer.mt, good)


def test_adam_refuses_types():
    optimizer = AdamOptimizer(0.1, (2, 3))
    good = np.zeros((2, 3))
    for bad, name in ((np.zeros((2, 3), complex), "complex128"), (good.tolist(), "list")):
        with pytest.raises(TypeError, match=name):
            optimizer.update(bad, good)
        with pytest.raises(TypeError, match=name):
            optimizer.update(good, bad)
    assert optimizer.step == 0


@pytest.mark.parametrize("lr", [0, -1, np.inf, -np.inf, np.nan])
def test_adam_refuses_learning_rates_that_make_no_step(lr):
    with pytest.raises(ValueError, match="lr must be finite and greater than 0"):
        AdamOptimizer(lr, (2,))

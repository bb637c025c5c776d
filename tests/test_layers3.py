"""ContentLossLayer, StyleLossLayer and AdamOptimizer.

The losses are held against literals worked by hand, the plain sums of `oracles.py` and finite
differences; Adam against the same algorithm one number and one step at a time.
"""

import gc
import re

import numpy as np
import pytest
from helpers import oracles
from helpers.gradients import check_gradient

import layers3
from fast import strips as threads
from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LOSSES = pytest.mark.parametrize("loss_class", [ContentLossLayer, StyleLossLayer])
LAYOUTS = pytest.mark.parametrize("layout", oracles.LAYOUTS)

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def says(*parts):
    """Return a pattern for a message that holds all of `parts`, in any order."""
    return re.compile("".join(f"(?=.*{re.escape(str(part))})" for part in parts), re.DOTALL)


@pytest.fixture(params=["usual", "tiny"], ids=["usual-strips", "tiny-strips"])
def strips(request, monkeypatch):
    """Run a test as it is, and again with so little a strip that small pictures make many."""
    if request.param == "tiny":
        monkeypatch.setattr(layers3, "STRIP_BYTES", 600)


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
    # two channels, one row of two places: x = [[1, 2], [3, 0]], style = [[1, 0], [2, 1]]
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
def test_style_loss_of_many_channels(dtype, strips):
    # the width of a VGG layer, more channels than places and the other way round
    rng = np.random.default_rng(7)
    for channels, size in ((192, (5, 9)), (64, (33, 41))):
        x = rng.standard_normal((1, channels, *size)).astype(dtype)
        style = rng.standard_normal((1, channels, 8, 11)).astype(dtype)
        assert_style(StyleLossLayer(), np.maximum(x, 0), np.maximum(style, 0), TOLERANCE[dtype])


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
    # places may be shuffled: a Gram does not know where
    shuffled = rng.permutation(x.reshape(1, 4, 15), axis=2).reshape(1, 4, 5, 3)
    assert 0 <= layer.forward(x, shuffled) <= tiny * scale


@pytest.mark.parametrize(("style_batch", "width"), [(2, 12), (1, 7)])
def test_style_loss_in_strips(style_batch, width, strips):
    rng = np.random.default_rng(15)
    x, style = rng.standard_normal((2, 6, 23, 12)), rng.standard_normal((style_batch, 6, 9, width))
    assert_style(StyleLossLayer(), x, style)


def test_style_loss_has_the_same_bits_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(layers3, "STRIP_BYTES", 2000)
    rng = np.random.default_rng(16)
    x, style = (rng.standard_normal((2, 16, 27, 14)).astype(np.float32) for _ in range(2))
    before = threads.get_threads()
    runs = []
    try:
        for number in (1, 2, 3, 2):
            threads.set_threads(number)
            layer = StyleLossLayer()
            runs.append((layer.forward(x, style), layer.backward(x, style).tobytes()))
    finally:
        threads.set_threads(before)
    assert runs[0] == runs[1] == runs[2] == runs[3]


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


# ---------------------------------------------------------------- style loss: the cached Gram


def test_style_gram_is_computed_once_per_style(monkeypatch):
    grams_of = []

    def counting(features, original=layers3.gram):
        grams_of.append(id(features))
        return original(features)

    monkeypatch.setattr(layers3, "gram", counting)
    rng = np.random.default_rng(23)
    layer = StyleLossLayer()
    inputs = [rng.standard_normal((1, 4, 5, 6)) for _ in range(4)]
    styles = [rng.standard_normal((1, 4, 5, 6)) for _ in range(2)]
    for style in styles:
        for x in inputs:
            assert_style(layer, x, style)
    # one for each of the eight forwards, one for each style
    assert [grams_of.count(id(style)) for style in styles] == [1, 1]
    assert len(grams_of) == 8 + 2


def test_another_style_of_the_same_shape_is_noticed():
    rng = np.random.default_rng(29)
    layer = StyleLossLayer()
    x = rng.standard_normal((1, 4, 5, 6))
    styles = [rng.standard_normal((1, 4, 5, 6)) for _ in range(2)]
    for style in (*styles, *styles, styles[1]):
        assert_style(layer, x, style)
        np.testing.assert_allclose(np.squeeze(layer.gram_style), oracles.gram(style)[0])


def test_a_style_at_the_address_of_a_lost_one_is_noticed():
    rng = np.random.default_rng(31)
    layer = StyleLossLayer()
    x = rng.standard_normal((1, 4, 5, 6))
    for _ in range(20):  # CPython soon gives a new array the id and the memory of a lost one
        style = rng.standard_normal((1, 4, 5, 6))
        assert_style(layer, x, style)
        del style
    gc.collect()
    assert_style(layer, x, rng.standard_normal((1, 4, 5, 6)))


def test_two_styles_seen_through_one_buffer_are_noticed():
    rng = np.random.default_rng(37)
    layer = StyleLossLayer()
    x = rng.standard_normal((1, 4, 5, 6))
    buffer = np.empty((1, 4, 5, 6))
    for _ in range(3):
        buffer[...] = rng.standard_normal(buffer.shape)
        assert_style(layer, x, buffer[:])  # a new array object at the same address


def test_views_of_one_array_are_different_styles():
    rng = np.random.default_rng(41)
    layer = StyleLossLayer()
    x = rng.standard_normal((1, 4, 5, 6))
    both = rng.standard_normal((2, 4, 5, 6))
    for style in (both[:1], both[1:], both[:1, :, :4], both[:1, :, ::-1], both[1:, ::-1]):
        assert_style(layer, x, style)


def test_the_cached_gram_serves_inputs_of_every_size():
    # the ratio of positions belongs to the input as well as to the style
    rng = np.random.default_rng(43)
    layer = StyleLossLayer()
    style = rng.standard_normal((1, 4, 5, 6))
    for size in ((5, 6), (2, 3), (7, 4), (5, 6)):
        assert_style(layer, rng.standard_normal((1, 4, *size)), style)


def test_the_cached_gram_serves_both_dtypes():
    rng = np.random.default_rng(47)
    layer = StyleLossLayer()
    style = rng.standard_normal((1, 4, 5, 6))
    for dtype in (np.float64, np.float32, np.float64):
        x = rng.standard_normal((1, 4, 5, 6)).astype(dtype)
        assert_style(layer, x, style, TOLERANCE[dtype])


def test_layers_do_not_share_their_grams():
    rng = np.random.default_rng(53)
    layers = [StyleLossLayer(), StyleLossLayer()]
    x = rng.standard_normal((1, 4, 5, 6))
    styles = [rng.standard_normal((1, 4, 5, 6)) for _ in layers]
    losses = [layer.forward(x, style) for layer, style in zip(layers, styles, strict=True)]
    for layer, style, loss in zip(layers, styles, losses, strict=True):
        expected = oracles.style_loss(x, style)
        assert loss == pytest.approx(expected[0])
        np.testing.assert_allclose(layer.backward(x, style), expected[1])


def test_style_backward_without_its_forward_is_exact_or_refused():
    # a gradient from the Gram of another input would be silently wrong
    rng = np.random.default_rng(59)
    x, other, style = (rng.standard_normal((1, 4, 5, 6)) for _ in range(3))
    for before in ([], [other]):
        layer = StyleLossLayer()
        for features in before:
            layer.forward(features, style)
        try:
            gradient = layer.backward(x, style)
        except (RuntimeError, ValueError) as error:
            assert "forward" in str(error)
        else:
            np.testing.assert_allclose(gradient, oracles.style_loss(x, style)[1])


# ---------------------------------------------------------------- style loss: the style set first


@pytest.mark.parametrize("style_size", [(5, 6), (3, 4)])
def test_a_style_set_once_serves_every_input(style_size):
    rng = np.random.default_rng(151)
    style = rng.standard_normal((1, 4, *style_size))
    layer = StyleLossLayer()
    layer.set_style(oracles.read_only(style))  # a copy, which is gone at once
    gc.collect()
    for size in ((5, 6), (5, 6), (2, 7)):
        x = rng.standard_normal((1, 4, *size))
        loss, gradient = oracles.style_loss(x, style)
        assert layer.forward(x) == pytest.approx(loss)
        np.testing.assert_allclose(layer.backward(x), gradient, atol=1e-15)


def test_the_style_of_the_last_call_stays():
    rng = np.random.default_rng(153)
    layer = StyleLossLayer()
    x, other = (rng.standard_normal((1, 4, 5, 6)) for _ in range(2))
    styles = [rng.standard_normal((1, 4, 5, 6)) for _ in range(2)]
    for style in styles:
        layer.forward(x, style)
        loss, gradient = oracles.style_loss(other, style)
        assert layer.forward(other) == pytest.approx(loss)
        np.testing.assert_allclose(layer.backward(other), gradient, atol=1e-15)


def test_a_style_set_between_forward_and_backward():
    # exact or refused; never the gradient towards the style before
    rng = np.random.default_rng(157)
    x, old, new = (rng.standard_normal((1, 4, 5, 6)) for _ in range(3))
    expected = oracles.style_loss(x, new)[1]
    for arguments in ((x,), (x, new)):
        layer = StyleLossLayer()
        layer.forward(x, old)
        layer.set_style(new)
        try:
            gradient = layer.backward(*arguments)
        except RuntimeError as error:
            assert "forward" in str(error)
        else:
            np.testing.assert_allclose(gradient, expected, atol=1e-15)


@pytest.mark.parametrize(("shape", "style_batch"), [((1, 4, 5, 6), 1), ((3, 2, 4, 3), 3)])
def test_gram_gradient_is_the_matrix_of_backward(shape, style_batch):
    rng = np.random.default_rng(163)
    x, style = rng.standard_normal(shape), rng.standard_normal((style_batch, shape[1], 3, 7))
    layer = StyleLossLayer()
    layer.forward(x, style)
    matrix = layer.gram_gradient()
    assert matrix.shape == (shape[0], shape[1], shape[1])
    gradient = np.einsum("nab,nbhw->nahw", matrix, x)
    np.testing.assert_allclose(gradient, oracles.style_loss(x, style)[1], atol=1e-15)


def test_style_loss_out_of_order():
    layer = StyleLossLayer()
    x = np.ones((1, 3, 4, 5))
    for call in (lambda: layer.forward(x), lambda: layer.backward(x)):
        with pytest.raises(RuntimeError, match="style"):
            call()
    with pytest.raises(RuntimeError, match="forward"):
        layer.gram_gradient()
    layer.set_style(x)
    with pytest.raises(RuntimeError, match="forward"):
        layer.gram_gradient()


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 3, 4, 5), (1, 3, 0, 5)])
def test_set_style_refuses_shapes(shape):
    with pytest.raises(ValueError, match=says(shape)):
        StyleLossLayer().set_style(np.ones(shape))


def test_set_style_refuses_types():
    with pytest.raises(TypeError, match="int64"):
        StyleLossLayer().set_style(np.ones((1, 3, 4, 5), np.int64))


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (3, 3, 4, 5)])
def test_a_set_style_must_match_the_input(shape):
    layer = StyleLossLayer()
    layer.set_style(np.ones((2, 3, 4, 5)))
    for method in (layer.forward, layer.backward):
        with pytest.raises(ValueError, match=says(shape[0], shape[1], (2, 3, 4, 5))):
            method(np.ones(shape))


@DTYPES
def test_a_gram_matrix_set_by_hand(dtype):
    layer = StyleLossLayer()
    layer.set_gram(np.array([[[2.0, 1.0], [1.0, 0.5]]], dtype))
    x = np.array([[1, 2], [3, 0]], dtype).reshape(1, 2, 1, 2)
    # G = [[5, 3], [3, 9]], A = 2 * [[2, 1], [1, 0.5]]: (1 + 1 + 1 + 64) / (4 * 4 * 4)
    assert layer.forward(x) == 67 / 64
    # (G - A) X / (4 * 4) = [[1, 1], [1, 8]] [[1, 2], [3, 0]] / 16
    expected = np.array([[4, 2], [25, 2]], dtype).reshape(1, 2, 1, 2) / 16
    np.testing.assert_array_equal(layer.backward(x), expected)
    # A goes by positions: of a picture twice as large it is twice as much
    doubled = np.concatenate([x, x], axis=3)
    assert layer.forward(doubled) == 67 / 64


def test_the_gram_matrix_of_one_style_is_that_style():
    rng = np.random.default_rng(173)
    x, other = rng.standard_normal((2, 1, 3, 5, 6))
    style = rng.standard_normal((1, 3, 4, 7))
    layer = StyleLossLayer()
    layer.forward(x, other)
    per_position = np.einsum("nchw,ndhw->ncd", style, style) / 28
    layer.set_gram(per_position)
    expected_loss, expected_gradient = oracles.style_loss(x, style)
    assert layer.forward(x) == pytest.approx(expected_loss, rel=1e-12)
    np.testing.assert_allclose(layer.backward(x), expected_gradient, rtol=1e-10)
    # the style of the call before is not taken for it
    assert_style(layer, x, other)
    layer.set_gram(per_position)
    assert_style(layer, x, other)
    layer.set_gram(per_position)
    gradient = layer.backward(x)  # A is another, so G - A is worked out anew
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10)


def test_a_gram_matrix_for_each_picture_or_for_all():
    rng = np.random.default_rng(179)
    x = rng.standard_normal((2, 3, 5, 6))
    layer = StyleLossLayer()
    grams = rng.standard_normal((2, 3, 3))
    for given in grams, grams[:1]:
        layer.set_gram(given)
        losses = []
        for picture, A in zip(x, np.broadcast_to(given, (2, 3, 3)), strict=True):
            single = StyleLossLayer()
            single.set_gram(A[np.newaxis])
            losses.append(single.forward(picture[np.newaxis]))
        assert layer.forward(x) == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 3, 3)])
def test_a_set_gram_matrix_must_match_the_input(shape):
    layer = StyleLossLayer()
    layer.set_gram(np.ones(shape))
    for method in (layer.forward, layer.backward):
        with pytest.raises(ValueError, match=says("2 pictures with 3 channels", shape)):
            method(np.ones((2, 3, 4, 5)))


@pytest.mark.parametrize("shape", [(1, 2, 5, 6), (2, 4, 5, 6)])
def test_a_refused_style_changes_nothing(shape):
    rng = np.random.default_rng(167)
    layer = StyleLossLayer()
    x, style = rng.standard_normal((1, 4, 5, 6)), rng.standard_normal((1, 4, 5, 6))
    loss = layer.forward(x, style)
    for method in (layer.forward, layer.backward):
        with pytest.raises(ValueError, match=says(shape)):
            method(x, np.ones(shape))
    assert layer.forward(x) == loss
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
    for bad, name in ((good.astype(np.int64), "int64"), (good.tolist(), "list")):
        with pytest.raises(TypeError, match=name):
            method(bad, good)
        with pytest.raises(TypeError, match=name):
            method(good, bad)


# ---------------------------------------------------------------- Adam


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
def test_adams_eps_stands_outside_the_root(dtype):
    # a gradient of the size of eps: 1e-8 / (sqrt(1e-16) + 1e-8) is a half
    x = np.zeros((1, 1, 1, 2), dtype)
    updated = AdamOptimizer(1.0, x.shape).update(x, np.array([[[[1e-8, -3e-8]]]], dtype))
    np.testing.assert_allclose(updated.ravel(), [-0.5, 0.75], rtol=1e-4)
    # and none at all is no division by zero
    still = AdamOptimizer(1.0, x.shape).update(x, np.zeros_like(x))
    np.testing.assert_array_equal(still, x)


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
    for bad, name in ((np.zeros((2, 3), np.int64), "int64"), (good.tolist(), "list")):
        with pytest.raises(TypeError, match=name):
            optimizer.update(bad, good)
        with pytest.raises(TypeError, match=name):
            optimizer.update(good, bad)
    assert optimizer.step == 0

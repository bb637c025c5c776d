"""The losses of `fast/losses.py` against the formulas of `layers3.py` and plain sums."""

import numpy as np
import pytest
from helpers import oracles

from fast import losses
from fast.strips import get_threads, set_threads
from layers3 import ContentLossLayer, StyleLossLayer
from layers3 import gram as gram_by_formula

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = pytest.mark.parametrize(
    "shape", [(1, 5, 4, 7), (3, 2, 3, 2), (2, 64, 33, 41), (1, 192, 5, 9), (2, 6, 23, 12)], ids=str
)


@pytest.fixture(params=["usual", "tiny"], ids=["usual-strips", "tiny-strips"])
def strips(request, monkeypatch):
    """Run a test as it is, and again with so little a strip that small features make many."""
    if request.param == "tiny":
        monkeypatch.setattr(losses, "STRIP_BYTES", 600)


def features(shape, dtype, seed):
    """Return features, channels last in memory as those of the network."""
    N, C, H, W = shape
    values = np.random.default_rng(seed).standard_normal((N, H, W, C)).astype(dtype)
    return np.maximum(values, 0).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


@pytest.mark.layers
@DTYPES
@SHAPES
def test_content_loss_and_gradient_are_the_layers(shape, dtype, strips):
    x, y = features(shape, dtype, 0), features(shape, dtype, 1)
    kept = x.copy(), y.copy()
    loss, gradient = losses.content_loss(x, y)
    layer = ContentLossLayer()
    assert loss == pytest.approx(layer.forward(x, y), rel=TOLERANCE[dtype])
    expected = layer.backward(x.astype(np.float64), y.astype(np.float64))
    assert oracles.relative_error(gradient, expected) < TOLERANCE[dtype]
    assert (gradient.shape, gradient.dtype) == (shape, dtype)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


@pytest.mark.layers
@DTYPES
@SHAPES
def test_style_loss_and_gradient_are_the_layers(shape, dtype, strips):
    x, style = features(shape, dtype, 2), features((1, shape[1], 6, 11), dtype, 3)
    kept = x.copy()
    N, C, H, W = shape
    loss, matrices = losses.style_loss(losses.gram(x) / (H * W), losses.gram(style) / 66, H * W)
    layer = StyleLossLayer()
    assert loss == pytest.approx(layer.forward(x, style), rel=10 * TOLERANCE[dtype])
    gradient = (matrices @ x.reshape(N, C, H * W)).reshape(shape)
    expected = layer.backward(x.astype(np.float64), style.astype(np.float64))
    assert oracles.relative_error(gradient, expected) < 10 * TOLERANCE[dtype]
    assert (matrices.shape, matrices.dtype) == ((N, C, C), dtype)
    np.testing.assert_array_equal(x, kept)


@DTYPES
@SHAPES
def test_gram_is_the_formulas(shape, dtype, strips):
    x = features(shape, dtype, 4)
    for G in (losses.gram(x), gram_by_formula(x)):
        assert (G.shape, G.dtype) == ((shape[0], shape[1], shape[1]), dtype)
        assert oracles.relative_error(G, oracles.gram(x)) < TOLERANCE[dtype]


def test_a_style_for_each_picture_or_one_for_all():
    x = losses.gram(features((2, 3, 4, 5), np.float64, 5)) / 20
    one = losses.gram(features((1, 3, 6, 6), np.float64, 6)) / 36
    both = np.concatenate([one, one])
    assert losses.style_loss(x, one, 20)[0] == pytest.approx(losses.style_loss(x, both, 20)[0])


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(losses, "STRIP_BYTES", 2000)
    x, y = features((2, 16, 27, 14), np.float32, 7), features((2, 16, 27, 14), np.float32, 8)
    before = get_threads()
    runs = []
    try:
        for number in (1, 2, 3, 2):
            set_threads(number)
            loss, gradient = losses.content_loss(x, y)
            runs.append((loss, gradient.tobytes(), losses.gram(x).tobytes()))
    finally:
        set_threads(before)
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_a_large_sum_keeps_its_digits():
    # a million equal terms: added one by one in float32 they would lose three digits
    x = np.full((1, 128, 128, 64), 100.3, np.float32).transpose(0, 3, 1, 2)
    loss, _ = losses.content_loss(x, np.zeros_like(x))
    assert loss == pytest.approx(float(x[0, 0, 0, 0]) ** 2 / 2, rel=1e-5)

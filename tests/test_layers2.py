"""What convolution, pooling and flattening have in common."""

import numpy as np
import pytest
from helpers import oracles
from helpers.layer_checks import KINDS

from layers2 import AveragePoolingLayer, ConvolutionalLayer, FlattenLayer, MaxPoolingLayer


@KINDS
@pytest.mark.parametrize("name", ["convolution", "max", "average"])
@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32)])
def test_gradients_take_their_dtype_from_the_input(name, kind, dtypes):
    rng = np.random.default_rng(25)
    layer = {
        "convolution": ConvolutionalLayer(2, 2, 3, 1, 1, kind),
        "max": MaxPoolingLayer(2, 1, kind),
        "average": AveragePoolingLayer(2, 1, kind),
    }[name]
    if name == "convolution":
        layer.load_param(rng.standard_normal((2, 2, 2, 3)), rng.standard_normal(3))
    output = layer.forward(rng.standard_normal((1, 2, 5, 4)).astype(dtypes[0]))
    top_diff = rng.standard_normal(output.shape).astype(dtypes[1])
    bottom_diff = layer.backward(top_diff)
    assert bottom_diff.dtype == dtypes[0]
    expected = layer.backward(top_diff.astype(dtypes[0]))
    np.testing.assert_allclose(bottom_diff, expected, rtol=1e-5, atol=1e-5)
    if name == "convolution":
        assert layer.d_weight.dtype == layer.d_bias.dtype == dtypes[0]


@pytest.mark.parametrize(
    ("layer_class", "sizes"),
    [
        (ConvolutionalLayer, (2, 1, 1, 0, 1)),
        (MaxPoolingLayer, (2, 1)),
        (AveragePoolingLayer, (2, 1)),
    ],
)
@pytest.mark.parametrize(("kind", "route"), [((), "speedup"), ((0,), "raw"), ((1,), "speedup")])
def test_type_selects_the_path(layer_class, sizes, kind, route, monkeypatch):
    called = []

    def spy_on(name):
        original = getattr(layer_class, name)

        def spy(self, argument):
            called.append(name)
            return original(self, argument)

        monkeypatch.setattr(layer_class, name, spy)

    for name in ("forward_raw", "forward_speedup", "backward_raw", "backward_speedup"):
        spy_on(name)
    layer = layer_class(*sizes, *kind)  # by position
    if layer_class is ConvolutionalLayer:
        layer.init_param(rng=0)
    layer.backward(layer.forward(np.ones((1, 1, 3, 3))))
    assert called == [f"forward_{route}", f"backward_{route}"]


@KINDS
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
@pytest.mark.parametrize("name", ["convolution", "max", "average", "flatten"])
def test_results_share_no_memory_with_what_was_given(name, kind, layout):
    # sizes and memory that would let a lazy layer pass its argument on
    layer = {
        "convolution": ConvolutionalLayer(1, 1, 1, 0, 1, kind),
        "max": MaxPoolingLayer(1, 1, kind),
        "average": AveragePoolingLayer(1, 1, kind),
        "flatten": FlattenLayer((1, 4, 5), (20,)),
    }[name]
    if name == "convolution":
        layer.load_param(np.ones((1, 1, 1, 1)), np.zeros(1))
    x = oracles.laid_out(np.ones((2, 1, 4, 5)), layout)
    output = layer.forward(x)
    assert not np.shares_memory(output, x)
    top_diff = output.copy()
    bottom_diff = layer.backward(top_diff)
    assert not np.shares_memory(bottom_diff, top_diff)
    assert not np.shares_memory(bottom_diff, x)
    output[...] = bottom_diff[...] = 2  # and may be written to
    np.testing.assert_array_equal(x, np.ones((2, 1, 4, 5)))

"""The fused forward and backward pass compared with those layer by layer."""

import itertools

import numpy as np
import pytest
from helpers.gradients import check_gradient

from fast import strips
from fast.fused import FusedNetwork
from layers1 import ReLULayer
from layers2 import AveragePoolingLayer, ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from layers3 import StyleLossLayer

CHANNELS = {"conv1_1": 8, "conv1_2": 16, "conv2_1": 12, "conv2_2": 20, "conv3_1": 8, "conv3_2": 5}
POOLED = ("conv1_2", "conv2_2", "conv3_2")
POOLS = {  # the three pooling layers
    "max": (MaxPoolingLayer,) * 3,
    "average": (AveragePoolingLayer,) * 3,
    "mixed": (MaxPoolingLayer, AveragePoolingLayer, MaxPoolingLayer),
    "mixed, average first": (AveragePoolingLayer, MaxPoolingLayer, AveragePoolingLayer),
}


def make_layers(pools, dtype=np.float32):
    rng = np.random.default_rng(0)
    layers, channels = {}, 3
    for name, outputs in CHANNELS.items():
        layer = ConvolutionalLayer(3, channels, outputs, 1, 1)
        weight = rng.standard_normal((channels, 3, 3, outputs)) * np.sqrt(2 / (9 * channels))
        layer.load_param(weight.astype(dtype), rng.standard_normal(outputs).astype(dtype) * 0.1)
        layer.freeze()
        layers[name] = layer
        layers[f"relu{name[4:]}"] = ReLULayer()
        if name in POOLED:
            layers[f"pool{name[4]}"] = POOLS[pools][int(name[4]) - 1](2, 2)
        channels = outputs
    return layers


def forward_pass(layers, image, wanted):
    features = {}
    for name, layer in layers.items():
        image = layer.forward(image)
        if name in wanted:
            features[name] = image
    return features


def backward_pass(layers, gradients):
    deepest = max(gradients, key=list(layers).index)
    names = list(layers)[: list(layers).index(deepest) + 1]
    current = np.zeros_like(gradients[deepest])
    for name in reversed(names):
        if name in gradients:
            current = current + gradients[name]
        current = layers[name].backward(current)
    return current


def relative_error(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.layers
@pytest.mark.parametrize("pools", POOLS)
@pytest.mark.parametrize(
    "wanted",
    [
        ("relu3_1",),
        ("relu1_1", "relu2_1", "relu3_1"),
        ("relu1_2", "pool1", "relu2_2", "pool3"),  # a pooled ReLU's own output, and pools
        ("pool2",),
        ("relu1_1",),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("size", [(32, 48), (33, 35), (9, 10)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_features_and_gradient_are_those_of_the_layers(pools, wanted, size, dtype, tolerance):
    layers = make_layers(pools, dtype)
    network = FusedNetwork(layers)
    rng = np.random.default_rng(1)
    for seed in range(2):  # the second time in used buffers
        image = rng.standard_normal((2, 3, *size)).astype(dtype)
        kept = image.copy()
        expected = forward_pass(layers, image, wanted)
        features = network.forward(image, wanted)
        assert set(features) == set(wanted)
        gradients = {}
        for name in wanted:
            assert features[name].shape == expected[name].shape
            assert features[name].dtype == dtype
            assert relative_error(features[name], expected[name]) < tolerance, (seed, name)
            gradients[name] = rng.standard_normal(features[name].shape).astype(dtype)
        result = network.backward(gradients)
        assert result.dtype == dtype
        assert relative_error(result, backward_pass(layers, gradients)) < tolerance
        np.testing.assert_array_equal(image, kept)


@pytest.mark.layers
@pytest.mark.parametrize("pool", [MaxPoolingLayer, AveragePoolingLayer])
def test_the_first_convolution_may_have_a_pool(pool):
    """Its block is then only in the cache; im2col would write it into an array."""
    rng = np.random.default_rng(3)
    layers = {"conv": convolution(), "relu": ReLULayer(), "pool": pool(2, 2)}
    image = rng.standard_normal((2, 3, 14, 9)).astype(np.float32)
    (found,) = FusedNetwork(layers).forward(image, ["pool"]).values()
    assert relative_error(found, forward_pass(layers, image, ["pool"])["pool"]) < 1e-5


@pytest.mark.layers
@pytest.mark.parametrize("strip_bytes", [strips.STRIP_BYTES, 600], ids=["usual", "tiny"])
@pytest.mark.parametrize("pools", POOLS)
def test_gram_gradients_are_those_of_the_style_loss(pools, strip_bytes, monkeypatch):
    monkeypatch.setattr(strips, "STRIP_BYTES", strip_bytes)  # tiny: many strips in a small picture
    layers = make_layers(pools, np.float64)
    network = FusedNetwork(layers)
    wanted = ("relu1_1", "relu1_2", "relu3_1")
    rng = np.random.default_rng(2)
    image, style = rng.standard_normal((2, 2, 3, 21, 26))
    styles = forward_pass(layers, style, wanted)
    expected = forward_pass(layers, image, wanted)  # last, for the layers' backward
    gradients, matrices = {}, {}
    for name, features in styles.items():
        loss = StyleLossLayer()
        loss.forward(expected[name], features)
        gradients[name] = loss.backward(expected[name], features)
        N, C, H, W = features.shape
        difference = loss.gram_input - loss.gram_style
        matrices[name] = difference / (N * C**2 * (H * W) ** 2)
    network.forward(image, wanted)
    extra = {"relu3_1": rng.standard_normal(expected["relu3_1"].shape)}
    result = network.backward(extra, matrices)
    gradients["relu3_1"] = gradients["relu3_1"] + extra["relu3_1"]
    assert relative_error(result, backward_pass(layers, gradients)) < 1e-12


@pytest.mark.layers
def test_gradient_by_finite_differences():
    layers = make_layers("average", np.float64)  # no ties, and kinks are rare
    network = FusedNetwork(layers)
    rng = np.random.default_rng(3)
    image = rng.standard_normal((1, 3, 9, 10))
    wanted = ("relu1_1", "pool2")
    gradients = {
        name: rng.standard_normal(features.shape)
        for name, features in network.forward(image, wanted).items()
    }

    def loss(image):
        features = network.forward(image, wanted, keep=False)
        return sum(np.sum(features[name] * gradients[name]) for name in wanted)

    network.forward(image, wanted)
    check_gradient(loss, image, network.backward(gradients).copy(), "image", rtol=1e-5)


@pytest.mark.layers
@pytest.mark.parametrize("pools", POOLS)
@pytest.mark.parametrize("part", [(8, 16, 0, 12), (0, 4, 4, 27), (12, 21, 24, 27)], ids=str)
def test_a_part_of_an_image_has_the_features_and_the_gradient_of_the_whole(pools, part):
    """The area is the part and its margin. Sides of 21 and 27 are no multiples of the grid."""
    layers = make_layers(pools, np.float64)
    network = FusedNetwork(layers)
    wanted = ("relu1_1", "relu1_2", "pool1", "relu3_1")
    grid, margin = network.reach(wanted)
    y0, y1, x0, x1 = part
    rng = np.random.default_rng(6)
    image = rng.standard_normal((2, 3, 21, 27))
    expected, gradients, inner = forward_pass(layers, image, wanted), {}, {}
    for name, features in expected.items():
        scale = {"relu1_1": 1, "relu1_2": 1, "pool1": 2, "relu3_1": 4}[name]
        inside = np.s_[:, :, y0 // scale : y1 // scale, x0 // scale : x1 // scale]
        inner[name] = rng.standard_normal(features[inside].shape)
        gradients[name] = np.zeros_like(features)
        gradients[name][inside] = inner[name]
        expected[name] = features[inside]
    whole = backward_pass(layers, gradients)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    area = np.s_[:, :, top : y1 + margin, left : x1 + margin]
    own = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    for name, features in network.forward(image[area], wanted, part=own).items():
        np.testing.assert_allclose(features, expected[name], rtol=1e-12, atol=1e-12)
    found = np.zeros_like(whole)
    found[area] = network.backward(inner)
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)


def test_the_reach_of_a_part_follows_from_the_layers():
    network = FusedNetwork(make_layers("max"))
    assert network.reach(("relu1_1",)) == (1, 1)
    assert network.reach(("relu1_2",)) == (1, 2)
    assert network.reach(("pool1",)) == (2, 2)
    assert network.reach(("relu2_2", "relu1_1")) == (2, 6)  # 1 + 1 + 2 + 2
    assert network.reach(("relu3_1",)) == (4, 12)  # 1 + 1 + 2 + 2 + 4, rounded up to the grid
    with pytest.raises(ValueError, match="names of ReLU or pooling layers"):
        network.reach(("relu9_9",))


@pytest.mark.layers
def test_a_relu_at_exactly_zero_lets_the_gradient_pass():
    layers = make_layers("max", np.float64)
    for name in CHANNELS:
        weight, bias = layers[name].save_param()
        layers[name].load_param(weight, np.zeros_like(bias))
        layers[name].freeze()
    image = np.zeros((1, 3, 12, 12))  # every sum is exactly 0
    wanted = ("relu2_1",)
    features = forward_pass(layers, image, wanted)
    network = FusedNetwork(layers)
    network.forward(image, wanted)
    gradients = {"relu2_1": np.random.default_rng(4).standard_normal(features["relu2_1"].shape)}
    expected = backward_pass(layers, gradients)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(network.backward(gradients), expected, atol=1e-12)


def test_refuses_layers_it_cannot_stop_at():
    network = FusedNetwork(make_layers("max"))
    image = np.zeros((1, 3, 16, 16), np.float32)
    for wanted in ((), ("conv1_1",), ("relu9_9", "relu1_1")):
        with pytest.raises(ValueError, match="names of ReLU or pooling layers"):
            network.forward(image, wanted)
    network.forward(image, ("relu1_1",))
    with pytest.raises(ValueError, match="relu2_1 is not among"):
        network.backward({"relu2_1": np.zeros((1, 12, 8, 8), np.float32)})


def test_refuses_images_and_gradients_that_do_not_fit():
    network = FusedNetwork(make_layers("max"))
    with pytest.raises(RuntimeError, match="keep=True"):
        network.backward({})
    with pytest.raises(ValueError, match="expected image with 3 channels, got 1"):
        network.forward(np.zeros((1, 1, 16, 16), np.float32), ("relu1_1",))
    with pytest.raises(TypeError, match="float16"):
        network.forward(np.zeros((1, 3, 16, 16), np.float16), ("relu1_1",))
    with pytest.raises(ValueError, match="too small: layer pool2 gets 1x8"):
        network.forward(np.zeros((1, 3, 3, 16), np.float32), ("relu3_1",))
    with pytest.raises(RuntimeError, match="keep=True"):
        network.backward({})  # the pass above did not end
    image = np.zeros((1, 3, 16, 16), np.float32)
    network.forward(image, ("relu1_1",), keep=False)
    with pytest.raises(RuntimeError, match="keep=True"):
        network.backward({"relu1_1": np.zeros((1, 8, 16, 16), np.float32)})
    network.forward(image, ("relu1_1",))
    network.backward({"relu1_1": np.zeros((1, 8, 16, 16), np.float32)})
    with pytest.raises(RuntimeError, match="keep=True"):
        network.backward({"relu1_1": np.zeros((1, 8, 16, 16), np.float32)})  # a second time
    network.forward(image, ("relu1_1",))
    with pytest.raises(ValueError, match=r"relu1_1 of shape \(1, 8, 16, 16\), got \(1, 8, 1, 16\)"):
        network.backward({"relu1_1": np.zeros((1, 8, 1, 16), np.float32)})


def convolution(*, frozen=True, channels=(3, 4), kernel=3, padding=1, stride=1):
    layer = ConvolutionalLayer(kernel, *channels, padding, stride)
    layer.init_param(rng=0)
    if frozen:
        layer.freeze()
    return layer


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "ReLU or pooling layer at the end, got image"),
        ({"a": convolution()}, "ReLU or pooling layer at the end, got convolution"),
        ({"a": convolution(frozen=False)}, "layer a: expected frozen True, got False"),
        ({"a": convolution(kernel=5)}, "layer a: expected kernel_size 3, got 5"),
        ({"a": convolution(padding=0)}, "layer a: expected padding 1, got 0"),
        ({"a": convolution(stride=2)}, "layer a: expected stride 1, got 2"),
        ({"a": ReLULayer()}, "layer a: relu cannot follow image"),
        ({"a": MaxPoolingLayer(2, 2)}, "layer a: max pooling cannot follow image"),
        ({"a": FlattenLayer((1, 1, 1), (1,))}, "layer a: FlattenLayer cannot follow image"),
        ({"a": convolution(), "b": MaxPoolingLayer(2, 2)}, "b: max pooling cannot follow conv"),
        (
            {"a": convolution(), "b": convolution(channels=(4, 5))},
            "b: convolution cannot follow convolution",
        ),
        ({"a": convolution(), "b": ReLULayer(), "c": ReLULayer()}, "c: relu cannot follow relu"),
        (
            {"a": convolution(), "b": ReLULayer(), "c": convolution(channels=(5, 6))},
            "layer c: expected channel_in 4, got 5",
        ),
        *(
            ({"a": convolution(), "b": ReLULayer(), "c": pool(*sizes)}, f"layer c: expected {what}")
            for pool in (MaxPoolingLayer, AveragePoolingLayer)
            for sizes, what in [((3, 2), "kernel_size 2, got 3"), ((2, 1), "stride 2, got 1")]
        ),
        (
            {
                "a": convolution(),
                "b": ReLULayer(),
                "c": MaxPoolingLayer(2, 2),
                "d": AveragePoolingLayer(2, 2),
            },
            "d: average pooling cannot follow max pooling",
        ),
    ],
)
def test_refuses_layers_it_is_not_made_for(layers, message):
    with pytest.raises(ValueError, match=message):
        FusedNetwork(layers)


def test_what_is_kept_between_the_passes():
    """Two buffers in turn, each feature wanted, and for the backward pass a byte a value."""
    network = FusedNetwork(make_layers("max"))
    image = np.ones((1, 3, 20, 24), np.float32)
    wanted = ("relu1_1", "relu3_1")
    network.forward(image, wanted, keep=False)
    assert sorted(network._memory) == ["0", "1", "relu1_1", "relu3_1"]
    features = network.forward(image, wanted)
    bytes_kept = {n: a.nbytes for n, a in network._memory.items() if n.startswith(("mask", "arg"))}
    assert bytes_kept == {
        "mask 0": 8 * 20 * 24, "argmax 1": 16 * 10 * 12, "mask 2": 12 * 10 * 12,
        "argmax 3": 20 * 5 * 6, "mask 4": 8 * 5 * 6,
    }  # fmt: skip
    before = set(network._memory)
    network.backward(features)
    assert set(network._memory) - before == {"image"}


def test_attributes_are_there_from_the_start():
    network = FusedNetwork(make_layers("max"))
    before = set(vars(network))
    network.backward(network.forward(np.ones((1, 3, 8, 8), np.float32), ("pool1",)))
    assert set(vars(network)) == before


@pytest.mark.layers
def test_the_first_of_equals_is_the_maximum_of_its_window():
    """All orders of the values -1, 0 and 1 in a window, against the layers."""
    block = np.array(list(itertools.product([-1.0, 0.0, 1.0], repeat=4))).T  # (4, 81)
    block = block.reshape(2, 2, 81)
    relu, pool = ReLULayer(), MaxPoolingLayer(2, 2)
    expected = pool.forward(relu.forward(block.transpose(2, 0, 1)[None]))  # (1, C, 2, 2)
    gradient = relu.backward(pool.backward(np.ones((1, 81, 1, 1))))
    layer = ConvolutionalLayer(3, 3, 81, 1, 1)
    layer.init_param()
    layer.freeze()
    network = FusedNetwork({"conv": layer, "relu": ReLULayer(), "pool": MaxPoolingLayer(2, 2)})
    (stage,) = network.stages
    stage.shape, stage.pools = (1, 2, 2, 81), True
    stage.argmax, pooled = np.empty((1, 1, 1, 81), np.uint8), np.empty((1, 1, 1, 81))
    network._rectify_and_pool(stage, pooled)(0, 0, 0, block.copy())
    np.testing.assert_array_equal(pooled[0, 0, 0], expected[0, :, 0, 0])
    found = stage.argmax.ravel() == np.arange(4)[:, None]  # 4: no pixel
    np.testing.assert_array_equal(found, gradient.reshape(81, 4).T)

"""Losses and gradient in tiles: the same as of the whole picture."""

import numpy as np
import pytest
from helpers.oracles import relative_error
from helpers.style_pictures import waves
from hypothesis import given, settings
from hypothesis import strategies as st

from fast.fused import FusedNetwork
from fast.strips import get_threads, set_threads
from fast.tiles import cut
from style.objective import Objective, style_grams, tiles_of
from style.settings import Settings
from style_transfer_cpu import VGG16, VGG19, stylize, used_part
from vgg_cpu import layer_table

MEAN = np.array([123.7, 116.8, 103.9]).reshape(1, 3, 1, 1)
DEEP = {
    "content_layers": {"relu4_2": 1.0},
    "style_layers": {
        "relu1_1": 2.0,
        "relu2_1": 1.0,
        "relu3_1": 1.0,
        "relu4_1": 1.0,
        "relu5_1": 0.5,
    },
}
SHALLOW = {
    "content_layers": {"relu2_2": 1.0, "pool1": 0.5},
    "style_layers": {"relu1_1": 1.0, "relu1_2": 1.0, "pool2": 1.0, "relu3_1": 1.0},
}


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(1, 200),
    st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 6),
)  # fmt: skip
def test_tiles_cover_the_image_once_on_the_grid_with_their_margins(
    height, width, side, grid, cells
):
    margin = grid * cells
    covered = np.zeros((height, width), int)
    parts = cut(height, width, side, grid, margin)
    for area, own in parts:
        for axis, length in enumerate((height, width)):
            start = area[axis].start + own[axis].start
            stop = area[axis].start + own[axis].stop
            assert area[axis].start == max(0, start - margin)
            assert area[axis].stop == min(length, stop + margin)
            assert start % grid == 0
            assert stop % grid == 0 or stop == length
        covered[area][own] += 1
        pixels = np.prod([each.stop - each.start for each in area])
        assert pixels <= max(side, 2 * (margin + grid)) ** 2
    assert (covered == 1).all()
    assert (len(parts) == 1) == (height * width <= max(side, 2 * (margin + grid)) ** 2) or grid > 1


def test_tiles_are_as_square_as_memory_allows():
    parts = cut(2731, 4096, 1024, 8, 40)
    sides = np.array([[each.stop - each.start for each in area] for area, _ in parts])
    assert sides.max() / sides.min() < 1.3
    assert np.prod(sides, axis=1).sum() < 1.2 * 2731 * 4096
    for height, width in ((120, 300), (300, 120)):  # the next best cut has 70,848 pixels
        parts = cut(height, width, 70, 2, 12)
        assert sum(np.prod([each.stop - each.start for each in area]) for area, _ in parts) == 70560
    low = cut(100, 4096, 400, 8, 40)  # a flat picture is cut across only
    assert all(area[0] == slice(0, 100) for area, _ in low)


def vgg_of(kind, dtype, pooling="max", divisor=16):
    """Return a VGG with He-normal filters, narrow unless `divisor` is 1."""
    vgg = kind()
    vgg.build_model({k: n // divisor for k, n in layer_table(kind.blocks).items() if n})
    if pooling == "average":
        vgg.use_average_pooling()
    rng = np.random.default_rng(0)
    for name in vgg.update_layer_list:
        layer = vgg.layers[name]
        shape = layer.channel_in, 3, 3, layer.channel_out
        weight = rng.standard_normal(shape) * np.sqrt(2 / 9 / layer.channel_in)
        bias = rng.standard_normal(layer.channel_out)
        layer.load_param(weight.astype(dtype), bias.astype(dtype))
        layer.freeze()
    return vgg


def network_of(kind, wanted, *options):
    return FusedNetwork(used_part(vgg_of(kind, *options), wanted))


def image(height, width, seed, dtype):
    noise = np.random.default_rng(seed).uniform(-20, 20, (1, 3, height, width))
    pixels = waves(height, width, seed).transpose(2, 0, 1)[None]  # (H, W, C) -> (1, C, H, W)
    return (pixels + noise - MEAN).astype(dtype)


def in_tiles(kind, size, tile, dtype, layers, pooling="max", blend=None, divisor=16):
    """Return (number of tiles, losses, gradient, Gram matrices of the styles), with such tiles."""
    chosen = Settings(
        tile=tile, content_weight=2.0, style_weight=30.0, tv_weight=0.01,
        style_blend=blend, **layers,
    )  # fmt: skip
    network = network_of(kind, chosen, dtype, pooling, divisor)
    styles = [image(60, 52, 1, dtype), image(48, 70, 2, dtype)][: len(blend or [1])]
    objective = Objective(network, image(*size, 0, dtype), styles, chosen)
    losses, gradient = objective(image(*size, 3, dtype))
    return len(objective.tiles), losses, gradient, style_grams(network, styles, chosen)


@pytest.mark.parametrize(
    ("kind", "size", "tile", "layers", "pooling", "blend"),
    [
        (VGG19, (165, 231), 192, DEEP, "max", [2, 1]),  # 16 to 31 pixels, between margins of 80
        (VGG16, (165, 231), 160, DEEP, "max", None),
        (VGG16, (257, 141), 190, DEEP, "average", [1, 3]),
        (VGG19, (101, 67), 40, SHALLOW, "average", None),
        (VGG19, (45, 61), 16, SHALLOW, "max", [1, 1]),
        (VGG16, (63, 130), 80, SHALLOW, "max", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_and_gradient_in_tiles_are_those_of_the_whole(
    kind, size, tile, layers, pooling, blend, dtype
):
    one, losses, gradient, grams = in_tiles(kind, size, None, dtype, layers, pooling, blend)
    many, *in_parts = in_tiles(kind, size, tile, dtype, layers, pooling, blend)
    assert (one, many > 1) == (1, True)
    exact = dtype == np.float64
    assert in_parts[0] == pytest.approx(losses, rel=1e-10 if exact else 1e-5)
    assert relative_error(in_parts[1], gradient) < (1e-10 if exact else 1e-3)
    assert in_parts[1].dtype == dtype
    for name, matrix in grams.items():
        assert relative_error(in_parts[2][name], matrix) < (1e-12 if exact else 1e-5), name


def test_the_same_with_as_many_channels_as_vgg_16_has():
    one, losses, gradient, _ = in_tiles(VGG16, (63, 90), None, np.float32, SHALLOW, divisor=1)
    many, *in_parts, _ = in_tiles(VGG16, (63, 90), 60, np.float32, SHALLOW, divisor=1)
    assert one == 1 < many
    assert in_parts[0] == pytest.approx(losses, rel=1e-5)
    assert relative_error(in_parts[1], gradient) < 1e-3


def test_the_result_has_no_seams():
    """At 1024 pixels, in tiles and whole: hardly a value differs, and none by much."""
    content = waves(300, 1024, 0)
    style = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    vgg, results = vgg_of(VGG16, np.float32), []
    for tile in (None, 256):
        chosen = Settings(
            size=1024, scales=1, steps=5, tile=tile, weights="narrow", init="content", **SHALLOW
        )
        results.append(stylize(content, [style], chosen, network=vgg).astype(int))
    assert len(tiles_of(FusedNetwork(used_part(vgg, chosen)), vgg.prepare(content), chosen)) > 4
    assert np.abs(results[0] - content).mean() > 5
    difference = np.abs(results[0] - results[1])
    # Rounding decides near ties of max pooling. A margin that is too small gives 56 and 0.2.
    assert difference.max() <= 10
    assert difference.mean() < 0.002


@pytest.mark.parametrize("weights", [{"content_weight": 0.0}, {"style_weight": 0.0}])
def test_in_tiles_one_of_the_losses_may_be_left_out(weights):
    results = []
    for tile in (None, 40):
        chosen = Settings(**{"content_weight": 1.0, **weights}, tile=tile, **SHALLOW)
        network = network_of(VGG16, chosen, np.float64)
        made, style = image(70, 81, 3, np.float64), image(60, 70, 1, np.float64)
        results.append(Objective(network, image(70, 81, 0, np.float64), [style], chosen)(made))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-10)
    assert relative_error(results[1][1], results[0][1]) < 1e-10


def test_the_bits_do_not_depend_on_the_number_of_threads():
    before, runs = get_threads(), []
    try:
        for number in (1, 2, 3):
            set_threads(number)
            _, losses, gradient, _ = in_tiles(VGG19, (60, 67), 40, np.float32, SHALLOW)
            runs.append((losses, gradient.tobytes()))
    finally:
        set_threads(before)
    assert runs[0] == runs[1] == runs[2]


def test_each_tile_is_computed_twice_and_the_last_one_once():
    chosen = Settings(tile=40, content_weight=1.0, **SHALLOW)
    network = network_of(VGG16, chosen, np.float32)
    content, style = image(70, 81, 0, np.float32), image(20, 30, 1, np.float32)
    objective = Objective(network, content, [style], chosen)
    passes = []
    forward = network.forward
    network.forward = lambda part, *more: passes.append(part.shape) or forward(part, *more)
    objective(content)
    assert len(passes) == 2 * len(objective.tiles) - 1
    assert max(height * width for _, _, height, width in passes) <= 40 * 40

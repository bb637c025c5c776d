"""Filters learnt from two pictures: whitening, k-means, and what the layers get from them."""

import numpy as np
import pytest

from fast.strips import get_threads, set_threads
from layers1 import ReLULayer
from layers2 import ConvolutionalLayer, MaxPoolingLayer
from style import learnt_filters
from style.learnt_filters import (
    draw_patches,
    filters_from_patches,
    learn_filters,
    random_filters,
    spherical_kmeans,
    whitening_matrix,
)
from support.command import InputError


@pytest.fixture(autouse=True)
def fewer_patches(monkeypatch):
    monkeypatch.setattr(learnt_filters, "PATCHES", 2_000)


@pytest.fixture
def threads():
    before = get_threads()
    yield set_threads
    set_threads(before)


def build(width=8):
    """VGG-19 as far as relu4_1, an eighth as wide, with one layer a block in blocks 3 and 4."""
    layers = {}
    channels = 3
    for block, (count, wide) in enumerate([(2, 1), (2, 2), (1, 4), (1, 8)], start=1):
        for number in range(1, count + 1):
            layers[f"conv{block}_{number}"] = ConvolutionalLayer(3, channels, width * wide, 1, 1)
            layers[f"relu{block}_{number}"] = ReLULayer()
            channels = width * wide
        layers[f"pool{block}"] = MaxPoolingLayer(2, 2)
    del layers["pool4"]
    return layers


def painting(height=40, width=52, seed=0, dtype=np.float32):
    """Coloured stripes of changing slant with a little noise, as (1, 3, H, W) around 0."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = 0.7 * x * np.cos(y / 15 + seed) + 0.7 * y * np.sin(x / 20)
    colours = rng.uniform(30, 90, 3)[:, None, None] * rng.choice([-1, 1], (3, 1, 1))
    picture = colours * np.sin(phase) + rng.normal(0, 5, (3, height, width))
    return picture[None].astype(dtype)


def convolutions(layers):
    return {name: layer for name, layer in layers.items() if name.startswith("conv")}


def activations(layers, pictures, border=0):
    """Return {name of conv: its rectified outputs for all pictures, as (C, positions)}."""
    found = {}
    for name, layer in layers.items():
        pictures = [layer.forward(x) for x in pictures]
        if name.startswith("conv"):
            inside = slice(border, -border or None)
            outputs = [np.maximum(x, 0)[0, :, inside, inside] for x in pictures]
            # (C, H, W) -> (C, H W), side by side
            found[name] = np.concatenate([x.reshape(len(x), -1) for x in outputs], axis=1)
    return found


@pytest.mark.parametrize("give_filters", [learn_filters, random_filters])
def test_mean_activation_is_one_in_every_layer(give_filters):
    layers = build()
    pictures = [painting(), painting(32, 36, seed=1)]
    copies = [x.copy() for x in pictures]
    give_filters(layers, pictures, np.random.default_rng(0))
    for name, outputs in activations(layers, pictures).items():
        assert outputs.mean() == pytest.approx(1, rel=1e-4), name
    for picture, copy in zip(pictures, copies, strict=True):
        np.testing.assert_array_equal(picture, copy)
    for layer in convolutions(layers).values():
        assert layer.frozen
        assert layer.weight.dtype == layer.bias.dtype == np.float32


def test_learnt_filters_are_active_at_the_strongest_outputs():
    layers = build()
    pictures = [painting(), painting(seed=1)]
    learn_filters(layers, pictures, np.random.default_rng(0))
    # Patches contain no padding, so the outputs at the border are left out.
    for name, outputs in activations(layers, pictures, border=1).items():
        active = (outputs > 0).mean(axis=1)  # per filter
        if name in learnt_filters.LEARNT_LAYERS:
            np.testing.assert_allclose(active, 0.3, atol=0.06, err_msg=name)
            assert active.mean() == pytest.approx(0.3, abs=0.02), name


@pytest.mark.parametrize("give_filters", [learn_filters, random_filters])
def test_a_seed_gives_the_same_filters_on_any_number_of_threads(give_filters, threads):
    def run(seed):
        layers = build()
        give_filters(layers, [painting(), painting(seed=1)], np.random.default_rng(seed))
        return [(layer.weight, layer.bias) for layer in convolutions(layers).values()]

    threads(1)
    first = run(3)
    threads(3)
    again = run(3)
    other = run(4)
    for (weight, bias), (weight2, bias2), (weight3, _) in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(weight, weight2)
        np.testing.assert_array_equal(bias, bias2)
        assert not np.array_equal(weight, weight3)


def test_first_filters_are_smooth_patterns_not_noise():
    """Neighbouring weights of a random filter have nothing to do with each other."""

    def roughness(layers):
        weight, _ = layers["conv1_1"].save_param()
        weight -= weight.mean(axis=(1, 2), keepdims=True)
        steps = [np.square(np.diff(weight, axis=axis)).mean() for axis in (1, 2)]
        return np.mean(steps) / np.square(weight).mean()

    pictures = [painting(), painting(seed=1)]
    learnt, random = build(), build()
    learn_filters(learnt, pictures, np.random.default_rng(0))
    random_filters(random, pictures, np.random.default_rng(0))
    assert roughness(learnt) < 0.7 * roughness(random)


def test_random_filters_are_he_normal_up_to_their_scale():
    layers = build()
    random_filters(layers, [painting()], np.random.default_rng(0))
    weight, bias = layers["conv3_1"].save_param()
    assert not bias.any()
    weight = weight / weight.std()
    assert abs(weight.mean()) < 0.05
    assert np.mean(weight**4) == pytest.approx(3, abs=0.3)  # kurtosis of a normal distribution


def test_deep_layers_are_random():
    layers = build()
    learn_filters(layers, [painting()], np.random.default_rng(0))
    assert layers["conv3_1"].bias.all()
    assert not layers["conv4_1"].bias.any()


def test_patches_are_pieces_of_the_pictures():
    first = np.arange(1 * 2 * 3 * 3, dtype=np.float64).reshape(1, 2, 3, 3)
    second = 100 + np.arange(1 * 2 * 3 * 5, dtype=np.float64).reshape(1, 2, 3, 5)
    patches = draw_patches([first, second], 40, np.random.default_rng(0))
    assert patches.shape == (40, 18)
    np.testing.assert_array_equal(patches[:20], np.repeat(first.reshape(1, 18), 20, axis=0))
    places = {tuple(second[0, :, :, x : x + 3].ravel()) for x in range(3)}
    assert {tuple(patch) for patch in patches[20:]} == places  # the last place as well


def test_the_layout_of_weights_is_that_of_the_patches():
    """The layer's output is the product of a patch and the weights."""
    picture = painting(9, 11, dtype=np.float64)
    patches = draw_patches([picture], 500, np.random.default_rng(0))
    weight, bias = filters_from_patches(patches, 6, np.random.default_rng(1))
    layer = ConvolutionalLayer(3, 3, 6, 0, 1)
    layer.load_param(weight, bias)
    outputs = layer.forward(picture)
    expected = picture[0, :, 4:7, 2:5].ravel() @ weight.reshape(27, 6) + bias
    np.testing.assert_allclose(outputs[0, :, 4, 2], expected, rtol=1e-9)
    active = (patches @ weight.reshape(27, 6) + bias > 0).mean(axis=0)
    np.testing.assert_allclose(active, 0.3, atol=0.03)  # 99 places, drawn about 5 times


def test_whitening_removes_correlation_and_evens_out_strength():
    rng = np.random.default_rng(0)
    mixing = np.diag([5.0, 3.0, 1.0, 1e-4]) @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    centred = rng.normal(size=(4_000, 4)) @ mixing
    centred -= centred.mean(axis=0)
    whitening = whitening_matrix(centred)
    assert whitening.shape == (4, 3)  # the direction without variance is left out
    white = centred @ whitening
    covariance = white.T @ white / len(white)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-10)
    # e / (e + 0.1 mean(e)) with e about 1, 9, 25, in rising order
    variance = np.linalg.eigvalsh(centred.T @ centred / len(centred))[1:]
    expected = variance / (variance + 0.1 * variance.mean())
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=1e-9)


def test_whitening_keeps_the_strongest_directions(monkeypatch):
    monkeypatch.setattr(learnt_filters, "DIRECTIONS", 2)
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(1_000, 4)) * [1.0, 4.0, 2.0, 3.0]
    whitening = whitening_matrix(centred)
    assert whitening.shape == (4, 2)
    strength = np.linalg.norm(whitening, axis=1) * [1.0, 4.0, 2.0, 3.0]
    assert np.all(strength[[0, 2]] < 0.2) and np.all(strength[[1, 3]] > 0.8)


def test_kmeans_finds_the_directions_of_clusters():
    rng = np.random.default_rng(0)
    true = np.eye(5)[:3]
    vectors = np.repeat(true, 200, axis=0) * rng.uniform(0.5, 20, (600, 1))
    vectors += rng.normal(0, 0.02, vectors.shape)
    found = spherical_kmeans(vectors, 12, rng)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-9)
    assert np.all((found @ true.T).max(axis=1) > 0.95)  # each is near one
    assert np.all((found @ true.T).max(axis=0) > 0.99)  # and each has one near


def test_each_round_of_kmeans_fits_the_vectors_better(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(600, 4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    fits = []
    for rounds in (0, 1, 2, 8):
        monkeypatch.setattr(learnt_filters, "ROUNDS", rounds)
        found = spherical_kmeans(vectors, 10, np.random.default_rng(1))
        fits.append(np.square((unit @ found.T).max(axis=1)).sum())
    assert np.all(np.diff(fits) > 1)


def test_kmeans_draws_unused_directions_again():
    """Equal starting points: all but one lose their vectors, and must not become nan."""
    vectors = np.ones((8, 2))
    found = spherical_kmeans(vectors, 4, np.random.default_rng(0))
    np.testing.assert_allclose(found, np.sqrt(0.5), rtol=1e-9)
    vectors[0] = 0  # a patch equal to the mean has no direction
    assert np.isfinite(spherical_kmeans(vectors, 8, np.random.default_rng(0))).all()


def test_pictures_of_twelve_pixels_a_side_are_enough():
    """The command refuses smaller ones: `style.plan.least_side`."""
    layers = build()
    learn_filters(layers, [painting(12, 14), painting(50, 12)], np.random.default_rng(0))
    for layer in convolutions(layers).values():
        assert np.isfinite(layer.weight).all()


def test_uniform_pictures_are_refused_but_one_uniform_picture_is_fine():
    plain = np.full((1, 3, 20, 20), 7.0, np.float32)
    with pytest.raises(InputError, match="uniform"):
        learn_filters(build(), [plain, plain], np.random.default_rng(0))
    layers = build()
    learn_filters(layers, [plain, painting()], np.random.default_rng(0))
    for layer in convolutions(layers).values():
        assert np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()


def test_black_pictures_are_refused_by_random_filters():
    black = np.zeros((1, 3, 20, 20), np.float32)
    with pytest.raises(InputError, match="conv1_1"):
        random_filters(build(), [black], np.random.default_rng(0))

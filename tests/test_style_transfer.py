"""Style transfer: the network of the book, the objective, the optimisers, and the sizes.

The command is in `test_style_command.py`, resuming in `test_resume.py`.
"""


from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from helpers.gradients import check_gradient
from helpers.matconvnet_files import IMAGE_MEAN
from helpers.style_pictures import NARROW
from threadpoolctl import threadpool_limits

import style_transfer_cpu as demo
from fast.fused import FusedNetwork
from layers3 import StyleLossLayer
from style.objective import Objective, total_variation
from style.optimizers import PAIRS, TRIALS, adam, dot, lbfgs, newton_direction, with_pair
from style.plan import Position, least_side, plan_scales
from style.settings import Settings
from style_transfer_cpu import VGG19, get_random_img, make_network, stylize
from support.command import InputError
from support.pictures import read_picture

WANTED = demo.CONTENT_LOSS_LAYERS + demo.STYLE_LOSS_LAYERS
CONTENT = dict.fromkeys(demo.CONTENT_LOSS_LAYERS, 1.0)
STYLE = dict.fromkeys(demo.STYLE_LOSS_LAYERS, 1.0)


@pytest.fixture(scope="module")
def vgg(folder):
    network = VGG19(folder / "narrow.mat")
    network.load_model()
    return network


def as_float64(vgg):
    """Return a copy of the network with float64 parameters, for finite differences."""
    wide = VGG19()
    wide.build_model({name: bias.size for name, (_, bias) in NARROW.items()})
    for name in wide.update_layer_list:
        weight, bias = vgg.layers[name].save_param()
        wide.layers[name].load_param(weight.astype(np.float64), bias.astype(np.float64))
        wide.layers[name].freeze()
    return wide


def objective_of(
    network, content, styles, content_weight=1.0, style_weight=40.0, tv_weight=0.0,
    content_layers=CONTENT, style_layers=STYLE, style_blend=None,
):  # fmt: skip
    """Return an `Objective` with these settings."""
    settings = Settings(
        content_weight=content_weight, style_weight=style_weight, tv_weight=tv_weight,
        content_layers=content_layers, style_layers=style_layers, style_blend=style_blend,
    )  # fmt: skip
    return Objective(network, content, styles, settings)


def fused(vgg):
    names = vgg.param_layer_name[: vgg.param_layer_name.index("relu5_1") + 1]
    return FusedNetwork({name: vgg.layers[name] for name in names})


# ---------------------------------------------------------------- the book's interface


def test_the_network_is_the_books(vgg):
    names = vgg.param_layer_name
    assert len(names) == 37
    assert (names[0], names[4], names[-1]) == ("conv1_1", "pool1", "pool5")
    assert list(vgg.layers) == list(names)
    assert demo.CONTENT_LOSS_LAYERS == ["relu4_2"]
    assert demo.STYLE_LOSS_LAYERS == ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
    assert (demo.NOISE, demo.ALPHA, demo.BETA, demo.TRAIN_STEP) == (0.5, 1, 500, 100)
    assert (demo.LEARNING_RATE, demo.IMAGE_HEIGHT, demo.IMAGE_WIDTH) == (1.0, 192, 320)
    assert {"AdamOptimizer", "ContentLossLayer", "StyleLossLayer"} <= set(vars(demo))


def test_load_image_and_save_image_are_inverse(vgg, folder, tmp_path):
    picture = read_picture(folder / "content.png")
    image, shape = vgg.load_image(folder / "content.png", 60, 90)
    assert (image.shape, image.dtype, shape) == ((1, 3, 60, 90), np.float32, (60, 90, 3))
    np.testing.assert_allclose(image[0, 2, 7, 11], picture[7, 11, 2] - IMAGE_MEAN[2], atol=1e-4)
    vgg.save_image(image, shape, tmp_path / "same.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "same.png"), picture)
    image, shape = vgg.load_image(folder / "content.png", 33, 50)
    assert (image.shape, shape) == ((1, 3, 33, 50), (60, 90, 3))
    vgg.save_image(image, shape, tmp_path / "enlarged.png")
    assert read_picture(tmp_path / "enlarged.png").shape == (60, 90, 3)
    vgg.save_image(image + 1000, (33, 50), tmp_path / "bright.png")  # clipped, not wrapped around
    assert read_picture(tmp_path / "bright.png").min() == 255


def test_forward_stops_where_it_is_told_and_backward_comes_back(vgg, folder):
    image, _ = vgg.load_image(folder / "content.png", 40, 60)
    features = vgg.forward(image, ["relu2_1", "conv1_2"])
    assert set(features) == {"relu2_1", "conv1_2"}
    assert features["relu2_1"].shape == (1, 8, 20, 30)
    assert vgg.layers["pool2"].input is None
    assert vgg.backward(features["relu2_1"], "relu2_1").shape == image.shape


def test_backward_by_finite_differences(vgg):
    wide = as_float64(vgg)
    rng = np.random.default_rng(1)
    image = rng.uniform(-100, 100, (1, 3, 6, 7))
    top_diff = rng.standard_normal(wide.forward(image, ["relu2_1"])["relu2_1"].shape)

    def loss(x):
        return float(np.sum(wide.forward(x, ["relu2_1"])["relu2_1"] * top_diff))

    wide.forward(image, ["relu2_1"])
    check_gradient(loss, image, wide.backward(top_diff, "relu2_1"), "image", rtol=1e-5)


def test_get_random_img_mixes_noise_into_the_content():
    content = np.full((1, 3, 50, 40), 100.0, np.float32)
    np.testing.assert_array_equal(get_random_img(content, 0, 1), content)
    noise = get_random_img(content, 1, 1)
    assert noise.dtype == np.float32
    assert -20 <= noise.min() < -19
    assert 19 < noise.max() <= 20
    np.testing.assert_allclose(get_random_img(content, 0.5, 1), 50 + noise / 2, rtol=1e-5)
    assert not np.array_equal(get_random_img(content, 1, 2), noise)


# ---------------------------------------------------------------- the objective


def total(objective, image):
    """Return the whole loss of an image."""
    return sum(objective(image)[0].values())


def images(vgg, folder, dtype=np.float32):
    content, _ = vgg.load_image(folder / "content.png", 40, 60)
    style, _ = vgg.load_image(folder / "style.png", 56, 49)
    made = get_random_img(content, 0.3, 5)
    return content.astype(dtype), style.astype(dtype), made.astype(dtype)


def content_by_hand(vgg, made, content, layers):
    """Return the mean over layers of sum (X - Y)^2 / sum Y^2, weighted by the layers' weights."""
    loss = 0.0
    for name, weight in layers.items():
        x, y = (vgg.forward(image, [name])[name].astype(np.float64) for image in (made, content))
        loss += weight * np.sum((x - y) ** 2) / np.sum(y**2)
    return loss / sum(layers.values())


def style_by_hand(vgg, made, styles, blend, layers):
    """Return the mean over layers of sum (G - A)^2 / sum A^2, both per position, A blended."""

    def gram(image, name):
        features = vgg.forward(image, [name])[name][0].astype(np.float64)
        rows = features.reshape(len(features), -1)  # (C, h, w) -> (C, h * w)
        return rows @ rows.T / rows.shape[1]

    loss = 0.0
    for name, weight in layers.items():
        A = sum(share * gram(style, name) for share, style in zip(blend, styles, strict=True))
        A /= sum(blend)
        loss += weight * np.sum((gram(made, name) - A) ** 2) / np.sum(A**2)
    return loss / sum(layers.values())


def test_one_fused_walk_equals_the_six_walks_of_the_book(vgg, folder):
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style], 2.0, 30.0, 0.0, CONTENT, STYLE)
    losses, gradient = objective(made)
    # the book's way, with its own layers and one backward pass for each loss
    target = vgg.forward(content, ["relu4_2"])["relu4_2"]
    styles = vgg.forward(style, demo.STYLE_LOSS_LAYERS)
    features = vgg.forward(made, WANTED)
    power = np.mean(np.square(target, dtype=np.float64))
    difference = features["relu4_2"] - target
    expected_content = 2.0 * np.mean(np.square(difference, dtype=np.float64)) / power
    layers = demo.ContentLossLayer()
    scale = 2.0 * 2 / power
    expected = scale * vgg.backward(layers.backward(features["relu4_2"], target), "relu4_2")
    expected_style = 0.0
    for name in demo.STYLE_LOSS_LAYERS:
        layer = StyleLossLayer()
        loss = layer.forward(features[name], styles[name])
        positions = features[name].shape[2] * features[name].shape[3]
        power = np.mean(np.square(layer.gram_style / positions))
        scale = 30.0 / 5 * 4 / power
        expected_style += scale * loss
        expected = expected + scale * vgg.backward(
            layer.backward(features[name], styles[name]), name
        )
    assert losses["content"] == pytest.approx(expected_content, rel=1e-4)
    assert losses["style"] == pytest.approx(expected_style, rel=1e-4)
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error < 1e-4


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_the_objectives_gradient_by_finite_differences(vgg, folder, pooling):
    wide = as_float64(vgg)
    if pooling == "average":
        wide.use_average_pooling()
    network = fused(wide)
    content, style, made = images(vgg, folder, np.float64)
    content, made = content[..., :32, :33], made[..., :32, :33]
    styles = [style[..., :33, :34], style[..., 20:52, :40]]
    objective = objective_of(
        network, content, styles, 2.0, 30.0, 0.1,
        {"relu2_1": 1.0, "pool3": 2.0}, {"relu1_1": 3.0, "relu4_1": 1.0, "relu5_1": 0.5}, [2, 1],
    )  # fmt: skip
    gradient = objective(made)[1].copy()
    rng = np.random.default_rng(2)
    for _ in range(5):  # directions, as a picture has too many elements
        direction = rng.standard_normal(made.shape)
        h = 1e-5
        above = total(objective, made + h * direction)
        below = total(objective, made - h * direction)
        assert (above - below) / (2 * h) == pytest.approx(np.sum(gradient * direction), rel=1e-4)


def test_losses_are_relative(vgg, folder):
    content, style, _ = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style], 1.0, 1.0, 0.0)
    assert objective(content)[0]["content"] == pytest.approx(0, abs=1e-6)
    part = style[..., 10:50, :48].repeat(2, axis=3)[..., :60]
    assert objective(part)[0]["style"] < objective(content)[0]["style"]
    same = objective_of(fused(vgg), style, [style], 1.0, 1.0, 0.0)
    assert total(same, style) == pytest.approx(0, abs=1e-6)


def test_several_styles_are_blended_as_gram_matrices(vgg, folder):
    content, style, made = images(vgg, folder)
    second, _ = vgg.load_image(folder / "second.png", 40, 60)
    for blend, expected_blend in (([2, 1], [2, 1]), ([0.2, 0.7], [2, 7]), (None, [1, 1])):
        objective = objective_of(
            fused(vgg), content, [style, second], 1.0, 30.0, 0.0, CONTENT, STYLE, blend
        )
        expected = 30 * style_by_hand(vgg, made, [style, second], expected_blend, STYLE)
        assert objective(made)[0]["style"] == pytest.approx(expected, rel=1e-4), blend


def test_one_style_twice_or_beside_a_share_of_0_is_that_style(vgg, folder):
    content, style, made = images(vgg, folder)
    second, _ = vgg.load_image(folder / "second.png", 40, 60)
    once_losses, once_gradient = objective_of(fused(vgg), content, [style])(made)
    once_gradient = once_gradient.copy()
    for styles, blend in (
        ([style, style], None), ([style, style], [1, 3]),
        ([style, second], [5, 0]), ([second, style], [0, 1]),
    ):  # fmt: skip
        losses, gradient = objective_of(fused(vgg), content, styles, style_blend=blend)(made)
        assert losses == pytest.approx(once_losses, rel=1e-5)
        error = np.linalg.norm(gradient - once_gradient) / np.linalg.norm(once_gradient)
        assert error < 1e-5


def test_a_style_picture_may_be_of_any_size(vgg, folder):
    """A texture repeated to twice its width has the Gram matrix per position that it had."""
    content, style, made = images(vgg, folder)
    style = np.tile(style[..., :32, :32], (1, 1, 2, 2))
    larger = np.tile(style, (1, 1, 1, 2))
    layers = {"relu1_1": 1.0}  # with a border of one pixel, where the padding shows
    losses = [
        objective_of(fused(vgg), content, [x], 1, 1, 0, CONTENT, layers)(made)[0]["style"]
        for x in (style, larger)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_layers_count_by_their_weights(vgg, folder):
    content, style, made = images(vgg, folder)
    content_layers = {"relu1_1": 0.5, "relu3_1": 2.0, "pool2": 1.0}
    style_layers = {"relu2_1": 3.0, "relu4_1": 1.0}

    def objective(factor, content_layers, style_layers):
        return objective_of(
            fused(vgg), content, [style], 2.0, 30.0, 0.0,
            {name: factor * weight for name, weight in content_layers.items()},
            {name: factor * weight for name, weight in style_layers.items()},
        )  # fmt: skip

    losses = objective(1, content_layers, style_layers)(made)[0]
    expected = 2 * content_by_hand(vgg, made, content, content_layers)
    assert losses["content"] == pytest.approx(expected, rel=1e-4)
    expected = 30 * style_by_hand(vgg, made, [style], [1], style_layers)
    assert losses["style"] == pytest.approx(expected, rel=1e-4)
    # only their proportions count
    assert objective(4, content_layers, style_layers)(made)[0] == losses
    # and those of the others change the loss
    style_layers["relu4_1"] = 10.0
    changed = objective(1, content_layers, style_layers)(made)[0]
    expected = 30 * style_by_hand(vgg, made, [style], [1], style_layers)
    assert changed["style"] == pytest.approx(expected, rel=1e-4)
    assert abs(changed["style"] - losses["style"]) > 0.01 * losses["style"]
    assert changed["content"] == losses["content"]


@pytest.mark.parametrize("without", ["content", "style"])
def test_a_weight_of_0_leaves_its_layers_out(vgg, folder, without):
    content, style, made = images(vgg, folder)
    weights = {"content": (0, 30.0), "style": (2.0, 0)}[without]
    layers = {"content": "relu4_2", "style": "relu3_1"}
    network = fused(vgg)
    walks = []

    def forward(image, wanted, *more):
        walks.append(set(wanted))
        return FusedNetwork.forward(network, image, wanted, *more)

    network.forward = forward
    objective = objective_of(
        network, content, [style], *weights, 0.0, {layers["content"]: 1.0}, {layers["style"]: 1.0}
    )
    losses, gradient = objective(made)
    other = {"content": "style", "style": "content"}[without]
    assert losses[without] == losses["tv"] == 0
    assert losses[other] > 0
    assert np.abs(gradient).max() > 0
    assert set().union(*walks) == {layers[other]}


def test_the_smoothness_counts_by_its_weight(vgg, folder):
    content, style, made = images(vgg, folder)
    variation, variation_gradient = total_variation(made)
    rough, rough_gradient = objective_of(fused(vgg), content, [style], 2.0, 30.0, 0.0)(made)
    smooth, gradient = objective_of(fused(vgg), content, [style], 2.0, 30.0, 0.7)(made)
    assert (rough["tv"], smooth["tv"]) == (0, pytest.approx(0.7 * variation))
    expected = rough_gradient + 0.7 * variation_gradient
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_no_number_is_named(vgg, folder):
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style], 2.0, 30.0, 0.0)
    made[0, 1, 20, 30] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match="content nan"):
        objective(made)


def test_total_variation():
    image = np.array([[[[1.0, 2.0], [4.0, 8.0]]]])
    loss, _ = total_variation(image)
    assert loss == (1 + 16 + 9 + 36) / 4
    rng = np.random.default_rng(6)
    image = rng.standard_normal((2, 3, 4, 5))
    gradient = total_variation(image)[1]
    check_gradient(lambda x: total_variation(x)[0], image, gradient, "image")


# ---------------------------------------------------------------- the book's program


def test_the_books_program_and_the_fast_path_agree(vgg, folder):
    """Six backward passes and one: the same loss and the same gradient, at every step.

    `Objective` divides each loss by its value for all-zero features; weights multiplied by these
    values make its loss the book's.
    """
    content, style, _ = images(vgg, folder)
    targets = vgg.forward(content, demo.CONTENT_LOSS_LAYERS)
    styles = vgg.forward(style, demo.STYLE_LOSS_LAYERS)
    content_power = np.mean(np.square(targets["relu4_2"], dtype=np.float64))
    style_power = {}
    for name, features in styles.items():
        rows = features[0].reshape(features.shape[1], -1).astype(np.float64)  # -> (C, h w)
        style_power[name] = np.mean(np.square(rows @ rows.T / rows.shape[1]))
    objective = objective_of(
        fused(vgg), content, [style], float(demo.ALPHA * content_power / 2),
        float(demo.BETA / 5 / 4 * sum(style_power.values())), 0.0, CONTENT,
        {name: float(power) for name, power in style_power.items()},
    )  # fmt: skip
    image, losses = demo.book_style_transfer(vgg, content, style, steps=4, rng=3)
    assert image.shape == content.shape
    assert losses[-1] < losses[0]
    made = get_random_img(content, demo.NOISE, 3)
    optimizer = demo.AdamOptimizer(demo.LEARNING_RATE, made.shape)
    for loss in losses:
        book_loss, book_gradient = demo.book_losses(vgg, made, targets, styles)
        fast_losses, fast_gradient = objective(made)
        assert book_loss == loss
        assert sum(fast_losses.values()) == pytest.approx(book_loss, rel=1e-4)
        error = np.linalg.norm(fast_gradient - book_gradient) / np.linalg.norm(book_gradient)
        assert error < 1e-4
        made = optimizer.update(made, book_gradient)
    np.testing.assert_array_equal(made, image)


def test_the_books_gradient_by_finite_differences(vgg, folder):
    wide = as_float64(vgg)
    content, style, made = images(vgg, folder, np.float64)
    content, made = content[..., :20, :22], made[..., :20, :22]
    targets = wide.forward(content, demo.CONTENT_LOSS_LAYERS)
    styles = wide.forward(style[..., :18, :24], demo.STYLE_LOSS_LAYERS)
    _, gradient = demo.book_losses(wide, made, targets, styles)
    rng = np.random.default_rng(4)
    for _ in range(5):
        direction = rng.standard_normal(made.shape)
        h = 1e-5
        above, below = (
            demo.book_losses(wide, made + sign * h * direction, targets, styles)[0]
            for sign in (1, -1)
        )
        assert (above - below) / (2 * h) == pytest.approx(np.sum(gradient * direction), rel=1e-4)


# ---------------------------------------------------------------- the optimisers


class Recorder:
    """An `emit` that keeps everything it is told, with the state in the form of a checkpoint."""

    def __init__(self):
        self.positions, self.losses = [], []

    def __call__(self, position, losses):
        state = {name: np.array(arrays) for name, arrays in position.optimizer_state.items()}
        self.positions.append(
            position._replace(image=position.image.copy(), optimizer_state=state)
        )
        self.losses.append(sum(losses.values()))


class Counted:
    """An objective that keeps the loss of each evaluation, and can end the run after so many."""

    class Enough(Exception):
        pass

    def __init__(self, objective, most=10**6):
        self.objective, self.most, self.losses = objective, most, []

    def __call__(self, image):
        if len(self.losses) == self.most:
            raise self.Enough
        losses, gradient = self.objective(image)
        self.losses.append(sum(losses.values()))
        return losses, gradient


def optimise(name, *arguments):
    if name == "adam":
        return adam(*arguments, 5.0)
    return lbfgs(*arguments)


def limits(low, high):
    """Return bounds for all pixels, as the optimisers take them."""
    return tuple(np.full((1, 3, 1, 1), value, np.float32) for value in (low, high))


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_the_optimisers_go_downhill_within_the_bounds(vgg, folder, name):
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style])
    mean = vgg.image_mean.reshape(1, 3, 1, 1)
    bounds = (-mean, 255 - mean)
    start = np.clip(made, *bounds)
    kept = start.copy()
    emit = Recorder()
    result = optimise(name, objective, Position(1, 0, start, {}), 12, bounds, emit)
    np.testing.assert_array_equal(start, kept)
    assert [position[:2] for position in emit.positions] == [(1, step) for step in range(1, 13)]
    for position in emit.positions:
        assert position.image.shape == made.shape
        assert (position.image >= bounds[0] - 1e-3).all()
        assert (position.image <= bounds[1] + 1e-3).all()
    np.testing.assert_array_equal(emit.positions[-1].image, result)
    assert total(objective, result) < 0.6 * total(objective, start)
    assert (result.dtype, result.shape) == (np.float32, made.shape)


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_the_optimisers_resume_from_every_step(vgg, folder, name):
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style])
    bounds = limits(-120, 135)
    whole = Recorder()
    result = optimise(name, objective, Position(0, 0, made, {}), 14, bounds, whole)
    assert len(whole.positions) == 14
    for position in whole.positions:
        kept = Recorder()
        kept(position, {})
        emit = Recorder()
        again = optimise(name, objective, position, 14, bounds, emit)
        np.testing.assert_array_equal(again, result)
        assert emit.losses == whole.losses[position.step :]
        # the position is as it was
        np.testing.assert_array_equal(position.image, kept.positions[0].image)
        for key, array in kept.positions[0].optimizer_state.items():
            np.testing.assert_array_equal(position.optimizer_state[key], array)


def test_lbfgs_does_not_depend_on_the_order_in_memory():
    """A checkpoint keeps values, not the order of the axes in memory."""
    rng = np.random.default_rng(6)
    start, target = rng.uniform(-90, 90, (2, 1, 3, 40, 60)).astype(np.float32)

    def channels_last(x):
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def run(image, order):
        def objective(x):
            gradient = (1 + np.abs(target)) * (x - target)
            loss = np.sum(gradient * (x - target), dtype=np.float64) / 2
            return {"loss": float(loss)}, order(gradient)

        return lbfgs(objective, Position(0, 0, image, {}), 6, limits(-120, 135), Recorder())

    expected = run(start, np.ascontiguousarray)
    np.testing.assert_array_equal(run(channels_last(start), np.ascontiguousarray), expected)
    np.testing.assert_array_equal(run(start, channels_last), expected)


def test_adams_step_length_falls_along_a_cosine():
    """A constant gradient makes m^ / sqrt(v^) = 1: each step is as long as the learning rate."""
    emit = Recorder()
    start = Position(0, 0, np.zeros((1, 3, 2, 2), np.float32), {})
    adam(lambda x: ({"loss": 1.0}, np.ones_like(x)), start, 4, limits(-9, 9), emit, 2.0)
    expected = [2.0, 2 * (1 + 0.5**0.5) / 2, 1.0, 2 * (1 - 0.5**0.5) / 2]
    lengths = -np.diff([0.0, *(position.image[0, 2, 1, 0] for position in emit.positions)])
    np.testing.assert_allclose(lengths, expected, rtol=1e-5)


def test_lbfgs_finds_the_minimum_of_a_bowl_within_the_bounds():
    target = np.random.default_rng(3).uniform(-200, 200, (1, 3, 4, 5)).astype(np.float32)
    # elongated: 100 times as steep in red as in blue
    steepness = np.array([10.0, 1.0, 0.1], np.float32).reshape(1, 3, 1, 1)

    def bowl(x):
        far = x - target
        loss = np.sum(steepness * far**2, dtype=np.float64)
        return {"loss": float(loss)}, 2 * steepness * far

    bounds = limits(-100, 150)
    start = Position(0, 0, np.zeros_like(target), {})
    result = lbfgs(bowl, start, 90, bounds, Recorder())
    np.testing.assert_allclose(result, np.clip(target, *bounds), atol=0.05)


@pytest.mark.parametrize(("condition", "evaluations"), [(1, 12), (30, 40), (1000, 140)])
def test_lbfgs_finds_the_minimum_where_pixels_depend_on_each_other(condition, evaluations):
    """At the minimum, a step along the negative gradient moves only pixels out of the bounds."""
    rng = np.random.default_rng(8)
    shape = (1, 3, 8, 10)
    axes = np.linalg.qr(rng.standard_normal((240, 240)))[0]
    matrix = axes * np.geomspace(1, condition, 240) @ axes.T
    target = rng.uniform(-200, 200, 240)

    def bowl(x):
        far = x.ravel() - target
        return {"loss": float(far @ matrix @ far / 2)}, (matrix @ far).reshape(shape)

    bounds = tuple(bound.astype(np.float64) for bound in limits(-100, 120))
    counted = Counted(bowl, evaluations)
    emit = Recorder()
    with pytest.raises(Counted.Enough):
        lbfgs(counted, Position(0, 0, np.zeros(shape), {}), 10**6, bounds, emit)
    image = emit.positions[-1].image
    held = np.isin(image, (-100, 120))
    assert 0.2 < held.mean() < 0.8
    gradient = bowl(image)[1]
    missing = np.clip(image - gradient, *bounds) - image
    assert np.abs(missing).max() < 1e-3 * np.abs(gradient).max()
    assert (emit.losses == np.sort(emit.losses)[::-1]).all()


def test_lbfgs_follows_a_curved_valley():
    """Rosenbrock's function of pairs of pixels, in units of 50 levels: the minimum is at 50."""

    def valley(x):
        a, b = x[..., ::2] / 50, x[..., 1::2] / 50
        gradient = np.empty_like(x)
        gradient[..., ::2] = -2 * (1 - a) - 400 * a * (b - a**2)
        gradient[..., 1::2] = 200 * (b - a**2)
        return {"loss": float(np.sum((1 - a) ** 2 + 100 * (b - a**2) ** 2))}, gradient / 50

    start = np.full((1, 3, 4, 6), -60, np.float32)
    result = lbfgs(valley, Position(0, 0, start, {}), 60, limits(-100, 100), Recorder())
    np.testing.assert_allclose(result, 50, atol=0.01)


def test_newton_direction_is_h_times_g():
    """H as a matrix, by the BFGS update of Nocedal and Wright, equation 6.17."""
    rng = np.random.default_rng(5)
    shape, pairs = (1, 3, 2, 3), []
    for _ in range(4):
        s = rng.standard_normal(shape)
        pairs = with_pair(pairs, s, s * rng.uniform(0.5, 3, shape))
    gradient = rng.standard_normal(shape)
    s, y, _ = (np.ravel(part) for part in pairs[-1])
    H = s @ y / (y @ y) * np.eye(18)
    for pair in pairs:
        s, y, _ = (np.ravel(part) for part in pair)
        V = np.eye(18) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(H @ y, s)
    kept = gradient.copy()
    result = newton_direction(gradient, pairs)
    np.testing.assert_allclose(result.ravel(), H @ gradient.ravel(), rtol=1e-10)
    np.testing.assert_array_equal(gradient, kept)


def test_lbfgs_remembers_the_newest_pairs_of_positive_curvature():
    s = np.ones((1, 3, 2, 2), np.float32)
    pairs = []
    for number in range(1, PAIRS + 4):
        pairs = with_pair(pairs, s, number * s)
    assert [curvature for _, _, curvature in pairs] == [12.0 * n for n in range(4, PAIRS + 4)]
    across = np.array([1, -1], np.float32) * s  # s . y = 0
    for y in (-s, across, 1e-8 * s + across, 0 * s):
        assert with_pair(pairs, s, y) is pairs
    assert with_pair([], 0 * s, s) == []
    assert with_pair([], s, np.float32(1e-30) * s) == []  # y . y is below the least float32


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**-20, 2.0**30])
def test_the_first_step_is_one_level_and_weights_count_by_their_ratios(vgg, folder, factor):
    """A factor that is a power of 2 changes no rounding: the pictures are equal to the bit."""
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style])

    def scaled(image):
        losses, gradient = objective(image)
        return {name: factor * loss for name, loss in losses.items()}, factor * gradient

    emit, emit_scaled = Recorder(), Recorder()
    start = Position(0, 0, np.clip(made, -110, 130), {})
    lbfgs(objective, start, 8, limits(-120, 135), emit)
    lbfgs(scaled, start, 8, limits(-120, 135), emit_scaled)
    assert np.abs(emit.positions[0].image - start.image).mean() == pytest.approx(1, rel=0.05)
    for position, other in zip(emit.positions, emit_scaled.positions, strict=True):
        np.testing.assert_array_equal(position.image, other.image)


def test_lbfgs_halves_a_step_that_is_too_long():
    """The minimum is 1/16 of a level away and the first trial is one level: four halvings."""
    counted = Counted(lambda x: ({"loss": float(np.sum((x - 1 / 16) ** 2))}, 2 * (x - 1 / 16)))
    emit = Recorder()
    start = Position(0, 0, np.zeros((1, 3, 4, 5), np.float32), {})
    lbfgs(counted, start, 1, limits(-5, 5), emit)
    np.testing.assert_array_equal(emit.positions[0].image, 1 / 16)
    assert np.sqrt(np.divide(counted.losses, 60)).tolist() == [x / 16 for x in (1, 15, 7, 3, 1, 0)]


def test_lbfgs_forgets_pairs_that_mislead():
    """These promise a minimum 10^9 times as far away as it is."""
    target = np.random.default_rng(4).uniform(-9, 9, (1, 3, 4, 5)).astype(np.float32)
    bowl = lambda x: ({"loss": float(np.sum((x - target) ** 2))}, 2 * (x - target))  # noqa: E731
    s, y = (np.full((1, *target.shape), value, np.float32) for value in (1e5, 1e-4))
    emit = Recorder()
    start = Position(0, 3, np.zeros_like(target), {"s": s, "y": y})
    result = lbfgs(bowl, start, 30, limits(-100, 100), emit)
    np.testing.assert_allclose(result, target, atol=1e-3)
    assert len(emit.positions[0].optimizer_state["s"]) == 1


def test_lbfgs_ends_where_no_step_reduces_the_loss():
    image = np.ones((1, 3, 4, 5), np.float32)
    flat = lambda x: ({"loss": 1.0}, np.zeros_like(x))  # noqa: E731
    uphill = lambda x: ({"loss": float(np.sum(x))}, -np.ones_like(x))  # noqa: E731
    for objective, evaluations in (flat, 1), (uphill, 1 + TRIALS):
        emit, counted = Recorder(), Counted(objective)
        result = lbfgs(counted, Position(0, 0, image, {}), 9, limits(-5, 5), emit)
        np.testing.assert_array_equal(result, image)
        assert emit.positions == []
        assert len(counted.losses) == evaluations
    held = lbfgs(uphill, Position(0, 0, 5 * image, {}), 9, limits(-5, 5), emit)
    np.testing.assert_array_equal(held, 5 * image)


def test_lbfgs_goes_down_as_fast_as_scipys(vgg, folder):
    """The loss after 60 evaluations, from the same start."""
    content, style, made = images(vgg, folder)
    objective = objective_of(fused(vgg), content, [style])
    low, high = -120, 135
    counted, scipys = Counted(objective, 60), Counted(objective, 60)
    with pytest.raises(Counted.Enough):
        lbfgs(counted, Position(0, 0, made, {}), 60, limits(low, high), Recorder())

    def evaluate(x):
        losses, gradient = scipys(x.reshape(made.shape).astype(np.float32))
        return sum(losses.values()), gradient.astype(np.float64).ravel()

    with pytest.raises(Counted.Enough):
        scipy.optimize.minimize(
            evaluate, made.ravel(), method="L-BFGS-B", jac=True,
            bounds=scipy.optimize.Bounds(low, high), options={"ftol": 0, "gtol": 0},
        )  # fmt: skip
    assert min(counted.losses) < 1.05 * min(scipys.losses)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dot_is_precise_and_does_not_depend_on_the_threads(dtype):
    rng = np.random.default_rng(7)
    a, b = rng.uniform(0, 255, (2, 1, 3, 200, 300)).astype(dtype)
    results = []
    for number in 1, 2:
        with threadpool_limits(number):
            results.append(dot(a, b))
    assert results[0] == results[1]
    expected = np.sum(a.astype(np.float64) * b)
    assert results[0] == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-12)


# ---------------------------------------------------------------- stylize, as from a notebook


SMALL = Settings(
    size=48, steps=6, scales=2, content_layers={"relu2_1": 1.0}, optimizer="adam",
    style_layers={"relu1_1": 1.0, "relu2_1": 1.0}, weights="random",
)  # fmt: skip


@pytest.fixture
def pictures(folder):
    return read_picture(folder / "content.png"), [read_picture(folder / "style.png")]


def test_stylize_tells_of_the_start_and_of_every_step(pictures):
    content, styles = pictures
    kept = content.copy(), styles[0].copy()
    steps = []
    result = stylize(content, styles, SMALL, on_step=steps.append)
    assert (result.shape, result.dtype) == ((32, 48, 3), np.uint8)
    places = [step.position[:2] for step in steps]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2)]
    assert [bool(step.losses) for step in steps] == [False] + 6 * [True]
    assert all(step.picture().shape == result.shape for step in steps)
    np.testing.assert_array_equal(steps[-1].picture(), result)
    np.testing.assert_array_equal(content, kept[0])
    np.testing.assert_array_equal(styles[0], kept[1])


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_stylize_resumes_from_every_step(pictures, optimizer):
    settings = replace(SMALL, optimizer=optimizer)
    steps = []
    result = stylize(*pictures, settings, on_step=steps.append)
    assert len(steps) == 7
    for step in steps:
        again = stylize(*pictures, settings, resume_from=step.position)
        np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("factor", [2.0**-900, 2.0**-100, 2.0**-27, 2.0**60])
def test_the_picture_depends_on_the_ratios_of_the_weights_alone(pictures, optimizer, factor):
    runs = []
    for scale in (1.0, factor):
        settings = replace(
            SMALL, optimizer=optimizer, content_weight=5 * scale, style_weight=400 * scale,
            tv_weight=2e-3 * scale,
        )  # fmt: skip
        steps = []
        result = stylize(*pictures, settings, on_step=steps.append)
        runs.append((result, [sum(step.losses.values()) / scale for step in steps]))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_an_exception_in_on_step_ends_the_run(pictures):
    class Enough(Exception):
        pass

    seen = []

    def on_step(step):
        seen.append(step)
        if len(seen) == 3:
            raise Enough

    with pytest.raises(Enough):
        stylize(*pictures, SMALL, on_step=on_step)
    assert len(seen) == 3


def test_a_network_may_be_made_once_and_used_again(pictures, vgg):
    """The same filters for two styles; those of a file; and those that `stylize` makes itself."""
    content, styles = pictures
    rng = np.random.default_rng(SMALL.seed)
    network = make_network(content, styles, SMALL, rng)
    made = stylize(content, styles, SMALL, network=network, rng=rng)
    np.testing.assert_array_equal(made, stylize(content, styles, SMALL))
    other = stylize(content, [styles[0][::-1]], SMALL, network=network)
    assert not np.array_equal(other, made)
    loaded = stylize(content, styles, replace(SMALL, weights=None), network=vgg)
    by_name = stylize(content, styles, replace(SMALL, weights=str(vgg.param_path)))
    np.testing.assert_array_equal(loaded, by_name)


def test_the_styles_gram_matrices_are_computed_once(pictures, vgg, monkeypatch):
    content, styles = pictures
    settings, shapes = replace(SMALL, weights=str(vgg.param_path)), []
    forward = FusedNetwork.forward

    def counted(network, image, *arguments, **options):
        shapes.append(image.shape[2:])
        return forward(network, image, *arguments, **options)

    monkeypatch.setattr(FusedNetwork, "forward", counted)
    contents = [content, content[::-1].copy()]
    expected = [stylize(each, styles, settings, network=vgg) for each in contents]
    alone = len(shapes)
    shapes.clear()
    grams = {}
    for each, picture in zip(contents, expected, strict=True):
        made = stylize(each, styles, settings, network=vgg, style_grams=grams)
        np.testing.assert_array_equal(made, picture)
    sizes = len(plan_scales(content, styles, settings))
    assert len(grams) == sizes
    assert len(shapes) == alone - sizes * len(styles)
    # recoloured styles differ from content to content
    shapes.clear()
    matched = replace(settings, preserve_color="match")
    for each in contents:
        stylize(each, styles, matched, network=vgg, style_grams=grams)
    assert len(shapes) == alone


def test_stylize_starts_from_a_picture(pictures):
    content, styles = pictures
    settings = replace(SMALL, steps=1, scales=1, learning_rate=1e-3)
    start = np.full((40, 60, 3), (250, 10, 20), np.uint8)
    made = stylize(content, styles, settings, start=start)
    assert np.abs(made.astype(int) - start[0, 0]).max() <= 2


@pytest.mark.parametrize(("change", "said"), [
    ({"style_blend": [1, 2]}, "2 numbers for 1"),
    ({"content_layers": {"relu9_1": 1.0}}, "no layer 'relu9_1'"),
    ({"init": "start.png"}, "`start`"),
    ({"style_layers": {"relu5_1": 1.0}, "size": 20}, "at least 32 pixels"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(pictures, change, said):
    with pytest.raises(ValueError, match=said):
        stylize(*pictures, replace(SMALL, **change))


def test_pictures_are_uint8_of_three_channels(pictures):
    content, styles = pictures
    with pytest.raises(TypeError, match="uint8"):
        stylize(content / 255, styles, SMALL)
    with pytest.raises(ValueError, match="shape"):
        stylize(content, [styles[0][:, :, 0]], SMALL)
    with pytest.raises(ValueError, match="at least one"):
        stylize(content, [], SMALL)


@pytest.mark.parametrize(("change", "said"), [
    ({"size": 0}, "size: expected a whole number"), ({"size": 10.5}, "size"),
    ({"pooling": "min"}, "pooling: expected max or average, got 'min'"),
    ({"content_layers": {"conv1_1": 1.0}}, "content_layers: there is no layer 'conv1_1'"),
    ({"style_layers": {"relu1_1": 0}}, "style_layers: .*greater than 0"),
    ({"noise": 2.0}, "noise"), ({"style_blend": [0, 0]}, "greater than 0"),
    ({"content_weight": 0, "style_weight": 0}, "cannot both be 0"),
])  # fmt: skip
def test_settings_have_their_limits(change, said):
    with pytest.raises(ValueError, match=said):
        Settings(**change)


# ---------------------------------------------------------------- the sizes


def planned(content, styles, **settings):
    """Return the plan for pictures of these (height, width)."""
    settings = {
        "size": 400, "steps": 120, "content_layers": CONTENT, "style_layers": STYLE,
        "weights": "narrow.mat", **settings,
    }  # fmt: skip
    blank = [np.zeros((*size, 3), np.uint8) for size in (content, *styles)]
    return plan_scales(blank[0], blank[1:], Settings(**settings))


def heights_and_widths(plan):
    return [(scale.height, scale.width) for scale in plan]


@pytest.mark.parametrize(("longest", "scales", "expected"), [
    (400, 3, [100, 200, 400]), (400, 1, [400]), (400, None, [200, 400]),
    (800, None, [200, 400, 800]), (380, None, [190, 380]), (379, None, [379]), (50, None, [50]),
])  # fmt: skip
def test_sizes(longest, scales, expected):
    plan = planned((longest, longest), [(longest, longest)], size=800, scales=scales)
    assert [scale.height for scale in plan] == expected


def test_the_plan_goes_from_coarse_to_fine():
    plan = planned((600, 900), [(800, 700), (300, 900)], scales=3)
    assert heights_and_widths(plan) == [(67, 100), (133, 200), (267, 400)]
    assert [scale.style_sizes for scale in plan] == [
        [(100, 88), (33, 100)], [(200, 175), (67, 200)], [(400, 350), (133, 400)],
    ]  # fmt: skip
    assert [scale.steps for scale in plan] == [54, 39, 27]  # as 2 : sqrt(2) : 1
    plan = planned((600, 900), [(800, 700)])
    assert heights_and_widths(plan) == [(133, 200), (267, 400)]
    assert heights_and_widths(planned((60, 90), [(800, 700)])) == [(60, 90)]  # never enlarged


@pytest.mark.parametrize(("count", "scales", "expected"), [
    (7, 3, [3, 2, 2]), (3, 3, [1, 1, 1]), (2, 3, [1, 1]), (1, 3, [1]), (121, 2, [71, 50]),
])  # fmt: skip
def test_the_steps_of_all_scales_sum_up(count, scales, expected):
    plan = planned((600, 900), [(800, 700)], scales=scales, steps=count)
    assert [scale.steps for scale in plan] == expected
    assert heights_and_widths(plan) == [(67, 100), (133, 200), (267, 400)][-len(expected) :]


def test_scales_too_coarse_for_the_layers_are_left_out():
    # relu5_1 lies behind four pools: 32 pixels are two positions
    plan = planned((600, 900), [(800, 700)], scales=6)
    assert heights_and_widths(plan) == [(33, 50), (67, 100), (133, 200), (267, 400)]
    assert [scale.steps for scale in plan] == [47, 33, 23, 17]
    # a narrow style counts as well
    assert heights_and_widths(planned((600, 900), [(800, 700), (100, 900)])) == [(267, 400)]
    # fewer layers allow more
    shallow = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu3_1": 1.0}}
    assert heights_and_widths(planned((600, 900), [(800, 700)], scales=6, **shallow))[0] == (8, 12)


@pytest.mark.parametrize(("layers", "expected"), [
    (["relu1_1"], 8), (["relu3_4", "relu1_2"], 8), (["pool3"], 16), (["relu4_1"], 16),
    (["relu2_1", "relu5_1"], 32), (["pool5"], 64),
])  # fmt: skip
def test_the_least_side(layers, expected):
    for weights in "narrow.mat", "kmeans", "random":  # the last two need patches to learn from
        settings = Settings(
            style_weight=0.0, content_layers=dict.fromkeys(layers, 1.0),
            style_layers={"pool5": 1.0}, weights=weights,
        )  # fmt: skip
        assert least_side(settings) == max(8 if weights == "narrow.mat" else 12, expected)


def test_a_picture_too_small_is_refused_with_the_least_size():
    with pytest.raises(InputError, match=r"at least 32 pixels a side.*content is 90x31.*86x90"):
        planned((31, 90), [(300, 287)])
    with pytest.raises(InputError, match=r"at least 32 .* style 100x22, 100x50"):
        planned((200, 300), [(20, 90), (50, 100)], size=100)
    assert heights_and_widths(planned((32, 90), [(300, 287)])) == [(32, 90)]
    # layers whose losses do not count do not matter
    plan = planned((16, 90), [(300, 287)], style_weight=0)
    assert heights_and_widths(plan) == [(16, 90)]
    with pytest.raises(InputError, match="at least 16 pixels"):
        planned((15, 90), [(300, 287)], style_weight=0)


def test_the_style_is_scaled():
    plan = planned((600, 900), [(800, 700), (300, 900)], style_scale=1.5, scales=2)
    assert heights_and_widths(plan) == [(133, 200), (267, 400)]
    assert [scale.style_sizes for scale in plan] == [
        [(300, 262), (100, 300)], [(600, 525), (200, 600)],
    ]  # fmt: skip

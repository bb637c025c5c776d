"""Style transfer: the network of the book, the objective, the optimisers, and the command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gradients import check_gradient
from matconvnet_files import IMAGE_MEAN, make_weights, write_matconvnet
from PIL import Image

import style_transfer_cpu as demo
from layers3 import StyleLossLayer
from style_transfer_cpu import VGG19, Objective, get_random_img, main
from support.fused import FusedNetwork
from support.pictures import read_picture, write_picture

ROOT = Path(__file__).resolve().parent.parent
NARROW = make_weights(divisor=16, last_layer="pool5")
WANTED = demo.CONTENT_LOSS_LAYERS + demo.STYLE_LOSS_LAYERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with narrow weights, a content and a style picture of different shapes."""
    path = tmp_path_factory.mktemp("style")
    write_matconvnet(path / "narrow.mat", NARROW, last_layer="pool5")
    rng = np.random.default_rng(0)
    for name, (height, width) in {"content": (60, 90), "style": (80, 70), "tiny": (20, 90)}.items():
        y, x = np.mgrid[0:height, 0:width] / 9.0
        waves = [np.sin(x + k * y) + np.cos(k * x - y) for k in rng.uniform(0.3, 2, 3)]
        picture = (127.5 + 60 * np.stack(waves, axis=2)).clip(0, 255).astype(np.uint8)
        write_picture(path / f"{name}.png", picture)
    return path


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


def test_one_fused_walk_equals_the_six_walks_of_the_book(vgg, folder):
    content, style, made = images(vgg, folder)
    objective = Objective(
        fused(vgg), content, style, 2.0, 30.0, 0.0, demo.CONTENT_LOSS_LAYERS, demo.STYLE_LOSS_LAYERS
    )
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


def test_the_objectives_gradient_by_finite_differences(vgg, folder):
    wide = as_float64(vgg)
    content, style, made = images(vgg, folder, np.float64)
    content, style, made = content[..., :32, :32], style[..., :33, :34], made[..., :32, :32]
    objective = Objective(fused(wide), content, style, 2.0, 30.0)
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
    objective = Objective(fused(vgg), content, style, 1.0, 1.0, 0.0)
    assert objective(content)[0]["content"] == pytest.approx(0, abs=1e-6)
    part = style[..., 10:50, :48].repeat(2, axis=3)[..., :60]
    assert objective(part)[0]["style"] < objective(content)[0]["style"]
    same = Objective(fused(vgg), style, style, 1.0, 1.0, 0.0)
    assert total(same, style) == pytest.approx(0, abs=1e-6)


def test_total_variation():
    image = np.array([[[[1.0, 2.0], [4.0, 8.0]]]])
    loss, _ = demo.total_variation(image)
    assert loss == (1 + 16 + 9 + 36) / 4
    rng = np.random.default_rng(6)
    image = rng.standard_normal((2, 3, 4, 5))
    gradient = demo.total_variation(image)[1]
    check_gradient(lambda x: demo.total_variation(x)[0], image, gradient, "image")


# ---------------------------------------------------------------- the optimisers


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_the_optimisers_go_downhill_within_the_bounds(vgg, folder, name):
    content, style, made = images(vgg, folder)
    objective = Objective(fused(vgg), content, style, 1.0, 40.0)
    mean = vgg.image_mean.reshape(1, 3, 1, 1)
    bounds = (-mean, 255 - mean)
    history = []

    def on_step(image, losses):
        assert image.shape == made.shape
        assert (image >= bounds[0] - 1e-3).all()
        assert (image <= bounds[1] + 1e-3).all()
        history.append(sum(losses.values()))

    start = np.clip(made, *bounds)
    kept = start.copy()
    if name == "adam":
        result = demo.adam(objective, start, 12, 5.0, bounds, on_step)
    else:
        result = demo.lbfgs(objective, start, 12, bounds, on_step)
    np.testing.assert_array_equal(start, kept)
    assert len(history) == 12
    assert total(objective, result) < 0.6 * total(objective, start)
    assert (result.dtype, result.shape) == (np.float32, made.shape)


def test_sizes():
    assert demo.fit(np.zeros((600, 900, 3)), 300) == (200, 300)
    assert demo.fit(np.zeros((900, 601, 3)), 300) == (300, 200)
    assert demo.fit(np.zeros((60, 90, 3)), 300) == (60, 90)  # never enlarged
    assert demo.coarse_to_fine(400, 3) == [100, 200, 400]
    assert demo.coarse_to_fine(400, 1) == [400]
    assert demo.coarse_to_fine(400, None) == [100, 200, 400]
    assert demo.coarse_to_fine(320, None) == [160, 320]
    assert demo.coarse_to_fine(50, None) == [50]


# ---------------------------------------------------------------- the command


def command(folder, *options, **kwargs):
    """Run the demo as a user does, in `folder`."""
    return subprocess.run(
        [sys.executable, ROOT / "style_transfer_cpu.py", *map(str, options)],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": ""}, **kwargs,
    )  # fmt: skip


QUICK = ["--content", "content.png", "--style", "style.png", "--weights", "narrow.mat"]


def test_the_command_paints_saves_and_reports(folder, tmp_path):
    result = command(
        folder, *QUICK, "--size", 64, "--steps", 6, "--output", tmp_path / "new" / "made.png",
        "--save-every", 2, "--report", tmp_path / "report.json", "--seed", 3,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "100%" in result.stderr
    assert "style" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "weights: narrow.mat"
    assert any("64x43" in line for line in lines)
    made = read_picture(tmp_path / "new" / "made.png")
    assert made.shape == (43, 64, 3)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    steps = ["made_0002.png", "made_0004.png", "made_0006.png"]
    assert names == sorted(["made.png", *steps])
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["steps"]) == 6
    assert {"content", "style", "seconds"} <= set(report["steps"][0])
    assert report["size"] == [43, 64]
    assert report["weights"] == "narrow.mat"
    assert report["options"]["seed"] == 3
    assert report["peak_memory_bytes"] > 10**7
    assert {"python", "numpy", "scipy"} <= set(report["versions"])


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_same_seed_makes_the_same_picture_with_any_threads(folder, tmp_path, optimizer):
    def make(name, *options):
        path = tmp_path / f"{name}.png"
        arguments = [*QUICK, "--size", "48", "--steps", "4", "--init", "mix", "--output", path]
        assert main([*map(str, arguments), "--optimizer", optimizer, *options]) == 0
        return read_picture(path)

    previous = os.getcwd()
    os.chdir(folder)
    try:
        first = make("first", "--seed", "1", "--threads", "1")
        np.testing.assert_array_equal(make("again", "--seed", "1", "--threads", "3"), first)
        assert not np.array_equal(make("other", "--seed", "2"), first)
    finally:
        os.chdir(previous)


@pytest.mark.parametrize("init", ["content", "noise", "mix"])
def test_where_it_starts(folder, tmp_path, init, monkeypatch):
    monkeypatch.chdir(folder)
    path = tmp_path / "made.png"
    options = [*QUICK, "--size", "90", "--steps", "1", "--optimizer", "adam", "--scales", "1"]
    options += ["--learning-rate", "0.001", "--init", init, "--output", str(path)]
    assert main(options) == 0
    made, content = read_picture(path).astype(float), read_picture("content.png").astype(float)
    mean = np.array(IMAGE_MEAN)
    start = {"content": content, "noise": mean, "mix": (content + mean) / 2}[init]
    assert np.abs(made - start).max() <= {"content": 1, "noise": 21, "mix": 11}[init]


def test_a_small_picture_is_not_enlarged_silently(folder, tmp_path):
    result = command(folder, *QUICK, "--size", 500, "--steps", 1, "--output", tmp_path / "made.png")
    assert result.returncode == 0, result.stderr
    assert "size: 90x60, as content.png is no larger" in result.stdout
    assert read_picture(tmp_path / "made.png").shape == (60, 90, 3)


def test_without_a_weights_file_the_filters_are_learnt(folder, tmp_path):
    result = command(
        folder, "--content", "content.png", "--style", "style.png", "--size", 48, "--steps", 2,
        "--scales", 1, "--output", tmp_path / "made.jpg",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first = result.stdout.splitlines()[0]
    assert "k-means" in first
    assert "--download" in first
    with Image.open(tmp_path / "made.jpg") as made:
        assert (made.format, made.size) == ("JPEG", (48, 32))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--content", "nowhere.png"], "nowhere.png"),
        (["--style", "narrow.mat"], "narrow.mat"),
        (["--output", "made.gif"], ".gif"),
        (["--output", "."], "extension"),
        (["--weights", "nowhere.mat"], r"nowhere\.mat.*534,904,783"),
        (["--weights", "content.png"], "content.png"),
        (["--content", "tiny.png"], "at least 32 pixels"),
        (["--size", "20"], "at least 32 pixels"),
        (["--steps", "0"], "--steps"),
        (["--size", "-3"], "--size"),
        (["--noise", "1.5"], "--noise"),
        (["--seed", "x"], "--seed"),
        (["--style-weight", "nan"], "--style-weight"),
        (["--content-weight", "0", "--style-weight", "0"], "cannot both be 0"),
        (["--threads", "0"], "--threads"),
        (["--report", "content.png/report.json"], "report"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_line(folder, tmp_path, options, said, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    arguments = [*QUICK, "--size", "48", "--steps", "1", "--output", str(tmp_path / "made.png")]
    try:
        status = main([*arguments, *options])
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"style_transfer_cpu\.py: error: ", error)
    assert re.search(said, error), error
    assert sorted(folder.iterdir()) == before
    assert not (tmp_path / "made.png").exists()


def test_a_loss_that_is_no_number_stops_at_once(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    weights = {name: (weight * 1e9, bias) for name, (weight, bias) in NARROW.items()}
    write_matconvnet(tmp_path / "wild.mat", weights, last_layer="pool5")
    options = [*QUICK, "--weights", str(tmp_path / "wild.mat"), "--size", "48", "--steps", "3"]
    for threads in "1", "2":
        assert main([*options, "--threads", threads, "--output", str(tmp_path / "made.png")]) == 2
    assert "at step 1 the loss is no longer a finite number" in capsys.readouterr().err
    assert not (tmp_path / "made.png").exists()


def test_help_has_groups_and_examples(folder):
    result = command(folder, "--help")
    assert result.returncode == 0
    for word in ("pictures:", "look:", "examples:", "--style-weight", "default: "):
        assert word in result.stdout

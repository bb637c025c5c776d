"""VGG-19 against a second implementation of it, and its command."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.filter_files import write_filters
from helpers.matconvnet_files import BLOCKS_16, IMAGE_MEAN, make_weights, write_matconvnet
from PIL import Image

import vgg_cpu
from fast.fused import FusedNetwork
from support import figures, trained_filters
from support.command import InputError
from support.matconvnet import read_matconvnet
from support.pictures import read_picture, write_picture
from support.weights import load_network
from vgg import command
from vgg.costs import layer_costs
from vgg.views import grad_cam
from vgg_cpu import VGG16, VGG19, main

ROOT = Path(__file__).resolve().parent.parent
KINDS = (VGG19, VGG16)
NARROW = make_weights(divisor=16, classes=12)
CONVOLUTIONS = [name for name in NARROW if name.startswith("conv")]

# Column E of table 1 of the paper, and the course book's names.
LAYER_NAMES = (
    "conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1",
    "conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2",
    "conv3_1", "relu3_1", "conv3_2", "relu3_2", "conv3_3", "relu3_3", "conv3_4", "relu3_4", "pool3",
    "conv4_1", "relu4_1", "conv4_2", "relu4_2", "conv4_3", "relu4_3", "conv4_4", "relu4_4", "pool4",
    "conv5_1", "relu5_1", "conv5_2", "relu5_2", "conv5_3", "relu5_3", "conv5_4", "relu5_4", "pool5",
    "flatten", "fc6", "relu6", "fc7", "relu7", "fc8", "softmax",
)  # fmt: skip
OUTPUTS = {
    "conv1_1": 64, "conv1_2": 64,
    "conv2_1": 128, "conv2_2": 128,
    "conv3_1": 256, "conv3_2": 256, "conv3_3": 256, "conv3_4": 256,
    "conv4_1": 512, "conv4_2": 512, "conv4_3": 512, "conv4_4": 512,
    "conv5_1": 512, "conv5_2": 512, "conv5_3": 512, "conv5_4": 512,
    "fc6": 4096, "fc7": 4096, "fc8": 1000,
}  # fmt: skip


@pytest.fixture(scope="module")
def picture():
    """A smooth coloured picture whose shape differs from the network's input."""
    y, x = np.mgrid[0:180, 0:250] / 40.0
    waves = [np.sin(2 * x + y), np.cos(x - 3 * y), np.sin(x * y / 3)]
    return (127.5 + 127.5 * np.stack(waves, axis=2)).astype(np.uint8)  # (180, 250, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, picture):
    """A folder with the picture and a narrow weights file of each generation."""
    path = tmp_path_factory.mktemp("vgg")
    write_picture(path / "waves.png", picture)
    write_picture(path / "flipped.png", np.ascontiguousarray(picture[::-1, ::-1, ::-1]))
    for variant in ("beta16", "beta17+"):
        write_matconvnet(path / f"{variant}.mat", NARROW, variant)
    return path


# --- the second implementation: float64, channels last, the file's own order of axes ---


def convolve(x, weight, bias):
    """Return the 3x3 convolution of x (H, W, Cin), padded by 1, with weight (3, 3, Cin, Cout)."""
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    output = np.tile(bias.astype(np.float64), (height, width, 1))
    for i in range(3):
        for j in range(3):
            output += padded[i : i + height, j : j + width] @ weight[i, j].astype(np.float64)
    return output


def max_pool(x):
    """Return the maxima over 2x2 squares of x (H, W, C)."""
    return np.maximum.reduce([x[i::2, j::2] for i in (0, 1) for j in (0, 1)])


def features(x, weights):
    """Return {name: (H, W, C) array} of all layers up to pool5, from x (H, W, 3)."""
    outputs = {}
    convolutions = [name for name in weights if name.startswith("conv")]
    for name, following in zip(convolutions, [*convolutions[1:], "end"], strict=True):
        outputs[name] = convolve(x, *weights[name])
        x = outputs[name.replace("conv", "relu")] = np.maximum(outputs[name], 0)
        if following[4:5] != name[4]:  # the last of a block
            x = outputs[f"pool{name[4]}"] = max_pool(x)
    return outputs


def probabilities(pool5, weights):
    """Return the probabilities of all classes from pool5's output (7, 7, C)."""
    x = np.maximum(np.einsum("hwi,hwio->o", pool5, weights["fc6"][0]) + weights["fc6"][1], 0)
    x = np.maximum(x @ weights["fc7"][0][0, 0] + weights["fc7"][1], 0)
    x = x @ weights["fc8"][0][0, 0] + weights["fc8"][1]
    return np.exp(x) / np.exp(x).sum()


def assert_close(actual, expected, name):
    """Compare a layer's output (1, C, H, W) with (H, W, C), relative to its largest value."""
    np.testing.assert_allclose(
        actual[0].transpose(1, 2, 0),  # (1, C, H, W) -> (H, W, C)
        expected,
        rtol=0,
        atol=1e-4 * np.abs(expected).max(),
        err_msg=name,
    )


# --- the network ---


def test_the_layers_are_those_of_the_paper():
    vgg = VGG19()
    assert vgg.param_path == "imagenet-vgg-verydeep-19.mat"
    assert vgg.param_layer_name == list(LAYER_NAMES)
    vgg.build_model()
    assert tuple(vgg.layers) == LAYER_NAMES
    assert vgg.update_layer_list == list(OUTPUTS)
    channels = 3
    for name, outputs in OUTPUTS.items():
        layer = vgg.layers[name]
        if name.startswith("conv"):
            geometry = (layer.kernel_size, layer.padding, layer.stride)
            assert (layer.channel_in, layer.channel_out) == (channels, outputs)
            assert geometry == (3, 1, 1)
        else:
            channels = 7 * 7 * 512 if name == "fc6" else channels
            assert (layer.num_input, layer.num_output) == (channels, outputs)
        channels = outputs


def test_vgg16_is_column_d():
    """Three convolutions in each of the last three blocks."""
    fourth = [f"{kind}{block}_4" for block in (3, 4, 5) for kind in ("conv", "relu")]
    expected = [name for name in LAYER_NAMES if name not in fourth]
    assert list(VGG16().param_layer_name) == expected


# Parameters of the layers, as published with the networks by Keras and PyTorch.
PARAMETERS = {
    "conv1_1": 1_792, "conv1_2": 36_928, "conv2_1": 73_856, "conv2_2": 147_584,
    "conv3_1": 295_168, "conv3_2": 590_080, "conv3_3": 590_080, "conv3_4": 590_080,
    "conv4_1": 1_180_160, "conv4_2": 2_359_808, "conv4_3": 2_359_808, "conv4_4": 2_359_808,
    "conv5_1": 2_359_808, "conv5_2": 2_359_808, "conv5_3": 2_359_808, "conv5_4": 2_359_808,
    "fc6": 102_764_544, "fc7": 16_781_312, "fc8": 4_097_000,
}  # fmt: skip


@pytest.mark.parametrize(
    # total parameters and billions of multiplications, as published with PyTorch's models
    ("kind", "parameters", "billions"),
    [(VGG16, 138_357_544, 15.47), (VGG19, 143_667_240, 19.63)],
)
def test_the_costs_of_the_layers_are_the_published_ones(kind, parameters, billions):
    vgg = kind()
    vgg.build_model()
    costs = {cost.name: cost for cost in layer_costs(vgg)}
    assert list(costs) == vgg.param_layer_name
    for name, cost in costs.items():
        assert cost.parameters == PARAMETERS.get(name, 0)
    assert sum(cost.parameters for cost in costs.values()) == parameters
    multiplications = sum(cost.multiplications for cost in costs.values())
    assert abs(multiplications / 1e9 - billions) < 0.01
    assert costs["conv1_1"].multiplications == 27 * 64 * 224 * 224
    assert costs["fc7"].multiplications == 4096 * 4096
    shapes = {"relu1_2": (64, 224, 224), "pool1": (64, 112, 112), "pool3": (256, 28, 28),
              "conv5_1": (512, 14, 14), "pool5": (512, 7, 7), "flatten": (25088,),
              "relu6": (4096,), "softmax": (1000,)}  # fmt: skip
    assert {name: costs[name].output_shape for name in shapes} == shapes


def test_the_costs_are_those_of_the_layers_outputs(folder):
    vgg = load_network(folder / "beta16.mat", KINDS)
    vgg.load_image(folder / "waves.png")
    current = vgg.input_image
    for name, cost in zip(vgg.param_layer_name, layer_costs(vgg), strict=True):
        current = vgg.layers[name].forward(current)
        assert current.shape[1:] == cost.output_shape
        if name in NARROW:
            assert cost.parameters == sum(array.size for array in NARROW[name])


NARROW_16 = make_weights(divisor=16, classes=12, blocks=BLOCKS_16)


@pytest.mark.parametrize("variant", ["beta16", "beta17+"])
def test_a_file_of_vgg16_loads_and_classifies(tmp_path, folder, capsys, variant):
    path = tmp_path / "vgg16.mat"
    write_matconvnet(path, NARROW_16, variant)
    vgg = load_network(path, KINDS)
    assert type(vgg) is VGG16
    again = VGG16(path)
    again.load_model()
    for network in (vgg, again):
        network.load_image(folder / "waves.png")
        expected = features(network.input_image[0].transpose(1, 2, 0).astype(float), NARROW_16)
        by_hand = probabilities(expected["pool5"], NARROW_16)
        np.testing.assert_allclose(network.forward()[0], by_hand, rtol=1e-3, atol=1e-6)
    assert main([str(folder / "waves.png"), "--weights", str(path), "--top", "1"]) == 0
    assert f"  {by_hand.argmax():4d}  " in capsys.readouterr().out
    assert type(load_network(folder / "beta16.mat", KINDS)) is VGG19
    wrong = VGG19(path)
    with pytest.raises(InputError, match="has 'pool3' as layer 17, expected 'conv3_4'"):
        wrong.load_model()


@pytest.mark.parametrize("variant", ["beta16", "beta17+"])
def test_a_narrow_network_agrees_with_the_second_implementation(folder, variant):
    vgg = VGG19(folder / f"{variant}.mat")
    vgg.load_model()
    vgg.load_image(folder / "waves.png")
    image = vgg.input_image.copy()

    expected = features(image[0].transpose(1, 2, 0).astype(np.float64), NARROW)
    current = vgg.input_image
    for name in vgg.param_layer_name[:37]:
        current = vgg.layers[name].forward(current)
        assert current.dtype == np.float32
        assert_close(current, expected[name], name)

    prob = vgg.forward()
    assert prob.shape == (1, 12)
    assert prob.dtype == np.float32
    by_hand = probabilities(expected["pool5"], NARROW)
    assert 0.1 < by_hand.max() < 0.9  # otherwise the comparison below would say little
    np.testing.assert_allclose(prob[0], by_hand, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(vgg.input_image, image)  # not changed


def test_the_full_width_convolutions(tmp_path, folder):
    weights = make_weights(last_layer="pool5")
    path = tmp_path / "convolutions.mat"
    write_matconvnet(path, weights, last_layer="pool5")
    network = read_matconvnet(path, LAYER_NAMES[:37])
    path.unlink()  # 80 MB

    vgg = VGG19()
    vgg.build_model()
    for name, (weight, bias) in network.layers.items():
        vgg.layers[name].load_param(weight, bias)
    vgg.image_mean = network.image_mean
    vgg.load_image(folder / "waves.png")
    expected = features(vgg.input_image[0].transpose(1, 2, 0).astype(np.float64), weights)
    current = vgg.input_image
    for name in vgg.param_layer_name[:37]:
        current = vgg.layers[name].forward(current)
        assert_close(current, expected[name], name)
    assert current.shape == (1, 512, 7, 7)
    assert current.dtype == np.float32


def test_random_weights(folder):
    probs = []
    for _ in range(2):
        vgg = VGG19()
        vgg.build_model({name: bias.size for name, (_, bias) in NARROW.items()})
        vgg.init_model(std="he", rng=3)
        vgg.load_image(folder / "waves.png")
        probs.append(vgg.forward())
    np.testing.assert_array_equal(probs[0], probs[1])
    np.testing.assert_allclose(probs[0].sum(), 1, rtol=1e-5)
    convolutions = [vgg.layers[name].weight for name in ("conv5_3", "conv5_4")]
    assert np.abs(convolutions[0] - convolutions[1]).max() > 0


def test_load_image_prepares_as_the_course_does(folder, picture):
    vgg = VGG19(folder / "beta16.mat")
    np.testing.assert_allclose(vgg.image_mean, (123.68, 116.779, 103.939))  # ImageNet's
    vgg.load_model()
    np.testing.assert_array_equal(vgg.image_mean, IMAGE_MEAN)
    vgg.load_image(str(folder / "waves.png"))
    resized = Image.fromarray(picture).resize((224, 224), Image.Resampling.BILINEAR)
    expected = np.asarray(resized).astype(np.float32) - IMAGE_MEAN
    assert vgg.input_image.shape == (1, 3, 224, 224)
    assert vgg.input_image.dtype == np.float32
    for channel in range(3):  # red, green, blue, in this order
        np.testing.assert_array_equal(vgg.input_image[0, channel], expected[:, :, channel])


def test_picture_is_the_inverse_of_prepare(picture):
    vgg = VGG19()
    image = vgg.prepare(picture)
    assert (image.shape, image.dtype) == ((1, 3, 180, 250), np.float32)
    assert image[0, 2, 7, 11] == np.float32(picture[7, 11, 2]) - np.float32(103.939)
    kept = image.copy()
    for change in np.float32([0, 0.4, -0.4]):  # rounded to the nearest
        np.testing.assert_array_equal(vgg.picture(image + change), picture)
    assert (vgg.picture(image + 300) == 255).all()  # clipped
    assert (vgg.picture(image - 300) == 0).all()
    assert vgg.picture(image).dtype == np.uint8
    np.testing.assert_array_equal(image, kept)


def test_evaluate_prints_and_returns_the_best(folder, capsys):
    vgg = VGG19(folder / "beta17+.mat")
    vgg.load_model()
    vgg.load_image(folder / "waves.png")
    prob = vgg.forward()[0]
    top = vgg.evaluate(top=3)
    order = sorted(range(12), key=lambda i: -prob[i])[:3]
    assert [entry["id"] for entry in top] == order
    assert [entry["probability"] for entry in top] == [float(prob[i]) for i in order]
    assert top[0]["name"] == f"class {order[0]}, also named {order[0]}"
    assert top[0]["wordnet"] == f"n{order[0]:08d}"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == [f"{prob[order[0]]:.4f}", str(order[0]), *top[0]["name"].split()]


def test_a_file_without_class_names(tmp_path, folder, capsys):
    path = tmp_path / "nameless.mat"
    write_matconvnet(path, NARROW, edit=lambda variables: variables["meta"].pop("classes"))
    vgg = VGG19(path)
    vgg.load_model()
    vgg.load_image(folder / "waves.png")
    (best,) = vgg.evaluate(top=1)
    assert best["name"] is best["wordnet"] is None
    assert "class without a name" in capsys.readouterr().out


def test_forward_too_early(folder):
    vgg = VGG19(folder / "beta16.mat")
    with pytest.raises(RuntimeError, match="call load_image first"):
        vgg.forward()
    vgg.load_image(folder / "waves.png")
    with pytest.raises(RuntimeError, match="call build_model and load_model first"):
        vgg.forward()


# --- where a network looks ---


def torch_gradients(torch, vgg, classes):
    """Return what `VGG19.score_gradients` should, and relu5_4's output, by PyTorch's autograd."""
    F = torch.nn.functional
    image = torch.tensor(vgg.input_image.astype(np.float64), requires_grad=True)
    x, seen = image, None
    for name, layer in vgg.layers.items():
        if name.startswith("conv"):
            weight = torch.tensor(layer.weight.astype(np.float64))
            weight = weight.permute(3, 0, 1, 2)  # (C, K, K, Co) -> (Co, C, K, K)
            x = F.conv2d(x, weight, torch.tensor(layer.bias.astype(np.float64)), padding=1)
        elif name.startswith("relu"):
            x = F.relu(x)
        elif name.startswith("pool"):
            seen = x
            x = F.max_pool2d(x, 2)
        elif name == "flatten":
            x = x.permute(0, 2, 3, 1).flatten(1)  # (N, C, H, W) -> (N, H W C)
        elif name.startswith("fc"):
            weight, bias = (torch.tensor(a.astype(np.float64)) for a in (layer.weight, layer.bias))
            x = x @ weight + bias
    scores = x[torch.arange(len(x)), torch.tensor(classes)].sum()
    return *(g.numpy() for g in torch.autograd.grad(scores, [image, seen])), seen.detach().numpy()


@pytest.mark.parametrize("kind", [VGG19, VGG16])
def test_gradients_of_the_scores_and_grad_cam_are_those_of_pytorch(folder, kind):
    torch = pytest.importorskip("torch")
    vgg = kind()
    vgg.build_model({name: max(1, (n or 0) // 8) for name, n in
                     vgg_cpu.layer_table(vgg.blocks).items()})  # fmt: skip
    vgg.init_model("he", rng=5)
    for name in vgg.update_layer_list:  # in float32, rounding decides near ties of max pooling
        layer = vgg.layers[name]
        layer.load_param(*(array.astype(np.float64) for array in layer.save_param()))
        layer.freeze()
    images = []
    for picture in ("waves.png", "flipped.png"):
        vgg.load_image(folder / picture)
        images.append(vgg.input_image)
    vgg.input_image = np.concatenate(images).astype(np.float64)
    vgg.forward()
    pixels, features = vgg.score_gradients([3, 100])
    expected_pixels, expected_features, activations = torch_gradients(torch, vgg, [3, 100])
    assert activations.shape == (2, 64, 14, 14)
    for actual, expected in ((pixels, expected_pixels), (features, expected_features)):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    for n in range(2):
        gradients = expected_features[n]
        weights = [gradients[c].sum() / 14 / 14 for c in range(64)]
        expected = sum(w * a for w, a in zip(weights, activations[n], strict=True)).clip(0)
        assert expected.max() > 0
        cam = grad_cam(vgg.layers["pool5"].input[n], features[n])
        np.testing.assert_allclose(cam, expected, rtol=0, atol=1e-8 * expected.max())


def test_features_end_at_the_deepest_layer(folder):
    vgg = load_network(folder / "beta16.mat", KINDS, last_layer="pool5")
    assert vgg.param_layer_name == list(LAYER_NAMES[:37])
    assert list(vgg.layers) == list(LAYER_NAMES[:37])
    image = np.random.default_rng(0).uniform(-100, 100, (1, 3, 32, 64)).astype(np.float32)
    outputs = vgg.features(image, ["conv2_1", "relu1_1"])
    assert {name: x.shape for name, x in outputs.items()} == {
        "relu1_1": (1, 4, 32, 64), "conv2_1": (1, 8, 16, 32)
    }  # fmt: skip
    expected = features(image[0].transpose(1, 2, 0).astype(np.float64), NARROW)
    for name, output in outputs.items():
        assert_close(output, expected[name], name)
    assert vgg.layers["relu2_1"].input is None  # not reached


# --- the command ---


def run(*arguments, cwd):
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, ROOT / "vgg_cpu.py", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_the_command(folder, tmp_path):
    report = tmp_path / "new" / "report.json"
    options = ["--weights", "beta16.mat", "--top", 4, "--report", report]
    result = run("waves.png", "flipped.png", *options, cwd=folder)
    assert result.stderr == ""
    assert result.returncode == 0
    report = json.loads(report.read_text("utf-8"))
    assert report["weights"] == "beta16.mat"
    assert report["load_seconds"] > 0
    assert report["peak_memory_bytes"] > 1e7
    assert report["versions"]["numpy"] == np.__version__
    assert [entry["image"] for entry in report["pictures"]] == ["waves.png", "flipped.png"]

    vgg = VGG19(folder / "beta16.mat")
    vgg.load_model()
    for entry in report["pictures"]:
        vgg.load_image(folder / entry["image"])
        prob = np.sort(vgg.forward()[0])[::-1][:4]
        np.testing.assert_allclose([c["probability"] for c in entry["top"]], prob, rtol=1e-5)
        assert entry["seconds"] > 0
        for best in entry["top"]:
            line = f"{best['probability']:8.4f}  {best['id']:4d}  {best['name']}"
            assert line in result.stdout.splitlines()
    first, second = ([c["id"] for c in entry["top"]] for entry in report["pictures"])
    assert first != second  # the second picture was classified too


def test_without_weights_the_command_says_what_to_download(folder, tmp_path):
    result = run(folder / "waves.png", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for part in (
        "vgg_cpu.py: error: there is no weights file imagenet-vgg-verydeep-19.mat",
        "534,904,783 bytes",
        "SHA-256 abdb57167f82a2a1fbab1e1c16ad9373411883f262a1a37ee5db2e6fb0044695",
        "`python vgg_cpu.py --download --weights imagenet-vgg-verydeep-19.mat`",
        "https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-19.mat and put it there",
    ):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "there is no picture missing.png"),
        (["beta16.mat"], "beta16.mat is not a picture of a known format"),
        (["waves.png", "--weights", "waves.png"], "waves.png is not a weights file of a known"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    assert main(["--weights", "beta16.mat", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vgg_cpu.py: error: ")
    assert re.search(message, line)


def test_a_report_that_cannot_be_written_is_refused_before_the_work(folder, capsys):
    (folder / "r.json").mkdir()
    for report, said in (("r.json", "is a folder; give the name of a file"),
                         ("r.txt", "use one of .json, .csv")):  # fmt: skip
        path = str(folder / report)
        assert main([str(folder / "waves.png"), "--weights", "missing.mat", "--report", path]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert path in err and said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["waves.png", "beta16.mat", "link.json", "../{}/waves.png"])
def test_the_report_never_replaces_a_picture_or_the_weights(folder, capsys, name):
    link = folder / "link.json"
    if not link.is_symlink():
        link.symlink_to("beta16.mat")
    report = folder / name.format(folder.name)
    before = report.read_bytes()
    arguments = [str(folder / "waves.png"), "--weights", str(folder / "beta16.mat"), "--report"]
    assert main([*arguments, str(report)]) == 2
    assert "would overwrite a file that is read" in capsys.readouterr().err
    assert report.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the file name of at least one picture"),
        (["--edges"], "give the file name of at least one picture"),
        (["--features", "relu1_1"], "give the file name of at least one picture"),
        (["--filters", "--chart"], "give the file name of at least one picture"),
        (["--summary", "vgg11"], "argument --summary: invalid choice: 'vgg11'"),
        (["a.png", "--top", "0"], "argument --top: expected a whole number of at least 1, got '0'"),
        (["a.png", "--top", "many"], "expected a whole number of at least 1, got 'many'"),
    ],
)
def test_wrong_options(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_what_is_downloaded(tmp_path, monkeypatch):
    """The trained filters if the options need no more, else the weights."""
    fetched = []
    monkeypatch.setattr(command, "download_vgg19", fetched.append)
    monkeypatch.setattr(command, "download_trained_filters", lambda: fetched.append("filters"))
    monkeypatch.chdir(tmp_path)
    for options in (["--edges"], ["--features", "relu1_1"]):
        assert main(["--download", *options]) == 0
    assert fetched == ["filters"] * 2
    for options in ([], ["--edges", "--chart"], ["--report", "r.csv"]):
        assert main(["--download", *options]) == 0
    assert fetched[2:] == ["imagenet-vgg-verydeep-19.mat"] * 3


def test_the_weights_are_downloaded_to_the_given_path(tmp_path, monkeypatch, capsys):
    paths = []
    monkeypatch.setattr(command, "download_vgg19", paths.append)
    assert main(["--download", "--weights", str(tmp_path / "w.mat")]) == 0
    assert paths == [tmp_path / "w.mat"]


def test_a_failed_download_and_an_interruption(tmp_path, monkeypatch, capsys):
    def fail(path):
        raise InputError("no mirror answers")

    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "download_vgg19", fail)
    assert main(["--download"]) == 2
    assert capsys.readouterr().err == "vgg_cpu.py: error: no mirror answers\n"
    monkeypatch.setattr(command, "download_vgg19", interrupt)
    assert main(["--download"]) == 130
    assert capsys.readouterr().err == "vgg_cpu.py: interrupted\n"


# --- several pictures, and drawings ---


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    """A folder of its own, with two pictures, a broken one, and links to the weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("waves.png", "flipped.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "broken.jpg").write_bytes((folder / "waves.png").read_bytes()[:500])
    (tmp_path / "w.mat").symlink_to(folder / "beta16.mat")
    return tmp_path


CLASSIFY = ("--weights", "w.mat")


def test_a_folder_and_a_broken_picture(place, capsys):
    (place / "album" / "inside").mkdir(parents=True)
    for name in ("b.png", "A.JPG", ".hidden.png", "inside/c.png", "notes.txt"):
        (place / "album" / name).write_bytes((place / "waves.png").read_bytes())
    options = [*CLASSIFY, "--top", "2", "--report"]
    assert main(["broken.jpg", "album", "missing.png", "flipped.png", *options, "r.json"]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("vgg_cpu.py: error: the picture broken.jpg is damaged or cut short")
    assert second == "vgg_cpu.py: error: there is no picture missing.png"
    assert [line for line in out.splitlines() if line.endswith((".png", ".JPG"))] == [
        "album/A.JPG", "album/b.png", "flipped.png"
    ]  # fmt: skip
    entries = json.loads(Path("r.json").read_text("utf-8"))["pictures"]
    assert [entry["image"] for entry in entries] == [
        "album/A.JPG", "album/b.png", "flipped.png", "broken.jpg", "missing.png"
    ]  # fmt: skip
    assert [len(entry.get("top", "")) for entry in entries] == [2, 2, 2, 0, 0]
    assert entries[4]["error"] == "there is no picture missing.png"
    assert main(["broken.jpg", "album", "missing.png", "flipped.png", *options, "r.csv"]) == 2
    with open("r.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "rank", "id", "name", "wordnet", "probability", "error"]
    expected = [(e["image"], str(rank), best) for e in entries[:3]
                for rank, best in enumerate(e["top"], start=1)]  # fmt: skip
    for row, (image, rank, best) in zip(rows[:6], expected, strict=True):
        assert (row["image"], row["rank"], row["error"]) == (image, rank, "")
        assert (row["id"], row["name"]) == (str(best["id"]), best["name"])
        np.testing.assert_allclose(float(row["probability"]), best["probability"], rtol=1e-5)
    assert [row["image"] for row in rows[6:]] == ["broken.jpg", "missing.png"]
    assert rows[6]["id"] == rows[7]["probability"] == ""
    assert rows[7]["error"] == "there is no picture missing.png"


def test_a_folder_without_pictures_is_refused(place, capsys):
    (place / "empty").mkdir()
    assert main(["empty", *CLASSIFY]) == 2
    assert "the folder empty holds no pictures (.png, .jpg" in capsys.readouterr().err


def test_pictures_are_classified_together_if_memory_allows(place, monkeypatch, capsys):
    network = load_network("w.mat", KINDS)
    each = 12 * 4 * 224 * 224  # the output of conv1_1 is the largest
    for free, size in ((0, 1), (3 * each, 1), (10 * each, 5), (10**15, 8), (None, 8)):
        monkeypatch.setattr(command, "available_bytes", lambda free=free: free)
        assert command.batch_size(network) == size
    together = []
    forward = FusedNetwork.forward
    monkeypatch.setattr(FusedNetwork, "forward", lambda self, images, *args, **options: (
        together.append(len(images)), forward(self, images, *args, **options))[1])  # fmt: skip
    lines = []
    for free in (0, None):
        monkeypatch.setattr(command, "available_bytes", lambda free=free: free)
        assert main(["waves.png", "flipped.png", *CLASSIFY]) == 0
        out = capsys.readouterr().out.splitlines()
        lines.append([line for line in out if "class" in line])
    assert together == [1, 1, 2]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 10


@pytest.mark.parametrize(
    ("name", "parameters"), [("vgg19", "143,667,240"), ("vgg16", "138,357,544")]
)
def test_the_summary_needs_no_weights(tmp_path, monkeypatch, capsys, name, parameters):
    monkeypatch.chdir(tmp_path)
    assert main(["--summary", name]) == 0
    summary = capsys.readouterr().out
    lines = [line.split() for line in summary.splitlines()]
    names = [line[0] for line in lines[1:-2]]
    assert names == (VGG19 if name == "vgg19" else VGG16)().param_layer_name
    assert lines[1] == ["conv1_1", "64x224x224", "1,792", "86,704,128", "13", "MB"]
    assert lines[2] == ["relu1_1", "64x224x224", "13", "MB"]
    assert lines[-2][:2] == ["total", parameters]
    if name == "vgg19":
        assert main(["--summary"]) == 0
        assert capsys.readouterr().out == summary


def test_exported_weights_are_read_in_place_of_the_file(place, capsys):
    assert main(["--export-weights", "w.npz", *CLASSIFY]) == 0
    assert capsys.readouterr().out == "w.npz holds the weights of w.mat\n"
    classes = []
    for weights in ("w.mat", "w.npz"):
        assert main(["waves.png", "--weights", weights]) == 0
        classes.append(capsys.readouterr().out.splitlines()[2:7])
    assert classes[0] == classes[1]
    assert "class " in classes[0][0]
    write_filters("f.h5")
    assert main(["--export-weights", "f.npz", "--weights", "f.h5"]) == 0
    network = load_network("f.npz", KINDS, last_layer="pool5")
    assert type(network) is VGG16


def drawing(path):
    """Return a drawing's pixels; it must exist and not be all one colour."""
    picture = read_picture(path)
    assert picture.std() > 5
    return picture


def test_drawings_of_what_the_filters_see_need_no_classes(place, capsys):
    write_filters("f.h5")
    options = ["--edges", "--filters", "--weights", "f.h5", "--output-dir", "new/drawn"]
    assert main(["waves.png", "broken.jpg", *options, "--features", "relu1_2", "conv5_3"]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1  # named once, though two drawings need it
    names = ["filters", "waves-conv5_3", "waves-edges", "waves-relu1_2"]
    assert sorted(path.name for path in Path("new/drawn").iterdir()) == [f"{n}.png" for n in names]
    for name in names:
        drawing(f"new/drawn/{name}.png")
        assert f"  new/drawn/{name}.png" in out.splitlines()
    assert "class" not in out


def test_the_trained_filters_are_used_if_no_weights_are_here(place, monkeypatch, capsys):
    write_filters("f.h5")
    monkeypatch.setattr(trained_filters, "find_trained_filters", lambda: place / "f.h5")
    assert main(["waves.png", "--features", "relu5_3", "--edges"]) == 0
    assert f"weights {place / 'f.h5'} loaded in" in capsys.readouterr().out
    drawing("output/waves-relu5_3.png")
    # the classifier's own features, where there is one; the edges are the trained filters'
    (place / "imagenet-vgg-verydeep-19.mat").symlink_to("w.mat")
    assert main(["waves.png", "--features", "relu5_4", "--edges", "--top", "1"]) == 0
    drawing("output/waves-relu5_4.png")
    capsys.readouterr()
    monkeypatch.setattr(trained_filters, "find_trained_filters", lambda: None)
    assert main(["waves.png", "--edges"]) == 2
    assert "the trained filters are not here; --download fetches them" in capsys.readouterr().err


def test_without_weights_the_message_names_what_works(place, capsys):
    assert main(["waves.png"]) == 2
    message = capsys.readouterr().err
    assert "there is no weights file imagenet-vgg-verydeep-19.mat" in message
    assert "without it, `python vgg_cpu.py IMAGE --edges` works" in message


def test_a_file_of_convolutions_names_nothing(place, capsys):
    write_filters("f.h5")
    assert main(["waves.png", "--weights", "f.h5"]) == 2
    assert "has only convolutions" in capsys.readouterr().err


def test_a_layer_that_is_not_there(place, capsys):
    for name in ("relu9_9", "fc6", "missing.png"):
        assert main(["waves.png", *CLASSIFY, "--features", "relu1_1", name]) == 2
        message = capsys.readouterr().err
        assert f"no layer '{name}', and no picture; the layers are conv1_1, relu1_1" in message
        assert message.endswith(", pool5\n")
    assert not Path("output").exists()


def test_pictures_may_stand_after_layers_and_classes(place):
    write_filters("f.h5")
    options = ["--weights", "f.h5", "--features", "relu1_2", "pool2", "waves.png", "flipped.png"]
    assert main(options) == 0
    names = [f"{n}-{layer}.png" for n in ("flipped", "waves") for layer in ("pool2", "relu1_2")]
    assert sorted(path.name for path in Path("output").iterdir()) == names
    assert main([*CLASSIFY, "--heatmap", "waves.png"]) == 0
    drawing("output/waves-heatmap.png")


def test_pictures_of_extreme_shapes(place, capsys):
    write_filters("f.h5")
    for name, shape in (("dot", (1, 1)), ("tall", (3000, 2)), ("wide", (40, 4000))):
        write_picture(f"{name}.png", np.full((*shape, 3), 200, np.uint8))
    names = ("dot.png", "tall.png", "wide.png", "waves.png")
    assert main([*names, "--weights", "f.h5", "--edges"]) == 0
    assert main([*names, *CLASSIFY, "--chart", "--heatmap"]) == 0
    capsys.readouterr()
    assert main([*names, "--weights", "f.h5", "--features", "pool5"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"vgg_cpu.py: error: {name}.png is too small or narrow for --features"
        for name in ("dot", "tall", "wide")
    ]
    drawing("output/waves-pool5.png")
    for path in Path("output").iterdir():
        assert max(read_picture(path).shape) < 2500
    assert len(list(Path("output").iterdir())) == 1 + 3 * 4


@pytest.mark.parametrize(
    ("text", "number"), [("", None), ("7", 7), ("also named 11", 11), ("CLASS 3", 3)]
)
def test_heatmaps_show_the_class_that_was_asked_for(place, capsys, monkeypatch, text, number):
    """The gradients are those of the class that is named; by default of the most probable."""
    asked = []
    gradients = VGG19.score_gradients
    monkeypatch.setattr(VGG19, "score_gradients", lambda self, classes: (
        asked.extend(classes), gradients(self, classes))[1])  # fmt: skip
    values = [text] if text else []
    assert main(["waves.png", "flipped.png", *CLASSIFY, "--top", "1", "--heatmap", *values]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = [int(line.split()[1]) for line in lines if ", also named" in line]
    assert asked == ([number] * 2 if text else first)
    assert (drawing("output/waves-heatmap.png") != drawing("output/flipped-heatmap.png")).any()


@pytest.mark.parametrize(("text", "message"), [
    ("12", "there is no class '12', and no picture; give a number from 0 to 11 or a part of a"),
    ("missing.png", "there is no class 'missing.png', and no picture; give a number from 0"),
    ("named 1", r"3 classes fit 'named 1'; give a number: 1 \(class 1, also named 1\), 10 \("),
])  # fmt: skip
def test_classes_that_no_heatmap_can_show(place, capsys, text, message):
    assert main(["waves.png", *CLASSIFY, "--heatmap", text]) == 2
    assert re.search(f"--heatmap: {message}", capsys.readouterr().err)


def test_charts_show_the_probabilities(place, capsys):
    assert main(["waves.png", *CLASSIFY, "--chart", "--top", "1"]) == 0
    network = load_network("w.mat", KINDS)
    network.load_image("waves.png")
    expected = np.sort(network.forward()[0])[::-1][:5]
    chart = drawing("output/waves-chart.png")
    lengths = (chart == figures.BAR).all(axis=2).sum(axis=1)  # blue pixels of each row
    starts = np.flatnonzero((lengths > 0) & (np.roll(lengths, 1) == 0))
    assert len(starts) == 5
    np.testing.assert_allclose(lengths[starts] / figures.CHART, expected, rtol=0, atol=0.005)


def test_nothing_that_is_read_is_overwritten(place, capsys):
    (place / "output").mkdir()
    for name in ("waves.png", "waves-chart.png"):
        (place / "output" / name).write_bytes((place / "waves.png").read_bytes())
    before = (place / "output/waves-chart.png").read_bytes()
    for arguments, message in (
        (["output", "--chart"], "output/waves-chart.png would overwrite a picture that is read"),
        (["waves.png", "--report", "a.csv", "--export-weights", "./a.csv"], "for two outputs"),
        (["waves.png", "--export-weights", "./w.mat"], "w.mat would overwrite a file"),
        (["waves.png", "--export-weights", "w.txt"], "use one of .npz"),
        (["waves.png", "--chart", "--output-dir", "w.mat"], "is not a folder"),
    ):
        assert main([*arguments, *CLASSIFY]) == 2
        out, err = capsys.readouterr()
        assert message in err.replace(str(place), ".") and out == ""
    assert (place / "output/waves-chart.png").read_bytes() == before


def test_drawings_of_equal_names_are_all_kept(place):
    (place / "other").mkdir()
    (place / "other/waves.png").write_bytes((place / "flipped.png").read_bytes())
    assert main(["waves.png", "other/waves.png", *CLASSIFY, "--chart"]) == 0
    first, second = drawing("output/waves.png-chart.png"), drawing("output/waves.png-2-chart.png")
    assert first.shape != second.shape or (first != second).any()


def test_weights_that_are_too_large_end_in_one_line(place, capsys):
    weights = {name: (1e12 * weight, bias) for name, (weight, bias) in NARROW.items()}
    write_matconvnet("large.mat", weights)
    assert main(["waves.png", "--weights", "large.mat"]) == 2
    err = capsys.readouterr().err
    assert err.endswith("the scores are no finite numbers: the weights are too large\n")
    assert len(err.splitlines()) == 1

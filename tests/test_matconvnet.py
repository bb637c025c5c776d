"""The reader of MatConvNet files, on made-up files of both generations."""

import re

import numpy as np
import pytest
from helpers.matconvnet_files import (
    IMAGE_MEAN,
    cell_row,
    layer_structs,
    make_weights,
    write_matconvnet,
)

from support import matconvnet
from support.command import InputError
from support.matconvnet import download_vgg19, read_matconvnet

VARIANTS = ("beta16", "beta17+")

WEIGHTS = make_weights(divisor=32, classes=7)
NAMES = [struct["name"] for struct in layer_structs(WEIGHTS, "beta17+")]  # all 43


def written(tmp_path, variant="beta17+", **options):
    """Write a narrow file and return its path."""
    path = tmp_path / "narrow.mat"
    write_matconvnet(path, options.pop("weights", WEIGHTS), variant, **options)
    return path


def refusal(path, names=NAMES):
    """Return the message with which the file at `path` is refused, after checking its form."""
    with pytest.raises(InputError) as info:
        read_matconvnet(path, names)
    message = str(info.value)
    assert "\n" not in message
    for part in (
        str(path),
        "imagenet-vgg-verydeep-19.mat, 534,904,783 bytes",
        "abdb57167f82a2a1fbab1e1c16ad9373411883f262a1a37ee5db2e6fb0044695",
        f"`python vgg_cpu.py --download --weights {path}`",
        "https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-19.mat",
    ):
        assert part in message
    return message


# --- files that load ---


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_generations_load_alike(tmp_path, variant, compress):
    network = read_matconvnet(written(tmp_path, variant, compress=compress), NAMES)
    np.testing.assert_array_equal(network.image_mean, IMAGE_MEAN)
    assert network.image_mean.dtype == np.float32
    assert network.class_names == [f"class {i}, also named {i}" for i in range(7)]
    assert network.wordnet_ids == [f"n{i:08d}" for i in range(7)]
    assert list(network.layers) == list(WEIGHTS)
    for name, (weight, bias) in network.layers.items():
        original, original_bias = WEIGHTS[name]
        height, width, channel_in, channel_out = original.shape
        assert weight.dtype == bias.dtype == np.float32
        assert weight.flags.c_contiguous
        np.testing.assert_array_equal(bias, original_bias)
        if name.startswith("conv"):
            assert weight.shape == (channel_in, 3, 3, channel_out)
            for h in range(height):  # one by one, so that no axes can be swapped unnoticed
                for w in range(width):
                    np.testing.assert_array_equal(weight[:, h, w], original[h, w])
        else:
            assert weight.shape == (height * width * channel_in, channel_out)
            for h in range(height):
                for w in range(width):
                    start = (h * width + w) * channel_in
                    np.testing.assert_array_equal(
                        weight[start : start + channel_in], original[h, w]
                    )


@pytest.mark.parametrize("last_layer", ["conv5_1", "relu5_1", "pool5"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_part_of_the_layers(tmp_path, last_layer, ends):
    path = written(tmp_path, last_layer=last_layer if ends else "prob")
    names = NAMES[: NAMES.index(last_layer) + 1]
    network = read_matconvnet(path, names)
    assert list(network.layers) == [name for name in names if name.startswith("conv")]
    weight, _ = network.layers["conv5_1"]
    assert weight.shape == (16, 3, 3, 16)


def test_a_part_of_a_file_without_classes(tmp_path):
    path = written(tmp_path, last_layer="pool5", edit=lambda v: v["meta"].pop("classes"))
    network = read_matconvnet(path, NAMES[:37])
    assert network.class_names == network.wordnet_ids == []


def test_a_network_whose_layers_have_one_channel_or_one_class(tmp_path):
    """MATLAB and SciPy leave out axes of length 1."""
    weights = make_weights(divisor=512, classes=1)
    network = read_matconvnet(written(tmp_path, weights=weights), NAMES)
    assert network.class_names == ["class 0, also named 0"]
    assert network.layers["conv1_2"][0].shape == (1, 3, 3, 1)
    assert network.layers["fc8"][0].shape == (8, 1)
    for name, (weight, bias) in network.layers.items():
        original, original_bias = weights[name]
        if name.startswith("conv"):
            original = original.transpose(2, 0, 1, 3)  # (K, K, C, Co) -> (C, K, K, Co)
        np.testing.assert_array_equal(weight, original.reshape(weight.shape))
        np.testing.assert_array_equal(bias, original_bias)


@pytest.mark.parametrize("nesting", ["each", "all", "column"])
def test_class_names_in_nested_cells(tmp_path, nesting):
    names = [f"name {i}" for i in range(7)]

    def nest(variables):
        if nesting == "each":
            cells = cell_row([cell_row([name]) for name in names])
        elif nesting == "all":
            cells = cell_row([cell_row(names)])
        else:
            cells = cell_row(names).reshape(-1, 1)
        variables["meta"]["classes"]["description"] = cells

    assert read_matconvnet(written(tmp_path, edit=nest), NAMES).class_names == names


def test_the_average_image_is_averaged(tmp_path):
    average = np.zeros((224, 224, 3), dtype=np.float32)
    average[:112] = IMAGE_MEAN * 2

    def edit(variables):
        variables["normalization"]["averageImage"] = average

    network = read_matconvnet(written(tmp_path, "beta16", edit=edit), NAMES)
    np.testing.assert_allclose(network.image_mean, IMAGE_MEAN, rtol=1e-6)


def test_double_precision_is_read_as_single(tmp_path):
    doubles = {
        name: (weight.astype(np.float64), bias.astype(np.float64))
        for name, (weight, bias) in WEIGHTS.items()
    }
    network = read_matconvnet(written(tmp_path, weights=doubles), NAMES)
    for weight, bias in network.layers.values():
        assert weight.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(network.layers["fc8"][0], WEIGHTS["fc8"][0].reshape(-1, 7))


# --- files that are refused ---


def test_a_missing_file(tmp_path):
    assert "there is no weights file" in refusal(tmp_path / "missing.mat")


def test_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the weights file .*: it is a folder"):
        read_matconvnet(tmp_path, NAMES)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(tmp_path, variant, share, compress):
    path = written(tmp_path, variant, compress=compress)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refusal(path)
    assert f"({int(share * len(content)):,} bytes)" in message
    assert re.search("cut short|only the beginning|has no '|has no list of layers", message)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is not a MATLAB file"),
        (b"<!DOCTYPE html><html>404 Not Found</html>" * 10, "is not a MATLAB file"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 600, r"format 7\.3 .HDF5."),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), r"format 7\.3 .HDF5."),
        (bytes(600), "is not a MATLAB file"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"garbage" * 50, "damaged or cut short"),
    ],
    ids=["empty", "html", "matlab 7.3", "hdf5", "zeros", "garbage"],
)
def test_a_file_of_another_kind(tmp_path, content, part):
    path = tmp_path / "weights.mat"
    path.write_bytes(content)
    assert re.search(part, refusal(path))


@pytest.mark.parametrize("variant", VARIANTS)
def test_damage_in_the_middle_of_a_compressed_file(tmp_path, variant):
    path = written(tmp_path, variant, compress=True)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\xff" * 16 + content[middle + 16 :])
    assert "damaged or cut short" in refusal(path)


def test_a_file_with_a_variable_twice(tmp_path):
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content + content[128:])  # after the file's header
    assert "it has the variable 'layers' twice" in refusal(path)


def drop(name):
    """Return an edit that leaves out a layer."""

    def edit(variables):
        variables["layers"] = [s for s in variables["layers"] if s["name"] != name]

    return edit


def change(layer, **fields):
    """Return an edit that changes fields of a layer's struct; None deletes one."""

    def edit(variables):
        struct = next(s for s in variables["layers"] if s["name"] == layer)
        for field, value in fields.items():
            if value is None:
                del struct[field]
            else:
                struct[field] = value

    return edit


def pair(name, shape=None, biases=None, value=0.0):
    """Return filters and biases, of the right shapes for layer `name` unless told otherwise."""
    weight = np.full(shape or WEIGHTS[name][0].shape, value, dtype=np.float32)
    return cell_row([weight, np.zeros((biases or weight.shape[-1] or 1, 1), dtype=np.float32)])


def without(name):
    """Return an edit that leaves out a variable."""

    def edit(variables):
        del variables[name]

    return edit


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (drop("conv3_4"), "has 'relu3_4' as layer 17, expected 'conv3_4'"),
        (drop("pool2"), "has 'conv3_1' as layer 10, expected 'pool2'"),
        (drop("prob"), "ends after 42 layers, before 'prob'"),
        (without("layers"), "has no 'layers' in its variables"),
        (without("meta"), "has no 'normalization' in its variables"),
        (lambda v: v["meta"].pop("normalization"), "has no 'normalization' in meta"),
        (lambda v: v["meta"]["normalization"].pop("averageImage"), "no 'averageImage' in normal"),
        (
            lambda v: v["meta"]["normalization"].update(averageImage=np.ones((224, 224))),
            "no average image of three channels",
        ),
        (
            lambda v: v["meta"]["normalization"].update(averageImage=np.full((1, 1, 3), np.nan)),
            "an average image that is not finite",
        ),
        (
            lambda v: v["meta"]["classes"].update(description=cell_row(["one", "two"])),
            "has 2 class names for the 7 outputs of fc8",
        ),
        (
            lambda v: v["meta"]["classes"].update(name=cell_row(["one"] * 8)),
            "has 8 class names for the 7 outputs of fc8",
        ),
        (
            lambda v: v["meta"]["classes"].update(description=cell_row([1.0] * 7)),
            "something else where a name should be",
        ),
        (lambda v: v.update(layers=np.arange(6.0)), "has no list of layers in its variable"),
        (lambda v: v.update(layers=cell_row([{}, 1.0])), "has no 'name' in layer 1"),
        (change("conv2_1", name=None), "has no 'name' in layer 6"),
        (change("conv2_1", weights=None), "has no 'weights' in conv2_1"),
        (change("conv2_1", weights=np.ones(3)), "no pair of filters and biases in layer 'conv2_1'"),
        (
            change("conv1_1", weights=pair("conv1_1", (3, 3, 1, 2))),
            r"filters of shape \(3, 3, 2\) and 2 biases in layer 'conv1_1', expected filters of "
            r"shape \(3, 3, 3, 2\) \(axes of length 1 left out\)",
        ),
        (
            change("conv4_2", weights=pair("conv4_2", (3, 3, 15, 16))),
            r"shape \(3, 3, 15, 16\) and 16 biases in layer 'conv4_2', .*\(3, 3, 16, 16\)",
        ),
        (change("conv4_2", weights=pair("conv4_2", (5, 5, 16, 16))), r"expected .*\(3, 3, 16, 16"),
        (change("conv4_2", weights=pair("conv4_2", (3, 16, 3, 16))), r"expected .*\(3, 3, 16, 16"),
        (change("fc8", weights=pair("fc8", (1, 1, 128, 0))), r"expected filters of shape \(128,\)"),
        (
            change("fc8", weights=cell_row([np.zeros((1, 1, 128, 0)), np.zeros((0, 1))])),
            r"and 0 biases in layer 'fc8', expected",
        ),
        (change("fc6", weights=pair("fc6", (6, 6, 16, 128))), r"expected .*\(7, 7, 16, 128\)"),
        (change("conv4_2", weights=pair("conv4_2", biases=9)), r"and 9 biases .*\(3, 3, 16, 9\)"),
        (
            change("conv5_4", weights=pair("conv5_4", value=np.nan)),
            "not finite numbers in layer 'conv5_4'",
        ),
        (change("fc7", weights=pair("fc7", value=-np.inf)), "not finite numbers in layer 'fc7'"),
        (change("conv1_2", pad=[[0.0]]), "has a pad different from 1 in layer 'conv1_2'"),
        (change("conv1_2", stride=[[2.0, 2.0]]), "a stride different from 1 in layer 'conv1_2'"),
        (change("fc6", pad=[[1.0]]), "has a pad different from 0 in layer 'fc6'"),
    ],
)
def test_a_file_of_the_wrong_form(tmp_path, edit, part):
    path = written(tmp_path, edit=edit)
    assert re.search(part, refusal(path))


@pytest.mark.parametrize("name", ["layers", "normalization"])
def test_a_variable_missing_from_the_older_form(tmp_path, name):
    path = written(tmp_path, "beta16", edit=without(name))
    assert f"has no '{name}' in its variables" in refusal(path)


def test_a_layer_without_filters(tmp_path):
    """One channel, no outputs: with axes of length 1 left out, the shape is as expected."""
    empty = cell_row([np.zeros((1, 1, 1, 0), np.float32), np.zeros((0, 1), np.float32)])
    weights = make_weights(divisor=4096, classes=1)
    path = written(tmp_path, weights=weights, edit=change("fc8", weights=empty))
    assert "has filters of shape (0,) and 0 biases in layer 'fc8'" in refusal(path)


def test_a_file_with_too_few_layers(tmp_path):
    path = written(tmp_path, last_layer="conv5_1")
    assert "ends after 29 layers, before 'relu5_1'" in refusal(path)
    assert "ends after 29 layers, before 'relu5_1'" in refusal(path, NAMES[:37])


def test_the_command_in_the_message_quotes_odd_names(tmp_path):
    path = tmp_path / "my weights.mat"
    with pytest.raises(InputError, match=rf"--weights '{re.escape(str(path))}'`"):
        read_matconvnet(path, NAMES)


def test_the_published_file_is_downloaded(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(matconvnet, "download_verified", lambda *args: calls.append(args))
    download_vgg19(tmp_path / "vgg.mat")
    url = "https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-19.mat"
    sha256 = "abdb57167f82a2a1fbab1e1c16ad9373411883f262a1a37ee5db2e6fb0044695"
    assert calls == [([url], tmp_path / "vgg.mat", sha256, 534_904_783)]


def test_a_file_that_is_already_there_is_not_downloaded_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(matconvnet, "download_verified", lambda *args: calls.append(args))
    monkeypatch.setattr(matconvnet, "FILE_SIZE", 3)
    # the first example of the standard that defines SHA-256
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setattr(matconvnet, "SHA256", abc)
    path = tmp_path / "vgg.mat"
    path.write_bytes(b"abc")
    download_vgg19(path)
    assert not calls
    for content in (b"abd", b"abcd"):
        path.write_bytes(content)
        download_vgg19(path)
    assert len(calls) == 2

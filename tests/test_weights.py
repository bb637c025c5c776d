"""Weights files of every kind: MatConvNet's, .npz of this program, and what is neither."""

import tracemalloc

import numpy as np
import pytest
from helpers.matconvnet_files import BLOCKS_16, IMAGE_MEAN, make_weights, write_matconvnet

import style_transfer_cpu as demo
from support.command import InputError
from support.matconvnet import Network
from support.weights import load_network, read_weights, write_weights
from vgg_cpu import VGG16, VGG19

NARROW_16 = make_weights(divisor=16, last_layer="pool5", blocks=BLOCKS_16)
TABLES = [kind().file_layers() for kind in (demo.VGG19, demo.VGG16)]


def in_our_order(weights):
    return {name: (weight.transpose(2, 0, 1, 3), bias)  # (K, K, C, Co) -> (C, K, K, Co)
            for name, (weight, bias) in weights.items()}  # fmt: skip


@pytest.mark.parametrize("divisor", [16, 32])
@pytest.mark.parametrize("kind", [demo.VGG19, demo.VGG16])
def test_npz_holds_what_the_mat_file_holds(tmp_path, kind, divisor):
    blocks = {} if kind is demo.VGG19 else {"blocks": BLOCKS_16}
    weights = make_weights(divisor, last_layer="pool5", **blocks)
    write_matconvnet(tmp_path / "a.mat", weights, last_layer="pool5")
    first = read_weights(tmp_path / "a.mat", *TABLES)
    write_weights(tmp_path / "a.npz", first)
    second = read_weights(tmp_path / "a.npz", *TABLES)
    np.testing.assert_array_equal(second.image_mean, IMAGE_MEAN)
    assert list(second.layers) == list(first.layers) == list(weights)
    for name, (weight, bias) in in_our_order(weights).items():
        np.testing.assert_array_equal(second.layers[name][0], weight)
        np.testing.assert_array_equal(second.layers[name][1], bias)
    image = np.random.default_rng(0).uniform(-100, 100, (1, 3, 20, 24)).astype(np.float32)
    outputs = []
    for path in (tmp_path / "a.mat", tmp_path / "a.npz"):
        vgg = load_network(path, (demo.VGG19, demo.VGG16))
        assert type(vgg) is kind
        outputs.append(vgg.forward(image, ["relu4_2"])["relu4_2"])
    np.testing.assert_array_equal(*outputs)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The .mat of a narrow VGG-16 with its fully connected layers, and what it holds."""
    path = tmp_path_factory.mktemp("classifier") / "a.mat"
    write_matconvnet(path, make_weights(divisor=16, classes=12, blocks=BLOCKS_16))
    return path, read_weights(path, VGG16().file_layers())


def test_npz_holds_the_classifier_and_the_names_of_its_classes(tmp_path, classifier):
    path, network = classifier
    write_weights(tmp_path / "a.npz", network)
    again = read_weights(tmp_path / "a.npz", VGG19().file_layers(), VGG16().file_layers())
    assert list(again.layers) == list(network.layers)
    for name, arrays in network.layers.items():
        for first, second in zip(arrays, again.layers[name], strict=True):
            np.testing.assert_array_equal(first, second)
            assert second.dtype == np.float32
    assert again.class_names == network.class_names
    assert again.wordnet_ids == network.wordnet_ids
    assert len(again.class_names) == 12
    # without the fully connected layers, for style transfer
    again = read_weights(tmp_path / "a.npz", *TABLES)
    assert list(again.layers) == [name for name in network.layers if name.startswith("conv")]
    assert again.class_names == []


@pytest.mark.parametrize("name", ["plain.mat", "packed.mat", "a.npz"])
def test_the_weights_are_never_in_memory_twice(tmp_path, name):
    """Also fc6, with three quarters of them, while it is put in order and given to its layer."""
    weights = make_weights(divisor=4, classes=12, blocks=BLOCKS_16)
    path = tmp_path / name
    if name == "a.npz":
        write_matconvnet(tmp_path / "a.mat", weights)
        write_weights(path, read_weights(tmp_path / "a.mat", VGG16().file_layers()))
    else:
        write_matconvnet(path, weights, compress=name == "packed.mat")
    size = sum(array.nbytes for pair in weights.values() for array in pair)
    assert size > 30e6
    tracemalloc.start()
    try:
        vgg = load_network(path, [VGG16])
        used, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vgg.layers["fc6"].weight.nbytes > 0.7 * size
    assert size < used < 1.05 * size
    assert peak < 1.4 * size


@pytest.mark.parametrize(("changed", "said"), [
    ({"fc6_weight": np.zeros((48 * 32, 256), np.float32)}, r"has shapes \(1536, 256\) .* for fc6"),
    ({"fc8_bias": np.full(12, np.inf, np.float32)}, "has values in fc8_bias that are not finite"),
    ({"fc7_weight": np.zeros((256, 1), np.float32)}, "has shapes .* for fc7"),
    ({"class_names": np.array(["one", "two"])}, "class_names that are not the 12 names"),
    ({"wordnet_ids": np.arange(12)}, "wordnet_ids that are not the 12 names"),
    ({"fc8_weight": None}, "no arrays conv1_1_weight"),
])  # fmt: skip
def test_a_classifier_that_does_not_fit_is_refused(tmp_path, classifier, changed, said):
    write_weights(tmp_path / "a.npz", classifier[1])
    with np.load(tmp_path / "a.npz") as file:
        arrays = {**dict(file), **changed}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=f"a.npz.*{said}"):
        read_weights(tmp_path / "a.npz", VGG16().file_layers())


@pytest.mark.parametrize(("changed", "said"), [
    ({"conv1_1_weight": np.zeros((3, 3, 3, 5), np.float32)}, "has shapes .* for conv1_1"),
    ({"conv2_1_bias": np.full(8, np.nan, np.float32)}, "conv2_1_bias .* not finite"),
    ({"conv2_1_bias": np.zeros(8, int)}, "no array conv2_1_bias of floating-point"),
    ({"image_mean": np.zeros(4)}, r"image_mean of shape \(4,\)"),
    ({"conv1_9_weight": np.zeros(3)}, "no arrays conv1_1_weight"),
    ({"conv1_1_bias": None}, "no array conv1_1_bias"),
    ({"conv3_2_weight": None}, "no arrays conv1_1_weight"),
    ({"conv3_4_weight": np.zeros(3)}, "no arrays conv1_1_weight"),  # neither VGG-16 nor VGG-19
    ({"image_mean": None}, "no array image_mean"),
])  # fmt: skip
def test_an_npz_that_does_not_fit_is_refused(tmp_path, changed, said):
    write_weights(tmp_path / "a.npz", Network(in_our_order(NARROW_16), IMAGE_MEAN, [], []))
    with np.load(tmp_path / "a.npz") as file:
        arrays = {**dict(file), **changed}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=f"a.npz.*{said}"):
        read_weights(tmp_path / "a.npz", *TABLES)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.json", b'{"a": 1}', "not a weights file of a known kind"),
    ("a.pth", b"PK\x03\x04 archive/data.pkl", "PyTorch"),
    ("a.pth", b"\x80\x02}q\x00.", "not a weights file of a known kind"),
    ("a.h5", b"\x89HDF\r\n\x1a\n and no more", "a.h5"),
    ("a.npz", b"", "not a weights file of a known kind"),
    ("a.mat", b"", "is not a MATLAB file"),
])  # fmt: skip
def test_files_of_other_kinds_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_weights(tmp_path / name, *TABLES)
    if name != "a.mat":  # never an advice to download onto a file of a different kind
        assert "--download" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"no weights file .*nowhere\.mat"):
        read_weights(tmp_path / "nowhere.mat", *TABLES)
    with pytest.raises(InputError, match="cannot read the weights file"):
        read_weights(tmp_path, *TABLES)


@pytest.mark.parametrize("name", ["kmean", "Random", "trainde"])
def test_a_mistyped_kind_gets_a_suggestion(name):
    with pytest.raises(InputError, match=f"there is no file {name}; did you mean"):
        demo.choose_weights(demo.Settings(weights=name))

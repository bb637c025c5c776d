"""mnist_mlp_cpu.py, the IDX files and the synthetic digits."""

import gzip
import inspect
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.gradients import check_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import mnist_mlp_cpu
from mnist.data import (
    MNIST_DIR,
    find_mnist,
    read_idx_images,
    read_idx_labels,
    read_mnist,
    write_idx,
)
from mnist.digits import draw_digits, make_synthetic_mnist
from mnist_mlp_cpu import (
    MNIST_MLP,
    RECIPES,
    main,
    read_parameters,
    shift_pictures,
    training_options,
)
from support.command import InputError

PROGRAM = Path(mnist_mlp_cpu.__file__)
NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def images_bytes(images):
    """Return the bytes of an IDX file of pictures, assembled by hand."""
    return struct.pack(">iiii", 2051, *images.shape) + bytes(images.ravel().tolist())


def labels_bytes(labels):
    return struct.pack(">ii", 2049, len(labels)) + bytes(labels.tolist())


def write_mnist(folder, train, test):
    """Write four IDX files with MNIST's names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(
        NAMES,
        (images_bytes(train[0]), labels_bytes(train[1]), images_bytes(test[0]),
         labels_bytes(test[1])),
        strict=True,
    ):  # fmt: skip
        (folder / name).write_bytes(content)


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory):
    """A folder with MNIST's file names, 1,530 training and 305 test digits."""
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder, draw_digits(1530, 1), draw_digits(305, 2))
    return folder


def small_mlp(mnist_dir, **options):
    mlp = MNIST_MLP(hidden1=8, hidden2=6, seed=0, **options)
    mlp.load_data(mnist_dir)
    mlp.build_model()
    mlp.init_model()
    return mlp


# IDX files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-idx", ".idx"])
def test_both_spellings_plain_and_compressed(tmp_path, dot, ending):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(3, 28, 28), dtype=np.uint8)
    labels = np.array([9, 0, 4], dtype=np.uint8)
    pack = gzip.compress if ending else bytes
    for name in NAMES:
        content = images_bytes(images) if "images" in name else labels_bytes(labels)
        (tmp_path / (name.replace("-idx", dot) + ending)).write_bytes(pack(content))
    for array, expected in zip(read_mnist(tmp_path), (images, labels) * 2, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.uint8


def test_what_is_written_can_be_read(tmp_path):
    images = np.random.default_rng(1).integers(256, size=(2, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "x", images)
    assert (tmp_path / "x").read_bytes() == images_bytes(images)
    np.testing.assert_array_equal(read_idx_images(tmp_path / "x"), images)
    write_idx(tmp_path / "labels", np.array([7], dtype=np.uint8))
    assert (tmp_path / "labels").read_bytes() == b"\0\0\x08\x01\0\0\0\x01\x07"
    with pytest.raises(TypeError, match="uint8"):
        write_idx(tmp_path / "y", images.astype(int))


IMAGES = images_bytes(np.zeros((2, 28, 28), dtype=np.uint8))
LABELS = labels_bytes(np.array([3, 1, 4], dtype=np.uint8))
GZ = gzip.compress(IMAGES)


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (b"", "cut short: it has 0 bytes"),
        (IMAGES[:15], "cut short: it has 15 bytes, its header alone needs more"),
        (IMAGES[:16], "cut short: it has 16 bytes, expected 1584"),
        (IMAGES[:-1], "cut short: it has 1583 bytes, expected 1584"),
        (IMAGES + b"\0", "too long: expected 1584 bytes"),
        (LABELS + bytes(20), r"magic number is 2049 \(that of labels\), expected 2051"),
        (b"<!DOCTYPE html><html>", "magic number is 1008813135, expected 2051"),
        (struct.pack(">4I", 2051, 0, 28, 28), "count of 0"),
        (struct.pack(">4I", 2051, 4_000_000_000, 28, 28), "count of 4000000000"),
        (struct.pack(">4I", 2051, 1, 32, 28) + bytes(896), "32 x 28 pixels, expected 28 x 28"),
        (struct.pack(">4I", 2051, 999_999, 28, 28), "cut short"),  # 784 MB announced
        (GZ[:-9], "damaged or cut off"),
        (GZ[:12], "damaged or cut off"),
        (GZ[:-8] + bytes(8), "damaged or cut off"),  # the checksum at the end
        (GZ[:11] + b"\xff\xff" + GZ[13:], "damaged or cut off"),
        (GZ + b"more", "damaged or cut off"),
        (gzip.compress(IMAGES[:-1]), "cut short: it has 1583 bytes"),
        (gzip.compress(IMAGES + b"\0"), "too long"),
    ],
)
def test_damaged_images(tmp_path, content, defect):
    path = tmp_path / "pictures"
    path.write_bytes(content)
    with pytest.raises(InputError, match=defect) as caught:
        read_idx_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (IMAGES, r"magic number is 2051 \(that of images\), expected 2049"),
        (LABELS[:-1], "cut short: it has 10 bytes, expected 11"),
        (LABELS + b"\1", "too long"),
        (LABELS[:-2] + b"\x0a\xff", "label 1 is 10, expected 0 to 9"),
    ],
)
def test_damaged_labels(tmp_path, content, defect):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(InputError, match=defect) as caught:
        read_idx_labels(path)
    assert str(path) in str(caught.value)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 60), st.booleans())
def test_damaged_bytes_never_crash(tmp_path_factory, junk, at, compress):
    """Any bytes give an array or an InputError."""
    path = tmp_path_factory.getbasetemp() / "junk"
    base = GZ if compress else IMAGES
    path.write_bytes(base[:at] + junk + base[at + len(junk) :])
    try:
        assert read_idx_images(path).shape[1:] == (28, 28)
    except InputError as error:
        assert str(path) in str(error)


def test_missing_and_mismatched_files(tmp_path):
    assert find_mnist(tmp_path) is None
    with pytest.raises(InputError, match="holds no MNIST"):
        read_mnist(tmp_path)
    digits = draw_digits(4, 0)
    write_mnist(tmp_path, digits, (digits[0], digits[1][:3]))
    with pytest.raises(InputError, match=r"t10k-images.* holds 4 images, but .*labels.* 3 labels"):
        read_mnist(tmp_path)
    (tmp_path / NAMES[0]).unlink()
    with pytest.raises(InputError, match=r"part of MNIST: train-images.* is missing; --download"):
        find_mnist(tmp_path)
    with pytest.raises(InputError, match="there is no MNIST file"):
        read_idx_images(tmp_path / NAMES[0])
    with pytest.raises(InputError, match="cannot read"):
        read_idx_images(tmp_path)
    assert find_mnist(tmp_path / ("x" * 300)) is None  # a name no file can have


def test_a_small_compressed_file_does_not_unpack_to_a_gigabyte(tmp_path):
    path = tmp_path / "a.gz"
    header = np.array([2051, 1_000_000, 28, 28], ">i4").tobytes()
    path.write_bytes(gzip.compress(header + bytes(784_000_000 // 10), 1))
    with pytest.raises(InputError, match="is too small to unpack to 784,000,000 bytes"):
        read_idx_images(path)


# Synthetic digits ----------------------------------------------------------------------------


def test_synthetic_digits_depend_on_the_seed_only():
    images, labels = draw_digits(1234, 5)
    again, same = draw_digits(1234, 5)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same)
    assert images.shape == (1234, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    counts = np.bincount(labels, minlength=10)
    assert counts.sum() == 1234
    assert counts.max() - counts.min() <= 1
    assert len(np.unique(images.reshape(1234, -1), axis=0)) == 1234
    assert not np.array_equal(draw_digits(1234, 6)[0], images)


def test_synthetic_digits_are_centred_and_inked_like_mnist():
    images, _ = draw_digits(500, 7)
    ink = images / images.sum(axis=(1, 2), keepdims=True)
    centre_y = (ink.sum(axis=2) * np.arange(28)).sum(axis=1)
    centre_x = (ink.sum(axis=1) * np.arange(28)).sum(axis=1)
    for centre in (centre_y, centre_x):
        assert centre.mean() == pytest.approx(13.5, abs=0.2)
        assert np.abs(centre - 13.5).max() < 3
    assert (images.max(axis=(1, 2)) > 100).all()
    assert images[:, 0].mean() < 3  # no ink at the edge
    assert images.mean() == pytest.approx(33.3, abs=6)  # MNIST's own mean
    assert (images == 0).mean() > 0.6


def test_digits_can_be_recognised_but_vary():
    """The nearest of ten mean pictures gives the right digit for most pictures, but not for all."""
    images, labels = draw_digits(3000, 8)
    rows = images.reshape(3000, -1).astype(np.float64)
    means = np.stack([rows[:2000][labels[:2000] == digit].mean(axis=0) for digit in range(10)])
    distances = ((rows[2000:, None] - means) ** 2).sum(axis=2)  # (N, 1, 784) - (10, 784)
    right = np.mean(distances.argmin(axis=1) == labels[2000:])
    assert 0.75 < right < 0.99


def test_the_synthetic_set_is_drawn_once(tmp_path):
    folder = tmp_path / "new" / "synthetic"
    assert make_synthetic_mnist(folder, 30, 20)
    assert len(list(folder.iterdir())) == 5
    first = read_mnist(folder)
    assert [len(part) for part in first] == [30, 30, 20, 20]
    assert not make_synthetic_mnist(folder, 30, 20)
    (folder / NAMES[1]).write_bytes(b"damaged")
    assert make_synthetic_mnist(folder, 30, 20)
    for old, new in zip(first, read_mnist(folder), strict=True):
        np.testing.assert_array_equal(old, new)
    assert make_synthetic_mnist(folder, 31, 20)  # more training digits, the same test digits
    np.testing.assert_array_equal(read_mnist(folder)[2], first[2])
    (folder / "recipe.json").write_text("{", "utf-8")
    assert make_synthetic_mnist(folder, 30, 20, seed=1)
    assert not np.array_equal(read_mnist(folder)[0], first[0])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        make_synthetic_mnist(tmp_path / "file" / "synthetic", 30, 20)


# The network ---------------------------------------------------------------------------------


def test_the_interface_of_the_lab(mnist_dir):
    parameters = list(inspect.signature(MNIST_MLP).parameters.values())
    assert [(p.name, p.default) for p in parameters[:8]] == [
        ("batch_size", 100), ("input_size", 784), ("hidden1", 32), ("hidden2", 16),
        ("out_classes", 10), ("lr", 0.01), ("max_epoch", 1), ("print_iter", 100),
    ]  # fmt: skip
    mlp = MNIST_MLP()
    images = mlp.load_mnist(mnist_dir / NAMES[2])
    labels = mlp.load_mnist(mnist_dir / NAMES[3], "False")
    assert images.shape == (305, 784)
    assert labels.shape == (305, 1)
    np.testing.assert_array_equal(mlp.load_mnist(mnist_dir / NAMES[3], is_images=False), labels)
    mlp.load_data(mnist_dir)
    assert mlp.data_source == "mnist"
    assert mlp.train_data.shape == (1530, 785)
    np.testing.assert_array_equal(mlp.test_data, np.concatenate([images, labels], axis=1))
    mlp.build_model()
    mlp.init_model()
    assert [layer.weight.shape for layer in mlp.update_layer_list] == [
        (784, 32), (32, 16), (16, 10)
    ]  # fmt: skip
    prob = mlp.forward(mlp.test_data[:7, :-1])
    assert prob.shape == (7, 10)
    assert prob.dtype == np.float32


@pytest.mark.parametrize("standardize", [False, True])
def test_forward_is_the_formula(mnist_dir, standardize):
    mlp = small_mlp(mnist_dir, standardize=standardize)
    (w1, b1), (w2, b2), (w3, b3) = [layer.save_param() for layer in mlp.update_layer_list]
    x = mlp.test_data[:5, :-1].astype(np.float64)
    if standardize:
        x = (x - 33.3) / 78.6
    scores = np.maximum(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for dtype in (np.uint8, np.int64, np.float64):
        prob = mlp.forward(mlp.test_data[:5, :-1].astype(dtype))
        np.testing.assert_allclose(prob, expected, rtol=1e-4)
        assert prob.dtype == np.float32


def test_backward_and_update(mnist_dir):
    """The gradient of the whole network by finite differences, in float64, and one step."""
    mlp = small_mlp(mnist_dir)
    rng = np.random.default_rng(3)
    for layer in mlp.update_layer_list:
        layer.load_param(*(rng.normal(size=p.shape) * 0.3 for p in layer.save_param()))
    x, labels = rng.normal(size=(3, 784)), np.array([1, 9, 4])

    def loss():
        y = x
        for layer in mlp.layers:
            y = layer.forward(y)
        mlp.softmax.forward(y)
        return mlp.softmax.get_loss(labels)

    loss()
    mlp.backward()
    before = [layer.save_param() for layer in mlp.update_layer_list]
    gradients = [(layer.d_weight, layer.d_bias) for layer in mlp.update_layer_list]
    for layer, kept, (_, d_bias) in zip(mlp.update_layer_list, before, gradients, strict=True):

        def loss_of(bias, layer=layer, kept=kept):
            layer.load_param(kept[0], bias)
            return loss()

        check_gradient(loss_of, kept[1], d_bias, "bias")
        layer.load_param(*kept)
    loss()
    mlp.backward()
    mlp.update(0.25)
    for layer, old, change in zip(mlp.update_layer_list, before, gradients, strict=True):
        np.testing.assert_allclose(layer.weight, old[0] - 0.25 * change[0], rtol=1e-12)
        np.testing.assert_allclose(layer.bias, old[1] - 0.25 * change[1], rtol=1e-12)


def test_train_batch(mnist_dir):
    """Forward pass, loss, backward pass and update, in this order."""
    mlp, twin = small_mlp(mnist_dir), small_mlp(mnist_dir)
    images, labels = mlp.train_data[:50, :-1], mlp.train_data[:50, -1]
    kept = images.copy(), labels.copy()
    losses = [mlp.train_batch(images, labels, 0.05) for _ in range(3)]
    for array, old in zip((images, labels), kept, strict=True):
        np.testing.assert_array_equal(array, old)
    for loss in losses:
        prob = twin.forward(images)
        assert loss == pytest.approx(-np.log(prob[np.arange(50), labels]).mean(), rel=1e-5)
        assert loss == twin.softmax.get_loss(labels)
        twin.backward()
        twin.update(0.05)
    for one, other in zip(mlp.update_layer_list, twin.update_layer_list, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.bias, other.bias)
    assert losses[2] < losses[0]


def recorded_batches(mlp):
    """Train; return the (images, labels, lr, loss) of each batch."""
    batches = []
    train_batch = mlp.train_batch

    def record(images, labels, lr):
        batches.append((images, labels, lr, train_batch(images, labels, lr)))
        return batches[-1][3]

    mlp.train_batch = record
    mlp.train()
    return batches


def test_training_uses_every_row_once_per_epoch(mnist_dir):
    mlp = small_mlp(mnist_dir, batch_size=700, max_epoch=2, lr=0.6, lr_schedule="cosine")
    everything = mlp.train_data.copy()
    batches = recorded_batches(mlp)
    assert [len(labels) for _, labels, _, _ in batches] == [700, 700, 130] * 2
    rates = [0.3 * (1 + np.cos(np.pi * i / 6)) for i in range(6)]
    np.testing.assert_allclose([lr for _, _, lr, _ in batches], rates)
    orders = []
    for epoch in (batches[:3], batches[3:]):
        images, labels = (np.concatenate([batch[i] for batch in epoch]) for i in (0, 1))
        orders.append(np.column_stack([images, labels]))
        np.testing.assert_array_equal(
            np.unique(orders[-1], axis=0), np.unique(everything, axis=0)
        )
    assert not np.array_equal(orders[0], everything)
    assert not np.array_equal(orders[0], orders[1])
    losses = np.array([loss for *_, loss in batches]).reshape(2, 3)
    means = [entry["loss"] for entry in mlp.history]
    assert means == pytest.approx(np.average(losses, axis=1, weights=[700, 700, 130]))
    assert [entry["number"] for entry in mlp.history] == [1, 2]
    assert all(entry["seconds"] > 0 for entry in mlp.history)


def test_training_shifts_the_pictures(mnist_dir):
    mlp = small_mlp(mnist_dir, batch_size=2000, max_shift=1)
    ((images, labels, _, _),) = recorded_batches(mlp)
    unmoved = (images == mlp.train_data[:, :-1]).all(axis=1)
    assert unmoved.mean() == pytest.approx(1 / 9, abs=0.04)  # one position in nine
    np.testing.assert_array_equal(labels, mlp.train_data[:, -1])


def test_training_learns_and_repeats(mnist_dir):
    runs = []
    for _ in range(2):
        mlp = small_mlp(
            mnist_dir, batch_size=20, max_epoch=6, lr=0.1, standardize=True, init="he",
            max_shift=1,
        )  # fmt: skip
        assert mlp.evaluate() < 0.3
        mlp.train()
        runs.append(mlp)
    assert runs[0].evaluate() > 0.7
    losses = [[entry["loss"] for entry in mlp.history] for mlp in runs]
    assert losses[0][0] > losses[0][-1]
    assert losses[0] == losses[1]
    for one, other in zip(runs[0].update_layer_list, runs[1].update_layer_list, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)
    constant = small_mlp(mnist_dir, lr=0.1, max_epoch=2)
    assert {lr for _, _, lr, _ in recorded_batches(constant)} == {0.1}
    constant.max_epoch = 0
    constant.train()
    assert constant.history == []


def test_evaluate_counts_the_last_rows(mnist_dir):
    mlp = small_mlp(mnist_dir, batch_size=100)
    prob = mlp.forward(mlp.test_data[:, :-1])
    right = prob.argmax(axis=1) == mlp.test_data[:, -1]
    assert mlp.evaluate() == right.sum() / 305
    mlp.test_data[300:, -1] = prob[300:].argmax(axis=1)
    assert mlp.evaluate() == (right[:300].sum() + 5) / 305
    assert mlp.evaluate(mlp.test_data[300:]) == 1.0


def test_a_learning_rate_that_is_too_high(mnist_dir):
    mlp = small_mlp(mnist_dir, lr=1e6, max_epoch=5)
    with pytest.raises(InputError, match=r"loss became .* learning rate 1e\+06 is too high"):
        mlp.train()


@pytest.mark.skipif(find_mnist(MNIST_DIR) is None, reason="mnist_data/ does not hold MNIST")
def test_accuracy_on_mnist():
    mlp = MNIST_MLP(hidden1=64, hidden2=32, standardize=True, **training_options(max_epoch=1))
    mlp.load_data()
    mlp.build_model()
    mlp.init_model()
    mlp.train()
    assert mlp.test_data.shape == (10_000, 785)
    assert mlp.evaluate() > 0.95


def test_shift_pictures():
    class Draws:
        """Replaces the generator: the rows and columns of the windows, 0 to 2."""

        def integers(self, low, high, size, endpoint):
            assert (low, high, size, endpoint) == (0, 2, (2, 3), True)
            return np.array([[0, 1, 2], [2, 1, 1]])

    pictures = np.random.default_rng(0).integers(1, 256, size=(3, 28, 28), dtype=np.uint8)
    kept = pictures.copy()
    shifted = shift_pictures(pictures.reshape(3, 784), 1, Draws()).reshape(3, 28, 28)
    expected = np.zeros_like(pictures)
    expected[0, 1:, :-1] = pictures[0, :-1, 1:]  # cut from above and from the right: down, left
    expected[1] = pictures[1]
    expected[2, :-1] = pictures[2, 1:]  # up
    np.testing.assert_array_equal(shifted, expected)
    np.testing.assert_array_equal(pictures, kept)

    dots = np.zeros((2000, 784), dtype=np.uint8)
    dots[:, 14 * 28 + 14] = 1
    places = np.unique(shift_pictures(dots, 2, np.random.default_rng(0)).argmax(axis=1))
    assert sorted({p // 28 for p in places.tolist()}) == [12, 13, 14, 15, 16]
    assert len(places) == 25


def test_build_mnist_mlp(mnist_dir, tmp_path, monkeypatch):
    recipe = {**RECIPES["mlp"], "epochs": 2, "hidden": (20, 15)}
    monkeypatch.setitem(RECIPES, "mlp", recipe)
    mlp = mnist_mlp_cpu.build_mnist_mlp(data_dir=mnist_dir)
    assert mlp.test_data.shape == (305, 785)
    assert mlp.batch_size == 100
    mlp.save_model(tmp_path / "p.npz")
    other = mnist_mlp_cpu.build_mnist_mlp(tmp_path / "p.npz", mnist_dir)
    assert other.evaluate() == mlp.evaluate() > 0.4


# Parameter files -----------------------------------------------------------------------------


def test_saved_parameters_take_raw_pixels(mnist_dir, tmp_path):
    path = tmp_path / "folder" / "p.npz"
    mlp = small_mlp(mnist_dir, lr=0.1, standardize=True)
    mlp.train()
    mlp.save_model(path)
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["b1", "b2", "b3", "w1", "w2", "w3"]
        assert {array.dtype for array in archive.values()} == {np.dtype(np.float32)}
        w1, b1 = archive["w1"], archive["b1"]
    first = mlp.update_layer_list[0]
    np.testing.assert_allclose(w1, first.weight / 78.6, rtol=1e-6)
    np.testing.assert_allclose(b1, first.bias - 33.3 / 78.6 * first.weight.sum(axis=0), atol=1e-5)
    pixels = mlp.test_data[:, :-1]
    for standardize in (False, True):
        other = MNIST_MLP(hidden1=8, hidden2=6, standardize=standardize)
        other.build_model()
        other.load_model(path)
        np.testing.assert_allclose(other.forward(pixels), mlp.forward(pixels), atol=1e-4)
    assert list(path.parent.iterdir()) == [path]


def good_parameters():
    return {
        "w1": np.ones((784, 4), np.float32), "b1": np.ones((1, 4), np.float32),
        "w2": np.ones((4, 3), np.float32), "b2": np.ones((1, 3), np.float32),
        "w3": np.ones((3, 10), np.float32), "b3": np.ones((1, 10), np.float32),
    }  # fmt: skip


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickles_are_refused_without_opening_them(tmp_path):
    bomb = Bomb(tmp_path / "went off")
    (tmp_path / "a").write_bytes(pickle.dumps(bomb))
    np.save(tmp_path / "b.npy", np.array([{"w1": bomb}], dtype=object))
    np.savez(tmp_path / "c.npz", **good_parameters() | {"w2": np.array([bomb], dtype=object)})
    for name in ("a", "b.npy", "c.npz"):
        with pytest.raises(InputError, match="pickled") as caught:
            read_parameters(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not bomb.mark.exists()


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"w3": None}, "holds no w3"),
        ({"w2": np.ones((5, 3))}, r"layer 2: expected weight of shape \(4, 3\), got \(5, 3\)"),
        ({"w1": np.ones(784)}, r"layer 1: expected weight of shape \(784, 4\), got \(784,\)"),
        ({"w1": np.ones((784, 5, 2))}, "layer 1: expected weight"),
        ({"w1": np.ones((784, 0)), "b1": np.ones((1, 0))}, "no array w1 of floating-point"),
        ({"b2": np.ones(3)}, r"layer 2: expected bias of shape \(1, 3\), got \(3,\)"),
        ({"b3": np.full((1, 10), np.nan)}, "has values in b3 that are not finite"),
        ({"w1": np.ones((784, 4), dtype=int)}, "no array w1 of floating-point numbers"),
        ({"w1": np.ones((784, 4), dtype="U3")}, "no array w1 of floating-point numbers"),
    ],
)
@pytest.mark.parametrize("hidden", [None, (4, 3)])
def test_parameters_that_are_not_a_network(tmp_path, change, defect, hidden):
    path = tmp_path / "p.npz"
    arrays = good_parameters() | change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=defect) as caught:
        mnist_mlp_cpu.make_network(path, hidden=hidden)
    assert str(path) in str(caught.value)


def test_files_without_parameters(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, **good_parameters())
    read_parameters(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[300] ^= 1  # a number of w1: the archive's checksum notices
    for content, defect in (
        (b"", "no whole .npz"),
        (b"just some text", "no whole .npz file"),
        (whole[:-30], "no whole .npz"),
        (whole[:900], "no whole .npz"),
        (bytes(damaged), "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=defect):
            read_parameters(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    for name, defect in (
        ("one.npy", "no whole"), ("absent", "there is no file of par"), (".", "cannot read"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=defect):
            read_parameters(tmp_path / name)


def test_parameters_of_a_different_network(tmp_path):
    np.savez(tmp_path / "p.npz", **good_parameters())
    mlp = MNIST_MLP(hidden1=4, hidden2=5)
    mlp.build_model()
    with pytest.raises(
        InputError, match=r"different network: layer 2: expected .* \(4, 5\), got \(4, 3\)"
    ):
        mlp.load_model(tmp_path / "p.npz")


# The command ---------------------------------------------------------------------------------


def run_program(*options):
    return subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )


def test_the_command_trains_saves_reports_and_loads(mnist_dir, tmp_path):
    saved, report = tmp_path / "out" / "p.npz", tmp_path / "out" / "r.json"
    done = run_program(
        "--data-dir", mnist_dir, "--hidden", 24, 16, "--epochs", 4, "--batch-size", 32,
        "--seed", 3, "--save", saved, "--report", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1,530 training and 305 test digits" in done.stdout
    assert done.stdout.count("epoch ") == 4
    assert "batch/s" in done.stderr
    assert "epoch 4/4: 100%" in done.stderr
    assert "batch/s, loss " in done.stderr  # so far in the epoch, at the 100th batch
    content = json.loads(report.read_text("utf-8"))
    assert content["data_source"] == "mnist"
    assert content["hyper_parameters"]["hidden"] == [24, 16]
    assert content["hyper_parameters"]["lr"] == 0.2
    assert content["hyper_parameters"]["seed"] == 3
    history = content["history"]
    assert [entry["number"] for entry in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["test_accuracy"] == content["test_accuracy"]
    assert content["test_accuracy"] > 0.8
    assert content["train_accuracy"] > 0.8
    assert f"accuracy {content['test_accuracy']:.2%} on the test digits" in done.stdout
    assert content["library_versions"]["numpy"] == np.__version__
    assert sorted(saved.parent.iterdir()) == [saved, report]

    again = run_program("--data-dir", mnist_dir, "--load", saved)
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""  # no training, no progress bar
    assert f"accuracy {content['test_accuracy']:.2%} on the test digits" in again.stdout


@pytest.fixture
def no_mnist(tmp_path, monkeypatch):
    """No folder that is looked into when none is named holds MNIST."""
    monkeypatch.setattr("mnist.data.MNIST_DIR", tmp_path / "data")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")


def test_the_command_without_mnist(no_mnist, tmp_path, capsys):
    report = tmp_path / "r.json"
    assert main(["--hidden", "32", "16", "--epochs", "2", "--report", str(report)]) == 0
    announced = [line for line in capsys.readouterr().out.splitlines() if "SYNTHETIC" in line]
    assert len(announced) == 1
    assert "--download" in announced[0]
    assert "12,000 training and 2,000 test" in announced[0]
    content = json.loads(report.read_text("utf-8"))
    assert content["data_source"] == "synthetic"
    assert content["data_dir"] == str(tmp_path / "data" / "synthetic")
    assert content["test_accuracy"] > 0.85
    assert len(read_mnist(tmp_path / "data" / "synthetic")[0]) == 12_000
    assert find_mnist(tmp_path / "data") is None  # never mistaken for MNIST


def test_synthetic_digits_only_where_no_folder_was_named(no_mnist, mnist_dir, tmp_path, capsys):
    mistyped = tmp_path / "mnist_dtaa"
    with pytest.raises(InputError) as caught:
        MNIST_MLP().load_data(mistyped)
    for name in ("mnist_dtaa", *NAMES, "MNIST/raw"):
        assert name in str(caught.value)
    assert main(["--data-dir", str(mistyped)]) == 2
    assert "mnist_dtaa holds no MNIST" in capsys.readouterr().err
    assert not mistyped.exists()
    with pytest.raises(InputError, match="holds no MNIST"):
        MNIST_MLP().load_data("")  # an unset variable of a script, say: the current folder
    mlp = MNIST_MLP()
    shutil.copytree(mnist_dir, "../mnist_data")  # the book's folder
    mlp.load_data()
    assert mlp.data_source == "mnist"
    assert "MNIST from ../mnist_data: 1,530 training" in capsys.readouterr().out
    shutil.rmtree("../mnist_data")
    mlp.load_data()
    assert mlp.data_source == "synthetic"
    assert "SYNTHETIC" in capsys.readouterr().out
    assert len(mlp.train_data) == 12_000


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"emnist-digits-{name.replace('t10k', 'test')}",
        lambda name: f"kmnist_{name.replace('-idx', '.idx')}",
    ],
)
def test_other_places_and_names(mnist_dir, tmp_path, place, rename):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copy(mnist_dir / name, tmp_path / place / rename(name))
    (tmp_path / place / "my-notes.txt").write_text("train-images")
    for array, expected in zip(read_mnist(tmp_path), read_mnist(mnist_dir), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_several_sets_in_one_folder(mnist_dir, tmp_path):
    for prefix in ("emnist-digits-", "emnist-mnist-"):
        for name in NAMES:
            shutil.copy(mnist_dir / name, tmp_path / f"{prefix}{name}")
    with pytest.raises(InputError, match="several sets of digits: emnist-digits-, emnist-mnist-"):
        find_mnist(tmp_path)
    for name in NAMES:
        shutil.copy(mnist_dir / name, tmp_path / name)
    assert {path.name for path in find_mnist(tmp_path).values()} == set(NAMES)
    (tmp_path / NAMES[1]).unlink()  # not mended from another set
    with pytest.raises(InputError, match="only a part of MNIST: train-labels"):
        find_mnist(tmp_path)


def test_called_too_early_and_the_books_attributes(mnist_dir):
    mlp = MNIST_MLP()
    for call in (
        mlp.init_model,
        lambda: mlp.forward(np.zeros((1, 784))),
        mlp.backward,
        lambda: mlp.update(0.1),
        lambda: mlp.load_model("p.npz"),
        lambda: mlp.save_model("p.npz"),
    ):
        with pytest.raises(RuntimeError, match="call build_model first"):
            call()
    mlp.build_model()
    assert [mlp.fc1, mlp.relu1, mlp.fc2, mlp.relu2, mlp.fc3] == mlp.layers
    assert mlp.update_layer_list == [mlp.fc1, mlp.fc2, mlp.fc3]
    for call in (mlp.train, mlp.evaluate, mlp.shuffle_data):
        with pytest.raises(RuntimeError, match="call load_data first"):
            call()
    mlp.load_data(mnist_dir)
    for call in (mlp.train, mlp.evaluate, lambda: mlp.save_model("p.npz")):
        with pytest.raises(RuntimeError, match="call init_param or load_param first"):
            call()
    mlp.init_model()
    with pytest.raises(RuntimeError, match="forward pass"):
        mlp.backward()
    with pytest.raises(RuntimeError, match="backward pass"):
        mlp.update(0.1)


@pytest.mark.parametrize("threads", [1, 2])
def test_training_limits_the_threads_of_blas(mnist_dir, threads, monkeypatch):
    mlp = small_mlp(mnist_dir, threads=threads)
    seen = set()

    def look(self, input, original=MNIST_MLP.forward):
        seen.update(library["num_threads"] for library in threadpool_info()
                    if library["user_api"] == "blas")  # fmt: skip
        return original(self, input)

    monkeypatch.setattr(MNIST_MLP, "forward", look)
    mlp.train()
    mlp.evaluate()
    assert seen == {threads}


def test_the_command_resumes_training(mnist_dir, tmp_path, capsys):
    saved = tmp_path / "p.npz"
    common = ["--data-dir", str(mnist_dir), "--epochs", "2", "--batch-size", "20"]
    assert main([*common, "--hidden", "16", "12", "--save", str(saved)]) == 0
    first = capsys.readouterr().out
    assert main([*common, "--load", str(saved), "--lr", "0.05", "--save", str(saved)]) == 0
    second = capsys.readouterr().out
    losses = [float(text.split("loss ")[-1].split()[0]) for text in (first, second)]
    assert losses[1] < 0.9 * losses[0]
    assert 0.1 < losses[1]
    assert read_parameters(saved)["w1"].shape == (784, 16)


def test_the_errors_of_the_command(mnist_dir, tmp_path, capsys, monkeypatch):
    def must_not_train(self):
        raise AssertionError("the training began")

    monkeypatch.setattr(MNIST_MLP, "train", must_not_train)
    (tmp_path / "file").write_text("text")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / NAMES[0]).write_bytes(IMAGES)
    np.savez(tmp_path / "p.npz", **good_parameters())
    inside_file = str(tmp_path / "file" / "x")
    monkeypatch.chdir(tmp_path)
    data = ["--data-dir", str(mnist_dir)]
    for options, words in (
        ([*data, "--save", inside_file], "cannot write"),
        ([*data, "--report", inside_file], "cannot write"),
        ([*data, "--save", str(tmp_path)], "is a folder"),
        ([*data, "--load", str(tmp_path / "file")], "is no whole .npz file"),
        ([*data, "--load", str(tmp_path / "absent.npz")], "there is no file of parameters"),
        ([*data, "--load", str(tmp_path / "p.npz"), "--hidden", "4", "9"], "different network"),
        (["--data-dir", str(tmp_path / "part")], "only a part of MNIST"),
        ([*data, "--report", f"{mnist_dir}/../{mnist_dir.name}/{NAMES[0]}"], "would overwrite"),
        (["--hidden", "3"], "--hidden needs 2 for --model mlp, got 1"),
        (["--hidden", "3", "4", "--model", "cnn"], "--hidden needs 1 for --model cnn, got 2"),
        ([*data, "--batch-norm"], "--batch-norm needs --model cnn"),
        ([*data, "--load", str(tmp_path / "p.npz"), "--model", "cnn"], "different network"),
        ([*data, "--figures", inside_file], "cannot write"),
        ([*data, "--save", "p.npz", "--report", str(tmp_path / "p.npz")], "two outputs"),
        ([*data, "--load", "p.npz", "--report", str(tmp_path / "p.npz")], "would overwrite"),
        (["--data-dir", inside_file], "holds no MNIST"),
        (["--data-dir", str(tmp_path / ("x" * 300))], "holds no MNIST"),
    ):
        assert main(options) == 2, options
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("mnist_mlp_cpu.py: error: ")
        assert words in captured.err
    for options, words in (
        (["--epochs", "-1"], "of at least 0"),
        (["--batch-size", "0"], "of at least 1"),
        (["--hidden", "3", "0"], "of at least 1"),
        (["--lr", "nan"], "greater than 0"),
        (["--lr", "fast"], "expected a finite number greater than 0"),
    ):
        assert main(options) == 2
        assert words in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "p.npz", "part"]


def test_the_command_interrupted(mnist_dir, tmp_path, capsys, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(MNIST_MLP, "train", interrupt)
    assert main(["--data-dir", str(mnist_dir), "--save", str(tmp_path / "p.npz")]) == 130
    captured = capsys.readouterr()
    assert captured.err == "mnist_mlp_cpu.py: interrupted\n"
    assert "the first epoch is not finished: no parameters are kept\n" in captured.out
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in ("data-dir", "download", "hidden", "epochs", "batch-size", "lr", "seed", "save",
                   "load", "report", "threads"):  # fmt: skip
        assert f"--{option}" in text
    assert "examples:" in text

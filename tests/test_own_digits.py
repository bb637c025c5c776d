"""Digits of one's own: `find_digit`, and the command that reads photographs."""

import json

import numpy as np
import pytest
from helpers.paper import SCENES, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import mnist_mlp_cpu
from mnist.data import MNIST_DIR, MNIST_FILES, find_mnist, read_mnist, write_idx
from mnist.digits import draw_digits
from mnist.own_digits import find_digit
from mnist_mlp_cpu import MNIST_MLP, main
from support.command import InputError
from support.pictures import read_picture, write_picture


def write_drawn(folder, train, test):
    """Write drawn digits under MNIST's names."""
    for part, count, seed in (("train", train, 1), ("test", test, 2)):
        images, labels = draw_digits(count, seed)
        write_idx(folder / MNIST_FILES[f"{part}_images"], images)
        write_idx(folder / MNIST_FILES[f"{part}_labels"], labels)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with 6,000 drawn training digits and the network kept by a default run."""
    folder = tmp_path_factory.mktemp("data")
    write_drawn(folder, 6000, 300)
    assert main(["--data-dir", str(folder)]) == 0
    return folder


def network(data_dir):
    mlp = mnist_mlp_cpu.make_network(data_dir / "trained_mlp.npz")
    return lambda digits: mlp.forward(np.reshape(digits, (-1, 784))).argmax(axis=1)


def sheet(digit, scene="inverted", seed=0):
    return photograph(digit, scene, np.random.default_rng(seed))


@pytest.mark.parametrize("scene", SCENES)
def test_photographs_are_read_as_the_digits_they_show(data_dir, scene):
    images = read_mnist(data_dir)[2][:100]
    read, rng = network(data_dir), np.random.default_rng(0)
    found = [find_digit(photograph(image, scene, rng)) for image in images]
    # drawn digits do not all fill MNIST's box, so some are enlarged
    assert np.mean(read(found) == read(images)) >= 0.95


@pytest.mark.skipif(find_mnist(MNIST_DIR) is None, reason="mnist_data/ does not hold MNIST")
@pytest.mark.parametrize("scene", SCENES)
def test_photographs_of_mnist(scene):
    path = MNIST_DIR / "trained_mlp.npz"
    if not path.exists():
        pytest.skip("no network was kept: run mnist_mlp_cpu.py first")
    images = read_mnist(MNIST_DIR)[2][:100]
    read, rng = network(MNIST_DIR), np.random.default_rng(0)
    found = [find_digit(photograph(image, scene, rng)) for image in images]
    assert np.mean(read(found) == read(images)) >= 0.97


def test_found_digits_are_in_mnists_form():
    rng = np.random.default_rng(4)
    for image in draw_digits(20, 3)[0]:
        picture = photograph(image, "shifted", rng)
        kept = picture.copy()
        found = find_digit(picture)
        np.testing.assert_array_equal(picture, kept)
        assert found.shape == (28, 28)
        assert found.dtype == np.uint8
        assert ndimage.center_of_mass(found) == pytest.approx((14, 14), abs=0.15)
        rows, columns = np.nonzero(found > 60)
        assert 19 <= 1 + max(np.ptp(rows), np.ptp(columns)) <= 22
        assert found.max() > 230
        difference = find_digit(255 - picture).astype(int) - found
        assert np.abs(difference).max() <= 1  # dark on light or light on dark


def test_thin_lines_are_thickened():
    """A ring of 2 pixels, 200 wide, would be 0.2 pixels thick in the box."""
    y, x = np.mgrid[-150:150, -150:150]
    thin, thick = (
        find_digit(np.stack([np.where(abs(np.hypot(x, y) - 100) < w, 40, 200)] * 3, 2).astype("u1"))
        for w in (1, 10)
    )
    assert int(thin.sum()) == pytest.approx(int(thick.sum()), rel=0.3)
    assert thin.max() > 200


def test_what_is_not_the_digit_is_left_out():
    digit = draw_digits(1, 5)[0][0]
    picture = sheet(np.pad(digit, 8)[4:32, 4:32])
    plain = find_digit(picture)
    side = len(picture)
    littered = picture.copy()
    littered[side // 20 : side // 14, side // 20 : side // 14] = 0  # a speck
    littered[: side // 9, -side // 8 :] = 60  # something dark at the edge
    np.testing.assert_allclose(find_digit(littered).astype(int), plain, atol=3)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_has_no_digit(value):
    with pytest.raises(InputError, match="no digit stands out"):
        find_digit(np.full((40, 60, 3), value, np.uint8))


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_picture_gives_a_digit_or_an_input_error(height, width, seed):
    rng = np.random.default_rng(seed)
    picture = (rng.random((height, width, 1)) < rng.random()) * rng.integers(1, 256, (1, 1, 3))
    try:
        assert find_digit(picture.astype(np.uint8)).shape == (28, 28)
    except InputError:
        pass


# The command ---------------------------------------------------------------------------------


def test_the_command_reads_photographs(data_dir, tmp_path, capsys, monkeypatch):
    def must_not_train(self):
        raise AssertionError("the training began")

    monkeypatch.setattr(MNIST_MLP, "train", must_not_train)
    images = read_mnist(data_dir)[2][:3]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image, scene in zip(paths, images, SCENES, strict=False):
        write_picture(path, sheet(image, scene))
    seen, report = tmp_path / "seen.png", tmp_path / "r.json"
    options = ["--data-dir", data_dir, paths[0], "--predict", *paths[1:]]
    options += ["--seen", seen, "--report", report]
    assert main([str(option) for option in options]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"network: {data_dir / 'trained_mlp.npz'}, kept by an earlier run"
    digits = network(data_dir)(images).tolist()
    for line, path, digit in zip(lines, paths, digits, strict=True):
        assert line.startswith(f"{path}: {digit}  ({digit} ")
    probabilities = json.loads(report.read_text("utf-8"))["probabilities"]
    assert list(probabilities) == [str(path) for path in paths]
    for row, digit in zip(probabilities.values(), digits, strict=True):
        assert len(row) == 10
        assert sum(row) == pytest.approx(1, abs=1e-4)
        assert np.argmax(row) == digit
    pixels = read_picture(seen)[:, :, 0]
    for path in paths:  # each pixel enlarged fivefold
        large = find_digit(read_picture(path)).repeat(5, axis=0).repeat(5, axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (140, 140))
        row = (windows[..., 70, :] == large[70]).all(axis=-1)
        assert any((windows[y, x] == large).all() for y, x in np.argwhere(row))


def test_pictures_that_cannot_be_used_are_named_and_left_out(data_dir, tmp_path, capsys):
    good, blank, absent = (tmp_path / name for name in ("good.png", "blank.png", "absent.png"))
    write_picture(good, sheet(read_mnist(data_dir)[2][0]))
    write_picture(blank, np.full((30, 30, 3), 200, np.uint8))
    call = ["--data-dir", str(data_dir)]
    assert main([*call, str(blank), str(good), str(absent)]) == 2
    captured = capsys.readouterr()
    assert f"{good}: " in captured.out
    assert captured.err.splitlines() == [
        f"mnist_mlp_cpu.py: error: cannot use the picture {blank}: no digit stands out from the "
        "paper",
        f"mnist_mlp_cpu.py: error: there is no picture {absent}",
    ]
    assert main([*call, str(absent)]) == 2  # and nothing is trained for it
    assert capsys.readouterr().out == ""
    assert main([*call, "--seen", str(tmp_path / "seen.png")]) == 2
    assert "--seen needs a picture" in capsys.readouterr().err
    assert main([*call, str(good), "--seen", str(tmp_path / "seen.doc")]) == 2
    assert "cannot write the picture" in capsys.readouterr().err


def test_a_network_is_trained_when_none_is_kept(tmp_path, capsys, monkeypatch):
    write_drawn(tmp_path, 500, 20)
    path = tmp_path / "seven.png"
    write_picture(path, sheet(read_mnist(tmp_path)[2][0]))
    kept = tmp_path / "trained_mlp.npz"
    call = ["--data-dir", str(tmp_path), str(path)]
    assert main([*call, "--epochs", "1", "--save", str(tmp_path / "own.npz")]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert not kept.exists()  # only the default run is kept
    monkeypatch.setitem(mnist_mlp_cpu.RECIPES["mlp"], "epochs", 1)
    assert main(call) == 0
    assert f"{kept} keeps this network" in capsys.readouterr().out
    assert main([*call, "--load", str(tmp_path / "own.npz")]) == 0
    assert "kept" not in capsys.readouterr().out
    kept.unlink()
    kept.mkdir()  # cannot be written
    assert main(call) == 0
    assert "the network is not kept" in capsys.readouterr().out


def test_weights_that_are_too_large_are_named(data_dir, tmp_path, capsys):
    mlp = mnist_mlp_cpu.make_network(data_dir / "trained_mlp.npz")
    for layer in mlp.update_layer_list:
        layer.weight = layer.weight * np.float32(1e30)
    mlp.save_model(tmp_path / "large.npz")
    write_picture(tmp_path / "a.png", sheet(read_mnist(data_dir)[2][0]))
    assert main([str(tmp_path / "a.png"), "--load", str(tmp_path / "large.npz")]) == 2
    assert "the scores are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["curves", "confusion", "mistakes", "weights"])
def test_a_figure_does_not_replace_the_digit_that_is_read(data_dir, tmp_path, capsys, name):
    path = tmp_path / f"{name}.png"
    write_picture(path, sheet(read_mnist(data_dir)[2][0]))
    call = [str(path), "--figures", str(tmp_path)]
    assert main(["--data-dir", str(data_dir), *call]) == 2
    assert f"{path} would overwrite a file that is read" in capsys.readouterr().err

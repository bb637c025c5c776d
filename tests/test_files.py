"""Files are written completely or not at all, and nothing that is read is overwritten."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.style_pictures import ROOT

from support.command import InputError
from support.files import check_output, check_outputs, input_file, output_file, write_json

NOT_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file types")


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    os.link(path, tmp_path / "reader")  # like a reader that has opened the old file
    with output_file(path) as file:
        assert Path(file.name).parent == tmp_path
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert (tmp_path / "reader").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_an_unfinished_file_is_removed(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), output_file(path) as file:
        file.write(b"half")
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_failures_of_writing_say_which_file(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(InputError) as info, output_file(path, "the picture") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(info.value) == f"cannot write the picture {path}: No space left on device"
    assert not list(tmp_path.iterdir())


def test_the_folder_is_created_and_a_name_may_be_long(tmp_path):
    path = tmp_path / "new" / "folder" / ("n" * 250 + ".txt")  # 255 bytes is the usual limit
    with output_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"


def test_check_output_accepts_and_creates_nothing(tmp_path):
    check_output(tmp_path / "new" / "folder" / "a.txt")
    check_output(str(tmp_path / "a.txt"))
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in (
        (tmp_path, f"{tmp_path} is a folder; give the name of a file"),
        (file / "a.txt", f"{file} is not a folder that can be written to"),
        (file / ".." / "a.txt", f"{file} is not a folder that can be written to"),
        (file / "new" / "a.txt", f"{file} is not a folder that can be written to"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / ("n" * 300) / "a.txt", "File name too long"),
        (loop, "Too many levels of symbolic links"),
        (loop / "a.txt", "Too many levels of symbolic links"),
        (tmp_path / "a\ud800b", "no file can have this name"),
        (tmp_path / "a\0b", "no file can have this name"),
    ):
        with pytest.raises(InputError) as info:
            check_output(path)
        assert message in str(info.value)
        with pytest.raises(InputError), output_file(path):
            pytest.fail("not reached")


@NOT_WINDOWS
def test_devices_pipes_and_sockets_are_neither_written_nor_read(tmp_path, monkeypatch):
    """Root could replace /dev/null by a file; opening a FIFO would wait for ever."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    fifo, sock = tmp_path / "fifo", socket.socket(socket.AF_UNIX)
    os.mkfifo(fifo)
    sock.bind("sock")
    sock.close()
    (tmp_path / "link").symlink_to("/dev/null")
    for name, kind in (("fifo", "pipe"), ("sock", "device"), ("link", "device")):
        path = tmp_path / name
        before = os.lstat(path)
        with pytest.raises(InputError, match=f"is a {kind}; give the name of a file"):
            check_output(path)
        with pytest.raises(InputError), output_file(path):
            pytest.fail("not reached")
        with pytest.raises(InputError, match=f"is a {kind}; give the name of a file"):
            check_output(tmp_path / "new" / ".." / name)  # no such folder
        with pytest.raises(InputError, match=f"cannot read the thing .*{name}: it is a {kind}"):
            with input_file(path, "thing"):
                pytest.fail("not reached")
        assert os.lstat(path).st_mode == before.st_mode
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, there):
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to("folder/target")
    if there:
        target.write_text("old")
        target.chmod(0o600)
    with output_file(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    if there:
        assert target.stat().st_mode & 0o777 == 0o600  # as private as the old file
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_input_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    with input_file(path, "thing") as file:
        assert file.read() == b"abc"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for name, message in (
        ("none", "there is no thing .*none; make one"),
        ("none/none", "there is no thing .*none; make one"),
        ("a/b", "cannot read the thing .*a/b: Not a directory"),
        (".", "cannot read the thing .*: it is a folder, not a file"),
        ("loop", "cannot read the thing .*loop: Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("a\0b", "no file can have this name"),
    ):
        with pytest.raises(InputError, match=message):
            with input_file(tmp_path / name, "thing", "make one"):
                pytest.fail("not reached")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux")
def test_a_file_whose_reading_fails():
    with pytest.raises(InputError, match="cannot read the thing /proc/self/mem: Input/output"):
        with input_file("/proc/self/mem", "thing") as file:
            file.read(1)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may do all")
def test_files_without_permission(tmp_path):
    path, locked = tmp_path / "a", tmp_path / "locked"
    path.write_text("old")
    path.chmod(0)
    locked.mkdir(mode=0)
    for place in (path, locked / "b"):
        with pytest.raises(InputError, match="cannot write"):
            check_output(place)
        with pytest.raises(InputError, match="Permission denied"), input_file(place, "thing"):
            pytest.fail("not reached")
    locked.chmod(0o700)


def test_every_spelling_of_an_input_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("in").write_text("")
    Path("link").symlink_to("in")
    Path("linked").symlink_to("folder")
    os.link("in", "hard")
    spellings = ("in", "in/", "hard/.", "./in", "folder/../in", "link", "hard", "linked/../in")
    spellings += ("new/../in", "./new/x/../../link")  # no such folder
    for output in (*spellings, tmp_path / "in"):
        with pytest.raises(InputError, match="would overwrite a file that is read"):
            check_outputs([output], ["absent", "a\0b", "in"])
    for first, second in (("a", "./a"), ("new/a", "new/x/../a"), ("linked/a", "folder/a")):
        with pytest.raises(InputError, match=r"is named for two outputs; give each its own"):
            check_outputs([first, second])
    check_outputs(["a", "b", "folder/in"], ["in", "a\0b", "a\ud800b"])


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([i]) * 200_000 for i in range(8)]

    def write(content):
        for _ in range(5):
            with output_file(path) as file:
                file.write(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_json_keeps_every_file_name(tmp_path):
    names = ["图.png", "caf\udce9.png"]  # the second is not valid UTF-8 on the disk
    write_json(tmp_path / "r.json", {"names": names})
    text = (tmp_path / "r.json").read_text("utf-8")
    assert "图.png" in text
    assert json.loads(text)["names"] == names


# --- a full disk, for every kind of output ---

# Each writes a file to `path`, larger than the limit below.
WRITERS = {
    "picture.png": "write_picture(path, noise)",
    "picture.jpg": "write_picture(path, noise)",
    "picture.webp": "write_picture(path, noise)",
    "picture.tif": "write_picture(path, noise)",
    "animation.gif": "write_animation(path, [(1, noise)], noise)",
    "animation.webp": "write_animation(path, [(1, noise)], noise)",
    "sheet.jpg": "write_contact_sheet(path, noise, [noise], [(1, noise)], noise)",
    "losses.png": "plot_losses(path, report)",
    "losses.svg": "plot_losses(path, report)",
    "losses.pdf": "plot_losses(path, report)",
    "page.html": "write_html(path, report, noise, [noise], [], noise)",
    "report.json": "write_json(path, {'noise': noise.tolist()})",
    "checkpoint.npz": "write_checkpoint(path, checkpoint)",
    "weights.npz": "write_weights(path, Network({'conv1_1': (noise, noise)}, noise, [], []))",
    "parameters.npz": "mlp.save_model(path)",
    "digits": "write_idx(path, noise)",
}
PROGRAM = """
import resource, sys
import numpy as np
from mnist_mlp_cpu import MNIST_MLP
from style.checkpoint import Checkpoint, write_checkpoint
from style.page import write_html
from style.plan import Position
from style.report import plot_losses, write_animation, write_contact_sheet
from support.files import write_json
from support.command import InputError
from support.matconvnet import Network
from mnist.data import write_idx
from support.pictures import write_picture
from support.weights import write_weights
noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
step = {"content": 1.0, "style": 2.0, "tv": 3.0, "seconds": 0.1}
report = {"command": "", "options": {}, "weights": "", "size": [200, 200], "seconds": 1.0,
    "scales": [{"height": 200, "width": 200, "steps": 2}], "steps": [step, step], "threads": 1,
    "peak_memory_bytes": None, "versions": {}}
position = Position(0, 2, noise.transpose(2, 0, 1)[None].astype(np.float32), {})
checkpoint = Checkpoint(position=position, losses=[step, step])
mlp = MNIST_MLP()
mlp.build_model()
mlp.init_model()
for path, code in WRITERS.items():
    exec(code)  # the libraries' own files are read and written now
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for path, code in WRITERS.items():
    try:
        exec(code)
    except InputError as error:
        print(error)
    else:
        print(path, "was written")
"""


@NOT_WINDOWS
def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A limit on the size of files acts like a disk that becomes full after 2,000 bytes."""
    program = PROGRAM.replace("WRITERS", repr(WRITERS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert len(lines) == len(WRITERS)
    for name, line in zip(WRITERS, lines, strict=True):
        assert line.startswith("cannot write ") and line.endswith(f" {name}: File too large"), line
        assert (tmp_path / name).stat().st_size > 2000
    assert {entry.name for entry in tmp_path.iterdir()} == set(WRITERS)

"""Files are written completely or not at all."""

import errno
import json
import os

import pytest

from support.command import InputError
from support.files import atomic_path, check_output, write_json


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    os.link(path, tmp_path / "reader")  # like a reader that has opened the old file
    with atomic_path(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert (tmp_path / "reader").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_an_unfinished_file_is_removed(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_failures_of_writing_say_which_file(tmp_path):
    path = tmp_path / "a.png"
    with (
        pytest.raises(InputError) as info,
        atomic_path(path, "the picture") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(info.value) == f"cannot write the picture {path}: No space left on device"
    assert not list(tmp_path.iterdir())


def test_the_folder_is_created_and_a_name_may_be_long(tmp_path):
    path = tmp_path / "new" / "folder" / ("n" * 250 + ".txt")  # 255 bytes is the usual limit
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_check_output_accepts_and_creates_nothing(tmp_path):
    check_output(tmp_path / "new" / "folder" / "a.txt")
    check_output(str(tmp_path / "a.txt"))
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path, message in (
        (tmp_path, f"{tmp_path} is a folder; give the name of a file"),
        (file / "a.txt", f"{file} is not a folder that can be written to"),
        (file / "new" / "a.txt", f"{file} is not a folder that can be written to"),
        (tmp_path / ("n" * 300), "File name too long"),
    ):
        with pytest.raises(InputError) as info:
            check_output(path)
        assert message in str(info.value)
        with pytest.raises(InputError), atomic_path(path):
            pytest.fail("not reached")


def test_json_keeps_every_file_name(tmp_path):
    names = ["图.png", "caf\udce9.png"]  # the second is not valid UTF-8 on the disk
    write_json(tmp_path / "r.json", {"names": names})
    text = (tmp_path / "r.json").read_text("utf-8")
    assert "图.png" in text
    assert json.loads(text)["names"] == names

"""Damaged files, odd options and odd output places: the right result, or one line and status 2.

    FUZZ=10 python -m pytest tests/test_fuzz.py      ten times as many cases, others than in CI

No traceback, warning, crash or noise, no more than 400 MB, no case longer than 10 s.
"""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

import pytest
from helpers.style_pictures import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mnist_mlp_cpu
import style_transfer_cpu
import vgg_cpu
from support.command import InputError
from support.files import check_output, check_outputs, output_file

TIMES = int(os.environ.get("FUZZ", "1"))
CASES = {"idx": 300, "parameters": 300, "checkpoints": 300, "matlab": 300, "weights": 200,
         "pictures": 900}  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX alarm and limits")
few = settings(
    max_examples=300 * TIMES, deadline=None, derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files(kind, tmp_path):
    """In a child process, which a reader could crash."""
    count = CASES[kind] * TIMES
    first = 0 if TIMES == 1 else 1_000_000
    result = subprocess.run(
        [sys.executable, "-m", "helpers.fuzz", kind, str(first), str(count), str(tmp_path)],
        cwd=ROOT / "tests", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=60 + count,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert 0 < int(result.stdout) < count  # some changes do no harm, most do


# --- command lines ---

MISSING = "no-such-file.png"
PROGRAMS = {
    "style": (style_transfer_cpu.main, ["--content", MISSING]),
    "mnist": (mnist_mlp_cpu.main, ["--data-dir", MISSING]),
    "vgg": (vgg_cpu.main, [MISSING, "--weights", MISSING]),
}


@cache
def options_of(program):
    """Return all options in the help of a program, without those that need no input."""
    with redirect_stdout(io.StringIO()) as output, suppress(SystemExit):
        PROGRAMS[program][0](["--help"])
    found = set(re.findall(r"--[a-z][a-z-]+", output.getvalue()))
    return sorted(found - {"--help", "--download", "--summary"})


VALUES = st.sampled_from(
    ["", "-", "--", "=", "0", "-1", "1e999", "nan", "-inf", "1e-400", "9" * 30, "9" * 5000, "0x10",
     "1_000", "٣", "relu1_1:", "relu9_9", "relu1_1:nan", "pool1:1e99", ".", "/", "/dev/null",
     "/dev/full", "/proc/self/mem", "~", "~nobody/x", "http://a/b.png", "n" * 300, "a/" * 2000, "*",
     "kmean", "PALETTE", "caf\udce9.png", "a\nb.png", "\x1b[31m", "rgb(1,2,3)", "#12345", "é.html"]
) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)  # fmt: skip


@few
@given(st.sampled_from(sorted(PROGRAMS)), st.data())
def test_odd_command_lines(tmp_path_factory, capsys, program, data):
    """Its inputs are missing, so each ends before the work, in one line of error."""
    main, given_options = PROGRAMS[program]
    if "folder" not in CACHE:
        CACHE["folder"] = tmp_path_factory.mktemp("odd")
    os.chdir(CACHE["folder"])
    argv = list(given_options)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(options_of(program)))
        values = data.draw(st.lists(VALUES, max_size=3))
        joined = values and data.draw(st.booleans())
        argv += [f"{name}={values[0]}", *values[1:]] if joined else [name, *values]
    status = main(argv)
    error = capsys.readouterr().err
    assert status == 2, argv
    errors = re.findall(r"^\w+\.py: error: (.+)", error, re.M)
    assert errors, (argv, error)
    # All go on after a picture that cannot be read, and the others may then name more than that.
    pictures = [text for text in errors if " picture " in text]
    assert len(errors) == 1 or errors == pictures or program != "style", (argv, error)
    assert "Traceback" not in error and "\x1b" not in error


@pytest.mark.parametrize(
    "path", ["n" * 300, "a/" * 2000, "loop", "file/x", "fifo", "/proc/self/mem"]
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_refuses_a_path_that_cannot_be_used(program, path, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    os.chdir(tmp_path)
    main, given_options = PROGRAMS[program]
    for name in options_of(program):
        for extension in ("", ".png", ".npz", ".json", ".html"):
            status = main([*given_options, name, path + extension])
            error = capsys.readouterr().err
            assert status == 2 and re.search(r"^\w+\.py: error: .", error, re.M), (name, error)


CACHE = {}


@pytest.fixture(autouse=True)
def same_folder():
    """Come back to the folder that the tests run in."""
    before = os.getcwd()
    yield
    os.chdir(before)


# --- output places ---

PARTS = st.sampled_from(
    [".", "..", "folder", "linked", "file", "link", "hard", "loop", "fifo", "null", "new", "a\0b",
     "\ud800", "caf\udce9", "n" * 300, "dangling", "", "/", "~"]
)  # fmt: skip


@few
@given(st.lists(PARTS, min_size=1, max_size=4))
def test_odd_output_places(tmp_path_factory, parts):
    """What is read stays as it is; pipes, devices and links stay what they are."""
    if "places" not in CACHE:
        CACHE["places"] = root = tmp_path_factory.mktemp("places")
        (root / "folder").mkdir()
        (root / "file").write_text("input")
        for name, target in (("linked", "folder"), ("link", "file"), ("loop", "loop"),
                             ("null", "/dev/null"), ("dangling", "folder/made")):  # fmt: skip
            (root / name).symlink_to(target)
        os.link(root / "file", root / "hard")
        os.mkfifo(root / "fifo")
    root = CACHE["places"]
    kinds = {path.name: os.lstat(path).st_mode for path in root.iterdir()}
    path = os.path.join(root, *(part.strip("/") for part in parts))
    with suppress(ValueError):  # no file can have this name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            path = root / "null"  # nothing is written beside the folder of the test
    try:
        target = check_output(path)
        check_outputs([path], [root / "file"])
        with output_file(path) as file:
            file.write(b"output")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert target.read_bytes() == b"output"
        target.unlink()
    assert (root / "file").read_text() == "input"
    for name, mode in kinds.items():
        assert os.lstat(root / name).st_mode == mode
    assert not list(root.glob("**/.*.tmp"))

"""How every command ends, whatever stops it, and that nothing that is printed stops it."""

import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.style_pictures import QUICK, ROOT, start

import mnist_mlp_cpu
import style_transfer_cpu
import vgg_cpu
from mnist.data import write_idx
from style.checkpoint import read_checkpoint
from support.command import InputError, StopRequest, exit_status
from support.picture_list import PictureList

NOT_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and devices")
PROGRAMS = ("mnist_mlp_cpu.py", "vgg_cpu.py", "style_transfer_cpu.py")


@pytest.mark.parametrize(("error", "status", "line"), [
    (InputError("no such thing; give another"), 2, "demo: error: no such thing; give another"),
    (InputError("no file a\nb\x1b[31m\r"), 2, "demo: error: no file a\\nb\\x1b[31m\\r"),
    (MemoryError(), 2, "demo: error: there is not enough memory"),
    (KeyboardInterrupt(), 130, "demo: interrupted"),
])  # fmt: skip
def test_one_line_and_a_status(error, status, line, capsys):
    def run(arguments):
        raise error

    assert exit_status("demo", run, []) == status
    assert capsys.readouterr().err.splitlines() == [line]


def test_the_status_of_run_is_kept(capsys):
    assert exit_status("demo", lambda arguments: None, []) == 0
    assert exit_status("demo", lambda arguments: arguments[0], [130]) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status("demo", lambda arguments: 1 / 0, [])


# --- signals ---


@NOT_WINDOWS
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("more", [0, 1])
def test_signals_end_the_run_once(name, more, capsys):
    """Also when a second one comes while the first is handled, or both at once."""
    number = getattr(signal, name)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    cleaned = []

    def run(arguments):
        try:
            signal.raise_signal(number)
            time.sleep(60)
        finally:
            for _ in range(more):
                signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    assert exit_status("demo", run, []) == 128 + number
    assert cleaned
    assert capsys.readouterr().err == "demo: interrupted\n"
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert before == after


@NOT_WINDOWS
def test_a_third_signal_ends_a_clean_up_that_hangs():
    program = (
        "import signal, time\nfrom support.command import exit_status\n"
        "def run(arguments):\n"
        "    try:\n        signal.raise_signal(2)\n"
        "    finally:\n        signal.raise_signal(15)\n        signal.raise_signal(15)\n"
        "        time.sleep(60)\n"
        "exit_status('demo', run, [])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30)
    assert result.returncode == 143


@NOT_WINDOWS
def test_ignored_signals_stay_ignored(capsys):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_status("demo", lambda arguments: signal.raise_signal(signal.SIGHUP), []) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_commands_run_in_threads():
    """Where no signal can be handled, as in a web server; two at once, too."""
    results = []

    def run(arguments):
        with StopRequest().listening():
            print("working")
            time.sleep(0.05)
        return 7

    threads = [
        threading.Thread(target=lambda: results.append(exit_status("demo", run, [])))
        for _ in range(4)
    ]
    before = sys.stdout, sys.stderr
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [7] * 4
    assert before == (sys.stdout, sys.stderr)


@pytest.mark.parametrize("main", [mnist_mlp_cpu.main, vgg_cpu.main, style_transfer_cpu.main])
@pytest.mark.parametrize(("options", "said"), [
    (["--reprot", "r.json"], "; did you mean --report?"),
    (["--zzz"], "unrecognized arguments: --zzz"),
    (["--report", "https://example.org/r.json"], "https://example.org/r.json is an address"),
    (["--report=-"], "argument --report: - is not a file that can be used here"),
    (["--weights", ""], "the name is empty"),
    (["--weights=~/folder/w.npz"], "/home/somebody/folder/w.npz"),
])  # fmt: skip
def test_mistaken_options_in_all_programs(main, options, said, capsys, monkeypatch, tmp_path):
    if main is mnist_mlp_cpu.main:
        options = [option.replace("--weights", "--load") for option in options]
    if main is vgg_cpu.main:
        options = ["a.jpg", *options]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert main(options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert error.endswith("--zzz") or "--zzz" not in options
    assert list(tmp_path.iterdir()) == []


@NOT_WINDOWS
def test_line_ends_in_names_and_options_stay_within_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "no\nsuch\r\x1b[31m.jpg"
    shown = "no\\nsuch\\r\\x1b[31m.jpg"
    assert list(PictureList([Path(name)], "demo")) == []
    assert capsys.readouterr().err == f"demo: error: there is no picture {shown}\n"
    options = [name, "other.jpg", "--output", "results/", "--weights", "random"]
    assert style_transfer_cpu.main(options) == 2
    line = "style_transfer_cpu.py: error: there is no picture"
    errors = [f"{line} {shown}", f"{line} other.jpg"]
    assert capsys.readouterr().err.splitlines() == errors
    for main in mnist_mlp_cpu.main, vgg_cpu.main, style_transfer_cpu.main:
        assert main(["a.jpg", "--no\nsuch"]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert r"unrecognized arguments: --no\nsuch" in error


@NOT_WINDOWS
@pytest.mark.parametrize(
    ("module", "number"), [("argparse", 2), ("numpy", 2), ("numpy", 15), ("numpy", 1)]
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_while_the_libraries_load(program, module, number):
    """The module's loading takes a minute."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.pop({module!r}, None)\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}:\n"
        "            print('loading', flush=True)\n"
        "            import time\n            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        f"sys.argv = [{program!r}]\n"
        f"runpy.run_path({program!r}, run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (128 + number, f"{program}: interrupted\n")


# --- printing ---


class Ascii(io.TextIOWrapper):
    """A text stream that knows no other characters."""

    def __init__(self):
        super().__init__(io.BytesIO(), "ascii", newline="")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode()


def test_what_the_encoding_lacks_and_control_characters_become_escapes(monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := Ascii())
    monkeypatch.setattr(sys, "stderr", err := Ascii())

    def run(arguments):
        print("été caf\udce9 图 \x1b[2J\x07\x9b a\tb")
        raise InputError("été\u2028")

    assert exit_status("demo", run, []) == 2
    assert out.text() == "\\xe9t\\xe9 caf\\udce9 \\u56fe \\x1b[2J\\x07\\x9b a\tb\n"
    assert err.text() == "demo: error: \\xe9t\\xe9\\u2028\n"
    assert (sys.stdout, sys.stderr) == (out, err)


@pytest.mark.parametrize("streams", [(None, None), (None, io.StringIO()), (io.StringIO(), None)])
def test_missing_streams(streams, monkeypatch):
    """As under pythonw, or after 2>&-."""
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    done = []

    def run(arguments):
        print("text", flush=True)
        print("text", file=sys.stderr)
        done.append(True)
        raise InputError("wrong")

    assert exit_status("demo", run, []) == 2
    assert done
    assert (sys.stdout, sys.stderr) == streams


SAYS_MUCH = """
import sys
from pathlib import Path
from support.command import exit_status
def run(arguments):
    for i in range(20000):
        print("line", i)
    Path(arguments[0]).write_text("done")
sys.exit(exit_status("demo", run, sys.argv[1:]))
"""


@NOT_WINDOWS
@pytest.mark.parametrize(("redirection", "status", "err"), [
    ("| head -2 >&2; exit ${PIPESTATUS[0]}", 0, "line 0\nline 1\n"),
    ("| true; exit ${PIPESTATUS[0]}", 0, ""),
    (">&-", 0, ""),
    (">&- 2>&-", 0, ""),
    pytest.param("> /dev/full", 2, "demo: error: cannot write to standard output: [Errno 28] No "
     "space left on device\n", marks=pytest.mark.skipif(not os.path.exists("/dev/full"),
                                                        reason="Linux")),
])  # fmt: skip
def test_a_stream_that_takes_no_more(tmp_path, redirection, status, err):
    """The work goes on to its end."""
    result = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" done {redirection}', sys.executable, SAYS_MUCH],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (status, err)
    assert (tmp_path / "done").read_text() == "done"


# --- the programs ---


def run_in(folder, program, *options, before="", after="", **environment):
    """Run a program in a shell, as a user does; return the result."""
    command = f'{before} "$0" "$@" {after}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, ROOT / program, *map(str, options)],
        cwd=folder, env={**os.environ, "PYTHONPATH": "", **environment}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


@NOT_WINDOWS
@pytest.mark.parametrize("name", ["été.png", "caf\udce9.png", "a\nb\x1b[31m.png"])
def test_any_file_name_gets_its_picture_and_report(folder, tmp_path, name):
    report = tmp_path / "r.json"
    result = run_in(
        folder, "style_transfer_cpu.py", *QUICK, "--size", 32, "--steps", 2,
        "--output", tmp_path / name, "--report", report, PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stdout
    assert {os.fsdecode(entry) for entry in os.listdir(tmp_path)} == {name, "r.json"}


@NOT_WINDOWS
@pytest.mark.parametrize("after", ["| true", "> /dev/full", ">&- 2>&-"])
def test_the_training_is_kept_if_nothing_can_be_printed(small_mnist, tmp_path, after):
    options = ["--epochs", 1, "--hidden", 8, 8, "--save", tmp_path / "x.npz"]
    result = run_in(tmp_path, "mnist_mlp_cpu.py", "--data-dir", small_mnist, *options, after=after)
    assert (tmp_path / "x.npz").is_file()
    assert "Traceback" not in result.stderr
    assert "x.npz" not in result.stderr


@pytest.fixture
def small_mnist(tmp_path_factory):
    """A folder with 60 training and 20 test pictures of noise."""
    folder, rng = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return folder


@NOT_WINDOWS
def test_a_closed_terminal_leaves_a_checkpoint(folder, tmp_path):
    process = start(
        folder, *QUICK, "--size", 64, "--steps", 5000, "--output", tmp_path / "a.png",
        "--checkpoint", tmp_path / "a.npz", "--checkpoint-every", 2,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "a.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 129
    assert len(read_checkpoint(tmp_path / "a.npz").losses) >= 2


@NOT_WINDOWS
def test_a_read_only_home_folder_is_no_noise(folder, tmp_path):
    home = tmp_path / "file"
    home.write_text("")
    result = run_in(
        folder, "style_transfer_cpu.py", *QUICK, "--size", 32, "--steps", 2,
        "--output", tmp_path / "a.png", "--plot", tmp_path / "p.png",
        HOME=str(home), MPLCONFIGDIR="", XDG_CONFIG_HOME="", XDG_CACHE_HOME="",
    )  # fmt: skip
    assert result.returncode == 0
    assert "atplotlib" not in result.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_option_with_two_dashes_as_value(program, capsys):
    main = importlib.import_module(program.removesuffix(".py")).main
    assert main(["--threads=--"]) == 2
    assert "argument --threads: expected a value, got '--'" in capsys.readouterr().err

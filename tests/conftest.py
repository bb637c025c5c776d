"""What all tests share: working signals, no process left behind, a folder of small pictures."""

import signal

import pytest
from helpers import style_pictures


@pytest.fixture(scope="session", autouse=True)
def signals_work():
    """Let signals work in the tests and their children, also in the background and under nohup."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_process_left():
    """Kill what `style_pictures.start` started and the test did not wait for."""
    yield
    while style_pictures.STARTED:
        process = style_pictures.STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with narrow weights, and small pictures of different shapes."""
    return style_pictures.write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def in_folder(folder, monkeypatch):
    """The test runs in that folder, as its user would."""
    monkeypatch.chdir(folder)

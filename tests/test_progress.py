"""The progress bar of all programs, on a terminal and elsewhere."""

import io

import pytest

from support.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that runs a bar on a stream and returns what it wrote."""

    def draw(stream, steps, total=50, **options):
        monkeypatch.setattr("sys.stderr", stream)
        with Bar(total=total, desc="work", mininterval=0, miniters=1, **options) as bar:
            for _ in range(steps):
                bar.update()
        return stream.getvalue()

    return draw


def test_without_a_terminal_there_is_a_line_at_every_tenth(drawn):
    lines = drawn(io.StringIO(), 50).splitlines()
    assert [line[:10] for line in lines] == [f"work: {10 * tenth:3}%" for tenth in range(1, 11)]
    lines = drawn(io.StringIO(), 17).splitlines()
    assert [line[:10] for line in lines] == ["work:  10%", "work:  20%", "work:  30%"]
    lines = drawn(io.StringIO(), 5, initial=40).splitlines()
    assert [line[:10] for line in lines] == ["work:  80%", "work:  90%"]
    assert "\r" not in drawn(io.StringIO(), 50)
    assert drawn(io.StringIO(), 0) == ""
    assert drawn(io.StringIO(), 5, total=None) == ""


def test_on_a_terminal_it_is_redrawn(drawn):
    assert drawn(Terminal(), 50).count("\r") >= 50


def test_other_output_does_not_disturb_it(monkeypatch, capsys):
    with Bar(total=10, desc="work", mininterval=0, miniters=1) as bar:
        bar.update(5)
        bar.write("a line")
        bar.update(5)
    out, err = capsys.readouterr()
    assert out == "a line\n"
    assert [line[:10] for line in err.splitlines()] == ["work:  50%", "work: 100%"]


def test_without_stderr_nothing_is_shown(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with Bar(total=3) as bar:
        bar.update(3)

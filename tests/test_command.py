"""How every command ends, whatever stops it."""

import pytest

from support.command import InputError, exit_status


@pytest.mark.parametrize(("error", "status", "line"), [
    (InputError("no such thing; give another"), 2, "demo: error: no such thing; give another"),
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

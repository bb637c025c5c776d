"""The README's recipe book: its commands can be run, and its pictures are there."""

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "picture"))

from make_recipes import make, recipes  # noqa: E402

from style.settings import parse  # noqa: E402

README = (ROOT / "README.md").read_text("utf-8")
RECIPES = recipes(README)
PICTURES = sorted(set(re.findall(r"picture/(look_\w+\.jpg)", README)))


def test_the_book_has_its_looks():
    assert len(RECIPES) >= 8
    made = set(re.findall(r"(?<!/)\b(\w+)(?:\$depth)?\.jpg", "".join(RECIPES)))
    assert {re.sub(r"look_([a-z]+)\d?\.jpg", r"\1", name) for name in PICTURES} == made


@pytest.mark.parametrize("commands", RECIPES, ids=lambda text: text.split("--")[-1].strip())
def test_every_command_is_understood(commands):
    lines = commands.replace("\\\n", " ").replace("${depth}", "3").replace("$depth", "3")
    found = re.findall(r"python style_transfer_cpu\.py (.*)", lines)
    assert found
    for arguments in found:
        given = parse(arguments.split())
        assert given
        for style in given.get("style", []):
            assert (ROOT / style).is_file()


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_there(name):
    with Image.open(ROOT / "picture" / name) as picture:
        picture.load()
    assert min(picture.size) >= 170


def test_no_picture_is_left_over():
    assert PICTURES == sorted(path.name for path in (ROOT / "picture").glob("look_*"))


def test_commands_are_run_and_their_pictures_found(tmp_path):
    commands = (
        "for size in 48 64; do\n    python style_transfer_cpu.py --steps 1 --size $size \\\n"
        "        --style picture/style_ink.jpg --weights random --output made$size.jpg\ndone\n"
    )
    made = make(commands, tmp_path)
    assert [path.name for path in made] == ["made48.jpg", "made64.jpg"]
    with Image.open(made[1]) as picture:
        assert picture.size == (64, 43)

"""The README's recipe book: its commands can be run, and its pictures are in picture/."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picture import make_recipes
from picture.make_recipes import keep, make, recipes
from picture.make_scenes import SCENES
from style.settings import parse
from support.command import InputError
from vgg.command import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
RECIPES = recipes(README)
PICTURES = sorted(set(re.findall(r"picture/(look_\w+\.jpg)", README)))


STYLE_RECIPES = [recipe for recipe in RECIPES if "style_transfer_cpu.py" in recipe]
DRAWINGS = [recipe for recipe in RECIPES if "vgg_cpu.py" in recipe]


def test_every_recipe_has_its_picture():
    assert len(STYLE_RECIPES) >= 8 and len(DRAWINGS) == 1
    commands = re.sub(r"--only .*", "", "".join(STYLE_RECIPES))  # of make_scenes.py
    made = set(re.findall(r"(?<!/)\b(\w+)(?:\$depth)?\.jpg", commands))
    for recipe in DRAWINGS:
        arguments = parse_arguments(recipe.split()[2:])
        (picture,) = arguments.images
        assert (ROOT / picture).is_file() and arguments.edges
        made |= {f"{picture.stem}_{view}" for view in ("edges", *arguments.features)}
    names = [name.removeprefix("look_").removesuffix(".jpg") for name in PICTURES]
    assert {re.sub(r"^depth\d$", "depth", name) for name in names} == made


@pytest.mark.parametrize("commands", STYLE_RECIPES, ids=lambda text: text.split("--")[-1].strip())
def test_every_command_is_understood(commands):
    lines = commands.replace("\\\n", " ").replace("${depth}", "3").replace("$depth", "3")
    found = re.findall(r"python style_transfer_cpu\.py (.*)", lines)
    assert found
    for arguments in found:
        given = parse(arguments.split())
        assert given
        for style in given.get("style", []):
            made_larger = style.parts[0] == "print" and style.name in SCENES
            assert made_larger or (ROOT / style).is_file()


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_there(name):
    with Image.open(ROOT / "picture" / name) as picture:
        picture.load()
    assert min(picture.size) >= 170


def test_no_picture_is_left_over():
    assert PICTURES == sorted(path.name for path in (ROOT / "picture").glob("look_*"))


def test_commands_are_run_and_their_pictures_found(tmp_path):
    before = project_files()
    commands = (
        "for size in 48 64; do\n    python style_transfer_cpu.py --steps 1 --size $size \\\n"
        "        --style picture/style_mosaic.jpg --weights random --output made$size.jpg\ndone\n"
    )
    made = make(commands, tmp_path)
    assert [path.name for path in made] == ["made48.jpg", "made64.jpg"]
    with Image.open(made[1]) as picture:
        assert picture.size == (64, 43)
    assert project_files() == before


def project_files():
    """Return all paths of the project's code and pictures but those that Python may cache."""
    folders = [ROOT / name for name in ("picture", "style", "support", "fast", "output")]
    paths = [*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    return {path for path in paths if "cache" not in str(path.relative_to(ROOT))}


def test_a_command_that_fails(tmp_path):
    with pytest.raises(InputError, match="a command of this recipe failed"):
        make("false\ntouch made.jpg\n", tmp_path)
    assert not (tmp_path / "made.jpg").exists()


def test_a_picture_wider_than_the_readme_is_shrunk(tmp_path):
    made, kept = tmp_path / "made.jpg", tmp_path / "new" / "kept.jpg"
    left_half_red = np.zeros((100, 1440, 3), np.uint8)
    left_half_red[:, :720, 0] = 255
    Image.fromarray(left_half_red).save(made, quality=95)
    keep(made, kept)
    with Image.open(kept) as picture:
        assert picture.size == (720, 50)
        np.testing.assert_allclose(picture.getpixel((100, 25)), (255, 0, 0), atol=4)
        np.testing.assert_allclose(picture.getpixel((700, 25)), (0, 0, 0), atol=4)


def test_a_drawing_becomes_a_jpeg(tmp_path):
    made, kept = tmp_path / "made.png", tmp_path / "kept.jpg"
    for width, expected in ((1300, (900, 450)), (300, (300, 325))):
        Image.new("RGB", (width, 650 if width > 900 else 325), "red").save(made)
        keep(made, kept)
        with Image.open(kept) as picture:
            assert (picture.format, picture.size) == ("JPEG", expected)


def test_any_other_picture_is_copied(tmp_path):
    made, kept = tmp_path / "made.jpg", tmp_path / "kept.jpg"
    Image.new("RGB", (720, 1200), "red").save(made)
    keep(made, kept)
    assert kept.read_bytes() == made.read_bytes()


def test_the_whole_script(tmp_path, monkeypatch, capsys):
    """On a README of its own: the chosen recipe is run, and its picture put into the folder."""
    (tmp_path / "README.md").write_text(
        "### What the network sees\n\n```sh\nmkdir output && cp picture/filters.png "
        "output/a-edges.png\n```\n### Recipe book\n\n```sh\ncp picture/content.jpg one.jpg\n```\n\n"
        "```sh\ncp picture/look_depth1.jpg two.jpg\n```\n\n## Next\n\n```sh\nfalse\n```\n"
    )
    for name in ("picture", "style_transfer_cpu.py", "vgg_cpu.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(make_recipes, "ROOT", tmp_path)
    assert make_recipes.main(["two", "--output-dir", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == "cp picture/look_depth1.jpg two.jpg\n\n"
    (picture,) = (tmp_path / "new").iterdir()
    assert picture.name == "look_two.jpg"
    assert picture.read_bytes() == (ROOT / "picture" / "look_depth1.jpg").read_bytes()


    assert make_recipes.main(["edges", "--output-dir", str(tmp_path / "drawn")]) == 0
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["look_a_edges.jpg"]


def test_a_word_that_no_recipe_contains(capsys):
    assert make_recipes.main(["zebra"]) == 2
    assert "error: no recipe in README.md contains zebra" in capsys.readouterr().err


def test_help_makes_no_pictures(tmp_path):
    script = ROOT / "picture" / "make_recipes.py"
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("usage: make_recipes.py")
    assert "python style_transfer_cpu.py" not in done.stdout
    assert list(tmp_path.iterdir()) == []

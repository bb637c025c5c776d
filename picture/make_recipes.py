"""Make the pictures of the README's recipe book and of what a network sees, with its own commands.

Each block of shell commands under one of `HEADINGS` is run in an empty temporary folder that has
links to the programs and to picture/. Each JPEG file that the commands make there, and each drawing
in output/, becomes picture/look_<name>.jpg.

    python picture/make_recipes.py               all of them, in about half an hour
    python picture/make_recipes.py abstract      only commands that contain this word
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, only picture/ would be on the path

from support.command import InputError, exit_status  # noqa: E402
from support.files import write_bytes  # noqa: E402
from support.pictures import read_picture, resize_picture  # noqa: E402

HEADINGS = ("### Recipe book", "### What the network sees")
README_WIDTH = 720  # pixels: sharp at the width of a README, and light
DRAWING_WIDTH = 900  # pixels: its letters stay legible


def recipes(readme):
    """Return the shell commands under `HEADINGS`, one string a block."""
    blocks = []
    for heading in HEADINGS:
        section = readme.partition(heading + "\n")[2]
        section = re.split(r"^#{1,3} ", section, flags=re.MULTILINE)[0]
        blocks += re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return blocks


def make(commands, folder):
    """Run shell commands in `folder`, an empty one; return the paths of the pictures they made.

    Raises
    ------
    InputError
        If a command fails; it has said why.
    """
    for name in ("style_transfer_cpu.py", "vgg_cpu.py", "picture"):
        (folder / name).symlink_to(ROOT / name)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # this Python
        "PYTHONDONTWRITEBYTECODE": "1",  # leaves no __pycache__ in the project
    }
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    if subprocess.run(shell, cwd=folder, env=environment).returncode:
        raise InputError("a command of this recipe failed; correct it in README.md")
    return sorted([*folder.glob("*.jpg"), *folder.glob("output/*-*.png")])


def keep(made, kept):
    """Copy the picture `made` to the path `kept`, as JPEG, not wider than the README needs."""
    picture = read_picture(made)
    height, width = picture.shape[:2]
    content = made.read_bytes()
    drawing = made.suffix == ".png"
    most = DRAWING_WIDTH if drawing else README_WIDTH
    if drawing or width > most:
        most = min(most, width)
        height = round(height * most / width)
        image = Image.fromarray(resize_picture(picture, height, most, "lanczos"))
        buffer = io.BytesIO()
        options = {"quality": 80} if drawing else {"quality": 78, "subsampling": 0}
        image.save(buffer, "JPEG", optimize=True, **options)
        content = buffer.getvalue()
    write_bytes(kept, content, "the picture")


def run(options):
    """Make the pictures of the recipes that the options ask for."""
    chosen = [
        commands
        for commands in recipes((ROOT / "README.md").read_text("utf-8"))
        if not options.word or any(word in commands for word in options.word)
    ]
    if not chosen:
        raise InputError(f"no recipe in README.md contains {' or '.join(options.word)}")
    for commands in chosen:
        print(commands, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for path in make(commands, Path(folder)):
                keep(path, options.output_dir / f"look_{path.stem.replace('-', '_')}.jpg")


def main(argv=None):
    """Make the pictures; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Make the pictures of the README's recipe book, with the README's own "
        "commands. All of them take about half an hour.",
    )
    parser.add_argument("word", nargs="*",
                        help="run only the recipes whose commands contain one of these words, "
                        "for example abstract (default: run all recipes)")  # fmt: skip
    parser.add_argument("--output-dir", type=Path, default=ROOT / "picture",
                        help="folder for the pictures (default: %(default)s)")  # fmt: skip
    return exit_status(parser.prog, run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())

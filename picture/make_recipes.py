"""Make the pictures of the README's recipe book, by the README's own commands.

Every block of shell commands under the heading "Recipe book" is run in an empty folder from which
the program and the pictures of this folder can be seen. What the commands leave there becomes
``picture/look_<name>.jpg``.

    python picture/make_recipes.py               all of them, in about a quarter of an hour
    python picture/make_recipes.py abstract      only commands in which this word occurs
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADING = "### Recipe book"


def recipes(readme):
    """Return the shell commands under `HEADING`, one string a block."""
    section = readme.split(HEADING + "\n")[1]
    section = re.split(r"^#{1,3} ", section, flags=re.MULTILINE)[0]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)


def make(commands, folder):
    """Run shell commands in `folder`, an empty one; return the pictures they made."""
    for name in ("style_transfer_cpu.py", "picture"):
        (folder / name).symlink_to(ROOT / name)
    # "python" shall be this one
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, check=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    return sorted(folder.glob("*.jpg"))


def main():
    """Make all the pictures, or those whose commands have one of the arguments in them."""
    for commands in recipes((ROOT / "README.md").read_text("utf-8")):
        if len(sys.argv) > 1 and not any(word in commands for word in sys.argv[1:]):
            continue
        print(commands, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for path in make(commands, Path(folder)):
                shutil.copyfile(path, ROOT / "picture" / f"look_{path.name}")


if __name__ == "__main__":
    main()

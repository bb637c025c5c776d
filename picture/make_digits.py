"""Train the convolutional network on MNIST and draw how: digits_curves.png, digits_confusion.png.

    python picture/make_digits.py [--data-dir DIR]

It is the command of the README, `mnist_mlp_cpu.py --model cnn --figures`, and takes as long. The
other two figures stay out: mistakes.png shows MNIST's own digits, which are not ours to publish.
"""

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, only picture/ would be on the path

import mnist_mlp_cpu  # noqa: E402


def main(argv=None):
    """Train with the options `argv`; write the pictures; return the command's exit status."""
    options = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory() as folder:
        status = mnist_mlp_cpu.main(["--model", "cnn", "--figures", folder, *options])
        for name in ("curves", "confusion") if status == 0 else ():
            shutil.copyfile(Path(folder, f"{name}.png"), HERE / f"digits_{name}.png")
    return status


if __name__ == "__main__":
    raise SystemExit(main())

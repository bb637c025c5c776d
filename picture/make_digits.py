"""Train the convolutional network on MNIST and draw how: digits_curves.png, digits_confusion.png.

    python picture/make_digits.py [--data-dir DIR]

It is the command of the README, `mnist_mlp_cpu.py --model cnn --figures`, and takes as long. The
other two figures stay out: mistakes.png shows MNIST's own digits, which are not ours to publish.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, only picture/ would be on the path

import mnist_mlp_cpu  # noqa: E402


def main(argv=None):
    """Train, write the pictures, and return the command's exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of MNIST's files")
    data_dir = parser.parse_args(argv).data_dir
    options = [] if data_dir is None else ["--data-dir", data_dir]
    with tempfile.TemporaryDirectory() as folder:
        status = mnist_mlp_cpu.main(["--model", "cnn", "--figures", folder, *options])
        for name in ("curves", "confusion") if status == 0 else ():
            shutil.copyfile(Path(folder, f"{name}.png"), HERE / f"digits_{name}.png")
    return status


if __name__ == "__main__":
    raise SystemExit(main())

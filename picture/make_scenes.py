"""Paint the project's own pictures: one content picture and two styles.

    python picture/make_scenes.py

Nothing is photographed or copied: every pixel is computed from a seed with NumPy, SciPy and
Pillow. So the pictures are free to use and can be made again.

content.jpg       a lake town at dusk, scenes/lake_town.py
style.jpg         an oil painting, scenes/oil_painting.py
style_mosaic.jpg  a mosaic of stone and gold, scenes/mosaic.py
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, only picture/ would be on the path

from picture.scenes import lake_town, mosaic, oil_painting  # noqa: E402
from picture.scenes.tools import to_uint8  # noqa: E402
from support.command import bounded, exit_status  # noqa: E402
from support.files import write_bytes  # noqa: E402


class Scene(NamedTuple):
    """How a picture is made."""

    paint: Callable  # (rng, height, width) -> colours of shape (height, width, 3), 0..1
    height: int
    width: int
    quality: int  # of the JPEG file
    stream: int  # which random numbers; a different one makes a different picture


SCENES = {
    "content.jpg": Scene(lake_town.paint, 640, 960, 92, 0),
    "style.jpg": Scene(oil_painting.paint, 640, 800, 90, 1),
    "style_mosaic.jpg": Scene(mosaic.paint, 640, 800, 85, 3),
}


def make_scene(name, seed=0, scale=1.0):
    """Return one scene as a picture.

    Parameters
    ----------
    name : str
        A key of `SCENES`.
    seed : int, default=0
    scale : float, default=1.0
        Size relative to the picture in this folder. The composition stays the same.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
    """
    scene = SCENES[name]
    rng = np.random.default_rng([seed, scene.stream])
    height, width = round(scene.height * scale), round(scene.width * scale)
    return to_uint8(scene.paint(rng, height, width))


def run(options):
    """Make and write the pictures that the options name."""
    for name in options.only:
        path = options.output_dir / name
        picture = make_scene(name, options.seed, options.scale)
        buffer = io.BytesIO()
        # subsampling=0 keeps the full colour resolution, which thin strokes need.
        image = Image.fromarray(picture)
        image.save(buffer, "JPEG", quality=SCENES[name].quality, subsampling=0)
        write_bytes(path, buffer.getvalue(), "the picture")
        print(f"{path}: {picture.shape[1]} x {picture.shape[0]}")


def main(argv=None):
    """Make the pictures; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Paint the content picture and the styles that the style transfer starts with.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output-dir", type=Path, default=HERE, help="folder for the pictures")
    parser.add_argument("--seed", type=bounded(int, least=0), default=0,
                        help="a different seed makes different pictures")  # fmt: skip
    parser.add_argument("--scale", type=bounded(float, least=0.1, most=5), default=1.0,
                        help="size factor, 0.1 to 5; 4 needs 8 GB")  # fmt: skip
    parser.add_argument("--only", choices=SCENES, nargs="+", metavar="FILE",
                        default=list(SCENES), help="which pictures to make")  # fmt: skip
    return exit_status(parser.prog, run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())

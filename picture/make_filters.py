"""Draw the filters of the first layer, learnt and random, enlarged: picture/filters.png.

    python picture/make_filters.py

A filter of conv1_1 is a 3x3 picture itself, with a red, a green and a blue weight at each pixel.
Grey is weight 0; the filter's output is largest at a patch that looks like it. Needs the pictures
that `make_scenes.py` makes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # run as a script, only picture/ would be on the path

from layers2 import ConvolutionalLayer  # noqa: E402
from style.learnt_filters import learn_filters, random_filters  # noqa: E402
from support.command import bounded, exit_status  # noqa: E402
from support.pictures import (  # noqa: E402
    check_picture_path,
    fitted,
    read_picture,
    resize_picture,
    write_picture,
)
from vgg.views import filter_tiles  # noqa: E402

FILTERS = 64  # in 8 rows of 8
LONGEST_SIDE = 384  # of the pictures that the filters are learnt from
MARGIN = 24
TITLE = 40  # height of the line above each panel
PAPER, INK = (250, 249, 246), (40, 40, 40)


def read_image(path):
    """Return a picture, shrunk to `LONGEST_SIDE`, minus its mean colour, as (1, 3, H, W)."""
    picture = read_picture(path)
    longest = min(LONGEST_SIDE, max(picture.shape[:2]))
    picture = resize_picture(picture, *fitted(picture, longest))
    x = picture.astype(np.float32).transpose(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
    return x - x.mean(axis=(2, 3), keepdims=True)


def draw(panels):
    """Return one picture of the (title, picture) panels side by side, each under its title."""
    side = len(panels[0][1])
    width = MARGIN + len(panels) * (side + MARGIN)
    image = Image.new("RGB", (width, TITLE + side + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=18)
    for number, (title, picture) in enumerate(panels):
        x = MARGIN + number * (side + MARGIN)
        pen.text((x, TITLE // 2), title, INK, font, anchor="lm")
        image.paste(Image.fromarray(picture), (x, TITLE))
    return np.array(image)


def run(options):
    """Make the filters, draw them and write the picture."""
    check_picture_path(options.output)
    images = [read_image(options.content), read_image(options.style)]
    panels = []
    for title, make_filters in (
        ("learnt from two pictures by k-means", learn_filters),
        ("random", random_filters),
    ):
        layer = ConvolutionalLayer(3, 3, FILTERS, 1, 1)
        make_filters({"conv1_1": layer}, images, np.random.default_rng(options.seed))
        panels.append((title, filter_tiles(layer.weight, paper=PAPER)))
    picture = draw(panels)
    write_picture(options.output, picture)
    print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}")


def main(argv=None):
    """Draw the filters; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Draw the learnt and the random filters of the first layer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--content", type=Path, default=HERE / "content.jpg",
                        help="one of the two pictures to learn from")  # fmt: skip
    parser.add_argument("--style", type=Path, default=HERE / "style.jpg",
                        help="the other picture to learn from")  # fmt: skip
    parser.add_argument("--output", type=Path, default=HERE / "filters.png",
                        help="file for the result; its extension chooses the format")  # fmt: skip
    parser.add_argument("--seed", type=bounded(int, least=0), default=0,
                        help="a different seed makes different filters")  # fmt: skip
    return exit_status(parser.prog, run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())

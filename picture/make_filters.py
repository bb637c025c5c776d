"""Draw the filters of the first layer, learnt and random, enlarged: picture/filters.png.

    python picture/make_filters.py

A filter of conv1_1 is a 3x3 picture itself, with a red, a green and a blue weight at each pixel.
Grey stands for weight 0; a filter answers most to a patch that looks like it. Needs the pictures
that `make_scenes.py` paints.
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
from support.command import InputError  # noqa: E402
from support.pictures import read_picture, resize_picture, write_picture  # noqa: E402

FILTERS = 64  # in 8 rows of 8
LONGEST_SIDE = 384  # of the pictures learnt from
PIXEL = 16  # pixels of the mosaic for each pixel of a filter
GAP = 8
MARGIN = 24
TITLE = 40  # height of the line above each mosaic
PAPER, INK = (250, 249, 246), (40, 40, 40)


def read_input(path):
    """Return a picture at the size learnt from, minus its mean colour, as (1, 3, H, W)."""
    rgb = read_picture(path)
    scale = min(1, LONGEST_SIDE / max(rgb.shape[:2]))
    rgb = resize_picture(rgb, *(max(1, round(side * scale)) for side in rgb.shape[:2]))
    x = rgb.astype(np.float32).transpose(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
    return x - x.mean(axis=(2, 3), keepdims=True)


def mosaic(weight):
    """Return filters of shape (3, 3, 3, 64) as 8x8 tiles on paper, an RGB picture.

    The grey ones come first, the most colourful last.
    """
    tiles = weight.transpose(3, 1, 2, 0)  # (C, K, K, 64) -> (64, K, K, C)
    tiles = tiles / abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    colourful = tiles.std(axis=3).mean(axis=(1, 2)) / abs(tiles).mean(axis=(1, 2, 3))
    tiles = tiles[np.argsort(colourful, kind="stable")]
    tiles = (127.5 + 127.5 * tiles + 0.5).astype(np.uint8)
    tiles = tiles.repeat(PIXEL, axis=1).repeat(PIXEL, axis=2)
    side = tiles.shape[1] + GAP
    picture = np.empty((8 * side - GAP, 8 * side - GAP, 3), np.uint8)
    picture[:] = PAPER
    for number, tile in enumerate(tiles):
        y, x = number // 8 * side, number % 8 * side
        picture[y : y + side - GAP, x : x + side - GAP] = tile
    return picture


def draw(panels):
    """Return the mosaics side by side, each under its title, as an RGB picture."""
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


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Draw the learnt and the random filters of the first layer.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--content", type=Path, default=HERE / "content.jpg")
    parser.add_argument("--style", type=Path, default=HERE / "style.jpg")
    parser.add_argument("--output", type=Path, default=HERE / "filters.png")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other filters")
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"argument --seed: must not be negative, got {options.seed}")
    try:
        pictures = [read_input(options.content), read_input(options.style)]
        panels = []
        for title, give_filters in (
            ("learnt from two pictures by k-means", learn_filters),
            ("random", random_filters),
        ):
            layer = ConvolutionalLayer(3, 3, FILTERS, 1, 1)
            give_filters({"conv1_1": layer}, pictures, np.random.default_rng(options.seed))
            panels.append((title, mosaic(layer.weight)))
        picture = draw(panels)
        write_picture(options.output, picture)
        print(f"{options.output}: {picture.shape[1]} x {picture.shape[0]}")
    except InputError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

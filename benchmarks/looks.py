"""Two rough measures of style transfer's results, for comparing settings and finding mistakes.

    python benchmarks/looks.py
    python benchmarks/looks.py --content a.jpg b.jpg --style c.jpg --size 400 800 --seed 0 1 2

Both compare pictures at 256x256 pixels.

Palette: how far the result's colours are from the style's, as a share of how far the content's are.
The distance is the 2-Wasserstein distance between two normal distributions with the mean and
covariance of the colours. 0 is the style's palette, 1 is the content's.

Structure: the Spearman correlation of the edge strength in content and result. 1 is the content
itself, 0 no relation.

They do not see beauty: a dull grey result can have good values. Look at the pictures, which are
written to a folder.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.stats
from common import print_table

from style.settings import Settings
from style_transfer_cpu import stylize
from support.command import bounded
from support.pictures import read_picture, resize_picture, write_picture

PICTURE = Path(__file__).resolve().parent.parent / "picture"
GREY = np.array([0.299, 0.587, 0.114])


def palette(content, style, result):
    """Return the distance of the result's colours to the style's, as a share of the content's."""
    return _colour_distance(result, style) / _colour_distance(content, style)


def _colour_distance(a, b):
    """Return the 2-Wasserstein distance between normal distributions fitted to two pictures."""
    (m1, c1), (m2, c2) = (
        (pixels.mean(axis=0), np.cov(pixels.T))
        for pixels in (_small(picture).reshape(-1, 3).astype(float) for picture in (a, b))
    )
    root = scipy.linalg.sqrtm(c2)
    cross = scipy.linalg.sqrtm(root @ c1 @ root).real
    return float(np.sqrt(np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * cross)))


def structure(content, result):
    """Return the rank correlation of the edge strength of content and result."""
    edges = [
        scipy.ndimage.gaussian_gradient_magnitude(_small(picture) @ GREY, 3)
        for picture in (content, result)
    ]
    return float(scipy.stats.spearmanr(*(each.ravel() for each in edges))[0])


def _small(picture):
    return resize_picture(picture, 256, 256)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--content", nargs="+", type=Path, default=[PICTURE / "content.jpg"], metavar="FILE")
    add("--style", nargs="+", type=Path, metavar="FILE",
        default=[PICTURE / "style.jpg", PICTURE / "style_mosaic.jpg"])  # fmt: skip
    add("--size", nargs="+", type=bounded(int, least=1), default=[400], metavar="PIXELS")
    add("--seed", nargs="+", type=bounded(int, least=0), default=[0], metavar="N")
    add("--weights", nargs="+", default=[None], metavar="WHAT")
    add("--output", type=Path, default=Path("looks"), metavar="FOLDER")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for content_path in options.content:
        for style_path in options.style:
            content, style = read_picture(content_path), read_picture(style_path)
            for size in options.size:
                for weights in options.weights:
                    for seed in options.seed:
                        settings = replace(Settings(), size=size, weights=weights, seed=seed)
                        start = time.perf_counter()
                        result = stylize(content, [style], settings)
                        seconds = time.perf_counter() - start
                        name = f"{content_path.stem}_{style_path.stem}_{size}_{weights}_{seed}.png"
                        write_picture(options.output / name, result)
                        values = palette(content, style, result), structure(content, result)
                        rows.append([name, *(f"{v:.2f}" for v in values), f"{seconds:.0f}"])
                        print(*rows[-1], file=sys.stderr, flush=True)
    print_table(["picture", "palette", "structure", "seconds"], rows)


if __name__ == "__main__":
    main()

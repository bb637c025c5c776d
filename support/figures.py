"""Draws pictures for people to look at: sheets of captioned pictures, heat maps and bars.

A picture is a uint8 array (H, W, 3), sRGB. The colours of a map become steadily lighter with the
value, so they can be told apart in a grey print and by colour-blind readers.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from support.pictures import resize_picture

PAPER, INK, BAR, TRACK = (255, 255, 255), (40, 40, 40), (0, 114, 178), (230, 230, 230)
MARGIN, GAP, TEXT = 20, 12, 18  # pixels; TEXT is the height of the letters
LINE = 2 * TEXT  # height of a line of text
CHART = 420  # width of a bar chart
COLOURS = "magma"  # Matplotlib's name: black, violet, orange, light yellow


def colour_map(values, share=1.0):
    """Return values (H, W) as a picture: 0 and less is black, the maximum light.

    With a smaller `share`, that quantile and all above it are equally light, so that a few very
    large values do not leave the rest dark.
    """
    from matplotlib import colormaps  # here, because importing it is slow and few runs need it

    most = np.quantile(values, share)
    most = most if most > 0 else values.max()
    scaled = np.clip(values / most, 0, 1) if most > 0 else np.zeros(values.shape)
    return np.rint(255 * colormaps[COLOURS](scaled)[..., :3]).astype(np.uint8)


def overlay(picture, values):
    """Return `picture`, in grey, under the colours of a map (h, w), which is enlarged to its size.

    The larger the value, the more of the colour and the less of the picture is seen.
    """
    height, width, _ = picture.shape
    smooth = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.BICUBIC)
    smooth = np.maximum(smooth, 0)
    most = smooth.max()
    share = 0.75 * (smooth / most if most > 0 else smooth)[..., np.newaxis]
    grey = picture.mean(axis=2, keepdims=True)  # (H, W, 3) -> (H, W, 1)
    return np.rint((1 - share) * grey + share * colour_map(smooth)).astype(np.uint8)


def enlarged(picture, width):
    """Return `picture` at this width, or at twice this height if it is narrower than that.

    Small ones keep their pixels visible, as squares.
    """
    H, W, _ = picture.shape
    scale = min(width / W, 2 * width / H)
    size = max(1, round(scale * W)), max(1, round(scale * H))
    if scale >= 2:
        return np.array(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    return resize_picture(picture, size[1], size[0], "lanczos")


def in_rows(cells, columns):
    """Return `cells` as the rows of a sheet, with `columns` of them in each."""
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def at_one_height(rows, width, height):
    """Return the rows of a sheet, all pictures resized to `height`, or less if they are too wide.

    `width` is that of the widest row, with the gaps.
    """
    for row in rows:
        aspects = sum(picture.shape[1] / picture.shape[0] for _, picture in row)
        height = min(height, (width - GAP * (len(row) - 1)) / aspects)

    def resized(picture):
        H, W, _ = picture.shape
        size = max(1, int(height)), max(1, round(W * height / H))
        return resize_picture(picture, *size, "lanczos")

    return [[(caption, resized(picture)) for caption, picture in row] for row in rows]


def sheet(title, rows):
    """Return one picture of rows of pictures, under a title.

    `rows` are lists of (str, picture). Each picture has its caption below, cut to its width.
    """
    font, large = ImageFont.load_default(TEXT), ImageFont.load_default(1.3 * TEXT)
    widths = [sum(picture.shape[1] + GAP for _, picture in row) - GAP for row in rows]
    heights = [max(picture.shape[0] for _, picture in row) + LINE for row in rows]
    width = max(*widths, round(large.getlength(title))) + 2 * MARGIN
    image = Image.new("RGB", (width, 2 * MARGIN + LINE + sum(heights)), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN), title, INK, large)
    top = MARGIN + LINE
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for caption, picture in row:
            image.paste(Image.fromarray(picture), (left, top))
            text = _cut(caption, font, picture.shape[1])
            pen.text((left, top + picture.shape[0] + TEXT // 3), text, INK, font)
            left += picture.shape[1] + GAP
        top += height
    return np.array(image)


def bar_chart(picture, bars):
    """Return `picture` with a bar chart to its right.

    `bars` is a list of (str, float): a name, and a share from 0 to 1. The whole track is 100 %.
    """
    font = ImageFont.load_default(TEXT)
    row = 2 * LINE - TEXT // 2
    height = max(picture.shape[0], row * len(bars))
    left = MARGIN + picture.shape[1] + 2 * GAP
    image = Image.new("RGB", (left + CHART + MARGIN, height + 2 * MARGIN), PAPER)
    image.paste(Image.fromarray(picture), (MARGIN, MARGIN + (height - picture.shape[0]) // 2))
    pen = ImageDraw.Draw(image)
    top = MARGIN + (height - row * len(bars)) // 2
    right = left + CHART
    for name, share in bars:
        percent = f"{share:.1%}"
        room = CHART - font.getlength(percent) - GAP
        pen.text((left, top), _cut(name, font, room), INK, font)
        pen.text((right, top), percent, INK, font, anchor="ra")
        bar = top + round(1.4 * TEXT)
        pen.rectangle((left, bar, right, bar + TEXT // 2), TRACK)
        pen.rectangle((left, bar, left + round(CHART * share), bar + TEXT // 2), BAR)
        top += row
    return np.array(image)


def _cut(text, font, width):
    """Return `text`, its end replaced by dots if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."

"""What shows the way to a picture: an animation, a contact sheet, and a plot of the losses.

All of them take plain data. Pictures are uint8 arrays of shape (H, W, 3) in sRGB. The *frames* are
a list of (step, picture), all of one size and of the aspect of the result. The *report* is the dict
that the style transfer also writes as JSON. `report_page.py` makes an HTML page of it all.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from support.command import InputError
from support.files import atomic_path
from support.pictures import resize_picture, shrunk, write_picture

ANIMATION_EXTENSIONS = (".gif", ".webp")
PLOT_EXTENSIONS = (".png", ".svg", ".pdf")
REPORT_EXTENSIONS = (".json", ".html")

FRAME_MS = 80  # 12.5 frames a second; GIF counts in hundredths of a second
HOLD_MS = 2000  # how long an animation shows the result
FRAME_SIDE = 480  # pixels: longest side of the frames of an animation
PALETTE_SAMPLE = 50_000  # pixels that choose the colours of a GIF; ten times as many take a minute

# A contact sheet's sizes, in pixels.
SHEET_WIDTH = 1600
SOURCES_BOX = (900, 520)  # height of all rows of content, styles and result; of one row at most
FRAMES_BOX = (640, 300)  # the same for the rows of frames
SHEET_FRAMES = 8
MARGIN, GAP, CAPTION = 40, 24, 22
PAPER, INK = (255, 255, 255), (51, 51, 51)

# Colours that people with any kind of colour vision tell apart (M. Okabe and K. Ito, "Color
# Universal Design", 2008), and line styles for those who print in grey.
LOSS_LINES = {
    "total": ("#000000", "-"),
    "content": ("#0072B2", "--"),
    "style": ("#D55E00", "-."),
    "tv": ("#009E73", ":"),
}


def check_animation_path(path):
    """Raise `InputError` unless `write_animation` knows the format of the extension of `path`."""
    _check_extension(path, ANIMATION_EXTENSIONS, "animation")


def check_plot_path(path):
    """Raise `InputError` unless `plot_losses` knows the format of the extension of `path`."""
    _check_extension(path, PLOT_EXTENSIONS, "plot")


def check_report_path(path):
    """Raise `InputError` unless a report can be written in the format of `path`'s extension."""
    _check_extension(path, REPORT_EXTENSIONS, "report")


def write_animation(path, frames, result):
    """Write the frames, then the result held for two seconds, as an animation that loops.

    Parameters
    ----------
    path : str or Path
        Ends in .gif or .webp.
    frames : list of (int, ndarray of shape (h, w, 3))
        May be empty: then the result stands alone.
    result : ndarray of shape (H, W, 3)
        Is shrunk to the size of the frames.

    Raises
    ------
    InputError
        If the extension is another or the file cannot be written.
    """
    import imageio.v3 as imageio  # here, because most runs make no animation

    check_animation_path(path)
    extension = Path(path).suffix.lower()
    pictures = [picture for _, picture in way_there(frames, result)]
    if extension == ".gif":
        pictures = _with_256_colours(pictures)
    durations = [FRAME_MS] * (len(pictures) - 1) + [HOLD_MS]
    with atomic_path(path, "the animation") as temporary:
        imageio.imwrite(
            temporary,
            pictures,
            plugin="pillow",
            extension=extension,
            duration=durations if len(durations) > 1 else HOLD_MS,
            loop=0,  # for ever
            quality=85,  # WebP; GIF has no such thing
        )


def write_contact_sheet(path, content, styles, frames, result):
    """Write one picture of content, styles and result, and below them up to 8 of the frames.

    Parameters
    ----------
    path : str or Path
        See `support.pictures.write_picture`.
    content, result : ndarray of shape (H, W, 3)
    styles : list of ndarray of shape (H, W, 3)
    frames : list of (int, ndarray of shape (h, w, 3))
        May be empty.

    Raises
    ------
    InputError
        If the extension is not known or the file cannot be written.
    """
    sources = [("content", content), *style_captions(styles), ("result", result)]
    chosen = [(f"step {step}", picture) for step, picture in evenly(frames, SHEET_FRAMES)]
    rows = _rows(sources, *SOURCES_BOX) + _rows(chosen, *FRAMES_BOX)
    row_widths = [sum(cell.width for cell in row) + GAP * (len(row) - 1) for row in rows]
    row_heights = [max(cell.height for cell in row) for row in rows]
    width = 2 * MARGIN + max(row_widths)
    height = 2 * MARGIN + sum(row_heights) + GAP * (len(rows) - 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for row, row_width, row_height in zip(rows, row_widths, row_heights, strict=True):
        left = (width - row_width) // 2
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + GAP
        top += row_height + GAP
    write_picture(path, np.array(sheet))


def plot_losses(path, report):
    """Plot the weighted losses by step on a logarithmic axis, with a line where a scale begins.

    Losses of exactly 0 (a weight of 0 makes them) have no place on such an axis and are left out.
    The same report makes the same bytes, on any day.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .svg or .pdf.
    report : dict
        Read are "steps" (dicts of the losses "content", "style", "tv", one a step) and "scales"
        (dicts of "height", "width", "steps", from coarse to fine).

    Raises
    ------
    InputError
        If the extension is another or the file cannot be written.
    """
    # Slow to import, and few runs plot. Figure is used without pyplot, which keeps global state.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    check_plot_path(path)
    losses = loss_series(report)
    count = len(report["steps"])
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    for name, values in losses.items():
        color, dashes = LOSS_LINES[name]
        axes.plot(
            np.arange(1, count + 1),
            values,
            dashes,
            color=color,
            linewidth=2 if name == "total" else 1.6,
            marker="o" if count == 1 else None,
            label=name,
        )
    for start, left, row, label in scale_labels(report, width=0.12):
        axes.axvline(start * count + 0.5, color="#999999", linewidth=0.7, zorder=0)
        y = 1.01 + 0.045 * row
        axes.text(left, y, label, transform=axes.transAxes, fontsize=9, color="#555555")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if losses:
        axes.set_yscale("log")
        axes.set_ylim(*log_limits(losses))
        axes.set_ylabel("weighted loss (no unit, logarithmic)")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no loss above 0", transform=axes.transAxes, ha="center")
    axes.set_xlim(0.5, max(count, 1) + 0.5)
    # What would differ from day to day: the date, and the random names inside an SVG.
    extension = Path(path).suffix.lower()
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with (
        matplotlib.rc_context({"svg.hashsalt": "losses"}),
        atomic_path(path, "the plot") as temporary,
    ):
        figure.savefig(temporary, format=extension[1:], metadata=dates[extension])


# --- shared with the page ---


def style_captions(styles):
    """Return [("style", picture)], or "style 1", "style 2" and so on where there are several."""
    if len(styles) == 1:
        return [("style", styles[0])]
    return [(f"style {i}", style) for i, style in enumerate(styles, 1)]


def way_there(frames, result):
    """Return (caption, picture) of every frame and of the result, all of the frames' size."""
    if frames:
        last = resize_picture(result, *frames[0][1].shape[:2], "lanczos")
    else:
        last = shrunk(result, FRAME_SIDE)
    return [*((f"step {step}", picture) for step, picture in frames), ("result", last)]


def evenly(items, most):
    """Return at most `most` of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def loss_series(report):
    """Return the losses to be drawn: {name: values}, NaN in place of what a log axis cannot show.

    The name "total" (the sum of the others) comes first. Losses that are never above 0 are missing.
    """
    names = [name for name in LOSS_LINES if name != "total"]
    table = np.array([[step[name] for name in names] for step in report["steps"]], dtype=float)
    table = table.reshape(-1, len(names))  # (steps, 3), also if there was no step
    series = dict(zip(["total", *names], [table.sum(axis=1), *table.T], strict=True))
    drawable = {
        name: np.where((values > 0) & np.isfinite(values), values, np.nan)
        for name, values in series.items()
    }
    return {name: values for name, values in drawable.items() if not np.isnan(values).all()}


def log_limits(losses):
    """Return the ends of a logarithmic axis that holds all losses, and a decade at least."""
    values = np.log10(np.concatenate(list(losses.values())))
    low, high = np.nanmin(values), np.nanmax(values)
    pad = max(0.04 * (high - low), (1 - (high - low)) / 2)
    return 10 ** (low - pad), 10 ** (high + pad)


def scale_labels(report, width):
    """Place a label above a plot of the losses for every scale that was begun.

    Parameters
    ----------
    report : dict
    width : float
        Width of a label, as a share of the width of the plot.

    Returns
    -------
    list of (start, left, row, label)
        Where the scale begins and where its label does, as shares of the plot's width; the row of
        the label (0 is the lowest), so that no two overlap; and the label, such as "400×267".
    """
    count = len(report["steps"])
    labels, ends, done = [], [], 0  # ends: where the last label of each row ends
    for scale in report["scales"]:
        if done >= max(count, 1):
            break  # the run was stopped before
        start = done / max(count, 1)
        left = min(start, 1 - width)
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + width]
        labels.append((start, left, row, f"{scale['width']}×{scale['height']}"))
        done += scale["steps"]
    return labels


# --- the rest of this module ---


def _check_extension(path, known, what):
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        asked = f"the extension {suffix!r}" if suffix else "no extension"
        raise InputError(f"cannot write the {what} {path} with {asked}; use {' or '.join(known)}")


def _with_256_colours(pictures):
    """Reduce pictures to the 256 colours a GIF frame can have, chosen by k-means for all together.

    One palette for all frames: with one for each, what stands still would flicker. Floyd-Steinberg
    dithering: without it, smooth skies turn into bands.
    """
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in evenly(pictures, 24)])
    sample = pixels[:: max(1, len(pixels) // PALETTE_SAMPLE)]
    palette = Image.fromarray(sample[np.newaxis]).quantize(  # (N, 3) -> a picture of one row
        256, method=Image.Quantize.MAXCOVERAGE, kmeans=1
    )
    dither = Image.Dither.FLOYDSTEINBERG
    return [
        np.array(Image.fromarray(picture).quantize(palette=palette, dither=dither).convert("RGB"))
        for picture in pictures
    ]


def _rows(captioned, box_height, row_height):
    """Lay pictures out in rows of one height, as large as they fit; return rows of Pillow images.

    More rows make room for wide pictures, fewer for high ones. Every number of rows is tried; one
    more must pay with pictures larger by a third.
    """
    if not captioned:
        return []
    best_height, best_rows = 0, None
    for count in range(1, len(captioned) + 1):
        each = -(-len(captioned) // count)  # rounded up
        rows = [captioned[i : i + each] for i in range(0, len(captioned), each)]
        height = min(row_height, box_height / len(rows))
        for row in rows:
            aspects = sum(picture.shape[1] / picture.shape[0] for _, picture in row)
            height = min(height, (SHEET_WIDTH - GAP * (len(row) - 1)) / aspects)
        if height > 1.33 * best_height:
            best_height, best_rows = height, rows
    height = max(1, int(best_height))
    return [[_cell(caption, picture, height) for caption, picture in row] for row in best_rows]


def _cell(caption, picture, height):
    """Return the picture at this height, with its caption below, as a Pillow image."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    font = ImageFont.load_default(CAPTION)
    caption_width = int(np.ceil(font.getlength(caption)))
    cell = Image.new("RGB", (max(width, caption_width), height + 2 * CAPTION), PAPER)
    scaled = Image.fromarray(resize_picture(picture, height, width, "lanczos"))
    cell.paste(scaled, ((cell.width - width) // 2, 0))
    middle = (cell.width // 2, height + CAPTION // 2)
    ImageDraw.Draw(cell).text(middle, caption, fill=INK, font=font, anchor="ma")
    return cell

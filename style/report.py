"""Files about a style transfer: an animation, a contact sheet, and a plot of the losses.

`page.py` shows all of it in one HTML page. Every function that writes raises `InputError` if the
extension is unknown or the file cannot be written. All take plain data:

content, result : ndarray of shape (H, W, 3)
    Pictures: uint8, sRGB. The sizes may differ.
styles : list of ndarray of shape (H, W, 3)
frames : list of (int, ndarray of shape (h, w, 3))
    Step and picture, all of one size and of the same aspect as the result. May be empty.
report : dict
    "command" (str), "options" (dict), "weights" (str), "size" ([height, width]), "scales" (dicts of
    "height", "width", "steps", from coarse to fine), "steps" (one dict for each step with the
    weighted losses "content", "style", "tv"), "seconds", "threads", "peak_memory_bytes" (int or
    None), "versions" (dict). The program also writes it as JSON.
"""

import io
import logging
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from support.figures import at_one_height, in_rows, sheet
from support.files import check_extension, write_bytes
from support.pictures import resize_picture, shrunk, write_picture

# Each raises `InputError` unless its argument, a path, has a known extension.
check_animation_path = partial(check_extension, "animation", (".gif", ".webp"))
check_plot_path = partial(check_extension, "plot", (".png", ".svg", ".pdf"))
check_report_path = partial(check_extension, "report", (".json", ".html"))

FRAME_MS = 80  # 12.5 frames a second; the unit of GIF is 10 ms
HOLD_MS = 2000  # how long an animation shows the result
FRAME_SIDE = 480  # pixels: longest side of the frames of an animation
PALETTE_SAMPLE = 50_000  # pixels that choose the colours of a GIF; ten times as many take 11 s

# In a contact sheet; heights are the largest ones, in pixels.
SHEET_WIDTH, SHEET_FRAMES = 1600, 8
SOURCES_HEIGHT, FRAMES_HEIGHT = 520, 300

# The losses have colours that colour-blind readers can tell apart (M. Okabe and K. Ito, "Color
# Universal Design", 2008), and line styles for prints in grey.
PLOT_COLORS = {
    "total": "#000000", "content": "#0072b2", "style": "#d55e00", "tv": "#009e73",
    "grid": "#e0e0e0", "scale": "#666666",
}
LINE_STYLES = {"total": "-", "content": "--", "style": "-.", "tv": ":"}


def write_animation(path, frames, result):
    """Write an animation (.gif, .webp) that loops: the frames, then the result for two seconds.

    The result is resized to the size of the frames; without frames, it is shown alone.
    """
    check_animation_path(path)
    pictures = [Image.fromarray(picture) for _, picture in frames_and_result(frames, result)]
    if Path(path).suffix.lower() == ".gif":
        pictures = _with_256_colours(pictures)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, Path(path).suffix[1:].upper(), save_all=True, append_images=pictures[1:],
        duration=[FRAME_MS] * len(frames) + [HOLD_MS],
        loop=0,  # without end
        quality=85,  # of WebP; GIF ignores it
    )  # fmt: skip
    write_bytes(path, buffer.getvalue(), "the animation")


def write_contact_sheet(path, content, styles, frames, result):
    """Write one picture that shows content, styles and result, and below them up to 8 frames.

    The extensions are those of `support.pictures.write_picture`.
    """
    sources = [("content", content), *captioned_styles(styles), ("result", result)]
    chosen = [(f"step {step}", picture) for step, picture in choose_evenly(frames, SHEET_FRAMES)]
    columns = len(sources) if len(sources) <= 4 else (len(sources) + 1) // 2
    rows = at_one_height(in_rows(sources, columns), SHEET_WIDTH, SOURCES_HEIGHT)
    columns = SHEET_FRAMES // 2 if result.shape[1] > result.shape[0] else SHEET_FRAMES
    rows += at_one_height(in_rows(chosen, columns), SHEET_WIDTH, FRAMES_HEIGHT)
    write_picture(path, sheet("Style transfer", rows))


def plot_losses(path, report):
    """Plot the weighted losses by step on a logarithmic axis, with a line where a scale begins.

    The format is .png, .svg or .pdf. A loss of 0 (its weight is 0) has no place on such an axis and
    is left out. The same report gives the same bytes on every day.
    """
    check_plot_path(path)
    buffer = io.BytesIO()
    draw_losses(buffer, Path(path).suffix[1:].lower(), report, size=(9, 5))
    write_bytes(path, buffer.getvalue(), "the plot")


# --- shared with the page ---


def draw_losses(file, file_format, report, size, transparent=False):
    """Draw the plot of `plot_losses`, `size` = (width, height) inches, to a binary file.

    Return left, bottom, width and height of its axes, as fractions of the figure.
    """
    # Importing Matplotlib is slow and few runs plot. Figure needs no pyplot, which is global state.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no word on a read-only home folder
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "font.size": 10, "grid.color": PLOT_COLORS["grid"], "grid.linewidth": 0.6,
        "axes.spines.top": False, "axes.spines.right": False,
        "legend.frameon": False, "legend.columnspacing": 1.5, "legend.markerscale": 0,
        "svg.fonttype": "none",
        "svg.hashsalt": f"losses {size}",  # ids that are always the same, but differ between sizes
    }
    no_metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])  # the date differs
    metadata = {"svg": no_metadata, "pdf": {"CreationDate": None}}.get(file_format)
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.add_subplot(xlabel="step")
        _draw_scales(axes, report, points=72 * size[0])
        _draw_curves(axes, loss_series(report))
        figure.savefig(file, format=file_format, metadata=metadata, transparent=transparent)
    return axes.get_position().bounds


def captioned_styles(styles):
    """Return [("style", picture)], or "style 1", "style 2" and so on if there are several."""
    alone = len(styles) == 1
    return [("style" if alone else f"style {i}", style) for i, style in enumerate(styles, 1)]


def frames_and_result(frames, result):
    """Return (caption, picture) of every frame and of the result, all of the frames' size."""
    if not frames:
        return [("result", shrunk(result, FRAME_SIDE))]
    last = resize_picture(result, *frames[0][1].shape[:2], "lanczos")
    return [*((f"step {step}", picture) for step, picture in frames), ("result", last)]


def choose_evenly(items, most):
    """Return at most `most` of the items, evenly spaced, with the first and the last."""
    indices = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[i] for i in indices]


def loss_series(report):
    """Return the weighted losses as {name: one value a step}; the first is "total", their sum."""
    names = [name for name in LINE_STYLES if name != "total"]
    parts = {name: np.array([step[name] for step in report["steps"]], float) for name in names}
    return {"total": sum(parts.values()), **parts}


def _draw_scales(axes, report, points):
    """Draw a line where a scale begins; write its size above it. `points`: width of the figure."""
    count = max(1, len(report["steps"]))
    axes.set_xlim(0.5, count + 0.5)  # every step has a column of its own
    end, color = 0, PLOT_COLORS["scale"]
    for scale in report["scales"]:
        begin, end = end, min(end + scale["steps"], count)
        if end > begin:  # else the run was stopped before
            axes.axvline(begin + 0.5, color=color, linewidth=0.6, zorder=0)
        label = f"{scale['width']}×{scale['height']}"
        if (end - begin) / count * points > 8 * len(label):  # enough room
            middle, above = (begin + end + 1) / 2, axes.get_xaxis_transform()
            axes.text(middle, 1.01, label, color=color, transform=above, ha="center", va="bottom")


def _draw_curves(axes, losses):
    """Draw every loss that is above 0 somewhere, on axes with round numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    drawn = []
    for name, values in losses.items():
        values = np.where((values > 0) & np.isfinite(values), values, np.nan)  # NaN: a gap
        if np.isnan(values).all():
            continue
        drawn.append(values)
        gaps = np.isnan(np.pad(values, 1, constant_values=np.nan))
        alone = np.flatnonzero(~gaps[1:-1] & gaps[:-2] & gaps[2:])  # these need a dot
        axes.plot(
            np.arange(1, len(values) + 1), values, LINE_STYLES[name], marker="o", markevery=alone,
            label=name, color=PLOT_COLORS[name], linewidth=2 if name == "total" else 1.5,
        )
    if not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no loss above 0", transform=axes.transAxes, ha="center")
        return
    low, high = np.nanmin(np.log10(drawn)), np.nanmax(np.log10(drawn))
    room = max(0.04 * (high - low), (1 - (high - low)) / 2)  # show one power of ten at least
    axes.set(yscale="log", ylim=(10 ** (low - room), 10 ** (high + room)), ylabel="weighted loss")
    axes.grid(axis="y")
    digits = (1, 2, 5) if high - low < 3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=digits, numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.figure.legend(loc="outside lower center", ncols=len(drawn))


def _with_256_colours(pictures):
    """Reduce Pillow images to the 256 colours that a GIF has, one palette for all of them.

    With a palette for each frame, still areas would flicker. Without dithering, smooth areas would
    show bands.
    """
    pixels = np.concatenate([np.reshape(image, (-1, 3)) for image in choose_evenly(pictures, 24)])
    sample = pixels[:: max(1, len(pixels) // PALETTE_SAMPLE)]
    palette = Image.fromarray(sample[np.newaxis]).quantize(  # (N, 3) -> (1, N, 3)
        256, method=Image.Quantize.MAXCOVERAGE, kmeans=1
    )
    dither = Image.Dither.FLOYDSTEINBERG
    return [image.quantize(palette=palette, dither=dither) for image in pictures]

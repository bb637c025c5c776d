"""One self-contained HTML page about a style transfer: pictures, losses, command and facts.

Layout and script are in `report.html`, beside this file; here its $names are filled in. Pictures
are part of the page (data URIs), so it can be sent to anybody and asks nothing of any network.
"""

import base64
import html
import io
import json
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from style.report import (
    evenly,
    log_limits,
    loss_series,
    scale_labels,
    style_captions,
    way_there,
)
from support.files import atomic_path
from support.pictures import resize_picture, shrunk

TEMPLATE = Path(__file__).with_name("page.html")

# Longest sides in pixels, and JPEG qualities.
LARGE, LARGE_QUALITY = 1600, 92  # result, and content in its place
SMALL, SMALL_QUALITY = 800, 88  # content and styles side by side
FRAME_QUALITY = 82
PAGE_FRAMES = 30  # about 1.5 MB at the usual 480 pixels


def write_html(path, report, content, styles, frames, result):
    """Write the page.

    Parameters
    ----------
    path : str or Path
    report : dict
        "command" (str), "options" (dict), "weights" (str), "size" ([height, width]), "scales"
        (dicts of "height", "width", "steps", from coarse to fine), "steps" (dicts of "content",
        "style", "tv", "seconds", one a step, weighted), "seconds", "threads", "peak_memory_bytes"
        (int or None), "versions" (dict).
    content, result : ndarray of shape (H, W, 3)
        uint8, sRGB. The content is shown at the size of the result.
    styles : list of ndarray of shape (H, W, 3)
    frames : list of (int, ndarray of shape (h, w, 3))
        Step and picture; at most 30, evenly chosen, are shown. May be empty.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    result = shrunk(result, LARGE)
    height, width = result.shape[:2]
    summary = [
        f"{report['size'][1]}×{report['size'][0]} pixels",
        _counted(len(report["steps"]), "step"),
        _duration(report["seconds"]),
    ]
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=_text("Style transfer: " + ", ".join(summary)),
        heading="Style transfer",
        summary=_text(" · ".join(summary)),
        width=width,
        height=height,
        result=_data_uri(result, LARGE_QUALITY),
        content=_data_uri(resize_picture(content, height, width, "lanczos"), LARGE_QUALITY),
        sources=_sources(content, styles),
        way=_way(frames, result),
        losses=_losses(report),
        command=_text(report["command"]),
        facts=_facts(report),
    )
    with atomic_path(path, "the report") as temporary:
        # File names that are not text at all (surrogates in Python) become question marks.
        temporary.write_text(page, "utf-8", errors="replace")


def _text(value):
    """Return `value` as text that means itself in HTML, also between double quotes."""
    return html.escape(str(value))


def _counted(number, noun):
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"


def _data_uri(picture, quality):
    """Return the picture as a JPEG (chroma as fine as brightness) inside a URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _sources(content, styles):
    """Return figures of the content and the styles."""
    figures = []
    for caption, picture in [("content", content), *style_captions(styles)]:
        small = shrunk(picture, SMALL)
        height, width = small.shape[:2]
        uri = _data_uri(small, SMALL_QUALITY)
        figures.append(
            f'<figure style="--aspect: {width / height:.4f}">'
            f'<img src="{uri}" width="{width}" height="{height}" alt="The {caption} picture">'
            f"<figcaption>{caption.capitalize()}, {picture.shape[1]}×{picture.shape[0]} pixels"
            "</figcaption></figure>"
        )
    return "\n".join(figures)


def _way(frames, result):
    """Return one large frame, a range that chooses which, and a strip of all of them."""
    if not frames:
        return '<p class="soft">No steps were saved on the way.</p>'
    way = way_there(evenly(frames, PAGE_FRAMES), result)
    height, width = way[0][1].shape[:2]
    uris = [_data_uri(picture, FRAME_QUALITY) for _, picture in way]
    buttons = [
        f'<button type="button"><img src="{uri}" width="{width}" height="{height}" alt="">'
        f"{caption}</button>"
        for (caption, _), uri in zip(way, uris, strict=True)
    ]
    return "\n".join(
        [
            f'<div class="shown fit" style="--w: {width}; --h: {height}">',
            f'<img src="{uris[0]}" alt="The picture, {way[0][0]}">',
            '<div class="scrub">',
            f'<input type="range" id="scrub" min="0" max="{len(way) - 1}" value="0"'
            ' autocomplete="off" aria-label="Saved step to show">',
            f'<output id="shown">{way[0][0]}</output>',
            "</div></div>",
            '<div class="strip">',
            *buttons,
            "</div>",
        ]
    )


def _losses(report):
    """Return the loss curves on a logarithmic axis, their legend, and a range that reads them."""
    losses = loss_series(report)
    if not losses:
        return '<p class="soft">No loss was above 0.</p>'
    count = len(report["steps"])
    low, high = np.log10(log_limits(losses))
    begins = scale_labels(report, width=0.22)

    def x(step):  # in thousandths of the plot's width; every step has a column of its own
        return 1000 * (step - 0.5) / count

    def y(value):  # in thousandths of its height, from the top
        return 1000 * (high - np.log10(value)) / (high - low)

    y_ticks = _log_ticks(10**low, 10**high)
    paths = [_path("grid", (f"M0 {y(value):.1f}H1000" for value in y_ticks))]
    paths.append(_path("begin", (f"M{1000 * begin[0]:.1f} 0V1000" for begin in begins)))
    for name, values in reversed(losses.items()):  # the total last, over the others
        paths += _curve(name, values, x, y)
    ticks = [
        *(f'<span class="tick y" style="top: {y(v) / 10:.2f}%">{v:g}</span>' for v in y_ticks),
        *(
            f'<span class="tick x" style="left: {x(step) / 10:.2f}%">{step}</span>'
            for step in _step_ticks(count)
        ),
        *(
            f'<span class="tick size" style="left: {100 * left:.2f}%; --row: {row}">{label}</span>'
            for _, left, row, label in begins
        ),
    ]
    legend = [
        f'<span><svg viewBox="0 0 26 10" aria-hidden="true"><path class="{name}" d="M0 5H26"/>'
        f'</svg>{name} <output id="value-{name}"></output></span>'
        for name in losses
    ]
    shown = {
        name: [None if np.isnan(v) else float(f"{v:.4g}") for v in values]
        for name, values in losses.items()
    }
    rows = 1 + max((row for _, _, row, _ in begins), default=0)
    return "\n".join(
        [
            '<p class="soft">Weighted losses by step, on a logarithmic axis; they have no unit.'
            " Dotted lines: where a scale begins, with its size in pixels.</p>",
            '<div class="legend"><span>step <output id="at-step"></output></span>',
            *legend,
            "</div>",
            f'<div class="chart" style="--rows: {rows}"><div class="plot">',
            '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"'
            f' aria-label="Curves of the losses {", ".join(losses)} by step">',
            *paths,
            "</svg>",
            *ticks,
            '<span class="cursor"></span>',
            "</div></div>",
            '<div class="axis"><label for="step">step</label>',
            f'<input type="range" id="step" min="1" max="{count}" value="{count}"'
            ' autocomplete="off"></div>',
            f'<script type="application/json" id="loss-values">{json.dumps(shown)}</script>',
        ]
    )


def _path(classes, moves):
    return f'<path class="{classes}" d="{"".join(moves)}"/>'


def _curve(name, values, x, y):
    """Return the SVG paths of one loss: lines, and dots for values that have no neighbours."""
    lines, dots = [], []
    drawn = np.flatnonzero(~np.isnan(values))
    for run in np.split(drawn, np.flatnonzero(np.diff(drawn) > 1) + 1):
        points = [f"{x(i + 1):.1f} {y(values[i]):.1f}" for i in run]
        if len(points) == 1:
            dots.append(f"M{points[0]}h0")  # no length, but round ends
        else:
            lines.append("M" + "L".join(points))
    curves = [(f"loss {name}", lines), (f"loss dot {name}", dots)]
    return [_path(classes, moves) for classes, moves in curves if moves]


def _log_ticks(low, high):
    """Return 1, 2 and 5 times powers of ten from `low` to `high`, or fewer where those crowd."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    apart = 1 + (last - first) // 10  # powers of ten from one tick to the next
    for digits in ((1, 2, 5), (1,)):
        powers = range(first, last + 1, apart)
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 8:
            break
    return ticks


def _step_ticks(count):
    """Return at most 6 round step numbers up to `count`."""
    apart = next(d * 10**p for p in range(20) for d in (1, 2, 5) if count <= 6 * d * 10**p)
    return list(range(apart, count + 1, apart))


def _facts(report):
    """Return two tables: of the run, and of its options."""
    memory = report["peak_memory_bytes"]
    run = {
        "size": f"{report['size'][1]}×{report['size'][0]} pixels",
        "scales": ", ".join(f"{s['width']}×{s['height']}" for s in report["scales"]),
        "steps by scale": " + ".join(f"{scale['steps']:,}" for scale in report["scales"]),
        "steps made": f"{len(report['steps']):,}",
        "time": _duration(report["seconds"]),
        "threads": report["threads"],
        "peak memory": "not known" if memory is None else f"{memory / 1e6:,.0f} MB",
        "weights": report["weights"],
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
    }
    options = {name.replace("_", "-"): _value(value) for name, value in report["options"].items()}
    return _table("Run", run) + "\n" + _table("Options", options)


def _value(value):
    """Return the value of an option as one would say it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(part)}" for name, part in value.items()) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(caption, facts):
    rows = [
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in facts.items()
    ]
    return "\n".join([f"<table><caption>{caption}</caption>", *rows, "</table>"])

"""One self-contained HTML page about a style transfer: pictures, losses, command and facts.

This module computes what the page says; `page.html`, a Jinja template, says how it looks. Pictures
are inside the page (data URIs), so the page is one file that needs no network.
"""

import base64
import io
import re
from pathlib import Path

from PIL import Image

from style.report import (
    PLOT_COLORS,
    captioned_styles,
    choose_evenly,
    draw_losses,
    frames_and_result,
    loss_series,
)
from support.files import write_bytes
from support.machine import format_seconds
from support.pictures import resize_picture, shrunk

# Longest sides, in pixels.
LARGE = 1600  # result and content, one over the other
SMALL = 800  # content and styles, side by side
PAGE_FRAMES = 30  # about 1.5 MB at the usual 480 pixels
CHARTS = {"wide": (8.5, 3.8), "narrow": (3.8, 3.8)}  # inches; the page shows the one that fits


def write_html(path, report, content, styles, frames, result):
    """Write the page; the parameters and errors are described in `style.report`.

    The content is shown at the size of the result, and at most 30 frames, evenly spaced.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here: few runs need it

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["data_uri"] = _data_uri
    count = len(report["steps"])
    steps = "1 step" if count == 1 else f"{count:,} steps"
    summary = [f"{_size(report['size'])} pixels", steps, format_seconds(report["seconds"])]
    shown = shrunk(result, LARGE)
    options = {name.replace("_", "-"): _value(value) for name, value in report["options"].items()}
    sources = [("content", content), *captioned_styles(styles)]
    page = environment.get_template("page.html").render(
        summary=summary,
        result=shown,
        content=resize_picture(content, *shown.shape[:2], "lanczos"),
        sources=[(name, _size(full.shape), shrunk(full, SMALL)) for name, full in sources],
        frames=frames_and_result(choose_evenly(frames, PAGE_FRAMES), result) if frames else [],
        charts={name: _chart(report, size) for name, size in CHARTS.items()},
        losses=_losses(report),
        command=report["command"],
        tables={"Run": _run_facts(report), "Options": options},
    )
    # What is not valid text in a file name (surrogates in Python) becomes question marks.
    write_bytes(path, page.encode("utf-8", "replace"), "the report")


def _data_uri(picture, quality):
    """Return the picture as a JPEG with full chroma resolution, inside a URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _chart(report, size):
    """Return an SVG element in the colours of the page, and left, bottom, width, height of axes."""
    buffer = io.BytesIO()
    axes = draw_losses(buffer, "svg", report, size, transparent=True)
    svg = buffer.getvalue().decode("utf-8")
    for name, color in PLOT_COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # ids that nothing uses; both charts have them
    return svg[svg.index("<svg") :], *axes


def _losses(report):
    """Return a line of text for every step: the losses with four digits."""
    losses = loss_series(report).items()
    columns = [[f"{name}\N{NO-BREAK SPACE}{v:.4g}" for v in values] for name, values in losses]
    rows = enumerate(zip(*columns, strict=True), 1)
    return [" · ".join([f"step {step}", *row]) for step, row in rows]


def _run_facts(report):
    """Return the table "Run" as {name: text}."""
    memory, scales = report["peak_memory_bytes"], report["scales"]
    return {
        "size": f"{_size(report['size'])} pixels",
        "scales": ", ".join(_size((scale["height"], scale["width"])) for scale in scales),
        "steps by scale": " + ".join(f"{scale['steps']:,}" for scale in scales),
        "steps made": f"{len(report['steps']):,}",
        "time": format_seconds(report["seconds"]),
        "threads": report["threads"],
        "peak memory": "not known" if memory is None else f"{memory / 1e6:,.0f} MB",
        "weights": report["weights"],
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
    }


def _value(value):
    """Return the value of an option as text."""
    if isinstance(value, dict):
        value = [f"{name}: {_value(part)}" for name, part in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size(shape):
    """Return "width×height" of a shape (height, width, ...)."""
    return f"{shape[1]}×{shape[0]}"

"""The animation, the contact sheet and the plot of the losses."""

import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from style.report import (
    captioned_styles,
    check_animation_path,
    check_plot_path,
    check_report_path,
    choose_evenly,
    draw_losses,
    frames_and_result,
    loss_series,
    plot_losses,
    write_animation,
    write_contact_sheet,
)
from support.command import InputError
from support.figures import MARGIN
from support.pictures import read_picture

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 160, 0), (0, 0, 255), (240, 220, 0)


def plain(height, width, color):
    """Return a picture of one colour."""
    return np.full((height, width, 3), color, np.uint8)


def smooth(height, width):
    """Return a picture with a smooth gradient, so with many more than 256 colours."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    return np.rint(np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=2)).astype(np.uint8)


def made_report(steps, scales=((20, 30, 3), (40, 60, 2))):
    """Return the part of a report that the plot uses."""
    names = ("content", "style", "tv")
    return {
        "steps": [dict(zip(names, losses, strict=True), seconds=0.1) for losses in steps],
        "scales": [{"height": h, "width": w, "steps": n} for h, w, n in scales],
    }


@pytest.fixture
def report():
    return made_report([(3, 8, 0.1), (2, 4, 0.1), (2, 2, 0.1), (2, 5, 0.2), (2, 3, 0.1)])


def decoded(path):
    """Return (frames, durations, loop) of an animation file."""
    with Image.open(path) as image:
        frames, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations, image.info.get("loop")


def spots(sheet, color):
    """Return (top, left, height, width) of the part of a sheet with roughly this colour."""
    rows, columns = np.nonzero((abs(sheet.astype(int) - color) < 12).all(axis=2))
    top, left = rows.min(), columns.min()
    return top, left, rows.max() + 1 - top, columns.max() + 1 - left


# --- file names ---


@pytest.mark.parametrize(
    ("check", "known", "what"),
    [
        (check_animation_path, [".gif", ".webp"], "animation"),
        (check_plot_path, [".png", ".svg", ".pdf"], "plot"),
        (check_report_path, [".json", ".html"], "report"),
    ],
)
def test_the_message_about_an_unknown_extension_lists_the_known_ones(check, known, what):
    for extension in known:
        check(f"some/where{extension}")
        check(f"some/where{extension.upper()}")
    for name, asked in [("a.mp4", "'.mp4'"), ("gif", "no extension"), ("a.gif.txt", "'.txt'")]:
        with pytest.raises(InputError) as failure:
            check(name)
        message = str(failure.value)
        assert what in message and name in message and asked in message and "\n" not in message
        assert all(extension in message for extension in known)


@pytest.mark.parametrize("write", [write_animation, write_contact_sheet, plot_losses])
def test_an_unknown_extension_is_refused_and_nothing_is_written(tmp_path, report, write):
    picture = plain(8, 8, RED)
    arguments = {
        write_animation: ([], picture),
        write_contact_sheet: (picture, [picture], [], picture),
        plot_losses: (report,),
    }[write]
    with pytest.raises(InputError, match=r"a\.xyz"):
        write(tmp_path / "a.xyz", *arguments)
    assert list(tmp_path.iterdir()) == []


# --- the animation ---


@pytest.mark.parametrize("extension", [".gif", ".webp", ".GIF"])
def test_an_animation_shows_all_frames_and_holds_the_result(tmp_path, extension):
    path = tmp_path / f"new/way{extension}"
    frames = [(10, plain(24, 36, RED)), (20, plain(24, 36, GREEN)), (30, plain(24, 36, BLUE))]
    write_animation(path, frames, plain(48, 72, YELLOW))
    shown, durations, loop = decoded(path)
    assert [picture.shape for picture in shown] == [(24, 36, 3)] * 4
    for picture, color in zip(shown, [RED, GREEN, BLUE, YELLOW], strict=True):
        assert abs(picture.astype(int) - color).max() <= 6
    assert durations == [80, 80, 80, 2000]
    assert loop == 0  # without end
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


@pytest.mark.parametrize("extension", [".gif", ".webp"])
def test_without_frames_an_animation_is_the_result(tmp_path, extension):
    path = tmp_path / f"alone{extension}"
    write_animation(path, [], smooth(30, 960))
    with Image.open(path) as image:
        assert image.size == (480, 15) and getattr(image, "n_frames", 1) == 1
    write_animation(path, [], plain(5, 7, BLUE))
    assert abs(read_picture(path).astype(int) - BLUE).max() <= 6
    assert read_picture(path).shape == (5, 7, 3)


def test_a_gif_has_close_colours_without_bands(tmp_path):
    picture = smooth(120, 180)
    path = tmp_path / "a.gif"
    write_animation(path, [(1, picture), (2, picture[::-1].copy())], picture)
    shown, _, _ = decoded(path)

    def seen(pixels):
        """Return the means of 4x4 pixels, as the eye does from a distance."""
        return pixels.reshape(30, 4, 45, 4, 3).mean(axis=(1, 3))

    error = np.sqrt(((seen(shown[0]) - seen(picture)) ** 2).mean())
    assert error < 2  # 1.2; without dithering 2.8
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) <= 256 for frame in shown)
    palettes = [{tuple(color) for color in frame.reshape(-1, 3)} for frame in shown]
    assert len(set.union(*palettes)) <= 256  # one palette for all frames prevents flicker


# --- the contact sheet ---


def test_a_contact_sheet_shows_everything_in_order(tmp_path):
    path = tmp_path / "sheet.png"
    frames = [(step, plain(40, 60, (step, 0, 200))) for step in range(5, 205, 5)]
    write_contact_sheet(path, plain(200, 300, RED), [plain(90, 90, GREEN)], frames,
                        plain(100, 150, YELLOW))
    sheet = read_picture(path)
    (content, style, result) = (spots(sheet, color) for color in (RED, GREEN, YELLOW))
    assert content[0] == style[0] == result[0] and content[2] == style[2] == result[2] > 250
    assert content[1] < style[1] < result[1]
    assert content[3] == pytest.approx(1.5 * content[2], abs=2)
    assert style[3] == pytest.approx(style[2], abs=2)
    assert (sheet[:MARGIN] == 255).all() and (sheet[-MARGIN:] == 255).all()
    title = sheet[MARGIN : content[0]]
    assert (title < 100).any() and (title[:, content[1] + 300 :] == 255).all()
    below = content[0] + content[2] + 10
    frame_colors = {tuple(color) for color in sheet[below:].reshape(-1, 3) if color[2] == 200}
    steps = sorted(red for red, green, _ in frame_colors if green == 0)
    assert len(steps) == 8 and steps[0] == 5 and steps[-1] == 200
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 5


def test_a_caption_says_the_step(tmp_path):
    sheets = []
    for step in (1, 2):
        path = tmp_path / "sheet.png"
        write_contact_sheet(path, plain(9, 9, RED), [], [(step, plain(9, 9, RED))],
                            plain(9, 9, RED))
        sheets.append(read_picture(path))
    rows = np.nonzero((sheets[0] != sheets[1]).any(axis=(1, 2)))[0]
    assert 5 < rows.max() - rows.min() < 30  # a digit's height
    assert (sheets[0][rows.min() : rows.max()] < 100).any()


@pytest.mark.parametrize("size", [(10, 200), (200, 10), (40, 60), (60, 40)])
@pytest.mark.parametrize("styles", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_contact_sheet_has_a_reasonable_size_for_any_pictures(tmp_path, size, styles, count):
    path = tmp_path / "sheet.png"
    frames = [(i, plain(*size, BLUE)) for i in range(count)]
    write_contact_sheet(path, plain(*size, RED), [plain(50, 60, GREEN)] * styles, frames,
                        plain(*size, YELLOW))
    sheet = read_picture(path)
    assert sheet.shape[1] <= 1690 and sheet.shape[0] <= 2200
    top, left, height, width = spots(sheet, YELLOW)
    assert width / height == pytest.approx(size[1] / size[0], rel=0.05)
    assert max(height, width) >= 250  # pixels: large enough to see
    assert left >= MARGIN and left + width <= sheet.shape[1] - MARGIN


# --- the plot ---


def svg_of(steps, **scales):
    """Return the root of the plot's SVG, and the texts in it."""
    buffer = io.BytesIO()
    draw_losses(buffer, "svg", made_report(steps, **scales), size=(8, 4))
    root = ElementTree.fromstring(buffer.getvalue())
    return root, [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def longest_path(root, color):
    """Return the points of the longest path drawn in this colour, an array of shape (n, 2)."""
    paths = [
        np.reshape(re.findall(r"-?\d[\d.]*", path.get("d")), (-1, 2)).astype(float)
        for path in root.iter("{http://www.w3.org/2000/svg}path")
        if f"stroke: {color}" in path.get("style", "")
    ]
    return max(paths, key=lambda path: np.ptp(path[:, 0]))  # the other is in the legend


@pytest.mark.parametrize("extension", [".png", ".svg", ".pdf", ".SVG"])
def test_the_same_report_gives_the_same_plot_on_any_day(tmp_path, report, extension, monkeypatch):
    paths = [tmp_path / f"{name}{extension}" for name in "ab"]
    for path, time in zip(paths, ("0", "86400000"), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", time)  # the clock that matplotlib would note
        plot_losses(path, report)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[extension.lower()]
    assert paths[0].read_bytes().startswith(start)


def test_the_curves_are_where_the_losses_say():
    root, texts = svg_of([(1, 100, 0), (10, 10, 0), (1, 10, 0)])
    content, style = longest_path(root, "#0072b2"), longest_path(root, "#d55e00")
    column = content[1, 0] - content[0, 0]
    decade = content[0, 1] - content[1, 1]
    assert column > 50 and decade > 50  # points
    left, bottom = content[0]
    expected = [[left, bottom], [left + column, bottom - decade], [left + 2 * column, bottom]]
    np.testing.assert_allclose(content, expected, atol=0.01)
    expected = [2 * decade, decade, decade]
    np.testing.assert_allclose(bottom - style[:, 1], expected, atol=0.01)
    assert {"step", "weighted loss", "1", "10", "100", "total", "content", "style"} <= set(texts)
    assert "tv" not in texts


def test_the_plot_leaves_out_a_loss_that_is_always_zero():
    for tv in (0.1, 0.0):
        root, texts = svg_of([(3, 8, tv), (2, 4, tv)])
        drawn = ElementTree.tostring(root, "unicode")
        for name, color in [("content", "#0072b2"), ("style", "#d55e00"), ("tv", "#009e73")]:
            assert (color in drawn) == (name in texts) == (name != "tv" or tv > 0)


def test_a_value_between_two_that_cannot_be_drawn_is_a_dot():
    def dots(steps):
        root, _ = svg_of(steps)
        return sum(
            "stroke: #d55e00" in use.get("style", "")
            for use in root.iter("{http://www.w3.org/2000/svg}use")
        )

    assert dots([(1, 0, 0), (1, 5, 0), (1, 0, 0), (1, 5, 0), (1, 6, 0)]) == 1
    assert dots([(1, np.nan, 0), (1, 5, 0), (1, np.inf, 0), (1, 7, 0)]) == 2
    assert dots([(1, 5, 0), (1, 5, 0), (1, 6, 0)]) == 0


def test_scales_are_labelled_where_there_is_room():
    steps = [(1, 1, 1)] * 100
    scales = [(1, 2, 40), (2, 4, 2), (4, 8, 80), (8, 16, 5)]  # the last one did not begin
    root, texts = svg_of(steps, scales=scales)
    assert [text for text in texts if "×" in text] == ["2×1", "8×4"]  # two steps have no room
    begins = [
        float(re.match(r"M ([\d.]+)", path.get("d"))[1])
        for path in root.iter("{http://www.w3.org/2000/svg}path")
        if "stroke: #666666" in path.get("style", "")
    ]
    curve = longest_path(root, "#009e73")
    left, right = curve[0, 0], curve[-1, 0]  # steps 1 and 100
    np.testing.assert_allclose(
        (np.array(begins) - left) / (right - left) * 99 + 1, [0.5, 40.5, 42.5], atol=0.1
    )


@pytest.mark.parametrize("steps", [[], [(0, 0, 0)], [(np.nan, 0, 0)]])
def test_a_plot_without_losses_says_so(steps):
    assert "no loss above 0" in svg_of(steps)[1]


@pytest.mark.parametrize(
    "steps", [[(1, 0, 0)], [(0, 0, 0), (0, 2, 0)], [(10.0**i, 10.0**-i, 1) for i in range(15)]]
)
def test_ticks_are_few_and_round(steps):
    root, _ = svg_of(steps)
    axis = root.find(".//*[@id='matplotlib.axis_2']")
    texts = [text.text for text in axis.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.pop() == "weighted loss"
    assert 2 <= len(texts) <= 12
    for text in texts:
        digits, _, exponent = f"{float(text.replace('−', '-')):.3e}".partition("e")
        assert digits in ("1.000", "2.000", "5.000"), f"{text}: {digits} times 10^{exponent}"


def test_the_position_of_the_axes_is_told(report):
    buffer = io.BytesIO()
    left, bottom, width, height = draw_losses(buffer, "svg", report, size=(8, 4))
    curve = longest_path(ElementTree.fromstring(buffer.getvalue()), "#009e73")
    points = 72 * 8 * (left + width * (np.arange(5) + 0.5) / 5)
    np.testing.assert_allclose(curve[:, 0], points, atol=0.1)
    assert 0 < bottom < 0.3 and 0.5 < height < 1 - bottom


def test_the_plot_leaves_matplotlibs_settings_alone(tmp_path, report):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_losses(tmp_path / "plot.svg", report)
    assert dict(matplotlib.rcParams) == before


# --- shared with the page ---


def test_the_total_is_the_sum_of_the_losses():
    series = loss_series(made_report([(0, 4, 0), (2, 0, 0.5)]))
    assert list(series) == ["total", "content", "style", "tv"]
    np.testing.assert_array_equal(list(series.values()), [[4, 2.5], [0, 2], [4, 0], [0, 0.5]])
    assert [values.size for values in loss_series(made_report([])).values()] == [0, 0, 0, 0]


def test_choosing_evenly_keeps_both_ends():
    assert choose_evenly([3, 4], 5) == [3, 4] and choose_evenly([], 5) == []
    assert choose_evenly(list(range(100)), 4) == [0, 33, 66, 99]
    assert choose_evenly(list(range(9)), 8)[-1] == 8


def test_the_result_follows_the_frames_in_their_size():
    pictures = frames_and_result([(7, plain(10, 15, RED))], plain(20, 30, BLUE))
    assert [caption for caption, _ in pictures] == ["step 7", "result"]
    np.testing.assert_array_equal(pictures[1][1], plain(10, 15, BLUE))


def test_a_single_style_has_no_number():
    assert [caption for caption, _ in captioned_styles([1])] == ["style"]
    assert [caption for caption, _ in captioned_styles([1, 2])] == ["style 1", "style 2"]

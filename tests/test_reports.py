"""The animation, the contact sheet and the plot of the losses."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from style.report import (
    check_animation_path,
    check_plot_path,
    check_report_path,
    evenly,
    log_limits,
    loss_series,
    plot_losses,
    scale_labels,
    style_captions,
    way_there,
    write_animation,
    write_contact_sheet,
)
from support.command import InputError
from support.pictures import read_picture

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 160, 0), (0, 0, 255), (240, 220, 0)


def plain(height, width, color):
    """Return a picture of one colour."""
    return np.full((height, width, 3), color, np.uint8)


def smooth(height, width):
    """Return a picture whose colours change slowly, of many more than 256 colours."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    return np.rint(np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=2)).astype(np.uint8)


def made_report(steps, scales=((20, 30, 3), (40, 60, 2))):
    """Return what the plot reads of a report."""
    names = ("content", "style", "tv")
    return {
        "steps": [dict(zip(names, losses, strict=True), seconds=0.1) for losses in steps],
        "scales": [{"height": h, "width": w, "steps": n} for h, w, n in scales],
    }


@pytest.fixture
def report():
    return made_report([(3, 8, 0.1), (2, 4, 0.1), (2, 2, 0.1), (2, 5, 0.2), (2, 3, 0.1)])


def decoded(path):
    """Return (frames, durations, loop) of an animation as Pillow, not imageio, reads it."""
    with Image.open(path) as image:
        frames, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
        return frames, durations, image.info.get("loop")


def spots(sheet, color):
    """Return (top, left, height, width) of the part of a sheet that has about this colour."""
    rows, columns = np.nonzero((abs(sheet.astype(int) - color) < 12).all(axis=2))
    top, left = rows.min(), columns.min()
    return top, left, rows.max() + 1 - top, columns.max() + 1 - left


# --- names of files ---


@pytest.mark.parametrize(
    ("check", "known", "what"),
    [
        (check_animation_path, [".gif", ".webp"], "animation"),
        (check_plot_path, [".png", ".svg", ".pdf"], "plot"),
        (check_report_path, [".json", ".html"], "report"),
    ],
)
def test_unknown_extensions_are_refused_with_those_known(check, known, what):
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
def test_nothing_is_written_under_an_unknown_extension(tmp_path, report, write):
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
    assert loop == 0  # for ever
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


def test_the_colours_of_a_gif_are_close_and_without_bands(tmp_path):
    picture = smooth(120, 180)
    path = tmp_path / "a.gif"
    write_animation(path, [(1, picture), (2, picture[::-1].copy())], picture)
    shown, _, _ = decoded(path)

    def seen(pixels):
        """Return means of 4x4 pixels: what the eye sees from a distance."""
        return pixels.reshape(30, 4, 45, 4, 3).mean(axis=(1, 3))

    error = np.sqrt(((seen(shown[0]) - seen(picture)) ** 2).mean())
    assert error < 2  # 1.2; without dithering 2.8
    assert all(len(np.unique(frame.reshape(-1, 3), axis=0)) <= 256 for frame in shown)
    palettes = [{tuple(color) for color in frame.reshape(-1, 3)} for frame in shown]
    assert len(set.union(*palettes)) <= 256  # one palette for all, so that nothing flickers


# --- the contact sheet ---


def test_a_contact_sheet_has_everything_in_order(tmp_path):
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
    assert (sheet[: content[0]] == 255).all() and (sheet[-30:] == 255).all()  # margins
    below = content[0] + content[2] + 10
    frame_colors = {tuple(color) for color in sheet[below:].reshape(-1, 3) if color[2] == 200}
    steps = sorted(red for red, green, _ in frame_colors if green == 0)
    assert len(steps) == 8 and steps[0] == 5 and steps[-1] == 200
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 5


def test_captions_differ_by_step(tmp_path):
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
def test_a_contact_sheet_of_any_shape_is_of_a_sane_size(tmp_path, size, styles, count):
    path = tmp_path / "sheet.png"
    frames = [(i, plain(*size, BLUE)) for i in range(count)]
    write_contact_sheet(path, plain(*size, RED), [plain(50, 60, GREEN)] * styles, frames,
                        plain(*size, YELLOW))
    sheet = read_picture(path)
    assert sheet.shape[1] <= 1690 and sheet.shape[0] <= 2200
    top, left, height, width = spots(sheet, YELLOW)
    assert width / height == pytest.approx(size[1] / size[0], rel=0.05)
    assert max(height, width) >= 250  # large enough to see
    assert left >= 40 and left + width <= sheet.shape[1] - 40


# --- the plot ---


@pytest.mark.parametrize("extension", [".png", ".svg", ".pdf"])
def test_a_plot_is_written_alike_every_time(tmp_path, report, extension, monkeypatch):
    paths = [tmp_path / f"{name}{extension}" for name in "ab"]
    for path, time in zip(paths, ("0", "86400000"), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", time)  # the clock that matplotlib would note
        plot_losses(path, report)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[extension]
    assert paths[0].read_bytes().startswith(start)


def test_a_plot_does_without_the_losses_that_are_zero(tmp_path):
    drawn = {}
    for name, tv in (("with", 0.1), ("without", 0.0)):
        plot_losses(tmp_path / f"{name}.svg", made_report([(3, 8, tv), (2, 4, tv)]))
        ElementTree.parse(tmp_path / f"{name}.svg")
        drawn[name] = (tmp_path / f"{name}.svg").read_text().lower()
    for color in ("#0072b2", "#d55e00", "#009e73"):
        assert color in drawn["with"]
        assert (color in drawn["without"]) == (color != "#009e73")


@pytest.mark.parametrize("steps", [[], [(0, 0, 0)], [(1, 0, 0)], [(0, 0, 0), (0, 2, 0)]])
def test_a_plot_can_be_made_of_very_little(tmp_path, steps):
    plot_losses(tmp_path / "plot.png", made_report(steps))
    assert read_picture(tmp_path / "plot.png").std() > 1


def test_pyplot_is_left_alone(tmp_path, report):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_losses(tmp_path / "plot.svg", report)
    assert dict(matplotlib.rcParams) == before


# --- what the page shares ---


def test_series_leave_out_what_a_logarithm_cannot_show():
    series = loss_series(made_report([(0, 4, 0), (2, 0, 0), (1, float("inf"), 0)]))
    assert list(series) == ["total", "content", "style"]
    np.testing.assert_array_equal(series["total"], [4, 2, np.nan])
    np.testing.assert_array_equal(series["content"], [np.nan, 2, 1])
    np.testing.assert_array_equal(series["style"], [4, np.nan, np.nan])


def test_limits_hold_all_losses_and_a_decade():
    low, high = log_limits({"a": np.array([1.0, np.nan]), "b": np.array([1000.0, 50.0])})
    assert 0.5 < low < 1 and 1000 < high < 2000
    low, high = log_limits({"a": np.array([5.0])})
    assert high / low == pytest.approx(10) and low < 5 < high


def test_labels_of_scales_do_not_overlap():
    steps = [(1, 1, 1)] * 100
    scales = [(1, 2, 5), (2, 4, 5), (4, 8, 80), (8, 16, 10), (16, 32, 9)]  # the last never began
    labels = scale_labels(made_report(steps, scales), width=0.2)
    assert [label for *_, label in labels] == ["2×1", "4×2", "8×4", "16×8"]
    assert [start for start, *_ in labels] == pytest.approx([0, 0.05, 0.1, 0.9])
    assert [left for _, left, *_ in labels] == pytest.approx([0, 0.05, 0.1, 0.8])
    assert [row for *_, row, _ in labels] == [0, 1, 2, 0]


def test_choosing_evenly_keeps_both_ends():
    assert evenly([3, 4], 5) == [3, 4] and evenly([], 5) == []
    assert evenly(list(range(100)), 4) == [0, 33, 66, 99]
    assert evenly(list(range(9)), 8)[-1] == 8


def test_the_way_ends_with_the_result_in_the_size_of_the_frames():
    way = way_there([(7, plain(10, 15, RED))], plain(20, 30, BLUE))
    assert [caption for caption, _ in way] == ["step 7", "result"]
    np.testing.assert_array_equal(way[1][1], plain(10, 15, BLUE))


def test_one_style_has_no_number():
    assert [caption for caption, _ in style_captions([1])] == ["style"]
    assert [caption for caption, _ in style_captions([1, 2])] == ["style 1", "style 2"]

"""The command of style transfer: what each option does to the picture, and what is refused.

Stopping and resuming are in `test_resume.py`.
"""

import io
import itertools
import json
import math
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.matconvnet_files import IMAGE_MEAN, write_matconvnet
from helpers.oracles import oklab
from helpers.style_pictures import (
    NARROW,
    QUICK,
    SHALLOW,
    WEIGHTS,
    at_step,
    call,
    paint,
    start,
    waves,
)
from PIL import Image, ImageCms

import style_transfer_cpu as demo
from fast.fused import FusedNetwork
from style import journal, objective, weights
from style.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from style.colours import match_colours
from style.plan import Position
from style_transfer_cpu import VGG19
from support.pictures import read_picture, resize_picture, write_picture
from support.trained_filters import find_trained_filters

SMALL = ["--size", 48, "--steps", 3, "--scales", 1]
# One step too short to be seen: the result is what it started from.
STILL = ["--steps", 1, "--scales", 1, "--optimizer", "adam", "--learning-rate", 0.001,
         "--init", "content"]  # fmt: skip
CONTENT = ["--content", "content.png"]


pytestmark = pytest.mark.usefixtures("in_folder")


def column(report, name):
    """Return one of the losses of all steps."""
    return [step[name] for step in report["steps"]]


def roughness(picture):
    picture = picture.astype(float)
    return np.square(np.diff(picture, axis=0)).mean() + np.square(np.diff(picture, axis=1)).mean()


# ---------------------------------------------------------------- as a user starts it


def test_the_command_paints_saves_and_reports(folder, tmp_path):
    process = start(
        folder, *QUICK, "--size", 64, "--steps", 6, "--output", tmp_path / "new" / "made.png",
        "--save-every", 2, "--report", tmp_path / "report.json", "--seed", 3,
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "100%" in err
    assert "style" in err
    lines = out.splitlines()
    assert lines[0] == "weights: narrow.mat"
    assert any("64x43" in line for line in lines)
    made = read_picture(tmp_path / "new" / "made.png")
    assert made.shape == (43, 64, 3)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    saved = ["made_0002.png", "made_0004.png", "made_0006.png"]
    assert names == sorted(["made.png", *saved])
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert len(report["steps"]) == 6
    assert {"content", "style", "tv", "seconds"} == set(report["steps"][0])
    assert report["size"] == [43, 64]
    assert report["weights"] == "narrow.mat"
    assert report["options"]["seed"] == 3
    assert report["command"].startswith("python style_transfer_cpu.py --content content.png ")
    assert " --seed 3 " in report["command"]
    assert "--pooling" not in report["command"]  # it is the default anyway
    assert report["peak_memory_bytes"] > 10**7
    assert {"python", "numpy", "scipy", "pillow"} <= set(report["versions"])


def test_without_a_weights_file_the_filters_are_learnt(folder, tmp_path):
    process = start(
        folder, *CONTENT, "--style", "style.png", *SMALL, "--content-layers", "relu1_2",
        "--style-layers", "relu2_1", "--output", tmp_path / "made.jpg",
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    first = out.splitlines()[0]
    if find_trained_filters():
        assert "trained on photographs" in first
    else:
        assert "k-means" in first
        assert "--download" in first
    with Image.open(tmp_path / "made.jpg") as made:
        assert (made.format, made.size) == ("JPEG", (48, 32))


def test_without_options_the_programs_own_pictures_are_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    read = []

    def read_and_stop(path, background):
        read.append(Path(path))
        if len(read) == 2:
            raise KeyboardInterrupt
        return waves(60, 90, 0)

    monkeypatch.setattr(demo, "read_picture", read_and_stop)
    assert call() == 130
    assert capsys.readouterr().err == "style_transfer_cpu.py: interrupted\n"
    assert [path.name for path in read] == ["style.jpg", "content.jpg"]
    assert all(path.is_file() for path in read)
    assert list(tmp_path.iterdir()) == []


def test_help_has_groups_and_examples_on_two_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("--help") == 0
    shown = capsys.readouterr().out
    for group in ("pictures:", "look:", "work:", "the way there:", "stopping and resuming"):
        assert f"\n{group}" in shown
    assert "\nexamples:\n  python style_transfer_cpu.py\n" in shown
    assert "default: 800" in shown
    lines = shown.splitlines()
    assert sum(max(1, math.ceil(len(line) / 80)) for line in lines) <= 80


def test_every_option_is_tested_here(capsys):
    call("--help")
    options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert len(options) > 30
    tests = Path(__file__).parent
    text = "".join(
        (tests / name).read_text("utf-8") for name in ("test_style_command.py", "test_resume.py")
    )
    assert {option for option in options if f'"{option}"' not in text} == set()


# ---------------------------------------------------------------- pictures


def test_content_and_style_are_what_they_are_called(tmp_path):
    """From the content, whose own loss is 0; from the style, whose loss is then 0."""
    options = [*STILL, "--size", 90, "--init", "content", *WEIGHTS]
    made, report = paint(tmp_path / "a.png", *CONTENT, "--style", "style.png", *options)
    assert np.abs(made.astype(int) - read_picture("content.png")).max() <= 1
    assert column(report, "content") == [pytest.approx(0, abs=1e-3)]  # the start is jittered
    assert column(report, "style")[0] > 0.1
    _, report = paint(tmp_path / "b.png", *CONTENT, "--style", "content.png", *options)
    assert column(report, "style") == [pytest.approx(0, abs=1e-3)]


def test_styles_are_blended(tmp_path):
    def make(name, *styles):
        return paint(tmp_path / name, *CONTENT, *WEIGHTS, *SMALL, *styles)[0]

    first = make("first.png", "--style", "style.png")
    second = make("second.png", "--style", "second.png")
    both = ["--style", "style.png", "--style", "second.png"]
    np.testing.assert_array_equal(make("a.png", *both, "--style-blend", 1, 0), first)
    np.testing.assert_array_equal(make("b.png", *both, "--style-blend", 0, 1), second)
    equally = make("c.png", *both)
    np.testing.assert_array_equal(make("d.png", *both, "--style-blend", 2, 2), equally)
    rather_first = make("e.png", *both, "--style-blend", 3, 1)
    np.testing.assert_array_equal(make("f.png", *both, "--style-blend", 6, 2), rather_first)
    pictures = [first, second, equally, rather_first]
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_the_style_is_scaled(tmp_path):
    _, report = paint(tmp_path / "a.png", *QUICK, *SMALL)
    assert [scale["style_sizes"] for scale in report["scales"]] == [[[48, 42]]]
    plain = column(report, "style")[0]
    _, report = paint(tmp_path / "b.png", *QUICK, *SMALL, "--style-scale", 1.5)
    assert [scale["style_sizes"] for scale in report["scales"]] == [[[72, 63]]]
    assert column(report, "style")[0] != pytest.approx(plain, rel=0.01)


def test_what_is_transparent_shows_the_background(tmp_path):
    pixels = np.dstack([waves(60, 90, 0), np.full((60, 90), 255, np.uint8)])
    pixels[:, :45, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "half.png")
    options = ["--content", tmp_path / "half.png", "--style", "style.png", *WEIGHTS, *STILL]
    for colour, expected in (("#ff8000", (255, 128, 0)), ("rgb(0, 60, 250)", (0, 60, 250))):
        made, _ = paint(tmp_path / "made.png", *options, "--background", colour)
        assert np.abs(made[:, :44].astype(int) - expected).max() <= 1
        assert np.abs(made[:, 46:].astype(int) - pixels[:, 46:, :3]).max() <= 1
    made, _ = paint(tmp_path / "made.png", *options)
    assert made[:, :44].min() >= 254
    # that of a style, too
    style = ["--content", "content.png", "--style", tmp_path / "half.png", *WEIGHTS, *SMALL]
    on_white, _ = paint(tmp_path / "white.png", *style)
    on_red, _ = paint(tmp_path / "red.png", *style, "--background", "red")
    assert not np.array_equal(on_white, on_red)


def kinds_of_content():
    """Return Pillow images of many kinds, all of them 60x40 and of one colour, and the colour."""
    colour = Image.new("RGB", (60, 40), (200, 100, 50))
    turned = Image.new("RGB", (40, 60), (200, 100, 50))
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is to be turned by 90 degrees
    palette = colour.quantize(4)
    deep = Image.fromarray(np.full((40, 60), 90 * 257, np.uint16))
    return {
        "grey.png": (Image.new("L", (60, 40), 90), {}, (90, 90, 90)),
        "deep.png": (deep, {}, (90, 90, 90)),  # 16 bits
        "cmyk.tif": (Image.new("CMYK", (60, 40), (0, 255, 255, 0)), {}, (255, 0, 0)),
        "palette.png": (palette, {}, (200, 100, 50)),
        "turned.jpg": (turned, {"exif": exif, "quality": 100}, (200, 100, 50)),
        "moving.gif": (
            palette,
            {"save_all": True, "append_images": [Image.new("RGB", (60, 40), "blue")]},
            (200, 100, 50),
        ),
        "grey_alpha.png": (Image.new("LA", (60, 40), (90, 0)), {}, (255, 255, 255)),
    }


@pytest.mark.parametrize("name", list(kinds_of_content()))
def test_kinds_of_pictures(tmp_path, name):
    image, options, colour = kinds_of_content()[name]
    image.save(tmp_path / name, **options)
    options = ["--style", "style.png", *WEIGHTS, *STILL, "--content", tmp_path / name]
    made, _ = paint(tmp_path / "made.png", *options)
    assert made.shape == (40, 60, 3)
    assert np.abs(made.astype(int) - colour).max() <= 2
    # and as a style
    paint(tmp_path / "b.png", *CONTENT, "--style", tmp_path / name, *WEIGHTS, *STILL)


@pytest.mark.parametrize(
    ("extension", "file_format"),
    [(".png", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")],
)
def test_the_result_is_of_the_format_asked_for_and_in_srgb(tmp_path, extension, file_format):
    path = tmp_path / f"made{extension}"
    assert call(*QUICK, *STILL, "--size", 48, "--output", path) == 0
    with Image.open(path) as made:
        assert (made.format, made.mode, made.size) == (file_format, "RGB", (48, 32))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(made.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((60, 90), 45, (30, 45)), ((61, 97), 50, (31, 50)), ((97, 61), 96, (96, 60)),
        ((97, 61), 400, (97, 61)), ((33, 90), 90, (33, 90)),
    ],
)  # fmt: skip
def test_the_result_keeps_the_contents_aspect(tmp_path, shape, size, expected):
    write_picture(tmp_path / "content.png", waves(*shape, 7))
    options = ["--content", tmp_path / "content.png", "--style", "style.png", *WEIGHTS, *SHALLOW]
    made, report = paint(tmp_path / "made.png", *options, "--size", size, "--steps", 2)
    assert made.shape[:2] == expected
    assert report["size"] == list(expected)


def test_a_small_picture_is_not_enlarged_silently(tmp_path, capsys):
    made, _ = paint(tmp_path / "made.png", *QUICK, "--size", 500, "--steps", 1)
    assert "size: 90x60, as content.png is no larger" in capsys.readouterr().out
    assert made.shape == (60, 90, 3)


# ---------------------------------------------------------------- look


def test_the_weights_of_the_losses(tmp_path):
    """A larger weight scales its own loss at the start, and draws the result its way."""
    options = [*QUICK, *SMALL, "--init", "noise", "--steps", 8]
    _, plain = paint(tmp_path / "plain.png", *options)
    _, content = paint(tmp_path / "content.png", *options, "--content-weight", 300)
    _, style = paint(tmp_path / "style.png", *options, "--style-weight", 40000)
    first = plain["steps"][0]
    assert content["steps"][0]["style"] == pytest.approx(style["steps"][0]["style"] / 100, rel=1)
    unweighted = [column(r, "content")[-1] / w for r, w in ((content, 300), (style, 5))]
    assert unweighted[0] < 0.8 * unweighted[1]
    unweighted = [column(r, "style")[-1] / w for r, w in ((content, 400), (style, 40000))]
    assert unweighted[1] < 0.8 * unweighted[0]
    assert first["content"] > 0
    # one step of Adam is at the same picture: the very same losses, weighted
    options = [*QUICK, *STILL, "--size", 48, "--init", "noise"]
    steps = [
        paint(tmp_path / "made.png", *options, *more)[1]["steps"][0]
        for more in ([], ["--content-weight", 15], ["--style-weight", 100], ["--tv-weight", 0.1])
    ]
    assert steps[1]["content"] == pytest.approx(3 * steps[0]["content"])
    assert steps[2]["style"] == pytest.approx(steps[0]["style"] / 4)
    assert steps[3]["tv"] == pytest.approx(50 * steps[0]["tv"])
    for step, changed in zip(steps[1:], ("content", "style", "tv"), strict=True):
        for name in {"content", "style", "tv"} - {changed}:
            assert step[name] == steps[0][name]


def test_content_alone(tmp_path):
    """With --style-weight 0, the content is rebuilt from its features."""
    options = ["--style-weight", 0, "--init", "noise", "--content-layers", "relu2_1"]
    options += ["--size", 60]
    noise, _ = paint(tmp_path / "noise.png", *QUICK, *STILL, *options)
    made, report = paint(tmp_path / "made.png", *QUICK, "--steps", 25, *options)
    assert set(column(report, "style")) == {0}
    assert column(report, "content")[-1] < 0.2 * column(report, "content")[0]
    vgg = VGG19("narrow.mat")
    vgg.load_model()
    wanted, start, end = (
        vgg.forward(vgg.prepare(picture), ["relu2_1"])["relu2_1"]
        for picture in (resize_picture(read_picture("content.png"), 40, 60), noise, made)
    )
    assert np.linalg.norm(end - wanted) < 0.5 * np.linalg.norm(start - wanted)
    # the style has no say in it
    again, _ = paint(tmp_path / "again.png", *CONTENT, "--style", "second.png", *WEIGHTS,
                     "--steps", 25, *options)  # fmt: skip
    np.testing.assert_array_equal(again, made)


def test_texture_alone(tmp_path):
    """With --content-weight 0, the style's texture fills a canvas of the content's size."""
    options = ["--style", "style.png", *WEIGHTS, "--content-weight", 0, "--init", "noise"]
    options += ["--steps", 25, "--size", 60, "--style-layers", "relu1_1", "relu2_1", "relu3_1"]
    made, report = paint(tmp_path / "made.png", *CONTENT, *options)
    assert set(column(report, "content")) == {0}
    assert column(report, "style")[-1] < 0.6 * column(report, "style")[0]
    # the content has no say in it but for its size
    again, _ = paint(tmp_path / "again.png", "--content", "other.png", *options)
    np.testing.assert_array_equal(again, made)


def test_smoothness(tmp_path):
    options = [*QUICK, *SMALL, "--steps", 6]
    rough, report = paint(tmp_path / "rough.png", *options, "--tv-weight", 0)
    assert set(column(report, "tv")) == {0}
    smooth, report = paint(tmp_path / "smooth.png", *options, "--tv-weight", 1)
    assert min(column(report, "tv")) > 0
    assert roughness(smooth) < 0.7 * roughness(rough)


@pytest.mark.parametrize("kind", ["content", "style"])
def test_layers_and_their_weights(tmp_path, kind):
    """The loss of two layers is the mean of their losses, by the weights given."""
    options = [*QUICK, *STILL, "--size", 48, "--init", "noise"]

    def first_loss(*layers):
        report = paint(tmp_path / "made.png", *options, f"--{kind}-layers", *layers)[1]
        return column(report, kind)[0]

    one, two = first_loss("relu1_1"), first_loss("relu3_1:7")
    assert one != pytest.approx(two, rel=0.05)
    assert first_loss("relu1_1", "relu3_1") == pytest.approx((one + two) / 2, rel=1e-5)
    expected = (0.5 * one + 2 * two) / 2.5
    assert first_loss("relu1_1:0.5", "relu3_1:2") == pytest.approx(expected, rel=1e-5)


def test_the_options_for_layers_have_their_names(tmp_path):
    options = [*QUICK, *STILL, "--size", 48]
    _, report = paint(
        tmp_path / "a.png", *options, "--content-layers", "pool2:3", "--style-layers", "relu1_2"
    )
    assert report["options"]["content_layers"] == {"pool2": 3}
    assert report["options"]["style_layers"] == {"relu1_2": 1}


def test_pooling(tmp_path):
    """Average pooling gives the losses of the network whose layers average."""
    options = [*QUICK, *STILL, "--size", 90, "--style-layers", "relu3_1", "--content-weight", 0]
    vgg = VGG19("narrow.mat")
    vgg.load_model()
    pictures = read_picture("content.png"), read_picture("style.png")
    style = vgg.load_image("style.png", 90, 79)[0]
    images = vgg.prepare(pictures[0]), style
    seen = {}
    for pooling in "max", "average":
        if pooling == "average":
            vgg.use_average_pooling()
        grams = []
        for image in images:
            features = vgg.forward(image, ["relu3_1"])["relu3_1"][0].astype(np.float64)
            rows = features.reshape(len(features), -1)  # (C, h, w) -> (C, h * w)
            grams.append(rows @ rows.T / rows.shape[1])
        expected = 400 * np.sum((grams[0] - grams[1]) ** 2) / np.sum(grams[1] ** 2)
        _, report = paint(tmp_path / "made.png", *options, "--pooling", pooling)
        seen[pooling] = column(report, "style")[0]
        assert seen[pooling] == pytest.approx(expected, rel=2e-3)  # the start is jittered
    assert seen["max"] != pytest.approx(seen["average"], rel=0.01)
    assert column(paint(tmp_path / "made.png", *options)[1], "style")[0] == seen["max"]


@pytest.mark.parametrize("option", [["--preserve-color"], ["--preserve-color", "luminance"]])
def test_the_contents_chroma_is_kept(tmp_path, option):
    muted = (waves(60, 90, 0) // 4 + 90).astype(np.uint8)  # what sRGB has at most lightnesses
    write_picture(tmp_path / "muted.png", muted)
    options = ["--content", tmp_path / "muted.png", "--style", "style.png", *WEIGHTS]
    options += ["--steps", 12, "--scales", 1]
    plain = oklab(paint(tmp_path / "plain.png", *options)[0])
    kept = oklab(paint(tmp_path / "kept.png", *options, *option)[0])
    expected = oklab(muted)
    far = np.abs(kept - expected)[..., 1:].max(axis=2)
    assert np.quantile(far, 0.9) < 0.01
    assert np.quantile(np.abs(plain - expected)[..., 1:].max(axis=2), 0.9) > 0.02
    assert np.abs(kept - plain)[..., 0].max() < 0.02


def test_the_styles_colours_are_matched_beforehand(tmp_path):
    options = [*CONTENT, *WEIGHTS, *SMALL]
    matched, _ = paint(
        tmp_path / "a.png", *options, "--style", "style.png", "--preserve-color", "match"
    )
    style = match_colours(read_picture("style.png"), read_picture("content.png"))
    write_picture(tmp_path / "style.png", style)
    expected, _ = paint(tmp_path / "b.png", *options, "--style", tmp_path / "style.png")
    np.testing.assert_array_equal(matched, expected)
    plain, _ = paint(tmp_path / "c.png", *options, "--style", "style.png")
    assert not np.array_equal(matched, plain)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        (["content"], 0), (["noise"], 1), (["mix"], 0.5), (["mix", "--noise", "0.2"], 0.2),
        (["content", "--noise", "0.9"], 0),
    ],
)  # fmt: skip
def test_where_it_starts(tmp_path, options, share):
    """Noise goes 20 levels either way of the mean colour."""
    made, _ = paint(tmp_path / "made.png", *QUICK, "--size", 90, *STILL, "--init", *options)
    content = read_picture("content.png").astype(float)
    noise = made - ((1 - share) * content + share * np.array(IMAGE_MEAN))
    assert np.abs(noise).max() <= 20 * share + 1
    assert share == 0 or noise.std() == pytest.approx(share * 40 / 12**0.5, rel=0.05)


def test_a_picture_to_start_from(tmp_path):
    """Of one that is too wide, the middle is taken."""
    start = np.zeros((60, 180, 3), np.uint8)
    start[:, :45], start[:, 45:135], start[:, 135:] = (255, 0, 0), (0, 200, 0), (0, 0, 255)
    write_picture(tmp_path / "start.png", start)
    still = [*STILL[:2], *STILL[4:]]  # with the default for --scales
    made, _ = paint(tmp_path / "made.png", *QUICK, *still, "--init", tmp_path / "start.png")
    assert made.shape == (60, 90, 3)
    assert np.abs(made[:, 1:-1].astype(int) - (0, 200, 0)).max() <= 1
    # it is where to start, not where to go
    _, report = paint(tmp_path / "made.png", *QUICK, "--steps", 15, "--init", "other.png")
    losses = [sum(step[name] for name in ("content", "style", "tv")) for step in report["steps"]]
    assert losses[-1] < 0.6 * losses[0]


def test_a_picture_to_start_from_is_painted_at_one_scale(tmp_path):
    write_picture(tmp_path / "large.png", waves(80, 380, 3))
    options = ["--content", tmp_path / "large.png", "--style", tmp_path / "large.png", *WEIGHTS]
    options += [*SHALLOW, "--steps", 2]

    def widths(*more):
        report = paint(tmp_path / "made.png", *options, *more)[1]
        return [scale["width"] for scale in report["scales"]]

    assert widths() == [190, 380]
    assert widths("--init", "content.png") == [380]
    assert widths("--init", "content.png", "--scales", 2) == [190, 380]


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_same_seed_makes_the_same_picture_with_any_threads(tmp_path, optimizer):
    options = [*QUICK, "--size", 48, "--steps", 4, "--init", "mix", "--optimizer", optimizer]
    first, report = paint(tmp_path / "a.png", *options, "--seed", 1, "--threads", 1)
    assert report["threads"] == 1
    again, report = paint(tmp_path / "b.png", *options, "--seed", 1, "--threads", 3)
    assert report["threads"] == 3
    np.testing.assert_array_equal(again, first)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not np.array_equal(paint(tmp_path / "c.png", *options, "--seed", 2)[0], first)


# ---------------------------------------------------------------- optimisation


def test_steps_and_scales(tmp_path, capsys):
    _, report = paint(tmp_path / "made.png", *QUICK, *SHALLOW, "--steps", 7, "--scales", 3)
    assert len(report["steps"]) == 7
    assert [scale["steps"] for scale in report["scales"]] == [3, 2, 2]
    assert [(s["height"], s["width"]) for s in report["scales"]] == [(15, 22), (30, 45), (60, 90)]
    assert ", by way of 22x15 and 45x30\n" in capsys.readouterr().out


def test_a_scale_starts_from_the_enlarged_result_of_the_last(tmp_path):
    options = [*QUICK, *SHALLOW, "--optimizer", "adam", "--learning-rate", 0.001, "--steps", 2]
    options += ["--init", "content"]
    made, _ = paint(tmp_path / "made.png", *options, "--scales", 2)
    with Image.open("content.png") as content:
        small = content.resize((45, 30), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((90, 60), Image.Resampling.BILINEAR), float)
    assert np.abs(made - expected).max() <= 2


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate(tmp_path):
    options = [*QUICK, "--scales", 1, "--steps", 1, "--optimizer", "adam", "--init", "content"]
    content = read_picture("content.png")
    inside = (content > 10) & (content < 245)
    for length in 2, 5:
        made, _ = paint(tmp_path / "made.png", *options, "--learning-rate", length)
        moved = np.abs(made.astype(int) - content)[inside]
        assert moved.max() == length
        assert np.mean(moved == length) > 0.95


def test_lbfgs_is_the_default_and_finds_its_own_step_lengths(tmp_path):
    options = [*QUICK, *SMALL, "--steps", 8]
    made, report = paint(tmp_path / "a.png", *options)
    for name, more in (("b.png", ["--learning-rate", 7]), ("c.png", ["--optimizer", "lbfgs"])):
        np.testing.assert_array_equal(paint(tmp_path / name, *options, *more)[0], made)
    _, adam = paint(tmp_path / "d.png", *options, "--optimizer", "adam")
    assert column(report, "style")[-1] < 0.8 * column(adam, "style")[-1]


def test_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "find_trained_filters", lambda: None)  # they may be here
    layers = ["--content-layers", "relu1_2", "--style-layers", "relu1_1", "relu2_1"]
    options = [*CONTENT, "--style", "style.png", *SMALL, *layers]
    made = {}
    for name, said in {"kmeans": "k-means", "random": "random", "narrow.mat": "narrow"}.items():
        made[name], report = paint(tmp_path / "made.png", *options, "--weights", name)
        assert said in capsys.readouterr().out.splitlines()[0]
        assert report["weights"] == name
    default, _ = paint(tmp_path / "made.png", *options)
    np.testing.assert_array_equal(default, made["kmeans"])
    assert not np.array_equal(made["kmeans"], made["random"])
    assert not np.array_equal(made["kmeans"], made["narrow.mat"])
    # the filters are drawn with the seed
    other, _ = paint(tmp_path / "made.png", *options, "--weights", "random", "--seed", 1)
    assert not np.array_equal(other, made["random"])


@pytest.mark.parametrize("weights", ["kmeans", "random"])
def test_filters_do_not_depend_on_the_number_of_scales(tmp_path, weights):
    options = [*CONTENT, "--style", "style.png", "--weights", weights, "--steps", 3]
    options += ["--content-layers", "relu1_1", "--style-layers", "relu1_2"]
    options += ["--output", tmp_path / "a.png", "--checkpoint", tmp_path / "a.npz"]
    seen = set()
    for scales in 1, 3:
        assert call(*options, "--scales", scales) == 0
        seen.add(read_checkpoint(tmp_path / "a.npz").digests["set of filters"])
    assert len(seen) == 1


# ---------------------------------------------------------------- the way there


def test_pictures_on_the_way(tmp_path):
    options = [*QUICK, *SHALLOW, "--scales", 2, "--steps", 7, "--optimizer", "adam"]
    made, _ = paint(tmp_path / "made.webp", *options, "--save-every", 1)
    saved = [read_picture(tmp_path / f"made_{step:04d}.webp") for step in range(1, 8)]
    assert not (tmp_path / "made_0008.webp").exists()
    np.testing.assert_array_equal(saved[-1], made)
    for before, after in itertools.pairwise(saved):
        assert after.shape == made.shape  # those of the coarse scale, too
        assert not np.array_equal(before, after)


@pytest.mark.parametrize("name", ["way.gif", "way.webp"])
def test_animation(tmp_path, name):
    options = [*QUICK, "--steps", 6, "--scales", 1, "--animation", tmp_path / name]
    options += ["--init", "content"]
    made, _ = paint(tmp_path / "made.png", *options)
    content = read_picture("content.png")
    with Image.open(tmp_path / name) as animation:
        count = animation.n_frames
        assert count >= 7  # the start and six steps
        assert animation.size == (90, 60)
        frames = []
        for number in 0, count - 1:
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB"), float))
    # the content first, the result last, as far as a palette or a lossy format allow
    far = [[np.abs(frame - picture).mean() for picture in (content, made)] for frame in frames]
    assert far[0][0] < far[0][1]
    assert far[1][1] < far[1][0]
    paint(tmp_path / "made.png", *options, "--save-every", 3)
    with Image.open(tmp_path / name) as animation:
        assert 3 <= animation.n_frames < count


def test_contact_sheet(tmp_path):
    path = tmp_path / "sheet.jpg"
    made, _ = paint(tmp_path / "made.png", *QUICK, *SMALL, "--contact-sheet", path)
    sheet = read_picture(path)
    assert sheet.size > 4 * made.size
    assert sheet.std() > 5


@pytest.mark.parametrize(("extension", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml"),
                                                  ("pdf", b"%PDF")])  # fmt: skip
def test_plot(tmp_path, extension, begin):
    path = tmp_path / f"losses.{extension}"
    assert call(*QUICK, *SMALL, "--output", tmp_path / "made.png", "--plot", path) == 0
    assert path.read_bytes().startswith(begin)


def test_both_reports(tmp_path):
    options = ["--report", tmp_path / "a.html", "--report", tmp_path / "a.json"]
    assert call(*QUICK, *SMALL, "--output", tmp_path / "made.png", *options) == 0
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "<html" in page
    assert "data:image" in page
    assert len(json.loads((tmp_path / "a.json").read_text("utf-8"))["steps"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json", "made.png"]


def test_a_page_shows_names_without_folders(folder, tmp_path):
    where = [tmp_path / "made.png", "--report", tmp_path / "a.html"]
    options = ["--content", folder / "content.png", "--style", folder / "style.png", "--init",
               folder / "other.png", "--weights", folder / "narrow.mat", *SMALL]  # fmt: skip
    _, report = paint(*where, *options, "--checkpoint", tmp_path / "a.npz")
    assert report["options"]["content"] == [str(folder / "content.png")]
    assert call("--resume", tmp_path / "a.npz") == 0  # its options have absolute paths
    page = (tmp_path / "a.html").read_text("utf-8")
    for place in (folder, tmp_path, tmp_path.parent):
        assert str(place) not in page
    for name in ("content.png", "style.png", "other.png", "narrow.mat", "made.png", "a.npz"):
        assert name in page


def test_a_larger_content_gets_one_line(tmp_path, capsys):
    write_picture(tmp_path / "large.png", waves(90, 150, 3))
    options = ["--style", "style.png", *WEIGHTS, "--steps", 5, "--output", tmp_path / "made.png"]
    assert call(tmp_path / "large.png", *options, "--size", 60) == 0
    out = capsys.readouterr().out
    assert "size: 60x36, of 150x90\n" in out
    said = r"large\.png is larger: --size 120 paints 120x72 in about ([\d.]+) s\n"
    assert float(re.search(said, out)[1]) < 100
    assert call(tmp_path / "large.png", *options, "--size", 100) == 0
    assert "--size 150 paints 150x90" in capsys.readouterr().out
    assert call(tmp_path / "large.png", *options, "--size", 150) == 0
    assert "is larger" not in capsys.readouterr().out


def test_the_reports_size_is_that_of_the_picture_worked_at(tmp_path):
    """Steps and scales in the report are those that were done."""
    _, report = paint(tmp_path / "made.png", *QUICK, "--steps", 3, "--size", 70)
    assert report["scales"] == [
        {"height": 47, "width": 70, "style_sizes": [[70, 61]], "steps": 3}
    ]  # fmt: skip
    assert report["options"]["content"] == ["content.png"]  # as it was given
    assert all(step["seconds"] >= 0 for step in report["steps"])
    assert report["seconds"] > sum(column(report, "seconds"))


# ---------------------------------------------------------------- what is refused


def write_other_files(folder):
    """Write what is taken for a checkpoint by mistake."""
    position = Position(0, 0, np.zeros((1, 3, 9, 9), np.float32), {})
    write_checkpoint(folder / "whole.npz", Checkpoint(position=position))
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:-60])
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "something.npz", a=np.arange(3))
    np.save(folder / "array.npy", np.arange(3))
    np.savez(folder / "pickled.npz", head=np.array([{"format": 1}], dtype=object))


BAD_INPUT = [
    (["--content", "nowhere.png"], "nowhere.png"),
    (["--content", "."], "for several contents give a folder"),
    (["--style", "narrow.mat"], "narrow.mat"),
    (["--style", "nowhere.png"], "nowhere.png"),
    (["--init", "nowhere.png"], "nowhere.png"),
    (["--output", "made.gif"], ".gif"),
    (["--output", "made"], "extension"),
    (["--output", "."], "content.png would overwrite"),
    (["--output", "content.png/made.png"], "content.png is not a folder"),
    (["--weights", "nowhere.mat"], r"nowhere\.mat.*534,904,783"),
    (["--weights", "content.png"], "content.png"),
    (["--content", "tiny.png", "--style-layers", "relu5_1"], "at least 32 pixels.*; give larger"),
    (["--size", "20"], "at least 16 pixels a side.* 20x13"),
    (["--style-scale", "0.3"], "at least 16 pixels a side.* style 13x14"),
    (["--size", "20", *SHALLOW, "--content-layers", "pool4"], "at least 32 pixels"),
    (["--size", "10", *SHALLOW], "at least 8 pixels"),
    (["--steps", "0"], "--steps"),
    (["--size", "-3"], "--size"),
    (["--size", "1e3"], "--size"),
    (["--scales", "0"], "--scales"),
    (["--noise", "1.5"], "--noise"),
    (["--seed", "x"], "--seed"),
    (["--seed", "-1"], "--seed"),
    (["--style-weight", "nan"], "--style-weight"),
    (["--content-weight", "-1"], "--content-weight"),
    (["--tv-weight", "inf"], "--tv-weight"),
    (["--style-scale", "0"], "--style-scale"),
    (["--learning-rate", "0"], "--learning-rate"),
    (["--content-weight", "0", "--style-weight", "0"], "cannot both be 0"),
    (["--threads", "0"], "--threads"),
    (["--seed", "9" * 400], "--seed"),
    (["--style-scale", "1e300"], "--style-scale"),
    (["--scales", "100000"], "--scales"),
    (["--style-layers", "relu1_1", "relu1_1:2"], "names a layer twice"),
    (["--style-layers", "relu1_1:"], "--style-layers"),
    (["--output", "x" * 300 + ".png"], "cannot write x+.png: File name too long"),
    (["--content", "x" * 300 + ".png"], "x+.png"),
    (["--report", "x" * 300 + ".html"], "cannot write x+.html: File name too long"),
    (["--save-every", "0"], "--save-every"),
    (["--checkpoint-every", "0"], "--checkpoint-every"),
    (["--optimizer", "sgd"], "--optimizer.*adam"),
    (["--pooling", "min"], "--pooling.*average"),
    (["--preserve-color", "hue"], "--preserve-color.*luminance"),
    (["--content-layers", "relu9_1"], "--content-layers.*'relu9_1'"),
    (["--style-layers", "relu1_1", "conv1_1"], "--style-layers.*'conv1_1'"),
    (["--style-layers", "relu1_1:0"], "--style-layers.*greater than 0"),
    (["--style-layers", "relu1_1:much"], "--style-layers.*'much'"),
    (["--style-layers"], "--style-layers"),
    (["--style-blend", "1", "2"], "2 numbers for 1 "),
    (["--style", "second.png", "--style-blend", "1"], "1 numbers? for 2 "),
    (["--style-blend", "0"], "greater than 0"),
    (["--style-blend", "-1"], "--style-blend"),
    (["--background", "nocolour"], "'nocolour' is not a colour"),
    (["--background", "#11223380"], "--background.*opacity"),
    (["--animation", "x.mp4"], r"x\.mp4"),
    (["--contact-sheet", "x.gif"], r"x\.gif"),
    (["--plot", "x.bmp"], r"x\.bmp"),
    (["--report", "x.txt"], r"x\.txt"),
    (["--report", "content.png/report.json"], "report"),
    (["--checkpoint", "x.bin"], r"x\.bin.*\.npz"),
    (["--checkpoint", "content.png/x.npz"], "content.png is not a folder"),
    (["--resume", "nowhere.npz"], "there is no checkpoint nowhere.npz"),
    (["--resume", "content.png"], r"content.png \(.* bytes\) is no whole .npz file"),
    (["--resume", "narrow.mat"], r"narrow.mat \(.* bytes\) is no whole .npz file"),
    (["--resume", "cut.npz"], r"cut.npz \(.* bytes\) is no whole .npz file"),
    (["--resume", "empty.npz"], r"empty.npz \(.* bytes\) is no whole .npz file"),
    (["--resume", "something.npz"], r"something.npz \(.* bytes\) is not a checkpoint of this"),
    (["--resume", "array.npy"], r"array.npy \(.* bytes\) is no whole .npz file"),
    (["--resume", "pickled.npz"], "pickled.npz .*: 'head' is damaged"),
    (["--resume", "."], "cannot read the checkpoint"),
    (["--output", "content.png"], "content.png would overwrite"),
    (["--output", "style.png"], "style.png would overwrite"),
    (["--contact-sheet", "content.png"], "content.png would overwrite"),
    (["--init", "other.png", "--plot", "other.png"], "other.png would overwrite"),
    (["--output", "a.png", "--contact-sheet", "./a.png"], "a.png is named for two outputs"),
    (["--report", "a.json", "--report", "a.json"], "a.json is named for two outputs"),
    (["--nonsense"], "--nonsense"),
    (["--style-weight", "1e999"], "expected a finite number of at least 0, got '1e999'"),
    (["--style-weight=--"], "--style-weight: expected a value, got '--'"),
    (["--content=--"], "--content: expected a value, got '--'"),
    (["--content"], "--content: expected at least one argument"),
    (["--content", "--"], "--content: expected at least one argument"),
    (["--sty", "style.png"], "--sty"),  # no abbreviations
]


@pytest.mark.parametrize(
    ("options", "said"), BAD_INPUT, ids=[" ".join(map(str, options)) for options, _ in BAD_INPUT]
)
def test_bad_input_gets_one_clear_line(folder, tmp_path, options, said, capsys):
    write_other_files(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    output = ["--output", tmp_path / "made.png"]
    assert call(*QUICK, "--size", 48, "--steps", 1, *output, *options) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("style_transfer_cpu.py: error: ")
    assert re.search(said, error), error
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == []


def test_a_linked_input_is_not_overwritten(folder, tmp_path, capsys):
    os.link("content.png", tmp_path / "same.png")
    assert call(*QUICK, *SMALL, "--output", tmp_path / "same.png") == 2
    assert "would overwrite" in capsys.readouterr().err


# ---------------------------------------------------------------- losses that are no numbers


def test_weights_that_overflow_stop_it_at_once(tmp_path, capsys):
    weights = {name: (weight * 1e9, bias) for name, (weight, bias) in NARROW.items()}
    write_matconvnet(tmp_path / "wild.mat", weights, last_layer="pool5")
    options = [*QUICK, "--weights", tmp_path / "wild.mat", "--size", 48, "--steps", 3]
    for threads in "1", "2":
        assert call(*options, "--threads", threads, "--output", tmp_path / "made.png") == 2
    assert "at step 1 the loss or its gradient is no longer finite" in capsys.readouterr().err
    assert not (tmp_path / "made.png").exists()


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_loss_that_is_no_number_leaves_the_last_good_picture(
    tmp_path, capsys, monkeypatch, optimizer
):
    real = objective.content_loss
    calls = []

    def content_loss(features, target):
        calls.append(features.shape)
        loss, gradient = real(features, target)
        return (math.nan if len(calls) == 6 else loss), gradient

    monkeypatch.setattr(objective, "content_loss", content_loss)
    options = [*QUICK, *SHALLOW, "--optimizer", optimizer, "--steps", 20, "--save-every", 1]
    options += ["--scales", 2, "--output", tmp_path / "made.png"]
    assert call(*options, "--report", tmp_path / "report.json") == 2
    assert len(calls) == 6
    error = capsys.readouterr().err.splitlines()[-1]
    step = int(re.search(r"at step (\d+) the loss or its gradient is no longer finite", error)[1])
    assert step == 6 if optimizer == "adam" else 2 < step <= 6
    assert "content nan" in error
    for option in ("--weights", "--style-weight", "--learning-rate"):
        assert option in error
    so_far = tmp_path / "made.unfinished.png"
    assert f"{so_far} is the picture of the step before" in error
    names = [f"made_{number:04d}.png" for number in range(1, step)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([so_far.name, *names])
    assert so_far.read_bytes() == (tmp_path / names[-1]).read_bytes()


def test_a_plain_picture_is_painted_too(tmp_path):
    """Where all of a pool's window ties, a gradient need not lead down."""
    plain = np.full((60, 90, 3), 255, np.uint8)
    plain[20:40, 30:60] = (220, 20, 20)
    write_picture(tmp_path / "plain.png", plain)
    options = ["--content", tmp_path / "plain.png", "--style", "style.png", *WEIGHTS]
    made, report = paint(tmp_path / "made.png", *options, "--size", 90, "--steps", 20)
    assert len(report["steps"]) == 20
    assert column(report, "style")[-1] < 0.3 * column(report, "style")[0]
    assert np.abs(made.astype(int) - plain).mean() > 5


def test_pictures_that_are_read_are_not_overwritten_on_the_way(tmp_path, capsys):
    write_picture(tmp_path / "made_0002.png", waves(60, 90, 3))
    before = (tmp_path / "made_0002.png").read_bytes()
    options = ["--content", tmp_path / "made_0002.png", "--style", "style.png", *WEIGHTS, *SMALL]
    options += ["--output", tmp_path / "made.png", "--save-every", 1]
    assert call(*options) == 2
    assert "--save-every could overwrite" in capsys.readouterr().err
    assert (tmp_path / "made_0002.png").read_bytes() == before
    assert not (tmp_path / "made.png").exists()


def test_names_may_be_as_long_as_the_system_lets_them(tmp_path):
    made, _ = paint(tmp_path / ("x" * 245 + ".png"), *QUICK, *SMALL)
    assert made.shape == (32, 48, 3)


def test_names_need_not_be_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    write_picture(path, waves(60, 90, 3))
    options = ["--content", path, "--style", "style.png", *WEIGHTS, *SMALL]
    _, report = paint(tmp_path / "made.png", *options, "--report", tmp_path / "page.html")
    assert report["options"]["content"][0].endswith(".png")
    assert (tmp_path / "page.html").stat().st_size > 1000


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_gradient_that_is_not_finite_stops_it_too(tmp_path, capsys, monkeypatch, optimizer):
    variation = objective.total_variation

    def overflowing(image):
        loss, gradient = variation(image)
        return loss, np.full_like(gradient, np.inf)

    monkeypatch.setattr(objective, "total_variation", overflowing)
    options = [*QUICK, *SMALL, "--optimizer", optimizer, "--output", tmp_path / "made.png"]
    assert call(*options) == 2
    assert "at step 1 the loss or its gradient is no longer finite" in capsys.readouterr().err
    assert not (tmp_path / "made.png").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["in the last step", "writing"])
def test_a_signal_in_the_last_step_lets_it_finish(tmp_path, capsys, monkeypatch, number, moment):
    options = [*QUICK, *SMALL, "--optimizer", "adam"]  # one evaluation a step
    expected, _ = paint(tmp_path / "expected.png", *options)
    place, name, nth = objective, "total_variation", 3
    if moment == "writing":
        place, name, nth = journal, "write_picture", 1
    real, calls = getattr(place, name), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == nth:
            signal.raise_signal(number)
        return real(*arguments)

    monkeypatch.setattr(place, name, interrupted)
    assert call(*options, "--output", tmp_path / "made.png") == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "made.png"), expected)
    assert "; repeat to stop at once" in capsys.readouterr().err


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:  # after the picture
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    options = [*QUICK, *SMALL, "--output", tmp_path / "made.png", "--report", tmp_path / "r.json"]
    assert call(*options) == 2
    line = f"cannot write the report {tmp_path / 'r.json'}: No space left on device"
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.png"]


# ---------------------------------------------------------------- several contents


def several(tmp_path, *contents, **options):
    """Return the arguments that paint copies of the pictures, in `tmp_path / "painted"`."""
    return ["--content", *contents, "--style", "style.png", *WEIGHTS, *SMALL, "--output",
            f"{tmp_path / 'painted'}/"]  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_several_contents_and_folders(folder, tmp_path, capsys):
    (tmp_path / "holiday").mkdir()
    write_picture(tmp_path / "holiday" / "b.PNG", waves(60, 90, 7))
    write_picture(tmp_path / "holiday" / "a.jpg", waves(60, 90, 8))
    (tmp_path / "holiday" / "notes.txt").write_text("no picture")
    options = several(tmp_path, "content.png", tmp_path / "holiday", "other.png")
    assert call(*options) == 0
    painted = tmp_path / "painted"
    assert names(painted) == ["a.png", "b.png", "content.png", "other.png"]
    out = capsys.readouterr().out
    assert out.count("weights: ") == 1
    assert f"picture 2 of 4: {tmp_path / 'holiday' / 'a.jpg'}\n" in out
    assert out.splitlines()[-1] == "4 of 4 pictures painted"
    # each is the picture of a run of its own
    for content in ("other.png", tmp_path / "holiday" / "a.jpg"):
        alone, _ = paint(tmp_path / "alone.png", "--content", content, *options[4:-2])
        name = f"{Path(content).stem}.png"
        np.testing.assert_array_equal(read_picture(painted / name), alone)


def test_what_is_painted_already_is_left_out(tmp_path, capsys):
    options = several(tmp_path, "content.png", "other.png")
    assert call(*options) == 0
    painted = tmp_path / "painted"
    write_picture(painted / "content.png", waves(9, 9, 0))
    (painted / "other.png").unlink()
    assert call(*options) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == (
        "1 of 2 pictures painted; 1 were there already (--overwrite paints them again)"
    )
    assert read_picture(painted / "content.png").shape == (9, 9, 3)
    assert call(*options, "--output", f"{tmp_path}/new/../painted/") == 0  # no folder "new"
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 of 2 pictures painted; 2 were")
    assert read_picture(painted / "content.png").shape == (9, 9, 3)
    assert call(*options, "--overwrite") == 0
    assert read_picture(painted / "content.png").shape == (32, 48, 3)


def test_a_broken_picture_among_many_is_named_and_skipped(tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    broken, small = tmp_path / "broken.jpg", tmp_path / "small.png"
    write_picture(small, waves(3, 3, 0))
    assert call(*several(tmp_path, broken, "content.png", small, "other.png")) == 2
    assert names(tmp_path / "painted") == ["content.png", "other.png"]
    out, error = capsys.readouterr()
    assert out.splitlines()[-1] == f"2 of 4 pictures painted; not painted: {broken}, {small}"
    assert re.search(rf"^style_transfer_cpu.py: error: .*{broken}", error, re.MULTILINE)
    assert "Traceback" not in error


def test_equal_names_do_not_overwrite_each_other(tmp_path):
    for place in ("a/x.jpg", "a/x.png", "b/X.png", "b/y.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write_picture(tmp_path / place, waves(60, 90, len(place)))
    assert call(*several(tmp_path, tmp_path / "a", tmp_path / "b", tmp_path / "b" / "y.png")) == 0
    assert names(tmp_path / "painted") == ["X.png-2.png", "x.jpg.png", "x.png.png", "y.png"]


def test_a_stop_among_several(tmp_path, capsys):
    options = several(tmp_path, "content.png", "other.png")
    on_step = at_step(5, lambda: signal.raise_signal(signal.SIGINT))  # the second of the second
    assert call(*options, on_step=on_step) == 130
    painted = tmp_path / "painted"
    assert names(painted) == ["content.png", "other.checkpoint.npz", "other.unfinished.png"]
    assert capsys.readouterr().err.splitlines()[-1] == "the same command paints the rest"
    assert call("--resume", painted / "other.checkpoint.npz") == 0
    assert names(painted) == ["content.png", "other.checkpoint.npz", "other.png"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_in_the_last_step_of_one_among_several(tmp_path, monkeypatch, capsys, count):
    """That picture is finished, and the next is not begun."""
    real, calls = objective.total_variation, []

    def interrupted(image):
        calls.append(1)
        if len(calls) == 3 * count:
            signal.raise_signal(signal.SIGTERM)
        return real(image)

    monkeypatch.setattr(objective, "total_variation", interrupted)
    options = [*several(tmp_path, "content.png", "other.png"), "--optimizer", "adam"]
    status = call(*options)
    out, error = capsys.readouterr()
    assert "finishing the last step; repeat to stop at once" in error
    if count == 1:
        assert status == 143
        assert names(tmp_path / "painted") == ["content.png"]
        assert error.splitlines()[-1] == "the same command paints the rest"
    else:
        assert status == 0
        assert out.splitlines()[-1] == "2 of 2 pictures painted"


@pytest.mark.parametrize("weights", [WEIGHTS, ["--weights", "kmeans"]])
def test_what_the_style_needs_is_computed_once(tmp_path, monkeypatch, weights):
    shapes = []
    forward = FusedNetwork.forward

    def counted(network, image, *arguments, **options):
        shapes.append(image.shape[2:])
        return forward(network, image, *arguments, **options)

    monkeypatch.setattr(FusedNetwork, "forward", counted)
    options = [*several(tmp_path, "content.png", "other.png"), *SHALLOW, *weights, "--scales", 2]
    assert call(*options) == 0
    style = [shape for shape in shapes if shape in ((24, 21), (48, 42))]
    # filters made from the pictures differ from content to content
    assert len(style) == (2 if weights is WEIGHTS else 4)


@pytest.mark.parametrize("output", ["made", "made/", "made/*.jpg"])
def test_a_folder_as_output(tmp_path, monkeypatch, output):
    if output == "made":
        (tmp_path / "made").mkdir()
    assert call(*QUICK, *SMALL, "--output", f"{tmp_path}/{output}") == 0
    name = "content.jpg" if "*" in output else "content.png"
    assert names(tmp_path / "made") == [name]


@pytest.mark.parametrize(("options", "said"), [
    (["--report", "r.json"], "--report is for one content"),
    (["--checkpoint", "c.npz"], "--checkpoint is for one content"),
    (["--save-every", 2], "--save-every is for one content"),
    (["--output", "made.png"], "--output made.png: for several contents give a folder"),
    (["--output", "pictures/"], "--output pictures holds the contents; give another folder"),
    (["--content", "empty"], r"empty holds no pictures \(.png"),
])  # fmt: skip
def test_several_contents_are_refused_with(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "empty"):
        Path(name).mkdir()
    for name in ("a.png", "pictures/b.png"):
        write_picture(name, waves(60, 90, 7))
    assert call("--content", "a.png", "pictures", "--style", "a.png", *options) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert re.search(said, error[0])
    assert names(tmp_path) == ["a.png", "empty", "pictures"]


# ---------------------------------------------------------------- names and spelling


@pytest.mark.parametrize(("options", "said"), [
    (["--styel", "style.png"], "did you mean --style?"),
    (["--preserve-colour"], "did you mean --preserve-color?"),
    (["--preserve-colour=match"], "did you mean --preserve-color?"),
    (["--optimiser", "adam"], "did you mean --optimizer?"),
    (["--contents", "a.png"], "did you mean --content?"),
    (["--optimizer", "adan"], "got 'adan'; did you mean adam?"),
    (["--pooling", "avrage"], "did you mean average?"),
    (["--init", "palete"], "there is no file palete; did you mean palette?"),
    (["--weights", "Kmeans"], "there is no file Kmeans; did you mean kmeans?"),
    (["https://example.org/a.jpg"], "https://example.org/a.jpg is an address; download it"),
    (["--style", "http://example.org/a.jpg"], "http://example.org/a.jpg is an address"),
    (["--content", "-"], "- is not a file"),
    (["-"], "- is not a file"),
    (["--output", "/dev/stdout"], "/dev/stdout is not a file"),
    (["--init", "/dev/stdin"], "/dev/stdin is not a file"),
    (["--content", ""], "the name is empty"),
    (["a.png", "--style", "style.png", "b.png"], "give --content or --style before b.png"),
    (["a.png", "--style", "a.png", "b.png"], "give --content or --style before b.png"),
    (["--optimizer", "adam", "adam"], "there is no picture adam"),
    (["--overwrite", "a.png"], "there is no picture a.png"),
    (["--content", "a.png", "--style", "style.png", "b.png"], "--style before b.png"),
])  # fmt: skip
def test_a_mistake_gets_a_hint(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    assert call(*options) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_plain_name_is_a_content(tmp_path):
    options = ["--style", "style.png", *WEIGHTS, *SMALL]
    expected, _ = paint(tmp_path / "a.png", *CONTENT, *options)
    np.testing.assert_array_equal(paint(tmp_path / "b.png", "content.png", *options)[0], expected)
    np.testing.assert_array_equal(paint(tmp_path / "c.png", *options, "content.png")[0], expected)
    assert call("content.png", "other.png", *options, "--output", tmp_path / "d") == 0
    assert names(tmp_path / "d") == ["content.png", "other.png"]


def test_a_tilde_is_the_users_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    home = ["--content=~/content.png", "--style=~/style.png", "--weights=~/narrow.mat"]
    assert call(*home, "--init=~/other.png", *SMALL, "--output=made.png") == 0
    assert names(tmp_path) == ["made.png"]


def test_without_a_terminal_there_is_a_line_at_every_tenth(folder, tmp_path):
    process = start(folder, *QUICK, "--size", 90, "--steps", 40, "--output", tmp_path / "a.png")
    _, error = process.communicate(timeout=120)
    assert "\r" not in error
    assert 2 <= len(error.splitlines()) <= 10
    assert error.splitlines()[-1].startswith("100%")
    assert "step 40/40" in error.splitlines()[-1]

"""The scripts that make the project's own pictures; the scenes at an eighth of their size."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picture import make_filters, make_scenes
from picture.make_scenes import SCENES, make_scene
from picture.scenes.lake_land import Camera, Land
from picture.scenes.tools import make_lattice

ROOT = Path(__file__).resolve().parent.parent
SCALE = 0.125
STYLES = [name for name in SCENES if name != "content.jpg"]


def run(*options, cwd):
    script = ROOT / "picture" / "make_scenes.py"
    command = [sys.executable, str(script), *map(str, options)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def read(path):
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A new folder that the script, run outside the project, made and filled."""
    elsewhere = tmp_path_factory.mktemp("scenes")
    done = run("--output-dir", "new/folder", "--scale", SCALE, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = elsewhere / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == sorted(SCENES)
    for name in SCENES:
        assert str(Path("new/folder") / name) in done.stdout
    return folder


@pytest.mark.parametrize("name", SCENES)
def test_size(painted, name):
    scene = SCENES[name]
    assert read(painted / name).shape == (scene.height * SCALE, scene.width * SCALE, 3)


@pytest.mark.parametrize("name", SCENES)
def test_the_same_seed_makes_the_same_picture(painted, tmp_path, name, capsys):
    options = ["--output-dir", str(tmp_path), "--scale", str(SCALE), "--only", name]
    assert make_scenes.main(options) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / name}: ")
    assert (tmp_path / name).read_bytes() == (painted / name).read_bytes()


@pytest.mark.parametrize("name", STYLES)
def test_a_different_seed_makes_a_different_picture(painted, name):
    first = read(painted / name).astype(float)
    other = make_scene(name, seed=1, scale=SCALE).astype(float)
    assert np.abs(first - other).mean() > 10


@pytest.mark.parametrize(
    ("name", "scale"),
    # How the mosaic is cut depends on the pixels, so it is the same only at the same size.
    [("content.jpg", SCALE), ("style.jpg", SCALE), ("style_mosaic.jpg", 1.0)],
)
def test_the_committed_picture_is_the_one_that_the_script_makes(name, scale):
    with Image.open(ROOT / "picture" / name) as image:
        committed = np.asarray(image.reduce(80)).astype(float)
    made = Image.fromarray(make_scene(name, scale=scale)).reduce(round(80 * scale))
    difference = np.abs(np.asarray(made) - committed).mean()
    contrast = np.abs(committed - committed.mean()).mean()
    assert difference < 0.25 * contrast


@pytest.mark.parametrize("name", SCENES)
def test_variety_of_tone_and_colour(painted, name):
    picture = read(painted / name).astype(float)
    tone = picture @ [0.299, 0.587, 0.114]
    low, high = np.percentile(tone, [2, 98])
    assert high - low > 110
    # Of five equal parts of the range from black to white, the three in the middle are used.
    shares = np.histogram(tone, bins=5, range=(0, 255))[0] / tone.size
    assert shares[1:4].min() > 0.05, shares
    # Hasler and Suesstrunk 2003, "Measuring colourfulness": above 33 is "moderately colourful".
    red, green, blue = np.moveaxis(picture, -1, 0)  # (H, W, 3) -> (3, H, W)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    deviation = np.hypot(*opponents.std(axis=(1, 2)))
    assert deviation + 0.3 * np.hypot(*opponents.mean(axis=(1, 2))) > 33
    # Detail everywhere: no sixteenth of a style is an empty surface.
    if name in STYLES:
        height, width = (size // 4 * 4 for size in tone.shape)
        blocks = tone[:height, :width].reshape(4, height // 4, 4, width // 4)
        assert blocks.std(axis=(1, 3)).min() > 6


def test_the_styles_differ_in_character(painted):
    """Stroke contrast or mean colour differs between any two styles."""
    pictures = [read(painted / name).astype(float) for name in STYLES]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            contrast = [np.abs(np.diff(p.mean(axis=-1), axis=0)).mean() for p in (a, b)]
            colour = np.abs(a.mean(axis=(0, 1)) - b.mean(axis=(0, 1))).max()
            assert max(contrast) / min(contrast) > 1.15 or colour > 15


def test_a_mirror_image_meets_its_object_at_the_water():
    above = Camera(height=100, width=150, horizon=50.0, focal=140.0, eye=5.0)
    below = Camera(height=100, width=150, horizon=50.0, focal=140.0, eye=-5.0)
    foot, top = [8.0, 0.0, 40.0], [8.0, 3.0, 40.0]
    seen, mirrored = above.project([foot, top]), below.project([foot, top])
    np.testing.assert_allclose(seen, [[75 + 140 * 8 / 40, 50 + 140 * 5 / 40],
                                      [75 + 140 * 8 / 40, 50 + 140 * 2 / 40]])  # fmt: skip
    np.testing.assert_allclose(mirrored[:, 0], seen[:, 0])
    mirrored_rows = 2 * above.horizon - mirrored[:, 1]  # flipped at the horizon
    np.testing.assert_allclose(mirrored_rows[0], seen[0, 1])
    np.testing.assert_allclose(mirrored_rows[1] - seen[0, 1], seen[0, 1] - seen[1, 1])


def test_a_ray_meets_the_ground_at_the_first_sample_as_high_as_the_ray():
    camera = Camera(height=48, width=24, horizon=26.0, focal=23.0, eye=5.2)
    land = Land(make_lattice(np.random.default_rng(0)), camera)
    seen, _ = land.look(camera)
    assert np.isfinite(seen).any() and np.isinf(seen).any()
    for row in range(camera.height):
        for column in range(0, camera.width, 5):
            rise = (camera.horizon - row - 0.5) / camera.focal  # metres up per metre of distance
            expected = np.inf
            for d, height in zip(land.d[:, 0], land.height[:, column], strict=True):
                if height > 0 and height >= camera.eye + rise * d:
                    expected = d
                    break
            assert seen[row, column] == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--scale", "0"], r"argument --scale: .* 0\.1 .* 5, .*'0'"),
        (["--scale", "5.1"], r"argument --scale: .* 0\.1 .* 5, .*'5\.1'"),
        (["--scale", "nan"], r"argument --scale: .* 0\.1 .* 5, .*'nan'"),
        (["--scale", "big"], r"argument --scale: .* 0\.1 .* 5, .*'big'"),
        (["--seed", "-1"], r"argument --seed: .* 0, .*'-1'"),
        (["--only", "sketch.jpg"], r"argument --only: invalid choice: 'sketch\.jpg'"),
    ],
)
def test_bad_options(options, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        make_scenes.main(options)
    assert stop.value.code == 2
    assert re.search(complaint, capsys.readouterr().err)


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = run(
        "--output-dir", "taken", "--scale", "0.1", "--only", "style_mosaic.jpg", cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("make_scenes.py: error: cannot write ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", SCENES)
def test_the_committed_pictures(name):
    path = ROOT / "picture" / name
    assert read(path).shape == (SCENES[name].height, SCENES[name].width, 3)
    assert path.stat().st_size < 400_000


def test_all_files_of_the_folder_together_are_small():
    files = (path for path in (ROOT / "picture").rglob("*") if path.suffix != ".pyc")
    assert sum(path.stat().st_size for path in files if path.is_file()) < 3_000_000


def test_filters_are_drawn_as_in_the_committed_picture(tmp_path, capsys):
    """Rounding differs between machines, which may move a tile but not the rest."""
    path = tmp_path / "filters.png"
    assert make_filters.main(["--output", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 952 x 504\n"
    made, committed = read(path), read(ROOT / "picture" / "filters.png")
    assert made.shape == committed.shape
    assert (np.abs(made.astype(int) - committed).max(axis=-1) <= 2).mean() > 0.8


def test_filters_from_a_picture_that_is_missing(tmp_path, capsys):
    path = tmp_path / "filters.png"
    assert make_filters.main(["--style", "missing.jpg", "--output", str(path)]) == 2
    assert "error: there is no picture missing.jpg" in capsys.readouterr().err
    assert not path.exists()

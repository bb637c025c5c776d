"""How much memory style transfer takes, and the refusal of what does not fit."""

import json
import re

import pytest
from helpers.matconvnet_files import write_matconvnet
from helpers.style_pictures import NARROW, start, waves

from style import plan
from style.plan import style_transfer_bytes
from support.command import InputError
from support.pictures import write_picture


def test_the_estimate_grows_with_pixels_channels_and_the_optimisers_memory():
    few, many = (style_transfer_bytes(n, 64, "lbfgs") for n in (10**5, 10**6))
    assert many - few == pytest.approx(9e5 * 2320, rel=0.01)
    # ten pairs of two arrays, in single precision, for three channels
    difference = many - style_transfer_bytes(10**6, 64, "adam")
    assert difference >= 10**6 * 3 * 2 * 10 * 4
    assert style_transfer_bytes(10**6, 4, "lbfgs") < many / 2


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_estimate_is_near_what_is_used(optimizer, tmp_path):
    """Of a narrow network, as that is quick; a process of its own, as its peak is wanted."""
    write_matconvnet(tmp_path / "narrow.mat", NARROW, last_layer="pool5")
    write_picture(tmp_path / "content.png", waves(500, 500, 0))
    options = ["--content", "content.png", "--style", "content.png", "--weights", "narrow.mat",
               "--steps", 11, "--scales", 1, "--optimizer", optimizer]  # fmt: skip
    peaks = []
    options += ["--output", "o.png", "--report", "r.json"]
    for size in 100, 320:
        process = start(tmp_path, *options, "--size", size)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        peaks.append(json.loads((tmp_path / "r.json").read_text("utf-8"))["peak_memory_bytes"])
    estimates = [style_transfer_bytes(size**2, 4, optimizer) for size in (100, 320)]
    expected = estimates[1] - estimates[0]
    assert 0.4 * expected < peaks[1] - peaks[0] < 1.6 * expected


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda: 4 * 10**9)
    refusal = r"--size 4000 needs about 28\.5 GB .* only 4\.0 GB are free"
    with pytest.raises(InputError, match=refusal) as error:
        plan.check_memory(4000, 3000 * 4000, 64, "lbfgs")
    largest = int(re.search(r"the largest that fits is --size (\d+)$", str(error.value))[1])
    assert 1100 < largest < 1300
    assert 2e9 < plan.check_memory(largest, largest * largest * 3 // 4, 64, "lbfgs") < 4e9
    with pytest.raises(InputError, match="needs about"):
        plan.check_memory(largest + 20, (largest + 20) ** 2 * 3 // 4, 64, "lbfgs")
    assert plan.check_memory(200, 200 * 200, 64, "lbfgs") < 1e9


def test_when_nothing_fits_it_says_so(monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda: 10**8)
    with pytest.raises(InputError, match="no size fits"):
        plan.check_memory(200, 200 * 200, 64, "lbfgs")
    monkeypatch.setattr(plan, "available_bytes", lambda: None)  # not known: no reason to refuse
    plan.check_memory(200, 200 * 200, 64, "lbfgs")

"""How much memory style transfer takes, and the refusal of what does not fit."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.matconvnet_files import write_matconvnet
from helpers.style_pictures import NARROW, start, waves

from style import plan
from style.plan import Scale, fit_memory, style_transfer_bytes
from style.settings import Settings
from style_transfer_cpu import VGG16, VGG19
from support.command import InputError
from support.pictures import write_picture
from vgg_cpu import layer_table


def layers_of(kind=VGG19, divisor=1, last="relu5_1"):
    vgg = kind()
    vgg.build_model({k: n // divisor for k, n in layer_table(kind.blocks).items() if n})
    names = vgg.param_layer_name
    return {name: vgg.layers[name] for name in names[: names.index(last) + 1]}


def size(width, height=None, styles=((200, 200),)):
    return Scale(height or width * 2 // 3, width, list(styles))


def test_the_estimate_grows_with_pixels_channels_and_the_optimisers_memory():
    layers, chosen = layers_of(), Settings(weights="trained")
    small, large, huge = (
        style_transfer_bytes(size(width), layers, chosen) for width in (300, 600, 1200)
    )
    pixels = size(600).height * 600 - size(300).height * 300
    assert large - small == pytest.approx(pixels * (1152 + 100 + 240 + 32), rel=0.01)
    assert huge - large == pytest.approx(4 * (large - small), rel=0.01)
    fewer = style_transfer_bytes(size(1200), layers, replace(chosen, pairs=4))
    assert huge - fewer == 6 * 24 * 1200 * 800  # a pair: two images in single precision
    adam = style_transfer_bytes(size(1200), layers, replace(chosen, optimizer="adam"))
    assert adam < fewer
    assert style_transfer_bytes(size(600), layers_of(divisor=16), chosen) < large / 2
    deep = replace(chosen, content_layers={"relu1_1": 1.0})
    assert style_transfer_bytes(size(1200), layers, deep) - huge == (256 - 32) * 1200 * 800
    vgg_16 = layers_of(VGG16, last="relu4_2")
    assert style_transfer_bytes(size(300), vgg_16, chosen) < small
    # in tiles, only what each pixel of the picture needs grows
    largest = style_transfer_bytes(size(4096), layers, replace(chosen, tile=512))
    assert largest < style_transfer_bytes(size(4096), layers, chosen) - 700e6
    assert largest < 6e9
    styles = style_transfer_bytes(size(600, styles=[(2000, 2000)]), layers, chosen)
    assert styles - large > 0.9e9  # the tiles of a larger style picture


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_estimate_is_near_what_is_used(optimizer, tmp_path):
    """Of a narrow network, as that is quick; a process of its own, as its peak is wanted."""
    write_matconvnet(tmp_path / "narrow.mat", NARROW, last_layer="pool5")
    write_picture(tmp_path / "content.png", waves(500, 500, 0))
    options = ["--content", "content.png", "--style", "content.png", "--weights", "narrow.mat",
               "--steps", 11, "--scales", 1, "--optimizer", optimizer]  # fmt: skip
    peaks = []
    options += ["--output", "o.png", "--report", "r.json"]
    for side in 100, 400:
        process = start(tmp_path, *options, "--size", side)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        peaks.append(json.loads((tmp_path / "r.json").read_text("utf-8"))["peak_memory_bytes"])
    chosen = Settings(weights="narrow.mat", optimizer=optimizer)
    estimates = [
        style_transfer_bytes(size(side, side, [(side, side)]), layers_of(divisor=16), chosen)
        for side in (100, 400)
    ]
    expected = estimates[1] - estimates[0]
    assert 0.4 * expected < peaks[1] - peaks[0] < 1.6 * expected


def test_what_does_not_fit_is_computed_with_less(monkeypatch):
    """Smaller tiles first, then fewer pairs of L-BFGS, then Adam."""
    layers, chosen, seen = layers_of(), Settings(weights="trained"), []
    for gigabytes in np.arange(8, 1, -0.1):
        monkeypatch.setattr(plan, "available_bytes", lambda free=gigabytes: int(free * 1e9))
        try:
            fitted, needed = fit_memory(chosen, size(3000), layers)
        except InputError:
            break
        assert needed == style_transfer_bytes(size(3000), layers, fitted) <= gigabytes * 1e9 / 1.25
        assert fitted == replace(
            chosen, tile=fitted.tile, pairs=fitted.pairs, optimizer=fitted.optimizer
        )
        choice = fitted.tile, fitted.pairs, fitted.optimizer
        if choice not in seen:
            seen.append(choice)
    assert seen == [
        (None, None, "lbfgs"), (512, None, "lbfgs"), (256, None, "lbfgs"),
        *((256, pairs, "lbfgs") for pairs in range(9, 2, -1)), (256, None, "adam"),
    ]  # fmt: skip


def test_what_is_given_is_kept(monkeypatch):
    layers = layers_of()
    monkeypatch.setattr(plan, "available_bytes", lambda: int(3e9))
    for given in ({"tile": 700}, {"pairs": 4}, {"optimizer": "adam"}):
        chosen = Settings(weights="trained", **given)
        fitted, _ = fit_memory(chosen, size(2500), layers)
        assert fitted != chosen
        for name, value in given.items():
            assert getattr(fitted, name) == value
    with pytest.raises(InputError, match="free; close other"):  # as a run that is resumed
        fit_memory(Settings(weights="trained"), size(2000), layers, choose=False)


def test_what_does_not_fit_at_all_is_refused_with_what_does(monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda: 2 * 10**9)
    layers, chosen = layers_of(), Settings(weights="trained")
    refusal = r"--size 6000 needs about \d\.\d GB .* only 2\.0 GB are free"
    with pytest.raises(InputError, match=refusal) as error:
        fit_memory(chosen, size(6000), layers)
    largest = int(re.search(r"the largest that fits is --size (\d+)$", str(error.value))[1])
    assert 2000 < largest < 4000
    assert fit_memory(chosen, size(largest), layers)[0].optimizer == "adam"
    with pytest.raises(InputError, match="needs about"):
        fit_memory(chosen, size(largest + 10), layers)


def test_when_nothing_fits_it_says_so(monkeypatch):
    monkeypatch.setattr(plan, "available_bytes", lambda: 10**8)
    layers, chosen = layers_of(), Settings(weights="trained")
    with pytest.raises(InputError, match="free; close other programs"):
        fit_memory(chosen, size(200), layers)
    monkeypatch.setattr(plan, "available_bytes", lambda: None)  # not known: no reason to refuse
    assert fit_memory(chosen, size(9000), layers)[0] == chosen


def test_a_step_in_tiles_is_more_work():
    assert size(1000, 1000).work == 1_000_000 + plan.OVERHEAD
    assert size(2000, 1000).work == plan.TILED * 2_000_000 + plan.OVERHEAD

"""What the pictures of features, filters, heat maps and edges show."""

import numpy as np
import pytest
from helpers.filter_files import write_filters

from support import figures
from support.trained_filters import read_side_outputs
from support.weights import load_network
from vgg import views
from vgg_cpu import VGG16


def brightness(picture):
    return picture.astype(float) @ [0.299, 0.587, 0.114]


def test_the_colours_become_steadily_lighter():
    row = figures.colour_map(np.linspace(0, 1, 200)[np.newaxis])
    assert (np.diff(brightness(row)[0]) >= -1).all()  # -1: rounding
    assert brightness(row)[0, [0, -1]].round().tolist() == pytest.approx([0, 245], abs=8)


def test_the_darkest_colour_is_0_and_less_and_the_lightest_a_quantile():
    values = np.array([[-5.0, 0.0, 1.0, 2.0, 100.0]])
    picture = figures.colour_map(values, share=0.75)
    assert (picture[0, 0] == picture[0, 1]).all()
    assert (picture[0, 3] == picture[0, 4]).all()
    assert (picture[0, 2] != picture[0, 3]).any()
    assert (figures.colour_map(values)[0, 4] == picture[0, 4]).all()
    assert (figures.colour_map(values, share=0.2)[0, 4] == picture[0, 4]).all()  # a quantile of 0
    for values in np.zeros((2, 3)), np.full((2, 3), -1.0):
        assert (figures.colour_map(values) == picture[0, 0]).all()


def test_an_overlay_is_grey_at_0_and_coloured_at_the_maximum():
    picture = np.full((40, 60, 3), (200, 100, 0), np.uint8)
    values = np.zeros((4, 6))
    values[:, 5] = 7
    overlay = figures.overlay(picture, values)
    assert overlay.shape == picture.shape
    assert (overlay[:, :20] == 100).all()  # the mean
    expected = 0.25 * 100 + 0.75 * figures.colour_map(np.ones((1, 1)))[0, 0]
    assert abs(overlay[:, 59:] - expected).max() < 1
    assert (figures.overlay(picture, np.zeros((4, 6))) == 100).all()


def test_small_pictures_are_enlarged_to_squares_and_large_ones_are_smooth():
    small = np.array([[[0] * 3, [255] * 3]], np.uint8)
    enlarged = figures.enlarged(small, 8)
    assert enlarged.shape == (4, 8, 3)
    assert (enlarged[:, :4] == 0).all() and (enlarged[:, 4:] == 255).all()
    large = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    assert figures.enlarged(large, 40).shape == (22, 40, 3)


def test_a_sheet_holds_every_picture_whole():
    rng = np.random.default_rng(0)
    rows = [[("first", rng.integers(0, 256, (20, 200, 3), dtype=np.uint8)),
             ("a caption much wider than its picture", np.full((10, 30, 3), 7, np.uint8))],
            [("", rng.integers(0, 256, (50, 60, 3), dtype=np.uint8))]]  # fmt: skip
    sheet = figures.sheet("title", rows)
    top = figures.MARGIN + figures.LINE
    m = figures.MARGIN
    np.testing.assert_array_equal(sheet[top : top + 20, m : m + 200], rows[0][0][1])
    left = m + 200 + figures.GAP
    np.testing.assert_array_equal(sheet[top : top + 10, left : left + 30], rows[0][1][1])
    second = top + 20 + figures.LINE
    np.testing.assert_array_equal(sheet[second : second + 50, m : m + 60], rows[1][0][1])
    assert (sheet[:, left + 30 :] == 255).all()  # the caption was cut


def test_the_strongest_channels_come_first():
    output = np.full((40, 8, 8), -9.0)  # what is below 0 does not count
    output[5, :, :4], output[33, :, 4:], output[2, :4] = 1, 3, 2
    output[20] = 0.5
    picture = np.full((80, 80, 3), 99, np.uint8)
    sheet = views.show_features(picture, "conv9_9", output)
    width = views.SHEET // views.COLUMNS
    cells = [
        sheet[figures.MARGIN + figures.LINE :, figures.MARGIN + i * (width + figures.GAP) :][
            :width, :width
        ]
        for i in range(5)
    ]
    assert (cells[0] == 99).all()
    for cell, channel in zip(cells[1:], (33, 2, 5, 20), strict=True):
        active = (output[channel] > 0).repeat(width // 8, 0).repeat(width // 8, 1)
        np.testing.assert_array_equal(brightness(cell) > 128, active)


def test_filters_are_shown_from_grey_to_colourful():
    weight = np.zeros((3, 3, 3, 10), np.float32)
    weight[:, 1, 1, 1:] = -2  # black in the middle
    weight[0, 0, 2, 0] = 0.5  # only red, at the top right
    tiles = views.filter_tiles(weight)
    assert tiles.shape == (2 * 56 - 8, 8 * 56 - 8, 3)
    for i in range(9):
        y, x = 56 * (i // 8), 56 * (i % 8)
        assert (tiles[y + 16 : y + 32, x + 16 : x + 32] == 0).all()
        assert (tiles[y : y + 16, x : x + 48] == 128).all()
    np.testing.assert_array_equal(tiles[56, 56 + 40], (255, 128, 128))
    assert (tiles[56:, 104 + 8 :] == 255).all()  # paper
    assert views.show_filters(np.zeros((3, 3, 3, 4), np.float32)).ndim == 3


def test_edges_lie_on_the_picture_whatever_its_size(tmp_path, monkeypatch):
    """The maps are those of the layers one by one; the mirrored border is cut off again."""
    write_filters(tmp_path / "f.h5", divisor=16)
    vgg = load_network(tmp_path / "f.h5", [VGG16], last_layer="pool5")
    outputs = read_side_outputs(tmp_path / "f.h5")
    picture = np.random.default_rng(0).integers(0, 256, (83, 121, 3), dtype=np.uint8)
    padded = np.pad(picture, ((32, 45), (32, 39), (0, 0)), "symmetric")  # 160x192
    features = vgg.features(vgg.prepare(padded), views.SIDE_LAYERS)
    expected = views.edge_maps(features, outputs)
    maps = []
    edge_maps = views.edge_maps
    monkeypatch.setattr(views, "edge_maps", lambda *a: maps.append(edge_maps(*a)) or maps[0])
    sheet = views.show_edges(vgg, outputs, picture)
    np.testing.assert_allclose(maps[0], expected, rtol=0, atol=1e-4)
    ink = np.rint(255 * (1 - maps[0][5, 32 : 32 + 83, 32 : 32 + 121])).astype(np.uint8)
    ink = figures.enlarged(np.repeat(ink[..., np.newaxis], 3, axis=2), views.SHEET // 2)
    top, left = figures.MARGIN + figures.LINE, figures.MARGIN + views.SHEET // 2 + figures.GAP
    H, W, _ = ink.shape
    np.testing.assert_array_equal(sheet[top : top + H, left : left + W], ink)

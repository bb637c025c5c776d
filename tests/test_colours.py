"""Oklab against published values, its gamut, and the palette of one picture given to another."""

import numpy as np
import pytest
from helpers.oracles import oklab

from fast import strips as threads
from style import colours
from style.colours import keep_chroma, match_colours, match_palette, smooth_change

# sRGB colours in Oklab, as the examples and test suites of CSS Color 4 give them.
PUBLISHED = [
    ((255, 255, 255), (1.0, 0.0, 0.0)),
    ((0, 0, 0), (0.0, 0.0, 0.0)),
    ((255, 0, 0), (0.62796, 0.22486, 0.12585)),
    ((0, 255, 0), (0.86644, -0.23389, 0.17950)),
    ((0, 0, 255), (0.45201, -0.03246, -0.31153)),
    ((0, 255, 255), (0.90540, -0.14944, -0.03940)),
    ((255, 0, 255), (0.70167, 0.27457, -0.16916)),
    ((255, 255, 0), (0.96798, -0.07137, 0.19857)),
]


def linear_of_oklab(L, a, b):
    """The author's published inverse, whose matrices are not computed from the others."""
    long = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (L - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    )


def random_picture(seed, height=23, width=31):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saturated_picture(seed, height=23, width=31):
    """Return random corners of the RGB cube, and thereby colours on the border of the gamut."""
    corners = np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8)
    return 255 * corners


def grey_picture(seed, height=23, width=31):
    return np.repeat(random_picture(seed, height, width)[:, :, :1], 3, axis=2)


def plain(*colour, height=4, width=5):
    return np.full((height, width, 3), colour, dtype=np.uint8)


# --- the colour space ---


@pytest.mark.parametrize(("rgb", "expected"), PUBLISHED)
def test_oklab_of_published_colours(rgb, expected):
    lab = colours._oklab(np.array([rgb], dtype=np.uint8))
    np.testing.assert_allclose(lab[0], expected, atol=1e-5)
    linear = linear_of_oklab(*expected)
    np.testing.assert_allclose(linear, np.array(rgb) / 255, atol=1e-4)


def test_srgb_is_decoded_as_the_standard_says():
    """By hand: level 10 is on the straight part, 188 about half the light, 11 past the joint."""
    expected = [0, 10 / 255 / 12.92, ((11 / 255 + 0.055) / 1.055) ** 2.4, 0.50289, 1]
    np.testing.assert_allclose(colours.LINEAR_LIGHT[[0, 10, 11, 188, 255]], expected, atol=1e-5)
    halfway = (colours.LINEAR_LIGHT[1:] + colours.LINEAR_LIGHT[:-1]) / 2
    levels = colours._encoded(np.concatenate([[-1.0], halfway - 1e-9, [2.0]]))
    # between two levels the curve is almost straight, so half the light is about half a level
    assert levels[0] == 0 and levels[-1] == 255
    assert (np.abs(levels[1:-1] - np.arange(0.5, 255)) == 0.5).all()


def test_colours_all_over_srgb_make_the_round_trip_exactly():
    levels = np.append(np.arange(0, 255, 5), 255).astype(np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(52, -1, 3)
    np.testing.assert_array_equal(keep_chroma(every, every), every)


# --- lightness of the one, chroma of the other ---


def test_a_colour_within_the_gamut_gets_exactly_what_was_asked_for():
    result, content = plain(120, 130, 110), plain(150, 110, 100)
    kept = keep_chroma(result, content)
    L = oklab((120, 130, 110))[0]
    a, b = oklab((150, 110, 100))[1:]
    linear = linear_of_oklab(L, a, b)
    assert (linear > 0.0031308).all() and (linear < 1).all()
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(kept - expected).max() <= 0.51
    assert (kept == kept[0, 0]).all()


@pytest.mark.parametrize("make_content", [random_picture, saturated_picture, grey_picture])
@pytest.mark.parametrize("make_result", [random_picture, saturated_picture, grey_picture])
def test_the_lightness_is_the_results_to_within_rounding(make_result, make_content):
    result, content = make_result(1), make_content(2)
    kept = keep_chroma(result, content).astype(float)
    wanted = oklab(result)[..., 0]
    # each level of `kept` stands for half a level more or less (and a little for the tolerance)
    assert (oklab(kept - 0.51)[..., 0] <= wanted + 1e-6).all()
    assert (oklab(kept + 0.51)[..., 0] >= wanted - 1e-6).all()


def test_the_hue_is_the_contents_and_chroma_is_lost_only_outside_the_gamut():
    result, content = random_picture(3, 60, 70), saturated_picture(4, 60, 70)
    L = oklab(result)[..., 0]
    content_lab = oklab(content)
    chroma = np.hypot(content_lab[..., 1], content_lab[..., 2])
    lab = oklab(keep_chroma(result, content))
    kept_chroma = np.hypot(lab[..., 1], lab[..., 2])
    assert (kept_chroma <= chroma + 0.02).all()
    # where rounding to levels moves the hue little: light enough, and of some chroma
    clear = (L > 0.5) & (kept_chroma > 0.05)
    assert clear.mean() > 0.2
    cosine = (lab[..., 1:] * content_lab[..., 1:]).sum(axis=-1)[clear]
    cosine /= (kept_chroma * chroma)[clear]
    assert cosine.min() > np.cos(np.radians(5))
    # what lost chroma is on the border of the gamut: a channel is at 0 or 255, or next to it
    lost = (L > 0.3) & (kept_chroma < chroma - 0.03)
    assert lost.mean() > 0.2
    kept = keep_chroma(result, content)[lost]
    assert ((kept.min(axis=-1) <= 2) | (kept.max(axis=-1) >= 253)).all()


def test_chroma_is_cut_to_the_largest_that_srgb_has():
    """Blue at the lightness of a light grey: along its hue, found here by a fine search."""
    lightness = oklab((200, 200, 200))[0]
    _, a, b = oklab((0, 0, 255))
    fits = [
        t
        for t in np.linspace(0, 1, 100_001)
        if (np.abs(linear_of_oklab(lightness, t * a, t * b) - 0.5) <= 0.5).all()
    ]
    assert 0.1 < max(fits) < 0.9
    linear = linear_of_oklab(lightness, max(fits) * a, max(fits) * b)
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    kept = keep_chroma(plain(200, 200, 200), plain(0, 0, 255))
    assert np.abs(kept - expected).max() <= 0.6


def test_grey_content_makes_a_grey_result_and_grey_pictures_stay():
    result, grey = random_picture(5), grey_picture(6)
    kept = keep_chroma(result, grey)
    assert (kept == kept[:, :, :1]).all()
    np.testing.assert_array_equal(keep_chroma(grey, grey_picture(7)), grey)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_have_no_colour(level):
    ends = plain(level, level, level, height=23, width=31)
    np.testing.assert_array_equal(keep_chroma(ends, saturated_picture(8)), ends)
    np.testing.assert_array_equal(keep_chroma(ends, random_picture(9)), ends)


def test_strips_and_threads_change_nothing(monkeypatch):
    result, content = random_picture(10, 40, 9), random_picture(11, 40, 9)
    whole = keep_chroma(result, content), match_colours(result, content)
    before = threads._threads
    try:
        for pixels, number in [(1, 1), (30, 2), (100, 3)]:
            monkeypatch.setattr(colours, "STRIP_PIXELS", pixels)
            threads.set_threads(number)
            np.testing.assert_array_equal(keep_chroma(result, content), whole[0])
            np.testing.assert_array_equal(match_colours(result, content), whole[1])
    finally:
        threads.set_threads(before)


# --- mean and covariance ---


def mean_and_covariance(rgb):
    values = rgb.reshape(-1, 3).astype(float)
    return values.mean(axis=0), np.cov(values.T, bias=True)


def picture_like(seed, mean, spread, height=80, width=90):
    """Return normally distributed colours, far enough from 0 and 255 not to be clipped."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((height, width, 3)) @ np.array(spread) + mean
    assert 0 < values.min() and values.max() < 255
    return np.rint(values).astype(np.uint8)


STYLE = picture_like(12, (130, 120, 140), [[9, 3, -4], [0, 8, 5], [0, 0, 10]])
CONTENT = picture_like(13, (90, 130, 120), [[12, 9, 4], [0, 6, -7], [0, 0, 7]], 61, 47)


def test_mean_and_covariance_become_the_contents():
    matched = match_colours(STYLE, CONTENT)
    assert (matched.shape, matched.dtype) == (STYLE.shape, np.uint8)
    assert 0 < matched.min() and matched.max() < 255
    mean, covariance = mean_and_covariance(matched)
    content_mean, content_covariance = mean_and_covariance(CONTENT)
    np.testing.assert_allclose(mean, content_mean, atol=0.1)
    # the noise that is added to both variances shifts them by less than 2 levels squared
    np.testing.assert_allclose(covariance, content_covariance, atol=2)
    assert np.abs(mean_and_covariance(STYLE)[1] - content_covariance).max() > 50


def test_the_map_is_the_monge_kantorovitch_one():
    """The only linear map of one covariance to the other that is symmetric, and positive."""
    values = STYLE.reshape(-1, 3) - STYLE.reshape(-1, 3).mean(axis=0)
    matched = match_colours(STYLE, CONTENT).reshape(-1, 3)
    T = np.linalg.lstsq(values, matched - matched.mean(axis=0), rcond=None)[0]
    np.testing.assert_allclose(T, T.T, atol=0.01)
    assert np.linalg.eigvalsh((T + T.T) / 2).min() > 0
    assert np.abs(T - np.diag(np.diag(T))).max() > 0.1


def test_independent_channels_are_scaled_by_the_ratio_of_their_deviations():
    """By hand: 8 colours of mean 128 and deviations 10, 20, 40 get those of 40, 20, 10."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T  # (8, 3)
    style = (128 + signs * (10, 20, 40)).astype(np.uint8).reshape(2, 4, 3)
    content = (100 + signs * (40, 20, 10)).astype(np.uint8).reshape(4, 2, 3)
    expected = 100 + signs * (40, 20, 10)
    np.testing.assert_allclose(match_colours(style, content).reshape(-1, 3), expected, atol=0.6)


def test_a_picture_matched_with_itself_or_turned_stays():
    for picture in (STYLE, random_picture(14), grey_picture(15), plain(9, 200, 30)):
        np.testing.assert_array_equal(match_colours(picture, picture), picture)
        np.testing.assert_array_equal(match_colours(picture, picture[::-1, ::-1]), picture)


def test_plain_pictures_become_or_give_a_plain_colour():
    red, blue = plain(200, 30, 40), plain(10, 20, 230, height=3)
    np.testing.assert_array_equal(match_colours(red, blue), plain(10, 20, 230))
    mean = np.rint(CONTENT.reshape(-1, 3).mean(axis=0))
    np.testing.assert_array_equal(match_colours(red, CONTENT), plain(*mean))
    matched = match_colours(STYLE, red)
    assert np.abs(matched.astype(float) - (200, 30, 40)).max() <= 5  # the noise, and no more
    assert np.abs(matched.reshape(-1, 3).mean(axis=0) - (200, 30, 40)).max() < 0.1
    one_pixel = match_colours(plain(1, 2, 3, height=1, width=1), plain(4, 5, 6, height=1, width=1))
    np.testing.assert_array_equal(one_pixel, [[[4, 5, 6]]])


def test_grey_style_takes_the_contents_contrast_and_its_noise_is_not_blown_up():
    shades = np.rint(np.random.default_rng(16).normal(128, 15, (70, 80, 1)))
    noise = np.rint(np.random.default_rng(17).normal(0, 0.4, (70, 80, 3)))
    grey = np.repeat(shades, 3, axis=2).astype(np.uint8)
    noisy = (shades + noise).astype(np.uint8)
    content_mean, content_covariance = mean_and_covariance(CONTENT)
    for style in (grey, noisy):
        mean, covariance = mean_and_covariance(match_colours(style, CONTENT))
        np.testing.assert_allclose(mean, content_mean, atol=0.2)
        # along the grey axis, the only one in which the style has any variance
        np.testing.assert_allclose(covariance.sum(), content_covariance.sum(), rtol=0.05)
    clean = match_colours(grey, CONTENT).astype(float)
    assert np.abs(match_colours(noisy, CONTENT) - clean).mean() < 5
    # one shade of grey is still one colour
    assert len(np.unique(clean.reshape(-1, 3), axis=0)) <= len(np.unique(grey))


def test_grey_content_makes_the_style_nearly_grey():
    grey = np.repeat(CONTENT[:, :, :1], 3, axis=2)
    matched = match_colours(STYLE, grey).astype(float)
    assert (matched - matched.mean(axis=2, keepdims=True)).std() < 1.1
    np.testing.assert_allclose(matched.std(), grey.std(), rtol=0.03)


def test_values_beyond_the_range_are_clipped():
    """By hand: one white pixel of 64 lies 8 deviations from the mean, far above 225 + 25."""
    style = plain(0, 0, 0, height=8, width=8)
    style[2, 3] = 255
    content = plain(200, 200, 200, height=2, width=2)
    content[0] = 250
    matched = match_colours(style, content)
    np.testing.assert_array_equal(matched[2, 3], [255, 255, 255])
    assert np.abs(matched[3:].astype(float) - (225 - 25 / 8)).max() <= 1
    np.testing.assert_array_equal(match_colours(255 - style, 255 - content), 255 - matched)


# --- the whole palette ---


def test_the_palette_becomes_that_of_the_styles_in_their_shares():
    """Two styles of one colour each and a third with share 0, which must not be seen."""
    red, blue, green = plain(200, 30, 40), plain(10, 20, 230), plain(20, 220, 60)
    content = random_picture(21, 60, 50)
    before = content.copy()
    made = match_palette(content, [red, blue, green], [3, 1, 0], np.random.default_rng(0))
    np.testing.assert_array_equal(content, before)
    assert (made.shape, made.dtype) == ((60, 50, 3), np.uint8)
    is_red, is_blue = (
        np.abs(made.astype(int) - style[0, 0]).max(axis=2) <= 3 for style in (red, blue)
    )
    assert is_red.mean() == pytest.approx(0.75, abs=0.01)
    assert is_blue.mean() == pytest.approx(0.25, abs=0.01)
    # The shortest way: the bluest quarter of the content becomes blue.
    blueness = content[..., 2] - 1.0 * content[..., 0]
    assert blueness[is_blue].mean() > blueness[is_red].mean() + 100
    again = match_palette(content, [red, blue, green], [3, 1, 0], np.random.default_rng(0))
    np.testing.assert_array_equal(made, again)


def test_a_smoothed_change_of_colours_has_no_grain_and_keeps_the_details():
    rng = np.random.default_rng(0)
    content = np.full((64, 96, 3), 180, np.uint8)  # a plain sky above plain ground, and one post
    content[40:] = 60
    content[20:60, 48] = 20
    style = rng.integers(0, 256, (50, 50, 3), np.uint8)
    torn = match_palette(content, [style], [1], rng)
    smooth = smooth_change(content, torn)
    assert (smooth.shape, smooth.dtype) == (content.shape, np.uint8)
    sky = np.s_[8:30, 8:40]
    assert torn[sky].std(axis=(0, 1)).min() > 40 and smooth[sky].std(axis=(0, 1)).max() < 20
    np.testing.assert_allclose(smooth[sky].mean(axis=(0, 1)), torn[sky].mean(axis=(0, 1)), atol=6)
    post, beside = smooth[20:30, 48].mean(), smooth[20:30, 47].mean()
    assert beside - post == pytest.approx(160, abs=12)  # as sharp as before
    np.testing.assert_array_equal(smooth_change(content, content), content)


# --- what both have in common ---


@pytest.mark.parametrize("function", [keep_chroma, match_colours])
def test_inputs_are_left_alone_and_need_not_be_contiguous(function):
    result, content = random_picture(19, 12, 10), random_picture(20, 12, 10)
    result.flags.writeable = content.flags.writeable = False
    before = result.copy(), content.copy()
    made = function(result, content)
    assert (made.shape, made.dtype) == ((12, 10, 3), np.uint8)
    assert not np.shares_memory(made, result) and not np.shares_memory(made, content)
    made[0, 0] = 0  # the caller may write to it
    np.testing.assert_array_equal(result, before[0])
    np.testing.assert_array_equal(content, before[1])
    views = result[::-1, ::2], content[::-1, ::2]
    expected = function(views[0].copy(), views[1].copy())
    np.testing.assert_array_equal(function(*views), expected)


@pytest.mark.parametrize("function", [keep_chroma, match_colours])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), TypeError, "expected uint8 pixels, got float32 array"),
        ([[[1, 2, 3]]], TypeError, "expected uint8 pixels, got list"),
        (np.zeros((4, 5), np.uint8), ValueError, r"shape \(H, W, 3\), got \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), ValueError, r"shape \(H, W, 3\), got \(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, r"shape \(H, W, 3\), got \(0, 5, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(function, wrong, error, message):
    with pytest.raises(error, match=message):
        function(wrong, plain(1, 2, 3))
    with pytest.raises(error, match=message):
        function(plain(1, 2, 3), wrong)


def test_keep_chroma_refuses_pictures_of_two_sizes():
    with pytest.raises(ValueError, match=r"of one size, got \(4, 5, 3\) and \(5, 4, 3\)"):
        keep_chroma(plain(1, 2, 3), plain(1, 2, 3, height=5, width=4))

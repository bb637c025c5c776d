"""The convolution kernels of `fast/`, in every geometry, in tiny strips and at large sizes."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import oracles
from helpers.layer_checks import DTYPES, assert_close, assert_convolution, conv_layer, says
from threadpoolctl import threadpool_limits

from fast import convolution, im2col, winograd
from fast import strips as threads
from fast.convolution import ALGORITHMS
from fast.padded import dilated, pad
from layers2 import AveragePoolingLayer, ConvolutionalLayer, MaxPoolingLayer


def fits(algorithm, kernel, stride):
    """Say whether this algorithm can do this kernel and stride."""
    if algorithm in convolution.TILES:
        return kernel == 3 and stride == 1
    return algorithm == "im2col" or stride == 1


@pytest.fixture(params=["usual", "tiny", "together"], ids="{}-strips".format)
def strips(request, monkeypatch):
    """Run a test as it is, and with strips so small that small pictures have many.

    And again with Winograd's threads sharing the points of some strips, as in deep layers.
    """
    if request.param != "usual":
        monkeypatch.setattr(threads, "STRIP_BYTES", 600)
        monkeypatch.setattr(winograd, "STRIP_TILES", 2)
        for module in (im2col, winograd):
            monkeypatch.setattr(module, "SMALL_PRODUCT", 24)
        monkeypatch.setattr(winograd, "GRADIENT_TILES", 5)
    if request.param == "together":
        monkeypatch.setattr(winograd, "DEEP", 0)
        monkeypatch.setattr(winograd, "DEEP_TILES", 5)
        monkeypatch.setattr(winograd, "DEEP_STRIP", 2)
        monkeypatch.setattr(winograd, "TWO_WAY", 0)
    return request.param


@pytest.mark.layers
@pytest.mark.parametrize("tile", [1, 2, 4, 6])
def test_winograds_matrices_in_exact_fractions(tile):
    points = [Fraction(point) for point in winograd.POINTS[: tile + 1]]
    AT, G, BT = winograd.interpolation(points)
    n = tile + 2
    assert (AT.shape, G.shape, BT.shape) == ((tile, n), (n, 3), (n, n))
    # y[i] = sum over j of g[j] d[i + j], so the product of the three has 1 where l = i + j, else 0
    found = np.einsum("ik,kj,kl->ijl", AT, G, BT)
    for i, j, k in np.ndindex(found.shape):
        assert found[i, j, k] == (k == i + j)
    for exact, used in zip(
        (AT, G, BT), winograd.interpolation(winograd.POINTS[: tile + 1]), strict=True
    ):
        np.testing.assert_array_equal(exact.astype(float), used.astype(float))


def test_the_matrices_of_lavin_and_gray():
    AT, G, BT = winograd.interpolation((0, 1, -1, 2, -2))
    assert AT.tolist() == [
        [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]
    ]  # fmt: skip
    assert (24 * G).round(9).tolist() == [
        [6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]
    ]  # fmt: skip
    assert BT.tolist() == [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip


@pytest.mark.layers
@pytest.mark.parametrize("algorithm", convolution.TILES)
def test_winograd_against_pytorch_in_random_geometries(algorithm, monkeypatch):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(31)
    for number in range(40):
        monkeypatch.setattr(winograd, "DEEP", number % 2 * 10**9)
        monkeypatch.setattr(winograd, "TWO_WAY", number % 3 * 10**9)
        N, cin, cout, H, W = rng.integers(1, [4, 40, 40, 40, 40], endpoint=True)
        padding = int(rng.integers(max(0, (4 - min(H, W)) // 2), 3, endpoint=True))
        layer = ConvolutionalLayer(3, cin, cout, padding, 1, algorithm=algorithm)
        layer.load_param(rng.standard_normal((cin, 3, 3, cout)), rng.standard_normal(cout))
        x = rng.standard_normal((N, cin, H, W))
        output = layer.forward(x)
        top_diff = rng.standard_normal(output.shape)
        # (Cin, K, K, Cout) -> (Cout, Cin, K, K)
        weight = layer.weight.transpose(3, 0, 1, 2).copy()
        x_, w_, b_ = (torch.tensor(a, requires_grad=True) for a in (x, weight, layer.bias))
        expected = torch.nn.functional.conv2d(x_, w_, b_, padding=padding)
        expected.backward(torch.tensor(top_diff))
        assert_close(output, expected.detach().numpy(), np.float64)
        assert_close(layer.backward(top_diff), x_.grad.numpy(), np.float64)
        # (Cout, Cin, K, K) -> (Cin, K, K, Cout)
        assert_close(layer.d_weight, w_.grad.numpy().transpose(1, 2, 3, 0), np.float64)
        assert_close(layer.d_bias, b_.grad.numpy(), np.float64)


@DTYPES
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_algorithm_in_every_geometry(algorithm, kernel, padding, stride, dtype, strips):
    if not fits(algorithm, kernel, stride):
        with pytest.raises(ValueError, match=says(algorithm)):
            ConvolutionalLayer(kernel, 3, 4, padding, stride, algorithm=algorithm)
        return
    rng = np.random.default_rng(kernel * 10 + padding)
    layer = ConvolutionalLayer(kernel, 3, 4, padding, stride, algorithm=algorithm)
    layer.load_param(
        rng.standard_normal((3, kernel, kernel, 4)).astype(dtype),
        rng.standard_normal(4).astype(dtype),
    )
    x = rng.standard_normal((2, 3, 13, 10)).astype(dtype)
    top_diff = rng.standard_normal(layer.forward(x).shape).astype(dtype)
    assert_convolution(layer, x, top_diff, padding, stride, dtype)


@pytest.mark.layers
@pytest.mark.parametrize(("cin", "cout"), [(16, 16), (24, 40), (7, 5), (1, 3), (16, 1)])
@pytest.mark.parametrize("tile", convolution.TILES)
def test_winograd_with_its_filters_in_blocks(cin, cout, tile, strips):
    rng = np.random.default_rng(cin)
    layer = ConvolutionalLayer(3, cin, cout, 1, 1, algorithm=tile)
    layer.load_param(rng.standard_normal((cin, 3, 3, cout)), rng.standard_normal(cout))
    x, top_diff = rng.standard_normal((2, cin, 9, 14)), rng.standard_normal((2, cout, 9, 14))
    assert_convolution(layer, x, top_diff, 1, 1, np.float64)


@pytest.mark.parametrize("kind", ["im2col", "kn2row", "winograd4", "winograd6", "max", "average"])
@pytest.mark.parametrize("deep", [False, True])
def test_results_are_the_same_bits_for_any_number_of_threads(kind, deep, monkeypatch):
    monkeypatch.setattr(threads, "STRIP_BYTES", 5000)
    if deep:
        monkeypatch.setattr(winograd, "DEEP", 0)
        monkeypatch.setattr(winograd, "DEEP_TILES", 8)
        monkeypatch.setattr(winograd, "DEEP_STRIP", 3)
        monkeypatch.setattr(winograd, "TWO_WAY", 0)
    monkeypatch.setattr(winograd, "STRIP_TILES", 3)
    rng = np.random.default_rng(107)
    x = rng.standard_normal((2, 16, 21, 26)).astype(np.float32)
    if kind in ALGORITHMS:
        layer = ConvolutionalLayer(3, 16, 8, 1, 1, algorithm=kind)
        layer.init_param(rng=3)
    else:
        layer = {"max": MaxPoolingLayer, "average": AveragePoolingLayer}[kind](3, 2)
    before = threads.get_threads()
    runs = []
    try:
        for number in (1, 2, 3, 2):
            threads.set_threads(number)
            output = layer.forward(x)
            arrays = [output, layer.backward(output)]
            if kind in ALGORITHMS:
                arrays += layer.get_gradient()
            runs.append([array.tobytes() for array in arrays])
    finally:
        threads.set_threads(before)
    assert runs[0] == runs[1] == runs[2] == runs[3]


@DTYPES
def test_wide_3x3_convolution_at_sampled_places(dtype):
    # channels and size of a VGG layer; the full oracle would take too long
    rng = np.random.default_rng(5)
    cin, cout, height, width = 256, 192, 22, 38
    layer = conv_layer(rng, 3, cin, cout, 1, 1, dtype=dtype)
    x = rng.standard_normal((1, cin, height, width)).astype(dtype)
    top_diff = rng.standard_normal((1, cout, height, width)).astype(dtype)
    output, bottom_diff = layer.forward(x), layer.backward(top_diff)
    weight = layer.weight.astype(np.float64)
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    padded_diff = np.pad(top_diff[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    rows = [0, 1, 3, 4, height - 2, height - 1, *rng.integers(height, size=6)]
    columns = [0, 1, 3, 4, width - 2, width - 1, *rng.integers(width, size=6)]
    found = {"output": [], "bottom_diff": []}
    wanted = {"output": [], "bottom_diff": []}
    for row in rows:
        for column in columns:
            window = padded[:, row : row + 3, column : column + 3]
            found["output"].append(output[0, :, row, column])
            wanted["output"].append(np.einsum("ckl,cklo->o", window, weight) + layer.bias)
            window = padded_diff[:, row : row + 3, column : column + 3]
            found["bottom_diff"].append(bottom_diff[0, :, row, column])
            # y[r] takes x[r + k - 1], so x[r] meets weight k at y[r - k + 1]: the window reversed
            wanted["bottom_diff"].append(np.einsum("okl,cklo->c", window[:, ::-1, ::-1], weight))
    for name in found:
        assert_close(np.array(found[name]), np.array(wanted[name]), dtype)
    expected = np.stack(
        [
            [
                padded[:, down : down + height, right : right + width].reshape(cin, -1)
                @ top_diff[0].reshape(cout, -1).T.astype(np.float64)
                for right in range(3)
            ]
            for down in range(3)
        ]
    )
    expected = expected.transpose(2, 0, 1, 3)  # (K, K, Cin, Cout) -> (Cin, K, K, Cout)
    assert_close(layer.d_weight, expected, dtype)
    assert_close(layer.d_bias, top_diff.sum(axis=(0, 2, 3), dtype=np.float64), dtype)


@pytest.mark.layers
@DTYPES
@pytest.mark.parametrize("algorithm", ["im2col", "winograd4", "winograd6"])
def test_weight_gradient_of_a_large_picture(algorithm, dtype):
    # more tiles and strips than are worked on at a time; and a large sum for float32
    rng = np.random.default_rng(7)
    batch, cin, cout, height, width = 2, 16, 20, 94, 98
    layer = ConvolutionalLayer(3, cin, cout, 1, 1, algorithm=algorithm)
    layer.init_param("he", rng=rng)
    x = rng.uniform(0, 1, (batch, cin, height, width)).astype(dtype)
    top_diff = rng.uniform(0, 1, (batch, cout, height, width)).astype(dtype)
    layer.forward(x)
    layer.backward(top_diff)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.empty((cin, 3, 3, cout))
    for down, right in np.ndindex(3, 3):
        window = padded[:, :, down : down + height, right : right + width]
        axes = [0, 2, 3]  # over pictures and places: (N, Cin, H, W), (N, Cout, H, W) -> (Cin, Cout)
        with threadpool_limits(limits=1, user_api="blas"):  # small products: threads only wait
            expected[:, down, right] = np.tensordot(window, top_diff.astype(float), (axes, axes))
    assert_close(layer.d_weight, expected, dtype)
    assert_close(layer.d_bias, top_diff.sum(axis=(0, 2, 3), dtype=np.float64), dtype)


@DTYPES
@pytest.mark.parametrize("layout", oracles.LAYOUTS)
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_padded_pictures_have_zeros_around_them(dtype, layout, padding, strips):
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(dtype)
    x = oracles.laid_out(x, layout)
    padded = pad(x, padding)
    channels_last = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    sides = ((0, 0), (padding, padding + 5), (padding, padding + 5), (0, 0))  # five for the tiles
    np.testing.assert_array_equal(padded.array, np.pad(channels_last, sides))
    np.testing.assert_array_equal(padded.inside, channels_last)
    assert padded.array.dtype == dtype
    assert padded.size == (5, 6)
    assert padded.tiles.shape == (2, 10, 11, 3)
    assert padded.without_overhang.shape == (2, 5 + 2 * padding, 6 + 2 * padding, 3)


@pytest.mark.layers
@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (2, 1), (4, 1), (0, 2), (1, 2), (4, 3)])
def test_dilated_gradients_by_their_formula(padding, stride):
    K, H, W = 3, 8, 7
    Ho, Wo = (oracles.output_size(side, K, padding, stride) for side in (H, W))
    dy = np.random.default_rng(2).standard_normal((1, 2, Ho, Wo))
    padded = dilated(dy, (H, W), K, stride, padding)
    expected = np.zeros((1, H + K - 1, W + K - 1, 2))
    for o, q in np.ndindex(Ho, Wo):
        row, column = (stride * i + K - 1 - padding for i in (o, q))
        if 0 <= row < H + K - 1 and 0 <= column < W + K - 1:
            expected[0, row, column] = dy[0, :, o, q]
    np.testing.assert_array_equal(padded.without_overhang, expected)
    assert padded.output_size(K) == (H, W)


def test_the_choice_of_the_algorithm():
    shape = (1, 48, 60)
    assert convolution.choose(3, 1, 64, 64, shape) == "winograd6"
    assert convolution.choose(3, 1, 64, 64, (1, 24, 30)) == "winograd4"  # the filters cost more
    assert convolution.choose(3, 1, 64, 64, (4, 24, 30)) == "winograd6"
    assert convolution.choose(3, 1, 64, 64, (99, 14, 14)) == "winograd4"  # large last tiles
    assert convolution.choose(3, 1, 64, 3, shape) == "kn2row"
    assert convolution.choose(3, 1, 3, 64, shape) == "im2col"
    assert convolution.choose(3, 2, 64, 64, shape) == "im2col"
    assert convolution.choose(5, 1, 64, 64, shape) == "im2col"


@DTYPES
@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
@pytest.mark.parametrize("cin", [1, 20])
def test_many_pictures_in_a_strip(algorithm, cin, dtype):
    """A batch gives what its pictures give one by one; im2col copies few and many channels."""
    rng = np.random.default_rng(cin)
    layer = ConvolutionalLayer(3, cin, 5, 1, 1, algorithm=algorithm)
    layer.init_param(0.5, rng)
    x = rng.standard_normal((7, cin, 8, 9)).astype(dtype)
    top_diff = rng.standard_normal((7, 5, 8, 9)).astype(dtype)
    y, dx = layer.forward(x), layer.backward(top_diff)
    d_weight, d_bias = layer.get_gradient()
    sums = np.zeros(d_weight.shape), np.zeros(d_bias.shape)
    for n in range(7):
        assert_close(layer.forward(x[n : n + 1])[0], y[n], dtype)
        assert_close(layer.backward(top_diff[n : n + 1])[0], dx[n], dtype)
        for total, gradient in zip(sums, layer.get_gradient(), strict=True):
            total += gradient
    assert_close(d_weight, sums[0], dtype)
    assert_close(d_bias, sums[1], dtype)


@DTYPES
@pytest.mark.parametrize("kind", [MaxPoolingLayer, AveragePoolingLayer])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3)])
def test_many_pictures_in_a_strip_of_pooling(kind, kernel, stride, dtype, strips):
    layer, rng = kind(kernel, stride), np.random.default_rng(kernel)
    x = rng.integers(0, 4, (7, 3, 9, 8)).astype(dtype)  # with ties
    y = layer.forward(x)
    top_diff = rng.standard_normal(y.shape).astype(dtype)
    dx = layer.backward(top_diff)
    for n in range(7):
        np.testing.assert_array_equal(layer.forward(x[n : n + 1])[0], y[n])
        np.testing.assert_array_equal(layer.backward(top_diff[n : n + 1])[0], dx[n])


@pytest.mark.parametrize("algorithm", ["im2col", "kn2row"])
def test_no_buffer_of_a_strip_is_larger_than_the_cache(algorithm, monkeypatch):
    sizes = []

    def scratch(name, shape, dtype):
        sizes.append(np.prod(shape) * np.dtype(dtype).itemsize)
        return threads.scratch(name, shape, dtype)

    monkeypatch.setattr(convolution.ALGORITHMS[algorithm], "scratch", scratch)
    monkeypatch.setattr(threads, "STRIP_BYTES", 300_000)
    layer = conv_layer(np.random.default_rng(5), 5, 4, 4, 2, 1)
    layer.algorithm = algorithm
    layer.forward(np.ones((2, 4, 60, 40)))
    assert max(sizes) <= 2 * 300_000  # kn2row reads K - 1 rows more


@pytest.mark.parametrize(("algorithm", "shape", "expected"), [
    (None, (3, 16, 16), "winograd"), (None, (3, 16, 3), "im2col"), (None, (3, 3, 16), "im2col"),
    (None, (2, 16, 16), "im2col"), ("im2col", (3, 16, 16), "im2col"),
    ("winograd4", (3, 3, 3), "winograd"), ("kn2row", (3, 16, 16), "im2col"),
])  # fmt: skip
def test_the_weight_gradient_is_computed_by_the_algorithm_chosen(
    algorithm, shape, expected, monkeypatch
):
    called = []
    for module in (convolution.winograd, convolution.im2col):

        def spy(*arguments, module=module, original=module.weight_gradient):
            called.append(module.__name__)
            return original(*arguments)

        monkeypatch.setattr(module, "weight_gradient", spy)
    kernel, cin, cout = shape
    layer = ConvolutionalLayer(kernel, cin, cout, 1, 1, algorithm=algorithm)
    layer.init_param(rng=0)
    layer.backward(layer.forward(np.ones((1, cin, 24, 9))))
    assert called == [f"fast.{expected}"]


@pytest.mark.parametrize(("algorithm", "size"), [
    ("im2col", (13, 10)), ("kn2row", (13, 10)), ("winograd4", (16, 12)), ("winograd6", (18, 12)),
])  # fmt: skip
def test_an_output_takes_no_more_than_whole_tiles(algorithm, size):
    layer = ConvolutionalLayer(3, 4, 5, 1, 1, algorithm=algorithm)
    layer.init_param(rng=0)
    output = layer.forward(np.ones((2, 4, 13, 10), np.float32))
    while output.base is not None:
        output = output.base
    assert output.shape == (2, *size, 5)


@pytest.mark.parametrize("tile", [4, 6])
@pytest.mark.parametrize("channels", [16, 64, 512])
@pytest.mark.parametrize("size", [(7, 9), (40, 60), (133, 200), (9, 900), (900, 9)])
@pytest.mark.parametrize("pictures", [1, 3])
def test_winograds_strips_suit_the_cache_and_the_threads(pictures, size, channels, tile):
    strips = winograd._strips_of_tiles(pictures, size, channels, tile)
    rows, columns = (-(-length // tile) for length in size)
    taken = np.zeros((pictures, rows, columns), int)
    for n, r0, r1, t0, t1 in strips:
        taken[n, r0:r1, t0:t1] += 1
        assert (r1 - r0) * (t1 - t0) <= winograd.STRIP_TILES
        repacked = (tile * (t1 - t0) + 2) * channels * (tile + 2) ** 2 > winograd.SMALL_PRODUCT
        assert not repacked or t1 - t0 == 1
    assert (taken == 1).all()
    fewest = max(2, pictures * rows * columns / winograd.STRIP_TILES)
    assert 2 <= len(strips) <= 10 * fewest


@pytest.mark.parametrize(
    ("channels", "blocks"), [((64, 64), 1), ((128, 128), 2), ((256, 256), 4), ((1000, 32), 2)]
)
def test_winograds_filters_are_in_as_few_blocks_as_small_products_need(channels, blocks):
    U = winograd.prepare(np.ones((channels[0], 3, 3, channels[1]), np.float32), 4)
    assert U.shape[-3:] == (blocks, channels[0], channels[1] // blocks)
    assert channels[1] / blocks <= winograd.BLOCK
    if channels[0] * channels[1] < winograd.DEEP:
        assert winograd.STRIP_TILES * channels[0] * channels[1] / blocks <= winograd.SMALL_PRODUCT


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_strip_is_computed_twice(algorithm, monkeypatch):
    def once(function, strips):
        strips = list(strips)
        assert len({repr(s[-2:] if len(s) == 3 else s) for s in strips}) == len(strips)
        threads.run_strips(function, strips)

    module = convolution.ALGORITHMS[algorithm]
    monkeypatch.setattr(module, "run_strips", once)
    layer = conv_layer(np.random.default_rng(6), 3, 40, 40, 1, 1)
    layer.algorithm = algorithm
    layer.backward(layer.forward(np.ones((1, 40, 60, 40))))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_filters_know_their_geometry(algorithm):
    weight = np.ones((2, 3, 3, 5), np.float32)
    for flipped, channel_out in (False, 5), (True, 2):
        filters = convolution.prepare(weight, 1, algorithm, flipped)
        assert filters[1:] == (algorithm, 3, 1, channel_out, False)


def test_filters_for_both_directions_are_flipped_only_for_the_gradient():
    weight = np.ones((512, 3, 3, 256), np.float32)
    for flipped in False, True:
        assert convolution.prepare(weight, 1, "winograd6", flipped).flipped is flipped

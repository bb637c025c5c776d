"""Kernel 3, Winograd's F(m x m, 3x3): a 3x3 convolution by a quarter of the multiplications.

Its reason: VGG has only 3x3 kernels with many channels, where the multiplications cost most.

In one dimension, m neighbouring outputs y of a 3-tap filter g read n = m + 2 inputs d. Done
directly they cost 3 m multiplications. This takes n:

    y = A^T [(G g) * (B^T d)]

The matrices come from the product of two polynomials, g of 3 and p of m coefficients. The product
has n coefficients s. It is known from its values at n - 1 points a and its highest coefficient,
"the value at infinity". With L_a(x), the product of x - b over the other points b,

    s(x) = sum over a of  g(a) p(a) L_a(x) / L_a(a)  +  g[2] p[m-1] * product of all x - a.

As matrices, this is s = B [(G g) * (A p)]. A evaluates p: row a is 1, a, .., a^(m-1). Row a of G is
1, a, a^2, divided by L_a(a). Column a of B holds the coefficients of L_a. Now s[k] is the sum of
g[j] p[k-j], and y[i] the sum of g[j] d[i+j]. Multiplying p by g and convolving d with g are
therefore transposes of each other, and transposing the three matrices gives y.

In two dimensions this is done along columns and along rows. The picture is cut into tiles of m x m
outputs, each reading n x n inputs that overlap its neighbours' by two pixels:

    . . . . . . . .        V = B^T d B      (n, n)   transform of a tile of inputs
    . +-----------.-       U = G g G^T      (n, n)   transform of a filter, done once
    . | m x m   | .        M = U * V        (n, n)   n n multiplications instead of 9 m m
    . | outputs | .        Y = A^T M A      (m, m)   the tile of outputs
    . |         | .
    . +-----------.        With channels, each of the n n products is a matrix product
    . . . . . . . .        over them: M[k] = V[k] @ U[k], (T, C) @ (C, Co).

Multiplications for each output, and the error of a layer of 64 to 512 channels on rectified noise
in float32, relative to float64 (L2):

    direct    9                   2e-7
    F(4x4)    36 / 16 = 2.25      1e-6 to 4e-6
    F(6x6)    64 / 36 = 1.78      3e-6 to 6e-6

The errors are relative to the largest value of a tile. Beside one pixel of 1e4 among values around
1, F(4x4) is wrong by up to 4e-3, F(6x6) by up to 3e-2.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from functools import cache
from itertools import pairwise
from math import ceil, prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fast.strips import SMALL_PRODUCT, empty, run_strips, scratch, strips_of_rows

POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2)  # F(4x4) uses the first five and infinity, F(6x6) all

STRIP_TILES = 60  # tiles a strip: large enough for full speed, small enough for the cache
POINT_ROWS = 2  # rows of points multiplied at a time, of n: their V and M stay in the cache
FILTER_ROWS = 32  # channels in whose filters are transformed at a time
BLOCK = 64  # columns of a product at most: 5 % faster than 128
DEEP = 2**17  # C Co from which filters do not stay in the cache: they are read once for DEEP_TILES
DEEP_TILES = 256  # more would save little and need more memory
DEEP_STRIP = 12  # tiles a strip there: it is only transformed, and short strips end together
TWO_WAY = 2**17  # C Co from which both directions use the same U; with 512 channels it has 67 MB
GRADIENT_TILES = 1024  # whose V and dM `weight_gradient` keeps at a time, to bound the memory


def interpolation(points):
    """Return A^T (m, n), G (n, 3) and B^T (n, n) of n - 1 points and infinity."""
    m = len(points) - 1
    others = [points[:i] + points[i + 1 :] for i in range(m + 1)]
    scales = [[prod(a - b for b in rest)] for a, rest in zip(points, others, strict=True)]  # L_a(a)
    # np.vander: the powers of each point; np.poly: coefficients, the highest first
    A = [*np.vander(points, m, increasing=True), [0] * (m - 1) + [1]]
    G = [*np.vander(points, 3, increasing=True) / np.array(scales), [0, 0, 1]]
    BT = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
    return np.array(A).T, np.array(G), np.array(BT)


@cache
def _matrices(tile, dtype, flipped=False):
    """Return A^T, G and B^T of F(tile x tile).

    With `flipped`, of the convolution with the filter rotated by 180 degrees. It is the convolution
    of the rotated picture with the same filter, rotated back: the rows of A^T and the columns of
    B^T are in reverse order.
    """
    AT, G, BT = interpolation(POINTS[: tile + 1])
    if flipped:
        AT, BT = AT[::-1], BT[:, ::-1]
    return [np.ascontiguousarray(matrix, dtype) for matrix in (AT, G, BT)]


def two_way(tile, C, Co):
    """Say whether both directions of a layer use the same U; `tile` is None without Winograd.

    Where U is largest this halves the memory. A product with a transposed U is as fast only if it
    has many tiles; where there are few, `fast.convolution.choose_tile` prefers tiles of 4.
    """
    return tile == 6 and C * Co >= TWO_WAY


def prepare(weight, tile, keep=True):
    """Return U = G g G^T of the filters (C, 3, 3, Co), of shape (n, n, S, C, Co / S).

    S blocks of channels out keep each product small, unless U is two-way. With keep=False, U is in
    a buffer that the next call in this thread overwrites.
    """
    C, _, _, Co = weight.shape
    S = 1
    if not two_way(tile, C, Co):
        while Co % (2 * S) == 0 and (Co // S > BLOCK or STRIP_TILES * C * Co > S * SMALL_PRODUCT):
            S *= 2
    _, G, _ = _matrices(tile, np.dtype(float))
    gg = np.kron(G, G).astype(weight.dtype)  # gg @ g is G g G^T, both written as vectors
    n = tile + 2
    shape = (n * n, S, C, Co // S)
    U = empty(shape, weight.dtype) if keep else scratch("U", shape, weight.dtype)

    def strip(_, c0, c1):
        g = scratch("filters", (c1 - c0, 9, Co), weight.dtype)
        np.copyto(g.reshape(c1 - c0, 3, 3, Co), weight[c0:c1])
        g = g.reshape(c1 - c0, 9, S, Co // S).transpose(0, 2, 1, 3)  # -> (C, S, 9, Co/S)
        # (n n, 9) @ (C, S, 9, Co/S) -> (C, S, n n, Co/S), stored as (n n, S, C, Co/S)
        np.matmul(gg, g, out=U[:, :, c0:c1].transpose(2, 1, 0, 3))

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return U.reshape(n, n, *shape[1:])


def convolve(padded, filters, bias, out, epilogue=None):
    """Convolve into `out` (N, Ho, Wo, Co), Ho and Wo rounded up to whole tiles.

    If `out` is None, the blocks of output exist only in the cache, for the epilogue.

    Usually a thread computes a strip from start to end, some rows of points at a time, so that V
    and M stay in its cache. In deep layers, the filters take more memory than the picture. There
    the threads transform many strips, then share the points, so that U is read once for all.
    """
    U, x = filters.matrices, padded.array
    if filters.flipped:
        U = U.transpose(0, 1, 2, 4, 3)  # channels in and out swapped
    n, _, S, C, part = U.shape
    m, Co = n - 2, S * part
    AT, _, BT = _matrices(m, x.dtype, filters.flipped)

    def strip(*place):
        rows, columns = _shape(place)
        V = scratch("V", (POINT_ROWS, n, rows * columns, C), x.dtype)
        M = scratch("M", (POINT_ROWS, n, rows * columns, Co), x.dtype)
        H = scratch("H", (rows, n, columns, m, Co), x.dtype)
        # (k, n, T, Co) -> (k, n, T, S, Co/S) -> (k, n, S, T, Co/S)
        blocks = M.reshape(POINT_ROWS, n, rows * columns, S, part).transpose(0, 1, 3, 2, 4)
        inputs, outputs = _by_tile(V, rows, columns), _by_tile(M, rows, columns)
        windows = _combine_rows(BT, x, place, m)
        for i in range(0, n, POINT_ROWS):
            some = slice(i, i + POINT_ROWS)
            np.matmul(BT, windows[:, some], out=inputs)
            # (k, n, 1, T, C) @ (k, n, S, C, Co/S) -> (k, n, S, T, Co/S)
            np.matmul(V[:, :, None], U[some], out=blocks)
            np.matmul(AT, outputs, out=H[:, some])
        _write_pixels(AT, H, bias, out, place, epilogue)

    def together(parts, T):
        V, M = scratch("V", (n, n, T, C), x.dtype), scratch("M", (n, n, T, Co), x.dtype)

        def transform(place, mine):
            windows = _combine_rows(BT, x, place, m)
            np.matmul(BT, windows, out=_by_tile(V[:, :, mine], *_shape(place)))

        def multiply(*point):
            blocks = M[point].reshape(T, S, part).transpose(1, 0, 2)  # (T, S, Co/S) -> (S, T, Co/S)
            for _, t0, t1 in strips_of_rows(1, T, T if S == 1 else STRIP_TILES):
                np.matmul(V[point][t0:t1], U[point], out=blocks[:, t0:t1])

        def transform_back(place, mine):
            rows, columns = _shape(place)
            H = scratch("H", (rows, n, columns, m, Co), x.dtype)
            np.matmul(AT, _by_tile(M[:, :, mine], rows, columns), out=H)
            _write_pixels(AT, H, bias, out, place, epilogue)

        run_strips(transform, parts)
        run_strips(multiply, np.ndindex(n, n))
        run_strips(transform_back, parts)

    shape = len(x), padded.output_size(3), C, m
    if C * Co >= DEEP:
        for chunk in _chunks(_strips_of_tiles(*shape, DEEP_STRIP), DEEP_TILES):
            together(*chunk)
    else:
        run_strips(strip, _strips_of_tiles(*shape))


def _strips_of_tiles(pictures, size, channels, tile, most=STRIP_TILES):
    """Return (picture, first row, last + 1, first column, last + 1) of strips of tiles.

    A strip is so narrow that `_combine_rows` multiplies its rows of pixels without repacking. Even
    a small picture is cut in two, so that two threads have work.
    """
    rows, columns = (ceil(length / tile) for length in size)
    tiles = min(most, ceil(pictures * rows * columns / 2))
    widest = max(1, (SMALL_PRODUCT // (tile + 2) ** 2 // channels - 2) // tile)
    # so wide that several rows of them are about as many tiles as wanted
    across = strips_of_rows(1, columns, tiles // ceil(tiles / widest))
    widest = max(t1 - t0 for _, t0, t1 in across)
    high = min(round(tiles / widest), STRIP_TILES // widest)
    strips = [
        (n, r0, r1, t0, t1)
        for n, r0, r1 in strips_of_rows(pictures, rows, high)
        for _, t0, t1 in across
    ]
    # the largest first: the threads then finish at nearly the same time
    return sorted(strips, key=lambda place: prod(_shape(place)), reverse=True)


def _chunks(strips, tiles):
    """Yield [(strip, the slice of its tiles)] of at most so many tiles, and their number."""
    sizes = [prod(_shape(place)) for place in strips]
    for _, i, j in strips_of_rows(1, len(strips), tiles // max(sizes)):
        ends = np.cumsum([0, *sizes[i:j]]).tolist()
        slices = [slice(*pair) for pair in pairwise(ends)]
        yield list(zip(strips[i:j], slices, strict=True)), ends[-1]


def _shape(place):
    """Return how many rows and columns of tiles a strip has."""
    _, r0, r1, t0, t1 = place
    return r1 - r0, t1 - t0


def _by_tile(points, rows, columns):
    """Return a view of `points` (k, n, T, C) in the order of the picture."""
    k, n, _, C = points.shape
    # (k, n, T, C) -> (k, n, rows, columns, C) -> (rows, k, columns, n, C)
    return points.reshape(k, n, rows, columns, C).transpose(2, 0, 3, 1, 4)


def _combine_rows(matrix, x, place, m):
    """Return `matrix` @ d of the tiles d of a strip, of shape (rows, n, columns, side, C).

    Tiles of side x side pixels begin every m pixels. Nothing is gathered: the product combines
    rows of pixels, which neighbouring tiles share, for the whole width of the strip. The tiles,
    which may overlap, are windows of the result.
    """
    picture, r0, _, t0, _ = place
    rows, columns = _shape(place)
    n, side = matrix.shape
    width, C = m * (columns - 1) + side, x.shape[3]
    pixels = x[picture, m * r0 :, m * t0 :]
    sy, _, sc = pixels.strides
    pixel_rows = as_strided(pixels, (rows, side, width * C), (m * sy, sy, sc), writeable=False)
    combined = scratch("combined", (rows, n, width, C), x.dtype)
    np.matmul(matrix, pixel_rows, out=combined.reshape(rows, n, width * C))
    sr, sn, sx, sc = combined.strides
    shape, strides = (rows, n, columns, side, C), (sr, sn, m * sx, sx, sc)
    return np.ndarray(shape, x.dtype, combined, strides=strides)


def _write_pixels(AT, H, bias, out, place, epilogue):
    """Write A^T H of a strip, H = M A (rows, n, columns, m, Co), plus bias, to its place in `out`.

    Again, the product combines whole rows of pixels.
    """
    rows, n, columns, m, Co = H.shape
    picture, r0, r1, t0, t1 = place
    if bias is not None:
        H[:, 1] += bias  # the point 1: column 1 of A^T is all ones
    if out is None:
        block = scratch("block", (m * rows, m * columns, Co), H.dtype)
    else:
        block = out[picture, m * r0 : m * r1, m * t0 : m * t1]
    width = columns * m * Co
    np.matmul(AT, H.reshape(rows, n, width), out=block.reshape(rows, m, width))
    if epilogue:
        epilogue(picture, m * r0, m * t0, block)


def weight_gradient(padded, dy, tile):
    """Return dL/dW (C, 3, 3, Co) from the layer's padded input and dy, padded by 0.

    Y = A^T M A and M = U * V are linear in M and U. Their gradients are therefore products with the
    transposed matrices, and those of U add up over all tiles:

        dM = A dY A^T        dU[k] = V[k]^T @ dM[k], (C, T) @ (T, Co)        dW = G^T dU G
    """
    x = padded.array
    dtype, C, Co = dy.array.dtype, x.shape[3], dy.array.shape[3]
    AT, G, BT = _matrices(tile, dtype)
    n = len(BT)
    dU = scratch("U", (n, n, C, Co), dtype)
    strips = _strips_of_tiles(len(x), dy.size, C, tile)
    for number, (parts, T) in enumerate(_chunks(strips, GRADIENT_TILES)):
        V, dM = np.empty((n, n, T, C), dtype), np.empty((n, n, T, Co), dtype)

        def transform(place, mine, V=V, dM=dM):
            for matrix, pictures, points in (BT, x, V), (AT.T, dy.tiles, dM):
                windows = _combine_rows(matrix, pictures, place, tile)
                np.matmul(matrix, windows, out=_by_tile(points[:, :, mine], *_shape(place)))

        def multiply(*k, V=V, dM=dM, add=number > 0):
            if add:
                dU[k] += V[k].T @ dM[k]
            else:
                np.matmul(V[k].T, dM[k], out=dU[k])

        run_strips(transform, parts)
        run_strips(multiply, np.ndindex(n, n))
    gg = np.kron(G, G)
    dw = np.empty((C, 9, Co), dtype)

    def strip(_, c0, c1):
        # (9, n n) @ (C, n n, Co) -> (C, 9, Co)
        np.matmul(gg.T, dU.reshape(n * n, C, Co)[:, c0:c1].transpose(1, 0, 2), out=dw[c0:c1])

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return dw.reshape(C, 3, 3, Co)

"""Kernel 3, Winograd's F(4x4, 3x3): a 3x3 convolution by a quarter of the multiplications.

Its reason: VGG has only 3x3 kernels with many channels, where the multiplications cost most.

In one dimension, four neighbouring outputs y of a 3-tap filter g read six inputs d. Done directly
they cost 12 multiplications. But inputs and filter are the coefficients of two polynomials and the
outputs those of (part of) their product, and a product of polynomials may be computed point by
point: evaluate both at six points, multiply the six pairs, interpolate. With the matrices below,

    y = A^T [(G g) * (B^T d)]        6 multiplications instead of 12.

In two dimensions this is done along columns and along rows. The picture is cut into 4x4 tiles of
outputs, each reading 6x6 inputs that overlap its neighbours' by two pixels:

    . . . . . . . .        V = B^T d B      (6, 6)   transform of a tile of inputs
    . +-----------.-       U = G g G^T      (6, 6)   transform of a filter, done once
    . | 4x4     | .        M = U * V        (6, 6)   36 multiplications instead of 144
    . | outputs | .        Y = A^T M A      (4, 4)   the tile of outputs
    . |         | .
    . +-----------.        With channels, each of the 36 products is a matrix product
    . . . . . . . .        over them: M[k] = V[k] @ U[k], (T, C) @ (C, Co).

Multiplications for each tile and channel: 144 + 216 for V (from the left, then from the right), 144
+ 96 for Y, and 36 Co for M, which direct convolution does with 144 Co.

A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from math import ceil

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fast.padded import TILE, whole_tiles
from fast.strips import run_strips, scratch, strips_of_rows

# The interpolation points are 0, 1, -1, 2, -2 and infinity.
BT = np.array([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
])  # fmt: skip
G = np.array([
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
])  # fmt: skip
AT = np.array([
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
])  # fmt: skip
GG = np.kron(G, G)  # (36, 9): GG @ g is G g G^T, both written as vectors

STRIP_TILES = 60  # tiles a strip: large enough for full speed, small enough for the cache
FILTER_ROWS = 32  # channels in whose filters are transformed at a time
SMALL_PRODUCT = 10**6  # OpenBLAS does not repack a product of (M, N) and (N, L) if M N L <= this


def prepare(weight, keep=True):
    """Return U = G g G^T of the filters (C, 3, 3, Co), of shape (36, S, C, Co / S).

    S blocks of channels out keep each product below SMALL_PRODUCT. With keep=False, U is in a
    buffer that the next call in this thread overwrites.
    """
    C, _, _, Co = weight.shape
    S = 1
    while Co % (2 * S) == 0 and STRIP_TILES * C * (Co // S) > SMALL_PRODUCT:
        S *= 2
    shape = (36, S, C, Co // S)
    U = np.empty(shape, weight.dtype) if keep else scratch("U", shape, weight.dtype)
    gg = GG.astype(weight.dtype)

    def strip(_, c0, c1):
        g = scratch("filters", (c1 - c0, 3, 3, Co), weight.dtype)
        np.copyto(g, weight[c0:c1])
        g = g.reshape(c1 - c0, 9, S, Co // S).transpose(0, 2, 1, 3)  # -> (C, S, 9, Co/S)
        # (36, 9) @ (C, S, 9, Co/S) -> (C, S, 36, Co/S), stored as (36, S, C, Co/S)
        np.matmul(gg, g, out=U[:, :, c0:c1].transpose(2, 1, 0, 3))

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return U


def convolve(padded, filters, bias, out, epilogue=None):
    """Convolve into `out` (N, Ho, Wo, Co), Ho and Wo rounded up to whole tiles.

    If `out` is None, the blocks of output exist only in the cache, for the epilogue. The bias is
    added to M at the point (1, 1) only: column 1 of A^T is all ones, so A^T M A distributes what is
    added there to all 16 outputs.
    """
    U, x = filters.matrices, padded.array
    _, S, C, part = U.shape
    Co = S * part
    bt, at = BT.astype(x.dtype), AT.astype(x.dtype)

    def strip(n, r0, r1, t0, t1):
        rows, columns = r1 - r0, t1 - t0
        T = rows * columns
        a = scratch("a", T * 36 * max(C, Co), x.dtype)
        V = a[: T * 36 * C].reshape(T, 36, C)
        _transform_tiles(bt, x, (n, r0, r1, t0, t1), V)
        M = scratch("b", (T, 36, S, part), x.dtype)
        # (T, 36, C) -> (36, 1, T, C);  (36, 1, T, C) @ (36, S, C, Co/S) -> (36, S, T, Co/S)
        np.matmul(V.transpose(1, 0, 2)[:, None], U, out=M.transpose(1, 2, 0, 3))
        if bias is not None:
            M[:, 7] += bias.reshape(S, part)  # 7 = 6 * 1 + 1, the point (1, 1)
        half = a[: T * 24 * Co].reshape(T, 4, 6 * Co)
        np.matmul(at, M.reshape(T, 6, 6 * Co), out=half)  # A^T M
        if out is None:
            block = scratch("block", (TILE * rows, TILE * columns, Co), x.dtype)
        else:
            block = out[n, TILE * r0 : TILE * r1, TILE * t0 : TILE * t1]
        sy, sx, sc = block.strides
        # (A^T M) A, row by row, straight to its place: (4, 6) @ (rows, columns, 4, 6, Co)
        shape, strides = (rows, columns, TILE, TILE, Co), (TILE * sy, TILE * sx, sy, sx, sc)
        Y = as_strided(block, shape, strides)
        np.matmul(at, half.reshape(rows, columns, TILE, 6, Co), out=Y)
        if epilogue:
            epilogue(n, TILE * r0, TILE * t0, block)

    run_strips(strip, _strips_of_tiles(len(x), padded.output_size(3), C))


def _strips_of_tiles(pictures, size, channels):
    """Return (picture, first row, last + 1, first column, last + 1) of strips of tiles.

    A strip is so narrow that `_transform_tiles` multiplies its rows of pixels without repacking.
    Even a small picture is cut in two, so that two threads have work.
    """
    rows, columns = (whole_tiles(length) // TILE for length in size)
    tiles = min(STRIP_TILES, ceil(pictures * rows * columns / 2))
    widest = (SMALL_PRODUCT // 36 // channels - 2) // TILE
    across = strips_of_rows(1, columns, min(tiles, widest))
    widest = max(t1 - t0 for _, t0, t1 in across)
    high = min(round(tiles / widest), STRIP_TILES // widest)
    return [
        (n, r0, r1, t0, t1)
        for n, r0, r1 in strips_of_rows(pictures, rows, high)
        for _, t0, t1 in across
    ]


def _transform_tiles(bt, x, strip, V):
    """Write V = B^T d B of the tiles d of a strip into V (T, 36, C), channel by channel.

    Nothing is gathered. B^T d combines six rows of pixels into six others, and neighbouring tiles
    share those rows: one product does it for the whole width of the strip. (B^T d) B then reads its
    6x6 tiles, which overlap, from that result.
    """
    n, r0, r1, t0, t1 = strip
    rows, columns = r1 - r0, t1 - t0
    width, C = TILE * columns + 2, x.shape[3]
    pixels = x[n, TILE * r0 : TILE * r1 + 2, TILE * t0 : TILE * t1 + 2]
    sy, sx, sc = pixels.strides
    six_rows = as_strided(pixels, (rows, 6, width * C), (TILE * sy, sy, sc), writeable=False)
    half = scratch("half", (rows, 6, width, C), x.dtype)
    np.matmul(bt, six_rows, out=half.reshape(rows, 6, width * C))  # B^T d
    sr, sf, sx, sc = half.strides
    # (rows, 6, columns, 6, C): from each of the six combined rows, the six pixels of each tile
    shape, strides = (rows, 6, columns, 6, C), (sr, sf, TILE * sx, sx, sc)
    windows = as_strided(half, shape, strides, writeable=False)
    # (rows, columns, 6, 6, C) -> (rows, 6, columns, 6, C)
    out = V.reshape(rows, columns, 6, 6, C).transpose(0, 2, 1, 3, 4)
    np.matmul(bt, windows, out=out)  # (B^T d) B, row by row


def weight_gradient(padded, dy):
    """Return dL/dW (C, 3, 3, Co) from the layer's padded input and dy, padded by 0.

    Y = A^T M A and M = U * V are linear in M and U. Their gradients are therefore products with the
    transposed matrices, and those of U add up over all tiles:

        dM = A dY A^T        dU[k] = V[k]^T @ dM[k], (C, T) @ (T, Co)        dW = G^T dU G
    """
    N, _, _, C = padded.array.shape
    dtype, Co = dy.array.dtype, dy.array.shape[3]
    dU = scratch("U", (36, C, Co), dtype)
    strips = _strips_of_tiles(N, dy.size, C)
    at_once = max(1, 1024 // STRIP_TILES)  # strips whose V and dM are kept, to bound the memory
    for first in range(0, len(strips), at_once):
        _sum_over_tiles(dU, padded.array, dy, strips[first : first + at_once], add=first > 0)
    dw = np.empty((C, 9, Co), dtype)
    gg = GG.astype(dtype)

    def strip(_, c0, c1):
        # (9, 36) @ (C, 36, Co) -> (C, 9, Co)
        np.matmul(gg.T, dU[:, c0:c1].transpose(1, 0, 2), out=dw[c0:c1])

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return dw.reshape(C, 3, 3, Co)


def _sum_over_tiles(dU, x, dy, strips, add):
    """Set dU to what some strips of tiles contribute to it, or add that."""
    _, C, Co = dU.shape
    bt, a = BT.astype(dU.dtype), AT.T.astype(dU.dtype)
    sizes = [(r1 - r0) * (t1 - t0) for _, r0, r1, t0, t1 in strips]
    starts = np.cumsum([0, *sizes])
    V = np.empty((starts[-1], 36, C), dU.dtype)
    dM = np.empty((starts[-1], 36, Co), dU.dtype)
    N, H, W, _ = dy.tiles.shape
    sn, sy, sx, sc = dy.tiles.strides
    shape, strides = (N, H // TILE, W // TILE, TILE, TILE * Co), (sn, TILE * sy, TILE * sx, sy, sc)
    dy_tiles = as_strided(dy.tiles, shape, strides, writeable=False)

    def transform(i):
        n, r0, r1, t0, t1 = strips[i]
        T, mine = sizes[i], slice(starts[i], starts[i + 1])
        _transform_tiles(bt, x, strips[i], V[mine])
        tiles = scratch("a", (r1 - r0, t1 - t0, TILE, TILE * Co), dU.dtype)
        np.copyto(tiles, dy_tiles[n, r0:r1, t0:t1])
        half = scratch("b", (T, 6, TILE * Co), dU.dtype)
        np.matmul(a, tiles.reshape(T, TILE, TILE * Co), out=half)  # A dY
        # (A dY) A^T, row by row: (6, 4) @ (T 6, 4, Co) -> (T 6, 6, Co)
        np.matmul(a, half.reshape(T * 6, TILE, Co), out=dM[mine].reshape(T * 6, 6, Co))

    def multiply(k):
        if add:
            dU[k] += V[:, k].T @ dM[:, k]
        else:
            np.matmul(V[:, k].T, dM[:, k], out=dU[k])

    run_strips(transform, [(i,) for i in range(len(strips))])
    run_strips(multiply, [(k,) for k in range(36)])

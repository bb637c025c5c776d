"""Fast convolution in NumPy: im2col, kn2row and Winograd's minimal filtering.

Letters: N pictures, C channels in, K channels out, H x W pixels, R the side of a kernel, T tiles.

A convolution layer has few formulas and many multiplications. The three algorithms here compute
the same sums as the raw loops of `layers2.py`; each turns them into matrix products, the one thing
a computer does at full speed, and each suits other shapes (`choose_algorithm`):

==========  ==================================================  ===========================
algorithm   multiplications per output value                    suits
==========  ==================================================  ===========================
im2col      R * R * C                                           any kernel, stride, channels
kn2row      R * R * C                                           very few channels out
winograd    36 / 16 * C, a quarter of 3 * 3 * C                 3x3, stride 1, many channels
==========  ==================================================  ===========================

Three habits make the rest of the speed:

- *Memory is channels-last.* Arrays are NCHW in shape to every caller; inside, the C values of a
  pixel lie side by side, so that copies move long runs and matrix products read unit strides.
- *Strips.* A picture is cut into strips small enough for a core's cache. One thread takes a strip
  through all stages (transform, multiply, transform, store) before it takes the next.
- *`finish`.* What follows a convolution pixel by pixel (ReLU, pooling, a mask) is done to each
  strip while it is still in cache.

References
----------
.. [1] A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
.. [2] K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for
       Document Processing", 2006 (im2col).
.. [3] A. Vasudevan, A. Anderson, D. Gregg, "Parallel Multi Channel Convolution using General
       Matrix Multiplication", ASAP 2017 (kn2row).
"""

from math import ceil

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fast.strips import run_strips, scratch, strips_of_rows

# Winograd F(4x4, 3x3) [1]_, interpolation points 0, 1, -1, 2, -2 and infinity.
BT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
AT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)
TILE = 4  # outputs along the side of a Winograd tile; it reads TILE + 2 inputs

STRIP_TILES = 60  # tiles a strip: large enough for full speed, small enough for the cache
STRIP_BYTES = 1 << 20  # the same for im2col: bytes of gathered windows a strip
FILTER_ROWS = 32  # channels in of which filters are transformed at a time
SMALL_PRODUCT = 10**6  # OpenBLAS multiplies without repacking where M * N * K is at most this

ALGORITHMS = ("im2col", "kn2row", "winograd")


def choose_algorithm(kernel_size, stride, channel_in, channel_out):
    """Return the name of the fastest algorithm for a convolution of this shape.

    Parameters
    ----------
    kernel_size, stride, channel_in, channel_out : int

    Returns
    -------
    str
        One of `ALGORITHMS`.
    """
    if channel_out < 16 and stride == 1:  # a matrix product with so few columns is slow
        return "kn2row"
    if kernel_size == 3 and stride == 1 and channel_in >= 16:
        return "winograd"
    return "im2col"


def prepare_filters(weight, algorithm, keep=True):
    """Bring `weight` into the form its algorithm multiplies with.

    Parameters
    ----------
    weight : ndarray of shape (channel_in, R, R, channel_out)
    algorithm : str
    keep : bool, default=True
        Whether the result shall outlive the next call in this thread; if not, Winograd's, which is
        large, comes in memory that is used again and again.

    Returns
    -------
    ndarray
        - im2col: (R * R * C, K), rows in the order in which a window is gathered;
        - kn2row: (C, R * R * K), one block of columns for each position in the kernel;
        - winograd: (36, S, C, K / S), the transform U = G w G^T of each filter, its 36 values
          first; S blocks of channels out keep each product small (see `winograd`).
    """
    C, R, _, K = weight.shape
    if algorithm == "im2col":
        # (C, R, R, K) -> (R, R, C, K) -> (R R C, K)
        return np.ascontiguousarray(weight.transpose(1, 2, 0, 3)).reshape(R * R * C, K)
    if algorithm == "kn2row":
        return np.ascontiguousarray(weight).reshape(C, R * R * K)
    blocks = 1
    while K % (2 * blocks) == 0 and STRIP_TILES * C * (K // blocks) > SMALL_PRODUCT:
        blocks *= 2
    # Both sides of G w G^T at once: the Kronecker square of G times the nine values of a filter.
    GG = np.kron(G, G).astype(weight.dtype)  # (36, 9)
    shape = (36, blocks, C, K // blocks)
    U = np.empty(shape, weight.dtype) if keep else scratch("U", shape, weight.dtype)

    def strip(_, c0, c1):
        w = scratch("filters", (c1 - c0, 3, 3, K), weight.dtype)
        np.copyto(w, weight[c0:c1])
        w = w.reshape(c1 - c0, 9, blocks, K // blocks)
        # (36, 9) @ (C, S, 9, K/S) -> (C, S, 36, K/S), stored as (36, S, C, K/S)
        np.matmul(GG, w.transpose(0, 2, 1, 3), out=U[:, :, c0:c1].transpose(2, 1, 0, 3))

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return U


def check_algorithm(algorithm, kernel_size, stride):
    """Raise ValueError unless `algorithm` is None or one that can do this kernel and stride."""
    if algorithm is None:
        return
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if algorithm == "winograd" and (kernel_size != 3 or stride != 1):
        raise ValueError(
            f"winograd is made for 3x3 kernels at stride 1, got {kernel_size}x{kernel_size} "
            f"at stride {stride}"
        )
    if algorithm == "kn2row" and stride != 1:
        raise ValueError(f"kn2row is made for stride 1, got stride {stride}")


def convolve(padded, filters, bias, shape, kernel_size, stride, algorithm):
    """Return the convolution of padded pictures, by the algorithm named.

    Parameters
    ----------
    padded : ndarray of shape (N, Hp, Wp, C)
        From `pad` or `spread`.
    filters : ndarray
        From `prepare_filters`, for the same algorithm.
    bias : ndarray of shape (K,) or None
    shape : tuple
        (Ho, Wo, K), the shape of the output of one picture.
    kernel_size, stride : int
    algorithm : str

    Returns
    -------
    ndarray of shape (N, Ho, Wo, K)
        May be a view of an array that is up to three pixels larger each way.
    """
    Ho, Wo, K = shape
    out = np.empty((len(padded), whole_tiles(Ho), whole_tiles(Wo), K), padded.dtype)
    exact = out[:, :Ho, :Wo]
    if algorithm == "winograd":
        winograd(padded, filters, bias, out.shape, out)
    elif algorithm == "kn2row":
        kn2row(padded, filters, bias, kernel_size, exact)
    else:
        im2col(padded, filters, bias, kernel_size, stride, exact)
    return exact


def whole_tiles(length):
    """Return `length` rounded up to a multiple of Winograd's tiles."""
    return ceil(length / TILE) * TILE


def padded_buffer(shape, padding, dtype, memory=None):
    """Return an array for pictures with a border of zeros, and the view of its inside.

    Parameters
    ----------
    shape : tuple
        (N, H, W, C).
    padding : int
        Zeros on each side. At the bottom and on the right stand three more, so that Winograd's
        tiles may hang over.
    dtype : dtype
    memory : ndarray of shape (size,), optional
        Where to put it, in place of fresh memory; of this dtype and large enough.

    Returns
    -------
    padded : ndarray of shape (N, H + 2 padding + 3, W + 2 padding + 3, C)
    inside : ndarray of shape (N, H, W, C)
        The view of `padded` that holds the pictures; its values are not initialised.
    """
    N, H, W, C = shape
    full = (N, H + 2 * padding + TILE - 1, W + 2 * padding + TILE - 1, C)
    if memory is None:
        padded = np.empty(full, dtype)
    else:
        padded = memory[: int(np.prod(full))].reshape(full)
    rows, columns = slice(padding, padding + H), slice(padding, padding + W)
    padded[:, : rows.start] = 0
    padded[:, rows.stop :] = 0
    padded[:, rows, : columns.start] = 0
    padded[:, rows, columns.stop :] = 0
    return padded, padded[:, rows, columns]


def pad(pictures, padding):
    """Return pictures (N, C, H, W) channels-last with a border of zeros, as `padded_buffer` does.

    This is where NCHW memory of a caller's becomes channels-last; pictures that are channels-last
    in memory already are merely copied.
    """
    x = pictures.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
    padded, inside = padded_buffer(x.shape, padding, x.dtype)

    def strip(n, y0, y1):
        np.copyto(inside[n, y0:y1], x[n, y0:y1])

    N, H, W, C = x.shape
    run_strips(strip, strips_of_rows(N, H, STRIP_BYTES // (W * C * x.itemsize)))
    return padded


def spread(top_diff, size, kernel_size, stride, padding):
    """Return a gradient laid out so that one convolution at stride 1 carries it back.

    The gradient of the pixel h of the padded input collects dy[o] * W[h - s o] over the outputs o
    whose windows reach it. Written as a convolution with the turned filter, dy stands s apart with
    zeros between, K - 1 zeros before the first, and the input's padding cut off again:

        row j of the result = dy[o]  where  j = s o + K - 1 - p,  else 0;  0 <= j < H + K - 1.

    Parameters
    ----------
    top_diff : ndarray of shape (N, K, Ho, Wo)
    size : tuple
        (H, W) of the input of the layer.
    kernel_size, stride, padding : int

    Returns
    -------
    ndarray of shape (N, H + K - 1 + 3, W + K - 1 + 3, K)
    """
    shift = kernel_size - 1 - padding
    if stride == 1 and shift >= 0:
        return pad(top_diff, shift)
    N, K, Ho, Wo = top_diff.shape
    H, W = (length + kernel_size - 1 for length in size)
    padded = np.zeros((N, H + TILE - 1, W + TILE - 1, K), top_diff.dtype)
    first = max(0, ceil(-shift / stride))  # outputs before it saw padding only
    start = stride * first + shift
    target = padded[:, start:H:stride, start:W:stride]
    rows, columns = min(Ho - first, target.shape[1]), min(Wo - first, target.shape[2])
    if rows > 0 and columns > 0:
        # (N, K, Ho, Wo) -> (N, Ho, Wo, K)
        dy = top_diff.transpose(0, 2, 3, 1)[:, first : first + rows, first : first + columns]
        target[:, :rows, :columns] = dy
    return padded


def im2col(padded, filters, bias, kernel_size, stride, out, finish=None):
    """Convolve by copying each window into a row, then one matrix product a strip [2]_.

    A window of R x R pixels becomes a row of R * R * C numbers, so a strip of P output pixels
    becomes a (P, R R C) matrix; times the (R R C, K) filters it gives all P x K outputs.

    Cost for each output pixel: R R C numbers copied, R R C K multiplications.
    """
    N, Ho, Wo, K = out.shape
    C, R = padded.shape[3], kernel_size
    sn, sy, sx, sc = padded.strides
    # All windows as a view, nothing copied yet; R pixels of a row with their C channels are
    # contiguous, hence one axis of R * C.
    windows = as_strided(
        padded, (N, Ho, Wo, R, R * C), (sn, stride * sy, stride * sx, sy, sc), writeable=False
    )

    def strip(n, y0, y1):
        P = (y1 - y0) * Wo
        rows = scratch("windows", (y1 - y0, Wo, R, R * C), padded.dtype)
        np.copyto(rows, windows[n, y0:y1])
        product = scratch("product", (P, K), padded.dtype)
        np.matmul(rows.reshape(P, R * R * C), filters, out=product)
        block = out[n, y0:y1]
        if bias is None:
            np.copyto(block, product.reshape(y1 - y0, Wo, K))
        else:
            np.add(product.reshape(y1 - y0, Wo, K), bias, out=block)
        if finish:
            finish(n, y0, 0, block)

    row_bytes = Wo * R * R * C * padded.itemsize
    run_strips(strip, strips_of_rows(N, Ho, STRIP_BYTES // row_bytes))


def kn2row(padded, filters, bias, kernel_size, out, finish=None):
    """Convolve by one 1x1 product for each position in the kernel, shifted and added [3]_.

    The product (P, C) @ (C, R R K) says what each pixel contributes to each of the R x R outputs
    that see it; adding the R x R pictures, each shifted to its place, gives the output. With few
    channels out (the gradient of the picture itself has three) that is far less to copy than
    im2col's windows.

    Cost for each pixel: R R C K multiplications, R R K additions. Stride 1 only.
    """
    N, Ho, Wo, K = out.shape
    C, R = padded.shape[3], kernel_size
    Wp = Wo + R - 1

    def strip(n, y0, y1):
        rows = y1 - y0 + R - 1
        pixels = scratch("pixels", (rows, Wp, C), padded.dtype)
        np.copyto(pixels, padded[n, y0 : y0 + rows, :Wp])
        product = scratch("product", (R * R * K, rows * Wp), padded.dtype)
        # (R R K, C) @ (C, P): one plane for each position and channel, so that the additions run
        # along whole rows of pixels
        np.matmul(filters.T, pixels.reshape(rows * Wp, C).T, out=product)
        parts = product.reshape(R, R, K, rows, Wp)
        sums = scratch("sums", (K, y1 - y0, Wo), padded.dtype)
        sums[...] = 0 if bias is None else bias[:, None, None]
        for i in range(R):
            for j in range(R):
                sums += parts[i, j, :, i : i + y1 - y0, j : j + Wo]
        block = out[n, y0:y1]
        np.copyto(block, sums.transpose(1, 2, 0))  # (K, H, W) -> (H, W, K)
        if finish:
            finish(n, y0, 0, block)

    row_bytes = Wp * max(C, R * R * K) * padded.itemsize
    run_strips(strip, strips_of_rows(N, Ho, STRIP_BYTES // row_bytes))


def winograd(padded, filters, bias, shape, out, finish=None):
    """Convolve 3x3 at stride 1 by Winograd's F(4x4, 3x3) [1]_.

    In one dimension: four neighbouring outputs y of a 3-tap filter g read six inputs d. Done
    directly they cost 12 multiplications. But inputs and filter are the coefficients of two
    polynomials and the outputs those of (part of) their product, and a product of polynomials
    may be taken point by point: evaluate both at six points, multiply the six pairs, interpolate.
    With the matrices above,

        y = A^T [(G g) * (B^T d)]        6 multiplications instead of 12.

    In two dimensions the same is done along columns and along rows. The picture is cut into
    4x4 tiles of outputs, each reading 6x6 inputs that overlap the neighbours' by two pixels:

        . . . . . . . .        V = B^T d B      (6, 6)   transform of a tile of inputs
        . +-----------.-       U = G g G^T      (6, 6)   transform of a filter, done once
        . | 4x4     | .        M = U * V        (6, 6)   36 multiplications instead of 144
        . | outputs | .        Y = A^T M A      (4, 4)   the tile of outputs
        . |         | .
        . +-----------.        With channels, each of the 36 products is a matrix product
        . . . . . . . .        over them: M[k] = V[k] @ U[k], (T, C) @ (C, K).

    Cost for each tile and channel: 144 + 216 multiplications for V (from the left, then from the
    right; see `transform_tiles`), 144 + 96 for Y, both by small matrix products; and 36 K for M,
    which is the part that direct convolution does with 144 K.

    The bias is added to M alone, at the point (1, 1): column 1 of A^T is all ones, so that A^T M A
    spreads what is added there to all 16 outputs.

    The output has the given shape, (N, Ho, Wo, K), Ho and Wo being whole numbers of tiles; `padded`
    must be two pixels larger each way. Where `out` is None, blocks live in the cache only and are
    gone after `finish`.
    """
    N, Ho, Wo, K = shape
    C = padded.shape[3]
    blocks = filters.shape[1]
    bt, at = BT.astype(padded.dtype), AT.astype(padded.dtype)

    def strip(n, r0, r1, t0, t1):
        rows, columns = r1 - r0, t1 - t0
        T = rows * columns
        a = scratch("a", T * 36 * max(C, K), padded.dtype)
        V = a[: T * 36 * C].reshape(T, 36, C)
        transform_tiles(bt, padded, (n, r0, r1, t0, t1), V)
        M = scratch("b", (T, 36, blocks, K // blocks), padded.dtype)
        # (T, 36, C) -> (36, 1, T, C);  (36, 1, T, C) @ (36, S, C, K/S) -> (36, S, T, K/S)
        np.matmul(V.transpose(1, 0, 2)[:, None], filters, out=M.transpose(1, 2, 0, 3))
        if bias is not None:
            M[:, 7] += bias.reshape(blocks, K // blocks)  # 7 = 6 * 1 + 1, the point (1, 1)
        half = a[: T * 24 * K].reshape(T, 4, 6 * K)
        np.matmul(at, M.reshape(T, 6, 6 * K), out=half)  # A^T M
        if out is None:
            block = scratch("block", (TILE * rows, TILE * columns, K), padded.dtype)
        else:
            block = out[n, TILE * r0 : TILE * r1, TILE * t0 : TILE * t1]
        sy, sx, sc = block.strides
        # (A^T M) A, row by row, straight to its place: (4, 6) @ (rows, columns, 4, 6, K)
        Y = as_strided(
            block, (rows, columns, TILE, TILE, K), (TILE * sy, TILE * sx, sy, sx, sc)
        )
        np.matmul(at, half.reshape(rows, columns, TILE, 6, K), out=Y)
        if finish:
            finish(n, TILE * r0, TILE * t0, block)

    run_strips(strip, strips_of_tiles(N, Ho // TILE, Wo // TILE, C))


def strips_of_tiles(pictures, rows, columns, channels):
    """Return (picture, first row, last + 1, first column, last + 1) of strips of tiles.

    A strip is so narrow that `transform_tiles` multiplies its rows of pixels without repacking,
    and a small picture is still cut in two, lest one thread do all the work.
    """
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


def transform_tiles(bt, padded, strip, V):
    """Compute V = B^T d B for the tiles d of a strip, channel by channel.

    Nothing is gathered. B^T d combines six rows of pixels into six others, and tiles beside each
    other share those rows: one product does it for the whole width of the strip. (B^T d) B then
    reads its 6x6 tiles, which overlap, from that result.

    Parameters
    ----------
    bt : ndarray of shape (6, 6)
    padded : ndarray of shape (N, Hp, Wp, C)
    strip : tuple
        (picture, first row of tiles, last + 1, first column, last + 1).
    V : ndarray of shape (T, 36, C)
        Where the result goes.
    """
    n, r0, r1, t0, t1 = strip
    rows, columns = r1 - r0, t1 - t0
    width, C = TILE * columns + 2, padded.shape[3]
    pixels = padded[n, TILE * r0 : TILE * r1 + 2, TILE * t0 : TILE * t1 + 2]
    sy, sx, sc = pixels.strides
    six_rows = as_strided(pixels, (rows, 6, width * C), (TILE * sy, sy, sc), writeable=False)
    half = scratch("half", (rows, 6, width, C), padded.dtype)
    np.matmul(bt, six_rows, out=half.reshape(rows, 6, width * C))  # B^T d
    sr, sf, sx, sc = half.strides
    # (rows, 6, columns, 6, C): from each of the six combined rows, the six pixels of each tile
    windows = as_strided(
        half, (rows, 6, columns, 6, C), (sr, sf, TILE * sx, sx, sc), writeable=False
    )
    # (rows, columns, 6, 6, C) -> (rows, 6, columns, 6, C)
    out = V.reshape(rows, columns, 6, 6, C).transpose(0, 2, 1, 3, 4)
    np.matmul(bt, windows, out=out)  # (B^T d) B, row by row


def weight_gradient(padded, top_diff, kernel_size, stride, algorithm=None):
    """Return the gradient of the loss by the weights of a convolution.

    Parameters
    ----------
    padded : ndarray of shape (N, Hp, Wp, C)
        The layer's input, from `pad`.
    top_diff : ndarray of shape (N, K, Ho, Wo)
    kernel_size, stride : int
    algorithm : str, optional
        Forces the choice; kn2row has no form of its own here and stands for im2col.

    Returns
    -------
    ndarray of shape (C, R, R, K)
    """
    C, K = padded.shape[3], top_diff.shape[1]
    if algorithm is None:
        algorithm = choose_algorithm(kernel_size, stride, min(C, K), max(C, K))
    if algorithm == "winograd":
        return winograd_weight_gradient(padded, pad(top_diff, 0), top_diff.shape[2:])
    dy = top_diff.transpose(0, 2, 3, 1)  # (N, K, Ho, Wo) -> (N, Ho, Wo, K)
    return im2col_weight_gradient(padded, dy, kernel_size, stride)


def im2col_weight_gradient(padded, dy, kernel_size, stride):
    """Correlate input and gradient through the windows of `im2col`.

    Where the forward pass multiplies windows (P, R R C) by filters (R R C, K), the gradient of
    the filters is the transposed windows times the gradient of the product: (R R C, P) @ (P, K).
    """
    N, Ho, Wo, K = dy.shape
    C, R = padded.shape[3], kernel_size
    sn, sy, sx, sc = padded.strides
    windows = as_strided(
        padded, (N, Ho, Wo, R, R * C), (sn, stride * sy, stride * sx, sy, sc), writeable=False
    )
    strips = strips_of_rows(N, Ho, STRIP_BYTES // (Wo * R * R * C * padded.itemsize))
    # A few groups of strips, each with its own sum: who adds what must not hang on the threads.
    groups = min(len(strips), 8)
    sums = np.zeros((groups, R * R * C, K), padded.dtype)

    def group(g):
        for n, y0, y1 in strips[g::groups]:
            P = (y1 - y0) * Wo
            rows = scratch("windows", (y1 - y0, Wo, R, R * C), padded.dtype)
            np.copyto(rows, windows[n, y0:y1])
            top = scratch("product", (y1 - y0, Wo, K), padded.dtype)
            np.copyto(top, dy[n, y0:y1])
            sums[g] += rows.reshape(P, R * R * C).T @ top.reshape(P, K)

    run_strips(group, [(g,) for g in range(groups)])
    # (R R C, K) -> (R, R, C, K) -> (C, R, R, K)
    return np.ascontiguousarray(sums.sum(axis=0).reshape(R, R, C, K).transpose(2, 0, 1, 3))


def winograd_weight_gradient(padded, dy, size):
    """Correlate input and gradient through the 36 products of `winograd`.

    Y = A^T M A and M = U * V are linear in M and U, so their gradients go back through the
    transposed matrices, and those of U add up over all tiles:

        dM = A dY A^T        dU[k] = V[k]^T @ dM[k], (C, T) @ (T, K)        dw = G^T dU G

    Parameters
    ----------
    padded : ndarray of shape (N, Hp, Wp, C)
    dy : ndarray of shape (N, Ho + 3, Wo + 3, K)
        The gradient with zeros on the right and below, from `pad`.
    size : tuple
        (Ho, Wo).
    """
    dtype = padded.dtype
    C, K = padded.shape[3], dy.shape[3]
    N, rows, columns = len(padded), whole_tiles(size[0]) // TILE, whole_tiles(size[1]) // TILE
    bt, a = BT.astype(dtype), AT.T.astype(dtype)
    sn, sy, sx, sc = dy.strides
    dy_tiles = as_strided(
        dy, (N, rows, columns, TILE, TILE * K), (sn, TILE * sy, TILE * sx, sy, sc), writeable=False
    )
    dU = scratch("U", (36, C, K), dtype)
    strips = strips_of_tiles(N, rows, columns, C)
    at_once = max(1, 1024 // STRIP_TILES)  # strips whose V and dM are kept: it bounds the memory
    for first in range(0, len(strips), at_once):
        some = strips[first : first + at_once]
        _sum_over_tiles(dU, bt, a, padded, dy_tiles, some, add=first > 0)
    GG = np.kron(G, G).astype(dtype)  # (36, 9)
    dw = np.empty((C, 9, K), dtype)

    def strip(_, c0, c1):
        # (9, 36) @ (C, 36, K) -> (C, 9, K)
        np.matmul(GG.T, dU[:, c0:c1].transpose(1, 0, 2), out=dw[c0:c1])

    run_strips(strip, strips_of_rows(1, C, FILTER_ROWS))
    return dw.reshape(C, 3, 3, K)


def _sum_over_tiles(dU, bt, a, padded, dy_tiles, strips, add):
    """Set dU to what some strips of tiles contribute to it, or add that."""
    C, K = dU.shape[1:]
    sizes = [(r1 - r0) * (t1 - t0) for _, r0, r1, t0, t1 in strips]
    starts = np.cumsum([0, *sizes])
    V = np.empty((starts[-1], 36, C), dU.dtype)
    dM = np.empty((starts[-1], 36, K), dU.dtype)

    def transform(i):
        n, r0, r1, t0, t1 = strips[i]
        T, mine = sizes[i], slice(starts[i], starts[i + 1])
        transform_tiles(bt, padded, strips[i], V[mine])
        tiles = scratch("a", (r1 - r0, t1 - t0, TILE, TILE * K), dU.dtype)
        np.copyto(tiles, dy_tiles[n, r0:r1, t0:t1])
        half = scratch("b", (T, 6, TILE * K), dU.dtype)
        np.matmul(a, tiles.reshape(T, TILE, TILE * K), out=half)  # A dY
        # (A dY) A^T, row by row: (6, 4) @ (T 6, 4, K) -> (T 6, 6, K)
        np.matmul(a, half.reshape(T * 6, TILE, K), out=dM[mine].reshape(T * 6, 6, K))

    def multiply(k):
        if add:
            dU[k] += V[:, k].T @ dM[:, k]
        else:
            np.matmul(V[:, k].T, dM[:, k], out=dU[k])

    run_strips(transform, [(i,) for i in range(len(strips))])
    run_strips(multiply, [(k,) for k in range(36)])

"""Kernel 2, kn2row: one 1x1 product for each kernel position, shifted and added; stride 1 only.

Its reason: with few channels out (the gradient of the picture itself has three) it copies far less
than im2col, which copies every pixel K K times.

A. Vasudevan, A. Anderson, D. Gregg, "Parallel Multi Channel Convolution using General Matrix
Multiplication", ASAP 2017.
"""

import numpy as np

from fast.strips import run_strips, scratch, strips_of_bytes


def prepare(weight):
    """Return the filters (C, K, K, Co) as (C, K K Co): a block of columns for each position."""
    C, K, _, Co = weight.shape
    return np.ascontiguousarray(weight).reshape(C, K * K * Co)


def convolve(padded, filters, bias, out):
    """Convolve into `out` (N, Ho, Wo, Co); see `fast.convolution.convolve`.

    The product (P, C) @ (C, K K Co) gives what each pixel contributes to each of the K x K outputs
    whose windows contain it. The output is the sum of these K x K pictures, each shifted to its
    place. Cost for each pixel: K K C Co multiplications, K K Co additions.
    """
    N, Ho, Wo, Co = out.shape
    C, K = padded.array.shape[3], filters.kernel_size
    Wp = Wo + K - 1

    def strip(n, y0, y1):
        pixels = padded.array[n, y0 : y1 + K - 1, :Wp]
        count, rows, _, _ = pixels.shape
        product = scratch("product", (count, rows, K * K * Co, Wp), out.dtype)
        # (K K Co, C) @ (n, rows, C, Wp): a row for each position and channel, which the additions
        # below read as a whole
        np.matmul(filters.matrices.T, pixels.transpose(0, 1, 3, 2), out=product)
        parts = product.reshape(count, rows, K, K, Co, Wp)
        sums = scratch("sums", (count, y1 - y0, Co, Wo), out.dtype)
        sums[...] = 0 if bias is None else bias[:, None]
        for i, j in np.ndindex(K, K):
            sums += parts[:, i : i + y1 - y0, i, j, :, j : j + Wo]
        np.copyto(out[n, y0:y1], sums.transpose(0, 1, 3, 2))  # (n, h, Co, Wo) -> (n, h, Wo, Co)

    run_strips(strip, strips_of_bytes(N, Ho, Wp * max(C, K * K * Co) * out.itemsize))

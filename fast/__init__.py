"""How the same sums get fast: what the layers compute, reordered for a processor's caches.

Read in this order: `strips` (threads share strips of rows), `padded` (pictures in a border of
zeros), the kernels `im2col`, `kn2row` and `winograd`, `convolution` (which kernel when), `fused`
(kernel 4: a whole network strip by strip), `losses`. Three habits make most of the speed:

- *Matrix products*, the operation a computer does fastest, instead of loops.
- *Channels last.* Callers see arrays (N, C, H, W). In memory the C values of a pixel are
  neighbours, so copies and matrix products read long runs.
- *Strips.* A picture is cut into strips that fit in a core's cache. One thread takes a strip
  through all stages before it takes the next. What follows a convolution pixel by pixel (ReLU,
  pooling, a mask) is its `epilogue(n, y, x, block)`, called for each block of output while it is in
  the cache; (y, x) is the block's first pixel in picture n.

Letters, in all modules: N pictures, C channels in, H x W pixels, K the side of a kernel, Co
channels out, Ho x Wo output pixels, s stride, p padding; also P pixels of a strip, T tiles.
"""

"""How the same sums get fast: what the layers compute, reordered for a processor's caches.

A convolution has a short formula and many multiplications. The algorithms here compute the same
sums as the raw loops of `layers2.py`, as matrix products, the operation a computer does fastest.
Read the modules in this order:

==============  ================================================================================
strips          threads share strips of rows; scratch buffers; a threaded matrix product
padded          channels-last pictures in a border of zeros
im2col          kernel 1: each window becomes a row; suits any kernel, stride and channels
kn2row          kernel 2: one 1x1 product for each kernel position; suits very few channels out
winograd        kernel 3: a quarter of the multiplications; suits 3x3, stride 1, many channels
convolution     which kernel when
fused           kernel 4: a whole network strip by strip
losses          Gram matrices and the content loss, strip by strip
==============  ================================================================================

Three habits make the rest of the speed:

- *Channels last.* Every caller sees arrays of shape (N, C, H, W). In memory the C values of a
  pixel are neighbours, so copies and matrix products read long runs.
- *Strips.* A picture is cut into strips that fit in a core's cache. One thread takes a strip
  through all stages (transform, multiply, transform, store) before it takes the next.
- *Epilogue.* What follows a convolution pixel by pixel (ReLU, pooling, a mask) is a function
  `epilogue(n, y, x, block)`, called for each block of output while the block is in the cache;
  (y, x) is the place of the block's first pixel in picture n.

Letters, in all modules: N pictures, C channels in, H x W pixels, K the side of a kernel, Co
channels out, Ho x Wo output pixels, s stride, p padding; here also P pixels of a strip, T tiles.
"""

"""The walk through a convolutional network, fused strip by strip.

Walking layer by layer, every ReLU and every pooling layer reads and writes whole pictures, and
memory, not arithmetic, sets the pace. Here a convolution's strip is rectified and pooled while it
is still in cache; backwards, the strip of a gradient is masked and handed to its pixels before it
is stored. The numbers are those of the layers, only the order of the work differs.

Kept for the way back are one byte a value (whether the ReLU let it through, or which of its window
the pool took) and the features that somebody asked for. Buffers are kept from step to step.
"""

import numpy as np

from fast import convolution as conv_kernels
from fast.strips import run_strips, scratch, strips_of_rows

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a 2x2 window, in the order in which ties are broken
DEAD = 4  # winner of a window whose maximum the ReLU had cut off: no pixel gets a gradient


class _Stage:
    """A convolution with its ReLU and, it may be, its pool; and what backward needs of them."""

    def __init__(self, conv):
        self.conv = conv
        self.relu_name = None
        self.pool_name = None
        # set by forward
        self.shape = None  # of the convolution's output, (N, H, W, K)
        self.pools = False  # whether the walk went on to the pool
        self.mask = None
        self.winner = None


class FusedNetwork:
    """A frozen chain of convolutions (3x3, padding 1), each with its ReLU, some with a pool.

    Parameters
    ----------
    layers : dict of str to layer
        In order: convolutional layers (frozen, see `ConvolutionalLayer.freeze`), each followed by
        a ReLU layer and perhaps a pooling layer (2x2, stride 2). Their names begin with conv, relu
        and pool.
    pooling : {'max', 'average'}, default='max'
        What the pooling layers do.
    """

    def __init__(self, layers, pooling="max"):
        self.pooling = pooling
        self.stages = []
        for name, layer in layers.items():
            if name.startswith("conv"):
                self.stages.append(_Stage(layer))
            elif name.startswith("relu"):
                self.stages[-1].relu_name = name
            else:
                self.stages[-1].pool_name = name
        self._memory = {}
        # set by forward
        self._used = []  # the stages that the walk passed
        self._features = {}  # what was asked for, (N, h, w, C)
        self._image_shape = None

    def forward(self, image, wanted, keep=True):
        """Walk to the deepest layer wanted.

        Parameters
        ----------
        image : ndarray of shape (N, 3, H, W)
        wanted : collection of str
            Names of ReLU or pooling layers, at least one.
        keep : bool, default=True
            Whether `backward` will follow.

        Returns
        -------
        dict of str to ndarray of shape (N, C, h, w)
            The features wanted. They live in buffers that the next `forward` overwrites.

        Raises
        ------
        ValueError
            If a name is none of the network's ReLU or pooling layers.
        """
        names = {name for stage in self.stages for name in (stage.relu_name, stage.pool_name)}
        if not wanted or not set(wanted) <= names:
            raise ValueError(f"expected names of ReLU or pooling layers, got {sorted(wanted)}")
        self._image_shape = image.shape
        self._features = {}
        self._used = []
        padded = conv_kernels.pad(image, 1)
        N, _, H, W = image.shape
        missing = set(wanted)
        for number, stage in enumerate(self.stages):
            K = stage.conv.channel_out
            stage.shape = (N, H, W, K)
            missing.discard(stage.relu_name)
            stage.pools = bool(missing) and stage.pool_name is not None
            missing.discard(stage.pool_name)
            self._used.append(stage)
            # Features that somebody wants have a place of their own; the others take turns.
            turn = f"forward {number % 2}"
            out = pooled = None
            if not stage.pools or stage.relu_name in wanted:
                place = stage.relu_name if stage.relu_name in wanted else turn
                out, self._features[stage.relu_name] = self._buffer(place, stage.shape, image.dtype)
            next_padded = out
            if stage.pools:
                H, W = H // 2, W // 2
                place = stage.pool_name if stage.pool_name in wanted else turn
                next_padded, pooled = self._buffer(place, (N, H, W, K), image.dtype)
                self._features[stage.pool_name] = pooled
            self._keep(number, stage, keep, out is not None, image.dtype)
            self._convolve(number, padded, stage, out, self._rectify_and_pool(stage, pooled))
            padded = next_padded
            if not missing:
                break
        self._features = {name: self._features[name] for name in wanted}
        # (N, h, w, C) -> (N, C, h, w)
        return {name: array.transpose(0, 3, 1, 2) for name, array in self._features.items()}

    def backward(self, gradients, gram_gradients=None):
        """Walk back once, picking up each loss's gradient where its layer is passed.

        Parameters
        ----------
        gradients : dict of str to ndarray of shape (N, C, h, w)
            Derivatives of the loss by features that the last `forward` returned.
        gram_gradients : dict of str to ndarray of shape (N, C, C), optional
            The same for losses on the Gram matrices of features F: the matrices S with which the
            derivative is F S (`StyleLossLayer.gram_gradient`). Multiplied strip by strip, F S is
            never stored.

        Returns
        -------
        ndarray of shape (N, 3, H, W)
            Derivative of the loss by the image. The next `backward` overwrites it.
        """
        gram_gradients = gram_gradients or {}
        for name in (*gradients, *gram_gradients):
            if name not in self._features:
                raise ValueError(f"{name} is not among the layers wanted: {sorted(self._features)}")
        # (N, C, h, w) -> (N, h, w, C)
        gradients = {name: array.transpose(0, 2, 3, 1) for name, array in gradients.items()}
        last = len(self._used) - 1
        dtype = self._features[next(iter(self._features))].dtype
        padded, finish = self._target(last, dtype, gradients, gram_gradients)
        N, H, W, K = self._used[last].shape
        if self._used[last].pools:
            H, W = H // 2, W // 2
        inside = padded[:, 1 : 1 + H, 1 : 1 + W]

        def start(n, y0, y1):  # above the last stage there is nothing: only its losses' gradients
            if self._used[last].pools:
                block = np.zeros((y1 - y0, W, K), dtype)
            else:
                block = inside[n, y0:y1]
                block[...] = 0
            finish(n, y0, 0, block)

        run_strips(start, strips_of_rows(N, H, 16))
        for number in range(last, 0, -1):
            stage, below = self._used[number], self._used[number - 1]
            filters = stage.conv.prepared("winograd", dtype, turned=True)
            shape = (*stage.shape[:3], stage.conv.channel_in)
            out, finish = self._target(number - 1, dtype, gradients, gram_gradients)
            self._winograd(padded, filters, None, None if below.pools else out, shape, finish)
            padded = out
        filters = self._used[0].conv.prepared("kn2row", dtype, turned=True)
        N, C, H, W = self._image_shape
        image_gradient = self._array("image", (N, H, W, C), dtype)
        conv_kernels.kn2row(padded, filters, None, 3, image_gradient)
        return image_gradient.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def _keep(self, number, stage, keep, full, dtype):
        """Make room for what `backward` needs of a stage."""
        N, H, W, K = stage.shape
        stage.mask = stage.winner = None
        if keep and (full or self.pooling == "average"):
            stage.mask = self._array(f"mask {number}", stage.shape, np.bool_)
        if keep and stage.pools and self.pooling == "max":
            stage.winner = self._array(f"winner {number}", (N, H // 2, W // 2, K), np.uint8)

    def _convolve(self, number, padded, stage, out, finish):
        """Run a stage's convolution into `out`, or into the cache only where that is None."""
        conv, dtype = stage.conv, padded.dtype
        bias = conv.bias.astype(dtype, copy=False)
        if number == 0 and not stage.pools:  # the picture's three channels are few for Winograd
            _, H, W, _ = stage.shape
            filters = conv.prepared("im2col", dtype)
            conv_kernels.im2col(padded, filters, bias, 3, 1, out[:, 1 : 1 + H, 1 : 1 + W], finish)
        else:
            filters = conv.prepared("winograd", dtype)
            self._winograd(padded, filters, bias, out, stage.shape, finish)

    @staticmethod
    def _winograd(padded, filters, bias, out, shape, finish):
        N, H, W, K = shape
        rows, columns = conv_kernels.whole_tiles(H), conv_kernels.whole_tiles(W)

        def crop(n, y, x, block):
            h, w = min(len(block), H - y), min(block.shape[1], W - x)
            finish(n, y, x, block[:h, :w])
            # Tiles may hang over the picture; what they wrote there is the next layer's padding.
            block[h:] = 0
            block[:, w:] = 0

        tiles = None if out is None else out[:, 1 : 1 + rows, 1 : 1 + columns]
        conv_kernels.winograd(padded, filters, bias, (N, rows, columns, K), tiles, crop)

    def _rectify_and_pool(self, stage, pooled):
        """Return the `finish` that rectifies a block of sums and pools it into `pooled`."""
        mask, winner = stage.mask, stage.winner
        zeros = np.zeros(stage.shape[2:], stage.conv.weight.dtype)

        def finish(n, y, x, block):
            h, w, _ = block.shape
            corners = [block[i : h // 2 * 2 : 2, j : w // 2 * 2 : 2] for i, j in CORNERS]
            if mask is not None:
                np.greater_equal(block, 0, out=mask[n, y : y + h, x : x + w])
            if winner is not None:
                first_passes = corners[0] >= 0
            # An array of zeros, not the number 0: NumPy's maximum is three times as fast with it.
            np.maximum(block, zeros[:w], out=block)
            if pooled is None:
                return
            a, b, c, d = corners
            where = np.s_[n, y // 2 : (y + h) // 2, x // 2 : (x + w) // 2]
            if self.pooling == "average":
                total = np.add(a, b, out=pooled[where])
                total += c
                total += d
                total *= 0.25
                return
            upper, lower = np.maximum(a, b), np.maximum(c, d)
            largest = np.maximum(upper, lower, out=pooled[where])
            if winner is not None:
                # Corners count row by row, and the first of equals wins. In bytes, where true is 1:
                # 2 or 3 if the lower row is larger, else 0 or 1, and DEAD if all four were cut off.
                index = (d > c).view(np.uint8)
                index += 2
                index *= (lower > upper).view(np.uint8)
                np.maximum(index, (b > a).view(np.uint8), out=index)
                dead = ~(first_passes | (largest > 0))
                np.maximum(index, dead.view(np.uint8) * np.uint8(DEAD), out=winner[where])

        return finish

    def _target(self, number, dtype, gradients, gram_gradients):
        """Return where the gradient by a stage's sums goes, and the `finish` that puts it there.

        `finish` is given blocks of the gradient by the stage's output, as far as the layers above
        come into it. It adds what losses on this very output contribute; pool and ReLU then say
        which of the sums it belongs to.
        """
        stage = self._used[number]
        padded, target = self._buffer(f"backward {number % 2}", stage.shape, dtype)
        mask, winner = stage.mask, stage.winner
        add_at_relu = self._adder(stage.relu_name, gradients, gram_gradients)
        add_at_pool = self._adder(stage.pool_name, gradients, gram_gradients)

        def mask_only(n, y, x, block):
            h, w, _ = block.shape
            if add_at_relu:
                add_at_relu(n, y, x, block)
            block *= mask[n, y : y + h, x : x + w]

        def unpool(n, y, x, block):
            h, w, _ = block.shape
            if add_at_pool:
                add_at_pool(n, y, x, block)
            _, H, W, _ = stage.shape
            # An odd last row or column of the sums is in no window, but has a place here.
            bottom = H if 2 * (y + h) == H - 1 else 2 * (y + h)
            right = W if 2 * (x + w) == W - 1 else 2 * (x + w)
            part = np.s_[n, 2 * y : bottom, 2 * x : right]
            sums = target[part]
            sums[2 * h :] = 0
            sums[:, 2 * w :] = 0
            if self.pooling == "average":
                block *= 0.25
                for i, j in CORNERS:
                    sums[i : 2 * h : 2, j : 2 * w : 2] = block
                sums *= mask[part]
            else:
                won = winner[n, y : y + h, x : x + w]
                for corner, (i, j) in enumerate(CORNERS):
                    np.multiply(block, won == corner, out=sums[i : 2 * h : 2, j : 2 * w : 2])
            if add_at_relu:
                extra = np.zeros(sums.shape, dtype)
                add_at_relu(n, 2 * y, 2 * x, extra)
                extra *= mask[part]
                sums += extra

        return padded, unpool if stage.pools else mask_only

    def _adder(self, name, gradients, gram_gradients):
        """Return the function that adds the losses' gradient at a layer to a block, or None."""
        gradient, matrices = gradients.get(name), gram_gradients.get(name)
        if gradient is None and matrices is None:
            return None

        def add(n, y, x, block):
            h, w, K = block.shape
            part = np.s_[n, y : y + h, x : x + w]
            if gradient is not None:
                block += gradient[part]
            if matrices is not None:
                rows = scratch("features", (h, w, K), block.dtype)
                np.copyto(rows, self._features[name][part])
                product = scratch("product", (h * w, K), block.dtype)
                np.matmul(rows.reshape(h * w, K), matrices[n], out=product)
                block += product.reshape(h, w, K)

        return add

    def _array(self, place, shape, dtype):
        """Return the kept array `place`, made anew when shape or dtype change."""
        array = self._memory.get(place)
        if array is None or array.shape != shape or array.dtype != dtype:
            array = self._memory[place] = np.empty(shape, dtype)
        return array

    def _buffer(self, place, shape, dtype):
        """Return a padded buffer in the memory kept as `place`, and the view of its inside."""
        N, H, W, C = shape
        size = N * (H + 5) * (W + 5) * C
        memory = self._memory.get(place)
        if memory is None or memory.size < size or memory.dtype != dtype:
            memory = self._memory[place] = np.empty(size, dtype)
        return conv_kernels.padded_buffer(shape, 1, dtype, memory)

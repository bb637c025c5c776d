"""Kernel 4: forward and backward pass of a whole network, the same as layer by layer, faster.

Layer by layer, every ReLU and every pooling layer reads and writes whole pictures, and memory, not
arithmetic, limits the speed. Here the epilogue of a convolution applies ReLU and pooling to each
block while it is in the cache; in the backward pass it applies their gradients.

For the backward pass, one byte a value is kept (whether the value passed the ReLU, or the argmax of
its window), and the features that were asked for. Buffers are kept from step to step, and the
backward pass uses those of the forward pass: the gradient at a layer replaces its features.
"""

from dataclasses import dataclass
from math import ceil, gcd, prod

import numpy as np

from fast import im2col, kn2row, winograd
from fast.convolution import choose_tile
from fast.padded import bordered, pad, padded_shape
from fast.strips import empty, run_strips, scratch, strips_of_rows
from support.checks import check_pictures, check_shape

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a 2x2 window, in the order in which ties are broken
DEAD = 4  # argmax of a window whose maximum the ReLU had set to 0: no pixel gets a gradient

FOLLOWS = {  # kind of layer: the kinds that it can follow
    "convolution": ("image", "relu", "max pooling", "average pooling"),
    "relu": ("convolution",),
    "max pooling": ("relu",),
    "average pooling": ("relu",),
}
FORMS = {  # kind of layer: the only form computed here
    "convolution": {"kernel_size": 3, "padding": 1, "stride": 1, "frozen": True},
    "max pooling": {"kernel_size": 2, "stride": 2},
    "average pooling": {"kernel_size": 2, "stride": 2},
}


@dataclass
class _Stage:
    """A convolution, its ReLU and, if there is one, its pool; and what backward needs of them."""

    conv: object
    relu_name: str = None
    pool_name: str = None
    averages: bool = False  # the pool, instead of taking the maximum
    # set by forward
    shape: tuple = None  # of the convolution's output, (N, H, W, Co)
    pools: bool = False  # whether the forward pass reached the pool
    mask: np.ndarray = None
    argmax: np.ndarray = None

    @property
    def output_shape(self):
        N, H, W, Co = self.shape
        return (N, H // 2, W // 2, Co) if self.pools else self.shape


def _stages(layers):
    """Return the layers as stages; ValueError if one is not of the form needed."""
    stages, before = [], "image"
    for name, layer in layers.items():
        kind = getattr(layer, "kind", type(layer).__name__)
        if before not in FOLLOWS.get(kind, ()):
            raise ValueError(
                f"layer {name}: {kind} cannot follow {before}; expected convolution, relu and, "
                "optionally, max pooling or average pooling, in this order"
            )
        form = dict(FORMS.get(kind, {}))
        if kind == "convolution" and stages:
            form["channel_in"] = stages[-1].conv.channel_out
        for attribute, value in form.items():
            if getattr(layer, attribute) != value:
                raise ValueError(
                    f"layer {name}: expected {attribute} {value}, got {getattr(layer, attribute)}"
                )
        if kind == "convolution":
            stages.append(_Stage(layer))
        elif kind == "relu":
            stages[-1].relu_name = name
        else:
            stages[-1].pool_name, stages[-1].averages = name, kind == "average pooling"
        before = kind
    if before in ("image", "convolution"):
        raise ValueError(f"expected a ReLU or pooling layer at the end, got {before}")
    return stages


class FusedNetwork:
    """A chain of frozen 3x3 convolutions, each with its ReLU, some with a 2x2 pool.

    Parameters
    ----------
    layers : dict of str to layer
        In order; see `FOLLOWS` and `FORMS`. Anything else is refused by a ValueError that names it.
    """

    def __init__(self, layers):
        self.stages = _stages(layers)
        self._memory = {}
        # set by forward
        self._used = []  # the stages that the forward pass reached
        self._features = {}  # what was asked for, (N, h, w, C), and
        self._corners = {}  # (y, x) of it in the layer's output
        self._image_shape = None
        self._kept = False

    def reach(self, wanted):
        """Return what a part of the image needs around it, so that its features are exact.

        Parameters
        ----------
        wanted : collection of str
            As for `forward`.

        Returns
        -------
        grid : int
            The pools that are passed divide the image into squares of so many pixels. Only a part
            whose edges lie on this grid has whole pooling windows.
        margin : int
            The receptive radius, rounded up to the grid: features of the part depend on so many
            pixels on each side, and so many pixels get a gradient from them.
        """
        grid, radius = 1, 0
        for _, pools in self._path(wanted):
            radius += grid  # a 3x3 convolution reads one more position on each side
            grid *= 2 if pools else 1
        return grid, ceil(radius / grid) * grid

    def _path(self, wanted):
        """Return [(stage, whether its pool is passed)] up to the deepest layer wanted."""
        names = {name for stage in self.stages for name in (stage.relu_name, stage.pool_name)}
        if not wanted or not set(wanted) <= names - {None}:
            raise ValueError(f"expected names of ReLU or pooling layers, got {sorted(wanted)}")
        path, missing = [], set(wanted)
        for stage in self.stages:
            missing.discard(stage.relu_name)
            path.append((stage, bool(missing) and stage.pool_name is not None))
            missing.discard(stage.pool_name)
            if not missing:
                return path

    def forward(self, image, wanted, keep=True, part=None):
        """Compute the features up to the deepest layer wanted.

        Parameters
        ----------
        image : ndarray of shape (N, C, H, W)
        wanted : collection of str
            Names of ReLU or pooling layers, at least one.
        keep : bool, default=True
            Whether `backward` will follow.
        part : (slice, slice), optional
            Rows and columns of the image, with edges on the grid of `reach` or the image's own:
            only the features there are returned, and `backward` takes their gradient.

        Returns
        -------
        dict of str to ndarray of shape (N, C, h, w)
            The features wanted. They are in buffers that `backward` and the next `forward`
            overwrite.
        """
        path = self._path(wanted)
        image = check_pictures("image", image, self.stages[0].conv.channel_in)
        self._image_shape, self._kept = image.shape, False
        self._features, self._used = {}, [stage for stage, _ in path]
        padded = pad(image, 1)
        N, _, H, W = image.shape
        rows, columns = part or (slice(0, H), slice(0, W))
        grid = 1

        def found(name, output):
            y, x = self._corners[name] = rows.start // grid, columns.start // grid
            self._features[name] = output.inside[:, y : rows.stop // grid, x : columns.stop // grid]

        for number, (stage, pools) in enumerate(path):
            stage.shape, stage.pools = (N, H, W, stage.conv.channel_out), pools
            if pools and min(H, W) < 2:
                raise ValueError(f"the image is too small: layer {stage.pool_name} gets {H}x{W}")
            # Features that are wanted have their own buffers; the other stages alternate.
            turn = f"{number % 2}"
            out = pooled = None
            if not pools or stage.relu_name in wanted:
                place = stage.relu_name if stage.relu_name in wanted else turn
                output = out = self._buffer(place, stage.shape, image.dtype)
                found(stage.relu_name, out)
            if pools:
                grid *= 2
                place = stage.pool_name if stage.pool_name in wanted else turn
                output = self._buffer(place, stage.output_shape, image.dtype)
                found(stage.pool_name, output)
                pooled = output.inside
            stage.mask = stage.argmax = None  # what backward needs of this stage
            if keep and (out is not None or stage.averages):
                stage.mask = self._array(f"mask {number}", stage.shape, np.bool_)
            if keep and pools and not stage.averages:
                stage.argmax = self._array(f"argmax {number}", stage.output_shape, np.uint8)
            self._convolve(number, padded, stage, out, self._rectify_and_pool(stage, pooled))
            padded = output
            _, H, W, _ = stage.output_shape
        self._features = {name: self._features[name] for name in wanted}
        self._kept = keep
        # (N, h, w, C) -> (N, C, h, w)
        return {name: array.transpose(0, 3, 1, 2) for name, array in self._features.items()}

    def backward(self, gradients, gram_gradients=None):
        """Return the gradient with respect to the image; the next `backward` overwrites it.

        It overwrites the features. Another `backward` needs another `forward`.

        Parameters
        ----------
        gradients : dict of str to ndarray of shape (N, C, h, w)
            Gradient of the loss with respect to features that the last `forward` returned.
        gram_gradients : dict of str to ndarray of shape (N, C, C), optional
            The same for losses on the Gram matrices of features X: the matrices S for which that
            gradient is S X (see `fast.losses.style_loss`). S X is never stored.
        """
        if not self._kept:
            raise RuntimeError("backward needs a forward pass with keep=True first")
        gram_gradients = gram_gradients or {}
        for name in (*gradients, *gram_gradients):
            if name not in self._features:
                raise ValueError(f"{name} is not among the layers wanted: {sorted(self._features)}")
        for name, array in gradients.items():
            N, h, w, C = self._features[name].shape
            check_shape(f"the gradient at {name}", array, (N, C, h, w))
        self._kept = False
        # (N, C, h, w) -> (N, h, w, C)
        gradients = {name: array.transpose(0, 2, 3, 1) for name, array in gradients.items()}
        last = len(self._used) - 1
        dtype = next(iter(self._features.values())).dtype
        padded, epilogue = self._target(last, dtype, gradients, gram_gradients)
        N, H, W, Co = self._used[last].output_shape

        def start(n, y0, y1):  # after the last stage there is nothing, only the losses' gradients
            epilogue(n, y0, 0, np.zeros((y1 - y0, W, Co), dtype))

        run_strips(start, strips_of_rows(N, H, 16))
        for number in range(last, 0, -1):
            target, epilogue = self._target(number - 1, dtype, gradients, gram_gradients)
            self._winograd(padded, self._used[number].conv, None, epilogue, flipped=True)
            padded = target
        filters = self._used[0].conv.prepared(padded, "kn2row", flipped=True)
        N, C, H, W = self._image_shape
        image_gradient = self._array("image", (N, H, W, C), dtype)
        kn2row.convolve(padded, filters, None, image_gradient)
        return image_gradient.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def _convolve(self, number, padded, stage, out, epilogue):
        """Run a stage's convolution into `out`, or only into the cache if that is None."""
        if number == 0 and not stage.pools:  # the picture has too few channels for Winograd
            bias = stage.conv.bias.astype(padded.array.dtype, copy=False)
            filters = stage.conv.prepared(padded, "im2col")
            im2col.convolve(padded, filters, bias, out.inside, epilogue)
        else:
            self._winograd(padded, stage.conv, out, epilogue)

    @staticmethod
    def _winograd(padded, conv, out, epilogue, flipped=False):
        """Run Winograd; the epilogue sees only the pixels inside the picture.

        With `flipped`, for the data gradient.
        """
        H, W = padded.output_size(3)
        filters = conv.prepared(padded, choose_tile((len(padded.array), H, W)), flipped)
        bias = None if flipped else conv.bias.astype(padded.array.dtype, copy=False)

        def crop(n, y, x, block):
            h, w = min(len(block), H - y), min(block.shape[1], W - x)
            epilogue(n, y, x, block[:h, :w])
            # Tiles may extend beyond the picture; those values are the next layer's padding.
            block[h:] = 0
            block[:, w:] = 0

        winograd.convolve(padded, filters, bias, None if out is None else out.tiles, crop)

    def _rectify_and_pool(self, stage, pooled):
        """Return the epilogue that applies ReLU to a block and pools it into `pooled`."""
        mask, argmax = stage.mask, stage.argmax
        takes_maximum = pooled is not None and not stage.averages
        rectifies = not takes_maximum or stage.relu_name in self._features
        # An array of zeros, not the number 0: NumPy's maximum is three times as fast with it.
        zeros = np.zeros(stage.shape[2:], stage.conv.weight.dtype)

        def epilogue(n, y, x, block):
            h, w, _ = block.shape
            h2, w2 = h // 2 * 2, w // 2 * 2
            a, b, c, d = (block[i:h2:2, j:w2:2] for i, j in CORNERS)
            where = np.s_[n, y // 2 : (y + h) // 2, x // 2 : (x + w) // 2]
            if mask is not None:
                np.greater_equal(block, 0, out=mask[n, y : y + h, x : x + w])
            if takes_maximum:  # before ReLU, which then has fewer values
                larger = np.maximum(block[0:h2:2], block[1:h2:2])
                largest = np.maximum(larger[:, 0:w2:2], larger[:, 1:w2:2], out=pooled[where])
                if argmax is not None:
                    # The first of equals is the argmax. In bytes, where true is 1:
                    not_a, not_b, not_c = ((e != largest).view(np.uint8) for e in (a, b, c))
                    index = not_a * (1 + not_b * (1 + not_c))
                    dead = (largest <= 0) & (a < 0)  # after ReLU, a is the first of four zeros
                    np.maximum(index, dead.view(np.uint8) * np.uint8(DEAD), out=argmax[where])
                np.maximum(largest, zeros[: w2 // 2], out=largest)
            if rectifies:
                np.maximum(block, zeros[:w], out=block)
            if pooled is not None and stage.averages:
                total = np.add(a, b, out=pooled[where])
                total += c
                total += d
                total *= 0.25

        return epilogue

    def _target(self, number, dtype, gradients, gram_gradients):
        """Return where the gradient at a stage's convolution goes, and the epilogue that writes it.

        The epilogue gets blocks of the gradient with respect to the stage's output. It adds the
        gradient of losses on this output, and applies the gradients of pool and ReLU. Where the
        features are wanted, the gradient replaces them, after the losses have read them.
        """
        stage = self._used[number]
        wanted = stage.relu_name in self._features
        padded = self._buffer(stage.relu_name if wanted else f"{number % 2}", stage.shape, dtype)
        target = padded.inside
        mask, argmax = stage.mask, stage.argmax
        add_at_relu = self._adder(stage.relu_name, gradients, gram_gradients)
        add_at_pool = self._adder(stage.pool_name, gradients, gram_gradients)

        def mask_only(n, y, x, block):
            h, w, _ = block.shape
            if add_at_relu:
                add_at_relu(n, y, x, block)
            part = np.s_[n, y : y + h, x : x + w]
            np.multiply(block, mask[part], out=target[part])

        def unpool(n, y, x, block):
            h, w, _ = block.shape
            _, H, W, _ = stage.shape
            if add_at_pool:
                add_at_pool(n, y, x, block)
            # An odd last row or column is in no window, but has a place here.
            bottom = H if 2 * (y + h) == H - 1 else 2 * (y + h)
            right = W if 2 * (x + w) == W - 1 else 2 * (x + w)
            part = np.s_[n, 2 * y : bottom, 2 * x : right]
            sums = target[part]
            if add_at_relu:
                extra = np.zeros(sums.shape, dtype)
                add_at_relu(n, 2 * y, 2 * x, extra)
                extra *= mask[part]
            sums[2 * h :] = 0
            sums[:, 2 * w :] = 0
            if stage.averages:
                block *= 0.25
                for i, j in CORNERS:
                    sums[i : 2 * h : 2, j : 2 * w : 2] = block
                sums *= mask[part]
            else:
                here = argmax[n, y : y + h, x : x + w]
                for i in 0, 1:  # the upper, then the lower row of the windows
                    won = here[:, :, None] == np.array([[2 * i], [2 * i + 1]], np.uint8)
                    row = sums[i : 2 * h : 2, : 2 * w].reshape(h, w, 2, -1)  # a view
                    np.multiply(block[:, :, None], won, out=row)
            if add_at_relu:
                sums += extra

        return padded, unpool if stage.pools else mask_only

    def _adder(self, name, gradients, gram_gradients):
        """Return the function that adds the losses' gradient at a layer to a block, or None."""
        gradient, matrices = gradients.get(name), gram_gradients.get(name)
        if gradient is None and matrices is None:
            return None
        features, (y0, x0) = self._features[name], self._corners[name]
        N, H, W, C = features.shape
        if matrices is not None:  # in blocks of columns: OpenBLAS does not repack small products
            size = gcd(C, 32)
            blocks = matrices.reshape(N, C, C // size, size)
            blocks = blocks.transpose(0, 2, 1, 3).copy()  # -> (N, C/size, C, size)

        def add(n, y, x, block):
            # only where block and features overlap
            top, left = max(0, y - y0), max(0, x - x0)
            bottom, right = min(H, y - y0 + block.shape[0]), min(W, x - x0 + block.shape[1])
            if top >= bottom or left >= right:
                return
            part = np.s_[n, top:bottom, left:right]
            block = block[top + y0 - y : bottom + y0 - y, left + x0 - x : right + x0 - x]
            h, w, C = block.shape
            if gradient is not None:
                block += gradient[part]
            if matrices is not None:
                product = scratch("product", (h, w, C // size, size), block.dtype)
                # (h, 1, w, C) @ (C/size, C, size) -> (h, C/size, w, size)
                np.matmul(features[part][:, None], blocks[n], out=product.transpose(0, 2, 1, 3))
                block += product.reshape(h, w, C)

        return add

    def _array(self, place, shape, dtype):
        """Return an array in the memory kept as `place`, which grows when it is too small."""
        size, memory = prod(shape), self._memory.get(place)
        if memory is None or memory.size < size or memory.dtype != dtype:
            memory = self._memory[place] = empty(size, dtype)
        return memory[:size].reshape(shape)

    def _buffer(self, place, shape, dtype):
        """Return such an array as `Padded`, with padding 1."""
        return bordered(self._array(place, padded_shape(shape, 1), dtype), 1)

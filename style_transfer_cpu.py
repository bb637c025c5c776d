"""Repaint a picture in the style of another (course book, experiment 3-3).

VGG-19 looks at three pictures: one for its content, one for its style, and the one being made. Deep
features of the made picture shall be those of the content picture, and the Gram matrices of its
features, at five depths, those of the style picture. Both wishes are losses; their gradient is
carried back through the network to the pixels, and an optimiser moves these, step by step. The
network itself never changes.

    load the pictures -> targets: content features, style Gram matrices
    repeat: forward -> losses -> backward -> move the pixels
    save the picture

Paper: L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks",
CVPR 2016. Options: python style_transfer_cpu.py --help
"""

import sys
from pathlib import Path

import numpy as np
import scipy.optimize

import vgg_cpu
from fast.fused import FusedNetwork
from fast.strips import set_threads
from layers2 import AveragePoolingLayer
from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer, gram
from style.checkpoint import (
    check_filters,
    check_place,
    options_to_keep,
    read_pictures,
    settle,
)
from style.colours import keep_chroma, match_colours
from style.journal import Journal
from style.learnt_filters import learn_filters, random_filters
from style.plan import check_memory
from style.settings import command_line
from support.command import InputError, Stopped, StopRequest, exit_status
from support.matconvnet import FILE_NAME
from support.pictures import (
    cover_picture,
    fitted,
    read_picture,
    resize_picture,
    write_picture,
)

# The book's settings. Its losses are those of `layers3.py` as they stand, its optimiser is Adam.
CONTENT_LOSS_LAYERS = ["relu4_2"]
STYLE_LOSS_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
NOISE = 0.5
ALPHA, BETA = 1, 500
TRAIN_STEP = 100
LEARNING_RATE = 1.0
IMAGE_HEIGHT, IMAGE_WIDTH = 192, 320

# The command's settings. Its losses are relative (see `Objective`), so these weights mean the same
# for any size of picture and any weights of the network.
HERE = Path(__file__).resolve().parent
DEFAULTS = {
    "content": HERE / "picture" / "content.jpg",
    "style": [HERE / "picture" / "style.jpg"],
    "style_blend": None,
    "style_scale": 1.0,
    "background": "white",
    "output": Path("output/result.png"),
    "size": 400,
    "content_weight": 5.0,
    "style_weight": 40.0,
    "tv_weight": 1e-3,
    "content_layers": {"relu2_1": 1.0, "relu4_1": 1.0},  # contours and composition
    "style_layers": dict.fromkeys(STYLE_LOSS_LAYERS, 1.0),
    "pooling": "max",
    "preserve_color": None,
    "init": "content",
    "noise": NOISE,
    "seed": 0,
    "steps": 120,
    "scales": None,
    "optimizer": "lbfgs",
    "learning_rate": LEARNING_RATE,
    "weights": None,
    "threads": None,
    "save_every": None,
    "animation": None,
    "contact_sheet": None,
    "plot": None,
    "report": [],
    "checkpoint": None,
    "checkpoint_every": 20,
    "resume": None,
}
COARSEST = 96  # pixels: longest side of the size to begin with, at least


class VGG19(vgg_cpu.VGG19):
    """VGG-19 up to pool5: 37 layers that turn a picture into features and a gradient into pixels.

    `build_model`, `init_model` and `load_model` are those of `vgg_cpu.VGG19`.

    Parameters
    ----------
    param_path : str or Path, default='imagenet-vgg-verydeep-19.mat'
        The weights file that `load_model` reads.

    Attributes
    ----------
    param_layer_name : tuple of str
        The 37 layers from 'conv1_1' to 'pool5', in order.
    """

    def __init__(self, param_path=FILE_NAME):
        super().__init__(param_path)
        names = self.param_layer_name
        self.param_layer_name = names[: names.index("pool5") + 1]

    def use_average_pooling(self):
        """Let the pooling layers average, which the paper found to flow better (section 2)."""
        for name in self.param_layer_name:
            if name.startswith("pool"):
                self.layers[name] = AveragePoolingLayer(2, 2)

    def load_image(self, image_dir, image_height=IMAGE_HEIGHT, image_width=IMAGE_WIDTH):
        """Read a picture for the network.

        Parameters
        ----------
        image_dir : str or Path
        image_height, image_width : int
            Size to bring it to, in pixels.

        Returns
        -------
        image : ndarray of shape (1, 3, image_height, image_width)
            float32, RGB from 0 to 255 less the mean colour.
        original_shape : tuple
            (height, width, 3) of the picture in the file.
        """
        picture = read_picture(image_dir)
        return self.prepare(resize_picture(picture, image_height, image_width)), picture.shape

    def prepare(self, picture):
        """Return uint8 RGB pixels (H, W, 3) as the network's input (1, 3, H, W)."""
        centred = picture.astype(np.float32) - self.image_mean
        return centred.transpose(2, 0, 1)[np.newaxis]  # (H, W, C) -> (C, H, W) -> (1, C, H, W)

    def picture(self, image):
        """Return a network input (1, 3, H, W) as uint8 RGB pixels (H, W, 3)."""
        pixels = image[0].transpose(1, 2, 0) + self.image_mean  # (C, H, W) -> (H, W, C)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def save_image(self, image, original_shape, image_dir):
        """Write a network input to a picture file, brought to the height and width given.

        Parameters
        ----------
        image : ndarray of shape (1, 3, H, W)
        original_shape : tuple
            (height, width) or (height, width, 3).
        image_dir : str or Path
            The extension chooses the format.
        """
        picture = self.picture(image)
        if picture.shape[:2] != tuple(original_shape[:2]):
            picture = resize_picture(picture, *original_shape[:2])
        write_picture(image_dir, picture)

    def forward(self, image, layer_list):
        """Walk through the network, layer by layer, as far as the deepest layer asked for.

        Parameters
        ----------
        image : ndarray of shape (N, 3, H, W)
        layer_list : collection of str

        Returns
        -------
        dict of str to ndarray of shape (N, C, h, w)
            The outputs of the layers in `layer_list`.
        """
        deepest = max(self.param_layer_name.index(name) for name in layer_list)
        outputs = {}
        current = image
        for name in self.param_layer_name[: deepest + 1]:
            current = self.layers[name].forward(current)
            if name in layer_list:
                outputs[name] = current
        return outputs

    def backward(self, dloss, layer_name):
        """Carry a gradient from the output of a layer back to the image, layer by layer.

        With several losses, one such walk each would do. But gradients add up: `FusedNetwork`,
        which the command uses, walks back once from the deepest layer and adds each loss's gradient
        as it passes, which gives the same sum for a fifth of the work.

        Parameters
        ----------
        dloss : ndarray
            Gradient of the loss by the output of the layer `layer_name`.
        layer_name : str

        Returns
        -------
        ndarray of shape (N, 3, H, W)
        """
        start = self.param_layer_name.index(layer_name)
        for name in reversed(self.param_layer_name[: start + 1]):
            dloss = self.layers[name].backward(dloss)
        return dloss


def get_random_img(content_image, noise, rng=None):
    """Mix white noise into the content picture: where the optimisation starts.

    Parameters
    ----------
    content_image : ndarray of shape (N, 3, H, W)
    noise : float
        From 0, the content picture, to 1, noise alone: uniform from -20 to 20 around the mean.
    rng : None, int or numpy.random.Generator, default=None

    Returns
    -------
    ndarray of shape (N, 3, H, W)
        Of the dtype and memory layout of `content_image`.
    """
    random = np.empty_like(content_image)
    random[...] = np.random.default_rng(rng).uniform(-20, 20, content_image.shape)
    return noise * random + (1 - noise) * content_image


def mean_square(array):
    """Return the mean of the squares, or a tiny number where all are 0: it is divided by."""
    return max(float(np.mean(np.square(array), dtype=np.float64)), 1e-30)


def total_variation(image):
    """Return how much neighbouring pixels differ, and the gradient of that.

        TV = 1/(N C H W) * sum of  (x[h + 1, w] - x[h, w])^2 + (x[h, w + 1] - x[h, w])^2

    A little of it takes the grain out of a picture and leaves the strokes.

    Parameters
    ----------
    image : ndarray of shape (N, C, H, W)

    Returns
    -------
    loss : float
    gradient : ndarray of shape (N, C, H, W)
        Each difference belongs to two pixels: with + to the second, with - to the first.
    """
    down, right = np.diff(image, axis=2), np.diff(image, axis=3)
    gradient = np.zeros_like(image)
    gradient[:, :, 1:] += down
    gradient[:, :, :-1] -= down
    gradient[:, :, :, 1:] += right
    gradient[:, :, :, :-1] -= right
    gradient *= 2 / image.size
    loss = sum(float(np.sum(np.square(step), dtype=np.float64)) for step in (down, right))
    return loss / image.size, gradient


class Objective:
    """The loss that the made picture shall minimise, and its gradient, in one walk there and back.

        L = content_weight * mean over content layers of  sum (X - Y)^2 / sum Y^2
          + style_weight   * mean over style layers of    sum (G - A)^2 / sum A^2
          + tv_weight      * total_variation

    The first two are the book's losses (`layers3.py`), each divided by its value for features that
    are all 0: 1 means that nothing is right yet, 0.01 that 1 % of the squared features are wrong,
    at any size and with any weights of the network. The means are weighted by the layers' weights.

    Of several styles, A is the mean: the losses by each of them, weighted and added up, differ from
    the loss by the mean only by a constant.

    Parameters
    ----------
    network : FusedNetwork
    content_image : ndarray of shape (1, 3, H, W)
    style_images : sequence of ndarray of shape (1, 3, h, w)
        Of any sizes.
    content_weight, style_weight, tv_weight : float
    content_layers, style_layers : dict of str to float
        Names of layers and how much each counts beside the others.
    style_blend : sequence of float, optional
        How much each style counts beside the others; equally by default.
    """

    def __init__(
        self,
        network,
        content_image,
        style_images,
        content_weight=DEFAULTS["content_weight"],
        style_weight=DEFAULTS["style_weight"],
        tv_weight=DEFAULTS["tv_weight"],
        content_layers=DEFAULTS["content_layers"],
        style_layers=DEFAULTS["style_layers"],
        style_blend=None,
    ):
        content_layers = content_layers if content_weight else {}
        style_layers = style_layers if style_weight else {}
        blend = style_blend or [1] * len(style_images)
        self.network = network
        self.tv_weight = tv_weight
        self.wanted = list({**content_layers, **style_layers})
        self.style_losses = {name: StyleLossLayer() for name in style_layers}
        self.style_scales = {}
        grams = dict.fromkeys(style_layers, 0)  # A per position, of each layer
        for image, share in zip(style_images, blend, strict=True):
            if style_layers and share:
                for name, features in network.forward(image, style_layers, keep=False).items():
                    positions = features.shape[2] * features.shape[3]
                    grams[name] = grams[name] + share / sum(blend) / positions * gram(features)
        for name, weight in style_layers.items():
            self.style_losses[name].set_gram(grams[name])
            share = weight / sum(style_layers.values())
            self.style_scales[name] = 4 * style_weight * share / mean_square(grams[name])
        self.content_loss = ContentLossLayer()
        self.content = {}
        self.content_scales = {}
        if content_layers:
            targets = network.forward(content_image, content_layers, keep=False)
            for name, features in targets.items():
                share = content_layers[name] / sum(content_layers.values())
                self.content[name] = features.copy(order="K")  # the network reuses its buffers
                self.content_scales[name] = 2 * content_weight * share / mean_square(features)

    def __call__(self, image):
        """Return the losses of a picture (1, 3, H, W) and their gradient by its pixels.

        Returns
        -------
        losses : dict of str to float
            'content', 'style' and 'tv', weighted; the loss is their sum.
        gradient : ndarray of shape (1, 3, H, W)

        Raises
        ------
        FloatingPointError
            If a loss or the gradient is no longer finite.
        """
        features = self.network.forward(image, self.wanted)
        losses = {"content": 0.0, "style": 0.0, "tv": 0.0}
        gradients, gram_gradients = {}, {}
        for name, scale in self.content_scales.items():
            target = self.content[name]
            losses["content"] += scale * self.content_loss.forward(features[name], target)
            gradients[name] = self.content_loss.backward(features[name], target)
            gradients[name] *= scale
        for name, scale in self.style_scales.items():
            loss = self.style_losses[name]
            losses["style"] += scale * loss.forward(features[name])
            gram_gradients[name] = scale * loss.gram_gradient()
        gradient = self.network.backward(gradients, gram_gradients)
        if self.tv_weight:
            variation, variation_gradient = total_variation(image)
            losses["tv"] = self.tv_weight * variation
            gradient += self.tv_weight * variation_gradient
        if not np.isfinite(sum(losses.values())) or not np.isfinite(gradient).all():
            raise FloatingPointError(", ".join(f"{k} {v:.3g}" for k, v in losses.items()))
        return losses, gradient


def adam(objective, image, steps, bounds, journal, learning_rate=LEARNING_RATE):
    """Minimise by the Adam of `layers3.py`; the step length falls to 0 along a cosine.

    A constant one leaves every pixel jittering by about that many levels, which the eye sees as a
    grey haze.

    Parameters
    ----------
    objective : Objective
    image : ndarray of shape (1, 3, H, W)
        Where to start.
    steps : int
        To be done at this size.
    bounds : tuple of ndarray of shape (1, 3, 1, 1)
        The least and largest value of a pixel in each channel.
    journal : Journal
        Told of each step. Its state says how many of the steps are done already, and with what
        m and v.
    learning_rate : float
        Longest step of a pixel, in levels of 0 to 255.

    Returns
    -------
    ndarray of shape (1, 3, H, W)
    """
    optimizer = AdamOptimizer(learning_rate, image.shape)
    optimizer.step = journal.state.step
    if optimizer.step:
        optimizer.mt, optimizer.vt = journal.state.memory["m"], journal.state.memory["v"]
    for step in range(optimizer.step, steps):
        losses, gradient = objective(image)
        optimizer.lr = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        image = np.clip(optimizer.update(image, gradient), *bounds)
        journal.step(image, losses, {"m": optimizer.mt, "v": optimizer.vt})
    return image


def lbfgs(objective, image, steps, bounds, journal, segment):
    """Minimise by SciPy's L-BFGS-B, the optimiser of the original paper; interface of `adam`.

    From the last ten steps it estimates the curvature of the loss, and so finds good step lengths
    by itself. A step that is too long is tried again, so that some steps take two evaluations.

    What it has learnt of the curvature stays inside SciPy. So that a run can be taken up again, it
    begins anew every `segment` steps, interrupted or not: from there on, all that counts is the
    picture.

    The very first step is always 1 long, over all pixels together. SciPy is therefore given the
    pixels in units of the square root of their number: 1 then is one level a pixel, not nothing.
    """
    unit = np.sqrt(image.size)
    layout = image.transpose(0, 2, 3, 1).shape  # the pixels in the order they have in memory
    latest = {}

    def pack(image):
        # (N, 3, H, W) -> (N, H, W, 3), flat, and double precision, which SciPy wants
        return image.transpose(0, 2, 3, 1).astype(np.float64).ravel()

    def unpack(x):
        # (N, H, W, 3) -> (N, 3, H, W)
        return (unit * x).reshape(layout).astype(image.dtype).transpose(0, 3, 1, 2)

    def evaluate(x):
        losses, gradient = objective(unpack(x))
        latest.update(losses)
        return sum(losses.values()), unit * pack(gradient)  # chain rule: pixels = unit * x

    low, high = (np.broadcast_to(bound.reshape(3) / unit, layout).ravel() for bound in bounds)
    done = journal.state.step
    while done < steps:
        count = min(segment, steps - done)
        limits = {"maxiter": count, "maxfun": 3 * count + 20, "ftol": 0, "gtol": 0}
        result = scipy.optimize.minimize(
            evaluate,
            pack(image) / unit,
            method="L-BFGS-B",
            jac=True,
            bounds=scipy.optimize.Bounds(low, high),
            callback=lambda x: journal.step(unpack(x), dict(latest)),
            options={**limits, "maxcor": 10},
        )
        if result.nit == 0:  # as far down as it goes
            break
        done += result.nit
        image = unpack(result.x)
        journal.border(image, {})
    return image


def used_layers(options):
    """Return the names of the layers whose losses count."""
    content = options.content_layers if options.content_weight else {}
    style = options.style_layers if options.style_weight else {}
    return list({**content, **style})


def make_network(options, vgg, images, rng):
    """Give the layers of `vgg` their filters; return those needed as a network for `Objective`.

    Parameters
    ----------
    options : argparse.Namespace
        The command's. Where `weights` is neither 'kmeans' nor 'random', the filters are there.
    vgg : VGG19
    images : list of ndarray of shape (1, 3, H, W)
        What k-means learns from.
    rng : numpy.random.Generator
    """
    deepest = max(map(vgg.param_layer_name.index, used_layers(options)))
    layers = {name: vgg.layers[name] for name in vgg.param_layer_name[: deepest + 1]}
    if options.weights == "kmeans":
        learn_filters(layers, images, rng)
    elif options.weights == "random":
        random_filters(layers, images, rng)
    return FusedNetwork(layers)


def coarse_to_fine(size, scales):
    """Return the longest sides to work at, each half of the next, the last being `size`.

    Where `scales` is None, the first is the smallest that is not below `COARSEST`.
    """
    if scales is None:
        scales = 1 + max(0, int(np.log2(size / COARSEST)))
    return [round(size / 2 ** (scales - 1 - i)) for i in range(scales)]


def least_side(options):
    """Return the pixels a side that a picture must have.

    Two positions in the deepest layer used are the least whose statistics can be compared; and
    filters need patches to be learnt from.
    """
    names = VGG19().param_layer_name
    deepest = max(map(names.index, used_layers(options)))
    pools = sum(name.startswith("pool") for name in names[: deepest + 1])
    return max(12 if options.weights in ("kmeans", "random") else 8, 2 * 2**pools)


def plan_sizes(content_picture, style_pictures, options, scales):
    """Decide on the sizes to work at.

    Parameters
    ----------
    content_picture : ndarray of shape (H, W, 3)
    style_pictures : list of ndarray of shape (h, w, 3)
    options : argparse.Namespace
        The command's options.
    scales : int or None
        How many, see `coarse_to_fine`; fewer if the coarsest would be too small for the layers.

    Returns
    -------
    list of dict
        From coarse to fine: 'height', 'width' and 'style_sizes', a list of (height, width).

    Raises
    ------
    InputError
        If a picture would be too small for the layers at any size.
    """
    least = least_side(options)
    size = min(options.size, max(content_picture.shape[:2]))  # enlarging would show nothing new
    sizes = []
    for side in coarse_to_fine(size, scales)[::-1]:
        height, width = fitted(content_picture, side)
        style_sizes = [fitted(style, side * options.style_scale) for style in style_pictures]
        if min([height, width, *np.ravel(style_sizes)]) < least:
            break
        sizes.insert(0, {"height": height, "width": width, "style_sizes": style_sizes})
    if not sizes:
        shown = ", ".join(f"{w}x{h}" for h, w in style_sizes)
        raise InputError(
            f"with these layers every picture needs at least {least} pixels a side, but at "
            f"--size {options.size} the content is {width}x{height} and the style {shown}"
        )
    return sizes


def share_steps(sizes, steps):
    """Return the sizes (of `plan_sizes`), each with an equal share of the steps as 'steps'.

    With too few steps for one at each size, the coarsest are left out.
    """
    sizes = sizes[-steps:]
    borders = np.linspace(0, steps, len(sizes) + 1).round().astype(int)
    shares = zip(sizes, np.diff(borders).tolist(), strict=True)
    return [{**size, "steps": count} for size, count in shares]


def starting_image(image, options, rng):
    """Return where to start: `image` (1, 3, H, W), with the noise that --init asks for.

    On plain areas all of a pool's window ties, and a gradient then need not lead down. A tenth of a
    level of noise breaks the ties, and is lost when the picture is rounded.
    """
    image = get_random_img(image, {"noise": 1, "mix": options.noise}.get(options.init, 0), rng)
    return image + rng.uniform(-0.1, 0.1, image.shape).astype(image.dtype)


def enlarged(image, height, width):
    """Return a network input (1, 3, h, w) resized to (1, 3, height, width)."""
    pixels = np.ascontiguousarray(image[0].transpose(1, 2, 0))  # (C, h, w) -> (h, w, C)
    pixels = resize_picture(pixels, height, width)
    return pixels.transpose(2, 0, 1)[np.newaxis]  # (H, W, C) -> (1, C, H, W)


def repaint(vgg, content_picture, style_pictures, start_picture, options, scales, journal):
    """Paint the content picture in the style of the others, from coarse to fine.

    Large strokes and the composition are settled where they are a few pixels wide, which is quick;
    each size starts from the enlarged result of the last, and adds what only it can show.

    Parameters
    ----------
    vgg : VGG19
        Of `load_network`.
    content_picture : ndarray of shape (H, W, 3)
        uint8, RGB.
    style_pictures : list of ndarray of shape (h, w, 3)
    start_picture : ndarray of shape (H, W, 3) or None
        What --init names, if that is a file.
    options : argparse.Namespace
        The command's options.
    scales : list of dict
        Of `share_steps`.
    journal : Journal
        Told of each step. Its state says where to begin.

    Returns
    -------
    ndarray of shape (1, 3, H, W)
    """
    mean = vgg.image_mean.reshape(1, 3, 1, 1)
    bounds = (-mean, 255 - mean)
    rng = np.random.default_rng(options.seed)

    def images(scale):
        content = resize_picture(content_picture, scale["height"], scale["width"])
        styles = [resize_picture(style, *size)
                  for style, size in zip(style_pictures, scale["style_sizes"], strict=True)]
        return vgg.prepare(content), [vgg.prepare(style) for style in styles]

    # Filters learnt at one small size serve all of them.
    small = plan_sizes(content_picture, style_pictures, options, scales=None)
    content_image, style_images = images(small[0])
    network = make_network(options, vgg, [content_image, *style_images], rng)
    check_filters(options, journal.state, vgg.image_mean, network)
    image = journal.state.image
    for number in range(journal.state.scale, len(scales)):
        scale = scales[number]
        content_image, style_images = images(scale)
        if image is None:
            first = content_image
            if start_picture is not None:
                covered = cover_picture(start_picture, scale["height"], scale["width"])
                first = vgg.prepare(covered)
            image = np.clip(starting_image(first, options, rng), *bounds)
        elif image.shape != content_image.shape:
            image = enlarged(image, scale["height"], scale["width"])
        objective = Objective(
            network, content_image, style_images,
            options.content_weight, options.style_weight, options.tv_weight,
            options.content_layers, options.style_layers, options.style_blend,
        )  # fmt: skip
        journal.begin_scale(number, image)
        if options.optimizer == "adam":
            image = adam(
                objective, image, scale["steps"], bounds, journal, options.learning_rate
            )
        else:
            image = lbfgs(
                objective, image, scale["steps"], bounds, journal, options.checkpoint_every
            )
    return image


def load_network(options):
    """Return a VGG19 with its layers, and with its parameters if those come from a file."""
    if options.weights is None:
        options.weights = FILE_NAME if Path(FILE_NAME).exists() else "kmeans"
    vgg = VGG19(options.weights)
    if options.weights in ("kmeans", "random"):
        vgg.build_model()
        name = {"kmeans": "filters learnt from the pictures by k-means, in seconds",
                "random": "random filters"}[options.weights]
        print(f"weights: {name}; for ImageNet's: python vgg_cpu.py --download")
    else:
        vgg.load_model()
        print(f"weights: {options.weights}")
    if options.pooling == "average":
        vgg.use_average_pooling()
    return vgg


def announce(content_picture, scales, vgg, options):
    """Print the sizes to come; raise `InputError` if they take more memory than there is."""
    height, width = scales[-1]["height"], scales[-1]["width"]
    notes = [f"size: {width}x{height}"]
    if max(content_picture.shape[:2]) < options.size:
        notes.append(f"as {options.content} is no larger")
    if len(scales) > 1:
        way = " and ".join(f"{scale['width']}x{scale['height']}" for scale in scales[:-1])
        notes.append(f"by way of {way}")
    print(", ".join(notes))
    largest = max(h * w for h, w in [(height, width), *scales[-1]["style_sizes"]])
    channels = vgg.layers["conv1_1"].channel_out
    check_memory(max(height, width), largest, channels, options.optimizer)


def run(argv):
    """Do what the command line asks for; return the exit status."""
    layer_names = [name for name in VGG19().param_layer_name if not name.startswith("conv")]
    options, state = settle(argv, DEFAULTS, layer_names)
    set_threads(options.threads)
    content_picture, style_pictures, start_picture = read_pictures(options, state)
    vgg = load_network(options)
    state.options = options_to_keep(options)
    sizes = plan_sizes(content_picture, style_pictures, options, options.scales)
    scales = share_steps(sizes, options.steps)
    check_place(options, state, scales)
    announce(content_picture, scales, vgg, options)
    styles = style_pictures
    if options.preserve_color == "match":
        styles = [match_colours(style, content_picture) for style in style_pictures]
    height, width = scales[-1]["height"], scales[-1]["width"]
    colours = resize_picture(content_picture, height, width)

    def finished(image):
        picture = vgg.picture(image)
        if picture.shape[:2] != (height, width):
            picture = resize_picture(picture, height, width)
        return keep_chroma(picture, colours) if options.preserve_color == "luminance" else picture

    with StopRequest() as stop:
        journal = Journal(state, scales, finished, stop, options)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # `Objective` looks at the losses
                image = repaint(
                    vgg, content_picture, styles, start_picture, options, scales, journal
                )
            result = finished(image)
            write_picture(options.output, result)
            stop.check()
        except (Stopped, FloatingPointError, MemoryError) as error:
            return journal.end_early(error)
        finally:
            journal.close()
    journal.end(result, content_picture, style_pictures, command_line(options, DEFAULTS))
    return 0


def main(argv=None):
    """Run the command; return its exit status.

    0, 2 for unusable input, 130 or 143 after Ctrl-C or SIGTERM.
    """
    return exit_status("style_transfer_cpu.py", run, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    raise SystemExit(main())

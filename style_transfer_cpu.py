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

import argparse
import time
from pathlib import Path

import numpy as np
import scipy.optimize
from tqdm import tqdm

import vgg_cpu
from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer
from support.errors import InputError
from support.files import check_output, library_versions, peak_memory_bytes, write_json
from support.fused import FusedNetwork
from support.learnt_filters import learn_filters, random_filters
from support.matconvnet import FILE_NAME
from support.options import bounded, exit_status
from support.pictures import check_picture_path, read_picture, resize_picture, write_picture
from support.threads import get_threads, set_threads

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
CONTENT_LAYERS = ["relu2_1", "relu4_1"]  # contours and composition
STYLE_LAYERS = STYLE_LOSS_LAYERS
CONTENT_WEIGHT = 3.0
STYLE_WEIGHT = 40.0
TV_WEIGHT = 1e-3
SIZE = 400
STEPS = 120
COARSEST = 96  # pixels: longest side of the size to begin with, at least
LEAST_SIDE = 32  # pixels: relu5_1 is 16 times smaller, and two positions are the least to compare

HERE = Path(__file__).resolve().parent
CONTENT_PICTURE = HERE / "picture" / "content.jpg"
STYLE_PICTURE = HERE / "picture" / "style.jpg"


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
    at any size and with any weights of the network.

    Parameters
    ----------
    network : FusedNetwork
    content_image, style_image : ndarray of shape (1, 3, H, W)
        The two may differ in size.
    content_weight, style_weight, tv_weight : float
    content_layers, style_layers : sequence of str
    """

    def __init__(
        self,
        network,
        content_image,
        style_image,
        content_weight=CONTENT_WEIGHT,
        style_weight=STYLE_WEIGHT,
        tv_weight=TV_WEIGHT,
        content_layers=CONTENT_LAYERS,
        style_layers=STYLE_LAYERS,
    ):
        self.network = network
        self.tv_weight = tv_weight
        self.wanted = list(dict.fromkeys([*content_layers, *style_layers]))
        self.style_losses = {}
        self.style_scales = {}
        for name, features in network.forward(style_image, style_layers, keep=False).items():
            loss = StyleLossLayer()
            loss.set_style(features)
            power = mean_square(loss.style_per_position)
            self.style_losses[name] = loss
            self.style_scales[name] = 4 * style_weight / len(style_layers) / power
        self.content_loss = ContentLossLayer()
        self.content = {}
        self.content_scales = {}
        for name, features in network.forward(content_image, content_layers, keep=False).items():
            power = mean_square(features)
            self.content[name] = features.copy(order="K")  # the network reuses its buffers
            self.content_scales[name] = 2 * content_weight / len(content_layers) / power

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
            If a loss is no longer a finite number.
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
        if not np.isfinite(sum(losses.values())):
            raise FloatingPointError(", ".join(f"{k} {v:.3g}" for k, v in losses.items()))
        return losses, gradient


def adam(objective, image, steps, learning_rate, bounds, on_step):
    """Minimise by the Adam of `layers3.py`; the step length falls to 0 along a cosine.

    A constant one leaves every pixel jittering by about that many levels, which the eye sees as a
    grey haze.

    Parameters
    ----------
    objective : Objective
    image : ndarray of shape (1, 3, H, W)
        Where to start.
    steps : int
    learning_rate : float
        Longest step of a pixel, in levels of 0 to 255.
    bounds : tuple of ndarray of shape (1, 3, 1, 1)
        The least and largest value of a pixel in each channel.
    on_step : callable
        Called after each step with an image and its losses.

    Returns
    -------
    ndarray of shape (1, 3, H, W)
    """
    optimizer = AdamOptimizer(learning_rate, image.shape)
    for step in range(steps):
        losses, gradient = objective(image)
        on_step(image, losses)
        optimizer.lr = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
        image = np.clip(optimizer.update(image, gradient), *bounds)
    return image


def lbfgs(objective, image, steps, bounds, on_step):
    """Minimise by SciPy's L-BFGS-B, the optimiser of the original paper; interface of `adam`.

    From the last ten steps it estimates the curvature of the loss, and so finds good step lengths
    by itself. A step that is too long is tried again, so that some steps take two evaluations.

    The very first step is always 1 long, over all pixels together. SciPy is therefore given the
    pixels in units of the square root of their number: 1 then is one level a pixel, not nothing.
    """
    unit = np.sqrt(image.size)
    layout = image.transpose(0, 2, 3, 1).shape  # the pixels in the order they have in memory
    latest = {}

    def unpack(x):
        # (N, H, W, 3) -> (N, 3, H, W)
        return (unit * x).reshape(layout).astype(image.dtype).transpose(0, 3, 1, 2)

    def evaluate(x):
        losses, gradient = objective(unpack(x))
        latest.update(losses)
        # (N, 3, H, W) -> (N, H, W, 3), and double precision, which SciPy wants
        flat = gradient.transpose(0, 2, 3, 1).astype(np.float64).ravel()
        return sum(losses.values()), unit * flat  # chain rule: x = unit * (what SciPy moves)

    low, high = (np.broadcast_to(bound.reshape(3) / unit, layout).ravel() for bound in bounds)
    result = scipy.optimize.minimize(
        evaluate,
        # (N, 3, H, W) -> (N, H, W, 3)
        image.transpose(0, 2, 3, 1).astype(np.float64).ravel() / unit,
        method="L-BFGS-B",
        jac=True,
        bounds=scipy.optimize.Bounds(low, high),
        callback=lambda x: on_step(unpack(x), dict(latest)),
        options={"maxiter": steps, "maxfun": 3 * steps, "ftol": 0, "gtol": 0, "maxcor": 10},
    )
    return unpack(result.x)


def make_network(weights, vgg, content_image, style_image, rng):
    """Give the layers of `vgg` their filters; return them as a network for `Objective`.

    Parameters
    ----------
    weights : str
        'kmeans', 'random', or anything else for what `vgg.load_model` has read already.
    vgg : VGG19
    content_image, style_image : ndarray of shape (1, 3, H, W)
        What k-means learns from.
    rng : numpy.random.Generator
    """
    deepest = max(map(vgg.param_layer_name.index, CONTENT_LAYERS + STYLE_LAYERS))
    layers = {name: vgg.layers[name] for name in vgg.param_layer_name[: deepest + 1]}
    if weights == "kmeans":
        learn_filters(layers, [content_image, style_image], rng)
    elif weights == "random":
        random_filters(layers, [content_image, style_image], rng)
    return FusedNetwork(layers)


def fit(picture, size):
    """Return (height, width) of a picture whose longest side is brought down to `size` pixels.

    A smaller picture keeps its size: enlarging it adds pixels, but nothing to see.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, size / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def coarse_to_fine(size, scales):
    """Return the longest sides to work at, each half of the next, the last being `size`.

    Where `scales` is None, the first is the smallest that is not below `COARSEST`.
    """
    if scales is None:
        scales = 1 + max(0, int(np.log2(size / COARSEST)))
    return [round(size / 2 ** (scales - 1 - i)) for i in range(scales)]


def parse_arguments(argv):
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="style_transfer_cpu.py",
        description="Repaint a picture in the style of another. Without options, two pictures that "
        "come with the program are used.",
        epilog="examples:\n"
        "  python style_transfer_cpu.py\n"
        "  python style_transfer_cpu.py --content me.jpg --style painting.jpg --output me.png\n"
        "  python style_transfer_cpu.py --style-weight 10 --size 512      subtler and larger\n"
        "  python style_transfer_cpu.py --weights imagenet-vgg-verydeep-19.mat",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--content", type=Path, default=CONTENT_PICTURE, metavar="FILE",
                          help="what to paint (default: picture/content.jpg)")
    pictures.add_argument("--style", type=Path, default=STYLE_PICTURE, metavar="FILE",
                          help="how to paint it (default: picture/style.jpg)")
    pictures.add_argument("--output", type=Path, default=Path("output/result.png"), metavar="FILE",
                          help=".png, .jpg, .webp or .tif (default: %(default)s)")
    pictures.add_argument("--size", type=bounded(int, least=1), default=SIZE, metavar="PIXELS",
                          help="longest side of the result (default: %(default)s); a smaller "
                          "content picture keeps its size")
    look = parser.add_argument_group("look")
    look.add_argument("--content-weight", type=bounded(float, least=0), default=CONTENT_WEIGHT,
                      metavar="W", help="how much the content counts (default: %(default)s)")
    look.add_argument("--style-weight", type=bounded(float, least=0), default=STYLE_WEIGHT,
                      metavar="W", help="how much the style counts (default: %(default)s)")
    look.add_argument("--init", choices=("content", "noise", "mix"), default="content",
                      help="start from the content picture, from noise, or from a mixture "
                      "(default: %(default)s)")
    look.add_argument("--noise", type=bounded(float, least=0, most=1), default=NOISE,
                      metavar="SHARE", help="share of noise in --init mix (default: %(default)s)")
    look.add_argument("--seed", type=bounded(int, least=0), default=0, metavar="N",
                      help="of noise and filters; the same seed makes the same picture "
                      "(default: %(default)s)")
    look.add_argument("--tv-weight", type=bounded(float, least=0), default=TV_WEIGHT, metavar="W",
                      help="how much smoothness counts (default: %(default)s)")
    work = parser.add_argument_group("optimisation")
    work.add_argument("--steps", type=bounded(int, least=1), default=STEPS, metavar="N",
                      help="in all (default: %(default)s)")
    work.add_argument("--optimizer", choices=("lbfgs", "adam"), default="lbfgs",
                      help="(default: %(default)s)")
    work.add_argument("--learning-rate", type=bounded(float, above=0), default=LEARNING_RATE,
                      metavar="LEVELS",
                      help="longest step of --optimizer adam (default: %(default)s)")
    work.add_argument("--scales", type=bounded(int, least=1), default=None, metavar="N",
                      help="sizes to work at, from coarse to fine, each twice the last "
                      f"(default: as many as leave {COARSEST} pixels or more for the first)")
    work.add_argument("--weights", default=None, metavar="FILE|kmeans|random",
                      help=f"the network's filters (default: {FILE_NAME} if it is here, "
                      "else kmeans, learnt from the two pictures)")
    work.add_argument("--threads", type=bounded(int, least=1), default=None, metavar="N",
                      help="(default: one for each CPU)")
    output = parser.add_argument_group("more output")
    output.add_argument("--save-every", type=bounded(int, least=1), default=None, metavar="N",
                        help="also save the picture after every N steps")
    output.add_argument("--report", type=Path, default=None, metavar="FILE.json",
                        help="write losses, times, sizes, memory and versions there")
    arguments = parser.parse_args(argv)
    if arguments.content_weight == 0 and arguments.style_weight == 0:
        parser.error("--content-weight and --style-weight cannot both be 0")
    return arguments


class Progress:
    """Shows and records the steps; saves pictures on the way.

    The bar counts work, not steps: a step on half the width and height is a quarter of one.
    """

    def __init__(self, steps, sides, save, save_every):
        self.shares = [(side / sides[-1]) ** 2 for side in sides]  # work of a step at each size
        work = sum(share * count for share, count in zip(self.shares, steps, strict=True))
        self.steps = sum(steps)
        self.save = save
        self.save_every = save_every
        self.losses = []  # one dict a step
        self.scale = -1
        self.last = time.perf_counter()
        self.bar = tqdm(
            total=work, dynamic_ncols=True, smoothing=0,
            bar_format="{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip

    def next_scale(self):
        """Take note that the steps that follow are at the next size."""
        self.scale += 1
        self.last = time.perf_counter()

    def __call__(self, image, losses):
        """Take note of a step: an image and its losses."""
        now = time.perf_counter()
        self.losses.append({**losses, "seconds": round(now - self.last, 4)})
        self.last = now
        done = len(self.losses)
        shown = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        self.bar.set_postfix_str(f"step {done}/{self.steps}, {shown}", refresh=False)
        self.bar.update(self.shares[self.scale])
        if self.save_every and done % self.save_every == 0:
            self.save(image, done)


def repaint(vgg, weights, content_picture, style_picture, arguments, save):
    """Paint the content picture in the style of the other, from coarse to fine.

    Large strokes and the composition are settled where they are a few pixels wide, which is quick;
    each size starts from the enlarged result of the last, and adds what only it can show.

    Parameters
    ----------
    vgg : VGG19
        With layers, and unless `weights` is 'kmeans' or 'random', with parameters.
    weights : str
    content_picture, style_picture : ndarray of shape (H, W, 3)
        uint8, RGB.
    arguments : argparse.Namespace
        The command's options.
    save : callable
        Called as ``save(image, step)`` after every `arguments.save_every` steps.

    Returns
    -------
    image : ndarray of shape (1, 3, H, W)
    sides : list of int
        The longest sides it was made at.
    losses : list of dict
        The losses and seconds of each step.
    """
    mean = vgg.image_mean.reshape(1, 3, 1, 1)
    bounds = (-mean, 255 - mean)
    sides = coarse_to_fine(max(fit(content_picture, arguments.size)), arguments.scales)
    sides = [  # without those that would be too small
        side for side in sides
        if min(*fit(content_picture, side), *fit(style_picture, side)) >= LEAST_SIDE
    ]  # fmt: skip
    steps = np.diff(np.linspace(0, arguments.steps, len(sides) + 1).round().astype(int)).tolist()
    rng = np.random.default_rng(arguments.seed)
    image = network = progress = None
    try:
        for side, count in zip(sides, steps, strict=True):
            content_size = fit(content_picture, side)
            content_image = vgg.prepare(resize_picture(content_picture, *content_size))
            style_image = vgg.prepare(resize_picture(style_picture, *fit(style_picture, side)))
            if image is None:
                # Filters learnt at the coarsest size serve all of them.
                network = make_network(weights, vgg, content_image, style_image, rng)
                noise = {"content": 0, "noise": 1, "mix": arguments.noise}[arguments.init]
                image = np.clip(get_random_img(content_image, noise, rng), *bounds)
                progress = Progress(steps, sides, save, arguments.save_every)
            else:
                pixels = np.ascontiguousarray(image[0].transpose(1, 2, 0))  # (C, H, W) -> (H, W, C)
                pixels = resize_picture(pixels, *content_size)
                image = pixels.transpose(2, 0, 1)[np.newaxis]  # (H, W, C) -> (1, C, H, W)
            objective = Objective(
                network, content_image, style_image,
                arguments.content_weight, arguments.style_weight, arguments.tv_weight,
            )  # fmt: skip
            progress.next_scale()
            if arguments.optimizer == "adam":
                image = adam(objective, image, count, arguments.learning_rate, bounds, progress)
            else:
                image = lbfgs(objective, image, count, bounds, progress)
    except FloatingPointError as error:
        raise InputError(
            f"at step {len(progress.losses) + 1} the loss is no longer a finite number "
            f"({error}); try other --weights, or a smaller --style-weight or --learning-rate"
        ) from error
    finally:
        if progress:
            progress.bar.close()
    return image, sides, progress.losses


def run(arguments):
    """Do what the command line asks for."""
    start = time.perf_counter()
    check_picture_path(arguments.output)
    for path in filter(None, (arguments.output, arguments.report)):
        check_output(path)
    set_threads(arguments.threads)
    content_picture = read_picture(arguments.content)
    style_picture = read_picture(arguments.style)
    weights = arguments.weights or (FILE_NAME if Path(FILE_NAME).exists() else "kmeans")
    vgg = VGG19(weights)
    if weights in ("kmeans", "random"):
        vgg.build_model()
        name = {"kmeans": "filters learnt from the two pictures by k-means",
                "random": "random filters"}[weights]
        print(f"weights: {name}; for ImageNet's: python vgg_cpu.py --download")
    else:
        vgg.load_model()
        print(f"weights: {weights}")
    height, width = fit(content_picture, arguments.size)
    style_height, style_width = fit(style_picture, arguments.size)
    if min(height, width, style_height, style_width) < LEAST_SIDE:
        raise InputError(
            f"both pictures need at least {LEAST_SIDE} pixels a side, but at --size "
            f"{arguments.size} the content is {width}x{height} and the style "
            f"{style_width}x{style_height}"
        )
    smaller = max(height, width) < arguments.size
    print(f"size: {width}x{height}" + (f", as {arguments.content} is no larger" * smaller))

    def save(image, step=None):
        path = arguments.output
        if step is not None:
            path = path.with_name(f"{path.stem}_{step:04d}{path.suffix}")
        vgg.save_image(image, (height, width), path)

    with np.errstate(over="ignore", invalid="ignore"):  # `Objective` looks at the losses itself
        image, sides, losses = repaint(
            vgg, weights, content_picture, style_picture, arguments, save
        )
    save(image)
    seconds = time.perf_counter() - start
    print(f"{arguments.output}: {width}x{height} pixels in {seconds:.1f} s")
    if arguments.report:
        options = {name: str(value) if isinstance(value, Path) else value
                   for name, value in vars(arguments).items()}
        write_json(arguments.report, {
            "options": options,
            "weights": weights,
            "size": [height, width],
            "style_size": [style_height, style_width],
            "sides": sides,
            "steps": losses,
            "seconds": round(seconds, 3),
            "threads": get_threads(),
            "peak_memory_bytes": peak_memory_bytes(),
            "versions": library_versions("numpy", "scipy", "pillow"),
        })


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 when interrupted."""
    return exit_status("style_transfer_cpu.py", run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())

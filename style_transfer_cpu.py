"""Repaint a picture in the style of another (course book, experiment 3-3).

VGG-19 computes features of three pictures: content, style, and the one being generated. The
generated picture should have the deep features of the content picture and, in five layers, the Gram
matrices of the style picture. Each is a loss. Their gradient is propagated back to the pixels,
which an optimiser updates, step by step. The network itself never changes.

    load the pictures -> targets: content features, style Gram matrices
    repeat: forward -> losses -> backward -> update the pixels
    save the picture

`book_style_transfer` is the book's program. `stylize` is the same idea, faster, with relative
losses, from coarse to fine; the command calls it.

A *picture* is a uint8 array (H, W, 3), sRGB, as in a file. An *image* is a float array
(1, 3, H, W), RGB from 0 to 255 minus the mean colour, as the network takes it.

Paper: L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks",
CVPR 2016. Options: python style_transfer_cpu.py --help
"""

if __name__ == "__main__":  # the imports take seconds
    from support.start import quiet_start

    quiet_start()

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

import vgg_cpu
from fast.fused import FusedNetwork
from fast.strips import set_threads
from layers1 import random_generator
from layers2 import AveragePoolingLayer
from layers3 import AdamOptimizer, ContentLossLayer, StyleLossLayer
from style.checkpoint import (
    check_resumable,
    options_to_keep,
    read_options,
    rest_of_earlier_run,
    run_digests,
)
from style.colours import keep_chroma, match_colours, match_palette, smooth_change
from style.contents import for_each_content, paint_each
from style.journal import Journal, announce, write_reports
from style.learnt_filters import learn_filters, random_filters
from style.objective import Objective, wanted_layers
from style.optimizers import PAIRS, adam, lbfgs
from style.plan import COARSEST, Position, check_fit, plan_larger, plan_scales, plan_sizes
from style.settings import INITS, MADE_FILTERS, Settings
from style.weights import SHOWN, choose_weights, fetch_trained_filters
from support.command import Stopped, StopRequest, exit_status
from support.matconvnet import FILE_NAME
from support.pictures import (
    check_rgb,
    cover_picture,
    parse_colour,
    read_picture,
    resize_picture,
    write_picture,
)
from support.trained_filters import trained_filters
from support.weights import load_network

# The book's settings, for `book_style_transfer`.
CONTENT_LOSS_LAYERS = ["relu4_2"]
STYLE_LOSS_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
NOISE = 0.5
ALPHA, BETA = 1, 500
TRAIN_STEP = 100
LEARNING_RATE = 1.0
IMAGE_HEIGHT, IMAGE_WIDTH = 192, 320


# ---- the book's program -------------------------------------------------------------------------


class VGG19(vgg_cpu.VGG19):
    """VGG-19 up to pool5: 37 layers that turn an image into features and a gradient into pixels.

    `param_layer_name` has their names, from 'conv1_1' to 'pool5'. `param_path`, all other
    attributes, `build_model`, `init_model` and `load_model` are those of `vgg_cpu.VGG19`.
    """

    def __init__(self, param_path=FILE_NAME):
        super().__init__(param_path, "pool5")

    def use_average_pooling(self):
        """Replace the pooling layers by averages, which the paper prefers (section 2)."""
        self._check_built()
        for name in self.param_layer_name:
            if name.startswith("pool"):
                self.layers[name] = AveragePoolingLayer(2, 2)

    def load_image(self, image_dir, image_height=IMAGE_HEIGHT, image_width=IMAGE_WIDTH):
        """Read a picture file as network input, resized to `image_height` x `image_width`.

        Returns
        -------
        image : ndarray of shape (1, 3, image_height, image_width)
            float32, RGB from 0 to 255 minus the mean colour.
        original_shape : tuple
            (height, width, 3) of the picture in the file.
        """
        picture = read_picture(image_dir)
        return self.prepare(resize_picture(picture, image_height, image_width)), picture.shape

    def save_image(self, image, original_shape, image_dir):
        """Write an image (1, 3, H, W) to a picture file, resized to the original shape.

        That is (height, width) or (height, width, 3). The extension chooses the format.
        """
        write_picture(image_dir, resize_picture(self.picture(image), *original_shape[:2]))

    def forward(self, image, layer_list):
        """Return the outputs of the layers in `layer_list`, a dict of name to ndarray (N, C, h, w).

        The image is (N, 3, H, W). The forward pass ends at the deepest of the layers, or of the one
        layer; without any, at pool5. `backward` can start from every layer that it reached.
        """
        return self.features(image, [layer_list] if isinstance(layer_list, str) else layer_list)

    def backward(self, dloss, layer_name):
        """Return the gradient of a loss with respect to the image, of shape (N, 3, H, W).

        `dloss` is its gradient with respect to the output of the layer `layer_name`.
        """
        self._check_built()
        start = self._index(layer_name)
        for name in reversed(self.param_layer_name[: start + 1]):
            dloss = self.layers[name].backward(dloss)
        return dloss


class VGG16(VGG19):
    """The same with thirteen convolutions, the network of the trained filters."""

    blocks = vgg_cpu.VGG16.blocks


def get_random_img(content_image, noise, rng=None):
    """Mix white noise into the content image (N, 3, H, W): where the optimisation starts.

    `noise` goes from 0, the content image, to 1, only noise: uniform from -20 to 20 around the
    mean. The result has the dtype and memory layout of `content_image`.
    """
    random = np.empty_like(content_image)
    random[...] = random_generator(rng).uniform(-20, 20, content_image.shape)
    return noise * random + (1 - noise) * content_image


def book_losses(vgg, image, content, style):
    """Return the book's loss of an image and its gradient, with one backward pass for each layer.

        L = ALPHA * mean of the content losses + BETA * mean of the style losses

    `content` and `style` are the features of those images in `CONTENT_LOSS_LAYERS` and
    `STYLE_LOSS_LAYERS`, by name. `image` and the gradient are (1, 3, H, W).
    """
    features = vgg.forward(image, CONTENT_LOSS_LAYERS + STYLE_LOSS_LAYERS)
    loss, gradient = 0.0, np.zeros_like(image)
    for layer, weight, names, targets in (
        (ContentLossLayer(), ALPHA / len(CONTENT_LOSS_LAYERS), CONTENT_LOSS_LAYERS, content),
        (StyleLossLayer(), BETA / len(STYLE_LOSS_LAYERS), STYLE_LOSS_LAYERS, style),
    ):
        for name in names:
            loss += weight * layer.forward(features[name], targets[name])
            diff = layer.backward(features[name], targets[name])
            gradient += weight * vgg.backward(diff, name)
    return loss, gradient


def book_style_transfer(vgg, content_image, style_image, steps=TRAIN_STEP, rng=None):
    """Return the image that the book's experiment 3-3 generates, and the loss of each step.

    Six backward passes a step, one for each loss: slow, and nothing is hidden.

    `vgg` has its parameters; the images, (1, 3, H, W), are those of its `load_image`.
    """
    content = vgg.forward(content_image, CONTENT_LOSS_LAYERS)
    style = vgg.forward(style_image, STYLE_LOSS_LAYERS)
    image = get_random_img(content_image, NOISE, rng)
    adam = AdamOptimizer(LEARNING_RATE, image.shape)
    losses = []
    for _ in range(steps):
        loss, gradient = book_losses(vgg, image, content, style)
        image = adam.update(image, gradient)
        losses.append(loss)
    return image, losses


# ---- the same, faster, from coarse to fine ------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What `stylize` passes to `on_step`.

    Attributes
    ----------
    losses : dict of str to float
        'content', 'style' and 'tv', weighted. Empty in the first call, before any step.
    position : Position
        Where the run is. ``stylize(resume_from=position)`` continues from there.
    picture : callable
        Returns the picture so far, uint8 (H, W, 3), of the size of the result.
    """

    losses: dict
    position: Position
    picture: Callable


def stylize(
    content, styles, settings=Settings(), *, network=None, start=None, resume_from=None,
    on_step=None, rng=None, style_grams=None,
):  # fmt: skip
    """Return the content picture in the style of other pictures.

    Large strokes and the composition are found at a small size, where they are a few pixels wide
    and a step is quick. Each size starts from the enlarged result of the last.

    Parameters
    ----------
    content : ndarray of shape (H, W, 3)
        uint8, sRGB.
    styles : list of ndarray of shape (h, w, 3)
        uint8, sRGB; at least one, of any sizes.
    settings : Settings
    network : VGG19, optional
        With its filters; the default is that of `make_network`. Its own pooling layers count.
    start : ndarray of shape (h, w, 3), optional
        The picture to start from, uint8, in place of what `settings.init` says.
    resume_from : Position, optional
        Of an earlier run with the same pictures and settings: the result is then the same as
        without the interruption.
    on_step : callable, optional
        Called with a `Step` before the first step and after each; for progress and previews. An
        exception in it ends the run.
    rng : numpy.random.Generator, optional
        For the filters and the first image; the default starts from `settings.seed`.
    style_grams : dict, optional
        Pass the same dict, empty at first, to several calls that differ in the content alone, with
        one `network`: the styles' Gram matrices are then computed once for each size. All else
        depends on the content: the start, filters made from the pictures, recoloured styles.

    Returns
    -------
    ndarray of shape (height, width, 3)
        uint8, sRGB; the longest side is `settings.size`, or that of a smaller content picture.

    Raises
    ------
    InputError
        A ValueError: the pictures are too small, or do not fit the settings.
    FloatingPointError
        If the loss or its gradient is no longer finite.

    Examples
    --------
    ::

        result = stylize(content, [style], Settings(size=256))
    """
    if network is not None and settings.weights is None:
        settings = settings.complete(str(network.param_path))
    settings = choose_weights(settings)
    for picture in (content, *styles, *([] if start is None else [start])):
        check_rgb(picture, (np.uint8,))
    check_fit(settings, styles, start, (network or VGG19()).param_layer_name)
    scales = plan_scales(content, styles, settings)
    rng = np.random.default_rng(settings.seed) if rng is None else rng
    grams = style_grams
    if grams is None or network is None or settings.preserve_color == "match":
        grams = {}
    network = make_network(content, styles, settings, rng) if network is None else network
    fused = FusedNetwork(used_part(network, settings))
    styles = recoloured(styles, content, settings)
    bounds = -network.image_mean.reshape(1, 3, 1, 1), 255 - network.image_mean.reshape(1, 3, 1, 1)
    colours = resize_picture(content, scales[-1].height, scales[-1].width)

    def finished(image):
        picture = resize_picture(network.picture(image), *colours.shape[:2])
        return keep_chroma(picture, colours) if settings.preserve_color == "luminance" else picture

    def emit(position, losses):
        if on_step:
            losses = {name: factor * loss for name, loss in losses.items()}
            on_step(Step(losses, position, partial(finished, position.image)))

    optimise = partial(lbfgs, most=settings.pairs or PAIRS)
    if settings.optimizer == "adam":
        optimise = partial(adam, learning_rate=settings.learning_rate)
    even_settings, factor = settings.even_weights()
    position = resume_from
    with np.errstate(over="ignore", invalid="ignore"):  # `Objective` checks that all is finite
        for number in range(position.scale if position else 0, len(scales)):
            scale = scales[number]
            small, small_styles = scaled(content, styles, scale)
            if position is None:
                image = first_image(network, small, small_styles, start, settings, rng)
                image = np.clip(image, *bounds, order="C")
                position = Position(number, 0, image, {})
            elif position.scale < number:
                image = enlarged(position.image, scale.height, scale.width)
                position = Position(number, 0, image, {})
            key = str((scale.style_sizes, settings.tile))
            objective = Objective(  # the images need memory and are not kept
                fused, network.prepare(small),
                [network.prepare(style) for style in small_styles], even_settings,
                grams.get(key),
            )  # fmt: skip
            grams[key] = objective.grams
            if position is resume_from or number == 0:
                emit(position, {})
            image = optimise(objective, position, scale.steps, bounds, emit)
            position = Position(number, scale.steps, image, {})
    return finished(position.image)


def make_network(content, styles, settings=Settings(), rng=None, coarsest=COARSEST):
    """Return a VGG19 with the filters that `settings.weights` names.

    Filters that are made from the pictures are made at the smallest size, whose longest side has at
    least `coarsest` pixels, and serve all sizes. Other parameters are those of `stylize`.
    """
    settings = choose_weights(settings)
    if settings.weights in MADE_FILTERS:
        vgg = VGG19(settings.weights)
        vgg.build_model()
    else:
        path = trained_filters() if settings.weights == "trained" else settings.weights
        vgg = load_network(path, (VGG19, VGG16))
    if settings.pooling == "average":
        vgg.use_average_pooling()
    if settings.weights in MADE_FILTERS:
        make = {"kmeans": learn_filters, "random": random_filters}[settings.weights]
        smallest = plan_sizes(content, styles, settings, coarsest=coarsest)[0]
        styles = recoloured(styles, content, settings)
        content, styles = scaled(content, styles, smallest)
        rng = np.random.default_rng(settings.seed) if rng is None else rng
        images = [vgg.prepare(picture) for picture in (content, *styles)]
        make(used_part(vgg, settings), images, rng)
    return vgg


def used_part(vgg, settings):
    """Return the layers of a network up to the deepest whose loss counts, as a dict by name."""
    names = vgg.param_layer_name
    last = names.index(wanted_layers(settings)[-1])
    return {name: vgg.layers[name] for name in names[: last + 1]}


def recoloured(styles, content, settings):
    """Return the styles, in the content's colours if the settings say so."""
    if settings.preserve_color != "match":
        return styles
    return [match_colours(style, content) for style in styles]


def scaled(content, styles, scale):
    """Return the content picture and the style pictures at the size of a scale."""
    styles = [
        resize_picture(style, *size) for style, size in zip(styles, scale.style_sizes, strict=True)
    ]
    return resize_picture(content, scale.height, scale.width), styles


def first_image(vgg, content, styles, start, settings, rng):
    """Return the image to begin with, from pictures at the size of the first scale.

    In a uniform area all values of a pooling window are equal, and the gradient is then not always
    a descent direction. A tenth of a level of noise avoids that; rounding removes it in the end.
    """
    picture = content
    if start is not None:
        picture = cover_picture(start, *content.shape[:2])
    elif settings.init == "palette":
        shares = settings.style_blend or [1] * len(styles)
        picture = smooth_change(content, match_palette(content, styles, shares, rng))
    noise = {"noise": 1, "mix": settings.noise}.get(settings.init, 0)
    image = get_random_img(vgg.prepare(picture), noise, rng)
    return image + rng.uniform(-0.1, 0.1, image.shape).astype(image.dtype)


def enlarged(image, height, width):
    """Return an image (1, 3, h, w) resized to (1, 3, height, width)."""
    pixels = np.ascontiguousarray(image[0].transpose(1, 2, 0))  # (C, h, w) -> (h, w, C)
    pixels = resize_picture(pixels, height, width)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis])  # -> (1, C, H, W)


# ---- the command --------------------------------------------------------------------------------


def paint(files, settings, checkpoint, styles, start, shared_network, style_grams, stop, hook):
    """Paint the one content that `files` names, write what it asks for; return the exit status.

    `shared_network` returns the network, or is None if it is made from the pictures. `stop` is a
    `StopRequest`. The others are those of `stylize`, `run` and `read_options`.
    """
    start_time = time.perf_counter()
    content = read_picture(files.content[0], parse_colour(files.background))
    if checkpoint.earlier:
        checkpoint, settings = rest_of_earlier_run(checkpoint, settings, content)
    scales = plan_scales(content, styles, settings)
    rng = np.random.default_rng(settings.seed)
    if shared_network:
        network = shared_network()
    else:
        network = make_network(content, styles, settings, rng, checkpoint.coarsest)
    layers = used_part(network, settings)
    settings = announce(content, scales, layers, files, settings)
    digests = run_digests(content, styles, start, network.image_mean, layers)
    if files.resume:
        check_resumable(files.resume, checkpoint, digests, scales, settings.optimizer)
    checkpoint = replace(checkpoint, options=options_to_keep(files, settings), digests=digests)
    larger = plan_larger(content, styles, settings)
    with Journal(files, scales, checkpoint, larger) as journal:
        try:
            with stop.listening():

                def on_step(step):
                    with stop.held():
                        journal(step)
                        if hook:
                            hook(step)
                    if len(journal.losses) >= journal.steps - 1:
                        stop.finishing = "finishing the last step"

                result = stylize(
                    content, styles, settings, network=network, start=start,
                    resume_from=checkpoint.position, on_step=on_step, rng=rng,
                    style_grams=style_grams,
                )  # fmt: skip
                stop.finishing = "finishing"
                journal.finish(result)
        except Stopped:
            return journal.stopped(stop.number)
        except (FloatingPointError, MemoryError) as error:
            journal.failed(error)
    write_reports(journal, settings, content, styles, result, time.perf_counter() - start_time)
    return 0


def run(argv, hook=None):
    """Do what the command line asks for; return the exit status. `hook` sees each `Step`, too."""
    files, settings, checkpoint = read_options(argv)
    each = for_each_content(files, settings)
    if files.download:
        fetch_trained_filters()
    settings = choose_weights(settings)
    set_threads(files.threads)
    background = parse_colour(files.background)
    styles = [read_picture(path, background) for path in files.style]
    start = None if settings.init in INITS else read_picture(settings.init, background)
    check_fit(settings, styles, start, VGG19().param_layer_name)
    print(f"weights: {SHOWN.get(settings.weights, settings.weights)}")
    shared_network = None
    if settings.weights not in MADE_FILTERS:  # the same for all contents
        shared_network = cache(partial(make_network, None, styles, settings))
    stop = StopRequest()
    paint_one = partial(
        paint, settings=settings, checkpoint=checkpoint, styles=styles, start=start,
        shared_network=shared_network, style_grams={} if shared_network else None,
        stop=stop, hook=hook,
    )  # fmt: skip
    if each[0].content == files.content:
        return paint_one(each[0])
    if shared_network:
        shared_network()  # weights that cannot be used are not the fault of any content
    return paint_each(each, paint_one, stop)


def main(argv=None, on_step=None):
    """Run the command; return its exit status.

    0, 2 for unusable input, 130 or 143 after Ctrl-C or SIGTERM. `on_step` is that of `stylize`.
    """
    arguments = sys.argv[1:] if argv is None else argv
    return exit_status("style_transfer_cpu.py", partial(run, hook=on_step), arguments)


if __name__ == "__main__":
    raise SystemExit(main())

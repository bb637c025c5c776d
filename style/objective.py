"""The loss that style transfer minimises, and its gradient with respect to the image.

The losses are those of `layers3.py`, made relative so that their weights mean the same everywhere.
Gradients add up, so one backward pass collects the gradient of every loss at its layer, where the
book's program makes one backward pass for each.
"""

from collections import Counter

import numpy as np

from fast.losses import content_loss, gram, style_loss
from fast.strips import limited_blas
from fast.tiles import cut
from style.plan import TILES
from style.settings import depth

TINY = 1e-30  # against division by 0


def total_variation(image):
    """Return how much neighbouring pixels of an image (N, C, H, W) differ, and the gradient of it.

        TV = 1/(N C H W) * sum of  (x[h + 1, w] - x[h, w])^2 + (x[h, w + 1] - x[h, w])^2

    As a small part of the loss it removes grain and keeps the strokes. In the gradient, each
    difference belongs to two pixels: with + to the second, with - to the first.
    """
    gradient = np.zeros(image.shape, image.dtype)
    total = 0.0
    for n, c in np.ndindex(image.shape[:2]):  # one channel at a time needs less memory
        for x, dx in (image[n, c], gradient[n, c]), (image[n, c].T, gradient[n, c].T):
            difference = np.diff(x, axis=0)
            dx[1:] += difference
            dx[:-1] -= difference
            total += float(np.sum(np.square(difference, out=difference), dtype=np.float64))
    gradient *= 2 / image.size
    return total / image.size, gradient


class Objective:
    """The loss to minimise, and its gradient, in one forward and one backward pass.

    A large image is computed tile by tile (`fast/tiles.py`): first the Gram matrices, which need
    all tiles, then in a second forward and backward pass the gradient.

        L = content_weight * mean over content layers of  sum (X - Y)^2 / sum Y^2
          + style_weight   * mean over style layers of    sum (G - A)^2 / sum A^2
          + tv_weight      * total_variation

    The first two are the book's losses (`layers3.py`), each divided by its value for all-zero
    features, so the same weights work at every size and with every set of filters. The means are
    weighted by the layers' weights.

    With several styles, A is the weighted mean of their Gram matrices; separate losses would differ
    only by a constant, so the gradient is the same.

    Parameters
    ----------
    network : FusedNetwork
    content_image : ndarray of shape (1, 3, H, W)
    style_images : sequence of ndarray of shape (1, 3, h, w)
        Of any sizes.
    settings : Settings
        Weights and layers of the losses, and the shares of the styles.
    grams : dict of str to ndarray of shape (C, C), optional
        What `style_grams` returned for these styles, if it is known already.
    """

    def __init__(self, network, content_image, style_images, settings, grams=None):
        content_layers, style_layers = settings.used_layers()
        self.network = network
        self.wanted = wanted_layers(settings)
        self.tv_weight = settings.tv_weight
        self.tiles = tiles_of(network, content_image, settings)
        self.content = []  # {layer: features of the content} of each tile
        squares = Counter()
        for tile in self.tiles if content_layers else []:
            features = features_of(network, content_image, tile, self.wanted)
            # copies, as the network reuses its buffers
            self.content.append({name: features[name].copy(order="K") for name in content_layers})
            for name, target in self.content[-1].items():
                squares[name] += float(np.sum(np.square(target), dtype=np.float64))
        self.content_scales = {
            name: 2 * settings.content_weight * share / max(squares[name], TINY)
            for name, share in shares(content_layers).items()
        }
        self.grams = style_grams(network, style_images, settings) if grams is None else grams
        self.style_scales = {}
        for name, share in shares(style_layers).items():
            square = float(np.mean(np.square(self.grams[name]), dtype=np.float64))
            self.style_scales[name] = 4 * settings.style_weight * share / max(square, TINY)

    @limited_blas(1)  # once a step, not again for each of its hundred array operations
    def __call__(self, image):
        """Return the losses of an image (1, 3, H, W) and their gradient with respect to it.

        Returns
        -------
        losses : dict of str to float
            'content', 'style' and 'tv', weighted; the loss is their sum.
        gradient : ndarray of shape (1, 3, H, W)
            A new array, in C order.

        Raises
        ------
        FloatingPointError
            If a loss or the gradient is no longer finite.
        """
        losses = {"content": 0.0, "style": 0.0, "tv": 0.0}
        gradient = np.zeros(image.shape, image.dtype)
        if self.tv_weight:
            variation, gradient = total_variation(image)
            losses["tv"] = self.tv_weight * variation
            gradient *= self.tv_weight
        tiles = self.tiles if self.grams else self.tiles[-1:]
        grams, positions, features = mean_grams(
            self.network, image, tiles, self.wanted, self.grams, keep=True
        )
        gram_gradients = {}
        for name, scale in self.style_scales.items():
            loss, matrices = style_loss(grams[name], self.grams[name], positions[name])
            losses["style"] += scale * loss
            gram_gradients[name] = scale * matrices
        for number in reversed(range(len(self.tiles))):  # the last one's features are there
            tile = self.tiles[number]
            if features is None:
                features = features_of(self.network, image, tile, self.wanted, keep=True)
            gradients = {}
            for name, scale in self.content_scales.items():
                loss, gradients[name] = content_loss(features[name], self.content[number][name])
                scale *= features[name].size  # the loss is a mean, and the scale is for a sum
                losses["content"] += scale * loss
                gradients[name] *= scale
            rows, columns = tile.area
            gradient[:, :, rows, columns] += self.network.backward(gradients, gram_gradients)
            features = None
        if not np.isfinite(sum(losses.values())) or not np.isfinite(gradient).all():
            raise FloatingPointError(", ".join(f"{k} {v:.3g}" for k, v in losses.items()))
        return losses, gradient


def style_grams(network, style_images, settings):
    """Return {layer: A}, the Gram matrices of the styles, blended; each is a mean over positions.

    The parameters are those of `Objective`.
    """
    _, style_layers = settings.used_layers()
    names = sorted(style_layers, key=depth)
    blended = dict.fromkeys(names, 0)
    blend = settings.style_blend or [1] * len(style_images)
    for image, share in zip(style_images, blend, strict=True):
        if names and share:
            tiles = tiles_of(network, image, settings)
            grams, _, _ = mean_grams(network, image, tiles, wanted_layers(settings), names)
            for name in names:
                blended[name] = blended[name] + share / sum(blend) * grams[name]
    return blended


def mean_grams(network, image, tiles, wanted, names, keep=False):
    """Return the Gram matrices of an image, summed tile by tile.

    Returns
    -------
    grams : dict of str to ndarray of shape (1, C, C)
        Of the layers `names`, divided by their numbers of positions.
    positions : dict of str to int
        These numbers.
    features : dict of str to ndarray
        Of the last tile, for a `backward` if `keep` is True.
    """
    grams, positions = dict.fromkeys(names, 0), Counter()
    for tile in tiles:
        features = features_of(network, image, tile, wanted, keep and tile is tiles[-1])
        for name in names:
            grams[name] = grams[name] + gram(features[name])
            positions[name] += features[name].shape[2] * features[name].shape[3]
    return {name: grams[name] / float(positions[name]) for name in names}, positions, features


def features_of(network, image, tile, wanted, keep=False):
    """Return the features of a tile's own part; see `FusedNetwork.forward`."""
    rows, columns = tile.area
    return network.forward(image[:, :, rows, columns], wanted, keep, tile.own)


def tiles_of(network, image, settings):
    """Return the tiles of an image, of the size that the settings say."""
    reach = network.reach(wanted_layers(settings))
    return cut(*image.shape[2:], settings.tile or TILES[0], *reach)


def wanted_layers(settings):
    """Return the layers whose losses count, in order.

    Every picture is computed up to the deepest of them: equal passes use equal buffers.
    """
    content_layers, style_layers = settings.used_layers()
    return sorted({**content_layers, **style_layers}, key=depth)


def shares(layers):
    """Return {name: share} of layers and their weights, in order; the shares add up to 1."""
    return {name: layers[name] / sum(layers.values()) for name in sorted(layers, key=depth)}

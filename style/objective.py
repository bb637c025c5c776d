"""The loss that style transfer minimises, and its gradient with respect to the image.

The losses are those of `layers3.py`, made relative so that their weights mean the same everywhere.
Gradients add up, so one backward pass collects the gradient of every loss at its layer, where the
book's program makes one backward pass for each.
"""

import numpy as np

from fast.losses import content_loss, gram, style_loss
from style.settings import depth


def total_variation(image):
    """Return how much neighbouring pixels differ, and the gradient of it.

        TV = 1/(N C H W) * sum of  (x[h + 1, w] - x[h, w])^2 + (x[h, w + 1] - x[h, w])^2

    As a small part of the loss it removes grain and keeps the strokes.

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
    """The loss to minimise, and its gradient, in one forward and one backward pass.

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
        self.wanted = sorted({**content_layers, **style_layers}, key=depth)
        self.tv_weight = settings.tv_weight
        self.content, self.content_scales = {}, {}
        if content_layers:
            wanted = sorted(content_layers, key=depth)
            targets = network.forward(content_image, wanted, keep=False)
            for name, features in targets.items():
                share = content_layers[name] / sum(content_layers.values())
                self.content[name] = features.copy(order="K")  # the network reuses its buffers
                self.content_scales[name] = (
                    2 * settings.content_weight * share / mean_square(features)
                )
        self.grams = style_grams(network, style_images, settings) if grams is None else grams
        self.style_scales = {}
        for name, target in self.grams.items():
            share = style_layers[name] / sum(style_layers.values())
            self.style_scales[name] = 4 * settings.style_weight * share / mean_square(target)

    def __call__(self, image):
        """Return the losses of an image (1, 3, H, W) and their gradient with respect to it.

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
            loss, gradients[name] = content_loss(features[name], self.content[name])
            losses["content"] += scale * loss
            gradients[name] *= scale
        for name, scale in self.style_scales.items():
            loss, matrices = style_loss(features[name], self.grams[name])
            losses["style"] += scale * loss
            gram_gradients[name] = scale * matrices
        gradient = self.network.backward(gradients, gram_gradients)
        if self.tv_weight:
            variation, variation_gradient = total_variation(image)
            losses["tv"] = self.tv_weight * variation
            gradient += self.tv_weight * variation_gradient
        if not np.isfinite(sum(losses.values())) or not np.isfinite(gradient).all():
            raise FloatingPointError(", ".join(f"{k} {v:.3g}" for k, v in losses.items()))
        return losses, gradient


def style_grams(network, style_images, settings):
    """Return {layer: A}, the Gram matrices of the styles, blended; each is a mean over positions.

    The parameters are those of `Objective`.
    """
    _, style_layers = settings.used_layers()
    grams = dict.fromkeys(sorted(style_layers, key=depth), 0)
    blend = settings.style_blend or [1] * len(style_images)
    for image, share in zip(style_images, blend, strict=True):
        if grams and share:
            for name, features in network.forward(image, grams, keep=False).items():
                positions = features.shape[2] * features.shape[3]
                grams[name] = grams[name] + share / sum(blend) / positions * gram(features)
    return grams


def mean_square(array):
    """Return the mean of the squares, at least a tiny number: the result is a divisor."""
    return max(float(np.mean(np.square(array), dtype=np.float64)), 1e-30)

"""Filters without a download: what the pictures alone can teach a convolutional network.

VGG's filters were trained on a million photographs. Style transfer works without them: the style
loss compares which small patterns occur, how often, and which occur together. For that the network
needs filters that detect the patterns of these pictures, and no labels. The content and style
pictures contain enough patches to learn such filters in seconds [1]_:

1. **Patches.** Cut thousands of 3x3 patches out of the pictures. Each is a vector x of 27 numbers.
2. **Whitening.** Neighbouring pixels are similar, so patches differ mostly in brightness. Divide by
   the standard deviation along each eigenvector of the patches' covariance: z = W^T (x - mean).
   Now an edge counts as much as a shade.
3. **Spherical k-means.** Scale all z to length 1 and find K directions, the centres of clusters.
   Clusters form at frequent patterns: strokes of one slant, edges, pairs of colours.
4. **Filters.** The direction d becomes the filter W d. Its bias is set so that the ReLU passes only
   the strongest outputs: the filter is active at its pattern and 0 elsewhere.
5. The outputs are pictures again, with K channels. From their 3x3 patches the next layer learns. It
   sees a larger area: corners, curves and groups of strokes.

Random filters are the control. Each is a mixture of all directions, so each is a little active
everywhere, mostly at fine grain, which correlates with random numbers. A picture that matches their
Gram matrices has the palette of the style, and grain. A learnt filter outputs 0 except at its
pattern. Matching how often each is active, and which are active together, reproduces the strokes.

References
----------
.. [1] A. Coates, A. Ng, "Learning Feature Representations with K-means", in: Neural Networks:
       Tricks of the Trade, LNCS 7700, 2012.
.. [2] K. He, Y. Wang, J. Hopcroft, "A Powerful Generative Model Using Random Weights for the Deep
       Image Representation", NIPS 2016: the random control.
"""

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fast.strips import limited_blas, product
from support.command import InputError

# These layers learn. The deeper ones stay random: their patches have 2304 numbers and more, too
# many for so few pictures, and random mixtures of learnt features already distinguish strokes.
LEARNT_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")

PATCHES = 10_000  # drawn for each layer, evenly from all pictures
ROUNDS = 8  # of k-means; later rounds hardly change the directions
ACTIVE = 0.3  # share of the patches at which a filter is active after its ReLU
DIRECTIONS = 256  # at most so many are kept by whitening, the strongest
EIGENVALUE_CUT = 1e-4  # of the largest; smaller ones are rounding and compression noise
SMOOTHING = 0.1  # of the mean eigenvalue, added so that weak directions are not amplified


def learn_filters(layers, pictures, rng, learnt_layers=LEARNT_LAYERS):
    """Load filters into every convolution of a network; the first five learn from the pictures.

    Each layer is scaled to a mean activation of 1, so that the losses of all layers are comparable.

    Parameters
    ----------
    layers : dict of str to layer
        The network in order. Convolutions are named "conv...", of kernel size 3, padding 1 and
        stride 1, each followed by its ReLU, with "pool..." layers between. Convolutions get
        parameters and are frozen.
    pictures : list of ndarray of shape (1, 3, H, W)
        What to learn from, floating point, 0 to 255 minus the mean colour. Sizes may differ; each
        side needs 3 pixels in the deepest layer that learns, so 12 for conv3_1.
    rng : numpy.random.Generator
        Draws patches, starting points and random filters. The same state gives the same filters,
        for any number of threads.
    learnt_layers : sequence of str
        All other convolutions get random filters (He-normal, bias 0).

    Raises
    ------
    InputError
        If the pictures are uniform.
    """
    activations = pictures
    for name, layer in layers.items():
        if not name.startswith("conv"):
            activations = [layer.forward(x) for x in activations]
            continue
        if name in learnt_layers:
            patches = draw_patches(activations, PATCHES, rng)
            weight, bias = filters_from_patches(patches, layer.channel_out, rng)
        else:
            weight, bias = random_weights(layer, rng)
        activations = _load_scaled(name, layer, weight, bias, activations)


# Loads random filters into every convolution; it needs the pictures for their scale.
random_filters = partial(learn_filters, learnt_layers=())


def draw_patches(pictures, number, rng):
    """Cut about `number` 3x3 patches at random positions, equally many from each picture.

    The pictures are (1, C, H, W). A row of the result, (P, C * 9), is a patch (C, 3, 3).
    """
    share = number // len(pictures)
    patches = []
    for picture in pictures:
        x = picture[0].transpose(1, 2, 0)  # (C, H, W) -> (H, W, C), a view
        windows = sliding_window_view(x, (3, 3), axis=(0, 1))  # -> (H - 2, W - 2, C, 3, 3), a view
        h, w = (rng.integers(side, size=share) for side in windows.shape[:2])
        patches.append(windows[h, w].reshape(share, -1))  # (share, C, 3, 3) -> (share, C * 9)
    return np.concatenate(patches)


def filters_from_patches(patches, number, rng):
    """Learn filters: whiten the patches, cluster them, and make each cluster a filter.

    From patches (P, C * 9), return weight (C, 3, 3, number) and bias (number,). `InputError` if all
    patches are equal.
    """
    mean = patches.mean(axis=0)
    centred = patches - mean
    whitening = whitening_matrix(centred)
    directions = spherical_kmeans(product(centred, whitening), number, rng)
    filters = product(whitening, directions.T)  # d . (W^T x) = (W d) . x
    outputs = product(centred, filters)
    threshold = np.quantile(outputs, 1 - ACTIVE, axis=0).astype(outputs.dtype)
    # filter . (x - mean) - threshold = filter . x + bias
    bias = -threshold - (mean[None] @ filters)[0]
    return filters.reshape(-1, 3, 3, number), bias


def whitening_matrix(centred):
    """Return W such that the columns of centred @ W are uncorrelated, with about equal variance.

    `centred` (P, D) is patches minus their mean. With its covariance S = V diag(e) V^T (principal
    component analysis),

        W = V diag(1 / sqrt(e + SMOOTHING * mean(e)))

    with at most `DIRECTIONS` columns, the directions of largest variance; the others contain almost
    nothing and cost time.
    """
    covariance = product(centred.T, centred) / len(centred)
    with limited_blas(1):  # LAPACK's rounding depends on its threads
        variance, axes = np.linalg.eigh(covariance)
    if not variance[-1] > 0:
        raise InputError("the pictures are uniform: there is nothing to learn filters from")
    count = min(DIRECTIONS, np.count_nonzero(variance > EIGENVALUE_CUT * variance[-1]))
    variance, axes = variance[-count:], axes[:, -count:]  # in ascending order
    return axes / np.sqrt(variance + SMOOTHING * variance.mean())


def spherical_kmeans(vectors, number, rng):
    """Cluster `vectors` (P, D) by direction; return the centres, `number` <= P unit vectors.

    Each round assigns every vector to the centre at the smallest angle, and replaces each centre by
    the weighted sum of its vectors, scaled to length 1; the weight is the cosine of the angle. A
    centre without vectors starts again from a random vector.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
    directions = unit[rng.choice(len(unit), number, replace=False)]
    for _ in range(ROUNDS):
        cosine = product(unit, directions.T)  # (P, number)
        nearest = cosine == cosine.max(axis=1, keepdims=True)
        directions = product((cosine * nearest).T, unit)  # (number, D)
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        empty = lengths[:, 0] < 1e-6
        directions[empty] = unit[rng.integers(len(unit), size=empty.sum())]
        directions /= np.where(empty[:, None], 1, lengths)
    return directions


def random_weights(layer, rng):
    """Return the He-normal weight and zero bias of a convolution, float32."""
    shape = (layer.channel_in, layer.kernel_size, layer.kernel_size, layer.channel_out)
    weight = rng.standard_normal(shape, dtype=np.float32)
    weight *= np.sqrt(np.float32(2 / np.prod(shape[:3])))
    return weight, np.zeros(layer.channel_out, np.float32)


def _load_scaled(name, layer, weight, bias, pictures):
    """Load and freeze parameters divided by the mean activation; return the activations."""
    layer.load_param(weight, bias)
    outputs = [layer.forward(x) for x in pictures]
    rectified = [np.maximum(output, 0) for output in outputs]
    total = sum(float(x.sum(dtype=np.float64)) for x in rectified)
    mean = np.float32(total / sum(x.size for x in rectified))
    if not mean > 0:
        raise InputError(f"the pictures are too uniform: no filter of {name} is active")
    layer.load_param(weight / mean, bias / mean)
    layer.freeze()
    return [output / mean for output in outputs]

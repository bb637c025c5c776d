"""Filters without a download: what two pictures alone can teach a convolutional network.

VGG's filters were learnt from a million photographs. Style transfer can do without. Its style loss
asks which small patterns are in a picture, how often, and which of them occur together; for that
the network needs filters that answer to the patterns pictures are made of, and no labels. The
content and the style picture hold patches enough to learn them from, in seconds [1]_:

1. **Patches.** Cut thousands of 3x3 pieces out of both pictures. Each is a vector x of 27 numbers.
2. **Whitening.** Neighbouring pixels are nearly alike, so nearly all that differs between patches
   is their brightness. Along the eigenvectors of the patches' covariance, divide by the standard
   deviation: z = W^T (x - mean). Now an edge weighs as much as a shade.
3. **Spherical k-means.** Scale all z to length 1 and find the K directions around which they
   crowd. Patches crowd where pictures have habits: strokes of one slant, rims, pairs of colours.
4. **Filters.** Direction d becomes the filter W d, and its bias is set so that the ReLU lets
   through only the strongest answers: the filter says "here", not "somewhat everywhere".
5. The answers are pictures again, of K channels. Their 3x3 patches teach the next layer, which
   sees further and learns corners, curves and strands of strokes.

Random filters are the control. Each is a blend of all directions at once, so each answers a little
to everything, and most to fine grain: that alone makes random numbers correlate with a patch. The
picture that satisfies their Gram matrices has the style's palette, and grain. A learnt filter is
silent until its stroke appears; matching how often it speaks, and beside which others, puts the
strokes of the painting onto the canvas.

References
----------
.. [1] A. Coates, A. Ng, "Learning Feature Representations with K-means", in: Neural Networks:
       Tricks of the Trade, LNCS 7700, 2012.
.. [2] K. He, Y. Wang, J. Hopcroft, "A Powerful Generative Model Using Random Weights for the Deep
       Image Representation", NIPS 2016: the random control.
"""

import numpy as np

from fast.strips import product, single_threaded_blas
from support.command import InputError

# These layers learn. The deeper ones stay random: their patches have 2304 numbers and more, too
# many for so few pictures, and random blends of learnt features already tell strokes apart.
LEARNT_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")

PATCHES = 10_000  # drawn for each layer, evenly from all pictures
ROUNDS = 8  # of k-means; later rounds hardly move the directions
ACTIVE = 0.3  # share of the patches that a filter lets through its ReLU
DIRECTIONS = 256  # at most so many are kept by whitening, the strongest
EIGENVALUE_CUT = 1e-4  # of the largest; what varies less is rounding and compression noise
SMOOTHING = 0.1  # of the mean eigenvalue, added so that weak directions are not blown up


def learn_filters(layers, pictures, rng):
    """Give every convolution of a network filters, the first five learnt from the pictures.

    Each layer is scaled to a mean activation of 1, so that no layer's loss drowns another's.

    Parameters
    ----------
    layers : dict of str to layer
        The network in order. Convolutions are named "conv...", of kernel size 3, padding 1 and
        stride 1, each followed by its ReLU; "pool..." layers stand between. Convolutions get
        parameters and are frozen. `LEARNT_LAYERS` are learnt, all others random.
    pictures : list of ndarray of shape (1, 3, H, W)
        What to learn from, floating point, 0 to 255 minus the mean colour; sizes may differ.
    rng : numpy.random.Generator
        Draws patches, starting points and random filters. The same state gives the same filters,
        whatever the number of threads.

    Raises
    ------
    InputError
        If a picture is too small for the network, or the pictures are plain and teach nothing.
    """
    check_large_enough(layers, pictures)
    activations = pictures
    for name, layer in layers.items():
        if not name.startswith("conv"):
            activations = [layer.forward(x) for x in activations]
            continue
        if name in LEARNT_LAYERS:
            patches = draw_patches(activations, PATCHES, rng)
            weight, bias = filters_from_patches(patches, layer.channel_out, rng)
        else:
            weight, bias = random_weights(layer, rng)
        activations = _load_scaled(name, layer, weight, bias, activations)


def random_filters(layers, pictures, rng):
    """Give every convolution random filters (He-normal, bias 0), scaled as the learnt ones are.

    Parameters and errors are those of `learn_filters`; the pictures serve to measure the scale.
    """
    check_large_enough(layers, pictures)
    activations = pictures
    for name, layer in layers.items():
        if name.startswith("conv"):
            activations = _load_scaled(name, layer, *random_weights(layer, rng), activations)
        else:
            activations = [layer.forward(x) for x in activations]


def draw_patches(pictures, number, rng):
    """Cut 3x3 patches out of random places, equally many from each picture.

    Parameters
    ----------
    pictures : list of ndarray of shape (1, C, H, W)
    number : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (about number, C * 9)
        One patch a row, its values in the order (C, 3, 3).
    """
    share = number // len(pictures)
    patches = np.empty((len(pictures), share, pictures[0].shape[1], 3, 3), pictures[0].dtype)
    for picture, rows in zip(pictures, patches, strict=True):
        x = picture[0].transpose(1, 2, 0)  # (C, H, W) -> (H, W, C), a view
        H, W, C = x.shape
        h, w = rng.integers(H - 2, size=share), rng.integers(W - 2, size=share)
        for i in range(3):
            for j in range(3):
                rows[:, :, i, j] = x[h + i, w + j]
    return patches.reshape(len(pictures) * share, -1)


def filters_from_patches(patches, number, rng):
    """Learn filters: whiten the patches, cluster them, and turn each cluster into a filter.

    Parameters
    ----------
    patches : ndarray of shape (P, C * 9)
    number : int
        How many filters, K.
    rng : numpy.random.Generator

    Returns
    -------
    weight : ndarray of shape (C, 3, 3, K)
    bias : ndarray of shape (K,)

    Raises
    ------
    InputError
        If all patches are alike.
    """
    mean = patches.mean(axis=0)
    centred = patches - mean
    whitening = whitening_matrix(centred)
    directions = spherical_kmeans(product(centred, whitening), number, rng)
    filters = product(whitening, directions.T)  # d . (W^T x) = (W d) . x
    answers = product(centred, filters)
    threshold = np.quantile(answers, 1 - ACTIVE, axis=0).astype(answers.dtype)
    # filter . (x - mean) - threshold = filter . x + bias
    bias = -threshold - (mean[None] @ filters)[0]
    return filters.reshape(-1, 3, 3, number), bias


def whitening_matrix(centred):
    """Return W such that the columns of centred @ W are uncorrelated and about equally strong.

    With the covariance S = V diag(e) V^T (principal component analysis),

        W = V diag(1 / sqrt(e + SMOOTHING * mean(e)))

    with the strongest directions only: the others hold next to nothing, and cost time.

    Parameters
    ----------
    centred : ndarray of shape (P, D)
        Patches minus the mean patch.

    Returns
    -------
    ndarray of shape (D, at most DIRECTIONS)
    """
    covariance = product(centred.T, centred) / len(centred)
    with single_threaded_blas():  # how LAPACK rounds depends on its threads
        variance, axes = np.linalg.eigh(covariance)
    if not variance[-1] > 0:
        raise InputError("the pictures are plain, there is nothing to learn filters from")
    count = min(DIRECTIONS, np.count_nonzero(variance > EIGENVALUE_CUT * variance[-1]))
    variance, axes = variance[-count:], axes[:, -count:]  # they come in rising order
    return axes / np.sqrt(variance + SMOOTHING * variance.mean())


def spherical_kmeans(vectors, number, rng):
    """Find the directions around which vectors crowd.

    Each round gives every vector to the direction nearest by angle, and turns each direction to
    the sum of its vectors; those that point its way more clearly count more. A direction that
    nobody chose starts anew from some vector.

    Parameters
    ----------
    vectors : ndarray of shape (P, D)
        At least `number` of them.
    number : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (number, D)
        Of length 1.
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


def check_large_enough(layers, pictures):
    """Raise `InputError` unless every picture has 3x3 patches in the deepest layer that learns.

    Nor may a later pool run out of pixels. The error names the least size.
    """
    least = pooled = 1
    for name in layers:
        if name.startswith("pool"):
            pooled *= 2
            least = max(least, pooled)
        elif name in LEARNT_LAYERS:
            least = max(least, 3 * pooled)
    for picture in pictures:
        H, W = picture.shape[2:]
        if min(H, W) < least:
            raise InputError(
                f"a picture of {W}x{H} pixels is too small to learn filters from; "
                f"it needs {least} or more a side"
            )


def _load_scaled(name, layer, weight, bias, pictures):
    """Load and freeze parameters divided by the mean activation; return the activations."""
    layer.load_param(weight, bias)
    answers = [layer.forward(x) for x in pictures]
    rectified = [np.maximum(answer, 0) for answer in answers]
    total = sum(float(x.sum(dtype=np.float64)) for x in rectified)
    mean = np.float32(total / sum(x.size for x in rectified))
    if not mean > 0:
        raise InputError(f"the pictures are too plain: no filter of {name} answers to them")
    layer.load_param(weight / mean, bias / mean)
    layer.freeze()
    return [answer / mean for answer in answers]

"""What a VGG network sees, as pictures: features, filters, edges, and where it looks.

Each function takes plain arrays or a network of `vgg_cpu.py`, and returns a picture, a uint8 array
(H, W, 3). `support/figures.py` does the drawing.
"""

import numpy as np
from PIL import Image
from scipy.special import expit

from fast.fused import FusedNetwork
from support.figures import PAPER, bar_chart, colour_map, enlarged, in_rows, overlay, sheet
from support.pictures import resize_picture, shrunk

SHEET = 1200  # width of a sheet in pixels, about
COLUMNS, ROWS = 6, 4  # of a sheet of features
FEATURES_SIDE = 448  # longest side of the picture whose features are shown; twice VGG's input
SMALLEST = 32  # its shortest side: five pooling layers leave one pixel
EDGES_SIDE = 1024  # longest side of the picture whose edges are shown
BORDER = 32  # pixels around it; a multiple of the 16 pixels of the picture for one of block 5
SIDE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # the last of each block


# ---- features and filters -----------------------------------------------------------------------


def show_features(picture, name, output):
    """Draw a picture and the strongest channels of a layer's output (C, h, w), strongest first.

    Strength is the mean of what is above 0. Each channel has its own scale.
    """
    strength = np.maximum(output, 0).mean(axis=(1, 2))  # (C, h, w) -> (C,)
    order = np.argsort(-strength, kind="stable")[: COLUMNS * ROWS - 1]
    width = SHEET // COLUMNS
    cells = [("picture", enlarged(picture, width))]
    for c in order:
        map = enlarged(colour_map(output[c], share=0.99), width)
        mean = f"{strength[c]:#.3g}".rstrip(".")  # "#": 10.0, not 10
        cells.append((f"channel {c}, mean {mean}", map))
    C, h, w = output.shape
    shown = f"the {len(order)} strongest of" if len(order) < C else "all"
    return sheet(f"{name}: {shown} {C} channels, {w}x{h}", in_rows(cells, COLUMNS))


def show_filters(weight):
    """Draw the filters of the first layer (3, K, K, Co), see `filter_tiles`."""
    _, K, _, Co = weight.shape
    title = f"conv1_1: all {Co} filters, {K}x{K} (grey is 0)"
    return sheet(title, [[("the most colourful ones last", filter_tiles(weight))]])


def filter_tiles(weight, columns=8, pixel=16, gap=8, paper=PAPER):
    """Return filters (3, K, K, Co) as small pictures, in rows on paper; grey is weight 0.

    A filter is most active at a patch that looks like it. The grey ones are first, the most
    colourful last.
    """
    tiles = weight.transpose(3, 1, 2, 0)  # (C, K, K, Co) -> (Co, K, K, C)
    largest = abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    tiles = tiles / np.where(largest > 0, largest, 1)
    colourful = tiles.std(axis=3).mean(axis=(1, 2)) / (abs(tiles).mean(axis=(1, 2, 3)) + 1e-9)
    tiles = tiles[np.argsort(colourful, kind="stable")]
    tiles = (127.5 + 127.5 * tiles + 0.5).astype(np.uint8)
    tiles = tiles.repeat(pixel, axis=1).repeat(pixel, axis=2)
    rows, side = -(-len(tiles) // columns), tiles.shape[1] + gap
    cells = np.full((rows * columns, side, side, 3), paper, np.uint8)
    cells[: len(tiles), :-gap, :-gap] = tiles
    cells = cells.reshape(rows, columns, side, side, 3).swapaxes(1, 2)  # (rows, side, columns, ...)
    return cells.reshape(rows * side, columns * side, 3)[:-gap, :-gap]


# ---- where the evidence for a class lies --------------------------------------------------------


def grad_cam(features, gradients):
    """Return where the evidence for a class lies: a map (h, w), at least 0.

        a_c = mean over y, x of  dscore / dA_c[y, x]        how much channel c counts
        map = max(0, sum over c of  a_c A_c)                where the channels that count are active

    R. Selvaraju and others, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, equations 1 and 2.

    Parameters
    ----------
    features, gradients : ndarray of shape (C, h, w)
        A, the output of the last ReLU before pool5, and the gradient of a score with respect to it.
    """
    weights = gradients.mean(axis=(1, 2))  # (C, h, w) -> (C,)
    return np.maximum(np.tensordot(weights, features, 1), 0)  # (C) . (C, h, w) -> (h, w)


def show_heatmap(picture, name, probability, layer, cam, pixels):
    """Draw a picture, the map of `grad_cam` over it, and the gradient of the score at each pixel.

    `name` and `probability` are those of the class. `cam` (h, w) is of the features of `layer`.
    `pixels` (3, 224, 224) is the gradient of the score with respect to the image.
    """
    picture = enlarged(picture, SHEET // 3)
    strength = abs(pixels).max(axis=0)  # (3, H, W) -> (H, W): of the colour that counts most
    strength = resize_picture(colour_map(strength, share=0.995), *picture.shape[:2])
    row = [
        ("picture", picture),
        (f"evidence in {layer} (Grad-CAM)", overlay(picture, cam)),
        ("pixels whose change counts (gradient)", strength),
    ]
    return sheet(f"{name}: {probability:.1%}", [row])


def show_classes(picture, best):
    """Draw a bar chart of the classes of `VGG19.best_classes` beside the picture."""
    bars = [(one["name"] or f"class {one['id']}", one["probability"]) for one in best]
    return bar_chart(shrunk(picture, 320), bars)


# ---- edges --------------------------------------------------------------------------------------


def edge_maps(features, side_outputs):
    """Return the five side outputs and the fused edge map, float32 (6, H, W), from 0 to 1.

    After the last convolution of each block, one 1x1 convolution, the *side output*, turns the
    features into an edge map. A weighted sum fuses the five maps:

        side_i = bilinear enlargement of (w_i . features_i + b_i) to H x W
        fused  = sum over i of  v_i side_i + c

    and of each the sigmoid: the probability that the pixel lies on an edge (S. Xie, Z. Tu,
    "Holistically-Nested Edge Detection", ICCV 2015, section 3).

    Parameters
    ----------
    features : dict of str to ndarray of shape (1, C, h, w)
        Outputs of the layers in `SIDE_LAYERS`. 'relu1_2' has the image's size H x W.
    side_outputs : list of (weight, bias)
        From `support.trained_filters.read_side_outputs`: of the five blocks, then of the fusion.
    """
    H, W = features[SIDE_LAYERS[0]].shape[2:]
    sides = []
    for name, (weight, bias) in zip(SIDE_LAYERS, side_outputs, strict=False):
        side = np.tensordot(weight, features[name][0], 1) + bias  # (C) . (C, h, w) -> (h, w)
        side = Image.fromarray(side.astype(np.float32))
        sides.append(np.array(side.resize((W, H), Image.Resampling.BILINEAR)))
    weight, bias = side_outputs[-1]
    fused = np.tensordot(weight, sides, 1) + bias  # (5) . (5, H, W) -> (H, W)
    return expit(np.array([*sides, fused], np.float32))


def show_edges(vgg, side_outputs, picture):
    """Draw a picture, its edges, and the edges that each block of the network finds.

    `vgg` is a VGG-16 with the trained filters. A mirrored border, cut off again, keeps the border
    of the picture from being an edge. It ends at a multiple of 16 pixels, because the pooling
    layers would drop what is beyond.
    """
    picture = shrunk(picture, EDGES_SIDE)
    H, W, _ = picture.shape
    sides = [(BORDER, BORDER + -side % BORDER) for side in (H, W)]
    padded = np.pad(picture, (*sides, (0, 0)), "symmetric")
    network = FusedNetwork(vgg.layers)  # layer by layer takes three times as much memory
    features = network.forward(vgg.prepare(padded), SIDE_LAYERS, keep=False)
    maps = edge_maps(features, side_outputs)
    *sides, fused = maps[:, BORDER : BORDER + H, BORDER : BORDER + W]

    def drawn(edges, width):
        """Return a map as ink on paper."""
        grey = np.rint(255 * (1 - edges)).astype(np.uint8)
        return enlarged(np.repeat(grey[..., np.newaxis], 3, axis=2), width)

    large, small = SHEET // 2, SHEET // 5 - 8
    first = [("picture", enlarged(picture, large)), ("all blocks, fused", drawn(fused, large))]
    second = [(f"block {i}", drawn(side, small)) for i, side in enumerate(sides, start=1)]
    return sheet("Edges found by filters trained on photographs", [first, second])

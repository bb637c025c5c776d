"""Writes weights files like those that MatConvNet publishes, for the tests of their reader.

The structure follows the published files field by field: a (1, 43) cell array of 1x1 structs,
float32 arrays of shape (H, W, Cin, Cout), class names as strings in cell arrays.
"""

import numpy as np
import scipy.io

# VGG-19 from its paper (Simonyan and Zisserman 2015, table 1, column E): the output channels of
# each convolution, block by block, and of the two hidden fully connected layers.
BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
BLOCKS_16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)  # VGG-16, column D
HIDDEN = 4096

# Different from the real mean, to notice a reader that does not read it from the file.
IMAGE_MEAN = np.array([120.5, 115.25, 100.75], dtype=np.float32)


def make_weights(divisor=1, classes=1000, seed=0, last_layer="prob", blocks=BLOCKS):
    """Return {name: (weight, bias)} in the file's order of axes, with `1/divisor` of the channels.

    With 'pool5' as the last layer, only those of the convolutions.

    The weights are He-normal, scaled so that pixels from 0 to 255 give scores of a few units, and
    probabilities that are neither all equal nor all in one class. Biases are not 0.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    channels = 3

    def add(name, kernel, channel_out, scale=1.0):
        nonlocal channels
        std = scale * np.sqrt(2.0 / (kernel * kernel * channels))
        shape = (kernel, kernel, channels, channel_out)
        weight = rng.standard_normal(shape, dtype=np.float32)
        weight *= np.float32(std)
        weights[name] = weight, (0.1 * rng.standard_normal(channel_out)).astype(np.float32)
        channels = channel_out

    for block, widths in enumerate(blocks, start=1):
        for i, width in enumerate(widths, start=1):
            first = block == i == 1
            add(f"conv{block}_{i}", 3, max(1, width // divisor), 1 / 64 if first else 1.0)
    if last_layer == "pool5":
        return weights
    add("fc6", 7, max(1, HIDDEN // divisor))
    add("fc7", 1, max(1, HIDDEN // divisor))
    add("fc8", 1, classes, 0.5)
    return weights


def layer_structs(weights, variant, last_layer="prob"):
    """Return the list of the layers' dicts, from conv1_1 to `last_layer`."""
    structs = []
    for block in range(1, 6):
        for i in range(1, 5):
            if f"conv{block}_{i}" not in weights:
                break
            structs.append(_with_weights(f"conv{block}_{i}", weights, 1, variant))
            structs.append({"name": f"relu{block}_{i}", "type": "relu"})
        pool = {"name": f"pool{block}", "type": "pool", "method": "max", "pool": [[2.0, 2.0]]}
        structs.append({**pool, "stride": [[2.0, 2.0]], "pad": [[0.0, 0.0, 0.0, 0.0]]})
    if "fc6" in weights:
        structs.append(_with_weights("fc6", weights, 0, variant))
        structs.append({"name": "relu6", "type": "relu"})
        structs.append(_with_weights("fc7", weights, 0, variant))
        structs.append({"name": "relu7", "type": "relu"})
        structs.append(_with_weights("fc8", weights, 0, variant))
        structs.append({"name": "prob", "type": "softmax"})
    names = [struct["name"] for struct in structs]
    return structs[: names.index(last_layer) + 1]


def write_matconvnet(
    path, weights, variant="beta17+", last_layer="prob", edit=None, compress=False
):
    """Write the weights of `make_weights` to `path` as a file of either generation.

    Parameters
    ----------
    path : str or Path
    weights : dict
    variant : {"beta16", "beta17+"}
    last_layer : str
        The last layer in the file; with 'pool5' there are no fully connected layers.
    edit : callable, optional
        Called with the dict of variables before they are written, to damage them. At that time,
        its 'layers' is a list of dicts.
    compress : bool, default=False
        As MATLAB does; slow for large files.
    """
    count = weights["fc8"][1].size if "fc8" in weights else 0
    description = [f"class {i}, also named {i}" for i in range(count)]
    classes = {
        "name": cell_row([f"n{i:08d}" for i in range(count)]),
        "description": cell_row(description),
    }
    if variant == "beta16":
        average = np.broadcast_to(IMAGE_MEAN, (224, 224, 3))
    else:
        average = IMAGE_MEAN.reshape(1, 1, 3)
    normalization = {"averageImage": average, "imageSize": [[224.0, 224.0, 3.0]], "keepAspect": 1}
    variables = {"layers": layer_structs(weights, variant, last_layer)}
    if variant == "beta16":
        variables.update(classes=classes, normalization=normalization)
    else:
        variables["meta"] = {"inputs": 1, "classes": classes, "normalization": normalization}
    if edit is not None:
        edit(variables)
    if isinstance(variables.get("layers"), list):
        variables["layers"] = cell_row(variables["layers"])
    scipy.io.savemat(path, variables, do_compression=compress)


def cell_row(items):
    """Return a (1, K) MATLAB cell array: for SciPy, an array of objects."""
    cells = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        cells[0, i] = item
    return cells


def _with_weights(name, weights, pad, variant):
    """Return the dict of a convolution, or of a fully connected layer, which is one too."""
    weight, bias = weights[name]
    bias = bias.reshape((1, -1) if variant == "beta16" else (-1, 1))
    fields = {
        "weights": cell_row([weight, bias]),
        "pad": [[float(pad)] * 4],
        "type": "conv",
        "name": name,
        "stride": [[1.0, 1.0]],
    }
    if variant == "beta16":
        return fields
    # the same in a different order, with fields that the older generation does not have
    size = [[float(length) for length in weight.shape]]
    extra = {"size": size, "dilate": [[1.0, 1.0]], "opts": cell_row([]), "precious": False}
    return {key: fields[key] for key in ("name", "type", "weights", "pad", "stride")} | extra

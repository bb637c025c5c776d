"""Writes narrow files of the form of the filters trained on photographs."""

import h5py
import numpy as np

from support.trained_filters import CONVOLUTIONS


def write_filters(path, divisor=32, change=None):
    """Write a narrow network in the file's form; return its arrays by name.

    `change` is called with the arrays before they are written.
    """
    rng = np.random.default_rng(0)
    arrays, channels = {}, 3
    widths = (64, 128, 256, 512, 512)
    for block, (number, width) in enumerate(zip(CONVOLUTIONS, widths, strict=True), start=1):
        for i in range(number):
            name = f"block{block}/layers/conv2d" + (f"_{i}" if i else "")
            shape = (3, 3, channels, width // divisor)
            scale = np.sqrt(2 / (9 * channels))
            arrays[f"{name}/vars/0"] = rng.normal(0, scale, shape).astype(np.float32)
            channels = width // divisor
            arrays[f"{name}/vars/1"] = rng.normal(0, 1, channels).astype(np.float32)
        for array, shape in ((0, (1, 1, channels, 1)), (1, (1,))):
            arrays[f"dsn{block}/vars/{array}"] = rng.normal(0, 0.02, shape).astype(np.float32)
    arrays["fuse/vars/0"] = rng.normal(0, 1, (1, 1, 5, 1)).astype(np.float32)
    arrays["fuse/vars/1"] = rng.normal(0, 1, 1).astype(np.float32)
    if change:
        change(arrays)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return arrays

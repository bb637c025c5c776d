"""The edge maps of the trained filters: they show that the network is the one that was trained.

After the last convolution of each block, one 1x1 convolution, the *side output*, turns the features
into an edge map. A weighted sum fuses the five maps (S. Xie, Z. Tu, "Holistically-Nested Edge
Detection", ICCV 2015, section 3).
"""

import h5py
import numpy as np
from PIL import Image
from scipy.special import expit

SIDE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # the last of each block


def edge_maps(features, path):
    """Return the five side outputs and the fused edge map, float32 (6, H, W), from 0 to 1.

        side_i = bilinear enlargement of (w_i . features_i + b_i) to H x W
        fused  = sum over i of  v_i side_i + c

    and of each the sigmoid: the probability that the pixel lies on an edge.

    Parameters
    ----------
    features : dict of str to ndarray of shape (1, C, h, w)
        Outputs of the layers in `SIDE_LAYERS`. 'relu1_2' has the image's size H x W.
    path : Path
        The file of trained filters; it has the weights of the side outputs too.
    """
    H, W = features[SIDE_LAYERS[0]].shape[2:]
    sides = []
    with h5py.File(path) as file:

        def pointwise(name, channels):
            """Return the output (h, w) of a 1x1 convolution of channels (C, h, w)."""
            weight, bias = file[f"{name}/vars/0"][0, 0, :, 0], file[f"{name}/vars/1"][0]
            return np.tensordot(weight, channels, 1) + bias

        for block, name in enumerate(SIDE_LAYERS, start=1):
            side = Image.fromarray(pointwise(f"dsn{block}", features[name][0]).astype(np.float32))
            sides.append(np.array(side.resize((W, H), Image.Resampling.BILINEAR)))
        fused = pointwise("fuse", np.array(sides))
    return expit(np.array([*sides, fused], np.float32))

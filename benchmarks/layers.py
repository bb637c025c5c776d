"""Raw loops, im2col, Winograd and PyTorch: median times of one layer, and how far they differ.

python benchmarks/layers.py            # all shapes
python benchmarks/layers.py --quick    # without the raw loops, which take seconds a call
"""

import argparse

import numpy as np
from common import HAS_TORCH, describe_machine, print_table, seconds_of

from layers2 import ConvolutionalLayer, MaxPoolingLayer

if HAS_TORCH:
    import torch

SHAPES = [  # (channels in, channels out, height, width)
    (256, 256, 24, 40),  # the layer that the book's lab measures
    (3, 64, 224, 224),
    (64, 64, 224, 224),
    (128, 128, 112, 112),
    (256, 256, 56, 56),
    (512, 512, 28, 28),
    (512, 512, 14, 14),
]
POOLING_SHAPES = [(64, 224, 224), (256, 56, 56)]


def difference(a, b):
    """Return the relative L2 difference of two arrays."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def measure(layer, x, top_diff, repeats):
    """Return (forward seconds, backward seconds, output, data gradient, weight gradient)."""
    forward = seconds_of(lambda: layer.forward(x), repeats)
    backward = seconds_of(lambda: layer.backward(top_diff), repeats)
    return forward, backward, layer.output, layer.backward(top_diff), layer.d_weight


def measure_torch(layer, x, top_diff, repeats):
    """Do the same in PyTorch; its backward pass, too, computes all three gradients."""
    weight, bias = layer.save_param()
    # (C, K, K, Co) -> (Co, C, K, K)
    w = torch.from_numpy(np.ascontiguousarray(weight.transpose(3, 0, 1, 2))).requires_grad_()
    b = torch.from_numpy(bias).requires_grad_()
    best = None
    for memory_format in (torch.contiguous_format, torch.channels_last):
        t = torch.from_numpy(np.ascontiguousarray(x)).contiguous(memory_format=memory_format)
        t.requires_grad_()
        g = torch.from_numpy(np.ascontiguousarray(top_diff)).contiguous(memory_format=memory_format)
        ww = w.detach().contiguous(memory_format=memory_format).requires_grad_()

        def forward(t=t, ww=ww):
            with torch.no_grad():
                return torch.nn.functional.conv2d(t, ww, b, padding=1)

        y = torch.nn.functional.conv2d(t, ww, b, padding=1)

        def backward(y=y, t=t, ww=ww, g=g):
            return torch.autograd.grad(y, (t, ww, b), g, retain_graph=True)

        times = seconds_of(forward, repeats), seconds_of(backward, repeats)
        if best is None or sum(times) < sum(best[:2]):
            best = (*times, y.detach().numpy(), backward()[0].numpy())
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the raw loops")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print(describe_machine())
    print("\n3x3 convolution, stride 1, padding 1, one picture, float32; milliseconds\n")
    rng = np.random.default_rng(0)
    rows = []
    for C, Co, H, W in SHAPES:
        x = rng.standard_normal((1, C, H, W), dtype=np.float32)
        top_diff = rng.standard_normal((1, Co, H, W), dtype=np.float32)
        layer = ConvolutionalLayer(3, C, Co, 1, 1)
        layer.init_param("he", rng)
        runs = {}
        if not arguments.quick and (C, Co, H, W) == SHAPES[0]:
            raw = ConvolutionalLayer(3, C, Co, 1, 1, 0)
            raw.load_param(*layer.save_param())
            output = raw.forward(x)
            gradient = raw.backward(top_diff)
            runs["raw loops"] = (raw.get_forward_time(), raw.get_backward_time(), output, gradient)
        for name in ("im2col", "winograd4", "winograd6", None):
            if C < 16 and name in ("winograd4", "winograd6"):
                continue
            one = ConvolutionalLayer(3, C, Co, 1, 1, algorithm=name)
            one.load_param(*layer.save_param())
            runs[name or "chosen"] = measure(one, x, top_diff, arguments.repeats)[:4]
        if HAS_TORCH:
            runs["PyTorch"] = measure_torch(layer, x, top_diff, arguments.repeats)
        reference = runs["im2col"]
        chosen = runs["chosen"]
        for name, (forward, backward, output, gradient) in runs.items():
            rows.append(
                [
                    f"{C} -> {Co}, {H}x{W}",
                    name,
                    f"{forward * 1e3:.2f}",
                    f"{backward * 1e3:.2f}",
                    f"{forward / chosen[0]:.2f}",
                    f"{backward / chosen[1]:.2f}",
                    f"{difference(output, reference[2]):.1e}",
                    f"{difference(gradient, reference[3]):.1e}",
                ]
            )
    print_table(
        [
            "channels, size",
            "algorithm",
            "forward",
            "backward",
            "forward / chosen",
            "backward / chosen",
            "output differs",
            "gradient differs",
        ],
        rows,
    )
    print("\nmax pooling 2x2, stride 2; milliseconds\n")
    rows = [measure_pooling(*shape, arguments.repeats) for shape in POOLING_SHAPES]
    print_table(["channels, size", "forward", "backward", "PyTorch forward"], rows)


def measure_pooling(C, H, W, repeats):
    """Return the cells of a row of the pooling table."""
    # (1, H, W, C) -> (1, C, H, W), channels last in memory
    x = np.random.default_rng(0).random((1, H, W, C), dtype=np.float32).transpose(0, 3, 1, 2)
    layer = MaxPoolingLayer(2, 2)
    y = layer.forward(x)
    times = [
        seconds_of(lambda: layer.forward(x), repeats),
        seconds_of(lambda: layer.backward(y), repeats),
    ]
    if HAS_TORCH:
        t = torch.from_numpy(x)
        with torch.inference_mode():
            times.append(seconds_of(lambda: torch.nn.functional.max_pool2d(t, 2), repeats))
    cells = [f"{seconds * 1e3:.2f}" for seconds in times]
    return [f"{C}, {H}x{W}", *cells, *["-"] * (3 - len(cells))]


if __name__ == "__main__":
    main()

"""Whole networks against PyTorch: style step, VGG-19 forward, an epoch of MNIST; time and memory.

    python benchmarks/networks.py                 # everything
    python benchmarks/networks.py style-512       # one case; --help lists them

Each side runs in a process of its own and the two take turns, so that a machine whose speed drifts
is unfair to neither. A turn is two steps, of which the second counts: during the first, threads of
the other side may still be waiting busily for work. Without PyTorch installed only our own times
are printed.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
from common import HAS_TORCH, describe_machine, print_table

STYLE_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
CONTENT_LAYERS = ["relu4_2"]

CASES = {  # name: (what it is, rounds, bar)
    "style-192x320": ("style step 192x320", 15, 0.60),
    "style-256": ("style step 256x256", 15, None),
    "style-512": ("style step 512x512", 9, 0.50),
    "style-1024": ("style step 1024x1024", 5, 0.45),
    "vgg": ("VGG-19 forward 224x224, with the fully connected layers", 15, 0.90),
    "mnist": ("MNIST epoch 784-256-128-10, batch 100", 5, 0.65),
    "cnn": ("MNIST CNN, tenth of an epoch, batch 100", 7, 1.50),
}


def random_weights(rng):
    """Return {layer name: (weight (C, 3, 3, Co), bias)} of VGG-19's convolutions, He-normal."""
    from vgg_cpu import VGG19_BLOCKS, layer_table

    weights, channels = {}, 3
    for name, outputs in layer_table(VGG19_BLOCKS).items():
        if name.startswith("conv"):
            weight = rng.standard_normal((channels, 3, 3, outputs), dtype=np.float32)
            weight *= np.float32(np.sqrt(2 / (9 * channels)))
            weights[name] = weight, np.zeros(outputs, np.float32)
            channels = outputs
    return weights


def pictures(name, rng):
    """Return two pictures (1, 3, H, W), mean subtracted, of the size that a case's name says."""
    size = name.removeprefix("style-")
    height, width = map(int, size.split("x")) if "x" in size else (int(size), int(size))
    # (2, H, W, 3) -> (2, 3, H, W), channels last in memory
    both = (rng.random((2, height, width, 3), dtype=np.float32) * 255 - 120).transpose(0, 3, 1, 2)
    return both[:1], both[1:]


# ---- ours -------------------------------------------------------------------------------------


def books_objective(network, content, style):
    """Return the loss of content relu4_2 and style relu1_1 .. relu5_1, and nothing else."""
    from style.objective import Objective
    from style.settings import Settings

    settings = Settings(
        content_weight=1.0, style_weight=40.0, tv_weight=0.0,
        content_layers=dict.fromkeys(CONTENT_LAYERS, 1.0),
        style_layers=dict.fromkeys(STYLE_LAYERS, 1.0),
    )  # fmt: skip
    return Objective(network, content, [style], settings)


def our_style_step(name):
    from fast.fused import FusedNetwork
    from layers3 import AdamOptimizer
    from style_transfer_cpu import VGG19

    rng = np.random.default_rng(0)
    vgg = VGG19()
    vgg.build_model()
    layers = {}
    weights = random_weights(rng)
    for layer_name in vgg.param_layer_name[: vgg.param_layer_name.index("relu5_1") + 1]:
        layers[layer_name] = vgg.layers[layer_name]
        if layer_name in weights:
            layers[layer_name].load_param(*weights.pop(layer_name))
            layers[layer_name].freeze()
    del weights
    content, style = pictures(name, rng)
    objective = books_objective(FusedNetwork(layers), content, style)
    adam = AdamOptimizer(1.0, content.shape)
    state = [content]

    def step():
        _, gradient = objective(state[0])
        state[0] = adam.update(state[0], gradient)

    return step


def our_vgg(name):
    from vgg_cpu import VGG19, layer_table

    rng = np.random.default_rng(0)
    vgg = VGG19()
    vgg.build_model()
    for layer_name, (weight, bias) in random_weights(rng).items():
        vgg.layers[layer_name].load_param(weight, bias)
        vgg.layers[layer_name].freeze()
    features = 512 * 7 * 7
    for layer_name in ("fc6", "fc7", "fc8"):
        outputs = layer_table(VGG19.blocks)[layer_name]
        weight = rng.standard_normal((features, outputs), dtype=np.float32) * np.float32(0.01)
        vgg.layers[layer_name].load_param(weight, np.zeros((1, outputs), np.float32))
        features = outputs
    vgg.input_image = rng.standard_normal((1, 3, 224, 224), dtype=np.float32) * 60
    return vgg.forward


def mnist_data():
    rng = np.random.default_rng(0)
    images = rng.random((60_000, 784), dtype=np.float32)
    return images, rng.integers(0, 10, 60_000)


def our_epoch(layers, images, labels):
    """Return a function that trains on each batch of 100 once."""
    from layers1 import SoftmaxLossLayer

    softmax = SoftmaxLossLayer()
    learners = [layer for layer in layers if hasattr(layer, "init_param")]
    for i, layer in enumerate(learners):
        layer.init_param("he", i)

    def epoch():
        for start in range(0, len(images), 100):
            current = images[start : start + 100]
            for layer in layers:
                current = layer.forward(current)
            softmax.forward(current)
            softmax.get_loss(labels[start : start + 100])
            gradient = softmax.backward()
            for layer in reversed(layers[1:]):
                gradient = layer.backward(gradient)
            layers[0].backward(gradient, need_bottom_diff=False)
            for layer in learners:
                layer.update_param(0.01)

    return epoch


def our_mnist(name):
    from layers1 import FullyConnectedLayer, ReLULayer

    images, labels = mnist_data()
    layers = [
        FullyConnectedLayer(784, 256),
        ReLULayer(),
        FullyConnectedLayer(256, 128),
        ReLULayer(),
        FullyConnectedLayer(128, 10),
    ]
    return our_epoch(layers, images, labels)


def our_cnn(name):
    from fast.strips import limited_blas
    from layers1 import FullyConnectedLayer, ReLULayer
    from layers2 import ConvolutionalLayer, FlattenLayer, MaxPoolingLayer

    images, labels = (array[:6000] for array in mnist_data())
    images = images.reshape(-1, 1, 28, 28)
    layers = [
        ConvolutionalLayer(5, 1, 16, 2, 1), ReLULayer(), MaxPoolingLayer(2, 2),
        ConvolutionalLayer(5, 16, 32, 2, 1), ReLULayer(), MaxPoolingLayer(2, 2),
        FlattenLayer((32, 7, 7), (1568,)),
        FullyConnectedLayer(1568, 128), ReLULayer(), FullyConnectedLayer(128, 10),
    ]  # fmt: skip
    # as mnist_mlp_cpu.py does
    return limited_blas(1)(our_epoch(layers, images, labels))


# ---- PyTorch, as its users would write it: frozen weights, in-place ReLU, one backward ----------


def torch_features(weights, x, wanted):
    features = {}
    for name, (weight, bias) in weights.items():
        if name.endswith("_1") and name != "conv1_1":
            x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.relu_(torch.nn.functional.conv2d(x, weight, bias, padding=1))
        if f"relu{name[4:]}" in wanted:
            features[f"relu{name[4:]}"] = x
            if len(features) == len(wanted):
                break
    return features


def torch_weights(rng):
    weights = {}
    for name, (weight, bias) in random_weights(rng).items():
        # (C, 3, 3, Co) -> (Co, C, 3, 3)
        tensor = torch.from_numpy(np.ascontiguousarray(weight.transpose(3, 0, 1, 2)))
        # channels-last was the faster of PyTorch's two formats here
        weights[name] = tensor.contiguous(memory_format=torch.channels_last), torch.from_numpy(bias)
    return weights


def torch_gram(x):
    features = x.reshape(x.shape[1], -1)
    return features @ features.T / features.shape[1]


def torch_style_step(name):
    rng = np.random.default_rng(0)
    weights = torch_weights(rng)
    content, style = (
        torch.from_numpy(x.copy()).contiguous(memory_format=torch.channels_last)
        for x in pictures(name, rng)
    )
    wanted = STYLE_LAYERS + CONTENT_LAYERS
    with torch.no_grad():
        grams = {k: torch_gram(v) for k, v in torch_features(weights, style, STYLE_LAYERS).items()}
        target = torch_features(weights, content, CONTENT_LAYERS)["relu4_2"].clone()
    image = content.clone().requires_grad_()
    adam = torch.optim.Adam([image], lr=1.0)
    target_power = (target**2).mean()
    powers = {k: (a**2).mean() for k, a in grams.items()}

    def step():
        adam.zero_grad()
        features = torch_features(weights, image, wanted)
        loss = ((features["relu4_2"] - target) ** 2).mean() / target_power
        for k in STYLE_LAYERS:
            loss = loss + 8 * ((torch_gram(features[k]) - grams[k]) ** 2).mean() / powers[k]
        loss.backward()
        adam.step()

    return step


def torch_vgg(name):
    rng = np.random.default_rng(0)
    weights = torch_weights(rng)
    sizes = [512 * 7 * 7, 4096, 4096, 1000]
    dense = [
        (torch.from_numpy(rng.standard_normal((o, i), dtype=np.float32)) * 0.01, torch.zeros(o))
        for i, o in pairwise(sizes)
    ]
    x = torch.from_numpy(rng.standard_normal((1, 3, 224, 224), dtype=np.float32) * 60)
    x = x.contiguous(memory_format=torch.channels_last)
    linear = torch.nn.functional.linear

    def forward():
        with torch.inference_mode():
            y = torch_features(weights, x, ["relu5_4"])["relu5_4"]
            y = torch.nn.functional.max_pool2d(y, 2).flatten(1)
            y = torch.relu_(linear(y, *dense[0]))
            y = torch.relu_(linear(y, *dense[1]))
            return torch.softmax(linear(y, *dense[2]), 1)

    return forward


def torch_mnist(name):
    images, labels = (torch.from_numpy(array) for array in mnist_data())
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def epoch():
        for start in range(0, len(images), 100):
            optimizer.zero_grad()
            output = model(images[start : start + 100])
            torch.nn.functional.cross_entropy(output, labels[start : start + 100]).backward()
            optimizer.step()

    return epoch


def torch_cnn(name):
    nn = torch.nn
    images, labels = (torch.from_numpy(array[:6000]) for array in mnist_data())
    images = images.reshape(-1, 1, 28, 28)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def tenth():
        for start in range(0, len(images), 100):
            optimizer.zero_grad()
            output = model(images[start : start + 100])
            nn.functional.cross_entropy(output, labels[start : start + 100]).backward()
            optimizer.step()

    return tenth


SIDES = {
    "ours": {
        "style": our_style_step, "vgg": our_vgg, "mnist": our_mnist, "cnn": our_cnn,
    },
    "PyTorch": {
        "style": torch_style_step, "vgg": torch_vgg, "mnist": torch_mnist, "cnn": torch_cnn,
    },
}  # fmt: skip


# ---- the two processes take turns ---------------------------------------------------------------


def work(side, name):
    """Be one side's process: take a turn for every line of the input, print its seconds."""
    if side == "PyTorch":
        from fast.strips import available_cpus

        global torch
        import torch

        torch.set_num_threads(available_cpus())
    step = SIDES[side][name.split("-")[0]](name)
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # KiB -> GiB


def compare(name, rounds):
    """Return {side: (median seconds, peak GiB)} and the median of the ratios, pair by pair."""
    sides = ["ours", "PyTorch"] if HAS_TORCH else ["ours"]
    processes = {}
    for side in sides:
        processes[side] = subprocess.Popen(
            [sys.executable, __file__, "--worker", side, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if processes[side].stdout.readline() != "ready\n":
            sys.exit(f"the {side} process of {name} failed")
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            processes[side].stdin.write("\n")
            processes[side].stdin.flush()
            times[side].append(float(processes[side].stdout.readline()))
    results = {}
    for side, process in processes.items():
        peak, _ = process.communicate()
        results[side] = statistics.median(times[side]), float(peak)
    ratio = None
    if HAS_TORCH:
        pairs = zip(times["ours"], times["PyTorch"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
    return results, ratio


def errors():
    """Return the largest relative L2 error of a loss layer's output, and that of the gradient.

    Float32 by the fast algorithms against float64 by im2col, for the style loss of 192x320.
    """
    from fast.fused import FusedNetwork
    from style_transfer_cpu import VGG19

    outputs, gradients = {}, {}
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(0)
        vgg = VGG19()
        vgg.build_model()
        for layer_name, (weight, bias) in random_weights(rng).items():
            vgg.layers[layer_name].load_param(weight.astype(dtype), bias.astype(dtype))
            vgg.layers[layer_name].freeze()
            if dtype == np.float64:
                vgg.layers[layer_name].algorithm = "im2col"
        content, style = (x.astype(dtype) for x in pictures("style-192x320", rng))
        wanted = STYLE_LAYERS + CONTENT_LAYERS
        if dtype == np.float32:
            last = vgg.param_layer_name.index("relu5_1") + 1
            names = vgg.param_layer_name[:last]
            network = FusedNetwork({n: vgg.layers[n] for n in names})
            outputs[dtype] = {k: v.copy() for k, v in network.forward(content, wanted).items()}
        else:
            network = _LayerByLayer(vgg)
            outputs[dtype] = vgg.forward(content, wanted)
        start = content * dtype(0.5)
        _, gradient = books_objective(network, content, style)(start)
        gradients[dtype] = gradient

    def relative(a, b):
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    layers = {k: relative(outputs[np.float32][k], v) for k, v in outputs[np.float64].items()}
    return layers, relative(gradients[np.float32], gradients[np.float64])


class _LayerByLayer:
    """The walk of the book, one backward for each loss, with the interface of `FusedNetwork`."""

    def __init__(self, vgg):
        self.vgg = vgg

    def reach(self, wanted):
        return 1, 0  # whole pictures only

    def forward(self, image, wanted, keep=True, part=None):
        self.features = self.vgg.forward(image, wanted)
        return self.features

    def backward(self, gradients, gram_gradients):
        total = 0
        for name, gradient in gradients.items():
            total = total + self.vgg.backward(gradient, name)
        for name, matrices in gram_gradients.items():
            features = self.features[name]
            N, C, H, W = features.shape
            product = matrices @ features.reshape(N, C, H * W)
            total = total + self.vgg.backward(product.reshape(N, C, H, W), name)
        return total


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}, errors (default: all)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    unknown = set(arguments.cases) - {*CASES, "errors"}
    if unknown:
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}")
    print(describe_machine() + "\n")
    rows = []
    for name in arguments.cases or CASES:
        if name == "errors":
            continue
        what, rounds, bar = CASES[name]
        results, ratio = compare(name, rounds)
        seconds, peak = results["ours"]
        row = [what, f"{seconds:.3f}", "-", "-", f"{bar:.2f}" if bar else "-", f"{peak:.2f}"]
        row += ["-", "-"]
        if ratio is not None:
            row[2], row[3] = f"{results['PyTorch'][0]:.3f}", f"{ratio:.2f}"
            row[6], row[7] = f"{results['PyTorch'][1]:.2f}", f"{peak / results['PyTorch'][1]:.2f}"
        rows.append(row)
    if rows:
        print_table(
            [
                "what",
                "ours, s",
                "PyTorch, s",
                "ratio",
                "bar",
                "our peak, GiB",
                "PyTorch's, GiB",
                "ratio",
            ],
            rows,
        )
    if not arguments.cases or "errors" in arguments.cases:
        layers, gradient = errors()
        print("\nrelative L2 error, float32 as used against float64 by im2col, 192x320\n")
        rows = [[name, f"{error:.1e}", "1e-4"] for name, error in sorted(layers.items())]
        print_table(
            ["what", "error", "bar"], [*rows, ["image gradient", f"{gradient:.1e}", "1e-3"]]
        )


if __name__ == "__main__":
    main()

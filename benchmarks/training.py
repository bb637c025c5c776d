"""What each choice of the training changes on the real MNIST: accuracy of three seeds.

    python benchmarks/training.py            # all of the README's table, a quarter of an hour
    python benchmarks/training.py mlp        # or cnn: one network only

Every row changes one thing of the first row of its network. Two runs at a time, each on one thread.
"""

import argparse
import contextlib
import io
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor

from common import describe_machine, print_table

SEEDS = (0, 1, 2)
CHOICES = {  # network: (epochs, {row: options})
    "mlp": (6, {
        "mlp, 6 epochs": {},
        "--max-shift 0": {"max_shift": 0},
        "--max-shift 2": {"max_shift": 2},
        "--optimizer momentum": {"optimizer": "momentum"},
        "--optimizer adam": {"optimizer": "adam"},
        "--lr-schedule constant": {"lr_schedule": "constant"},
        "--lr-schedule step": {"lr_schedule": "step"},
        "--lr-schedule exponential": {"lr_schedule": "exponential"},
        "--lr-schedule 1/t": {"lr_schedule": "1/t"},
        "--lr-schedule tanh": {"lr_schedule": "tanh"},
        "--init xavier": {"init": "xavier"},
        "--init normal": {"init": "normal"},
        "--weight-decay 1e-4": {"weight_decay": 1e-4},
        "--dropout 0.2": {"dropout": 0.2},
        "--max-shift 0 --dropout 0.2": {"max_shift": 0, "dropout": 0.2},
        "--max-shift 0 --early-stopping 2 --epochs 30": {
            "max_shift": 0, "patience": 2, "max_epoch": 30},
    }),
    "cnn": (1, {
        "cnn, 1 epoch": {},
        "--batch-norm": {"batch_norm": True},
    }),
}  # fmt: skip


def run(network, options, seed):
    """Return the accuracy on the test and on the training digits."""
    from fast.strips import set_threads
    from mnist_mlp_cpu import make_network, training_options

    set_threads(1)
    epochs, _ = CHOICES[network]
    options = training_options(network, **{"max_epoch": epochs, "seed": seed, **options})
    mlp = make_network(model=network, **options)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        mlp.load_data()
        mlp.train()
    return mlp.evaluate(), mlp.evaluate(mlp.train_data)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="of mlp, cnn (default: both)")
    networks = parser.parse_args().networks or list(CHOICES)
    if not set(networks) <= set(CHOICES):
        parser.error("the networks are mlp and cnn")
    from mnist.data import MNIST_DIR, find_mnist

    if not find_mnist(MNIST_DIR):
        sys.exit(f"{MNIST_DIR} holds no MNIST: python mnist_mlp_cpu.py --download")
    print(describe_machine() + "\n")
    rows = []
    with ProcessPoolExecutor(2) as pool:
        jobs = [
            (row, [pool.submit(run, network, options, seed) for seed in SEEDS])
            for network in networks
            for row, options in CHOICES[network][1].items()
        ]
        for row, futures in jobs:
            test, train = zip(*(future.result() for future in futures), strict=True)
            means = [statistics.mean(values) for values in (test, train)]
            each = ", ".join(f"{value:.2%}" for value in test)
            rows.append([row, *(f"{mean:.2%}" for mean in means), each])
            print(rows[-1], file=sys.stderr, flush=True)
    print_table(["what", "test digits", "training digits", "seeds 0, 1, 2"], rows)


if __name__ == "__main__":
    main()

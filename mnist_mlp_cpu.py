"""Learn to read handwritten digits with a multilayer perceptron (course book, experiment 2-1).

The network is a chain of three fully connected layers with a ReLU after the first two:

    784 pixels -> hidden1 -> ReLU -> hidden2 -> ReLU -> 10 scores -> softmax -> 10 probabilities

Training repeats four steps, each time with the next small batch of pictures: the forward pass, the
loss, the backward pass, and the update of the parameters. They are the four lines of
`MNIST_MLP.train_batch`.

    python mnist_mlp_cpu.py --help

A file that cannot be used raises `InputError`, a ValueError whose message names the file and what
is wrong with it.
"""

import argparse
import sys
import time
from math import ceil
from pathlib import Path

if __name__ == "__main__":  # the imports take seconds
    from support.command import quiet_start

    quiet_start()

import numpy as np
from threadpoolctl import threadpool_limits

from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer, random_generator
from support.command import InputError, Parser, as_path, bounded, exit_status, thread_count
from support.digits import make_synthetic_mnist
from support.files import check_outputs, write_json
from support.machine import library_versions
from support.mnist import (
    SIDE,
    download_mnist,
    find_digit,
    find_mnist,
    read_idx_images,
    read_idx_labels,
    read_mnist,
)
from support.npz import finite_float32, read_npz, write_npz
from support.pictures import check_picture_path, read_picture, write_picture
from support.progress import Bar

MNIST_DIR = Path(__file__).resolve().parent / "mnist_data"
BOOK_MNIST_DIR = Path("../mnist_data")  # where the book's programs have it
PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3")
KEPT = "trained_mlp.npz"  # beside the data: the network of the last default run
PIXEL_MEAN, PIXEL_STD = 33.3, 78.6  # of all pixels (0 to 255) in MNIST's training set

# The command's defaults. They read 98.7 % of MNIST's test digits (98.71, 98.71 and 98.75 % with the
# seeds 0, 1 and 2); without the shifts about 97.9 %.
HIDDEN = (256, 128)
EPOCHS = 12
BATCH_SIZE = 100
LEARNING_RATE = 0.2
SEED = 0
RECIPE = {"standardize": True, "anneal": True, "max_shift": 1}


class MNIST_MLP:
    """A multilayer perceptron with two hidden layers: its data, training and evaluation.

    Parameters
    ----------
    batch_size : int, default=100
        Pictures per training step.
    input_size, hidden1, hidden2, out_classes : int, default=784, 32, 16 and 10
        Pixels of a picture, then the outputs of the three layers.
    lr : float, default=0.01
        Learning rate of every step; with `anneal`, of the first step.
    max_epoch : int, default=1
        How often `train` uses the whole training set.
    print_iter : int, default=100
        The progress bar shows the loss of every `print_iter`-th batch.
    standardize : bool, default=False
        Scale the pixels to mean 0 and standard deviation 1, and draw the first weights with
        ``std="he"``. False is the book's program: raw pixels and ``std=0.01``.
    anneal : bool, default=False
        Decrease the learning rate linearly to 0: large steps at the start, small ones at the end.
    max_shift : int, default=0
        Move each training picture by up to this many pixels in both directions, differently in
        every epoch, so that the network cannot memorise the pictures.
    seed : None, int or numpy.random.Generator, default=None
        Source of randomness for weights, order and shifts; None is NumPy's global state, which
        np.random.seed sets.
    threads : int, default=1
        Threads of the matrix products in `train` and `evaluate`. They are so small that more
        threads are slower, unless every processor is idle.

    Attributes
    ----------
    train_data, test_data : ndarray of shape (N, 785), uint8
        One picture a row: 784 pixels from 0 (paper) to 255 (ink), then the label.
    data_source, data_dir : str, Path
        "mnist" or "synthetic", and the folder that was read.
    fc1, relu1, fc2, relu2, fc3, softmax : layer
        Set by `build_model`; `update_layer_list` holds the three with parameters.
    epoch_losses, epoch_seconds : list of float
        Mean loss and duration of each epoch of the last `train`.
    """

    def __init__(
        self, batch_size=100, input_size=SIDE * SIDE, hidden1=32, hidden2=16, out_classes=10,
        lr=0.01, max_epoch=1, print_iter=100, *, standardize=False, anneal=False,
        max_shift=0, seed=None, threads=1,
    ):  # fmt: skip
        self.batch_size = batch_size
        self.input_size = input_size
        self.hidden1 = hidden1
        self.hidden2 = hidden2
        self.out_classes = out_classes
        self.lr = lr
        self.max_epoch = max_epoch
        self.print_iter = print_iter
        self.standardize = standardize
        self.anneal = anneal
        self.max_shift = max_shift
        self.rng = random_generator(seed)
        self.threads = threads
        self.train_data = self.test_data = None  # set by load_data
        self.data_source = self.data_dir = None  # set by load_data
        self.layers = self.update_layer_list = None  # set by build_model
        self.epoch_losses, self.epoch_seconds = [], []  # set by train

    # The network and its training ------------------------------------------------------------

    def build_model(self):
        """Create the layers."""
        self.fc1 = FullyConnectedLayer(self.input_size, self.hidden1)
        self.relu1 = ReLULayer()
        self.fc2 = FullyConnectedLayer(self.hidden1, self.hidden2)
        self.relu2 = ReLULayer()
        self.fc3 = FullyConnectedLayer(self.hidden2, self.out_classes)
        self.softmax = SoftmaxLossLayer()
        self.layers = [self.fc1, self.relu1, self.fc2, self.relu2, self.fc3]
        self.update_layer_list = [self.fc1, self.fc2, self.fc3]

    def init_model(self):
        """Draw new weights."""
        self._check_built()
        for layer in self.update_layer_list:
            layer.init_param("he" if self.standardize else 0.01, self.rng)

    def forward(self, input):
        """Return the probabilities (N, 10) for pictures `input` (N, 784) with pixels 0 to 255."""
        layers = self._chain()
        x = np.asarray(input, dtype=np.float32)
        if self.standardize:
            x = (x - PIXEL_MEAN) / PIXEL_STD
        for layer in layers:
            x = layer.forward(x)
        return self.softmax.forward(x)

    def backward(self):
        """Propagate the gradient of the loss back through all layers; each sets its gradients."""
        first, *others = self._chain()
        diff = self.softmax.backward()
        for layer in reversed(others):
            diff = layer.backward(diff)
        first.backward(diff, need_bottom_diff=False)  # nothing uses the pixels' gradient

    def update(self, lr):
        """Take one step of gradient descent with learning rate `lr` in every layer."""
        self._check_built()
        for layer in self.update_layer_list:
            layer.update_param(lr)

    @np.errstate(over="ignore", invalid="ignore")  # `train` reports a loss that is not finite
    def train_batch(self, images, labels, lr):
        """Learn from pictures (N, 784) and labels (N,); return the loss before the update."""
        self.forward(images)
        loss = self.softmax.get_loss(labels)
        self.backward()
        self.update(lr)
        return loss

    def train(self):
        """Train for `max_epoch` epochs; each uses all of `train_data` once, in a new order.

        `InputError` if the loss becomes infinite or NaN, because the learning rate is too high.
        """
        self._check_data()
        step, steps = 0, self.max_epoch * ceil(len(self.train_data) / self.batch_size)
        self.epoch_losses, self.epoch_seconds = [], []
        with self._thread_limit(), Bar(total=steps, unit="batch", disable=steps == 0) as bar:
            for epoch in range(1, self.max_epoch + 1):
                bar.set_description(f"epoch {epoch}/{self.max_epoch}")
                start, total = time.perf_counter(), 0.0
                self.shuffle_data()
                for images, labels in self.training_batches():
                    lr = self.lr * (1 - step / steps) if self.anneal else self.lr
                    loss = self.train_batch(images, labels, lr)
                    if not np.isfinite(loss):
                        raise InputError(
                            f"the loss became {loss} in epoch {epoch}: the learning rate "
                            f"{self.lr:g} is too high"
                        )
                    total += loss * len(labels)
                    step += 1
                    bar.update()
                    if step % self.print_iter == 0:
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                mean, seconds = total / len(self.train_data), time.perf_counter() - start
                self.epoch_losses.append(mean)
                self.epoch_seconds.append(seconds)
                bar.write(f"epoch {epoch:2d}/{self.max_epoch}  loss {mean:.4f}  {seconds:.2f} s")

    def training_batches(self):
        """Yield (images, labels) for each batch of `train_data`; the last one may be smaller."""
        for first in range(0, len(self.train_data), self.batch_size):
            batch = self.train_data[first : first + self.batch_size]
            images, labels = batch[:, :-1], batch[:, -1]
            if self.max_shift:
                images = shift_pictures(images, self.max_shift, self.rng)
            yield images, labels

    @np.errstate(over="ignore", invalid="ignore")  # scores that are not finite are refused
    def evaluate(self, data=None):
        """Return the accuracy on `data`: the fraction of its pictures that are read correctly.

        `data` is like `test_data`, its default. All rows count, also those of a smaller last batch.
        `InputError` if scores are infinite or NaN: the learning rate or the weights are too large.
        """
        if data is None:
            self._check_data()
            data = self.test_data
        right = 0
        with self._thread_limit():
            for first in range(0, len(data), self.batch_size):
                batch = data[first : first + self.batch_size]
                prob = self.forward(batch[:, :-1])
                if not np.isfinite(prob).all():
                    raise InputError(
                        "the scores are no finite numbers: the learning rate, or the weights that "
                        "were loaded, are too large"
                    )
                right += int(np.sum(prob.argmax(axis=1) == batch[:, -1]))
        return right / len(data)

    def _thread_limit(self):
        return threadpool_limits(self.threads, user_api="blas")

    def _chain(self):
        """Return the layers in order, also those of a subclass with the book's `build_model`."""
        self._check_built()
        return self.layers or [self.fc1, self.relu1, self.fc2, self.relu2, self.fc3]

    def _check_built(self):
        if self.update_layer_list is None:
            raise RuntimeError("the network has no layers: call build_model first")

    def _check_data(self):
        if self.train_data is None:
            raise RuntimeError("there are no digits: call load_data first")

    # Data and files --------------------------------------------------------------------------

    def load_mnist(self, file_dir, is_images="True"):
        """Read an IDX file, plain or .gz: images as rows (N, 784), or labels as a column (N, 1).

        `is_images` says which; it may be a bool or, as in the book, "True" or "False".
        """
        if str(is_images) == "True":
            return read_idx_images(file_dir).reshape(-1, SIDE * SIDE)
        return read_idx_labels(file_dir).reshape(-1, 1)

    def load_data(self, data_dir=None):
        """Set `train_data` and `test_data` from the four MNIST files in the folder `data_dir`.

        The default looks into `mnist_data` beside this program and into the book's folder
        `../mnist_data`. If neither holds MNIST, it uses synthetic digits and prints that; the first
        time, it draws them.
        """
        folder = self.data_dir = data_folder(data_dir)
        self.data_source = "synthetic" if folder == MNIST_DIR / "synthetic" else "mnist"
        if self.data_source == "synthetic":
            make_synthetic_mnist(folder)
        train_images, train_labels, test_images, test_labels = read_mnist(folder)
        self.train_data = as_rows(train_images, train_labels)
        self.test_data = as_rows(test_images, test_labels)
        sizes = f"{len(self.train_data):,} training and {len(self.test_data):,} test digits"
        if self.data_source == "mnist":
            print(f"MNIST from {folder}: {sizes}")
        else:
            print(
                f"{MNIST_DIR} holds no MNIST: using SYNTHETIC digits drawn by this "
                f"program ({sizes}); --download fetches the real ones"
            )

    def shuffle_data(self):
        """Put the rows of `train_data` into a new random order."""
        self._check_data()
        self.train_data = self.train_data[self.rng.permutation(len(self.train_data))]

    def load_model(self, param_dir):
        """Read the parameters from the file `param_dir`, written by `save_model`."""
        self._check_built()
        parameters = read_parameters(param_dir)
        for number, layer in enumerate(self.update_layer_list, start=1):
            weight, bias = parameters[f"w{number}"], parameters[f"b{number}"]
            try:
                layer.load_param(weight, bias)
            except ValueError as error:
                raise InputError(
                    f"{param_dir} is for a different network: layer {number}: {error}"
                ) from error
        if self.standardize:  # the inverse of what save_model does
            first = self.update_layer_list[0]
            w1, b1 = first.save_param()
            with np.errstate(over="ignore", invalid="ignore"):  # `evaluate` reports it
                w1, b1 = w1 * PIXEL_STD, b1 + PIXEL_MEAN * w1.sum(axis=0, keepdims=True)
            first.load_param(w1, b1)

    def save_model(self, param_dir):
        """Write the parameters w1 b1 w2 b2 w3 b3 to the file `param_dir`, in NumPy's npz format.

        The network in the file takes raw pixels. Standardising x is a linear map, and so is the
        first layer, which makes them one linear map:

            ((x - mean) / std) W + b = x (W / std) + (b - (mean / std) sum_i W_i)
        """
        self._check_built()
        parameters = {}
        for number, layer in enumerate(self.update_layer_list, start=1):
            parameters[f"w{number}"], parameters[f"b{number}"] = layer.save_param()
        if self.standardize:
            w1 = parameters["w1"].astype(np.float64) / PIXEL_STD
            b1 = parameters["b1"] - PIXEL_MEAN * w1.sum(axis=0, keepdims=True)
            parameters["w1"], parameters["b1"] = w1, b1
        parameters = {name: finite_float32(array) for name, array in parameters.items()}
        if any(array is None for array in parameters.values()):
            raise InputError(f"{param_dir} is not written: some parameters are no finite numbers")
        write_npz(param_dir, parameters, "the parameters")


def data_folder(data_dir=None):
    """Return the folder with the digits: `data_dir`, or where `MNIST_MLP.load_data` looks."""
    if data_dir is not None:
        return Path(data_dir)
    return next(filter(find_mnist, (MNIST_DIR, BOOK_MNIST_DIR)), MNIST_DIR / "synthetic")


def as_rows(images, labels):
    """Return images (N, 28, 28) and labels (N,) as `MNIST_MLP.train_data` holds them."""
    rows = images.reshape(len(images), -1)  # (N, 28, 28) -> (N, 784)
    return np.column_stack([rows, labels])  # (N, 784) and (N,) -> (N, 785)


def shift_pictures(pictures, largest, rng):
    """Return the pictures (N, 784), each moved by up to `largest` pixels along both axes.

    Each picture gets a margin of paper (0), then a random window of the old size is cut out. What
    leaves the window is lost.
    """
    count = len(pictures)
    margin = (largest, largest)
    padded = np.pad(pictures.reshape(count, SIDE, SIDE), ((0, 0), margin, margin))
    # a view of all P x P windows, P = 2 largest + 1: (N, 27 + P, 27 + P) -> (N, P, P, 28, 28)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    row, column = rng.integers(0, 2 * largest, size=(2, count), endpoint=True)
    return windows[np.arange(count), row, column].reshape(count, -1)  # (N, 28, 28) -> (N, 784)


def read_parameters(path):
    """Return {"w1": array, "b1": array, ...} from the npz file `path`; shapes are not checked."""
    with read_npz(path, "file of parameters") as arrays:
        for name in PARAMETERS:
            if name not in arrays:
                raise InputError(f"{path} holds no {name}; expected {', '.join(PARAMETERS)}")
        return {name: arrays.floats(name) for name in PARAMETERS}


def make_network(hidden, param_dir, **options):
    """Return a network with the parameters in the file `param_dir`, with new ones if it is None.

    `hidden` is the sizes of the hidden layers; None: those in the file, or the default.
    """
    if hidden is None:
        hidden = HIDDEN
        if param_dir is not None:
            parameters = read_parameters(param_dir)
            hidden = parameters["b1"].size, parameters["b2"].size
    mlp = MNIST_MLP(hidden1=hidden[0], hidden2=hidden[1], **options, **RECIPE)
    mlp.build_model()
    if param_dir is None:
        mlp.init_model()
    else:
        mlp.load_model(param_dir)
    return mlp


def build_mnist_mlp(param_dir=None, data_dir=None):
    """Return the command's default network, trained on the digits in the folder `data_dir`.

    The default folder is that of `MNIST_MLP.load_data`. If `param_dir` is given, its parameters are
    read from that file instead.
    """
    mlp = make_network(
        None, param_dir, batch_size=BATCH_SIZE, lr=LEARNING_RATE, max_epoch=EPOCHS, seed=SEED
    )
    mlp.load_data(data_dir)
    if param_dir is None:
        mlp.train()
    return mlp


# Digits of one's own -------------------------------------------------------------------------


def read_digits(paths):
    """Return {path: digit} of the pictures at `paths`; a digit is what the network gets, (28, 28).

    A picture that cannot be used is named on the standard error and left out.
    """
    digits = {}
    for path in paths:
        try:
            picture = read_picture(path)
            try:
                digits[path] = find_digit(picture)
            except InputError as error:
                raise InputError(f"cannot use the picture {path}: {error}") from None
        except InputError as error:
            print(f"mnist_mlp_cpu.py: error: {error}", file=sys.stderr)
    return digits


def predict(mlp, digits):
    """Print what the network `mlp` reads in each of `digits`; return {path: ten probabilities}."""
    probabilities = {}
    for path, digit in digits.items():
        (prob,) = mlp.forward(digit.reshape(1, -1))  # (28, 28) -> (1, 784)
        best = prob.argsort()[::-1][:3]
        most = ", ".join(f"{number} {prob[number]:.1%}" for number in best)
        print(f"{path}: {best[0]}  ({most})")
        probabilities[str(path)] = prob.round(6).tolist()
    return probabilities


def write_seen(path, digits, zoom=8):
    """Write `digits` (28, 28) side by side to the picture file `path`, each pixel enlarged."""
    row = np.concatenate([np.pad(digit, 1, constant_values=96) for digit in digits], axis=1)
    enlarged = row.repeat(zoom, axis=0).repeat(zoom, axis=1)  # (30, 30 N) -> (240, 240 N)
    write_picture(path, np.stack([enlarged] * 3, axis=2))  # -> (240, 240 N, 3)


# The command ---------------------------------------------------------------------------------

EXAMPLES = """examples:
  python mnist_mlp_cpu.py                           train on MNIST, or on synthetic digits
  python mnist_mlp_cpu.py --download                download MNIST (11.6 MB), then train on it
  python mnist_mlp_cpu.py mine.jpg                  read a digit of your own
  python mnist_mlp_cpu.py --hidden 32 16 --epochs 5 --save small.npz --report small.json
  python mnist_mlp_cpu.py --load small.npz          only measure the accuracy of a saved network
  python mnist_mlp_cpu.py --load small.npz --epochs 3 --lr 0.05     train it further"""


def parse_arguments(argv):
    """Return the parsed options of the command line."""
    parser = Parser(
        prog="mnist_mlp_cpu.py",
        description="Learn to read handwritten digits with a multilayer perceptron.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from_0, from_1 = bounded(int, least=0), bounded(int, least=1, most=10**6)
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data-dir", metavar="DIR", type=as_path,
        help="folder with the four MNIST files, plain or .gz (default: mnist_data beside this "
        "program, or ../mnist_data; if they hold none, synthetic digits are drawn)")
    add("--download", action="store_true", help="download MNIST (11.6 MB) to that folder first")
    add = parser.add_argument_group("digits of your own").add_argument
    add("images", metavar="IMAGE", nargs="*", type=as_path, default=[],
        help="read the digit in each of these photographs or drawings, one digit a picture, dark "
        "on light or light on dark. The network is that of --load, or the one that a run with the "
        "default training options has kept beside the data, or is trained first")
    add("--predict", metavar="IMAGE", nargs="+", type=as_path, default=[], help="the same")
    add("--seen", metavar="FILE.png", type=as_path,
        help="write the 28x28 pixels that the network gets, enlarged, side by side")
    add = parser.add_argument_group("training").add_argument
    add("--hidden", metavar=("H1", "H2"), nargs=2,
        type=bounded(int, least=1, most=10_000),
        help=f"sizes of the two hidden layers (default: {HIDDEN[0]} {HIDDEN[1]}, or the sizes in "
        "the file given by --load)")
    add("--epochs", metavar="N", type=bounded(int, least=0, most=10**6),
        help=f"how often to use the whole training set (default: {EPOCHS}; with --load 0, which "
        "only measures the accuracy)")
    add("--batch-size", metavar="N", type=from_1, default=BATCH_SIZE,
        help="pictures per step (default: %(default)s)")
    add("--lr", metavar="RATE", type=bounded(float, above=0), default=LEARNING_RATE,
        help="learning rate of the first step; it decreases linearly to 0 (default: %(default)s)")
    add("--seed", metavar="N", type=from_0, default=SEED,
        help="seed of weights, order and shifts; the synthetic digits do not depend on it "
        "(default: %(default)s)")
    add("--threads", metavar="N", type=thread_count, default=1,
        help="threads of the matrix products; one per idle processor is fastest, more are slower "
        "(default: %(default)s)")
    add = parser.add_argument_group("files").add_argument
    add("--save", metavar="FILE.npz", type=as_path,
        help="write the parameters of the trained network")
    add("--load", metavar="FILE.npz", type=as_path, help="start from parameters written by --save")
    add("--report", metavar="FILE.json", type=as_path, help="write settings, losses and accuracies")
    # fmt: on
    arguments = parser.parse_args(argv)
    arguments.images += arguments.predict
    if arguments.seen and not arguments.images:
        parser.error("--seen needs a picture to read")
    settings = ("hidden", "epochs", "batch_size", "lr", "seed", "load")
    arguments.by_default = all(getattr(arguments, n) == parser.get_default(n) for n in settings)
    if arguments.epochs is None:
        arguments.epochs = EPOCHS if arguments.load is None else 0
    return arguments


def run(arguments):
    """Train and evaluate, or read the user's digits, and write the files that were asked for."""
    # now, so that a wrong path fails before the training
    if arguments.seen:
        check_picture_path(arguments.seen)
    outputs = [path for path in (arguments.save, arguments.report, arguments.seen) if path]
    check_outputs(outputs, arguments.images)
    if arguments.report and arguments.load:  # --save may replace the file that was loaded
        check_outputs([arguments.report], [arguments.load])
    digits = read_digits(arguments.images)
    if arguments.images and not digits:
        return 2
    mlp = make_network(
        arguments.hidden, arguments.load, batch_size=arguments.batch_size, lr=arguments.lr,
        max_epoch=arguments.epochs, seed=arguments.seed, threads=arguments.threads,
    )  # fmt: skip
    if arguments.download:
        download_mnist(arguments.data_dir or MNIST_DIR)
    kept = data_folder(arguments.data_dir) / KEPT
    if digits and arguments.by_default and kept.is_file():
        print(f"network: {kept}, kept by an earlier run")
        mlp.load_model(kept)
        arguments.load, mlp.max_epoch = kept, 0
    report = {}
    if mlp.max_epoch or not digits:
        mlp.load_data(arguments.data_dir)
        check_outputs(outputs, find_mnist(mlp.data_dir).values())
        report |= train_and_evaluate(mlp)
        if arguments.by_default:
            keep_network(mlp, kept)
    if digits:
        report["probabilities"] = predict(mlp, digits)
    if arguments.seen:
        write_seen(arguments.seen, digits.values())
    if arguments.save:
        mlp.save_model(arguments.save)
    if arguments.report:
        write_json(arguments.report, make_report(arguments, mlp) | report)
    return 0 if len(digits) == len(set(arguments.images)) else 2


def train_and_evaluate(mlp):
    """Train, measure and print the accuracies; return them and the facts of the data."""
    mlp.train()
    train_accuracy, test_accuracy = mlp.evaluate(mlp.train_data), mlp.evaluate()
    print(
        f"accuracy {test_accuracy:.2%} on the test digits, "
        f"{train_accuracy:.2%} on the training digits"
        + (f"; training took {sum(mlp.epoch_seconds):.1f} s" if mlp.max_epoch else "")
    )
    return {
        "data_source": mlp.data_source,
        "data_dir": str(mlp.data_dir),
        "train_digits": len(mlp.train_data),
        "test_digits": len(mlp.test_data),
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
    }


def keep_network(mlp, path):
    """Save the network to `path`, if that is possible, and say so."""
    try:
        mlp.save_model(path)
        print(f"{path} keeps this network, for digits of your own")
    except InputError as error:  # a folder that is read-only: the run is good without it
        print(f"the network is not kept: {error}")


def make_report(arguments, mlp):
    """Return the settings, losses and times of the training as a dict for `--report`."""
    names = ("epochs", "batch_size", "lr", "seed", "threads")
    return {
        "hyper_parameters": {
            "hidden": [mlp.hidden1, mlp.hidden2],
            **{name: getattr(arguments, name) for name in names},
            "load": arguments.load and str(arguments.load),
            **RECIPE,
        },
        "loss_per_epoch": mlp.epoch_losses,
        "seconds_per_epoch": mlp.epoch_seconds,
        "library_versions": library_versions("numpy", "threadpoolctl", "tqdm", "pooch"),
    }


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 when interrupted."""
    return exit_status("mnist_mlp_cpu.py", lambda argv: run(parse_arguments(argv)), argv)


if __name__ == "__main__":
    raise SystemExit(main())

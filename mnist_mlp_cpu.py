"""Learn to read handwritten digits (course book, experiment 2-1).

The network is a multilayer perceptron: three fully connected layers, a ReLU after the first two:

    784 pixels -> hidden1 -> ReLU -> hidden2 -> ReLU -> 10 scores -> softmax -> 10 probabilities

or, with `--model cnn`, two convolutions with ReLU and pooling, then two fully connected layers.
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
from contextlib import contextmanager
from math import ceil
from pathlib import Path

if __name__ == "__main__":  # the imports take seconds
    from support.command import quiet_start

    quiet_start()

import numpy as np
from threadpoolctl import threadpool_limits

from fast.strips import single_threaded_blas
from layers1 import (
    DropoutLayer,
    FullyConnectedLayer,
    MomentumOptimizer,
    ReLULayer,
    SoftmaxLossLayer,
    random_generator,
)
from layers2 import BatchNormLayer, ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from layers3 import AdamOptimizer
from support.command import InputError, Parser, as_path, bounded, exit_status, thread_count
from support.digits import make_synthetic_mnist
from support.figures import enlarged, in_rows, sheet
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
from support.picture_list import PictureList
from support.pictures import check_picture_path, write_picture
from support.progress import Bar
from support.training_figures import write_figures

MNIST_DIR = Path(__file__).resolve().parent / "mnist_data"
BOOK_MNIST_DIR = Path("../mnist_data")  # where the book's programs have it
PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4")  # the last two only of the CNN
PIXEL_MEAN, PIXEL_STD = 33.3, 78.6  # of all pixels (0 to 255) in MNIST's training set
BATCH_SIZE = 100
SEED = 0
PROGRAM = "mnist_mlp_cpu.py"

# The learning rate as a share of the first one, when a share t of the training is done.
SCHEDULES = {
    "constant": lambda t: 1.0,
    "step": lambda t: 0.1 ** int(3 * t),  # a tenth after each third
    "exponential": lambda t: 0.01**t,
    "1/t": lambda t: 1 / (1 + 20 * t),
    # hyperbolic tangent: B. Hsueh, W. Li, I. Wu, WACV 2019, equation 4 with L = -6, U = 3
    "tanh": lambda t: (1 - np.tanh(9 * t - 6)) / 2,
    # half a cosine: I. Loshchilov, F. Hutter, "SGDR", ICLR 2017, equation 5
    "cosine": lambda t: (1 + np.cos(np.pi * t)) / 2,
}
LEARNING_RATES = {"sgd": 0.2, "momentum": 0.05, "adam": 0.001}  # of the command
OPTIMIZERS = {"momentum": MomentumOptimizer, "adam": AdamOptimizer}  # "sgd": the layers' own
INITS = {"he": "he", "xavier": "xavier", "normal": 0.01}  # what `init_param` takes

HIDDEN_BIASES = {"mlp": ("b1", "b2"), "cnn": ("b3",)}  # as long as the hidden layers are wide

# What the command does when no option says otherwise.
RECIPES = {
    "mlp": {"hidden": (256, 128), "epochs": 12, "optimizer": "sgd", "max_shift": 1},
    "cnn": {"hidden": (128,), "epochs": 10, "optimizer": "momentum", "max_shift": 2},
}


class MNIST_MLP:
    """A multilayer perceptron with two hidden layers: its data, training and evaluation.

    Parameters
    ----------
    batch_size : int, default=100
        Pictures per training step.
    input_size, hidden1, hidden2, out_classes : int, default=784, 32, 16 and 10
        Pixels of a picture, then the outputs of the three layers.
    lr : float, default=0.01
        Learning rate of the first step.
    max_epoch : int, default=1
        How often `train` uses the whole training set.
    print_iter : int, default=100
        The progress bar shows the loss of every `print_iter`-th batch.
    standardize : bool, default=False
        Scale the pixels to mean 0 and standard deviation 1; the book's program does not.
    init : {"normal", "he", "xavier"}, default="normal"
        How to draw the first weights: see `layers1.draw_weights`; "normal" is std=0.01.
    optimizer : {"sgd", "momentum", "adam"}, default="sgd"
        `update_param` of the layers, `layers1.MomentumOptimizer` or `layers3.AdamOptimizer`.
    lr_schedule : str, default="constant"
        How the learning rate decreases during the training: a key of `SCHEDULES`.
    weight_decay : float, default=0
        lambda of the L2 penalty lambda/2 sum W^2 on all weights W. It adds lambda W to their
        gradients; the losses shown are without it.
    dropout : float, default=0
        Rate of a `DropoutLayer` after each hidden fully connected layer; 0 for none.
    patience : int, default=0
        Early stopping: a twelfth of the training digits is held out, and the training ends when
        their accuracy has not grown for so many epochs. The best parameters are kept. 0 for never.
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
    history : list of dict
        For each epoch of the last `train`: number, loss and accuracy in training (of each batch
        before its update), test_loss and test_accuracy after it, lr, seconds without the test, and
        validation_accuracy if `patience` holds digits out.
    best : None or (dict, list)
        The epoch of `history` with the best parameters so far, and these: highest accuracy on the
        digits held out, else lowest training loss.
    """

    def __init__(
        self, batch_size=100, input_size=SIDE * SIDE, hidden1=32, hidden2=16, out_classes=10,
        lr=0.01, max_epoch=1, print_iter=100, *, standardize=False, init="normal",
        optimizer="sgd", lr_schedule="constant", weight_decay=0, dropout=0, patience=0,
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
        self.init = init
        self.optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.patience = patience
        self.max_shift = max_shift
        self.rng = random_generator(seed)
        self.threads = threads
        self.train_data = self.test_data = self.validation_data = None  # set by load_data, train
        self.data_source = self.data_dir = None  # set by load_data
        self.layers = self.update_layer_list = None  # set by build_model
        self.optimizers = {}  # set by update: one for each array of parameters
        self.history, self.best = [], None  # set by train

    pixel_mean, pixel_std = PIXEL_MEAN, PIXEL_STD  # what `standardize` subtracts and divides by

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
        if self.dropout:
            self.layers.insert(4, DropoutLayer(self.dropout, self.rng))
            self.layers.insert(2, DropoutLayer(self.dropout, self.rng))
        self.update_layer_list = [self.fc1, self.fc2, self.fc3]

    def init_model(self):
        """Draw new weights."""
        self._check_built()
        for layer in self.update_layer_list:
            layer.init_param(INITS[self.init], self.rng)

    def as_input(self, pixels):
        """Return pixels (N, 784) from 0 to 255 as the first layer takes them."""
        x = np.asarray(pixels, dtype=np.float32)
        return (x - self.pixel_mean) / self.pixel_std if self.standardize else x

    def forward(self, input):
        """Return the probabilities (N, 10) for pictures `input` (N, 784) with pixels 0 to 255."""
        layers = self._chain()
        x = self.as_input(input)
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
        """Take one step of the optimiser with learning rate `lr` in every layer."""
        self._check_built()
        for layer in self.update_layer_list:
            if self.weight_decay and layer.weight.ndim > 1:  # not gamma of batch normalisation
                layer.d_weight = layer.d_weight + self.weight_decay * layer.weight
            if self.optimizer == "sgd":
                layer.update_param(lr)
                continue
            for name in ("weight", "bias"):
                parameter, gradient = getattr(layer, name), getattr(layer, f"d_{name}")
                if (layer, name) not in self.optimizers:
                    new = OPTIMIZERS[self.optimizer](lr, parameter.shape)
                    self.optimizers[layer, name] = new
                optimizer = self.optimizers[layer, name]
                optimizer.lr = lr
                setattr(layer, name, optimizer.update(parameter, gradient))

    @np.errstate(over="ignore", invalid="ignore")  # `train` reports a loss that is not finite
    def train_batch(self, images, labels, lr):
        """Learn from pictures (N, 784) and labels (N,); return the loss before the update."""
        with self._training_mode():
            self.forward(images)
            loss = self.softmax.get_loss(labels)
            self.backward()
        self.update(lr)
        return loss

    def train(self):
        """Train for `max_epoch` epochs; each uses all of `train_data` once, in a new order.

        With `patience` it may end earlier. `InputError` if the loss becomes infinite or NaN,
        because the learning rate is too high.
        """
        self._check_data()
        self._hold_out()
        batches = ceil(len(self.train_data) / self.batch_size)
        self.history, self.best, self.optimizers = [], None, {}
        total = self.max_epoch * batches
        with self._thread_limit(), Bar(total=total, unit="batch", disable=total == 0) as bar:
            for number in range(1, self.max_epoch + 1):
                bar.set_description(f"epoch {number}/{self.max_epoch}")
                self.history.append(self._train_epoch(number, batches, bar))
                self._measure_epoch()
                bar.write(self._epoch_line())
                if self.patience and number - self.best[0]["number"] >= self.patience:
                    bar.write(f"stopped: no better since epoch {self.best[0]['number']}")
                    break
        if self.patience and self.best:
            self.restore_best()

    def _train_epoch(self, number, batches, bar):
        """Use every training digit once; return the entry of `history`."""
        start, loss_sum, right, seen = time.perf_counter(), 0.0, 0, 0
        self.shuffle_data()
        for i, (images, labels) in enumerate(self.training_batches()):
            done = (number - 1 + i / batches) / self.max_epoch
            lr = self.lr * SCHEDULES[self.lr_schedule](done)
            loss = self.train_batch(images, labels, lr)
            if not np.isfinite(loss):
                raise InputError(
                    f"the loss became {loss} in epoch {number}: the learning rate {self.lr:g} is "
                    "too high"
                )
            loss_sum += loss * len(labels)
            right += int(np.sum(self.softmax.prob.argmax(axis=1) == labels))
            seen += len(labels)
            bar.update()
            if ((number - 1) * batches + i + 1) % self.print_iter == 0:
                bar.set_postfix_str(f"loss {loss_sum / seen:.4f}, {right / seen:.2%}", False)
        return {
            "number": number,
            "loss": loss_sum / seen,
            "accuracy": right / seen,
            "lr": lr,
            "seconds": time.perf_counter() - start,
        }

    def _measure_epoch(self):
        """Add the accuracies after the last epoch to its entry; keep its parameters if best."""
        entry = self.history[-1]
        if self.test_data is not None:
            entry["test_loss"], entry["test_accuracy"] = self.measure(self.test_data)
        score = -entry["loss"]
        if self.patience:
            score = entry["validation_accuracy"] = self.measure(self.validation_data)[1]
        if self.best is None or score > self.best[0]["score"]:
            self.best = {**entry, "score": score}, self._all_parameters()

    def _epoch_line(self):
        entry = self.history[-1]
        line = (
            f"epoch {entry['number']:2d}/{self.max_epoch}  loss {entry['loss']:.4f}  "
            f"accuracy {entry['accuracy']:.2%}"
        )
        for name in ("validation", "test"):
            if f"{name}_accuracy" in entry:
                line += f"  {name} {entry[f'{name}_accuracy']:.2%}"
        return line + f"  {entry['seconds']:.2f} s"

    def restore_best(self):
        """Go back to the parameters in `best`."""
        for layer, parameters in zip(self.update_layer_list, self.best[1], strict=True):
            layer.load_param(*parameters)

    def _all_parameters(self):
        return [layer.save_param() for layer in self.update_layer_list]

    def _hold_out(self):
        """Move a twelfth of the training digits to `validation_data`, if `patience` needs them."""
        if self.patience and self.validation_data is None:
            self.shuffle_data()
            count = max(1, len(self.train_data) // 12)
            self.validation_data = self.train_data[:count]
            self.train_data = self.train_data[count:]

    @contextmanager
    def _training_mode(self):
        """In this context, dropout and batch normalisation do what they do in training."""
        layers = [layer for layer in self._chain() if hasattr(layer, "training")]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def training_batches(self):
        """Yield (images, labels) for each batch of `train_data`; the last one may be smaller."""
        for first in range(0, len(self.train_data), self.batch_size):
            batch = self.train_data[first : first + self.batch_size]
            images, labels = batch[:, :-1], batch[:, -1]
            if self.max_shift:
                images = shift_pictures(images, self.max_shift, self.rng)
            yield images, labels

    def evaluate(self, data=None):
        """Return the accuracy on `data`: the fraction of its pictures that are read correctly.

        `data` is like `test_data`, its default. All rows count, also those of a smaller last batch.
        """
        if data is None:
            self._check_data()
            data = self.test_data
        return self.measure(data)[1]

    def measure(self, data):
        """Return the mean loss and the accuracy on `data`, an array like `test_data`."""
        labels = data[:, -1]
        prob = self.probabilities(data)
        loss = -np.log(np.maximum(prob[np.arange(len(data)), labels], 1e-30)).mean()
        return float(loss), float(np.mean(prob.argmax(axis=1) == labels))

    @np.errstate(over="ignore", invalid="ignore")  # scores that are not finite are refused
    def probabilities(self, data):
        """Return the probabilities (N, 10) of all digits in `data`, batch by batch.

        `InputError` if scores are infinite or NaN: the learning rate or the weights are too large.
        """
        parts = []
        with self._thread_limit():
            for first in range(0, len(data), self.batch_size):
                prob = self.forward(data[first : first + self.batch_size, :-1])
                if not np.isfinite(prob).all():
                    raise InputError(
                        "the scores are not finite numbers: the learning rate, or the weights that "
                        "were loaded, are too large"
                    )
                parts.append(prob)
        return np.concatenate(parts)

    def _thread_limit(self):
        if self.threads == 1:
            return single_threaded_blas()  # the convolutions then need not limit it each time
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
        """Read the parameters from the file `param_dir`, written by `save_model`.

        Batch normalisation, which is not in the file, starts as the identity.
        """
        self._check_built()
        parameters = read_parameters(param_dir)
        plain = [layer for layer in self.update_layer_list if not _is_batch_norm(layer)]
        for number, layer in enumerate(plain, start=1):
            try:
                layer.load_param(parameters[f"w{number}"], parameters[f"b{number}"])
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"{param_dir} is for a different network: layer {number}: {error}"
                ) from error
        for layer in filter(_is_batch_norm, self.update_layer_list):
            layer.init_param()
        if self.standardize:  # the inverse of what save_model does
            first = self.update_layer_list[0]
            w1, b1 = first.save_param()
            with np.errstate(over="ignore", invalid="ignore"):  # `evaluate` reports it
                w1, b1 = w1 * self.pixel_std, b1 + self.pixel_mean * _input_sums(w1)
            first.load_param(w1, b1)

    def save_model(self, param_dir):
        """Write the parameters w1 b1 w2 b2 ... to the file `param_dir`, in NumPy's npz format.

        The network in the file takes raw pixels. Standardising x is a linear map, and so is the
        first layer, which makes them one linear map:

            ((x - mean) / std) W + b = x (W / std) + (b - (mean / std) sum_i W_i)

        In the same way, batch normalisation is made part of the convolution before it.
        """
        self._check_built()
        plain = []
        for layer in self.update_layer_list:
            if _is_batch_norm(layer):
                plain[-1] = layer.folded_into(*plain[-1])
            else:
                plain.append(layer.save_param())
        if self.standardize:
            w1, b1 = plain[0]
            w1 = w1.astype(np.float64) / self.pixel_std
            plain[0] = w1, b1 - self.pixel_mean * _input_sums(w1)
        parameters = {}
        for number, (weight, bias) in enumerate(plain, start=1):
            parameters |= {f"w{number}": finite_float32(weight), f"b{number}": finite_float32(bias)}
        if any(array is None for array in parameters.values()):
            raise InputError(f"{param_dir} is not written: some parameters are no finite numbers")
        write_npz(param_dir, parameters, "the parameters")


def _is_batch_norm(layer):
    return isinstance(layer, BatchNormLayer)


def _input_sums(weight):
    """Return the sum of the weights to each output: (inputs, outputs) -> (1, outputs)."""
    return weight.sum(axis=0, keepdims=True) if weight.ndim == 2 else weight.sum(axis=(0, 1, 2))


class MNIST_CNN(MNIST_MLP):
    """A small convolutional network, trained like `MNIST_MLP`.

        28x28 -> [5x5 convolution -> ReLU -> 2x2 max pooling] twice: 16 channels of 14x14, then 32
        of 7x7 -> fully connected -> ReLU -> fully connected -> softmax

    With `batch_norm`, a `BatchNormLayer` stands between each convolution and its ReLU. Pixels are
    from 0 to 1, so that paper is 0 like the padding.

    Parameters
    ----------
    hidden1 : int, default=128
        Outputs of the first fully connected layer.
    batch_norm : bool, default=False
    **options
        Those of `MNIST_MLP`, except the sizes of layers.
    """

    channels = 16, 32
    pixel_mean, pixel_std = 0, 255

    def __init__(self, hidden1=128, *, batch_norm=False, **options):
        super().__init__(hidden1=hidden1, **options)
        self.batch_norm = batch_norm

    def build_model(self):
        """Create the layers."""
        self.layers, channel_in = [], 1
        for channel_out in self.channels:
            self.layers.append(ConvolutionalLayer(5, channel_in, channel_out, padding=2, stride=1))
            if self.batch_norm:
                self.layers.append(BatchNormLayer(channel_out))
            self.layers += [ReLULayer(), MaxPoolingLayer(2, 2)]
            channel_in = channel_out
        side = SIDE // 4
        features = channel_in * side * side
        self.layers += [
            FlattenLayer((channel_in, side, side), (features,)),
            FullyConnectedLayer(features, self.hidden1),
            ReLULayer(),
        ]
        if self.dropout:
            self.layers.append(DropoutLayer(self.dropout, self.rng))
        self.layers.append(FullyConnectedLayer(self.hidden1, self.out_classes))
        self.softmax = SoftmaxLossLayer()
        self.update_layer_list = [layer for layer in self.layers if hasattr(layer, "update_param")]

    def as_input(self, pixels):
        """Return pixels (N, 784) as (N, 1, 28, 28)."""
        return super().as_input(pixels).reshape(-1, 1, SIDE, SIDE)


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
        names = PARAMETERS if "w4" in arrays else PARAMETERS[:6]
        for name in names:
            if name not in arrays:
                raise InputError(f"{path} holds no {name}; expected {', '.join(names)}")
        return {name: arrays.floats(name) for name in names}


def make_network(param_dir=None, model=None, hidden=None, **options):
    """Return a network with the parameters in the file `param_dir`, with new ones if it is None.

    Model ("mlp" or "cnn") and sizes of the hidden layers are those in the file, or the defaults,
    unless they are given. The other options are those of the network's class.
    """
    if param_dir is not None:
        parameters = read_parameters(param_dir)
        model = model or _model_of(parameters)
        hidden = hidden or [parameters[name].size for name in HIDDEN_BIASES[model]]
    model = model or "mlp"
    hidden = hidden or RECIPES[model]["hidden"]
    expected = len(HIDDEN_BIASES[model])
    if len(hidden) != expected:
        raise InputError(f"--hidden needs {expected} for --model {model}, got {len(hidden)}")
    if options.get("batch_norm") and model == "mlp":
        raise InputError("--batch-norm needs --model cnn")
    network = {"mlp": MNIST_MLP, "cnn": MNIST_CNN}[model]
    sizes = {f"hidden{i}": size for i, size in enumerate(hidden, start=1)}
    mlp = network(standardize=True, **sizes, **options)
    mlp.build_model()
    if param_dir is None:
        mlp.init_model()
    else:
        mlp.load_model(param_dir)
    return mlp


def _model_of(parameters):
    return "cnn" if "w4" in parameters else "mlp"


def training_options(model="mlp", **given):
    """Return the options for `make_network` of the command: those `given`, else the defaults.

    Those that are None count as not given.
    """
    given = {name: value for name, value in given.items() if value is not None}
    optimizer = given.get("optimizer", RECIPES[model]["optimizer"])
    return {
        "batch_size": BATCH_SIZE, "seed": SEED, "max_epoch": RECIPES[model]["epochs"],
        "optimizer": optimizer, "lr": LEARNING_RATES[optimizer], "lr_schedule": "cosine",
        "init": "he", "max_shift": RECIPES[model]["max_shift"],
    } | given  # fmt: skip


def build_mnist_mlp(param_dir=None, data_dir=None):
    """Return the command's default network, trained on the digits in the folder `data_dir`.

    The default folder is that of `MNIST_MLP.load_data`. If `param_dir` is given, its parameters are
    read from that file instead.
    """
    mlp = make_network(param_dir, "mlp", **training_options())
    mlp.load_data(data_dir)
    if param_dir is None:
        mlp.train()
    return mlp


# Digits of one's own -------------------------------------------------------------------------


def read_digits(pictures):
    """Return {path: digit} of a `PictureList`; a digit is what the network gets, (28, 28).

    A picture that cannot be used is named on the standard error and left out.
    """
    digits = {}
    for path in pictures.paths:
        picture = pictures.read(path)
        if picture is None:
            continue
        try:
            digits[path] = find_digit(picture)
        except InputError as error:
            print(f"{PROGRAM}: error: cannot use the picture {path}: {error}", file=sys.stderr)
    return digits


def predict(mlp, digits):
    """Print what the network `mlp` reads in each of `digits`; return {path: ten probabilities}."""
    probabilities = {}
    data = np.array([[*digit.flat, 0] for digit in digits.values()])  # (28, 28) -> (N, 784 + 1)
    for path, prob in zip(digits, mlp.probabilities(data), strict=True):
        best = prob.argsort()[::-1][:3]
        most = ", ".join(f"{number} {prob[number]:.1%}" for number in best)
        print(f"{path}: {best[0]}  ({most})")
        probabilities[str(path)] = prob.round(6).tolist()
    return probabilities


def write_seen(path, digits, probabilities):
    """Write the pixels of `digits` (28, 28) to the picture file `path`, with what they are read as.

    `probabilities` is that of `predict`.
    """
    cells = []
    for (name, digit), prob in zip(digits.items(), probabilities.values(), strict=True):
        pixels = enlarged(np.stack([digit] * 3, axis=2), 5 * SIDE)  # (28, 28) -> (28, 28, 3)
        cells.append((f"{name.name}: {np.argmax(prob)}", pixels))
    write_picture(path, sheet("what the network gets, and reads", in_rows(cells, 5)))


# The command ---------------------------------------------------------------------------------

EXAMPLES = """examples:
  python mnist_mlp_cpu.py                           train on MNIST, or on synthetic digits
  python mnist_mlp_cpu.py --download                download MNIST (11.6 MB), then train on it
  python mnist_mlp_cpu.py mine.jpg                  read a digit of your own
  python mnist_mlp_cpu.py --model cnn --figures out train a convolutional network, draw its curves
  python mnist_mlp_cpu.py --hidden 32 16 --epochs 5 --save small.npz --report small.json
  python mnist_mlp_cpu.py --load small.npz          only measure the accuracy of a saved network
  python mnist_mlp_cpu.py --load small.npz --epochs 3 --lr 0.05     train it further"""


def parse_arguments(argv):
    """Return the parsed options of the command line."""
    parser = Parser(
        prog=PROGRAM,
        description="Learn to read handwritten digits, and read your own.",
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
    training = []  # the names of all that is chosen here

    def choice(*names, **options):
        training.append(add(*names, **options).dest)

    choice("--model", choices=list(RECIPES),
        help="mlp, a multilayer perceptron, or cnn, a convolutional network (default: mlp, or that "
        "in the file given by --load)")
    choice("--hidden", metavar="H", nargs="+", type=bounded(int, least=1, most=10_000),
        help="sizes of the hidden fully connected layers: two for mlp (default: 256 128), one for "
        "cnn (128); or the sizes in the file given by --load")
    choice("--epochs", metavar="N", type=bounded(int, least=0, most=10**6), dest="max_epoch",
        help="how often to use the whole training set (default: 12 for mlp, 10 for cnn; with "
        "--load 0, which only measures the accuracy)")
    choice("--batch-size", metavar="N", type=from_1,
        help=f"pictures per step (default: {BATCH_SIZE})")
    choice("--optimizer", choices=list(LEARNING_RATES),
        help="gradient descent, the same with momentum, or Adam (default: sgd for mlp, momentum "
        "for cnn)")
    choice("--lr", metavar="RATE", type=bounded(float, above=0),
        help="learning rate of the first step (default: "
        + ", ".join(f"{rate} for {name}" for name, rate in LEARNING_RATES.items()) + ")")
    choice("--lr-schedule", choices=list(SCHEDULES),
        help="how the learning rate decreases (default: cosine)")
    choice("--weight-decay", metavar="LAMBDA", type=bounded(float, least=0),
        help="L2 penalty on the weights (default: 0)")
    choice("--init", choices=list(INITS),
        help="first weights: He's, Xavier's or standard deviation 0.01 (default: he)")
    choice("--dropout", metavar="RATE", type=bounded(float, least=0, most=0.95),
        help="share of the hidden values that each training step sets to 0 (default: 0)")
    choice("--batch-norm", action="store_true", default=None,
        help="batch normalisation after the convolutions of cnn")
    choice("--max-shift", metavar="PIXELS", type=bounded(int, least=0, most=10),
        help="move each training picture at random by up to this many pixels, differently in every "
        "epoch (default: 1 for mlp, 2 for cnn)")
    choice("--early-stopping", metavar="N", type=from_1, dest="patience",
        help="hold out a twelfth of the training digits, stop when their accuracy has not grown "
        "for N epochs, and keep the best parameters")
    choice("--seed", metavar="N", type=from_0,
        help="seed of weights, order and shifts; the synthetic digits do not depend on it "
        f"(default: {SEED})")
    add("--threads", metavar="N", type=thread_count, default=1,
        help="threads of the fully connected layers; one per idle processor is fastest, more are "
        "slower (default: %(default)s); convolutions use all processors")
    add = parser.add_argument_group("files").add_argument
    add("--save", metavar="FILE.npz", type=as_path,
        help="write the parameters of the trained network")
    add("--load", metavar="FILE.npz", type=as_path, help="start from parameters written by --save")
    add("--report", metavar="FILE.json", type=as_path, help="write settings, losses and accuracies")
    add("--figures", metavar="DIR", type=as_path,
        help="write curves.png, confusion.png, mistakes.png and weights.png to this folder")
    # fmt: on
    arguments = parser.parse_args(argv)
    arguments.images += arguments.predict
    if arguments.seen and not arguments.images:
        parser.error("--seen needs a picture to read")
    arguments.training = {name: getattr(arguments, name) for name in training}
    return arguments


def run(arguments):
    """Train and evaluate, or read the user's digits, and write the files that were asked for."""
    pictures = PictureList(arguments.images, PROGRAM)
    outputs = check_paths(arguments, pictures.paths)  # before the training
    digits = read_digits(pictures)
    if arguments.images and not digits:
        return 2
    if arguments.download:
        download_mnist(arguments.data_dir or MNIST_DIR)
    choices = dict(arguments.training)
    model, hidden = choices.pop("model"), choices.pop("hidden")
    kept = data_folder(arguments.data_dir) / f"trained_{model or 'mlp'}.npz"
    by_default = not arguments.load and all(v is None for v in (hidden, *choices.values()))
    if digits and by_default and kept.is_file():
        print(f"network: {kept}, kept by an earlier run")
        arguments.load = kept
    if arguments.load:
        model = model or _model_of(read_parameters(arguments.load))
        choices["max_epoch"] = choices["max_epoch"] or 0
    model = model or "mlp"
    options = training_options(model, **choices)
    mlp = make_network(arguments.load, model, hidden, threads=arguments.threads, **options)
    report = {"hyper_parameters": {
        "model": model,
        "hidden": [mlp.hidden1, mlp.hidden2][: len(HIDDEN_BIASES[model])],
        **options, "threads": arguments.threads, "load": arguments.load and str(arguments.load),
    }}  # fmt: skip
    if mlp.max_epoch or not digits:
        mlp.load_data(arguments.data_dir)
        check_outputs(outputs, find_mnist(mlp.data_dir).values())
        interrupted = mlp.data_dir / f"interrupted_{model}.npz"
        report |= train_and_evaluate(mlp, arguments.save or interrupted)
        if by_default:
            keep_network(mlp, kept)
    if arguments.figures:
        draw_figures(mlp, arguments.figures, arguments.data_dir)
    if digits:
        report["probabilities"] = predict(mlp, digits)
    if arguments.seen:
        write_seen(arguments.seen, digits, report["probabilities"])
    if arguments.save:
        mlp.save_model(arguments.save)
    if arguments.report:
        versions = library_versions("numpy", "threadpoolctl", "tqdm", "pooch")
        write_json(arguments.report, report | {"library_versions": versions})
    return 0 if len(digits) == len(set(pictures.paths)) else 2


def check_paths(arguments, pictures):
    """Return the files to be written; `InputError` if one cannot be, or is also read."""
    if arguments.seen:
        check_picture_path(arguments.seen)
    outputs = [path for path in (arguments.save, arguments.report, arguments.seen) if path]
    names = ("curves", "confusion", "mistakes", "weights") if arguments.figures else ()
    figures = [arguments.figures / f"{name}.png" for name in names]
    check_outputs(outputs + figures, pictures)
    if arguments.report and arguments.load:  # --save may replace the file that was loaded
        check_outputs([arguments.report], [arguments.load])
    return outputs


def train_and_evaluate(mlp, interrupted):
    """Train, measure and print the accuracies; return them and the facts of the data.

    After Ctrl-C, write the best parameters so far to the file `interrupted`.
    """
    try:
        mlp.train()
    except KeyboardInterrupt:
        if mlp.best:
            mlp.restore_best()
            mlp.save_model(interrupted)
            print(f"{interrupted} keeps the best parameters so far, of epoch "
                  f"{mlp.best[0]['number']}: loss {mlp.best[0]['loss']:.4f}")  # fmt: skip
        raise
    train_accuracy, test_accuracy = mlp.evaluate(mlp.train_data), mlp.evaluate()
    seconds = sum(entry["seconds"] for entry in mlp.history)
    print(
        f"accuracy {test_accuracy:.2%} on the test digits, "
        f"{train_accuracy:.2%} on the training digits"
        + (f"; training took {seconds:.1f} s" if mlp.history else "")
    )
    return {
        "data_source": mlp.data_source,
        "data_dir": str(mlp.data_dir),
        "train_digits": len(mlp.train_data),
        "test_digits": len(mlp.test_data),
        "history": mlp.history,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
    }


def draw_figures(mlp, folder, data_dir):
    """Draw what the network has learnt; the curves only if it was trained in this run."""
    if mlp.test_data is None:  # a saved network that only reads pictures
        mlp.load_data(data_dir)
    data, weight = mlp.test_data, mlp.update_layer_list[0].weight
    paths = write_figures(
        folder, mlp.history, data[:, :-1], data[:, -1], mlp.probabilities(data), weight
    )
    print("figures: " + ", ".join(map(str, paths)))


def keep_network(mlp, path):
    """Save the network to `path`, if that is possible, and say so."""
    try:
        mlp.save_model(path)
        print(f"{path} keeps this network, for digits of your own")
    except InputError as error:  # a folder that is read-only: the run is good without it
        print(f"the network is not kept: {error}")


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 when interrupted."""
    return exit_status(PROGRAM, lambda argv: run(parse_arguments(argv)), argv)


if __name__ == "__main__":
    raise SystemExit(main())

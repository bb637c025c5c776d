"""Learn to read handwritten digits (course book, experiment 2-1).

The network is a multilayer perceptron: three fully connected layers, a ReLU after the first two:

    784 pixels -> hidden1 -> ReLU -> hidden2 -> ReLU -> 10 scores -> softmax -> 10 probabilities

or, with `--model cnn`, two convolutions with ReLU and pooling, then two fully connected layers.
Training repeats four steps, each time with the next small batch of pictures: the forward pass, the
loss, the backward pass, and the update of the parameters. They are the four lines of
`MNIST_MLP.train_batch`. `mnist/` has the command and the files.

    python mnist_mlp_cpu.py --help

A file that cannot be used raises `InputError`, a ValueError whose message names the file and what
is wrong with it.
"""

if __name__ == "__main__":  # the imports take seconds
    from support.start import quiet_start

    quiet_start()

import time
from contextlib import contextmanager
from math import ceil

import numpy as np

from fast.strips import limited_blas
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
from mnist.command import PROGRAM, RECIPES, epoch_line, run, training_options
from mnist.data import (
    SIDE,
    architecture,
    read_idx_images,
    read_idx_labels,
    read_parameters,
    shift_pictures,
    write_parameters,
)
from mnist.digits import load_digits
from support.command import InputError, exit_status
from support.progress import Bar

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
OPTIMIZERS = {"momentum": MomentumOptimizer, "adam": AdamOptimizer}  # "sgd": the layers' own


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

    # What `standardize` subtracts and divides by: of all pixels in MNIST's training set.
    pixel_mean, pixel_std = 33.3, 78.6

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
            layer.init_param(0.01 if self.init == "normal" else self.init, self.rng)

    def as_input(self, pixels):
        """Return pixels (N, 784) from 0 to 255 as the first layer takes them."""
        x = np.asarray(pixels, dtype=np.float32)
        return (x - self.pixel_mean) / self.pixel_std if self.standardize else x

    def forward(self, input):
        """Return the probabilities (N, 10) for pictures `input` (N, 784) with pixels 0 to 255."""
        x = self.as_input(input)
        for layer in self._chain():
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
        with limited_blas(self.threads), Bar(total=total, unit="batch", disable=total == 0) as bar:
            for number in range(1, self.max_epoch + 1):
                bar.set_description(f"epoch {number}/{self.max_epoch}")
                self.history.append(self._train_epoch(number, batches, bar))
                self._measure_epoch()
                bar.write(epoch_line(self.history[-1], self.max_epoch))
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
            parameters = [layer.save_param() for layer in self.update_layer_list]
            self.best = {**entry, "score": score}, parameters

    def restore_best(self):
        """Go back to the parameters in `best`."""
        for layer, parameters in zip(self.update_layer_list, self.best[1], strict=True):
            layer.load_param(*parameters)

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
        with limited_blas(self.threads):  # the layers then need not limit it each time
            for first in range(0, len(data), self.batch_size):
                prob = self.forward(data[first : first + self.batch_size, :-1])
                if not np.isfinite(prob).all():
                    raise InputError(
                        "the scores are not finite numbers: the learning rate, or the weights that "
                        "were loaded, are too large"
                    )
                parts.append(prob)
        return np.concatenate(parts)

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
        self.data_dir, self.data_source, self.train_data, self.test_data = load_digits(data_dir)

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
        number = 0
        for layer in self.update_layer_list:
            if isinstance(layer, BatchNormLayer):
                layer.init_param()
                continue
            number += 1
            try:
                layer.load_param(parameters[f"w{number}"], parameters[f"b{number}"])
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"{param_dir} is for a different network: layer {number}: {error}"
                ) from error
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
            if isinstance(layer, BatchNormLayer):
                plain[-1] = layer.folded_into(*plain[-1])
            else:
                plain.append(layer.save_param())
        if self.standardize:
            w1, b1 = plain[0]
            w1 = w1.astype(np.float64) / self.pixel_std
            plain[0] = w1, b1 - self.pixel_mean * _input_sums(w1)
        write_parameters(param_dir, plain)


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


def make_network(param_dir=None, model=None, hidden=None, **options):
    """Return a network with the parameters in the file `param_dir`, with new ones if it is None.

    Model ("mlp" or "cnn") and sizes of the hidden layers are those in the file, or the defaults,
    unless they are given. The other options are those of the network's class.
    """
    if param_dir is not None:
        saved, sizes = architecture(read_parameters(param_dir))
        model = model or saved
        hidden = hidden or (sizes if model == saved else None)
    model = model or "mlp"
    hidden = hidden or RECIPES[model]["hidden"]
    expected = len(RECIPES[model]["hidden"])
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


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 after Ctrl-C."""
    return exit_status(PROGRAM, lambda argv: run(argv, SCHEDULES, make_network), argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Learn to read handwritten digits with a multilayer perceptron (course book, experiment 2-1).

The network is a chain of three fully connected layers with a ReLU after the first two:

    784 pixels -> hidden1 -> ReLU -> hidden2 -> ReLU -> 10 scores -> softmax -> 10 probabilities

Training repeats four steps for one small batch of pictures after another: run the batch forward,
measure the loss, run the error backward, and take a step downhill. `MNIST_MLP.train` is those four
lines.

    python mnist_mlp_cpu.py --help
"""

import argparse
import time
import zlib
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer
from support.command import InputError, bounded, exit_status
from support.digits import make_synthetic_mnist
from support.downloads import download_mnist
from support.files import atomic_path, write_json
from support.machine import library_versions
from support.mnist import SIDE, find_mnist, read_idx_images, read_idx_labels, read_mnist

MNIST_DIR = Path(__file__).resolve().parent / "mnist_data"
PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3")
PIXEL_MEAN, PIXEL_STD = 33.3, 78.6  # of all pixels of MNIST's training set, which run from 0 to 255

# What the command does unless told otherwise: 98.7 % of MNIST's test digits are recognised (seeds
# 0, 1 and 2: 98.71, 98.71 and 98.75). Without the shifts it is about 97.9 %.
HIDDEN = (256, 128)
EPOCHS = 12
BATCH_SIZE = 100
LEARNING_RATE = 0.2
SEED = 0
RECIPE = {"standardize": True, "anneal": True, "max_shift": 1}


class MNIST_MLP:
    """A multilayer perceptron with two hidden layers, and all that is done with it.

    Parameters
    ----------
    batch_size : int, default=100
        Pictures per step of training.
    input_size : int, default=784
        Pixels of a picture: 28 * 28.
    hidden1, hidden2 : int, default=32 and 16
        Outputs of the first and the second layer.
    out_classes : int, default=10
    lr : float, default=0.01
        Learning rate, the length of the first step (of every step, without `anneal`).
    max_epoch : int, default=1
        How often `train` goes through the training set.
    print_iter : int, default=100
        After how many batches the progress bar shows the loss anew.
    standardize : bool, default=False
        Bring the pixels to mean 0 and deviation 1 before the first layer, and start from He's
        weights. False is the book's program: raw pixels and weights of deviation 0.01.
    anneal : bool, default=False
        Let the learning rate sink to 0 on a straight line: long steps first, to get far, short ones
        at the end, to settle down.
    max_shift : int, default=0
        Move each training picture by up to so many pixels to any side, differently every time it
        is seen, so that the network cannot learn the pictures by heart.
    seed : None, int or numpy.random.Generator, default=None
        Source of randomness for weights, order and shifts.

    Attributes
    ----------
    train_data, test_data : ndarray of shape (N, 785), uint8
        One picture a row, its 784 pixels from 0 (paper) to 255 (ink), then its label.
    data_source : str
        "mnist" or "synthetic".
    update_layer_list : list of FullyConnectedLayer
        The layers that learn, in order.
    epoch_losses, epoch_seconds : list of float
        Mean loss and duration of each epoch of the last `train`.
    """

    def __init__(
        self,
        batch_size=100,
        input_size=SIDE * SIDE,
        hidden1=32,
        hidden2=16,
        out_classes=10,
        lr=0.01,
        max_epoch=1,
        print_iter=100,
        *,
        standardize=False,
        anneal=False,
        max_shift=0,
        seed=None,
    ):
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
        self.rng = np.random.default_rng(seed)
        # set by load_data
        self.train_data = None
        self.test_data = None
        self.data_source = None
        # set by build_model
        self.layers = None
        self.update_layer_list = None
        self.softmax = None
        # set by train
        self.epoch_losses = []
        self.epoch_seconds = []

    def load_mnist(self, file_dir, is_images="True"):
        """Read one IDX file: the images as rows (N, 784), or the labels as a column (N, 1).

        Parameters
        ----------
        file_dir : str or Path
            The file, plain or compressed.
        is_images : bool or "True" or "False", default="True"
            What it holds.

        Raises
        ------
        InputError
            Naming the file and its defect.
        """
        if str(is_images) == "True":
            return read_idx_images(file_dir).reshape(-1, SIDE * SIDE)
        return read_idx_labels(file_dir).reshape(-1, 1)

    def load_data(self, data_dir=MNIST_DIR):
        """Fill `train_data` and `test_data` from the four IDX files in `data_dir`.

        Where it holds none of them, the synthetic digits in its subfolder `synthetic` are taken,
        which are drawn at their first use.

        Raises
        ------
        InputError
            If a file is missing, damaged, or cannot be written.
        """
        folder = Path(data_dir)
        self.data_source = "mnist"
        if find_mnist(folder) is None:
            folder = folder / "synthetic"
            self.data_source = "synthetic"
            make_synthetic_mnist(folder)
        train_images, train_labels, test_images, test_labels = read_mnist(folder)
        self.train_data = self._as_rows(train_images, train_labels)
        self.test_data = self._as_rows(test_images, test_labels)

    @staticmethod
    def _as_rows(images, labels):
        rows = images.reshape(len(images), -1)  # (N, 28, 28) -> (N, 784)
        return np.concatenate([rows, labels[:, None]], axis=1)  # (N, 784) and (N, 1) -> (N, 785)

    def shuffle_data(self):
        """Bring the rows of `train_data` into a new random order."""
        self.train_data = self.train_data[self.rng.permutation(len(self.train_data))]

    def build_model(self):
        """Make the layers."""
        fc1 = FullyConnectedLayer(self.input_size, self.hidden1)
        fc2 = FullyConnectedLayer(self.hidden1, self.hidden2)
        fc3 = FullyConnectedLayer(self.hidden2, self.out_classes)
        self.layers = [fc1, ReLULayer(), fc2, ReLULayer(), fc3]
        self.update_layer_list = [fc1, fc2, fc3]
        self.softmax = SoftmaxLossLayer()

    def init_model(self):
        """Draw new weights."""
        for layer in self.update_layer_list:
            layer.init_param("he" if self.standardize else 0.01, self.rng)

    def load_model(self, param_dir):
        """Take the parameters from the file `param_dir`, which `save_model` wrote.

        Raises
        ------
        InputError
            If the file is of another kind or for a network of another size.
        """
        parameters = read_parameters(param_dir)
        if self.standardize:  # undo what save_model did
            w1, b1 = parameters["w1"], parameters["b1"]
            parameters["b1"] = b1 + PIXEL_MEAN * w1.sum(axis=0, keepdims=True)
            parameters["w1"] = w1 * PIXEL_STD
        for number, layer in enumerate(self.update_layer_list, start=1):
            weight, bias = (parameters[f"{kind}{number}"].astype(np.float32) for kind in "wb")
            shape = (layer.num_input, layer.num_output)
            if weight.shape != shape:
                raise InputError(
                    f"{param_dir} is for a network of another size: w{number} has the shape "
                    f"{weight.shape}, expected {shape}"
                )
            layer.load_param(weight, bias)

    def save_model(self, param_dir):
        """Write the parameters w1 b1 w2 b2 w3 b3 to the file `param_dir`, in NumPy's npz format.

        The network in the file takes raw pixels. Standardising x is a linear map followed by
        another, the first layer, and two linear maps make up one:

            ((x - mean) / std) W + b = x (W / std) + (b - (mean / std) sum_i W_i)

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        parameters = {}
        for number, layer in enumerate(self.update_layer_list, start=1):
            parameters[f"w{number}"], parameters[f"b{number}"] = layer.save_param()
        if self.standardize:
            w1 = parameters["w1"].astype(np.float64) / PIXEL_STD
            b1 = parameters["b1"] - PIXEL_MEAN * w1.sum(axis=0, keepdims=True)
            parameters["w1"], parameters["b1"] = w1.astype(np.float32), b1.astype(np.float32)
        with atomic_path(param_dir) as temporary, open(temporary, "wb") as file:
            np.savez(file, **parameters)

    def forward(self, input):
        """Return the probabilities (N, 10) of the classes for pictures `input` (N, 784), 0-255."""
        x = np.asarray(input, dtype=np.float32)
        if self.standardize:
            x = (x - PIXEL_MEAN) / PIXEL_STD
        for layer in self.layers:
            x = layer.forward(x)
        return self.softmax.forward(x)

    def backward(self):
        """Hand the derivative of the loss back through all layers, each setting its gradients."""
        diff = self.softmax.backward()
        for layer in reversed(self.layers[1:]):
            diff = layer.backward(diff)
        self.layers[0].backward(diff, need_bottom_diff=False)  # nobody asks for the pixels'

    def update(self, lr):
        """Take a step of length `lr` against the gradient in every layer that learns."""
        for layer in self.update_layer_list:
            layer.update_param(lr)

    def train(self):
        """Go through the training set `max_epoch` times, its last, smaller batch included.

        Raises
        ------
        InputError
            If the loss stops being a number, as it does when the learning rate is too high.
        """
        count = len(self.train_data)
        batches = ceil(count / self.batch_size)
        step, steps = 0, self.max_epoch * batches
        self.epoch_losses, self.epoch_seconds = [], []
        with (
            tqdm(total=steps, unit="batch", disable=steps == 0) as bar,
            np.errstate(over="ignore", invalid="ignore"),  # a loss that is no number is reported
        ):
            for epoch in range(1, self.max_epoch + 1):
                start = time.perf_counter()
                bar.set_description(f"epoch {epoch}/{self.max_epoch}")
                self.shuffle_data()
                total = 0.0
                for first in range(0, count, self.batch_size):
                    batch = self.train_data[first : first + self.batch_size]
                    images, labels = batch[:, :-1], batch[:, -1]
                    if self.max_shift:
                        images = shift_pictures(images, self.max_shift, self.rng)
                    self.forward(images)
                    loss = self.softmax.get_loss(labels)
                    self.backward()
                    self.update(self.lr * (1 - step / steps) if self.anneal else self.lr)
                    if not np.isfinite(loss):
                        raise InputError(
                            f"the loss became {loss} in epoch {epoch}: the learning rate "
                            f"{self.lr:g} is too high"
                        )
                    total += loss * len(batch)
                    step += 1
                    bar.update()
                    if step % self.print_iter == 0:
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                self.epoch_losses.append(total / count)
                self.epoch_seconds.append(time.perf_counter() - start)
                bar.write(
                    f"epoch {epoch:2d}/{self.max_epoch}  loss {self.epoch_losses[-1]:.4f}  "
                    f"{self.epoch_seconds[-1]:.2f} s"
                )

    def evaluate(self, data=None):
        """Return the share of the rows of `data` whose digit is recognised, from 0 to 1.

        Parameters
        ----------
        data : ndarray of shape (N, 785), optional
            Pictures with their labels in the last column; `test_data` if not given. Every row
            counts, also where N is no multiple of `batch_size`.
        """
        data = self.test_data if data is None else data
        right = 0
        for first in range(0, len(data), self.batch_size):
            batch = data[first : first + self.batch_size]
            prob = self.forward(batch[:, :-1])
            right += int(np.sum(prob.argmax(axis=1) == batch[:, -1]))
        return right / len(data)


def shift_pictures(pictures, largest, rng):
    """Return the pictures (N, 784), each moved by up to `largest` pixels along both axes.

    What leaves on one side is lost, and paper (0) comes in on the other. Each picture is framed
    with a margin of paper, and cut out again at a random place.
    """
    count = len(pictures)
    margin = (largest, largest)
    framed = np.pad(pictures.reshape(count, SIDE, SIDE), ((0, 0), margin, margin))
    # a view of all cut-outs, P = 2 largest + 1 along each axis: (N, H, W) -> (N, P, P, 28, 28)
    cuts = np.lib.stride_tricks.sliding_window_view(framed, (SIDE, SIDE), axis=(1, 2))
    down, right = rng.integers(0, 2 * largest, size=(2, count), endpoint=True)
    return cuts[np.arange(count), down, right].reshape(count, -1)  # (N, 28, 28) -> (N, 784)


def read_parameters(path):
    """Return {"w1": array, "b1": array, ...} from the npz file `path`, checked for sense.

    Nothing is unpickled: a pickle can run any program when it is opened.

    Raises
    ------
    InputError
        If the file cannot be read, is of another kind, lacks an array, or holds arrays that do not
        make up a network.
    """
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds a single array, not an .npz file of parameters")
            missing = [name for name in PARAMETERS if name not in archive]
            if missing:
                raise InputError(f"{path} holds no {missing[0]}; expected {', '.join(PARAMETERS)}")
            parameters = {name: archive[name] for name in PARAMETERS}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
        if "pickle" in str(error):  # what np.load says of all that is neither .npy nor .npz, too
            raise InputError(
                f"{path} is no .npz file of plain numbers; pickled objects are refused, since "
                "opening them can run any program"
            ) from error
        raise InputError(f"{path} is no .npz file of parameters, or is damaged") from error
    rows = None
    for number in (1, 2, 3):
        weight, bias = parameters[f"w{number}"], parameters[f"b{number}"]
        if weight.ndim != 2 or weight.size == 0 or rows not in (None, weight.shape[0]):
            raise InputError(
                f"{path}: w{number} has the shape {weight.shape}, expected ({rows or 'any'}, any)"
            )
        rows = weight.shape[1]  # each layer's outputs are the next one's inputs
        if bias.shape != (1, rows):
            raise InputError(f"{path}: b{number} has the shape {bias.shape}, expected {(1, rows)}")
    for name, array in parameters.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds something else than finite decimal numbers")
    return parameters


def build_mnist_mlp(param_dir=None, data_dir=MNIST_DIR):
    """Return the command's default network, trained on the digits in `data_dir`.

    Parameters
    ----------
    param_dir : str or Path, optional
        A file of parameters to load instead of training.
    data_dir : str or Path
        See `MNIST_MLP.load_data`.
    """
    hidden1, hidden2 = network_size(None, param_dir)
    mlp = MNIST_MLP(
        BATCH_SIZE, SIDE * SIDE, hidden1, hidden2, 10, LEARNING_RATE, EPOCHS, seed=SEED, **RECIPE
    )
    mlp.load_data(data_dir)
    mlp.build_model()
    if param_dir is None:
        mlp.init_model()
        mlp.train()
    else:
        mlp.load_model(param_dir)
    return mlp


def network_size(hidden, param_dir):
    """Return the two hidden sizes: as asked for, else as in the file, else the default."""
    if hidden is not None:
        return hidden
    if param_dir is None:
        return HIDDEN
    parameters = read_parameters(param_dir)
    return parameters["w1"].shape[1], parameters["w2"].shape[1]


def parse_arguments(argv):
    """Return the parsed options of the command line."""
    parser = argparse.ArgumentParser(
        prog="mnist_mlp_cpu.py",
        description="Learn to read handwritten digits with a multilayer perceptron.",
        epilog="""examples:
  python mnist_mlp_cpu.py                           train on MNIST, or on synthetic digits
  python mnist_mlp_cpu.py --download                fetch MNIST (11.6 MB) first, then train on it
  python mnist_mlp_cpu.py --hidden 32 16 --epochs 5 --save small.npz --report small.json
  python mnist_mlp_cpu.py --load small.npz          only measure the accuracy of a saved network
  python mnist_mlp_cpu.py --load small.npz --epochs 3 --lr 0.05     train it further""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=MNIST_DIR,
        help="folder of the four MNIST files, plain or .gz; where it holds none, synthetic digits "
        "are drawn into its subfolder 'synthetic' (default: mnist_data beside this program)",
    )
    data.add_argument(
        "--download", action="store_true", help="fetch MNIST (11.6 MB) into that folder first"
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--hidden",
        nargs=2,
        metavar=("H1", "H2"),
        type=bounded(int, least=1),
        help=f"sizes of the two hidden layers (default: {HIDDEN[0]} {HIDDEN[1]}, or those of the "
        "network given by --load)",
    )
    training.add_argument(
        "--epochs",
        metavar="N",
        type=bounded(int, least=0),
        help=f"how often to go through the training set (default: {EPOCHS}, or 0 with --load: "
        "only measure)",
    )
    training.add_argument(
        "--batch-size",
        metavar="N",
        type=bounded(int, least=1),
        default=BATCH_SIZE,
        help="pictures per step (default: %(default)s)",
    )
    training.add_argument(
        "--lr",
        metavar="RATE",
        type=bounded(float, above=0),
        default=LEARNING_RATE,
        help="learning rate of the first step, sinking to 0 at the last (default: %(default)s)",
    )
    training.add_argument(
        "--seed",
        metavar="N",
        type=bounded(int, least=0),
        default=SEED,
        help="of weights, order and shifts; the synthetic digits are always the same "
        "(default: %(default)s)",
    )
    training.add_argument(
        "--threads",
        metavar="N",
        type=bounded(int, least=1),
        default=1,
        help="threads of the matrix products: as many as there are idle processors is fastest, "
        "more wait for each other (default: %(default)s)",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--save", metavar="FILE.npz", type=Path, help="write the parameters of the trained network"
    )
    files.add_argument(
        "--load", metavar="FILE.npz", type=Path, help="start from parameters written by --save"
    )
    files.add_argument(
        "--report", metavar="FILE.json", type=Path, help="write settings, losses and accuracies"
    )
    arguments = parser.parse_args(argv)
    if arguments.save and arguments.report and arguments.save == arguments.report:
        parser.error("--save and --report name the same file")
    if arguments.epochs is None:
        arguments.epochs = EPOCHS if arguments.load is None else 0
    return arguments


def run(arguments):
    """Load the data, train, measure, and write what was asked for."""
    with ExitStack() as outputs:
        # entered now, so that a place that cannot be written to is noticed before the training
        save_to = arguments.save and outputs.enter_context(atomic_path(arguments.save))
        report_to = arguments.report and outputs.enter_context(atomic_path(arguments.report))
        hidden1, hidden2 = network_size(arguments.hidden, arguments.load)
        mlp = MNIST_MLP(
            batch_size=arguments.batch_size,
            hidden1=hidden1,
            hidden2=hidden2,
            lr=arguments.lr,
            max_epoch=arguments.epochs,
            seed=arguments.seed,
            **RECIPE,
        )
        mlp.build_model()
        if arguments.load is None:
            mlp.init_model()
        else:
            mlp.load_model(arguments.load)

        if arguments.download:
            download_mnist(arguments.data_dir)
        mlp.load_data(arguments.data_dir)
        sizes = f"{len(mlp.train_data):,} training and {len(mlp.test_data):,} test digits"
        if mlp.data_source == "mnist":
            print(f"MNIST from {arguments.data_dir}: {sizes}")
        else:
            print(
                f"{arguments.data_dir} holds no MNIST: using SYNTHETIC digits drawn by this "
                f"program ({sizes}); --download fetches the real ones"
            )

        with threadpool_limits(arguments.threads, user_api="blas"):
            mlp.train()
            accuracies = {
                "train_accuracy": mlp.evaluate(mlp.train_data),
                "test_accuracy": mlp.evaluate(),
            }
        print(
            f"accuracy {accuracies['test_accuracy']:.2%} on the test digits, "
            f"{accuracies['train_accuracy']:.2%} on the training digits"
            + (f"; training took {sum(mlp.epoch_seconds):.1f} s" if mlp.max_epoch else "")
        )
        if save_to:
            mlp.save_model(save_to)
        if report_to:
            write_json(report_to, make_report(arguments, mlp) | accuracies)


def make_report(arguments, mlp):
    """Return the settings and the course of the training as a dict for `--report`."""
    return {
        "data_source": mlp.data_source,
        "data_dir": str(arguments.data_dir),
        "train_digits": len(mlp.train_data),
        "test_digits": len(mlp.test_data),
        "hyper_parameters": {
            "hidden": [mlp.hidden1, mlp.hidden2],
            "epochs": mlp.max_epoch,
            "batch_size": mlp.batch_size,
            "lr": mlp.lr,
            "seed": arguments.seed,
            "threads": arguments.threads,
            "load": arguments.load and str(arguments.load),
            **RECIPE,
        },
        "loss_per_epoch": mlp.epoch_losses,
        "seconds_per_epoch": mlp.epoch_seconds,
        "library_versions": library_versions("numpy", "threadpoolctl", "tqdm", "pooch"),
    }


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 when interrupted."""
    return exit_status("mnist_mlp_cpu.py", run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())

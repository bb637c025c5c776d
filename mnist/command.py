"""The command of `mnist_mlp_cpu.py`: its options, and what it does with digits and networks.

`run` takes what only the program knows: the names of the schedules for the learning rate, and the
function that makes a network, `mnist_mlp_cpu.make_network`.
"""

import argparse
import os

from mnist import data
from mnist.figures import write_figures
from mnist.own_digits import predict, read_digits, write_seen
from support.command import InputError, Parser, as_path, bounded, thread_count
from support.files import check_outputs, write_json
from support.machine import library_versions
from support.picture_list import PictureList
from support.pictures import check_picture_path

PROGRAM = "mnist_mlp_cpu.py"
BATCH_SIZE = 100
SEED = 0
LEARNING_RATES = {"sgd": 0.2, "momentum": 0.05, "adam": 0.001}
# What the command does when no option says otherwise.
RECIPES = {
    "mlp": {"hidden": (256, 128), "epochs": 12, "optimizer": "sgd", "max_shift": 1},
    "cnn": {"hidden": (128,), "epochs": 10, "optimizer": "momentum", "max_shift": 2},
}

EXAMPLES = """examples:
  python mnist_mlp_cpu.py                           train on MNIST, or on synthetic digits
  python mnist_mlp_cpu.py --download                download MNIST (11.6 MB), then train on it
  python mnist_mlp_cpu.py mine.jpg                  read a digit of your own
  python mnist_mlp_cpu.py --model cnn --figures out train a convolutional network, draw its curves
  python mnist_mlp_cpu.py --hidden 32 16 --epochs 5 --save small.npz --report small.json
  python mnist_mlp_cpu.py --load small.npz          only measure the accuracy of a saved network
  python mnist_mlp_cpu.py --load small.npz --epochs 3 --lr 0.05     train it further"""


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


def parse_arguments(argv, schedules):
    """Return the parsed options; `schedules` are the names for --lr-schedule."""
    parser = Parser(
        prog=PROGRAM,
        description="Learn to read handwritten digits, and read your own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    training = add_training_options(add, schedules)
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


def add_training_options(add, schedules):
    """Add all that is chosen for the training by a parser's `add`; return the values' names."""
    names = []

    def choice(*flags, **options):
        names.append(add(*flags, **options).dest)

    # fmt: off
    choice("--model", choices=list(RECIPES),
        help="mlp, a multilayer perceptron, or cnn, a convolutional network (default: mlp, or that "
        "in the file given by --load)")
    choice("--hidden", metavar="H", nargs="+", type=bounded(int, least=1, most=10_000),
        help="sizes of the hidden fully connected layers: two for mlp (default: 256 128), one for "
        "cnn (128); or the sizes in the file given by --load")
    choice("--epochs", metavar="N", type=bounded(int, least=0, most=10**6), dest="max_epoch",
        help="how often to use the whole training set (default: 12 for mlp, 10 for cnn; with "
        "--load 0, which only measures the accuracy)")
    choice("--batch-size", metavar="N", type=bounded(int, least=1, most=10**6),
        help=f"pictures per step (default: {BATCH_SIZE})")
    choice("--optimizer", choices=list(LEARNING_RATES),
        help="gradient descent, the same with momentum, or Adam (default: sgd for mlp, momentum "
        "for cnn)")
    choice("--lr", metavar="RATE", type=bounded(float, above=0),
        help="learning rate of the first step (default: "
        + ", ".join(f"{rate} for {name}" for name, rate in LEARNING_RATES.items()) + ")")
    choice("--lr-schedule", choices=list(schedules),
        help="how the learning rate decreases (default: cosine)")
    choice("--weight-decay", metavar="LAMBDA", type=bounded(float, least=0),
        help="L2 penalty on the weights (default: 0)")
    choice("--init", choices=["he", "xavier", "normal"],
        help="first weights: He's, Xavier's or standard deviation 0.01 (default: he)")
    choice("--dropout", metavar="RATE", type=bounded(float, least=0, most=0.95),
        help="share of the hidden values that each training step sets to 0 (default: 0)")
    choice("--batch-norm", action="store_true", default=None,
        help="batch normalisation after the convolutions of cnn")
    choice("--max-shift", metavar="PIXELS", type=bounded(int, least=0, most=10),
        help="move each training picture at random by up to this many pixels, differently in every "
        "epoch (default: 1 for mlp, 2 for cnn)")
    choice("--early-stopping", metavar="N", type=bounded(int, least=1, most=10**6), dest="patience",
        help="hold out a twelfth of the training digits, stop when their accuracy has not grown "
        "for N epochs, and keep the best parameters")
    choice("--seed", metavar="N", type=bounded(int, least=0),
        help="seed of weights, order and shifts; the synthetic digits do not depend on it "
        f"(default: {SEED})")
    # fmt: on
    return names


def run(argv, schedules, make_network):
    """Train and evaluate, or read the user's digits, and write the files that were asked for.

    Return the exit status: 2 if a picture could not be used.
    """
    arguments = parse_arguments(argv, schedules)
    pictures = PictureList(arguments.images, PROGRAM)
    outputs = check_paths(arguments, pictures.paths)  # before the training
    digits = read_digits(pictures)
    if arguments.images and not digits:
        return 2
    if arguments.download:
        data.download_mnist(arguments.data_dir or data.MNIST_DIR)
    choices = dict(arguments.training)
    model, hidden = choices.pop("model"), choices.pop("hidden")
    kept = data.data_folder(arguments.data_dir)[0] / f"trained_{model or 'mlp'}.npz"
    by_default = not arguments.load and all(v is None for v in (hidden, *choices.values()))
    if digits and by_default and os.path.isfile(kept):
        print(f"network: {kept}, kept by an earlier run")
        arguments.load = kept
    if arguments.load:
        model = model or data.architecture(data.read_parameters(arguments.load))[0]
        choices["max_epoch"] = choices["max_epoch"] or 0
    model = model or "mlp"
    options = training_options(model, **choices)
    mlp = make_network(arguments.load, model, hidden, threads=arguments.threads, **options)
    report = {"hyper_parameters": {
        "model": model,
        "hidden": [mlp.hidden1, mlp.hidden2][: len(RECIPES[model]["hidden"])],
        **options, "threads": arguments.threads, "load": arguments.load and str(arguments.load),
    }}  # fmt: skip
    if mlp.max_epoch or not digits:
        mlp.load_data(arguments.data_dir)
        check_outputs(outputs, data.find_mnist(mlp.data_dir).values())
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
    return 2 if pictures.errors else 0


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
        else:
            print("the first epoch is not finished: no parameters are kept")
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


def epoch_line(entry, epochs):
    """Return the line about an entry of `MNIST_MLP.history`, of so many epochs."""
    line = (
        f"epoch {entry['number']:2d}/{epochs}  loss {entry['loss']:.4f}  "
        f"accuracy {entry['accuracy']:.2%}"
    )
    for name in ("validation", "test"):
        if f"{name}_accuracy" in entry:
            line += f"  {name} {entry[f'{name}_accuracy']:.2%}"
    return line + f"  {entry['seconds']:.2f} s"


def draw_figures(mlp, folder, data_dir):
    """Draw what the network has learnt; the curves only if it was trained in this run."""
    if mlp.test_data is None:  # a saved network that only reads pictures
        mlp.load_data(data_dir)
    test, weight = mlp.test_data, mlp.update_layer_list[0].weight
    paths = write_figures(
        folder, mlp.history, test[:, :-1], test[:, -1], mlp.probabilities(test), weight
    )
    print("figures: " + ", ".join(map(str, paths)))


def keep_network(mlp, path):
    """Save the network to `path`, if that is possible, and say so."""
    try:
        mlp.save_model(path)
        print(f"{path} keeps this network, for digits of your own")
    except InputError as error:  # a folder that is read-only: the run is good without it
        print(f"the network is not kept: {error}")

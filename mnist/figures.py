"""Draws what a network that reads digits has learnt, as PNG files: curves, mistakes, weights.

Lines differ in dashes and markers, colour maps in lightness, so that a grey print shows all of it.
"""

from pathlib import Path

import numpy as np

from mnist.data import CLASSES, SIDE
from support.files import output_file

BLUE, ORANGE = "#0072b2", "#d55e00"  # of Okabe and Ito's palette for all kinds of sight
MOST_MISTAKES = 24
MOST_UNITS = 40


def write_figures(folder, history, images, labels, probabilities, weight):
    """Write curves.png, confusion.png, mistakes.png and weights.png to `folder`; return the paths.

    Parameters
    ----------
    folder : Path
    history : list of dict
        `MNIST_MLP.history`; if it is empty, there are no curves.
    images : ndarray of shape (N, 784)
        The test digits, 0 (paper) to 255 (ink).
    labels : ndarray of shape (N,)
    probabilities : ndarray of shape (N, 10)
        What the network outputs for them.
    weight : ndarray of shape (784, D) or (1, K, K, D)
        That of the first layer.
    """
    figures = {
        "confusion": _confusion(labels, probabilities.argmax(axis=1)),
        "mistakes": _mistakes(images.reshape(-1, SIDE, SIDE), labels, probabilities),
        "weights": _weights(weight),
    }
    if history:
        figures = {"curves": _curves(history), **figures}
    paths = []
    for name, figure in figures.items():
        paths.append(Path(folder) / f"{name}.png")
        with output_file(paths[-1], "the figure") as file:
            figure.savefig(file, format="png", metadata={"Software": None})
    return paths


def _figure(width, height):
    from matplotlib.figure import Figure  # here, because importing it is slow and few runs need it

    return Figure((width, height), dpi=100, layout="constrained")


def _curves(history):
    """Return loss and accuracy by epoch, on the training and on the test digits."""
    figure = _figure(8, 3.4)
    epochs = [entry["number"] for entry in history]
    for axes, quantity, scale in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
        for part, color, style in (("", BLUE, "o-"), ("test_", ORANGE, "s--")):
            if part + quantity in history[0]:
                values = [scale * entry[part + quantity] for entry in history]
                label = "test digits" if part else "training digits, during the epoch"
                axes.plot(epochs, values, style, color=color, markersize=4, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity + (" in %" if scale > 1 else ""))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _confusion(labels, guesses):
    """Return how often each digit was read as each other one."""
    counts = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counts, (labels, guesses), 1)
    mistakes = counts - np.diag(np.diag(counts))
    figure = _figure(6.4, 5.8)
    axes = figure.subplots()
    image = axes.imshow(mistakes, cmap="Blues")
    for (truth, guess), count in np.ndenumerate(counts):
        if count:
            dark = mistakes[truth, guess] > 0.6 * max(1, mistakes.max())
            axes.text(guess, truth, count, ha="center", va="center",
                      fontsize=8 if truth == guess else 10,
                      color="white" if dark else "grey" if truth == guess else "black")  # fmt: skip
    axes.set(xlabel="read as", ylabel="digit", xticks=range(CLASSES), yticks=range(CLASSES))
    axes.set_title(f"{mistakes.sum()} of {counts.sum():,} test digits are misread", fontsize=11)
    figure.colorbar(image, label="mistakes (the diagonal counts the digits read rightly)")
    return figure


def _mistakes(images, labels, probabilities):
    """Return the digits that are misread with the highest probability."""
    guesses, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    rows = max(1, -(-len(wrong) // 8))
    figure = _figure(8, 1.35 * rows + 0.4)
    figure.suptitle(f"the {len(wrong)} most confident mistakes: digit > what it is read as")
    for axes, i in zip(figure.subplots(rows, 8).flat, wrong, strict=False):
        axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{labels[i]} > {guesses[i]}  {sure[i]:.0%}", fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def _weights(weight):
    """Return the weights of the first layer as pictures, one for each of its outputs."""
    side = SIDE if weight.ndim == 2 else weight.shape[1]
    pictures = weight.reshape(side, side, -1).transpose(2, 0, 1)  # (..., D) -> (D, side, side)
    if len(pictures) > MOST_UNITS:  # those with the largest weights
        order = np.argsort(-np.linalg.norm(pictures, axis=(1, 2)), kind="stable")
        pictures = pictures[np.sort(order[:MOST_UNITS])]
    columns, largest = 8, np.abs(pictures).max()
    rows = -(-len(pictures) // columns)
    figure = _figure(8, 0.95 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, picture in zip(grid.flat, pictures, strict=False):
        image = axes.imshow(picture, cmap="gray", vmin=-largest, vmax=largest)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.colorbar(image, ax=grid, label="weight")
    few = f"{len(pictures)} of " if len(pictures) < weight.shape[-1] else ""
    what = f"{few}the {weight.shape[-1]} filters of the first layer"
    figure.suptitle(f"{what}, {side} x {side} weights each", fontsize=11)
    return figure

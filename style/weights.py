"""Which filters a run uses."""

import sys
from pathlib import Path

from support.command import InputError
from support.matconvnet import FILE_NAME
from support.trained_filters import DESCRIPTION, download_trained_filters, find_trained_filters

# How the command names the filters in use.
SHOWN = {
    "trained": f"trained on photographs, {DESCRIPTION}",
    "kmeans": "filters learnt from the pictures by k-means; --download fetches trained ones",
    "random": "random filters",
}


def choose_weights(settings):
    """Return the settings complete, with the best filters that are here if they name none."""
    weights = settings.weights
    if weights is None:
        trained = "trained" if find_trained_filters() else "kmeans"
        weights = FILE_NAME if Path(FILE_NAME).exists() else trained
    return settings.complete(weights)


def fetch_trained_filters():
    """Fetch the trained filters if they are not here; if that fails, print why."""
    try:
        if find_trained_filters() is None:
            download_trained_filters()
    except InputError as error:
        print(f"note: {error}; the filters are learnt from the pictures instead", file=sys.stderr)

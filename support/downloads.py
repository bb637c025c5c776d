"""Fetching files from the web, checked before they are let in."""

from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from support.command import InputError
from support.mnist import find_mnist, read_mnist

CONNECT_SECONDS, SILENCE_SECONDS = 10, 30  # how long to wait for an answer, and between two bytes

# the original host refuses downloads; these two mirror its files byte for byte
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# file (each with ".gz") -> size in bytes, SHA-256
MNIST_CHECKSUMS = {
    "train-images-idx3-ubyte": (
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": (
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": (
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": (
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


def download_verified(urls, path, sha256, size=None):
    """Fetch a file from the first of `urls` that has it, with a progress bar on stderr.

    A file that stands at `path` already and has the right checksum is kept, and nothing is fetched.
    On failure nothing new is left behind, neither half a file nor a folder, and what stood at
    `path` before is untouched.

    Parameters
    ----------
    urls : sequence of str
        Where to look, in this order.
    path : str or Path
        Where the file shall stand; its folder is made if need be.
    sha256 : str
        The checksum of the file, 64 hexadecimal digits.
    size : int, optional
        The size of the file in bytes, for the progress bar and the error message.

    Raises
    ------
    InputError
        If no address gave the right file, or it cannot be written; names the file and what went
        wrong at every address.
    """
    path = Path(path).absolute()
    pooch.get_logger().setLevel("WARNING")  # it would announce each download in three lines
    # the folders that pooch will make, the innermost first
    new_folders = [folder for folder in path.parents if not folder.exists()]
    answers = []
    done = False
    try:
        for url in urls:
            try:
                _fetch(url, path, sha256, size)
                done = True
                return
            except (requests.exceptions.RequestException, ValueError) as error:
                answers.append(f"{url}: {_describe(error)}")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if not done:
            _remove_empty(new_folders)
    wanted = path.name if size is None else f"{path.name} ({size:,} bytes)"
    raise InputError(f"could not fetch {wanted}: {'; '.join(answers)}")


def download_mnist(folder):
    """Bring the four files of MNIST (11.6 MB) into `folder`, all of them or none.

    Where the set is there already, whole and readable, nothing is fetched.

    Raises
    ------
    InputError
        If a file could not be fetched; those fetched before it are removed again.
    """
    folder = Path(folder)
    try:
        if find_mnist(folder):
            read_mnist(folder)
            return
    except InputError:
        pass  # incomplete or damaged: fetch what is needed
    new_folders = [f for f in [folder, *folder.absolute().parents] if not f.exists()]
    fetched = []
    try:
        for name, (size, sha256) in MNIST_CHECKSUMS.items():
            path = folder / f"{name}.gz"
            was_there = path.exists()
            urls = [f"{mirror}{name}.gz" for mirror in MNIST_MIRRORS]
            download_verified(urls, path, sha256, size)
            if not was_there:
                fetched.append(path)
    except BaseException:  # Ctrl-C as well
        for path in fetched:
            path.unlink(missing_ok=True)
        _remove_empty(new_folders)
        raise


class _Bar(tqdm):
    """A progress bar that counts as true: pooch asks `if bar`, which tqdm answers by its total."""

    def __bool__(self):
        return True


def _fetch(url, path, sha256, size):
    """Fetch one address with pooch, which lets the file in only if its checksum is right."""
    with _Bar(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
        downloader = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
            headers={"Accept-Encoding": "identity"},  # a .gz file must come as it is stored
        )
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=path.name,
            path=path.parent,
            downloader=downloader,
        )


def _describe(error):
    """Say in a few words why an address failed."""
    if isinstance(error, requests.exceptions.HTTPError):
        return f"answered {error.response.status_code} {error.response.reason}".strip()
    if isinstance(error, requests.exceptions.Timeout):
        return "did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "broke off"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "could not be reached"
    if isinstance(error, requests.exceptions.RequestException):
        return f"failed ({type(error).__name__})"
    return "sent another file (its SHA-256 differs)"


def _remove_empty(folders):
    """Remove those of `folders`, given innermost first, that hold nothing."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # not made, or somebody put something in
            return

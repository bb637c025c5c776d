"""Downloads that are accepted only with the right checksum."""

import os
from contextlib import suppress

import pooch
import requests

from support.command import InputError
from support.files import check_output
from support.progress import Bar

# seconds to wait for a connection, and then for each next part of the file
CONNECT_SECONDS, SILENCE_SECONDS = 10, 30


def download_verified(urls, path, sha256, size=None):
    """Download a file to `path` from the first of `urls` that has it, with a bar on stderr.

    If `path` already holds a file with the checksum `sha256` (hexadecimal digits), nothing is
    downloaded. If no download succeeds, an older file at `path` stays as it was; no part of a file
    and no new folder is left. Then, or if the file cannot be written, `InputError` says why, for
    each address. `size`, in bytes, is for the bar and the message.
    """
    path = check_output(path)
    pooch.get_logger().setLevel("WARNING")  # pooch would announce each download in three lines
    new_folders = [folder for folder in path.parents if not os.path.exists(folder)]
    reasons = []
    try:
        for url in urls:
            try:
                _fetch(url, path, sha256, size)
                return
            except (requests.RequestException, ValueError) as error:
                reasons.append(f"{url}: {_describe(error)}")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # raised by the first folder that is not empty or not there
            for folder in new_folders:  # the innermost first
                folder.rmdir()
    wanted = path.name if size is None else f"{path.name} ({size:,} bytes)"
    raise InputError(f"could not download {wanted}: {'; '.join(reasons)}")


def _fetch(url, path, sha256, size):
    """Let pooch put the file at `path`, unless the file there has the right checksum."""

    def download(url, temporary, manager):
        with Bar(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
            http = pooch.HTTPDownloader(
                progressbar=bar,
                chunk_size=1 << 16,
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                headers={"Accept-Encoding": "identity"},  # a .gz file must not be unpacked
            )
            http(url, temporary, manager)

    pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=download)


def _describe(error):
    """Say in a few words why a download failed."""
    if isinstance(error, requests.exceptions.HTTPError):
        return f"answered {error.response.status_code} {error.response.reason}".strip()
    reasons = {
        requests.exceptions.Timeout: "did not answer in time",
        requests.exceptions.ChunkedEncodingError: "the connection was lost",
        requests.exceptions.ConnectionError: "could not be reached",
        requests.exceptions.RequestException: f"failed ({type(error).__name__})",
        ValueError: "sent a different file (its SHA-256 is wrong)",
    }
    return next(reason for kind, reason in reasons.items() if isinstance(error, kind))

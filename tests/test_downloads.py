"""Downloads from a server on this machine; no test needs the network."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading

import numpy as np
import pooch
import pytest
import requests

import mnist_mlp_cpu
from mnist import data as mnist
from mnist.data import MNIST_FILES, download_mnist, read_mnist, write_idx
from support import downloads
from support.command import InputError
from support.downloads import download_verified

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends the server's `files`; some words in the path make it fail in that way."""

    def do_GET(self):
        self.server.requested.append(self.path)
        name = self.path.rsplit("/", 1)[-1]
        content = self.server.files.get(name)
        if "missing" in self.path or content is None:
            self.send_error(404)
            return
        if "silent" in self.path:
            self.server.release.wait(5)
            return
        if "page" in self.path:
            content = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000] if "short" in self.path else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {"data.bin": CONTENT}
    server.requested = []
    server.release = threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_address():
    """An address on this machine where no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_file_is_downloaded_with_a_bar_and_kept(server, tmp_path, capsys, monkeypatch):
    announcements = []
    monkeypatch.setattr(pooch.get_logger(), "handle", announcements.append)
    path = tmp_path / "a" / "b" / "data.bin"
    url = f"{server.address}/data.bin"
    assert download_verified([url], path, SHA256, len(CONTENT)) is None
    assert path.read_bytes() == CONTENT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "data.bin: 100%" in captured.err
    assert announcements == []  # pooch would announce the download by itself
    download_verified([url], path, SHA256)
    assert len(server.requested) == 1
    assert capsys.readouterr().err == ""  # no download, no bar
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"something else")
    download_verified([url], path, SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", ["missing", "page", "short", "closed", "silent"])
def test_the_second_address_is_tried(server, closed_address, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2)
    first = closed_address if trouble == "closed" else f"{server.address}/{trouble}"
    path = tmp_path / "data.bin"
    download_verified([f"{first}/data.bin", f"{server.address}/data.bin"], path, SHA256)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_failure_names_the_reason_at_every_address_and_leaves_nothing(
    server, closed_address, tmp_path, monkeypatch
):
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2)
    urls = [
        f"{place}/data.bin"
        for place in (
            f"{server.address}/missing",
            f"{server.address}/page",
            f"{server.address}/short",
            f"{server.address}/silent",
            closed_address,
        )
    ]
    with pytest.raises(InputError) as caught:
        download_verified([*urls, "nonsense://x"], tmp_path / "a" / "b" / "d", SHA256, 256_000)
    message = str(caught.value)
    assert message.startswith("could not download d (256,000 bytes): ")
    assert "\n" not in message
    for url, reason in zip(
        urls,
        ("answered 404 Not Found", "sent a different file", "the connection was lost",
         "did not answer in time", "could not be reached"),
        strict=True,
    ):  # fmt: skip
        assert f"{url}: {reason}" in message
    assert "nonsense://x: failed (InvalidSchema)" in message
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_what_was_there(server, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"an older file")
    for place in ("missing", "page", "short"):
        with pytest.raises(InputError):
            download_verified([f"{server.address}/{place}/data.bin"], path, SHA256)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        download_verified([f"{server.address}/data.bin"], tmp_path / "file" / "x", SHA256)
    with pytest.raises(InputError, match="cannot write"):
        download_verified([f"{server.address}/data.bin"], tmp_path / ("x" * 300) / "y", SHA256)


def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupt(self, chunk_size):
        yield CONTENT[:10]
        raise KeyboardInterrupt

    monkeypatch.setattr(requests.Response, "iter_content", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_verified([f"{server.address}/data.bin"], tmp_path / "new" / "d", SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mnist_server(server, monkeypatch):
    """The server as both mirrors of a very small MNIST."""
    labels = np.arange(30, dtype=np.uint8) % 10
    pictures = np.zeros((30, 28, 28), dtype=np.uint8)
    pictures[np.arange(30), 14, labels * 2] = 255
    checksums = {}
    for name in mnist.MNIST_DOWNLOADS:
        header, array = ((2051, 30, 28, 28), pictures) if "images" in name else ((2049, 30), labels)
        content = gzip.compress(struct.pack(f">{len(header)}i", *header) + array.tobytes())
        server.files[name] = content
        checksums[name] = (len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(mnist, "MNIST_DOWNLOADS", checksums)
    mirrors = (f"{server.address}/missing/", f"{server.address}/second/")
    monkeypatch.setattr(mnist, "MNIST_MIRRORS", mirrors)
    return server


def test_the_command_downloads_mnist(mnist_server, tmp_path, capsys):
    options = ["--data-dir", str(tmp_path / "d"), "--download", "--epochs", "1"]
    assert mnist_mlp_cpu.main(options) == 0
    assert "30 training and 30 test digits" in capsys.readouterr().out
    assert sum("second" in path for path in mnist_server.requested) == 4
    assert mnist_mlp_cpu.main(options) == 0  # nothing is downloaded a second time
    assert len(mnist_server.requested) == 8


def test_a_readable_set_is_not_downloaded_again(mnist_server, tmp_path):
    for name in MNIST_FILES.values():  # not the files of the mirrors
        shape = (20, 28, 28) if "images" in name else 20
        write_idx(tmp_path / name, np.zeros(shape, dtype=np.uint8))
    download_mnist(tmp_path)
    assert mnist_server.requested == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_failed_download_of_mnist_resumes(mnist_server, tmp_path, capsys):
    first, *_, last = mnist.MNIST_DOWNLOADS
    folder = tmp_path / "new" / "d"
    missing = {name: mnist_server.files.pop(name) for name in (first, last)}
    options = ["--data-dir", str(folder), "--download", "--epochs", "0"]
    assert mnist_mlp_cpu.main(options) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"mnist_mlp_cpu.py: error: could not download {first}")
    assert list(tmp_path.iterdir()) == []

    # a damaged file that was there before is replaced, and the files before the failure are kept
    mnist_server.files[first] = missing[first]
    folder.mkdir(parents=True)
    (folder / first).write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"could not download {last}"):
        download_mnist(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        name for name in mnist.MNIST_DOWNLOADS if name != last
    )
    assert (folder / first).read_bytes() == missing[first]
    assert mnist_mlp_cpu.main(["--data-dir", str(folder), "--epochs", "0"]) == 2
    assert "only a part of MNIST" in capsys.readouterr().err

    mnist_server.files[last] = missing[last]
    mnist_server.requested.clear()
    assert mnist_mlp_cpu.main(options) == 0
    assert [path.rsplit("/", 1)[-1] for path in mnist_server.requested] == [last, last]  # 2 mirrors
    assert [len(part) for part in read_mnist(folder)] == [30] * 4


def test_the_table_of_downloads_is_complete():
    assert sorted(mnist.MNIST_DOWNLOADS) == sorted(f"{x}.gz" for x in mnist.MNIST_FILES.values())
    for size, sha256 in mnist.MNIST_DOWNLOADS.values():
        assert size > 4000
        assert len(sha256) == 64
        int(sha256, 16)
    assert len(set(mnist.MNIST_MIRRORS)) == 2
    assert all(m.startswith("https://") and m.endswith("/") for m in mnist.MNIST_MIRRORS)

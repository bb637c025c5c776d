"""support/downloads.py against a server on this machine; nothing here needs the network."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading

import numpy as np
import pytest
import requests

import mnist_mlp_cpu
from support import downloads
from support.command import InputError
from support.downloads import download_mnist, download_verified
from support.mnist import read_mnist

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the server's `files`, and with trouble where the path asks for it."""

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
    """An address on this machine where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_file_is_fetched_with_a_bar_and_kept(server, tmp_path, capsys):
    path = tmp_path / "a" / "b" / "data.bin"
    url = f"{server.address}/data.bin"
    assert download_verified([url], path, SHA256, len(CONTENT)) is None
    assert path.read_bytes() == CONTENT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "data.bin: 100%" in captured.err
    assert "Downloading" not in captured.err  # pooch's own announcement
    download_verified([url], path, SHA256)
    assert len(server.requested) == 1
    assert list(path.parent.iterdir()) == [path]
    path.write_bytes(b"something else")
    download_verified([url], path, SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", ["missing", "page", "short", "closed", "silent"])
def test_the_second_address_is_taken(server, closed_address, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.2)
    first = closed_address if trouble == "closed" else f"{server.address}/{trouble}"
    path = tmp_path / "data.bin"
    download_verified([f"{first}/data.bin", f"{server.address}/data.bin"], path, SHA256)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_failure_names_every_answer_and_leaves_nothing(
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
    assert message.startswith("could not fetch d (256,000 bytes): ")
    assert "\n" not in message
    for url, answer in zip(
        urls,
        ("answered 404 Not Found", "sent another file", "broke off", "did not answer in time",
         "could not be reached"),
        strict=True,
    ):  # fmt: skip
        assert f"{url}: {answer}" in message
    assert "nonsense://x: " in message
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
    for name in downloads.MNIST_CHECKSUMS:
        header, array = ((2051, 30, 28, 28), pictures) if "images" in name else ((2049, 30), labels)
        content = gzip.compress(struct.pack(f">{len(header)}i", *header) + array.tobytes())
        server.files[f"{name}.gz"] = content
        checksums[name] = (len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(downloads, "MNIST_CHECKSUMS", checksums)
    mirrors = (f"{server.address}/missing/", f"{server.address}/second/")
    monkeypatch.setattr(downloads, "MNIST_MIRRORS", mirrors)
    return server


def test_the_command_downloads_mnist(mnist_server, tmp_path, capsys):
    options = ["--data-dir", str(tmp_path / "d"), "--download", "--epochs", "1"]
    assert mnist_mlp_cpu.main(options) == 0
    assert "30 training and 30 test digits" in capsys.readouterr().out
    assert sum("second" in path for path in mnist_server.requested) == 4
    assert mnist_mlp_cpu.main(options) == 0  # nothing is fetched a second time
    assert len(mnist_server.requested) == 8


def test_mnist_comes_whole_or_not_at_all(mnist_server, tmp_path, capsys):
    last = list(downloads.MNIST_CHECKSUMS)[-1]
    whole = mnist_server.files.pop(f"{last}.gz")
    folder = tmp_path / "new" / "d"
    assert mnist_mlp_cpu.main(["--data-dir", str(folder), "--download", "--epochs", "0"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"mnist_mlp_cpu.py: error: could not fetch {last}.gz")
    assert list(tmp_path.iterdir()) == []

    # a file that was there before stays; a damaged one is replaced
    folder.mkdir(parents=True)
    first = folder / "train-images-idx3-ubyte.gz"
    first.write_bytes(b"damaged")
    with pytest.raises(InputError):
        download_mnist(folder)
    assert list(folder.iterdir()) == [first]
    mnist_server.files[f"{last}.gz"] = whole
    download_mnist(folder)
    assert [len(part) for part in read_mnist(folder)] == [30] * 4


def test_the_table_of_files_is_complete():
    assert set(downloads.MNIST_CHECKSUMS) == {
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    }
    for size, sha256 in downloads.MNIST_CHECKSUMS.values():
        assert size > 4000
        assert len(sha256) == 64
        int(sha256, 16)
    assert len(set(downloads.MNIST_MIRRORS)) == 2
    assert all(m.startswith("https://") and m.endswith("/") for m in downloads.MNIST_MIRRORS)

"""Damages files in many ways, from a seed, and checks what their readers make of them.

A child process of `test_fuzz` runs it, since a reader could crash, for one kind of file:

    python -m helpers.fuzz KIND FIRST COUNT FOLDER

Case `FIRST + i` is always the same. The file of the last case stays in FOLDER.
"""

import io
import json
import resource
import signal
import struct
import sys
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, features

from helpers.matconvnet_files import layer_structs, make_weights, write_matconvnet
from helpers.picture_files import chunk, gif, png, saved, tiff
from mnist.data import read_idx_images, read_idx_labels, write_idx
from mnist_mlp_cpu import MNIST_CNN, MNIST_MLP, make_network, read_parameters
from style.checkpoint import Checkpoint, read_checkpoint, read_options, write_checkpoint
from style.plan import Position
from support.command import InputError
from support.matconvnet import Network, read_matconvnet
from support.pictures import read_picture
from support.trained_filters import CONVOLUTIONS
from support.weights import read_weights, write_weights

SECONDS = 10  # for a case
BYTES = 400e6  # of memory, beyond what the process had before the first case
NUMBERS = (0, 1, 127, 128, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 1000, 10**6, 10**9)

NARROW = make_weights(divisor=64, classes=3)
TABLE = [struct["name"] for struct in layer_structs(NARROW, "beta17+")]


def damaged(rng, content):
    """Return a file with a few changes of some kind, half of them near its start or end."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        size = len(content)
        if size == 0:
            break
        place = int(rng.integers(size))
        if rng.random() < 0.5:
            place = int(rng.choice([place % 300 % size, size - 1 - place % 300 % size]))
        length = int(rng.integers(1, 20))
        what = rng.integers(8)
        if what == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif what == 1:
            content[place] = int(rng.integers(256))
        elif what == 2:
            order, width = rng.choice(["<", ">"]), rng.choice(["I", "H"])
            number = int(rng.choice(NUMBERS)) % 2 ** (8 * struct.calcsize(width))
            packed = struct.pack(order + width, number)
            content[place : place + len(packed)] = packed
        elif what == 3:
            del content[place : place + length]
        elif what == 4:
            content[place:place] = rng.bytes(length)
        elif what == 5:
            content[place:place] = content[place : place + 200]
        elif what == 6 and rng.random() < 0.4:
            del content[place:]
        else:
            content[place : place + length] = rng.bytes(length)
    return bytes(content)


def with_good_checksums(content):
    """Return a PNG file whose chunks have the right checksums, as far as it has chunks."""
    place, parts = 8, [content[:8]]
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        parts.append(chunk(content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join(parts)


# --- each kind: files, how they are damaged, how they are read and checked ---


class Idx:
    """IDX files of images and labels, plain and compressed."""

    def files(self, folder):
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (9, 28, 28), np.uint8), np.arange(9, dtype=np.uint8)
        for name, array in (("i", images), ("l", labels), ("i.gz", images), ("l.gz", labels)):
            write_idx(folder / name, array)
            yield name, (folder / name).read_bytes()

    def read(self, path, name):
        array = (read_idx_images if name[0] == "i" else read_idx_labels)(path)
        assert array.dtype == np.uint8 and array.shape[1:] == ((28, 28) if name[0] == "i" else ())
        return array


class Npz:
    """Archives of arrays; some damaged inside their members, whose checksums are then right."""

    def damage(self, rng, name, content):
        if rng.random() < 0.4:
            return damaged(rng, content)
        with np.load(io.BytesIO(content)) as file:
            arrays = dict(file)
        target = str(rng.choice(list(arrays)))
        arrays[target] = self.changed(rng, target, arrays[target])
        if rng.random() < 0.1:
            del arrays[target]
        buffer = io.BytesIO()
        with np.errstate(all="ignore"):
            np.savez(buffer, **arrays)
        if rng.random() < 0.3:  # the header of a member, of the same length as before
            header = bytearray(buffer.getvalue())
            start = header.index(b"NUMPY") + 7
            part = damaged(rng, bytes(header[start : start + 60]))[:60].ljust(60)
            member = bytes(header[start - 8 : start]) + part + bytes(header[start + 60 :])
            return bytes(header[: start - 8]) + member
        return buffer.getvalue()

    def changed(self, rng, name, array):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [
                lambda: array.astype(str(rng.choice(["f2", "f8", "i4", "U3", ">f4", "?"]))
                                     if array.dtype.kind != "U" else "U9"),
                lambda: array[..., :0] if array.ndim else array[np.newaxis],
                lambda: array.reshape(-1),
                lambda: array[np.newaxis],
                lambda: array.T,
                lambda: np.where(rng.random(array.shape) < 0.1, np.nan, array).astype("f4")
                if array.dtype.kind == "f" else array,
                lambda: array * 3e38 if array.dtype.kind == "f" else array,
                lambda: np.array(b"\xff\x00"),
            ][rng.integers(8)]()


class Parameters(Npz):
    """Parameters of the perceptron and of the convolutional network."""

    def files(self, folder):
        for network in MNIST_MLP(hidden1=4, hidden2=3), MNIST_CNN(hidden1=4):
            path = folder / f"{type(network).__name__}.npz"
            network.build_model()
            network.init_model()
            network.save_model(path)
            yield path.name, path.read_bytes()

    def read(self, path, name):
        parameters = read_parameters(path)
        assert all(array.dtype == np.float32 for array in parameters.values())
        network = make_network(path)
        with suppress(InputError):  # weights so large that the scores are not finite
            network.probabilities(np.zeros((1, 785), np.uint8))
        return parameters


class Checkpoints(Npz):
    """Checkpoints of style transfer, with their options."""

    def files(self, folder):
        rng = np.random.default_rng(0)
        image = rng.standard_normal((1, 3, 5, 7)).astype(np.float32)
        options = {"content": ["/a/b.png"], "style": ["/c.png"], "size": 32, "steps": 9,
                   "style_layers": {"relu1_1": 1.0}, "style_blend": None}  # fmt: skip
        losses = [dict(content=0.1, style=1 / 3, tv=1e-30, seconds=0.01)] * 5
        frames = [(0, rng.integers(0, 256, (4, 6, 3), np.uint8))]
        for optimizer, more, state in (
            ("lbfgs", {"pairs": 2, "tile": 64}, {name: np.stack([image] * 2) for name in "sy"}),
            ("adam", {"tile": None}, {name: image for name in "mv"}),
        ):
            position = Position(0, 3, image, state)
            given = {**options, "optimizer": optimizer, **more}
            checkpoint = Checkpoint(given, {"content picture": "a"}, position, losses, frames)
            write_checkpoint(folder / f"{optimizer}.npz", checkpoint)
            yield f"{optimizer}.npz", (folder / f"{optimizer}.npz").read_bytes()

    def changed(self, rng, name, array):
        if name != "head" or rng.random() < 0.2:
            return super().changed(rng, name, array)
        head = json.loads(str(array))
        odd = [None, -1, 2**70, 1e999, "", "--help", "-", "\udce9\ud800\0\x1b", [], [[[]]], {},
               {"a": {}}, True, ["--size"], "9" * 5000, "[" * 3000]  # fmt: skip
        value = odd[rng.integers(len(odd))]
        place = head if rng.random() < 0.5 else head["options"]
        key = str(rng.choice([*place, "weights", "init"]))
        place[key] = value
        text = json.dumps(head)
        return np.array(damaged(rng, text.encode()).decode("utf-8", "replace")
                        if rng.random() < 0.3 else text)  # fmt: skip

    def read(self, path, name):
        checkpoint = read_checkpoint(path)
        files, settings, _ = read_options(["--resume", str(path)])
        assert files.resume == path and settings.steps > 0
        return checkpoint.position.image


class Matlab:
    """MatConvNet's files of both generations."""

    def files(self, folder):
        for variant in ("beta16", "beta17+"):
            for compress in (False, True):
                name = f"{variant}{compress}.mat"
                write_matconvnet(folder / name, NARROW, variant, compress=compress)
                yield name, (folder / name).read_bytes()

    def damage(self, rng, name, content):
        if "True" not in name or rng.random() < 0.3:
            return damaged(rng, content)
        place, result = 128, content[:128]
        while place + 8 <= len(content):  # each variable, damaged below its compression
            kind, length = struct.unpack_from("<II", content, place)
            data = zlib.decompress(content[place + 8 : place + 8 + length])
            packed = zlib.compress(damaged(rng, data) if rng.random() < 0.7 else data, 1)
            result += struct.pack("<II", kind, len(packed)) + packed
            place += 8 + length
        return result

    def read(self, path, name):
        network = read_matconvnet(path, TABLE, TABLE[:37])
        assert all(a.dtype == np.float32 for pair in network.layers.values() for a in pair)
        return network.layers["conv1_1"][0]


class Weights(Npz):
    """Weights in .npz and HDF5 files."""

    def files(self, folder):
        layers, channels = {}, 3
        for block, count in enumerate(CONVOLUTIONS, start=1):
            for i in range(1, count + 1):
                layers[f"conv{block}_{i}"] = np.ones((channels, 3, 3, 2), "f4"), np.ones(2, "f4")
                channels = 2
        write_weights(folder / "w.npz", Network(layers, np.ones(3, np.float32), [], []))
        yield "w.npz", (folder / "w.npz").read_bytes()
        with h5py.File(folder / "w.h5", "w") as file:
            for name, (weight, bias) in layers.items():
                block, i = name.removeprefix("conv").split("_")
                place = f"block{block}/layers/conv2d{f'_{int(i) - 1}' if i != '1' else ''}/vars"
                file[f"{place}/0"] = weight.transpose(1, 2, 0, 3)  # (C,K,K,Co) -> (K,K,C,Co)
                file[f"{place}/1"] = bias
        yield "w.h5", (folder / "w.h5").read_bytes()

    def damage(self, rng, name, content):
        return damaged(rng, content) if name == "w.h5" else super().damage(rng, name, content)

    def read(self, path, name):
        table = [f"conv{b}_{i}" for b, n in enumerate(CONVOLUTIONS, 1) for i in range(1, n + 1)]
        network = read_weights(path, table)
        assert all(a.dtype == np.float32 for pair in network.layers.values() for a in pair)
        return network.layers["conv1_1"][0]


class Pictures:
    """Pictures of every format that is read."""

    def files(self, folder):
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (13, 20, 3), np.uint8)
        image, sixteen = Image.fromarray(rgb), rng.integers(0, 65536, (13, 20, 1))
        palette = image.quantize(16)
        profile = {"icc_profile": image.info.get("icc_profile")}
        exif = Image.Exif()
        exif[0x0112] = 6
        yield "rgb.png", saved(image, "PNG", exif=exif, **profile)
        side = [chunk(b"tRNS", b"\0\1"), chunk(b"gAMA", b"\0\1\0\0")]
        yield "grey.png", png(sixteen, 16, 0, side)
        yield "inter.png", png(rgb, 8, 2, [chunk(b"tRNS", bytes(6))], interlaced=True)
        yield "palette.png", saved(palette, "PNG", transparency=3)
        yield "a.jpg", saved(image, "JPEG", exif=exif)
        yield "p.jpg", saved(image, "JPEG", progressive=True)
        yield "c.jpg", saved(image.convert("CMYK"), "JPEG")
        yield "end.jpg", saved(image, "JPEG")[:-2]
        yield "a.gif", saved(palette, "GIF", save_all=True, append_images=[palette])
        yield "b.gif", gif((9, 9), (2, 3, 4, 2), [0, 1, 0, 1] * 2, (255, 0, 0, 0, 200, 0))
        yield "a.webp", saved(image, "WEBP", lossless=True, exif=exif)
        yield "b.webp", saved(image, "WEBP")
        for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
            yield f"{name}.tif", saved(image, "TIFF", compression=name)
        yield "planes.tif", tiff(rgb, 8, 2, planes=2)
        yield "planes16.tif", tiff(sixteen.repeat(3, 2), 16, 2, planes=2, compressed=True)
        yield "twelve.tif", tiff(sixteen >> 4, 12, 1)
        yield "a.bmp", saved(image, "BMP")
        yield "b.bmp", saved(palette, "BMP")
        yield "a.ppm", saved(image, "PPM")
        yield "a.jp2", saved(image, "JPEG2000")
        if features.check("avif"):
            yield "a.avif", saved(image, "AVIF")

    def damage(self, rng, name, content):
        content = damaged(rng, content)
        good = name.endswith(".png") and rng.random() < 0.7
        return with_good_checksums(content) if good else content

    def read(self, path, name):
        picture = read_picture(path)
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        return picture


KINDS = {kind.__name__.lower(): kind for kind in
         (Idx, Parameters, Checkpoints, Matlab, Weights, Pictures)}  # fmt: skip


def too_slow(number, frame):
    raise TimeoutError(f"more than {SECONDS} s")


def run(kind, first, count, folder):
    """Run the cases; return how many were read. Any breach of the rules is an exception."""
    kind = KINDS[kind]()
    files = list(kind.files(folder))
    damage = getattr(kind, "damage", lambda rng, name, content: damaged(rng, content))
    for name, content in files:  # undamaged
        (folder / name).write_bytes(content)
        kind.read(folder / name, name)
    start, read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    signal.signal(signal.SIGALRM, too_slow)
    for case in range(first, first + count):
        rng = np.random.default_rng([case, 7])
        name, content = files[case % len(files)]
        path = folder / f"case{case}{Path(name).suffix}"
        path.write_bytes(damage(rng, name, content))
        began = time.perf_counter()
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                kind.read(path, name)
            read += 1
        except InputError as error:
            message = str(error)
            short = len(message) <= 700 + 3 * len(str(path))
            if "\n" in message or str(path) not in message or not short:
                raise AssertionError(f"the message of case {case}: {message!r}") from error
        except BaseException as error:
            raise AssertionError(f"case {case}, {name}: {path}") from error
        finally:
            signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (peak - start) * 1024 > BYTES:
            seconds = time.perf_counter() - began
            raise AssertionError(f"case {case}, {path}: {peak - start:,} kB in {seconds:.1f} s")
        path.unlink()
    return read


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))

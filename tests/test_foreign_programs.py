"""Short programs in the manner of the course's labs, which know only the lab's interface."""

import struct

import numpy as np
import pytest
from helpers import oracles
from helpers.matconvnet_files import make_weights, write_matconvnet
from helpers.style_pictures import waves
from scipy.io import loadmat
from threadpoolctl import threadpool_limits

import mnist_mlp_cpu
import style_transfer_cpu
import vgg_cpu
from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer
from layers2 import AveragePoolingLayer, ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from mnist.data import MNIST_FILES, write_idx
from mnist.digits import draw_digits
from style_transfer_cpu import AdamOptimizer, ContentLossLayer, StyleLossLayer, get_random_img
from support.pictures import read_picture, write_picture

NARROW = make_weights(divisor=16, last_layer="pool5")


def seed(number):
    np.random.seed(number)  # noqa: NPY002  the labs know no generators


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    sets = (*draw_digits(600, 1), *draw_digits(130, 2))
    for name, array in zip(MNIST_FILES.values(), sets, strict=True):
        write_idx(folder / name, array)
    return folder


@pytest.fixture(scope="module")
def vgg_dir(tmp_path_factory):
    """A folder with narrow weights, of the convolutions and of all layers, and two pictures."""
    folder = tmp_path_factory.mktemp("vgg")
    write_matconvnet(folder / "narrow.mat", NARROW, last_layer="pool5")
    write_matconvnet(folder / "whole.mat", make_weights(divisor=16), "beta16")
    for name, number in (("content.jpg", 1), ("style.jpg", 2)):
        write_picture(folder / name, waves(48, 64, number))
    return folder


# Experiment 2-1 ------------------------------------------------------------------------------


class LabMLP:
    """The lab's program with nothing of ours but the layers: pixels and labels are integers."""

    def __init__(self, folder, lr=0.01, batch_size=50):
        self.folder, self.lr, self.batch_size = folder, lr, batch_size

    def load_mnist(self, name, is_images):
        with open(self.folder / name, "rb") as file:
            data = file.read()
        if is_images:
            _, count, rows, columns = struct.unpack_from(">iiii", data, 0)
            start, width = struct.calcsize(">iiii"), rows * columns
        else:
            _, count = struct.unpack_from(">ii", data, 0)
            start, width = struct.calcsize(">ii"), 1
        numbers = struct.unpack_from(f">{count * width}B", data, start)
        return np.reshape(numbers, [count, width])

    def load_data(self):
        images, labels, test_images, test_labels = (
            self.load_mnist(name, "images" in name) for name in MNIST_FILES.values()
        )
        self.train_data = np.append(images, labels, axis=1)
        self.test_data = np.append(test_images, test_labels, axis=1)
        assert self.train_data.dtype == np.int64

    def build_model(self):
        self.fc1, self.relu1 = FullyConnectedLayer(784, 32), ReLULayer()
        self.fc2, self.relu2 = FullyConnectedLayer(32, 16), ReLULayer()
        self.fc3, self.softmax = FullyConnectedLayer(16, 10), SoftmaxLossLayer()
        self.update_layer_list = [self.fc1, self.fc2, self.fc3]
        for layer in self.update_layer_list:
            layer.init_param()

    def forward(self, images):
        hidden = self.relu1.forward(self.fc1.forward(images))
        hidden = self.relu2.forward(self.fc2.forward(hidden))
        return self.softmax.forward(self.fc3.forward(hidden))

    def train(self, epochs):
        losses = []
        for _ in range(epochs):
            np.random.shuffle(self.train_data)  # noqa: NPY002
            for first in range(0, len(self.train_data), self.batch_size):
                batch = self.train_data[first : first + self.batch_size]
                self.forward(batch[:, :-1])
                losses.append(self.softmax.get_loss(batch[:, -1]))
                diff = self.fc3.backward(self.softmax.backward())
                diff = self.fc2.backward(self.relu2.backward(diff))
                self.fc1.backward(self.relu1.backward(diff))
                for layer in self.update_layer_list:
                    layer.update_param(self.lr)
        return losses

    def evaluate(self):
        prob = self.forward(self.test_data[:, :-1])
        return np.mean(np.argmax(prob, axis=1) == self.test_data[:, -1])


def test_the_labs_own_reader_and_loop_learn_digits(mnist_dir):
    losses, accuracies = [], []
    for _ in range(2):
        seed(1)
        mlp = LabMLP(mnist_dir)
        mlp.load_data()
        mlp.build_model()
        with threadpool_limits(1):  # on a busy machine, more threads take ten times as long
            losses.append(mlp.train(epochs=20))
        accuracies.append(mlp.evaluate())
    assert losses[0][0] == pytest.approx(np.log(10), rel=0.02)
    assert accuracies[0] > 0.8
    assert losses[0] == losses[1]  # np.random.seed decides everything


def test_a_subclass_that_reads_integers(mnist_dir):
    """Our program with the lab's own reader, as a student would put it in."""

    class Mine(mnist_mlp_cpu.MNIST_MLP):
        def load_data(self):
            lab = LabMLP(mnist_dir)
            lab.load_data()
            self.train_data, self.test_data = lab.train_data, lab.test_data

    mlp = Mine(hidden1=32, hidden2=16, lr=0.01, max_epoch=20, batch_size=50)
    results = []
    for number in (2, 2, 3):
        seed(number)
        mlp.load_data()
        mlp.build_model()
        mlp.init_model()
        mlp.train()
        results.append([entry["loss"] for entry in mlp.history])
    assert mlp.evaluate() > 0.8
    assert results[0] == results[1] != results[2]


def test_a_subclass_with_the_books_build_model(mnist_dir):
    class Mine(mnist_mlp_cpu.MNIST_MLP):
        build_model = LabMLP.build_model  # which sets no `layers`

    mlp = Mine(lr=0.01, max_epoch=20, batch_size=50, seed=0)
    seed(8)
    mlp.load_data(mnist_dir)
    for _ in range(2):
        mlp.build_model()
        mlp.train()
        assert mlp.evaluate() > 0.7


def test_a_grader_of_experiment_2_1(mnist_dir):
    mlp = mnist_mlp_cpu.MNIST_MLP(hidden1=32, hidden2=16, max_epoch=20, batch_size=50)
    mlp.load_data(str(mnist_dir))
    mlp.build_model()
    mlp.init_model()
    mlp.train()
    right = np.zeros([mlp.test_data.shape[0]])
    for i in range(mlp.test_data.shape[0] // mlp.batch_size):  # without the last batch
        batch = mlp.test_data[i * mlp.batch_size : (i + 1) * mlp.batch_size, :-1]
        label = np.argmax(mlp.forward(batch), axis=1)
        right[i * mlp.batch_size : (i + 1) * mlp.batch_size] = label
    assert np.mean(right[:100] == mlp.test_data[:100, -1]) > 0.8
    for layer, shape in ((mlp.fc1, (784, 32)), (mlp.fc2, (32, 16)), (mlp.fc3, (16, 10))):
        assert layer.weight.shape == layer.d_weight.shape == shape


# Experiment 3-1 ------------------------------------------------------------------------------


class LabVGG(vgg_cpu.VGG19):
    """A student's class: `build_model` and `load_model` as the lab has them."""

    widths = tuple(bias.size for _, bias in make_weights(divisor=16).values())

    def build_model(self):
        self.layers, self.update_layer_list = {}, []
        widths, channels = iter(self.widths), 3
        for name in self.param_layer_name:
            if "conv" in name:
                width = next(widths)
                layer = ConvolutionalLayer(3, channels, width, 1, 1)
                channels = width
            elif "fc" in name:
                width = next(widths)
                layer = FullyConnectedLayer(channels, width)
                channels = width
            elif "pool" in name:
                layer = MaxPoolingLayer(2, 2)
            elif name == "flatten":
                layer = FlattenLayer([channels, 7, 7], [channels * 49])
                channels *= 49
            else:
                layer = SoftmaxLossLayer() if name == "softmax" else ReLULayer()
            self.layers[name] = layer
            if "conv" in name or "fc" in name:
                self.update_layer_list.append(name)


class LabReader(LabVGG):
    def load_model(self):
        params = loadmat(self.param_path)
        self.image_mean = np.mean(params["normalization"][0][0][0], axis=(0, 1))
        layers = params["layers"][0]
        for i in range(43):
            name = self.param_layer_name[i]
            if "conv" in name:
                weight, bias = layers[i]["weights"][0, 0][0]
                weight = np.transpose(weight, [2, 0, 1, 3])
                self.layers[name].load_param(weight, bias.reshape(-1))
            if i >= 37 and "fc" in name:
                weight, bias = layers[i - 1]["weights"][0, 0][0]
                weight = weight.reshape([-1, weight.shape[3]])
                self.layers[name].load_param(weight, bias.reshape(1, -1))


def lab_program(vgg, picture):
    vgg.build_model()
    vgg.init_model()
    vgg.load_model()
    vgg.load_image(picture)
    return vgg.forward()


@pytest.fixture(scope="module")
def prob(vgg_dir):
    """What our own class makes of the content picture."""
    vgg = vgg_cpu.VGG19(vgg_dir / "whole.mat")
    vgg.load_model()
    vgg.load_image(vgg_dir / "content.jpg")
    return vgg.forward()


def test_a_subclass_with_the_labs_build_model(vgg_dir, prob):
    mine = LabVGG(vgg_dir / "whole.mat")
    np.testing.assert_array_equal(lab_program(mine, vgg_dir / "content.jpg"), prob)
    alone = LabVGG(vgg_dir / "whole.mat")
    alone.load_model()  # without build_model
    assert list(alone.layers) == list(mine.layers)
    wide = LabVGG(vgg_dir / "whole.mat")
    wide.widths = (64, *LabVGG.widths[1:])  # the first layers do not fit the file
    np.testing.assert_array_equal(lab_program(wide, vgg_dir / "content.jpg"), prob)
    reader = LabReader(vgg_dir / "whole.mat")
    np.testing.assert_allclose(lab_program(reader, vgg_dir / "content.jpg"), prob, rtol=1e-5)


def test_load_model_fills_the_layers_that_are_there(vgg_dir):
    vgg = style_transfer_cpu.VGG19(vgg_dir / "narrow.mat")
    vgg.build_model({name: bias.size for name, (_, bias) in NARROW.items()})
    vgg.use_average_pooling()
    kept = dict(vgg.layers)
    vgg.load_model()
    assert all(vgg.layers[name] is kept[name] for name in vgg.param_layer_name)
    assert vgg.layers["conv1_1"].weight is not None
    wide = style_transfer_cpu.VGG19(vgg_dir / "narrow.mat")
    wide.build_model()
    wide.use_average_pooling()
    wide.load_model()  # other numbers of channels: convolutions made again, pooling kept
    assert isinstance(wide.layers["pool3"], AveragePoolingLayer)
    assert wide.layers["conv5_4"].channel_out == 32
    image, _ = vgg.load_image(vgg_dir / "content.jpg", 48, 64)
    np.testing.assert_array_equal(
        wide.forward(image, ["pool5"])["pool5"], vgg.forward(image, ["pool5"])["pool5"]
    )


def test_a_layer_of_their_own_stays_in_the_network(vgg_dir, prob):
    class TheirReLU:
        def forward(self, input):
            return np.maximum(input, 0)

    class TheirConvolution(ConvolutionalLayer):
        freeze = property()  # it has no such method

        def forward(self, input):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(input)

    vgg = LabVGG(vgg_dir / "whole.mat")
    vgg.build_model()
    theirs = vgg.layers["conv1_2"] = TheirConvolution(3, 4, 4, 1, 1)
    vgg.layers["relu1_1"] = TheirReLU()
    vgg.load_model()
    vgg.load_image(vgg_dir / "content.jpg")
    np.testing.assert_array_equal(vgg.forward(), prob)
    assert vgg.layers["conv1_2"] is theirs
    assert theirs.calls == 1


def test_a_grader_of_experiment_3_1(vgg_dir):
    vgg = vgg_cpu.VGG19(vgg_dir / "whole.mat")
    vgg.load_model()
    assert isinstance(vgg.param_layer_name, list)
    assert vgg.param_layer_name + ["extra"]  # noqa: RUF005  as with the lab's list
    seed(4)
    vgg.input_image = np.random.randint(0, 256, (1, 3, 224, 224))  # noqa: NPY002  integers
    current = vgg.input_image
    for name in vgg.param_layer_name[: vgg.param_layer_name.index("pool5") + 1]:
        current = vgg.layers[name].forward(current)
    assert current.shape == (1, 32, 7, 7)
    assert current.dtype == np.float32
    assert vgg.forward().sum() == pytest.approx(1, abs=1e-5)


def test_vgg_called_too_early():
    for vgg in (vgg_cpu.VGG19(), style_transfer_cpu.VGG19()):
        with pytest.raises(RuntimeError, match="call build_model"):
            vgg.init_model()
    image = np.zeros((1, 3, 32, 32), np.float32)
    for call in (
        lambda: vgg.forward(image, ["relu1_1"]),
        lambda: vgg.backward(image, "relu1_1"),
        vgg.use_average_pooling,
    ):
        with pytest.raises(RuntimeError, match="call build_model"):
            call()
    vgg.build_model()
    with pytest.raises(RuntimeError, match="call init_param or load_param"):
        vgg.forward(image, ["relu1_1"])
    with pytest.raises(RuntimeError, match="forward pass"):
        vgg.backward(image, "relu1_1")
    for call in (lambda: vgg.forward(image, ["relu6"]), lambda: vgg.backward(image, "relu6")):
        with pytest.raises(ValueError, match="there is no layer 'relu6'; the last is pool5"):
            call()


# Experiment 3-3 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg(vgg_dir):
    vgg = style_transfer_cpu.VGG19(vgg_dir / "narrow.mat")
    vgg.load_model()
    return vgg


def images(vgg, vgg_dir):
    return (vgg.load_image(vgg_dir / f"{name}.jpg", 48, 64)[0] for name in ("content", "style"))


def test_the_labs_style_transfer(vgg, vgg_dir):
    content_names, style_names = ["relu4_2"], ["relu1_1", "relu2_1", "relu3_1"]
    content_loss, style_loss = ContentLossLayer(), StyleLossLayer()
    content_image, style_image = images(vgg, vgg_dir)
    content = vgg.forward(content_image, content_names)
    style = vgg.forward(style_image, style_names)
    runs = []
    for _ in range(2):
        seed(5)
        transfer = get_random_img(content_image, 0.5)
        adam = AdamOptimizer(1.0, transfer.shape)
        losses = []
        for _ in range(8):
            features = vgg.forward(transfer, content_names + style_names)
            total = np.array([])
            content_diff, style_diff = np.zeros(transfer.shape), np.zeros(transfer.shape)
            for name in content_names:
                total = np.append(total, content_loss.forward(features[name], content[name]))
                diff = content_loss.backward(features[name], content[name])
                content_diff += vgg.backward(diff, name)
            for name in style_names:
                total = np.append(total, 500 * style_loss.forward(features[name], style[name]))
                diff = style_loss.backward(features[name], style[name])
                style_diff += vgg.backward(diff, name)
            image_diff = content_diff + 500 * style_diff / len(style_names)
            transfer = adam.update(transfer, image_diff)
            losses.append(float(total.sum()))
        runs.append((losses, transfer))
    assert runs[0][0][-1] < 0.9 * runs[0][0][0]
    assert runs[0][0] == runs[1][0]
    assert transfer.dtype == np.float32
    vgg.save_image(transfer, (60, 80, 3), vgg_dir / "result.jpg")
    assert read_picture(vgg_dir / "result.jpg").shape == (60, 80, 3)


def test_a_gradient_never_mixes_two_pictures(vgg, vgg_dir):
    first, second = images(vgg, vgg_dir)
    deep = vgg.forward(first, ["relu3_1"])["relu3_1"]
    gradient = vgg.backward(deep, "relu3_1")
    vgg.forward(second, ["relu1_1"])
    with pytest.raises(RuntimeError, match="forward pass"):
        vgg.backward(deep, "relu3_1")
    with pytest.raises(ValueError, match="does not fit"):
        vgg.forward(second[:, :, :8, :8], ["pool5"])  # ends in the middle
    with pytest.raises(RuntimeError, match="forward pass"):
        vgg.backward(np.zeros((1, 32, 1, 2), np.float32), "pool5")
    for names in ([], ["pool5"], "relu3_1", ("relu1_1", "relu3_1")):
        vgg.forward(second, names)
        vgg.forward(first, names)
        np.testing.assert_array_equal(vgg.backward(deep, "relu3_1"), gradient)
    current = first  # layer by layer, as the graders do
    for name in vgg.param_layer_name[:12]:
        current = vgg.layers[name].forward(current)
    np.testing.assert_array_equal(vgg.backward(current, "relu3_1"), gradient)


def test_one_name_or_none(vgg, vgg_dir):
    image, _ = images(vgg, vgg_dir)
    expected = vgg.forward(image, ["relu4_2"])
    found = vgg.forward(image, "relu4_2")
    assert list(found) == ["relu4_2"]
    np.testing.assert_array_equal(found["relu4_2"], expected["relu4_2"])
    assert vgg.forward(image, []) == {}


def test_noise_comes_from_np_random_unless_a_generator_is_given():
    image = oracles.read_only(np.ones((1, 3, 4, 5), np.float32))
    drawn = []
    for number in (6, 6, 7):
        seed(number)
        drawn.append(get_random_img(image, 0.5))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    seed(6)
    given = get_random_img(image, 0.5, rng=1)
    np.testing.assert_array_equal(get_random_img(image, 0.5), drawn[0])  # untouched by it
    np.testing.assert_array_equal(get_random_img(image, 0.5, np.random.default_rng(1)), given)

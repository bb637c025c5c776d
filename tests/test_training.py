"""Training: optimisers, schedules, dropout, batch normalisation, early stopping, the CNN."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.gradients import check_gradient
from PIL import Image

import mnist_mlp_cpu
from layers1 import DropoutLayer, FullyConnectedLayer, MomentumOptimizer, draw_weights
from layers2 import BatchNormLayer, ConvolutionalLayer
from mnist.data import MNIST_FILES, as_rows, write_idx
from mnist.digits import draw_digits
from mnist_mlp_cpu import MNIST_CNN, MNIST_MLP, SCHEDULES, main, make_network

layers = pytest.mark.layers


@pytest.fixture(scope="module")
def digits():
    return as_rows(*draw_digits(600, 1)), as_rows(*draw_digits(200, 2))


@pytest.fixture
def data_dir(tmp_path):
    """A folder with 400 drawn training digits and 100 test digits."""
    for part, count, seed in (("train", 400, 1), ("test", 100, 2)):
        images, labels = draw_digits(count, seed)
        write_idx(tmp_path / MNIST_FILES[f"{part}_images"], images)
        write_idx(tmp_path / MNIST_FILES[f"{part}_labels"], labels)
    return tmp_path


def network(digits, kind=MNIST_MLP, **options):
    sizes = {"hidden1": 16, "hidden2": 12} if kind is MNIST_MLP else {"hidden1": 16}
    options = {"standardize": True, "init": "he", "seed": 0, "lr": 0.1, **sizes, **options}
    mlp = kind(**options)
    mlp.train_data, mlp.test_data = digits
    mlp.build_model()
    mlp.init_model()
    return mlp


# Batch normalisation -------------------------------------------------------------------------


def batch_norm(rng, channels=3, dtype=np.float64):
    layer = BatchNormLayer(channels)
    gamma, beta, mean = (rng.standard_normal(channels).astype(dtype) for _ in range(3))
    layer.load_param(gamma, beta, mean, rng.uniform(0.5, 2, channels).astype(dtype))
    return layer


@layers
def test_batch_norm_is_its_definition():
    rng = np.random.default_rng(0)
    layer = batch_norm(rng)
    gamma, beta, mean, var = layer.save_param()
    x = rng.standard_normal((4, 3, 5, 2)) * 3 + 1
    kept = x.copy()
    for c in range(3):
        expected = (x[:, c] - mean[c]) / np.sqrt(var[c] + 1e-5) * gamma[c] + beta[c]
        np.testing.assert_allclose(layer.forward(x)[:, c], expected, rtol=1e-10)
    layer.training = True
    y = layer.forward(x)
    for c in range(3):
        values = x[:, c]
        expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * gamma[c] + beta[c]
        np.testing.assert_allclose(y[:, c], expected, rtol=1e-10)
        assert layer.mean[c] == pytest.approx(0.9 * mean[c] + 0.1 * values.mean())
        assert layer.var[c] == pytest.approx(0.9 * var[c] + 0.1 * values.var(ddof=1))
    np.testing.assert_array_equal(x, kept)


@layers
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 3, 3, 2)])
def test_batch_norm_gradients_by_finite_differences(shape, training):
    rng = np.random.default_rng(1)
    layer = batch_norm(rng)
    layer.training = training
    gamma, beta, mean, var = layer.save_param()
    x, top_diff = rng.standard_normal(shape), rng.standard_normal(shape)

    def loss(x=x, gamma=gamma, beta=beta):
        layer.load_param(gamma, beta, mean, var)
        return np.sum(layer.forward(x) * top_diff)

    loss()
    bottom_diff = layer.backward(top_diff)
    d_gamma, d_beta = layer.d_weight, layer.d_bias
    check_gradient(loss, x, bottom_diff, "x")
    check_gradient(lambda g: loss(gamma=g), gamma, d_gamma, "gamma")
    check_gradient(lambda b: loss(beta=b), beta, d_beta, "beta")


@layers
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_agrees_with_pytorch(dtype, training):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    layer = batch_norm(rng, dtype=dtype)
    layer.training = training
    other = torch.nn.BatchNorm2d(3, dtype=getattr(torch, np.dtype(dtype).name)).train(training)
    state = zip(("weight", "bias", "running_mean", "running_var"), layer.save_param(), strict=True)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in state}, strict=False)
    x, top_diff = (rng.standard_normal((6, 3, 5, 4)).astype(dtype) for _ in range(2))
    theirs = torch.from_numpy(x).requires_grad_()
    output = other(theirs)
    output.backward(torch.from_numpy(top_diff))
    ours = [layer.forward(x), layer.backward(top_diff), layer.d_weight, layer.d_bias, layer.mean,
            layer.var]  # fmt: skip
    expected = [output.detach(), theirs.grad, other.weight.grad, other.bias.grad,
                other.running_mean, other.running_var]  # fmt: skip
    for array, tensor in zip(ours, expected, strict=True):
        assert array.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(array, tensor.numpy(), rtol=tolerance, atol=10 * tolerance)


@layers
def test_batch_norm_folded_into_the_convolution_before_it():
    rng = np.random.default_rng(3)
    conv, norm = ConvolutionalLayer(3, 2, 3, 1, 1), batch_norm(rng)
    conv.load_param(rng.standard_normal((2, 3, 3, 3)), rng.standard_normal(3))
    x = rng.standard_normal((2, 2, 5, 4))
    expected = norm.forward(conv.forward(x))
    conv.load_param(*norm.folded_into(*conv.save_param()))
    np.testing.assert_allclose(conv.forward(x), expected, rtol=1e-10)


@layers
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_gradients_have_the_dtype_of_the_input(training):
    layer = batch_norm(np.random.default_rng(4), dtype=np.float32)
    layer.training = training
    layer.forward(np.random.default_rng(5).standard_normal((2, 3, 4, 4), dtype=np.float32))
    gradients = [layer.backward(np.ones((2, 3, 4, 4))), layer.d_weight, layer.d_bias]
    assert {array.dtype for array in gradients} == {np.dtype(np.float32)}


def test_batch_norm_refuses():
    layer = BatchNormLayer(3)
    x = np.zeros((2, 3, 4, 4))
    with pytest.raises(RuntimeError, match="init_param"):
        layer.forward(x)
    layer.init_param()
    with pytest.raises(RuntimeError, match="forward pass first"):
        layer.backward(x)
    with pytest.raises(RuntimeError, match="backward pass first"):
        layer.update_param(0.1)
    with pytest.raises(ValueError, match="3 channels"):
        layer.forward(np.zeros((2, 4, 4, 4)))
    layer.forward(x)
    with pytest.raises(ValueError, match="top_diff of shape"):
        layer.backward(np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="var of shape"):
        layer.load_param(*[np.zeros(3, np.float32)] * 3, np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="channels must be at least 1"):
        BatchNormLayer(0)


# Dropout -------------------------------------------------------------------------------------


@layers
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout(dtype):
    layer, rng = DropoutLayer(0.25, 0), np.random.default_rng(0)
    x = rng.uniform(1, 2, (200, 300)).astype(dtype)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)
    layer.training = True
    y, kept = layer.forward(x), x.copy()
    dropped = y == 0
    assert dropped.mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(y[~dropped], x[~dropped] / 0.75, rtol=1e-6)
    assert y.dtype == dtype
    np.testing.assert_array_equal(x, kept)
    dx = layer.backward(x)
    np.testing.assert_allclose(dx, np.where(dropped, 0, x / 0.75), rtol=1e-6)
    assert not np.array_equal(layer.forward(x) == 0, dropped)  # drawn anew
    np.testing.assert_array_equal(DropoutLayer(0.25, 0).forward(x), x)


def test_dropout_refuses():
    for rate in (-0.1, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="rate must be at least 0 and below 1"):
            DropoutLayer(rate)
    with pytest.raises(RuntimeError, match="forward pass first"):
        DropoutLayer(0.5).backward(np.zeros((2, 2)))


# Initial weights, optimisers, schedules ------------------------------------------------------


def test_initial_weights_have_the_spread_of_their_rule():
    for std, expected in (("he", np.sqrt(2 / 300)), ("xavier", np.sqrt(2 / 500)), (0.01, 0.01)):
        weight = draw_weights((300, 200), std, 300, 200, 0)
        assert weight.std() == pytest.approx(expected, rel=0.02)
    conv = ConvolutionalLayer(3, 20, 30, 1, 1)
    conv.init_param("xavier", 0)
    assert conv.weight.std() == pytest.approx(np.sqrt(2 / (9 * 20 + 9 * 30)), rel=0.03)


def test_momentum_by_hand():
    optimizer = MomentumOptimizer(0.5, (2,))
    x, gradients = np.array([1.0, -1.0]), np.array([[2.0, 4.0], [-1.0, 0.0]])
    x = optimizer.update(x, gradients[0])
    np.testing.assert_allclose(x, [0.0, -3.0])
    x = optimizer.update(x, gradients[1])  # v = 0.9 * (2, 4) + (-1, 0)
    np.testing.assert_allclose(x, [-0.4, -4.8])
    x = x.astype(np.float32)
    assert optimizer.update(x, gradients[0].astype(np.float32)).dtype == np.float32
    for momentum in (-0.1, 1):
        with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
            MomentumOptimizer(0.5, (2,), momentum)
    with pytest.raises(ValueError, match="grad of shape"):
        optimizer.update(x, np.zeros(3))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("weight_decay", [0, 0.01])
def test_steps_agree_with_pytorch(digits, optimizer, weight_decay):
    """Five batches of the whole network, the learning rate changing with each."""
    torch = pytest.importorskip("torch")
    mlp = network(digits, optimizer=optimizer, weight_decay=weight_decay)
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(),
                          nn.Linear(12, 10)).double()  # fmt: skip
    for ours, theirs in zip(mlp.update_layer_list, model[::2], strict=True):
        weight, bias = (array.astype(np.float64) for array in ours.save_param())
        ours.load_param(weight, bias)
        theirs.weight.data, theirs.bias.data = torch.tensor(weight.T), torch.tensor(bias[0])
    groups = [{"params": [layer.weight for layer in model[::2]], "weight_decay": weight_decay},
              {"params": [layer.bias for layer in model[::2]]}]  # fmt: skip
    if optimizer == "adam":
        theirs = torch.optim.Adam(groups, 0.1)
    else:
        theirs = torch.optim.SGD(groups, 0.1, 0.9 if optimizer == "momentum" else 0)
    mlp.as_input = lambda pixels: pixels / 255.0  # float64
    for i in range(5):
        batch = mlp.train_data[20 * i : 20 * i + 20]
        lr = 0.01 / (i + 1)
        loss = mlp.train_batch(batch[:, :-1], batch[:, -1], lr)
        for group in theirs.param_groups:
            group["lr"] = lr
        theirs.zero_grad()
        output = model(torch.tensor(batch[:, :-1] / 255.0))
        expected = nn.functional.cross_entropy(output, torch.tensor(batch[:, -1].astype(int)))
        expected.backward()
        theirs.step()
        assert loss == pytest.approx(expected.item(), rel=1e-9)
    for ours, layer in zip(mlp.update_layer_list, model[::2], strict=True):
        np.testing.assert_allclose(ours.weight.T, layer.weight.detach(), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.bias[0], layer.bias.detach(), rtol=1e-6, atol=1e-9)


def test_schedules_start_at_1_and_decrease():
    t = np.linspace(0, 0.999, 500)
    for name, schedule in SCHEDULES.items():
        rates = np.array([schedule(x) for x in t])
        assert rates[0] == pytest.approx(1, abs=1e-5), name
        assert (np.diff(rates) <= 0).all(), name
        assert (rates[-1] < 0.06) == (name != "constant")
    assert [SCHEDULES["step"](x) for x in (0.3, 0.4, 0.7)] == pytest.approx([1, 0.1, 0.01])
    assert SCHEDULES["1/t"](0.5) == pytest.approx(1 / 11)
    assert SCHEDULES["exponential"](0.5) == pytest.approx(0.1)
    assert SCHEDULES["cosine"](0.5) == pytest.approx(0.5)
    assert SCHEDULES["tanh"](2 / 3) == pytest.approx(0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_follows_the_schedule(digits, name):
    mlp = network(digits, lr_schedule=name, max_epoch=2, batch_size=200)
    rates = []
    mlp.update = rates.append
    mlp.train()
    np.testing.assert_allclose(rates, [0.1 * SCHEDULES[name](i / 6) for i in range(6)])


# The networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MNIST_MLP, MNIST_CNN])
@pytest.mark.parametrize("options", [
    {}, {"optimizer": "momentum", "lr": 0.02}, {"optimizer": "adam", "lr": 0.003},
    {"dropout": 0.2, "weight_decay": 1e-4}, {"init": "xavier", "lr_schedule": "cosine"},
])  # fmt: skip
def test_every_choice_learns_and_repeats(digits, kind, options):
    runs = []
    for _ in range(2):
        mlp = network(digits, kind, batch_size=20, max_epoch=3, **options)
        assert mlp.evaluate() < 0.35
        mlp.train()
        runs.append([(entry["loss"], entry["test_accuracy"]) for entry in mlp.history])
    assert runs[0] == runs[1]
    assert mlp.evaluate() > 0.5
    assert mlp.history[-1]["test_accuracy"] == mlp.evaluate()


def test_the_cnn_with_batch_norm_saves_a_plain_network(digits, tmp_path):
    mlp = network(digits, MNIST_CNN, batch_norm=True, batch_size=50, max_epoch=2)
    assert [type(layer).__name__ for layer in mlp.layers[:4]] == [
        "ConvolutionalLayer", "BatchNormLayer", "ReLULayer", "MaxPoolingLayer"
    ]  # fmt: skip
    mlp.train()
    mlp.save_model(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as archive:
        shapes = {name: archive[name].shape for name in archive.files}
    assert shapes == {
        "w1": (1, 5, 5, 16), "b1": (16,), "w2": (16, 5, 5, 32), "b2": (32,),
        "w3": (1568, 16), "b3": (1, 16), "w4": (16, 10), "b4": (1, 10),
    }  # fmt: skip
    pixels = mlp.test_data[:, :-1]
    plain = make_network(tmp_path / "p.npz")
    assert type(plain) is MNIST_CNN
    np.testing.assert_allclose(plain.forward(pixels), mlp.forward(pixels), atol=1e-3)
    again = make_network(tmp_path / "p.npz", batch_norm=True)
    np.testing.assert_allclose(again.forward(pixels), mlp.forward(pixels), atol=1e-3)


def test_the_gradient_of_the_cnn_by_finite_differences(digits):
    mlp = network(digits, MNIST_CNN, batch_norm=True)
    rng = np.random.default_rng(0)
    for layer in mlp.update_layer_list:
        arrays = (array.astype(np.float64) for array in layer.save_param())
        layer.load_param(*arrays)
    x, labels = rng.uniform(0, 1, (3, 784)), np.array([1, 5, 7])
    mlp.as_input = lambda pixels: pixels.reshape(-1, 1, 28, 28)

    def loss():
        with mlp._training_mode():
            mlp.forward(x)
            value = mlp.softmax.get_loss(labels)
            mlp.backward()
        return value

    loss()
    for layer in mlp.update_layer_list:
        parameters = list(layer.save_param())
        gradient = layer.d_weight.ravel().copy()
        for index in rng.integers(0, gradient.size, 4):
            values = []
            for step in (1e-5, -1e-5):
                weight = parameters[0].copy()
                weight.ravel()[index] += step
                layer.load_param(weight, *parameters[1:])
                values.append(loss())
            layer.load_param(*parameters)
            numeric = (values[0] - values[1]) / 2e-5
            assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-8)


def test_dropout_and_batch_norm_act_in_training_only(digits):
    mlp = network(digits, MNIST_CNN, batch_norm=True, dropout=0.5)
    pixels = mlp.train_data[:20, :-1]
    np.testing.assert_array_equal(mlp.forward(pixels), mlp.forward(pixels))
    seen = []
    mlp.backward = lambda: seen.append([layer.training for layer in mlp.layers
                                        if hasattr(layer, "training")])  # fmt: skip
    mlp.update = lambda lr: None
    mlp.train_batch(pixels, mlp.train_data[:20, -1], 0.1)
    assert seen == [[True, True, True]]
    assert not any(getattr(layer, "training", False) for layer in mlp.layers)

    def fail():
        raise KeyboardInterrupt

    mlp.backward = fail
    with pytest.raises(KeyboardInterrupt):
        mlp.train_batch(pixels, mlp.train_data[:20, -1], 0.1)
    assert not any(getattr(layer, "training", False) for layer in mlp.layers)


def test_early_stopping_keeps_the_best(digits):
    mlp = network(digits, patience=2, max_epoch=30, batch_size=10, lr=0.1)
    everything = mlp.train_data
    mlp.train()
    assert len(mlp.validation_data) == 50
    assert len(mlp.train_data) == 550
    both = np.concatenate([mlp.validation_data, mlp.train_data])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(everything, axis=0))
    scores = [entry["validation_accuracy"] for entry in mlp.history]
    best = int(np.argmax(scores))  # the first of equals
    assert len(scores) == best + 3 < 30
    assert mlp.evaluate(mlp.validation_data) == scores[best]
    assert mlp.evaluate() == mlp.history[best]["test_accuracy"]


def test_the_best_epoch_without_early_stopping_has_the_lowest_loss(digits):
    mlp = network(digits, max_epoch=4, batch_size=50)
    mlp.train()
    losses = [entry["loss"] for entry in mlp.history]
    assert mlp.best[0]["loss"] == min(losses)
    before = mlp.evaluate()
    mlp.restore_best()
    assert mlp.evaluate() == mlp.history[int(np.argmin(losses))]["test_accuracy"]
    assert losses[-1] == min(losses)
    assert mlp.evaluate() == before


# The command ---------------------------------------------------------------------------------


def test_the_command_trains_a_cnn_and_draws_figures(data_dir, tmp_path, capsys):
    folder = tmp_path / "figures"
    options = ["--data-dir", data_dir, "--model", "cnn", "--epochs", 2, "--hidden", 12,
               "--optimizer", "adam", "--weight-decay", 1e-4, "--lr-schedule", "tanh",
               "--init", "xavier", "--dropout", 0.1, "--batch-norm", "--max-shift", 1,
               "--early-stopping", 5, "--save", tmp_path / "p.npz",
               "--figures", folder]  # fmt: skip
    assert main([str(option) for option in options]) == 0
    output = capsys.readouterr().out
    assert output.count("  validation ") == 2
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [
        "confusion.png", "curves.png", "mistakes.png", "weights.png"
    ]  # fmt: skip
    for path in paths:
        with Image.open(path) as image:
            assert 600 <= image.width <= 830
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
        path.unlink()
    # a network that is loaded has no curves, but all the rest
    call = ["--data-dir", str(data_dir), "--load", str(tmp_path / "p.npz")]
    assert main([*call, "--figures", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.png", "mistakes.png", "weights.png"
    ]  # fmt: skip


def test_a_network_without_mistakes_can_be_drawn(tmp_path):
    from mnist.figures import write_figures

    labels = np.arange(10)
    images = np.zeros((10, 784), np.uint8)
    weight = np.random.default_rng(0).standard_normal((784, 3))
    paths = write_figures(tmp_path, [], images, labels, np.eye(10), weight)
    assert [path.name for path in paths] == ["confusion.png", "mistakes.png", "weights.png"]


@pytest.mark.parametrize("save", [True, False])
def test_ctrl_c_keeps_the_best_parameters(data_dir, tmp_path, save, capsys, monkeypatch):
    train_epoch = MNIST_MLP._train_epoch

    def interrupted(self, number, *rest):
        if number == 3:
            self.update_layer_list[0].weight = self.update_layer_list[0].weight * np.nan
            raise KeyboardInterrupt
        return train_epoch(self, number, *rest)

    monkeypatch.setattr(MNIST_MLP, "_train_epoch", interrupted)
    path = tmp_path / "p.npz" if save else data_dir / "interrupted_mlp.npz"
    options = ["--data-dir", str(data_dir), "--epochs", "5", "--hidden", "16", "12"]
    assert main(options + (["--save", str(path)] if save else [])) == 130
    captured = capsys.readouterr()
    assert f"{path} keeps the best parameters so far, of epoch 2: loss " in captured.out
    assert captured.err.endswith("mnist_mlp_cpu.py: interrupted\n")
    accuracy = captured.out.split("epoch  2/5")[1].split("test ")[1].split("%")[0]
    assert main(["--data-dir", str(data_dir), "--load", str(path)]) == 0
    assert f"accuracy {accuracy}% on the test digits" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_real_ctrl_c(data_dir):
    process = subprocess.Popen(
        [sys.executable, Path(mnist_mlp_cpu.__file__), "--data-dir", data_dir,
         "--epochs", "100000", "--hidden", "8", "8"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch  3"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "keeps the best parameters so far" in output
    assert "Traceback" not in errors
    assert (data_dir / "interrupted_mlp.npz").is_file()


def test_a_layer_that_is_not_of_the_book_is_not_decayed():
    """gamma of batch normalisation is not pulled to 0; weights are."""
    mlp = MNIST_MLP(weight_decay=0.5)
    norm, fc = BatchNormLayer(2), FullyConnectedLayer(2, 2)
    for layer in (norm, fc):
        layer.init_param(1.0, 0)
        layer.d_weight, layer.d_bias = np.zeros_like(layer.weight), np.zeros_like(layer.bias)
    mlp.update_layer_list = [norm, fc]
    before = fc.weight
    mlp.update(0.1)
    np.testing.assert_array_equal(norm.weight, [1, 1])
    np.testing.assert_allclose(fc.weight, 0.95 * before, rtol=1e-6)

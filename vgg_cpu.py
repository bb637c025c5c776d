"""VGG-19 names what a picture shows (course book, experiments 3-1 and 3-2).

Sixteen convolutions, in five blocks that each end by halving height and width, turn a picture of
224x224 pixels into 512 maps of 7x7. Three fully connected layers turn those into one score for each
of the thousand ImageNet classes, and the softmax makes probabilities of the scores. The weights
were learnt by the network's authors; here they are read from a file.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015; the network is column E of table 1.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from fast.strips import set_threads
from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer
from layers2 import ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from support.command import bounded, exit_status
from support.files import write_json
from support.machine import library_versions, peak_memory_bytes
from support.matconvnet import FILE_NAME, IMAGE_MEAN, download_vgg19, read_matconvnet
from support.pictures import read_picture, resize_picture

IMAGE_SIZE = 224  # pixels, height and width of the input

# Outputs of every layer that has parameters: channels of a convolution, features of a fully
# connected layer.
OUTPUTS = {
    "conv1_1": 64, "conv1_2": 64,
    "conv2_1": 128, "conv2_2": 128,
    "conv3_1": 256, "conv3_2": 256, "conv3_3": 256, "conv3_4": 256,
    "conv4_1": 512, "conv4_2": 512, "conv4_3": 512, "conv4_4": 512,
    "conv5_1": 512, "conv5_2": 512, "conv5_3": 512, "conv5_4": 512,
    "fc6": 4096, "fc7": 4096, "fc8": 1000,
}


class VGG19:
    """The network, as a dict of layers that `forward` walks through in order.

    Parameters
    ----------
    param_path : str or Path, default='imagenet-vgg-verydeep-19.mat'
        The weights file that `load_model` reads.

    Attributes
    ----------
    param_layer_name : tuple of str
        The 44 layers from 'conv1_1' to 'softmax', in order.
    layers : dict of str to layer
        Set by `build_model`; the keys are those of `param_layer_name`.
    update_layer_list : list of str
        The 19 layers that have parameters.
    image_mean : ndarray of shape (3,)
        Mean red, green and blue of the training pictures, from 0 to 255. That of ImageNet, until
        `load_model` reads the file's own.
    class_names, wordnet_ids : list of str
        What the classes are called, and their numbers in WordNet; set by `load_model`, empty where
        the file has none.
    input_image : ndarray of shape (N, 3, 224, 224)
        float32, the mean subtracted; set by `load_image`.

    Examples
    --------
    ::

        vgg = VGG19("imagenet-vgg-verydeep-19.mat")
        vgg.load_model()
        vgg.load_image("cat.jpg")
        vgg.evaluate(top=1)  # prints probability, class and name
    """

    def __init__(self, param_path=FILE_NAME):
        self.param_path = param_path
        self.param_layer_name = (
            "conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1",
            "conv2_1", "relu2_1", "conv2_2", "relu2_2", "pool2",
            "conv3_1", "relu3_1", "conv3_2", "relu3_2",
            "conv3_3", "relu3_3", "conv3_4", "relu3_4", "pool3",
            "conv4_1", "relu4_1", "conv4_2", "relu4_2",
            "conv4_3", "relu4_3", "conv4_4", "relu4_4", "pool4",
            "conv5_1", "relu5_1", "conv5_2", "relu5_2",
            "conv5_3", "relu5_3", "conv5_4", "relu5_4", "pool5",
            "flatten", "fc6", "relu6", "fc7", "relu7", "fc8", "softmax",
        )
        # the network
        self.layers = {}
        self.update_layer_list = []
        # what belongs to its weights
        self.image_mean = np.array(IMAGE_MEAN, dtype=np.float32)
        self.class_names = []
        self.wordnet_ids = []
        # what it looks at
        self.input_image = None

    def build_model(self, outputs=None):
        """Make all the layers, still without parameters.

        Parameters
        ----------
        outputs : dict of str to int, optional
            Outputs of every layer that has parameters; VGG-19's own (`OUTPUTS`) by default.
        """
        outputs = OUTPUTS if outputs is None else outputs
        self.layers = {}
        channels, size = 3, IMAGE_SIZE  # of what the next layer is given
        for name in self.param_layer_name:
            if name.startswith("conv"):
                # kernel 3x3, padding 1, stride 1: height and width stay as they are
                self.layers[name] = ConvolutionalLayer(3, channels, outputs[name], 1, 1, 1)
                channels = outputs[name]
            elif name.startswith("pool"):
                self.layers[name] = MaxPoolingLayer(2, 2)
                size //= 2
            elif name == "flatten":
                features = channels * size * size
                self.layers[name] = FlattenLayer([channels, size, size], [features])
                channels = features
            elif name.startswith("fc"):
                self.layers[name] = FullyConnectedLayer(channels, outputs[name])
                channels = outputs[name]
            elif name.startswith("relu"):
                self.layers[name] = ReLULayer()
            else:
                self.layers[name] = SoftmaxLossLayer()
        self.update_layer_list = [name for name in self.param_layer_name if name in outputs]

    def init_model(self, std=0.01, rng=None):
        """Give every layer random weights (see `FullyConnectedLayer.init_param`).

        Such a network guesses; this is for those who want to train it or to try it without a file.
        """
        rng = np.random.default_rng(rng)  # one generator for all, so that no two layers are alike
        for name in self.update_layer_list:
            self.layers[name].init_param(std, rng)

    def load_model(self):
        """Read the weights, mean colour and class names from `param_path`.

        The layers are made anew with the numbers of channels that the file has, so that a narrower
        network of the same form loads too.

        Raises
        ------
        InputError
            If the file is missing or unsuitable; the message says how to get the right one.
        """
        last = self.param_layer_name[-1]
        network = read_matconvnet(self.param_path, "prob" if last == "softmax" else last)
        self.build_model({name: bias.size for name, (_, bias) in network.layers.items()})
        self.image_mean = network.image_mean
        self.class_names = network.class_names
        self.wordnet_ids = network.wordnet_ids
        for name in self.update_layer_list:
            # The layer makes a copy, so this one has to go: fc6 alone takes 400 MB.
            weight, bias = network.layers.pop(name)
            if name.startswith("fc"):
                bias = bias.reshape(1, -1)  # (num_output,) -> (1, num_output)
            self.layers[name].load_param(weight, bias)
            if name.startswith("conv"):
                self.layers[name].freeze()  # the weights are final: transform them once
            del weight, bias

    def load_image(self, image_dir):
        """Read the picture at `image_dir` into `input_image`, prepared as in training.

        The whole picture is squeezed to 224x224, whatever its aspect ratio, as the course's
        program does.

        Raises
        ------
        InputError
            If the file is missing or not a picture.
        """
        picture = resize_picture(read_picture(image_dir), IMAGE_SIZE, IMAGE_SIZE, "bilinear")
        centred = picture.astype(np.float32) - self.image_mean  # (224, 224, 3), RGB
        self.input_image = np.ascontiguousarray(
            centred.transpose(2, 0, 1)[np.newaxis]  # (H, W, C) -> (1, C, H, W)
        )

    def forward(self):
        """Return the probabilities of all classes for `input_image`.

        Returns
        -------
        prob : ndarray of shape (N, classes)
            Each row sums to 1.

        Raises
        ------
        RuntimeError
            If there is no picture or no network yet.
        """
        if self.input_image is None:
            raise RuntimeError("forward needs a picture: call load_image first")
        if not self.layers:
            raise RuntimeError("forward needs a network: call build_model and load_model first")
        current = self.input_image
        for name in self.param_layer_name:
            current = self.layers[name].forward(current)
        return current

    def evaluate(self, top=5):
        """Classify `input_image`, print the most probable classes and return them.

        Parameters
        ----------
        top : int, default=5
            How many.

        Returns
        -------
        list of dict
            The most probable first, with the keys 'id' (row of fc8's output, from 0), 'name' and
            'wordnet' (None where the file has no names) and 'probability'.
        """
        prob = self.forward()[0]
        results = []
        for i in np.argsort(-prob, kind="stable")[:top].tolist():
            name = self.class_names[i] if self.class_names else None
            wordnet = self.wordnet_ids[i] if self.wordnet_ids else None
            result = {"id": i, "name": name, "wordnet": wordnet, "probability": float(prob[i])}
            results.append(result)
            print(f"{result['probability']:8.4f}  {i:4d}  {name or 'class without a name'}")
        return results


def parse_arguments(argv):
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="vgg_cpu.py",
        description="Name what pictures show, with VGG-19 and its ImageNet weights.",
        epilog="examples:\n"
        "  python vgg_cpu.py --download                  fetch the weights (535 MB), once\n"
        "  python vgg_cpu.py cat.jpg                     the five most probable classes\n"
        "  python vgg_cpu.py *.jpg --top 1 --report r.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures to classify")
    weights = parser.add_argument_group("weights")
    weights.add_argument(
        "--weights",
        type=Path,
        default=FILE_NAME,
        metavar="FILE",
        help="weights file (default: %(default)s)",
    )
    weights.add_argument(
        "--download", action="store_true", help="fetch that file first (535 MB, verified)"
    )
    weights.add_argument(
        "--threads", type=bounded(int, least=1), metavar="N", help="(default: one for each CPU)"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--top",
        type=bounded(int, least=1),
        default=5,
        metavar="N",
        help="classes to print (default: %(default)s)",
    )
    output.add_argument(
        "--report", type=Path, metavar="FILE.json", help="write results, times and versions there"
    )
    arguments = parser.parse_args(argv)
    if not arguments.images and not arguments.download:
        parser.error("give the file name of at least one picture")
    return arguments


def run(arguments):
    """Do what the command line asks for."""
    set_threads(arguments.threads)
    if arguments.download:
        download_vgg19(arguments.weights)
    if not arguments.images:
        return
    start = time.perf_counter()
    vgg = VGG19(arguments.weights)
    vgg.load_model()
    load_seconds = time.perf_counter() - start
    print(f"weights {arguments.weights} loaded in {load_seconds:.1f} s")
    pictures = []
    for image in arguments.images:
        print(image)
        start = time.perf_counter()
        vgg.load_image(image)
        top = vgg.evaluate(arguments.top)
        seconds = time.perf_counter() - start
        print(f"  {seconds:.2f} s")
        pictures.append({"image": image, "seconds": round(seconds, 4), "top": top})
    if arguments.report:
        report = {
            "weights": str(arguments.weights),
            "load_seconds": round(load_seconds, 4),
            "pictures": pictures,
            "peak_memory_bytes": peak_memory_bytes(),
            "versions": library_versions("numpy", "scipy", "pillow"),
        }
        write_json(arguments.report, report)


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 when interrupted."""
    return exit_status("vgg_cpu.py", run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())

"""VGG-19 and VGG-16 name what a picture shows (course book, experiments 3-1 and 3-2).

Sixteen convolutional layers (VGG-16: thirteen) in five blocks turn a picture of 224x224 pixels into
512 maps of 7x7: a pooling layer ends each block and halves height and width. Three fully connected
layers turn the maps into one score for each of the 1,000 ImageNet classes, and the softmax turns
the scores into probabilities. The authors of the network trained the weights; they are read from a
file.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
ICLR 2015; the networks are columns E and D of table 1.

`vgg/` has the command, and shows what a network sees.

A *picture* is a uint8 array (H, W, 3), sRGB. An *image* is what the network takes: a float32 array
(N, 3, H, W), RGB from 0 to 255 minus the mean colour.
"""

if __name__ == "__main__":  # the imports take seconds
    from support.start import quiet_start

    quiet_start()

import numpy as np

from layers1 import FullyConnectedLayer, ReLULayer, SoftmaxLossLayer, random_generator
from layers2 import ConvolutionalLayer, FlattenLayer, MaxPoolingLayer
from support.command import InputError, exit_status
from support.matconvnet import FILE_NAME, IMAGE_MEAN
from support.pictures import read_picture, resize_picture
from support.weights import read_weights
from vgg.command import class_line, parse_arguments, run

IMAGE_SIZE = 224  # height and width of the input in pixels

# (convolutions, output channels) of each block
VGG16_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
VGG19_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def layer_table(blocks):
    """Return {layer name: number of outputs} of a VGG network, in order.

    `blocks` is like `VGG19_BLOCKS`. A layer without parameters has None.
    """
    layers = {}
    for block, (convolutions, channels) in enumerate(blocks, start=1):
        for i in range(1, convolutions + 1):
            layers |= {f"conv{block}_{i}": channels, f"relu{block}_{i}": None}
        layers[f"pool{block}"] = None
    fully_connected = {"fc6": 4096, "relu6": None, "fc7": 4096, "relu7": None, "fc8": 1000}
    return {**layers, "flatten": None, **fully_connected, "softmax": None}


class VGG19:
    """The network: a dict of layers, which `forward` runs in order.

    `load_model` and `load_image` raise `InputError` if their file is missing or unsuitable; the
    message says what to do. `forward` and `evaluate` raise RuntimeError if called before them.

    Parameters
    ----------
    param_path : str or Path, default='imagenet-vgg-verydeep-19.mat'
        The weights file that `load_model` reads.
    last_layer : str, default='softmax'
        'pool5' gives the convolutions alone, which take images of any size.

    Attributes
    ----------
    param_layer_name : list of str
        The 44 layers from 'conv1_1' to 'softmax', in order.
    layers : dict of str to layer
        Set by `build_model`; the keys are those of `param_layer_name`.
    update_layer_list : list of str
        The 19 layers that have parameters; set by `build_model`.
    image_mean : ndarray of shape (3,)
        float32; mean colour of the training pictures, from 0 to 255. ImageNet's until `load_model`
        reads the file's own.
    class_names, wordnet_ids : list of str
        Set by `load_model`; empty if the file has none.
    input_image : ndarray of shape (N, 3, 224, 224)
        float32; set by `load_image`.

    Examples
    --------
    ::

        vgg = VGG19("imagenet-vgg-verydeep-19.mat")
        vgg.load_model()
        vgg.load_image("cat.jpg")
        vgg.evaluate(top=1)  # prints probability, class and name
    """

    blocks = VGG19_BLOCKS

    def __init__(self, param_path=FILE_NAME, last_layer="softmax"):
        self.param_path = param_path
        # the network
        names = list(layer_table(self.blocks))
        self.param_layer_name = names[: names.index(last_layer) + 1]
        self.layers = {}
        self.update_layer_list = []
        # read with the weights
        self.image_mean = np.array(IMAGE_MEAN, dtype=np.float32)
        self.class_names = []
        self.wordnet_ids = []
        # the input
        self.input_image = None

    def build_model(self, outputs=None):
        """Make all layers, without parameters.

        `outputs` has the number of outputs of each layer that has parameters, by default VGG's
        (`layer_table`). Smaller numbers give a narrower network.
        """
        outputs = layer_table(self.blocks) if outputs is None else outputs
        self.layers, self.update_layer_list = {}, []
        channels, size = 3, IMAGE_SIZE  # of the input of the next layer
        for name in self.param_layer_name:
            if name.startswith("conv"):
                # kernel 3x3, padding 1, stride 1: height and width do not change
                self.layers[name] = ConvolutionalLayer(3, channels, outputs[name], 1, 1, 1)
            elif name.startswith("pool"):
                self.layers[name] = MaxPoolingLayer(2, 2)
                size //= 2
            elif name == "flatten":
                self.layers[name] = FlattenLayer([channels, size, size], [channels * size * size])
                channels *= size * size
            elif name.startswith("fc"):
                self.layers[name] = FullyConnectedLayer(channels, outputs[name])
            elif name.startswith("relu"):
                self.layers[name] = ReLULayer()
            else:
                self.layers[name] = SoftmaxLossLayer()
            if name.startswith(("conv", "fc")):
                channels = outputs[name]
                self.update_layer_list.append(name)

    def init_model(self, std=0.01, rng=None):
        """Give all layers random weights, for training (see `FullyConnectedLayer.init_param`)."""
        self._check_built()
        rng = random_generator(rng)  # one generator for all, so that no two layers are alike
        for name in self.update_layer_list:
            self.layers[name].init_param(std, rng)

    def load_model(self):
        """Read the weights, mean colour and class names from `param_path`.

        The layers that are there are kept, also average pooling. Those with different numbers of
        channels than the file are replaced, so a narrower network of the same structure loads too.
        """
        self.load_weights(read_weights(self.param_path, self.file_layers()))

    def file_layers(self):
        """Return the names of the layers in a MatConvNet file of this network."""
        names = [name for name in self.param_layer_name if name != "flatten"]
        return ["prob" if name == "softmax" else name for name in names]

    def load_weights(self, network):
        """Take the weights from a `support.matconvnet.Network`, whose layers are used up."""
        if not self.layers:
            self.build_model()
        before = self.layers
        # not self.build_model: that of a subclass may take no argument
        VGG19.build_model(self, {name: bias.size for name, (_, bias) in network.layers.items()})
        for name, layer in before.items():
            if name not in self.layers or sizes(layer) == sizes(self.layers[name]):
                self.layers[name] = layer
        self.image_mean = network.image_mean
        self.class_names = network.class_names
        self.wordnet_ids = network.wordnet_ids
        for name in self.update_layer_list:
            layer = self.layers[name]
            weight, bias = network.layers.pop(name)
            if name.startswith("conv"):
                layer.load_param(weight, bias)
            else:  # `load_param` would make a copy: 400 MB for fc6
                layer.weight, layer.bias = weight, bias.reshape(1, -1)  # (Co,) -> (1, Co)
            if hasattr(layer, "freeze"):  # not those of a subclass
                layer.freeze()  # the weights are final: nothing needs their gradients

    def prepare(self, picture):
        """Return `picture`, uint8 (H, W, 3), as an image (1, 3, H, W): float32, minus the mean."""
        centred = picture.astype(np.float32) - self.image_mean
        return centred.transpose(2, 0, 1)[np.newaxis]  # (H, W, 3) -> (3, H, W) -> (1, 3, H, W)

    def picture(self, image):
        """Return an image (1, 3, H, W) as a picture, uint8 (H, W, 3): the inverse of `prepare`."""
        pixels = image[0].transpose(1, 2, 0) + self.image_mean  # (3, H, W) -> (H, W, 3)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def network_input(self, picture):
        """Return `picture`, of any size, as the image (1, 3, 224, 224) that `forward` takes.

        The whole picture is resized to 224x224 whatever its aspect ratio, as in the course.
        """
        return self.prepare(resize_picture(picture, IMAGE_SIZE, IMAGE_SIZE, "bilinear"))

    def load_image(self, image_dir):
        """Read the picture file `image_dir` into `input_image`, prepared as in training."""
        self.input_image = self.network_input(read_picture(image_dir))

    def forward(self):
        """Return the class probabilities of `input_image`, shape (N, classes); rows sum to 1.

        `InputError` if the weights are so large that the scores are infinite or NaN.
        """
        if self.input_image is None:
            raise RuntimeError("forward needs a picture: call load_image first")
        return self.forward_from(self.param_layer_name[0], self.input_image)

    @np.errstate(over="ignore", invalid="ignore")  # scores that are not finite are refused
    def forward_from(self, first, current):
        """Return what `forward` does, given `current`, the input of the layer `first`."""
        self._check_built()
        for name in self.param_layer_name[self._index(first) :]:
            current = self.layers[name].forward(current)
        if not np.isfinite(current).all():
            raise InputError("the scores are no finite numbers: the weights are too large")
        return current

    def features(self, image, names):
        """Return the outputs of the layers `names`, {name: (N, C, h, w)}, of an image (N, 3, H, W).

        The forward pass ends at the deepest of them; without any, at the last layer.
        """
        self._check_built()
        deepest = max(map(self._index, names), default=len(self.param_layer_name) - 1)
        for layer in self.layers.values():
            layer.input = None  # of an earlier image, which the deeper layers must not keep
        outputs = {}
        for name in self.param_layer_name[: deepest + 1]:
            image = self.layers[name].forward(image)
            if name in names:
                outputs[name] = image
        return outputs

    def _check_built(self):
        if not self.layers:
            raise RuntimeError("the network has no layers: call build_model and load_model first")

    def _index(self, name):
        """Return the place of a layer in `param_layer_name`."""
        if name not in self.param_layer_name:
            raise ValueError(f"there is no layer {name!r}; the last is {self.param_layer_name[-1]}")
        return self.param_layer_name.index(name)

    def score_gradients(self, classes):
        """Return how much each pixel, and each feature, contributes to the scores of `classes`.

        They are integers, one for each of the N images in `input_image`. The score of a class is
        its output of fc8. Its gradient starts as 1 at the class and 0 at the others, and is
        propagated back through the layers of the last `forward`. (The gradient of the probability
        would be almost 0 where the network is sure.)

        Returns
        -------
        pixels : ndarray of shape (N, 3, 224, 224)
            Gradient with respect to the image.
        features : ndarray of shape (N, 512, 14, 14)
            Gradient with respect to the input of pool5, the output of the last ReLU before it.
        """
        diff = np.zeros_like(self.layers["softmax"].prob)
        diff[np.arange(len(diff)), classes] = 1
        for name in reversed(self.param_layer_name[:-1]):  # without the softmax
            diff = self.layers[name].backward(diff)
            if name == "pool5":
                features = diff
        return diff, features

    def evaluate(self, top=5):
        """Classify `input_image`, print the `top` most probable classes and return them.

        The most probable class is the first; see `best_classes`.
        """
        best = self.best_classes(self.forward()[0], top)
        for one in best:
            print(class_line(one))
        return best

    def best_classes(self, prob, top):
        """Return the `top` most probable classes, most probable first, given all probabilities.

        Each is a dict: 'id' (index in the output of fc8), 'probability', 'name' and 'wordnet' (None
        if the file has no names).
        """
        return [
            {
                "id": i,
                "name": self.class_names[i] if self.class_names else None,
                "wordnet": self.wordnet_ids[i] if self.wordnet_ids else None,
                "probability": float(prob[i]),
            }
            for i in np.argsort(-prob, kind="stable")[:top].tolist()
        ]


def sizes(layer):
    """Return the sizes of a layer that differ between wide and narrow networks."""
    names = ("channel_in", "channel_out", "num_input", "num_output", "input_shape")
    return {name: value for name, value in vars(layer).items() if name in names}


class VGG16(VGG19):
    """The same with thirteen convolutions, and 41 layers; interface of `VGG19`."""

    blocks = VGG16_BLOCKS


def main(argv=None):
    """Run the command; return its exit status: 0, 2 for unusable input, 130 after Ctrl-C."""
    kinds = (VGG19, VGG16)
    return exit_status("vgg_cpu.py", lambda argv: run(parse_arguments(argv), kinds), argv)


if __name__ == "__main__":
    raise SystemExit(main())

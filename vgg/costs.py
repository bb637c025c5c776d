"""What each layer of a VGG network costs: its parameters, multiplications and memory."""

from math import prod
from typing import NamedTuple

from support.machine import format_bytes


class LayerCost(NamedTuple):
    """One row of the table of layers."""

    name: str
    output_shape: tuple  # of one picture: (C, H, W) or (features,)
    parameters: int
    multiplications: int  # of the definition, without Winograd's savings


def layer_costs(vgg):
    """Return a `LayerCost` for each layer of a network, from the layers that `build_model` made."""
    costs, shape = [], (3, 224, 224)
    for name in vgg.param_layer_name:
        layer = vgg.layers[name]
        weights, outputs = 0, 0
        if name.startswith("conv"):
            weights = layer.channel_in * layer.kernel_size**2 * layer.channel_out
            outputs, shape = layer.channel_out, (layer.channel_out, *shape[1:])
        elif name.startswith("fc"):
            weights = layer.num_input * layer.num_output
            outputs, shape = layer.num_output, (layer.num_output,)
        elif name.startswith("pool"):
            shape = shape[0], shape[1] // 2, shape[2] // 2
        elif name == "flatten":
            shape = tuple(layer.output_shape)
        positions = prod(shape[1:])  # each weight is used once at each
        costs.append(LayerCost(name, shape, weights + outputs, weights * positions))
    return costs


def print_summary(vgg):
    """Print the table of layers, for one picture; memory is that of float32 outputs."""
    line = "{:10} {:>14} {:>12} {:>15} {:>9}"
    print(line.format("layer", "output", "parameters", "multiplications", "memory"))
    costs = layer_costs(vgg)
    outputs = [prod(cost.output_shape) for cost in costs]
    for cost, output in zip(costs, outputs, strict=True):
        shape = "x".join(map(str, cost.output_shape))
        counts = (f"{n:,}" if n else "" for n in (cost.parameters, cost.multiplications))
        print(line.format(cost.name, shape, *counts, format_bytes(4 * output)))
    parameters = sum(cost.parameters for cost in costs)
    multiplications = sum(cost.multiplications for cost in costs)
    memory = format_bytes(4 * sum(outputs))
    print(line.format("total", "", f"{parameters:,}", f"{multiplications:,}", memory))
    print(f"the parameters take {format_bytes(4 * parameters)}")

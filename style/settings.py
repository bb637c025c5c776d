"""The command line of `style_transfer_cpu.py`: its options, their help, and what is refused."""

import argparse
import re
import shlex
from pathlib import Path

from style.report import check_animation_path, check_plot_path, check_report_path
from support.command import InputError, bounded
from support.files import check_output
from support.matconvnet import FILE_NAME
from support.pictures import check_picture_path, parse_colour

# What a checkpoint must agree on with the command line, as the picture depends on it. The files it
# depends on are compared by what is in them (`style.checkpoint`).
PICTURE_OPTIONS = (
    "size", "background", "style_blend", "style_scale", "content_weight", "style_weight",
    "tv_weight", "content_layers", "style_layers", "pooling", "preserve_color", "init", "noise",
    "seed", "steps", "optimizer", "learning_rate", "scales", "checkpoint_every",
)  # fmt: skip

PROGRAM = "style_transfer_cpu.py"
INITS = ("content", "noise", "mix")
EXAMPLES = """\
examples:
  python style_transfer_cpu.py
  python style_transfer_cpu.py --content me.jpg --style art.jpg --output me.png
  python style_transfer_cpu.py --style a.jpg --style b.jpg --style-blend 2 1
  python style_transfer_cpu.py --size 1024 --checkpoint me.npz --report me.html
  python style_transfer_cpu.py --resume me.npz
"""


def parse(argv, defaults, layer_names):
    """Read the command line.

    Parameters
    ----------
    argv : list of str or None
        None stands for the arguments of this process.
    defaults : dict
        Value of every option that is not given.
    layer_names : sequence of str
        Layers that --content-layers and --style-layers may name.

    Returns
    -------
    dict of str to object
        The options that were given, and no others: what a checkpoint holds stands between them
        and the defaults.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s [options]",
        description="Repaint a picture in the style of another; without options, two of its own.",
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # --style would stand for --style-scale and more
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=27, width=80
        ),
    )

    def default(name):
        value = defaults[name]
        return " ".join(value) if isinstance(value, dict) else value

    def layer(text):
        name, colon, weight = text.partition(":")
        if name not in layer_names:
            raise argparse.ArgumentTypeError(
                f"there is no layer {name!r}; ReLU and pooling layers go from {layer_names[0]} to "
                f"{layer_names[-1]}"
            )
        return name, bounded(float, above=0, most=1e6)(weight) if colon else 1.0

    number, share = bounded(int, least=1, most=10**6), bounded(float, least=0)
    group = parser.add_argument_group("pictures").add_argument
    group("--content", type=Path, metavar="FILE",
          help="what to paint (default: picture/content.jpg)")
    group("--style", type=Path, action="append", metavar="FILE",
          help="how to paint it (default: picture/style.jpg); give it again to mix styles")
    group("--style-blend", type=bounded(float, least=0, most=1e6), nargs="+", metavar="W",
          help="how much each style counts, such as 2 1")
    group("--style-scale", type=bounded(float, above=0, most=16), metavar="S",
          help="larger or smaller strokes: the style is scaled to S times the result's size "
          f"(default: {default('style_scale')})")
    group("--background", type=_colour, metavar="COLOUR",
          help=f"behind transparent parts (default: {default('background')})")
    group("--output", type=Path, metavar="FILE",
          help=f".png .jpg .webp .tif (default: {default('output')})")
    group("--size", type=number, metavar="PIXELS",
          help=f"longest side of the result (default: {default('size')}); a smaller content "
          "picture keeps its size")

    group = parser.add_argument_group("look").add_argument
    group("--content-weight", type=share, metavar="W",
          help=f"(default: {default('content_weight')}); 0: texture alone")
    group("--style-weight", type=share, metavar="W",
          help=f"(default: {default('style_weight')}); 0: content alone")
    group("--tv-weight", type=share, metavar="W",
          help=f"less grain, softer strokes (default: {default('tv_weight')})")
    group("--content-layers", type=layer, nargs="+", metavar="L",
          help=f"layer or layer:weight (default: {default('content_layers')})")
    group("--style-layers", type=layer, nargs="+", metavar="L",
          help="likewise (default: relu1_1, relu2_1, ... relu5_1)")
    group("--pooling", choices=("max", "average"),
          help=f"of the network (default: {default('pooling')})")
    group("--preserve-color", nargs="?", choices=("luminance", "match"), const="luminance",
          metavar="HOW",
          help="keep the content's colours: luminance takes no more than that from the result "
          "(default HOW), match gives the style those colours")
    group("--init", metavar="START",
          help=f"content, noise, mix or a picture file (default: {default('init')})")
    group("--noise", type=bounded(float, least=0, most=1), metavar="SHARE",
          help=f"0 to 1: how much of --init mix is noise (default: {default('noise')})")
    group("--seed", type=bounded(int, least=0, most=2**63 - 1), metavar="N",
          help="the same seed makes the same picture (default: "
          f"{default('seed')})")

    group = parser.add_argument_group("work").add_argument
    group("--steps", type=number, metavar="N", help=f"in all (default: {default('steps')})")
    group("--scales", type=bounded(int, least=1, most=16), metavar="N",
          help="sizes to work at, each twice the last (default: from 96 pixels up; 1 with "
          "--init FILE)")
    group("--optimizer", choices=("lbfgs", "adam"), help=f"(default: {default('optimizer')})")
    group("--learning-rate", type=bounded(float, above=0, most=255), metavar="LEVELS",
          help=f"longest step of adam (default: {default('learning_rate')})")
    group("--weights", metavar="WHAT",
          help="kmeans (learnt from the pictures), random, or a file (default: "
          f"{FILE_NAME} if it is here, else kmeans)")
    group("--threads", type=number, metavar="N", help="(default: one for each CPU)")

    group = parser.add_argument_group("the way there").add_argument
    group("--save-every", type=number, metavar="N",
          help="save the picture every N steps, as result_0020.png and so on")
    group("--animation", type=Path, metavar="FILE", help=".gif or .webp")
    group("--contact-sheet", type=Path, metavar="FILE",
          help="content, style, steps and result in one picture")
    group("--plot", type=Path, metavar="FILE", help="losses by step: .png .svg .pdf")
    group("--report", type=Path, action="append", metavar="FILE",
          help=".html: a page to look at; .json: figures")

    group = parser.add_argument_group("stopping and going on (Ctrl-C saves, too)").add_argument
    group("--checkpoint", type=Path, metavar="FILE.npz",
          help="save there what it takes to go on")
    group("--checkpoint-every", type=number, metavar="N",
          help=f"steps (default: {default('checkpoint_every')}); lbfgs begins anew at each, so the "
          "picture depends on N")
    group("--resume", type=Path, metavar="FILE.npz", help="go on from there")

    given = vars(parser.parse_args(argv))
    for name in ("content_layers", "style_layers"):
        if name in given:
            layers = sorted(given[name], key=lambda pair: layer_names.index(pair[0]))
            if len(dict(layers)) < len(layers):
                parser.error(f"--{name.replace('_', '-')} names a layer twice")
            given[name] = dict(layers)
    return given


def command_line(options, defaults):
    """Return the command that has these options (a Namespace), without what is default anyway."""
    changed = {name: value for name, value in vars(options).items() if value != defaults[name]}
    return shlex.join(["python", PROGRAM, *as_arguments(argparse.Namespace(**changed))])


def as_arguments(options):
    """Return the options that are not None as a command line that `parse` reads the same.

    Parameters
    ----------
    options : argparse.Namespace
    """
    arguments = []
    for name, value in vars(options).items():
        flag = "--" + name.replace("_", "-")
        if name in ("style", "report"):
            for path in value:
                arguments += [flag, str(path)]
        elif isinstance(value, dict):
            arguments += [flag, *(f"{layer}:{weight}" for layer, weight in value.items())]
        elif isinstance(value, list):
            arguments += [flag, *map(str, value)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments


def _colour(text):
    """Return a colour's name as it was given, if it is one."""
    try:
        parse_colour(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(error) from None
    return text


def check_options(options):
    """Raise `InputError` unless the options fit together and all that they name can be written.

    Parameters
    ----------
    options : argparse.Namespace
        All of them, given or not.
    """
    if options.content_weight == 0 and options.style_weight == 0:
        raise InputError("--content-weight and --style-weight cannot both be 0")
    blend = options.style_blend
    if blend is not None and len(blend) != len(options.style):
        raise InputError(
            f"--style-blend has {len(blend)} numbers for {len(options.style)} --style pictures; "
            "give one for each"
        )
    if blend is not None and sum(blend) == 0:
        raise InputError("--style-blend needs a number greater than 0")
    check_picture_path(options.output)
    if options.animation:
        check_animation_path(options.animation)
    if options.contact_sheet:
        check_picture_path(options.contact_sheet)
    if options.plot:
        check_plot_path(options.plot)
    for path in options.report:
        check_report_path(path)
    if options.checkpoint and options.checkpoint.suffix.lower() != ".npz":
        raise InputError(f"--checkpoint {options.checkpoint}: the name must end with .npz")
    outputs = [options.output, options.animation, options.contact_sheet, options.plot]
    outputs = [path for path in [*outputs, *options.report, options.checkpoint] if path]
    inputs = [options.content, *options.style]
    if options.init not in INITS:
        inputs.append(Path(options.init))
    for number, path in enumerate(outputs):
        check_output(path)
        if path.resolve() in [other.resolve() for other in outputs[:number]]:
            raise InputError(f"{path} is named for two outputs; give each a name of its own")
        if any(_same_file(path, other) for other in inputs):
            raise InputError(f"{path} would overwrite a picture that is read; give another name")
    if options.save_every:
        output = options.output.resolve()
        steps = re.compile(rf"{re.escape(output.stem)}_\d{{4,}}{re.escape(output.suffix)}")
        for path in [*inputs, *outputs]:
            if path.resolve().parent == output.parent and steps.fullmatch(path.resolve().name):
                raise InputError(f"--save-every could overwrite {path}; give another --output")


def _same_file(path, other):
    """Return whether two paths lead to one file, be it by way of a link."""
    try:
        if path.exists() and other.exists():
            return path.samefile(other)
        return path.resolve() == other.resolve()
    except OSError:  # a name that is too long
        return False

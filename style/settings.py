"""Every option of style transfer, declared once: default, limits, help, and who may change it.

`Settings` holds what the picture depends on, for calls from Python and for the command. `Files`
holds what only the command needs: what it reads, writes and where. The command line, the text in a
checkpoint and the rules of resuming are all derived from these two classes.
"""

import argparse
import os
import re
import shlex
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from math import frexp
from pathlib import Path

from style.report import check_animation_path, check_plot_path, check_report_path
from support.command import InputError, Parser, as_path, bounded, name_or_path, one_of, thread_count
from support.files import check_outputs
from support.matconvnet import FILE_NAME
from support.pictures import check_picture_path, parse_colour

PROGRAM = "style_transfer_cpu.py"
PICTURE = Path(__file__).resolve().parent.parent / "picture"
INITS = ("palette", "content", "noise", "mix")  # other values of --init are file names
MADE_FILTERS = ("kmeans", "random")  # made from the pictures
FILTERS = ("trained", *MADE_FILTERS)  # other values of --weights are file names
LAYER = re.compile(r"(relu|pool)([1-9])(?:_([1-9]))?")
GROUPS = ("pictures", "look", "work", "the way there", "stopping and resuming (Ctrl-C saves too)")
PICTURES, LOOK, WORK, WAY, RESUMING = GROUPS

EXAMPLES = """\
examples:
  python style_transfer_cpu.py
  python style_transfer_cpu.py me.jpg --style art.jpg --output me.png
  python style_transfer_cpu.py holiday/ --style art.jpg --output painted/
  python style_transfer_cpu.py --style a.jpg --style b.jpg --style-blend 2 1
  python style_transfer_cpu.py --size 1024 --checkpoint me.npz --report me.html
  python style_transfer_cpu.py --resume me.npz
"""


def flag(name):
    """Return the option of a field: "--style-weight" of "style_weight"."""
    return "--" + name.replace("_", "-")


def depth(layer):
    """Return (block, 0 or 1, number): layers sorted by it are in the order of the network.

    Every block ends with its pooling layer, so (4, 0, 2) is relu4_2 and (4, 1, 0) is pool4.
    """
    kind, block, i = LAYER.fullmatch(layer).groups("0")
    return int(block), int(kind == "pool"), int(i)


def texts(value):
    """Return the texts that an option of this value has on the command line."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [f"{name}:{weight}" for name, weight in value.items()]
    return [str(part) for part in (value if isinstance(value, list | tuple) else [value])]


def option(default, read, group, metavar, help, fixed=True, **keywords):
    """Return a dataclass field that is also an option of the command line.

    `read` returns the value that a text means (each text, where an option takes several), or raises
    `argparse.ArgumentTypeError`; it is `bool` for an option without a value. `group` is one of
    `GROUPS`. The help shows the default in place of "{default}". A resumed run must have the same
    value as before where it is `fixed`. `keywords` are more of `ArgumentParser.add_argument`.
    """
    shown = default
    if isinstance(default, dict):
        shown = " ".join(f"{name}:{weight:g}" for name, weight in default.items())
    keywords |= {"help": help.format(default=shown)}
    keywords |= {"action": "store_true"} if read is bool else {"metavar": metavar, "type": read}
    metadata = {"read": read, "group": group, "fixed": fixed, "keywords": keywords}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def layer(text):
    """Return (name, weight) from "relu2_1" or "relu2_1:0.5"."""
    name, colon, weight = text.partition(":")
    match = LAYER.fullmatch(name)
    if not match or (match[1] == "pool") != (match[3] is None):
        raise argparse.ArgumentTypeError(
            f"there is no layer {name!r}; give a ReLU or pooling layer, such as relu4_2 or pool4"
        )
    return name, bounded(float, above=0, most=1e6)(weight) if colon else 1.0


def tile(text):
    """Return the side of a tile, in pixels, or None from "auto"."""
    return None if text == "auto" else bounded(int, least=16, most=10**6)(text)


def colour(text):
    """Return the text of a colour unchanged, if it is the text of a colour."""
    try:
        parse_colour(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(error) from None
    return text


def output_path(text):
    """Return the path that a text names; * is the content's name, in a folder that of a .png."""
    file = as_path(text)
    return file / "*.png" if text.endswith(("/", os.sep)) or os.path.isdir(file) else file


# An option that a resumed run may change: the picture does not depend on it, or its digest tells.
loose_option = partial(option, fixed=False)
number, share = bounded(int, least=1, most=10**6), bounded(float, least=0)


@dataclass(frozen=True)
class Settings:
    """What the picture depends on, besides the content and style pictures.

    The help of the command (``python style_transfer_cpu.py --help``) describes every field. A field
    has the name of its option. None is a default that depends on the filters (`complete`).
    `content_layers` and `style_layers` map a layer's name to its weight; `style_blend` is a
    sequence of numbers, one for each style.

    Raises
    ------
    InputError
        A ValueError: a value is outside its limits.

    Examples
    --------
    >>> settings = Settings(size=256, style_weight=80.0)
    >>> settings.size, settings.pooling
    (256, 'max')
    """

    # fmt: off
    size: int = option(800, number, PICTURES, "PIXELS", "longest side of the result "
        "(default: {default}); a smaller content picture keeps its size")
    style_blend: list | None = option(None, bounded(float, least=0, most=1e6), PICTURES, "W",
        "how much each style counts, such as 2 1", nargs="+")
    style_scale: float = option(1.0, bounded(float, above=0, most=16), PICTURES, "S",
        "larger or smaller strokes: the style is scaled to S times the size of the result "
        "(default: {default})")
    content_weight: float | None = option(None, share, LOOK, "W",
        "(default: 5, or 20 with filters made from the pictures); 0: only the style's texture")
    style_weight: float = option(400.0, share, LOOK, "W",
        "(default: {default}); 0: only the content")
    tv_weight: float = option(2e-3, share, LOOK, "W",
        "total variation: less grain, softer strokes (default: {default})")
    content_layers: dict | None = option(None, layer, LOOK, "L", "layer or layer:weight (default: "
        "relu4_2, or relu2_1 with filters made from the pictures)", nargs="+")
    style_layers: dict = option(
        {"relu1_1": 4.0, "relu2_1": 2.0, "relu3_1": 1.0, "relu4_1": 0.5}, layer, LOOK, "L",
        "the same for the style (default: {default})", nargs="+")
    pooling: str = option("max", one_of("max", "average"), LOOK, "{max,average}",
        "of the network (default: {default})")
    preserve_color: str | None = option(None, one_of("luminance", "match"), LOOK, "HOW",
        "keep the content's colours: luminance takes only light and dark from the result "
        "(default HOW), match recolours the style first", nargs="?", const="luminance")
    init: str = option("palette", name_or_path(*INITS), LOOK, "START",
        "palette (the content in the style's colours), content, noise, mix, or a picture file "
        "(default: {default})")
    noise: float = option(0.5, bounded(float, least=0, most=1), LOOK, "SHARE",
        "0 to 1: how much of --init mix is noise (default: {default})")
    seed: int = option(0, bounded(int, least=0, most=2**63 - 1), LOOK, "N",
        "the same seed makes the same picture (default: {default})")
    steps: int = option(80, number, WORK, "N",
        "in all, more of them at small sizes (default: {default})")
    scales: int | None = option(None, bounded(int, least=1, most=16), WORK, "N",
        "sizes to work at, each twice the last (default: from about 200 pixels up; 1 with --init "
        "FILE)")
    optimizer: str = option("lbfgs", one_of("lbfgs", "adam"), WORK, "HOW",
        "lbfgs or adam (default: {default})")
    pairs: int | None = option(None, bounded(int, least=1, most=100), WORK, "N",
        "steps lbfgs remembers (default: 10, if they fit)")
    learning_rate: float = option(1.0, bounded(float, above=0, most=255), WORK, "LEVELS",
        "longest step of adam (default: {default})")
    tile: int | None = option(None, tile, WORK, "PIXELS",
        "side of the tiles in which larger pictures are computed (default: auto)")
    weights: str | None = loose_option(None, name_or_path(*FILTERS), WORK, "WHAT",
        "trained (see --download), kmeans (learnt from the pictures), random, or a file (default: "
        f"{FILE_NAME} if here, else trained, else kmeans)")
    # fmt: on

    def __post_init__(self):
        for each in fields(self):
            try:
                for text in texts(getattr(self, each.name)):
                    each.metadata["read"](text)
            except argparse.ArgumentTypeError as error:
                raise InputError(f"{each.name}: {error}") from None
        if self.content_weight == 0 and self.style_weight == 0:
            raise InputError("--content-weight and --style-weight cannot both be 0")
        if self.style_blend is not None and sum(self.style_blend) == 0:
            raise InputError("--style-blend needs a number greater than 0")

    def complete(self, weights):
        """Return the settings with these `weights`, and what follows from them where it is None.

        The deep layers of trained filters know what is in the picture. Filters made from the
        pictures know only in their shallow layers where it is.
        """
        made = weights in MADE_FILTERS
        weight, layers = (20.0, {"relu2_1": 1.0}) if made else (5.0, {"relu4_2": 1.0})
        return replace(
            self,
            weights=weights,
            content_weight=weight if self.content_weight is None else self.content_weight,
            content_layers=layers if self.content_layers is None else self.content_layers,
        )

    def even_weights(self):
        """Return the settings with loss weights of the defaults' size, and the factor between them.

        Only the ratios of the weights count for the picture, but gradients of tiny weights would
        vanish in float32. As the factor is a power of 2, it changes no rounding.
        """
        names = ("content_weight", "style_weight", "tv_weight")
        largest = max(getattr(self, name) for name in names)
        factor = 2.0 ** (frexp(max(largest, 1e-300))[1] - 9)  # 1 if the largest is 256 to 512
        return replace(self, **{name: getattr(self, name) / factor for name in names}), factor

    def used_layers(self):
        """Return {name: weight} of the content and of the style layers whose losses count."""
        settings = self.complete(self.weights)
        return (
            settings.content_layers if settings.content_weight else {},
            settings.style_layers if settings.style_weight else {},
        )


@dataclass(frozen=True)
class Files:
    """What the command reads and writes, and how many threads it uses."""

    # fmt: off
    content: list = loose_option([PICTURE / "content.jpg"], as_path, PICTURES, "FILE",
        "pictures, folders (default: picture/content.jpg)", nargs="+")
    style: list = loose_option([PICTURE / "style.jpg"], as_path, PICTURES, "FILE",
        "how to paint it (default: picture/style.jpg); give it again to mix styles",
        action="append")
    background: str = option("white", colour, PICTURES, "COLOUR",
        "behind transparent parts (default: {default})")
    output: Path = loose_option(Path("output/result.png"), output_path, PICTURES, "FILE",
        ".png .jpg .webp .tif, or FOLDER/ for several (default: {default})")
    overwrite: bool = loose_option(False, bool, PICTURES, None,
        "of several contents: paint finished ones again")
    download: bool = loose_option(False, bool, WORK, None,
        "fetch the trained filters (55 MB) with pip, once; without them kmeans is used")
    threads: int | None = loose_option(None, thread_count, WORK, "N", "(default: one for each CPU)")
    save_every: int | None = loose_option(None, number, WAY, "N",
        "save the picture every N steps, as result_0020.png and so on")
    animation: Path | None = loose_option(None, as_path, WAY, "FILE", ".gif or .webp")
    contact_sheet: Path | None = loose_option(None, as_path, WAY, "FILE",
        "content, style, steps and result in one picture")
    plot: Path | None = loose_option(None, as_path, WAY, "FILE", "losses by step: .png .svg .pdf")
    report: list = loose_option([], as_path, WAY, "FILE",
        ".html: a page to look at; .json: figures", action="append")
    checkpoint: Path | None = loose_option(None, as_path, RESUMING, "FILE.npz",
        "save there what a resumed run needs")
    checkpoint_every: int = loose_option(20, number, RESUMING, "N",
        "save it every N steps (default: {default})")
    resume: Path | None = loose_option(None, as_path, RESUMING, "FILE.npz", "resume from there")
    # fmt: on

    @property
    def unfinished(self):
        """Where the picture so far is, until it is finished."""
        stem = self.output.stem[: 240 - len(self.output.suffix)]  # names have at most 255 bytes
        return self.output.with_stem(f"{stem}.unfinished")

    def outputs(self):
        """Return the paths of all files to write, save those of --save-every."""
        paths = [self.output, self.animation, self.contact_sheet, self.plot, *self.report]
        return [file for file in [*paths, self.checkpoint] if file]


OPTIONS = {each.name: each for each in (*fields(Files), *fields(Settings))}
DEFAULTS = {**vars(Files()), **vars(Settings())}


def parse(argv):
    """Return the options that are on a command line, as a dict of name to value.

    Options that were not given are missing: the values of a checkpoint come before the defaults.
    """
    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s [CONTENT ...] [options]",
        description="Repaint a picture in the style of another; without options, two of its own.",
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # --style would stand for --style-scale and more
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=28, width=80
        ),
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for name, each in OPTIONS.items():
        groups[each.metadata["group"]].add_argument(flag(name), **each.metadata["keywords"])
    given, plain = parser.parse_known_args(argv)
    if plain and not any(text.startswith("-") and text != "-" for text in plain):
        together = any(  # the first of them may also be the value of an option, elsewhere
            argv[i : i + len(plain)] == plain and not any(map(parser.takes_value, argv[:i][-1:]))
            for i in range(len(argv))
        )
        if "content" in given or not together:
            parser.error(f"give --content or --style before {plain[-1]}")
        plain = ["--content", *plain]
    given = vars(parser.parse_args(plain, given))
    for name in {"content_layers", "style_layers"} & set(given):
        layers = sorted(given[name], key=lambda pair: depth(pair[0]))
        given[name] = dict(layers)
        if len(given[name]) < len(layers):
            parser.error(f"{flag(name)} names a layer twice")
    return given


def as_arguments(options):
    """Return options (a dict of name to value) as a command line that `parse` reads the same."""
    arguments = []
    for name, value in options.items():
        repeated = OPTIONS[name].metadata["keywords"].get("action") == "append"
        if isinstance(value, bool):
            arguments += [flag(name)] * value
        elif repeated:
            arguments += [part for text in texts(value) for part in (flag(name), text)]
        elif value is not None:
            arguments += [flag(name), *texts(value)]
    return arguments


def command_line(options):
    """Return the command with these options (a dict)."""
    return shlex.join(["python", PROGRAM, *as_arguments(options)])


def without_folders(options):
    """Return options (a dict) with the names of files in place of their paths."""

    def name(value):
        if isinstance(value, list):
            return [name(each) for each in value]
        return Path(value.name) if isinstance(value, Path) else value

    shown = {option: name(value) for option, value in options.items()}
    for option in {"init", "weights"} & set(shown):
        shown[option] = shown[option] and Path(shown[option]).name
    return shown


def check_files(files, settings, contents):
    """Raise `InputError` unless all outputs can be written, and none of them is an input.

    `files` are those of one picture, `contents` the paths of all pictures to paint in this run.
    """
    check_picture_path(files.output)
    for file, check in (
        (files.animation, check_animation_path),
        (files.contact_sheet, check_picture_path),
        (files.plot, check_plot_path),
        *((file, check_report_path) for file in files.report),
    ):
        if file:
            check(file)
    if files.checkpoint and files.checkpoint.suffix.lower() != ".npz":
        raise InputError(f"--checkpoint {files.checkpoint}: the name must end with .npz")
    outputs = files.outputs()
    inputs = [*contents, *files.style]
    inputs += [Path(settings.init)] if settings.init not in INITS else []
    inputs += [Path(settings.weights)] if settings.weights not in (None, *FILTERS) else []
    inputs += [files.resume] if files.resume and files.resume != files.checkpoint else []
    check_outputs([*outputs, files.unfinished], inputs)
    if files.save_every:
        output = Path(os.path.realpath(files.output))
        saved = re.compile(rf"{re.escape(output.stem)}_\d{{4,}}{re.escape(output.suffix)}")
        for file in [*inputs, *outputs]:
            file = Path(os.path.realpath(file))
            if file.parent == output.parent and saved.fullmatch(file.name):
                raise InputError(f"--save-every could overwrite {file}; give another --output")

"""Several contents in one run of the command: what is painted, where to, and what became of it."""

import sys
from dataclasses import replace
from os.path import exists, realpath

from style.settings import DEFAULTS, PROGRAM, check_files, flag
from support.command import InputError, print_error
from support.picture_list import PictureList, result_names

# Options that name one file for one picture.
FOR_ONE = ("save_every", "animation", "contact_sheet", "plot", "report", "checkpoint", "resume")


def for_each_content(files, settings):
    """Return one `Files` for each picture that --content names, each with its own output.

    `InputError` if something cannot be written.
    """
    contents = PictureList(files.content, PROGRAM).paths
    output = files.output
    if files.content != contents or len(contents) > 1:
        for name in FOR_ONE:
            if getattr(files, name):
                raise InputError(f"{flag(name)} is for one content, and there are several")
        if output == DEFAULTS["output"]:
            output = output.parent / "*.png"
        elif "*" not in output.name:
            if output.suffix:
                raise InputError(f"--output {output}: for several contents give a folder, FOLDER/")
            output = output / "*.png"
        if any(realpath(output.parent) == realpath(folder) for folder in files.content):
            raise InputError(f"--output {output.parent} holds the contents; give another folder")
    each = []
    for content, name in zip(contents, result_names(contents), strict=True):
        path = output.with_name(output.name.replace("*", name))
        each.append(replace(files, content=[content], output=path))
        check_files(each[-1], settings, contents)
    return each


def paint_each(each, paint, stop):
    """Call `paint` for each `Files` whose result is not there yet; return the exit status.

    A picture that cannot be painted is named, and the others follow. `stop` is the `StopRequest`
    that `paint` uses.
    """
    todo = [files for files in each if files.overwrite or not exists(realpath(files.output))]
    failed = []
    for number, files in enumerate(todo, 1):
        print(f"picture {number} of {len(todo)}: {files.content[0]}")
        try:
            status = paint(files)
        except (InputError, MemoryError) as error:
            reason = str(error) or "there is not enough memory"
            print_error(PROGRAM, reason)
            failed.append(str(files.content[0]))
            status = 0
        if status or (stop.number and number < len(todo)):
            print("the same command paints the rest", file=sys.stderr)
            return 128 + stop.number
    summary = [f"{len(todo) - len(failed)} of {len(each)} pictures painted"]
    if len(todo) < len(each):
        there = len(each) - len(todo)
        summary.append(f"{there} were there already (--overwrite paints them again)")
    if failed:
        summary.append(f"not painted: {', '.join(failed)}")
    print("; ".join(summary))
    return 2 if failed else 0

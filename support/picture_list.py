"""The pictures that a command works on: files and folders, of which broken ones are skipped."""

import os
from collections import Counter

from support.command import InputError, print_error
from support.files import files_in
from support.pictures import read_picture

# What is taken from a folder; a file that is named is read whatever its extension.
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm",
              ".jp2", ".avif")  # fmt: skip


class PictureList:
    """Picture files, each once; iterating yields (path, picture) of each that can be read.

    The first time that a picture cannot be read, it says why on the standard error.

    `names` are paths of files and folders. A folder is replaced by the pictures in it, in the order
    of their names, without hidden files and folders inside it.
    """

    def __init__(self, names, program):
        self.program = program  # the command's name, for messages
        self.errors = {}  # path -> why the picture could not be used
        paths = []
        for name in names:
            paths += _pictures_in(name) if os.path.isdir(name) else [name]
        self.paths = list(dict.fromkeys(paths))

    def __iter__(self):
        for path in self.paths:
            if path in self.errors:
                continue
            try:
                picture = read_picture(path)
            except InputError as error:
                self.skip(path, error)
            else:
                yield path, picture

    def skip(self, path, error):
        """Print why nothing can be done with a picture."""
        self.errors[path] = str(error)
        print_error(self.program, error)

    def outputs(self, folder, endings):
        """Return {(path, ending): path of a picture about it in `folder`}, "NAME-ending.png".

        NAME is one of `result_names`. `InputError` if one of the pictures would be overwritten.
        """
        inputs = {os.path.realpath(path) for path in self.paths}
        outputs = {}
        for path, name in zip(self.paths, result_names(self.paths), strict=True):
            for ending in endings:
                output = outputs[path, ending] = folder / f"{name}-{ending}.png"
                if os.path.realpath(output) in inputs:
                    raise InputError(f"{output} would overwrite a picture that is read")
        return outputs


def result_names(paths):
    """Return a different name for the result of each picture: a.jpg gives a.

    Where two would be equal, the extension stays (a.jpg, a.png), and then they are numbered.
    """
    stems = Counter(path.stem.lower() for path in paths)
    names = []
    for path in paths:
        name = path.stem if stems[path.stem.lower()] == 1 else path.name
        number, free = 1, name
        while free.lower() in map(str.lower, names):
            number += 1
            free = f"{name}-{number}"
        names.append(free)
    return names


def _pictures_in(folder):
    """Return the picture files in a folder, sorted."""
    files = [path for path in files_in(folder) if path.name[0] != "."]
    paths = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not paths:
        raise InputError(f"the folder {folder} holds no pictures ({', '.join(EXTENSIONS)})")
    return paths

"""Mutation testing: break one place of the layers at a time, and see whether a test finds it.

    python tests/mutants.py                     # 150 mutants drawn by seed 0; a quarter of an hour
    python tests/mutants.py fast/padded.py      # of one file
    python tests/mutants.py --count 0           # all of them

A mutant is a copy of the project with one small change: another operator or comparison, a constant
one larger, a condition negated, a statement left out. The tests of the changed file run until one
fails. The mutant is killed if a test fails or does not end in time; if all pass, it survives. The
exit status is 1 if less than 95 % are killed.
"""

import argparse
import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.95  # share of the mutants that the tests must kill

# file: its tests, the quickest first
TESTS = {
    "layers1.py": "layers1 contracts training",
    "layers2.py": "layers2 pooling flatten contracts convolution training",
    "layers3.py": "layers3 contracts",
    "fast/strips.py": "strips kernels",
    "fast/padded.py": "kernels convolution",
    "fast/im2col.py": "kernels convolution fused",
    "fast/kn2row.py": "kernels convolution",
    "fast/winograd.py": "kernels convolution fused",
    "fast/convolution.py": "kernels convolution",
    "fast/losses.py": "losses",
    "fast/tiles.py": "tiles",
    "fast/fused.py": "fused tiles",
}

# Constants whose values make no difference to the results.
SPEED_ONLY = (
    "STRIP_BYTES", "STRIP_TILES", "POINT_ROWS", "FILTER_ROWS", "SMALL_PRODUCT", "DEEP",
    "DEEP_TILES", "DEEP_STRIP", "GRADIENT_TILES", "FILTER_READ",
)  # fmt: skip

# What a line becomes in mutants that change no result, and why.
EQUIVALENT = {
    "K = weight.shape[2]": "convolution: kernels are square",
    "if stride == 1 and shift >= 1:": "padded: without shift, the general way gives the same",
    "if stride == 1 and shift > 0:": "padded: the same",
    "start = +memory.ctypes.data % LARGE_PAGE": "strips: where it begins changes the speed alone",
    "if number != 0 and (not stage.pools)": "fused: every algorithm gives the same",
    "max(1, width * grid)": "tiles: more of them than squares of the grid are never chosen",
    "widest = max(2, (SMALL_PRODUCT": "winograd: the width of a strip changes only the speed",
    "ceil(H / 3)": "losses: so does the height of a strip",
    "ceil(pictures / 3)": "strips: so does the number of pictures in one",
    "transposed = KC <= Wo": "im2col: either order of copying fills the same matrix",
    "if C * Co > DEEP:": "winograd: at the limit itself, either way gives the same sums",
    "max(2, width // grid)": "tiles: an image less than two squares of the grid wide is never cut",
    "max(2, height // grid)": "tiles: likewise, less than two squares high",
}

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def swapped(operator):
    """Return the operator to put in its place, or None."""
    other = OPERATORS.get(type(operator))
    return other and other()


def changes(node):
    """Yield functions that each change a node of the syntax tree in place."""
    match node:
        case ast.BinOp() | ast.BoolOp() if swapped(node.op):
            yield lambda node: setattr(node, "op", swapped(node.op))
        case ast.AugAssign() if swapped(node.op):
            yield lambda node: setattr(node, "op", swapped(node.op))
        case ast.Compare() if swapped(node.ops[0]):
            yield lambda node: node.ops.__setitem__(0, swapped(node.ops[0]))
        case ast.UnaryOp(op=ast.USub()):
            yield lambda node: setattr(node, "op", ast.UAdd())
        case ast.Constant(value=bool()):
            yield lambda node: setattr(node, "value", not node.value)
        case ast.Constant(value=int() | float()):
            yield lambda node: setattr(node, "value", node.value + 1)
        case ast.If() | ast.IfExp() | ast.While():
            yield lambda node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
        case ast.FunctionDef() | ast.If() | ast.For() | ast.With():
            for i, line in enumerate(node.body):
                text = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
                if isinstance(line, ast.Expr | ast.Assign | ast.AugAssign) and not text:
                    yield lambda node, i=i: node.body.__setitem__(i, ast.Pass())


def speed_only(node):
    """Say whether changes below a node make no difference to results: speed, and safety."""
    match node:
        case ast.keyword(arg="copy" | "wait" | "strict"):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in SPEED_ONLY
        case ast.Constant():
            return getattr(node, "unknown_length", False)
        case ast.Call(func=ast.Attribute(attr="reshape")):  # NumPy takes any negative number
            for axis in node.args:
                if isinstance(axis, ast.UnaryOp):
                    axis.operand.unknown_length = True
    return False


def mutants_of(file):
    """Return (file, number of the node, number of its change) of all mutants of a file."""
    nodes = list(ast.walk(ast.parse((ROOT / file).read_text("utf-8"))))
    left_out = {id(below) for node in nodes if speed_only(node) for below in ast.walk(node)}
    return [
        (file, number, which)
        for number, node in enumerate(nodes) if id(node) not in left_out
        for which, _ in enumerate(changes(node))
    ]  # fmt: skip


def mutated(file, number, which):
    """Return the source of a mutant, and the line before and after the change."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    before = ast.unparse(tree).splitlines()
    node = list(ast.walk(tree))[number]
    list(changes(node))[which](node)
    source = ast.unparse(ast.fix_missing_locations(tree))
    old, new = next(p for p in zip(before, source.splitlines(), strict=False) if p[0] != p[1])
    return source, f"{file}:{node.lineno}: {old.strip()}  ->  {new.strip()}"


def run_tests(folder, file, seconds=None):
    """Run the tests of a file until one fails; return whether one did, or time was over."""
    tests = [f"tests/test_{name}.py" for name in TESTS[file].split()]
    limit = (16 << 30, 16 << 30)  # bytes of address space, in case a size goes wrong
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    ) as process:  # fmt: skip
        try:
            return process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=list(TESTS), metavar="FILE")
    parser.add_argument("--count", type=int, default=150, help="how many; 0 for all (default: 150)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.nice(19)
    mutants = [mutant for file in options.files for mutant in mutants_of(file)]
    total = len(mutants)
    if options.count and options.count < total:
        mutants = sorted(random.Random(options.seed).sample(mutants, options.count))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "project"
        ignored = shutil.ignore_patterns(".*", "*.h5", "output", "mnist_data", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=ignored)
        limits, survivors, equivalent = {}, [], 0
        for number, (file, node, which) in enumerate(mutants, start=1):
            if file not in limits:
                start = time.perf_counter()
                if run_tests(folder, file):
                    raise SystemExit(f"the tests of {file} fail before it is changed")
                limits[file] = 60 + 5 * (time.perf_counter() - start)
            source, change = mutated(file, node, which)
            if any(line in change for line in EQUIVALENT):
                equivalent += 1
                continue
            (folder / file).write_text(source, "utf-8")
            if not run_tests(folder, file, limits[file]):
                survivors.append(change)
                print(f"survives: {change}", flush=True)
            shutil.copy(ROOT / file, folder / file)
            if number % 20 == 0:
                tried = number - equivalent
                print(f"{tried - len(survivors)} of {tried} killed", flush=True)
    tried = len(mutants) - equivalent
    killed = tried - len(survivors)
    print(f"{killed} of {tried} mutants killed ({killed / tried:.1%}), of {total}")
    return killed < LEAST * tried


if __name__ == "__main__":
    raise SystemExit(main())

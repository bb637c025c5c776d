"""Shared by the benchmarks: the machine's description, medians, Markdown tables."""

import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from threadpoolctl import threadpool_info  # noqa: E402

from fast.strips import available_cpus  # noqa: E402

# For comparison, if it is installed. It is not imported here, because its libraries would count as
# our memory.
HAS_TORCH = find_spec("torch") is not None


def describe_machine():
    """Return one line on processor, BLAS kernel and versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    blas = next((pool for pool in threadpool_info() if pool["user_api"] == "blas"), {})
    held = [name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    return (
        f"{processor}, {available_cpus()} CPUs; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, {blas.get('internal_api', 'unknown BLAS')} "
        f"{blas.get('version', '')} kernel {blas.get('architecture', 'unknown')}"
        f"{' (held by ' + ', '.join(held) + ')' if held else ''}; "
        f"PyTorch {version('torch') if HAS_TORCH else 'not installed'}"
    )


def seconds_of(function, repeats):
    """Return the median seconds of `repeats` calls, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def print_table(header, rows):
    """Print rows of strings as a Markdown table."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")

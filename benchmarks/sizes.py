"""Time and memory of a step of style transfer by the size of the picture.

    python benchmarks/sizes.py                       # the README's table: a quarter of an hour
    python benchmarks/sizes.py 1024 2048 --tile 512  # some sizes, in smaller tiles

Each size, 3 to 2, runs in a process of its own: content and style of this size, default settings,
one step of L-BFGS. It evaluates the objective twice, a later step once; the quicker evaluation is
shown. Memory is the largest that the process had from its start to the end of the step. It grows by
24 bytes a pixel with each later step, up to ten of them.
"""

import argparse
import json
import subprocess
import sys
import time

from common import ROOT, describe_machine, print_table

SIZES = (512, 1024, 1500, 2048, 3000, 4096)


def work(size, tile):
    """Be the process of one size: print the seconds of an evaluation and the peak memory."""
    import style_transfer_cpu
    from style_transfer_cpu import Objective, Settings, stylize
    from support.machine import peak_memory_bytes
    from support.pictures import read_picture, resize_picture

    times = []

    class Timed(Objective):
        def __call__(self, image):
            start = time.perf_counter()
            result = super().__call__(image)
            times.append(time.perf_counter() - start)
            return result

    style_transfer_cpu.Objective = Timed
    content, style = (
        resize_picture(read_picture(ROOT / "picture" / name), size * 2 // 3, size)
        for name in ("content.jpg", "style.jpg")
    )
    settings = Settings(size=size, scales=1, steps=1, init="content", tile=tile)
    stylize(content, [style], settings)
    print(json.dumps([min(times), peak_memory_bytes()]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="longest sides")
    parser.add_argument("--tile", type=int, help="as of style_transfer_cpu.py")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.sizes[0], arguments.tile)
        return
    print(describe_machine() + "\n")
    rows = []
    for size in arguments.sizes:
        command = [sys.executable, __file__, "--worker", str(size)]
        command += ["--tile", str(arguments.tile)] if arguments.tile else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, peak = json.loads(done.stdout)
        pixels = size * (size * 2 // 3)
        rows.append([
            f"{size}x{size * 2 // 3}", f"{peak / 2**30:.2f}", f"{seconds:.1f}",
            f"{seconds / pixels * 1e6:.2f}",
        ])  # fmt: skip
    print_table(["size", "peak memory, GiB", "a step, s", "a million pixels, s"], rows)


if __name__ == "__main__":
    main()

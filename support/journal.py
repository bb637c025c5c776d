"""Following a run of style transfer: progress bar, losses, pictures on the way, checkpoints."""

import math
import os
import shlex
import sys
import time
from pathlib import Path

from tqdm import tqdm

from support.checkpoints import write_checkpoint
from support.errors import InputError
from support.files import library_versions, peak_memory_bytes, write_json
from support.pictures import resize_picture, write_picture
from support.report_page import write_html
from support.reports import plot_losses, write_animation, write_contact_sheet
from support.threads import get_threads

PROGRAM = Path(__file__).resolve().parent.parent / "style_transfer_cpu.py"
FRAME_SIDE = 480  # pixels: longest side of the pictures of an animation
FRAMES = 40  # about so many in an animation, unless --save-every says otherwise


def shrunk(picture, longest):
    """Return a picture brought down to `longest` pixels on its longest side, if it has more."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    return resize_picture(picture, max(1, round(height * scale)), max(1, round(width * scale)))


class Journal:
    """What happens beside the optimisation after each step of it.

    The bar counts work, not steps: a step on half the width and height is a quarter of one.

    Parameters
    ----------
    state : State
        Where the run stands; kept up to date.
    scales : list of dict
        'height', 'width' and 'steps' of each size, from coarse to fine.
    finished : callable
        ``finished(image)`` returns a network's input (1, 3, H, W) as the picture to be saved,
        uint8 (H, W, 3) of the size of the result.
    stop : StopRequest
    options : argparse.Namespace
        The command's options.
    """

    def __init__(self, state, scales, finished, stop, options):
        self.start = time.perf_counter()
        self.state = state
        self.scales = scales
        self.finished = finished
        self.stop = stop
        self.options = options
        self.checkpoint = options.checkpoint or options.resume
        self.image = state.image  # of the last step whose losses were finite
        self.losses = list(state.losses)  # one dict a step; `state` has those up to its own step
        self.written = len(self.losses)  # steps that the checkpoint holds
        self.frame_every = None
        pages = [path for path in options.report if path.suffix.lower() == ".html"]
        if options.animation or options.contact_sheet or pages:
            steps = sum(scale["steps"] for scale in scales)
            self.frame_every = options.save_every or math.ceil(steps / FRAMES)
        # the scale being worked at
        self.scale = state.scale
        self.first = 0  # steps before it
        self.last = time.perf_counter()
        # work of a step at each size
        self.shares = [(scale["width"] / scales[-1]["width"]) ** 2 for scale in scales]
        steps_left = [scale["steps"] * (i >= state.scale) for i, scale in enumerate(scales)]
        steps_left[state.scale] -= state.step
        work = [share * scale["steps"] for share, scale in zip(self.shares, scales, strict=True)]
        left = sum(share * steps for share, steps in zip(self.shares, steps_left, strict=True))
        self.bar = tqdm(
            total=sum(work), initial=sum(work) - left, dynamic_ncols=True, smoothing=0,
            bar_format="{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip

    def begin_scale(self, number, image):
        """Take note that the steps that follow are at scale `number` and start from `image`."""
        self.stop.check()
        if self.frame_every and not self.losses and not self.state.frames:
            self._keep_frame(image)
        if number > self.state.scale or self.state.image is None:
            self.scale = number
            self.first = len(self.losses)
            self.border(image, {})
        else:  # resumed amid this scale
            self.first = len(self.losses) - self.state.step
        self.last = time.perf_counter()

    def step(self, image, losses, memory=None):
        """Take note of a step.

        Parameters
        ----------
        image : ndarray of shape (1, 3, H, W)
            The picture after it.
        losses : dict of str to float
            What it saw.
        memory : dict of str to ndarray, optional
            What the optimiser knows besides, if the run can go on from here (see `border`).

        Raises
        ------
        Stopped
            If a signal has asked for it.
        """
        now = time.perf_counter()
        self.losses.append({**losses, "seconds": round(now - self.last, 4)})
        self.last = now
        self.image = image
        done = len(self.losses)
        shown = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        total = sum(scale["steps"] for scale in self.scales)
        self.bar.set_postfix_str(f"step {done}/{total}, {shown}", refresh=False)
        self.bar.update(self.shares[self.scale])
        if self.options.save_every and done % self.options.save_every == 0:
            path = self.options.output
            write_picture(
                path.with_name(f"{path.stem}_{done:04d}{path.suffix}"), self.finished(image)
            )
        if self.frame_every and done % self.frame_every == 0:
            self._keep_frame(image)
        if memory is not None:
            self.border(image, memory)
        self.stop.check()

    def border(self, image, memory):
        """Take note of a place from which the run can go on: a picture, and what the optimiser
        knows besides. Every so many steps it is written to the checkpoint."""
        state = self.state
        state.scale, state.step = self.scale, len(self.losses) - self.first
        state.image, state.memory = image, memory
        state.losses = list(self.losses)
        new = len(self.losses) - self.written
        due = state.step >= self.scales[state.scale]["steps"] or (
            new >= self.options.checkpoint_every
        )
        if self.checkpoint and new and due:
            self.write_checkpoint(self.checkpoint)
            self.written = len(self.losses)

    def write_checkpoint(self, path):
        """Write the last border to `path`, and its picture to the output."""
        write_picture(self.options.output, self.finished(self.state.image))
        write_checkpoint(path, self.state)

    def close(self):
        """Leave the bar as it stands."""
        self.bar.close()

    def end(self, result, content, styles, argv):
        """Write the result, and all else that the options ask for.

        Parameters
        ----------
        result, content : ndarray of shape (H, W, 3)
        styles : list of ndarray of shape (h, w, 3)
        argv : list of str
            The command line.
        """
        options = self.options
        height, width = result.shape[:2]
        write_picture(options.output, result)
        seconds = time.perf_counter() - self.start
        print(f"{options.output}: {width}x{height} pixels in {seconds:.1f} s")
        report = {
            "command": shlex.join(["python", "style_transfer_cpu.py", *map(str, argv)]),
            "options": {name: _plain(value) for name, value in vars(options).items()},
            "weights": options.weights,
            "size": [height, width],
            "scales": self.scales,
            "steps": self.losses,
            "seconds": round(seconds, 3),
            "threads": get_threads(),
            "peak_memory_bytes": peak_memory_bytes(),
            "versions": library_versions("numpy", "scipy", "pillow"),
        }
        frames = self.state.frames
        if options.animation:
            write_animation(options.animation, frames, result)
        if options.contact_sheet:
            write_contact_sheet(options.contact_sheet, content, styles, frames, result)
        if options.plot:
            plot_losses(options.plot, report)
        for path in options.report:
            if path.suffix.lower() == ".json":
                write_json(path, report)
            else:
                write_html(path, report, content, styles, frames, result)

    def end_early(self, error):
        """Save what there is after `Stopped`; return the exit status.

        Raises
        ------
        InputError
            If it was another error, which needs another command line.
        """
        self.close()
        output = self.options.output
        done = len(self.losses)
        if isinstance(error, MemoryError):
            raise InputError("out of memory; give a smaller --size") from error
        if isinstance(error, FloatingPointError):
            kept = ""
            if self.image is not None:
                write_picture(output, self.finished(self.image))
                kept = f"; {output} is the picture of the step before"
            raise InputError(
                f"at step {done + 1} the loss or its gradient is no longer finite ({error}); try "
                f"other --weights, or a smaller --style-weight or --learning-rate{kept}"
            ) from error
        if done == 0:
            print("stopped before the first step; nothing was written", file=sys.stderr)
            return 128 + error.number
        checkpoint = self.checkpoint or output.with_suffix(".npz")
        self.write_checkpoint(checkpoint)
        write_picture(output, self.finished(self.image))
        print(
            f"stopped after step {done}; {output} is the picture so far\nto go on: "
            f"{shlex.join(['python', os.path.relpath(PROGRAM), '--resume', str(checkpoint)])}",
            file=sys.stderr,
        )
        return 128 + error.number

    def _keep_frame(self, image):
        frame = shrunk(self.finished(image), FRAME_SIDE)
        self.state.frames.append((len(self.losses), frame))


def _plain(value):
    """Return an option's value as JSON can hold it, paths as they were given."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

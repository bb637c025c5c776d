"""Following a run of style transfer: progress bar, losses, pictures on the way, checkpoints."""

import math
import os
import shlex
import sys
import time
from pathlib import Path

from tqdm import tqdm

from fast.strips import get_threads
from style.checkpoint import write_checkpoint
from style.page import write_html
from style.report import FRAME_SIDE, plot_losses, write_animation, write_contact_sheet
from support.command import InputError, Stopped
from support.files import write_json
from support.machine import library_versions, peak_memory_bytes
from support.pictures import shrunk, write_picture

PROGRAM = Path(__file__).resolve().parent.parent / "style_transfer_cpu.py"
FRAMES = 40  # about so many in an animation, unless --save-every says otherwise
MOST_FRAMES = 200  # whatever it says
OVERHEAD = 16_000  # pixels that would take as long as what a step takes besides its pixels


class Journal:
    """What happens beside the optimisation after each step of it.

    The bar counts work, not steps: a step on half the width and height is little more than a
    quarter of one.

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
        self.start_time = time.perf_counter()
        self.steps = sum(scale["steps"] for scale in scales)
        self.resumed_at = len(state.losses)
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
            every = options.save_every or math.ceil(self.steps / FRAMES)
            self.frame_every = max(every, math.ceil(self.steps / MOST_FRAMES))
        # the scale being worked at
        self.scale = state.scale
        self.steps_before = 0
        self.last_time = time.perf_counter()
        if self.losses:
            print(f"going on after step {len(self.losses)} of {self.steps}")
        # work of a step at each size
        self.costs = [scale["width"] * scale["height"] + OVERHEAD for scale in scales]
        steps_left = [scale["steps"] * (i >= state.scale) for i, scale in enumerate(scales)]
        steps_left[state.scale] -= state.step
        work = sum(cost * scale["steps"] for cost, scale in zip(self.costs, scales, strict=True))
        left = sum(cost * steps for cost, steps in zip(self.costs, steps_left, strict=True))
        self.bar = tqdm(
            total=work, initial=work - left, dynamic_ncols=True, smoothing=0,
            bar_format="{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip

    def begin_scale(self, number, image):
        """Take note that the steps that follow are at scale `number` and start from `image`."""
        self.stop.check()
        if self.bar.n == self.bar.initial:
            self.bar.unpause()  # the time left shall not be reckoned from learning filters
        if self.frame_every and not self.losses and not self.state.frames:
            self._keep_frame(image)
        if number > self.state.scale or self.state.image is None:
            self.scale = number
            self.steps_before = len(self.losses)
            self.border(image, {})
        else:  # resumed amid this scale
            self.steps_before = len(self.losses) - self.state.step
        self.last_time = time.perf_counter()

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
        self.losses.append({**losses, "seconds": round(now - self.last_time, 4)})
        self.last_time = now
        self.image = image
        done = len(self.losses)
        shown = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        self.bar.set_postfix_str(f"step {done}/{self.steps}, {shown}", refresh=False)
        self.bar.update(self.costs[self.scale])
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
        state.scale, state.step = self.scale, len(self.losses) - self.steps_before
        state.image, state.memory = image, memory
        state.losses = list(self.losses)
        new = len(self.losses) - self.written
        due = state.step >= self.scales[state.scale]["steps"] or (
            new >= self.options.checkpoint_every
        )
        if self.checkpoint and new and due:
            write_picture(self.options.output, self.finished(image))
            write_checkpoint(self.checkpoint, state)
            self.written = len(self.losses)

    def close(self):
        """Leave the bar as it stands."""
        self.bar.close()

    def end(self, result, content, styles, command):
        """Say that the result is there, and write all else that the options ask for.

        Parameters
        ----------
        result, content : ndarray of shape (H, W, 3)
        styles : list of ndarray of shape (h, w, 3)
        command : str
            The whole command line.
        """
        options = self.options
        height, width = result.shape[:2]
        seconds = time.perf_counter() - self.start_time
        if len(self.losses) < self.steps:
            print(f"after step {len(self.losses)} there was nothing more to gain")
        print(f"{options.output}: {width}x{height} pixels in {seconds:.1f} s")
        seconds += sum(losses["seconds"] for losses in self.losses[: self.resumed_at])
        report = {
            "command": command,
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
        for path in (options.animation, options.contact_sheet, options.plot, *options.report):
            if path:
                print(path)

    def end_early(self, error):
        """Save what there is; return the exit status after `Stopped`.

        Raises
        ------
        InputError
            After a `FloatingPointError` or `MemoryError`: going on needs another command line.
        """
        self.close()
        output = self.options.output
        done = len(self.losses)
        if not isinstance(error, Stopped):
            what = (
                f"the loss or its gradient is no longer finite ({error}); try other --weights, or "
                "a smaller --style-weight or --learning-rate"
            )
            if isinstance(error, MemoryError):
                what = "there is no memory left; give a smaller --size"
            if self.image is not None:
                write_picture(output, self.finished(self.image))
                what += f"; {output} is the picture of the step before"
            raise InputError(f"at step {done + 1} {what}") from error
        if done == 0:
            print("stopped before the first step; nothing was written", file=sys.stderr)
            return 128 + error.number
        checkpoint = self.checkpoint or output.with_suffix(".checkpoint.npz")
        write_checkpoint(checkpoint, self.state)
        write_picture(output, self.finished(self.image))
        kept = len(self.state.losses)
        again = f"; going on makes the steps from {kept + 1} on again" if kept < done else ""
        print(
            f"stopped after step {done}; {output} is the picture so far{again}\nto go on: "
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

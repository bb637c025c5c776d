"""What the command does besides optimising: progress, pictures on the way, checkpoints, reports.

A `Journal` only listens: it is told of each step and changes nothing of the run. It empties the
optimiser's state in the checkpoint that was resumed, when the first step no longer needs it.
"""

import math
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

from fast.strips import get_threads
from style.checkpoint import write_checkpoint
from style.page import write_html
from style.plan import PAIRS, fit_memory
from style.report import FRAME_SIDE, plot_losses, write_animation, write_contact_sheet
from style.settings import DEFAULTS, command_line, without_folders
from support.command import InputError
from support.files import write_json
from support.machine import format_bytes, format_seconds, library_versions, peak_memory_bytes
from support.pictures import shrunk, write_picture
from support.progress import Bar

PROGRAM = Path(__file__).resolve().parent.parent / "style_transfer_cpu.py"
FRAMES = 40  # about so many in an animation, unless --save-every says otherwise
MOST_FRAMES = 200  # whatever it says: they are kept in memory and in checkpoints
MUCH_MEMORY = 2e9  # bytes; a run that needs more is announced
HINT_AFTER = 3  # steps; the first one is slower than the others
LONG = 300  # seconds; the time of a longer run is said


class Journal:
    """Follows a run of the command: to be called with each `Step`, inside a ``with`` block.

    The bar counts work, not steps: a step on half the width and height is little more than a
    quarter of the work.

    `files` is a `Files`, `scales` are those of the run. `checkpoint` is that of the run to resume,
    or one without a position. `larger` are the scales of a larger --size, to say how long that
    takes; there may be none.
    """

    def __init__(self, files, scales, checkpoint, larger):
        self.files = files
        self.checkpoint_path = files.checkpoint or files.resume  # None if the command names none
        self.larger = larger
        self.scales = scales
        self.resumed = checkpoint
        self.losses = list(checkpoint.losses)  # one dict a step, up to the latest
        self.begin = checkpoint.position[:2] if checkpoint.position else (0, 0)  # scale and step
        number, step = self.begin
        left = sum(scale.steps for scale in scales[number:]) - step
        self.steps = len(self.losses) + left  # in all
        self.frames = list(checkpoint.frames)
        self.latest = None  # the last `Step`
        self.written = len(self.losses)  # steps in the checkpoint file
        self.kept = bool(self.losses)  # whether this run has written the picture so far
        self.bar = None
        self.last_time = None

    def __enter__(self):
        number, step = self.begin
        if self.losses:
            print(f"resuming after step {len(self.losses)} of {self.steps}")
        work = [scale.work * scale.steps for scale in self.scales]
        done = sum(work[:number]) + self.scales[number].work * step
        self.bar = Bar(
            total=sum(work), initial=done, dynamic_ncols=True, smoothing=0,
            bar_format="{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def finish(self, result):
        """Write the result and remove the picture so far."""
        write_picture(self.files.output, result)
        if self.kept:
            self.files.unfinished.unlink(missing_ok=True)

    def __call__(self, step):
        """Record a `Step`."""
        now = time.perf_counter()
        if step.losses:
            self.latest = step
            if self.resumed.position:
                self.resumed.position.optimizer_state.clear()  # much memory; the next one is there
            self.losses.append({**step.losses, "seconds": round(now - self.last_time, 4)})
            shown = ", ".join(f"{name} {loss:.3g}" for name, loss in step.losses.items())
            text = f"step {len(self.losses)}/{self.steps}, {shown}"
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(self.scales[step.position.scale].work)
            if len(self.losses) == len(self.resumed.losses) + HINT_AFTER:
                self._say_times(step)
            self._save_on_the_way(step)
            self._save_checkpoint_if_due(step)
        else:  # the start
            self.bar.unpause()  # learning the filters does not count in the time left
            if self.frame_every and not self.losses and not self.frames:
                self.frames.append((0, shrunk(step.picture(), FRAME_SIDE)))
        self.last_time = now

    @property
    def frame_every(self):
        """Steps from one frame to the next, None if no output shows frames."""
        files = self.files
        pages = [path for path in files.report if path.suffix.lower() == ".html"]
        if not (files.animation or files.contact_sheet or pages):
            return None
        every = files.save_every or math.ceil(self.steps / FRAMES)
        return max(every, math.ceil(self.steps / MOST_FRAMES))

    def _say_times(self, step):
        recent = [losses["seconds"] for losses in self.losses[1 - HINT_AFTER :]]
        per_work = sum(recent) / len(recent) / self.scales[step.position.scale].work
        seconds = per_work * (self.bar.total - self.bar.n)
        if seconds > LONG:
            self.bar.write(f"this will take about {format_seconds(seconds)}")
        if self.larger:
            last = self.larger[-1]
            # each size begins with the targets and a first evaluation, about two steps
            seconds = per_work * sum(scale.work * (scale.steps + 2) for scale in self.larger)
            self.bar.write(
                f"{self.files.content[0]} is larger: --size {max(last.width, last.height)} paints "
                f"{last.width}x{last.height} in about {format_seconds(seconds)}"
            )

    def _save_on_the_way(self, step):
        done = len(self.losses)
        if self.files.save_every and done % self.files.save_every == 0:
            path = self.files.output
            write_picture(path.with_name(f"{path.stem}_{done:04d}{path.suffix}"), step.picture())
        if self.frame_every and done % self.frame_every == 0:
            self.frames.append((done, shrunk(step.picture(), FRAME_SIDE)))

    def _save_checkpoint_if_due(self, step):
        new = len(self.losses) - self.written
        end_of_scale = step.position.step >= self.scales[step.position.scale].steps
        if self.checkpoint_path and (end_of_scale or new >= self.files.checkpoint_every):
            self._write_picture_so_far()
            self._write_checkpoint(self.checkpoint_path)

    def _write_picture_so_far(self):
        write_picture(self.files.unfinished, self.latest.picture())
        self.kept = True

    def _write_checkpoint(self, path):
        now = {"position": self.latest.position, "losses": self.losses, "frames": self.frames}
        write_checkpoint(path, replace(self.resumed, **now))
        self.written = len(self.losses)

    def stopped(self, number):
        """Save picture and checkpoint after a signal of this number; return the exit status."""
        self.bar.close()
        if self.latest is None:
            print("stopped before the first step; nothing was written", file=sys.stderr)
            return 128 + number
        path = self.checkpoint_path or self.files.output.with_suffix(".checkpoint.npz")
        self._write_checkpoint(path)
        self._write_picture_so_far()
        command = shlex.join(["python", os.path.relpath(PROGRAM), "--resume", str(path)])
        picture = f"{self.files.unfinished} is the picture so far"
        print(f"stopped after step {len(self.losses)}; {picture}", file=sys.stderr)
        print(f"to resume: {command}", file=sys.stderr)
        return 128 + number

    def failed(self, error):
        """Save the picture of the last step, if there was one, and raise `InputError`.

        `error` is a FloatingPointError or a MemoryError.
        """
        reason = (
            f"the loss or its gradient is no longer finite ({error}); try different --weights, or "
            "a smaller --style-weight or --learning-rate"
        )
        if isinstance(error, MemoryError):
            reason = "there is not enough memory; give a smaller --size"
        if self.latest is not None:
            self._write_picture_so_far()
            reason += f"; {self.files.unfinished} is the picture of the step before"
        raise InputError(f"at step {len(self.losses) + 1} {reason}") from error


def announce(content, scales, layers, files, settings):
    """Print the sizes to work at; return the settings with what fits into memory for them.

    A resumed run keeps what it began with. `InputError` if nothing fits.
    """
    *coarser, last = scales
    notes = [f"size: {last.width}x{last.height}"]
    if max(content.shape[:2]) > settings.size:
        notes.append(f"of {content.shape[1]}x{content.shape[0]}")
    if max(content.shape[:2]) < settings.size:
        notes.append(f"as {files.content[0]} is no larger")
    if coarser:
        notes.append("by way of " + " and ".join(f"{s.width}x{s.height}" for s in coarser))
    print(", ".join(notes))
    fitted, needed = fit_memory(settings, last, layers, choose=not files.resume)
    if needed > MUCH_MEMORY or fitted != settings:
        notes = [f"memory: about {format_bytes(needed)}"]
        if fitted.tile != settings.tile:
            notes.append(f"in tiles of {fitted.tile} pixels")
        if fitted.optimizer != settings.optimizer:
            notes.append("by adam, as the memory of lbfgs does not fit")
        elif fitted.pairs != settings.pairs:
            notes.append(f"with {fitted.pairs} of {PAIRS} pairs of lbfgs")
        print(", ".join(notes))
    return fitted


def write_reports(journal, settings, content, styles, result, seconds):
    """Write everything besides the result that the command asks for, and name it all.

    `journal` is that of the finished run. `seconds` is what this run took, without the earlier
    parts of a resumed one. The others are those of `stylize`; `style.report` describes them.
    """
    files, frames = journal.files, journal.frames
    if len(journal.losses) < journal.steps:
        print(f"after step {len(journal.losses)} no further step reduced the loss")
    print(f"{files.output}: {result.shape[1]}x{result.shape[0]} pixels in {seconds:.1f} s")
    seconds += sum(losses["seconds"] for losses in journal.resumed.losses)
    scales = [scale._asdict() for scale in journal.scales]
    # steps that an earlier version made at other sizes count as made at the first
    scales[0]["steps"] += max(0, journal.steps - sum(scale["steps"] for scale in scales))
    options = {**vars(files), **vars(settings)}
    changed = {name: value for name, value in options.items() if value != DEFAULTS[name]}
    report = {
        "command": command_line(changed),
        "options": options,
        "weights": settings.weights,
        "size": list(result.shape[:2]),
        "scales": scales,
        "steps": journal.losses,
        "seconds": round(seconds, 3),
        "threads": get_threads(),
        "peak_memory_bytes": peak_memory_bytes(),
        "versions": library_versions("numpy", "scipy", "pillow"),
    }
    if files.animation:
        write_animation(files.animation, frames, result)
    if files.contact_sheet:
        write_contact_sheet(files.contact_sheet, content, styles, frames, result)
    if files.plot:
        plot_losses(files.plot, report)
    for path in files.report:
        if path.suffix.lower() == ".json":
            write_json(path, report)
        else:
            shown = without_folders(options)  # a page is for others: it shows no folders
            page = {"options": shown, "weights": shown["weights"],
                    "command": command_line(without_folders(changed))}  # fmt: skip
            write_html(path, report | page, content, styles, frames, result)
    for path in (files.animation, files.contact_sheet, files.plot, *files.report):
        if path:
            print(path)

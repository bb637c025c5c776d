"""How much memory style transfer takes, and what to say if there is not enough."""

from support.command import InputError
from support.machine import available_bytes, format_bytes

SAFETY = 1.25  # memory comes in pieces, and not every piece gets used
LARGE = 2e9  # bytes; what takes more is announced
SMALL = 32  # pixels a side; no use to anybody


def style_transfer_bytes(pixels, channels, optimizer):
    """Estimate how many bytes style transfer takes besides pictures and weights.

    Fitted to the "peak_memory_bytes" of ``style_transfer_cpu.py --scales 1 --report FILE.json`` at
    sizes from 256 to 1536, with networks of 64 and 4 channels; within a tenth of those for the
    layers of the defaults, and too much for losses on shallow layers alone.

    Parameters
    ----------
    pixels : int
        Of the largest picture that the network is shown.
    channels : int
        Of the network's first layer.
    optimizer : {"lbfgs", "adam"}
    """
    width = channels / 64
    filters = 620e6 * width**2  # as they are and transformed, forward and backward
    features = 1900 * width  # a pixel: buffers, masks and targets of the layers
    optimisation = {"lbfgs": 1170, "adam": 180}[optimizer]  # a pixel: SciPy's memory of ten steps
    return int(filters + pixels * (features + optimisation))


def check_memory(size, pixels, channels, optimizer):
    """State what a run will take, if that is much; raise `InputError` if it cannot fit.

    Parameters
    ----------
    size : int
        Longest side of the result.
    pixels, channels, optimizer
        See `style_transfer_bytes`.
    """
    needed, available = style_transfer_bytes(pixels, channels, optimizer), available_bytes()
    if available is not None and SAFETY * needed > available:
        fixed = style_transfer_bytes(0, channels, optimizer)
        largest = int(size * (max(0, available / SAFETY - fixed) / (needed - fixed)) ** 0.5)
        advice = f"the largest that fits is --size {largest}"
        if largest < SMALL:
            advice = "no size fits; close other programs or raise the limit on memory"
        raise InputError(
            f"--size {size} needs about {format_bytes(needed)} of memory, too much for the "
            f"{format_bytes(available)} that are free; {advice}"
        )
    if needed > LARGE:
        print(f"memory: about {format_bytes(needed)}")

"""Sharing the strips of an array operation among threads.

NumPy releases the interpreter lock while it computes, so ordinary Python threads run at the same
time. Each takes the next strip of the picture and works on it in buffers that fit in its cache.
Meanwhile BLAS is limited to one thread, as the strips already keep all processors busy.

The strips depend on the shapes alone, and one thread computes a strip from start to end. The
results are therefore the same to the last bit for any number of threads.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import count, pairwise
from math import ceil, prod

import numpy as np
from threadpoolctl import OpenBLASController, ThreadpoolController

STRIP_BYTES = 1 << 20  # what `strips_of_bytes` lets a strip read
LARGE_PAGE = 1 << 21  # bytes
LARGE_MATRIX = 1 << 23  # bytes: more than a processor's cache
SMALL_PRODUCT = 10**6  # OpenBLAS does not repack a product of (M, N) and (N, L) if M N L <= this

_lock = threading.Lock()
_threads = None  # None: as many as there are CPUs
_pool = None  # the helper threads; the caller's own thread works too
_pool_size = 0
_blas_users = []  # the number of threads that each caller inside `limited_blas` allows
_blas_threads = None  # the least of them, which is in force
_blas_limit = None  # undoes it
_local = threading.local()


def available_cpus():
    """Return the number of CPUs this process may use (its affinity, not the machine's total)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number):
    """Set how many threads take strips: at least 1, or None for as many as there are CPUs."""
    global _threads
    if number is not None and number < 1:
        raise ValueError(f"the number of threads must be at least 1, got {number}")
    _threads = number


def get_threads():
    return _threads or available_cpus()


@contextmanager
def limited_blas(threads):
    """Limit BLAS to so many threads.

    Of several concurrent users the least number counts; the last one restores the old limit.
    """
    with _lock:
        _blas_users.append(threads)
        _set_blas_limit()
    try:
        yield
    finally:
        with _lock:
            _blas_users.remove(threads)
            _set_blas_limit()


@cache
def _blas_libraries():
    return ThreadpoolController().select(user_api="blas")


def _set_blas_limit():
    """Put the least limit of `_blas_users` in force, or the old one if there are none."""
    global _blas_threads, _blas_limit
    least = min(_blas_users, default=None)
    if least == _blas_threads:
        return
    # threadpoolctl 3.7 and later obeys the thread that set the limit, until it is released; here,
    # counting the users does its work.
    release = getattr(OpenBLASController, "clear_controlling_thread", lambda force: None)
    release(force=True)
    if _blas_limit:
        _blas_limit.restore_original_limits()
        release(force=True)
    _blas_limit = _blas_libraries().limit(limits=least) if least else None
    _blas_threads = least


def run_strips(function, strips):
    """Call `function(*strip)` for every strip; an exception stops all threads and is raised."""
    strips = list(strips)
    numbers = count()  # `next` of it is atomic: each number goes to one thread
    stop = threading.Event()
    errors = np.geterr()

    def work():
        try:
            with np.errstate(**errors):  # the caller's, in the helpers too
                while (number := next(numbers)) < len(strips) and not stop.is_set():
                    function(*strips[number])
        except BaseException:
            stop.set()
            raise

    with limited_blas(1):
        helpers = _start(work, min(get_threads(), len(strips)) - 1)
        try:
            work()
            wait(helpers)
        finally:  # after an error or Ctrl-C the helpers may still be at work
            stop.set()
            wait(helpers)
    for helper in helpers:
        helper.result()


def _start(work, number):
    """Start `work` in `number` helper threads; the pool is replaced by a larger one if needed."""
    global _pool, _pool_size
    with _lock:
        if number > _pool_size:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool, _pool_size = ThreadPoolExecutor(number, thread_name_prefix="strips"), number
        return [_pool.submit(work) for _ in range(number)]


def _forget_after_fork():
    """Forget the parent's threads and locks: a forked child does not have them."""
    global _lock, _pool, _pool_size
    _lock, _pool, _pool_size = threading.Lock(), None, 0
    _blas_users.clear()
    _set_blas_limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def strips_of_rows(pictures, height, rows):
    """Return (picture, first row, last row + 1) of strips of at most `rows` rows."""
    rows = max(1, rows)
    number = ceil(height / rows)  # strips of nearly equal height keep all threads busy to the end
    edges = [height * i // number for i in range(number + 1)]
    return [(n, y0, y1) for n in range(pictures) for y0, y1 in pairwise(edges)]


def strips_of_bytes(pictures, height, row_bytes):
    """Return (slice of pictures, first row, last row + 1) of strips that read about STRIP_BYTES.

    A strip is rows of one picture or, if these are small, several whole pictures.
    """
    at_once = STRIP_BYTES // (height * row_bytes)
    if at_once < 2:
        strips = strips_of_rows(pictures, height, STRIP_BYTES // row_bytes)
        return [(slice(n, n + 1), y0, y1) for n, y0, y1 in strips]
    # at least two strips, so that two threads have work
    groups = strips_of_rows(1, pictures, min(at_once, ceil(pictures / 2)))
    return [(slice(n0, n1), 0, height) for _, n0, n1 in groups]


def matmul(a, b):
    """Return the matrix product a @ b; if one of them is large, threads share it as strips.

    BLAS has threads too, and they start sooner. But after a large product they go on waiting busily
    for another one, and slow the strips that run meanwhile.
    """
    if max(a.nbytes, b.nbytes) <= LARGE_MATRIX:
        return a @ b
    return product(a, b) if len(a) > b.shape[1] else product(b.T, a.T).T


def product(a, b):
    """Return the matrix product a @ b, its rows shared among the threads."""
    result = np.empty((len(a), b.shape[1]), a.dtype)

    def strip(_, start, stop):
        np.matmul(a[start:stop], b, out=result[start:stop])

    run_strips(strip, strips_of_rows(1, len(a), 512))
    return result


def scratch(name, shape, dtype):
    """Return this thread's buffer `name` as an uninitialised array; the next call reuses it.

    A new large array would cost a page fault for every 4 KiB.
    """
    buffers = _local.__dict__
    size = prod(shape) * np.dtype(dtype).itemsize
    if name not in buffers or buffers[name].nbytes < size:
        buffers[name] = empty(size, np.uint8)
    return buffers[name][:size].view(dtype).reshape(shape)


def empty(shape, dtype):
    """Return an uninitialised array that begins at a large page, for memory that is used often.

    NumPy asks the system for large pages for arrays of 4 MiB or more. The processor then looks up
    fewer addresses: a style step takes 0.95 of the time.
    """
    size = np.prod(shape, dtype=int) * np.dtype(dtype).itemsize
    memory = np.empty(max(size, LARGE_PAGE) + LARGE_PAGE, np.uint8)
    start = -memory.ctypes.data % LARGE_PAGE
    return memory[start : start + size].view(dtype).reshape(shape)

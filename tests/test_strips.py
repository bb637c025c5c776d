"""Strips shared among threads: the same bits, and BLAS and threads as they were before."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fast import strips as threads
from fast.losses import gram
from layers2 import ConvolutionalLayer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def same_number_of_threads_afterwards():
    before = threads._threads
    yield
    threads.set_threads(before)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def work(seed):
    """Return arrays from every threaded path: forward, both gradients, Gram matrices."""
    rng = np.random.default_rng(seed)
    results = []
    for algorithm in ("winograd4", "winograd6", "im2col", "kn2row"):
        layer = ConvolutionalLayer(3, 20, 24, 1, 1, algorithm=algorithm)
        layer.init_param("he", rng)
        x = rng.standard_normal((2, 20, 61, 43), dtype=np.float32)
        y = layer.forward(x)
        results += [y, layer.backward(y), *layer.get_gradient(), gram(y)]
    return results


def test_same_bits_for_any_number_of_threads_and_from_run_to_run():
    threads.set_threads(1)
    expected = work(0)
    for number in (1, 2, 3, 7):
        threads.set_threads(number)
        for result, reference in zip(work(0), expected, strict=True):
            np.testing.assert_array_equal(result, reference)


def test_several_python_threads_may_call_at_once():
    threads.set_threads(2)
    expected = {seed: work(seed) for seed in range(4)}
    before = blas_threads()
    wrong = []

    def caller(seed):
        for _ in range(3):
            for result, reference in zip(work(seed), expected[seed], strict=True):
                if not np.array_equal(result, reference):
                    wrong.append(seed)

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in expected]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong
    assert blas_threads() == before


def _child(connection):
    connection.send([result.tobytes() for result in work(0)])
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_works_after_a_fork():
    threads.set_threads(2)
    expected = [result.tobytes() for result in work(0)]  # the parent's threads are running
    here, there = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads is intended here
        process = multiprocessing.get_context("fork").Process(target=_child, args=(there,))
        process.start()
    assert here.poll(60), "the child hangs"
    assert here.recv() == expected
    process.join()


def test_the_callers_own_limits_are_restored():
    for limit in (1, 2):
        with threadpool_limits(limits=limit, user_api="blas"):
            before = blas_threads()
            work(0)
            assert blas_threads() == before


def test_the_least_of_several_limits_counts():
    """Whoever comes or leaves first: each in a thread of the caller's."""
    before = blas_threads()
    contexts = [threads.limited_blas(number) for number in (3, 2, 3, 1)]
    steps = [(0, "enter", 3), (1, "enter", 2), (0, "exit", 2), (2, "enter", 2), (3, "enter", 1),
             (1, "exit", 1), (3, "exit", 3), (2, "exit", None)]  # fmt: skip
    for number, step, expected in steps:
        enter, leave = contexts[number].__enter__, contexts[number].__exit__
        run_in_thread(enter if step == "enter" else lambda leave=leave: leave(None, None, None))
        assert blas_threads() == ([expected] * len(before) if expected else before)


def run_in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_the_last_of_several_users_restores_the_limits():
    """OpenBLAS's limits obey one living thread, and the last to leave is not the first."""
    before = blas_threads()
    entered, leave, left, end = (threading.Event() for _ in range(4))

    def first():
        with threads.limited_blas(1):
            entered.set()
            leave.wait(60)
        left.set()
        end.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(60)
    with threads.limited_blas(1):
        leave.set()
        assert left.wait(60)
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before
    seen = []

    def other():
        with threadpool_limits(limits=1, user_api="blas"):  # others may set limits again
            seen.extend(blas_threads())

    another = threading.Thread(target=other)
    another.start()
    another.join()
    end.set()
    thread.join()
    assert set(seen) <= {1}
    assert blas_threads() == before


def test_blas_runs_single_threaded_inside_strips():
    seen = []
    threads.run_strips(lambda i: seen.append(blas_threads()), [(i,) for i in range(4)])
    assert all(set(numbers) <= {1} for numbers in seen)


def test_every_strip_is_taken_once():
    for number in (1, 2, 5):
        threads.set_threads(number)
        taken = []
        threads.run_strips(taken.append, [(i,) for i in range(100)])
        assert sorted(taken) == list(range(100))
    threads.run_strips(lambda: 1 / 0, [])


def test_an_error_in_a_helper_thread_is_raised_too():
    threads.set_threads(2)

    def strip(i):
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(f"strip {i} is bad")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="is bad"):
        threads.run_strips(strip, [(i,) for i in range(10_000)])


def test_an_error_in_a_strip_stops_the_work_and_is_raised():
    before = blas_threads()
    for number in (1, 2):
        threads.set_threads(number)
        done = []

        def strip(i, done=done):
            if i == 3:
                raise ValueError("strip 3 is bad")
            done.append(i)

        with pytest.raises(ValueError, match="strip 3 is bad"):
            threads.run_strips(strip, [(i,) for i in range(10_000)])
        assert len(done) < 9_999
        assert blas_threads() == before


@pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 keeps errstate for each thread")
def test_the_callers_errstate_holds_in_every_thread():
    threads.set_threads(2)
    seen = {}
    both = threading.Barrier(2)

    def strip(i):
        both.wait(30)  # one strip for each thread
        seen[threading.get_ident()] = np.geterr()["over"]

    with np.errstate(over="ignore"):
        threads.run_strips(strip, [(0,), (1,)])
    assert list(seen.values()) == ["ignore", "ignore"]


def test_set_threads_refuses_zero():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        threads.set_threads(0)
    threads.set_threads(None)
    assert threads.get_threads() == threads.available_cpus()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_the_work_at_once_and_restores_blas():
    program = """
import numpy as np
from threadpoolctl import threadpool_info
from layers2 import ConvolutionalLayer
from fast import strips as threads
threads.set_threads(2)
layer = ConvolutionalLayer(3, 32, 32, 1, 1)
layer.init_param("he", 0)
x = np.zeros((1, 32, 64, 64), np.float32)
before = [pool["num_threads"] for pool in threadpool_info()]
print("ready", flush=True)
try:
    while True:
        layer.forward(x)
except KeyboardInterrupt:
    assert [pool["num_threads"] for pool in threadpool_info()] == before
    layer.forward(x)
    print("interrupted")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # it is well inside the loop by then
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "interrupted\n")


def test_strips_of_rows_cover_every_row_once():
    for height in (1, 5, 16, 17):
        for rows in (0, 1, 4, 100):
            strips = threads.strips_of_rows(2, height, rows)
            for picture in range(2):
                mine = [range(y0, y1) for n, y0, y1 in strips if n == picture]
                assert [y for part in mine for y in part] == list(range(height))
                assert max(map(len, mine)) <= max(rows, 1)


def test_product_is_the_matrix_product():
    rng = np.random.default_rng(0)
    for rows in (1, 511, 1300):
        a, b = rng.standard_normal((rows, 7)), rng.standard_normal((7, 5))
        np.testing.assert_allclose(threads.product(a, b), a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "strips"), [((1, 1100, 1000), 2), ((2000, 600, 3), 4), ((3, 2, 600_000), 1172)]
)
def test_large_products_are_shared_as_strips(monkeypatch, shape, strips):
    run_strips, shared = threads.run_strips, []
    monkeypatch.setattr(
        threads, "run_strips", lambda f, each: (shared.append(len(each)), run_strips(f, each))
    )
    rng = np.random.default_rng(0)
    rows, middle, columns = shape
    a, b = rng.standard_normal((rows, middle)), rng.standard_normal((middle, columns))
    assert max(a.nbytes, b.nbytes) > threads.LARGE_MATRIX
    threads.set_threads(1)
    expected = threads.matmul(a, b)
    np.testing.assert_allclose(expected, a @ b, rtol=1e-12, atol=1e-12)
    for number in (2, 3):
        threads.set_threads(number)
        np.testing.assert_array_equal(threads.matmul(a, b), expected)  # to the last bit
    threads.matmul(a[:, :2], b[:2, :5])  # small
    assert shared == 3 * [strips]


def test_scratch_is_reused_by_its_thread_and_not_shared_with_others():
    first = threads.scratch("test", (4, 5), np.float32)
    assert np.shares_memory(first, threads.scratch("test", (3, 2), np.float64))
    assert not np.shares_memory(first, threads.scratch("test 2", (4, 5), np.float32))
    others = []
    thread = threading.Thread(
        target=lambda: others.append(threads.scratch("test", (4, 5), np.float32))
    )
    thread.start()
    thread.join()
    assert not np.shares_memory(first, others[0])


@pytest.mark.parametrize("row_bytes", [1, 100, 70_000, 1 << 20, 1 << 22])
def test_strips_of_bytes_cover_every_row_of_every_picture_once(row_bytes):
    for pictures in (1, 2, 7):
        for height in (1, 5, 16):
            strips = threads.strips_of_bytes(pictures, height, row_bytes)
            covered = np.zeros((pictures, height), int)
            for n, y0, y1 in strips:
                covered[n, y0:y1] += 1
                rows = (n.stop - n.start) * (y1 - y0)
                assert rows == 1 or rows * row_bytes <= threads.STRIP_BYTES
                assert n.stop - n.start == 1 or (y0, y1) == (0, height)
            assert (covered == 1).all()
            assert len(strips) >= min(pictures, 2)


def test_available_cpus_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", {0: {1, 4, 5}}.get, raising=False)
    assert threads.available_cpus() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # not Linux
    for found, expected in ((5, 5), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert threads.available_cpus() == expected

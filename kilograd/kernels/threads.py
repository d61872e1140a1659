"""Two cores, one loop: a batch is cut in slices, and each thread runs the whole kernel on its slice.

NumPy copies and adds on one core; only its BLAS uses more. A convolution is half copies, so the cores are
better used from outside: every slice goes through copy, GEMM and copy back on its own core, with BLAS held
to one thread meanwhile (OpenBLAS serialises parallel callers otherwise). Where the bundled BLAS cannot be
told so, everything runs on the calling thread, with the same results.

Also here: `scratch`, per-thread memory that a kernel may scribble on, kept between calls because fresh
pages cost more than the arithmetic done on them.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import numpy as np

MOST = 16  # threads; more would wait for Python's lock, which every NumPy call takes twice
BUFFER = 2048  # elements
_KEEP = 1 << 24  # scratch larger than this many bytes is not kept between calls
_local = threading.local()
# One parallel region at a time; a second caller runs its slices itself.
_busy: Any = threading.RLock()
_pool: ThreadPoolExecutor | None = None


def cores() -> int:
    """How many cores this process may use, whatever the environment asks for."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cores() -> int:
    for variable in ("KILOGRAD_NUM_THREADS", "OMP_NUM_THREADS"):
        first = os.environ.get(variable, "").split(",")[0].strip()  # OpenMP allows a list of levels
        if first.isdigit():
            return max(1, int(first))
    return cores()


def _blas_control() -> tuple[Callable[[int], Any], Callable[[], int]] | None:
    """OpenBLAS's (set, get) number of threads from the library NumPy ships, or None."""
    here = os.path.dirname(np.__file__)
    for path in glob.glob(here + ".libs/*openblas*") + glob.glob(here + "/.dylibs/*openblas*"):
        with contextlib.suppress(OSError):
            lib = ctypes.CDLL(path)
            for name in ("scipy_openblas_%s_num_threads64_", "openblas_%s_num_threads"):
                if hasattr(lib, name % "set") and hasattr(lib, name % "get"):
                    return getattr(lib, name % "set"), getattr(lib, name % "get")
    return None


_blas = _blas_control()
_workers = min(_cores(), MOST) if _blas else 1


def get_num_threads() -> int:
    """How many threads kernels are cut for.

    >>> get_num_threads() >= 1
    True
    """
    return _workers


def set_num_threads(n: int) -> None:
    """Use n threads here and in BLAS (here one, where BLAS cannot be told)."""
    global _workers, _pool
    if n < 1:
        raise ValueError(f"set_num_threads expects a positive integer, got {n}")
    with _busy:
        if _blas is not None:
            _blas[0](n)
            _workers = min(n, MOST)
            _pool = None  # made anew, as large as needed; the old one ends with its last reference


_deterministic = False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Give the same bits for the same call, whatever else the process does.

    Without it two things may change the rounding of a result: an op on small arrays that has been called
    some hundred times is run natively from then on (on large arrays it always is), and a call that finds
    the threads at work for another Python thread does not wait for them. Both are off with it. Results
    depend on the number of threads still; from run to run they are the same in either mode.

    ``warn_only`` is PyTorch's argument; there is nothing to warn of.

    >>> use_deterministic_algorithms(True)
    >>> are_deterministic_algorithms_enabled()
    True
    >>> use_deterministic_algorithms(False)
    """
    global _deterministic
    _deterministic = bool(mode)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether :func:`use_deterministic_algorithms` is on."""
    return _deterministic


def _forget_pool() -> None:
    """After a fork the child has none of the pool's threads (data-loader workers)."""
    global _pool, _busy
    _pool, _busy = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _unbuffered(f: Callable[[int, int], Any], start: int, stop: int) -> Any:
    """f(start, stop) while ufuncs do not copy short rows of strided arrays to their buffer first.

    They do when a row is shorter than a fraction of the buffer (8192 elements unless told otherwise), for
    no gain where nothing is cast: adding two views by rows of 1000 is three times slower for it.
    """
    before = np.setbufsize(BUFFER)
    try:
        return f(start, stop)
    finally:
        np.setbufsize(before)


def sliced(f: Callable[[int, int], Any], n: int, work: float = math.inf) -> list[Any]:
    """[f(0, a), f(a, b), …] over consecutive slices of range(n), one per core; in order.

    work: a rough count of the elements touched; little work is not worth waking a thread for.

    >>> sum(sliced(lambda start, stop: sum(range(start, stop)), 100))
    4950
    """
    global _pool
    parts = min(_workers, n)
    alone = parts < 2 or work < 1 << 17 or _busy._is_owned()  # owned: in a signal's handler
    if alone or not _busy.acquire(blocking=_deterministic):
        return [_unbuffered(f, 0, n)]
    assert _blas is not None
    set_threads, get_threads = _blas
    before = get_threads()
    try:
        if _pool is None:
            _pool = ThreadPoolExecutor(_workers - 1, thread_name_prefix="kilograd")
        set_threads(1)
        cuts = [n * i // parts for i in range(parts + 1)]
        futures = [_pool.submit(_unbuffered, f, a, b) for a, b in pairwise(cuts[1:])]
        try:
            first = _unbuffered(f, 0, cuts[1])
        finally:
            wait(futures)
        return [first, *(future.result() for future in futures)]
    finally:
        set_threads(before)
        _busy.release()


def scratch(slot: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uninitialised (*shape) memory of this thread; the next call with the same slot reuses it.

    >>> scratch("doc", (2, 3), np.float32).shape
    (2, 3)
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size > _KEEP:
        return np.empty(shape, dtype)
    slots = _local.__dict__
    memory = slots.get(slot)
    if memory is None or memory.size < size:
        memory = slots[slot] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)

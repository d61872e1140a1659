"""Memory for large arrays: aligned to pages, and used again.

The system hands out large memory as pages that are cleared one by one when they are first touched, which
takes longer than an addition over them, and NumPy's arrays begin wherever the allocator likes. Arrays from
``empty`` begin at a page, so that vectors do not straddle cache lines, and their memory goes back to a
pool when the last array over it is gone.

The pool makes a process hold at most a quarter more than it once needed at a time: a training step uses the same
memory every time, while a program that has become smaller gives the rest back after a while.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np

SMALLEST = 1 << 17  # bytes: below, NumPy's own allocator is quicker
SPARE = 1 << 25  # bytes that may be held, however little was ever in use
# A forked process gets a copy of its own: shared memory would be written to by both.
_PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
FORGET = 1 << 14  # so many frees after which the most that was in use is forgotten
_free: dict[int, list[Any]] = {}  # size → memory of that size, the last used at the end
_bytes = [0, 0, 0]  # in use, free, and the most that were in use lately
_frees = 0


class Block(np.ndarray):
    """What the arrays over one piece of memory have as their base; with it, the memory is free."""

    def __del__(self) -> None:
        if isinstance(self.base, mmap.mmap):  # and no view of a Block
            _give(self.base)


def size_class(size: int) -> int:
    """How many bytes are had for ``size``: at most an eighth more, so that sizes meet again.

    >>> size_class(200_000), size_class(6_000_000)
    (212992, 6291456)
    """
    step = max(1 << (size.bit_length() - 4), mmap.PAGESIZE)
    return -(-size // step) * step


def _give(memory: Any) -> None:
    global _frees
    size = len(memory)
    _bytes[0] -= size
    _bytes[1] += size
    _free.setdefault(size, []).append(memory)
    _frees += 1
    if _frees > FORGET:
        _frees, _bytes[2] = 0, _bytes[0]
    most = max(SPARE, _bytes[2] + _bytes[2] // 4)  # sizes do not always meet again
    if _bytes[0] + _bytes[1] > most:
        trim(most - _bytes[0])


def trim(most: int = 0) -> None:
    """Give back to the system what is free beyond so many bytes, beginning with the sizes not used now."""
    for size in list(_free):
        kept = _free.get(size)
        while kept and _bytes[1] > most:
            with contextlib.suppress(IndexError):  # another thread took it
                kept.pop(0)
                _bytes[1] -= size
        if not kept:
            _free.pop(size, None)
        if _bytes[1] <= most:
            return


def _take(size: int) -> Any:
    """Free memory of exactly this size, or None."""
    kept = _free.get(size)
    try:
        memory = kept.pop() if kept else None
    except IndexError:  # another thread was quicker
        return None
    if memory is not None:
        _bytes[1] -= size
        if not kept:  # it comes last when it is back: used later than the others
            _free.pop(size, None)
    return memory


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-ordered array.

    >>> empty((3, 100_000), np.dtype(np.float32)).ctypes.data % 64
    0
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    size = size_class(size)
    memory = _take(size)
    if memory is None:
        near = [n for n in list(_free) if size < n <= 2 * size]
        memory = _take(min(near)) if near else None
    if memory is None:
        memory = mmap.mmap(-1, size, **_PRIVATE)
        if size >= 1 << 21 and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):
                memory.madvise(mmap.MADV_HUGEPAGE)
    size = len(memory)
    _bytes[0] += size
    if _bytes[0] > _bytes[2]:
        _bytes[2] = _bytes[0]
    return np.ndarray(shape, dtype, np.ndarray.__new__(Block, (size,), np.uint8, memory))


def is_own(array: np.ndarray) -> bool:
    """Whether an array is the whole of its memory: made as such, and not a view of another.

    >>> a = empty((1 << 20,), np.dtype(np.uint8))
    >>> is_own(a), is_own(a[1:]), is_own(np.ones(2))
    (True, False, True)
    """
    base = array.base
    return base is None or type(base) is Block

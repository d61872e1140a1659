"""Random numbers in native code, taken from the generator's own words, so that there is one stream.

A kernel is given the address of the Mersenne Twister's state: 624 words of 32 bits and the position
of the next one (NumPy's ``mt19937_state``). It takes the words that ``kilograd.random`` would take,
turns them into the same numbers bit for bit, and leaves the state as that would.

Whoever runs a plan with these holds the generator's lock, and notes that the generator was used.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.kernels import threads
from kilograd.kernels.memory import empty
from kilograd.kernels.native.build import Kernel, T, _c_function, f64, inline, native, share
from kilograd.kernels.native.plan import FLOATS, size
from kilograd.kernels.native.vectors import VectorKernel
from kilograd.kernels.normals import COS, LOG, LOG2_HIGH, LOG2_LOW, QUARTER_PI, SIN, SQRT_HALF_BITS

_CHUNK = 1248  # words taken at a time: they stay in the first-level cache


@inline
def twisted(a, b):
    """What two neighbouring words contribute to the first one's successor."""
    y = (a & 0x80000000) | (b & 0x7FFFFFFF)
    return (y >> 1) ^ ((0 - (b & 1)) & 0x9908B0DF)


@inline
def twist(key):
    """The next 624 words from the last (Matsumoto & Nishimura, 1998), untempered."""
    for i in range(227):
        key[i] = key[i + 397] ^ twisted(key[i], key[i + 1])
    for i in range(227, 623):
        key[i] = key[i - 227] ^ twisted(key[i], key[i + 1])
    key[623] = key[396] ^ twisted(key[623], key[0])


@inline
def take_words(key, position, words, n):
    """The next n words of the stream; the position stands behind the words."""
    at, done = position[624], 0
    while done < n:
        if at >= 624:
            twist(key)
            at = 0
        some = min(n - done, 624 - at)
        for i in range(some):
            y = key[at + i]
            y ^= y >> 11
            y ^= (y << 7) & 0x9D2C5680
            y ^= (y << 15) & 0xEFC60000
            words[done + i] = y ^ (y >> 18)
        done += some
        at += some
    position[624] = at


@inline
def bits_of_pair(pair):
    """53 bits of two words: the low 21 of the first one, then all of the second."""
    return ((pair & 0x1FFFFF) << 32) | ((pair >> 32) & 0xFFFFFFFF)


@native(
    "u32* key, i32* position, u32* words, i64* pairs, T* y, i64 n, i64 bound, T scale"
)  # fmt: skip
def draw_mask(key, position, words, pairs, y, n, bound, scale):
    """``scale`` where a float64 draw is below bound 2⁻⁵³, else 0; ``pairs`` are the words again."""
    for start in range(0, n, _CHUNK // 2):
        some = min(_CHUNK // 2, n - start)
        take_words(key, position, words, 2 * some)
        for i in range(some):
            y[start + i] = scale if bits_of_pair(pairs[i]) < bound else T(0)


@native(
    "u32* key, i32* position, u32* words, T* y, i64 n, i64 moved, f64 factor, f64 low, f64 high"
)
def draw_float32(key, position, words, y, n, moved, factor, low, high):
    """Numbers in [0, 1) from 24 bits of a word each; where ``moved``, in [low, high)."""
    for start in range(0, n, _CHUNK):
        some = min(_CHUNK, n - start)
        take_words(key, position, words, some)
        for i in range(some):
            y[start + i] = T(np.int32(words[i] & 0xFFFFFF)) * T(2.0**-24)
        if moved:
            for i in range(start, start + some):
                x = T(f64(y[i]) * factor + low)
                y[i] = T(low) if x == T(high) else x  # rounding may have reached the open end


def _draw_float64(key, position, words, pairs, y, n, moved, factor, low, high):
    """Numbers in [0, 1) from 53 bits of two words each; where ``moved``, in [low, high).

    x factor + low is rounded once: the errors of product and sum are found (Dekker, Knuth) and added
    back, with the very operations of the eager draw. None of them may be fused or left out.
    """
    for start in range(0, n, _CHUNK // 2):
        some = min(_CHUNK // 2, n - start)
        take_words(key, position, words, 2 * some)
        for i in range(some):
            y[start + i] = f64(bits_of_pair(pairs[i])) * 2.0**-53
        if moved:
            f_high = factor * 134217729.0 - (factor * 134217729.0 - factor)
            f_low = factor - f_high
            for i in range(start, start + some):
                x = y[i]
                product = x * factor
                x_high = x * 134217729.0 - (x * 134217729.0 - x)
                x_low = x - x_high
                lost = x_low * f_low - (
                    ((product - x_high * f_high) - x_low * f_high) - x_high * f_low
                )
                lost = 0.0 if factor == 1.0 else lost
                total = product + low
                added = total - product
                z = total + ((product - (total - added)) + (low - added) + lost)
                z = product if low == 0.0 else z
                y[i] = low if z == high else z


draw_float64 = Kernel(
    _draw_float64,
    "u32* key, i32* position, u32* words, i64* pairs, T* y, i64 n, i64 moved, f64 factor, f64 low,"
    "f64 high",
    set(),
)


PIECE = 512  # pairs that are worked on at a time


fma: Any = None  # fma(x, y, z): x y + z, rounded once


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """``fma``, on single numbers: loops of it become vectors."""
    from numba.extending import intrinsic

    @intrinsic
    def fma(typing_context, x, y, z):
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fma(*args)

        return x(x, x, x), generate

    return {"fma": fma}


def _normals(y, n, a, bits, b, sine, exponent, moved, mean, std, part, parts):
    """Uniform float32 numbers turned into normal ones, in place, by sixteen (n is a multiple).

    Operation by operation what ``random._log`` and ``random._sine_and_cosine`` do: what they round once is an
    ``fma``, as in PyTorch, and nothing else may be fused. The other arrays are scratch for PIECE numbers a
    thread; ``bits`` is ``a`` again.
    """
    start, stop = share(n // 16, part, parts)
    low = part * PIECE
    for first in range(16 * start, 16 * stop, 2 * PIECE):
        pairs = min(PIECE, (16 * stop - first) // 2)
        for k in range(0, pairs, 8):
            for i in range(8):
                a[low + k + i] = T(1) - y[first + 2 * k + i]
                b[low + k + i] = y[first + 2 * k + 8 + i] * T(2.0 * math.pi)
        for k in range(low, low + pairs):
            whole = np.int32(np.int32(bits[k] - SQRT_HALF_BITS) >> 23)
            exponent[k] = whole
            bits[k] = np.int32(bits[k] - np.int32(whole << 23))
        for k in range(low, low + pairs):
            x = a[k] - T(1)
            e = T(exponent[k])
            z = x * x
            p = T(LOG[0])
            p = fma(p, x, T(LOG[1]))
            p = fma(p, x, T(LOG[2]))
            p = fma(p, x, T(LOG[3]))
            p = fma(p, x, T(LOG[4]))
            p = fma(p, x, T(LOG[5]))
            p = fma(p, x, T(LOG[6]))
            p = fma(p, x, T(LOG[7]))
            p = fma(p, x, T(LOG[8]))
            p = fma(p * x, z, e * T(LOG2_LOW))
            x += p - z * T(0.5)
            x += e * T(LOG2_HIGH)
            a[k] = math.sqrt(x * T(-2))
        for k in range(low, low + pairs):
            octant = np.int32((np.int32(b[k] * T(4.0 / math.pi)) + 1) & -2)
            j = T(octant)
            x = b[k] - j * T(QUARTER_PI[0])
            x -= j * T(QUARTER_PI[1])
            x = fma(-j, T(QUARTER_PI[2]), x)
            z = x * x
            c = fma(fma(T(COS[0]), z, T(COS[1])), z, T(COS[2])) * z
            s = fma(fma(T(SIN[0]), z, T(SIN[1])), z, T(SIN[2])) * z
            cosine = fma(c, z, -(z * T(0.5))) + T(1)
            sine_ = fma(s, x, x)
            swapped = (octant & 2) != 0
            p = sine_ if swapped else cosine
            q = cosine if swapped else sine_
            b[k] = -p if ((octant + 2) & 4) != 0 else p
            sine[k] = -q if (octant & 4) != 0 else q
        for k in range(0, pairs, 8):
            for i in range(8):
                y[first + 2 * k + i] = a[low + k + i] * b[low + k + i]
                y[first + 2 * k + 8 + i] = a[low + k + i] * sine[low + k + i]
        if moved:
            for k in range(first, first + 2 * pairs):
                y[k] = fma(y[k], T(std), T(mean))


normals = VectorKernel(
    _normals,
    "T* y, i64 n, T* a, i32* bits, T* b, T* sine, i32* exponent, i64 moved, f64 mean, f64 std",
    set(),
)


@native("T* y, i64 n, T value")
def fill(y, n, value, part, parts):
    """One value everywhere."""
    start = n * part // parts
    for i in range(start, n * (part + 1) // parts):
        y[i] = value


def _words(plan: Any) -> Any:
    return plan.empty((_CHUNK // 2,), np.dtype(np.int64))


def dropout_mask(plan: Any, state_address: int, shape: Any, p: float, dtype: Any) -> Any:
    """``random.dropout_mask``: 0 with probability p, else 1 / (1 - p). p = 0 and p = 1 draw nothing."""
    dtype = np.dtype(dtype)
    if dtype not in FLOATS or not 0 <= p <= 1:
        return NotImplemented
    y = plan.empty(tuple(shape), dtype)
    if p in (0, 1):
        plan.call(fill, y, size(shape), float(1 - p), dtype=dtype, work=size(shape))
        return y
    words, wide = _words(plan), dtype.type
    plan.call(
        draw_mask, state_address, state_address, words, words, y, size(shape),
        math.ceil((1.0 - p) * 2**53), float(wide(1) / wide(1.0 - p)), dtype=dtype,
        work=3 * size(shape),
    )  # fmt: skip
    return y


def uniform(
    plan: Any, state_address: int, shape: Any, low: float = 0.0, high: float = 1.0,
    dtype: Any = np.float32,
) -> Any:  # fmt: skip
    """``random.uniform``: numbers in [low, high)."""
    dtype = np.dtype(dtype)
    if dtype not in FLOATS:
        return NotImplemented
    largest = float(np.finfo(dtype).max)
    if not (-largest <= low <= high <= largest and high - low <= largest):
        return NotImplemented  # NumPy's version says what is wrong
    y, words, wide = plan.empty(tuple(shape), dtype), _words(plan), dtype.type
    moved, factor = (low, high) != (0.0, 1.0), float(wide(high) - wide(low))
    single = dtype == np.float32
    plan.call(
        draw_float32 if single else draw_float64, state_address, state_address, words,
        *(() if single else (words,)), y, size(shape), moved, factor, float(wide(low)),
        float(wide(high)), dtype=dtype, work=3 * size(shape),
    )  # fmt: skip
    return y


# --- at once: what ``random`` calls for large arrays ----------------------------------------------


def uniform_now(state_address: int, n: int, dtype: Any) -> np.ndarray:
    """``Generator._uniform`` for float32 and float64."""
    if n <= 16 * PIECE and dtype == np.float32:
        y = _few_uniforms()(state_address, n)
        if y is not None:
            return y
    y, words = empty((n,), dtype), np.empty(_CHUNK // 2, np.int64)
    more = (n, 0, 1.0, 0.0, 1.0)
    if dtype == np.float32:
        draw_float32(state_address, state_address, words, y, *more, dtype=dtype)
    else:
        draw_float64(state_address, state_address, words, words, y, *more, dtype=dtype)
    return y


def mask_now(state_address: int, n: int, p: float, dtype: Any) -> np.ndarray:
    """``random.dropout_mask`` for 0 < p < 1, float32 and float64."""
    y, words, wide = empty((n,), dtype), np.empty(_CHUNK // 2, np.int64), dtype.type
    bound, scale = math.ceil((1.0 - p) * 2**53), float(wide(1) / wide(1.0 - p))
    draw_mask(state_address, state_address, words, words, y, n, bound, scale, dtype=dtype)
    return y


def normals_now(y: np.ndarray, mean: float, std: float) -> np.ndarray:
    """``random._normals_by_sixteen`` for float32: y (a multiple of 16) is turned in place."""
    moved = (mean, std) != (0.0, 1.0)
    if y.size <= 16 * PIECE and _few_normals()(y, moved, mean, std):  # not worth a second thread
        return y
    parts = threads.get_num_threads()
    a, b, sine, exponent = (np.empty(parts * PIECE, np.float32) for _ in range(4))
    numbers = float(np.float32(mean)), float(np.float32(std))
    table = normals.pack((y, y.size, a, a, b, sine, exponent, moved, *numbers), np.float32)
    run = _c_function(normals.address(np.float32))
    threads.sliced(
        lambda start, stop: [run(table.ctypes.data, k, parts) for k in range(start, stop)],
        parts, 4 * y.size,
    )  # fmt: skip
    return y


@functools.cache
def _few_uniforms() -> Callable[[int, int], np.ndarray | None]:
    """The same for a few float32 numbers: with a table that is always there; None while it is in use.

    (By another thread, or by the one that a signal's handler has interrupted.)
    """
    words = np.empty(_CHUNK // 2, np.int64)
    table = draw_float32.pack((0, 0, words, None, 0, 0, 1.0, 0.0, 1.0), np.float32)
    cells: Any = memoryview(table)  # type: ignore[arg-type]
    run, at, lock = (
        _c_function(draw_float32.address(np.float32)),
        table.ctypes.data,
        threading.Lock(),
    )

    def few(state_address: int, n: int) -> np.ndarray | None:
        assert words.size
        y = np.empty(n, np.float32)
        if not lock.acquire(False):
            return None
        try:
            cells[0] = cells[1] = state_address
            cells[3], cells[4] = y.ctypes.data, n
            run(at, 0, 1)
        finally:
            lock.release()
        return y

    return few


@functools.cache
def _few_normals() -> Callable[..., bool]:
    """The same for a few numbers, with a table and memory that are always there; False while in use."""
    scratch = [np.empty(PIECE, np.float32) for _ in range(4)]
    a, b, sine, exponent = scratch
    table = normals.pack((None, 0, a, a, b, sine, exponent, 0, 0.0, 0.0), np.float32)
    integers: Any = memoryview(table)  # type: ignore[arg-type]
    floats: Any = memoryview(table.view(np.float64))  # type: ignore[arg-type]
    run, at, lock = _c_function(normals.address(np.float32)), table.ctypes.data, threading.Lock()

    def few(y: np.ndarray, moved: bool, mean: float, std: float) -> bool:
        assert scratch
        if not lock.acquire(False):
            return False
        try:
            integers[0], integers[1], integers[7] = y.ctypes.data, y.size, moved
            floats[8], floats[9] = float(np.float32(mean)), float(np.float32(std))
            run(at, 0, 1)
        finally:
            lock.release()
        return True

    return few

"""Random numbers in native code, taken from the generator's own words, so that there is one stream.

A kernel is given the address of the Mersenne Twister's state: 624 words of 32 bits and the position
of the next one (NumPy's ``mt19937_state``). It takes the words that ``kilograd.random`` would take,
turns them into the same numbers bit for bit, and leaves the state as that would.

Whoever runs a plan with these holds the generator's lock, and notes that the generator was used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels.native.build import Kernel, T, f64, inline, native
from kilograd.kernels.native.plan import FLOATS, size

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

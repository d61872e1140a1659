"""Every random number in the library, the same ones PyTorch draws on the CPU.

The one idea: a :class:`Generator` is a stream of 32-bit words (the Mersenne Twister of Matsumoto &
Nishimura, 1998), and every draw is a fixed recipe that takes words off the stream in a fixed order
and turns them into numbers. Same seed, same words, same recipe: the same initial weights, shuffles
and dropout masks as PyTorch, bit for bit. The recipes run on whole arrays at a time.

Everything here takes and returns NumPy arrays and Python numbers; a draw is
``f(generator, ...)``, and ``None`` in place of a generator means :data:`default_generator`.

>>> _ = manual_seed(0)
>>> uniform(None, 3)            # torch.manual_seed(0); torch.rand(3)
array([0.4962566 , 0.7682218 , 0.08847743], dtype=float32)
>>> permutation(None, 5)        # torch.randperm(5)
array([0, 4, 2, 1, 3])

What differs
------------
The reference is PyTorch 2.13 on an x86-64 processor with AVX2. Against it:

* ``poisson`` follows NumPy's recipe on the same stream, not PyTorch's: how many words PyTorch takes
  for an element depends on the elements before it, which no whole-array recipe can follow. It has
  the same distribution and is as repeatable, but it gives other numbers and leaves the generator
  elsewhere in the stream.
* ``normal`` in float32 and float16 repeats the polynomials of PyTorch's AVX2 code, fused
  multiply-adds included. Where NumPy does it they are emulated by rounding a float64 result, which
  may differ in the last bit in very rare cases (none among 2·10⁸ float32 numbers compared). PyTorch on ARM, or on a
  processor without AVX2, uses other polynomials: its last bits differ from those of its own x86
  build, and of this module.
* float64 results that go through ``log``, ``log1p``, ``exp``, ``tan``, ``sin`` or ``cos`` are those
  of the C library NumPy calls: equal to PyTorch's where both run on the same one (glibc), and within
  1–2 units in the last place otherwise. float32 and float16 results hide the difference.
* ``tensor.normal_()`` on 16 or more elements of a tensor that is not contiguous: PyTorch then draws
  one value at a time; this module draws as for a contiguous one.
* Other versions of PyTorch: builds before 2.13 may draw ``bernoulli`` with one scalar probability
  (hence dropout) and ``exponential`` (hence ``multinomial``) from an Intel MKL stream, switch
  ``randint`` to 64-bit words at a range of 2³² rather than 2²⁸, and fill ``trunc_normal_`` by the
  inverse error function rather than by rejection.
* ``multinomial`` without replacement in float16: among indices that arrive at the same float16
  time, PyTorch's order is that of an unstable sort; here it is another.
* ``randint`` into a floating dtype refuses bounds that the dtype cannot count to exactly (beyond
  2¹¹, 2²⁴, 2⁵³), where PyTorch warns.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from kilograd.kernels.kernel import LARGE, TRACE
from kilograd.kernels.normals import (
    COS,
    LOG,
    LOG2_HIGH,
    LOG2_LOW,
    QUARTER_PI,
    SIN,
    SQRT_HALF_BITS,
)

__all__ = [
    "Generator",
    "bernoulli",
    "cauchy",
    "default_generator",
    "dropout_mask",
    "exponential",
    "fork_rng",
    "full_range_integers",
    "geometric",
    "get_rng_state",
    "initial_seed",
    "log_normal",
    "manual_seed",
    "multinomial",
    "normal",
    "permutation",
    "poisson",
    "random_integers",
    "seed",
    "set_rng_state",
    "trunc_normal",
    "uniform",
]

Size = int | Sequence[int]
F = TypeVar("F", bound=Callable[..., Any])

_CHUNK = 16384  # numbers worked on at a time where there are many: they stay in the cache

# --------------------------------------------------------------------------------- the generator

# What PyTorch's get_state() returns, 5056 bytes: left and next are two views of one position.
_STATE = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),  # words left before the next twist, plus one
        ("seeded", "<i4"),
        ("next", "<u8"),  # index of the next word in key
        ("key", "<u8", 624),
        ("normal_x", "<f8"),
        ("spare_normal", "<f8"),
        ("normal_rho", "<f8"),
        ("has_spare_normal", "<i4"),
        ("padding", "<i4"),
        ("spare_float", "<f4"),
        ("has_spare_float", "?"),
        ("more_padding", "V3"),
    ]
)


def draw(fn: F) -> F:
    """Declare what reads or moves a generator: while a step is being recorded, a step of its program."""

    @functools.wraps(fn)
    def call(generator: Generator | None, *args: Any, **kwargs: Any) -> Any:
        trace = TRACE.get()
        if trace is None:
            return fn(generator, *args, **kwargs)
        return trace.draw(fn, generator or default_generator, args, kwargs)

    return call  # type: ignore[return-value]


class Generator:
    """A stream of random words with a seed and a position: ``torch.Generator`` on the CPU.

    ``get_state()`` is PyTorch's own layout, so that a state can be handed from one library to the
    other in either direction. One generator may be shared between threads: each draw is atomic.

    >>> g = Generator().manual_seed(1)
    >>> saved = g.get_state()
    >>> first, _ = uniform(g, 2), g.set_state(saved)
    >>> bool((uniform(g, 2) == first).all())
    True
    """

    def __init__(self, device: object = "cpu") -> None:
        if str(device).split(":")[0] != "cpu":
            raise RuntimeError(f"Generator lives on the CPU; there is no generator for {device!r}")
        self.device = "cpu"
        self._lock = threading.RLock()
        self._twister = np.random.MT19937()
        self._draw = np.random.RandomState(self._twister)  # the same stream, seen as NumPy's draws
        self.manual_seed(67280421310721)  # PyTorch's default seed

    @draw
    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream at ``seed``, in [-2⁶³, 2⁶⁴); the twister itself sees the low 32 bits."""
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"Overflow when unpacking long long: seed {seed} needs over 64 bits")
        with self._lock:
            self._seed = seed % 2**64  # negative seeds are their two's complement
            self._draw.seed(seed % 2**32)
            self._untouched = True  # PyTorch's state tells a new stream from one twisted 624 times
            self._spare_normal: float | None = None
            self._spare_float: float | None = None  # carried for PyTorch's sake; the CPU uses none
        return self

    def initial_seed(self) -> int:
        """The seed that started the stream."""
        return self._seed

    @draw
    def seed(self) -> int:
        """Start at a seed from the operating system's randomness, and return it."""
        seed = secrets.randbits(64)
        self.manual_seed(seed)
        return seed

    @draw
    def get_state(self) -> np.ndarray:
        """Where the stream is: 5056 bytes, as ``torch.Generator.get_state()`` gives them."""
        with self._lock:
            twister: Any = self._twister.state["state"]
            position = 0 if self._untouched else int(twister["pos"])
            state = np.zeros((), _STATE)
            state["seed"] = self._seed
            state["left"] = 1 if self._untouched else 625 - position
            state["seeded"] = 1
            state["next"] = position
            state["key"] = twister["key"]
            if self._spare_normal is not None:
                state["has_spare_normal"], state["spare_normal"] = 1, self._spare_normal
            if self._spare_float is not None:
                state["has_spare_float"], state["spare_float"] = True, self._spare_float
        return np.frombuffer(state.tobytes(), np.uint8).copy()

    @draw
    def set_state(self, new_state: np.ndarray) -> Generator:
        """Go to where a ``get_state()`` was taken, here or in PyTorch."""
        new_state = np.asarray(new_state)
        if new_state.dtype != np.uint8:
            raise TypeError(f"RNG state must be an array of uint8, but got {new_state.dtype}")
        if new_state.size != _STATE.itemsize:
            raise RuntimeError(
                f"Expected an RNG state of size {_STATE.itemsize} but found {new_state.size}"
            )
        state = np.frombuffer(new_state.tobytes(), _STATE)[0]
        position, left = int(state["next"]), int(state["left"])
        untouched = (position, left) == (0, 1)
        if not state["seeded"] or not (untouched or 1 <= left == 625 - position <= 624):
            raise RuntimeError("Invalid mt19937 state")
        with self._lock:
            self._twister.state = {
                "bit_generator": "MT19937",
                "state": {
                    "key": state["key"].astype(np.uint32),
                    "pos": 624 if untouched else position,
                },
            }
            self._untouched = untouched
            self._seed = int(state["seed"])
            self._spare_normal = float(state["spare_normal"]) if state["has_spare_normal"] else None
            self._spare_float = float(state["spare_float"]) if state["has_spare_float"] else None
        return self

    def clone_state(self) -> Generator:
        """A new generator that will draw what this one would."""
        return Generator().set_state(self.get_state())

    def __reduce__(self) -> tuple[Callable[[np.ndarray], Generator], tuple[np.ndarray]]:
        return _restored, (self.get_state(),)  # pickling and copying: a lock can do neither

    def __repr__(self) -> str:
        return f"<kilograd.Generator device={self.device!r} initial_seed={self._seed}>"

    # The stream itself. Callers hold the lock.

    def _words(self, n: int) -> np.ndarray:
        """The next n words, uint32."""
        if n:
            self._untouched = False
        if n < 4096:  # two roads to the same words: this one starts faster, that one runs faster
            return self._twister.random_raw(n).astype(np.uint32)
        return self._draw.randint(0, 2**32, n, dtype=np.uint32)

    def _long_words(self, n: int) -> np.ndarray:
        """The next n pairs of words as uint64, the first of a pair in the high half."""
        words = self._words(2 * n).astype(np.uint64)
        high = words[0::2]
        high <<= np.uint64(32)
        return high | words[1::2]

    def _uniform(self, n: int, dtype: np.dtype) -> np.ndarray:
        """n numbers in [0, 1): float64 from the low 53 bits of two words, float32 from 24 of one."""
        if n and _worth(n) and dtype.itemsize > 2 and native():
            self._untouched = False
            return native().uniform_now(self._twister.ctypes.state_address, n, dtype)
        if n > _CHUNK:  # by pieces that stay in the cache
            numbers = np.empty(n, np.promote_types(dtype, np.float32))
            for start in range(0, n, _CHUNK):
                piece = numbers[start : start + _CHUNK]
                piece[:] = self._uniform(len(piece), dtype)
            return numbers
        if dtype == np.float64:
            words = self._words(2 * n)
            high, low = words[0::2] & np.uint32(2**21 - 1), words[1::2]
            return high * 2.0**-21 + low * 2.0**-53  # exact: 21 + 32 bits side by side
        words = self._words(n)
        words &= np.uint32(2**24 - 1)
        numbers = words.view(np.int32).astype(np.float32)
        numbers *= np.float32(2.0**-24)
        return numbers


def _restored(state: np.ndarray) -> Generator:
    return Generator().set_state(state)


default_generator = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Seed :data:`default_generator`, and return it.

    >>> manual_seed(7).initial_seed()
    7
    """
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Seed :data:`default_generator` from the operating system, and return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of :data:`default_generator`."""
    return default_generator.initial_seed()


def get_rng_state() -> np.ndarray:
    """The state of :data:`default_generator`."""
    return default_generator.get_state()


def set_rng_state(new_state: np.ndarray) -> None:
    """Put :data:`default_generator` into a state that :func:`get_rng_state` returned."""
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: object = None, enabled: bool = True, device_type: str = "cpu"
) -> Iterator[None]:
    """What is drawn inside leaves :data:`default_generator` as it was, also after an exception.

    >>> _ = manual_seed(0)
    >>> with fork_rng():
    ...     inside = uniform(None, 1)
    >>> bool(uniform(None, 1) == inside)
    True
    """
    saved = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if saved is not None:
            set_rng_state(saved)


# ------------------------------------------------------------------------------------- arithmetic


_draws = itertools.count()


def _worth(n: int) -> bool:
    """Whether n numbers are drawn natively: they are the same, but the first time may compile."""
    return n >= LARGE.limit or (next(_draws) > 300 and LARGE.limit != math.inf)


@functools.cache
def native() -> Any:
    """``kernels.native.draws``, which does the same for large arrays many times faster, or None."""
    from kilograd.kernels.native import build

    if not build.available():
        return None
    from kilograd.kernels.native import draws

    return draws


def _c_library(function: np.ufunc, x: np.ndarray) -> np.ndarray:
    """A float64 function as the C library rounds it, which is how PyTorch's serial loops round it.

    NumPy's AVX-512 loops round differently in the last bit, and are not used on an array whose
    memory runs backwards into one that runs forwards; so the array is shown to it backwards.
    """
    if len(x) == 1:  # NumPy cannot see which way one element runs
        return _c_library(function, np.repeat(x, 2))[:1]
    result = np.empty(len(x))
    if len(x) > _CHUNK:
        for start in range(0, len(x), _CHUNK):
            piece = slice(start, start + _CHUNK)
            result[piece] = _c_library(function, x[piece])
        return result
    function(np.ascontiguousarray(x)[::-1], out=result)
    return result[::-1].copy()


def _multiply_add(x: np.ndarray, factor: float, term: float) -> np.ndarray:
    """``x * factor + term`` rounded once, as the fused instruction does it.

    In float32 the product is exact in float64. In float64 the rounding errors of the product
    (Dekker, 1971) and of the sum (Knuth's two-sum) are computed and added back.
    """
    if x.dtype == np.float32:
        factor, term = float(np.float32(factor)), float(np.float32(term))
        return (x.astype(np.float64) * factor + term).astype(np.float32)
    product = x * factor
    if term == 0.0:
        return product
    if factor != 1.0:
        split = 134217729.0  # 2²⁷ + 1 cuts 53 bits into two halves whose products are exact
        x_high = x * split - (x * split - x)
        f_high = factor * split - (factor * split - factor)
        x_low, f_low = x - x_high, factor - f_high
        lost: Any = x_low * f_low - (
            ((product - x_high * f_high) - x_low * f_high) - x_high * f_low
        )
    else:
        lost = 0.0
    total = product + term
    moved = total - product
    return total + ((product - (total - moved)) + (term - moved) + lost)


def _shape(size: Size) -> tuple[int, ...]:
    shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(shape)}")
    return tuple(int(n) for n in shape)


def _floating(dtype: DTypeLike, name: str) -> np.dtype:
    numpy_dtype = np.dtype(dtype)
    if numpy_dtype.kind != "f" or numpy_dtype.itemsize > 8:
        raise NotImplementedError(f"{name} draws floating-point numbers, not {numpy_dtype}")
    return numpy_dtype


def _cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 to dtype; to float16 by way of float32, rounding twice as PyTorch does."""
    with np.errstate(over="ignore"):  # a tail that float16 cannot hold is inf, as in PyTorch
        if dtype == np.float16:
            x = x.astype(np.float32)
        return x.astype(dtype, copy=False)


def _exact_integers(dtype: np.dtype) -> int:
    """How far a floating dtype counts without gaps: 2 to the number of its significant bits."""
    return int(2 ** (np.finfo(dtype).nmant + 1))


# ---------------------------------------------------------------------------------------- uniform


@draw
def uniform(
    generator: Generator | None,
    size: Size,
    low: float = 0.0,
    high: float = 1.0,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Numbers in [low, high): ``torch.rand``, ``tensor.uniform_``.

    float32 takes one word and keeps 24 bits, float64 takes two and keeps 53, complex numbers draw
    their parts one after the other.

    >>> uniform(Generator().manual_seed(0), (2, 2), dtype=np.float64).round(6)
    array([[0.970053, 0.70782 ],
           [0.459383, 0.920748]])
    """
    shape, dtype = _shape(size), np.dtype(dtype)
    if dtype.kind == "c":
        parts = uniform(generator, (*shape, 2), low, high, dtype=f"f{dtype.itemsize // 2}")
        return parts.view(dtype)[..., 0]
    dtype = _floating(dtype, "uniform")
    largest = float(np.finfo(dtype).max)
    for name, bound in ("from", low), ("to", high):
        if not -largest <= bound <= largest:
            raise RuntimeError(f"{name} is out of bounds for {dtype}")
    if low > high:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}"
        )
    if high - low > largest:
        raise RuntimeError(
            f"uniform_ expects to-from <= {largest}, but found to={high} and from={low}"
        )
    g = generator or default_generator
    with g._lock:
        numbers = g._uniform(math.prod(shape), dtype)
    if (low, high) != (0.0, 1.0):
        wide = numbers.dtype.type
        numbers = _multiply_add(numbers, float(wide(high) - wide(low)), low)
    if (low, high) != (0.0, 1.0) or dtype == np.float16:  # rounding may have reached the open end
        numbers = numbers.astype(dtype, copy=False)
        numbers[numbers == dtype.type(high)] = low
    return numbers.reshape(shape)


@draw
def bernoulli(
    generator: Generator | None,
    p: ArrayLike,
    size: Size | None = None,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """1 with probability p, else 0: ``torch.bernoulli``, ``tensor.bernoulli_``.

    One p for all compares a float64 draw with it (two words an element). An array of them compares
    a draw of the array's own precision; the result then has the array's shape (or ``size``, to which
    it is broadcast) and, unless ``dtype`` says otherwise, its dtype.

    >>> bernoulli(Generator().manual_seed(0), 0.3, size=8)
    array([0., 0., 0., 0., 0., 0., 1., 0.], dtype=float32)
    """
    g = generator or default_generator
    if isinstance(p, (float, int)):
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        shape = _shape(() if size is None else size)
        happened = _happens(g, math.prod(shape), float(p))
        return happened.reshape(shape).astype(np.float32 if dtype is None else dtype)
    p = np.asarray(p)
    precision = _floating(p.dtype, "bernoulli")
    shape = p.shape if size is None else _shape(size)
    if not ((p >= 0) & (p <= 1)).all():
        raise RuntimeError("bernoulli expects every p to be in [0, 1]")
    p = np.broadcast_to(p, shape)
    with g._lock:
        numbers = g._uniform(p.size, precision)
    return (numbers.reshape(shape) < p).astype(precision if dtype is None else dtype)


def _happens(g: Generator, n: int, p: float) -> np.ndarray:
    """``uniform float64 < p``, n times, on the integers the floats are made of."""
    bound_high, bound_low = divmod(math.ceil(p * 2**53), 2**32)
    with g._lock:
        words = g._words(2 * n)
    high, low = words[0::2] & np.uint32(2**21 - 1), words[1::2]
    happens = high < np.uint32(bound_high)
    undecided = high == np.uint32(bound_high)
    if undecided.any():  # once in two million
        happens |= undecided & (low < np.uint32(bound_low))
    return happens


@draw
def dropout_mask(
    generator: Generator | None, size: Size, p: float, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """0 with probability p, else 1/(1-p): what ``torch.nn.functional.dropout`` multiplies by.

    As in PyTorch, p = 0 and p = 1 draw nothing.

    >>> dropout_mask(Generator().manual_seed(0), 6, p=0.5)
    array([0., 0., 2., 0., 0., 0.], dtype=float32)
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    shape, dtype = _shape(size), _floating(dtype, "dropout_mask")
    if p in (0, 1):
        return np.full(shape, 1 - p, dtype)
    n = math.prod(shape)
    if n >= LARGE.limit and dtype.itemsize > 2 and native():
        g = generator or default_generator
        with g._lock:
            g._untouched = False
            return native().mask_now(g._twister.ctypes.state_address, n, p, dtype).reshape(shape)
    mask = bernoulli(generator, 1.0 - p, shape, dtype)
    wide = np.float32 if dtype == np.float16 else dtype.type
    mask *= dtype.type(wide(1) / wide(1.0 - p))
    return mask


# ----------------------------------------------------------------------------------------- normal


@draw
def normal(
    generator: Generator | None,
    size: Size | None = None,
    mean: ArrayLike = 0.0,
    std: ArrayLike = 1.0,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Normal numbers: ``torch.randn``, ``tensor.normal_``, ``torch.normal``.

    Box & Muller (1958): two uniform numbers are a radius √(-2 log u₁) and an angle 2πu₂, and the
    point they name has two independent normal coordinates. Sixteen or more numbers are made in
    blocks of sixteen, u₁ from a block's first half and u₂ from its second; the last block is drawn
    anew where the count is no multiple of sixteen. Fewer are made one pair at a time in float64,
    the second of a pair waiting in the generator for the next call.

    ``mean`` and ``std`` may be arrays; the size is then theirs. Complex numbers share the variance
    between their two parts.

    >>> normal(Generator().manual_seed(0), 4)        # torch.manual_seed(0); torch.randn(4)
    array([ 1.5409961 , -0.2934289 , -2.1787894 ,  0.56843126], dtype=float32)
    """
    if not isinstance(mean, (float, int)) or not isinstance(std, (float, int)):
        return _normal_around(generator, size, mean, std, dtype)
    shape = _shape(() if size is None else size)
    dtype = np.dtype(np.float32 if dtype is None else dtype)
    if not std >= 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    if dtype.kind == "c":
        if mean:
            raise NotImplementedError("complex normal numbers are drawn around 0")
        part = f"f{dtype.itemsize // 2}"
        parts = normal(generator, (*shape, 2), 0.0, std / math.sqrt(2.0), part)
        return parts.view(dtype)[..., 0]
    dtype = _floating(dtype, "normal")
    g, n = generator or default_generator, math.prod(shape)
    with g._lock:
        if n < 16:
            numbers = _cast(_normals_one_by_one(g, n, mean, std), dtype)
        else:
            full = n // 16 * 16
            # float32 and float64 draw into the output, remainder included; float16 by the block.
            uniforms = g._uniform(full if dtype == np.float16 else n, dtype)
            numbers = uniforms if dtype != np.float16 else np.empty(n, dtype)
            blocks = uniforms[:full]
            made = _normals_by_sixteen(blocks, mean, std)
            if made is not blocks or numbers is not uniforms:  # else they are in their place
                numbers[:full] = made
            if n > full:
                numbers[-16:] = _normals_by_sixteen(g._uniform(16, dtype), mean, std)
    return numbers.reshape(shape)


def _normal_around(
    generator: Generator | None,
    size: Size | None,
    mean: ArrayLike,
    std: ArrayLike,
    dtype: DTypeLike | None,
) -> np.ndarray:
    """Standard numbers scaled and moved afterwards, as PyTorch does for tensors of parameters."""
    mean_array, std_array = np.asarray(mean), np.asarray(std)
    if not (std_array >= 0).all():
        raise RuntimeError("normal expects all elements of std >= 0.0")
    if size is None:
        size = np.broadcast_shapes(mean_array.shape, std_array.shape)
    if dtype is None:
        dtype = (std_array if isinstance(mean, (float, int)) else mean_array).dtype
    if isinstance(std, (float, int)):
        numbers = normal(generator, size, 0.0, std, dtype)
    else:
        numbers = normal(generator, size, 0.0, 1.0, dtype)
        np.multiply(numbers, std_array, out=numbers, casting="same_kind")
    np.add(numbers, mean_array, out=numbers, casting="same_kind")
    return numbers


def _normals_one_by_one(g: Generator, n: int, mean: float, std: float) -> np.ndarray:
    """n float64 numbers in pairs, each pair radius · (cos, sin) of the angle."""
    waiting = [] if g._spare_normal is None or not n else [g._spare_normal]
    pairs = (n - len(waiting) + 1) // 2
    angle, radius = g._uniform(2 * pairs, np.dtype(np.float64)).reshape(pairs, 2).T
    radius = np.sqrt(-2.0 * _c_library(np.log1p, -radius))
    angle = angle * (2.0 * math.pi)
    numbers = np.empty(len(waiting) + 2 * pairs)
    numbers[: len(waiting)] = waiting
    numbers[len(waiting) :: 2] = radius * _c_library(np.cos, angle)
    numbers[len(waiting) + 1 :: 2] = radius * _c_library(np.sin, angle)
    if n:
        g._spare_normal = float(numbers[n]) if len(numbers) > n else None
    return _multiply_add(numbers[:n], std, mean)


def _normals_by_sixteen(uniforms: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Blocks of sixteen uniform numbers, turned in place into as many normal ones."""
    if _worth(len(uniforms)) and uniforms.dtype == np.float32 and native():
        return native().normals_now(uniforms, mean, std)
    half = f"V{8 * uniforms.itemsize}"  # eight numbers as one opaque item: halves copy fast
    for start in range(0, len(uniforms), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        halves = uniforms[chunk].view(half).reshape(-1, 2)
        u1 = 1 - halves[:, 0].copy().view(uniforms.dtype)  # (0, 1], for the logarithm
        u2 = halves[:, 1].copy().view(uniforms.dtype)
        u2 *= uniforms.dtype.type(2.0 * math.pi)
        if uniforms.dtype == np.float64:
            log, sine, cosine = (
                _c_library(np.log, u1),
                _c_library(np.sin, u2),
                _c_library(np.cos, u2),
            )
        else:
            log, (sine, cosine) = _log(u1), _sine_and_cosine(u2)
        radius = np.sqrt(log * -2)
        halves[:, 0] = (radius * cosine).view(half)
        halves[:, 1] = (radius * sine).view(half)
    return uniforms if (mean, std) == (0.0, 1.0) else _multiply_add(uniforms, std, mean)


# float32 logarithm, sine and cosine in the order of operations of PyTorch's vector code: the
# argument reductions and polynomials of Cephes (Moshier, 1989), each `y * x + c` rounded once.


_COS_AND_SIN = [np.array([[c], [s]]) for c, s in zip(COS, SIN, strict=True)]


def _round(x: np.ndarray) -> np.ndarray:
    """float64 numbers rounded to those of float32, and still stored as float64."""
    return x.astype(np.float32).astype(np.float64)


def _log(v: np.ndarray) -> np.ndarray:
    """Natural logarithm of positive float32 numbers v = 2ᵉ(1 + x), √½ ≤ 1 + x < √2."""
    bits = v.view(np.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    x = (bits - (exponent << 23)).view(np.float32) - np.float32(1)
    e = exponent.astype(np.float32)
    z = x * x
    wide = x.astype(np.float64)
    y: Any = LOG[0]
    for c in LOG[1:]:
        y = y * wide
        y += c
        y = _round(y)
    y *= wide
    y = _round(y)
    y *= z
    y += e * np.float32(LOG2_LOW)
    y = y.astype(np.float32)
    y -= z * np.float32(0.5)
    x += y
    x += e * np.float32(LOG2_HIGH)  # an exact product
    return x


def _sine_and_cosine(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of float32 angles in [0, 2π], by way of the nearest multiple of π/2."""
    octant = (v * np.float32(4 / math.pi)).astype(np.int32)
    octant += 1
    octant &= -2  # 0, 2, 4, 6 or 8
    j = octant.astype(np.float32)
    first, second, third = QUARTER_PI  # π/4 in three pieces; j times the first two is exact
    x = v - j * np.float32(first)
    x -= j * np.float32(second)
    wide = _round(x - j.astype(np.float64) * third)
    x = wide.astype(np.float32)
    z = (x * x).astype(np.float64)
    both = _COS_AND_SIN[0] * z  # two rows: the cosine's polynomial and the sine's
    both += _COS_AND_SIN[1]
    both = _round(both)
    both *= z
    both += _COS_AND_SIN[2]
    both = _round(both)
    both *= z
    both = _round(both)
    both[0] *= z
    both[0] -= z * 0.5
    both[1] *= wide
    both[1] += wide
    cosine, sine = both.astype(np.float32)
    cosine += np.float32(1)
    # Odd multiples of π/2 swap the two; signs follow the quadrant. On the bits, without branches.
    c, s = cosine.view(np.int32), sine.view(np.int32)
    swapped = (c ^ s) & ((octant << 30) >> 31)
    c ^= swapped
    s ^= swapped
    c ^= ((octant + 2) & 4) << 29
    s ^= (octant & 4) << 29
    return sine, cosine


@draw
def log_normal(
    generator: Generator | None,
    size: Size,
    mean: float = 1.0,
    std: float = 2.0,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Exponentials of normal numbers: ``tensor.log_normal_``.

    >>> log_normal(Generator().manual_seed(0), 2, mean=0.0, std=1.0)
    array([4.669239 , 0.7457022], dtype=float32)
    """
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    shape, dtype = _shape(size), _floating(dtype, "log_normal")
    g = generator or default_generator
    with g._lock:
        logs = _normals_one_by_one(g, math.prod(shape), mean, std)
    return _cast(_c_library(np.exp, logs), dtype).reshape(shape)


@draw
def trunc_normal(
    generator: Generator | None,
    size: Size,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Normal numbers that fall in [a, b]: ``torch.nn.init.trunc_normal_``.

    By rejection, a whole array a round: of normal numbers where [a, b] holds more than 0.3 of their
    distribution, else of uniform numbers in [a, b], kept with probability density / its peak.

    >>> x = trunc_normal(Generator().manual_seed(0), 1000, a=-1.0, b=0.5)
    >>> float(x.min()) >= -1.0, float(x.max()) <= 0.5
    (True, True)
    """
    shape, dtype = _shape(size), _floating(dtype, "trunc_normal")
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
            "The distribution of values may be incorrect.",
            stacklevel=2,
        )
    g = generator or default_generator

    def below(x: float) -> float:
        return (1.0 + math.erf((x - mean) / std / math.sqrt(2.0))) / 2.0

    with g._lock:
        if below(b) - below(a) > 0.3:
            low, high = dtype.type(a), dtype.type(b)
            numbers = normal(g, shape, mean, std, dtype)
            while (outside := (numbers < low) | (numbers > high)).any():
                np.copyto(numbers, normal(g, shape, mean, std, dtype), where=outside)
            return numbers
        log_peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2
        wide = np.promote_types(dtype, np.float32)

        def rejected(candidates: np.ndarray) -> np.ndarray:
            log_density = candidates
            for step in (
                lambda x: x - mean,
                lambda x: x / std,
                lambda x: x * x,
                lambda x: x * -0.5,
                lambda x: x - log_peak,
            ):  # float16 is rounded after every step
                log_density = step(log_density.astype(wide, copy=False)).astype(dtype, copy=False)
            with np.errstate(divide="ignore"):
                return np.log(uniform(g, shape, dtype=dtype)) > log_density

        numbers = uniform(g, shape, a, b, dtype)
        pending = rejected(numbers)
        while pending.any():
            candidates = uniform(g, shape, a, b, dtype)
            np.copyto(numbers, candidates, where=pending)
            pending &= rejected(candidates)
    return numbers


# ------------------------------------------------------------------- other continuous distributions


@draw
def exponential(
    generator: Generator | None, size: Size, lambd: float = 1.0, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Waiting times at rate ``lambd``, -log(1 - u)/λ: ``tensor.exponential_``.

    >>> exponential(Generator().manual_seed(0), 2)
    array([3.5083263, 1.2303847], dtype=float32)
    """
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    if np.dtype(dtype).kind != "f":
        raise RuntimeError(f"Exponential distribution needs a floating dtype, not {dtype}")
    shape, dtype = _shape(size), _floating(dtype, "exponential")
    u = _uniform_float64(generator, shape)
    return _cast(-1.0 / lambd * _c_library(np.log1p, -u), dtype).reshape(shape)


@draw
def cauchy(
    generator: Generator | None,
    size: Size,
    median: float = 0.0,
    sigma: float = 1.0,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Median + σ tan π(u - ½): ``tensor.cauchy_``.

    >>> cauchy(Generator().manual_seed(0), 2)
    array([10.59773  ,  0.7647673], dtype=float32)
    """
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    if np.dtype(dtype).kind != "f":
        raise RuntimeError(f"Cauchy distribution needs a floating dtype, not {dtype}")
    shape, dtype = _shape(size), _floating(dtype, "cauchy")
    u = _uniform_float64(generator, shape)
    tangents = _c_library(np.tan, math.pi * (u - 0.5))
    return _cast(_multiply_add(tangents, sigma, median), dtype).reshape(shape)


@draw
def geometric(
    generator: Generator | None, size: Size, p: float, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Trials up to the first success, ⌈log u / log(1 - p)⌉: ``tensor.geometric_``.

    >>> geometric(Generator().manual_seed(0), 5, p=0.25, dtype=np.int64)
    array([1, 2, 3, 1, 2])
    """
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    shape, dtype = _shape(size), np.dtype(dtype)
    u = _uniform_float64(generator, shape)
    with np.errstate(divide="ignore"):  # u = 0 once in 2⁵³
        trials = np.ceil(_c_library(np.log, u) / math.log1p(-p))
    return _cast(trials, dtype).reshape(shape)


def _uniform_float64(generator: Generator | None, shape: tuple[int, ...]) -> np.ndarray:
    g = generator or default_generator
    with g._lock:
        return g._uniform(math.prod(shape), np.dtype(np.float64))


@draw
def poisson(
    generator: Generator | None, rate: ArrayLike, dtype: DTypeLike | None = None
) -> np.ndarray:
    """Counts of events at the given rates: ``torch.poisson``, with other numbers (module docstring).

    >>> poisson(Generator().manual_seed(0), np.float32([0.0, 1.0, 100.0]))
    array([  0.,   2., 101.], dtype=float32)
    """
    rate = np.asarray(rate)
    if not (rate >= 0).all():
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    g = generator or default_generator
    with g._lock:
        g._untouched = False
        return np.asarray(g._draw.poisson(rate)).astype(rate.dtype if dtype is None else dtype)


# --------------------------------------------------------------------------------------- integers


@draw
def random_integers(
    generator: Generator | None,
    low: int,
    high: int | None,
    size: Size,
    dtype: DTypeLike = np.int64,
) -> np.ndarray:
    """Integers in [low, high): ``torch.randint``, ``tensor.random_(low, high)``.

    A word modulo the range, or a pair of words where the range is 2²⁸ or more. ``high=None`` means
    up to and including the largest integer of the dtype.

    >>> random_integers(Generator().manual_seed(0), 0, 10, 5)
    array([4, 9, 3, 0, 3])
    """
    shape, dtype = _shape(size), np.dtype(dtype)
    if dtype.kind == "f":
        least, largest = -_exact_integers(dtype), _exact_integers(dtype)
    elif dtype.kind in "iu":
        least, largest = int(np.iinfo(dtype).min), min(int(np.iinfo(dtype).max), 2**63 - 1)
    elif dtype.kind == "b":
        least, largest = 0, 1
    else:
        raise RuntimeError(
            f"randint handles integer, floating-point and boolean types, not {dtype}"
        )
    stop = largest + 1 if high is None else high
    if low >= stop:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={stop}"
        )
    if low < least:
        raise RuntimeError(f"from is out of bounds for {dtype}")
    if stop - 1 > largest:
        raise RuntimeError(f"to - 1 is out of bounds for {dtype}")
    g, n, span = generator or default_generator, math.prod(shape), stop - low
    with g._lock:
        if span < 2**28:
            integers = (g._words(n) % np.uint32(span)).astype(np.int64)
        else:
            words = g._long_words(n)
            integers = (words % np.uint64(span) if span < 2**64 else words).view(np.int64)
    if low and span < 2**64:
        integers += low  # modulo 2⁶⁴
    return integers.astype(dtype, copy=False).reshape(shape)


@draw
def full_range_integers(
    generator: Generator | None, size: Size, dtype: DTypeLike = np.int64
) -> np.ndarray:
    """Integers from 0 to the largest the dtype counts to: ``tensor.random_()``.

    For a floating dtype that is 2 to the number of its significant bits.

    >>> full_range_integers(Generator().manual_seed(0), 3, np.uint8)
    array([172,  47, 117], dtype=uint8)
    """
    shape, dtype = _shape(size), np.dtype(dtype)
    g, n = generator or default_generator, math.prod(shape)
    if dtype.kind == "f":
        span = _exact_integers(dtype) + 1
    elif dtype.kind in "iub":
        span = 2 if dtype.kind == "b" else int(np.iinfo(dtype).max) + 1
    else:
        raise NotImplementedError(f"random_ handles integer and floating types, not {dtype}")
    with g._lock:
        words = g._long_words(n) if dtype.itemsize == 8 else g._words(n)
    if span < 2 ** (8 * words.itemsize):
        words %= words.dtype.type(span)
    return words.astype(dtype).reshape(shape)


@draw
def permutation(generator: Generator | None, n: int, dtype: DTypeLike = np.int64) -> np.ndarray:
    """The integers 0 … n-1 in random order: ``torch.randperm``.

    Fisher & Yates as Durstenfeld (1964) has it: step i swaps place i with place i + (word mod n-i).

    >>> permutation(Generator().manual_seed(0), 8)
    array([4, 0, 7, 3, 2, 5, 1, 6])
    """
    n, dtype = operator.index(n), np.dtype(dtype)
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    if dtype.kind not in "iuf":
        raise NotImplementedError(f"randperm is not implemented for {dtype}")
    largest = _exact_integers(dtype) + 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)
    if n > largest:
        raise RuntimeError(f"n cannot be greater than {largest} for {dtype}, but got {n}")
    g, steps = generator or default_generator, max(n - 1, 0)
    places = np.arange(n)
    with g._lock:
        # Where n is not small beside 2³², the remainder of one word would favour the low places.
        few = n < (2**32 - 1) // 20
        words = g._words(steps) if few else g._long_words(steps)
    words %= np.arange(n, n - steps, -1).astype(words.dtype)
    places[:steps] += words.astype(np.int64)
    return _after_swaps(places).astype(dtype, copy=False)


def _after_swaps(partner: np.ndarray) -> np.ndarray:
    """Start from 0 … n-1; for i = 0, 1, …: swap places i and partner[i] ≥ i. All steps at once.

    Step i takes what partner[i] holds and leaves there what place i held. So what place k holds when
    its own step comes was left there by the last earlier step that had k for a partner, call it
    source[k]: that step's own place k' < k held it, where it came from source[k'], and so on down to
    a place no step had touched, which held its own number. Following the sources by doubling (each
    round replaces source by source of source) takes a few rounds: chains are about log n long.
    """
    n = len(partner)
    if n < 512:  # the definition
        numbers = list(range(n))
        for i, k in enumerate(partner.tolist()):
            numbers[i], numbers[k] = numbers[k], numbers[i]
        return np.array(numbers, dtype=np.int64)

    # Sort the steps by (partner, step), as one integer each: steps with one partner stand together.
    pairs = np.empty((n, 2), "<u4")
    pairs[:, 0], pairs[:, 1] = np.arange(n), partner
    pairs.view("<u8").sort(axis=0)
    step, place = pairs.T.astype(np.int64)
    repeated = place[1:] == place[:-1]  # an earlier step, the neighbour, had the same partner

    source = np.arange(n)
    source[place] = step  # in order, so that the last step stays
    (own,) = np.nonzero(step == place)  # a step that is its own partner is not before itself
    source[place[own]] = place[own]
    own = own[(own > 0) & repeated[own - 1]]
    source[place[own]] = step[own - 1]

    (open_,) = np.nonzero(source != np.arange(n))
    while open_.size:
        nearer = source[open_]
        farther = source[nearer]
        source[open_] = farther
        open_ = open_[farther != nearer]

    taken = place.copy()  # what each step finds at its partner's: the number itself, or ...
    (later,) = np.nonzero(repeated)
    taken[later + 1] = source[step[later]]  # ... what the previous step left there
    order = np.empty(n, np.int64)
    order[step] = taken
    return order


@draw
def multinomial(
    generator: Generator | None, probs: ArrayLike, num_samples: int, replacement: bool = False
) -> np.ndarray:
    """Indices drawn with the given weights, along the last axis: ``torch.multinomial``.

    Without replacement (or for one sample) each index gets an exponential waiting time at its
    weight's rate, and the first ``num_samples`` to arrive are taken. With replacement a uniform
    number is looked up in the cumulative sum.

    >>> multinomial(Generator().manual_seed(0), np.float32([0.1, 0.2, 0.3, 0.4]), 2)
    array([2, 1])
    """
    p = np.asarray(probs)
    if p.dtype.kind != "f":
        raise RuntimeError(f"multinomial only supports floating-point dtypes, got: {p.dtype}")
    if p.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > p.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
        )
    if not ((p >= 0) & (p < np.inf)).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if (p.sum(-1) == 0).any():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    g = generator or default_generator
    if not replacement or num_samples == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            haste = p / exponential(g, p.shape, dtype=p.dtype)
        if num_samples == 1:
            return haste.argmax(-1, keepdims=True)
        lateness = -haste
        if num_samples < p.shape[-1]:
            first = np.argpartition(lateness, num_samples - 1, axis=-1)[..., :num_samples]
            lateness = np.take_along_axis(lateness, first, -1)
        else:
            first = np.broadcast_to(np.arange(num_samples), p.shape)
        return np.take_along_axis(first, lateness.argsort(-1), -1)
    rows = p.reshape(-1, p.shape[-1])
    cumulative = rows.cumsum(-1, dtype=np.promote_types(p.dtype, np.float32))
    cumulative /= cumulative[:, -1:].copy()
    cumulative[:, -1] = 1
    u = _uniform_float64(g, (len(rows) * num_samples,)).reshape(-1, num_samples)
    drawn = [np.searchsorted(c, row) for c, row in zip(cumulative, u, strict=True)]
    return np.array(drawn, dtype=np.int64).reshape(*p.shape[:-1], num_samples)

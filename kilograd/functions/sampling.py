"""Random tensors. Every draw is one of ``kilograd.random``'s: the numbers PyTorch draws on the CPU."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import dtypes, random
from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.functions.creation import made, shape_of
from kilograd.functions.shape import method
from kilograd.ops import index as index_ops
from kilograd.random import Generator, default_generator, initial_seed, manual_seed, seed
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "Generator", "bernoulli", "default_generator", "get_rng_state", "initial_seed", "manual_seed",
    "multinomial", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


def get_rng_state() -> Tensor:
    """The state of the default generator, a uint8 tensor that PyTorch reads too.

    >>> import kilograd as kg
    >>> kg.get_rng_state().shape
    kilograd.Size([5056])
    """
    return wrap(random.get_rng_state())


def set_rng_state(new_state: Any) -> None:
    """Put the default generator into a state that :func:`get_rng_state` returned.

    >>> import kilograd as kg
    >>> state = kg.get_rng_state()
    >>> first = kg.rand(2)
    >>> kg.set_rng_state(state)
    >>> kg.equal(kg.rand(2), first)
    True
    """
    random.set_rng_state(new_state.array if isinstance(new_state, Tensor) else new_state)


def _floating(dtype: Any) -> np.dtype[Any]:
    return dtypes.get_default_dtype().dtype if dtype is None else dtypes.as_dtype(dtype).dtype


def _in_memory_order(x: Any, draw: Callable[[tuple[int, ...]], Any]) -> Any:
    """A draw for the places of an array, first come the elements that lie first in memory."""
    if x.flags.c_contiguous:
        return draw(x.shape)
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    drawn = draw(tuple([x.shape[axis] for axis in order]))
    return drawn.transpose([order.index(axis) for axis in range(x.ndim)])


# --- uniform, normal, integers --------------------------------------------------------------------


@function(method=False)
def rand(
    *args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1).

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.rand(3)
    tensor([0.4963, 0.7682, 0.0885])
    """
    shape = shape_of(args, size, "rand")
    return made(random.uniform(generator, shape, dtype=_floating(dtype)), requires_grad, device)


@function(method=False)
def randn(
    *args: Any, size: Any = None, generator: Generator | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Numbers from the standard normal distribution.

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.randn(3)
    tensor([ 1.5410, -0.2934, -2.1788])
    """
    shape = shape_of(args, size, "randn")
    return made(random.normal(generator, shape, dtype=_floating(dtype)), requires_grad, device)


@function(method=False)
def randint(
    *args: Any, low: int = 0, high: int | None = None, size: Any = None,
    generator: Generator | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Integers from ``low`` (0) below ``high``: ``randint(high, size)``, ``randint(low, high, size)``.

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.randint(10, (4,))
    tensor([4, 9, 3, 0])
    """
    given = list(args)
    if size is None and given and not _is_int(given[-1]):
        size = given.pop()
    if given and high is None:
        high = given.pop()
    if given:
        low = given.pop()
    if given or size is None or high is None:
        raise TypeError("randint() takes (high, size) or (low, high, size)")
    kind = dtypes.numpy_dtype(dtype) or np.dtype(np.int64)
    shape = shape_of((size,), None, "randint")
    array = random.random_integers(
        generator, operator.index(low), operator.index(high), shape, kind
    )
    return made(array, requires_grad, device)


def _is_int(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) or (isinstance(x, Tensor) and x.ndim == 0)


@function(method=False)
def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The integers 0 … n-1 in random order.

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.randperm(4)
    tensor([0, 1, 3, 2])
    """
    kind = dtypes.numpy_dtype(dtype) or np.dtype(np.int64)
    return made(random.permutation(generator, n, kind), requires_grad, device)


def _kind_like(input: Any, dtype: Any, name: str) -> np.dtype[Any]:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}"
        )
    return dtypes.numpy_dtype(dtype) or input.array.dtype


@function(method=False)
def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """:func:`rand` in the shape and dtype of a tensor.

    >>> import kilograd as kg
    >>> kg.rand_like(kg.zeros(2, 3)).shape
    kilograd.Size([2, 3])
    """
    kind = _kind_like(input, dtype, "rand_like")
    array = _in_memory_order(input.array, lambda s: random.uniform(generator, s, dtype=kind))
    return made(array, requires_grad, device)


@function(method=False)
def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """:func:`randn` in the shape and dtype of a tensor.

    >>> import kilograd as kg
    >>> kg.randn_like(kg.zeros(2, 3)).shape
    kilograd.Size([2, 3])
    """
    kind = _kind_like(input, dtype, "randn_like")
    array = _in_memory_order(input.array, lambda s: random.normal(generator, s, dtype=kind))
    return made(array, requires_grad, device)


@function(method=False)
def randint_like(
    input: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """:func:`randint` in the shape and dtype of a tensor: ``(input, high)`` or ``(input, low, high)``.

    >>> import kilograd as kg
    >>> kg.randint_like(kg.zeros(2, 3), 10).shape
    kilograd.Size([2, 3])
    """
    kind = _kind_like(input, dtype, "randint_like")
    if high is None:
        low, high = 0, low
    low, high = operator.index(low), operator.index(high)
    array = _in_memory_order(
        input.array, lambda s: random.random_integers(generator, low, high, s, kind)
    )
    return made(array, requires_grad, device)


# --- from parameters ----------------------------------------------------------------------------------


def _drawn(array: Any, *parameters: Any) -> Tensor:
    """A draw: its parameters get zero gradients, as in PyTorch."""
    live = [p for p in parameters if isinstance(p, Tensor) and p.requires_grad]
    if not live:
        return wrap(array)
    shape = array.shape
    whole = live[0].expand(shape)
    for other in live[1:]:
        whole = whole + other
    return apply(index_ops.fill, (whole.to(array.dtype), array))


@function(method=False)
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers of given means and standard deviations: tensors that broadcast, or numbers.

    With two numbers, ``size`` is needed.

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.normal(kg.tensor([0.0, 100.0]), 1.0)
    tensor([ 1.5410, 99.7066])
    """
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        if size is None:
            raise TypeError("normal(): two numbers need a size")
        shape = shape_of((size,), None, "normal")
        array = random.normal(generator, shape, float(mean), float(std), _floating(dtype))
        return made(array, requires_grad, device)
    parameters: list[Any] = [p.array if isinstance(p, Tensor) else float(p) for p in (mean, std)]
    for p in parameters:
        if getattr(p, "dtype", np.dtype(float)).kind not in "fc":
            raise NotImplementedError(f'"normal" not implemented for {p.dtype}')
    if size is not None:
        raise TypeError("normal(): size is for two numbers; tensors have theirs")
    return _drawn(random.normal(generator, None, *parameters), mean, std)


@function
def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that ``input`` says (or ``p``, a number, for every element), else 0.

    >>> import kilograd as kg
    >>> kg.bernoulli(kg.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    if p is not None:
        return apply(index_ops.fill, (input, _bernoulli(input, p, generator)))
    if input.array.dtype.kind != "f":
        raise NotImplementedError(f'"bernoulli" not implemented for {input.dtype}')
    return _drawn(random.bernoulli(generator, input.array), input)


def _bernoulli(self: Tensor, p: Any, generator: Any) -> Any:
    probability = p.array if isinstance(p, Tensor) else float(p)
    if isinstance(p, Tensor) and p.array.dtype.kind != "f":
        raise ShapeError(f"bernoulli_ expects p to be of a floating-point dtype, not {p.dtype}")
    return random.bernoulli(generator, probability, self.array.shape, self.array.dtype)


@function
def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices drawn with the weights of each row (of a matrix), or of a vector; int64.

    >>> import kilograd as kg
    >>> kg.multinomial(kg.tensor([0.0, 1.0, 0.0]), 2, replacement=True)
    tensor([1, 1])
    """
    if not isinstance(input, Tensor):
        raise TypeError(
            f"multinomial(): argument 'input' must be Tensor, not {type(input).__name__}"
        )
    count = operator.index(num_samples)
    return wrap(random.multinomial(generator, input.array, count, replacement))


@function(method=False)
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Counts of events at the given rates.

    >>> import kilograd as kg
    >>> kg.poisson(kg.zeros(2))
    tensor([0., 0.])
    """
    if input.array.dtype.kind != "f":
        raise NotImplementedError(f'"poisson" not implemented for {input.dtype}')
    return _drawn(random.poisson(generator, input.array), input)


# --- in place -------------------------------------------------------------------------------------------


def _put(self: Tensor, name: str, draw: Callable[[tuple[int, ...]], Any]) -> Tensor:
    """Write a draw into a tensor; whatever made the tensor gets zero gradients."""
    array = _in_memory_order(self.array, draw)

    def drawn(old: Tensor) -> Tensor:
        return apply(index_ops.fill, (old, array))

    drawn.__name__ = name
    return self._inplace(drawn)


@method
def uniform_(
    self: Tensor,
    from_: float = 0.0,
    to: float = 1.0,
    *,
    generator: Generator | None = None,
    **bounds: Any,
) -> Tensor:
    """Fill with uniform numbers in [from, to); returns the tensor."""
    low, high, kind = float(bounds.pop("from", from_)), float(to), self.array.dtype
    _no_more(bounds, "uniform_")
    return _put(self, "uniform", lambda s: random.uniform(generator, s, low, high, kind))


def _no_more(unknown: dict[str, Any], name: str) -> None:
    if unknown:
        raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(unknown))}'")


@method
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with normal numbers; returns the tensor."""
    m, d, kind = float(mean), float(std), self.array.dtype
    return _put(self, "normal", lambda s: random.normal(generator, s, m, d, kind))


@method
def random_(self: Tensor, *args: Any, generator: Generator | None = None, **bounds: Any) -> Tensor:
    """Fill with integers: ``random_()``, ``random_(to)`` or ``random_(from, to)``."""
    low, high, kind = bounds.pop("from", None), bounds.pop("to", None), self.array.dtype
    _no_more(bounds, "random_")
    if len(args) == 1 and low is None:
        low, high = (0, args[0]) if high is None else (args[0], high)
    elif len(args) == 2:
        low, high = args
    elif len(args) > 2:
        raise TypeError("random_() takes at most (from, to)")
    if low is None and high is None:
        return _put(self, "random", lambda s: random.full_range_integers(generator, s, kind))
    start = int(low or 0)
    return _put(self, "random", lambda s: random.random_integers(generator, start, high, s, kind))


@method
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 at probability ``p`` (a number, or a tensor), else 0; returns the tensor."""
    if isinstance(p, Tensor):
        values = _bernoulli(self, p, generator)
        return self._inplace(lambda old: apply(index_ops.fill, (old, values)))
    kind = self.array.dtype
    return _put(self, "bernoulli", lambda s: random.bernoulli(generator, float(p), s, kind))


@method
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers at rate ``lambd``; returns the tensor."""
    rate, kind = float(lambd), self.array.dtype
    return _put(self, "exponential", lambda s: random.exponential(generator, s, rate, kind))


@method
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of trials up to the first success; returns the tensor."""
    chance, kind = float(p), self.array.dtype
    return _put(self, "geometric", lambda s: random.geometric(generator, s, chance, kind))


@method
def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers from the Cauchy distribution; returns the tensor."""
    m, d, kind = float(median), float(sigma), self.array.dtype
    return _put(self, "cauchy", lambda s: random.cauchy(generator, s, m, d, kind))


@method
def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with exponentials of normal numbers; returns the tensor."""
    m, d, kind = float(mean), float(std), self.array.dtype
    return _put(self, "log_normal", lambda s: random.log_normal(generator, s, m, d, kind))

"""``@kernel``: a function of arrays that another kind of array may take over whole.

NumPy's own functions ask their arguments before they run (``__array_ufunc__``); a kernel does the
same with ``__array_kernel__(kernel, args, kwargs)``. An array class that records programs, or
lives on another device, so sees one step "conv_forward" instead of the loops inside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
KERNELS: dict[str, Callable[..., Any]] = {}
TRACE: ContextVar[Any] = ContextVar("kilograd_trace", default=None)  # the recording in progress


CHANGES = [0]  # how often the structure of a model or an optimizer has changed: compiled steps look
OBSERVERS: list[dict[int, Any]] = []  # the registries of hooks on all modules or all optimizers


class Untraceable(Exception):
    """A recording array was asked for its values: what asked is recorded as one step instead."""


def as_one_step(fn: Any, args: Any, options: Any, name: str, error: Exception) -> Any:
    """After ``fn`` failed: if a step is being recorded, ``fn`` is one step of it; else it failed."""
    trace = TRACE.get()
    if trace is None:
        raise error
    return trace.opaque(fn, args, options, name)


def kernel(fn: F) -> F:
    """Declare a kernel: plain arrays run ``fn``, others are asked first.

    >>> @kernel
    ... def double(x):
    ...     return x * 2
    >>> class Recorder:
    ...     def __array_kernel__(self, kernel, args, kwargs):
    ...         return f"recorded {kernel.__name__}"
    >>> double(np.ones(2)), double(Recorder())
    (array([2., 2.]), 'recorded double')
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        for a in args:
            if type(a) is not np.ndarray:
                take_over = getattr(type(a), "__array_kernel__", None)
                if take_over is not None:
                    return take_over(a, call, args, kwargs)
        return fn(*args, **kwargs)

    call.nin = getattr(fn, "nin", fn.__code__.co_argcount)  # type: ignore[attr-defined]  # as ufuncs say it
    KERNELS[fn.__name__] = call
    return call  # type: ignore[return-value]


class Large:
    """How a function of large arrays is run: ``LARGE.run(fn, args, options, writes, small)``.

    ``limit``: an array of more elements is large. What is found here at first calls the
    function; ``import kilograd`` puts the compiler there, which takes it apart and runs it natively.
    """

    __slots__ = ("limit", "run")

    def __init__(self) -> None:
        self.limit: float = 1 << 16
        self.run: Callable[..., Any] = simply


def simply(
    fn: Any, args: Any, options: dict[str, Any], writes: bool = False, small: bool = False
) -> Any:
    """``fn(*args, **options)``.

    >>> simply(max, (1, 2), {})
    2
    """
    return fn(*args, **options)


LARGE = Large()
_NO_OPTIONS: dict[str, Any] = {}


def sized(fn: Callable[..., Any], writes: bool = False) -> Callable[..., Any]:
    """A function of arrays that is run natively where the first of them is large."""

    def run(*args: Any) -> Any:
        if getattr(args[0], "size", 0) <= LARGE.limit:
            return fn(*args)
        return LARGE.run(fn, args, _NO_OPTIONS, writes)

    return run


def _add_to(a: Any, b: Any) -> None:
    np.add(a, b, out=a)


copied = sized(lambda x: x.copy())
converted = sized(lambda x, dtype: x.astype(dtype))
added = sized(lambda a, b: a + b)
add_to = sized(_add_to, writes=True)


def number(x: Any) -> Any:
    """A number of a rule that may change from call to call: a 0-d array's value, or the number.

    An optimizer's learning rate and step count go through here: plain Python floats when the step
    runs eagerly, places in the program when it is compiled.

    >>> number(np.array(2.0)), number(0.5)
    (2.0, 0.5)
    """
    if type(x) is float:
        return x
    if type(x) is not np.ndarray and hasattr(type(x), "__array_kernel__"):
        return x.__array_kernel__(number, (x,), {})
    return x.item() if hasattr(x, "item") else x


def square_root(x: Any) -> Any:
    """The root of a number (``math.sqrt`` would ask for its value at once).

    >>> square_root(9.0)
    3.0
    """
    if type(x) is not float and hasattr(type(x), "__array_kernel__"):
        return x.__array_kernel__(square_root, (x,), {})
    return math.sqrt(x)

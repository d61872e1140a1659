"""Sizes that remember where they come from: ``n = x.shape[0]`` serves the batch of the day.

A :class:`Dim` acts as an int. Arithmetic keeps its origin; a decision, or a plain number made of it,
becomes a guard of the graph.

Read next: ``inputs.py``.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd import size
from kilograd.compile.graph import Var
from kilograd.compile.tracer import Recorded

if TYPE_CHECKING:
    from kilograd.compile.lazy.recorder import Recorder


_PACKAGE = os.path.dirname(size.__file__) + os.sep
_SIZE = size.__file__
_LAYOUT: dict[Any, Any] = {
    "contiguous": lambda x: (x.flags.c_contiguous, x.flags.f_contiguous),
    "strides": lambda x: x.strides,
}


class Extent:
    """Where a number made of sizes comes from: ``fn`` of others, or (None) an axis of a value.

    In place of an axis stands ``"contiguous"`` or ``"strides"`` where code asked how a value lies.
    """

    __slots__ = ("fn", "parts")

    def __init__(self, fn: Any, parts: tuple[Any, ...]) -> None:
        self.fn = fn
        self.parts = parts

    def now(self, like: dict[Var, Any]) -> Any:
        """Its value, for arrays of these shapes."""
        if self.fn is None:
            var, what = self.parts
            return _LAYOUT[what](like[var]) if what in _LAYOUT else like[var].shape[what]
        return self.fn(*[p.now(like) if type(p) is Extent else p for p in self.parts])

    def key(self) -> Any:
        """What equal extents share."""
        return self.fn, *[p.key() if type(p) is Extent else p for p in self.parts]


class Dim:
    """A size of a lazy array: acts as an int, and remembers where it comes from.

    Arithmetic gives Dims. A comparison decides now, and is checked again for arrays of other sizes; so
    is the value where somebody needs a plain int. What was hashed is a constant from then on: somebody
    may keep it for longer than the graph.
    """

    __slots__ = ("extent", "recorder")
    recorder: Any
    __class__ = property(lambda self: type(self._now()))

    def __init__(self, recorder: Recorder, extent: Extent) -> None:
        self.recorder = recorder
        self.extent = extent

    def _now(self) -> Any:
        return self.extent.now(self.recorder.like if self.recorder else {})

    def _decided(self, fn: Any, *others: Any) -> Any:
        result = fn(self._now(), *[o._now() if type(o) is Dim else o for o in others])
        if self.recorder is not None and self.recorder.active:
            self.recorder.not_in_an_op("a size")
            parts = tuple([extent_of(p, self.recorder) for p in (self, *others)])
            self.recorder.guard(Extent(fn, parts), result)
        return result

    def __index__(self) -> int:
        return self._decided(operator.index)

    def __int__(self) -> int:
        return self._decided(int)

    def __float__(self) -> float:
        return self._decided(float)

    def __bool__(self) -> bool:
        return self._decided(bool)

    def __hash__(self) -> int:
        value = self._decided(operator.pos)
        self.extent, self.recorder = Extent(operator.pos, (value,)), None
        return hash(value)

    def __round__(self, *digits: int) -> Any:
        return self._decided(round, *digits)

    def __repr__(self) -> str:
        asks: Any = sys._getframe(1)
        while asks is not None and asks.f_code.co_filename == _SIZE:
            asks = asks.f_back
        if asks is not None and asks.f_code.co_filename.startswith(
            _PACKAGE
        ):  # for an error message
            return repr(self._now())
        return self._decided(repr)

    def __str__(self) -> str:
        return self._decided(str)

    def __format__(self, spec: str) -> str:
        return self._decided(format, spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self._decided(operator.pos), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Recorded) for x in inputs):
            return NotImplemented
        plain = [x._decided(operator.pos) if type(x) is Dim else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(self.__class__, name):
            raise AttributeError(f"{self.__class__.__name__!r} object has no attribute {name!r}")
        return getattr(self._decided(operator.pos), name)

    def __divmod__(self, other: Any) -> Any:
        return operator.floordiv(self, other), operator.mod(self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return operator.floordiv(other, self), operator.mod(other, self)

    def __reduce__(self) -> Any:
        return self.__class__, (self._decided(operator.pos),)


def extent_of(x: Any, recorder: Any) -> Any:
    """What stands for a number in an equation of a graph: sizes of other graphs are plain numbers."""
    if type(x) is not Dim:
        return x
    return x.extent if x.recorder in (recorder, None) else x._now()


def _of_sizes(fn: Any, swap: bool = False) -> Any:
    """Arithmetic: another size."""

    def method(self: Dim, *others: Any) -> Any:
        if not all(type(o) in (Dim, int, float, bool) for o in others):
            return NotImplemented
        parts = (*others, self) if swap else (self, *others)
        graphs = (p.recorder for p in parts if type(p) is Dim and p.recorder)
        recorder = next((g for g in graphs if g.active), None)
        if recorder is None:
            return fn(*[p._now() if type(p) is Dim else p for p in parts])
        return Dim(recorder, Extent(fn, tuple([extent_of(p, recorder) for p in parts])))

    return method


def _comparison(fn: Any) -> Any:
    """A decision."""

    def method(self: Dim, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return self._decided(fn, other)

    return method


for _name in (
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "truediv",
    "pow",
    "lshift",
    "rshift",
    "and_",
    "or_",
    "xor",
):
    _fn, _name = getattr(operator, _name), _name.rstrip("_")
    setattr(Dim, f"__{_name}__", _of_sizes(_fn))
    setattr(Dim, f"__r{_name}__", _of_sizes(_fn, swap=True))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Dim, f"__{_name}__", _of_sizes(getattr(operator, _name)))
for _name in ("trunc", "floor", "ceil"):
    setattr(Dim, f"__{_name}__", _of_sizes(getattr(math, _name)))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Dim, f"__{_name}__", _comparison(getattr(operator, _name)))

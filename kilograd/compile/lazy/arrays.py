"""The array of a lazy tensor: its shape and dtype are known, its values when somebody asks.

NumPy functions that meet one are steps of the graph (:class:`~kilograd.compile.tracer.Tracer`, its
parent, catches them). It looks at a :class:`~kilograd.compile.lazy.inputs.Memory`, which other views
may look at, too: writing through one is seen through all.

Read next: ``nodes.py``.
"""

from __future__ import annotations

import inspect
import math
import operator
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd.autograd import calls, driver
from kilograd.compile.graph import Var, mapped, put
from kilograd.compile.guards import owner_of
from kilograd.compile.lazy.inputs import Memory
from kilograd.compile.lazy.sizes import Dim
from kilograd.compile.tracer import Tracer
from kilograd.errors import TraceError, explain
from kilograd.functions.shape import element_strides, is_contiguous
from kilograd.kernels.kernel import copied
from kilograd.tensor import Tensor, _several, apply

if TYPE_CHECKING:
    from kilograd.compile.lazy.recorder import Recorder

# who asks for a size only to choose a faster way, or for an error message
_RECORD, _SEED, _TO_BOOL = driver.record.__code__, calls._seed.__code__, Tensor.__bool__.__code__
_STRIDES = element_strides.__code__
_LAYOUT = inspect.unwrap(is_contiguous).__code__
_PLAIN = {f.__code__ for f in (apply, _several, explain, copied)}


# what NumPy tells of an array without its values
_SIZES: dict[Any, Any] = {
    np.shape: lambda a: a.shape,
    np.size: lambda a, axis=None: a.size if axis is None else a.shape[axis],
}
_OF_LIKES = {
    np.ndim, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj, np.may_share_memory,
    np.shares_memory,
}  # fmt: skip


class LazyArray(Tracer):
    """An array of a graph: shape and dtype are known, values are computed when they are read."""

    __slots__ = ("memory",)

    def __init__(
        self, recorder: Recorder, memory: Memory, var: Var, path: tuple[Any, ...] = ()
    ) -> None:
        self.trace: Any = recorder
        self.memory = memory
        self._var = var
        self.path = path  # how it is taken from the whole memory
        self.seen = memory.version
        with recorder.lock:
            recorder.arrays.append(weakref.ref(self))

    @property
    def value(self) -> Any:
        raise TraceError(
            "a lazy tensor is used in a compiled function: give it kg.tensor(t.numpy())"
        )

    @property
    def like(self) -> Any:
        """An array of its shape, dtype and layout, whose values mean nothing."""
        return self.trace.like_of(self._var)

    dtype = property(lambda self: self.like.dtype)
    ndim = property(lambda self: self.like.ndim)
    itemsize = property(lambda self: self.like.itemsize)

    @property
    def var(self) -> Var:
        memory = self.memory
        if self.seen != memory.version:
            v = memory.var
            for fn, args, kwargs in self.path:
                v = self.trace.derive(fn, v, args, kwargs)
            self._var, self.seen = v, memory.version
        return self._var

    @property
    def computed(self) -> bool:
        """Whether each realization makes its values anew: it is no placeholder."""
        source = self.trace.sources.get(self.memory.origin)
        return source is None or not source.own

    @property
    def known(self) -> Any:
        """Its values, if nothing has to be computed for them; else None."""
        trace, memory = self.trace, self.memory
        with trace.lock:
            trace.sync()
            source = trace.sources.get(self._var)
            if self.seen != memory.version:
                return None
            return trace.values.get(self._var) if source is None else source.array

    root = property(lambda self: self)
    base = property(lambda self: self.memory)

    @property
    def shape(self) -> Any:
        shape = self.like.shape
        return shape if self._plain(sys._getframe(1)) else self._sizes(shape)

    @property
    def size(self) -> Any:
        shape = self.like.shape
        return math.prod(shape if self._plain(sys._getframe(1)) else self._sizes(shape))

    @property
    def nbytes(self) -> Any:
        shape = self.like.shape
        plain = self._plain(sys._getframe(1))
        return math.prod(shape if plain else self._sizes(shape)) * self.itemsize

    @property
    def flags(self) -> Any:
        flags = self.like.flags
        asks = sys._getframe(1)
        if asks.f_code is _LAYOUT and not self._plain(
            asks
        ):  # a copy or a view: another layout might decide otherwise
            lies = flags.c_contiguous, flags.f_contiguous
            self.trace.guard(self.trace.extent(self.var, "contiguous"), lies)
        return flags

    @property
    def strides(self) -> Any:
        asks, strides = sys._getframe(1), self.like.strides
        if asks.f_code is _STRIDES and not self._plain(asks):
            self.trace.guard(self.trace.extent(self.var, "strides"), strides)
        return strides

    def _plain(self, asks: Any) -> bool:
        """Whether who asks for a size gets a plain int."""
        if not self.trace.active:
            if asks.f_code is _SEED:  # backward() begins
                self.trace.keep_nodes([asks.f_locals["tensor"]])
            return True
        who = (
            asks.f_back if asks.f_code.co_name.startswith("<") else asks
        ).f_code  # a comprehension
        if who in _PLAIN:
            return True
        if who is not _RECORD:
            self.trace.not_in_an_op("the shape")
        return False

    def _sizes(self, shape: Any) -> Any:
        trace, var = self.trace, self._var
        source = trace.sources.get(var)
        if source is not None and source.fixed:
            return shape
        return tuple([Dim(trace, trace.extent(var, i)) for i in range(len(shape))])

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError("len() of unsized object")
        return operator.index(shape[0])

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    @property
    def ctypes(self) -> Any:
        return _Address(self)

    def __setitem__(self, index: Any, values: Any) -> None:
        trace = self.trace
        trace.not_in_an_op("writing")
        if index is Ellipsis:
            return trace.copy_to(self, values, "unsafe")
        trace.write(self, trace.step(put, (self, index, values), {}).var)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in _SIZES:
            return _SIZES[func](*args, **kwargs)
        if func in _OF_LIKES:
            return func(*mapped(_like, args), **kwargs)
        return super().__array_function__(func, types, args, kwargs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method in ("reduce", "accumulate") and kwargs.get("out") is None:
            # a step of its own also inside of an op: NumPy never frees the arguments when this raises
            return self.trace.step(getattr(ufunc, method), inputs, kwargs)
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Any:
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        return self.trace.record(np.reshape, (self, shape), {})

    def __getattr__(self, name: str) -> Any:
        if not hasattr(np.ndarray, name) or name.startswith("__array_"):
            raise AttributeError(name)
        return getattr(self.trace.value_of(self, f".{name}"), name)

    def item(self, *args: Any) -> Any:
        kind = bool if sys._getframe(1).f_code is _TO_BOOL else np.array
        return self.trace.value_of(self, ".item()", kind).item(*args)

    def __bool__(self) -> bool:
        return bool(self.trace.value_of(self, "bool()", bool))

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return self.trace.value_of(self, "pickling").__reduce__()

    def __repr__(self) -> str:
        return f"<lazy {self._var} {self.dtype}{list(self.like.shape)}>"


def _like(x: Any) -> Any:
    return x.trace.like_of(x.var) if type(x) is LazyArray else x


class _Address:
    """Where a lazy array would lie: comparable among the views of one memory."""

    def __init__(self, x: LazyArray) -> None:
        self.data = id(x.memory) + x.like.ctypes.data - owner_of(x.like).ctypes.data

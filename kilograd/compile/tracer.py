"""The tracer: an array that computes, and writes down what was computed.

A compiled function is traced by running it once, for real, with a :class:`Tracer` in place of every
array. A Tracer holds the concrete array and does what it is asked; each NumPy function, ufunc and
``@kernel`` that meets it becomes an :class:`~kilograd.compile.graph.Equation`. So shapes and dtypes
come from NumPy itself, and the rules of ``ops/`` need not know.

Four things that are not plain functions:

* **Memory**. In-place writes give the written array a new value in the graph; a view remembers how
  it is taken from its root, so that writing through either is seen through the other.
* **State** (``trace_state.py``). While a trace runs, reading ``tensor.array`` hands out the Tracer of that tensor: one
  that existed before (a parameter, a buffer, optimizer state) is thereby found, read by reference,
  and written back at the end of the program.
* **Values**. Code that asks for values (``bool``, ``item``, ``np.asarray``) cannot be followed. In
  the middle of an op, the whole op becomes one opaque equation (it is a pure function); in the user's
  function the trace is given up, with the line, and the step goes on eagerly.
* **Randomness**. A draw is an equation with an effect: it keeps its place.

Read next: ``compile/graph.py``.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from kilograd import random
from kilograd.compile.frames import given_by_user, running_op, users_line
from kilograd.compile.graph import (
    Equation,
    Graph,
    Var,
    cast,
    leaves,
    mapped,
    name_of,
    put,
    put_view,
)
from kilograd.errors import TraceError
from kilograd.kernels.kernel import Untraceable, number, square_root
from kilograd.tensor import Tensor

_MUTATING = {np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal}


class Recorded:
    """A value of the program being recorded: an array (Tracer) or a Python number (Number)."""

    __slots__ = ("__weakref__", "trace", "value")
    __hash__ = object.__hash__
    trace: Recording
    value: Any

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        trace = self.trace
        if not trace.recording:
            return trace.merely_run(getattr(ufunc, method), inputs, kwargs)
        if method == "at":
            trace.cannot(f"np.{ufunc.__name__}.at")
            return trace.merely_run(ufunc.at, inputs, kwargs)
        out = kwargs.pop("out", None)
        fn = ufunc if method == "__call__" else getattr(ufunc, method)
        if out is None:
            return trace.record(fn, inputs, kwargs)
        if len(out) != 1 or not isinstance(out[0], Tracer):
            raise trace.untraceable("writing into an array that is not recorded")
        kwargs["out"] = out[0]
        return trace.record_into(fn, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        trace = self.trace
        if not trace.recording:
            return trace.merely_run(func, args, kwargs)
        if func is np.copyto:
            return trace.copy_to(*args, **kwargs)
        if func in _MUTATING:
            trace.cannot(f"np.{func.__name__}")
            return trace.merely_run(func, args, kwargs)
        if func in _SHAPES:
            return func(*mapped(concrete, args), **kwargs)
        if kwargs.get("out") is not None:
            return trace.record_into(func, args, dict(kwargs))
        return trace.record(func, args, {k: v for k, v in kwargs.items() if k != "out"})

    def __array_kernel__(self, kernel: Any, args: Any, kwargs: Any) -> Any:
        if kernel is number:
            return self.trace.to_number(args[0])
        if kernel is square_root:
            return args[0] ** 0.5
        return self.trace.record(kernel, args, kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.trace.value_of(self, "np.asarray"), dtype=dtype, copy=copy)


_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj,
           np.may_share_memory, np.shares_memory, np.min_scalar_type}  # fmt: skip


def concrete(x: Any) -> Any:
    """What a recorded value is right now."""
    return x.value if isinstance(x, Recorded) else x


class Number(Recorded):
    """A Python number that may change from call to call: a learning rate, a step count.

    Comparing it decides something now, so that the setting it came from becomes a guard.
    """

    __slots__ = ("pins", "var")
    __class__ = property(
        lambda self: type(self.value)
    )  # code that asks means: which kind of number

    def __init__(self, trace: Recording, value: Any, var: Var, pins: frozenset[Any] | None) -> None:
        self.trace = trace
        self.value = value
        self.var = var
        self.pins = pins  # the settings it depends on; None: it depends on arrays

    def _decided(self, other: Any = 0) -> Any:
        for n in (self, other):
            if isinstance(n, Number):
                if n.pins is None:
                    return n.trace.value_of(n, "a decision that depends on values")
                n.trace.pinned |= n.pins
        return self.value

    def __bool__(self) -> bool:
        return bool(self._decided())

    def __float__(self) -> float:
        return float(self._decided())

    def __int__(self) -> int:
        return int(self._decided())

    def __neg__(self) -> Any:
        return self.trace.record(operator.neg, (self,), {})

    def __abs__(self) -> Any:
        return self.trace.record(operator.abs, (self,), {})

    def __repr__(self) -> str:
        return f"<number {self.value}>"


def _comparison(fn: Any) -> Any:
    def method(self: Number, other: Any) -> Any:
        if isinstance(other, (Tracer, np.ndarray)):
            return NotImplemented
        return fn(self._decided(other), concrete(other))

    return method


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Number, f"__{_name}__", _comparison(getattr(operator, _name)))


class Tracer(Recorded):
    """An array of the program being recorded."""

    __slots__ = ("_root", "_var", "path", "seen", "version")
    __array_priority__ = 1000

    # code that asks `isinstance(x, np.ndarray)` means: an array rather than a number
    __class__ = property(lambda self: np.ndarray)

    def __init__(self, trace: Recording, value: Any, var: Var) -> None:
        self.trace = trace
        self.value = value
        self._var = var
        self._root: Tracer | None = None  # of a view; none is its own, or it would never die
        self.path: tuple[Any, ...] = ()  # from the root to this view
        self.version = self.seen = 0

    @property
    def root(self) -> Tracer:
        """The array whose memory this looks at: itself, unless it is a view."""
        return self if self._root is None else self._root

    @property
    def var(self) -> Var:
        """The value in the graph; a view of what was written since is taken anew."""
        root = self.root
        if self.seen != root.version:
            v: Any = root._var
            for fn, args, kwargs in self.path:
                v = self.trace.derive(fn, v, args, kwargs)
            self._var, self.seen = v, root.version
        return self._var

    # what code asks about arrays is known without recording
    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    nbytes = property(lambda self: self.value.nbytes)
    itemsize = property(lambda self: self.value.itemsize)
    strides = property(lambda self: self.value.strides)
    flags = property(lambda self: self.value.flags)

    @property
    def base(self) -> Any:
        return None if self.root is self else self.root

    @property
    def ctypes(self) -> Any:
        return self.value.ctypes

    @property
    def T(self) -> Any:
        return self.transpose()

    @property
    def mT(self) -> Any:
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> Any:
        return self if self.dtype.kind != "c" else self.trace.record(np.real, (self,), {})

    @property
    def imag(self) -> Any:
        return self.trace.record(np.imag, (self,), {})

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Any:
        return self.trace.record(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, values: Any) -> None:
        trace = self.trace
        self.value[mapped(concrete, index)] = concrete(values)
        if index is Ellipsis and not self.path:
            return trace.write(self, trace.fitted(values, self))
        args = mapped(trace.as_var, (self, index, values))
        trace.write(self, trace.equation(put, args, {}, self.value))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self.value)))

    def transpose(self, *axes: Any) -> Any:
        if len(axes) == 1 and (axes[0] is None or type(axes[0]) in (tuple, list)):
            axes = axes[0]
        axes = tuple(range(self.ndim))[::-1] if not axes else tuple([a % self.ndim for a in axes])
        return self.trace.record(np.transpose, (self, axes), {})

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Any:
        if len(shape) == 1 and type(shape[0]) in (tuple, list):
            shape = tuple(shape[0])
        return self.trace.record(np.reshape, (self, tuple(int(n) for n in shape)), {})

    def ravel(self) -> Any:
        return self.reshape(-1)

    def flatten(self) -> Any:
        return self.reshape(-1).copy()

    def astype(self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True,
               copy: bool = True) -> Any:  # fmt: skip
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self if not copy else self.copy()
        return self.trace.record(cast, (self, dtype), {})

    def fill(self, value: Any) -> None:
        self[...] = value

    def item(self, *args: Any) -> Any:
        return self.trace.value_of(self, ".item()").item(*args)

    def tolist(self) -> Any:
        return self.trace.value_of(self, ".tolist()").tolist()

    def tobytes(self) -> Any:
        return self.trace.value_of(self, ".tobytes()").tobytes()

    def __bool__(self) -> bool:
        return bool(self.trace.value_of(self, "bool()"))

    def __float__(self) -> float:
        return float(self.trace.value_of(self, "float()"))

    def __int__(self) -> int:
        return int(self.trace.value_of(self, "int()"))

    def __complex__(self) -> complex:
        return complex(self.trace.value_of(self, "complex()"))

    def __index__(self) -> int:
        return operator.index(self.trace.value_of(self, "an index"))

    def __neg__(self) -> Any:
        return self.trace.record(np.negative, (self,), {})

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.trace.record(np.absolute, (self,), {})

    def __invert__(self) -> Any:
        return self.trace.record(np.invert, (self,), {})

    def __contains__(self, value: Any) -> bool:
        return value in self.trace.value_of(self, "in")

    def __repr__(self) -> str:
        return f"<tracer {self._var} {self.dtype}{list(self.shape)}>"

    def __getattr__(self, name: str) -> Any:
        if not hasattr(np.ndarray, name) or name in ("__array_struct__", "__array_interface__"):
            raise AttributeError(name)
        if self.trace.recording:  # a method we do not record
            self.trace.cannot(f".{name}")
        return getattr(self.value, name)


# --- the operators and methods of arrays ---------------------------------------------------------


def _operator(fn: Any, on_numbers: Any, swap: bool = False) -> Any:
    def method(self: Recorded, other: Any) -> Any:
        if isinstance(other, Tensor):
            return NotImplemented
        args = (other, self) if swap else (self, other)
        numbers = all(isinstance(a, (Number, int, float)) for a in args)
        return self.trace.record(on_numbers if numbers else fn, args, {})

    return method


def _inplace(fn: Any) -> Any:
    def method(self: Tracer, other: Any) -> Any:
        return self.trace.record_into(fn, (self, other), {"out": self})

    return method


def _method(fn: Any) -> Any:
    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            return self.trace.record_into(fn, (self, *args), kwargs)
        return self.trace.record(fn, (self, *args), kwargs)

    return method


for _name, _ufunc, _plain in (
    ("add", np.add, operator.add), ("sub", np.subtract, operator.sub),
    ("mul", np.multiply, operator.mul), ("truediv", np.divide, operator.truediv),
    ("floordiv", np.floor_divide, operator.floordiv), ("mod", np.remainder, operator.mod),
    ("pow", operator.pow, operator.pow), ("and", np.bitwise_and, operator.and_),
    ("or", np.bitwise_or, operator.or_), ("xor", np.bitwise_xor, operator.xor),
    ("lshift", np.left_shift, operator.lshift), ("rshift", np.right_shift, operator.rshift),
    ("matmul", np.matmul, operator.matmul),
):  # fmt: skip
    setattr(Recorded, f"__{_name}__", _operator(_ufunc, _plain))
    setattr(Recorded, f"__r{_name}__", _operator(_ufunc, _plain, swap=True))
    if _name != "matmul":
        setattr(Tracer, f"__i{_name}__", _inplace(np.power if _name == "pow" else _ufunc))
for _name, _ufunc in (
    ("eq", np.equal), ("ne", np.not_equal), ("lt", np.less), ("le", np.less_equal),
    ("gt", np.greater), ("ge", np.greater_equal),
):  # fmt: skip
    setattr(Tracer, f"__{_name}__", _operator(_ufunc, _ufunc))
# Methods that read: recorded as ndarray's own. (Those with another signature are written out above.)
for _name in (
    "sum", "mean", "max", "min", "prod", "all", "any", "copy", "dot", "repeat", "argmax", "argmin",
    "argsort", "cumsum", "cumprod", "take", "squeeze", "swapaxes", "diagonal", "conj",
    "conjugate", "clip", "round", "searchsorted", "view",
):  # fmt: skip
    setattr(Tracer, _name, _method(getattr(np.ndarray, _name)))


class Recording:
    """The graph as it grows, and what could not be followed."""

    def __init__(self, fullgraph: bool = False) -> None:
        self.graph = Graph()
        self.fullgraph = fullgraph
        self.failure: str | None = None
        self.again = False  # whether the next call may fare better
        self.open = True
        self.counter = itertools.count()
        self.pinned: set[Any] = set()  # settings that something was decided on

    # --- values that cannot be followed -----------------------------------------------------------

    def fail(self, why: str) -> None:
        """Give up recording (the step goes on eagerly), or raise if that was asked for."""
        if self.failure is None:
            self.failure = f"{why}\n  at {users_line()}"
            if self.fullgraph and not self.again:
                raise TraceError(self.failure)

    def untraceable(self, what: str) -> Untraceable:
        """The exception that makes the op being run one opaque equation."""
        return Untraceable(f"{what} of a traced array")

    def cannot(self, what: str) -> None:
        """Inside an op make it opaque; elsewhere give up the trace, to go on with plain arrays."""
        if self.recording:
            if running_op() is not None:
                raise self.untraceable(what)
            self.fail(f"{what} of a traced array cannot be recorded")

    def value_of(self, x: Any, what: str) -> Any:
        """The concrete value: inside an op that makes the op opaque, elsewhere it ends the trace."""
        if self.recording:
            if running_op() is not None:
                raise self.untraceable(what)
            self.fail(
                f"{what} reads the value of a traced tensor, which is not known when the program is made"
            )
        return x.value

    def foreign(self, array: Any) -> None:
        """A NumPy array of the user's: its values would be frozen into the program."""
        self.fail(
            "a NumPy array is used in a compiled function: its values would be frozen. Make it a tensor "
            "outside (it is then read by reference), pass it as an argument, or say "
            "kg.compile.constant(array)"
        )

    @property
    def recording(self) -> bool:
        return self.open and self.failure is None

    def merely_run(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """What is left to do once the trace was given up."""
        result = fn(*mapped(concrete, args), **mapped(concrete, kwargs))
        out = kwargs.get("out")
        if out is not None:
            return out[0] if type(out) is tuple and len(out) == 1 else out
        return self.unrecorded(result, args)

    # --- recording --------------------------------------------------------------------------------

    def variable(self, value: Any, prefix: str = "v") -> Var:
        """A new Var for a concrete value."""
        if isinstance(value, np.ndarray):
            return Var(f"{prefix}{next(self.counter)}", value.shape, value.dtype)
        return Var(f"s{next(self.counter)}", (), np.dtype(type(value)), number=True)

    def as_var(self, x: Any) -> Any:
        """What stands for an argument in an equation."""
        if isinstance(x, Recorded):
            return x.var  # type: ignore[attr-defined]
        if isinstance(x, np.ndarray) and x.dtype != object:
            return self.constant(x)
        if isinstance(x, Tensor):
            return self.as_var(x.array)
        return x

    def constant(self, array: Any) -> Var:
        """An array made by an op from shapes and options: it is the same every time."""
        if given_by_user():
            self.foreign(array)
        v = self.variable(array, "c")
        self.graph.constants[v] = array.copy()
        return v

    def equation(self, fn: Any, args: Any, kwargs: Any, like: Any, effect: bool = False) -> Var:
        """Append ``v = fn(args)`` for a result like a concrete one."""
        v = self.variable(like)
        self.graph.equations.append(Equation((v,), fn, args, kwargs, users_line(), effect))
        return v

    def derive(self, fn: Any, v: Var, args: Any, kwargs: Any) -> Var:
        """A view of a new value, as it was taken of the old one."""
        like = fn(np.broadcast_to(np.empty((), v.dtype), v.shape), *args, **kwargs)
        return self.equation(fn, (v, *args), kwargs, like)

    def record(self, fn: Any, args: Any, kwargs: Any, effect: bool = False) -> Any:
        """Run ``fn`` on the concrete values and append the equation."""
        plain_args, plain_kwargs = mapped(concrete, args), mapped(concrete, kwargs)
        if self.recording and _shape_from_values(fn, args, kwargs):
            self.cannot(f"a shape that depends on values: {name_of(fn)}")
        if not self.recording:
            return self.unrecorded(fn(*plain_args, **plain_kwargs), args)
        result = fn(*plain_args, **plain_kwargs)
        if isinstance(result, (np.generic,)):
            result = np.asarray(result)
        if type(result) is np.ndarray:
            first = args[0] if args else None
            if isinstance(first, Tracer):
                if result is first.value:
                    return first
                if _is_view(result, first.value) and not _holds_recorded(args[1:], kwargs):
                    return self.view(fn, first, args[1:], kwargs, result)
            out = self.equation(
                fn, mapped(self.as_var, args), mapped(self.as_var, kwargs), result, effect
            )
            return Tracer(self, result, out)
        return self._record_several(fn, args, kwargs, result, effect)

    def _record_several(self, fn: Any, args: Any, kwargs: Any, result: Any, effect: bool) -> Any:
        """A result that is a number, or a structure of arrays and numbers."""
        pins: frozenset[Any] | None = frozenset()
        for a in itertools.chain(leaves(args), leaves(kwargs)):
            if isinstance(a, Number) and a.pins is not None and pins is not None:
                pins |= a.pins
            elif isinstance(a, Recorded):
                pins = None
        outs: list[Var] = []

        def wrapped(x: Any) -> Any:
            if isinstance(x, np.generic):
                x = np.asarray(x)
            if isinstance(x, np.ndarray):
                out: Any = Tracer(self, x, self.variable(x))
                outs.append(out.var)
            elif isinstance(x, (float, int)) and not isinstance(x, bool):
                out = Number(self, x, self.variable(x), pins)
                outs.append(out.var)
            elif x is None or isinstance(x, (str, np.dtype, random.Generator)):
                return x
            else:
                raise self.untraceable(f"a result of type {type(x).__name__}")
            return out

        got = mapped(wrapped, result)
        tree = mapped(self.as_var, got)
        effect = effect or not outs  # what gives nothing is there to raise
        self.graph.equations.append(
            Equation(
                tuple(outs), fn, mapped(self.as_var, args), mapped(self.as_var, kwargs),
                users_line(), effect, None if isinstance(got, Recorded) else tree,
            )
        )  # fmt: skip
        return got

    def unrecorded(self, result: Any, args: Any) -> Any:
        """A result after the trace was given up: still a Tracer, so that writes stay together."""
        if not self.open:
            return result

        def wrapped(x: Any) -> Any:
            if isinstance(x, np.generic):
                x = np.asarray(x)
            if not isinstance(x, np.ndarray) or isinstance(x, Recorded):
                return x
            for a in args:
                if isinstance(a, Tracer) and a.value is x:
                    return a
            return Tracer(self, x, Var("?", x.shape, x.dtype))

        return mapped(wrapped, result)

    def view(self, fn: Any, of: Tracer, args: Any, kwargs: Any, result: Any) -> Tracer:
        """A Tracer of part of another's memory."""
        v = self.equation(fn, (of.var, *args), kwargs, result)
        new = Tracer(self, result, v)
        new._root, new.path = of.root, (*of.path, (fn, args, kwargs))
        new.seen = of.root.version
        return new

    def record_into(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """``fn(*args, out=tracer)``: a new value for that tracer's memory."""
        out = kwargs.pop("out")
        out = out[0] if type(out) is tuple else out
        if not isinstance(out, Tracer):
            raise self.untraceable("writing into an array that is not recorded")
        plain = mapped(concrete, args), mapped(concrete, kwargs)
        if not self.recording:
            fn(*plain[0], **plain[1], out=out.value)
            return out
        var_args, var_kwargs = mapped(self.as_var, args), mapped(self.as_var, kwargs)
        where = kwargs.get("where")
        if where is not None and where is not True:
            raise self.untraceable("out= with where=")
        like = _result_like(fn, *plain)
        fn(*plain[0], **plain[1], out=out.value)
        v = self.equation(fn, var_args, var_kwargs, like)
        self.write(out, self.fit(v, out))
        return out

    def copy_to(self, to: Any, source: Any, casting: str = "same_kind", where: Any = True) -> None:
        """``np.copyto``."""
        if not isinstance(to, Tracer):
            raise self.untraceable("writing into an array that is not recorded")
        np.copyto(to.value, concrete(source), casting=casting, where=concrete(where))  # type: ignore[arg-type]
        if self.recording:
            if where is not True:
                args = (self.as_var(where), self.as_var(source), to.var)
                like = np.where(concrete(where), concrete(source), to.value)
                self.write(to, self.fit(self.equation(np.where, args, {}, like), to))
            else:
                self.write(to, self.fitted(source, to))

    def fitted(self, values: Any, to: Tracer) -> Var:
        """The Var of values in the shape and dtype of the memory they are written to."""
        if not isinstance(values, (Recorded, np.ndarray)):
            values = np.asarray(values)
        return self.fit(self.as_var(values), to)

    def fit(self, v: Var, to: Tracer) -> Var:
        if v.number:
            v = self.equation(np.asarray, (v, to.dtype), {}, np.empty((), to.dtype))
        if v.dtype != to.dtype:
            like = np.broadcast_to(np.empty((), to.dtype), v.shape)
            v = self.equation(cast, (v, to.dtype), {}, like)
        if v.shape != to.shape:
            like = to.value
            if len(v.shape) > len(to.shape):  # leading axes of size 1
                v = self.equation(np.reshape, (v, to.shape), {}, like)
            else:
                v = self.equation(np.broadcast_to, (v, to.shape), {}, like)
        return v

    def write(self, to: Tracer, v: Var) -> None:
        """The memory of a Tracer has the value ``v`` from here on."""
        if not self.recording:
            return
        root = to.root
        if to is not root:
            to.var  # noqa: B018 (up to date before the root changes)
            part = v
            if all(fn is np.reshape for fn, _, _ in to.path):  # the whole of it in another shape
                v = self.equation(np.reshape, (v, root.value.shape), {}, root.value)
            else:
                v = self.equation(put_view, (root._var, v), {"path": to.path}, root.value)
            to._var, to.seen = part, root.version + 1
        root._var = v
        root.version += 1
        if to is root:
            root.seen = root.version

    # --- opaque steps, draws, numbers -------------------------------------------------------------

    def to_number(self, x: Any) -> Any:
        """The value of a 0-d array as a number of the program."""
        if isinstance(x, Number):
            return x
        value = x.value.item()
        if not self.recording:
            return value
        v = self.variable(value)
        self.graph.equations.append(Equation((v,), np.ndarray.item, (x.var,), {}, users_line()))
        return Number(self, value, v, None)


def _holds_recorded(*trees: Any) -> bool:
    return any(isinstance(x, (Recorded, np.ndarray)) for tree in trees for x in leaves(tree))


_SHAPE_FROM_VALUES = {
    np.nonzero, np.argwhere, np.flatnonzero, np.unique, np.extract, np.union1d, np.intersect1d,
    np.setdiff1d, np.trim_zeros, np.bincount,
}  # fmt: skip


def _shape_from_values(fn: Any, args: Any, kwargs: Any) -> bool:
    """Whether the shape of ``fn(*args)`` may be another one with other values."""
    if fn is operator.getitem:
        return any(isinstance(x, Tracer) and x.dtype == bool for x in leaves(args[1]))
    if fn in (np.repeat, np.ndarray.repeat):
        return any(isinstance(x, Tracer) for x in leaves((args[1:], kwargs)))
    return fn in _SHAPE_FROM_VALUES or (fn is np.where and len(args) == 1)


def _is_view(y: Any, x: Any) -> bool:
    of_x = y.base is not None and (y.base is x or y.base is x.base)
    return of_x and x.size > 0 and np.may_share_memory(x, y)


def _result_like(fn: Any, args: Any, kwargs: Any) -> Any:
    """An array with the shape and dtype of the result, before something is written over its inputs."""
    return np.asarray(fn(*args, **kwargs))

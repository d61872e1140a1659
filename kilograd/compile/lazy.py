"""Lazy graphs: operations are written down when they are called, and computed when a value is read.

    with kg.Graph() as g:
        loss = F.cross_entropy(model(x), y)  # shapes and dtypes are known, nothing is computed
        loss.backward()
    g.realize()                              # now: one program, and ``.grad`` is there
    x.copy_(next_batch)
    g.realize()                              # the same program on other numbers

A tensor of a graph holds a :class:`LazyArray` in place of an array. An op or a derivative rule that
meets one becomes one step of the graph, as it stands: a function of arrays, whose result
``compile/shapes.py`` describes without computing it. A size read from such an array is a
:class:`Dim`, an int that remembers where it comes from; what code decided by it is a guard. So the
same steps serve another batch size, or say why they do not. To realize is to hand the steps that a
value needs to ``kg.compile``.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from kilograd import random
from kilograd.autograd import calls, driver
from kilograd.autograd.driver import Node, reachable
from kilograd.autograd.function import FunctionNode
from kilograd.autograd.modes import ModeContext
from kilograd.compile import frames, step
from kilograd.compile.frames import running_op, users_line
from kilograd.compile.graph import (
    NAMES,
    Equation,
    Var,
    leaves,
    mapped,
    name_of,
    put,
    put_view,
    variables,
)
from kilograd.compile.graph import Graph as Program
from kilograd.compile.guards import owner_of
from kilograd.compile.shapes import infer
from kilograd.compile.step import Compiled
from kilograd.compile.trace_state import Trace, tracing
from kilograd.compile.tracer import Recording, Tracer, _is_view, _shape_from_values
from kilograd.errors import GradError, ShapeError, TraceError, explain
from kilograd.functions import creation
from kilograd.functions.shape import element_strides
from kilograd.kernels.kernel import TRACE, Untraceable, as_one_step, copied
from kilograd.printing import tensor_repr
from kilograd.tensor import Tensor, _several, apply, wrap

MOST_PLANS = 64
_VALUE_SHAPED = ("masked_select", "nonzero", "occurrences")  # ops whose results' shapes are values
_UNKNOWN = (
    "the shape of the result of {} depends on values, which a lazy graph does not know: use where(), "
    "or realize before"
)
_AT_ONCE = (
    "manual_seed",
    "seed",
    "get_state",
    "set_state",
)  # of generators: done, not written down
_BORROWED: ContextVar[bool] = ContextVar("kilograd_lazy_borrowed", default=False)
# who asks for a size only to choose a faster way, or for an error message
_RECORD, _SEED, _TO_BOOL = driver.record.__code__, calls._seed.__code__, Tensor.__bool__.__code__
_STRIDES = element_strides.__code__
_PLAIN = {f.__code__ for f in (apply, _several, explain, copied)}


# --- sizes ------------------------------------------------------------------------------------------


class Extent:
    """Where a number made of sizes comes from: an axis of a value, or ``fn`` of other extents."""

    __slots__ = ("fn", "parts")

    def __init__(self, fn: Any, parts: tuple[Any, ...]) -> None:
        self.fn = fn
        self.parts = parts

    def now(self, like: dict[Var, Any]) -> Any:
        """Its value, for arrays of these shapes."""
        if self.fn is None:
            return like[self.parts[0]].shape[self.parts[1]]
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
            parts = tuple([_extent(p) for p in (self, *others)])
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
        return repr(self._now())

    def __str__(self) -> str:
        return self._decided(str)

    def __format__(self, spec: str) -> str:
        return self._decided(format, spec)

    def __reduce__(self) -> Any:
        return int, (int(self),)


def _extent(x: Any) -> Any:
    return x.extent if type(x) is Dim else x


def _of_sizes(fn: Any, swap: bool = False) -> Any:
    def method(self: Dim, *others: Any) -> Any:
        if not all(type(o) in (Dim, int, float, bool) for o in others):
            return NotImplemented
        parts = (*others, self) if swap else (self, *others)
        recorder = next((p.recorder for p in parts if type(p) is Dim and p.recorder), None)
        if recorder is None or not recorder.active:
            return fn(*[p._now() if type(p) is Dim else p for p in parts])
        return Dim(recorder, Extent(fn, tuple([_extent(p) for p in parts])))

    return method


def _comparison(fn: Any) -> Any:
    def method(self: Dim, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return self._decided(fn, other)

    return method


for _name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow"):
    setattr(Dim, f"__{_name}__", _of_sizes(getattr(operator, _name)))
    setattr(Dim, f"__r{_name}__", _of_sizes(getattr(operator, _name), swap=True))
for _name in ("neg", "pos", "abs"):
    setattr(Dim, f"__{_name}__", _of_sizes(getattr(operator, _name)))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Dim, f"__{_name}__", _comparison(getattr(operator, _name)))


# --- arrays -----------------------------------------------------------------------------------------


class Memory:
    """What several lazy arrays may look at: which value it holds, and how often it was written."""

    __slots__ = ("origin", "var", "version")

    def __init__(self, var: Var, origin: Var | None = None) -> None:
        self.var = var
        self.version = 0
        self.origin = origin  # the input whose memory it is


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
    nbytes = property(lambda self: self.like.nbytes)
    itemsize = property(lambda self: self.like.itemsize)
    flags = property(lambda self: self.like.flags)

    @property
    def var(self) -> Var:
        memory = self.memory
        if self.seen != memory.version:
            v = memory.var
            for fn, args, kwargs in self.path:
                v = self.trace.derive(fn, v, args, kwargs)
            self._var, self.seen = v, memory.version
        return self._var

    root = property(lambda self: self)
    base = property(lambda self: self.memory)

    @property
    def shape(self) -> Any:
        shape = self.like.shape
        return shape if self._plain(sys._getframe(1)) else self._sizes(shape)

    @property
    def strides(self) -> Any:
        asks = sys._getframe(1)
        if asks.f_code is _STRIDES and not self._plain(asks):
            for n in self._sizes(self.like.shape):  # they come of all sizes, as plain numbers
                operator.index(n)
        return self.like.strides

    @property
    def size(self) -> Any:
        shape = self.like.shape
        return math.prod(shape if self._plain(sys._getframe(1)) else self._sizes(shape))

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
        return tuple([Dim(trace, Extent(None, (var, i))) for i in range(len(shape))])

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


class _Address:
    """Where a lazy array would lie: comparable among the views of one memory."""

    def __init__(self, x: LazyArray) -> None:
        self.data = id(x.memory) + x.like.ctypes.data - owner_of(x.like).ctypes.data


class Source:
    """An input of a graph: a tensor that was there before, read by reference, or an array."""

    def __init__(self, var: Var, array: Any, owner: Any) -> None:
        self.var = var
        self.array = array
        self.owner = owner  # a tensor; a weak reference to one of the graph's own; None: an array
        self.cell = [0] if owner is None else (owner() if self.own else owner)._cell
        self.memory = Memory(var, origin=var)

    @property
    def fixed(self) -> bool:
        """Whether its sizes never change: a parameter."""
        return isinstance(self.owner, Tensor) and type(self.owner) is not Tensor

    @property
    def own(self) -> bool:
        """Whether it was made with ``graph.tensor``: it holds a lazy array, its data are here."""
        return isinstance(self.owner, weakref.ref)

    def now(self) -> Any:
        """Its array now; ``t.data = …`` may have given it another."""
        t = self.owner() if self.own else self.owner
        if t is None:
            return self.array
        held = t.__dict__["array"]
        if type(held) is np.ndarray:
            self.array, self.cell = held, t._cell
            if self.own:
                t.__dict__["array"] = self.lazy(t)
        elif not self.own or held.memory is not self.memory:
            raise RuntimeError(
                "an input of a lazy graph was given the memory of a lazy tensor (t.data = …): write "
                "t.copy_(…), which copies values"
            )
        return self.array

    lazy: Any = None  # how a tensor of the graph gets its lazy array again


class _Grad:
    """What a block does with the ``.grad`` of one tensor."""

    def __init__(self, owner: Tensor, before: Any, adds: bool) -> None:
        lazy = type(owner.__dict__["array"]) is LazyArray
        self.owner: Any = weakref.ref(owner) if lazy else lambda: owner
        self.before = before
        self.adds = adds  # to what is there when the graph is realized; else it is replaced
        self.read_at: Any = None  # how many steps there were when it was read, and what it was
        self.used = False  # whether something was computed from it
        self.after: Any = None  # the Var of the gradient, or a tensor of outside


class LazyNode(Node):
    """A node of a lazy graph: what it kept is computed when a backward pass outside wants it."""

    __slots__ = ()
    recorder: Any

    def release(self) -> None:
        """The same node serves the next realization."""

    def _values(self) -> tuple[Any, ...]:
        if self.recorder.active:
            return self.kept or ()
        return self.recorder.kept_by(self)

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        shares = super().shares(g, create_graph)
        if self.recorder.active or create_graph:
            return shares
        kept = {id(a) for a in leaves(self._values())}  # belongs to the graph
        return [(e, s.copy() if id(s) in kept else s) for e, s in shares]


class LazyFunctionNode(FunctionNode):
    """The same for a custom function."""

    __slots__ = ()
    recorder: Any

    def release(self) -> None:
        """The same node serves the next realization."""

    def saved(self) -> tuple[Any, ...]:
        if self.recorder.active:
            return super().saved()
        arrays = self.recorder.realized([item and item[0] for item in self.raw or ()])
        return tuple([None if a is None else wrap(a) for a in arrays])

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        if create_graph and not self.recorder.active:
            raise GradError(
                f"{self.name()}: second derivatives through a custom function of a lazy graph: ask for "
                "them inside of the block"
            )
        shares = super().shares(g, create_graph)
        return shares if self.recorder.active else [(e, np.asarray(s)) for e, s in shares]


# --- recording --------------------------------------------------------------------------------------


class Recorder(Recording):
    """What a graph writes down, and what it knows of values at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.steps: list[Equation] = []
        self.like: dict[
            Var, Any
        ] = {}  # arrays of the right shape, dtype and layout; values are not
        self.sources: dict[Var, Source] = {}
        self.by_tensor: dict[int, Source] = {}
        self.by_array: dict[int, Source] = {}
        self.guards: dict[Any, tuple[Extent, Any, str]] = {}
        self.decisions: list[tuple[Var, Any, Any, str]] = []  # values that were read in a block
        self.made: list[weakref.ref[Tensor]] = []
        self.grads: dict[int, _Grad] = {}  # in the block that is open
        self.gradients: list[_Grad] = []
        self.frozen_at = ""
        # what is computed outside of blocks has fixed sizes: (line, shapes of the inputs, like)
        self.outside: dict[Var, tuple[str, Any, Any]] = {}
        self.cleared = False
        self.values: dict[Var, Any] = {}  # of the last realization
        self.stamp: Any = None
        self.likes: dict[Any, dict[Var, Any]] = {}  # by the sizes of the sources
        self.plans: dict[Any, Plan] = {}
        self.last: Plan | None = None
        step._switched[0] += (
            1  # the quick way into compiled functions does not look for lazy arrays
        )
        weakref.finalize(self, _switch_back)

    @property
    def active(self) -> bool:
        """Whether a block of this graph is open here."""
        return TRACE.get() is self and not _BORROWED.get()

    def like_of(self, v: Var) -> Any:
        """The array that shows the shape and dtype of a value."""
        if self.cleared:
            raise RuntimeError("a tensor of a graph that was cleared is used: compute it again")
        if TRACE.get() is None:
            with self.lock:
                self.sync()
        if v not in self.like:
            raise ShapeError(
                "a tensor was computed outside of a `with graph:` block, where sizes are plain numbers, and "
                f"an input of its graph has another size now\n  at {self.outside[v][0]}\nCompute it again, or "
                "inside of the block."
            )
        return self.like[v]

    # --- steps ----------------------------------------------------------------------------------------

    def untraceable(self, what: str) -> Untraceable:
        """The exception that makes the op being run one step, outside of blocks, too."""
        if TRACE.get() is None:
            TRACE.set(self)
            _BORROWED.set(True)
        return super().untraceable(what)

    def not_in_an_op(self, what: str) -> None:
        """Inside of an op nothing is recorded: the op is a step as a whole."""
        if _in_an_op():
            raise self.untraceable(what)

    def opaque(self, fn: Any, args: Any, kwargs: Any, name: str) -> Any:
        """An op or rule as a step."""
        if _BORROWED.get():
            _BORROWED.set(False)
            TRACE.set(None)
        if any(isinstance(x, Tensor) for x in leaves((args, kwargs))):
            raise TraceError(f"{name} needs values, and is itself being differentiated")
        masked = name == "getitem" and any(
            isinstance(i, np.ndarray) and i.dtype == bool for i in leaves(kwargs)
        )
        if masked or name in _VALUE_SHAPED:
            raise TraceError(_UNKNOWN.format(name))
        if name == "as_strided" and (args[0].path or not args[0].flags.c_contiguous):
            raise TraceError(
                "as_strided() of a view in a lazy graph: the graph knows no memory layout"
            )
        NAMES.setdefault(fn, name)
        return self.step(fn, args, kwargs)

    def record(self, fn: Any, args: Any, kwargs: Any, effect: bool = False) -> Any:
        """A function of NumPy's or a kernel, called outside of ops."""
        self.not_in_an_op("values")
        if _shape_from_values(fn, args, kwargs):
            raise TraceError(_UNKNOWN.format(name_of(fn)))
        return self.step(fn, args, kwargs, effect)

    def step(self, fn: Any, args: Any, kwargs: Any, effect: bool = False) -> Any:
        """Append ``fn(*args, **kwargs)``; its result, as lazy arrays."""
        with self.lock:
            if self.frozen_at:
                raise RuntimeError(
                    f"the graph was frozen at {self.frozen_at}: no operation can be added to it"
                )
            args, kwargs = mapped(self.array_of, args), mapped(self.array_of, kwargs)
            result, writes = self.emit(
                fn, mapped(self.operand, args), mapped(self.operand, kwargs), effect
            )
            given = list(leaves((args, kwargs)))
            for i, v in writes:
                self.write(given[i], v)
            first = given[0] if given else None
            if type(first) is LazyArray and type(result) is Var and not writes:
                if result is first._var:
                    return first
                y, x = self.like[result], self.like[first._var]
                if _is_view(y, x) and not any(variables(mapped(self.operand, (args[1:], kwargs)))):
                    rest = mapped(_extent, args[1:]), mapped(_extent, kwargs)
                    return LazyArray(self, first.memory, result, (*first.path, (fn, *rest)))
            return mapped(lambda v: LazyArray(self, Memory(v), v) if type(v) is Var else v, result)

    def emit(
        self, fn: Any, args: Any, kwargs: Any, effect: bool = False, view: bool = False
    ) -> Any:
        """Append an equation on Vars: the tree of results, and (place of an argument, its new value)."""
        likes = mapped(self._like, (args, kwargs))
        result, written = infer(fn, *likes)
        places = list(leaves((args, kwargs)))
        if type(result) is np.ndarray and args and result is likes[0][0] and not written:
            return args[0], []
        tree = mapped(self._new, result)
        new = [self._new(np.empty_like(self.like[places[i]])) for i in written]
        whole = (tree, tuple(new)) if new else tree
        if new:
            fn = Writing(fn, tuple(written))
        outs = tuple(variables(whole))
        single = None if type(whole) is Var else whole
        effect = effect or not outs
        fixed = next(
            (self.outside[v] for v in variables((args, kwargs)) if v in self.outside), None
        )
        if fixed or not (self.active or view):
            line, sizes = fixed[0] if fixed else users_line(), self.sizes()
            self.outside.update({v: (line, sizes, self.like[v]) for v in outs})
        self.steps.append(Equation(outs, fn, args, kwargs, users_line(), effect, single))
        return tree, list(zip(written, new, strict=True))

    def _new(self, x: Any) -> Any:
        if type(x) is not np.ndarray:
            return x
        v = Var(f"v{next(self.counter)}", x.shape, x.dtype)
        self.like[v] = x
        return v

    def _like(self, x: Any) -> Any:
        return self.like[x] if type(x) is Var else x.now(self.like) if type(x) is Extent else x

    def array_of(self, x: Any) -> Any:
        """An argument as a lazy array, if it is an array."""
        if isinstance(x, Tensor):
            x = x.array
        if type(x) is LazyArray:
            if x.trace is not self:
                raise RuntimeError(
                    "tensors of two lazy graphs meet in one operation: take the values of one of them, "
                    "kg.tensor(t.numpy()), or make both in the same graph"
                )
            self.like_of(x._var)
        elif type(x) is np.ndarray and x.dtype != object:
            source = self.by_array.get(id(x)) or self.source(x, self._owner(x))
            return LazyArray(self, source.memory, source.memory.var)
        elif isinstance(x, Tracer):
            raise RuntimeError("an array of a compiled function meets a lazy tensor")
        return x

    def operand(self, x: Any) -> Any:
        """What stands for an argument in an equation."""
        return x.var if type(x) is LazyArray else _extent(x)

    def derive(self, fn: Any, v: Var, args: Any, kwargs: Any) -> Var:
        """A view of a new value, as it was taken of the old one."""
        return self.emit(fn, (v, *args), kwargs, view=True)[0]

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers: drawn anew by each realization."""
        if fn.__name__ in _AT_ONCE:
            token = TRACE.set(None)
            try:
                return fn(generator, *args, **kwargs)
            finally:
                TRACE.reset(token)
        return self.step(_drawn(fn), (generator, *args), kwargs, effect=True)

    # --- writing --------------------------------------------------------------------------------------

    def record_into(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """``fn(*args, out=array)``: a new value for that array's memory."""
        self.not_in_an_op("writing")
        out = kwargs.pop("out")
        out = out[0] if type(out) is tuple else out
        if type(out) is not LazyArray:  # an array of outside gets the values, now
            out[...] = np.asarray(self.step(fn, args, kwargs))
            return out
        self.copy_to(out, self.step(fn, args, kwargs))
        return out

    def copy_to(self, to: Any, source: Any, casting: str = "same_kind", where: Any = True) -> None:
        """``np.copyto``."""
        self.not_in_an_op("writing")
        if type(to) is not LazyArray:
            np.copyto(to, np.asarray(source), casting=casting, where=where)  # type: ignore[arg-type]
            return
        fed = self.sources.get(to.memory.origin)  # type: ignore[arg-type]
        if fed is not None and fed.own and not self.active and not to.path and where is True:
            with self.lock:  # x.copy_(…) outside of a block: other data for the same graph
                np.copyto(fed.array, np.asarray(source), casting=casting)  # type: ignore[arg-type]
                self.stamp = None
            return
        self.write(to, self.step(filled, (to, source), {"where": where}).var)

    def write(self, to: Any, v: Var) -> None:
        """The memory of an array holds another value from here on."""
        memory = to.memory
        source = self.sources.get(memory.origin) if memory.origin is not None else None
        if source is not None:
            mine = owner_of(source.array)
            for other in self.sources.values():
                if other is not source and owner_of(other.array) is mine:
                    raise RuntimeError(
                        "a tensor is written to in a lazy graph that uses another tensor with the same "
                        "memory: take the view inside of the graph"
                    )
        memory.var = v if not to.path else self.emit(
            put_view, (memory.var, v), {"path": mapped(_extent, to.path)}
        )[0]  # fmt: skip
        memory.version += 1
        if not to.path:  # (a view is taken anew)
            to._var, to.seen = v, memory.version

    # --- tensors ----------------------------------------------------------------------------------------

    def source(self, array: Any, owner: Any) -> Source:
        """A new input."""
        for other in self.sources.values():
            if other.memory.version and owner_of(other.array) is owner_of(array):
                raise RuntimeError(
                    "a tensor is used in a lazy graph that has written to its memory through another "
                    "tensor: take the view inside of the graph"
                )
        v = Var(f"x{next(self.counter)}", array.shape, array.dtype)
        self.like[v] = array
        source = self.sources[v] = Source(v, array, owner)
        self.by_array[id(array)] = source
        if owner is not None:
            self.by_tensor[id(owner() if source.own else owner)] = source
        self.stamp = None
        return source

    def _owner(self, array: Any) -> Any:
        """The tensor whose array an op was given (outside of a block: the op's frame knows)."""
        frame = running_op()
        if frame is not None and frame.f_code is apply.__code__:
            for t in frame.f_locals.get("args", ()):
                if isinstance(t, Tensor) and t.__dict__.get("array") is array:
                    return t
        return None

    def placeholder(self, t: Tensor) -> Tensor:
        """Make a tensor one of the graph's own."""
        with self.lock:
            array = t.__dict__["array"]
            source = self.source(array, weakref.ref(t))
            back = weakref.ref(self)

            def lazy(t: Tensor) -> LazyArray:
                recorder = back()
                assert recorder is not None
                return LazyArray(recorder, source.memory, source.memory.var)

            source.lazy = lazy
            t.__dict__["array"] = lazy(t)
        return t

    def lift(self, t: Tensor, array: Any) -> Any:
        """The lazy array of a tensor that existed before."""
        with self.lock:
            source = self.by_tensor.get(id(t)) or self.by_array.get(id(array))
            if source is None or (
                not source.own and source.owner is None and source.array is not array
            ):
                source = self.source(array, t)
        return LazyArray(self, source.memory, source.memory.var)

    def adopt(self, t: Tensor, array: Any) -> Any:
        """What a tensor is to hold that gets its array in a block."""
        held = t.__dict__.get("array")
        if type(array) is LazyArray:
            if type(held) is np.ndarray:  # a tensor of outside is written to
                mine = self.lift(t, held)
                if array.memory is not mine.memory or array.path:
                    self.copy_to(mine, array, "unsafe")
                return held
            self.made.append(weakref.ref(t))
        elif held is not None and id(t) in self.by_tensor:
            raise RuntimeError(
                "the memory of a tensor is exchanged (t.data = …) inside of a lazy graph that uses it: "
                "do it outside, or write t.copy_(…)"
            )
        return array

    def read_grad(self, t: Tensor, grad: Any) -> Any:
        found = self.grads.get(id(t))
        adding = sys._getframe(2).f_code is driver.accumulate.__code__
        if found is None:
            return None if adding else grad
        if not adding and found.read_at is None and grad is not None:
            array = grad.__dict__["array"]
            if type(array) is LazyArray:
                found.read_at = len(self.steps), array.var
        return grad

    def set_grad(self, t: Tensor, before: Any) -> None:
        if id(t) not in self.grads:
            adding = sys._getframe(2).f_code is driver.accumulate.__code__
            self.grads[id(t)] = _Grad(t, before, adding)

    def settings(self, group: dict[str, Any]) -> dict[str, Any]:
        return group

    def saw_module(self, module: Any) -> None:
        """Layers are read when they are called."""

    def saw_requires_grad(self, t: Tensor) -> None:
        """Nothing to remember."""

    def saw_optimizer(self, optimizer: Any) -> None:
        raise RuntimeError(
            "optimizer.step() inside of a lazy graph: call it after graph.realize(), or compile the whole "
            "step with kg.compile"
        )

    def frozen(self, array: Any) -> Any:
        return array

    def to_number(self, x: Any) -> Any:
        return self.value_of(x, "a number").item()

    def guard(self, extent: Extent, result: Any) -> None:
        """Remember what was decided by sizes."""
        self.guards.setdefault(extent.key(), (extent, result, users_line()))

    def close(self) -> None:
        """A block ends: gradients of outside wait for :meth:`Graph.realize`."""
        for found in self.grads.values():
            t = found.owner()
            after = t.__dict__.get("grad")
            array = None if after is None else after.__dict__["array"]
            found.after = array.var if type(array) is LazyArray else after
            if found.read_at is not None and found.adds:
                at, seen = found.read_at
                found.used = any(
                    v in (seen, found.after) for s in self.steps[at:] for v in s.inputs()
                )
            t.__dict__["grad"] = found.before
            self.gradients.append(found)
        self.grads = {}
        self.keep_nodes(self.alive())

    def alive(self) -> list[Tensor]:
        """The tensors made in blocks that somebody still holds."""
        self.made = [ref for ref in self.made if ref() is not None]
        return [t for ref in self.made if (t := ref()) is not None]

    def keep_nodes(self, tensors: list[Tensor]) -> None:
        """Let the nodes of tensors serve more than one backward pass."""
        for node in reachable([t._node for t in tensors if t._node is not None]):
            if type(node) is FunctionNode and node.raw is not None:
                node.__class__ = LazyFunctionNode
            elif type(node) is Node and node.kept is not None and not _is_eager(node.kept):
                node.__class__ = LazyNode
            else:
                continue
            node.recorder = self  # type: ignore[attr-defined]

    # --- values -----------------------------------------------------------------------------------------

    def cannot(self, what: str) -> None:
        self.not_in_an_op(what)

    def value_of(self, x: Any, what: str, kind: Any = np.array) -> Any:
        """The values of an array: they are computed if they are not known.

        What is read in a block may decide what follows: it is a guard, unless it is only printed.
        """
        self.not_in_an_op(what)
        if type(x) is not LazyArray:
            return x
        with self.lock:
            value = self.compute([x.var])[0]
            if self.active and not _printing():
                self.decisions.append((x.var, kind, kind(value), users_line()))
            return value

    def kept_by(self, node: Node) -> tuple[Any, ...]:
        """What a node kept, as arrays; that of all nodes below is computed with it."""
        kept: Any = node.kept
        with self.lock:
            self.sync()
            mine = [x.var for x in leaves(kept) if type(x) is LazyArray]
            if any(v not in self.values and v not in self.sources for v in mine):
                below = [n for n in reachable([node]) if getattr(n, "recorder", None) is self]
                arrays = [x for n in below for x in leaves(n.kept) if type(x) is LazyArray]
                self.compute(list(dict.fromkeys([*mine, *[x.var for x in arrays]])))

            return self.realized(kept)

    def realized(self, tree: Any) -> Any:
        """A structure with arrays and ints in place of lazy ones."""
        with self.lock:
            arrays = [x.var for x in leaves(tree) if type(x) is LazyArray]
            found = iter(self.compute(arrays))

            def plain(x: Any) -> Any:
                return next(found) if type(x) is LazyArray else x._now() if type(x) is Dim else x

            return mapped(plain, tree)

    def now(self, v: Var) -> Any:
        """A value that is known: of this realization, or what an input holds."""
        return self.values[v] if v in self.values else self.sources[v].array

    def sync(self) -> None:
        """Look at the inputs: other data are another realization, other sizes other shapes."""
        arrays = [s.now() for s in self.sources.values()]
        stamp = [(id(a), s.cell[0]) for s, a in zip(self.sources.values(), arrays, strict=True)]
        if stamp == self.stamp:
            return
        for s, a in zip(self.sources.values(), arrays, strict=True):
            before = self.like[s.var]
            if (
                a.dtype != before.dtype
                or a.ndim != before.ndim
                or (s.fixed and a.shape != before.shape)
            ):
                raise ShapeError(
                    f"an input of a lazy graph was {before.dtype}{list(before.shape)} and is "
                    f"{a.dtype}{list(a.shape)} now: only sizes may change, and not those of parameters"
                )
        self.stamp = None
        if any(
            a.shape != self.like[s.var].shape
            for s, a in zip(self.sources.values(), arrays, strict=True)
        ):
            self.resize()
        for s, a in zip(self.sources.values(), arrays, strict=True):
            self.like[s.var] = a
        self.values.clear()
        self.stamp = stamp
        self.by_array = {id(a): s for s, a in zip(self.sources.values(), arrays, strict=True)}

    def sizes(self) -> Any:
        """The shapes of all inputs."""
        return tuple([s.array.shape for s in self.sources.values()])

    def resize(self) -> None:
        """Find all shapes anew, for inputs of other sizes."""
        key = len(self.steps), len(self.guards), self.sizes()
        like = self.likes.get(key)
        if like is None:
            like = {s.var: s.array for s in self.sources.values()}
            for eq in self.steps:
                if not self.outside.keys().isdisjoint(eq.outs):
                    continue
                args, kwargs = mapped(
                    lambda x: (
                        like[x] if type(x) is Var else x.now(like) if type(x) is Extent else x
                    ),
                    (eq.args, eq.kwargs),
                )
                try:
                    fn = eq.fn.fn if type(eq.fn) is Writing else eq.fn
                    result, written = infer(fn, args, kwargs)
                except Exception as e:
                    self.check_guards(like, some=True)  # they say more
                    raise ShapeError(
                        f"{name_of(eq.fn)}: does not fit the new sizes of the inputs: {e}\n  at {eq.line}"
                    ) from e
                given = list(leaves((args, kwargs)))
                new = [*_arrays(result), *[np.empty_like(given[i]) for i in written]]
                if [(a.ndim, a.dtype) for a in new] != [(len(v.shape), v.dtype) for v in eq.outs]:
                    raise ShapeError(f"{name_of(eq.fn)}: gives something else for the new sizes of the "
                                     f"inputs\n  at {eq.line}")  # fmt: skip
                like.update(zip(eq.outs, new, strict=True))
            self.check_guards(like)
            if len(self.likes) >= 16:
                del self.likes[next(iter(self.likes))]
            self.likes[key] = like
        self.like, sizes = dict(like), self.sizes()
        for v, (_, of, a) in self.outside.items():
            if sizes[: len(of)] == of:
                self.like[v] = a

    def check_guards(self, like: dict[Var, Any], some: bool = False) -> None:
        """Raise if code that built the graph would have decided otherwise (``some``: as far as is known)."""
        for extent, result, line in self.guards.values():
            try:
                now = extent.now(like)
            except KeyError:  # of what was computed outside of blocks; or is not known yet
                if some:
                    continue
                now = "another one"
            if now != result:
                raise ShapeError(
                    "the graph was built for inputs of other sizes: a size that code decided by, or took as a "
                    f"plain number, was {result} and would be {now}\n  at {line}\nBuild the graph again for "
                    "these sizes."
                )

    def compute(self, wanted: list[Var]) -> list[Any]:
        """The values of Vars: those that are not known run as one program."""
        if self.cleared:
            raise RuntimeError("a tensor of a graph that was cleared is read: compute it again")
        token = TRACE.set(None)
        try:
            self.sync()
            read = [v for v, *_ in self.decisions]
            missing = [
                v
                for v in dict.fromkeys([*wanted, *read])
                if v not in self.values and v not in self.sources
            ]
            for v in missing:
                self.like_of(v)  # raises for those that do not fit the sizes of now
            if missing:
                self.run(missing)
            for v, kind, before, line in self.decisions:
                now = kind(self.now(v))
                if not np.array_equal(now, before, equal_nan=v.dtype.kind in "fc"):
                    what = f"{before}, which is {now} now" if np.size(now) == 1 else "another one"
                    raise RuntimeError(
                        f"the graph was built by reading a value, which was {what}: build it again, or read "
                        f"values after the block\n  at {line}"
                    )
            return [self.now(v) for v in wanted]
        finally:
            TRACE.reset(token)

    def run(self, missing: list[Var]) -> None:
        """Run the steps that values need."""
        known = frozenset(self.values)
        key = tuple(missing), known, self.sizes()
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) >= MOST_PLANS:
                del self.plans[next(iter(self.plans))]
            plan = self.plans[key] = self.plan(missing)
        self.last = plan
        given = [wrap(self.now(v)) for v in plan.inputs]
        with ModeContext(grad=False):
            results = plan.compiled(*given)
        for v, t in zip(plan.outputs, results, strict=True):
            self.values[v] = t.array

    def sized(self, eq: Equation) -> Equation:
        """A step with the sizes of now."""
        now: Any = lambda x: x.now(self.like) if type(x) is Extent else x  # noqa: E731
        args, kwargs = mapped(now, (eq.args, eq.kwargs))
        return Equation(eq.outs, eq.fn, args, kwargs, eq.line, eq.effect, eq.tree)

    def plan(self, missing: list[Var]) -> Plan:
        """The program for values: what they need of steps, inputs and values that are known."""
        needed, keep = set(missing), dict.fromkeys(missing)
        inputs: dict[Var, None] = {}
        steps: list[Equation] = []
        for eq in reversed(self.steps):
            if not needed.isdisjoint(eq.outs) or (not eq.outs and eq.effect):
                steps.append(self.sized(eq))
                for v in eq.inputs():
                    if v in self.values or v in self.sources:
                        inputs[v] = None
                    else:
                        needed.add(v)
                for x in leaves((eq.args, eq.kwargs)):
                    if isinstance(x, random.Generator):  # what is drawn stays with the realization
                        keep.update(dict.fromkeys(eq.outs))
        steps.reverse()
        return Plan(steps, list(inputs), list(keep))

    def realize(self) -> None:
        """Run the whole graph once: values, writes to tensors of outside, gradients."""
        token = TRACE.set(None)
        try:
            with self.lock:
                self.close()
                self._realize()
        finally:
            TRACE.reset(token)

    def _realize(self) -> None:
        self.sync()
        self.values.clear()
        written = [s for s in self.sources.values() if s.memory.version and not s.own]
        alive = [t.__dict__["array"] for t in self.alive()]
        for found in self.gradients:
            t = found.owner()
            if found.used and t is not None and t.__dict__.get("grad") is not None:
                raise RuntimeError(
                    "the .grad of a tensor was read in the block, where it was the gradient of the block "
                    "alone; now another one is there already: set it to None before graph.realize()"
                )
        wanted = [a.var for a in alive if type(a) is LazyArray and a.trace is self]
        wanted = [v for v in wanted if v in self.like]
        wanted += [s.memory.var for s in written]
        wanted += [f.after for f in self.gradients if type(f.after) is Var]
        self.compute(wanted)
        before = {s.var: s.array.copy() for s in written}
        new = [np.array(self.now(s.memory.var)) for s in written]
        for s, array in zip(written, new, strict=True):
            np.copyto(s.array, array)
            s.cell[0] += 1
        self.values.update(before)  # steps that are asked for later see them as they were
        for found in self.gradients:
            t = found.owner()
            if t is None:
                continue
            if type(found.after) is not Var:
                t.__dict__["grad"] = found.after
            elif found.adds:
                g = self.now(found.after)
                driver.accumulate(t, g, owned=False, create_graph=False)
            else:
                t.__dict__["grad"] = wrap(np.array(self.now(found.after)))
        self.stamp = [(id(s.now()), s.cell[0]) for s in self.sources.values()]


class Writing:
    """A function that writes into some of its arguments, as one that returns what they become."""

    def __init__(self, fn: Any, places: tuple[int, ...]) -> None:
        self.fn = fn
        self.places = places
        self.__name__ = name_of(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        count = -1
        new: list[Any] = []

        def own(x: Any) -> Any:
            nonlocal count
            count += 1
            if count in self.places:
                x = x.copy()
                new.append(x)
            return x

        args, kwargs = mapped(own, (args, kwargs))
        return self.fn(*args, **kwargs), tuple(new)


def _in_an_op() -> bool:
    """Whether an op or a rule is running (not in who calls: a frame in an exception's is a cycle)."""
    frame = running_op()
    of_arrays = frame is not None and not (  # a rule that runs on tensors is made of ops
        frame.f_code is Node.shares.__code__ and frame.f_locals.get("create_graph")
    )
    return of_arrays


def _printing() -> bool:
    """Whether values are read only to be shown."""
    frame: Any = sys._getframe(2)
    for _ in range(4):
        if frame is None or frame.f_code is tensor_repr.__code__:
            return frame is not None
        frame = frame.f_back
    return False


def _is_eager(kept: Any) -> bool:
    """Whether what a node kept is of an eager graph: arrays, and nothing that is lazy."""
    kinds = {type(x) for x in leaves(kept)}
    return np.ndarray in kinds and not kinds & {LazyArray, Dim}


def filled(x: Any, values: Any, where: Any = True) -> Any:
    """A copy of ``x`` with other values where a mask holds."""
    y = x.copy()
    if where is True:
        y[...] = values
    else:
        np.copyto(y, values, casting="unsafe", where=where)
    return y


@functools.cache
def _drawn(fn: Any) -> Any:
    return random.draw(fn)


def _arrays(tree: Any) -> list[Any]:
    return [x for x in leaves(tree) if type(x) is np.ndarray]


class Plan:
    """The steps that some values need, as a function for ``kg.compile``."""

    def __init__(self, steps: list[Equation], inputs: list[Var], outputs: list[Var]) -> None:
        self.steps = steps
        self.inputs = inputs
        self.outputs = outputs
        self.compiled = Compiled(functools.partial(_replay, steps, inputs, outputs))


def _replay(steps: Any, inputs: Any, outputs: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Run steps one by one: eagerly, or while ``kg.compile`` is looking."""
    values: dict[Var, Any] = dict(zip(inputs, [t.array for t in tensors], strict=True))
    for eq in steps:
        args, kwargs = mapped(lambda x: values[x] if type(x) is Var else x, (eq.args, eq.kwargs))
        result = _run_step(eq.fn, args, kwargs)
        tree = eq.outs[0] if eq.tree is None and eq.outs else eq.tree
        for v, x in zip(leaves(tree), leaves(result), strict=True):
            if type(v) is Var:
                values[v] = np.asarray(x) if isinstance(x, np.generic) else x
    return tuple([wrap(values[v]) for v in outputs])


def _run_step(fn: Any, args: Any, kwargs: Any) -> Any:
    try:
        return fn(*args, **kwargs)
    except Exception as e:
        return as_one_step(fn, args, kwargs, name_of(fn), e)


frames._OPS.add(_run_step.__code__)


# --- what users see ---------------------------------------------------------------------------------


class Step(NamedTuple):
    """One operation of a graph: its name, what it reads, what it gives, and the line that called it."""

    name: str
    inputs: tuple[Var, ...]
    outputs: tuple[Var, ...]
    line: str


class Graph:
    """A graph of operations that are computed when their values are read.

    Inside of ``with graph:`` every operation on tensors is written down, with shapes and dtypes known
    and wrong ones refused at once, and nothing is computed until :meth:`realize`, or until a value is
    read (``item()``, ``tolist()``, ``numpy()``, ``print``). Tensors that were there before are read by
    reference, each time: parameters, and batches that are refilled by ``x.copy_(…)`` or
    ``x.data = …``, with another batch size, too.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0])
    >>> with kg.Graph() as g:
    ...     y = (x * 3).sum()
    >>> len(g), y.shape, y.item()
    (2, kilograd.Size([]), 9.0)
    >>> _ = x.copy_(kg.tensor([10.0, 20.0]))
    >>> y.item()
    90.0
    """

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._blocks: list[Any] = []

    # --- building -------------------------------------------------------------------------------------

    def __enter__(self) -> Graph:
        if isinstance(TRACE.get(), Trace):
            raise TraceError("a lazy graph inside of a compiled function: one of the two is enough")
        block = tracing(self._recorder)  # type: ignore[arg-type]
        block.__enter__()
        self._blocks.append(block)
        return self

    def __exit__(self, *exc: object) -> None:
        self._blocks.pop().__exit__(*exc)

    def tensor(self, data: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
        """A tensor of this graph: what is computed with it is lazy outside of blocks, too.

        Takes what :func:`kilograd.tensor` takes. ``x.copy_(…)`` and ``x.data = …`` outside of a block
        give it other data.

        >>> import kilograd as kg
        >>> g = kg.Graph()
        >>> x = g.tensor([1.0, 2.0])
        >>> y = x + 2
        >>> x.data = kg.tensor([5.0, 6.0])
        >>> y.tolist()
        [7.0, 8.0]
        """
        token = TRACE.set(None)
        try:
            t = creation.tensor(data, dtype=dtype, requires_grad=requires_grad)
        finally:
            TRACE.reset(token)
        return self.adopt(t)

    def adopt(self, t: Tensor) -> Tensor:
        """Make a tensor one of this graph's, as ``kg.Tensor(…, graph=g)`` does."""
        return self._recorder.placeholder(t)

    def freeze(self) -> None:
        """Refuse further operations; values can be refilled and realized as before.

        >>> import kilograd as kg
        >>> g = kg.Graph()
        >>> x = g.tensor([1.0])
        >>> g.freeze()
        >>> x + 1
        Traceback (most recent call last):
        RuntimeError: the graph was frozen at <doctest kilograd.compile.lazy.Graph.freeze[3]>:1 in <module>: no operation can be added to it
        """
        self._recorder.frozen_at = users_line() or "an earlier line"

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called."""
        return bool(self._recorder.frozen_at)

    def clear(self) -> None:
        """Forget everything: a new, empty graph. Its tensors of before can no longer be read.

        Raises:
            RuntimeError: inside of a block of this graph.
        """
        if self._blocks:
            raise RuntimeError("clear() inside of a `with` block of the graph")
        old = self._recorder
        with old.lock:
            old.cleared = True
            for held in (old.values, old.like, old.likes, old.sources, old.plans, old.by_array,
                         old.by_tensor, old.guards):  # fmt: skip
                held.clear()
            old.steps, old.gradients, old.decisions, old.last = [], [], [], None
        self._recorder = Recorder()

    # --- running --------------------------------------------------------------------------------------

    def realize(self) -> None:
        """Run the graph once.

        All its tensors that are still held get their values; random numbers are drawn anew; tensors of
        outside that the block wrote to are written to (running statistics, counters); the gradients of a
        ``backward()`` inside are added to ``.grad``.

        Raises:
            ShapeError: an input has a size for which the graph cannot be shown to be right.
        """
        self._recorder.realize()

    # --- looking inside -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._recorder.steps)

    def __iter__(self) -> Iterator[Step]:
        for eq in list(self._recorder.steps):
            yield Step(name_of(eq.fn), tuple(eq.inputs()), eq.outs, eq.line)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        like = self._recorder.like
        lines = [repr(self)]
        for s in self:
            outs = ", ".join(v.name for v in s.outputs) or "_"
            what = ", ".join(f"{like[v].dtype}{list(like[v].shape)}" for v in s.outputs)
            call = f"{outs} = {s.name}({', '.join(v.name for v in s.inputs)})"
            lines.append(f"    {call:<40}  # {what}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        frozen = ", frozen" if self.frozen else ""
        return f"Graph({len(self)} operations on {len(self._recorder.sources)} inputs{frozen})"

    @property
    def operations(self) -> Program:
        """The operations as a program: one equation for each op or derivative rule."""
        recorder, program = self._recorder, Program()
        program.inputs = list(recorder.sources)
        known = {s.memory.var for s in recorder.sources.values() if s.memory.version and not s.own}
        held = [t.__dict__["array"] for t in recorder.alive()]
        program.equations = [
            recorder.sized(eq) for eq in recorder.steps if all(v in recorder.like for v in eq.outs)
        ]
        program.outputs = [
            v
            for v in dict.fromkeys([*[a.var for a in held if type(a) is LazyArray], *known])
            if v in recorder.like
        ]
        return program

    @property
    def graph(self) -> Program:
        """The program that ran last, as ``kg.compile`` simplified it; before that :attr:`operations`."""
        plan = self._recorder.last
        if plan is None or plan.compiled.last is None:
            return self.operations
        return plan.compiled.graph


def _switch_back() -> None:
    step._switched[0] -= 1


def lazy(fn: Callable[..., Any] | None = None) -> Any:
    """``with kg.lazy() as g:`` a new graph; or ``@kg.lazy``, a function that computes lazily.

    >>> import kilograd as kg
    >>> @kg.lazy
    ... def mean_square(x):
    ...     return (x * x).mean()
    >>> result = mean_square(kg.tensor([1.0, 3.0]))  # nothing is computed here
    >>> result
    tensor(5.)
    """
    if fn is None:
        return Graph()
    if not callable(fn):
        raise TypeError(f"lazy() takes a function, not {type(fn).__name__}")

    @functools.wraps(fn)
    def lazily(*args: Any, **kwargs: Any) -> Any:
        with Graph():
            return fn(*args, **kwargs)

    return lazily


_default: ContextVar[Any] = ContextVar("kilograd_default_graph", default=None)


def get_default_graph() -> Graph | None:
    """The graph that :func:`set_default_graph` has set in this thread, or None."""
    return _default.get()


def set_default_graph(graph: Graph | None) -> None:
    """Write down all operations of this thread in a graph, as inside of ``with graph:``; None ends it.

    >>> import kilograd as kg
    >>> kg.set_default_graph(kg.Graph())
    >>> y = kg.ones(2) + 1
    >>> len(kg.get_default_graph())
    1
    >>> kg.set_default_graph(None)
    >>> y
    tensor([2., 2.])
    """
    if graph is not None and not isinstance(graph, Graph):
        raise TypeError(f"set_default_graph() takes a Graph or None, not {type(graph).__name__}")
    before = _default.get()
    if TRACE.get() is not (None if before is None else before._recorder):
        raise RuntimeError("set_default_graph() inside of a `with graph:` block: call it outside")
    if before is not None:
        before.__exit__(None, None, None)
    _default.set(graph)
    if graph is not None:
        graph.__enter__()


def realize(self: Tensor) -> Tensor:
    """Compute the values of a lazy tensor now; on others it does nothing. Returns the tensor."""
    np.asarray(self.__dict__["array"])
    return self

"""What a block does, written down as steps.

An op or a derivative rule that touches a lazy array stops (``Untraceable``), and is one step as a
whole, a pure function of arrays; the result is described by ``shapes.py``. Tensors of outside that a
block reads are inputs; what it writes to them, and their gradients, wait for ``graph.realize()``.

Read next: ``graph.py``.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import weakref
from contextvars import ContextVar
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd import driver
from kilograd.autograd.driver import Node, reachable
from kilograd.autograd.function import FunctionNode
from kilograd.compile.frames import running_op, users_line
from kilograd.compile.graph import (
    NAMES,
    Equation,
    Var,
    leaves,
    mapped,
    name_of,
    put_view,
    variables,
)
from kilograd.compile.guards import owner_of
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.compile.lazy.inputs import Memory, Source
from kilograd.compile.lazy.nodes import BlockGrad, LazyFunctionNode, LazyNode, is_eager
from kilograd.compile.lazy.plans import Part, Writing
from kilograd.compile.lazy.shapes import infer
from kilograd.compile.lazy.sizes import Extent, extent_of
from kilograd.compile.lazy.values import Values, sized
from kilograd.compile.tracer import Tracer, _is_view, _shape_from_values
from kilograd.errors import TraceError
from kilograd.kernels.kernel import TRACE, Untraceable
from kilograd.printing import tensor_repr
from kilograd.tensor import Tensor, apply, wrap

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
_MAKERS = ("__init__", "initialize_parameters", "reset_parameters", "reset_running_stats")
_NO_PARAMETER = (type(None), Tensor)
_INIT = os.path.join(os.path.dirname(random.__file__), "nn", "init.py")
_BORROWED: ContextVar[bool] = ContextVar("kilograd_lazy_borrowed", default=False)


class Recorder(Values):
    """The operations of blocks, tensors and gradients, as steps of a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []
        self.grads: dict[int, BlockGrad] = {}  # in the block that is open
        self.fresh: dict[int, weakref.ref[Tensor]] = {}  # made in the block, of plain arrays
        self.frozen_at = ""
        # for each open block: makers() when it began, and a number below those of its nodes
        self.began: list[tuple[int, int]] = []

    @property
    def active(self) -> bool:
        """Whether a block of this graph is open here."""
        return TRACE.get() is self and not _BORROWED.get()

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
        if name == "as_strided" and (args[0].path or not args[0].like.flags.c_contiguous):
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
            self.tidy()
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
                rest = mapped(self.operand, (args[1:], kwargs))
                if result in self.views and not any(variables(rest)):
                    self.memories[result] = first.memory
                    return LazyArray(self, first.memory, result, (*first.path, (fn, *rest)))
            if type(first) is LazyArray and self._all_views(result, first) and not writes:
                rest = mapped(self.operand, (args[1:], kwargs))
                if not any(variables(rest)):
                    return type(result)(
                        [self._part(first, v, (Part(fn, k), *rest)) for k, v in enumerate(result)]
                    )
            return mapped(lambda v: self._new_array(v) if type(v) is Var else v, result)

    def tidy(self) -> None:
        """Now and then, outside of blocks, drop what nobody can reach any more."""
        if len(self.loose) > self.most and not (self.active or self.grads):
            self.forget()

    def _all_views(self, result: Any, x: LazyArray) -> bool:
        """Whether a result is several views: parts of what was split."""
        return type(result) in (tuple, list) and all(
            type(v) is Var and _is_view(self.like[v], x.like) for v in result
        )

    def _part(self, x: LazyArray, v: Var, taken: Any) -> LazyArray:
        """One of several views of an array."""
        self.memories[v] = x.memory
        return LazyArray(self, x.memory, v, (*x.path, taken))

    def _new_array(self, v: Var) -> LazyArray:
        """A lazy array with memory of its own."""
        memory = self.memories[v] = Memory(v)
        return LazyArray(self, memory, v)

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
        first = next(leaves(likes), None)
        if outs and type(first) is np.ndarray and _is_view(self.like[outs[0]], first):
            self.views.add(outs[0])
        single = None if type(whole) is Var else whole
        effect = effect or not outs
        fixed = next(
            (self.outside[v] for v in variables((args, kwargs)) if v in self.outside), None
        )
        if fixed or not (self.active or view):
            line, sizes = fixed[0] if fixed else users_line(), self.sizes()
            self.outside.update({v: (line, sizes, self.like[v]) for v in outs})
        if not self.active:
            self.loose.update(outs)
        self.steps.append(Equation(outs, fn, args, kwargs, users_line(), effect, single))
        return tree, list(zip(written, new, strict=True))

    def _new(self, x: Any) -> Any:
        """A Var for a result."""
        if type(x) is not np.ndarray:
            return x
        v = Var(f"v{next(self.counter)}", x.shape, x.dtype)
        self.like[v] = x
        return v

    def _like(self, x: Any) -> Any:
        """What stands for an argument where only shapes count."""
        return self.like[x] if type(x) is Var else sized(x, self.like)

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
            source, owner = self.by_array.get(id(x)), self._owner(x)
            if source is None or source.now() is not x:
                source = self.source(x, owner)
            elif self.active and source.owner is not None:
                source.shared.append(x)
            return LazyArray(self, source.memory, source.memory.var)
        elif isinstance(x, Tracer):
            raise RuntimeError("an array of a compiled function meets a lazy tensor")
        return x

    def operand(self, x: Any) -> Any:
        """What stands for an argument in an equation."""
        return x.var if type(x) is LazyArray else extent_of(x, self)

    def derive(self, fn: Any, v: Var, args: Any, kwargs: Any) -> Var:
        """A view of a new value, as it was taken of the old one."""
        return self.emit(fn, (v, *args), kwargs, view=True)[0]

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers: drawn anew by each realization; but the first values of a model only once."""
        given = {type(x) for x in leaves((args, kwargs))}
        if fn.__name__ in _AT_ONCE or (LazyArray not in given and self._initializing()):
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
                fed.seen = None
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
            put_view, (memory.var, v), {"path": to.path}
        )[0]  # fmt: skip
        memory.version += 1
        self.memories[memory.var] = memory
        if source is not None:
            self._of_the_block(source)
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
        self.memories[v] = source.memory
        self.by_array[id(array)] = source
        if owner is not None:
            self.by_tensor[id(owner() if source.own else owner)] = source
        if source.own or not self.active:
            self.loose.add(v)
        return source

    def _of_the_block(self, source: Source) -> None:
        """A tensor that the block has made (``kg.zeros``) and writes to: lazy from here on, and zeros again
        in each realization.
        """
        made = self.fresh.get(id(source.owner))
        if made is not None and made() is source.owner:
            t, source.owner, source.kept = source.owner, None, True
            t.__dict__["array"] = LazyArray(self, source.memory, source.memory.var)
            self.made.append(made)
            del self.by_tensor[id(t)]

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
            self.tidy()
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
            source = self.known(t)
            if source is None:
                source = self.by_array.get(id(array))
                if source is None or source.now() is not array:
                    if self._initializing():
                        return array
                    source = self.source(array, t)
                else:  # of another tensor: the two stay together
                    source.share(t)
                    self.by_tensor[id(t)] = source
        return LazyArray(self, source.memory, source.memory.var)

    def known(self, t: Tensor) -> Source | None:
        """The input that a tensor is (a tensor of the graph may have died, and its id be another's)."""
        source = self.by_tensor.get(id(t))
        return None if source is None or (source.own and source.owner() is not t) else source

    def adopt(self, t: Tensor, array: Any) -> Any:
        """What a tensor is to hold that gets its array in a block."""
        held = t.__dict__.get("array")
        if type(array) is LazyArray:
            if type(held) is np.ndarray:  # a tensor of outside is written to
                mine = self.lift(t, held)
                if array.memory is not mine.memory or array.path:
                    self.copy_to(mine, array, "unsafe")
                return t.__dict__["array"]
            if held is None and type(t) is not Tensor:
                return self._lasting(array)
            self.made.append(weakref.ref(t))
        elif held is not None and self.known(t) is not None:
            raise RuntimeError(
                "the memory of a tensor is exchanged (t.data = …) inside of a lazy graph that uses it: "
                "do it outside, or write t.copy_(…)"
            )
        elif held is None and type(t) is Tensor and not self._initializing():
            self.fresh[id(t)] = weakref.ref(t)
        return array

    def _initializing(self) -> bool:
        """Whether a model that is made in the block is getting its first values: that is done at once."""
        return bool(self.began) and makers() > self.began[-1][0]

    def _lasting(self, array: LazyArray) -> Any:
        """What a parameter is made of: plain values, as those of a parameter that was there before."""
        fed = self.sources.get(array.var)
        if fed is None or fed.own:
            return np.array(self.compute([array.var])[0])
        self.fresh.pop(id(fed.owner), None)
        return fed.array

    # --- gradients --------------------------------------------------------------------------------

    def read_grad(self, t: Tensor, grad: Any) -> Any:
        """The ``.grad`` that is handed out; what a backward pass adds to is nothing at first."""
        found = self.grads.get(id(t))
        adding = sys._getframe(2).f_code is driver.accumulate.__code__
        if found is None or found.owner() is not t:
            return None if adding else grad
        if not adding and found.read_at is None and grad is not None:
            array = grad.__dict__["array"]
            if type(array) is LazyArray:
                found.read_at = len(self.steps), array.var
        return grad

    def set_grad(self, t: Tensor, before: Any) -> None:
        """Note that a block sets a ``.grad``."""
        found = self.grads.get(id(t))
        if found is None or found.owner() is not t:  # (another tensor of this id has died)
            adding = sys._getframe(2).f_code is driver.accumulate.__code__
            self.grads[id(t)] = BlockGrad(t, before, adding)

    # --- what a recording may be told -------------------------------------------------------------

    def settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter group as it is."""
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
        """An array that is said to stay as it is."""
        return array

    def to_number(self, x: Any) -> Any:
        """The value of an array, as a number."""
        return self.value_of(x, "a number").item()

    # --- decisions and blocks ---------------------------------------------------------------------

    def guard(self, extent: Extent, result: Any) -> None:
        """Remember what was decided by sizes."""
        self.guards.setdefault(extent.key(), (extent, result, users_line()))

    def close(self) -> None:
        """A block ends: gradients of outside wait for :meth:`Graph.realize`."""
        for found in self.grads.values():
            t = found.owner()
            if t is None:
                continue
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
        self.grads, self.fresh = {}, {}
        self.keep_nodes(self.alive(), self.began[-1][1] if self.began else math.inf)

    def alive(self) -> list[Tensor]:
        """The tensors made in blocks that somebody still holds."""
        self.made = [ref for ref in self.made if ref() is not None]
        return [t for ref in self.made if (t := ref()) is not None]

    def keep_nodes(self, tensors: list[Tensor], since: float = math.inf) -> None:
        """Let the nodes of tensors serve more than one backward pass."""
        for node in reachable([t._node for t in tensors if t._node is not None]):
            if type(node) is FunctionNode and node.raw is not None:
                node.__class__ = LazyFunctionNode
                node.recorder = self  # type: ignore[attr-defined]
            elif type(node) is Node and node.kept is not None and not is_eager(node.kept):
                LazyNode.of(node, self, since)

    # --- values -----------------------------------------------------------------------------------------

    def cannot(self, what: str) -> None:
        """Values are asked for in a way that is no step: inside of an op it is one as a whole."""
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
            if x.var in self.values and value.flags.writeable:  # others are computed from it
                value = self.values[x.var] = value.view()
                value.flags.writeable = False
            return value

    # --- the whole graph, once --------------------------------------------------------------------

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
        written = [s for s in self.sources.values() if s.memory.version and not (s.own or s.kept)]
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
        for s in self.sources.values():
            s.now()
            s.seen = s.stamp()


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


def makers() -> int:
    """How many functions are running that make a module, or fill a parameter (``nn.init``)."""
    frame: Any = sys._getframe(1)
    count = 0
    while frame is not None:
        code = frame.f_code
        if code.co_name in _MAKERS:
            count += hasattr(type(frame.f_locals.get("self")), "register_parameter")
        elif code.co_filename == _INIT:
            count += type(frame.f_locals.get("tensor")) not in _NO_PARAMETER
        frame = frame.f_back
    return count


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

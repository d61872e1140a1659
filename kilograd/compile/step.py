"""A compiled function: programs by signature, guards, and what is done where a program does not fit.

``compile(fn)(*args)``: the arguments' shapes, dtypes and Python values choose among the programs that
were recorded; its guards say whether it still holds; it runs. Otherwise the call is eager, and is
recorded on the way.
"""

from __future__ import annotations

import functools
import gc
import os
import random as pyrandom
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd.driver import Node, Pick, run
from kilograd.autograd.function import FunctionCtx
from kilograd.autograd.modes import MODE
from kilograd.compile import numpy_executor, passes
from kilograd.compile.graph import Equation, Graph, Var, cast, follow, leaves, mapped, put, put_view
from kilograd.compile.guards import (
    Guards,
    Names,
    _known,
    is_module,
    is_optimizer,
    layout,
    memory,
    module_state,
    optimizer_state,
)
from kilograd.compile.launch import MISS, REFUSED, launcher
from kilograd.compile.trace_state import Gate, Source, Trace, tracing
from kilograd.compile.tracer import Recorded, Tracer, concrete
from kilograd.dtypes import dtype as kilograd_dtype
from kilograd.dtypes import get_default_dtype
from kilograd.errors import GradError, TraceError, is_from_signal
from kilograd.kernels.kernel import TRACE
from kilograd.kernels.memory import trim
from kilograd.tensor import Tensor, apply, wrap

MOST_PROGRAMS = 16  # of one kind of signature
MOST_SIGNATURES = 64
MOST_LAUNCHES = 4  # programs that may take turns, all of them the quick way
TRIES = 3  # recordings of a step that still makes state
_enabled = os.environ.get("KILOGRAD_COMPILE", "1").lower() not in ("0", "false", "off", "no")
_disabled = threading.local()
_switched = [0 if _enabled else 1]  # how many disable() contexts are open anywhere
_SCALARS = (bool, int, float, str, bytes, complex, type(None))


class disable:
    """Run compiled functions eagerly: ``with disable():``, or as a decorator ``@disable``.

    >>> import kilograd as kg
    >>> double = kg.compile(lambda x: x * 2)
    >>> with kg.compile.disable():
    ...     double(kg.ones(2))
    tensor([2., 2.])
    """

    def __new__(cls, fn: Any = None) -> Any:
        self = object.__new__(cls)
        if fn is None:
            return self

        @functools.wraps(fn)
        def eagerly(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return eagerly

    def __enter__(self) -> None:
        _disabled.depth = getattr(_disabled, "depth", 0) + 1
        _switched[0] += 1

    def __exit__(self, *exc: object) -> None:
        _disabled.depth -= 1
        _switched[0] -= 1


def constant(array: Any) -> Tensor:
    """A tensor of a NumPy array whose values will not change: a compiled function may keep them.

    >>> import kilograd as kg
    >>> table = np.float32([1, 2])
    >>> scaled = kg.compile(lambda x: x * kg.compile.constant(table))
    >>> scaled(kg.ones(2))
    tensor([1., 2.])
    """
    trace = TRACE.get()
    return wrap(np.array(array) if trace is None else trace.frozen(np.asarray(array)))


class Program:
    """One recording, ready to run: the graph, its guards, and how results become tensors."""

    def __init__(self, graph: Graph, sources: list[Source], guards: Guards) -> None:
        self.graph = graph
        self.sources = sources
        self.guards = guards
        self.template: Any = None  # the structure of the result, with Out, Same, View, Alias in it
        self.grads: list[tuple[Any, Any]] = []  # (owner, place in outputs or None)
        self.other_grads: list[
            tuple[Any, Any]
        ] = []  # (owner, what its .grad is besides a new array)
        self.cells: list[tuple[Any, int]] = []  # (version counter, how often it is raised)
        self.argument_cells: list[tuple[int, int]] = []
        self.grad_cells: list[tuple[Any, int]] = []  # (whose .grad of before, …)
        self.modes: list[tuple[Any, bool]] = []  # what train() and eval() inside have set
        self.leaves: list[tuple[Any, bool]] = []  # what requires_grad_() inside has set
        self.differentiable: list[Any] = []  # the results that can be differentiated outside
        self.dead: DeadNode | None = None  # grad_fn of results whose graph is used up
        self.generators: list[Any] = []
        self.backward: Backward | None = None
        self.runner: Any = None
        self.written: list[Any] = []  # sources in the order of graph.writes
        self.fresh: set[int] = set()  # outputs that are surely nobody else's memory
        self.kept: set[int] = set()  # where the constants lie
        self.runs = 0
        self.misfits = 0  # runs that ended in an exception
        self.launch: Any = None

    @property
    def simple(self) -> bool:
        """Whether all there is to do after a run is to wrap outputs."""
        return not (self.other_grads or self.modes or self.leaves or self.differentiable) and all(
            type(x) not in _PLACES or (type(x) is Out and x.grad is None)
            for x in leaves(self.template)
        )

    def counters(self, tensors: list[Tensor]) -> list[tuple[Any, int]]:
        """The version counters that a run raises, and how often."""
        given = [(tensors[i]._cell, times) for i, times in self.argument_cells]
        grads = [(_owner(o, tensors).__dict__["grad"]._cell, n) for o, n in self.grad_cells]
        return [*self.cells, *given, *grads]

    def values(self, tensors: list[Tensor]) -> list[Any]:
        """What the inputs are now."""
        result: list[Any] = []
        for s in self.sources:
            if s.kind != "setting":
                result.append(_array_of(s, tensors))
                continue
            value = s.owner[s.key[0]]
            value = value if s.key[1] is None else value[s.key[1]]
            if not isinstance(value, (float, int, np.floating)):
                raise TraceError(
                    f"the setting {s.key[0]!r} of an optimizer is a {type(value).__name__} now"
                )
            result.append(float(value))
        return result


class Out:
    """A place in the result: a new tensor around an output of the program."""

    __slots__ = ("dead", "differentiable", "grad", "index", "inference", "leaf", "same")

    def __init__(self, index: int, t: Tensor) -> None:
        self.index = index
        self.same = None
        self.differentiable = False  # the gradient may come from outside
        self.dead = False  # it has a graph, which is used up
        self.leaf = t._leaf
        self.inference = t._inference
        self.grad: Any = None  # its .grad, if it has one


class Same:
    """A place in the result where an argument, or a tensor of before, is returned as it is."""

    __slots__ = ("grad", "owner")

    def __init__(self, owner: Any, grad: bool = False) -> None:
        self.owner = owner
        self.grad = grad  # not the owner, but what its .grad is


class View:
    """A place in the result: a view of another place's tensor, taken again."""

    __slots__ = ("base", "steps")

    def __init__(self, base: Any, steps: list[tuple[Any, Any]]) -> None:
        self.base = base
        self.steps = steps


class Alias:
    """A place in the result: the memory of a source or another place, outside of its graph."""

    __slots__ = ("base", "counted", "cut", "path")

    def __init__(self, base: Any, path: Any, counted: bool, cut: bool) -> None:
        self.base = base  # a Source, or a place
        self.path = path
        self.counted = counted  # whether it shares the version counter
        self.cut = cut


class Backward:
    """The second half of a program whose results are differentiated outside of it."""

    def __init__(
        self, graph: Graph, saved: list[int], leaves: list[Any], counters: list[Any]
    ) -> None:
        self.graph = graph
        self.saved = saved  # which outputs of the first half it starts from
        self.leaves = leaves  # what its results are gradients of
        self.counters = counters  # whose version counters must not move: sources and places
        self.run: Any = None  # made with the executor of the first half


class ProgramNode(Node):
    """What ``grad_fn`` shows of a compiled function's result."""

    __slots__ = ("backward",)

    def __init__(
        self, backward: Backward, kept: Any, edges: Any, made: list[Tensor], cells: Any
    ) -> None:
        super().__init__(
            tuple(edges), [t.array.shape for t in made], [t.array.dtype for t in made]
        )  # fmt: skip
        self.backward = backward
        self.kept = kept
        self.cells = cells
        self.seen = sum([c[0] for c in cells])
        self.plan = self.op = None  # type: ignore[assignment]

    def name(self) -> str:
        return "CompiledFunctionBackward"

    def release(self) -> None:
        self.kept, self.cells = None, ()

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        if create_graph:
            raise GradError(
                "a compiled function cannot be differentiated twice from outside: compile the function "
                "that asks for the second derivative, or call it under kg.compile.disable()"
            )
        kept = self._values()
        with np.errstate(all="ignore"):
            found, _ = self.backward.run(*kept, *g)
        return [
            (edge, np.asarray(s))
            for edge, s in zip(self.inputs, found, strict=True)
            if edge is not None
        ]  # fmt: skip


class DeadNode(Node):
    """``grad_fn`` of a result whose graph was used up inside, by ``backward()``."""

    __slots__ = ()

    def __init__(self, t: Tensor) -> None:
        super().__init__((), t.array.shape, t.array.dtype)
        self.kept, self.cells = None, ()
        self.plan = self.op = None  # type: ignore[assignment]

    def name(self) -> str:
        return "CompiledFunctionBackward"

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        self._values()  # raises
        return []


def _owner(owner: Any, tensors: list[Tensor]) -> Any:
    """A tensor, or the argument of a number."""
    return tensors[owner] if type(owner) is int else owner


def _array_of(s: Source, tensors: list[Tensor]) -> Any:
    """The array that an input is now."""
    if s.kind == "argument":
        return tensors[s.key].array
    if s.kind == "tensor":
        return s.owner.array
    return _owner(s.owner, tensors).__dict__["grad"].array


class Compiled:
    """What :func:`kilograd.compile` returns: call it like the function it was made of."""

    def __init__(
        self, fn: Callable[..., Any], *, check: bool = False, backend: str = "auto",
        dynamic: bool | None = None, fullgraph: bool = False,
    ) -> None:  # fmt: skip
        if backend not in ("auto", "numpy", "numba"):
            raise ValueError(f"backend must be 'auto', 'numpy' or 'numba', not {backend!r}")
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.check = check
        self.backend = backend
        self.dynamic = dynamic
        self.fullgraph = fullgraph
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget all programs."""
        self.programs: dict[Any, list[Program]] = {}
        self.recordings: dict[Any, int] = {}  # how many, by kind of signature
        self.unsettled: dict[Any, int] = {}
        self.eager: dict[Any, str] = {}  # kinds of signatures that run eagerly, and why
        self.last: Program | None = None
        self.launch: Any = None  # the quick way into the program that ran last
        self.launches: list[Any] = []  # and those into the last few programs

    # --- calling ----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        launch = self.launch
        if launch is not None and not kwargs and len(args) == launch.arity and not _switched[0]:
            result = launch(*args)
            if result is MISS:
                result = self._launch_other(args)
            if result is REFUSED:  # eagerly the step raises its own error, if it is one
                return self.fn(*args)
            if result is not MISS:
                return result
        if TRACE.get() is not None or not _enabled or getattr(_disabled, "depth", False):
            return self.fn(*args, **kwargs)
        mode = MODE.get()
        tensors: list[Tensor] = []
        key: Any = (_signature(args, tensors), mode, get_default_dtype())
        if kwargs:
            key = (*key, tuple(kwargs), _signature(tuple(kwargs.values()), tensors))
        if len(tensors) > 1 and (shared := _shared(tensors)) is not None:
            key = (*key, shared)
        program = self._find(key, tensors)
        if program is None:
            if mode.retain or mode.anomaly:
                return self.fn(*args, **kwargs)
            kind = _kind(args), _kind(kwargs), tuple(kwargs), key[1]
            if kind in self.eager:
                return self.fn(*args, **kwargs)
            with self._lock:
                program = self._find(key, tensors)  # another thread may have been quicker
                if program is None:
                    return self._record(key, kind, tensors, args, kwargs)
        self.last = program
        self._prepare_launch(program, args, kwargs)
        return self._run(program, tensors, args, kwargs)

    def _find(self, key: Any, tensors: list[Tensor]) -> Program | None:
        """The program for a signature whose guards hold."""
        for program in self.programs.get(key, ()):
            if program.guards.why_not(tensors) is None:
                return program
        return None

    def _launch_other(self, args: Any) -> Any:
        """What the quick way into another of the last programs answers, if one fits."""
        for launch in self.launches:
            if launch is not self.launch and launch.arity == len(args):
                result = launch(*args)
                if result is not MISS:
                    self.launch, self.last = launch, launch.program
                    return result
        return MISS

    def _prepare_launch(self, program: Program, args: Any, kwargs: Any) -> None:
        """The next call of this kind goes the quick way."""
        self.launch = None
        if len({id(a) for a in args if isinstance(a, Tensor)}) < sum(
            isinstance(a, Tensor) for a in args
        ):
            return  # one tensor twice: a program for that case only
        if self.check or kwargs or not hasattr(program.runner, "bind"):
            return
        if program.launch is None:
            program.launch = False
            what: list[Any] = []
            for a in args:
                if isinstance(a, Tensor):
                    array = a.array
                    if type(a) is not Tensor:
                        return
                    what.append(
                        (
                            "tensor",
                            array.shape,
                            array.dtype,
                            array.strides,
                            a._leaf,
                            a._node is None,
                        )
                    )
                elif isinstance(a, _SCALARS):
                    what.append(("value", a))
                else:
                    return
            program.launch = launcher(program, what, Out, results) or False
        if program.launch is not False:
            program.launch.bind()
            self.launch = program.launch
            others = [made for made in self.launches if made is not program.launch]
            self.launches = [program.launch, *others[: MOST_LAUNCHES - 1]]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Compiled methods: one compiled function for each object."""
        if instance is None:
            return self
        mine = getattr(instance, "__dict__", None)
        if mine is None:  # __slots__: the object is an argument like others
            return types.MethodType(self, instance)
        bound = mine.get("_compiled_methods", {}).get(id(self))
        if bound is None:
            bound = Compiled(types.MethodType(self.fn, instance), **self._how())
            mine.setdefault("_compiled_methods", {})[id(self)] = bound
        return bound

    def _how(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "backend": self.backend,
            "dynamic": self.dynamic,
            "fullgraph": self.fullgraph,
        }

    def __reduce__(self) -> Any:
        return _compiled, (self.fn, self._how())  # pickles and copies start without programs

    def _run(self, program: Program, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        if self.check:
            return self._checked(program, tensors, args, kwargs)
        states = [g.get_state() for g in program.generators] if program.generators else []
        try:
            return execute(program, tensors)
        except Exception as e:
            if is_from_signal(e):
                raise
            # Nothing was written yet. Eagerly the step raises its own error, or, where a shape
            # depended on values, does what is right.
            for g, state in zip(program.generators, states, strict=True):
                g.set_state(state)
            result = self.fn(*args, **kwargs)
            program.misfits += 1
            if program.misfits > 8 and 2 * program.misfits > program.runs:
                kind = _kind(args), _kind(kwargs), tuple(kwargs), MODE.get()
                self._give_up(
                    kind, "the shapes of its results depend on values, and are others every time"
                )
            return result

    # --- recording --------------------------------------------------------------------------------

    def _record(self, key: Any, kind: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Run eagerly, and make a program of it if it can be one."""
        if self.recordings.get(kind, 0) >= MOST_PROGRAMS:
            self._give_up(
                kind, "it was recorded again and again: what it reads is different in every call"
            )
            return self.fn(*args, **kwargs)
        for t in tensors:
            t._edge()  # views are looked at now, not while recording
        trim()  # what eager steps have left is not needed again: a program has its own memory
        names = Names(self.fn, [a for a in leaves((args, kwargs)) if not isinstance(a, Tensor)])
        given = _known((args, kwargs))
        trace = Trace(self.fullgraph, names.words)
        if names.refused:
            trace.failure = names.refused
        program = None
        nodes = [(t, t._node) for t in tensors if t._node is not None]
        chance = pyrandom.getstate(), _numpy_chance()
        with tracing(trace):
            try:
                module = getattr(self.fn, "__self__", None)
                if hasattr(module, "_modules"):
                    trace.saw_module(module)
                for i, t in enumerate(tensors):
                    trace.argument(t, i)
                result = self.fn(*args, **kwargs)
                if trace.failure is None and chance != (pyrandom.getstate(), _numpy_chance()):
                    trace.fail("it draws from Python's or NumPy's random numbers: use kilograd's")
                if trace.failure is None:
                    program = _finish(trace, result, tensors, names)
            finally:
                for t, node in nodes:
                    if type(t._node) is Gate:
                        t._node = node
        why = trace.failure
        if why is not None and not trace.again:
            self._give_up(kind, why)
            return mapped(concrete, result)
        if program is not None:
            why = _side_effects(trace, names, result)
        if why is None and _known((args, kwargs)) != given:
            why = "it changes a list or dictionary that it was given"
        if why is not None:  # optimizers and lazy layers come to rest after a step or two
            self.unsettled[kind] = tries = self.unsettled.get(kind, 0) + 1
            if tries >= TRIES:
                self._give_up(kind, why)
            return mapped(concrete, result)
        assert program is not None
        _prepare(program, self.backend)
        self.recordings[kind] = self.recordings.get(kind, 0) + 1
        if len(self.programs) >= MOST_SIGNATURES and key not in self.programs:
            del self.programs[next(iter(self.programs))]
        programs = self.programs.get(key, [])
        self.programs[key] = [program, *programs[: MOST_PROGRAMS - 1]]
        self.last = program
        return result

    def _give_up(self, kind: Any, why: str) -> None:
        """Run calls of this kind eagerly from here on, and say so once."""
        if self.fullgraph:
            raise TraceError(why)
        if len(self.eager) > MOST_SIGNATURES:
            self.eager.clear()
        self.eager[kind] = why
        name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        warnings.warn(f"kg.compile: {name} runs eagerly: {why}", RuntimeWarning, stacklevel=4)

    # --- checking -----------------------------------------------------------------------------------

    def _checked(self, program: Program, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Eager and program side by side, from the same state; what eager left behind stays."""
        arrays = [a for a in program.values(tensors) if isinstance(a, np.ndarray)]
        before = [a.copy() for a in arrays]
        owners = [_owner(o, tensors) for o, _ in (*program.grads, *program.other_grads)]
        grads = [t.__dict__.get("grad") for t in owners]
        modes = [(m, m.training) for m, _ in program.modes]
        flags = [(_owner(o, tensors), _owner(o, tensors)._leaf) for o, _ in program.leaves]
        counters = [(c, c[0]) for c, _ in program.counters(tensors)]
        states = [g.get_state() for g in program.generators]

        def state(result: Any) -> list[Any]:
            found = [np.array(t.array) for t in leaves(result) if isinstance(t, Tensor)]
            found += [a.copy() for a in arrays]
            return found + [
                None if (g := t.__dict__.get("grad")) is None else g.array.copy() for t in owners
            ]

        got: Any = None
        error: Exception | None = None
        try:
            got = state(execute(program, tensors))
        except Exception as e:  # then eager must raise, too
            error = e
        after = [g.get_state() for g in program.generators]
        for a, old in zip(arrays, before, strict=True):
            if a.flags.writeable:
                a[...] = old
        for t, g in zip(owners, grads, strict=True):
            t.grad = g
        for m, training in modes:
            m.training = training
        for t, leaf in flags:
            t._leaf = leaf
        for cell, count in counters:
            cell[0] = count
        for g, old in zip(program.generators, states, strict=True):
            g.set_state(old)
        result = self.fn(*args, **kwargs)
        if isinstance(error, TraceError):  # a shape that depends on values
            return result
        if error is not None:
            raise AssertionError(
                "compile(check=True): the program raises, eager does not"
            ) from error
        want = state(result)
        for g, now in zip(program.generators, after, strict=True):
            if not (g.get_state() == now).all():
                raise AssertionError("compile(check=True): the program drew other random numbers")
        if len(got) != len(want):
            raise AssertionError("compile(check=True): the program gave another number of results")
        largest = max([_size(b) for b in want], default=0.0)
        kinds = {v.dtype for eq in program.graph.equations for v in eq.outs if not v.number}
        rough = max([float(np.finfo(k).eps) for k in kinds if k.kind in "fc"], default=0.0)
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            _same(a, b, f"result {i} of {len(got)}", largest, rough)
        return result

    # --- what was compiled ----------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """The program that ran last; ``print(step.graph)`` shows it as Python."""
        if self.last is None:
            raise RuntimeError("nothing is compiled yet: call the function first")
        return self.last.graph

    @property
    def source(self) -> str:
        """The code that runs: the NumPy program, or the native kernels and the calls of them."""
        graph = self.graph
        runner: Any = self.last.runner if self.last else None
        return runner.source() if hasattr(runner, "source") else str(graph)

    def explain(self) -> str:
        """What was fused, what fell back and why, bytes, FLOPs and buffers, in words."""
        from kilograd.compile.report import explain

        return explain(self)


def _size(a: Any) -> float:
    """The largest finite number of an array of floats."""
    if a is None or a.dtype.kind not in "fc":
        return 0.0
    return float(np.abs(np.where(np.isfinite(a), a, 0)).max(initial=0.0))


def _same(a: Any, b: Any, what: str, largest: float, rough: float) -> None:
    """Refuse what differs by more than rounding, ``rough`` being that of the least precise values."""
    if a is None or b is None:
        if a is not b:
            raise AssertionError(f"compile(check=True): {what} is None in one of program and eager")
        return
    if a.shape != b.shape or a.dtype != b.dtype:
        raise AssertionError(
            f"compile(check=True): {what} is {a.dtype}{list(a.shape)}, eagerly {b.dtype}{list(b.shape)}"
        )
    if a.dtype.kind in "fc":
        eps = max(float(np.finfo(a.dtype).eps), rough)
        scale = _size(b)
        # Where larger numbers cancel (a bias before a batch norm), rounding is all that is left.
        atol = max(5000 * eps * scale, 8 * eps * largest)
        close = np.isclose(a, b, rtol=2000 * eps, atol=atol, equal_nan=True)
        if not close.all():
            worst = float(np.nanmax(np.abs(a.astype(np.float64) - b), initial=0.0))
            raise AssertionError(
                f"compile(check=True): {what} differs by {worst:.3g} (largest value {scale:.3g})"
            )
    elif not np.array_equal(a, b):
        raise AssertionError(f"compile(check=True): {what} differs")


def _compiled(fn: Any, how: dict[str, Any]) -> Compiled:
    return Compiled(fn, **how)


def _numpy_chance() -> Any:
    """Where NumPy's own generator is."""
    name, key, position, *rest = np.random.get_state()
    return name, np.asarray(key).tobytes(), position, rest


# --- signatures ---------------------------------------------------------------------------------------


def _signature(args: tuple[Any, ...], tensors: list[Tensor]) -> Any:
    """What chooses the program; the tensors found are appended."""
    parts: list[Any] = []
    for a in args:
        if isinstance(a, Tensor):
            tensors.append(a)
            array = a.array
            if isinstance(array, Recorded):
                raise TraceError(
                    "a lazy tensor is given to a compiled function: give it kg.tensor(t.numpy())"
                )
            if a._view is not None:
                a._edge()  # it may have a graph by now
            parts += (array.shape, array.dtype, array.strides, a._leaf, a._node is None)
        elif isinstance(a, _SCALARS):
            parts += (type(a), a if a else str(a))  # 0.0 is not -0.0
        elif isinstance(a, (tuple, list)):
            parts += (type(a), _signature(tuple(a), tensors))
        elif isinstance(a, dict):
            parts += (type(a), tuple(a), _signature(tuple(a.values()), tensors))
        else:
            parts += (type(a), _Identity(a))
    return tuple(parts)


class _Identity:
    """An object of the user's as part of a key: it, and not one that is equal."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return type(other) is _Identity and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)


def _shared(tensors: list[Tensor]) -> Any:
    """Which arguments are the same array; None if all are different ones."""
    ids = [id(t.array) for t in tensors]
    return None if len(set(ids)) == len(ids) else tuple([ids.index(i) for i in ids])


def _kind(a: Any) -> Any:
    """A signature less the values that may well be others in every call."""
    if isinstance(a, Tensor):
        return a.array.shape, a.array.dtype, a._leaf, a._node is None
    if isinstance(a, (bool, str, type(None))):
        return a
    if isinstance(a, (tuple, list)):
        return tuple([_kind(v) for v in a])
    if isinstance(a, dict):
        return tuple([(k, _kind(v)) for k, v in a.items()])
    return type(a)


# --- the end of a recording ---------------------------------------------------------------------------


def _finish(trace: Trace, result: Any, tensors: list[Tensor], names: Names) -> Program | None:
    """Close a recording: outputs, writes, gradients, guards. None if it failed after all."""
    graph = trace.graph
    program = Program(graph, trace.sources, Guards(names))
    places = _Places(trace, tensors)
    made = {id(t) for ref, _ in trace.made if (t := ref()) is not None}
    results = [t for t in leaves(result) if isinstance(t, Tensor)]
    changed = [
        (owner, now) for owner, before in trace.grads.values()
        if id(owner) not in made
        and ((now := owner.__dict__.get("grad")) is not before or (now is None and id(owner) in trace.grads_set))
    ]  # fmt: skip
    places.expect([*results, *[now for _, now in changed if now is not None]])

    def place(x: Any) -> Any:
        if isinstance(x, Tensor):
            return places.of(x)
        plain = isinstance(x, (*_SCALARS, tuple, type, np.dtype, kilograd_dtype))
        if not (plain or is_module(x) or is_optimizer(x)):
            trace.fail(
                f"a compiled function returned a {type(x).__name__}, which is no tensor or number"
            )
        return x

    program.template = mapped(place, result)
    for owner, now in changed:
        spec = None if now is None else places.of(now)
        at = places.number(owner)
        if spec is None:
            program.grads.append((at, None))
        elif type(spec) is Out and not (spec.differentiable or spec.dead) and places.once(spec):
            program.grads.append((at, spec.index))
        else:
            program.other_grads.append((at, spec))
    if trace.failure is not None:
        return None
    program.differentiable = [s for s, _ in places.differentiable]
    _find_writes(trace, program)
    for t, _ in trace.requires.values():
        if id(t) not in made and t._leaf is not trace.requires[id(t)][1]:
            program.leaves.append((places.number(t), t._leaf))
    for t in trace.owners.values():
        if t._node is not None and type(t._node) is not Gate and id(t) not in made:
            trace.fail("a tensor of outside gets a graph, by an operation in place")
    for source in trace.sources:
        if source.kind == "setting":
            name, at = source.key
            now = source.owner.get(name)
            if (now if at is None else now[at]) != source.array:
                trace.fail(
                    f"the setting {name!r} of an optimizer is changed in a compiled function"
                )
    read = {id(s.owner) for s in trace.sources if s.kind == "grad"}
    for cell, seen, t in trace.cells.values():
        if cell[0] != seen:
            at, grad_of, times = places.number(t), trace.grad_owner.get(id(t)), cell[0] - seen
            if type(at) is int:
                program.argument_cells.append((at, times))
            elif grad_of is not None and id(grad_of) in read:
                program.grad_cells.append((places.number(grad_of), times))
            else:
                program.cells.append((cell, times))
    graph.outputs = places.outputs
    program.generators = list(trace.generators.values())
    if places.differentiable and trace.failure is None:
        _add_backward(trace, program, places)
    if trace.failure is not None:
        return None
    if any(s.dead for s in places.outs):
        program.dead = DeadNode(next(t for s, t in places.made_of if s.dead))
    _guard(trace, program, places)
    return program


class _Places:
    """Where each tensor of the result comes from when the program runs."""

    def __init__(self, trace: Trace, tensors: list[Tensor]) -> None:
        self.trace = trace
        self.tensors = tensors
        self.outputs: list[Var] = []
        self.outs: list[Out] = []
        self.made_of: list[tuple[Out, Tensor]] = []
        self.differentiable: list[tuple[Out, Tensor]] = []
        self.known: dict[int, Any] = {}  # id(tensor) → its place
        self.uses: dict[int, int] = {}  # id(place) → how often it was asked for
        self.roots: dict[int, int] = {}  # id(root) → how many results lie in its memory
        self.main: dict[int, Any] = {}  # id(root) → the place of the tensor that has all of it
        self.sources = {
            id(trace.by_memory[id(s.array)]): s for s in trace.sources if s.kind != "setting"
        }

    def number(self, t: Tensor) -> Any:
        """The number of an argument, other tensors themselves."""
        return next((i for i, a in enumerate(self.tensors) if a is t), t)

    def once(self, place: Any) -> bool:
        return self.uses[id(place)] == 1

    def expect(self, tensors: list[Tensor]) -> None:
        """Count how many of the results share memory."""
        distinct = {id(t): t for t in tensors}
        for t in distinct.values():
            tracer = t.__dict__["array"]
            if isinstance(tracer, Tracer):
                self.roots[id(tracer.root)] = self.roots.get(id(tracer.root), 0) + 1
        for t in distinct.values():  # those that own what others look at come first
            tracer = t.__dict__["array"]
            if not isinstance(tracer, Tracer) or t._view is not None or tracer.path != ():
                continue
            if id(tracer.root) not in self.sources and t._edge() is not None:
                self.of(t, count=False)

    def of(self, t: Tensor, count: bool = True) -> Any:
        place = self.known.get(id(t))
        if place is None:
            place = self.known[id(t)] = self._find(t)
        if count:
            self.uses[id(place)] = self.uses.get(id(place), 0) + 1
        return place

    def _find(self, t: Tensor) -> Any:
        trace = self.trace
        tracer = t.__dict__["array"]
        owner = trace.grad_owner.get(id(t))
        if owner is not None:
            return Same(self.number(owner), grad=True)
        if id(t) in trace.tracers or not isinstance(tracer, Tracer):
            return Same(self.number(t))
        if type(t) is not Tensor:
            trace.fail(f"a compiled function returned a new {type(t).__name__}")
        root = id(tracer.root)
        source = self.sources.get(root)
        if source is not None or self.roots.get(root, 0) > 1:
            steps = []
            base = t
            while base._view is not None and id(base) not in trace.tracers:
                base, op, options = base._view
                steps.append((op, options))
            if steps:
                if any(isinstance(x, Recorded) for _, options in steps for x in leaves(options)):
                    trace.fail("a compiled function returned a view that depends on values")
                return View(self.of(base, count=False), steps[::-1])
            if source is not None and t._edge() is not None:
                trace.fail("a compiled function returned a tensor in the memory of an argument")
            if source is not None:
                counted = any(c is t._cell for c, _, _ in trace.cells.values())
                return Alias(source, tracer.path, counted, t._cut_view)
            if root in self.main and t._edge() is None:
                main, cell = self.main[root]
                return Alias(main, tracer.path, cell is t._cell, t._cut_view)
        self.outputs.append(tracer.var)
        place = Out(len(self.outputs) - 1, t)
        if tracer.path == ():
            self.main.setdefault(root, (place, t._cell))
        self.outs.append(place)
        self.made_of.append((place, t))
        if t._node is not None:
            place.differentiable = _graph_is_alive(t)
            place.dead = not place.differentiable
            if place.differentiable:
                self.differentiable.append((place, t))
        if t.__dict__.get("grad") is not None:
            place.grad = self.of(t.__dict__["grad"])
        return place


def _find_writes(trace: Trace, program: Program) -> None:
    """What is written at the end, to which inputs."""
    graph = trace.graph
    written = trace.written()
    for source, value in written:
        graph.writes.append((source.var, value))
        program.written.append(source)
        for other in trace.sources:
            if (
                other is not source
                and other.kind != "setting"
                and np.may_share_memory(other.array, source.array)
            ):
                trace.fail("a tensor is written whose memory another tensor of the function shares")
                return
    if len(written) > 1:  # a value that is (a view of) another written input is copied before
        looks_at = _lookers(graph)
        targets = {target for target, _ in graph.writes}
        for k, (target, value) in enumerate(graph.writes):
            if looks_at.get(value, value) in targets - {target}:
                graph.writes[k] = (target, _copied(trace, value))


def _copied(trace: Trace, v: Var) -> Var:
    """A copy of a value that will be overwritten."""
    new = Var(f"v{next(trace.counter)}", v.shape, v.dtype)
    trace.graph.equations.append(Equation((new,), np.copy, (v,), {}))
    return new


def _lookers(graph: Graph) -> dict[Var, Var]:
    """Values that may lie in the memory of an input: that input."""
    looks_at = {v: v for v in graph.inputs}
    for eq in graph.equations:
        if not makes_new_memory(eq):
            root = next((looks_at[v] for v in eq.inputs() if v in looks_at), None)
            if root is not None:
                looks_at.update((v, root) for v in eq.outs)
    return looks_at


def makes_new_memory(eq: Equation) -> bool:
    """Whether the result of an equation is surely in new memory."""
    fn = eq.fn
    return (
        isinstance(fn, np.ufunc) or isinstance(getattr(fn, "__self__", None), np.ufunc)
        or fn in (put, put_view, cast, np.copy, np.where, np.concatenate, np.ndarray.copy, np.ndarray.sum,
                  np.ndarray.mean, np.ndarray.max, np.ndarray.min, np.ndarray.prod, np.sum, np.mean)
    )  # fmt: skip


def _graph_is_alive(t: Tensor) -> bool:
    """Whether backward may still go through the graph of a result."""
    return all(
        type(n) in (Pick, Gate) or (n.kept is not None and getattr(n, "raw", ()) is not None)
        for n in _inside([t._node])
    )


def _inside(roots: list[Any]) -> list[Node]:
    """The nodes of a graph up to the gates of the arguments."""
    found: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in found:
            found[id(node)] = node
            if type(node) is not Gate:
                stack += node.inputs
    return list(found.values())


def _add_backward(trace: Trace, program: Program, places: _Places) -> None:
    """Record the backward pass too, from gradients that come from outside, and cut it off."""
    graph = trace.graph
    nodes = _inside([t._node for _, t in places.differentiable])
    gates = {id(t._node): i for i, t in enumerate(places.tensors) if type(t._node) is Gate}
    targets: dict[Any, Any] = {}  # a leaf, or the gate of an argument → whose gradient it is
    for node in nodes:
        if node.hooks or (node.retain is not None and node.retain() is not None):
            trace.fail(
                "retain_grad() or a hook on a tensor that is differentiated outside of the function"
            )
            return
        if type(node) is Gate:
            targets[node] = gates[id(node)]
        for e in node.inputs:
            if isinstance(e, Tensor):
                targets[e] = places.number(e)
    upstream: list[Tracer] = []
    for _, t in places.differentiable:
        value = np.ones(t.array.shape, t.array.dtype)
        upstream.append(Tracer(trace, value, trace.variable(value, "g")))
    seeds: Any = [(t._node, g) for (_, t), g in zip(places.differentiable, upstream, strict=True)]
    first, writes = len(graph.equations), list(graph.writes)
    outside = [(node, node.inputs) for node in nodes if type(node) is Gate]
    states = [
        (g, g.get_state.__wrapped__(g)) for g in (*program.generators, random.default_generator)
    ]
    try:
        for gate, _ in outside:
            gate.inputs = ()
        grads, _ = run(seeds, retain_graph=True, create_graph=False, wanted=set(targets))
    except GradError:  # a kept value was changed: outside it would raise just so
        del graph.equations[first:]
        for place, _ in places.differentiable:
            place.differentiable, place.dead = False, True
        places.differentiable, program.differentiable = [], []
        return
    finally:
        for gate, inputs in outside:
            gate.inputs = inputs
        for g, state in states:
            g.set_state.__wrapped__(g, state)
    if trace.failure is not None:
        return
    second = Graph()
    second.constants = graph.constants
    second.equations = graph.equations[first:]
    del graph.equations[first:]
    graph.writes = writes
    edges = [e for e in targets if e in grads]
    second.outputs = [trace.as_var(grads[e]) for e in edges]
    given = {v for eq in second.equations for v in eq.outs} | set(graph.constants)
    given |= {u.var for u in upstream}
    needed = [v for eq in second.equations for v in eq.inputs()] + second.outputs
    saved = [v for v in dict.fromkeys(needed) if v not in given]
    second.inputs = [*saved, *[u.var for u in upstream]]
    second = passes.optimised(second)
    saved = second.inputs[: len(saved)]
    # What is kept must not change until backward: version counters tell.
    looks_at, sources = _lookers(graph), {s.var: s for s in program.sources}
    targets_of_writes = {target for target, _ in graph.writes}
    at: list[int] = []
    counters: list[Any] = []
    for v in saved:
        root = looks_at.get(v)
        if root in targets_of_writes:
            v = _copied(trace, v)
        elif root is not None and sources[root].kind != "setting":
            counters.append(sources[root])
        counters += [place for place in places.outs if graph.outputs[place.index] is v]
        graph.outputs.append(v)
        at.append(len(graph.outputs) - 1)
    program.backward = Backward(second, at, [targets[e] for e in edges], counters)


def _guard(trace: Trace, program: Program, places: _Places) -> None:
    """Write down what the program depends on."""
    guards, tensors = program.guards, places.tensors
    guards.settings = [(s.owner, s.key, s.array) for s in trace.pinned]
    guards.groups = trace.plain_groups
    for module, state, training in trace.modules.values():
        guards.modules.append((module, state))
        guards.training.append((module, training))
        if module.training is not training:
            program.modes.append((module, module.training))
    if guards.names is not None:
        for module, state, training in guards.names.modules:
            if id(module) not in trace.modules:
                guards.modules.append((module, state))
                guards.training.append((module, training))
                if module.training is not training:
                    program.modes.append((module, module.training))
        guards.leaves += [r for r in guards.names.leaves if id(r[0]) not in trace.requires]
    guards.optimizers = list(trace.optimizers.values())
    guards.tensors = [s.owner for s in trace.sources if s.kind == "tensor"]
    seen = set()
    for t in trace.owners.values():
        if (
            any(s.owner is t for s in trace.sources if s.kind == "tensor")
            and id(t) not in trace.requires
        ):
            guards.leaves.append((t, t._leaf))
    guards.leaves += [r for r in trace.requires.values() if type(places.number(r[0])) is not int]
    read = {id(s.owner) for s in trace.sources if s.kind == "grad"}
    made = {id(t) for ref, _ in trace.made if (t := ref()) is not None}
    for t in trace.grads_read.values():
        if id(t) in made or id(t) in seen:
            continue
        seen.add(id(t))
        before = trace.grads[id(t)][1]
        if before is None:
            guards.no_grad_at_start.append(places.number(t))
        elif id(t) in read:
            guards.grads.append((places.number(t), layout(before.__dict__["array"])))
        else:
            guards.grad_at_start.append(places.number(t))
    for s in trace.sources:
        if s.kind == "grad":
            s.owner = places.number(s.owner)
    guards.writes_arguments = any(s.kind == "argument" for s in program.written)
    guards.close()
    own = {id(t) for t in guards.names.tensors()} if guards.names is not None else set()
    for module, _, _ in trace.modules.values():
        own |= {id(t) for t in (*module._parameters.values(), *module._buffers.values())}
    for optimizer, _ in trace.optimizers.values():
        own |= {id(p) for g in optimizer.param_groups for p in g["params"]}
    given = {id(t) for t in tensors}
    stands_for = {id(tracer) for k, tracer in trace.tracers.items() if k not in given}
    for i, t in enumerate(tensors):  # those by which the program reads a tensor of its own
        if (
            id(t) in own
            or memory(t.__dict__["array"]) in guards.memories
            or id(trace.tracers.get(id(t))) in stands_for
        ):
            guards.same[i] = t


def _side_effects(trace: Trace, names: Names, result: Any) -> str | None:
    """What the step did besides computing, which a program would not do again."""
    known: dict[int, Any] = {}
    for t in (*leaves(result), *[o.__dict__.get("grad") for o, _ in trace.grads.values()]):
        while isinstance(t, Tensor) and id(t) not in known:
            known[id(t)] = t
            if isinstance(grad := t.__dict__.get("grad"), Tensor):
                known[id(grad)] = grad
            t = t._view[0] if t._view is not None else None
    for node in _inside([t._node for t in known.values() if t._node is not None]):
        _held_by(node, known)
    trace.forget_grads()  # else they are held there
    alive = trace.survivors(set(known))
    if alive:
        gc.collect()
        alive = trace.survivors(set(known))
    if alive:
        lines = "\n  made at ".join(dict.fromkeys(alive[:4]))
        return f"it keeps tensors that it computed (a program would not renew them):\n  made at {lines}"
    if (name := names.changed()) is not None:
        return f"it changes {name!r}, which it also reads"
    for module, state, _ in trace.modules.values():
        if module_state(module, names.words) != state:
            return f"it changes attributes of a {type(module).__name__}"
    for module, state, _ in names.modules:
        if id(module) not in trace.modules and module_state(module, names.words) != state:
            return f"it changes a {type(module).__name__}"
    for optimizer, state in trace.optimizers.values():
        if optimizer_state(optimizer) != state:
            return f"it changes the state of {type(optimizer).__name__}"
    return None


def _held_by(node: Any, known: dict[int, Any]) -> None:
    """Add the tensors that a graph holds: leaves, and what custom functions and hooks keep."""
    stack = [
        *node.inputs,
        *vars(getattr(node, "ctx", FunctionCtx())).values(),
        *(node.hooks or {}).values(),
    ]
    seen = set()
    while stack:
        x = stack.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, Tensor):
            known[id(x)] = x
            stack.append(x.__dict__.get("grad"))
        elif isinstance(x, (tuple, list)):
            stack += x
        elif isinstance(x, types.FunctionType):
            stack += [c.cell_contents for c in x.__closure__ or ()]
        elif isinstance(x, types.MethodType):
            stack.append(x.__self__)
        elif "grad_output" in getattr(x, "__dict__", ()):  # a layer's backward hooks
            stack += vars(x).values()


def _prepare(program: Program, backend: str) -> None:
    """Passes, and the executor."""
    program.graph = graph = passes.optimised(program.graph)
    program.runner = None
    if backend != "numpy":
        program.runner = _native(program, backend)
    if program.runner is None:
        program.runner = numpy_executor.build(graph)
        new = {
            v for eq in graph.equations if eq.tree is None and makes_new_memory(eq) for v in eq.outs
        }
        where: dict[Var, int] = {}
        for i, v in enumerate(graph.outputs):
            if v in new and v not in where:
                where[v] = i
        program.fresh = set(where.values())
        program.kept = {memory(c) for c in graph.constants.values()}
    else:
        program.fresh = set(range(len(graph.outputs)))
    if program.backward is not None:
        how: Any = numpy_executor.build
        if hasattr(program.runner, "bind"):
            from kilograd.compile.native_executor import Function as how
        program.backward.run = how(program.backward.graph)
    for s in program.sources:
        s.array = None


_said: set[str] = set()


def _native(program: Program, backend: str) -> Any:
    try:
        from kilograd.compile import native_executor
        from kilograd.kernels.native import build
    except ImportError:
        return None
    if not build.available():
        why = build.why_not()
        if why not in _said:
            _said.add(why)
            warnings.warn(
                f"kg.compile uses its NumPy executor: {why}", RuntimeWarning, stacklevel=6
            )
        return None
    return native_executor.build(program.graph, program.sources)


def execute(program: Program, tensors: list[Tensor]) -> Any:
    """Run a program and put its results where the eager step would."""
    values = program.values(tensors)
    with np.errstate(all="ignore"):
        outputs, writes = program.runner(*values)
    _own(program, outputs, values)
    if writes:  # (the native executor has written them)
        place = {s.var: a for s, a in zip(program.sources, values, strict=True)}
        for (target, _), value in zip(program.graph.writes, writes, strict=True):
            np.copyto(place[target], value)
    for cell, times in program.counters(tensors):
        cell[0] += times
    for owner, index in program.grads:
        grad = None if index is None else wrap(outputs[index])
        _owner(owner, tensors).__dict__["grad"] = grad
    program.runs += 1
    return results(program, outputs, tensors)


def _own(program: Program, outputs: list[Any], values: list[Any]) -> None:
    """Copy the outputs that lie in the memory of inputs, constants or one another."""
    saved = (
        program.backward.saved[0] if program.backward and program.backward.saved else len(outputs)
    )
    taken: set[int] | None = None
    for i in range(min(saved, len(outputs))):
        if i in program.fresh:
            continue
        if taken is None:
            taken = {memory(v) for v in values if isinstance(v, np.ndarray)} | program.kept
            taken |= {memory(np.asarray(outputs[k])) for k in program.fresh}
        x = np.asarray(outputs[i])
        if memory(x) in taken:
            x = x.copy(order="K")
        taken.add(memory(x))
        outputs[i] = x
    for i in program.fresh:
        if type(outputs[i]) is not np.ndarray:
            outputs[i] = np.asarray(outputs[i])


def results(program: Program, outputs: list[Any], tensors: list[Tensor]) -> Any:
    """The function's result, from the outputs of its program; and what else it leaves behind."""
    made: dict[int, Tensor] = {}
    if program.backward is not None:
        _connect(program, program.backward, outputs, tensors, made)
    template = program.template
    if type(template) in _PLACES:
        result: Any = _tensor(template, program, outputs, tensors, made)
    else:
        result = mapped(lambda x: _tensor(x, program, outputs, tensors, made), template)
    for owner, place in program.other_grads:
        grad = _tensor(place, program, outputs, tensors, made)
        _owner(owner, tensors).__dict__["grad"] = grad
    for module, training in program.modes:
        module.training = training
    for owner, leaf in program.leaves:
        _owner(owner, tensors)._leaf = leaf
    return result


def _tensor(
    place: Any, program: Program, outputs: list[Any], tensors: list[Tensor], made: Any
) -> Any:
    """What is in one place of the result."""
    kind = type(place)
    if kind is Same:
        t = _owner(place.owner, tensors)
        return t.__dict__["grad"] if place.grad else t
    if kind not in _PLACES:
        return place
    t = made.get(id(place))
    if t is not None:
        return t
    if kind is Out:
        t = wrap(outputs[place.index])
        if place.dead:
            t._node = program.dead
        if place.leaf:
            t._leaf = True
        if place.inference:
            t._inference = True
        if place.grad is not None:
            t.grad = _tensor(place.grad, program, outputs, tensors, made)
    elif kind is View:
        t = _tensor(place.base, program, outputs, tensors, made)
        for op, options in place.steps:
            t = apply(op, (t,), options)
    elif type(place.base) is Source:
        t = wrap(follow(place.path, _array_of(place.base, tensors)))
        if place.counted:
            t._cell = _counter(place.base, tensors)
        t._cut_view = place.cut
    else:
        base = _tensor(place.base, program, outputs, tensors, made)
        t = wrap(follow(place.path, base.array))
        if place.counted:
            t._cell = base._cell
        t._cut_view = place.cut
    made[id(place)] = t
    return t


def _counter(s: Source, tensors: list[Tensor]) -> list[int]:
    """The version counter of an input."""
    if s.kind == "argument":
        return tensors[s.key]._cell
    return s.owner._cell if s.kind == "tensor" else _owner(s.owner, tensors).__dict__["grad"]._cell


_PLACES = (Out, Same, View, Alias)


def _connect(
    program: Program,
    backward: Backward,
    outputs: list[Any],
    tensors: list[Tensor],
    made: dict[int, Tensor],
) -> None:
    """Give results the graph of one node: the recorded backward pass."""
    roots = [_tensor(p, program, outputs, tensors, made) for p in program.differentiable]
    edges = [_owner(o, tensors)._edge() for o in backward.leaves]
    kept = tuple(
        [np.asarray(x) if isinstance(x := outputs[i], np.generic) else x for i in backward.saved]
    )
    cells = [
        _tensor(c, program, outputs, tensors, made)._cell if type(c) is Out else _counter(c, tensors)
        for c in backward.counters
    ]  # fmt: skip
    node = ProgramNode(backward, kept, edges, roots, tuple(cells))
    for i, t in enumerate(roots):
        t._node = Pick(node, i)

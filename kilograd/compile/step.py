"""A compiled function: programs by signature, guards, and what is done where a program does not fit.

``compile(fn)(*args)``: the arguments' shapes, dtypes and Python values choose among the programs that
were recorded; its guards say whether it still holds; it runs. Otherwise the call is eager, and is
recorded on the way.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd.driver import Node, Pick, reachable, run
from kilograd.autograd.modes import MODE
from kilograd.compile import numpy_executor, passes
from kilograd.compile.graph import Graph, Var, leaves, mapped, variables
from kilograd.compile.guards import Guards, Names, layout, module_state, optimizer_state
from kilograd.compile.tracer import Recorded, Source, Trace, Tracer, tracing
from kilograd.errors import GradError, TraceError
from kilograd.kernels.kernel import CHANGES, TRACE
from kilograd.tensor import Tensor, wrap

MOST_PROGRAMS = 16  # of one signature, and recordings that came to nothing
_enabled = os.environ.get("KILOGRAD_COMPILE", "1").lower() not in ("0", "false", "off", "no")
_disabled = threading.local()
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

    def __exit__(self, *exc: object) -> None:
        _disabled.depth -= 1


class Program:
    """One recording, ready to run: the graph, its guards, and how results become tensors."""

    def __init__(self, graph: Graph, sources: list[Source], guards: Guards) -> None:
        self.graph = graph
        self.sources = sources
        self.guards = guards
        self.template: Any = None  # the structure of the result, with _Out in it
        self.outs: list[Any] = []
        self.grads: list[tuple[Any, Any]] = []  # (owner, place in outputs or None)
        self.cells: list[tuple[Any, int]] = []  # (tensor source, how often it was written)
        self.generators: list[Any] = []
        self.backward: Backward | None = None
        self.runner: Any = None
        self.written: list[Any] = []  # sources in the order of graph.writes
        self.runs = 0

    def values(self, tensors: list[Tensor]) -> list[Any]:
        """What the inputs are now."""
        result: list[Any] = []
        for s in self.sources:
            if s.kind == "argument":
                result.append(tensors[s.key].array)
            elif s.kind == "tensor":
                result.append(s.owner.array)
            elif s.kind == "grad":
                result.append(_owner(s.owner, tensors).__dict__["grad"].array)
            else:
                value = s.owner[s.key[0]]
                value = value if s.key[1] is None else value[s.key[1]]
                result.append(value)
        return result


class _Out:
    """A place in the result: which output of the program, and how it is wrapped."""

    __slots__ = ("differentiable", "index", "same")

    def __init__(self, index: int, same: Any, differentiable: bool) -> None:
        self.index = index
        self.same = same  # the argument or tensor that is itself returned
        self.differentiable = differentiable


class Backward:
    """The second half of a program whose results are differentiated outside of it."""

    def __init__(self, graph: Graph, saved: list[int], leaves: list[Any]) -> None:
        self.graph = graph
        self.saved = saved  # which outputs of the first half it starts from
        self.leaves = leaves  # what its results are gradients of
        self.run = numpy_executor.build(graph)


class ProgramNode(Node):
    """What ``grad_fn`` shows of a compiled function's result."""

    __slots__ = ("backward",)

    def __init__(self, backward: Backward, kept: Any, edges: Any, shapes: Any, dtypes: Any) -> None:
        super().__init__(tuple(edges), shapes, dtypes)
        self.backward = backward
        self.kept = kept
        self.cells = ()
        self.plan = None  # type: ignore[assignment]

    def name(self) -> str:
        return "CompiledFunctionBackward"

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        if create_graph:
            raise GradError(
                "a compiled function cannot be differentiated twice from outside: compile the function "
                "that asks for the second derivative, or call it under kg.compile.disable()"
            )
        if self.kept is None:
            raise GradError(
                "Trying to backward through the graph a second time: what the compiled function had "
                "kept was freed by the first pass. Call the first backward with retain_graph=True."
            )
        found, _ = self.backward.run(*self.kept, *g)
        return [
            (edge, np.asarray(s))
            for edge, s in zip(self.inputs, found, strict=True)
            if edge is not None
        ]  # fmt: skip


def _owner(owner: Any, tensors: list[Tensor]) -> Any:
    """A tensor, or the argument of a number."""
    return tensors[owner] if type(owner) is int else owner


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
        self.attempts: dict[Any, int] = {}
        self.eager: dict[Any, str] = {}  # signatures that run eagerly, and why
        self.last: Program | None = None
        self.names: Names | None = None

    # --- calling ----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if TRACE.get() is not None or not _enabled or getattr(_disabled, "depth", 0):
            return self.fn(*args, **kwargs)
        mode = MODE.get()
        tensors: list[Tensor] = []
        key: Any = (_signature(args, tensors), mode)
        if kwargs:
            key = (*key, tuple(kwargs), _signature(tuple(kwargs.values()), tensors))
        found = self.programs.get(key)
        if found is not None:
            for program in found:
                if program.guards.why_not() is None:
                    self.last = program
                    return self._run(program, tensors, args, kwargs)
        if self.eager and (key in self.eager or None in self.eager):
            return self.fn(*args, **kwargs)
        with self._lock:
            return self._record(key, tensors, args, kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Compiled methods: one compiled function for each object."""
        if instance is None:
            return self
        bound = instance.__dict__.get("_compiled_methods", {}).get(id(self))
        if bound is None:
            bound = Compiled(
                functools.partial(self.fn, instance), check=self.check, backend=self.backend,
                dynamic=self.dynamic, fullgraph=self.fullgraph,
            )  # fmt: skip
            functools.update_wrapper(bound, self.fn, updated=())
            instance.__dict__.setdefault("_compiled_methods", {})[id(self)] = bound
        return bound

    def _run(self, program: Program, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        if self.check:
            return self._checked(program, tensors, args, kwargs)
        states = [g.get_state() for g in program.generators] if program.generators else []
        try:
            return execute(program, tensors)
        except Exception:
            # Nothing was written yet. Eagerly the step raises its own error, or, where a shape
            # depended on values, does what is right.
            for g, state in zip(program.generators, states, strict=True):
                g.set_state(state)
            return self.fn(*args, **kwargs)

    # --- recording --------------------------------------------------------------------------------

    def _record(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        if key[1].retain or key[1].anomaly:
            return self.fn(*args, **kwargs)
        if any(t._node is not None for t in tensors) and key[1].grad:
            pass  # arguments with a graph of their own: their gradient leaves through the node
        tries = self.attempts[key] = self.attempts.get(key, 0) + 1
        if tries > MOST_PROGRAMS:
            return self._give_up(key, "it was recorded again and again, for its guards kept failing", args, kwargs)
        if self.names is None:
            self.names = Names(self.fn)
        names = Names(self.fn)
        trace = Trace(self.fullgraph)
        with tracing(trace):
            module = getattr(self.fn, "__self__", None)
            if hasattr(module, "_modules"):
                trace.saw_module(module)
            for i, t in enumerate(tensors):
                trace.argument(t, i)
            result = self.fn(*args, **kwargs)
            program = None
            if trace.failure is None:
                program = _finish(trace, result, tensors)
        if program is None:
            self._warn(key, trace.failure or "")
            return result
        changed = names.state() != names.before
        names_state = names
        known = {id(t) for t in leaves(result) if isinstance(t, Tensor)}
        known |= {id(t) for owner, _ in program.grads if (t := _owner(owner, tensors).__dict__.get("grad")) is not None}
        for node_output in [result]:
            del node_output
        trace_survivors = _survivors(trace, known)
        if trace_survivors or changed:
            if tries >= 3:
                why = (
                    "it keeps tensors that it computed (they would not change when the program runs):\n  made at "
                    + "\n  made at ".join(dict.fromkeys(trace_survivors[:4]))
                    if trace_survivors
                    else "it changes a variable of Python that it also reads"
                )
                self._warn(key, why)
            return result
        program.guards.names = names_state
        _prepare(program, self.backend)
        self.programs.setdefault(key, []).insert(0, program)
        self.last = program
        return result

    def _give_up(self, key: Any, why: str, args: Any, kwargs: Any) -> Any:
        self._warn(key, why)
        return self.fn(*args, **kwargs)

    def _warn(self, key: Any, why: str) -> None:
        self.eager[key] = why
        if self.fullgraph:
            raise TraceError(why)
        name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        warnings.warn(f"kg.compile: {name} runs eagerly: {why}", RuntimeWarning, stacklevel=4)

    # --- checking -----------------------------------------------------------------------------------

    def _checked(self, program: Program, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Eager and program side by side, from the same state; what eager left behind stays."""
        before = [(s, a, a.copy()) for s, a in zip(program.sources, program.values(tensors), strict=True)
                  if isinstance(a, np.ndarray)]  # fmt: skip
        grads = [(_owner(o, tensors), _owner(o, tensors).__dict__.get("grad")) for o, _ in program.grads]
        states = [g.get_state() for g in program.generators]
        compiled = execute(program, tensors)
        got = [np.array(t.array) for t in leaves(compiled) if isinstance(t, Tensor)]
        got += [a.copy() for _, a, _ in before]
        got += [np.array(g.array) for t, _ in grads if (g := t.__dict__.get("grad")) is not None]
        after = [g.get_state() for g in program.generators]
        for _, a, old in before:
            a[...] = old
        for t, g in grads:
            t.grad = g
        for g, state in zip(program.generators, states, strict=True):
            g.set_state(state)
        result = self.fn(*args, **kwargs)
        want = [t.array for t in leaves(result) if isinstance(t, Tensor)]
        want += [a for _, a, _ in before]
        want += [g.array for t, _ in grads if (g := t.__dict__.get("grad")) is not None]
        for g, state in zip(program.generators, after, strict=True):
            if not (g.get_state() == state).all():
                raise AssertionError("compile(check=True): the program drew other random numbers")
        if len(got) != len(want):
            raise AssertionError("compile(check=True): the program gave another number of results")
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            _same(a, b, f"result {i} of {len(got)}")
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
        runner = self.last.runner if self.last else None
        return runner.source() if hasattr(runner, "source") else str(graph)

    def explain(self) -> str:
        """What was fused, what fell back and why, bytes, FLOPs and buffers, in words."""
        from kilograd.compile.report import explain

        return explain(self)


def _same(a: Any, b: Any, what: str) -> None:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise AssertionError(
            f"compile(check=True): {what} is {a.dtype}{list(a.shape)}, eagerly {b.dtype}{list(b.shape)}"
        )
    if a.dtype.kind in "fc":
        eps = float(np.finfo(a.dtype).eps)
        scale = float(np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=0.0))
        close = np.isclose(a, b, rtol=2000 * eps, atol=200 * eps * (scale + eps), equal_nan=True)
        if not close.all():
            worst = float(np.nanmax(np.abs(a.astype(np.float64) - b), initial=0.0))
            raise AssertionError(
                f"compile(check=True): {what} differs by {worst:.3g} (largest value {scale:.3g})"
            )
    elif not np.array_equal(a, b):
        raise AssertionError(f"compile(check=True): {what} differs")


def _survivors(trace: Trace, known: set[int]) -> list[str]:
    alive = trace.survivors(known)
    if alive:
        import gc

        gc.collect()
        alive = trace.survivors(known)
    return alive


def _signature(args: tuple[Any, ...], tensors: list[Tensor]) -> Any:
    """What chooses the program; the tensors found are appended."""
    parts: list[Any] = []
    for a in args:
        if isinstance(a, Tensor):
            tensors.append(a)
            array = a.array
            parts += (array.shape, array.dtype, array.strides, a._leaf, a._node is None)
        elif isinstance(a, _SCALARS):
            parts += (type(a), a)
        elif type(a) in (tuple, list):
            parts += (type(a), _signature(tuple(a), tensors))
        elif type(a) is dict:
            parts += (dict, tuple(a), _signature(tuple(a.values()), tensors))
        elif isinstance(a, tuple) and hasattr(a, "_fields"):
            parts += (type(a), _signature(tuple(a), tensors))
        else:
            parts += (type(a), _identity(a))
    return tuple(parts)


def _identity(a: Any) -> Any:
    try:
        hash(a)
    except TypeError:
        return id(a)
    return a


def _finish(trace: Trace, result: Any, tensors: list[Tensor]) -> Program | None:
    """Close a recording: outputs, writes, gradients, guards."""
    graph = trace.graph
    program = Program(graph, trace.sources, Guards(None))
    outputs: list[Var] = []
    differentiable: list[Tensor] = []

    def place(x: Any) -> Any:
        if isinstance(x, Tensor):
            tracer = x.array
            if not isinstance(tracer, Tracer):
                tracer = trace.lift(x, tracer)
                if not isinstance(tracer, Tracer):
                    return x
            outputs.append(tracer.var)
            same: Any = None
            if id(x) in trace.tracers:
                same = next((i for i, t in enumerate(tensors) if t is x), x)
            alive = x._edge() is not None and _graph_is_alive(x)
            if alive and same is None:
                differentiable.append(x)
            return _Out(len(outputs) - 1, same, alive and same is None)
        if isinstance(x, (Recorded, np.ndarray)):
            trace.fail("a compiled function returned an array that is no tensor")
        return x

    program.template = mapped(place, result)
    if trace.failure is not None:
        return None
    for t, before in trace.grads.values():
        if any(ref() is t for ref, _ in trace.made):
            continue  # made here
        now = t.__dict__.get("grad")
        if now is before:
            continue
        owner = next((i for i, a in enumerate(tensors) if a is t), t)
        if now is None:
            program.grads.append((owner, None))
        else:
            array = now.array
            outputs.append(array.var)
            program.grads.append((owner, len(outputs) - 1))
    for source, value in trace.written():
        graph.writes.append((source.var, value))
        program.written.append(source)
        if any(
            other is not source and other.kind != "setting"
            and np.may_share_memory(other.array, source.array)
            and np.shares_memory(other.array, source.array, max_work=10000)
            for other in trace.sources
        ):  # fmt: skip
            trace.fail("a tensor is written whose memory another tensor of the function shares")
            return None
    for cell, seen in trace.cells.values():
        if cell[0] != seen:
            program.cells.append((cell, cell[0] - seen))
    graph.outputs = outputs
    program.generators = list(trace.generators.values())
    if differentiable:
        _add_backward(trace, program, differentiable, tensors)
        if trace.failure is not None:
            return None
    guards = program.guards
    guards.settings = [(s.owner, s.key, s.array) for s in trace.pinned]
    for module in trace.modules.values():
        guards.modules.append((module, module_state(module)))
    for optimizer in trace.optimizers.values():
        guards.optimizers.append((optimizer, optimizer_state(optimizer)))
    for s in trace.sources:
        if s.kind == "tensor":
            guards.tensors.append(s.owner)
            guards.arrays.append(s.array)
            guards.layouts.append(layout(s.array))
            guards.leaves.append(s.owner._leaf)
    read = {s.owner if type(s.owner) is int else id(s.owner) for s in trace.sources if s.kind == "grad"}
    for t in trace.grads_read.values():
        if any(a is t for a in tensors) or any(ref() is t for ref, _ in trace.made):
            continue
        before = trace.grads[id(t)][1]
        if before is None:
            guards.no_grad_at_start.append(t)
        elif id(t) in read:
            guards.grads.append((t, layout(before.__dict__["array"])))
    guards.changes = CHANGES[0]
    return program


def _graph_is_alive(t: Tensor) -> bool:
    """Whether backward may still go through the graph of a result."""
    edge = t._edge()
    if not isinstance(edge, Node):
        return False
    return all(type(n) is Pick or n.kept is not None for n in reachable([edge]))


def _add_backward(trace: Trace, program: Program, outs: list[Tensor], tensors: list[Tensor]) -> None:
    """Record the backward pass too, from gradients that come from outside, and cut it off."""
    graph = trace.graph
    edges: Any = [t._edge() for t in outs]
    nodes = reachable(edges)
    found_leaves: dict[int, Tensor] = {}
    for node in nodes:
        for e in node.inputs:
            if isinstance(e, Tensor):
                found_leaves[id(e)] = e
    for node in nodes:
        if node.hooks:
            trace.fail("a tensor hook on a result that is differentiated outside of the compiled function")
            return
    upstream: list[Tracer] = []
    for t in outs:
        value = np.ones(t.array.shape, t.array.dtype)
        upstream.append(Tracer(trace, value, trace.variable(value, "g")))
    seeds: Any = list(zip(edges, upstream, strict=True))
    wanted: Any = set(found_leaves.values())
    first = len(graph.equations)
    written = list(graph.writes)
    grads, _ = run(seeds, retain_graph=True, create_graph=False, wanted=wanted)
    if trace.failure is not None:
        return
    second = Graph()
    second.constants = graph.constants
    second.equations = graph.equations[first:]
    graph.equations = graph.equations[:first]
    graph.writes = written
    leaves_in_order = [t for t in found_leaves.values() if t in grads]
    second.outputs = [trace.as_var(grads[t]) for t in leaves_in_order]
    given = {v for eq in second.equations for v in eq.outs} | set(graph.constants)
    upstream_vars = [u.var for u in upstream]
    needed = dict.fromkeys(
        v for eq in second.equations for v in eq.inputs() if v not in given and v not in upstream_vars
    )
    for v in second.outputs:
        if v not in given and v not in upstream_vars:
            needed[v] = None
    saved = list(needed)
    second.inputs = [*saved, *upstream_vars]
    places = []
    for v in saved:
        graph.outputs.append(v)
        places.append(len(graph.outputs) - 1)
    owners = [next((i for i, a in enumerate(tensors) if a is t), t) for t in leaves_in_order]
    program.backward = Backward(passes.optimised(second), places, owners)


def _prepare(program: Program, backend: str) -> None:
    """Passes, and the executor."""
    program.graph = passes.optimised(program.graph)
    program.runner = None
    if backend != "numpy":
        program.runner = _native(program, backend)
    if program.runner is None:
        program.runner = numpy_executor.build(program.graph)
    for s in program.sources:
        s.array = None  # type: ignore[assignment]


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
            warnings.warn(f"kg.compile uses its NumPy executor: {why}", RuntimeWarning, stacklevel=6)
        return None
    return native_executor.build(program)


def execute(program: Program, tensors: list[Tensor]) -> Any:
    """Run a program and put its results where the eager step would."""
    if hasattr(program.runner, "execute"):  # native
        return program.runner.execute(tensors)
    values = program.values(tensors)
    outputs, writes = program.runner(*values)
    if program.written:
        place = {s.var: a for s, a in zip(program.sources, values, strict=True)}
        for (target, _), value in zip(program.graph.writes, writes, strict=True):
            np.copyto(place[target], value)
    for cell, times in program.cells:
        cell[0] += times
    for owner, index in program.grads:
        grad = None
        if index is not None:
            grad = wrap(_own(outputs[index], values))
        _owner(owner, tensors).__dict__["grad"] = grad
    program.runs += 1
    return results(program, outputs, values, tensors)


def _own(x: Any, values: list[Any]) -> Any:
    """An array that shares no memory with the inputs."""
    x = np.asarray(x)
    if x.base is not None or any(x is v for v in values):
        x = x.copy()
    return x


def results(program: Program, outputs: list[Any], values: list[Any], tensors: list[Tensor]) -> Any:
    """The function's result, from the outputs of its program."""
    made: list[tuple[Tensor, int]] = []

    def tensor(x: Any) -> Any:
        if type(x) is not _Out:
            return x
        if x.same is not None:
            return _owner(x.same, tensors)
        t = wrap(_own(outputs[x.index], values))
        if x.differentiable:
            made.append((t, x.index))
        return t

    template = program.template
    result = tensor(template) if type(template) is _Out else mapped(tensor, template)
    backward = program.backward
    if backward is not None:
        edges = [_owner(o, tensors)._edge() for o in backward.leaves]
        kept = tuple(outputs[i] if not isinstance(outputs[i], np.generic) else np.asarray(outputs[i]) for i in backward.saved)
        kept = tuple(np.array(k) if any(k is v for v in values) and False else k for k in kept)
        node = ProgramNode(
            backward, kept, edges, [t.array.shape for t, _ in made], [t.array.dtype for t, _ in made]
        )
        for i, (t, _) in enumerate(made):
            t._node = Pick(node, i)
    return result


assert random
assert time
assert variables

"""A recording that also knows where each step came from: phase, module, op, rule; and undoes the step.

It is the compiler's recording (``compile/trace_state.py``). What it adds is found in the frames of the
running Python program, so nothing else has to keep books for it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd import calls as gradient_calls
from kilograd.autograd.driver import Node, Pick
from kilograd.compile.graph import Equation, Graph, Var, leaves, mapped
from kilograd.compile.trace_state import Trace, tracing
from kilograd.compile.tracer import Tracer
from kilograd.errors import TraceError
from kilograd.kernels.kernel import TRACE
from kilograd.nn.module import Module
from kilograd.nn.parameter import is_lazy
from kilograd.ops.op import Op
from kilograd.optim.lr_scheduler import LRScheduler
from kilograd.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from kilograd.tensor import Tensor, apply

_RULES = {Node.shares.__code__, Node._through_composition.__code__}
_CALL, _STEP = Module.__call__.__code__, "step"
_BACKWARD = gradient_calls.__file__  # where backward() and grad() are


@dataclass(frozen=True)
class Scope:
    """Where in the Python program an equation was recorded."""

    phase: str
    calls: tuple[int, ...]  # the module calls around it, as numbers of Recorded.calls
    op: Op | None
    rule: Callable[..., Any] | None
    run: int  # which run of an op or rule: equations with the same number belong to one
    parameter: Tensor | None  # the one that is being updated


class _Watched(list[Equation]):
    """The equations of a graph, each looked at when it is written down."""

    def __init__(self, trace: Recorded) -> None:
        self.trace = trace

    def append(self, eq: Equation) -> None:
        super().append(eq)
        scope = self.trace.scope()
        for v in eq.outs:
            self.trace.scopes[v] = scope


class Recorded(Trace):
    """A trace with scopes, and with what is needed to put everything back as it was."""

    def __init__(self) -> None:
        super().__init__(fullgraph=True)
        self.graph.equations = _Watched(self)
        self.scopes: dict[Var, Scope] = {}
        self.calls: list[Module] = []  # the module of each call, in order
        self._frames: dict[Any, int] = {}  # frame of a module's call → its number
        self._node_calls: dict[Node, tuple[int, ...]] = {}  # in which calls a node was made
        self._made_last: tuple[Tensor, tuple[int, ...]] | None = None
        self._runs: list[Any] = []  # the frame of the last run of an op
        self._before: list[tuple[Any, Any]] = []  # (array, its values before)
        self._buffers: list[tuple[Module, dict[str, Any]]] = []
        self._stepped: dict[int, tuple[Any, ...]] = {}  # optimizers as they were before
        self._schedules: list[tuple[Any, dict[str, Any]]] = []  # and what sets their learning rates
        self._generators: dict[Any, Any] = {}
        self._remember(random.default_generator)
        self.result: Any = None
        self.grad_vars: list[tuple[Tensor, Var]] = []

    # --- where we are -------------------------------------------------------------------------------

    def scope(self) -> Scope:
        """What the frames say about the equation that is being recorded."""
        frame: Any = sys._getframe(1)
        op = rule = node = at = parameter = None
        phase = "forward"
        calls: list[int] = []
        while frame is not None and (code := frame.f_code) is not recorded.__code__:
            # reading f_locals makes a frame hold on to what it has deleted: only of frames that soon end
            if code is apply.__code__ or code is Op.__call__.__code__:
                if node is None:  # inside of a rule, the rule is what runs
                    op, at = frame.f_locals["op" if code is apply.__code__ else "self"], frame
            elif code in _RULES:
                node, at = frame.f_locals["self"], frame
                op, rule = node.op, frame.f_locals.get("rule")
            elif code.co_filename == _BACKWARD:
                phase = "backward"
            elif code is _CALL:
                calls.append(self._call(frame, frame.f_locals["self"]))
            elif code.co_name == _STEP:
                local = frame.f_locals
                if isinstance(local.get("self"), Optimizer) and "p" in local:
                    phase, parameter = "update", local["p"]
                    at = at or (frame, id(parameter))
            frame = frame.f_back
        if at is not None and (not self._runs or self._runs[-1] != (at, rule)):
            self._runs.append((at, rule))
        chain = tuple(reversed(calls))
        if node is not None and phase == "backward":
            self._settle()
            chain = self._node_calls.get(node, chain)
        number = len(self._runs) if at is not None else -1 - len(self.graph.equations)
        return Scope(phase, chain, op, rule, number, parameter)

    def _call(self, frame: Any, module: Module) -> int:
        number = self._frames.get(frame)
        if number is None:
            number = self._frames[frame] = len(self.calls)
            self.calls.append(module)
        return number

    def _keep_track(self, t: Tensor, array: Any) -> Any:
        """A tensor was made: its node, set in a moment, belongs to the module calls of now."""
        self._settle()
        frame: Any = sys._getframe(1)
        calls: list[int] = []
        while frame is not None and frame.f_code is not recorded.__code__:
            if frame.f_code is _CALL:
                calls.append(self._call(frame, frame.f_locals["self"]))
            frame = frame.f_back
        self._made_last = (t, tuple(reversed(calls)))
        return super()._keep_track(t, array)

    def _settle(self) -> None:
        if self._made_last is not None:
            t, calls = self._made_last
            node = t._node
            if node is not None:
                self._node_calls[node] = calls
                if type(node) is Pick:  # one of several outputs
                    self._node_calls.setdefault(node.inputs[0], calls)  # type: ignore[arg-type]
            self._made_last = None

    # --- what it was like before --------------------------------------------------------------------

    def _input(self, t: Tensor, array: Any, kind: str, key: Any, owner: Any = None) -> Tracer:
        if id(array) not in self.by_memory:
            self._before.append((array, array.copy()))
        self.requires.setdefault(id(t), (t, t._leaf))
        return super()._input(t, array, kind, key, owner)

    def saw_module(self, module: Any) -> None:
        if id(module) not in self.modules:
            self._buffers.append((module, dict(module._buffers)))
        super().saw_module(module)

    def adopt(self, t: Tensor, array: Any) -> Any:
        held = t.__dict__.get("array")
        same = held is None or isinstance(held, Tracer) or array is self.tracers.get(id(t))
        if self.recording and not same and not is_lazy(t):  # only lazy layers: they do it once
            self.fail(
                "the memory of a tensor is exchanged (t.data = …), which a drawing could not undo: "
                "write into the tensor with copy_()"
            )
        return super().adopt(t, array)

    def before_step(self, optimizer: Any, *_: Any) -> None:
        """An optimizer is about to step: what it remembers, its settings, and its schedules' counters."""
        if TRACE.get() is not self or id(optimizer) in self._stepped:
            return
        state = {p: dict(s) for p, s in optimizer.state.items()}
        groups = [(group, dict(group)) for group in optimizer.param_groups]
        self._stepped[id(optimizer)] = optimizer, state, groups, dict(optimizer.__dict__)
        for schedule in gc.get_objects():
            if issubclass(type(schedule), LRScheduler) and (
                schedule.__dict__.get("optimizer") is optimizer
            ):
                self._schedules.append((schedule, dict(schedule.__dict__)))

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        self._remember(generator)
        return super().draw(fn, generator, args, kwargs)

    def _remember(self, generator: Any) -> None:
        if generator not in self._generators:
            get_state: Any = random.Generator.get_state
            self._generators[generator] = get_state.__wrapped__(generator)  # not a recorded draw

    def put_back(self) -> None:
        """Undo what the recorded step has done."""
        written = {id(source.array) for source, _ in self.written()}
        for array, values in self._before:
            if (id(array) in written or self.failure is not None) and array.flags.writeable:
                np.copyto(array, values)
        for t, grad in self.grads.values():
            t.__dict__["grad"] = grad
        for cell, count, _ in self.cells.values():
            cell[0] = count
        for module, _, training in self.modules.values():
            module.training = training
        for module, buffers in self._buffers:
            for name, buffer in buffers.items():
                if module._buffers.get(name) is not buffer:
                    setattr(module, name, buffer)
        for t, leaf in self.requires.values():
            t._leaf = leaf
        for optimizer, state, groups, attributes in self._stepped.values():
            _restore(optimizer.__dict__, attributes)
            _restore(optimizer.state, state)
            optimizer.param_groups[:] = [group for group, _ in groups]
            for group, settings in groups:
                _restore(group, settings)
        for schedule, attributes in self._schedules:
            _restore(schedule.__dict__, attributes)
        self.rewind()

    def rewind(self) -> None:
        """Random generators go back to where they were."""
        set_state: Any = random.Generator.set_state
        for generator, state in self._generators.items():
            set_state.__wrapped__(generator, state)

    # --- the end --------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write down results, gradients and new values; let go of frames and nodes."""
        graph = self.graph
        for t in leaves(self.result):
            if isinstance(t, Tensor):
                v = self.as_var(t.array)
                if v not in graph.outputs:
                    graph.outputs.append(v)
        for t, _ in self.grads.values():
            grad = t.__dict__.get("grad")
            if id(t) in self.grads_set and isinstance(grad, Tensor):
                v = self.as_var(grad.array)
                self.grad_vars.append((t, v))
                graph.outputs.append(v)
        graph.writes = [(source.var, v) for source, v in self.written()]
        graph.equations = list(graph.equations)
        self._frames.clear()
        self._node_calls.clear()
        self._runs.clear()
        self._made_last = None

    def let_go(self) -> None:
        """Drop what refers to this trace in turn: its memory is not to wait for the garbage collector."""
        for held in (
            self.tracers,
            self.by_memory,
            self.groups,
            self.sources,
            self.scopes,
            self._before,
        ):
            held.clear()
        self.result = None


def _restore(now: Any, before: dict[Any, Any]) -> None:
    """A dictionary holds again what it held; it stays the same object."""
    now.clear()
    now.update(before)


def recorded(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recorded:
    """Run a function once, write down what it computes, and undo what it changed.

    Parameters, ``.grad``, buffers, modes, kilograd's random generators, optimizers and their schedules are
    afterwards as before; what the function prints, registers or does to other objects stays.

    Raises:
        TraceError: the function reads values of tensors, or does something else that a
            recording cannot follow; the message says where.
    """
    for last in (False, True):  # layers that learn their sizes from the first input do it once
        trace = Recorded()
        tensors = [t for t in leaves((args, kwargs)) if isinstance(t, Tensor)]
        nodes = [(t, t._node) for t in tensors if t._node is not None]
        hook = register_optimizer_step_pre_hook(trace.before_step)
        with tracing(trace):
            try:
                for i, t in enumerate(dict.fromkeys(tensors)):
                    trace.argument(t, i)
                trace.result = fn(*args, **kwargs)
                if trace.failure is None:
                    trace.finish()
                elif last or not trace.again:
                    raise TraceError(trace.failure)
            finally:
                hook.remove()
                for t, node in nodes:
                    t._node = node
                trace.put_back()
        if trace.failure is None:
            break
    return trace


def timed(trace: Recorded, graph: Graph, seconds: float = 0.5) -> dict[Equation, float]:
    """The shortest time of each equation over several runs, in seconds; one value after the other."""
    values: dict[Any, Any] = dict(graph.constants)
    for source in trace.sources:
        value = source.array
        values[source.var] = value.copy() if isinstance(value, np.ndarray) else value
    shortest: dict[Equation, float] = {}
    stop = time.perf_counter() + seconds
    for _ in range(20):
        trace.rewind()
        found = dict(values)
        get = lambda x: found[x] if type(x) is Var else x  # noqa: B023, E731
        for eq in graph.equations:
            args, kwargs = mapped(get, eq.args), mapped(get, eq.kwargs)
            start = time.perf_counter()
            with np.errstate(all="ignore"):
                result = eq.fn(*args, **kwargs)
            took = time.perf_counter() - start
            shortest[eq] = min(took, shortest.get(eq, took))
            if eq.tree is None and len(eq.outs) == 1:
                found[eq.outs[0]] = np.asarray(result) if isinstance(result, np.generic) else result
            else:
                flat = [
                    x for x in leaves(result) if isinstance(x, (np.ndarray, np.generic, float, int))
                ]
                found.update(zip(eq.outs, flat, strict=False))
        if time.perf_counter() > stop:
            break
    trace.rewind()
    return shortest

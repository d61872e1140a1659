"""An event: one call that was watched, with its times and what was asked to be recorded of it."""

from __future__ import annotations

import os
import traceback
import weakref
from typing import Any

import numpy as np

from kilograd.profiler.flops import work_of, work_of_gradient
from kilograd.profiler.watch import Call
from kilograd.tensor import Tensor, shares_memory

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Event:
    """One op, derivative, module call, optimizer step, compiled program or named block.

    Attributes:
        name: ``matmul``; of a derivative PyTorch's name, ``MatmulBackward0``; a module's class.
        kind: "op", "backward" (the derivative rules of one op), "pass" (a whole backward pass),
            "module", "optimizer", "program" (a compiled function), "kernel" (one line of it) or "span"
            (``record_function``).
        phase: "forward", "backward" or "optimizer": what it is a part of.
        start, end: nanoseconds since the profile began.
        self_ns: nanoseconds outside of the events within it.
        thread: the thread's identifier; ``step``: how often ``p.step()`` had been called.
        module: path of the module it belongs to, "" outside of all.
        shapes: shapes of its inputs, with ``record_shapes``, else None.
        memory: bytes of results that it allocated itself, with ``profile_memory``, else 0.
        flops: floating-point operations, with ``with_flops``, else 0.
        stack: the user's lines, innermost first, with ``with_stack``, else ().
        parent: the event it lies in, or None.
        error: the type of the exception that ended it, or "".
    """

    __slots__ = ("end", "error", "flops", "kind", "memory", "module", "name", "parent", "phase", "self_ns",
                 "shapes", "stack", "start", "step", "thread")  # fmt: skip

    def __init__(self, call: Call, parent: Event | None, step: int) -> None:
        kind = call.kind
        self.kind = kind
        self.name = call.what.name() if kind == "backward" else call.name
        self.parent = parent
        own = {"backward": "backward", "pass": "backward", "optimizer": "optimizer"}
        self.phase: str = own.get(kind, "forward" if parent is None else parent.phase)
        self.thread = call.thread
        self.module = call.home
        self.step = step
        self.start = self.end = self.self_ns = self.memory = self.flops = 0
        self.shapes: Any = None
        self.stack: tuple[str, ...] = (call.what[1],) if kind == "kernel" and call.what[1] else ()
        self.error = ""

    @property
    def duration(self) -> int:
        """Nanoseconds from its start to its end."""
        return self.end - self.start

    @property
    def cpu_time_total(self) -> float:
        """The same in microseconds, as PyTorch's events say it."""
        return self.duration / 1000

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds outside of the events within it."""
        return self.self_ns / 1000

    @property
    def input_shapes(self) -> Any:
        """The shapes of its inputs."""
        return self.shapes

    def __repr__(self) -> str:
        where = f" in {self.module}" if self.module else ""
        return (
            f"<Event {self.name} ({self.kind}, {self.phase}){where}: {self.cpu_time_total:.1f} us>"
        )

    def finish(self, call: Call, *, began: int, memory: bool, flops: bool) -> None:
        """Take over what is known at the end of the call."""
        self.stop(call, call.end, began)
        if call.error is not None:
            self.error = type(call.error).__name__
            return
        if memory:
            self.memory = _allocated(call)
        if flops:
            self.flops = _flops(call)

    def stop(self, call: Call, end: int, began: int) -> None:
        """Take over the times of a call that ends at ``end``."""
        self.start, self.end = call.start - began, end - began
        self.self_ns = max(end - call.start - call.inside, 0)


def users_stack() -> tuple[str, ...]:
    """The user's lines that lead here, innermost first: ``file:line in function``."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_PACKAGE)]
    return tuple([f"{f.filename}:{f.lineno} in {f.name}" for f in reversed(frames)])


def shapes_of(call: Call) -> Any:
    """The shapes of what a call is given: () for a number, None for what is neither."""
    if call.kind == "optimizer":
        return [list(p.array.shape) for g in call.what.param_groups for p in g["params"]]
    if call.kind == "backward":
        g = call.args[0]
        return [_shape(a) for a in (g if isinstance(g, tuple) else (g,))]
    if call.kind in ("pass", "span", "kernel"):
        return []
    return [_shape(a) for a in (*call.args, *(() if call.kind == "op" else call.options.values()))]


def _shape(x: Any) -> Any:
    if isinstance(x, (Tensor, np.ndarray)):
        return list(getattr(x, "array", x).shape)
    if isinstance(x, (tuple, list)):
        return [_shape(y) for y in x]
    return [] if isinstance(x, (int, float, complex, np.generic)) else None


def _allocated(call: Call) -> int:
    """Bytes of the results that are no view of what the call was given, nor made by an op within it."""
    if call.kind == "op":
        made = call.result if isinstance(call.result, tuple) else (call.result,)
        given = list(call.args)
    elif call.kind == "backward":
        g = call.args[0]
        made = tuple([getattr(s, "array", s) for _, s in call.result])
        given = [getattr(a, "array", a) for a in (g if isinstance(g, tuple) else (g,))]
        given += call.what.kept or ()
    else:
        return 0
    given += [a for made_within in call.notes.get("made", ()) if (a := made_within()) is not None]
    arrays = [a for a in given if isinstance(a, np.ndarray)]
    fresh = {id(y): y for y in made if isinstance(y, np.ndarray)}
    if call.parent is not None and call.parent.kind in ("op", "backward"):
        call.parent.notes.setdefault("made", []).extend(map(weakref.ref, fresh.values()))
    return sum(y.nbytes for y in fresh.values() if not any(shares_memory(y, a) for a in arrays))


def _flops(call: Call) -> int:
    """The operations of an op, of a derivative, or of a compiled program."""
    if call.kind == "op" and not call.within("op", "backward"):
        return work_of(call.what, call.args, call.options, call.result).flops
    if call.kind == "backward" and not call.within("backward"):
        return work_of_gradient(call.what).flops
    if call.kind == "program" and call.what.last is not None:
        from kilograd.compile.report import flops

        return flops(call.what.last.graph)
    return 0

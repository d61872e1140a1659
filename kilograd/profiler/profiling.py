"""``profile``: record the calls of a block, and ask for tables, traces and pictures afterwards."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kilograd.profiler.averages import EventList, ModuleTimes, averages, module_times, time_text
from kilograd.profiler.events import Event, shapes_of, users_stack
from kilograd.profiler.watch import Call, Observer, now, span, watching

F = TypeVar("F", bound=Callable[..., Any])


class ProfilerActivity(enum.Enum):
    """What can be recorded: the CPU."""

    CPU = 0
    XPU = 1
    CUDA = 2


class ProfilerAction(enum.Enum):
    """What a schedule says of one step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0
) -> Callable[[int], ProfilerAction]:
    """Which steps are recorded: after ``skip_first`` steps again and again ``wait``, ``warmup``, ``active``.

    ``repeat``: how many such cycles (0: no end). After each ``on_trace_ready`` is called.

    >>> plan = schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(i).name for i in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    given = {"wait": wait, "warmup": warmup, "repeat": repeat, "skip_first": skip_first}
    for name, value in given.items():
        if value < 0:
            raise ValueError(f"schedule: {name} must not be negative, got {value}")
    if active < 1:
        raise ValueError(f"schedule: active must be at least 1, got {active}")

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        cycle, at = divmod(step, wait + warmup + active)
        if step < 0 or (repeat and cycle >= repeat) or at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        last = at == wait + warmup + active - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action


_open = threading.Lock()  # held by the profile that is on


class profile(Observer):
    """Record what runs in a ``with`` block: ops, derivatives, modules, optimizer steps, compiled programs.

    All threads are recorded, each event with its thread's identifier; other processes (the workers of a
    DataLoader) are not. Nothing is measured while no profile is on, and nothing slows down.

    Args:
        activities: as PyTorch's; the CPU is all there is.
        schedule: which steps to record (see :func:`schedule`); then call :meth:`step` after each.
        on_trace_ready: called with the profile when a cycle of the schedule, or the block, has ended.
        record_shapes: record the shapes of inputs.
        profile_memory: record how many bytes of results each op allocates.
        with_stack: record the user's lines (a walk over the stack for each op).
        with_flops: count floating-point operations, from shapes.
        with_modules: record the calls of modules.
        with_kernels: run compiled functions one kernel at a time, and record each (NumPy programs one
            equation at a time). A call then takes longer than it does otherwise.
        acc_events: keep the events of all cycles of a schedule (else of the last).

    Raises:
        RuntimeError: on entering, if another profile is on.

    >>> import kilograd as kg
    >>> x = kg.ones(4, 4, requires_grad=True)
    >>> with kg.profiler.profile(record_shapes=True) as p:
    ...     (x @ x).sum().backward()
    >>> [(e.name, e.phase) for e in p.events() if e.kind in ("op", "backward") and e.parent is None]
    [('matmul', 'forward'), ('sum', 'forward')]
    >>> p.events()[0].shapes
    [[4, 4], [4, 4]]
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None, record_shapes: bool = False,
        profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
        with_modules: bool = True, with_kernels: bool = False, acc_events: bool = False,
    ) -> None:  # fmt: skip
        wanted = {ProfilerActivity.CPU} if activities is None else set(activities)
        for a in wanted:
            if not isinstance(a, ProfilerActivity):
                raise TypeError(f"activities are ProfilerActivity, not {type(a).__name__}")
        if ProfilerActivity.CPU not in wanted:
            raise ValueError("activities must contain ProfilerActivity.CPU: nothing else is there")
        if len(wanted) > 1:
            warnings.warn(
                "kilograd runs on the CPU: other activities are not recorded", stacklevel=2
            )
        self.record_shapes = record_shapes
        self.profile_memory = profile_memory
        self.with_stack = with_stack
        self.with_flops = with_flops
        self.with_modules = with_modules
        self.kernels = with_kernels
        self.acc_events = acc_events
        self.step_num = 0
        self._schedule = schedule
        self._ready = on_trace_ready
        self._action = ProfilerAction.RECORD
        self._events: list[Event] = []
        self._running: dict[Event, Call] = {}  # those that have not ended
        self._began = 0
        self._epoch = 0
        self._from = 0
        self._recorded = 0  # nanoseconds in which was recorded
        self._watching: Any = None
        self._on = False

    # --- recording ---------------------------------------------------------------------------------

    def __enter__(self) -> profile:
        if not _open.acquire(blocking=False):
            raise RuntimeError("another profile is on: profiles cannot be nested")
        try:
            self.step_num, self._events, self._recorded = 0, [], 0
            self._began, self._epoch = now(), time.time_ns()
            self._on = True
            self._turn(self._planned(0))
        except BaseException:
            self._on = False
            _open.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        last = self._action
        try:
            self._turn(ProfilerAction.NONE)
        finally:
            self._on = False
            _open.release()
        if last in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE) and error[0] is None:
            self._tell()

    def start(self) -> None:
        """Begin, without a ``with`` block."""
        self.__enter__()

    def stop(self) -> None:
        """End what :meth:`start` began."""
        if not self._on:
            raise RuntimeError("stop() without start(): the profile is not on")
        self.__exit__(None, None, None)

    def step(self) -> None:
        """Say that the next step begins."""
        if not self._on:
            raise RuntimeError("step() is called within the profile's block")
        if self._schedule is not None and self._action is ProfilerAction.RECORD_AND_SAVE:
            self._turn(ProfilerAction.NONE)
            self._tell()
        self.step_num += 1
        self._turn(self._planned(self.step_num))

    def _planned(self, step: int) -> ProfilerAction:
        return ProfilerAction.RECORD if self._schedule is None else self._schedule(step)

    def _turn(self, action: ProfilerAction) -> None:
        """Go on to what the schedule says."""
        recording = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        was, will = self._watching is not None, action is not ProfilerAction.NONE
        if self._watching is not None and self._action in recording and action not in recording:
            self._recorded += now() - self._from
            for event, call in self._running.items():  # a block around step() goes on unrecorded
                event.stop(call, now(), self._began)
            self._running.clear()
        if action in recording and (self._watching is None or self._action not in recording):
            if not self.acc_events:
                self._events = []
                self._recorded = 0
            self._from = now()
        self._action = action
        if will and not was:
            self._watching = watching(self)
            try:
                self._watching.__enter__()
            except BaseException:
                self._watching = None
                raise
        elif was and not will:
            watch, self._watching = self._watching, None
            watch.__exit__(None, None, None)

    def _tell(self) -> None:
        if self._ready is not None:
            self._ready(self)

    def begins(self, call: Call) -> None:
        """A call begins (called by what is watched)."""
        if self._action in (ProfilerAction.NONE, ProfilerAction.WARMUP):
            return
        if call.kind == "module" and not self.with_modules:
            return
        above = call.parent
        while above is not None and self not in above.notes:
            above = above.parent
        event = Event(call, None if above is None else above.notes[self], self.step_num)
        event.start = event.end = now() - self._began
        if self.record_shapes:
            event.shapes = shapes_of(call)
        if self.with_stack and call.kind != "kernel":  # a kernel knows the line it was recorded at
            event.stack = users_stack()
        self._events.append(event)
        self._running[event] = call
        call.notes[self] = event

    def ends(self, call: Call) -> None:
        """A call has ended."""
        event = call.notes.get(self)
        if event is not None and self._running.pop(event, None) is not None:
            event.finish(call, began=self._began, memory=self.profile_memory, flops=self.with_flops)

    # --- asking ------------------------------------------------------------------------------------

    def events(self) -> EventList:
        """All events, in the order in which they began."""
        return EventList(self._events)

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0
    ) -> EventList:
        """Events of one name and phase added up, if wanted for each shape or line by itself.

        Raises:
            RuntimeError: they are to be grouped by what was not recorded.
        """
        if group_by_input_shape and not self.record_shapes:
            raise RuntimeError("shapes were not recorded: profile(record_shapes=True)")
        if group_by_stack_n and not self.with_stack:
            raise RuntimeError("lines were not recorded: profile(with_stack=True)")
        return averages(self._events, by_shape=group_by_input_shape, stack=group_by_stack_n)

    def table(self, sort_by: str | None = None, row_limit: int = 100) -> str:
        """:meth:`key_averages` as a table."""
        return self.key_averages().table(sort_by=sort_by, row_limit=row_limit)

    def modules(self) -> ModuleTimes:
        """The time of each module, forward and backward, with and without the modules in it.

        Raises:
            RuntimeError: modules were not recorded.
        """
        if not self.with_modules:
            raise RuntimeError("modules were not recorded: profile(with_modules=True)")
        return module_times(self._events)

    @property
    def wall_ns(self) -> int:
        """Nanoseconds in which was recorded, with what happened between events."""
        going = now() - self._from if self._watching is not None and self._on else 0
        return self._recorded + going

    def __str__(self) -> str:
        if not self._events:
            return "<profile: nothing recorded>"
        return f"{self.table(row_limit=30)}\nrecorded: {time_text(self.wall_ns)}"

    def __repr__(self) -> str:
        return f"<profile: {len(self._events)} events>"

    # --- files -------------------------------------------------------------------------------------

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events as JSON for https://ui.perfetto.dev or chrome://tracing.

        Times there are microseconds since the profile began. A file that is there is replaced at once.
        """
        from kilograd.train.checkpoint import atomic_write

        content = json.dumps(self._trace(), allow_nan=False).encode()
        with atomic_write(path) as file:
            file.write(content)

    def _trace(self) -> dict[str, Any]:
        pid = os.getpid()
        names = {t.ident: t.name for t in threading.enumerate()}
        shown: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "kilograd"}}
        ]
        for thread in dict.fromkeys(e.thread for e in self._events):
            name = names.get(thread, f"thread {thread}")
            shown.append(
                {
                    "ph": "M",
                    "name": "thread_name",
                    "pid": pid,
                    "tid": thread,
                    "args": {"name": name},
                }
            )
        for e in self._events:
            args: dict[str, Any] = {"phase": e.phase, "self_us": e.self_ns / 1000}
            if e.module:
                args["module"] = e.module
            if e.shapes is not None:
                args["shapes"] = str(e.shapes)
            if e.memory:
                args["bytes"] = e.memory
            if e.flops:
                args["flops"] = e.flops
            if e.stack:
                args["line"] = e.stack[0]
            if e.error:
                args["error"] = e.error
            args["step"] = e.step
            shown.append({"ph": "X", "name": e.name, "cat": e.kind, "ts": e.start / 1000,
                          "dur": e.duration / 1000, "pid": pid, "tid": e.thread, "args": args})  # fmt: skip
        return {
            "traceEvents": shown,
            "displayTimeUnit": "ms",
            "otherData": {"began": self._epoch / 1e9, "program": "kilograd"},
        }

    def export_stacks(
        self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total"
    ) -> None:
        """Write the events as lines ``outermost;…;innermost microseconds`` for flame graph programs."""
        from kilograd.profiler.flame import folded
        from kilograd.train.checkpoint import atomic_write

        if metric not in ("self_cpu_time_total", "self_cuda_time_total"):
            raise ValueError(f"metric must be 'self_cpu_time_total', not {metric!r}")
        text = "".join(
            f"{';'.join(k)} {round(ns / 1000)}\n" for k, ns in folded(self._events).items()
        )
        with atomic_write(path) as file:
            file.write(text.encode())

    def flame(self, path: str | os.PathLike[str] | None = None, *, width: int = 1200) -> str:
        """A flame graph as SVG text: module above op, the wider the longer; written to ``path`` if given."""
        from kilograd.profiler.flame import flame
        from kilograd.train.checkpoint import atomic_write

        text = flame(self._events, self.wall_ns, width)
        if path is not None:
            with atomic_write(path) as file:
                file.write(text.encode())
        return text

    def _repr_svg_(self) -> str | None:
        return self.flame() if self._events else None


def tensorboard_trace_handler(
    dir_name: str | os.PathLike[str], worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes each trace into a folder, as PyTorch's handler names them."""
    if use_gzip:
        raise ValueError("use_gzip is not supported: traces are written as plain JSON")

    def handler(p: profile) -> None:
        Path(dir_name).mkdir(parents=True, exist_ok=True)
        worker = (
            worker_name
            or f"{os.uname().nodename if hasattr(os, 'uname') else 'host'}_{os.getpid()}"
        )
        p.export_chrome_trace(Path(dir_name) / f"{worker}.{time.time_ns()}.pt.trace.json")

    return handler


class record_function:
    """Name a block, or every call of a function: it is an event of its own.

    >>> import kilograd as kg
    >>> with kg.profiler.profile() as p:
    ...     with kg.profiler.record_function("squares"):
    ...         _ = kg.ones(3) * 2
    >>> [(e.name, e.kind) for e in p.events()]
    [('squares', 'span'), ('multiply', 'op')]
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self.args = args
        self._spans: list[Any] = []

    def __enter__(self) -> record_function:
        self._spans.append(span(self.name if self.args is None else f"{self.name}({self.args})"))
        self._spans[-1].__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._spans.pop().__exit__(*error)

    def __call__(self, fn: F) -> F:
        if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
            raise TypeError("record_function names functions: use it as a block in a generator")

        @functools.wraps(fn)
        def named(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return fn(*args, **kwargs)

        return named  # type: ignore[return-value]

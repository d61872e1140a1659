"""Events added up: by name, by shapes, by the user's lines, by module; and all of it as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kilograd.profiler.events import Event

_SORTS = {
    "self_cpu_time_total": "self_ns",
    "cpu_time_total": "total_ns",
    "cpu_time": "mean_ns",
    "self_time": "self_ns",
    "total_time": "total_ns",
    "time": "total_ns",
    "mean_time": "mean_ns",
    "cpu_memory_usage": "total_memory",
    "self_cpu_memory_usage": "memory",
    "memory": "memory",
    "flops": "flops",
    "count": "count",
    "calls": "count",
    "name": "name",
}


class EventAverages:
    """Events of one kind and name, added up.

    Attributes:
        name (``key``), kind, phase: what they are; ``module``: where, if all are of one module.
        count: how many; ``self_ns``, ``total_ns``: their time without and with the events in them, in
            nanoseconds (an event in another of the same name is not counted a second time in the total).
        memory: bytes that they allocated themselves, ``total_memory``: with the events in them; ``flops``.
        shapes, stack: what they are grouped by, else None and ().
    """

    def __init__(self, event: Event, shapes: Any, stack: tuple[str, ...]) -> None:
        self.name = self.key = event.name
        self.kind, self.phase = event.kind, event.phase
        self.modules: set[str] = set()
        self.shapes, self.stack = shapes, stack
        self.count = self.self_ns = self.total_ns = self.memory = self.total_memory = self.flops = 0

    @property
    def module(self) -> str:
        """The path of the module of all of them, or ""."""
        return next(iter(self.modules)) if len(self.modules) == 1 else ""

    @property
    def mean_ns(self) -> float:
        """Nanoseconds of one call."""
        return self.total_ns / self.count

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds, as PyTorch's."""
        return self.self_ns / 1000

    @property
    def cpu_time_total(self) -> float:
        """Microseconds, as PyTorch's."""
        return self.total_ns / 1000

    @property
    def cpu_time(self) -> float:
        """Microseconds of one call, as PyTorch's."""
        return self.mean_ns / 1000

    @property
    def cpu_memory_usage(self) -> int:
        """Bytes, with those of the events in it."""
        return self.total_memory

    @property
    def self_cpu_memory_usage(self) -> int:
        """Bytes that it allocated itself."""
        return self.memory

    @property
    def input_shapes(self) -> Any:
        """The shapes they are grouped by."""
        return self.shapes

    def __repr__(self) -> str:
        return f"<{self.name} ({self.phase}): {self.count} calls, {self.cpu_time_total:.1f} us>"


class EventList(list[Any]):
    """Events, or averages of them: a list that can be printed and sorted."""

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_name_column_width: int = 40,
        max_src_column_width: int = 60,
        header: str | None = None,
        top_level_events_only: bool = False,
    ) -> str:
        """The averages as a table, the largest first.

        Args:
            sort_by: ``self_cpu_time_total`` (the default), ``cpu_time_total``, ``cpu_time``, ``count``,
                ``self_cpu_memory_usage``, ``cpu_memory_usage``, ``flops`` or ``name``.
            row_limit: at most so many rows (-1: all).
            max_name_column_width, max_src_column_width: the widest that names and lines may be.
            header: a title.
            top_level_events_only: without the events that lie in others.

        Raises:
            ValueError: for an unknown ``sort_by``.
        """
        by = _SORTS.get(sort_by or "self_cpu_time_total")
        if by is None:
            raise ValueError(f"sort_by: {sort_by!r} is unknown; there are {', '.join(_SORTS)}")
        if any(isinstance(e, Event) for e in self):
            return averages(self, top=top_level_events_only).table(
                sort_by, row_limit, max_name_column_width, max_src_column_width, header
            )
        rows = sorted(self, key=lambda r: getattr(r, by), reverse=by != "name")
        whole = sum(r.self_ns for r in self) or 1
        memory, flops = any(r.total_memory for r in self), any(r.flops for r in self)
        shapes, stacks = any(r.shapes is not None for r in self), any(r.stack for r in self)
        titles = ["Name", "Phase", "Self %", "Self", "Total", "Mean", "Calls"]
        titles += (
            ["Self memory"] * memory + ["FLOPs"] * flops + ["Shapes"] * shapes + ["Line"] * stacks
        )
        lines = []
        for r in rows if row_limit < 0 else rows[:row_limit]:
            cells = [_cut(r.name, max_name_column_width), r.phase, f"{100 * r.self_ns / whole:.1f}%",
                     time_text(r.self_ns), time_text(r.total_ns), time_text(r.mean_ns), str(r.count)]  # fmt: skip
            if memory:
                cells.append(bytes_text(r.memory))
            if flops:
                cells.append(f"{r.flops:,}" if r.flops else "--")
            if shapes:
                cells.append(_cut(str(r.shapes), max_src_column_width))
            if stacks:
                cells.append(r.stack[0][-max_src_column_width:] if r.stack else "")
            lines.append(cells)
        left = {0, 1, *range(len(titles) - shapes - stacks, len(titles))}
        text = columns([titles, *lines], left)
        if len(lines) < len(rows):
            text += f"\n... and {len(rows) - len(lines)} more"
        text += f"\nself time in all: {time_text(sum(r.self_ns for r in self))}"
        return text if header is None else f"{header}\n{text}"

    def __str__(self) -> str:
        return self.table()

    def total_average(self) -> EventAverages | None:
        """Everything added up (None of nothing)."""
        found: EventAverages | None = None
        for r in averages(self) if any(isinstance(e, Event) for e in self) else self:
            if found is None:
                found = EventAverages.__new__(EventAverages)
                found.__dict__.update(r.__dict__, name="Total", key="Total", kind="", phase="",
                                      modules=set(), shapes=None, stack=())  # fmt: skip
                found.total_ns = found.self_ns
                found.total_memory = found.memory
                continue
            found.count += r.count
            found.self_ns += r.self_ns
            found.total_ns += r.self_ns
            found.memory += r.memory
            found.total_memory += r.memory
            found.flops += r.flops
        return found


def averages(
    events: Iterable[Event], *, by_shape: bool = False, stack: int = 0, top: bool = False
) -> EventList:
    """Events added up by name and phase, and if wanted by shapes and the ``stack`` innermost lines."""
    found: dict[Any, EventAverages] = {}
    events = list(events)
    below = memory_below(events)
    for e in events:
        if top and e.parent is not None:
            continue
        shapes = e.shapes if by_shape else None
        lines = e.stack[:stack]
        key = e.name, e.kind, e.phase, str(shapes), lines
        row = found.get(key)
        if row is None:
            row = found[key] = EventAverages(e, shapes, lines)
        row.modules.add(e.module)
        row.count += 1
        row.self_ns += e.self_ns
        row.memory += e.memory
        row.flops += e.flops
        if not _within_its_like(e):
            row.total_ns += e.duration
            row.total_memory += below[id(e)]
    return EventList(found.values())


def _within_its_like(e: Event) -> bool:
    above = e.parent
    while above is not None:
        if (above.name, above.kind, above.phase) == (e.name, e.kind, e.phase):
            return True
        above = above.parent
    return False


def memory_below(events: Iterable[Event]) -> dict[int, int]:
    """The memory of each event (by id) with that of the events in it."""
    total: dict[int, int] = {}
    for e in events:
        above: Event | None = e
        while above is not None:
            total[id(above)] = total.get(id(above), 0) + e.memory
            above = above.parent
    return total


# --- by module ---------------------------------------------------------------------------------------


class ModuleTime:
    """What one module has taken.

    Attributes:
        path, name: where it is (``Net.layers.0``) and its class; calls.
        forward_ns, backward_ns: with the modules below it; self_forward_ns, self_backward_ns: without.
        memory: bytes that its ops, and those below, allocated; flops.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = ""
        self.calls = self.forward_ns = self.backward_ns = 0
        self.self_forward_ns = self.self_backward_ns = self.memory = self.flops = 0

    @property
    def total_ns(self) -> int:
        """Forward and backward, with the modules below it."""
        return self.forward_ns + self.backward_ns

    @property
    def self_ns(self) -> int:
        """Forward and backward, without the modules below it."""
        return self.self_forward_ns + self.self_backward_ns

    def __repr__(self) -> str:
        return f"<ModuleTime {self.path}: {time_text(self.total_ns)}>"


class ModuleTimes(list[ModuleTime]):
    """The times of all modules, in the order in which they were first called; printed as a tree."""

    def table(self) -> str:
        """The tree as a table."""
        titles = ["Module", "Class", "Calls", "Forward", "self", "Backward", "self", "Total %"]
        whole = sum(m.self_ns for m in self) or 1
        lines = []
        for m in self:
            depth = sum(m.path.startswith(other.path + ".") for other in self)
            lines.append(["  " * depth + m.path, m.name, str(m.calls), time_text(m.forward_ns),
                          time_text(m.self_forward_ns), time_text(m.backward_ns),
                          time_text(m.self_backward_ns), f"{100 * m.total_ns / whole:.1f}%"])  # fmt: skip
        return columns([titles, *lines], {0, 1})

    def __str__(self) -> str:
        return self.table()


def module_times(events: Iterable[Event]) -> ModuleTimes:
    """The time of each module: its calls, and the derivatives of what was run in them."""
    found: dict[str, ModuleTime] = {}
    for e in sorted(events, key=lambda e: e.start):
        if not e.module:
            continue
        m = found.setdefault(e.module, ModuleTime(e.module))
        above = [found[p] for p in _paths_above(e.module) if p in found]
        if e.kind == "module":
            m.name, m.calls = e.name, m.calls + 1
        backward = e.phase == "backward"
        for each in (m, *above):
            each.memory += e.memory
            each.flops += e.flops
            if backward:
                each.backward_ns += e.self_ns
            else:
                each.forward_ns += e.self_ns
        if backward:
            m.self_backward_ns += e.self_ns
        else:
            m.self_forward_ns += e.self_ns
    return ModuleTimes(found.values())


def _paths_above(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


# --- text --------------------------------------------------------------------------------------------


def time_text(ns: float) -> str:
    """Nanoseconds with a unit.

    >>> time_text(950), time_text(12_345_678)
    ('0.950 us', '12.346 ms')
    """
    for unit, size in (("us", 1e3), ("ms", 1e6)):
        if ns < 1000 * size:
            return f"{ns / size:.3f} {unit}"
    return f"{ns / 1e9:.3f} s"


def bytes_text(n: float) -> str:
    """Bytes with a unit: 1 kB are 1000 bytes."""
    if not n:
        return "--"
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.2f} {unit}"


def columns(lines: list[list[str]], left: set[int]) -> str:
    """Cells in columns, with a rule under the first line; those in ``left`` begin at the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    shown.insert(1, "-" * max(map(len, shown)))
    return "\n".join(shown)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

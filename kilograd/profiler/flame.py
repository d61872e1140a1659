"""A flame graph: what lies in what, as wide as it took; written as SVG that needs nothing else.

Calls with the same way from the outside in are one box. In a backward pass the boxes of derivatives
stand under the modules in whose forward pass their ops were run.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from kilograd.profiler.averages import time_text
from kilograd.profiler.events import Event

_ROW = 18  # pixels
_LETTER = 6.6  # the width of a letter, in pixels, at 11 px
_COLOURS = {
    "module": "#c9d6e8",
    "forward": "#7fb2e5",
    "backward": "#f0a868",
    "optimizer": "#8fcf9b",
    "program": "#c3a6e0",
    "kernel": "#d9c8ec",
    "span": "#e3e3c0",
    "thread": "#dddddd",
}


class Box:
    """Calls that have the same way from the outside in."""

    def __init__(self, name: str, colour: str) -> None:
        self.name = name
        self.colour = colour
        self.ns = 0
        self.own = 0
        self.calls = 0
        self.inside: dict[str, Box] = {}

    def into(self, name: str, colour: str) -> Box:
        """The box of a name in this one."""
        return self.inside.setdefault(name, Box(name, colour))


def boxes(events: Iterable[Event]) -> Box:
    """The tree of boxes; its root is what was recorded as a whole."""
    events = sorted(events, key=lambda e: e.start)
    root = Box("all", "thread")
    threads = list(dict.fromkeys(e.thread for e in events))
    classes = {e.module: e.name for e in events if e.kind == "module"}
    places: dict[int, Box] = {}
    for e in events:
        if e.parent is not None and id(e.parent) in places:
            at = places[id(e.parent)]
        else:
            at = root
            if len(threads) > 1:
                at = root.into(f"thread {threads.index(e.thread) + 1}", "thread")
        above = e.parent
        name = e.name
        if e.kind == "backward" and (above is None or above.kind == "pass"):
            outer = ""
            for path in _ways(e.module, classes):
                at = at.into(_label(path, outer, classes), "module")
                outer = path
        elif e.kind == "module":
            while above is not None and above.kind != "module":
                above = above.parent
            name = _label(e.module, "" if above is None else above.module, classes)
        colour = e.kind if e.kind in ("module", "program", "kernel", "span") else e.phase
        box = at.into(name, colour)
        box.calls += 1
        box.own += e.self_ns
        places[id(e)] = box
    _add_up(root)
    return root


def _ways(path: str, classes: dict[str, str]) -> list[str]:
    """The modules on the way to a module, it included, that were called."""
    parts = path.split(".")
    ways = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return [way for way in ways if way in classes]


def _label(path: str, outer: str, classes: dict[str, str]) -> str:
    """What a module is called in another: its name there, and its class if the name is a number."""
    name = path.removeprefix(f"{outer}.") if outer else path
    return f"{name} {classes[path]}" if name.rsplit(".", 1)[-1].isdigit() else name


def _add_up(box: Box) -> int:
    box.ns = box.own + sum(map(_add_up, box.inside.values()))
    return box.ns


def folded(events: Iterable[Event]) -> dict[tuple[str, ...], int]:
    """The time of its own (ns) of each way from the outside in."""
    found: dict[tuple[str, ...], int] = {}

    def walk(box: Box, way: tuple[str, ...]) -> None:
        if box.own:
            found[way] = box.own
        for b in box.inside.values():
            walk(b, (*way, b.name.replace(";", ",")))

    walk(boxes(events), ())
    return found


def flame(events: Iterable[Event], wall_ns: int, width: int = 1200) -> str:
    """The flame graph as SVG text."""
    if width < 200:
        raise ValueError(f"width must be at least 200 pixels, not {width}")
    root = boxes(events)
    spent = root.ns
    root.ns = max(root.ns, wall_ns, 1)
    root.name = f"recorded: {time_text(root.ns)}, in events: {time_text(spent)}"
    parts: list[str] = []
    whole, scale = root.ns, (width - 20) / root.ns
    deepest = 0
    waiting: list[tuple[Box, float, int]] = [(root, 10.0, 0)]
    while waiting:
        box, x, level = waiting.pop()
        w = box.ns * scale
        deepest = max(deepest, level)
        y = 34 + level * _ROW
        says = box.name if level == 0 else (
            f"{box.name}: {time_text(box.ns)} ({100 * box.ns / whole:.1f}%), "
            f"{box.calls} call{'s' * (box.calls != 1)}, self {time_text(box.own)}"
        )  # fmt: skip
        room = int((w - 6) / _LETTER)
        label = (
            box.name if len(box.name) <= room else box.name[: room - 1] + "…" if room > 2 else ""
        )
        parts.append(
            f'<g><title>{escape(says)}</title><rect x="{x:.2f}" y="{y}" width="{max(w - 0.5, 0.3):.2f}" '
            f'height="{_ROW - 1}" rx="2" fill="{_COLOURS[box.colour]}"/>'
            + (f'<text x="{x + 4:.2f}" y="{y + 13}">{escape(label)}</text>' if label else "")
            + "</g>"
        )
        for inner in box.inside.values():
            waiting.append((inner, x, level + 1))
            x += inner.ns * scale
    height = 34 + (deepest + 1) * _ROW + 10
    legend, x = [], 10.0
    for name in ("module", "forward", "backward", "optimizer", "program", "kernel", "span"):
        legend.append(
            f'<rect x="{x:.0f}" y="10" width="12" height="12" rx="2" fill="{_COLOURS[name]}"/>'
            f'<text x="{x + 16:.0f}" y="20">{name}</text>'
        )
        x += 34 + _LETTER * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="monospace" font-size="11">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(legend)}{"".join(parts)}</svg>\n'
    )

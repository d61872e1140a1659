"""A picture as a list of shapes, ready to be written as SVG, PNG or PDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kilograd.viz.arrange import (
    HEADER,
    LINE,
    PADDING,
    TITLE,
    Arrangement,
    Layout,
    Point,
    shortened,
    text_width,
)
from kilograd.viz.diagram import ROOT, Part

MARGIN = 16.0

# fill and border of each kind of block, and of groups; dark letters are readable on all of them
COLORS = {
    "op": ("#f4f5f7", "#8a94a6"),
    "parameter": ("#cfe2ff", "#2f6fd0"),
    "data": ("#ffd6d6", "#d04545"),
    "constant": ("#d5f0d5", "#3c9a4b"),
    "random": ("#fff1c9", "#c79a1c"),
    "state": ("#e2dcf5", "#7a63c0"),
    "gradient": ("#ffe3cc", "#d77b2a"),
    "output": ("#ffffff", "#222b3a"),
    "module": ("#fafbfc", "#9aa5b8"),
    "phase": ("#ffffff", "#c3cad6"),
    "run": ("#f0f2f5", "#9aa5b8"),
}
PHASES = {"backward": ("#fdf0e4", "#c98a4b"), "update": ("#efeafa", "#8f7cc9")}


def colors(part: Part) -> tuple[str, str]:
    """Fill and border of a block or group."""
    if part.kind in ("op", "run") and part.phase in PHASES:
        return PHASES[part.phase]
    return COLORS[part.kind]


@dataclass
class Box:
    """A rectangle with round corners; ``tip`` is shown when the mouse rests on it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    border: str
    radius: float
    tip: str = ""
    dashed: bool = False


@dataclass
class Text:
    """A line of text around ``x`` (or from ``x`` on), its middle at height ``y``."""

    x: float
    y: float
    text: str
    size: float
    bold: bool = False
    middle: bool = True
    color: str = "#1d2433"


@dataclass
class Curve:
    """A chain of Bézier curves, with an arrow head at its end unless it goes on."""

    points: list[Point]
    arrow: bool


class Scene:
    """The shapes of an arranged diagram, in the order in which they are drawn."""

    def __init__(self, arrangement: Arrangement) -> None:
        self.arrangement = arrangement
        self.title = arrangement.diagram.title
        layout = arrangement.layouts[ROOT]
        self.shapes: list[Any] = []
        top = MARGIN
        if self.title:
            self.shapes.append(Text(MARGIN, MARGIN + 6, self.title, 14, bold=True, middle=False))
            top += 26
        self._draw(layout, MARGIN, top)
        self.width = max(layout.width + 2 * MARGIN, 9 * len(self.title) + 2 * MARGIN)
        self.height = layout.height + top + MARGIN

    def _draw(self, layout: Layout, x: float, y: float) -> None:
        inner: dict[str, tuple[float, float]] = {}  # where the insides of open groups begin
        names: list[tuple[float, float, Part, str]] = []  # of open groups
        diagram = self.arrangement.diagram
        for id, (bx, by, w, h) in layout.boxes.items():
            part = diagram.part(id)
            fill, border = colors(part)
            tip = "\n".join([part.title, *part.lines, *[f"{k}: {v}" for k, v in part.details]])
            if self.arrangement.is_open(id):
                inside = self.arrangement.layouts[id]
                inner[id] = (x + bx + (w - inside.width) / 2, y + by + HEADER)
                self.shapes.append(Box(x + bx, y + by, w, h, fill, border, 8, tip, dashed=True))
                names.append((x + bx + PADDING, y + by + HEADER / 2 + 1, part, fill))
                self._draw(inside, *inner[id])
                continue
            self.shapes.append(Box(x + bx, y + by, w, h, fill, border, 6, tip))
            middle, line_y = x + bx + w / 2, y + by + 14.5
            self.shapes.append(Text(middle, line_y, shortened(part.title), TITLE, bold=True))
            for k, line in enumerate(part.lines):
                text = Text(middle, line_y + 15.5 + 15 * k, shortened(line), LINE)
                text.color = "#4a5568"
                self.shapes.append(text)
        for edge in layout.edges:
            points = [(x + px, y + py) for px, py in edge.points]
            if edge.source in inner:
                self._join(points, self._port(edge.source, "out", edge.value, inner), first=True)
            if edge.target in inner:
                self._join(points, self._port(edge.target, "in", edge.value, inner), first=False)
            ends = not edge.target.startswith("out:") and edge.target not in inner
            self.shapes.append(Curve(points, arrow=ends))
        for left, middle, part, fill in names:  # over the arrows
            name = Text(left, middle, shortened(part.title), 12, bold=True, middle=False)
            name.color = "#4a5568"
            wide = text_width(name.text, 12, bold=True)
            self.shapes += [Box(left - 3, middle - 8, wide + 6, 16, fill, "none", 3), name]

    def _port(self, group: str, side: str, value: str, inner: dict[str, Point]) -> Point:
        x, y = inner[group]
        px, py = self.arrangement.layouts[group].ports[f"{side}:{value}"]
        return x + px, y + py

    def _join(self, points: list[Point], port: Point, first: bool) -> None:
        """Lead a curve that ends at a group's border on to the port inside of it."""
        end = points[0] if first else points[-1]
        bend = 0.5
        if self.arrangement.diagram.direction == "TB":
            one = (end[0], end[1] + bend * (port[1] - end[1]))
            two = (port[0], port[1] - bend * (port[1] - end[1]))
        else:
            one = (end[0] + bend * (port[0] - end[0]), end[1])
            two = (port[0] - bend * (port[0] - end[0]), port[1])
        if first:
            points[:0] = [port, two, one]
        else:
            points += [one, two, port]

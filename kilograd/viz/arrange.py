"""Where everything goes: Graphviz lays out each group by itself, and groups are put into groups.

A group is laid out from the inside out: an open group is a box of the size of what it holds. Sizes and
positions are in points (1/72 inch), from the upper left corner.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

from kilograd.viz.diagram import ROOT, Diagram, Part, Wires, bundles, wiring

Point = tuple[float, float]
TITLE, LINE = 13.0, 11.0  # the sizes of letters
HEADER, PADDING = 26.0, 12.0  # of an open group
MOST_LETTERS = 44

# Advance widths of the characters 32 to 126 in DejaVu Sans, in thousandths of the size: the widest of the
# usual screen fonts, so that a text fits its box in the others, too.
_WIDTHS = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632,
    575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685,
    611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579,
    278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
]  # fmt: skip
_BOLD = 1.12  # how much wider bold letters are


def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width of a line of text in points."""
    units = sum(_WIDTHS[ord(c) - 32] if 32 <= ord(c) < 127 else 1000 for c in text)
    return units / 1000 * size * (_BOLD if bold else 1)


def shortened(text: str) -> str:
    """A text cut to what a box can hold, in one line."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def size_of(part: Part) -> Point:
    """The size of a block or closed group."""
    widths = [text_width(shortened(part.title), TITLE, bold=True)]
    widths += [text_width(shortened(line), LINE) for line in part.lines]
    return max(56.0, max(widths) + 24), 28.0 + 15 * len(part.lines)


@dataclass
class Edge:
    """An arrow within one group, as a chain of cubic Bézier curves (3n + 1 points)."""

    source: str
    value: str  # the block whose value flows
    target: str
    points: list[Point]


@dataclass
class Layout:
    """The inside of one group: boxes (x, y, width, height), ports on its border, arrows."""

    width: float = 0.0
    height: float = 0.0
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    ports: dict[str, Point] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


def graphviz(source: str, form: str = "plain") -> bytes:
    """Run Graphviz's ``dot`` on a text in its language.

    Raises:
        ImportError: neither the package ``pygraphviz`` (which brings Graphviz with it) nor the package
            ``graphviz`` with a ``dot`` program is there.
    """
    try:
        import pygraphviz
    except ImportError:
        pass
    else:
        return pygraphviz.AGraph(string=source).draw(format=form, prog="dot")
    missing = (
        "drawing needs Graphviz to place the blocks: pip install 'kilograd[viz]' (it brings Graphviz "
        "along), or install the package graphviz and a dot program. Without either, .dot, "
        ".save('x.dot') and .save('x.mmd') work"
    )
    try:
        from graphviz import ExecutableNotFound, Source
    except ImportError as e:
        raise ImportError(missing) from e
    try:
        return Source(source).pipe(format=form)
    except (ExecutableNotFound, subprocess.SubprocessError) as e:
        raise ImportError(missing) from e


def _laid_out(
    sizes: dict[str, Point],
    wires: dict[tuple[str, str, str], None],
    direction: str,
    bundled: set[str],
    known: dict[str, bytes],
) -> Layout:
    """Boxes of given sizes and the arrows between them, placed by Graphviz; bundled ports share a place.

    ``known`` are Graphviz's answers so far: many groups look the same.
    """
    place = lambda end: end.partition(":")[0] + ":" if end in bundled else end  # noqa: E731
    layout = Layout()
    names: dict[str, str] = {}
    ports: dict[str, list[str]] = {"in": [], "out": []}
    lines = [
        f"digraph {{ rankdir={direction}; nodesep=0.25; ranksep=0.32;",
        "nslimit=2; nslimit1=2;" if len(wires) > 100 else "",  # a little less fine, much sooner
        'node [shape=box, fixedsize=true, label=""]; edge [arrowhead=none];',
    ]
    for id, (w, h) in sizes.items():
        names[id] = f"n{len(names)}"
        lines.append(f"{names[id]} [width={w / 72:.4f}, height={h / 72:.4f}];")
    for source, _, target in wires:
        for end in (place(source), place(target)):
            if end not in names:
                names[end] = f"n{len(names)}"
                lines.append(f"{names[end]} [width=0.02, height=0.02];")
                ports[end.partition(":")[0]].append(names[end])
    for side, rank in (("in", "source"), ("out", "sink")):
        if ports[side]:
            lines.append(f"{{ rank={rank}; {'; '.join(ports[side])} }}")
    pairs = dict.fromkeys((place(source), place(target)) for source, _, target in wires)
    lines += [f"{names[a]} -> {names[b]};" for a, b in pairs]
    ids = {name: id for id, name in names.items()}
    routes: dict[tuple[str, str], list[Point]] = {}
    height = 0.0
    text = "\n".join([*lines, "}"])
    if text not in known:
        known[text] = graphviz(text)
    for line in known[text].decode().splitlines():
        words = line.split()
        if words[0] == "graph":
            layout.width, height = float(words[2]) * 72, float(words[3]) * 72
            layout.height = height
        elif words[0] == "node":
            id = ids[words[1]]
            x, y = float(words[2]) * 72, height - float(words[3]) * 72
            if id in sizes:
                w, h = sizes[id]
                layout.boxes[id] = (x - w / 2, y - h / 2, w, h)
            else:
                layout.ports[id] = (x, y)
        elif words[0] == "edge":
            count = int(words[3])
            numbers = [float(n) * 72 for n in words[4 : 4 + 2 * count]]
            points = [(numbers[k], height - numbers[k + 1]) for k in range(0, 2 * count, 2)]
            routes[ids[words[1]], ids[words[2]]] = points
    for source, value, target in wires:
        points = list(routes[place(source), place(target)])
        for end, k in ((source, 0), (target, -1)):
            if (port := layout.ports.get(place(end))) is not None:
                layout.ports[end] = points[k] = port  # its middle
        layout.edges.append(Edge(source, value, target, points))
    return layout


class Arrangement:
    """A diagram with a place for everything.

    ``layouts`` holds the inside of each group. With ``nested=True`` an open group has the size of what
    it holds, which is what a picture needs; otherwise all inner groups are closed, as the
    interactive page wants them.
    """

    def __init__(self, diagram: Diagram, nested: bool = True) -> None:
        self.diagram = diagram
        self.nested = nested
        self.children = diagram.children()
        self.layouts: dict[str, Layout] = {}
        self.bundles = bundles(diagram)
        self.known: dict[str, bytes] = {}
        wires = wiring(diagram)
        if nested:
            self._inside_out(ROOT, wires)
        else:
            for group in diagram.groups:
                self._place(group, wires)

    def is_open(self, id: str) -> bool:
        """Whether an id is that of a group that is shown with what it holds."""
        group = self.diagram.groups.get(id)
        return self.nested and group is not None and group.open

    def _inside_out(self, root: str, wires: Wires) -> None:
        order = [root]
        for group in order:  # grows while it is walked
            order += [id for id in self.children[group] if self.is_open(id)]
        for group in reversed(order):
            self._place(group, wires)

    def _place(self, group: str, wires: Wires) -> None:
        sizes = {}
        for id in self.children[group]:
            part = self.diagram.part(id)
            sizes[id] = size_of(part)
            if self.is_open(id):
                inner = self.layouts[id]
                title = text_width(shortened(part.title), TITLE, bold=True) + 2 * PADDING
                sizes[id] = (
                    max(inner.width + 2 * PADDING, title),
                    inner.height + HEADER + PADDING,
                )
        self.layouts[group] = _laid_out(
            sizes, wires[group], self.diagram.direction, self.bundles[group], self.known
        )

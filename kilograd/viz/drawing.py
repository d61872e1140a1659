"""``Drawing``: what every drawing function returns; shown in notebooks, saved by suffix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kilograd.train.checkpoint import atomic_write
from kilograd.viz import formats
from kilograd.viz.arrange import Arrangement, Layout
from kilograd.viz.diagram import ROOT, Diagram
from kilograd.viz.scene import Scene

SUFFIXES = (".svg", ".png", ".pdf", ".dot", ".gv", ".mmd", ".mermaid", ".html", ".json")


class Drawing:
    """A graph that can be looked at.

    Jupyter shows it inline. ``save`` writes it in the format of the file's suffix; ``.dot`` and
    ``.mermaid`` are its text forms, which need no other package.
    """

    def __init__(self, diagram: Diagram, depth: int | None = None) -> None:
        self.diagram = diagram
        self._scene: Scene | None = None
        self.open_to(depth)

    def __len__(self) -> int:
        """The number of blocks, shown or not."""
        return len(self.diagram.blocks)

    def __repr__(self) -> str:
        shown = sum(1 for _ in self.diagram.visible())
        title = f" {self.diagram.title!r}" if self.diagram.title else ""
        return f"<Drawing{title}: {len(self)} blocks, {shown} shown; .save('graph.html') or .svg>"

    @property
    def scene(self) -> Scene:
        """The shapes of the picture."""
        if self._scene is None:
            self._scene = Scene(Arrangement(self.diagram))
        return self._scene

    def open_to(self, depth: int | None) -> Drawing:
        """Show groups opened down to a depth: 0 none, 1 the outermost …; None as many as fit well."""
        self.chosen = depth is not None  # the page keeps a choice, and else begins with less
        self.diagram.open_to(depth)
        self._scene = None
        return self

    @property
    def dot(self) -> str:
        """The graph in Graphviz's language."""
        return formats.dot(self.diagram)

    @property
    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart (for Markdown pages)."""
        return formats.mermaid(self.diagram)

    @property
    def svg(self) -> str:
        """The picture as an SVG document."""
        return formats.svg(self.scene)

    @property
    def html(self) -> str:
        """One page with everything in it: zoom, search, opening of groups, stepping."""
        from kilograd.viz.page import page

        return page(self.data(), self.diagram.title or "kilograd graph")

    def png(self, dpi: float = 144) -> bytes:
        """The picture as PNG."""
        return formats.raster(self.scene, "png", dpi)

    def pdf(self) -> bytes:
        """The picture as PDF."""
        return formats.raster(self.scene, "pdf")

    def _repr_svg_(self) -> str:
        return self.svg

    def data(self) -> dict[str, Any]:
        """Blocks, groups and their layouts as plain data: what the interactive page is made of."""
        diagram = self.diagram
        arrangement = Arrangement(diagram, nested=False)
        opened = {g.id: g.open for g in diagram.groups.values()}
        if not self.chosen:
            diagram.open_to(None, most=40)
        blocks: dict[str, dict[str, Any]] = {}
        for b in diagram.blocks.values():
            blocks[b.id] = {
                "title": b.title, "lines": b.lines, "kind": b.kind, "phase": b.phase,
                "order": b.order, "details": b.details,
            }  # fmt: skip
            if b.heat is not None:
                blocks[b.id]["heat"] = round(b.heat, 4)
        groups = {}
        for g in diagram.groups.values():
            groups[g.id] = {
                "title": g.title, "lines": g.lines, "kind": g.kind, "phase": g.phase,
                "parent": g.parent or None, "details": g.details,
                "children": arrangement.children[g.id], "open": g.open or g.id == ROOT,
                "layout": _plain(arrangement.layouts[g.id]),
            }  # fmt: skip
        for id, open in opened.items():
            diagram.groups[id].open = open
        return {
            "title": diagram.title,
            "direction": diagram.direction,
            "blocks": blocks,
            "groups": groups,
            "root": ROOT,
        }

    def save(self, path: Any, *, dpi: float = 144) -> Path:
        """Write the drawing in the format of the suffix: svg, png, pdf, dot, mmd, html or json.

        The file appears when it is whole. Returns its path.

        Raises:
            ValueError: another suffix.
            ImportError: a package that the format needs is missing.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"cannot draw into {path.name!r}: the suffix must be one of {', '.join(SUFFIXES)}")  # fmt: skip
        if suffix == ".png":
            content = self.png(dpi)
        elif suffix == ".pdf":
            content = self.pdf()
        else:
            text = {
                ".svg": lambda: self.svg, ".html": lambda: self.html, ".dot": lambda: self.dot,
                ".gv": lambda: self.dot, ".mmd": lambda: self.mermaid,
                ".mermaid": lambda: self.mermaid, ".json": lambda: json.dumps(self.data()),
            }[suffix]()  # fmt: skip
            content = text.encode("utf-8")
        with atomic_write(path) as file:
            file.write(content)
        return path


def _plain(layout: Layout) -> dict[str, Any]:
    """A layout as lists of rounded numbers."""
    flat = lambda numbers: [round(n, 1) for n in numbers]  # noqa: E731
    return {
        "width": round(layout.width, 1),
        "height": round(layout.height, 1),
        "boxes": {id: flat(box) for id, box in layout.boxes.items()},
        "ports": {id: flat(p) for id, p in layout.ports.items()},
        "edges": [
            {"from": e.source, "from_value": e.value, "to": e.target, "points": [flat(p) for p in e.points]}
            for e in layout.edges
        ],
    }  # fmt: skip

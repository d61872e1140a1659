"""A diagram: blocks, the arrows between them, and the groups that blocks lie in.

What is drawn is said here and nowhere else: the autograd graph, a traced program and a model each
become a :class:`Diagram` (``tape.py``, ``program.py``, ``model.py``); pictures, text and the
interactive page are made of it (``drawing.py``). Groups form a tree. A group can be closed, and is then
drawn as one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROOT = "root"


@dataclass
class Part:
    """What blocks and groups have in common."""

    id: str
    title: str
    lines: list[str] = field(default_factory=list)  # under the title, in smaller letters
    kind: str = "op"
    phase: str = "forward"  # or "backward", "update"
    parent: str = ROOT  # the group it lies in
    details: list[tuple[str, str]] = field(default_factory=list)  # (label, text), for the page


@dataclass
class Block(Part):
    """One value, or one operation.

    ``kind``: "op", "parameter", "data", "constant", "random", "state", "gradient" or "output".
    """

    order: int | None = None  # its place in the execution
    heat: float | None = None  # its time as a share of the longest, 0 to 1


@dataclass
class Group(Part):
    """Blocks and groups that belong together: ``kind`` "module", "op", "phase" or "run"."""

    open: bool = True


def shape_text(shape: Any, dtype: Any) -> str:
    """Shape and, unless it is float32, dtype: what a block says of its value.

    >>> shape_text((2, 3), np.dtype(np.int64))
    '2×3 int64'
    """
    text = "×".join(map(str, shape)) or "scalar"
    return text if dtype == np.float32 else f"{text} {dtype}"


class Diagram:
    """Blocks, groups and arrows; arrows run from block to block, whatever groups lie between."""

    def __init__(self, title: str = "", direction: str = "TB") -> None:
        if direction not in ("TB", "LR"):
            raise ValueError(
                f"direction must be 'TB' (downwards) or 'LR' (to the right), not {direction!r}"
            )
        self.title = title
        self.direction = direction
        self.blocks: dict[str, Block] = {}
        self.groups: dict[str, Group] = {ROOT: Group(ROOT, title, kind="phase", parent="")}
        self.arrows: dict[tuple[str, str], None] = {}  # an ordered set

    def add(self, block: Block) -> Block:
        """Put in a block."""
        self.blocks[block.id] = block
        return block

    def add_group(self, group: Group) -> Group:
        """Put in a group."""
        self.groups[group.id] = group
        return group

    def arrow(self, source: str, target: str) -> None:
        """Connect two blocks."""
        if source != target:
            self.arrows[source, target] = None

    # --- the tree ---------------------------------------------------------------------------------

    def part(self, id: str) -> Part:
        """A block or group by its id."""
        return self.blocks.get(id) or self.groups[id]

    def path(self, id: str) -> list[str]:
        """The groups around a block or group, from the outermost in."""
        found: list[str] = []
        parent = self.part(id).parent
        while parent:
            found.append(parent)
            parent = self.groups[parent].parent
        return found[::-1]

    def children(self) -> dict[str, list[str]]:
        """What lies directly in each group, in order of execution; a value comes before its first reader."""
        inside: dict[str, list[str]] = {g: [] for g in self.groups}
        first: dict[str, float] = {}
        last = float(len(self.blocks))
        read: dict[str, float] = {}
        for u, v in self.arrows:
            order = self.blocks[v].order
            read[u] = min(read.get(u, last), last if order is None else order - 0.5)
        for block in self.blocks.values():
            inside[block.parent].append(block.id)
            place = read.get(block.id, last) if block.order is None else block.order
            for g in self.path(block.id):
                first[g] = min(first.get(g, last), place)
            first[block.id] = place
        for group in self.groups.values():
            if group.parent:
                inside[group.parent].append(group.id)
        for ids in inside.values():
            ids.sort(key=lambda i: first.get(i, last))
        return inside

    def visible(self) -> Iterator[Part]:
        """The blocks and closed groups that a picture shows now."""
        inside = self.children()
        waiting = [ROOT]
        while waiting:
            for id in inside[waiting.pop()]:
                group = self.groups.get(id)
                if group is None or not group.open:
                    yield self.part(id)
                else:
                    waiting.append(id)

    def shown_as(self, id: str) -> str:
        """The outermost closed group around a block, or the block itself."""
        for g in self.path(id):
            if not self.groups[g].open:
                return g
        return id

    # --- tidying ----------------------------------------------------------------------------------

    def prune(self) -> None:
        """Take out groups that hold nothing, and groups that hold one thing only if that is an op."""
        while True:
            inside = self.children()
            empty = [g for g, ids in inside.items() if not ids and g != ROOT]
            for g in empty:
                del self.groups[g]
            if not empty:
                break
        for g, ids in inside.items():
            if (
                g != ROOT
                and len(ids) == 1
                and self.groups[g].kind == "op"
                and ids[0] in self.blocks
            ):
                group, block = self.groups.pop(g), self.blocks[ids[0]]
                block.parent, block.title = group.parent, group.title
                known = {label for label, _ in group.details}
                block.details = group.details + [d for d in block.details if d[0] not in known]

    def fold_runs(self, most: int = 240, length: int = 60) -> None:
        """Divide a group of very many things into runs of consecutive ones, which start closed."""
        for g, ids in list(self.children().items()):
            if len(ids) <= most:
                continue
            for k in range(0, len(ids), length):
                part = ids[k : k + length]
                run = Group(f"{g}/run{k}", f"{k + 1} … {k + len(part)}", kind="run", parent=g)
                run.lines = [f"{len(part)} steps, first {self.part(part[0]).title}"]
                run.phase = self.part(part[0]).phase
                run.open = False
                self.add_group(run)
                for id in part:
                    self.part(id).parent = run.id

    def open_to(self, depth: int | None, most: int = 160) -> None:
        """Open groups to a depth; with None from the outermost on while at most ``most`` things show.

        With None, groups beside each other are opened all or none (phases one by one), and groups of
        one operation's steps and runs of a long list stay closed.

        Raises:
            ValueError: ``depth`` is negative or no whole number.
        """
        if depth is not None and (type(depth) is not int or depth < 0):
            raise ValueError(f"depth must be None or a whole number from 0 on, not {depth!r}")
        inside = self.children()
        for group in self.groups.values():
            group.open = group.id == ROOT
        shown = len(inside[ROOT])
        waiting = [(ROOT, 1)]
        for parent, level in waiting:  # grows while it is walked: the outermost first
            here = [g for g in inside[parent] if g in self.groups]
            if depth is not None:
                batches = [here] if level <= depth else []
            else:
                here = [g for g in here if self.groups[g].kind not in ("op", "run")]
                phases = all(self.groups[g].kind == "phase" for g in here)
                batches = [[g] for g in here] if phases else [here]
            for batch in batches:
                more = sum(len(inside[g]) - 1 for g in batch)
                if depth is not None or shown + more <= most:
                    shown += more
                    for g in batch:
                        self.groups[g].open = True
                        waiting.append((g, level + 1))


Wires = dict[str, dict[tuple[str, str, str], None]]


def wiring(diagram: Diagram) -> Wires:
    """For each group its inner arrows: (from, the block whose value it is, to).

    An arrow that crosses a group's border becomes one to a port, ``in:<block>`` or ``out:<block>``,
    and goes on outside; so each group can be drawn by itself.
    """
    wires: Wires = {g: {} for g in diagram.groups}
    paths = {id: [*diagram.path(id), id] for id in diagram.blocks}
    for u, v in diagram.arrows:
        a, b = paths[u], paths[v]
        common = 0
        while a[common] == b[common]:
            common += 1
        wires[a[common - 1]][a[common], u, b[common]] = None
        for k in range(common, len(a) - 1):
            wires[a[k]][a[k + 1], u, f"out:{u}"] = None
        for k in range(common, len(b) - 1):
            wires[b[k]][f"in:{u}", u, b[k + 1]] = None
    return wires


def bundles(diagram: Diagram) -> dict[str, set[str]]:
    """For each group the ports that share one place: those of values that another phase makes or reads.

    A training step hands hundreds of values from the forward to the backward pass; they run in one strand.
    """
    found: dict[str, set[str]] = {g: set() for g in diagram.groups}
    straight: set[tuple[str, str]] = (
        set()
    )  # (group, port) that something of the same phase also uses
    paths = {id: diagram.path(id) for id in diagram.blocks}
    for u, v in diagram.arrows:
        other = diagram.blocks[u].phase != diagram.blocks[v].phase
        if diagram.blocks[v].order is None:  # a result, or a new value: no operation reads it
            other = False
        for group in paths[u]:
            if group not in paths[v]:
                found[group].add(f"out:{u}") if other else straight.add((group, f"out:{u}"))
        for group in paths[v]:
            if group not in paths[u]:
                found[group].add(f"in:{u}") if other else straight.add((group, f"in:{u}"))
    for group, port in straight:
        found[group].discard(port)
    return found

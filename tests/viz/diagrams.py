"""Drawings for the page's tests: blocks and edges put into groups and laid out in plain rows.

A group's name says where it lies: ``"net/block1"`` is inside ``"net"``. Edges go from block to block; the piece of an
edge in each group it runs through, and the ports where it crosses borders, follow from the names.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROW_GAP, COLUMN_GAP = 48, 24


@dataclass
class Diagram:
    direction: str = "TB"
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    home: dict[str, str] = field(default_factory=dict)  # the group a block or group lies in
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    def block(
        self, name, group="", kind="op", phase="forward", lines=(), order=None, details=(), **more
    ):
        self.blocks[name] = {
            "title": more.pop("title", name), "lines": list(lines), "kind": kind, "phase": phase, "order": order,
            "details": [list(pair) for pair in details], **more,
        }  # fmt: skip
        self.home[name] = self.group(group)
        return name

    def group(self, name, **fields):
        """Makes the group and those around it; the root is the group ""."""
        if name not in self.groups:
            self.groups[name] = {
                "title": name.rpartition("/")[2], "lines": [], "kind": "module", "parent": None,
                "details": [["module", name.replace("/", ".")]], "open": name == "",
            }  # fmt: skip
            if name:
                self.home[name] = self.group(name.rpartition("/")[0])
                self.groups[name]["parent"] = self.home[name]
        self.groups[name].update(fields)
        return name

    def edge(self, source, target, label=""):
        self.edges.append((source, target, label))

    def data(self):
        pieces = {name: {} for name in self.groups}
        for source, target, label in self.edges:
            for group, start, end in self._pieces(source, target):
                pieces[group].setdefault((start, source, end), label)
        groups = {}
        for name, fields in self.groups.items():
            children = [child for child, home in self.home.items() if home == name]
            layout = self._layout(children, list(pieces[name].items()))
            groups[name] = {**fields, "children": children, "layout": layout}
        return {
            "title": "test", "direction": self.direction, "blocks": self.blocks, "groups": groups, "root": "",
        }  # fmt: skip

    def _pieces(self, source, target):
        """(group, from, to) of every piece of the edge: up to the common group, across it, down again."""
        up, down = [source], [target]
        while up[-1]:
            up.append(self.home[up[-1]])
        while down[-1]:
            down.append(self.home[down[-1]])
        common = next(group for group in up[1:] if group in down[1:])
        for inner, group in itertools.pairwise(up):
            if group == common:
                break
            yield group, inner, f"out:{source}"
        yield common, up[up.index(common) - 1], down[down.index(common) - 1]
        for inner, group in itertools.pairwise(down):
            if group == common:
                break
            yield group, f"in:{source}", inner

    def _size(self, name):
        item = self.blocks.get(name) or self.groups[name]
        width = max(8.6 * len(item["title"]), *(6.6 * len(line) for line in item["lines"]), 24) + 24
        return (round(width), 18 + 15 * (len(item["lines"]) + 1))

    def _layout(self, children, pieces):
        """Rows by longest path; an edge over several rows bends through a free place in each."""
        rank = dict.fromkeys(children, 0)
        inner = [(start, end) for (start, _, end), _ in pieces if start in rank and end in rank]
        for _ in range(len(children)):
            moved = False
            for start, end in inner:
                if rank[end] <= rank[start]:
                    rank[end], moved = rank[start] + 1, True
            if not moved:
                break
        last = max(rank.values(), default=0)
        ports = list(
            dict.fromkeys(end for (s, _, e), _ in pieces for end in (s, e) if end not in rank)
        )
        for port in ports:
            rank[port] = -1 if port.startswith("in:") else last + 1

        routes, sizes = [], {child: self._size(child) for child in children}
        for (start, value, end), label in pieces:
            bends = [(start, value, end, r) for r in range(rank[start] + 1, rank[end])]
            rank.update(zip(bends, range(rank[start] + 1, rank[end]), strict=True))
            routes.append(((start, value, end), label, bends))
        rows = {}
        for node, r in rank.items():
            rows.setdefault(r, []).append(node)
        return self._place(rows, sizes, routes, ports)

    def _place(self, rows, sizes, routes, ports):
        flip = (lambda x, y: (x, y)) if self.direction == "TB" else (lambda x, y: (y, x))
        size = {node: flip(*sizes.get(node, (8, 8))) for row in rows.values() for node in row}
        before = {}
        for (start, _, end), _, bends in routes:
            chain = [start, *bends, end]
            for a, b in itertools.pairwise(chain):
                before.setdefault(b, []).append(a)
        middle, top, heights, y, lowest, highest = {}, {}, {}, 0, 0, 0
        for r in sorted(rows):
            # A node stands near the middle of what it comes from.
            want = {
                n: np.mean([middle[p] for p in before.get(n, []) if p in middle] or [0])
                for n in rows[r]
            }
            row = sorted(rows[r], key=want.get)
            width = sum(size[n][0] for n in row) + COLUMN_GAP * (len(row) - 1)
            own = [n for n in row if n in sizes] or row  # the bends of long edges stand beside
            left = sum(size[n][0] + COLUMN_GAP for n in row[: row.index(own[0])])
            right = sum(size[n][0] + COLUMN_GAP for n in row[row.index(own[-1]) + 1 :])
            x = -left - (width - left - right) / 2
            lowest, highest = min(lowest, x), max(highest, x + width)
            height = 0 if set(row) <= set(ports) else max(size[n][1] for n in row)
            for node in row:
                middle[node], top[node] = x + size[node][0] / 2, y + (height - size[node][1]) / 2
                x += size[node][0] + COLUMN_GAP
                if node in ports:
                    top[node] = y
            heights.update(dict.fromkeys(row, height))
            y += height + ROW_GAP
        height, shift, widest = max(y - ROW_GAP, 8), -lowest, highest - lowest
        real = list(sizes)
        boxes = {n: [*flip(middle[n] - size[n][0] / 2 + shift, top[n]), *sizes[n]] for n in real}
        edges = []
        for (start, value, end), label, bends in routes:
            knots = [
                (middle[start] + shift, top[start] + (size[start][1] if start in sizes else 0))
            ]
            for bend in bends:  # straight past the row
                above = top[bend] + size[bend][1] / 2 - heights[bend] / 2
                knots += [
                    (middle[bend] + shift, above),
                    (middle[bend] + shift, above + heights[bend]),
                ]
            knots.append((middle[end] + shift, top[end]))
            points = [flip(*knots[0])]
            for (x0, y0), (x1, y1) in itertools.pairwise(knots):
                half = (y1 - y0) / 2
                points += [flip(x0, y0 + half), flip(x1, y1 - half), flip(x1, y1)]
            edges.append(
                {"from": start, "from_value": value, "to": end, "label": label, "points": points}
            )
        spots = {port: list(flip(middle[port] + shift, top[port])) for port in ports}
        width, height = flip(max(widest, 8), height)
        return {"width": width, "height": height, "boxes": boxes, "ports": spots, "edges": edges}


def ten(direction="TB"):
    """A linear layer with its loss: every kind of block, ten of them."""
    d = Diagram(direction)
    d.block("x", kind="data", lines=["float32 [64, 784]"], details=[["shape", "[64, 784]"]])
    d.block("w", kind="parameter", lines=["float32 [784, 10]"], details=[["module", "fc.weight"]])
    d.block("b", kind="parameter", lines=["float32 [10]"])
    d.block("two", kind="constant", title="2.0")
    d.block("mask", kind="random", title="bernoulli", lines=["p = 0.1"])
    d.block(
        "mm", title="matmul", order=0, lines=["[64, 10]", "12.3 µs"], heat=1.0,
        details=[["op", "matmul"], ["derivative", "g @ b.T\na.T @ g"], ["time", "12.3 µs"], ["line", "net.py:12"]],
    )  # fmt: skip
    d.block("add", order=1, lines=["[64, 10]"], heat=0.3)
    d.block("mul", order=2, lines=["[64, 10]"], heat=0.1)
    d.block("loss", kind="output", order=3, lines=["float32 []"], heat=0.2)
    d.block("g", kind="gradient", phase="backward", title="∂loss/∂w", order=4, lines=["[784, 10]"])
    for edge in [
        "x mm",
        "w mm",
        "mm add",
        "b add",
        "add mul",
        "mask mul",
        "mul loss",
        "two loss",
        "loss g",
        "mm g",
    ]:
        d.edge(*edge.split())
    return d.data()


def network(layers=8, direction="TB"):
    """A residual network of nested modules with forward, backward and update: 25 blocks a layer."""
    d = Diagram(direction)
    d.block("input", kind="data", lines=["float32 [32, 128]"])
    d.group("forward", kind="phase", title="Forward", open=True)
    d.group("backward", kind="phase", title="Backward")
    d.group("update", kind="phase", title="Update")
    last, gradient, order = "input", None, 0
    params = []
    for i in range(layers):
        at = f"forward/layer{i}"
        d.group(at, title=f"layers.{i}", lines=["Residual"])
        skip = last
        for j, (module, acts) in enumerate(
            [("linear1", ["gelu"]), ("linear2", ["dropout", "norm"])]
        ):
            inner = f"{at}/{module}"
            d.group(inner, lines=["Linear(128 → 128)"])
            w = d.block(
                f"w{i}.{j}", inner, "parameter", title="weight", lines=["float32 [128, 128]"]
            )
            b = d.block(f"b{i}.{j}", inner, "parameter", title="bias", lines=["float32 [128]"])
            params.append((w, i, j))
            mm = d.block(
                f"mm{i}.{j}", inner, title="matmul", lines=["[32, 128]"], order=order, heat=0.9,
                details=[["op", "matmul"], ["derivative", "g @ b.T\na.T @ g"], ["source", f"model.py:{20 + i}"]],
            )  # fmt: skip
            add = d.block(
                f"add{i}.{j}", inner, title="add", lines=["[32, 128]"], order=order + 1, heat=0.2
            )
            order += 2
            for a, z in [(last, mm), (w, mm), (mm, add), (b, add)]:
                d.edge(a, z)
            last = add
            for act in acts:
                name = d.block(
                    f"{act}{i}", at, title=act, lines=["[32, 128]"], order=order, heat=0.4
                )
                order += 1
                d.edge(last, name)
                last = name
        total = d.block(f"sum{i}", at, title="add", lines=["residual"], order=order, heat=0.1)
        order += 1
        d.edge(last, total)
        d.edge(skip, total)
        last = total
    loss = d.block("loss", kind="output", title="cross_entropy", lines=["float32 []"], order=order)
    d.edge(last, loss)
    order, gradient = order + 1, loss
    grads = {}
    for w, i, j in reversed(params):
        at = f"backward/layer{i}"
        d.group(at, title=f"layers.{i}")
        for op in ("matmul_a", "matmul_b"):
            name = d.block(
                f"{op}{i}.{j}", at, phase="backward", title=op, lines=["[128, 128]"], order=order
            )
            order += 1
            d.edge(gradient, name)
        d.edge(f"mm{i}.{j}", f"matmul_b{i}.{j}")
        grads[w] = d.block(
            f"grad {w}", at, "gradient", "backward", lines=["[128, 128]"], order=order
        )
        order += 1
        d.edge(f"matmul_b{i}.{j}", grads[w])
        gradient = f"matmul_a{i}.{j}"
    for w, i, j in params:
        at = f"update/layer{i}"
        state = d.block(f"m{i}.{j}", at, "state", "update", title="momentum")
        step = d.block(
            f"step{i}.{j}", at, phase="update", title="sgd", lines=["lr = 0.1"], order=order
        )
        order += 1
        d.edge(grads[w], step)
        d.edge(state, step)
    return d.data()


def flat(n=5000, m=7000, seed=0):
    """One group of n blocks in rows of 25 and m edges."""
    rng = np.random.default_rng(seed)
    d = Diagram()
    per_row = 25
    kinds = ["op"] * 12 + ["parameter", "data", "constant"]
    for i in range(n):
        phase = "forward" if i < n // 2 else "backward"
        kind = kinds[int(rng.integers(len(kinds)))]
        d.block(
            f"b{i}",
            kind=kind,
            phase=phase,
            title=f"op {i}",
            lines=["float32 [64]"],
            order=i,
            heat=(i % 97) / 96,
        )
    d.group("")
    boxes = {f"b{i}": [130 * (i % per_row), 96 * (i // per_row), 104, 48] for i in range(n)}
    pairs = [
        (i - per_row + int(rng.integers(-1, 2)) * (0 < i % per_row < per_row - 1), i)
        for i in range(per_row, n)
    ]
    while len(pairs) < m:
        i = int(rng.integers(per_row, n))
        pairs.append((i - per_row, i))
    edges = []
    for a, b in pairs[:m]:
        x0, y0 = 130 * (a % per_row) + 52, 96 * (a // per_row) + 48
        x1, y1 = 130 * (b % per_row) + 52, 96 * (b // per_row)
        points = [[x0, y0], [x0, y0 + 24], [x1, y1 - 24], [x1, y1]]
        edges.append(
            {"from": f"b{a}", "from_value": f"b{a}", "to": f"b{b}", "label": "", "points": points}
        )
    layout = {
        "width": 130 * per_row,
        "height": 96 * (n // per_row),
        "boxes": boxes,
        "ports": {},
        "edges": edges,
    }
    root = {**d.groups[""], "children": list(d.blocks), "layout": layout}
    return {
        "title": "flat",
        "direction": "TB",
        "blocks": d.blocks,
        "groups": {"": root},
        "root": "",
    }

"""The picture of an autograd graph: what ``backward()`` will walk, from a tensor back to its leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.autograd.driver import Edge, Node, Pick, reachable
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.compile.lazy.graph import outside
from kilograd.tensor import Tensor
from kilograd.viz.diagram import Block, Diagram, shape_text
from kilograd.viz.drawing import Drawing
from kilograd.viz.rules import rule_source

FEW = 12  # numbers: a tensor of no more is shown with its values
LONG = 400  # characters: a formula goes on in another line


@outside()
def draw_graph(
    *tensors: Tensor,
    direction: str = "TB",
    values: bool = True,
    names: dict[str, Tensor] | None = None,
    model: Any = None,
    title: str | None = None,
) -> Drawing:
    """Draw the autograd graph of tensors: operations, and the leaves that gradients go to.

    Leaves that require grad are blue; other tensors that an operation keeps for its derivative are
    red; constants are green. The values, and gradients where there are any, of small tensors are
    shown (of intermediate ones under :func:`kilograd.retain_grads`, which keeps them). Of lazy tensors only
    the values that are known: nothing is computed.

    Args:
        direction: "TB" downwards, "LR" to the right.
        values: show the numbers of tensors with at most 12 elements.
        names: what leaves are called, ``{"w": w}``.
        model: a Module, whose parameters are called as in its ``state_dict``.

    Raises:
        TypeError: something is no tensor.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0], requires_grad=True)
    >>> drawing = (x * 3).sum().draw_graph(names={"x": x})
    >>> [(b.title, b.kind) for b in drawing.diagram.blocks.values()]
    [('x', 'parameter'), ('multiply', 'op'), ('3', 'constant'), ('sum', 'op'), ('result', 'output')]
    """
    for t in tensors:
        if not isinstance(t, Tensor):
            raise TypeError(f"draw_graph() draws tensors, not {type(t).__name__}")
    tape = _Tape(Diagram(title or "", direction), values)
    for name, t in (names or {}).items():
        tape.names[id(t)] = tape.names[_key(t.array)] = name
    if model is not None:
        for name, p in model.named_parameters():
            tape.names.setdefault(id(p), name)
    edges: list[Edge] = [e for t in tensors if (e := t._edge()) is not None]
    for node in reversed(reachable(edges)):
        if type(node) is not Pick:
            tape.operation(node)
    for k, t in enumerate(tensors):
        tape.result(t, "result" if len(tensors) == 1 else f"result {k}")
    diagram = tape.diagram
    diagram.fold_runs()
    return Drawing(diagram)


class _Tape:
    """Makes a diagram of nodes."""

    def __init__(self, diagram: Diagram, values: bool) -> None:
        self.diagram = diagram
        self.values = values
        self.names: dict[int, str] = {}
        self.of: dict[Any, str] = {}  # edge → block
        self.kept: dict[int, str] = {}  # key of a kept array → block

    def block_of(self, edge: Edge) -> str:
        """The block a gradient goes to; leaves are drawn when first met."""
        if isinstance(edge, Pick):
            return self.block_of(edge.inputs[0])  # type: ignore[arg-type]
        if edge not in self.of:
            assert isinstance(edge, Tensor)
            name = self.names.get(id(edge)) or edge.name or f"leaf {len(self.of)}"
            block = Block(f"l{len(self.of)}", name, [_shape(edge.array)], "parameter")
            block.lines += self.numbers(edge.array, "data")
            if edge.grad is not None:
                block.lines += self.numbers(edge.grad.array, "grad")
            block.details = _about(edge.array)
            self.of[edge] = self.diagram.add(block).id
        return self.of[edge]

    def operation(self, node: Node) -> None:
        """A node as a block, with arrows from its inputs."""
        sources = [self.block_of(e) for e in node.inputs if e is not None]
        name = node.op.name if node.op is not None else node.name().removesuffix("Backward")
        many = isinstance(node.shape, list)
        shapes = node.shape if many else [node.shape]
        dtypes = node.dtype if many else [node.dtype]
        lines = [shape_text(s, d) for s, d in zip(shapes[:2], dtypes[:2], strict=True)]
        block = Block(f"n{len(self.of)}", name, lines, order=len(self.of))
        block.details = [("grad_fn", node.name()), *self._about(node)]
        block.details += [
            ("shape", ", ".join(str(tuple(s)) for s in shapes)),
            ("dtype", str(dtypes[0])),
        ]
        if node.made_at:
            block.details.append(("line", node.made_at.strip()))
        kept = node.retain() if node.retain is not None else None
        if kept is not None:
            block.lines += self.numbers(kept.array, "data")
            if kept.grad is not None:
                block.lines += self.numbers(kept.grad.array, "grad")
        self.of[node] = self.diagram.add(block).id
        for source in sources:
            self.diagram.arrow(source, block.id)
        for k, value in self._inputs_without_gradient(node):
            self.diagram.arrow(self.constant(node, k, value), block.id)

    def _about(self, node: Node) -> list[tuple[str, str]]:
        if node.op is None or node.plan is None:
            return []
        about = [("op", repr(node.op))]
        rules = {d.rule: d.inputs for d in node.op.derivatives}
        for _, rule, _pick in node.plan.rules:
            names = ", ".join(rules.get(rule, ()))
            about.append((f"derivative: {names}", rule_source(rule)))
        return about

    def _inputs_without_gradient(self, node: Node) -> list[tuple[int, Any]]:
        """The inputs that get no gradient and that the node keeps: (their place, value)."""
        if node.plan is None or not node.kept:
            return []
        found = {}
        for value, i in zip(node.kept, node.plan.origin, strict=False):
            if i >= 0 and i < len(node.inputs) and node.inputs[i] is None and value is not None:
                found[i] = value
        return list(found.items())

    def constant(self, node: Node, place: int, value: Any) -> str:
        """A block for data (red) or a number (green)."""
        if not isinstance(value, np.ndarray):
            number = f"{self.of[node]}.{place}"
            text = f"{value:g}" if isinstance(value, (int, float)) else str(value)
            return self.diagram.add(Block(number, text, kind="constant")).id
        if _key(value) not in self.kept:
            name = self.names.get(_key(value), "data")
            block = Block(f"c{len(self.kept)}", name, [_shape(value)], "data")
            block.lines += self.numbers(value, "data")
            block.details = _about(value)
            self.kept[_key(value)] = self.diagram.add(block).id
        return self.kept[_key(value)]

    def result(self, t: Tensor, name: str) -> None:
        """The tensor that is drawn."""
        edge = t._edge()
        if edge is not None and not isinstance(edge, Node):
            self.block_of(edge)
            return
        block = Block(
            f"r{name}", self.names.get(id(t)) or t.name or name, [_shape(t.array)], "output"
        )
        block.lines += self.numbers(t.array, "data")
        if t._leaf is False and t.__dict__.get("grad") is not None:
            block.lines += self.numbers(t.__dict__["grad"].array, "grad")
        block.details = _about(t.array)
        self.diagram.add(block)
        if edge is not None:
            self.diagram.arrow(self.block_of(edge), block.id)

    def numbers(self, array: Any, what: str) -> list[str]:
        """The values of a small tensor as lines of text."""
        if not self.values or array.size > FEW or (array := _known(array)) is None:
            return []
        text = np.array2string(array, precision=4, separator=", ", suppress_small=True)
        rows = [" ".join(row.split()) for row in text.splitlines()]
        return [f"{what} {rows[0]}"] if len(rows) == 1 else [what, *rows]


def _known(array: Any) -> Any:
    """The values of an array; None for a lazy one that is not computed."""
    return array.known if type(array) is LazyArray else array


def _key(array: Any) -> int:
    """What is the same for equal arrays: a lazy one is made anew each time a tensor is read."""
    known = _known(array)
    return id(array._var) if known is None else id(known)


def _shape(array: Any) -> str:
    return shape_text(array.shape, array.dtype)


def _about(array: Any) -> list[tuple[str, str]]:
    about = [("shape", str(tuple(array.shape))), ("dtype", str(array.dtype))]
    array = _known(array)
    if array is not None and array.size and array.dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            low, mean, high = array.min(), array.mean(dtype=np.float64), array.max()
        about.append(("values", f"min {low:.4g}, mean {mean:.4g}, max {high:.4g}"))
    return about


# --- as a formula ---------------------------------------------------------------------------------

_INFIX = {"add": ("+", 1), "subtract": ("-", 1), "multiply": ("*", 2), "divide": ("/", 2),
          "matmul": ("@", 2), "power": ("**", 4)}  # fmt: skip


@outside()
def formula(
    tensor: Tensor, *, names: dict[str, Tensor] | None = None, model: Any = None
) -> str:  # fmt: skip
    """The computation of a tensor as text: a line for each value used more than once, and more if it is long.

    Inputs that need no gradient and are not kept for one are written ``·``: the autograd graph does not
    know them.

    >>> import kilograd as kg
    >>> x = kg.tensor(2.0, requires_grad=True)
    >>> h = (x + 1).exp()
    >>> print(kg.viz.formula(h * h + x, names={"x": x}))
    a = exp(x + ·)
    a * a + x
    """
    called = {id(t): name for name, t in (names or {}).items()}
    if model is not None:
        called |= {id(p): name for name, p in model.named_parameters()}
    edge = tensor._edge()
    if edge is None:
        return called.get(id(tensor), "·")
    nodes = reachable([edge])[::-1]
    uses: dict[Any, int] = {}
    for node in nodes:
        for e in node.inputs:
            uses[e] = uses.get(e, 0) + 1
    text: dict[Any, tuple[str, int]] = {None: ("·", 9)}  # edge → (text, how tightly it binds)
    lines: list[str] = []
    leaves = 0
    for node in nodes:
        for e in node.inputs:
            if isinstance(e, Tensor) and e not in text:
                leaves += 1
                text[e] = (called.get(id(e)) or e.name or f"x{leaves}", 9)
        text[node] = _written(node, text)
        if uses.get(node, 0) > 1 or len(text[node][0]) > LONG:
            name = _letters(len(lines))
            lines.append(f"{name} = {text[node][0]}")
            text[node] = (name, 9)
    if isinstance(edge, Tensor):
        return called.get(id(edge)) or edge.name or "x1"
    return "\n".join([*lines, text[edge][0]])


def _written(node: Node, text: dict[Any, tuple[str, int]]) -> tuple[str, int]:
    if type(node) is Pick:
        return f"{text[node.inputs[0]][0]}[{node.index}]", 9
    name = node.op.name if node.op is not None else node.name().removesuffix("Backward")
    args = [text[e] for e in node.inputs]
    if node.plan is not None and node.kept:
        for value, i in zip(node.kept, node.plan.origin, strict=False):
            if 0 <= i < len(args) and node.inputs[i] is None and isinstance(value, (int, float)):
                args[i] = (f"{value:g}", 2 if value < 0 else 9)
    if name in _INFIX and len(args) == 2:
        sign, binds = _INFIX[name]
        left, right = args
        a = left[0] if left[1] >= binds + (name == "power") else f"({left[0]})"
        b = right[0] if right[1] > binds else f"({right[0]})"
        return f"{a} {sign} {b}", binds
    if name == "negative":
        return (f"-{args[0][0]}" if args[0][1] > 2 else f"-({args[0][0]})"), 2
    return f"{name}({', '.join(a for a, _ in args)})", 9


def _letters(k: int) -> str:
    """a … z, a1 … z1, a2 …"""
    return chr(97 + k % 26) + (str(k // 26) if k >= 26 else "")

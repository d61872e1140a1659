"""The chain rule, and nothing else.

Every recorded operation is a :class:`Node`: the op, what its rules need, and where its inputs came
from. ``run`` visits the nodes from the last made to the first, asks each rule for its input's
share of the gradient, undoes broadcasting, and adds the share to what that input already has.

Nodes point to nodes or to leaf tensors, never to intermediate tensors: there are no reference
cycles, and activations die as soon as the pass has used them.

Read next: ``tensor.py``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kilograd.autograd.anomaly import check_nan
from kilograd.autograd.conjugate import shown
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.errors import GradError, ShapeError
from kilograd.kernels.kernel import LARGE, add_to, added, as_one_step, converted, copied, sized
from kilograd.kernels.memory import is_own
from kilograd.ops.op import Op, Plan

if TYPE_CHECKING:
    from kilograd.tensor import Tensor

Edge: TypeAlias = "Node | Tensor"  # where a gradient goes: an operation, or a leaf
Array: TypeAlias = Any  # an ndarray, or with create_graph a Tensor

ticks = count()
_NO_OPTIONS: dict[str, Any] = {}
tensor_of: Any = None  # how to make a Tensor: set by tensor.py, which stands on this file
STRICT = False  # on in tests: a rule must keep dtype, and give a shape that reduces to its input's


class Node:
    """One recorded operation (what ``tensor.grad_fn`` shows)."""

    __slots__ = (
        "__dict__", "__weakref__", "cells", "dtype", "inputs", "kept", "op", "order", "plan", "seen", "shape",
    )  # fmt: skip
    hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None  # these are seldom set
    retain: weakref.ref[Tensor] | None = None
    made_at: str | None = None
    large = False  # whether its arrays are worth a native program

    op: Op
    plan: Plan
    kept: tuple[Any, ...] | None  # what the rules want, or None once used and freed
    cells: tuple[list[int] | None, ...]  # version counters of what is kept
    seen: int  # their sum when it was kept

    def __init__(self, inputs: tuple[Edge | None, ...], shape: Any, dtype: Any) -> None:
        self.inputs = inputs
        self.shape = shape
        self.dtype = dtype
        self.order = next(ticks)
        self.seen = 0

    def name(self) -> str:
        """PyTorch's kind of name, e.g. ``MultiplyBackward0``."""
        return "".join(w[:1].upper() + w[1:] for w in self.op.name.split("_")) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes (or leaves) this one passes gradients to."""
        return tuple((e, 0) for e in self.inputs if e is not None)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def shares(self, g: Array, create_graph: bool) -> list[tuple[Edge, Array]]:
        """This node's gradient, passed through its rules: (input, its share) for each input."""
        kept = self._values()
        if create_graph:
            if self.op.composition is not None:
                return self._through_composition(g)
            kept = self._as_tensors(kept)
        inputs, result = self.inputs, []
        native = (self.large or self.op.often) and not create_graph
        for where, rule, pick in self.plan.rules:
            try:
                if native:
                    share = LARGE.run(rule, (g, *pick(kept)), _NO_OPTIONS, False, not self.large)
                else:
                    share = rule(g, *pick(kept))
            except Exception as e:
                share = as_one_step(rule, (g, *pick(kept)), {}, f"{self.op.name}_gradient", e)
            if type(where) is int:
                edge = inputs[where]
                if edge is not None and share is not None:
                    result.append((edge, share))
            else:  # one rule for several inputs
                for i, s in zip(where, share, strict=True):
                    edge = inputs[i]
                    if edge is not None and s is not None:
                        result.append((edge, s))
        return result

    def release(self) -> None:
        """Drop what was kept: the backward pass is through here."""
        if self.kept:
            self.kept = None
            self.cells = ()

    def _values(self) -> tuple[Any, ...]:
        if self.kept is None:
            raise GradError(
                f"Trying to backward through the graph a second time: what {self.name()} had kept was "
                "freed by the first pass. Call the first backward with retain_graph=True, or compute again."
            )
        versions = 0
        for cell in self.cells:
            if cell is not None:
                versions += cell[0]
        if versions != self.seen:
            raise GradError(
                f"{self.name()} needs a value that has been modified by an inplace operation since "
                f"(output shape {self.shape}). Replace the in-place operation, or clone() first."
            )
        return self.kept

    def _as_tensors(self, kept: tuple[Any, ...]) -> tuple[Any, ...]:
        """The kept arrays as tensors of the graph, so that running a rule records it."""
        values = list(kept)
        for k, i in enumerate(self.plan.origin):
            if i == -1:
                values[k] = self._output_as_tensor(kept[k], self.cells[k])
            elif i >= 0 and isinstance(kept[k], np.ndarray):
                values[k] = tensor_of(kept[k], self.inputs[i], self.cells[k])
        return tuple(values)

    def _output_as_tensor(self, y: Any, cell: Any) -> Any:
        if type(y) is tuple:
            return tuple(tensor_of(a, Pick(self, i)) for i, a in enumerate(y))
        return tensor_of(y, self, cell)

    def _through_composition(self, g: Array) -> list[tuple[Edge, Array]]:
        """Higher orders of a fused op: differentiate what it is composed of."""
        op, count = self.op, len(self.inputs)
        values = self._as_tensors(self._values())
        # fresh leaves in place of the inputs, so that only this node is differentiated ...
        with ModeContext(grad=True):
            needed = [i for i, e in enumerate(self.inputs) if e is not None]
            # ... an alias that stays connected to the graph, and whose own gradient we ask for
            args = list(values[:count])
            for i in needed:
                args[i] = args[i].view_as(args[i])
            from kilograd.autograd.calls import grad  # it stands on this file

            assert op.composition is not None
            options = dict(zip(op.options, values[count : count + len(op.options)], strict=True))
            y = op.composition(*args, **options)
            found = grad(y, [args[i] for i in needed], shown(g), None, True, allow_unused=True)
        return [
            (edge, shown(s))
            for i, s in zip(needed, found, strict=True)
            if s is not None and (edge := self.inputs[i]) is not None
        ]


class Pick(Node):
    """One output of an operation that has several: hands its gradient on to that place."""

    __slots__ = ("index",)

    def __init__(self, node: Node, index: int) -> None:
        super().__init__((node,), node.shape[index], node.dtype[index])
        self.index = index

    def name(self) -> str:
        parent: Any = self.inputs[0]
        return parent.name()

    def release(self) -> None:
        pass


def record(
    op: Op,
    arrays: Sequence[Any],
    cells: Sequence[list[int] | None],
    edges: Sequence[Edge | None],
    needs: int,
    y: Any,
    y_cell: list[int] | None,
    residuals: tuple[Any, ...],
    options: dict[str, Any],
) -> Node:
    """The node for one finished forward computation; keeps only what its rules name."""
    plan = op.plans.get((needs, len(arrays))) or op.plan(needs, len(arrays))
    if op.outputs == 1:
        node = Node(tuple(edges), y.shape, y.dtype)
    else:
        node = Node(tuple(edges), [a.shape for a in y], [a.dtype for a in y])
    node.op = op
    node.plan = plan
    values, counters = (*arrays, y), (*cells, y_cell)
    if residuals or op.options:
        extra = (*residuals, *[options.get(k, default) for k, default in op.options.items()])
        values += extra
        counters += (None,) * len(extra)
    kept = plan.keep(values)
    if plan.origin:  # the same choice, on version counters: a change before backward is caught
        node.cells = counters = plan.keep(counters)
        versions = 0
        for cell in counters:
            if cell is not None:
                versions += cell[0]
        node.seen = versions
    else:
        node.cells = ()
    if plan.shapes:
        kept += tuple([getattr(arrays[i], "shape", ()) for i in plan.shapes])
    node.kept = kept
    return node


def reachable(roots: Iterable[Edge]) -> list[Node]:
    """All nodes below the roots, last made first: a node is made after all of its inputs."""
    stack = [e for e in roots if isinstance(e, Node)]
    seen = set(stack)
    for node in stack:  # grows while it is walked
        for edge in node.inputs:
            if isinstance(edge, Node) and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    stack.sort(key=_order, reverse=True)
    return stack


def _order(node: Node) -> int:
    return node.order


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum out the axes along which an input of this shape was repeated."""
    lead = g.ndim - len(shape)
    if g.shape[lead:] == shape:
        return g.sum(axis=0 if lead == 1 else tuple(range(lead)))
    axes = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 != g.shape[lead + i]))
    return g.sum(axis=axes, keepdims=True).reshape(shape)


summed = sized(unbroadcast)


def run(
    seeds: list[tuple[Edge, Array]],
    *,
    retain_graph: bool,
    create_graph: bool,
    wanted: set[Edge] | None = None,
) -> tuple[dict[Edge, Array], set[Edge]]:
    """The gradients of the leaves (or of ``wanted``), and which of them we own.

    A share may be somebody else's array (a rule may return ``g`` itself); what we own may be
    added to in place.
    """
    nodes = reachable([edge for edge, _ in seeds])
    useful: set[Edge | None] | None = None
    on_path: set[Node] = set()
    if wanted is not None:  # only the nodes on a path to what was asked for
        useful = set(wanted)
        for node in reversed(nodes):
            for e in node.inputs:
                if e in useful:
                    useful.add(node)
                    on_path.add(node)
                    break
    grads: dict[Edge, Array] = {}
    owned: set[Edge] = set()
    captured: dict[Edge, Array] = {}
    anomaly = MODE.get().anomaly
    for edge, g in seeds:
        grads[edge] = g if edge not in grads else grads[edge] + g
    for node in nodes:
        g = grads.pop(node, None)
        if g is None:  # nothing flowed here
            continue
        if node.hooks is not None:
            g = call_hooks(node.hooks, g, create_graph)
        if node.retain is not None and (tensor := node.retain()) is not None:
            accumulate(tensor, shown(g), owned=False, create_graph=create_graph)
        if useful is not None:
            if node in wanted:  # type: ignore[operator]
                captured[node] = g
            if node not in on_path:
                continue
        if type(node) is Pick:
            parent = node.inputs[0]
            parts = grads.setdefault(parent, [None] * len(parent.shape))  # type: ignore[arg-type,union-attr]
            before = parts[node.index]  # a higher order reads the same output through another Pick
            parts[node.index] = g if before is None else before + g
            continue
        if type(g) is list:  # several outputs: those that nothing used get zeros
            filled = getattr(getattr(node, "ctx", None), "materialize_grads", True)
            g = _fill_outputs(node, g, create_graph) if filled else tuple(g)
        kept = node.kept
        shares = node.shares(g, create_graph)
        if anomaly:
            check_nan(node, shares)
        if not retain_graph:
            node.release()
        joint = node.plan is None or node.plan.joint
        for edge, share in shares:
            if useful is not None and edge not in useful:
                continue
            like = edge if type(edge) is Node else _like(edge)
            ours = False
            if (
                type(share) is not np.ndarray
                or share.shape != like.shape
                or share.dtype is not like.dtype
            ):
                share, ours = fitted(share, like, create_graph)
            elif share is not g and is_own(share) and node.plan is not None:
                # a new array of the rule's, unless it handed out what it was given, or one to two
                ours = not joint or sum([s is share for _, s in shares]) == 1
                for value in kept:  # type: ignore[union-attr]
                    if value is share:
                        ours = False
            before = grads.get(edge)
            if before is None:
                grads[edge] = share
                if ours:
                    owned.add(edge)
            elif create_graph or edge not in owned or type(before) is not type(share):
                grads[edge] = total = (before + share) if create_graph else added(before, share)
                if not create_graph:
                    grads[edge] = np.asarray(total) if isinstance(total, np.generic) else total
                    owned.add(edge)
            else:
                add_to(before, share)
    if wanted is None:
        return grads, owned
    for edge in wanted:
        if edge in grads:
            captured[edge] = grads[edge]
    return captured, owned


def fitted(share: Array, like: Any, create_graph: bool) -> tuple[Array, bool]:
    """A share with its input's shape and dtype, and whether that made a new array of it."""
    fresh = False
    if len(share.shape) != len(like.shape) or share.shape != like.shape:  # (ranks never change)
        if STRICT:
            _check_fits(share, like)
        share = unbroadcast(share, like.shape) if create_graph else summed(share, like.shape)
        fresh = True
    if create_graph:
        return (share if share.array.dtype == like.dtype else share.to(like.dtype)), False
    if share.dtype is not like.dtype and share.dtype != like.dtype:
        if share.dtype.kind == "c" != like.dtype.kind:
            share = share.real
        share = converted(share, like.dtype)
        fresh = True
    if type(share) is not np.ndarray and isinstance(share, (np.generic, float, int)):
        share = np.asarray(share)
        fresh = True
    return share, fresh


def _like(edge: Edge) -> Any:
    """What has the shape and dtype of the gradients that go to an edge."""
    return edge if isinstance(edge, Node) else edge.array


def _check_fits(share: Array, like: Any) -> None:
    try:
        fits = np.broadcast_shapes(tuple(share.shape), tuple(like.shape)) == tuple(share.shape)
    except ValueError:
        fits = False
    if not fits:
        raise AssertionError(f"a rule gave shape {share.shape} for an input of shape {like.shape}")


def _fill_outputs(node: Node, g: list[Any], create_graph: bool) -> tuple[Any, ...]:
    given = list(g)
    for i, (shape, dtype) in enumerate(zip(node.shape, node.dtype, strict=True)):
        if given[i] is None:
            zeros = np.zeros(shape, dtype)
            given[i] = tensor_of(zeros, None) if create_graph else zeros
    return tuple(given)


def call_hooks(hooks: dict[int, Any], g: Array, create_graph: bool) -> Array:
    """The gradient after hooks have seen it, any of which may replace it."""
    for hook in list(hooks.values()):
        tensor = shown(g if create_graph else tensor_of(g, None))
        with ModeContext(grad=create_graph):
            new = hook(tensor)
        if new is not None:
            if tuple(new.shape) != tuple(tensor.shape):
                raise ShapeError(
                    f"a hook gave a gradient of shape {tuple(new.shape)} for {tuple(tensor.shape)}"
                )
            g = shown(new if create_graph else new.array)
    return g


def accumulate(tensor: Tensor, g: Array, *, owned: bool, create_graph: bool) -> None:
    """Add to ``tensor.grad``; the first gradient becomes it (copied unless it is ours)."""
    old = tensor.grad
    if create_graph:
        tensor.grad = g if old is None else old + g
    elif old is None:
        tensor.grad = tensor_of(g if owned else copied(g), None)
    elif old.requires_grad:
        tensor.grad = tensor_of(old.array + g, None)
    else:
        add_to(old.array, g)
        old._cell[0] += 1

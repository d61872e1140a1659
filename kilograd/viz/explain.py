"""The backward pass told step by step, and the first op that made a NaN.

``explain(loss)`` runs the driver's own pass and watches it: what each node was handed, which rule it
asked, what came out and where it went. ``trace_nan`` watches a program, forward and backward, for numbers
that are not finite.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from html import escape
from typing import Any, NamedTuple

import numpy as np

from kilograd.autograd import calls, driver
from kilograd.autograd.anomaly import users_lines
from kilograd.autograd.driver import Edge, Node, Pick, reachable
from kilograd.autograd.modes import ModeContext
from kilograd.compile.lazy.graph import outside
from kilograd.compile.step import disable
from kilograd.optim.optimizer import Optimizer
from kilograd.profiler.flops import result_of
from kilograd.profiler.watch import Call, Observer, home_of, watching
from kilograd.tensor import Tensor
from kilograd.viz.rules import composition_of, rule_source, uses_of

_SHOWN = 6  # numbers of an array that are printed in full


class Argument(NamedTuple):
    """What a name in a rule stands for: an array by shape and dtype, small ones with their values."""

    name: str
    shape: tuple[int, ...] | None  # None: no array but a Python value
    text: str

    def __str__(self) -> str:
        return f"{self.name} = {self.text}"


class RuleUse(NamedTuple):
    """A rule of a step: the inputs it serves, its source, and what the names in it are."""

    inputs: str
    source: str
    arguments: tuple[Argument, ...]


class Share(NamedTuple):
    """What a step hands on to one input.

    ``to``: the input's name ("step 4", or a leaf's name); ``norm``: of the gradient handed on; ``shape``:
    as the rule gave it; ``fitted``: how it was made to fit ("" if it fitted); ``earlier``: how many shares
    that input had before; ``kept``: False if the input takes no gradient.
    """

    to: str
    shape: tuple[int, ...]
    norm: float
    fitted: str
    earlier: int


class Step:
    """One node of the backward pass.

    Attributes:
        number: from 1 on, in the order of the pass.
        name: PyTorch's name of the node, ``MultiplyBackward0``; ``op``: the op's name ("" of a custom
            function).
        shape: of the op's output (a list of shapes for several outputs); ``line``: where the user called
            it, if that was recorded; ``module``: "" or the path of its module.
        gradient: the :class:`Argument` of ``g``; ``norm``: its 2-norm.
        rules: :class:`RuleUse` for each rule; ``composition``: the name of the function that says a fused
            op in terms of others.
        shares: :class:`Share` for each input that gets one; ``hooks``: how many hooks saw ``g`` before.
    """

    def __init__(self, number: int, node: Node) -> None:
        self.number = number
        self.name = node.name()
        self.op = "" if node.op is None else node.op.name
        shape = node.shape
        self.shape: Any = [tuple(s) for s in shape] if isinstance(shape, list) else tuple(shape)
        self.line = (node.made_at or "").strip()
        self.composition = "" if node.op is None else composition_of(node.op)
        self.hooks = len(node.hooks or ())
        self.gradient = Argument("g", (), "")
        self.norm = 0.0
        self.rules: list[RuleUse] = []
        self.shares: list[Share] = []

    def __repr__(self) -> str:
        return f"<Step {self.number}: {self.name}>"

    def lines(self) -> list[str]:
        """The step as text."""
        title = f"{self.number}. {self.name}"
        title += (
            f"  ({self.op} → {_shape_text(self.shape)})"
            if self.op
            else f"  → {_shape_text(self.shape)}"
        )
        result = [title]
        if self.line:
            result += [f"     {line.strip()}" for line in self.line.splitlines()]
        arrives = f"   arrives  {self.gradient}, |g| = {self.norm:.4g}"
        if self.hooks:
            arrives += f" (after {self.hooks} hook{'s' * (self.hooks > 1)})"
        result.append(arrives)
        if not self.op:
            result.append("   rule     the function's own backward()")
        for rule in self.rules:
            source = rule.source.splitlines() or ["(no source)"]
            result.append(f"   rule     for {rule.inputs}: {source[0]}")
            result += [f"            {line}" for line in source[1:]]
            result += [f"            {a}" for a in rule.arguments]
        if self.composition:
            result.append(f"            (composed of other ops in {self.composition})")
        for share in self.shares:
            text = f"   gives    {share.to}: {list(share.shape)}"
            text += f", {share.fitted}" if share.fitted else ""
            text += f", norm {share.norm:.4g}"
            if share.earlier:
                text += f"; added to {share.earlier} earlier share{'s' * (share.earlier > 1)}"
            result.append(text)
        if not self.shares:
            result.append("   gives    nothing")
        return result


class Leaf(NamedTuple):
    """A leaf at the end of the pass: its gradient is the sum of that many shares."""

    name: str
    shape: tuple[int, ...]
    shares: int
    norm: float
    gradient: np.ndarray


class Explanation:
    """What :func:`explain` found: print it, or read its ``steps``.

    Attributes:
        steps: all :class:`Step` of the pass, also those that the text leaves out.
        leaves: :class:`Leaf` for each leaf that gets a gradient.
    """

    def __init__(
        self, steps: list[Step], leaves: list[Leaf], loss: str, max_steps: int | None
    ) -> None:
        self.steps = steps
        self.leaves = leaves
        self.loss = loss
        self.max_steps = max_steps

    def _shown(self) -> Iterator[Step | int]:
        """The steps, and in place of those left out their number."""
        n, most = len(self.steps), self.max_steps
        if most is None or n <= most:
            yield from self.steps
            return
        first = (most + 1) // 2
        last = most - first
        yield from self.steps[:first]
        yield n - most
        yield from self.steps[n - last :]

    def __str__(self) -> str:
        n, m = len(self.steps), len(self.leaves)
        steps = f"{n} step{'s' * (n != 1)}"
        leaves = f"{m} lea{'f' if m == 1 else 'ves'}"
        lines = [
            f"backward from {self.loss}: {steps}, {leaves}",
            "",
        ]
        for step in self._shown():
            if isinstance(step, int):
                lines += [
                    f"... {step} steps left out (max_steps={self.max_steps}; all are in .steps)",
                    "",
                ]
            else:
                lines += [*step.lines(), ""]
        lines.append("gradients of the leaves")
        for leaf in self.leaves:
            times = f"the sum of {leaf.shares} shares" if leaf.shares > 1 else "one share"
            lines.append(f"   {leaf.name}: {list(leaf.shape)}, {times}, norm {leaf.norm:.4g}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(str(self).splitlines()[0])}</p>"]
        for step in self._shown():
            if isinstance(step, int):
                parts.append(f"<p>… {step} steps left out</p>")
                continue
            title, *rest = step.lines()
            body = escape("\n".join(rest))
            parts.append(
                f"<details open><summary><b>{escape(title)}</b></summary><pre>{body}</pre></details>"
            )
        rows = "".join(
            f"<tr><td>{escape(leaf.name)}</td><td>{escape(str(list(leaf.shape)))}</td>"
            f"<td>{leaf.shares}</td><td>{leaf.norm:.4g}</td></tr>"
            for leaf in self.leaves
        )
        return (
            "".join(parts)
            + "<table><thead><tr><th>leaf</th><th>shape</th><th>shares</th><th>norm</th></tr></thead>"
            + f"<tbody>{rows}</tbody></table>"
        )


@outside()
def explain(
    loss: Tensor,
    file: str | os.PathLike[str] | None = None,
    *,
    gradient: Any = None,
    values: int = _SHOWN,
    max_steps: int | None = 60,
    names: dict[str, Tensor] | None = None,
    model: Any = None,
) -> Explanation:
    """Tell the backward pass of a tensor step by step: each op, its rule, and what it hands on.

    The driver's own pass is run and watched; no ``.grad`` changes and the graph stays. Hooks on tensors
    and modules are called, as in any pass. The lines that made the graph are shown if it was built
    under :class:`recording` or ``kg.autograd.detect_anomaly()``.

    Args:
        loss: where the pass begins.
        file: write the text there, too.
        gradient: the gradient of ``loss``, of its shape (default: 1 for one element).
        values: arrays of at most so many elements are shown with their numbers.
        max_steps: the text leaves out the middle of a longer pass (None: nothing).
        names: names for leaves.
        model: a Module; its parameters are called by their names.

    Returns:
        An :class:`Explanation`.

    Raises:
        RuntimeError: nothing requires grad, or the graph was freed: what ``backward()`` raises.

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0, 2.0], requires_grad=True)
    >>> print(explain((w * w).sum(), names={"w": w}))
    backward from a tensor of shape []: 2 steps, 1 leaf
    <BLANKLINE>
    1. SumBackward0  (sum → [])
       arrives  g = 1., |g| = 1
       rule     for x: def _(g, x_shape, axis):
                    return spread(g, x_shape, axis)
                x_shape = (2,)
                axis = None
       gives    step 2: [2], norm 1.414
    <BLANKLINE>
    2. MultiplyBackward0  (multiply → [2])
       arrives  g = [1., 1.], |g| = 1.414
       rule     for a: lambda g, b: g * b
                b = [1., 2.]
       rule     for b: lambda g, a: g * a
                a = [1., 2.]
       gives    w: [2], norm 2.236
       gives    w: [2], norm 2.236; added to 1 earlier share
    <BLANKLINE>
    gradients of the leaves
       w: [2], the sum of 2 shares, norm 4.472
    """
    if not isinstance(loss, Tensor):
        raise TypeError(f"explain() takes a tensor, not {type(loss).__name__}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, not {max_steps}")
    if values < 0:
        raise ValueError(f"values must not be negative, got {values}")
    seeds = calls._seeds(loss, gradient, False)
    nodes = reachable([edge for edge, _ in seeds])
    known = _names_of(names, model)
    story = _Story(nodes, known, values)
    with ExitStack() as stack:
        stack.enter_context(ModeContext(anomaly=False, check_nan=False))
        stack.enter_context(_retaining_nothing(nodes))
        stack.enter_context(watching(story))
        stack.enter_context(_Grads())
        found, _ = calls.run(seeds, retain_graph=True, create_graph=False)
    leaves = []
    for edge, g in found.items():
        if isinstance(edge, Tensor):
            if edge._hooks is not None:
                g = driver.call_hooks(edge._hooks, g, False)
            arrived = max(story.arrived.get(id(edge), 0), 1)
            leaves.append(
                Leaf(story.called(edge), tuple(edge.array.shape), arrived, norm(g), np.array(g))
            )
    what = f"a tensor of shape {list(loss.array.shape)}"
    result = Explanation(story.steps, leaves, what, max_steps)
    if file is not None:
        from kilograd.train.checkpoint import atomic_write

        with atomic_write(file) as out:
            out.write(f"{result}\n".encode())
    return result


class recording(ModeContext):
    """The graph built in this block remembers the user's lines, for :func:`explain` and pictures.

    >>> import kilograd as kg
    >>> x = kg.ones(2, requires_grad=True)
    >>> with recording():
    ...     y = x.exp().sum()
    >>> "x.exp().sum()" in str(explain(y)) or "doctest" in str(explain(y))
    True
    """

    def __init__(self) -> None:
        super().__init__(anomaly=True, check_nan=False)


class _Story(Observer):
    """Writes down each node's part of a backward pass."""

    def __init__(self, nodes: list[Node], names: dict[int, str], values: int) -> None:
        self.names = names
        self.values = values
        self.steps: list[Step] = []
        self.arrived: dict[int, int] = {}  # shares by id of what they went to
        self.thread = threading.get_ident()
        real = [n for n in nodes if type(n) is not Pick]
        self.number = {id(n): i for i, n in enumerate(real, 1)}
        self.unnamed: dict[int, str] = {}
        self.hooks_of_outputs: dict[int, int] = {}
        for pick in nodes:
            if type(pick) is Pick and pick.hooks:
                parent = id(pick.inputs[0])
                self.hooks_of_outputs[parent] = self.hooks_of_outputs.get(parent, 0) + len(
                    pick.hooks
                )

    def called(self, edge: Any) -> str:
        """What an edge is called."""
        if isinstance(edge, Pick):
            return f"{self.called(edge.inputs[0])} (output {edge.index})"
        if isinstance(edge, Node):
            return f"step {self.number[id(edge)]}"
        name = self.names.get(id(edge)) or edge.name
        if name is None:
            kind = f"leaf {len(self.unnamed) + 1}"
            name = self.unnamed.setdefault(id(edge), kind)
        return str(name)

    def begins(self, call: Call) -> None:
        if (
            call.kind != "backward"
            or call.thread != self.thread
            or id(call.what) not in self.number
        ):
            return
        node, g = call.what, call.args[0]
        step = Step(self.number[id(node)], node)
        step.hooks += self.hooks_of_outputs.get(id(node), 0)
        if isinstance(g, tuple):
            parts = [self._argument(f"g[{i}]", a) for i, a in enumerate(g) if a is not None]
            step.gradient = Argument("g", None, "(" + ", ".join(a.text for a in parts) + ")")
            step.norm = float(np.sqrt(sum(norm(a) ** 2 for a in g if a is not None)))
        else:
            step.gradient, step.norm = self._argument("g", g), norm(g)
        for use in uses_of(node):
            d = use.derivative
            arguments = tuple([self._argument(n, v) for n, v in use.values.items()])
            step.rules.append(RuleUse(", ".join(d.inputs), rule_source(d.rule), arguments))
        self.steps.append(step)
        call.notes[self] = step

    def ends(self, call: Call) -> None:
        step = call.notes.get(self)
        if step is None or call.error is not None:
            return
        for edge, share in call.result:
            earlier = self.arrived.get(id(edge), 0)
            self.arrived[id(edge)] = earlier + 1
            like: Any = edge if isinstance(edge, Node) else edge.array
            given = np.asarray(share)
            final, _ = driver.fitted(share, like, False)
            fits = _fitting(given, like)
            step.shares.append(Share(self.called(edge), given.shape, norm(final), fits, earlier))

    def _argument(self, name: str, value: Any) -> Argument:
        array = getattr(value, "array", value)
        if isinstance(array, (np.ndarray, np.generic)):
            array = np.asarray(array)
            return Argument(name, array.shape, _array_text(array, self.values))
        if isinstance(array, (tuple, list)) and any(isinstance(a, np.ndarray) for a in array):
            texts = [_array_text(np.asarray(a), self.values) for a in array]
            return Argument(name, None, f"({', '.join(texts)})")
        text = repr(array)
        return Argument(name, None, text if len(text) <= 60 else text[:57] + "...")


class _Grads(Observer):
    """Puts back what a ``backward()`` within a derivative, as of a checkpoint, adds to the ``.grad`` of leaves."""

    def __enter__(self) -> None:
        self.before: dict[Tensor, Tensor | None] = {}
        self.thread = threading.get_ident()
        self.watch = watching(self)
        self.watch.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.watch.__exit__(None, None, None)
        for leaf, grad in self.before.items():
            leaf.grad = grad

    def begins(self, call: Call) -> None:
        if call.kind != "pass" or call.thread != self.thread or not call.within("backward"):
            return
        edges = [edge for edge, _ in call.args[0]]
        for edge in (*edges, *[e for node in reachable(edges) for e in node.inputs]):
            if isinstance(edge, Tensor) and edge not in self.before:
                self.before[edge] = edge.grad
                edge.grad = (
                    None if edge.grad is None else edge.grad.clone()
                )  # it may be written into


def norm(array: Any) -> float:
    """The 2-norm of all elements, in double precision; NaN or inf where they are.

    >>> norm(np.array([[3.0], [4.0]]))
    5.0
    """
    flat = np.asarray(getattr(array, "array", array)).reshape(-1)
    kind = np.complex128 if flat.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(flat.astype(kind))) if flat.size else 0.0


def _fitting(given: np.ndarray, like: Any) -> str:
    """How a share is brought to its input's shape and dtype, in words."""
    parts = []
    want = tuple(like.shape)
    if given.shape != want:
        lead = given.ndim - len(want)
        axes = [
            *range(lead),
            *(lead + i for i, n in enumerate(want) if n == 1 != given.shape[lead + i]),
        ]
        over = f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
        parts.append(f"summed over {over}: {list(given.shape)} → {list(want)}")
    if given.dtype != like.dtype:
        parts.append(f"converted from {given.dtype} to {like.dtype}")
    return ", ".join(parts)


def _array_text(array: np.ndarray, most: int) -> str:
    if array.size > most or not array.size:
        return f"{array.dtype}{list(array.shape)}"
    shown = np.array2string(array, precision=4, separator=", ", max_line_width=1000)
    return " ".join(shown.split())


def _shape_text(shape: Any) -> str:
    return ", ".join(str(list(s)) for s in shape) if isinstance(shape, list) else str(list(shape))


def _names_of(names: dict[str, Tensor] | None, model: Any) -> dict[int, str]:
    found = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    for name, t in (names or {}).items():
        if not isinstance(t, Tensor):
            raise TypeError(f"names: {name!r} is a {type(t).__name__}, not a tensor")
        found[id(t)] = name
    return found


@contextmanager
def _retaining_nothing(nodes: list[Node]) -> Iterator[None]:
    """Tensors with ``retain_grad()`` do not get a gradient from a pass that only explains."""
    before = [(node, node.retain) for node in nodes if node.retain is not None]
    for node, _ in before:
        node.retain = None
    try:
        yield
    finally:
        for node, retain in before:
            node.retain = retain


# --- where NaN and infinity come from ------------------------------------------------------------------


class Range(NamedTuple):
    """What an array holds: shape, dtype, least and largest finite number, how many NaN and inf."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    nans: int
    infs: int

    def __str__(self) -> str:
        if self.low > self.high:
            text = "nothing finite"
        else:
            text = (
                f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} … {self.high:.4g}"
            )
        bad = [f"{n} {what}" for n, what in ((self.nans, "nan"), (self.infs, "inf")) if n]
        return f"{self.name} {self.dtype}{list(self.shape)}: {text}" + (
            f", {', '.join(bad)}" if bad else ""
        )


class BadNumber:
    """The first op that gave a number that is not finite.

    Attributes:
        op: the op's name; ``phase``: "forward", "backward" (one of its derivative rules), or "optimizer":
            a step (``SGD.step``) has made it, of a parameter, its gradient and its state.
        kind: "nan" or "inf"; ``made_here``: True if what it was given had no such number;
            False if the number came in already; None if that is not known, since a graph does not keep
            all inputs.
        line: the user's line; ``module``: the path of the module, or "".
        inputs, output: :class:`Range` of what the op was given (in the backward pass ``g`` and what the
            rules look at) and of what it gave; ``rules``: the source of its rules (backward).
    """

    def __init__(
        self, op: str, phase: str, kind: str, made_here: bool | None, line: str, module: str,
        inputs: list[Range], output: list[Range], rules: tuple[tuple[str, str], ...] = (),
    ) -> None:  # fmt: skip
        self.op = op
        self.phase = phase
        self.kind = kind
        self.made_here = made_here
        self.line = line.strip()
        self.module = module
        self.inputs = inputs
        self.output = output
        self.rules = rules

    def __str__(self) -> str:
        where = f"the derivative of {self.op}" if self.phase == "backward" else self.op
        if self.made_here is None:
            first = f"{where} gave {self.kind}; its inputs were not kept, so it may have come in already"
        elif not self.made_here:
            first = f"{where} was given {self.kind}: it came in already"
        elif any(r.nans or r.infs for r in self.inputs):
            first = f"{where} made {self.kind}: its inputs hold inf, but no nan"
        else:
            first = f"{where} made {self.kind}: its inputs were finite, its output is not"
        lines = [first]
        if self.module:
            lines.append(f"  in module {self.module}")
        lines += [f"  {line.strip()}" for line in self.line.splitlines()]
        lines += [f"  given {r}" for r in self.inputs]
        lines += [f"  gave  {r}" for r in self.output]
        for inputs, source in self.rules:
            head, *rest = source.splitlines() or ["(no source)"]
            lines += [f"  rule for {inputs}: {head}", *[f"    {line}" for line in rest]]
        return "\n".join(lines)

    __repr__ = __str__


class trace_nan(Observer):
    """Find the first op that makes a NaN or an infinity, forward or backward, or in an optimizer's step.

    Every op that this thread runs in the block is checked, and after each step of an optimizer the
    parameters and what it remembers of them. Compiled functions run eagerly in it; what a lazy graph
    computes is not seen. An infinity that is given on purpose, as the -inf of a mask, is no finding; what
    comes of it is one when it is a NaN. Gradients and results are what they are without the block, only
    slower to get.

    Args:
        raise_: raise at the op; else go on, and keep the first finding in ``first``.
        nan, inf: what to look for.

    Raises:
        FloatingPointError: at the op, with ``raise_=True``; its attribute ``found`` is the finding.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 0.0], requires_grad=True)
    >>> with trace_nan(raise_=False) as t:
    ...     x.sqrt().sum().backward()
    >>> t.first.op, t.first.phase, t.first.kind, t.first.made_here
    ('sqrt', 'backward', 'inf', True)
    """

    def __init__(self, raise_: bool = True, *, nan: bool = True, inf: bool = True) -> None:
        if not (nan or inf):
            raise ValueError("trace_nan: nothing to look for: nan and inf are both False")
        self.raise_ = raise_
        self.nan, self.inf = nan, inf
        self.first: BadNumber | None = None
        self._stack: ExitStack | None = None
        self._thread = 0

    def __enter__(self) -> trace_nan:
        if self._stack is not None:
            raise RuntimeError("this trace_nan is open already")
        self.first, self._thread = None, threading.get_ident()
        with ExitStack() as stack:
            stack.enter_context(disable())
            stack.enter_context(recording())
            stack.enter_context(watching(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(*error)

    def begins(self, call: Call) -> None:
        if call.kind == "optimizer" and self.first is None and call.thread == self._thread:
            call.notes[self] = [held + grad for held, grad in _updated(call.what)]

    def ends(self, call: Call) -> None:
        if self.first is not None or call.error is not None or call.thread != self._thread:
            return
        if call.kind == "op" and not call.within(
            "op", "backward"
        ):  # a rule is judged by what it gives
            self._forward(call)
        elif call.kind == "backward":
            self._backward(call)
        elif call.kind == "optimizer":
            self._step(call)
        if self.first is not None and self.raise_:
            error: Any = FloatingPointError(str(self.first))
            error.found = self.first
            raise error

    def _forward(self, call: Call) -> None:
        op, y = call.what, result_of(call.what, call.result)
        outputs = y if isinstance(y, tuple) else (y,)
        if not any(map(self._is_bad, outputs)):
            return
        names = [
            *op.inputs,
            *[f"{op.variadic}[{i}]" for i in range(len(call.args) - len(op.inputs))],
        ]
        given = [*zip(names, call.args, strict=False), *call.options.items()]
        inputs = [r for n, v in given for r in _ranges(n, v)]
        found = [r for a in outputs for r in _ranges("result", a)]
        verdict = self._verdict(inputs, found)
        if verdict is not None:
            self.first = BadNumber(
                op.name, "forward", *verdict, users_lines(), call.home, inputs, found
            )

    def _backward(self, call: Call) -> None:
        shares = [(edge, getattr(s, "array", s)) for edge, s in call.result]
        if not any(self._is_bad(s) for _, s in shares):
            return
        node, g = call.what, call.args[0]
        inputs = _ranges("g", tuple(a for a in g if a is not None) if isinstance(g, tuple) else g)
        for use in uses_of(node):
            for name, value in use.values.items():
                if name not in [r.name for r in inputs] and not name.endswith("_shape"):
                    inputs += _ranges(name, value)
        outputs = [r for i, (_, s) in enumerate(shares) for r in _ranges(f"share {i + 1}", s)]
        verdict = self._verdict(inputs, outputs)
        if verdict is not None:
            rules = tuple(
                [
                    (", ".join(u.derivative.inputs), rule_source(u.derivative.rule))
                    for u in uses_of(node)
                ]
            )
            name = node.op.name if node.op is not None else node.name().removesuffix("Backward")
            self.first = BadNumber(
                name,
                "backward",
                *verdict,
                node.made_at or "",
                home_of(node),
                inputs,
                outputs,
                rules,
            )

    def _step(self, call: Call) -> None:
        for inputs, (found, _) in zip(call.notes.get(self, ()), _updated(call.what), strict=False):
            verdict = self._verdict(inputs, found)
            if verdict is not None:
                self.first = BadNumber(
                    call.name, "optimizer", *verdict, users_lines(), "", inputs, found
                )
                return

    def _is_bad(self, a: Any) -> bool:
        if not isinstance(a, (np.ndarray, np.generic)) or a.dtype.kind not in "fc":
            return False
        if self.inf:
            return not np.isfinite(a).all()
        return bool(np.isnan(a).any())

    def _verdict(self, inputs: list[Range], outputs: list[Range]) -> tuple[str, bool] | None:
        """What is to be said: (nan or inf, whether it was made here); None: what was given on purpose."""
        had_nan, had_inf = any(r.nans for r in inputs), any(r.infs for r in inputs)
        if self.nan and any(r.nans for r in outputs):
            return "nan", not had_nan
        if self.inf and any(r.infs for r in outputs) and not (had_inf or had_nan):
            return "inf", True
        return None


def first_bad(
    what: Any, *args: Any, nan: bool = True, inf: bool = True, **kwargs: Any
) -> BadNumber | None:
    """The first op that made a NaN or an infinity: of a function that is called, or of a graph.

    Args:
        what: a function (or Module), which is called with the other arguments, and whose result is then
            differentiated, if it can be; or a tensor, whose graph is looked through: what the nodes have
            kept from the forward pass, from the first op on, and then the backward pass. A node keeps only
            what its rules need, so a function tells more. No ``.grad`` changes through the pass here.
        nan, inf: what to look for.

    Returns:
        The finding, or None.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, -1.0], requires_grad=True)
    >>> found = first_bad(lambda: (x * 2).log().sum())
    >>> found.op, found.phase, found.kind, found.made_here
    ('log', 'forward', 'nan', True)
    >>> first_bad(lambda: (x * 2).exp().sum()) is None
    True
    """
    trace = trace_nan(raise_=False, nan=nan, inf=inf)
    if isinstance(what, Tensor):
        if args or kwargs:
            raise TypeError("first_bad: arguments belong to a function, not to a tensor")
        with outside():
            found = _first_kept(what, trace)
            if found is not None:
                return found
            with trace:
                _pass_from([what])
        return trace.first
    if not callable(what):
        raise TypeError(f"first_bad() takes a function or a tensor, not {type(what).__name__}")
    with outside(), trace:
        result = what(*args, **kwargs)
        if trace.first is None:
            _pass_from([t for t in _tensors(result) if t.array.dtype.kind == "f"])
    return trace.first


def _pass_from(tensors: list[Tensor]) -> None:
    """A backward pass that changes no gradient and frees nothing, with ones for gradients."""
    live = [t for t in tensors if t.requires_grad]
    seeds: list[tuple[Edge, Any]] = [
        (calls._edge(t), np.ones(t.array.shape, t.array.dtype)) for t in live
    ]
    if seeds:
        with _retaining_nothing(reachable([edge for edge, _ in seeds])), _Grads():
            calls.run(seeds, retain_graph=True, create_graph=False)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for t in tree.values():
            yield from _tensors(t)
    elif isinstance(tree, (tuple, list)):
        for t in tree:
            yield from _tensors(t)


def _first_kept(loss: Tensor, trace: trace_nan) -> BadNumber | None:
    """The first node of a graph whose output is bad, as far as the graph has kept outputs."""
    edge = loss._edge()
    nodes = [n for n in reversed(reachable([] if edge is None else [edge])) if type(n) is not Pick]
    known: dict[int, Any] = {
        id(edge): loss.array
    }  # values by id of the node (or Pick) that gave them
    for node in nodes:
        if node.plan is None or node.kept is None:
            continue
        for i, value in zip(node.plan.origin, node.kept, strict=False):
            if i == -1:
                known[id(node)] = value
            elif i >= 0 and node.inputs[i] is not None:
                known[id(node.inputs[i])] = value
    for node in nodes:
        kept = {}
        if node.plan is not None and node.kept is not None:
            kept = {i: v for i, v in zip(node.plan.origin, node.kept, strict=False) if i >= 0}
        values = [
            e.array if isinstance(e, Tensor) else kept.get(i, known.get(id(e)))
            for i, e in enumerate(node.inputs)
        ]
        all_known = all(v is not None for v in values)
        if all_known and id(node) not in known:
            known[id(node)] = _again(node, values)
        inputs = [r for i, v in enumerate(values) for r in _ranges(_input_name(node, i), v)]
        outputs = _ranges("result", known.get(id(node)))
        verdict: Any = trace._verdict(inputs, outputs)
        if verdict is None and trace.nan and any(r.nans for r in inputs):
            verdict = "nan", False
        if verdict is not None:
            kind, made = verdict
            name = node.op.name if node.op is not None else node.name().removesuffix("Backward")
            made = None if made and not all_known else made
            return BadNumber(name, "forward", kind, made, node.made_at or "", "", inputs, outputs)
    return None


def _again(node: Node, values: list[Any]) -> Any:
    """The output of a node computed once more; None where its options are not known."""
    op = node.op
    if op is None or op.outputs != 1:
        return None
    found = {k: v for use in uses_of(node) for k, v in use.values.items() if k in op.options}
    if len(found) < len(op.options):
        return None
    with np.errstate(all="ignore"):
        return result_of(op, op.forward(*values, **found))


def _updated(optimizer: Optimizer) -> Iterator[tuple[list[Range], list[Range]]]:
    """For each parameter of an optimizer the ranges of it and its state, and those of its gradient."""
    count = 0
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            names = group.get("param_names")
            name = names[i] if names else p.name or f"parameter {count}"
            held = {name: p} | {f"{name}: {k}": s for k, s in optimizer.state.get(p, {}).items()}
            yield (
                [r for k, x in held.items() for r in _ranges(k, x)],
                _ranges(f"{name}.grad", p.grad),
            )
            count += 1


def _input_name(node: Node, i: int) -> str:
    names = () if node.op is None else node.op.inputs
    return names[i] if i < len(names) else f"input {i}"


def _ranges(name: str, value: Any) -> list[Range]:
    """The ranges of the arrays and floats in a value."""
    value = getattr(value, "array", value)
    if isinstance(value, float):
        bad = np.isfinite(value)
        low, high = (value, value) if bad else (np.inf, -np.inf)
        return [Range(name, (), "number", low, high, int(np.isnan(value)), int(np.isinf(value)))]
    if isinstance(value, (tuple, list)):
        return [r for i, v in enumerate(value) for r in _ranges(f"{name}[{i}]", v)]
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "fciub":
        return []
    array = np.asarray(value)
    parts = np.abs(array) if array.dtype.kind == "c" else array
    if array.dtype.kind not in "fc":
        nans = infs = 0
        finite = parts
    else:
        nans, infs = int(np.isnan(parts).sum()), int(np.isinf(parts).sum())
        finite = parts[np.isfinite(parts)] if nans or infs else parts
    low = float(finite.min()) if finite.size else np.inf
    high = float(finite.max()) if finite.size else -np.inf
    return [Range(name, array.shape, str(array.dtype), low, high, nans, infs)]

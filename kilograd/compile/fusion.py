"""Which equations become one native loop.

Elementwise equations over the same index space are one loop, with the sums of what it computes. The
space is the shape of the results; operands are broadcast into it. Two loops may be joined unless a
third step must come between them.

A :class:`Step` is what the program consists of afterwards: a fused loop, a call of native kernels, a
call back into Python.
"""

from __future__ import annotations

import heapq
import math
import operator
from typing import Any

import numpy as np

from kilograd.compile.graph import Equation, Var
from kilograd.compile.scalar import F32, F64, FORMS, fusable, kind_of

SUMS = (np.ndarray.sum, np.sum, np.add.reduce)
MEANS = (np.ndarray.mean, np.mean)
REDUCES = ("axis", "dtype", "out", "keepdims")  # the order in which NumPy's reductions take these


def reduction_of(eq: Equation, default: int | None) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The arguments of a reduction by name, and its axes (sorted, from 0)."""
    x = eq.args[0]
    given = dict(zip(REDUCES, eq.args[1:], strict=False)) | eq.kwargs
    axis = given.get("axis", default)
    if axis is None or not x.ndim:
        return given, tuple(range(x.ndim))
    return given, tuple(sorted(a % x.ndim for a in (axis if type(axis) is tuple else (axis,))))


class Sum:
    """A sum (or mean) that a loop can accumulate: over which axes, of what."""

    def __init__(self, eq: Equation, of: Var, axes: tuple[int, ...], divisor: int) -> None:
        self.eq = eq
        self.of = of
        self.axes = axes
        self.divisor = divisor
        self.kept = tuple([1 if i in axes else n for i, n in enumerate(of.shape)])

    @staticmethod
    def of_equation(eq: Equation) -> Sum | None:
        """The sum an equation computes, if it is one of floats."""
        if (eq.fn not in SUMS and eq.fn not in MEANS) or not isinstance(eq.args[0], Var):
            return None
        x, out = eq.args[0], eq.outs[0]
        if x.number or x.dtype not in (F32, F64) or out.dtype != x.dtype or not x.size:
            return None
        given, axes = reduction_of(eq, 0 if eq.fn == np.add.reduce else None)
        if not given.keys() <= set(REDUCES) or given.get("out") is not None:
            return None
        if given.get("dtype") not in (None, x.dtype):
            return None
        count = math.prod([x.shape[a] for a in axes])
        return Sum(eq, x, axes, count if eq.fn in MEANS else 1)


class Step:
    """One step of the native program: what it reads and gives, and the equations behind it."""

    def __init__(self, kind: str, equations: list[Equation], shape: tuple[int, ...] = ()) -> None:
        self.kind = kind  # "loop", "call", "python"
        self.equations = equations
        self.shape = shape  # of a loop's index space
        self.sums: dict[Var, Sum] = {}
        self.fallible = False
        self.why = ""  # why it is left to Python

    def gives(self) -> list[Var]:
        return [v for eq in self.equations for v in eq.outs]

    def reads(self) -> list[Var]:
        inside = set(self.gives())
        return list(
            dict.fromkeys(v for eq in self.equations for v in eq.inputs() if v not in inside)
        )


def _math_dtype(eq: Equation) -> Any:
    form = FORMS.get(eq.fn)
    if eq.fn in (operator.pow, np.power) or (form is not None and form.operands == "float"):
        return kind_of(eq.outs[0])
    return None


class _Groups:
    """Loops being formed, with what each must wait for."""

    def __init__(self) -> None:
        self.steps: list[Step | None] = []
        self.before: list[int] = []  # bit k: step k must come first, directly or not
        self.direct: list[set[int]] = []  # the steps whose values it reads
        self.home: dict[Var, int] = {}  # which step gives a value
        self.strict: list[set[int]] = []  # those of them that must be over before it begins
        self.math: list[Any] = []  # the dtype of a loop's exp, tanh …: one for all

    def add(self, step: Step, direct: set[int], strict: set[int]) -> int:
        k = len(self.steps)
        self.steps.append(step)
        self.direct.append(direct)
        self.strict.append(strict)
        self.before.append(self._waits(direct))
        self.math.append(None)
        return k

    def _waits(self, direct: set[int]) -> int:
        bits = 0
        for d in direct:
            bits |= 1 << d | self.before[d]
        return bits

    def may_merge(self, a: int, b: int) -> bool:
        """Whether two loops can run as one: nothing must come between them."""
        if a in self.strict[b] or b in self.strict[a]:
            return False
        return not any(self.before[d] >> a & 1 for d in self.direct[b] if d != a) and not any(
            self.before[d] >> b & 1 for d in self.direct[a] if d != b
        )

    def merge(self, a: int, b: int) -> int:
        """Steps a and b become one (a)."""
        first, second = self.steps[a], self.steps[b]
        assert first is not None and second is not None
        first.equations += second.equations
        first.sums.update(second.sums)
        for v in second.gives():
            self.home[v] = a
        self.steps[b] = None
        self.math[a] = self.math[a] or self.math[b]
        self.direct[a] = (self.direct[a] | self.direct[b]) - {a, b}
        self.strict[a] = self.strict[a] | self.strict[b]
        old, waits = self.before[a], (self.before[a] | self.before[b]) & ~(1 << a | 1 << b)
        self.before[a] = waits
        newest = b == len(self.steps) - 1
        if not newest:
            for j, d in enumerate(self.direct):
                if b in d:
                    self.direct[j] = d - {b} | {a}
                if b in self.strict[j]:
                    self.strict[j] = self.strict[j] - {b} | {a}
        if not newest or waits & ~old:
            either = 1 << a | 1 << b
            for j, bits in enumerate(self.before):
                if bits & either:
                    self.before[j] = (bits & ~(1 << b)) | 1 << a | waits
        return a


def steps_of(equations: list[Equation], aliases: dict[Var, Var], is_view: Any) -> list[Step]:
    """Cut a program into steps, in an order in which they can run.

    ``aliases``: a view's value → the value whose memory it is; ``is_view(eq)`` says that an
    equation only looks at memory in another way.
    """
    groups = _Groups()
    last_effect: set[int] = set()
    for eq in equations:
        if is_view(eq):
            continue
        inputs = list(eq.inputs())
        direct = {groups.home[r] for v in inputs if (r := aliases.get(v, v)) in groups.home}
        strict = {
            groups.home[q] for v in inputs if (q := aliases.get(v)) is not None and q in groups.home
        }
        for v in inputs:  # a sum is known only when its loop is over
            home = groups.home.get(v)
            if home is not None and v in groups.steps[home].sums:  # type: ignore[union-attr]
                strict.add(home)
        total = Sum.of_equation(eq)
        if fusable(eq):
            k = _place_loop(groups, eq, inputs, direct, strict)
        elif total is not None:
            k = _place_sum(groups, eq, total, direct, strict, aliases)
        else:
            step = Step("call", [eq])
            k = groups.add(step, direct | last_effect if eq.effect else direct, strict)
            if eq.effect:  # draws stay in their order
                last_effect = {k}
        for v in eq.outs:
            groups.home[v] = k
    order = {id(eq): i for i, eq in enumerate(equations)}
    steps = _in_order(groups)
    for step in steps:
        step.equations.sort(key=lambda eq: order[id(eq)])
    return steps


def _place_loop(
    groups: _Groups, eq: Equation, inputs: list[Var], direct: set[int], strict: set[int]
) -> int:
    """Join an elementwise equation to a loop of its inputs, or start one."""
    shape = eq.outs[0].shape
    math = _math_dtype(eq)
    new = Step("loop", [eq], shape)
    k = groups.add(new, direct, strict)
    groups.math[k] = math
    candidates = dict.fromkeys(groups.home[v] for v in inputs if v in groups.home)
    for c in candidates:
        other = groups.steps[c]
        if other is None or other.kind != "loop" or other.shape != shape:
            continue
        if math is not None and groups.math[c] not in (None, math):
            continue
        if len(other.equations) + len(groups.steps[k].equations) > 64:  # type: ignore[union-attr]
            continue
        if groups.may_merge(c, k):
            k = groups.merge(c, k)
            math = groups.math[k]
            for v in eq.outs:
                groups.home[v] = k
    return k


def _place_sum(
    groups: _Groups, eq: Equation, total: Sum, direct: set[int], strict: set[int],
    aliases: dict[Var, Var],
) -> int:  # fmt: skip
    """Let the loop that computes something add it up as well, or start a loop for the sum."""
    new = Step("loop", [eq], total.of.shape)
    new.sums[eq.outs[0]] = total
    k = groups.add(new, direct, strict)
    c = groups.home.get(total.of)
    if c is not None and total.of not in aliases:
        other = groups.steps[c]
        if (
            other is not None and other.kind == "loop" and other.shape == total.of.shape
            and total.of not in other.sums and groups.may_merge(c, k)
        ):  # fmt: skip
            k = groups.merge(c, k)
    return k


def _in_order(groups: _Groups) -> list[Step]:
    """The steps so that each comes after those it reads from; otherwise as they were written."""
    readers: dict[int, list[int]] = {}
    missing = {}
    for k, step in enumerate(groups.steps):
        if step is not None:
            missing[k] = len(groups.direct[k])
            for d in groups.direct[k]:
                readers.setdefault(d, []).append(k)
    ready = [k for k, n in missing.items() if n == 0]
    heapq.heapify(ready)
    result = []
    while ready:
        k = heapq.heappop(ready)
        step = groups.steps[k]
        assert step is not None
        result.append(step)
        for r in readers.get(k, ()):
            missing[r] -= 1
            if missing[r] == 0:
                heapq.heappush(ready, r)
    assert len(result) == len(missing), "steps wait for each other"
    return result

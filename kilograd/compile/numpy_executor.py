"""The NumPy executor: the graph as Python source, compiled by Python.

Always available, and the reference for the native one: it calls the NumPy functions that the eager
step called, in the same order, so its results are the same. What is no longer needed is deleted as
the program goes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile.graph import (
    INFIX,
    NAMES,
    Equation,
    Graph,
    Var,
    cast,
    leaves,
    name_of,
    variables,
)
from kilograd.errors import TraceError
from kilograd.kernels.kernel import KERNELS

_OF_ANY_SIZE = (
    np.nonzero, np.unique, np.extract, np.argwhere, np.flatnonzero, np.compress, np.delete,
    np.bincount, np.union1d, np.intersect1d, np.setdiff1d, np.trim_zeros, np.histogram,
)  # fmt: skip
_SIMPLE = (int, float, bool, str, type(None), type(Ellipsis))


def check(value: Any, shape: tuple[int, ...]) -> None:
    """Refuse a result whose shape depends on values, when it is not what it was in the trace."""
    if value.shape != shape:
        raise TraceError(f"a result has shape {value.shape}, and had {shape} in the trace")


def flat(tree: Any) -> list[Any]:
    """The arrays and numbers of a structure of results."""
    return [x for x in leaves(tree) if isinstance(x, (np.ndarray, np.generic, float, int))]


class _Writer:
    """Writes equations as Python, collecting the names they use."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"np": np, "check": check, "flat": flat, "cast": cast}
        self.names: dict[Any, str] = {}

    def named(self, value: Any, name: str) -> str:
        """A name for a function or constant."""
        key = (id(value), name)
        if key not in self.names:
            unique, k = name, 2
            while unique in self.space:
                unique, k = f"{name}_{k}", k + 1
            self.names[key] = unique
            self.space[unique] = value
        return self.names[key]

    def value(self, x: Any) -> str:
        kind = type(x)
        if kind is Var:
            return x.name
        if kind in _SIMPLE:
            if kind is float and (x != x or x in (float("inf"), -float("inf"))):
                return f"float('{x}')"
            return repr(x) if x is not Ellipsis else "..."
        if kind is tuple:
            inner = ", ".join(map(self.value, x))
            return f"({inner},)" if len(x) == 1 else f"({inner})"
        if kind is list:
            return f"[{', '.join(map(self.value, x))}]"
        if kind is slice:
            return f"slice({self.value(x.start)}, {self.value(x.stop)}, {self.value(x.step)})"
        if isinstance(x, np.dtype):
            return f"np.{x.name}" if hasattr(np, x.name) else self.named(x, "dtype")
        return self.named(x, "k")

    def index(self, x: Any) -> str:
        def part(p: Any) -> str:
            if type(p) is slice:
                ends = ["" if e is None else self.value(e) for e in (p.start, p.stop)]
                return ":".join(ends) + ("" if p.step is None else f":{self.value(p.step)}")
            return self.value(p)

        return ", ".join(map(part, x)) if type(x) is tuple and x else part(x)

    def call(self, eq: Equation) -> str:
        fn, args = eq.fn, eq.args
        options = "".join(f", {k}={self.value(v)}" for k, v in eq.kwargs.items())
        if fn in INFIX and len(args) == 2 and not eq.kwargs:
            return f"{self.value(args[0])} {INFIX[fn]} {self.value(args[1])}"
        if fn is operator.getitem:
            return f"{self.value(args[0])}[{self.index(args[1])}]"
        if fn is operator.neg:
            return f"-{self.value(args[0])}"
        inner = ", ".join(map(self.value, args))
        if getattr(fn, "__objclass__", None) is np.ndarray:
            rest = ", ".join(map(self.value, args[1:]))
            return f"{self.value(args[0])}.{fn.__name__}({(rest + options).lstrip(', ')})"
        if getattr(np, getattr(fn, "__name__", ""), None) is fn:
            name = f"np.{fn.__name__}"
        elif isinstance(owner := getattr(fn, "__self__", None), np.ufunc):
            name = f"np.{owner.__name__}.{fn.__name__}"
        else:
            name = self.named(fn, name_of(fn))
        return f"{name}({(inner + options).lstrip(', ')})"

    def equation(self, eq: Equation) -> str:
        if not eq.outs:
            return self.call(eq)
        if eq.tree is None:
            return f"{eq.outs[0]} = {self.call(eq)}"
        if type(eq.tree) is tuple and all(type(t) is Var for t in eq.tree):
            return (
                f"{', '.join(v.name for v in eq.outs)}{',' * (len(eq.outs) == 1)} = {self.call(eq)}"
            )
        names = ", ".join(v.name for v in eq.outs)
        return f"{names}{',' * (len(eq.outs) == 1)} = flat({self.call(eq)})"


def shape_may_change(eq: Equation) -> bool:
    """Whether the shape of a result may depend on values: an opaque op, or a mask as an index."""
    if eq.fn in NAMES or eq.fn in _OF_ANY_SIZE or eq.fn in KERNELS.values():
        return True
    if eq.fn is np.where and len(eq.args) == 1:
        return True
    if eq.fn in (operator.getitem, np.ndarray.repeat, np.repeat):
        return any(v.dtype.kind in "bi" and not v.number for v in list(eq.inputs())[1:])
    return False


def _lines(graph: Graph, writer: _Writer, checks: bool) -> list[str]:
    last: dict[Var, int] = {}
    for k, eq in enumerate(graph.equations):
        for v in (*eq.inputs(), *eq.outs):
            last[v] = k
    keep = {*graph.results(), *graph.inputs, *graph.constants}
    lines = []
    for k, eq in enumerate(graph.equations):
        lines.append(writer.equation(eq))
        if checks and shape_may_change(eq):
            lines += [f"check({v}, {v.shape})" for v in eq.outs if not v.number]
        done = [v.name for v in dict.fromkeys((*variables(eq.args), *variables(eq.kwargs), *eq.outs))
                if last[v] == k and v not in keep]  # fmt: skip
        if done and checks:
            lines.append(f"del {', '.join(done)}")
    return lines


def source(graph: Graph) -> str:
    """The program as the NumPy function one could have written."""
    writer = _Writer()
    lines = _lines(graph, writer, checks=False)
    shown = [f"def step({', '.join(v.name for v in graph.inputs)}):"]
    for v, value in graph.constants.items():
        shown.append(f"    {v} = ...  # {value.dtype} {list(value.shape)}")
    widest = min(56, max([len(line) for line in lines], default=0))
    for eq, line in zip(graph.equations, lines, strict=True):
        what = ", ".join("number" if v.number else f"{v.dtype}{list(v.shape)}" for v in eq.outs)
        shown.append(f"    {line:{widest}}  # {what}")
    for target, value in graph.writes:
        shown.append(f"    {target}[...] = {value}")
    shown.append(f"    return {', '.join(v.name for v in graph.outputs)}")
    return "\n".join(shown)


def build(graph: Graph) -> Callable[..., tuple[list[Any], list[Any]]]:
    """A function of the input values that gives (outputs, new values of what is written)."""
    writer = _Writer()
    lines = _lines(graph, writer, checks=True)
    space = writer.space
    space.update({v.name: value for v, value in graph.constants.items()})
    outputs = ", ".join(v.name for v in graph.outputs)
    writes = ", ".join(value.name for _, value in graph.writes)
    text = "\n".join(
        [
            f"def step({', '.join(v.name for v in graph.inputs)}):",
            *[f"    {line}" for line in lines],
            f"    return [{outputs}], [{writes}]",
        ]
    )
    exec(compile(text, "<kilograd program>", "exec"), space)
    return space["step"]

"""Passes: graph in, graph out, each a screen long.

All of them keep results exactly as they are. Values never change once given, so that a copy is the value
itself, and the same function of the same values need not be computed twice.

Read next: ``compile/fusion.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.compile.graph import Equation, Graph, Var, cast, leaves, mapped

_COPIES = (np.ndarray.copy, np.copy)
_RESHAPES = (np.reshape, np.ndarray.reshape)
_TRANSPOSES = (np.transpose, np.ndarray.transpose)
_VIEWS = (*_RESHAPES, *_TRANSPOSES, np.broadcast_to, operator.getitem, np.swapaxes, np.squeeze)
_FILLED: dict[Any, Any] = {np.zeros_like: 0, np.empty_like: 0, np.ones_like: 1}
SMALL = 1 << 12  # elements: constants up to this size are computed beforehand


def without_dead_code(graph: Graph) -> Graph:
    """Only what a result, a write or an effect needs."""
    needed: set[Var] = set(graph.results())
    kept = []
    for eq in reversed(graph.equations):
        if eq.effect or any(v in needed for v in eq.outs):
            needed.update(eq.inputs())
            kept.append(eq)
    new = graph.with_equations(kept[::-1])
    new.constants = {v: c for v, c in graph.constants.items() if v in needed}
    return new


def _rewritten(graph: Graph, rewrite: Callable[[Equation], Any]) -> Graph:
    """Each equation as ``rewrite`` gives it: an Equation, or the value that it only repeats."""
    instead: dict[Var, Var] = {}
    equations = []
    for eq in graph.equations:
        new = rewrite(eq.replaced(instead))
        if isinstance(new, Var):
            instead[eq.outs[0]] = new
        else:
            equations.append(new)
    result = graph.with_equations(equations)
    result.outputs = [instead.get(v, v) for v in graph.outputs]
    result.writes = [(target, instead.get(v, v)) for target, v in graph.writes]
    return result


def without_copies(graph: Graph) -> Graph:
    """A copy is the value itself; only a result that is nothing but an input's copy stays one."""
    results = set(graph.results())
    shared = {*graph.inputs, *graph.constants, *results}
    made_by: dict[Var, Equation] = {v: eq for eq in graph.equations for v in eq.outs}

    def rewrite(eq: Equation) -> Any:
        if eq.fn not in _COPIES or len(eq.args) != 1 or not isinstance(eq.args[0], Var):
            return eq
        source = eq.args[0]
        origin = made_by.get(source)
        if eq.outs[0] in results and (source in shared or origin is None or origin.fn in _VIEWS):
            return eq
        return source

    return _rewritten(graph, rewrite)


def simplified(graph: Graph) -> Graph:
    """Reshapes of reshapes, transposes of transposes, and steps that do nothing."""
    made_by: dict[Var, Equation] = {}

    def rewrite(eq: Equation) -> Any:
        if len(eq.outs) != 1 or not eq.args or not isinstance(eq.args[0], Var):
            return eq
        x, out = eq.args[0], eq.outs[0]
        if x.number or out.number:
            return eq
        before = made_by.get(x)
        if eq.fn in _RESHAPES:
            if before is not None and before.fn in _RESHAPES:
                x = before.args[0]
            eq = Equation((out,), np.reshape, (x, out.shape), {}, eq.line)
        elif (
            eq.fn in _TRANSPOSES
            and len(eq.args) == 2
            and before is not None
            and before.fn in _TRANSPOSES
        ):
            axes = tuple(before.args[1][a] for a in eq.args[1])
            x = before.args[0]
            eq = Equation((out,), np.transpose, (x, axes), {}, eq.line)
        made_by[out] = eq
        same = x.shape == out.shape and x.dtype == out.dtype
        if same and (
            eq.fn in (*_RESHAPES, np.broadcast_to, cast)
            or (eq.fn in _TRANSPOSES and eq.args[1] == tuple(range(out.ndim)))
            or (eq.fn is np.multiply and type(eq.args[1]) in (int, float) and eq.args[1] == 1)
        ):
            return x
        return eq

    return _rewritten(graph, rewrite)


def folded(graph: Graph) -> Graph:
    """What does not depend on any input is computed once, now."""
    graph = graph.with_equations(graph.equations)
    graph.constants = dict(graph.constants)

    def rewrite(eq: Equation) -> Any:
        if eq.effect or eq.tree is not None or len(eq.outs) != 1 or eq.outs[0].number:
            return eq
        out = eq.outs[0]
        if eq.fn in (np.zeros_like, np.empty_like, np.ones_like, np.full_like):
            value = _FILLED.get(eq.fn, eq.args[1] if len(eq.args) > 1 else None)
            if type(value) is Var and value in graph.constants and value.shape == ():
                value = graph.constants[value].item()
            if type(value) not in (int, float, bool):
                return eq
            c = Var(f"{out.name}_c", (), out.dtype)
            graph.constants[c] = np.asarray(value, out.dtype)
            return Equation((out,), np.broadcast_to, (c, out.shape), {}, eq.line)
        inputs = list(eq.inputs())
        if not inputs or out.size > SMALL or any(v not in graph.constants for v in inputs):
            return eq
        if eq.fn in _VIEWS and eq.fn is not operator.getitem:
            return eq
        known = lambda x: graph.constants[x] if type(x) is Var else x  # noqa: E731
        value = np.asarray(eq.fn(*mapped(known, eq.args), **mapped(known, eq.kwargs)))
        if value.shape != out.shape or value.dtype != out.dtype:
            return eq
        c = Var(f"{out.name}_c", out.shape, out.dtype)
        graph.constants[c] = value.copy()
        return c

    return _rewritten(graph, rewrite)


def without_repeats(graph: Graph) -> Graph:
    """The same function of the same values is computed once."""
    seen: dict[Any, Var] = {}
    results = set(graph.results())
    constants: dict[Any, Var] = {}
    same: dict[Var, Var] = {}
    for v, c in graph.constants.items():
        if c.size <= 64:
            same[v] = constants.setdefault((c.shape, c.dtype, c.strides, c.tobytes()), v)

    def rewrite(eq: Equation) -> Any:
        if any(v in same for v in eq.inputs()):
            eq = eq.replaced(same)
        if eq.effect or eq.tree is not None or len(eq.outs) != 1:
            return eq
        key = _key(eq)
        if key is None:
            return eq
        before = seen.setdefault(key, eq.outs[0])
        if before is eq.outs[0] or eq.outs[0] in results:
            return eq
        return before

    return _rewritten(graph, rewrite)


def _key(eq: Equation) -> Any:
    """What makes two equations the same; None if that cannot be told."""
    parts: list[Any] = [eq.fn, tuple(eq.kwargs)]
    for x in leaves((eq.args, eq.kwargs)):
        if isinstance(x, (np.ndarray, list)):
            return None
        parts.append((type(x), x))
    shape = str(mapped(lambda x: 0, (eq.args, eq.kwargs)))  # how the arguments are nested
    try:
        key = (*parts, shape)
        hash(key)
    except TypeError:
        return None
    return key


PASSES = [without_dead_code, without_copies, folded, simplified, without_repeats, without_dead_code]
VERIFY = False  # on in tests


def optimised(graph: Graph) -> Graph:
    """The graph after all passes."""
    for one in PASSES:
        graph = one(graph)
        if VERIFY:
            graph.verify()
    return graph

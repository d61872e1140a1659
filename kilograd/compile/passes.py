"""Passes: graph in, graph out, each a screen long."""

from __future__ import annotations

from kilograd.compile.graph import Graph, Var


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


PASSES = [without_dead_code]
VERIFY = False  # on in tests


def optimised(graph: Graph) -> Graph:
    """The graph after all passes."""
    for one in PASSES:
        graph = one(graph)
        if VERIFY:
            graph.verify()
    return graph

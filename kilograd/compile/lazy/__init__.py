"""Lazy graphs: operations are written down when they are called, and computed when a value is read.

    with kg.Graph() as g:
        loss = F.cross_entropy(model(x), y)  # shapes and dtypes are known, nothing is computed
        loss.backward()
    g.realize()                              # now: one program, and ``.grad`` is there
    x.copy_(next_batch)
    g.realize()                              # the same program on other numbers

A tensor of a graph holds a lazy array in place of an array. An op or a derivative rule that meets one
becomes one step of the graph, as it stands: a function of arrays, whose result is described without
computing it. A size read from such an array is an int that remembers where it comes from; what code
decided by it is a guard. So the same steps serve another batch size, or say why they do not. To
realize is to hand the steps that a value needs to ``kg.compile``.

Reading order: ``sizes.py``, ``inputs.py``, ``arrays.py``, ``nodes.py``, ``shapes.py`` (with ``rules.py``,
``kernel_rules.py``), ``plans.py``, ``values.py``, ``recorder.py``, ``graph.py``.
"""

from __future__ import annotations

from kilograd.compile.lazy.graph import (
    Graph,
    Step,
    get_default_graph,
    lazy,
    realize,
    set_default_graph,
)

__all__ = ["Graph", "Step", "get_default_graph", "lazy", "realize", "set_default_graph"]

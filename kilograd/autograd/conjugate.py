"""Gradients of complex numbers, as users see them and as the backward pass has them.

PyTorch's gradient of a real L with respect to a complex z = x + iy is ∂L/∂x + i ∂L/∂y. A function with a complex
derivative f' (all of arithmetic) takes it backward by the conjugate of f'. Inside of a backward pass a complex
gradient is the conjugate of that, ∂L/∂x - i ∂L/∂y, which f' itself takes backward: so the rules of real arrays
serve complex ones. Only the functions that lead from one to the other are others (``ops/special.py``), and what
users hand over or see is turned on the way: seeds, hooks, results, custom functions.
"""

from __future__ import annotations

from typing import Any


def shown(g: Any) -> Any:
    """A gradient (array or Tensor) as users see it, or one of theirs as the backward pass has it.

    >>> import numpy as np
    >>> shown(np.array([1 + 2j])), shown(np.array([3.0]))
    (array([1.-2.j]), array([3.]))
    """
    if type(g) is tuple:  # of several outputs
        return tuple(map(shown, g))
    return g.conj() if g.dtype.kind == "c" else g

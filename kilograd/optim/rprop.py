"""Rprop."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_positive,
    scalar_like,
    setting,
    zeros_like,
)
from kilograd.tensor import wrap


class Rprop(Optimizer):
    """Resilient backpropagation: only the signs of gradients count (Riedmiller & Braun 1993).

    With the factors η₋, η₊ and bounds of the step sizes s, which start at the learning rate::

        s ← s η₊ where g has kept its sign, s η₋ where it changed; within the bounds
        g ← 0 where it changed its sign
        p ← p - s sign(g)
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
        foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(
            params,
            {
                "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        size = wrap(np.full_like(p, setting(group["lr"]), order="C"))
        return {"step": scalar_like(p), "prev": zeros_like(p), "step_size": size}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        before, size = state["prev"].array, state["step_size"].array
        (less, more), (low, high) = group["etas"], group["step_sizes"]
        product = g * before
        size *= np.where(product > 0, more, np.where(product < 0, less, 1.0)).astype(size.dtype)
        np.maximum(size, low, out=size)
        np.minimum(size, high, out=size)
        g = np.where(product < 0, 0, g)
        p -= size * np.sign(g)
        before[...] = g

"""Adagrad."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import number
from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_positive,
    scalar_like,
    setting,
)
from kilograd.tensor import wrap


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares (Duchi et al. 2011).

    At step t, with learning rate γ, its decay η and weight decay λ::

        γ̃ = γ / (1 + (t - 1) η)
        g ← g + λ p
        s ← s + g²
        p ← p - γ̃ g / (√s + ε)

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0], requires_grad=True)
    >>> optimizer = kg.optim.Adagrad([w], lr=0.1)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.9000], requires_grad=True)
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, lr_decay=lr_decay)
        check_positive(
            weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value, eps=eps
        )
        super().__init__(
            params,
            {
                "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = self.init(p.array, group)

    def init(self, p: Any, group: Group) -> State:
        return {
            "step": scalar_like(p),
            "sum": wrap(np.full_like(p, setting(group["initial_accumulator_value"]), order="C")),
        }

    def share_memory(self) -> None:
        """Nothing to do: processes that are forked see the same memory until they write."""

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        s, t = state["sum"].array, number(state["step"].array)
        lr = setting(group["lr"]) / (1 + (t - 1) * group["lr_decay"])
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        s += g * g
        root = np.sqrt(s)
        root += group["eps"]
        p -= lr * (g / root)

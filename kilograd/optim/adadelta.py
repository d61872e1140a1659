"""Adadelta."""

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


class Adadelta(Optimizer):
    """Steps in the units of the parameters, without a learning rate to choose (Zeiler 2012).

    With learning rate γ (1), smoothing ρ and weight decay λ::

        g ← g + λ p
        v ← ρ v + (1 - ρ) g²
        Δ = g √(u + ε) / √(v + ε)
        u ← ρ u + (1 - ρ) Δ²
        p ← p - γ Δ
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_positive(eps=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
                "maximize": maximize, "capturable": capturable, "foreach": foreach,
                "differentiable": differentiable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {"step": scalar_like(p), "square_avg": zeros_like(p), "acc_delta": zeros_like(p)}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        rho, eps = group["rho"], group["eps"]
        v, u = state["square_avg"].array, state["acc_delta"].array
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        v *= rho
        v += (1 - rho) * (g * g)
        delta = np.sqrt(u + eps)
        delta /= np.sqrt(v + eps)
        delta *= g
        u *= rho
        u += (1 - rho) * (delta * delta)
        p -= setting(group["lr"]) * delta

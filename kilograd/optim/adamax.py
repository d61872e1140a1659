"""Adamax."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import number
from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_betas,
    check_positive,
    scalar_like,
    setting,
    zeros_like,
)


class Adamax(Optimizer):
    """Adam with the infinity norm in the place of the second moment (Kingma & Ba 2015).

    At step t, with learning rate γ, betas β₁, β₂ and weight decay λ::

        g ← g + λ p
        m ← β₁ m + (1 - β₁) g
        u ← max(β₂ u, |g| + ε)
        p ← p - γ / (1 - β₁ᵗ) m / u
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, eps=eps)
        check_betas(betas)
        check_positive(weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
                "capturable": capturable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {"step": scalar_like(p), "exp_avg": zeros_like(p), "exp_inf": zeros_like(p)}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        m, u, t = state["exp_avg"].array, state["exp_inf"].array, number(state["step"].array)
        beta1, beta2 = group["betas"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        m *= beta1
        m += (1 - beta1) * g
        u *= beta2
        np.maximum(u, np.absolute(g) + group["eps"], out=u)
        p -= setting(group["lr"]) / (1 - beta1**t) * (m / u)

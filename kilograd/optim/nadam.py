"""NAdam."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import number, square_root
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


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016).

    At step t, with learning rate γ, betas β₁, β₂, momentum decay ψ and weight decay λ::

        g ← g + λ p                             (decoupled_weight_decay: p ← p - γ λ p)
        μₜ = β₁ (1 - 0.96^(t ψ) / 2)
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        m̂ = μₜ₊₁ m / (1 - Π μ to t+1) + (1 - μₜ) g / (1 - Π μ to t)
        v̂ = v / (1 - β₂ᵗ)
        p ← p - γ m̂ / (√v̂ + ε)
    """

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, eps=eps)
        check_betas(betas)
        check_positive(weight_decay=weight_decay, momentum_decay=momentum_decay)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
                "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {
            "step": scalar_like(p), "mu_product": scalar_like(p, 1.0),
            "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p),
        }  # fmt: skip

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        m, v, t = state["exp_avg"].array, state["exp_avg_sq"].array, number(state["step"].array)
        product = state["mu_product"].array
        (beta1, beta2), psi = group["betas"], group["momentum_decay"]
        lr, decay = setting(group["lr"]), group["weight_decay"]
        if decay:
            if group["decoupled_weight_decay"]:
                p *= 1 - lr * decay
            else:
                g = g + decay * p
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * psi))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * psi))
        product *= mu
        until_now = number(product)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        root = np.sqrt(v)
        root /= square_root(1 - beta2**t)
        root += group["eps"]
        p -= lr * (1.0 - mu) / (1.0 - until_now) * (g / root)
        p -= lr * mu_next / (1.0 - until_now * mu_next) * (m / root)

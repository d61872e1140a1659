"""RAdam."""

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
    choose,
    scalar_like,
    setting,
    zeros_like,
)


class RAdam(Optimizer):
    """Adam whose adaptive step starts once its variance is known (Liu et al. 2020).

    At step t, with learning rate γ, betas β₁, β₂ and weight decay λ::

        g ← g + λ p                       (decoupled_weight_decay: p ← p - γ λ p)
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        m̂ = m / (1 - β₁ᵗ)
        ρ∞ = 2 / (1 - β₂) - 1,  ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
        r = √((ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ))
        p ← p - γ m̂ r √(1 - β₂ᵗ) / (√v + ε)  if ρ > 5, else  p ← p - γ m̂
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, eps=eps)
        check_betas(betas)
        check_positive(weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "maximize": maximize, "foreach": foreach, "capturable": capturable,
                "decoupled_weight_decay": decoupled_weight_decay,
                "differentiable": differentiable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {"step": scalar_like(p), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        m, v, t = state["exp_avg"].array, state["exp_avg_sq"].array, number(state["step"].array)
        (beta1, beta2), lr, decay = group["betas"], setting(group["lr"]), group["weight_decay"]
        if decay:
            if group["decoupled_weight_decay"]:
                p *= 1 - lr * decay
            else:
                g = g + decay * p
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        move = m * (lr / (1 - beta1**t))
        correction = 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / correction
        root = np.sqrt(v)
        root += group["eps"]
        known = (rho, rho_inf, square_root(correction), root)
        rho, rho_inf, scale, root = choose(rho, 5.0, known, (5.0, 5.0, 1.0, 1.0))  # else r is 1
        r = square_root((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        move *= r * scale
        move /= root
        p -= move

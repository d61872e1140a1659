"""RMSprop."""

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


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares (Hinton's lecture 6e).

    With learning rate γ, smoothing α, momentum μ and weight decay λ::

        g ← g + λ p
        v ← α v + (1 - α) g²
        a ← α a + (1 - α) g          (centered: v - a² instead of v below)
        g ← g / (√v + ε)
        b ← μ b + g                  (momentum: b instead of g below)
        p ← p - γ g

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0], requires_grad=True)
    >>> optimizer = kg.optim.RMSprop([w], lr=0.01)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.9000], requires_grad=True)
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, eps=eps, momentum=momentum)
        check_positive(weight_decay=weight_decay, alpha=alpha)
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
                "maximize": maximize, "differentiable": differentiable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        state = {"step": scalar_like(p), "square_avg": zeros_like(p)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(p)
        if group["centered"]:
            state["grad_avg"] = zeros_like(p)
        return state

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        alpha, v = group["alpha"], state["square_avg"].array
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        v *= alpha
        v += (1 - alpha) * (g * g)
        if group["centered"]:
            a = state["grad_avg"].array
            a += (1 - alpha) * (g - a)
            v = v - a * a
        root = np.sqrt(v)
        root += group["eps"]
        g = g / root
        if group["momentum"] > 0:
            b = state["momentum_buffer"].array
            b *= group["momentum"]
            b += g
            g = b
        p -= setting(group["lr"]) * g

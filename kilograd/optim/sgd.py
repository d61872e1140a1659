"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.optim.optimizer import Group, Optimizer, State, check_positive, setting
from kilograd.tensor import wrap


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al. 2013).

    With learning rate γ, momentum μ, dampening τ and weight decay λ::

        g ← g + λ p
        b ← μ b + (1 - τ) g      (at first b ← g)
        g ← g + μ b              (nesterov), or g ← b
        p ← p - γ g

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0], requires_grad=True)
    >>> optimizer = kg.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8000], requires_grad=True)
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, momentum=momentum)
        check_positive(weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening,
                "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
                "foreach": foreach, "differentiable": differentiable, "fused": fused,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {"momentum_buffer": None} if group["momentum"] else {}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        momentum = group["momentum"]
        if group["weight_decay"]:
            g = g + setting(group["weight_decay"]) * p
        if momentum:
            buffer = state.get("momentum_buffer")
            if buffer is None:
                state["momentum_buffer"] = wrap(np.copy(g))
                b = g
            else:
                b = buffer.array
                b *= momentum
                b += g if not group["dampening"] else (1 - group["dampening"]) * g
            g = g + momentum * b if group["nesterov"] else b
        p -= setting(group["lr"]) * g

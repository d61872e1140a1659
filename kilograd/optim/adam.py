"""Adam and AdamW.

Read next: ``compile/tracer.py``, which runs all of this once and writes it down.
"""

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
from kilograd.tensor import Tensor


class Adam(Optimizer):
    """Adaptive moments (Kingma & Ba 2015), and AMSGrad (Reddi et al. 2018).

    At step t, with learning rate γ, betas β₁, β₂ and weight decay λ::

        g ← g + λ p                       (decoupled_weight_decay: p ← p - γ λ p)
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        m̂ = m / (1 - β₁ᵗ)
        v̂ = v / (1 - β₂ᵗ)                 (amsgrad: the largest v so far instead of v)
        p ← p - γ m̂ / (√v̂ + ε)

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0, -3.0], requires_grad=True)
    >>> optimizer = kg.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.9000, -2.9000], requires_grad=True)
    """

    blockwise = True

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, eps=eps)
        _check_betas(betas, foreach, capturable)
        check_positive(weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
                "capturable": capturable, "differentiable": differentiable, "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        state = {"step": scalar_like(p), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(p)
        return state

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        m, v, t = state["exp_avg"].array, state["exp_avg_sq"].array, number(state["step"].array)
        beta1, beta2 = group["betas"]
        beta1, beta2, lr = setting(beta1), setting(beta2), setting(group["lr"])
        decay = group["weight_decay"]
        if decay:
            if group["decoupled_weight_decay"]:
                p *= 1 - lr * decay
            else:
                g = g + decay * p
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        square = g * g
        square *= 1 - beta2
        v += square
        if group["amsgrad"]:
            v = np.maximum(state["max_exp_avg_sq"].array, v, out=state["max_exp_avg_sq"].array)
        root = np.sqrt(v)
        root /= square_root(1 - beta2**t)
        root += group["eps"]
        move = m / root
        move *= lr / (1 - beta1**t)
        p -= move


class AdamW(Adam):
    """:class:`Adam` with weight decay of its own: ``p ← p - γ λ p`` (Loshchilov & Hutter 2019).

    >>> import kilograd as kg
    >>> w = kg.tensor([1.0], requires_grad=True)
    >>> optimizer = kg.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8500], requires_grad=True)
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip


def _check_betas(betas: tuple[Any, Any], foreach: bool | None, capturable: bool) -> None:
    kinds = {isinstance(b, Tensor) for b in betas}
    if len(kinds) > 1:
        raise ValueError("betas must be either both floats or both Tensors")
    if kinds == {True}:
        for i, b in enumerate(betas):
            if not capturable and foreach:
                raise ValueError(
                    f"betas[{i}] as a Tensor is not supported for capturable=False and foreach=True"
                )
            if b.array.size != 1:
                raise ValueError(f"Tensor betas[{i}] must be 1-element")
    check_betas([float(b) for b in betas])

"""Muon."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel, number
from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_positive,
    choose,
    setting,
    zeros_like,
)


class Muon(Optimizer):
    """Momentum made orthogonal by Newton-Schulz iterations, for matrices (Jordan 2024).

    With learning rate γ, momentum μ and weight decay λ::

        b ← μ b + (1 - μ) g
        u = (1 - μ) g + μ b          (nesterov), or b
        X = u / |u|
        X ← a X + (b A + c A²) X,  A = X Xᵀ,  ns_steps times, in bfloat16 precision
        p ← p - γ λ p - γ √max(1, rows/columns) X

    ``adjust_lr_fn="match_rms_adamw"`` scales by ``0.2 √max(rows, columns)`` instead.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, momentum=momentum)
        check_positive(weight_decay=weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(
            params,
            {
                "lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                "nesterov": nesterov, "ns_coefficients": ns_coefficients, "eps": eps,
                "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            },
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                if p.array.dtype.kind == "c":
                    raise RuntimeError("Muon does not support complex parameters")
                if p.array.ndim != 2:
                    raise ValueError(
                        f"Muon only supports 2D parameters whereas we found a parameter with size: {p.shape}"
                    )

    def init(self, p: Any, group: Group) -> State:
        return {"momentum_buffer": zeros_like(p)}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        b, mu, lr = state["momentum_buffer"].array, group["momentum"], setting(group["lr"])
        b += (1 - mu) * (g - b)
        u = g + mu * (b - g) if group["nesterov"] else b
        x = orthogonal(u, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = p.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        else:
            factor = math.sqrt(max(1, rows / columns))
        p *= 1 - lr * group["weight_decay"]
        p -= lr * factor * x


def orthogonal(u: Any, coefficients: tuple[float, float, float], steps: int, eps: float) -> Any:
    """Nearly the orthogonal matrix nearest to ``u``, in bfloat16 precision."""
    a, b, c = coefficients
    x = bfloat16(u)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    size = number(bfloat16(np.sqrt(np.square(x).sum())))
    x = bfloat16(x / choose(eps, size, eps, size))
    for _ in range(steps):
        gram = bfloat16(x @ x.T)
        gram = bfloat16(b * gram + c * (gram @ gram))
        x = bfloat16(a * x + gram @ x)
    return (x.T if tall else x).astype(u.dtype)


@kernel
def bfloat16(x: Any) -> Any:
    """float32 values rounded to the 8 significant bits of bfloat16.

    >>> float(bfloat16(np.float32(1.003)))
    1.0
    """
    bits = np.asarray(x, np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)

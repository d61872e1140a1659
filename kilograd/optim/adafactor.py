"""Adafactor."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import number, square_root
from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_positive,
    choose,
    scalar_like,
    setting,
)
from kilograd.tensor import wrap


class Adafactor(Optimizer):
    """Adam with the second moment of a matrix kept as a row and a column (Shazeer & Stern 2018).

    At step t, with learning rate γ, and RMS the root of the mean square::

        α = max(ε₂, RMS(p)) min(γ, 1/√t)
        p ← p - γ λ p
        β = 1 - t^beta2_decay
        R ← β R + (1 - β) mean of g² over columns,  C ← ... over rows,  V = R C / mean(R)
        u = g / max(√V, ε₁)
        p ← p - α u / max(1, RMS(u) / d)
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0,
        *, foreach: bool | None = None, maximize: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr)
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        super().__init__(
            params,
            {
                "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
                "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
            },
        )  # fmt: skip
        if any(p.array.dtype.kind == "c" for g in self.param_groups for p in g["params"]):
            raise RuntimeError("Adafactor does not support complex parameters")

    def init(self, p: Any, group: Group) -> State:
        if p.ndim < 2:
            return {"step": scalar_like(p), "variance": wrap(np.zeros_like(p))}
        rows = np.zeros_like(p, order="C", shape=(*p.shape[:-1], 1))
        columns = np.zeros_like(p, order="C", shape=(*p.shape[:-2], 1, p.shape[-1]))
        return {"step": scalar_like(p), "row_var": wrap(rows), "col_var": wrap(columns)}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        t, lr = number(state["step"].array), setting(group["lr"])
        eps1, eps2 = group["eps"]
        eps1 = float(np.finfo(p.dtype).eps) if eps1 is None else eps1
        size, most = _rms(p), 1 / square_root(t)
        alpha = choose(size, eps2, size, eps2) * choose(lr, most, most, lr)
        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        new = t ** group["beta2_decay"]  # 1 - β
        square = g * g
        if p.ndim > 1:
            rows, columns = state["row_var"].array, state["col_var"].array
            rows += new * (square.mean(axis=-1, keepdims=True) - rows)
            columns += new * (square.mean(axis=-2, keepdims=True) - columns)
            v = rows @ columns
            v /= np.maximum(rows.mean(axis=-2, keepdims=True), eps1)
        else:
            v = state["variance"].array
            v += new * (square - v)
        u = g / np.sqrt(np.maximum(v, eps1 * eps1))
        excess = _rms(u) / group["d"]
        p -= alpha / choose(excess, 1.0, excess, 1.0) * u


def _rms(x: Any) -> Any:
    return square_root(number(np.square(x).mean()))

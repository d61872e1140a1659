"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from kilograd.kernels.kernel import number
from kilograd.optim.optimizer import (
    Group,
    Optimizer,
    State,
    check_positive,
    choose,
    scalar_like,
    setting,
    zeros_like,
)


class ASGD(Optimizer):
    """SGD that also keeps the mean of its path in ``state[p]["ax"]`` (Polyak & Juditsky 1992).

    At step t, with learning rate γ, decay Λ (``lambd``), power α and weight decay λ::

        g ← g + λ p
        p ← p - η Λ p - η g
        a ← a + μ (p - a)
        η ← γ / (1 + Λ γ t)^α,   μ ← 1 / max(1, t - t₀)
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        check_positive(lr=lr, weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
                "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
                "capturable": capturable,
            },
        )  # fmt: skip

    def init(self, p: Any, group: Group) -> State:
        return {
            "step": scalar_like(p), "eta": scalar_like(p, setting(group["lr"])),
            "mu": scalar_like(p, 1.0), "ax": zeros_like(p),
        }  # fmt: skip

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        t, ax = number(state["step"].array), state["ax"].array
        eta, mu = number(state["eta"].array), number(state["mu"].array)
        lr, lambd = setting(group["lr"]), group["lambd"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        p *= 1 - lambd * eta
        p -= eta * g
        alone = type(mu) is float and mu == 1  # p is all there is of the path
        ax[...] = p if alone else choose(1.0, mu, ax + mu * (p - ax), p)
        state["eta"].array[...] = lr / (1 + lambd * lr * t) ** group["alpha"]
        late = t - group["t0"]
        state["mu"].array[...] = 1 / choose(late, 1.0, late, 1.0)

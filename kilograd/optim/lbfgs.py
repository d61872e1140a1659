"""L-BFGS with an optional strong Wolfe line search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.autograd.modes import ModeContext
from kilograd.optim.optimizer import Optimizer, check_positive
from kilograd.tensor import Tensor, wrap

Evaluate = Callable[[float], tuple[float, Any]]  # step length → loss and gradient there


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of the gradient (Liu & Nocedal 1989).

    ``step`` needs a closure, which it calls up to ``max_eval`` times for ``max_iter`` iterations::

        s, y = change of p, change of g       (kept if y·s > 0)
        d = -H g                              (two loops over the pairs (s, y), newest first)
        p ← p + t d                           (t = lr, or line_search_fn="strong_wolfe")

    It stops when the largest gradient is below ``tolerance_grad`` or the change below
    ``tolerance_change``. All parameters are in one group.

    >>> import kilograd as kg
    >>> w = kg.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = kg.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - kg.tensor([1.0, 2.0])) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure)
    >>> w.detach().round(decimals=3)
    tensor([1., 2.])
    """

    def __init__(
        self, params: Any, lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        check_positive(lr=lr)
        super().__init__(
            params,
            {
                "lr": lr, "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
                "history_size": history_size, "line_search_fn": line_search_fn,
            },
        )  # fmt: skip
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    def step(self, closure: Callable[[], Any]) -> Any:
        """Iterate; returns the loss before."""
        group = self.param_groups[0]
        params = self._params = group["params"]
        lr, tolerance = float(group["lr"]), group["tolerance_change"]
        state = self.state[params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        def evaluate_here() -> Any:
            with ModeContext(grad=True):
                return closure()

        before = evaluate_here()
        loss, evaluations = float(before), 1
        state["func_evals"] += 1
        g = self._gather()
        if np.abs(g).max() <= group["tolerance_grad"]:
            return before
        d, t = _array(state.get("d")), state.get("t")
        ys, ss = (list(map(_array, state.get(k, ()))) for k in ("old_dirs", "old_stps"))
        ro = list(state.get("ro", ()))
        scale = state.get("H_diag", 1)
        g_before, loss_before = _array(state.get("prev_flat_grad")), state.get("prev_loss")
        iteration = 0
        while iteration < group["max_iter"]:
            iteration += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                d, ys, ss, ro, scale = -g, [], [], [], 1
            else:
                y, s = g - g_before, d * t
                curvature = float(y @ s)
                if curvature > 1e-10:
                    for memory, new in ((ys, y), (ss, s), (ro, 1.0 / curvature)):
                        if len(memory) == group["history_size"]:
                            del memory[0]
                        memory.append(new)
                    scale = curvature / float(y @ y)
                d = -_inverse_hessian_times(g, ys, ss, ro, scale)
            g_before, loss_before = g.copy(), loss
            t = min(1.0, 1.0 / float(np.abs(g).sum())) * lr if state["n_iter"] == 1 else lr
            slope = float(g @ d)
            if slope > -tolerance:
                break
            calls = 0
            if group["line_search_fn"] is not None:
                if group["line_search_fn"] != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")
                start = [p.array.copy() for p in params]

                def at(t: float, start: Any = start, d: Any = d) -> tuple[float, Any]:
                    self._move(t, d)
                    value = float(evaluate_here())
                    gradient = self._gather()
                    for p, old in zip(params, start, strict=True):
                        p.array[...] = old
                    return value, gradient

                loss, g, t, calls = strong_wolfe(at, t, d, loss, g, slope)
                self._move(t, d)
                done = np.abs(g).max() <= group["tolerance_grad"]
            else:
                self._move(t, d)
                done = False
                if iteration != group["max_iter"]:
                    loss, calls = float(evaluate_here()), 1
                    g = self._gather()
                    done = np.abs(g).max() <= group["tolerance_grad"]
            evaluations += calls
            state["func_evals"] += calls
            if (
                evaluations >= group["max_eval"]
                or done
                or np.abs(d * t).max() <= tolerance
                or abs(loss - loss_before) < tolerance
            ):
                break
        state.update(
            d=wrap(d), t=t, old_dirs=[wrap(y) for y in ys], old_stps=[wrap(s) for s in ss], ro=ro,
            H_diag=scale, prev_flat_grad=wrap(g_before), prev_loss=loss_before,
        )  # fmt: skip
        return before

    def _gather(self) -> Any:
        """All gradients as one vector; zeros where there is none."""
        return np.concatenate([
            (np.zeros_like(p.array) if p.grad is None else p.grad.array).reshape(-1)
            for p in self._params
        ])  # fmt: skip

    def _move(self, t: float, d: Any) -> None:
        """``p ← p + t d``."""
        start = 0
        for p in self._params:
            stop = start + p.array.size
            p.array += t * d[start:stop].reshape(p.array.shape)
            p._cell[0] += 1
            start = stop


def _array(value: Any) -> Any:
    return value.array if isinstance(value, Tensor) else value


def _inverse_hessian_times(g: Any, ys: Any, ss: Any, ro: Any, scale: float) -> Any:
    """``H g`` of the BFGS formula, started from ``scale`` times the identity."""
    q = g.copy()
    alphas = []
    for y, s, r in zip(reversed(ys), reversed(ss), reversed(ro), strict=True):
        alpha = float(s @ q) * r
        q -= alpha * y
        alphas.append(alpha)
    q *= scale
    for y, s, r, alpha in zip(ys, ss, ro, reversed(alphas), strict=True):
        q += s * (alpha - float(y @ q) * r)
    return q


def cubic_minimum(
    a: tuple[float, float, float], b: tuple[float, float, float],
    bounds: tuple[float, float] | None = None,
) -> float:  # fmt: skip
    """Where the cubic through two points (t, value, slope) is least, within bounds.

    >>> cubic_minimum((0.0, 1.0, -2.0), (3.0, 4.0, 4.0))
    1.0
    """
    (x1, f1, g1), (x2, f2, g2) = (a, b) if a[0] <= b[0] else (b, a)
    low, high = (x1, x2) if bounds is None else bounds
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    if square < 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    return min(max(x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2)), low), high)


def strong_wolfe(
    at: Evaluate, t: float, d: Any, f: float, g: Any, slope: float, c1: float = 1e-4,
    c2: float = 0.9, tolerance: float = 1e-9, max_steps: int = 25,
) -> tuple[float, Any, float, int]:  # fmt: skip
    """A step length t with ``f(t) ≤ f + c1 t slope`` and ``|slope(t)| ≤ c2 |slope|``.

    First t grows until the two conditions hold or a minimum is bracketed; then the bracket is
    narrowed by cubic interpolation (Nocedal & Wright, algorithms 3.5 and 3.6).

    Returns:
        loss, gradient, t, number of evaluations.
    """
    largest = np.abs(d).max()
    g = g.copy()
    f_new, g_new = at(t)
    calls = 1
    slope_new = float(g_new @ d)
    # a point of the bracket: t, loss, gradient, slope
    previous = (0.0, f, g, slope)
    bracket: list[tuple[float, float, Any, float]] = []
    done = False
    steps = 0
    while steps < max_steps:
        now = (t, f_new, g_new.copy(), slope_new)
        if f_new > f + c1 * t * slope or (steps > 1 and f_new >= previous[1]):
            bracket = [previous, now]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket = [now]
            done = True
            break
        if slope_new >= 0:
            bracket = [previous, now]
            break
        bounds = t + 0.01 * (t - previous[0]), t * 10
        t = cubic_minimum((previous[0], previous[1], previous[3]), (t, f_new, slope_new), bounds)
        previous = now
        f_new, g_new = at(t)
        calls += 1
        slope_new = float(g_new @ d)
        steps += 1
    if not bracket:  # the limit of steps was reached
        bracket = [(0.0, f, g, slope), (t, f_new, g_new, slope_new)]
    insufficient = False
    low, high = (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    while not done and steps < max_steps:
        one, other = bracket
        if abs(other[0] - one[0]) * largest < tolerance:
            break
        t = cubic_minimum((one[0], one[1], one[3]), (other[0], other[1], other[3]))
        left, right = sorted((one[0], other[0]))
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:  # too near to an end: move away from it, or next time
            if insufficient or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                insufficient = False
            else:
                insufficient = True
        else:
            insufficient = False
        f_new, g_new = at(t)
        calls += 1
        slope_new = float(g_new @ d)
        steps += 1
        now = (t, f_new, g_new.copy(), slope_new)
        if f_new > f + c1 * t * slope or f_new >= bracket[low][1]:
            bracket[high] = now
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
        else:
            if abs(slope_new) <= -c2 * slope:
                done = True
            elif slope_new * (bracket[high][0] - bracket[low][0]) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = now
    if len(bracket) == 1:
        low = 0
    t, f_new, g_new, _ = bracket[low]
    return f_new, g_new, t, calls

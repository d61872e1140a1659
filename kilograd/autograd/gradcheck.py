"""Derivatives against finite differences, along random directions.

For ``y = f(x)``, a random direction ``u`` in the inputs and a random ``v`` in the outputs,
``v · (f(x + εu) - f(x - εu)) / 2ε`` must equal ``(Jᵀv) · u``. The slow mode compares every entry
of the Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd.autograd.calls import grad
from kilograd.autograd.modes import ModeContext
from kilograd.tensor import Tensor, wrap


class GradcheckError(RuntimeError):
    """A derivative that does not agree with finite differences."""


def _outputs(fn: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    out = fn(*inputs)
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    return [o for o in outs if isinstance(o, Tensor) and o.array.dtype.kind == "f"]


def _values(fn: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
    with ModeContext(grad=False):
        return [o.array.copy() for o in _outputs(fn, inputs)]


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    fast_mode: bool = False,
    directions: int = 3,
    seed: int = 0,
) -> bool:
    """Check the gradients of ``func`` at ``inputs`` (float64) against central differences.

    Args:
        func: a function of tensors that returns a tensor or several; or a Module.
        inputs: a tensor or a tuple of them; those that require grad are checked. For a Module its
            parameters are checked too.
        eps, atol, rtol: step and tolerances.
        raise_exception: raise :class:`GradcheckError` (with the numbers) instead of returning False.
        fast_mode: ``directions`` random directions instead of every entry of the Jacobian.

    Returns:
        True if all agree.

    >>> import kilograd as kg
    >>> x = kg.randn(3, dtype=kg.float64, requires_grad=True)
    >>> kg.autograd.gradcheck(lambda x: (x * x.sin()).sum(), (x,))
    True
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    parameters = getattr(func, "parameters", None)
    if parameters is not None:
        checked += [p for p in parameters() if p.requires_grad]
    if not checked:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True."
        )
    for i, t in enumerate(checked):
        if t.array.dtype != np.float64:
            import warnings

            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point. "
                "This check will likely fail if all the inputs are not of double precision.",
                UserWarning,
                stacklevel=2,
            )
    try:
        _check(func, args, checked, eps, atol, rtol, nondet_tol, fast_mode, directions, seed)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(
    func: Any, args: Any, checked: list[Tensor], eps: float, atol: float, rtol: float,
    nondet_tol: float, fast: bool, directions: int, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    outs = _outputs(func, args)
    if not any(o.requires_grad for o in outs):
        moved = [t for t in checked if t.array.size]
        for t in moved:
            u = rng.standard_normal(t.array.shape)
            plus, minus = _moved(func, args, t, u, eps)
            if any(
                np.abs(p - m).max(initial=0) > atol * eps for p, m in zip(plus, minus, strict=True)
            ):
                raise GradcheckError("Numerical gradient for function expected to be zero")
        return
    for o_index, o in enumerate(outs):
        if not o.requires_grad or not o.array.size:
            continue
        ups = (
            [rng.standard_normal(o.array.shape) for _ in range(directions)]
            if fast
            else _units(o.array.shape)
        )
        for v in ups:
            vt = wrap(np.asarray(v, o.array.dtype))
            analytic = [
                np.zeros(t.array.shape) if g is None else g.array
                for g, t in zip(
                    grad(o, checked, vt, retain_graph=True, allow_unused=True), checked, strict=True
                )
            ]
            again = grad(o, checked, vt, retain_graph=True, allow_unused=True)
            for a, b in zip(analytic, again, strict=True):
                if b is not None and not np.allclose(
                    a, b.array, atol=nondet_tol, rtol=0, equal_nan=True
                ):
                    raise GradcheckError(
                        "Backward is not reentrant, i.e., running backward with the same input and grad_output multiple times gives different values"
                    )
            for i, (t, a) in enumerate(zip(checked, analytic, strict=True)):
                for u in [rng.standard_normal(t.array.shape)] if fast else _units(t.array.shape):
                    plus, minus = _moved(func, args, t, u, eps)
                    numeric = float(np.sum(v * (plus[o_index] - minus[o_index])) / (2 * eps))
                    ours = float(np.sum(a * u))
                    if not np.isclose(ours, numeric, atol=atol, rtol=rtol, equal_nan=True):
                        raise GradcheckError(
                            f"Jacobian mismatch for output {o_index} with respect to input {i}: "
                            f"numerical {numeric:.10g}, analytical {ours:.10g}"
                        )


def _units(shape: tuple[int, ...]) -> Any:
    for i in range(int(np.prod(shape))):
        u = np.zeros(shape)
        u.flat[i] = 1.0
        yield u


def _moved(func: Any, args: Any, t: Tensor, u: Any, eps: float) -> tuple[list[Any], list[Any]]:
    old = t.array.copy()
    try:
        t.array[...] = old + eps * u
        plus = _values(func, args)
        t.array[...] = old - eps * u
        minus = _values(func, args)
    finally:
        t.array[...] = old
    return plus, minus


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    fast_mode: bool = False,
    seed: int = 0,
) -> bool:
    """Check second derivatives: :func:`gradcheck` of the gradient function itself.

    >>> import kilograd as kg
    >>> x = kg.randn(3, dtype=kg.float64, requires_grad=True)
    >>> kg.autograd.gradgradcheck(lambda x: x.sin() * x, (x,))
    True
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outs = [o for o in _outputs(func, args) if o.requires_grad]
    rng = np.random.default_rng(seed)
    if grad_outputs is None:
        ups = [
            wrap(rng.standard_normal(o.array.shape).astype(o.array.dtype)).requires_grad_()
            for o in outs
        ]
    else:
        ups = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    checked = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    count = len(args)

    def first(*everything: Any) -> Any:
        with ModeContext(grad=True):
            ys = [o for o in _outputs(func, everything[:count]) if o.requires_grad]
            xs = [a for a in everything[:count] if isinstance(a, Tensor) and a.requires_grad]
            found = grad(ys, xs, everything[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    _ = checked
    return gradcheck(
        first, (*args, *ups), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, fast_mode=fast_mode, seed=seed,
    )  # fmt: skip

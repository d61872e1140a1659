"""Limiting gradients, in place."""

from __future__ import annotations

import functools
import math
import operator
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kilograd.kernels.kernel import number
from kilograd.tensor import Tensor, wrap


def _with_grad(parameters: Any) -> list[Tensor]:
    """Those of one or several parameters that have a gradient."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    found = list(parameters)
    if isinstance(parameters, Iterator) and not found:
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3
        )
    return [p for p in found if p.grad is not None]


def _limit(x: Any) -> Any:
    """A bound as a number: it may be a tensor with one element."""
    return number(x.array if isinstance(x, Tensor) else x)


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of all elements of all tensors together.

    >>> import kilograd as kg
    >>> kg.nn.utils.get_total_norm([kg.tensor([3.0]), kg.tensor([[4.0]])])
    tensor(5.)
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    arrays = [t.array for t in tensors]
    norm_type = float(norm_type)
    if not arrays:
        return wrap(np.zeros((), np.float32))
    dtype = functools.reduce(np.promote_types, [a.real.dtype for a in arrays])
    total = np.zeros_like(arrays[0], dtype, shape=())
    total[...] = _norm(arrays, norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so "
            "it cannot be clipped. To disable this error and scale the gradients by the non-finite "
            "norm anyway, set `error_if_nonfinite=False`"
        )
    return wrap(total)


def _norm(arrays: list[Any], p: float) -> Any:
    """The p-norm of all elements of all arrays; for p = 0 the number of arrays that are not zero."""
    if math.isinf(p):
        sizes = [np.absolute(a) for a in arrays]
        if p > 0:
            return functools.reduce(np.maximum, [s.max() if s.size else 0.0 for s in sizes])
        return functools.reduce(np.minimum, [s.min() for s in sizes])
    total = functools.reduce(operator.add, [_power(a, p) for a in arrays])
    if p == 2:
        return np.sqrt(total)
    return total if p in (0, 1) else total ** (1.0 / p)


def _power(a: Any, p: float) -> Any:
    """The sum of the p-th powers of the sizes of all elements of one array."""
    if p == 2:
        flat = a.reshape(-1)
        return flat.dot(flat) if a.dtype.kind == "f" else np.vdot(flat, flat).real
    if p == 0:
        return (a != 0).any().astype(a.real.dtype)
    size = np.absolute(a)
    return size.sum() if p == 1 else (size**p).sum()


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale gradients by ``max_norm / (total_norm + 1e-6)``, unless that is above 1."""
    total = total_norm.array if isinstance(total_norm, Tensor) else total_norm
    scale = np.minimum(_limit(max_norm) / (total + 1e-6), 1.0)
    for p in _with_grad(parameters):
        g = p.grad
        assert g is not None
        np.multiply(g.array, scale.astype(g.array.dtype), out=g.array)
        g._cell[0] += 1


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale all gradients together so that their norm is at most ``max_norm``; the norm before.

    >>> import kilograd as kg
    >>> w = kg.nn.Parameter(kg.zeros(2))
    >>> w.grad = kg.tensor([3.0, 4.0])
    >>> kg.nn.utils.clip_grad_norm_([w], max_norm=1.0), w.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    found = _with_grad(parameters)
    grads = [p.grad for p in found]
    total_norm = get_total_norm(grads, norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(found, max_norm, total_norm, foreach)
    return total_norm


def clip_grad_norm(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Tensor:
    """The name of before of :func:`clip_grad_norm_`."""
    warnings.warn(
        "`kilograd.nn.utils.clip_grad_norm` is now deprecated in favor of "
        "`kilograd.nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(parameters, max_norm, *args, **kwargs)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Hold every element of the gradients between ``-clip_value`` and ``clip_value``."""
    limit = _limit(clip_value)
    for p in _with_grad(parameters):
        g = p.grad
        assert g is not None
        np.maximum(g.array, -limit, out=g.array)
        np.minimum(g.array, limit, out=g.array)
        g._cell[0] += 1

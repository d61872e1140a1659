"""Distances and angles between vectors."""

from __future__ import annotations

import numpy as np

from kilograd.functions.calling import function, one_axis
from kilograd.nn.functional.sizes import in_float32
from kilograd.tensor import Tensor, wrap

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]


def _at_least(x: Tensor, eps: float) -> Tensor:
    """``max(x, eps)`` with the derivative of x, as PyTorch clamps under no_grad."""
    a = x.array
    if type(a) is np.ndarray and not (a < eps).any():
        return x
    return x + wrap(np.maximum(a, eps) - a)


@function(method=False)
@in_float32
def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """``input / max(‖input‖ₚ, eps)`` along a dimension.

    >>> import kilograd as kg
    >>> kg.nn.functional.normalize(kg.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps)


@function(method=False)
@in_float32
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between x1 and x2 along a dimension; norms are at least eps."""
    ndim = max(x1.array.ndim, x2.array.ndim)
    shape = np.broadcast_shapes(x1.array.shape, x2.array.shape)
    axis = one_axis(dim, ndim) - ndim  # from the end, where broadcasting aligns
    x1, x2 = (x if tuple(x.shape) == shape else x.expand(shape) for x in (x1, x2))
    n1 = _at_least(x1.norm(2, axis, keepdim=True), eps)
    n2 = _at_least(x2.norm(2, axis, keepdim=True), eps)
    return ((x1 / n1) * (x2 / n2)).sum(axis)


@function(method=False)
@in_float32
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


@function(method=False)
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows of a matrix (N, D): (N*(N-1)/2,)."""
    x = input.array
    if x.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {x.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    i, j = np.triu_indices(len(x), 1)
    return (input[i] - input[j]).norm(p, -1)

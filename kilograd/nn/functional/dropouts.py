"""Dropout: multiply by a random mask of zeros and 1/(1-p), so that the mean stays what it was.

The masks are PyTorch's for the same seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.functions.calling import function
from kilograd.ops import elementwise as ew
from kilograd.tensor import Tensor, wrap

__all__ = [
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
]  # fmt: skip

_SELU_LIMIT = 1.7580993408473766  # -scale * alpha of SELU: where its negative side ends


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drawn(x: Any, draw: Callable[[tuple[int, ...]], Any]) -> Any:
    """Random numbers of x's shape, drawn in the order in which x lies in memory, as PyTorch does."""
    if x.flags.c_contiguous:
        return draw(x.shape)
    order = sorted(range(x.ndim), key=lambda i: -x.strides[i])
    back = tuple(np.argsort(order).tolist())
    return draw(tuple([x.shape[i] for i in order])).transpose(back)


def _masked(input: Tensor, mask: Any, inplace: bool) -> Tensor:
    mask = wrap(mask)
    return input._inplace(ew.multiply, mask) if inplace else ew.multiply(input, mask)


@function(method=False)
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element becomes 0 with probability p; the others are divided by 1 - p.

    >>> import kilograd as kg
    >>> _ = kg.manual_seed(0)
    >>> kg.nn.functional.dropout(kg.ones(6))
    tensor([0., 0., 2., 0., 0., 0.])
    """
    _check(p)
    if not training or p == 0 or not input.array.size:
        return input
    x = input.array
    mask = _drawn(x, lambda shape: random.dropout_mask(None, shape, p, x.dtype))
    return _masked(input, mask, inplace)


def _channels(input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    if not training or p == 0 or not input.array.size:
        return input
    x = input.array
    if x.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return _masked(
        input, random.dropout_mask(None, x.shape[:2] + (1,) * (x.ndim - 2), p, x.dtype), inplace
    )


@function(method=False)
def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, L) or (C, L) become 0."""
    _check(p)
    ndim = input.array.ndim
    if ndim not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {ndim}D input.")
    return (
        _with_batch(input, p, training, inplace)
        if ndim == 2
        else _channels(input, p, training, inplace)
    )


def _with_batch(input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """The channels of one sample (C, …)."""
    x = input.array
    if not training or p == 0 or not x.size:
        return input
    return _masked(
        input, random.dropout_mask(None, (x.shape[0],) + (1,) * (x.ndim - 1), p, x.dtype), inplace
    )


@function(method=False)
def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, H, W) become 0."""
    _check(p)
    ndim = input.array.ndim
    if ndim not in (3, 4):
        warnings.warn(
            f"dropout2d: Received a {ndim}-D input to dropout2d, which is deprecated. Use dropout instead.",
            stacklevel=3,
        )
    if ndim == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior "
            "is desired - input is interpreted as shape (N, C, L). Please use dropout1d instead.",
            stacklevel=3,
        )
    return _channels(input, p, training, inplace)


@function(method=False)
def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Whole channels of (N, C, D, H, W) or (C, D, H, W) become 0."""
    _check(p)
    ndim = input.array.ndim
    if ndim not in (4, 5):
        warnings.warn(
            f"dropout3d: Received a {ndim}-D input to dropout3d, which is deprecated. Use dropout instead.",
            stacklevel=3,
        )
    return (
        _channels(input, p, training, inplace)
        if ndim == 5
        else _with_batch(input, p, training, inplace)
    )


def _alpha(input: Tensor, draw: Callable[[float], Any], p: float, inplace: bool) -> Tensor:
    """Dropped elements take SELU's limit; then mean and variance are brought back to 0 and 1."""
    dtype = input.array.dtype
    if p == 1:
        zero: Any = wrap(np.zeros((), dtype))
        return input._inplace(ew.multiply, zero) if inplace else ew.multiply(input, zero)
    keep = draw(1 - p)
    a = 1 / math.sqrt((_SELU_LIMIT**2 * p + 1) * (1 - p))
    shift = wrap((keep - 1) * (_SELU_LIMIT * a) + _SELU_LIMIT * a * p)
    scale = wrap(keep * a)
    if inplace:
        return input._inplace(ew.multiply, scale)._inplace(ew.add, shift)
    return input * scale + shift


@function(method=False)
def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout for SELU networks: mean and variance stay what they were."""
    _check(p)
    if not training or p == 0 or not input.array.size:
        return input
    x = input.array
    return _alpha(
        input,
        lambda q: _drawn(x, lambda shape: random.bernoulli(None, q, shape, x.dtype)),
        p,
        inplace,
    )


@function(method=False)
def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`alpha_dropout` of whole channels of (N, C, …)."""
    _check(p)
    x = input.array
    if not training or p == 0 or not x.size:
        return input
    if x.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    shape = x.shape[:2] + (1,) * (x.ndim - 2)
    return _alpha(input, lambda q: random.bernoulli(None, q, shape, x.dtype), p, inplace)

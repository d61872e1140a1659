"""Scaled dot-product attention, and multi-head attention around it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from kilograd import random
from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.nn.functional.activations import softmax
from kilograd.nn.functional.affine import linear
from kilograd.nn.functional.dropouts import dropout
from kilograd.nn.functional.padding import pad
from kilograd.nn.functional.sizes import in_float32
from kilograd.ops import attention as ops
from kilograd.ops.linalg import matmul
from kilograd.ops.shape import broadcast_to, concatenate, permute, reshape, swapaxes
from kilograd.tensor import Tensor, wrap

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


@function(method=False)
@in_float32
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """``softmax(scale * query keyᵀ + mask) value``.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, D); the result is (..., L, D).
        attn_mask: broadcasts with (..., L, S): booleans, True where a query may look, or numbers to add.
        dropout_p: applied whenever it is not 0; pass 0 in evaluation.
        is_causal: a query looks at no position after its own; not together with a mask.
        scale: 1/√E unless given.
        enable_gqa: key and value may have fewer heads (dimension -3), each serving several of query's.

    >>> import kilograd as kg
    >>> q = kg.zeros(1, 2, 4)
    >>> kg.nn.functional.scaled_dot_product_attention(q, q, kg.arange(4.0).reshape(1, 2, 2))
    tensor([[[1., 2.],
             [1., 2.]]])
    """
    q, k, v = query.array, key.array, value.array
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError(
            "scaled_dot_product_attention: expected query, key and value to be at least 2 dimensional, but "
            f"got {q.ndim}, {k.ndim} and {v.ndim} dimensions"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{q.dtype} key.dtype: {k.dtype} and value.dtype: {v.dtype} instead."
        )
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        )
    if (
        attn_mask is not None
        and attn_mask.array.dtype.kind != "b"
        and attn_mask.array.dtype != q.dtype
    ):
        if attn_mask.array.dtype.kind != "f":
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                f"attn_mask.dtype: {attn_mask.array.dtype} and query.dtype: {q.dtype} instead."
            )
        attn_mask = attn_mask.to(query.dtype)
    if enable_gqa and q.ndim > 2:
        key, value = _heads_shared(key, q.shape[-3]), _heads_shared(value, q.shape[-3])
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"scaled_dot_product_attention: query {list(q.shape)}, key {list(k.shape)} and value "
            f"{list(v.shape)} do not fit: expected (..., L, E), (..., S, E) and (..., S, D)"
        )
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    keep = None
    if dropout_p > 0:
        lead = np.broadcast_shapes(q.shape[:-2], key.array.shape[:-2])
        keep = random.dropout_mask(None, (*lead, q.shape[-2], k.shape[-2]), dropout_p, q.dtype)
    learned = attn_mask is not None and attn_mask.requires_grad
    tiled = ops.tiled(q.shape[-2], k.shape[-2]) and not learned
    attend = ops.tiled_attention if tiled else ops.attention
    return attend(query, key, value, attn_mask, keep, scale=scale, is_causal=is_causal)


def _heads_shared(x: Tensor, heads: int) -> Tensor:
    """x (..., G, S, E) with each of its G heads repeated to make ``heads``."""
    *lead, groups, length, width = x.array.shape
    if groups == heads:
        return x
    if groups == 0 or heads % groups:
        raise RuntimeError(
            "scaled_dot_product_attention: number of heads in key and value must divide the number of heads "
            f"in query, got {groups} and {heads}"
        )
    x = reshape(x, shape=(*lead, groups, 1, length, width))
    x = broadcast_to(x, shape=(*lead, groups, heads // groups, length, width))
    return reshape(x, shape=(*lead, heads, length, width))


def _require(condition: bool, message: str) -> None:
    """PyTorch raises AssertionError for what multi_head_attention_forward expects."""
    if not condition:
        raise AssertionError(message)


def _additive(mask: Tensor | None, name: str, dtype: Any) -> Tensor | None:
    """A mask as numbers to add: minus infinity where a boolean mask is True."""
    if mask is None:
        return None
    kind = mask.array.dtype.kind
    _require(kind in "bf", f"only bool and floating types of {name} are supported")
    if kind == "f":
        return mask
    return wrap(np.where(mask.array, dtype.type(-math.inf), dtype.type(0)))


def _check_dims(
    query: Tensor, key: Tensor, value: Tensor, padding: Any, mask: Any, heads: int
) -> bool:
    """Whether the input is a batch."""
    n = query.array.ndim
    _require(
        n in (2, 3),
        f"query should be unbatched 2D or batched 3D tensor but received {n}-D query tensor",
    )
    kind = f"For {'batched' if n == 3 else 'unbatched'} ({n}-D) `query`, expected"
    _require(
        key.array.ndim == n and value.array.ndim == n,
        f"{kind} `key` and `value` to be {n}-D but found {key.array.ndim}-D and {value.array.ndim}-D tensors "
        "respectively",
    )
    if padding is not None:
        _require(
            padding.ndim == n - 1,
            f"{kind} `key_padding_mask` to be `None` or {n - 1}-D but found {padding.ndim}-D tensor instead",
        )
    if mask is not None:
        _require(
            mask.ndim in (2, 3),
            f"{kind} `attn_mask` to be `None`, 2-D or 3-D but found {mask.ndim}-D tensor instead",
        )
        if n == 2 and mask.ndim == 3:
            want = (heads, query.shape[0], key.shape[0])
            _require(
                tuple(mask.shape) == want,
                f"Expected `attn_mask` shape to be {want} but got {tuple(mask.shape)}",
            )
    return n == 3


def _project(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v by one weight (3E, E): in one product where they come from the same tensor."""
    E = query.array.shape[-1]
    if key is value:
        if query is key:
            y = linear(query, weight, bias)
            return y[..., :E], y[..., E : 2 * E], y[..., 2 * E :]
        q = linear(query, weight[:E], None if bias is None else bias[:E])
        kv = linear(key, weight[E:], None if bias is None else bias[E:])
        return q, kv[..., :E], kv[..., E:]
    q, k, v = (
        linear(x, weight[i * E : (i + 1) * E], None if bias is None else bias[i * E : (i + 1) * E])
        for i, x in enumerate((query, key, value))
    )
    return q, k, v


@function(method=False)
@in_float32
def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Project query (L, N, E), key and value (S, N, E) to heads, attend, join the heads and project.

    Returns the output (L, N, E) and, with ``need_weights``, the attention weights (N, L, S), or
    (N, heads, L, S) with ``average_attn_weights=False``. The N may be left out. See
    :class:`kilograd.nn.MultiheadAttention`.

    Raises:
        AssertionError: shapes that do not fit.
    """
    batch_given = _check_dims(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batch_given:
        same_kv, same_qk = key is value, query is key
        query = query[:, None]
        key = query if same_qk else key[:, None]
        value = key if same_kv else value[:, None]
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask[None]
    L, N, E = query.array.shape
    S = key.array.shape[0]
    dtype = query.array.dtype
    if (
        key_padding_mask is not None
        and attn_mask is not None
        and key_padding_mask.dtype != attn_mask.dtype
    ):
        warnings.warn(
            "Support for mismatched key_padding_mask and attn_mask is deprecated. Use same type for both "
            "instead.",
            stacklevel=3,
        )
    key_padding_mask = _additive(key_padding_mask, "key_padding_mask", dtype)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if is_causal and key_padding_mask is None and not need_weights:
        attn_mask = None  # the hint says it all
    else:
        attn_mask = _additive(attn_mask, "attn_mask", dtype)
        is_causal = is_causal and key_padding_mask is None
    _require(
        embed_dim_to_check == E,
        f"was expecting embedding dimension of {embed_dim_to_check}, but got {E}",
    )
    D = E // num_heads
    _require(D * num_heads == E, f"embed_dim {E} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        _require(
            key.shape[:2] == value.shape[:2],
            f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}",
        )
        for w, name in ((q_proj_weight, "q"), (k_proj_weight, "k"), (v_proj_weight, "v")):
            _require(
                w is not None, f"use_separate_proj_weight is True but {name}_proj_weight is None"
            )
        biases = (
            [None] * 3
            if in_proj_bias is None
            else [in_proj_bias[i * E : (i + 1) * E] for i in range(3)]
        )
        q, k, v = (
            linear(x, w, b)
            for x, w, b in zip(
                (query, key, value),
                (q_proj_weight, k_proj_weight, v_proj_weight),
                biases,
                strict=True,
            )
        )
    else:
        _require(
            key.shape == value.shape,
            f"key shape {key.shape} does not match value shape {value.shape}",
        )
        if in_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
        q, k, v = _project(query, key, value, in_proj_weight, in_proj_bias)
    if attn_mask is not None:
        want = (L, S) if attn_mask.ndim == 2 else (N * num_heads, L, S)
        if tuple(attn_mask.shape) != want:
            raise RuntimeError(
                f"The shape of the {attn_mask.ndim}D attn_mask is {tuple(attn_mask.shape)}, but "
                f"should be {want}."
            )
        if attn_mask.ndim == 2:
            attn_mask = attn_mask[None]
    extra = 0
    if bias_k is not None and bias_v is not None:
        _require(static_k is None, "bias cannot be added to static key.")
        _require(static_v is None, "bias cannot be added to static value.")
        k = concatenate(k, broadcast_to(bias_k, shape=(1, N, E)), axis=0)
        v = concatenate(v, broadcast_to(bias_v, shape=(1, N, E)), axis=0)
        extra += 1
    else:
        _require(bias_k is None, "bias_k is set but bias_v is None")
        _require(bias_v is None, "bias_v is set but bias_k is None")

    def heads(x: Tensor) -> Tensor:  # (T, N, E) -> (N * heads, T, D)
        return swapaxes(reshape(x, shape=(x.array.shape[0], N * num_heads, D)), a=0, b=1)

    def checked(x: Tensor, name: str) -> Tensor:
        for axis, want in ((0, N * num_heads), (2, D)):
            _require(
                x.shape[axis] == want,
                f"expecting {name}.size({axis}) of {want}, but got {x.shape[axis]}",
            )
        return x

    q = heads(q)
    k = heads(k) if static_k is None else checked(static_k, "static_k")
    v = heads(v) if static_v is None else checked(static_v, "static_v")
    if add_zero_attn:
        zeros = wrap(np.zeros((N * num_heads, 1, D), dtype))
        k, v = concatenate(k, zeros, axis=1), concatenate(v, zeros, axis=1)
        extra += 1
    if extra and attn_mask is not None:
        attn_mask = pad(attn_mask, (0, extra))
    if extra and key_padding_mask is not None:
        key_padding_mask = pad(key_padding_mask, (0, extra))
    S = k.array.shape[1]
    if key_padding_mask is not None:
        for axis, want in ((0, N), (1, S)):
            _require(
                key_padding_mask.shape[axis] == want,
                f"Expected key_padded_mask.shape[{axis}] to be {want}, but got "
                f"{key_padding_mask.shape[axis]}",
            )
        by_head = broadcast_to(
            reshape(key_padding_mask, shape=(N, 1, 1, S)), shape=(N, num_heads, 1, S)
        )
        by_head = reshape(by_head, shape=(N * num_heads, 1, S))
        attn_mask = by_head if attn_mask is None else attn_mask + by_head
    if not training:
        dropout_p = 0.0
    weights = None
    if need_weights:
        _require(
            not (is_causal and attn_mask is None), "is_causal needs attn_mask where need_weights"
        )
        scores = matmul(q * math.sqrt(1 / D), swapaxes(k, a=-1, b=-2))
        if attn_mask is not None:
            scores = scores + attn_mask
        weights = softmax(scores, -1)
        if dropout_p > 0:
            weights = dropout(weights, dropout_p)
        y = matmul(weights, v)  # (N * heads, L, D)
        y = swapaxes(y, a=0, b=1)
        weights = reshape(weights, shape=(N, num_heads, L, S))
        if average_attn_weights:
            weights = weights.mean(1)
        if not batch_given:
            weights = weights[0]
    else:
        if attn_mask is not None and len(attn_mask.array) > 1:
            attn_mask = reshape(attn_mask, shape=(N, num_heads, attn_mask.array.shape[1], S))
        q, k, v = (reshape(x, shape=(N, num_heads, *x.array.shape[1:])) for x in (q, k, v))
        y = scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal)
        y = permute(y, axes=(2, 0, 1, 3))  # (L, N, heads, D)
    y = linear(reshape(y, shape=(L, N, E)), out_proj_weight, out_proj_bias)
    return y if batch_given else y[:, 0], weights

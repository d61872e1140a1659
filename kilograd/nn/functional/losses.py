"""Losses. ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``; PyTorch's older ``size_average`` and
``reduce`` are accepted too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.kernels.place import demand, in_range
from kilograd.nn.functional.affine import linear
from kilograd.nn.functional.distance import pairwise_distance
from kilograd.nn.functional.sizes import in_float32
from kilograd.ops import activation as activation_ops
from kilograd.ops import ctc as ctc_ops
from kilograd.ops import elementwise as ew
from kilograd.ops import losses as ops
from kilograd.ops.elementwise import where
from kilograd.tensor import Tensor, wrap

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss",
    "cross_entropy", "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div",
    "l1_loss", "linear_cross_entropy", "margin_ranking_loss", "mse_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss", "poisson_nll_loss",
    "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction, checked; the two flags say it in the old way."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            reduction = "none"
        else:
            reduction = "sum" if size_average is False else "mean"
        warnings.warn(
            "size_average and reduce args will be deprecated, please use "
            f"reduction='{reduction}' instead.",
            stacklevel=4,
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def _sizes_differ(name: str, input: Tensor, target: Tensor) -> None:
    warnings.warn(
        f"{name}: using a target size ({list(target.shape)}) that is different to the input size "
        f"({list(input.shape)}). This will likely lead to incorrect results due to broadcasting. "
        "Please ensure they have the same size.",
        stacklevel=4,
    )


def _weighted(
    loss: Tensor, weight: Tensor, input: Tensor, reduction: str, by_weight: bool
) -> Tensor:
    if tuple(weight.shape) != tuple(input.shape):
        raise ValueError("Weights and input must have the same size.")
    if reduction == "mean" and by_weight:
        return (loss * weight).sum() / weight.sum()
    return ops.reduced(loss * weight, reduction)


# --- regression ---------------------------------------------------------------------------------


@function(method=False)
@in_float32
def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``(input - target)²``; with weight, the mean is divided by the weights' sum.

    >>> import kilograd as kg
    >>> kg.nn.functional.mse_loss(kg.tensor([1.0, 2.0]), kg.tensor([1.0, 4.0]))
    tensor(2.)
    """
    reduction = _reduction(size_average, reduce, reduction)
    if input.array.shape != target.shape:
        _sizes_differ("mse_loss", input, target)
    if weight is not None:
        loss = ops.squared_error(input, target, reduction="none")
        return _weighted(loss, weight, input, reduction, True)
    return ops.squared_error(input, target, reduction=reduction)


@function(method=False)
@in_float32
def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``|input - target|``; with weight, the mean is divided by the weights' sum."""
    reduction = _reduction(size_average, reduce, reduction)
    if input.array.shape != target.shape:
        _sizes_differ("l1_loss", input, target)
    if weight is not None:
        loss = ops.absolute_error(input, target, reduction="none")
        return _weighted(loss, weight, input, reduction, True)
    return ops.absolute_error(input, target, reduction=reduction)


@function(method=False)
@in_float32
def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """``d²/(2 beta)`` where d = |input - target| < beta, else ``d - beta/2``."""
    reduction = _reduction(size_average, reduce, reduction)
    if input.array.shape != target.shape:
        _sizes_differ("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return ops.absolute_error(input, target, reduction=reduction)
    return ops.smooth_absolute_error(input, target, beta=float(beta), reduction=reduction)


@function(method=False)
@in_float32
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``d²/2`` where d = |input - target| < delta, else ``delta (d - delta/2)``."""
    reduction = _reduction(None, None, reduction)
    if input.array.shape != target.shape:
        _sizes_differ("huber_loss", input, target)
    if not delta > 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    delta = float(delta)
    if weight is not None:
        loss = ops.smooth_absolute_error(input, target, beta=delta, scale=delta, reduction="none")
        return _weighted(loss, weight, input, reduction, False)
    return ops.smooth_absolute_error(input, target, beta=delta, scale=delta, reduction=reduction)


@function(method=False)
@in_float32
def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
    size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``exp(input) - target * input`` (of a logarithm), or ``input - target * log(input + eps)``.

    ``full``: with Stirling's approximation of ``log(target!)``.
    """
    reduction = _reduction(size_average, reduce, reduction)
    loss = ew.exp(input) - target * input if log_input else input - target * ew.log(input + eps)
    if full:
        t = where(target > 1, target, 1.0)
        stirling = t * ew.log(t) - t + 0.5 * ew.log(t * (2 * math.pi))
        loss = loss + where(target > 1, stirling, 0.0)
    return ops.reduced(loss, reduction)


@function(method=False)
@in_float32
def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``(log var + (input - target)²/var) / 2``; var is a number, or of the input's size or with a
    last dimension of 1 or none.
    """
    if isinstance(var, (int, float)):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = wrap(np.full_like(input.array, var))
    else:
        demand(~(var.array < 0), "var has negative entry/entries", ValueError)
    a, b = tuple(input.shape), tuple(var.shape)
    if a != b:
        if a[:-1] == b:
            var = var.reshape((*b, 1))
        elif len(a) != len(b) or sum(y for x, y in zip(a, b, strict=True) if x != y) != 1:
            raise ValueError("var is of incorrect size")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not valid")
    if var.array.dtype.kind == "f":  # held above eps; the gradient passes as if it were not
        var = var + wrap(np.maximum(var.array, eps) - var.array)
    d = input - target
    loss = (ew.log(var) + d * d / var) * 0.5
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return ops.reduced(loss, reduction)


# --- probabilities ------------------------------------------------------------------------------


@function(method=False)
@in_float32
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``-(target log(input) + (1 - target) log(1 - input))`` of probabilities.

    Logarithms are held above -100. Prefer :func:`binary_cross_entropy_with_logits`.

    Raises:
        ValueError: sizes differ. RuntimeError: input outside of [0, 1].
    """
    reduction = _reduction(size_average, reduce, reduction)
    if input.array.shape != target.shape:
        raise ValueError(
            f"Using a target size ({list(target.shape)}) that is different to the input size "
            f"({list(input.shape)}) is deprecated. Please ensure they have the same size."
        )
    return ops.binary_cross_entropy(input, target, weight, reduction=reduction)


@function(method=False)
@in_float32
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross entropy of ``sigmoid(input)``, right also for large scores.

    ``pos_weight`` multiplies the loss of positive targets.

    >>> import kilograd as kg
    >>> kg.nn.functional.binary_cross_entropy_with_logits(kg.tensor([-1e3, 1e3]), kg.tensor([0.0, 1.0]))
    tensor(0.)
    """
    reduction = _reduction(size_average, reduce, reduction)
    if input.array.shape != target.shape:
        raise ValueError(
            f"Target size ({list(target.shape)}) must be the same as input size ({list(input.shape)})"
        )
    return ops.binary_cross_entropy_with_logits(
        input, target, weight, pos_weight, reduction=reduction
    )


@function(method=False)
@in_float32
def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """``target * (log(target) - input)``: input (and with ``log_target`` target) are logarithms.

    ``reduction="batchmean"``, the sum divided by the batch size, is the divergence as defined.
    """
    batchmean = reduction == "batchmean"
    reduction = _reduction(size_average, reduce, "sum" if batchmean else reduction)
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. "
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition.",
            stacklevel=3,
        )
    if log_target:
        loss = ew.exp(target) * (target - input)
    else:
        some = target != 0
        loss = where(some, target * ew.log(where(some, target, 1.0)), target) - target * input
    loss = ops.reduced(loss, reduction)
    return loss / input.array.shape[0] if batchmean and input.array.ndim else loss


# --- classes ------------------------------------------------------------------------------------


def _check_classes(name: str, x: Any, t: Any, w: Any) -> None:
    """Scores (C,), (N, C) or (N, C, d1, …) and class numbers of the same shape without C."""
    if t.dtype != np.int64 and t.dtype != np.uint8:
        raise RuntimeError(f"{name}: expected target of type int64 or uint8, but found {t.dtype}")
    if x.ndim == 0:
        raise ShapeError(f"{name}: input should have at least one dimension")
    if x.ndim == 1:
        if t.ndim > 1 or t.size != 1:
            raise ValueError(
                f"{name}: expected a target of one class for input {list(x.shape)}, got {list(t.shape)}"
            )
    elif t.ndim != x.ndim - 1:
        raise (ShapeError if t.ndim and t.shape[0] == x.shape[0] else ValueError)(
            f"{name}: expected target of size {[x.shape[0], *x.shape[2:]]}, got {list(t.shape)}"
        )
    elif t.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name}: expected input batch_size ({x.shape[0]}) to match target batch_size ({t.shape[0]})."
        )
    elif t.shape[1:] != x.shape[2:]:
        raise ShapeError(
            f"{name}: expected target size {[x.shape[0], *x.shape[2:]]}, got {list(t.shape)}"
        )
    classes = x.shape[min(x.ndim - 1, 1)]
    if w is not None and w.shape != (classes,):
        raise ShapeError(
            f"{name}: weight tensor should be defined either for all {classes} classes or no classes but "
            f"got weight tensor of shape: {list(w.shape)}"
        )
    if w is not None and w.dtype != x.dtype:
        raise RuntimeError(f"{name}: expected weight of type {x.dtype} but found {w.dtype}")


@function(method=False)
@in_float32
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-probability ``input`` (N, C, …) of each target class (N, …).

    The mean is weighted by the classes' ``weight`` (C,); targets equal to ``ignore_index`` do not count.

    Raises:
        IndexError: a class out of range. ValueError: batch sizes differ.
    """
    reduction = _reduction(size_average, reduce, reduction)
    t = getattr(target, "array", target)
    _check_classes("nll_loss", input.array, t, getattr(weight, "array", weight))
    activation_ops.floating("nll_loss", input.array)
    return ops.nll_loss(input, t, weight, ignore_index=ignore_index, reduction=reduction)


@function(method=False)
@in_float32
def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """``nll_loss(log_softmax(input))``, or the cross entropy with target probabilities.

    Args:
        input: scores (C,), (N, C) or (N, C, d1, …).
        target: class numbers, of that shape without C; or probabilities, of that shape.
        weight: of each class (C,); the mean of class-number losses is weighted by it.
        size_average: PyTorch's older way to say ``reduction``.
        ignore_index: a class number that does not count.
        reduce: likewise.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: how much of a target is spread over all classes.

    >>> import kilograd as kg
    >>> kg.nn.functional.cross_entropy(kg.tensor([[1e3, 0.0], [0.0, 1e3]]), kg.tensor([0, 0]))
    tensor(500.)

    Raises:
        IndexError: a class out of range. ValueError: batch sizes differ.
    """
    reduction = _reduction(size_average, reduce, reduction)
    x, t = input.array, getattr(target, "array", target)
    w = getattr(weight, "array", weight)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    activation_ops.floating("log_softmax_lastdim_kernel_impl", x)
    if t.dtype.kind == "f" and t.shape == x.shape:
        return _soft_cross_entropy(input, target, weight, reduction, ignore_index, label_smoothing)
    _check_classes("cross_entropy", x, t, w)
    if label_smoothing == 0:
        return ops.cross_entropy(input, t, weight, ignore_index=ignore_index, reduction=reduction)
    axis = min(x.ndim - 1, 1)
    logp = activation_ops.log_softmax(input, axis=axis)
    hard = ops.nll_loss(logp, t, weight, ignore_index=ignore_index, reduction=reduction)
    spread = -(logp if weight is None else logp * _over_classes(weight, x.ndim)).sum(axis)
    keep = t != ignore_index
    spread = where(keep, spread, 0.0)
    if reduction == "mean":
        each = keep if weight is None else where(keep, weight[np.where(keep, t, 0)], 0.0)
        spread = spread.sum() / each.sum()
    elif reduction == "sum":
        spread = spread.sum()
    return hard * (1 - label_smoothing) + spread * (label_smoothing / x.shape[axis])


def _over_classes(weight: Tensor, ndim: int) -> Tensor:
    return weight.reshape((-1,) + (1,) * (ndim - 2)) if ndim > 2 else weight


def _soft_cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    smoothing: float,
) -> Tensor:
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    x = input.array
    axis = min(x.ndim - 1, 1)
    if weight is not None and tuple(weight.shape) != (x.shape[axis],):
        raise ShapeError(
            f"cross_entropy: weight tensor should be defined either for all {x.shape[axis]} classes or no "
            f"classes but got weight tensor of shape: {list(weight.shape)}"
        )
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[axis]
    loss = activation_ops.log_softmax(input, axis=axis) * target
    if weight is not None:
        loss = loss * _over_classes(weight, x.ndim)
    if reduction == "none":
        return -loss.sum(axis)
    n = x.size // x.shape[axis] if x.shape[axis] else 0
    loss = -loss.sum()
    return (
        loss / n if reduction == "mean" and n else loss if reduction == "sum" else loss * math.nan
    )


@function(method=False)
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
    label_smoothing: float = 0.0, options: Any = None,
) -> Tensor:  # fmt: skip
    """Cross entropy of the scores ``linear(input, linear_weight, linear_bias)``.

    input (N, I) or (I,), linear_weight (C, …, I). ``options`` (how PyTorch saves memory) is ignored.
    """
    x, w = input.array, linear_weight.array
    if not 1 <= x.ndim <= 2:
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {x.ndim}")
    if w.ndim < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {w.ndim}")
    if x.shape[-1] != w.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), got "
            f"{x.shape[-1]} and {w.shape[-1]}, respectively"
        )
    outputs = w.shape[:-1]
    if linear_bias is not None and tuple(linear_bias.shape) != outputs:
        raise RuntimeError(f"expected linear_bias shape {outputs}, got {tuple(linear_bias.shape)}")
    if len(outputs) > 1 and x.ndim == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {w.shape} requires batched input, "
            f"(N, {x.shape[-1]}), got unbatched input with shape {x.shape}"
        )
    shape = (*x.shape[:-1], *outputs)
    if tuple(target.shape) == shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    if len(outputs) > 1:
        linear_weight = linear_weight.reshape((-1, x.shape[-1]))
        linear_bias = None if linear_bias is None else linear_bias.reshape((-1,))
    scores = linear(input, linear_weight, linear_bias).reshape(shape)
    return cross_entropy(
        scores, target, weight, reduction=reduction, label_smoothing=label_smoothing,
        ignore_index=-100 if ignore_index is None else ignore_index,
    )  # fmt: skip


@function(method=False)
@in_float32
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``Σⱼ max(0, margin - x[target] + x[j])ᵖ / C`` over the wrong classes j; x (N, C) or (C,)."""
    reduction = _reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    x, t = input.array, getattr(target, "array", target)
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    if x.ndim > 2 or 0 in x.shape[-1:]:
        raise ShapeError(
            f"multi_margin_loss: expected non-empty vector or matrix with optional 0-dim batch size, but "
            f"got: {list(x.shape)}"
        )
    if x.ndim < 2:
        input, x, t = input.reshape((1, -1)), x.reshape(1, -1), t.reshape(-1)
        single = True
    else:
        single = False
    if t.ndim > 1 or t.shape != (len(x),):
        raise ShapeError(
            f"multi_margin_loss: inconsistent target size, expected {len(x)} but got {list(t.shape)}"
        )
    classes = x.shape[1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(
            f"multi_margin_loss: inconsistent weight size, expected {classes} but got {list(weight.shape)}"
        )
    classes_of: Any = t
    in_range(classes_of, classes, "multi_margin_loss: target out of range", RuntimeError)
    z = input - input[(np.arange(len(x)), t)].reshape((-1, 1)) + margin
    wrong = np.arange(classes) != t[:, None]
    z = where((z.array > 0) & wrong, z, 0.0)
    if p == 2:
        z = z * z
    if weight is not None:
        z = z * weight[t].reshape((-1, 1))
    loss = z.sum(1) / classes
    if single:
        loss = loss.reshape(())
    return ops.reduced(loss, reduction)


@function(method=False)
@in_float32
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``Σ max(0, 1 - x[k] + x[j]) / C`` over right classes k and wrong ones j; x (N, C) or (C,).

    A row of ``target`` lists the right classes, up to its first -1.
    """
    reduction = _reduction(size_average, reduce, reduction)
    x, t = input.array, getattr(target, "array", target)
    if x.ndim > 2 or 0 in x.shape[-1:]:
        raise ShapeError(
            "multilabel_margin_loss: expected non-empty vector or matrix with optional 0-dim batch size, "
            f"but got: {list(x.shape)}"
        )
    if t.shape != x.shape:
        raise ShapeError(
            f"multilabel_margin_loss: inconsistent target size {list(t.shape)} for input of size "
            f"{list(x.shape)}"
        )
    single = x.ndim < 2
    if single:
        input, t = input.reshape((1, -1)), t.reshape(1, -1)
    N, C = t.shape
    in_range(t + 1, C + 1, "multilabel_margin_loss: target out of range", RuntimeError)
    listed = np.logical_and.accumulate(t >= 0, axis=1)
    labels = np.where(listed, t, 0)
    right = (listed[:, :, None] & (labels[:, :, None] == np.arange(C))).any(1)
    chosen = input[(np.arange(N)[:, None], labels)].reshape((N, C, 1))
    z = 1 - chosen + input.reshape((N, 1, C))  # (N, k, j)
    counts = listed[:, :, None] & ~right[:, None, :]
    loss = where((z.array > 0) & counts, z, 0.0).sum((1, 2)) / C
    if single:
        loss = loss.reshape(())
    return ops.reduced(loss, reduction)


@function(method=False)
@in_float32
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over classes (the last dimension) of each one's binary cross entropy with logits."""
    reduction = _reduction(size_average, reduce, reduction)
    log = activation_ops.logsigmoid
    loss = -(target * log(input) + (1 - target) * log(-input))
    if weight is not None:
        loss = loss * weight
    return ops.reduced(loss.sum(-1) / input.array.shape[-1], reduction)


@function(method=False)
@in_float32
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``log(1 + exp(-target * input))`` of targets ±1."""
    reduction = _reduction(size_average, reduce, reduction)
    return ops.reduced(ew.softplus(-(target * input)), reduction)


# --- embeddings ---------------------------------------------------------------------------------


@function(method=False)
@in_float32
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``input`` where the target is 1, ``max(0, margin - input)`` where it is -1."""
    reduction = _reduction(size_average, reduce, reduction)
    apart = where(target != 1, _hinge(margin - input), 0.0)
    return ops.reduced(apart + where(target != -1, input, 0.0), reduction)


def _hinge(x: Tensor) -> Tensor:
    """``max(0, x)`` with the derivative 1 at 0, as PyTorch's ``clamp_min(0)``."""
    return ew.clamp(x, 0, None)


@function(method=False)
@in_float32
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, -target * (input1 - input2) + margin)``: target 1 wants input1 to be larger."""
    reduction = _reduction(size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss: all input tensors should have same dimension but got sizes: input1: "
            f"{list(input1.shape)}, input2: {list(input2.shape)}, target: {list(target.shape)}"
        )
    return ops.reduced(_hinge(-target * (input1 - input2) + margin), reduction)


@function(method=False)
@in_float32
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``1 - cos`` of the inputs (N, D) where the target (N,) is 1, ``max(0, cos - margin)`` where -1."""
    reduction = _reduction(size_average, reduce, reduction)
    if target.ndim > 1:
        raise RuntimeError(
            f"0D or 1D target tensor expected, multi-target not supported, got {list(target.shape)}"
        )
    want = target.ndim + 1
    if not input1.ndim == input2.ndim == want:
        raise RuntimeError(
            f"{target.ndim}D target tensor expects {want}D input tensors, but found inputs with sizes "
            f"{list(input1.shape)} and {list(input2.shape)}."
        )
    eps = 1e-12
    product = (input1 * input2).sum(-1)
    squares = ((input1 * input1).sum(-1) + eps) * ((input2 * input2).sum(-1) + eps)
    cos = product / ew.sqrt(squares)
    loss = where(target == 1, 1 - cos, 0.0) + where(target == -1, _hinge(cos - margin), 0.0)
    return ops.reduced(loss, reduction)


@function(method=False)
@in_float32
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``, d the p-norm of the difference.

    ``swap``: the smaller of the negative's distances from the anchor and from the positive counts.
    """
    reduction = _reduction(size_average, reduce, reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return _triplet(anchor, positive, negative, distance, margin, swap, reduction)


@function(method=False)
def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """:func:`triplet_margin_loss` with any distance."""
    reduction = _reduction(None, None, reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return _triplet(
        anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction
    )


def _triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, distance: Callable[[Tensor, Tensor], Tensor],
    margin: float, swap: bool, reduction: str,
) -> Tensor:  # fmt: skip
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative "
            f"{negative.ndim}D inputs"
        )
    far = distance(anchor, negative)
    if swap:
        far = ew.minimum(far, distance(positive, negative))
    return ops.reduced(_hinge(distance(anchor, positive) - far + margin), reduction)


# --- sequences ----------------------------------------------------------------------------------


@function(method=False)
def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Minus the log-probability of label sequences over all of their alignments.

    Args:
        log_probs: (T, N, C) or (T, C), logarithms of probabilities (from ``log_softmax``).
        targets: (N, S) padded, or all labels one after the other (sum of ``target_lengths``,).
        input_lengths: (N,), how many of the T steps count.
        target_lengths: (N,), how many labels.
        blank: the class that stands for no label.
        reduction: the mean is of each loss divided by its target length.
        zero_infinity: a target too long for its input costs 0 instead of infinity.
    """
    reduction = _reduction(None, None, reduction)
    x = log_probs.array
    activation_ops.floating("ctc_loss", x)
    if x.ndim not in (2, 3):
        raise ShapeError(
            f"ctc_loss: log_probs must be (T, N, C) or (T, C), got size {list(x.shape)}"
        )
    single = x.ndim == 2
    if single:
        log_probs = log_probs.reshape((x.shape[0], 1, x.shape[1]))
        x = log_probs.array
    T, N, C = x.shape
    t = getattr(targets, "array", targets)
    t = t if isinstance(t, np.ndarray) else np.asarray(t)
    lengths, target_lengths = (
        np.atleast_1d(np.asarray(getattr(v, "array", v))) for v in (input_lengths, target_lengths)
    )
    if lengths.dtype.kind not in "iu" or target_lengths.dtype.kind not in "iu":
        raise RuntimeError("ctc_loss: input_lengths and target_lengths must be integral")
    if t.dtype.kind not in "iu":
        raise RuntimeError(f"ctc_loss: targets must be integral, not {t.dtype}")
    if not 0 <= blank < C:
        raise RuntimeError(f"ctc_loss: blank must be in label range, got {blank} of {C} labels")
    if lengths.shape != (N,) or target_lengths.shape != (N,):
        raise RuntimeError(
            f"ctc_loss: input_lengths and target_lengths must be of size batch_size {N}, got "
            f"{list(lengths.shape)} and {list(target_lengths.shape)}"
        )
    if (lengths < 0).any() or (lengths > T).any():
        raise RuntimeError(
            f"ctc_loss: expected input_lengths to have values between 0 and {T}, got {lengths}"
        )
    if (target_lengths < 0).any():
        raise RuntimeError(
            f"ctc_loss: expected target_lengths not to be negative, got {target_lengths}"
        )
    longest = int(target_lengths.max()) if N else 0
    if t.ndim == 2 or (single and t.ndim == 1):
        t = t.reshape(N, -1)
        if t.shape[1] < longest:
            raise RuntimeError(
                f"ctc_loss: expected targets to have size at least {longest} at dimension 1, got "
                f"{list(t.shape)}"
            )
        t = t[:, :longest]
    else:
        if t.size != target_lengths.sum():
            raise RuntimeError(
                f"ctc_loss: expected targets to be (sum of target_lengths,), got size {list(t.shape)}"
            )
        padded = np.full((N, longest), blank, t.dtype)
        padded[np.arange(longest) < target_lengths[:, None]] = t
        t = padded
    t = np.where(np.arange(longest) < target_lengths[:, None], t, 0).astype(np.int64)
    loss = ctc_ops.ctc_loss(log_probs, t, lengths, target_lengths, blank=blank)
    if zero_infinity:
        loss = where(loss.array == math.inf, 0.0, loss)
    if reduction == "mean":
        return (loss / wrap(np.maximum(target_lengths, 1).astype(x.dtype))).mean()
    if reduction == "sum":
        return loss.sum()
    return loss.reshape(()) if single else loss

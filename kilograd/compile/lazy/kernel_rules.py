"""What the library's kernels give, said of shapes: functions of a kernel's own arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.compile.lazy.rules import RULES, accumulation, blank, laid_out_like, on_zeros
from kilograd.kernels.conv import out_sizes
from kilograd.kernels.kernel import KERNELS, Untraceable
from kilograd.kernels.pool import pool_sizes


def _conv(
    x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int = 1, bias: Any = None
) -> Any:
    out = out_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return blank((len(x), len(w), *out), np.result_type(x, w))


def _max_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any = False
) -> Any:
    out = pool_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    return blank((*x.shape[:2], *out), x.dtype), blank((*x.shape[:2], *out), np.int64)


def _avg_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: Any = False, *rest: Any, **more: Any
) -> Any:
    out = pool_sizes(x.shape[2:], kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    return blank((*x.shape[:2], *out), x.dtype)


def _batch_norm(x: Any, w: Any, b: Any, eps: float) -> Any:
    return blank(x.shape, x.dtype), *[blank(x.shape[1:2], x.dtype) for _ in range(3)]


def _group_norm(x: Any, w: Any, b: Any, groups: int, eps: float) -> Any:
    rows = (len(x) * groups,)
    return blank(x.shape, x.dtype), blank(rows, x.dtype), blank(rows, x.dtype)


def _pad(x: Any, pads: Any, value: float) -> Any:
    shape = [n + a + b for (a, b), n in zip(pads, x.shape, strict=True)]
    if min(shape, default=0) < 0:
        raise Untraceable("a size")  # the kernel says what is wrong
    return blank(shape, x.dtype)


def _heads(q: Any, k: Any, v: Any, *masks: Any) -> tuple[int, ...]:
    """The shape before the last two dimensions that matrices are broadcast to."""
    masks = tuple([m for m in masks if m is not None])
    scores = (q.shape[-2], k.shape[-2])
    pairs = [pair for m in masks for pair in zip(m.shape[:-3:-1], scores[::-1], strict=False)]
    fit = all(n in (1, size) for n, size in pairs)
    if not fit or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise Untraceable("a size")  # the kernel says what is wrong
    return np.broadcast_shapes(*[a.shape[:-2] for a in (q, k, v, *masks)])


def _attention(q: Any, k: Any, v: Any, mask: Any, keep: Any, scale: float, is_causal: bool) -> Any:
    batch, L = _heads(q, k, v, mask, keep), q.shape[-2]
    return blank((*batch, L, v.shape[-1]), q.dtype), blank((*batch, L, k.shape[-2]), q.dtype)


def _attention_gradient(g: Any, q: Any, k: Any, v: Any, keep: Any, p: Any, scale: float) -> Any:
    return tuple([blank((*p.shape[:-2], *a.shape[-2:]), g.dtype) for a in (q, k, v, p)])


def _tiled(q: Any, k: Any, v: Any, mask: Any, keep: Any, scale: float, is_causal: bool) -> Any:
    batch, L = _heads(q, k, v, mask, keep), q.shape[-2]
    sums = [blank((*batch, L), q.dtype) for _ in range(2)]
    return blank((*batch, L, v.shape[-1]), q.dtype), *sums


def _lstm(
    gates: Any, h: Any, c: Any, w: Any, bias: Any, w_hr: Any, *, sizes: Any, reverse: Any
) -> Any:
    rows, dtype = len(gates), gates.dtype
    y, before = blank((rows, h.shape[1]), dtype), blank((rows, h.shape[1]), dtype)
    cells = [blank((rows, c.shape[1]), dtype) for _ in range(2)]
    return (y, np.empty_like(h), np.empty_like(c)), blank(gates.shape, dtype), before, *cells


def _recurrent(residuals: int) -> Any:
    def rule(gates: Any, h: Any, w: Any, bias: Any, **options: Any) -> Any:
        rows = (len(gates), h.shape[1])
        more = [blank(rows, gates.dtype) for _ in range(residuals)]
        return (blank(rows, gates.dtype), np.empty_like(h)), blank(gates.shape, gates.dtype), *more

    return rule


def _float_like(fn: Any) -> Any:
    """A kernel that works element by element on floats."""
    return lambda x: (
        laid_out_like(x.shape, x.dtype, x) if x.dtype.kind == "f" else on_zeros(fn, (x,), {})
    )


_ONE_BY_ONE = (
    "digamma", "erf", "erfc", "erfcx", "erfinv", "i0", "i0e", "i1", "i1e", "lgamma", "log_ndtr", "ndtr",
    "ndtri",
)  # fmt: skip


def _kernel_rules() -> None:
    of_x: Any = lambda x, *args, **kwargs: blank(x.shape, x.dtype)  # noqa: E731
    shaped: Any = lambda g, w, shape, *rest, **more: blank(shape, np.result_type(g, w))  # noqa: E731
    rules: dict[str, Any] = {
        "conv_forward": _conv, "conv_input_grad": shaped, "conv_weight_grad": shaped,
        "max_pool_forward": _max_pool, "avg_pool_forward": _avg_pool, "batch_norm": _batch_norm,
        "avg_pool_backward": lambda g, shape, *rest, **more: blank(shape, g.dtype),
        "adaptive_avg_pool_backward": lambda g, shape: blank(shape, g.dtype),
        "pool_scatter": lambda g, indices, shape: blank(shape, g.dtype),
        "pool_gather": lambda x, indices: blank(indices.shape, x.dtype),
        "adaptive_avg_pool_forward":
            lambda x, size: blank((*x.shape[:2], *size), x.dtype),
        "adaptive_max_pool_forward":
            lambda x, size: (blank((*x.shape[:2], *size), x.dtype), blank((*x.shape[:2], *size), np.int64)),
        "batch_norm_gradient":
            lambda g, x, w, mean, r: (blank(x.shape, x.dtype), blank(mean.shape, x.dtype),
                                      blank(mean.shape, x.dtype)),
        "softmax": of_x, "log_softmax": of_x, "softmax_gradient": of_x, "log_softmax_gradient": of_x,
        "scaled_gradient": of_x,
        "embedding": lambda w, indices: blank((*indices.shape, *w.shape[1:]), w.dtype),
        "layer_norm": lambda x, w, b, eps: (
            blank(x.shape, x.dtype), blank(x.shape[:1], x.dtype), blank(x.shape[:1], x.dtype)),
        "layer_norm_gradient": lambda g, x, w, mean, r: (
            blank(x.shape, x.dtype), blank(x.shape[1:], x.dtype), blank(x.shape[1:], x.dtype)),
        "rms_norm": lambda x, w, eps: (blank(x.shape, x.dtype), blank(x.shape[:1], x.dtype)),
        "rms_norm_gradient": lambda g, x, w, r: (blank(x.shape, x.dtype), blank(x.shape[1:], x.dtype)),
        "group_norm": _group_norm,
        "group_norm_gradient": lambda g, x, w, mean, r, groups: (
            blank(x.shape, x.dtype), blank(x.shape[1:2], x.dtype), blank(x.shape[1:2], x.dtype)),
        "attention": _attention, "attention_gradient": _attention_gradient, "tiled_attention": _tiled,
        "tiled_attention_gradient": lambda g, q, k, v, mask, keep, y, *rest: tuple(
            [blank((*y.shape[:-2], *a.shape[-2:]), g.dtype) for a in (q, k, v)]),
        "cross_entropy_gradient": lambda g, e, *rest: blank(e.shape, e.dtype),
        "nll_loss_gradient": lambda g, shape, *rest: blank(shape, g.dtype),
        "lstm": _lstm, "gru": _recurrent(2), "rnn": _recurrent(1), "pad_constant": _pad,
        "cumsum": lambda x, axis, reverse=False: accumulation(np.cumsum)(x, axis),
        "scatter_add": lambda shape, axis, index, src, x=None, refused=None: blank(shape, src.dtype),
        **{name: _float_like(KERNELS[name]) for name in _ONE_BY_ONE},
        "put_zeros": lambda x, shape, index: blank(shape, x.dtype),
        "put_mask": lambda v, mask: blank(mask.shape, v.dtype),
        "put_diagonal": lambda v, shape, *rest: blank(shape, v.dtype),
        "index_put_add": lambda shape, index, values: blank(shape, values.dtype),
        "scatter_zeros": lambda v, index, shape, axis: blank(shape, v.dtype),
        "scatter": lambda x, v, index, axis: blank(x.shape, x.dtype),
        "embedding_grad": lambda g, indices, V, padding_idx=None: blank((V, g.shape[-1]), g.dtype),
        "in_range": lambda *args, **kwargs: None, "demand": lambda *args, **kwargs: None,
    }  # fmt: skip
    for name, rule in rules.items():
        RULES[KERNELS[name]] = rule


_kernel_rules()

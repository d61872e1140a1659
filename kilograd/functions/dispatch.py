"""NumPy's functions and ufuncs called on tensors, with NumPy's meaning.

Where no gradient is at stake NumPy computes on the arrays and its results become tensors. On tensors
that require grad a function is ours from the table below, which takes NumPy's arguments, or refused:
never a silent detach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import functions as f
from kilograd.functions.calling import tensor_like
from kilograd.ops.elementwise import BY_UFUNC
from kilograd.ops.linalg import matmul
from kilograd.tensor import Tensor, apply, wrap


def _all(xs: Any) -> list[Tensor]:
    return [tensor_like(x) for x in xs]


def _reduction(fn: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return fn(a, dim=axis, keepdim=keepdims)

    return reduce


def _spread(fn: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
        return fn(a, axis, correction=ddof, keepdim=keepdims)

    return reduce


def _prod(a: Tensor, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return f.prod(a) if axis is None and not keepdims else f.prod(a, axis, keepdims)


def _scan(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, axis=None: fn(a.reshape(-1), 0) if axis is None else fn(a, axis)


def _flip(m: Tensor, axis: Any = None) -> Any:
    axis = range(m.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return f.flip(m, tuple(axis))


def _split(ary: Tensor, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if isinstance(indices_or_sections, int) and ary.shape[axis] % indices_or_sections:
        raise ValueError("array split does not result in an equal division")
    return list(f.tensor_split(ary, indices_or_sections, axis))


def _take(a: Tensor, indices: Any, axis: int | None = None) -> Any:
    if axis is None:
        return a.reshape(-1)[indices]
    return a[(*(slice(None),) * (axis % a.ndim), indices)]


def _repeat(a: Tensor, repeats: Any, axis: int | None = None) -> Any:
    return f.repeat_interleave(a, repeats, axis)


def _transpose(a: Tensor, axes: Any = None) -> Any:
    return f.permute(a, tuple(range(a.ndim))[::-1] if axes is None else axes)


def _dot(a: Any, b: Any) -> Any:
    a, b = _all((a, b))
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return f.matmul(a, b) if b.ndim <= 2 else f.tensordot(a, b, ([a.ndim - 1], [b.ndim - 2]))


_DIFFERENTIABLE: dict[Any, Callable[..., Any]] = {
    np.sum: _reduction(f.sum), np.mean: _reduction(f.mean), np.prod: _prod,
    np.max: _reduction(f.amax), np.amax: _reduction(f.amax),
    np.min: _reduction(f.amin), np.amin: _reduction(f.amin),
    np.var: _spread(f.var), np.std: _spread(f.std),
    np.nansum: _reduction(f.nansum), np.nanmean: _reduction(f.nanmean),
    np.cumsum: _scan(f.cumsum), np.cumprod: _scan(f.cumprod),
    np.sort: lambda a, axis=-1: f.sort(a, axis)[0],
    np.quantile: lambda a, q, axis=None, keepdims=False: f.quantile(a, q, axis, keepdims),
    np.diff: lambda a, n=1, axis=-1: f.diff(a, n, axis),
    np.clip: lambda a, a_min=None, a_max=None: f.clamp(a, a_min, a_max),
    np.where: lambda condition, x, y: f.where(tensor_like(condition), x, y),
    np.nan_to_num: lambda x, nan=0.0, posinf=None, neginf=None: f.nan_to_num(x, nan, posinf, neginf),
    np.round: lambda a, decimals=0: f.round(a, decimals=decimals),
    np.sinc: lambda x: f.sinc(x), np.i0: lambda x: f.i0(x), np.real: lambda val: f.real(val),
    np.copy: lambda a: f.clone(a),
    # shapes
    np.reshape: lambda a, shape: f.reshape(a, (shape,) if isinstance(shape, int) else shape),
    np.ravel: lambda a: a.reshape(-1), np.transpose: _transpose,
    np.swapaxes: lambda a, axis1, axis2: f.transpose(a, axis1, axis2),
    np.moveaxis: lambda a, source, destination: f.movedim(a, source, destination),
    np.squeeze: lambda a, axis=None: f.squeeze(a) if axis is None else f.squeeze(a, axis),
    np.expand_dims: lambda a, axis: f.unsqueeze(a, axis),
    np.broadcast_to: lambda array, shape: f.broadcast_to(array, shape),
    np.atleast_1d: lambda a: f.atleast_1d(a), np.atleast_2d: lambda a: f.atleast_2d(a),
    np.flip: _flip, np.fliplr: lambda m: f.fliplr(m), np.flipud: lambda m: f.flipud(m),
    np.roll: lambda a, shift, axis=None: f.roll(a, shift, () if axis is None else axis),
    np.rot90: lambda m, k=1, axes=(0, 1): f.rot90(m, k, axes),
    np.tile: lambda A, reps: f.tile(A, (reps,) if isinstance(reps, int) else reps),
    np.repeat: _repeat, np.take: _take, np.split: _split,
    np.array_split: lambda ary, n, axis=0: list(f.tensor_split(ary, n, axis)),
    np.concatenate: lambda xs, axis=0: f.cat([x.reshape(-1) for x in _all(xs)])
    if axis is None else f.cat(_all(xs), axis),
    np.stack: lambda arrays, axis=0: f.stack(_all(arrays), axis),
    np.vstack: lambda tup: f.vstack(_all(tup)), np.hstack: lambda tup: f.hstack(_all(tup)),
    np.dstack: lambda tup: f.dstack(_all(tup)), np.column_stack: lambda tup: f.column_stack(_all(tup)),
    np.diag: lambda v, k=0: f.diag(v, k),
    np.diagonal: lambda a, offset=0, axis1=0, axis2=1: f.diagonal(a, offset, axis1, axis2),
    np.tril: lambda m, k=0: f.tril(m, k), np.triu: lambda m, k=0: f.triu(m, k),
    # products
    np.dot: _dot, np.outer: lambda a, b: f.outer(tensor_like(a).reshape(-1), tensor_like(b).reshape(-1)),
    np.inner: lambda a, b: f.inner(*_all((a, b))), np.kron: lambda a, b: f.kron(*_all((a, b))),
    np.tensordot: lambda a, b, axes=2: f.tensordot(*_all((a, b)), axes),
    np.einsum: lambda subscripts, *operands: f.einsum(subscripts, *_all(operands)),
    np.trace: lambda a, offset=0: f.diagonal(a, offset).sum(-1),
    np.linalg.inv: lambda a: f.inverse(a), np.linalg.det: lambda a: f.det(a),
    np.linalg.matrix_power: lambda a, n: f.matrix_power(a, n),
}  # fmt: skip

_WITHOUT_GRADIENT = {  # their results are places, numbers of things, truths, or new constants
    np.zeros_like, np.ones_like, np.full_like, np.empty_like, np.shape, np.ndim, np.size, np.argmax,
    np.argmin, np.argsort, np.argwhere, np.nonzero, np.flatnonzero, np.count_nonzero, np.searchsorted,
    np.all, np.any, np.allclose, np.isclose, np.array_equal, np.result_type, np.can_cast, np.isposinf,
    np.isneginf, np.iscomplexobj, np.isrealobj, np.may_share_memory, np.shares_memory, np.array_repr,
    np.array_str, np.array2string,
}  # fmt: skip


def numpy_function(func: Any, args: Any, kwargs: Any) -> Any:
    """``np.func(tensor, …)``: ours where a gradient flows, else NumPy's."""
    if func not in _WITHOUT_GRADIENT and _requires_grad((args, kwargs)):
        ours = _DIFFERENTIABLE.get(func)
        if ours is None:
            raise TypeError(
                f"np.{func.__name__} has no derivative in kilograd and would drop the graph: use "
                "kilograd's own function, or detach() the tensor first"
            )
        return ours(*args, **kwargs)
    return _wrapped(func(*_arrays(args), **_arrays(kwargs)))


def _requires_grad(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.requires_grad
    if isinstance(x, dict):
        return _requires_grad(tuple(x.values()))
    return isinstance(x, (list, tuple)) and any(map(_requires_grad, x))


def _arrays(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.array
    if isinstance(x, dict):
        return {k: _arrays(v) for k, v in x.items()}
    return type(x)(map(_arrays, x)) if type(x) in (list, tuple) else x


def _wrapped(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x) if isinstance(x, np.generic) else x
        return wrap(x) if x.dtype.kind in "biufc" else x
    return type(x)(map(_wrapped, x)) if type(x) in (list, tuple) else x


def numpy_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: dict[str, Any]) -> Any:
    """``ufunc`` (or its ``method``) on tensors: our op of the same meaning, where there is one."""
    op = BY_UFUNC.get(ufunc)
    if method == "__call__" and op is not None and not kwargs:
        return apply(op, inputs)
    if ufunc is np.matmul and method == "__call__" and not kwargs:
        return apply(matmul, inputs)
    if "out" in kwargs or any(isinstance(a, Tensor) and a.requires_grad for a in inputs):
        raise TypeError(
            f"np.{ufunc.__name__}{'' if method == '__call__' else '.' + method} on a tensor has "
            "no derivative here: use kilograd's own function, or detach() first"
        )
    arrays = [a.array if isinstance(a, Tensor) else a for a in inputs]
    result = getattr(ufunc, method)(*arrays, **kwargs)
    if type(result) is tuple:
        return tuple(wrap(np.asarray(r)) for r in result)
    return wrap(np.asarray(result))

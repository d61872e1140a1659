"""What NumPy functions give, said of shapes and dtypes: ufuncs broadcast, reductions drop axes.

A rule takes the arguments of its function, with arrays whose memory is never touched, and gives such
arrays. Views are really taken. Errors are the ones that NumPy raises: it is called on one element,
broadcast. Rules for the library's own kernels: ``kernel_rules.py``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.compile.graph import cast, follow, leaves, mapped, put, put_view
from kilograd.errors import TraceError
from kilograd.kernels.kernel import TRACE, Untraceable

Array = Any
_ONE = np.ones(())


def blank(shape: Any, dtype: Any) -> Array:
    """An array whose memory is never touched."""
    return np.empty(tuple(shape), dtype)


def fits(shape: Any, into: Any) -> None:
    """Raise NumPy's error if values of a shape cannot be written into another one."""
    shape = tuple(shape)
    while len(shape) > len(into) and shape[0] == 1:
        shape = shape[1:]
    np.broadcast_to(_ONE, shape)
    if np.broadcast_shapes(shape, into) != tuple(into):
        raise ValueError(f"could not broadcast input array from shape {shape} into shape {into}")


# --- where no rule is known -------------------------------------------------------------------------


def _zeros(x: Any, ones: bool = False) -> Any:
    """Values with which most functions go through: zeros, diagonal matrices where there are squares."""
    if isinstance(x, random.Generator):
        return random.Generator()
    if type(x) is not np.ndarray:
        return x
    y = np.full(x.shape, ones, x.dtype) if x.dtype.kind in "biu" else np.zeros(x.shape, x.dtype)
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2] and x.dtype.kind in "fc":
        y[...] = np.diag(np.arange(1.0, x.shape[-1] + 1))
    return y


def on_zeros(fn: Any, args: Any, kwargs: Any) -> Any:
    """Run a function for the shapes of its results; nothing drawn counts.

    Raises:
        TraceError: other values in a mask or an array of integers give another shape.
    """
    token = TRACE.set(None)
    state = random.default_generator.get_state()
    try:
        result = fn(*mapped(_zeros, args), **mapped(_zeros, kwargs))
        if any(type(x) is np.ndarray and x.dtype.kind in "biu" for x in leaves((args, kwargs))):
            ones = lambda x: _zeros(x, ones=True)  # noqa: E731
            try:
                other = fn(*mapped(ones, args), **mapped(ones, kwargs))
            except Exception:  # ones may be no such indices
                return result
            if [np.shape(x) for x in leaves(result)] != [np.shape(x) for x in leaves(other)]:
                raise TraceError(
                    "the shape of a result depends on the values of a mask or of integers"
                )
        return result
    finally:
        random.default_generator.set_state(state)
        TRACE.reset(token)


# --- rules ------------------------------------------------------------------------------------------


def tiny(x: Any) -> Any:
    """One element, for the dtype of a result: under NumPy 2 it does not hang on values."""
    return np.ones((), x.dtype) if type(x) is np.ndarray else x


def laid_out_like(shape: Any, dtype: Any, *arrays: Any) -> Array:
    """A new array laid out as an elementwise function lays out its result."""
    for a in arrays:
        if type(a) is np.ndarray and a.ndim > 1 and a.shape == shape:
            return np.empty_like(a, dtype=dtype)
    return blank(shape, dtype)


def _elementwise(fn: Any) -> Callable[..., Any]:
    """``fn`` of arrays that are broadcast; the dtype is that of one element."""

    def rule(*args: Any, **kwargs: Any) -> Any:
        arrays = [a if type(a) is np.ndarray else np.asarray(a) for a in args]
        try:
            shape = np.broadcast_shapes(*[a.shape for a in arrays])
        except ValueError:
            fn(*[np.broadcast_to(tiny(a), a.shape) for a in arrays], **kwargs)  # NumPy's error
            raise
        where = kwargs.get("where")
        if type(where) is np.ndarray:
            kwargs["where"] = True
        result = fn(*[tiny(a) for a in args], **kwargs)
        if type(result) is tuple:
            return tuple([laid_out_like(shape, r.dtype, *arrays) for r in result])
        return laid_out_like(shape, result.dtype, *arrays)

    return rule


def _reduction(fn: Any, axis: Any = None) -> Callable[..., Any]:
    """``fn(x, axis, ..., keepdims)``; ``axis`` is the default of its second argument."""

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        x = np.asarray(x)
        where = args[0] if args else kwargs.get("axis", axis)
        kept = {k: True if k == "where" else v for k, v in kwargs.items()}
        small = fn(np.ones((1,) * x.ndim, x.dtype), *args, **kept)
        every = where is None
        axes = (
            range(x.ndim) if every else {operator.index(a) % max(x.ndim, 1) for a in _axes(where)}
        )
        if not x.size and all(x.shape[a] == 0 for a in axes if a < x.ndim):
            fn(np.ones(x.shape, x.dtype), *args, **kept)  # a maximum of nothing raises
        if kwargs.get("keepdims") or (small.ndim == x.ndim and x.ndim and not every):
            shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
        else:
            shape = tuple([n for i, n in enumerate(x.shape) if i not in axes])
        return blank(shape, small.dtype)

    return rule


def _axes(axis: Any) -> Any:
    return axis if isinstance(axis, (tuple, list)) else (axis,)


def accumulation(fn: Any) -> Callable[..., Any]:
    """``fn(x, axis)`` gives as much as it is given; without an axis, flat."""

    def rule(x: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        small = fn(np.ones((1,) * x.ndim, x.dtype), axis, *args, **kwargs)
        return blank((x.size,) if axis is None else x.shape, small.dtype)

    return rule


def _accumulated(fn: Any) -> Callable[..., Any]:
    rule = accumulation(fn)
    return lambda x, axis=0, *args, **kwargs: rule(x, axis, *args, **kwargs)


def rule_of_ufunc(fn: Any) -> Callable[..., Any] | None:
    """The rule of a ufunc, or of its ``reduce`` or ``accumulate``."""
    if isinstance(fn, np.ufunc):
        return _elementwise(fn) if fn.signature is None else None
    if fn.__name__ == "reduce":
        return _reduction(fn, 0)
    return _accumulated(fn) if fn.__name__ == "accumulate" else None


def _matmul(a: Any, b: Any, **kwargs: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    dtype = np.matmul(np.ones((1, 1), a.dtype), np.ones((1, 1), b.dtype), **kwargs).dtype
    left = a.shape if a.ndim != 1 else (1, *a.shape)
    right = b.shape if b.ndim != 1 else (*b.shape, 1)
    if not (a.ndim and b.ndim) or left[-1] != right[-2]:
        np.matmul(*[np.broadcast_to(tiny(x), x.shape) for x in (a, b)])  # NumPy's error
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    rows, columns = left[-2:-1] if a.ndim > 1 else (), right[-1:] if b.ndim > 1 else ()
    return blank((*batch, *rows, *columns), dtype)


def _dot(a: Any, b: Any) -> Any:
    if a.ndim <= 1 or b.ndim <= 2:
        return _matmul(a, b) if a.ndim and b.ndim else _elementwise(np.multiply)(a, b)
    if a.shape[-1] != b.shape[-2]:
        np.dot(np.broadcast_to(tiny(a), a.shape), np.broadcast_to(tiny(b), b.shape))
    return blank((*a.shape[:-1], *b.shape[:-2], b.shape[-1]), np.result_type(a, b))


def _reshape(x: Any, shape: Any, **kwargs: Any) -> Any:
    if x.flags.c_contiguous:
        return np.reshape(x, shape)
    size = np.reshape(np.broadcast_to(tiny(x), x.shape), shape).shape
    try:
        return np.reshape(x, shape, copy=False)
    except (ValueError, TypeError):  # (NumPy 2.0 has no copy=)
        return blank(size, x.dtype)


def _getitem(x: Any, index: Any) -> Any:
    parts = index if type(index) is tuple else (index,)
    if any(isinstance(i, np.ndarray) or type(i) is list for i in parts):
        light = np.broadcast_to(np.ones((), np.int8), x.shape)
        return blank(light[mapped(_nowhere, index)].shape, x.dtype)
    return x[index]


def _nowhere(i: Any) -> Any:
    """An index array without values: the first element every time."""
    if type(i) is np.ndarray and i.dtype.kind == "b":
        raise Untraceable("a mask")
    return np.zeros(i.shape, i.dtype) if type(i) is np.ndarray else i


def _shape_of(like: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None,
              **kwargs: Any) -> Any:  # fmt: skip
    return laid_out_like(like.shape if shape is None else shape, dtype or like.dtype, like)


def _concatenate(arrays: Any, axis: Any = 0, **kwargs: Any) -> Any:
    arrays = [np.asarray(a) for a in arrays]
    dtype = np.concatenate([a.ravel() if a.ndim == 0 else np.ones(1, a.dtype) for a in arrays],
                           **kwargs).dtype  # fmt: skip
    if axis is None:
        return blank((sum(a.size for a in arrays),), dtype)
    first = arrays[0].shape
    axis = axis + len(first) if axis < 0 else axis
    rest = {(a.ndim, a.shape[:axis], a.shape[axis + 1 :]) for a in arrays}
    if len(rest) > 1 or not 0 <= axis < len(first):
        np.concatenate([np.broadcast_to(tiny(a), a.shape) for a in arrays], axis)  # NumPy's error
    total = sum(a.shape[axis] for a in arrays)
    return blank((*first[:axis], total, *first[axis + 1 :]), dtype)


def _stack(arrays: Any, axis: int = 0, **kwargs: Any) -> Any:
    arrays = [np.asarray(a) for a in arrays]
    if len({a.shape for a in arrays}) != 1:
        np.stack([np.broadcast_to(tiny(a), a.shape) for a in arrays], axis)  # NumPy's error
    small = np.stack([np.ones((1,) * a.ndim, a.dtype) for a in arrays], axis, **kwargs)
    shape = list(arrays[0].shape)
    shape.insert(axis % small.ndim, len(arrays))
    return blank(shape, small.dtype)


def _einsum(equation: Any, *arrays: Any, **kwargs: Any) -> Any:
    light = [np.broadcast_to(tiny(a), a.shape) for a in arrays]
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return np.einsum(equation, *light, **kwargs)
    terms, out = equation.replace(" ", "").split("->")
    size: dict[str, int] = {}
    for term, a in zip(terms.split(","), arrays, strict=True):
        if len(term) != a.ndim or any(size.setdefault(c, n) != n and 1 not in (size[c], n)
                                      for c, n in zip(term, a.shape, strict=True)):  # fmt: skip
            return np.einsum(equation, *light, **kwargs)  # NumPy's error
        size.update({c: max(size[c], n) for c, n in zip(term, a.shape, strict=True) if n > 1})
    if len(arrays) == 1 and sorted(out) == sorted(terms):
        return np.einsum(equation, *arrays)  # a view
    return blank([size[c] for c in out], np.result_type(*arrays))


def _where(condition: Any, *choices: Any) -> Any:
    if not choices:
        raise TraceError("the shape of the result of where(condition) depends on values")
    x, y = choices
    dtype = np.where(np.ones((), bool), tiny(x), tiny(y)).dtype
    return laid_out_like(
        np.broadcast_shapes(*map(np.shape, (condition, x, y))), dtype, condition, x, y
    )


def _same(fn: Any) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: laid_out_like(np.shape(x), x.dtype, x)


def _copied(x: Any, order: str = "C", *args: Any, **kwargs: Any) -> Any:
    return blank(x.shape, x.dtype) if order == "C" else np.empty_like(x)


def _cast(x: Any, dtype: Any) -> Any:
    return laid_out_like(x.shape, np.dtype(dtype), x)


def _along(x: Any, indices: Any, axis: Any = -1) -> Any:
    if axis is None:
        return blank(indices.shape, x.dtype)
    axis = axis % x.ndim
    flat = list(x.shape)
    flat[axis] = indices.shape[axis] if indices.ndim == x.ndim else 1
    if indices.ndim != x.ndim:
        return np.take_along_axis(x, indices, axis)  # NumPy's error
    return blank(np.broadcast_shapes(tuple(flat), indices.shape), x.dtype)


def _take(x: Any, indices: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
    where = np.shape(indices)
    if axis is None:
        return blank(where, x.dtype)
    axis = axis % x.ndim
    return blank((*x.shape[:axis], *where, *x.shape[axis + 1 :]), x.dtype)


def _repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    if isinstance(repeats, np.ndarray):
        raise TraceError("the shape of the result of repeat(tensor) depends on values")
    light = np.broadcast_to(np.ones((), np.int8), x.shape)
    if np.ndim(repeats):
        return blank(np.repeat(light, repeats, axis).shape, x.dtype)
    if axis is None:
        return blank((x.size * repeats,), x.dtype)
    shape = list(x.shape)
    shape[axis] *= operator.index(repeats)
    return blank(shape, x.dtype)


def put_rule(x: Any, index: Any, values: Any) -> Any:
    """``x`` with other values at an index, if they fit there."""
    if not any(type(i) is np.ndarray and i.dtype.kind == "b" for i in leaves(index)):
        fits(np.shape(values), _getitem(x, index).shape)
    return np.empty_like(x)


def _put_view(x: Any, values: Any, path: Any) -> Any:
    fits(np.shape(values), np.shape(follow(path, x)))
    return np.empty_like(x)


_VIEWS = (
    np.transpose, np.swapaxes, np.moveaxis, np.broadcast_to, np.squeeze, np.expand_dims, np.real,
    np.imag, np.flip, np.diagonal, np.rollaxis, np.broadcast_arrays, np.ndarray.swapaxes,
    np.ndarray.squeeze, np.ndarray.diagonal, np.ndarray.view, np.atleast_1d, np.split,
    np.array_split,
)  # fmt: skip

RULES: dict[Any, Callable[..., Any]] = {
    **{fn: fn for fn in _VIEWS},
    np.matmul: _matmul, operator.matmul: _matmul, np.dot: _dot, np.ndarray.dot: _dot,
    np.reshape: _reshape, operator.getitem: _getitem, np.concatenate: _concatenate, np.stack: _stack,
    np.einsum: _einsum, np.where: _where, cast: _cast, np.copy: _copied,
    np.ndarray.copy: _copied, np.take_along_axis: _along, np.take: _take, np.ndarray.take: _take,
    np.repeat: _repeat, np.ndarray.repeat: _repeat, put: put_rule, put_view: _put_view,
    operator.pow: _elementwise(operator.pow), operator.neg: _elementwise(operator.neg),
    operator.abs: _elementwise(operator.abs),
    **dict.fromkeys((np.empty_like, np.zeros_like, np.ones_like), _shape_of),
    np.full_like: lambda like, value, *args, **kwargs: _shape_of(like, *args, **kwargs),
    **{fn: _same(fn) for fn in (np.sort, np.tril, np.triu, np.roll, np.nan_to_num, np.ascontiguousarray)},
    **{fn: lambda x, axis=-1, *a, **k: blank((x.size,) if axis is None else x.shape, np.int64)
       for fn in (np.argsort, np.ndarray.argsort)},
    **{fn: _elementwise(fn) for fn in (np.clip, np.ndarray.clip, np.round, np.ndarray.round,
                                       np.ndarray.conj, np.ndarray.conjugate)},
    **{fn: _reduction(fn) for fn in (
        np.sum, np.mean, np.max, np.min, np.amax, np.amin, np.prod, np.all, np.any, np.argmax,
        np.argmin, np.var, np.std, np.ndarray.sum, np.ndarray.mean, np.ndarray.max, np.ndarray.min,
        np.ndarray.prod, np.ndarray.all, np.ndarray.any, np.ndarray.argmax, np.ndarray.argmin,
    )},
    **{fn: accumulation(fn) for fn in (np.cumsum, np.cumprod, np.ndarray.cumsum, np.ndarray.cumprod)},
}  # fmt: skip

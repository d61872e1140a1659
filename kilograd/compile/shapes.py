"""Shapes and dtypes of results, found without computing: an op runs on arrays that have no values.

A :class:`Shaped` array knows its shape, dtype and layout. Its memory is reserved and never touched,
which costs nothing; views are really taken. Each NumPy function that meets one is answered by a
rule: ufuncs broadcast, reductions drop axes, kernels say their shape by a formula. Where no rule is
known, the function runs once on zeros of the right shapes. Errors are the ones that NumPy raises.

Read next: ``compile/lazy.py``.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.compile.graph import Var, cast, follow, leaves, mapped, put, put_view
from kilograd.compile.tracer import Recording, Tracer, concrete
from kilograd.errors import TraceError
from kilograd.kernels.conv import out_sizes
from kilograd.kernels.kernel import KERNELS, TRACE, Untraceable
from kilograd.kernels.pool import pool_sizes
from kilograd.ops.op import REGISTRY

Array = Any
_ONE = np.ones(())
_NO_VAR = Var("_", (), None)  # nothing is written down


def blank(shape: Any, dtype: Any) -> Array:
    """An array whose memory is never touched."""
    return np.empty(tuple(shape), dtype)


def infer(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[int]]:
    """What ``fn(*args, **kwargs)`` gives, as arrays without values.

    Args:
        fn: a pure function of arrays, or one that writes into arrays it is given.
        args, kwargs: nested structures, the arrays in them without values (``np.empty``).

    Returns:
        The structure of results, and which of the arrays (counted as ``leaves`` finds them in
        ``(args, kwargs)``) are written to.

    Raises:
        Exception: what ``fn`` raises for these shapes and dtypes.

    >>> infer(lambda a, b: np.tanh(a @ b).sum(axis=0), (np.empty((4, 3)), np.empty((3, 2))), {})[0].shape
    (2,)
    """
    shapes = Shapes()
    given: list[Any] = []

    def stand_in(x: Any) -> Any:
        given.append(Shaped(shapes, x, _NO_VAR) if type(x) is np.ndarray else x)
        return given[-1]

    shaped_args, shaped_kwargs = mapped(stand_in, (args, kwargs))
    token = TRACE.set(shapes)
    try:
        with np.errstate(all="ignore"):
            try:
                result = shapes.record(fn, shaped_args, shaped_kwargs)
            except Untraceable:  # a rule that leaves a case to the kernel
                result = _on_zeros(fn, args, kwargs)
    finally:
        TRACE.reset(token)
    written = {id(x) for x in shapes.written}
    return _plain(result), [i for i, x in enumerate(given) if id(x) in written]


def _plain(result: Any) -> Any:
    return mapped(
        lambda x: np.asarray(x) if isinstance(x, np.generic) else concrete(x),
        result,
    )


class Shaped(Tracer):
    """An array without values."""

    __slots__ = ()

    def __setitem__(self, index: Any, values: Any) -> None:
        _put(self.value, mapped(concrete, index), concrete(values))
        self.trace.wrote(self)  # type: ignore[attr-defined]

    def __contains__(self, value: Any) -> bool:
        raise self.trace.untraceable("in")


class Shapes(Recording):
    """A recording of which nothing is kept but shapes."""

    recording = True

    def __init__(self) -> None:
        super().__init__()
        self.open = False  # tensors hand out their arrays as they are
        self.written: list[Any] = []

    def wrote(self, x: Shaped) -> None:
        """Note that the memory of an array is written to."""
        self.written.append(x.root)

    def cannot(self, what: str) -> None:
        raise self.untraceable(what)

    def value_of(self, x: Any, what: str) -> Any:
        raise self.untraceable(what)

    def to_number(self, x: Any) -> Any:
        raise self.untraceable("a number")

    def record(self, fn: Any, args: Any, kwargs: Any, effect: bool = False) -> Any:
        """The result of a function, by its rule if there is one."""
        rule = _RULES.get(fn)
        if rule is None and isinstance(getattr(fn, "__self__", fn), np.ufunc):
            rule = _of_ufunc(fn)
        plain = mapped(concrete, args), mapped(concrete, kwargs)
        if rule is not None:
            result = rule(*plain[0], **plain[1])
        else:
            inner = getattr(fn, "__wrapped__", None) if KERNELS.get(_name(fn)) is fn else fn
            if inner is None or getattr(inner, "__module__", "").startswith("numpy"):
                return self.wrapped(_on_zeros(fn, *plain), args)
            before = len(self.written)
            try:  # the library's own code: look inside
                return inner(*args, **kwargs)
            except TraceError:
                raise
            except Exception:  # it asks for values; or the shapes do not fit, which zeros will show
                del self.written[before:]
                if any(op.forward is fn for op in REGISTRY.values() if op.view):
                    return self.wrapped(fn(*plain[0], **plain[1]), args)
                return self.wrapped(_on_zeros(fn, *plain), args)
        return self.wrapped(result, args)

    def wrapped(self, result: Any, args: Any) -> Any:
        """Results as arrays without values; a view remembers whose memory it looks at."""
        given = [a for a in leaves(args) if isinstance(a, Shaped)]

        def one(x: Any) -> Any:
            if isinstance(x, np.generic):
                x = np.asarray(x)
            if type(x) is not np.ndarray:
                return x
            for a in given:
                if x is a.value:
                    return a
            new = Shaped(self, x, _NO_VAR)
            for a in given:
                if x.base is not None and (x.base is a.value or x.base is a.value.base):
                    new._root = a.root
                    break
            return new

        return mapped(one, result)

    def record_into(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """``fn(*args, out=array)``."""
        out = kwargs.pop("out")
        out = out[0] if type(out) is tuple else out
        if not isinstance(out, Shaped):
            raise self.untraceable("writing into an array that has values")
        result = self.record(fn, args, kwargs)
        if tuple(result.shape) != out.value.shape:
            _fits(result.shape, out.value.shape)
        if not np.can_cast(result.dtype, out.value.dtype, "same_kind"):
            tiny = [_tiny(concrete(a)) for a in args]
            fn(*tiny, out=np.ones((), out.value.dtype))  # raises NumPy's own error
        self.wrote(out)
        return out

    def copy_to(self, to: Any, source: Any, casting: str = "same_kind", where: Any = True) -> None:
        """``np.copyto``."""
        if not isinstance(to, Shaped):
            raise self.untraceable("writing into an array that has values")
        _fits(np.shape(concrete(source)), to.value.shape)
        self.wrote(to)

    # --- what an op may ask of a recording ----------------------------------------------------------

    def opaque(self, fn: Any, args: Any, kwargs: Any, name: str) -> Any:
        """An op inside of an op that needs values."""
        return self.wrapped(_on_zeros(fn, mapped(concrete, args), mapped(concrete, kwargs)), args)

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers that nobody draws."""
        given = inspect.signature(fn).bind(generator, *args, **kwargs)
        given.apply_defaults()
        size, dtype = given.arguments.get("size"), given.arguments.get("dtype")
        for a in given.arguments.values():
            if isinstance(a, Shaped) and dtype is None:
                size, dtype = a.value.shape if size is None else size, a.value.dtype
        if size is not None and dtype is not None:
            shape = (size,) if np.ndim(size) == 0 else size
            return Shaped(self, blank(map(operator.index, shape), dtype), _NO_VAR)
        plain = mapped(concrete, args), mapped(concrete, kwargs)
        return self.wrapped(_on_zeros(fn, (random.Generator(), *plain[0]), plain[1]), args)


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", "")


def _fits(shape: Any, into: Any) -> None:
    """Raise NumPy's error if values of a shape cannot be written into another one."""
    shape = tuple(shape)
    while len(shape) > len(into) and shape[0] == 1:
        shape = shape[1:]
    np.broadcast_to(_ONE, shape)
    if np.broadcast_shapes(shape, into) != tuple(into):
        raise ValueError(f"could not broadcast input array from shape {shape} into shape {into}")


# --- where no rule is known -------------------------------------------------------------------------


def _zeros(x: Any, mask: bool = False) -> Any:
    """Values with which most functions go through: zeros, diagonal matrices where there are squares."""
    if type(x) is not np.ndarray:
        return x
    y = np.full(x.shape, mask) if x.dtype == bool else np.zeros(x.shape, x.dtype)
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2] and x.dtype.kind in "fc":
        y[...] = np.diag(np.arange(1.0, x.shape[-1] + 1))
    return y


def _on_zeros(fn: Any, args: Any, kwargs: Any) -> Any:
    """Run a function for the shapes of its results; nothing drawn counts.

    Raises:
        TraceError: other values in a mask among the arguments give another shape.
    """
    token = TRACE.set(None)
    state = random.default_generator.get_state()
    try:
        result = fn(*mapped(_zeros, args), **mapped(_zeros, kwargs))
        if any(type(x) is np.ndarray and x.dtype == bool for x in leaves((args, kwargs))):
            ones = lambda x: _zeros(x, mask=True)  # noqa: E731
            other = fn(*mapped(ones, args), **mapped(ones, kwargs))
            if [np.shape(x) for x in leaves(result)] != [np.shape(x) for x in leaves(other)]:
                raise TraceError("the shape of a result depends on the values of a mask")
        return result
    finally:
        random.default_generator.set_state(state)
        TRACE.reset(token)


# --- rules ------------------------------------------------------------------------------------------


def _tiny(x: Any) -> Any:
    """One element, for the dtype of a result: under NumPy 2 it does not hang on values."""
    return np.ones((), x.dtype) if type(x) is np.ndarray else x


def _like(shape: Any, dtype: Any, *arrays: Any) -> Array:
    """A new array laid out as an elementwise function lays out its result."""
    for a in arrays:
        if type(a) is np.ndarray and a.ndim > 1 and a.shape == shape:
            return np.empty_like(a, dtype=dtype)
    return blank(shape, dtype)


def _elementwise(fn: Any) -> Callable[..., Any]:
    def rule(*args: Any, **kwargs: Any) -> Any:
        arrays = [a if type(a) is np.ndarray else np.asarray(a) for a in args]
        try:
            shape = np.broadcast_shapes(*[a.shape for a in arrays])
        except ValueError:
            fn(*[np.broadcast_to(_tiny(a), a.shape) for a in arrays], **kwargs)  # NumPy's error
            raise
        where = kwargs.get("where")
        if type(where) is np.ndarray:
            kwargs["where"] = True
        result = fn(*[_tiny(a) for a in args], **kwargs)
        if type(result) is tuple:
            return tuple([_like(shape, r.dtype, *arrays) for r in result])
        return _like(shape, result.dtype, *arrays)

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


def _accumulation(fn: Any) -> Callable[..., Any]:
    def rule(x: Any, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        small = fn(np.ones((1,) * x.ndim, x.dtype), axis, *args, **kwargs)
        return blank((x.size,) if axis is None else x.shape, small.dtype)

    return rule


def _accumulated(fn: Any) -> Callable[..., Any]:
    rule = _accumulation(fn)
    return lambda x, axis=0, *args, **kwargs: rule(x, axis, *args, **kwargs)


def _of_ufunc(fn: Any) -> Callable[..., Any] | None:
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
        np.matmul(*[np.broadcast_to(_tiny(x), x.shape) for x in (a, b)])  # NumPy's error
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    rows, columns = left[-2:-1] if a.ndim > 1 else (), right[-1:] if b.ndim > 1 else ()
    return blank((*batch, *rows, *columns), dtype)


def _dot(a: Any, b: Any) -> Any:
    if a.ndim <= 1 or b.ndim <= 2:
        return _matmul(a, b) if a.ndim and b.ndim else _elementwise(np.multiply)(a, b)
    if a.shape[-1] != b.shape[-2]:
        np.dot(np.broadcast_to(_tiny(a), a.shape), np.broadcast_to(_tiny(b), b.shape))
    return blank((*a.shape[:-1], *b.shape[:-2], b.shape[-1]), np.result_type(a, b))


def _reshape(x: Any, shape: Any, **kwargs: Any) -> Any:
    if x.flags.c_contiguous:
        return np.reshape(x, shape)
    size = np.reshape(np.broadcast_to(_tiny(x), x.shape), shape).shape
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
    return _like(like.shape if shape is None else shape, dtype or like.dtype, like)


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
        np.concatenate([np.broadcast_to(_tiny(a), a.shape) for a in arrays], axis)  # NumPy's error
    total = sum(a.shape[axis] for a in arrays)
    return blank((*first[:axis], total, *first[axis + 1 :]), dtype)


def _stack(arrays: Any, axis: int = 0, **kwargs: Any) -> Any:
    arrays = [np.asarray(a) for a in arrays]
    if len({a.shape for a in arrays}) != 1:
        np.stack([np.broadcast_to(_tiny(a), a.shape) for a in arrays], axis)  # NumPy's error
    small = np.stack([np.ones((1,) * a.ndim, a.dtype) for a in arrays], axis, **kwargs)
    shape = list(arrays[0].shape)
    shape.insert(axis % small.ndim, len(arrays))
    return blank(shape, small.dtype)


def _einsum(equation: Any, *arrays: Any, **kwargs: Any) -> Any:
    light = [np.broadcast_to(_tiny(a), a.shape) for a in arrays]
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
    dtype = np.where(np.ones((), bool), _tiny(x), _tiny(y)).dtype
    return _like(np.broadcast_shapes(*map(np.shape, (condition, x, y))), dtype, condition, x, y)


def _same(fn: Any) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: _like(np.shape(x), x.dtype, x)


def _copied(x: Any, order: str = "C", *args: Any, **kwargs: Any) -> Any:
    return blank(x.shape, x.dtype) if order == "C" else np.empty_like(x)


def _cast(x: Any, dtype: Any) -> Any:
    return _like(x.shape, np.dtype(dtype), x)


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


def _put(x: Any, index: Any, values: Any) -> Any:
    if not any(type(i) is np.ndarray and i.dtype.kind == "b" for i in leaves(index)):
        _fits(np.shape(values), _getitem(x, index).shape)
    return np.empty_like(x)


def _put_view(x: Any, values: Any, path: Any) -> Any:
    _fits(np.shape(values), np.shape(follow(path, x)))
    return np.empty_like(x)


# kernels: what they give, of the same arguments


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


_VIEWS = (
    np.transpose, np.swapaxes, np.moveaxis, np.broadcast_to, np.squeeze, np.expand_dims, np.real,
    np.imag, np.flip, np.diagonal, np.rollaxis, np.broadcast_arrays, np.ndarray.swapaxes,
    np.ndarray.squeeze, np.ndarray.diagonal, np.ndarray.view, np.atleast_1d, np.split,
    np.array_split,
)  # fmt: skip

_RULES: dict[Any, Callable[..., Any]] = {
    **{fn: fn for fn in _VIEWS},
    np.matmul: _matmul, operator.matmul: _matmul, np.dot: _dot, np.ndarray.dot: _dot,
    np.reshape: _reshape, operator.getitem: _getitem, np.concatenate: _concatenate, np.stack: _stack,
    np.einsum: _einsum, np.where: _where, cast: _cast, np.copy: _copied,
    np.ndarray.copy: _copied, np.take_along_axis: _along, np.take: _take, np.ndarray.take: _take,
    np.repeat: _repeat, np.ndarray.repeat: _repeat, put: _put, put_view: _put_view,
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
    **{fn: _accumulation(fn) for fn in (np.cumsum, np.cumprod, np.ndarray.cumsum, np.ndarray.cumprod)},
}  # fmt: skip


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
    return lambda x: _like(x.shape, x.dtype, x) if x.dtype.kind == "f" else _on_zeros(fn, (x,), {})


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
        "cumsum": lambda x, axis, reverse=False: _accumulation(np.cumsum)(x, axis),
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
        _RULES[KERNELS[name]] = rule


_kernel_rules()

"""PyTorch's calling conventions, honoured in one place.

``@function`` makes a public function of a plain one: NumPy's ``axis``/``keepdims`` are accepted
for ``dim``/``keepdim``, ``out=`` is filled, arrays become tensors, and the function becomes a
method of Tensor (with ``inplace=True`` also ``name_``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import DimError, DtypeError, GradError
from kilograd.kernels.kernel import CHANGES
from kilograd.tensor import Tensor, repeats, wrap

_ALIASES = {"axis": "dim", "keepdims": "keepdim"}
_NOT_TENSORS = (bool, int, float, complex, str, list, tuple, dict, type(None))
# PyTorch's kernels of these write their result while they still read: out= may not be an input.
_READ_WHILE_WRITING = (
    "bernoulli", "cat", "gather", "index_select", "kthvalue", "masked_select", "max", "median",
    "min", "mode", "nanmedian", "take", "topk",
)  # fmt: skip

# ... and those whose out= must have the result's own dtype.
_EXACT_DTYPE = ("gather", "index_select", "multinomial", "masked_select", "take")


def function(
    fn: Callable[..., Any] | None = None,
    *,
    method: bool = True,
    inplace: bool = False,
    name: str | None = None,
) -> Any:
    """Declare a public function.

    Args:
        method: also a method of Tensor.
        inplace: also an in-place method ``name_``.
        name: the method's name, where it differs from the function's.
    """
    if fn is None:
        return lambda f: function(f, method=method, inplace=inplace, name=name)
    plain = fn

    @functools.wraps(plain)
    def public(*args: Any, **kwargs: Any) -> Any:
        if args and type(args[0]) is np.ndarray:
            args = (wrap(args[0]), *args[1:])
        try:
            if kwargs:
                for numpy_name, name in _ALIASES.items():
                    if numpy_name in kwargs:
                        if name in kwargs:
                            raise TypeError(
                                f"{plain.__name__}() got both {numpy_name}= and {name}="
                            )
                        kwargs[name] = kwargs.pop(numpy_name)
                if "out" in kwargs:
                    out = kwargs.pop("out")
                    if out is not None:
                        result = plain(*args, **kwargs)
                        return fill(out, result, plain.__name__, (*args, *kwargs.values()))
            return plain(*args, **kwargs)
        except AttributeError as e:  # a number or list has no dtype: it was taken for a tensor
            if isinstance(e.obj, _NOT_TENSORS):
                raise TypeError(
                    f"{plain.__name__}(): expected a Tensor, not {type(e.obj).__name__}"
                ) from e
            raise

    called = name or plain.__name__
    if method:
        setattr(Tensor, called, public)
    if inplace:
        setattr(Tensor, f"{called}_", inplace_method(public, f"{called}_"))
    return public


def inplace_method(fn: Callable[..., Any], name: str) -> Any:
    """The method ``name`` that does ``self = fn(self, …)`` in self's memory."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._inplace(fn, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"In-place form of :func:`kilograd.{fn.__name__}`; returns the tensor."
    return method


def fill(out: Any, result: Any, name: str, args: Sequence[Any]) -> Any:
    """Write a result into ``out=`` (a tensor, or a tuple of them) and return it."""
    if isinstance(result, tuple):
        if not isinstance(out, (tuple, list)) or len(out) != len(result):
            raise TypeError(f"{name}(): out= must be {len(result)} tensors")
        for o, r in zip(out, result, strict=True):
            if isinstance(o, Tensor) and o.array.dtype != r.array.dtype:
                raise DtypeError(
                    f"{name}(): Expected out tensor to have dtype {r.dtype}, but got {o.dtype} instead"
                )
            fill(o, r, name, args)
        made: Any = tuple(out)
        return type(result)(*made) if hasattr(result, "_fields") else made
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if name in _EXACT_DTYPE and out.array.dtype != result.array.dtype:
        raise DtypeError(
            f"{name}(): Expected out tensor to have dtype {result.dtype}, but got {out.dtype} instead"
        )
    if out.requires_grad or result.requires_grad:
        raise GradError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    if dtypes.CATEGORY[result.array.dtype] > dtypes.CATEGORY[out.array.dtype]:
        raise DtypeError(
            f"{name}: result type {result.dtype} can't be cast to the desired output type {out.dtype}"
        )
    same_is_fine = name not in _READ_WHILE_WRITING
    if repeats(out.array) or any(
        overlaps(t.array, out.array, same_is_fine)
        for a in args
        for t in (a if isinstance(a, (tuple, list)) else (a,))
        if isinstance(t, Tensor)
    ):
        raise GradError(
            f"{name}(): unsupported operation: some elements of the input tensor and the "
            "written-to tensor refer to a single memory location. Please clone() the tensor "
            "before performing the operation."
        )
    if out.array.shape != result.array.shape:
        if out.array.size:
            import warnings

            warnings.warn(
                f"An output with one or more elements was resized since it had shape "
                f"{list(out.shape)}, which does not match the required output shape "
                f"{list(result.shape)}.",
                UserWarning,
                stacklevel=4,
            )
        CHANGES[0] += 1
        out.array = result.array.astype(out.array.dtype)
        out._cell[0] += 1
        return out
    out._write(result.array, name)
    return out


def overlaps(read: Any, written: Any, same_is_fine: bool) -> bool:
    """Whether writing one array while reading another would read what was written."""
    start = read.ctypes.data == written.ctypes.data
    if start and read.strides == written.strides and read.shape == written.shape:
        return not same_is_fine
    return bool(np.may_share_memory(read, written))


def one_axis(dim: Any, ndim: int) -> int:
    """A dimension number from 0 to ndim-1; IndexError if it is out of range."""
    if isinstance(dim, (bool, float)) or not hasattr(dim, "__index__"):
        raise TypeError(f"dim must be int, not {type(dim).__name__}")
    dim = dim.__index__()
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise DimError(
            f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})"
        )
    return dim % n


def all_axes(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """The axes of a reduction: None (all), or a sorted-as-given tuple without repeats."""
    if dim is None:
        return None
    if not isinstance(dim, (tuple, list)):
        axis = one_axis(dim, ndim)
        return (axis,) if ndim else ()
    axes = tuple(one_axis(d, ndim) for d in dim)
    if len(set(axes)) < len(axes):
        raise RuntimeError(f"dim {axes} appears multiple times in the list of dims")
    if not axes:
        return None
    return axes if ndim else ()


def tensor_like(value: Any, like: Tensor | None = None) -> Tensor:
    """A tensor from a tensor, array or Python number."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return wrap(value)
    if isinstance(value, (bool, int, float, complex, np.generic)):
        if isinstance(value, np.generic):
            return wrap(np.asarray(value))
        kind = (bool, int, float, complex).index(type(value))
        return wrap(np.asarray(value, dtypes.default_array_dtype(kind)))
    raise TypeError(f"expected Tensor, array or number, not {type(value).__name__}")

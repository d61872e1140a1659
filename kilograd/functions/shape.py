"""Shapes: looking at them, changing them, joining and splitting. Views share memory, as in PyTorch."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.autograd import driver
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.errors import ShapeError
from kilograd.functions.calling import all_axes, function, one_axis
from kilograd.ops import elementwise as ew
from kilograd.ops import index as index_ops
from kilograd.ops import shape as ops
from kilograd.ops import special
from kilograd.size import Size
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "adjoint", "as_strided", "atleast_1d", "atleast_2d", "atleast_3d", "block_diag",
    "broadcast_shapes", "broadcast_tensors", "broadcast_to", "cartesian_prod", "cat",
    "channels_last", "channels_last_3d", "chunk", "column_stack", "combinations", "concat",
    "concatenate", "contiguous_format", "dsplit", "dstack", "flatten", "flip", "fliplr", "flipud",
    "hsplit", "hstack", "is_same_size", "memory_format", "meshgrid", "moveaxis", "movedim",
    "narrow", "narrow_copy", "numel", "permute", "preserve_format", "ravel", "repeat_interleave",
    "reshape", "roll", "rot90", "row_stack", "select", "split", "split_with_sizes", "squeeze",
    "stack", "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose", "unbind",
    "unflatten", "unsafe_chunk", "unsafe_split", "unsqueeze", "vsplit", "vstack",
]  # fmt: skip


class memory_format:
    """How the elements of an image batch lie in memory; kilograd's results do not depend on it.

    >>> import kilograd as kg
    >>> kg.ones(2, 3, 4, 5).contiguous(memory_format=kg.channels_last).stride()
    (60, 1, 15, 3)
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"kilograd.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")

Shape = Sequence[int] | int


def sizes(given: Any, name: str) -> tuple[int, ...]:
    """A shape from an int or a sequence of ints (one-element integer tensors count as ints)."""
    if not isinstance(given, (tuple, list)):
        if isinstance(given, np.ndarray):
            given = given.tolist()
        if not isinstance(given, list):
            given = (given,)
    elif len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = given[0]  # x.view((2, 3)), x.view([2, 3]) by way of *sizes
    try:
        return tuple([n if type(n) is int else _one_size(n) for n in given])
    except TypeError:
        raise TypeError(f"{name}(): expected a shape (a tuple of ints), not {given!r}") from None


def _one_size(n: Any) -> int:
    if isinstance(n, (bool, np.bool_)):
        raise TypeError
    return n if isinstance(n, int) else operator.index(n)  # (a size of a lazy tensor stays one)


def variadic(fn: Callable[..., Any]) -> Any:
    """Declare ``fn(input, ints)`` also as a method that takes the ints one by one."""

    @functools.wraps(fn)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 1:
            args = (args,)
        return fn(self, *args, **kwargs)

    setattr(Tensor, fn.__name__, method)
    return fn


def method(fn: Callable[..., Any]) -> Any:
    """Declare a method of Tensor that has no function beside it."""
    setattr(Tensor, fn.__name__, fn)
    return fn


def reshapes(name: str) -> Callable[[Any], Any]:
    """Declare also ``name``, which gives the tensor itself another shape over the same memory."""

    def declare(fn: Callable[..., Tensor]) -> Any:
        def in_place(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if MODE.get().grad and self.requires_grad:
                self._check_inplace()
            before = wrap(self.array)  # who this tensor was until now
            before._cell = self._cell
            before._node, before._view = self._node, self._view
            before._view_seen = self._view_seen
            with ModeContext(grad=True):
                after = fn(before, *args, **kwargs)
            self.array, self._node = after.array, after._node
            self._cell[0] += 1  # views of this tensor look again, and see that it is another
            if self._view is not None:
                self._view, self._view_seen = after._view, self._cell[0]
            return self

        in_place.__name__ = name
        in_place.__doc__ = f"In-place form of :func:`kilograd.{fn.__name__}`; returns the tensor."
        setattr(Tensor, name, in_place)
        return fn

    return declare


# --- what a tensor looks like -------------------------------------------------------------------


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).size(), kg.zeros(2, 3).size(-1)
    (kilograd.Size([2, 3]), 3)
    """
    if dim is None:
        return Size(self.array.shape)
    if self.array.ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return self.array.shape[one_axis(dim, self.array.ndim)]


@method
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return self.array.ndim


@method
def numel(input: Tensor) -> int:
    """The number of elements.

    >>> import kilograd as kg
    >>> kg.numel(kg.zeros(2, 3))
    6
    """
    return _tensor(input, "numel").array.size


Tensor.ndimension = dim  # type: ignore[attr-defined]
Tensor.nelement = numel  # type: ignore[attr-defined]


@method
def element_size(self: Tensor) -> int:
    """Bytes per element."""
    return int(self.array.itemsize)


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """How many elements of memory lie between neighbours along each dimension (or along one).

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).stride(), kg.zeros(2, 3).t().stride(), kg.zeros(2, 1).expand(2, 3).stride()
    ((3, 1), (1, 3), (1, 0))
    """
    strides = element_strides(self.array)
    return strides if dim is None else strides[one_axis(dim, len(strides))]


def element_strides(x: np.ndarray) -> tuple[int, ...]:
    """Strides in elements; where NumPy gives a new axis the stride 0, PyTorch's."""
    if x.flags.c_contiguous and (x.size == 0 or 0 in x.strides):
        return ops.packed_strides(x.shape, 1)
    return tuple([s // x.itemsize for s in x.strides])


@method
def storage_offset(self: Tensor) -> int:
    """The position of the first element in the memory that this tensor and its views share."""
    x = self.array
    return (ops.address(x) - ops.address(ops.owner(x))) // x.itemsize


@method
def data_ptr(self: Tensor) -> int:
    """The address of the first element (0 for a tensor without elements)."""
    return ops.address(self.array) if self.array.size else 0


@method
def is_contiguous(self: Tensor, memory_format: Any = contiguous_format) -> bool:
    """Whether the elements lie in memory in the order of their indices, without gaps."""
    x = self.array
    if memory_format in (channels_last, channels_last_3d):
        rank = 4 if memory_format is channels_last else 5
        return bool(x.ndim == rank and np.moveaxis(x, 1, -1).flags.c_contiguous)
    return bool(x.flags.c_contiguous)


@method
def contiguous(self: Tensor, memory_format: Any = contiguous_format) -> Tensor:
    """The tensor itself if it is contiguous, else a contiguous copy.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).t().contiguous().stride()
    (2, 1)
    """
    if self.is_contiguous(memory_format):
        return self
    if memory_format in (channels_last, channels_last_3d):
        rank = 4 if memory_format is channels_last else 5
        if self.ndim != rank:
            raise ShapeError(f"required rank {rank} tensor to use {memory_format.name} format")
        last = movedim(self, 1, -1)
        return movedim(last.contiguous() if not last.is_contiguous() else last.clone(), -1, 1)
    return apply(ew.clone, (self,))


@function
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape.

    >>> import kilograd as kg
    >>> kg.is_same_size(kg.zeros(2, 3), kg.ones(3, 2))
    False
    """
    return bool(input.array.shape == other.array.shape)


# --- another shape for the same elements ----------------------------------------------------------


def _new_shape(input: Tensor, shape: Any, name: str) -> tuple[int, ...]:
    """A shape with its -1 filled in; RuntimeError if it does not hold input's elements."""
    shape = sizes(shape, name)
    n = input.array.size
    if -1 in shape:
        if shape.count(-1) > 1:
            raise ShapeError(f"{name}: only one dimension can be inferred, got {list(shape)}")
        rest = -math.prod(shape)
        if rest == 0 and n == 0:
            raise ShapeError(
                f"{name}: cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
            )
        if rest > 0 and n % rest == 0:
            return tuple([n // rest if k == -1 else k for k in shape])
    elif math.prod(shape) == n and (n or all(k >= 0 for k in shape)):
        return shape
    if any(k < -1 for k in shape):
        raise ShapeError(f"{name}: invalid shape dimension {min(shape)} in {list(shape)}")
    raise ShapeError(f"{name}: shape '{list(shape)}' is invalid for input of size {n}")


@variadic
@function(method=False)
def reshape(input: Tensor, shape: Shape) -> Tensor:
    """The same elements in another shape; one size may be -1. A view where the layout allows.

    Raises RuntimeError if the number of elements does not fit.

    >>> import kilograd as kg
    >>> kg.arange(6).reshape(2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    return apply(ops.reshape, (input,), {"shape": _new_shape(input, shape, "reshape")})


@variadic
def view(self: Tensor, size: Any = None, dtype: Any = None) -> Tensor:
    """The same memory in another shape (or, given a dtype, read as another dtype).

    Raises RuntimeError if the shape does not fit, or needs a copy (then use ``reshape``).

    >>> import kilograd as kg
    >>> kg.zeros(2, 6).view(3, -1).shape
    kilograd.Size([3, 4])
    """
    if size is None and dtype is None:
        raise TypeError("view() expects a shape or a dtype")
    if dtype is not None or isinstance(size, (dtypes.dtype, np.dtype, type)):
        return _view_dtype(self, dtypes.as_dtype(dtype or size))
    return apply(ops.view, (self,), {"shape": _new_shape(self, size, "view")})


def _view_dtype(self: Tensor, dtype: dtypes.dtype) -> Tensor:
    x, new = self.array, dtype.itemsize
    if self.dtype is dtype:
        return apply(ops.view, (self,), {"shape": x.shape})
    if x.itemsize != new:
        if x.ndim == 0:
            raise ShapeError("self.dim() cannot be 0 to view a tensor as a dtype of another size")
        if x.shape[-1] * x.itemsize % new:
            raise ShapeError(
                f"self.size(-1) must be divisible by {new // x.itemsize} to view {self.dtype} as "
                f"{dtype} (different element sizes), but got {x.shape[-1]}"
            )
    try:
        out = wrap(x.view(dtype.dtype))
    except ValueError as e:
        raise ShapeError(f"view(): {e}") from None
    out._cell = self._cell
    return out


@method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.view(other.size())``."""
    return self.view(other.array.shape)


@method
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.reshape(other.size())``."""
    return self.reshape(other.array.shape)


@function
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` made into one (a 0-d tensor becomes 1-d).

    >>> import kilograd as kg
    >>> kg.zeros(2, 3, 4).flatten(1).shape
    kilograd.Size([2, 12])
    """
    shape = input.array.shape
    start, end = one_axis(start_dim, len(shape)), one_axis(end_dim, len(shape))
    if start > end:
        raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end and shape:
        return input
    shape = (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
    return apply(ops.reshape, (input,), {"shape": shape})


@function
def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension; a view where the layout allows.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).ravel().shape
    kilograd.Size([6])
    """
    return apply(ops.reshape, (input,), {"shape": (input.array.size,)})


@function
def unflatten(input: Tensor, dim: int, sizes: Shape) -> Tensor:
    """One dimension made into several; one of the sizes may be -1.

    >>> import kilograd as kg
    >>> kg.zeros(2, 12).unflatten(1, (3, -1)).shape
    kilograd.Size([2, 3, 4])
    """
    old = input.array.shape
    axis = one_axis(dim, len(old))
    parts = _sizes(sizes, "unflatten")
    if not parts:
        raise ShapeError("unflatten: sizes must be non-empty")
    n, known = old[axis] if old else 1, math.prod(k for k in parts if k != -1)
    if parts.count(-1) == 1 and known and n % known == 0:
        parts = tuple([n // known if k == -1 else k for k in parts])
    if -1 in parts or math.prod(parts) != n:
        raise ShapeError(
            f"unflatten: Provided sizes {list(parts)} don't multiply up to the size of dim {dim} "
            f"({n}) in the input tensor"
        )
    shape = (*old[:axis], *parts, *old[axis + 1 :])
    return apply(ops.view, (input,), {"shape": shape})


_sizes = sizes  # `unflatten` has an argument of that name


@reshapes("squeeze_")
@function
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without dimensions of size 1: all of them, or those of ``dim`` that have size 1.

    >>> import kilograd as kg
    >>> kg.zeros(1, 2, 1).squeeze().shape, kg.zeros(1, 2, 1).squeeze(0).shape
    (kilograd.Size([2]), kilograd.Size([2, 1]))
    """
    shape = input.array.shape
    axes = all_axes(dim, len(shape)) if dim != () else ()
    kept = tuple([n for i, n in enumerate(shape) if n != 1 or (axes is not None and i not in axes)])
    return apply(ops.reshape, (input,), {"shape": kept})


@reshapes("unsqueeze_")
@function
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at ``dim``.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).unsqueeze(-1).shape
    kilograd.Size([2, 3, 1])
    """
    shape = input.array.shape
    axis = one_axis(dim, len(shape) + 1)
    shape = (*shape[:axis], 1, *shape[axis:])
    return apply(ops.reshape, (input,), {"shape": shape})


@reshapes("transpose_")
@function
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged: a view.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3, 4).transpose(0, -1).shape
    kilograd.Size([4, 3, 2])
    """
    n = input.array.ndim
    a, b = one_axis(dim0, n), one_axis(dim1, n)
    if n == 0:
        return apply(ops.permute, (input,), {"axes": ()})
    return apply(ops.swapaxes, (input,), {"a": a, "b": b})


@reshapes("swapaxes_")
@function
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged, under NumPy's name; see :func:`transpose`.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).swapaxes(0, 1).shape
    kilograd.Size([3, 2])
    """
    return transpose(input, axis0, axis1)


@reshapes("swapdims_")
@function
def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged; see :func:`transpose`.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).swapdims(0, 1).shape
    kilograd.Size([3, 2])
    """
    return transpose(input, dim0, dim1)


@variadic
@function(method=False)
def permute(input: Tensor, dims: Shape) -> Tensor:
    """The dimensions in another order: a view.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3, 4).permute(2, 0, 1).shape
    kilograd.Size([4, 2, 3])
    """
    n = input.array.ndim
    dims = sizes(dims, "permute")
    if len(dims) != n:
        raise ShapeError(
            "permute: number of dimensions in the tensor input does not match the length of the "
            f"desired ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = "
            f"{len(dims)}"
        )
    axes = tuple([one_axis(d, n) for d in dims])
    if len(set(axes)) < n:
        raise ShapeError("permute(): duplicate dims are not allowed.")
    return apply(ops.permute, (input,), {"axes": axes})


@function
def movedim(input: Tensor, source: Shape, destination: Shape) -> Tensor:
    """Dimensions moved to other places, the rest keeping their order: a view.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3, 4).movedim(0, -1).shape
    kilograd.Size([3, 4, 2])
    """
    n = input.array.ndim
    if isinstance(source, int) != isinstance(destination, int):
        raise TypeError("movedim(): source and destination must both be ints or both be tuples")
    places = []
    for name, dims in (
        ("source", sizes(source, "movedim")),
        ("destination", sizes(destination, "movedim")),
    ):
        axes = [one_axis(d, n) for d in dims]
        if len(set(axes)) < len(axes):
            raise ShapeError(f"movedim: repeated dim in `{name}` ({list(dims)})")
        places.append(axes)
    if len(places[0]) != len(places[1]):
        raise ShapeError(
            "movedim: Invalid source or destination dims: source "
            f"({source} dims) should contain the same number of dims as destination ({destination})"
        )
    if n == 0:
        return apply(ops.permute, (input,), {"axes": ()})
    order = [i for i in range(n) if i not in places[0]]
    for to, axis in sorted(zip(places[1], places[0], strict=True)):
        order.insert(to, axis)
    return apply(ops.permute, (input,), {"axes": tuple(order)})


@function
def moveaxis(input: Tensor, source: Shape, destination: Shape) -> Tensor:
    """NumPy's name for :func:`movedim`.

    >>> import kilograd as kg
    >>> kg.moveaxis(kg.zeros(2, 3, 4), 0, -1).shape
    kilograd.Size([3, 4, 2])
    """
    return movedim(input, source, destination)


@reshapes("t_")
@function
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).t().shape
    kilograd.Size([3, 2])
    """
    n = input.array.ndim
    if n > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {n}D")
    return apply(ops.permute, (input,), {"axes": tuple(range(n))[::-1]})


@function
def adjoint(input: Tensor) -> Tensor:
    """Matrices (in the last two dimensions) transposed and conjugated.

    >>> import kilograd as kg
    >>> kg.zeros(5, 2, 3).adjoint().shape
    kilograd.Size([5, 3, 2])
    """
    if input.ndim < 2:
        raise ShapeError(
            "tensor.adjoint() is only supported on matrices or batches of matrices. "
            f"Got {input.ndim}-D tensor."
        )
    return _conjugate(apply(ops.swapaxes, (input,), {"a": -2, "b": -1}))


def _conjugate(x: Tensor) -> Tensor:
    return apply(special.conj, (x,)) if x.array.dtype.kind == "c" else x


def _T(self: Tensor) -> Tensor:
    """The dimensions in reverse order: the transpose of a matrix."""
    return apply(ops.permute, (self,), {"axes": tuple(range(self.array.ndim))[::-1]})


def _mT(self: Tensor) -> Tensor:
    """Matrices (in the last two dimensions) transposed."""
    n = self.array.ndim
    if n == 1:
        raise ShapeError(
            "tensor.mT is only supported on matrices or batches of matrices. Got 1-D tensor."
        )
    return apply(ops.swapaxes, (self,), {"a": -2, "b": -1}) if n else _T(self)


def _H(self: Tensor) -> Tensor:
    """The conjugate transpose of a matrix."""
    if self.array.ndim not in (0, 2):
        raise ShapeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {self.ndim}-D tensor."
        )
    return _conjugate(_T(self))


Tensor.T = property(_T)  # type: ignore[attr-defined]
Tensor.mT = property(_mT)  # type: ignore[attr-defined]
Tensor.H = property(_H)  # type: ignore[attr-defined]
Tensor.mH = property(lambda self: _conjugate(_mT(self)))  # type: ignore[attr-defined]


@function
def atleast_1d(*tensors: Any) -> Any:
    """Each tensor with at least one dimension; several tensors (or a list) give a tuple.

    >>> import kilograd as kg
    >>> kg.atleast_1d(kg.tensor(1.0))
    tensor([1.])
    """
    return _each(tensors, lambda x: x if x.ndim else x.reshape(1))


@function
def atleast_2d(*tensors: Any) -> Any:
    """Each tensor with at least two dimensions, new ones in front.

    >>> import kilograd as kg
    >>> kg.atleast_2d(kg.tensor([1.0, 2.0])).shape
    kilograd.Size([1, 2])
    """
    return _each(tensors, _matrix)


@function
def atleast_3d(*tensors: Any) -> Any:
    """Each tensor with at least three dimensions: (n,) → (1, n, 1), (m, n) → (m, n, 1).

    >>> import kilograd as kg
    >>> kg.atleast_3d(kg.zeros(2, 3)).shape
    kilograd.Size([2, 3, 1])
    """
    return _each(tensors, _cube)


def _matrix(x: Tensor) -> Tensor:
    return x if x.ndim > 1 else x.reshape(1, -1)


def _cube(x: Tensor) -> Tensor:
    return x if x.ndim > 2 else _matrix(x).unsqueeze(-1)


def _each(tensors: tuple[Any, ...], f: Callable[[Tensor], Tensor]) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], (list, tuple)):
        return f(_tensor(tensors[0], "atleast"))
    if len(tensors) == 1:
        tensors = tuple(tensors[0])
    return tuple([f(_tensor(x, "atleast")) for x in tensors])


def _tensor(x: Any, name: str, at: int | None = None) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        return wrap(x)
    where = "" if at is None else f" as element {at}"
    raise TypeError(f"{name}(): expected Tensor{where}, but got {type(x).__name__}")


# --- repeating ------------------------------------------------------------------------------------


@variadic
def expand(self: Tensor, size: Shape, *, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 (and new ones in front) repeated without copying; -1 keeps a size.

    Raises RuntimeError where a size other than 1 would have to change.

    >>> import kilograd as kg
    >>> kg.tensor([[1], [2]]).expand(-1, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    old, new = self.array.shape, sizes(size, "expand")
    lead = len(new) - len(old)
    if lead < 0:
        raise ShapeError(
            f"expand: the number of sizes provided ({len(new)}) must be greater or equal to the "
            f"number of dimensions in the tensor ({len(old)})"
        )
    shape = []
    for i, n in enumerate(new):
        have = old[i - lead] if i >= lead else 1
        if n == -1 and i < lead:
            raise ShapeError(
                "expand: The expanded size of the tensor (-1) isn't allowed in a leading, "
                f"non-existing dimension {i}"
            )
        if n < -1:
            raise ShapeError(f"expand: The expanded size of the tensor ({n}) is negative")
        if n != -1 and have not in (1, n):
            raise ShapeError(
                f"expand: The expanded size of the tensor ({n}) must match the existing size "
                f"({have}) at non-singleton dimension {i}.  Target sizes: {list(new)}.  Tensor "
                f"sizes: {list(old)}"
            )
        shape.append(have if n == -1 else n)
    return apply(ops.broadcast_to, (self,), {"shape": tuple(shape)})


@method
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.expand(other.size())``."""
    return self.expand(other.array.shape)


@function
def broadcast_to(input: Tensor, size: Shape) -> Tensor:
    """``input`` repeated to a shape without copying; see :meth:`Tensor.expand`.

    >>> import kilograd as kg
    >>> kg.broadcast_to(kg.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return expand(input, size)


@function(method=False)
def broadcast_shapes(*shapes: Any) -> Size:
    """The shape to which tensors of these shapes broadcast; RuntimeError if they do not.

    >>> import kilograd as kg
    >>> kg.broadcast_shapes((2, 1), (3,), 1)
    kilograd.Size([2, 3])
    """
    result: list[int] = []
    for at, given in enumerate(shapes):
        shape = sizes(given, "broadcast_shapes")
        if any(n < 0 for n in shape):
            raise ShapeError(
                f"broadcast_shapes: Trying to create tensor with negative dimension {min(shape)}: "
                f"{list(shape)}"
            )
        result[:0] = [1] * (len(shape) - len(result))
        for i in range(-1, -len(shape) - 1, -1):
            if shape[i] == 1 or shape[i] == result[i]:
                continue
            if result[i] != 1:
                raise ShapeError(
                    f"broadcast_shapes: Attempting to broadcast a dimension of length {shape[i]} at "
                    f"{i}! Mismatching argument at index {at} had {shape}; but expected shape "
                    f"should be broadcastable to {result}"
                )
            result[i] = shape[i]
    return Size(result)


@function(method=False)
def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors, all expanded to one shape.

    >>> import kilograd as kg
    >>> [x.shape for x in kg.broadcast_tensors(kg.zeros(3, 1), kg.zeros(2))]
    [kilograd.Size([3, 2]), kilograd.Size([3, 2])]
    """
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    given = [_tensor(x, "broadcast_tensors", i) for i, x in enumerate(tensors)]
    shape = broadcast_shapes(*[x.array.shape for x in given])
    return tuple([expand(x, shape) for x in given])


@variadic
def repeat(self: Tensor, repeats: Shape) -> Tensor:
    """The tensor repeated ``repeats[i]`` times along dimension i, copying.

    Raises RuntimeError if there are fewer repeats than dimensions.

    >>> import kilograd as kg
    >>> kg.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    times, shape = sizes(repeats, "repeat"), self.array.shape
    if len(times) < len(shape):
        raise ShapeError(
            "repeat: Number of dimensions of repeat dims can not be smaller than number of "
            f"dimensions of tensor: got {list(times)} for shape {list(shape)}"
        )
    if any(n < 0 for n in times):
        raise ShapeError(
            f"repeat: Trying to create tensor with negative dimension in {list(times)}"
        )
    return apply(ops.repeat, (self,), {"times": tuple(times)})


def _copied(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``x`` in another shape, in memory of its own."""
    y = apply(ops.reshape, (x,), {"shape": shape})
    return apply(ew.clone, (y,)) if y._view is not None else y


@variadic
@function(method=False)
def tile(input: Tensor, dims: Shape) -> Tensor:
    """The tensor repeated along its dimensions; missing ``dims`` in front count as 1.

    >>> import kilograd as kg
    >>> kg.tile(kg.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    times = sizes(dims, "tile")
    return input.repeat((1,) * (input.array.ndim - len(times)) + times)


@function
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (or slice along ``dim``) repeated; without ``dim`` the input is flattened.

    ``repeats`` is an int or a 1-d integer tensor. With one argument alone, the indices
    that such repeats would read.

    >>> import kilograd as kg
    >>> kg.tensor([1, 2]).repeat_interleave(2), kg.repeat_interleave(kg.tensor([1, 2]))
    (tensor([1, 1, 2, 2]), tensor([0, 1, 1]))
    """
    if repeats is None:
        times = _repeats(input)
        if times.ndim != 1:
            raise ShapeError("repeat_interleave only accept 1D vector as repeat")
        return wrap(np.repeat(np.arange(len(times)), times))
    x = input
    if dim is None:
        x, dim = x.flatten(), 0
    elif x.ndim == 0:
        one_axis(dim, 0)
        x = x.reshape(1)
    axis = one_axis(dim, x.ndim)
    n = x.array.shape[axis]
    times = _repeats(repeats)
    if times.ndim > 1:
        raise ShapeError("repeats must be 0-dim or 1-dim tensor")
    if times.ndim == 1 and len(times) == 1:
        times = times[0]
    if times.ndim == 1 and len(times) != n:
        raise ShapeError(
            "repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{len(times)} and input.size({axis}) = {n}"
        )
    total = int(times.sum() if times.ndim else times * n)
    if output_size is not None and output_size != total:
        raise ShapeError(f"repeat_interleave: output_size {output_size}, but repeats give {total}")
    if times.ndim:
        return apply(index_ops.index_select, (x, np.repeat(np.arange(n), times)), {"axis": axis})
    shape = x.array.shape
    wide = (*shape[: axis + 1], int(times), *shape[axis + 1 :])
    return _copied(unsqueeze(x, axis + 1).expand(wide), (*shape[:axis], total, *shape[axis + 1 :]))


def _repeats(repeats: Any) -> np.ndarray:
    times = np.asarray(repeats.array if isinstance(repeats, Tensor) else repeats)
    if times.dtype.kind not in "iu":
        if isinstance(repeats, Tensor):
            raise NotImplementedError(f'"repeat_interleave" not implemented for {repeats.dtype}')
        raise TypeError(f"repeat_interleave(): repeats must be ints, not {repeats!r}")
    if times.size and times.min() < 0:
        raise ShapeError("repeat_interleave: Repeats must be non-negative")
    return times


# --- joining ----------------------------------------------------------------------------------------


def _tensors(tensors: Any, name: str) -> list[Any]:
    """The tensors and arrays of a list, checked."""
    if isinstance(tensors, (Tensor, np.ndarray)) or not hasattr(tensors, "__iter__"):
        raise TypeError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
            f"{type(tensors).__name__}"
        )
    checked = list(tensors)
    for i, x in enumerate(checked):
        if not isinstance(x, (Tensor, np.ndarray)):
            raise TypeError(f"{name}(): expected Tensor as element {i}, but got {type(x).__name__}")
    return checked


def _one_dtype(tensors: list[Any]) -> list[Any]:
    """Tensors brought to the dtype they promote to."""
    arrays = [x.array if isinstance(x, Tensor) else x for x in tensors]
    first = arrays[0].dtype
    for a in arrays:
        if a.dtype is not first and a.dtype != first:
            dtype = functools.reduce(dtypes.promote_types, [a.dtype for a in arrays]).dtype
            return [
                x if a.dtype == dtype else apply(ew.cast, (x,), {"dtype": dtype})
                for x, a in zip(tensors, arrays, strict=True)
            ]
    return tensors


@function(method=False)
def cat(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors joined along a dimension; their other sizes agree, their dtypes are promoted.

    1-d tensors without elements are left out. Raises RuntimeError for sizes that differ.

    >>> import kilograd as kg
    >>> kg.cat([kg.zeros(2, 1), kg.ones(2, 2)], dim=1)
    tensor([[0., 1., 1.],
            [0., 1., 1.]])
    """
    given = _tensors(tensors, "cat")
    if not given:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    given = _one_dtype(given)
    parts = [x for x in given if x.shape != (0,)]
    if not parts:
        one_axis(dim, 1)
        return apply(ops.concatenate, tuple(given), {"axis": 0})
    shape = parts[0].shape
    for i, x in enumerate(parts):
        if x.ndim == 0:
            raise ShapeError(
                f"cat: zero-dimensional tensor (at position {i}) cannot be concatenated"
            )
        if x.ndim != len(shape):
            raise ShapeError(
                f"cat: Tensors must have same number of dimensions: got {len(shape)} and {x.ndim}"
            )
    axis = one_axis(dim, len(shape))
    for i, x in enumerate(parts):
        if x.shape[:axis] != shape[:axis] or x.shape[axis + 1 :] != shape[axis + 1 :]:
            raise ShapeError(
                f"cat: Sizes of tensors must match except in dimension {axis}. Expected "
                f"{list(shape)} but got {list(x.shape)} for tensor number {i} in the list."
            )
    return apply(ops.concatenate, tuple(parts), {"axis": axis})


@function(method=False)
def concat(tensors: Any, dim: int = 0) -> Tensor:
    """Another name of :func:`cat`.

    >>> import kilograd as kg
    >>> kg.concat([kg.zeros(1), kg.ones(1)])
    tensor([0., 1.])
    """
    return cat(tensors, dim)


@function(method=False)
def concatenate(tensors: Any, dim: int = 0) -> Tensor:
    """Another name of :func:`cat`.

    >>> import kilograd as kg
    >>> kg.concatenate([kg.zeros(1), kg.ones(1)], axis=0)
    tensor([0., 1.])
    """
    return cat(tensors, dim)


@function(method=False)
def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension.

    >>> import kilograd as kg
    >>> kg.stack([kg.zeros(2), kg.ones(2)], dim=1)
    tensor([[0., 1.],
            [0., 1.]])
    """
    given = _tensors(tensors, "stack")
    if not given:
        raise ShapeError("stack expects a non-empty TensorList")
    given = _one_dtype(given)
    shape = given[0].shape
    for i, x in enumerate(given):
        if x.shape != shape:
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(x.shape)} at entry {i}"
            )
    return apply(ops.stack, tuple(given), {"axis": one_axis(dim, len(shape) + 1)})


def _stacked(tensors: Any, name: str, f: Callable[[Tensor], Tensor], axis: int) -> Tensor:
    given = _tensors(tensors, name)
    if not given:
        raise ShapeError(f"{name} expects a non-empty TensorList")
    parts = [f(_tensor(x, name)) for x in given]
    return cat(parts, 0 if parts[0].ndim == 1 else axis)


@function(method=False)
def hstack(tensors: Any) -> Tensor:
    """Tensors joined side by side: along dimension 1, or 0 for 1-d tensors.

    >>> import kilograd as kg
    >>> kg.hstack([kg.tensor([1, 2]), kg.tensor(3)])
    tensor([1, 2, 3])
    """
    return _stacked(tensors, "hstack", lambda x: x if x.ndim else x.reshape(1), 1)


@function(method=False)
def vstack(tensors: Any) -> Tensor:
    """Tensors joined one below the other, 1-d tensors as rows.

    >>> import kilograd as kg
    >>> kg.vstack([kg.tensor([1, 2]), kg.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return _stacked(tensors, "vstack", _matrix, 0)


@function(method=False)
def row_stack(tensors: Any) -> Tensor:
    """Another name of :func:`vstack`.

    >>> import kilograd as kg
    >>> kg.row_stack([kg.tensor([1, 2]), kg.tensor([3, 4])]).shape
    kilograd.Size([2, 2])
    """
    return vstack(tensors)


@function(method=False)
def dstack(tensors: Any) -> Tensor:
    """Tensors joined in depth: along dimension 2.

    >>> import kilograd as kg
    >>> kg.dstack([kg.tensor([1, 2]), kg.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    return _stacked(tensors, "dstack", _cube, 2)


@function(method=False)
def column_stack(tensors: Any) -> Tensor:
    """Tensors joined side by side, 0-d and 1-d tensors as columns.

    >>> import kilograd as kg
    >>> kg.column_stack([kg.tensor([1, 2]), kg.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    return _stacked(tensors, "column_stack", lambda x: x if x.ndim > 1 else x.reshape(-1, 1), 1)


@function(method=False)
def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the given matrices along its diagonal and zeros elsewhere.

    >>> import kilograd as kg
    >>> kg.block_diag(kg.tensor([[1, 2]]), kg.tensor(3))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    blocks = []
    for i, x in enumerate(tensors):
        x = _tensor(x, "block_diag", i)
        if x.ndim > 2:
            raise ShapeError(
                "block_diag: Input tensors must have 2 or fewer dimensions. "
                f"Input {i} has {x.ndim} dimensions"
            )
        blocks.append(_matrix(x))
    if not blocks:
        return wrap(np.zeros((1, 0), dtypes.get_default_dtype().dtype))
    width, done, rows = sum(x.shape[1] for x in blocks), 0, []
    blocks = _one_dtype(blocks)
    for x in blocks:
        m, n = x.shape
        left, right = (
            np.zeros((m, done), x.array.dtype),
            np.zeros((m, width - done - n), x.array.dtype),
        )
        rows.append(apply(ops.concatenate, (left, x, right), {"axis": 1}))
        done += n
    return apply(ops.concatenate, tuple(rows), {"axis": 0})


@function(method=False)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: each 1-d tensor expanded over the others' dimensions.

    ``indexing="ij"`` (the default) has the first tensor vary along dimension 0, ``"xy"`` along 1.

    >>> import kilograd as kg
    >>> kg.meshgrid(kg.tensor([1, 2]), kg.tensor([3, 4]), indexing="ij")
    (tensor([[1, 1],
            [2, 2]]), tensor([[3, 4],
            [3, 4]]))
    """
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if not tensors:
        raise ShapeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise ShapeError(
            f"meshgrid: indexing must be one of 'xy' or 'ij', but received: {indexing}"
        )
    given = [_tensor(x, "meshgrid", i) for i, x in enumerate(tensors)]
    for x in given:
        if x.ndim > 1:
            raise ShapeError(
                f"meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(x.shape)}"
            )
        if x.dtype is not given[0].dtype:
            raise ShapeError("meshgrid expects all tensors to have the same dtype")
    places = list(range(len(given)))
    if indexing == "xy" and len(given) > 1:
        places[:2] = [1, 0]
    shape = [0] * len(given)
    for x, at in zip(given, places, strict=True):
        shape[at] = x.numel()
    ones = (1,) * len(given)
    return tuple(
        [
            x.reshape((*ones[:at], x.numel(), *ones[at + 1 :])).expand(shape)
            for x, at in zip(given, places, strict=True)
        ]
    )


@function(method=False)
def cartesian_prod(*tensors: Any) -> Tensor:
    """All tuples of one element from each 1-d tensor, one a row.

    >>> import kilograd as kg
    >>> kg.cartesian_prod(kg.tensor([1, 2]), kg.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    for x in tensors:
        if _tensor(x, "cartesian_prod").ndim != 1:
            raise ShapeError(f"cartesian_prod: Expect a 1D vector, but got shape {list(x.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([x.flatten() for x in meshgrid(*tensors, indexing="ij")], 1)


@function
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of ``r`` elements of a 1-d tensor, one a row.

    >>> import kilograd as kg
    >>> kg.combinations(kg.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    if input.ndim != 1:
        raise ShapeError(f"combinations: Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise ShapeError(f"combinations: Expect a non-negative number, but got {r}")
    if r == 0:
        return wrap(np.empty(0, input.array.dtype))
    choose: Any = (
        itertools.combinations_with_replacement if with_replacement else itertools.combinations
    )
    index = np.array(list(choose(range(input.numel()), r)), dtype=np.int64).reshape(-1, r)
    return apply(index_ops.index_select, (input, index.reshape(-1)), {"axis": 0}).reshape(-1, r)


# --- splitting ----------------------------------------------------------------------------------------


def _views(
    input: Tensor, op: Any, options: dict[str, Any], indices: list[Any]
) -> tuple[Tensor, ...]:
    """Several views of a tensor made by one op; each is also the view that its index takes."""
    outs = apply(op, (input,), options)
    cut = not MODE.get().grad and input.requires_grad
    for out, index in zip(outs, indices, strict=True):
        out._cell = input._cell
        if cut:
            out._cut_view = True
        else:
            out._view, out._view_seen = (input, index_ops.getitem, {"index": index}), input._cell[0]
    return outs


def _split(input: Tensor, ends: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    before = (slice(None),) * axis
    starts = [0, *ends][: len(ends)]
    indices = [(*before, slice(a, b)) for a, b in zip(starts, ends, strict=True)]
    return _views(input, ops.split, {"ends": tuple(ends), "axis": axis}, indices)


@function
def split(
    tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> tuple[Tensor, ...]:
    """Views of consecutive parts: of ``split_size`` (the last may be smaller), or of a list of sizes.

    >>> import kilograd as kg
    >>> kg.arange(5).split(2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    size = split_size if split_size_or_sections is None else split_size_or_sections
    if isinstance(size, (list, tuple)) or (isinstance(size, Tensor) and size.ndim):
        return split_with_sizes(tensor, size, dim)
    if tensor.ndim == 0:
        raise ShapeError("split expects at least a 1-dimensional tensor")
    axis = one_axis(dim, tensor.ndim)
    n = tensor.array.shape[axis]
    if isinstance(size, (bool, float)) or not hasattr(size, "__index__"):
        raise TypeError(f"split(): split_size must be an int or a list of ints, not {size!r}")
    size = operator.index(size)
    if size < 0:
        raise ShapeError(f"split expects split_size be non-negative, but got split_size={size}")
    if size == 0 and n:
        raise ShapeError(
            f"split: split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
        )
    ends = [min(e, n) for e in range(size, n + size, size)] if n else [0]
    return _split(tensor, ends, axis)


@function
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive parts of the given sizes, which add up to the size of ``dim``.

    >>> import kilograd as kg
    >>> kg.split_with_sizes(kg.arange(5), (2, 3))
    (tensor([0, 1]), tensor([2, 3, 4]))
    """
    if input.ndim == 0:
        raise ShapeError("split expects at least a 1-dimensional tensor")
    axis, parts = one_axis(dim, input.ndim), sizes(split_sizes, "split")
    n = input.array.shape[axis]
    if any(k < 0 for k in parts):
        raise ShapeError(
            "split_with_sizes expects split_sizes have only non-negative entries, but got "
            f"split_sizes={list(parts)}"
        )
    if sum(parts) != n:
        raise ShapeError(
            f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at "
            f"dimension {axis}), but got split_sizes={list(parts)}"
        )
    return _split(input, list(itertools.accumulate(parts)), axis)


@function
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of at most ``chunks`` parts of equal size (the last may be smaller).

    >>> import kilograd as kg
    >>> kg.arange(5).chunk(2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if input.ndim == 0:
        raise ShapeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise ShapeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    axis = one_axis(dim, input.ndim)
    n = input.array.shape[axis]
    size = -(-n // chunks)
    if size == 0:
        return _split(input, [0] * chunks, axis)
    return _split(input, [min(e, n) for e in range(size, n + size, size)], axis)


@function
def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`chunk`; here it is as safe.

    >>> import kilograd as kg
    >>> kg.unsafe_chunk(kg.arange(2), 2)
    (tensor([0]), tensor([1]))
    """
    return chunk(input, chunks, dim)


@function
def unsafe_split(tensor: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """:func:`split`; here it is as safe.

    >>> import kilograd as kg
    >>> kg.unsafe_split(kg.arange(2), 1)
    (tensor([0]), tensor([1]))
    """
    return split(tensor, split_size, dim)


@function
def tensor_split(
    input: Tensor,
    indices_or_sections: Any = None,
    dim: int = 0,
    *,
    indices: Any = None,
    sections: Any = None,
) -> tuple[Tensor, ...]:
    """Views of parts: cut at a list of indices, or into a number of parts of sizes as equal as can be.

    >>> import kilograd as kg
    >>> kg.arange(5).tensor_split(2), kg.arange(5).tensor_split((1, 4))
    ((tensor([0, 1, 2]), tensor([3, 4])), (tensor([0]), tensor([1, 2, 3]), tensor([4])))
    """
    how: Any = next((k for k in (indices_or_sections, indices, sections) if k is not None), None)
    if input.ndim == 0:
        raise ShapeError(
            "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
        )
    axis = one_axis(dim, input.ndim)
    n = input.array.shape[axis]
    if isinstance(how, Tensor):
        if how.array.dtype != np.int64 or how.ndim > 1:
            raise ShapeError(
                "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or "
                f"one-dimensional long tensor, but got {how.dtype} with {how.ndim} dims"
            )
        how = how.tolist()
    before = (slice(None),) * axis
    if isinstance(how, (list, tuple)):
        cuts = list(sizes(how, "tensor_split"))
        return tuple(
            [input[(*before, slice(a, b))] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
        )
    if isinstance(how, bool) or not hasattr(how, "__index__"):
        raise TypeError(f"tensor_split(): expected an int or a tuple of ints, not {how!r}")
    count = operator.index(how)
    if count <= 0:
        raise ShapeError(f"tensor_split: number of sections must be larger than 0, got {count}")
    each, more = divmod(n, count)
    return _split(input, [each * i + min(i, more) for i in range(1, count + 1)], axis)


def _nsplit(input: Tensor, how: Any, axis: int, least: int, name: str) -> tuple[Tensor, ...]:
    if input.ndim < least:
        raise ShapeError(
            f"{name} requires a tensor with at least {least} dimension, but got a tensor with "
            f"{input.ndim} dimensions!"
        )
    if not isinstance(how, (list, tuple)):
        if isinstance(how, bool) or not hasattr(how, "__index__"):
            raise TypeError(f"{name}(): expected an int or a tuple of ints, not {how!r}")
        if how <= 0:
            raise ShapeError(f"{name}: number of sections must be larger than 0, got {how}")
        if input.shape[axis] % how:
            raise ShapeError(
                f"{name} attempted to split along dimension {axis}, but the size of the dimension "
                f"{input.shape[axis]} is not divisible by the split_size {how}!"
            )
    return tensor_split(input, how, axis)


@function
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split along dimension 1 (0 for a 1-d tensor); the number of sections must divide its size.

    >>> import kilograd as kg
    >>> kg.arange(4).hsplit(2)
    (tensor([0, 1]), tensor([2, 3]))
    """
    return _nsplit(input, indices_or_sections, 0 if input.ndim == 1 else 1, 1, "hsplit")


@function
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split a tensor of two or more dimensions along dimension 0.

    >>> import kilograd as kg
    >>> [part.shape for part in kg.zeros(4, 3).vsplit(2)]
    [kilograd.Size([2, 3]), kilograd.Size([2, 3])]
    """
    return _nsplit(input, indices_or_sections, 0, 2, "vsplit")


@function
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Split a tensor of three or more dimensions along dimension 2.

    >>> import kilograd as kg
    >>> [part.shape for part in kg.zeros(1, 1, 4).dsplit(2)]
    [kilograd.Size([1, 1, 2]), kilograd.Size([1, 1, 2])]
    """
    return _nsplit(input, indices_or_sections, 2, 3, "dsplit")


@function
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the slices along a dimension, without it.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).unbind(1)
    (tensor([1, 3]), tensor([2, 4]))
    """
    if input.ndim == 0:
        raise IndexError("unbind: Dimension specified as 0 but tensor has no dimensions")
    axis = one_axis(dim, input.ndim)
    before = (slice(None),) * axis
    indices = [(*before, i) for i in range(input.array.shape[axis])]
    if not indices:
        return ()
    return _views(input, ops.unbind, {"axis": axis}, indices)


@function
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one slice along a dimension, without it; IndexError if there is no such slice.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).select(1, 0)
    tensor([1, 3])
    """
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    axis = one_axis(dim, input.ndim)
    n, i = input.array.shape[axis], operator.index(index)
    if not -n <= i < n:
        raise IndexError(
            f"select(): index {i} out of range for tensor of size {list(input.shape)} at dimension {axis}"
        )
    return apply(index_ops.getitem, (input,), {"index": (*(slice(None),) * axis, i, ...)})


@function
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of ``length`` slices from ``start`` along a dimension.

    >>> import kilograd as kg
    >>> kg.arange(5).narrow(0, 1, 3)
    tensor([1, 2, 3])
    """
    if input.ndim == 0:
        raise ShapeError("narrow() cannot be applied to a 0-dim tensor.")
    if length < 0:
        raise ShapeError("narrow(): length must be non-negative.")
    if isinstance(start, Tensor) and (start.ndim or start.array.dtype.kind not in "iu"):
        raise ShapeError("narrow(): start must be an 0-dim integral Tensor.")
    axis = one_axis(dim, input.ndim)
    n, begin = input.array.shape[axis], operator.index(start)
    if not -n <= begin <= n:
        raise IndexError(
            f"narrow(): start out of range (expected to be in [{-n}, {n}], but got {begin})"
        )
    begin = begin + n if begin < 0 else begin
    if begin + length > n:
        raise ShapeError(
            f"narrow(): start ({begin}) + length ({length}) exceeds dimension size ({n})."
        )
    index = (*(slice(None),) * axis, slice(begin, begin + length))
    return apply(index_ops.getitem, (input,), {"index": index})


@function
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A copy of what :func:`narrow` shows.

    >>> import kilograd as kg
    >>> kg.arange(5).narrow_copy(0, 1, 3)
    tensor([1, 2, 3])
    """
    return apply(ew.clone, (narrow(input, dim, start, length),))


# --- order of elements --------------------------------------------------------------------------------


@variadic
@function(method=False)
def flip(input: Tensor, dims: Shape) -> Tensor:
    """The order of elements reversed along dimensions; a copy.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).flip(0)
    tensor([[3, 4],
            [1, 2]])
    """
    axes = [one_axis(d, input.ndim) for d in sizes(dims, "flip")]
    for a in axes:
        if axes.count(a) > 1:
            raise ShapeError(f"flip: dim {a} appears multiple times in the list of dims")
    return apply(ops.flip, (input,), {"axes": tuple(axes) if input.ndim else ()})


@function
def fliplr(input: Tensor) -> Tensor:
    """The columns of a matrix in reverse order.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).fliplr()
    tensor([[2, 1],
            [4, 3]])
    """
    if input.ndim < 2:
        raise ShapeError("fliplr: Input must be >= 2-d.")
    return flip(input, (1,))


@function
def flipud(input: Tensor) -> Tensor:
    """The rows of a matrix in reverse order.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).flipud()
    tensor([[3, 4],
            [1, 2]])
    """
    if input.ndim < 1:
        raise ShapeError("flipud: Input must be >= 1-d.")
    return flip(input, (0,))


@function
def roll(input: Tensor, shifts: Shape, dims: Shape | None = None) -> Tensor:
    """Elements shifted along dimensions, those pushed out re-entering at the other end.

    Without ``dims`` the tensor is rolled as if flat.

    >>> import kilograd as kg
    >>> kg.arange(4).roll(1)
    tensor([3, 0, 1, 2])
    """
    by = sizes(shifts, "roll")
    axes = () if dims is None else sizes(dims, "roll")
    if not by:
        raise ShapeError("roll: `shifts` required")
    if not axes and len(by) == 1:
        return apply(ops.roll, (input,), {"shifts": by[0], "axes": None})
    if len(by) != len(axes):
        raise ShapeError(
            f"roll: shifts and dimensions must align. shifts: {len(by)}, dims:{len(axes)}"
        )
    if input.ndim == 0:
        raise IndexError("roll: Dimension specified as 0 but tensor has no dimensions")
    axes = tuple([one_axis(d, input.ndim) for d in axes])
    return apply(ops.roll, (input,), {"shifts": by, "axes": axes})


@function
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated by 90 degrees ``k`` times, from the first of two dimensions towards the second.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).rot90()
    tensor([[2, 4],
            [1, 3]])
    """
    if len(dims) != 2:
        raise ShapeError(f"rot90: expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise ShapeError(f"rot90: expected total dims >= 2, but got total dims = {input.ndim}")
    if dims[0] == dims[1] or abs(dims[0] - dims[1]) == input.ndim:
        raise ShapeError(
            f"rot90: expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}"
        )
    a, b = one_axis(dims[0], input.ndim), one_axis(dims[1], input.ndim)
    k %= 4
    if k == 1:
        return transpose(flip(input, (b,)), a, b)
    if k == 2:
        return flip(input, (a, b))
    if k == 3:
        return flip(transpose(input, a, b), (b,))
    return apply(ew.clone, (input,))


# --- windows and strides --------------------------------------------------------------------------------


@method
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of ``size`` elements along a dimension, ``step`` apart.

    The windows' elements are the last dimension of the result.

    >>> import kilograd as kg
    >>> kg.arange(4).unfold(0, 2, 1)
    tensor([[0, 1],
            [1, 2],
            [2, 3]])
    """
    axis = one_axis(dimension, self.ndim)
    n = self.array.shape[axis] if self.ndim else 1
    if size < 0:
        raise ShapeError(f"unfold: size is {size} but must be >= 0")
    if size > n:
        raise ShapeError(
            f"unfold: maximum size for tensor at dimension {axis} is {n} but size is {size}"
        )
    if step <= 0:
        raise ShapeError(f"unfold: step is {step} but must be > 0")
    return apply(ops.unfold, (self,), {"axis": axis, "size": size, "step": step})


@function
def as_strided(
    input: Tensor, size: Shape, stride: Shape, storage_offset: int | None = None
) -> Tensor:
    """A view of the memory that ``input`` lies in, by shape and strides (in elements).

    Raises RuntimeError for strides that are negative or lead out of the memory.

    >>> import kilograd as kg
    >>> kg.arange(6).as_strided((2, 3), (1, 2))
    tensor([[0, 2, 4],
            [1, 3, 5]])
    """
    shape, strides = sizes(size, "as_strided"), sizes(stride, "as_strided")
    own = input.storage_offset()
    offset = own if storage_offset is None else operator.index(storage_offset)
    if len(shape) != len(strides):
        raise ShapeError(
            f"as_strided: mismatch in length of strides and shape: {list(strides)}, {list(shape)}"
        )
    if any(s < 0 for s in strides):
        raise ShapeError(
            f"as_strided: Negative strides are not supported, got strides: {list(strides)}"
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = ops.owner(input.array).nbytes // input.array.itemsize
    if math.prod(shape) and (last >= memory or offset < 0):
        raise ShapeError(
            f"as_strided: sizes {list(shape)}, strides {list(strides)}, storage offset {offset} are "
            f"out of bounds for a memory of {memory} elements"
        )
    geometry = (tuple(input.array.shape), element_strides(input.array), own)
    options = {"shape": shape, "stride": strides, "offset": offset, "own": geometry}
    return apply(index_ops.as_strided, (input,), options)


@variadic
def sum_to_size(self: Tensor, size: Shape) -> Tensor:
    """Summed over the dimensions along which a tensor of this size would be broadcast.

    >>> import kilograd as kg
    >>> kg.ones(2, 3).sum_to_size(1, 3)
    tensor([[2., 2., 2.]])
    """
    shape, old = sizes(size, "sum_to_size"), self.array.shape
    lead = len(old) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, old[lead:], strict=True)):
        raise ShapeError(f"size {list(shape)} is not expandable to size {list(old)}.")
    return self if shape == old != () else driver.unbroadcast(self, shape)

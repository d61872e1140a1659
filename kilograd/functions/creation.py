"""Tensors from numbers, arrays and other tensors; their dtypes asked, changed and combined."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import DtypeError, GradError, ShapeError
from kilograd.functions.calling import function
from kilograd.functions.index import number
from kilograd.functions.shape import Shape, channels_last, channels_last_3d, method, sizes, variadic
from kilograd.kernels.kernel import CHANGES
from kilograd.ops import elementwise as ew
from kilograd.ops import index as index_ops
from kilograd.ops import shape as shape_ops
from kilograd.size import Size
from kilograd.size import device as Device
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor", "arange", "as_tensor", "asarray", "can_cast",
    "clone", "empty", "empty_like", "empty_permuted", "empty_strided", "eye", "finfo",
    "from_numpy", "frombuffer", "full", "full_like", "iinfo", "is_tensor", "linspace", "logspace",
    "ones", "ones_like", "promote_types", "result_type", "scalar_tensor", "strided", "tensor", "zeros", "zeros_like",
]  # fmt: skip

Array = np.ndarray[Any, Any]
strided = "strided"  # the one layout, as in `x.layout == kg.strided`


def made(array: Array, requires_grad: bool = False, device: Any = None) -> Tensor:
    """The tensor a factory returns: a leaf, on the CPU."""
    if device is not None:
        Device(device)  # raises for any other
    t = wrap(array)
    if requires_grad:
        t.requires_grad = True
    return t


def _floating(dtype: Any) -> np.dtype[Any]:
    return dtypes.get_default_dtype().dtype if dtype is None else dtypes.as_dtype(dtype).dtype


def shape_of(size: tuple[Any, ...], keyword: Any, name: str) -> tuple[int, ...]:
    """The shape given as ``f(2, 3)``, ``f((2, 3))`` or ``f(size=(2, 3))``."""
    if keyword is not None:
        size = (keyword,)
    if not size:
        raise TypeError(f'{name}() missing 1 required positional arguments: "size"')
    shape = sizes(size[0] if len(size) == 1 else size, name)
    for n in shape:
        if n < 0:
            raise ShapeError(f"{name}: Dimension size must be non-negative, got {list(shape)}")
    return shape


# --- from data ------------------------------------------------------------------------------------


@function(method=False)
def tensor(
    data: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
    graph: Any = None,
) -> Tensor:
    """A new leaf with a copy of ``data``: a number, nested sequences, an array or a tensor.

    Python floats become the default dtype, ints int64; arrays keep theirs. ``graph``: a
    :class:`kilograd.Graph` that it belongs to. Raises ValueError for ragged sequences and integers
    beyond 64 bits, TypeError for strings and unknown dtypes.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]), kg.tensor(0.5)
    (tensor([[1, 2],
            [3, 4]]), tensor(0.5000))
    """
    if graph is not None:
        return graph.tensor(data, dtype=dtype, requires_grad=requires_grad)
    return made(array_of(data, dtypes.numpy_dtype(dtype)), requires_grad, device)


def array_of(data: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """A new array of the data :func:`tensor` takes."""
    data = _plain(data)
    kind = type(data)
    if kind in _PYTHON:
        return _from_python(data, {kind}, dtype)
    if isinstance(data, (Tensor, np.ndarray, np.generic)):
        return _changed(_numeric(getattr(data, "array", data)), dtype, copy=True)
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{kind.__name__}'")
    if hasattr(data, "__array__") or hasattr(data, "__array_interface__"):
        return _changed(_numeric(np.asarray(data)), dtype, copy=True)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, dict):
        raise ShapeError(f"Could not infer dtype of {kind.__name__}")
    if kind is not list and kind is not tuple:
        data = list(data)
    kinds = _leaf_kinds(data)
    if kinds <= _PYTHON:
        return _from_python(data, kinds, dtype)
    return _changed(_stacked(data, 0), dtype)


_PYTHON = {bool, int, float, complex}


def _leaf_kinds(data: Any) -> set[type]:
    """The types of what nested lists hold at their ends."""
    kinds = set(map(type, data))
    for container in (list, tuple):
        if container in kinds:
            kinds.discard(container)
            for row in data:
                if type(row) is container:
                    kinds |= _leaf_kinds(row)
    return kinds


def _from_python(data: Any, kinds: set[type], dtype: np.dtype[Any] | None) -> Array:
    """Python numbers, in any nest: the fast road."""
    highest = (
        3 if complex in kinds else 2 if float in kinds or not kinds else 1 if int in kinds else 0
    )
    if dtype is None:
        dtype = dtypes.default_array_dtype(highest)
    elif highest == 3 and dtype.kind not in "cb":
        raise TypeError("must be real number, not complex")
    try:
        if highest == 1 and dtype.kind in "fc":
            return np.array(data, np.float64).astype(dtype)
        if highest == 2 and dtype.kind in "iu":
            with np.errstate(invalid="ignore"):
                return np.array(data, np.float64).astype(dtype)
        if dtype.kind == "u" and highest == 1:  # -1 wraps, as in C
            return np.asarray(_within(np.array(data, np.int64), dtype).astype(dtype))
        with np.errstate(over="ignore"):
            return np.array(data, dtype)
    except OverflowError:
        if dtype.itemsize == 8:
            raise ValueError(
                "Overflow when unpacking long long: an integer needs over 64 bits"
            ) from None
        raise DtypeError(f"value cannot be converted to type {dtype} without overflow") from None
    except ValueError:
        _check_even(data)
        raise


def _within(x: Array, dtype: np.dtype[Any]) -> Array:
    high = np.iinfo(dtype).max
    if x.size and (x.max() > high or x.min() < -high):
        raise DtypeError(f"value cannot be converted to type {dtype} without overflow")
    return x


def _check_even(data: Any, depth: int = 0) -> tuple[int, ...]:
    """The shape of nested sequences; ValueError or TypeError where they are ragged."""
    if not isinstance(data, (list, tuple)):
        return ()
    if not any(isinstance(row, (list, tuple)) for row in data):
        return (len(data),)
    first = data[0]
    shape: tuple[int, ...] = ()
    for i, row in enumerate(data):
        if isinstance(row, (list, tuple)) != isinstance(first, (list, tuple)):
            raise TypeError(
                f"not a sequence: element {i} at dim {depth + 1} of the data is {row!r}"
            )
        if len(row) != len(first):
            raise ValueError(
                f"expected sequence of length {len(first)} at dim {depth + 1} (got {len(row)})"
            )
        below = _check_even(row, depth + 1)
        if i and below != shape:
            raise ValueError(
                f"expected sequences of shape {shape} at dim {depth + 1} (got {below})"
            )
        shape = below
    return (len(data), *shape)


def _plain(value: Any) -> Any:
    """A number as a plain one, which a size of a lazy tensor is not (but for its ``__class__``)."""
    kind = value.__class__
    return kind(value) if kind in (int, float) and type(value) is not kind else value


def _stacked(data: Any, depth: int) -> Array:
    """Nested sequences that hold tensors, arrays or NumPy numbers: each has a dtype to promote."""
    data = _plain(data)
    if isinstance(data, Tensor):
        if data.array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return np.asarray(data.array.reshape(()))
    if type(data) in _PYTHON:
        return _from_python(data, {type(data)}, None)
    if isinstance(data, (np.ndarray, np.generic)):
        return _numeric(data)
    if isinstance(data, (str, bytes)):
        raise ValueError(f"too many dimensions '{type(data).__name__}'")
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, dict):
        raise ShapeError(f"Could not infer dtype of {type(data).__name__}")
    rows = [_stacked(row, depth + 1) for row in data]
    if not rows:
        return np.zeros(0, dtypes.get_default_dtype().dtype)
    for row in rows:
        if row.shape != rows[0].shape:
            if row.ndim != rows[0].ndim:
                raise TypeError(
                    f"not a sequence: shapes {rows[0].shape} and {row.shape} at dim {depth + 1}"
                )
            raise ValueError(
                f"expected sequence of length {len(rows[0])} at dim {depth + 1} (got {len(row)})"
            )
    dtype = functools.reduce(dtypes.promote_types, [row.dtype for row in rows], rows[0].dtype)
    return np.stack(rows).astype(dtypes.as_dtype(dtype).dtype, copy=False)


def _numeric(array: Any) -> Array:
    """An array of a dtype we have, in the machine's byte order; TypeError otherwise."""
    array = np.asarray(array)
    if array.dtype not in dtypes.FROM_NUMPY:
        native = array.dtype.newbyteorder("=")
        if native in dtypes.FROM_NUMPY:
            return array.astype(native)
        raise TypeError(
            f"can't convert np.ndarray of type numpy.{array.dtype.type.__name__}. The only supported "
            f"types are: {', '.join(d.name for d in dtypes.ALL)}."
        )
    return array


def _changed(array: Array, dtype: np.dtype[Any] | None, copy: bool = False) -> Array:
    if dtype is None or array.dtype == dtype:
        return array.copy() if copy else array
    if array.dtype.kind == "c" and dtype.kind not in "cb":
        array = array.real
    with np.errstate(all="ignore"):
        return array.astype(dtype)


@function(method=False)
def from_numpy(ndarray: Any) -> Tensor:
    """A tensor that shares the array's memory; TypeError for dtypes kilograd does not have.

    >>> import kilograd as kg
    >>> import numpy as np
    >>> kg.from_numpy(np.float32([1, 2]))
    tensor([1., 2.])
    """
    if isinstance(ndarray, Tensor):  # the calling convention has wrapped it already
        ndarray = ndarray.array
    elif not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if ndarray.dtype not in dtypes.FROM_NUMPY:
        _numeric(ndarray)
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion "
            "between byte orders is currently not supported."
        )
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. Make a copy with array.copy()."
        )
    return wrap(ndarray)


@function(method=False)
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, without copying where its memory can be shared.

    >>> import kilograd as kg
    >>> x = kg.ones(2)
    >>> kg.as_tensor(x) is x, kg.as_tensor([1, 2])
    (True, tensor([1, 2]))
    """
    if device is not None:
        Device(device)
    if isinstance(data, np.ndarray):
        data = wrap(_numeric(data))
    if isinstance(data, Tensor):
        return data if dtype is None else to(data, dtype)
    return wrap(array_of(data, dtypes.numpy_dtype(dtype)))


@function(method=False)
def asarray(
    obj: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """``obj`` as a tensor; ``copy`` True always copies, False never (ValueError), None where needed.

    >>> import kilograd as kg
    >>> kg.asarray([1.0, 2.0])
    tensor([1., 2.])
    """
    t: Tensor = as_tensor(obj, dtype, device)
    shared = isinstance(obj, (Tensor, np.ndarray)) and np.shares_memory(
        t.array, getattr(obj, "array", obj)
    )
    if copy is False and not shared and t.numel():
        raise ValueError("asarray(): can't alias the given object without copying it")
    if copy and shared:
        t = apply(ew.clone, (t,))
    if requires_grad and not t.requires_grad:
        t = t.detach()
        t.requires_grad = True
    elif not requires_grad and t.requires_grad:
        t = t.detach()
    return t


@function(method=False)
def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A 1-d tensor that shares the memory of a bytes-like object; ValueError if it is too short.

    >>> import kilograd as kg
    >>> kg.frombuffer(bytearray([1, 2, 3]), dtype=kg.uint8, offset=1)
    tensor([2, 3], dtype=kilograd.uint8)
    """
    kind = dtypes.as_dtype(dtype)
    length = memoryview(buffer).nbytes
    if length == 0 or count == 0:
        raise ValueError(f"both buffer length ({length}) and count ({count}) must not be 0")
    if not 0 <= offset < length:
        raise ValueError(
            f"offset ({offset} bytes) must be non-negative and no greater than buffer length "
            f"({length} bytes) - 1"
        )
    if count < 0 and (length - offset) % kind.itemsize:
        raise ValueError(
            f"buffer length ({length - offset} bytes) after offset ({offset} bytes) must be a multiple "
            f"of element size ({kind.itemsize})"
        )
    if count > 0 and offset + count * kind.itemsize > length:
        raise ValueError(
            f"requested buffer length ({count} * {kind.itemsize} bytes) after offset ({offset} bytes) "
            f"must not be greater than actual buffer length ({length} bytes)"
        )
    return made(np.frombuffer(buffer, kind.dtype, count, offset), requires_grad)


# --- filled ---------------------------------------------------------------------------------------


@function(method=False)
def zeros(
    *args: Any, size: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros of a shape, ``zeros(2, 3)`` or ``zeros((2, 3))``, in the default dtype or ``dtype``.

    >>> import kilograd as kg
    >>> kg.zeros(2, 2)
    tensor([[0., 0.],
            [0., 0.]])
    """
    return made(np.zeros(shape_of(args, size, "zeros"), _floating(dtype)), requires_grad, device)


@function(method=False)
def ones(
    *args: Any, size: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Ones of a shape.

    >>> import kilograd as kg
    >>> kg.ones(2, dtype=kg.int64)
    tensor([1, 1])
    """
    return made(np.ones(shape_of(args, size, "ones"), _floating(dtype)), requires_grad, device)


@function(method=False)
def empty(
    *args: Any, size: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor of a shape whose elements are whatever the memory held.

    >>> import kilograd as kg
    >>> kg.empty(2, 3).shape
    kilograd.Size([2, 3])
    """
    t = wrap(np.empty(shape_of(args, size, "empty"), _floating(dtype)))
    if memory_format in (channels_last, channels_last_3d):
        t = t.contiguous(memory_format=memory_format)
    return made(t.array, requires_grad, device)


@function(method=False)
def full(
    size: Shape, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of a shape with every element ``fill_value``, whose type decides the dtype.

    >>> import kilograd as kg
    >>> kg.full((2,), 7), kg.full((2,), 0.5)
    (tensor([7, 7]), tensor([0.5000, 0.5000]))
    """
    shape = shape_of((size,), None, "full")
    scalar = isinstance(fill_value, Tensor) and fill_value.ndim == 0
    value = fill_value.item() if scalar else _plain(fill_value)
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) not in _PYTHON:
        raise TypeError(f"full(): argument 'fill_value' must be Number, not {type(value).__name__}")
    kind = dtypes.numpy_dtype(dtype) or dtypes.default_array_dtype(
        (bool, int, float, complex).index(type(value))
    )
    return made(np.full(shape, number(value, kind, "full"), kind), requires_grad, device)


@function(method=False)
def eye(
    n: int, m: int | None = None, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The n × m matrix with ones on the diagonal.

    >>> import kilograd as kg
    >>> kg.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    rows = operator.index(n)
    columns = rows if m is None else operator.index(m)
    if rows < 0 or columns < 0:
        raise ShapeError(f"eye: n and m must be greater or equal to 0, got {rows} and {columns}")
    return made(np.eye(rows, columns, dtype=_floating(dtype)), requires_grad, device)


def _like(input: Any, dtype: Any, name: str) -> tuple[Array, np.dtype[Any]]:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}"
        )
    return input.array, input.array.dtype if dtype is None else dtypes.as_dtype(dtype).dtype


@function(method=False)
def zeros_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Zeros in the shape and dtype of a tensor.

    >>> import kilograd as kg
    >>> kg.zeros_like(kg.ones(2))
    tensor([0., 0.])
    """
    x, kind = _like(input, dtype, "zeros_like")
    return made(np.zeros_like(x, kind), requires_grad, device)


@function(method=False)
def ones_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """Ones in the shape and dtype of a tensor.

    >>> import kilograd as kg
    >>> kg.ones_like(kg.zeros(2), dtype=kg.int64)
    tensor([1, 1])
    """
    x, kind = _like(input, dtype, "ones_like")
    return made(np.ones_like(x, kind), requires_grad, device)


@function(method=False)
def empty_like(
    input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor in the shape and dtype of another, its elements whatever the memory held.

    >>> import kilograd as kg
    >>> kg.empty_like(kg.zeros(2, 3)).shape
    kilograd.Size([2, 3])
    """
    x, kind = _like(input, dtype, "empty_like")
    return made(np.empty_like(x, kind), requires_grad, device)


@function(method=False)
def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor in the shape and dtype of another with every element ``fill_value``.

    >>> import kilograd as kg
    >>> kg.full_like(kg.zeros(2), 7)
    tensor([7., 7.])
    """
    x, kind = _like(input, dtype, "full_like")
    value = number(fill_value, kind, "full_like")
    return made(np.full_like(x, getattr(value, "array", value), kind), requires_grad, device)


@function(method=False)
def scalar_tensor(
    s: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A 0-d tensor of a number, in the default dtype unless told otherwise.

    >>> import kilograd as kg
    >>> kg.scalar_tensor(3)
    tensor(3.)
    """
    if isinstance(s, complex) and dtype is None:
        dtype = dtypes.get_default_dtype().to_complex()
    kind = _floating(dtype)
    value = number(s, kind, "scalar_tensor")
    return made(np.asarray(getattr(value, "array", value), kind), requires_grad, device)


@function(method=False)
def empty_strided(
    size: Shape, stride: Shape, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of a shape whose elements lie in memory ``stride`` elements apart.

    >>> import kilograd as kg
    >>> kg.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    return made(_strided_array(size, stride, _floating(dtype)), requires_grad, device)


def _strided_array(size: Shape, stride: Shape, kind: np.dtype[Any]) -> Array:
    shape, strides = shape_of((size,), None, "empty_strided"), sizes(stride, "empty_strided")
    if len(shape) != len(strides):
        raise ShapeError(
            f"empty_strided: dimensionality of sizes ({len(shape)}) must match dimensionality of "
            f"strides ({len(strides)})"
        )
    if any(s < 0 for s in strides):
        raise ShapeError(f"empty_strided: strides must be non-negative, got {list(strides)}")
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = np.zeros(extent if math.prod(shape) else 0, kind)
    return shape_ops.strided(memory, shape, tuple(s * kind.itemsize for s in strides))


@function(method=False)
def empty_permuted(
    size: Shape, physical_layout: Shape, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of a shape whose dimensions lie in memory in the order ``physical_layout``.

    >>> import kilograd as kg
    >>> kg.empty_permuted((2, 3), (1, 0)).stride()
    (1, 2)
    """
    shape, order = (
        shape_of((size,), None, "empty_permuted"),
        sizes(physical_layout, "empty_permuted"),
    )
    if len(order) != len(shape):
        raise ShapeError(
            f"empty_permuted: Number of dimensions in size ({len(shape)}) does not match the length of "
            f"the physical_layout ({len(order)})"
        )
    for d in order:
        if not 0 <= d < len(shape):
            raise ShapeError(
                f"empty_permuted: Dimension out of range (expected to be between 0 and {len(shape) - 1}, "
                f"but got {d})"
            )
        if order.count(d) > 1:
            raise ShapeError(f"empty_permuted: Duplicate dim not allowed: {d}")
    memory = np.empty([shape[d] for d in order], _floating(dtype))
    return made(
        memory.transpose([order.index(i) for i in range(len(order))]), requires_grad, device
    )


# --- ranges -----------------------------------------------------------------------------------------


def _scalar(value: Any, name: str) -> Any:
    """A Python number from a number or a 0-d tensor."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise ShapeError(
                f"{name} only supports 0-dimensional start and end tensors, but got one with "
                f"{value.ndim} dimension(s)."
            )
        return value.item()
    if isinstance(value, np.generic):
        return value.item()
    if type(value) not in _PYTHON and not isinstance(value, int):  # (a size of a lazy tensor)
        raise TypeError(f"{name}(): expected a number, got {type(value).__name__}")
    return value


_MISSING: Any = object()


@function(method=False)
def arange(
    start: Any = _MISSING, end: Any = _MISSING, step: Any = 1, *, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The numbers from ``start`` (0 if left out) below ``end``, ``step`` apart; int64 if all are ints.

    Raises RuntimeError if the step is zero or leads away from ``end``.

    >>> import kilograd as kg
    >>> kg.arange(3), kg.arange(1, 2, 0.5)
    (tensor([0, 1, 2]), tensor([1.0000, 1.5000]))
    """
    if end is _MISSING:
        if start is _MISSING:
            raise TypeError('arange() missing 1 required positional arguments: "end"')
        start, end = 0, start
    elif start is _MISSING:
        start = 0
    start, end, step = (_scalar(v, "arange") for v in (start, end, step))
    whole = not any(isinstance(v, float) for v in (start, end, step))
    kind = np.dtype(np.int64) if dtype is None and whole else _floating(dtype)
    if not whole and not (math.isfinite(start) and math.isfinite(end)):
        raise ShapeError(f"arange: unsupported range: {start} -> {end}")
    if step == 0:
        raise ShapeError("arange: step must be nonzero")
    if (end - start) * step < 0:
        raise ShapeError("arange: upper bound and lower bound inconsistent with step sign")
    if kind == np.int64:  # whole parts alone count
        start, end, step = int(start), int(end), int(step)
        return made(np.arange(start, end, step or 1), requires_grad, device)
    n = -((start - end) // step) if whole else math.ceil((end - start) / step)
    if kind.kind in "iu":
        start, step = int(start), int(step)
    if kind.kind == "f":
        return made(_counted(start, step, n, kind), requires_grad, device)
    return made((start + step * np.arange(n)).astype(kind), requires_grad, device)


@function(method=False)
def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """``steps`` numbers from ``start`` to ``end``, both included, at equal distances.

    >>> import kilograd as kg
    >>> kg.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return made(_linspace(start, end, steps, dtype, "linspace"), requires_grad, device)


def _linspace(start: Any, end: Any, steps: Any, dtype: Any, name: str) -> Array:
    start, end, steps = _scalar(start, name), _scalar(end, name), operator.index(steps)
    if steps < 0:
        raise ShapeError(f"{name}: number of steps must be non-negative, got {steps}")
    is_complex = isinstance(start, complex) or isinstance(end, complex)
    kind = (
        dtypes.numpy_dtype(dtype)
        or (
            dtypes.get_default_dtype().to_complex() if is_complex else dtypes.get_default_dtype()
        ).dtype
    )
    if is_complex and kind.kind != "c":
        raise DtypeError(f"{name}(): inferred dtype complex can't be safely cast to {kind}")
    if kind.kind in "iu":
        start, end = int(start), int(end)
    own: Any = np.float64 if kind.kind in "iub" else kind.type  # what PyTorch counts in
    wide: Any = _WIDER.get(own, own)
    with np.errstate(all="ignore"):
        first, last = own(start), own(end)
        if steps < 2:
            return np.full(steps, first).astype(kind)
        step = wide((last - first) / own(steps - 1))
        i = np.arange(steps)
        up = wide(first) + step * i.astype(own).astype(wide)  # from both ends to the middle
        down = wide(last) - step * i[::-1].astype(own).astype(wide)
        return np.where(i < steps // 2, up, down).astype(own).astype(kind)


# Where the product in a + b·i must not be rounded before the sum (PyTorch's builds multiply and add
# in one instruction), it is computed in the next wider type.
_WIDER: Any = {np.float32: np.float64, np.float64: np.longdouble}


def _counted(start: Any, step: Any, n: int, kind: np.dtype[Any]) -> Array:
    """``start + step * i`` for i below n, rounded as PyTorch's vector code rounds.

    Whole pairs of vectors (of 8 float32, 4 float64) count on from a rounded first element each; the
    rest are computed one by one.
    """
    i = np.arange(n)
    wide: Any = np.longdouble
    exact = wide(start) + wide(step) * i
    lanes = {4: 8, 8: 4}.get(kind.itemsize if kind.kind == "f" else 0)
    if lanes is None:
        return exact.astype(kind)
    each = exact.astype(np.float64).astype(kind)
    paired = n // (2 * lanes) * (2 * lanes)
    base = each[i[:paired] // lanes * lanes].astype(wide)
    each[:paired] = (base + i[:paired] % lanes * wide(step)).astype(np.float64)
    return each


@function(method=False)
def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """``base`` to the powers of ``linspace(start, end, steps)``.

    >>> import kilograd as kg
    >>> kg.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    kind = _floating(dtype)
    wide: Any = kind if kind.kind in "fc" else np.dtype(np.float64)
    if kind.kind in "iu":
        start, end = int(_scalar(start, "logspace")), int(_scalar(end, "logspace"))
    powers = _linspace(start, end, steps, dtypes.as_dtype(wide), "logspace")
    if kind.kind in "fc" and kind.itemsize < 8:
        powers = powers.astype(np.float64)
    with np.errstate(all="ignore"):
        return made(np.power(float(base), powers).astype(kind), requires_grad, device)


# --- new tensors from a tensor ------------------------------------------------------------------------


@method
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A copy of ``data`` as a leaf of this tensor's dtype."""
    return made(
        array_of(data, dtypes.numpy_dtype(dtype) or self.array.dtype), requires_grad, device
    )


def _new(name: str, make: Callable[..., Array]) -> None:
    def new(
        self: Tensor, *args: Any, size: Any = None, dtype: Any = None, device: Any = None,
        requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
    ) -> Tensor:  # fmt: skip
        kind = dtypes.numpy_dtype(dtype) or self.array.dtype
        return made(make(shape_of(args, size, name), kind), requires_grad, device)

    new.__name__ = name
    new.__doc__ = f":func:`kilograd.{name[4:]}` of a shape in this tensor's dtype."
    setattr(Tensor, name, new)


_new("new_zeros", np.zeros)
_new("new_ones", np.ones)
_new("new_empty", np.empty)


@method
def new_full(
    self: Tensor, size: Shape, fill_value: Any, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of a shape, in this tensor's dtype, with every element ``fill_value``."""
    kind = dtypes.numpy_dtype(dtype) or self.array.dtype
    value = number(fill_value, kind, "new_full")
    shape = shape_of((size,), None, "new_full")
    return made(np.full(shape, getattr(value, "array", value), kind), requires_grad, device)


@method
def new_empty_strided(
    self: Tensor, size: Shape, stride: Shape, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """:func:`kilograd.empty_strided` in this tensor's dtype."""
    kind = dtypes.numpy_dtype(dtype) or self.array.dtype
    return made(_strided_array(size, stride, kind), requires_grad, device)


@method
def new(self: Tensor, *args: Any) -> Tensor:
    """The old constructor: a tensor of this dtype from sizes, or from a sequence."""
    return _construct(self.dtype, args)


def _construct(dtype: dtypes.dtype, args: tuple[Any, ...]) -> Tensor:
    if not args or (isinstance(args[0], (int, np.integer)) and not isinstance(args[0], bool)):
        return wrap(np.zeros(sizes(args or (0,), f"{dtype.name} tensor"), dtype.dtype))
    (data,) = args
    if isinstance(data, Size):
        return wrap(np.zeros(data, dtype.dtype))
    if isinstance(data, Tensor):
        if data.dtype is not dtype:
            raise TypeError(f"expected a tensor of {dtype}, got one of {data.dtype}: use .to()")
        return data.detach()
    if isinstance(data, (float, bool, complex)):
        raise TypeError(f"new(): data must be a sequence (got {type(data).__name__})")
    return wrap(array_of(data, dtype.dtype))


class _TypedTensor(type):
    """``FloatTensor([1, 2])`` makes a float32 Tensor; ``isinstance(x, FloatTensor)`` asks its dtype."""

    dtype: dtypes.dtype

    def __call__(cls, *args: Any) -> Any:
        return _construct(cls.dtype, args)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


def _typed(name: str, dtype: dtypes.dtype) -> Any:
    doc = f"A tensor of {dtype.name} from sizes or a sequence; prefer :func:`kilograd.tensor`."
    return _TypedTensor(name, (), {"dtype": dtype, "__doc__": doc, "__module__": __name__})


FloatTensor = _typed("FloatTensor", dtypes.float32)
DoubleTensor = _typed("DoubleTensor", dtypes.float64)
HalfTensor = _typed("HalfTensor", dtypes.float16)
ByteTensor = _typed("ByteTensor", dtypes.uint8)
CharTensor = _typed("CharTensor", dtypes.int8)
ShortTensor = _typed("ShortTensor", dtypes.int16)
IntTensor = _typed("IntTensor", dtypes.int32)
LongTensor = _typed("LongTensor", dtypes.int64)
BoolTensor = _typed("BoolTensor", dtypes.bool_)
_TYPED = {
    t.dtype: t
    for t in (
        FloatTensor, DoubleTensor, HalfTensor, ByteTensor, CharTensor, ShortTensor, IntTensor,
        LongTensor, BoolTensor,
    )
}  # fmt: skip

# --- conversions --------------------------------------------------------------------------------------


@method
def to(
    self: Tensor, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False,
    copy: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """The tensor in a dtype (or another tensor's dtype) and on a device, which is the CPU.

    Returns the tensor itself if nothing changes and ``copy`` is not asked for.

    >>> import kilograd as kg
    >>> kg.tensor([1.5, -2.5]).to(kg.int64)
    tensor([ 1, -2])
    """
    for a in args:
        if isinstance(a, (dtypes.dtype, np.dtype, type)):
            dtype = a
        elif isinstance(a, Tensor):
            dtype = a.dtype
        elif isinstance(a, (str, Device, int)) and not isinstance(a, bool):
            device = a
        elif a is not None and not isinstance(a, bool):
            raise TypeError(f"to(): expected a dtype, device or tensor, not {type(a).__name__}")
    if device is not None and type(device) is not Device:
        Device(device if isinstance(device, str) else f"cuda:{device}")
    x = self
    if dtype is not None:
        kind = dtypes.as_dtype(dtype).dtype
        if kind != x.array.dtype:
            x = _cast(x, kind)
    if memory_format in (channels_last, channels_last_3d):
        x = x.contiguous(memory_format=memory_format)
    return apply(ew.clone, (x,)) if copy and x is self else x


def _cast(x: Tensor, kind: np.dtype[Any]) -> Tensor:
    if kind.kind == "f" == x.array.dtype.kind and kind.itemsize > x.array.dtype.itemsize:
        return apply(ew.cast, (x,), {"dtype": kind})
    with np.errstate(all="ignore"):  # what a smaller type cannot hold wraps or is inf, unannounced
        return apply(ew.cast, (x,), {"dtype": kind})


def _conversion(name: str, dtype: dtypes.dtype) -> None:
    kind = dtype.dtype

    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        return self if self.array.dtype == kind else _cast(self, kind)

    convert.__name__ = name
    convert.__doc__ = f"``self.to(kilograd.{dtype.name})``."
    setattr(Tensor, name, convert)


for _name, _dtype in {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16,
    "long": dtypes.int64, "int": dtypes.int32, "short": dtypes.int16, "char": dtypes.int8,
    "byte": dtypes.uint8, "bool": dtypes.bool_, "cfloat": dtypes.complex64,
    "cdouble": dtypes.complex128,
}.items():  # fmt: skip
    _conversion(_name, _dtype)


@method
def astype(self: Tensor, dtype: Any, copy: bool = True) -> Tensor:
    """NumPy's name for ``to(dtype)``; copies unless told not to."""
    return self.to(dtype, copy=copy)


def _type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, or the tensor converted to a type (a dtype, class or name).

    >>> import kilograd as kg
    >>> kg.ones(1).type(), kg.ones(1).type(kg.LongTensor)
    ('kilograd.FloatTensor', tensor([1]))
    """
    if dtype is None:
        typed = _TYPED.get(self.dtype)
        return f"kilograd.{typed.__name__ if typed else self.dtype.name}"
    if isinstance(dtype, str):
        named = {t.__name__: d for d, t in _TYPED.items()}
        found = named.get(dtype.split(".")[-1])
        if found is None:
            raise ValueError(f"invalid type: {dtype!r}")
        dtype = found
    elif isinstance(dtype, _TypedTensor):
        dtype = dtype.dtype
    return self.to(dtype)


Tensor.type = _type  # type: ignore[attr-defined]


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """``self.to(other.dtype)``."""
    return self.to(other.dtype)


@method
def cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself: it is on the CPU."""
    return self


@method
def cuda(
    self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> Tensor:
    """Raises RuntimeError: kilograd computes on the CPU only."""
    raise GradError(
        "kilograd computes on 'cpu' only: there is no 'cuda' device to move a tensor to"
    )


def _itself(name: str, doc: str) -> None:
    def same(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self

    same.__name__, same.__doc__ = name, doc
    setattr(Tensor, name, same)


_itself("pin_memory", "The tensor itself: there is no other device to copy it to faster.")
_itself("share_memory_", "The tensor itself.")
_itself("to_dense", "The tensor itself: all tensors are dense.")
_itself("resolve_conj", "The tensor itself: conjugates are never lazy.")
_itself("resolve_neg", "The tensor itself: negatives are never lazy.")


@method
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """False."""
    return False


@method
def is_shared(self: Tensor) -> bool:
    """False: memory is not shared with other processes."""
    return False


class Storage:
    """The memory that a tensor and its views look into."""

    def __init__(self, x: Array) -> None:
        self._memory = shape_ops.owner(x)
        self._dtype = x.dtype

    def data_ptr(self) -> int:
        """The address of its first byte."""
        return shape_ops.address(self._memory)

    def nbytes(self) -> int:
        """Its length in bytes."""
        return int(self._memory.nbytes)

    def size(self) -> int:
        """Its length in elements of the tensor it was asked from."""
        return self.nbytes() // self._dtype.itemsize

    __len__ = size

    def tolist(self) -> list[Any]:
        """Its elements, first to last."""
        memory = self._memory if self._memory.flags.c_contiguous else self._memory.T
        return list(memory.reshape(-1).view(self._dtype).tolist())


@method
def storage(self: Tensor) -> Storage:
    """The memory that this tensor and its views look into."""
    return Storage(self.array)


@method
def untyped_storage(self: Tensor) -> Storage:
    """The memory that this tensor and its views look into."""
    return Storage(self.array)


@method
def get_device(self: Tensor) -> int:
    """-1, the number of the CPU."""
    return -1


Tensor.is_cpu = True  # type: ignore[attr-defined]


@function
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy in memory of its own, through which gradients flow.

    >>> import kilograd as kg
    >>> x = kg.ones(2)
    >>> y = x.clone().zero_()
    >>> x
    tensor([1., 1.])
    """
    y = apply(ew.clone, (input,))
    if memory_format in (channels_last, channels_last_3d):
        return y.contiguous(memory_format=memory_format)
    return y


# --- written in place -----------------------------------------------------------------------------------


@method
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Write ``src`` (broadcast and converted to this dtype) into this tensor; returns it.

    Gradients flow to ``src``. Raises RuntimeError if the shapes do not broadcast.
    """
    source = src if isinstance(src, Tensor) else wrap(array_of(src))
    shape = self.array.shape
    try:
        fits = np.broadcast_shapes(shape, source.array.shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"copy_: a tensor of shape {list(source.shape)} cannot be broadcast into one of shape "
            f"{list(shape)}"
        )
    return self._inplace(_replaced, source)


def _replaced(old: Tensor, values: Any) -> Tensor:
    """Other values in the place of a tensor's: no gradient flows to what was there."""
    with np.errstate(all="ignore"):
        return apply(index_ops.fill, (old, values))


@method
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by what a Python function makes of it; slow. Returns the tensor."""
    new = np.array([callable(v) for v in self.array.ravel().tolist()], self.array.dtype)
    self._write(new.reshape(self.array.shape), "apply_")
    return self


@method
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by ``callable(element, element of the other tensor)``; slow."""
    other = np.broadcast_to(tensor.array, self.array.shape).ravel().tolist()
    pairs = zip(self.array.ravel().tolist(), other, strict=True)
    new = np.array([callable(a, b) for a, b in pairs], self.array.dtype)
    self._write(new.reshape(self.array.shape), "map_")
    return self


@variadic
def resize_(self: Tensor, size: Shape, *, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape: the first elements of its memory, and zeros beyond its end.

    Raises RuntimeError for a tensor that requires grad.
    """
    if self.requires_grad:
        raise GradError("cannot resize variables that require grad")
    shape = shape_of((size,), None, "resize_")
    x = self.array
    if shape == x.shape:
        return self
    memory = shape_ops.owner(x)
    need, start = math.prod(shape), self.storage_offset()
    if start + need > memory.nbytes // x.itemsize or not memory.flags.c_contiguous:
        longer = np.zeros(need, x.dtype)
        longer[: x.size] = x.reshape(-1)[:need]
        CHANGES[0] += 1
        self.array = longer.reshape(shape)
        self._view = None
    else:
        strides = shape_ops.packed_strides(shape, x.itemsize)
        CHANGES[0] += 1
        self.array = shape_ops.strided(x, shape, strides)
    self._cell[0] += 1
    return self


@method
def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """``self.resize_(the_template.size())``."""
    return self.resize_(the_template.array.shape)


@method
def set_(self: Tensor, source: Tensor) -> Tensor:
    """Make this tensor look into the memory of another; returns it."""
    if self.requires_grad:
        raise GradError("cannot set_ the memory of a tensor that requires grad")
    self.array, self._cell, self._view = source.array, source._cell, None
    return self


# --- questions ----------------------------------------------------------------------------------------


def is_tensor(obj: Any) -> bool:
    """Whether an object is a Tensor.

    >>> import kilograd as kg
    >>> kg.is_tensor(kg.ones(1)), kg.is_tensor([1.0])
    (True, False)
    """
    return isinstance(obj, Tensor)


@method
def is_signed(self: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return self.dtype.is_signed


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype of an operation on two tensors or numbers.

    >>> import kilograd as kg
    >>> kg.result_type(kg.arange(2), 1.0)
    kilograd.float32
    """
    values = [getattr(x, "array", x) for x in (tensor1, tensor2)]
    return dtypes.FROM_NUMPY[dtypes.result_numpy_dtype(*values)]


def can_cast(from_: Any, to: Any) -> bool:
    """Whether a dtype may be converted in place: not from float to int, nor from numbers to bool.

    >>> import kilograd as kg
    >>> kg.can_cast(kg.float64, kg.float32), kg.can_cast(kg.float32, kg.int64)
    (True, False)
    """
    a, b = dtypes.as_dtype(from_), dtypes.as_dtype(to)
    return dtypes.CATEGORY[a.dtype] <= dtypes.CATEGORY[b.dtype]


promote_types = dtypes.promote_types


class finfo:
    """The limits of a floating-point dtype (of the default dtype if none is given).

    >>> import kilograd as kg
    >>> kg.finfo(kg.float16).max, kg.finfo().bits
    (65504.0, 32)
    """

    def __init__(self, type: Any = None) -> None:
        d = dtypes.get_default_dtype() if type is None else dtypes.as_dtype(type).to_real()
        if not d.is_floating_point:
            raise TypeError(f"finfo() requires a floating point input type, not {d}: use iinfo")
        info = np.finfo(d.dtype)
        self.dtype = d.name
        self.bits = int(info.bits)
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.tiny)
        self.resolution = 10.0 ** -int(info.precision)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:.6g}, min={self.min:.6g}, max={self.max:.6g}, "
            f"eps={self.eps:.6g}, smallest_normal={self.smallest_normal:.6g}, tiny={self.tiny:.6g}, "
            f"dtype={self.dtype})"
        )


class iinfo:
    """The limits of an integer dtype.

    >>> import kilograd as kg
    >>> kg.iinfo(kg.int8)
    iinfo(min=-128, max=127, dtype=int8)
    """

    def __init__(self, type: Any) -> None:
        d = dtypes.as_dtype(type)
        if d.kind not in "iu":
            raise TypeError(f"iinfo() requires an integer input type, not {d}: use finfo")
        info = np.iinfo(d.dtype)
        self.dtype = d.name
        self.bits, self.min, self.max = int(info.bits), int(info.min), int(info.max)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"

"""Number types: PyTorch's names and promotion rules, on NumPy's dtypes.

``kg.float32`` is a :class:`dtype`: it compares equal to ``np.float32`` and NumPy accepts it as a
``dtype=`` argument. Promotion is PyTorch's: tensors with dimensions decide first, then 0-d
tensors, then Python scalars; a later group only matters when its *category*
(bool < integer < float < complex) is higher.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import CHANGES


class dtype:
    """A number type, e.g. ``kg.float32``.

    >>> import kilograd as kg
    >>> kg.float32, kg.float32.itemsize, kg.float32.is_floating_point
    (kilograd.float32, 4, True)
    >>> kg.int64 == np.int64, np.zeros(2, dtype=kg.int16).dtype
    (True, dtype('int16'))
    """

    __slots__ = ("dtype", "is_complex", "is_floating_point", "is_signed", "itemsize", "name")

    def __init__(self, numpy_name: str) -> None:
        self.dtype = np.dtype(numpy_name)  # NumPy reads this attribute: np.zeros(3, dtype=kg.int8)
        self.name = numpy_name
        self.is_floating_point = self.dtype.kind == "f"
        self.is_complex = self.dtype.kind == "c"
        self.is_signed = self.dtype.kind in "ifc"
        self.itemsize = self.dtype.itemsize

    @property
    def kind(self) -> str:
        """NumPy's one-letter kind: b, i, u, f or c."""
        return self.dtype.kind

    def __repr__(self) -> str:
        return f"kilograd.{self.name}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, dtype):
            return self is other
        try:
            return np.dtype(other) == self.dtype if other is not None else False  # type: ignore[call-overload]
        except TypeError:
            return False

    def __hash__(self) -> int:
        return hash(self.dtype)

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"

    def to_real(self) -> dtype:
        """The real type of a complex one: complex64 → float32; others unchanged."""
        return {complex64: float32, complex128: float64}.get(self, self)

    def to_complex(self) -> dtype:
        """The complex type that holds this one."""
        return complex128 if self in (float64, complex128) else complex64


float16 = half = dtype("float16")
float32 = float_ = dtype("float32")
float64 = double = dtype("float64")
int8 = dtype("int8")
int16 = short = dtype("int16")
int32 = int_ = dtype("int32")
int64 = long = dtype("int64")
uint8 = dtype("uint8")
uint16 = dtype("uint16")
uint32 = dtype("uint32")
uint64 = dtype("uint64")
bool_ = dtype("bool")
complex64 = cfloat = dtype("complex64")
complex128 = cdouble = dtype("complex128")

ALL = (
    (float16, float32, float64, int8, int16, int32, int64)
    + (uint8, uint16, uint32, uint64, bool_, complex64, complex128)
)  # fmt: skip
FROM_NUMPY = {d.dtype: d for d in ALL}
_BY_NAME = {d.name: d for d in ALL}
_PYTHON = {bool: bool_, int: int64, float: float64, complex: complex128}

_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
_SCALAR_CATEGORY = {bool: 0, int: 1, float: 2, complex: 3}
CATEGORY = {d.dtype: _CATEGORY[d.dtype.kind] for d in ALL}

_default = float32


def get_default_dtype() -> dtype:
    """The dtype of new floating-point tensors (float32 unless changed)."""
    return _default


def set_default_dtype(d: Any) -> None:
    """Set the dtype of new floating-point tensors; TypeError unless it is a floating-point type."""
    global _default
    d = as_dtype(d)
    if not d.is_floating_point:
        raise TypeError(f"set_default_dtype: only floating-point types can be the default, got {d}")
    _default = d
    CHANGES[0] += 1


def as_dtype(d: Any) -> dtype:
    """The kilograd dtype for a dtype, NumPy dtype, Python type or name.

    >>> as_dtype(np.float64), as_dtype(int), as_dtype("int8")
    (kilograd.float64, kilograd.int64, kilograd.int8)
    """
    if isinstance(d, dtype):
        return d
    if isinstance(d, type) and d in _PYTHON:
        return _PYTHON[d]  # float is float64, as in PyTorch and NumPy
    try:
        return FROM_NUMPY[np.dtype(d).newbyteorder("=")]
    except (TypeError, KeyError):
        names = ", ".join(_BY_NAME)
        raise TypeError(f"{d!r} is not a dtype kilograd knows; it has {names}") from None


def numpy_dtype(d: Any) -> np.dtype[Any] | None:
    """The NumPy dtype for any dtype-like, None for None."""
    return None if d is None else as_dtype(d).dtype


def default_array_dtype(kind: int) -> np.dtype[Any]:
    """The NumPy dtype a Python scalar of category ``kind`` takes when nothing else decides."""
    if kind == 3:
        return _default.to_complex().dtype
    return (bool_.dtype, int64.dtype, _default.dtype)[kind]


def _promote_two(a: np.dtype[Any] | None, b: np.dtype[Any] | None) -> np.dtype[Any] | None:
    if a is None or b is None or a == b:
        return a if b is None else b
    ca, cb = CATEGORY[a], CATEGORY[b]
    if ca == cb or ca == 3 or cb == 3:
        if ca == 3 and cb < 2:
            return a
        if cb == 3 and ca < 2:
            return b
        return np.promote_types(a, b)
    return a if ca > cb else b


def promote_types(a: Any, b: Any) -> dtype:
    """The dtype to which ``a`` and ``b`` both promote.

    >>> promote_types(int64, float16), promote_types(uint8, int8)
    (kilograd.float16, kilograd.int16)
    """
    result = _promote_two(as_dtype(a).dtype, as_dtype(b).dtype)
    assert result is not None
    return FROM_NUMPY[result]


def _outrank(a: np.dtype[Any] | None, b: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """The dtype of ``a`` beside the weaker ``b``, which counts only if its category is higher."""
    if a is None or b is None:
        return a if b is None else b
    if CATEGORY[a] == 2 and CATEGORY[b] == 3:
        return FROM_NUMPY[a].to_complex().dtype  # b says complex, a how precise
    return _promote_two(a, b) if CATEGORY[b] > CATEGORY[a] else a


def result_numpy_dtype(*values: Any) -> np.dtype[Any]:
    """The dtype of an operation on arrays and Python scalars together (PyTorch's categories)."""
    dims: np.dtype[Any] | None = None
    zeros: np.dtype[Any] | None = None
    scalar = -1
    for v in values:
        d = getattr(v, "dtype", None)
        if d is None:
            kind = _SCALAR_CATEGORY.get(type(v))
            if kind is None:
                raise TypeError(f"expected a tensor, array or number, got {type(v).__name__}")
            scalar = max(scalar, kind)
        elif d not in CATEGORY:
            raise TypeError(f"dtype {d} is not one kilograd computes with")
        elif v.ndim:
            dims = _promote_two(dims, d)
        else:
            zeros = _promote_two(zeros, d)
    number = default_array_dtype(scalar) if scalar >= 0 else None
    result = _outrank(dims, _outrank(zeros, number))
    assert result is not None, "result_type of nothing"
    return result

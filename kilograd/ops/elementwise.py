"""Elementwise ops: a column of functions, a column of derivatives.

Broadcasting is not mentioned here: the driver undoes it. Numbers of different types meet in
``typed``; rules return what the mathematics says and the driver keeps each input's dtype.

Read next: ``autograd/driver.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import DtypeError
from kilograd.kernels.activation import EXP_LIMIT, over
from kilograd.ops.op import Op, op

_FLOATS = "fc"
_FLOAT, _BOOL = np.dtype(float), np.dtype(bool)
_NUMBERS = (bool, int, float)


def typed(
    fn: Callable[..., Any],
    *,
    floats: bool = False,
    wide: bool = False,
    bools: bool = True,
    integers: bool = True,
    count: int = 2,
) -> Callable[..., Any]:
    """``fn`` on arrays brought to one dtype by PyTorch's promotion.

    ``floats`` says the result is a floating-point number also for integers (``exp``, ``divide``),
    ``wide`` that float16 is computed in float32 (a ufunc does so by itself). ``bools=False`` refuses
    any bool, ``integers=False`` refuses what does not promote to a floating-point number.
    """
    if wide:
        fn = _widened(fn)
    either = isinstance(fn, np.ufunc)  # takes a Python number for its first argument, too

    def one(x: Any) -> Any:
        if type(x) in _NUMBERS:
            x = np.asarray(x, dtypes.default_array_dtype(_NUMBERS.index(type(x))))
        if floats and x.dtype.kind not in _FLOATS:
            x = x.astype(dtypes.get_default_dtype().dtype)
        return fn(x)

    def two(a: Any, b: Any) -> Any:
        try:
            if a.dtype is b.dtype and (not floats or a.dtype.kind in _FLOATS):
                return fn(a, b)
        except AttributeError:  # a Python number (or one that is being recorded)
            x, n = (a, b) if hasattr(a, "dtype") else (b, a)
            number = n.__class__ is float or n.__class__ is int
            if number and (x is a or either) and x.dtype.kind == "f":
                return fn(a, b)
        if not bools and any(type(v) is bool or getattr(v, "dtype", None) == _BOOL for v in (a, b)):
            raise DtypeError(f"{fn.__name__}: not defined for bool tensors")
        if not integers and dtypes.result_numpy_dtype(a, b).kind not in _FLOATS:
            raise DtypeError(f"{fn.__name__}: not implemented for integers")
        return fn(*promoted(a, b, floats=floats))

    return one if count == 1 else two


def _widened(fn: Callable[..., Any]) -> Callable[..., Any]:
    def wide(*xs: Any) -> Any:
        if xs[0].dtype.char == "e":
            xs = tuple([x.astype(np.float32) if hasattr(x, "astype") else x for x in xs])
            return fn(*xs).astype(np.float16)
        return fn(*xs)

    return wide


def promoted(*values: Any, floats: bool = False) -> list[Any]:
    """Arrays and numbers, all as arrays of the dtype they promote to."""
    dtype = dtypes.result_numpy_dtype(*values)
    if floats and dtype.kind not in _FLOATS:
        dtype = dtypes.get_default_dtype().dtype
    return [
        v.astype(dtype, copy=False) if hasattr(v, "astype") else np.asarray(v).astype(dtype)
        for v in values
    ]


def ufunc(
    fn: Any, *rules: Any, name: str | None = None, differentiable: bool = True, **how: bool
) -> Op:
    """An op from a NumPy ufunc (or a function like one) and one rule per input; see ``typed``."""
    count = getattr(fn, "nin", None) or fn.__code__.co_argcount
    inner = typed(fn, count=count, **how)
    if count == 1:

        def forward(x: Any) -> Any:
            return inner(x)
    else:

        def forward(a: Any, b: Any) -> Any:  # type: ignore[misc]
            return inner(a, b)

    forward.__doc__ = f"``{fn.__name__}``, elementwise."
    made = Op(forward, name=name or fn.__name__, differentiable=differentiable)
    made.forward = inner  # one call less
    for which, rule in zip(made.inputs, rules, strict=False):
        made.vjp(which)(rule)
    if isinstance(fn, np.ufunc):
        BY_UFUNC[fn] = made
    return made


BY_UFUNC: dict[Any, Op] = {}
sigmoid: Op  # rules name it before its own line


def zero(g: Any) -> Any:
    """The derivative of a step function: zero, as PyTorch defines it."""
    return np.zeros_like(g)


def turning(g: Any, x: Any) -> Any:
    """The rule of x / |x|, which is a step unless x is complex."""
    if x.dtype.kind != "c":
        return zero(g)
    size, unit = where(x == 0, 1.0, np.absolute(x)), np.sign(x.conj())
    return where(x == 0, 0.0, (g - g.conj() * unit * unit) / (2 * size))


# --- arithmetic -------------------------------------------------------------------------------


def _negative(x: Any) -> Any:
    if x.dtype.kind == "b":
        raise DtypeError("Negation, the `-` operator, on a bool tensor is not supported: use `~`")
    return np.negative(x)


def _square(x: Any) -> Any:
    return np.square(x) if x.dtype.kind != "b" else x.astype(np.int64)


def _absolute(x: Any) -> Any:
    if x.dtype.kind == "b":
        raise NotImplementedError("\"abs_cpu\" not implemented for 'Bool'")
    return np.absolute(x)


def _share(g: Any, a: Any, b: Any) -> Any:
    """All of g where a > b, half where they tie: each of two equal arguments gets half."""
    return where(a > b, g, where(a == b, g * 0.5, 0.0))


def _radius(a: Any, b: Any) -> Any:
    """a² + b², and 1 at the origin."""
    r = a * a + b * b
    return where(r == 0, 1.0, r)


def _wins(a: Any, b: Any) -> Any:
    return (a >= b) | np.isnan(b)


# fmt: off
add           = ufunc(np.add,           lambda g: g,                 lambda g: g)
subtract      = ufunc(np.subtract,      lambda g: g,                 lambda g: -g, bools=False)
multiply      = ufunc(np.multiply,      lambda g, b: g * b,          lambda g, a: g * a)
divide        = ufunc(np.divide,        lambda g, b: g / b,          lambda g, b, y: -g * y / b, floats=True)
negative      = ufunc(_negative,        lambda g: -g, name="negative")
absolute      = ufunc(_absolute,        lambda g, x: g * np.sign(x if x.dtype.kind != "c" else x.conj()), name="absolute")
square        = ufunc(_square,          lambda g, x: g * (x * 2), name="square")
reciprocal    = ufunc(np.reciprocal,    lambda g, y: -g * (y * y),   floats=True)
maximum       = ufunc(np.maximum,       lambda g, a, b: _share(g, a, b), lambda g, a, b: _share(g, b, a))
minimum       = ufunc(np.minimum,       lambda g, a, b: _share(g, b, a), lambda g, a, b: _share(g, a, b))
fmax          = ufunc(np.fmax,          lambda g, a, b: g * _wins(a, b),  lambda g, a, b: g * ~_wins(a, b))
fmin          = ufunc(np.fmin,          lambda g, a, b: g * _wins(-a, -b), lambda g, a, b: g * ~_wins(-a, -b))
hypot         = ufunc(np.hypot,         lambda g, a, y: g * (a / y), lambda g, b, y: g * (b / y), floats=True, integers=False)
atan2         = ufunc(np.arctan2,       lambda g, a, b: g * b / _radius(a, b), lambda g, a, b: -g * a / _radius(a, b), name="atan2", floats=True)
logaddexp     = ufunc(np.logaddexp,     lambda g, a, b: g * sigmoid(a - b), lambda g, a, b: g * sigmoid(b - a), floats=True, integers=False)
logaddexp2    = ufunc(np.logaddexp2,    lambda g, a, b: g / (np.exp2(b - a) + 1), lambda g, a, b: g / (np.exp2(a - b) + 1), floats=True, integers=False)
copysign      = ufunc(np.copysign,      lambda g, a, y: g * (np.sign(a) * np.sign(y)), zero, floats=True)
# fmt: on
BY_UFUNC.update(
    {np.subtract: subtract, np.negative: negative, np.square: square, np.absolute: absolute}
)


def _power(a: Any, b: Any) -> Any:
    if type(b) is int:
        return _whole_power(a, b)
    if a.dtype.kind == "b":
        raise DtypeError("power: not implemented for bool")
    if a.dtype.kind in "iu" and (b < 0).any():
        safe = np.power(a, np.maximum(b, 0))
        whole = np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b % 2), 0))
        return np.where(b < 0, whole, safe).astype(a.dtype)
    if b.__class__ is float:
        b = float(b)  # of a recorded number: another power will be another program
    return a**b  # the operator knows squares and square roots; np.power does not


def _whole_power(a: Any, n: int) -> Any:
    """A float array to an integer power: by multiplication, sixty times faster than ``pow``."""
    m = abs(n)
    if m > 16 or m == 0:
        return a**n
    if n == 1:
        return a.copy()
    y: Any = a if m % 2 else None
    while m > 1:
        m //= 2
        a = a * a
        if m % 2:
            y = a if y is None else y * a
    return 1 / y if n < 0 else y


@op
def power(a, b):
    """``a ** b``; integers to negative powers are 0 or ±1, and refused if the power is a number."""
    if type(b) is int and b < 0 and a.dtype.kind in "iub":
        raise ValueError("Integers to negative integer powers are not allowed.")
    return _powers(a, b)


_powers = typed(_power)
BY_UFUNC[np.power] = BY_UFUNC[np.float_power] = power


@power.vjp("a")
def _(g, a, b):
    if not hasattr(b, "shape"):  # a number: no where() needed
        if b == 2:
            return g * (a * 2)
        return np.zeros_like(g) if b == 0 else g * (a ** (b - 1) * b)
    return g * where(b == 0, 0.0, b * a ** where(b == 0, 1.0, b - 1))


@power.vjp("b")
def _(g, a, b, y):
    if not hasattr(a, "shape"):
        return g * (y * math.log(a)) if a > 0 else g * (y * (0.0 if a == 0 else math.nan))
    return g * where((a == 0) & (b >= 0), 0.0, y * np.log(where((a == 0) & (b >= 0), 1.0, a)))


def _whole(fn: Any) -> Any:
    """An integer division: zero divisors raise, as in PyTorch."""

    def divided(a: Any, b: Any) -> Any:
        kind = getattr(b, "dtype", _FLOAT).kind
        if kind == "b":
            raise DtypeError(f"{fn.__name__}: not implemented for bool")
        if kind in "iu" and not np.all(b):
            raise ValueError("ZeroDivisionError")
        return fn(a, b)

    divided.__name__ = fn.__name__
    return divided


def _trunc_divide(a: Any, b: Any) -> Any:
    if getattr(a, "dtype", _FLOAT).kind == "f":
        return np.trunc(a / b)
    if not np.all(b):
        raise ValueError("ZeroDivisionError")
    if a.dtype.kind == "u":
        return np.floor_divide(a, b)
    q = np.floor_divide(a, b)
    return q + ((q < 0) & (q * b != a))


# fmt: off
floor_divide  = ufunc(_whole(np.floor_divide), zero,                 zero)
trunc_divide  = ufunc(_trunc_divide,    zero,                        zero, name="trunc_divide")
remainder     = ufunc(_whole(np.remainder), lambda g: g,             lambda g, a, b: -g * np.floor(a / b))
fmod          = ufunc(_whole(np.fmod),  lambda g: g,                 lambda g, a, b: -g * np.trunc(a / b))
BY_UFUNC.update({np.floor_divide: floor_divide, np.remainder: remainder, np.fmod: fmod})


# --- exponentials, logarithms, roots ----------------------------------------------------------


def _log10(x: Any) -> Any:
    if x.dtype.char == "f":  # NumPy's float32 log10(100) is 2.0000002
        return np.log10(x, dtype=np.float64).astype(np.float32)
    return np.log10(x)


def _rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


exp           = ufunc(np.exp,           lambda g, y: g * y,          floats=True)
exp2          = ufunc(np.exp2,          lambda g, y: g * (y * math.log(2)), floats=True)
expm1         = ufunc(np.expm1,         lambda g, y: g * (y + 1),    floats=True)
log           = ufunc(np.log,           lambda g, x: g / x,          floats=True)
log2          = ufunc(np.log2,          lambda g, x: g / (x * math.log(2)), floats=True)
log10         = ufunc(_log10,           lambda g, x: g / (x * math.log(10)), name="log10", floats=True)
log1p         = ufunc(np.log1p,         lambda g, x: g / (x + 1),    floats=True)
sqrt          = ufunc(np.sqrt,          lambda g, y: g / (y * 2),    floats=True)
rsqrt         = ufunc(_rsqrt,           lambda g, y: g * (y * y * y * -0.5), name="rsqrt", floats=True, wide=True)

BY_UFUNC[np.log10] = log10

# --- trigonometric and hyperbolic -------------------------------------------------------------

sin           = ufunc(np.sin,           lambda g, x: g * np.cos(x),  floats=True)
cos           = ufunc(np.cos,           lambda g, x: -g * np.sin(x), floats=True)
tan           = ufunc(np.tan,           lambda g, y: g * (y * y + 1), floats=True)
asin          = ufunc(np.arcsin,        lambda g, x: g / np.sqrt(1 - x * x), name="asin", floats=True)
acos          = ufunc(np.arccos,        lambda g, x: -g / np.sqrt(1 - x * x), name="acos", floats=True)
atan          = ufunc(np.arctan,        lambda g, x: g / (x * x + 1), name="atan", floats=True)
sinh          = ufunc(np.sinh,          lambda g, x: g * np.cosh(x), floats=True)
cosh          = ufunc(np.cosh,          lambda g, x: g * np.sinh(x), floats=True)
tanh          = ufunc(np.tanh,          lambda g, y: g * (1 - y * y), floats=True)
asinh         = ufunc(np.arcsinh,       lambda g, x: g / np.sqrt(x * x + 1), name="asinh", floats=True)
acosh         = ufunc(np.arccosh,       lambda g, x: g / (np.sqrt(x * x - 1) if x.dtype.kind != "c" else np.sqrt(x - 1) * np.sqrt(x + 1)), name="acosh", floats=True)
atanh         = ufunc(np.arctanh,       lambda g, x: g / (1 - x * x), name="atanh", floats=True)

# --- steps: the derivative is zero --------------------------------------------------------------


def _step(fn: Any) -> Any:
    """A rounding function: integers stay what they are."""

    def rounded(x: Any) -> Any:
        if x.dtype.kind == "b":
            raise NotImplementedError(f"\"{fn.__name__}_cpu\" not implemented for 'Bool'")
        return fn(x) if x.dtype.kind in _FLOATS else x.copy()

    rounded.__name__ = fn.__name__
    return rounded


def _sign(x: Any) -> Any:
    if x.dtype.kind == "b":
        return x.copy()
    y = np.asarray(np.sign(x))
    if x.dtype.kind == "f":
        np.copyto(y, 0, where=np.isnan(y))
    return y


floor         = ufunc(_step(np.floor),  zero)
ceil          = ufunc(_step(np.ceil),   zero)
trunc         = ufunc(_step(np.trunc),  zero)
rint          = ufunc(_step(np.rint),   zero)
sign          = ufunc(_sign,            lambda g, x: turning(g, x), name="sign")
BY_UFUNC.update({np.floor: floor, np.ceil: ceil, np.trunc: trunc, np.rint: rint, np.sign: sign})

# --- comparisons, logic, bits: not differentiable ----------------------------------------------

equal         = ufunc(np.equal,         differentiable=False)
not_equal     = ufunc(np.not_equal,     differentiable=False)
less          = ufunc(np.less,          differentiable=False)
less_equal    = ufunc(np.less_equal,    differentiable=False)
greater       = ufunc(np.greater,       differentiable=False)
greater_equal = ufunc(np.greater_equal, differentiable=False)
isnan         = ufunc(np.isnan,         differentiable=False)
isinf         = ufunc(np.isinf,         differentiable=False)
isfinite      = ufunc(np.isfinite,      differentiable=False)
signbit       = ufunc(np.signbit,       differentiable=False)
logical_and   = ufunc(np.logical_and,   differentiable=False)
logical_or    = ufunc(np.logical_or,    differentiable=False)
logical_xor   = ufunc(np.logical_xor,   differentiable=False)
logical_not   = ufunc(np.logical_not,   differentiable=False)
bitwise_and   = ufunc(np.bitwise_and,   differentiable=False)
bitwise_or    = ufunc(np.bitwise_or,    differentiable=False)
bitwise_xor   = ufunc(np.bitwise_xor,   differentiable=False)
invert        = ufunc(np.invert,        differentiable=False)
left_shift    = ufunc(np.left_shift,    differentiable=False)
right_shift   = ufunc(np.right_shift,   differentiable=False)
gcd           = ufunc(np.gcd,           differentiable=False)
lcm           = ufunc(np.lcm,           differentiable=False)

# --- activations: one pass where NumPy would take three -----------------------------------------


def _sigmoid(x: Any) -> Any:
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    e = over(np.exp, over(np.minimum, -x, EXP_LIMIT[x.dtype.itemsize]))
    e += 1
    return over(np.reciprocal, e)


def _relu(x: Any) -> Any:
    if x.dtype.kind == "b":
        raise DtypeError("Boolean inputs not supported for relu")
    return np.maximum(x, 0)


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x)))


sigmoid       = ufunc(_sigmoid,         lambda g, y: g * (y * (1 - y)), name="sigmoid", floats=True, wide=True)
relu          = ufunc(_relu,            lambda g, y: g * (y > 0),    name="relu")
softplus      = ufunc(_softplus,        lambda g, x: g * sigmoid(x), name="log1p_exp", floats=True)
# fmt: on

# --- choosing and converting --------------------------------------------------------------------


@op
def where(condition, a, b):
    """``a`` where the condition holds, else ``b``."""
    try:
        if a.dtype is b.dtype:
            return np.where(condition, a, b)
    except AttributeError:  # a Python number takes the dtype of an array of floats
        array = a if hasattr(a, "dtype") else b
        if hasattr(array, "dtype") and array.dtype.kind == "f":
            return np.where(condition, a, b)
    return np.where(condition, *promoted(a, b))


@where.vjp("a")
def _(g, condition):
    return where(condition, g, 0.0)


@where.vjp("b")
def _(g, condition):
    return where(condition, 0.0, g)


@op
def clamp(x, low, high):
    """``x`` held between two bounds (numbers, arrays or None)."""
    bounds = [b for b in (low, high) if b is not None]
    if not bounds:
        raise ValueError("at least one of 'min' or 'max' must not be None")
    if x.dtype.kind != "f" or any(type(b) is not float and type(b) is not int for b in bounds):
        x, *bounds = promoted(x, *bounds)
    if low is None:
        return np.minimum(x, bounds[0])
    y = np.maximum(x, bounds[0])
    if high is None:
        return y
    return np.minimum(y, bounds[1], out=y if y.ndim and y.shape == x.shape else None)


@clamp.vjp("x")
def _(g, x, low, high):
    inside = True
    if low is not None:
        inside = x >= low
    if high is not None:
        inside = (x <= high) & inside
    return where(inside, g, 0.0)


@clamp.vjp("low")
def _(g, x, low, high):
    return where((x < low) & (low < high) if high is not None else x < low, g, 0.0)


@clamp.vjp("high")
def _(g, x, low, high):
    return where((x > high) | (low > high) if low is not None else x > high, g, 0.0)


@op
def cast(x, *, dtype):
    """``x`` as another dtype."""
    if x.dtype.kind == "c" and dtype.kind not in "cb":
        x = x.real
    return x.astype(dtype)


@cast.vjp("x")
def _(g):
    return g  # the driver brings it back to x's dtype


@op
def clone(x):
    """A copy."""
    return x.copy()


@clone.vjp("x")
def _(g):
    return g

"""Elementwise functions: arithmetic, powers, rounding, trigonometry, comparison, logic, bits.

The many with one tensor, or two, and nothing else are tables; the rest follows below. Dtypes: where
the mathematics leaves the integers (``exp``, ``div``), integers and bools give the default floating
dtype; two dtypes promote as in PyTorch, and Python numbers are weak. All shapes broadcast.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kilograd import dtypes
from kilograd.errors import DtypeError
from kilograd.functions.calling import fill, function, inplace_method, tensor_like
from kilograd.ops import elementwise as ew
from kilograd.ops import special
from kilograd.ops.op import Op
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "allclose",
    "angle",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "complex",
    "conj",
    "conj_physical",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "digamma",
    "div",
    "divide",
    "eq",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "frexp",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "heaviside",
    "hypot",
    "i0",
    "igamma",
    "igammac",
    "imag",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "lcm",
    "ldexp",
    "le",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "mvlgamma",
    "nan_to_num",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "not_equal",
    "polar",
    "polygamma",
    "positive",
    "pow",
    "rad2deg",
    "real",
    "reciprocal",
    "relu",
    "remainder",
    "resolve_conj",
    "resolve_neg",
    "round",
    "rsqrt",
    "rsub",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "view_as_complex",
    "view_as_real",
    "where",
    "xlogy",
]  # fmt: skip


def _input(value: Any, name: str) -> Tensor:
    """The first argument as a tensor: arrays are welcome, numbers are not."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return wrap(value)
    raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(value).__name__}")


def _publish(fn: Any, names: str, doc: str, method: bool, inplace: bool) -> Any:
    first, *others = names.split()
    fn.__name__ = fn.__qualname__ = first
    fn.__doc__ = doc
    for name in (first, *others):
        if method:
            setattr(Tensor, name, fn)
        if inplace:
            setattr(Tensor, f"{name}_", inplace_method(fn, f"{name}_"))
    return fn


def unary(
    names: str,
    op: Op,
    says: str,
    example: str,
    shows: str,
    *,
    method: bool = True,
    inplace: bool = True,
) -> Callable[..., Tensor]:
    """The public function (and methods, under all names) of an op of one tensor."""
    name = names.split()[0]

    def public(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        if type(input) is not Tensor:
            input = _input(input, name)
        y: Tensor = apply(op, (input,))
        return y if out is None else fill(out, y, name, (input,))

    where = "special." if not method else ""
    doc = f"""{says}, elementwise.

    >>> import kilograd as kg
    >>> kg.{where}{name}(kg.tensor({example}))
    tensor({shows})
    """
    return _publish(public, names, doc, method, inplace)


def binary(
    names: str, op: Op, says: str, example: str, shows: str, *, numbers: str = "",
    method: bool = True, inplace: bool = True,
) -> Callable[..., Tensor]:  # fmt: skip
    """The public function (and methods, under all names) of an op of two tensors.

    ``numbers`` says where Python numbers may stand for tensors: "other", "either" (one of the two),
    "both", or nowhere.
    """
    name = names.split()[0]

    def public(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
        if numbers != "both":
            _tensors(name, numbers, input, other)
        y: Tensor = apply(op, (input, other))
        return y if out is None else fill(out, y, name, (input, other))

    where = "special." if not method else ""
    first, _, second = example.partition(" | ")
    second = f"kg.tensor({second})" if second.startswith("[") else second
    doc = f"""{says}, elementwise.

    >>> import kilograd as kg
    >>> kg.{where}{name}(kg.tensor({first}), {second})
    tensor({shows})
    """
    return _publish(public, names, doc, method, inplace)


def _tensors(name: str, numbers: str, input: Any, other: Any) -> None:
    """TypeError for a number where PyTorch wants a tensor."""
    if not isinstance(input, (Tensor, np.ndarray)):
        if numbers != "either" or not isinstance(other, (Tensor, np.ndarray)):
            raise TypeError(
                f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}"
            )
    elif numbers == "" and not isinstance(other, (Tensor, np.ndarray)):
        raise TypeError(f"{name}(): argument 'other' must be Tensor, not {type(other).__name__}")


# fmt: off
# --- of one tensor: names | op | what | example ------------------------------------------------------

abs = absolute = unary("abs absolute", ew.absolute,   "The absolute value", "[-1.5, 2.0]", "[1.5000, 2.0000]")
neg = negative = unary("neg negative", ew.negative,   "The negative", "[-1.5, 2.0]", "[ 1.5000, -2.0000]")
exp         = unary("exp",         ew.exp,         "e to the power of ``input``", "[0.0, 1.0]", "[1.0000, 2.7183]")
exp2        = unary("exp2",        ew.exp2,        "2 to the power of ``input``", "[0.0, 3.0]", "[1., 8.]")
expm1       = unary("expm1",       ew.expm1,       "exp(x) - 1, accurate near 0", "[0.0, 1.0]", "[0.0000, 1.7183]")
log         = unary("log",         ew.log,         "The natural logarithm", "[1.0, 10.0]", "[0.0000, 2.3026]")
log2        = unary("log2",        ew.log2,        "The logarithm to base 2", "[1.0, 8.0]", "[0., 3.]")
log10       = unary("log10",       ew.log10,       "The logarithm to base 10", "[1.0, 100.0]", "[0., 2.]")
log1p       = unary("log1p",       ew.log1p,       "log(1 + x), accurate near 0", "[0.0, 1.0]", "[0.0000, 0.6931]")
sqrt        = unary("sqrt",        ew.sqrt,        "The square root", "[4.0, 9.0]", "[2., 3.]")
rsqrt       = unary("rsqrt",       ew.rsqrt,       "1 / the square root", "[4.0, 16.0]", "[0.5000, 0.2500]")
square      = unary("square",      ew.square,      "The square", "[-2.0, 3.0]", "[4., 9.]")
reciprocal  = unary("reciprocal",  ew.reciprocal,  "1 / x", "[2.0, 4.0]", "[0.5000, 0.2500]")
sin         = unary("sin",         ew.sin,         "The sine (radians)", "[0.0, 1.0]", "[0.0000, 0.8415]")
cos         = unary("cos",         ew.cos,         "The cosine (radians)", "[0.0, 1.0]", "[1.0000, 0.5403]")
tan         = unary("tan",         ew.tan,         "The tangent (radians)", "[0.0, 1.0]", "[0.0000, 1.5574]")
sinh        = unary("sinh",        ew.sinh,        "The hyperbolic sine", "[0.0, 1.0]", "[0.0000, 1.1752]")
cosh        = unary("cosh",        ew.cosh,        "The hyperbolic cosine", "[0.0, 1.0]", "[1.0000, 1.5431]")
tanh        = unary("tanh",        ew.tanh,        "The hyperbolic tangent", "[0.0, 1.0]", "[0.0000, 0.7616]")
asin  = arcsin  = unary("asin arcsin",   ew.asin,  "The angle whose sine this is", "[0.0, 1.0]", "[0.0000, 1.5708]")
acos  = arccos  = unary("acos arccos",   ew.acos,  "The angle whose cosine this is", "[0.0, 1.0]", "[1.5708, 0.0000]")
atan  = arctan  = unary("atan arctan",   ew.atan,  "The angle whose tangent this is", "[0.0, 1.0]", "[0.0000, 0.7854]")
asinh = arcsinh = unary("asinh arcsinh", ew.asinh, "The inverse of sinh", "[0.0, 1.0]", "[0.0000, 0.8814]")
acosh = arccosh = unary("acosh arccosh", ew.acosh, "The inverse of cosh", "[1.0, 2.0]", "[0.0000, 1.3170]")
atanh = arctanh = unary("atanh arctanh", ew.atanh, "The inverse of tanh", "[0.0, 0.5]", "[0.0000, 0.5493]")
sigmoid     = unary("sigmoid",     ew.sigmoid,     "1 / (1 + exp(-x))", "[0.0, 1.0]", "[0.5000, 0.7311]")
relu        = unary("relu",        ew.relu,        "``input`` where it is positive, else 0", "[-1.0, 2.0]", "[0., 2.]")
floor       = unary("floor",       ew.floor,       "The largest integer not above", "[-1.5, 1.5]", "[-2.,  1.]")
ceil        = unary("ceil",        ew.ceil,        "The smallest integer not below", "[-1.5, 1.5]", "[-1.,  2.]")
trunc = fix = unary("trunc fix",   ew.trunc,       "The integer part", "[-1.5, 1.5]", "[-1.,  1.]")
sign        = unary("sign",        ew.sign,        "-1, 0 or 1", "[-1.5, 0.0, 2.0]", "[-1.,  0.,  1.]")
sgn         = unary("sgn",         special.sgn,         "The sign; of a complex number, its direction", "[-1.5, 0.0, 2.0]", "[-1.,  0.,  1.]")
angle       = unary("angle",       special.angle,       "The angle in the complex plane: 0 or π for reals", "[-1.5, 2.0]", "[3.1416, 0.0000]", inplace=False)
erf         = unary("erf",         special.erf,         "The error function", "[0.0, 1.0]", "[0.0000, 0.8427]")
erfc        = unary("erfc",        special.erfc,        "1 - erf(x), accurate for large x", "[0.0, 1.0]", "[1.0000, 0.1573]")
erfinv      = unary("erfinv",      special.erfinv,      "The inverse of erf", "[0.0, 0.5]", "[0.0000, 0.4769]")
lgamma      = unary("lgamma",      special.lgamma,      "log |Γ(x)|", "[0.5, 4.0]", "[0.5724, 1.7918]")
digamma     = unary("digamma",     special.digamma,     "The derivative of lgamma", "[1.0, 2.0]", "[-0.5772,  0.4228]")
i0          = unary("i0",          special.i0,          "The modified Bessel function I₀", "[0.0, 1.0]", "[1.0000, 1.2661]")
sinc        = unary("sinc",        special.sinc,        "sin(πx) / (πx), and 1 at 0", "[0.0, 0.5]", "[1.0000, 0.6366]")
isnan       = unary("isnan",       ew.isnan,       "Whether it is nan", '[1.0, float("nan")]', "[False,  True]", inplace=False)
isinf       = unary("isinf",       ew.isinf,       "Whether it is inf or -inf", '[1.0, float("inf")]', "[False,  True]", inplace=False)
isfinite    = unary("isfinite",    ew.isfinite,    "Whether it is neither nan nor infinite", '[1.0, float("inf")]', "[ True, False]", inplace=False)
signbit     = unary("signbit",     ew.signbit,     "Whether the sign bit is set (also of -0.0)", "[-1.0, 2.0]", "[ True, False]", inplace=False)
logical_not = unary("logical_not", ew.logical_not, "Whether it is zero", "[0.0, 2.0]", "[ True, False]")
bitwise_not = unary("bitwise_not", ew.invert,      "All bits flipped; of bools, logical not", "[0, 5]", "[-1, -6]")

# --- of two: names | op | what | example --------------------------------------------------------------

mul = multiply        = binary("mul multiply",         ew.multiply,      "The product", "[1.0, 2.0] | [3.0, 4.0]", "[3., 8.]", numbers="both")
eq                    = binary("eq",                   ew.equal,         "Whether they are equal", "[1, 2] | [1, 3]", "[ True, False]", numbers="other")
ne = not_equal        = binary("ne not_equal",         ew.not_equal,     "Whether they differ", "[1, 2] | [1, 3]", "[False,  True]", numbers="other")
lt = less             = binary("lt less",              ew.less,          "Whether ``input < other``", "[1, 2, 3] | 2", "[ True, False, False]", numbers="other")
le = less_equal       = binary("le less_equal",        ew.less_equal,    "Whether ``input <= other``", "[1, 2, 3] | 2", "[ True,  True, False]", numbers="other")
gt = greater          = binary("gt greater",           ew.greater,       "Whether ``input > other``", "[1, 2, 3] | 2", "[False, False,  True]", numbers="other")
ge = greater_equal    = binary("ge greater_equal",     ew.greater_equal, "Whether ``input >= other``", "[1, 2, 3] | 2", "[False,  True,  True]", numbers="other")
maximum               = binary("maximum",              ew.maximum,       "The larger one (nan if either is)", "[1.0, 4.0] | [3.0, 2.0]", "[3., 4.]", inplace=False)
minimum               = binary("minimum",              ew.minimum,       "The smaller one (nan if either is)", "[1.0, 4.0] | [3.0, 2.0]", "[1., 2.]", inplace=False)
fmax                  = binary("fmax",                 ew.fmax,          "The larger one that is not nan", '[1.0, float("nan")] | [3.0, 2.0]', "[3., 2.]", inplace=False)
fmin                  = binary("fmin",                 ew.fmin,          "The smaller one that is not nan", '[1.0, float("nan")] | [3.0, 2.0]', "[1., 2.]", inplace=False)
floor_divide          = binary("floor_divide",         ew.floor_divide,  "The quotient, rounded down", "[-5, 5] | 3", "[-2,  1]", numbers="both")
remainder             = binary("remainder",            ew.remainder,     "The remainder with the divisor's sign, as Python's %", "[-5, 5] | 3", "[1, 2]", numbers="either")
fmod                  = binary("fmod",                 ew.fmod,          "The remainder with the dividend's sign, as C's fmod", "[-5, 5] | 3", "[-2,  2]", numbers="other")
atan2 = arctan2       = binary("atan2 arctan2",        ew.atan2,         "The angle of the point (other, input)", "[1.0, -1.0] | [1.0, 0.0]", "[ 0.7854, -1.5708]")
hypot                 = binary("hypot",                ew.hypot,         "√(input² + other²)", "[3.0, 5.0] | [4.0, 12.0]", "[ 5., 13.]")
copysign              = binary("copysign",             ew.copysign,      "``input`` with the sign of ``other``", "[1.0, -2.0] | [-1.0, 1.0]", "[-1.,  2.]", numbers="other")
logaddexp             = binary("logaddexp",            ew.logaddexp,     "log(exp(input) + exp(other)), without overflow", "[0.0, 1000.0] | [0.0, 1000.0]", "[6.9315e-01, 1.0007e+03]", inplace=False)
logaddexp2            = binary("logaddexp2",           ew.logaddexp2,    "log2(2**input + 2**other), without overflow", "[0.0, 1000.0] | [0.0, 1000.0]", "[1.0000e+00, 1.0010e+03]", inplace=False)
xlogy                 = binary("xlogy",                special.xlogy,         "input * log(other), and 0 where ``input`` is 0", "[0.0, 2.0] | [0.0, 1.0]", "[0., 0.]", numbers="either")
igamma                = binary("igamma",               special.igamma,        "The regularised lower incomplete gamma function P(input, other)", "[1.0, 2.0] | [1.0, 2.0]", "[0.6321, 0.5940]")
igammac               = binary("igammac",              special.igammac,       "The regularised upper incomplete gamma function, 1 - P(input, other)", "[1.0, 2.0] | [1.0, 2.0]", "[0.3679, 0.4060]")
logical_and           = binary("logical_and",          ew.logical_and,   "Whether both are nonzero", "[0, 1, 2] | [1, 1, 0]", "[False,  True, False]")
logical_or            = binary("logical_or",           ew.logical_or,    "Whether one or both are nonzero", "[0, 1, 0] | [1, 1, 0]", "[ True,  True, False]")
logical_xor           = binary("logical_xor",          ew.logical_xor,   "Whether exactly one is nonzero", "[0, 1, 0] | [1, 1, 0]", "[ True, False, False]")
bitwise_and           = binary("bitwise_and",          ew.bitwise_and,   "The bits set in both", "[12, 5] | 6", "[4, 4]", numbers="either")
bitwise_or            = binary("bitwise_or",           ew.bitwise_or,    "The bits set in either", "[12, 5] | 6", "[14,  7]", numbers="either")
bitwise_xor           = binary("bitwise_xor",          ew.bitwise_xor,   "The bits set in one only", "[12, 5] | 6", "[10,  3]", numbers="either")
bitwise_left_shift    = binary("bitwise_left_shift",   ew.left_shift,    "The bits moved up by ``other`` places", "[1, 3] | 2", "[ 4, 12]", numbers="either")
bitwise_right_shift   = binary("bitwise_right_shift",  ew.right_shift,   "The bits moved down by ``other`` places", "[8, 13] | 2", "[2, 3]", numbers="either")
gcd                   = binary("gcd",                  ew.gcd,           "The greatest common divisor", "[12, 7] | [18, 21]", "[6, 7]")
lcm                   = binary("lcm",                  ew.lcm,           "The least common multiple", "[4, 7] | [6, 21]", "[12, 21]")
nextafter             = binary("nextafter",            special.nextafter,     "The next floating-point number towards ``other``", "[1.0] | [2.0]", "[1.0000]")
# fmt: on


# --- arithmetic with options ------------------------------------------------------------------------


def _scaled(other: Any, alpha: Any, input: Any, name: str) -> Any:
    """``alpha * other``, with PyTorch's conditions on alpha."""
    kinds = [getattr(getattr(v, "dtype", None), "kind", None) for v in (input, other)]
    integral = all(
        k in "iub" if k else isinstance(v, int) for k, v in zip(kinds, (input, other), strict=True)
    )
    if isinstance(alpha, builtins.float) and integral:
        raise DtypeError(
            f"{name}: For integral input tensors, argument alpha must not be a floating point number."
        )
    boolean = all(
        k == "b" if k else isinstance(v, bool) for k, v in zip(kinds, (input, other), strict=True)
    )
    if isinstance(alpha, bool) and not boolean:
        raise DtypeError(f"{name}: Boolean alpha only supported for Boolean results.")
    return other * (bool(alpha) if boolean else alpha)


@function(inplace=True)
def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input + alpha * other``.

    >>> import kilograd as kg
    >>> kg.add(kg.tensor([1.0, 2.0]), kg.tensor([3.0, 4.0]), alpha=10)
    tensor([31., 42.])
    """
    if alpha != 1 or alpha is True:
        other = _scaled(other, alpha, input, "add")
    return apply(ew.add, (input, other))


@function(inplace=True)
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input - alpha * other``.

    >>> import kilograd as kg
    >>> kg.sub(kg.tensor([3.0, 4.0]), kg.tensor([1.0, 2.0]), alpha=2)
    tensor([1., 0.])
    """
    if alpha != 1 or alpha is True:
        other = _scaled(other, alpha, input, "sub")
    return apply(ew.subtract, (input, other))


@function(method=False)
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``other - alpha * input``.

    >>> import kilograd as kg
    >>> kg.rsub(kg.tensor([1.0, 2.0]), 10)
    tensor([9., 8.])
    """
    _tensors("rsub", "other", input, other)
    return sub(tensor_like(other) if alpha != 1 else other, input, alpha=alpha)


_QUOTIENTS = {None: ew.divide, "floor": ew.floor_divide, "trunc": ew.trunc_divide}


@function(inplace=True)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; ``rounding_mode`` "floor" or "trunc" rounds (and keeps integers).

    Raises:
        RuntimeError: an integer divided by 0 with a rounding mode; an unknown mode.

    >>> import kilograd as kg
    >>> kg.div(kg.tensor([-7, 7]), 2), kg.div(kg.tensor([-7, 7]), 2, rounding_mode="floor")
    (tensor([-3.5000,  3.5000]), tensor([-4,  3]))
    """
    op = _QUOTIENTS.get(rounding_mode)
    if op is None:
        raise RuntimeError(
            "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
            f"{rounding_mode!r}"
        )
    return apply(op, (input, other))


@function(inplace=True)
def true_divide(input: Any, other: Any) -> Tensor:
    """``input / other``, floating-point also for integers.

    >>> import kilograd as kg
    >>> kg.true_divide(kg.tensor([1, 3]), 2)
    tensor([0.5000, 1.5000])
    """
    return apply(ew.divide, (input, other))


subtract, divide = sub, div


@function(inplace=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``.

    Raises:
        RuntimeError: integers to a negative integer power.

    >>> import kilograd as kg
    >>> kg.pow(kg.tensor([1.0, 2.0, 3.0]), 2), kg.pow(2, kg.tensor([1.0, 2.0]))
    (tensor([1., 4., 9.]), tensor([2., 4.]))
    """
    _tensors("pow", "either", input, exponent)
    return apply(ew.power, (input, exponent))


@function(inplace=True)
def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in float64.

    >>> import kilograd as kg
    >>> kg.float_power(kg.tensor([1, 2]), -1)
    tensor([1.0000, 0.5000], dtype=kilograd.float64)
    """
    _tensors("float_power", "either", input, exponent)
    complicated = any(
        isinstance(v, builtins.complex)
        or getattr(v, "dtype", None) in (dtypes.complex64, dtypes.complex128)
        for v in (input, exponent)
    )
    dtype = np.dtype(np.complex128 if complicated else np.float64)
    both = [apply(ew.cast, (tensor_like(v),), {"dtype": dtype}) for v in (input, exponent)]
    return apply(ew.power, tuple(both))


@function(inplace=True)
def ldexp(input: Any, other: Any) -> Tensor:
    """``input * 2**other``.

    >>> import kilograd as kg
    >>> kg.ldexp(kg.tensor([1.0, 3.0]), kg.tensor([1, 2]))
    tensor([ 2., 12.])
    """
    _tensors("ldexp", "", input, other)
    return input * apply(ew.power, (2.0, other))


@function(inplace=True)
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)``: 0 gives the input, 1 the end.

    >>> import kilograd as kg
    >>> kg.lerp(kg.tensor([0.0, 10.0]), kg.tensor([1.0, 20.0]), 0.5)
    tensor([ 0.5000, 15.0000])
    """
    if input.dtype.kind not in "fc":
        raise DtypeError(f"lerp: not implemented for {input.dtype}")
    if input.dtype != end.dtype:
        raise DtypeError(f"lerp: expected dtype {input.dtype} for `end` but got dtype {end.dtype}")
    if isinstance(weight, Tensor) and weight.dtype != input.dtype:
        raise DtypeError(
            f"lerp: expected dtype {input.dtype} for `weight` but got dtype {weight.dtype}"
        )
    return apply(special.lerp, (input, end, weight))


@function(inplace=True)
def addcmul(input: Tensor, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``.

    >>> import kilograd as kg
    >>> kg.addcmul(kg.tensor([1.0]), kg.tensor([2.0]), kg.tensor([3.0]), value=0.5)
    tensor([4.])
    """
    if all(t.dtype.kind in "iub" for t in (input, tensor1, tensor2)):
        value = int(value)
    return apply(special.addcmul, (input, tensor1, tensor2), {"value": value})


@function(inplace=True)
def addcdiv(input: Tensor, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``.

    Raises:
        RuntimeError: the division is one of integers.

    >>> import kilograd as kg
    >>> kg.addcdiv(kg.tensor([1.0]), kg.tensor([3.0]), kg.tensor([2.0]), value=2)
    tensor([4.])
    """
    if all(tensor.dtype.kind in "iub" for tensor in (tensor1, tensor2)):
        raise DtypeError(
            "addcdiv: Integer division with addcdiv is no longer supported; divide first."
        )
    return apply(special.addcdiv, (input, tensor1, tensor2), {"value": value})


# --- rounding, bounds, replacement --------------------------------------------------------------------


@function(inplace=True)
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest integer, or the nearest number with so many decimals; halves go to even.

    >>> import kilograd as kg
    >>> kg.round(kg.tensor([0.5, 1.5, -2.7])), kg.round(kg.tensor([1.2345]), decimals=2)
    (tensor([ 0.,  2., -3.]), tensor([1.2300]))
    """
    if decimals == 0:
        return apply(ew.rint, (input,))
    if not (input.dtype.is_floating_point):
        raise NotImplementedError(
            f"round: decimals are for floating-point numbers, not {input.dtype}"
        )
    return apply(special.round_to, (input,), {"decimals": decimals})


@function(inplace=True)
def frac(input: Tensor) -> Tensor:
    """The part after the decimal point, with the sign of the input.

    >>> import kilograd as kg
    >>> kg.frac(kg.tensor([1.5, -2.25]))
    tensor([ 0.5000, -0.2500])
    """
    if not input.is_floating_point():
        raise NotImplementedError(f'"frac_cpu" not implemented for {input.dtype}')
    return input - trunc(input)


@function(inplace=True)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """``input`` held between two bounds: numbers, tensors, or None for no bound.

    >>> import kilograd as kg
    >>> kg.clamp(kg.tensor([-2.0, 0.5, 3.0]), min=-1, max=1)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min is None and max is None:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    return apply(ew.clamp, (input, min, max))


@function(inplace=True)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """``input``, but no less than ``min``.

    >>> import kilograd as kg
    >>> kg.clamp_min(kg.tensor([-2.0, 3.0]), 0)
    tensor([0., 3.])
    """
    _tensors("clamp_min", "other", input, min)
    return apply(ew.clamp, (input, min, None))


@function(inplace=True)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """``input``, but no more than ``max``.

    >>> import kilograd as kg
    >>> kg.clamp_max(kg.tensor([-2.0, 3.0]), 0)
    tensor([-2.,  0.])
    """
    _tensors("clamp_max", "other", input, max)
    return apply(ew.clamp, (input, None, max))


clip = clamp


@function(inplace=True)
def nan_to_num(
    input: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """Finite numbers for nan (0) and infinities (the largest and smallest of the dtype).

    >>> import kilograd as kg
    >>> kg.nan_to_num(kg.tensor([1.0, float("nan"), float("inf")]), posinf=9.0)
    tensor([1., 0., 9.])
    """
    options = {"nan": 0.0 if nan is None else nan, "posinf": posinf, "neginf": neginf}
    return apply(special.nan_to_num, (input,), options)


@function(inplace=True)
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where the input is negative, 1 where it is positive, ``values`` where it is 0.

    >>> import kilograd as kg
    >>> kg.heaviside(kg.tensor([-1.0, 0.0, 2.0]), kg.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    if input.dtype != values.dtype:
        raise DtypeError("heaviside is not yet implemented for tensors with different dtypes.")
    if input.dtype.is_complex:
        raise DtypeError("heaviside is not yet implemented for complex tensors.")
    return apply(special.heaviside, (input, values))


@function
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition (bools) holds, else ``other``.

    With the condition alone: the indices where it holds, as a tuple of one tensor for each dimension.

    >>> import kilograd as kg
    >>> x = kg.tensor([-1.0, 2.0])
    >>> kg.where(x > 0, x, 0.0), kg.where(x > 0)
    (tensor([0., 2.]), (tensor([1]),))
    """
    condition = _input(condition, "where")
    if input is None and other is None:
        return tuple(wrap(i) for i in np.nonzero(np.atleast_1d(condition.array)))
    kind = condition.array.dtype
    if kind != np.bool_ and kind != np.uint8:
        raise DtypeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype}"
        )
    return apply(ew.where, (condition, input, other))


# The method's order is another one: x.where(condition, other).
Tensor.where = lambda self, condition, other: where(condition, self, other)  # type: ignore[attr-defined]


# --- comparison of whole tensors ----------------------------------------------------------------------


@function
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether ``|input - other| <= atol + rtol * |other|``, elementwise.

    >>> import kilograd as kg
    >>> kg.isclose(kg.tensor([1.0, 2.0]), kg.tensor([1.0, 2.1]))
    tensor([ True, False])
    """
    if input.dtype != other.dtype:
        raise DtypeError(f"isclose: {input.dtype} did not match {other.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: rtol and atol must not be negative, got {rtol} and {atol}")
    options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan}
    return apply(special.isclose, (input, other), options)


@function
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close, see :func:`isclose`.

    >>> import kilograd as kg
    >>> kg.allclose(kg.tensor([1.0, 2.0]), kg.tensor([1.0, 2.0 + 1e-6]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


@function
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same elements.

    >>> import kilograd as kg
    >>> kg.equal(kg.tensor([1, 2]), kg.tensor([1, 2])), kg.equal(kg.tensor([1]), kg.tensor([1, 2]))
    (True, False)
    """
    a, b = input.array, _input(other, "equal").array
    return a.shape == b.shape and bool((a == b).all())


@function
def isposinf(input: Tensor) -> Tensor:
    """Whether it is +inf, elementwise.

    >>> import kilograd as kg
    >>> kg.isposinf(kg.tensor([1.0, float("inf"), -float("inf")]))
    tensor([False,  True, False])
    """
    if input.dtype.is_complex:
        raise DtypeError("isposinf does not support complex inputs.")
    return wrap(np.asarray(input.array == math.inf))


@function
def isneginf(input: Tensor) -> Tensor:
    """Whether it is -inf, elementwise.

    >>> import kilograd as kg
    >>> kg.isneginf(kg.tensor([1.0, float("inf"), -float("inf")]))
    tensor([False, False,  True])
    """
    if input.dtype.is_complex:
        raise DtypeError("isneginf does not support complex inputs.")
    return wrap(np.asarray(input.array == -math.inf))


@function
def isreal(input: Tensor) -> Tensor:
    """Whether it is a real number (has no imaginary part), elementwise.

    >>> import kilograd as kg
    >>> kg.isreal(kg.tensor([1.0, 2.0]))
    tensor([True, True])
    """
    return wrap(np.asarray(np.isreal(input.array)))


@function
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element of a tensor is not 0.

    >>> import kilograd as kg
    >>> kg.is_nonzero(kg.tensor([0.0]))
    False
    """
    return bool(input)


@function
def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating-point one.

    >>> import kilograd as kg
    >>> kg.is_floating_point(kg.tensor([1.0])), kg.is_floating_point(kg.tensor([1]))
    (True, False)
    """
    return _input(input, "is_floating_point").dtype.is_floating_point


@function
def is_complex(input: Tensor) -> bool:
    """Whether the dtype is a complex one.

    >>> import kilograd as kg
    >>> kg.is_complex(kg.tensor([1.0]))
    False
    """
    return _input(input, "is_complex").dtype.is_complex


# --- conversions of angles, signs ---------------------------------------------------------------------


@function(inplace=True)
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians.

    >>> import kilograd as kg
    >>> kg.deg2rad(kg.tensor([180.0, 90.0]))
    tensor([3.1416, 1.5708])
    """
    return input * (math.pi / 180)


@function(inplace=True)
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees.

    >>> import kilograd as kg
    >>> kg.rad2deg(kg.tensor([0.0, 3.14159265]))
    tensor([  0., 180.])
    """
    return input * (180 / math.pi)


@function
def positive(input: Tensor) -> Tensor:
    """The tensor itself, if its dtype is a number's (not bool).

    >>> import kilograd as kg
    >>> kg.positive(kg.tensor([-1.0]))
    tensor([-1.])
    """
    if input.array.dtype == np.bool_:
        raise DtypeError("The `+` operator, on a bool tensor is not supported.")
    return input


class _Frexp(NamedTuple):
    mantissa: Tensor
    exponent: Tensor


@function
def frexp(input: Tensor) -> Any:
    """``(mantissa, exponent)`` with ``input = mantissa * 2**exponent``, ½ <= |mantissa| < 1.

    >>> import kilograd as kg
    >>> m, e = kg.frexp(kg.tensor([8.0, 3.0]))
    >>> m, e
    (tensor([0.5000, 0.7500]), tensor([4, 2], dtype=kilograd.int32))
    """
    if not input.dtype.is_floating_point:
        raise DtypeError(f"torch.frexp() only supports floating-point dtypes, not {input.dtype}")
    return _Frexp(*apply(special.frexp, (input,)))


# --- special functions with parameters ----------------------------------------------------------------


@function(inplace=True)
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of sigmoid; ``eps`` first holds x in [eps, 1 - eps].

    >>> import kilograd as kg
    >>> kg.logit(kg.tensor([0.5, 0.9]))
    tensor([0.0000, 2.1972])
    """
    return apply(special.logit, (input,), {"eps": eps})


@function(method=False)
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of :func:`digamma`.

    >>> import kilograd as kg
    >>> kg.polygamma(1, kg.tensor([1.0, 2.0]))
    tensor([1.6449, 0.6449])
    """
    if isinstance(n, Tensor):  # the method's order: x.polygamma(n)
        n, input = input, n
    n = operator.index(n)
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    return apply(special.polygamma, (input,), {"n": n})


Tensor.polygamma = polygamma  # type: ignore[attr-defined]
Tensor.polygamma_ = inplace_method(polygamma, "polygamma_")  # type: ignore[attr-defined]


@function(inplace=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p; inputs > (p - 1) / 2.

    >>> import kilograd as kg
    >>> kg.mvlgamma(kg.tensor([2.0, 3.0]), 2)
    tensor([0.4516, 1.5502])
    """
    if p < 1:
        raise RuntimeError("mvlgamma: p has to be greater than or equal to 1")
    if input.dtype == dtypes.bool_:
        raise DtypeError("mvlgamma: The input tensor may not be a boolean tensor.")
    y = lgamma(input)
    for j in range(1, p):
        y = y + lgamma(input - j / 2)
    return y + p * (p - 1) / 4 * math.log(math.pi)


# --- complex numbers ----------------------------------------------------------------------------------


def complex(real: Tensor, imag: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The complex tensor with these real and imaginary parts (float32 or float64).

    >>> import kilograd as kg
    >>> kg.complex(kg.tensor([1.0]), kg.tensor([2.0]))
    tensor([1.+2.j])
    """
    _tensors("complex", "", real, imag)
    for part in (real, imag):
        if part.dtype.kind != "f":
            raise DtypeError(
                "complex: Expected both inputs to be Half, Float or Double tensors but got "
                f"{real.dtype} and {imag.dtype}"
            )
    if real.dtype != imag.dtype:
        raise DtypeError(
            f"complex: Expected object of scalar type {real.dtype} but got {imag.dtype}"
        )
    y: Tensor = apply(special.complex_of, (real, imag))
    if out is None:
        return y
    if out.dtype != y.dtype:
        raise DtypeError(
            f"complex: Expected dtype {y.dtype} but got {out.dtype} for argument 'out'"
        )
    return fill(out, y, "complex", (real, imag))


@function(method=False)
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """The complex tensor with these absolute values and angles.

    >>> import kilograd as kg
    >>> kg.polar(kg.tensor([2.0]), kg.tensor([0.0]))
    tensor([2.+0.j])
    """
    _tensors("polar", "", abs, angle)
    return complex(abs * cos(angle), abs * sin(angle))


@function(method=False)
def real(input: Tensor) -> Tensor:
    """The real part (of a real tensor: itself).

    >>> import kilograd as kg
    >>> kg.real(kg.complex(kg.tensor([1.0]), kg.tensor([2.0])))
    tensor([1.])
    """
    return apply(special.real, (input,)) if input.dtype.is_complex else input


@function(method=False)
def imag(input: Tensor) -> Tensor:
    """The imaginary part; RuntimeError for a real tensor.

    >>> import kilograd as kg
    >>> kg.imag(kg.complex(kg.tensor([1.0]), kg.tensor([2.0])))
    tensor([2.])
    """
    if not input.dtype.is_complex:
        raise DtypeError("imag is not implemented for tensors with non-complex dtypes.")
    return apply(special.imag, (input,))


Tensor.real = property(real)  # type: ignore[attr-defined]
Tensor.imag = property(imag)  # type: ignore[attr-defined]


@function
def conj(input: Tensor) -> Tensor:
    """The complex conjugate (of a real tensor: itself).

    >>> import kilograd as kg
    >>> kg.conj(kg.complex(kg.tensor([1.0]), kg.tensor([2.0])))
    tensor([1.-2.j])
    """
    return apply(special.conj, (input,)) if input.dtype.is_complex else input


@function(inplace=True)
def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugate.

    >>> import kilograd as kg
    >>> kg.conj_physical(kg.tensor([1.0]))
    tensor([1.])
    """
    return apply(special.conj, (input,))


@function
def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: kilograd has no lazy conjugates.

    >>> import kilograd as kg
    >>> kg.resolve_conj(kg.tensor([1.0]))
    tensor([1.])
    """
    return input


@function
def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: kilograd has no lazy negatives.

    >>> import kilograd as kg
    >>> kg.resolve_neg(kg.tensor([1.0]))
    tensor([1.])
    """
    return input


@function(method=False)
def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor (*) as a real one (*, 2), sharing memory.

    >>> import kilograd as kg
    >>> kg.view_as_real(kg.complex(kg.tensor([1.0]), kg.tensor([2.0])))
    tensor([[1., 2.]])
    """
    if not input.dtype.is_complex:
        raise DtypeError("view_as_real is only supported for complex tensors")
    return apply(special.as_real, (input,))


@function(method=False)
def view_as_complex(input: Tensor) -> Tensor:
    """A real tensor (*, 2) as a complex one (*), sharing memory.

    >>> import kilograd as kg
    >>> kg.view_as_complex(kg.tensor([[1.0, 2.0]]))
    tensor([1.+2.j])
    """
    if not input.dtype.is_floating_point:
        raise DtypeError(
            f"view_as_complex is only supported for floating-point tensors, not {input.dtype}"
        )
    if input.ndim == 0:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if input.shape[-1] != 2 or input.array.strides[-1] != input.itemsize:
        raise RuntimeError("Tensor must have a last dimension of size 2, with stride 1")
    return apply(special.as_complex, (input,))


_ALIASES = {"subtract": sub, "divide": div, "clip": clamp}
for _name, _fn in _ALIASES.items():
    setattr(Tensor, _name, _fn)
    setattr(Tensor, f"{_name}_", inplace_method(_fn, f"{_name}_"))

"""Elementwise functions as scalar expressions: what one element of a fused loop computes.

Each NumPy ufunc that can be fused has a line here: the expression, and in which dtype its operands
are taken. The names (``exp``, ``maximum`` …) are those of ``kernels/vecmath.py``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kilograd.compile.graph import Equation, Var, cast

F32, F64, I64, BOOL = map(np.dtype, (np.float32, np.float64, np.int64, np.bool_))
CODES = {F32: "f32", F64: "f64", I64: "i64", BOOL: "bool"}
LOADS = {  # dtypes that may be read (and are then one of those above), with the pointer's name
    F32: "f32", F64: "f64", I64: "i64", BOOL: "u8", np.dtype(np.int32): "i32",
    np.dtype(np.uint8): "u8", np.dtype(np.int8): "i8", np.dtype(np.int16): "i16",
    np.dtype(np.uint16): "u16", np.dtype(np.uint32): "u32",
}  # fmt: skip


class Form(NamedTuple):
    """How a function is written: its expression, and ``operands``: "result", "common" or "as they are"."""

    expression: str
    operands: str = "result"


_FLOAT_ONLY = (
    "exp exp2 expm1 log log2 log10 log1p sin cos tan tanh sinh cosh arcsin arccos arctan arcsinh "
    "arccosh arctanh sqrt floor ceil trunc rint"
).split()  # fmt: skip
_RENAMED = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh",
            "arccosh": "acosh", "arctanh": "atanh"}  # fmt: skip

FORMS: dict[Any, Form] = {
    np.add: Form("{0} + {1}"), np.subtract: Form("{0} - {1}"), np.multiply: Form("{0} * {1}"),
    np.divide: Form("{0} / {1}"), np.negative: Form("-{0}"), operator.neg: Form("-{0}"),
    np.square: Form("{0} * {0}"), np.reciprocal: Form("{one} / {0}"),
    np.maximum: Form("maximum({0}, {1})"), np.minimum: Form("minimum({0}, {1})"),
    np.fmax: Form("fmax({0}, {1})"), np.fmin: Form("fmin({0}, {1})"),
    np.absolute: Form("abs({0})"), operator.abs: Form("abs({0})"), np.sign: Form("sign({0})"),
    np.copysign: Form("copysign({0}, {1})", "float"), np.arctan2: Form("atan2({0}, {1})", "float"),
    np.greater: Form("{0} > {1}", "common"), np.less: Form("{0} < {1}", "common"),
    np.greater_equal: Form("{0} >= {1}", "common"), np.less_equal: Form("{0} <= {1}", "common"),
    np.equal: Form("{0} == {1}", "common"), np.not_equal: Form("{0} != {1}", "common"),
    np.isnan: Form("{0} != {0}", "common"),
    np.isfinite: Form("{0} - {0} == {zero}", "common"),
    np.isinf: Form("abs({0}) == {infinity}", "common"),
    np.logical_not: Form("not {0}", "bool"), np.logical_and: Form("{0} and {1}", "bool"),
    np.logical_or: Form("{0} or {1}", "bool"),
    operator.add: Form("{0} + {1}"), operator.sub: Form("{0} - {1}"),
    operator.mul: Form("{0} * {1}"), operator.truediv: Form("{0} / {1}"),
    np.where: Form("{1} if {0} else {2}", "choice"),
    cast: Form("{0}"), np.ndarray.item: Form("{0}"), np.asarray: Form("{0}"),
    np.positive: Form("{0}"), np.ndarray.copy: Form("{0}"), np.copy: Form("{0}"),
}  # fmt: skip
for _name in _FLOAT_ONLY:
    FORMS[getattr(np, _name)] = Form(f"{_RENAMED.get(_name, _name)}({{0}})", "float")
_INSTRUCTIONS = (np.sqrt, np.floor, np.ceil, np.trunc, np.rint, np.copysign)
_BITS = {np.bitwise_and: "and", np.bitwise_or: "or", np.bitwise_xor: "!="}
_CONVERTING = (cast, np.asarray, np.ndarray.item)
_PLAIN_NUMBERS = (bool, int, float)


def dtype_of(x: Any) -> Any:
    """The dtype of an operand; None for numbers, which take that of what they meet."""
    if isinstance(x, Var):
        return None if x.number else x.dtype
    return None


def kind_of(v: Var) -> np.dtype:
    """The dtype in which a value is computed with: numbers are float64."""
    return F64 if v.number else v.dtype


def operands(eq: Equation) -> tuple[Any, ...]:
    """The arguments of an equation that are operands of its expression."""
    return eq.args[:1] if eq.fn in _CONVERTING else eq.args


def fusable(eq: Equation) -> bool:
    """Whether an equation can be one line of a fused loop."""
    if len(eq.outs) != 1 or eq.effect or eq.tree is not None:
        return False
    out = kind_of(eq.outs[0])
    if out not in CODES:
        return False
    fn = eq.fn
    if fn is np.asarray and (len(eq.args) != 2 or eq.kwargs):
        return False
    if fn is np.ndarray.item and len(eq.args) != 1:
        return False
    if fn in (np.ndarray.copy, np.copy):
        pass
    elif eq.kwargs:
        return False
    for x in operands(eq):
        if isinstance(x, Var):
            if not x.number and x.dtype not in LOADS:
                return False
        elif type(x) not in _PLAIN_NUMBERS and not isinstance(x, np.generic):
            return False
    if fn in _BITS:
        return out == BOOL and all(dtype_of(x) == BOOL for x in eq.args)
    if fn is np.invert:
        return out == BOOL
    if fn in (operator.pow, np.power):
        return out in (F32, F64)
    form = FORMS.get(fn)
    if form is None:
        return False
    if form.operands == "float" and out not in (F32, F64):
        return False
    if (
        form.operands == "result"
        and out == BOOL
        and fn not in _CONVERTING
        and "copy" not in fn.__name__
    ):
        return False
    if fn is np.where and len(eq.args) != 3:
        return False
    return not (fn is np.divide and out == I64)


def costly(eq: Equation) -> bool:
    """Whether an equation is a polynomial or more, rather than an instruction or two."""
    form = FORMS.get(eq.fn)
    return form is not None and form.operands == "float" and eq.fn not in _INSTRUCTIONS


def literal(x: Any, dtype: np.dtype) -> str:
    """A Python number as a constant of a dtype."""
    if dtype == BOOL:
        return "True" if x else "False"
    if dtype == I64:
        return f"i64({int(x)})"
    x = float(x)  # (a number of NumPy's too)
    text = (
        repr(x) if math.isfinite(x) else {math.inf: "np.inf", -math.inf: "-np.inf"}.get(x, "np.nan")
    )
    return f"{CODES[dtype]}({text})"


def converted(text: str, source: np.dtype, target: np.dtype) -> str:
    """An expression of one dtype as another."""
    if source == target:
        return text
    if target == BOOL:
        return f"({text} != 0)"
    if source == BOOL:
        return f"({literal(1, target)} if {text} else {literal(0, target)})"
    return f"{CODES[target]}({text})"


def expression(
    eq: Equation,
    names: dict[Var, tuple[str, np.dtype]],
    number: Callable[[Any, np.dtype], str] = literal,
) -> str:
    """The scalar expression of an equation.

    ``names`` are the local names of its operands; ``number`` says how a Python number is written.
    """
    out = kind_of(eq.outs[0])
    out = out if out in CODES else I64  # and narrowed where it is stored
    fn = eq.fn
    args = operands(eq)

    def operand(x: Any, dtype: np.dtype) -> str:
        if isinstance(x, Var):
            name, source = names[x]
            return converted(name, source, dtype)
        return number(x, dtype)

    if fn in (operator.pow, np.power):
        return _power(eq, operand, out)
    if fn in _BITS:
        return f"{operand(args[0], BOOL)} {_BITS[fn]} {operand(args[1], BOOL)}"
    if fn is np.invert:
        return f"not {operand(args[0], BOOL)}"
    form = FORMS[fn]
    if form.operands == "common":
        common = _common(args, names)
        special = {}
        if fn in (np.isfinite, np.isinf, np.isnan):
            if common not in (F32, F64):
                return {np.isfinite: "True", np.isinf: "False", np.isnan: "False"}[fn]
            special = {"zero": literal(0, common), "infinity": literal(math.inf, common)}
        return form.expression.format(*[operand(x, common) for x in args], **special)
    if form.operands == "bool":
        return form.expression.format(*[operand(x, BOOL) for x in args])
    if form.operands == "choice":
        texts = operand(args[0], BOOL), operand(args[1], out), operand(args[2], out)
        return form.expression.format(*texts)
    return form.expression.format(*[operand(x, out) for x in args], one=literal(1, out))


def _common(args: Any, names: dict[Var, tuple[str, np.dtype]]) -> np.dtype:
    """The dtype in which operands are compared."""
    kinds = [names[x][1] for x in args if isinstance(x, Var) and not x.number]
    kinds += [x.dtype for x in args if isinstance(x, np.generic)]
    if not kinds:
        return F64
    common = np.result_type(*kinds)
    numbers = [
        x for x in args if not isinstance(x, (Var, np.generic)) or getattr(x, "number", False)
    ]
    if common.kind in "bi" and any(isinstance(x, Var) or type(x) is float for x in numbers):
        return F64
    if common == BOOL and any(type(x) is int for x in numbers):
        return I64
    return np.dtype(common)


def _power(eq: Equation, operand: Any, out: np.dtype) -> str:
    base, exponent = eq.args
    x = operand(base, out)
    if type(exponent) in (int, float):
        if exponent == 2:
            return f"{x} * {x}"
        if exponent == 3:
            return f"{x} * {x} * {x}"
        if exponent == 1:
            return x
        if exponent == 0.5:
            return f"sqrt({x})"
        if exponent == -0.5:  # at -0 and -inf as PyTorch does it, too
            return f"{literal(1, out)} / sqrt({x})"
        if exponent == -1:
            return f"{literal(1, out)} / {x}"
        if exponent == -2:
            return f"{literal(1, out)} / ({x} * {x})"
    return f"power({x}, {operand(exponent, out)})"

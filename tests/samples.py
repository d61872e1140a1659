"""A few calls of every primitive op, for ``test_registry.py``.

``SAMPLES[name]`` is a function of a :class:`Draw` that yields :class:`Sample` s. Arrays are float64
here; the test also runs them as float32. Inputs stay clear of kinks and ties: the derivative there is
a convention, which PyTorch's own samples (``test_op_db.py``) settle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One call of an op: ``op(*args, **options)``."""

    form: str  # scalar, vector, matrix, broadcast, empty, size-1 ... : shown when it fails
    args: tuple[Any, ...]
    options: dict[str, Any] = {}
    fn: Callable[..., Any] = lambda op, *args, **options: op(*args, **options)
    """What is differentiated, where the op alone is not a smooth function of free numbers."""
    constant: tuple[str, ...] = ()  # float inputs without a derivative, on purpose
    order: int = 2  # the highest derivative that exists


class Draw:
    """Random arrays, the same at every run."""

    def __init__(self, name: str) -> None:
        self.rng = np.random.default_rng(list(name.encode()))

    def __call__(self, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
        return np.asarray(self.rng.uniform(low, high, shape))

    def ints(self, *shape: int, low: int = 0, high: int) -> np.ndarray:
        return np.asarray(self.rng.integers(low, high, shape))

    def mask(self, *shape: int) -> np.ndarray:
        return np.asarray(self.rng.random(shape) < 0.6)

    def spaced(self, *shape: int) -> np.ndarray:
        """No two elements closer than 0.1: which is the largest does not hang on a rounding."""
        n = math.prod(shape)
        return np.asarray((self.rng.permutation(n).reshape(shape) - n / 2) * 0.2)

    def definite(self, *shape: int) -> np.ndarray:
        """Symmetric positive definite matrices."""
        a = self(*shape)
        return a @ a.swapaxes(-1, -2) + 2 * np.eye(shape[-1])

    def regular(self, *shape: int) -> np.ndarray:
        """Square matrices far from singular, with distinct eigenvalues."""
        return self(*shape) * 0.4 + np.diag(np.arange(1.0, shape[-1] + 1))


Samples = Callable[[Draw], Iterator[Sample]]
SAMPLES: dict[str, Samples] = {}


def samples(*names: str) -> Callable[[Samples], Samples]:
    def declare(fn: Samples) -> Samples:
        for name in names:
            assert name not in SAMPLES, f"two lots of samples for {name}"
            SAMPLES[name] = fn
        return fn

    return declare


# --- elementwise ------------------------------------------------------------------------------------

SHAPES = {
    "scalar": (),
    "vector": (5,),
    "matrix": (3, 4),
    "size-1": (1, 3, 1),
    "empty": (2, 0),
}
ONE = {  # name: where its argument may lie
    "negative": (-2, 2), "absolute": (-2, 2), "square": (-2, 2), "reciprocal": (0.3, 2),
    "exp": (-2, 2), "exp2": (-2, 2), "expm1": (-2, 2), "log": (0.3, 3), "log2": (0.3, 3),
    "log10": (0.3, 3), "log1p": (-0.5, 2), "sqrt": (0.3, 3), "rsqrt": (0.3, 3),
    "sin": (-2, 2), "cos": (-2, 2), "tan": (-1, 1), "asin": (-0.8, 0.8), "acos": (-0.8, 0.8),
    "atan": (-2, 2), "sinh": (-2, 2), "cosh": (-2, 2), "tanh": (-2, 2), "asinh": (-2, 2),
    "acosh": (1.3, 3), "atanh": (-0.8, 0.8), "floor": (-5, 5), "ceil": (-5, 5), "trunc": (-5, 5),
    "rint": (-5, 5), "log1p_exp": (-3, 3), "sign": (-2, 2), "angle": (-2, 2), "sigmoid": (-3, 3), "relu": (-2, 2),
    "erf": (-2, 2), "erfc": (-2, 2), "erfcx": (-1, 2), "erfinv": (-0.8, 0.8), "ndtr": (-2, 2),
    "ndtri": (0.1, 0.9), "log_ndtr": (-3, 2), "lgamma": (0.3, 4), "digamma": (0.3, 4),
    "i0": (-3, 3), "i0e": (-3, 3), "i1": (-3, 3), "i1e": (-3, 3), "entr": (0.1, 2),
    "sgn": (-2, 2), "sinc": (0.1, 2), "hardsigmoid": (-5, 5), "hardswish": (-5, 5), "logsigmoid": (-3, 3),
    "silu": (-3, 3), "mish": (-3, 3), "clone": (-2, 2),
    "isnan": (-2, 2), "isinf": (-2, 2), "isfinite": (-2, 2), "signbit": (-2, 2),
    "logical_not": (-2, 2),
}  # fmt: skip
TWO: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    **dict.fromkeys(
        ("add", "subtract", "multiply", "maximum", "minimum", "fmax", "fmin", "logaddexp",
         "logaddexp2", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
         "logical_and", "logical_or", "logical_xor", "nextafter", "heaviside"),
        ((-2, 2), (-2, 2)),
    ),
    "divide": ((-2, 2), (0.4, 2)), "hypot": ((0.3, 2), (0.3, 2)), "atan2": ((-2, 2), (0.4, 2)),
    "copysign": ((0.3, 2), (-2, 2)), "power": ((0.4, 2), (-2, 2)), "floor_divide": ((-5, 5), (0.4, 2)),
    "trunc_divide": ((-5, 5), (0.4, 2)), "remainder": ((-5, 5), (1.1, 3)), "fmod": ((-5, 5), (1.1, 3)),
    "xlogy": ((-2, 2), (0.3, 2)), "xlog1py": ((-2, 2), (-0.5, 2)),
    "zeta": ((1.5, 4), (0.5, 3)), "igamma": ((0.5, 4), (0.3, 5)), "igammac": ((0.5, 4), (0.3, 5)),
}  # fmt: skip
NO_FIRST_DERIVATIVE = ("zeta", "igamma", "igammac")  # PyTorch has none either
ARRAYS_ONLY = ("heaviside", "igamma", "igammac", "nextafter")  # so are PyTorch's
WHOLE = ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "gcd", "lcm")


def _one(low: float, high: float, **options: Any) -> Samples:
    def make(r: Draw) -> Iterator[Sample]:
        for form, shape in SHAPES.items():
            yield Sample(form, (r(*shape, low=low, high=high),), options)

    return make


def _two(
    first: tuple[float, float], second: tuple[float, float], constant: Any, numbers: bool
) -> Samples:
    def make(r: Draw) -> Iterator[Sample]:
        def a(*shape: int) -> np.ndarray:
            return r(*shape, low=first[0], high=first[1])

        def b(*shape: int) -> np.ndarray:
            return r(*shape, low=second[0], high=second[1])

        for form, shape in SHAPES.items():
            yield Sample(form, (a(*shape), b(*shape)), constant=constant)
        for left, right in [
            ((3, 1), (1, 4)),
            ((4,), (3, 1)),
            ((2, 3), ()),
            ((), (3,)),
            ((0, 1), (3,)),
        ]:
            yield Sample(f"broadcast {left} {right}", (a(*left), b(*right)), constant=constant)
        if numbers:
            yield Sample("array and number", (a(2, 3), 1.5), constant=constant)
            yield Sample("number and array", (1.5, b(2, 3)), constant=constant)

    return make


for _name, (_low, _high) in ONE.items():
    SAMPLES[_name] = _one(_low, _high)
for _name, (_first, _second) in TWO.items():
    SAMPLES[_name] = _two(
        _first, _second, ("a",) if _name in NO_FIRST_DERIVATIVE else (), _name not in ARRAYS_ONLY
    )
_power = SAMPLES.pop("power")


@samples("power")
def _(r):
    yield from _power(r)
    for b in (2, 3, -1, -2, 0, 1, 0.5, -1.5, 4.0):
        yield Sample(f"to the {b}", (r(2, 3, low=0.4), b))
    yield Sample("negative base", (r(2, 3, low=-2, high=-0.4), 3))
    yield Sample("negative base, array of whole exponents", (r(4, low=-2, high=-0.4), np.array([0.0, 1, 2, 3])),
                 constant=("b",))  # fmt: skip


@samples(*WHOLE)
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r.ints(*shape, high=6), r.ints(*shape, high=6)))
    yield Sample("broadcast", (r.ints(3, 1, high=6), r.ints(4, high=6)))


@samples("invert")
def _(r):
    yield Sample("matrix", (r.ints(2, 3, high=9),))
    yield Sample("mask", (r.mask(2, 3),))


@samples("softplus")
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r(*shape),), {"beta": 1.0, "threshold": 20.0})
    yield Sample("partly linear", (r(9),), {"beta": 2.0, "threshold": 1.0})


@samples("polygamma")
def _(r):
    for n in (1, 2):
        yield Sample(f"n={n}", (r(2, 3, low=0.4, high=3),), {"n": n})
    yield Sample("empty", (r(0),), {"n": 1})


@samples("logit")
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r(*shape, low=0.1, high=0.9),), {"eps": None})
    yield Sample("held", (r(20, low=0, high=1),), {"eps": 0.2})


@samples("lerp")
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r(*shape), r(*shape), r(*shape, low=0.1, high=0.9)))
    yield Sample("number", (r(2, 3), r(2, 3), 0.3))
    yield Sample("broadcast", (r(2, 1), r(3), r(1, low=0, high=1)))


@samples("addcmul", "addcdiv")
def _(r):
    for value in (1, 0.5):
        yield Sample(f"value={value}", (r(2, 3), r(2, 3), r(2, 3, low=0.4)), {"value": value})
    yield Sample("broadcast", (r(3, 1), r(), r(4, low=0.4)), {"value": -2})
    yield Sample("empty", (r(0, 2), r(2), r(2)), {"value": 1})


@samples("nan_to_num")
def _(r):
    yield Sample("matrix", (r(2, 3),), {"nan": 0.0, "posinf": None, "neginf": None})
    yield Sample("empty", (r(0),), {"nan": 0.0, "posinf": None, "neginf": None})


@samples("round_to")
def _(r):
    for decimals in (1, -1):
        yield Sample(f"decimals={decimals}", (r(2, 3, high=40),), {"decimals": decimals})


@samples("isclose")
def _(r):
    x = r(3, 4)
    how = {"rtol": 1e-3, "atol": 1e-3, "equal_nan": False}
    yield Sample("matrix", (x, x + r(3, 4) * 2e-3), how)
    nan = np.array([1.0, np.nan, np.inf, -np.inf])
    yield Sample("nan", (nan, nan[[0, 1, 2, 2]]), {**how, "equal_nan": True})
    yield Sample("empty", (r(0), r(0)), how)


@samples("frexp")
def _(r):
    yield Sample("matrix", (r(2, 3, low=0.3),))
    yield Sample("scalar", (r(low=0.3),))


# --- complex numbers: no gradients through them yet, except of what is real -----------------------------


@samples("as_real")
def _(r):
    yield Sample("complex", (r(2, 3) + 1j * r(2, 3),), constant=("x",))


@samples("as_complex")
def _(r):
    yield Sample("matrix", (r(3, 2),), order=1)


@samples("real", "conj")
def _(r):
    yield Sample("of real", (r(2, 3),))
    yield Sample("complex", (r(2, 3) + 1j * r(2, 3),), constant=("x",))


@samples("imag")
def _(r):
    yield Sample("complex", (r(2, 3) + 1j * r(2, 3),), constant=("x",))


@samples("complex_of")
def _(r):
    yield Sample("matrix", (r(2, 3), r(2, 3)), order=1)
    yield Sample("broadcast", (r(2, 1), r(3)), order=1)


# --- choosing and converting ----------------------------------------------------------------------------


@samples("where")
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r.mask(*shape), r(*shape), r(*shape)))
    yield Sample("broadcast", (r.mask(3, 1), r(4), r()))
    yield Sample("numbers", (r.mask(2, 3), r(2, 3), 0.5))
    yield Sample("numbers", (r.mask(2, 3), -1.0, r(2, 3)))


@samples("clamp")
def _(r):
    for form, shape in SHAPES.items():
        yield Sample(form, (r(*shape), -0.7, 0.9))
    yield Sample("low", (r(2, 3), 0.1, None))
    yield Sample("high", (r(2, 3), None, 0.1))
    yield Sample("arrays", (r(9), r(9, high=0), r(9, low=0)))
    yield Sample("crossed", (r(9), r(9, low=0.5), r(9, high=0.5)))
    yield Sample("broadcast", (r(3, 1), r(4, high=0), r(low=0)))


@samples("cast")
def _(r):
    yield Sample("to float64", (r(2, 3),), {"dtype": np.dtype(np.float64)})
    yield Sample("to float32", (r(2, 3),), {"dtype": np.dtype(np.float32)}, order=0)
    yield Sample("to int", (r(2, 3, low=-9, high=9),), {"dtype": np.dtype(np.int64)}, order=0)


# --- shapes ---------------------------------------------------------------------------------------------


@samples("reshape")
def _(r):
    for old, new in [((2, 6), (3, 4)), ((), (1, 1)), ((4,), (2, -1)), ((1,), ()), ((0, 3), (3, 0))]:
        yield Sample(f"{old} {new}", (r(*old),), {"shape": new})


@samples("view")
def _(r):
    for old, new in [((2, 6), (3, 4)), ((), (1, 1)), ((0, 3), (3, 0))]:
        yield Sample(f"{old} {new}", (r(*old),), {"shape": new})


@samples("permute")
def _(r):
    yield Sample("not its own inverse", (r(2, 3, 4),), {"axes": (1, 2, 0)})
    yield Sample("four", (r(2, 1, 3, 2),), {"axes": (3, 0, 2, 1)})
    yield Sample("scalar", (r(),), {"axes": ()})
    yield Sample("empty", (r(2, 0),), {"axes": (1, 0)})


@samples("swapaxes")
def _(r):
    yield Sample("matrix", (r(2, 3),), {"a": 0, "b": 1})
    yield Sample("negative", (r(2, 3, 4),), {"a": -1, "b": 0})


@samples("broadcast_to")
def _(r):
    for old, new in [
        ((3, 1), (3, 4)),
        ((), (2, 3)),
        ((4,), (2, 3, 4)),
        ((2, 3), (2, 3)),
        ((1,), (0,)),
    ]:
        yield Sample(f"{old} {new}", (r(*old),), {"shape": new})


@samples("concatenate")
def _(r):
    yield Sample("rows", (r(2, 3), r(1, 3), r(4, 3)), {"axis": 0})
    yield Sample("negative axis", (r(2, 3), r(2, 1)), {"axis": -1})
    yield Sample("one", (r(2, 3),), {"axis": 1})
    yield Sample("some empty", (r(2, 0), r(2, 2)), {"axis": 1})


@samples("split")
def _(r):
    yield Sample("columns", (r(3, 5),), {"ends": (2, 3, 5), "axis": 1})
    yield Sample("rows, one empty", (r(4, 2),), {"ends": (3, 3, 4), "axis": 0})


@samples("stack")
def _(r):
    for axis in (0, 1, -1):
        yield Sample(f"axis={axis}", (r(2, 3), r(2, 3), r(2, 3)), {"axis": axis})
    yield Sample("scalars", (r(), r()), {"axis": 0})


@samples("unbind")
def _(r):
    yield Sample("rows", (r(3, 2),), {"axis": 0})
    yield Sample("columns", (r(3, 2),), {"axis": 1})


@samples("flip")
def _(r):
    yield Sample("one", (r(3, 2),), {"axes": (0,)})
    yield Sample("two", (r(3, 2, 4),), {"axes": (0, 2)})
    yield Sample("empty", (r(0, 2),), {"axes": (0,)})


@samples("repeat")
def _(r):
    yield Sample("2d", (r(2, 3),), {"times": (2, 3)})
    yield Sample("new axes", (r(3),), {"times": (2, 1, 2)})
    yield Sample("once", (r(2, 3),), {"times": (1, 1)})
    yield Sample("0d", (r(),), {"times": (3,)})


@samples("roll")
def _(r):
    yield Sample("one", (r(3, 5),), {"shifts": 2, "axes": 1})
    yield Sample("two", (r(3, 5),), {"shifts": (1, -2), "axes": (0, 1)})
    yield Sample("flat", (r(3, 5),), {"shifts": 4, "axes": None})


@samples("diagonal")
def _(r):
    for k in (0, 1, -1):
        yield Sample(f"offset={k}", (r(3, 4),), {"offset": k, "a": 0, "b": 1})
    yield Sample("batch", (r(3, 2, 3),), {"offset": 0, "a": 0, "b": 2})


@samples("diagonal_put")
def _(r):
    yield Sample("offset=1", (r(3),), {"shape": (3, 4), "offset": 1, "a": 0, "b": 1})
    yield Sample("batch", (r(2, 3),), {"shape": (3, 2, 3), "offset": 0, "a": 0, "b": 2})


@samples("tril", "triu")
def _(r):
    for k in (0, 1, -1):
        yield Sample(f"k={k}", (r(3, 4),), {"k": k})
    yield Sample("batch", (r(2, 3, 3),), {"k": 0})


@samples("unfold")
def _(r):
    yield Sample("overlapping", (r(7),), {"axis": 0, "size": 3, "step": 2})
    yield Sample("columns", (r(2, 6, 2),), {"axis": 1, "size": 2, "step": 3})


@samples("unfold_put")
def _(r):
    yield Sample("overlapping", (r(3, 3),), {"shape": (7,), "axis": 0, "size": 3, "step": 2})
    yield Sample("columns", (r(2, 2, 2, 2),), {"shape": (2, 6, 2), "axis": 1, "size": 2, "step": 3})


@samples("as_strided")
def _(r):
    own = ((3, 4), (4, 1), 0)
    yield Sample("diagonal", (r(3, 4),), {"shape": (3,), "stride": (5,), "offset": 0, "own": own})
    yield Sample(
        "overlapping", (r(3, 4),), {"shape": (4, 3), "stride": (2, 1), "offset": 1, "own": own}
    )


# --- indices --------------------------------------------------------------------------------------------

INDICES = {
    "integer": ((3, 4), 1),
    "slices": ((5, 4), (slice(1, 4, 2), slice(None, -1))),
    "new axis": ((3, 4), (None, ..., None, 2)),
    "repeated integers": ((3, 4), np.array([0, 0, 2, 0])),
    "pairs": ((3, 4), (np.array([0, 2, 0]), np.array([1, 1, 1]))),
    "broadcast": ((3, 4), (np.array([[0], [2]]), np.array([1, 1, 3]))),
    "mask": ((2, 3), np.array([[True, False, True], [False, True, True]])),
    "mask of rows": ((3, 2), np.array([True, False, True])),
    "mixed": ((3, 4, 2), (slice(None), np.array([1, 1]), 0)),
    "apart": ((3, 4, 2), (np.array([1, 0]), slice(1, 3), np.array([1, 1]))),
    "nothing": ((3, 4), np.zeros(0, np.int64)),
    "of a scalar": ((), ()),
}


@samples("getitem")
def _(r):
    for form, (shape, index) in INDICES.items():
        yield Sample(form, (r(*shape),), {"index": index})


@samples("put_zeros")
def _(r):
    for form, (shape, index) in INDICES.items():
        yield Sample(form, (r(*np.zeros(shape)[index].shape),), {"shape": shape, "index": index})


@samples("index_put")
def _(r):
    for form, (shape, index) in INDICES.items():
        if form not in (
            "repeated integers",
            "pairs",
            "broadcast",
            "mixed",
            "apart",
        ):  # places written twice
            yield Sample(form, (r(*shape), r(*np.zeros(shape)[index].shape)), {"index": index})
    yield Sample("apart", (r(3, 4), r(2)), {"index": (np.array([0, 2]), np.array([1, 1]))})
    yield Sample("broadcast", (r(3, 4), r(4)), {"index": slice(0, 2)})
    yield Sample("number", (r(3, 4), 1.5), {"index": (0, slice(None))})


@samples("view_put")
def _(r):
    yield Sample("transposed row", (r(3, 4), r(3)), {"view": lambda a: a[:, 1]})
    yield Sample("reshaped", (r(2, 6), r(3, 4)), {"view": lambda a: a.reshape((3, 4))})


@samples("index_select")
def _(r):
    yield Sample("repeated", (r(3, 4), np.array([2, 0, 2])), {"axis": 0})
    yield Sample("columns", (r(3, 4), np.array([1])), {"axis": 1})
    yield Sample("nothing", (r(3, 4), np.zeros(0, np.int64)), {"axis": 1})


@samples("index_add_zeros")
def _(r):
    yield Sample("repeated", (r(3, 4), np.array([2, 0, 2])), {"shape": (5, 4), "axis": 0})
    yield Sample("columns", (r(3, 2), np.array([1, 1])), {"shape": (3, 4), "axis": 1})


@samples("index_assign")
def _(r):
    yield Sample("rows", (r(3, 4), r(2, 4), np.array([2, 0])), {"axis": 0})
    yield Sample("columns", (r(3, 4), r(3, 1), np.array([1])), {"axis": 1})
    yield Sample("number", (r(3, 4), 0.5, np.array([1, 2])), {"axis": 1})


@samples("gather")
def _(r):
    yield Sample("columns", (r(3, 4), r.ints(3, 5, high=4)), {"axis": 1})
    yield Sample("rows, fewer", (r(3, 4), r.ints(2, 3, high=3)), {"axis": 0})
    yield Sample("vector", (r(4), np.array([1, 1, 0])), {"axis": 0})


@samples("scatter_add")
def _(r):
    yield Sample("distinct", (r(3, 5), r(3, 2), np.array([[0, 2], [4, 0], [1, 3]])), {"axis": 1})
    yield Sample("repeated", (r(3, 5), r(2, 5), r.ints(2, 5, high=3)), {"axis": 0})


@samples("scatter_add_zeros")
def _(r):
    yield Sample("columns", (r(3, 5), r.ints(3, 5, high=4)), {"shape": (3, 4), "axis": 1})
    yield Sample("rows, fewer", (r(2, 3), r.ints(2, 3, high=3)), {"shape": (3, 4), "axis": 0})


@samples("scatter")
def _(r):
    yield Sample("columns", (r(2, 4), r(2, 3), np.array([[0, 1, 3], [2, 0, 1]])), {"axis": 1})
    yield Sample("number", (r(2, 4), 2.0, np.array([[0, 1, 3], [2, 0, 1]])), {"axis": 1})


@samples("scatter_reduce")
def _(r):
    for reduce in ("sum", "mean", "prod", "amax", "amin"):
        for include in (True, False):
            yield Sample(
                f"{reduce} {include}", (r.spaced(3, 4), r(2, 4), r.ints(2, 4, high=3)),
                {"axis": 0, "reduce": reduce, "include_self": include},
            )  # fmt: skip


@samples("fill")
def _(r):
    yield Sample("number", (r(2, 3), 1.5))
    yield Sample("array", (r(2, 3), r()))


@samples("masked_fill")
def _(r):
    yield Sample("number", (r(2, 3), 1.5, r.mask(2, 3)))
    yield Sample("array", (r(2, 3), r(), r.mask(2, 3)))
    yield Sample("broadcast", (r(2, 3), 0.0, r.mask(3)))
    yield Sample("empty", (r(0), 0.0, r.mask(0)))


@samples("masked_select")
def _(r):
    yield Sample("matrix", (r(3, 4), r.mask(3, 4)))
    yield Sample("nothing", (r(2), np.zeros(2, bool)))


@samples("masked_place")
def _(r):
    mask = r.mask(3, 4)
    yield Sample("matrix", (r(int(mask.sum())), mask))


@samples("nonzero")
def _(r):
    yield Sample("matrix", (r(2, 3) * r.mask(2, 3),))


@samples("embedding")
def _(r):
    how = {"padding_idx": None, "scale_grad_by_freq": False}
    yield Sample("repeated", (r(4, 3), np.array([[0, 3], [0, 0]])), how)
    yield Sample("vector", (r(4, 3), np.array([2])), how)
    yield Sample("nothing", (r(4, 3), np.zeros((0, 2), np.int64)), how)
    # these two change the gradient on purpose: it is not the derivative of the value
    yield Sample("padding", (r(4, 3), np.array([0, 1])), {**how, "padding_idx": 2})


@samples("embedding_transpose")
def _(r):
    yield Sample(
        "repeated", (r(2, 2, 3), np.array([[0, 3], [0, 0]])), {"rows": 4, "padding_idx": None}
    )
    yield Sample("padding", (r(3, 3), np.array([0, 2, 0])), {"rows": 4, "padding_idx": 0})


@samples("occurrences")
def _(r):
    yield Sample("matrix", (np.array([[0, 3], [0, 0]]),), {"rows": 4})


# --- reductions -----------------------------------------------------------------------------------------

AXES = [
    ((), None), ((5,), 0), ((3, 4), None), ((3, 4), 0), ((3, 4), -1), ((3, 3), 1), ((2, 3, 4), (0, 2)),
    ((2, 3, 4), (-1, 0)), ((1, 3, 1), (0, 2)), ((0, 3), 0), ((2, 0), 0),
]  # fmt: skip


def over_axes(shapes: Any = AXES, spaced: bool = False, low: float = -2, **options: Any) -> Samples:
    """Reductions ``op(x, axis=, keepdims=)`` over every kind of axes."""

    def make(r: Draw) -> Iterator[Sample]:
        for shape, axis in shapes:
            for keepdims in (False, True):
                x = r.spaced(*shape) if spaced else r(*shape, low=low)
                how = {"axis": axis, "keepdims": keepdims, **options}
                yield Sample(f"{shape} axis={axis} keepdims={keepdims}", (x,), how)

    return make


for _name in ("sum", "mean"):
    SAMPLES[_name] = over_axes([a for a in AXES if a[0] != (0, 3) or _name == "sum"])


for _name in ("amax", "amin"):
    SAMPLES[_name] = over_axes(AXES[:-2], spaced=True)
for _name in ("all", "any", "nansum"):
    SAMPLES[_name] = over_axes()
for _name in ("argmax", "argmin"):
    SAMPLES[_name] = over_axes([a for a in AXES[:-2] if not isinstance(a[1], tuple)], spaced=True)
SAMPLES["logsumexp"] = over_axes([((), 0), *AXES[1:-2]])
SAMPLES["prod"] = over_axes([a for a in AXES if not isinstance(a[1], tuple)])
SAMPLES["median_of_all"] = lambda r: iter(
    [Sample("odd", (r.spaced(3, 5),)), Sample("even", (r.spaced(2, 4),)), Sample("scalar", (r(),))]
)
_prod = SAMPLES["prod"]


@samples("var", "std")
def _(r):
    for shape, axis in [
        ((5,), 0),
        ((3, 4), None),
        ((3, 3), 1),
        ((2, 3, 4), (0, 2)),
        ((2, 3, 4), (-1, 0)),
    ]:
        for correction in (1, 0, 0.5):
            how = {"axis": axis, "correction": correction, "keepdims": correction == 0}
            yield Sample(f"{shape} {axis} {correction}", (r(*shape),), how)


@samples("count_nonzero")
def _(r):
    yield Sample("all", (r(2, 3) * r.mask(2, 3),), {"axis": None})
    yield Sample("some", (r(2, 3) * r.mask(2, 3),), {"axis": (0,)})


@samples("cumsum", "cumprod", "logcumsumexp")
def _(r):
    for shape, axis in [
        ((4,), 0),
        ((3, 4), 0),
        ((3, 4), 1),
        ((2, 3, 2), 1),
        ((1, 3), 0),
        ((2, 0), 1),
    ]:
        yield Sample(f"{shape} {axis}", (r(*shape),), {"axis": axis})


@samples("pick")
def _(r):
    yield Sample("repeated", (r(3, 4), r.ints(3, 2, high=4)), {"axis": 1, "distinct": False})
    yield Sample("sorted", (r(3, 4), r(3, 4).argsort(0)), {"axis": 0})
    yield Sample("one", (r(3, 4), r.ints(3, 1, high=4)), {"axis": 1, "keepdims": False})
    yield Sample("scalar", (r(), np.array(0)), {"axis": 0})


@samples("unpick")
def _(r):
    how = {"shape": (3, 4), "axis": 1}
    yield Sample("repeated", (r(3, 5), r.ints(3, 5, high=4)), {**how, "distinct": False})
    yield Sample("sorted", (r(3, 4), r(3, 4).argsort(1)), how)


@samples("max_at")
def _(r):
    for keepdims in (False, True):
        x = r.spaced(3, 4)
        yield Sample("rows", (x, x.argmax(1, keepdims=True)), {"axis": 1, "keepdims": keepdims})
        yield Sample("columns", (x, x.argmax(0, keepdims=True)), {"axis": 0, "keepdims": keepdims})


@samples("min_at")
def _(r):
    for keepdims in (False, True):
        x = r.spaced(3, 4)
        yield Sample("rows", (x, x.argmin(1, keepdims=True)), {"axis": 1, "keepdims": keepdims})


@samples("repeated")
def _(r):
    yield Sample("rows", (r(3, 1),), {"shape": (3, 4)})
    yield Sample("scalar", (r(),), {"shape": (2, 3)})


@samples("argsort", "arg_median", "arg_mode", "arg_cummax", "arg_cummin")
def _(r):
    yield Sample("rows", (r.spaced(3, 4),), {"axis": 1})
    yield Sample("columns", (r.spaced(20, 2),), {"axis": 0})


@samples("arg_topk")
def _(r):
    for n in (4, 600):
        for largest in (False, True):
            yield Sample(
                f"{n} {largest}", (r.spaced(2, n),), {"k": 2, "axis": 1, "largest": largest}
            )


@samples("arg_kth")
def _(r):
    yield Sample("rows", (r.spaced(3, 4),), {"k": 2, "axis": 1})


@samples("vector_norm")
def _(r):
    for order in (2, 1, 3.0, math.inf, -math.inf, 0, 0.5):
        for shape, axis in AXES[:-2]:
            how = {"ord": order, "axis": axis, "keepdims": shape == (3, 4)}
            yield Sample(
                f"{order} {shape} {axis}",
                (np.asarray(r(*shape, low=0.3) * (1 - 2 * r.mask(*shape))),),
                how,
            )


# --- linear algebra -------------------------------------------------------------------------------------


@samples("matmul")
def _(r):
    pairs = ["3 3", "3 3,2", "2,3 3", "2,3 3,4", "5,2,3 3,4", "2,3 5,3,4", "5,2,3 5,3,4", "5,1,2,3 4,3,2",
             "3 5,3,2", "5,2,3 3", "4,5,2,3 3", "1,3 3,1", "2,0 0,3", "0,3 3,2"]  # fmt: skip
    for pair in pairs:
        a, b = (tuple(map(int, s.split(","))) for s in pair.split())
        yield Sample(f"{a} @ {b}", (r(*a), r(*b)))


@samples("contract")
def _(r):
    for labels, a, b in [
        (("ij", "jk", "ik"), (2, 3), (3, 4)),
        (("bij", "bjk", "bki"), (2, 3, 4), (2, 4, 5)),
        (("ij", "k", "kij"), (2, 3), (4,)),
        (("i", "i", ""), (3,), (3,)),
    ]:
        yield Sample(str(labels), (r(*a), r(*b)), {"labels": tuple(tuple(s) for s in labels)})


@samples("cross")
def _(r):
    yield Sample("last", (r(2, 3), r(2, 3)), {"axis": -1})
    yield Sample("broadcast", (r(3, 2), r(3, 1)), {"axis": 0})


@samples("inv", "det", "cofactor", "slogdet", "matrix_exp")
def _(r):
    yield Sample("matrix", (r.regular(3, 3),))
    yield Sample("batch", (r.regular(2, 3, 3),))
    yield Sample("size-1", (r.regular(1, 1),))


@samples("cofactor_slope")
def _(r):
    yield Sample("matrix", (r(3, 3), r.regular(3, 3)))
    yield Sample("batch", (r(2, 3, 3), r.regular(2, 3, 3)))


@samples("solve")
def _(r):
    yield Sample("matrix", (r.regular(3, 3), r(3, 2)))
    yield Sample("batch", (r.regular(2, 3, 3), r(2, 3, 1)))
    yield Sample("broadcast", (r.regular(2, 3, 3), r(3, 2)))


@samples("solve_triangular")
def _(r):
    for upper in (True, False):
        half = np.triu if upper else np.tril
        yield Sample(
            f"upper={upper}", (half(r.regular(3, 3)), r(3, 2)), {"upper": upper, "unit": False}
        )
        yield Sample(
            "batch", (half(r.regular(2, 3, 3)), r(2, 3, 2)), {"upper": upper, "unit": False}
        )
        yield Sample(
            "unit", (half(r(3, 3), 1 if upper else -1), r(3, 2)), {"upper": upper, "unit": True}
        )


@samples("cholesky_solve")
def _(r):
    def of_triangle(op, b, factor, upper):
        """Like PyTorch's rule, ours takes the other half to be zero, and gives it a gradient."""
        half = np.tri(3, dtype=bool)
        return op(b, factor * (half.T if upper else half), upper=upper)

    for upper in (False, True):
        yield Sample(f"upper={upper}", (r(3, 2), r.regular(3, 3)), {"upper": upper}, fn=of_triangle)
        yield Sample("batch", (r(2, 3, 2), r.regular(2, 3, 3)), {"upper": upper}, fn=of_triangle)


@samples("euclidean")
def _(r):
    for product in (False, True):
        yield Sample(f"product={product}", (r(4, 3), r(2, 3)), {"product": product})
        yield Sample("batch", (r(2, 4, 3), r(2, 2, 3)), {"product": product})


def _transposed(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _symmetric(x: Any) -> Any:
    return (x + _transposed(x)) * 0.5


def _weights(n: int) -> np.ndarray:
    return np.arange(1.0, n + 1)


@samples("cholesky")
def _(r):
    for shape in [(3, 3), (2, 3, 3), (1, 1)]:
        yield Sample(f"{shape}", (r.definite(*shape),), fn=lambda op, x: op(_symmetric(x)))


def _eigh(op, x, upper):
    w, v = op(_symmetric(x), upper=upper)
    return w, (
        v * _weights(v.shape[-1]).astype(v.dtype if isinstance(v, np.ndarray) else v.array.dtype)
    ) @ _transposed(v)


@samples("eigh")
def _(r):
    for upper in (False, True):
        yield Sample(f"upper={upper}", (_symmetric(r.regular(3, 3)),), {"upper": upper}, fn=_eigh)
    yield Sample("batch", (_symmetric(r.regular(2, 3, 3)),), {"upper": False}, fn=_eigh)


@samples("eigvalsh")
def _(r):
    def of_symmetric(op, x, upper):
        return op(_symmetric(x), upper=upper)

    yield Sample("matrix", (_symmetric(r.regular(3, 3)),), {"upper": False}, fn=of_symmetric)
    yield Sample("batch", (_symmetric(r.regular(2, 3, 3)),), {"upper": True}, fn=of_symmetric)


@samples("eig")
def _(r):
    yield Sample("matrix", (r.regular(3, 3),), constant=("x",))


def _svd(op, x, full):
    u, s, vh = op(x, full=full)
    k = s.shape[-1]
    weights = _weights(k).astype(s.dtype if isinstance(s, np.ndarray) else s.array.dtype)
    u, vh = u[..., :k], vh[..., :k, :]
    return s, (u * weights) @ vh, (u * weights) @ _transposed(u)


@samples("svd")
def _(r):
    for shape in [(3, 3), (4, 2), (2, 4), (2, 3, 2)]:
        yield Sample(f"{shape}", (r(*shape),), {"full": False}, fn=_svd)


@samples("svdvals")
def _(r):
    for shape in [(3, 3), (4, 2), (2, 2, 4)]:
        yield Sample(f"{shape}", (r(*shape),))


def _cutoff(s: Any) -> Any:
    return s.max(axis=-1, keepdims=True) * 1e-5


@samples("pinv")
def _(r):
    for shape in [(3, 3), (4, 2), (2, 4), (2, 3, 2)]:
        yield Sample(f"{shape}", (r(*shape),), {"cutoff": _cutoff, "hermitian": False})
    yield Sample(
        "hermitian", (r.definite(3, 3),), {"cutoff": _cutoff, "hermitian": True},
        fn=lambda op, x, **how: op(_symmetric(x), **how),
    )  # fmt: skip


@samples("lstsq")
def _(r):
    yield Sample("tall", (r(4, 2), r(4, 3)), {"cutoff": _cutoff})
    yield Sample("square", (r.regular(3, 3), r(3, 1)), {"cutoff": _cutoff})


@samples("qr")
def _(r):
    for shape in [(3, 3), (4, 2), (2, 4), (2, 3, 2)]:
        yield Sample(f"{shape}", (r(*shape),), {"mode": "reduced"})


@samples("lu_factor")
def _(r):
    for shape in [(3, 3), (4, 2), (2, 4), (2, 3, 3)]:
        yield Sample(f"{shape}", (r(*shape),), fn=lambda op, x: op(x)[0])


@samples("permutation")
def _(r):
    yield Sample("matrix", (np.array([2, 3, 3], np.int32),), {"m": 3})


# --- layers ---------------------------------------------------------------------------------------------


@samples("linear")
def _(r):
    for x in [(3,), (2, 3), (4, 2, 3), (0, 3)]:
        yield Sample(f"{x}", (r(*x), r(5, 3), r(5)))
        yield Sample(f"{x} no bias", (r(*x), r(5, 3), None))
    yield Sample("vector of weights", (r(2, 3), r(3), r()))
    yield Sample("size-1", (r(1, 1), r(1, 1), r(1)))


@samples("bilinear")
def _(r):
    yield Sample("matrix", (r(2, 3), r(2, 4), r(5, 3, 4)))
    yield Sample("more axes", (r(2, 2, 3), r(2, 2, 4), r(5, 3, 4)))


@samples("leaky_relu")
def _(r):
    for slope in (0.1, -0.5, 2.0):
        yield Sample(f"slope={slope}", (r(9),), {"slope": slope})
    yield Sample("empty", (r(0),), {"slope": 0.1})


@samples("prelu")
def _(r):
    yield Sample("one", (r(3, 4), r(1)))
    yield Sample("channels", (r(3, 4), r(4)))
    yield Sample("scalar", (r(), r()))


@samples("hardtanh")
def _(r):
    yield Sample("matrix", (r(3, 4),), {"low": -1.0, "high": 0.5})
    yield Sample("empty", (r(0),), {"low": -1.0, "high": 0.5})


@samples("threshold")
def _(r):
    yield Sample("matrix", (r(3, 4),), {"threshold": 0.1, "value": 5.0})


@samples("hardshrink", "softshrink")
def _(r):
    yield Sample("matrix", (r(3, 4),), {"lambd": 0.5})
    yield Sample("empty", (r(0),), {"lambd": 0.5})


@samples("elu")
def _(r):
    yield Sample("elu", (r(9),), {"alpha": 1.5})
    yield Sample("selu", (r(9),), {"alpha": 1.67, "scale": 1.05})
    yield Sample("celu", (r(9),), {"alpha": 2.0, "input_scale": 0.5})
    yield Sample("scalar", (r(),), {})


@samples("gelu")
def _(r):
    for how in ("none", "tanh"):
        for form, shape in SHAPES.items():
            yield Sample(f"{how} {form}", (r(*shape),), {"approximate": how})


@samples("softmax", "log_softmax")
def _(r):
    for shape in [(), (4,), (3, 4), (2, 3, 4), (2, 3, 1, 2)]:
        for axis in range(max(len(shape), 1)):
            yield Sample(f"{shape} axis={axis}", (r(*shape),), {"axis": axis})
    yield Sample("negative", (r(2, 3),), {"axis": -1})
    yield Sample("empty", (r(0, 3),), {"axis": 1})


def _attention(with_mask: Any, **how: Any) -> Samples:
    def make(r: Draw) -> Iterator[Sample]:
        q, k, v = r(2, 3, 4), r(2, 5, 4), r(2, 5, 2)
        yield Sample("", (q, k, v, with_mask(r), None), {"scale": 0.5, "is_causal": False, **how})

    return make


def _attentions(*constant: str) -> Samples:
    def make(r: Draw) -> Iterator[Sample]:
        def some(*shape: int) -> np.ndarray:
            mask = r.mask(*shape)
            mask[..., 0] = True
            return mask

        how = {"scale": 0.5, "is_causal": False}
        q, k, v = r(2, 3, 4), r(2, 5, 4), r(2, 5, 2)
        yield Sample("plain", (q, k, v, None, None), how)
        yield Sample("mask", (q, k, v, some(2, 3, 5), None), how)
        yield Sample("broadcast mask", (q, k, v, r(3, 5), None), how, constant=constant)
        yield Sample(
            "a dead row", (q, k, v, np.array([[True] * 5, [False] * 5, [True] * 5]), None), how
        )
        yield Sample("causal", (q, k, v, None, None), {**how, "is_causal": True})
        yield Sample("dropout", (q, k, v, None, r.mask(2, 3, 5) * 2.0), how, constant=("keep",))

    return make


samples("attention")(_attentions())
samples("tiled_attention")(_attentions("mask"))


CONV = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}


def convolutions() -> Iterator[tuple[str, tuple, tuple, dict[str, Any]]]:
    """(form, shape of x, shape of w, options), nothing square."""
    for form, x, w, how in [
        ("1-d", (2, 3, 7), (4, 3, 2), {}),
        (
            "stride, padding",
            (2, 2, 5, 6),
            (3, 2, 2, 3),
            {"stride": (2, 1), "padding": ((1, 1), (0, 2))},
        ),
        ("dilation", (1, 2, 7, 6), (3, 2, 2, 3), {"dilation": (2, 2), "padding": ((0, 0), (1, 0))}),
        ("groups", (2, 4, 5, 4), (6, 2, 2, 2), {"groups": 2}),
        ("depthwise", (2, 3, 4, 5), (3, 1, 3, 2), {"groups": 3, "padding": ((1, 1), (1, 1))}),
        ("3-d", (1, 2, 3, 4, 3), (2, 2, 2, 1, 3), {}),
        ("1x1", (2, 3, 2, 3), (2, 3, 1, 1), {}),
        ("an unused border", (1, 1, 6, 5), (1, 1, 3, 2), {"stride": (2, 2)}),
    ]:
        n = len(x) - 2
        yield form, x, w, {k: v * n if k != "groups" and len(v) == 1 else v
                           for k, v in (CONV | how).items()}  # fmt: skip


def _conv_output(x: tuple, w: tuple, how: dict[str, Any]) -> tuple[int, ...]:
    spatial = [
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            x[2:], w[2:], how["stride"], how["padding"], how["dilation"], strict=True
        )
    ]
    return (x[0], w[0], *spatial)


@samples("pad_constant")
def _(r):
    yield Sample("more", (r(2, 3),), {"pads": ((1, 0), (2, 1)), "value": 1.5})
    yield Sample("less", (r(4, 5),), {"pads": ((-1, 0), (2, -3)), "value": 0})
    yield Sample("empty", (r(2, 0),), {"pads": ((0, 0), (1, 1))})


@samples("conv")
def _(r):
    for form, x, w, how in convolutions():
        yield Sample(form, (r(*x), r(*w), r(w[0]) if "e" in form else None), how)


@samples("conv_input")
def _(r):
    for form, x, w, how in convolutions():
        bias = r(x[1]) if "e" in form else None
        yield Sample(form, (r(*_conv_output(x, w, how)), r(*w), bias), {"shape": x, **how})


@samples("conv_weight")
def _(r):
    for form, x, w, how in convolutions():
        yield Sample(form, (r(*_conv_output(x, w, how)), r(*x)), {"shape": w, **how})


UNFOLD = {"kernel": (2, 3), "dilation": (1, 2), "padding": (1, 0), "stride": (2, 1)}


@samples("im2col")
def _(r):
    yield Sample("matrix", (r(2, 3, 4, 6),), UNFOLD)


@samples("col2im")
def _(r):
    yield Sample("matrix", (r(2, 18, 6),), {"shape": (4, 6), **UNFOLD})


def _cut(x: Any) -> Any:
    return x


@samples("max_pool")
def _(r):
    how = {"padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    yield Sample("apart", (r.spaced(2, 2, 4, 6),), {"kernel": (2, 3), "stride": (2, 3), **how})
    yield Sample(
        "overlapping", (r.spaced(1, 2, 6, 5),), {"kernel": (3, 2), "stride": (1, 2), **how}
    )
    yield Sample("all negative, padded", (r.spaced(1, 1, 5, 4) - 9,),
                 {"kernel": (3, 2), "stride": (2, 2), **how, "padding": (1, 1)})  # fmt: skip
    yield Sample("dilated, ceil", (r.spaced(1, 1, 7, 6),),
                 {"kernel": (2, 2), "stride": (2, 3), **how, "dilation": (2, 1), "ceil_mode": True})  # fmt: skip
    yield Sample("1-d", (r.spaced(2, 1, 7),),
                 {"kernel": (3,), "stride": (2,), "padding": (1,), "dilation": (1,), "ceil_mode": False})  # fmt: skip


@samples("adaptive_max_pool")
def _(r):
    yield Sample("uneven", (r.spaced(2, 2, 5, 7),), {"size": (2, 3)})
    yield Sample("1-d", (r.spaced(2, 2, 5),), {"size": (3,)})


@samples("pool_gather")
def _(r):
    yield Sample("repeated", (r(2, 2, 3, 4), r.ints(2, 2, 2, 3, high=12)))


@samples("pool_scatter")
def _(r):
    yield Sample("repeated", (r(2, 2, 2, 3), r.ints(2, 2, 2, 3, high=12)), {"shape": (2, 2, 3, 4)})


@samples("unpool")
def _(r):
    index = np.stack(
        [[r.rng.permutation(12)[:4].reshape(2, 2) for _ in range(2)] for _ in range(2)]
    )
    yield Sample("matrix", (r(2, 2, 2, 2), index), {"size": (3, 4)})


AVERAGE = [
    ((2, 2, 4, 6), {"kernel": (2, 3), "stride": (2, 3), "padding": (0, 0)}),
    ((1, 2, 6, 5), {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 1)}),
    (
        (1, 1, 6, 5),
        {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0), "count_include_pad": False},
    ),
    ((1, 1, 6, 5), {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": True}),
    ((2, 1, 7), {"kernel": (3,), "stride": (2,), "padding": (1,), "divisor_override": 2}),
]
AVERAGE_DEFAULTS = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}


@samples("avg_pool")
def _(r):
    for shape, how in AVERAGE:
        yield Sample(f"{how}", (r(*shape),), AVERAGE_DEFAULTS | how)


@samples("avg_unpool")
def _(r):
    for shape, how in AVERAGE:
        up = math.ceil if how.get("ceil_mode") else math.floor
        out = [
            up((n + 2 * p - k) / s) + 1
            for n, k, s, p in zip(
                shape[2:], how["kernel"], how["stride"], how["padding"], strict=True
            )
        ]
        yield Sample(f"{how}", (r(*shape[:2], *out),), {"shape": shape, **AVERAGE_DEFAULTS, **how})


@samples("adaptive_avg_pool")
def _(r):
    yield Sample("uneven", (r(2, 2, 5, 7),), {"size": (2, 3)})
    yield Sample("to more", (r(1, 2, 2, 3),), {"size": (3, 3)})


@samples("adaptive_avg_unpool")
def _(r):
    yield Sample("uneven", (r(2, 2, 2, 3),), {"shape": (2, 2, 5, 7)})


RESIZE = [
    ("nearest", (5, 3), {}), ("nearest-exact", (5, 3), {}), ("bilinear", (6, 3), {}),
    ("bilinear", (6, 5), {"align_corners": True}), ("bicubic", (6, 5), {}),
    ("bicubic", (2, 7), {"align_corners": True}), ("area", (2, 3), {}),
    ("bilinear", (2, 3), {"antialias": True}),
]  # fmt: skip


@samples("resize")
def _(r):
    for mode, size, how in RESIZE:
        yield Sample(f"{mode} {how}", (r(1, 2, 4, 5),), {"size": size, "mode": mode, **how})
    yield Sample("linear", (r(2, 1, 4),), {"size": (7,), "mode": "linear"})


@samples("resize_transpose")
def _(r):
    for mode, size, how in RESIZE:
        yield Sample(
            f"{mode} {how}", (r(1, 2, *size),), {"shape": (1, 2, 4, 5), "mode": mode, **how}
        )


@samples("batch_norm")
def _(r):
    for shape in [(4, 3), (2, 3, 4), (2, 2, 3, 2)]:
        c = shape[1]
        yield Sample(f"{shape}", (r(*shape), r(c), r(c)), {"eps": 1e-5, "running": None})
    yield Sample("plain", (r(4, 3), None, None), {"eps": 1e-5, "running": None})
    yield Sample("far from 0", (r(4, 3) + 50, r(3), None), {"eps": 1e-5, "running": None})


@samples("layer_norm")
def _(r):
    yield Sample("last", (r(2, 3, 4), r(4), r(4)), {"ndim": 1, "eps": 1e-5})
    yield Sample("last two", (r(2, 3, 4), r(3, 4), r(3, 4)), {"ndim": 2, "eps": 1e-5})
    yield Sample("plain", (r(3, 4), None, None), {"ndim": 1, "eps": 1e-5})
    yield Sample("no bias", (r(3, 4), r(4), None), {"ndim": 1, "eps": 1e-3})


@samples("rms_norm")
def _(r):
    yield Sample("last", (r(2, 3, 4), r(4)), {"ndim": 1, "eps": 1e-5})
    yield Sample("last two, plain", (r(2, 3, 4), None), {"ndim": 2, "eps": 1e-5})


@samples("group_norm")
def _(r):
    yield Sample("groups", (r(2, 4, 3, 2), r(4), r(4)), {"groups": 2, "eps": 1e-5})
    yield Sample("each", (r(2, 3, 4), r(3), None), {"groups": 3, "eps": 1e-5})
    yield Sample("plain", (r(2, 4, 3), None, None), {"groups": 1, "eps": 1e-5})


# --- losses ---------------------------------------------------------------------------------------------


@samples("squared_error", "absolute_error")
def _(r):
    for reduction in ("mean", "sum", "none"):
        yield Sample(reduction, (r(3, 4), r(3, 4)), {"reduction": reduction})
    yield Sample("scalar", (r(), r()), {"reduction": "mean"})


@samples("smooth_absolute_error")
def _(r):
    for reduction in ("mean", "sum", "none"):
        yield Sample(
            reduction, (r(3, 4), r(3, 4)), {"beta": 0.7, "scale": 1.5, "reduction": reduction}
        )


@samples("binary_cross_entropy")
def _(r):
    for reduction in ("mean", "sum", "none"):
        p, t = (r(3, 4, low=0.1, high=0.9) for _ in range(2))
        yield Sample(reduction, (p, t, None), {"reduction": reduction})
        yield Sample(f"{reduction} weighted", (p, t, r(4, low=0.2)), {"reduction": reduction})


@samples("binary_cross_entropy_with_logits")
def _(r):
    for reduction in ("mean", "sum", "none"):
        x, t = r(3, 4), r(3, 4, low=0.1, high=0.9)
        yield Sample(reduction, (x, t, None, None), {"reduction": reduction})
        yield Sample(
            f"{reduction} weighted", (x, t, r(4, low=0.2), r(4, low=0.5)), {"reduction": reduction}
        )
    yield Sample(
        "positive weights", (r(3), r(3, low=0, high=1), None, r(3, low=0.5)), {"reduction": "mean"}
    )


@samples("nll_loss", "cross_entropy")
def _(r):
    for reduction in ("mean", "sum", "none"):
        how = {"ignore_index": -100, "reduction": reduction}
        yield Sample(reduction, (r(5, 3, 1), r.ints(5, 1, high=3), None), how)
        yield Sample(
            f"{reduction} weighted", (r(5, 3, 1), r.ints(5, 1, high=3), r(3, low=0.3)), how
        )
        some = np.array([[0, -100, 2, 1], [-100, 1, 1, 0]])
        yield Sample(f"{reduction} ignored", (r(2, 3, 4), some, r(3, low=0.3)), how)
        yield Sample(f"{reduction} ignored class", (r(2, 3, 4), np.abs(some) % 3, None),
                     {**how, "ignore_index": 1})  # fmt: skip


@samples("ctc_loss")
def _(r):
    def of_logits(op, x, *rest, **how):
        """The rule counts on the log_softmax that made x, as PyTorch's does."""
        from kilograd.ops.activation import log_softmax

        return op(log_softmax(x, axis=2), *rest, **how)

    targets = np.array([[1, 2, 2], [3, 1, 0]])
    yield Sample(
        "two", (r(7, 2, 4), targets, np.array([7, 5]), np.array([3, 2])), {"blank": 0}, fn=of_logits
    )
    yield Sample("no labels", (r(4, 1, 3), np.array([[1]]), np.array([4]), np.array([0])), {"blank": 0},
                 fn=of_logits)  # fmt: skip


# --- recurrences ----------------------------------------------------------------------------------------

STEPS = {"plain": (2, 2, 2), "packed": (3, 2, 2, 1)}


@samples("rnn")
def _(r):
    for form, sizes in STEPS.items():
        for reverse in (False, True):
            for f in ("tanh", "relu"):
                args = r(sum(sizes), 3), r(sizes[0], 3), r(3, 3), r(3) if reverse else None
                yield Sample(f"{form} {reverse} {f}", args,
                             {"sizes": sizes, "reverse": reverse, "nonlinearity": f})  # fmt: skip


@samples("lstm")
def _(r):
    for form, sizes in STEPS.items():
        for reverse in (False, True):
            args = (
                r(sum(sizes), 12),
                r(sizes[0], 3),
                r(sizes[0], 3),
                r(12, 3),
                r(12) if reverse else None,
            )
            yield Sample(f"{form} {reverse}", (*args, None), {"sizes": sizes, "reverse": reverse})
        args = r(sum(sizes), 12), r(sizes[0], 2), r(sizes[0], 3), r(12, 2), r(12), r(2, 3)
        yield Sample(f"{form} projected", args, {"sizes": sizes, "reverse": False})


@samples("gru")
def _(r):
    for form, sizes in STEPS.items():
        for reverse in (False, True):
            args = r(sum(sizes), 9), r(sizes[0], 3), r(9, 3), r(9) if reverse else None
            yield Sample(f"{form} {reverse}", args, {"sizes": sizes, "reverse": reverse})

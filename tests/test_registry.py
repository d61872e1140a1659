"""Every op, on every kind of array: value, gradient, second order, dtype, ownership.

Derivatives are compared along a random direction, with a random upstream gradient: for y = f(x),
directions u of x and v of y, ``v · (f(x + εu) − f(x − εu)) / 2ε`` must be ``(Jᵀv) · u``; and the same
again for the gradient as a function of x and v.
"""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import sys
from typing import Any

import numpy as np
import pytest

import kilograd as kg
import kilograd.ops
from kilograd.dtypes import FROM_NUMPY
from kilograd.ops import elementwise as ew
from kilograd.ops.linalg import matmul
from kilograd.ops.op import REGISTRY, Box, Op, op
from kilograd.ops.shape import broadcast_to, permute, reshape, swapaxes
from kilograd.tensor import wrap
from tests.samples import SAMPLES, Draw, Sample

MODULES = [
    importlib.import_module(f"kilograd.ops.{m.name}")
    for m in pkgutil.iter_modules(kilograd.ops.__path__)
]
OPS = sorted(REGISTRY)
EPS = 1e-5
VIEWS_BY_THE_DOZEN = ("split", "unbind")  # their public functions hand out what `_views` makes
RULES_IN_NUMPY = "its rules are plain NumPy for speed; higher orders take its composition"


def samples_of(name: str) -> list[Sample]:
    return list(SAMPLES[name](Draw(name)))


def op_test(test: Any) -> Any:
    return pytest.mark.parametrize("name", [n for n in OPS if n in SAMPLES])(test)


def as_dtype(x: Any, dtype: Any) -> Any:
    """float64 arrays as another floating-point dtype; all else as it is."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "fc":
        return x.astype(dtype if x.dtype.kind == "f" else np.result_type(dtype, np.complex64))
    return x


def outputs(y: Any) -> list[Any]:
    return list(y) if isinstance(y, tuple) else [y]


def array(t: Any) -> np.ndarray:
    return np.asarray(t.array if hasattr(t, "array") else t)


def tensors(sample: Sample, dtype: Any = np.float64, grad: bool = True) -> list[Any]:
    out = []
    for a in sample.args:
        a = as_dtype(a, dtype)
        if isinstance(a, np.ndarray):
            a = wrap(a.copy())
            if grad and a.array.dtype.kind == "f":
                a.requires_grad = True
        out.append(a)
    return out


def names_of(op: Op, sample: Sample) -> list[str]:
    return [
        op.inputs[i] if i < len(op.inputs) else str(op.variadic) for i in range(len(sample.args))
    ]


def with_derivative(op: Op) -> set[str]:
    return {n for d in op.derivatives for n in d.inputs}


def active(op: Op, sample: Sample) -> list[int]:
    """Which arguments are differentiated."""
    have = with_derivative(op)
    return [
        i
        for i, (n, a) in enumerate(zip(names_of(op, sample), sample.args, strict=True))
        if n in have and n not in sample.constant
        and isinstance(a, np.ndarray) and a.dtype.kind == "f"
    ]  # fmt: skip


def inner(a: Any, b: Any) -> float:
    return float(np.sum((np.conj(a) * b).real))


def close(ours: Any, other: Any, what: str, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(ours, other, rtol=rtol, atol=atol, err_msg=what)


# --- the registry itself ------------------------------------------------------------------------


def test_every_op_has_a_sample():
    assert [n for n in OPS if n not in SAMPLES] == [], "ops without a sample in tests/samples.py"


def test_every_sample_is_of_an_op():
    assert sorted(set(SAMPLES) - set(OPS)) == []


def test_no_two_ops_share_a_name():
    found = {
        id(o): (m.__name__, n, o) for m in MODULES for n, o in vars(m).items() if isinstance(o, Op)
    }
    hidden = [f"{m}.{n}" for m, n, o in found.values() if REGISTRY.get(o.name) is not o]
    assert hidden == [], "another op of the same name took their place"


def test_an_op_declared_again_takes_the_place_of_the_first():
    """As when a notebook's cell is run twice; another module gets an error."""
    cell = """
@op
def power_of_cell(x):
    return x**{n}

@power_of_cell.vjp("x")
def _(g, x):
    return {n} * g * x**({n} - 1)
"""
    notebook: dict[str, Any] = {"__name__": "notebook", "op": op}
    exec("def step(x):\n    return power_of_cell(x).sum()", notebook)
    compiled = kg.compile(notebook["step"])
    try:
        for n in (2, 3):
            exec(cell.format(n=n), notebook)
            power = notebook["power_of_cell"]
            for _ in range(4):
                x = kg.tensor([2.0, 3.0], requires_grad=True)
                notebook["step"](x).backward()
                np.testing.assert_allclose(x.grad.numpy(), n * np.array([2.0, 3.0]) ** (n - 1))
                assert compiled(x).item() == 2**n + 3**n
            assert REGISTRY["power_of_cell"] is power
        with pytest.raises(TypeError, match="there is an op 'power_of_cell' already"):
            exec(cell.format(n=2), {"__name__": "another", "op": op})
        with pytest.raises(TypeError, match="there is an op 'exp' already"):
            op(lambda x: x, name="exp")
        assert REGISTRY["power_of_cell"] is power and REGISTRY["exp"].forward is not None
    finally:
        del REGISTRY["power_of_cell"]


def test_a_rule_declared_again_takes_the_place_of_the_first():
    product = op(lambda a, b: a * b, name="product_of_test")

    def rule(factor: int) -> Any:
        return lambda g, b: g * b * factor

    try:
        for factor in (1, 5):
            product.vjp("a")(rule(factor))
            a, b = kg.tensor([2.0], requires_grad=True), kg.tensor([3.0])
            product(a, b).backward()
            assert a.grad.item() == 3 * factor
        for inputs in (("a", "b"), ("c",)):
            with pytest.raises(TypeError, match="are no inputs, or have a rule with others"):
                product.vjp(*inputs)(lambda g: g)
    finally:
        del REGISTRY["product_of_test"]


def test_ops_are_pickled_by_name_and_where_they_are_declared(tmp_path, monkeypatch):
    for o in REGISTRY.values():
        assert pickle.loads(pickle.dumps(o)) is o is copy.deepcopy(o)
    (tmp_path / "own.py").write_text(
        "from kilograd.ops.op import op\n@op\ndef own_square(x):\n    return x * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        data = pickle.dumps(importlib.import_module("own").own_square)
    finally:
        REGISTRY.pop("own_square", None), sys.modules.pop("own", None)
    assert pickle.loads(data)(np.array([3.0])) == 9.0, "a process that has not imported it yet"
    del REGISTRY["own_square"], sys.modules["own"]


def test_every_op_has_a_rule_or_says_that_it_has_none():
    silent = [n for n in OPS if REGISTRY[n].differentiable and not REGISTRY[n].derivatives]
    assert silent == []


@op_test
def test_every_float_input_has_a_rule(name):
    op = REGISTRY[name]
    if not op.differentiable:
        return
    for sample in samples_of(name):
        for n, a in zip(names_of(op, sample), sample.args, strict=True):
            if isinstance(a, np.ndarray) and a.dtype.kind == "f" and n not in sample.constant:
                assert n in with_derivative(op), f"no rule for {n}"


# --- values -------------------------------------------------------------------------------------


@op_test
def test_value(name):
    op = REGISTRY[name]
    for sample in samples_of(name):
        for dtype in (np.float64, np.float32):
            args = [as_dtype(a, dtype) for a in sample.args]
            before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
            on_arrays = op(*args, **sample.options)
            args = tensors(sample, dtype)
            on_tensors = op(*args, **sample.options)
            for y, t in zip(outputs(on_arrays), outputs(on_tensors), strict=True):
                what = f"{sample.form} {np.dtype(dtype)}"
                assert isinstance(t, kg.Tensor), what
                assert isinstance(y, np.ndarray | np.generic) and not isinstance(y, kg.Tensor), what
                np.testing.assert_array_equal(np.asarray(y), t.array, err_msg=what)
                assert y.dtype == t.array.dtype, what
                if y.dtype.kind in "fc" and "dtype" not in sample.options:
                    assert y.dtype in (dtype, np.result_type(dtype, np.complex64)), (
                        f"{what} gave {y.dtype}"
                    )
                assert t.requires_grad == (
                    op.differentiable
                    and any(isinstance(a, kg.Tensor) and a.requires_grad for a in args)
                    and y.dtype.kind in "fc"
                ), what
                for a, b in zip(args, before, strict=True):
                    if isinstance(a, kg.Tensor):
                        np.testing.assert_array_equal(
                            a.array, b, err_msg=f"{what} changed its input"
                        )
                        if not op.view and name not in VIEWS_BY_THE_DOZEN:
                            assert not np.may_share_memory(
                                t.array, a.array
                            ) or not np.shares_memory(t.array, a.array), (
                                f"{what}: a view, but not declared view=True"
                            )


@op_test
def test_float32_value_is_float64_value_rounded(name):
    op = REGISTRY[name]
    for sample in samples_of(name):
        if name == "nextafter" or sample.fn is not Sample._field_defaults["fn"]:
            continue
        wide = outputs(op(*sample.args, **sample.options))
        narrow = outputs(op(*[as_dtype(a, np.float32) for a in sample.args], **sample.options))
        for y, z in zip(narrow, wide, strict=True):
            close(y, z, sample.form, rtol=2e-4, atol=2e-4)


def gapped(a: Any) -> Any:
    """The same values, in memory with gaps and in another order."""
    if not isinstance(a, np.ndarray) or a.ndim == 0:
        return a
    wide = np.zeros((*(n * 2 for n in a.shape[::-1]),), a.dtype)
    b = wide[(slice(None, None, 2),) * a.ndim].T
    b[...] = a
    return b


@op_test
def test_memory_layout_does_not_matter(name):
    if name in ("as_strided", "view", "as_complex"):
        pytest.skip("the layout is what it is about")
    op = REGISTRY[name]
    for sample in samples_of(name):
        other = sample._replace(args=tuple(gapped(a) for a in sample.args))
        for y, z in zip(
            outputs(op(*sample.args, **sample.options)),
            outputs(op(*other.args, **sample.options)),
            strict=True,
        ):
            close(y, z, sample.form, rtol=1e-9, atol=1e-12)
        if sample.order and active(op, sample):
            for a, b in zip(
                first_order(op, sample)[2], first_order(op, other, copy=False)[2], strict=True
            ):
                close(a, b, sample.form, rtol=1e-9, atol=1e-12)


# --- gradients ----------------------------------------------------------------------------------


def first_order(op: Op, sample: Sample, dtype: Any = np.float64, copy: bool = True) -> Any:
    """(differentiated tensors, upstream arrays, gradients as arrays, output arrays)."""
    args = tensors(sample, dtype)
    if not copy:  # keep the layout
        for t, a in zip(args, sample.args, strict=True):
            if isinstance(t, kg.Tensor):
                t.array = a
    where = active(op, sample)
    for i, t in enumerate(args):
        if isinstance(t, kg.Tensor) and i not in where:
            t.requires_grad = False
    ys = [y for y in outputs(sample.fn(op, *args, **sample.options)) if y.requires_grad]
    draw = Draw(f"{op.name} up")
    ups = []
    for y in ys:
        v = draw(*y.shape)
        if y.array.dtype.kind == "c":
            v = v + 1j * draw(*y.shape)
        ups.append(v.astype(y.array.dtype))
    xs = [args[i] for i in where]
    grads = kg.autograd.grad(ys, xs, [wrap(v.copy()) for v in ups])
    return xs, ups, [g.array for g in grads], [y.array for y in ys]


def directions(op: Op, arrays: list[np.ndarray]) -> list[np.ndarray]:
    draw = Draw(f"{op.name} direction")
    return [draw(*a.shape).astype(a.dtype) for a in arrays]


@op_test
def test_gradient(name):
    op = REGISTRY[name]
    if not op.differentiable:
        pytest.skip("declared not differentiable")
    for sample in samples_of(name):
        where = active(op, sample)
        if not where or sample.order < 1:
            continue
        xs, ups, grads, ys = first_order(op, sample)
        assert len(ups) >= 1, f"{sample.form}: nothing to differentiate"
        for x, g in zip(xs, grads, strict=True):
            assert g.dtype == x.array.dtype and g.shape == x.array.shape, sample.form
        us = directions(op, [x.array for x in xs])

        def moved(
            by: float, us: Any = us, sample: Sample = sample, where: Any = where
        ) -> list[Any]:
            args = list(sample.args)
            for i, u in zip(where, us, strict=True):
                args[i] = np.asarray(args[i] + by * u)
            made = outputs(sample.fn(op, *args, **sample.options))
            return [y for y in made if np.asarray(y).dtype.kind in "fc"]

        numeric = sum(
            inner(v, p - m) for v, p, m in zip(ups, moved(EPS), moved(-EPS), strict=True)
        ) / (2 * EPS)  # fmt: skip
        ours = sum(inner(u, g) for u, g in zip(us, grads, strict=True))
        close(
            ours, numeric, f"{sample.form}: along a direction; the second number is the numeric one"
        )
        # the same rules in float32
        _, _, narrow, _ = first_order(op, sample, np.float32)
        for g, n in zip(grads, narrow, strict=True):
            assert n.dtype == np.float32 and n.shape == g.shape, sample.form
            size = np.abs(g).max(initial=1.0)
            close(n / size, g / size, f"{sample.form} in float32", rtol=1e-3, atol=1e-3)


def gradient_along(op: Op, sample: Sample, us: Any, xs: Any, vs: Any, create_graph: bool) -> Any:
    """Σ u·(Jᵀv) as a function of the inputs xs and the upstream vs; the leaves it depends on."""
    args = [wrap(a) if isinstance(a, np.ndarray) else a for a in sample.args]
    leaves = [wrap(x.copy()).requires_grad_() for x in xs]
    for i, x in zip(active(op, sample), leaves, strict=True):
        args[i] = x
    ups = [wrap(v.copy()).requires_grad_(create_graph) for v in vs]
    ys = [y for y in outputs(sample.fn(op, *args, **sample.options)) if y.requires_grad]
    grads = kg.autograd.grad(ys, leaves, ups, create_graph=create_graph)
    if not create_graph:
        return sum(inner(u, g.array) for u, g in zip(us, grads, strict=True)), None
    return list(grads), [*leaves, *ups]


@op_test
def test_second_order(name):
    op = REGISTRY[name]
    if not op.differentiable:
        pytest.skip("declared not differentiable")
    for sample in samples_of(name):
        if not active(op, sample) or sample.order < 2:
            continue
        xs, vs, first, _ = first_order(op, sample)
        xs = [x.array for x in xs]
        us = directions(op, xs)
        grads, leaves = gradient_along(op, sample, us, xs, vs, create_graph=True)
        for g, expected in zip(grads, first, strict=True):
            close(
                g.array,
                expected,
                f"{sample.form}: the gradient itself, with create_graph",
                1e-7,
                1e-9,
            )
        recorded = [(g, wrap(u)) for g, u in zip(grads, us, strict=True) if g.requires_grad]
        second = (
            kg.autograd.grad([g for g, _ in recorded], leaves, [u for _, u in recorded],
                             materialize_grads=True)
            if recorded else [wrap(np.zeros_like(t.array)) for t in leaves]
        )  # fmt: skip
        draw = Draw(f"{name} second direction")
        ws = [draw(*t.shape) for t in leaves]
        steps = ws[: len(xs)], ws[len(xs) :]

        def along(by: float) -> float:
            return gradient_along(
                op, sample, us,
                [np.asarray(x + by * w) for x, w in zip(xs, steps[0], strict=True)],
                [np.asarray(v + by * w) for v, w in zip(vs, steps[1], strict=True)], create_graph=False,
            )[0]  # fmt: skip

        numeric = (along(EPS) - along(-EPS)) / (2 * EPS)
        ours = sum(inner(w, s.array) for w, s in zip(ws, second, strict=True))
        close(ours, numeric, f"{sample.form}: second order; the second number is the numeric one",
              rtol=1e-4, atol=1e-5)  # fmt: skip


# --- rules stay in the dialect: an array that is not NumPy's, and refuses to become it ------------


class Refusing(Box):
    """Operators, methods and ufuncs work; becoming an ndarray, or a decision on values, does not.

    What a rule may do on this, it may do on a Tensor, on a tracer and on another library's array.
    """

    __array_priority__ = 2000

    def __init__(self, hidden: Any) -> None:
        self.hidden = np.asarray(hidden)

    shape = property(lambda self: self.hidden.shape)
    ndim = property(lambda self: self.hidden.ndim)
    dtype = property(lambda self: FROM_NUMPY[self.hidden.dtype])
    T = property(lambda self: permute(self, axes=(1, 0)))

    def _apply(self, op: Op, args: Any, options: Any) -> Any:
        y = op.forward(*[a.hidden if isinstance(a, Refusing) else a for a in args], **options)
        if op.residuals:
            y = y[0]
        return tuple(map(Refusing, y)) if op.outputs > 1 else Refusing(y)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a rule made an ndarray of what may be a tensor or a tracer")

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs and ufunc is np.matmul:
            return matmul(*args)
        assert method == "__call__" and not kwargs and ufunc in ew.BY_UFUNC, (ufunc, method, kwargs)
        return ew.BY_UFUNC[ufunc](*args)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        assert func in (np.zeros_like, np.ones_like), f"np.{func.__name__} in a rule"
        return Refusing(func(args[0].hidden))

    def __getitem__(self, index: Any) -> Any:
        return Refusing(self.hidden[index])

    def __bool__(self) -> bool:
        raise AssertionError("a rule decided on a value")

    __float__ = __int__ = __index__ = __iter__ = __bool__

    def __len__(self) -> int:
        return len(self.hidden)

    def __neg__(self) -> Any:
        return ew.negative(self)

    def __invert__(self) -> Any:
        return ew.invert(self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        return Refusing(self.hidden.sum(axis=axis, keepdims=keepdims))

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return Refusing(self.hidden.all(axis=axis, keepdims=keepdims))

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return Refusing(self.hidden.any(axis=axis, keepdims=keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        return Refusing(self.hidden.mean(axis=axis, keepdims=keepdims))

    def reshape(self, shape: Any) -> Any:
        return reshape(self, shape=shape)

    def swapaxes(self, a: int, b: int) -> Any:
        return swapaxes(self, a=a, b=b)


for _name, _op in {
    "add": ew.add, "sub": ew.subtract, "mul": ew.multiply, "truediv": ew.divide, "pow": ew.power,
    "floordiv": ew.floor_divide, "mod": ew.remainder, "and": ew.bitwise_and, "or": ew.bitwise_or,
    "xor": ew.bitwise_xor, "matmul": matmul, "eq": ew.equal, "ne": ew.not_equal, "lt": ew.less,
    "le": ew.less_equal, "gt": ew.greater, "ge": ew.greater_equal,
}.items():  # fmt: skip
    setattr(Refusing, f"__{_name}__", lambda self, other, op=_op: op(self, other))
    setattr(Refusing, f"__r{_name}__", lambda self, other, op=_op: op(other, self))

DECIDES_ON_VALUES = {  # and so cannot be traced yet; an entry that is no longer true fails
    "eigh": "asks whether the gradient of the vectors is zero: their part may divide by zero",
    "svd": "likewise",
    "cumprod": "asks whether there is a zero",
}


def rule_inputs(op: Op, sample: Sample, dtype: Any) -> tuple[list[Any], Any, Any, list[int], Any]:
    """(kept values, their origins, upstream, which inputs, plan) as the driver has them."""
    arrays = [as_dtype(a, dtype) for a in sample.args]
    y = op.forward(*arrays, **sample.options)
    residuals: tuple[Any, ...] = ()
    if op.residuals:
        y, *rest = y
        residuals = tuple(rest)
    y = tuple(map(np.asarray, y)) if op.outputs > 1 else np.asarray(y)
    where = active(op, sample)
    plan = op.plan(sum(1 << i for i in where), len(arrays))
    options = [sample.options.get(k, default) for k, default in op.options.items()]
    kept = [*plan.keep((*arrays, y, *residuals, *options))]
    origins = [*plan.origin, *[-2] * len(plan.shapes)]
    kept += [getattr(arrays[i], "shape", ()) for i in plan.shapes]
    draw = Draw(f"{op.name} up")
    up: Any = (
        tuple(draw(*a.shape).astype(a.dtype) for a in y)
        if op.outputs > 1
        else draw(*y.shape).astype(y.dtype)
    )
    return kept, origins, up, where, plan


def shares_of(plan: Any, up: Any, kept: list[Any], where: list[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for at, rule, pick in plan.rules:
        share = rule(up, *pick(kept))
        for i, s in [(at, share)] if isinstance(at, int) else zip(at, share, strict=True):
            if i in where and s is not None:
                found[i] = s
    return found


@op_test
def test_rules_keep_the_dtype_and_what_they_are_given(name):
    op = REGISTRY[name]
    if name == "cast" or not op.differentiable:
        pytest.skip("changes the dtype" if name == "cast" else "declared not differentiable")
    for sample in samples_of(name):
        if not active(op, sample) or sample.order < 1:
            continue
        kept, _, up, where, plan = rule_inputs(op, sample, np.float32)
        before = [a.copy() if isinstance(a, np.ndarray) else a for a in kept]
        up_before = [a.copy() for a in outputs(up)]
        shares = shares_of(plan, up, kept, where)
        assert set(shares) == set(where), (
            f"{sample.form}: no gradient for {set(where) - set(shares)}"
        )
        for i, s in shares.items():
            if outputs(up)[0].dtype.kind == "f":
                assert s.dtype == np.float32, (
                    f"{sample.form}: the rule of input {i} gives {s.dtype}"
                )
        for a, b in zip([*kept, *outputs(up)], [*before, *up_before], strict=True):
            if isinstance(b, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=f"{sample.form}: a rule wrote into it")


@op_test
def test_rules_stay_in_the_dialect(name):
    op = REGISTRY[name]
    if not op.differentiable:
        pytest.skip("declared not differentiable")
    if op.composition is not None:
        pytest.skip(RULES_IN_NUMPY)
    if name in DECIDES_ON_VALUES:
        with pytest.raises(AssertionError, match="decided on a value"):
            compare_on_refusing(op)
    else:
        compare_on_refusing(op)


def compare_on_refusing(op: Op) -> None:
    for sample in samples_of(op.name):
        if not active(op, sample) or sample.order < 1:
            continue
        kept, origins, up, where, plan = rule_inputs(op, sample, np.float64)
        hidden = [
            (tuple(map(Refusing, k)) if isinstance(k, tuple) else Refusing(k))
            if o == -1 or (o >= 0 and isinstance(k, np.ndarray)) else k
            for k, o in zip(kept, origins, strict=True)
        ]  # fmt: skip
        plain = shares_of(plan, up, kept, where)
        refusing = shares_of(
            plan, tuple(map(Refusing, up)) if isinstance(up, tuple) else Refusing(up), hidden, where
        )
        for i, s in plain.items():
            assert isinstance(refusing[i], Refusing), f"{sample.form}: input {i}"
            close(refusing[i].hidden, s, f"{sample.form}: input {i}", rtol=1e-9, atol=1e-12)


def test_the_refusing_array_refuses():
    x = Refusing(np.ones(3))
    for leave in (
        np.asarray,
        bool,
        float,
        np.where,
        lambda x: np.concatenate([x, x]),
        list,
        np.unwrap,
    ):
        with pytest.raises(AssertionError):
            leave(x)
    assert isinstance(np.exp(x) + np.ones(3) * x @ x, Refusing)
    assert isinstance(broadcast_to(x, shape=(2, 3)), Refusing)


# --- fused ops ----------------------------------------------------------------------------------


FUSED = [n for n in OPS if REGISTRY[n].composition and n in SAMPLES]


def composed(op: Op) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        return op.composition(*args, **{**op.options, **options})  # type: ignore[misc]

    return call


@pytest.mark.parametrize("name", FUSED)
def test_composition_is_the_same_function(name):
    op = REGISTRY[name]
    for sample in samples_of(name):
        for dtype in (np.float64, np.float32):
            args = tensors(sample, dtype, grad=False)
            fused = sample.fn(op, *args, **sample.options)
            made = sample.fn(composed(op), *args, **sample.options)
            for y, z in zip(outputs(fused), outputs(made), strict=True):
                assert y.dtype == z.dtype and y.shape == z.shape, sample.form
                tolerance = 1e-9 if dtype is np.float64 else 1e-4
                close(z.array, y.array, sample.form, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUSED)
def test_composition_stays_in_the_dialect(name):
    op = REGISTRY[name]
    for sample in samples_of(name):
        hidden = [
            Refusing(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
            for a in sample.args
        ]
        made = sample.fn(composed(op), *hidden, **sample.options)
        for y, z in zip(
            outputs(made), outputs(sample.fn(op, *sample.args, **sample.options)), strict=True
        ):
            close(y.hidden, z, sample.form, rtol=1e-9, atol=1e-9)

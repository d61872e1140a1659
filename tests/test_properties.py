"""Properties: what holds for all shapes, axes, indices, dtypes and small programs, on drawn examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kilograd as kg

torch = pytest.importorskip("torch")

drawn = settings(
    derandomize=True, deadline=None, max_examples=60, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)  # fmt: skip
LIBRARIES = (torch, kg)


def numbers(seed, *shape, low=-2.0, high=2.0):
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape))


def plain(t):
    return np.asarray(t.array) if isinstance(t, kg.Tensor) else t.numpy(force=True)


def name_of(dtype):
    return str(dtype).split(".")[1]


def outcome(fn):
    """What a call gives: ("value", …) or ("raises", exception)."""
    try:
        return "value", fn()
    except Exception as e:
        return "raises", e


def agree(theirs, ours, what):
    """Both libraries gave the same, or refused with the same type; whether there is a value."""
    assert theirs[0] == ours[0], f"{what}\nPyTorch: {theirs[1]!r}\nkilograd: {ours[1]!r}"
    if theirs[0] == "raises":
        assert isinstance(ours[1], type(theirs[1])), f"{what}: {theirs[1]!r} / {ours[1]!r}"
        return False
    return True


def same(fn, *arrays, what="", rtol=1e-9, seed=5):
    """``fn(lib, *tensors)``: value, dtype, gradients (random upstream) and refusals are PyTorch's."""
    both = []
    for lib in LIBRARIES:
        tensors = [lib.tensor(a.copy()) for a in arrays]
        leaves = [t for t, a in zip(tensors, arrays, strict=True) if a.dtype.kind == "f"]
        for t in leaves:
            t.requires_grad_()

        def run(lib=lib, tensors=tensors, leaves=leaves):
            y = fn(lib, *tensors)
            if not y.requires_grad:
                return y, []
            up = lib.tensor(numbers(seed, *y.shape).astype(plain(y).dtype))
            return y, lib.autograd.grad(y, leaves, up, allow_unused=True)

        both.append(outcome(run))
    if not agree(*both, what):
        return
    (y, gs), (z, hs) = both[0][1], both[1][1]
    assert name_of(y.dtype) == name_of(z.dtype) and tuple(y.shape) == tuple(z.shape), (
        f"{what}: {y.dtype} {y.shape} / {z.dtype} {z.shape}"
    )
    assert y.requires_grad == z.requires_grad, what
    np.testing.assert_allclose(plain(z), plain(y), rtol=rtol, atol=1e-10, err_msg=what)
    for g, h in zip(gs, hs, strict=True):
        assert (g is None) == (h is None), what
        if g is not None:
            np.testing.assert_allclose(
                plain(h), plain(g), rtol=rtol, atol=1e-10, err_msg=f"gradient of {what}"
            )


# --- broadcasting -------------------------------------------------------------------------------

BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
    "fmin": np.fmin, "atan2": np.arctan2, "hypot": np.hypot, "pow": np.power, "fmod": np.fmod,
    "logaddexp": np.logaddexp, "copysign": np.copysign,
}  # fmt: skip


@drawn
@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0),
    st.sampled_from(sorted(BINARY)),
)
def test_binary_operations_broadcast(shapes, name):
    a, b = (numbers(k, *s, low=0.3) for k, s in enumerate(shapes.input_shapes))
    y = getattr(kg, name)(kg.tensor(a), kg.tensor(b))
    assert tuple(y.shape) == shapes.result_shape
    np.testing.assert_allclose(plain(y), BINARY[name](a, b), rtol=1e-12)
    same(lambda L, a, b: getattr(L, name)(a, b), a, b, what=f"{name} {a.shape} {b.shape}")


@drawn
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_ternary_operations_broadcast(shapes):
    a, b, c = (numbers(k, *s) for k, s in enumerate(shapes.input_shapes))
    same(lambda L, a, b, c: L.where(a > 0, b, c), a, b, c)
    same(lambda L, a, b, c: L.lerp(a, b, c), a, b, c)
    same(lambda L, a, b, c: L.addcmul(a, b, c, value=0.5), a, b, c)
    same(lambda L, a, b, c: L.clamp(a.expand(shapes.result_shape), b, c), a, b, c)


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@drawn
@given(SHAPES, SHAPES)
def test_shapes_that_do_not_broadcast_are_refused_with_both_in_the_message(left, right):
    a, b = numbers(0, *left), numbers(1, *right)
    try:
        np.broadcast_shapes(left, right)
    except ValueError:
        with pytest.raises(RuntimeError) as e:
            kg.tensor(a) * kg.tensor(b)
        for shape in (left, right):
            assert str(list(shape)) in str(e.value) or str(shape) in str(e.value), str(e.value)
    same(lambda L, a, b: a * b, a, b, what=f"{left} * {right}")
    same(lambda L, a, b: a.expand_as(b), a, b, what=f"{left} expand {right}")


@drawn
@given(
    hnp.mutually_broadcastable_shapes(
        signature=np.matmul.signature, max_dims=2, max_side=3, min_side=0
    )
)
def test_matmul_broadcasts(shapes):
    a, b = (numbers(k, *s) for k, s in enumerate(shapes.input_shapes))
    same(lambda L, a, b: a @ b, a, b, what=f"{a.shape} @ {b.shape}")


# --- indexing -----------------------------------------------------------------------------------


@st.composite
def indices(draw, shape, distinct=False):
    """A basic, advanced or mixed index, now and then one that does not fit."""
    parts, axis, wild = [], 0, draw(st.integers(0, 9)) == 0
    span = draw(
        hnp.array_shapes(
            min_dims=0 if not distinct else 1, max_dims=2 if not distinct else 1, max_side=3
        )
    )
    arrays = 0
    while axis < len(shape) and (not parts or draw(st.integers(0, 4))):
        n = shape[axis]
        kind = draw(
            st.sampled_from(
                ["int", "slice", "slice", "none", "array", "array", "list", "mask", "tensor"]
            )
        )
        if kind in ("array", "list", "tensor") and (n == 0 or (distinct and arrays)):
            kind = "slice"
        if kind == "int" and n == 0:
            kind = "slice"
        if kind == "none":
            parts.append(None)
            continue
        if kind == "int":
            parts.append(draw(st.integers(-n - wild, n - 1 + wild)))
        elif kind == "slice":
            ends = st.none() | st.integers(-n - 1, n + 1)
            parts.append(slice(draw(ends), draw(ends), draw(st.none() | st.integers(1, 3))))
        elif kind == "mask":
            if arrays:
                parts.append(slice(None))
            else:
                rank = draw(st.integers(1, min(2, len(shape) - axis)))
                parts.append(draw(hnp.arrays(bool, shape[axis : axis + rank])))
                axis += rank - 1
                arrays += 9  # its number of trues would have to broadcast with other arrays
        else:
            if arrays >= 9:
                parts.append(slice(None))
            elif distinct:
                parts.append(np.array(draw(st.permutations(range(n)))[: draw(st.integers(1, n))]))
                arrays += 1
            else:
                parts.append(
                    draw(hnp.arrays(np.int64, span, elements=st.integers(-n, n - 1 + wild)))
                )
                if kind == "list" and len(span) == 1:
                    parts[-1] = parts[-1].tolist()
                arrays += 1
        axis += 1
    if (
        draw(st.integers(0, 3)) == 0
    ):  # not so that it moves an array to another axis, where it may not fit
        parts.insert(
            draw(st.integers(0, len(parts))) if not arrays or axis == len(shape) else len(parts),
            Ellipsis,
        )
    return tuple(parts) if len(parts) != 1 or draw(st.booleans()) else parts[0]


def for_library(lib, index):
    def part(i):
        return lib.tensor(i) if isinstance(i, np.ndarray) else i

    return tuple(map(part, index)) if isinstance(index, tuple) else part(index)


@st.composite
def indexed(draw, distinct=False):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    return shape, draw(indices(shape, distinct))


@settings(drawn, max_examples=300)
@given(indexed())
def test_indexing(case):
    shape, index = case
    same(
        lambda L, x: x[for_library(L, index)] * 2.0, numbers(0, *shape), what=f"{shape} [{index!r}]"
    )


@settings(drawn, max_examples=200)
@given(indexed(distinct=True), st.booleans(), st.randoms(use_true_random=False))
def test_writing_by_index(case, number, random):
    shape, index = case
    x = numbers(0, *shape)
    target = outcome(lambda: torch.tensor(x)[for_library(torch, index)])
    got = tuple(target[1].shape) if target[0] == "value" else (2,)
    got = tuple(1 if n != 1 and random.random() < 0.2 else n for n in got)  # the value broadcasts
    got = got[random.choice([0, 0, 0, 1]) :]

    def write(lib, x, v):
        y = x * 1.0
        y[for_library(lib, index)] = 1.5 if number else v
        return y * y

    same(write, x, numbers(1, *got), what=f"{shape} [{index!r}] = {got}")


# --- reductions ---------------------------------------------------------------------------------

REDUCTIONS = ("sum", "mean", "amax", "amin", "prod", "var", "std", "logsumexp", "nansum", "norm")
ONE_AXIS = (
    "prod",
    "max",
    "min",
    "median",
    "cumsum",
    "cumprod",
    "argmax",
    "argmin",
    "softmax",
    "mode",
)
TRUTH = ("any", "all", "count_nonzero")


@st.composite
def reduced(draw, one):
    shape = draw(
        hnp.array_shapes(
            min_dims=0, max_dims=4, min_side=draw(st.sampled_from([0, 1, 1, 1])), max_side=3
        )
    )
    n = max(len(shape), 1)
    wild = draw(st.integers(0, 9)) == 0
    axis = st.integers(-n - wild, n - 1 + wild)
    dim = draw(axis if one else axis | st.lists(axis, min_size=1, max_size=n).map(tuple))
    return shape, dim, draw(st.booleans())


@settings(drawn, max_examples=200)
@given(reduced(one=False), st.sampled_from(REDUCTIONS))
def test_reductions_over_axes(case, name):
    shape, dim, keepdim = case
    assume(not (name == "prod" and isinstance(dim, tuple)))
    assume(
        0 not in shape
        or not isinstance(dim, tuple)
        or len({d % len(shape) for d in dim}) == len(dim)
    )  # one complaint at a time
    if name in ("var", "std"):  # a single element: nan, with a warning in PyTorch
        assume(
            0 not in shape
            and math.prod(
                shape[d]
                for d in (dim if isinstance(dim, tuple) else (dim,))
                if -len(shape) <= d < len(shape)
            )
            > 1
        )

    def reduce(lib, x):
        if name == "norm":
            return lib.linalg.vector_norm(x, 3, dim, keepdim)
        return getattr(lib, name)(x, dim, keepdim=keepdim)

    same(reduce, numbers(0, *shape), what=f"{name} {shape} dim={dim} keepdim={keepdim}")


@settings(drawn, max_examples=150)
@given(reduced(one=True), st.sampled_from(ONE_AXIS))
def test_reductions_over_one_axis(case, name):
    shape, dim, keepdim = case

    def reduce(lib, x):
        if name in ("cumsum", "cumprod", "softmax"):
            return getattr(lib, name)(x, dim)
        y = getattr(lib, name)(x, dim, keepdim)
        return y if lib.is_tensor(y) else y[0] + y[1] * 0.25

    same(reduce, numbers(0, *shape), what=f"{name} {shape} dim={dim} keepdim={keepdim}")


@drawn
@given(reduced(one=False), st.sampled_from(TRUTH))
def test_truth_over_axes(case, name):
    shape, dim, keepdim = case
    x = np.random.default_rng(3).random(shape) > 0.6
    how = {} if name == "count_nonzero" else {"keepdim": keepdim}
    same(lambda L, x: getattr(L, name)(x, dim, **how), x, what=f"{name} {shape} dim={dim} {how}")


@drawn
@given(reduced(one=False), st.sampled_from(["sum", "mean", "amax"]))
def test_numpys_names_for_the_arguments(case, name):
    shape, dim, keepdim = case
    x = kg.tensor(numbers(0, *shape))
    plainly = outcome(lambda: getattr(kg, name)(x, dim=dim, keepdim=keepdim))
    aliased = outcome(lambda: getattr(x, name)(axis=dim, keepdims=keepdim))
    if agree(plainly, aliased, f"{name} {shape} {dim}"):
        np.testing.assert_array_equal(plain(aliased[1]), plain(plainly[1]))


# --- views --------------------------------------------------------------------------------------


@st.composite
def programs_of_views(draw):
    """A few views of views, and writes through them."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=3))
    steps, shapes = [], [shape]
    for _ in range(draw(st.integers(2, 6))):
        which = draw(st.integers(0, len(shapes) - 1))
        s = shapes[which]
        kind = draw(st.sampled_from(["view", "view", "write"]))
        if kind == "write":
            verb = draw(
                st.sampled_from(["mul_", "add_", "tanh_", "copy_", "zero_", "setitem", "iadd"])
            )
            steps.append((verb, which, draw(st.integers(0, 99))))
            continue
        options = ["flatten", "unsqueeze"]
        if s:
            options += ["select", "slice"]
        if len(s) > 1:
            options += ["t", "diagonal"]
        verb = draw(st.sampled_from(options))
        if verb == "t":
            new = (*s[:-2], s[-1], s[-2])
        elif verb == "select":
            new = s[1:]
        elif verb == "slice":
            new = (min(s[0], 1 if s[0] == 1 else s[0] - 1), *s[1:])
        elif verb == "diagonal":
            new = (*s[2:], min(s[0], s[1]))
        elif verb == "unsqueeze":
            new = (*s, 1)
        else:
            new = (math.prod(s),)
        steps.append((verb, which, 0))
        shapes.append(new)
    return shape, steps


def run_views(lib, x, w, steps):
    ts = [x * 1.0]
    for verb, which, seed in steps:
        t = ts[which]
        if verb == "t":
            ts.append(t.transpose(-1, -2))
        elif verb == "select":
            ts.append(t[0])
        elif verb == "slice":
            ts.append(t[1:] if t.shape[0] > 1 else t[:1])
        elif verb == "diagonal":
            ts.append(t.diagonal())
        elif verb == "unsqueeze":
            ts.append(t.unsqueeze(-1))
        elif verb == "flatten":
            ts.append(t.reshape(-1))
        elif verb == "copy_":
            t.copy_(w.sum() * lib.tensor(numbers(seed, *t.shape)))
        elif verb == "setitem":
            t[...] = w[seed % 3] * 0.5
        elif verb == "iadd":
            t += w[seed % 3]
        elif verb in ("tanh_", "zero_"):
            getattr(t, verb)()
        else:
            getattr(t, verb)(w[seed % 3] + 0.5)
    return lib.cat([(t * t * (k + 1)).reshape(-1) for k, t in enumerate(ts)])


@settings(drawn, max_examples=250)
@given(programs_of_views())
def test_writing_through_views(case):
    shape, steps = case
    arrays = numbers(0, *shape), numbers(1, 3)
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    theirs = outcome(
        lambda: torch.autograd.grad(run_views(torch, *xs, steps).sum(), xs, allow_unused=True)
    )
    if theirs[0] == "value" or "modified by an inplace operation" not in str(theirs[1]):
        same(lambda L, x, w: run_views(L, x, w, steps), *arrays, what=f"{shape} {steps}")
        return
    # PyTorch writes over what it had saved and says so; we may have kept a copy: then it must be right
    xs = [kg.tensor(a, requires_grad=True) for a in arrays]
    ours = outcome(
        lambda: kg.autograd.gradcheck(lambda x, w: run_views(kg, x, w, steps), xs, fast_mode=True)
    )
    assert ours[0] == "value" or "modified by an inplace operation" in str(ours[1]), ours[1]


# --- promotion ----------------------------------------------------------------------------------

DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
SCALARS = (True, 2, 1.5, 1j)
# What PyTorch promotes to complex32 (float16 beside a complex number) is complex64 here.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")


def operand(lib, name, rank):
    return lib.ones((2,) * rank, dtype=getattr(lib, name))


def test_promotion_of_every_pair_of_dtypes():
    wrong = []
    for a, b in itertools.product(DTYPES, DTYPES):
        theirs = outcome(
            lambda a=a, b=b: name_of(torch.promote_types(getattr(torch, a), getattr(torch, b)))
        )
        if theirs[0] == "value":
            ours = outcome(
                lambda a=a, b=b: name_of(kg.promote_types(getattr(kg, a), getattr(kg, b)))
            )
            if ours != theirs:
                wrong.append(("promote_types", a, b, theirs[1], ours[1]))
        for i, j in [(1, 1), (1, 0), (0, 1), (0, 0)]:
            got = []
            for lib in LIBRARIES:
                x, y = operand(lib, a, i), operand(lib, b, j)
                got.append(
                    [
                        outcome(lambda fn=fn, x=x, y=y: name_of(fn(x, y)))
                        for fn in (
                            lib.result_type,
                            lambda x, y: (x * y).dtype,
                            lambda x, y, lib=lib: lib.where(x != 0, x, y).dtype,
                        )
                    ]
                )
            for what, theirs, ours in zip(("result_type", "mul", "where"), *got, strict=True):
                if theirs[0] == "value" and theirs != ours and theirs[1] != "complex32":
                    wrong.append((what, a, i, b, j, theirs[1], ours[1]))
    assert wrong == []


def test_promotion_with_python_scalars():
    wrong = []
    for a, scalar, rank in itertools.product(DTYPES, SCALARS, (0, 1)):
        got = []
        for lib in LIBRARIES:
            x = operand(lib, a, rank)
            got.append([
                outcome(lambda fn=fn, x=x: name_of(fn(x)))
                for fn in (
                    lambda x, lib=lib: lib.result_type(x, scalar),
                    lambda x: (x * scalar).dtype,
                    lambda x: (scalar * x).dtype,
                    lambda x: (x + scalar).dtype,
                    lambda x: (x / scalar).dtype,
                    lambda x: (x == scalar).dtype,
                )
            ])  # fmt: skip
        for k, (theirs, ours) in enumerate(zip(*got, strict=True)):
            if theirs[0] == "value" and theirs != ours and theirs[1] != "complex32":
                wrong.append((k, a, rank, scalar, theirs[1], ours[1]))
    assert wrong == []


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "cumsum", "exp", "sqrt", "abs", "floor", "sigmoid", "neg",
                                  "all", "amax", "std", "square", "relu", "reciprocal", "argmax", "sort"])  # fmt: skip
def test_results_of_every_dtype(name):
    wrong = []
    for dtype in DTYPES[:6] + DTYPES[9:12]:
        both = []
        for lib in LIBRARIES:
            x = operand(lib, dtype, 2)

            def call(lib=lib, x=x):
                y = (
                    getattr(lib, name)(x, 0)
                    if name in ("cumsum", "sort")
                    else getattr(lib, name)(x)
                )
                return name_of((y if lib.is_tensor(y) else y[0]).dtype)

            both.append(outcome(call))
        theirs, ours = both
        if theirs[0] != ours[0] or (theirs[0] == "value" and theirs != ours) or (
            theirs[0] == "raises" and not isinstance(ours[1], type(theirs[1]))
        ):  # fmt: skip
            wrong.append((dtype, theirs[1], ours[1]))
    assert wrong == []


# --- small random graphs ------------------------------------------------------------------------

UNARY = ("sin", "tanh", "exp", "sigmoid", "square", "neg", "softplus", "log1p_abs", "t", "mean0", "max1", "softmax",
         "cumsum", "flip", "roll", "sum_keep", "index", "gelu", "norm", "reshape")  # fmt: skip
PAIRS = ("add", "mul", "sub", "maximum", "matmul", "div", "where", "cat")


def apply_unary(name, x):
    if name == "log1p_abs":
        return (x.abs() + 0.1).log1p()
    if name == "t":
        return x.transpose(0, 1)
    if name == "mean0":
        return x - x.mean(0)
    if name == "max1":
        return x.max(1, keepdim=True)[0] * x
    if name == "softmax":
        return x.softmax(1)
    if name == "cumsum":
        return x.cumsum(0)
    if name == "flip":
        return x.flip([1])
    if name == "roll":
        return x.roll(1, 0)
    if name == "sum_keep":
        return x.sum(1, keepdim=True) + x * 0.5
    if name == "index":
        return x[[2, 0, 0]]
    if name in ("gelu", "softplus"):
        return getattr(kg.nn.functional, name)(x)
    if name == "norm":
        return x / (x.norm() + 1)
    if name == "reshape":
        return x.reshape(9)[:9].reshape(3, 3)
    return getattr(x, name)()


def apply_pair(name, a, b):
    if name == "matmul":
        return (a @ b).tanh()
    if name == "div":
        return a / (b * b + 0.5)
    if name == "where":
        return kg.where(a > b, a, b * 2)
    if name == "cat":
        return kg.cat([a, b])[1:4]
    return getattr(kg, name)(a, b)


@st.composite
def graphs(draw):
    steps = []
    for k in range(draw(st.integers(2, 7))):
        earlier = st.integers(0, k + 1)
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(UNARY)), draw(earlier)))
        else:
            steps.append((draw(st.sampled_from(PAIRS)), draw(earlier), draw(earlier)))
    return steps, draw(st.integers(0, 1000))


@drawn
@given(graphs())
def test_gradients_of_random_graphs(case):
    steps, seed = case

    def program(a, b):
        values = [a, b]
        for name, *where in steps:
            args = [values[i] for i in where]
            values.append((apply_unary if len(args) == 1 else apply_pair)(name, *args))
        return values[-1] + 0.5 * values[-2]

    xs = [kg.tensor(numbers(seed + k, 3, 3), requires_grad=True) for k in range(2)]
    y = program(*xs)
    assume(np.isfinite(y.array).all() and np.abs(y.array).max() < 1e4)
    v = numbers(seed + 2, *y.shape)
    us = [numbers(seed + 3 + k, 3, 3) for k in range(2)]
    grads = kg.autograd.grad(y, xs, kg.tensor(v), allow_unused=True, materialize_grads=True)
    ours = sum((u * g.array).sum() for u, g in zip(us, grads, strict=True))
    eps = 1e-6

    def along(by):
        with kg.no_grad():
            return program(
                *[kg.tensor(x.array + by * u) for x, u in zip(xs, us, strict=True)]
            ).array

    left, middle, right = along(-eps), y.array, along(eps)
    bend = np.abs(right + left - 2 * middle).max()
    assume(bend < 1e-7 * max(1, np.abs(middle).max()))  # a kink within the step
    numeric = (v * (right - left)).sum() / (2 * eps)
    np.testing.assert_allclose(ours, numeric, rtol=1e-4, atol=1e-5, err_msg=str(steps))

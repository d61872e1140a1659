"""Random small functions: what the compiled one gives is what the eager one gives.

A function is a list of instructions on a pool of tensors: elementwise, reduction, product, shape and
index operations with broadcasting, views, and writes into views. Its results are some of the pool and
the gradients of a sum of them.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kilograd as kg
from kilograd.tensor import wrap

BACKENDS = ["numpy", "numba"]


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """A recording looks for tensors that outlive it: what was there before need not be searched."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


DTYPES = {"float32": 0.5, "float64": 0.5, "int64": 0.15, "bool": 0.1}
ROWS, COLUMNS = 3, 4

ONE = {
    "neg": lambda x: -x, "abs": abs, "double": lambda x: x * 2, "add1": lambda x: x + 1,
    "square": lambda x: x * x, "tanh": lambda x: x.float().tanh(), "exp": lambda x: (-abs(x)).float().exp(),
    "sigmoid": lambda x: x.float().sigmoid(), "relu": lambda x: kg.relu(x.float()),
    "clamp": lambda x: x.float().clamp(-0.7, 0.8), "sum": lambda x: x.sum(), "mean": lambda x: x.float().mean(),
    "sum0": lambda x: x.sum(0) if x.ndim else x, "sum_keep": lambda x: x.sum(-1, keepdim=True) if x.ndim else x,
    "amax": lambda x: x.amax(-1) if x.ndim else x, "cumsum": lambda x: x.cumsum(0) if x.ndim else x,
    "t": lambda x: x.transpose(0, -1) if x.ndim > 1 else x, "flat": lambda x: x.reshape(-1),
    "row": lambda x: x[0] if x.ndim and len(x) else x, "slice": lambda x: x[..., 1:] if x.ndim else x,
    "step": lambda x: x[::2] if x.ndim else x, "none": lambda x: x[None], "expand": lambda x: x.expand(2, *x.shape),
    "double32": lambda x: x.float(), "double64": lambda x: x.double(), "positive": lambda x: x > 0,
    "softmax": lambda x: x.float().softmax(-1) if x.ndim else x, "flip": lambda x: x.flip(0) if x.ndim else x,
    "argsort": lambda x: x.float().argsort(-1, stable=True) if x.ndim else x,
    "detach": lambda x: x.detach(), "clone": lambda x: x.clone(), "norm": lambda x: (x.float() + 3).norm(),
    "take": lambda x: x.index_select(0, kg.tensor([0, 0])) if x.ndim and len(x) else x,
}  # fmt: skip
TWO = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a.float() - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (abs(b.float()) + 1), "max": lambda a, b: kg.maximum(a, b),
    "less": lambda a, b: a < b, "where": lambda a, b: kg.where(a > 0, a, b),
    "matmul": lambda a, b: a.double() @ b.double() if a.ndim and b.ndim else a * b,
    "outer": lambda a, b: a.reshape(-1)[:3, None] * b.reshape(-1)[:4],
    "cat": lambda a, b: kg.cat([a.reshape(-1), b.reshape(-1)]), "stack": lambda a, b: kg.stack([a, b]),
}  # fmt: skip
INPLACE = {
    "add_": lambda x, b: x.add_(b), "mul_": lambda x, b: x.mul_(b), "zero_row": lambda x, b: x[:1].zero_(),
    "set": lambda x, b: x.__setitem__((..., slice(0, 1)), b.reshape(-1)[0]),
    "fill": lambda x, b: x.fill_(0.25), "copy_": lambda x, b: x.copy_(b),
}  # fmt: skip

SHAPES = [(), (1,), (COLUMNS,), (ROWS, COLUMNS), (ROWS, 1), (2, ROWS, COLUMNS)]
instruction = st.one_of(
    st.tuples(st.sampled_from(sorted(ONE)), st.integers(0, 9)),
    st.tuples(st.sampled_from(sorted(TWO)), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.sampled_from(sorted(INPLACE)), st.integers(0, 9), st.integers(0, 9)),
)
inputs = st.lists(
    st.tuples(st.sampled_from(SHAPES), st.sampled_from(sorted(DTYPES))), min_size=2, max_size=4
)


def values(spec: Any, seed: int) -> list[Any]:
    """Tensors of the shapes and dtypes asked for; the floating ones require grad."""
    rng = np.random.default_rng(seed)
    found = []
    for shape, dtype in spec:
        array = np.asarray(rng.uniform(-2, 2, shape))
        array = (
            np.asarray(array > 0) if dtype == "bool" else np.asarray(array.round(2).astype(dtype))
        )
        found.append(wrap(array).requires_grad_(array.dtype.kind == "f"))
    return found


def function_of(program: Any) -> Any:
    """The function that a list of instructions stands for."""

    def f(*given: Any) -> Any:
        pool = [x * 1 for x in given]  # so that writes go into something of the function's own
        for name, *at in program:
            picked = [pool[k % len(pool)] for k in at]
            if name in INPLACE:
                INPLACE[name](*picked)
                continue
            new = ONE[name](*picked) if name in ONE else TWO[name](*picked)
            if new.numel() <= 200:
                pool.append(new)
        outs = pool[-4:]
        live = [x for x in outs if x.requires_grad]
        leaves = [x for x in given if x.requires_grad]
        if not live or not leaves:
            return outs
        loss = sum((x.double() * 0.5).sum() for x in live)
        grads = kg.autograd.grad(loss, leaves, allow_unused=True)
        return [x.detach() for x in outs], grads

    return f


def flat(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)):
        return [x for r in result for x in flat(r)]
    return [result]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(spec=inputs, program=st.lists(instruction, min_size=2, max_size=9))
def test_random_graph(backend: str, spec: Any, program: Any) -> None:
    f = function_of(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            f(*values(spec, 0))
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            return  # shapes that do not fit: no function of anything
        step = kg.compile(f, check=True, fullgraph=True, backend=backend)
        for seed in (0, 0, 1):
            got, want = flat(step(*values(spec, seed))), flat(f(*values(spec, seed)))
            assert len(got) == len(want)
            for a, b in zip(got, want, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    assert a.dtype == b.dtype and a.shape == b.shape
                    np.testing.assert_allclose(a.array, b.array, rtol=1e-4, atol=1e-5)
    assert [p.runs for found in step.programs.values() for p in found] == [2]

"""Every differentiable op, compiled: forward, gradient and second order as they are eagerly.

The samples are those of ``test_registry.py``. The first call is recorded, the second runs the program
on the same values, the third on others of the same shapes.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

import numpy as np
import pytest

import kilograd as kg
from kilograd.compile.graph import leaves
from kilograd.errors import TraceError
from kilograd.ops.op import REGISTRY, Op
from kilograd.tensor import Tensor, wrap
from tests.samples import SAMPLES, Draw, Sample
from tests.test_registry import active, as_dtype, outputs, samples_of

BACKENDS = ["numpy", "numba"]


@pytest.fixture(autouse=True, scope="module")
def quick_collections():
    """A recording looks for tensors that outlive it: what was there before need not be searched."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


NAMES = sorted(n for n in REGISTRY if n in SAMPLES)

SHAPE_FROM_VALUES = {
    "masked_select": "as many elements as the mask holds",
    "nonzero": "as many rows as elements are not zero",
}
CANNOT = {  # (name, order): why
    ("cumprod", 2): "the rule of its gradient asks whether there is a zero",
    ("masked_place", 1): "its gradient is masked_select",
    ("masked_place", 2): "likewise",
    ("ctc_loss", 2): "its composition asks for lengths and labels",
    **{(n, k): "the sample's function has a NumPy array of its own"
       for n in ("cholesky_solve", "eigh", "svd") for k in (1, 2)},
}  # fmt: skip


def arguments(op: Op, sample: Sample, dtype: Any, scale: float = 1.0) -> list[Any]:
    """The sample's arguments as tensors; those that are differentiated require grad."""
    where = active(op, sample) if op.differentiable else []
    out: list[Any] = []
    for i, a in enumerate(sample.args):
        a = as_dtype(a, dtype)
        if isinstance(a, np.ndarray):
            t = wrap(np.array(a * a.dtype.type(scale)) if i in where else a.copy())
            t.requires_grad = i in where
            a = t
        out.append(a)
    return out


def function_of(op: Op, sample: Sample, order: int) -> Any:
    """All outputs, and (order 1) gradients of those that have one, and (2) of the gradients."""

    fn, options = sample.fn, sample.options  # the sample itself may hold much: it would be guarded

    def compute(args: tuple[Any, ...], ups: tuple[Any, ...], us: tuple[Any, ...]) -> Any:
        found = outputs(fn(op, *args, **options))
        ys = [y for y in found if y.requires_grad]
        xs = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        if not order or not ys:
            return found
        first = kg.autograd.grad(ys, xs, ups, create_graph=order == 2, allow_unused=True)
        result = [y.detach() for y in found] + [None if g is None else g.detach() for g in first]
        if order == 2:
            live = [
                (g, u) for g, u in zip(first, us, strict=True) if g is not None and g.requires_grad
            ]
            if live:
                result += kg.autograd.grad(
                    [g for g, _ in live], [*xs, *ups], [u for _, u in live], allow_unused=True
                )
        return result

    return compute


def upstream(op: Op, sample: Sample, args: list[Any], order: int) -> tuple[Any, Any]:
    """Random gradients of the outputs, and random directions of the inputs."""
    ys = [y for y in outputs(sample.fn(op, *args, **sample.options)) if y.requires_grad]
    draw = Draw(f"{op.name} up")
    ups = []
    for y in ys:
        v = draw(*y.shape)
        v = v + 1j * draw(*y.shape) if y.array.dtype.kind == "c" else v
        up = wrap(np.asarray(v).astype(y.array.dtype))
        ups.append(up.requires_grad_(order == 2))
    xs = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    return tuple(ups), tuple(wrap(draw(*x.shape).astype(x.array.dtype)) for x in xs)


def compare(got: Any, want: Any, what: str) -> None:
    assert len(got) == len(want), what
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a is None) == (b is None), f"{what}: result {i}"
        if a is None:
            continue
        assert a.array.dtype == b.array.dtype and a.shape == b.shape, f"{what}: result {i}"
        eps = np.finfo(b.array.dtype).eps if b.array.dtype.kind in "fc" else 0
        size = np.abs(np.nan_to_num(b.array)).max(initial=1) if b.array.dtype.kind != "b" else 1
        np.testing.assert_allclose(
            a.array, b.array, rtol=2000 * eps, atol=200 * eps * size, err_msg=f"{what}: result {i}"
        )


def run(op: Op, sample: Sample, dtype: Any, order: int, backend: str, label: str) -> None:
    compute = function_of(op, sample, order)
    step = kg.compile(compute, check=True, fullgraph=True, backend=backend)
    for call, scale in enumerate((1.0, 1.0, 0.96875)):  # still clear of kinks
        args = arguments(op, sample, dtype, scale)
        ups, us = upstream(op, sample, args, order)
        got = step(tuple(args), ups, us)
        again = arguments(op, sample, dtype, scale)
        ups, us = upstream(op, sample, again, order)
        compare(got, compute(tuple(again), ups, us), f"{label}, call {call}")
    programs = [p for found in step.programs.values() for p in found]
    assert len(programs) == 1 and programs[0].runs == 2, f"{label}: it did not run as a program"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_compiled(name: str, backend: str) -> None:
    op = REGISTRY[name]
    for sample in samples_of(name):
        if not any(isinstance(a, np.ndarray) for a in sample.args):
            continue
        differentiable = op.differentiable and bool(active(op, sample))
        order = min(sample.order, 2) if differentiable else 0
        for dtype in (np.float64, np.float32) if order < 2 else (np.float64,):
            for k in {min(order, 1), order}:
                label = f"{name}: {sample.form} {np.dtype(dtype)} order {k}"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    frozen = any(isinstance(x, np.ndarray) for x in leaves(sample.options))
                    if frozen or name in SHAPE_FROM_VALUES or (name, k) in CANNOT:
                        with pytest.raises(TraceError):
                            run(op, sample, dtype, k, backend, label)
                    else:
                        run(op, sample, dtype, k, backend, label)

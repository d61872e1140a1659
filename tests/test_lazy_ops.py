"""Every op, with its derivatives, in a lazy graph: what eager gives, and nothing computed before."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.errors import TraceError
from kilograd.ops.op import REGISTRY
from kilograd.tensor import Tensor
from tests.samples import SAMPLES, Draw

# Their results' shapes are values: no graph knows them.
VALUE_SHAPED = {"masked_select", "masked_place", "nonzero", "occurrences"}
MASKED = {"index_put", "put_zeros"}


def _leaf(a, constant):
    if not isinstance(a, np.ndarray):
        return a
    t = kg.tensor(a)
    return t.requires_grad_() if a.dtype.kind == "f" and not constant else t


def _run(name, sample):
    """Results and gradients of one call, with random gradients from above."""
    op = REGISTRY[name]
    args = [_leaf(a, n in sample.constant) for a, n in _named(op, sample.args)]
    y = sample.fn(op, *args, **sample.options)
    ys = [t for t in (y if isinstance(y, tuple) else (y,)) if isinstance(t, Tensor)]
    rng = np.random.default_rng(0)
    wanted = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
    seeds = [
        kg.tensor(rng.standard_normal(tuple(map(int, t.shape))).astype(t.dtype.dtype)) for t in ys
    ]
    outs = [(t, g) for t, g in zip(ys, seeds, strict=True) if t.requires_grad]
    grads = ()
    if outs:
        tensors, seeds = zip(*outs, strict=True)
        grads = kg.autograd.grad(tensors, wanted, seeds, allow_unused=True)
    return ys, [g for g in grads if g is not None]


def _named(op, args):
    names = [*op.inputs, *[op.variadic] * len(args)]
    return list(zip(args, names, strict=False))


def _masked(sample):
    parts = sample.options.get("index")
    parts = parts if isinstance(parts, tuple) else (parts,)
    return any(isinstance(i, np.ndarray) and i.dtype == bool for i in parts)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_lazily_as_eagerly(name):
    for sample in SAMPLES[name](Draw(name)):
        if name in VALUE_SHAPED or (name == "getitem" and _masked(sample)):
            with pytest.raises(TraceError, match="depends on"), kg.Graph():
                _run(name, sample)
            continue
        want, want_grads = _run(name, sample)
        if name in MASKED and "mask" in sample.form:  # so do their gradients
            with pytest.raises(TraceError, match="depends on"), kg.Graph():
                _run(name, sample)
            continue
        with kg.Graph() as g:
            got, grads = _run(name, sample)
            shapes = [(tuple(map(int, t.shape)), t.dtype) for t in got]
            assert all(type(t.array) is LazyArray for t in got), sample.form
        with kg.compile.disable():  # the steps as they stand; programs are tested elsewhere
            g.realize()
        assert shapes == [(tuple(t.shape), t.dtype) for t in want], sample.form
        assert len(got) == len(want) and len(grads) == len(want_grads)
        for a, b in zip([*got, *grads], [*want, *want_grads], strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, sample.form
            np.testing.assert_allclose(
                a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-11, err_msg=sample.form
            )

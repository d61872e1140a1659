"""Thirty inputs on which at least one older library of this kind gave a wrong answer.

The oracle is PyTorch, a formula, or finite differences; upstream gradients are random.
"""

from __future__ import annotations

import copy
import gc
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

import kilograd as kg
from kilograd.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kilograd.utils.data import DataLoader, Dataset, TensorDataset, random_split

F = kg.nn.functional
rng = np.random.default_rng(7)


def numbers(*shape):
    return np.asarray(rng.standard_normal(shape))


def outs(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def plain(t):
    """A tensor of either library as an ndarray."""
    return np.asarray(t.array if isinstance(t, kg.Tensor) else t.numpy(force=True))


def same_as_torch(fn, *args, second=False, rtol=1e-9, atol=1e-11):
    """``fn(library, *tensors)``: values and gradients with a random upstream are PyTorch's."""
    torch = pytest.importorskip("torch")
    results, grads, seconds = [], [], []
    ups = None
    for lib in (torch, kg):
        tensors = [lib.tensor(a.copy()) for a in args]
        leaves = [t for t, a in zip(tensors, args, strict=True) if a.dtype.kind == "f"]
        for t in leaves:
            t.requires_grad_()
        ys = outs(fn(lib, *tensors))
        if ups is None:
            ups = [numbers(*y.shape).astype(plain(y).dtype) for y in ys if y.requires_grad]
        recorded = [y for y in ys if y.requires_grad]
        vs = [lib.tensor(u.copy()) for u in ups]
        for v in vs:
            v.requires_grad_(second)
        gs = lib.autograd.grad(recorded, leaves, vs, create_graph=second, allow_unused=True)
        results.append([plain(y) for y in ys])
        grads.append([None if g is None else plain(g) for g in gs])
        if second:  # of the gradient, as a function of the inputs and of the upstream
            total = sum((g * (k + 1.5)).sin().sum() for k, g in enumerate(gs) if g is not None)
            more = lib.autograd.grad(total, leaves + vs, allow_unused=True)
            seconds.append([
                np.zeros(t.shape) if g is None else plain(g)
                for t, g in zip(leaves + vs, more, strict=True)
            ])  # fmt: skip
    for theirs, ours in (results, grads, seconds) if second else (results, grads):
        for a, b in zip(theirs, ours, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.shape == b.shape and a.dtype == b.dtype, (
                    a.shape,
                    b.shape,
                    a.dtype,
                    b.dtype,
                )
                np.testing.assert_allclose(b, a, rtol=rtol, atol=atol)
    return results[1], grads[1]


# --- 1-5 ----------------------------------------------------------------------------------------


class BlindToOnes(kg.autograd.Function):
    """Its gradient is right for an upstream of ones, and for no other."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (x > 0) * g.mean()


def test_trap_01_gradients_with_a_random_upstream():
    with pytest.raises(AssertionError):  # the check itself sees what `.sum()` hides
        same_as_torch(lambda L, x: BlindToOnes.apply(x) if L is kg else x.relu(), numbers(3, 4))
    x = kg.tensor(np.abs(numbers(3)), requires_grad=True)
    BlindToOnes.apply(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]
    for name in ("relu", "sigmoid", "tanh", "exp", "abs"):
        same_as_torch(lambda L, x, name=name: getattr(x, name)(), numbers(3, 4), second=True)
    same_as_torch(lambda L, x: L.softmax(x, 1), numbers(3, 4), second=True)
    same_as_torch(
        lambda L, x, w: L.nn.functional.conv2d(x, w),
        numbers(2, 3, 6, 5),
        numbers(4, 3, 3, 2),
        second=True,
    )


@pytest.mark.parametrize(
    "name", ["minus", "over", "power", "matmul", "times", "plus", "max", "cat"]
)
def test_trap_02_the_same_tensor_as_both_operands(name):
    fn = {
        "minus": lambda L, x: x - x, "over": lambda L, x: x / x, "power": lambda L, x: x**x,
        "matmul": lambda L, x: x @ x, "times": lambda L, x: x * x, "plus": lambda L, x: x + x,
        "max": lambda L, x: L.maximum(x, x), "cat": lambda L, x: L.cat([x, x, x * x]),
    }[name]  # fmt: skip
    same_as_torch(fn, np.abs(numbers(3, 3)) + 0.2, second=True)


@pytest.mark.parametrize(
    "index",
    [[0, 0, 1], [2, 2, 2, 2], [-1, 2, -1], ([0, 0, 1], [1, 1, 1]), (slice(None), [0, 0])],
    ids=str,
)
def test_trap_03_a_repeated_integer_index_accumulates(index):
    same_as_torch(lambda L, x: x[index], numbers(3, 4), second=True)
    (y,), (g,) = same_as_torch(lambda L, x: x[[0, 0, 1]], numbers(3))
    assert g[2] == 0 and g[0] != 0


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "prod", "var", "logsumexp", "max"])
@pytest.mark.parametrize("keepdim", [False, True])
def test_trap_04_reductions_over_every_axis_of_a_square(name, keepdim):
    axes = [0, 1, 2, -1, -2, -3] + (
        [] if name in ("prod", "max") else [(0, 1), (0, 2), (-1, 0), (2, 0, 1)]
    )
    for dim in axes:
        same_as_torch(
            lambda L, x, dim=dim: getattr(L, name)(x, dim=dim, keepdim=keepdim)
            if name != "max" else L.max(x, dim, keepdim)[0],
            numbers(3, 3, 3), second=True,
        )  # fmt: skip
    x = numbers(3, 3)
    assert kg.tensor(x).sum(axis=0, keepdims=keepdim).shape == x.sum(0, keepdims=keepdim).shape


@pytest.mark.parametrize("shape", [(4,), (3, 3), (2, 3, 2), (2, 3, 1, 3)], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_trap_05_softmax_over_every_dim(name, shape):
    for dim in range(-len(shape), len(shape)):
        (y,), _ = same_as_torch(
            lambda L, x, dim=dim: getattr(L, name)(x, dim), numbers(*shape), second=True
        )
        total = (y if name == "softmax" else np.exp(y)).sum(dim)
        np.testing.assert_allclose(total, 1)


# --- 6-10 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6), (3, 3, 4, 2)], ids=str)
def test_trap_06_batch_norm_statistics(shape):
    torch = pytest.importorskip("torch")
    name = f"BatchNorm{max(len(shape) - 2, 1)}d"
    theirs, ours = getattr(torch.nn, name)(3).double(), getattr(kg.nn, name)(3).double()
    x, up = numbers(*shape), numbers(*shape)
    for step in range(3):
        if step == 2:
            theirs.eval()
            ours.eval()
        before = ours.running_mean.array.copy(), ours.running_var.array.copy()
        a = torch.tensor(x * (step + 1), requires_grad=True)
        b = kg.tensor(x * (step + 1), requires_grad=True)
        y, z = theirs(a), ours(b)
        y.backward(torch.tensor(up))
        z.backward(kg.tensor(up))
        np.testing.assert_allclose(plain(z), plain(y), atol=1e-12)
        np.testing.assert_allclose(plain(b.grad), plain(a.grad), atol=1e-12)
        np.testing.assert_allclose(plain(ours.weight.grad), plain(theirs.weight.grad), atol=1e-11)
        np.testing.assert_allclose(plain(ours.running_mean), plain(theirs.running_mean), atol=1e-12)
        np.testing.assert_allclose(plain(ours.running_var), plain(theirs.running_var), atol=1e-12)
        moved = not np.array_equal(before[0], ours.running_mean.array)
        assert moved == (step < 2), "statistics move in training, and only then"
    assert ours.num_batches_tracked.item() == 2
    # biased variance normalises, unbiased is kept
    axes = (0, *range(2, len(shape)))
    fresh = getattr(kg.nn, name)(3, momentum=1.0).double()
    z = fresh(kg.tensor(x))
    np.testing.assert_allclose(plain(fresh.running_var), x.var(axes, ddof=1))
    keep = tuple(3 if i == 1 else 1 for i in range(len(shape)))
    expected = (x - x.mean(axes).reshape(keep)) / np.sqrt(x.var(axes).reshape(keep) + 1e-5)
    np.testing.assert_allclose(plain(z), expected)
    same_as_torch(
        lambda L, x, w, b: L.nn.functional.layer_norm(x, (3, 4), w, b),
        numbers(2, 3, 4), numbers(3, 4), numbers(3, 4), second=True,
    )  # fmt: skip


def test_trap_07_eval_reaches_all_descendants():
    class Outer(kg.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = kg.nn.Sequential(
                kg.nn.Linear(4, 4),
                kg.nn.ModuleList([kg.nn.Dropout(0.3)]),
                kg.nn.ModuleDict({"a": kg.nn.Dropout(0.3)}),
            )
            self.head = kg.nn.Sequential(kg.nn.Sequential(kg.nn.Dropout(0.3)))

        def forward(self, x):
            return self.head(self.body[2]["a"](self.body[1][0](self.body[0](x))))

    model = Outer()
    assert len(list(model.modules())) == 10 and all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    x = kg.randn(20, 4)
    assert kg.equal(model(x), model(x))
    model.train()
    assert all(m.training for m in model.modules())
    assert not kg.equal(model(x), model(x))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_trap_08_dropout(p):
    layer = kg.nn.Dropout(p)
    assert list(layer.parameters()) == [] and layer.state_dict() == {}
    x = kg.ones(200, 500, requires_grad=True)
    y = layer(x)
    kept = (y.array != 0).mean()
    assert abs(kept - (1 - p)) < 0.01
    assert abs(y.array.mean() - 1) < 0.02
    np.testing.assert_allclose(np.unique(y.array), [0, 1 / (1 - p)], rtol=1e-6)
    up = kg.randn(*y.shape)
    y.backward(up)
    np.testing.assert_allclose(x.grad.array, up.array * y.array)
    layer.eval()
    assert kg.equal(layer(x), x)
    assert kg.equal(kg.nn.Dropout(0.0)(x), x) and not kg.nn.Dropout(1.0)(x).array.any()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_trap_09_losses_against_their_formulas(reduction):
    def reduce(loss):
        return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]

    p, t = rng.uniform(0.05, 0.95, (2, 4, 3))
    x, y = numbers(4, 3), numbers(4, 3)
    labels = np.array([2, 0, 1, 2])
    logp = x - np.log(np.exp(x).sum(1, keepdims=True))
    sigmoid = 1 / (1 + np.exp(-x))
    d = np.abs(x - y)
    cases = {
        "mse_loss": ((x, y), reduce((x - y) ** 2)),
        "l1_loss": ((x, y), reduce(d)),
        "smooth_l1_loss": ((x, y), reduce(np.where(d < 1, d * d / 2, d - 0.5))),
        "huber_loss": ((x, y), reduce(np.where(d < 1, d * d / 2, d - 0.5))),
        "binary_cross_entropy": ((p, t), reduce(-t * np.log(p) - (1 - t) * np.log(1 - p))),
        "binary_cross_entropy_with_logits": (
            (x, t), reduce(-t * np.log(sigmoid) - (1 - t) * np.log(1 - sigmoid))
        ),
        "cross_entropy": ((x, labels), reduce(-logp[np.arange(4), labels])),
        "nll_loss": ((logp, labels), reduce(-logp[np.arange(4), labels])),
        "kl_div": ((np.log(p), t), reduce(t * (np.log(t) - np.log(p)))),
    }  # fmt: skip
    for name, (args, expected) in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's advice on kl_div's "mean"
            (value,), grads = same_as_torch(
                lambda L, *a, name=name: getattr(L.nn.functional, name)(*a, reduction=reduction),
                *args,
                second=True,
            )
        np.testing.assert_allclose(value, expected, err_msg=name)
        assert value.shape == (() if reduction != "none" else np.shape(expected))
        assert len(grads) == (1 if args[1] is labels else 2) and all(
            g is not None for g in grads
        ), name
    soft = np.exp(y) / np.exp(y).sum(1, keepdims=True)  # class probabilities as the target
    (value,), grads = same_as_torch(
        lambda L, x, t: L.nn.functional.cross_entropy(x, t, reduction=reduction),
        x,
        soft,
        second=True,
    )
    rows = -(soft * logp).sum(1)
    np.testing.assert_allclose(
        value, {"none": rows, "mean": rows.mean(), "sum": rows.sum()}[reduction]
    )


def test_trap_10_losses_of_huge_logits():
    x = np.array([[1000.0, -1000.0, 0.0], [-1000.0, -1000.0, 1000.0], [1000.0, 999.0, -1000.0]])
    labels = np.array([0, 0, 1])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        for dtype in (np.float64, np.float32):
            logits = x.astype(dtype)
            (value,), (g,) = same_as_torch(
                lambda L, x, t: L.nn.functional.cross_entropy(x, t, reduction="none"), logits, labels,
                rtol=1e-6, atol=1e-6,
            )  # fmt: skip
            np.testing.assert_allclose(value, [0, 2000, np.log1p(np.exp(-1.0)) + 1], rtol=1e-6)
            assert np.isfinite(g).all()
            for name in (
                "sigmoid",
                "log_softmax",
                "softmax",
                "logsigmoid",
                "softplus",
                "silu",
                "tanh",
            ):
                fn = (lambda L, x, n=name: getattr(L.nn.functional, n)(x, 1)) if "soft" in name[-7:] and name != "softplus" else (
                    lambda L, x, n=name: getattr(L.nn.functional, n)(x))  # fmt: skip
                (y,), (g,) = same_as_torch(fn, logits, rtol=1e-6, atol=1e-6)
                assert np.isfinite(y).all() and np.isfinite(g).all(), name
            (y,), (g, _) = same_as_torch(
                lambda L, x, t: L.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none"),
                logits, (x > 0).astype(dtype), rtol=1e-6, atol=1e-6,
            )  # fmt: skip
            assert np.isfinite(y).all() and np.isfinite(g).all()


# --- 11-15 --------------------------------------------------------------------------------------


def direct_convolution(x, w, b, stride, padding, dilation, groups):
    """The definition, five loops deep."""
    (N, _, H, W), (O, K, KH, KW) = x.shape, w.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((H, W), (KH, KW), stride, padding, dilation, strict=True)
    ]
    y = np.zeros((N, O, *size))
    for n in range(N):
        for o in range(O):
            first = o // (O // groups) * K
            for i in range(size[0]):
                for j in range(size[1]):
                    rows = i * stride[0] + np.arange(KH) * dilation[0]
                    columns = j * stride[1] + np.arange(KW) * dilation[1]
                    window = x[n, first : first + K][:, rows][:, :, columns]
                    y[n, o, i, j] = (window * w[o]).sum() + b[o]
    return y


CONVOLUTIONS = [
    ((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 1), 1), ((1, 3), (2, 0), (2, 1), 1),
    ((2, 2), (1, 1), (1, 2), 2), ((1, 1), (0, 1), (1, 1), 4), ((3, 2), (2, 2), (2, 2), 2),
]  # fmt: skip


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), CONVOLUTIONS)
def test_trap_11_convolution_against_the_definition(stride, padding, dilation, groups):
    x, w, b = numbers(2, 4, 7, 6), numbers(8, 4 // groups, 3, 2), numbers(8)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    (y,), _ = same_as_torch(
        lambda L, x, w, b: L.nn.functional.conv2d(x, w, b, **how), x, w, b, second=True, rtol=1e-8
    )
    np.testing.assert_allclose(y, direct_convolution(x, w, b, **how), atol=1e-12)


def test_trap_11_same_padding_with_an_even_kernel():
    for size, dilation in [((2, 4), 1), ((3, 2), 2)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's, on copying for even kernels
            (y,), _ = same_as_torch(
                lambda L, x, w, d=dilation: L.nn.functional.conv2d(x, w, padding="same", dilation=d),
                numbers(2, 3, 6, 5), numbers(4, 3, *size),
            )  # fmt: skip
        assert y.shape == (2, 4, 6, 5)


@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 3, "stride": 1}, {"kernel_size": 2, "stride": 2}, {"kernel_size": (3, 2), "stride": (2, 3)},
        {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "stride": 3, "ceil_mode": True},
        {"kernel_size": 2, "dilation": 2, "stride": 1},
    ],
    ids=str,
)  # fmt: skip
def test_trap_12_max_pool_overlaps_borders_and_negative_input(how):
    for x in (numbers(2, 3, 7, 6), -np.abs(numbers(2, 3, 7, 6)) - 5):
        (y,), (g,) = same_as_torch(
            lambda L, x: L.nn.functional.max_pool2d(x, **how), x, second=True
        )
        assert set(np.unique(y)) <= set(np.unique(x)), "padding never wins"
    (y,), (g,) = same_as_torch(lambda L, x: L.nn.functional.max_pool2d(x, 2), numbers(1, 1, 5, 5))
    assert not g[..., 4, :].any() and not g[..., 4].any(), "what no window covers has no gradient"


def test_trap_13_losses_that_share_a_graph():
    a, up = numbers(3, 4), numbers(3, 4)
    x = kg.tensor(a, requires_grad=True)
    first, other = x.exp() * 2, (x * x).sin()  # two independent losses of one leaf
    first.backward(kg.tensor(up))
    other.backward(kg.tensor(up))
    np.testing.assert_allclose(x.grad.array, up * (2 * np.exp(a) + 2 * a * np.cos(a * a)))
    x.grad = None
    shared = x.tanh()  # and two of one intermediate
    (shared * 3).backward(kg.tensor(up), retain_graph=True)
    (shared**2).backward(kg.tensor(up))
    t = np.tanh(a)
    np.testing.assert_allclose(x.grad.array, up * (3 + 2 * t) * (1 - t * t))
    x.grad = None
    y = x.sigmoid() * x
    once = None
    for times in (1, 2, 3):
        y.backward(kg.tensor(up), retain_graph=True)
        once = x.grad.array.copy() if once is None else once
        np.testing.assert_allclose(x.grad.array, times * once)
    y.backward(kg.tensor(up))
    with pytest.raises(RuntimeError, match="second time"):
        y.backward(kg.tensor(up))


def test_trap_14_deep_chains_and_diamonds():
    x = kg.tensor(0.5, dtype=kg.float64, requires_grad=True)
    y = x
    for k in range(50_000):
        y = y * 1.0 if k % 2 else y + 0.25
    y.backward(kg.tensor(3.0, dtype=kg.float64))
    assert x.grad.item() == 3.0 and y.item() == 0.5 + 25_000 * 0.25
    del y  # a recursive destructor would overflow here
    x.grad = None
    y = x
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**40
    x.grad = None
    y = x
    for _ in range(12):
        y = y * y
    y.backward()
    assert x.grad.item() == pytest.approx(2**12 * 0.5 ** (2**12 - 1))


def test_trap_15_memory_without_the_collector():
    model = kg.nn.Sequential(
        kg.nn.Linear(5, 8), kg.nn.BatchNorm1d(8), kg.nn.ReLU(), kg.nn.Linear(8, 3)
    )
    optimizer = kg.optim.Adam(model.parameters(), lr=1e-3)
    x, t = kg.randn(6, 5), kg.tensor([0, 1, 2, 0, 1, 2])

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()

    gc.collect()
    gc.disable()
    try:
        h = model(x)  # never differentiated: deleting it must free the graph
        loss = F.cross_entropy(h, t)
        refs = [
            weakref.ref(h),
            weakref.ref(h.grad_fn),
            weakref.ref(loss.grad_fn),
            weakref.ref(h.array),
        ]
        del h, loss
        assert [r() is None for r in refs] == [True] * 4
        for _ in range(400):  # after 300, batch norm and the loss have native programs
            step()
        objects = len(gc.get_objects())
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            step()
        grown = tracemalloc.get_traced_memory()[0] - before
        assert len(gc.get_objects()) - objects < 50
        assert grown < 100_000, f"{grown} bytes more after 1000 steps"
    finally:
        tracemalloc.stop()
        gc.enable()


# --- 16-20 --------------------------------------------------------------------------------------


def test_trap_16_statistics_of_initial_weights():
    fan_out, fan_in = 300, 500
    init, w = kg.nn.init, kg.empty(fan_out, fan_in)
    expected = {
        "xavier_normal_": (2 / (fan_in + fan_out)) ** 0.5,
        "xavier_uniform_": (2 / (fan_in + fan_out)) ** 0.5,
        "kaiming_normal_": (2 / (1.01 * fan_in)) ** 0.5,
        "kaiming_uniform_": (2 / (1.01 * fan_in)) ** 0.5,
    }
    for name, std in expected.items():
        how = {"a": 0.1} if "kaiming" in name else {}
        values = getattr(init, name)(w, **how).array
        assert abs(values.std() / std - 1) < 0.02, name
        assert abs(values.mean()) < 0.02 * std * 3, name
        if "uniform" in name:
            bound = std * 3**0.5
            assert (
                -bound <= values.min() < -0.99 * bound and 0.99 * bound < values.max() <= bound
            ), name
    layer = kg.nn.Linear(fan_in, fan_out)
    bound = fan_in**-0.5
    for p in (layer.weight, layer.bias):
        assert -bound <= p.array.min() < -0.95 * bound and 0.95 * bound < p.array.max() <= bound


def test_trap_17_permutations_that_are_not_their_own_inverse():
    for axes in [(1, 2, 0), (2, 0, 1), (-1, 0, 1), (1, 0, 2)]:
        (y,), _ = same_as_torch(lambda L, x, a=axes: x.permute(a), numbers(2, 3, 4))
        same_as_torch(
            lambda L, x, a=axes: x.permute(a).exp() * x.permute(a), numbers(2, 3, 4), second=True
        )
    same_as_torch(lambda L, x: x.permute(3, 1, 0, 2), numbers(2, 3, 4, 5))
    same_as_torch(lambda L, x: x.movedim(0, 2), numbers(2, 3, 4))
    x = kg.tensor(numbers(2, 3, 4), requires_grad=True)
    up = numbers(4, 3, 2)
    np.transpose(x).backward(kg.tensor(up))
    np.testing.assert_array_equal(x.grad.array, up.T)


MATRICES = [(3,), (2, 3), (3, 3), (5, 2, 3), (1, 2, 3), (4, 1, 2, 3)]


@pytest.mark.parametrize("left", MATRICES, ids=str)
@pytest.mark.parametrize(
    "right", [(3,), (3, 2), (3, 3), (5, 3, 2), (1, 3, 4), (1, 5, 3, 2)], ids=str
)
def test_trap_18_matmul_of_all_ranks(left, right):
    same_as_torch(lambda L, a, b: a @ b, numbers(*left), numbers(*right), second=True)


def test_trap_19_float32_stays_float32():
    x = kg.randn(4, 3, requires_grad=True)
    assert x.dtype == kg.float32
    for y in (x * 2.5, 2.5 * x, x + 1, 1 - x, x / 3, 1 / x, x**2, x**0.5, 2.0**x, x * np.float32(2), x * True,
              x.mean(), x.std(), x.var(0), F.gelu(x), F.softmax(x, 1), F.layer_norm(x, (3,)), x.norm(),
              F.cross_entropy(x, kg.tensor([0, 1, 2, 0])), F.dropout(x, 0.5), kg.where(x > 0, x, 0.5),
              x.clamp(-0.5, 0.5), x.lerp(x, 0.3), kg.linspace(0, 1, 4)[:, None] * x):  # fmt: skip
        assert y.dtype == kg.float32
        (g,) = kg.autograd.grad(y.sum(), x, create_graph=True)
        assert g.dtype == kg.float32
    for name in (
        "SGD",
        "Adam",
        "AdamW",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "NAdam",
        "RAdam",
        "Adamax",
    ):
        p = kg.nn.Parameter(kg.randn(3))
        how = {"momentum": 0.9, "weight_decay": 0.1} if name == "SGD" else {}
        optimizer = getattr(kg.optim, name)([p], lr=0.1, **how)
        for _ in range(3):
            p.grad = kg.randn(3)
            optimizer.step()
        assert p.dtype == kg.float32, name
        for state in optimizer.state.values():
            assert all(v.dtype == kg.float32 for v in state.values() if isinstance(v, kg.Tensor)), (
                name
            )
    third = kg.tensor(1 / 3, dtype=kg.float64)
    assert third.item() == 1 / 3 and kg.tensor([1 / 3], dtype=kg.float64).tolist() == [1 / 3]
    assert (kg.ones((), dtype=kg.float64) * (1 / 3)).item() == 1 / 3
    assert kg.full((2,), 1 / 3, dtype=kg.float64).tolist() == [1 / 3] * 2
    assert (kg.zeros(2, dtype=kg.float64) + 0.1).tolist() == [0.1] * 2


def test_trap_20_parameters_without_gradients():
    a, b, c = (kg.nn.Parameter(kg.ones(2)) for _ in range(3))
    c.requires_grad_(False)
    for make in (lambda p: kg.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.1), kg.optim.Adam):
        optimizer = make([a, b, c])
        a.grad = kg.ones(2)
        b.grad = c.grad = None
        before = [p.array.copy() for p in (a, b, c)]
        optimizer.step()
        assert not np.array_equal(a.array, before[0])
        assert np.array_equal(b.array, before[1]) and np.array_equal(c.array, before[2])
        assert b not in optimizer.state or not optimizer.state[b]
    # frozen, then thawed: it does not move, then it does
    layer = kg.nn.Linear(3, 2)
    optimizer = kg.optim.SGD(layer.parameters(), lr=0.1)
    x = kg.randn(4, 3)
    for frozen in (True, False):
        layer.weight.requires_grad_(not frozen)
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        assert (layer.weight.grad is None) == frozen
        before = layer.weight.array.copy()
        optimizer.step()
        assert np.array_equal(layer.weight.array, before) == frozen
    # two optimisers over one parameter keep states of their own
    p = kg.nn.Parameter(kg.zeros(1))
    one, two = kg.optim.SGD([p], lr=1.0, momentum=0.5), kg.optim.SGD([p], lr=0.1)
    p.grad = kg.ones(1)
    one.step()
    two.step()
    one.step()
    assert p.item() == pytest.approx(-(1 + 0.1 + 1.5))


# --- 21-25 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("SGD", {"weight_decay": 0.05}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
        ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05}),
        ("Adam", {"weight_decay": 0.05}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {"weight_decay": 0.05}),
        ("RMSprop", {"momentum": 0.9, "weight_decay": 0.02}),
        ("RMSprop", {"centered": True}),
        ("Adagrad", {"weight_decay": 0.02, "lr_decay": 0.01}),
        ("Adadelta", {"weight_decay": 0.02}),
    ],
    ids=str,
)
def test_trap_21_a_hundred_optimizer_steps(name, how, maximize, set_to_none):
    torch = pytest.importorskip("torch")
    w, b, a = numbers(4, 3), numbers(3), numbers(6, 4)
    paths = []
    for lib in (torch, kg):
        params = [lib.nn.Parameter(lib.tensor(v.copy())) for v in (w, b)]
        optimizer = getattr(lib.optim, name)(params, lr=0.01, maximize=maximize, **how)
        x, path = lib.tensor(a), []
        for _ in range(100):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = (lib.tanh(x @ params[0] + params[1]) ** 2).mean() + 0.1 * lib.sin(
                params[1]
            ).sum()
            loss.backward()
            optimizer.step()
            path.append(np.concatenate([plain(p).ravel() for p in params]))
            if set_to_none:
                optimizer.zero_grad()
                assert all(p.grad is None for p in params)
        paths.append(np.array(path))
    np.testing.assert_allclose(paths[1], paths[0], rtol=1e-9, atol=1e-11)
    assert np.abs(paths[0][-1] - paths[0][0]).max() > 1e-3


def test_trap_22_a_training_saved_and_resumed(tmp_path):
    def setup():
        kg.manual_seed(3)
        model = kg.nn.Sequential(
            kg.nn.Linear(4, 6), kg.nn.BatchNorm1d(6), kg.nn.Tanh(), kg.nn.Linear(6, 2)
        )
        optimizer = kg.optim.Adam(model.parameters(), lr=0.05)
        return model, optimizer, kg.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

    data = [
        (kg.tensor(numbers(5, 4), dtype=kg.float32), kg.tensor([0, 1, 0, 1, 1])) for _ in range(8)
    ]

    def train(model, optimizer, scheduler, batches):
        for x, t in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), t).backward()
            optimizer.step()
            scheduler.step()

    straight = setup()
    train(*straight, data)
    halfway = setup()
    train(*halfway, data[:4])
    path = tmp_path / "run.checkpoint"
    for _ in range(2):  # the same path twice
        save_checkpoint(path, {"model": halfway[0].state_dict(), "optimizer": halfway[1].state_dict(),
                               "scheduler": halfway[2].state_dict(), "step": 4})  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["run.checkpoint"]
    saved = load_checkpoint(path)
    resumed = setup()
    for thing, key in zip(resumed, ("model", "optimizer", "scheduler"), strict=True):
        thing.load_state_dict(saved[key])
    assert saved["step"] == 4
    before = resumed[0][0].weight.array.copy()
    train(*resumed, data[4:])
    assert not np.array_equal(before, resumed[0][0].weight.array), (
        "the optimiser trains what was loaded"
    )
    for (name, a), (_, b) in zip(
        straight[0].state_dict().items(), resumed[0].state_dict().items(), strict=True
    ):
        np.testing.assert_array_equal(a.array, b.array, err_msg=name)
    steps = [s["step"] for s in resumed[1].state_dict()["state"].values()]
    assert [float(s) for s in steps] == [8.0] * len(steps)
    # no pickle inside, and damage is refused without touching the file
    whole = path.read_bytes()
    assert whole[8:9] == b"{" or whole[:2] == b"PK"  # safetensors, or NumPy's zip
    assert b"\x80\x04" not in whole[:200]
    for broken in (whole[: len(whole) // 2], b"not a checkpoint", whole[:-30] + b"\0" * 30):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
        assert path.read_bytes() == broken
    with pytest.raises(TypeError):
        save_checkpoint(path, {"model": object()})
    assert path.read_bytes() == broken, "a failed save leaves the old file"


class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return kg.tensor(i * i)


@pytest.mark.parametrize(
    "dataset", [TensorDataset(kg.arange(10)), Squares()], ids=["arrays", "samples"]
)
def test_trap_23_the_data_loader_loses_nothing(dataset):
    def seen(batches):
        return [outs(b)[0].tolist() for b in batches]

    everything = sorted(v for b in seen(DataLoader(dataset, batch_size=1)) for v in b)
    loader = DataLoader(dataset, batch_size=4)
    assert [len(b) for b in seen(loader)] == [4, 4, 2] and len(loader) == 3
    dropping = DataLoader(dataset, batch_size=4, drop_last=True)
    assert [len(b) for b in seen(dropping)] == [4, 4] and len(dropping) == 2
    shuffled = DataLoader(dataset, batch_size=4, shuffle=True)
    epochs = [[v for b in seen(shuffled) for v in b] for _ in range(3)]
    assert all(sorted(e) == everything for e in epochs), "every epoch has every sample once"
    assert len({tuple(e) for e in epochs}) == 3, "each epoch is shuffled anew"
    for _ in shuffled:
        break
    assert sorted(v for b in seen(shuffled) for v in b) == everything, "whole again after a break"
    parts = random_split(dataset, [0.65, 0.25, 0.1])
    assert [len(p) for p in parts] == [7, 2, 1]
    assert sorted(outs(v)[0].item() for p in parts for v in p) == everything


def test_trap_24_numpy_functions_differentiate_or_raise():
    a = numbers(3, 4)
    up = numbers(3, 4)
    for fn, slope in {
        np.exp: np.exp, np.sin: np.cos, np.tanh: lambda a: 1 - np.tanh(a) ** 2, np.square: lambda a: 2 * a,
        np.negative: lambda a: -np.ones_like(a), np.abs: np.sign,
        (lambda x: np.multiply(x, a)): lambda _: a, (lambda x: np.add(a, x)): np.ones_like,
        (lambda x: np.maximum(x, 0.1)): lambda a: (a > 0.1) * 1.0,
        (lambda x: np.clip(x, -0.5, 0.5)): lambda a: (np.abs(a) < 0.5) * 1.0,
        (lambda x: np.reshape(x, (4, 3)).reshape(3, 4)): np.ones_like,
        (lambda x: np.where(a > 0, x, 0.0)): lambda a: (a > 0) * 1.0,
    }.items():  # fmt: skip
        x = kg.tensor(a, requires_grad=True)
        y = fn(x)
        assert isinstance(y, kg.Tensor) and y.requires_grad, fn
        y.backward(kg.tensor(up))
        np.testing.assert_allclose(x.grad.array, up * slope(a), err_msg=str(fn))
    x = kg.tensor(a, requires_grad=True)
    for fn in (np.sum, np.mean, lambda x: np.sum(x, axis=0), lambda x: np.matmul(x, a.T), lambda x: np.dot(x[0], a[0]),
               lambda x: np.concatenate([x, x]), lambda x: np.stack([x, x]), lambda x: np.transpose(x),
               lambda x: a.T @ x, lambda x: a - x):  # fmt: skip
        y = fn(x)
        assert isinstance(y, kg.Tensor) and y.requires_grad, fn
    for fn in (np.asarray, np.array, np.unwrap, np.add.reduce, np.spacing, np.linalg.inv, np.median, np.interp,
               lambda x: np.asarray(x.numpy()), lambda x: np.add(x, x, out=np.empty((3, 4))),
               lambda x: np.fft.fft(x), lambda x: np.apply_along_axis(np.sum, 0, x)):  # fmt: skip
        try:
            y = fn(x) if fn is not np.interp else np.interp(x, [0, 1], [0, 1])
        except (TypeError, RuntimeError):
            continue
        assert isinstance(y, kg.Tensor) and y.requires_grad, f"{fn} dropped the graph"


def test_trap_25_indexing_keeps_the_graph():
    mask = rng.random((4, 5)) > 0.5
    indices = {
        "integer": 1, "negative": -1, "slice": slice(1, 3), "step": slice(None, None, 2), "tuple": (1, slice(2)),
        "ellipsis": (..., 2), "new axis": (slice(None), None, 1), "list": [2, 0], "mask": mask,
        "array": np.array([3, 1, 1]), "pair": (np.array([0, 3]), np.array([1, 1])),
    }  # fmt: skip
    for name, index in indices.items():
        x = kg.tensor(numbers(4, 5), requires_grad=True)
        y = x[index]
        assert y.requires_grad and y.grad_fn is not None, name
        up = numbers(*y.shape)
        y.backward(kg.tensor(up))
        expected = np.zeros((4, 5))
        np.add.at(expected, index, up)
        np.testing.assert_allclose(x.grad.array, expected, err_msg=name)
    same_as_torch(lambda L, x: (x[1:, ::2] * x[:-1, 1::2]).exp()[0], numbers(4, 4), second=True)


# --- 26-30 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (2, 2, 5, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_trap_26_linear_of_any_rank(shape, bias):
    args = [numbers(*shape), numbers(6, 3), *([numbers(6)] if bias else [])]
    (y,), _ = same_as_torch(lambda L, *a: L.nn.functional.linear(*a), *args, second=True)
    assert y.shape == (*shape[:-1], 6)
    layer = kg.nn.Linear(3, 6, bias=bias)
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"][: 1 + bias]
    assert (layer.bias is None) == (not bias)
    assert layer(kg.randn(*shape)).shape == (*shape[:-1], 6)


def test_trap_27_a_graph_used_again():
    model = kg.nn.Sequential(kg.nn.Linear(3, 4), kg.nn.Tanh(), kg.nn.Linear(4, 1)).double()
    rows = numbers(7, 3)
    alone = [model(kg.tensor(r[None])).array for r in rows]
    for n in (7, 1, 4):  # another batch size
        np.testing.assert_allclose(model(kg.tensor(rows[:n])).array, np.concatenate(alone[:n]))
    x = kg.tensor(numbers(3), requires_grad=True)
    for c in (2.0, -3.0, 0.5):  # Python constants are not remembered from the first call
        x.grad = None
        up = numbers(3)
        (x * c + c**2).backward(kg.tensor(up))
        np.testing.assert_allclose(x.grad.array, c * up)
    y = (x * x).exp()
    for k in (1, 2, 3):  # a kept graph, with another upstream every time
        x.grad = None
        up = numbers(3) * k
        y.backward(kg.tensor(up), retain_graph=True)
        np.testing.assert_allclose(x.grad.array, up * 2 * x.array * np.exp(x.array**2))


def test_trap_28_python_protocols():
    x = kg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert bool(kg.tensor([[2.0]])) and not bool(kg.tensor(0)) and not kg.tensor(False)
    for ambiguous in (x, kg.tensor([])):
        with pytest.raises(RuntimeError, match="ambiguous"):
            bool(ambiguous)
    same = x == kg.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert isinstance(same, kg.Tensor) and same.tolist() == [[True, False], [True, False]]
    assert same.dtype == kg.bool and not same.requires_grad
    assert (x != 1.0).tolist() == [[False, True], [True, True]] and (x == None) is False  # noqa: E711
    twin = x.clone()
    assert hash(x) == hash(x) and len({x, x, twin}) == 2 and {x: "a"}[x] == "a"
    rows = [list(row) for row in x]
    assert [[v.item() for v in row] for row in rows] == [[1, 2], [3, 4]]
    assert all(v.requires_grad and v.shape == () for row in rows for v in row)
    rows[1][0].backward(kg.tensor(2.5))
    assert x.grad.tolist() == [[0, 0], [2.5, 0]]
    a, b = x
    assert a.tolist() == [1, 2] and b.tolist() == [3, 4] and len(x) == 2
    for value, kind in (
        (kg.tensor(1.5), float),
        (kg.tensor([[3]]), int),
        (kg.tensor(True), bool),
        (x[0, 0], float),
    ):
        assert type(value.item()) is kind
    assert type(float(x[0, 1])) is float and type(x.tolist()[0][0]) is float
    with pytest.raises(RuntimeError):
        x.item()
    with pytest.raises(TypeError):
        iter(kg.tensor(1.0))


def test_trap_29_constants_reshaped_before_they_meet_a_parameter():
    c, d = numbers(12), numbers(2, 3)
    (y,), (g,) = same_as_torch(
        lambda L, w: L.tensor(c).reshape(3, 4)[1:, ::2].T.contiguous() * w + L.tensor(d)[:, [0, 2]],
        numbers(2, 2),
    )
    constant = kg.tensor(c)
    view = constant.reshape(3, 4).transpose(0, 1)[1]
    assert not view.requires_grad and view.grad_fn is None and view.is_leaf
    w = kg.nn.Parameter(kg.ones(3, dtype=kg.float64))
    up = numbers(3)
    (view * w).backward(kg.tensor(up))
    np.testing.assert_allclose(w.grad.array, up * c.reshape(3, 4).T[1])
    assert constant.grad is None and view.grad is None


def test_trap_30_state_with_awkward_names(tmp_path):
    class Odd(kg.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("time", "date", "e", "format", "dict", "tensor", "keys", "items", "file"):
                self.register_parameter(name, kg.nn.Parameter(kg.randn(2)))
            self.register_buffer("metadata", kg.arange(3))
            self.register_buffer("step", kg.tensor(7))

    model = Odd()
    state = {
        "model": model.state_dict(), "time": 1.5, "date": "2020-01-01", "e": 2.718281828459045, "float": 1e-320,
        "inf": float("inf"), 3: "an int key", "dict": {"list": [1, (2, None)], "": True}, "tensor": kg.zeros(0, 2),
        "array": np.arange(3, dtype=np.int8), "snö/../x": "path", "half": kg.ones(2, dtype=kg.float16),
    }  # fmt: skip
    path = tmp_path / "time"
    save_checkpoint(path, state)
    back = load_checkpoint(path)
    assert list(back) == list(state)
    for key in set(state) - {"model", "tensor", "array", "half"}:
        assert back[key] == state[key] and type(back[key]) is type(state[key]), key
    assert (
        back["tensor"].shape == (0, 2)
        and back["array"].dtype == np.int8
        and back["half"].dtype == kg.float16
    )
    other = Odd()
    other.load_state_dict(back["model"])
    assert list(back["model"]) == list(model.state_dict())
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a.array, b.array), name
    assert other.time is not model.time and isinstance(other.e, kg.nn.Parameter)
    clone = copy.deepcopy(model)
    clone.time.data.add_(1)
    assert not np.array_equal(clone.time.array, model.time.array)

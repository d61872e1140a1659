"""Thirty inputs on which at least one ancestor is wrong, in brief; at length: ``tests/test_traps.py``."""

from __future__ import annotations

import copy
import gc
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.utils.data import DataLoader, TensorDataset, random_split
from tests.mission.rows import close, numbers, row, slopes

F = nn.functional


def grad_of(fn, a, up=None):
    """The gradient of ``fn`` at ``a``, with an upstream of random numbers or the one given."""
    x = kg.tensor(a, requires_grad=True)
    y = fn(x)
    y.backward(kg.tensor(numbers(*y.shape) if up is None else up))
    return x.grad.numpy()


@row("Traps", "random upstream gradients", ancestors="synapgrad, macrograd, simple_autograd")
def test_random_upstream_gradients():
    """Derivative rules use every number of the upstream gradient, which a `sum()` alone would not show."""
    a, up = numbers(3, 4), numbers(3, 4)
    close(grad_of(kg.relu, a, up), up * (a > 0))
    s = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    close(grad_of(lambda x: x.softmax(1), a, up), s * (up - (up * s).sum(1, keepdims=True)))
    slopes(F.conv2d, numbers(1, 3, 4, 5), numbers(2, 3, 2, 3))


@row("Traps", "the same tensor as both operands", ancestors="neograd")
def test_the_same_tensor_as_both_operands():
    """`x - x`, `x / x`, `x ** x`, `x @ x` get the gradients of both operands."""
    a = np.abs(numbers(3, 3)) + 0.2
    close(grad_of(lambda x: x - x, a), 0 * a)
    close(grad_of(lambda x: x / x, a), 0 * a)
    for fn in (
        lambda x: x**x,
        lambda x: x @ x,
        lambda x: kg.maximum(x, x),
        lambda x: kg.cat([x, x]),
    ):
        slopes(fn, a)


@row("Traps", "a repeated index accumulates", ancestors="synapgrad")
def test_a_repeated_index_accumulates():
    """`x[[0, 0, 1]]` adds the gradients of an element that is taken twice."""
    close(grad_of(lambda x: x[[0, 0, 1]], numbers(3), np.array([1.0, 10, 100])), [11, 100, 0])


@row("Traps", "reductions over every axis", ancestors="synapgrad, pygrad")
def test_reductions_over_every_axis():
    """sum, mean and max over each axis, tuples, negative ones, with and without keepdims, of square inputs."""
    a = numbers(3, 3, 3)
    for name, how in (("sum", np.sum), ("mean", np.mean), ("amax", np.max)):
        for dim in (0, 1, -1, (0, 2), (-2, 0), (0, 1, 2)):
            for keep in (False, True):
                got = slopes(lambda x, n=name, d=dim, k=keep: getattr(x, n)(dim=d, keepdim=k), a)
                close(got, how(a, axis=dim, keepdims=keep))


@row("Traps", "softmax over every dim", ancestors="synapgrad")
def test_softmax_over_every_dim():
    """softmax and log_softmax over every dimension of inputs with one to four."""
    for shape in ((4,), (3, 3), (2, 3, 2), (2, 1, 3, 2)):
        a = numbers(*shape)
        for dim in range(-len(shape), len(shape)):
            expected = np.exp(a) / np.exp(a).sum(dim, keepdims=True)
            close(slopes(lambda x, d=dim: kg.softmax(x, d), a), expected)
            close(slopes(lambda x, d=dim: kg.log_softmax(x, d), a), np.log(expected))


@row("Traps", "statistics of normalisation", ancestors="synapgrad, simple_autograd")
def test_statistics_of_normalisation():
    """Batch norm: biased variance now, unbiased in the running one, which evaluation uses and leaves alone."""
    layer, a = nn.BatchNorm1d(3, momentum=1.0).double(), numbers(5, 3)
    close(layer(kg.tensor(a)), (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5))
    close(layer.running_var, a.var(0, ddof=1))
    layer.eval()
    up = numbers(5, 3)
    close(grad_of(layer, a * 7, up), up / np.sqrt(a.var(0, ddof=1) + 1e-5))  # constants there
    close(layer.running_mean, a.mean(0))


@row("Traps", "eval reaches all descendants", ancestors="simple_autograd")
def test_eval_reaches_all_descendants():
    """`model.eval()` reaches modules in modules in lists in modules."""
    inner = nn.Dropout(0.5)
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Sequential(inner)])))
    model.eval()
    assert not inner.training and kg.equal(inner(kg.ones(50)), kg.ones(50))
    model.train()
    assert inner.training


@row("Traps", "dropout keeps 1 - p", ancestors="neograd, pygrad")
def test_dropout_keeps_one_minus_p():
    """Dropout keeps the fraction 1 - p and the mean, does nothing in evaluation, and p is no parameter."""
    for p in (0.1, 0.8):
        layer, x = nn.Dropout(p), kg.ones(100_000)
        y = layer(x).array
        assert abs((y != 0).mean() - (1 - p)) < 0.01 and abs(y.mean() - 1) < 0.03
        assert kg.equal(layer.eval()(x), x) and layer.state_dict() == {}


@row("Traps", "losses against their formulas", ancestors="synapgrad, neograd, pygrad")
def test_losses_against_their_formulas():
    """BCE, cross entropy and MSE have the formulas' values, and gradients for input and target."""
    p, t = 1 / (1 + np.exp(-numbers(2, 4, 3)))
    each = {
        "mse_loss": (p - t) ** 2,
        "binary_cross_entropy": -t * np.log(p) - (1 - t) * np.log(1 - p),
    }
    for name, values in each.items():
        for reduction, expected in (
            ("none", values),
            ("sum", values.sum()),
            ("mean", values.mean()),
        ):
            got = slopes(lambda x, y, n=name, r=reduction: getattr(F, n)(x, y, reduction=r), p, t)
            close(got, expected)
    x, soft = numbers(4, 3), t / t.sum(1, keepdims=True)
    logp = x - np.log(np.exp(x).sum(1, keepdims=True))
    close(slopes(F.cross_entropy, x, soft), -(soft * logp).sum(1).mean())


@row("Traps", "huge logits", ancestors="synapgrad, neograd, macrograd, simple_autograd")
def test_huge_logits():
    """Cross entropy, sigmoid and log-softmax of logits of ±1000: right, finite, without a warning."""
    x = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]])
    y = kg.tensor([0, 0])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        assert F.cross_entropy(kg.tensor(x), y, reduction="none").tolist() == [0, 2000]
        close(grad_of(lambda x: F.cross_entropy(x, y), x, np.float64(1.0)), [[0, 0], [-0.5, 0.5]])
        close(kg.sigmoid(kg.tensor(x)), x > 0)
        close(F.logsigmoid(kg.tensor(x)), np.minimum(x, 0))
        assert F.binary_cross_entropy_with_logits(kg.tensor(x), kg.zeros(2, 2)).item() == 500


@row("Traps", "convolutions by their definition", ancestors="synapgrad, neograd, simple_autograd")
def test_convolutions_by_their_definition():
    """Convolution of non-square images with stride, padding, dilation and groups is the loop that defines it."""
    x, w = numbers(2, 4, 6, 5), numbers(6, 2, 3, 2)
    y = slopes(
        lambda *t: F.conv2d(*t, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), x, w
    )
    z = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    for n, o, i, j in np.ndindex(*y.shape):
        group = slice(0, 2) if o < 3 else slice(2, 4)
        window = z[n, group, 2 * i : 2 * i + 3, j : j + 3 : 2]
        assert abs((window * w[o]).sum() - y[n, o, i, j]) < 1e-9
    assert F.conv2d(kg.tensor(x), kg.ones(1, 4, 4, 2).double(), padding="same").shape == (
        2,
        1,
        6,
        5,
    )


@row("Traps", "max pooling", ancestors="neograd")
def test_max_pooling():
    """Max pooling with overlapping windows, a border that none covers, and padding around negative numbers."""
    a = numbers(1, 2, 5, 5)
    y = slopes(lambda x: F.max_pool2d(x, 2, stride=2), a)
    close(y, a[:, :, :4, :4].reshape(1, 2, 2, 2, 2, 2).max((3, 5)))
    assert not grad_of(lambda x: F.max_pool2d(x, 2), a)[:, :, 4].any()
    slopes(lambda x: F.max_pool2d(x, 3, stride=1), a)
    negative = -np.abs(a) - 1
    got = slopes(lambda x: F.max_pool2d(x, 3, stride=2, padding=1), negative)
    assert got.max() < 0 and np.isin(got, negative).all()


@row("Traps", "several backward passes", ancestors="neograd, macrograd, simple_autograd")
def test_several_backward_passes():
    """Two losses over one graph, and one loss twice: gradients add up linearly."""
    a = numbers(3)
    x = kg.tensor(a, requires_grad=True)
    y = x.exp()
    first, second = (y * 2).sum(), (y * y).sum()
    first.backward(retain_graph=True)
    second.backward(retain_graph=True)
    close(x.grad, 2 * np.exp(a) + 2 * np.exp(2 * a))
    for n in (2, 3):
        first.backward(retain_graph=n < 3)
        close(x.grad, n * 2 * np.exp(a) + 2 * np.exp(2 * a))


@row("Traps", "long chains and doublings", ancestors="synapgrad, neograd, simple_autograd")
def test_long_chains_and_doublings():
    """50,000 operations in a row need no recursion, and 40 doublings of `y + y` no exponential time."""
    assert grad_of(lambda x: sum_of(x, 50_000), np.float64(1.0), np.float64(2.0)) == 2

    def doubled(x):
        for _ in range(40):
            x = x + x
        return x

    assert grad_of(doubled, np.float64(1.0), np.float64(1.0)) == 2.0**40


def sum_of(x, n):
    for _ in range(n):
        x = x + 1
    return x


@row("Traps", "graphs are freed", ancestors="synapgrad, neograd, macrograd")
def test_graphs_are_freed():
    """`del loss` frees the graph by counting references alone, and a thousand steps keep no memory."""
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), kg.randn(4, 8)
    optimizer = kg.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    gc.disable()
    try:
        loss = model(x).square().mean()
        node = weakref.ref(loss.grad_fn)
        del loss
        assert node() is None
        for k in range(1100):
            if k == 100:
                tracemalloc.start()
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            if k == 150:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
        gc.enable()


@row("Traps", "statistics of initial values", ancestors="synapgrad, simple_autograd")
def test_statistics_of_initial_values():
    """Initial values have the standard deviations of the papers, and uniform ones lie around zero."""
    w = kg.empty(300, 200)
    for fill, std in (
        (nn.init.xavier_normal_, (2 / 500) ** 0.5),
        (nn.init.kaiming_normal_, (2 / 200) ** 0.5),
    ):
        assert abs(fill(w).std().item() / std - 1) < 0.02
    for layer in (nn.Linear(200, 300), nn.Conv2d(8, 300, 5)):
        a = layer.weight.detach().numpy() * layer.weight[0].numel() ** 0.5
        assert -1 <= a.min() < -0.99 and 0.99 < a.max() <= 1 and abs(a.mean()) < 0.01


@row("Traps", "permutations that are not their own inverse", ancestors="macrograd")
def test_permutations_that_are_not_their_own_inverse():
    """The gradient of `x.permute(2, 0, 1)` goes back by (1, 2, 0)."""
    up = numbers(4, 2, 3)
    close(grad_of(lambda x: x.permute(2, 0, 1), numbers(2, 3, 4), up), up.transpose(1, 2, 0))


@row("Traps", "matmul of all ranks", ancestors="all")
def test_matmul_of_all_ranks():
    """Vectors, matrices and batches of them, in all combinations and with broadcasting."""
    left = ((3,), (2, 3), (4, 2, 3), (5, 1, 2, 3))
    right = ((3,), (3, 2), (4, 3, 2), (5, 4, 3, 2))
    for first in left:
        for second in right:
            a, b = numbers(*first), numbers(*second)
            close(slopes(lambda x, y: x @ y, a, b), a @ b)


@row("Traps", "dtypes are kept", ancestors="all")
def test_dtypes_are_kept():
    """float32 stays float32 through numbers, constants and optimizers; float64 never passes through float32."""
    x = kg.ones(3, requires_grad=True)
    y = (2.0 * x + 1) ** 2 / 3 - np.float64(0.5) + kg.tensor(0.1, dtype=kg.float64)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == kg.float32
    kg.optim.Adam([x], lr=0.1, weight_decay=0.1).step()
    assert x.dtype == kg.float32
    assert (
        kg.tensor(0.1, dtype=kg.float64).item() == 0.1 and (kg.ones(1).double() * 0.1).item() == 0.1
    )


@row("Traps", "parameters without gradient", ancestors="synapgrad, neograd")
def test_parameters_without_gradient():
    """A parameter without gradient is skipped; one can be frozen and unfrozen, and have two optimizers."""
    a, b = (nn.Parameter(kg.ones(1)) for _ in range(2))
    one, other = kg.optim.Adam([a, b], lr=0.1), kg.optim.SGD([a], lr=1.0)
    b.requires_grad_(False)
    (a * b).backward()
    one.step()
    assert b.item() == 1 and a.item() == pytest.approx(0.9)
    other.step()
    assert a.item() == pytest.approx(-0.1)
    b.requires_grad_(True)
    (a * b).backward()
    one.step()
    assert b.item() == pytest.approx(1.1)


@row("Traps", "combinations of an optimizer's options", ancestors="synapgrad, simple_autograd")
def test_combinations_of_optimizer_options():
    """maximize, weight decay, momentum, nesterov, dampening: PyTorch's numbers over 100 steps."""
    torch = pytest.importorskip("torch")
    for m, d, n in ((0.0, 0.0, False), (0.9, 0.4, False), (0.9, 0.0, True)):
        for up in (False, True):
            for set_to_none in (False, True):
                found = []
                for lib in (torch, kg):
                    w = lib.tensor([1.0, -2.0, 0.5], dtype=lib.float64, requires_grad=True)
                    settings = {"momentum": m, "dampening": d, "nesterov": n, "weight_decay": 0.3}
                    optimizer = lib.optim.SGD([w], lr=0.01, maximize=up, **settings)
                    for k in range(100):
                        optimizer.zero_grad(set_to_none=set_to_none)
                        ((w * (1 + k % 3)).sin() * w).sum().backward()
                        optimizer.step()
                    found.append(w.detach().numpy())
                np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


@row("Traps", "save and load, then go on", ancestors="neograd, pygrad, simple_autograd")
def test_save_and_load_then_go_on(tmp_path):
    """A loaded run trains the loaded parameters, with the optimizer's step counts, from a file without code."""

    def run():
        model = nn.Linear(3, 1)
        return model, kg.optim.Adam(model.parameters(), lr=0.1)

    def learn(model, optimizer):
        for k in range(5):
            optimizer.zero_grad()
            model(kg.tensor([1.0, k, -k])).square().backward()
            optimizer.step()

    model, optimizer = run()
    learn(model, optimizer)
    kg.train.Checkpoint(model=model, optimizer=optimizer).save(tmp_path / "run", epoch=1)
    twin, its_optimizer = run()
    loaded = kg.train.Checkpoint(model=twin, optimizer=its_optimizer).load(tmp_path / "run")
    assert loaded == {"epoch": 1} and [p.name for p in tmp_path.iterdir()] == ["run"]
    for m, o in ((model, optimizer), (twin, its_optimizer)):
        learn(m, o)
    assert kg.equal(model.weight, twin.weight)
    assert b"kilograd.nn" not in (tmp_path / "run").read_bytes()  # no pickle


@row("Traps", "loaders and splits lose nothing", ancestors="synapgrad, pygrad")
def test_loaders_and_splits_lose_nothing():
    """The last batch is kept, every epoch is shuffled anew, also after a `break`; splits lose no sample."""
    loader = DataLoader(TensorDataset(kg.arange(10)), batch_size=4, shuffle=True)
    orders = []
    for _ in range(3):
        for _ in loader:
            break
        orders.append([v for (batch,) in loader for v in batch.tolist()])
        assert sorted(orders[-1]) == list(range(10))
    assert len(set(map(tuple, orders))) == 3
    assert sum(len(p) for p in random_split(range(10), [0.35, 0.35, 0.3])) == 10


@row("Traps", "NumPy functions on tensors", ancestors="simple_autograd")
def test_numpy_functions_on_tensors():
    """`np.f(x)` of a tensor that requires grad is recorded, or raises; it never leaves the graph in silence."""
    a, up = numbers(3, 4), numbers(3, 4)
    close(grad_of(np.tanh, a, up), up * (1 - np.tanh(a) ** 2))
    close(grad_of(lambda x: np.where(a > 0, x, 0.0), a, up), up * (a > 0))
    x = kg.tensor(a, requires_grad=True)
    for fn in (np.sum, np.concatenate, np.transpose, np.asarray, np.median, np.fft.fft, np.spacing):
        try:
            y = fn([x, x]) if fn is np.concatenate else fn(x)
        except (TypeError, RuntimeError):
            continue
        assert isinstance(y, kg.Tensor) and y.requires_grad, fn


@row("Traps", "indexing keeps the graph", ancestors="neograd")
def test_indexing_keeps_the_graph():
    """Whatever the index, the gradient comes back to where the elements were."""
    a = numbers(4, 5)
    for index in (
        1,
        slice(None, None, 2),
        (..., 2),
        (slice(1, 3), -1),
        a > 0,
        [3, 1, 1],
        (slice(None), None),
    ):
        up = numbers(*a[index].shape)
        expected = np.zeros((4, 5))
        np.add.at(expected, index, up)
        close(grad_of(lambda x, i=index: x[i], a, up), expected)


@row("Traps", "Linear of any rank", ancestors="synapgrad, pygrad")
def test_linear_of_any_rank():
    """`nn.Linear` of (N, T, D), of a vector and of an empty batch, with and without bias."""
    for bias in (True, False):
        layer = nn.Linear(3, 2, bias=bias).double()
        w = layer.weight.detach().numpy()
        b = layer.bias.detach().numpy() if bias else 0
        for shape in ((3,), (2, 5, 3), (0, 3)):
            a = numbers(*shape)
            close(slopes(layer, a), a @ w.T + b)


@row("Traps", "a graph used again", ancestors="macrograd")
def test_a_graph_used_again():
    """A recorded graph takes another batch size, remembers no constant wrongly, and differentiates repeatedly."""
    w, x = kg.tensor([1.0, 2.0], requires_grad=True), kg.ones(4, 2)
    with kg.Graph():
        loss = ((x * w + 3) ** 2).mean()
    for n in (4, 1, 7):
        a = numbers(n, 2).astype(np.float32)
        x.data = kg.tensor(a)
        w.grad = None
        loss.backward()
        inner = a * w.detach().numpy() + 3
        close(loss, (inner**2).mean(), 1e-5)
        close(w.grad, (2 * inner * a).sum(0) / a.size, 1e-4)


@row("Traps", "Python's protocols", ancestors="synapgrad, pygrad")
def test_pythons_protocols():
    """`bool`, `==`, `hash`, nested iteration and `item()` do what Python expects of them."""
    x = kg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x)
    assert kg.tensor(2) and not kg.tensor([0.0])
    assert (x == 1).tolist() == [[True, False], [False, False]] and {x: 1}[x] == 1
    values = [v for r in x for v in r]
    values[2].backward()
    assert x.grad.tolist() == [[0, 0], [1, 0]]
    assert type(values[0].item()) is float and type(kg.tensor(3).item()) is int


@row("Traps", "constants that are reshaped first", ancestors="simple_autograd")
def test_constants_that_are_reshaped_first():
    """A constant may be reshaped and indexed before it meets a parameter; it stays a constant."""
    c = numbers(12)
    constant = kg.tensor(c)
    view = constant.reshape(3, 4)[1:, ::2].T
    up = numbers(2, 2)
    close(grad_of(lambda w: view * w, numbers(2, 2), up), up * c.reshape(3, 4)[1:, ::2].T)
    assert view.grad_fn is None and not view.requires_grad and constant.grad is None


@row("Traps", "checkpoint keys named time, date, e", ancestors="neograd")
def test_checkpoint_keys_of_any_name(tmp_path):
    """Values of a checkpoint may have any names, its own words too; parameters as well."""
    model = nn.Module()
    for name in ("time", "date", "e", "format", "values"):
        model.register_parameter(name, nn.Parameter(kg.randn(2)))
    values = {
        "time": 1.5,
        "date": "2020-01-01",
        "e": 2.718281828459045,
        "values": [1],
        "about": None,
    }
    saved = kg.train.Checkpoint(model=model)
    saved.save(tmp_path / "run", values)
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin.time)
    assert kg.train.Checkpoint(model=twin).load(tmp_path / "run") == values
    assert kg.equal(twin.time, model.time) and kg.equal(twin.e, model.e)

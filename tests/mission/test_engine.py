"""The engine: graphs, backward passes, modes; operations and layers of one's own."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest

import kilograd as kg
from tests.mission.rows import close, numbers, row, slopes


@row("Autograd engine", "reverse mode, dynamic graph", ancestors="all")
def test_reverse_mode_dynamic_graph():
    """`loss.backward()`: reverse mode over a graph that is recorded as the code runs, with its ifs and loops."""
    a = numbers(3)
    for n in (1, 4):
        x = kg.tensor(a, requires_grad=True)
        y = x
        for k in range(n):
            y = y * x if k % 2 == 0 else y + x
        close(y, {1: a**2, 4: ((a**2 + a) * a) + a}[n])
        y.sum().backward()
        close(x.grad, {1: 2 * a, 4: 3 * a**2 + 2 * a + 1}[n])


@row("Autograd engine", "lazy graph, realize()", ancestors="macrograd")
def test_lazy_graph_and_realize():
    """`with kg.lazy() as g:` writes operations down; `g.realize()`, `y.realize()` or reading computes them."""
    x = kg.tensor([1.0, 2.0])
    with kg.lazy() as g:
        y = (x * 3).sum()
    assert len(g) == 2 and y.shape == ()
    x.copy_(kg.tensor([10.0, 20.0]))  # nothing has been computed yet
    assert y.realize() is y and y.item() == 90
    x.fill_(1.0)
    g.realize()
    assert y.item() == 6


@row(
    "Autograd engine", "explicit Graph objects, default graph, get/set_default_graph",
    ancestors="neograd, macrograd",
)  # fmt: skip
def test_graph_objects_and_the_default_graph():
    """`kg.Graph()`, `kg.set_default_graph(g)` and `kg.get_default_graph()`; a graph lists its operations."""
    g, h = kg.Graph(), kg.Graph()
    kg.set_default_graph(g)
    try:
        y = kg.tensor([1.0, 2.0]).exp()
        assert kg.get_default_graph() is g and [s.name for s in g] == ["exp"]
    finally:
        kg.set_default_graph(None)
    assert kg.get_default_graph() is None and len(h) == 0
    z = kg.Tensor([3.0], graph=h) * 2  # a tensor of a graph stays lazy outside of blocks
    assert len(h) == 1 and z.tolist() == [6]
    close(y, np.exp(np.float32([1, 2])), 1e-6)


@row("Autograd engine", "freeze graph / clear", ancestors="neograd, macrograd")
def test_freeze_and_clear_a_graph():
    """`g.freeze()` refuses further operations and still computes; `g.clear()` makes it empty again."""
    g = kg.Graph()
    x = g.tensor([1.0, 2.0])
    y = x * x
    g.freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        x + 1
    x.data = kg.tensor([3.0, 4.0])
    assert g.frozen and y.tolist() == [9, 16]
    g.clear()
    assert len(g) == 0 and not g.frozen


@row(
    "Autograd engine", "record-once decorator, refilled data buffers (compute_graph)",
    ancestors="macrograd",
)  # fmt: skip
def test_record_once_decorator():
    """`@kg.compile` records a function once, backward and optimizer included, and runs it on new data."""
    w = kg.tensor([1.0, -2.0], requires_grad=True)
    optimizer = kg.optim.SGD([w], lr=0.1)

    @kg.compile
    def train(x):
        optimizer.zero_grad()
        loss = (x * w * w).sum()
        loss.backward()
        optimizer.step()
        return loss

    expected = np.float32([1, -2])
    for _ in range(6):
        x = numbers(2).astype(np.float32)
        close(train(kg.tensor(x)), (x * expected**2).sum(), 1e-5)
        expected = expected - 0.1 * 2 * x * expected
    close(w, expected, 1e-5)
    assert "programs: 1," in train.explain()


@row("Autograd engine", "build-time shape+dtype inference", ancestors="macrograd")
def test_build_time_shape_and_dtype_inference():
    """A lazy graph knows shapes and dtypes, and refuses wrong ones, before anything is computed."""
    with kg.Graph():
        big = kg.ones(50_000, 1).expand(50_000, 50_000)  # 10 GB, were it computed
        product = big @ big.sum(1)
        assert product.shape == (50_000,) and product.dtype == kg.float32
        assert (product > 0).dtype == kg.bool and product.double().dtype == kg.float64
        with pytest.raises(RuntimeError, match="2x3 and 2x3"):
            kg.ones(2, 3) @ kg.ones(2, 3)


@row("Autograd engine", "backward with upstream gradient", ancestors="synapgrad, neograd, pygrad")
def test_backward_with_upstream_gradient():
    """`y.backward(gradient)` takes a tensor of `y`'s shape; another shape is refused."""
    a, up = numbers(2, 3), numbers(2, 3)
    x = kg.tensor(a, requires_grad=True)
    x.exp().backward(kg.tensor(up))
    close(x.grad, up * np.exp(a))
    with pytest.raises(RuntimeError, match="[Ss]hape"):
        x.exp().backward(kg.ones(3))
    with pytest.raises(RuntimeError, match="scalar"):
        x.exp().backward()


@row("Autograd engine", "backward from intermediate", ancestors="all")
def test_backward_from_intermediate():
    """`backward()` may start at any tensor of the graph, and goes to its leaves alone."""
    a, b, up = numbers(3), numbers(3), numbers(3)
    x, w = kg.tensor(a, requires_grad=True), kg.tensor(b, requires_grad=True)
    y = x * x
    (y * w).sum()
    y.backward(kg.tensor(up))
    close(x.grad, 2 * a * up)
    assert w.grad is None


@row(
    "Autograd engine",
    "retain_graph",
    ancestors="synapgrad, neograd, macrograd, pygrad, simple_autograd",
)
def test_retain_graph():
    """`backward(retain_graph=True)` keeps the graph for another pass; without it a second pass is an error."""
    a = numbers(3)
    x = kg.tensor(a, requires_grad=True)
    y = x.exp()
    for n in (1, 2, 3):
        up = numbers(3)
        x.grad = None
        y.backward(kg.tensor(up), retain_graph=n < 3)
        close(x.grad, up * np.exp(a))
    with pytest.raises(RuntimeError, match="second time"):
        y.backward(kg.ones(3))


@row("Autograd engine", "auto-removal of used graph nodes", ancestors="neograd, pygrad")
def test_auto_removal_of_used_graph_nodes():
    """A graph belongs to its result: `backward()` lets go what it kept, `del y` frees the rest at once."""
    x = kg.tensor(numbers(3), requires_grad=True)
    gc.disable()
    try:
        middle = x.sin()
        y = (middle * middle).sum()
        kept, node = weakref.ref(middle.array), weakref.ref(y.grad_fn)
        del middle
        assert kept() is not None  # the product needs it
        y.backward()
        assert kept() is None and node() is not None
        del y
        assert node() is None
    finally:
        gc.enable()


@row(
    "Autograd engine", "retain_grad() per tensor", ancestors="synapgrad, macrograd, simple_autograd"
)
def test_retain_grad_of_one_tensor():
    """`y.retain_grad()` keeps the gradient of one tensor in between."""
    x = kg.tensor(numbers(3), requires_grad=True)
    y = x * 2
    z = y.exp()
    y.retain_grad()
    up = numbers(3)
    z.backward(kg.tensor(up))
    assert y.retains_grad and not z.retains_grad
    close(y.grad, up * np.exp(2 * x.array))


@row(
    "Autograd engine", "retain all: context / flag", ancestors="synapgrad, pygrad, simple_autograd"
)
def test_retain_all_gradients():
    """`with kg.retain_grads():` keeps the gradient of every tensor that is computed inside."""
    a, up = numbers(3), numbers(3)
    x = kg.tensor(a, requires_grad=True)
    with kg.retain_grads():
        y = x * 2
        z = y.exp()
    w = z * 3
    w.backward(kg.tensor(up))
    close(z.grad, 3 * up)
    close(y.grad, 3 * up * np.exp(2 * a))
    assert not w.retains_grad


@row(
    "Autograd engine",
    "intermediate grads freed",
    ancestors="synapgrad, neograd, pygrad, simple_autograd",
)
def test_intermediate_gradients_are_freed():
    """Gradients in between are freed during the backward pass; leaves keep theirs."""
    x = kg.tensor(numbers(3), requires_grad=True)
    y, seen = x.sin(), []
    y.register_hook(lambda g: seen.append(weakref.ref(g.array)))
    y.exp().sum().backward()
    assert seen[0]() is None and not y.retains_grad and x.grad is not None


@row("Autograd engine", "no_grad", ancestors="synapgrad, neograd, pygrad")
def test_no_grad():
    """`kg.no_grad()` as a block or decorator, `kg.enable_grad`, `kg.set_grad_enabled(flag)`."""
    x = kg.ones(2, requires_grad=True)
    with kg.no_grad():
        y = x * 2
        with kg.enable_grad():
            assert (x * 2).requires_grad
        x += 1  # a leaf may be changed here
    assert not y.requires_grad and kg.is_grad_enabled() and x.tolist() == [2, 2]
    assert not kg.no_grad()(lambda: x * 2)().requires_grad
    with kg.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), kg.no_grad():
        1 / 0
    assert kg.is_grad_enabled()  # after an exception, too


@row("Autograd engine", "higher-order (create_graph)", ancestors="pygrad")
def test_higher_order():
    """`backward(create_graph=True)` and `kg.autograd.grad`: derivatives of derivatives, of any order."""
    a = numbers(4)
    x = kg.tensor(a, requires_grad=True)
    y = x.sin()
    for expected in (np.cos(a), -np.sin(a), -np.cos(a), np.sin(a)):
        (y,) = kg.autograd.grad(y, x, kg.ones(4, dtype=kg.float64), create_graph=True)
        close(y, expected)
    v = kg.tensor(numbers(4))
    (slope,) = kg.autograd.grad((x**3).sum(), x, create_graph=True)
    (slope * v).sum().backward()
    close(x.grad, 6 * a * v.array)


@row("Autograd engine", "grad accumulation over backward calls", ancestors="all")
def test_gradients_accumulate():
    """Each `backward()` adds to `.grad` of the leaves: g, 2g, 3g, also for graphs that share a part."""
    a = numbers(3)
    x = kg.tensor(a, requires_grad=True)
    shared = x * x
    for n in (1, 2, 3):
        (shared * 5).sum().backward(retain_graph=True)
        close(x.grad, n * 10 * a)


@row(
    "Autograd engine",
    "zero_grad on tensor",
    ancestors="synapgrad, neograd, pygrad, simple_autograd",
)
def test_zero_grad_on_a_tensor():
    """`x.grad = None`, or `x.grad.zero_()` to keep the memory; the next pass begins from nothing."""
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    for clear in (lambda: setattr(x, "grad", None), lambda: x.grad.zero_()):
        (x * 3).sum().backward()
        clear()
        (x * x).sum().backward()
        close(x.grad, [2, 4])


@row("Autograd engine", "zero grads of all graph members", ancestors="neograd")
def test_zero_gradients_of_all_graph_members():
    """`optimizer.zero_grad()` and `model.zero_grad()` clear all that is kept: in between nothing is."""
    model = kg.nn.Sequential(kg.nn.Linear(3, 4), kg.nn.Tanh(), kg.nn.Linear(4, 1))
    x = kg.tensor(numbers(5, 3)).float()
    outputs = [x]
    for layer in model:
        outputs.append(layer(outputs[-1]))
    outputs[-1].sum().backward()
    assert not any(t.retains_grad for t in outputs)
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@row("Autograd engine", "warning on non-leaf .grad", ancestors="synapgrad, simple_autograd")
def test_warning_on_non_leaf_grad():
    """Reading `.grad` of a tensor in between warns that `retain_grad()` was not called."""
    x = kg.tensor([1.0], requires_grad=True)
    y = x * 2
    y.backward()
    with pytest.warns(UserWarning, match="retain_grad"):
        y.grad


@row("Autograd engine", "guards in-place write on grad tensors", ancestors="simple_autograd")
def test_guards_in_place_writes():
    """Writing into a leaf that requires grad, or into what a derivative still needs, is an error."""
    x = kg.tensor(numbers(3), requires_grad=True)
    for write in (lambda: x.add_(1), lambda: x.__setitem__(0, 1.0), lambda: x[:2].mul_(2)):
        with pytest.raises(RuntimeError, match="leaf"):
            write()
    y = x.exp()
    z = (y * y).sum()
    y += 1
    with pytest.raises(RuntimeError, match="inplace"):
        z.backward()


@row(
    "Autograd engine",
    "is_leaf / grad_fn / has_grad",
    ancestors="synapgrad, neograd, pygrad, simple_autograd",
)
def test_is_leaf_and_grad_fn():
    """`x.is_leaf`, `x.grad_fn` (the operation that made it, with its inputs), `x.grad is not None`."""
    x = kg.tensor([1.0], requires_grad=True)
    y = x.exp() * x
    assert x.is_leaf and x.grad_fn is None and not y.is_leaf and (x.detach() * 2).is_leaf
    assert y.grad_fn.name() == "MultiplyBackward0"
    assert y.grad_fn.next_functions[0][0].name() == "ExpBackward0"
    y.backward()
    assert x.grad is not None


@row(
    "Autograd engine",
    "iterative (no recursion limit)",
    ancestors="macrograd, pygrad, simple_autograd",
)
def test_iterative():
    """The backward pass is a loop: chains of any length, and as many paths as there may be."""
    x = kg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(20 * sys.getrecursionlimit()):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    y = kg.tensor(1.0, requires_grad=True)
    z = y
    for _ in range(60):
        z = z + z  # 2 ** 60 paths
    z.backward()
    assert y.grad.item() == 2.0**60


# --- operations and layers of one's own ---------------------------------------------------------


class Cube(kg.autograd.Function):
    """An operation of one's own: its value, and its derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class Scaled(kg.nn.Module):
    """A layer of one's own, with a parameter, a buffer and another layer."""

    def __init__(self):
        super().__init__()
        self.scale = kg.nn.Parameter(kg.tensor([2.0]))
        self.register_buffer("shift", kg.tensor([1.0]))
        self.inner = kg.nn.Linear(3, 1, bias=False)

    def forward(self, x):
        return self.inner(x) * self.scale + self.shift


@row(
    "Custom op / layer API",
    "custom op class",
    ancestors="synapgrad, neograd, pygrad, simple_autograd",
)
def test_custom_op_class():
    """`class Op(kg.autograd.Function)` with `forward(ctx, …)`, `backward(ctx, g)`, called by `Op.apply`."""
    a = numbers(3)
    close(slopes(lambda x: Cube.apply(x) * x, a), a**4)
    assert kg.autograd.gradgradcheck(Cube.apply, kg.tensor(a, requires_grad=True))


@row("Custom op / layer API", "custom layer", ancestors="all")
def test_custom_layer():
    """`class Layer(kg.nn.Module)`: what is assigned in `__init__` is registered, `forward` is what a call does."""
    layer, a = Scaled(), numbers(4, 3).astype(np.float32)
    close(layer(kg.tensor(a)), a @ layer.inner.weight.detach().numpy().T * 2 + 1, 1e-5)
    assert [n for n, _ in layer.named_parameters()] == ["scale", "inner.weight"]
    assert list(layer.state_dict()) == ["scale", "shift", "inner.weight"]


@row("Custom op / layer API", "requires_broadcasting flag", ancestors="neograd")
def test_broadcasting_is_undone():
    """No flag is needed: gradients of broadcast inputs always have the inputs' shapes."""
    for first, second in (((3, 1), (1, 4)), ((1,), (2, 3)), ((), (2, 1, 3)), ((0, 1), (0, 3))):
        a, b = numbers(*first), numbers(*second)
        close(slopes(lambda x, y: x * y + y, a, b), a * b + b)

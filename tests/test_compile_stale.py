"""What changes between two calls of a compiled function without its arguments telling.

Each of these once gave numbers of the first call.
"""

from __future__ import annotations

import collections
import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest

import kilograd as kg
import kilograd.nn.functional as F
from kilograd import nn

BACKENDS = ["numpy", "numba"]


@pytest.fixture(params=BACKENDS)
def compile(request: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what cannot be compiled runs eagerly
        yield lambda f: kg.compile(f, backend=request.param)


def thrice(f: Any, *args: Any) -> None:
    for _ in range(3):
        f(*args)


def test_views_of_arguments_that_are_views(compile):
    x = kg.zeros(3, 4)
    f = compile(lambda row: row.view(2, 2))
    for i in range(3):
        f(x[i]).add_(1)
    assert x.tolist() == [[1] * 4] * 3


def test_layers_of_a_list(compile):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    net, x = Net(), kg.ones(1, 2)
    f = compile(lambda x: net(x))
    thrice(f, x)
    net.layers[0] = nn.Linear(2, 2)
    np.testing.assert_allclose(f(x).detach().numpy(), net(x).detach().numpy(), rtol=1e-5)
    thrice(f, x)
    net.layers.append(nn.Linear(2, 2))
    np.testing.assert_allclose(f(x).detach().numpy(), net(x).detach().numpy(), rtol=1e-5)


def test_layers_that_are_only_looked_at(compile):
    layer, x = nn.Linear(2, 2), kg.ones(1, 2)
    weight = compile(lambda x: F.linear(x, layer.weight))
    training = compile(lambda x: x * 2 if layer.training else x)
    frozen = compile(lambda x: x * 3 if layer.bias.requires_grad else x)
    for f in (weight, training, frozen):
        thrice(f, x)
    layer.weight = nn.Parameter(kg.zeros(2, 2))
    layer.eval()
    layer.bias.requires_grad_(False)
    assert weight(x).tolist() == [[0, 0]]
    assert training(x).tolist() == frozen(x).tolist() == [[1, 1]]


def test_zero_grad_of_its_own(compile):
    model = nn.Linear(2, 1)
    zero = compile(kg.optim.SGD(model.parameters(), lr=0.1).zero_grad)
    add = compile(lambda x: model(x).sum().backward())
    for _ in range(4):
        zero()
        add(kg.ones(1, 2))
        add(kg.ones(1, 2))
        assert model.weight.grad.tolist() == [[2, 2]]


def test_a_gradient_as_result(compile):
    w = nn.Parameter(kg.ones(1))

    def f(x):
        (w * x).sum().backward()
        return w.grad

    f, total = compile(f), 0
    for i in range(1, 6):
        if i == 3:
            w.grad, total = None, 0
        total += i
        got = f(kg.ones(1) * i)
        assert got is w.grad and got.item() == total


def test_containers_as_arguments_that_change(compile):
    def f(counts, x):
        counts["n"] += 1
        return x * 2

    f = compile(f)
    for _ in range(4):
        counts = {"n": 0}
        f(counts, kg.ones(2))
        assert counts["n"] == 1


def train(how: Any) -> list[Any]:
    kg.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer = kg.optim.Adam(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    step = how(step)
    for change in range(4):
        if change == 1:
            optimizer.state[model.weight]["exp_avg"] = kg.ones(2, 2)
        if change == 2:
            del optimizer.param_groups[0]["params"][1]
        if change == 3:
            optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.5)
        for _ in range(4):
            step(kg.randn(3, 2))
    return [p.detach().numpy() for p in model.parameters()]


def test_what_an_optimizer_holds(compile):
    for a, b in zip(train(compile), train(lambda f: f), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_settings_that_the_function_reads(compile):
    optimizer = kg.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    f = compile(lambda x: x * optimizer.param_groups[0]["lr"])
    thrice(f, kg.ones(1))
    optimizer.param_groups[0]["lr"] = 0.5
    assert f(kg.ones(1)).item() == 0.5


def test_numpy_numbers_as_learning_rate(compile):
    model = nn.Linear(2, 1)
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    step = compile(step)
    for k in range(30):
        before = model.bias.item()
        step(kg.ones(1, 2))
        rate = 0.1 if k == 0 else 0.01 * k
        assert model.bias.item() == pytest.approx(before - rate, abs=1e-5)
        optimizer.param_groups[0]["lr"] = np.float64(0.01 * (k + 1))
    assert sum(map(len, step.programs.values())) <= 2 and not step.eager


def test_default_dtype(compile):
    f = compile(lambda x: x + kg.tensor([1.5]))
    x = kg.tensor([1.0], dtype=kg.float32)
    thrice(f, x)
    try:
        kg.set_default_dtype(kg.float64)
        assert f(x).dtype == kg.float64
    finally:
        kg.set_default_dtype(kg.float32)


def test_minus_zero(compile):
    f = compile(lambda x, k: x / k)
    got = [f(kg.ones(1), k).item() for k in (0.0, 0.0, 0.0, -0.0)]
    assert got == [np.inf, np.inf, np.inf, -np.inf]


def test_marks_on_a_gradient_do_not_survive(compile):
    w = nn.Parameter(kg.ones(3))

    def f(x):
        w.grad = None
        (w * x).sum().backward()

    f = compile(f)
    thrice(f, kg.ones(3))
    w.grad.requires_grad_(True)
    f(kg.ones(3))
    assert not w.grad.requires_grad


@dataclasses.dataclass(slots=True)
class Slots:
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Equal:
    factor: float
    x: Any = dataclasses.field(compare=False, default=None)


def test_objects(compile):
    slots, user = Slots(), collections.UserDict(a=1.0)
    f, g = compile(lambda x: x * slots.factor), compile(lambda x: x * user["a"])
    thrice(f, kg.ones(1))
    thrice(g, kg.ones(1))
    slots.factor, user["a"] = 3.0, 5.0
    assert (f(kg.ones(1)).item(), g(kg.ones(1)).item()) == (3, 5)
    h = compile(lambda d: d.x * d.factor)  # equal objects are different ones
    assert [h(Equal(2.0, kg.ones(1) * k)).item() for k in range(4)] == [0, 2, 4, 6]


def test_defaults(compile):
    def f(x, factors=[1.0]):  # noqa: B006
        return x * factors[0]

    g = compile(f)
    thrice(g, kg.ones(1))
    f.__defaults__[0][0] = 5.0
    assert g(kg.ones(1)).item() == 5


def test_a_patched_forward(compile):
    layer, x = nn.Linear(1, 1), kg.ones(1, 1)
    f = compile(lambda x: layer(x))
    thrice(f, x)
    layer.forward = lambda x: x * 0
    assert f(x).tolist() == [[0]]


# --- what a class has, and its objects may have for themselves ------------------------------------------


class Factor:
    k = 1.0
    _hidden = 1.0

    @property
    def hidden(self) -> float:
        return self._hidden

    def scaled(self, x):
        return x * 1.0

    def __call__(self, x):
        return x * self.k


def is_noticed(compile: Any, f: Any, change: Any) -> None:
    """Whether a compiled function gives what the function gives after a change."""
    compiled, x = compile(f), kg.tensor([1.0, 2.0])
    thrice(compiled, x)
    before = f(x).tolist()
    change()
    assert f(x).tolist() != before
    for _ in range(3):
        assert compiled(x).tolist() == f(x).tolist()


def test_an_attribute_set_where_the_class_has_one(compile):
    o = Factor()
    is_noticed(compile, lambda x: x * o.k, lambda: setattr(o, "k", 5.0))
    p = Factor()
    is_noticed(compile, lambda x: x * p.hidden, lambda: setattr(p, "_hidden", 5.0))
    q = Factor()
    is_noticed(compile, lambda x: q.scaled(x), lambda: setattr(q, "scaled", lambda x: x * 5))
    r = Factor()
    is_noticed(compile, lambda x: r(x), lambda: setattr(r, "k", 5.0))


def test_an_attribute_set_on_a_class_whose_base_has_one(compile):
    class Near(Factor):
        pass

    class Nearest(Near):
        pass

    o = Nearest()
    is_noticed(compile, lambda x: x * o.k, lambda: setattr(Near, "k", 5.0))
    is_noticed(compile, lambda x: x * o.k, lambda: setattr(Nearest, "k", 7.0))
    is_noticed(compile, lambda x: x * Nearest._hidden, lambda: setattr(Near, "_hidden", 7.0))


def test_slots_beside_a_dictionary(compile):
    class Slotted:
        __slots__ = ("k",)

    class Both(Slotted):
        pass

    for o in (Slotted(), Both()):
        o.k = 1.0
        is_noticed(compile, lambda x, o=o: x * o.k, lambda o=o: setattr(o, "k", 5.0))


def test_a_data_descriptor_is_not_hidden_by_the_object(compile):
    """What the object's dictionary holds under its name is not what is read."""

    class Locked(Factor):
        @property
        def k(self) -> float:
            return 2.0

    o, x = Locked(), kg.ones(2)
    f = compile(lambda x: x * o.k)
    thrice(f, x)
    vars(o)["k"] = 5.0
    assert f(x).tolist() == [2.0, 2.0]

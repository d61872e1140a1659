"""Code that writes to a module's registries, as PyTorch's does: the module computes with it."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.nn.registry import REGISTRIES
from kilograd.nn.utils.stateless import functional_call

torch = pytest.importorskip("torch")
X = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)


def float32(a):
    return kg.tensor(np.asarray(a, np.float32))


def both(story):
    """What a story of events tells with either library: it is given (library, nn, tensor)."""
    mine = story(kg, kg.nn, float32)
    want = story(torch, torch.nn, lambda a: torch.tensor(np.asarray(a, np.float32)))
    assert mine == want
    return mine


def numbers(t):
    return np.asarray(t.detach()).round(5).tolist()


def constant(nn, tensor, n_in, n_out, start=0.0):
    """A linear layer with known weights."""
    layer = nn.Linear(n_in, n_out)
    weight = start + np.arange(n_in * n_out).reshape(n_out, n_in) / 7
    layer.weight = nn.Parameter(tensor(weight))
    layer.bias = nn.Parameter(tensor(np.arange(n_out) - start))
    return layer


def consistent(module):
    """The attributes of a module and of those below say what the registries say."""
    for m in module.modules():
        for registry in REGISTRIES:
            for name, value in m.__dict__[registry].items():
                assert getattr(m, name) is value is m.__dict__[name]


class Net:
    """Of either library: fc, act, and a buffer that is added."""

    def __new__(cls, nn, tensor):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = constant(nn, tensor, 2, 3)
                self.act = nn.Tanh()
                self.register_buffer("shift", tensor([0.5, 0.0, -0.5]))

            def forward(self, x):
                return self.act(self.fc(x)) + self.shift

        return Net()


def test_writes_are_computed_with():
    def story(lib, nn, tensor):
        net = Net(nn, tensor)
        told = [numbers(net(tensor(X)))]
        net._modules["fc"] = constant(nn, tensor, 2, 3, start=-1.0)
        told.append(numbers(net(tensor(X))))
        net._modules.update(act=nn.ReLU())
        told.append(numbers(net(tensor(X))))
        net._buffers["shift"] = tensor([1.0, 2.0, 3.0])
        told.append(numbers(net(tensor(X))))
        net.fc._parameters["bias"] = None
        told.append(numbers(net(tensor(X))))
        net.fc._parameters["weight"] = nn.Parameter(tensor(np.ones((3, 2))))
        told.append(numbers(net(tensor(X))))
        told.append({k: numbers(v) for k, v in net.state_dict().items()})
        told.append([name for name, _ in net.named_parameters()])
        if lib is kg:
            consistent(net)
        return told

    told = both(story)
    assert all(a != b for a, b in itertools.pairwise(told[:6]))


def test_every_way_to_write():
    def story(lib, nn, tensor):
        told = []
        net = nn.Sequential(OrderedDict((name, nn.Identity()) for name in "abcdef"))

        def tell(value=None):
            told.append((list(net._modules), [hasattr(net, n) for n in "abcdefghi"], repr(value)))
            if lib is kg:
                consistent(net)

        del net._modules["a"]
        tell()
        tell(net._modules.pop("b"))
        tell(net._modules.pop("b", 3))
        tell(net._modules.popitem())
        tell(net._modules.setdefault("c", nn.ReLU()))
        tell(net._modules.setdefault("g", nn.ReLU()))
        net._modules.update({"h": nn.Tanh(), "c": nn.Sigmoid()}, i=nn.Softplus())
        tell(net.c)
        net._modules |= {"a": nn.ELU()}
        tell(net.a)
        net._modules.update([("b", nn.CELU())])
        tell(net.b)
        for name, module in net._modules.items():
            net._modules[name] = nn.Sequential(module, nn.Tanh())
            assert net._modules[name] is getattr(net, name)
        tell(net)
        net._modules["none"] = None
        tell(net.none)
        net._modules.clear()
        tell()
        for name, write in (
            ("popitem", lambda: net._modules.popitem()),
            ("pop", lambda: net._modules.pop("a")),
            ("del", lambda: net._modules.__delitem__("a")),
            ("get", lambda: net._modules["a"]),
        ):
            with pytest.raises(KeyError) as e:
                write()
            told.append((name, str(e.value)))
        return told

    both(story)


def test_reads_are_those_of_a_dictionary():
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    view, raw = net._modules, net.__dict__["_modules"]
    assert type(raw) is dict and isinstance(view, dict) and view is not raw
    assert view == raw and raw == view and view == net._modules and view != {}
    assert view.__ne__(raw) is False and raw.copy() == view and nn.ReLU()._modules == {}
    assert repr(view) == repr(raw) == str(view)
    assert list(view) == ["0", "1"] == list(view.keys()) == [*reversed(view)][::-1]
    assert dict(view) == {**view} == OrderedDict(view) == view.copy() == copy.copy(view) == raw
    assert type(view.copy()) is type(copy.copy(view)) is dict
    assert len(view) == 2 and bool(view) and not net[0]._modules
    assert "0" in view and "2" not in view and view.get("2") is None and view.get("2", 5) == 5
    assert view.get("1") is net[1] is view["1"]
    assert view | {"2": 3} == {**raw, "2": 3} and {"2": 3} | view == {"2": 3, **raw}
    assert type(view | {}) is type({} | view) is dict
    assert (lambda **given: given)(**view) == raw
    with pytest.raises(TypeError):
        view | 3
    with pytest.raises(TypeError):
        3 | view
    with pytest.raises(TypeError):
        hash(view)
    assert json.dumps(nn.Sequential()._modules.copy()) == "{}"
    assert not hasattr(view, "__dict__")
    kept = copy.deepcopy(net[0]._parameters)
    assert kept == {} and type(pickle.loads(pickle.dumps(net._buffers))) is dict


def test_order():
    net = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh(), c=nn.ELU()))
    net._modules.move_to_end("a")
    assert list(net._modules) == ["b", "c", "a"] == [n for n, _ in net.named_children()]
    net._modules.move_to_end("c", last=False)
    assert list(net._modules) == ["c", "b", "a"]
    with pytest.raises(KeyError):
        net._modules.move_to_end("q")
    assert net._modules.popitem(last=False)[0] == "c" and not hasattr(net, "c")
    consistent(net)
    x = kg.tensor(X)
    assert kg.equal(net(x), x.tanh().relu())


def test_fast_weights_of_maml():
    def story(lib, nn, tensor):
        layer = constant(nn, tensor, 2, 3)
        slow = dict(layer.named_parameters())
        layer(tensor(X)).square().sum().backward()
        told = [numbers(p.grad) for p in slow.values()]
        for p in slow.values():
            p.grad = None
        for name, p in list(layer._parameters.items()):
            layer._parameters[name] = p * 2 - 0.1
        layer(tensor(X)).square().sum().backward()  # through the fast ones to the slow ones
        told += [numbers(p.grad) for p in slow.values()]
        told.append([name for name, _ in layer.named_parameters()])
        told.append([numbers(v) for v in layer.state_dict().values()])
        for name, p in slow.items():
            layer._parameters[name] = p
        told.append(numbers(layer(tensor(X))))
        with pytest.raises(TypeError):
            layer.weight = tensor(X)
        return told

    both(story)


def test_clones_that_take_the_registries_apart():
    """As learn2learn's ``clone_module`` and data-parallel replicas do."""

    def clone_module(module):
        clone = module.__new__(type(module))
        clone.__dict__ = module.__dict__.copy()
        clone._parameters = clone._parameters.copy()
        clone._buffers = clone._buffers.copy()
        clone._modules = clone._modules.copy()
        for name, p in module._parameters.items():
            clone._parameters[name] = None if p is None else p.clone()
        for name, b in module._buffers.items():
            clone._buffers[name] = b.clone()
        for name in clone._modules:
            clone._modules[name] = clone_module(module._modules[name])
        return clone

    def story(lib, nn, tensor):
        net = Net(nn, tensor)
        clone = clone_module(net)
        clone(tensor(X)).sum().backward()
        told = [numbers(net.fc.weight.grad), numbers(clone(tensor(X)))]
        for name, p in clone.fc._parameters.items():
            clone.fc._parameters[name] = p - 0.5
        clone._buffers["shift"] += 1
        told += [numbers(clone(tensor(X))), numbers(net(tensor(X)))]
        if lib is kg:
            consistent(net)
            consistent(clone)
        return told

    both(story)


def test_whole_registries_are_replaced():
    def story(lib, nn, tensor):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self._modules = OrderedDict(a=nn.Tanh(), b=constant(nn, tensor, 2, 3))
                self._parameters = {"p": nn.Parameter(tensor([2.0])), "q": None}
                self._buffers = OrderedDict()

            def forward(self, x):
                return self.b(self.a(x)) * self.p

        net = Net()
        told = [numbers(net(tensor(X))), list(net.state_dict()), repr(net), net.q]
        old = net._modules
        net._modules = {"b": nn.Identity(), "a": nn.ReLU()}
        told += [numbers(net(tensor(X))), repr(net), list(old)]
        old["c"] = nn.Tanh()  # no longer this module's
        told.append((hasattr(net, "c"), list(net._modules)))
        net._parameters = {}
        told += [hasattr(net, "p"), hasattr(net, "q"), list(net.parameters())]
        if lib is kg:
            consistent(net)
        return told

    both(story)
    with pytest.raises(TypeError):
        nn.ReLU()._modules = 3


def test_before_init():
    class Early(nn.Module):
        def __init__(self, what):
            what(self)

    for registry in REGISTRIES:
        text = f"'Early' object has no attribute '{registry}'"
        with pytest.raises(AttributeError, match=text):
            Early(lambda m: getattr(m, registry))
        assert not hasattr(Early, registry) and not hasattr(nn.Module, registry)

    class Forgot(nn.Module):
        def __init__(self):
            self.number = 3

    parent = nn.Module()
    parent.child = Forgot()
    for module in (parent, parent.child):
        for use in (
            lambda m: list(m.parameters()), lambda m: list(m.buffers()), nn.Module.eval,
            lambda m: list(getattr(m, "child", m).parameters(recurse=False)),
            nn.Module.state_dict, repr, lambda m: m.load_state_dict({}), nn.Module.double,
        ):  # fmt: skip
            with pytest.raises(AttributeError, match="'Forgot' object has no attribute '_"):
                use(module)

    def assigned(m):
        m._modules = {"a": nn.ReLU()}

    assert isinstance(Early(assigned).a, nn.ReLU)


def test_names_that_hide_and_are_hidden():
    """An ordinary attribute or a method hides what is registered; a parameter hides a buffer."""

    def story(lib, nn, tensor):
        net = nn.Sequential(nn.ReLU())
        net.plain = 3
        net._modules["plain"] = nn.Tanh()
        net._modules["append"] = nn.Tanh()
        net._modules["training"] = nn.Tanh()
        told = [net.plain, callable(net.append), isinstance(net.append, nn.Module), net.training]
        net._modules["plain"] = nn.ELU()
        told += [net.plain, list(net._modules), repr(net._modules["plain"])]
        for name in ("plain", "append", "training"):
            del net._modules[name]
        told += [net.plain, net.training, repr(net), net.append(nn.Tanh()) is net]
        net._buffers["t"] = tensor([1.0])
        net._parameters["t"] = nn.Parameter(tensor([2.0]))
        told.append(numbers(net.t))
        net._buffers["t"] = tensor([3.0])
        told.append(numbers(net.t))
        del net._parameters["t"]
        told.append(numbers(net.t))
        del net._buffers["t"]
        told.append(hasattr(net, "t"))
        return told

    both(story)


def test_state_of_buffers():
    def story(lib, nn, tensor):
        net = nn.Module()
        net.register_buffer("a", tensor([1.0]), persistent=False)
        net.register_buffer("b", tensor([2.0]))
        net._buffers["a"] = tensor([3.0])
        net._buffers["c"] = tensor([4.0])
        told = [list(net.state_dict())]
        del net._buffers["a"], net._buffers["b"]
        told.append((list(net.state_dict()), hasattr(net, "a"), hasattr(net, "b")))
        net.register_buffer("b", tensor([5.0]))
        told.append(list(net.state_dict()))
        net.a = nn.Parameter(tensor([6.0]))
        told.append(list(net.state_dict()))
        del net.a
        net.register_buffer("a", tensor([7.0]))
        told.append(list(net.state_dict()))
        got = net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
        told += [tuple(map(tuple, got)), [numbers(b) for b in net.buffers()], numbers(net.a)]
        net._parameters["p"] = nn.Parameter(tensor([8.0]))
        with pytest.raises(RuntimeError, match='Missing key.*"p"'):
            net.load_state_dict({"a": tensor([0.0]), "b": tensor([0.0]), "c": tensor([0.0])})
        net.load_state_dict({**net.state_dict(), "p": tensor([9.0])}, assign=True)
        told += [numbers(net.p), type(net.p) is nn.Parameter]
        if lib is kg:
            consistent(net)
        return told

    both(story)


def test_batch_norm_and_conversions():
    def story(lib, nn, tensor):
        norm = nn.BatchNorm1d(2)
        norm._buffers["running_mean"] = tensor([1.0, 2.0])
        norm(tensor(X))
        told = [numbers(norm.running_mean), numbers(norm.eval()(tensor(X)))]
        norm.double()
        told += [
            str(norm.running_mean.dtype).split(".")[1],
            norm.running_mean is norm._buffers["running_mean"],
        ]
        norm._buffers["running_mean"] = norm._buffers["running_var"] = None
        told.append(numbers(norm.float().train()(tensor(X))))
        if lib is kg:
            consistent(norm)
        return told

    both(story)


def test_containers():
    def story(lib, nn, tensor):
        table = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
        table._modules["a"] = nn.ELU()
        table._modules["c"] = nn.CELU()
        told = [repr(table), repr(table["a"]), "c" in table, len(table)]
        del table._modules["b"]
        told += [list(table), repr(table.pop("c"))]
        row = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        row._modules["1"] = nn.ELU()
        row._modules["2"] = nn.CELU()
        told += [repr(row), repr(row[-1]), len(row.append(nn.ReLU()))]
        told.append(repr(row._modules.pop("3")))
        line = nn.Sequential(nn.Tanh(), nn.ReLU())
        line._modules["0"] = constant(nn, tensor, 2, 3)
        line._modules["2"] = nn.Softplus()
        told += [numbers(line(tensor(X))), numbers(line[:2](tensor(X))), list(line.state_dict())]
        weights = nn.ParameterDict({"p": tensor([1.0])})
        weights._parameters["p"] = nn.Parameter(tensor([2.0]))
        told.append(numbers(weights["p"]))
        return told

    both(story)


def test_weight_norm_and_parametrizations():
    x = kg.tensor(X)
    layer = constant(nn, float32, 2, 3, 1.0).double()
    was = layer(x.double())
    nn.utils.weight_norm(layer)
    assert kg.allclose(layer(x.double()), was)
    layer._parameters["weight_g"] = nn.Parameter(2 * layer.weight_g.detach())
    assert kg.allclose(layer(x.double()) - layer.bias, 2 * (was - layer.bias))
    nn.utils.remove_weight_norm(layer)
    consistent(layer)

    class Twice(nn.Module):
        def forward(self, w):
            return 2 * w

    layer = constant(nn, float32, 2, 3, 1.0)
    nn.utils.parametrize.register_parametrization(layer, "weight", Twice())
    original = nn.Parameter(kg.randn(3, 2))
    layer.parametrizations.weight._parameters["original"] = original
    assert kg.equal(layer.weight, 2 * original)
    layer.parametrizations["weight"]._modules["0"] = nn.Identity()
    assert kg.equal(layer.weight, original)
    layer._parameters["weight"] = nn.Parameter(kg.zeros(3, 2))  # the class's property hides it
    assert kg.equal(layer.weight, original)
    del layer._parameters["weight"]
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert kg.equal(layer.weight, original)
    consistent(layer)


def test_lazy_modules():
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    net._modules["0"] = nn.LazyLinear(4)
    assert net[0].has_uninitialized_params()
    assert net(kg.tensor(X)).shape == (3, 4) and type(net[0]) is nn.Linear
    lazy = nn.LazyLinear(4)
    lazy._parameters["bias"] = None
    assert lazy(kg.tensor(X)).shape == (3, 4) and lazy.bias is None
    consistent(net)


def test_functional_call():
    net = Net(nn, float32)
    net._modules["fc"] = constant(nn, float32, 2, 3, 1.0)
    other = {"fc.weight": kg.randn(3, 2), "shift": kg.zeros(3)}
    got = functional_call(net, other, kg.tensor(X))
    before = net(kg.tensor(X))
    for name, t in other.items():
        owner, _, last = name.rpartition(".")
        m = net.get_submodule(owner)
        (m._parameters if last == "weight" else m._buffers)[last] = t
    assert kg.equal(net(kg.tensor(X)), got) and not kg.equal(got, before)
    consistent(net)


def test_copies_and_pickles():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    net._modules["1"] = net._modules["2"] = nn.Linear(3, 3)
    net[1]._parameters["bias"] = None
    x = kg.tensor(X)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        consistent(other)
        assert kg.equal(other(x), net(x)) and other[1] is other[2] is not net[1]
        assert all(type(other.__dict__[registry]) is dict for registry in REGISTRIES)
        other._modules["1"] = nn.ReLU()
        assert not kg.equal(other(x), net(x))
    consistent(net)


def test_no_cycles():
    gc.collect()
    gc.disable()
    try:
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
        net._modules["1"] = nn.ReLU()
        net[0]._parameters["bias"] = nn.Parameter(kg.ones(3))
        net._modules = net._modules.copy()
        old, gone = weakref.ref(net[0]), weakref.ref(net)
        net._modules["0"] = nn.Identity()
        assert old() is None
        view = net._modules
        del net
        assert gone() is not None and list(view) == ["0", "1"]
        del view
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "write",
    [
        lambda net: net._modules.update({"0": constant(nn, float32, 2, 3, 2.0).double()}),
        lambda net: net._modules.update({"1": nn.ReLU()}),
        lambda net: net._modules.pop("1"),
        lambda net: net._modules.move_to_end("1"),
        lambda net: net._modules.clear(),
        lambda net: net._modules.setdefault("9", nn.Softplus()),
        lambda net: setattr(net, "_modules", {"0": net[1], "1": net[0]}),
        lambda net: net[0]._parameters.update(weight=nn.Parameter(kg.ones(3, 2).double())),
        lambda net: net[0]._parameters.update(weight=kg.ones(3, 2).double()),
        lambda net: net[0]._parameters.update(bias=None),
        lambda net: net[2]._buffers.update(running_mean=kg.tensor([1.0, -1.0, 2.0]).double()),
        lambda net: net[2]._buffers.update(running_mean=None, running_var=None),
    ],
)  # fmt: skip
def test_compiled_steps_notice(write):
    x = kg.tensor(X, dtype=kg.float64, requires_grad=True)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.BatchNorm1d(3).eval()).double()

    def step(x):
        net.zero_grad()
        x.grad = None
        y = net(x)
        y.square().sum().backward()
        return y.detach(), *[p.grad.clone() for p in net.parameters() if p.grad is not None]

    compiled = kg.compile(step)
    for _ in range(3):
        before = compiled(x)
    write(net)
    for _ in range(3):
        want = step(x)
        got = compiled(x)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-12)
    assert len(before) != len(want) or any(
        a.shape != b.shape or not kg.allclose(a, b) for a, b in zip(before, want, strict=True)
    )


def test_compiled_modules_and_held_views():
    x = kg.tensor(X)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    kg.compile(net)
    for _ in range(3):
        net(x)
    net._modules["1"] = nn.ReLU()
    assert kg.equal(net(x), net[0](x).relu())
    held = net._modules
    compiled = kg.compile(lambda x: held["1"](x) * 2)
    for _ in range(3):
        assert kg.equal(compiled(x), x.relu() * 2)
    held["1"] = nn.Tanh()
    assert kg.equal(compiled(x), x.tanh() * 2) and kg.equal(net(x), net[0](x).tanh())


def test_functional_call_of_a_compiled_module():
    x = kg.tensor(X)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    other = {name: 2 * p.detach() for name, p in net.named_parameters()}
    want = net(x), functional_call(net, other, x)
    kg.compile(net)
    for _ in range(3):
        assert kg.allclose(net(x), want[0])
        assert kg.allclose(functional_call(net, other, x), want[1])


def test_writes_within_a_compiled_step():
    layer = nn.Linear(2, 3)
    fast = [kg.randn(3, 2) for _ in range(4)]

    def step(x, w):
        slow = layer._parameters["weight"]
        layer._parameters["weight"] = w * 2
        y = layer(x)
        layer._parameters["weight"] = slow
        return y

    compiled, x = kg.compile(step), kg.tensor(X)
    with pytest.warns(RuntimeWarning, match="runs eagerly: it keeps tensors"):
        got = [compiled(x, w) for w in fast]
    for y, w in zip(got, fast, strict=True):
        assert kg.allclose(y, step(x, w))
    consistent(layer)


def test_getattr_called_by_name():
    def story(lib, nn, tensor):
        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module
                self.register_buffer("seen", tensor([1.0]))
                self.scale = nn.Parameter(tensor([2.0]))
                self.bias_ = None

            def __getattr__(self, name):
                try:
                    return super().__getattr__(name)
                except AttributeError:
                    return getattr(super().__getattr__("module"), name)

            def forward(self, x):
                return self.module(x) * super().__getattr__("scale") + super().__getattr__("seen")

        net = Wrapper(constant(nn, tensor, 2, 3))
        told = [numbers(net(tensor(X))), net.in_features, numbers(net.weight)]
        for name in ("nothing", "training"):
            with pytest.raises(AttributeError) as e:
                nn.Module.__getattr__(net, name)
            told.append(str(e.value))
        return told

    both(story)


def test_no_accelerators():
    for move in (
        lambda m: m.cuda(), lambda m: m.cuda(0), lambda m: m.cuda(device="cuda:1"), lambda m: m.xpu(),
        lambda m: m.to("cuda"), lambda m: m.to("xpu", kg.float64), lambda m: m.to(0),
        lambda m: m.to(device="cuda:0"), lambda m: m.to(device=0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="kilograd computes on 'cpu' only"):
            move(nn.Linear(1, 1))
    assert nn.Linear(1, 1).to("cpu").cpu().weight.dtype == kg.float32


def test_errors_name_functions_and_classes():
    def story(lib, nn, tensor):
        told = []
        for make in (
            lambda: nn.Sequential(lambda x: x),
            lambda: nn.Sequential(X.sum),
            lambda: nn.Sequential(len),
            lambda: nn.Sequential(3),
            lambda: nn.Sequential(story),
            lambda: nn.Sequential(OrderedDict),
        ):
            with pytest.raises(TypeError) as e:
                make()
            told.append(str(e.value))
        return told

    told = both(story)
    assert told[0].endswith("<lambda> is not a Module subclass")
    with pytest.raises(TypeError, match="kilograd.nn.linear.Linear is not a Module subclass"):
        nn.Sequential(nn.Linear)

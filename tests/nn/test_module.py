"""Module and the containers: registration, the tree, state, hooks; what PyTorch's do, ours do."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn

F = nn.functional


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(3, 2, bias=False))
        self.scale = nn.Parameter(kg.ones(1))
        self.register_buffer("seen", kg.zeros(2))
        self.register_buffer("hidden", kg.zeros(2), persistent=False)

    def forward(self, x):
        return self.last(self.norm(self.first(x))) * self.scale


def test_registration_and_names():
    net = Net()
    names = ["scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "last.1.weight"]
    assert [n for n, _ in net.named_parameters()] == names
    assert [n for n, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale"]
    assert [n for n, _ in net.named_buffers()] == [
        "seen", "hidden", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
    ]  # fmt: skip
    assert [n for n, _ in net.named_modules()] == ["", "first", "norm", "last", "last.0", "last.1"]
    assert [n for n, _ in net.named_children()] == ["first", "norm", "last"]
    assert list(net.state_dict()) == [
        "scale", "seen", "first.weight", "first.bias", "norm.weight", "norm.bias",
        "norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "last.1.weight",
    ]  # fmt: skip
    assert net.num_params() == net.count_parameters() == 1 + 15 + 6 + 6


def test_shared_modules_and_parameters_count_once():
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, layer)
    assert len(list(net.parameters())) == 2
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert [n for n, _ in net.named_modules(remove_duplicate=False)] == ["", "0", "1"]
    net[1].bias = layer.weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight"]


def test_assigning():
    net = Net()
    with pytest.raises(
        TypeError, match="cannot assign 'kilograd.tensor.Tensor' as parameter 'scale'"
    ):
        net.scale = kg.ones(1)
    with pytest.raises(TypeError, match="as child module 'first'"):
        net.first = 3
    with pytest.raises(TypeError, match="as buffer 'seen'"):
        net.seen = 3
    net.seen = kg.ones(2)
    net.scale = None
    assert net.scale is None
    assert "scale" not in dict(net.named_parameters())
    net.scale = nn.Parameter(kg.zeros(1))
    assert list(net._parameters) == ["scale"]
    net.first = nn.Identity()  # replaced, in its place
    assert [n for n, _ in net.named_children()] == ["first", "norm", "last"]
    net.seen = nn.Parameter(kg.zeros(2))  # from the buffers to the parameters
    assert "seen" not in net._buffers
    assert "seen" in net._parameters
    del net.seen
    assert not hasattr(net, "seen")
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'seen'"):
        net.seen
    net.plain = 3
    del net.plain
    assert "plain" not in dir(net)


def test_before_init():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"cannot assign module.? before Module.__init__"):
        Early()


def test_registering_by_name():
    m = nn.Module()
    with pytest.raises(KeyError, match="t contain"):
        m.register_parameter("a.b", nn.Parameter(kg.zeros(1)))
    with pytest.raises(KeyError, match="empty string"):
        m.register_buffer("", kg.zeros(1))
    with pytest.raises(KeyError, match="already exists"):
        m.register_buffer("forward", kg.zeros(1))
    with pytest.raises(TypeError, match="should be a string"):
        m.add_module(3, nn.ReLU())
    with pytest.raises(TypeError, match="not a Module subclass"):
        m.add_module("x", 3)
    with pytest.raises(TypeError, match="required"):
        m.register_parameter("w", kg.zeros(1))
    m.register_module("child", nn.ReLU())
    m.register_parameter("none", None)
    assert m.none is None
    assert list(m.state_dict()) == []
    m.b = nn.Buffer(kg.zeros(1), persistent=False)
    assert dict(m.named_buffers()).keys() == {"b"}
    assert list(m.state_dict()) == []


def test_paths():
    net = Net()
    assert net.get_submodule("last.1") is net.last[1]
    assert net.get_submodule("") is net
    assert net.get_parameter("first.weight") is net.first.weight
    assert net.get_buffer("norm.running_mean") is net.norm.running_mean
    for get, path in ((net.get_submodule, "last.7"), (net.get_parameter, "first.x"),
                      (net.get_submodule, "first.weight"), (net.get_parameter, "norm.running_mean"),
                      (net.get_buffer, "first.weight")):  # fmt: skip
        with pytest.raises(AttributeError):
            get(path)
    net.set_submodule("last.1", nn.Identity())
    assert isinstance(net.last[1], nn.Identity)


def test_modes():
    net = Net()
    assert net.train(False) is net
    assert not any(m.training for m in net.modules())
    net.norm.train()
    with net.evaluating() as same:
        assert same is net
        assert not net.norm.training
        assert not net(kg.ones(2, 4)).requires_grad
    assert net.norm.training
    assert not net.training
    with pytest.raises(ValueError, match="expected to be boolean"):
        net.train(3)
    net.freeze()
    assert not any(p.requires_grad for p in net.parameters())
    assert net.num_params(trainable=True) == 0
    net.unfreeze()
    assert net.num_params(trainable=False) == 0


def test_apply_goes_children_first():
    seen = []
    net = Net()
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "BatchNorm1d", "ReLU", "Linear", "Sequential", "Net"]


def test_conversions():
    net = Net()
    weight = net.first.weight
    net(kg.ones(3, 4)).sum().backward()
    assert net.to(kg.float64) is net
    assert net.first.weight is weight
    assert weight.dtype == weight.grad.dtype == net.seen.dtype == kg.float64
    assert net.norm.num_batches_tracked.dtype == kg.int64
    assert net.float().first.weight.dtype == kg.float32
    assert net.half().first.weight.dtype == kg.float16
    assert net.double().to("cpu", kg.float32).to(kg.zeros(1)).first.weight.dtype == kg.float32
    assert net.type(kg.float64).norm.num_batches_tracked.dtype == kg.float64
    with pytest.raises(TypeError, match="only accepts floating point"):
        net.to(kg.int32)
    with pytest.raises(RuntimeError):
        net.to("cuda")


def test_zero_grad():
    net = Net()
    net(kg.ones(3, 4)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(not p.grad.array.any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# --- state ------------------------------------------------------------------------------------


def test_state_dict_shares_memory_and_loads_in_place():
    a, b = Net(), Net()
    state = a.state_dict()
    assert state["first.weight"].array is a.first.weight.array
    assert not state["first.weight"].requires_grad
    assert a.state_dict(keep_vars=True)["first.weight"] is a.first.weight
    weight, version = b.first.weight, b.first.weight._version
    result = b.load_state_dict(state)
    assert repr(result) == "<All keys matched successfully>"
    assert b.first.weight is weight
    assert weight._version > version
    assert (weight.array == a.first.weight.array).all()
    assert weight.array is not a.first.weight.array
    assert list(a.state_dict(prefix="x."))[0] == "x.scale"
    assert state._metadata["norm"] == {"version": 2}


def test_an_optimizer_goes_on_with_what_was_loaded():
    net = Net()
    optimizer = kg.optim.SGD(net.parameters(), lr=1.0)
    net.load_state_dict({k: np.zeros(v.shape) for k, v in net.state_dict().items()})
    net.first.bias.grad = kg.ones(3)
    optimizer.step()
    assert net.first.bias.tolist() == [-1.0, -1.0, -1.0]


def test_all_that_does_not_fit_is_said_at_once():
    net = Net()
    state = net.state_dict()
    del state["scale"], state["last.1.weight"]
    state["first.weight"] = kg.zeros(5, 5)
    state["first.extra"] = state["other.deep"] = kg.zeros(1)
    with pytest.raises(RuntimeError) as e:
        net.load_state_dict(state)
    assert str(e.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "scale", "last.1.weight". \n'
        '\tUnexpected key(s) in state_dict: "other.deep", "first.extra". \n'
        "\tsize mismatch for first.weight: copying a param with shape kilograd.Size([5, 5]) from "
        "checkpoint, the shape in current model is kilograd.Size([3, 4])."
    )
    del state["first.weight"]
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert missing == ["scale", "first.weight", "last.1.weight"]
    assert unexpected == ["other.deep", "first.extra"]
    with pytest.raises(TypeError, match="dict-like"):
        net.load_state_dict([])
    with pytest.raises(RuntimeError, match="expected kilograd.Tensor"):
        net.load_state_dict({"scale": "x"}, strict=False)


def test_assign():
    net, other = Net(), Net()
    state = other.state_dict()
    net.load_state_dict(state, assign=True)
    assert net.first.weight.array is other.first.weight.array
    assert isinstance(net.first.weight, nn.Parameter)
    assert net.first.weight.requires_grad
    assert net.norm.running_mean.array is other.norm.running_mean.array


def test_old_batch_norm_states():
    net = Net()
    state = net.state_dict()
    del state["norm.num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        net.load_state_dict(state)
    net.load_state_dict(dict(state))  # no metadata: as old as can be
    state._metadata["norm"]["version"] = 1
    net.load_state_dict(state)


def test_extra_state():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 3

        def get_extra_state(self):
            return {"n": self.n}

        def set_extra_state(self, state):
            self.n = state["n"]

    a = nn.Sequential(Counter())
    state = a.state_dict()
    assert state == {"0._extra_state": {"n": 3}}
    a[0].n = 9
    a.load_state_dict(state)
    assert a[0].n == 3
    with pytest.raises(RuntimeError, match="Missing key"):
        a.load_state_dict({})


def test_state_hooks():
    net = nn.Linear(2, 2)
    calls = []
    net.register_state_dict_pre_hook(lambda m, prefix, keep: calls.append(prefix))
    net.register_state_dict_post_hook(
        lambda m, s, prefix, meta: s.pop(prefix + "bias") is None or None
    )
    assert list(net.state_dict(prefix="a.")) == ["a.weight"]
    assert calls == ["a."]
    net.register_load_state_dict_pre_hook(
        lambda m, s, prefix, meta, strict, missing, unexpected, errors: s.update(
            {prefix + "bias": kg.ones(2)}
        )
    )
    net.register_load_state_dict_post_hook(lambda m, keys: calls.append(keys))
    net.load_state_dict({"weight": kg.zeros(2, 2)})
    assert net.bias.tolist() == [1, 1]
    assert calls[-1].missing_keys == []
    handle = net.register_load_state_dict_post_hook(lambda m, keys: 3)
    with pytest.raises(AssertionError):
        net.load_state_dict({"weight": kg.zeros(2, 2)})
    handle.remove()
    net.load_state_dict({"weight": kg.zeros(2, 2)})


def test_copies_and_pickles():
    net = Net()
    net(kg.ones(3, 4)).sum().backward()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert list(other.state_dict()) == list(net.state_dict())
        assert other.first.weight is other._parameters.get("weight", other.first.weight)
        assert other.first.weight is other.first._parameters["weight"]
        assert (other.first.weight.array == net.first.weight.array).all()
        assert other.first.weight.array is not net.first.weight.array
        assert isinstance(other.first.weight, nn.Parameter)
        assert other.first.weight.requires_grad
        assert (other(kg.ones(3, 4)).array == net(kg.ones(3, 4)).array).all()
    assert copy.deepcopy(net).first.weight.grad is None
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    again = copy.deepcopy(tied)
    assert again[1].weight is again[0].weight


def test_a_module_dies_with_its_last_reference():
    gc.disable()
    try:
        net = Net()
        ref, weight = weakref.ref(net), weakref.ref(net.first.weight)
        net(kg.ones(3, 4)).sum().backward()
        del net
        assert ref() is None
        assert weight() is None
    finally:
        gc.enable()


# --- hooks ------------------------------------------------------------------------------------


def test_forward_hooks():
    layer, log = nn.Linear(2, 2), []
    a = layer.register_forward_pre_hook(lambda m, args: (log.append("pre"), (args[0] * 0,))[1])
    b = layer.register_forward_hook(lambda m, args, out: (log.append("post"), out + 1)[1])
    layer.register_forward_pre_hook(lambda m, args: log.append("first"), prepend=True)
    out = layer(kg.ones(1, 2))
    assert log == ["first", "pre", "post"]
    np.testing.assert_allclose(out.detach().numpy()[0], layer.bias.array + 1, rtol=1e-6)
    a.remove()
    b.remove()
    log.clear()
    layer(kg.ones(1, 2))
    assert log == ["first"]


def test_forward_hooks_with_keywords_and_errors():
    class Two(nn.Module):
        def forward(self, x, *, times=1):
            if times == 0:
                raise ValueError("zero")
            return x * times

    m, log = Two(), []
    m.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {"times": kwargs.get("times", 1) * 2}), with_kwargs=True
    )
    m.register_forward_hook(lambda m, args, kwargs, out: log.append(kwargs), with_kwargs=True)
    assert m(kg.ones(1), times=3).item() == 6
    assert log == [{"times": 6}]
    m.register_forward_hook(lambda m, args, out: log.append(out), always_call=True)
    with pytest.raises(ValueError, match="zero"):
        m(kg.ones(1), times=0)
    assert log[-1] is None
    m.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="tuple of"):
        m(kg.ones(1))


def test_backward_hooks():
    layer, log = nn.Linear(3, 2), []
    layer.register_full_backward_pre_hook(
        lambda m, g: log.append(("pre", [tuple(t.shape) for t in g]))
    )
    layer.register_full_backward_hook(
        lambda m, gi, go: (log.append(("post", gi[0], go[0])), (gi[0] * 10,))[1]
    )
    x = kg.ones(4, 3, requires_grad=True)
    layer(x).sum().backward()
    assert log[0] == ("pre", [(4, 2)])
    assert log[1][2].tolist() == [[1, 1]] * 4
    expected = layer.weight.array.sum(0)
    np.testing.assert_allclose(log[1][1].array, np.tile(expected, (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(x.grad.array, 10 * log[1][1].array, rtol=1e-6)


def test_backward_hook_sees_none():
    layer, log = nn.Linear(3, 2), []
    layer.register_full_backward_hook(lambda m, gi, go: log.append(gi))
    layer(kg.ones(4, 3)).sum().backward()
    assert log == [(None,)]


def test_global_hooks():
    from kilograd.nn import hooks

    log = []
    handle = hooks.register_module_forward_hook(lambda m, args, out: log.append(type(m).__name__))
    nn.Sequential(nn.ReLU(), nn.Identity())(kg.ones(1))
    handle.remove()
    nn.ReLU()(kg.ones(1))
    assert log == ["ReLU", "Identity", "Sequential"]


# --- containers -------------------------------------------------------------------------------


def names(sequence):
    return [type(m).__name__ for m in sequence]


def test_sequential():
    s = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert names(s[1:]) == ["Tanh", "Sigmoid"]
    assert isinstance(s[-1], nn.Sigmoid)
    assert names(s + nn.Sequential(nn.Identity())) == ["ReLU", "Tanh", "Sigmoid", "Identity"]
    assert len(s * 2) == 6
    s.append(nn.GELU()).insert(1, nn.SiLU()).extend([nn.ELU()])
    assert names(s) == ["ReLU", "SiLU", "Tanh", "Sigmoid", "GELU", "ELU"]
    assert list(s._modules) == list("012345")
    del s[0], s[-1]
    assert list(s._modules) == list("0123")
    assert isinstance(s.pop(0), nn.SiLU)
    s[0] = nn.Identity()
    assert names(s) == ["Identity", "Sigmoid", "GELU"]
    s += nn.Sequential(nn.ReLU())
    s *= 2
    assert len(s) == 8
    named = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Linear(2, 2)))
    assert list(named.state_dict()) == ["b.weight", "b.bias"]
    assert named.a is named[0]
    assert list(named[:1]._modules) == ["a"]
    for bad, error in ((lambda: s[9], IndexError), (lambda: s + [1], ValueError), (lambda: s * 0, ValueError),
                       (lambda: s * "a", TypeError), (lambda: s.insert(99, nn.ReLU()), IndexError),
                       (lambda: s.insert(0, 3), AssertionError), (lambda: nn.Sequential(3), TypeError)):  # fmt: skip
        with pytest.raises(error):
            bad()


def test_module_list():
    layers = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])
    layers.append(nn.Tanh()).extend([nn.ELU()])
    layers.insert(1, nn.SiLU())
    assert names(layers) == ["Linear", "SiLU", "ReLU", "Tanh", "ELU"]
    assert names(layers[::2]) == ["Linear", "ReLU", "ELU"]
    del layers[1:3]
    assert names(layers) == ["Linear", "Tanh", "ELU"]
    assert isinstance(layers.pop(1), nn.Tanh)
    layers += [nn.GELU()]
    assert names(layers + nn.ModuleList([nn.ReLU()])) == ["Linear", "ELU", "GELU", "ReLU"]
    assert repr(nn.ModuleList()) == "ModuleList()"
    with pytest.raises(TypeError):
        layers.extend(3)
    with pytest.raises(NotImplementedError):
        layers(1)


def test_module_dict():
    d = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Linear(1, 1)})
    assert list(d) == list(d.keys()) == ["b", "a"]
    d["c"] = nn.Tanh()
    d.update([("d", nn.ELU())])
    assert names(d.values()) == ["ReLU", "Linear", "Tanh", "ELU"]
    assert "c" in d
    assert isinstance(d.pop("c"), nn.Tanh)
    del d["d"]
    assert len(d) == 2
    with pytest.raises(KeyError):
        d["x"]
    d.clear()
    assert dict(d.items()) == {}
    for bad, error in ((lambda: d.update(3), TypeError), (lambda: d.update([1]), TypeError),
                       (lambda: d.update([(1, 2, 3)]), ValueError), (lambda: nn.ModuleDict({"keys": nn.ReLU()}), KeyError)):  # fmt: skip
        with pytest.raises(error):
            bad()


def test_parameter_list_and_dict():
    ps = nn.ParameterList([kg.zeros(2), nn.Parameter(kg.ones(1)), "x"])
    assert [n for n, _ in ps.named_parameters()] == ["0", "1"]
    assert repr(ps) == (
        "ParameterList(\n    (0): Parameter containing: [kilograd.float32 of size 2]\n"
        "    (1): Parameter containing: [kilograd.float32 of size 1]\n    (2): Object of type: str\n)"
    )
    ps[2] = kg.zeros(3)
    ps += [kg.zeros(1)]
    assert len(ps) == 4
    assert len(ps[1:3]) == 2
    assert [p.shape[0] for p in ps] == [2, 1, 3, 1]
    d = nn.ParameterDict({"b": kg.zeros(2), "a": kg.ones(1)})
    assert list(d) == ["a", "b"]
    d["c"] = kg.zeros(1)
    assert list((d | nn.ParameterDict({"d": kg.zeros(1)})).keys()) == ["a", "b", "c", "d"]
    assert isinstance(d.pop("c"), nn.Parameter)
    assert d.get("zz") is None
    assert d.setdefault("e", kg.zeros(4)) is d["e"]
    assert d.popitem()[0] == "e"
    assert list(nn.ParameterDict.fromkeys(["x", "y"])) == ["x", "y"]
    for bad, error in ((lambda: ps(1), RuntimeError), (lambda: d(1), RuntimeError), (lambda: d["q"], AttributeError),
                       (lambda: ps[9], IndexError), (lambda: nn.ParameterDict({3: kg.zeros(1)}), TypeError),
                       (lambda: nn.ParameterDict({"keys": kg.zeros(1)}), KeyError)):  # fmt: skip
        with pytest.raises(error):
            bad()


def test_repr():
    assert (
        repr(Net())
        == """Net(
  (first): Linear(in_features=4, out_features=3, bias=True)
  (norm): BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
  (last): Sequential(
    (0): ReLU()
    (1): Linear(in_features=3, out_features=2, bias=False)
  )
)"""
    )


def test_parameters():
    data = kg.ones(2)
    p = nn.Parameter(data)
    assert p.array is data.array
    assert p.is_leaf
    assert p.requires_grad
    assert repr(p) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert nn.Parameter().shape == (0,)
    assert not nn.Parameter(kg.ones(1), requires_grad=False).requires_grad
    with pytest.raises(RuntimeError, match="floating point"):
        nn.Parameter(kg.ones(1, dtype=kg.int64))
    assert type(p * 1) is kg.Tensor
    with pytest.raises(TypeError, match="unexpected keyword"):
        nn.Module(x=3)
    with pytest.raises(NotImplementedError, match="missing the required"):
        nn.Module()(1)


def test_lazy_modules():
    layer = nn.LazyLinear(3)
    assert repr(layer) == "LazyLinear(in_features=0, out_features=3, bias=True)"
    assert repr(layer.weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="uninitialized parameter"):
        layer.weight.shape
    optimizer = kg.optim.SGD(layer.parameters(), lr=0.1)
    state = layer.state_dict()
    kg.manual_seed(1)
    layer(kg.zeros(2, 5)).sum().backward()
    kg.manual_seed(1)
    assert (layer.weight.array == nn.Linear(5, 3).weight.array).all()
    assert type(layer) is nn.Linear
    optimizer.step()
    assert layer.in_features == 5
    nn.LazyLinear(3).load_state_dict(state)
    fresh = nn.LazyLinear(3)
    fresh.load_state_dict(nn.Linear(4, 3).state_dict())
    assert fresh.weight.shape == (3, 4)
    assert copy.deepcopy(nn.LazyConv2d(2, 3))(kg.zeros(1, 4, 5, 5)).shape == (1, 2, 3, 3)
    norm = nn.LazyBatchNorm1d().double()  # its running statistics wait for their shape, too
    norm(kg.randn(4, 6, dtype=kg.float64))
    assert norm.running_mean.shape == (6,) and norm.running_mean.dtype == kg.float64
    assert norm.num_batches_tracked.dtype == kg.int64

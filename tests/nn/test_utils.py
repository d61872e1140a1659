"""Weight norm, spectral norm, parametrizations, functional_call and fusion, against PyTorch's."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn

torch = pytest.importorskip("torch")

LAYERS = {
    "nn.Linear(5, 4)": (3, 5), "nn.Conv2d(2, 4, 3)": (2, 2, 5, 5), "nn.ConvTranspose1d(3, 4, 2)": (2, 3, 4),
}  # fmt: skip
CHANGES = {
    "old weight norm": lambda lib, m: lib.nn.utils.weight_norm(m),
    "old weight norm of all": lambda lib, m: lib.nn.utils.weight_norm(m, dim=None),
    "old spectral norm": lambda lib, m: lib.nn.utils.spectral_norm(m, n_power_iterations=2),
    "weight norm": lambda lib, m: lib.nn.utils.parametrizations.weight_norm(m, dim=1),
    "spectral norm": lambda lib, m: lib.nn.utils.parametrizations.spectral_norm(m),
}
REMOVE = {
    "old weight norm": lambda lib, m: lib.nn.utils.remove_weight_norm(m),
    "old spectral norm": lambda lib, m: lib.nn.utils.remove_spectral_norm(m),
    "weight norm": lambda lib, m: lib.nn.utils.parametrize.remove_parametrizations(m, "weight"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("code", LAYERS)
def test_norms(code, change):
    x = np.random.default_rng(0).standard_normal(LAYERS[code])
    found = []
    for lib in (torch, kg):
        lib.manual_seed(2)
        m = CHANGES[change](lib, eval(code, {"nn": lib.nn}).double())
        values = []
        for _ in range(2):
            out = m(lib.tensor(x))
            values += [out, *lib.autograd.grad((out * out).sum(), list(m.parameters()))]
        m.eval()
        values.append(m(lib.tensor(x)))
        state = dict(m.state_dict())
        text = repr(m)
        if change in REMOVE:
            m = REMOVE[change](lib, m)
            values.append(m(lib.tensor(x)))
        found.append(
            (
                [v.detach().numpy() for v in (*values, *state.values())],
                list(state),
                text,
                list(m.state_dict()),
            )
        )
    (theirs, *their_names), (ours, *our_names) = found
    assert our_names == their_names
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, a):
        return a.triu()


def test_parametrize():
    P = nn.utils.parametrize
    layer = nn.Linear(3, 3)
    P.register_parametrization(layer, "weight", Symmetric())
    assert type(layer).__name__ == "ParametrizedLinear"
    assert P.is_parametrized(layer)
    assert not P.is_parametrized(layer, "bias")
    assert (layer.weight == layer.weight.T).all()
    layer(kg.ones(1, 3)).sum().backward()
    assert layer.parametrizations.weight.original.grad is not None
    layer.weight = kg.eye(3)
    assert layer.weight.tolist() == kg.eye(3).tolist()
    assert layer.weight is not layer.weight
    with P.cached():
        assert layer.weight is layer.weight
    again = copy.deepcopy(layer)
    assert again.weight.tolist() == kg.eye(3).tolist()
    assert [n for n, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
    P.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)
    assert list(layer.state_dict()) == ["bias", "weight"]
    with pytest.raises(ValueError, match="does not have a parametrization"):
        P.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="does not have a parameter"):
        P.register_parametrization(layer, "nothing", Symmetric())

    class Bad(nn.Module):
        def forward(self, x):
            return x[:1]

    with pytest.raises(ValueError, match="may not change the shape"):
        P.register_parametrization(layer, "weight", Bad())


def test_functional_call():
    call = nn.utils.stateless.functional_call
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    w = kg.ones(2, 2, requires_grad=True)
    before = net[0].weight
    mean = kg.zeros(2)
    x = kg.randn(4, 2)
    out = call(net, {"0.weight": w, "1.running_mean": mean}, (x,))
    (g,) = kg.autograd.grad((out * out * out).sum(), w)
    assert g.shape == (2, 2)
    assert net[0].weight is before
    assert mean.abs().sum() > 0
    assert net[1].running_mean.abs().sum() == 0
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    y = kg.ones(1, 2)
    assert call(tied, {"0.weight": kg.ones(2, 2)}, y).tolist() == [[4.0, 4.0]]
    with pytest.raises(ValueError, match="tied"):
        call(tied, {"0.weight": w, "1.weight": before}, y)
    with pytest.raises(RuntimeError, match="missing keys"):
        call(net, {"0.weight": w}, x, strict=True)
    with pytest.raises(AttributeError):
        call(net, {"0.nothing": w}, x)
    assert net[0].weight is before
    linear = nn.Linear(2, 2)
    assert call(linear, {}, (), {"input": x}).tolist() == linear(x).tolist()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_fusion(bias, affine):
    for layer, bn, x, transpose in (
        (nn.Conv2d(2, 3, 3, bias=bias), nn.BatchNorm2d(3, affine=affine), kg.randn(2, 2, 5, 5), False),
        (nn.ConvTranspose2d(2, 3, 3, bias=bias), nn.BatchNorm2d(3, affine=affine), kg.randn(2, 2, 5, 5), True),
        (nn.Linear(2, 3, bias=bias), nn.BatchNorm1d(3, affine=affine), kg.randn(4, 2), False),
    ):  # fmt: skip
        for _ in range(3):
            bn(layer(x))
        bn.eval()
        layer.eval()
        if isinstance(layer, nn.Linear):
            fused = nn.utils.fuse_linear_bn_eval(layer, bn)
        else:
            fused = nn.utils.fuse_conv_bn_eval(layer, bn, transpose)
        np.testing.assert_allclose(
            fused(x).detach().numpy(), bn(layer(x)).detach().numpy(), atol=1e-5
        )

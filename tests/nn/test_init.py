"""Initial values: the same numbers as PyTorch's from the same seed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import kilograd as kg

torch = pytest.importorskip("torch")

CASES = [
    ("uniform_", {}), ("uniform_", {"a": -2, "b": 3}), ("normal_", {}), ("normal_", {"mean": 1, "std": 0.2}),
    ("trunc_normal_", {}), ("trunc_normal_", {"std": 0.02, "a": -0.03, "b": 0.03}),
    ("trunc_normal_", {"a": 2.0, "b": 3.0}), ("trunc_normal_", {"mean": 5.0, "a": 0.0, "b": 1.0}),
    ("constant_", {"val": 0.3}), ("ones_", {}), ("zeros_", {}),
    ("xavier_uniform_", {}), ("xavier_uniform_", {"gain": 2.0}), ("xavier_normal_", {}),
    ("kaiming_uniform_", {}), ("kaiming_uniform_", {"a": 5**0.5, "mode": "fan_out"}),
    ("kaiming_uniform_", {"nonlinearity": "relu"}), ("kaiming_normal_", {}),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "tanh"}), ("kaiming_normal_", {"nonlinearity": "selu"}),
]  # fmt: skip
SHAPES = [(5, 3), (40, 30), (4, 3, 3, 3), (2, 3, 5)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_the_same_numbers(name, kwargs, dtype):
    for shape in SHAPES:
        torch.manual_seed(11)
        kg.manual_seed(11)
        a, b = torch.empty(shape, dtype=getattr(torch, dtype)), kg.empty(*shape, dtype=dtype)
        assert getattr(kg.nn.init, name)(b, **kwargs) is b
        getattr(torch.nn.init, name)(a, **kwargs)
        np.testing.assert_array_equal(b.array, a.numpy())
        assert kg.rand(1).item() == torch.rand(1).item()  # and as many of them


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (3, 2, 4)])
def test_orthogonal(shape):
    torch.manual_seed(5)
    kg.manual_seed(5)
    a = torch.nn.init.orthogonal_(torch.empty(shape), 1.5)
    b = kg.nn.init.orthogonal_(kg.empty(*shape), 1.5)
    np.testing.assert_allclose(b.array, a.numpy(), atol=1e-5)


def test_sparse_eye_dirac():
    torch.manual_seed(5)
    kg.manual_seed(5)
    for name, shape, args in (
        ("sparse_", (10, 4), (0.3,)), ("eye_", (3, 5), ()), ("dirac_", (4, 4, 3), ()),
        ("dirac_", (6, 2, 3, 3), (3,)), ("dirac_", (4, 2, 2, 3, 5), (2,)),
    ):  # fmt: skip
        a = getattr(torch.nn.init, name)(torch.empty(shape), *args)
        b = getattr(kg.nn.init, name)(kg.empty(*shape), *args)
        np.testing.assert_array_equal(b.array, a.numpy(), err_msg=name)


def test_gains_and_errors():
    for name in (
        "linear",
        "conv1d",
        "conv_transpose3d",
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "selu",
    ):
        assert kg.nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert kg.nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain(
        "leaky_relu", 0.3
    )
    for bad in (
        lambda i, z: i.calculate_gain("x"), lambda i, z: i.calculate_gain("leaky_relu", "a"),
        lambda i, z: i.calculate_gain("leaky_relu", True), lambda i, z: i.xavier_uniform_(z(3)),
        lambda i, z: i.kaiming_normal_(z(3, 3), mode="x"), lambda i, z: i.eye_(z(3)),
        lambda i, z: i.dirac_(z(3)), lambda i, z: i.dirac_(z(3, 3, 3), 2),
        lambda i, z: i.sparse_(z(3, 3, 3), 0.1), lambda i, z: i.orthogonal_(z(3)),
    ):  # fmt: skip
        with pytest.raises(ValueError) as theirs:
            bad(torch.nn.init, torch.zeros)
        with pytest.raises(ValueError) as ours:
            bad(kg.nn.init, kg.zeros)
        assert str(ours.value) == str(theirs.value)
    with pytest.warns(UserWarning, match="zero-element"):
        kg.nn.init.kaiming_uniform_(kg.zeros(3, 0))
    with pytest.warns(FutureWarning, match="deprecated"):
        kg.nn.init.xavier_uniform(kg.zeros(3, 2))


def test_parameters_are_filled_in_place_and_stay_leaves():
    p = kg.nn.Parameter(kg.zeros(3, 2))
    version = p._version
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kg.nn.init.constant_(kg.nn.init.normal_(p), 1.0)
    assert p.is_leaf
    assert p.requires_grad
    assert p._version > version


LAYERS = [
    "nn.Linear(7, 5)", "nn.Linear(7, 5, bias=False)", "nn.Bilinear(3, 4, 5)", "nn.Embedding(20, 9, padding_idx=2)",
    "nn.EmbeddingBag(20, 9, padding_idx=3)", "nn.Conv1d(4, 6, 3, groups=2)", "nn.Conv2d(3, 8, (3, 5))",
    "nn.Conv3d(2, 3, 2, bias=False)", "nn.ConvTranspose1d(4, 6, 3)", "nn.ConvTranspose2d(4, 6, 3, groups=2)",
    "nn.ConvTranspose3d(2, 3, 2)", "nn.RNN(3, 4, 2)", "nn.LSTM(3, 5, 2, bidirectional=True, proj_size=2)",
    "nn.GRU(3, 4, bias=False)", "nn.RNNCell(3, 4)", "nn.LSTMCell(3, 4)", "nn.GRUCell(3, 4)",
    "nn.MultiheadAttention(8, 2)", "nn.MultiheadAttention(8, 2, kdim=3, vdim=5, add_bias_kv=True)",
    "nn.MultiheadAttention(8, 2, bias=False)", "nn.TransformerEncoderLayer(8, 2, 16)",
    "nn.TransformerDecoderLayer(8, 2, 16)", "nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)",
    "nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)", "nn.Transformer(8, 2, 2, 1, 16)",
    "nn.BatchNorm2d(3)", "nn.LayerNorm((2, 3))", "nn.GroupNorm(2, 4)", "nn.RMSNorm(3)", "nn.InstanceNorm1d(3, affine=True)",
    "nn.PReLU(3)", "nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 10])",
    "nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Conv2d(1, 2, 3), nn.Linear(4, 2))",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", LAYERS)
def test_layers_start_like_pytorchs(code):
    torch.manual_seed(21)
    kg.manual_seed(21)
    theirs, ours = eval(code, {"nn": torch.nn}), eval(code, {"nn": kg.nn})
    a, b = theirs.state_dict(), ours.state_dict()
    assert list(a) == list(b)
    for key in a:
        np.testing.assert_array_equal(b[key].array, a[key].numpy(), err_msg=key)
    assert kg.rand(1).item() == torch.rand(1).item()
    if hasattr(ours, "reset_parameters"):
        theirs.reset_parameters()
        ours.reset_parameters()
        for (key, p), (_, q) in zip(
            theirs.named_parameters(), ours.named_parameters(), strict=True
        ):
            np.testing.assert_array_equal(q.array, p.detach().numpy(), err_msg=key)

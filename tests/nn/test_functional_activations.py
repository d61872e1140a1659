import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kilograd as kg
from kilograd.kernels.blocks import BLOCK
from tests.nn.compare import both, close, same

F, T = kg.nn.functional, torch.nn.functional
KINKS = np.array([-7.0, -6.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0])
CASES = [
    ("relu", {}), ("relu6", {}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 2.0}),
    ("leaky_relu", {"negative_slope": -0.5}), ("elu", {}), ("elu", {"alpha": 0.5}),
    ("elu", {"alpha": -1.5}), ("selu", {}), ("celu", {}), ("celu", {"alpha": 2.0}), ("gelu", {}),
    ("gelu", {"approximate": "tanh"}), ("silu", {}), ("mish", {}), ("softplus", {}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}), ("logsigmoid", {}), ("hardtanh", {}),
    ("hardtanh", {"min_val": -3.0, "max_val": 2.0}), ("hardsigmoid", {}), ("hardswish", {}),
    ("hardshrink", {}), ("softshrink", {}), ("softshrink", {"lambd": 1.0}), ("softsign", {}),
    ("tanhshrink", {}), ("threshold", {"threshold": 0.5, "value": 9.0}), ("sigmoid", {}),
    ("tanh", {}), ("rrelu", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES)
def test_at_kinks_and_between(name, options):
    between = np.random.default_rng(0).standard_normal(50) * 3
    x = np.concatenate([KINKS, between])
    same(getattr(F, name), getattr(T, name), x, **options)
    if name != "hardsigmoid":  # PyTorch has no second derivative of it
        same(getattr(F, name), getattr(T, name), between, second=True, **options)
    same(getattr(F, name), getattr(T, name), x.astype(np.float32), rtol=1e-5, atol=2e-6, **options)
    same(getattr(F, name), getattr(T, name), np.array(-0.7), **options)
    same(getattr(F, name), getattr(T, name), np.zeros((0, 3)), **options)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_far_out(name, options):
    """No overflow, no warning, at the ends of float32."""
    x = np.array([-np.inf, -1e30, -1e4, -100, -80, 80, 100, 1e4, 1e30, np.inf, np.nan], np.float32)
    if name in (
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "tanhshrink",
        "softsign",
    ):
        x = x[2:-2]  # inf * 0 there, in PyTorch too
    k, t = both(x)
    close(getattr(F, name)(k, **options), getattr(T, name)(t, **options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "elu", "softplus", "logsigmoid"])
def test_large_arrays_in_blocks(name):
    x = np.random.default_rng(1).standard_normal((3, BLOCK + 7)).astype(np.float32)
    same(getattr(F, name), getattr(T, name), x, rtol=1e-5, atol=2e-6)
    same(getattr(F, name), getattr(T, name), x.T, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "name",
    ["relu", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "hardtanh", "relu6", "hardsigmoid",
     "hardswish", "rrelu"],
)  # fmt: skip
def test_in_place(name):
    x = np.random.default_rng(2).standard_normal(20)
    k, t = both(x)
    a, b = k * 2, t * 2
    c, d = getattr(F, name)(a, inplace=True), getattr(T, name)(b, inplace=True)
    assert c is a
    close(a, b)
    (g,) = kg.autograd.grad(c.sum(), k)
    (h,) = torch.autograd.grad(d.sum(), t)
    close(g, h)


def test_underscore_names():
    x = kg.tensor([-2.0, 3.0])
    assert F.relu_(x) is x
    assert x.tolist() == [0.0, 3.0]
    assert F.threshold_(x, 1, -1.0).tolist() == [-1.0, 3.0]
    assert F.leaky_relu_(x, 0.5).tolist() == [-0.5, 3.0]
    assert F.hardtanh_(x).tolist() == [-0.5, 1.0]


def test_prelu():
    x = np.random.default_rng(3).standard_normal((2, 3, 4))
    same(F.prelu, T.prelu, x, np.array([0.1, -0.2, 1.5]), second=True)
    same(F.prelu, T.prelu, x, np.array([0.1]), second=True)
    same(F.prelu, T.prelu, x[0, 0], np.array([0.3]))
    same(F.prelu, T.prelu, np.array(-1.0), np.array(0.3))
    with pytest.raises(RuntimeError, match=r"parameter numbers = 2 and channel size = 3"):
        F.prelu(kg.ones(2, 3), kg.ones(2))


def test_glu():
    x = np.random.default_rng(4).standard_normal((4, 6))
    for dim in (0, 1, -1):
        same(F.glu, T.glu, x, dim=dim, second=True)
    with pytest.raises(RuntimeError, match="must be even"):
        F.glu(kg.ones(3))


def test_rrelu_is_torchs_for_the_same_seed():
    x = np.random.default_rng(5).standard_normal(50).astype(np.float32)
    kg.manual_seed(3), torch.manual_seed(3)
    same(F.rrelu, T.rrelu, x, training=True)


def test_gumbel_softmax_is_torchs_for_the_same_seed():
    x = np.random.default_rng(6).standard_normal((5, 7)).astype(np.float32)
    for hard in (False, True):
        kg.manual_seed(3), torch.manual_seed(3)
        same(F.gumbel_softmax, T.gumbel_softmax, x, tau=0.7, hard=hard, rtol=1e-4, atol=1e-6)


def test_softmax_forms():
    x = np.random.default_rng(7).standard_normal((3, 4, 5))
    for name in ("softmax", "log_softmax", "softmin"):
        ours, theirs = getattr(F, name), getattr(T, name)
        for dim in (0, 1, -1):
            same(ours, theirs, x, dim=dim, second=True)
        same(ours, theirs, x[:, :0], dim=1)
        same(ours, theirs, np.array(2.0), dim=0)
        close(
            ours(kg.arange(4), 0, dtype=kg.float64), theirs(torch.arange(4), 0, dtype=torch.float64)
        )
        close(F.__dict__[name](kg.from_numpy(x), axis=1), theirs(torch.from_numpy(x), 1))
        with pytest.warns(UserWarning, match="Implicit dimension"):
            ours(kg.ones(2, 2))
        with pytest.raises(IndexError):
            ours(kg.ones(2, 2), 2)
        with pytest.raises(RuntimeError):
            ours(kg.arange(3), 0)


def test_softmax_of_large_scores_and_of_narrow_and_wide_rows():
    for shape in [(4, 3), (900, 17), (700, 60), (3, BLOCK), (2000, 40)]:
        x = np.random.default_rng(8).standard_normal(shape).astype(np.float32) * 300
        same(F.softmax, T.softmax, x, dim=-1, rtol=1e-4, atol=1e-6)
        same(F.log_softmax, T.log_softmax, x, dim=-1, rtol=1e-5, atol=1e-4)
    x = np.array([[np.nan, 1.0], [-np.inf, 0.0]])
    close(F.softmax(kg.from_numpy(x), 1), T.softmax(torch.from_numpy(x), 1))


def test_refusals():
    with pytest.raises(ValueError, match="min_val"):
        F.hardtanh(kg.ones(2), 1, -1)
    with pytest.raises(RuntimeError, match="none or tanh"):
        F.gelu(kg.ones(2), approximate="asymptotic")
    with pytest.raises(RuntimeError, match="lambda"):
        F.softshrink(kg.ones(2), -0.1)
    for name in ("gelu", "silu", "elu", "softplus", "hardswish", "leaky_relu"):
        with pytest.raises(RuntimeError, match="not implemented"):
            getattr(F, name)(kg.arange(3))
    assert F.relu(kg.tensor([-1, 2])).tolist() == [0, 2]
    with pytest.raises(RuntimeError):
        F.relu(kg.tensor([True]))


def test_arrays_are_taken_for_tensors():
    assert F.relu(np.array([-1.0, 1.0])).tolist() == [0.0, 1.0]
    assert isinstance(F.softmax(np.zeros((2, 2)), axis=1), kg.Tensor)

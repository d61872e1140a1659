"""repr of tensors: PyTorch's, character for character."""

import numpy as np
import pytest

import kilograd as kg
from kilograd import dtypes, printing


@pytest.fixture(autouse=True)
def default_options():
    yield
    printing.set_printoptions(profile="default")


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (lambda: kg.tensor(1.0), "tensor(1.)"),
        (lambda: kg.tensor([1.0, 2.5]), "tensor([1.0000, 2.5000])"),
        (lambda: kg.tensor([1, -20]), "tensor([  1, -20])"),
        (lambda: kg.tensor([True, False]), "tensor([ True, False])"),
        (lambda: kg.tensor([1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])"),
        (lambda: kg.tensor([1.0, float("nan"), float("-inf")]), "tensor([1., nan, -inf])"),
        (lambda: kg.zeros(0), "tensor([])"),
        (lambda: kg.zeros(0, 3), "tensor([], size=(0, 3))"),
        (lambda: kg.zeros(0, dtype=kg.int64), "tensor([], dtype=kilograd.int64)"),
        (lambda: kg.ones(1, dtype=kg.int32), "tensor([1], dtype=kilograd.int32)"),
        (lambda: kg.ones(2, requires_grad=True), "tensor([1., 1.], requires_grad=True)"),
        (lambda: kg.arange(1001), "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
        (lambda: kg.eye(2), "tensor([[1., 0.],\n        [0., 1.]])"),
    ],
)
def test_repr(t, text):
    assert repr(t()) == str(t()) == text


def test_repr_names_the_operation_that_made_it():
    y = kg.ones(2, requires_grad=True) * 2
    assert repr(y) == f"tensor([2., 2.], grad_fn=<{y.grad_fn.name()}>)"


def test_a_profile_that_is_none():
    with pytest.raises(ValueError, match="profile"):
        printing.set_printoptions(profile="loud")


def arrays():
    rng = np.random.default_rng(0)
    shapes = [
        (),
        (1,),
        (3,),
        (2, 3),
        (2, 3, 4),
        (0,),
        (0, 3),
        (40,),
        (1001,),
        (50, 50),
        (2, 2, 500),
        (7, 200),
    ]
    for shape in shapes:
        for dtype in (
            np.float32,
            np.float64,
            np.float16,
            np.int64,
            np.uint8,
            np.bool_,
            np.complex64,
        ):
            for scale in (1, 1e-6, 1e6, 0):
                with np.errstate(all="ignore"):
                    a = (rng.standard_normal(shape) * scale * 10).astype(dtype)
                yield np.asarray(a)
                if a.size and a.dtype.kind == "f":
                    b = np.array(a)
                    b.flat[0], b.flat[-1] = np.inf, np.nan
                    yield np.asarray(np.round(a))
                    yield b
                    yield np.asarray(np.round(b))


@pytest.fixture
def pytorch_names(monkeypatch):
    """dtypes under PyTorch's names: their length decides where a line is broken."""
    monkeypatch.setattr(dtypes.dtype, "__repr__", lambda d: f"torch.{d.name}")
    return pytest.importorskip("torch")


def test_as_pytorch(pytorch_names):
    torch = pytorch_names
    for a in arrays():
        theirs, ours = torch.from_numpy(np.array(a)), kg.from_numpy(np.array(a))
        assert repr(ours) == repr(theirs)
        if a.dtype.kind == "f":
            assert repr(ours.requires_grad_()) == repr(theirs.requires_grad_())


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2}, {"profile": "short"}, {"profile": "full"}, {"sci_mode": True},
        {"sci_mode": False}, {"linewidth": 40}, {"edgeitems": 1, "threshold": 5},
        {"edgeitems": 0, "threshold": 5},
    ],
)  # fmt: skip
def test_options_as_pytorch(pytorch_names, options):
    torch, rng = pytorch_names, np.random.default_rng(0)
    try:
        torch.set_printoptions(**options)
        printing.set_printoptions(**options)
        for shape in [(), (3,), (12,), (2, 3), (5, 7), (2, 3, 4)]:
            a = rng.standard_normal(shape)
            for b in (a, np.round(a * 5), (a * 9).astype(int), a * 1e5, a + 1j * a):
                b = np.asarray(b)
                assert repr(kg.from_numpy(np.array(b))) == repr(torch.from_numpy(np.array(b)))
    finally:
        torch.set_printoptions(profile="default")

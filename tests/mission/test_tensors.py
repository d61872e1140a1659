"""Tensors: what they are made of, what they say of themselves, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from tests.mission.rows import close, numbers, row


@row("Tensor and dtypes", "tensor class", ancestors="all")
def test_tensor_class():
    """`kg.Tensor`, made by `kg.tensor(data)`: an array (`x.array`) that remembers how it was computed."""
    a = numbers(2, 3)
    x = kg.tensor(a, requires_grad=True)
    y = x * 2
    assert type(y) is kg.Tensor and not isinstance(y, np.ndarray)
    assert isinstance(x.array, np.ndarray) and y.grad_fn is not None and x.grad_fn is None
    close(y, 2 * a)
    a[:] = 0
    assert x.array.all()  # the tensor has a copy


@row("Tensor and dtypes", "default dtype", ancestors="all")
def test_default_dtype():
    """float32 for Python floats, int64 for ints, as given for NumPy arrays; `kg.set_default_dtype` changes it."""
    assert kg.tensor([1.5]).dtype == kg.float32 and kg.tensor([1]).dtype == kg.int64
    assert kg.tensor(np.ones(2)).dtype == kg.float64 and kg.ones(2).dtype == kg.float32
    assert (kg.ones(2, dtype=kg.float64) * kg.ones(2)).dtype == kg.float64
    kg.set_default_dtype(kg.float64)
    try:
        assert kg.tensor([1.5]).dtype == kg.float64 == kg.zeros(2).dtype
    finally:
        kg.set_default_dtype(kg.float32)


@row("Tensor and dtypes", "requires_grad default", ancestors="all")
def test_requires_grad_default():
    """Gradients are on request: `requires_grad` is False for tensors and True for `kg.nn.Parameter`."""
    x = kg.tensor([1.0])
    assert not x.requires_grad and not (x * 2).requires_grad
    assert kg.nn.Parameter(x).requires_grad and kg.tensor([1.0], requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        (x * 2).sum().backward()


@row(
    "Tensor and dtypes", "requires_grad settable on leaves",
    ancestors="synapgrad, neograd, simple_autograd",
)  # fmt: skip
def test_requires_grad_settable_on_leaves():
    """`x.requires_grad = True` or `x.requires_grad_()` on leaves; a computed tensor refuses False."""
    x, w = kg.tensor([2.0]), kg.tensor([3.0])
    x.requires_grad = True
    y = x * w.requires_grad_()
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad = False
    w.requires_grad_(False)
    (x * w).sum().backward()
    assert x.grad.tolist() == [3] and w.grad is None


@row("Tensor and dtypes", "dtype= argument", ancestors="synapgrad")
def test_dtype_argument():
    """`dtype=` in every creator, exactly: a float64 literal never passes through float32."""
    assert kg.tensor([0.1], dtype=kg.float64).item() == 0.1
    assert kg.tensor(16777217, dtype=kg.float64).item() == 16777217.0  # float32 has no such number
    assert kg.full((1,), 0.1, dtype=kg.float64).item() == 0.1
    assert kg.tensor([1.9], dtype=kg.int32).tolist() == [1]
    assert kg.ones(2, dtype=kg.float16).to(kg.float64).dtype == kg.float64


@row("Tensor and dtypes", "named tensors", ancestors="synapgrad, pygrad")
def test_named_tensors():
    """`x.name` is an attribute to set; drawings and formulas use it."""
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    assert x.name is None
    x.name = "weight"
    assert kg.viz.formula((x * 3).sum()) == "sum(weight * 3)"
    assert "weight" in (x * 3).draw_graph().dot


@row("Tensor and dtypes", "device abstraction", ancestors="synapgrad, macrograd")
def test_device_abstraction():
    """`kg.device` and `.to(device)` as in PyTorch; the one device is the CPU, and others are refused."""
    x = kg.ones(2, device="cpu")
    assert x.device == kg.device("cpu") and x.device.type == "cpu" and x.to("cpu") is x
    assert not kg.cuda.is_available() and kg.nn.Linear(2, 1).to(kg.device("cpu"))(x).shape == (1,)
    with pytest.raises((RuntimeError, AssertionError), match="(?i)cuda"):
        x.to("cuda")


@row("Tensor and dtypes", "creators empty/ones/zeros/_like/arange/eye", ancestors="synapgrad")
def test_creators():
    """`kg.empty`, `ones`, `zeros`, `full`, their `_like` forms, `arange`, `linspace`, `eye`."""
    x = kg.tensor(numbers(2, 3))
    close(kg.ones(2, 3), np.ones((2, 3)))
    close(kg.zeros_like(x), np.zeros((2, 3)))
    assert kg.ones_like(x).dtype == kg.float64 and kg.empty(4, 0, 2).shape == (4, 0, 2)
    assert kg.empty_like(x).shape == x.shape
    close(kg.arange(5, -1, -2), np.arange(5, -1, -2))
    close(kg.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25))
    close(kg.eye(2, 3), np.eye(2, 3))
    close(kg.linspace(0, 1, 5), np.linspace(0, 1, 5))


@row("Tensor and dtypes", "rand/randn/normal/randint", ancestors="synapgrad")
def test_random_creators():
    """`kg.rand`, `randn`, `normal`, `randint`, `randperm`, with PyTorch's numbers for the same seed."""
    u, z = kg.rand(40_000).array, kg.randn(40_000).array
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    assert abs(kg.normal(5.0, 0.1, (10_000,)).array.mean() - 5) < 0.01
    assert set(kg.randint(2, 5, (200,)).tolist()) == {2, 3, 4}
    assert sorted(kg.randperm(7).tolist()) == list(range(7))
    kg.manual_seed(0)
    close(kg.rand(2), [0.49625658988952637, 0.7682217955589294], 1e-7)  # as PyTorch's


@row("Tensor and dtypes", "manual_seed", ancestors="synapgrad")
def test_manual_seed():
    """`kg.manual_seed(n)` repeats every random number: weights, dropout, the order of batches."""

    def run():
        kg.manual_seed(3)
        layer = kg.nn.Linear(4, 2)
        return layer.weight, kg.nn.functional.dropout(kg.ones(50)), kg.randperm(20)

    first, second = run(), run()
    assert all(kg.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not kg.equal(kg.nn.Linear(4, 2).weight, first[0])


@row("Tensor and dtypes", "item()", ancestors="synapgrad, simple_autograd")
def test_item():
    """`x.item()` is a Python number of a one-element tensor, and an error of a larger one."""
    assert type(kg.tensor(1.5).item()) is float and kg.tensor([[1.5]]).item() == 1.5
    assert type(kg.tensor([3]).item()) is int and type(kg.tensor(True).item()) is bool
    with pytest.raises(RuntimeError, match="2 elements"):
        kg.ones(2).item()


@row("Tensor and dtypes", "numpy() / detach() / clone()", ancestors="synapgrad, simple_autograd")
def test_numpy_detach_clone():
    """`numpy()` and `detach()` share memory; `clone()` copies it and keeps the graph."""
    x = kg.tensor(numbers(3), requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()  # would leave the graph without a word
    d, c = x.detach(), x.clone()
    assert d.numpy() is x.array and not d.requires_grad and c.array is not x.array
    up = numbers(3)
    c.backward(kg.tensor(up))  # a copy is no cut
    close(x.grad, up)


@row("Tensor and dtypes", "len(), iteration", ancestors="synapgrad, pygrad, simple_autograd")
def test_len_and_iteration():
    """`len(x)` and `for row in x`, also nested, go along the first dimension and keep the graph."""
    x = kg.tensor(numbers(3, 2), requires_grad=True)
    values = [v for r in x for v in r]
    assert len(x) == 3 and all(v.shape == () and v.requires_grad for v in values)
    (values[3] * 5).backward()
    close(x.grad, [[0, 0], [0, 5], [0, 0]])
    with pytest.raises(TypeError, match="0-d"):
        iter(kg.tensor(1.0))


@row("Tensor and dtypes", "value equality ==", ancestors="pygrad, simple_autograd")
def test_value_equality():
    """`==` compares elementwise and gives booleans; `kg.equal` is one answer; tensors can be hashed."""
    x, y = kg.tensor([1.0, 2.0]), kg.tensor([1.0, 3.0])
    assert (x == y).tolist() == [True, False] and (x == y).dtype == kg.bool
    assert not kg.equal(x, y) and kg.equal(x, x.clone())
    assert {x: "here"}[x] == "here" and len({x, y, x}) == 2
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(x == y)


@row("Tensor and dtypes", "pretty repr with grad_fn", ancestors="all")
def test_pretty_repr_with_grad_fn():
    """`print(x)` is PyTorch's: values in columns, dtype where it is not the default, `grad_fn`."""
    x = kg.tensor([[1.0, -20.5]], requires_grad=True)
    assert repr(x) == "tensor([[  1.0000, -20.5000]], requires_grad=True)"
    assert "grad_fn=<MultiplyBackward0>" in repr(x * 2)
    assert repr(kg.tensor([1, 2], dtype=kg.int32)) == "tensor([1, 2], dtype=kilograd.int32)"
    assert len(repr(kg.zeros(1000, 1000))) < 1000


@row("Tensor and dtypes", "numel/size/ndim/shape", ancestors="all")
def test_numel_size_ndim_shape():
    """`shape`, `size()`, `ndim`, `numel()`; a shape is a tuple, and `size(-1)` one of its numbers."""
    x = kg.zeros(2, 3, 4)
    assert x.shape == (2, 3, 4) == x.size() and x.size(-1) == 4
    assert x.ndim == x.dim() == 3 and x.numel() == x.shape.numel() == 24
    assert kg.tensor(1.0).shape == () and kg.zeros(0, 3).numel() == 0


@row(
    "Tensor and dtypes", "accepts plain ndarrays in functional ops",
    ancestors="neograd, macrograd, pygrad, simple_autograd",
)  # fmt: skip
def test_accepts_plain_ndarrays_in_functional_ops():
    """Functions and operators take NumPy arrays beside tensors, on either side, and keep the graph."""
    a, b = numbers(2, 3), numbers(3, 2)
    x = kg.tensor(a, requires_grad=True)
    for y, expected in (
        (kg.matmul(x, b), a @ b), (b @ x, b @ a), (kg.exp(a), np.exp(a)), (a - x, 0 * a),
        (kg.maximum(x, np.zeros((2, 3))), np.maximum(a, 0)),
    ):  # fmt: skip
        assert isinstance(y, kg.Tensor)
        close(y, expected)
    assert (a - x).requires_grad


@row("Tensor and dtypes", "refuses bad input types", ancestors="all")
def test_refuses_bad_input_types():
    """Text, None, ragged lists and gradients of integers are a TypeError, ValueError or RuntimeError."""
    for bad in ("text", None, [1.0, "a"], {"a": 1}, object()):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            kg.tensor(bad)
        with pytest.raises(TypeError):
            kg.ones(2) + bad
    with pytest.raises(ValueError):
        kg.tensor([[1.0, 2.0], [3.0]])
    with pytest.raises(RuntimeError, match="floating point"):
        kg.tensor([1, 2], requires_grad=True)

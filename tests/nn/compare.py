"""A function of kilograd's and PyTorch's on the same arrays: values, gradients, second gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import kilograd as kg


def both(array: Any) -> tuple[kg.Tensor, torch.Tensor]:
    """The same array as a leaf of each library; floating-point ones require grad."""
    array = np.asarray(array)
    k, t = kg.from_numpy(array.copy()), torch.from_numpy(array.copy())
    if array.dtype.kind == "f":
        k.requires_grad, t.requires_grad = True, True
    return k, t


def close(ours: Any, theirs: Any, what: str = "", rtol: float = 1e-6, atol: float = 1e-9) -> None:
    a = np.asarray(ours.array if isinstance(ours, kg.Tensor) else ours)
    if isinstance(theirs, torch.Tensor):  # some zeros of PyTorch's have no memory: add something
        theirs = (theirs.detach() + 0).numpy() if theirs.is_floating_point() else theirs.numpy()
    b = np.asarray(theirs)
    assert a.dtype == b.dtype, f"{what}: {a.dtype}, expected {b.dtype}"
    assert a.shape == b.shape, f"{what}: {a.shape}, expected {b.shape}"
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=what, equal_nan=True)


def same(
    ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: Any,
    second: bool = False, rtol: float = 1e-6, atol: float = 1e-9, **options: Any,
) -> None:  # fmt: skip
    """``ours(*arrays, **options)`` is ``theirs``, with its gradients for a random upstream."""
    pairs = [both(a) if isinstance(a, (np.ndarray, np.generic)) else (a, a) for a in arrays]
    y, z = ours(*[k for k, _ in pairs], **options), theirs(*[t for _, t in pairs], **options)
    close(y, z, "value", rtol, atol)
    leaves = [(k, t) for k, t in pairs if isinstance(t, torch.Tensor) and t.requires_grad]
    if not leaves or not z.requires_grad:
        return
    up = np.random.default_rng(0).standard_normal(tuple(z.shape)).astype(z.detach().numpy().dtype)
    up = np.asarray(up)
    g = kg.autograd.grad(y, [k for k, _ in leaves], kg.from_numpy(up), create_graph=second)
    h = torch.autograd.grad(z, [t for _, t in leaves], torch.from_numpy(up), create_graph=second)
    for i, (a, b) in enumerate(zip(g, h, strict=True)):
        close(a, b, f"gradient {i}", rtol, atol)
    if second:
        total = sum((a * a).sum() for a in g)
        expected = sum((b * b).sum() for b in h)
        if not expected.requires_grad:
            return
        if total.requires_grad:
            g = kg.autograd.grad(total, [k for k, _ in leaves], materialize_grads=True)
        else:
            g = [kg.zeros_like(k) for k, _ in leaves]
        h = torch.autograd.grad(expected, [t for _, t in leaves], materialize_grads=True)
        for i, (a, b) in enumerate(zip(g, h, strict=True)):
            close(a, b, f"second gradient {i}", rtol * 10, atol * 10)

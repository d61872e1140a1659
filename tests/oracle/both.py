"""The same few statements run by PyTorch and by kilograd: equal results, or exceptions of one type."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

import kilograd as kg


def outcome(code: str, library: Any) -> Any:
    """What the last of ``;``-separated statements gives, or the exception on the way there."""
    names = {"T": library, "np": np}
    *statements, last = (part.strip() for part in code.split(";"))
    try:
        for statement in statements:
            exec(statement, names)
        return eval(last, names)
    except Exception as e:
        return e


def plain(x: Any) -> Any:
    """Tensors of either library as (dtype, array), dtypes as names, nests as lists."""
    if isinstance(x, torch.Tensor):
        return str(x.dtype)[6:], x.detach().resolve_conj().numpy()
    if isinstance(x, kg.Tensor):
        return x.dtype.name, np.asarray(x.array)
    if isinstance(x, (list, tuple)):
        return [plain(y) for y in x]
    if isinstance(x, torch.dtype):
        return str(x)[6:]
    return x.name if hasattr(x, "itemsize") and hasattr(x, "name") else x


def same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return (
            isinstance(b, tuple) and a[0] == b[0] and a[1].shape == b[1].shape
            and np.allclose(a[1], b[1], rtol=1e-5, atol=1e-6, equal_nan=True)
        )  # fmt: skip
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def agree(code: str) -> None:
    """Assert that the two libraries do the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = outcome(code, torch), outcome(code, kg)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), f"{code}\nexpected {theirs!r}\ngot {ours!r}"
        return
    if isinstance(ours, Exception):
        raise AssertionError(f"{code}\nexpected {theirs!r}") from ours
    assert same(plain(theirs), plain(ours)), f"{code}\nexpected {theirs!r}\ngot {ours!r}"

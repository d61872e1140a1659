"""``@row(section, name, ancestors=...)``: a test that proves one row of the table of what the ancestors had.

The ancestors are five small libraries. A row is one thing that at least one of them can do; the first
line of its test's docstring says what kilograd does for it. ``docs/_ext/ancestors.py`` makes the page
"Everything the ancestors had" of these lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

import kilograd as kg

ANCESTORS = ("synapgrad", "neograd", "macrograd", "pygrad", "simple_autograd")
F = TypeVar("F", bound=Callable[..., Any])


class Row(NamedTuple):
    """One row: its test, and the ancestors that had it."""

    test: Callable[..., Any]
    ancestors: tuple[str, ...]


ROWS: dict[tuple[str, str], Row] = {}
NAMES: dict[str, Callable[[], None]] = {}


def row(section: str, name: str, ancestors: str) -> Callable[[F], F]:
    """Register a test as the proof of a row; ``ancestors`` is "all" or names with commas between."""
    had = ANCESTORS if ancestors == "all" else tuple(ancestors.split(", "))
    assert set(had) <= set(ANCESTORS), f"{name}: {ancestors}"

    def register(test: F) -> F:
        before = ROWS.get((section, name))
        assert before is None or same(before.test, test), f"the row {name!r} of {section} is twice"
        ROWS[section, name] = Row(test, had)
        return test

    return register


def old_name(*names: str) -> Callable[[F], F]:
    """Register the proof that what ancestors called ``names`` is here; the docstring says our name."""

    def register(proof: F) -> F:
        for name in names:
            before = NAMES.get(name)
            assert before is None or same(before, proof), f"the name {name!r} is twice"
            NAMES[name] = proof
        return proof

    return register


def same(a: Callable[..., Any], b: Callable[..., Any]) -> bool:
    """Whether two functions are the same lines of the same file (which may be imported twice)."""
    one, other = a.__code__, b.__code__
    return (one.co_filename, one.co_firstlineno) == (other.co_filename, other.co_firstlineno)


# --- what the proofs use ------------------------------------------------------------------------

rng = np.random.default_rng(11)


def numbers(*shape: int) -> np.ndarray:
    """Random float64 numbers, the same in every run."""
    return np.asarray(rng.standard_normal(shape))


def close(tensor: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """The tensor has the shape and, within the tolerance, the values of the array."""
    array = tensor.numpy(force=True) if isinstance(tensor, kg.Tensor) else np.asarray(tensor)
    assert array.shape == np.shape(expected), (array.shape, np.shape(expected))
    np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)


def slopes(fn: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """The value of ``fn``, whose gradients with a random upstream are those of central differences."""
    leaves = [kg.tensor(a, requires_grad=True) for a in arrays]
    y = fn(*leaves)
    upstream = numbers(*y.shape)
    y.backward(kg.tensor(upstream))
    for k, leaf in enumerate(leaves):
        expected = np.zeros(arrays[k].shape)
        for at in np.ndindex(*expected.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = [a.copy() for a in arrays]
                moved[k][at] += step
                with kg.no_grad():
                    sides.append(fn(*map(kg.tensor, moved)).numpy())
            expected[at] = ((sides[0] - sides[1]) * upstream).sum() / 2e-6
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-6, atol=1e-7)
    return np.asarray(y.detach().numpy())

"""How tensors print: as PyTorch prints them, character for character.

The numbers of a tensor share one format. It is chosen by looking at those that will be shown: whole
numbers print as ``1.``, others with four digits after the point, and if the largest is more than a
thousand times the smallest, or very large, or the smallest very small, all print as ``1.0000e+00``.

>>> import kilograd as kg
>>> kg.tensor([1.0, 2.5]), kg.tensor([1e-5, 1.0]), kg.tensor([[1, 2], [3, 4]])
(tensor([1.0000, 2.5000]), tensor([1.0000e-05, 1.0000e+00]), tensor([[1, 2],
        [3, 4]]))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd import dtypes

if TYPE_CHECKING:
    from kilograd.tensor import Tensor

__all__ = ["set_printoptions"]


@dataclass(frozen=True)
class Options:
    """What :func:`set_printoptions` sets."""

    precision: int = 4  # digits after the point
    threshold: float = 1000  # more elements than this are summarised
    edgeitems: int = 3  # how many at each end of a summarised dimension are shown
    linewidth: int = 80
    sci_mode: bool | None = None  # None: decide by the numbers


_PROFILES = {
    "default": Options(),
    "short": Options(precision=2, edgeitems=2),
    "full": Options(threshold=float("inf")),
}
_options = _PROFILES["default"]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print; what is None stays (except ``sci_mode``, where None means automatic).

    Args:
        precision: digits after the decimal point.
        threshold: tensors of more elements are summarised.
        edgeitems: elements shown at each end of a summarised dimension.
        linewidth: characters per line.
        profile: "default", "short" or "full", before the other settings.
        sci_mode: force (True) or forbid (False) scientific notation.

    >>> import kilograd as kg
    >>> kg.set_printoptions(precision=2)
    >>> kg.tensor([0.5])
    tensor([0.50])
    >>> kg.set_printoptions(profile="default")
    """
    global _options
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"profile must be one of {sorted(_PROFILES)}, not {profile!r}")
        _options = replace(_PROFILES[profile], sci_mode=_options.sci_mode)
    given = {
        "precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth,
    }  # fmt: skip
    changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    _options = replace(_options, **changes, sci_mode=sci_mode)


def tensor_repr(t: Tensor) -> str:
    """What ``repr(t)`` says: the values, then the dtype if it is not obvious, and the graph."""
    x, o = np.asarray(t.array), _options
    prefix, suffixes = "tensor(", []
    if x.size == 0:
        body = "[]"
        if x.ndim != 1:
            suffixes.append(f"size={x.shape}")
        if t.dtype is not dtypes.get_default_dtype():
            suffixes.append(f"dtype={t.dtype}")
    else:
        default = dtypes.get_default_dtype()
        if not o.edgeitems:
            suffixes.append(f"size={x.shape}")
        if t.dtype not in (default, default.to_complex(), dtypes.int64, dtypes.bool_):
            suffixes.append(f"dtype={t.dtype}")
        body = _values(x, len(prefix))
    node = t.grad_fn
    if node is not None:
        suffixes.append(f"grad_fn=<{node.name()}>")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    text = prefix + body
    used = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > o.linewidth:
            text += f",\n{' ' * len(prefix)}{suffix}"
            used = len(prefix) + len(suffix)
        else:
            text += f", {suffix}"
            used += len(suffix) + 2
    return text + ")"


def _values(x: np.ndarray, indent: int) -> str:
    summarize = x.size > _options.threshold
    shown = _edges(x) if summarize else x
    if x.dtype.kind == "c":
        real, width = _number_format(shown.real)
        imag, more = _number_format(shown.imag)
        width += more + 1

        def show(z: Any) -> str:
            im = imag(z.imag).lstrip() + "j"
            return real(z.real) + (im if im[0] in "+-" else "+" + im)

        if x.ndim == 0:
            return show(x.item()).lstrip()
        return _nested(x, indent, summarize, show, width)
    number, width = _number_format(shown)
    return number(x.item()) if x.ndim == 0 else _nested(x, indent, summarize, number, width)


def _edges(x: np.ndarray) -> np.ndarray:
    """The part of an array that a summary shows."""
    for axis, n in enumerate(x.shape):
        if n > 2 * _options.edgeitems:
            ends = [*range(_options.edgeitems), *range(n - _options.edgeitems, n)]
            x = x.take(ends, axis)
    return x


def _number_format(shown: np.ndarray) -> tuple[Callable[[Any], str], int]:
    """How to print each of these numbers, and the width that they have in common."""
    precision = _options.precision
    values = shown.ravel().tolist()
    if shown.dtype.kind != "f":
        width = max([len(str(v)) for v in values], default=1)
        return lambda v: str(v).rjust(width), max(width, 1)
    flat = shown.ravel().astype(np.float64)
    ordinary = flat[np.isfinite(flat) & (flat != 0)]
    if ordinary.size == 0:
        return lambda v: _whole(v), 1
    sizes = np.abs(ordinary)
    small, large = sizes.min(), sizes.max()
    whole = bool((ordinary == np.ceil(ordinary)).all())
    scientific = _options.sci_mode
    if scientific is None:
        with np.errstate(over="ignore"):
            scientific = bool(large / small > 1000 or large > 1e8 or small < 1e-4)
    if scientific:
        spec = f".{precision}e"
    elif whole:
        width = max(1 + len(f"{v:.0f}") for v in ordinary.tolist())
        return lambda v: _whole(v).rjust(width), width
    else:
        spec = f".{precision}f"
    width = max(len(format(v, spec)) for v in ordinary.tolist())
    return lambda v: format(v, spec).rjust(width), width


def _whole(v: float) -> str:
    text = f"{v:.0f}"
    return text if text.lstrip("-") in ("inf", "nan") else text + "."


def _nested(
    x: np.ndarray, indent: int, summarize: bool, show: Callable[[Any], str], width: int
) -> str:
    """The brackets of an array; ``indent`` is where its own stands."""
    n, edge = len(x), _options.edgeitems
    cut = summarize and n > 2 * edge
    if x.ndim == 1:
        per_line = max(1, (_options.linewidth - indent) // (width + 2))
        if summarize and not edge:
            words = ["..."]
        elif cut:
            ends = x[:edge].tolist(), x[n - edge :].tolist()
            words = [*map(show, ends[0]), " ...", *map(show, ends[1])]
        else:
            words = list(map(show, x.tolist()))
        lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    rows = [*range(edge), None, *range(n - edge, n)] if cut else [*range(n)]
    parts = [
        "..." if i is None else _nested(x[i], indent + 1, summarize, show, width) for i in rows
    ]
    return "[" + ("," + "\n" * (x.ndim - 1) + " " * (indent + 1)).join(parts) + "]"

"""What a training run has measured, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

NOT_PLOTTED = ("epoch", "step", "seconds")


class History(Mapping[str, list[Any]]):
    """A dict of lists with one value an epoch, None where it was not measured; ``rows`` has a dict an epoch.

    >>> history = History([{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.3}])
    >>> history["val_loss"], history.best("val_loss")
    ([0.5, 0.3], {'epoch': 2, 'val_loss': 0.3})
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows: list[dict[str, Any]] = rows or []

    def best(self, name: str, mode: str | None = None) -> dict[str, Any]:
        """The row in which a value was best; the first of equals.

        Args:
            name: such as ``"val_loss"``.
            mode: "min" or "max"; None: by the name (:func:`direction`).

        Raises:
            KeyError: it was never measured.
        """
        sign = direction(name, mode)
        measured = [r for r in self.rows if is_number(r.get(name))]
        if not measured:
            raise KeyError(f"{name!r} was never measured as a number; there are {list(self)}")
        return max(measured, key=lambda r: sign * r[name])

    def plot(self, keys: Any = None, **options: Any) -> Any:
        """Draw the curves, see :func:`kilograd.viz.curves`; ``keys`` are all that are numbers, by default.

        Raises:
            ImportError: Matplotlib is not installed.
        """
        from kilograd.viz import curves

        if keys is None:
            numbers = [k for k in self if any(is_number(v) for v in self[k])]
            keys = [k for k in numbers if k not in NOT_PLOTTED]
        return curves(self.rows, keys=keys, **options)

    def __getitem__(self, name: str) -> list[Any]:
        found = [row.get(name) for row in self.rows]
        if not any(name in row for row in self.rows):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return _same({**self}, {**other})

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = []
        for row in self.rows:
            cells = (f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, (int, float)))
            lines.append(", ".join(cells))
        return "\n".join(lines) or "History()"


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same, arrays among them."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return a is b or bool(np.array_equal(a, b))


def is_number(value: Any) -> bool:
    """Whether it can be compared: a number, and not NaN."""
    return isinstance(value, (int, float)) and not math.isnan(value)


MORE_IS_BETTER = tuple("accuracy auc rocauc f1 score precision recall r2 map iou dice".split())
LESS_IS_BETTER = tuple("loss error mse mae rmse perplexity".split())


def direction(name: str, mode: str | None) -> float:
    """1.0 where more is better, -1.0 where less is: ``mode`` ("max" or "min") says it, or the name.

    >>> direction("val_accuracy", None), direction("val_loss", None), direction("speed", "max")
    (1.0, -1.0, 1.0)

    Raises:
        ValueError: neither does.
    """
    if mode not in ("min", "max", None):
        raise ValueError(f"mode must be 'min', 'max' or None, but got {mode!r}")
    said = name.lower()
    if mode is None and said.endswith(MORE_IS_BETTER):
        mode = "max"
    elif mode is None and said.endswith(LESS_IS_BETTER):
        mode = "min"
    elif mode is None:
        raise ValueError(f"is more of {name!r} better, or less? Say mode='max' or mode='min'")
    return 1.0 if mode == "max" else -1.0

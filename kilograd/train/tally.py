"""The mean loss and the metrics over the batches of one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.train.metrics.inputs import array_of
from kilograd.train.metrics.metric import MetricCollection

WAITING = 1 << 18  # numbers that are gathered before the metrics look at them


class Tally:
    """Counts batches. Small ones are gathered, so that a metric's fixed cost falls on many at once."""

    def __init__(self, metrics: MetricCollection) -> None:
        self.metrics = metrics
        self.begin()

    def begin(self) -> None:
        """Forget everything; a new pass begins."""
        self.total: float | None = None  # until there is a loss
        self.samples = 0.0
        self.metrics.reset()
        self._forget()

    def _forget(self) -> None:
        self.scores: list[Any] = []
        self.targets: list[Any] = []
        self.waiting = 0

    def add(self, loss: float | None, samples: float, scores: Any, targets: Any) -> None:
        """Count a batch: its mean loss (None: none), how much it counts, what the metrics compare."""
        self.samples += samples
        if loss is not None:
            self.total = (self.total or 0.0) + loss * samples
        if not len(self.metrics):
            return
        if not hasattr(scores, "detach") or not hasattr(targets, "detach"):  # nests, or no targets
            self._look()
            self.metrics.update(_tuples(scores), _tuples(targets))
            return
        s, t = array_of(scores, "the outputs"), array_of(targets, "the targets")
        alike = not self.scores or all(
            a.shape[1:] == b.shape[1:] and a.dtype == b.dtype
            for a, b in ((s, self.scores[0]), (t, self.targets[0]))
        )
        if not alike or not s.ndim or not t.ndim:
            self._look()
        if s.size + t.size > WAITING or s.shape[:1] != t.shape[:1] or not s.ndim:
            self._look()
            self.metrics.update(s, t)
            return
        self.scores.append(s.copy())  # a loader may fill the same memory again
        self.targets.append(t.copy())
        self.waiting += s.size + t.size
        if self.waiting > WAITING:
            self._look()

    def _look(self) -> None:
        """Let the metrics see what was gathered."""
        if self.scores:
            scores, targets = np.concatenate(self.scores), np.concatenate(self.targets)
            self._forget()
            self.metrics.update(scores, targets)

    @property
    def loss(self) -> float | None:
        """The mean loss so far."""
        return None if self.total is None else self.total / (self.samples or 1.0)

    def values(self, prefix: str = "") -> dict[str, Any]:
        """What was measured, by name; numbers are Python's."""
        self._look()
        found: dict[str, Any] = {} if self.total is None else {"loss": self.loss}
        found |= self.metrics.compute()
        return {prefix + name: plain(value) for name, value in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in the middle of a pass keeps, also what the metrics have not seen yet."""
        return {
            "total": self.total, "samples": self.samples, "metrics": self.metrics.state_dict(),
            "scores": list(self.scores), "targets": list(self.targets),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.begin()
        self.metrics.load_state_dict(state["metrics"])
        self.total, self.samples = state["total"], state["samples"]
        self.scores, self.targets = list(state["scores"]), list(state["targets"])
        self.waiting = sum(a.size for a in (*self.scores, *self.targets))


def _tuples(nest: Any) -> Any:
    """A nest with tuples for its lists, which metrics take for rows."""
    if isinstance(nest, list):
        return tuple(map(_tuples, nest))
    return {k: _tuples(v) for k, v in nest.items()} if isinstance(nest, dict) else nest


def plain(value: Any) -> Any:
    """A value as it is; a tensor or array of no dimension as Python's number."""
    return value.item() if hasattr(value, "item") and value.shape == () else value

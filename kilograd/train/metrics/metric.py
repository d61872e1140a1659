"""A metric that is given one batch after another, and the dict of metrics that a training loop drives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kilograd.compile.graph import leaves, mapped
from kilograd.train.metrics.inputs import array_of, no_nan


class Metric:
    """Something counted over batches: ``update`` with each, ``compute`` the value, ``reset`` to begin again.

    Scores and targets are kilograd or PyTorch tensors (which need no ``detach()``), NumPy arrays or lists. The
    value is that of all samples at once, however they were divided into batches; it is a float, or a NumPy
    array. ``compute`` changes nothing, and can be called at any time. An update that raises changes nothing
    either.

    A metric of your own says the three methods:

    Example:
        >>> class Largest(Metric):
        ...     def reset(self):
        ...         self.value = -np.inf
        ...
        ...     def update(self, scores, targets):
        ...         self.value = max(self.value, float(np.max(scores)))
        ...
        ...     def compute(self):
        ...         return self.value
        >>> metric = Largest()
        >>> metric.update([1.0, 3.0], None)
        >>> metric.compute()
        3.0
    """

    def __init__(self) -> None:
        self.reset()

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch."""
        raise NotImplementedError(f"{type(self).__name__} has no update(scores, targets)")

    def compute(self) -> Any:
        """The value over all batches since the last reset.

        Raises:
            ValueError: there was no sample.
        """
        raise NotImplementedError(f"{type(self).__name__} has no compute()")

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} has no reset()")

    def state_dict(self) -> dict[str, Any]:
        """What has been counted, for a checkpoint in the middle of an epoch: all attributes."""
        own = {k: copy.copy(v) for k, v in vars(self).items() if k not in ("reader", "fn")}
        reader = dict(vars(self.reader)) if hasattr(self, "reader") else {}
        return {"type": type(self).__name__, "own": own, "reader": reader}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there, with the options that were saved.

        Raises:
            ValueError: it is the state of a metric of another class.
        """
        kind = type(self).__name__
        if state.get("type", kind) != kind:  # older files do not tell
            raise ValueError(f"the state is of the metric {state['type']}, this one is {kind}")
        vars(self).update({k: copy.copy(v) for k, v in state["own"].items()})
        if hasattr(self, "reader"):
            vars(self.reader).update(state.get("reader") or {"seen": state["seen"]})

    def _some(self, n: float) -> None:
        if not n:
            raise ValueError(
                f"{type(self).__name__}.compute: there is no sample yet, call update first"
            )


class Mean(Metric):
    """The mean of numbers, such as the losses of batches weighted by their sizes.

    Example:
        >>> loss = Mean()
        >>> loss.update(1.0, weight=32)
        >>> loss.update(4.0, weight=16)
        >>> loss.compute()
        2.0
    """

    def reset(self) -> None:
        self.total = self.weight = 0.0

    def update(self, value: Any, weight: Any = 1.0) -> None:
        """Count a number or an array of them, with one weight or a weight for each.

        Raises:
            ValueError: NaN (infinity is counted), or a negative weight.
        """
        values, weights = array_of(value, "value"), array_of(weight, "weight")
        no_nan(values, "value", inf=True)
        no_nan(weights, "weight")
        if (weights < 0).any():
            raise ValueError("Mean: a weight is negative")
        if weights.ndim and weights.shape != values.shape:
            raise ValueError(
                f"Mean: the values have the shape {values.shape}, the weights {weights.shape}"
            )
        weights = np.broadcast_to(weights.astype(np.float64), values.shape)
        there = weights > 0
        total = self.total + float((values[there].astype(np.float64) * weights[there]).sum())
        if np.isnan(total):
            raise ValueError("Mean: the values hold both inf and -inf")
        self.total, self.weight = total, self.weight + float(weights.sum())

    def compute(self) -> float:
        self._some(self.weight)
        return self.total / self.weight


class FromFunction(Metric):
    """The value of a function of all targets and all scores, in scikit-learn's order, as two arrays.

    Of a model with several outputs, or of several targets, the function gets a tuple or dict of arrays; where
    there are no targets, None.

    Example:
        >>> worst = FromFunction(lambda targets, scores: np.abs(targets - scores).max())
        >>> worst.update([1.0, 2.0], [1.0, 4.0])
        >>> worst.update([5.0], [4.5])
        >>> float(worst.compute())
        2.0
    """

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self.fn = fn
        super().__init__()

    def reset(self) -> None:
        self.kept: list[tuple[Any, Any]] = []

    def __deepcopy__(self, memo: Any) -> FromFunction:
        return FromFunction(self.fn)  # the function of an object is that object's, not a copy's

    def update(self, scores: Any, targets: Any) -> None:
        """Keep a copy of a batch."""
        kept = _copied(scores, "the scores"), _copied(targets, "the targets")
        shapes = [a.shape for a in leaves(kept) if a is not None]
        if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
            raise ValueError(
                f"scores of shape {_shapes(kept[0])} and targets of shape {_shapes(kept[1])} are not of as "
                "many samples"
            )
        self.kept.append(kept)

    def compute(self) -> Any:
        """What the function says of all batches."""
        self._some(len(self.kept))
        columns = zip(*map(leaves, self.kept), strict=True)

        def joined(part: Any) -> Any:
            column = next(columns)
            return None if part is None else np.concatenate(column)

        scores, targets = mapped(joined, self.kept[0])
        return self.fn(targets, scores)


def _copied(x: Any, what: str) -> Any:
    """An array of its own; of a tuple or dict of arrays or tensors, such a one; None of None."""
    if x is None:
        return None
    if isinstance(x, (tuple, dict)) and any(getattr(v, "shape", ()) for v in leaves(x)):
        return mapped(lambda v: array_of(v, what).copy(), x)
    return array_of(x, what).copy()


def _shapes(nest: Any) -> Any:
    return mapped(lambda a: getattr(a, "shape", None), nest)


class MetricCollection(Mapping[str, Metric]):
    """A dict of metrics that see the same scores and targets.

    Args:
        metrics: a dict of them, or a list, whose names are those of the classes. A plain function
            stands for :class:`FromFunction` of it.

    Raises:
        TypeError: something else than metrics.
        ValueError: two in a list have one name.

    Example:
        >>> from kilograd.train.metrics import Accuracy, LogLoss
        >>> metrics = MetricCollection({"accuracy": Accuracy(), "loss": LogLoss(logits=True)})
        >>> metrics.update([[2.0, 0.0], [0.0, 2.0]], [0, 0])
        >>> {name: round(value, 4) for name, value in metrics.compute().items()}
        {'accuracy': 0.5, 'loss': 1.1269}
    """

    def __init__(self, metrics: Mapping[str, Any] | Sequence[Any]) -> None:
        named: dict[str, Any]
        if isinstance(metrics, Mapping):
            named = dict(metrics)
        else:
            named = {m.__name__ if _plain(m) else type(m).__name__: m for m in metrics}
        if len(named) < len(metrics):
            raise ValueError("MetricCollection: two metrics of one class need names: give a dict")
        for name, metric in named.items():
            if _plain(metric):
                named[name] = FromFunction(metric)
            elif not all(
                callable(getattr(metric, m, None)) for m in ("update", "compute", "reset")
            ):
                raise TypeError(
                    f"MetricCollection: {name!r} is {type(metric).__name__}, not a Metric"
                )
        self._metrics = named

    def update(self, scores: Any, targets: Any) -> None:
        """Count a batch in each metric; one that raises is named, and those before it have counted the batch."""
        if hasattr(scores, "detach"):  # once, not for each metric
            scores = array_of(scores, "the scores")
        if hasattr(targets, "detach"):
            targets = array_of(targets, "the targets")
        for name, metric in self._metrics.items():
            try:
                metric.update(scores, targets)
            except (TypeError, ValueError) as e:
                raise (TypeError if isinstance(e, TypeError) else ValueError)(
                    f"metric {name!r}: {e}"
                ) from e

    def compute(self) -> dict[str, Any]:
        """The value of each metric."""
        return {name: metric.compute() for name, metric in self._metrics.items()}

    def reset(self) -> None:
        for metric in self._metrics.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """The state of each metric.

        Raises:
            TypeError: one of them has none.
        """
        for name, metric in self._metrics.items():
            if not hasattr(metric, "state_dict") or not hasattr(metric, "load_state_dict"):
                raise TypeError(
                    f"metric {name!r}: {type(metric).__name__} has no state_dict and "
                    "load_state_dict: derive it from Metric, which has them"
                )
        return {name: metric.state_dict() for name, metric in self._metrics.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there. If this raises, all metrics are as they were.

        Raises:
            ValueError: it is the state of other metrics.
        """
        if set(state) != set(self._metrics):
            raise ValueError(
                f"the metrics saved are {sorted(state)}, those here {sorted(self._metrics)}"
            )
        before = self.state_dict()
        for name, metric in self._metrics.items():
            try:
                metric.load_state_dict(state[name])
            except Exception as e:
                for done in self._metrics:
                    self[done].load_state_dict(before[done])
                raise ValueError(f"metric {name!r}: {e}") from e

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


def _plain(metric: Any) -> bool:
    """Whether it is a function, such as scikit-learn's."""
    return callable(metric) and not isinstance(metric, type) and hasattr(metric, "__name__")

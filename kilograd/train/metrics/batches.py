"""How a batch of a network's scores and its targets are read: two classes, several classes, or labels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kilograd.train.metrics.inputs import Array, array_of, column, no_nan

EXPECTED = {
    "binary": "one shape for both, or scores (N, 2)",
    "multiclass": "float scores (N, C) or whole class numbers (N,), and targets (N,)",
    "multilabel": "(N, L) for both",
}
LARGEST = 1_000_000  # class numbers below it are believed without num_classes


class Batch(NamedTuple):
    """A batch in one of the forms that metrics count.

    Attributes:
        task: "binary", "multiclass" or "multilabel".
        form: what the scores are: "rows" (n, C), one for each class; "each" (n,) or (n, L), one for the class 1 or
            for each label; "classes" (n,) or (n, L), predictions already.
        scores: floats, or whole numbers.
        targets: int64, (n,) or, of labels, (n, L).
    """

    task: str
    form: str
    scores: Array
    targets: Array


class Reader:
    """Reads the batches of one metric. The task of the first batch is that of all.

    Args:
        name: of the metric, for error messages.
        task: "binary", "multiclass" or "multilabel"; None finds it out from the shapes.
        threshold: a class or label is predicted where its probability is above.
        logits: scores are logits, not probabilities.
        num_classes: how many classes or labels there are; None finds it out.
        ignore_index: a target that is not counted, such as -100 or 255.
    """

    def __init__(
        self,
        name: str,
        task: str | None,
        *,
        threshold: float = 0.5,
        logits: bool = False,
        num_classes: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if task is not None and task not in EXPECTED:
            raise ValueError(f"{name}: task={task!r}; it is one of {[None, *EXPECTED]}")
        if not 0 < threshold < 1:
            raise ValueError(f"{name}: threshold={threshold}; it is a probability between 0 and 1")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"{name}: num_classes={num_classes}; it is at least 1")
        self.name, self.task, self.threshold, self.logits = name, task, threshold, logits
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        self.seen: tuple[str, int | None] | None = None  # the task, and the columns of the scores

    def read(self, scores: Any, targets: Any) -> Batch:
        """Look at a batch. :meth:`accept` it when it has been counted.

        Raises:
            ValueError: shapes that fit neither each other nor the batches before, NaN scores, targets that are no
                class numbers, or scores outside of [0, 1] that are not said to be logits.
            TypeError: strings.
        """
        s, t = array_of(scores, "the scores"), array_of(targets, "the targets")
        shapes = f"{self.name}: the scores have the shape {s.shape}, the targets {t.shape}"
        if "U" in (s.dtype.kind, t.dtype.kind):
            raise TypeError(f"{self.name}: scores and targets must be numbers, got strings")
        if self.task != "multilabel":
            t = column(t)
            if t.ndim and s.ndim == t.ndim + 1 and s.shape[:2] == (len(t), 1):
                s = s[:, 0]  # (N, 1, ...): one score each
        rows = s.ndim == t.ndim + 1 and s.shape[:1] + s.shape[2:] == t.shape
        task = self.task or self._task_of(s, t, rows, shapes)
        form = "rows" if rows else "each" if s.dtype.kind == "f" else "classes"
        if task == "multilabel":
            fits = s.shape == t.shape and s.ndim == 2
        elif rows:
            fits = task == "multiclass" or s.shape[1] == 2
        else:
            fits = (
                s.shape == t.shape
                and s.ndim > 0
                and (task == "binary" or form == "classes" or not s.size)
            )
        if not fits or 0 in s.shape[1:]:
            one_hot = s.ndim == t.ndim == 2 and task == "multiclass"
            hint = "; of one-hot targets give targets.argmax(1)" if one_hot else ""
            raise ValueError(f"{shapes}; {task} expects {EXPECTED[task]}{hint}")

        if task != "multilabel":
            s = np.moveaxis(s, 1, -1).reshape(t.size, s.shape[1]) if rows else s.reshape(-1)
            t = t.reshape(-1)
            if self.ignore_index is not None:
                counted = t != self.ignore_index
                s, t = s[counted], t[counted]
        width = s.shape[1] if s.ndim == 2 else None
        if t.size and self.seen not in (None, (task, width)):
            was, columns = self.seen or ("", None)
            with_columns = "" if columns is None else f" with {columns} columns"
            raise ValueError(
                f"{shapes}, read as {task}; the batches before were {was}{with_columns}"
            )
        if width is not None and self.num_classes not in (None, width):
            raise ValueError(f"{shapes}, but num_classes is {self.num_classes}")
        most = (width if rows else self.num_classes) or LARGEST if task == "multiclass" else 2
        t = self._whole(t, "targets", most)
        no_nan(s, f"{self.name}: the scores", inf=True)
        if form == "classes":
            s = self._whole(s, "predicted classes", most)
        elif form == "each" and not self.logits and s.size and (s.min() < 0 or s.max() > 1):
            raise ValueError(
                f"{self.name}: scores from {s.min():.4g} to {s.max():.4g} are no probabilities; "
                f"for logits say {self.name}(logits=True)"
            )
        return Batch(task, form, s, t)

    def accept(self, batch: Batch) -> None:
        """Later batches must be like this one."""
        if batch.targets.size:
            self.seen = batch.task, batch.scores.shape[1] if batch.scores.ndim == 2 else None

    def _task_of(self, s: Array, t: Array, rows: bool, shapes: str) -> str:
        if rows:
            return "multiclass"
        if not s.size and self.seen and s.shape == t.shape:
            return self.seen[0]
        if s.ndim == t.ndim == 1:
            return "binary" if s.dtype.kind == "f" else "multiclass"
        if s.ndim == t.ndim == 2 and s.dtype.kind == "f":
            return "multilabel"
        raise ValueError(
            f"{shapes}; expected scores (N, C) with targets (N,), or one shape for both (say then which "
            "task it is: task='binary', 'multiclass' or 'multilabel')"
        )

    def _whole(self, y: Array, what: str, most: int) -> Array:
        """Class numbers below ``most`` as int64."""
        if y.dtype.kind == "f" and (y != np.rint(y)).any():  # NaN is not itself
            raise ValueError(f"{self.name}: the {what} are not whole numbers")
        if y.size and (y.min() < 0 or y.max() >= most):
            more = "; give num_classes if there are more" if most == LARGEST else ""
            raise ValueError(
                f"{self.name}: the {what} go from {y.min()} to {y.max()}, expected 0 to {most - 1}{more}"
            )
        return y.astype(np.int64)

    def predicted(self, batch: Batch) -> Array:
        """The predicted classes, (n,), or labels, (n, L), as int64."""
        s = batch.scores
        if batch.form == "classes":
            return s
        if batch.form == "rows":
            return s.argmax(1)
        p = self.threshold
        return (s > (math.log(p / (1 - p)) if self.logits else p)).astype(np.int64)

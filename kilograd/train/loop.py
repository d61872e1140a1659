"""The training loop, and what it says when a loss turns NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from kilograd.autograd.modes import ModeContext
from kilograd.tensor import Tensor


class NonFiniteError(FloatingPointError):
    """The loss is NaN or infinite; the message names the step and the first bad tensor."""


class Result(NamedTuple):
    """Mean loss and accuracy over some samples, and the confusion matrix (true, predicted)."""

    loss: float
    accuracy: float
    confusion: np.ndarray[Any, Any] | None = None


def predictions(scores: Tensor) -> np.ndarray[Any, Any]:
    """Class numbers from scores: (N, C) → the largest; (N,) or (N, 1) → above zero."""
    s = scores.array
    if s.ndim == 1 or s.shape[1] == 1:
        return (s.reshape(-1) > 0).astype(np.int64)
    return s.argmax(1)


def train_epoch(
    model: Any,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: Any,
    batches: Iterable[Any],
    *,
    step: int = 0,
    max_steps: int | None = None,
    on_step: Callable[[int, float, float], None] | None = None,
) -> tuple[Result, int]:
    """One pass over the batches in training mode; returns the running result and the step count.

    Args:
        on_step: called with (step, loss of this batch, accuracy so far).

    Raises:
        NonFiniteError: a loss is NaN or infinite (before the optimizer uses its gradient).
    """
    model.train()
    total = hits = seen = 0.0
    for x, y in batches:
        if max_steps is not None and step >= max_steps:
            break
        optimizer.zero_grad()
        scores = model(x)
        loss = loss_fn(scores, y)
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the loss is {value} at step {step + 1}: {first_bad_tensor(model, x, scores)}. "
                "Try a smaller learning rate, or clip the gradients."
            )
        loss.backward()
        optimizer.step()
        step += 1
        n = len(y)
        total += value * n
        hits += float((predictions(scores) == y.array.reshape(-1)).sum())
        seen += n
        if on_step is not None:
            on_step(step, value, hits / seen)
    return Result(total / max(seen, 1), hits / max(seen, 1)), step


def evaluate(
    model: Any,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[Any],
    classes: int,
) -> Result:
    """Loss, accuracy and confusion matrix in evaluation mode; the mode is put back after."""
    was_training = model.training
    model.eval()
    total = seen = 0.0
    confusion = np.zeros((classes, classes), np.int64)
    try:
        with ModeContext(grad=False):
            for x, y in batches:
                scores = model(x)
                total += loss_fn(scores, y).item() * len(y)
                seen += len(y)
                np.add.at(confusion, (y.array.reshape(-1).astype(np.int64), predictions(scores)), 1)
    finally:
        model.train(was_training)
    return Result(total / max(seen, 1), float(np.trace(confusion)) / max(seen, 1), confusion)


def first_bad_tensor(model: Any, x: Any, scores: Tensor) -> str:
    """Which tensor is the first that is not finite: input, parameter, or a layer's output."""

    def bad(t: Any) -> bool:
        return (
            isinstance(t, Tensor) and t.array.dtype.kind == "f" and not np.isfinite(t.array).all()
        )

    if bad(x):
        return f"the input batch of shape {tuple(x.shape)} is not finite"
    for name, p in model.named_parameters():
        if bad(p):
            return f"parameter '{name}' of shape {tuple(p.shape)} is not finite"
    for name, b in model.named_buffers():
        if bad(b):
            return f"buffer '{name}' of shape {tuple(b.shape)} is not finite"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if not found and bad(output):
                found.append(f"the output of '{name}' ({type(module).__name__}) is not finite")

        return hook

    handles = [
        m.register_forward_hook(watch(name or "the model")) for name, m in model.named_modules()
    ]
    try:
        with ModeContext(grad=False):
            model(x)
    finally:
        for h in handles:
            h.remove()
    if found:
        return found[0]
    return (
        "the model's output is not finite"
        if bad(scores)
        else "the loss itself (its scores are finite)"
    )

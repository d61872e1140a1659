"""Where a NaN or an infinity came from: the first tensor of a model's forward pass that has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class NonFiniteError(FloatingPointError):
    """The loss is NaN or infinite; the message names the step and the first bad tensor."""


HINT = ". Try a smaller learning rate, or clip the gradients (clip_norm=)."


def first_bad_tensor(model: Any, forward: Callable[[], Any], given: dict[str, Any]) -> str:
    """Which is the first that is not finite: an input, a parameter, a buffer, or a layer's output.

    Args:
        model: kilograd's or PyTorch's; called once more, its modes as they are.
        forward: calls the model.
        given: what it is given, by the names to call it in the answer; nests.
    """
    for name, nest in given.items():
        for where, x in _tensors(nest, name):
            if _bad(x):
                return f"{where}, of shape {tuple(x.shape)}, is not finite"
    for kind, tensors in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
    ):
        for name, t in tensors:
            if _bad(t):
                return f"{kind} '{name}' of shape {tuple(t.shape)} is not finite{HINT}"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if not found and any(_bad(x) for _, x in _tensors(output, "")):
                found.append(f"the output of '{name}' ({type(module).__name__}) is not finite")

        return hook

    handles = [
        m.register_forward_hook(watch(name or "the model")) for name, m in model.named_modules()
    ]
    try:
        forward()
    finally:
        for h in handles:
            h.remove()
    return (found[0] if found else "it is the loss itself: the model's outputs are finite") + HINT


def _tensors(nest: Any, where: str) -> list[tuple[str, Any]]:
    if isinstance(nest, dict):
        return [t for k, v in nest.items() for t in _tensors(v, f"{where}[{k!r}]")]
    if isinstance(nest, (list, tuple)):
        return [t for i, v in enumerate(nest) for t in _tensors(v, f"{where}[{i}]")]
    return [(where, nest)] if hasattr(nest, "detach") else []


def _bad(t: Any) -> bool:
    """Whether a tensor of either library has a NaN or infinity."""
    if not (t.is_floating_point() or t.is_complex()) or not t.numel():
        return False
    return not math.isfinite(abs(t.detach() * 0).sum().item())  # 0 · inf and 0 · NaN are NaN

"""What the trainer asks of the library that a model is from: kilograd, or PyTorch where it is loaded."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilograd.autograd.modes import no_grad
from kilograd.compile.graph import leaves, mapped
from kilograd.functions.shape import cat
from kilograd.nn.module import Module
from kilograd.nn.utils import clip_grad_norm_, clip_grad_value_
from kilograd.tensor import Tensor, wrap
from kilograd.train.metrics.inputs import array_of


@dataclass(frozen=True)
class Engine:
    """The few names that the training loop needs, from one library."""

    name: str
    Module: Any
    Tensor: Any
    tensor: Callable[[Any], Any]  # an array, or another library's tensor, as a tensor of this one
    cat: Callable[[list[Any]], Any]
    no_grad: Callable[[], Any]
    clip_norm: Callable[..., Any]
    clip_value: Callable[..., Any]

    def batch(self, batch: Any) -> Any:
        """The nest with tensors of this library where there were arrays or another one's."""

        def leaf(x: Any) -> Any:
            return self.tensor(x) if isinstance(x, np.ndarray) or hasattr(x, "detach") else x

        return mapped(leaf, dict(batch) if isinstance(batch, Mapping) else batch)

    def join(self, outputs: list[Any]) -> Any:
        """The outputs for many batches as those for one, leaf by leaf."""
        columns = zip(*map(leaves, outputs), strict=True)

        def joined(_: Any) -> Any:
            parts = next(columns)
            if not isinstance(parts[0], self.Tensor) or not len(parts[0].shape):
                raise TypeError(
                    "outputs are joined along the first axis of tensors, but the model gave "
                    f"{'a scalar' if hasattr(parts[0], 'shape') else type(parts[0]).__name__}"
                )
            return self.cat(list(parts)) if len(parts) > 1 else parts[0]

        return mapped(joined, outputs[0])


def engine_of(model: Any) -> Engine:
    """The engine for a model.

    Raises:
        TypeError: it is neither kilograd's nor PyTorch's.
    """
    if isinstance(model, Module):
        return OURS
    torch = sys.modules.get("torch")  # whoever has a model of PyTorch's has imported it
    if torch is not None and isinstance(model, torch.nn.Module):
        return _pytorch(torch, model)
    raise TypeError(f"a model is a kilograd or PyTorch Module, but got {type(model).__name__}")


def _our_tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else wrap(np.array(array_of(x, "a batch")))  # a copy


OURS = Engine(
    "kilograd", Module, Tensor, _our_tensor, cat, no_grad, clip_grad_norm_, clip_grad_value_
)


def _their_tensor(model: Any, x: Any) -> Any:
    torch = sys.modules["torch"]
    if not isinstance(x, torch.Tensor):
        x = torch.from_numpy(np.array(array_of(x, "a batch")))  # a copy
    return x.to(next(model.parameters(), x).device)


def _pytorch(torch: Any, model: Any) -> Engine:
    clip = torch.nn.utils
    return Engine(
        "PyTorch", torch.nn.Module, torch.Tensor, functools.partial(_their_tensor, model), torch.cat,
        torch.no_grad, clip.clip_grad_norm_, clip.clip_grad_value_,
    )  # fmt: skip

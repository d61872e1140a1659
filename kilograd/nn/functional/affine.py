"""Linear and bilinear maps of the last dimension."""

from __future__ import annotations

from kilograd.errors import ShapeError
from kilograd.functions.calling import function
from kilograd.ops import linear as ops
from kilograd.tensor import Tensor

__all__ = ["bilinear", "linear"]


@function(method=False)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (*, I) and (O, I) and (O,) give (*, O).

    >>> import kilograd as kg
    >>> kg.nn.functional.linear(kg.ones(1, 3), kg.ones(2, 3), kg.tensor([0.0, 1.0]))
    tensor([[3., 4.]])

    Raises:
        RuntimeError: the last dimensions differ, or the dtypes.
    """
    return ops.linear(input, weight, bias)


@function(method=False)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input1ᵀ weight[o] input2 + bias[o]``: (*, I), (*, J) and (O, I, J) give (*, O)."""
    a, b, w = input1.array, input2.array, weight.array
    if a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
        raise ShapeError(
            "bilinear(): input batch dimensions do not match: "
            f"got {list(a.shape)} and {list(b.shape)}"
        )
    if w.ndim != 3 or a.shape[-1] != w.shape[1] or b.shape[-1] != w.shape[2]:
        raise ShapeError(
            f"bilinear(): inputs of sizes {list(a.shape)} and {list(b.shape)} do not fit a weight of "
            f"size {list(w.shape)}: expected (*, I), (*, J) and (O, I, J)"
        )
    if bias is not None and bias.array.shape != w.shape[:1]:
        raise ShapeError(
            f"bilinear(): bias has size {list(bias.array.shape)}, expected {[w.shape[0]]}"
        )
    y = ops.bilinear(input1, input2, weight)
    return y if bias is None else y + bias

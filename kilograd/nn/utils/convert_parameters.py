"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from kilograd import functions as fn
from kilograd.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other.

    >>> import kilograd as kg
    >>> kg.nn.utils.parameters_to_vector(kg.nn.Linear(3, 2).parameters()).shape
    kilograd.Size([8])
    """
    return fn.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set each parameter to its part of the vector, which it then shares memory with."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected Tensor, but got: {type(vec)}")
    start = 0
    for p in parameters:
        n = p.numel()
        p.data = vec[start : start + n].view_as(p).data
        start += n

"""Affine layers, and the ones that only reshape."""

from __future__ import annotations

import math
from typing import Any

from kilograd import functions as fn
from kilograd.nn import functional as F
from kilograd.nn import init
from kilograd.nn.lazy import LazyModule
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter, UninitializedParameter
from kilograd.tensor import Tensor

__all__ = [
    "Bilinear", "Flatten", "Identity", "LazyLinear", "Linear", "Neuron", "Unflatten",
]  # fmt: skip


class Linear(Module):
    """``y = x @ weight.T + bias``: x (*, in_features) → (*, out_features).

    ``weight`` (out_features, in_features) and ``bias`` (out_features) start in
    ``U(-k, k)``, ``k = 1/sqrt(in_features)``.

    >>> import kilograd as kg
    >>> kg.nn.Linear(20, 30)(kg.zeros(128, 20)).shape
    kilograd.Size([128, 30])
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(fn.empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(fn.empty(out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        _uniform_bias(self.bias, self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def _uniform_bias(bias: Tensor | None, weight: Tensor) -> None:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default bias of Linear and the convolutions."""
    if bias is not None:
        fan_in, _ = init._calculate_fan_in_and_fan_out(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
        init.uniform_(bias, -bound, bound)


class NonDynamicallyQuantizableLinear(Linear):
    """Linear, under the name PyTorch shows for the projection inside of MultiheadAttention."""


class LazyLinear(LazyModule, Linear):
    """:class:`Linear` whose ``in_features`` is the last size of the first input.

    >>> import kilograd as kg
    >>> layer = kg.nn.LazyLinear(3)
    >>> layer(kg.zeros(2, 7)).shape, layer
    (kilograd.Size([2, 3]), Linear(in_features=7, out_features=3, bias=True))
    """

    _becomes = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(dtype=dtype)
        self.bias = UninitializedParameter(dtype=dtype) if bias else None

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        self.in_features = input.shape[-1]
        if self.has_uninitialized_params():
            self.weight.materialize((self.out_features, self.in_features))
            if self.bias is not None:
                self.bias.materialize((self.out_features,))
            self.reset_parameters()


class Bilinear(Module):
    """``y_k = x1ᵀ A_k x2 + b_k``: x1 (*, in1), x2 (*, in2) → (*, out_features).

    >>> import kilograd as kg
    >>> kg.nn.Bilinear(20, 30, 40)(kg.zeros(8, 20), kg.zeros(8, 30)).shape
    kilograd.Size([8, 40])
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(
            fn.empty(out_features, in1_features, in2_features, device=device, dtype=dtype)
        )
        self.register_parameter(
            "bias", Parameter(fn.empty(out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Neuron(Module):
    """One linear unit, ``x @ w + b``: x (*, inputs) → (*, 1).

    >>> import kilograd as kg
    >>> kg.nn.Neuron(3)(kg.zeros(5, 3)).shape
    kilograd.Size([5, 1])
    """

    _shown = ("inputs",)
    weight: Parameter
    bias: Parameter

    def __init__(self, inputs: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.inputs = inputs
        self.weight = Parameter(fn.empty(1, inputs, device=device, dtype=dtype))
        self.bias = Parameter(fn.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        _uniform_bias(self.bias, self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Identity(Module):
    """Returns its input; takes any arguments.

    >>> import kilograd as kg
    >>> kg.nn.Identity(54, unused=True)(kg.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """Joins the dimensions from ``start_dim`` to ``end_dim`` into one.

    >>> import kilograd as kg
    >>> kg.nn.Flatten()(kg.zeros(32, 1, 5, 5)).shape
    kilograd.Size([32, 25])
    """

    _shown = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)


class Unflatten(Module):
    """Splits dimension ``dim`` into dimensions of the given sizes.

    >>> import kilograd as kg
    >>> kg.nn.Unflatten(1, (2, 5, 5))(kg.zeros(2, 50)).shape
    kilograd.Size([2, 2, 5, 5])
    """

    _shown = ("dim", "unflattened_size")

    def __init__(self, dim: Any, unflattened_size: Any) -> None:
        super().__init__()
        if isinstance(dim, str):
            raise TypeError("unflattened_size must be tuple of tuples: named tensors do not exist")
        if not isinstance(dim, int):
            raise TypeError("dim must be int for unnamed tensors")
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(
                "unflattened_size must be a tuple of ints, but found type "
                f"{type(unflattened_size).__name__}"
            )
        for i, n in enumerate(unflattened_size):
            if not isinstance(n, int):
                raise TypeError(
                    "unflattened_size must be tuple of ints, but found element of type "
                    f"{type(n).__name__} at pos {i}"
                )
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

"""Padding as layers."""

from __future__ import annotations

from typing import Any

from kilograd.nn import functional as F
from kilograd.nn.conv import as_sizes
from kilograd.nn.module import Module
from kilograd.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip


class _Pad(Module):
    """Pads by ``padding``, an int or (left, right, top, bottom, …)."""

    dims: int
    mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = as_sizes(padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _CircularPad(_Pad):
    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        n = self.dims
        if input.ndim not in (n + 1, n + 2):
            raise ValueError(f"expected {n + 1}D or {n + 2}D input (got {input.ndim}D input)")
        return F.pad(input, self.padding, self.mode)


class _ConstantPad(_Pad):
    mode = "constant"
    _shown = ("padding", "value")

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    extra_repr = Module.extra_repr


class _ZeroPad(_ConstantPad):
    extra_repr = _Pad.extra_repr

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)


class CircularPad1d(_CircularPad):
    """Pads with the values from the other end: x (N, C, L).

    >>> import kilograd as kg
    >>> kg.nn.CircularPad1d(1)(kg.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 1., 2., 3., 1.]]])
    """

    dims = 1


class CircularPad2d(_CircularPad):
    """Pads with the values from the other end: x (N, C, H, W)."""

    dims = 2


class CircularPad3d(_CircularPad):
    """Pads with the values from the other end: x (N, C, D, H, W)."""

    dims = 3


class ConstantPad1d(_ConstantPad):
    """Pads with one value: x (*, L).

    >>> import kilograd as kg
    >>> kg.nn.ConstantPad1d((1, 2), 9.0)(kg.tensor([[1.0, 2.0]]))
    tensor([[9., 1., 2., 9., 9.]])
    """

    dims = 1


class ConstantPad2d(_ConstantPad):
    """Pads with one value: x (*, H, W)."""

    dims = 2


class ConstantPad3d(_ConstantPad):
    """Pads with one value: x (*, D, H, W)."""

    dims = 3


class ZeroPad1d(_ZeroPad):
    """Pads with zeros: x (*, L)."""

    dims = 1


class ZeroPad2d(_ZeroPad):
    """Pads with zeros: x (*, H, W).

    >>> import kilograd as kg
    >>> kg.nn.ZeroPad2d(2)(kg.ones(1, 3, 3)).shape
    kilograd.Size([1, 7, 7])
    """

    dims = 2


class ZeroPad3d(_ZeroPad):
    """Pads with zeros: x (*, D, H, W)."""

    dims = 3


class ReflectionPad1d(_Pad):
    """Pads with the mirror image, the border not repeated: x (N, C, L).

    >>> import kilograd as kg
    >>> kg.nn.ReflectionPad1d(2)(kg.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 2., 1., 2., 3., 2., 1.]]])
    """

    dims, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """Pads with the mirror image: x (N, C, H, W)."""

    dims, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Pads with the mirror image: x (N, C, D, H, W)."""

    dims, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Pads with the value at the border: x (N, C, L).

    >>> import kilograd as kg
    >>> kg.nn.ReplicationPad1d(2)(kg.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 1., 2., 2., 2.]]])
    """

    dims, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """Pads with the value at the border: x (N, C, H, W)."""

    dims, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Pads with the value at the border: x (N, C, D, H, W)."""

    dims, mode = 3, "replicate"

"""Dropout: random zeros in training, the identity in evaluation."""

from __future__ import annotations

from collections.abc import Callable

from kilograd.nn import functional as F
from kilograd.nn.module import Module
from kilograd.tensor import Tensor

__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout",
]  # fmt: skip


class _Dropout(Module):
    function: Callable[..., Tensor]
    _shown = ("p", "inplace")

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.p, self.training, self.inplace)


class Dropout(_Dropout):
    """In training, each element is zero with probability ``p``, the others divided by ``1 - p``.

    >>> import kilograd as kg
    >>> kg.nn.Dropout(0.2).eval()(kg.ones(3))
    tensor([1., 1., 1.])
    """

    function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """Zeroes whole channels: x (N, C, L) or (C, L)."""

    function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """Zeroes whole channels: x (N, C, H, W).

    >>> import kilograd as kg
    >>> kg.nn.Dropout2d(0.2)(kg.ones(2, 3, 4, 4)).shape
    kilograd.Size([2, 3, 4, 4])
    """

    function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """Zeroes whole channels: x (N, C, D, H, W)."""

    function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1, for networks of :class:`SELU`."""

    function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels."""

    function = staticmethod(F.feature_alpha_dropout)

"""Convolutions and transposed convolutions in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kilograd import functions as fn
from kilograd.nn import functional as F
from kilograd.nn import init
from kilograd.nn.lazy import LazyModule
from kilograd.nn.linear import _uniform_bias
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter, UninitializedParameter
from kilograd.tensor import Tensor

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d",
    "LazyConvTranspose3d",
]  # fmt: skip

_MODES = ("zeros", "reflect", "replicate", "circular")


def as_sizes(value: Any, n: int) -> tuple[Any, ...]:
    """A tuple of ``n`` numbers from one number; a sequence is taken as it is."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


class _Conv(Module):
    """What all convolutions share: arguments, parameters, padding by other modes."""

    dims: int
    transposed = False
    function: Callable[..., Tensor]
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
        output_padding: Any = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        n = self.dims
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = as_sizes(kernel_size, n)
        self.stride = as_sizes(stride, n)
        self.padding = padding if isinstance(padding, str) else as_sizes(padding, n)
        self.dilation = as_sizes(dilation, n)
        self.output_padding = as_sizes(output_padding, n)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {padding!r}, should be one of 'same', 'valid'"
                )
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if padding_mode not in _MODES:
            raise ValueError(f"padding_mode must be one of {_MODES}, but got {padding_mode=}")
        if self.transposed and padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = Parameter(
            fn.empty(
                channels[0], channels[1] // groups, *self.kernel_size, device=device, dtype=dtype
            )
        )
        self.register_parameter(
            "bias", Parameter(fn.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        _uniform_bias(self.bias, self.weight)

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._pads(), mode=self.padding_mode)
            padding = 0
        return type(self).function(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _pads(self) -> list[int]:
        """``F.pad``'s numbers, last dimension first, for the padding modes other than zeros."""
        pads: list[int] = []
        for i in reversed(range(self.dims)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                pads += [total // 2, total - total // 2]
            else:
                pads += [0, 0] if self.padding == "valid" else [self.padding[i]] * 2  # type: ignore[list-item]
        return pads

    def extra_repr(self) -> str:
        n = self.dims
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        if self.padding != (0,) * n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class Conv1d(_Conv):
    """Convolution (cross-correlation): x (N, C, L) → (N, out_channels, L').

    ``padding`` may be ``"same"`` or ``"valid"``; ``padding_mode`` "zeros", "reflect", "replicate"
    or "circular". With ``groups``, weight is (out_channels, in_channels / groups, kernel).

    >>> import kilograd as kg
    >>> kg.nn.Conv1d(16, 33, 3, stride=2)(kg.zeros(20, 16, 50)).shape
    kilograd.Size([20, 33, 24])
    """

    dims = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Convolution: x (N, C, H, W) → (N, out_channels, H', W'); arguments as :class:`Conv1d`.

    >>> import kilograd as kg
    >>> kg.nn.Conv2d(3, 8, (3, 5), padding="same")(kg.zeros(2, 3, 9, 9)).shape
    kilograd.Size([2, 8, 9, 9])
    """

    dims = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Convolution: x (N, C, D, H, W) → (N, out_channels, D', H', W').

    >>> import kilograd as kg
    >>> kg.nn.Conv3d(2, 4, 3)(kg.zeros(1, 2, 5, 5, 5)).shape
    kilograd.Size([1, 4, 3, 3, 3])
    """

    dims = 3
    function = staticmethod(F.conv3d)


class _ConvTranspose(_Conv):
    """The gradient of a convolution with respect to its input, as a layer."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype, output_padding,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        padding = self.output_padding if output_size is None else self._fit(input, output_size)
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, padding, self.groups,
            self.dilation,
        )  # fmt: skip

    def _fit(self, input: Tensor, output_size: Any) -> list[int]:
        """The output padding with which the output has the wanted size."""
        n, ndim = self.dims, input.ndim
        batched = ndim == n + 2
        if len(output_size) == ndim:
            output_size = output_size[ndim - n :]
        if len(output_size) != n:
            raise ValueError(
                f"ConvTranspose{n}D: for {ndim}D input, output_size must have {n} or "
                f"{n + 1 + batched} elements (got {len(output_size)})"
            )
        least = [
            (size - 1) * s - 2 * p + d * (k - 1) + 1
            for size, s, p, d, k in zip(
                input.shape[ndim - n :],
                self.stride,
                self.padding,
                self.dilation,
                self.kernel_size,
                strict=True,
            )
        ]
        most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
        for low, size, high in zip(least, output_size, most, strict=True):
            if not low <= size <= high:
                raise ValueError(
                    f"requested an output size of {tuple(output_size)}, but valid sizes range from "
                    f"{least} to {most} (for an input of {input.shape[ndim - n :]})"
                )
        return [size - low for size, low in zip(output_size, least, strict=True)]


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution: x (N, C, L) → (N, out_channels, L').

    ``output_padding`` (or ``output_size`` of forward) chooses among the sizes that a strided
    convolution maps to the same L. weight: (in_channels, out_channels / groups, kernel).

    >>> import kilograd as kg
    >>> layer = kg.nn.ConvTranspose1d(4, 2, 3, stride=2)
    >>> layer(kg.zeros(1, 4, 5)).shape, layer(kg.zeros(1, 4, 5), output_size=(12,)).shape
    (kilograd.Size([1, 2, 11]), kilograd.Size([1, 2, 12]))
    """

    dims = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: x (N, C, H, W) → (N, out_channels, H', W').

    >>> import kilograd as kg
    >>> kg.nn.ConvTranspose2d(4, 2, 3, stride=2)(kg.zeros(1, 4, 5, 5)).shape
    kilograd.Size([1, 2, 11, 11])
    """

    dims = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution: x (N, C, D, H, W) → (N, out_channels, D', H', W').

    >>> import kilograd as kg
    >>> kg.nn.ConvTranspose3d(4, 2, 2, stride=2)(kg.zeros(1, 4, 2, 2, 2)).shape
    kilograd.Size([1, 2, 4, 4, 4])
    """

    dims = 3
    function = staticmethod(F.conv_transpose3d)


class _LazyConv(LazyModule, _Conv):
    """A convolution whose ``in_channels`` the first input decides."""

    def __init__(
        self, out_channels: int, kernel_size: Any, *args: Any, bias: bool = True, **kwargs: Any
    ) -> None:
        names = ("stride", "padding", *(("output_padding", "groups", "bias", "dilation")
                 if self.transposed else ("dilation", "groups", "bias")), "padding_mode",
                 "device", "dtype")  # fmt: skip
        settings = {"bias": bias, **kwargs, **dict(zip(names, args, strict=False))}
        bias = settings.pop("bias")
        super().__init__(0, 0, kernel_size, bias=False, **settings)
        self.out_channels = out_channels
        self.weight = UninitializedParameter(dtype=settings.get("dtype"))
        self.bias = UninitializedParameter(dtype=settings.get("dtype")) if bias else None

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        n, size = self.dims, tuple(input.shape)
        if len(size) not in (n + 1, n + 2):
            raise RuntimeError(
                f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {size}"
            )
        self.in_channels = size[-n - 1]
        if not self.has_uninitialized_params():
            return
        if self.in_channels % self.groups:
            raise ValueError("in_channels must be divisible by groups")
        a, b = self.out_channels, self.in_channels
        a, b = (b, a) if self.transposed else (a, b)
        self.weight.materialize((a, b // self.groups, *self.kernel_size))
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


class LazyConv1d(_LazyConv, Conv1d):
    """:class:`Conv1d` whose ``in_channels`` the first input decides."""

    _becomes = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """:class:`Conv2d` whose ``in_channels`` the first input decides.

    >>> import kilograd as kg
    >>> layer = kg.nn.LazyConv2d(8, 3)
    >>> layer(kg.zeros(1, 3, 5, 5)).shape, layer
    (kilograd.Size([1, 8, 3, 3]), Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1)))
    """

    _becomes = Conv2d


class LazyConv3d(_LazyConv, Conv3d):
    """:class:`Conv3d` whose ``in_channels`` the first input decides."""

    _becomes = Conv3d


class LazyConvTranspose1d(_LazyConv, ConvTranspose1d):
    """:class:`ConvTranspose1d` whose ``in_channels`` the first input decides."""

    _becomes = ConvTranspose1d


class LazyConvTranspose2d(_LazyConv, ConvTranspose2d):
    """:class:`ConvTranspose2d` whose ``in_channels`` the first input decides."""

    _becomes = ConvTranspose2d


class LazyConvTranspose3d(_LazyConv, ConvTranspose3d):
    """:class:`ConvTranspose3d` whose ``in_channels`` the first input decides."""

    _becomes = ConvTranspose3d

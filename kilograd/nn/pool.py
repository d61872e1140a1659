"""Pooling: the largest, the mean or the norm of each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kilograd.nn import functional as F
from kilograd.nn.conv import as_sizes
from kilograd.nn.module import Module
from kilograd.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "GlobalAvgPool2d", "LPPool1d", "LPPool2d",
    "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d", "MinPool2d",
]  # fmt: skip


class _MaxPool(Module):
    function: Callable[..., Any]
    _shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices,
        )  # fmt: skip


class MaxPool1d(_MaxPool):
    """The largest of each window: x (N, C, L) → (N, C, L'); stride defaults to the window.

    With ``return_indices`` also where it was, for :class:`MaxUnpool1d`.

    >>> import kilograd as kg
    >>> kg.nn.MaxPool1d(2)(kg.tensor([[[1.0, 3.0, 2.0, 0.0]]]))
    tensor([[[3., 2.]]])
    """

    function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest of each window: x (N, C, H, W) → (N, C, H', W').

    >>> import kilograd as kg
    >>> kg.nn.MaxPool2d(3, stride=2)(kg.zeros(20, 16, 50, 32)).shape
    kilograd.Size([20, 16, 24, 15])
    """

    function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest of each window: x (N, C, D, H, W) → (N, C, D', H', W').

    >>> import kilograd as kg
    >>> kg.nn.MaxPool3d(2)(kg.zeros(1, 2, 4, 4, 4)).shape
    kilograd.Size([1, 2, 2, 2, 2])
    """

    function = staticmethod(F.max_pool3d)


class MinPool2d(_MaxPool):
    """The smallest of each window: x (N, C, H, W) → (N, C, H', W').

    >>> import kilograd as kg
    >>> kg.nn.MinPool2d(2)(kg.tensor([[[[1.0, 3.0], [2.0, 0.0]]]]))
    tensor([[[[0.]]]])
    """

    def forward(self, input: Tensor) -> Any:
        got = F.max_pool2d(
            -input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices,
        )  # fmt: skip
        return (-got[0], got[1]) if self.return_indices else -got


class _MaxUnpool(Module):
    dims: int
    function: Callable[..., Tensor]
    _shown = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = as_sizes(kernel_size, self.dims)
        self.stride = as_sizes(kernel_size if stride is None else stride, self.dims)
        self.padding = as_sizes(padding, self.dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return type(self).function(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )


class MaxUnpool1d(_MaxUnpool):
    """Puts the values of :class:`MaxPool1d` back where they were, zeros elsewhere."""

    dims = 1
    function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """Puts the values of :class:`MaxPool2d` back where they were, zeros elsewhere.

    >>> import kilograd as kg
    >>> x = kg.tensor([[[[1.0, 2.0], [4.0, 3.0]]]])
    >>> y, where = kg.nn.MaxPool2d(2, return_indices=True)(x)
    >>> kg.nn.MaxUnpool2d(2)(y, where)
    tensor([[[[0., 0.],
              [4., 0.]]]])
    """

    dims = 2
    function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """Puts the values of :class:`MaxPool3d` back where they were, zeros elsewhere."""

    dims = 3
    function = staticmethod(F.max_unpool3d)


class AvgPool1d(Module):
    """The mean of each window: x (N, C, L) → (N, C, L').

    >>> import kilograd as kg
    >>> kg.nn.AvgPool1d(3, stride=2)(kg.tensor([[[1.0, 2, 3, 4, 5, 6, 7]]]))
    tensor([[[2., 4., 6.]]])
    """

    _shown = ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = as_sizes(kernel_size, 1)
        self.stride = as_sizes(kernel_size if stride is None else stride, 1)
        self.padding = as_sizes(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad,
        )  # fmt: skip


class _AvgPool(Module):
    function: Callable[..., Tensor]
    _shown = ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override,
        )  # fmt: skip


class AvgPool2d(_AvgPool):
    """The mean of each window: x (N, C, H, W) → (N, C, H', W').

    >>> import kilograd as kg
    >>> kg.nn.AvgPool2d((3, 2), stride=(2, 1))(kg.zeros(20, 16, 50, 32)).shape
    kilograd.Size([20, 16, 24, 31])
    """

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """The mean of each window: x (N, C, D, H, W) → (N, C, D', H', W')."""

    function = staticmethod(F.avg_pool3d)


class _AdaptiveAvgPool(Module):
    function: Callable[..., Tensor]
    _shown = ("output_size",)

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means over windows chosen to give ``output_size`` of them: x (N, C, L) → (N, C, out)."""

    function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means over windows chosen to give ``output_size``, an int or a pair (None: keep).

    >>> import kilograd as kg
    >>> kg.nn.AdaptiveAvgPool2d((5, None))(kg.zeros(1, 64, 8, 9)).shape
    kilograd.Size([1, 64, 5, 9])
    """

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means over windows chosen to give ``output_size``: x (N, C, D, H, W)."""

    function = staticmethod(F.adaptive_avg_pool3d)


class GlobalAvgPool2d(Module):
    """The mean over all places: x (N, C, H, W) → (N, C).

    >>> import kilograd as kg
    >>> kg.nn.GlobalAvgPool2d()(kg.ones(2, 3, 4, 4)).shape
    kilograd.Size([2, 3])
    """

    def forward(self, input: Tensor) -> Tensor:
        return input.mean((-2, -1))


class _AdaptiveMaxPool(Module):
    function: Callable[..., Any]
    _shown = ("output_size",)

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self).function(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest in windows chosen to give ``output_size`` of them: x (N, C, L)."""

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest in windows chosen to give ``output_size``: x (N, C, H, W).

    >>> import kilograd as kg
    >>> kg.nn.AdaptiveMaxPool2d(7)(kg.zeros(1, 64, 10, 9)).shape
    kilograd.Size([1, 64, 7, 7])
    """

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest in windows chosen to give ``output_size``: x (N, C, D, H, W)."""

    function = staticmethod(F.adaptive_max_pool3d)


class _LPPool(Module):
    function: Callable[..., Tensor]
    _shown = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )


class LPPool1d(_LPPool):
    """``(Σ x^p)^(1/p)`` of each window: x (N, C, L) → (N, C, L')."""

    function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    """``(Σ x^p)^(1/p)`` of each window: x (N, C, H, W) → (N, C, H', W').

    >>> import kilograd as kg
    >>> kg.nn.LPPool2d(2, 2)(kg.ones(1, 1, 2, 2)).item()
    2.0
    """

    function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """``(Σ x^p)^(1/p)`` of each window: x (N, C, D, H, W)."""

    function = staticmethod(F.lp_pool3d)


class _FractionalMaxPool(Module):
    dims: int
    function: Callable[..., Any]

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        n, name = self.dims, type(self).__name__
        if output_size is not None and output_ratio is not None:
            raise ValueError(f"only one of output_size and output_ratio may be specified: {name}")
        if output_size is None and output_ratio is None:
            raise ValueError(
                f"{name} requires specifying either an output size, or a pooling ratio"
            )
        if (isinstance(kernel_size, int) and kernel_size <= 0) or (
            isinstance(kernel_size, (tuple, list)) and not all(k > 0 for k in kernel_size)
        ):
            raise ValueError(f"kernel_size must be greater than zero, but got {kernel_size}")
        self.kernel_size = as_sizes(kernel_size, n)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else as_sizes(output_size, n)
        self.output_ratio = None if output_ratio is None else as_sizes(output_ratio, n)
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            _random_samples=self._random_samples,
        )  # fmt: skip


class FractionalMaxPool2d(_FractionalMaxPool):
    """The largest in windows with random borders: x (N, C, H, W) → (N, C, *output_size)."""

    dims = 2
    function = staticmethod(F.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    """The largest in windows with random borders: x (N, C, D, H, W)."""

    dims = 3
    function = staticmethod(F.fractional_max_pool3d)

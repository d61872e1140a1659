"""Normalisation: mean 0 and variance 1 over the batch, the features, groups or places."""

from __future__ import annotations

import warnings
from typing import Any

from kilograd import dtypes
from kilograd import functions as fn
from kilograd.kernels.kernel import number
from kilograd.nn import functional as F
from kilograd.nn import init
from kilograd.nn.lazy import LazyModule
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter
from kilograd.tensor import Tensor

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d",
    "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LocalResponseNorm",
    "RMSNorm",
]  # fmt: skip


class _Statistics(Module):
    """What batch and instance norm share: a scale, a shift, and running mean and variance."""

    _version = 2
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool,
        track_running_stats: bool, device: Any, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def made(wanted: bool) -> Tensor | None:
            return fn.empty(num_features, device=device, dtype=dtype) if wanted else None

        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(made(True)) if wanted else None)
        self.register_buffer("running_mean", made(track_running_stats))
        self.register_buffer("running_var", made(track_running_stats))
        self.register_buffer(
            "num_batches_tracked",
            fn.tensor(0, dtype=dtypes.int64) if track_running_stats else None,
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, no statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:  # fmt: skip
        key = prefix + "num_batches_tracked"
        old = local_metadata.get("version") is None or local_metadata["version"] < 2
        if old and self.num_batches_tracked is not None and key not in state_dict:
            state_dict[key] = self.num_batches_tracked.detach()  # it did not exist then
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class _BatchNorm(_Statistics):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        training = self.training
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        if training and self.track_running_stats:
            seen = self.num_batches_tracked
            if seen is not None:
                seen.array += 1
                seen._cell[0] += 1
                if momentum is None:  # the plain average of all batches
                    momentum = 1.0 / number(seen.array)
        elif training:
            mean = var = None
        return F.batch_norm(
            input, mean, var, self.weight, self.bias,
            training or (self.running_mean is None and self.running_var is None),
            0.0 if momentum is None else momentum, self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Normalises each feature over the batch: x (N, C) or (N, C, L).

    In training by the batch's own mean and variance, which also move the running ones by
    ``momentum`` (None: their plain average); in evaluation by the running ones.

    >>> import kilograd as kg
    >>> kg.nn.BatchNorm1d(2)(kg.tensor([[1.0, 5.0], [3.0, 9.0]])).round(decimals=3)
    tensor([[-1., -1.],
            [ 1.,  1.]], grad_fn=<Round...>)
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in (2, 3):
            raise ValueError(f"expected 2D or 3D input (got {input.ndim}D input)")


class BatchNorm2d(_BatchNorm):
    """Normalises each channel over the batch and all places: x (N, C, H, W).

    >>> import kilograd as kg
    >>> layer = kg.nn.BatchNorm2d(3)
    >>> layer(kg.randn(2, 3, 4, 4)).shape, list(layer.state_dict())
    (kilograd.Size([2, 3, 4, 4]),
     ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim != 4:
            raise ValueError(f"expected 4D input (got {input.ndim}D input)")


class BatchNorm3d(_BatchNorm):
    """Normalises each channel over the batch and all places: x (N, C, D, H, W)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim != 5:
            raise ValueError(f"expected 5D input (got {input.ndim}D input)")


class _InstanceNorm(_Statistics):
    dims: int

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def _check_input_dim(self, input: Tensor) -> None:
        n = self.dims
        if input.ndim not in (n + 1, n + 2):
            raise ValueError(f"expected {n + 1}D or {n + 2}D input (got {input.ndim}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        channel = input.ndim - self.dims - 1
        if input.shape[channel] != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={channel} to match num_features "
                    f"({self.num_features}), but got: {input.shape[channel]}."
                )
            warnings.warn(
                f"input's size at dim={channel} does not match num_features. You can silence this "
                "warning by not passing in num_features, which is not used because affine=False",
                stacklevel=3,
            )
        if input.ndim == self.dims + 1:
            return self._normalize(input.unsqueeze(0)).squeeze(0)
        return self._normalize(input)

    def _normalize(self, input: Tensor) -> Tensor:
        return F.instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0, self.eps,
        )  # fmt: skip


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sample over its places: x (N, C, L) or (C, L)."""

    dims = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each sample over its places: x (N, C, H, W) or (C, H, W).

    >>> import kilograd as kg
    >>> kg.nn.InstanceNorm2d(3)(kg.randn(2, 3, 4, 4)).shape
    kilograd.Size([2, 3, 4, 4])
    """

    dims = 2


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each sample over its places: x (N, C, D, H, W)."""

    dims = 3


class _LazyStatistics(LazyModule, _Statistics):
    """A normalisation whose number of channels the first input decides."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=False)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(dtype=dtype)
            self.bias = UninitializedParameter(dtype=dtype) if bias else None
        if track_running_stats:
            self.running_mean = UninitializedBuffer(dtype=dtype)
            self.running_var = UninitializedBuffer(dtype=dtype)
            self.num_batches_tracked = fn.tensor(0, dtype=dtypes.int64)

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        self._check_input_dim(input)
        dims = getattr(self, "dims", None)
        self.num_features = input.shape[1 if dims is None else input.ndim - dims - 1]
        if self.has_uninitialized_params():
            for t in (self.weight, self.bias, self.running_mean, self.running_var):
                if t is not None:
                    t.materialize((self.num_features,))
            self.reset_parameters()


class LazyBatchNorm1d(_LazyStatistics, BatchNorm1d):
    """:class:`BatchNorm1d` whose ``num_features`` the first input decides."""

    _becomes = BatchNorm1d


class LazyBatchNorm2d(_LazyStatistics, BatchNorm2d):
    """:class:`BatchNorm2d` whose ``num_features`` the first input decides.

    >>> import kilograd as kg
    >>> layer = kg.nn.LazyBatchNorm2d()
    >>> layer(kg.randn(2, 3, 4, 4)).shape, layer.num_features
    (kilograd.Size([2, 3, 4, 4]), 3)
    """

    _becomes = BatchNorm2d


class LazyBatchNorm3d(_LazyStatistics, BatchNorm3d):
    """:class:`BatchNorm3d` whose ``num_features`` the first input decides."""

    _becomes = BatchNorm3d


class LazyInstanceNorm1d(_LazyStatistics, InstanceNorm1d):
    """:class:`InstanceNorm1d` whose ``num_features`` the first input decides."""

    _becomes = InstanceNorm1d


class LazyInstanceNorm2d(_LazyStatistics, InstanceNorm2d):
    """:class:`InstanceNorm2d` whose ``num_features`` the first input decides."""

    _becomes = InstanceNorm2d


class LazyInstanceNorm3d(_LazyStatistics, InstanceNorm3d):
    """:class:`InstanceNorm3d` whose ``num_features`` the first input decides."""

    _becomes = InstanceNorm3d


class _OverShape(Module):
    """Normalisation over the last dimensions, whose sizes are ``normalized_shape``."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: Any, eps: float | None, elementwise_affine: bool, device: Any,
        dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = None
        if elementwise_affine:
            weight = Parameter(fn.ones(*self.normalized_shape, device=device, dtype=dtype))
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        bias = self._parameters.get("bias")
        if bias is not None:
            init.zeros_(bias)


class LayerNorm(_OverShape):
    """Normalises each sample over its last dimensions: x (*, *normalized_shape).

    >>> import kilograd as kg
    >>> kg.nn.LayerNorm(4)(kg.randn(2, 3, 4)).shape
    kilograd.Size([2, 3, 4])
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        shift = None
        if elementwise_affine and bias:
            shift = Parameter(fn.zeros(*self.normalized_shape, device=device, dtype=dtype))
        self.register_parameter("bias", shift)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(_OverShape):
    """``x / sqrt(mean(x²) + eps) * weight`` over the last dimensions (eps None: the dtype's).

    >>> import kilograd as kg
    >>> kg.nn.RMSNorm(2)(kg.tensor([3.0, 3.0])).detach().round(decimals=3)
    tensor([1., 1.])
    """

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Normalises each of ``num_groups`` groups of channels of each sample: x (N, C, *).

    >>> import kilograd as kg
    >>> kg.nn.GroupNorm(3, 6)(kg.randn(20, 6, 10, 10)).shape
    kilograd.Size([20, 6, 10, 10])
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(
                f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        factory = {"device": device, "dtype": dtype}
        scale = Parameter(fn.ones(num_channels, **factory)) if affine else None
        shift = Parameter(fn.zeros(num_channels, **factory)) if affine and bias else None
        self.register_parameter("weight", scale)
        self.register_parameter("bias", shift)

    def reset_parameters(self) -> None:
        """Scale 1 and shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Divides each channel by a power of the mean square of its neighbours: x (N, C, *).

    >>> import kilograd as kg
    >>> kg.nn.LocalResponseNorm(2)(kg.randn(32, 5, 24, 24)).shape
    kilograd.Size([32, 5, 24, 24])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

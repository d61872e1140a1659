"""Initial values, drawn in place: after ``manual_seed`` the same numbers as PyTorch's.

Every function takes a tensor, fills it outside of the graph and returns it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kilograd import functions as fn
from kilograd.autograd.modes import ModeContext
from kilograd.tensor import Tensor, wrap

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_",
    "normal_", "ones_", "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_",
    "xavier_uniform_", "zeros_",
]  # fmt: skip

T = TypeVar("T", bound=Tensor)
_NO_GAIN = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid",
)  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps variances through a nonlinearity (``param``: LeakyReLU's slope).

    >>> calculate_gain("tanh"), calculate_gain("leaky_relu", 1.0)
    (1.6666666666666667, 1.0)
    """
    if nonlinearity in _NO_GAIN:
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        if param is None:
            slope = 0.01
        elif isinstance(param, (int, float)) and not isinstance(param, bool):
            slope = param
        else:
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs each output has, and how many outputs each input has."""
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def _is_empty(tensor: Tensor) -> bool:
    if tensor.array.size == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def _fill(tensor: T, value: float) -> T:
    tensor.array[...] = value
    tensor._cell[0] += 1
    return tensor


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, generator: Any = None) -> T:
    """Draw from U(a, b).

    >>> import kilograd as kg
    >>> w = kg.nn.init.uniform_(kg.empty(3, 5), -1, 1)
    """
    with ModeContext(grad=False):
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> T:
    """Draw from N(mean, std²)."""
    with ModeContext(grad=False):
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Any = None,
) -> T:  # fmt: skip
    """Draw from N(mean, std²), again and again those that fall outside of [a, b]."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of "
            "values may be incorrect.",
            stacklevel=2,
        )

    def below(x: float) -> float:
        return (1.0 + math.erf((x - mean) / std / math.sqrt(2.0))) / 2.0

    values = tensor.array
    with ModeContext(grad=False):
        if below(b) - below(a) > 0.3:  # most are inside: draw again those that are not
            low, high = values.dtype.type(a), values.dtype.type(b)
            tensor.normal_(mean, std, generator=generator)
            while (outside := (values < low) | (values > high)).any():
                fresh = wrap(np.empty_like(values)).normal_(mean, std, generator=generator)
                np.copyto(values, fresh.array, where=outside)
        else:  # a far tail: uniform candidates, accepted with the density's probability
            peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

            def rejected(candidates: Any) -> Any:
                log_density = ((candidates - mean) / std) ** 2 * -0.5 - peak
                chance = wrap(np.empty_like(candidates)).uniform_(generator=generator).array
                with np.errstate(divide="ignore"):
                    return np.log(chance) > log_density

            pending = rejected(tensor.uniform_(a, b, generator=generator).array)
            while pending.any():
                fresh = wrap(np.empty_like(values)).uniform_(a, b, generator=generator)
                np.copyto(values, fresh.array, where=pending)
                pending &= rejected(fresh.array)
    tensor._cell[0] += 1
    return tensor


def constant_(tensor: T, val: float) -> T:
    """Fill with one value.

    >>> import kilograd as kg
    >>> kg.nn.init.constant_(kg.empty(2), 0.3)
    tensor([0.3000, 0.3000])
    """
    return _fill(tensor, val)


def ones_(tensor: T) -> T:
    """Fill with ones."""
    return _fill(tensor, 1.0)


def zeros_(tensor: T) -> T:
    """Fill with zeros."""
    return _fill(tensor, 0.0)


def eye_(tensor: T) -> T:
    """The identity matrix (2-D tensors)."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    _fill(tensor, 0.0)
    np.fill_diagonal(tensor.array, 1.0)
    return tensor


def dirac_(tensor: T, groups: int = 1) -> T:
    """Convolution weights (3-D to 5-D) that hand as many channels as possible through."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    out, channels, *kernel = tensor.shape
    if out % groups:
        raise ValueError("dim 0 must be divisible by groups")
    _fill(tensor, 0.0)
    center = tuple(k // 2 for k in kernel)
    each = out // groups
    for g in range(groups):
        for d in range(min(each, channels)):
            tensor.array[(g * each + d, d, *center)] = 1.0
    return tensor


def xavier_uniform_(tensor: T, gain: float = 1.0, generator: Any = None) -> T:
    """Draw from U(-a, a), ``a = gain sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio 2010)."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    std = gain * math.sqrt(2.0 / float(fan_in + fan_out))
    a = math.sqrt(3.0) * std
    return uniform_(tensor, -a, a, generator)


def xavier_normal_(tensor: T, gain: float = 1.0, generator: Any = None) -> T:
    """Draw from N(0, std²), ``std = gain sqrt(2 / (fan_in + fan_out))``."""
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / float(fan_in + fan_out)), generator)


def kaiming_uniform_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> T:  # fmt: skip
    """Draw from U(-bound, bound), ``bound = gain sqrt(3 / fan)`` (He et al. 2015).

    Args:
        tensor: what to fill, (outputs, inputs, *kernel).
        a: the slope of the LeakyReLU that follows.
        mode: "fan_in" keeps variances in the forward pass, "fan_out" in the backward pass.
        nonlinearity: what follows; see :func:`calculate_gain`.
        generator: where the numbers come from (default: the one of ``manual_seed``).

    >>> import kilograd as kg
    >>> w = kg.nn.init.kaiming_uniform_(kg.empty(3, 5), mode="fan_in", nonlinearity="relu")
    """
    if _is_empty(tensor):
        return tensor
    fan = _calculate_correct_fan(tensor, mode)
    std = calculate_gain(nonlinearity, a) / math.sqrt(fan)
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: T, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> T:  # fmt: skip
    """Draw from N(0, std²), ``std = gain / sqrt(fan)``; arguments of :func:`kaiming_uniform_`."""
    if _is_empty(tensor):
        return tensor
    fan = _calculate_correct_fan(tensor, mode)
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(fan), generator)


def orthogonal_(tensor: T, gain: float = 1, generator: Any = None) -> T:
    """A (semi-)orthogonal matrix times ``gain``; dimensions after the first count as one.

    >>> import kilograd as kg
    >>> w = kg.nn.init.orthogonal_(kg.empty(3, 5))
    >>> (w @ w.T).round(decimals=3).abs()
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    array = tensor.array
    if array.size == 0:
        return tensor
    rows = array.shape[0]
    normal = normal_(wrap(np.empty((rows, array.size // rows), array.dtype)), generator=generator)
    wide = rows < normal.array.shape[1]
    q, r = np.linalg.qr(normal.array.T if wide else normal.array)
    q = q * np.sign(np.diag(r))  # makes it uniform among orthogonal matrices (Mezzadri 2007)
    array[...] = ((q.T if wide else q) * gain).reshape(array.shape)
    tensor._cell[0] += 1
    return tensor


def sparse_(tensor: T, sparsity: float, std: float = 0.01, generator: Any = None) -> T:
    """Draw from N(0, std²), and in every column a random fraction ``sparsity`` is zero."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    normal_(tensor, 0.0, std, generator)
    for column in range(columns):
        tensor.array[fn.randperm(rows).array[:zeros], column] = 0.0
    tensor._cell[0] += 1
    return tensor


def _old_name(new: Callable[..., Any]) -> Callable[..., Any]:
    old = new.__name__.removesuffix("_")

    def deprecated(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"`nn.init.{old}` is now deprecated in favor of `nn.init.{new.__name__}`.",
            FutureWarning,
            stacklevel=2,
        )
        return new(*args, **kwargs)

    deprecated.__name__ = old
    deprecated.__doc__ = f"The name of before of :func:`{new.__name__}`."
    return deprecated


constant = _old_name(constant_)
dirac = _old_name(dirac_)
eye = _old_name(eye_)
kaiming_normal = _old_name(kaiming_normal_)
kaiming_uniform = _old_name(kaiming_uniform_)
normal = _old_name(normal_)
orthogonal = _old_name(orthogonal_)
sparse = _old_name(sparse_)
uniform = _old_name(uniform_)
xavier_normal = _old_name(xavier_normal_)
xavier_uniform = _old_name(xavier_uniform_)

"""Ready-made parametrizations: weight norm and spectral norm."""

from __future__ import annotations

import numpy as np

from kilograd.nn import functional as F
from kilograd.nn import init
from kilograd.nn.module import Module
from kilograd.nn.utils.parametrize import register_parametrization
from kilograd.tensor import Tensor, wrap

__all__ = ["spectral_norm", "weight_norm"]


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The 2-norm over all dimensions but one (None or -1: over all)."""
    if dim is None or dim == -1:
        return (v * v).sum().sqrt()
    others = [i for i in range(v.ndim) if i != dim % v.ndim]
    return (v * v).sum(others, keepdim=True).sqrt() if others else v.abs()


class _WeightNorm(Module):
    """``w = g v / |v|``."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learn a weight's length and direction apart: ``w = g v / |v|`` (Salimans & Kingma 2016).

    >>> import kilograd as kg
    >>> layer = kg.nn.utils.parametrizations.weight_norm(kg.nn.Linear(20, 40))
    >>> layer.parametrizations.weight.original0.shape  # g
    kilograd.Size([40, 1])
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


def as_matrix(weight: np.ndarray, dim: int) -> np.ndarray:
    """An array with ``dim`` as rows and all else as columns."""
    return np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)


def normalized(x: np.ndarray, eps: float) -> np.ndarray:
    """A vector divided by its length."""
    return x / max(float(np.sqrt(x @ x)), eps)


def power_iterations(
    matrix: np.ndarray, u: np.ndarray, v: np.ndarray, times: int, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn u and v towards the first singular vectors."""
    for _ in range(times):
        u = normalized(matrix @ v, eps)
        v = normalized(matrix.T @ u, eps)
    return u, v


def first_vectors(matrix: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Random vectors of length 1 to begin with."""
    u, v = (init.normal_(wrap(np.empty(n, matrix.dtype))).array for n in matrix.shape)
    return normalized(u, eps), normalized(v, eps)


class _SpectralNorm(Module):
    """``w / σ(w)``, σ the largest singular value, followed by power iterations."""

    _u: Tensor
    _v: Tensor

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{weight.ndim}, "
                f"{weight.ndim - 1}] but got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.array, self.dim)
            u, v = power_iterations(matrix, *first_vectors(matrix, eps), 15, eps)
            self.register_buffer("_u", wrap(u))
            self.register_buffer("_v", wrap(v))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        if self.training:
            u, v = power_iterations(
                as_matrix(weight.array, self.dim), self._u.array, self._v.array,
                self.n_power_iterations, self.eps,
            )  # fmt: skip
            self._u, self._v = wrap(u), wrap(v)
        return weight / singular_value(weight, self._u, self._v, self.dim)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def singular_value(weight: Tensor, u: Tensor, v: Tensor, dim: int) -> Tensor:
    """``uᵀ W v`` of fixed u and v."""
    matrix = weight.movedim(dim, 0).flatten(1)
    return (u.detach() * (matrix @ v.detach())).sum()


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divide a weight by its largest singular value (Miyato et al. 2018).

    >>> import kilograd as kg
    >>> layer = kg.nn.utils.parametrizations.spectral_norm(kg.nn.Linear(20, 40))
    >>> round(float(np.linalg.norm(layer.weight.detach().numpy(), 2)), 1)
    1.0
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    dim = default_dim(module) if dim is None else dim
    return register_parametrization(
        module, name, _SpectralNorm(weight, n_power_iterations, dim, eps)
    )


def default_dim(module: Module) -> int:
    """The dimension of the outputs: 1 in the weights of transposed convolutions."""
    return 1 if getattr(module, "transposed", False) else 0

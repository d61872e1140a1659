"""Spectral norm by a hook before forward: how it was done before parametrizations."""

from __future__ import annotations

from typing import Any

from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter
from kilograd.nn.utils.parametrizations import (
    as_matrix,
    default_dim,
    first_vectors,
    power_iterations,
    singular_value,
)
from kilograd.nn.utils.weight_norm import find_hook
from kilograd.tensor import Tensor, wrap


class SpectralNorm:
    """The hook: sets ``name`` to ``name_orig`` over its largest singular value."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.name = name
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight; in training after turning u and v a little further."""
        weight, u, v = (getattr(module, f"{self.name}_{x}") for x in ("orig", "u", "v"))
        if do_power_iteration:
            matrix = as_matrix(weight.array, self.dim)
            v, u = map(  # v first, here
                wrap,
                power_iterations(matrix.T, v.array, u.array, self.n_power_iterations, self.eps),
            )
            setattr(module, f"{self.name}_u", u)
            setattr(module, f"{self.name}_v", v)
        return weight / singular_value(weight, u, v, self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divide a weight by its largest singular value before each call.

    >>> import kilograd as kg
    >>> list(kg.nn.utils.spectral_norm(kg.nn.Linear(20, 40)).state_dict())
    ['bias', 'weight_orig', 'weight_u', 'weight_v']
    """
    if find_hook(module, SpectralNorm, name) is not None:
        raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    hook = SpectralNorm(name, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    weight = getattr(module, name)
    u, v = first_vectors(as_matrix(weight.array, hook.dim), eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.detach())
    module.register_buffer(f"{name}_u", wrap(u))
    module.register_buffer(f"{name}_v", wrap(v))
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Undo :func:`spectral_norm`, keeping the present weight."""
    number = find_hook(module, SpectralNorm, name)
    if number is None:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    hook: Any = module._forward_pre_hooks.pop(number).fn
    weight = hook.compute_weight(module, do_power_iteration=False).detach()
    for old in (name, f"{name}_orig", f"{name}_u", f"{name}_v"):
        delattr(module, old)
    module.register_parameter(name, Parameter(weight))
    return module

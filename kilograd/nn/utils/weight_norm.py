"""Weight norm by a hook before forward: how it was done before parametrizations."""

from __future__ import annotations

from typing import Any

from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter
from kilograd.nn.utils.parametrizations import norm_except
from kilograd.tensor import Tensor


class WeightNorm:
    """The hook: sets ``name`` to ``g v / |v|`` before each call."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def compute_weight(self, module: Module) -> Tensor:
        """The weight, from its length and direction."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except(v, self.dim))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def find_hook(module: Module, kind: type, name: str) -> int | None:
    """The number of a module's hook of this kind for this tensor."""
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook.fn, kind) and hook.fn.name == name:  # type: ignore[attr-defined]
            return number
    return None


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learn a weight's length ``name_g`` and direction ``name_v`` apart.

    >>> import kilograd as kg
    >>> list(kg.nn.utils.weight_norm(kg.nn.Linear(20, 40)).state_dict())
    ['bias', 'weight_g', 'weight_v']
    """
    if find_hook(module, WeightNorm, name) is not None:
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    hook = WeightNorm(name, -1 if dim is None else dim)
    weight = getattr(module, name)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except(weight, hook.dim).detach()))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Undo :func:`weight_norm`, keeping the present weight."""
    number = find_hook(module, WeightNorm, name)
    if number is None:
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    weight = module._forward_pre_hooks.pop(number).fn.compute_weight(module)  # type: ignore[attr-defined]
    for old in (name, f"{name}_g", f"{name}_v"):
        delattr(module, old)
    setattr(module, name, Parameter(weight.detach()))
    return module

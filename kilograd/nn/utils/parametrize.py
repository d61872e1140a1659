"""Parameters computed from other parameters: a module's ``weight`` becomes a property.

``register_parametrization(layer, "weight", f)`` keeps the old weight as
``layer.parametrizations.weight.original``, and ``layer.weight`` is ``f(original)`` from then on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kilograd.autograd.modes import no_grad
from kilograd.nn.container import ModuleDict, ModuleList
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter
from kilograd.tensor import Tensor

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization",
    "remove_parametrizations",
]  # fmt: skip

_cache: dict[tuple[int, str], Tensor] | None = None


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Within the block, compute every parametrized tensor only once."""
    global _cache
    outer = _cache
    _cache = {} if outer is None else outer
    try:
        yield
    finally:
        _cache = outer


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in order to its ``original``."""

    def __init__(self, modules: list[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        values = _inverse(self, original)
        self.is_tensor = isinstance(values, Tensor)
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(len(values))]
        for name, value in zip(names, (values,) if self.is_tensor else values, strict=True):
            if isinstance(original, Parameter):
                value = Parameter(value.detach().clone(), original.requires_grad)
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)
        self._originals = names
        if not unsafe:
            new = self()
            if new.shape != original.shape or new.dtype != original.dtype:
                raise ValueError(
                    "Registering a parametrization may not change the shape or dtype of the "
                    f"tensor: {original.dtype} {original.shape} became {new.dtype} {new.shape}. "
                    "unsafe=True allows it."
                )

    def values(self) -> list[Tensor]:
        """The original tensor (or tensors)."""
        return [getattr(self, name) for name in self._originals]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrization gives ``value`` (its right inverse)."""
        with no_grad():
            new = _inverse(self, value)
            for mine, its in zip(self.values(), (new,) if self.is_tensor else new, strict=True):
                mine.data = its.detach().clone()

    def forward(self) -> Any:
        first, *rest = self
        x = first(*self.values())
        for module in rest:
            x = module(x)
        return x


def _inverse(modules: ParametrizationList, value: Any) -> Any:
    with no_grad():
        for module in reversed(list(modules)):
            inverse = getattr(module, "right_inverse", None)
            if inverse is not None:
                value = inverse(value)
    return value


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module (or one tensor of it) has parametrizations."""
    found = getattr(module, "parametrizations", None)
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Compute a parameter or buffer of a module by another module, from now on.

    A ``right_inverse`` method says how to find the original for a value that is assigned.

    >>> import kilograd as kg
    >>> class Symmetric(kg.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = kg.nn.utils.parametrize.register_parametrization(
    ...     kg.nn.Linear(3, 3), "weight", Symmetric())
    >>> (layer.weight == layer.weight.T).all(), list(layer.state_dict())
    (tensor(True), ['bias', 'parametrizations.weight.original'])
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        value = getattr(module, tensor_name)
        chain.append(parametrization)
        chain.right_inverse(value)
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        original = getattr(module, tensor_name)
        chain = ParametrizationList([parametrization], original, unsafe)
        if not is_parametrized(module):
            kind = type(module)
            module.__class__ = type(f"Parametrized{kind.__name__}", (kind,), {})
            module.parametrizations = ModuleDict()
        delattr(module, tensor_name)
        setattr(type(module), tensor_name, _property(tensor_name))
        module.parametrizations[tensor_name] = chain
    else:
        raise ValueError(
            f"Module '{module._get_name()}' does not have a parameter, a buffer, or a parametrized "
            f"element with name '{tensor_name}'"
        )
    return module


def _property(name: str) -> property:
    def get(self: Module) -> Any:
        if _cache is None:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    def put(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Undo :func:`register_parametrization`: keep the present value, or take the original."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    if leave_parametrized:
        with no_grad():
            value = chain().detach()
    elif chain.is_tensor:
        value = chain.original.detach()
    else:
        raise ValueError("Cannot leave unparametrized a tensor that is computed from several")
    first = chain.values()[0]
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, Parameter(value, first.requires_grad))
    else:
        module.register_buffer(tensor_name, value)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module

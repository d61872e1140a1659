"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kilograd.kernels.kernel import CHANGES
from kilograd.nn.module import Module
from kilograd.tensor import Tensor

__all__ = ["functional_call"]


def functional_call(
    module: Module, parameters_and_buffers: Mapping[str, Tensor], args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """``module(*args, **kwargs)`` with these tensors in the place of those of the same names.

    ``tie_weights``: a tensor that the module has under several names is replaced under all of
    them. ``strict``: every parameter and buffer must be given, and no other name.

    >>> import kilograd as kg
    >>> layer = kg.nn.Linear(2, 1, bias=False)
    >>> kg.nn.utils.stateless.functional_call(layer, {"weight": kg.ones(1, 2)}, kg.ones(2))
    tensor([2.])
    """
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    own: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    given = dict(parameters_and_buffers)
    if strict:
        missing, unknown = own.keys() - given.keys(), given.keys() - own.keys()
        if missing or unknown:
            raise RuntimeError(
                f"functional_call: missing keys {sorted(missing)}, unexpected keys {sorted(unknown)}"
            )
    if tie_weights:
        names: dict[Tensor, list[str]] = {}
        for name, t in own.items():
            names.setdefault(t, []).append(name)
        for tied in names.values():
            values = {id(given[n]): given[n] for n in tied if n in given}
            if len(values) > 1:
                raise ValueError(
                    f"functional_call got multiple values for keys {tied}, which are tied"
                )
            for value in values.values():
                given.update(dict.fromkeys(tied, value))
    old: list[tuple[Module, str, Any]] = []
    try:
        for path, value in given.items():
            where, _, name = path.rpartition(".")
            owner = module.get_submodule(where)
            old.append((owner, name, _swap(owner, name, value)))
        return module(*args, **(kwargs or {}))
    finally:
        for owner, name, value in reversed(old):
            _swap(owner, name, value)


def _swap(module: Module, name: str, value: Any) -> Any:
    """Put a tensor in the place of a parameter or buffer; what was there."""
    CHANGES[0] += 1
    mine = module.__dict__
    for registry in (mine["_parameters"], mine["_buffers"]):
        if name in registry:
            before = registry[name]
            registry[name] = mine[name] = value
            return before
    raise AttributeError(f"{module._get_name()} has no parameter or buffer `{name}`")

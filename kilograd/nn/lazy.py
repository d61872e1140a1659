"""Modules that learn their input size from the first input."""

from __future__ import annotations

from typing import Any

from kilograd.nn.module import Module
from kilograd.nn.parameter import is_lazy


class LazyModule(Module):
    """Mixed into a layer: its first call gives the parameters their shapes.

    A subclass says what it becomes (``_becomes``) and how (``initialize_parameters``). The first
    call turns the module into an instance of that class.
    """

    _becomes: type[Module]

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer still waits for its shape."""
        return any(map(is_lazy, (*self._parameters.values(), *self._buffers.values())))

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Learn from the first input, and give parameters that have none yet their shapes."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.initialize_parameters(*args, **kwargs)
        self.__class__ = self._becomes  # type: ignore[assignment]
        return self(*args, **kwargs)

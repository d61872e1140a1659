"""A model that is only looked at: whatever it is called with in here, it is afterwards as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kilograd.nn import Module
from kilograd.nn.parameter import is_lazy
from kilograd.random import fork_rng


@contextlib.contextmanager
def undisturbed(model: Module) -> Iterator[None]:
    """Put back buffers (running statistics), parameters, modes and random numbers at the end.

    The training mode of each part, the values of its buffers and parameters (an ``Embedding(max_norm=…)``
    writes), which buffers it has, and the state of the default generator are as before, also after an
    exception. Gradients are not looked at.

    Example:
        >>> import kilograd as kg
        >>> model = kg.nn.BatchNorm1d(3)
        >>> with undisturbed(model):
        ...     _ = model.train()(kg.randn(5, 3) + 7)
        >>> model.running_mean
        tensor([0., 0., 0.])
    """
    modes = [(m, m.training) for m in model.modules()]
    registered = [(m, name, b) for m in model.modules() for name, b in m._buffers.items()]
    tensors = [*[b for _, _, b in registered], *model.parameters()]
    held = {id(t): t for t in tensors if t is not None and not is_lazy(t)}
    values = [(b, b.array, b.array.copy(), b._cell[0]) for b in held.values()]
    with fork_rng():
        try:
            yield
        finally:
            for module, training in modes:
                if module.training != training:  # (a change is noticed by compiled steps)
                    module.training = training
            for module, name, b in registered:
                if module._buffers.get(name) is not b:
                    setattr(module, name, b)
            for b, array, before, version in values:
                if array.tobytes() != before.tobytes():
                    array[...] = before
                if b.array is not array:
                    b.array = array
                b._cell[0] = version

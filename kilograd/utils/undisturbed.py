"""A model that is only looked at: whatever it is called with in here, it is afterwards as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kilograd.autograd.modes import ModeContext
from kilograd.nn import Module
from kilograd.random import fork_rng
from kilograd.tensor import wrap


@contextlib.contextmanager
def undisturbed(model: Module) -> Iterator[None]:
    """Put back the buffers (running statistics), the modes and the random numbers at the end.

    The training mode of each part, the values of its buffers, and the state of the default generator are as
    before, also after an exception. Parameters and their gradients are not looked at.

    Example:
        >>> import kilograd as kg
        >>> model = kg.nn.BatchNorm1d(3)
        >>> with undisturbed(model):
        ...     _ = model.train()(kg.randn(5, 3) + 7)
        >>> model.running_mean
        tensor([0., 0., 0.])
    """
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.numpy(force=True).copy()) for b in model.buffers()]
    try:
        with fork_rng():
            yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training
        with ModeContext(grad=False):
            for buffer, before in buffers:
                if buffer.numpy(force=True).tobytes() != before.tobytes():
                    buffer.copy_(wrap(before))

"""Trade time for memory: forget activations in forward, compute them again in backward.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kilograd import random
from kilograd.autograd.calls import backward
from kilograd.autograd.function import Function
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.tensor import Tensor


class _Checkpoint(Function):
    @staticmethod
    def forward(ctx: Any, fn: Any, preserve: bool, kwargs: Any, *args: Any) -> Any:
        ctx.fn, ctx.kwargs, ctx.preserve = fn, kwargs, preserve
        ctx.state = random.get_rng_state() if preserve else None
        ctx.plain = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*[a if isinstance(a, Tensor) else None for a in args])
        return fn(*args, **kwargs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if MODE.get().grad:
            raise RuntimeError(
                "checkpoint() recomputes outside of the graph: use it without create_graph=True"
            )
        args = [
            p if t is None else t.detach().requires_grad_(t.requires_grad)
            for t, p in zip(ctx.saved_tensors, ctx.plain, strict=True)
        ]
        with random.fork_rng(enabled=ctx.preserve), ModeContext(grad=True):
            if ctx.preserve:
                random.set_rng_state(ctx.state)
            outs = ctx.fn(*args, **ctx.kwargs)
        outs = outs if isinstance(outs, tuple) else (outs,)
        live = [
            (o, g)
            for o, g in zip(outs, grads, strict=True)
            if isinstance(o, Tensor) and o.requires_grad
        ]
        if not live:
            raise RuntimeError(
                "none of output has requires_grad=True, this checkpoint() is not necessary"
            )
        backward([o for o, _ in live], [g for _, g in live])
        return (None, None, None, *[a.grad if isinstance(a, Tensor) else None for a in args])


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args)`` without keeping its activations; backward computes them again.

    At least one tensor among ``args`` must require grad. The same random numbers are drawn the
    second time. First-order gradients only, by ``backward()``: like PyTorch's reentrant form, the
    second run adds to ``.grad`` of the parameters it meets, also under ``autograd.grad``.
    ``use_reentrant`` is accepted and changes nothing.

    >>> import kilograd as kg
    >>> x = kg.ones(3, requires_grad=True)
    >>> kg.utils.checkpoint.checkpoint(lambda t: (t * 2).exp().sum(), x).backward()
    >>> x.grad
    tensor([14.7781, 14.7781, 14.7781])
    """
    return _Checkpoint.apply(function, preserve_rng_state, kwargs, *args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Run a Sequential (or list of functions) in ``segments`` checkpointed pieces."""
    layers: Sequence[Any] = (
        list(functions.children()) if hasattr(functions, "children") else functions
    )
    size = max(len(layers) // segments, 1)

    def run(start: int, stop: int) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            for layer in layers[start:stop]:
                x = layer(x)
            return x

        return forward

    start = 0
    for _ in range(segments - 1):
        input = checkpoint(run(start, start + size), input, **kwargs)
        start += size
    return run(start, len(layers))(input)

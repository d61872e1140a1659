"""Trade time for memory: forget activations in forward, compute them again in backward.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kilograd import random
from kilograd.autograd import driver
from kilograd.autograd.calls import grad
from kilograd.autograd.function import Function
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.tensor import Tensor, wrap


class _Checkpoint(Function):
    """A piece of graph whose inside is made again when its gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, again: Any, outs: Any, given: Any, *inputs: Tensor) -> Any:
        ctx.again = again
        ctx.alike = [(o.array.shape, o.array.dtype) for o in outs]
        ctx.save_for_backward(*given)  # what was changed in place since is noticed
        ctx.inputs = inputs
        return tuple(o.detach() for o in outs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ctx.saved_tensors  # noqa: B018 - raises if one of them has been changed
        create_graph = MODE.get().grad
        outs = ctx.again(ctx.alike)
        live = [(o, g) for o, g in zip(outs, grads, strict=True) if o.requires_grad]
        found = grad(
            [o for o, _ in live], ctx.inputs, [g for _, g in live],
            create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
        return (None, None, None, *found)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable[[], tuple[Any, Any]] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)`` without keeping its activations; backward computes them again.

    Gradients go to everything that requires grad and that the function used: arguments, parameters,
    tensors from outside, also by ``autograd.grad`` and with ``create_graph=True``. What it does
    besides (running statistics) happens a second time.

    Args:
        function: gives a tensor, or a nest (tuple, list, dict) of tensors and other values.
        args: its arguments.
        use_reentrant: taken for PyTorch's sake; there is one form, and it has what both can do.
        preserve_rng_state: whether the same random numbers are drawn the second time.
        context_fn: gives two contexts, for the first run and for the later ones.
        determinism_check: "default" compares shapes and dtypes of both runs, "none" does not.
        debug: taken for PyTorch's sake.
        kwargs: its keyword arguments.

    Raises:
        RuntimeError: in backward, if the second run gives tensors of other shapes or dtypes, or an
            argument was modified in place in between.
        ValueError: another ``determinism_check``.

    >>> import kilograd as kg
    >>> x = kg.ones(3, requires_grad=True)
    >>> kg.utils.checkpoint.checkpoint(lambda t: (t * 2).exp().sum(), x).backward()
    >>> x.grad
    tensor([14.7781, 14.7781, 14.7781])
    """
    if determinism_check not in ("default", "none"):
        raise ValueError(
            f"determinism_check should be one of ['default', 'none'], got {determinism_check!r}"
        )
    from kilograd.compile.graph import leaves, mapped  # nests; seldom loaded otherwise

    first, later = context_fn() if context_fn else (contextlib.nullcontext(),) * 2
    state = random.get_rng_state() if preserve_rng_state else None
    began = next(driver.ticks)
    with first:
        result = function(*args, **kwargs)
    outs = [t for t in leaves(result) if isinstance(t, Tensor)]
    inputs = list(_outside(outs, began)) if MODE.get().grad else []
    if not inputs:
        return result

    def again(alike: list[Any]) -> list[Tensor]:
        with random.fork_rng(enabled=preserve_rng_state), ModeContext(grad=True), later:
            if state is not None:
                random.set_rng_state(state)
            made = [t for t in leaves(function(*args, **kwargs)) if isinstance(t, Tensor)]
        now = [(t.array.shape, t.array.dtype) for t in made]
        if len(now) != len(alike) or (determinism_check == "default" and now != alike):
            raise RuntimeError(
                "checkpoint: the function gave other tensors when it was run again in backward: "
                f"{now}, the first time {alike}"
            )
        return made

    given = [t for t in leaves((args, kwargs)) if isinstance(t, Tensor)]
    made = iter(_Checkpoint.apply(again, outs, given, *inputs))
    return mapped(lambda t: next(made) if isinstance(t, Tensor) else t, result)


def _outside(outs: list[Tensor], began: int) -> Iterator[Tensor]:
    """What gradients of the outputs go to: leaves, and what was computed before the function ran."""
    edges = dict.fromkeys(edge for o in outs if (edge := o._edge()) is not None)
    waiting = list(edges)
    for edge in waiting:  # grows while it is walked
        if isinstance(edge, driver.Node) and edge.order > began:
            found = [e for e in edge.inputs if e is not None and e not in edges]
            edges.update(dict.fromkeys(found))
            waiting += dict.fromkeys(found)
        elif isinstance(edge, Tensor):
            yield edge
        else:  # only its place in the graph is needed
            t = wrap(np.broadcast_to(np.zeros((), edge.dtype), edge.shape))
            t._node = edge
            yield t


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

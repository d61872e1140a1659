"""``backward()`` and ``grad()``: what the driver is asked for, and where its answers go."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd.autograd import driver
from kilograd.autograd.conjugate import shown
from kilograd.autograd.driver import Array, Edge, Node, accumulate, call_hooks, run
from kilograd.autograd.modes import ModeContext
from kilograd.errors import GradError, ShapeError

if TYPE_CHECKING:
    from kilograd.tensor import Tensor


_AS_IT_IS = nullcontext()


def _edge(tensor: Tensor) -> Edge:
    edge = tensor._edge()
    if edge is None:
        raise GradError(
            "element 0 of tensors does not require grad and does not have a grad_fn: nothing it "
            "was computed from has requires_grad=True (or it was computed under no_grad)"
        )
    return edge


def _seed(tensor: Tensor, gradient: Any, create_graph: bool) -> Array:
    array = tensor.array
    if gradient is None:
        if array.size != 1:
            raise GradError(
                "grad can be implicitly created only for scalar outputs; this one has shape "
                f"{array.shape}: pass gradient= (a tensor of that shape)"
            )
        if array.dtype.kind == "c":
            raise GradError(
                "grad can be implicitly created only for real scalar outputs but got "
                f"{array.dtype}: pass gradient="
            )
        seed = np.ones(array.shape, array.dtype)
        return driver.tensor_of(seed, None) if create_graph else seed
    if not hasattr(gradient, "_edge"):
        if not isinstance(gradient, (np.ndarray, np.generic, int, float)):
            raise TypeError(
                f"gradients can be either tensors, arrays or None, but got {type(gradient).__name__}"
            )
        gradient = driver.tensor_of(np.asarray(gradient, dtype=array.dtype), None)
    if gradient.array.shape != array.shape:
        raise ShapeError(
            f"Mismatch in shape: grad_output[0] has a shape of {gradient.array.shape} and "
            f"output[0] has a shape of {array.shape}."
        )
    if gradient.array.dtype != array.dtype:
        gradient = gradient.to(array.dtype)
    return shown(gradient if create_graph else gradient.array)


def _seeds(tensors: Any, gradients: Any, create_graph: bool) -> list[tuple[Edge, Array]]:
    if hasattr(tensors, "_edge"):
        tensors = (tensors,)
        if hasattr(gradients, "_edge"):  # one of each
            return [(_edge(tensors[0]), _seed(tensors[0], gradients, create_graph))]
    else:
        tensors = tuple(tensors)
    if gradients is None:
        gradients = (None,) * len(tensors)
    elif not isinstance(gradients, (tuple, list)):
        gradients = (gradients,)
    if len(gradients) != len(tensors):
        raise GradError(f"got {len(tensors)} tensors and {len(gradients)} gradients")
    return [(_edge(t), _seed(t, g, create_graph)) for t, g in zip(tensors, gradients, strict=True)]


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradient of ``tensors`` to the ``.grad`` of every leaf they depend on.

    Args:
        tensors: a tensor or a sequence of them.
        grad_tensors: the gradient of each (None for one-element tensors: 1).
        retain_graph: keep what was saved, for another pass (default: ``create_graph``).
        create_graph: record the pass itself, for higher-order gradients.
        inputs: accumulate into these tensors only.

    Raises:
        RuntimeError: nothing requires grad, the graph was freed, a saved value was modified.
    """
    retain = create_graph if retain_graph is None else retain_graph
    wanted = None
    if inputs is not None:
        inputs = (inputs,) if hasattr(inputs, "_edge") else tuple(inputs)
        if not inputs:
            raise GradError("'inputs' argument to backward cannot be empty.")
        wanted = {_edge(t): t for t in inputs}
    seeds = _seeds(tensors, grad_tensors, create_graph)
    with ModeContext(grad=True) if create_graph else _AS_IT_IS:
        found, owned = run(
            seeds,
            retain_graph=retain,
            create_graph=create_graph,
            wanted=None if wanted is None else set(wanted),
        )
        for edge, g in found.items():
            target: Any = edge if wanted is None else wanted[edge]
            ours, is_leaf = edge in owned, edge is target
            if isinstance(edge, Node) and edge.retain is not None and edge.retain() is target:
                continue  # retain_grad() has added it already
            if target._hooks is not None and is_leaf:
                g, ours = call_hooks(target._hooks, g, create_graph), False
            accumulate(target, shown(g), owned=ours, create_graph=create_graph)
            if target._post_hooks is not None:
                with ModeContext(grad=False):
                    for hook in list(target._post_hooks.values()):
                        hook(target)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    ``only_inputs`` is PyTorch's deprecated argument; it changes nothing.

    Returns:
        One tensor for each input, of its shape and dtype (None if unused and allowed).

    Raises:
        RuntimeError: an input was not used and ``allow_unused`` is false.

    >>> import kilograd as kg
    >>> x = kg.tensor(3.0, requires_grad=True)
    >>> (dy,) = kg.autograd.grad(x**3, x, create_graph=True)
    >>> dy.item(), kg.autograd.grad(dy, x)[0].item()
    (27.0, 18.0)
    """
    inputs = (inputs,) if hasattr(inputs, "_edge") else tuple(inputs)
    if allow_unused is None:
        allow_unused = materialize_grads
    elif materialize_grads and not allow_unused:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True"
        )
    if is_grads_batched:
        gradients = grad_outputs if isinstance(grad_outputs, (tuple, list)) else (grad_outputs,)
        rows = [
            grad(outputs, inputs, [g[i] for g in gradients], True, create_graph,
                 allow_unused=allow_unused, materialize_grads=materialize_grads)
            for i in range(len(gradients[0]))
        ]  # fmt: skip
        from kilograd.functions.shape import stack

        return tuple(None if c[0] is None else stack(c) for c in zip(*rows, strict=True))
    retain = create_graph if retain_graph is None else retain_graph
    edges: list[Any] = [t._edge() for t in inputs]
    if None in edges:
        i = edges.index(None)
        raise GradError(f"One of the differentiated Tensors (input {i}) does not require grad")
    seeds = _seeds(outputs, grad_outputs, create_graph)
    with ModeContext(grad=True) if create_graph else _AS_IT_IS:
        found, _ = run(seeds, retain_graph=retain, create_graph=create_graph, wanted=set(edges))
        result = []
        for i, t in enumerate(inputs):
            edge = edges[i]
            g, is_leaf = found.get(edge), edge is t
            if g is None:
                if not allow_unused:
                    raise GradError(
                        f"One of the differentiated Tensors (input {i}, shape {tuple(t.shape)}) "
                        "appears to not have been used in the graph. Set allow_unused=True if this "
                        "is the desired behavior."
                    )
                g = driver.tensor_of(np.zeros_like(t.array), None) if materialize_grads else None
            elif not create_graph:
                g = driver.tensor_of(g, None)  # perhaps a view of what it was made of, as PyTorch's
            if g is not None and is_leaf and t._hooks is not None:
                hooked = call_hooks(t._hooks, g if create_graph else g.array, create_graph)
                g = hooked if create_graph else driver.tensor_of(hooked, None)
            result.append(None if g is None else shown(g))
    return tuple(result)

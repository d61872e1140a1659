"""Jacobians, Hessians and their products with vectors (``torch.autograd.functional``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.autograd.calls import grad
from kilograd.autograd.modes import ModeContext
from kilograd.tensor import Tensor, wrap


def _leaves(inputs: Any, create_graph: bool) -> tuple[tuple[Tensor, ...], bool]:
    single = isinstance(inputs, Tensor)
    args = (inputs,) if single else tuple(inputs)
    if create_graph:
        return tuple(
            a.view_as(a) if a.requires_grad else a.detach().requires_grad_() for a in args
        ), single
    return tuple(a.detach().requires_grad_() for a in args), single


def _call(func: Callable[..., Any], args: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], bool]:
    out = func(*args)
    return ((out,), True) if isinstance(out, Tensor) else (tuple(out), False)


def _zeros(g: Tensor | None, like: Tensor) -> Tensor:
    return wrap(np.zeros_like(like.array)) if g is None else g


def _strip(x: Any, single: bool) -> Any:
    return x[0] if single else tuple(x)


def _grads(
    outs: Any, args: Any, vs: Any, strict: bool, create_graph: bool, retain: bool = True
) -> tuple[Any, ...]:
    live = [(o, v) for o, v in zip(outs, vs, strict=True) if o.requires_grad]
    if not live:
        found: tuple[Any, ...] = (None,) * len(args)
    else:
        found = grad(
            [o for o, _ in live], args, [v for _, v in live],
            retain_graph=retain, create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
    if strict and any(g is None for g in found):
        raise RuntimeError(
            "an output is independent of an input. This is not allowed in strict mode."
        )
    return tuple(_zeros(g, a) for g, a in zip(found, args, strict=True))


def _vectors(v: Any, like: tuple[Tensor, ...], alone: bool, otherwise: str) -> tuple[Any, ...]:
    """The vectors of a product as a tuple; None is 1, where there is one tensor of one element."""
    if v is not None:
        return (v,) if isinstance(v, Tensor) else tuple(v)
    if not alone or like[0].array.size != 1:
        raise RuntimeError(otherwise)
    return (wrap(np.ones_like(like[0].array)),)


def vjp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Any:
    """``(func(inputs), vᵀJ)``.

    >>> import kilograd as kg
    >>> kg.autograd.functional.vjp(lambda x: x * x, kg.tensor([1.0, 2.0]), kg.ones(2))[1]
    tensor([2., 4.])
    """
    with ModeContext(grad=True):
        args, single = _leaves(inputs, create_graph)
        outs, one = _call(func, args)
        vs = _vectors(
            v,
            outs,
            len(outs) == 1,
            "The vector v can only be None if the user-provided function returns a single Tensor with a single element.",
        )
        found = _grads(outs, args, vs, strict, create_graph)
    if not create_graph:
        outs = tuple(o.detach() for o in outs)
    return _strip(outs, one), _strip(found, single)


def jvp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Any:
    """``(func(inputs), J v)``, by differentiating the vector-Jacobian product (double backward).

    >>> import kilograd as kg
    >>> kg.autograd.functional.jvp(lambda x: x * x, kg.tensor([1.0, 2.0]), kg.ones(2))[1]
    tensor([2., 4.])
    """
    with ModeContext(grad=True):
        args, _single = _leaves(inputs, create_graph)
        vs = _vectors(
            v,
            args,
            len(args) == 1,
            "The vector v can only be None if the input to the user-provided function is a single Tensor with a single element.",
        )
        outs, one = _call(func, args)
        dummies = [wrap(np.zeros_like(o.array)).requires_grad_() for o in outs]
        first = _grads(outs, args, dummies, strict, True)
        found = _grads(first, dummies, vs, False, create_graph)
    if not create_graph:
        outs = tuple(o.detach() for o in outs)
    return _strip(outs, one), _strip(found, one)


def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian: for each output and input, shape ``(*output, *input)``.

    >>> import kilograd as kg
    >>> kg.autograd.functional.jacobian(lambda x: x * x, kg.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    from kilograd.functions.shape import stack

    with ModeContext(grad=True):
        args, single = _leaves(inputs, create_graph)
        outs, one = _call(func, args)
        rows = []
        for o in outs:
            parts: list[list[Tensor]] = [[] for _ in args]
            for i in range(o.array.size):
                unit = np.zeros(o.array.shape, o.array.dtype)
                unit.flat[i] = 1
                for k, g in enumerate(_grads((o,), args, (wrap(unit),), strict, create_graph)):
                    parts[k].append(g)
            rows.append(
                tuple(
                    (stack(p) if p else wrap(np.zeros((0, *a.array.shape), a.array.dtype))).reshape(
                        (*o.array.shape, *a.array.shape)
                    )
                    for p, a in zip(parts, args, strict=True)
                )
            )
    return _strip([_strip(r, single) for r in rows], one)


def hessian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Hessian of a function with one scalar output: shape ``(*input_i, *input_j)``.

    >>> import kilograd as kg
    >>> kg.autograd.functional.hessian(lambda x: (x**3).sum(), kg.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    single = isinstance(inputs, Tensor)

    def gradients(*args: Tensor) -> Any:
        out = func(*args)
        if not isinstance(out, Tensor) or out.array.size != 1:
            raise RuntimeError(
                "The function given to hessian should return a single Tensor with one element"
            )
        return _grads((out.reshape(()),), args, (wrap(np.ones((), out.array.dtype)),), strict, True)

    result = jacobian(
        gradients, (inputs,) if single else inputs, create_graph=create_graph, strict=strict
    )
    return result[0][0] if single else result


def vhp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> Any:
    """``(func(inputs), vᵀH)`` for a function with one scalar output.

    >>> import kilograd as kg
    >>> kg.autograd.functional.vhp(lambda x: (x**3).sum(), kg.tensor([1.0, 2.0]), kg.ones(2))[1]
    tensor([ 6., 12.])
    """
    with ModeContext(grad=True):
        args, single = _leaves(inputs, create_graph)
        outs, one = _call(func, args)
        if not one or outs[0].array.size != 1:
            raise RuntimeError(
                "The function given to vhp should return a single Tensor with one element"
            )
        vs = _vectors(
            v,
            args,
            single and len(args) == 1,
            "The vector v can only be None if the input to the user-provided function is a single Tensor with a single element.",
        )
        first = _grads(outs, args, (wrap(np.ones_like(outs[0].array)),), strict, True)
        found = _grads(first, args, vs, strict, create_graph)
    out = outs[0] if create_graph else outs[0].detach()
    return out, _strip(found, single)


hvp = vhp  # the Hessian is symmetric

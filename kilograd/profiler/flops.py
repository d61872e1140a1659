"""How many floating-point operations an op takes, from the shapes of what it was given and gave.

A product of matrices or a convolution counts 2 for each multiplication and addition; what only moves
elements counts nothing; every other op counts one for each element of its largest array. Products and
convolutions agree with what ``kg.compile`` says of a program (``step.explain()``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kilograd.autograd.driver import Node
from kilograd.ops.op import Op


class Work(NamedTuple):
    """``flops``: floating-point operations; ``mult_adds``: pairs of one multiplication and one addition."""

    flops: int
    mult_adds: int

    def __add__(self, other: Any) -> Work:
        return Work(self.flops + other.flops, self.mult_adds + other.mult_adds)


NOTHING = Work(0, 0)
_MOVES = frozenset(
    "cast clone repeat repeated concatenate split stack unbind flip roll diagonal_put tril triu "
    "unfold_put put_zeros index_put view_put index_select index_assign gather scatter fill masked_fill "
    "masked_select masked_place pick unpick pad_constant im2col embedding pool_gather unpool "
    "complex_of permutation".split()
)


def work_of(op: Op, arrays: Any, options: dict[str, Any], result: Any) -> Work:
    """What one call of an op takes.

    Args:
        op: the op.
        arrays: its inputs, arrays and numbers.
        options: its options.
        result: what its forward function has given (with residuals, if it has any).

    >>> from kilograd.ops.linalg import matmul
    >>> import numpy as np
    >>> a, b = np.ones((2, 3)), np.ones((3, 4))
    >>> work_of(matmul, (a, b), {}, a @ b)
    Work(flops=48, mult_adds=24)
    """
    if op.view or op.name in _MOVES:
        return NOTHING
    sizes = [getattr(a, "size", 1) for a in arrays]
    out = result_of(op, result)
    outs = out if isinstance(out, tuple) else (out,)
    products, extra = _products(op.name, arrays, options, outs[0])
    if products is None:
        return Work(max([*sizes, *[getattr(y, "size", 1) for y in outs]], default=0), 0)
    return Work(2 * products + extra, products)


def work_of_gradient(node: Node) -> Work:
    """What the derivative rules of a node take: the gradient of each factor of a product is such a product.

    A custom function counts nothing: the ops that its ``backward`` runs are counted where they run.

    >>> import kilograd as kg
    >>> a, b = kg.ones(2, 3, requires_grad=True), kg.ones(3, 4, requires_grad=True)
    >>> work_of_gradient((a @ b).grad_fn)  # of a and of b
    Work(flops=96, mult_adds=48)
    """
    from kilograd.viz.rules import uses_of

    op = node.op
    if op is None or node.plan is None or op.view or op.name in _MOVES:
        return NOTHING
    shapes = node.shape if isinstance(node.shape, list) else [node.shape]
    ys = [_Stub(tuple(s)) for s in shapes]
    inputs: list[Any] = [None if e is None else _stub(e) for e in node.inputs]
    options: dict[str, Any] = {}
    for use in uses_of(node):
        for name, value in use.values.items():
            bare = name.removesuffix("_shape")
            if name in op.options:
                options[name] = value
            elif bare in op.inputs and inputs[op.inputs.index(bare)] is None:
                stub = _Stub(tuple(value)) if bare != name else _stub(value)
                inputs[op.inputs.index(bare)] = stub
    factors = {"bilinear": 3}.get(op.name, 2)
    needed = sum(e is not None for e in node.inputs[:factors])
    if node.plan.joint:  # of attention and recurrences all, each as large as the forward product
        needed = 2
        inputs = [_stub(v) for v in (node.kept or ())[: len(op.inputs)]]
    products, _ = _products(op.name, inputs, options, ys[0]) if needed else (0, 0)
    if products is None:
        return Work(max(s.size for s in (*ys, *inputs) if s is not None), 0)
    return Work(2 * products * needed, products * needed)


class _Stub(NamedTuple):
    """An array of which only the shape is known."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _stub(x: Any) -> _Stub | None:
    """The shape of an array, a leaf or a node."""
    shape = getattr(getattr(x, "array", x), "shape", None)
    return None if shape is None or isinstance(shape, list) else _Stub(tuple(shape))


def result_of(op: Op, result: Any) -> Any:
    """An op's output without the residuals."""
    return result[0] if op.residuals and isinstance(result, tuple) else result


def _products(name: str, arrays: Any, options: dict[str, Any], y: Any) -> tuple[int | None, int]:
    """(multiply-adds, other operations); the first is None for an op that is no product."""
    if name == "matmul":
        return y.size * arrays[0].shape[-1], 0
    if name == "linear":
        return y.size * arrays[1].shape[-1], y.size if arrays[2] is not None else 0
    if name == "conv":
        return y.size * _inside(arrays[1]), 0
    if name == "conv_input":
        return arrays[0].size * _inside(arrays[1]), 0
    if name == "conv_weight":
        return arrays[0].size * _inside(y), 0
    if name == "contract":
        of_a, of_b, _ = options["labels"]
        a, b = arrays
        sizes = dict(zip((*of_a, *of_b), (*a.shape, *b.shape), strict=True))
        return math.prod(sizes.values()), 0
    if name == "bilinear":  # a with w, then with b
        a, b, w = arrays
        return math.prod(a.shape[:-1]) * (w.size + w.shape[0] * w.shape[2]), 0
    if name in ("attention", "tiled_attention"):
        q, k, v = arrays[:3]
        scores = math.prod(y.shape[:-2]) * q.shape[-2] * k.shape[-2]
        return scores * (q.shape[-1] + v.shape[-1]), scores
    if name in ("rnn", "lstm", "gru"):
        gates = arrays[0]
        weights = (arrays[3], arrays[5]) if name == "lstm" else (arrays[2],)
        return gates.shape[0] * sum(w.size for w in weights if w is not None), gates.size
    return None, 0


def _inside(w: Any) -> int:
    """How many products make one number of a convolution with these weights (O, C, …)."""
    return int(w.size // max(w.shape[0], 1))

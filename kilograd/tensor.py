"""Tensor: an array, and where it came from.

``t.array`` is the NumPy array; ``t.grad_fn`` the :class:`Node` that made it (None for a leaf).
``apply`` is the one place where operations on tensors happen: unwrap, compute, wrap, record.
The operators below call it directly; every other method is a function of ``kilograd.functions``.

In-place operations write into the array, raise its version (shared by all views of it), and then
*rebase* the tensor on a node that says what the new value is made of; a view also rebases the
tensor it is a view of.

Read next: ``nn/module.py``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kilograd import dtypes
from kilograd.autograd import calls, driver
from kilograd.autograd.anomaly import users_lines
from kilograd.autograd.driver import Edge, Node, Pick, record
from kilograd.autograd.handle import RemovableHandle
from kilograd.autograd.modes import MODE, ModeContext
from kilograd.errors import DtypeError, GradError, ShapeError, explain
from kilograd.indexing import as_index, in_two_steps
from kilograd.kernels.kernel import CHANGES, LARGE, TRACE, as_one_step
from kilograd.ops import elementwise as ew
from kilograd.ops import index as index_ops
from kilograd.ops import linalg as linalg_ops
from kilograd.ops.op import Op
from kilograd.size import Size, device
from kilograd.value import NoGrad, Value

T = TypeVar("T", bound="Tensor")
_new = object.__new__
_NO_OPTIONS: dict[str, Any] = {}


def _binary(op: Op, swap: bool = False) -> Any:
    """The operator method of an op; ``swap`` for its reflected form."""

    def method(self: Tensor, other: Any) -> Any:
        if isinstance(other, (Tensor, float, int, np.ndarray, np.generic, complex)):
            return apply(op, (other, self) if swap else (self, other))
        return NotImplemented

    return method


def _operators(op: Op) -> tuple[Any, Any, Any]:
    """The operator, reflected and in-place methods of an op."""

    def inplace(self: Tensor, other: Any) -> Any:
        if isinstance(other, (Tensor, float, int, np.ndarray, np.generic, complex)):
            return self._inplace(op, other)
        return NotImplemented

    return _binary(op), _binary(op, swap=True), inplace


class Tensor(Value):
    """A multi-dimensional array that remembers how it was computed.

    ``Tensor(data)`` and ``Tensor(2, 3)`` make float tensors as PyTorch's do; prefer
    :func:`kilograd.tensor`.

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    array: Any  # the ndarray (a tracer or a CuPy array takes its place elsewhere)
    _cell: list[int]  # version counter of the memory, shared by views
    _node: Node | None = None
    _leaf: bool = False  # a leaf that requires grad
    _view: tuple[Tensor, Op, dict[str, Any]] | None = None  # parent, and how to get from it here
    _view_seen: int = 0
    _cut_view: bool = False  # a view taken under no_grad of a tensor that requires grad
    _inference: bool = False
    _hooks: dict[int, Any] | None = None
    _post_hooks: dict[int, Any] | None = None
    grad: Tensor | None = NoGrad()  # type: ignore[assignment]
    name: str | None = None
    device = device()
    is_cuda = is_sparse = is_quantized = is_meta = is_mps = False
    layout = "strided"

    def __init__(
        self, *data: Any, dtype: Any = None, requires_grad: bool = False, device: Any = "cpu",
        graph: Any = None,
    ) -> None:  # fmt: skip
        dt = dtypes.numpy_dtype(dtype) or dtypes.get_default_dtype().dtype
        if len(data) == 1 and not isinstance(data[0], (int, np.integer)):
            source = data[0]
            if isinstance(source, Size):
                array = np.zeros(source, dt)
            else:
                array = np.array(getattr(source, "array", source), dtype=dt)
        else:
            array = np.zeros(data if data else (0,), dt)
        self.array = array
        self._cell = [0]
        if requires_grad:
            self.requires_grad = True
        if graph is not None:
            graph.adopt(self)

    # --- what it is -------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The size of each dimension."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The number type of the elements."""
        return dtypes.FROM_NUMPY[self.array.dtype]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    @property
    def data(self) -> Tensor:
        """The same memory outside of the graph, with a version counter of its own."""
        return wrap(self.array)

    @data.setter
    def data(self, value: Any) -> None:
        array = value.array if isinstance(value, Tensor) else np.asarray(value)
        self.array = array
        self._cell = [0]
        CHANGES[0] += 1

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor."""
        return self._edge() is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._node is not None:
            if not value:
                raise GradError(
                    "you can only change requires_grad flags of leaf variables. If you want to "
                    "use a computed variable in a subgraph that doesn't require differentiation "
                    "use var_no_grad = var.detach()."
                )
            return
        if value and self.array.dtype.kind not in "fc":
            raise GradError(
                "only Tensors of floating point dtype can require gradients; this one is "
                f"{self.dtype}"
            )
        if value and self.array.dtype.kind == "c":
            raise GradError("gradients of complex tensors are not implemented in kilograd")
        if (trace := TRACE.get()) is not None:
            trace.saw_requires_grad(self)
        self._leaf = bool(value)
        CHANGES[0] += 1

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Set ``requires_grad`` in place and return the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad_fn(self) -> Node | None:
        """The operation that made this tensor; None for a leaf."""
        self._edge()
        return self._node

    @property
    def is_leaf(self) -> bool:
        """True unless the tensor was computed from one that requires grad."""
        return self.grad_fn is None

    @property
    def retains_grad(self) -> bool:
        """True for a non-leaf tensor whose ``.grad`` will be kept (see :meth:`retain_grad`)."""
        return self._node is not None and self._node.retain is not None

    @property
    def _version(self) -> int:
        return self._cell[0]

    # --- the graph --------------------------------------------------------------------------

    def _edge(self) -> Edge | None:
        """Where a gradient of this tensor goes: its node, itself if a leaf, or nowhere."""
        if self._view is not None and self._view_seen != self._cell[0]:
            self._refresh()
        return self._node or (self if self._leaf else None)

    def _refresh(self) -> None:
        """Somebody wrote into the memory this is a view of: take the view of the new value."""
        assert self._view is not None
        parent, op, options = self._view
        self._view_seen = self._cell[0]
        edge = parent._edge()
        if not self._leaf:
            if edge is None:
                return self._move_to(None)
            with ModeContext(grad=True):
                now = apply(op, (parent,), options)
            a, b = now.array, self.array
            if (a.shape, a.strides, a.ctypes.data) != (b.shape, b.strides, b.ctypes.data):
                self._view_seen = -1
                raise GradError(
                    "the tensor that this is a view of has changed its shape in place since (t_(), "
                    "unsqueeze_() ...): take the view again"
                )
            self._move_to(now._node)

    def _move_to(self, node: Node | None) -> None:
        """This tensor is now what ``node`` makes; a retained gradient is that of the new value."""
        old = self._node
        if old is not None and node is not None and old.retain is not None and old.retain() is self:
            old.retain, node.retain = None, weakref.ref(self)
        self._node = node

    def _apply(self, op: Op, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return apply(op, args, options)

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradient of this tensor to the ``.grad`` of the leaves it depends on.

        ``gradient`` (a tensor of this shape) may be left out for one-element tensors. See
        :func:`kilograd.autograd.backward`.
        """
        calls.backward(self, (gradient,), retain_graph, create_graph, inputs)

    def detach(self) -> Tensor:
        """The same memory, outside of the graph."""
        t = wrap(self.array)
        t._cell = self._cell
        return t

    def detach_(self: T) -> T:
        """Cut this tensor from the graph that made it."""
        if self._view is not None:
            raise GradError("Can't detach views in-place. Use detach() instead.")
        self._node = None
        self._leaf = False
        CHANGES[0] += 1
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf tensor in ``.grad`` (leaves always do)."""
        if not self.requires_grad:
            raise GradError("can't retain_grad on Tensor that has requires_grad=False")
        if self._node is not None:
            self._node.retain = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(grad)`` when this tensor's gradient is known; what it returns replaces it."""
        edge = self._edge()
        if edge is None:
            raise GradError("cannot register a hook on a tensor that doesn't require gradient")
        if isinstance(edge, Node):
            edge.hooks = hooks = {} if edge.hooks is None else edge.hooks
        else:
            self._hooks = hooks = {} if self._hooks is None else self._hooks
        return RemovableHandle(hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(self)`` after a backward pass has added to this leaf's ``.grad``."""
        if not self._leaf:
            raise GradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        self._post_hooks = {} if self._post_hooks is None else self._post_hooks
        return RemovableHandle(self._post_hooks, hook)

    # --- in place ---------------------------------------------------------------------------

    def _check_inplace(self) -> None:
        if self._leaf:
            raise GradError(
                "a leaf Variable that requires grad is being used in an in-place operation. "
                "Do it under no_grad(), or on a clone()."
            )
        if self._cut_view:
            raise GradError(
                "A view was created in no_grad mode and is being modified inplace with grad mode "
                "enabled. Take the view with grad mode on, or clone() it."
            )
        t = self
        while t._view is not None:
            t = t._view[0]
            if t._leaf:
                raise GradError(
                    "a view of a leaf Variable that requires grad is being used in an in-place "
                    "operation. Do it under no_grad(), or on a clone()."
                )

    def _write(self, value: Any, op: str) -> None:
        """Copy an array into this tensor's memory, as PyTorch's in-place operations may."""
        mine = self.array
        if value.shape != mine.shape:
            raise ShapeError(
                f"{op}: output with shape {list(mine.shape)} doesn't match the broadcast shape "
                f"{list(value.shape)}"
            )
        if dtypes.CATEGORY[value.dtype] > dtypes.CATEGORY[mine.dtype]:
            raise DtypeError(
                f"{op}: result type {value.dtype} can't be cast to the desired output type "
                f"{mine.dtype}"
            )
        if not mine.flags.writeable or repeats(mine):
            raise GradError(
                f"{op}: unsupported operation: more than one element of the written-to tensor "
                "refers to a single memory location (an expanded tensor, or a read-only array). "
                "Please clone() the tensor before performing the operation."
            )
        np.copyto(mine, value, casting="unsafe")
        self._cell[0] += 1

    def _rebase(self, new: Tensor) -> None:
        """This tensor's value is now ``new``'s (its memory already holds it)."""
        CHANGES[0] += 1
        if self._view is None:
            self._move_to(new._node)
            self._leaf = False
            return
        parent, op, options = self._view
        whole = parent.array

        def view(a: Any) -> Any:
            return op(a, **options)

        replaced = _recorded(index_ops.view_put, whole, (parent, new), {"view": view})
        parent._rebase(replaced)
        self._refresh()

    def _inplace(self: T, fn: Callable[..., Tensor], *args: Any, **kwargs: Any) -> T:
        """``self = fn(self, …)`` in this tensor's memory."""
        name = f"{getattr(fn, '__name__', 'inplace')}_"
        tracked = MODE.get().grad and (
            self.requires_grad
            or any(isinstance(a, Tensor) and a.requires_grad for a in (*args, *kwargs.values()))
        )
        if not tracked:
            self._write(fn(self, *args, **kwargs).array, name)
            return self
        self._check_inplace()
        old = wrap(self.array.copy())  # a rule may keep the old value
        old._node = self._node
        new = fn(old, *args, **kwargs)
        self._write(new.array, name)
        if new.array.dtype != self.array.dtype:
            new = apply(ew.cast, (new,), {"dtype": self.array.dtype})
        self._rebase(new)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        at = as_index(index)
        if type(at) is tuple and (parts := in_two_steps(at)) is not None:
            self[parts[0]][parts[1]] = value
            return
        source = value.array if isinstance(value, Tensor) else np.asarray(value)
        tracked = MODE.get().grad and (
            self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
        )
        if tracked:
            self._check_inplace()
        if not self.array.flags.writeable:
            self._write(self.array, "__setitem__")
        try:
            if source.ndim:
                target = self.array[at]
                while source.ndim > target.ndim and source.shape[0] == 1:
                    source = source[0]
            self.array[at] = source
        except ValueError as e:
            raise ShapeError(
                f"shape mismatch: value tensor of shape {list(source.shape)} cannot be broadcast "
                f"to indexing result of shape {list(target.shape)}"
            ) from e
        self._cell[0] += 1
        if tracked:
            self._rebase(_recorded(index_ops.index_put, self.array, (self, value), {"index": at}))

    # --- operators --------------------------------------------------------------------------

    __add__, __radd__, __iadd__ = _operators(ew.add)
    __sub__, __rsub__, __isub__ = _operators(ew.subtract)
    __mul__, __rmul__, __imul__ = _operators(ew.multiply)
    __truediv__, __rtruediv__, __itruediv__ = _operators(ew.divide)
    __pow__, __rpow__, __ipow__ = _operators(ew.power)
    __floordiv__, __rfloordiv__, __ifloordiv__ = _operators(ew.floor_divide)
    __mod__, __rmod__, __imod__ = _operators(ew.remainder)
    __and__, __rand__, __iand__ = _operators(ew.bitwise_and)
    __or__, __ror__, __ior__ = _operators(ew.bitwise_or)
    __xor__, __rxor__, __ixor__ = _operators(ew.bitwise_xor)
    __lshift__, __rlshift__, __ilshift__ = _operators(ew.left_shift)
    __rshift__, __rrshift__, __irshift__ = _operators(ew.right_shift)
    __matmul__, __rmatmul__, _ = _operators(linalg_ops.matmul)
    __eq__, __ne__ = _binary(ew.equal), _binary(ew.not_equal)
    __lt__, __le__ = _binary(ew.less), _binary(ew.less_equal)
    __gt__, __ge__ = _binary(ew.greater), _binary(ew.greater_equal)
    del _

    def __neg__(self) -> Tensor:
        return apply(ew.negative, (self,))

    def __pos__(self) -> Tensor:
        if self.array.dtype.kind == "b":
            raise DtypeError("positive: not defined for bool tensors")
        return self

    def __abs__(self) -> Tensor:
        return apply(ew.absolute, (self,))

    def __invert__(self) -> Tensor:
        return apply(ew.invert, (self,))

    __hash__ = object.__hash__

    def __getitem__(self, index: Any) -> Tensor:
        at = as_index(index)
        try:
            if type(at) is tuple and (parts := in_two_steps(at)) is not None:
                return self[parts[0]][parts[1]]
            return apply(index_ops.getitem, (self,), {"index": at})
        except IndexError as e:
            raise IndexError(
                f"{e} (index into a tensor of shape {list(self.array.shape)})"
            ) from None

    def __repr__(self) -> str:
        from kilograd.printing import tensor_repr

        return tensor_repr(self)

    __str__ = __repr__


def wrap(array: Any) -> Tensor:
    """A tensor around an array, outside of any graph."""
    t = _new(Tensor)
    t.array = array
    t._cell = [0]
    return t


def tensor_of(array: Any, edge: Edge | None, cell: list[int] | None = None) -> Tensor:
    """The tensor of an array whose gradient goes to ``edge`` (the leaf itself for a leaf)."""
    if isinstance(edge, Tensor):
        return edge
    t = wrap(array if type(array) is not np.generic else np.asarray(array))
    t._node = edge
    if cell is not None:
        t._cell = cell
    return t


driver.tensor_of = tensor_of


def apply(op: Op, args: tuple[Any, ...], options: dict[str, Any] = _NO_OPTIONS) -> Any:
    """Run an op on tensors (arrays and numbers may be among them): compute, wrap, record."""
    arrays: list[Any] = []
    cells: list[list[int] | None] = []
    edges: list[Edge | None] = []
    needs, bit, most = 0, 1, 0
    for a in args:
        if isinstance(a, Tensor):
            if a._view is not None and a._view_seen != a._cell[0]:
                a._refresh()
            array = a.array
            arrays.append(array)
            if array.size > most:
                most = array.size
            cells.append(a._cell)
            edge: Edge | None = a._node
            if edge is None and a._leaf:
                edge = a
            if edge is not None:
                needs |= bit
            edges.append(edge)
        else:
            arrays.append(a)
            cells.append(None)
            edges.append(None)
        bit += bit
    try:
        most *= op.weight
        if (most <= LARGE.limit and not op.often) or op.view:
            y = op.forward(*arrays, **options)
        else:
            y = LARGE.run(op.forward, arrays, options, False, most <= LARGE.limit)
    except Exception as e:
        try:
            y = as_one_step(op.forward, tuple(arrays), options, op.name, e)
        except (ValueError, TypeError) as e:
            raise explain(op, arrays, e) from None
    residuals: tuple[Any, ...] = ()
    if op.residuals:
        y, *rest = y
        residuals = tuple(rest)
    if op.outputs != 1:
        return _several(op, args, arrays, cells, edges, needs, y, residuals, options)
    if type(y) is not np.ndarray and isinstance(y, (np.generic, bool, int, float)):
        y = np.asarray(y)
    out = _new(Tensor)
    out.array = y
    mode = MODE.get()
    if op.view and shares_memory(y, arrays[0]):
        source = args[0]
        out._cell = cell = source._cell
        if mode.grad or not needs:
            out._view = (source, op, options)
            out._view_seen = cell[0]
        else:
            out._cut_view = True
    else:
        out._cell = cell = [0]
    if needs and mode.grad and op.differentiable and y.dtype.kind in "fc":
        out._node = node = record(op, arrays, cells, edges, needs, y, cell, residuals, options)
        if most > LARGE.limit or y.size * op.weight > LARGE.limit:
            node.large = True
        if mode.retain or mode.anomaly:
            _remember(node, out, mode)
        for a in args:
            if a.__class__ is not float and getattr(a, "_inference", False):
                raise GradError(
                    f"{op.name}: Inference tensors cannot be saved for backward. To work around "
                    "you can make a clone to get a normal tensor and use it in autograd."
                )
    elif mode.inference:
        out._inference = True
    return out


def _several(
    op: Op, args: Any, arrays: Any, cells: Any, edges: Any, needs: int, y: Any,
    residuals: tuple[Any, ...], options: dict[str, Any],
) -> tuple[Tensor, ...]:  # fmt: skip
    y = tuple(np.asarray(a) if isinstance(a, np.generic) else a for a in y)
    outs = tuple(wrap(a) for a in y)
    mode = MODE.get()
    if needs and mode.grad and op.differentiable:
        node = record(op, arrays, cells, edges, needs, y, None, residuals, options)
        node.large = any(getattr(a, "size", 0) * op.weight > LARGE.limit for a in arrays)
        for i, out in enumerate(outs):
            if out.array.dtype.kind in "fc":
                out._node = Pick(node, i)
                if mode.retain or mode.anomaly:
                    _remember(out._node, out, mode)
    return outs


def _recorded(op: Op, y: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """The tensor for ``y = op(*args)`` that was computed in place."""
    arrays = [a.array if isinstance(a, Tensor) else a for a in args]
    edges = [a._edge() if isinstance(a, Tensor) else None for a in args]
    needs = sum(1 << i for i, e in enumerate(edges) if e is not None)
    out = wrap(y)
    out._node = record(op, arrays, (None,) * len(args), edges, needs, y, None, (), options)
    return out


def _remember(node: Node, out: Tensor, mode: Any) -> None:
    if mode.retain:
        node.retain = weakref.ref(out)
    if mode.anomaly:
        node.made_at = users_lines()


def repeats(array: Any) -> bool:
    """Whether two elements of an array are one place in memory (an expanded tensor)."""
    return 0 in array.strides and any(
        step == 0 and n > 1 for step, n in zip(array.strides, array.shape, strict=True)
    )


def shares_memory(y: Any, x: Any) -> bool:
    """Whether ``y``, made from ``x`` by a view op, is a view of its memory (and not a copy)."""
    if y is x:
        return True
    base = y.base
    return base is not None and (base is x or base is x.base)

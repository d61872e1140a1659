"""A tensor as Python and NumPy see it: a number, a sequence, something to copy and to pickle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kilograd.kernels.kernel import TRACE
from kilograd.ops.op import Box

T = TypeVar("T", bound="Value")


class NoGrad:
    """What ``t.grad`` is until a gradient is put there: None, with a warning where none will come."""

    def __get__(self, t: Any, owner: type | None = None) -> None:
        if t is not None and t._node is not None and not t.retains_grad:
            warnings.warn(
                "the .grad of a Tensor that is not a leaf is read: backward() keeps gradients of leaves "
                "only. Call retain_grad() on it before backward() if you want its gradient; if you "
                "meant the leaf it was computed from, read that one's .grad.",
                stacklevel=2,
            )


class Value(Box):
    """The protocols of Python and NumPy that Tensor answers, apart from operators and indexing."""

    grad: Any

    if TYPE_CHECKING:

        def __getitem__(self, index: Any) -> Any: ...

        def __getattr__(self, name: str) -> Any: ...  # methods come from kilograd.functions

    # --- Python -----------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self.array.size} elements cannot be converted to Scalar"
            )
        return self.array.item()

    def tolist(self) -> Any:
        """The values as nested Python lists (a number for a 0-d tensor)."""
        return self.array.tolist()

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"Boolean value of Tensor with {'more than one value' if self.array.size else 'no values'}"
                " is ambiguous"
            )
        return bool(self.array.item())

    def _number(self) -> Any:
        if self.array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self.array.item()

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __complex__(self) -> complex:
        return complex(self._number())

    def __index__(self) -> int:
        if self.array.dtype.kind not in "iub" or self.array.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.array.item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        if self.array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self.array)))

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, (Value, int, float, complex)):
            raise RuntimeError(f"Tensor.__contains__ takes a tensor or number, not {type(value)}")
        same: Any = self == value
        return bool(same.array.any())

    def __format__(self, spec: str) -> str:
        return (
            self.item().__format__(spec) if self.array.ndim == 0 else object.__format__(self, spec)
        )

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        if self._node is not None:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                "protocol at the moment; detach() or clone() it first."
            )
        if id(self) in memo:
            return memo[id(self)]
        t = object.__new__(type(self))
        memo[id(self)] = t
        t.array = self.array.copy()
        t._cell = [0]
        t._leaf = self._leaf
        if self.grad is not None:
            t.grad = self.grad.__deepcopy__(memo)
        return t

    def __getstate__(self) -> dict[str, Any]:
        if self._node is not None:
            raise RuntimeError("only leaf tensors can be pickled; detach() it first")
        return {"array": self.array, "_leaf": self._leaf}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.array = state["array"]
        self._cell = [0]
        if state["_leaf"]:
            self._leaf = True

    # --- NumPy ------------------------------------------------------------------------------

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The NumPy array sharing this tensor's memory.

        Raises:
            RuntimeError: the tensor requires grad (``force=True`` detaches first).
        """
        if not force and self.requires_grad:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() "
                "instead."
            )
        trace = TRACE.get()
        if trace is None:
            return np.asarray(self.array)  # the array itself; a lazy one is computed
        return trace.value_of(self.array, ".numpy()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    __array_priority__ = 1000

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from kilograd.functions.dispatch import numpy_ufunc

        return numpy_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from kilograd.functions.dispatch import numpy_function

        return numpy_function(func, args, kwargs)

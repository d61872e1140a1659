"""Tensors that belong to a module: what is learned, and what is only remembered."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from kilograd import dtypes
from kilograd.kernels.kernel import CHANGES
from kilograd.tensor import Tensor


class Parameter(Tensor):
    """A tensor to be learned: assigned to a module's attribute, it is in ``parameters()``.

    It shares the memory of ``data``.

    >>> import kilograd as kg
    >>> kg.nn.Parameter(kg.tensor([1.0, 2.0]))
    Parameter containing:
    tensor([1., 2.], requires_grad=True)
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        _share_memory(self, data)
        if requires_grad:
            self.requires_grad = True

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    __str__ = __repr__

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the value; ``.grad`` stays behind, as PyTorch's does."""
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        return memo[id(self)]


class Buffer(Tensor):
    """A tensor that is part of a module's state but not learned: ``self.mean = Buffer(…)``.

    ``persistent=False`` leaves it out of the ``state_dict``.

    >>> import kilograd as kg
    >>> layer = kg.nn.Module()
    >>> layer.mean = kg.nn.Buffer(kg.zeros(2))
    >>> list(layer.state_dict())
    ['mean']
    """

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        _share_memory(self, data)
        self.persistent = persistent


def _share_memory(tensor: Tensor, data: Any) -> None:
    if isinstance(data, Tensor):
        tensor.array, tensor._cell = data.array, data._cell
    else:
        empty = np.empty(0, dtypes.get_default_dtype().dtype)
        tensor.array, tensor._cell = empty if data is None else np.asarray(data), [0]


class _Uninitialized:
    """A tensor whose shape the first input of a lazy module will decide."""

    def materialize(self: Any, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Give it a shape; its values are arbitrary until they are initialised."""
        want = dtypes.numpy_dtype(dtype) or self.array.dtype
        CHANGES[0] += 1
        self.array = np.zeros(tuple(shape), want)
        self.__class__ = self._becomes

    @property
    def shape(self) -> NoReturn:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = copy = type(self)(dtype=self.array.dtype)
            copy._leaf = self._leaf
        return memo[id(self)]


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter of a lazy module before the first input: it has no shape yet."""

    _becomes = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        want = dtypes.numpy_dtype(dtype) or dtypes.get_default_dtype().dtype
        Parameter.__init__(self, np.empty(0, want), requires_grad)


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer of a lazy module before the first input."""

    _becomes = Tensor

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None,
        persistent: bool = True,
    ) -> None:  # fmt: skip
        want = dtypes.numpy_dtype(dtype) or dtypes.get_default_dtype().dtype
        _share_memory(self, np.empty(0, want))
        self.persistent = persistent


def is_lazy(tensor: Any) -> bool:
    """Whether a parameter or buffer still waits for its shape."""
    return isinstance(tensor, _Uninitialized)

"""Guards: what a recorded program took for granted, checked before it runs again.

A program is right as long as the Python around it would do the same. What can change without the
arguments changing is written down here: the settings of layers (``training`` …), which tensors are
their parameters, what an optimizer holds, and the numbers, tensors and modules that a function
reads from its closure and globals. A counter of changes (``CHANGES``) makes the usual check one
comparison.
"""

from __future__ import annotations

import types
from operator import attrgetter
from typing import Any

from kilograd.kernels.kernel import CHANGES
from kilograd.tensor import Tensor

_SCALARS = (bool, int, float, str, type(None))
_get_array = attrgetter("array")


def _known(value: Any) -> Any:
    """What must stay the same about a value: a number itself, of other things which one it is."""
    if isinstance(value, _SCALARS):
        return (type(value), value)
    if type(value) in (list, tuple):
        return (id(value), tuple([id(v) if not isinstance(v, _SCALARS) else v for v in value[:256]]), len(value))
    if type(value) is dict:
        return (id(value), tuple([id(v) if not isinstance(v, _SCALARS) else v for v in list(value.values())[:256]]))
    return id(value)


def module_state(module: Any) -> Any:
    """A layer's settings, and which parameters, buffers and layers it has."""
    parts = []
    for name, value in module.__dict__.items():
        if type(value) is dict and name.startswith("_"):
            parts.append((name, tuple([(k, id(v)) for k, v in value.items()])))
        else:
            parts.append((name, _known(value)))
    return parts


def optimizer_state(optimizer: Any) -> Any:
    """Which tensors an optimizer holds, and the settings that are no numbers."""
    groups = [
        [(k, v if isinstance(v, (bool, str, type(None))) else None) for k, v in g.items() if k != "params"]
        + [tuple(map(id, g["params"]))]
        for g in optimizer.param_groups
    ]
    state = [(id(p), tuple([(k, id(t)) for k, t in s.items()])) for p, s in optimizer.state.items()]
    return groups, state, len(optimizer._step_pre_hooks), len(optimizer._step_post_hooks)


class Names:
    """What a function reads from its closure and its globals, as it was when looked at."""

    def __init__(self, fn: Any) -> None:
        self.cells: list[Any] = []
        self.places: list[tuple[dict[str, Any], str]] = []
        self.objects: list[Any] = []
        seen: set[int] = set()
        stack = [fn]
        while stack:
            f = stack.pop()
            if isinstance(f, types.MethodType):
                self._object(f.__self__)
                f = f.__func__
            if not isinstance(f, types.FunctionType) or id(f) in seen:
                continue
            seen.add(id(f))
            for cell in f.__closure__ or ():
                self.cells.append(cell)
                self._follow(_content(cell), stack)
            for name in _global_names(f.__code__):
                if name in f.__globals__:
                    self.places.append((f.__globals__, name))
                    self._follow(f.__globals__[name], stack)
        self.before = self.state()

    def _follow(self, value: Any, stack: list[Any]) -> None:
        if isinstance(value, (types.FunctionType, types.MethodType)):
            if not getattr(value, "__module__", "").startswith(("kilograd.", "numpy")):
                stack.append(value)
        else:
            self._object(value)

    def _object(self, value: Any) -> None:
        """An object of a class of the user's: its attributes."""
        if isinstance(value, (type, types.ModuleType, Tensor)) or not hasattr(value, "__dict__"):
            return
        if type(value).__module__.split(".")[0] not in ("kilograd", "numpy", "builtins"):
            if all(value is not o for o in self.objects):
                self.objects.append(value)

    def state(self) -> Any:
        return (
            [_known(_content(c)) for c in self.cells],
            [_known(space.get(name)) for space, name in self.places],
            [[(k, _known(v)) for k, v in vars(o).items() if not k.startswith("_")] for o in self.objects],
        )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _global_names(code: Any) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _global_names(constant)
    return names


class Guards:
    """Everything a program depends on besides its arguments."""

    def __init__(self, names: Names | None) -> None:
        self.names = names
        self.modules: list[tuple[Any, Any]] = []
        self.optimizers: list[tuple[Any, Any]] = []
        self.tensors: list[Any] = []  # tensors of before that are read by reference …
        self.arrays: list[Any] = []  # … and their memory
        self.layouts: list[Any] = []
        self.leaves: list[Any] = []
        self.no_grad_at_start: list[Any] = []  # tensors whose .grad was None when it was looked at
        self.grads: list[tuple[Any, Any]] = []  # (tensor, layout of its .grad)
        self.settings: list[tuple[Any, Any, Any]] = []  # (group, (name, place), value): decided on
        self.changes = -1

    def why_not(self) -> str | None:
        """None if the program may run; else what has changed."""
        if self.names is not None and self.names.state() != self.names.before:
            return "a variable that the function reads"
        for group, (name, place), value in self.settings:
            now = group.get(name)
            if (now if place is None else now[place]) != value:
                return f"the setting {name!r} of an optimizer"
        for t in self.no_grad_at_start:
            if t.__dict__.get("grad") is not None:
                return "a .grad that was None is there"
        for t, layout in self.grads:
            grad = t.__dict__.get("grad")
            if grad is None or _layout(grad.array) != layout:
                return "a .grad that was there is None, or has another shape"
        if self.changes != CHANGES[0]:
            for module, state in self.modules:
                if module_state(module) != state:
                    return f"the settings of a {type(module).__name__}"
            for t, leaf in zip(self.tensors, self.leaves, strict=True):
                if t._leaf != leaf or t._node is not None:
                    return "requires_grad of a tensor"
            self.changes = CHANGES[0]
        for optimizer, state in self.optimizers:
            if len(optimizer.state) != len(state[1]):
                return f"the state of {type(optimizer).__name__}"
        try:
            same = list(map(_get_array, self.tensors)) == self.arrays
        except ValueError:
            same = False
        if not same:  # other memory: fine if it has the same layout
            self.arrays = list(map(_get_array, self.tensors))
            if list(map(_layout, self.arrays)) != self.layouts:
                return "the shape or dtype of a tensor"
        return None

    def check_optimizers(self) -> str | None:
        """Which state optimizers hold (looked at where CHANGES moved)."""
        for optimizer, state in self.optimizers:
            if optimizer_state(optimizer) != state:
                return f"the state of {type(optimizer).__name__}"
        return None


def _layout(array: Any) -> Any:
    return array.shape, array.dtype, array.strides


layout = _layout

"""Guards: what a recorded program took for granted, checked before it runs again.

A program is right as long as the Python around it would do the same. What can change without the
arguments changing is written down here: the settings of layers (``training`` …), which tensors are
their parameters, what an optimizer holds, and the numbers, tensors and objects that a function
reads from its closure, its globals and attributes (:class:`Names`). A counter of changes
(``CHANGES``) makes the usual check one comparison.
"""

from __future__ import annotations

import functools
import random as pyrandom
import types
from collections import deque
from operator import attrgetter
from typing import Any

import numpy as np

from kilograd.kernels.kernel import CHANGES, OBSERVERS
from kilograd.tensor import Tensor

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_LIBRARIES = ("kilograd", "numpy", "builtins", "functools", "torch")  # not looked into
_MOST = 1000  # values of a container that are looked at
_get_array = attrgetter("array")
_MISSING = object()


# --- what must stay the same about a value ----------------------------------------------------------


class _Is:
    """An object, compared by identity (and kept, so that no other gets its address)."""

    __slots__ = ("it",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return type(other) is _Is and other.it is self.it


def _known(value: Any, room: list[int] | None = None) -> Any:
    """A number or string itself, the contents of a container, of other things which one it is."""
    if isinstance(value, _SCALARS):
        return (type(value), value, str(value)) if value == 0 else (type(value), value)
    if isinstance(value, _CONTAINERS):
        room = [_MOST] if room is None else room
        room[0] -= len(value)
        if room[0] < 0:  # too much to look at every time
            return _Is(object())  # equal to nothing
        inside = value.items() if isinstance(value, dict) else value
        return type(value), [_known(v, room) for v in inside]
    if isinstance(value, np.ndarray):
        if value.size > _MOST or value.dtype == object:
            return _Is(object())
        return value.shape, value.dtype, value.tobytes()
    return _Is(value)


def _is_ours(cls: type) -> bool:
    """Whether a class is the library's, or one of Python's own."""
    return cls.__module__.split(".")[0] in _LIBRARIES


def is_module(x: Any) -> bool:
    """Whether a value is a layer. (What one is made of says so: this floor knows no layers.)"""
    mine = getattr(x, "__dict__", ())
    return "_modules" in mine and "_parameters" in mine


def is_optimizer(x: Any) -> bool:
    """Whether a value is an optimizer."""
    mine = getattr(x, "__dict__", ())
    return "param_groups" in mine and "_step_pre_hooks" in mine


def module_state(module: Any, names: set[str]) -> Any:
    """A layer's settings, and which parameters, buffers and layers it has.

    Of a class of the user's, the attributes that the compiled code mentions.
    """
    ours = _is_ours(type(module))
    parts: list[Any] = []
    mine = module.__dict__
    for name, value in mine.items():
        if type(value) is dict and name.startswith("_"):
            if name != "_compiled_methods":
                parts.append((name, [(k, _Is(v)) for k, v in value.items()]))
        elif name in mine["_parameters"] or name in mine["_buffers"] or name in mine["_modules"]:
            continue
        elif name == "forward":  # patched by the user; or compiled, which changes nothing
            if type(value).__name__ != "Compiled":
                parts.append((name, _Is(value)))
        elif name != "training" and (ours or name in names):
            parts.append((name, _known(value)))
    return parts


def optimizer_state(optimizer: Any) -> Any:
    """Which groups and tensors an optimizer holds, and its hooks."""
    groups = [(_Is(g), list(g), [_Is(p) for p in g["params"]]) for g in optimizer.param_groups]
    state = [(_Is(p), [(k, _Is(t)) for k, t in s.items()]) for p, s in optimizer.state.items()]
    return groups, state, list(optimizer._step_pre_hooks), list(optimizer._step_post_hooks)


def holds(optimizer: Any) -> list[Any]:
    """What an optimizer holds, to be compared by identity."""
    return [t for s in optimizer.state.values() for t in s.values()]


def plain_settings(group: dict[str, Any]) -> tuple[tuple[str, ...], Any]:
    """The settings that are decided on when a step is recorded: all that are no floats."""
    names = []
    for k, v in group.items():
        floats = v if type(v) is tuple and v else (v,)
        a_number = all(type(x) is float for x in floats) or isinstance(v, np.floating)
        a_number = a_number or (k == "lr" and type(v) is int)
        if not a_number and k not in ("params", "initial_lr"):
            names.append(k)
    return tuple(names), [_known(group[k]) for k in names]


def tensor_hooks(t: Any) -> Any:
    """The hooks on a leaf."""
    return [*(t._hooks or ()), *(t._post_hooks or ())]


def global_hooks() -> Any:
    """The hooks on all layers and optimizers."""
    return [list(hooks) for hooks in OBSERVERS]


def layout(array: Any) -> Any:
    """What a program knows of an array besides its values."""
    return array.shape, array.dtype, array.strides, array.flags.writeable


def owner_of(array: Any) -> Any:
    """Whose memory an array is in: the same object for an array and all views of it."""
    base = array.base
    while base is not None:
        array, base = base, getattr(base, "base", None)
    return array


def memory(array: Any) -> int:
    """The identity of the memory an array is in."""
    return id(owner_of(array))


# --- what a function reads --------------------------------------------------------------------------


class _Attributes:
    """The attributes of an object without a dictionary, looked up as in one."""

    def __init__(self, o: Any) -> None:
        self.o = o

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self.o, name, default)


class Names:
    """What a function reads from its closure, globals and objects, as it was when looked at.

    The code is looked through, not run: all functions of the user's that it can reach by name, and
    of each object in reach the attributes that this code mentions.
    """

    def __init__(self, fn: Any, given: Any = ()) -> None:
        self.refused: str | None = None
        self.cells: list[tuple[Any, Any, Any]] = []
        self.places: list[tuple[Any, str, Any, Any]] = []
        self.words: set[str] = set()  # all names in the code
        self._functions: list[Any] = []
        self._objects: list[Any] = []
        self._seen: dict[int, Any] = {}
        self._watched: set[Any] = set()
        for value in (fn, *given):
            self._follow(value)
        owner = getattr(fn, "__self__", None)  # such as a Trainer: what it is made of
        if any(map(_is_ours, type(owner).__mro__[:-1])):
            for attribute, value in getattr(owner, "__dict__", {}).items():
                if is_module(value) or is_optimizer(value) or callable(value):
                    self._watch(owner, attribute)
            for method in [m for m in dir(type(owner)) if m[0] != "_"]:
                if isinstance(getattr(type(owner), method), types.FunctionType):
                    self._watch(owner, method)  # one may be replaced on the object itself
        size = None
        while size != (size := (len(self._functions), len(self._objects), len(self.words))):
            for f in list(self._functions):
                self._look_into_globals(f)
            for o in list(self._objects):
                self._look_into_object(o)
        if self.refused is None and (name := self.changed()) is not None:
            self.refused = f"it reads {name!r}, which holds more than {_MOST} values"
        if self.refused is not None and (code := getattr(fn, "__code__", None)) is not None:
            self.refused += f"\n  at {code.co_filename}:{code.co_firstlineno} in {code.co_name}"
        # what modules are set to now, those too that are only looked at
        self.modules = [(m, module_state(m, self.words), m.training) for m in self._modules()]
        self.leaves = [(t, t._leaf) for t in self._parameters()]

    def _modules(self) -> list[Any]:
        return [o for o in self._objects if is_module(o)]

    def _parameters(self) -> list[Tensor]:
        found = {id(t): t for t in self.tensors()}
        for m in self._modules():
            found |= {id(t): t for t in m._parameters.values() if t is not None}
        return list(found.values())

    def _follow(self, value: Any, depth: int = 0) -> None:
        """Find functions and objects of the user's in a value."""
        if isinstance(value, (*_SCALARS, Tensor, np.ndarray)) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, types.FunctionType):
            if value.__module__ is None or value.__module__.split(".")[0] not in _LIBRARIES:
                self._functions.append(value)
                self.words.update(_words(value.__code__))
                for cell in value.__closure__ or ():
                    content = _content(cell)
                    self.cells.append((cell, content, _inside(content)))
                    self._follow(content)
                for name in ("__defaults__", "__kwdefaults__"):
                    if (held := getattr(value, name)) is not None:
                        self.places.append((_Attributes(value), name, held, _inside(held)))
                for default in (
                    *(value.__defaults__ or ()),
                    *(value.__kwdefaults__ or {}).values(),
                ):
                    self._follow(default)
        elif isinstance(value, types.MethodType):
            self._follow(value.__self__)
            self._follow(value.__func__)
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._follow(part)
        elif isinstance(value, (staticmethod, classmethod)):
            self._follow(value.__func__)
        elif isinstance(value, property):
            self._follow(value.fget)
        elif type(value).__name__ == "Compiled" and hasattr(value, "fn"):
            self._follow(value.fn)
        elif isinstance(value, _CONTAINERS):
            if depth < 3 and len(value) <= _MOST:
                for v in value.values() if isinstance(value, dict) else value:
                    self._follow(v, depth + 1)
        elif is_module(value):
            for m in value.modules():
                self._objects.append(m)
                for name, hooks in m.__dict__.items():
                    if name.endswith("_hooks") and type(hooks) is dict:
                        for hook in hooks.values():
                            self._follow(getattr(hook, "fn", hook))
        elif is_optimizer(value):
            for hook in (*value._step_pre_hooks.values(), *value._step_post_hooks.values()):
                self._follow(hook)
            self._objects.append(value)
        elif isinstance(value, types.ModuleType):
            if value.__name__.split(".")[0] not in _LIBRARIES:
                self._objects.append(value)
        elif isinstance(value, type):
            if not _is_ours(value):
                self._objects.append(value)
        elif isinstance(value, (np.random.Generator, np.random.RandomState, pyrandom.Random)):
            self.refused = self.refused or "it draws from a generator that is not kilograd's"
        elif hasattr(type(value), "__next__"):
            self.refused = self.refused or f"it reads from an iterator ({type(value).__name__})"
        elif (hasattr(value, "__dict__") or hasattr(type(value), "__slots__")) and (
            not _is_ours(type(value)) or type(value).__module__.startswith("kilograd.optim")
        ):  # (of our own, schedulers have a state)
            self._objects.append(value)

    def _watch(self, owner: Any, name: str) -> None:
        """Notice when a global, or an attribute of an object or class, is another."""
        if (id(owner), name) not in self._watched:
            self._watched.add((id(owner), name))
            space = owner if type(owner) is dict else getattr(owner, "__dict__", None)
            if space is None or type(_of_class(type(owner), name)) is types.MemberDescriptorType:
                space = _Attributes(owner)  # __slots__
            value = space.get(name, _MISSING)
            self.places.append((space, name, value, _inside(value)))
            self._follow(value)

    def _look_into_globals(self, f: Any) -> None:
        for name in _words(f.__code__):
            if name in f.__globals__:
                self._watch(f.__globals__, name)

    def _look_into_object(self, o: Any) -> None:
        if isinstance(o, types.ModuleType):
            for name in self.words & vars(o).keys():
                self._watch(o, name)
            return
        methods = {"forward", "step", "update", "init", "__call__", "__getitem__", "__len__",
                   "__iter__", "__contains__", "__getattr__", "__bool__", "__float__"}  # fmt: skip
        classes = [c for c in (o if isinstance(o, type) else type(o)).__mro__ if not _is_ours(c)]
        for k, cls in enumerate(classes):
            for name in (self.words | methods) & vars(cls).keys():
                for nearer in classes[: k + 1]:  # they may get one of their own
                    self._watch(nearer, name)
        if isinstance(o, type):
            return
        if is_module(o) or is_optimizer(o):  # their settings are guarded elsewhere
            for name in self.words & vars(o).keys():
                value = vars(o)[name]
                self._follow(value)
                of_optimizers = name == "state"
                if isinstance(value, _CONTAINERS) and name[0] != "_" and not of_optimizers:
                    self._watch(o, name)
            return
        mine = getattr(o, "__dict__", None)
        for name in list(mine if mine is not None and _is_ours(type(o)) else self.words):
            found = _of_class(type(o), name)
            if type(found) is types.MemberDescriptorType:  # __slots__
                self._watch(o, name)
                continue
            overrides = not hasattr(type(found), "__set__")  # the object's own is asked first
            if mine is not None and overrides and (name in mine or not name.startswith("__")):
                self._watch(o, name)

    def tensors(self) -> list[Tensor]:
        """The tensors among them."""
        found = [v for _, v, _ in self.cells] + [v for _, _, v, _ in self.places]
        return [v for v in found if isinstance(v, Tensor)]

    def changed(self) -> str | None:
        """None if all is as it was, else a name."""
        for cell, value, inside in self.cells:
            if _differs(_content(cell), value, inside):
                return "a variable of the enclosing function"
        for space, name, value, inside in self.places:
            if _differs(space.get(name, _MISSING), value, inside):
                return name
        return None


def _of_class(cls: type, name: str) -> Any:
    """What the objects of a class find there under a name, as it lies there."""
    return next((vars(c)[name] for c in cls.__mro__ if name in vars(c)), _MISSING)


def _inside(value: Any) -> Any:
    """What to compare besides the identity of a value."""
    return _known(value) if isinstance(value, (*_CONTAINERS, np.ndarray)) else None


def _differs(now: Any, value: Any, inside: Any) -> bool:
    if now is not value:
        return not isinstance(value, _SCALARS) or _known(now) != _known(value)
    return inside is not None and _known(now) != inside


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


@functools.cache
def _words(code: Any) -> frozenset[str]:
    """The names of globals and attributes in a function, and strings that may be some."""
    words = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            words |= _words(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            words.add(constant)
    return frozenset(words)


# --- the guards of one program ----------------------------------------------------------------------


class Guards:
    """Everything a program depends on besides its arguments."""

    def __init__(self, names: Names | None) -> None:
        self.names = names
        self.modules: list[tuple[Any, Any]] = []
        self.training: list[tuple[Any, bool]] = []
        self.optimizers: list[tuple[Any, Any]] = []
        self.tensors: list[Any] = []  # tensors of before that are read by reference …
        self.arrays: list[Any] = []  # … and their memory
        self.layouts: list[Any] = []
        self.leaves: list[tuple[Any, bool]] = []  # whether they require grad
        self.hooks: list[tuple[Any, Any]] = []
        self.plain: list[Any] = []  # those that could get a graph of their own
        self.no_grad_at_start: list[Any] = []  # tensors whose .grad was None when it was looked at
        self.grad_at_start: list[Any] = []  # those whose .grad was there, whatever it held
        self.grads: list[tuple[Any, Any]] = []  # (tensor or argument, layout of its .grad)
        self.settings: list[tuple[Any, Any, Any]] = []  # (group, (name, place), value): decided on
        self.groups: list[tuple[Any, Any, Any]] = []  # (group, names, values): what is no float
        self.same: dict[int, Any] = {}  # arguments that are tensors of the program's own
        self.writes_arguments = False
        self.memories: set[int] = set()  # where the tensors of before lie
        self.changes = -1

    def close(self) -> None:
        """All is written down: remember how things are."""
        self.arrays = list(map(_get_array, self.tensors))
        self.layouts = list(map(layout, self.arrays))
        self.plain = [t for t in self.tensors if not t._leaf]
        self.hooks = [(t, tensor_hooks(t)) for t in self.tensors]
        self.all_hooks = global_hooks()
        self.sharing = self._sharing()
        self.changes = CHANGES[0]

    def _sharing(self) -> list[int]:
        places = list(map(memory, self.arrays))
        self.memories = set(places)
        return [places.index(p) for p in places]

    def why_not(self, given: list[Any]) -> str | None:
        """None if the program may run on these arguments; else what has changed."""
        if self.names is not None and (name := self.names.changed()) is not None:
            return f"{name!r}, which the function reads"
        for group, (name, place), value in self.settings:
            now = group.get(name)
            if (now if place is None else now[place]) != value:
                return f"the setting {name!r} of an optimizer"
        for group, names, values in self.groups:
            if [_known(group.get(k)) for k in names] != values:
                return "a setting of an optimizer"
        for t in self.no_grad_at_start:
            t = given[t] if type(t) is int else t
            if t.__dict__.get("grad") is not None:
                return "a .grad that was None is there"
        for t in self.grad_at_start:
            t = given[t] if type(t) is int else t
            if t.__dict__.get("grad") is None:
                return "a .grad that was there is None"
        if self.grads and (why := self._other_grads(given)) is not None:
            return why
        for t in self.plain:
            if t._node is not None:
                return "a tensor has a graph now"
        for optimizer, state in self.optimizers:
            if optimizer_state(optimizer) != state:
                return f"the state of {type(optimizer).__name__}"
        if self.changes != CHANGES[0] and (why := self._changed()) is not None:
            return why
        try:
            same = list(map(_get_array, self.tensors)) == self.arrays
        except ValueError:
            same = False
        if not same:  # other memory: fine if it has the same layout
            self.arrays = list(map(_get_array, self.tensors))
            if list(map(layout, self.arrays)) != self.layouts or self._sharing() != self.sharing:
                self.arrays = []
                return "the shape or dtype of a tensor, or which of them share memory"
        for i, t in enumerate(given):
            if memory(t.array) in self.memories and self.same.get(i) is not t:
                return "an argument shares the memory of a tensor that the function uses"
        for i, t in self.same.items():
            if given[i] is not t:
                return "an argument that was one of the function's own tensors is another one"
        if self.writes_arguments and len(given) > 1:
            arrays = [t.array for t in given]
            if len(set(map(memory, arrays))) < len(arrays):
                return "arguments share memory, and one is written"
        return None

    def _other_grads(self, given: list[Any]) -> str | None:
        seen: set[int] = set()
        for t, was in self.grads:
            grad = (given[t] if type(t) is int else t).__dict__.get("grad")
            if grad is None or layout(grad.array) != was or grad._node is not None:
                return "a .grad that was there is None, or has another shape"
            seen.add(memory(grad.array))
        if len(seen) < len(self.grads) or seen & self.memories:
            return "a .grad shares memory"
        return None

    def _changed(self) -> str | None:
        """The structure of some model or optimizer has changed: of ours?"""
        now = CHANGES[0]
        words = self.names.words if self.names is not None else set()
        for module, training in self.training:
            if module.training is not training:
                return f"the mode of a {type(module).__name__}"
        for module, state in self.modules:
            if module_state(module, words) != state:
                return f"the settings of a {type(module).__name__}"
        for optimizer, state in self.optimizers:
            if optimizer_state(optimizer) != state:
                return f"the state of {type(optimizer).__name__}"
        for t, leaf in self.leaves:
            if t._leaf is not leaf:
                return "requires_grad of a tensor"
        for t, hooks in self.hooks:
            if tensor_hooks(t) != hooks:
                return "the hooks of a tensor"
        if global_hooks() != self.all_hooks:
            return "the hooks of all modules or optimizers"
        self.changes = now
        return None

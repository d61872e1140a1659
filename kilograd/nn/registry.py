"""Registries: a module's ``_parameters``, ``_buffers`` and ``_modules``, followed by its attributes.

What a registry holds is an attribute of the module too (``nn/module.py`` says why). So what one
reads at ``module._modules`` is not the dictionary itself but a view of it, made for this access:
it reads from the dictionary and writes to both. The dictionaries stay in the module's ``__dict__``,
where pickles and copies find them; the module does not know its views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

from kilograd.kernels.kernel import CHANGES

V = TypeVar("V")
REGISTRIES = ("_parameters", "_buffers", "_modules")
NOTHING: Any = object()  # no entry by that name (None is one)


def bare(module: Any, registry: str) -> dict[str, Any]:
    """The dictionary of a registry itself, to be read only: quicker than through a view."""
    try:
        return module.__dict__[registry]
    except KeyError:  # before Module.__init__()
        name = type(module).__name__
        raise AttributeError(f"'{name}' object has no attribute '{registry}'") from None


def registered(mine: dict[str, Any], name: str) -> Any:
    """What a module with this ``__dict__`` has under a name in its first registry that has it."""
    for registry in REGISTRIES:
        if name in mine.get(registry, ()):
            return mine[registry][name]
    return NOTHING


def _follow(module: Any, name: str, before: Any) -> None:
    """Let the attribute follow its registry, in which ``before`` was until now."""
    CHANGES[0] += 1
    mine = module.__dict__
    if mine.get(name, NOTHING) is not before:
        return  # as in PyTorch, an ordinary attribute by that name hides what is registered …
    now = registered(mine, name)
    if now is NOTHING:
        mine.pop(name, None)
    elif before is not NOTHING or not hasattr(type(module), name):  # … and so does a method
        mine[name] = now


class Registry(Generic[V]):
    """A registry, as the class of all modules has it: gives a view, takes a new dictionary."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type | None = None) -> dict[str, V]:
        if module is None:
            raise AttributeError(f"type object has no attribute '{self.name}': its objects have")
        return Entries(module, bare(module, self.name))

    def __set__(self, module: Any, entries: Mapping[str, V]) -> None:
        mine, new = module.__dict__, dict(entries)
        names = [*mine.get(self.name, ()), *new]
        before = {name: registered(mine, name) for name in names}
        mine[self.name] = new  # the old one stays as it is: another module may have it
        for name, value in before.items():
            _follow(module, name, value)


class Entries(dict[str, Any]):
    """A module's registry to read and write; an attribute of the module follows each write.

    It is a ``dict`` by type only, as code that asks expects: the entries are in the module's.

    >>> import kilograd as kg
    >>> net = kg.nn.Sequential(kg.nn.Linear(4, 8), kg.nn.ReLU())
    >>> net._modules["1"] = kg.nn.Tanh()
    >>> net._modules
    {'0': Linear(in_features=4, out_features=8, bias=True), '1': Tanh()}
    >>> net.get_submodule("1")
    Tanh()
    """

    __slots__ = ("_module", "_raw")

    def __init__(self, module: Any, raw: dict[str, Any]) -> None:
        self._module = module
        self._raw = raw

    # --- read -----------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        return self._raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __repr__(self) -> str:
        return repr(self._raw)

    def __eq__(self, other: object) -> bool:
        return bool(self._raw == (other._raw if isinstance(other, Entries) else other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of a name, or ``default``."""
        return self._raw.get(name, default)

    def keys(self) -> Any:
        """The names."""
        return self._raw.keys()

    def values(self) -> Any:
        """What is registered."""
        return self._raw.values()

    def items(self) -> Any:
        """The names with what is registered; entries may be replaced meanwhile."""
        return self._raw.items()

    def copy(self) -> dict[str, Any]:
        """An ordinary dictionary of the entries, which belongs to no module."""
        return self._raw.copy()

    __copy__ = copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (self._raw.copy(),)  # copied or saved by itself, it belongs to no module

    def __or__(self, other: Any) -> Any:
        return self._raw | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return dict(other) | self._raw if isinstance(other, Mapping) else NotImplemented

    # --- write ----------------------------------------------------------------------------------

    def __setitem__(self, name: str, value: Any) -> None:
        before = registered(self._module.__dict__, name)
        self._raw[name] = value
        _follow(self._module, name, before)

    def __delitem__(self, name: str) -> None:
        before = registered(self._module.__dict__, name)
        del self._raw[name]
        _follow(self._module, name, before)

    # By the two methods above; dict's own would write to the view itself.
    clear: Any = MutableMapping.clear
    update: Any = MutableMapping.update
    setdefault: Any = MutableMapping.setdefault

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def pop(self, name: str, default: Any = NOTHING) -> Any:
        """Take an entry out; ``default`` if it is not there (KeyError without one)."""
        if default is not NOTHING and name not in self._raw:
            return default
        value = self._raw[name]
        del self[name]
        return value

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """Take the last entry out (or the first, as of an ``OrderedDict``)."""
        if not self._raw:
            raise KeyError("popitem(): dictionary is empty")
        name = next(reversed(self._raw) if last else iter(self._raw))
        return name, self.pop(name)

    def move_to_end(self, name: str, last: bool = True) -> None:
        """Put an entry after all others (or before them), as in an ``OrderedDict``."""
        entry = {name: self._raw.pop(name)}
        others = self._raw.copy()
        self._raw.clear()
        self._raw.update(others | entry if last else entry | others)
        CHANGES[0] += 1

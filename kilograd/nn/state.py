"""What a module holds: found by its name, converted to another dtype, saved, loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from kilograd import dtypes
from kilograd.autograd.handle import RemovableHandle
from kilograd.errors import GradError
from kilograd.nn.hooks import Hook
from kilograd.nn.parameter import Parameter, is_lazy
from kilograd.nn.registry import Registry, bare
from kilograd.size import device
from kilograd.tensor import Tensor, wrap

if TYPE_CHECKING:
    from kilograd.nn.module import Module

T = TypeVar("T", bound="State")
_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` did not find, and what it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"_IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


class State:
    """The half of Module that a first reader may skip: ``get_parameter``, ``to``, ``state_dict`` …"""

    _version = 1  # of the layout of state_dict, kept in its metadata
    _parameters: Registry[Parameter | None] = Registry()
    _buffers: Registry[Tensor | None] = Registry()
    _modules: Registry[Module | None] = Registry()
    _non_persistent_buffers_set: set[str]
    _state_dict_pre_hooks: dict[int, Hook] = {}  # noqa: RUF012 (never written: see Module._hook)
    _state_dict_hooks: dict[int, Hook] = {}  # noqa: RUF012
    _load_state_dict_pre_hooks: dict[int, Hook] = {}  # noqa: RUF012
    _load_state_dict_post_hooks: dict[int, Hook] = {}  # noqa: RUF012

    if TYPE_CHECKING:

        def children(self) -> Iterator[Module]: ...
        def _hook(self, kind: str, hook: Any, **how: Any) -> RemovableHandle: ...

    # --- found by its dotted name ----------------------------------------------------------------

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; AttributeError if there is none."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, State):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Replace the module at a dotted path (with ``strict``, only if it exists)."""
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if not isinstance(module, State):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), State):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path; AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        found = getattr(module, name)
        if not isinstance(found, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path; AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in module._buffers:
            raise AttributeError(f"`{name}` is not a buffer")
        return module._buffers[name]  # type: ignore[return-value]

    # --- converted --------------------------------------------------------------------------

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        """Replace the values (and gradients) of all parameters and buffers by ``fn`` of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for p in self._parameters.values():
            if p is not None:
                p.data = fn(p.data)
                if p.grad is not None:
                    p.grad.data = fn(p.grad.data)
        for name, b in self._buffers.items():
            if is_lazy(b):  # waits for its shape as before, with the new dtype
                b.data = fn(b.data)  # type: ignore[union-attr]
            elif b is not None:
                self._buffers[name] = fn(b)
        return self

    def to(self: T, *args: Any, **kwargs: Any) -> T:
        """Convert floating-point parameters and buffers: ``to(dtype)``, ``to(device, dtype)``.

        In place, and returns the module. ``to(tensor)`` takes that tensor's dtype.

        Raises:
            TypeError: the dtype is not a floating-point one.
        """
        dtype = kwargs.get("dtype")
        for a in (*args, kwargs.get("device")):
            if isinstance(a, Tensor):
                dtype = a.dtype
            elif isinstance(a, (str, device)):
                device(a)
            elif type(a) is int:  # the number of an accelerator
                device(f"cuda:{a}")
            elif a is not None and not isinstance(a, bool):
                dtype = dtypes.as_dtype(a)
        if dtype is None:
            return self
        dtype = dtypes.as_dtype(dtype)
        if not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )
        return self._cast(dtype)

    def _cast(self: T, dtype: dtypes.dtype, only_floats: bool = True) -> T:
        def cast(t: Tensor) -> Tensor:
            if only_floats and t.array.dtype.kind not in "fc":
                return t
            return t if t.array.dtype == dtype.dtype else wrap(t.array.astype(dtype.dtype))

        return self._apply(cast)

    def to_empty(self: T, *, device: Any = None, recurse: bool = True) -> T:
        """Replace all values by uninitialised memory."""
        return self._apply(lambda t: wrap(np.empty_like(t.array)), recurse)

    def type(self: T, dst_type: Any) -> T:
        """Convert all parameters and buffers to a dtype."""
        return self._cast(dtypes.as_dtype(dst_type), only_floats=False)

    def float(self: T) -> T:
        """Convert floating-point parameters and buffers to float32."""
        return self._cast(dtypes.float32)

    def double(self: T) -> T:
        """Convert floating-point parameters and buffers to float64."""
        return self._cast(dtypes.float64)

    def half(self: T) -> T:
        """Convert floating-point parameters and buffers to float16."""
        return self._cast(dtypes.float16)

    def cpu(self: T) -> T:
        """Nothing to do: everything is on the CPU."""
        return self

    def cuda(self: T, device: Any = None) -> T:
        """Raises RuntimeError: kilograd computes on the CPU only."""
        raise GradError(
            "kilograd computes on 'cpu' only: there is no 'cuda' device to move a module to"
        )

    def xpu(self: T, device: Any = None) -> T:
        """Raises RuntimeError: kilograd computes on the CPU only."""
        raise GradError(
            "kilograd computes on 'cpu' only: there is no 'xpu' device to move a module to"
        )

    def share_memory(self: T) -> T:
        """Nothing to do: processes that are forked see the same memory until they write."""
        return self

    # --- saved and loaded ---------------------------------------------------------------------

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name; they share the module's memory.

        >>> import kilograd as kg
        >>> {k: tuple(v.shape) for k, v in kg.nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        if args:  # the order of old: destination, prefix, keep_vars
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and not prefix else prefix
            keep_vars = args[2] if len(args) > 2 and not keep_vars else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in bare(self, "_modules").items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            got = hook(self, destination, prefix, local_metadata)
            if got is not None and hook.public:
                raise RuntimeError("state_dict post-hook must return None")
            destination = destination if got is None else got
        return destination

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Write this module's own entries."""
        for name, t in self._own_state():
            destination[prefix + name] = t if keep_vars or is_lazy(t) else t.detach()
        if type(self).get_extra_state is not State.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    def _own_state(self) -> Iterator[tuple[str, Tensor]]:
        skip = self._non_persistent_buffers_set
        for name, p in bare(self, "_parameters").items():
            if p is not None:
                yield name, p
        for name, b in bare(self, "_buffers").items():
            if b is not None and name not in skip:
                yield name, b

    def get_extra_state(self) -> Any:
        """More state for state_dict, if a module defines this (and :meth:`set_extra_state`)."""
        raise RuntimeError(
            "Reached a code path in Module.get_extra_state() that should never be called."
        )

    def set_extra_state(self, state: Any) -> None:
        """Take back what :meth:`get_extra_state` gave."""
        raise RuntimeError(
            "Reached a code path in Module.set_extra_state() that should never be called."
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values into the parameters and buffers, which stay the same objects.

        Args:
            state_dict: tensors (or arrays) by dotted name.
            strict: raise if a name is missing or unknown.
            assign: put the given tensors in the place of the old ones instead of copying.

        Raises:
            RuntimeError: one message with everything that is missing, unknown or misshapen.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        state = OrderedDict(state_dict)
        keys = IncompatibleKeys([], [])
        errors: list[str] = []

        def load(module: State, prefix: str) -> None:
            local = dict((metadata or {}).get(prefix[:-1], {}))
            if assign:
                local["assign_to_params_buffers"] = True
            module._load_from_state_dict(
                state, prefix, local, True, keys.missing_keys, keys.unexpected_keys, errors
            )
            for name, child in module._modules.items():
                if child is not None:
                    load(child, f"{prefix}{name}.")
            for hook in module._load_state_dict_post_hooks.values():
                if hook(module, keys) is not None:
                    raise AssertionError(
                        "Hooks registered with ``register_load_state_dict_post_hook`` are not "
                        "expected to return new values, if incompatible_keys need to be modified, "
                        "it should be done inplace."
                    )

        load(self, "")
        if strict:
            for what, names in (
                ("Unexpected", keys.unexpected_keys), ("Missing", keys.missing_keys),
            ):  # fmt: skip
                if names:
                    quoted = ", ".join(f'"{k}"' for k in names)
                    errors.insert(0, f"{what} key(s) in state_dict: {quoted}. ")
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        return keys

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Load this module's own entries, and note what does not fit."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(
                *((self,) if hook.public else ()), state_dict, prefix, local_metadata, strict,
                missing_keys, unexpected_keys, error_msgs,
            )  # fmt: skip
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = dict(self._own_state())
        for name, mine in own.items():
            if prefix + name in state_dict:
                error = self._load_entry(name, mine, prefix + name, state_dict, assign)
                if error:
                    error_msgs.append(error)
            else:
                missing_keys.append(prefix + name)
        extra = type(self).set_extra_state is not State.set_extra_state
        if extra and prefix + _EXTRA in state_dict:
            self.set_extra_state(state_dict[prefix + _EXTRA])
        elif extra:
            missing_keys.append(prefix + _EXTRA)
        for key in state_dict:
            if key.startswith(prefix) and not (extra and key == prefix + _EXTRA):
                name, dot, _ = key[len(prefix) :].partition(".")
                if name not in (self._modules if dot else own):
                    unexpected_keys.append(key)

    def _load_entry(
        self, name: str, mine: Any, key: str, state_dict: dict[str, Any], assign: bool
    ) -> str | None:
        """Copy one value; what is wrong with it, if anything."""
        value = state_dict[key]
        if not isinstance(value, Tensor) and not hasattr(value, "__array__"):
            return (
                f'While copying the parameter named "{key}", expected kilograd.Tensor or '
                f"Tensor-like object from checkpoint but received {type(value)}"
            )
        if is_lazy(value):
            return None if is_lazy(mine) else f"size mismatch for {key}: it is uninitialized."
        array = value.array if isinstance(value, Tensor) else np.asarray(value)
        if is_lazy(mine):
            mine.materialize(array.shape)
        if array.shape == (1,) and mine.array.shape == ():
            array = array[0]
        if array.shape != mine.array.shape:
            return (
                f"size mismatch for {key}: copying a param with shape "
                f"{wrap(array).shape} from checkpoint, the shape in current model is {mine.shape}."
            )
        if assign:
            new = value if isinstance(value, Tensor) else wrap(array)
            if isinstance(mine, Parameter):
                if not isinstance(new, Parameter):
                    new = Parameter(new, mine.requires_grad)
                new.requires_grad_(mine.requires_grad)
            setattr(self, name, new)
        else:
            np.copyto(mine.array, array, casting="unsafe")
            mine._cell[0] += 1
        return None

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before :meth:`state_dict`."""
        return self._hook("state_dict_pre_hooks", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)``, which may change it."""
        return self._hook("state_dict_hooks", hook, public=True)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return self._hook("state_dict_hooks", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`` before this module's values are loaded.
        """
        return self._hook("load_state_dict_pre_hooks", hook, public=True)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        return self._hook("load_state_dict_pre_hooks", hook, public=with_module)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may change the keys."""
        return self._hook("load_state_dict_post_hooks", hook)

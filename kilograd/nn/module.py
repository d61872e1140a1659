"""Module: parameters, buffers and modules found by assigning them to attributes.

``self.weight = Parameter(…)`` is all it takes: ``parameters()``, ``state_dict()``, ``to()``,
``train()`` and the rest walk the tree of what was assigned. The three registries ``_parameters``,
``_buffers`` and ``_modules`` say what is what and in which order; the values are ordinary instance
attributes as well, so that reading ``self.weight`` costs what an attribute costs (20 ns, where a
search through the registries takes 400). What is written to a registry reaches the attribute too
(``nn/registry.py``), and ``bare()`` gives the dictionary itself, which is quicker to read.
(``to()``, ``state_dict()`` and their like are in ``nn/state.py``.)

Read next: ``nn/linear.py``, then ``optim/sgd.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from kilograd.autograd.handle import RemovableHandle
from kilograd.autograd.modes import ModeContext
from kilograd.kernels.kernel import CHANGES, TRACE
from kilograd.nn.hooks import GLOBAL, BackwardHooks, Hook, as_tuple
from kilograd.nn.parameter import Buffer, Parameter
from kilograd.nn.registry import NOTHING, REGISTRIES, bare, registered
from kilograd.nn.state import State
from kilograd.tensor import Tensor, wrap

T = TypeVar("T", bound="Module")


class Module(State):
    """Base of all layers and models: define ``__init__`` and ``forward``.

    >>> import kilograd as kg
    >>> class Net(kg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first = kg.nn.Linear(4, 8)
    ...         self.last = kg.nn.Linear(8, 1)
    ...     def forward(self, x):
    ...         return self.last(self.first(x).relu())
    >>> net = Net()
    >>> net(kg.zeros(3, 4)).shape, net.num_params()
    (kilograd.Size([3, 1]), 49)
    >>> list(net.state_dict())
    ['first.weight', 'first.bias', 'last.weight', 'last.bias']
    """

    call_super_init = False
    _shown: tuple[str, ...] = ()  # the settings that repr prints
    training: bool

    # Hooks: made when the first is registered; ``_hooked`` is all that a call looks at.
    _hooked = False
    _forward_pre_hooks: dict[int, Hook] = {}  # noqa: RUF012 (never written: see _hooks)
    _forward_hooks: dict[int, Hook] = {}  # noqa: RUF012
    _backward_pre_hooks: dict[int, Hook] = {}  # noqa: RUF012
    _backward_hooks: dict[int, Hook] = {}  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init:
            name = type(self).__name__
            if kwargs:
                raise TypeError(
                    f"{name}.__init__() got an unexpected keyword argument '{next(iter(kwargs))}'"
                )
            if args:
                raise TypeError(
                    f"{name}.__init__() takes 1 positional argument but {len(args) + 1} were given"
                )
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={})
        self.__dict__["_non_persistent_buffers_set"] = set()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # --- calling ----------------------------------------------------------------------------

    def forward(self, *input: Any) -> Any:
        """The computation; every module defines its own."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (trace := TRACE.get()) is not None:
            trace.saw_module(self)
        if self._hooked:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """forward, with what was registered before, after and around it."""
        late = {k: h for k, h in self._each("forward_hooks") if h.always_call}
        try:
            for _, hook in self._each("forward_pre_hooks"):
                got = hook(self, args, kwargs) if hook.with_kwargs else hook(self, args)
                if got is None:
                    continue
                if not hook.with_kwargs:
                    args = as_tuple(got)
                elif isinstance(got, tuple) and len(got) == 2:
                    args, kwargs = got
                else:
                    raise RuntimeError(
                        "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {got}."
                    )
            backward = None
            pre = [h for _, h in self._each("backward_pre_hooks")]
            post = [h for _, h in self._each("backward_hooks")]
            if pre or post:
                backward = BackwardHooks(self, pre, post)
                args = backward.watch_inputs(args)
            result = self.forward(*args, **kwargs)
            for key, hook in self._each("forward_hooks"):
                late.pop(key, None)
                result = _after(hook, self, args, kwargs, result)
            return result if backward is None else backward.watch_outputs(result)
        except Exception:
            result = None
            for hook in late.values():  # what was promised to be called even so
                with contextlib.suppress(Exception):
                    result = _after(hook, self, args, kwargs, result)
            raise

    def _each(self, kind: str) -> list[tuple[int, Hook]]:
        """Hooks of all modules, then this one's."""
        return [*GLOBAL[kind].items(), *getattr(self, f"_{kind}").items()]

    def _hook(self, kind: str, hook: Any, *, prepend: bool = False, **how: Any) -> RemovableHandle:
        CHANGES[0] += 1
        hooks = self.__dict__.setdefault(f"_{kind}", {})
        if kind.startswith(("forward", "backward")):
            self.__dict__["_hooked"] = True
        return RemovableHandle(hooks, Hook(hook, **how), first=prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; what it returns replaces the inputs."""
        return self._hook("forward_pre_hooks", hook, prepend=prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Call ``hook(module, args, output)`` after forward; what it returns replaces the output."""
        return self._hook(
            "forward_hooks", hook, prepend=prepend, with_kwargs=with_kwargs,
            always_call=always_call,
        )  # fmt: skip

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the module's own backward pass."""
        return self._hook("backward_pre_hooks", hook, prepend=prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` once both are known.

        What it returns replaces the gradients of the inputs.
        """
        return self._hook("backward_hooks", hook, prepend=prepend)

    register_backward_hook = register_full_backward_hook

    # --- attributes -------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        CHANGES[0] += 1
        mine = self.__dict__
        kinds: tuple[Any, ...] = (Parameter, Buffer, Module)
        for registry, kind in zip(REGISTRIES, kinds, strict=True):
            entries = mine.get(registry)
            if isinstance(value, kind):
                if entries is None:
                    what = {"_buffers": "buffer"}.get(registry, registry[1:])
                    raise AttributeError(f"cannot assign {what} before Module.__init__() call")
                if name not in entries:
                    self._unregister(name)
                _check_name(name)
                entries[name] = mine[name] = value
                if registry == "_buffers" and not value.persistent:
                    self._non_persistent_buffers_set.add(name)
                return
            if entries is not None and name in entries:
                accepts = Tensor if kind is Buffer else kind
                if value is not None and not isinstance(value, accepts):
                    what, want = {
                        "_parameters": ("parameter", "kilograd.nn.Parameter"),
                        "_buffers": ("buffer", "kilograd.nn.Buffer, kilograd.Tensor"),
                        "_modules": ("child module", "kilograd.nn.Module"),
                    }[registry]
                    raise TypeError(
                        f"cannot assign '{_type_name(value)}' as {what} '{name}' "
                        f"({want} or None expected)"
                    )
                entries[name] = mine[name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if (found := registered(self.__dict__, name)) is not NOTHING:
            return found  # to who asks this method: attributes are found before it is
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        if not self._unregister(name):
            object.__delattr__(self, name)

    def _unregister(self, name: str) -> bool:
        """Forget an entry of any registry; whether there was one."""
        CHANGES[0] += 1
        self.__dict__.get("_non_persistent_buffers_set", set()).discard(name)
        for registry in REGISTRIES:
            if name in self.__dict__.get(registry, ()):
                del getattr(self, registry)[name]
                return True
        return False

    def __dir__(self) -> list[str]:
        return sorted(key for key in super().__dir__() if not key[0].isdigit())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (None: there is none by that name, and it is not in state_dict)."""
        self._check_free(name, "_parameters", "parameter")
        CHANGES[0] += 1
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                "(kilograd.nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                "created explicitly. To express 'weight' as a function of another Tensor, compute "
                "the value in the forward() method."
            )
        self.__dict__["_parameters"][name] = self.__dict__[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not learned, e.g. running statistics."""
        self._check_free(name, "_buffers", "buffer")
        CHANGES[0] += 1
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' "
                "(kilograd.Tensor or None required)"
            )
        self.__dict__["_buffers"][name] = self.__dict__[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._check_free(name, "_modules", "module")
        CHANGES[0] += 1
        self.__dict__["_modules"][name] = self.__dict__[name] = module

    register_module = add_module

    def _check_free(self, name: Any, registry: str, what: str) -> None:
        if registry not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {_type_name(name)}")
        _check_name(name)
        if hasattr(self, name) and name not in self.__dict__[registry]:
            raise KeyError(f"attribute '{name}' already exists")

    # --- the tree ---------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with dotted names; each object once."""
        memo = set() if memo is None else memo
        if self not in memo:
            children = bare(self, "_modules")
            if remove_duplicate:
                memo.add(self)
            yield prefix, self
            prefix += "." if prefix and children else ""
            for name, module in children.items():
                if module is not None:
                    yield from module.named_modules(memo, prefix + name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules assigned to this one, with their names."""
        seen: set[Module] = set()
        for name, module in bare(self, "_modules").items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules assigned to this one."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, get: Callable[[Module], Iterable[tuple[str, Any]]], prefix: str = "",
        recurse: bool = True, remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        seen: set[Any] = set()
        bare(self, "_modules")  # raises before __init__
        modules: Iterable[tuple[str, Module]] = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            path += "." if path else ""
            for name, member in get(module):
                if member is None or member in seen:
                    continue
                if remove_duplicate:
                    seen.add(member)
                yield path + name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; each object once."""
        return self._named_members(
            lambda m: m.__dict__["_parameters"].items(), prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters: what an optimizer is given."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names."""
        return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def num_params(self, trainable: bool | None = None) -> int:
        """How many numbers the parameters hold: all, or only the (un)trainable ones.

        >>> import kilograd as kg
        >>> kg.nn.Linear(3, 2).num_params()
        8
        """
        return sum(p.numel() for p in self.parameters() if trainable in (None, p.requires_grad))

    count_parameters = num_params

    # --- changing all of it -----------------------------------------------------------------

    def apply(self: T, fn: Callable[[Module], Any]) -> T:
        """Call ``fn`` on every module, children first; e.g. to initialise weights."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self: T, mode: bool = True) -> T:
        """Set training mode (dropout drops, batch norm learns its statistics) here and below."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        if (trace := TRACE.get()) is not None:
            trace.saw_module(self)
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: T) -> T:
        """Leave training mode, here and below."""
        return self.train(False)

    @contextlib.contextmanager
    def evaluating(self: T) -> Iterator[T]:
        """Evaluation mode without gradients for a ``with`` block; every module's mode comes back.

        >>> import kilograd as kg
        >>> model = kg.nn.Dropout(0.5)
        >>> with model.evaluating():
        ...     model(kg.ones(3))
        tensor([1., 1., 1.])
        >>> model.training
        True
        """
        before = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with ModeContext(grad=False):
                yield self
        finally:
            for module, mode in before:
                module.training = mode

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Set ``requires_grad`` of all parameters."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def freeze(self: T) -> T:
        """Stop learning: ``requires_grad_(False)``."""
        return self.requires_grad_(False)

    def unfreeze(self: T) -> T:
        """Learn again: ``requires_grad_(True)``."""
        return self.requires_grad_(True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with zeros)."""
        for p in self.parameters():
            if p.grad is not None:
                if set_to_none:
                    p.grad = None
                else:
                    p.grad = wrap(np.zeros_like(p.grad.array))

    # --- what it looks like -----------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of ``repr``: the module's settings."""
        return ", ".join([f"{name}={getattr(self, name)!r}" for name in self._shown])

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        below = [
            f"({name}): " + repr(module).replace("\n", "\n  ")
            for name, module in self._modules.items()
        ]
        if len(lines) == 1 and not below:
            return f"{self._get_name()}({extra})"
        body = "".join(f"\n  {line}" for line in [*lines, *below])
        return f"{self._get_name()}({body}\n)" if body else f"{self._get_name()}()"


def _after(hook: Hook, module: Module, args: Any, kwargs: Any, result: Any) -> Any:
    got = hook(module, args, kwargs, result) if hook.with_kwargs else hook(module, args, result)
    return result if got is None else got


def _check_name(name: str) -> None:
    if "." in name:
        raise KeyError(f'name can\'t contain ".", got: "{name}"')
    if name == "":
        raise KeyError('name can\'t be empty string ""')


def _type_name(value: Any) -> str:
    """The name of a value's type (of a class or function, its own) as PyTorch prints it."""
    kind: Any = value if hasattr(value, "__qualname__") else type(value)
    if kind.__module__ in ("builtins", "", None):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"

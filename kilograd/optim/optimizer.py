"""Optimizer: walks the parameters and hands arrays to an update rule.

An optimizer is ``init(p, group) → state`` and ``update(p, g, state, group)``, which writes the new
value into the array ``p``. The state is a dictionary of tensors in PyTorch's format; its entry
``step``, if there is one, is counted here.

Update rules work element by element, so that a large parameter is updated in blocks that stay in
the cache (``blockwise``): each number is read from memory once, however many lines the rule has,
and the blocks are shared among the cores.

Rules run in a compiled step, too, where arrays and numbers only stand for values: a rule must not
ask for one. A setting that may be a tensor is read by ``setting``, the step count by ``number``;
what depends on the step count is a ``choose``. An ``if`` may ask for settings: another answer later
compiles the step again.

Read next: ``optim/sgd.py``, ``optim/adam.py``.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kilograd.autograd.handle import RemovableHandle
from kilograd.autograd.modes import ModeContext
from kilograd.kernels.blocks import in_blocks
from kilograd.kernels.kernel import CHANGES, LARGE, OBSERVERS, TRACE, number
from kilograd.tensor import Tensor, wrap

Group = dict[str, Any]
State = dict[str, Any]
_GLOBAL_PRE: dict[int, Any] = {}
_GLOBAL_POST: dict[int, Any] = {}
OBSERVERS.extend((_GLOBAL_PRE, _GLOBAL_POST))


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before the step of every optimizer."""
    return RemovableHandle(_GLOBAL_PRE, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after the step of every optimizer."""
    return RemovableHandle(_GLOBAL_POST, hook)


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with what was registered before and after it."""

    @functools.wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._step_pre_hooks or _GLOBAL_PRE:
            for hook in [*_GLOBAL_PRE.values(), *self._step_pre_hooks.values()]:
                got = hook(self, args, kwargs)
                if got is not None:
                    if not (isinstance(got, tuple) and len(got) == 2):
                        raise RuntimeError(
                            f"{step} must return None or a tuple of (new_args, new_kwargs), but "
                            f"got {got}."
                        )
                    args, kwargs = got
        self._stepped = True
        result = step(self, *args, **kwargs)
        if self._step_post_hooks or _GLOBAL_POST:
            for hook in [*self._step_post_hooks.values(), *_GLOBAL_POST.values()]:
                hook(self, args, kwargs)
        return result

    wrapper._hooked = True  # type: ignore[attr-defined]
    return wrapper


LARGE_PARAMETER = 1 << 14  # elements from which an update is worth a native loop
PIECE = 1 << 18  # elements of a larger one that are updated at once
_NOT_FOR_RULES = ("params", "param_names", "initial_lr")


def _split(group: Group) -> tuple[list[float], dict[str, Any]]:
    """The settings of a group that are floats, and which they are and what the others are."""
    numbers: list[float] = []
    floats: list[tuple[str, int | None]] = []
    fixed = []
    for name, value in group.items():
        if isinstance(value, float):
            floats.append((name, None))
            numbers.append(float(value))
        elif type(value) is tuple and all(isinstance(v, float) for v in value):
            floats += [(name, i) for i in range(len(value))]
            numbers += map(float, value)
        elif name not in _NOT_FOR_RULES:
            fixed.append((name, value))
    return numbers, {"floats": tuple(floats), "fixed": tuple(fixed)}


def _update_arrays(
    p: Any, g: Any, *rest: Any, cls: Any, names: Any, fixed: Any, floats: Any
) -> None:
    """``cls.update`` on arrays and numbers alone: state by name, then the settings in ``floats``."""
    state = {name: wrap(array) for name, array in zip(names, rest, strict=False)}
    group: Group = dict(fixed)
    for (name, place), value in zip(floats, rest[len(names) :], strict=True):
        group[name] = value if place is None else (*group.get(name, ()), value)
    rule = object.__new__(cls)
    if type(p) is np.ndarray:
        rule._update_in_blocks(p, g, state, group)
    else:
        rule.update(p, g, state, group)


class _Required:
    """The default of a setting that has none."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Optimizer:
    """Base of all optimizers.

    ``params`` are tensors, (name, tensor) pairs, or dictionaries with ``params`` and settings that
    hold for this group only. ``defaults`` are the settings of groups that do not give their own.

    >>> import kilograd as kg
    >>> class SignSGD(kg.optim.Optimizer):
    ...     def __init__(self, params, lr=0.01):
    ...         super().__init__(params, {"lr": lr})
    ...     def update(self, p, g, state, group):
    ...         p -= group["lr"] * np.sign(g)
    >>> w = kg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SignSGD([w])
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.9900, 1.9900], requires_grad=True)
    """

    blockwise = False  # whether update() works element by element
    _stepped = False  # whether step() was called: schedulers ask
    defaults: dict[str, Any]
    state: defaultdict[Tensor, State]
    param_groups: list[Group]

    def __init_subclass__(cls) -> None:
        step = cls.__dict__.get("step")
        if step is not None and not hasattr(step, "_hooked"):
            cls.step = _hooked(step)  # type: ignore[method-assign]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {type(params).__name__}"
            )
        _check_settings(defaults)
        self.defaults = defaults
        self.state = defaultdict(dict)
        self.param_groups = []
        self._make_hooks()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # --- what an optimizer defines ------------------------------------------------------------

    def init(self, p: Any, group: Group) -> State:
        """The state of a parameter before its first step."""
        return {}

    def update(self, p: Any, g: Any, state: State, group: Group) -> None:
        """Write the new value into the array ``p``, given the gradient ``g``."""
        raise NotImplementedError

    # --- stepping -----------------------------------------------------------------------------

    @_hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        ``closure`` computes the loss and its gradients again; its loss is returned.
        """
        loss = None
        if closure is not None:
            with ModeContext(grad=True):
                loss = closure()
        states, update, trace = self.state, self.update, TRACE.get()
        eager = trace is None
        if not eager:
            trace.saw_optimizer(self)
        for group in self.param_groups:
            group, split = settings(group), None
            maximize = group.get("maximize")
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = states.get(p)
                if not state:
                    state = states[p] = self.init(p.array, group)
                step = state.get("step")
                if step is not None:
                    if eager:  # the same, and quicker
                        step.array[...] = step.array.item() + 1
                    else:
                        count = step.array
                        count += 1
                g = p.grad.array
                if maximize:
                    g = -g
                array = p.array
                if array.size > LARGE_PARAMETER and self.blockwise and eager:
                    if split is None:
                        split = _split(group)
                    self._update_large(array, g, state, group, *split)
                else:
                    update(array, g, state, group)
                p._cell[0] += 1
        return loss

    def _update_large(
        self, p: Any, g: Any, state: State, group: Group, numbers: Any, options: Any
    ) -> None:
        """The update as one native loop where that can be had, else in blocks.

        It is run with the class's own defaults in place of ``self``, with all state in arrays, and the
        settings that are floats as numbers that may change.
        """
        if "update" in self.__dict__ or not type(self).update.__module__.startswith("kilograd."):
            return self._update_in_blocks(p, g, state, group)  # it may look at what self holds
        try:
            arrays = [s.array for s in state.values()]
        except AttributeError:  # state that is yet to be made
            return self._update_in_blocks(p, g, state, group)
        options |= {"cls": type(self), "names": tuple(state)}
        arrays = [p, g, *arrays]
        if p.size < 2 * PIECE or not all(a.flags.c_contiguous for a in arrays):
            LARGE.run(_update_arrays, (*arrays, *numbers), options, True)
            return
        flat = [a.reshape(-1) if a.shape == p.shape else a for a in arrays]
        for start in range(0, p.size, PIECE):  # pieces of one size share one program
            part = [a[start : start + PIECE] if a.size == p.size else a for a in flat]
            LARGE.run(_update_arrays, (*part, *numbers), options, True)

    def _update_in_blocks(self, p: Any, g: Any, state: State, group: Group) -> None:
        parts = {k: s.array for k, s in state.items() if s is not None and s.array.shape == p.shape}
        arrays = [p, g, *parts.values()]
        if None in state.values() or not all(a.flags.c_contiguous for a in arrays):
            self.update(p, g, state, group)
            return
        flat = [a.reshape(-1) for a in arrays]

        def update_block(start: int, stop: int) -> None:
            p_now, g_now, *now = [a[start:stop] for a in flat]
            state_now = {**state, **dict(zip(parts, map(wrap, now), strict=True))}
            self.update(p_now, g_now, state_now, group)

        in_blocks(update_block, p.size)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters (or fill them with zeros)."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = wrap(np.zeros_like(p.grad.array))

    # --- groups -------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters, with settings of their own; e.g. a layer that is unfrozen later."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = param_group
        params = group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = list(params)
        named = [p for p in params if isinstance(p, tuple)]
        if named:
            if len(named) < len(params):
                raise ValueError(
                    "all optimizer params should be with/without names. Some param names are missing"
                )
            group["param_names"] = [name for name, _ in named]
            params = [p for _, p in named]
        group["params"] = params
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}"
                )
            if not (p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
            if getattr(p.__dict__["array"], "computed", False):
                raise ValueError(
                    "can't optimize a tensor that was computed in a lazy graph, which would compute it "
                    "anew each time: make it before the block"
                )
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {name}"
                )
            group.setdefault(name, default)
        if len(set(params)) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error",
                stacklevel=3,
            )
        old = self.param_groups
        if {p for g in old for p in g["params"]} & set(params):
            raise ValueError("some parameters appear in more than one parameter group")
        if old and ("param_names" in group) != ("param_names" in old[0]):
            have = "with" if "param_names" in group else "without"
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{have} names to the optimizer"
            )
        old.append(group)
        CHANGES[0] += 1

    # --- state --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state of each parameter by its number, and the groups with numbers in them."""
        for hook in self._state_dict_pre_hooks.values():
            hook(self)
        number: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                number.setdefault(p, len(number))
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [number[p] for p in group["params"]]
            groups.append(packed)
        state = {
            number.get(p, p): s
            for p, s in self.state.items()
            if any(value is not None for value in s.values())
        }
        result = {"state": state, "param_groups": groups}
        for hook in self._state_dict_post_hooks.values():
            got = hook(self, result)
            result = result if got is None else got
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state (copied, in the dtypes of the parameters).

        Raises:
            ValueError: the groups do not have the sizes of this optimizer's.
        """
        state_dict = dict(state_dict)
        for hook in self._load_state_dict_pre_hooks.values():
            got = hook(self, state_dict)
            state_dict = state_dict if got is None else got
        mine, saved = self.param_groups, copy.deepcopy(state_dict["param_groups"])
        if len(mine) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(mine, saved, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group"
            )
        params = {
            number: p
            for new, old in zip(saved, mine, strict=True)
            for number, p in zip(new["params"], old["params"], strict=True)
        }
        state: defaultdict[Any, State] = defaultdict(dict)
        for i, values in state_dict["state"].items():
            if i in params:
                state[params[i]] = _restored(values, params[i])
            else:
                state[i] = values
        for new, old in zip(saved, mine, strict=True):
            new["params"] = old["params"]
            if "param_names" in old:
                new["param_names"] = old["param_names"]
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("defaults", "state", "param_groups")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        CHANGES[0] += 1
        self.__dict__.update(state)
        if "_step_pre_hooks" not in self.__dict__:
            self._make_hooks()
        for group in self.param_groups:  # saved before a setting existed
            for name, default in self.defaults.items():
                if name != "lr":
                    group.setdefault(name, default)

    # --- hooks --------------------------------------------------------------------------------

    def _make_hooks(self) -> None:
        self._step_pre_hooks: dict[int, Any] = {}
        self._step_post_hooks: dict[int, Any] = {}
        self._state_dict_pre_hooks: dict[int, Any] = {}
        self._state_dict_post_hooks: dict[int, Any] = {}
        self._load_state_dict_pre_hooks: dict[int, Any] = {}
        self._load_state_dict_post_hooks: dict[int, Any] = {}

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may replace both."""
        return RemovableHandle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return RemovableHandle(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` before :meth:`state_dict`."""
        return RemovableHandle(self._state_dict_pre_hooks, hook, first=prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)``; what it returns replaces the state_dict."""
        return RemovableHandle(self._state_dict_post_hooks, hook, first=prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; it may replace the state_dict."""
        return RemovableHandle(self._load_state_dict_pre_hooks, hook, first=prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading."""
        return RemovableHandle(self._load_state_dict_post_hooks, hook, first=prepend)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"


def _restored(values: Any, p: Tensor) -> Any:
    """A saved state as this parameter's: copies, floats in its dtype (but for the counters)."""
    restored = {}
    for key, value in values.items():
        if isinstance(value, Tensor):
            counter = key == "step" or p.array.dtype.kind not in "fc"
            dtype = value.array.dtype if counter else p.array.dtype
            restored[key] = wrap(value.array.astype(dtype))
        else:
            restored[key] = copy.deepcopy(value)
    return restored


def _check_settings(defaults: dict[str, Any]) -> None:
    """The settings that all optimizers have in common."""
    if isinstance(defaults.get("lr"), Tensor) and defaults.get("foreach"):
        raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
    if defaults.get("differentiable"):
        raise NotImplementedError(
            "differentiable=True: kilograd's optimizers write into the parameters' arrays"
        )
    if defaults.get("fused") and defaults.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def check_positive(**values: Any) -> None:
    """ValueError unless each setting is at least 0 (its name as PyTorch says it)."""
    for name, value in values.items():
        if isinstance(value, Tensor) and value.array.size != 1:
            raise ValueError(f"Tensor {name} must be 1-element")
        if not float(value) >= 0.0:
            said = {"lr": "learning rate", "eps": "epsilon value"}.get(name, f"{name} value")
            raise ValueError(f"Invalid {said}: {value}")


def check_betas(betas: Iterable[Any]) -> None:
    """ValueError unless each is in [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


def zeros_like(p: Any) -> Tensor:
    """State that starts at zero."""
    return wrap(np.zeros_like(p, order="C"))


def scalar_like(p: Any, value: Any = 0.0) -> Tensor:
    """State that is one number, such as the steps made: a float32 0-d tensor, as PyTorch's."""
    return wrap(np.full_like(p, value, np.float32, shape=()))


def settings(group: Group) -> Group:
    """The group as update rules see it: a step that is compiled puts places for its numbers."""
    trace = TRACE.get()
    return group if trace is None else trace.settings(group)


def setting(x: Any) -> Any:
    """A setting as a number: it may be a tensor with one element.

    >>> import kilograd as kg
    >>> setting(0.5), setting(kg.tensor([0.5]))
    (0.5, 0.5)
    """
    if type(x) is float:
        return x
    return number(x.array if isinstance(x, Tensor) else x)


def choose(x: Any, limit: Any, yes: Any, no: Any) -> Any:
    """``yes`` if the number ``x`` is above ``limit``, else ``no``; in a compiled step, as x is then.

    Both may be tuples of arrays and numbers.

    >>> choose(6.0, 5.0, 1.0, 0.0)
    1.0
    """
    if not any(hasattr(type(v), "__array_kernel__") for v in (x, limit)):
        return yes if x > limit else no
    if isinstance(yes, tuple):
        return tuple([choose(x, limit, *pair) for pair in zip(yes, no, strict=True)])
    chosen = np.where(np.greater(x, limit), yes, no)
    return number(chosen) if chosen.ndim == 0 else chosen

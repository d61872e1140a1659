"""What runs around a module's forward and backward: hooks, and how the backward ones are placed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kilograd.autograd.function import Function
from kilograd.autograd.handle import RemovableHandle
from kilograd.kernels.kernel import OBSERVERS
from kilograd.tensor import Tensor

if TYPE_CHECKING:
    from kilograd.nn.module import Module


class Hook:
    """A function to call, and how it wants to be called."""

    def __init__(
        self, fn: Callable[..., Any], with_kwargs: bool = False, always_call: bool = False,
        public: bool = False,
    ) -> None:  # fmt: skip
        self.fn = fn
        self.with_kwargs = with_kwargs
        self.always_call = always_call
        self.public = public  # registered by the public name, whose rules are stricter

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)


KINDS = ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks")
GLOBAL: dict[str, dict[int, Hook]] = {kind: {} for kind in KINDS}
OBSERVERS.extend(GLOBAL.values())


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple of one, unless it is a tuple already."""
    return value if isinstance(value, tuple) else (value,)


class Tap(Function):
    """The identity on tensors; their gradients pass through ``tell``, which may replace them."""

    @staticmethod
    def forward(ctx: Any, tell: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.tell = tell
        return tuple(t.detach() for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return (None, *ctx.tell(grads))


class BackwardHooks:
    """One call of a module: a tap on its outputs and one on its inputs.

    The gradients of the outputs arrive first, those of the inputs once the module's own backward
    is done; then both are known and the hooks are called.
    """

    def __init__(self, module: Module, before: list[Hook], after: list[Hook]) -> None:
        self.module, self.before, self.after = module, before, after
        self.grad_output: tuple[Any, ...] | None = None
        self.inputs_watched = False
        self.count = 0

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the tensors among them tapped."""
        self.count = len(args)
        where = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        if not any(args[i].requires_grad for i in where):
            return args
        needs = [i for i in where if args[i].requires_grad]
        self.inputs_watched = True

        def tell(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            grad_input: list[Any] = [None] * self.count
            for i, g in zip(needs, grads, strict=True):
                grad_input[i] = g
            new = self._call_after(tuple(grad_input))
            return tuple(new[i] for i in needs)

        tapped = list(args)
        for i, t in zip(needs, Tap.apply(tell, *[args[i] for i in needs]), strict=True):
            tapped[i] = t
        return tuple(tapped)

    def watch_outputs(self, result: Any) -> Any:
        """The result, the tensors in it tapped."""
        outs = list(as_tuple(result))
        where = [i for i, o in enumerate(outs) if isinstance(o, Tensor) and o.requires_grad]
        if not where:
            return result

        def tell(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            grad_output: list[Any] = [None] * len(outs)
            for i, g in zip(where, grads, strict=True):
                grad_output[i] = g
            known = tuple(grad_output)
            for hook in self.before:
                got = hook(self.module, known)
                if got is not None:
                    known = _same_length(as_tuple(got), known, "Backward pre hook")
            self.grad_output = known
            if not self.inputs_watched:
                self._call_after((None,) * self.count)
            return tuple(known[i] for i in where)

        for i, t in zip(where, Tap.apply(tell, *[outs[i] for i in where]), strict=True):
            outs[i] = t
        return tuple(outs) if isinstance(result, tuple) else outs[0]

    def _call_after(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.after:
            got = hook(self.module, grad_input, self.grad_output)
            if got is not None:
                if not self.inputs_watched and any(g is not None for g in as_tuple(got)):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should "
                        "always return None or None for all gradients."
                    )
                grad_input = _same_length(as_tuple(got), grad_input, "Backward hook")
        return grad_input


def _same_length(got: tuple[Any, ...], want: tuple[Any, ...], who: str) -> tuple[Any, ...]:
    if len(got) != len(want):
        raise RuntimeError(
            f"{who} returned an invalid number of grad_input, got {len(got)}, but expected "
            f"{len(want)}"
        )
    return got


class _GlobalHandle(RemovableHandle):
    """The handle of a hook on all modules; calls are quick again when the last one is gone."""

    def remove(self) -> None:
        super().remove()
        _look_at_global_hooks()


def _look_at_global_hooks() -> None:
    from kilograd.nn.module import Module

    Module._hooked = any(GLOBAL.values())


def _register_global(kind: str, hook: Any, **how: Any) -> RemovableHandle:
    handle = _GlobalHandle(GLOBAL[kind], Hook(hook, **how))
    _look_at_global_hooks()
    return handle


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before the forward of every module."""
    return _register_global("forward_pre_hooks", hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the forward of every module."""
    return _register_global("forward_hooks", hook, with_kwargs=with_kwargs, always_call=always_call)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` before the backward of every module."""
    return _register_global("backward_pre_hooks", hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` after the backward of every module."""
    return _register_global("backward_hooks", hook)

"""Whether operations are recorded: a context-local mode, so threads do not disturb each other.

Each mode is a context manager and a decorator (also of generators and async functions' callers).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Mode(NamedTuple):
    """What is on at this point of this thread or task."""

    grad: bool = True
    inference: bool = False
    retain: bool = False  # every intermediate tensor keeps its .grad
    anomaly: bool = False  # nodes remember the line that made them; NaN gradients raise
    check_nan: bool = True


MODE: ContextVar[Mode] = ContextVar("kilograd_mode", default=Mode())  # noqa: B039 (immutable)


class ModeContext:
    """A context manager and decorator that changes some fields of the mode."""

    def __init__(self, **changes: bool) -> None:
        self._changes = changes
        self._tokens: list[Token[Mode]] = []

    def __enter__(self) -> Any:
        self._tokens.append(MODE.set(MODE.get()._replace(**self._changes)))
        return self

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._tokens.pop())

    def __call__(self, fn: F) -> F:
        changes = self._changes
        if inspect.isgeneratorfunction(fn):  # the mode is on only while the generator runs

            @functools.wraps(fn)
            def generator(*args: Any, **kwargs: Any) -> Any:
                it = fn(*args, **kwargs)
                send: Any = None
                while True:
                    with ModeContext(**changes):
                        try:
                            value = it.send(send)
                        except StopIteration as stop:
                            return stop.value
                    try:
                        send = yield value
                    except GeneratorExit:
                        it.close()
                        raise
                    except BaseException as e:  # thrown in by the consumer: pass it on
                        with ModeContext(**changes):
                            try:
                                send = None
                                value = it.throw(e)
                            except StopIteration as stop:
                                return stop.value
                        send = yield value

            return generator  # type: ignore[return-value]

        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with ModeContext(**changes):
                return fn(*args, **kwargs)

        return wrapper  # type: ignore[return-value]


class _Bare(type):
    """Allow ``@no_grad`` as well as ``@no_grad()``."""

    def __call__(cls, *args: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not isinstance(args[0], bool):
            return super().__call__()(args[0])
        return super().__call__(*args)


class no_grad(ModeContext, metaclass=_Bare):
    """Operations inside are not recorded; results have ``requires_grad=False``.

    >>> import kilograd as kg
    >>> x = kg.ones(2, requires_grad=True)
    >>> with kg.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self) -> None:
        super().__init__(grad=False)


class enable_grad(ModeContext, metaclass=_Bare):
    """Operations inside are recorded, also within :class:`no_grad`."""

    def __init__(self) -> None:
        super().__init__(grad=True, inference=False)


class inference_mode(ModeContext, metaclass=_Bare):
    """Like :class:`no_grad`; tensors made inside may never be used in a recorded operation."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(
            **({"grad": False, "inference": True} if mode else {"inference": False, "grad": True})
        )


class retain_grads(ModeContext, metaclass=_Bare):
    """Every tensor computed inside keeps its ``.grad`` after backward, as leaves do."""

    def __init__(self) -> None:
        super().__init__(retain=True)


class set_grad_enabled(ModeContext):
    """Turn recording on or off: at once when called, until the end of the block when entered.

    >>> import kilograd as kg
    >>> with kg.set_grad_enabled(False):
    ...     kg.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        super().__init__(grad=bool(mode))
        self._before = MODE.get()
        MODE.set(self._before._replace(grad=bool(mode)))

    def __enter__(self) -> Any:
        MODE.set(self._before)
        return super().__enter__()

    def __call__(self, fn: F) -> F:
        MODE.set(self._before)
        return super().__call__(fn)


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are being recorded."""
    return MODE.get().grad


def is_inference_mode_enabled() -> bool:
    """Whether :class:`inference_mode` is on."""
    return MODE.get().inference

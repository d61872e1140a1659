"""What registering a hook returns, on a tensor, a module or an optimizer."""

from __future__ import annotations

from typing import Any

from kilograd.kernels.kernel import CHANGES


class RemovableHandle:
    """What registering a hook returns: ``remove()`` takes the hook back."""

    _next = 0

    def __init__(
        self, hooks: dict[int, Any], hook: Any, *extra: dict[int, Any], first: bool = False
    ) -> None:
        RemovableHandle._next += 1
        CHANGES[0] += 1
        self.id = RemovableHandle._next
        self._hooks = (hooks, *extra)
        if first:
            rest = dict(hooks)
            hooks.clear()
            hooks[self.id] = hook
            hooks.update(rest)
        else:
            hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook back; doing it twice is fine."""
        CHANGES[0] += 1
        for hooks in self._hooks:
            hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

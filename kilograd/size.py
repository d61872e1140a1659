"""What a tensor's ``shape`` and ``device`` are."""

from __future__ import annotations

from typing import Any


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple of ints with PyTorch's ``numel()``.

    >>> Size((2, 3)), Size((2, 3)).numel()
    (kilograd.Size([2, 3]), 6)
    """

    def __repr__(self) -> str:
        return f"kilograd.Size({list(self)})"

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        n = 1
        for k in self:
            n *= k
        return n

    def __getitem__(self, i: Any) -> Any:
        got = super().__getitem__(i)
        return Size(got) if isinstance(i, slice) else got

    def __add__(self, other: Any) -> Size:
        return Size(super().__add__(tuple(other)))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))


class device:
    """Where a tensor lives. There is one: the CPU.

    >>> device("cpu"), device("cpu").type
    (device(type='cpu'), 'cpu')
    """

    type = "cpu"
    index = None

    def __init__(self, name: Any = "cpu", index: int | None = None) -> None:
        if not isinstance(name, (str, device)):
            raise TypeError(f"device(): expected a name such as 'cpu', got {name!r}")
        if str(name) not in ("cpu", "cpu:0"):
            raise RuntimeError(f"device {str(name)!r}: kilograd computes on 'cpu' only")

    def __repr__(self) -> str:
        return "device(type='cpu')"

    def __str__(self) -> str:
        return "cpu"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device)

    def __hash__(self) -> int:
        return hash("cpu")

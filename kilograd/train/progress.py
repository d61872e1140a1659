"""A progress bar around any iterable, where a person is looking: by tqdm or rich, or else not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from kilograd.tensor import Tensor

T = TypeVar("T")


class Progress(Generic[T]):
    """What :func:`progress` returns: the iterable, and a bar that goes along with it."""

    def __init__(
        self, iterable: Iterable[T] | None, total: int | None, bar: Any, postfix: dict[str, Any]
    ) -> None:
        self.iterable = iterable
        self.total = total
        self._bar = bar  # None: nobody is looking
        self.set_postfix(**postfix)

    def __len__(self) -> int:
        if self.total is None:
            raise TypeError(f"object of type '{type(self.iterable).__name__}' has no len()")
        return self.total

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[T]:
        if self.iterable is None:
            raise TypeError("progress() without an iterable cannot be iterated: call update()")
        try:  # a generator's finally runs when the loop ends, breaks or fails
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    @property
    def visible(self) -> bool:
        """Whether a bar is drawn."""
        return self._bar is not None

    def update(self, n: int = 1) -> None:
        """The bar goes ``n`` further; iterating does this by itself."""
        if self._bar is not None:
            self._bar.update(n)

    def set_postfix(self, **values: Any) -> None:
        """Show ``name=value`` behind the bar; tensors of one element are shown as their number."""
        if self._bar is not None and values:
            self._bar.postfix(", ".join(f"{k}={_shown(v)}" for k, v in values.items()))

    def set_description(self, desc: str) -> None:
        """Change the text before the bar."""
        if self._bar is not None:
            self._bar.description(desc)

    def close(self) -> None:
        """Finish the bar; what comes after is printed below it. Closing twice does nothing."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()


def progress(
    iterable: Iterable[T] | None = None,
    total: int | None = None,
    desc: str | None = None,
    *,
    show: bool | None = None,
    backend: str | None = None,
    leave: bool = True,
    **postfix: Any,
) -> Progress[T]:
    """Iterate as before, with a progress bar on standard error.

    The bar is drawn in a terminal or notebook, and not in a file, a pipe or a log of CI. It goes away when the
    loop ends, breaks or raises.

    Args:
        iterable: what to iterate over, once or often; None to call ``update()`` by hand.
        total: the number of items; by default ``len(iterable)`` where there is one.
        desc: a text before the bar.
        show: True draws the bar in any case, False never; by default where a person is looking.
        backend: ``"tqdm"`` or ``"rich"``; by default the one that is installed, tqdm first. If neither is, there is
            no bar.
        leave: whether the finished bar stays.
        **postfix: the first ``set_postfix``.

    Raises:
        ValueError: an unknown backend, or a negative total.
        ImportError: the backend that was asked for is not installed.

    Example:
        >>> bar = progress([3, 4], desc="training")
        >>> for x in bar:
        ...     bar.set_postfix(loss=x / 2)
        >>> len(bar), list(bar)
        (2, [3, 4])
    """
    if backend not in (None, "tqdm", "rich"):
        raise ValueError(f"progress: backend={backend!r}; it is 'tqdm', 'rich' or None")
    if total is None and hasattr(iterable, "__len__"):
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except TypeError:  # e.g. a DataLoader over a dataset without a length
            total = None
    if total is not None and total < 0:
        raise ValueError(f"progress: total must not be negative, got {total}")
    if show is None:
        show = _notebook() or bool(getattr(sys.stderr, "isatty", lambda: False)())
    bar = _bar(backend, total, desc, leave) if show else None
    return Progress(iterable, total, bar, postfix)


def _bar(backend: str | None, total: int | None, desc: str | None, leave: bool) -> Any:
    """The bar of the backend, or of the first that is installed, or None."""
    for name, kind in (("tqdm", _Tqdm), ("rich", _Rich)):
        if backend in (None, name):
            try:
                return kind(total, desc or "", leave)
            except ImportError as e:
                if backend is not None:
                    raise ImportError(f"progress: pip install {name}") from e
    return None


class _Tqdm:
    def __init__(self, total: int | None, desc: str, leave: bool) -> None:
        if _notebook():
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
        self.bar = tqdm(total=total, desc=desc or None, leave=leave, dynamic_ncols=True)
        self.update = self.bar.update
        self.close = self.bar.close

    def postfix(self, text: str) -> None:
        self.bar.set_postfix_str(text, refresh=False)  # drawn with the next update that is due

    def description(self, text: str) -> None:
        self.bar.set_description(text)


class _Rich:
    def __init__(self, total: int | None, desc: str, leave: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self.bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), Elapsed(),
            TextColumn("{task.fields[postfix]}", markup=False),
            console=Console(stderr=True), transient=not leave,
        )  # fmt: skip
        self.task = self.bar.add_task(desc, total=total, postfix="")
        self.bar.start()

    def update(self, n: int) -> None:
        self.bar.update(self.task, advance=n)

    def postfix(self, text: str) -> None:
        self.bar.update(self.task, postfix=text)

    def description(self, text: str) -> None:
        self.bar.update(self.task, description=text)

    def close(self) -> None:
        self.bar.stop()


def _shown(value: Any) -> str:
    """Four digits of a number; anything else as it prints."""
    size = value.numel() if isinstance(value, Tensor) else getattr(value, "size", 0)
    if isinstance(size, int) and size == 1:  # a tensor, or a number of NumPy's
        value = value.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _notebook() -> bool:
    """Whether this runs in Jupyter, asked without importing it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})

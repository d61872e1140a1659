"""A folder of checkpoints: the last few and the best few are kept, the newest whole one is found.

What is known of a checkpoint is in the checkpoint itself. The index says it again, for people and
for speed: it is made anew whenever it does not agree with the files.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kilograd.train.archive import realised
from kilograd.train.checkpoint import Checkpoint, CheckpointError, opened, save_checkpoint
from kilograd.train.replacing import atomic_write, clear_leftovers

INDEX = "index.json"
_NAME = re.compile(r"checkpoint-(\d{6,})\.kg")


@dataclass
class Entry:
    """What the index says of one checkpoint."""

    file: str
    number: int  # counts the checkpoints of a folder, from 1
    epoch: int | None
    step: int | None
    values: dict[str, Any] = field(default_factory=dict)
    run: str = ""  # the process that wrote it: a new one for each manager
    saved: float = 0.0  # seconds since 1970


class CheckpointManager:
    """Checkpoints of one training run, or of several that continue each other, in one folder.

    Killed at any moment, it leaves every older checkpoint and an index that is either right or made
    anew from the files. One process at a time may write: its first :meth:`save` removes what writers
    that were killed have left in the folder. Any number may read, also while it writes.

    Args:
        folder: made if it is not there.
        checkpoint: the parts to save and load; may be given to :meth:`save` and :meth:`resume` instead.
        keep_last: how many of the newest stay; None: all.
        keep_best: how many of the best stay besides.
        monitor: the value by which a checkpoint is good; NaN and absent ones are never the best.
        mode: "min" or "max".

    Attributes:
        entries: what is known of the checkpoints that are in the folder now, the oldest first.

    Raises:
        ValueError: a setting that makes no sense.

    >>> import kilograd as kg, tempfile
    >>> model = kg.nn.Linear(2, 1)
    >>> manager = CheckpointManager(
    ...     tempfile.mkdtemp(), Checkpoint(model=model), keep_last=2, monitor="val_loss")
    >>> for epoch, loss in enumerate([0.5, 0.1, 0.4, 0.3]):
    ...     _ = manager.save(epoch=epoch, val_loss=loss)
    >>> [entry.epoch for entry in manager.entries]
    [1, 2, 3]
    >>> manager.best().name, manager.latest().name
    ('checkpoint-000002.kg', 'checkpoint-000004.kg')
    >>> manager.resume()["epoch"]
    3
    """

    def __init__(
        self, folder: str | os.PathLike[str], checkpoint: Checkpoint | None = None, *,
        keep_last: int | None = 3, keep_best: int = 1, monitor: str | None = "val_loss",
        mode: str = "min",
    ) -> None:  # fmt: skip
        if keep_last is not None and (not isinstance(keep_last, int) or keep_last < 1):
            raise ValueError(f"keep_last must be a positive integer or None, but got {keep_last!r}")
        if not isinstance(keep_best, int) or keep_best < 0:
            raise ValueError(f"keep_best must be a non-negative integer, but got {keep_best!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', but got {mode!r}")
        self.folder, self.checkpoint = Path(folder), checkpoint
        self.keep_last, self.keep_best = keep_last, keep_best
        self.monitor, self.mode = monitor, mode
        self.run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cleared = False
        self._known: dict[str, Entry | None] = {}  # by file; None: it is no checkpoint
        entries = self.entries
        with contextlib.suppress(OSError):  # a folder that can only be read
            if self._files() and list(self._indexed().values()) != entries:
                self._write_index(entries)

    # --- writing ------------------------------------------------------------------------------

    def save(
        self, values: Mapping[str, Any] | None = None, /,
        *, checkpoint: Checkpoint | None = None, epoch: int | None = None, step: int | None = None,
        **more: Any,
    ) -> Path:  # fmt: skip
        """Write a checkpoint with these values, then drop those that need not be kept.

        ``values`` may have any names; in the index stand those that are numbers, text or None.

        Raises:
            OSError: it cannot be written; every older checkpoint is still there.
        """
        if not self._cleared:  # not before: who only reads leaves a writer's files alone
            for name in (INDEX, "checkpoint-[0-9]*.kg"):
                clear_leftovers(self.folder, name)
            self._cleared = True
        said = {**(values or {}), **more}
        epoch, step = said.pop("epoch", epoch), said.pop("step", step)
        counters = {k: v for k, v in (("epoch", epoch), ("step", step)) if v is not None}
        number = max([0, *(n for n, _ in self._files())]) + 1
        about = {"run": self.run, "saved": time.time(), "number": number}
        state = self._checkpoint(checkpoint).state({**counters, **said}, about)
        path = self.folder / f"checkpoint-{number:06d}.kg"
        entries = [*self.entries, _entry(path.name, number, state)]
        save_checkpoint(path, state)
        kept = self._kept(entries)
        self._write_index(kept)  # first: a file that is too many is found again, one too few is not
        for entry in entries:
            if entry not in kept:
                (self.folder / entry.file).unlink(missing_ok=True)
        return path

    def _kept(self, entries: list[Entry]) -> list[Entry]:
        last = entries if self.keep_last is None else entries[-self.keep_last :]
        best = self._ranked(entries)[: self.keep_best]
        return [e for e in entries if e in last or e in best]

    def _ranked(self, entries: list[Entry]) -> list[Entry]:
        """Best first, and of equals the newest; without those that have no value."""
        sign = 1.0 if self.mode == "min" else -1.0
        scored = [
            (sign * score, -e.number, e) for e in entries if (score := self._score(e)) is not None
        ]
        return [e for *_, e in sorted(scored, key=lambda found: found[:2])]

    def _score(self, entry: Entry) -> float | None:
        try:
            score = float(entry.values.get(self.monitor or "", math.nan))
        except (TypeError, ValueError, OverflowError):
            return None
        return None if math.isnan(score) else score

    def _write_index(self, entries: list[Entry]) -> None:
        index = {
            "format": "kilograd-checkpoints-1",
            "monitor": self.monitor,
            "mode": self.mode,
            "runs": list(dict.fromkeys([*(e.run for e in entries), self.run])),
            "checkpoints": [asdict(e) for e in entries],
        }
        with atomic_write(self.folder / INDEX) as f:
            f.write(json.dumps(index, indent=1, allow_nan=False).encode() + b"\n")

    # --- finding ------------------------------------------------------------------------------

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        entries = self.entries
        return self.folder / entries[-1].file if entries else None

    def best(self) -> Path | None:
        """The best checkpoint by the monitored value, or None if none has that value."""
        ranked = self._ranked(self.entries)
        return self.folder / ranked[0].file if ranked else None

    def resume(
        self, checkpoint: Checkpoint | None = None, *, strict: bool = True
    ) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole; returns its values, or None if there is none.

        A damaged one is left where it is, with a warning, and the one before it is tried.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
            ValueError, RuntimeError: the newest whole one does not fit the parts.
        """
        parts = self._checkpoint(checkpoint)
        damaged: list[str] = []
        gone: list[str] = []
        while left := [e.file for e in self.entries if e.file not in (*damaged, *gone)]:
            path = self.folder / left[-1]
            try:
                return parts.load(path, strict=strict)
            except CheckpointError as e:
                warnings.warn(f"{e} The one before it is tried.", stacklevel=2)
                damaged.append(path.name)
            except FileNotFoundError:  # a writer has dropped it since, and has written a newer one
                if path.exists():
                    raise
                gone.append(path.name)
        if damaged:
            raise CheckpointError(f"all {len(damaged)} checkpoints in {self.folder} are damaged")
        return None

    def _checkpoint(self, given: Checkpoint | None) -> Checkpoint:
        found = given or self.checkpoint
        if found is None:
            raise ValueError("give the manager a Checkpoint: the parts to save and load")
        return found

    def _files(self) -> list[tuple[int, str]]:
        names = [p.name for p in self.folder.iterdir()]
        return sorted((int(m[1]), name) for name in names if (m := _NAME.fullmatch(name)))

    @property
    def entries(self) -> list[Entry]:
        said = self._indexed()
        found: dict[str, Entry | None] = {}
        for number, name in self._files():
            if name in said and said[name].number == number:
                found[name] = said[name]
            elif name in self._known:
                found[name] = self._known[name]
            else:
                with contextlib.suppress(FileNotFoundError):  # a writer has dropped it since
                    found[name] = self._read(name, number)
        self._known = found
        return [entry for entry in found.values() if entry]

    def _indexed(self) -> dict[str, Entry]:
        """What the index says, by file; nothing if it is damaged or not there."""
        try:
            said = json.loads((self.folder / INDEX).read_bytes())["checkpoints"]
            json.dumps(said, allow_nan=False)
            return {e["file"]: _checked(Entry(**e)) for e in said}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _read(self, name: str, number: int) -> Entry | None:
        """What a checkpoint says of itself; None, with a warning, if it is none."""
        try:
            with opened(self.folder / name) as found:
                nest = found.nest(stored=True)
                said = realised({"values": nest["values"], "about": nest["about"]})
            return _entry(name, number, said)
        except (CheckpointError, KeyError, TypeError) as e:
            warnings.warn(f"{self.folder / name} is left out: {e}", stacklevel=4)
            return None


def _entry(name: str, number: int, state: dict[str, Any]) -> Entry:
    values = {k: _plain(v) for k, v in state["values"].items()}
    plain: dict[str, Any] = {
        k: v for k, v in values.items() if isinstance(v, (int, float, str, type(None)))
    }
    epoch, step = plain.pop("epoch", None), plain.pop("step", None)
    about = state["about"]
    return Entry(name, number, epoch, step, plain, about.get("run", ""), about.get("saved", 0.0))


def _checked(entry: Entry) -> Entry:
    """An entry of an index, which may say anything; TypeError if it is not of the right types."""
    plain = int | float | str | None
    if (
        not isinstance(entry.file, str)
        or not isinstance(entry.number, int)
        or not isinstance(entry.epoch, plain)
        or not isinstance(entry.step, plain)
        or not isinstance(entry.values, dict)
        or not isinstance(entry.run, str)
        or not isinstance(entry.saved, int | float)
    ):
        raise TypeError(f"{entry} is of other types")
    return entry


def _plain(value: Any) -> Any:
    """A value as JSON has it: one-element tensors as numbers, NaN and infinities as text."""
    size = value.numel() if hasattr(value, "numel") else getattr(value, "size", 0)
    value = value.item() if size == 1 else value
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value

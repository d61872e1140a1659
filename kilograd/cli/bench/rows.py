"""What was measured, as data: rows of values and their ratios, and all of them as JSON."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kilograd.cli.bench.timing import TITLES, Step, alternate, ratio
from kilograd.train.checkpoint import atomic_write


@dataclass
class Row:
    """One op, network or import: seconds (or bytes) of each kind, round by round."""

    group: str
    name: str
    size: str
    values: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)
    failed: bool = False  # kilograd could not do it, or the libraries disagree
    scale: tuple[str, float] = ("us", 1e6)  # the unit that is printed, and how many make up a value

    def ratio(self, theirs: str, ours: str = "kilograd") -> float | None:
        """How many times faster we are; None where one of both was not timed."""
        if theirs in self.values and ours in self.values:
            return ratio(self.values, theirs, ours)
        return None

    def error(self, what: str, error: Exception) -> None:
        """Note what could not be done, in one line."""
        line = (str(error).splitlines() or [""])[0]
        self.notes.append(f"{what}: {type(error).__name__}: {line}")

    def time(self, steps: dict[str, Step], rounds: int, burst: float) -> None:
        """Fill in the values; an error costs this row, not the table."""
        try:
            with warnings.catch_warnings():
                # What kg.compile leaves to Python runs there; that is timed, too.
                warnings.filterwarnings("ignore", message="kg.compile")
                self.values = alternate(steps, rounds, burst)
        except Exception as error:
            self.error("while timing", error)
            self.failed = True

    @property
    def uneven(self) -> bool:
        """Whether rounds differ so much that something else must have had the processor."""
        return any(statistics.median(v) > 1.5 * min(v) for v in self.values.values())

    def as_dict(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The row for JSON."""
        unit, factor = self.scale
        ratios = {f"{theirs}/{ours}": self.ratio(theirs, ours) for theirs, ours in pairs}
        return {
            "group": self.group,
            "name": self.name,
            "size": self.size,
            unit: {kind: statistics.median(v) * factor for kind, v in self.values.items()},
            f"best_{unit}": {
                kind: min(v) * factor for kind, v in self.values.items() if len(v) > 1
            },
            "ratio": {pair: value for pair, value in ratios.items() if value is not None},
            "notes": self.notes,
        }


def pairs_of(kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Which ratios are shown: every other library to each of our own kinds."""
    ours = [kind for kind in ("kilograd", "compiled") if kind in kinds]
    return [(kind, own) for kind in kinds if kind not in ours for own in ours]


def ratio_title(theirs: str, ours: str) -> str:
    """What a ratio is called in the table and under the picture."""
    return f"{TITLES[theirs]}/{TITLES[ours]}"


def save_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report; an older file stays whole until the new one is."""
    with atomic_write(path) as f:
        f.write((json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())

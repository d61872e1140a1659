"""What was measured: a row at a time as a line of a table, all of them as a summary and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kilograd.cli.bench.timing import TITLES, ratio
from kilograd.train.checkpoint import atomic_write

SLOW = 0.5  # a ratio below it counts as slow


@dataclass
class Row:
    """One op, network or import: seconds of each kind, round by round."""

    group: str
    name: str
    size: str
    seconds: dict[str, list[float]]
    notes: list[str] = field(default_factory=list)
    failed: bool = False  # kilograd could not do it, or the libraries disagree
    extra: dict[str, Any] = field(default_factory=dict)

    def ratio(self, theirs: str, ours: str = "kilograd") -> float | None:
        """How many times faster we are; None where one of both was not timed."""
        if theirs in self.seconds and ours in self.seconds:
            return ratio(self.seconds, theirs, ours)
        return None

    @property
    def uneven(self) -> bool:
        """Whether rounds differ so much that something else must have had the processor."""
        return any(statistics.median(s) > 1.5 * min(s) for s in self.seconds.values())

    def as_dict(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The row for JSON, times in microseconds."""
        ratios = {f"{theirs}/{ours}": self.ratio(theirs, ours) for theirs, ours in pairs}
        return {
            "group": self.group,
            "name": self.name,
            "size": self.size,
            "us": {kind: statistics.median(s) * 1e6 for kind, s in self.seconds.items()},
            "best_us": {kind: min(s) * 1e6 for kind, s in self.seconds.items()},
            "ratio": {pair: value for pair, value in ratios.items() if value is not None},
            "notes": self.notes,
            **self.extra,
        }


def pairs_of(kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Which ratios are shown: every other library to each of our own kinds."""
    ours = [kind for kind in ("kilograd", "compiled") if kind in kinds]
    return [(kind, own) for kind in kinds if kind not in ours for own in ours]


class Table:
    """A table that is printed line by line, as it is measured, with a progress bar in a terminal."""

    def __init__(self, console: Console, kinds: Sequence[str], total: int, title: str) -> None:
        self.console, self.kinds, self.pairs = console, list(kinds), pairs_of(kinds)
        self.rows: list[Row] = []
        self.group = ""
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task(title, total=total)
        self.title = title

    def __enter__(self) -> Table:
        self.progress.start()
        heads = [f"{TITLES[kind]} µs" for kind in self.kinds]
        line = f"{self.title:25} {'size':27}" + "".join(f"{head:>15}" for head in heads)
        line += "".join(f"{ratio_title(*pair):>18}" for pair in self.pairs)
        self.console.print(f"[bold]{escape(line.rstrip())}[/]")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def next(self, name: str) -> None:
        """Say what is measured now."""
        self.progress.update(self.task, description=escape(f"{name:25.25}"))

    def add(self, row: Row) -> None:
        """Print a row that has been measured."""
        if row.group != self.group:
            self.console.print(f"[dim]{row.group}[/]")
            self.group = row.group
        line = escape(f"{shortened(row.name, 25):25} {shortened(row.size, 27):27}")
        for kind in self.kinds:
            seconds = row.seconds.get(kind)
            line += f"{statistics.median(seconds) * 1e6:>15,.1f}" if seconds else f"{'-':>15}"
        for pair in self.pairs:
            line += coloured(row.ratio(*pair), 18)
        line += "".join(f"  [yellow]{escape(note)}[/]" for note in row.notes)
        self.console.print(line)
        self.rows.append(row)
        self.progress.advance(self.task)

    def summary(self, worst: int = 10) -> None:
        """Geometric means by group, and the ops with the lowest ratios."""
        for theirs, ours in self.pairs:
            found = [(row, r) for row in self.rows if (r := row.ratio(theirs, ours)) is not None]
            if not found:
                continue
            title = ratio_title(theirs, ours)
            self.console.print(f"\n[bold]{title}[/] (above 1, {TITLES[ours]} is faster)")
            for group in dict.fromkeys(row.group for row, _ in found):
                values = [value for row, value in found if row.group == group]
                slow = sum(value < SLOW for value in values)
                self.console.print(
                    f"  {group:12} geometric mean {coloured(statistics.geometric_mean(values), 6)}, "
                    f"{slow} of {len(values)} below {SLOW:g}"
                )
            if len(found) > worst:
                lowest = sorted(found, key=lambda pair: pair[1])[:worst]
                names = ", ".join(
                    f"{escape(f'{row.name} [{row.group}]')}{coloured(value, 5)}"
                    for row, value in lowest
                )
                self.console.print(f"  the lowest: {names}")
        if uneven := sum(row.uneven for row in self.rows):
            self.console.print(
                f"[yellow]{uneven} of {len(self.rows)} rows have uneven times: is the machine busy "
                "with others? More --rounds help.[/]"
            )


def ratio_title(theirs: str, ours: str) -> str:
    """What a ratio is called in the table and under the picture."""
    return f"{TITLES[theirs]}/{TITLES[ours]}"


def coloured(value: float | None, width: int) -> str:
    """A ratio in green, yellow or red."""
    if value is None:
        return f"{'-':>{width}}"
    colour = "green" if value >= 1 else "yellow" if value >= SLOW else "red"
    return f"[{colour}]{value:>{width}.2f}[/]"


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def save_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report; an older file stays whole until the new one is."""
    with atomic_write(path) as f:
        f.write((json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())

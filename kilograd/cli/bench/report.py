"""What was measured, as a table: a row at a time, and a summary at the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kilograd.cli.bench.rows import Row, pairs_of, ratio_title
from kilograd.cli.bench.timing import TITLES

SLOW = 0.5  # a ratio below it counts as slow


class Table:
    """A table that is printed line by line, as it is measured, with a progress bar in a terminal."""

    def __init__(
        self, console: Console, kinds: Sequence[str], total: int, title: str, unit: str = " µs"
    ) -> None:
        self.console, self.kinds, self.pairs = console, list(kinds), pairs_of(kinds)
        self.rows: list[Row] = []
        self.group = ""
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal, transient=True,
            auto_refresh=False,  # a thread that draws while we measure would be measured
        )  # fmt: skip
        self.task = self.progress.add_task(title, total=total)
        self.title, self.unit = title, unit

    def __enter__(self) -> Table:
        self.progress.start()
        heads = [f"{TITLES[kind]}{self.unit}" for kind in self.kinds]
        line = f"{self.title:25} {'size' if self.unit else 'unit':27}" + "".join(
            f"{head:>15}" for head in heads
        )
        line += "".join(f"{ratio_title(*pair):>18}" for pair in self.pairs)
        self.console.print(f"[bold]{escape(line.rstrip())}[/]")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def next(self, name: str) -> None:
        """Say what is measured now."""
        self.progress.update(self.task, description=escape(f"{name:25.25}"), refresh=True)

    def add(self, row: Row) -> None:
        """Print a row that has been measured."""
        if row.group != self.group:
            self.console.print(f"[dim]{row.group}[/]")
            self.group = row.group
        line = escape(f"{shortened(row.name, 25):25} {shortened(row.size, 27):27}")
        for kind in self.kinds:
            values = row.values.get(kind)
            value = statistics.median(values) * row.scale[1] if values else None
            line += f"{'-':>15}" if value is None else f"{value:>15,.1f}"
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
                self.console.print("  the lowest:")
                for row, value in sorted(found, key=lambda pair: pair[1])[:worst]:
                    name = escape(f"{row.name:25} {row.size} [{row.group}]")
                    self.console.print(f"    {coloured(value, 5)}  {name}")
        if uneven := sum(row.uneven for row in self.rows):
            self.console.print(
                f"[yellow]{uneven} of {len(self.rows)} rows have uneven times: is the machine busy "
                "with others? More --rounds help.[/]"
            )


def coloured(value: float | None, width: int) -> str:
    """A ratio in green, yellow or red."""
    if value is None:
        return f"{'-':>{width}}"
    colour = "green" if value >= 1 else "yellow" if value >= SLOW else "red"
    return f"[{colour}]{value:>{width}.2f}[/]"


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"

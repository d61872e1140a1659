"""``kilograd bench``: the options, and what is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from kilograd.cli.bench import ops, picture
from kilograd.cli.bench.cases import PARTS, Op
from kilograd.cli.bench.report import Row, Table, pairs_of, save_json
from kilograd.cli.bench.table import GROUPS, OPS
from kilograd.cli.bench.timing import TITLES, cores, fix_threads, libraries, machine, versions


class OutputFile(click.Path):
    """A file to write: refused before anything is measured where that cannot succeed."""

    def __init__(self, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        if self.suffixes and path.suffix[1:].lower() not in self.suffixes:
            names = ", ".join(f".{suffix}" for suffix in self.suffixes)
            self.fail(f"{value} should end in one of {names}", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path


def options(rounds: int, burst: float) -> Callable[[Any], Any]:
    """The options that all subcommands share, with their defaults."""
    shared = [
        click.option(
            "--threads", type=click.IntRange(min=1), default=None,
            help="Threads for every library (default: all cores).",
        ),
        click.option(
            "--rounds", type=click.IntRange(min=1), default=rounds, show_default=True,
            help="Turns of each library; the median counts.",
        ),
        click.option(
            "--burst", type=click.FloatRange(min=0, min_open=True, max=60), default=burst,
            show_default=True, metavar="SECONDS", help="Length of a turn.",
        ),
        click.option("--json", "json_file", type=OutputFile(), help="Write the figures there."),
        click.option(
            "--picture", "picture_file", type=OutputFile(picture.FORMATS),
            help="Draw the ratios there (.png, .svg or .pdf).",
        ),
        click.option(
            "--check/--no-check", default=True, show_default=True,
            help="Compare the results of the libraries before timing.",
        ),
    ]  # fmt: skip
    return lambda command: functools.reduce(lambda f, option: option(f), reversed(shared), command)


class Session:
    """One call of the command: its libraries, its console, its rows and its files."""

    def __init__(
        self, title: str, names: tuple[str, ...], threads: int | None, json_file: Path | None,
        picture_file: Path | None, **chosen: Any,
    ) -> None:  # fmt: skip
        self.console = Console(soft_wrap=True, highlight=False)
        self.threads = threads or cores()
        self.json_file, self.picture_file = json_file, picture_file
        if picture_file is not None:
            try:
                picture.matplotlib()
            except ImportError as e:
                raise click.ClickException(str(e)) from None
        fix_threads(self.threads)
        self.libraries = libraries(self.threads, names)
        if picture_file is not None and len(self.libraries) == 1:
            raise click.ClickException(
                "a picture shows ratios to another library, and PyTorch is not installed"
            )
        self.chosen = {"command": title, "threads": self.threads, **chosen}
        self.machine = machine(self.threads)
        self.rows: list[Row] = []
        self.kinds: list[str] = []
        found = [f"{TITLES[k]} {module.__version__}" for k, module in self.libraries.items()]
        self.console.print(
            f"{self.machine['processor']}, {self.machine['cores']} core(s), "
            f"{self.threads} thread(s); {', '.join(found)}"
        )
        if len(self.libraries) == 1:
            self.console.print("PyTorch is not installed: timing kilograd alone")

    def table(
        self, title: str, kinds: list[str], items: Iterable[Any], measure: Callable[[Any], Row]
    ) -> None:
        """Measure the items one by one, print each as it is done, then the summary."""
        items = list(items)
        with Table(self.console, kinds, len(items), title) as table:
            for item in items:
                table.next(item if isinstance(item, str) else item.name)
                table.add(measure(item))
        table.summary()
        self.rows += table.rows
        self.kinds += [kind for kind in kinds if kind not in self.kinds]

    def finish(self) -> None:
        """Write the files; the exit status is 1 where something was not right."""
        pairs = pairs_of(self.kinds)
        try:
            if self.json_file is not None:
                save_json(self.json_file, {
                    "machine": self.machine,
                    "versions": versions(self.libraries),
                    "options": self.chosen,
                    "rows": [row.as_dict(pairs) for row in self.rows],
                })  # fmt: skip
            if self.picture_file is not None:
                picture.draw_ratios(self.rows, pairs, self.picture_file)
        except OSError as e:
            raise click.ClickException(str(e)) from None
        for file in (self.json_file, self.picture_file):
            if file is not None:
                self.console.print(f"wrote {file}")
        if failed := [row for row in self.rows if row.failed]:
            names = ", ".join(f"{row.name} [{row.group}]" for row in failed)
            raise click.ClickException(f"not as it should be: {names}")


def chosen_ops(groups: tuple[str, ...], only: str | None) -> list[Op]:
    """The ops of the groups whose name has the substring."""
    found = [op for group in dict.fromkeys(groups) for op in OPS if op.group == group]
    if only is None:
        return found
    matching = [op for op in found if only.lower() in op.name.lower()]
    if not matching:
        names = ", ".join(dict.fromkeys(op.name for op in found))
        raise click.BadParameter(
            f"no op of {', '.join(groups)} has {only!r} in its name; there are {names}",
            param_hint="--only",
        )
    return matching


@click.group()
def bench() -> None:
    """Time kilograd beside PyTorch (and JAX) on this machine."""


@bench.command("ops")
@click.option(
    "--group", "groups", type=click.Choice(GROUPS), multiple=True, default=("small", "large"),
    show_default=True, help="Which ops; may be given several times.",
)  # fmt: skip
@click.option("--only", metavar="SUBSTRING", help="Only ops with this in their name.")
@click.option(
    "--part", type=click.Choice(PARTS), default="both", show_default=True,
    help="Time the forward pass, the backward pass, or both together.",
)  # fmt: skip
@click.option("--compiled", is_flag=True, help="Time kg.compile of each op, too.")
@options(rounds=7, burst=0.02)
def bench_ops(
    groups: tuple[str, ...], only: str | None, part: str, compiled: bool, rounds: int, burst: float,
    check: bool, **files: Any,
) -> None:  # fmt: skip
    """Single ops, forward and backward, in float32."""
    if compiled and part == "backward":
        raise click.BadParameter(
            "a backward pass is compiled with its forward", param_hint="--part"
        )
    found = chosen_ops(groups, only)
    session = Session(
        "ops", ("torch", "jax"), groups=groups, only=only, part=part, compiled=compiled,
        rounds=rounds, burst=burst, check=check, **files,
    )  # fmt: skip
    kinds = ["kilograd", *(["compiled"] if compiled else []), *list(session.libraries)[1:]]
    session.table(
        "op", kinds, found,
        lambda op: ops.measure(op, session.libraries, rounds, burst, part, check, compiled),
    )  # fmt: skip
    session.finish()

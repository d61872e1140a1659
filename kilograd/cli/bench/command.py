"""``kilograd bench``: the options, and what is printed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import kilograd as kg
from kilograd.cli.bench import imports, ops, picture, train
from kilograd.cli.bench.cases import PARTS, Op
from kilograd.cli.bench.networks import WORKLOADS
from kilograd.cli.bench.report import Table
from kilograd.cli.bench.rows import Row, pairs_of, save_json
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


def options(rounds: int, burst: float | None = None) -> Callable[[Any], Any]:
    """The options that subcommands share, with their defaults; those of bursts where there are any."""
    shared = [
        click.option(
            "--rounds", type=click.IntRange(min=1), default=rounds, show_default=True,
            help="Turns of each library; the median counts.",
        ),
        click.option("--json", "json_file", type=OutputFile(), help="Write the figures there."),
        click.option(
            "--picture", "picture_file", type=OutputFile(picture.FORMATS),
            help="Draw the ratios there (.png, .svg or .pdf).",
        ),
    ]  # fmt: skip
    if burst is not None:
        shared += [
            click.option(
                "--burst", type=click.FloatRange(min=0, min_open=True, max=60), default=burst,
                show_default=True, metavar="SECONDS", help="Length of a turn.",
            ),
            THREADS,
            click.option(
                "--check/--no-check", default=True, show_default=True,
                help="Compare the results of the libraries before timing.",
            ),
        ]  # fmt: skip
    return lambda command: functools.reduce(lambda f, option: option(f), reversed(shared), command)


THREADS = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of every library (default: all cores)."
)


class Session:
    """One call of the command: its libraries, its console, its rows and its files."""

    def __init__(
        self, title: str, names: tuple[str, ...], json_file: Path | None,
        picture_file: Path | None, threads: int | None = None, **chosen: Any,
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
        if (load := self.machine["load"]) is not None and load > 0.5:
            self.console.print(
                f"[yellow]In the last minute about {load:.1f} cores were busy. Other programs disturb most what "
                "waits for all its threads at once, so that ratios may be far off: --threads 1 suffers less.[/]"
            )
        if (actual := kg.get_num_threads()) != self.threads:
            self.console.print(f"[yellow]kilograd itself uses {actual} thread(s).[/]")

    def table(
        self, title: str, kinds: list[str], items: Iterable[Any], measure: Callable[[Any], Row],
        unit: str = " µs",
    ) -> None:  # fmt: skip
        """Measure the items one by one, print each as it is done, then the summary."""
        items = list(items)
        try:
            with Table(self.console, kinds, len(items), title, unit) as table:
                for item in items:
                    table.next(item if isinstance(item, str) else item.name)
                    table.add(measure(item))
        except ImportError as e:
            raise click.ClickException(str(e)) from None
        if unit:
            table.summary()
        self.rows += table.rows
        self.kinds += [kind for kind in kinds if kind not in self.kinds]

    def ops(
        self, found: Iterable[Op], rounds: int, burst: float, part: str = "both",
        check: bool = True, compiled: bool = False,
    ) -> None:  # fmt: skip
        """The table of ops."""
        kinds = ["kilograd", *(["compiled"] if compiled else []), *list(self.libraries)[1:]]
        self.table(
            "op", kinds, found,
            lambda op: ops.measure(op, self.libraries, rounds, burst, part, check, compiled),
        )  # fmt: skip

    def train(
        self, names: Iterable[str], rounds: int, burst: float, check: bool = True,
        compiled: bool = True,
    ) -> None:  # fmt: skip
        """The table of training steps; there is no JAX in it."""
        found = {name: lib for name, lib in self.libraries.items() if name != "jax"}
        kinds = ["kilograd", *(["compiled"] if compiled else []), *list(found)[1:]]
        self.table(
            "training step", kinds, names,
            lambda name: train.measure(name, found, rounds, burst, check, compiled),
        )  # fmt: skip

    def imports(self, rounds: int) -> None:
        """Import times and sizes on disk."""
        names = list(self.libraries)
        what = {"import": lambda: imports.import_row(names, rounds)} | {
            name: functools.partial(imports.size_row, name, needs, names)
            for name, needs in imports.SIZES.items()
        }
        self.table("import", names, what, lambda name: what[name](), unit="")

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


def matching(names: list[str], only: str | None, what: str) -> list[str]:
    """The names that have the substring."""
    found = [name for name in names if only is None or only.lower() in name.lower()]
    if not found:
        there = ", ".join(dict.fromkeys(names))
        raise click.BadParameter(
            f"no {what} has {only!r} in its name; there are {there}", param_hint="--only"
        )
    return found


ONLY = click.option("--only", metavar="SUBSTRING", help="Only those with this in their name.")


@click.group(invoke_without_command=True)
@THREADS
@click.option("--json", "json_file", type=OutputFile(), help="Write the figures there.")
@click.option(
    "--picture", "picture_file", type=OutputFile(picture.FORMATS), help="Draw the ratios there."
)
@click.pass_context
def bench(context: click.Context, /, **files: Any) -> None:
    """Time kilograd beside PyTorch (and JAX) on this machine.

    Without a subcommand: a quick run of all three, in about two minutes.
    """
    if context.invoked_subcommand is not None:
        if given := [name for name, value in files.items() if value is not None]:
            option = given[0].removesuffix("_file")
            raise click.UsageError(f"--{option} belongs behind {context.invoked_subcommand}")
        return
    session = Session("quick", ("torch", "jax"), **files)
    session.imports(rounds=2)
    session.console.print()
    session.train(WORKLOADS, rounds=3, burst=0.03)
    session.console.print()
    session.ops([op for op in OPS if op.group in ("small", "large")], rounds=3, burst=0.003)
    session.finish()


@bench.command("ops")
@click.option(
    "--group", "groups", type=click.Choice(GROUPS), multiple=True, default=("small", "large"),
    show_default=True, help="Which ops; may be given several times.",
)  # fmt: skip
@ONLY
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
    found = [op for group in dict.fromkeys(groups) for op in OPS if op.group == group]
    names = set(matching([op.name for op in found], only, f"op of {', '.join(groups)}"))
    session = Session(
        "ops", ("torch", "jax"), groups=groups, only=only, part=part, compiled=compiled,
        rounds=rounds, burst=burst, check=check, **files,
    )  # fmt: skip
    session.ops(
        [op for op in found if op.name in names], rounds, burst, part, check, compiled
    )  # fmt: skip
    session.finish()


@bench.command("train")
@ONLY
@click.option("--eager", is_flag=True, help="Without kg.compile.")
@options(rounds=9, burst=0.1)
def bench_train(
    only: str | None, eager: bool, rounds: int, burst: float, check: bool, **files: Any
) -> None:
    """Whole training steps of nine networks, eager and compiled."""
    names = matching(list(WORKLOADS), only, "network")
    session = Session(
        "train",
        ("torch",),
        only=only,
        eager=eager,
        rounds=rounds,
        burst=burst,
        check=check,
        **files,
    )
    session.train(names, rounds, burst, check, not eager)
    session.finish()


@bench.command("import")
@options(rounds=7)
def bench_import(rounds: int, **files: Any) -> None:
    """Seconds of an import beyond NumPy's, in fresh processes, and megabytes on disk."""
    session = Session("import", ("torch", "jax"), rounds=rounds, **files)
    session.imports(rounds)
    session.finish()

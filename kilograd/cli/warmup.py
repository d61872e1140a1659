"""``kilograd warmup``: compile beforehand what would be compiled when it is first needed.

Machine code is kept on disk and is good for arrays of any size, so that an image or a machine that was
warmed up once starts at full speed every time.
"""

from __future__ import annotations

import functools
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import kilograd as kg
from kilograd.cli.bench.cases import Case, Op
from kilograd.cli.bench.command import ONLY, matching
from kilograd.cli.bench.networks import WORKLOADS
from kilograd.cli.bench.table import OPS
from kilograd.compile import compile


@click.command()
@click.option(
    "--networks", is_flag=True, help="Also the training steps of the networks of `bench train`."
)
@ONLY
def warmup(networks: bool, only: str | None) -> None:
    """Compile the native code of the usual ops, so that no first call waits for it."""
    from kilograd.kernels.native import build

    console = Console(soft_wrap=True)
    if not build.available():
        raise click.ClickException(f"nothing to compile: {build.why_not()}")
    place = build.cache_dir()
    if place is None:
        raise click.ClickException(
            "KILOGRAD_CACHE is set to nothing: machine code would be lost with this process"
        )
    start = time.perf_counter()
    ops = [op for op in OPS if op.group in SIZES]
    names = set(matching([op.name for op in ops], only, "op"))
    jobs = [(op.name, functools.partial(_op, op)) for op in ops if op.name in names]
    if networks:
        jobs += [(name, functools.partial(_network, name)) for name in WORKLOADS]
    with Progress(
        TextColumn("{task.fields[name]:32}"), BarColumn(), MofNCompleteColumn(), console=console,
        disable=not console.is_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=len(jobs), name="")
        for name, job in jobs:
            bar.update(task, name=name)
            job()
            bar.advance(task)
    files = [p for p in place.glob("*/*") if p.is_file()]
    if not files:
        raise click.ClickException(f"nothing could be written to {place}")
    size = sum(p.stat().st_size for p in files) / 1e6
    console.print(
        f"{len(files)} pieces of machine code ({size:.1f} MB) are in {place}; this took "
        f"{time.perf_counter() - start:.1f} s"
    )


SIZES = ("small", "large")


def _op(op: Op) -> None:
    """An op forward and backward, natively whatever its size."""
    from kilograd.compile import eager
    from kilograd.kernels.kernel import LARGE

    before = LARGE.limit, LARGE.run, eager.OFTEN
    LARGE.limit, LARGE.run, eager.OFTEN = 0, eager.run, 0
    try:
        Case(op, kg).step("both")()
    finally:
        LARGE.limit, LARGE.run, eager.OFTEN = before


def _network(name: str) -> None:
    """Two steps of a network, eager and compiled."""
    workload = WORKLOADS[name](kg)
    with workload.mode():
        for function in (workload.function, compile(workload.function)):
            step = workload.step(function)
            step()
            step()

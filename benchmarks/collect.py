"""Measure what the README and docs/performance.md report, and write it to benchmarks/results.json.

    python benchmarks/collect.py                    # everything: half an hour or more, on a quiet machine
    python benchmarks/collect.py steps ops          # two of the tables
    python benchmarks/collect.py --dry-run          # say which commands it would run
    python benchmarks/collect.py steps --quick --output /tmp/results.json    # a trial: two rounds

Each table in the file says when, where and with which versions it was measured; tables that are not
measured now stay as they are. The words of a row ("what"), and what is said about slower operations
("slower"), are written by hand and stay, too. `runs` and three rows of `accuracy` need MNIST, in
$KILOGRAD_DATA/mnist or the cache folder. A test compares the README's figures with this file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
SLOWER = 0.9  # operations below this ratio are listed
LISTED = 12  # so many of them at most
FEW = {"conv": "5x5", "synapgrad": "matmul"}  # what a trial measures of these groups
Table = dict[str, Any]


class Collector:
    """Runs the scripts, with the options of this call."""

    def __init__(self, threads: int, quick: bool, dry: bool) -> None:
        self.threads, self.quick, self.dry = threads, quick, dry
        self.folder = tempfile.TemporaryDirectory(prefix="kilograd-bench-")

    def script(self, name: str, *args: str, json_file: bool = True) -> Any:
        """What a script of this folder wrote as JSON, or printed."""
        return self.run([sys.executable, str(ROOT / "benchmarks" / name), *args], json_file)

    def bench(self, *args: str) -> Any:
        """The JSON of ``kilograd bench``."""
        call = "from kilograd.cli import main; main()"
        return self.run([sys.executable, "-c", call, "bench", *args], True)

    def run(self, command: list[str], json_file: bool) -> Any:
        file = Path(self.folder.name) / "out.json"
        file.unlink(missing_ok=True)
        if json_file:
            command = [*command, "--json", str(file)]
        print("$", shlex.join(command), flush=True)
        if self.dry:
            return None
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_path()])}
        # A script that finds something slower or different ends with status 1 after it has written its file.
        done = subprocess.run(
            command, env=env, stdout=None if json_file else subprocess.PIPE, text=True
        )
        if json_file:
            if not file.exists():
                sys.exit(f"it wrote no figures (exit status {done.returncode})")
            return json.loads(file.read_text())
        if done.returncode:
            sys.exit(f"exit status {done.returncode}:\n{done.stdout}")
        return done.stdout

    def few(self, *args: str) -> list[str]:
        """Options that make a trial short."""
        return list(args) if self.quick else []


def _path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


# Each of these runs something, and puts the figures into its table.


def steps(c: Collector, table: Table) -> None:
    args = [*c.few("basic_mlp", "--rounds", "2", "--burst", "0.02")]
    if not c.quick:
        args.append("--first-steps")
    report = c.script("train_steps.py", "--threads", str(c.threads), *args)
    if report is not None:
        table["command"] = f"python benchmarks/train_steps.py --threads {c.threads} --first-steps"
        put_steps(table, report)


def put_steps(table: Table, report: Any) -> None:
    for row in report["rows"]:
        kinds = {k: row.get(f"{k} µs") for k in ("torch", "kilograd", "compiled")}
        us = {kind: value for kind, value in kinds.items() if value is not None}
        speed = {k: us["torch"] / us[k] for k in us if k != "torch"} if "torch" in us else {}
        if "speed-up" in row:  # the median of the rounds' own ratios
            speed["compiled"] = row["speed-up"]
        put(table, row["workload"], us=us, speed=speed)
    for kind in ("kilograd", "compiled"):
        ratios = [row["speed"][kind] for row in table["rows"] if kind in row.get("speed", ())]
        if ratios:
            table.setdefault("mean", {})[kind] = rounded(statistics.geometric_mean(ratios))
    for name in ("cold", "warm"):
        if seconds := [row[f"{name} s"] for row in report["rows"] if f"{name} s" in row]:
            table.setdefault("first_step", {})[name] = [min(seconds), max(seconds)]


def ops(c: Collector, table: Table) -> None:
    for row in list(table["rows"]):
        few = c.few("--only", FEW.get(row["name"], "exp"), "--rounds", "2", "--burst", "0.002")
        report = c.bench(
            "ops", "--group", row["name"], "--threads", str(c.threads), *few
        )  # fmt: skip
        if report is not None:
            put_ops(table, row["name"], report)


def put_ops(table: Table, group: str, report: Any) -> None:
    ratios = {
        f"{row['name']} {row['size']}".strip(): row["ratio"]["torch/kilograd"]
        for row in report["rows"]
        if "torch/kilograd" in row["ratio"]
    }
    if not ratios:
        sys.exit("PyTorch is not installed: there is nothing to compare with")
    figures: dict[str, Any] = {"speed": {"kilograd": statistics.geometric_mean(ratios.values())}}
    if group == "conv":
        figures["range"] = [min(ratios.values()), max(ratios.values())]
    slow = sorted((r, name) for name, r in ratios.items() if r < SLOWER)
    figures["slowest"] = {name: r for r, name in slow[:LISTED]}
    put(table, group, **figures)


def runs(c: Collector, table: Table) -> None:
    for row in list(table["rows"]):
        few = c.few("--epochs", "1")
        report = c.script("mnist_runs.py", row["name"], "--threads", str(c.threads), *few)
        if report is not None:
            put_run(table, row["name"], report[row["name"]])


def put_run(table: Table, name: str, histories: dict[str, Any]) -> None:
    seconds = {kind: sum(e["seconds"] for e in history) for kind, history in histories.items()}
    if "torch" not in seconds:
        sys.exit("PyTorch is not installed: there is nothing to compare with")
    put(table, name, speed={k: seconds["torch"] / s for k, s in seconds.items() if k != "torch"})


def footprint(c: Collector, table: Table) -> None:
    report = c.bench("import", *c.few("--rounds", "1"))
    if report is not None:
        put_imports(table, report)
    printed = c.script("memory.py", *c.few("--steps", "200"), json_file=False)
    if printed is not None:
        put_memory(table, printed)


def put_imports(table: Table, report: Any) -> None:
    first, *sizes = report["rows"]
    put(table, "import", **{k: [ms / 1e3] for k, ms in first["ms"].items() if k != "jax"})
    megabytes: dict[str, list[float]] = {"kilograd": [row["MB"]["kilograd"] for row in sizes]}
    if "torch" in sizes[0]["MB"]:
        megabytes["torch"] = [sizes[0]["MB"]["torch"]]
    put(table, "disk", **megabytes)


def put_memory(table: Table, printed: str) -> None:
    found = dict(re.findall(r"^(kilograd|torch) .*objects ([+-]\d+)", printed, re.MULTILINE))
    put(table, "memory", **{k: "flat" if int(n) < 50 else f"{n} objects" for k, n in found.items()})


def accuracy(c: Collector, table: Table) -> None:
    names = ["digits_conv"] if c.quick else [row["name"] for row in table["rows"]]
    printed = c.script("accuracy.py", *names, json_file=False)
    if printed is not None:
        put_accuracy(table, printed)


def put_accuracy(table: Table, printed: str) -> None:
    for row in table["rows"]:
        if found := re.search(rf"^{row['name']} +(\d\.\d+) ", printed, re.MULTILINE):
            put(table, row["name"], accuracy=float(found[1]))


PARTS: dict[str, Callable[[Collector, Table], None]] = {
    "steps": steps, "ops": ops, "runs": runs, "footprint": footprint, "accuracy": accuracy,
}  # fmt: skip

ONE_THREAD = ("footprint", "accuracy")  # what their scripts use


def put(table: Table, name: str, **figures: Any) -> None:
    """Change a row's figures, rounded to four digits; its words stay."""
    row = next((row for row in table["rows"] if row["name"] == name), None)
    if row is None:
        row = {"name": name, "what": ""}
        table["rows"].append(row)
    row.update(rounded(figures))


def rounded(x: Any) -> Any:
    """Numbers with four significant digits, in nested dicts and lists."""
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    if isinstance(x, list):
        return [rounded(v) for v in x]
    return float(f"{x:.4g}") if isinstance(x, float) else x


def save(path: Path, results: Any) -> None:
    """Write the file, a row a line; an older one stays whole until the new one is."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(laid_out(results) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def laid_out(x: Any, depth: int = 0) -> str:
    """JSON that people read as well: dicts of tables and lists of rows are spread over lines."""
    if isinstance(x, dict) and depth < 3:
        lines = [f"{json.dumps(k)}: {laid_out(v, depth + 1)}" for k, v in x.items()]
        opening, closing = "{", "}"
    elif isinstance(x, list) and x and isinstance(x[0], dict):
        lines = [laid_out(v, depth + 1) for v in x]
        opening, closing = "[", "]"
    else:
        return json.dumps(x, ensure_ascii=False)
    indent = "\n" + " " * (depth + 1)
    return opening + indent + f",{indent}".join(lines) + indent[:-1] + closing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a trial, whose figures mean nothing")
    parser.add_argument("--dry-run", action="store_true", help="only say which commands would run")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE")
    args = parser.parse_args()
    if unknown := set(args.tables) - set(PARTS):
        parser.error(f"no table {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if args.quick and not args.dry_run and args.output.resolve() == RESULTS:
        parser.error("--quick needs --output: its figures are not for the file that is published")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    collector = Collector(args.threads, args.quick, args.dry_run)
    for name in args.tables or PARTS:
        PARTS[name](collector, results["tables"][name])
        if not args.dry_run:
            results["tables"][name] |= circumstances(1 if name in ONE_THREAD else args.threads)
            save(args.output, results)
            print(f"wrote {name} to {args.output}", flush=True)


def circumstances(threads: int) -> Table:
    """When and where: what every table says about itself."""
    import importlib.metadata

    import kilograd
    from kilograd.cli.bench.timing import machine

    found = {"kilograd": kilograd.__version__}
    for name in ("numpy", "numba", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    about = machine(threads)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {k: about.get(k) for k in ("processor", "cores", "threads", "system")},
        "versions": found,
    }


if __name__ == "__main__":
    main()

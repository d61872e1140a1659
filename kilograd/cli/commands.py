"""The ``kilograd`` command, and ``kilograd train``: from a dataset's name to trained weights and a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import kilograd as kg
from kilograd import datasets, nn
from kilograd.cli.bench.command import bench
from kilograd.cli.models import MODELS
from kilograd.cli.warmup import warmup
from kilograd.functions.sampling import get_rng_state, manual_seed, set_rng_state
from kilograd.train import checkpoint, loop
from kilograd.train.files import save_weights
from kilograd.train.progress import progress
from kilograd.utils.data import DataLoader
from kilograd.viz.training_curves import curves

DATASETS = {
    "digits": (lambda: (datasets.Digits(), datasets.Digits(train=False)), "cnn", 15, 64),
    "moons": (
        lambda: (
            datasets.Moons(1000, noise=0.1, random_state=0),
            datasets.Moons(500, noise=0.1, random_state=1),
        ),
        "mlp", 20, 32,
    ),
    "circles": (
        lambda: (
            datasets.Circles(1000, noise=0.05, factor=0.5, random_state=0),
            datasets.Circles(500, noise=0.05, factor=0.5, random_state=1),
        ),
        "mlp", 20, 32,
    ),
    "mnist": (
        lambda: (datasets.MNIST(download=True), datasets.MNIST(train=False, download=True)),
        "cnn", 5, 128,
    ),
}  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda p, lr: kg.optim.SGD(p, lr=0.01 if lr is None else lr, momentum=0.9),
    "adam": lambda p, lr: kg.optim.Adam(p, lr=1e-3 if lr is None else lr),
    "adamw": lambda p, lr: kg.optim.AdamW(p, lr=1e-3 if lr is None else lr),
    "rmsprop": lambda p, lr: kg.optim.RMSprop(p, lr=1e-3 if lr is None else lr),
    "adagrad": lambda p, lr: kg.optim.Adagrad(p, lr=1e-2 if lr is None else lr),
    "adadelta": lambda p, lr: kg.optim.Adadelta(p, lr=1.0 if lr is None else lr),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kg.__version__, prog_name="kilograd")
def cli() -> None:
    """kilograd: PyTorch you can read."""


cli.add_command(bench)
cli.add_command(warmup)


@cli.command()
@click.argument("dataset", type=click.Choice(list(DATASETS)), default="digits")
@click.option(
    "--model", type=click.Choice(list(MODELS)), help="Default: cnn for images, mlp for points."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training data, in all.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples a step.")
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate (default: the optimizer's usual).",
)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adam", show_default=True)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Weights, order and dropout follow from it.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results (default: runs/DATASET-MODEL).",
)
@click.option(
    "--resume",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Continue from a checkpoint.kg.",
)
@click.option(
    "--max-steps", type=click.IntRange(min=1), help="Stop after so many steps (for a quick try)."
)
def train(
    dataset: str, model: str | None, epochs: int | None, batch_size: int | None, lr: float | None,
    optimizer: str, seed: int, out: Path | None, resume: Path | None, max_steps: int | None,
) -> None:  # fmt: skip
    """Train a network on DATASET (digits by default; it needs no network) and save it."""
    if lr is not None and not math.isfinite(lr):
        raise click.BadParameter(f"{lr} is not a finite number", param_hint="--lr")
    load, usual_model, usual_epochs, usual_batch = DATASETS[dataset]
    settings = {
        "dataset": dataset,
        "model": model or usual_model,
        "batch_size": batch_size or usual_batch,
        "optimizer": optimizer,
        "seed": seed,
    }
    saved = None
    if resume is not None:
        try:
            saved = checkpoint.load_checkpoint(resume)
            missing = {"settings", "model", "optimizer", "rng", "epoch", "step", "history"} - set(
                saved
            )
            if missing:
                raise checkpoint.CheckpointError(f"{resume} lacks {', '.join(sorted(missing))}")
        except (checkpoint.CheckpointError, AttributeError, TypeError) as e:
            raise click.ClickException(str(e)) from None
        for key, value in settings.items():
            explicit = click.get_current_context().get_parameter_source(key)
            if explicit and explicit.name == "COMMANDLINE" and saved["settings"].get(key) != value:
                name = "DATASET" if key == "dataset" else f"--{key.replace('_', '-')}"
                raise click.ClickException(
                    f"{resume} was made with {name} {saved['settings'].get(key)}, "
                    f"not {value}: leave it out, or start a new run"
                )
        settings = saved["settings"]
        dataset = settings.get("dataset", dataset)
        if dataset not in DATASETS:
            raise click.ClickException(f"{resume}: this version has no dataset {dataset!r}")
        load, _, usual_epochs, _ = DATASETS[dataset]
    out = out or (resume.parent if resume else Path("runs") / f"{dataset}-{settings['model']}")
    try:
        trained = Run(load, settings, lr, out, saved)
        trained.fit(epochs or usual_epochs, max_steps)
    except (loop.NonFiniteError, ImportError, OSError, ValueError, RuntimeError) as e:
        raise click.ClickException(str(e)) from e


class Run:
    """One training run: its data, model, optimizer, history and files."""

    def __init__(
        self, load: Any, settings: dict[str, Any], lr: float | None, out: Path, saved: Any
    ) -> None:
        self.settings, self.out = settings, out
        self.console = Console(soft_wrap=True)
        self.train_set, self.test_set = load()
        self.classes = list(self.train_set.classes)
        generator = manual_seed(settings["seed"])
        shape = tuple(self.train_set[0][0].shape)
        self.model = MODELS[settings["model"]](shape, len(self.classes))
        self.optimizer = OPTIMIZERS[settings["optimizer"]](self.model.parameters(), lr)
        self.loader = DataLoader(
            self.train_set, settings["batch_size"], shuffle=True, generator=generator
        )
        self.test_loader = DataLoader(self.test_set, 256)
        self.loss = nn.CrossEntropyLoss()
        self.epoch = self.step = 0
        self.history: list[dict[str, float]] = []
        if saved is not None:
            try:
                self.model.load_state_dict(saved["model"])
                self.optimizer.load_state_dict(saved["optimizer"])
                set_rng_state(saved["rng"])
            except (KeyError, TypeError) as e:
                raise ValueError(f"the checkpoint does not fit this run: {e}") from e
            if lr is not None:
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
            self.epoch, self.step, self.history = saved["epoch"], saved["step"], saved["history"]

    def fit(self, epochs: int, max_steps: int | None) -> None:
        """Train to the given epoch, saving after each; then draw and print the results."""
        s = self.settings
        count = sum(p.numel() for p in self.model.parameters())
        self.console.print(
            f"[bold]{s['dataset']}[/]: {len(self.train_set):,} training and {len(self.test_set):,} test "
            f"samples; [bold]{s['model']}[/] with {count:,} parameters; {s['optimizer']}, batch "
            f"{s['batch_size']}, seed {s['seed']}"
        )
        if self.epoch >= epochs:
            self.console.print(
                f"The checkpoint is at epoch {self.epoch}; --epochs {epochs} is done."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        result = None
        while self.epoch < epochs and (max_steps is None or self.step < max_steps):
            result = self.one_epoch(epochs, max_steps)
        if result is None:
            result = loop.evaluate(self.model, self.loss, self.test_loader, len(self.classes))
        files = self.save_results()
        self.console.print(confusion_table(result.confusion, self.classes))
        self.console.print(
            f"test accuracy [bold green]{result.accuracy:.2%}[/], test loss {result.loss:.4f}; saved "
            + ", ".join(str(f) for f in files)
        )

    def one_epoch(self, epochs: int, max_steps: int | None) -> loop.Result:
        """Train one epoch under a progress bar, evaluate, and save the checkpoint."""
        label = f"epoch {self.epoch + 1}/{epochs}"
        bar = progress(self.loader, desc=label, leave=False)

        def show(step: int, loss: float, accuracy: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", acc=f"{accuracy:.2%}")

        with bar:
            seen, self.step = loop.train_epoch(
                self.model, self.loss, self.optimizer, bar, step=self.step,
                max_steps=max_steps, on_step=show,
            )  # fmt: skip
        result = loop.evaluate(self.model, self.loss, self.test_loader, len(self.classes))
        self.epoch += 1
        self.history.append(
            {"epoch": self.epoch, "train_loss": seen.loss, "train_accuracy": seen.accuracy,
             "test_loss": result.loss, "test_accuracy": result.accuracy}
        )  # fmt: skip
        self.console.print(
            f"{label}: train loss {seen.loss:.4f}, accuracy {seen.accuracy:.2%}; test loss "
            f"{result.loss:.4f}, accuracy {result.accuracy:.2%}"
        )
        checkpoint.save_checkpoint(self.out / "checkpoint.kg", {
            "settings": self.settings, "epoch": self.epoch, "step": self.step,
            "history": self.history, "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(), "rng": get_rng_state(),
        })  # fmt: skip
        return result

    def save_results(self) -> list[Path]:
        """Write the weights (safetensors) and the picture of the curves."""
        weights, picture = self.out / "weights.safetensors", self.out / "curves.png"
        save_weights(self.model, weights, metadata={"model": self.settings["model"]})
        files = [weights]
        if (self.out / "checkpoint.kg").exists():  # resumed at its last epoch, nothing is written
            files.append(self.out / "checkpoint.kg")
        if self.history:
            files.append(curves(self.history).save(picture))
        return files


def confusion_table(confusion: Any, classes: list[str]) -> Table:
    """True classes down, predicted classes across, and how many of each were found."""
    table = Table(title="test samples by true class (rows) and predicted class (columns)")
    table.add_column("", style="bold")
    for name in classes:
        table.add_column(name.split(" ")[0], justify="right")
    table.add_column("found", justify="right")
    for i, name in enumerate(classes):
        row = confusion[i]
        cells = [
            f"[green]{n}[/]" if i == j and n else f"[red]{n}[/]" if n else "·"
            for j, n in enumerate(row.tolist())
        ]
        table.add_row(name, *cells, f"{row[i] / max(row.sum(), 1):.1%}")
    return table

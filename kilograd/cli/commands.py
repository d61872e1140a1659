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
from kilograd.functions.sampling import manual_seed
from kilograd.train import (
    Batches,
    Callback,
    Checkpoint,
    CheckpointError,
    NonFiniteError,
    ProgressBar,
    Trainer,
    load_checkpoint,
)
from kilograd.train.files import save_weights
from kilograd.train.metrics import Accuracy, ConfusionMatrix
from kilograd.utils.data import DataLoader

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
@click.option("--compile", is_flag=True, help="Compile the training step (kg.compile).")
@click.option(
    "--max-steps", type=click.IntRange(min=1), help="Stop after so many steps (for a quick try)."
)
def train(
    dataset: str, model: str | None, epochs: int | None, batch_size: int | None, lr: float | None,
    optimizer: str, seed: int, out: Path | None, resume: Path | None, compile: bool,
    max_steps: int | None,
) -> None:  # fmt: skip
    """Train a network on DATASET (digits by default; it needs no network) and save it."""
    if lr is not None and not math.isfinite(lr):
        raise click.BadParameter(f"{lr} is not a finite number", param_hint="--lr")
    load, usual_model, usual_epochs, usual_batch = DATASETS[dataset]
    settings: dict[str, Any] = {
        "dataset": dataset,
        "model": model or usual_model,
        "batch_size": batch_size or usual_batch,
        "optimizer": optimizer,
        "seed": seed,
    }
    if resume is not None:
        saved = settings_of(resume)
        for key, value in settings.items():
            explicit = click.get_current_context().get_parameter_source(key)
            if explicit and explicit.name == "COMMANDLINE" and saved.get(key) != value:
                name = "DATASET" if key == "dataset" else f"--{key.replace('_', '-')}"
                raise click.ClickException(
                    f"{resume} was made with {name} {saved.get(key)}, "
                    f"not {value}: leave it out, or start a new run"
                )
        settings = {**settings, **saved}
        dataset = settings.get("dataset", dataset)
        if dataset not in DATASETS:
            raise click.ClickException(f"{resume}: this version has no dataset {dataset!r}")
        load, _, usual_epochs, _ = DATASETS[dataset]
    out = out or (resume.parent if resume else Path("runs") / f"{dataset}-{settings['model']}")
    try:
        trained = Run(load, settings, lr, out, resume, compile)
        trained.fit(epochs or usual_epochs, max_steps)
    except (NonFiniteError, ImportError, OSError, ValueError, RuntimeError) as e:
        raise click.ClickException(str(e)) from e


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint is of."""
    try:
        found = load_checkpoint(path)
    except CheckpointError as e:
        raise click.ClickException(str(e)) from None
    values = found.get("values") if isinstance(found, dict) else None
    settings = values.get("settings") if isinstance(values, dict) else None
    if not isinstance(settings, dict):
        raise click.ClickException(f"{path} was not written by kilograd train")
    return settings


class Run(Callback):
    """One training run: its data, model, trainer and files. After each epoch it saves and says so."""

    order = 30  # when the progress bar is gone

    def __init__(
        self, load: Any, settings: dict[str, Any], lr: float | None, out: Path, resume: Path | None,
        compile: bool,
    ) -> None:  # fmt: skip
        self.settings, self.out = settings, out
        self.console = Console(soft_wrap=True)
        self.train_set, self.test_set = load()
        self.classes = list(self.train_set.classes)
        generator = manual_seed(settings["seed"])
        shape = tuple(self.train_set[0][0].shape)
        model = MODELS[settings["model"]](shape, len(self.classes))
        optimizer = OPTIMIZERS[settings["optimizer"]](model.parameters(), lr)
        size = settings["batch_size"]
        loader = DataLoader(self.train_set, size, shuffle=True, generator=generator)
        self.bar = ProgressBar(leave=False)
        self.trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, metrics={"accuracy": Accuracy()},
            callbacks=[self.bar, self], compile=compile,
        )  # fmt: skip
        self.trainer.batches = Batches(loader)
        self.checkpoint = Checkpoint(**self.trainer.parts())
        if resume is not None:
            self.checkpoint.load(resume)
            if lr is not None:
                for group in optimizer.param_groups:
                    group["lr"] = lr

    def fit(self, epochs: int, max_steps: int | None) -> None:
        """Train to the given epoch, saving after each; then draw and print the results."""
        s, trainer = self.settings, self.trainer
        count = sum(p.numel() for p in trainer.model.parameters())
        self.console.print(
            f"[bold]{s['dataset']}[/]: {len(self.train_set):,} training and {len(self.test_set):,} test "
            f"samples; [bold]{s['model']}[/] with {count:,} parameters; {s['optimizer']}, batch "
            f"{s['batch_size']}, seed {s['seed']}"
        )
        if trainer.epoch >= epochs:
            self.console.print(
                f"The checkpoint is at epoch {trainer.epoch}; --epochs {epochs} is done."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        self.epochs = self.bar.epochs = epochs
        test = DataLoader(self.test_set, 256)
        assert trainer.batches is not None
        trainer.fit(trainer.batches, test, epochs=epochs, max_steps=max_steps)
        confusion = ConfusionMatrix(num_classes=len(self.classes))
        found = trainer.evaluate(test, metrics={"accuracy": Accuracy(), "confusion": confusion})
        files = self.save_results()
        self.console.print(confusion_table(found["confusion"], self.classes))
        self.console.print(
            f"test accuracy [bold green]{found['accuracy']:.2%}[/], test loss {found['loss']:.4f}; saved "
            + ", ".join(str(f) for f in files)
        )

    def on_epoch_end(self, trainer: Trainer) -> None:
        row = trainer.row
        self.console.print(
            f"epoch {trainer.epoch}/{self.epochs}: train loss {row['train_loss']:.4f}, accuracy "
            f"{row['train_accuracy']:.2%}; test loss {row['val_loss']:.4f}, accuracy "
            f"{row['val_accuracy']:.2%}"
        )
        self.checkpoint.save(self.out / "checkpoint.kg", settings=self.settings)

    def save_results(self) -> list[Path]:
        """Write the weights (safetensors) and the picture of the curves."""
        weights, picture = self.out / "weights.safetensors", self.out / "curves.png"
        save_weights(self.trainer.model, weights, metadata={"model": self.settings["model"]})
        files = [weights]
        if (self.out / "checkpoint.kg").exists():  # resumed at its last epoch, nothing is written
            files.append(self.out / "checkpoint.kg")
        if self.trainer.history:
            files.append(self.trainer.plot().save(picture))
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

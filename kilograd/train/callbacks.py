"""What happens around the steps of a :class:`Trainer`: stopping early, keeping the best, schedules, logs."""

from __future__ import annotations

import copy
import csv
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilograd.train.checkpoint import Checkpoint
from kilograd.train.files import file_form, save
from kilograd.train.history import direction, is_number
from kilograd.train.manager import CheckpointManager
from kilograd.train.progress import Progress, progress
from kilograd.train.replacing import atomic_write

if TYPE_CHECKING:
    from kilograd.train.trainer import Trainer

Path_ = str | os.PathLike[str]


class Callback:
    """Is told what a trainer does; it may read and change everything, and call ``trainer.stop()``.

    A subclass defines some of the methods. ``trainer.row`` is what this epoch has measured, and what a
    callback adds to it in ``on_epoch_end`` goes into the history. Callbacks are told in the order in
    which they were given (those of a higher :attr:`order` later).

    >>> class Patience(Callback):
    ...     def on_epoch_end(self, trainer):
    ...         if trainer.row["train_loss"] < 0.1:
    ...             trainer.stop()
    """

    order = 0

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch of a call of ``fit``."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before an epoch; after ``stop()`` it is not begun."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After a step of the optimizer."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch and its evaluation."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, not after an exception."""

    def close(self, trainer: Trainer) -> None:
        """At the end of ``fit`` in any case, also after an exception or Ctrl-C."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; only of subclasses that define this."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


def as_callback(given: Any) -> Callback:
    """A callback as it is; a function as one that calls it after each epoch.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Callback):
        return given
    if callable(given) and not isinstance(given, type):
        return EachEpoch(given)
    hint = ": wrap it, Schedule(scheduler)" if hasattr(given, "get_last_lr") else ""
    raise TypeError(f"a callback is a Callback or a function, not {given!r}{hint}")


class EachEpoch(Callback):
    """Calls ``fn(trainer)`` after each epoch."""

    def __init__(self, fn: Callable[[Trainer], Any]) -> None:
        self.fn = fn

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.fn(trainer)


# --- the best epoch -----------------------------------------------------------------------------------


class BestModel(Callback):
    """Keeps the weights of the epoch in which a value was best.

    Args:
        path: a file (``.safetensors`` or ``.npz``) to write them to each time; None: none.
        monitor: the value, such as ``"val_accuracy"``.
        mode: "min" or "max"; by default the name says it.
        min_delta: how much better is better.
        restore: whether the model gets them at the end of ``fit``.

    Attributes:
        best: the best value so far, or None.
        epoch: its epoch.

    Raises:
        ValueError: the value was not measured, or nothing says whether more of it is better.
    """

    def __init__(
        self, path: Path_ | None = None, *, monitor: str = "val_loss", mode: str | None = None,
        min_delta: float = 0.0, restore: bool = True,
    ) -> None:  # fmt: skip
        if min_delta < 0:
            raise ValueError(f"min_delta must not be negative, got {min_delta!r}")
        if path is not None and file_form(path) == "npy":
            raise ValueError(f"{path}: an .npy file holds one tensor, not a model's weights")
        self.path, self.monitor, self.restore = path, monitor, restore
        self.sign, self.min_delta = direction(monitor, mode), min_delta
        self.best: float | None = None
        self.epoch = self.waited = 0
        self.weights: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        _folder_of(self.path)
        self.best, self.weights = None, None
        self.epoch = self.waited = 0

    def on_epoch_end(self, trainer: Trainer) -> None:
        value = measured(trainer, self.monitor, type(self).__name__)
        self.waited += 1
        if not is_number(value):
            return
        if self.best is None or self.sign * (value - self.best) > self.min_delta:
            self.best, self.epoch, self.waited = value, trainer.epoch, 0
            weights = trainer.model.state_dict()
            if self.restore:
                self.weights = {k: copy.deepcopy(_bare(v)) for k, v in weights.items()}
            if self.path is not None:
                save(dict(weights), self.path, metadata={self.monitor: repr(value)})

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.restore and self.weights is not None:
            trainer.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        names = ("monitor", "sign", "best", "epoch", "waited", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state["monitor"], state["sign"]) != (self.monitor, self.sign):
            raise ValueError(
                f"{type(self).__name__} has watched {state['monitor']!r} in the run saved, here it "
                f"watches {self.monitor!r}"
                + (", the other way" * (state["monitor"] == self.monitor))
            )
        vars(self).update(state)


class EarlyStopping(BestModel):
    """Ends training when a value has not become better for some epochs; keeps the best weights.

    Args:
        patience: how many epochs it may take.
        monitor: the value.
        mode: "min" or "max"; by default the name says it.
        min_delta: how much better is better.
        restore: whether the model gets the best weights at the end.
        path: a file for them, as for :class:`BestModel`.

    Raises:
        ValueError: as for :class:`BestModel`; a patience below 1.
    """

    def __init__(
        self, patience: int = 5, *, monitor: str = "val_loss", mode: str | None = None,
        min_delta: float = 0.0, restore: bool = True, path: Path_ | None = None,
    ) -> None:  # fmt: skip
        if patience < 1:
            raise ValueError(f"patience is a number of epochs, at least 1, got {patience!r}")
        super().__init__(path, monitor=monitor, mode=mode, min_delta=min_delta, restore=restore)
        self.patience = patience

    def on_epoch_start(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:  # a run that was resumed where it had ended
            trainer.stop()

    def on_epoch_end(self, trainer: Trainer) -> None:
        super().on_epoch_end(trainer)
        if self.waited >= self.patience:
            trainer.stop()


def measured(trainer: Trainer, name: str, who: str) -> Any:
    """A value of this epoch.

    Raises:
        ValueError: there is none of the name.
    """
    if name not in trainer.row:
        hint = "; give fit() validation batches" if name.startswith("val_") else ""
        raise ValueError(
            f"{who} watches {name!r}, which was not measured{hint}. There are {', '.join(trainer.row)}"
        )
    return trainer.row[name]


def _folder_of(path: Path_ | None) -> None:
    """Raise FileNotFoundError if the folder of a file to be written is not there."""
    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {Path(path).parent}")


def _bare(value: Any) -> Any:
    return value.detach() if hasattr(value, "detach") else value


# --- schedules ----------------------------------------------------------------------------------------


class Schedule(Callback):
    """Steps a learning-rate scheduler; the history gets the learning rate of each epoch as "lr".

    Args:
        scheduler: of ``optim.lr_scheduler``, kilograd's or PyTorch's.
        every: "epoch" or "step".
        monitor: the value to give it, for ReduceLROnPlateau ("val_loss" by default).

    Raises:
        ValueError: another ``every``; the value was not measured.
    """

    def __init__(self, scheduler: Any, every: str = "epoch", monitor: str | None = None) -> None:
        if every not in ("epoch", "step"):
            raise ValueError(f"every is 'epoch' or 'step', got {every!r}")
        if type(scheduler).__name__ == "ReduceLROnPlateau":
            monitor = monitor or "val_loss"
            if every == "step":
                raise ValueError("ReduceLROnPlateau looks at a value of each epoch: every='epoch'")
        self.scheduler, self.every, self.monitor = scheduler, every, monitor

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every == "step":
            self.scheduler.step()

    def on_epoch_end(self, trainer: Trainer) -> None:
        # of another schedule before this one: what the epoch was trained with
        trainer.row.setdefault("lr", float(trainer.optimizer.param_groups[0]["lr"]))
        if self.monitor is not None:
            self.scheduler.step(measured(trainer, self.monitor, type(self.scheduler).__name__))
        elif self.every == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {"type": type(self.scheduler).__name__, "state": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (kind := type(self.scheduler).__name__) != state["type"]:
            raise ValueError(f"the run saved has the schedule {state['type']}, this one {kind}")
        self.scheduler.load_state_dict(state["state"])


# --- checkpoints --------------------------------------------------------------------------------------


class Checkpoints(Callback):
    """Saves the whole run as it goes, and goes on from the newest checkpoint when it is begun again.

    Model, optimizer, the place among the batches, counters, history, other callbacks and all random
    generators are saved, so that a run that was killed gives the same numbers as one that was not
    (when exactly: see :class:`Checkpoint`; with ``compile``, the first step with each size of batch is
    eager, so that a run which was stopped in its first epochs may differ in the last bits).

    Args:
        folder: where to; or a :class:`CheckpointManager`.
        every: "epoch", or a number of steps, for long epochs.
        resume: whether a trainer that has not been trained goes on from the newest checkpoint in the
            folder, if there is one. (One that has been goes on from where it is.)
        keep_last: how many of the newest stay.
        keep_best: how many of the best stay besides.
        monitor: the value by which they are good.
        mode: "min" or "max"; by default the name says it.
        parts: what else to save and load, by name: anything with ``state_dict`` and
            ``load_state_dict``, or a random generator.

    Raises:
        ValueError: the checkpoint does not fit; or the optimizer has a parameter that no part saves.
    """

    order = 10  # when the others are done with the epoch

    def __init__(
        self, folder: Path_ | CheckpointManager, *, every: int | str = "epoch", resume: bool = True,
        keep_last: int | None = 3, keep_best: int = 1, monitor: str = "val_loss",
        mode: str | None = None, parts: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if every != "epoch" and (not isinstance(every, int) or every < 1):
            raise ValueError(f"every is 'epoch' or a number of steps, got {every!r}")
        if isinstance(folder, CheckpointManager):
            self.manager = folder
        else:
            self.manager = CheckpointManager(
                folder, keep_last=keep_last, keep_best=keep_best, monitor=monitor,
                mode="max" if direction(monitor, mode) > 0 else "min",
            )  # fmt: skip
        self.every, self.resume, self.parts = every, resume, parts or {}

    def on_fit_start(self, trainer: Trainer) -> None:
        parts = {**trainer.parts(), **self.parts}
        modules = [part for part in parts.values() if hasattr(part, "parameters")]
        saved = {id(p) for module in modules for p in module.parameters()}
        if any(id(p) not in saved for g in trainer.optimizer.param_groups for p in g["params"]):
            raise ValueError(
                "Checkpoints: the optimizer has a parameter that is neither the model's nor the "
                "loss's: put it in a Module, and give Checkpoints(…, parts={'name': module})"
            )
        self.manager.checkpoint = Checkpoint(**parts)
        if self.resume and not trainer.step and self.manager.entries:
            self.manager.resume()
            if trainer.compile:
                trainer.rehearse()
                self.manager.resume()

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every != "epoch" and trainer.step % self.every == 0:  # type: ignore[operator]
            self.manager.save(epoch=trainer.epoch, step=trainer.step)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.manager.save(trainer.row)


# --- logs ---------------------------------------------------------------------------------------------


class CSVLog(Callback):
    """Writes the history as a table, one line an epoch; after each epoch the whole file is new.

    Args:
        path: the file. A run that is resumed writes its earlier epochs too.
    """

    order = 1  # when the others have added what they measure

    def __init__(self, path: Path_) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer) -> None:
        _folder_of(self.path)

    def on_epoch_end(self, trainer: Trainer) -> None:
        text = io.StringIO(newline="")
        numbers = [k for k in trainer.history if not any(map(_is_array, trainer.history[k]))]
        table = csv.DictWriter(text, numbers, extrasaction="ignore")
        table.writeheader()
        table.writerows(trainer.history.rows)
        with atomic_write(self.path) as f:
            f.write(text.getvalue().encode())


def _is_array(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


class TensorBoardLog(Callback):
    """Writes each epoch's values for TensorBoard; "train_loss" and "val_loss" share a chart.

    Args:
        folder: where the event files go.
        every: also the mean loss of the epoch so far, each so many steps; None: not.

    Raises:
        ImportError: tensorboardX is not installed.
    """

    order = 1

    def __init__(self, folder: Path_, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is a number of steps, at least 1, or None; got {every!r}")
        self.folder, self.every = folder, every
        self.writer: Any = None

    def _written(self) -> Any:
        if self.writer is None:
            from kilograd.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(Path(self.folder)))
        return self.writer

    def on_fit_start(self, trainer: Trainer) -> None:
        self._written()

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            self._written().add_scalar("loss/step", trainer.loss_so_far, trainer.step)

    def on_epoch_end(self, trainer: Trainer) -> None:
        for name, value in trainer.row.items():
            if name not in ("epoch", "step") and isinstance(value, (int, float)):
                part, _, what = name.partition("_")
                tag = f"{what}/{part}" if part in ("train", "val") and what else name
                self._written().add_scalar(tag, value, trainer.epoch)
        self._written().flush()

    def close(self, trainer: Trainer) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class ProgressBar(Callback):
    """A bar for each epoch, where a person is looking; :meth:`Trainer.fit` adds one by itself.

    Args:
        show: True draws it in any case, False never.
        epochs: how many there are, for the text before the bar.
        leave: whether the finished bars stay.
    """

    order = 20

    def __init__(
        self, show: bool | None = None, epochs: int | None = None, leave: bool = True
    ) -> None:
        self.show, self.epochs, self.leave = show, epochs, leave
        self.bar: Progress[Any] | None = None

    def on_epoch_start(self, trainer: Trainer) -> None:
        of = f"/{self.epochs}" if self.epochs else ""
        text = f"epoch {trainer.epoch + 1}{of}"
        self.bar = progress(trainer.batches, desc=text, show=self.show, leave=self.leave)
        self.at, self.told = 0, 0.0

    def on_step_end(self, trainer: Trainer) -> None:
        bar = self.bar
        if bar is None or not bar.visible:
            return
        bar.update(trainer.batch - self.at)
        self.at = trainer.batch
        if time.monotonic() - self.told > 0.1:
            self.told = time.monotonic()
            bar.set_postfix(loss=trainer.loss_so_far)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.bar is not None:
            words = {
                k: v for k, v in trainer.row.items() if isinstance(v, float) and k != "seconds"
            }
            self.bar.set_postfix(**words)
        self.close(trainer)

    def close(self, trainer: Trainer) -> None:
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.close()

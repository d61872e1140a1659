"""Training: the loop, evaluation, callbacks, checkpoints, progress bars."""

from kilograd.train.batches import Batches
from kilograd.train.callbacks import (
    BestModel,
    Callback,
    Checkpoints,
    CSVLog,
    EarlyStopping,
    ProgressBar,
    Schedule,
    TensorBoardLog,
)
from kilograd.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from kilograd.train.history import History
from kilograd.train.manager import CheckpointManager
from kilograd.train.nonfinite import NonFiniteError
from kilograd.train.trainer import Trainer
from kilograd.utils.randomness import rng_state, set_rng_state

__all__ = [
    "Batches", "BestModel", "CSVLog", "Callback", "Checkpoint", "CheckpointError",
    "CheckpointManager", "Checkpoints", "EarlyStopping", "History", "NonFiniteError", "ProgressBar",
    "Schedule", "TensorBoardLog", "Trainer", "load_checkpoint", "rng_state", "save_checkpoint",
    "set_rng_state",
]  # fmt: skip

_OF_SKLEARN = ("KilogradClassifier", "KilogradRegressor")  # their bases are scikit-learn's classes


def __getattr__(name: str) -> object:
    if name not in _OF_SKLEARN:
        raise AttributeError(f"module 'kilograd.train' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module("kilograd.train.estimators"), name)
    except ImportError as e:
        if (e.name or "").partition(".")[0] != "sklearn":
            raise
        raise ImportError(
            f"{name} needs scikit-learn 1.6 or newer: pip install 'kilograd[data]'"
        ) from e


def __dir__() -> list[str]:
    return sorted({*globals(), *_OF_SKLEARN})

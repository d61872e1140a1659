"""Training: the loop, evaluation, callbacks, checkpoints, progress bars, estimators.

Each part is loaded when it is first asked for: to read a model's weights takes no training loop.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kilograd.train.batches import Batches as Batches
    from kilograd.train.callbacks import BestModel as BestModel
    from kilograd.train.callbacks import Callback as Callback
    from kilograd.train.callbacks import Checkpoints as Checkpoints
    from kilograd.train.callbacks import CSVLog as CSVLog
    from kilograd.train.callbacks import EarlyStopping as EarlyStopping
    from kilograd.train.callbacks import ProgressBar as ProgressBar
    from kilograd.train.callbacks import Schedule as Schedule
    from kilograd.train.callbacks import TensorBoardLog as TensorBoardLog
    from kilograd.train.checkpoint import Checkpoint as Checkpoint
    from kilograd.train.checkpoint import CheckpointError as CheckpointError
    from kilograd.train.checkpoint import load_checkpoint as load_checkpoint
    from kilograd.train.checkpoint import save_checkpoint as save_checkpoint
    from kilograd.train.estimators import KilogradClassifier as KilogradClassifier
    from kilograd.train.estimators import KilogradRegressor as KilogradRegressor
    from kilograd.train.history import History as History
    from kilograd.train.manager import CheckpointManager as CheckpointManager
    from kilograd.train.nonfinite import NonFiniteError as NonFiniteError
    from kilograd.train.trainer import Trainer as Trainer
    from kilograd.utils.randomness import rng_state as rng_state
    from kilograd.utils.randomness import set_rng_state as set_rng_state

__all__ = [
    "Batches", "BestModel", "CSVLog", "Callback", "Checkpoint", "CheckpointError",
    "CheckpointManager", "Checkpoints", "EarlyStopping", "History", "NonFiniteError", "ProgressBar",
    "Schedule", "TensorBoardLog", "Trainer", "load_checkpoint", "rng_state", "save_checkpoint",
    "set_rng_state",
]  # fmt: skip

_WHERE = {
    name: room
    for room, names in {
        "train.batches": "Batches",
        "train.callbacks": "BestModel Callback Checkpoints CSVLog EarlyStopping ProgressBar Schedule "
        "TensorBoardLog",
        "train.checkpoint": "Checkpoint CheckpointError load_checkpoint save_checkpoint",
        "train.estimators": "KilogradClassifier KilogradRegressor",  # not in __all__: scikit-learn's
        "train.history": "History",
        "train.manager": "CheckpointManager",
        "train.nonfinite": "NonFiniteError",
        "train.trainer": "Trainer",
        "utils.randomness": "rng_state set_rng_state",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        if name.startswith("_") or not importlib.util.find_spec(f"kilograd.train.{name}"):
            raise AttributeError(f"module 'kilograd.train' has no attribute {name!r}")
        return importlib.import_module(f"kilograd.train.{name}")  # kg.train.metrics and the like
    try:
        found = getattr(importlib.import_module(f"kilograd.{_WHERE[name]}"), name)
    except ImportError as e:
        if (e.name or "").partition(".")[0] != "sklearn":
            raise
        raise ImportError(
            f"{name} needs scikit-learn 1.6 or newer: pip install 'kilograd[data]'"
        ) from e
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

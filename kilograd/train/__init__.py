"""Training: the loop, evaluation, checkpoints, progress bars."""

from kilograd.train.batches import Batches
from kilograd.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from kilograd.train.loop import NonFiniteError, Result, evaluate, train_epoch
from kilograd.train.manager import CheckpointManager
from kilograd.train.randomness import rng_state, set_rng_state

__all__ = [
    "Batches", "Checkpoint", "CheckpointError", "CheckpointManager", "NonFiniteError", "Result",
    "evaluate", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state", "train_epoch",
]  # fmt: skip

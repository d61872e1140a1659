"""Training: the loop, evaluation, checkpoints, progress bars."""

from kilograd.train.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kilograd.train.loop import NonFiniteError, Result, evaluate, train_epoch

__all__ = [
    "CheckpointError", "NonFiniteError", "Result", "evaluate", "load_checkpoint",
    "save_checkpoint", "train_epoch",
]  # fmt: skip

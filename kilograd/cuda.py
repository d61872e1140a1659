"""What scripts ask of ``torch.cuda`` before they choose a device: there is none, and it says so."""

from __future__ import annotations


def is_available() -> bool:
    """False: kilograd computes on the CPU."""
    return False


def device_count() -> int:
    """The number of GPUs kilograd uses: 0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: there is no GPU generator (``kg.manual_seed`` seeds the CPU's)."""


def manual_seed_all(seed: int) -> None:
    """Nothing: there is no GPU generator (``kg.manual_seed`` seeds the CPU's)."""


def empty_cache() -> None:
    """Nothing: there is no GPU memory."""


def synchronize(device: object = None) -> None:
    """Nothing: every operation has finished when it returns."""

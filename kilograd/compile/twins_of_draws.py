"""Native forms of random draws: the kernels take their words from the generator's own state."""

from __future__ import annotations

from typing import Any

from kilograd import random
from kilograd.kernels.native import draws
from kilograd.kernels.native.plan import twin


def _state(generator: random.Generator) -> int:
    """Where a generator's words lie in memory."""
    return generator._twister.ctypes.state_address


@twin(random.dropout_mask.__wrapped__)  # type: ignore[attr-defined]
def dropout_mask(plan: Any, generator: Any, size: Any, p: float, dtype: Any = "float32") -> Any:
    """The native form of ``random.dropout_mask``."""
    if not 0 < p < 1 or type(p) is not float:
        return NotImplemented
    return draws.dropout_mask(plan, _state(generator), random._shape(size), p, dtype)


@twin(random.uniform.__wrapped__)  # type: ignore[attr-defined]
def uniform(
    plan: Any, generator: Any, size: Any, low: Any = 0.0, high: Any = 1.0, dtype: Any = "float32"
) -> Any:
    """The native form of ``random.uniform``."""
    if not (type(low) in (int, float) and type(high) in (int, float)) or dtype not in draws.FLOATS:
        return NotImplemented
    return draws.uniform(
        plan, _state(generator), random._shape(size), float(low), float(high), dtype
    )

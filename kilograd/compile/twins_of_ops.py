"""Native versions of whole ops and of random draws, for the compiler's table of twins.

``kernels/native`` stands below ``ops`` and ``random`` and cannot name them; here the two meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd import random
from kilograd.kernels.native import attention, draws, indexing, recurrent
from kilograd.kernels.native.plan import TWINS, twin
from kilograd.ops import rnn

TWINS[rnn.rnn.forward] = recurrent.rnn
TWINS[rnn.lstm.forward] = recurrent.lstm
TWINS[rnn.gru.forward] = recurrent.gru
TWINS[rnn.rnn.derivatives[0].rule] = recurrent.rnn_gradient
TWINS[rnn.lstm.derivatives[0].rule] = recurrent.lstm_gradient
TWINS[rnn.gru.derivatives[0].rule] = recurrent.gru_gradient

assert attention and indexing  # they declare theirs themselves


def _state_of(plan: Any, generator: Any) -> int | None:
    """The address of a generator's state, if the plan can see to its lock and its flag."""
    announce = getattr(plan, "draws_from", None)
    if announce is None:
        return None
    generator = generator or random.default_generator
    announce(generator)
    return int(generator._twister.ctypes.state_address)


@twin(random.dropout_mask)
def dropout_mask(plan: Any, generator: Any, size: Any, p: float, dtype: Any = np.float32) -> Any:
    """``random.dropout_mask``."""
    state = _state_of(plan, generator)
    if state is None or not isinstance(p, (int, float)):
        return NotImplemented
    shape = (size,) if isinstance(size, int) else tuple(size)
    return draws.dropout_mask(plan, state, shape, p, dtype)


@twin(random.uniform)
def uniform(
    plan: Any, generator: Any, size: Any, low: float = 0.0, high: float = 1.0,
    dtype: Any = np.float32,
) -> Any:  # fmt: skip
    """``random.uniform``."""
    state = _state_of(plan, generator)
    if state is None or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return NotImplemented
    shape = (size,) if isinstance(size, int) else tuple(size)
    return draws.uniform(plan, state, shape, low, high, dtype)

"""Constants of the float32 logarithm, sine and cosine that normal random numbers are made with.

Argument reductions and polynomials of Cephes (Moshier, 1989), in the order in which PyTorch's vector code
uses them: ``kilograd/random.py`` does in NumPy and ``native/draws.py`` in native code the same arithmetic.
"""

from __future__ import annotations

import numpy as np


def _float32(*constants: float) -> tuple[float, ...]:
    return tuple([float(np.float32(c)) for c in constants])


LOG = _float32(
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
COS = _float32(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SIN = _float32(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
LOG2_HIGH, LOG2_LOW = _float32(0.693359375, -2.12194440e-4)
QUARTER_PI = _float32(0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)
SQRT_HALF_BITS = np.int32(0x3F3504F3)

"""The tiled matrix product against NumPy in float64."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from kilograd.kernels.native import build

if not build.available():
    pytest.skip(build.why_not(), allow_module_level=True)

from kilograd.kernels.native import gemm, matmul
from kilograd.kernels.native.plan import AtOnce


class InParts(AtOnce):
    """Runs every kernel as several threads would, one after the other; scratch begins as nan."""

    def __init__(self, parts):
        self.parts = parts

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype)

    def call(self, kernel, *args, dtype, work=0):
        table = kernel.pack(args, dtype)
        run = build._c_function(kernel.address(dtype))
        for part in range(self.parts):
            run(table.ctypes.data, part, self.parts)


def operand(rng, rows, columns, transposed, dtype, pad):
    """A matrix (rows, columns) as a BLAS takes it: where it begins, its form, and its values.

    Around it lies nan, so that whatever is read beside it shows.
    """
    stored = (columns, rows) if transposed else (rows, columns)
    memory = np.full((stored[0] + 1, stored[1] + pad), np.nan, dtype)
    x = memory[: stored[0], pad // 2 : pad // 2 + stored[1]]
    x[...] = rng.standard_normal(stored)
    return x, int(transposed), memory.shape[1], x.T if transposed else x


def check(m, n, k, ta, tb, turned, dtype=np.float32, parts=1, pad=0, seed=0):
    rng = np.random.default_rng(seed)
    a, fa, lda, left = operand(rng, m, k, ta, dtype, pad)
    b, fb, ldb, right = operand(rng, k, n, tb, dtype, pad)
    memory = np.full((m + 2, n + pad), np.nan, dtype)
    c = memory[1 : m + 1, pad // 2 : pad // 2 + n]
    args = (a, fa, lda, b, fb, ldb, c, memory.shape[1], m, n, k)
    if turned is None:
        matmul.lower(InParts(parts), *args)
    else:
        gemm.lower(InParts(parts), *args, turned)
    expected = left.astype(np.float64) @ right.astype(np.float64)
    tolerance = (2e-6 if dtype == np.float32 else 1e-14) * max(1, k) ** 0.5 * 3
    np.testing.assert_allclose(c, expected, rtol=0, atol=tolerance)
    inside = np.zeros(memory.shape, bool)
    inside[1 : m + 1, pad // 2 : pad // 2 + n] = True
    assert np.isnan(memory[~inside]).all()  # nothing is written beside C
    return c.copy()


FORMS = [(ta, tb, turned) for ta in (0, 1) for tb in (0, 1) for turned in (False, True)]
EACH_FORM = pytest.mark.parametrize(("ta", "tb", "turned"), FORMS)


@EACH_FORM
def test_all_remainders(ta, tb, turned):
    draw = random.Random(ta + 2 * tb)
    for m in range(1, 41):
        for n in range(1, 41):
            k, pad = draw.randint(1, 40), draw.choice((0, 0, 3, 16))
            check(m, n, k, ta, tb, turned, pad=pad, parts=draw.choice((1, 1, 2, 3)))


@EACH_FORM
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sizes_of_several_blocks(ta, tb, turned, dtype):
    draw = random.Random(1)
    sizes = [1, 2, 15, 16, 17, 47, 48, 49, 63, 64, 65, 100, 127, 128, 129, 200, 257, 300]
    for seed in range(40):
        m, n, k = (draw.choice(sizes) for _ in range(3))
        check(m, n, k, ta, tb, turned, dtype, draw.choice((1, 2, 5)), draw.choice((0, 5)), seed)


@EACH_FORM
def test_wide_and_deep(ta, tb, turned):
    for m, n, k in ((3, 2100, 5), (2100, 3, 5), (7, 1030, 300), (5, 6, 3000), (1, 1, 1000)):
        check(m, n, k, ta, tb, turned, pad=1)


@EACH_FORM
@pytest.mark.parametrize("parts", [2, 3, 16, 20])
def test_parts_do_not_change_a_result(ta, tb, turned, parts):
    for m, n, k in ((64, 200, 150), (200, 64, 150), (33, 17, 260), (4, 5, 6), (1, 300, 9)):
        one = check(m, n, k, ta, tb, turned)
        assert np.array_equal(check(m, n, k, ta, tb, turned, parts=parts), one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_chosen(dtype):
    for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for m, n, k in ((1, 1, 1), (64, 300, 200), (300, 64, 200), (256, 256, 64), (8, 9, 1000)):
            check(m, n, k, ta, tb, None, dtype)


def test_not_a_number_stays_where_it_is():
    a, b, c = np.ones((20, 30), "f"), np.ones((30, 50), "f"), np.empty((20, 50), "f")
    a[3, 4], b[5, 6] = np.nan, np.inf
    gemm.lower(InParts(1), a, 0, 30, b, 0, 50, c, 50, 20, 50, 30, False)
    assert np.array_equal(c, a @ b, equal_nan=True)


OTHER = """
from kilograd.kernels.native import gemm, vectors
vectors.machine = gemm.machine = lambda: {machine}
from tests.test_native_gemm import FORMS, check
for form in FORMS:
    for m, n, k in ((1, 1, 1), (7, 9, 11), (64, 33, 130), (20, 70, 5), (50, 17, 129)):
        check(m, n, k, *form, pad=2)
"""


@pytest.mark.parametrize("machine", [(32, False), (16, True)])
def test_vectors_of_other_machines(machine):
    env = os.environ | {"KILOGRAD_CACHE": ""}  # compiled for this machine, but not as it would be
    code = OTHER.format(machine=machine)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=120)


def test_only_what_was_measured_is_chosen(monkeypatch):
    monkeypatch.setattr(gemm, "machine", lambda: (32, False))
    assert gemm.choose(0, 1, 64, 1024, 1024) == "blas"
    monkeypatch.setattr(gemm, "machine", lambda: (64, True))
    assert gemm.choose(0, 1, 64, 1024, 1024) == "turned"
    assert gemm.choose(0, 0, 64, 1024, 1024) == gemm.choose(1, 0, 1024, 1024, 64) == "tiled"
    assert gemm.choose(0, 1, 64, 10, 100) == gemm.choose(0, 0, 1, 1024, 1024) == "blas"

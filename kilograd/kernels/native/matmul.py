"""Matrix products: OpenBLAS called from native code, and loops where it would cost more than it does."""

from __future__ import annotations

from typing import Any

from kilograd.kernels.native import gemm as tiled
from kilograd.kernels.native.build import T, gemm, native, share

SMALL = 4096  # multiplications below which a plain loop is quicker than a call of BLAS


def lower(
    plan: Any, a: Any, ta: int, lda: int, b: Any, tb: int, ldb: int, c: Any, ldc: int,
    m: int, n: int, k: int,
) -> None:  # fmt: skip
    """Plan C (m, n) = A (m, k) B (k, n), by whichever way is quicker."""
    way = tiled.choose(ta, tb, m, n, k)
    if way == "blas":
        plan.call(
            product, a, ta, lda, b, tb, ldb, c, ldc, m, n, k, dtype=c.dtype, work=m * n * k // 8
        )
    else:
        tiled.lower(plan, a, ta, lda, b, tb, ldb, c, ldc, m, n, k, way == "turned")


@native("T* a, i64 ta, i64 lda, T* b, i64 tb, i64 ldb, T* c, i64 ldc, i64 m, i64 n, i64 k")
def product(
    a: Any, ta: int, lda: int, b: Any, tb: int, ldb: int, c: Any, ldc: int, m: int, n: int, k: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """C (m, n) = A (m, k) B (k, n); threads share the rows, or the columns if there are more."""
    if m >= n:
        lo, hi = share(m, part, parts)
        if hi > lo:
            a_at = lo if ta == 1 else lo * lda
            gemm(ta, tb, hi - lo, n, k, T(1.0), a, a_at, lda, b, 0, ldb, T(0.0), c, lo * ldc, ldc)
    else:
        lo, hi = share(n, part, parts)
        if hi > lo:
            b_at = lo * ldb if tb == 1 else lo
            gemm(ta, tb, m, hi - lo, k, T(1.0), a, 0, lda, b, b_at, ldb, T(0.0), c, lo, ldc)


@native(
    "T* a, i64 ta, i64 lda, i64 a0, i64 a1, T* b, i64 tb, i64 ldb, i64 b0, i64 b1, T* c, i64 ldc, "
    "i64 c0, i64 c1, i64 n0, i64 n1, i64 m, i64 n, i64 k"
)
def products(
    a: Any, ta: int, lda: int, a0: int, a1: int, b: Any, tb: int, ldb: int, b0: int, b1: int,
    c: Any, ldc: int, c0: int, c1: int, n0: int, n1: int, m: int, n: int, k: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """n0 * n1 products; the matrices of a batch lie a0, a1 (b0, b1; c0, c1) elements apart."""
    lo, hi = share(n0 * n1, part, parts)
    for q in range(lo, hi):
        i, j = q // n1, q % n1
        gemm(
            ta, tb, m, n, k, T(1.0), a, i * a0 + j * a1, lda, b, i * b0 + j * b1, ldb,
            T(0.0), c, i * c0 + j * c1, ldc,
        )  # fmt: skip


@native("T* a, i64 am, i64 ak, T* b, i64 bk, T* c, i64 m, i64 n, i64 k", sums=True)
def small_rows(a: Any, am: int, ak: int, b: Any, bk: int, c: Any, m: int, n: int, k: int) -> None:
    """A small product where B's rows lie without gaps: rows of B, added up."""
    for i in range(m):
        row = i * n
        for j in range(n):
            c[row + j] = T(0.0)
        for q in range(k):
            x = a[i * am + q * ak]
            at = q * bk
            for j in range(n):
                c[row + j] += x * b[at + j]


@native("T* a, i64 am, T* b, i64 bn, T* c, i64 m, i64 n, i64 k", sums=True)
def small_dots(a: Any, am: int, b: Any, bn: int, c: Any, m: int, n: int, k: int) -> None:
    """A small product where A's rows and B's columns lie without gaps: scalar products."""
    for i in range(m):
        for j in range(n):
            total = T(0.0)
            a_at, b_at = i * am, j * bn
            for q in range(k):
                total += a[a_at + q] * b[b_at + q]
            c[i * n + j] = total

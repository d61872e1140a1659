"""Matrix products, einsum and kilograd.linalg: against NumPy, themselves, and finite differences.

PyTorch's own samples of these names run in test_op_db.py; each op's derivatives in test_registry.py.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import kilograd as kg

RNG = np.random.default_rng(0)


def rand(*shape, grad=True, dtype=np.float64):
    x = kg.from_numpy(RNG.standard_normal(shape).astype(dtype))
    return x.requires_grad_() if grad else x


def regular(*shape, grad=True):
    """Square matrices far from singular."""
    x = kg.from_numpy(RNG.standard_normal(shape) + 3 * np.eye(shape[-1]))
    return x.requires_grad_() if grad else x


def directional(fn, inputs, eps=1e-6):
    """v · (f(x + εu) − f(x − εu)) / 2ε beside (Jᵀv) · u, and Jᵀv as a function of x."""
    us = [RNG.standard_normal(x.shape) for x in inputs]

    def outputs(xs):
        ys = fn(*xs)
        return ys if isinstance(ys, (tuple, list)) else (ys,)

    def moved(step):
        xs = [kg.from_numpy(x.detach().numpy() + step * u) for x, u in zip(inputs, us, strict=True)]
        return [y.detach().numpy() for y in outputs([x.requires_grad_() for x in xs])]

    vs = [kg.from_numpy(RNG.standard_normal(y.shape)) for y in outputs(inputs)]
    slopes = [(b - a) / (2 * eps) for a, b in zip(moved(-eps), moved(eps), strict=True)]
    numeric = sum((v.numpy() * d).sum() for v, d in zip(vs, slopes, strict=True))

    def gradient(*xs):
        live = [(y, v) for y, v in zip(outputs(xs), vs, strict=True) if y.requires_grad]
        if not live:
            return [kg.zeros_like(x) for x in xs]
        ys, up = zip(*live, strict=True)
        return kg.autograd.grad(ys, xs, up, create_graph=True, materialize_grads=True)

    exact = sum((g.detach().numpy() * u).sum() for g, u in zip(gradient(*inputs), us, strict=True))
    np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)
    return gradient


def second_order(fn, *inputs):
    """The first and second derivatives are those of finite differences along random directions."""
    directional(directional(fn, inputs), inputs)


def close(ours, wanted, tol=1e-9):
    np.testing.assert_allclose(np.asarray(ours.detach().array), wanted, rtol=tol, atol=tol)


# --- products -----------------------------------------------------------------------------------

PAIRS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((6, 5, 2, 3), (3,)), ((0, 3), (3, 4)),
    ((2, 0), (0, 4)), ((0, 2, 3), (3, 4)), ((2, 0, 3), (2, 3, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_matmul_of_all_ranks(a, b):
    a, b = rand(*a), rand(*b)
    y = a @ b
    close(y, a.detach().numpy() @ b.detach().numpy())
    if y.numel() and a.numel():
        second_order(kg.matmul, a, b)


def test_matmul_keeps_the_dtype():
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.uint8):
        a = kg.from_numpy(np.ones((2, 3), dtype))
        for y in (a @ a.T, a[None] @ a.T, kg.einsum("ij,kj->ik", a, a)):
            assert y.dtype == dtype, dtype
            assert (y == 3).all()


def test_half_precision_products_are_summed_in_float32():
    a = kg.full((1, 4096), 1.0, dtype=kg.float16)
    assert (a @ a.T).item() == 4096.0


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda: kg.ones(2, 3) @ kg.ones(4, 5), r"shapes cannot be multiplied \(2x3 and 4x5\)"),
        (lambda: kg.ones(2, 3) @ kg.ones(3, 2).double(), "same dtype"),
        (lambda: kg.tensor(1.0) @ kg.ones(3), "at least 1D"),
        (lambda: kg.ones(3) @ kg.ones(4), r"expected tensor \[3\] and src \[4\]"),
        (lambda: kg.ones(2, 3, 4) @ kg.ones(3, 4, 5), "do not broadcast"),
        (lambda: kg.mm(kg.ones(3), kg.ones(3, 3)), "must be a matrix"),
        (lambda: kg.bmm(kg.ones(2, 3, 4), kg.ones(3, 4, 4)), r"\[2, 4\] but got: \[3, 4\]"),
        (lambda: kg.mv(kg.ones(2, 3), kg.ones(4)), "2x3 and 4"),
        (lambda: kg.dot(kg.ones(2, 2), kg.ones(3)), "1D tensor"),
        (lambda: kg.outer(kg.ones(2, 2), kg.ones(3)), "1D tensor"),
        (lambda: kg.inner(kg.ones(2, 2), kg.ones(3)), "last dimension"),
        (lambda: kg.addmm(kg.ones(3, 2), kg.ones(2, 3), kg.ones(3, 2)), "does not expand"),
        (
            lambda: kg.baddbmm(kg.ones(1), kg.ones(3, 2, 2), kg.ones(2, 2, 2)),
            "first two dimensions",
        ),
        (lambda: kg.tensordot(kg.ones(2, 3), kg.ones(4, 3), 1), "contracted dimensions"),
        (lambda: kg.cross(kg.ones(2, 4), kg.ones(2, 4)), "no dimension of size 3"),
        (lambda: kg.chain_matmul(kg.ones(2, 3), kg.ones(2, 3)), "cannot be multiplied"),
    ],
)
def test_products_refuse_what_does_not_fit(fn, message):
    with pytest.raises(RuntimeError, match=message):
        fn()


def test_products_refuse_other_types():
    with pytest.raises(TypeError):
        kg.matmul(kg.ones(2, 2), 3)
    with pytest.raises(TypeError):
        kg.mm(kg.ones(2, 2), [[1.0]])
    with pytest.raises(NotImplementedError):
        kg.ones(2, 2, dtype=kg.bool) @ kg.ones(2, 2, dtype=kg.bool)


def test_addmm_and_its_family():
    b, m, v = rand(2, 3, 3), rand(3, 3), rand(3)
    second_order(lambda x, a: kg.addmm(x, a, a, beta=0.5, alpha=2), rand(3), m)
    second_order(lambda x, a, w: kg.addmv(x, a, w, alpha=2), rand(3), m, v)
    second_order(lambda x, w: kg.addr(x, w, w, beta=2), rand(3, 3), v)
    second_order(lambda x, c: kg.addbmm(x, c, c), rand(1, 3), b)
    second_order(lambda x, c: kg.baddbmm(x, c, c, beta=2), rand(3, 3), b)


def test_addmm_does_not_read_its_input_when_beta_is_zero():
    y = kg.addmm(kg.full((2, 2), math.nan), kg.eye(2), kg.eye(2), beta=0)
    assert y.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_addmm_in_place_and_out():
    x, a = kg.ones(2, 2), kg.eye(2)
    memory = x.numpy()
    assert x.addmm_(a, a, beta=2) is x
    assert memory.tolist() == [[3.0, 2.0], [2.0, 3.0]]
    out = kg.empty(2, 2)
    assert kg.mm(a, a, out=out) is out
    assert out.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(RuntimeError):
        kg.ones(2).addmm_(a, a)  # the result does not fit


def test_kron_tensordot_inner_cross_chain():
    a, b = rand(2, 3), rand(4, 1, 2)
    close(kg.kron(a, b), np.kron(a.detach().numpy(), b.detach().numpy()))
    second_order(kg.kron, a, b)
    second_order(lambda x, y: kg.tensordot(x, y, ([0, 2], [2, 0])), rand(2, 3, 4), rand(4, 3, 2))
    second_order(kg.inner, rand(2, 3), rand(4, 2, 3))
    second_order(lambda x, y: kg.linalg.cross(x, y, dim=0), rand(3, 2), rand(3, 1))
    second_order(kg.chain_matmul, rand(2, 5), rand(5, 3), rand(3, 4))
    second_order(lambda *m: kg.linalg.multi_dot(m), rand(5), rand(5, 3), rand(3))


# --- einsum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i->", [(3,)]), ("ij->ji", [(2, 3)]), ("ii", [(3, 3)]), ("ii->i", [(3, 3)]),
        ("iij->j", [(3, 3, 2)]), ("ij,jk", [(2, 3), (3, 4)]), ("ij,jk->ki", [(2, 3), (3, 4)]),
        ("i,j", [(2,), (3,)]), ("i,i->", [(3,), (3,)]), ("bi,bi->b", [(4, 3), (4, 3)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)]), ("...ij,...jk", [(2, 2, 3), (3, 4)]),
        ("...ii->...i", [(2, 3, 3)]), ("i...->...", [(3, 2)]), ("ij,kl->il", [(2, 3), (4, 5)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("a,ab,b->", [(2,), (2, 3), (3,)]),
        ("ij,ij,ij->ij", [(2, 3)] * 3), ("ik,jkl,il->ij", [(2, 3), (4, 3, 5), (2, 5)]),
        ("ab,b...->a...", [(2, 3), (3, 4, 2)]), (" i j , j -> i ", [(2, 3), (3,)]),
        ("bBaA", [(2, 3, 4, 5)]), ("ij,j->", [(0, 3), (3,)]),
    ],
)  # fmt: skip
def test_einsum_is_numpys_and_differentiates_twice(equation, shapes):
    xs = [rand(*s) for s in shapes]
    y = kg.einsum(equation, *xs)
    wanted = np.einsum(equation.replace(" ", ""), *[x.detach().numpy() for x in xs])
    if "->" not in equation and equation == "bBaA":  # PyTorch's order: capitals first, as here
        wanted = np.einsum("bBaA->ABab", xs[0].detach().numpy())
    assert tuple(y.shape) == wanted.shape
    close(y, wanted)
    if all(x.numel() for x in xs):
        second_order(lambda *t: kg.einsum(equation, *t), *xs)


def test_einsum_broadcasts_dimensions_of_size_one():
    a, b = rand(2, 1), rand(3, 4)
    close(kg.einsum("ij,jk->ik", a, b), a.detach().numpy() * b.detach().numpy().sum(0))
    second_order(lambda x, y: kg.einsum("ij,jk->ijk", x, y), a, b)


def test_einsum_takes_sublists_and_lists():
    a, b = rand(2, 3, grad=False), rand(3, 4, grad=False)
    wanted = a.numpy() @ b.numpy()
    close(kg.einsum(a, [0, 1], b, [1, 2]), wanted)
    close(kg.einsum(a, [0, 1], b, [1, 2], [2, 0]), wanted.T)
    close(kg.einsum(a, [..., 1], b, [1, 2], [..., 2]), wanted)
    close(kg.einsum("ij,jk", [a, b]), wanted)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("i,j->ij", (2,)), "fewer operands"), (("i->i", (2,), (2,)), "more operands"),
        (("ij->ij", (2,)), "number of subscripts"), (("ii->i", (2, 3)), "sizes don't match"),
        (("i->ii", (2,)), "more than once"), (("i->j", (2,)), "does not appear"),
        (("i,i->i", (2,), (3,)), "does not broadcast"), (("1->1", (2,)), "invalid subscript"),
        (("i.", (2,)), "not part of any ellipsis"), (("...i...", (2,)), "already found"),
    ],
)  # fmt: skip
def test_einsum_says_what_is_wrong(args, message):
    with pytest.raises(RuntimeError, match=message):
        kg.einsum(args[0], *[kg.ones(*s) for s in args[1:]])
    with pytest.raises(ValueError, match="at least one operand"):
        kg.einsum("i->i")


# --- linalg -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (2,), (2, 1)])
def test_inverse_determinant_solve(batch):
    a, b = regular(*batch, 3, 3), rand(*batch, 3, 2)
    close(kg.linalg.inv(a) @ a, np.broadcast_to(np.eye(3), (*batch, 3, 3)))
    second_order(kg.linalg.inv, a)
    second_order(kg.linalg.det, a)
    second_order(lambda x: kg.linalg.slogdet(x).logabsdet, a)
    second_order(kg.linalg.solve, a, b)
    second_order(lambda x, y: kg.linalg.solve(x, y, left=False), a, rand(*batch, 2, 3))
    second_order(kg.linalg.solve, a, rand(*batch, 3))


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_det_differentiates_twice_where_it_is_zero(rank):
    n = 4
    a = kg.from_numpy(RNG.standard_normal((n, rank)) @ RNG.standard_normal((rank, n)))
    second_order(kg.linalg.det, a.requires_grad_())


def test_logdet_of_negative_and_zero_determinants():
    assert math.isnan(kg.logdet(-kg.eye(3)).item())
    a = kg.stack([kg.ones(2, 2), kg.eye(2)]).requires_grad_()
    y = kg.logdet(a)
    assert y.tolist() == [-math.inf, 0.0]
    y.sum().backward()
    assert a.grad[0].isinf().all()
    assert a.grad[1].tolist() == kg.eye(2).tolist()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_solve_triangular(upper, left, unit):
    a, b = regular(2, 4, 4), rand(4, 4)

    def solve(x, y):
        return kg.linalg.solve_triangular(x, y, upper=upper, left=left, unitriangular=unit)

    half = (np.triu if upper else np.tril)(a.detach().numpy())
    if unit:
        half[..., range(4), range(4)] = 1
    x = solve(a, b).detach().numpy()
    wanted = np.broadcast_to(b.detach().numpy(), x.shape)
    np.testing.assert_allclose(half @ x if left else x @ half, wanted, atol=1e-10)
    second_order(solve, a, b)


def test_solve_triangular_in_blocks_and_with_a_zero_on_the_diagonal():
    n = 150
    a = np.tril(RNG.standard_normal((n, n))) / n + np.eye(n)
    b = RNG.standard_normal((n, 3))
    x = kg.linalg.solve_triangular(kg.from_numpy(a), kg.from_numpy(b), upper=False)
    np.testing.assert_allclose(a @ x.numpy(), b, atol=1e-12)
    assert (
        not kg.linalg.solve_triangular(kg.zeros(2, 2), kg.ones(2, 1), upper=True).isfinite().any()
    )


def symmetric(x):
    return x @ x.mT + kg.eye(x.shape[-1], dtype=x.dtype)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_factors_of_symmetric_matrices(batch):
    x = rand(*batch, 3, 3)
    a = symmetric(x).detach().numpy()
    for upper in (False, True):
        low = kg.linalg.cholesky(symmetric(x), upper=upper)
        close(low.mT @ low if upper else low @ low.mT, a)
        second_order(lambda x, u=upper: kg.linalg.cholesky(symmetric(x), upper=u), x)
    w, v = kg.linalg.eigh(symmetric(x))
    close(v * w[..., None, :] @ v.mT, a)
    second_order(lambda x: kg.linalg.eigvalsh(symmetric(x)), x)
    second_order(lambda x: kg.linalg.eigh(symmetric(x)).eigenvectors.abs(), x)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 4)])
def test_factors_of_rectangular_matrices(shape):
    x = rand(*shape)
    a = x.detach().numpy()
    k = min(shape[-2:])
    u, s, vh = kg.linalg.svd(x, full_matrices=False)
    close(u * s[..., None, :] @ vh, a)
    for full in (False, True):

        def up_to_signs(x, full=full):
            u, s, vh = kg.linalg.svd(x, full_matrices=full)
            return u[..., :k].abs(), s, vh[..., :k, :].abs()

        second_order(up_to_signs, x)
    second_order(kg.linalg.svdvals, x)
    q, r = kg.linalg.qr(x)
    close(q @ r, a)
    second_order(lambda x: tuple(kg.linalg.qr(x)), x)
    p, low, up = kg.linalg.lu(x)
    close(p @ low @ up, a)
    second_order(lambda x: tuple(kg.linalg.lu(x)[1:]), x)
    pinv = kg.linalg.pinv(x)
    close(pinv, np.linalg.pinv(a))
    second_order(kg.linalg.pinv, x)


def test_singular_values_alone_differentiate_where_vectors_cannot():
    x = kg.eye(3, dtype=kg.float64).requires_grad_()
    kg.linalg.svd(x).S.sum().backward()
    assert x.grad.tolist() == kg.eye(3).tolist()
    x.grad = None
    kg.linalg.eigh(x).eigenvalues.sum().backward()
    assert x.grad.tolist() == kg.eye(3).tolist()


def test_lstsq():
    a, b = rand(5, 3), rand(5, 2)
    found = kg.linalg.lstsq(a, b, driver="gelsd")
    x, residuals, rank, s = np.linalg.lstsq(a.detach().numpy(), b.detach().numpy(), rcond=None)
    close(found.solution, x)
    close(found.residuals, residuals)
    assert found.rank.item() == rank
    close(found.singular_values, s)
    second_order(lambda a, b: kg.linalg.lstsq(a, b).solution, a, b)
    second_order(lambda a, b: kg.linalg.lstsq(a, b).solution, rand(2, 4), rand(2, 1))


def test_lu_solve_cholesky_solve_householder_and_matrix_functions():
    a, b = regular(3, 3), rand(3, 2)
    for adjoint in (False, True):
        for left in (False, True):
            rhs = b if left else rand(2, 3)

            def solve(a, rhs, adjoint=adjoint, left=left):
                lu, pivots = kg.linalg.lu_factor(a)
                return kg.linalg.lu_solve(lu, pivots, rhs, left=left, adjoint=adjoint)

            matrix = a.mT if adjoint else a
            close(solve(a, rhs), kg.linalg.solve(matrix, rhs, left=left).detach().numpy())
            second_order(solve, a, rhs)
    second_order(lambda a, b: kg.cholesky_solve(b, kg.linalg.cholesky(symmetric(a))), a, b)
    second_order(lambda a: kg.cholesky_inverse(kg.linalg.cholesky(symmetric(a))), a)
    second_order(kg.linalg.householder_product, rand(2, 4, 3), rand(2, 3))
    second_order(kg.linalg.matrix_exp, rand(2, 3, 3))
    second_order(lambda a: kg.linalg.matrix_power(a, 5), a)
    second_order(lambda a: kg.linalg.matrix_power(a, -2), a)
    second_order(lambda a: kg.linalg.vander(a, N=4), rand(2, 3))
    second_order(lambda a: kg.linalg.tensorinv(a.reshape(3, 1, 3), ind=2), a)
    second_order(lambda a, b: kg.linalg.tensorsolve(a.reshape(3, 3, 1), b), a, rand(3))


def test_matrix_exp_of_large_and_small_matrices():
    w = np.array([0.0, 1e-9, -1e-3, 1.0, -20.0, 30.0])
    y = kg.matrix_exp(kg.from_numpy(np.diag(w)))
    np.testing.assert_allclose(np.diagonal(y.numpy()), np.exp(w), rtol=1e-12)
    nilpotent = kg.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert kg.matrix_exp(nilpotent).tolist() == [[1.0, 1.0], [0.0, 1.0]]


# --- norms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 1, 0.5, 1.5, 3, math.inf, -math.inf, -1, -2.5])
@pytest.mark.parametrize("dim", [None, 0, (0, 1)])
def test_vector_norm(order, dim):
    x = rand(3, 4)
    wanted = (np.abs(x.detach().numpy()) ** order).sum(dim) ** (1 / order)
    if math.isinf(order):
        wanted = getattr(np.abs(x.detach().numpy()), "max" if order > 0 else "min")(dim)
    close(kg.linalg.vector_norm(x, order, dim), wanted)
    second_order(lambda x: kg.linalg.vector_norm(x, order, dim, keepdim=True), x)


@pytest.mark.parametrize("order", ["fro", "nuc", 2, -2, 1, -1, math.inf, -math.inf])
def test_matrix_norm(order):
    x = rand(2, 3, 4)
    wanted = np.linalg.norm(x.detach().numpy(), order, (0, 2))
    close(kg.linalg.matrix_norm(x, order, (0, 2)), wanted)
    close(kg.linalg.norm(x, order, (0, 2), keepdim=True), wanted[None, :, None])
    second_order(lambda x: kg.linalg.matrix_norm(x, order), x)


@pytest.mark.parametrize("order", [None, 2, 1, 0.5, 3, math.inf, -1])
def test_norms_have_a_zero_gradient_at_zero(order):
    x = kg.zeros(3, requires_grad=True)
    kg.linalg.norm(x, order).backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert x.grad.dtype == kg.float32


def test_cond_and_rank():
    a = regular(3, 3)
    for p in (None, 2, -2, "fro", "nuc", 1, -1, math.inf, -math.inf):
        close(kg.linalg.cond(a, p), np.linalg.cond(a.detach().numpy(), p))
    assert kg.linalg.cond(kg.zeros(2, 2), 1).item() == math.inf
    second_order(lambda a: kg.linalg.cond(a, "fro"), a)
    low = rand(5, 2, grad=False) @ rand(2, 5, grad=False)
    assert kg.linalg.matrix_rank(low).item() == 2
    assert kg.linalg.matrix_rank(low @ low.mT, hermitian=True).item() == 2
    assert kg.linalg.matrix_rank(low, 1e3).item() == 0


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, math.inf])
def test_cdist(p):
    a, b = rand(2, 4, 3), rand(5, 3)
    d = a.detach().numpy()[:, :, None] - b.detach().numpy()[None, None]
    close(kg.cdist(a, b, p), np.linalg.norm(d, p, axis=-1))
    if p:
        second_order(lambda a, b: kg.cdist(a, b, p), a, b)


def test_cdist_of_many_points_and_of_equal_points():
    a = rand(40, 3)
    d = kg.cdist(a, a.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    close(kg.cdist(a, a.detach()), d.detach().numpy(), tol=1e-6)
    d.sum().backward()
    assert a.grad.isfinite().all()


def test_cov_and_corrcoef_are_numpys():
    x = RNG.standard_normal((3, 6))
    f, w = np.array([1, 2, 1, 3, 1, 1]), RNG.random(6)
    t = kg.from_numpy(x).requires_grad_()
    close(kg.cov(t), np.cov(x))
    close(kg.cov(t, correction=0), np.cov(x, ddof=0))
    close(
        kg.cov(t, fweights=kg.from_numpy(f), aweights=kg.from_numpy(w)),
        np.cov(x, fweights=f, aweights=w),
    )
    close(kg.corrcoef(t), np.corrcoef(x))
    assert kg.cov(t[0]).shape == ()
    second_order(kg.cov, t)


# --- errors and edges ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        lambda: kg.linalg.inv(kg.ones(2, 2)),
        lambda: kg.linalg.solve(kg.ones(2, 2), kg.ones(2, 2)),
        lambda: kg.linalg.cholesky(-kg.eye(2)),
        lambda: kg.linalg.svd(kg.full((2, 2), math.nan)),
        lambda: kg.linalg.lu_factor(kg.zeros(2, 2)),
        lambda: kg.linalg.inv_ex(kg.ones(2, 2), check_errors=True),
        lambda: kg.linalg.cholesky_ex(-kg.eye(2), check_errors=True),
    ],
)
def test_singular_matrices_raise_linalg_error(fn):
    with pytest.raises(kg.linalg.LinAlgError):
        fn()
    assert issubclass(kg.linalg.LinAlgError, RuntimeError)
    assert issubclass(kg.linalg.LinAlgError, np.linalg.LinAlgError)


def test_ex_variants_say_which_matrix_is_singular():
    a = kg.stack([kg.eye(2), kg.ones(2, 2)])
    inverse, info = kg.linalg.inv_ex(a)
    assert info.tolist() == [0, 2]
    assert inverse[0].tolist() == kg.eye(2).tolist()
    assert kg.linalg.solve_ex(a, kg.ones(2, 2, 1)).info.tolist() == [0, 2]
    low, info = kg.linalg.cholesky_ex(kg.stack([kg.eye(2), -kg.eye(2)]))
    assert info.tolist() == [0, 1]
    assert low[0].tolist() == kg.eye(2).tolist()
    assert low[1].isnan().all()
    assert kg.linalg.lu_factor_ex(a).info.tolist() == [0, 2]


@pytest.mark.parametrize(
    "name",
    ["inv", "det", "slogdet", "cholesky", "eigh", "eigvalsh", "eig", "eigvals", "matrix_exp"],
)
def test_square_matrices_are_demanded(name):
    fn = getattr(kg.linalg, name)
    with pytest.raises(RuntimeError, match="square"):
        fn(kg.ones(2, 3))
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        fn(kg.ones(3))
    with pytest.raises(RuntimeError, match="floating point"):
        fn(kg.ones(2, 2, dtype=kg.int64))


@pytest.mark.parametrize("dtype", [kg.float32, kg.float64])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 0)])
def test_empty_matrices(shape, dtype):
    a = kg.zeros(shape, dtype=dtype)
    for name in ["inv", "det", "cholesky", "eigvalsh", "svdvals", "matrix_exp", "pinv"]:
        assert getattr(kg.linalg, name)(a).dtype == dtype, name
    assert kg.linalg.solve(a, a).shape == a.shape
    assert (kg.linalg.det(a) == 1).all()
    for name in ["svd", "qr", "eigh", "lu", "slogdet"]:
        assert getattr(kg.linalg, name)(a)[0].dtype == dtype, name


def test_eig_is_complex_and_refuses_a_gradient():
    a = kg.tensor([[0.0, -1.0], [1.0, 0.0]], requires_grad=True)
    w, v = kg.linalg.eig(a)
    assert w.dtype == v.dtype == kg.complex64
    assert sorted(w.detach().numpy().imag.tolist()) == [-1.0, 1.0]
    with pytest.raises(RuntimeError, match="complex"):
        kg.autograd.grad(w, a, kg.ones(2, dtype=kg.complex64))


def test_qr_gradients_that_do_not_exist():
    a = rand(3, 2)
    with pytest.raises(RuntimeError, match="mode='r'"):
        kg.linalg.qr(a, "r").R.sum().backward()
    with pytest.raises(RuntimeError, match="nrows > ncols"):
        kg.linalg.qr(a, "complete").Q.sum().backward()


@pytest.mark.parametrize(
    "fn",
    [
        kg.linalg.inv, kg.linalg.det, lambda x: kg.linalg.svd(x).S, kg.linalg.svdvals,
        lambda x: kg.linalg.eigh(x).eigenvalues, lambda x: kg.linalg.qr(x).R, kg.linalg.pinv,
        kg.linalg.matrix_exp, lambda x: kg.linalg.norm(x, "nuc"), lambda x: kg.linalg.lu(x).U,
        lambda x: kg.linalg.cholesky(x @ x.mT), lambda x: kg.linalg.solve(x, x),
        lambda x: kg.cdist(x, x), lambda x: kg.linalg.slogdet(x).logabsdet,
        lambda x: kg.linalg.vector_norm(x, 3), kg.cov,
    ],
)  # fmt: skip
def test_float32_stays_float32(fn):
    x = kg.from_numpy((RNG.standard_normal((3, 3)) + 3 * np.eye(3)).astype(np.float32))
    y = fn(x.requires_grad_())
    assert y.dtype == kg.float32
    y.sum().backward()
    assert x.grad.dtype == kg.float32

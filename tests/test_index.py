"""Gather and scatter, indexed slices, masks, diagonals; in place and through views."""

import numpy as np
import pytest

import kilograd as kg

try:
    from tests.oracle.both import agree
except ImportError:
    agree = None

against_torch = pytest.mark.skipif(agree is None, reason="compares with PyTorch")
SETUP = (
    "x = T.arange(6.0).reshape(2, 3); z = T.tensor(3.0); L = T.arange(6).reshape(2, 3); m = x > 2; "
)

INDEX = r"""
L.masked_fill(m, 1.5)
L.masked_fill(m, 2.0)
L.masked_fill(m, T.tensor(1.5))
x.masked_fill(m, T.tensor([1.]))
x.masked_fill(L, 1.)
x.masked_fill(m.byte(), 1.)
(x>1).masked_fill(m, 2)
x.masked_fill(m, 1j)
z.masked_fill(m, 1.)
z.masked_fill_(m, 1.)
x.masked_fill(m, True)
x.masked_fill(m, T.tensor(2, dtype=T.float64)).dtype
x.gather(1, T.tensor([[0], [1]]))
x.gather(1, T.tensor([[0], [1]], dtype=T.int32))
x.gather(1, T.tensor([[0], [3]]))
x.gather(1, T.tensor([[0], [-1]]))
x.gather(1, T.tensor([0]))
x.gather(1, T.tensor([[0], [1], [1]]))
z.gather(0, T.tensor(0))
z.gather(0, T.tensor([0]))
x.gather(1, T.tensor([[0.]]))
T.tensor([5.]).gather(0, T.tensor(0))
x.scatter(1, T.tensor([[0], [1]]), 9.)
x.scatter(1, T.tensor([[0], [1]]), 9)
L.scatter(1, T.tensor([[0], [1]]), 9.5)
x.scatter(1, T.tensor([[0], [1]]), L)
x.scatter(1, T.tensor([[0], [1]]), x*10, reduce='add')
x.scatter(1, T.tensor([[0], [1]]), 2., reduce='multiply')
x.scatter(1, T.tensor([[0], [1]]), 2., reduce='x')
x.scatter(1, T.tensor([[0], [1]]), value=2.)
x.scatter(1, T.tensor([[0], [3]]), value=2.)
x.scatter(1, T.tensor([[0], [1], [1]]), value=2.)
x.scatter(1, T.tensor([[0, 0, 0, 0]]), x)
x.scatter(1, T.tensor([0]), x)
x.scatter(1, T.tensor([], dtype=T.long), x)
x.scatter_add(1, T.tensor([[0], [1]]), x)
x.scatter_add(1, T.tensor([[0], [1]]), L)
x.scatter_reduce(1, T.tensor([[0], [1]]), x, 'sum')
x.scatter_reduce(1, T.tensor([[0], [1]]), x, 'foo')
x.index_select(0, T.tensor([1, 0]))
x.index_select(0, T.tensor(1))
z.index_select(0, T.tensor(0))
x.index_select(0, T.tensor([2]))
x.index_select(0, T.tensor([-1]))
x.index_select(0, T.tensor([[0]]))
x.index_select(0, T.tensor([0.]))
x.index_select(0, T.tensor([0], dtype=T.int16))
x.index_select(5, T.tensor([0]))
z.index_select(0, T.tensor([0]))
x.index_add(0, T.tensor([0]), x[:1])
x.index_add(0, T.tensor([0]), x)
x.index_add(0, T.tensor([5]), x[:1])
x.index_add(0, T.tensor([0]), L[:1])
x.index_add(0, T.tensor([0]), x[:1], alpha=2)
L.index_add(0, T.tensor([0]), L[:1], alpha=2.5)
x.index_add(0, T.tensor([-1]), x[:1])
x.index_copy(0, T.tensor([0]), x[1:])
x.index_copy(0, T.tensor([0]), x)
x.index_copy(0, T.tensor([7]), x[1:])
x.index_copy(0, T.tensor([0]), L[1:])
x.index_fill(0, T.tensor([0]), 9)
x.index_fill(0, T.tensor([0]), T.tensor([9.]))
x.index_fill(0, T.tensor([-1]), 9)
x.index_fill(0, T.tensor([5]), 9)
L.index_fill(0, T.tensor([0]), 9.5)
L.index_fill(0, T.tensor([0]), T.tensor(9.5))
x.index_fill(0, T.tensor([0.]), 9)
x.index_put((T.tensor([0]), T.tensor([1])), T.tensor(9.))
x.index_put((T.tensor([0]), T.tensor([1])), T.tensor(9))
x.index_put((T.tensor([0, 0]), T.tensor([1, 1])), T.tensor([9., 1.]), accumulate=True)
x.index_put((T.tensor([0]), ), T.tensor([9., 1.]))
x.index_put((T.tensor([5]), ), T.tensor(9.))
x.index_put((m, ), T.tensor(9.))
x.masked_select(m)
x.masked_select(L)
z.masked_select(T.tensor([True, False]))
x.masked_scatter(m, T.tensor([9., 8., 7.]))
x.masked_scatter(m, T.tensor([9., 8.]))
x.masked_scatter(m, L)
x.masked_scatter(L, x)
x.take(T.tensor([0, 5]))
x.take(T.tensor([-1]))
x.take(T.tensor([6]))
x.take(T.tensor([0.]))
x.put(T.tensor([0, 1]), T.tensor([9., 8.]))
x.put(T.tensor([0, 0]), T.tensor([9., 8.]), accumulate=True)
x.put(T.tensor([0, 1]), T.tensor([9.]))
x.put(T.tensor([9]), T.tensor([9.]))
x.put(T.tensor([0]), T.tensor([9]))
x.take_along_dim(T.tensor([[0]]), 1)
x.take_along_dim(T.tensor([0, 5]))
x.take_along_dim(T.tensor([0]), 1)
x.take_along_dim(T.tensor([[0.]]), 1)
x.nonzero()
x.nonzero(as_tuple=True)
z.nonzero()
T.argwhere(x)
x.diag()
T.tensor([1., 2.]).diag(1)
z.diag()
T.ones(2, 2, 2).diag()
x.trace()
T.ones(3).trace()
L.trace()
x.tril(1)
z.tril()
T.ones(3).tril()
T.tril_indices(2, 3)
T.tril_indices(2, 3, dtype=T.float32)
T.tril_indices(-1, 3)
T.triu_indices(3, 3, 1)
x.diagflat()
T.diag_embed(x, 0, 0, 1).shape
T.diag_embed(x, 0, 0, 0)
T.diagonal(x, 0, 0, 0)
x.select_scatter(T.tensor([1., 2., 3.]), 0, 0)
x.select_scatter(T.tensor([1., 2.]), 0, 0)
x.slice_scatter(x[:1], 0, 1)
x.slice_scatter(x, 0, 1)
x.diagonal_scatter(T.tensor([1., 2.]))
x.diagonal_scatter(T.tensor([1.]))
T.unravel_index(T.tensor([3, 5]), (2, 3))
T.unravel_index(T.tensor([7]), (2, 3))
T.unravel_index(T.tensor(3), 6)
x.fill_diagonal_(5)
T.ones(3).fill_diagonal_(5)
T.ones(7, 3).fill_diagonal_(5, wrap=True)
x.index_reduce(0, T.tensor([0]), x[:1], 'prod')
x.index_reduce(0, T.tensor([0]), x[:1], 'foo')
T.nonzero_static(x, size=3)
T.nonzero_static(x, size=9)
x.slice_scatter(x[:, :1], 1, 0, 3, 2)
L.diag().dtype
x.fill(2)
L.fill(2.5)
x.clone().fill_(T.tensor([1.]))
L.clone().fill_(2.5)
x.clone().fill_(1j)
T.masked_fill(x, m, T.tensor([1., 2.]))
x.apply_(lambda v: v*2)
x.map_(x, lambda a, b: a+b)
x.tolist()
x[0, 0].item()
x.item()
len(x)
x.fill_diagonal_(3.)
x.index_put((T.tensor([0, 1]), ), T.tensor(1.))
x.put_(T.tensor([0]), T.tensor([9.])); x
x.masked_scatter_(x>2, T.ones(6)); x
x.index_reduce_(0, T.tensor([0, 0]), T.ones(2, 3), 'amax'); x
x.scatter_reduce_(0, T.tensor([[0, 0, 0]]), T.ones(1, 3), 'mean', include_self=False); x
x.scatter_add_(0, T.tensor([[0, 0, 0]]), T.ones(1, 3)); x
x.fill_(T.tensor(3)); x
x.triu_(); x
x.tril_(-1); x
x.scatter_(0, T.tensor([[0, 0, 0]]), T.ones(1, 3), reduce='add'); x
x.scatter_(1, T.tensor([[0], [1]]), 1.5, reduce='multiply'); x
T.zeros(2, 3).scatter_(1, T.tensor([[0], [2]]), 1)
T.zeros(2, 3).scatter(1, T.tensor([[0], [2]]), value=1)
T.zeros(2, 3).scatter(dim=1, index=T.tensor([[0], [2]]), src=T.ones(2, 1))
x.gather(dim=1, index=T.tensor([[0], [1]]))
T.gather(x, 1, T.tensor([[0], [1]]))
x.index_select(dim=0, index=T.tensor([1]))
T.tril(x, diagonal=-1)
T.diag(T.ones(2), diagonal=1)
T.masked_fill(x, x>2, 0)
T.nonzero(x, as_tuple=True)
T.where(x>2)
x.argwhere()
T.take_along_dim(x, x.argsort(dim=1, descending=True), dim=1)
x[x>2]
x[[0, 1], [1, 2]]
x[..., None].shape
x[T.tensor([True, False])]
"""


@against_torch
@pytest.mark.parametrize("code", INDEX.strip().splitlines())
def test_index_as_pytorch(code):
    agree(SETUP + code)


GRADIENTS = r"""
a, b=y.unbind(0); (a*b).sum().backward(); w.grad
a, b, c=y.split(1, 1); (a*b*c).sum().backward(); w.grad
a, b=y.split([1, 1]); a.sum().backward(); w.grad
y.masked_fill_(x>2, 0.); y.sum().backward(); w.grad
y.scatter_(1, T.tensor([[0], [1]]), 5.); (y*y).sum().backward(); w.grad
w=T.ones(2, 3, requires_grad=True); y=T.zeros(2, 3); y.copy_(w*x); (y*y).sum().backward(); w.grad
w=T.ones(3, requires_grad=True); y=T.zeros(2, 3); y.copy_(w); (y*x).sum().backward(); w.grad
y.copy_(x); y.requires_grad, T.autograd.grad(y.sum(), w)[0]
y.zero_(); y.requires_grad, T.autograd.grad(y.sum(), w)[0]
y.fill_(2); T.autograd.grad((y*y).sum(), w)[0]
y[0].copy_(w[1]*5); y.sum().backward(); w.grad
y.diagonal().fill_(0); y.sum().backward(); w.grad
y.diagonal().mul_(3); y.sum().backward(); w.grad
y.unfold(1, 2, 2).mul_(3); y.sum().backward(); w.grad
y.as_strided((2, ), (2, ), 1).mul_(3); y.sum().backward(); w.grad
y.index_add_(0, T.tensor([0, 0]), w); y.sum().backward(); w.grad
y.index_fill_(1, T.tensor([0]), 9.); y.sum().backward(); w.grad
y.index_copy_(0, T.tensor([1]), w[:1]*7); y.sum().backward(); w.grad
y.index_put_((T.tensor([1]), T.tensor([2])), w[0, 0]); y.sum().backward(); w.grad
y.tril_(); y.sum().backward(); w.grad
y.normal_(); y.requires_grad, T.autograd.grad(y.sum(), w)[0]
w=T.ones(2, 3, requires_grad=True); w.zero_()
w=T.ones(2, 3, requires_grad=True); w.uniform_()
w=T.ones(2, 3, requires_grad=True); w.copy_(x)

w=T.ones(2, 3, requires_grad=True); w[0].zero_()
w=T.ones(2, 3, requires_grad=True); w.data.zero_(); w.detach()
w=T.ones(2, 3, requires_grad=True); w.detach().zero_(); w.detach()
w=T.ones(2, 3, requires_grad=True); w.t().zero_()
w=T.ones(2, requires_grad=True); y=T.exp(w); y.zero_(); y.sum().backward()
"""


@against_torch
@pytest.mark.parametrize("code", GRADIENTS.strip().splitlines())
def test_gradients_as_pytorch(code):
    agree(SETUP + "w = T.ones(2, 3, requires_grad=True); y = w * x; " + code)


# --- facts ------------------------------------------------------------------------------------------


def test_gather_and_scatter_add_are_each_others_transpose():
    rng = np.random.default_rng(0)
    x = kg.from_numpy(rng.standard_normal((4, 5)))
    index = kg.from_numpy(rng.integers(0, 4, (3, 5)))
    v = kg.from_numpy(rng.standard_normal((3, 5)))
    left = (x.gather(0, index) * v).sum()
    right = (x * kg.zeros(4, 5, dtype=kg.float64).scatter_add(0, index, v)).sum()
    assert left.item() == pytest.approx(right.item())


def test_a_source_larger_than_its_index_gets_zeros_where_it_is_not_read():
    src = kg.ones(3, 3, requires_grad=True)
    y = kg.zeros(3, 3).scatter_add(0, kg.tensor([[0, 1], [0, 2]]), src)
    (y * y).sum().backward()
    assert src.grad.tolist() == [[4, 2, 0], [4, 2, 0], [0, 0, 0]]


def test_an_index_changed_before_backward_is_found_out():
    x = kg.ones(3, requires_grad=True)
    index = kg.tensor([0, 1])
    y = x.gather(0, index)
    index.fill_(2)
    with pytest.raises(RuntimeError, match="modified"):
        y.sum().backward()


@pytest.mark.parametrize("bad", [3, -1, -4])
def test_gather_refuses_what_is_out_of_range(bad):
    index = kg.tensor([[bad], [0]])
    with pytest.raises(RuntimeError, match=f"index {bad} is out of bounds"):
        kg.ones(2, 3).gather(1, index)


def test_a_product_has_gradients_also_beside_a_zero():
    v = kg.tensor([0.0, 2.0, 3.0], requires_grad=True)
    y = kg.ones(1).scatter_reduce(0, kg.tensor([0, 0, 0]), v, "prod")
    y.sum().backward()
    assert v.grad.tolist() == [6, 0, 0]


def test_filling_keeps_the_graph_with_zero_gradients():
    w = kg.ones(3, requires_grad=True)
    for y in ((w * 2).zero_(), (w * 2).fill_(5), (w * 2).normal_(), (w * 2).copy_(kg.ones(3))):
        assert y.requires_grad
        (g,) = kg.autograd.grad(y.sum(), w)
        assert g.tolist() == [0, 0, 0]


def test_copy_sums_the_gradient_of_what_it_broadcast():
    w = kg.ones(3, requires_grad=True)
    y = kg.zeros(2, 3, dtype=kg.float64).copy_(w)
    y.sum().backward()
    assert w.grad.tolist() == [2, 2, 2]
    assert w.grad.dtype == kg.float32


def test_masks_in_place_and_their_errors():
    x = kg.arange(4.0)
    assert x.masked_fill_(x > 1, -1).tolist() == [0, 1, -1, -1]
    with pytest.raises(RuntimeError, match="boolean mask"):
        x.masked_fill(kg.ones(4), 0)
    with pytest.raises(RuntimeError, match="number of ones"):
        x.masked_scatter(x < 5, kg.ones(2))


def test_integers_are_not_divided_or_rounded_by_scattering():
    x = kg.zeros(2, dtype=kg.int64).scatter_add(0, kg.tensor([0, 0]), kg.tensor([2**60, 1]))
    assert x.tolist() == [2**60 + 1, 0]

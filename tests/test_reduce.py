"""Reductions, scans, order and counting: forms of the arguments, dtypes, ties, nan and empty inputs."""

import itertools

import numpy as np
import pytest

import kilograd as kg

try:
    from tests.oracle.both import agree
except ImportError:
    agree = None

against_torch = pytest.mark.skipif(agree is None, reason="compares with PyTorch")
SETUP = (
    "inf = float('inf'); nan = float('nan'); x = T.tensor([[3., 1., 2.], [9., 5., 4.]]); "
    "n = T.tensor([[1., nan, 2.], [nan, 5., 4.]]); i = T.tensor([[3, 1, 2], [0, 5, 4]]); "
    "u = i.byte(); b = i > 2; s = T.tensor(2.5); e = T.zeros(0, 3); "
)

FORMS = """
x.sum(), x.sum(0), x.sum(-1, True), x.sum((0, 1)), x.sum([1]), x.sum(()), x.sum(dim=1, keepdim=True)
x.sum(2)
x.sum((0, 0))
x.sum(0.5)
x.sum('a')
s.sum(), s.sum(0), s.sum(-1), s.mean(0), s.max(0), s.amax(0), s.std(0)
s.sum(1)
i.sum(), u.sum(), b.sum(), u.sum(dtype=T.uint8), i.sum(dtype=T.float16), x.sum(0, dtype=T.float64)
i.mean()
i.mean(dtype=T.float32)
e.sum(0), e.mean(0), e.prod(0), e.sum(), e.mean(), e.logsumexp(0)
e.max()
e.max(0)
e.max(1)
e.amax()
e.argmax()
e.amin(1)
x.prod(), x.prod(0), i.prod(1), b.prod(), u.prod(dtype=T.uint8)
x.prod((0, 1))
x.max(), x.max(0), x.max(1, True), x.max(x * 0 + 3), T.max(x, dim=-1), T.min(i, 0)
x.max(dim=1).values, x.max(dim=1).indices
n.max(), n.max(1), n.amax(0), n.argmax(1), n.min(), n.median(1), n.nanmedian(1), n.median()
x.amax(), x.amax((0, 1)), x.amin(1, True), T.aminmax(x), T.aminmax(x, dim=0, keepdim=True)
x.argmax(), x.argmax(1), x.argmin(0, keepdim=True), x.argmax(keepdim=True)
b.argmax()
b.all(), b.all(1), u.all(1), x.any((0, 1)), b.any(-1, keepdim=True), b.all(())
x.std(), x.std(0), x.std(0, False), x.std(False), x.var((0, 1), correction=0), x.var(1, keepdim=True)
x.var(0, correction=5)
x.std(0, unbiased=False, keepdim=True), T.var_mean(x, 0), T.std_mean(x, (0, 1), correction=2)
i.std()
x.half().mean(0), (x.half() * 30000).mean(), x.half().var()
x.logsumexp(0), x.logsumexp((0, 1), True), i.logsumexp(0), (x - inf).logsumexp(1), (x * inf).logsumexp(1)
x.softmax(1), x.log_softmax(0), x.softmax(-1, T.float64), s.softmax(0)
(x - inf).softmax(1), (x - inf).log_softmax(1)
i.softmax(0)
x.norm(), x.norm(1), x.norm(inf), x.norm(-inf), x.norm(0), x.norm(3, 1), T.norm(x, 'nuc'), x.norm('fro', (0, 1))
i.norm()
x.norm('what')
T.dist(x, x + 1, 3)
T.renorm(x, 2, 0, 5.)
T.renorm(x, 2, 0, -5.)
x.cumsum(0), i.cumsum(1), b.cumsum(0), u.cumprod(1), x.cumprod(-1), s.cumsum(0), u.cumsum(0, dtype=T.uint8)
x.cummax(1), n.cummax(1), n.cummin(1), T.tensor([1, 3, 3, 2, 3]).cummax(0)
n.nansum(), n.nansum(0), n.nanmean(1), i.nansum()
i.nanmean()
x.logcumsumexp(1), (x - inf).logcumsumexp(0)
x.sort(), x.sort(0, True), x.sort(descending=True, dim=0), n.sort(1), n.sort(1, descending=True), s.sort()
T.tensor([1, 0, 1, 0]).sort(stable=True, descending=True), x.argsort(0), x.msort()
x.topk(2), x.topk(1, 0, False), n.topk(2), x.topk(0), s.topk(1)
x.topk(4)
b.topk(1)
x.kthvalue(2), x.kthvalue(1, 0, True), s.kthvalue(1), n.kthvalue(3)
x.kthvalue(4)
x.kthvalue(0)
T.tensor([2, 1, 1, 3, 2]).mode(), x.mode(0, True), s.mode()
x.median(), x.median(0), T.tensor([4, 1, 3, 2]).median(), x.median(1, True), s.median(0)
x.quantile(0.3), x.quantile(0.3, 1), x.quantile(T.tensor([0.1, 0.9]), 0, True), n.quantile(0.5), n.nanquantile(0.5, 1)
[x.quantile(0.3, 1, interpolation=k) for k in ('linear', 'lower', 'higher', 'midpoint', 'nearest')]
x.quantile(1.5)
x.quantile(T.tensor(0.5, dtype=T.float64))
i.quantile(0.5)
T.unique(i), T.unique(i, return_inverse=True, return_counts=True), T.unique(T.tensor([[1, 2], [1, 2], [0, 3]]), dim=0, return_counts=True)
T.unique(e, dim=0), T.unique(n)
T.unique_consecutive(T.tensor([1, 1, 2, 1]), return_inverse=True, return_counts=True)
T.unique_consecutive(T.tensor([[1, 1], [1, 1], [2, 1]]), dim=0)
T.isin(i, T.tensor([1, 5])), T.isin(i, 3, invert=True), T.isin(3, i)
T.searchsorted(T.tensor([1., 3., 5.]), x), T.searchsorted(T.tensor([1., 3., 5.]), 3.0, right=True)
T.searchsorted(T.tensor([[1, 3], [2, 4]]), T.tensor([[3], [3]]), out_int32=True)
T.searchsorted(T.tensor([1., 3., 5.]), i)
T.searchsorted(T.tensor([3, 1]), T.tensor([2]), sorter=T.tensor([1, 0]))
T.bucketize(x, T.tensor([1., 3., 5.])), T.bucketize(x, T.tensor([1., 3., 5.]), right=True)
T.bucketize(x, x)
T.bincount(T.tensor([0, 2, 2])), T.bincount(T.tensor([0, 2]), T.tensor([0.5, 1.5]), 5)
T.bincount(T.tensor([-1]))
T.bincount(T.tensor([1.]))
T.histc(x, 4), T.histc(x, 4, 0, 3), T.histc(T.ones(3), 2)
T.histogram(x, 3), T.histogram(x, 3, range=(0., 4.), density=True), T.histogram(x, T.tensor([0., 2., 9.]), weight=x)
T.diff(x), T.diff(x, 2), T.diff(x, 5), T.diff(b), T.diff(x, dim=0, prepend=x), T.diff(x, 0)
T.diff(s)
T.trapezoid(x), T.trapezoid(x, x), T.trapezoid(x, dx=2, dim=0), T.cumulative_trapezoid(x, T.tensor([1., 2., 4.]))
T.trapezoid(b)
T.gradient(x), T.gradient(x, spacing=2., dim=1, edge_order=2), T.gradient(x, spacing=(T.tensor([1., 4.]), T.tensor([0., 1., 3.])))
T.gradient(x[:1])
T.count_nonzero(i), T.count_nonzero(i, 0), T.count_nonzero(i, (0, 1))
T.sum(x, 0, out=T.empty(0)), T.max(x, 0, out=(T.empty(0), T.empty(0, dtype=T.int64)))
T.max(x, 0, out=(T.empty(0, dtype=T.float64), T.empty(0, dtype=T.int64)))
T.argmax(x, 0, out=T.empty(0, dtype=T.int64))
y = x.clone(); y.cumsum_(1); y.renorm_(2, 0, 1.)
""".strip().splitlines()


@against_torch
@pytest.mark.parametrize("code", FORMS)
def test_forms_as_pytorch(code):
    agree(SETUP + code)


GRADIENTS = """
T.max(w)
T.max(w, 1)[0]
T.amax(w, 0)
T.amin(w)
T.median(w)
T.median(w, 1)[0]
T.prod(w)
T.prod(w, 1)
T.cumprod(w, 1)
T.cummax(w, 0)[0]
T.sort(w, 1)[0]
T.topk(w, 2, 0)[0]
T.kthvalue(w, 2)[0]
T.mode(w)[0]
T.std(w, 1)
T.std(w * 0)
T.var(w, 0, correction=0)
T.logsumexp(w, 1)
T.logsumexp(T.where(w > 1, w, -float('inf')), 1)
T.logcumsumexp(w, 0)
T.softmax(w, 1)
T.norm(w, 3)
T.quantile(w, T.tensor([0.2, 0.7], dtype=T.float64), 1)
T.nansum(w / w, 0)
T.nanmean(w / w, 0)
T.gradient(w)[1]
T.trapezoid(w, w * w)
T.renorm(w, 2, 0, 1.0)
""".strip().splitlines()


@against_torch
@pytest.mark.parametrize("code", GRADIENTS)
def test_gradients_at_ties_and_zeros_as_pytorch(code):
    agree(
        "w = T.tensor([[2., 0., 2.], [-1., 3., 0.], [2., 2., 1.]], dtype=T.float64, requires_grad=True); "
        f"y = {code}; g = T.autograd.grad((y * (y.detach() + 2)).sum(), w, create_graph=True)[0]; "
        "g, T.autograd.grad((g * g).sum(), w, allow_unused=True)[0] if g.requires_grad else g"
    )


# --- facts ------------------------------------------------------------------------------------------


def test_float16_adds_up_in_float32():
    x = kg.ones(5000, dtype=kg.float16)
    assert x.sum().item() == 5000
    assert x.cumsum(0)[-1].item() == 5000
    assert (x * 20).mean().item() == 20
    assert x.softmax(0).sum().item() == pytest.approx(1, rel=1e-2)


def test_products_with_zeros_have_gradients_of_every_order():
    x = kg.tensor([2.0, 0.0, 3.0], dtype=kg.float64, requires_grad=True)
    (g,) = kg.autograd.grad(x.prod(), x, create_graph=True)
    assert g.tolist() == [0, 6, 0]
    (gg,) = kg.autograd.grad(g[1], x, create_graph=True)
    assert gg.tolist() == [3, 0, 2]
    (ggg,) = kg.autograd.grad(gg[0], x)
    assert ggg.tolist() == [0, 0, 1]


def test_results_with_names():
    r = kg.tensor([[1.0, 5.0], [7.0, 2.0]]).max(dim=1)
    assert r.values is r[0]
    assert r._fields == ("values", "indices")
    values, indices = kg.tensor([3, 1, 2]).sort()
    assert (values.tolist(), indices.tolist()) == ([1, 2, 3], [1, 2, 0])
    assert kg.aminmax(kg.tensor([3, 1])).max.item() == 3


def test_topk_of_many():
    x = np.random.default_rng(0).permutation(3000).astype(np.float32).reshape(3, 1000)
    for largest in (True, False):
        values, indices = kg.from_numpy(x).topk(7, largest=largest)
        wanted = np.sort(x, 1)[:, ::-1][:, :7] if largest else np.sort(x, 1)[:, :7]
        assert (values.numpy() == wanted).all()
        assert (np.take_along_axis(x, indices.numpy(), 1) == wanted).all()


def test_sorting_is_stable_whatever_the_dtype():
    x = np.random.default_rng(0).integers(0, 3, 200)
    for dtype in (kg.float32, kg.int64, kg.float16):
        for descending in (False, True):
            order = kg.tensor(x, dtype=dtype).argsort(descending=descending).numpy()
            for a, b in itertools.pairwise(order):
                assert x[a] != x[b] or a < b


def test_numpy_names_of_the_arguments():
    x = kg.ones(2, 3)
    assert x.sum(axis=1, keepdims=True).shape == (2, 1)
    with pytest.raises(TypeError, match="both"):
        x.sum(axis=1, dim=1)


def test_sums_of_views_and_broadcasts():
    x = kg.arange(6.0).reshape(2, 3)
    assert x.T.sum(0).tolist() == [3, 12]
    assert x[:, :1].expand(2, 4).sum(1).tolist() == [0, 12]


def test_a_sum_of_nothing_keeps_the_graph():
    x = kg.ones(0, 3, requires_grad=True)
    x.sum().backward()
    x.mean(1).sum().backward()
    assert x.grad.shape == (0, 3)

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kilograd as kg
from kilograd.kernels.blocks import BLOCK
from tests.nn.compare import both, close, same

F, T = kg.nn.functional, torch.nn.functional
REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 5, 2), (2, 5, 3, 4), (0, 5)])
def test_cross_entropy(rng, shape, reduction):
    x = rng.standard_normal(shape) * 3
    positions = shape[:1] + shape[2:] if len(shape) > 1 else ()
    t = np.asarray(rng.integers(0, 5, positions))
    w = rng.uniform(0.5, 2, 5)
    ignored = t.copy()
    ignored.reshape(-1)[:2] = -100
    for target, weight, smoothing in itertools.product((t, ignored), (None, w), (0.0, 0.2)):
        if len(shape) == 1 and target is ignored:
            continue
        options = {"reduction": reduction, "label_smoothing": smoothing}
        weight = None if weight is None else (kg.from_numpy(w), torch.from_numpy(w))

        def ours(x, target=target, weight=weight, options=options):
            return F.cross_entropy(x, kg.from_numpy(target), weight and weight[0], **options)

        def theirs(x, target=target, weight=weight, options=options):
            return T.cross_entropy(x, torch.from_numpy(target), weight and weight[1], **options)

        same(ours, theirs, x, second=True)
    probabilities = rng.dirichlet(np.ones(5), positions) if 0 not in shape else np.zeros((0, 5))
    probabilities = np.moveaxis(probabilities, -1, min(len(shape) - 1, 1))
    same(F.cross_entropy, T.cross_entropy, x, probabilities, reduction=reduction, label_smoothing=0.1,
         second=True)  # fmt: skip


def test_cross_entropy_keeps_its_head(rng):
    x = np.array([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 0.0]], np.float32)
    for t in ([0, 1], [1, 0], [2, 2]):
        same(F.cross_entropy, T.cross_entropy, x, np.array(t))
    assert F.cross_entropy(kg.from_numpy(x), kg.tensor([0, 1])).item() == 0.0
    big = rng.standard_normal((BLOCK // 500, 1000)).astype(np.float32) * 10
    same(
        F.cross_entropy, T.cross_entropy, big, rng.integers(0, 1000, len(big)), rtol=1e-4, atol=1e-6
    )


def test_every_target_ignored():
    x = kg.ones(2, 3, requires_grad=True)
    t = kg.tensor([-100, -100])
    assert np.isnan(F.cross_entropy(x, t).item())
    loss = F.cross_entropy(x, t, reduction="sum")
    loss.backward()
    assert loss.item() == 0.0
    assert not x.grad.array.any()


def test_other_ignored_classes(rng):
    x, t = rng.standard_normal((6, 4)), np.array([0, 1, 2, 3, 2, 255])
    same(lambda x: F.cross_entropy(x, kg.tensor(t[:5]), ignore_index=2),
         lambda x: T.cross_entropy(x, torch.tensor(t[:5]), ignore_index=2), x[:5])  # fmt: skip
    same(lambda x: F.nll_loss(x, kg.tensor(t), ignore_index=255),
         lambda x: T.nll_loss(x, torch.tensor(t), ignore_index=255), x)  # fmt: skip


def test_byte_targets(rng):
    x = rng.standard_normal((3, 4))
    t = np.array([0, 3, 1])
    assert F.cross_entropy(kg.tensor(x), kg.tensor(t, dtype=kg.uint8)).item() == pytest.approx(
        T.cross_entropy(torch.tensor(x), torch.tensor(t)).item()
    )
    assert F.cross_entropy(kg.tensor(x), t).item() == pytest.approx(
        F.cross_entropy(kg.tensor(x), kg.tensor(t)).item()
    )


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (((3, 10), [1, 2, 10]), IndexError, "Target 10 is out of bounds"),
        (((3, 10), [1, 2, -1]), IndexError, "Target -1 is out of bounds"),
        (((3, 10), [1, 2]), ValueError, r"batch_size \(3\) to match target batch_size \(2\)"),
        (((3, 10, 2), [1, 2, 3]), RuntimeError, "expected target"),
    ],
)
def test_refusals_of_class_losses(args, error, message):
    shape, t = args
    for loss in (F.cross_entropy, F.nll_loss):
        with pytest.raises(error, match=message):
            loss(kg.zeros(*shape), kg.tensor(t))


def test_more_refusals():
    x, t = kg.zeros(2, 3), kg.tensor([0, 1])
    with pytest.raises(RuntimeError, match="weight"):
        F.cross_entropy(x, t, weight=kg.ones(4))
    with pytest.raises(RuntimeError, match="int64"):
        F.cross_entropy(x, t.to(kg.int32))
    with pytest.raises(RuntimeError, match="label_smoothing"):
        F.cross_entropy(x, t, label_smoothing=1.5)
    for name in ("cross_entropy", "nll_loss"):
        with pytest.raises(ValueError, match="average is not a valid"):
            getattr(F, name)(x, t, reduction="average")
    for name in (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "kl_div",
        "soft_margin_loss",
    ):
        with pytest.raises(ValueError, match="is not a valid"):
            getattr(F, name)(x, x, reduction="average")
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match="size"):
            getattr(F, name)(x, kg.zeros(3))
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(x - 1, x)
    with pytest.raises(RuntimeError, match="beta"):
        F.smooth_l1_loss(x, x, beta=-1)


TWO = [
    ("mse_loss", {}), ("l1_loss", {}), ("smooth_l1_loss", {}), ("smooth_l1_loss", {"beta": 0.3}),
    ("smooth_l1_loss", {"beta": 0.0}), ("huber_loss", {"delta": 0.7}), ("poisson_nll_loss", {}),
    ("poisson_nll_loss", {"full": True}),
]  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options"), TWO)
def test_pairs(rng, name, options, reduction):
    a, b = rng.standard_normal((2, 4, 5))
    b = abs(b) if name == "poisson_nll_loss" else b
    b[0, 0] = a[0, 0]  # a kink
    same(getattr(F, name), getattr(T, name), a, b, reduction=reduction, **options)
    same(
        getattr(F, name),
        getattr(T, name),
        a[1:],
        b[1:],
        reduction=reduction,
        second=True,
        **options,
    )
    same(
        getattr(F, name),
        getattr(T, name),
        np.zeros((0, 2)),
        np.zeros((0, 2)),
        reduction=reduction,
        **options,
    )


def test_weights_of_regression_losses(rng):
    a, b, w = rng.uniform(0.2, 2, (3, 4, 5))
    for name, reduction in itertools.product(("mse_loss", "l1_loss", "huber_loss"), REDUCTIONS):
        same(lambda a, b, w, f=getattr(F, name), r=reduction: f(a, b, reduction=r, weight=w),
             lambda a, b, w, f=getattr(T, name), r=reduction: f(a, b, reduction=r, weight=w), a, b, w)  # fmt: skip


def test_sizes_that_only_broadcast_warn(rng):
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        with pytest.warns(UserWarning, match="target size"):
            loss = getattr(F, name)(kg.ones(3, 1), kg.zeros(2))
        assert loss.shape == ()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy(rng, reduction):
    p, t = rng.uniform(0.05, 0.95, (2, 3, 4))
    w, pos = rng.uniform(0.5, 2, (3, 4)), rng.uniform(0.5, 2, 4)
    x = rng.standard_normal((3, 4)) * 3

    def call(module, name, **more):
        return lambda *a: getattr(module, name)(a[0], a[1], *a[2:], reduction=reduction, **more)

    same(call(F, "binary_cross_entropy"), call(T, "binary_cross_entropy"), p, t, second=True)
    for weight in (w, w[0]):
        same(call(F, "binary_cross_entropy", weight=kg.tensor(weight)),
             call(T, "binary_cross_entropy", weight=torch.tensor(weight)), p, t)  # fmt: skip
    name = "binary_cross_entropy_with_logits"
    same(call(F, name), call(T, name), x, t, second=True)
    for weight in (w, w[0]):
        same(call(F, name, weight=kg.tensor(weight)), call(T, name, weight=torch.tensor(weight)), x, t,
             second=True)  # fmt: skip
    for weight in (None, w):
        same(call(F, name, weight=weight if weight is None else kg.tensor(weight), pos_weight=kg.tensor(pos)),
             call(T, name, weight=weight if weight is None else torch.tensor(weight), pos_weight=torch.tensor(pos)),
             x, t, second=True)  # fmt: skip


def test_binary_cross_entropy_keeps_its_head():
    p, t = np.array([0.0, 1.0, 0.0, 1.0], np.float32), np.array([0.0, 0.0, 1.0, 1.0], np.float32)
    same(lambda p: F.binary_cross_entropy(p, kg.tensor(t), reduction="none"),
         lambda p: T.binary_cross_entropy(p, torch.tensor(t), reduction="none"), p)  # fmt: skip
    x = np.array([-1000.0, 1000.0, -1000.0, 1000.0, 0.0], np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.0, 0.5], np.float32)
    same(lambda x: F.binary_cross_entropy_with_logits(x, kg.tensor(t), reduction="none"),
         lambda x: T.binary_cross_entropy_with_logits(x, torch.tensor(t), reduction="none"), x)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["smooth_l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"]
)
def test_large_arrays_in_blocks(rng, name):
    a, b = rng.uniform(0.01, 0.99, (2, 3, BLOCK)).astype(np.float32)
    same(getattr(F, name), getattr(T, name), a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.filterwarnings("ignore:reduction. 'mean'")
def test_kl_div(rng, reduction):
    x, t = np.log(rng.dirichlet(np.ones(4), 3)), rng.dirichlet(np.ones(4), 3)
    same(F.kl_div, T.kl_div, x, t, reduction=reduction, second=True)
    same(F.kl_div, T.kl_div, x, np.log(t), reduction=reduction, log_target=True, second=True)
    t[0, 0] = 0
    same(lambda x: F.kl_div(x, kg.tensor(t), reduction=reduction),
         lambda x: T.kl_div(x, torch.tensor(t), reduction=reduction), x)  # fmt: skip


def test_kl_div_says_what_mean_means():
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(kg.zeros(2), kg.zeros(2))


def test_the_old_way_to_say_the_reduction(rng):
    a, b = kg.tensor(rng.standard_normal((2, 3))), kg.zeros(2, 3, dtype=kg.float64)
    for (average, reduce), reduction in {
        (True, True): "mean", (True, None): "mean", (None, True): "mean", (False, None): "sum",
        (False, True): "sum", (None, False): "none", (True, False): "none",
    }.items():  # fmt: skip
        with pytest.warns(UserWarning, match=f"reduction='{reduction}'"):
            old = F.mse_loss(a, b, average, reduce)
        close(old, F.mse_loss(a, b, reduction=reduction).array)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_margins(rng, reduction):
    a, b, c = rng.standard_normal((3, 4, 5))
    sign = np.where(rng.random(4) < 0.5, -1.0, 1.0)
    r = {"reduction": reduction}

    def with_target(module, name, make, *options, **more):
        return lambda *xs: getattr(module, name)(*xs, make(sign), *options, **r, **more)

    for name, xs, more in [
        ("margin_ranking_loss", (a[:, 0], b[:, 0]), {"margin": 0.3}),
        ("hinge_embedding_loss", (abs(a[:, 0]),), {"margin": 0.8}),
        ("cosine_embedding_loss", (a, b), {"margin": 0.2}),
    ]:
        same(
            with_target(F, name, kg.tensor, **more),
            with_target(T, name, torch.tensor, **more),
            *xs,
            second=True,
        )
    for more in ({}, {"p": 3.0}, {"swap": True}, {"margin": 0.4}):
        same(F.triplet_margin_loss, T.triplet_margin_loss, a, b, c, **r, **more, second=True)
    same(lambda *x: F.triplet_margin_with_distance_loss(*x, distance_function=lambda p, q: (p - q).abs().sum(1), **r),
         lambda *x: T.triplet_margin_with_distance_loss(*x, distance_function=lambda p, q: (p - q).abs().sum(1), **r),
         a, b, c)  # fmt: skip
    t = rng.integers(0, 5, 4)
    w = rng.uniform(0.5, 2, 5)
    for p, weight in itertools.product((1, 2), (None, w)):
        same(lambda x, p=p, weight=weight: F.multi_margin_loss(
                x, kg.tensor(t), p, 0.7, weight if weight is None else kg.tensor(weight), **r),
             lambda x, p=p, weight=weight: T.multi_margin_loss(
                x, torch.tensor(t), p, 0.7, weight if weight is None else torch.tensor(weight), **r), a)  # fmt: skip
    lists = np.array([[3, 0, -1, 1, 1], [-1, 0, 0, 0, 0], [0, 1, 2, 3, 4], [2, -1, 2, -1, 0]])
    same(lambda x: F.multilabel_margin_loss(x, kg.tensor(lists), **r),
         lambda x: T.multilabel_margin_loss(x, torch.tensor(lists), **r), a)  # fmt: skip
    ones = (rng.random((4, 5)) < 0.5).astype(float)
    same(lambda x: F.multilabel_soft_margin_loss(x, kg.tensor(ones), **r),
         lambda x: T.multilabel_soft_margin_loss(x, torch.tensor(ones), **r), a, second=True)  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_soft_margin(rng, reduction):
    x, t = rng.standard_normal((3, 4)) * 3, np.where(rng.random((3, 4)) < 0.5, -1.0, 1.0)
    same(lambda x: F.soft_margin_loss(x, kg.tensor(t), reduction=reduction),
         lambda x: T.soft_margin_loss(x, torch.tensor(t), reduction=reduction), x, second=True)  # fmt: skip
    assert F.soft_margin_loss(kg.tensor([-1000.0]), kg.tensor([1.0])).item() == 1000.0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gaussian_nll(rng, reduction):
    a, b = rng.standard_normal((2, 4, 5))
    for v in (rng.uniform(0.1, 2, (4, 5)), rng.uniform(0.1, 2, (4, 1)), rng.uniform(0.1, 2, 4)):
        for full in (False, True):
            same(
                F.gaussian_nll_loss,
                T.gaussian_nll_loss,
                a,
                b,
                v,
                full=full,
                reduction=reduction,
                second=True,
            )
    same(
        F.gaussian_nll_loss,
        T.gaussian_nll_loss,
        a,
        b,
        np.zeros((4, 5)),
        eps=0.1,
        reduction=reduction,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc(rng, reduction):
    T_, N, C = 8, 4, 5
    logits = rng.standard_normal((T_, N, C))
    targets = rng.integers(1, C, (N, 4))
    targets[1, :2] = 3  # a repeated label needs a blank between
    lengths, target_lengths = np.array([8, 7, 3, 8]), np.array([4, 2, 1, 0])
    ks, ts = (
        [f(v) for v in (targets, lengths, target_lengths)]
        for f in (kg.from_numpy, torch.from_numpy)
    )
    same(lambda x: F.ctc_loss(F.log_softmax(x, 2), *ks, reduction=reduction),
         lambda x: T.ctc_loss(T.log_softmax(x, 2), *ts, reduction=reduction), logits)  # fmt: skip
    same(lambda x: F.ctc_loss(F.log_softmax(x, 2), ks[0] - 1, *ks[1:], blank=4, reduction=reduction),
         lambda x: T.ctc_loss(T.log_softmax(x, 2), ts[0] - 1, *ts[1:], blank=4, reduction=reduction),
         logits)  # fmt: skip
    flat = np.concatenate([t[:n] for t, n in zip(targets, target_lengths, strict=True)])
    same(lambda x: F.ctc_loss(F.log_softmax(x, 2), kg.from_numpy(flat), *ks[1:], reduction=reduction),
         lambda x: T.ctc_loss(T.log_softmax(x, 2), torch.from_numpy(flat), *ts[1:], reduction=reduction),
         logits)  # fmt: skip
    same(lambda x: F.ctc_loss(F.log_softmax(x, 1), ks[0][0], [8], [4], reduction=reduction),
         lambda x: T.ctc_loss(T.log_softmax(x, 1), ts[0][0], [8], [4], reduction=reduction),
         logits[:, 0])  # fmt: skip


def test_ctc_of_a_target_too_long(rng):
    x = rng.standard_normal((2, 1, 4))
    args = ([[1, 2, 3]], [2], [3])
    k, t = both(x)
    assert F.ctc_loss(F.log_softmax(k, 2), *map(kg.tensor, args)).item() == np.inf
    same(lambda x: F.ctc_loss(F.log_softmax(x, 2), *map(kg.tensor, args), zero_infinity=True),
         lambda x: T.ctc_loss(T.log_softmax(x, 2), *map(torch.tensor, args), zero_infinity=True), x)  # fmt: skip


def test_ctc_second_order(rng):
    """PyTorch has none; the gradient of a directional derivative is compared with differences."""
    x, v = rng.standard_normal((2, 4, 2, 3))
    args = ([[1, 2], [2, 2]], [4, 4], [1, 2])

    def slope(x):
        x = kg.tensor(x, requires_grad=True)
        loss = F.ctc_loss(F.log_softmax(x, 2), *map(kg.tensor, args), reduction="sum")
        (g,) = kg.autograd.grad(loss, x, create_graph=True)
        return x, (g * kg.tensor(v)).sum()

    leaf, s = slope(x)
    (second,) = kg.autograd.grad(s, leaf)
    u, eps = rng.standard_normal(x.shape), 1e-5
    numeric = (slope(x + eps * u)[1].item() - slope(x - eps * u)[1].item()) / (2 * eps)
    assert (second.array * u).sum() == pytest.approx(numeric, rel=1e-6)


def test_linear_cross_entropy(rng):
    x, w, b, t = (
        rng.standard_normal((4, 3)),
        rng.standard_normal((5, 3)),
        rng.standard_normal(5),
        rng.integers(0, 5, 4),
    )
    same(lambda x, w, b: F.linear_cross_entropy(x, w, kg.tensor(t), linear_bias=b),
         lambda x, w, b: T.cross_entropy(T.linear(x, w, b), torch.tensor(t)), x, w, b)  # fmt: skip


def test_distances(rng):
    a, b = rng.standard_normal((2, 4, 5))
    a[1] = b[1]
    for dim in (0, 1, -1):
        same(F.cosine_similarity, T.cosine_similarity, a, b, dim=dim, second=True)
    same(F.cosine_similarity, T.cosine_similarity, a[:, None], b, dim=-1)
    for p in (1.0, 2.0, 3.5, np.inf):
        same(F.pairwise_distance, T.pairwise_distance, a, b, p=p)
        same(F.normalize, T.normalize, a, p=p, dim=1)
        same(F.pdist, T.pdist, a, p=p)
    same(F.pairwise_distance, T.pairwise_distance, a, b, keepdim=True, second=True)
    zero = np.zeros((2, 3))
    same(F.normalize, T.normalize, zero)
    same(F.normalize, T.normalize, a, dim=0, second=True)
    out = kg.empty(4, 5, dtype=kg.float64)
    assert F.normalize(kg.tensor(a), out=out) is out


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_of_ignored_targets_has_no_gradient(smoothing):
    x = kg.randn(3, 4, requires_grad=True)
    target = kg.tensor([-100, -100, -100])
    loss = kg.nn.functional.cross_entropy(x, target, label_smoothing=smoothing)
    loss.backward()
    assert loss.isnan()
    assert not x.grad.any()

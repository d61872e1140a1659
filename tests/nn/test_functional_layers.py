"""linear, convolution, pooling, normalisation, dropout, embedding."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kilograd as kg
from kilograd.kernels.blocks import BLOCK
from tests.nn.compare import both, close, same

F, T = kg.nn.functional, torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- linear ---------------------------------------------------------------------------------------


def test_linear(rng):
    w, b = rng.standard_normal((4, 3)), rng.standard_normal(4)
    for shape in [(3,), (5, 3), (2, 5, 3), (2, 1, 5, 3), (0, 3), (2, 0, 3)]:
        x = rng.standard_normal(shape)
        same(F.linear, T.linear, x, w, b, second=True)
        same(F.linear, T.linear, x, w, second=True)
    x = rng.standard_normal((2, 3))
    same(F.linear, T.linear, x, w[0])
    assert F.linear(kg.tensor(x), kg.tensor(w[0]), kg.tensor(0.5, dtype=kg.float64)).shape == (2,)
    same(F.linear, T.linear, x, np.zeros((0, 3)))
    same(F.linear, T.linear, np.zeros((2, 0)), np.zeros((4, 0)), b)
    same(
        F.bilinear,
        T.bilinear,
        x,
        rng.standard_normal((2, 5)),
        rng.standard_normal((4, 3, 5)),
        b,
        second=True,
    )
    same(F.bilinear, T.bilinear, x[0], rng.standard_normal(5), rng.standard_normal((4, 3, 5)))


def test_linear_refuses():
    with pytest.raises(RuntimeError, match=r"linear.*\[2, 3\].*\[5, 4\]"):
        F.linear(kg.ones(2, 3), kg.ones(5, 4))
    with pytest.raises(RuntimeError, match="same"):
        F.linear(kg.ones(2, 3), kg.ones(5, 3, dtype=kg.float64))
    with pytest.raises(RuntimeError, match="bilinear"):
        F.bilinear(kg.ones(2, 3), kg.ones(2, 4), kg.ones(5, 3, 3))


# --- convolution ------------------------------------------------------------------------------------

CONVOLUTIONS = [
    {}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding": "same"},
    {"padding": "same", "dilation": 2}, {"padding": "valid"}, {"stride": 3, "padding": 2, "groups": 2},
]  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv(rng, n, options):
    x = rng.standard_normal((2, 4, 7, 6, 8)[: n + 2])
    w = rng.standard_normal((6, 4 // options.get("groups", 1), 3, 2, 3)[: n + 2])
    b = rng.standard_normal(6)
    ours, theirs = getattr(F, f"conv{n}d"), getattr(T, f"conv{n}d")
    same(ours, theirs, x, w, b, second=n < 3, rtol=1e-5, **options)
    same(ours, theirs, x[0], w, **options)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "output_padding": 1}, {"padding": 1, "dilation": 2}, {"groups": 2, "stride": 2},
     {"stride": 2, "padding": 1, "output_padding": 1, "dilation": 3},
     {"stride": 1, "padding": 0, "output_padding": 2, "dilation": 3},
     {"stride": 2, "padding": 2, "output_padding": 3, "dilation": 4}],
)  # fmt: skip
def test_conv_transpose(rng, n, options):
    x = rng.standard_normal((2, 4, 3, 4, 3)[: n + 2])
    w = rng.standard_normal((4, 6 // options.get("groups", 1), 3, 2, 2)[: n + 2])
    b = rng.standard_normal(6)
    ours, theirs = getattr(F, f"conv_transpose{n}d"), getattr(T, f"conv_transpose{n}d")
    same(ours, theirs, x, w, b, second=n < 3, rtol=1e-5, **options)
    same(ours, theirs, x[0], w, **options)


def test_a_stride_for_each_dimension(rng):
    x, w = rng.standard_normal((1, 2, 9, 8)), rng.standard_normal((3, 2, 3, 2))
    same(F.conv2d, T.conv2d, x, w, stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    same(F.conv2d, T.conv2d, x, w, stride=[2], padding=[1])


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (((1, 3, 8, 8), (4, 2, 3, 3)), {}, "3 channels"),
        (((1, 2, 2, 2), (4, 2, 3, 3)), {}, "Kernel size can't be greater"),
        (((2, 8), (4, 2, 3, 3)), {}, "3D .unbatched. or 4D"),
        (((1, 2, 8, 8), (4, 2, 3)), {}, "4D weight"),
        (((1, 2, 8, 8), (4, 2, 3, 3), (3,)), {}, "bias"),
        (((1, 2, 8, 8), (4, 2, 3, 3)), {"stride": 0}, "stride"),
        (((1, 2, 8, 8), (4, 2, 3, 3)), {"padding": -1}, "negative padding"),
        (((1, 2, 8, 8), (4, 2, 3, 3)), {"padding": "same", "stride": 2}, "strided"),
        (((1, 2, 8, 8), (4, 2, 3, 3)), {"padding": "full"}, "padding string"),
        (((1, 2, 8, 8), (5, 1, 3, 3)), {"groups": 2}, "divisible"),
        (((1, 2, 8, 8), (4, 2, 3, 3)), {"stride": (1, 2, 3)}, "stride"),
    ],
)
def test_conv_refuses(args, options, message):
    with pytest.raises(RuntimeError, match=message):
        F.conv2d(*[kg.ones(*a) for a in args], **options)


def test_conv_refuses_other_dtypes_and_output_padding():
    with pytest.raises(RuntimeError, match="dtypes"):
        F.conv1d(kg.ones(1, 1, 5), kg.ones(1, 1, 3, dtype=kg.float64))
    with pytest.raises(RuntimeError, match="output padding"):
        F.conv_transpose1d(kg.ones(1, 1, 5), kg.ones(1, 1, 3), output_padding=1)


def test_unfold_and_fold(rng):
    x = rng.standard_normal((2, 3, 6, 7))
    for options in (
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "stride": 2, "padding": (1, 0), "dilation": 2},
    ):
        same(F.unfold, T.unfold, x, second=True, **options)
        same(F.unfold, T.unfold, x[0], **options)
        columns = F.unfold(kg.tensor(x), **options).array
        same(F.fold, T.fold, columns, output_size=(6, 7), second=True, **options)
        same(F.fold, T.fold, columns[0], output_size=(6, 7), **options)
    with pytest.raises(RuntimeError, match="sliding blocks"):
        F.fold(kg.ones(1, 9, 5), (4, 4), 3)


# --- pooling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_max_pool(rng, n):
    x = rng.standard_normal((2, 3, 7, 6, 8)[: n + 2])
    ours, theirs = getattr(F, f"max_pool{n}d"), getattr(T, f"max_pool{n}d")
    for options in (
        {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True}, {"kernel_size": (2,) * n, "stride": (3,) * n},
    ):  # fmt: skip
        same(ours, theirs, x, second=True, **options)
        same(ours, theirs, x[0], **options)
        k, t = both(x)
        (y, i), (z, j) = (
            ours(k, return_indices=True, **options),
            theirs(t, return_indices=True, **options),
        )
        close(y, z)
        close(i, j)
        (g,), (h,) = kg.autograd.grad((y * y).sum(), k), torch.autograd.grad((z * z).sum(), t)
        close(g, h)
    y, i = ours(k, 2, return_indices=True)
    z, j = theirs(t, 2, return_indices=True)
    for size in (None, x.shape[2:], x.shape):
        back = getattr(F, f"max_unpool{n}d")(y, i, 2, output_size=size)
        close(back, getattr(T, f"max_unpool{n}d")(z, j, 2, output_size=size))
    same(lambda y: getattr(F, f"max_unpool{n}d")(y, i, 2), lambda z: getattr(T, f"max_unpool{n}d")(z, j, 2),
         y.array, second=True)  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3])
def test_average_pools(rng, n):
    x = rng.standard_normal((2, 3, 7, 6, 8)[: n + 2])
    for options in (
        {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True},
    ):  # fmt: skip
        same(getattr(F, f"avg_pool{n}d"), getattr(T, f"avg_pool{n}d"), x, second=True, **options)
        same(getattr(F, f"avg_pool{n}d"), getattr(T, f"avg_pool{n}d"), x[0], **options)
    for size in (1, 3, 9):
        same(getattr(F, f"adaptive_avg_pool{n}d"), getattr(T, f"adaptive_avg_pool{n}d"), x, output_size=size,
             second=True)  # fmt: skip
        same(getattr(F, f"adaptive_max_pool{n}d"), getattr(T, f"adaptive_max_pool{n}d"), x, output_size=size,
             second=True)  # fmt: skip
    for p in (1.0, 2.0, 3.0, np.inf):
        same(
            getattr(F, f"lp_pool{n}d"),
            getattr(T, f"lp_pool{n}d"),
            abs(x),
            norm_type=p,
            kernel_size=2,
        )


def test_pools_of_two_dimensions(rng):
    x = rng.standard_normal((2, 3, 7, 6))
    same(F.avg_pool2d, T.avg_pool2d, x, kernel_size=3, divisor_override=2)
    same(F.adaptive_avg_pool2d, T.adaptive_avg_pool2d, x, output_size=(None, 2))
    close(
        F.avg_pool2d(kg.arange(-8, 8).reshape(1, 1, 4, 4), 3, 1),
        T.avg_pool2d(torch.arange(-8, 8).reshape(1, 1, 4, 4), 3, 1),
    )
    for name, options in (
        ("fractional_max_pool2d", {"output_size": (3, 4)}),
        ("fractional_max_pool2d", {"output_ratio": 0.6}),
    ):
        kg.manual_seed(5), torch.manual_seed(5)
        options = {"kernel_size": 2, **options}
        if "output_ratio" in options:
            options["output_ratio"] = (0.6, 0.6)
        same(getattr(F, name), getattr(T, name), x, **options)


def test_nan_is_the_maximum():
    x = np.array([[[1.0, np.nan, 0.0, 2.0]]])
    assert np.isnan(F.max_pool1d(kg.tensor(x), 2).array[0, 0, 0])


@pytest.mark.parametrize(
    ("name", "shape", "args", "message"),
    [
        ("max_pool2d", (1, 1, 4, 4), (2, 2, 2), "at most half"),
        ("max_pool2d", (1, 1, 4, 4), (2, 0), "stride"),
        ("max_pool2d", (1, 1, 2, 2), (3,), "too small"),
        ("max_pool2d", (4, 4), (2,), "3D"),
        ("avg_pool2d", (1, 1, 4, 4), (0,), "kernel size"),
        ("adaptive_avg_pool2d", (1, 1, 4, 4), ((1, 2, 3),), "output_size"),
        ("adaptive_max_pool1d", (1, 1, 4), (-1,), "greater than or equal to 0"),
    ],
)
def test_pools_refuse(name, shape, args, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(F, name)(kg.ones(*shape), *args)


# --- normalisation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 5, 2), (2, 3, 2, 2, 3)])
def test_batch_norm(rng, shape):
    x, w, b = rng.standard_normal(shape) * 2 + 1, rng.standard_normal(3), rng.standard_normal(3)
    for momentum, affine in itertools.product((0.1, 0.7), (True, False)):
        means, variances = both(rng.standard_normal(3)), both(rng.uniform(0.5, 2, 3))
        for pair in (*means, *variances):
            pair.requires_grad = False
        extra = (w, b) if affine else ()
        for training in (True, False):
            same(lambda x, *p, t=training, m=momentum: F.batch_norm(x, means[0], variances[0], *p, training=t, momentum=m),
                 lambda x, *p, t=training, m=momentum: T.batch_norm(x, means[1], variances[1], *p, training=t, momentum=m),
                 x, *extra, second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
            close(*means)
            close(*variances)
    same(
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: T.batch_norm(x, None, None, training=True),
        x,
    )


def test_running_statistics_change_once_and_are_seen_to(rng):
    mean, var = kg.zeros(3), kg.ones(3)
    version = mean._version
    x = kg.tensor(rng.standard_normal((8, 3)), dtype=kg.float32, requires_grad=True)
    y = F.batch_norm(x, mean, var, training=True)
    assert mean._version == version + 1
    after = mean.tolist()
    (g,) = kg.autograd.grad((y * y).sum(), x, create_graph=True)
    kg.autograd.grad(g.sum(), x)
    assert mean.tolist() == after


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_a_large_mean_does_not_spoil_a_norm(rng, offset):
    x = (rng.standard_normal((16, 4, 8)) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    for y, z in [
        (F.batch_norm(kg.tensor(x), None, None, training=True),
         (exact - exact.mean((0, 2), keepdims=True)) / np.sqrt(exact.var((0, 2), keepdims=True) + 1e-5)),
        (F.layer_norm(kg.tensor(x), (8,)),
         (exact - exact.mean(2, keepdims=True)) / np.sqrt(exact.var(2, keepdims=True) + 1e-5)),
        (F.instance_norm(kg.tensor(x)),
         (exact - exact.mean(2, keepdims=True)) / np.sqrt(exact.var(2, keepdims=True) + 1e-5)),
    ]:  # fmt: skip
        np.testing.assert_allclose(y.array, z, atol=2e-6 * max(offset, 1))


def test_batch_norm_of_a_constant():
    y = F.batch_norm(kg.full((4, 2, 3), 7.0), None, None, training=True)
    assert not y.array.any()


def test_batch_norm_refuses():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(kg.ones(1, 3), None, None, training=True)
    with pytest.raises(RuntimeError, match="running_mean should contain 3 elements not .2."):
        F.batch_norm(kg.ones(4, 3), kg.ones(2), kg.ones(3))
    with pytest.raises(RuntimeError, match="weight should contain 3"):
        F.batch_norm(kg.ones(4, 3), kg.ones(3), kg.ones(3), kg.ones(4))
    with pytest.raises(ValueError, match="eps"):
        F.batch_norm(kg.ones(4, 3), None, None, training=True, eps=0.0)


def test_layer_norm(rng):
    x = rng.standard_normal((2, 3, 4))
    for shape in [(4,), (3, 4), (2, 3, 4)]:
        w, b = rng.standard_normal((2, *shape))
        for extra in ((w, b), (w,), ()):
            same(lambda x, *p, s=shape: F.layer_norm(x, s, *p), lambda x, *p, s=shape: T.layer_norm(x, s, *p),
                 x, *extra, second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
        for extra in ((w,), ()):
            same(lambda x, *p, s=shape: F.rms_norm(x, s, *p), lambda x, *p, s=shape: T.rms_norm(x, s, *p),
                 x, *extra, second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
    same(
        lambda x, b: F.layer_norm(x, (4,), None, b),
        lambda x, b: T.layer_norm(x, (4,), None, b),
        x,
        b[0, 0],
    )
    same(lambda x: F.layer_norm(x, (4,)), lambda x: T.layer_norm(x, (4,)), x[:0])
    with pytest.raises(RuntimeError, match="normalized_shape=.5."):
        F.layer_norm(kg.tensor(x), (5,))


def test_norms_in_blocks(rng):
    x = rng.standard_normal((BLOCK // 100, 300)).astype(np.float32)
    w, b = rng.standard_normal((2, 300)).astype(np.float32)
    same(lambda x, w, b: F.layer_norm(x, (300,), w, b), lambda x, w, b: T.layer_norm(x, (300,), w, b),
         x, w, b, rtol=1e-3, atol=1e-4)  # fmt: skip
    same(
        lambda x, w: F.rms_norm(x, (300,), w),
        lambda x, w: T.rms_norm(x, (300,), w),
        x,
        w,
        rtol=1e-3,
        atol=1e-4,
    )
    y = x.reshape(-1, 30, 10)
    same(lambda x, w, b: F.group_norm(x, 5, w, b), lambda x, w, b: T.group_norm(x, 5, w, b),
         y, w[:30], b[:30], rtol=1e-3, atol=2e-4)  # fmt: skip


def test_group_and_instance_norm(rng):
    x, w, b = rng.standard_normal((2, 6, 4, 3)), rng.standard_normal(6), rng.standard_normal(6)
    for groups in (1, 2, 3, 6):
        for extra in ((w, b), (w,), ()):
            same(lambda x, *p, g=groups: F.group_norm(x, g, *p), lambda x, *p, g=groups: T.group_norm(x, g, *p),
                 x, *extra, second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
    same(lambda x: F.group_norm(x, 2), lambda x: T.group_norm(x, 2), x[:, :, 0, 0])
    same(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), lambda x, w, b: T.instance_norm(x, weight=w, bias=b),
         x, w, b, second=True, rtol=1e-5, atol=1e-8)  # fmt: skip
    means, variances = both(np.zeros(6)), both(np.ones(6))
    for t in (*means, *variances):
        t.requires_grad = False
    for use in (True, False):
        same(lambda x, use=use: F.instance_norm(x, means[0], variances[0], use_input_stats=use),
             lambda x, use=use: T.instance_norm(x, means[1], variances[1], use_input_stats=use), x)  # fmt: skip
        close(*means)
        close(*variances)
    for shape in ((2, 5, 4), (2, 5, 3, 4)):
        y = rng.standard_normal(shape)
        same(F.local_response_norm, T.local_response_norm, y, size=3, alpha=0.1, k=2.0, second=True)
    with pytest.raises(RuntimeError, match="divisible"):
        F.group_norm(kg.tensor(x), 4)
    with pytest.raises(ValueError, match="more than 1"):
        F.instance_norm(kg.ones(2, 3, 1))


# --- dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("dropout", (5, 7)), ("dropout", (40,)), ("alpha_dropout", (5, 7)), ("dropout1d", (3, 4, 5)),
     ("dropout1d", (4, 5)), ("dropout2d", (3, 4, 5, 2)), ("dropout3d", (2, 4, 5, 2, 2)),
     ("dropout3d", (4, 5, 2, 2)), ("feature_alpha_dropout", (3, 4, 5))],
)  # fmt: skip
def test_dropout_is_torchs_for_the_same_seed(rng, name, shape, p):
    for dtype in (np.float64, np.float32):
        x = rng.standard_normal(shape).astype(dtype)
        for inplace in (False, True):
            kg.manual_seed(1), torch.manual_seed(1)
            same(lambda x, i=inplace: getattr(F, name)(x * 1, p, True, i),
                 lambda x, i=inplace: getattr(T, name)(x * 1, p, True, i), x)  # fmt: skip
    y = kg.tensor(x)
    assert getattr(F, name)(y, p, False) is y


def test_masks_follow_memory_as_torchs_do(rng):
    x = rng.standard_normal((3, 4, 5))
    for name, order in itertools.product(
        ("dropout", "alpha_dropout"), itertools.permutations(range(3))
    ):
        kg.manual_seed(1), torch.manual_seed(1)
        close(getattr(F, name)(kg.tensor(x).permute(order), 0.4, True),
              getattr(T, name)(torch.tensor(x).permute(order), 0.4, True))  # fmt: skip


def test_dropout_refuses():
    for name in (
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
    ):
        for p in (-0.1, 1.5):
            with pytest.raises(ValueError, match="between 0 and 1"):
                getattr(F, name)(kg.ones(2, 3, 4), p)
    with pytest.raises(RuntimeError, match="2D or 3D"):
        F.dropout1d(kg.ones(2))


# --- embedding ------------------------------------------------------------------------------------------


def test_embedding(rng):
    w, i = rng.standard_normal((6, 3)), rng.integers(0, 6, (2, 4))
    i[0] = 5
    for index in (i, i[0], i[0, 0], i[:0]):
        for options in ({}, {"padding_idx": 5}, {"padding_idx": -1}, {"scale_grad_by_freq": True}):
            same(lambda w, index=np.asarray(index), o=options: F.embedding(kg.from_numpy(index), w, **o),
                 lambda w, index=np.asarray(index), o=options: T.embedding(torch.from_numpy(index), w, **o),
                 w, second=True)  # fmt: skip
    for norm in (1.0, 2.0):
        a, b = both(w)
        a.requires_grad = b.requires_grad = False
        close(F.embedding(kg.tensor(i), a, max_norm=0.8, norm_type=norm),
              T.embedding(torch.tensor(i), b, max_norm=0.8, norm_type=norm), rtol=1e-5)  # fmt: skip
        close(a, b, rtol=1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(rng, mode):
    w, i = rng.standard_normal((6, 3)), np.array([1, 2, 2, 5, 0, 3, 1, 1])
    for offsets, options in [
        ([0, 3, 3, 5], {}), ([0, 8], {"include_last_offset": True}), ([0, 2, 4], {"padding_idx": 2}),
    ]:  # fmt: skip
        same(lambda w, o=offsets, k=options: F.embedding_bag(kg.tensor(i), w, kg.tensor(o), mode=mode, **k),
             lambda w, o=offsets, k=options: T.embedding_bag(torch.tensor(i), w, torch.tensor(o), mode=mode, **k),
             w)  # fmt: skip
    same(lambda w: F.embedding_bag(kg.tensor(i.reshape(2, 4)), w, mode=mode),
         lambda w: T.embedding_bag(torch.tensor(i.reshape(2, 4)), w, mode=mode), w)  # fmt: skip
    if mode != "max":  # PyTorch counts the wrong indices here: a row's gradient over its frequency
        k = kg.tensor(w, requires_grad=True)
        F.embedding_bag(
            kg.tensor([1, 2, 1, 1]), k, kg.tensor([0]), mode=mode, scale_grad_by_freq=True
        ).sum().backward()
        once = 1.0 if mode == "sum" else 0.25
        np.testing.assert_allclose(
            k.grad.array, [[0.0] * 3, [once] * 3, [once] * 3, *[[0.0] * 3] * 3]
        )
    if mode == "sum":
        same(lambda w, s: F.embedding_bag(kg.tensor(i), w, kg.tensor([0, 3]), mode="sum", per_sample_weights=s),
             lambda w, s: T.embedding_bag(torch.tensor(i), w, torch.tensor([0, 3]), mode="sum", per_sample_weights=s),
             w, rng.standard_normal(8))  # fmt: skip


def test_embedding_refuses():
    w = kg.ones(4, 2)
    for bad in (4, -1):
        with pytest.raises(IndexError, match="out of range"):
            F.embedding(kg.tensor([0, bad]), w)
        with pytest.raises(IndexError, match="out of range"):
            F.embedding_bag(kg.tensor([0, bad]), w, kg.tensor([0]))
    with pytest.raises(RuntimeError, match="indices of type"):
        F.embedding(kg.ones(2), w)
    with pytest.raises(AssertionError, match="Padding_idx"):
        F.embedding(kg.tensor([0]), w, padding_idx=4)


def test_one_hot():
    t = np.array([[0, 2], [1, 1]])
    close(F.one_hot(kg.tensor(t)), T.one_hot(torch.tensor(t)))
    close(F.one_hot(kg.tensor(t), 5), T.one_hot(torch.tensor(t), 5))
    close(F.one_hot(kg.tensor(2)), T.one_hot(torch.tensor(2)))
    close(
        F.one_hot(kg.zeros(0, 2, dtype=kg.int64), 3),
        T.one_hot(torch.zeros(0, 2, dtype=torch.int64), 3),
    )
    with pytest.raises(RuntimeError, match="smaller than num_classes"):
        F.one_hot(kg.tensor(t), 2)
    with pytest.raises(RuntimeError, match="non-negative"):
        F.one_hot(kg.tensor([-1]))
    with pytest.raises(RuntimeError, match="infer"):
        F.one_hot(kg.zeros(0, dtype=kg.int64))

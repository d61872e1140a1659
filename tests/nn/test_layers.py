"""Layers that PyTorch's ``module_db`` leaves out, packed sequences, our own layers, and nn.utils."""

from __future__ import annotations

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn

torch = pytest.importorskip("torch")

LAYERS = [  # code, shapes of the inputs (a list: integers below 10)
    ("nn.Identity(3, a=1)", [(2, 3)]), ("nn.Flatten()", [(2, 3, 4)]), ("nn.Flatten(0, 1)", [(2, 3, 4)]),
    ("nn.Unflatten(1, (2, 3))", [(4, 6)]), ("nn.Dropout(0.3)", [(20, 5)]), ("nn.Dropout(0.3, inplace=False).eval()", [(4, 5)]),
    ("nn.Dropout1d(0.4)", [(8, 6, 3)]), ("nn.Dropout2d(0.4)", [(8, 6, 3, 2)]), ("nn.Dropout3d(0.4)", [(8, 6, 2, 2, 2)]),
    ("nn.AlphaDropout(0.3)", [(20, 5)]), ("nn.FeatureAlphaDropout(0.3)", [(8, 6, 3)]), ("nn.RReLU()", [(20, 5)]),
    ("nn.RReLU(0.1, 0.2).eval()", [(20, 5)]), ("nn.Hardsigmoid()", [(20, 5)]),
    ("nn.Upsample(scale_factor=2)", [(1, 2, 3, 4)]), ("nn.Upsample(size=(5, 7), mode='bilinear')", [(1, 2, 3, 4)]),
    ("nn.Upsample(scale_factor=(2, 3), mode='bicubic', align_corners=True)", [(1, 2, 3, 4)]),
    ("nn.Upsample(scale_factor=2.5, mode='linear')", [(1, 2, 4)]), ("nn.Upsample(scale_factor=2, mode='trilinear')", [(1, 2, 2, 3, 2)]),
    ("nn.UpsamplingNearest2d(scale_factor=3)", [(1, 2, 3, 2)]), ("nn.UpsamplingBilinear2d(size=(4, 5))", [(1, 2, 3, 2)]),
    ("nn.PixelShuffle(2)", [(1, 8, 2, 3)]), ("nn.PixelUnshuffle(2)", [(1, 2, 4, 6)]), ("nn.ChannelShuffle(2)", [(1, 6, 2, 2)]),
    ("nn.Fold((4, 5), (2, 2), padding=1)", [(2, 12, 30)]), ("nn.Unfold((2, 3), dilation=2, stride=2)", [(2, 3, 7, 8)]),
    ("nn.CosineSimilarity()", [(4, 5), (4, 5)]), ("nn.CosineSimilarity(dim=0, eps=1e-3)", [(4, 5), (4, 5)]),
    ("nn.PairwiseDistance(keepdim=True)", [(4, 5), (4, 5)]), ("nn.PairwiseDistance(1.0)", [(4, 5), (4, 5)]),
    ("nn.TripletMarginLoss()", [(4, 5)] * 3), ("nn.TripletMarginLoss(2.0, 1, swap=True, reduction='none')", [(4, 5)] * 3),
    ("nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(), swap=True)", [(4, 5)] * 3),
    ("nn.EmbeddingBag(10, 4)", [[(3, 5)]]), ("nn.EmbeddingBag(10, 4, mode='sum', padding_idx=2)", [[(3, 5)]]),
    ("nn.EmbeddingBag(10, 4, mode='max')", [[(3, 5)]]), ("nn.Embedding(10, 4, padding_idx=1, max_norm=1.0)", [[(3, 5)]]),
    ("nn.Embedding(10, 4, scale_grad_by_freq=True)", [[(3, 5)]]),
    ("nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0), 2, nn.LayerNorm(8))", [(4, 3, 8), (5, 3, 8)]),
    ("nn.TransformerDecoderLayer(8, 2, 16, 0.3, norm_first=True, activation='gelu', batch_first=True)", [(4, 3, 8), (4, 5, 8)]),
    ("nn.TransformerEncoderLayer(8, 2, 16, 0.3)", [(4, 3, 8)]), ("nn.Transformer(8, 2, 1, 2, 16, 0.2)", [(4, 3, 8), (5, 3, 8)]),
    ("nn.MultiheadAttention(8, 2, dropout=0.3)", [(4, 3, 8), (5, 3, 8), (5, 3, 8)]),
    ("nn.LSTM(3, 4, 3, dropout=0.4, bidirectional=True)", [(5, 2, 3)]), ("nn.GRU(3, 4, 2, batch_first=True, dropout=0.4)", [(2, 5, 3)]),
    ("nn.RNN(3, 4, 2, 'relu', False)", [(5, 2, 3)]), ("nn.LSTM(3, 4, proj_size=2)", [(5, 2, 3)]), ("nn.GRU(3, 4)", [(5, 3)]),
    ("nn.RNNCell(3, 4, nonlinearity='relu')", [(3,)]), ("nn.LSTMCell(3, 4)", [(2, 3)]), ("nn.GRUCell(3, 4, False)", [(2, 3)]),
    ("nn.BatchNorm1d(3, momentum=None)", [(6, 3)]), ("nn.BatchNorm2d(3, affine=False)", [(6, 3, 2, 2)]),
    ("nn.BatchNorm1d(3, track_running_stats=False).eval()", [(6, 3)]), ("nn.InstanceNorm1d(3, affine=True, track_running_stats=True)", [(3, 7)]),
    ("nn.Conv2d(2, 4, 3, padding='same', padding_mode='reflect')", [(1, 2, 6, 5)]), ("nn.Conv1d(2, 4, 4, padding='same', dilation=2)", [(1, 2, 9)]),
    ("nn.Conv3d(2, 2, 2, padding=1, padding_mode='circular', groups=2)", [(1, 2, 3, 3, 4)]),
    ("nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1, dilation=2)", [(1, 2, 3, 3)]), ("nn.Conv2d(2, 3, 2)", [(2, 4, 4)]),
    ("nn.AdaptiveLogSoftmaxWithLoss(16, 10, [3, 6], div_value=2.0, head_bias=True)", [(5, 16), [(5,)]]),
    ("nn.MaxPool2d(2, ceil_mode=True, return_indices=True)", [(1, 2, 5, 5)]), ("nn.LocalResponseNorm(3)", [(2, 6, 3, 3)]),
    ("nn.Softmax2d()", [(2, 3, 2, 2)]), ("nn.MultiMarginLoss(2, 0.5, weight=one(4))", [(3, 4), [(3,), 4]]),
]  # fmt: skip


def tensors(value):
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return [value] if hasattr(value, "requires_grad") else []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("code", "shapes"), LAYERS, ids=[c for c, _ in LAYERS])
def test_like_pytorchs(code, shapes):
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(0, s[1] if len(s) > 1 else 10, s[0])
        if isinstance(s, list)
        else rng.standard_normal(s)
        for s in shapes
    ]
    results = []
    for library in (torch, kg):
        library.manual_seed(3)
        layer = eval(
            code, {"nn": library.nn, "one": lambda n, lib=library: lib.ones(n, dtype=lib.float64)}
        ).to(library.float64)
        xs = [library.tensor(a) for a in inputs]
        for x, a in zip(xs, inputs, strict=True):
            x.requires_grad_(a.dtype.kind == "f")
        library.manual_seed(4)
        outs = [o for o in tensors(layer(*xs)) if o is not None]
        found = [o.detach().numpy() for o in outs]
        ups = [np.cos(np.arange(f.size, dtype=f.dtype)).reshape(f.shape) for f in found]
        wanted = [t for t in (*xs, *layer.parameters()) if t.requires_grad]
        live = [(o, library.tensor(u)) for o, u in zip(outs, ups, strict=True) if o.requires_grad]
        if live and wanted:
            outs, ups = zip(*live, strict=True)
            grads = library.autograd.grad(outs, wanted, ups, allow_unused=True)
            found += [None if g is None else g.detach().numpy() for g in grads]
        found += [b.detach().numpy() for b in layer.buffers()]
        results.append((found, repr(layer).replace("torch.", "kilograd.")))
    (theirs, text), (ours, our_text) = results
    assert our_text == text
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert (a is None) == (b is None), i
        if a is not None:
            assert a.dtype == b.dtype
            # PyTorch's hardsigmoid computes its gradient with 1/6 in float32
            rtol = 1e-7 if "Hardsigmoid" in code else 1e-9
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-10, err_msg=f"{i}")


# --- packed sequences ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "kwargs", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "two-both"]
)
@pytest.mark.parametrize("lengths", [[5, 3, 1], [2, 4, 4, 1]])
def test_packed(kind, kwargs, lengths):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((max(lengths), len(lengths), 3))
    layers = kwargs.get("num_layers", 1) * (2 if "bidirectional" in kwargs else 1)
    h = rng.standard_normal((layers, len(lengths), 4))
    results = []
    for lib in (torch, kg):
        lib.manual_seed(1)
        layer = getattr(lib.nn, kind)(3, 4, **kwargs).to(lib.float64)
        xs, h0 = lib.tensor(x).requires_grad_(), lib.tensor(h).requires_grad_()
        packed = lib.nn.utils.rnn.pack_padded_sequence(xs, lengths, enforce_sorted=False)
        out, state = layer(packed, (h0, h0 * 0.5) if kind == "LSTM" else h0)
        y, n = lib.nn.utils.rnn.pad_packed_sequence(out)
        outs = [y, *tensors(state)]
        loss = sum(
            (o * lib.tensor(np.sin(np.arange(o.numel())).reshape(tuple(o.shape)))).sum()
            for o in outs
        )
        grads = lib.autograd.grad(loss, [xs, h0, *layer.parameters()])
        results.append(
            [n.numpy(), out.batch_sizes.numpy(), *(t.detach().numpy() for t in (*outs, *grads))]
        )
    for a, b in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def both(f):
    """What f gives with each library (exceptions too), as plain values."""

    def plain(v):
        if hasattr(v, "detach"):
            return v.detach().numpy().tolist(), str(v.dtype).rpartition(".")[2]
        if isinstance(v, tuple) and hasattr(v, "_fields"):
            return [plain(x) for x in v]
        if isinstance(v, (list, tuple)):
            return [plain(x) for x in v]
        return v

    results = []
    for lib in (torch, kg):
        try:
            results.append(plain(f(lib, lib.nn.utils.rnn)))
        except Exception as e:
            results.append(type(e))
    return results


@pytest.mark.parametrize("f", [
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(3, 4), [3, 2, 2, 1]),
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(4, 3), l.tensor([3, 2, 2, 1]), batch_first=True),
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(4, 3), [1, 3, 2, 3], True, enforce_sorted=False),
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(3, 4), [1, 2, 2, 1]),
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(3, 4), [3, 2]),
    lambda l, r: r.pack_padded_sequence(l.arange(12).reshape(3, 4), [3, 2, 1, 0]),
    lambda l, r: r.pack_padded_sequence(l.zeros(0, 4), [0, 0, 0, 0]),
    lambda l, r: r.pad_packed_sequence(r.pack_sequence([l.arange(3), l.arange(2)]), total_length=5, padding_value=-1),
    lambda l, r: r.pad_packed_sequence(r.pack_sequence([l.arange(3), l.arange(2)]), total_length=2),
    lambda l, r: r.pad_packed_sequence(r.pack_sequence([l.ones(1, 2), l.ones(3, 2)], enforce_sorted=False), True),
    lambda l, r: r.pad_sequence([l.ones(2, 3), l.ones(4, 3)]),
    lambda l, r: r.pad_sequence([l.ones(2), l.ones(4)], True, 7.0, padding_side="left"),
    lambda l, r: r.pad_sequence(l.ones(2, 4)), lambda l, r: r.pad_sequence(3),
    lambda l, r: r.pad_sequence([l.ones(2)], padding_side="up"),
    lambda l, r: r.unpad_sequence(l.arange(12).reshape(4, 3), l.tensor([4, 2, 1])),
    lambda l, r: r.unpack_sequence(r.pack_sequence([l.arange(1), l.arange(3)], enforce_sorted=False)),
    lambda l, r: r.pack_sequence([l.arange(2), l.arange(3)]),
    lambda l, r: r.pack_sequence([l.arange(2.0)]).double().data,
])  # fmt: skip
def test_sequence_tools(f):
    theirs, ours = both(f)
    assert ours == theirs


# --- gradients' norms -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [2.0, 1.0, 3.5, float("inf"), float("-inf"), 0.0])
def test_clipping(norm):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype("float32") for s in ((3, 4), (5,), ())]
    found = []
    for lib in (torch, kg):
        ps = [lib.nn.Parameter(lib.tensor(a)) for a in arrays]
        for p, a in zip(ps, arrays, strict=True):
            p.grad = lib.tensor(a * 3)
        ps.append(lib.nn.Parameter(lib.zeros(2)))
        total = lib.nn.utils.get_total_norm([p.grad for p in ps[:3]], norm)
        result = lib.nn.utils.clip_grad_norm_(iter(ps), 0.7, norm)
        first = [p.grad.numpy().copy() for p in ps[:3]]
        lib.nn.utils.clip_grad_value_(ps, 0.05)
        found.append([total.numpy(), result.numpy(), *first, *(p.grad.numpy() for p in ps[:3])])
    for a, b in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
        assert a.dtype == b.dtype


def test_clipping_nothing_and_infinities():
    p = nn.Parameter(kg.zeros(2))
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0
    p.grad = kg.tensor([1.0, float("inf")])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert nn.utils.clip_grad_norm_(p, 1.0).item() == float("inf")
    with pytest.warns(UserWarning, match="empty generator"):
        nn.utils.clip_grad_norm_((q for q in ()), 1.0)


def test_vectors():
    net = nn.Linear(3, 2)
    v = nn.utils.parameters_to_vector(net.parameters())
    assert v.shape == (8,)
    nn.utils.vector_to_parameters(kg.arange(8.0), net.parameters())
    assert net.bias.tolist() == [6.0, 7.0]
    assert net.weight.is_leaf
    with pytest.raises(TypeError):
        nn.utils.vector_to_parameters([1.0], net.parameters())


def test_pytorchs_weights_can_be_loaded_as_they_are():
    theirs, ours = torch.nn.LSTM(3, 4), nn.LSTM(3, 4)
    ours.load_state_dict(theirs.state_dict())
    x = np.ones((2, 1, 3), "float32")
    a, b = theirs(torch.tensor(x))[0], ours(kg.tensor(x))[0]
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-5, atol=1e-6)


# --- layers PyTorch does not have -----------------------------------------------------------------


def test_our_own_layers():
    x = kg.randn(2, 3, 5, 6, requires_grad=True)
    np.testing.assert_allclose(
        nn.GlobalAvgPool2d()(x).detach().numpy(), x.array.mean((2, 3)), rtol=1e-5
    )
    smallest = nn.MinPool2d(2, padding=1)(x)
    assert (smallest.detach() == -nn.MaxPool2d(2, padding=1)(-x).detach()).all()
    values, where = nn.MinPool2d(2, return_indices=True)(x)
    np.testing.assert_array_equal(
        x.array.reshape(2, 3, -1)[0, 0][where.array[0, 0]], values.detach().numpy()[0, 0]
    )
    smallest.sum().backward()
    assert x.grad.sum().item() == smallest.numel()
    assert nn.Exp()(kg.zeros(2)).tolist() == [1.0, 1.0]
    neuron = nn.Neuron(3)
    assert neuron(kg.ones(4, 3)).shape == (4, 1)
    assert repr(neuron) == "Neuron(inputs=3)"
    assert neuron.num_params() == 4


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "lstm with projection", "gru"])
def test_recurrences_have_all_orders_of_gradients(kind, reverse):
    from kilograd.ops import rnn as ops

    rng = np.random.default_rng(0)

    def leaf(*shape):
        return kg.tensor(rng.standard_normal(shape) * 0.7, requires_grad=True)

    how = {"sizes": (2, 1), "reverse": reverse}
    if kind == "rnn":
        args, how["nonlinearity"] = (leaf(3, 2), leaf(2, 2), leaf(2, 2), leaf(2)), "tanh"
    elif kind == "gru":
        args = (leaf(3, 3), leaf(2, 1), leaf(3, 1), leaf(3))
    elif kind == "lstm":
        args = (leaf(3, 4), leaf(2, 1), leaf(2, 1), leaf(4, 1), leaf(4), None)
    else:
        args = (leaf(3, 8), leaf(2, 1), leaf(2, 2), leaf(8, 1), None, leaf(1, 2))
    op = getattr(ops, kind.partition(" ")[0])
    for a, b in zip(op(*args, **how), op.composition(*args, **how), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
    given = [a for a in args if a is not None]

    def call(*xs):
        rest = iter(xs)
        return op(*[None if a is None else next(rest) for a in args], **how)

    assert kg.autograd.gradcheck(call, given)
    assert kg.autograd.gradgradcheck(call, given)

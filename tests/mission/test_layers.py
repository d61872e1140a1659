"""Activations and layers, each against its formula."""

from __future__ import annotations

import collections
import runpy
from pathlib import Path

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from tests.mission.rows import close, numbers, row, slopes

F = nn.functional
ROOT = Path(__file__).parents[2]

# --- activations --------------------------------------------------------------------------------


@row("Activations", "ReLU", ancestors="all")
def test_relu():
    """`nn.ReLU` and `F.relu`; the slope at 0 is 0, and the upstream gradient passes where x > 0."""
    a = numbers(3, 4)
    close(slopes(nn.ReLU(), a), np.maximum(a, 0))
    x = kg.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    x.relu().backward(kg.tensor([5.0, 6.0, 7.0]))
    assert x.grad.tolist() == [0, 0, 7]


@row("Activations", "LeakyReLU", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_leaky_relu():
    """`nn.LeakyReLU(negative_slope)`: the slope, 0.01 by default, multiplies what is below 0."""
    a = numbers(3, 4)
    for slope in (0.01, 0.3, 2.0):  # a slope above 1, too: it is no maximum of two lines
        close(slopes(nn.LeakyReLU(slope), a), np.where(a > 0, a, slope * a))


@row("Activations", "SELU", ancestors="synapgrad")
def test_selu():
    """`nn.SELU`, which keeps mean 0 and variance 1."""
    a = numbers(3, 4)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    close(slopes(nn.SELU(), a), scale * np.where(a > 0, a, alpha * (np.exp(a) - 1)))
    y = nn.SELU()(kg.randn(100_000)).array
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02


@row("Activations", "Sigmoid / Tanh", ancestors="synapgrad, neograd, pygrad, simple_autograd")
def test_sigmoid_and_tanh():
    """`nn.Sigmoid` and `nn.Tanh`, without overflow or NaN for any input."""
    a = numbers(3, 4)
    close(slopes(nn.Sigmoid(), a), 1 / (1 + np.exp(-a)))
    close(slopes(nn.Tanh(), a), np.tanh(a))
    x = kg.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    y = nn.Sigmoid()(x)
    y.sum().backward()
    close(y, [0, 0.5, 1], 1e-30)
    close(x.grad, [0, 0.25, 0], 1e-30)


@row("Activations", "Softmax / LogSoftmax", ancestors="all")
def test_softmax_and_log_softmax():
    """`nn.Softmax(dim)` and `nn.LogSoftmax(dim)` over any dimension, stable for large inputs."""
    a = numbers(2, 3, 4)
    for dim in (0, 1, 2, -2):
        expected = np.exp(a) / np.exp(a).sum(dim, keepdims=True)
        close(slopes(nn.Softmax(dim), a), expected)
        close(slopes(nn.LogSoftmax(dim), a), np.log(expected))
    huge = kg.tensor([1000.0, 0.0, -1000.0])
    assert huge.softmax(0).tolist() == [1, 0, 0] and huge.log_softmax(0).tolist() == [0, -1e3, -2e3]


@row("Activations", "Exp module", ancestors="simple_autograd")
def test_exp_module():
    """`nn.Exp`, the exponential as a layer."""
    a = numbers(3, 4)
    close(slopes(nn.Sequential(nn.Exp(), nn.Exp()), a), np.exp(np.exp(a)), 1e-8)


# --- layers -------------------------------------------------------------------------------------


@row("Layers", "Linear", ancestors="all")
def test_linear():
    """`nn.Linear(in, out, bias=True)` of inputs with any leading dimensions, with or without bias."""
    for shape in ((3,), (5, 3), (2, 5, 3)):
        x, w, b = numbers(*shape), numbers(4, 3), numbers(4)
        close(slopes(F.linear, x, w, b), x @ w.T + b)
        close(slopes(F.linear, x, w), x @ w.T)
    layer = nn.Linear(3, 4, bias=False)
    assert layer.bias is None and layer.weight.shape == (4, 3)
    assert list(layer.state_dict()) == ["weight"]


@row("Layers", "Neuron", ancestors="synapgrad")
def test_neuron():
    """`nn.Neuron(n)`: one linear unit of n inputs."""
    neuron, a = nn.Neuron(3).double(), numbers(5, 3)
    w, b = neuron.weight.detach().numpy(), neuron.bias.detach().numpy()
    close(slopes(neuron, a), a @ w.T + b)
    assert neuron.num_params() == 4


@row("Layers", "Flatten / Identity", ancestors="synapgrad, simple_autograd")
def test_flatten_and_identity():
    """`nn.Flatten(start, end)` and `nn.Identity`."""
    a = numbers(2, 3, 4)
    close(slopes(nn.Flatten(), a), a.reshape(2, 12))
    close(slopes(nn.Flatten(0, 1), a), a.reshape(6, 4))
    x = kg.tensor(a)
    assert nn.Identity()(x) is x


@row("Layers", "Dropout", ancestors="synapgrad, neograd, pygrad")
def test_dropout():
    """`nn.Dropout(p)` drops with probability p while training, scales the rest, and is nothing in evaluation."""
    layer, x = nn.Dropout(0.3), kg.ones(100_000, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    kept = y.array != 0
    assert abs(kept.mean() - 0.7) < 0.01 and list(layer.parameters()) == []
    close(y, kept / np.float32(0.7), 1e-6)
    close(x.grad, y.array)
    assert kg.equal(layer.eval()(x), x)


def direct(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """Convolution by its definition: windows times weights, summed."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    size = [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    parts = zip(np.split(windows, groups, 1), np.split(w, groups, 0), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", v, u) for v, u in parts], 1)


@row("Layers", "Conv1d", ancestors="synapgrad")
def test_conv1d():
    """`nn.Conv1d(in, out, size, stride, padding, dilation, groups)`."""
    x, w, b = numbers(2, 4, 9), numbers(6, 2, 3), numbers(6)
    got = slopes(lambda *t: F.conv1d(*t, stride=2, padding=1, dilation=2, groups=2), x, w, b)
    expected = direct(x[:, :, None], w[:, :, None], (1, 2), ((0, 0), (1, 1)), (1, 2), 2)[:, :, 0]
    close(got, expected + b[:, None])
    assert nn.Conv1d(4, 6, 3)(kg.ones(2, 4, 9)).shape == (2, 6, 7)


@row("Layers", "Conv2d (N,C,H,W)", ancestors="synapgrad, neograd, simple_autograd")
def test_conv2d():
    """`nn.Conv2d(in, out, size)` of images (N, C, H, W), square or not."""
    x, w, b = numbers(2, 3, 5, 4), numbers(4, 3, 3, 2), numbers(4)
    close(slopes(F.conv2d, x, w, b), direct(x, w) + b[:, None, None])
    layer = nn.Conv2d(3, 4, (3, 2))
    assert layer.weight.shape == (4, 3, 3, 2) and layer(kg.ones(2, 3, 5, 4)).shape == (2, 4, 3, 3)


@row("Layers", "single-channel conv (N,H,W)", ancestors="neograd")
def test_single_channel_conv():
    """Images without a channel, (N, H, W), get one by `x.unsqueeze(1)`; one image (C, H, W) needs no batch."""
    x, w = numbers(2, 5, 4), numbers(1, 1, 3, 3)
    got = slopes(lambda x, w: F.conv2d(x.unsqueeze(1), w).squeeze(1), x, w)
    close(got, direct(x[:, None], w)[:, 0])
    close(F.conv2d(kg.tensor(x[:1]), kg.tensor(w)), got[:1])


@row(
    "Layers", "conv stride / padding / dilation / 'same','valid'",
    ancestors="synapgrad, neograd, simple_autograd",
)  # fmt: skip
def test_conv_stride_padding_dilation():
    """`stride`, `padding` (numbers, pairs, "same", "valid"), `dilation`, `groups`; "same" of even sizes, too."""
    x, w = numbers(2, 2, 6, 5), numbers(3, 2, 2, 3)
    got = slopes(lambda *t: F.conv2d(*t, stride=(2, 1), padding=(1, 2), dilation=(1, 2)), x, w)
    close(got, direct(x, w, (2, 1), ((1, 1), (2, 2)), (1, 2)))
    got = slopes(lambda *t: F.conv2d(*t, padding="same"), x, w)
    close(got, direct(x, w, padding=((0, 1), (1, 1))))
    assert got.shape[2:] == (6, 5)
    close(slopes(lambda *t: F.conv2d(*t, padding="valid"), x, w), direct(x, w))
    with pytest.raises(ValueError, match="strided"):
        nn.Conv2d(2, 3, 2, stride=2, padding="same")


def pooled(x, size, stride, how):
    """The windows of the last two dimensions, reduced."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, (-2, -1))
    return how(windows[..., :: stride[0], :: stride[1], :, :], axis=(-2, -1))


@row("Layers", "MaxPool1d / 2d", ancestors="synapgrad, neograd, simple_autograd")
def test_max_pool():
    """`nn.MaxPool1d` and `nn.MaxPool2d`: windows that overlap, borders not covered, padding that never wins."""
    a = numbers(2, 3, 6, 7)
    for size, stride in (((2, 2), (2, 2)), ((3, 2), (1, 2)), ((2, 3), (3, 3))):
        close(slopes(nn.MaxPool2d(size, stride), a), pooled(a, size, stride, np.max))
    close(slopes(nn.MaxPool1d(3, 2), a[0]), pooled(a[0], (1, 3), (1, 2), np.max))
    assert nn.MaxPool2d(2, padding=1)(-kg.ones(1, 1, 2, 2)).tolist() == [[[[-1, -1], [-1, -1]]]]


@row("Layers", "AvgPool1d / 2d", ancestors="synapgrad, simple_autograd")
def test_avg_pool():
    """`nn.AvgPool1d` and `nn.AvgPool2d`, with stride, padding and `count_include_pad`."""
    a = numbers(2, 3, 6, 7)
    for size, stride in (((2, 2), (2, 2)), ((3, 2), (1, 2))):
        close(slopes(nn.AvgPool2d(size, stride), a), pooled(a, size, stride, np.mean))
    close(slopes(nn.AvgPool1d(3, 2), a[0]), pooled(a[0], (1, 3), (1, 2), np.mean))
    x = kg.ones(1, 1, 2, 2)
    assert nn.AvgPool2d(2, padding=1)(x)[0, 0, 0, 0] == 0.25
    assert nn.AvgPool2d(2, padding=1, count_include_pad=False)(x)[0, 0, 0, 0] == 1


@row("Layers", "MinPool2d", ancestors="simple_autograd")
def test_min_pool():
    """`nn.MinPool2d(size, stride)`: the smallest of each window."""
    a = numbers(2, 3, 6, 7)
    close(slopes(nn.MinPool2d((2, 3), 2), a), pooled(a, (2, 3), (2, 2), np.min))


@row("Layers", "GlobalAvgPool2d", ancestors="simple_autograd")
def test_global_avg_pool():
    """`nn.GlobalAvgPool2d`: (N, C, H, W) to (N, C); `nn.AdaptiveAvgPool2d(1)` keeps two dimensions of size 1."""
    a = numbers(2, 3, 4, 5)
    close(slopes(nn.GlobalAvgPool2d(), a), a.mean((2, 3)))
    close(slopes(nn.AdaptiveAvgPool2d(1), a), a.mean((2, 3), keepdims=True))


@row("Layers", "Unfold / Fold (im2col, col2im)", ancestors="synapgrad")
def test_unfold_and_fold():
    """`nn.Unfold(size)` makes columns of patches, `nn.Fold(output, size)` adds them up again."""
    a, w = numbers(2, 3, 5, 4), numbers(4, 3, 3, 2)
    columns = slopes(nn.Unfold((3, 2)), a)
    close((w.reshape(4, -1) @ columns).reshape(2, 4, 3, 3), direct(a, w))
    folded = slopes(nn.Fold((5, 4), (3, 2)), columns)
    counts = nn.Fold((5, 4), (3, 2))(nn.Unfold((3, 2))(kg.ones(1, 1, 5, 4, dtype=kg.float64)))
    close(folded, a * counts.array)


@row("Layers", "BatchNorm1d / 2d", ancestors="synapgrad, simple_autograd")
def test_batch_norm():
    """`nn.BatchNorm1d` and `2d`: biased variance to normalise, unbiased to remember; right gradients in eval."""
    for layer, shape, axes in (
        (nn.BatchNorm1d(3), (6, 3), (0,)), (nn.BatchNorm1d(3), (4, 3, 2), (0, 2)),
        (nn.BatchNorm2d(3), (2, 3, 3, 2), (0, 2, 3)),
    ):  # fmt: skip
        layer, a = layer.double(), numbers(*shape) * 3 + 1
        mean, var = a.mean(axes), a.var(axes)
        wide = (3,) + (1,) * (len(shape) - 2)
        expected = (a - mean.reshape(wide)) / np.sqrt(var.reshape(wide) + 1e-5)
        close(layer(kg.tensor(a)), expected)
        close(layer.running_mean, 0.1 * mean)
        close(layer.running_var, 0.9 + 0.1 * a.var(axes, ddof=1))
        slopes(layer, a)
        layer.eval()
        kept = layer.running_mean.array.copy(), layer.running_var.array.copy()
        expected = (a - kept[0].reshape(wide)) / np.sqrt(kept[1].reshape(wide) + 1e-5)
        close(slopes(layer, a), expected)
        close(layer.running_mean, kept[0])


@row(
    "Layers", "momentum=None cumulative, affine, track_running_stats",
    ancestors="synapgrad, simple_autograd",
)  # fmt: skip
def test_batch_norm_options():
    """`momentum=None` is the mean of all batches; `affine=False`; `track_running_stats=False`."""
    layer, a = nn.BatchNorm1d(3, momentum=None).double(), numbers(4, 5, 3)
    for batch in a:
        layer(kg.tensor(batch))
    close(layer.running_mean, a.mean((0, 1)))
    assert layer.num_batches_tracked == 4
    plain = nn.BatchNorm1d(3, affine=False, track_running_stats=False).double().eval()
    assert plain.weight is None and plain.running_mean is None and not plain.state_dict()
    close(plain(kg.tensor(a[0])).mean(0), np.zeros(3))


@row("Layers", "LayerNorm", ancestors="simple_autograd")
def test_layer_norm():
    """`nn.LayerNorm(shape)` over the last dimensions, with the biased variance."""
    a, w, b = numbers(2, 3, 4), numbers(3, 4), numbers(3, 4)
    got = slopes(lambda x, w, b: F.layer_norm(x, (3, 4), w, b), a, w, b)
    mean, var = a.mean((1, 2), keepdims=True), a.var((1, 2), keepdims=True)
    close(got, (a - mean) / np.sqrt(var + 1e-5) * w + b)
    close(nn.LayerNorm(4).double()(kg.tensor(a)).std(-1, unbiased=False), np.ones((2, 3)), 1e-3)


@row("Layers", "MultiHeadSelfAttention, single_query", ancestors="simple_autograd")
def test_multi_head_self_attention():
    """`nn.MultiheadAttention(dim, heads, batch_first=True)`: `(x, x, x)`; `(x[:, :1], x, x)` for one query."""
    layer, a = nn.MultiheadAttention(4, 2, batch_first=True).double(), numbers(2, 3, 4)
    p = {n: t.detach().numpy() for n, t in layer.named_parameters()}
    q, k, v = np.split(a @ p["in_proj_weight"].T + p["in_proj_bias"], 3, -1)
    heads = []
    for h in (slice(0, 2), slice(2, 4)):
        e = np.exp(q[..., h] @ k[..., h].swapaxes(1, 2) / np.sqrt(2))
        heads.append(e / e.sum(-1, keepdims=True) @ v[..., h])
    expected = np.concatenate(heads, -1) @ p["out_proj.weight"].T + p["out_proj.bias"]
    close(slopes(lambda x: layer(x, x, x, need_weights=False)[0], a), expected)
    close(slopes(lambda x: layer(x[:, :1], x, x)[0], a), expected[:, :1])


@row("Layers", "Sequential (positional)", ancestors="synapgrad, neograd, simple_autograd")
def test_sequential():
    """`nn.Sequential(a, b, c)`: one after the other; can be indexed, sliced, iterated, appended to."""
    model, a = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), numbers(5, 3)
    x = kg.tensor(a)
    assert kg.equal(model(x), model[2](model[1](model[0](x))))
    assert kg.equal(model[:2](x), model[0](x).tanh()) and len(model) == 3
    assert model.append(nn.ReLU())[-1](x).shape == (5, 3)
    slopes(model, a)


@row("Layers", "Sequential(OrderedDict)", ancestors="synapgrad")
def test_sequential_of_an_ordered_dict():
    """`nn.Sequential(OrderedDict(...))` gives the layers names, which are in `state_dict()`."""
    layers = collections.OrderedDict(first=nn.Linear(3, 4), act=nn.ReLU(), last=nn.Linear(4, 1))
    model, x = nn.Sequential(layers), kg.randn(2, 3)
    assert kg.equal(model(x), model.last(model.first(x).relu()))
    assert list(model.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]


@row("Layers", "ViT / ViTBlock example models", ancestors="simple_autograd")
def test_vision_transformer_example():
    """`examples/vit_mnist.py` has the vision transformer and its block, with attention written out."""
    parts = runpy.run_path(str(ROOT / "examples" / "vit_mnist.py"))
    model = parts["ViT"]()
    scores = model(kg.rand(2, 1, 28, 28))
    nn.CrossEntropyLoss()(scores, kg.tensor([3, 7])).backward()
    assert scores.shape == (2, 10) and any(isinstance(m, parts["Block"]) for m in model.modules())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

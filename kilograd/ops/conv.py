"""Convolutions as a closed family of three: the gradients of each are the other two.

Shapes: x (N, C, *spatial), w (O, C/groups, *kernel), y (N, O, *out); ``padding`` is a pair
(before, after) for each spatial dimension. A transposed convolution is the input gradient.
"""

from __future__ import annotations

from kilograd.kernels import conv as kernels
from kilograd.kernels import window
from kilograd.ops.op import op
from kilograd.ops.reduce import sum as sum_


def _add_bias(y, bias):
    if bias is not None:
        y += bias.reshape((-1,) + (1,) * (y.ndim - 2))
    return y


def _bias_gradient(g):
    return sum_(g, axis=(0, *range(2, g.ndim)))


@op(weight=16)
def conv(x, w, bias, *, stride, padding, dilation, groups):
    """The correlation of x with w, plus bias (O,) or None."""
    return kernels.conv_forward(x, w, stride, padding, dilation, groups, bias)


@op(weight=16)
def conv_input(v, w, bias, *, shape, stride, padding, dilation, groups):
    """The transpose of ``conv`` as a map of x: from outputs v to an x of the given shape, plus bias (C,)."""
    x = kernels.conv_input_grad(v, w, shape, stride, padding, dilation, groups)
    return _add_bias(x, bias)


@op(weight=16)
def conv_weight(v, x, *, shape, stride, padding, dilation, groups):
    """The transpose of ``conv`` as a map of w: from outputs v and x to a w of the given shape."""
    return kernels.conv_weight_grad(v, x, shape, stride, padding, dilation, groups)


@conv.vjp("x")
def _(g, w, x_shape, stride, padding, dilation, groups):
    return conv_input(g, w, None, shape=x_shape, stride=stride, padding=padding, dilation=dilation,
                      groups=groups)  # fmt: skip


@conv.vjp("w")
def _(g, x, w_shape, stride, padding, dilation, groups):
    return conv_weight(g, x, shape=w_shape, stride=stride, padding=padding, dilation=dilation,
                       groups=groups)  # fmt: skip


@conv.vjp("bias")
def _(g):
    return _bias_gradient(g)


@conv_input.vjp("v")
def _(g, w, stride, padding, dilation, groups):
    return conv(g, w, None, stride=stride, padding=padding, dilation=dilation, groups=groups)


@conv_input.vjp("w")
def _(g, v, w_shape, stride, padding, dilation, groups):
    return conv_weight(v, g, shape=w_shape, stride=stride, padding=padding, dilation=dilation,
                       groups=groups)  # fmt: skip


@conv_input.vjp("bias")
def _(g):
    return _bias_gradient(g)


@conv_weight.vjp("v")
def _(g, x, stride, padding, dilation, groups):
    return conv(x, g, None, stride=stride, padding=padding, dilation=dilation, groups=groups)


@conv_weight.vjp("x")
def _(g, v, x_shape, stride, padding, dilation, groups):
    return conv_input(v, g, None, shape=x_shape, stride=stride, padding=padding, dilation=dilation,
                      groups=groups)  # fmt: skip


@op
def im2col(x, *, kernel, dilation, padding, stride):
    """The windows of x (N, C, *spatial) as columns: (N, C*prod(kernel), L)."""
    return window.unfold(x, kernel, dilation, padding, stride)


@op
def col2im(x, *, shape, kernel, dilation, padding, stride):
    """The transpose of ``im2col``: columns added up where their windows overlap."""
    return window.fold(x, shape, kernel, dilation, padding, stride)


@im2col.vjp("x")
def _(g, x_shape, kernel, dilation, padding, stride):
    return col2im(g, shape=tuple(x_shape[2:]), kernel=kernel, dilation=dilation, padding=padding,
                stride=stride)  # fmt: skip


@col2im.vjp("x")
def _(g, kernel, dilation, padding, stride):
    return im2col(g, kernel=kernel, dilation=dilation, padding=padding, stride=stride)

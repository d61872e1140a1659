"""Joining a batch norm in evaluation mode with the layer before it."""

from __future__ import annotations

import copy
from typing import Any

from kilograd import functions as fn
from kilograd.autograd.modes import no_grad
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter
from kilograd.tensor import Tensor


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Module:
    """The convolution that does what a convolution and a batch norm do together.

    >>> import kilograd as kg
    >>> conv, bn = kg.nn.Conv2d(1, 2, 3).eval(), kg.nn.BatchNorm2d(2).eval()
    >>> x = kg.randn(1, 1, 5, 5)
    >>> kg.allclose(kg.nn.utils.fuse_conv_bn_eval(conv, bn)(x), bn(conv(x)), atol=1e-6)
    True
    """
    if conv.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose,
    )  # fmt: skip
    return fused


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of the fused convolution (or, without places, of the fused linear layer)."""
    with no_grad():
        scale = fn.rsqrt(bn_rv + bn_eps)
        scale = scale if bn_w is None else scale * bn_w
        places = [1] * (conv_w.ndim - 2)
        shape = [1, -1, *places] if transpose else [-1, 1, *places]
        bias = (-bn_rm if conv_b is None else conv_b - bn_rm) * scale
        bias = bias if bn_b is None else bias + bn_b
        return Parameter(conv_w * scale.reshape(shape)), Parameter(bias)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Module:
    """The linear layer that does what a linear layer and a batch norm do together."""
    return fuse_conv_bn_eval(linear, bn)


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of the fused linear layer."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)

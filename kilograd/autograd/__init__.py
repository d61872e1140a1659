"""Automatic differentiation: the driver, its modes, custom functions and gradient checks.

Tensor stands on the driver and the modes; what stands on Tensor is loaded when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kilograd.autograd.calls import backward as backward
from kilograd.autograd.calls import grad as grad
from kilograd.autograd.modes import enable_grad as enable_grad
from kilograd.autograd.modes import inference_mode as inference_mode
from kilograd.autograd.modes import is_grad_enabled as is_grad_enabled
from kilograd.autograd.modes import no_grad as no_grad
from kilograd.autograd.modes import retain_grads as retain_grads
from kilograd.autograd.modes import set_grad_enabled as set_grad_enabled

if TYPE_CHECKING:
    from kilograd.autograd import functional as functional
    from kilograd.autograd.anomaly import detect_anomaly as detect_anomaly
    from kilograd.autograd.anomaly import set_detect_anomaly as set_detect_anomaly
    from kilograd.autograd.function import Function as Function
    from kilograd.autograd.gradcheck import GradcheckError as GradcheckError
    from kilograd.autograd.gradcheck import gradcheck as gradcheck
    from kilograd.autograd.gradcheck import gradgradcheck as gradgradcheck
    from kilograd.tensor import Tensor as Variable

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "detect_anomaly", "enable_grad",
    "functional", "grad", "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled",
    "no_grad", "retain_grads", "set_detect_anomaly", "set_grad_enabled",
]  # fmt: skip

_ABOVE = {
    "Function": "autograd.function", "GradcheckError": "autograd.gradcheck",
    "gradcheck": "autograd.gradcheck", "gradgradcheck": "autograd.gradcheck",
    "detect_anomaly": "autograd.anomaly", "set_detect_anomaly": "autograd.anomaly",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("kilograd.autograd.functional")
    if name == "Variable":  # the name of before 2018, still met in code
        return importlib.import_module("kilograd.tensor").Tensor
    if name in _ABOVE:
        module = importlib.import_module(f"kilograd.{_ABOVE[name]}")
        for each, where in _ABOVE.items():  # all of it: the module gradcheck has a function's name
            if where == _ABOVE[name]:
                globals()[each] = getattr(module, each)
        return globals()[name]
    raise AttributeError(f"module 'kilograd.autograd' has no attribute {name!r}")

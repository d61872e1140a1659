"""kilograd: PyTorch you can read. An autograd tensor engine and deep-learning library on NumPy.

>>> import kilograd as kg
>>> x = kg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> loss = (x**2).sum()
>>> loss.backward()
>>> x.grad
tensor([2., 4., 6.])
"""
# TEMPORARY tolerant imports while the rooms are being built (the lead finalises this file)
import importlib as _il
import warnings as _w

_w.filterwarnings("ignore", category=RuntimeWarning, module=r"kilograd\.")
from kilograd.dtypes import *  # noqa
from kilograd.dtypes import bool_ as bool, int32 as int, float32 as float  # noqa
from kilograd.tensor import Size, Tensor, device  # noqa
from kilograd.autograd.modes import *  # noqa
from kilograd import functions as _f
globals().update({n: getattr(_f, n) for n in _f.__all__})
for _m in ("random", "autograd", "linalg", "nn", "nn.functional", "optim", "utils", "utils.data", "datasets"):
    try:
        _il.import_module(f"kilograd.{_m}")
    except ModuleNotFoundError as _e:
        if "kilograd" not in str(_e): print("kilograd: skipped", _m, _e)
    except Exception as _e:
        print("kilograd: skipped", _m, type(_e), _e)

"""The public functions, under PyTorch's names: each validates its arguments and calls ops."""
# TEMPORARY tolerant imports while the rooms are being built (the lead finalises this file)
import importlib as _il

__all__ = []
for _m in ("creation", "elementwise", "index", "linalg", "reduce", "sampling", "shape"):
    try:
        _mod = _il.import_module(f"kilograd.functions.{_m}")
    except ModuleNotFoundError as _e:
        if "kilograd.functions" not in str(_e): print("kilograd: skipped functions", _m, _e)
    except Exception as _e:
        print("kilograd: skipped functions", _m, type(_e), _e)
    else:
        _n = [n for n in getattr(_mod, "__all__", []) if hasattr(_mod, n)]
        __all__ += _n
        globals().update({n: getattr(_mod, n) for n in _n})

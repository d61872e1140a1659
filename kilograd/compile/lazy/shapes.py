"""Shapes and dtypes of results, found without computing: an op runs on arrays that have no values.

A :class:`Shaped` array knows its shape, dtype and layout. Its memory is reserved and never touched,
which costs nothing; views are really taken. Each NumPy function that meets one is answered by a
rule: ufuncs broadcast, reductions drop axes, kernels say their shape by a formula. Where no rule is
known, the function runs once on zeros of the right shapes. Errors are the ones that NumPy raises.

Read next: ``values.py``.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd import random
from kilograd.compile.graph import Var, leaves, mapped
from kilograd.compile.lazy import kernel_rules  # noqa: F401  (fills in the rules of kernels)
from kilograd.compile.lazy.rules import RULES, blank, fits, on_zeros, put_rule, rule_of_ufunc, tiny
from kilograd.compile.tracer import Recording, Tracer, concrete
from kilograd.errors import TraceError
from kilograd.kernels.kernel import KERNELS, TRACE, Untraceable
from kilograd.ops.op import REGISTRY

_NO_VAR = Var("_", (), None)  # nothing is written down


def infer(fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[int]]:
    """What ``fn(*args, **kwargs)`` gives, as arrays without values.

    Args:
        fn: a pure function of arrays, or one that writes into arrays it is given.
        args, kwargs: nested structures, the arrays in them without values (``np.empty``).

    Returns:
        The structure of results, and which of the arrays (counted as ``leaves`` finds them in
        ``(args, kwargs)``) are written to.

    Raises:
        Exception: what ``fn`` raises for these shapes and dtypes.

    >>> infer(lambda a, b: np.tanh(a @ b).sum(axis=0), (np.empty((4, 3)), np.empty((3, 2))), {})[0].shape
    (2,)
    """
    shapes = Shapes()
    given: list[Any] = []

    def stand_in(x: Any) -> Any:
        given.append(Shaped(shapes, x, _NO_VAR) if type(x) is np.ndarray else x)
        return given[-1]

    shaped_args, shaped_kwargs = mapped(stand_in, (args, kwargs))
    token = TRACE.set(shapes)
    try:
        with np.errstate(all="ignore"):
            try:
                result = shapes.record(fn, shaped_args, shaped_kwargs)
            except Untraceable:  # a rule that leaves a case to the kernel
                result = on_zeros(fn, args, kwargs)
    finally:
        TRACE.reset(token)
    written = {id(x) for x in shapes.written}
    return _plain(result), [i for i, x in enumerate(given) if id(x) in written]


def _plain(result: Any) -> Any:
    return mapped(
        lambda x: np.asarray(x) if isinstance(x, np.generic) else concrete(x),
        result,
    )


class Shaped(Tracer):
    """An array without values."""

    __slots__ = ()

    def __setitem__(self, index: Any, values: Any) -> None:
        put_rule(self.value, mapped(concrete, index), concrete(values))
        self.trace.wrote(self)  # type: ignore[attr-defined]

    def __contains__(self, value: Any) -> bool:
        raise self.trace.untraceable("in")


class Shapes(Recording):
    """A recording of which nothing is kept but shapes."""

    recording = True

    def __init__(self) -> None:
        super().__init__()
        self.open = False  # tensors hand out their arrays as they are
        self.written: list[Any] = []

    def wrote(self, x: Shaped) -> None:
        """Note that the memory of an array is written to."""
        self.written.append(x.root)

    def cannot(self, what: str) -> None:
        raise self.untraceable(what)

    def value_of(self, x: Any, what: str) -> Any:
        raise self.untraceable(what)

    def to_number(self, x: Any) -> Any:
        raise self.untraceable("a number")

    def record(self, fn: Any, args: Any, kwargs: Any, effect: bool = False) -> Any:
        """The result of a function, by its rule if there is one."""
        rule = RULES.get(fn)
        if rule is None and isinstance(getattr(fn, "__self__", fn), np.ufunc):
            rule = rule_of_ufunc(fn)
        plain = mapped(concrete, args), mapped(concrete, kwargs)
        if rule is not None:
            result = rule(*plain[0], **plain[1])
        else:
            inner = getattr(fn, "__wrapped__", None) if KERNELS.get(_name(fn)) is fn else fn
            if inner is None or getattr(inner, "__module__", "").startswith("numpy"):
                return self.wrapped(on_zeros(fn, *plain), args)
            before = len(self.written)
            try:  # the library's own code: look inside
                return inner(*args, **kwargs)
            except TraceError:
                raise
            except Exception:  # it asks for values; or the shapes do not fit, which zeros will show
                del self.written[before:]
                if any(op.forward is fn for op in REGISTRY.values() if op.view):
                    return self.wrapped(fn(*plain[0], **plain[1]), args)
                return self.wrapped(on_zeros(fn, *plain), args)
        return self.wrapped(result, args)

    def wrapped(self, result: Any, args: Any) -> Any:
        """Results as arrays without values; a view remembers whose memory it looks at."""
        given = [a for a in leaves(args) if isinstance(a, Shaped)]

        def one(x: Any) -> Any:
            if isinstance(x, np.generic):
                x = np.asarray(x)
            if type(x) is not np.ndarray:
                return x
            for a in given:
                if x is a.value:
                    return a
            new = Shaped(self, x, _NO_VAR)
            for a in given:
                if x.base is not None and (x.base is a.value or x.base is a.value.base):
                    new._root = a.root
                    break
            return new

        return mapped(one, result)

    def record_into(self, fn: Any, args: Any, kwargs: Any) -> Any:
        """``fn(*args, out=array)``."""
        out = kwargs.pop("out")
        out = out[0] if type(out) is tuple else out
        if not isinstance(out, Shaped):
            raise self.untraceable("writing into an array that has values")
        result = self.record(fn, args, kwargs)
        if tuple(result.shape) != out.value.shape:
            fits(result.shape, out.value.shape)
        if not np.can_cast(result.dtype, out.value.dtype, "same_kind"):
            tiny = [tiny(concrete(a)) for a in args]
            fn(*tiny, out=np.ones((), out.value.dtype))  # raises NumPy's own error
        self.wrote(out)
        return out

    def copy_to(self, to: Any, source: Any, casting: str = "same_kind", where: Any = True) -> None:
        """``np.copyto``."""
        if not isinstance(to, Shaped):
            raise self.untraceable("writing into an array that has values")
        fits(np.shape(concrete(source)), to.value.shape)
        self.wrote(to)

    # --- what an op may ask of a recording ----------------------------------------------------------

    def opaque(self, fn: Any, args: Any, kwargs: Any, name: str) -> Any:
        """An op inside of an op that needs values."""
        return self.wrapped(on_zeros(fn, mapped(concrete, args), mapped(concrete, kwargs)), args)

    def draw(self, fn: Any, generator: Any, args: Any, kwargs: Any) -> Any:
        """Random numbers that nobody draws."""
        given = inspect.signature(fn).bind(generator, *args, **kwargs)
        given.apply_defaults()
        if fn.__name__ == "multinomial":
            shape = concrete(given.arguments["probs"]).shape
            return Shaped(
                self, blank((*shape[:-1], given.arguments["num_samples"]), np.int64), _NO_VAR
            )
        size, dtype = given.arguments.get("size"), given.arguments.get("dtype")
        for a in given.arguments.values():
            if isinstance(a, Shaped) and dtype is None:
                size, dtype = a.value.shape if size is None else size, a.value.dtype
        if size is not None and dtype is not None:
            shape = (size,) if np.ndim(size) == 0 else size
            return Shaped(self, blank(map(operator.index, shape), dtype), _NO_VAR)
        plain = mapped(concrete, args), mapped(concrete, kwargs)
        return self.wrapped(on_zeros(fn, (random.Generator(), *plain[0]), plain[1]), args)


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", "")

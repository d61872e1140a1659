"""An op = a forward function and its derivative rules, declared side by side.

A rule is plain NumPy. Its argument *names* say what it needs, and only that is kept for the
backward pass:

    ``g``        gradient of the output          ``y``         the output
    ``x``        the input of that name          ``x_shape``   its shape only (keeps no data)
    ``axis``     a keyword-only option           ``mask``      a residual the forward returned

The signature is read once, at import. What an op keeps is therefore visible in its rules, and
``repr(op)`` prints it.

Because a rule is ordinary array code, running it on Tensors instead of ndarrays records the
derivative of the derivative. A rule that is written for speed in raw NumPy belongs to an op with a
``composition``: the same function in terms of other ops, which higher orders differentiate.

Read next: ``ops/elementwise.py``, then ``autograd/driver.py``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from kilograd.kernels.kernel import as_one_step

Rule = Callable[..., Any]
_SHAPE = "_shape"


class Box:
    """What an op looks for among its arguments: a Tensor is a Box with an array inside."""

    array: Any

    def _apply(self, op: Op, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        raise NotImplementedError


class Derivative(NamedTuple):
    """One rule: which inputs it serves, and what it wants to be called with."""

    inputs: tuple[str, ...]
    rule: Rule
    wants: tuple[str, ...]


class Plan(NamedTuple):
    """What to keep and what to run when a given set of inputs needs gradients."""

    keep: Callable[[tuple[Any, ...]], tuple[Any, ...]]  # from (inputs, y, residuals, options)
    shapes: tuple[int, ...]  # inputs of which only the shape is kept (appended to what is kept)
    origin: tuple[int, ...]  # kept value k is input origin[k]; -1: y; -2: residual or option
    rules: tuple[tuple[Any, Rule, Callable[..., Any]], ...]  # (input index or indices, rule, pick)
    joint: bool  # some rule serves several inputs, and may give one array to two of them


class Op:
    """A differentiable (or declared non-differentiable) function of arrays.

    Positional parameters of ``forward`` are arrays (or Python numbers, or None); keyword-only ones
    are options. ``view=True`` says the result may share memory with the first input.
    ``residuals`` names extra values the forward returns after ``y`` for its rules alone.
    ``outputs`` > 1 says the forward returns that many differentiable arrays; ``g`` and ``y`` are
    then tuples. ``weight``: how many additions an element is worth; the heavier, the smaller are
    the arrays from which the op is run natively. ``often``: it takes NumPy many steps, so that what is
    repeated on small arrays is run natively, too (by default what has a weight).
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        name: str | None = None,
        differentiable: bool = True,
        view: bool = False,
        residuals: tuple[str, ...] = (),
        outputs: int = 1,
        weight: int = 1,
        often: bool | None = None,
        composition: Callable[..., Any] | None = None,
    ) -> None:
        self.forward = forward
        self.name = self.__name__ = name or forward.__name__
        self.__doc__ = forward.__doc__
        self.differentiable = differentiable
        self.view = view
        self.residuals = residuals
        self.outputs = outputs
        self.weight = weight
        self.often = weight > 1 if often is None else often
        self.composition = composition
        parameters = inspect.signature(forward).parameters.values()
        kinds = inspect.Parameter
        self.inputs = tuple(p.name for p in parameters if p.kind is kinds.POSITIONAL_OR_KEYWORD)
        self.variadic = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), None)
        self.options = {p.name: p.default for p in parameters if p.kind is kinds.KEYWORD_ONLY}
        if {"g", "y"} & {*self.inputs, self.variadic, *self.options}:
            raise TypeError(f"{self.name}: in rules g is the gradient and y the output; rename it")
        self.derivatives: list[Derivative] = []
        self.plans: dict[tuple[int, int], Plan] = {}
        # An op may be declared again where it was: a notebook's cell is run more than once.
        if REGISTRY.get(self.name, self).forward.__module__ != forward.__module__:
            raise TypeError(f"there is an op {self.name!r} already; give this one another name=")
        REGISTRY[self.name] = self

    def vjp(self, *inputs: str) -> Callable[[Rule], Rule]:
        """Declare the rule for one input, or for several at once (it then returns a tuple).

        The rule of a variadic input ``*xs`` returns one gradient for each of them.
        """

        def declare(rule: Rule) -> Rule:
            wants = tuple(inspect.signature(rule).parameters)
            arrays = {*self.inputs, *filter(None, [self.variadic])}
            known = {"g", "y", *arrays, *self.options, *self.residuals}
            known |= {f"{n}{_SHAPE}" for n in arrays}
            if wants[:1] != ("g",) or not known.issuperset(wants):
                raise TypeError(f"{self.name}: a rule takes g, then names among {sorted(known)}")
            others = [d for d in self.derivatives if d.inputs != inputs]
            if not arrays.issuperset(inputs) or any({*inputs} & {*d.inputs} for d in others):
                raise TypeError(f"{self.name}: {inputs} are no inputs, or have a rule with others")
            self.derivatives = [*others, Derivative(inputs, rule, wants[1:])]
            self.plans.clear()
            return rule

        return declare

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run on ndarrays, or, if any argument is a Tensor, on Tensors (recording the graph)."""
        for a in args:
            if isinstance(a, Box):
                return a._apply(self, args, options)
        try:
            y = self.forward(*args, **options)
        except Exception as e:
            y = as_one_step(self.forward, args, options, self.name, e)
        return y[0] if self.residuals else y

    def plan(self, needs: int, count: int) -> Plan:
        """The plan for the inputs whose bit in ``needs`` is set, out of ``count`` inputs."""
        plan = self.plans.get((needs, count))
        if plan is None:
            plan = self.plans[needs, count] = self._make_plan(needs, count)
        return plan

    def _make_plan(self, needs: int, count: int) -> Plan:
        names = list(self.inputs)
        if self.variadic:
            names += [f"{self.variadic}[{i}]" for i in range(count - len(names))]
        values = [*names[:count], "y", *self.residuals, *self.options]
        wanted: dict[str, int] = {}  # name → place among the kept values

        def want(name: str) -> None:
            wanted.setdefault(name, len(wanted))

        if self.composition is not None:  # higher orders call it: its arguments are kept, first
            for name in (*names[:count], *self.options):
                want(name)
        active = []
        for d in self.derivatives:
            spread = d.inputs == (self.variadic,)
            at = tuple(range(len(self.inputs), count) if spread else map(names.index, d.inputs))
            if any(needs >> i & 1 for i in at):
                active.append((at if spread or len(at) > 1 else at[0], d))
        flat: list[tuple[Any, Derivative, list[tuple[bool, list[str]]]]] = []
        for where, d in active:
            groups: list[tuple[bool, list[str]]] = []  # (is a group, names) per wanted argument
            for w in d.wants:
                bare = w.removesuffix(_SHAPE)
                if bare == self.variadic:
                    suffix = w[len(bare) :]
                    groups.append((True, [n + suffix for n in names[len(self.inputs) : count]]))
                else:
                    groups.append((False, [w]))
            flat.append((where, d, groups))
            for _, ns in groups:
                for n in ns:
                    want(n)
        full = [n for n in wanted if n in values]
        shapes = [n for n in wanted if n not in values]
        place = {n: k for k, n in enumerate(full + shapes)}
        rules = tuple(
            (where, d.rule, _picker([(grouped, [place[n] for n in ns]) for grouped, ns in groups]))
            for where, d, groups in flat
        )
        count = values.index("y")
        index = [values.index(n) for n in full]
        origin = tuple(i if i < count else -1 if i == count else -2 for i in index)
        shape_of = tuple(values.index(n.removesuffix(_SHAPE)) for n in shapes)
        joint = any(not isinstance(where, int) for where, _, _ in rules)
        return Plan(_getter(index), shape_of, origin, rules, joint)

    def __repr__(self) -> str:
        if not self.differentiable:
            return f"<op {self.name}: not differentiable>"
        kept = dict.fromkeys(w for d in self.derivatives for w in d.wants)
        kept = {k: None for k in kept if k not in self.options}
        return f"<op {self.name}({', '.join(self.inputs)}): keeps {', '.join(kept) or 'nothing'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _declared, (self.forward.__module__, self.name)


REGISTRY: dict[str, Op] = {}


def _declared(module: str, name: str) -> Op:
    """The op of that name, which a module declares (in a new process it is not imported yet)."""
    importlib.import_module(module)
    return REGISTRY[name]


def _getter(index: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """``itemgetter`` that always returns a tuple (also for none and one)."""
    if not index:
        return lambda values: ()
    if len(index) == 1:
        (i,) = index
        return lambda values: (values[i],)
    return itemgetter(*index)


def _picker(groups: list[tuple[bool, list[int]]]) -> Callable[[Any], tuple[Any, ...]]:
    """Choose a rule's arguments among the kept values; a variadic input arrives as one list."""
    if any(grouped for grouped, _ in groups):
        return lambda kept: tuple(
            [kept[i] for i in index] if grouped else kept[index[0]] for grouped, index in groups
        )
    return _getter([index[0] for _, index in groups])


def op(forward: Callable[..., Any] | None = None, **how: Any) -> Any:
    """Declare an op from its forward function: ``@op`` or ``@op(view=True, …)``."""
    return Op(forward, **how) if forward is not None else lambda f: Op(f, **how)


def no_grad_op(forward: Callable[..., Any]) -> Op:
    """Declare an op whose result has no derivative, on purpose (comparisons, indices…)."""
    return Op(forward, differentiable=False)


def is_number(value: Any) -> bool:
    """Whether a value is a Python or NumPy number rather than an array."""
    return isinstance(value, (int, float, complex, np.generic))

"""A model as a table: layers, shapes, parameters, and what the forward pass takes.

With an input the model is run once and watched: every op is counted where it is run, whatever the layer
is called. The argument names are torchinfo's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.autograd.modes import ModeContext
from kilograd.compile.graph import mapped
from kilograd.compile.lazy.graph import outside
from kilograd.compile.step import disable
from kilograd.nn.module import Module
from kilograd.nn.parameter import is_lazy
from kilograd.profiler.flops import NOTHING, Work, result_of, work_of
from kilograd.profiler.watch import Call, Observer, watching
from kilograd.tensor import Tensor, shares_memory, wrap
from kilograd.utils.undisturbed import undisturbed

COLUMNS = {
    "input_size": "Input Shape",
    "output_size": "Output Shape",
    "num_params": "Param #",
    "params_percent": "Param %",
    "kernel_size": "Kernel Shape",
    "mult_adds": "Mult-Adds",
    "flops": "FLOPs",
    "memory": "Memory",
    "trainable": "Trainable",
}
_SHAPES = ("input_size", "output_size")
ROW_SETTINGS = ("depth", "var_names", "ascii_only", "hide_recursive_layers")
_DEFAULT_COLUMNS = ("input_size", "output_size", "num_params", "mult_adds", "memory", "trainable")
_WITHOUT_INPUT = ("num_params", "trainable")


class Row:
    """One line: a module at its place in the tree, or one call of it.

    Attributes:
        path: dotted name below the model ("" for the model itself).
        name: its class, ``var_name``: the attribute that holds it, ``depth``: 0 for the model.
        input_size, output_size: shapes of tensors: a list; of several or nested ones: a list (or
            dict) of such; None if it was not run.
        num_params: numbers in the parameters of the module and all below it.
        own_params: those that no other row of the table shows.
        trainable: "True", "False", "Partial", or "--" without parameters.
        total, own: the :class:`~kilograd.profiler.flops.Work` of everything in this call, and of what
            no other row shows; memory likewise: ``memory``, ``own_memory`` in bytes.
        recursive: the module has a row above already: its parameters are not counted again.
    """

    def __init__(self, module: Module, path: str, var_name: str, depth: int) -> None:
        self.module = module
        self.path = path
        self.var_name = var_name
        self.depth = depth
        self.name = type(module).__name__
        self.rows: list[Row] = []
        self.called = False
        self.recursive = False
        self.input_size: Any = None
        self.output_size: Any = None
        self.total = self.own = NOTHING
        self.memory = self.own_memory = 0
        self.num_params = self.own_params = 0
        self.kernel_size: list[int] | None = None
        self.trainable = "--"

    def __repr__(self) -> str:
        return f"<Row {self.path or self.name}: {self.num_params} parameters>"

    def look(self) -> None:
        """Read off the module what does not depend on the input."""
        parameters = list(self.module.parameters())
        self.num_params = sum(_numel(p) for p in parameters)
        if parameters:
            learned = {p.requires_grad for p in parameters}
            self.trainable = "Partial" if len(learned) == 2 else str(learned.pop())
        kernel = getattr(self.module, "kernel_size", None)
        if kernel is not None:
            self.kernel_size = list(kernel) if isinstance(kernel, (tuple, list)) else [kernel]


class Summary:
    """What :func:`summary` found: print it, or read its numbers.

    Attributes:
        rows: a list of :class:`Row`, in the order of the table.
        total_params, trainable_params, non_trainable_params: each parameter once.
        total_flops, total_mult_adds: of the forward pass (0 without an input).
        input_bytes, param_bytes (parameters and buffers), output_bytes: bytes of the results that the
            ops of the forward pass have made; forward_backward_bytes: twice as much, since in training
            each has a gradient; total_bytes: the sum of input, forward_backward and parameters.
    """

    def __init__(
        self, root: Row, *, ran: bool, columns: Sequence[str], depth: int,
        row_settings: Sequence[str], col_width: int, input_bytes: int,
    ) -> None:  # fmt: skip
        self.model_name = root.name
        self.ran = ran
        self.columns = tuple(columns)
        self.row_settings = tuple(row_settings)
        self.col_width = col_width
        self.rows = list(_shown(root, depth, "hide_recursive_layers" in row_settings))
        for row in self.rows:
            visible = [r for r in row.rows if r.depth <= depth]
            row.own, row.own_memory = row.total, row.memory
            for below in visible:
                row.own = Work(
                    row.own.flops - below.total.flops, row.own.mult_adds - below.total.mult_adds
                )
                row.own_memory -= below.memory
        _share_parameters(self.rows)
        model = root.module
        parameters = list(model.parameters())
        self.total_params = sum(map(_numel, parameters))
        self.trainable_params = sum(_numel(p) for p in parameters if p.requires_grad)
        self.non_trainable_params = self.total_params - self.trainable_params
        self.lazy = any(map(is_lazy, (*parameters, *model.buffers())))
        self.total_flops, self.total_mult_adds = root.total
        self.input_bytes = input_bytes
        self.output_bytes = root.memory
        self.forward_backward_bytes = 2 * self.output_bytes
        held = {id(t): t.array.nbytes for t in (*parameters, *model.buffers())}
        self.param_bytes = sum(held.values())
        self.total_bytes = self.input_bytes + self.forward_backward_bytes + self.param_bytes

    # --- as text -----------------------------------------------------------------------------------

    @property
    def header(self) -> list[str]:
        """The titles of the columns."""
        first = "Layer (type"
        if "var_names" in self.row_settings:
            first += " (var_name)"
        if "depth" in self.row_settings:
            first += ":depth-idx"
        return [f"{first})", *[COLUMNS[c] for c in self.columns]]

    def table(self) -> list[list[str]]:
        """The cells of all rows as text, without the header."""
        count: dict[int, int] = {}
        lines = []
        last = _are_last(self.rows)
        for row, ends in zip(self.rows, last, strict=True):
            count[row.depth] = count.get(row.depth, 0) + 1
            name = row.name
            if "var_names" in self.row_settings and row.var_name:
                name += f" ({row.var_name})"
            if "depth" in self.row_settings:
                name += f": {row.depth}" + (f"-{count[row.depth]}" if row.depth else "")
            lines.append([self._tree(ends) + name, *[self._cell(row, c) for c in self.columns]])
        return lines

    def totals(self) -> list[tuple[str, str]]:
        """The lines below the table: (what, how much)."""
        lines = [
            ("Total params", f"{self.total_params:,}"),
            ("Trainable params", f"{self.trainable_params:,}"),
            ("Non-trainable params", f"{self.non_trainable_params:,}"),
        ]
        if self.lazy:
            lines.append(("Not counted", "parameters that have no shape before the first input"))
        if self.ran:
            lines += [
                ("Total mult-adds", f"{self.total_mult_adds:,}"),
                ("Total FLOPs", f"{self.total_flops:,}"),
                ("Input size", _bytes(self.input_bytes)),
                ("Forward/backward pass size", _bytes(self.forward_backward_bytes)),
            ]
        lines.append(("Params size", _bytes(self.param_bytes)))
        if self.ran:
            lines.append(("Estimated total size", _bytes(self.total_bytes)))
        return lines

    def __str__(self) -> str:
        cells = [self.header, *self.table()]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.header))]
        widths[1:] = [min(w, self.col_width) for w in widths[1:]]
        ascii_only = "ascii_only" in self.row_settings

        def line(texts: list[str]) -> str:
            parts = [texts[0].ljust(widths[0])]
            for text, width, column in zip(texts[1:], widths[1:], self.columns, strict=True):
                text = _cut(text, width, ascii_only)
                parts.append(text.ljust(width) if column in _SHAPES else text.rjust(width))
            return "  ".join(parts).rstrip()

        body = [line(c) for c in cells]
        rule = max(map(len, body), default=0)
        strong = "=" * rule
        totals = [f"{what}: {much}" for what, much in self.totals()]
        return "\n".join([strong, body[0], strong, *body[1:], strong, *totals, strong])

    __repr__ = __str__

    def _tree(self, ends: tuple[bool, ...]) -> str:
        """The branches in front of a name: whether each level above is the last of its parent."""
        if "ascii_only" in self.row_settings:
            return "  " * (len(ends) - 1) + "+ " if ends else ""
        if not ends:
            return ""
        return "".join("   " if e else "│  " for e in ends[:-1]) + ("└─ " if ends[-1] else "├─ ")

    def _cell(self, row: Row, column: str) -> str:
        if column in _SHAPES:
            shapes = getattr(row, column)
            return "--" if shapes is None else _shape_text(shapes)
        if column == "num_params":
            if row.recursive:
                return "(recursive)" if row.num_params else "--"
            return f"{row.own_params:,}" if row.own_params else "--"
        if column == "params_percent":
            if row.recursive or not row.own_params:
                return "--"
            return f"{100 * row.own_params / self.total_params:.2f}%"
        if column == "kernel_size":
            return "--" if row.kernel_size is None else str(row.kernel_size)
        if column == "trainable":
            return row.trainable
        if column == "memory":
            return _bytes(row.own_memory) if row.own_memory else "--"
        number = row.own.flops if column == "flops" else row.own.mult_adds
        return f"{number:,}" if number else "--"

    # --- for notebooks and rich --------------------------------------------------------------------

    def _repr_html_(self) -> str:
        right = "text-align:right;padding:1px 8px"
        left = "text-align:left;padding:1px 8px;white-space:pre"
        styles = [left, *[left if c in _SHAPES else right for c in self.columns]]

        def line(tag: str, texts: list[str]) -> str:
            cells = [
                f'<{tag} style="{style}">{escape(t)}</{tag}>'
                for style, t in zip(styles, texts, strict=True)
            ]
            return f"<tr>{''.join(cells)}</tr>"

        rows = "".join(line("td", t) for t in self.table())
        totals = "".join(
            f'<tr><td style="{left}">{escape(what)}</td><td style="{right}">{escape(much)}</td></tr>'
            for what, much in self.totals()
        )
        return (
            f'<table style="font-family:monospace"><thead>{line("th", self.header)}</thead>'
            f"<tbody>{rows}</tbody></table>"
            f'<table style="font-family:monospace">{totals}</table>'
        )

    def __rich__(self) -> Any:
        """What ``rich.print`` shows."""
        try:
            from rich.console import Group
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            raise ImportError("rich tables need rich: pip install 'kilograd[viz]'") from None
        table = Table(title=self.model_name)
        table.add_column(self.header[0], no_wrap=True)
        for c in self.columns:
            table.add_column(COLUMNS[c], justify="left" if c in _SHAPES else "right")
        for texts, row in zip(self.table(), self.rows, strict=True):
            style = "bold" if row.depth == 0 else "dim" if row.trainable == "False" else ""
            table.add_row(*[Text(t) for t in texts], style=style)
        return Group(table, *[Text(f"{what}: {much}") for what, much in self.totals()])


@outside()
def summary(
    model: Module,
    input_size: Any = None,
    *,
    input_data: Any = None,
    batch_dim: int | None = None,
    cache_forward_pass: bool | None = None,
    col_names: Iterable[str] | None = None,
    col_width: int = 25,
    depth: int = 3,
    device: Any = None,
    dtypes: Any = None,
    mode: str = "eval",
    row_settings: Iterable[str] | None = None,
    verbose: int = 0,
    **kwargs: Any,
) -> Summary:
    """A table of a model's layers: shapes, parameters, multiply-adds, memory.

    With ``input_size`` or ``input_data`` the model is run once, without gradients; modes, parameters,
    buffers and random numbers are as before afterwards, also if it fails. A model with lazy layers is copied for it.
    A compiled model is run eagerly.

    Args:
        model: the module.
        input_size: the shape of the input, with the batch; for several inputs a list of shapes. A
            batch (any size, in fact) of -1 or None stands for 1. Inputs are random numbers from
            [0, 1), of whole-number dtypes zeros.
        input_data: the inputs themselves in place of their sizes: a tensor or array, a list or tuple
            of positional arguments, or a dict of keyword arguments. The model is given copies.
        batch_dim: where to insert a batch of 1 if ``input_size`` is without one.
        cache_forward_pass: torchinfo's argument; nothing is kept from one call to the next.
        col_names: columns, among ``input_size``, ``output_size``, ``num_params``, ``params_percent``,
            ``kernel_size``, ``mult_adds``, ``flops``, ``memory`` (bytes of the results that its ops
            make), ``trainable``. A row's numbers are what no row below it shows, so that columns add up.
        col_width: the widest that a column may be, in characters.
        depth: levels below the model that are shown.
        device: PyTorch's argument; only "cpu" is there.
        dtypes: the dtype of the inputs made from ``input_size``, or one for each (default: float).
        mode: "eval" or "train": the mode in which the model runs; "same": as it is.
        row_settings: among ``depth`` (number the rows), ``var_names`` (attribute names),
            ``ascii_only``, ``hide_recursive_layers`` (of modules called again only the first call);
            default ("depth", "var_names").
        verbose: 1: print the table; 2: also the parameters' names and shapes.
        kwargs: keyword arguments of the model's forward.

    Returns:
        A :class:`Summary`.

    Raises:
        TypeError: what is given is no Module; ValueError: an argument has an unknown value;
        RuntimeError: the forward pass failed; what it raised is its cause.

    >>> import kilograd as kg
    >>> net = kg.nn.Sequential(kg.nn.Linear(4, 8), kg.nn.ReLU(), kg.nn.Linear(8, 1))
    >>> found = summary(net, (2, 4), col_names=("output_size", "num_params", "mult_adds"))
    >>> print(found)
    ===================================================================
    Layer (type (var_name):depth-idx)  Output Shape  Param #  Mult-Adds
    ===================================================================
    Sequential: 0                      [2, 1]             --         --
    ├─ Linear (0): 1-1                 [2, 8]             40         64
    ├─ ReLU (1): 1-2                   [2, 8]             --         --
    └─ Linear (2): 1-3                 [2, 1]              9         16
    ===================================================================
    Total params: 49
    Trainable params: 49
    Non-trainable params: 0
    Total mult-adds: 80
    Total FLOPs: 194
    Input size: 32 B
    Forward/backward pass size: 272 B
    Params size: 196 B
    Estimated total size: 500 B
    ===================================================================
    >>> found.total_params, found.total_mult_adds
    (49, 80)
    """
    del cache_forward_pass
    if not isinstance(model, Module):
        raise TypeError(f"summary() takes a Module, not {type(model).__name__}")
    if mode not in ("eval", "train", "same"):
        raise ValueError(f"mode must be 'eval', 'train' or 'same', not {mode!r}")
    if device is not None and str(device) != "cpu":
        raise ValueError(f"device must be 'cpu', not {device!r}")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise ValueError(f"depth must be a whole number from 0 on, not {depth!r}")
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 0, 1 or 2, not {verbose!r}")
    if input_size is not None and input_data is not None:
        raise ValueError("give input_size or input_data, not both")
    if not isinstance(col_width, int) or col_width < 4:
        raise ValueError(f"col_width must be a whole number from 4 on, not {col_width!r}")
    runs = input_size is not None or input_data is not None or bool(kwargs)
    settings = _among(row_settings, ROW_SETTINGS, ("depth", "var_names"), "row_settings")
    columns = _among(col_names, COLUMNS, _DEFAULT_COLUMNS if runs else _WITHOUT_INPUT, "col_names")
    if not runs:
        root = _static(model)
        given = 0
    else:
        args, named = _inputs(input_size, input_data, batch_dim, dtypes)
        named |= kwargs
        given = _nbytes((args, named))
        root = _run(model, args, named, mode)
    found = Summary(
        root, ran=runs, columns=columns, depth=depth, row_settings=settings, col_width=col_width,
        input_bytes=given,
    )  # fmt: skip
    if verbose:
        print(found)  # noqa: T201
    if verbose == 2:
        for name, p in root.module.named_parameters():
            shape = "no shape yet" if is_lazy(p) else list(p.array.shape)
            print(f"{name}: {shape}")  # noqa: T201
    return found


# --- inputs ------------------------------------------------------------------------------------------


def _among(given: Any, known: Iterable[str], default: Sequence[str], what: str) -> tuple[str, ...]:
    chosen = (
        tuple(default) if given is None else ((given,) if isinstance(given, str) else tuple(given))
    )
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what}: {name!r} is unknown; there are {', '.join(known)}")
    return chosen


def _inputs(
    size: Any, data: Any, batch_dim: int | None, kinds: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for one call of the model."""
    if data is not None:
        if isinstance(data, dict):
            return (), {k: _as_tensor(v) for k, v in data.items()}
        if isinstance(data, (list, tuple)):
            return tuple(_as_tensor(v) for v in data), {}
        return (_as_tensor(data),), {}
    if size is None:
        return (), {}
    if isinstance(size, dict):
        names = list(size)
        made = _made([size[n] for n in names], batch_dim, kinds)
        return (), dict(zip(names, made, strict=True))
    return tuple(_made(_sizes(size), batch_dim, kinds)), {}


def _as_tensor(value: Any) -> Any:
    return wrap(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _sizes(size: Any) -> list[Any]:
    """One shape or several, as a list of shapes."""
    if isinstance(size, (int, np.integer)):
        return [(size,)]
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"input_size must be a shape or a list of shapes, not {type(size).__name__}"
        )
    if size and all(isinstance(s, (tuple, list)) for s in size):
        return list(size)
    return [size]


def _made(sizes: list[Any], batch_dim: int | None, kinds: Any) -> list[Tensor]:
    many = isinstance(kinds, (tuple, list))
    if many and len(kinds) != len(sizes):
        raise ValueError(f"dtypes: {len(kinds)} for {len(sizes)} inputs")
    made = []
    for i, size in enumerate(sizes):
        shape = []
        for n in size:
            if n is not None and (
                isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < -1
            ):
                raise TypeError(f"input_size: {size} is no shape: {n!r}")
            shape.append(1 if n is None or n == -1 else int(n))
        if batch_dim is not None:
            if not -len(shape) - 1 <= batch_dim <= len(shape):
                raise ValueError(f"batch_dim: {batch_dim} is outside of {shape}")
            shape.insert(batch_dim if batch_dim >= 0 else len(shape) + 1 + batch_dim, 1)
        dtype = dtypes.numpy_dtype(kinds[i] if many else kinds)
        dtype = dtype or dtypes.get_default_dtype().dtype
        if dtype.kind in "fc":
            made.append(wrap(np.random.default_rng(0).random(shape).astype(dtype)))
        else:
            made.append(wrap(np.zeros(shape, dtype)))
    return made


# --- running -----------------------------------------------------------------------------------------


def _run(model: Module, args: tuple[Any, ...], named: dict[str, Any], mode: str) -> Row:
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        model = copy.deepcopy(model)  # the model itself goes on waiting for its first input
    table = _Table(model)
    with undisturbed(model), ModeContext(grad=False), disable(), watching(table):
        if mode != "same":
            model.train(mode == "train")
        try:
            model(*mapped(_copied, args), **mapped(_copied, named))
        except Exception as e:
            given = _shape_text([_shapes(args), _shapes(named)] if named else _shapes(args))
            raise RuntimeError(
                f"summary: the forward pass failed in {table.failed or type(model).__name__}, given "
                f"{given}: {type(e).__name__}: {e}"
            ) from e
    root = table.root
    if root is None:
        raise RuntimeError(
            f"summary: a call of {type(model).__name__} does not go through Module.__call__, so nothing "
            "of it is seen (a subclass has another __call__, or a compiled function is being recorded)"
        )
    _add_uncalled(root, set())
    return root


def _copied(value: Any) -> Any:
    """An input that the model may write to."""
    return wrap(np.array(value.array)) if isinstance(value, Tensor) else value


class _Table(Observer):
    """Makes a row of each module call, and counts the ops in it."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.root: Row | None = None
        self.failed = ""
        self.stack: list[Row] = []
        self.seen: set[int] = set()
        self.thread: int | None = None

    def begins(self, call: Call) -> None:
        if call.kind != "module" or (self.thread or call.thread) != call.thread:
            return
        if self.root is None:
            if call.what is not self.model:
                return
            self.thread = call.thread
        path = call.home.partition(".")[2]
        if not self.stack:
            row = self.root = Row(call.what, "", "", 0)
        else:
            above = self.stack[-1]
            name = call.home.removeprefix(call.parent.home + ".") if call.parent else path
            row = Row(call.what, path, name, above.depth + 1)
            above.rows.append(row)
        row.called = True
        row.recursive = id(call.what) in self.seen
        self.seen.add(id(call.what))
        row.input_size = _shapes((*call.args, *call.options.values()))
        self.stack.append(row)
        call.notes[self] = row

    def ends(self, call: Call) -> None:
        if not self.stack or call.thread != self.thread:
            return
        row = call.notes.get(self)
        if row is not None:
            self.stack.pop()
            row.look()
            row.output_size = _shapes(call.result)
            if call.error is not None:
                self.failed = self.failed or call.home
            if self.stack:
                self.stack[-1].total += row.total
                self.stack[-1].memory += row.memory
        elif call.kind == "op" and call.error is None and not call.within("op"):
            here = self.stack[-1]
            here.total += work_of(call.what, call.args, call.options, call.result)
            made = result_of(call.what, call.result)
            for y in made if isinstance(made, tuple) else (made,):
                given = [a for a in call.args if isinstance(a, np.ndarray)]
                if isinstance(y, np.ndarray) and not any(shares_memory(y, a) for a in given):
                    here.memory += y.nbytes


def _static(
    model: Module, path: str = "", name: str = "", depth: int = 0, above: Any = None
) -> Row:
    """The tree of a model that is not run."""
    above = set() if above is None else above
    row = Row(model, path, name, depth)
    row.recursive = id(model) in above
    row.look()
    if not row.recursive:
        above.add(id(model))
        for child, m in model._modules.items():
            if m is not None:
                below = f"{path}.{child}" if path else child
                row.rows.append(_static(m, below, child, depth + 1, above))
    return row


def _add_uncalled(row: Row, seen: set[int]) -> None:
    """Modules that were not called (as a ModuleList, or what is only used for its weights)."""
    called = {id(r.module) for r in _all(row)}
    seen.update(called)
    for name, m in row.module._modules.items():
        if m is None or id(m) in seen:
            continue
        below = f"{row.path}.{name}" if row.path else name
        inside = [x for x in m.modules() if id(x) not in called]
        if len(inside) == len(list(m.modules())):  # nothing in it was called
            row.rows.append(_static(m, below, name, row.depth + 1))
            seen.update(map(id, inside))
    for r in row.rows:
        if r.called and not r.recursive:
            _add_uncalled(r, seen)


def _all(row: Row) -> Iterator[Row]:
    yield row
    for r in row.rows:
        yield from _all(r)


def _shown(row: Row, depth: int, hide: bool) -> Iterator[Row]:
    """The rows of the table."""
    if row.depth > depth:
        return
    yield row
    row.rows = [r for r in row.rows if not (hide and r.recursive)]
    for r in row.rows:
        yield from _shown(r, depth, hide)


def _share_parameters(rows: list[Row]) -> None:
    """Each parameter belongs to the first module that has it, and there to the lowest row."""
    owner: dict[int, Row] = {}
    numel: dict[int, int] = {}
    path: list[Row] = []
    for row in rows:
        path[row.depth :] = [row]
        if row.recursive:
            continue
        for p in row.module.parameters():
            numel[id(p)] = _numel(p)
            before = owner.get(id(p))
            if before is None or path[min(before.depth, row.depth)] is before:
                owner[id(p)] = row
    for key, row in owner.items():
        row.own_params += numel[key]


# --- shapes and sizes ----------------------------------------------------------------------------------


def _numel(p: Any) -> int:
    return 0 if is_lazy(p) else int(p.array.size)


def _shapes(value: Any) -> Any:
    """The shapes of the tensors in a structure: of a single one its own shape."""
    found = _shape_tree(value)
    while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    return found if found != [] or isinstance(value, Tensor) else None


def _shape_tree(value: Any) -> Any:
    if isinstance(value, (Tensor, np.ndarray)):
        return list(getattr(value, "array", value).shape)
    if isinstance(value, dict):
        return {str(k): s for k, v in value.items() if (s := _shape_tree(v)) is not None}
    if isinstance(value, (tuple, list)):
        return [s for v in value if (s := _shape_tree(v)) is not None]
    data = getattr(value, "data", None)  # a packed sequence
    return list(data.array.shape) if isinstance(data, Tensor) else None


def _shape_text(shapes: Any) -> str:
    if shapes is None:
        return "--"
    if isinstance(shapes, dict):
        return "{" + ", ".join(f"{k}: {_shape_text(s)}" for k, s in shapes.items()) + "}"
    if shapes and isinstance(shapes[0], (list, dict)):
        return ", ".join(
            f"[{_shape_text(s)}]" if s and isinstance(s, list) and isinstance(s[0], list) else _shape_text(s)
            for s in shapes
        )  # fmt: skip
    return str(list(shapes))


def _nbytes(value: Any) -> int:
    if isinstance(value, (Tensor, np.ndarray)):
        return int(getattr(value, "array", value).nbytes)
    if isinstance(value, dict):
        return sum(map(_nbytes, value.values()))
    return sum(map(_nbytes, value)) if isinstance(value, (tuple, list)) else 0


def _bytes(n: float) -> str:
    """Bytes with a unit: 1 kB are 1000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            break
        n /= 1000
    return f"{n:.0f} {unit}" if unit == "B" else f"{n:.2f} {unit}"


def _cut(text: str, width: int, ascii_only: bool) -> str:
    if len(text) <= width:
        return text
    dots = "..." if ascii_only else "…"
    return text[: width - len(dots)] + dots


def _are_last(rows: list[Row]) -> list[tuple[bool, ...]]:
    """For each row: whether it, and each row above it in the tree, is the last of its parent."""
    result = []
    for i, row in enumerate(rows):
        ends = []
        for level in range(1, row.depth + 1):
            later = next((r.depth for r in rows[i + 1 :] if r.depth <= level), 0)
            ends.append(later < level)
        result.append(tuple(ends))
    return result

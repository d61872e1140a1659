"""Recurrent layers: stacked, in both directions, on plain or packed sequences; and their cells."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from kilograd import functions as fn
from kilograd.nn import functional as F
from kilograd.nn import init
from kilograd.nn.module import Module
from kilograd.nn.parameter import Parameter
from kilograd.nn.utils.rnn import PackedSequence
from kilograd.ops import rnn as ops
from kilograd.tensor import Tensor, wrap

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
]  # fmt: skip


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters, layers, directions, packing.

    For layer k the parameters are ``weight_ih_lk`` (gates·H, inputs), ``weight_hh_lk``
    (gates·H, H), ``bias_ih_lk`` and ``bias_hh_lk``; with ``_reverse`` appended for the other
    direction. All start in ``U(-1/sqrt(H), 1/sqrt(H))``.
    """

    gates = 1

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (
            isinstance(dropout, bool)
            or not isinstance(dropout, (int, float))
            or not 0 <= dropout <= 1
        ):
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                f"num_layers={num_layers}",
                stacklevel=3,
            )
        for name, value, kind in (
            ("bias", bias, bool), ("batch_first", batch_first, bool), ("input_size", input_size, int),
            ("hidden_size", hidden_size, int), ("num_layers", num_layers, int),
        ):  # fmt: skip
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} should be of type {kind.__name__}, got: {type(value).__name__}"
                )
            if kind is int and value <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        directions = 2 if bidirectional else 1
        out = proj_size or hidden_size
        rows = self.gates * hidden_size
        self._names: list[list[str]] = []
        for layer in range(num_layers):
            size = input_size if layer == 0 else out * directions
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (rows, size),
                "weight_hh": (rows, out),
            }
            if bias:
                shapes.update(bias_ih=(rows,), bias_hh=(rows,))
            if proj_size:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                for name, shape in shapes.items():
                    data = fn.empty(*shape, device=device, dtype=dtype)
                    setattr(self, name + suffix, Parameter(data))
                self._names.append([name + suffix for name in shapes])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do (a matter of GPUs)."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def _scan(self, x: Any, states: Any, weights: dict[str, Any], sizes: Any, reverse: bool) -> Any:
        """One layer in one direction over packed rows x: (outputs, *last states)."""
        raise NotImplementedError

    def forward(self, input: Any, hx: Any = None) -> Any:
        packed = isinstance(input, PackedSequence)
        if packed:
            x, batch_sizes, order, back = input
            sizes = tuple(batch_sizes.tolist())
            batch, batched = sizes[0], True
        else:
            if input.ndim not in (2, 3):
                raise ValueError(
                    f"{self.mode}: Expected input to be 2D or 3D, got {input.ndim}D instead"
                )
            batched, order, back = input.ndim == 3, None, None
            x = input if batched else input.unsqueeze(1)
            if batched and self.batch_first:
                x = x.transpose(0, 1)
            time, batch = x.shape[0], x.shape[1]
            if time == 0:
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
            sizes = (batch,) * time
        self._check_input(x)
        if not packed:
            x = x.reshape(-1, x.shape[-1])  # (steps · batch, features): packed, with equal sizes
        states = self._first_states(hx, batch, batched, x.array.dtype, order)
        x, last = self._layers(x, states, sizes)
        if packed:
            if back is not None:
                last = [s.index_select(1, back) for s in last]
            output: Any = PackedSequence(x, batch_sizes, order, back)
        else:
            output = x.reshape(time, batch, x.shape[-1])
            if not batched:
                output, last = output.squeeze(1), [s.squeeze(1) for s in last]
            elif self.batch_first:
                output = output.transpose(0, 1)
        return output, last[0] if len(last) == 1 else tuple(last)

    def _layers(self, x: Any, states: list[Any], sizes: Any) -> tuple[Any, list[Tensor]]:
        """All layers over packed rows: the last one's outputs, and the last states of all."""
        directions = 2 if self.bidirectional else 1
        last: list[Any] = []
        for k in range(len(self._names)):
            layer, direction = divmod(k, directions)
            if direction == 0:
                if layer and self.dropout:
                    x = F.dropout(x, self.dropout, self.training)
                below, outs = x, []
            names = self._names[k]
            weights = {name.partition("_l")[0]: getattr(self, name) for name in names}
            y, *new = self._scan(below, [s[k] for s in states], weights, sizes, direction == 1)
            outs.append(y)
            last.append(new)
            x = y if len(outs) == 1 else fn.cat(outs, dim=-1)
        return x, [fn.stack(s) for s in zip(*last, strict=True)]

    def _state_sizes(self) -> list[int]:
        return [self.hidden_size]

    def _first_states(self, hx: Any, batch: int, batched: bool, dtype: Any, order: Any) -> Any:
        """The states at the first step, each (layers · directions, batch, size)."""
        n = len(self._names)
        sizes = self._state_sizes()
        if hx is None:
            return [np.zeros((n, batch, size), dtype) for size in sizes]
        states = list(hx) if len(sizes) > 1 else [hx]
        dims = 3 if batched else 2
        if any(s.ndim != dims for s in states):
            what, kind = ("batched 3-D", "3-D") if batched else ("unbatched 2-D", "2-D")
            who = "hx" if len(sizes) == 1 else "hx and cx"
            got = ", ".join(f"{s.ndim}-D" for s in states)
            got = f"{got} tensor" if len(sizes) == 1 else f"({got}) tensors"
            raise RuntimeError(f"For {what} input, {who} should also be {kind} but got {got}")
        if not batched:
            states = [s.unsqueeze(1) for s in states]
        for i, (state, size) in enumerate(zip(states, sizes, strict=True)):
            if tuple(state.shape) != (n, batch, size):
                which = "" if len(sizes) == 1 else f"[{i}]"
                raise RuntimeError(
                    f"Expected hidden{which} size {(n, batch, size)}, got {list(state.shape)}"
                )
        if order is not None:
            states = [s.index_select(1, order) for s in states]
        return states

    def _check_input(self, x: Any) -> None:
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {x.shape[-1]}"
            )
        weight = getattr(self, self._names[0][0])
        if x.dtype != weight.dtype:
            raise ValueError(
                f"{self.mode} input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
            )

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
            ("dropout", 0.0), ("bidirectional", False),
        ):  # fmt: skip
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` (or relu) over the steps of a sequence.

    Arguments: input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True,
    batch_first=False, dropout=0.0 (between layers), bidirectional=False.

    x (T, B, input_size), with ``batch_first`` (B, T, input_size), without batch (T, input_size),
    or packed; h (layers · directions, B, H) → the outputs of all steps, and the last h.

    >>> import kilograd as kg
    >>> y, h = kg.nn.RNN(10, 20, 2)(kg.randn(5, 3, 10))
    >>> y.shape, h.shape
    (kilograd.Size([5, 3, 20]), kilograd.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if len(args) > 3:
            nonlinearity = args[3]
            args = args[:3] + args[4:]
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity

    def _scan(self, x: Any, states: Any, weights: Any, sizes: Any, reverse: bool) -> Any:
        w = weights.get
        gates = F.linear(x, w("weight_ih"), w("bias_ih"))
        return ops.rnn(
            gates, *states, w("weight_hh"), w("bias_hh"), sizes=sizes, reverse=reverse,
            nonlinearity=self.nonlinearity,
        )  # fmt: skip


class LSTM(RNNBase):
    """Long short-term memory: gates i, f, g, o; ``c' = f c + i g``, ``h' = o tanh(c')``.

    Arguments: input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, proj_size=0 (P > 0: h is projected to P numbers by ``weight_hr``).

    x as for :class:`RNN`; the state is a pair (h, c) → outputs, (last h, last c).

    >>> import kilograd as kg
    >>> y, (h, c) = kg.nn.LSTM(10, 20, bidirectional=True)(kg.randn(5, 3, 10))
    >>> y.shape, c.shape
    (kilograd.Size([5, 3, 40]), kilograd.Size([2, 3, 20]))
    """

    gates = 4

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def _state_sizes(self) -> list[int]:
        return [self.proj_size or self.hidden_size, self.hidden_size]

    def _scan(self, x: Any, states: Any, weights: Any, sizes: Any, reverse: bool) -> Any:
        w = weights.get
        gates = F.linear(x, w("weight_ih"), w("bias_ih"))
        return ops.lstm(
            gates, *states, w("weight_hh"), w("bias_hh"), w("weight_hr"), sizes=sizes,
            reverse=reverse,
        )  # fmt: skip


class GRU(RNNBase):
    """Gated recurrent unit: ``h' = (1 - z) n + z h`` with a reset gate r inside of n.

    Arguments: input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False. Shapes as for :class:`RNN`.

    >>> import kilograd as kg
    >>> y, h = kg.nn.GRU(10, 20, batch_first=True)(kg.randn(3, 5, 10))
    >>> y.shape, h.shape
    (kilograd.Size([3, 5, 20]), kilograd.Size([1, 3, 20]))
    """

    gates = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)

    def _scan(self, x: Any, states: Any, weights: Any, sizes: Any, reverse: bool) -> Any:
        w = weights.get
        gates = F.linear(x, w("weight_ih"), w("bias_ih"))
        return ops.gru(gates, *states, w("weight_hh"), w("bias_hh"), sizes=sizes, reverse=reverse)


def _no_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")


class RNNCellBase(Module):
    """What the cells share: the parameters of one step."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size

        def parameter(*shape: int) -> Parameter:
            return Parameter(fn.empty(*shape, device=device, dtype=dtype))

        self.weight_ih = parameter(rows, input_size)
        self.weight_hh = parameter(rows, hidden_size)
        self.register_parameter("bias_ih", parameter(rows) if bias else None)
        self.register_parameter("bias_hh", parameter(rows) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the parameters."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, input: Tensor, states: Any, names: tuple[str, ...]) -> Any:
        """The gates' share of the input, and the states, both as batches."""
        kind = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        x = input if input.ndim == 2 else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}"
            )
        if states is None:
            states = [wrap(np.zeros((x.shape[0], self.hidden_size), x.array.dtype)) for _ in names]
        result = []
        for i, (state, name) in enumerate(zip(states, names, strict=True)):
            if state.ndim not in (1, 2):
                raise ValueError(
                    f"{kind}: Expected {name} to be 1D or 2D, got {state.ndim}D instead"
                )
            s = state if state.ndim == 2 else state.unsqueeze(0)
            if s.shape[0] != x.shape[0]:
                raise RuntimeError(
                    f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {s.shape[0]}"
                )
            if s.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: got {s.shape[1]}, expected "
                    f"{self.hidden_size}"
                )
            result.append(s)
        return F.linear(x, self.weight_ih, self.bias_ih), result

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`: x (B, input_size), h (B, H) → h (B, H).

    >>> import kilograd as kg
    >>> kg.nn.RNNCell(10, 20)(kg.randn(3, 10), kg.randn(3, 20)).shape
    kilograd.Size([3, 20])
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        gates, states = self._step(input, None if hx is None else [hx], ("hidden",))
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        _, h = ops.rnn(
            gates, *states, self.weight_hh, self.bias_hh, sizes=(gates.shape[0],), reverse=False,
            nonlinearity=self.nonlinearity,
        )  # fmt: skip
        return h if input.ndim == 2 else h.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`: x (B, input_size), (h, c) each (B, H) → (h, c).

    >>> import kilograd as kg
    >>> h, c = kg.nn.LSTMCell(10, 20)(kg.randn(3, 10))
    >>> h.shape, c.shape
    (kilograd.Size([3, 20]), kilograd.Size([3, 20]))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        gates, states = self._step(input, hx, ("hx[0]", "hx[1]"))
        _, h, c = ops.lstm(
            gates, *states, self.weight_hh, self.bias_hh, None, sizes=(gates.shape[0],),
            reverse=False,
        )  # fmt: skip
        return (h, c) if input.ndim == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`: x (B, input_size), h (B, H) → h (B, H).

    >>> import kilograd as kg
    >>> kg.nn.GRUCell(10, 20)(kg.randn(3, 10)).shape
    kilograd.Size([3, 20])
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        gates, states = self._step(input, None if hx is None else [hx], ("hidden",))
        _, h = ops.gru(
            gates, *states, self.weight_hh, self.bias_hh, sizes=(gates.shape[0],), reverse=False
        )
        return h if input.ndim == 2 else h.squeeze(0)

"""The training loop: epochs, steps, evaluation and prediction, for kilograd's models and PyTorch's."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kilograd.compile import compile as compiled
from kilograd.compile.graph import leaves, mapped
from kilograd.train.batches import Batches
from kilograd.train.callbacks import Callback, ProgressBar, as_callback
from kilograd.train.engine import engine_of
from kilograd.train.history import History
from kilograd.train.metrics.inputs import array_of
from kilograd.train.metrics.metric import MetricCollection
from kilograd.train.nonfinite import NonFiniteError, first_bad_tensor
from kilograd.train.tally import Tally, plain

TARGETS = ("target", "targets", "label", "labels", "y")
Metrics = Mapping[str, Any] | Sequence[Any]


class Trainer:
    """Trains a model, and measures it.

    ``fit`` puts the whole model into training mode, and back. What must not be (a batch norm that is
    frozen) a callback may put into evaluation mode in ``on_fit_start``.

    A batch is ``(x, target)``, or ``(x1, x2, …, target)``, or a dict in which one of "target",
    "targets", "label", "labels" and "y" is the target and the rest are the model's keyword
    arguments. Anything else: override :meth:`unpack`, or :meth:`forward`.

    The model, the loss and the optimizer are kilograd's or PyTorch's; batches may hold tensors of
    either, or NumPy arrays, and are converted.

    Args:
        model: a ``kg.nn.Module``, or a ``torch.nn.Module``.
        loss: ``loss(outputs, target)``, a scalar tensor; ``loss(outputs)`` where there are no targets.
        optimizer: for the model's parameters. One whose ``step`` needs a closure (LBFGS) gets one.
        metrics: a dict of :mod:`kilograd.train.metrics`, or of functions ``f(targets, outputs)``; the
            names in the history are ``train_`` and ``val_`` with the dict's names.
        callbacks: see :class:`Callback`; a plain function is called after each epoch with the trainer.
        accumulate: how many batches make one step of the optimizer. The gradient is that of one
            large batch: each has the weight of what it counts (:meth:`count`); where the loss has
            ``reduction="sum"``, they are added up.
        clip_norm: the largest norm of all gradients together, see ``clip_grad_norm_``.
        clip_value: the largest absolute value of a gradient, see ``clip_grad_value_``.
        compile: whether the step (forward, backward, clipping, optimizer) and evaluation run under
            ``kg.compile``; for kilograd's models. (For PyTorch's, give ``torch.compile(model)``.)

    Attributes:
        history: a :class:`History` of all epochs.
        epoch: how many epochs are done.
        step: how many steps the optimizer has made.
        row: what was measured in this epoch; callbacks may add to it.
        batch: how many batches this epoch has had.

    Raises:
        TypeError: the model is of neither library, or the loss or the optimizer is not of its.
        ValueError: a setting that makes no sense.

    >>> import kilograd as kg
    >>> from kilograd.datasets import Moons
    >>> from kilograd.train.metrics import Accuracy
    >>> from kilograd.utils.data import DataLoader
    >>> _ = kg.manual_seed(0)
    >>> model = kg.nn.Sequential(kg.nn.Linear(2, 16), kg.nn.ReLU(), kg.nn.Linear(16, 2))
    >>> trainer = Trainer(
    ...     model, kg.nn.CrossEntropyLoss(), kg.optim.Adam(model.parameters(), lr=0.02),
    ...     metrics={"accuracy": Accuracy()},
    ... )
    >>> train, test = Moons(200, noise=0.1), Moons(100, noise=0.1)
    >>> history = trainer.fit(DataLoader(train, 20, shuffle=True), DataLoader(test, 50), epochs=10)
    >>> list(history)
    ['epoch', 'step', 'train_loss', 'train_accuracy', 'val_loss', 'val_accuracy', 'seconds']
    >>> trainer.evaluate(DataLoader(test, 50))["accuracy"] > 0.8
    True
    >>> trainer.predict(test.data).shape
    kilograd.Size([100, 2])
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[..., Any] | None = None,
        optimizer: Any = None,
        *,
        metrics: Metrics = (),
        callbacks: Iterable[Any] = (),
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        compile: bool = False,
    ) -> None:
        self.engine = engine_of(model)
        if not isinstance(accumulate, (int, np.integer)) or accumulate < 1:
            raise ValueError(f"accumulate is a number of batches, at least 1, got {accumulate!r}")
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} must be positive, got {limit!r}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics = _collection(metrics)
        if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
            raise TypeError(f"callbacks is a list, got {type(callbacks).__name__}")
        self.callbacks = [as_callback(c) for c in callbacks]
        self.accumulate, self.clip_norm, self.clip_value = accumulate, clip_norm, clip_value
        self.compile = compile
        self._check_library()
        self.history = History()
        self.epoch = self.step = self.batch = 0
        self.row: dict[str, Any] = {}
        self.tally = Tally(self.metrics)  # of this epoch's training batches
        self._measures = copy.deepcopy(self.metrics)  # evaluate() counts apart from them
        self.batches: Batches | None = None  # what fit() goes through
        self._asked = 0  # epochs that calls of fit() have asked for
        self._midway = False  # a state from the middle of an epoch was loaded
        self._stopping = False
        self._defaults: tuple[Any, dict[str, Any]] = (None, {})  # of a loss that is a function
        if compile:  # in the place of the methods
            self._learn = compiled(self._learn)  # type: ignore[method-assign]
            self._forward = compiled(self._forward)  # type: ignore[method-assign]

    def _check_library(self) -> None:
        engine, optimizer = self.engine, self.optimizer
        if self.compile and engine.name != "kilograd":
            raise ValueError(
                "compile=True compiles the steps of kilograd's models; for a PyTorch model give "
                "torch.compile(model)"
            )
        if hasattr(self.loss, "parameters") and not isinstance(self.loss, engine.Module):
            raise TypeError(
                f"the model is {engine.name}'s, the loss {type(self.loss).__name__} not"
            )
        groups = getattr(optimizer, "param_groups", [])
        if not all(isinstance(p, engine.Tensor) for g in groups for p in g["params"]):
            raise TypeError(
                f"the model is {engine.name}'s, the optimizer {type(optimizer).__name__} not"
            )
        self._closure = False
        if optimizer is not None:
            given = inspect.signature(optimizer.step).parameters.get("closure")
            self._closure = given is not None and given.default is inspect.Parameter.empty
        if self._closure and self.compile:
            name = type(optimizer).__name__
            raise ValueError(
                f"compile=True: {name} calls a closure, whose steps cannot be compiled"
            )

    # --- what a subclass may change -----------------------------------------------------------------

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        """The model's inputs, a tuple or a dict, and the target or None."""
        if isinstance(batch, Mapping):
            named = [k for k in batch if k in TARGETS]
            if len(named) > 1:
                raise ValueError(f"which of {named} is the target of a batch? Override unpack()")
            target = batch[named[0]] if named else None
            return {k: v for k, v in batch.items() if k not in named}, target
        if not isinstance(batch, (list, tuple)):
            return (batch,), None
        if len(batch) < 2:
            return tuple(batch), None
        return tuple(batch[:-1]), batch[-1]

    def forward(self, batch: Any) -> tuple[Any, Any]:
        """The loss of a batch (None without a loss function) and the model's outputs.

        With ``compile``, what it reads of other objects must be tensors, modules, or plain values
        that are attributes of the trainer or the model, and not inside a list or a history.
        """
        inputs, target = self.unpack(batch)
        outputs = self.outputs(inputs)
        if self.loss is None:
            return None, outputs
        return (self.loss(outputs) if target is None else self.loss(outputs, target)), outputs

    def _forward(self, batch: Any) -> tuple[Any, Any]:
        return self.forward(batch)

    def outputs(self, inputs: Any) -> Any:
        """The model's outputs."""
        return self.model(**inputs) if isinstance(inputs, Mapping) else self.model(*inputs)

    def count(self, batch: Any) -> float:
        """How much a batch counts, in means over batches and among those of one step.

        That is what its loss is the mean of: its samples; or, where the loss has an ``ignore_index``
        or a ``weight`` for each class, the targets that are not ignored, each by its weight. Override
        it for a loss that is a mean of something else. A batch that counts nothing is left out.
        """
        inputs, target = self.unpack(batch)
        ignored, weight = self._option("ignore_index", None), self._option("weight", None)
        if ignored is not None and hasattr(target, "dtype"):
            classes = array_of(target, "the targets")
            if classes.dtype.kind in "iu":
                kept = classes[classes != ignored]
                weighted = hasattr(weight, "shape") and len(weight.shape) == 1
                return float(array_of(weight, "")[kept].sum()) if weighted else kept.size
        return _samples(inputs if target is None else target)

    def _option(self, name: str, default: Any) -> Any:
        """An option of the loss: of a layer, of a function, or of a ``functools.partial`` of one."""
        if hasattr(self.loss, name):
            return getattr(self.loss, name)
        if self._defaults[0] is not self.loss:
            self._defaults = self.loss, _defaults(self.loss)
        return self._defaults[1].get(name, default)

    @property
    def _sums(self) -> bool:
        """Whether the loss is the sum over what a batch counts, not the mean."""
        return bool(self._option("reduction", "mean") == "sum")

    @property
    def loss_so_far(self) -> float | None:
        """The mean loss of this epoch so far."""
        return self.tally.loss

    # --- training -----------------------------------------------------------------------------------

    def fit(
        self,
        train: Iterable[Any],
        validation: Iterable[Any] | None = None,
        *,
        epochs: int = 1,
        max_steps: int | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train, and measure after each epoch.

        Args:
            train: the batches, to be gone through again and again: a DataLoader, a list, :class:`Batches`.
            validation: batches to measure after each epoch.
            epochs: how many. Of a run that is resumed, those it has done count.
            max_steps: stop after so many steps of the optimizer, counted from the beginning of the run.
            progress: whether a progress bar is drawn; None: where a person is looking.

        Returns:
            The history of the run, of earlier calls too.

        Raises:
            NonFiniteError: a loss is NaN or infinite. Without ``compile`` the optimizer has not used it.
            ValueError: there are no batches, or no loss function or optimizer.
        """
        own = type(self).forward is not Trainer.forward
        if self.optimizer is None or (self.loss is None and not own):
            raise ValueError(
                "fit() needs the loss and the optimizer: Trainer(model, loss, optimizer)"
            )
        if not isinstance(epochs, (int, np.integer)) or isinstance(epochs, bool) or epochs < 0:
            raise ValueError(f"epochs must be a whole number that is not negative, got {epochs!r}")
        self._asked = until = min(self._asked, self.epoch) + epochs
        if isinstance(train, Batches):
            self.batches = train
        elif self.batches is None or self.batches.loader is not train:
            self.batches = Batches(_batches(train))
        self.validation = None if validation is None else _batches(validation)
        self._stopping = False
        bars = [c for c in self.callbacks if isinstance(c, ProgressBar)]
        more = [] if bars else [ProgressBar(progress, until)]
        self._active = sorted([*self.callbacks, *more], key=lambda c: c.order)
        with contextlib.ExitStack() as closing:  # all of it is done, whatever raises
            closing.callback(_put_back, self._modes())
            for c in self._active:
                closing.callback(c.close, self)
            self.model.train()
            self._tell("on_fit_start")
            while self.epoch < until and not self._at_end(max_steps):
                self._tell("on_epoch_start")
                if self._stopping:
                    break
                self._epoch(max_steps)
                self._tell("on_epoch_end")
            self._tell("on_fit_end")
        return self.history

    def stop(self) -> None:
        """End training after this step; the epoch is measured and counts as one."""
        self._stopping = True

    def _at_end(self, max_steps: int | None) -> bool:
        return self._stopping or (max_steps is not None and self.step >= max_steps)

    def _epoch(self, max_steps: int | None) -> None:
        """One pass over the batches, or the rest of one."""
        assert self.batches is not None
        began = time.perf_counter()
        over = self._midway and not self.batches.position  # the checkpoint is of its last step
        if not self._midway:
            self.tally.begin()
            self.batch = 0
            self.batches.restart()  # the checkpoint may be of an epoch that was ended by stop()
        self._midway = False
        each_step = [c for c in self._active if type(c).on_step_end is not Callback.on_step_end]
        left: Iterable[Any] = () if over else self.batches
        batches = (batch for batch in left)  # a generator can be closed
        try:
            while not self._at_end(max_steps):
                group = [*map(self.engine.batch, itertools.islice(batches, self.accumulate))]
                if not group:
                    break
                self.batch += len(group)
                if not self._learn_group(group):
                    continue
                self.step += 1
                for c in each_step:
                    c.on_step_end(self)
        finally:
            batches.close()
        if not self.batch:
            raise ValueError(
                f"there was no batch in epoch {self.epoch + 1}: give fit() a DataLoader or a list, which "
                "can be gone through again (a generator cannot), and one that is not empty"
            )
        row = {"epoch": self.epoch + 1, "step": self.step, **self.tally.values("train_")}
        self.tally.begin()
        self.batch = 0
        if self.validation is not None:
            measured = self.evaluate(self.validation)
            row |= {f"val_{name}": value for name, value in measured.items()}
        self.row = row | {"seconds": time.perf_counter() - began}
        self.epoch += 1
        self.history.rows.append(self.row)

    def _learn_group(self, group: list[Any]) -> bool:
        """One step of the optimizer, from one batch or from several; whether there was anything to learn."""
        counted = [(b, n) for b in group if (n := self.count(b))]
        group, counts = [b for b, _ in counted], [n for _, n in counted]
        alone = self._sums or len(group) == 1
        weights = [1.0 if alone else n / sum(counts) for n in counts]
        results: list[Any] = []

        def learn() -> None:
            results.clear()
            for i, (batch, weight) in enumerate(zip(group, weights, strict=True)):
                scale = None if weight == 1.0 else weight
                if scale is not None and self.compile:  # as a number it would be one more program
                    scale = self.engine.tensor(np.asarray(scale))
                how = (i == 0, i == len(group) - 1, scale, self.clip_norm, self.clip_value)
                if type(batch) in (list, tuple):
                    results.append(self._learn(*how, *batch))
                else:
                    results.append(self._learn(*how, batch=batch))

        def closure() -> Any:
            learn()
            return sum(loss * w for (loss, _), w in zip(results, weights, strict=True))

        if self._closure and group:
            self.optimizer.step(closure)
        else:
            learn()
        for (batch, n), (loss, outputs) in zip(counted, results, strict=True):
            self._note(self.tally, batch, n, self._finite(loss, batch), outputs)
        return bool(group)

    def _note(self, tally: Tally, batch: Any, n: float, loss: float | None, outputs: Any) -> None:
        if loss is not None and self._sums:
            loss /= n
        tally.add(loss, n, outputs, self.unpack(batch)[1] if len(tally.metrics) else None)

    def _learn(
        self, first: bool, last: bool, weight: Any, norm: float | None, value: float | None,
        *parts: Any, batch: Any = None,
    ) -> Any:  # fmt: skip
        """Forward and backward; the first of a step forgets old gradients, the last one updates."""
        batch = parts if batch is None else batch
        if first:
            self.optimizer.zero_grad()
        loss, outputs = self.forward(batch)
        if not isinstance(loss, self.engine.Tensor) or loss.numel() != 1:
            of = f" of shape {tuple(loss.shape)}" if hasattr(loss, "shape") else ""
            raise TypeError(f"the loss must be a scalar tensor, got {type(loss).__name__}{of}")
        if not self.compile:
            self._finite(loss, batch)
        (loss if weight is None else loss * weight).backward()
        if last:
            params = [p for g in self.optimizer.param_groups for p in g["params"]]
            if norm is not None:
                self.engine.clip_norm(params, norm)
            if value is not None:
                self.engine.clip_value(params, value)
            if not self._closure:
                self.optimizer.step()
        return loss.detach(), _detached(outputs)

    def _finite(self, loss: Any, batch: Any) -> float:
        value = float(loss.detach())
        if math.isfinite(value):
            return value
        if self.compile:
            where = "compile=False says where it came from, and stops before the weights change"
        else:
            inputs, target = self.unpack(batch)
            given = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
            named = {"the input": given, "the target": target}
            where = first_bad_tensor(self.model, lambda: self.forward(batch), named)
        raise NonFiniteError(f"the loss is {value} at step {self.step + 1}: {where}")

    def _tell(self, event: str) -> None:
        for c in self._active:
            getattr(c, event)(self)
            self.row.update({k: plain(v) for k, v in self.row.items()})

    # --- measuring ----------------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Any], *, metrics: Metrics | None = None) -> dict[str, Any]:
        """The mean loss and the metrics over some batches, in evaluation mode and without gradients.

        Args:
            batches: a DataLoader, or any iterable of batches.
            metrics: to measure instead of the trainer's.

        Returns:
            ``{"loss": …, "accuracy": …}``; each part of the model is in the mode it was in before.

        Raises:
            ValueError: there are no batches.
        """
        tally = Tally(self._measures if metrics is None else _collection(metrics))
        with self._measuring():
            for batch in map(self.engine.batch, _batches(batches)):
                if n := self.count(batch):
                    loss, outputs = self._forward(batch)
                    value = None if loss is None else float(loss.detach())
                    self._note(tally, batch, n, value, outputs)
        if not tally.samples:
            raise ValueError("evaluate(): there are no batches, or no samples in them")
        return tally.values()

    def predict(self, batches: Any) -> Any:
        """The model's outputs for all samples, joined along the first axis, in evaluation mode.

        Args:
            batches: a tensor or array of inputs, or batches as for :meth:`fit` (targets are not
                looked at), or batches of inputs alone, each a tensor or ``[x]``.

        Returns:
            A tensor of the model's library (or a nest of them, as the model gives), without a graph.

        Raises:
            ValueError: there are no batches.
        """
        if isinstance(batches, np.ndarray) or hasattr(batches, "detach"):
            batches = [(batches,)]
        if hasattr(batches, "columns"):
            raise TypeError("predict() takes a table as an array: X.to_numpy(dtype='float32')")
        with self._measuring():
            inputs = (self.unpack(batch)[0] for batch in map(self.engine.batch, _batches(batches)))
            outputs = [self.outputs(x) for x in inputs]
        if not outputs:
            raise ValueError("predict(): there are no batches")
        return self.engine.join(outputs)

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """Evaluation mode, without gradients; each part of the model is afterwards as it was."""
        modes = self._modes()
        self.model.eval()
        try:
            with self.engine.no_grad():
                yield
        finally:
            _put_back(modes)

    def _modes(self) -> list[tuple[Any, bool]]:
        return [(m, m.training) for m in self.model.modules()]

    def plot(self, keys: Any = None, **options: Any) -> Any:
        """Draw the history, see :meth:`History.plot`."""
        return self.history.plot(keys, **options)

    # --- where a run stands -------------------------------------------------------------------------

    def parts(self) -> dict[str, Any]:
        """What a :class:`Checkpoint` of the run is made of: ``Checkpoint(**trainer.parts())``."""
        if self.batches is None:
            raise RuntimeError("the batches are known once fit() has begun")
        found = {
            "model": self.model, "optimizer": self.optimizer, "batches": self.batches, "trainer": self,
        }  # fmt: skip
        loss: Any = self.loss
        if hasattr(loss, "state_dict") and loss.state_dict():
            found["loss"] = loss
        return found

    def state_dict(self) -> dict[str, Any]:
        """Counters, history and the callbacks' states; with the sums so far in the middle of an epoch."""
        return {
            "epoch": self.epoch, "step": self.step, "batch": self.batch, "rows": self.history.rows,
            "tally": self.tally.state_dict() if self.batch else None,
            "callbacks": {name: c.state_dict() for name, c in self._stateful().items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: other callbacks, or other metrics, than those of the run that was saved.
        """
        mine = self._stateful()
        if set(mine) != set(state["callbacks"]):
            raise ValueError(
                f"the run saved has the callbacks {sorted(state['callbacks'])}, this one {sorted(mine)}"
            )
        if state["tally"] is not None:
            self.tally.load_state_dict(state["tally"])
        for name, c in mine.items():
            c.load_state_dict(state["callbacks"][name])
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]
        self.history.rows[:] = state["rows"]
        self._midway = bool(self.batch)

    def _stateful(self) -> dict[str, Callback]:
        """The callbacks that have a state, by name."""
        named: dict[str, Callback] = {}
        for c in self.callbacks:
            if type(c).state_dict is not Callback.state_dict:
                name = type(c).__name__
                named[name if name not in named else f"{name} {len(named)}"] = c
        return named

    def rehearse(self) -> None:
        """Compile what training will run, with batches of each size; all values change.

        A compiled step begins with eager steps, which may round differently. A run that is resumed
        makes them before the checkpoint is loaded, and then goes on as if it had not stopped, unless
        it was stopped so early that it would have had some of them still before it.
        """
        if not self.compile or self.batches is None:
            return
        self.batches.restart()  # a place at the end of an epoch would leave nothing
        for group in _sizes(self.batches.loader, self.accumulate):
            for _ in range(4):
                with contextlib.suppress(NonFiniteError):
                    self._learn_group([*map(self.engine.batch, group)])
        for group in _sizes([] if self.validation is None else self.validation, 1):
            for _ in range(4):
                self.evaluate(group)
        self.tally.begin()


def _sizes(loader: Any, k: int) -> list[list[Any]]:
    """Groups of k batches of each combination of sizes that there is, as far as can be known."""
    if isinstance(loader, (list, tuple)):
        groups = [list(loader[i : i + k]) for i in range(0, len(loader), k)]
        return list({tuple(map(_samples, g)): g for g in groups}.values())
    full = next(iter(loader), None)
    if full is None:
        return []
    last, rest = full, 0
    with contextlib.suppress(TypeError, AttributeError):  # without a length, or no dataset
        rest = len(loader) % k
        if not loader.drop_last and (samples := len(loader.dataset) % _samples(full)):
            last = mapped(lambda x: x[:samples], full)
    return [[full] * k, [*[full] * ((rest or k) - 1), last]]


def _collection(metrics: Any) -> MetricCollection:
    """Metrics by name, none of which is the mean loss, which is measured as well.

    Raises:
        TypeError: they are no dict or list.
        ValueError: one is called "loss".
    """
    if isinstance(metrics, str) or not isinstance(metrics, (Mapping, Sequence)):
        raise TypeError(f"metrics is a dict or a list of metrics, got {type(metrics).__name__}")
    found = MetricCollection(metrics)
    if "loss" in found:
        raise ValueError("a metric must not be called 'loss': the mean loss is measured as well")
    return found


def _defaults(fn: Any) -> dict[str, Any]:
    """What a function's arguments are unless they are given."""
    try:
        return {name: p.default for name, p in inspect.signature(fn).parameters.items()}
    except (TypeError, ValueError):  # no function, or one that does not tell
        return {}


def _samples(nest: Any) -> int:
    """How many samples there are: the length of the first tensor, or of a list of other things."""
    if isinstance(nest, (list, tuple)) and not any(hasattr(x, "shape") for x in leaves(nest)):
        return len(nest[0]) if nest and isinstance(nest[0], (list, tuple)) else len(nest)
    for x in leaves(nest):
        if hasattr(x, "shape") and len(x.shape):
            return int(x.shape[0])
    return 1


def _batches(given: Any) -> Any:
    """What was given, unless it is a dataset of samples, or arrays of samples.

    Raises:
        TypeError: it is.
    """
    if isinstance(given, tuple) and given and all(hasattr(a, "shape") for a in given):
        raise TypeError(
            "these are arrays of samples, not batches: DataLoader(TensorDataset(X, y), batch_size=32)"
        )
    kinds = {c.__name__ for c in type(given).__mro__}
    if "Dataset" in kinds and "IterableDataset" not in kinds and hasattr(given, "__getitem__"):
        name = type(given).__name__
        raise TypeError(
            f"{name} gives samples, not batches: DataLoader({name.lower()}, batch_size=32)"
        )
    return given


def _detached(nest: Any) -> Any:
    return mapped(lambda x: x.detach() if hasattr(x, "detach") else x, nest)


def _put_back(modes: list[tuple[Any, bool]]) -> None:
    for module, training in modes:
        if module.training != training:  # a change is noticed by compiled steps
            module.training = training

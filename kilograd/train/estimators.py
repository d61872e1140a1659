"""scikit-learn estimators: :class:`Trainer` behind ``fit``, ``predict`` and ``score``.

Importing this module imports scikit-learn, whose classes these inherit from; so nothing imports it but
:mod:`kilograd.train`, when one of the two names is asked for.
"""

from __future__ import annotations

import copy
import functools
import inspect
import numbers
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from kilograd import dtypes, nn, optim, random
from kilograd import functions as fn
from kilograd.autograd.modes import no_grad
from kilograd.nn import functional as F
from kilograd.nn.parameter import is_lazy
from kilograd.tensor import Tensor, wrap
from kilograd.train.callbacks import Callback, Checkpoints, EarlyStopping, Schedule
from kilograd.train.trainer import Trainer

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "selu": nn.SELU,
    "sigmoid": nn.Sigmoid, "silu": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    name.lower(): what
    for name, what in vars(optim).items()
    if inspect.isclass(what) and what is not optim.Optimizer
}

# The default generator is one for the whole process: fits in threads take turns with it.
_TURN = threading.RLock()


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share: parameters, checks, and the run of the trainer."""

    module_: nn.Module
    optimizer_: Any
    history_: Any
    n_iter_: int
    n_outputs_: int
    dtype_: Any
    _set_to: dict[str, Any]  # parameters of the last fit
    _rng_state: np.ndarray  # where the generator was when the last fit ended

    def __init__(
        self, module: Any = None, *, hidden: Any = (100,), activation: Any = "relu", dropout: float = 0.0,
        loss: Any = None, optimizer: Any = "adam", lr: float = 1e-3, weight_decay: float = 0.0,
        schedule: Any = None, epochs: int = 100, batch_size: int = 64, validation_fraction: float = 0.0,
        patience: int | None = None, clip_norm: float | None = None, metrics: Any = (),
        callbacks: Any = (), compile: bool = False, dtype: Any = None, random_state: Any = None,
        warm_start: bool = False, verbose: int = 0,
    ) -> None:  # fmt: skip
        self.module = module
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.clip_norm = clip_norm
        self.metrics = metrics
        self.callbacks = callbacks
        self.compile = compile
        self.dtype = dtype
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:  # fmt: skip
        """Train from the beginning; with ``warm_start``, from where the last call ended.

        Args:
            X: the samples (n, features), numbers that are finite; with a ``module`` also (n, …).
            y: the targets.
            sample_weight: how much each sample counts (n,). The loss is the weighted mean; a sample of
                weight 0 is left out.
            X_val: samples to measure after each epoch, in place of ``validation_fraction``.
            y_val: their targets.
            sample_weight_val: their weights.

        Raises:
            ValueError: data or parameters that do not fit together.
            NonFiniteError: the loss became NaN or infinite.
        """
        going_on = self.warm_start and hasattr(self, "module_")
        return self._train(
            X, y, sample_weight, going_on=going_on, validation=(X_val, y_val, sample_weight_val)
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    # --- what the two do in their own way -----------------------------------------------------------

    def _encoded(self, y: Any, known: bool, classes: Any) -> np.ndarray:
        """The targets as the loss wants them; unless ``known``, learns what can be a target."""
        raise NotImplementedError

    def _loss(self) -> Callable[..., Any]:
        raise NotImplementedError

    def _class_weights(self, weights: np.ndarray | None, y: np.ndarray, once: bool) -> Any:
        """A weight for each class, or None."""
        return None

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """What there is to be an equal part of in the validation data."""
        return None

    # --- training -----------------------------------------------------------------------------------

    def _train(
        self, X: Any, y: Any, sample_weight: Any, *, going_on: bool, once: bool = False,
        classes: Any = None, validation: tuple[Any, Any, Any] = (None, None, None),
    ) -> Any:  # fmt: skip
        """Check everything, then run the trainer; ``once``: one epoch and nothing around it."""
        self._check_parameters()
        if going_on:
            self._check_same_model()
        else:
            self.__dict__.pop("module_", None)  # if this fails, nothing of an older fit is left
        X, y = self._data(X, y, known=going_on, classes=classes)
        weights = _weights(sample_weight, len(X), "sample_weight")
        of_classes = self._class_weights(weights, y, once)
        weights = _both(weights, of_classes, y)
        rows = _counting(weights, X)

        chance = check_random_state(self.random_state)
        held: Any = None  # what is measured after each epoch: arrays, their weights, chosen rows
        if any(v is not None for v in validation):
            held = self._validation(*validation, of_classes)
        elif self.validation_fraction and not once:
            strata = self._strata(y)
            rows, apart = train_test_split(
                rows, test_size=self.validation_fraction, random_state=chance,
                stratify=None if strata is None else strata[rows],
            )  # fmt: skip
            held = (X, y, weights, apart)

        with _TURN, random.fork_rng():
            if going_on:
                random.set_rng_state(self._rng_state)
                model, optimizer = self.module_, self.optimizer_
                self._set_again(optimizer)
            else:
                random.manual_seed(chance.randint(2**31 - 1))
                model = self._model(X[rows[:1]])
                optimizer = self._optimizer(model)
            trainer = _Run(
                model, self._loss(), optimizer, columns=self.n_outputs_,
                weighted=weights is not None or (held is not None and held[2] is not None),
                metrics=copy.deepcopy(self.metrics), clip_norm=self.clip_norm,
                compile=bool(self.compile) and not once,
                callbacks=[] if once else self._callbacks(optimizer, held is not None),
            )  # fmt: skip
            done = 0
            if going_on:  # the history goes on, too
                done, rows_before = self.n_iter_, self.history_.rows
                before = {"epoch": done, "step": rows_before[-1]["step"], "rows": rows_before}
                trainer.load_state_dict(trainer.state_dict() | before)
            trainer.fit(
                self._batches(X, y, weights, rows, shuffle=True),
                None if held is None else self._batches(*held),
                epochs=done + (1 if once else int(self.epochs)),
                progress=bool(self.verbose),
            )
            self._rng_state = random.get_rng_state()
        optimizer.zero_grad()  # gradients are not worth their place in a pickle
        self.module_, self.optimizer_ = model.eval(), optimizer
        self.history_, self.n_iter_ = trainer.history, trainer.epoch
        self._set_to = {name: getattr(self, name) for name in (*OF_MODEL, "lr", "weight_decay")}
        return self

    def _check_parameters(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name} must be an integer that is at least 1, got {value!r}")
        for name in ("validation_fraction", "dropout"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        if self.dtype is not None and dtypes.as_dtype(self.dtype) not in FLOATS:
            raise ValueError(f"dtype must be None, 'float32' or 'float64', got {self.dtype!r}")

    def _check_same_model(self) -> None:
        """What is trained further is as it was made."""
        changed = [name for name in OF_MODEL if not _alike(getattr(self, name), self._set_to[name])]
        if changed:
            raise ValueError(
                f"{', '.join(changed)}: changed since the fit that this one goes on from, which has made the "
                "model. fit() with warm_start=False begins anew"
            )

    def _set_again(self, optimizer: Any) -> None:
        """Give the optimizer what was changed; what a schedule has made of the rest stays."""
        for name in ("lr", "weight_decay"):
            if (value := getattr(self, name)) != self._set_to[name]:
                for group in optimizer.param_groups:
                    if name not in group:
                        raise ValueError(f"{type(optimizer).__name__} has no {name}")
                    group[name] = value
                    group.pop("initial_lr", None)

    def _data(self, X: Any, y: Any, known: bool, classes: Any = None) -> tuple[Any, np.ndarray]:
        """Samples and targets as arrays, checked; unless ``known``, learns what they are like."""
        if known:
            dtype: Any = self.dtype_
        else:  # float32 stays float32; everything else becomes float64, as in scikit-learn
            given = dtypes.numpy_dtype(self.dtype)
            dtype = [np.float64, np.float32] if given is None else given
        X, y = validate_data(
            self, X, y, reset=not known, dtype=dtype, multi_output=True, allow_nd=self.module is not None,
            y_numeric=isinstance(self, RegressorMixin),
        )  # fmt: skip
        if not known:
            self.dtype_ = X.dtype
        return X, self._encoded(y, known, classes)

    def _validation(self, X: Any, y: Any, weights: Any, of_classes: Any) -> tuple[Any, ...]:
        if X is None or y is None:
            raise ValueError("X_val and y_val are given together, or neither")
        X, y = self._data(X, y, known=True)
        weights = _both(_weights(weights, len(X), "sample_weight_val"), of_classes, y)
        return X, y, weights, _counting(weights, X)

    def _batches(
        self, X: Any, y: Any, weights: np.ndarray | None, rows: np.ndarray, shuffle: bool = False
    ) -> _Rows:
        arrays = [X, y]
        if weights is not None:  # of mean 1: the mean of w · loss is then the weighted mean
            arrays.append((weights / weights[rows].mean()).astype(self.dtype_))
        return _Rows(arrays, rows, int(self.batch_size), shuffle)

    def _model(self, sample: np.ndarray) -> nn.Module:
        """A new model, which has seen one sample if its layers learn their sizes from it."""
        given, n_in, n_out = self.module, self.n_features_in_, self.n_outputs_
        if given is None:
            model: Any = self._mlp(n_in, n_out)
        elif isinstance(given, nn.Module):
            model = copy.deepcopy(given)
        elif inspect.isclass(given) or (callable(given) and not hasattr(given, "state_dict")):
            model = given(n_in, n_out)
        else:
            model = given
        if not isinstance(model, nn.Module):
            raise TypeError(
                "module must be None, a kilograd.nn.Module, or a function of the numbers of features and "
                f"outputs that returns one, but got {type(model).__name__}"
            )
        parameters = [*model.parameters()]
        if any(map(is_lazy, parameters)):
            with no_grad():
                model.eval()(wrap(sample.astype(parameters[0].dtype.dtype)))
        return model.to(self.dtype_).train()

    def _mlp(self, n_in: int, n_out: int) -> nn.Module:
        activation = self.activation
        if isinstance(activation, str):
            activation = _named(activation, ACTIVATIONS, "activation")
        sizes = [self.hidden] if isinstance(self.hidden, numbers.Integral) else list(self.hidden)
        if not all(isinstance(n, numbers.Integral) and int(n) > 0 for n in sizes):
            raise ValueError(f"hidden must be positive integers, got {self.hidden!r}")
        layers: list[nn.Module] = []
        for n in sizes:
            layers += [nn.Linear(n_in, int(n)), activation()]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
            n_in = int(n)
        return nn.Sequential(*layers, nn.Linear(n_in, n_out))

    def _optimizer(self, model: nn.Module) -> Any:
        make = self.optimizer
        if isinstance(make, str):
            make = _named(make, OPTIMIZERS, "optimizer")
        decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        return make(model.parameters(), lr=self.lr, **decay)

    def _callbacks(self, optimizer: Any, validates: bool) -> list[Any]:
        monitor = "val_loss" if validates else "train_loss"
        self.callbacks_ = copy.deepcopy(list(self.callbacks))  # fit() never changes a parameter
        if any(isinstance(c, Checkpoints) and c.resume for c in self.callbacks_):
            raise ValueError(
                "Checkpoints would go on from whatever fit has written to its folder, which in a cross "
                "validation is another one: give Checkpoints(…, resume=False)"
            )
        more: list[Any] = []
        if self.schedule is not None:
            made = self.schedule(optimizer)
            if not isinstance(made, Callback):
                plateau = isinstance(made, optim.lr_scheduler.ReduceLROnPlateau)
                made = Schedule(made, monitor=monitor if plateau else None)
            more.append(made)
        if self.patience is not None:
            more.append(EarlyStopping(int(self.patience), monitor=monitor))
        return [*self.callbacks_, *more]

    def _outputs(self, X: Any) -> Tensor:
        """What the model says of some samples (n, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=self.dtype_, allow_nd=self.module is not None)
        trainer = _Run(self.module_, columns=self.n_outputs_)
        size = int(self.batch_size)
        if X.ndim == 2:  # rows of a table are small; of images, many at once take much memory
            size = max(size, 1024)
        return trainer.predict(_Rows([X], np.arange(len(X)), size, shuffle=False))


FLOATS = (dtypes.float32, dtypes.float64)
OF_MODEL = ("module", "hidden", "activation", "dropout", "loss", "optimizer", "dtype")


def _alike(a: Any, b: Any) -> bool:
    """Whether two parameters mean the same."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return tuple(a) == tuple(b)
    return a is b or bool(np.all(a == b))


def _named(name: str, table: dict[str, Any], what: str) -> Any:
    if name not in table:
        raise ValueError(f"{what}={name!r} is not known; there are {', '.join(sorted(table))}")
    return table[name]


def _weights(given: Any, n: int, name: str) -> np.ndarray | None:
    """Sample weights as an array.

    Raises:
        ValueError: another shape than (n,), a negative one, or all are zero.
    """
    if given is None:
        return None
    if isinstance(given, numbers.Number):
        given = np.full(n, given)
    weights: np.ndarray = check_array(given, ensure_2d=False, dtype=np.float64, input_name=name)
    if weights.shape != (n,):
        raise ValueError(f"{name}.shape == {weights.shape}, expected {(n,)}!")
    if (weights < 0).any():
        raise ValueError(f"{name}: weights must not be negative")
    if not weights.any():
        raise ValueError(f"{name}: at least one weight must not be zero")
    return weights


def _both(weights: np.ndarray | None, of_classes: Any, y: np.ndarray) -> np.ndarray | None:
    """Sample weights times the weights of the samples' classes.

    Raises:
        ValueError: all are zero.
    """
    if of_classes is None:
        return weights
    product: np.ndarray = of_classes[_numbers(y)] * (1.0 if weights is None else weights)
    if not product.any():
        raise ValueError("all samples have the weight zero: see class_weight and sample_weight")
    return product


def _counting(weights: np.ndarray | None, X: Any) -> np.ndarray:
    """The rows that have a weight."""
    return np.arange(len(X)) if weights is None else np.flatnonzero(weights)


class _Rows:
    """Batches of chosen rows of some arrays: at most ``size`` rows each, and all but equally many.

    So no batch has a single row where there are more, which batch normalisation could not learn from.
    The arrays are not copied, each batch is: a model that works in place does not change the data.
    """

    def __init__(self, arrays: list[Any], rows: np.ndarray, size: int, shuffle: bool) -> None:
        self.arrays, self.rows, self.size, self.shuffle = arrays, rows, size, shuffle

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        rows = self.rows
        if self.shuffle:
            rows = rows[random.permutation(None, len(rows))]
        for part in np.array_split(rows, len(self)):
            yield tuple(wrap(a[part]) for a in self.arrays)


class _Run(Trainer):
    """A trainer for batches (x, target) or (x, target, weight), of a model with so many outputs."""

    def __init__(
        self, model: Any, loss: Any = None, optimizer: Any = None, *, columns: int,
        weighted: bool = False, **how: Any,
    ) -> None:  # fmt: skip
        super().__init__(model, loss, optimizer, **how)
        self.columns = columns
        self.each: Any = _of_each_sample(loss) if weighted else None

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        return batch[:1], batch[1] if len(batch) > 1 else None

    def outputs(self, inputs: Any) -> Any:
        outputs = super().outputs(inputs)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"the module must return one tensor, got {type(outputs).__name__}")
        expected = (len(inputs[0]), self.columns)
        if outputs.shape == expected[:1] and self.columns == 1:
            return outputs.reshape(expected)
        if outputs.shape != expected:
            raise ValueError(
                f"the module's outputs have the shape {tuple(outputs.shape)}, but for these targets they "
                f"must have {expected}: one column for each class or target"
            )
        return outputs

    def forward(self, batch: Any) -> tuple[Any, Any]:
        if len(batch) < 3:
            return super().forward(batch)
        x, target, weight = batch
        outputs = self.outputs((x,))
        each = self.each(outputs, target).reshape(len(x), -1)
        if self._sums:
            return (each.sum(1) * weight).sum(), outputs
        return (each.mean(1) * weight).mean(), outputs


def _of_each_sample(loss: Any) -> Callable[..., Tensor]:
    """The loss without its sum or mean.

    Raises:
        ValueError: it has no ``reduction``, or weights of its own.
    """
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and loss.weight is not None:
        raise ValueError(
            "a loss that weighs classes does not go with sample_weight or class_weight: give all "
            "weights to the estimator"
        )
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        loss = copy.copy(loss)
        loss.reduction = "none"
        return loss
    if "reduction" in inspect.signature(loss).parameters:
        return functools.partial(loss, reduction="none")
    raise ValueError(
        "sample_weight and class_weight need the loss of each sample: a loss with a reduction, such as "
        "nn.MSELoss() or nn.functional.mse_loss"
    )


def _is(loss: Any, layer: type, function: Any) -> bool:
    """Whether a loss is that layer, or that function, perhaps with arguments of its own."""
    return isinstance(loss, layer) or getattr(loss, "func", loss) is function


# --- the two ------------------------------------------------------------------------------------------


def _gives_probabilities(self: Any) -> bool:
    if _is(self.loss, nn.MultiMarginLoss, F.multi_margin_loss):
        raise AttributeError("a model trained with a margin loss gives scores, no probabilities")
    return True


def _link(loss: Any, several: bool) -> str:
    """How outputs become probabilities: by a softmax or sigmoid; "logit": they are probabilities."""
    if _is(loss, nn.BCELoss, F.binary_cross_entropy):
        return "logit"
    if several or _is(loss, nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits):
        return "sigmoid"
    return "softmax"


class KilogradClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A neural network as a scikit-learn classifier: of two or more classes, or of several labels.

    It works with pipelines, grid searches, cross validation, ensembles and calibration, and can be
    pickled. Classes may be numbers or strings; targets (n, labels) of 0 and 1 are several labels.

    Scores (logits) become probabilities by the loss: with ``BCEWithLogitsLoss``, and for several
    labels, each by a sigmoid; with ``BCELoss`` the module gives probabilities itself, with
    ``NLLLoss`` their logarithms; with any other loss by a softmax over the classes.

    Args:
        module: what is trained. None: an MLP of ``hidden`` and ``activation``. A ``kg.nn.Module`` is
            a template: every fit trains a copy, which begins with the template's weights. A function
            (or class) is called with the number of features and of outputs, and returns a Module.
            There is one output for each class, or label; only one for two classes with a BCE loss.
        hidden: the sizes of the MLP's hidden layers.
        activation: what follows each: "relu", "tanh", "gelu", …, or a function that makes a layer.
        dropout: the probability with which a hidden unit is zeroed in training.
        loss: a function or Module of outputs and targets: class numbers (n,) int64, or 0 and 1 as
            floating-point numbers for BCE losses and several labels. None: cross entropy, or
            ``BCEWithLogitsLoss`` for several labels.
        optimizer: the name of one of ``kg.optim``, such as "adam" or "sgd"; or a function of the
            parameters and ``lr``, such as ``functools.partial(kg.optim.SGD, momentum=0.9)``.
        lr: the learning rate.
        weight_decay: given to the optimizer unless it is zero.
        schedule: a function of the optimizer that returns a learning-rate scheduler, which is stepped
            after each epoch (or a :class:`Schedule` of one, which says when).
        epochs: how often a fit goes through the data, at most.
        batch_size: at most how many samples make a step; all batches are about equally large.
        validation_fraction: the part of the data that is measured after each epoch, and not trained
            on; of each class alike. ``fit(…, X_val=…, y_val=…)`` gives data for it instead.
        patience: end when the loss has not become smaller for so many epochs, and take the best
            epoch's weights: the loss of the validation data, or that of training if there are none.
        clip_norm: the largest norm of all gradients together.
        metrics: to be measured in each epoch, see :class:`Trainer`; they are given the outputs.
        callbacks: see :class:`Trainer`. A fit uses copies, and leaves them in ``callbacks_``.
        compile: whether training steps are compiled. This takes seconds, and pays for long runs.
        dtype: "float32" or "float64" to compute with. None: float32 for samples that are float32,
            float64 otherwise.
        class_weight: None, a dict of weights by class, or "balanced": each class counts the same.
        random_state: None, an int or a ``RandomState``, for initial weights, order of the samples,
            dropout and the choice of validation data. kilograd's own generator stays as it was.
        warm_start: whether ``fit`` goes on with the weights, the optimizer and the history of the
            last call; ``lr`` and ``weight_decay`` may be others, what the model is made of may not.
        verbose: whether a progress bar is drawn.

    Attributes:
        module_: the trained model, in evaluation mode.
        classes_: the classes; for several labels their numbers.
        history_: a :class:`History` of all epochs.
        n_iter_: how many epochs there were.
        n_outputs_: how many outputs the model has.
        n_features_in_: how many features a sample has.
        feature_names_in_: their names, if the samples had names that are strings.
        dtype_: what was computed with.
        optimizer_: the optimizer.
        callbacks_: the callbacks that were given, as they were after the last ``fit``.

    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> model = KilogradClassifier(hidden=(32,), lr=0.02, epochs=30, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.9
    True
    >>> model.predict_proba(X[:3]).shape
    (3, 2)
    """

    classes_: np.ndarray
    _several: bool  # several labels, not one class
    _link: str  # see _link()

    def __init__(
        self, module: Any = None, *, hidden: Any = (100,), activation: Any = "relu", dropout: float = 0.0,
        loss: Any = None, optimizer: Any = "adam", lr: float = 1e-3, weight_decay: float = 0.0,
        schedule: Any = None, epochs: int = 100, batch_size: int = 64, validation_fraction: float = 0.0,
        patience: int | None = None, clip_norm: float | None = None, metrics: Any = (),
        callbacks: Any = (), compile: bool = False, dtype: Any = None, class_weight: Any = None,
        random_state: Any = None, warm_start: bool = False, verbose: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            module, hidden=hidden, activation=activation, dropout=dropout, loss=loss, optimizer=optimizer,
            lr=lr, weight_decay=weight_decay, schedule=schedule, epochs=epochs, batch_size=batch_size,
            validation_fraction=validation_fraction, patience=patience, clip_norm=clip_norm,
            metrics=metrics, callbacks=callbacks, compile=compile, dtype=dtype,
            random_state=random_state, warm_start=warm_start, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """One epoch with these samples, from where the last call ended.

        There is no validation, early stopping, schedule, callback or compilation.

        Args:
            X: the samples (n, features).
            y: the targets.
            classes: all classes (or the numbers of the labels) there will be; needed in the first call.
            sample_weight: how much each sample counts (n,).

        Raises:
            ValueError: classes are missing, or other ones than before; as for :meth:`fit`.
        """
        going_on = hasattr(self, "module_")
        if not going_on and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if going_on and not np.array_equal(
            self.classes_, np.unique(self.classes_ if classes is None else classes)
        ):
            raise ValueError(f"classes={classes!r} is not what it was before: {self.classes_}")
        return self._train(X, y, sample_weight, going_on=going_on, once=True, classes=classes)

    def _encoded(self, y: Any, known: bool, classes: Any) -> np.ndarray:
        y = y.toarray() if hasattr(y, "toarray") else y
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            check_classification_targets(y)  # says what is wrong with numbers that are no classes
            raise ValueError(
                "y has several columns: it may be one class for each sample (n,), or labels (n, labels) "
                "that are 0 or 1. For several targets of several classes: MultiOutputClassifier"
            )
        several = kind == "multilabel-indicator"
        if known and several != self._several:
            raise ValueError(f"y is {kind}, but was {'not ' if several else ''}multilabel before")
        if several:
            if not known:
                if classes is not None and len(np.unique(classes)) != y.shape[1]:
                    raise ValueError(f"y has {y.shape[1]} labels, but classes={classes!r}")
                self._several, self.classes_ = True, np.arange(y.shape[1])
            elif y.shape[1] != len(self.classes_):
                raise ValueError(f"y has {y.shape[1]} labels, but had {len(self.classes_)} before")
        else:
            y = column_or_1d(y, warn=True)
            if not known:
                self._several = False
                self.classes_ = LabelEncoder().fit(y if classes is None else classes).classes_
            y = self._numbered(y)
        if not known:
            self._link = _link(self.loss, several)
            self.n_outputs_ = self._columns()
        if self._link != "softmax":
            return np.asarray(y, self.dtype_).reshape(len(y), -1)
        return np.asarray(y, np.int64)

    def _numbered(self, y: np.ndarray) -> np.ndarray:
        """Each class as its number.

        Strings are compared whole; as arrays, longer ones would be cut to the length of the known ones.
        """
        numbers = {label: k for k, label in enumerate(self.classes_.tolist())}
        given = y.tolist()
        if unknown := set(given) - numbers.keys():
            some = ", ".join(sorted(map(repr, unknown))[:10])
            raise ValueError(f"y has unseen classes, not among {self.classes_}: {some}")
        return np.array([numbers[label] for label in given], np.int64)

    def _columns(self) -> int:
        n = len(self.classes_)
        if self._several or self._link == "softmax":
            return n
        if n != 2:
            raise ValueError(f"a BCE loss is for two classes, or several labels; y has {n} classes")
        return 1

    def _loss(self) -> Callable[..., Any]:
        if self.loss is not None:
            return _converted(self.loss, self.dtype_)
        return nn.BCEWithLogitsLoss() if self._several else nn.CrossEntropyLoss()

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return None if self._several else y

    def _class_weights(self, weights: np.ndarray | None, y: np.ndarray, once: bool) -> Any:
        if self.class_weight is None:
            return None
        if self._several:
            raise ValueError(
                "class_weight is for one class for each sample; for several labels give sample_weight, or "
                "loss=nn.BCEWithLogitsLoss(pos_weight=…)"
            )
        if not isinstance(self.class_weight, str):
            return compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_)
        if self.class_weight != "balanced":
            raise ValueError(
                f"class_weight is a dict, 'balanced' or None, got {self.class_weight!r}"
            )
        if once:
            raise ValueError(
                "class_weight='balanced' is not for partial_fit, which sees a part of the data: give the "
                "weights of sklearn.utils.class_weight.compute_class_weight as a dict"
            )
        found = np.bincount(_numbers(y), weights, minlength=len(self.classes_))
        return np.divide(1.0, found, out=np.zeros(len(found)), where=found > 0)

    def _scores(self, X: Any) -> Tensor:
        """Scores (n, outputs) that a sigmoid or softmax makes probabilities of."""
        outputs = self._outputs(X)
        if self._link == "logit":  # the outputs are probabilities
            return fn.logit(outputs, float(np.finfo(self.dtype_).eps))
        return outputs

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores: (n,) for two classes, positive for the second; otherwise one for each class or label."""
        scores = self._scores(X).numpy()
        if self._several or len(self.classes_) != 2:
            return scores
        return scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]

    def predict(self, X: Any) -> np.ndarray:
        """The class of each sample (n,); for several labels 0 or 1 (n, labels)."""
        scores = self.decision_function(X)
        if self._several:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithms of :meth:`predict_proba`."""
        scores = self._scores(X)
        if self._link == "softmax":
            return F.log_softmax(scores, 1).numpy()
        if not self._several:
            scores = fn.cat([-scores, scores], 1)
        return F.logsigmoid(scores).numpy()

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class or label (n, classes); not with a margin loss."""
        return np.exp(self.predict_log_proba(X))


class KilogradRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A neural network as a scikit-learn regressor, of one target (n,) or of several (n, targets).

    Neither samples nor targets are scaled: put a ``StandardScaler`` before it, and a
    ``TransformedTargetRegressor`` around it where targets are far from zero or large.

    Parameters and attributes are those of :class:`KilogradClassifier`, without those about classes.

    Args:
        module: what is trained; a column of its outputs for each target.
        hidden: the sizes of the MLP's hidden layers, if there is no module.
        activation: what follows each.
        dropout: the probability with which a hidden unit is zeroed in training.
        loss: a function or Module of outputs and targets, both (n, targets). None: ``MSELoss``.
        optimizer: a name, or a function of the parameters and ``lr``.
        lr: the learning rate.
        weight_decay: given to the optimizer unless it is zero.
        schedule: a function of the optimizer that returns a learning-rate scheduler.
        epochs: how often a fit goes through the data, at most.
        batch_size: at most how many samples make a step.
        validation_fraction: the part of the data that is measured and not trained on.
        patience: how many epochs without a smaller loss end the fit.
        clip_norm: the largest norm of all gradients together.
        metrics: to be measured in each epoch.
        callbacks: see :class:`Trainer`.
        compile: whether training steps are compiled.
        dtype: "float32" or "float64" to compute with; None: that of the samples.
        random_state: None, an int or a ``RandomState``.
        warm_start: whether ``fit`` goes on where the last call ended.
        verbose: whether a progress bar is drawn.

    >>> from sklearn.datasets import make_regression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler, scale
    >>> X, y = make_regression(200, 5, noise=1.0, random_state=0)
    >>> model = make_pipeline(StandardScaler(), KilogradRegressor(lr=0.01, epochs=30, random_state=0))
    >>> model.fit(X, scale(y)).score(X, scale(y)) > 0.95
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch with these samples, from where the last call ended.

        There is no validation, early stopping, schedule, callback or compilation.

        Raises:
            ValueError: as for :meth:`fit`.
        """
        going_on = hasattr(self, "module_")
        return self._train(X, y, sample_weight, going_on=going_on, once=True)

    def _encoded(self, y: Any, known: bool, classes: Any) -> np.ndarray:
        table = np.asarray(y, self.dtype_).reshape(len(y), -1)
        if not known:
            self.n_outputs_, self._column = table.shape[1], y.ndim == 1
        elif table.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {table.shape[1]} targets, but had {self.n_outputs_} before")
        return table

    def _loss(self) -> Callable[..., Any]:
        return nn.MSELoss() if self.loss is None else _converted(self.loss, self.dtype_)

    def predict(self, X: Any) -> np.ndarray:
        """The targets: (n,), or (n, targets) if they were so in ``fit``."""
        outputs = self._outputs(X).numpy()
        return outputs[:, 0] if self._column else outputs


def _numbers(y: np.ndarray) -> np.ndarray:
    """Class numbers, also of targets that are 0 and 1 in a column."""
    return y.reshape(-1).astype(np.int64, copy=False)


def _converted(loss: Any, dtype: Any) -> Any:
    """A loss whose own tensors, such as weights, are of the model's dtype."""
    return copy.deepcopy(loss).to(dtype) if isinstance(loss, nn.Module) else loss

"""What people hand over as classes, scores and targets becomes NumPy arrays that have been looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

Array = np.ndarray[Any, Any]
F = TypeVar("F", bound=Callable[..., Any])


def array_of(x: Any, what: str) -> Array:
    """The values of a kilograd or PyTorch tensor, of an array, or of a list, as a NumPy array.

    Args:
        x: anything with ``.detach()`` and ``.numpy()``, anything NumPy understands, or a list of these.
        what: its name in error messages.

    Raises:
        TypeError: the values are neither numbers nor strings.
        ValueError: a list whose rows differ in length.
    """
    if x is None:
        raise TypeError(f"{what} are missing: NoneType")
    for step in ("detach", "cpu"):
        if hasattr(x, step):
            x = getattr(x, step)()
    if str(getattr(x, "dtype", "")) == "torch.bfloat16":  # unknown to NumPy
        x = x.float()
    if isinstance(x, (list, tuple)) and any(hasattr(v, "detach") for v in x):
        x = [array_of(v, what) for v in x]
    try:
        array = np.asarray(x.numpy() if hasattr(x, "numpy") else x)
    except ValueError as e:
        raise ValueError(f"{what} cannot be made an array: {e}") from e
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "biufU":
        raise TypeError(
            f"{what} must hold numbers or strings, got {type(x).__name__} of {array.dtype}"
        )
    return array


def column(array: Array) -> Array:
    """(N, 1) → (N,); any other shape stays."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def no_nan(array: Array, what: str, *, inf: bool = False) -> None:
    """Raise ValueError where an array holds NaN, or, unless ``inf`` is allowed, infinity."""
    if array.dtype.kind == "f":
        bad = np.isnan(array) if inf else ~np.isfinite(array)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            at = where[0] if len(where) == 1 else where
            raise ValueError(
                f"{what} holds {array[where]} (the first at {at}): no metric is defined"
            )


def class_array(y: Any, what: str) -> Array:
    """Classes (N,), or labels that are there or not (N, L), of integers, whole floats, bools or strings."""
    array = column(array_of(y, what))
    no_nan(array, what)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{what} must have the shape (N,), or (N, L) for L labels, got {array.shape}"
        )
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        hint = f"{what}.argmax(1)" if array.ndim == 2 else f"{what} > 0.5"
        raise ValueError(f"{what} holds scores, not classes; of probabilities give e.g. {hint}")
    if array.ndim == 2 and (array.dtype.kind == "U" or not np.isin(array, (0, 1)).all()):
        raise ValueError(
            f"{what} of shape {array.shape} is read as labels, each 0 or 1; it holds other values"
        )
    return array


def same_kind(a: Array, b: Array, names: str) -> None:
    """Raise ValueError where strings meet numbers."""
    if (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        raise ValueError(f"{names}: one holds strings, the other numbers")


def _options(options: dict[str, Any], true: Array) -> dict[str, Any]:
    """The options that are arrays, as arrays."""
    if options.get("sample_weight") is not None:
        weight = column(array_of(options["sample_weight"], "sample_weight"))
        no_nan(weight, "sample_weight")
        if weight.shape != true.shape[:1]:
            raise ValueError(
                f"sample_weight has the shape {weight.shape}, but there are {len(true)} samples"
            )
        if not weight.any():
            raise ValueError("sample_weight is zero for all samples")
        options["sample_weight"] = (
            weight.astype(np.float64) if weight.dtype.kind in "bf" else weight
        )
    if options.get("labels") is not None:
        labels = array_of(options["labels"], "labels")
        if labels.ndim != 1 or not labels.size:
            raise ValueError(f"labels must be a list of classes, got the shape {labels.shape}")
        if len(np.unique(labels)) < len(labels):
            raise ValueError(f"labels holds a class twice: {labels.tolist()}")
        options["labels"] = labels
    if not isinstance(options.get("multioutput", ""), str):
        over = options["multioutput"] = array_of(options["multioutput"], "multioutput")
        if true.ndim == 1 or over.shape != true.shape[1:]:
            raise ValueError(
                f"multioutput has {over.shape} weights, but y_true the shape {true.shape}"
            )
    return options


def two_classes(y_true: Any, y_pred: Any, names: str) -> tuple[Array, Array]:
    """True and predicted classes, of one shape."""
    true, pred = class_array(y_true, "y_true"), class_array(y_pred, "y_pred")
    equal_shapes(true, pred, names)
    same_kind(true, pred, names)
    if (
        pred.astype(true.dtype) == pred
    ).all():  # 1.0 and True are the class 1 if the true ones are integers
        pred = pred.astype(true.dtype, copy=False)
    return true, pred


def true_and_scores(y_true: Any, y_score: Any, names: str) -> tuple[Array, Array]:
    """True classes (N,) or labels (N, L), and scores (N,) or (N, C)."""
    true, score = class_array(y_true, "y_true"), column(array_of(y_score, "the scores"))
    if score.dtype.kind == "U":
        raise TypeError("the scores must be numbers, got strings")
    if score.ndim not in (1, 2) or len(true) != len(score) or true.ndim > score.ndim:
        raise ValueError(
            f"{names}: y_true has the shape {true.shape}, the scores have {score.shape}"
        )
    if true.ndim == 2:
        equal_shapes(true, score, names)
    elif not score.size:
        raise ValueError(f"{names}: there are no samples")
    no_nan(score, "the scores")
    return true, score if score.dtype.kind == "f" else score.astype(np.float64)


def two_values(y_true: Any, y_pred: Any, names: str) -> tuple[Array, Array]:
    """Targets and predictions of a regression, (N,) or (N, D), as float64: float16 squares overflow."""
    true, pred = (column(array_of(y, w)) for y, w in ((y_true, "y_true"), (y_pred, "y_pred")))
    if "U" in (true.dtype.kind, pred.dtype.kind):
        raise TypeError(f"{names}: y_true and y_pred must be numbers, got strings")
    if max(true.ndim, pred.ndim) > 2 or min(true.ndim, pred.ndim) < 1:
        raise ValueError(
            f"{names}: expected the shape (N,) or (N, D), got y_true {true.shape}, y_pred {pred.shape}"
        )
    equal_shapes(true, pred, names)
    no_nan(true, "y_true")
    no_nan(pred, "y_pred")
    return true.astype(np.float64), pred.astype(np.float64)


def equal_shapes(true: Array, pred: Array, names: str) -> None:
    """Raise ValueError where two arrays are not of one shape, or are empty."""
    if true.shape != pred.shape:
        raise ValueError(
            f"{names}: y_true has the shape {true.shape}, the predictions have {pred.shape}"
        )
    if not true.size:
        raise ValueError(f"{names}: there are no samples (the shape is {true.shape})")


def as_in_sklearn(check: Callable[[Any, Any, str], tuple[Array, Array]]) -> Callable[[F], F]:
    """Make a NumPy function stand for scikit-learn's of the same name.

    The arguments become arrays, and ``check`` looks at the first two. Then scikit-learn's function answers
    where it is installed, and the decorated one where it is not; both see the same arrays.
    """

    def decorate(own: F) -> F:
        signature = inspect.signature(own)
        first, second = list(signature.parameters)[:2]

        @wraps(own)
        def metric(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            true, other = check(given.pop(first), given.pop(second), own.__name__)
            options = _options(given, true)
            try:
                from sklearn import metrics
            except ImportError:
                return own(true, other, **options)
            value = getattr(metrics, own.__name__)(true, other, **options)
            return (
                value.item() if isinstance(value, np.generic) else value
            )  # a float, in every version

        return cast("F", metric)

    return decorate


def needs_sklearn(what: str) -> ImportError:
    """The error of an option that is not written in NumPy here."""
    return ImportError(f"{what} needs scikit-learn: pip install 'kilograd[data]'")

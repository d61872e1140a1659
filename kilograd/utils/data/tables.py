"""Tables: named columns of a file or data frame as tensors, with nothing guessed that matters.

The one idea: a column is numbers, or it is categories, and which is said by name. Text that is not
declared, a value that is missing and a category that was not there in training are errors. Declared
columns of a CSV file are read as the text that they are, lest 01234 and 1234 be the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import TensorDataset

Names = Any  # a column's name, or several


class TableDataset(TensorDataset):
    r"""The rows of a CSV or Parquet file, or of a pandas or polars data frame.

    A sample is ``(features, categories, target)``, each only if there are such columns:

    - features, ``(F,)`` of ``dtype``: the numeric columns (numbers and bools) in the order given;
    - categories, ``(K,)`` int64: the categorical columns, ready for ``nn.Embedding``;
    - target: a class number (int64, scalar) where the column is text or declared categorical; an int64
      or ``dtype`` scalar where it is integers or floats; ``(T,)`` of ``dtype`` for several columns.

    Args:
        source: a path (``.csv``, ``.tsv``, ``.parquet``; ``.gz`` behind the first two), or a data frame.
        features: columns of numbers. None: all that are neither categorical nor target.
        target: a column, or several.
        categorical: columns whose values become numbers: names, in which case the sorted values found are
            0, 1, …; or a mapping from name to the values in order, such as another table's ``categories``.
            The values in a CSV file are texts; integers, if each is written as an integer is (not 01).
        fill: what stands in for missing values: one value for all columns, or a mapping from name to value.
        dtype: of the features; float32 if None.
        engine: ``"pandas"`` or ``"polars"``; None takes what is installed, pandas first.

    Attributes:
        features, categorical, target: the names of the columns, as lists.
        categories: the values of each categorical column (and of a target of text), class 0 first.
        classes: the values of a categorical target, else empty.

    Raises:
        KeyError: a column that is not there.
        ValueError: a file that cannot be read, missing values that nothing fills, a value that is not
            among given categories, columns named twice, or none.
        TypeError: text among the features.
        ImportError: neither pandas nor polars to read a file with.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(folder + "/cats.csv", "w") as file:
    ...         _ = file.write("weight,colour,breed\n4.5,grey,manx\n3.0,red,sphynx\n")
    ...     cats = TableDataset(folder + "/cats.csv", target="breed", categorical=["colour"])
    >>> cats[1], cats.classes
    ((tensor([3.]), tensor([1]), tensor(1)), ['manx', 'sphynx'])
    """

    def __init__(
        self,
        source: Any,
        features: Names | None = None,
        target: Names | None = None,
        categorical: Names | Mapping[str, Sequence[Any]] = (),
        fill: Any = None,
        dtype: Any = None,
        engine: str | None = None,
    ) -> None:
        frame, self.source, self._texts = _frame(source, engine, categorical)
        self._columns = {str(name): name for name in frame.columns}
        given = (
            {str(k): v for k, v in categorical.items()} if isinstance(categorical, Mapping) else {}
        )
        one_target = target is not None and _is_one(target, frame)
        self.target = _names(target, frame)
        declared = list(given) or _names(categorical, frame)
        self.categorical = [name for name in declared if name not in self.target]
        taken = {*self.categorical, *self.target}
        columns = [str(name) for name in frame.columns]  # a frame may have two of one name
        self.features = (
            [name for name in columns if name not in taken]
            if features is None
            else _names(features, frame)
        )
        self._fill = {str(k): v for k, v in fill.items()} if isinstance(fill, Mapping) else fill
        self._check_names(columns, declared)
        self.categories: dict[str, list[Any]] = {}
        self.dtype = dtypes.numpy_dtype(dtype) or np.dtype(np.float32)
        if self.dtype.kind != "f":
            raise TypeError(f"TableDataset: dtype should be a floating-point one, got {self.dtype}")

        parts: list[Tensor] = []
        if self.features:
            parts.append(wrap(np.stack([self._numbers(frame, c) for c in self.features], axis=1)))
        if self.categorical:
            numbers = [self._classes(frame, c, given.get(c)) for c in self.categorical]
            parts.append(wrap(np.stack(numbers, axis=1)))
        if self.target:
            answers = [self._answer(frame, c, c in declared, given.get(c)) for c in self.target]
            if one_target:
                parts.append(wrap(answers[0]))
            else:
                parts.append(wrap(np.stack([a.astype(self.dtype) for a in answers], axis=1)))
        self.classes = self.categories.get(self.target[0], []) if one_target else []
        super().__init__(*parts)

    def _check_names(self, columns: list[str], declared: list[str]) -> None:
        wanted = [*self.features, *self.categorical, *self.target]
        fill = list(self._fill) if isinstance(self._fill, Mapping) else []
        for name in [*wanted, *declared, *fill]:
            if name not in columns:
                raise KeyError(f"{self.source} has no column {name!r}; it has {columns}")
        twice = sorted({name for name in wanted if wanted.count(name) > 1})
        if twice:
            raise ValueError(
                f"TableDataset: {twice} named more than once among features, categorical and target"
            )
        if not wanted:
            raise ValueError(f"TableDataset: no columns to take from {self.source}")

    def _column(self, frame: Any, name: str) -> np.ndarray:
        """A column without missing values."""
        values, missing = _values(frame[self._columns[name]])
        if not missing.any():
            return values
        fill = self._fill.get(name) if isinstance(self._fill, Mapping) else self._fill
        if fill is None:
            rows = np.flatnonzero(missing)
            shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
            raise ValueError(
                f"{self.source}: column {name!r} has {len(rows)} missing values (rows {shown}): give a "
                f"value for them, fill={{{name!r}: …}}, or drop these rows"
            )
        filled = values.astype(object)
        filled[missing] = fill
        return filled  # objects still: 0 among texts must not become '0'

    def _numbers(self, frame: Any, name: str) -> np.ndarray:
        values = self._column(frame, name)
        if values.dtype.kind == "O":  # numbers in a box: decimals, pandas' nullable dtypes
            values = np.array(values.tolist())
        if values.dtype.kind not in "biuf":
            example = values[0] if len(values) else ""
            raise TypeError(
                f"{self.source}: column {name!r} holds {values.dtype} (such as {example!r}), not numbers: "
                "list it under categorical, or leave it out of features"
            )
        return values.astype(self.dtype)

    def _classes(self, frame: Any, name: str, given: Sequence[Any] | None) -> np.ndarray:
        values = self._column(frame, name).tolist()
        if given is None:
            values = _integers_if_all_are(values) if name in self._texts else values
            try:
                known = sorted(set(values))
            except TypeError as error:
                raise TypeError(
                    f"{self.source}: the values of column {name!r} have no order ({error}): give them in "
                    f"one, categorical={{{name!r}: [...]}}"
                ) from error
        else:
            known = list(given)
            if len(set(known)) < len(known):
                raise ValueError(f"TableDataset: a category of {name!r} is given twice: {known}")
        number = {value: i for i, value in enumerate(known)}
        if given is not None and name in self._texts:
            number, values = {str(v): i for v, i in number.items()}, [*map(str, values)]
        unseen = sorted({repr(v) for v in values if v not in number})
        if unseen:
            raise ValueError(
                f"{self.source}: column {name!r} has values that are not among its categories: "
                f"{', '.join(unseen[:5])}{', …' if len(unseen) > 5 else ''}"
            )
        self.categories[name] = known
        return np.array([number[v] for v in values], np.int64)

    def _answer(
        self, frame: Any, name: str, declared: bool, given: Sequence[Any] | None
    ) -> np.ndarray:
        if not declared:
            values = self._column(frame, name)
            if values.dtype.kind == "O":
                values = np.array(values.tolist())
            if values.dtype.kind in "iu":
                return values.astype(np.int64)
            if values.dtype.kind == "f":
                return values.astype(self.dtype)
        return self._classes(frame, name, given)

    def __repr__(self) -> str:
        return (
            f"TableDataset({self.source}, {len(self)} rows, features={self.features}, "
            f"categorical={self.categorical}, target={self.target})"
        )


def _is_one(names: Any, frame: Any) -> bool:
    """Whether it is the name of one column, and not several."""
    if isinstance(names, tuple):  # as the names of columns in levels are
        return frame is not None and names in list(frame.columns)
    return isinstance(names, str) or not isinstance(names, Iterable)


def _names(names: Names | None, frame: Any) -> list[str]:
    if names is None:
        return []
    return [str(name) for name in ([names] if _is_one(names, frame) else names)]


def _integers_if_all_are(values: list[Any]) -> list[Any]:
    """Texts as integers, if each of them is how an integer is written."""
    try:
        numbers = [int(v) for v in values]
    except (ValueError, TypeError, OverflowError):  # the last two of what was filled in
        return values
    return numbers if [*map(str, numbers)] == [*map(str, values)] else values


def _frame(source: Any, engine: str | None, categorical: Any) -> tuple[Any, str, list[str]]:
    """A data frame, what to call it in a message, and the columns that were read as texts."""
    if hasattr(source, "columns"):
        return source, "the data frame", []
    path = os.fspath(source)
    kind = os.path.splitext(path.removesuffix(".gz"))[1].lower()
    if kind not in (".csv", ".tsv", ".parquet"):
        raise ValueError(f"TableDataset reads .csv, .tsv and .parquet files, not {path}")
    if not os.path.exists(path):
        raise FileNotFoundError(f"TableDataset: there is no file {path}")
    if engine not in (None, "pandas", "polars"):
        raise ValueError(f"TableDataset: engine is 'pandas', 'polars' or None, got {engine!r}")
    texts = [] if kind == ".parquet" else _names(categorical, None)
    separator = {".csv": ",", ".tsv": "\t"}.get(kind)
    for name in (engine,) if engine else ("pandas", "polars"):
        try:
            reader = _read_with_pandas if name == "pandas" else _read_with_polars
            return reader(path, separator, texts), path, texts
        except ImportError:  # also pandas without a package that reads Parquet
            continue
    raise ImportError(
        f"reading {path} needs {engine or 'pandas (with pyarrow for Parquet) or polars'}: "
        "pip install 'kilograd[tables]'"
    )


def _read_with_pandas(path: str, separator: str | None, texts: list[str]) -> Any:
    import pandas

    try:
        if separator is None:
            return pandas.read_parquet(path)
        return pandas.read_csv(path, sep=separator, dtype=dict.fromkeys(texts, str))
    except ValueError as error:  # of what kind it may ever be
        raise ValueError(f"pandas cannot read {path}: {error}") from error


def _read_with_polars(path: str, separator: str | None, texts: list[str]) -> Any:
    import polars

    try:
        if separator is None:
            return polars.read_parquet(path)
        types = dict.fromkeys(texts, polars.String)
        return polars.read_csv(
            path, separator=separator, schema_overrides=types, infer_schema_length=None
        )
    except (ValueError, polars.exceptions.PolarsError) as error:
        raise ValueError(f"polars cannot read {path}: {error}") from error


def _values(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """A column as an array, and where it is missing a value."""
    if hasattr(column, "isna"):  # pandas
        values, missing = column.to_numpy(), np.asarray(column.isna(), bool)
    else:  # polars
        null = column.is_null()
        missing = null.to_numpy()
        if column.dtype.is_float():
            missing = missing | column.is_nan().fill_null(False).to_numpy()
        # With nulls among them polars would give integers as floats.
        values = np.array(column.to_list(), object) if null.any() else column.to_numpy()
    return values, missing

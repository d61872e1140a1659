"""Transforms: what is done to inputs on their way to a network, to one sample or a whole batch.

The one idea: a transform is one NumPy expression over leading dimensions, so a batch costs one call.
``t(x)`` takes a sample or an image batch ``(N, C, H, W)``; ``t.batch(x)`` says that the first
dimension is the batch, which the shape alone cannot ( ``(3, 8, 8)`` is one image in colour, or three
in grey). :class:`TransformedDataset` calls the right one.

Random transforms decide for each sample of a batch by itself. They draw from the generator they were
given, else from the default one; in a worker of a ``DataLoader``, from the worker's version of it.
Arrays in give arrays, tensors give tensors, outside of any graph; the input is never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kilograd import dtypes, random
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import Dataset, gatherer, samples
from kilograd.utils.data.loader import default_collate
from kilograd.utils.data.worker_info import get_worker_info
from kilograd.utils.randomness import ours

__all__ = [
    "Compose", "GaussianNoise", "Lambda", "Normalize", "OneHot", "RandomCrop",
    "RandomHorizontalFlip", "RandomVerticalFlip", "Standardize", "ToFloat", "Transform",
    "TransformedDataset",
]  # fmt: skip


class Transform:
    """A function of samples and batches: a subclass defines ``apply``.

    ``apply(x, batched)`` takes an array and returns one; with ``batched`` its first dimension is the
    batch.
    """

    sample_ndim = 3  # most dimensions a sample of its own has: more than that is a batch

    def __call__(self, x: Any) -> Any:
        array = _array(x, self)
        return _like(x, self.apply(array, array.ndim > self.sample_ndim))

    def batch(self, x: Any) -> Any:
        """Transform a batch: the first dimension of ``x`` is the batch."""
        array = _array(x, self)
        if array.ndim == 0:
            raise ValueError(f"{type(self).__name__}.batch: a batch has at least one dimension")
        return _like(x, self.apply(array, True))

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define apply")

    def __repr__(self) -> str:
        hidden = ("generator",)
        shown = [f"{k}={v!r}" for k, v in vars(self).items() if k not in hidden and k[0] != "_"]
        return f"{type(self).__name__}({', '.join(shown)})"


def _array(x: Any, transform: Transform) -> np.ndarray:
    if isinstance(x, Tensor):
        if x.requires_grad:
            raise RuntimeError(
                f"{type(transform).__name__} has no derivative: give it a tensor that does not require "
                "grad (detach() it)"
            )
        return np.asarray(x.array)
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{type(transform).__name__} takes a tensor or an array of real numbers, got "
            f"{type(x).__name__}"
            + (f" of dtype {array.dtype}" if isinstance(x, np.ndarray) else "")
        )
    return array


def _like(x: Any, array: np.ndarray) -> Any:
    return wrap(np.asarray(array)) if isinstance(x, Tensor) else np.asarray(array)


def _images(x: np.ndarray, batched: bool, transform: Transform) -> np.ndarray:
    """View an image or a batch of them as ``(N, C, H, W)``."""
    ndim = x.ndim - batched
    if ndim not in (2, 3):
        raise ValueError(
            f"{type(transform).__name__} takes images (H, W) or (C, H, W), or a batch of them, got "
            f"shape {x.shape}"
        )
    if not batched:
        x = x[None]
    return x[:, None] if ndim == 2 else x


class _Random(Transform):
    generator: random.Generator | None

    def stream(self) -> random.Generator:
        """What to draw from here and now."""
        info = get_worker_info()
        if info is not None:
            return info.stream(self.generator)
        return self.generator or random.default_generator


class Compose(Transform):
    """One transform after the other. Plain functions among them see one sample at a time.

    >>> Compose([ToFloat(), Normalize(0.5, 0.5)])(np.array([0, 255], np.uint8))
    array([-1.,  1.], dtype=float32)
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)
        for t in self.transforms:
            if not callable(t):
                raise TypeError(f"Compose takes functions, got {t!r}")

    def __call__(self, x: Any) -> Any:
        for t in self.transforms:
            x = t(x)
        return x

    def batch(self, x: Any) -> Any:
        for k, t in enumerate(self.transforms):
            if isinstance(t, Transform):
                x = t.batch(x)
            elif len(x):
                out = [t(sample) for sample in x]
                if not _alike(out):  # the rest, too, is for one sample at a time
                    rest = Compose(self.transforms[k + 1 :])
                    return _collated([rest(sample) for sample in out], x)
                x = _collated(out, x)
        return x


def _collated(out: list[Any], x: Any) -> Any:
    """Transformed samples of ``x`` as a batch: an array for an array."""
    batch = default_collate(out)
    return batch.array if isinstance(x, np.ndarray) and isinstance(batch, Tensor) else batch


def _as_one(transform: Any, parts: Sequence[Any]) -> bool:
    """Whether a transform of a batch of tensors does what it does to each of some parts of samples."""
    return _alike(parts) and (isinstance(parts[0], Tensor) or not _has_functions(transform))


def _has_functions(transform: Any) -> bool:
    """Whether a plain function is in it, which is given the parts as they are."""
    if isinstance(transform, Compose):
        return any(map(_has_functions, transform.transforms))
    return not isinstance(transform, Transform)


def _alike(parts: Sequence[Any]) -> bool:
    """Whether a batch of them is one array, of which transforms make what they would of each."""
    first = parts[0]
    if isinstance(first, (int, float)):
        return {type(first)} == set(map(type, parts))
    if not isinstance(first, (Tensor, np.ndarray, np.generic)):
        return False
    if first.ndim > Transform.sample_ndim:  # each is taken for a batch
        return False
    return len(set(map(type, parts))) == 1 == len({(p.shape, p.dtype) for p in parts})


class Lambda(Transform):
    """A function of one's own that is given whatever there is, a sample or a whole batch.

    >>> Lambda(lambda x: x * 2)(np.ones(2))
    array([2., 2.])
    """

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {lambd!r}")
        self.lambd = lambd

    def __call__(self, x: Any) -> Any:
        return self.lambd(x)

    batch = __call__


class ToFloat(Transform):
    """Integers to floating point; with ``scale``, divided by the largest of their dtype (255).

    Floating-point inputs and bools change only their dtype.

    >>> ToFloat()(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """

    def __init__(self, dtype: Any = None, scale: bool = True) -> None:
        self.dtype = dtypes.numpy_dtype(dtype) or np.dtype(np.float32)
        if self.dtype.kind != "f":
            raise TypeError(f"ToFloat: dtype should be a floating-point one, got {self.dtype}")
        self.scale = scale

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        if not self.scale or x.dtype.kind not in "iu":
            return x.astype(self.dtype)
        working = np.promote_types(self.dtype, np.float32)  # float16 does not reach 65535
        return np.divide(x, np.iinfo(x.dtype).max, dtype=working).astype(self.dtype, copy=False)


class Normalize(Transform):
    """``(x - mean) / std``: numbers, or one for each channel of images or feature of vectors.

    Images ``(C, H, W)`` have channels, and vectors ``(F,)`` or rows ``(N, F)`` features.

    Raises:
        ValueError: a ``std`` that is not positive; channels that do not fit.
        TypeError: an input that is not floating-point (see :class:`ToFloat`).

    >>> Normalize([1.0, 2.0], [1.0, 4.0])(np.array([[1.0, 6.0]]))
    array([[0., 1.]])
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean = np.asarray(getattr(mean, "array", mean), np.float64)
        self.std = np.asarray(getattr(std, "array", std), np.float64)
        if self.mean.ndim > 1 or self.std.ndim > 1:
            raise ValueError(
                f"Normalize: mean and std are numbers or sequences of them, got shapes {self.mean.shape}"
                f" and {self.std.shape}"
            )
        if not (self.std > 0).all() or not np.isfinite(self.mean).all():
            raise ValueError(
                f"Normalize: mean has to be finite and std positive, got {mean} and {std}"
            )

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        mean, std = self._fitting(x, batched)
        return (x - mean) / std

    def inverse(self, x: Any) -> Any:
        """``x * std + mean``, for a sample or an image batch."""
        array = _array(x, self)
        mean, std = self._fitting(array, array.ndim > self.sample_ndim)
        return _like(x, array * std + mean)

    def _fitting(self, x: np.ndarray, batched: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std, shaped to broadcast against an input."""
        if x.dtype.kind != "f":
            raise TypeError(
                f"{type(self).__name__} takes floating-point input, got {x.dtype}; ToFloat() before it "
                "makes it so"
            )
        axis = -3 if x.ndim - batched >= 3 else -1
        size = x.shape[axis] if x.ndim else 1

        def fit(numbers: np.ndarray) -> np.ndarray:
            if numbers.size not in (1, size):
                raise ValueError(
                    f"{type(self).__name__}: {numbers.size} means or stds do not fit an input of shape "
                    f"{x.shape}, whose axis {axis} has {size}"
                )
            shape = (-1, *[1] * (-axis - 1)) if numbers.size > 1 else ()
            return numbers.astype(x.dtype).reshape(shape)

        return fit(self.mean), fit(self.std)


class Standardize(Normalize):
    """:class:`Normalize` with the mean and standard deviation of data: ``Standardize.fit(data)``.

    >>> t = Standardize.fit(np.array([[0.0, 5.0], [2.0, 5.0]]))
    >>> t(np.array([[2.0, 6.0]]))
    array([[1., 1.]])
    """

    @classmethod
    def fit(cls, data: Any) -> Standardize:
        """Measure a whole data set.

        Args:
            data: ``(N, F)``: per feature; ``(N, C, H, W)``: per channel; ``(N,)``, ``(N, H, W)``: one for
                all. An array or tensor; integers too, which are then to be floating-point when used.

        A feature that never changes is only centred: its ``std`` is taken as 1.

        Raises:
            ValueError: no data, or NaN or infinity in it.
        """
        x = np.asarray(getattr(data, "array", data))
        if x.size == 0 or x.ndim not in (1, 2, 3, 4):
            raise ValueError(f"Standardize.fit: cannot measure data of shape {x.shape}")
        keep = {2: 1, 4: 1}.get(x.ndim)
        axes = tuple(a for a in range(x.ndim) if a != keep)
        mean = x.mean(axis=axes, dtype=np.float64)
        std = x.std(axis=axes, dtype=np.float64)
        if not np.isfinite(mean).all() or not np.isfinite(std).all():
            raise ValueError(
                "Standardize.fit: the data has NaN or infinity in it; fill or drop it first"
            )
        # Rounding alone makes the std of a constant column something like 1e-17.
        flat = std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        return cls(mean, np.where(flat, 1.0, std))


class OneHot(Transform):
    """Class numbers ``(*)`` to ``(*, num_classes)``, float32: 1 at the class and 0 elsewhere.

    Raises:
        ValueError: a number outside of [0, num_classes).
        TypeError: numbers that are not integers.

    >>> OneHot(3)(np.array([2, 0]))
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """

    def __init__(self, num_classes: int, dtype: Any = None) -> None:
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(
                f"OneHot: num_classes should be a positive integer, got {num_classes!r}"
            )
        self.num_classes = num_classes
        self.dtype = dtypes.numpy_dtype(dtype) or np.dtype(np.float32)

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        if x.dtype.kind not in "iu":
            raise TypeError(f"OneHot takes integers, got {x.dtype}")
        if x.size and not (x.min() >= 0 and x.max() < self.num_classes):
            raise ValueError(
                f"OneHot: class numbers from {x.min()} to {x.max()} are not all in [0, {self.num_classes})"
            )
        return (x[..., None] == np.arange(self.num_classes)).astype(self.dtype)


class RandomCrop(_Random):
    """Cut a piece of a given size out of images at random places.

    Args:
        size: height and width of the piece, or one number for both.
        padding: pixels to add first: for all sides, ``(left/right, top/bottom)`` or ``(left, top, right,
            bottom)``.
        pad_if_needed: add what an image smaller than ``size`` lacks, on both sides.
        fill: what is added, for ``"constant"``.
        padding_mode: ``"constant"``, ``"edge"``, ``"reflect"`` or ``"symmetric"``, as in ``np.pad``.
        generator: draws the places.

    Raises:
        ValueError: an image that is smaller than the piece; a ``fill`` that is none of its numbers,
            such as 0.5 for bytes.

    >>> RandomCrop(28, padding=2).batch(np.zeros((5, 28, 28))).shape
    (5, 28, 28)
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float = 0,
        padding_mode: str = "constant",
        *,
        generator: random.Generator | None = None,
    ) -> None:
        sizes = (size, size) if isinstance(size, int) else tuple(size)
        if len(sizes) != 2 or min(sizes) < 1:
            raise ValueError(f"RandomCrop: size is a positive number or two of them, got {size!r}")
        sides = (padding or 0,) if isinstance(padding or 0, int) else tuple(padding)  # type: ignore[arg-type]
        if len(sides) not in (1, 2, 4) or min(sides) < 0:  # type: ignore[type-var,operator]
            raise ValueError(
                f"RandomCrop: padding is 1, 2 or 4 numbers that are not negative, got {padding!r}"
            )
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError(
                "Padding mode should be either constant, edge, reflect or symmetric, got "
                f"{padding_mode!r}"
            )
        self.size: tuple[int, int] = sizes
        self.padding = (sides * (4 // len(sides)))[:4]
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode
        self.generator = ours(generator)

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        images = _images(x, batched, self)
        (height, width), (left, top, right, bottom) = self.size, self.padding
        images = self._padded(images, (top, bottom), (left, right))  # type: ignore[arg-type]
        if self.pad_if_needed:
            up, side = (
                max(s - have, 0) for s, have in zip(self.size, images.shape[2:], strict=True)
            )
            images = self._padded(images, (up, up), (side, side))
        n, _, h, w = images.shape
        if h < height or w < width:
            raise ValueError(
                f"Required crop size {self.size} is larger than input image size {(h, w)}"
            )
        stream = self.stream()
        tops = random.random_integers(stream, 0, h - height + 1, (n,))
        lefts = random.random_integers(stream, 0, w - width + 1, (n,))
        windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(2, 3))
        pieces = windows[np.arange(n), :, tops, lefts]
        return pieces.reshape(*x.shape[:-2], height, width)

    def _padded(
        self, images: np.ndarray, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray:
        if not any((*rows, *columns)):
            return images
        how: dict[str, Any] = {}
        if self.padding_mode == "constant":
            how["constant_values"] = _fitting_number(self.fill, images.dtype)
        return np.pad(images, ((0, 0), (0, 0), rows, columns), mode=self.padding_mode, **how)  # type: ignore[call-overload]


def _fitting_number(fill: float, dtype: np.dtype[Any]) -> Any:
    """A number in an image's dtype; floating-point ones may be rounded."""
    with np.errstate(invalid="ignore", over="ignore"):
        number = np.asarray(fill).astype(dtype)
    if np.isfinite(number) == np.isfinite(fill) if dtype.kind == "f" else number == fill:
        return number
    raise ValueError(f"RandomCrop: fill={fill} is no number of the image's dtype, {dtype}")


class RandomHorizontalFlip(_Random):
    """Mirror images left to right, each with probability ``p``.

    >>> RandomHorizontalFlip(p=1.0)(np.array([[1, 2], [3, 4]]))
    array([[2, 1],
           [4, 3]])
    """

    _axis = -1

    def __init__(self, p: float = 0.5, *, generator: random.Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p should be a probability, got {p}")
        self.p = p
        self.generator = ours(generator)

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        images = _images(x, batched, self)
        chosen = random.uniform(self.stream(), len(images)) < self.p
        flipped = np.where(chosen[:, None, None, None], np.flip(images, self._axis), images)
        return flipped.reshape(x.shape)


class RandomVerticalFlip(RandomHorizontalFlip):
    """Mirror images top to bottom, each with probability ``p``.

    >>> RandomVerticalFlip(p=1.0)(np.array([[1, 2], [3, 4]]))
    array([[3, 4],
           [1, 2]])
    """

    _axis = -2


class GaussianNoise(_Random):
    """Add normal numbers to floating-point inputs of any shape; with ``clip``, keep to [0, 1].

    >>> GaussianNoise(sigma=0.1)(np.full(3, 0.5, np.float32)).dtype
    dtype('float32')
    """

    def __init__(
        self, mean: float = 0.0, sigma: float = 0.1, clip: bool = True, *,
        generator: random.Generator | None = None,
    ) -> None:  # fmt: skip
        if not sigma >= 0:
            raise ValueError(f"sigma shouldn't be negative. Got {sigma}")
        self.mean = mean
        self.sigma = sigma
        self.clip = clip
        self.generator = ours(generator)

    def apply(self, x: np.ndarray, batched: bool) -> np.ndarray:
        if x.dtype.kind != "f":
            raise TypeError(f"GaussianNoise takes floating-point input, got {x.dtype}")
        noise = random.normal(self.stream(), x.shape, self.mean, self.sigma, dtype=x.dtype)
        noisy = x + noise
        return np.clip(noisy, 0, 1) if self.clip else noisy


class TransformedDataset(Dataset[Any]):
    """A dataset whose inputs and targets go through transforms, a whole batch at a time in a loader.

    A sample is ``(input, target, …)``: ``transform`` changes the first part, ``target_transform`` the
    second; a sample that is not a tuple or list is all input. The ``DataLoader`` takes whole batches
    through ``gather``, where a :class:`Transform` is called once for all samples, and a plain function
    once for each. (With a ``collate_fn`` of one's own, samples are transformed one by one.)

    >>> import kilograd as kg
    >>> from kilograd.utils.data import DataLoader, TensorDataset
    >>> data = TensorDataset(kg.tensor([[0, 255]], dtype=kg.uint8), kg.tensor([1]))
    >>> next(iter(DataLoader(TransformedDataset(data, ToFloat(), OneHot(2)))))
    [tensor([[0., 1.]]), tensor([[0., 1.]])]
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self._changed(self.dataset[index], lambda f, x: f(x))

    def gather(self, indices: Any) -> Any:
        """The transformed batch of some indices; None where a plain function wants single samples."""
        if not all(
            f is None or isinstance(f, Transform) for f in (self.transform, self.target_transform)
        ):
            return None
        inner = gatherer(self.dataset)
        batch = inner(np.asarray(indices)) if inner is not None else None
        if batch is None:
            found = samples(self.dataset, np.asarray(indices).tolist())
            if not self._whole(found):
                return default_collate([self._changed(s, lambda f, x: f(x)) for s in found])
            batch = default_collate(found)
        return self._changed(batch, lambda f, x: f.batch(x))

    def _whole(self, found: list[Any]) -> bool:
        """Whether the parts to be changed can be, a whole batch of them at once."""
        rows = [s if isinstance(s, (tuple, list)) else [s] for s in found]
        if len(set(map(len, rows))) > 1:
            return False
        parts = zip(*rows, strict=True)
        changes = (self.transform, self.target_transform)
        return all(f is None or _as_one(f, p) for f, p in zip(changes, parts, strict=False))

    def _changed(self, sample: Any, call: Callable[[Any, Any], Any]) -> Any:
        several = isinstance(sample, (tuple, list))
        parts = list(sample) if several else [sample]
        if self.transform is not None:
            parts[0] = call(self.transform, parts[0])
        if self.target_transform is not None:
            if len(parts) < 2:
                raise TypeError(
                    f"TransformedDataset: a sample of type {type(sample).__name__} has no target for "
                    "target_transform; samples are to be (input, target)"
                )
            parts[1] = call(self.target_transform, parts[1])
        if not several:
            return parts[0]
        return type(sample)(*parts) if hasattr(sample, "_fields") else type(sample)(parts)

"""Two-dimensional point sets that a small network can learn in a second.

The functions give NumPy arrays, draw for draw those of scikit-learn's functions of the same names and
``random_state`` (which need not be installed); the classes give the same points as datasets of Tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd.datasets.arrays import ArrayDataset, Transform
from kilograd.random import Generator, random_integers

RandomState = np.random.RandomState
Points = tuple[np.ndarray, np.ndarray]


def make_moons(
    n_samples: int | tuple[int, int] = 100,
    *,
    shuffle: bool = True,
    noise: float | None = None,
    random_state: int | RandomState | None = None,
    generator: Generator | None = None,
) -> Points:
    """Two interleaving half circles, the upper one class 0 and the lower one class 1.

    Args:
        n_samples: the number of points in all (half in each moon, an odd one in the lower), or one number
            for each moon.
        shuffle: whether the classes come mixed.
        noise: standard deviation of the Gaussian noise added to each coordinate; None adds none.
        random_state: a seed or a ``np.random.RandomState``: the same points as scikit-learn's
            ``make_moons`` with that ``random_state``.
        generator: the kilograd generator to draw from where ``random_state`` is None; by default the global
            one, so ``kg.manual_seed`` decides.

    Returns:
        ``(X, y)``: points ``(N, 2)`` float32 and labels ``(N,)`` int64.

    Raises:
        ValueError: for a negative number of points or noise, or both kinds of randomness at once.

    Example:
        >>> X, y = make_moons(150, noise=0.1, random_state=0)
        >>> X.shape, X.dtype, y[:6].tolist()
        ((150, 2), dtype('float32'), [1, 0, 0, 1, 0, 1])
    """
    draw = _random_state(random_state, generator)
    n_upper, n_lower = _halves("make_moons", n_samples)
    upper, lower = np.linspace(0, np.pi, n_upper), np.linspace(0, np.pi, n_lower)
    x = np.concatenate([np.cos(upper), 1 - np.cos(lower)])
    y = np.concatenate([np.sin(upper), 0.5 - np.sin(lower)])
    labels = np.repeat([0, 1], [n_upper, n_lower])
    return _finish("make_moons", np.stack([x, y], axis=1), labels, shuffle, noise, draw)


def make_circles(
    n_samples: int | tuple[int, int] = 100,
    *,
    shuffle: bool = True,
    noise: float | None = None,
    random_state: int | RandomState | None = None,
    factor: float = 0.8,
    generator: Generator | None = None,
) -> Points:
    """A circle of radius 1, class 0, around a smaller one, class 1.

    Args:
        n_samples: the number of points in all (an odd one in the inner circle), or ``(outer, inner)``.
        shuffle: whether the classes come mixed.
        noise: standard deviation of the Gaussian noise added to each coordinate; None adds none.
        random_state: a seed or a ``np.random.RandomState``: the same points as scikit-learn's
            ``make_circles`` with that ``random_state``.
        factor: the inner radius, in [0, 1).
        generator: as in :func:`make_moons`.

    Returns:
        ``(X, y)``: points ``(N, 2)`` float32 and labels ``(N,)`` int64.

    Raises:
        ValueError: for a factor outside [0, 1), and as :func:`make_moons`.

    Example:
        >>> X, y = make_circles((3, 2), factor=0.5, shuffle=False)
        >>> np.hypot(*X.T).round(3).tolist(), y.tolist()
        ([1.0, 1.0, 1.0, 0.5, 0.5], [0, 0, 0, 1, 1])
    """
    if not 0 <= factor < 1:
        raise ValueError(
            f"make_circles: factor is the inner radius and must be in [0, 1), got {factor}"
        )
    draw = _random_state(random_state, generator)
    n_outer, n_inner = _halves("make_circles", n_samples)
    angle = 2 * np.pi * np.concatenate([np.arange(n) / max(n, 1) for n in (n_outer, n_inner)])
    labels = np.repeat([0, 1], [n_outer, n_inner])
    radius = np.where(labels == 0, 1.0, factor)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _finish("make_circles", points, labels, shuffle, noise, draw)


def make_spirals(
    n_samples: int = 100,
    *,
    n_classes: int = 2,
    turns: float = 1.0,
    shuffle: bool = True,
    noise: float | None = None,
    random_state: int | RandomState | None = None,
    generator: Generator | None = None,
) -> Points:
    """Spiral arms that leave the origin in ``n_classes`` directions and wind round it: a class each.

    Args:
        n_samples: the number of points in all; the first ``n_samples % n_classes`` arms have one more.
        n_classes: the number of arms.
        turns: how often an arm goes round the origin on its way from radius 0 to radius 1.
        shuffle: whether the classes come mixed.
        noise: standard deviation of the Gaussian noise added to each coordinate; None adds none.
        random_state: a seed or a ``np.random.RandomState``.
        generator: as in :func:`make_moons`.

    Returns:
        ``(X, y)``: points ``(N, 2)`` float32 and labels ``(N,)`` int64.

    Raises:
        ValueError: for fewer than one class, and as :func:`make_moons`.

    Example:
        >>> X, y = make_spirals(9, n_classes=3, shuffle=False)
        >>> np.hypot(*X.T).round(2).tolist()
        [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
        >>> y.tolist()
        [0, 0, 0, 1, 1, 1, 2, 2, 2]
    """
    draw = _random_state(random_state, generator)
    counts = _counts("make_spirals", n_samples, n_classes)
    radius = np.concatenate([np.linspace(0, 1, n) for n in counts])
    labels = np.repeat(np.arange(n_classes), counts)
    angle = 2 * np.pi * (turns * radius + labels / n_classes)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _finish("make_spirals", points, labels, shuffle, noise, draw)


def make_blobs(
    n_samples: int | Sequence[int] = 100,
    n_features: int = 2,
    *,
    centers: int | np.ndarray | None = None,
    cluster_std: float | Sequence[float] = 1.0,
    center_box: tuple[float, float] = (-10.0, 10.0),
    shuffle: bool = True,
    random_state: int | RandomState | None = None,
    generator: Generator | None = None,
) -> Points:
    """Round Gaussian clouds, a class each.

    Args:
        n_samples: the number of points in all, or one number for each cloud.
        n_features: the number of coordinates of a point, where ``centers`` does not say.
        centers: the number of clouds (3 if None), or their centres, an array ``(K, n_features)``.
        cluster_std: standard deviation in each coordinate, one for all clouds or one for each.
        center_box: the interval that each coordinate of a random centre is drawn from.
        shuffle: whether the classes come mixed.
        random_state: a seed or a ``np.random.RandomState``: the same points as scikit-learn's
            ``make_blobs`` with that ``random_state``.
        generator: as in :func:`make_moons`.

    Returns:
        ``(X, y)``: points ``(N, n_features)`` float32 and labels ``(N,)`` int64.

    Raises:
        ValueError: if the numbers of clouds in ``n_samples`` and ``centers`` differ, and as
            :func:`make_moons`.

    Example:
        >>> X, y = make_blobs([2, 3], centers=np.array([[0, 0], [9, 9]]), random_state=0)
        >>> (X.mean(1) > 4.5).astype(int).tolist() == y.tolist()
        True
    """
    draw = _random_state(random_state, generator)
    if centers is None:
        centers = 3 if isinstance(n_samples, (int, np.integer)) else len(n_samples)
    if isinstance(centers, (int, np.integer)):
        where = draw.uniform(*center_box, size=(int(centers), n_features))
    else:
        where = np.asarray(centers, dtype=np.float64)
        if where.ndim != 2:
            raise ValueError(
                f"make_blobs: centers must be (K, n_features), got shape {where.shape}"
            )
    counts = _counts("make_blobs", n_samples, len(where))
    spread = np.broadcast_to(np.asarray(cluster_std, dtype=np.float64), len(where))
    clouds = [
        draw.normal(center, std, size=(n, where.shape[1]))
        for center, std, n in zip(where, spread, counts, strict=True)
    ]
    labels = np.repeat(np.arange(len(where)), counts)
    return _finish("make_blobs", np.concatenate(clouds), labels, shuffle, None, draw)


def _random_state(
    random_state: int | RandomState | None, generator: Generator | None
) -> RandomState:
    """The stream to draw from. A kilograd generator gives one draw, which seeds it."""
    if random_state is None:
        return RandomState(int(random_integers(generator, 0, 2**31, ())))
    if generator is not None:
        raise ValueError("give random_state or generator, not both: each alone decides every draw")
    return random_state if isinstance(random_state, RandomState) else RandomState(random_state)


def _counts(name: str, n_samples: int | Sequence[int], n_classes: int) -> list[int]:
    """How many points each class gets."""
    if n_classes < 1:
        raise ValueError(f"{name}: needs at least one class, got {n_classes}")
    if isinstance(n_samples, (int, np.integer)):
        counts = [
            int(n_samples) // n_classes + (k < int(n_samples) % n_classes) for k in range(n_classes)
        ]
    else:
        counts = [int(n) for n in n_samples]
        if len(counts) != n_classes:
            raise ValueError(f"{name}: n_samples has {len(counts)} numbers for {n_classes} classes")
    if min(counts) < 0:
        raise ValueError(f"{name}: n_samples must not be negative, got {n_samples}")
    return counts


def _halves(name: str, n_samples: int | tuple[int, int]) -> tuple[int, int]:
    """The sizes of two classes; of an odd number the second has one more, as in scikit-learn."""
    second, first = _counts(
        name, n_samples if isinstance(n_samples, (int, np.integer)) else n_samples[::-1], 2
    )
    return first, second


def _finish(
    name: str,
    points: np.ndarray,
    labels: np.ndarray,
    shuffle: bool,
    noise: float | None,
    draw: RandomState,
) -> Points:
    """Shuffle, then add noise: the order of scikit-learn's draws."""
    if noise is not None and not noise >= 0:
        raise ValueError(
            f"{name}: noise is a standard deviation and must not be negative, got {noise}"
        )
    if shuffle:
        order = np.arange(len(points))
        draw.shuffle(order)
        points, labels = points[order], labels[order]
    if noise is not None:
        points = points + draw.normal(scale=noise, size=points.shape)
    return points.astype(np.float32), labels.astype(np.int64)


class Moons(ArrayDataset):
    """The points of :func:`make_moons` as a dataset: ``(x (2,) float32, label)``, label 0 or 1.

    Takes the arguments of :func:`make_moons`, ``transform`` and ``target_transform``.

    Example:
        >>> moons = Moons(200, noise=0.1, random_state=0)
        >>> x, label = moons[0]
        >>> len(moons), tuple(x.shape), label
        (200, (2,), 0)
    """

    classes = ("upper", "lower")

    def __init__(
        self,
        n_samples: int | tuple[int, int] = 100,
        *,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **how: Any,
    ) -> None:
        super().__init__(*make_moons(n_samples, **how), transform, target_transform)


class Circles(ArrayDataset):
    """The points of :func:`make_circles` as a dataset: ``(x (2,) float32, label)``, label 0 or 1.

    Takes the arguments of :func:`make_circles`, ``transform`` and ``target_transform``.

    Example:
        >>> Circles(1000, noise=0.05, factor=0.5, random_state=100).data.shape[1]
        2
    """

    classes = ("outer", "inner")

    def __init__(
        self,
        n_samples: int | tuple[int, int] = 100,
        *,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **how: Any,
    ) -> None:
        super().__init__(*make_circles(n_samples, **how), transform, target_transform)


class Spirals(ArrayDataset):
    """The points of :func:`make_spirals` as a dataset: ``(x (2,) float32, label)``, a label for each arm.

    Takes the arguments of :func:`make_spirals`, ``transform`` and ``target_transform``.

    Example:
        >>> Spirals(300, n_classes=3, noise=0.02, random_state=0).classes
        ('arm 0', 'arm 1', 'arm 2')
    """

    def __init__(
        self,
        n_samples: int = 100,
        *,
        n_classes: int = 2,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **how: Any,
    ) -> None:
        points = make_spirals(n_samples, n_classes=n_classes, **how)
        super().__init__(*points, transform, target_transform)
        self.classes = tuple(f"arm {k}" for k in range(n_classes))


class Blobs(ArrayDataset):
    """The points of :func:`make_blobs` as a dataset: ``(x (n_features,) float32, label)``.

    Takes the arguments of :func:`make_blobs`, ``transform`` and ``target_transform``.

    Example:
        >>> sorted(set(Blobs(60, centers=4, random_state=0).targets.tolist()))
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        n_samples: int | Sequence[int] = 100,
        n_features: int = 2,
        *,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        **how: Any,
    ) -> None:
        super().__init__(*make_blobs(n_samples, n_features, **how), transform, target_transform)
        self.classes = tuple(
            f"blob {k}" for k in range(int(self.targets.array.max(initial=-1)) + 1)
        )

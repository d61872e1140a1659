"""Real handwritten digits that need no network: 1,797 images of 8×8 pixels, shipped with scikit-learn."""

from __future__ import annotations

import numpy as np

from kilograd.datasets.arrays import ArrayDataset, Transform

N_TEST = 450  # of 1,797: a quarter


def load_digits_arrays() -> tuple[np.ndarray, np.ndarray]:
    """All digits in the file's order.

    Returns:
        ``(images, labels)``: uint8 ``(1797, 8, 8)`` with values 0 to 16, and int64 ``(1797,)``.

    Raises:
        ImportError: without scikit-learn, saying how to install it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: pip install 'kilograd[data]'"
        ) from error
    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


class Digits(ArrayDataset):
    """Handwritten digits of 8×8 pixels: ``(image (1, 8, 8) float32 in [0, 1], label)``.

    The UCI "Optical Recognition of Handwritten Digits" test set (E. Alpaydin and C. Kaynak, 1998), as it
    ships inside scikit-learn. The file runs writer by writer, so it is shuffled, always in the same order,
    before the last quarter is set apart: 1,347 images to train on and 450 to test on.

    Args:
        train: True for the training images, False for the test images, None for all of them, in the order
            of the file.
        transform: called on each image, a float32 Tensor ``(1, 8, 8)``.
        target_transform: called on each label, an ``int``.

    Attributes:
        data: the pixels as stored, a uint8 Tensor ``(N, 8, 8)`` with values 0 to 16.
        targets: int64 Tensor ``(N,)``.

    Raises:
        ImportError: without scikit-learn (``pip install 'kilograd[data]'``).

    Example:
        >>> train, test = Digits(), Digits(train=False)
        >>> len(train), len(test)
        (1347, 450)
    """

    classes = tuple("0123456789")

    def __init__(
        self,
        train: bool | None = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        images, labels = load_digits_arrays()
        if train is not None:
            order = np.random.RandomState(0).permutation(len(images))
            mine = order[:-N_TEST] if train else order[-N_TEST:]
            images, labels = images[mine], labels[mine]
        self.train = train
        super().__init__(images, labels, transform, target_transform)

    def features(self, rows: np.ndarray) -> np.ndarray:  # (B, 8, 8) → (B, 1, 8, 8)
        return np.divide(rows, 16, dtype=np.float32)[:, None]

    def extra_repr(self) -> list[str]:
        return [f"Split: {'all' if self.train is None else 'Train' if self.train else 'Test'}"]

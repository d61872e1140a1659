"""Images in folders: the folder a file is in is its class."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import Dataset

IMG_EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
)  # fmt: skip


def load_image(path: str | os.PathLike[str], mode: str | None = "RGB") -> Tensor:
    """Read an image file through Pillow: a uint8 tensor ``(C, H, W)``, 3 channels for ``"RGB"``.

    Of 16-bit images (0 … 65535) the upper 8 bits are taken.

    Args:
        path: the file.
        mode: Pillow's mode to convert to: ``"RGB"``, ``"L"`` (grey, 1 channel), ``"RGBA"``; None keeps
            the file's.

    Raises:
        OSError: a file that is missing, damaged or no image.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'kilograd[data]'") from error
    try:
        with Image.open(path) as image:
            pixels = np.array(image if mode is None else _converted(image, mode))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"cannot read {os.fspath(path)} as an image: {error}") from error
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return wrap(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _converted(image: Any, mode: str) -> Any:
    """An image in another of Pillow's modes, which by itself makes 255 of all 16-bit greys above."""
    from PIL import Image

    if not image.mode.startswith("I") or mode.startswith(("I", "F")):
        return image.convert(mode)
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("32-bit greys have no 8 bits; mode='I' or None gives them as they are")
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert(mode)


class ImageFolder(Dataset[tuple[Any, int]]):
    """Images of ``root/<class>/**/<file>``, in torchvision's order, with class numbers.

    Args:
        root: the folder; each folder in it is a class.
        transform: called on each image.
        target_transform: called on each class number.
        loader: called with a path, returns the image; :func:`load_image`, hence uint8 tensors
            ``(3, H, W)``. Images of different sizes need a transform that makes them equal.
        is_valid_file: called with a path, says whether to take it, instead of the usual extensions.
        allow_empty: take classes without an image instead of raising.

    Attributes:
        classes: names, sorted: class 0 first.
        class_to_idx: name → number.
        samples: ``(path, class number)`` of each sample.
        targets: the class number of each sample.

    Raises:
        FileNotFoundError: no folder, no classes in it, or no image of a class.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        loader: Callable[[str], Any] = load_image,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.root = os.fspath(root)
        self.transform = transform
        self.target_transform = target_transform
        self.loader = loader
        with os.scandir(self.root) as entries:
            self.classes = sorted(entry.name for entry in entries if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(
                f"Couldn't find any class folder in {self.root}: images are to be in root/class/image.png"
            )
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        valid = is_valid_file or (lambda path: path.lower().endswith(IMG_EXTENSIONS))
        self.samples: list[tuple[str, int]] = []
        for name, number in self.class_to_idx.items():
            found = [path for path in _files(os.path.join(self.root, name)) if valid(path)]
            if not found and not allow_empty:
                raise FileNotFoundError(
                    f"Found no valid file for the class {name} in {self.root}. Supported extensions are: "
                    f"{', '.join(IMG_EXTENSIONS)}"
                )
            self.samples += [(path, number) for path in found]
        self.targets = [number for _, number in self.samples]

    @property
    def imgs(self) -> list[tuple[str, int]]:
        """``samples`` under torchvision's other name."""
        return self.samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        image = self.loader(path)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            return image, self.target_transform(target)
        return image, target

    def __repr__(self) -> str:
        return (
            f"Dataset ImageFolder\n    Number of datapoints: {len(self)}\n    Root location: {self.root}"
            f"\n    Classes: {len(self.classes)}"
        )


def _files(folder: str) -> list[str]:
    """All files below a folder, those of a folder before those of the folders after it."""
    walk = sorted(os.walk(folder, followlinks=True))
    return [os.path.join(where, name) for where, _, names in walk for name in sorted(names)]

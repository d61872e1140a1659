"""MNIST and FashionMNIST: four files each, found on this machine or downloaded, checked, kept."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from kilograd.datasets.arrays import ArrayDataset, Transform
from kilograd.datasets.idx import REMEDY, read_idx


class MNIST(ArrayDataset):
    """Handwritten digits: ``(image (1, 28, 28) float32 in [0, 1], label)``, 60,000 to train, 10,000 to test.

    Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits". The
    arguments are torchvision's, and so is the layout of ``root``: a folder that torchvision filled serves
    as it is. Images come out as with torchvision's ``ToTensor()``.

    Each file is looked for, gzipped or not, in ``$KILOGRAD_DATA/mnist`` (never written to), then in
    ``root/MNIST/raw``; what neither has is downloaded there with ``download=True``, from the first mirror
    that delivers the known checksum. A file appears under its name only when it is complete and right.

    Args:
        root: the folder that holds ``MNIST/raw``; by default the user's cache folder for kilograd.
        train: the 60,000 training images, or the 10,000 test images.
        transform: called on each image, a float32 Tensor ``(1, 28, 28)``.
        target_transform: called on each label, an ``int``.
        download: fetch what is missing, and replace what is damaged in ``root``.

    Attributes:
        data: the pixels as stored, a uint8 Tensor ``(N, 28, 28)``.
        targets: int64 Tensor ``(N,)``.
        source: the file that the images were read from.

    Raises:
        RuntimeError: if files are missing and ``download`` is False, or no mirror delivers.
        ValueError: if a file is corrupt, truncated, or not what its name says; the message names it.
        ImportError: if pooch is needed, for a download or the default ``root``, and is not installed.

    Example:
        >>> train = MNIST(download=True)  # doctest: +SKIP
        >>> image, label = train[0]  # doctest: +SKIP
        >>> tuple(image.shape), label  # doctest: +SKIP
        ((1, 28, 28), 5)
    """

    classes = (
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four",
        "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    )  # fmt: skip
    mirrors: Sequence[str] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    sha256: Mapping[str, str] = {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }
    local_name = "mnist"  # the folder below $KILOGRAD_DATA

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        self.root = None if root is None else Path(root).expanduser()
        self.train = train
        part = "train" if train else "t10k"
        images, self.source = self._load(f"{part}-images-idx3-ubyte.gz", download, ndim=3)
        labels, source = self._load(f"{part}-labels-idx1-ubyte.gz", download, ndim=1)
        if len(images) != len(labels):
            raise ValueError(
                f"{self.source} has {len(images)} images but {source} has {len(labels)} labels: "
                f"one of them belongs to another set. {REMEDY}"
            )
        super().__init__(images, labels, transform, target_transform)

    @property
    def raw_folder(self) -> Path:
        """Where downloaded files are kept: torchvision's ``root/MNIST/raw``."""
        return (self.root or default_root()) / type(self).__name__ / "raw"

    def features(self, rows: np.ndarray) -> np.ndarray:  # (B, 28, 28) → (B, 1, 28, 28)
        return np.divide(rows, 255, dtype=np.float32)[:, None]

    def extra_repr(self) -> list[str]:
        return [f"Location: {self.source.parent}", f"Split: {'Train' if self.train else 'Test'}"]

    def _load(self, name: str, download: bool, ndim: int) -> tuple[np.ndarray, Path]:
        """The array in the file ``name`` and where that file is."""
        local = os.environ.get("KILOGRAD_DATA")
        folders = [Path(local).expanduser() / self.local_name] if local else []
        path = _find(name, folders)
        if (
            path is not None
        ):  # a local copy is the user's: what is wrong with it is reported, never mended
            return self._read(path, ndim), path
        path = _find(name, [self.raw_folder])
        if path is not None:
            try:
                return self._read(path, ndim), path
            except ValueError:
                if not download:
                    raise
        if not download:
            places = " or ".join(map(str, [*folders, self.raw_folder]))
            raise RuntimeError(
                f"{type(self).__name__}: {name} is not in {places}. Pass download=True to fetch it, or set "
                f"KILOGRAD_DATA to the folder that has it as {self.local_name}/{name}"
            )
        path = self._fetch(name)
        return self._read(path, ndim), path

    def _read(self, path: Path, ndim: int) -> np.ndarray:
        array = read_idx(path)
        if array.ndim != ndim or array.dtype != np.uint8:
            kind = "images (N, H, W)" if ndim == 3 else "labels (N,)"
            raise ValueError(
                f"{path} holds {array.dtype} of shape {array.shape}, where uint8 {kind} belong. {REMEDY}"
            )
        if ndim == 1 and array.max(initial=0) >= len(self.classes):
            raise ValueError(
                f"{path} has the label {array.max()}; the last class is {len(self.classes) - 1}. {REMEDY}"
            )
        return array

    def _fetch(self, name: str) -> Path:
        """Download ``name`` into ``raw_folder`` from the first mirror that delivers the right bytes.

        pooch writes to a temporary file beside it, checks the sum, and only then moves it into place.
        """
        pooch = _import_pooch()
        from requests.exceptions import RequestException  # pooch's own dependency

        show = importlib.util.find_spec("tqdm") is not None
        failures = []
        for mirror in self.mirrors:
            try:
                pooch.retrieve(
                    mirror + name,
                    known_hash=f"sha256:{self.sha256[name]}",
                    fname=name,
                    path=self.raw_folder,
                    downloader=pooch.HTTPDownloader(
                        progressbar=show, chunk_size=1 << 16, timeout=30
                    ),
                )
                return self.raw_folder / name
            except (
                RequestException,
                ValueError,
            ) as error:  # unreachable, or other bytes than expected
                failures.append(f"  {mirror}{name}: {error}")
        raise RuntimeError(
            f"{type(self).__name__}: no mirror delivered {name}, and nothing was kept.\n"
            + "\n".join(failures)
            + f"\nTry again later, or put the file into {self.raw_folder} yourself."
        )


class FashionMNIST(MNIST):
    """Pictures of clothes in MNIST's format: ``(image (1, 28, 28) float32 in [0, 1], label)``.

    Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
    Machine Learning Algorithms", 2017 (MIT licence). Arguments and errors are those of :class:`MNIST`; the
    files are looked for in ``$KILOGRAD_DATA/fashion-mnist`` and ``root/FashionMNIST/raw``.

    Example:
        >>> FashionMNIST.classes[9]
        'Ankle boot'
    """

    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mirrors = (
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    sha256 = {  # noqa: RUF012  (typed as a read-only mapping above)
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    local_name = "fashion-mnist"


def default_root() -> Path:
    """The folder that datasets are kept in unless told otherwise: the user's cache folder for kilograd."""
    return Path(_import_pooch().os_cache("kilograd"))


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    """The file ``name.gz``, or as unpacked by torchvision, in the first folder that has either."""
    candidates = (folder / n for folder in folders for n in (name, name.removesuffix(".gz")))
    return next(filter(Path.is_file, candidates), None)


def _import_pooch() -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "downloading and its cache folder need pooch, which is not installed: "
            "pip install 'kilograd[data]'"
        ) from error
    return pooch

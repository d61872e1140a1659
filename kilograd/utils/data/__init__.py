"""Datasets, samplers and the loader that makes batches of them."""

from kilograd.utils.data import transforms
from kilograd.utils.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from kilograd.utils.data.images import ImageFolder, load_image
from kilograd.utils.data.loader import (
    DataLoader,
    default_collate,
    default_convert,
)
from kilograd.utils.data.memmap import MemmapDataset
from kilograd.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from kilograd.utils.data.tables import TableDataset
from kilograd.utils.data.transforms import TransformedDataset
from kilograd.utils.data.worker_info import WorkerInfo, get_worker_info

__all__ = [
    "BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "ImageFolder",
    "IterableDataset", "MemmapDataset", "RandomSampler", "Sampler", "SequentialSampler",
    "StackDataset", "Subset", "SubsetRandomSampler", "TableDataset", "TensorDataset",
    "TransformedDataset", "WeightedRandomSampler", "WorkerInfo", "default_collate",
    "default_convert", "get_worker_info", "load_image", "random_split", "transforms",
]  # fmt: skip

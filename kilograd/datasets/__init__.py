"""Datasets: points that are computed, digits that ship with scikit-learn, MNIST from its mirrors."""

from kilograd.datasets.arrays import ArrayDataset
from kilograd.datasets.digits import Digits
from kilograd.datasets.mnist import MNIST, FashionMNIST
from kilograd.datasets.toy import (
    Blobs,
    Circles,
    Moons,
    Spirals,
    make_blobs,
    make_circles,
    make_moons,
    make_spirals,
)

__all__ = [
    "MNIST",
    "ArrayDataset",
    "Blobs",
    "Circles",
    "Digits",
    "FashionMNIST",
    "Moons",
    "Spirals",
    "make_blobs",
    "make_circles",
    "make_moons",
    "make_spirals",
]

# SPDX-License-Identifier: BSD-3-Clause
"""Handwritten digits that ship inside scikit-learn: 1797 images of 8 x 8 pixels, 10 classes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Digits", "load"]


@dataclass(frozen=True)
class Digits:
    """Two halves with the same classes; pixels between 0 and 1."""

    train_images: Tensor  # (N, 64) float32
    train_labels: Tensor  # (N,) int64
    test_images: Tensor  # (M, 64) float32
    test_labels: Tensor  # (M,) int64


def load(seed: int) -> Digits:
    """Half of each class to train on, the other half to measure with; both shuffled.

    Raises:
        ImportError: scikit-learn is missing.
    """
    datasets: Any = importlib.import_module("sklearn.datasets")
    pixels, classes = datasets.load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16.0
    labels = torch.tensor(classes, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for digit in range(10):
        rows = order[labels[order] == digit]
        for half, part in zip(halves, rows.tensor_split(2), strict=True):
            half.append(part)
    train, test = (torch.cat(half) for half in halves)
    train = train[torch.randperm(len(train), generator=generator)]
    return Digits(images[train], labels[train], images[test], labels[test])

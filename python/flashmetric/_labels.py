# SPDX-License-Identifier: BSD-3-Clause
"""Labels in the form in which kernels compare them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_keys", "compared", "relation_of", "signed"]


def relation_of(labels: Tensor | None, same_mask: Tensor | None) -> tuple[str, Tensor | None]:
    """The name of what relates two rows, and the tensor that says so for the queries."""
    if labels is None:
        return "mask", same_mask
    return ("classes" if labels.ndim == 1 else "multi_hot"), labels


def signed(ignore_label: float | None, labels: Tensor | None) -> float | None:
    """As the keys see it: of the bits of an int64, which no uint64 above 2^63 fits."""
    if ignore_label is None or labels is None:
        return None
    if labels.is_floating_point():
        return float(ignore_label)
    return ignore_label - 2**64 if ignore_label >= 2**63 else ignore_label


def class_keys(labels: Tensor) -> Tensor:
    """(n,) int64, equal bits = same class."""
    if labels.is_floating_point():
        return (labels.double() + 0.0).view(torch.int64)  # + 0.0: 0.0 and -0.0 are one class
    if labels.dtype == torch.uint64:
        labels = labels.view(torch.int64)
    return labels.to(torch.int64).contiguous()


def compared(
    labels: Tensor, relation: str, ignore_label: float | None
) -> tuple[Tensor, Tensor | None]:
    """What the relation compares: int64 keys, or uint8 of 0 and 1. And which rows are kept."""
    if labels.dtype is torch.int64 and ignore_label is None and relation != "multi_hot":
        return labels.contiguous(), None
    if relation == "mask":
        return labels.contiguous().view(torch.uint8), None
    if relation == "multi_hot":
        return (labels != 0).contiguous().view(torch.uint8), None
    keys = class_keys(labels)
    if ignore_label is None or keys.ndim == 2:  # the queries of "either", none of which is ignored
        return keys, None
    # A float label meets ignore_label in its own precision: 0.1 names the float32 nearest to it.
    kept = (labels if labels.is_floating_point() else keys) != ignore_label
    return keys, kept.view(torch.uint8)

# SPDX-License-Identifier: BSD-3-Clause
"""Tuples of indices, of whatever miner, as triplets or as pairs; in the order of the peer."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.utils import loss_and_miner_utils as _lmu
from torch import Tensor

from ._loss import Call

__all__ = ["pairs_of", "triplets_of"]


def _read(indices: Any, embeddings: Tensor) -> tuple[Tensor, ...]:
    return tuple(
        torch.as_tensor(each, dtype=torch.int64, device=embeddings.device) for each in indices
    )


def triplets_of(call: Call, per_anchor: int | str) -> tuple[Tensor, ...]:
    """The triplets of a tuple; without one, so many for each anchor as the peer draws them."""
    indices = call.indices
    if indices is None:
        indices = _lmu.get_random_triplet_indices(
            call.labels, call.ref_labels, t_per_anchor=per_anchor
        )
    found = _read(indices, call.embeddings)
    return found if len(found) == 3 else _joined(*found)


def _joined(a1: Tensor, p: Tensor, a2: Tensor, n: Tensor) -> tuple[Tensor, ...]:
    """Every positive pair with every negative pair of its anchor."""
    order = a2.argsort(stable=True)
    begin = torch.searchsorted(a2[order], a1)
    count = torch.searchsorted(a2[order], a1, right=True) - begin
    which = torch.arange(a1.shape[0], device=a1.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    place = torch.arange(which.shape[0], device=a1.device) - first[which] + begin[which]
    return a1[which], p[which], n[order[place]]


def pairs_of(call: Call) -> tuple[Tensor, ...]:
    """(anchor, positive, anchor, negative); without a tuple all pairs."""
    indices = call.indices
    if indices is None:
        indices = _lmu.get_all_pairs_indices(call.labels, call.ref_labels)
    found = _read(indices, call.embeddings)
    return found if len(found) == 4 else (found[0], found[1], found[0], found[2])

# SPDX-License-Identifier: BSD-3-Clause
"""Mining in plain torch: who may be compared with whom, and which row is chosen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .distances import block_rows, rank_key

NONE = -1  # the anchor has no such row
IGNORED = -2  # the anchor itself is ignored


class Triplets(NamedTuple):
    """Mined triplets, ordered by anchor: three int64 tensors (T,)."""

    anchor: Tensor  # rows of the embeddings
    positive: Tensor  # rows of the references; of the embeddings when there are none
    negative: Tensor  # likewise


class Comparison(NamedTuple):
    """The arguments that say who is compared with whom: queries, references and their relation."""

    embeddings: Tensor  # (B, D)
    labels: Tensor | None = None  # (B,) class ids or (B, C) multi-hot
    ref_embeddings: Tensor | None = None  # (R, D)
    ref_labels: Tensor | None = None  # (R,) or (R, C)
    same_mask: Tensor | None = None  # (B, R) bool, instead of labels
    self_index: Tensor | None = None  # (B,) int64: the reference that is the query, -1 = none
    ignore_label: float | None = None

    @property
    def refs(self) -> Tensor:
        return self.embeddings if self.ref_embeddings is None else self.ref_embeddings

    def kept(self) -> tuple[Tensor, Tensor]:
        """(B,), (R,) bool: the rows that are not ignored."""
        kept = _kept(self.labels, self.ignore_label, self.embeddings)
        if self.ref_embeddings is None:
            return kept, kept
        return kept, _kept(self.ref_labels, self.ignore_label, self.ref_embeddings)

    def candidates(self, rows: Tensor) -> Tensor:
        """(len(rows), R) bool: the references these queries may meet; never themselves."""
        columns = torch.arange(len(self.refs), device=rows.device)
        allowed = self.kept()[1].expand(len(rows), -1)
        if self.ref_embeddings is None:
            return allowed & (rows[:, None] != columns)
        if self.self_index is None:
            return allowed
        return allowed & (self.self_index[rows][:, None] != columns)

    def same(self, rows: Tensor) -> Tensor:
        """(len(rows), R) bool: is the reference of the query's class?"""
        if self.same_mask is not None:
            return self.same_mask[rows]
        assert self.labels is not None
        ref_labels = self.labels if self.ref_embeddings is None else self.ref_labels
        assert ref_labels is not None
        if self.labels.ndim == 2:  # multi-hot: at least one class in common
            return ((self.labels[rows] != 0).float() @ (ref_labels != 0).float().T) > 0
        return _class_ids(self.labels)[rows][:, None] == _class_ids(ref_labels)


def mine_triplets(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    mining: str = "hard",
    distance: str = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
) -> Triplets:
    """The triplets of every anchor that has a positive and a negative, ordered by anchor."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    positive, negative = choose(comparison, mining, distance, normalize)
    anchor = ((positive >= 0) & (negative >= 0)).nonzero().squeeze(1)
    return Triplets(anchor, positive[anchor], negative[anchor])


@torch.no_grad()
def choose(
    comparison: Comparison, mining: str, distance: str, normalize: bool
) -> tuple[Tensor, Tensor]:
    """Positive and negative of every query, (B,) int64, or NONE, or IGNORED."""
    x, refs = comparison.embeddings.detach(), comparison.refs.detach()
    positive = torch.full((len(x),), NONE, dtype=torch.int64, device=x.device)
    negative = positive.clone()
    queries = torch.arange(len(x), device=x.device)
    for rows in queries.split(block_rows(8 * len(refs))) if len(refs) else ():
        key = rank_key(x[rows], refs, distance=distance, normalize=normalize)
        candidates, same = comparison.candidates(rows), comparison.same(rows)
        positive[rows], negative[rows] = _RULES[mining](key, candidates & same, candidates & ~same)
    ignored = ~comparison.kept()[0]
    return positive.masked_fill(ignored, IGNORED), negative.masked_fill(ignored, IGNORED)


def _hard(key: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """The farthest positive and the nearest negative."""
    return _first_smallest(-key, positives), _first_smallest(key, negatives)


_RULES = {"hard": _hard}


def _first_smallest(key: Tensor, allowed: Tensor) -> Tensor:
    """Per row, the allowed column of the smallest key. The first of equals; NaN beats numbers."""
    key = torch.where(allowed, key, torch.inf)
    best = key.amin(1, keepdim=True)  # NaN as soon as one key is
    hits = allowed & ((key == best) | key.isnan())
    return torch.where(allowed.any(1), hits.int().argmax(1), NONE)  # argmax: the first of equals


def _class_ids(labels: Tensor) -> Tensor:
    """Class ids of any dtype, wide enough to be compared with those of another."""
    if labels.is_floating_point():
        return labels.double()
    return labels if labels.dtype == torch.uint64 else labels.long()


def _kept(labels: Tensor | None, ignore_label: float | None, rows: Tensor) -> Tensor:
    if labels is None or ignore_label is None:
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    # A float label meets ignore_label in its own precision: 0.1 names the float32 nearest to it.
    return (labels if labels.is_floating_point() else _class_ids(labels)) != ignore_label

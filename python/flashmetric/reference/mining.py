# SPDX-License-Identifier: BSD-3-Clause
"""Mining in plain torch: who may be compared with whom, and which row is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import rules
from .distances import Distance, block_rows, key_value, rank_key
from .rules import NONE as NONE
from .rules import first_smallest
from .sampling import draw_seed

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


class Rule(NamedTuple):
    """Which triplets are mined: the `mining` word and the options that some words have."""

    name: str = "hard"
    fallback: str = "farthest"  # semihard
    hardness: float | Tensor | None = None  # semihard; None = 0.5
    mining_margin: float | Tensor | None = None  # the *_all sets: a number, 0-dim or (B,); None = 1
    positive: str = "easy"  # easy_hard
    negative: str = "semihard"  # easy_hard
    n_negatives: int = 1  # random
    seed: Tensor | None = None  # random, distance_weighted: 0-dim int64
    temperature: float = 1.0  # soft
    detach_weights: bool = False  # soft

    def seeded(self, generator: torch.Generator | None) -> Rule:
        """The rule with its seed, drawn only if there is something to draw."""
        if self.name not in ("distance_weighted", "random"):
            return self
        return self._replace(seed=draw_seed(generator))


def mine_triplets(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    mining: str = "hard",
    distance: Distance = "euclidean",
    normalize: bool = False,
    fallback: str = "farthest",
    hardness: float | Tensor | None = None,
    mining_margin: float | Tensor | None = None,
    positive_mining: str = "easy",
    negative_mining: str = "semihard",
    n_negatives: int = 1,
    generator: torch.Generator | None = None,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
) -> Triplets:
    """The triplets of the rule, ordered by anchor, then positive, then negative or draw."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    options = (fallback, hardness, mining_margin, positive_mining, negative_mining, n_negatives)
    rule = Rule(mining, *options).seeded(generator)
    return list_triplets(comparison, rule, distance, normalize)


@torch.no_grad()
def list_triplets(
    comparison: Comparison,
    rule: Rule,
    distance: Distance,
    normalize: bool,
    *,
    uncovered: bool = False,
) -> Triplets:
    """The triplets of every rule but soft.

    `uncovered` (semihard) also lists the positive pairs of anchors without any negative, with
    negative = NONE.
    """
    if rule.name == "distance_weighted":
        distance, normalize = "euclidean", True
    nothing = torch.empty(3, 0, dtype=torch.int64, device=comparison.embeddings.device)
    parts = [Triplets(*nothing)]
    for block in _blocks(comparison, distance, normalize):
        query, positive, negative = _listed(block, rule, comparison.embeddings, uncovered)
        parts.append(Triplets(block.rows[query], positive, negative))
    return Triplets(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def choose_hard(
    comparison: Comparison, distance: Distance, normalize: bool
) -> tuple[Tensor, Tensor]:
    """The farthest positive and the nearest negative of every query, (B,) int64, or NONE, or
    IGNORED."""
    kept = comparison.kept()[0]
    positive = torch.full_like(kept, NONE, dtype=torch.int64)
    negative = positive.clone()
    for block in _blocks(comparison, distance, normalize):
        positive[block.rows] = first_smallest(-block.key, block.positives)
        negative[block.rows] = first_smallest(block.key, block.negatives)
    return positive.masked_fill(~kept, IGNORED), negative.masked_fill(~kept, IGNORED)


def _blocks(comparison: Comparison, distance: Distance, normalize: bool) -> Iterator[rules.Block]:
    """The queries, some at a time, with their keys."""
    x, refs = comparison.embeddings.detach(), comparison.refs.detach()
    queries = torch.arange(len(x), device=x.device)
    for rows in queries.split(block_rows(8 * len(refs))) if len(refs) else ():
        key = rank_key(x[rows], refs, distance=distance, normalize=normalize)
        candidates = comparison.candidates(rows) & comparison.kept()[0][rows, None]
        same, value = comparison.same(rows), key_value(key, distance)
        yield rules.Block(rows, key, value, candidates & same, candidates & ~same)


def _listed(block: rules.Block, rule: Rule, x: Tensor, uncovered: bool) -> rules.Lists:
    match rule.name:
        case "hard":
            return rules.easy_hard(block, "hard", "hard")
        case "easy_hard":
            return rules.easy_hard(block, rule.positive, rule.negative)
        case "all":
            return rules.all_triplets(block)
        case "semihard":
            return rules.semihard(block, rule.fallback, rule.hardness, uncovered=uncovered)
        case "semihard_all" | "hard_all" | "easy_all":
            margin = 1.0 if rule.mining_margin is None else rule.mining_margin
            per_row = torch.as_tensor(margin, dtype=torch.float64, device=x.device).expand(len(x))
            return rules.triplet_set(block, rule.name, per_row[block.rows])
    assert rule.seed is not None, f"{rule.name} needs a seed"
    if rule.name == "random":
        return rules.random(block, rule.n_negatives, rule.seed)
    assert rule.name == "distance_weighted", f"{rule.name} lists no triplets"
    return rules.distance_weighted(block, x.shape[1], rule.seed)


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

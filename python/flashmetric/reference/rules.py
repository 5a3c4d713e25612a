# SPDX-License-Identifier: BSD-3-Clause
"""Mining rules in plain torch: from the keys of some queries to their triplets.

A rule returns (query, positive, negative), int64 (T,), ordered by query, then positive, then
negative; queries count the rows of its `Block`. Where keys are compared, a NaN wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .distances import block_rows
from .sampling import sphere_weights, uniform

NONE = -1  # there is no such row
Lists = tuple[Tensor, Tensor, Tensor]


class Block(NamedTuple):
    """Some queries and all references: the float64 keys, and who may be chosen."""

    rows: Tensor  # (b,) the queries, as rows of the embeddings
    key: Tensor  # (b, R)
    distance: Tensor  # (b, R) float64, the value of the key
    positives: Tensor  # (b, R) bool; neither the query itself nor an ignored row is one
    negatives: Tensor  # likewise


def all_triplets(block: Block) -> Lists:
    return _product(block.positives, block.negatives)


def easy_hard(block: Block, positive: str, negative: str) -> Lists:
    """Per query: hard = the farthest positive, the nearest negative; easy = the other end.

    Semi-hard looks beyond what the other side chose: the nearest negative farther than the
    positive, or the farthest positive nearer than the negative. The side without it goes first.
    """
    key, positives, negatives = block.key, block.positives, block.negatives
    if positive != "semihard":
        positives = _side(key, positives, positive, farthest=positive == "hard")
        bound = torch.where(positives, key, -torch.inf).amax(1, keepdim=True)
        if negative == "semihard":
            negatives = negatives & ((key > bound) | key.isnan())
        return _product(positives, _side(key, negatives, negative, farthest=negative == "easy"))
    negatives = _side(key, negatives, negative, farthest=negative == "easy")
    bound = torch.where(negatives, key, torch.inf).amin(1, keepdim=True)
    positives = positives & ((key < bound) | key.isnan())
    return _product(_side(key, positives, positive, farthest=True), negatives)


def semihard(
    block: Block, fallback: str, hardness: float | Tensor | None, *, uncovered: bool
) -> Lists:
    """Per positive pair: the nearest negative beyond a bound, else (fallback) the farthest.

    `uncovered` lists pairs of queries without any negative too, with NONE for it.
    """

    def pick(query: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        key, negatives = block.key[query], block.negatives[query]
        beyond = negatives & (_beyond(block, query, positive, hardness) | key.isnan())
        chosen = first_smallest(key, beyond)
        if fallback == "farthest":
            chosen = torch.where(chosen >= 0, chosen, first_smallest(-key, negatives))
        listed = chosen >= 0
        if uncovered:
            listed = listed | ~negatives.any(1)
        pair = listed.nonzero().squeeze(1)
        return pair, chosen[pair]

    return _per_pair(block.positives, pick)


def triplet_set(block: Block, name: str, margin: Tensor) -> Lists:
    """All triplets of a range of d_an - d_ap; margin: (b,). Negated tests let NaN in."""

    def pick(query: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        gap = block.distance[query] - block.distance[query, positive][:, None]
        above = ~(gap <= 0) if name == "semihard_all" else ~(gap <= margin[query][:, None])
        if name == "semihard_all":
            member = above & ~(gap > margin[query][:, None])
        else:
            member = ~(gap > 0) if name == "hard_all" else above
        pair, negative = (block.negatives[query] & member).nonzero(as_tuple=True)
        return pair, negative

    return _per_pair(block.positives, pick)


def distance_weighted(block: Block, features: int, seed: Tensor) -> Lists:
    """Per positive pair one negative, drawn by inverse density on the unit sphere.

    The distances of the block are those of the normalised rows.
    """
    running = sphere_weights(block.distance, block.negatives, features).cumsum(1)
    first = torch.zeros((), dtype=torch.int64, device=running.device)

    def pick(query: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        total = running[query, -1]
        pair = (total > 0).nonzero().squeeze(1)
        query, positive = query[pair], positive[pair]
        bound = uniform(seed, block.rows[query], positive, first) * total[pair]
        return pair, (running[query] > bound[:, None]).int().argmax(1)  # argmax: the first

    return _per_pair(block.positives, pick)


def random(block: Block, draws: int, seed: Tensor) -> Lists:
    """Per positive pair some of the negatives, with replacement, in the order of the draws."""
    count = block.negatives.sum(1)
    ascending = (~block.negatives).int().argsort(stable=True, dim=1)  # the negatives come first
    draw = torch.arange(draws, device=count.device)

    def pick(query: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        pair = (count[query] > 0).nonzero().squeeze(1)
        query, positive = query[pair, None], positive[pair, None]
        number = (uniform(seed, block.rows[query], positive, draw) * count[query]).long()
        return pair.repeat_interleave(draws), ascending[query, number].flatten()

    return _per_pair(block.positives, pick)


def first_smallest(key: Tensor, allowed: Tensor) -> Tensor:
    """Per row, the allowed column of the smallest key. The first of equals; NaN beats numbers."""
    key = torch.where(allowed, key, torch.inf)
    best = key.amin(1, keepdim=True)  # NaN as soon as one key is
    hits = allowed & ((key == best) | key.isnan())
    return torch.where(allowed.any(1), hits.int().argmax(1), NONE)  # argmax: the first of equals


def _beyond(
    block: Block, query: Tensor, positive: Tensor, hardness: float | Tensor | None
) -> Tensor:
    """(P, R) bool: is the reference farther than the positive, or than hardness asks for?"""
    key = block.key[query]
    farther = key > block.key[query, positive][:, None]
    if hardness is None:
        return farther
    h = torch.as_tensor(hardness, dtype=torch.float64, device=key.device)
    d, d_ap = block.distance[query], block.distance[query, positive][:, None]
    negatives = block.negatives[query]
    d_max = torch.where(negatives, d, -torch.inf).amax(1, keepdim=True)
    d_min = torch.where(negatives, d, torch.inf).amin(1, keepdim=True)
    easier = d > d_ap + (1 - 2 * h) * (d_max - d_ap).relu()
    harder = d >= d_ap - (2 * h - 1) * (d_ap - d_min).relu()
    return torch.where(h == 0.5, farther, torch.where(h < 0.5, easier, harder))


def _side(key: Tensor, allowed: Tensor, strategy: str, *, farthest: bool) -> Tensor:
    """(b, R) bool: those of the allowed references that the strategy takes."""
    if strategy == "all":
        return allowed
    chosen = first_smallest(-key if farthest else key, allowed)
    return torch.arange(key.shape[1], device=key.device) == chosen[:, None]


def _product(positives: Tensor, negatives: Tensor) -> Lists:
    def pick(query: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        pair, negative = negatives[query].nonzero(as_tuple=True)
        return pair, negative

    return _per_pair(positives, pick)


def _per_pair(positives: Tensor, pick: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Lists:
    """The triplets of every positive pair; pick(query, positive) = (which pair, its negative).

    The pairs come in parts: a rule holds a row of references for each.
    """
    size = block_rows(8 * positives.shape[1])
    parts = []
    for query, positive in zip(
        *(x.split(size) for x in positives.nonzero(as_tuple=True)), strict=True
    ):
        pair, negative = pick(query, positive)
        parts.append((query[pair], positive[pair], negative))
    query, positive, negative = (torch.cat(lists) for lists in zip(*parts, strict=True))
    return query, positive, negative

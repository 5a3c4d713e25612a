# SPDX-License-Identifier: BSD-3-Clause
"""Lists of triplets on the CPU, in parts of bounded size, and the losses made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flashmetric import _outputs

from .calls import both, list_call, numbers, rows_of
from .cpu import DEVICE
from .dense import dense, semihard_of

# Triplets listed at a time: 24 MiB of indices. An anchor that forms more by itself raises it.
_PART = 2**20
# Memory for so many per anchor is tried first: 3 are usual, and what goes back to the system costs
# a page fault for every page when it is asked for again.
_FEW = 8

_NOTHING = torch.empty(0, dtype=torch.int64)

Part = tuple[Tensor, Tensor, Tensor]


class Dense(Exception):
    """A loss of the triplets needs no list of them: `dense` takes it."""


def parts(
    query: Tensor, ref: Tensor | None, *options: Any, for_loss: bool = False
) -> Iterator[tuple[Part, bool]]:
    """Triplets of the anchors in order, and whether these are the last.

    With for_loss it raises Dense instead, where that is so.
    """
    *tensors, hardness, seed = options[:6]
    moved = None if hardness is None else float(hardness)
    chosen = (*tensors, moved, None if seed is None else int(seed), *options[6:])
    arguments = list_call(both(rows_of, query, ref), *chosen, for_loss=for_loss)
    begin, n = 0, query.shape[0]
    capacity = min(_PART, _FEW * n)
    found = torch.zeros(3, dtype=torch.int64)
    while begin < n:
        lists = tuple(torch.empty(capacity, dtype=torch.int64) for _ in range(3))
        DEVICE.run("list_triplets", query, (*arguments, begin, capacity, *lists, found))
        count, end, needed = found.tolist()
        if end < 0:
            raise Dense
        if capacity < _PART and end < n:
            capacity = max(_PART, needed)
            continue
        if end > begin:
            yield tuple(each[:count] for each in lists), end == n  # type: ignore[misc]
        begin, capacity = end, max(_PART, needed)


def list_triplets(query: Tensor, ref: Tensor | None, *options: Any) -> Part:
    found = [tuple(each.clone() for each in part) for part, _ in parts(query, ref, *options)]
    if not found:
        return _NOTHING.clone(), _NOTHING.clone(), _NOTHING.clone()
    anchor, positive, negative = (torch.cat(each) for each in zip(*found, strict=True))
    return anchor, positive, negative


def listed_triplet(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """The triplet loss of everything a rule lists; lists of any length in bounded memory."""
    comparison, (margin_values, weights, cotangent), rule = options[:6], options[6:9], options[9:19]
    margin, distance, normalize, soft_margin, reduction, wanted, with_stats = options[19:]
    rows, uncovered = (*both(rows_of, query, ref), None), rule[-1]

    def evaluate(part: Part, reduction: str) -> _Sum:
        anchor = part[0]
        values = [
            each[anchor] if each is not None and each.ndim else each
            for each in (margin_values, weights, cotangent)
        ]
        formula = (margin, distance, normalize, soft_margin, False, uncovered)
        request = (reduction, [*wanted, False], with_stats)
        found = _outputs.triplet(query, ref, None, anchor, *request)
        totals = torch.zeros(3, dtype=torch.float64)
        margins, factors, cotangents = values
        given = (numbers(margins), numbers(factors), cotangents, *formula, *request)
        DEVICE.run("triplet", query, (*rows, *part, *given, found, True, totals))
        if reduction == "none":
            terms, found[0] = found[0], query.new_zeros(query.shape[0], dtype=found[0].dtype)
            found[0].index_add_(0, anchor, terms)
        return _Sum(found, totals, _anchors_of(part) if with_stats else 0, with_stats)

    chosen = (*comparison, *rule[:3], distance, normalize, *rule[3:])
    try:
        lists, (part, last) = _opened(query, ref, *chosen, for_loss=True)
    except Dense:
        outputs = _dense_semihard(query, ref, *options)
        if outputs is not None:
            return outputs
        lists, (part, last) = _opened(query, ref, *chosen)
    if last:
        return evaluate(part, reduction).outputs()
    total = evaluate(part, "none" if reduction == "none" else "sum")
    for part, _ in lists:
        total.add(evaluate(part, "none" if reduction == "none" else "sum"))
    total.divide(reduction)
    return total.outputs()


def _opened(
    *arguments: Any, for_loss: bool = False
) -> tuple[Iterator[tuple[Part, bool]], tuple[Part, bool]]:
    """The parts after the first, and the first."""
    lists = parts(*arguments, for_loss=for_loss)
    return lists, next(lists, ((_NOTHING,) * 3, True))


def _dense_semihard(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor] | None:
    """The same of large classes, without a list; None where float32 cannot hold the distances."""
    refused = torch.zeros(1, dtype=torch.int64)
    chosen, words = semihard_of(*options)
    outputs = dense(query, ref, *chosen, semihard=(*words, refused))
    return None if refused.item() else outputs


def _anchors_of(part: Part) -> int:
    """How many anchors have triplets."""
    anchor, _, negative = part
    listed = anchor[negative >= 0]
    return int((listed[1:] != listed[:-1]).sum()) + min(1, listed.shape[0])


class _Sum:
    """The outputs of a part of the triplets, or of several."""

    def __init__(self, found: list[Tensor], totals: Tensor, anchors: int, with_stats: bool) -> None:
        self.stats = found.pop() if with_stats else None
        self.found, self.totals, self.anchors = found, totals, anchors

    def add(self, other: _Sum) -> None:
        for mine, more in zip(self.found, other.found, strict=True):
            mine += more
        self.totals += other.totals
        self.anchors += other.anchors
        if self.stats is not None and other.stats is not None:
            self.stats = _merged(self.stats, other.stats)

    def divide(self, reduction: str) -> None:
        if reduction in ("mean", "mean_active"):
            divisor = self.totals[1 if reduction == "mean" else 2].item()
            for each in self.found:
                each *= 1 / divisor if divisor else 0.0

    def outputs(self) -> list[Tensor]:
        if self.stats is None:
            return self.found
        self.stats[0] = self.anchors
        return [*self.found, self.stats]


def _merged(a: Tensor, b: Tensor) -> Tensor:
    """Statistics of two parts of the triplets; the first number of each counts triplets here."""
    count = a[0] + b[0]
    if not a[0] or not b[0]:
        return b if not a[0] else a
    means = (a[1:4] * a[0] + b[1:4] * b[0]) / count
    return torch.cat(
        [count[None], means, torch.maximum(a[4:5], b[4:5]), torch.minimum(a[5:6], b[5:6]), a[6:7]]
    )

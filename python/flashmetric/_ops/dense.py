# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or all pairs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flashmetric import _outputs

from .calls import both, comparison_of, numbers, rows_of
from .cpu import DEVICE

# Of the loss "semihard" only: drop_without_semihard, uncovered, and where it says `refused`.
SemiHard = tuple[bool, bool, Tensor | None]
NO_SEMIHARD: SemiHard = (False, False, None)


def dense_of(
    query: Tensor, ref: Tensor | None, *options: Any, semihard: SemiHard
) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Loss, wanted gradients and statistics; the arguments that fill them."""
    mining_margins, margins, bounds, weights, cotangent = options[3:8]
    relation, ignore_label, loss, *formula = options[8:]
    outputs = _outputs.batch_loss(query, ref, *formula)
    rows = both(rows_of, query, ref)
    comparison = comparison_of(rows, options[:3], relation, ignore_label)
    given = [numbers(each) for each in (mining_margins, margins, bounds, weights)]
    return outputs, (*comparison, loss, *semihard, *given, cotangent, *formula, outputs)


def dense(
    query: Tensor, ref: Tensor | None, *options: Any, semihard: SemiHard = NO_SEMIHARD
) -> list[Tensor]:
    """On the CPU."""
    outputs, arguments = dense_of(query, ref, *options, semihard=semihard)
    DEVICE.run("dense", query, arguments)
    return outputs


def semihard_of(*options: Any) -> tuple[tuple[Any, ...], tuple[bool, bool]]:
    """Options of listed_triplet as those of `dense`; drop_without_semihard and uncovered."""
    (*comparison, _, _, _), numbers, rule = options[:6], options[6:9], options[9:19]
    margin, distance, normalize, soft_margin, *request = options[19:]
    relation, ignore_label, mining, drop, *_, uncovered = rule
    formula = (margin, 0.0, soft_margin, 1.0, False, 2, 1.0, distance, normalize)
    tensors = (*comparison, None, numbers[0], None, *numbers[1:])
    return (*tensors, relation, ignore_label, mining, *formula, *request), (drop, uncovered)

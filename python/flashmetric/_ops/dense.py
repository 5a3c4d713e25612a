# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or all pairs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor

from flashmetric import _outputs

from .calls import both, by_role, comparison_of, numbers, rows_of, run

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


# Of the loss "semihard" only: drop_without_semihard, uncovered, and where it says `refused`.
SemiHard = tuple[bool, bool, Tensor | None]
_NO_SEMIHARD: SemiHard = (False, False, None)


def dense_of(
    query: Tensor, ref: Tensor | None, *options: Any, semihard: SemiHard = _NO_SEMIHARD
) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Loss, wanted gradients and statistics; the arguments that fill them."""
    comparison, (mining_margins, margins, bounds, weights, cotangent) = options[:3], options[3:8]
    relation, ignore_label, loss, margin, mining_margin, *formula = options[8:]
    soft_margin, *rule, factor, distance, normalize, reduction, wanted, with_stats = formula
    outputs = _outputs.batch_loss(query, ref, reduction, wanted, with_stats)
    metric = (relation, ignore_label, distance, normalize)
    arguments = comparison_of(both(rows_of, query, ref), comparison, metric)
    given = (
        *(margin, numbers(margins), mining_margin, numbers(mining_margins)),
        *(soft_margin, *semihard, *rule, factor, numbers(bounds), numbers(weights)),
        *(reduction, cotangent),
    )
    stats = outputs[-1] if with_stats else None
    results = (outputs[0], *by_role(outputs[1:], wanted), stats)
    return outputs, (loss, *arguments, *given, *results)


def dense(
    query: Tensor, ref: Tensor | None, *options: Any, semihard: SemiHard = _NO_SEMIHARD
) -> list[Tensor]:
    """On the CPU."""
    outputs, arguments = dense_of(query, ref, *options, semihard=semihard)
    run(_C.dense, arguments)
    return outputs


def semihard_of(*options: Any) -> tuple[tuple[Any, ...], tuple[bool, bool]]:
    """Options of listed_triplet as those of `dense`; drop_without_semihard and uncovered."""
    (*comparison, _, _, _), numbers, rule = options[:6], options[6:9], options[9:19]
    margin, distance, normalize, soft_margin, *request = options[19:]
    relation, ignore_label, mining, drop, *_, uncovered = rule
    formula = (margin, 0.0, soft_margin, 1.0, False, 2, 1.0, distance, normalize)
    tensors = (*comparison, None, numbers[0], None, *numbers[1:])
    return (*tensors, relation, ignore_label, mining, *formula, *request), (drop, uncovered)


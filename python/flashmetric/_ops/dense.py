# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or all pairs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor

from flashmetric import _outputs

from .calls import comparison_of, numbers_of, pointers, rows_of, run

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


def dense_of(
    query: Tensor,
    ref: Tensor | None,
    *options: Any,
    semihard: tuple[bool, bool, int] = (False, False, 0),
) -> tuple[list[Tensor], tuple[Any, ...], Any]:
    """Loss, wanted gradients and statistics; the arguments that fill them; what these point into.

    semihard: drop_without_semihard, uncovered, and the address of `refused`, of that loss only.
    """
    comparison, (mining_margins, margins, bounds, weights, cotangent) = options[:3], options[3:8]
    relation, ignore_label, loss, margin, mining_margin, *formula = options[8:]
    soft_margin, *rule, factor, distance, normalize, reduction, wanted, with_stats = formula
    outputs = _outputs.batch_loss(query, ref, reduction, wanted, with_stats)
    rows = (rows_of(query), None if ref is None else rows_of(ref))
    metric = (relation, ignore_label, distance, normalize)
    arguments, alive = comparison_of(numbers_of(*rows), comparison, metric)
    values = [
        None if each is None else each.double().contiguous()
        for each in (margins, mining_margins, bounds, weights)
    ]
    margins, mining_margins, bounds, weights = values
    out, *rest = pointers(*outputs)
    grads = [rest.pop(0) if want else 0 for want in wanted]
    numbers = (
        *_number(margin, margins),
        *_number(mining_margin, mining_margins),
        *(soft_margin, *semihard, *rule, factor, *pointers(bounds, weights), reduction),
        *((0, 0) if cotangent is None else (cotangent.data_ptr(), cotangent.stride()[0])),
    )
    results = (out, *grads, rest[0] if with_stats else 0)
    return outputs, (loss, *arguments, *numbers, *results), (alive, rows, values)


def dense(
    query: Tensor,
    ref: Tensor | None,
    *options: Any,
    semihard: tuple[bool, bool, int] = (False, False, 0),
) -> list[Tensor]:
    """On the CPU."""
    outputs, arguments, alive = dense_of(query, ref, *options, semihard=semihard)
    run((_C.dense, arguments, alive))
    return outputs


def semihard_of(*options: Any) -> tuple[tuple[Any, ...], tuple[bool, bool]]:
    """Options of listed_triplet as those of `dense`; drop_without_semihard and uncovered."""
    (*comparison, _, _, _), numbers, rule = options[:6], options[6:9], options[9:19]
    margin, distance, normalize, soft_margin, *request = options[19:]
    relation, ignore_label, mining, drop, *_, uncovered = rule
    formula = (margin, 0.0, soft_margin, 1.0, False, 2, 1.0, distance, normalize)
    tensors = (*comparison, None, numbers[0], None, *numbers[1:])
    return (*tensors, relation, ignore_label, mining, *formula, *request), (drop, uncovered)


def _number(number: float, values: Tensor | None) -> tuple[float, int, int]:
    """A number, or in its place the address of one or of one per anchor, and the step."""
    return (number, 0, 0) if values is None else (number, values.data_ptr(), values.ndim)

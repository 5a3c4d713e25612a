# SPDX-License-Identifier: BSD-3-Clause
"""Hard mining, and losses of one triplet per anchor or of given triplets, on any device."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flashmetric import _outputs

from .calls import Device, both, comparison_of, numbers


def mine(
    device: Device,
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    relation: str,
    ignore_label: float | None,
    *rule: Any,
) -> tuple[Tensor, Tensor]:
    found = _outputs.mine(query)
    rows, sides = both(device.as_rows, query, ref), (labels, ref_labels, self_index)
    comparison = comparison_of(rows, sides, relation, ignore_label)
    device.run("mine", query, (*comparison, *rule, *found))
    return found


def triplet(
    device: Device,
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    margins: Tensor | None,
    weights: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    given = (anchor_rows, positive_rows, negative_rows)
    outputs = _outputs.triplet(*given, anchor, *options)
    sets = [None if rows is None else device.as_rows(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    terms = (numbers(margins), numbers(weights), *options, outputs)
    device.run("triplet", anchor_rows, (*sets, *index, *terms, False, None))
    return outputs


def mined_triplet(
    device: Device,
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margins: Tensor | None,
    weights: Tensor | None,
    relation: str,
    ignore_label: float | None,
    mining: str,
    *options: Any,
) -> list[Tensor]:
    outputs = _outputs.mined_triplet(query, ref, *options)
    rows, sides = both(device.as_rows, query, ref), (labels, ref_labels, self_index)
    comparison = comparison_of(rows, sides, relation, ignore_label)
    terms = (numbers(margins), numbers(weights), None, *options, outputs)
    device.run("mined_triplet", query, (*comparison, mining, *terms))
    return outputs

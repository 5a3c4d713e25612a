# SPDX-License-Identifier: BSD-3-Clause
"""The ops on the CPU. Arguments come by position: the dispatcher takes 6 us more for keywords."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from flashmetric import _outputs

from .calls import (
    mine_call,
    numbers_of,
    pointers,
    rows_of,
    run,
    triplet_call,
)

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


def mine(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, Tensor]:
    found = _outputs.mine(query)
    x, y = rows_of(query), None if ref is None else rows_of(ref)
    tensors = (labels, ref_labels, self_index)
    run(mine_call(numbers_of(x, y), tensors, rule, pointers(*found)))
    return found


def triplet(
    anchor_rows: Tensor,
    positive_rows: Tensor | None,
    negative_rows: Tensor | None,
    anchor: Tensor | None,
    positive: Tensor | None,
    negative: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    given = (anchor_rows, positive_rows, negative_rows)
    outputs = _outputs.triplet(*given, anchor, *options)
    sets = [None if rows is None else rows_of(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    n = (anchor_rows if anchor is None else anchor).shape[0]
    run(triplet_call(numbers_of(*sets), [n, *pointers(*index)], options, outputs))
    return outputs


def mined_triplet(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    margin_values, weights, relation, ignore_label, mining, *formula = options
    outputs = _outputs.mined_triplet(query, ref, *formula)
    x, y = rows_of(query), None if ref is None else rows_of(ref)
    n, numbers = x.shape[0], numbers_of(x, y)
    if formula[-3] == "none":  # the backward wants to know them
        found = pointers(*outputs[-2:])
    else:
        chosen = torch.empty(2 * n, dtype=torch.int64)
        found = [chosen.data_ptr(), chosen.data_ptr() + 8 * n]
    rule = (relation, ignore_label, mining, formula[1], formula[2])
    rest = (margin_values, weights, None, *formula)
    run(
        mine_call(numbers, (labels, ref_labels, self_index), rule, found),
        triplet_call([*numbers, 0, 0, 0], [n, 0, *found], rest, outputs),
    )
    return outputs


def pairwise(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
    out = _outputs.pairwise(x, y)
    x = rows_of(x)
    y = x if y is None else rows_of(y)
    run((_C.pairwise, (distance, normalize, *numbers_of(x, y), out.data_ptr()), None))
    return out


def pairwise_backward(
    x: Tensor,
    y: Tensor | None,
    cotangent: Tensor,
    distance: str,
    normalize: bool,
    wanted: list[bool],
) -> list[Tensor]:
    grads = _outputs.pairwise_backward(x, y, cotangent, wanted)
    x = rows_of(x)
    other = x if y is None else rows_of(y)

    def add(
        grad: Tensor,
        own: Tensor,
        other: Tensor,
        cotangent: Tensor,
        *,
        swapped: bool = False,
        mirrored: bool = False,
    ) -> None:
        factor = (swapped, mirrored, cotangent.data_ptr(), *cotangent.stride())
        arguments = (distance, normalize, *numbers_of(own, other), *factor, grad.data_ptr())
        run((_C.pairwise_backward, arguments, None))

    if wanted[0]:
        add(grads[0], x, other, cotangent, mirrored=y is None)
    if wanted[1] and y is not None:
        add(grads[-1], other, x, cotangent.T, swapped=True)
    return grads


def paired(
    x: Tensor,
    r: Tensor | None,
    index_x: Tensor | None,
    index_r: Tensor | None,
    distance: str,
    normalize: bool,
) -> Tensor:
    out = _outputs.paired(x, r, index_x, index_r)
    _paired(x, r, (index_x, index_r), (distance, normalize), [0, 0, out.data_ptr(), 0, 0])
    return out


def paired_backward(
    x: Tensor,
    r: Tensor | None,
    index_x: Tensor | None,
    index_r: Tensor | None,
    cotangent: Tensor,
    distance: str,
    normalize: bool,
    wanted: list[bool],
) -> list[Tensor]:
    grads = _outputs.paired_backward(x, r, wanted)
    if cotangent.shape[0] == 0:  # it has no address, and the kernel would take it for none at all
        return [grad.zero_() for grad in grads]
    found = iter(grads)
    targets = [next(found).data_ptr() if want else 0 for want in wanted]
    results = [cotangent.data_ptr(), cotangent.stride()[0], 0, *targets]
    _paired(x, r, (index_x, index_r), (distance, normalize), results)
    return grads


def _paired(
    x: Tensor,
    r: Tensor | None,
    index: tuple[Tensor | None, Tensor | None],
    metric: tuple[str, bool],
    results: list[int],
) -> None:
    n = (x if index[0] is None else index[0]).shape[0]
    rows = (rows_of(x), None if r is None else rows_of(r))
    places = [None if each is None else each.contiguous() for each in index]
    arguments = (*metric, *numbers_of(*rows), n, *pointers(*places), *results)
    run((_C.paired, arguments, (rows, places)))

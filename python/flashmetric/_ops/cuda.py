# SPDX-License-Identifier: BSD-3-Clause
"""The ops on a GPU. Work goes to the current stream, memory comes from torch, nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from flashmetric import _outputs
from flashmetric._compat import raw_stream

from .calls import WHY_NO_KERNELS, mine_call, numbers_of, pointers, triplet_call

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


def _why_no_cuda() -> str:
    if WHY_NO_KERNELS:
        return WHY_NO_KERNELS
    return "" if _C.build_info()["cuda"] else "flashmetric was built without CUDA"


WHY_NO_CUDA = _why_no_cuda()


def _rows_of(rows: Tensor) -> Tensor:
    return rows if rows.stride()[1] == 1 else rows.contiguous()


def _run(kernel: Callable[..., int], device: torch.device, arguments: tuple[Any, ...]) -> None:
    """Calls the kernel with as much scratch memory as it asks for."""
    index = device.index
    place = (index, raw_stream(index))
    needed = kernel(*place, *arguments, 0, 0, 1)
    scratch = torch.empty(needed, dtype=torch.uint8, device=device)
    kernel(*place, *arguments, scratch.data_ptr(), needed, 1)


def mine(
    query: Tensor,
    ref: Tensor | None,
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    *rule: Any,
) -> tuple[Tensor, Tensor]:
    found = _outputs.mine(query)
    x, y = _rows_of(query), None if ref is None else _rows_of(ref)
    tensors = (labels, ref_labels, self_index)
    _, arguments, alive = mine_call(numbers_of(x, y), tensors, rule, pointers(*found))
    _run(_C.cuda_mine, query.device, arguments)
    del alive  # until here its memory belonged to this call
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
    sets = [None if rows is None else _rows_of(rows) for rows in given]
    index = [None if each is None else each.contiguous() for each in (anchor, positive, negative)]
    n = (anchor_rows if anchor is None else anchor).shape[0]
    numbers = numbers_of(*sets)
    _, arguments, alive = triplet_call(numbers, [n, *pointers(*index)], options, outputs)
    _run(_C.cuda_triplet, anchor_rows.device, arguments)
    del alive
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
    x, y = _rows_of(query), None if ref is None else _rows_of(ref)
    n, numbers = x.shape[0], numbers_of(x, y)
    if formula[-3] == "none":  # the backward wants to know them
        found = list(outputs[-2:])
    else:
        chosen = torch.empty(2 * n, dtype=torch.int64, device=query.device)
        found = [chosen[:n], chosen[n:]]
    rule = (relation, ignore_label, mining, formula[1], formula[2])
    rest = (margin_values, weights, None, *formula)
    tensors = (labels, ref_labels, self_index)
    _, mined, compared = mine_call(numbers, tensors, rule, pointers(*found))
    index = [n, 0, *pointers(*found)]
    _, terms, alive = triplet_call([*numbers, 0, 0, 0], index, rest, outputs)
    _run(_C.cuda_mined_triplet, query.device, (*mined, *terms))
    del compared, alive
    return outputs

# SPDX-License-Identifier: BSD-3-Clause
"""The ops on the CPU. Arguments come by position: the dispatcher takes 6 us more for keywords."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor

from flashmetric import _outputs

from .calls import (
    mine_of,
    mined_triplet_of,
    paired_gradients_of,
    paired_of,
    pairwise_gradients_of,
    pairwise_of,
    rows_of,
    run,
    triplet_of,
)

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


def mine(*arguments: Any) -> tuple[Tensor, Tensor]:
    found, call = mine_of(rows_of, *arguments)
    run(call)
    return found


def triplet(*arguments: Any) -> list[Tensor]:
    outputs, call = triplet_of(rows_of, *arguments)
    run(call)
    return outputs


def mined_triplet(*arguments: Any) -> list[Tensor]:
    outputs, *calls = mined_triplet_of(rows_of, *arguments)
    run(*calls)
    return outputs


def pairwise(*arguments: Any) -> Tensor:
    out, numbers, rows = pairwise_of(rows_of, *arguments)
    run((_C.pairwise, numbers, rows))
    return out


def pairwise_backward(
    x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
) -> list[Tensor]:
    *metric, wanted = options
    grads, calls = pairwise_gradients_of(rows_of, (x, y), cotangent, (*metric,), wanted)
    run(*((_C.pairwise_backward, *call) for call in calls))
    return grads


def paired(
    x: Tensor, r: Tensor | None, index_x: Tensor | None, index_r: Tensor | None, *metric: Any
) -> Tensor:
    out = _outputs.paired(x, r, index_x, index_r)
    results = [0, 0, out.data_ptr(), 0, 0]
    run((_C.paired, *paired_of(rows_of, (x, r), (index_x, index_r), metric, results)))
    return out


def paired_backward(
    x: Tensor,
    r: Tensor | None,
    index_x: Tensor | None,
    index_r: Tensor | None,
    cotangent: Tensor,
    *options: Any,
) -> list[Tensor]:
    *metric, wanted = options
    grads, results = paired_gradients_of((x, r), cotangent, wanted)
    if results:
        run((_C.paired, *paired_of(rows_of, (x, r), (index_x, index_r), (*metric,), results)))
    return grads

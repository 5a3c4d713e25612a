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
    numbers_of,
    pointers,
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

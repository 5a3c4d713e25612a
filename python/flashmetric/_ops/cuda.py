# SPDX-License-Identifier: BSD-3-Clause
"""The ops on a GPU. Work goes to the current stream, memory comes from torch, nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from flashmetric._compat import raw_stream

from .calls import WHY_NO_KERNELS, mine_of, mined_triplet_of, triplet_of
from .pairs import PairOps

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


def mine(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    found, (_, arguments, alive) = mine_of(_rows_of, query, *rest)
    _run(_C.cuda_mine, query.device, arguments)
    del alive  # until here its memory belonged to this call
    return found


def triplet(anchor_rows: Tensor, *rest: Any) -> list[Tensor]:
    outputs, (_, arguments, alive) = triplet_of(_rows_of, anchor_rows, *rest)
    _run(_C.cuda_triplet, anchor_rows.device, arguments)
    del alive
    return outputs


def mined_triplet(query: Tensor, *rest: Any) -> list[Tensor]:
    outputs, (_, mined, chosen), (_, terms, alive) = mined_triplet_of(_rows_of, query, *rest)
    _run(_C.cuda_mined_triplet, query.device, (*mined, *terms))
    del chosen, alive
    return outputs


def _run_pairs(
    name: str,
    device: torch.device,
    arguments: tuple[Any, ...],
    alive: Any,  # noqa: ARG001 - until here its memory belongs to this call
) -> None:
    _run(getattr(_C, f"cuda_{name}"), device, arguments)


PAIRS = PairOps(_rows_of, _run_pairs)

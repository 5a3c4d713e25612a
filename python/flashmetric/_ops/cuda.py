# SPDX-License-Identifier: BSD-3-Clause
"""The ops on a GPU. Work goes to the current stream, memory comes from torch, nobody waits but
for the length of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric import _outputs
from flashmetric._compat import raw_stream

from .calls import (
    WHY_NO_KERNELS,
    list_call,
    mine_of,
    mined_triplet_of,
    numbers_of,
    pointers,
    triplet_call,
    triplet_of,
)
from .dense import dense_of, semihard_of
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
    outputs, (_, arguments, alive) = mined_triplet_of(_rows_of, query, *rest)
    _run(_C.cuda_mined_triplet, query.device, arguments)
    del alive
    return outputs


def dense(query: Tensor, ref: Tensor | None, *options: Any, **semihard: Any) -> list[Tensor]:
    outputs, arguments, alive = dense_of(query, ref, *options, **semihard)
    _run(_C.cuda_dense, query.device, arguments)
    del alive
    return outputs


def semihard(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """listed_triplet of semi-hard triplets at the hardness of 1/2, without a list of them."""
    chosen, words = semihard_of(*options)
    return dense(query, ref, *chosen, semihard=(*words, 0))


# Memory for so many triplets an anchor is tried first: 3 are usual, and more ask for a second run.
# 24 bytes each are less than a row of 48 features in float32.
_FEW = 8


class _Listing(NamedTuple):
    """Arguments of a kernel that lists, and what they point into."""

    rows: tuple[Tensor, Tensor | None]
    arguments: tuple[Any, ...]
    hardness: Tensor | None
    alive: Any


def _listing(query: Tensor, ref: Tensor | None, options: Sequence[Any]) -> _Listing:
    """A hardness stays on the device; a seed is drawn on the CPU."""
    rows = (_rows_of(query), None if ref is None else _rows_of(ref))
    *tensors, hardness, seed = options[:6]
    chosen = (*tensors, None, None if seed is None else int(seed), *options[6:])
    arguments, alive = list_call(rows, chosen)
    return _Listing(rows, arguments, None if hardness is None else hardness.double(), alive)


def list_triplets(
    query: Tensor, ref: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Waits for the number of triplets."""
    given, n = _listing(query, ref, options), query.shape[0]
    total = query.new_zeros((), dtype=torch.int64)

    def listed(capacity: int) -> list[Tensor]:
        lists = [query.new_empty(capacity, dtype=torch.int64) for _ in range(3)]
        window = (0, capacity, *pointers(*lists, given.hardness, total))
        _run(_C.cuda_list_triplets, query.device, (*given.arguments, *window))
        return lists

    lists = listed(_FEW * n)
    count = int(total) if n else 0
    if count > _FEW * n:
        lists = listed(count)
    anchor, positive, negative = (each[:count].clone() for each in lists)
    return anchor, positive, negative


def listed_triplet(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """The triplet loss of everything a rule lists, of which no list is made."""
    hardness, mining, number = options[4], options[11], options[13]
    if mining == "semihard" and hardness is None and number == 0.5:
        return semihard(query, ref, *options)
    comparison, by_anchor, rule = options[:6], options[6:9], options[9:19]
    margin, distance, normalize, soft_margin, reduction, wanted, with_stats = options[19:]
    outputs = _outputs.batch_loss(query, ref, reduction, wanted, with_stats)
    listing = (*comparison, *rule[:3], distance, normalize, *rule[3:])
    given = _listing(query, ref, listing)
    formula = (margin, distance, normalize, soft_margin, False, rule[-1])
    request = (reduction, [*wanted, False], with_stats)
    numbers, index = [*numbers_of(*given.rows), 0, 0, 0], [query.shape[0], 0, 0, 0]
    terms = (*by_anchor, *formula, *request)
    _, arguments, alive = triplet_call(numbers, index, terms, outputs, True)
    no_list = (0, 0, 0, 0, 0, *pointers(given.hardness, None))
    _run(_C.cuda_listed_triplet, query.device, (*given.arguments, *no_list, *arguments))
    del alive
    return outputs


def _run_pairs(
    name: str,
    device: torch.device,
    arguments: tuple[Any, ...],
    alive: Any,  # noqa: ARG001 - until here its memory belongs to this call
) -> None:
    _run(getattr(_C, f"cuda_{name}"), device, arguments)


PAIRS = PairOps(_rows_of, _run_pairs)

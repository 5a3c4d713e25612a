# SPDX-License-Identifier: BSD-3-Clause
"""The ops on a GPU. Work goes to the current stream, memory comes from torch, nobody waits but
for the length of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flashmetric import _outputs
from flashmetric._compat import raw_stream

from . import triplets
from .calls import WHY_NO_KERNELS, Device, both, list_call, numbers
from .dense import NO_SEMIHARD, SemiHard, dense_of, semihard_of
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
    needed = kernel(*place, arguments, None)
    kernel(*place, arguments, torch.empty(needed, dtype=torch.uint8, device=device))


def _run_named(name: str, where: Tensor, arguments: tuple[Any, ...]) -> None:
    _run(getattr(_C, f"cuda_{name}"), where.device, arguments)


DEVICE = Device(_rows_of, _run_named)
PAIRS = PairOps(DEVICE)

mine = partial(triplets.mine, DEVICE)
triplet = partial(triplets.triplet, DEVICE)
mined_triplet = partial(triplets.mined_triplet, DEVICE)


def dense(
    query: Tensor, ref: Tensor | None, *options: Any, semihard: SemiHard = NO_SEMIHARD
) -> list[Tensor]:
    outputs, arguments = dense_of(query, ref, *options, semihard=semihard)
    _run_named("dense", query, arguments)
    return outputs


def semihard(query: Tensor, ref: Tensor | None, *options: Any) -> list[Tensor]:
    """listed_triplet of semi-hard triplets at the hardness of 1/2, without a list of them."""
    chosen, words = semihard_of(*options)
    return dense(query, ref, *chosen, semihard=(*words, None))


# Memory for so many triplets an anchor is tried first: 3 are usual, and more ask for a second run.
# 24 bytes each are less than a row of 48 features in float32.
_FEW = 8


def _listing(
    query: Tensor, ref: Tensor | None, options: Sequence[Any]
) -> tuple[tuple[Any, ...], Tensor | None]:
    """Arguments of a kernel that lists. A hardness stays on the device, and comes after them; a
    seed is drawn on the CPU."""
    *tensors, hardness, seed = options[:6]
    chosen = (*tensors, None, None if seed is None else int(seed), *options[6:])
    arguments = list_call(both(_rows_of, query, ref), *chosen)
    return arguments, None if hardness is None else hardness.double()


def list_triplets(
    query: Tensor, ref: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Waits for the number of triplets."""
    (arguments, hardness), n = _listing(query, ref, options), query.shape[0]
    total = query.new_zeros((), dtype=torch.int64)

    def listed(capacity: int) -> list[Tensor]:
        lists = [query.new_empty(capacity, dtype=torch.int64) for _ in range(3)]
        window = (0, capacity, *lists, hardness, total)
        _run_named("list_triplets", query, (*arguments, *window))
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
    arguments, of_device = _listing(query, ref, listing)
    formula = (margin, distance, normalize, soft_margin, False, rule[-1])
    request = (reduction, [*wanted, False], with_stats)
    margins, weights, cotangent = by_anchor
    terms = (numbers(margins), numbers(weights), cotangent, *formula, *request, outputs)
    no_list = (0, 0, None, None, None, of_device, None)
    _run_named("listed_triplet", query, (*arguments, *no_list, *terms))
    return outputs

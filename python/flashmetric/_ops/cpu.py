# SPDX-License-Identifier: BSD-3-Clause
"""The ops on the CPU. Arguments come by position: the dispatcher takes 6 us more for keywords."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from .calls import mine_of, mined_triplet_of, rows_of, run, triplet_of
from .pairs import PairOps

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C


def mine(*arguments: Any) -> tuple[Tensor, Tensor]:
    found, call = mine_of(rows_of, *arguments)
    run(_C.mine, call)
    return found


def triplet(*arguments: Any) -> list[Tensor]:
    outputs, call = triplet_of(rows_of, *arguments)
    run(_C.triplet, call)
    return outputs


def mined_triplet(*arguments: Any) -> list[Tensor]:
    outputs, call = mined_triplet_of(rows_of, *arguments)
    run(_C.mined_triplet, call)
    return outputs


def _run_pairs(name: str, _: torch.device, arguments: tuple[Any, ...]) -> None:
    run(getattr(_C, name), arguments)


PAIRS = PairOps(rows_of, _run_pairs)

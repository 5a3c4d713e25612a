# SPDX-License-Identifier: BSD-3-Clause
"""The ops on the CPU. Arguments come by position: the dispatcher takes 6 us more for keywords."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import triplets
from .calls import Device, rows_of
from .pairs import PairOps

with suppress(ImportError):  # calls.WHY_NO_KERNELS says so, and nothing here is called
    from flashmetric import _C

# Scratch memory of up to 16 MiB stays with its thread: the first touch of fresh pages costs more
# than what is written to them. Measured: 3 % of a call at 4096 x 128, 6 % at 4096 x 512.
_KEEP = 2**24
_NO_SCRATCH = torch.empty(0, dtype=torch.uint8)
_kept = threading.local()


def _run(name: str, _: Tensor, arguments: tuple[Any, ...]) -> None:
    """Calls the kernel with as much scratch memory as it asks for."""
    kernel = getattr(_C, name)
    threads, scratch = torch.get_num_threads(), getattr(_kept, "scratch", _NO_SCRATCH)
    needed = kernel(arguments, scratch, threads)
    if needed:
        scratch = torch.empty(needed, dtype=torch.uint8)
        if needed <= _KEEP:
            _kept.scratch = scratch
        kernel(arguments, scratch, threads)


DEVICE = Device(rows_of, _run)
PAIRS = PairOps(DEVICE)

mine = partial(triplets.mine, DEVICE)
triplet = partial(triplets.triplet, DEVICE)
mined_triplet = partial(triplets.mined_triplet, DEVICE)

# SPDX-License-Identifier: BSD-3-Clause
"""The device of the GPU tests (test_gpu_*.py), and which rows of the table have kernels on it.

FLASHMETRIC_TEST_DEVICE=cpu runs those tests without a GPU: what they assert holds there as well,
except where they are about streams, graphs and the memory of a GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from flashmetric import _ops
from op_db import DISTANCES, DTYPES, OPS, SUMMED, Op
from samples import Sample, row_name

__all__ = [
    "ABSENT",
    "DEVICE",
    "FUSED_DISTANCES",
    "GPU",
    "gpu_counters",
    "has_kernels",
    "no_waiting",
    "on_cuda",
    "rows_of_ops",
]

_NAME = os.environ.get("FLASHMETRIC_TEST_DEVICE", "cuda")
DEVICE = torch.device("cuda", 0) if _NAME == "cuda" else torch.device(_NAME)
_IS_CUDA = DEVICE.type == "cuda"
ABSENT = "no CUDA device answers" if _IS_CUDA and not torch.cuda.is_available() else ""
# What a file of GPU tests is marked with.
GPU = [pytest.mark.gpu, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]
on_cuda = pytest.mark.skipif(not _IS_CUDA, reason="is about CUDA; the device of the tests is not")


def has_kernels(op: Op) -> bool:
    """Of everything that the op reaches. Where no device answers, of all rows: they are skipped."""
    return bool(op.kernels) and all(map(_runs, op.kernels.dispatched))


def gpu_counters(op: Op, sample: Sample) -> set[str]:
    """What a forward moves on a GPU: semi-hard losses make no lists there, where the hardness is
    the usual one."""
    mining, hardness = sample.options.get("mining"), sample.options.get("hardness")
    usual = hardness is None or (isinstance(hardness, float) and hardness == 0.5)
    dense = op.name.startswith("triplet_loss[") and mining == "semihard" and usual
    return {f"cuda_{name}" for name in (("dense",) if dense else op.kernels.forward)}


@contextmanager
def no_waiting() -> Iterator[None]:
    """A call of torch in it that waits for the device is an error."""
    try:
        with warnings.catch_warnings():
            # The first call of a process warns that some waits go unnoticed.
            warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _runs(kernel: str) -> bool:
    return bool(ABSENT) or not _ops.why_not_fused(DEVICE, kernel)


FUSED_DISTANCES = (*DISTANCES, *SUMMED)


def rows_of_ops(
    *,
    fused: bool = True,
    differentiable: bool | None = None,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
) -> list[Any]:
    """Every (op, row, dtype) with kernels on the device, or without, as pytest parameters."""
    return [
        pytest.param(op, row, dtype, id=f"{op.name}-{str(dtype)[6:]}-{row_name(row)}")
        for op in OPS
        if differentiable in (None, op.differentiable)
        for row in op.rows
        if has_kernels(op) == fused
        for dtype in dtypes
    ]

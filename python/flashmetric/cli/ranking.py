# SPDX-License-Identifier: BSD-3-Clause
"""What ranks the pairs of hard mining on this machine, and how much it leaves to the keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flashmetric import functional

__all__ = ["NARROW", "candidates", "lines", "unit"]

# Instruction sets that multiply narrower numbers: which, and how fast beside float32.
NARROW = {
    "amx": ("bfloat16 pairs", "in its matrix unit"),
    "avx512_bf16": (
        "bytes where they leave few candidates, else bfloat16 pairs",
        "4 times, or twice, as fast as float32",
    ),
    "avx512_vnni": (
        "bytes where they leave few candidates, else float32",
        "4 times as fast as float32",
    ),
}

ROWS, DIM = 1024, 128


def unit(isa: dict[str, Any]) -> dict[str, str]:
    """What ranks float32 rows, and why; from the facts of `info` about the instruction set."""
    in_use, why = isa["in_use"], isa["why"]
    if in_use in NARROW:
        numbers, speed = NARROW[in_use]
        return {
            "unit": numbers,
            "why": f"{in_use} multiplies them {speed}; a bound keeps what they cannot "
            "decide, and float64 keys decide it",
        }
    if in_use is None:
        return {"unit": "none", "why": why}
    able = [name for name in NARROW if isa["compiled"].get(name)]
    reason = (
        f"{in_use} is in use ({why})"
        if able
        else "no products of bytes or bfloat16 on this machine"
    )
    return {"unit": "float32", "why": reason}


def candidates(kernels: Any) -> dict[str, float]:
    """Columns per row (positive and negative together) that neither a bound of the instruction set
    in use nor a key excludes, on random rows and on tight classes, and rows ranked again."""
    counts = {}
    for name, rows in samples().items():
        before = kernels.counters()
        functional.mine_triplets(rows, torch.arange(ROWS) // 4, impl="fused")
        after = kernels.counters()
        counts[name] = (after["candidates"] - before["candidates"]) / ROWS
        counts[f"{name}, ranked again"] = after["fallback_rows"] - before["fallback_rows"]
    return counts


def samples() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(ROWS, DIM, generator=generator)
    centres = random[torch.arange(ROWS) // 4]
    return {"random": random, "tight": centres + 0.3 * torch.randn(ROWS, DIM, generator=generator)}


def lines(kernels: Any) -> list[str]:
    """One line for each instruction set of this machine."""
    usual, told = kernels.isa(), []
    try:
        for isa in (name for name, runs in kernels.isas() if runs):
            kernels.force_isa(isa)
            counts = candidates(kernels)
            again = counts["random, ranked again"] + counts["tight, ranked again"]
            told.append(
                f"{isa}: {counts['random']:.2f} candidates per row on random rows, "
                f"{counts['tight']:.2f} on tight classes; "
                f"{again:.0f} of {2 * ROWS} rows ranked again"
            )
    finally:
        kernels.force_isa(usual)
    return told

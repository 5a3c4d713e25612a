# SPDX-License-Identifier: BSD-3-Clause
"""How fast can this machine multiply float32 matrices? The best rate found, and with what.

Not the theoretical peak: the best of torch.mm and of a 1 x 1 convolution over a few square
sizes. The convolution is a matrix product that torch hands to oneDNN, which on some CPUs uses
wider instructions than the BLAS behind torch.mm.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from flashmetric.cli import memory

__all__ = ["HOW", "fma_rate", "fma_rate_of_avx2"]

HOW = "best fp32 rate of torch.mm and of a 1x1 conv2d (oneDNN) over 512, 1024 and 2048 square"
SIZES = (512, 1024, 2048)
REPEATS = 15
# Read by MKL and by oneDNN when they start; oneDNN always obeys, MKL on some CPUs only.
AVX2_ONLY = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def fma_rate() -> dict[str, float]:
    """Best rate in flop/s: of torch.mm, of the convolution, and the better of the two."""
    rates = {"mm": 0.0, "conv": 0.0}
    with torch.no_grad():
        for size in SIZES:
            square = torch.randn(size, size)
            out = torch.empty(size, size)
            image, weight = square.view(1, size, size, 1), square.view(size, size, 1, 1)
            products = {
                "mm": partial(torch.mm, square, square, out=out),
                "conv": partial(torch.nn.functional.conv2d, image, weight),
            }
            for name, product in products.items():
                rates[name] = max(rates[name], 2.0 * size**3 / _best(product))
    return {**rates, "best": max(rates.values())}


def fma_rate_of_avx2(threads: int, timeout: float) -> dict[str, Any] | None:
    """The same in a process whose libraries are held to AVX2; None if that fails."""
    request = {"threads": threads}
    try:
        return memory.run_python("flashmetric.cli.bench.peak", request, timeout, AVX2_ONLY)
    except RuntimeError:
        return None


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Answers one request of `memory.run_python`."""
    torch.set_num_threads(json.load(sys.stdin)["threads"])
    print(json.dumps(fma_rate()))

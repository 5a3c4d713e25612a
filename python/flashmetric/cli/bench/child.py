# SPDX-License-Identifier: BSD-3-Clause
"""Runs one contender on one problem in a fresh process: its peak memory, and whether it can.

Also the canary of the benchmark: a contender that needs too much memory or time fails here, in
a process of its own, and is skipped with that reason.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from flashmetric.cli import memory
from flashmetric.cli.bench import problems
from flashmetric.cli.bench.contenders import CONTENDERS

__all__ = ["measure", "probe"]

# Leaves the rest of the machine something to live on.
SHARE_OF_MEMORY = 0.85
WARM_UP_BATCH = 64


def probe(problem: str, contender: str, threads: int, timeout: float) -> dict[str, Any]:
    """Ask a fresh process for `measure`.

    Raises:
        RuntimeError: it took too long or ran out of memory; the text says which.
    """
    request = {"problem": problem, "contender": contender, "threads": threads}
    return memory.run_python("flashmetric.cli.bench.child", request, timeout)


def measure(problem_name: str, contender_name: str) -> dict[str, Any]:
    """Peak memory of the second call, seconds of the third, and the loss."""
    problem = problems.parse(problem_name)
    build = CONTENDERS[contender_name].build
    # Loads code and starts thread pools, so that they are not counted.
    build(replace(problem, batch=min(WARM_UP_BATCH, problem.batch)))()
    memory.limit_data(int(SHARE_OF_MEMORY * memory.available_bytes()))
    step = build(problem)
    peak = memory.peak_extra_bytes(step)
    start = time.perf_counter()
    outcome = step()
    seconds = time.perf_counter() - start
    loss = None if outcome is None else float(outcome[0])
    return {"peak_extra_bytes": peak, "seconds": seconds, "loss": loss}


def main() -> None:
    """Answers one request of `memory.run_python`."""
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    print(json.dumps(measure(request["problem"], request["contender"])))

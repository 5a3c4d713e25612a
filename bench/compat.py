# SPDX-License-Identifier: BSD-3-Clause
"""Times the lines that users of pytorch-metric-learning have, with its import and with ours.

    python bench/compat.py                    prints, and writes bench/results/compat/*.json
    python bench/tables.py                    puts the newest of them into docs/migration.md

``pairs = miner(embeddings, labels); loss(embeddings, labels, pairs).backward()``, or the loss
alone, take turns in one process (see cli/bench/measure.py); peak memory is that of one call in a
fresh one. Float32, D = 128, 4 rows per class, shuffled labels.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import record
from flashmetric.cli import memory
from flashmetric.cli.bench.measure import interleave
from flashmetric.cli.table import format_bytes, format_seconds, markdown_table

RESULTS = record.RESULTS / "compat"
SIZES = (256, 1024, 4096)
DIM = 128
PEER, OURS = "pytorch_metric_learning", "flashmetric.compat.pytorch_metric_learning"
Lines = tuple[str, str | None, dict[str, Any]]  # loss, miner, options of the miner
LINES: dict[str, Lines] = {
    "TripletMarginLoss, BatchHardMiner": ("TripletMarginLoss", "BatchHardMiner", {}),
    "TripletMarginLoss, semi-hard": (
        "TripletMarginLoss",
        "TripletMarginMiner",
        {"type_of_triplets": "semihard"},
    ),
    "TripletMarginLoss, BatchEasyHardMiner": ("TripletMarginLoss", "BatchEasyHardMiner", {}),
    "TripletMarginLoss": ("TripletMarginLoss", None, {}),
    "ContrastiveLoss": ("ContrastiveLoss", None, {}),
    "ContrastiveLoss, PairMarginMiner": ("ContrastiveLoss", "PairMarginMiner", {}),
}
# Lists of all triplets: 50 million at 4096 rows.
ALL_TRIPLETS = ("TripletMarginLoss, semi-hard", "TripletMarginLoss")


def step(package: str, lines: Lines, batch: int) -> Callable[[], None]:
    losses, miners = (importlib.import_module(f"{package}.{part}") for part in ("losses", "miners"))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, DIM, generator=generator).requires_grad_()
    labels = (torch.arange(batch) // 4)[torch.randperm(batch, generator=generator)]
    loss = getattr(losses, lines[0])()
    miner = None if lines[1] is None else getattr(miners, lines[1])(**lines[2])

    def run() -> None:
        x.grad = None
        pairs = None if miner is None else miner(x, labels)
        loss(x, labels, pairs).backward()

    return run


def main() -> None:
    """In a fresh process: the peak memory of one call."""
    request = json.loads(sys.stdin.read())
    torch.set_num_threads(request["threads"])
    lines = LINES[request["lines"]]
    step(request["package"], lines, 32)()
    print(json.dumps(memory.peak_extra_bytes(step(request["package"], lines, request["batch"]))))


def _peak(package: str, lines: str, batch: int) -> int:
    request = {"package": package, "lines": lines, "batch": batch}
    request["threads"] = torch.get_num_threads()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    peak: Any = memory.run_python("compat", request, 600, {"PYTHONPATH": path})
    return int(peak)


def measure(lines: str, batch: int, seconds: float) -> dict[str, Any]:
    packages = [OURS] if batch > 1024 and lines in ALL_TRIPLETS else [OURS, PEER]
    steps = {package: step(package, LINES[lines], batch) for package in packages}
    timings = interleave(steps, seconds_each=seconds)
    return {
        package: {**asdict(timing), "peak_extra_bytes": _peak(package, lines, batch)}
        for package, timing in timings.items()
    }


def table(result: dict[str, Any]) -> str:
    """A row for each size and pair of lines."""
    rows = []
    for lines, sizes in result["lines"].items():
        for batch, sides in sizes.items():
            ours, theirs = sides[OURS], sides.get(PEER)
            cells = [format_seconds(ours["median"]), format_bytes(ours["peak_extra_bytes"])]
            if theirs is not None:
                cells[:0] = [
                    format_seconds(theirs["median"]),
                    format_bytes(theirs["peak_extra_bytes"]),
                ]
                cells.append(f"{theirs['median'] / ours['median']:.1f}x")
            else:
                cells = ["-", "-", *cells, "-"]
            rows.append((lines, batch, *cells))
    header = ("lines", "B", "their import", "memory", "our import", "memory", "faster")
    return markdown_table(header, rows)


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each step")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    args = parser.parse_args()
    result: dict[str, Any] = {
        **record.conditions(),
        "lines": {
            lines: {str(batch): measure(lines, batch, args.seconds) for batch in args.sizes}
            for lines in LINES
        },
    }
    print(table(result))
    record.save(RESULTS, result)


if __name__ == "__main__":
    run()

# SPDX-License-Identifier: BSD-3-Clause
"""Times batch-hard losses and distance matrices of distances that are no matrix product, forward
and backward, against eager code on `torch.cdist` (Jaccard: broadcast in chunks).

    python bench/distances.py                 prints, and writes bench/results/distances/*.json
    python bench/tables.py                    puts the newest of them into docs/performance.md

Ours and eager take turns in one process (see cli/bench/measure.py). Float32, 4 rows per class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import record
from flashmetric import Minkowski
from flashmetric import functional as FM
from flashmetric.cli.bench.measure import interleave
from flashmetric.cli.table import format_seconds, markdown_table

RESULTS = record.RESULTS / "distances"
STEPS = ("hard", "matrix")
CHUNK = 64  # rows of the eager Jaccard distance at a time: 64 x 2048 x 128 floats are 64 MiB


def eager_jaccard(x: Tensor, y: Tensor) -> Tensor:
    parts = []
    for part in x.split(CHUNK):
        shared = torch.minimum(part[:, None], y).sum(-1)
        parts.append(1 - shared / torch.maximum(part[:, None], y).sum(-1))
    return torch.cat(parts)


def cdist(p: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: torch.cdist(x, y, p=p)


DISTANCES: dict[str, tuple[Any, Callable[[Tensor, Tensor], Tensor]]] = {
    "manhattan": ("manhattan", cdist(1.0)),
    "chebyshev": ("chebyshev", cdist(torch.inf)),
    "Minkowski(3)": (Minkowski(3), cdist(3.0)),
    "Minkowski(2.5)": (Minkowski(2.5), cdist(2.5)),
    "jaccard": ("jaccard", eager_jaccard),
}


def eager_batch_hard(distances: Tensor, labels: Tensor) -> Tensor:
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool)
    far = distances.masked_fill(~same | itself, -torch.inf).amax(1)
    near = distances.masked_fill(same, torch.inf).amin(1)
    return (far - near + 1.0).relu().mean()


def steps(batch: int, dim: int, name: str) -> dict[str, Callable[[], object]]:
    ours, eager = DISTANCES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, dim, generator=generator).requires_grad_()
    labels = torch.arange(batch) % (batch // 4)
    weights = torch.rand(batch, batch, generator=generator)

    def run(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            x.grad = None
            loss().backward()

        return step

    return {
        "hard": run(lambda: FM.triplet_loss(x, labels, distance=ours, impl="fused")),
        "hard, eager": run(lambda: eager_batch_hard(eager(x, x), labels)),
        "matrix": run(lambda: (FM.pairwise_distances(x, distance=ours) * weights).sum()),
        "matrix, eager": run(lambda: (eager(x, x) * weights).sum()),
    }


def measure(batch: int, dim: int, name: str, seconds: float) -> dict[str, Any]:
    timings = interleave(steps(batch, dim, name), seconds_each=seconds)
    return {step: asdict(timing) for step, timing in timings.items()}


def table(result: dict[str, Any]) -> str:
    """A row per distance: batch-hard and matrix, each with how many times faster than eager."""

    def cells(timings: dict[str, Any], step: str) -> tuple[str, str, str]:
        ours, eager = timings[step]["median"], timings[f"{step}, eager"]["median"]
        return format_seconds(ours), format_seconds(eager), f"{eager / ours:.1f}x"

    rows = [
        (name, *(cell for step in STEPS for cell in cells(timings, step)))
        for name, timings in result["distances"].items()
    ]
    columns = ("ours", "eager", "faster")
    header = ("distance", *(f"{step}, {column}" for step in STEPS for column in columns))
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each step")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--distances", nargs="*", default=list(DISTANCES), choices=DISTANCES)
    args = parser.parse_args()
    names: list[str] = args.distances
    result: dict[str, Any] = {
        **record.conditions(),
        "batch": args.batch,
        "dim": args.dim,
        "distances": {name: measure(args.batch, args.dim, name, args.seconds) for name in names},
    }
    print(table(result))
    record.save(RESULTS, result)


if __name__ == "__main__":
    main()

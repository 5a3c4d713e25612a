# SPDX-License-Identifier: BSD-3-Clause
"""Times every family of losses, forward and backward, as multiples of the bare matrix product.

    python bench/families.py                  prints, and writes bench/results/families/*.json
    python bench/tables.py                    puts the newest of them into docs/performance.md

Ours, the peer of the same meaning where there is one, and `torch.matmul(x, x.T)` take turns in one
process (see cli/bench/measure.py). D = 128, float32, 4 rows per class unless said, shuffled labels.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import record
from flashmetric import functional as FM
from flashmetric.cli.bench.measure import interleave
from flashmetric.cli.bench.problems import Problem
from flashmetric.cli.table import format_ratio, format_seconds, markdown_table

RESULTS = record.RESULTS / "families"
SIZES = (1024, 4096)
Loss = Callable[[Tensor, Tensor], Tensor]


def peer_of(name: str, **options: Any) -> Loss:
    """A batch loss of sentence-transformers, without its model."""
    losses: Any = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    identity = torch.nn.Identity()
    loss = getattr(losses, name)(model=identity, **options)
    inner = {
        "BatchSemiHardTripletLoss": "batch_semi_hard_triplet_loss",
        "BatchAllTripletLoss": "batch_all_triplet_loss",
    }[name]
    return lambda x, labels: getattr(loss, inner)(labels, x)


def quantile_margin(x: Tensor, share: float) -> float:
    """The distance below which this share of the pairs of normalised rows lies."""
    rows = torch.nn.functional.normalize(x.detach()[:1024])
    return torch.nn.functional.pdist(rows).quantile(share).item()


def soft_of_plain_torch(x: Tensor, labels: Tensor) -> Tensor:
    """The same loss in eight lines, of the distances of torch.cdist."""
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool)
    dist = torch.cdist(x, x)
    near = dist.masked_fill(~same | itself, -torch.inf).softmax(1)
    far = (-dist).masked_fill(same, -torch.inf).softmax(1)
    violation = (near * dist).sum(1) - (far * dist).sum(1) + 1
    return violation.relu().mean()


def losses(problem: Problem) -> dict[str, tuple[Loss, dict[str, Loss]]]:
    """name -> ours, and those of others."""
    margin = quantile_margin(problem.embeddings(), 0.02)
    semihard, batch_all = (
        peer_of("BatchSemiHardTripletLoss", margin=1.0),
        peer_of("BatchAllTripletLoss", margin=1.0),
    )

    def triplet(mining: Any, **options: Any) -> Loss:
        return lambda x, labels: FM.triplet_loss(
            x, labels, mining=mining, margin=1.0, impl="fused", **options
        )

    sentence = "sentence-transformers"
    found: dict[str, tuple[Loss, dict[str, Loss]]] = {
        "triplet, hard": (triplet("hard"), {}),
        "triplet, semihard": (triplet("semihard"), {sentence: semihard}),
        "triplet, all": (triplet("all"), {sentence: batch_all} if problem.batch <= 1024 else {}),
        "triplet, soft": (triplet("soft"), {"plain torch": soft_of_plain_torch}),
        "contrastive, all active": (
            lambda x, labels: FM.contrastive_loss(x, labels, margin=100.0, impl="fused"),
            {},
        ),
        "contrastive, 2 % active": (
            lambda x, labels: FM.contrastive_loss(
                x, labels, margin=margin, normalize=True, impl="fused"
            ),
            {},
        ),
        "quadruplet, hard": (lambda x, labels: FM.quadruplet_loss(x, labels, impl="fused"), {}),
        "all distances": (
            lambda x, _: FM.pairwise_distances(x, impl="fused").sum(),
            {"torch.cdist": lambda x, _: torch.cdist(x, x).sum()},
        ),
    }
    if problem.layout == "two":
        found = {name: found[name] for name in ("triplet, semihard", "triplet, all")}
    return found


def _step(loss: Loss, problem: Problem) -> Callable[[], None]:
    x, labels = problem.embeddings().requires_grad_(), problem.labels()

    def step() -> None:
        x.grad = None
        loss(x, labels).backward()

    return step


def measure(problem: Problem, seconds: float) -> dict[str, Any]:
    """Timings of every loss of one problem, in turns with the bare product."""
    rows = problem.embeddings()
    steps: dict[str, Callable[[], object]] = {"matmul": lambda: torch.matmul(rows, rows.T)}
    for name, (ours, others) in losses(problem).items():
        steps[name] = _step(ours, problem)
        for of, theirs in others.items():
            steps[f"{name} ({of})"] = _step(theirs, problem)
    timings = interleave(steps, seconds_each=seconds)
    unit = timings["matmul"].median
    return {
        name: {**asdict(timing), "ratio": timing.median / unit} for name, timing in timings.items()
    }


def table(result: dict[str, Any]) -> str:
    """A row per loss, a column per problem: the ratio, and the time."""
    problems = result["problems"]
    names = list(dict.fromkeys(name for timings in problems.values() for name in timings))

    def cell(timings: dict[str, Any], name: str) -> str:
        if name not in timings:
            return ""
        timing = timings[name]
        return f"{format_ratio(timing['ratio'])} ({format_seconds(timing['median'])})"

    rows = [(name, *(cell(timings, name) for timings in problems.values())) for name in names]
    return markdown_table(("loss", *problems), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each loss and problem")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    args = parser.parse_args()
    problems = [Problem(size, 128, layout) for layout in ("k4", "two") for size in args.sizes]
    result: dict[str, Any] = {
        **record.conditions(),
        "problems": {problem.name: measure(problem, args.seconds) for problem in problems},
    }
    print(table(result))
    record.save(RESULTS, result)


if __name__ == "__main__":
    main()

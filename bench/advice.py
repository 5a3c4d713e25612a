# SPDX-License-Identifier: BSD-3-Clause
"""Trains the same small network with many losses and says how well unseen classes separate.

    python bench/advice.py        3 minutes; writes bench/results/advice/digits.json
    python bench/tables.py        puts its tables into docs/choosing.md

Data: the handwritten digits of scikit-learn. Seven classes are trained on, MAP@R is that of the
other three. Every setting is trained with each margin of its unit and each seed; a table shows the
margin with the best mean over the seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import flashmetric
from flashmetric._progress import Progress
from flashmetric.cli.demo import data
from flashmetric.cli.demo.evaluate import map_at_r
from flashmetric.cli.table import markdown_table

RESULT = Path(__file__).resolve().parent / "results" / "advice" / "digits.json"
RULES = ("hard", "semihard", "all")
METRICS = (
    ("euclidean", False),
    ("euclidean", True),
    ("sqeuclidean", False),
    ("sqeuclidean", True),
    ("cosine", False),
)
# Distances of normalised rows end at 2 (squared: 4; cosine: 2), those of others nowhere.
MARGINS = (0.05, 0.1, 0.2, 0.5, 1.0)
SEEDS = (0, 1, 2)
STEPS, CLASSES_TRAINED, PER_CLASS, DIM = 250, 7, 24, 16


def split(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels of the classes to train on, and of the others."""
    digits = data.load(seed)
    images = torch.cat((digits.train_images, digits.test_images))
    labels = torch.cat((digits.train_labels, digits.test_labels))
    classes = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:CLASSES_TRAINED]
    known = torch.isin(labels, classes)
    return images[known], labels[known], images[~known], labels[~known]


def train(rule: Any, metric: tuple[Any, bool], margin: float, seed: int) -> tuple[float, float]:
    """MAP@R of the unseen classes, and the fraction of triplets that are active at the end."""
    images, labels, test_images, test_labels = split(seed)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, DIM))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    distance, normalize = metric
    criterion = flashmetric.TripletLoss(
        margin, mining=rule, distance=distance, normalize=normalize, return_stats=True
    )
    sampler = flashmetric.PKSampler(labels, CLASSES_TRAINED, PER_CLASS, seed=seed)
    batches = itertools.chain.from_iterable(itertools.repeat(sampler))
    active = 0.0
    for batch in itertools.islice(batches, STEPS):
        optimizer.zero_grad()
        loss, stats = criterion(network(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        active = float(stats.active_fraction)
    with torch.no_grad():
        rows = network(test_images)
        rows = nn.functional.normalize(rows) if normalize or distance == "cosine" else rows
        return map_at_r(rows, test_labels), active


def measure() -> list[dict[str, Any]]:
    settings = list(itertools.product(RULES, METRICS, MARGINS))
    found = []
    with Progress("advice", len(settings) * len(SEEDS)) as bar:
        for rule, metric, margin in settings:
            runs = []
            for seed in SEEDS:
                runs.append(train(rule, metric, margin, seed))
                bar.step(f"{rule} {metric[0]} {margin}")
            scores, active = zip(*runs, strict=True)
            found.append(
                {
                    "mining": rule,
                    "distance": metric[0],
                    "normalize": metric[1],
                    "margin": margin,
                    "map_at_r": statistics.mean(scores),
                    "spread": max(scores) - min(scores),
                    "active": statistics.mean(active),
                }
            )
    return found


def table(result: dict[str, Any]) -> str:
    """A row per distance, a column per rule: MAP@R at the best margin, and that margin."""
    rows = []
    for distance, normalize in METRICS:
        cells = []
        for rule in RULES:
            wanted = {"mining": rule, "distance": distance, "normalize": normalize}
            runs = [run for run in result["runs"] if wanted.items() <= run.items()]
            best = max(runs, key=lambda run: run["map_at_r"])
            cells.append(f"{best['map_at_r']:.3f} at {best['margin']:g}")
        rows.append((f"{distance}{', normalised' if normalize else ''}", *cells))
    return markdown_table(("distance", *RULES), rows)


def sweep(result: dict[str, Any]) -> str:
    """Normalised Euclidean, semi-hard: what a margin does."""
    wanted = {"mining": "semihard", "distance": "euclidean", "normalize": True}
    runs = [run for run in result["runs"] if wanted.items() <= run.items()]
    rows = [(f"{r['margin']:g}", f"{r['map_at_r']:.3f}", f"{r['active']:.2f}") for r in runs]
    return markdown_table(("margin", "MAP@R", "active at the end"), rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "steps": STEPS,
        "seeds": len(SEEDS),
        "runs": measure(),
    }
    print(table(result), sweep(result), sep="\n\n")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

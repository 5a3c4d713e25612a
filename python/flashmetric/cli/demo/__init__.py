# SPDX-License-Identifier: BSD-3-Clause
"""`python -m flashmetric demo`: a small network on real data, trained twice, in one picture.

data.py      handwritten digits out of scikit-learn, split in half
train.py     the network and the training loop     evaluate.py  MAP@R and distances
child.py     peak memory, in a fresh process       picture.py   demo.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flashmetric._names import Impl
from flashmetric._progress import Progress
from flashmetric.cli import machine, style
from flashmetric.cli.bench import measure
from flashmetric.cli.demo import child, data, evaluate, picture, train
from flashmetric.cli.table import format_bytes, format_seconds

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Trains a network of 64-128-32 units with the batch-hard triplet loss on the handwritten digits
that come with scikit-learn, and does so twice: with the fused kernels and with the plain-torch
reference, from the same seed. Half of each class is trained on, the other half measured.

Writes demo.png (loss curves, the embedding before and after, distances and the margin) and
demo.json (every number) to a folder, and ends with one line of results. Needs no network.

  python -m flashmetric demo
  python -m flashmetric demo --out /tmp/demo --steps 100 --seed 1
"""

IMPLS: tuple[Impl, ...] = ("fused", "reference")
MISSING = "the demo needs scikit-learn and matplotlib: pip install scikit-learn matplotlib tqdm"
# Of the loss alone, for each implementation; the medians of ten samples are steady by then.
SECONDS_EACH = 1.0
CHILD_TIMEOUT = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=positive, default=300, help="training steps (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print demo.json instead of the line")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"must be at least 1; got {number}"
        raise argparse.ArgumentTypeError(msg)
    return number


def run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    kernels, why_not = machine.extension()
    if kernels is None:
        print(f"the demo compares with compiled kernels, and has none: {why_not}", file=sys.stderr)
        return 1
    try:
        plt = style.pyplot()
        digits = data.load(args.seed)
    except ImportError as error:
        print(f"{error}\n{MISSING}", file=sys.stderr)
        return 1
    announce(args)
    with Progress("demo", total=len(IMPLS) * (args.steps + 1) + 1) as bar:
        runs: dict[str, train.TrainingRun] = {
            impl: train.train(digits, impl=impl, steps=args.steps, seed=args.seed, bar=bar)
            for impl in IMPLS
        }
        bar.note("timing the loss alone")
        loss_seconds = time_loss(digits, runs["fused"])
        bar.step()
        memory: dict[str, int] = {}
        for impl in IMPLS:
            bar.note(f"peak memory, {impl}")
            memory[impl] = child.peak_extra_bytes(impl, CHILD_TIMEOUT)
            bar.step()
    views = [evaluate.view(net, digits) for net in (runs["fused"].before, runs["fused"].after)]
    result = summary(args, digits, runs, views, loss_seconds, memory)
    args.out.mkdir(parents=True, exist_ok=True)
    picture.save(plt, result, views, args.out / "demo.png")
    result["seconds"] = time.perf_counter() - start
    (args.out / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if args.json else closing_line(result, args.out))
    return 0


def announce(args: argparse.Namespace) -> None:
    isa = machine.isa_facts()
    device = "no GPU: " if not torch.cuda.is_available() else ""
    print(
        f"{device}CPU kernels ({isa['in_use'] or 'none'}), {torch.get_num_threads()} threads; "
        f"twice {args.steps} steps of batch-hard triplet loss on {train.BATCH} digits each",
        file=sys.stderr,
    )


def time_loss(digits: data.Digits, fused: train.TrainingRun) -> dict[str, float]:
    """Seconds of the loss, forward and backward, on a batch whose triplets are mostly active."""
    with torch.no_grad():
        embeddings = fused.before(digits.train_images[: train.BATCH])
    labels = digits.train_labels[: train.BATCH]
    steps: dict[str, Callable[[], object]] = {
        impl: train.loss_step(embeddings, labels, impl) for impl in IMPLS
    }
    timings = measure.interleave(steps, seconds_each=SECONDS_EACH)
    return {impl: timings[impl].median for impl in IMPLS}


def summary(
    args: argparse.Namespace,
    digits: data.Digits,
    runs: dict[str, train.TrainingRun],
    views: list[evaluate.View],
    loss_seconds: dict[str, float],
    memory: dict[str, int],
) -> dict[str, Any]:
    """Every number of the demo, as plain JSON values."""
    curves = {impl: runs[impl].losses for impl in IMPLS}
    same_rows = runs["reference"].fused_losses
    before, after = views
    return {
        "seed": args.seed,
        "steps": args.steps,
        "batch": train.BATCH,
        "margin": train.MARGIN,
        "machine": machine.machine_facts(),
        "isa": machine.isa_facts()["in_use"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "map_at_r": {
            "pixels": evaluate.map_at_r(digits.test_images, digits.test_labels),
            "before": before.map_at_r,
            "after": after.map_at_r,
        },
        "step_seconds": {impl: runs[impl].step_seconds for impl in IMPLS},
        "loss_seconds": loss_seconds,
        "peak_extra_bytes": memory,
        "peak_extra_bytes_method": child.METHOD,
        "max_difference": max(train.gaps(curves["fused"], curves["reference"])),
        "max_difference_same_rows": max(train.gaps(same_rows, curves["reference"])),
        "losses": {**curves, "fused_on_rows_of_reference": same_rows},
        "distances": {
            name: {"dist_ap": view.dist_ap.tolist(), "dist_an": view.dist_an.tolist()}
            for name, view in (("before", before), ("after", after))
        },
    }


def closing_line(result: dict[str, Any], folder: Path) -> str:
    score, step = result["map_at_r"], result["step_seconds"]
    loss, memory = result["loss_seconds"], result["peak_extra_bytes"]
    reached = len(result["losses"]["reference"])
    early = f" (stopped at step {reached}: busy machine)" if reached < result["steps"] else ""
    return (
        f"MAP@R {score['before']:.3f} -> {score['after']:.3f} (raw pixels {score['pixels']:.3f}) "
        f"in {result['steps']} steps; per step {format_seconds(step['fused'])} fused, "
        f"{format_seconds(step['reference'])} reference{early}; loss alone "
        f"{format_seconds(loss['fused'])} and {format_seconds(loss['reference'])}, "
        f"{format_bytes(memory['fused'])} and {format_bytes(memory['reference'])}; "
        f"losses of equal rows differ by at most {result['max_difference_same_rows']:.1e}, of the "
        f"two trainings by {result['max_difference']:.1e}; "
        f"{folder / 'demo.png'} and demo.json in {result['seconds']:.0f} s"
    )

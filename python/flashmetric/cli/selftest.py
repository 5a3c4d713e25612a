# SPDX-License-Identifier: BSD-3-Clause
"""`python -m flashmetric selftest`: are the numbers right on this machine?"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from flashmetric import Triplets, functional, reference
from flashmetric._names import DistanceName, Impl
from flashmetric._progress import Progress
from flashmetric.cli import machine, ranking
from flashmetric.cli.table import text_table

__all__ = ["DESCRIPTION", "Outcome", "add_arguments", "check", "run"]

DESCRIPTION = """\
Runs every compiled instruction set that this CPU has, on every dtype and distance, and compares
loss, distances and gradients with the reference in float64.

The rule: the error may be at most twice that of plain torch in the same dtype, plus 2 units in
the last place (in float64, which has no wider dtype to compare with: D + 8 roundings). The table
shows the worst error as a fraction of what the rule allows, so 1.00 is the limit. Every choice
of positive and negative must be that of the float64 keys (or so near a tie that the rounding of
the kernel's dtype decides), and one thread must give the same bits as all of them.

The exit status is 1 if anything fails: please report it with `python -m flashmetric info`.
"""

DISTANCES: tuple[DistanceName, ...] = ("euclidean", "sqeuclidean", "cosine", "dot")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Below, at and above a vector register and a block of rows, with a tail in both directions.
SIZES = ((9, 3), (97, 33), (260, 64))

Call = Callable[[Tensor, DistanceName, Impl], Tensor]


@dataclass(frozen=True)
class Outcome:
    """One row: the worst of all cases and sizes of one ISA, dtype and distance."""

    isa: str
    dtype: str
    distance: str
    error: float  # worst error / allowed error
    worst: str  # the case it comes from
    choices: int
    near_ties: int
    wrong_choices: int
    same_bits: bool

    @property
    def passed(self) -> bool:
        return self.error <= 1.0 and self.wrong_choices == 0 and self.same_bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    kernels, why_not = machine.extension()
    if kernels is None:
        print(f"no compiled kernels to test: {why_not}", file=sys.stderr)
        return 1
    start = time.perf_counter()
    outcomes = list(run_all(kernels))
    seconds = time.perf_counter() - start
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if args.json:
        rows = [{**asdict(outcome), "passed": outcome.passed} for outcome in outcomes]
        print(json.dumps({"passed": not failed, "seconds": seconds, "outcomes": rows}, indent=1))
    else:
        print(describe(outcomes, kernels), *ranking.lines(kernels), sep="\n")
        verdict = f"FAILED: {len(failed)} of {len(outcomes)}" if failed else "passed"
        print(f"\nselftest {verdict}, {len(outcomes)} combinations in {seconds:.1f} s")
    return 1 if failed else 0


def run_all(kernels: Any) -> Iterator[Outcome]:
    names = [name for name, runs in kernels.isas() if runs]
    with Progress("selftest", len(names) * len(DTYPES) * len(DISTANCES)) as bar:
        for isa in names:
            with forced(kernels, isa):
                for dtype in DTYPES:
                    for distance in DISTANCES:
                        yield check(isa, dtype, distance)
                        bar.step(f"{isa} {dtype} {distance}")


def check(isa: str, dtype: torch.dtype, distance: DistanceName) -> Outcome:
    """Every case at every size, on the instruction set in use."""
    errors: list[tuple[float, str]] = []
    choices = near_ties = wrong = 0
    same_bits = True
    for batch, dim in SIZES:
        rows = sample(batch, dim, dtype)
        for name in CASES:
            errors.append((error_of(name, rows, distance), f"{name} {batch}x{dim}"))
        same_bits = same_bits and thread_count_is_irrelevant(rows, distance)
        found = compare_choices(rows, distance)
        choices, near_ties, wrong = choices + found[0], near_ties + found[1], wrong + found[2]
    worst = max(errors)
    return Outcome(
        isa,
        str(dtype).removeprefix("torch."),
        distance,
        *worst,
        choices,
        near_ties,
        wrong,
        same_bits,
    )


@cache
def sample(batch: int, dim: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(batch + dim)
    return torch.randn(batch, dim, generator=generator, dtype=torch.float64).to(dtype)


def labels_of(rows: Tensor) -> Tensor:
    """Three rows to a class, in an order that is not sorted."""
    return torch.arange(len(rows)) * 7 % max(1, len(rows) // 3)


def _hinge(rows: Tensor, distance: DistanceName, impl: Impl) -> Tensor:
    return functional.triplet_loss(rows, labels_of(rows), distance=distance, impl=impl)


def _soft(rows: Tensor, distance: DistanceName, impl: Impl) -> Tensor:
    return functional.triplet_loss(
        rows, labels_of(rows), distance=distance, soft_margin=True, normalize=True, impl=impl
    )


def _references(rows: Tensor, distance: DistanceName, impl: Impl) -> Tensor:
    half = len(rows) // 2
    labels = labels_of(rows)
    return functional.triplet_loss(
        rows[:half],
        labels[:half],
        ref_embeddings=rows[half:],
        ref_labels=labels[half:],
        weights=torch.linspace(0.5, 1.5, half),
        distance=distance,
        reduction="sum",
        impl=impl,
    )


def _given(rows: Tensor, distance: DistanceName, impl: Impl) -> Tensor:
    anchor, positive, negative = rows, rows.roll(1, 0), rows.roll(2, 0)
    return functional.triplet_margin_loss(
        anchor, positive, negative, distance=distance, swap=True, impl=impl
    )


def _pairwise(rows: Tensor, distance: DistanceName, impl: Impl) -> Tensor:
    return functional.pairwise_distances(rows[: len(rows) // 2], rows, distance=distance, impl=impl)


CASES: dict[str, Call] = {
    "hinge": _hinge,
    "soft margin, normalised": _soft,
    "references, weights, sum": _references,
    "given triplets, swap": _given,
    "pairwise distances": _pairwise,
}


def error_of(name: str, rows: Tensor, distance: DistanceName) -> float:
    """Worst error of value and gradient, as a fraction of what the rule allows."""
    ours = value_and_gradient(CASES[name], rows, distance, "fused")
    return max(map(fraction, ours, *expected(name, rows, distance)))


@cache
def expected(
    name: str, rows: Tensor, distance: DistanceName
) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
    """(truth, allowed error) of value and gradient; the same for every instruction set."""
    truth = value_and_gradient(CASES[name], rows.double(), distance, "reference")
    plain = value_and_gradient(CASES[name], rows, distance, "reference")
    if rows.dtype == torch.float64:
        roundings = (rows.shape[1] + 8) * torch.finfo(torch.float64).eps
        return truth, tuple(roundings * float(part.abs().max()) for part in truth)
    allowed = (
        2.0 * float((got.double() - right).abs().max()) + 2.0 * ulp(right, got.dtype)
        for got, right in zip(plain, truth, strict=True)
    )
    return truth, tuple(allowed)


def ulp(values: Tensor, dtype: torch.dtype) -> float:
    """DistanceName between neighbouring numbers of `dtype` at the largest of these."""
    info = torch.finfo(dtype)
    largest = max(float(values.abs().max()), info.smallest_normal)
    return info.eps * 2.0 ** math.floor(math.log2(largest))


def fraction(ours: Tensor, truth: Tensor, allowed: float) -> float:
    error = float((ours.double() - truth).abs().max())
    return error / allowed if math.isfinite(error) else math.inf


def value_and_gradient(
    call: Call, rows: Tensor, distance: DistanceName, impl: Impl
) -> tuple[Tensor, Tensor]:
    rows = rows.detach().clone().requires_grad_()
    value = call(rows, distance, impl)
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(value, rows, cotangent.to(value.dtype))
    return value.detach(), gradient


def thread_count_is_irrelevant(rows: Tensor, distance: DistanceName) -> bool:
    threads = torch.get_num_threads()
    many = value_and_gradient(_hinge, rows, distance, "fused")
    torch.set_num_threads(1)
    try:
        one = value_and_gradient(_hinge, rows, distance, "fused")
    finally:
        torch.set_num_threads(threads)
    return all(map(torch.equal, one, many))


def compare_choices(rows: Tensor, distance: DistanceName) -> tuple[int, int, int]:
    """(choices, those that differ at a near-tie, those that are wrong)."""
    truth, keys, slack = expected_choices(rows, distance)
    ours = functional.mine_triplets(rows, labels_of(rows), distance=distance, impl="fused")
    total = 2 * len(truth.anchor)
    if not torch.equal(ours.anchor, truth.anchor):
        return total, 0, total
    near = wrong = 0
    for chosen, right in ((ours.positive, truth.positive), (ours.negative, truth.negative)):
        gap = (keys[ours.anchor, chosen] - keys[ours.anchor, right]).abs()
        near += int(((chosen != right) & (gap <= slack)).sum())
        wrong += int(((chosen != right) & ~(gap <= slack)).sum())
    return total, near, wrong


@cache
def expected_choices(rows: Tensor, distance: DistanceName) -> tuple[Triplets, Tensor, float]:
    """The choices of the float64 keys, the keys, and how near two of them are a near-tie."""
    truth = functional.mine_triplets(rows, labels_of(rows), distance=distance, impl="reference")
    computed = torch.float64 if rows.dtype == torch.float64 else torch.float32
    norm_sq = 1.0 if distance == "cosine" else float(rows.double().square().sum(1).max())
    # Each of two keys is off by at most (D + 8) u (|x| + |r|)^2, and u is half of eps.
    slack = (rows.shape[1] + 8) * torch.finfo(computed).eps * 4.0 * norm_sq
    return truth, reference.rank_key(rows, distance=distance), slack


@contextmanager
def forced(kernels: Any, isa: str) -> Iterator[None]:
    usual = kernels.isa()
    kernels.force_isa(isa)
    try:
        yield
    finally:
        kernels.force_isa(usual)


def describe(outcomes: list[Outcome], kernels: Any) -> str:
    rows = [
        [
            outcome.isa,
            outcome.dtype,
            outcome.distance,
            f"{outcome.error:.2f}",
            outcome.worst,
            f"{outcome.choices - outcome.wrong_choices} of {outcome.choices}",
            outcome.near_ties,
            "yes" if outcome.same_bits else "NO",
            "pass" if outcome.passed else "FAIL",
        ]
        for outcome in outcomes
    ]
    missing = [
        f"{name}: compiled, but not on this CPU" for name, runs in kernels.isas() if not runs
    ]
    header = ["isa", "dtype", "distance", "error", "worst case", "choices", "ties", "bits", ""]
    return "\n".join([text_table(header, rows, left=3), *missing])

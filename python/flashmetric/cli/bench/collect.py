# SPDX-License-Identifier: BSD-3-Clause
"""Runs the benchmark and returns everything it saw as plain JSON values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import torch

import flashmetric
from flashmetric._progress import Progress
from flashmetric.cli import machine
from flashmetric.cli.bench import agreement, child, measure, peak
from flashmetric.cli.bench.contenders import CONTENDERS, FLOOR, UNIT, Step
from flashmetric.cli.bench.problems import OVERHEAD, Problem

__all__ = ["MEMORY_PROBLEM", "Settings", "collect", "memory_limit_bytes"]

SCHEMA = 1
# A batch whose distance matrix would take 16 GiB.
MEMORY_PROBLEM = Problem(65536, 128)


@dataclass(frozen=True)
class Settings:
    """What to run; seconds are per contender and problem."""

    problems: Sequence[Problem]
    contenders: Sequence[str]
    threads: int
    seconds_each: float
    give_up_after: float
    extras: bool


def memory_limit_bytes(problem: Problem) -> int:
    """The promise: 8 copies of the float32 batch and 64 MiB."""
    return 8 * problem.batch * problem.dim * 4 + 64 * 2**20


def collect(settings: Settings) -> dict[str, Any]:
    """Check, time and weigh every contender on every problem."""
    torch.set_num_threads(settings.threads)
    result = conditions(settings)
    jobs = len(settings.problems) * len(settings.contenders) * 2 + 3 * settings.extras
    with Progress("bench", jobs) as bar:
        if settings.extras:
            bar.note("matrix product peak")
            result["peak"] = measure_peak(settings)
            bar.step()
        result["problems"] = [run_problem(problem, settings, bar) for problem in settings.problems]
        if settings.extras:
            bar.note("call overhead")
            result["overhead"] = measure_overhead(settings)
            bar.step()
            bar.note(f"memory at {MEMORY_PROBLEM.name}")
            result["memory"] = measure_memory(settings)
            bar.step()
    return result


def conditions(settings: Settings) -> dict[str, Any]:
    """Everything that a reader needs to repeat or to doubt the numbers."""
    compiled_module, _ = machine.extension()
    peers = ("torch", "pytorch-metric-learning", "sentence-transformers")
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.git_commit(),
        "machine": machine.machine_facts(),
        "isa": machine.isa_facts(),
        "threads": settings.threads,
        "versions": {
            "flashmetric": flashmetric.__version__,
            **{name: machine.package_version(name) for name in peers},
        },
        "flags": {
            "seconds_each": settings.seconds_each,
            "give_up_after": settings.give_up_after,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "build": compiled_module.build_info() if compiled_module is not None else {},
        },
    }


def run_problem(problem: Problem, settings: Settings, bar: Progress) -> dict[str, Any]:
    """All contenders on one problem: {"contenders": {name: results or {"skipped": why}}}."""
    rows: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    truths: dict[str, agreement.Truth] = {}
    for name in settings.contenders:
        bar.note(f"{problem.name}: checking {name}")
        rows[name] = admit(name, problem, settings, truths)
        step = rows[name].pop("step", None)
        if step is not None:
            steps[name] = step
        bar.step()

    done = 0

    def on_round(turn: int, rounds: int) -> None:
        nonlocal done
        now = len(settings.contenders) * turn // rounds
        bar.step(f"{problem.name}: round {turn} of {rounds}", count=now - done)
        done = now

    timings = measure.interleave(steps, seconds_each=settings.seconds_each, on_round=on_round)
    for name, timing in timings.items():
        rows[name]["seconds"] = {**asdict(timing), "spread": timing.spread}
        if UNIT in timings:
            rows[name]["ratio"] = timing.median / timings[UNIT].median
    return {"name": problem.name, **asdict(problem), "contenders": rows}


def admit(
    name: str,
    problem: Problem,
    settings: Settings,
    truths: dict[str, agreement.Truth],
) -> dict[str, Any]:
    """Memory and agreement of a contender, and its "step" if it may be timed."""
    contender = CONTENDERS[name]
    if why := contender.unavailable():
        return skip(name, problem, why)
    try:
        probed = child.probe(problem.name, name, settings.threads, settings.give_up_after)
    except RuntimeError as error:
        return skip(name, problem, str(error))
    row: dict[str, Any] = {"peak_extra_bytes": probed["peak_extra_bytes"]}
    step = contender.build(problem)
    outcome = step()
    if outcome is not None and contender.invalid is not None:
        if contender.invalid not in truths:
            truths[contender.invalid] = agreement.truth_of(problem, contender.invalid)
        found = agreement.compare(*outcome, truths[contender.invalid])
        row["agreement"] = {**asdict(found), "holds": found.holds}
        if not found.holds:
            return {**row, **skip(name, problem, f"DISAGREES with the float64 truth: {found}")}
    return {**row, "step": step}


def skip(name: str, problem: Problem, why: str) -> dict[str, Any]:
    print(f"{problem.name}: {name} skipped: {why}", file=sys.stderr)
    return {"skipped": why}


def measure_peak(settings: Settings) -> dict[str, Any]:
    return {
        "how": peak.HOW,
        "flops_per_second": peak.fma_rate(),
        "avx2_flops_per_second": peak.fma_rate_of_avx2(settings.threads, settings.give_up_after),
    }


def measure_overhead(settings: Settings) -> dict[str, Any]:
    """Forward and backward on a batch of 8 rows: what a call costs before any work.

    In turns with others it meets caches that hold what they left; alone, what it left itself.
    """
    steps = {
        name: CONTENDERS[name].build(OVERHEAD)
        for name in settings.contenders
        if CONTENDERS[name].invalid is not None and not CONTENDERS[name].unavailable()
    }
    steps[FLOOR.name] = FLOOR.build(OVERHEAD)
    seconds = min(1.0, settings.seconds_each)
    timings = measure.interleave(steps, seconds_each=seconds)
    alone = {
        name: measure.interleave({name: step}, seconds_each=seconds)[name]
        for name, step in steps.items()
    }
    return {
        "name": OVERHEAD.name,
        "contenders": {
            name: {
                "seconds": {**asdict(timing), "spread": timing.spread},
                "alone": {**asdict(alone[name]), "spread": alone[name].spread},
            }
            for name, timing in timings.items()
        },
    }


def measure_memory(settings: Settings) -> dict[str, Any]:
    """The library alone on a batch whose matrix would not fit: a fresh process of its own."""
    found: dict[str, Any] = {
        "name": MEMORY_PROBLEM.name,
        "limit_bytes": memory_limit_bytes(MEMORY_PROBLEM),
        "matrix_bytes": 4 * MEMORY_PROBLEM.batch**2,
    }
    try:
        probed = child.probe(
            MEMORY_PROBLEM.name, "flashmetric", settings.threads, 10 * settings.give_up_after
        )
    except RuntimeError as error:
        return {**found, **skip("flashmetric", MEMORY_PROBLEM, str(error))}
    return {**found, **probed}

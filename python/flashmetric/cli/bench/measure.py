# SPDX-License-Identifier: BSD-3-Clause
"""Times steps beside each other in one process.

A machine drifts: its clock, its neighbours, its memory. So the contenders take turns, in a new
order each round, and each is given by the median of its own samples. A sample is the mean of so
many calls that it lasts at least MIN_SAMPLE_SECONDS; a slow contender gets fewer samples, spread
evenly over the rounds.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = [
    "MAX_SAMPLES",
    "MIN_SAMPLES",
    "Clock",
    "Step",
    "Timing",
    "host_clock",
    "interleave",
    "seconds_of_one_call",
]

Step = Callable[[], object]
Clock = Callable[[Step, int], float]  # seconds of one call, of so many in a row

# Long against the clock (50 ns) and against one migration of a thread (tens of us).
MIN_SAMPLE_SECONDS = 1e-3
MIN_SAMPLES = 5
PILOT_CALLS = 7
PILOT_SECONDS = 0.5
MAX_SAMPLES = 101


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over `samples` samples of `calls` calls each."""

    median: float
    p10: float
    p90: float
    best: float
    samples: int
    calls: int

    @property
    def spread(self) -> float:
        """Width of the middle 80 % of the samples, relative to the median."""
        return (self.p90 - self.p10) / self.median


@dataclass(frozen=True)
class _Plan:
    calls: int
    samples: int


def host_clock(step: Step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def seconds_of_one_call(step: Step, clock: Clock = host_clock) -> float:
    """Seconds of a warm call: the median of a few, after two that do not count."""
    for _ in range(2):
        step()
    seconds = [clock(step, 1)]
    while len(seconds) < PILOT_CALLS and sum(seconds) < PILOT_SECONDS:
        seconds.append(clock(step, 1))
    return statistics.median(seconds)


def interleave(
    steps: Mapping[str, Step],
    *,
    seconds_each: float,
    on_round: Callable[[int, int], None] = lambda _done, _total: None,
    clock: Clock = host_clock,
) -> dict[str, Timing]:
    """Time every step for about `seconds_each` seconds, in turns."""
    plans = {
        name: _plan(seconds_of_one_call(step, clock), seconds_each) for name, step in steps.items()
    }
    rounds = max((plan.samples for plan in plans.values()), default=0)
    samples: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            shuffle(order)
            for name in order:
                if _is_due(turn, plans[name].samples, rounds):
                    samples[name].append(clock(steps[name], plans[name].calls))
            on_round(turn + 1, rounds)
    finally:
        gc.enable()
    return {name: _summary(samples[name], plans[name].calls) for name in steps}


def _plan(seconds: float, seconds_each: float) -> _Plan:
    calls = max(1, math.ceil(MIN_SAMPLE_SECONDS / seconds))
    samples = round(seconds_each / (calls * seconds))
    return _Plan(calls, min(MAX_SAMPLES, max(MIN_SAMPLES, samples)))


def _is_due(turn: int, samples: int, rounds: int) -> bool:
    """Spread `samples` turns evenly over `rounds`."""
    return (turn + 1) * samples // rounds > turn * samples // rounds


def _summary(samples: list[float], calls: int) -> Timing:
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    return Timing(
        median=statistics.median(samples),
        p10=deciles[0],
        p90=deciles[-1],
        best=min(samples),
        samples=len(samples),
        calls=calls,
    )

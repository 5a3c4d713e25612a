# SPDX-License-Identifier: BSD-3-Clause
"""Seats the groups of an epoch in batches so that no class sits twice in one batch.

A class brings groups[c] groups of K samples. A step is one batch on each replica.

How many batches: T batches of P distinct classes exist if and only if sum_c min(groups[c], T) is
at least P T (Gale and Ryser: a class fills at most T seats, and laid end to end the classes wrap
around the batches without meeting themselves). The left side is concave in T, so the largest T is
found by bisection, and the length of an epoch does not depend on chance.

Which classes: a class with as many groups as there are batches left must sit in all of them. The
other seats are free, and drawn from the deck of all groups that are left, again where the class
sits already. Each batch then leaves sum_c left[c] = P T with left[c] <= T for the T batches to
come, which is all they need: a draw never runs into a dead end. Batches with fewer seats are filled
first, from the classes with the most groups, which is always safe (Havel and Hakimi), and are
handed out last.

Random numbers are integers, or those of random.Random: the same on every machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor

__all__ = ["Seating", "seating", "seats"]


class Seating(NamedTuple):
    groups: Tensor  # (C,) int64, what each class brings
    classes: int  # in a batch
    replicas: int
    full_steps: int
    last: int  # classes in each batch of one more, smaller step; 0 = there is none

    @property
    def steps(self) -> int:
        return self.full_steps + bool(self.last)


def seating(groups: Tensor, classes: int, replicas: int, *, drop_last: bool) -> Seating:
    """The most steps with `classes` different classes in each batch; then what is left."""

    def seated(batches: int) -> int:
        return int(groups.clamp(max=batches).sum())

    most = _largest(lambda batches: seated(batches) >= classes * batches, seated(1 << 62))
    full_steps = most // replicas
    left = seated(replicas * (full_steps + 1)) - classes * replicas * full_steps
    last = left // replicas
    # A batch of one class has no negatives.
    return Seating(groups, classes, replicas, full_steps, 0 if drop_last or last < 2 else last)


def seats(plan: Seating, generator: Generator) -> Iterator[tuple[list[int], list[int]]]:
    """Of every batch, the replicas of a step in turn: its classes, and the group of each."""
    left = plan.groups.clamp(max=plan.replicas * plan.steps)
    excess = int(left.sum()) - plan.replicas * (plan.classes * plan.full_steps + plan.last)
    left = _lowered(left, excess, generator)
    used = [0] * len(left)

    def seated(chosen: list[int]) -> tuple[list[int], list[int]]:
        numbers = [used[c] for c in chosen]
        for c in chosen:
            used[c] += 1
        return chosen, numbers

    n_smaller = plan.replicas if plan.last else 0
    smaller = [seated(_most(left, plan.last, generator)) for _ in range(n_smaller)]
    random = Random(int(torch.randint(2**63 - 1, (), generator=generator)))
    yield from map(seated, _full_batches(left.tolist(), plan, random))
    yield from smaller


def _full_batches(left: list[int], plan: Seating, random: Random) -> Iterator[list[int]]:
    deck = [c for c, groups in enumerate(left) for _ in range(groups)]
    forced = [0] * len(left)  # groups that sit already, and are still in the deck
    came_to: dict[int, list[int]] = defaultdict(list)  # groups left -> classes that had so many
    for c, groups in enumerate(left):
        came_to[groups].append(c)
    for batches_left in range(plan.replicas * plan.full_steps, 0, -1):
        chosen = {c: None for c in came_to.pop(batches_left, ()) if left[c] == batches_left}
        for c in chosen:
            forced[c] += 1
        while len(chosen) < plan.classes:
            # m chosen classes hold at most m / P of the groups: one draw of P, or more, is taken.
            place = int(random.random() * len(deck))
            c = deck[place]
            if forced[c]:
                forced[c] -= 1
            elif c in chosen:
                continue
            else:
                chosen[c] = None
            deck[place] = deck[-1]
            deck.pop()
        for c in chosen:
            left[c] -= 1
            came_to[left[c]].append(c)
        yield list(chosen)


def _most(left: Tensor, classes: int, generator: Generator) -> list[int]:
    """Takes a group from each of the classes that have the most; among equals at random."""
    order = torch.randperm(len(left), generator=generator)
    chosen = order[left[order].argsort(stable=True, descending=True)[:classes]]
    left[chosen] -= 1
    return cast("list[int]", chosen.tolist())


def _largest(holds: Callable[[int], bool], end: int) -> int:
    """The largest number in [0, end] for which it holds. It holds at 0; once false, it stays so."""
    low = 0
    while low < end:
        middle = (low + end + 1) // 2
        low, end = (middle, end) if holds(middle) else (low, middle - 1)
    return low


def _lowered(groups: Tensor, excess: int, generator: Generator) -> Tensor:
    """`excess` groups less, always taken from the class that has the most; among equals at random.

    Who has most misses the smallest share of its samples, and the batches stay possible.
    """
    height = int(groups.max())
    cut = _largest(lambda depth: _above(groups, height - depth) <= excess, height)
    lowered = groups.clamp(max=height - cut)
    highest = torch.eq(lowered, height - cut).nonzero().squeeze(1)
    order = torch.randperm(len(highest), generator=generator)
    lowered[highest[order[: excess - _above(groups, height - cut)]]] -= 1
    return lowered


def _above(groups: Tensor, level: int) -> int:
    return int((groups - level).clamp(min=0).sum())

# SPDX-License-Identifier: BSD-3-Clause
"""Covering rows: every pair of option values meets in some row, without the full product."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from itertools import combinations, product
from typing import Any

Factors = Mapping[str, Sequence[Any]]
Pair = frozenset[tuple[str, Any]]


def feasible_pairs(factors: Factors, forbidden: set[Pair]) -> list[Pair]:
    """All pairs of values of two factors, less the forbidden ones, in a fixed order."""
    pairs = [
        frozenset(((first, left), (second, right)))
        for first, second in combinations(factors, 2)
        for left, right in product(factors[first], factors[second])
    ]
    return [pair for pair in pairs if pair not in forbidden]


def covering_rows(
    factors: Factors, forbidden: set[Pair] | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Greedy rows that cover every feasible pair; the same list for the same arguments."""
    forbidden = forbidden or set()
    uncovered = dict.fromkeys(feasible_pairs(factors, forbidden))
    generator = random.Random(seed)
    rows = []
    while uncovered:
        row = dict(next(iter(uncovered)))
        order = sorted(
            (name for name in factors if name not in row), key=lambda _: generator.random()
        )
        for name in order:
            row[name] = _best_value(name, factors[name], row, uncovered, forbidden, generator)
        for pair in combinations(row.items(), 2):
            uncovered.pop(frozenset(pair), None)
        rows.append({name: row[name] for name in factors})
    return rows


def _best_value(name, values, row, uncovered, forbidden, generator):
    def new_pairs(value):
        pairs = [frozenset((item, (name, value))) for item in row.items()]
        if any(pair in forbidden for pair in pairs):
            return (-1, 0.0)
        return (sum(pair in uncovered for pair in pairs), generator.random())

    return max(values, key=new_pairs)


def spread_rows(
    factors: Factors, count: int, forbidden: Set[Pair] = frozenset(), seed: int = 0
) -> list[dict[str, Any]]:
    """`count` rows in which the values of each factor take turns, in an order of its own."""
    generator = random.Random(seed)
    for _ in range(1000):
        columns = []
        for values in factors.values():
            turns = generator.sample(list(values), len(values)) * -(-count // len(values))
            columns.append(generator.sample(turns[:count], count))
        rows = [dict(zip(factors, values, strict=True)) for values in zip(*columns, strict=True)]
        pairs = {frozenset(pair) for row in rows for pair in combinations(row.items(), 2)}
        if not pairs & forbidden:
            return rows
    message = "no order of the values avoids the forbidden pairs"
    raise ValueError(message)

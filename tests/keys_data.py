# SPDX-License-Identifier: BSD-3-Clause
"""Rows on which ranking is hard: ties, near-ties, offsets, wild ranges, values without order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Rng = np.random.Generator


def _random(rng: Rng, labels: np.ndarray, dim: int) -> np.ndarray:
    return rng.standard_normal((len(labels), dim))


def _tight_classes(rng, labels, dim):
    """Classes so tight that |x|^2 + |r|^2 - 2 x.r has no correct digit left in float32."""
    centres = rng.standard_normal((labels.max() + 1, dim))
    return centres[labels] + 1e-5 * rng.standard_normal((len(labels), dim))


def _duplicates(rng, labels, dim):
    """Every row occurs about four times, under any label."""
    return rng.standard_normal((len(labels) // 4 + 1, dim))[
        rng.integers(0, len(labels) // 4 + 1, len(labels))
    ]


def _few_rows(rng, labels, dim):
    """Five rows, each many times, under any label."""
    return rng.standard_normal((5, dim))[rng.integers(0, 5, len(labels))]


def _integers(rng, labels, dim):
    """Distances are small integers: most are equal, and every one of them is exact."""
    return rng.integers(-2, 3, (len(labels), dim)).astype(np.float64)


def _binary(rng, labels, dim):
    return rng.integers(0, 2, (len(labels), dim)).astype(np.float64)


def _offset(rng, labels, dim):
    return 1e3 + rng.standard_normal((len(labels), dim))


def _offset_across(rng, labels, dim):
    """Rows differ at right angles to a common offset: products hide the difference."""
    rows = rng.standard_normal((len(labels), dim))
    return 3e4 + rows - rows.mean(1, keepdims=True)


def _offset_beyond_keys(rng, labels, dim):
    """The same, so large that the float64 keys of products are mostly rounding."""
    rows = rng.standard_normal((len(labels), dim))
    return 1e8 + rows - rows.mean(1, keepdims=True)


def _offset_per_feature(rng, labels, dim):
    """One feature carries a large constant."""
    rows = rng.standard_normal((len(labels), dim))
    rows[:, :1] += 3e5
    return rows


def _wild_scales(rng, labels, dim):
    """Norms over 14 orders of magnitude; their squares still fit into float32."""
    scale = np.exp(rng.uniform(np.log(1e-8), np.log(1e6), (len(labels), 1)))
    return scale * rng.standard_normal((len(labels), dim))


def _around_the_floor(rng, labels, dim):
    """Norms on both sides of 1e-12, below which normalising divides by 1e-12 instead."""
    scale = 10.0 ** rng.uniform(-15, -9, (len(labels), 1))
    return scale * rng.standard_normal((len(labels), dim))


def _one_huge_row(rng, labels, dim):
    rows = rng.standard_normal((len(labels), dim))
    rows[len(labels) // 3] *= 1e9
    return rows


def _outliers(rng, labels, dim):
    """A few rows far from all others, and so the farthest or nearest of many."""
    rows = rng.standard_normal((len(labels), dim))
    rows[rng.random(len(labels)) < 0.02] *= 1e3
    return rows


def _tiny_beside_long(rng, labels, dim):
    """One long row sets the scale of a tile, in which the products of all others are subnormal."""
    rows = 1e-21 * rng.standard_normal((len(labels), dim))
    rows[len(labels) // 3] *= 1e21
    return rows


def _beyond_tiles(rng, labels, dim):
    """Some rows are too long to be ranked in float32 at all."""
    rows = rng.standard_normal((len(labels), dim))
    rows[rng.random(len(labels)) < 0.1] *= 1e37
    return rows


def _one_ulp_neighbours(rng, labels, dim):
    """All rows are one point, some features moved to the next float32."""
    point = np.broadcast_to(rng.standard_normal((1, dim)).astype(np.float32), (len(labels), dim))
    moved = rng.random((len(labels), dim)) < 0.3
    return np.where(moved, np.nextafter(point, np.float32(9)), point).astype(np.float64)


def _all_equal(rng, labels, dim):
    return np.broadcast_to(rng.standard_normal((1, dim)), (len(labels), dim)).copy()


def _all_equal_but_one(rng, labels, dim):
    rows = _all_equal(rng, labels, dim)
    rows[len(labels) // 3] += 1
    return rows


def _all_zero(_rng, labels, dim):
    return np.zeros((len(labels), dim))


def _some_zero(rng, labels, dim):
    rows = rng.standard_normal((len(labels), dim))
    rows[rng.random(len(labels)) < 0.2] = 0
    return rows


def _squares_overflow(rng, labels, dim):
    """Squares overflow float32, not float64."""
    return 1e25 * rng.standard_normal((len(labels), dim))


def _squares_underflow(rng, labels, dim):
    """Squares vanish in float32, not in float64."""
    return 1e-28 * rng.standard_normal((len(labels), dim))


def _keys_overflow(rng, labels, dim):
    """Squares overflow float64 too: keys are infinite, ties go to the lowest index."""
    return 1e200 * rng.standard_normal((len(labels), dim))


def _keys_underflow(rng, labels, dim):
    """Squares are subnormal in float64: keys have few digits, many are equal."""
    return 1e-161 * rng.standard_normal((len(labels), dim))


def _subnormal(rng, labels, dim):
    return 1e-41 * rng.standard_normal((len(labels), dim))


def _on_the_sphere(rng, labels, dim):
    """Rows of one length, up to rounding: cosine, dot and Euclidean nearly agree."""
    rows = rng.standard_normal((len(labels), dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _symmetric_pairs(rng, labels, dim):
    """x and -x, features permuted: equal keys from different rounding."""
    base = rng.standard_normal((1, dim))
    rows = np.stack([rng.permutation(base[0]) for _ in labels])
    return rows * rng.choice((-1.0, 1.0), (len(labels), 1))


def _with_nan(rng, labels, dim):
    rows = rng.standard_normal((len(labels), dim))
    rows[rng.random(len(labels)) < 0.05, 0] = np.nan
    return rows


def _with_infinity(rng, labels, dim):
    rows = rng.standard_normal((len(labels), dim))
    rows[rng.random(len(labels)) < 0.03, -1] = np.inf
    rows[rng.random(len(labels)) < 0.03, 0] = -np.inf
    return rows


KINDS = {
    function.__name__[1:]: function
    for function in (
        _random,
        _tight_classes,
        _duplicates,
        _few_rows,
        _integers,
        _binary,
        _offset,
        _offset_across,
        _offset_beyond_keys,
        _offset_per_feature,
        _wild_scales,
        _around_the_floor,
        _one_huge_row,
        _outliers,
        _tiny_beside_long,
        _beyond_tiles,
        _one_ulp_neighbours,
        _all_equal,
        _all_equal_but_one,
        _all_zero,
        _some_zero,
        _squares_overflow,
        _squares_underflow,
        _keys_overflow,
        _keys_underflow,
        _subnormal,
        _on_the_sphere,
        _symmetric_pairs,
        _with_nan,
        _with_infinity,
    )
}


# Those whose distances float32 holds.
_BEYOND = {"beyond_tiles", "keys_overflow", "squares_overflow", "with_nan", "with_infinity"}
FINITE_KINDS = sorted(set(KINDS) - _BEYOND)


def hard_rows(
    kind: str, n: int, dim: int, n_classes: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows of that kind, and labels; the same for the same arguments."""
    rng = np.random.default_rng([seed, n, dim, n_classes])
    labels = rng.integers(0, n_classes, n)
    return torch.from_numpy(KINDS[kind](rng, labels, dim)).to(dtype), torch.from_numpy(labels)


def narrow_data(kind: str, n: int, dim: int, seed: int = 0):
    """Rows on which 8 bits are few, next to those of keys_data."""
    rng = np.random.default_rng([seed, n, dim])
    labels = rng.integers(0, max(2, n // 4), n)
    rows = {
        "scales": lambda: rng.standard_normal((n, dim)) * 10.0 ** rng.uniform(-18, 18, (n, 1)),
        "low_rank": lambda: rng.standard_normal((n, 2)) @ rng.standard_normal((2, dim)),
        "sorted": lambda: np.sort(rng.standard_normal((n, 1)), 0) * np.ones((1, dim)),
        "every_row_often": lambda: rng.standard_normal((7, dim))[rng.integers(0, 7, n)],
        "halves_equal": lambda: np.tile(rng.standard_normal(((n + 1) // 2, dim)), (2, 1))[:n],
        "below_a_bit": lambda: 1 + 2.0**-9 * rng.integers(-1, 2, (n, dim)),
        "half_way": lambda: (2 * rng.integers(128, 256, (n, dim)) + 1) * 2.0 ** rng.integers(-9, 9),
        "tight": lambda: (
            rng.standard_normal((n, dim))[labels] + 0.01 * rng.standard_normal((n, dim))
        ),
    }[kind]()
    return torch.from_numpy(rows).float(), torch.from_numpy(labels)


NARROW_KINDS = (
    *("scales", "low_rank", "sorted", "every_row_often", "halves_equal"),
    *("below_a_bit", "half_way", "tight"),
)

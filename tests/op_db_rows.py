# SPDX-License-Identifier: BSD-3-Clause
"""The rows of THE TABLE: which options each op of op_db.py is tried with.

The first ops cover every pair of option values. The others share their labels, references, weights
and distances with these; in their rows the values of each option take turns.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from covering import Pair, covering_rows, spread_rows
from samples import Row

DISTANCES = ("euclidean", "sqeuclidean", "cosine", "dot")
# Those that are sums over features, and the one that is relative to its query. "minkowski(p)" is
# what Minkowski(p) is called inside.
SUMMED = ("manhattan", "minkowski(3.0)", "minkowski(2.5)", "chebyshev", "jaccard", "snr")
REDUCTIONS = ("mean", "mean_active", "sum", "none")
LABEL_KINDS = (
    "int64",
    "int32",
    "uint8",
    "bool",
    "float32",
    "float64",
    "multi_hot",
    "mask",
)

Grid = dict[str, tuple[Any, ...]]  # option -> the values it takes in the rows

_PAIR_OPTIONS: Grid = {"distance": DISTANCES, "normalize": (False, True)}
_ALL_OPTIONS: Grid = {"distance": DISTANCES + SUMMED, "normalize": (False, True)}
_SUMMED_OPTIONS: Grid = {"distance": SUMMED, "normalize": (False, True)}
_WEIGHTS: Grid = {"weights": ("none", "positive", "some_zero")}
_LOSS_OPTIONS: Grid = {
    "reduction": REDUCTIONS,
    "soft_margin": (False, True),
    "margin": ("default", "number", "zero_dim", "per_anchor"),
} | _WEIGHTS
_RELATION: Grid = {
    "labels": LABEL_KINDS,
    "refs": ("none", "given", "self"),
    "ignore": (False, True),
}
_SHAPES: Grid = {"shape": ("33x7", "97x24", "26x130")}
_MOSTLY_SMALL: Grid = {"shape": ("33x7", "33x7", "33x7", "33x7", "97x24", "26x130")}
_FORMS: Grid = {"form": ("rows", "index", "index_refs")}

# ignore_label names a class, which multi-hot rows and masks do not have; of two classes it leaves
# one, where every result is zero (test_degenerate.py has that case).
_NO_IGNORE = {
    frozenset((("labels", kind), ("ignore", True))) for kind in ("multi_hot", "mask", "bool")
}
# A soft margin's margin may be 0, and nothing lies between 0 and 0; a hinge is 0 beyond the margin;
# nothing is farther than the farthest.
_NO_EMPTY_LISTS: dict[str, set[Pair]] = {
    "semihard": {frozenset((("fallback", "drop"), ("hardness", "0")))}
    # At hardness 1 a distance is compared with itself, d_ap - (d_ap - d_min): a root decides by its
    # last bit, which is not the same everywhere.
    | {frozenset((("distance", name), ("hardness", "1"))) for name in SUMMED if "(" in name},
    "semihard_all": {frozenset((("soft_margin", True), ("mining_margin", None)))},
    "easy_all": {frozenset((("soft_margin", False), ("mining_margin", None)))},
}
# Which is the rule "all", and not listed.
_NO_DENSE = {
    "easy_hard": {frozenset((("strategies", "all/all"), ("soft_margin", flag))) for flag in (0, 1)}
}
_NO_MASK_OF_REFS = {frozenset((("labels", "mask"), ("refs", refs))) for refs in ("given", "self")}


def _turns(
    count: int, factors: Grid, forbidden: Set[Pair] = frozenset(), **fixed: Any
) -> list[Row]:
    """Rows with an order of their own for every op: `fixed` says what is the same in all."""
    seed = sum(map(ord, repr(fixed))) + count
    rows = spread_rows(factors, count, _NO_IGNORE | forbidden, seed)
    return [fixed | row for row in rows]


_LOSS_ROWS = _LOSS_OPTIONS | _RELATION | {"invalid": ("drop", "count")} | _SHAPES
TRIPLET_LOSS = covering_rows(_PAIR_OPTIONS | _LOSS_ROWS, _NO_IGNORE) + _turns(
    13, _SUMMED_OPTIONS | _LOSS_ROWS
)
_GIVEN_ROWS = _FORMS | {"swap": (False, True)} | _LOSS_OPTIONS | _SHAPES
TRIPLET_MARGIN_LOSS = covering_rows(_PAIR_OPTIONS | _GIVEN_ROWS) + _turns(
    10, _SUMMED_OPTIONS | _GIVEN_ROWS
)
_SIDES: Grid = {"y": (False, True)} | _SHAPES
PAIRWISE_DISTANCES = covering_rows(_PAIR_OPTIONS | _SIDES) + _turns(14, _SUMMED_OPTIONS | _SIDES)
MINE_TRIPLETS = covering_rows(_PAIR_OPTIONS | _RELATION | _SHAPES, _NO_IGNORE) + _turns(
    12, _SUMMED_OPTIONS | _RELATION | _SHAPES
)


_ONE_OF_EACH = [
    f"{positive}/{negative}"
    for positive in ("easy", "hard", "semihard", "all")
    for negative in ("semihard", "hard", "easy", "all")
    if positive + negative not in ("semihardsemihard", "semihardall", "allsemihard")
]
# Of each rule: how many rows of triplet_loss and of mine_triplets, and the values of its keywords.
_RULES: dict[str, tuple[int, int, Grid]] = {
    "semihard": (
        *(11, 10),
        {
            "fallback": ("farthest", "drop"),
            "hardness": (None, "0", "tensor 0.25", "0.5", "callable 0.75", "1"),
        },
    ),
    "all": (10, 4, {}),
    "semihard_all": (8, 4, {"mining_margin": (None, "0.4")}),
    "hard_all": (6, 4, {}),
    "easy_all": (6, 4, {"mining_margin": (None, "-0.2", "tensor -1")}),
    "easy_hard": (8, len(_ONE_OF_EACH), {"strategies": tuple(_ONE_OF_EACH)}),
    "distance_weighted": (5, 4, {}),
    "random": (7, 4, {"n_negatives": (1, 3)}),
    "soft": (10, 0, {"temperature": (1.0, 2.5), "detach_weights": (False, True)}),
}
_COUNTS = {"invalid": ("drop", "count")}
RULE_LOSS = {
    mining: _turns(
        count,
        _ALL_OPTIONS
        | _LOSS_OPTIONS
        | _RELATION
        | _MOSTLY_SMALL
        | keywords
        # The other rules have no anchor to count that they list no triplet of.
        | (_COUNTS if mining in ("semihard", "all") else {}),
        _NO_EMPTY_LISTS.get(mining, set()) | _NO_DENSE.get(mining, set()),
        mining=mining,
    )
    for mining, (count, _, keywords) in _RULES.items()
}
RULE_TRIPLETS = {
    mining: _turns(
        count,
        _ALL_OPTIONS | _RELATION | _MOSTLY_SMALL | keywords,
        _NO_EMPTY_LISTS.get(mining, set()),
        op="mine",
        mining=mining,
    )
    for mining, (_, count, keywords) in _RULES.items()
    if mining != "soft"
}

NO_DOT = tuple(name for name in DISTANCES if name != "dot")  # what losses of pairs compare by
_NO_DOT: Grid = {"distance": NO_DOT + SUMMED, "normalize": (False, True)}
_PAIR_HINGES: Grid = {
    "margin": ("default", "number", "tensor", "callable"),
    "pos_margin": ("default", "number"),
    "power": (1, 2),
    "half": (False, True),
}
_TWO_MARGINS: Grid = {"margins": ("default", "number", "tensor")}
CONTRASTIVE_LOSS = _turns(
    14,
    _NO_DOT
    | {"reduction": ("mean", "mean_active", "mean_pairs", "sum", "none")}
    | (_PAIR_HINGES | _WEIGHTS | _RELATION | _MOSTLY_SMALL),
    op="contrastive",
)
CONTRASTIVE_PAIRS_LOSS = _turns(
    10,
    _NO_DOT
    | (_FORMS | _PAIR_HINGES | _WEIGHTS | _MOSTLY_SMALL)
    | {"reduction": REDUCTIONS, "similar": ("bool", "int64", "float32", "uint8")},
    op="contrastive_pairs",
)
ONLINE_CONTRASTIVE_LOSS = _turns(
    10,
    _NO_DOT
    | {"reduction": ("mean", "sum", "none"), "margin": ("default", "number", "tensor")}
    | (_WEIGHTS | _RELATION | _MOSTLY_SMALL),
    op="online_contrastive",
)
QUADRUPLET_LOSS = _turns(
    9,
    _NO_DOT | {"reduction": REDUCTIONS} | _TWO_MARGINS | _WEIGHTS | _RELATION | _MOSTLY_SMALL,
    _NO_MASK_OF_REFS,
    op="quadruplet",
)
QUADRUPLET_MARGIN_LOSS = _turns(
    9,
    _FORMS | _NO_DOT | {"reduction": REDUCTIONS} | _TWO_MARGINS | _WEIGHTS | _MOSTLY_SMALL,
    op="quadruplet_margin",
)
_MARGIN_RULES: dict[str, tuple[int, Grid]] = {
    "distance_weighted": (4, {}),
    "semihard": (2, {"fallback": ("farthest", "drop")}),
    "all": (2, {}),
    "hard": (1, {}),
}
MARGIN_LOSS = {
    mining: _turns(
        count,
        _ALL_OPTIONS
        | {"beta": ("default", "number", "learned", "learned_each"), "reduction": REDUCTIONS}
        | {"margin": ("default", "number", "callable")}
        | (_WEIGHTS | _RELATION | _MOSTLY_SMALL | keywords),
        op="margin_loss",
        mining=mining,
    )
    for mining, (count, keywords) in _MARGIN_RULES.items()
}

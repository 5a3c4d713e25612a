# SPDX-License-Identifier: BSD-3-Clause
"""Every check a user can fail, and every message: [op] argument, rule, what was got.

    _basic       words, flags, matrices, indices
    _kernels     whether the kernels run
    _comparison  embeddings, references, and what says which of them are of one class
    _distance    distances, their parameters and the rows they accept
    _given       given pairs, triplets and quadruplets: rows, or indices of rows
    _numbers     margins, weights and other numbers, of Python or in tensors
    _rule        the keywords of a mining rule
    data         what surrounds a batch: samplers, schedules, offline mining

Shapes, dtypes, devices and names are checked on every call; they cost attribute reads, no kernel.
Values (NaN labels, an index out of range) are read only where that costs no synchronisation: on the
CPU, or anywhere under FLASHMETRIC_CHECK=1; and never while torch.compile or torch.func trace.
"""

from ._basic import flags, names, not_dot, word
from ._comparison import class_ids, comparison, no_mask_of_references
from ._distance import (
    COUNTED,
    distance,
    distances,
    exponent,
    factor,
    minkowski_exponent,
    not_below_zero,
    not_negative,
    not_one_of,
    rows_of_covariance,
    symmetric,
)
from ._given import given, pair, similar
from ._kernels import use_fused
from ._numbers import count, number, power, start, weights
from ._rule import RuleOptions, counts_invalid, rule_numbers, rule_words

__all__ = [
    "COUNTED",
    "RuleOptions",
    "class_ids",
    "comparison",
    "count",
    "counts_invalid",
    "distance",
    "distances",
    "exponent",
    "factor",
    "flags",
    "given",
    "minkowski_exponent",
    "names",
    "no_mask_of_references",
    "not_below_zero",
    "not_dot",
    "not_negative",
    "not_one_of",
    "number",
    "pair",
    "power",
    "rows_of_covariance",
    "rule_numbers",
    "rule_words",
    "similar",
    "start",
    "symmetric",
    "use_fused",
    "weights",
    "word",
]

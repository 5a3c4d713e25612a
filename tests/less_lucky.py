# SPDX-License-Identifier: BSD-3-Clause
"""The rounding error of plain torch, of the same problem with its features in two orders.

A loss of few terms has few roundings, and plain torch may happen to have none in its last digits:
then no second computation passes beside it. The truth does not depend on the order of features, the
roundings do: the larger error of the two orders is the baseline.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from compare import exact
from samples import Sample, cotangent_for
from test_gradients import gradients, judge

__all__ = ["judge_in_two_orders", "less_lucky"]


def judge_in_two_orders(op: Any, sample: Sample) -> tuple[Tensor, dict[str, Tensor], Any]:
    """What `judge` says, with the less lucky value and gradients of plain torch."""
    value, grads, truth = judge(op, sample)
    rows = sample.matrices()
    turned = sample.with_tensors(**{name: rows[name].flip(1).contiguous() for name in rows})
    other, others = gradients(op, turned, cotangent_for(value), "reference")
    worse = {
        name: less_lucky(
            truth.grads[name], grad, others[name].flip(1) if name in rows else others[name]
        )
        for name, grad in grads.items()
    }
    return less_lucky(truth.value, value, other), worse, truth


def less_lucky(truth: np.ndarray, *results: Tensor) -> Tensor:
    """The one of several results whose rounding error is the largest."""
    return max(results, key=lambda each: _error(each, truth))


def _error(tensor: Tensor, truth: np.ndarray) -> float:
    finite = np.isfinite(truth)
    return float(np.abs(exact(tensor) - truth)[finite].max(initial=0))

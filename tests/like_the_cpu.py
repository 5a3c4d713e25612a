# SPDX-License-Identifier: BSD-3-Clause
"""Large problems on a GPU beside the CPU, whose kernels are proven: brute force takes too long.

The choices must be those of the CPU kernels. They make the problem one of given triplets, of which
plain torch and the truth need no matrix of distances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compare import assert_no_worse_than, assert_same_bits
from device import DEVICE
from flashmetric import Triplets
from less_lucky import less_lucky
from op_db import OP
from samples import Sample, cotangent_for
from test_gradients import gradients

_LOSS, _GIVEN, _MINE = OP["triplet_loss"], OP["triplet_margin_loss"], OP["mine_triplets"]
_METRIC = ("distance", "normalize")


def assert_like_the_cpu(sample: Sample) -> None:
    """Choices, the value and the gradient of both ways to one, and the same bits twice."""
    triplets = assert_same_choices(sample)
    given = {name: sample.options[name] for name in _METRIC if name in sample.options}
    given |= triplets._asdict()
    for reduction in ("mean", "none"):
        loss = sample.with_options(reduction=reduction)
        value, grads = assert_reproducible(loss)
        cotangent = cotangent_for(value.cpu())
        if reduction == "none":
            others = torch.ones(len(value), dtype=torch.bool)
            others[triplets.anchor] = False
            assert value.cpu()[others].count_nonzero() == 0, "an anchor without a triplet"
            value, cotangent = value[triplets.anchor.to(DEVICE)], cotangent[triplets.anchor]
        chosen = Sample(sample.name, sample.tensors, given | {"reduction": reduction})
        _assert_no_worse(chosen, cotangent, value, grads)


def assert_like_given(
    sample: Sample, triplets: Triplets, value: Tensor, grads: dict[str, Tensor]
) -> None:
    """A loss that lists triplets by a rule, and its gradient, as of those triplets given."""
    given = {name: sample.options[name] for name in _METRIC if name in sample.options}
    chosen = Sample(sample.name, sample.tensors, given | triplets._asdict())
    _assert_no_worse(chosen, cotangent_for(value.cpu()), value, grads)


def assert_same_choices(sample: Sample) -> Triplets:
    """Those of the CPU kernels, exactly."""
    triplets = _MINE.run(sample)
    ours = _MINE.run(sample.to(DEVICE))
    for name, one, other in zip(Triplets._fields, ours, triplets, strict=True):
        assert_same_bits(one, other, what=f"{name} of {sample.name}")
    assert isinstance(triplets, Triplets)
    return triplets


def assert_reproducible(loss: Sample) -> tuple[Tensor, dict[str, Tensor]]:
    """Value and gradients, of which a second run gives the same bits."""
    value, grads = gradients(_LOSS, loss.to(DEVICE))
    again, grads_again = gradients(_LOSS, loss.to(DEVICE))
    assert_same_bits(value, again, what=f"value of {loss.name} again")
    for name, grad in grads.items():
        assert_same_bits(grad, grads_again[name], what=f"gradient of {loss.name} again")
    return value, grads


def _assert_no_worse(
    chosen: Sample, cotangent: Tensor, value: Tensor, grads: dict[str, Tensor]
) -> None:
    """The baseline is plain torch, or the CPU kernels where their rounding was less lucky."""
    plain, by_torch = gradients(_GIVEN, chosen, cotangent, "reference")
    fused, by_kernels = gradients(_GIVEN, chosen, cotangent)
    truth: Any = _GIVEN.truth(chosen, cotangent)
    cases = [("value", value, (plain, fused), truth.value)]
    for name, expected in truth.grads.items():
        baselines = (by_torch[name], by_kernels[name])
        cases.append((f"gradient of {name}", grads[name], baselines, expected))
    for what, ours, baselines, expected in cases:
        baseline = less_lucky(expected, *baselines)
        what = f"{what} of {chosen.name}"
        assert_no_worse_than(ours, baseline=baseline, truth=expected, what=what)

# SPDX-License-Identifier: BSD-3-Clause
"""mining="soft" of float32 rows: by vectors, and by float64 distances where a hinge is near."""

from __future__ import annotations

import pytest
import torch

from flashmetric.functional import triplet_loss
from keys_data import FINITE_KINDS, hard_rows
from op_db import OP
from samples import Sample, class_batch
from test_gradients import assert_value_and_gradient

SOFT = OP["triplet_loss[soft]"]
# Nor temperatures beyond float32, which plain torch computes with.
KINDS = [kind for kind in FINITE_KINDS if kind not in ("squares_underflow", "subnormal")]


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean", "cosine", "dot"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_hard_to_tell_apart(kind, distance):
    rows, labels = hard_rows(kind, 101, 19, 9, torch.float32)
    scale = rows.abs().max().item() or 1.0
    temperature = scale**2 if distance in ("sqeuclidean", "dot") else scale
    options = {**SOFT.options, "labels": labels, "distance": distance, "reduction": "sum"}
    options["temperature"] = 1.0 if distance == "cosine" else temperature
    for soft_margin in (False, True):
        sample = Sample(kind, {"embeddings": rows}, {**options, "soft_margin": soft_margin})
        assert_value_and_gradient(SOFT, sample)


@pytest.mark.parametrize("temperature", [0.02, 0.3, 5.0, 1e3])
@pytest.mark.parametrize("detach_weights", [False, True])
def test_temperatures(temperature, detach_weights):
    rows, labels = class_batch(150, 40, 12, seed=7)
    options = {**SOFT.options, "labels": labels, "temperature": temperature}
    sample = Sample("soft", {"embeddings": rows}, {**options, "detach_weights": detach_weights})
    assert_value_and_gradient(SOFT, sample)


@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean", "cosine"])
def test_hinges_at_zero_are_decided_in_float64(distance):
    """Every anchor's violation is 1e-10 of its distances, above 0 or below."""
    rows, labels = class_batch(200, 33, 40, seed=11)
    options = {"mining": "soft", "distance": distance, "reduction": "none"}
    far = 1e3
    wide = triplet_loss(rows.double(), labels, margin=far, impl="reference", **options)
    sign = torch.where(torch.arange(200) % 3 == 0, -1.0, 1.0).double()
    margin = far - wide + sign * 1e-10 * far
    _, stats = triplet_loss(rows, labels, margin=margin, return_stats=True, **options)
    assert stats.active_fraction.item() == pytest.approx((sign > 0).double().mean().item())

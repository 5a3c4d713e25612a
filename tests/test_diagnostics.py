# SPDX-License-Identifier: BSD-3-Clause
"""diagnose: each finding from data that show it, and none from data that do not."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from flashmetric import LinearSchedule, Stats, diagnose, triplet_loss
from samples import class_batch

DISTANCES = ["euclidean", "sqeuclidean", "cosine", "dot"]


def _said(rows, labels, **options):
    """The diagnosis of the loss of these rows, told what the loss was told."""
    _, stats = triplet_loss(rows, labels, return_stats=True, **options)
    known = {k: v for k, v in options.items() if k in diagnose.__kwdefaults__}
    return diagnose(stats, **known)


def _clusters(spread, *, n_classes=16, dim=32):
    """Classes around orthogonal unit vectors."""
    labels = torch.arange(4 * n_classes) % n_classes
    noise = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(0))
    return torch.eye(dim)[labels] + spread * normalize(noise), labels


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("unit", [False, True])
def test_healthy_batches(distance, unit):
    rows, labels = _clusters(0.4)
    margin = {"euclidean": 0.7, "sqeuclidean": 1.3}.get(distance, 0.65)
    said = _said(rows, labels, margin=margin, distance=distance, normalize=unit)
    assert said.startswith("Nothing unusual: 64 valid anchors"), said
    assert "\n" not in said


def test_no_valid_anchor_names_the_sampler():
    rows, labels = class_batch(12, 4, 12)
    assert _said(rows, labels).startswith("No valid anchor")
    assert "PKSampler" in _said(rows, labels)


@pytest.mark.parametrize("row", [float("nan"), float("inf")])
def test_rows_that_are_not_numbers(row):
    rows, labels = class_batch(12, 4, 4)
    rows[3] = row
    said = _said(rows, labels)
    assert said.startswith("Not finite: ")
    assert "mean_norm" in said.split(".")[0]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_collapse_of_directions(distance, dtype):
    rows, labels = class_batch(64, 16, 16, dtype=dtype)
    said = _said(0.001 * rows + 1, labels, margin=0.2, distance=distance, normalize=True)
    assert said.startswith("Collapse: all rows are nearly equal")
    assert "stands still at the margin" in said


def test_collapse_to_zero_shows_against_the_margin():
    rows, labels = class_batch(64, 16, 16)
    said = _said(1e-4 * rows, labels, margin=1.0)
    assert said.startswith("Collapse")
    assert "normalize=True" in said
    assert not _said(rows, labels, margin=1.0).startswith("Collapse")
    assert _said(1e-4 * rows, labels, margin=1.0, soft_margin=True).startswith("Collapse")


def test_rows_far_from_zero_have_not_collapsed():
    rows, labels = class_batch(64, 16, 16)
    assert not _said(rows + 1000, labels, margin=0.2).startswith("Collapse")
    _, stats = triplet_loss(rows + 1000, labels, return_stats=True)
    assert diagnose(stats).startswith("Collapse"), "without a margin nothing else tells"


@pytest.mark.parametrize(
    ("distance", "margin"),
    [("euclidean", 1.5), ("sqeuclidean", 2.5), ("cosine", 1.2), ("dot", 1.2)],
)
def test_a_margin_that_no_unit_rows_can_meet(distance, margin):
    rows, labels = _clusters(0.4)
    said = _said(rows, labels, margin=margin, distance=distance, normalize=True)
    assert said.startswith("The margin is too large")
    assert "cannot be met" in said


@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean"])
def test_a_margin_that_pushes_on_although_classes_are_apart(distance):
    rows, labels = _clusters(0.1)
    said = _said(rows, labels, margin=10.0, distance=distance)
    assert said.startswith("The margin is too large: all anchors are active although")
    assert said == _said(rows, labels, margin=LinearSchedule(10.0, 20.0, 5)(), distance=distance)


def test_a_vanished_hinge():
    rows, labels = _clusters(0.1)
    said = _said(rows, labels, margin=0.1)
    assert said.startswith("No anchor is active: the loss is 0")
    assert "Either the task is solved" in said
    assert "active" not in _said(rows, labels, margin=0.1, soft_margin=True).split("valid")[0]


def test_few_active_anchors():
    rows, labels = _clusters(0.1, n_classes=60, dim=64)
    rows[0] = rows[1]
    said = _said(rows, labels, margin=0.1)
    assert "Few anchors are active" in said
    assert "Two rows of different classes are equal" in said


def test_a_margin_that_is_too_small():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.02], [1.0, 1.02]])
    said = _said(rows, torch.tensor([0, 0, 1, 1]), margin=0.001)
    assert said.startswith("No anchor is active")
    assert "The margin is too small" in said


def test_negatives_nearer_than_positives():
    rows, labels = class_batch(64, 8, 8)
    said = _said(rows, labels, margin=1.0)
    assert said.startswith("Negatives are nearer than positives")


def test_margins_of_every_kind_say_the_same():
    rows, labels = _clusters(0.1)
    _, stats = triplet_loss(rows, labels, margin=10.0, return_stats=True)
    margins = [10, torch.tensor(10.0), torch.full((64,), 10.0), LinearSchedule(10.0, 20.0, 5)]
    assert len({diagnose(stats, margin=margin) for margin in margins}) == 1


def test_an_unknown_distance_is_judged_by_what_is_known():
    stats = Stats(*torch.tensor([64.0, 1.0, 0.001, 0.002, 0.01, 0.001, 1.0]))
    assert diagnose(stats, distance=lambda x, r: x @ r.T).startswith("The margin is too large")
    assert diagnose(stats, distance="manhattan", margin=1.0).startswith("Collapse")


def test_message():
    stats = Stats(*torch.ones(7))
    with pytest.raises(
        TypeError, match=r"\[diagnose\] stats must be the Stats of a loss; got float"
    ):
        diagnose(1.0)
    with pytest.raises(TypeError, match=r"\[diagnose\] margin must be a number; got str."):
        diagnose(stats, margin="big")

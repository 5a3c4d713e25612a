# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs take several ways: pairs of blocks, rows, and rows that sort
their negatives. Which one is counted; all of them give the same."""

from __future__ import annotations

import pytest
import torch

from compare import assert_no_worse_than, exact
from flashmetric import _C
from keys_data import hard_rows
from op_db import OP
from samples import Sample, class_batch
from test_gradients import assert_value_and_gradient, gradients
from truths_rules import SETS

LOSSES = (*(f"triplet_loss[{name}]" for name in SETS), "contrastive_loss")
# Distances made of inner products.
MARGINS = {"euclidean": 1.0, "sqeuclidean": 4.0, "cosine": 0.3, "dot": 2.0}


def _counted(name, op, sample):
    before = _C.counters()[name]
    gradients(op, sample)
    return _C.counters()[name] - before


def _batch(op, n, dim=9, n_classes=None, **options):
    rows, labels = class_batch(n, dim, n // 4 if n_classes is None else n_classes, seed=n)
    return Sample(op.name, {"embeddings": rows}, {"labels": labels} | op.options | options)


def _as_references(sample):
    """The same problem between two sets of rows: never by blocks."""
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    refs = {"ref_labels": labels, "self_index": torch.arange(len(rows))}
    tensors = {"embeddings": rows, "ref_embeddings": rows.clone()}
    return Sample(sample.name, tensors, sample.options | refs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("options", "by_blocks"),
    [
        ({}, 1),
        ({"reduction": "sum"}, 1),
        ({"reduction": "none"}, 0),
        ({"weights": torch.arange(200) / 200}, 1),
        ({"labels": torch.arange(200) % 10}, 0),  # 19 positives
        ({"labels": torch.eye(50).repeat(4, 1)}, 0),
        ({"ignore_label": 3}, 1),
    ],
)
def test_what_goes_by_blocks(name, options, by_blocks):
    op = OP[name]
    assert _counted("dense_blocks", op, _batch(op, 200, **options)) == by_blocks
    assert _counted("dense_blocks", op, _as_references(_batch(op, 200))) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_other_numbers_and_distances_do_not_go_by_blocks(name):
    op = OP[name]
    sample = _batch(op, 200)
    wide = sample.with_tensors(embeddings=sample.tensors["embeddings"].double())
    assert _counted("dense_blocks", op, wide) == 0
    for distance in ("manhattan", "snr"):
        assert _counted("dense_blocks", op, _batch(op, 200, distance=distance)) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_rows_outside_the_tiles_do_not_go_by_blocks(name):
    op = OP[name]
    sample = _batch(op, 200)
    sample.tensors["embeddings"][7] = float("nan")
    assert _counted("dense_blocks", op, sample) == 0


def _assert_blocks_agree_with_rows(op, sample):
    """By the 2x rule, the rows in float64 being the truth."""
    wide = sample.with_tensors(embeddings=sample.tensors["embeddings"].double())
    one = torch.ones((), dtype=torch.float64)
    truth, parts = gradients(op, _as_references(wide), one)
    total = exact(parts["embeddings"]) + exact(parts["ref_embeddings"])
    plain, baseline = gradients(op, sample, one.float(), impl="reference")
    value, ours = gradients(op, sample, one.float())
    assert_no_worse_than(value, baseline=plain, truth=exact(truth))
    baseline, ours = baseline["embeddings"], ours["embeddings"]
    assert_no_worse_than(ours, baseline=baseline, truth=total, what="gradient")


@pytest.mark.parametrize("n", [5, 96, 97, 200, 300])
@pytest.mark.parametrize(
    ("name", "distance"),
    [(name, distance) for name in LOSSES for distance in MARGINS if distance in OP[name].distances],
)
def test_blocks_agree_with_rows(name, n, distance):
    op = OP[name]
    options = {"distance": distance, "margin": MARGINS[distance], "reduction": "mean"}
    weights = torch.rand(n, generator=torch.Generator().manual_seed(n)) + 0.5
    sample = _batch(op, n, n_classes=n // 3, weights=weights, **options)
    assert _counted("dense_blocks", op, sample) == 1
    _assert_blocks_agree_with_rows(op, sample)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("share", "by_blocks"), [(0.1, 1), (0.9, 0)])
def test_near_pairs(name, share, by_blocks):
    """Pairs that are measured by difference: some have a place among the blocks, most do not."""
    op = OP[name]
    sample = _batch(op, 200, margin=0.5, reduction="sum")
    rows = sample.tensors["embeddings"]
    close = torch.rand(len(rows), generator=torch.Generator().manual_seed(1)) < share
    rows[close] = 5 + rows[close] / 100
    assert _counted("dense_blocks", op, sample) == by_blocks
    _assert_blocks_agree_with_rows(op, sample)


@pytest.mark.parametrize("name", LOSSES)
def test_few_active_pairs_are_listed(name):
    """A margin that few pairs are within: squares become lists, and give the same."""
    op = OP[name]
    for margin in (0.05, 1.5):
        _assert_blocks_agree_with_rows(op, _batch(op, 300, dim=33, margin=margin, reduction="sum"))


@pytest.mark.parametrize("reduction", ["none", "mean_active"])
@pytest.mark.parametrize("kind", ["random", "integers", "duplicates", "with_nan"])
@pytest.mark.parametrize("name", [f"triplet_loss[{name}]" for name in SETS])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_anchors_with_many_positives_sort(name, kind, reduction):
    op = OP[name]
    for number, distance in enumerate(MARGINS):
        rows, _ = hard_rows(kind, 90, 7, 2, (torch.float32, torch.float64)[number % 2])
        options = {"labels": torch.arange(90) % 2, "distance": distance, "reduction": reduction}
        margins = {"margin": MARGINS[distance], "mining_margin": 0.5 * MARGINS[distance]}
        if op.options["mining"] == "all":
            del margins["mining_margin"]
        sample = Sample(kind, {"embeddings": rows}, options | op.options | margins)
        assert _counted("sorted_anchors", op, sample) >= 90
        assert_value_and_gradient(op, sample)

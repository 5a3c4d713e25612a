# SPDX-License-Identifier: BSD-3-Clause
"""Semi-hard negatives found by tiles are those of the float64 keys, on data made to mislead."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits, assert_same_choice
from flashmetric import _C
from keys_data import KINDS, hard_rows
from op_db import DISTANCES, OP
from samples import Sample
from truths_rules import mined_by_rule_truth

MINE = OP["mine_triplets[semihard]"]


def _tiled(sample: Sample, **more: object) -> bool:
    """Checks the list of the sample; returns whether tiles made it."""
    sample = sample.with_options(**{"mining": "semihard", **more})
    before = _C.counters()["slots"]
    found = MINE.run(sample)
    truth = mined_by_rule_truth(sample).value
    for name, ours, expected in zip(found._fields, found, truth, strict=True):
        assert_same_choice(ours, expected, what=f"{name} of {sample.name}")
    return _C.counters()["slots"] > before


def _sample(kind, distance="euclidean", dtype=torch.float32, n=205, dim=19, n_classes=41):
    rows, labels = hard_rows(kind, n, dim, n_classes, dtype)
    options = {"labels": labels, "distance": distance}
    return Sample(f"{kind} {dtype}", {"embeddings": rows}, options)


@pytest.mark.parametrize("fallback", ["farthest", "drop"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_choice_within_the_batch(kind, distance, fallback):
    sample = _sample(kind, distance)
    _tiled(sample, fallback=fallback)
    _tiled(sample, fallback=fallback, normalize=True)


@pytest.mark.parametrize("positive", ["easy", "hard"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_positive_of_each_anchor(kind, distance, positive):
    """easy_hard: the nearest negative beyond the nearest or the farthest positive."""
    rule = {"positive_mining": positive, "negative_mining": "semihard"}
    _tiled(_sample(kind, distance), mining="easy_hard", **rule)


def test_one_positive_of_each_anchor_is_found_by_tiles():
    sample = _sample("random", n=131)
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    among = sample.with_tensors(ref_embeddings=rows[order])
    for each in (sample, among.with_options(ref_labels=labels[order], self_index=order.argsort())):
        assert _tiled(each, mining="easy_hard")  # easy and semihard are its defaults


@pytest.mark.parametrize("kind", KINDS)
def test_choice_among_references(kind):
    sample = _sample(kind, n=131)
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    sample = sample.with_tensors(ref_embeddings=rows[order])
    _tiled(sample.with_options(ref_labels=labels[order], self_index=order.argsort()))
    _tiled(sample.with_options(ref_labels=labels[order], ignore_label=int(labels[0])))


@pytest.mark.parametrize("kind", ["integers", "offset", "tight_classes", "one_ulp_neighbours"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_isa_makes_the_same_choice(forced_isa, kind, dtype):
    assert forced_isa
    assert _tiled(_sample(kind, dtype=dtype))


@pytest.mark.parametrize("n", [0, 1, 2, 11, 12, 13, 31, 32, 33, 95, 96, 97, 193, 300])
@pytest.mark.parametrize("per_class", [1, 2, 5, 48])
def test_sizes_around_the_edges_of_tiles(n, per_class):
    generator = torch.Generator().manual_seed(n + per_class)
    labels = (torch.arange(n) // per_class)[torch.randperm(n, generator=generator)]
    rows = torch.randn(n, 7, generator=generator)
    _tiled(Sample("edges", {"embeddings": rows}, {"labels": labels}))


@pytest.mark.parametrize(("most", "tiled"), [(64, True), (65, False)])
def test_which_batches_go_through_tiles(most, tiled):
    """Up to 64 rows of a class; with more, and with thresholds that move, whole rows of keys."""
    labels = torch.cat((torch.zeros(most, dtype=torch.int64), 1 + torch.arange(60) // 3))
    rows = torch.randn(len(labels), 9, generator=torch.Generator().manual_seed(most))
    sample = Sample("classes", {"embeddings": rows}, {"labels": labels})
    assert _tiled(sample) == tiled
    assert not _tiled(sample, hardness=0.75)
    assert not _tiled(sample.with_tensors(embeddings=torch.full_like(rows, torch.nan)))


def test_rows_full_of_near_ties_are_given_up_and_still_exact():
    """All rows nearly equal: no bound excludes anything, so lists overflow again and again."""
    generator = torch.Generator().manual_seed(0)
    rows = 1 + 1e-7 * torch.randn(300, 16, generator=generator)
    assert _tiled(Sample("collapsed", {"embeddings": rows}, {"labels": torch.arange(300) // 4}))


def test_threads_do_not_change_the_list():
    sample = _sample("tight_classes", n=400).with_options(mining="semihard")
    lists = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        lists.append(MINE.run(sample))
    for other in lists[1:]:
        for ours, expected in zip(other, lists[0], strict=True):
            assert_same_bits(ours, expected)

# SPDX-License-Identifier: BSD-3-Clause
"""Mining rules and the losses of their lists on the emulated GPU: on data made to mislead them, and
in sizes that take every way through the kernels."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import emulation
from compare import assert_same_bits
from flashmetric import mine_offline
from flashmetric._ops import extremes
from flashmetric.functional import mine_triplets
from flashmetric.reference import rank_key
from like_the_cpu import assert_like_given
from op_db import OP
from rules_data import BATCHES, VARIANTS, variant_name
from samples import Sample, Seeded, class_batch
from test_emulated_gpu import module  # noqa: F401  a fixture
from test_gradients import gradients
from test_rules import (
    LOSS_BATCHES,
    assert_exact_triplets,
    assert_like_the_truth,
    losses_of_triplets,
    sample_under,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
LISTED = ("semihard", "easy_hard", "distance_weighted", "random")
LOSS = OP["triplet_loss[random]"]  # by any rule


@contextmanager
def on_gpu(module):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        yield from emulation.in_place_of_the_cpu(module, patch)


@pytest.mark.parametrize("name", BATCHES)
def test_triplets(name, module):  # noqa: F811
    for number, variant in enumerate(VARIANTS):
        if variant["mining"] != "hard":
            with on_gpu(module):
                assert_exact_triplets(sample_under(name, variant, number + len(name)))


@pytest.mark.parametrize("name", LOSS_BATCHES)
def test_losses(name, module):  # noqa: F811
    for op, sample in losses_of_triplets(name):
        if sample.options["mining"] in LISTED:
            with on_gpu(module):
                assert_like_the_truth(op, sample)


RULES = [
    {"mining": "semihard"},
    {"mining": "semihard", "hardness": 0.8, "fallback": "drop"},
    {"mining": "easy_hard", "positive_mining": "all", "negative_mining": "hard"},
    {"mining": "distance_weighted", "normalize": True, "generator": Seeded(1)},
    {"mining": "random", "n_negatives": 40, "generator": Seeded(2)},
]


@pytest.mark.parametrize("rule", RULES, ids=variant_name)
def test_more_anchors_than_a_chunk(rule, module):  # noqa: F811
    """A chunk of this GPU has 32; without a negative, with ignored rows."""
    rows, labels = class_batch(100, 3, 8, seed=1)
    refs, ref_labels = class_batch(300, 3, 8, seed=2)
    labels[3] = 99
    tensors = {"embeddings": rows, "ref_embeddings": refs}
    options = {"labels": labels, "ref_labels": ref_labels, "ignore_label": 5} | rule
    sample = Sample("four chunks", tensors, options)
    with on_gpu(module):
        assert_exact_triplets(sample)
        for reduction in ("mean", "none"):
            loss = sample.with_options(reduction=reduction).with_tensors(
                **{name: each.double() for name, each in tensors.items()}
            )
            assert_like_the_truth(LOSS, loss)


@pytest.mark.parametrize("rule", RULES[:2], ids=variant_name)
def test_more_positives_than_are_scanned(rule, module):  # noqa: F811
    """The negatives are sorted, NaN and ties included."""
    rows, labels = class_batch(301, 3, 2, seed=5)
    sample = Sample("classes of 150", {"embeddings": rows}, {"labels": labels} | rule)
    ties = (2 * rows).round()
    with on_gpu(module):
        assert_exact_triplets(sample)
        assert_like_the_truth(LOSS, sample)
        assert_exact_triplets(sample.with_tensors(embeddings=ties))
        ties[7] = torch.nan
        assert_exact_triplets(sample.with_tensors(embeddings=ties))


def test_a_negative_of_many_positives(module):  # noqa: F811
    """Terms that are all the same are all rounded the same way: without care it adds up."""
    rule = {"mining": "easy_hard", "positive_mining": "all", "negative_mining": "hard"}
    rows, labels = class_batch(500, 20, 2, seed=500, dtype=torch.float64)
    sample = Sample("classes of 250", {"embeddings": rows}, {"labels": labels} | rule)
    triplets = mine_triplets(rows, labels, **rule)
    with on_gpu(module):
        value, grads = gradients(LOSS, sample)
    assert_like_given(sample, triplets, value, grads)


@pytest.mark.parametrize("distance", ["euclidean", "dot", "snr"])
@pytest.mark.parametrize("n_classes", [1, 9, 60])
def test_bounds(distance, n_classes, module):  # noqa: F811
    """The nearest negative pair and the farthest positive one, or what no pair is beyond."""
    rows, labels = class_batch(60, 5, n_classes, seed=3)
    with on_gpu(module):
        found = extremes.bounds(rows, None, labels, None, None, "classes", None, distance, False)
    key = rank_key(rows, rows, distance=distance).fill_diagonal_(torch.nan)
    same = labels[:, None] == labels
    expected = torch.tensor([torch.inf, -torch.inf], dtype=torch.float64)
    if n_classes == 9:
        expected[0], expected[1] = key[~same].amin(), key[same & ~key.isnan()].amax()
    assert_same_bits(found, expected)


@pytest.mark.parametrize("rule", [{}, *RULES[:3]], ids=str)
def test_a_data_set_in_chunks(rule, module):  # noqa: F811
    rows, labels = class_batch(70, 6, 9, seed=4)
    expected = mine_offline(rows, labels, queries_per_chunk=30, **rule)
    with on_gpu(module):
        ours = mine_offline(rows, labels, queries_per_chunk=30, **rule)
    for one, other in zip(ours, expected, strict=True):
        assert_same_bits(one, other)

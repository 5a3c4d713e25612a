# SPDX-License-Identifier: BSD-3-Clause
"""Which rows are chosen: those of brute force over float64 keys, on data made to mislead."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_choice
from keys_data import KINDS, hard_rows
from op_db import DISTANCES, DTYPES, OP
from samples import Sample, relation
from truths import choice, mined_truth

MINE = OP["mine_triplets"]


def assert_exact_choice(sample: Sample, impl: str = "fused") -> None:
    truth = mined_truth(sample).value
    for name, ours, expected in zip(
        ("anchor", "positive", "negative"), MINE.run(sample, impl), truth, strict=True
    ):
        assert_same_choice(ours, expected, what=f"{name} of {sample.name}")


def _sample(kind, distance, normalize, dtype, n=205, dim=19, n_classes=23):
    rows, labels = hard_rows(kind, n, dim, n_classes, dtype)
    options = {"labels": labels, "distance": distance, "normalize": normalize}
    return Sample(f"{kind} {dtype}", {"embeddings": rows}, options)


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choice_within_the_batch(kind, distance, normalize, dtype):
    assert_exact_choice(_sample(kind, distance, normalize, dtype))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choice_among_references(kind, distance, dtype):
    """The same rows, but two sets to the kernel, which then has no symmetry to use."""
    sample = _sample(kind, distance, False, dtype, n=131)
    rows, labels = sample.tensors["embeddings"], sample.options["labels"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    sample = sample.with_tensors(ref_embeddings=rows[order])
    assert_exact_choice(
        sample.with_options(ref_labels=labels[order], self_index=order.argsort()),
    )


@pytest.mark.parametrize("labels", ["multi_hot", "mask", "int64", "float32"])
@pytest.mark.parametrize("kind", ["integers", "tight_classes", "one_ulp_neighbours", "with_nan"])
@pytest.mark.parametrize("n_ref", [None, 143])
def test_choice_for_every_relation(kind, labels, n_ref):
    rows, _ = hard_rows(kind, 110 + (n_ref or 0), 13, 9, torch.float32)
    options = relation({"labels": labels}, 110, n_ref, torch.Generator().manual_seed(1))
    tensors = {"embeddings": rows[:110]}
    if n_ref is not None:
        tensors["ref_embeddings"] = rows[110:]
    assert_exact_choice(Sample(f"{kind} {labels}", tensors, options))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 60])
@pytest.mark.parametrize("kind", ["random", "integers", "offset"])
def test_choice_for_few_and_many_classes(kind, n_classes):
    """Two classes make tiles that hold positives only; many make tiles without one."""
    rows, labels = hard_rows(kind, 230, 11, n_classes, torch.float32)
    assert_exact_choice(Sample(kind, {"embeddings": rows}, {"labels": labels}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "integers", "duplicates", "all_equal"])
def test_choice_in_every_dtype(kind, dtype):
    assert_exact_choice(_sample(kind, "euclidean", False, dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_reference_chooses_by_the_same_keys(kind, distance):
    for normalize in (False, True):
        assert_exact_choice(_sample(kind, distance, normalize, torch.float32, n=90), "reference")


@pytest.mark.parametrize("kind", ["integers", "offset", "wild_scales", "with_nan"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_isa_makes_the_same_choice(forced_isa, kind, distance):
    assert forced_isa
    assert_exact_choice(_sample(kind, distance, False, torch.float32))
    assert_exact_choice(_sample(kind, distance, True, torch.float64))


def test_equal_keys_go_to_the_lowest_index():
    """By hand: rows 1 and 3 are at distance 1 from row 0, rows 2 and 4 at distance 2."""
    rows = torch.tensor([[0.0], [1.0], [2.0], [-1.0], [-2.0]])
    triplets = MINE.function(rows, torch.tensor([0, 0, 1, 0, 1]))
    assert triplets.anchor.tolist() == [0, 1, 2, 3, 4]
    assert triplets.positive.tolist() == [1, 3, 4, 1, 2]
    assert triplets.negative.tolist() == [2, 2, 1, 4, 3]


def test_the_first_nan_wins_over_every_number():
    rows = torch.tensor([[0.0], [5.0], [float("nan")], [float("nan")], [0.1], [float("nan")]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    triplets = MINE.function(rows, labels)
    assert triplets.positive[0] == 2
    assert triplets.negative[0] == 5


def test_a_row_is_never_its_own_candidate():
    """Duplicates of a row are candidates, the row itself is not."""
    sample = _sample("duplicates", "euclidean", False, torch.float32)
    anchor, positive, negative = MINE.run(sample)
    assert not torch.any(anchor == positive)
    assert not torch.any(anchor == negative)
    positive, _ = choice(sample.with_options(labels=torch.zeros(205, dtype=torch.int64)))
    assert (positive != torch.arange(205).numpy()).all()

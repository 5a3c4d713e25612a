# SPDX-License-Identifier: BSD-3-Clause
"""Sizes, classes, relations and data on a GPU: the choices of the CPU kernels, and the 2x rule."""

from __future__ import annotations

import pytest
import torch

from device import FUSED_DISTANCES, GPU
from keys_data import KINDS, hard_rows
from like_the_cpu import assert_like_the_cpu, assert_reproducible, assert_same_choices
from op_db import DTYPES
from op_db_rows import LABEL_KINDS
from samples import Sample, class_batch, relation, suited

pytestmark = [*GPU, pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")]

SIZES = (1, 2, 3, 31, 33, 127, 128, 129, 255, 257, 511, 1000, 2048, 4097)
FEATURES = (0, 1, 3, 8, 63, 64, 65, 100, 128, 200, 513)
# Tiles, vectors and the numbers of pairs that 32 bits cannot count.
BEYOND = [(70, 5000), (50000, 3)]
# Without order, or too large or small for plain torch to say what float32 may make of them.
WITHOUT_A_BASELINE = ("with_nan", "with_infinity", "beyond_tiles", "squares_overflow")


def _skewed(n: int) -> torch.Tensor:
    """1, 2, ..., 64, 1, 2, ... rows to a class."""
    sizes = torch.arange(n) % 64 + 1
    return torch.repeat_interleave(torch.arange(n), sizes)[:n]


CLASSES = {
    "four_each": lambda n: torch.arange(n) // 4,
    "skewed": _skewed,
    "two": lambda n: torch.arange(n) % 2,
    "one_against_all": lambda n: (torch.arange(n) > 0).long(),
    "one": lambda n: torch.zeros(n, dtype=torch.int64),
    "all_distinct": lambda n: torch.arange(n),
}


def _batch(n: int, dim: int, classes: str = "four_each", dtype=torch.float32, **options) -> Sample:
    rows, _ = class_batch(n, dim, 1, seed=n + dim, dtype=dtype)
    labels = CLASSES[classes](n)[torch.randperm(n, generator=torch.Generator().manual_seed(n))]
    name = f"{n}x{dim} {classes} {dtype}"
    return Sample(name, {"embeddings": rows}, {"labels": labels} | options)


def _with_references(sample: Sample, n_ref: int, classes: str) -> Sample:
    """Some references are the query itself, and are not offered to it."""
    rows = sample.tensors["embeddings"]
    others = _batch(n_ref, rows.shape[1], classes, rows.dtype)
    refs, n = others.tensors["embeddings"], len(rows)
    shared = min(n, n_ref) // 2
    refs[:shared] = rows[:shared]
    self_index = torch.full((n,), -1)
    self_index[:shared] = torch.arange(shared)
    return sample.with_tensors(ref_embeddings=refs).with_options(
        ref_labels=others.options["labels"], self_index=self_index
    )


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("dim", FEATURES)
@pytest.mark.parametrize("n", SIZES)
def test_sizes(n, dim, turn):
    """All in float32, and each in one other dtype."""
    number = SIZES.index(n) + FEATURES.index(dim)
    dtype = (torch.float64, torch.bfloat16, torch.float16)[number % 3] if turn else torch.float32
    assert_like_the_cpu(_batch(n, dim, dtype=dtype))


@pytest.mark.parametrize(("n", "dim"), BEYOND)
def test_sizes_beyond(n, dim):
    assert_like_the_cpu(_batch(n, dim))


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("n", [33, 257, 1000, 4097])
def test_classes(n, classes):
    for dtype in (torch.float32, torch.bfloat16):
        assert_like_the_cpu(_batch(n, 64, classes, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "n_ref"), [(1, 513), (129, 1000), (1000, 333), (4097, 31), (31, 0)])
def test_references(n, n_ref, dtype):
    for classes in ("four_each", "skewed", "two"):
        assert_like_the_cpu(_with_references(_batch(n, 72, classes, dtype), n_ref, classes))


@pytest.mark.parametrize("distance", FUSED_DISTANCES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_distances(distance, dtype):
    for normalize in (False, True):
        sample = _batch(515, 96, "skewed", dtype, distance=distance, normalize=normalize)
        sample = sample.with_tensors(embeddings=suited(sample.tensors["embeddings"], distance))
        assert_like_the_cpu(sample)
        if "(" not in distance:  # the last bit of pow is not the same everywhere
            sample = _with_references(sample, 700, "skewed")
            refs = suited(sample.tensors["ref_embeddings"], distance)
            assert_like_the_cpu(sample.with_tensors(ref_embeddings=refs))


@pytest.mark.parametrize("n_ref", [None, 611])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("labels", LABEL_KINDS)
def test_relations(labels, ignore, n_ref):
    ignore = ignore and labels not in ("multi_hot", "mask")
    sample, generator = _batch(700, 40), torch.Generator().manual_seed(1)
    options = relation({"labels": labels, "ignore": ignore}, 700, n_ref, generator)
    tensors = dict(sample.tensors)
    if n_ref is not None:
        tensors |= {"ref_embeddings": _batch(n_ref, 40).tensors["embeddings"]}
    assert_like_the_cpu(Sample(f"{labels} {n_ref}", tensors, options))


@pytest.mark.parametrize("n_classes", [2, 60])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_choices_on_rows_made_to_mislead(kind, dtype, n_classes):
    rows, labels = hard_rows(kind, 331, 19, n_classes, dtype)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
    refs = {"ref_embeddings": rows[order]}
    others = {"ref_labels": labels[order], "self_index": order.argsort()}
    for distance in FUSED_DISTANCES[:4]:
        for normalize in (False, True):
            name = f"{kind} {dtype} {distance} {normalize}"
            options = {"labels": labels, "distance": distance, "normalize": normalize}
            sample = Sample(name, {"embeddings": rows}, options)
            assert_same_choices(sample)
            assert_same_choices(sample.with_tensors(**refs).with_options(**others))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_large_batches_made_to_mislead(kind, dtype):
    """Many tiles, and enough rows that nothing may be ranked again one by one."""
    rows, labels = hard_rows(kind, 2051, 128, 500, dtype)
    sample = Sample(f"{kind} {dtype}", {"embeddings": rows}, {"labels": labels})
    if kind in WITHOUT_A_BASELINE or not rows.isfinite().all():
        assert_same_choices(sample)
        assert_reproducible(sample)
    else:
        assert_like_the_cpu(sample)


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim", "n_ref"), [(41, 7, 60), (129, 64, 50), (300, 130, 257)])
def test_every_path_on_few_rows(n, dim, n_ref, dtype):
    """What compute-sanitizer can wait for."""
    sample = _batch(n, dim, "skewed", dtype)
    assert_like_the_cpu(sample)
    assert_like_the_cpu(_with_references(sample, n_ref, "two"))
    for distance in FUSED_DISTANCES:
        if distance != "jaccard":
            assert_same_choices(sample.with_options(distance=distance, normalize=n == 41))


@pytest.mark.sanitize
@pytest.mark.parametrize("labels", ["multi_hot", "mask"])
@pytest.mark.parametrize("kind", ["tight_classes", "all_equal", "with_nan", "duplicates"])
def test_every_fallback_on_few_rows(kind, labels):
    rows, _ = hard_rows(kind, 205, 19, 23, torch.float32)
    options = relation({"labels": labels}, len(rows), None, torch.Generator().manual_seed(1))
    for relation_options in ({"labels": torch.arange(len(rows)) // 5}, options):
        sample = Sample(f"{kind} {labels}", {"embeddings": rows}, relation_options)
        assert_same_choices(sample)
        assert_reproducible(sample.with_options(reduction="none"))

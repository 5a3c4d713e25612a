# SPDX-License-Identifier: BSD-3-Clause
"""Labels of every dtype and form mean what they say, to the last bit."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from flashmetric.functional import mine_triplets, triplet_loss
from samples import class_batch

INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
IMPLS = ("fused", "reference")


def _assert_same_triplets(left, right):
    for ours, expected in zip(left, right, strict=True):
        assert_same_bits(ours, expected)


def _expected(rows, classes, **options):
    """The triplets of small int64 classes: the plainest form of labels."""
    return mine_triplets(rows, torch.as_tensor(classes), impl="reference", **options)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_every_dtype_names_the_same_classes(dtype, impl):
    rows, labels = class_batch(60, 5, 17)
    given = labels.to(dtype)
    _assert_same_triplets(mine_triplets(rows, given, impl=impl), _expected(rows, labels))
    ignoring = mine_triplets(rows, given, ignore_label=3, impl=impl)
    _assert_same_triplets(ignoring, _expected(rows, labels, ignore_label=3))
    refs = {"ref_embeddings": rows[20:], "ref_labels": given[20:]}
    among = mine_triplets(rows[:20], given[:20], **refs, impl=impl)
    expected = _expected(rows[:20], labels[:20], ref_embeddings=rows[20:], ref_labels=labels[20:])
    _assert_same_triplets(among, expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (torch.tensor([2**63 - 1, 2**63 - 1, -(2**63), -(2**63), 2**63 - 2]), [0, 0, 1, 1, 2]),
        (torch.tensor([2**32, 2**32, 0, 0, 2**33]), [0, 0, 1, 1, 2]),
        (torch.tensor([0.0, -0.0, 1.0, 1.0, -1.0]), [0, 0, 1, 1, 2]),
        (torch.tensor([1.0, 1.0, 1 + 2**-23, 1 + 2**-23, 1 - 2**-24]), [0, 0, 1, 1, 2]),
        (torch.tensor([float("inf")] * 2 + [-float("inf")] * 2 + [1e38]), [0, 0, 1, 1, 2]),
        (torch.tensor([1e-45, 1e-45, 0.0, 0.0, -1e-45]), [0, 0, 1, 1, 2]),
        (torch.tensor([True, True, False, False, True]), [1, 1, 0, 0, 1]),
    ],
    ids=["int64_limits", "high_bits", "zeros", "neighbours", "infinities", "subnormals", "bool"],
)
def test_labels_are_compared_exactly(labels, classes, impl):
    rows, _ = class_batch(5, 3, 1)
    _assert_same_triplets(mine_triplets(rows, labels, impl=impl), _expected(rows, classes))


@pytest.mark.parametrize("impl", IMPLS)
def test_uint64_above_the_range_of_int64(impl):
    rows, _ = class_batch(6, 3, 1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    high = torch.tensor([2**64 - 1, 2**63, 5], dtype=torch.uint64)[[0, 0, 1, 1, 2, 2]]
    _assert_same_triplets(mine_triplets(rows, high, impl=impl), _expected(rows, labels))
    for value, name in ((2**64 - 1, 0), (2**63, 1)):
        ours = mine_triplets(rows, high, ignore_label=value, impl=impl)
        _assert_same_triplets(ours, _expected(rows, labels, ignore_label=name))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("left", "right"),
    [(torch.int32, torch.int64), (torch.bool, torch.uint8), (torch.float32, torch.float64)],
)
def test_the_sides_may_have_labels_of_two_dtypes_of_one_kind(left, right, impl):
    rows, labels = class_batch(40, 4, 2)
    ours = mine_triplets(
        *(rows[:15], labels[:15].to(left)),
        **{"ref_embeddings": rows[15:], "ref_labels": labels[15:].to(right)},
        impl=impl,
    )
    expected = _expected(rows[:15], labels[:15], ref_embeddings=rows[15:], ref_labels=labels[15:])
    _assert_same_triplets(ours, expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_float32_label_is_not_the_float64_it_was_rounded_from(impl):
    rows, refs = torch.tensor([[0.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    triplets = mine_triplets(
        *(rows, torch.tensor([0.1])),
        ref_embeddings=refs,
        ref_labels=torch.tensor([0.1, float(torch.tensor(0.1)), 0.5], dtype=torch.float64),
        impl=impl,
    )
    assert [t.tolist() for t in triplets] == [[0], [1], [0]]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_label_to_ignore_that_no_row_has_ignores_none(impl):
    rows, labels = class_batch(20, 3, 5)
    for dtype, value in ((torch.uint8, -1), (torch.int64, 99), (torch.float32, 0.5)):
        given = labels.to(dtype)
        ours = mine_triplets(rows, given, ignore_label=value, impl=impl)
        _assert_same_triplets(ours, _expected(rows, labels))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("n_columns", [0, 1, 2, 7, 8, 9, 63, 64, 65, 200])
def test_multi_hot_of_any_width(n_columns, impl):
    generator = torch.Generator().manual_seed(n_columns)
    rows = torch.randn(50, 4, generator=generator)
    hot = torch.rand(50, n_columns, generator=generator) < 2 / max(n_columns, 1)
    mask = (hot.double() @ hot.double().T) > 0
    expected = mine_triplets(rows, same_mask=mask, impl="reference")
    for labels in (hot, hot.long() * 7, hot.float() * -0.25, hot.half()):
        _assert_same_triplets(mine_triplets(rows, labels, impl=impl), expected)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_without_a_class_has_no_positive_and_is_a_negative_of_all(impl):
    rows = torch.tensor([[0.0], [1.0], [0.5], [9.0]])
    hot = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]])
    triplets = mine_triplets(rows, hot, impl=impl)
    assert [t.tolist() for t in triplets] == [[0, 1, 3], [1, 3, 1], [2, 2, 2]]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("n_ref", [0, 1, 95, 96, 97, 131])
def test_a_mask_of_any_width(n_ref, impl):
    """The diagonal of a square mask says nothing: a row is not its own candidate."""
    generator = torch.Generator().manual_seed(n_ref)
    rows, refs = (torch.randn(n, 3, generator=generator) for n in (40, n_ref))
    mask = torch.rand(40, n_ref, generator=generator) < 0.3
    ours = mine_triplets(rows, same_mask=mask, ref_embeddings=refs, impl=impl)
    found = [t.tolist() for t in ours]
    distances = torch.cdist(rows.double(), refs.double())
    for i, positive, negative in zip(*found, strict=True):
        row = distances[i]
        assert row[positive] == row[mask[i]].max()
        assert row[negative] == row[~mask[i]].min()
    assert found[0] == [i for i in range(40) if mask[i].any() and (~mask[i]).any()]


@pytest.mark.parametrize("value", [True, False])
def test_the_diagonal_of_a_mask_says_nothing(value):
    rows, labels = class_batch(30, 4, 6)
    mask = (labels[:, None] == labels).fill_diagonal_(value)
    assert_same_bits(triplet_loss(rows, same_mask=mask), triplet_loss(rows, labels))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float16, torch.float64])
def test_weights_and_margins_of_any_real_dtype(dtype):
    rows, labels = class_batch(30, 4, 6)
    values = (torch.arange(30) % 3 != 0).to(dtype)
    ours = triplet_loss(rows, labels, weights=values, margin=values)
    assert_same_bits(
        ours, triplet_loss(rows, labels, weights=values.double(), margin=values.double())
    )

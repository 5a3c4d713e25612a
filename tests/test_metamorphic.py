# SPDX-License-Identifier: BSD-3-Clause
"""What must not change when the input changes in a way that does not matter.

hypothesis draws seeds, sizes and options; rows come from a local generator, so that a failure
replays. Every property is exact: the bits of each anchor's loss depend on its triplet alone.
"""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from compare import assert_same_bits
from flashmetric.functional import mine_triplets, triplet_loss
from op_db import DISTANCES

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 120)
dims = st.integers(1, 40)
distances = st.sampled_from(DISTANCES)
flags = st.booleans()


def _problem(seed, n, dim, integer=False):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, max(2, n // 3), (n,), generator=generator)
    if integer:
        return torch.randint(-3, 4, (n, dim), generator=generator).float(), labels, generator
    return torch.randn(n, dim, generator=generator), labels, generator


def _each(rows, labels, **options):
    return triplet_loss(rows, labels, reduction="none", margin=1.0, **options)


def _with_gradient(rows, labels, **options):
    rows = rows.clone().requires_grad_()
    loss = triplet_loss(rows, labels, **options)
    loss.backward()
    return loss.detach(), rows.grad


@given(seeds, sizes, dims, distances, flags, flags)
def test_permuting_the_batch_permutes_the_losses(seed, n, dim, distance, normalize, integer):
    rows, labels, generator = _problem(seed, n, dim, integer)
    order = torch.randperm(n, generator=generator)
    options = {"distance": distance, "normalize": normalize}
    shuffled = _each(rows[order], labels[order], **options)
    assert_same_bits(shuffled, _each(rows, labels, **options)[order])


@given(seeds, sizes, dims, distances)
def test_permuting_the_batch_permutes_the_triplets(seed, n, dim, distance):
    """On rows without ties; equal keys go by index, which a permutation changes."""
    rows, labels, generator = _problem(seed, n, dim + 3)
    order = torch.randperm(n, generator=generator)
    moved = mine_triplets(rows[order], labels[order], distance=distance)
    back = torch.stack([order[t] for t in moved])
    expected = torch.stack(list(mine_triplets(rows, labels, distance=distance)))
    assert torch.equal(back[:, back[0].argsort()], expected)


@given(seeds, sizes, dims, distances)
def test_names_of_classes_do_not_matter(seed, n, dim, distance):
    rows, labels, generator = _problem(seed, n, dim)
    names = torch.randperm(10_000, generator=generator)[: labels.max() + 1] - 5_000
    plain = _with_gradient(rows, labels, distance=distance)
    for renamed in (names[labels], names[labels].double() / 4, labels.to(torch.uint8)):
        for ours, expected in zip(
            _with_gradient(rows, renamed, distance=distance), plain, strict=True
        ):
            assert_same_bits(ours, expected)


@given(seeds, sizes, dims, st.sampled_from(["euclidean", "sqeuclidean"]), st.integers(-1000, 1000))
def test_translation_changes_nothing(seed, n, dim, distance, shift):
    """Integer rows and an integer shift: every difference stays exact."""
    rows, labels, generator = _problem(seed, n, dim, integer=True)
    vector = shift + torch.randint(-9, 10, (dim,), generator=generator).float()
    moved = _with_gradient(rows + vector, labels, distance=distance)
    for ours, expected in zip(moved, _with_gradient(rows, labels, distance=distance), strict=True):
        assert_same_bits(ours, expected)


@given(seeds, sizes, dims, st.integers(-20, 20))
def test_a_change_of_unit_scales_the_euclidean_loss(seed, n, dim, exponent):
    """By a power of two, exactly: the margin is in the unit of the distance."""
    rows, labels, _ = _problem(seed, n, dim)
    unit = 2.0**exponent
    loss, grad = _with_gradient(rows, labels, margin=0.75)
    scaled_loss, scaled_grad = _with_gradient(rows * unit, labels, margin=0.75 * unit)
    assert_same_bits(scaled_loss, loss * unit)
    assert_same_bits(scaled_grad, grad)


@given(seeds, sizes, dims, distances)
def test_the_length_of_rows_does_not_matter_after_normalize(seed, n, dim, distance):
    rows, labels, generator = _problem(seed, n, dim)
    lengths = 2.0 ** torch.randint(-6, 7, (n, 1), generator=generator).float()
    options = {"distance": distance, "normalize": True}
    assert_same_bits(_each(rows * lengths, labels, **options), _each(rows, labels, **options))


@given(seeds, st.integers(1, 40), dims, distances)
def test_the_batch_twice_is_every_loss_twice(seed, n_classes, dim, distance):
    """Each class has a second row, so a copy is never a new farthest positive."""
    rows, _, _ = _problem(seed, 2 * n_classes, dim)
    labels = torch.arange(2 * n_classes) % n_classes
    if distance in ("cosine", "dot"):
        labels = labels * 0  # a row's own copy may be its farthest positive there: no triplets
    once = _each(rows, labels, distance=distance)
    twice = _each(rows.repeat(2, 1), labels.repeat(2), distance=distance)
    assert_same_bits(twice, once.repeat(2))


@given(seeds, sizes, dims, flags)
def test_a_far_negative_changes_nothing(seed, n, dim, soft_margin):
    rows, labels, _ = _problem(seed, n, dim)
    labels[:2] = torch.tensor([0, 1])
    far = torch.full((1, dim), 1e6)
    more = _each(
        torch.cat([rows, far]),
        torch.cat([labels, labels.new_tensor([-1])]),
        soft_margin=soft_margin,
    )
    assert_same_bits(more[:n], _each(rows, labels, soft_margin=soft_margin))
    assert more[n] == 0


@given(seeds, sizes, dims, distances, flags)
def test_the_batch_as_its_own_references(seed, n, dim, distance, normalize):
    """self_index turns the reference form into the plain one."""
    rows, labels, _ = _problem(seed, n, dim)
    options = {"distance": distance, "normalize": normalize}
    refs = {"ref_embeddings": rows, "ref_labels": labels, "self_index": torch.arange(n)}
    assert_same_bits(_each(rows, labels, **refs, **options), _each(rows, labels, **options))
    mask = labels[:, None] == labels
    assert_same_bits(_each(rows, None, same_mask=mask, **options), _each(rows, labels, **options))


@given(seeds, sizes, dims, distances)
def test_a_query_alone_is_the_query_in_its_batch(seed, n, dim, distance):
    rows, labels, generator = _problem(seed, n, dim)
    refs, ref_labels = torch.randn(n + 3, dim, generator=generator), torch.arange(n + 3) % 5
    options = {"ref_embeddings": refs, "ref_labels": ref_labels, "distance": distance}
    together = _each(rows, labels, **options)
    one = int(torch.randint(0, n, (), generator=generator))
    assert_same_bits(
        _each(rows[one : one + 1], labels[one : one + 1], **options), together[one : one + 1]
    )


@given(seeds, sizes, dims, distances, flags)
def test_one_hot_rows_are_class_ids(seed, n, dim, distance, integer):
    rows, labels, _ = _problem(seed, n, dim, integer)
    one_hot = torch.nn.functional.one_hot(labels)
    assert_same_bits(
        _each(rows, one_hot, distance=distance), _each(rows, labels, distance=distance)
    )


@given(seeds, sizes, dims, distances, flags)
def test_a_hinge_is_never_negative_and_grows_with_the_margin(seed, n, dim, distance, normalize):
    rows, labels, _ = _problem(seed, n, dim)
    options = {"distance": distance, "normalize": normalize, "reduction": "none"}
    small, large = (triplet_loss(rows, labels, margin=m, **options) for m in (0.1, 0.7))
    assert (small >= 0).all()
    assert (large >= small).all()

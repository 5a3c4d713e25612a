# SPDX-License-Identifier: BSD-3-Clause
"""PKSampler: what is in a batch, how many there are, who sees what, and what a seed decides."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashmetric import PKSampler
from sampler_data import epoch_of_ranks, shuffled_labels


def _most_batches(groups, classes):
    """Counted up one by one: T batches can be filled if the classes bring T * P groups to them."""
    batches = 0
    while sum(min(g, batches + 1) for g in groups) >= classes * (batches + 1):
        batches += 1
    return batches


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    classes=st.integers(1, 5),
    samples=st.integers(1, 4),
    replicas=st.integers(1, 3),
    drop_last=st.booleans(),
    small_classes=st.sampled_from(["replace", "skip"]),
)
def test_an_epoch(sizes, classes, samples, replicas, drop_last, small_classes):
    """For any classes: P different ones, K of each, as many batches as can be, nothing twice."""
    groups = [math.ceil(size / samples) for size in sizes]
    if small_classes == "skip":
        groups = [g if size >= samples else 0 for g, size in zip(groups, sizes, strict=True)]
    full = _most_batches(groups, classes) // replicas if classes <= sum(map(bool, groups)) else 0
    options = {"drop_last": drop_last, "small_classes": small_classes, "replicas": replicas}
    labels = shuffled_labels(sizes)
    try:
        ranks = epoch_of_ranks(labels, classes, samples, **options)
    except ValueError:
        assert full == 0
        return
    assert len({len(batches) for batches in ranks}) == 1
    assert len(ranks[0]) == full or (len(ranks[0]) == full + 1 and not drop_last)
    for step in zip(*ranks, strict=True):
        assert len({len(batch) for batch in step}) == 1, "the ranks work on batches of one size"
    for batch in (batch for batches in ranks for batch in batches[:full]):
        assert len(batch) == classes * samples
    drawn = [batch for batches in ranks for batch in batches]
    for batch in drawn:
        of_class = labels[batch].view(-1, samples)
        assert (of_class == of_class[:, :1]).all()
        assert len(of_class[:, 0].unique()) == len(of_class) >= min(2, classes)
        for group in torch.tensor(batch).view(-1, samples):
            size = sizes[int(labels[group[0]])]
            assert Counter(group.tolist()).most_common(1)[0][1] == math.ceil(samples / size)
    _check_repeats(drawn, labels, sizes, samples)


def _check_repeats(drawn, labels, sizes, samples):
    """Ranks are disjoint: a class repeats samples only to fill its last group."""
    seen = Counter(row for batch in drawn for row in batch)
    for c, size in enumerate(sizes):
        times = [seen[row] for row in (labels == c).nonzero().flatten().tolist()]
        assert sum(times) <= math.ceil(size / samples) * samples
        assert max(times) <= math.ceil(samples / size) + (size > samples)
        assert sum(times) == 0 or max(times) - min(times) <= 1


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_equal_classes_are_seen_exactly_once(replicas):
    ranks = epoch_of_ranks(shuffled_labels([12] * 16), 8, 4, replicas=replicas)
    rows = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(rows) == list(range(16 * 12))


def test_every_sample_is_seen_where_classes_differ():
    sizes = [3, 5, 8, 9, 4, 7, 6, 10, 2]  # 17 groups: five batches of three, one of two
    (batches,) = epoch_of_ranks(shuffled_labels(sizes), 3, 4)
    assert {row for batch in batches for row in batch} == set(range(sum(sizes)))


def test_a_class_larger_than_all_others_is_in_every_batch_and_changes():
    labels = shuffled_labels([10_000, 8, 8, 8, 8])
    (first,), (second,) = (epoch_of_ranks(labels, 3, 4, epoch=epoch) for epoch in (0, 1))
    assert len(first) == _most_batches([2500, 2, 2, 2, 2], 3) == 4
    for batches in (first, second):
        assert all((labels[batch] == 0).sum() == 4 for batch in batches)
    giants = [{r for b in e for r in b if labels[r] == 0} for e in (first, second)]
    assert not giants[0] & giants[1]


@pytest.mark.parametrize("sizes", [[400] * 10, [100] * 10 + [300] * 2], ids=["equal", "unequal"])
def test_every_two_classes_meet_in_an_epoch(sizes):
    labels = shuffled_labels(sizes)
    (batches,) = epoch_of_ranks(labels, 4, 4)
    met = Counter()
    for batch in batches:
        met.update(combinations(sorted(set(labels[batch].tolist())), 2))
    assert len(met) == math.comb(len(sizes), 2)


def test_a_smaller_last_batch_and_without():
    labels = shuffled_labels([4, 4, 4, 4, 4, 4, 4, 4])
    assert [len(batch) for batch in epoch_of_ranks(labels, 3, 4)[0]] == [12, 12, 8]
    assert [len(batch) for batch in epoch_of_ranks(labels, 3, 4, drop_last=True)[0]] == [12, 12]
    both = epoch_of_ranks(labels, 3, 2, replicas=2)
    assert [[len(batch) for batch in batches] for batches in both] == [[6, 6, 4], [6, 6, 4]]
    assert [len(batch) for batch in epoch_of_ranks(labels[labels < 7], 3, 4)[0]] == [12, 12], (
        "one class"
    )


def test_small_classes():
    labels = shuffled_labels([2, 6, 6])
    replaced = [row for batch in epoch_of_ranks(labels, 2, 4)[0] for row in batch]
    assert Counter(labels[replaced].tolist())[0] == 4
    skipped = [
        row for batch in epoch_of_ranks(labels, 2, 4, small_classes="skip")[0] for row in batch
    ]
    assert 0 not in labels[skipped]


def test_ignored_samples_are_not_drawn():
    labels = torch.tensor([-1, 3, 3, 5, 5, -1])
    (batches,) = epoch_of_ranks(labels, 2, 2, ignore_label=-1)
    assert sorted(row for batch in batches for row in batch) == [1, 2, 3, 4]
    wide = torch.tensor([2**64 - 1, 3, 3, 5, 5, 2**64 - 1], dtype=torch.uint64)
    assert epoch_of_ranks(wide, 2, 2, ignore_label=2**64 - 1) == [batches]


def test_passes_are_epochs_and_a_seed_decides_them():
    labels = shuffled_labels([12] * 8)
    sampler = PKSampler(labels, 4, 4, seed=3)
    passes = [list(sampler) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    again = PKSampler(labels, 4, 4, seed=3)
    for epoch in (2, 0, 1):
        again.set_epoch(epoch)
        assert list(again) == passes[epoch]
    again.set_epoch(1)
    next(iter(again))
    assert list(again) == passes[2], "a pass that is given up is over"
    assert list(PKSampler(labels, 4, 4, seed=4)) not in passes


def test_a_generator_decides_the_seed():
    labels = shuffled_labels([12] * 8)
    first, second = (
        list(PKSampler(labels, 4, 4, generator=torch.Generator().manual_seed(9))) for _ in "ab"
    )
    assert first == second
    generator = torch.Generator().manual_seed(9)
    seeds = {PKSampler(labels, 4, 4, generator=generator).seed for _ in range(5)}
    assert len(seeds) == 5


def test_numbers_of_numpy_are_numbers():
    labels = shuffled_labels([12] * 8)
    sampler = PKSampler(labels, np.int64(4), np.int32(4), seed=np.int64(3))
    assert list(sampler) == list(PKSampler(labels, 4, 4, seed=3))


def test_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    list(PKSampler(shuffled_labels([5] * 6), 2, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_labels_of_every_kind_give_the_same_batches():
    labels = shuffled_labels([5, 6, 7, 8])
    expected = list(PKSampler(labels, 2, 3))
    shifted = (labels - 2).to(torch.int8)
    kinds = [labels.tolist(), labels.numpy(), tuple(labels.tolist()), shifted, labels.to("cpu")]
    kinds += [labels.to(getattr(torch, f"uint{bits}")) for bits in (8, 16, 32, 64)]
    frozen = labels.numpy().astype(np.uint16)
    frozen.flags.writeable = False
    kinds += [frozen, list(labels), [np.int32(label) for label in labels]]
    for kind in kinds:
        assert list(PKSampler(kind, 2, 3)) == expected, type(kind)
    two = [batch for batch in PKSampler(labels > 1, 2, 3)]
    assert all(((labels > 1)[batch]).sum() == 3 for batch in two)


FOUR = torch.tensor([0, 0, 1, 1])
ERRORS = [
    ((FOUR, 2.0, 2), {}, "classes_per_batch must be an integer; got float."),
    ((FOUR, True, 2), {}, "classes_per_batch must be an integer; got bool."),
    ((FOUR, 0, 2), {}, "classes_per_batch must be at least 1; got 0."),
    ((FOUR, 2, -1), {}, "samples_per_class must be at least 1; got -1."),
    ((FOUR, 3, 2), {}, "classes_per_batch must be at most 2, the number of classes to draw from;"),
    ((FOUR, 1, 3), {"small_classes": "skip"}, "classes_per_batch must be at most 0, the number"),
    ((FOUR, 2, 2), {"small_classes": "drop"}, "small_classes must be one of 'replace', 'skip';"),
    ((FOUR.float(), 2, 2), {}, "labels must be integers or bools; got torch.float32."),
    ((["a", "b"], 1, 1), {}, "labels must be a tensor, an array or a list of integers; got list:"),
    ((FOUR[None], 2, 2), {}, "labels must have shape (N,), one per sample; got (1, 4)."),
    (([], 2, 2), {}, "labels must not be empty."),
    ((FOUR, 2, 2), {"seed": 1.5}, "seed must be an integer; got float."),
    ((FOUR, 2, 2), {"generator": 3}, "generator must be a torch.Generator; got int."),
    ((FOUR, 2, 2), {"num_replicas": 0}, "num_replicas must be at least 1; got 0."),
    ((FOUR, 2, 2), {"num_replicas": 2, "rank": 2}, "rank must be below num_replicas, 2; got 2."),
    ((FOUR, 2, 2), {"num_replicas": 3}, "labels must fill a batch for each of 3 replicas; got"),
    ((FOUR, 2, 2), {"ignore_label": 0.5}, "ignore_label must be an integer; got float."),
]


@pytest.mark.parametrize(("arguments", "options", "message"), ERRORS, ids=[e[2] for e in ERRORS])
def test_message(arguments, options, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        PKSampler(*arguments, **options)
    assert str(caught.value).startswith(f"[PKSampler] {message}")


def test_the_state_of_another_sampler_is_refused():
    state = PKSampler(FOUR, 2, 2).state_dict()
    for other in (PKSampler(FOUR, 2, 1), PKSampler(FOUR, 2, 2, seed=1)):
        with pytest.raises(ValueError, match=r"\[PKSampler\] state must be of a sampler with"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="consumed must be at least 0"):
        PKSampler(FOUR, 2, 2).state_dict(consumed=-1)
    with pytest.raises(TypeError, match="epoch must be an integer"):
        PKSampler(FOUR, 2, 2).set_epoch(None)

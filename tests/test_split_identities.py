# SPDX-License-Identifier: BSD-3-Clause
"""split_identities: no identity on two sides, sizes exact, strata alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashmetric import split_identities


def _identities(parts, labels):
    return [set(labels[part].tolist()) for part in parts]


@given(
    labels=st.lists(st.integers(-5, 30), min_size=1, max_size=80),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**31),
)
def test_every_sample_is_in_one_part_with_all_of_its_identity(labels, share, seed):
    labels = torch.tensor(labels)
    n = len(labels.unique())
    if round(n * (1 - share)) in (0, n):
        with pytest.raises(ValueError, match="must leave each part an identity"):
            split_identities(labels, share, seed=seed)
        return
    parts = split_identities(labels, share, seed=seed)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    training, validation = _identities(parts, labels)
    assert not training & validation
    assert len(validation) == n - round(n * (1 - share))
    assert all(part.dtype == torch.int64 and (part.diff() > 0).all() for part in parts)


def test_shares_and_sizes_of_several_parts():
    labels = torch.arange(60) % 20
    by_size = split_identities(labels, [14, 4, 2])
    by_share = split_identities(labels, (0.7, 0.2, 0.1))
    for parts in (by_size, by_share):
        assert [len(ids) for ids in _identities(parts, labels)] == [14, 4, 2]
    assert all(torch.equal(a, b) for a, b in zip(by_size, by_share, strict=True))


def test_a_seed_decides():
    labels = torch.arange(200) % 50
    assert torch.equal(split_identities(labels, 0.3)[1], split_identities(labels, 0.3)[1])
    first, second = (split_identities(labels, 0.3, seed=seed)[1] for seed in (0, 1))
    assert not torch.equal(first, second)
    drawn = [
        split_identities(labels, 0.3, generator=torch.Generator().manual_seed(5)) for _ in "ab"
    ]
    assert torch.equal(drawn[0][1], drawn[1][1])


def test_each_stratum_is_split_alike():
    labels = torch.arange(3000) % 300
    strata = torch.where(labels < 200, 0, torch.where(labels < 280, 1, 2))
    parts = split_identities(labels, [0.5, 0.3, 0.2], stratify=strata.tolist())
    assert [len(ids) for ids in _identities(parts, labels)] == [150, 90, 60]
    for part, share in zip(parts, (0.5, 0.3, 0.2), strict=True):
        for stratum, size in enumerate((200, 80, 20)):
            inside = labels[part][strata[part] == stratum].unique()
            assert abs(len(inside) - share * size) <= 2


def test_strata_of_one_identity_are_drawn_at_random():
    labels = torch.arange(100)
    first, second = (split_identities(labels, 0.2, stratify=labels, seed=s)[1] for s in (0, 1))
    assert len(first) == len(second) == 20
    assert not torch.equal(first, second)


IDS = torch.tensor([1, 1, 2, 3])
ERRORS = [
    ((IDS, 0.0), {}, "parts must lie between 0 and 1; got 0.0."),
    ((IDS, 1), {}, "parts must lie between 0 and 1; got 1."),
    ((IDS, float("nan")), {}, "parts must be finite; got nan."),
    ((IDS, "half"), {}, "parts must be a share or a sequence of shares or sizes; got 'half'."),
    ((IDS, []), {}, "parts must be a share or a sequence of shares or sizes; got []."),
    ((IDS, [2, 2]), {}, "parts must add up to 3, the number of identities; got 4."),
    ((IDS, [3, 0]), {}, "parts[1] must be at least 1; got 0."),
    ((IDS, [0.5, 0.6]), {}, "parts must add up to 1; got 1.1."),
    ((IDS, [0.5, "x"]), {}, "parts[1] must be a number; got str."),
    ((IDS, 0.01), {}, "parts must leave each part an identity; got [3, 0] of 3 identities."),
    ((IDS, 0.5), {"stratify": IDS[:2]}, "stratify must have shape (4,); got (2,)."),
    ((IDS, 0.5), {"stratify": [0, 1, 0, 0]}, "stratify must be the same for all samples of an id"),
    ((IDS.float(), 0.5), {}, "labels must be integers or bools; got torch.float32."),
    ((IDS, 0.5), {"seed": -1}, "seed must be at least 0; got -1."),
]


@pytest.mark.parametrize(("arguments", "options", "message"), ERRORS, ids=[e[2] for e in ERRORS])
def test_message(arguments, options, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        split_identities(*arguments, **options)
    assert str(caught.value).startswith(f"[split_identities] {message}")

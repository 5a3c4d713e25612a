# SPDX-License-Identifier: BSD-3-Clause
"""Tiles of bytes are tried on some rows (cpu/trial.h), and left where they decide too little."""

from __future__ import annotations

import pytest
import torch

from flashmetric import _C, mine_triplets, quadruplet_loss
from test_isa import SUPPORTED

pytestmark = pytest.mark.skipif(
    "avx512_vnni" not in SUPPORTED, reason="this machine does not multiply bytes"
)


@pytest.fixture(autouse=True)
def leave_trials():
    yield
    _C.decide_trials(0)


def _keys(rows, labels, verdict):
    """How many keys a call computes where trials end so; and what it chooses."""
    _C.decide_trials(verdict)
    before = _C.counters()["rescored"]
    chosen = torch.stack([*mine_triplets(rows, labels)])
    return _C.counters()["rescored"] - before, chosen


def _classes(n, width, dim=128):
    """Standard normal rows about the centres of four rows each, so many times as far apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) // 4
    centres = torch.randn(n, dim, generator=generator)[labels]
    return centres + width * torch.randn(n, dim, generator=generator), labels


@pytest.mark.parametrize(
    ("isa", "n", "width", "ranks"),
    [
        ("avx512_vnni", 1024, 10.0, True),
        ("avx512_vnni", 1024, 0.01, False),
        ("avx512_bf16", 1024, 10.0, True),
        ("avx512_bf16", 1024, 0.1, False),
        ("avx512_bf16", 600, 10.0, False),  # too few for a trial
    ],
)
def test_bytes_rank_where_they_leave_few(isa, n, width, ranks):
    if isa not in SUPPORTED:
        pytest.skip(f"this machine does not run {isa}")
    _C.force_isa(isa)
    rows, labels = _classes(n, width)
    (without, first), (tried, second), (with_bytes, third) = (
        _keys(rows, labels, verdict) for verdict in (-1, 0, 1)
    )
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert abs(with_bytes - without) > 400
    # A few more or less, as threads find candidates in another order; a trial that fills no list
    # computes no key.
    assert abs(tried - (with_bytes if ranks else without)) < 50


def test_two_classes_are_tried_with_negatives():
    """The first blocks in the order of labels hold one class; the tight one has the many ties."""
    _C.force_isa("avx512_vnni")
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2048) // 1024
    rows = torch.randn(2048, 128, generator=generator)
    rows[1024:] *= 0.01
    before = _C.counters()["fallback_rows"]
    _keys(rows, labels, 0)
    assert _C.counters()["fallback_rows"] == before


def _told(relation, rows, labels):
    if relation == "references":
        return (rows[:50], labels[:50]), {"ref_embeddings": rows, "ref_labels": labels}
    if relation == "multi_hot":
        return (rows, torch.nn.functional.one_hot(labels).bool()), {}
    if relation == "mask":
        return (rows,), {"same_mask": labels[:, None] == labels}
    return (rows, labels), {}


@pytest.mark.parametrize("isa", ["avx512_vnni", "avx512_bf16"])
@pytest.mark.parametrize("width", [10.0, 0.01])
@pytest.mark.parametrize("relation", ["classes", "references", "multi_hot", "mask"])
def test_trials_of_every_relation(isa, width, relation):
    """Whether the trial ends well or badly, the choices are those of float32."""
    if isa not in SUPPORTED:
        pytest.skip(f"this machine does not run {isa}")
    rows, labels = _classes(900, width, 40)
    args, options = _told(relation, rows, labels)
    _C.force_isa("avx512")
    expected = torch.stack([*mine_triplets(*args, **options)])
    _C.force_isa(isa)
    for verdict in (-1, 0, 1):
        _C.decide_trials(verdict)
        assert torch.equal(torch.stack([*mine_triplets(*args, **options)]), expected)


@pytest.mark.parametrize("width", [10.0, 0.01])
def test_trials_of_queries_with_two_labels(width):
    """The second negatives of quadruplets."""
    rows, labels = _classes(900, width, 40)
    losses = []
    for isa in ("avx512", "avx512_vnni"):
        _C.force_isa(isa)
        losses.append(quadruplet_loss(rows, labels))
    assert torch.equal(*losses)

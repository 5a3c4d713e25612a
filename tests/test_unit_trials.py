# SPDX-License-Identifier: BSD-3-Clause
"""Tiles of bytes are tried on some rows (cpu/trial.h), and left where they decide too little."""

from __future__ import annotations

import pytest
import torch

from flashmetric import _C, mine_triplets
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
    assert without < with_bytes
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    # A trial computes no more keys than rows have full lists.
    assert abs(tried - (with_bytes if ranks else without)) <= 24 * 16


@pytest.mark.parametrize("isa", ["avx512_vnni", "avx512_bf16"])
@pytest.mark.parametrize("relation", ["classes", "references", "multi_hot", "mask"])
def test_trials_of_every_relation(isa, relation):
    """More references than a trial takes, in either unit: the choices are those of float32."""
    if isa not in SUPPORTED:
        pytest.skip(f"this machine does not run {isa}")
    rows, labels = _classes(900, 1.0, 40)
    hot = torch.nn.functional.one_hot(labels).bool()
    told = {
        "classes": ((rows, labels), {}),
        "references": ((rows[:50], labels[:50]), {"ref_embeddings": rows, "ref_labels": labels}),
        "multi_hot": ((rows, hot), {}),
        "mask": ((rows,), {"same_mask": labels[:, None] == labels}),
    }
    args, options = told[relation]
    _C.force_isa("avx512")
    expected = mine_triplets(*args, **options)
    _C.force_isa(isa)
    for got, want in zip(mine_triplets(*args, **options), expected, strict=True):
        assert torch.equal(got, want)

# SPDX-License-Identifier: BSD-3-Clause
"""Ranking in 8 bits or bfloat16 decides nothing that the float64 keys would decide otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import emulation_amx
from emulation import built_once
from flashmetric import _C, mine_triplets
from keys_data import KINDS, NARROW_KINDS, hard_rows, narrow_data
from op_db import DISTANCES
from samples import Sample, relation
from test_choices import assert_exact_choice
from test_isa import SUPPORTED

# The instruction set, and the verdict of trials that leaves it this unit.
UNITS = {"amx": ("amx", 0), "bf16": ("avx512_bf16", -1), "int8": ("avx512_vnni", 1)}
NARROW = [name for name, (isa, _) in UNITS.items() if isa in SUPPORTED]
EMULATED = ["emulated amx"] if "avx512_bf16" in SUPPORTED else []

needs_narrow = pytest.mark.usefixtures("narrow_only")


@pytest.fixture(scope="session")
def emulated_amx(tmp_path_factory):
    return built_once(tmp_path_factory, "emulated_amx", emulation_amx.build)


@pytest.fixture(autouse=True, params=[*NARROW, *EMULATED] or ["float32"])
def unit(request, monkeypatch) -> Iterator[str]:
    """Every unit at any size. Where there is none, choices are tested with the tiles there are."""
    if request.param == "emulated amx":
        emulation_amx.in_place_of(request.getfixturevalue("emulated_amx"), monkeypatch)
    elif request.param in NARROW:
        isa, verdict = UNITS[request.param]
        _C.force_isa(isa)
        _C.decide_trials(verdict)
    _C.rank_narrow_always(True)
    yield request.param
    _C.rank_narrow_always(False)
    _C.decide_trials(0)


@pytest.fixture
def narrow_only(unit):
    if unit == "float32":
        pytest.skip("this machine multiplies neither bytes nor bfloat16 pairs")


def _sample(rows, labels, **options):
    return Sample("narrow", {"embeddings": rows}, {"labels": labels, **options})


@contextmanager
def slack_times(factor: float) -> Iterator[None]:
    _C.set_slack_factor(factor)
    try:
        yield
    finally:
        _C.set_slack_factor(1.0)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", NARROW_KINDS)
@pytest.mark.parametrize(("n", "dim"), [(97, 1), (300, 33), (250, 130)])
def test_the_choice_is_that_of_the_keys(kind, distance, n, dim):
    rows, labels = narrow_data(kind, n, dim)
    assert_exact_choice(_sample(rows, labels, distance=distance))


@pytest.mark.parametrize("kind", ["tight", "every_row_often"])
@pytest.mark.parametrize("labels", ["multi_hot", "mask", "int64"])
def test_the_choice_for_every_relation(kind, labels):
    """Duplicates are dropped only where the labels are classes."""
    rows, _ = narrow_data(kind, 330, 20)
    options = relation({"labels": labels}, 150, 180, torch.Generator().manual_seed(1))
    tensors = {"embeddings": rows[:150], "ref_embeddings": rows[150:]}
    assert_exact_choice(Sample(labels, tensors, options))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 5, 100])
def test_equal_rows_of_many_classes(n_classes, unit):
    """Every reference ties. Two of a class and four classes are kept; the lowest is among them."""
    rng = np.random.default_rng(n_classes)
    labels = torch.from_numpy(rng.integers(0, n_classes, 400))
    rows = torch.ones(400, 5)
    rows[::7] = 2
    before = _C.counters()["fallback_rows"]
    assert_exact_choice(_sample(rows, labels))
    if n_classes > 1 and unit != "float32":
        assert _C.counters()["fallback_rows"] > before


@pytest.mark.parametrize("kind", ["every_row_often", "halves_equal"])
def test_duplicates_that_are_the_query_itself(kind):
    """The lowest of equal rows is no candidate where it is the query, whatever its label."""
    rows, labels = narrow_data(kind, 200, 6)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    other = labels[order].roll(3)
    sample = Sample(
        kind,
        {"embeddings": rows, "ref_embeddings": rows[order]},
        {"labels": labels, "ref_labels": other, "self_index": order.argsort()},
    )
    assert_exact_choice(sample)


@given(
    n=st.integers(2, 140),
    dim=st.integers(1, 70),
    kind=st.sampled_from([*NARROW_KINDS, *(f"hard:{kind}" for kind in KINDS)]),
    distance=st.sampled_from(DISTANCES),
    normalize=st.booleans(),
    scale=st.integers(-60, 60),
    seed=st.integers(0, 2**16),
)
def test_no_counterexample_is_found(n, dim, kind, distance, normalize, scale, seed):
    if kind.startswith("hard:"):
        rows, labels = hard_rows(kind[5:], n, dim, max(2, n // 4), torch.float32, seed)
    else:
        rows, labels = narrow_data(kind, n, dim, seed)
    rows = rows * 2.0**scale
    assert_exact_choice(_sample(rows, labels, distance=distance, normalize=normalize))


@needs_narrow
def test_a_bound_that_is_too_small_is_noticed():
    """A hundredth of the slack: then these tests find a wrong choice, and with all of it none."""
    rows, labels = narrow_data("tight", 400, 64)
    with slack_times(0.01), pytest.raises(AssertionError):
        assert_exact_choice(_sample(rows, labels))
    assert_exact_choice(_sample(rows, labels))


def _products(rows, unit):
    """Inner products of all rows, as the tiles of the unit compute them."""
    out = torch.empty(len(rows), len(rows))
    _C.narrow_products(unit, rows.contiguous(), out)
    return out.double()


def _rounded(rows):
    """To bfloat16, subnormal results to zero."""
    b = rows.bfloat16().double()
    return torch.where(b.abs() < 2.0**-126, 0.0, b)


def _extremes(n, dim):
    """What the certificate assumes of the unit, pushed: cancellation, ties, subnormal numbers."""
    rng = np.random.default_rng([n, dim])
    sign = rng.choice((-1.0, 1.0), (n, dim))
    yield sign * 2.0 ** rng.integers(-60, 1, (n, dim))
    yield sign * 2.0 ** rng.integers(-149, 1, (n, dim))
    yield sign * 2.0 ** rng.integers(-140, -120, (n, dim))
    yield sign * 2.0 ** rng.integers(-66, -60, (n, dim))  # products around the smallest normal
    yield sign * (1 + 2.0**-7 * rng.integers(0, 128, (n, dim)))
    yield rng.standard_normal((n, dim))
    yield np.sort(rng.standard_normal((n, dim)), 1)
    alternating = np.where(np.arange(dim) % 2, 1.0, -1.0)  # large terms cancel, small ones remain
    yield np.where(rng.random((n, dim)) < 0.5, alternating, 2.0**-12 * sign)


SHAPES = [(96, 1), (40, 2), (96, 33), (96, 64), (17, 511)]


@needs_narrow
@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_the_unit_rounds_as_assumed(n, dim, unit):
    """docs/numerics-mining.md: within 2 dim u of the sum of absolute products, but for what is
    flushed."""
    if unit == "int8":
        pytest.skip("bytes are added up exactly")
    for rows in _extremes(n, dim):
        x = torch.from_numpy(rows).float()
        b = _rounded(x)
        exact = b @ b.T  # products of 8 bits are exact, and 2^-53 is nothing beside 2^-24
        allowed = 2 * dim * 2.0**-24 * (b.abs() @ b.abs().T) + 2 * dim * 2.0**-126
        assert ((_products(x, "bf16") - exact).abs() <= allowed).all()


@needs_narrow
@pytest.mark.parametrize(("n", "dim"), SHAPES)
def test_bytes_are_added_up_exactly(n, dim, unit):
    """The sum of whole numbers becomes a float and is scaled twice; rows too short are zeros."""
    if unit != "int8":
        pytest.skip("multiplies no bytes")
    for rows in _extremes(n, dim):
        x = torch.from_numpy(rows).float()
        largest = x.abs().amax(1, keepdim=True)
        whole = torch.round(x * (127 / largest)).double()
        whole = torch.where(largest > 2.0**-100, whole, 0.0)
        step = (largest / 127).double()
        exact = whole @ whole.T * (step @ step.T)
        allowed = 4 * 2.0**-24 * exact.abs() + 2.0**-126
        assert ((_products(x, "int8") - exact).abs() <= allowed).all()


@pytest.mark.parametrize("dim", [2**17 - 3, 2**17, 2**17 + 4])
def test_as_many_features_as_sums_of_bytes_hold(dim):
    """The largest sums there are, of rows in one direction; and rows that bytes do not take."""
    signs = torch.where(torch.rand(9, dim, generator=torch.Generator().manual_seed(4)) < 0.5, -1, 1)
    rows = 1.1 * signs.float()
    rows[3:6] = rows[0] * torch.tensor([[1.0], [0.5], [-1.0]])
    assert_exact_choice(_sample(rows, torch.arange(9) % 3))


@needs_narrow
def test_small_batches_rank_in_float32():
    """Where it does not pay, the bits are the same and the keys are fewer."""
    rows, labels = narrow_data("tight", 100, 16)
    rescored = {}
    for always in (False, True):
        _C.rank_narrow_always(always)
        before = _C.counters()["rescored"]
        assert_exact_choice(_sample(rows, labels))
        rescored[always] = _C.counters()["rescored"] - before
    assert rescored[False] < rescored[True]


def _candidates(rows):
    before = _C.counters()["candidates"]
    assert_exact_choice(_sample(rows, torch.arange(len(rows)) // 4))
    return _C.counters()["candidates"] - before


@needs_narrow
@pytest.mark.parametrize("offset", [0.0, 8.0])
def test_rows_of_8_bits_rank_as_they_are(offset, unit):
    """Nothing is rounded then, which leaves fewer candidates; rows that are mostly an offset are
    centred all the same, and leave as many as others."""
    if unit == "int8":
        pytest.skip("rounds them to steps like any others")
    generator = torch.Generator().manual_seed(3)
    rows = (torch.randn(1024, 128, generator=generator) + offset).bfloat16()
    narrow, wide = _candidates(rows), _candidates(rows.float() * (1 + 2.0**-12))
    assert narrow < 0.97 * wide if offset == 0 else narrow < 1.05 * wide


@needs_narrow
def test_candidates_are_few():
    """What bench and docs/performance.md promise, here at a smaller size."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1024) // 4
    random = torch.randn(1024, 128, generator=generator)
    tight = random[labels * 4] + 0.3 * torch.randn(1024, 128, generator=generator)
    for rows, limit in ((random, 3.5), (tight, 5.0)):
        before = _C.counters()
        mine_triplets(rows, labels)
        candidates = _C.counters()["candidates"] - before["candidates"]
        assert 2 * 1024 <= candidates <= limit * 1024

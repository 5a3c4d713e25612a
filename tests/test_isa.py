# SPDX-License-Identifier: BSD-3-Clause
"""Every ISA compiled in computes every row of the table; forcing one is what it says."""

from __future__ import annotations

import os
from itertools import product

import pytest
import torch

from compare import assert_same_choice
from flashmetric import _C, mine_triplets
from fresh_python import run_python
from keys_data import KINDS, NARROW_KINDS, hard_rows, narrow_data
from op_db import cases
from test_gradients import assert_value_and_gradient, judge

ISAS = dict(_C.isas())
SUPPORTED = [name for name, supported in ISAS.items() if supported]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("op", "row"), cases(differentiable=True))
def test_value_and_gradient(op, row, dtype):
    """The judgement is the same for all, so the ISAs take turns inside of one test."""
    sample = op.sample(row, dtype)
    judged = judge(op, sample)
    for name in SUPPORTED:
        _C.force_isa(name)
        assert _C.isa() == name
        assert_value_and_gradient(op, sample, judged)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("op", "row"), cases(differentiable=False))
def test_choice(op, row, dtype):
    sample = op.sample(row, dtype)
    truth = op.truth(sample).value
    for name in SUPPORTED:
        _C.force_isa(name)
        for ours, expected in zip(op.run(sample), truth, strict=True):
            assert_same_choice(ours, expected, what=name)


def test_every_isa_is_tested(forced_isa):
    """What this machine cannot run is skipped here, by name, where it can be seen."""
    assert forced_isa in SUPPORTED


def test_portable_is_always_there_and_the_best_is_automatic():
    names = list(ISAS)
    assert names[-1] == "portable"
    assert ISAS["portable"]
    _C.force_isa("")
    automatic = os.environ.get("FLASHMETRIC_ISA") or next(name for name in names if ISAS[name])
    assert _C.isa() == automatic


def test_an_unknown_isa_is_refused_with_the_known_ones():
    before = _C.isa()
    with pytest.raises(ValueError, match="sse9") as caught:
        _C.force_isa("sse9")
    assert all(name in str(caught.value) for name in ISAS)
    assert _C.isa() == before


@pytest.mark.parametrize("name", list(ISAS))
def test_the_environment_forces_an_isa(name):
    if not ISAS[name]:
        pytest.skip(f"this machine does not run the {name} kernels")
    script = "import flashmetric._C as c; print(c.isa())"
    assert run_python(script, env={"FLASHMETRIC_ISA": name}).strip() == name


@pytest.fixture
def all_units():
    """Units rank whether it pays or not; the test says how trials end."""
    _C.rank_narrow_always(True)
    yield
    _C.rank_narrow_always(False)
    _C.decide_trials(0)


@pytest.mark.usefixtures("all_units")
@pytest.mark.parametrize("distance", ["euclidean", "snr"])
@pytest.mark.parametrize("kind", [*NARROW_KINDS, *(f"hard:{kind}" for kind in KINDS)])
def test_every_isa_makes_the_same_choice(kind, distance):
    if kind.startswith("hard:"):
        rows, labels = hard_rows(kind[5:], 260, 40, 30, torch.float32)
    else:
        rows, labels = narrow_data(kind, 260, 40)
    choices = []
    for isa, verdict in product(SUPPORTED, (-1, 0, 1)):
        _C.force_isa(isa)
        _C.decide_trials(verdict)
        choices.append(torch.stack([*mine_triplets(rows, labels, distance=distance)]))
    assert all(torch.equal(choices[0], other) for other in choices)

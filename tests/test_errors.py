# SPDX-License-Identifier: BSD-3-Clause
"""Every refusal names the op, the argument, the rule and what was got; the text is tested."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch

from error_inputs import BASE, LABELS, ROWS
from flashmetric import _C, TripletLoss, TripletMarginLoss, functional
from flashmetric.functional import triplet_loss, triplet_margin_loss
from fresh_python import run_python
from op_db import DISTANCES, OPS, REDUCTIONS
from op_errors import ERRORS
from samples import class_batch


@pytest.mark.parametrize("base", BASE)
def test_the_base_of_the_error_inputs_is_valid(base):
    """Else every error below might be that of the base."""
    name, options = BASE[base]
    getattr(functional, name)(**options)


@pytest.mark.parametrize("case", ERRORS, ids=[f"{e.base}-{e.message}" for e in ERRORS])
def test_message(case):
    name, options = BASE[case.base]
    for impl in ("auto", "fused", "reference"):
        call = {"impl": impl} | options | case.change
        with pytest.raises(case.error) as caught:
            getattr(functional, name)(**call)
        assert str(caught.value) == f"[{name}] {case.message}"


def test_every_argument_has_an_error_input():
    changed = {argument for case in ERRORS for argument in case.change}
    functions = [getattr(functional, name) for name in functional.__all__]
    known = {name for each in functions for name in inspect.signature(each).parameters}
    assert {BASE[case.base][0] for case in ERRORS} == set(functional.__all__)
    assert known == changed


@pytest.mark.parametrize("module", [TripletLoss, TripletMarginLoss])
def test_a_module_refuses_options_when_it_is_made(module):
    """Not in the first training step."""
    with pytest.raises(ValueError, match="distance must be one of 'euclidean'"):
        module(distance="l2")
    with pytest.raises(ValueError, match="reduction must be one of 'mean'"):
        module(reduction="avg")


def test_the_first_wrong_argument_is_named_not_the_last():
    with pytest.raises(ValueError, match="distance"):
        triplet_loss(ROWS, LABELS[:2], distance="l2")


def test_labels_that_cannot_be_read_are_not_read():
    """NaN labels are a value check: under FakeTensor there is no value to look at."""
    names = LABELS.float()
    with torch._subclasses.FakeTensorMode() as mode:
        rows, labels = mode.from_tensor(ROWS), mode.from_tensor(names)
        assert triplet_loss(rows, labels).shape == ()


def test_a_device_without_kernels_runs_the_reference_with_one_warning():
    """impl="auto" says once why it does not run fused; impl="fused" refuses."""
    script = """
import warnings, torch, flashmetric
from flashmetric import _ops
from flashmetric.functional import triplet_loss
_ops.why_not_fused = lambda device, kernel: "this is a test"
rows, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    loss = triplet_loss(rows, labels)
    triplet_loss(rows, labels)
    assert loss == triplet_loss(rows, labels, impl="reference")
print(len(seen), seen[0].category.__name__, seen[0].message)
try:
    triplet_loss(rows, labels, impl="fused")
except RuntimeError as error:
    print(error)
"""
    assert run_python(script).splitlines() == [
        "1 RuntimeWarning [triplet_loss] runs as plain torch: this is a test. "
        "impl='reference' asks for that in silence.",
        "[triplet_loss] impl='fused' is not possible: this is a test.",
    ]


def test_out_of_range_indices_of_the_kernel_give_nan_not_a_crash():
    """Value checks may be off (on CUDA they are): the kernel itself must survive."""
    rows = torch.ones(4, 3)
    index = torch.tensor([0, 10**12, -5, 4])
    ours = torch.ops.flashmetric.triplet(
        *(rows, None, None, index, index, index, None, None, None),
        *(1.0, "euclidean", False, False, False, False, "none", [True, False, False], False),
    )
    assert ours[0].isnan().tolist() == [False, True, True, True]


@pytest.mark.parametrize("distance", ["l2", "", "euclidean "])
def test_the_kernels_list_the_names_they_know(distance):
    rows = torch.ones(2, 2)
    with pytest.raises(ValueError, match="euclidean") as caught:
        torch.ops.flashmetric.pairwise(rows, None, distance, False)
    assert all(name in str(caught.value) for name in DISTANCES)


def test_every_name_of_the_table_is_known_to_the_kernels():
    rows, labels = class_batch(8, 3, 2)
    for distance in DISTANCES:
        for reduction in REDUCTIONS:
            before = _C.counters()["triplet"]
            triplet_loss(rows, labels, distance=distance, reduction=reduction, impl="fused")
            assert _C.counters()["triplet"] > before


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_valid_call_warns_of_nothing(op):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op.run(op.sample(op.rows[0], torch.float32), "auto")


def test_a_wrong_call_leaves_no_trace():
    """After a refusal the next call gives what it always gives."""
    rows, labels = class_batch(16, 4, 4)
    expected = triplet_loss(rows, labels)
    with pytest.raises(ValueError, match="labels must have shape"):
        triplet_loss(rows, labels[:3])
    with pytest.raises(ValueError, match="must lie in"):
        triplet_margin_loss(labels, labels, labels + 99, embeddings=rows)
    assert torch.equal(triplet_loss(rows, labels), expected)

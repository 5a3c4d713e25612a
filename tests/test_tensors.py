# SPDX-License-Identifier: BSD-3-Clause
"""How kernels see tensors: by the functions of DLPack or by attributes, with the same result."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from flashmetric import _C
from op_db import FUSED
from samples import class_batch
from test_gradients import gradients


@pytest.fixture
def by_attributes():
    _C.look_at_attributes(True)
    yield
    _C.look_at_attributes(False)


def _results(op, row, dtype):
    sample = op.sample(row, dtype)
    if not op.differentiable:
        return list(op.run(sample))
    value, grads = gradients(op, sample)
    return [value, *grads.values()]


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_attributes_say_what_dlpack_says(op, request):
    cases = [(row, dtype) for row in op.rows[:4] for dtype in op.dtypes]
    expected = [_results(op, *case) for case in cases]
    request.getfixturevalue("by_attributes")
    for case, wanted in zip(cases, expected, strict=True):
        for ours, theirs in zip(_results(op, *case), wanted, strict=True):
            assert_same_bits(ours, theirs, what=str(case))


def test_what_is_usual():
    rows, labels = class_batch(8, 4, 2)
    for same in (rows, rows.double(), rows.bfloat16(), rows.half(), rows.T.contiguous().T):
        assert _C.usual_device(same, labels) == 1
    for other in (rows.long(), rows[0], rows[..., None], rows[:3], rows.to("meta")):
        assert _C.usual_device(other, labels) == 0
    for other in (labels.int(), labels.double(), labels.bool(), labels[:, None], labels[:3]):
        assert _C.usual_device(rows, other) == 0
    assert _C.usual_device(rows.to_sparse(), labels) == 0
    assert _C.usual_device(rows, labels.to("meta")) == 0
    assert _C.usual_device(rows[:0], labels[:0]) == 1


@pytest.mark.usefixtures("by_attributes")
def test_without_dlpack_nothing_is_usual():
    rows, labels = class_batch(8, 4, 2)
    assert _C.usual_device(rows, labels) == 0


def test_what_is_no_tensor_is_refused():
    with pytest.raises(AttributeError, match="data_ptr"):
        _C.mine(([1.0],), None, 1)
    rows = torch.zeros(4, 2)
    with pytest.raises(TypeError, match="too few arguments"):
        _C.mine((rows, None), None, 1)
    with pytest.raises(TypeError, match="rows must be matrices of one dtype and width"):
        _C.mine((rows, rows.double()), None, 1)
    with pytest.raises(TypeError, match="rows must be matrices of one dtype and width"):
        _C.mine((rows[0], None), None, 1)

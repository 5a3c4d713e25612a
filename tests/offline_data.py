# SPDX-License-Identifier: BSD-3-Clause
"""The data set that the tests of offline mining share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samples import class_batch

N = 210


def data_set() -> tuple[Tensor, Tensor]:
    return class_batch(N, 12, 20)


def assert_equal(ours: NamedTuple, expected: NamedTuple) -> None:
    """The same kind of columns, int64, with the same values."""
    assert type(ours) is type(expected)
    for name, column in ours._asdict().items():
        assert column.dtype == torch.int64
        assert torch.equal(column, getattr(expected, name)), name

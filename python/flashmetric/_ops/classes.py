# SPDX-License-Identifier: BSD-3-Clause
"""`mined_triplet` of rows and their class ids alone, for those who may call past the dispatcher."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flashmetric import _outputs

from . import cpu, cuda


def triplet_of_classes(
    query: Tensor,
    labels: Tensor,
    wanted: bool,
    mining: str,
    margin: float,
    *options: Any,
) -> list[Tensor]:
    """A scalar loss, and its gradient if wanted; labels are int64, no tensor is a wrapper, and
    nobody watches (_compat.py).

    By few calls: on a batch of 8 rows each of them takes as long as the arithmetic.
    """
    device = cpu.DEVICE if query.is_cpu else cuda.DEVICE
    needs = (wanted, False, False)
    outputs = _outputs.loss((query,), 1, options[-1], needs, False)
    none = (None,) * 4  # ref_labels, self_index, and which rows are kept
    comparison = (device.as_rows(query), None, labels.contiguous(), *none, "classes")
    terms = (None, None, None, margin, *options, needs, False, outputs)
    device.run("mined_triplet", query, (*comparison, mining, *terms))
    return outputs

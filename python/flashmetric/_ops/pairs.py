# SPDX-License-Identifier: BSD-3-Clause
"""Distances of given pairs and of all pairs, and their gradients, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric import _outputs

from .calls import Rows, both, by_role

class PairOps(NamedTuple):
    """The ops of a device: how its kernels read rows, and what runs the kernel of a name."""

    as_rows: Callable[[Tensor], Tensor]
    run: Callable[[str, torch.device, tuple[Any, ...]], None]

    def paired(
        self,
        x: Tensor,
        r: Tensor | None,
        index_x: Tensor | None,
        index_r: Tensor | None,
        *metric: Any,
    ) -> Tensor:
        out = _outputs.paired(x, r, index_x, index_r)
        self._run_paired((x, r), (index_x, index_r), metric, (None, out, None, None))
        return out

    def paired_backward(
        self,
        x: Tensor,
        r: Tensor | None,
        index_x: Tensor | None,
        index_r: Tensor | None,
        cotangent: Tensor,
        *options: Any,
    ) -> list[Tensor]:
        *metric, wanted = options
        grads = _outputs.paired_backward(x, r, wanted)
        results = (cotangent, None, *by_role(grads, wanted))
        self._run_paired((x, r), (index_x, index_r), (*metric,), results)
        return grads

    def _run_paired(
        self,
        sides: Rows,
        index: tuple[Tensor | None, Tensor | None],
        metric: tuple[Any, ...],
        results: tuple[Tensor | None, ...],
    ) -> None:
        places = [None if each is None else each.contiguous() for each in index]
        arguments = (*metric, *both(self.as_rows, *sides), *places, *results)
        self.run("paired", sides[0].device, arguments)

    def pairwise(self, x: Tensor, y: Tensor | None, *metric: Any) -> Tensor:
        out = _outputs.pairwise(x, y)
        self.run("pairwise", x.device, (*metric, *both(self.as_rows, x, y), out))
        return out

    def pairwise_backward(
        self, x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
    ) -> list[Tensor]:
        *metric, wanted = options
        grads = _outputs.pairwise_backward(x, y, cotangent, wanted)
        rows, others = both(self.as_rows, x, y)

        def add(grad: Tensor, sides: Rows, cotangent: Tensor, *roles: bool) -> None:
            self.run("pairwise_backward", x.device, (*metric, *sides, *roles, cotangent, grad))

        if wanted[0]:  # roles: swapped, mirrored
            add(grads[0], (rows, others), cotangent, False, y is None)
        if wanted[1] and others is not None:
            add(grads[-1], (others, rows), cotangent.T, True, False)
        return grads

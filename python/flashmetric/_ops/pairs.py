# SPDX-License-Identifier: BSD-3-Clause
"""Distances of given pairs and of all pairs, and their gradients, on any device."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from flashmetric import _outputs

from .calls import Device, Rows, both


class PairOps(NamedTuple):
    device: Device

    def paired(
        self,
        x: Tensor,
        r: Tensor | None,
        index_x: Tensor | None,
        index_r: Tensor | None,
        *metric: Any,
    ) -> Tensor:
        out = _outputs.paired(x, r, index_x, index_r)
        self._run_paired((x, r), (index_x, index_r), metric, None, (out, None, None))
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
        found = iter(grads)
        targets = [next(found) if want else None for want in wanted]
        self._run_paired((x, r), (index_x, index_r), (*metric,), cotangent, (None, *targets))
        return grads

    def _run_paired(
        self,
        sides: Rows,
        index: tuple[Tensor | None, Tensor | None],
        metric: tuple[Any, ...],
        cotangent: Tensor | None,
        results: tuple[Tensor | None, ...],
    ) -> None:
        places = [None if each is None else each.contiguous() for each in index]
        arguments = (*both(self.device.as_rows, *sides), *places, cotangent, *metric, *results)
        self.device.run("paired", sides[0], arguments)

    def pairwise(self, x: Tensor, y: Tensor | None, *metric: Any) -> Tensor:
        out = _outputs.pairwise(x, y)
        self.device.run("pairwise", x, (*both(self.device.as_rows, x, y), *metric, out))
        return out

    def pairwise_backward(
        self, x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
    ) -> list[Tensor]:
        *metric, wanted = options
        grads = _outputs.pairwise_backward(x, y, cotangent, wanted)
        rows, others = both(self.device.as_rows, x, y)

        def add(grad: Tensor, sides: Rows, cotangent: Tensor, *roles: bool) -> None:
            arguments = (*sides, cotangent, *metric, *roles, grad)
            self.device.run("pairwise_backward", x, arguments)

        if wanted[0]:  # roles: swapped, mirrored
            add(grads[0], (rows, others), cotangent, False, y is None)
        if wanted[1] and others is not None:
            add(grads[-1], (others, rows), cotangent.T, True, False)
        return grads

# SPDX-License-Identifier: BSD-3-Clause
"""Distances of given pairs and of all pairs, and their gradients, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashmetric import _outputs

from .calls import numbers_of, pointers

Sides = tuple[Tensor, Tensor | None]


class PairOps(NamedTuple):
    """The ops of a device: how its kernels read rows, and what runs the kernel of a name with
    arguments that point into `alive`."""

    as_rows: Callable[[Tensor], Tensor]
    run: Callable[[str, torch.device, tuple[Any, ...], Any], None]

    def paired(
        self,
        x: Tensor,
        r: Tensor | None,
        index_x: Tensor | None,
        index_r: Tensor | None,
        *metric: Any,
    ) -> Tensor:
        out = _outputs.paired(x, r, index_x, index_r)
        self._run_paired((x, r), (index_x, index_r), metric, [0, 0, out.data_ptr(), 0, 0])
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
        if cotangent.shape[0] == 0:  # it has no address: the kernel would take it for none at all
            return [grad.zero_() for grad in grads]
        found = iter(grads)
        targets = [next(found).data_ptr() if want else 0 for want in wanted]
        results = [cotangent.data_ptr(), cotangent.stride()[0], 0, *targets]
        self._run_paired((x, r), (index_x, index_r), (*metric,), results)
        return grads

    def _run_paired(
        self,
        sides: Sides,
        index: tuple[Tensor | None, Tensor | None],
        metric: tuple[Any, ...],
        results: list[int],
    ) -> None:
        x, r = sides
        n = (x if index[0] is None else index[0]).shape[0]
        rows = (self.as_rows(x), None if r is None else self.as_rows(r))
        places = [None if each is None else each.contiguous() for each in index]
        arguments = (*metric, *numbers_of(*rows), n, *pointers(*places), *results)
        self.run("paired", x.device, arguments, (rows, places))

    def pairwise(self, x: Tensor, y: Tensor | None, *metric: Any) -> Tensor:
        out = _outputs.pairwise(x, y)
        rows, others = self._both(x, y)
        arguments = (*metric, *numbers_of(rows, others), out.data_ptr())
        self.run("pairwise", x.device, arguments, (rows, others))
        return out

    def pairwise_backward(
        self, x: Tensor, y: Tensor | None, cotangent: Tensor, *options: Any
    ) -> list[Tensor]:
        *metric, wanted = options
        grads = _outputs.pairwise_backward(x, y, cotangent, wanted)
        rows, others = self._both(x, y)

        def add(grad: Tensor, sides: Sides, cotangent: Tensor, *roles: bool) -> None:
            factor = (*roles, cotangent.data_ptr(), *cotangent.stride())
            arguments = (*metric, *numbers_of(*sides), *factor, grad.data_ptr())
            self.run("pairwise_backward", x.device, arguments, sides)

        if wanted[0]:  # roles: swapped, mirrored
            add(grads[0], (rows, others), cotangent, False, y is None)
        if wanted[1] and y is not None:
            add(grads[-1], (others, rows), cotangent.T, True, False)
        return grads

    def _both(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = self.as_rows(x)
        return rows, rows if y is None else self.as_rows(y)

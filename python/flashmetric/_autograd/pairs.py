# SPDX-License-Identifier: BSD-3-Clause
"""Distances: of all pairs, and of given ones."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from torch.autograd import Function

from flashmetric import _ops
from flashmetric._compat import apply_of

from .guard import by_input, finished

__all__ = ["paired", "pairwise"]


def pairwise(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
    """(M, N) distances of all pairs."""
    distances: Tensor = _apply_pairwise(x, y, distance, normalize)
    return distances


def paired(
    op: str,
    x: Tensor,
    r: Tensor | None,
    index_x: Tensor | None,
    index_r: Tensor | None,
    distance: str,
    normalize: bool,
) -> Tensor:
    """(T,) distances of rows of x to rows of r (None = x), with gradient, float32 at least.

    An index is int64 (T,), or None = row t; below 0, the distance is 0, without gradient.
    """
    distances: Tensor = _apply_paired(x, r, (index_x, index_r), (distance, normalize), op)
    return distances


class _Pairwise(Function):
    @staticmethod
    def forward(x: Tensor, y: Tensor | None, distance: str, normalize: bool) -> Tensor:
        distances: Tensor = _ops.pairwise(x, y, distance, normalize)
        return distances

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *rows, distance, normalize = inputs
        ctx.options = (distance, normalize)
        ctx.save_for_backward(*rows)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        rows, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        found = _ops.pairwise_backward(*rows, cotangent, *ctx.options, needed)
        return *finished("pairwise_distances", by_input(found, needed), rows), None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


class _Paired(Function):
    @staticmethod
    def forward(
        x: Tensor,
        r: Tensor | None,
        index: tuple[Tensor | None, Tensor | None],
        metric: tuple[str, bool],
        op: str,  # noqa: ARG004
    ) -> Tensor:
        distances: Tensor = _ops.paired(x, r, *index, *metric)
        return distances

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, r, index, ctx.metric, ctx.op = inputs
        ctx.save_for_backward(x, r, *index)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        found = _ops.paired_backward(*saved, cotangent, *ctx.metric, needed)
        return *finished(ctx.op, by_input(found, needed), saved[:2]), None, None, None

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        _ops.refuse_vmap()


_apply_pairwise = apply_of(_Pairwise)
_apply_paired = apply_of(_Paired)

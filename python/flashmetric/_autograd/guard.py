# SPDX-License-Identifier: BSD-3-Clause
"""What the autograd.Function classes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from flashmetric._compat import apply_of, functorch_is_active, graph_is_kept, is_compiling
from flashmetric._outputs import HALF

__all__ = ["MaybeTensors", "by_input", "finished", "scaled", "wanted_of"]

MaybeTensors = Sequence[Tensor | None]


def wanted_of(rows: MaybeTensors, reduction: str) -> list[bool]:
    """Whose gradient the forward computes: it runs before ctx.needs_input_grad is known."""
    if reduction == "none" or not torch.is_grad_enabled():
        return [False] * len(rows)
    return [each is not None and each.requires_grad for each in rows]


class _SecondDerivative(Function):
    """Passes gradients through, and refuses to be differentiated.

    The gradients are constants to autograd; without this a second derivative would be a silent 0.
    """

    generate_vmap_rule = True  # torch.func.jacrev maps the backward over its cotangents

    @staticmethod
    def forward(op: str, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        """The first n tensors; the others only connect them to what they depend on."""
        return tuple(each.view_as(each) for each in tensors[:n])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.op = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> NoReturn:
        message = (
            f"[{ctx.op}] double backward is not supported by the fused kernels; "
            "use impl='reference'."
        )
        raise RuntimeError(message)


_refuse_second_derivative = apply_of(_SecondDerivative)


def by_input(found: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """The tensors that were asked for, each in the place of its input."""
    remaining = iter(found)
    return [next(remaining) if want else None for want in wanted]


def scaled(
    op: str, kept: MaybeTensors, grad_loss: Tensor, rows: MaybeTensors
) -> Sequence[Tensor | None]:
    """Each gradient * grad_loss, finished; the same memory where it is 1 and nobody asks again.

    That is `loss.backward()`; the copy it saves is 3 % of a call at 4096 x 128. Only on the CPU,
    where reading the factor waits for nothing.
    """
    if (
        type(grad_loss) is Tensor
        and grad_loss.is_cpu
        and not torch.is_grad_enabled()
        and not is_compiling()
        and not functorch_is_active()
        and not graph_is_kept()
        and grad_loss.item() == 1
        and rows[0].dtype not in HALF  # type: ignore[union-attr]
    ):
        return kept
    return finished(op, [None if each is None else each * grad_loss for each in kept], rows)


def finished(op: str, grads: list[Tensor | None], rows: MaybeTensors) -> Sequence[Tensor | None]:
    """Gradients in the dtype of their rows, guarded against a second derivative."""
    dtype = rows[0].dtype  # type: ignore[union-attr]
    if dtype in HALF:
        grads = [None if each is None else each.to(dtype) for each in grads]
    if torch.is_grad_enabled():  # create_graph=True, or torch.func
        needed = [grad is not None for grad in grads]
        found, inputs = ([each for each in some if each is not None] for some in (grads, rows))
        return by_input(_refuse_second_derivative(op, len(found), *found, *inputs), needed)
    return grads

# SPDX-License-Identifier: BSD-3-Clause
"""Names of torch that are private, each behind a public way to do the same, slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["apply_of", "functorch_is_active", "is_batched", "is_compiling"]

is_compiling: Callable[[], bool] = torch.compiler.is_compiling


def _always() -> bool:
    return True


# Without the private name every call takes the public road, which is right everywhere.
functorch_is_active: Callable[[], bool] = getattr(
    torch._C, "_are_functorch_transforms_active", _always
)


def _not_known(_: Tensor) -> bool:
    return False


# Is the tensor one of many, under torch.vmap? Without the private name vmap is refused later, by
# the first op that meets it.
is_batched: Callable[[Tensor], bool] = getattr(
    getattr(torch._C, "_functorch", None), "is_batchedtensor", _not_known
)


def apply_of(function: type[Function]) -> Callable[..., Any]:
    """`function.apply`, without the inspection of its signature that costs 10 us on every call.

    torch.compile and the transforms of torch.func need that inspection. Otherwise `Function.apply`
    only hands its arguments to the C method that is called here.
    """
    public: Callable[..., Any] = function.apply
    direct: Callable[..., Any] = super(Function, function).apply  # type: ignore[misc]

    def apply(*args: Any) -> Any:
        return public(*args) if is_compiling() or functorch_is_active() else direct(*args)

    return apply

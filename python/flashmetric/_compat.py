# SPDX-License-Identifier: BSD-3-Clause
"""Names of torch that are private, each behind a public way to do the same, slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

__all__ = [
    "all_modules_are_hooked",
    "apply_of",
    "certainly",
    "direct_apply_of",
    "functorch_is_active",
    "graph_is_kept",
    "is_batched",
    "is_compiling",
    "is_watched",
    "is_wrapped",
    "raw_stream",
]

is_compiling: Callable[[], bool] = torch.compiler.is_compiling


def _always() -> bool:
    return True


# Without the private name every call takes the public road, which is right everywhere.
functorch_is_active: Callable[[], bool] = getattr(
    torch._C, "_are_functorch_transforms_active", _always
)


def _one() -> int:
    return 1


_dispatch_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", _one)
_function_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", _one)
_tracing_state: Callable[[], Any] = getattr(torch._C, "_get_tracing_state", _one)
_profiler_enabled: Callable[[], bool] = getattr(torch.autograd, "_profiler_enabled", _always)


def is_watched() -> bool:
    """Does somebody (torch.compile, torch.jit, a transform, a mode, the profiler) want to see our
    ops, or has forward-mode differentiation begun?

    A default device is a mode as well: under it, kernels must not ask torch for memory themselves.
    """
    return bool(
        is_compiling()
        or functorch_is_active()
        or _dispatch_modes()
        or _function_modes()
        or _profiler_enabled()
        or _tracing_state() is not None
        or getattr(forward_ad, "_current_level", 0) >= 0
    )


# Does somebody want to see the calls of all modules? Not False where there are such hooks.
all_modules_are_hooked: Callable[[], Any] = getattr(
    torch.nn.modules.module, "_has_any_global_hook", _always
)


def certainly(condition: Any) -> bool:
    """Whether it holds; False of sizes that torch.compile knows only when it runs."""
    if not is_compiling():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import guard_or_false  # of 0.3 s

    return guard_or_false(condition)


# Inside a backward: may the graph be asked again (retain_graph)? Unknown without the private name.
graph_is_kept: Callable[[], bool] = getattr(
    getattr(torch._C, "_autograd", None), "_get_current_graph_task_keep_graph", _always
)


def _not_known(_: Tensor) -> bool:
    return False


_functorch = getattr(torch._C, "_functorch", None)
# Is the tensor one of many, under torch.vmap? Without the private name vmap is refused later, by
# the first op that meets it.
is_batched: Callable[[Tensor], bool] = getattr(_functorch, "is_batchedtensor", _not_known)


def _perhaps(_: Tensor) -> bool:
    return True


# Does the tensor stand for another one, under a transform of torch.func or after it?
is_wrapped: Callable[[Tensor], bool] = getattr(_functorch, "is_functorch_wrapped_tensor", _perhaps)


def _public_stream(device: int) -> int:
    return torch.cuda.current_stream(device).cuda_stream


# The current stream of a GPU, as an address; the public way makes an object of 2 us first.
raw_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", _public_stream)


def direct_apply_of(function: type[Function]) -> Callable[..., Any]:
    """The C method behind `function.apply`, which torch.compile and torch.func do not follow."""
    direct: Callable[..., Any] = super(Function, function).apply  # type: ignore[misc]
    return direct


def apply_of(function: type[Function]) -> Callable[..., Any]:
    """`function.apply`, without the inspection of its signature that costs 10 us on every call.

    torch.compile and the transforms of torch.func need that inspection. Otherwise `Function.apply`
    only hands its arguments to the C method that is called here.
    """
    public: Callable[..., Any] = function.apply
    direct = direct_apply_of(function)

    def apply(*args: Any) -> Any:
        return public(*args) if is_compiling() or functorch_is_active() else direct(*args)

    return apply

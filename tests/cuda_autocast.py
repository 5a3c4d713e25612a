# SPDX-License-Identifier: BSD-3-Clause
"""What CUDA's autocast does to the code of pytorch-metric-learning, for rows on a CPU.

The autocast of a CPU leaves norms and sums in half precision. Here they are float32, as on CUDA,
and fused classes are told that their rows lie there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn.functional import normalize
from torch.overrides import TorchFunctionMode

from flashmetric.compat.pytorch_metric_learning import _loss, _metric, distances

__all__ = ["WIDENED", "cuda_autocast", "flagged"]

# By a function of one side of rows. Means and variances are not among them.
WIDENED: dict[str, tuple[Any, ...]] = {
    "normalize": (normalize,),
    "norm": (torch.norm,),
    "sum": (torch.sum, torch.Tensor.sum),
    "power": (torch.pow, torch.Tensor.pow, torch.Tensor.__pow__),
    "distances": (torch.cdist,),
    "softplus": (torch.nn.functional.softplus,),
}
_EACH = {function for functions in WIDENED.values() for function in functions}


class _Widening(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _EACH:
            args = [each.float() if _is_half(each) else each for each in args]
        return function(*args, **(kwargs or {}))


def _is_half(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor) and argument.dtype in (torch.float16, torch.bfloat16)


@contextmanager
def flagged(device: str) -> Iterator[None]:
    """Autocast of a type of device, which need not exist."""
    before = torch.is_autocast_enabled(device)
    torch.set_autocast_enabled(device, True)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before)


@contextmanager
def cuda_autocast() -> Iterator[None]:
    measured_dtype = _metric.measured_dtype

    def there(rows: torch.dtype, _: str) -> torch.dtype:
        return measured_dtype(rows, "cuda")

    with ExitStack() as stack:
        for module in (_loss, distances):
            stack.enter_context(mock.patch.object(module, "measured_dtype", there))
        for device in ("cpu", "cuda"):
            stack.enter_context(flagged(device))
        stack.enter_context(_Widening())
        yield

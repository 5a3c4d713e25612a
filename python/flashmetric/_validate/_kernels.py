# SPDX-License-Identifier: BSD-3-Clause
"""Whether a call runs the kernels."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from flashmetric import _ops

from ._basic import error, names

_warned: set[str] = set()


def use_fused(op: str, impl: str, device: torch.device, kernel: str, distance: Any = "") -> bool:
    """Whether kernels run; if they should and cannot, an error, or once a warning.

    `kernel` is an op that the function needs, one that a device has last.
    """
    if impl != "auto":
        names(op, impl=impl)
    if impl == "reference":
        return False
    reason = _ops.why_not_fused(device, kernel)
    if not isinstance(distance, str):
        reason = "there are no kernels for a distance that is a function"
    if not reason:
        return True
    if impl == "fused":
        raise error(RuntimeError, op, f"impl='fused' is not possible: {reason}.")
    if reason not in _warned:
        _warned.add(reason)
        text = f"[{op}] runs as plain torch: {reason}. impl='reference' asks for that in silence."
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return False

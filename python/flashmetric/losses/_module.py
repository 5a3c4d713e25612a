# SPDX-License-Identifier: BSD-3-Clause
"""What the loss modules share."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

__all__ = ["LossModule"]


class LossModule(nn.Module):
    """A record of options: no parameters, no state, one attribute per argument of __init__."""

    margin: float | Tensor | None

    def __init__(self, margin: float | Tensor | None) -> None:
        super().__init__()
        if isinstance(margin, Tensor):  # follows the module from device to device
            self.register_buffer("margin", margin, persistent=False)
        else:
            self.margin = margin

    def extra_repr(self) -> str:
        """The options that are not the default."""
        defaults = inspect.signature(type(self).__init__).parameters
        options = {name: getattr(self, name) for name in defaults if name != "self"}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in options.items()
            if isinstance(value, Tensor) or value != defaults[name].default
        )

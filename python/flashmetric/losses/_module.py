# SPDX-License-Identifier: BSD-3-Clause
"""What the loss modules share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from flashmetric.reference import Stats

__all__ = ["BatchLoss", "LossModule"]


class LossModule(nn.Module):
    """A record of options, one attribute each; nothing in the state_dict that is not learned.

    The attribute of an option that is named as a method of nn.Module (half) ends in "_".
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = {name: _attribute(name) for name in options}
        for name, attribute in self._options.items():
            value = options[name]
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                # Follows the module from device to device.
                self.register_buffer(attribute, value, persistent=False)
            else:
                setattr(self, attribute, value)

    def options(self) -> dict[str, Any]:
        """The keywords that the module passes on to its function."""
        return {name: getattr(self, attribute) for name, attribute in self._options.items()}

    def extra_repr(self) -> str:
        """The options that are not the default."""
        shown = vars(self) | self.options()
        return ", ".join(
            f"{name}={value.detach() if isinstance(value, Tensor) else value!r}"
            for name, parameter in inspect.signature(type(self).__init__).parameters.items()
            if name in shown and _worth_showing(value := shown[name], parameter.default)
        )


class BatchLoss(LossModule):
    """The module of a function of embeddings and labels."""

    function: ClassVar[Callable[..., Any]]

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        *,
        ref_embeddings: Tensor | None = None,
        ref_labels: Tensor | None = None,
        same_mask: Tensor | None = None,
        self_index: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Stats]:
        """The loss of this batch: (B, D) embeddings and their labels."""
        result: Tensor | tuple[Tensor, Stats] = type(self).function(
            embeddings,
            labels,
            ref_embeddings=ref_embeddings,
            ref_labels=ref_labels,
            same_mask=same_mask,
            self_index=self_index,
            weights=weights,
            **self.options(),
        )
        return result


def _attribute(name: str) -> str:
    return f"{name}_" if hasattr(nn.Module, name) else name


def _worth_showing(value: Any, default: Any) -> bool:
    """Is it not the default? A module is shown among the submodules."""
    if isinstance(value, Tensor):
        return True
    return value != default and not isinstance(value, nn.Module)

# SPDX-License-Identifier: BSD-3-Clause
"""What is timed: batch sizes, dimensions and label layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HEADLINE", "LAYOUTS", "MARGIN", "OVERHEAD", "QUICK", "TARGETS", "Problem", "parse"]

MARGIN = 1.0


def _four_per_class(batch: int, _generator: torch.Generator) -> Tensor:
    return torch.arange(batch) // 4


def _skewed(batch: int, generator: torch.Generator) -> Tensor:
    sizes = torch.randint(1, 65, (batch,), generator=generator)
    return torch.repeat_interleave(torch.arange(batch), sizes)[:batch]


def _two_classes(batch: int, _generator: torch.Generator) -> Tensor:
    return torch.arange(batch) % 2


@dataclass(frozen=True)
class Layout:
    """How many rows share a class; the order of the rows is shuffled afterwards."""

    title: str
    classes: Callable[[int, torch.Generator], Tensor]


LAYOUTS = {
    "k4": Layout("4 per class", _four_per_class),
    "skewed": Layout("1 to 64 per class", _skewed),
    "two": Layout("two classes", _two_classes),
}


@dataclass(frozen=True)
class Problem:
    """A batch: `batch` rows of `dim` float32 features, labels laid out as `layout` says."""

    batch: int
    dim: int
    layout: str = "k4"

    @property
    def name(self) -> str:
        return f"{self.batch}x{self.dim}" + ("" if self.layout == "k4" else f"-{self.layout}")

    @property
    def half_gram_flops(self) -> int:
        """A multiplication and an addition for each feature of half of all the pairs."""
        return self.batch * self.batch * self.dim

    def embeddings(self) -> Tensor:
        """Standard normal rows: (batch, dim), the same in every run."""
        generator = torch.Generator().manual_seed(self.batch * 1000 + self.dim)
        return torch.randn(self.batch, self.dim, generator=generator)

    def labels(self) -> Tensor:
        """Shuffled class ids: (batch,) int64, the same in every run."""
        generator = torch.Generator().manual_seed(self.batch)
        classes = LAYOUTS[self.layout].classes(self.batch, generator)
        return classes[torch.randperm(self.batch, generator=generator)]


HEADLINE = (
    Problem(256, 128),
    Problem(1024, 128),
    Problem(1800, 128),
    Problem(4096, 128),
    Problem(4096, 512),
    Problem(8192, 256),
)
OTHER_LAYOUTS = (Problem(4096, 128, "skewed"), Problem(4096, 128, "two"))
QUICK = (Problem(256, 128), Problem(1024, 128))
# So small that only the cost of a call remains.
OVERHEAD = Problem(8, 8)

# What the library promises itself: ratio to the bare matmul, AVX-512, 2 threads, 4 per class.
TARGETS = {
    "256x128": 3.0,
    "1024x128": 1.0,
    "1800x128": 0.8,
    "4096x128": 0.33,
    "4096x512": 0.50,
    "8192x256": 0.45,
}


def parse(text: str) -> Problem:
    """`4096x128` or `4096x128-two`.

    Raises:
        ValueError: the text is not of that form.
    """
    size, _, layout = text.partition("-")
    batch, _, dim = size.partition("x")
    if not (batch.isdigit() and dim.isdigit() and (layout or "k4") in LAYOUTS):
        msg = (
            f"[bench] a problem is written BATCHxDIM or BATCHxDIM-LAYOUT with a layout out of "
            f"{', '.join(LAYOUTS)}, for example 4096x128 or 4096x128-two; got {text!r}."
        )
        raise ValueError(msg)
    return Problem(int(batch), int(dim), layout or "k4")

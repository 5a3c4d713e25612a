# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs of rows whose squares float32 cannot hold. The 2x rule would
hide what is wrong there, since plain torch in float32 is as wrong."""

from __future__ import annotations

import pytest
import torch

from flashmetric import functional
from samples import class_batch

FUNCTIONS = {
    "all": ("triplet_loss", {"mining": "all"}),
    "semihard_all": ("triplet_loss", {"mining": "semihard_all"}),
    "hard_all": ("triplet_loss", {"mining": "hard_all"}),
    "contrastive": ("contrastive_loss", {"power": 1}),
}


def _rows(kind: str) -> tuple[torch.Tensor, float]:
    """Rows, and the length of most of them."""
    rows, _ = class_batch(120, 16, 1, seed=2)
    if kind == "all short":
        return rows * 1e-33, 1e-33
    rows *= 1e-21
    rows[40] *= 1e21
    return rows, 1e-21


@pytest.mark.parametrize("classes", [30, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["all short", "beside a long one"])
def test_values_gradients_and_statistics(kind, name, classes):
    rows, size = _rows(kind)
    labels = torch.randperm(120, generator=torch.Generator().manual_seed(classes)) % classes
    function, options = FUNCTIONS[name]
    found = []
    for dtype, impl in ((torch.float32, "fused"), (torch.float64, "reference")):
        x = rows.to(dtype).requires_grad_()
        loss, stats = getattr(functional, function)(
            x, labels, margin=size, reduction="sum", return_stats=True, impl=impl, **options
        )
        (grad,) = torch.autograd.grad(loss, x)
        numbers = torch.stack([stats.active_fraction, stats.mean_d_ap, stats.mean_d_an])
        found.append([each.detach().double() for each in (loss, grad, numbers)])
    for ours, truth in zip(*found, strict=True):
        scale = truth.abs().max()
        assert (ours - truth).abs().max() <= 16 * torch.finfo(torch.float32).eps * scale

# SPDX-License-Identifier: BSD-3-Clause
"""Modules of flashmetric.compat on a GPU: torch and sentence-transformers beside the peer there,
the others beside the CPU, where their tests have the formulas."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from compat_data import BATCH, LAYOUTS, NARROW, SIDES, assert_as_precise, assert_same, rows_of
from device import DEVICE, GPU
from flashmetric.compat import oml, reid, tfa
from flashmetric.compat import torch as compat_torch

pytestmark = GPU

# From embeddings and labels to a loss.
LOSSES: dict[str, Any] = {
    "oml all": oml.TripletLossWithMiner(1.0),
    "oml soft": oml.TripletLossWithMiner(None),
    "oml hard": oml.TripletLossWithMiner(1.0, oml.HardTripletsMiner(), "sum"),
    "reid hard": reid.TripletLoss(),
    "reid fast": lambda x, y: reid.triplet_loss(x, y, margin=0.3, hard_mining=True),
    "reid soft": lambda x, y: reid.triplet_loss(x, y, margin=0.0, norm_feat=True),
    "reid weighted": lambda x, y: reid.triplet_loss(x, y, margin=0.3, hard_mining=False),
    "tfa semi-hard": lambda x, y: tfa.TripletSemiHardLoss()(y, x),
    "tfa angular": lambda x, y: tfa.TripletSemiHardLoss(0.5, "angular")(y, x),
    "tfa hard": lambda x, y: tfa.TripletHardLoss(distance_metric="squared-L2")(y, x),
    "tfa soft": lambda x, y: tfa.TripletHardLoss(soft=True)(y, x),
}
GIVEN: dict[str, tuple[str, int, dict[str, Any]]] = {
    "distance": ("PairwiseDistance", 2, {}),
    "L1": ("PairwiseDistance", 2, {"p": 1.0, "eps": 0.0}),
    "triplets": ("TripletMarginLoss", 3, {}),
    "swap": ("TripletMarginLoss", 3, {"swap": True, "eps": 0.0, "reduction": "none"}),
    "swap and eps": ("TripletMarginLoss", 3, {"swap": True, "p": 3}),
    "a function": ("TripletMarginWithDistanceLoss", 3, {}),
    "cosine": ("CosineEmbeddingLoss", 2, {"margin": 0.2}),
}


def _there(loss: Any, labels: torch.Tensor) -> Any:
    """A function of rows on the CPU: of the same rows on the device."""
    return lambda *rows: loss(*(each.to(DEVICE) for each in rows), labels.to(DEVICE))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_a_batch(name, layout):
    rows, labels = rows_of(LAYOUTS[layout]), torch.tensor(LAYOUTS[layout])
    found = LOSSES[name](rows[0].to(DEVICE), labels.to(DEVICE))
    assert found.device == DEVICE

    def here(x: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](x, labels)

    def there(x: torch.Tensor) -> torch.Tensor:
        return _there(LOSSES[name], labels)(x).cpu()

    assert_same(there, here, rows)
    for dtype in NARROW:
        assert_as_precise(there, here, rows, dtype)


def _given(name: str) -> Any:
    """Functions of the sides, ours first."""
    kind, _, options = GIVEN[name]
    signs = (torch.arange(9, device=DEVICE) % 2 * 2 - 1,) if kind.startswith("Cosine") else ()

    def of(module: Any) -> Any:
        criterion = getattr(module, kind)(**options)
        return lambda *sides: criterion(*(side.to(DEVICE) for side in sides), *signs).cpu()

    return of(compat_torch), of(nn)


@pytest.mark.parametrize("name", GIVEN)
def test_losses_of_torch(name):
    sides = rows_of([0] * 9, GIVEN[name][1])
    ours, theirs = _given(name)
    assert_same(ours, theirs, sides)
    for dtype in NARROW:
        assert_as_precise(ours, theirs, sides, dtype)


@pytest.fixture(scope="module")
def both():
    theirs = pytest.importorskip(
        "sentence_transformers.sentence_transformer.losses",
        reason="compares with sentence-transformers 6.2",
    )
    with warnings.catch_warnings():
        # A machine with a GPU has the version that it has.
        text = "flashmetric.compat is tested with sentence-transformers "
        warnings.filterwarnings("ignore", text, RuntimeWarning)
        from flashmetric.compat import sentence_transformers as ours

    return ours, theirs


@pytest.mark.parametrize("name", [*BATCH, *SIDES])
def test_losses_of_sentence_transformers(both, name):
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 0], device=DEVICE)
    sides = rows_of([0] * 9, SIDES.get(name, 1))

    def of(module: Any) -> Any:
        criterion = getattr(module, name)(nn.Identity())
        return lambda *rows: criterion.compute_loss_from_embeddings(
            [each.to(DEVICE) for each in rows], labels
        ).cpu()

    ours, theirs = map(of, both)
    assert_same(ours, theirs, sides)
    for dtype in NARROW:
        assert_as_precise(ours, theirs, sides, dtype)


def _trained(loss: Any, labels: torch.Tensor) -> list[torch.Tensor]:
    """Parameters after steps in float16 with a scaler."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4)).to(DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**8)
    for seed in range(5):
        with torch.autocast(DEVICE.type, torch.float16):
            rows = rows_of([0] * len(labels), seed=seed)[0].float().to(DEVICE)
            value = loss(network(rows).to(torch.float16), labels)
        assert value.dtype == torch.float32, "autocast leaves it there"
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
    return [each.detach() for each in network.parameters()]


@pytest.mark.parametrize("name", LOSSES)
def test_training_with_autocast_and_a_scaler(name):
    """As with the same losses of float32 rows: they differ by the rounding of the gradients."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1], device=DEVICE)
    ours = _trained(LOSSES[name], labels)
    wide = _trained(lambda x, y: LOSSES[name](x.float(), y), labels)
    eps = torch.finfo(torch.float16).eps
    for one, other in zip(ours, wide, strict=True):
        torch.testing.assert_close(one, other, rtol=5 * eps, atol=5 * eps)

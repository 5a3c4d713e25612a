# SPDX-License-Identifier: BSD-3-Clause
"""Accelerate: mixed precision and gradient accumulation around the same loop."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flashmetric

N_CLASSES, N_FEATURES = 16, 24


def main(epochs: int = 3) -> list[float]:
    """The mean loss of each epoch."""
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2)
    labels = torch.arange(768) % N_CLASSES
    inputs = torch.randn(N_CLASSES, N_FEATURES)[labels] + 0.7 * torch.randn(768, N_FEATURES)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=96, shuffle=True)
    network = nn.Sequential(nn.Linear(N_FEATURES, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    criterion = flashmetric.BatchHardTripletLoss(margin=0.2, normalize=True)
    history = []
    for _ in range(epochs):
        total = 0.0
        for rows, classes in loader:
            with accelerator.accumulate(network):
                loss = criterion(network(rows), classes)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.item()
        history.append(total / len(loader))
    return history


if __name__ == "__main__":
    print("loss per epoch:", *(f"{loss:.4f}" for loss in main()))

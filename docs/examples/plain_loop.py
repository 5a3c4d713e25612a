# SPDX-License-Identifier: BSD-3-Clause
"""A plain loop: a miner and a loss of pytorch-metric-learning, with one import changed."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# Was: from pytorch_metric_learning import losses, miners
from flashmetric.compat.pytorch_metric_learning import losses, miners

N_CLASSES, N_FEATURES = 20, 32


def dataset(n: int = 1024) -> TensorDataset:
    """Points around the centre of their class."""
    labels = torch.arange(n) % N_CLASSES
    centres = torch.randn(N_CLASSES, N_FEATURES)
    return TensorDataset(centres[labels] + 0.7 * torch.randn(n, N_FEATURES), labels)


def main(epochs: int = 3) -> list[float]:
    """The mean loss of each epoch."""
    torch.manual_seed(0)
    loader = DataLoader(dataset(), batch_size=128, shuffle=True)
    network = nn.Sequential(nn.Linear(N_FEATURES, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    miner = miners.BatchHardMiner()
    criterion = losses.TripletMarginLoss(margin=0.2)
    history = []
    for _ in range(epochs):
        total = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            embeddings = network(inputs)
            loss = criterion(embeddings, labels, miner(embeddings, labels))
            loss.backward()
            optimizer.step()
            total += loss.item()
        history.append(total / len(loader))
    return history


if __name__ == "__main__":
    print("loss per epoch:", *(f"{loss:.4f}" for loss in main()))

# SPDX-License-Identifier: BSD-3-Clause
"""Person re-identification: P identities by K images, triplet loss beside cross-entropy."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flashmetric import PKSampler

# Was: from torchreid.losses import TripletLoss
from flashmetric.compat.reid import TripletLoss

N_IDENTITIES = 24


class Network(nn.Module):
    """Features for the distances; their normalised copy for the classifier."""

    def __init__(self, dim: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(dim)
        )
        self.neck = nn.BatchNorm1d(dim)
        self.head = nn.Linear(dim, N_IDENTITIES, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(images)
        return features, self.head(self.neck(features))


def main(epochs: int = 3) -> list[float]:
    """The mean loss of each epoch."""
    torch.manual_seed(0)
    identities = torch.arange(480) % N_IDENTITIES
    images = torch.randn(N_IDENTITIES, 3, 16, 8)[identities] + torch.randn(480, 3, 16, 8)
    sampler = PKSampler(identities, classes_per_batch=8, samples_per_class=4, seed=0)
    loader = DataLoader(TensorDataset(images, identities), batch_sampler=sampler)
    network, triplet, classify = Network(), TripletLoss(margin=0.3), nn.CrossEntropyLoss()
    network(images[:2])  # gives the lazy layer its size
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    history = []
    for _ in range(epochs):
        total = 0.0
        for batch, labels in loader:
            features, logits = network(batch)
            loss = classify(logits, labels) + triplet(features, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        history.append(total / len(loader))
    return history


if __name__ == "__main__":
    print("loss per epoch:", *(f"{loss:.4f}" for loss in main()))

# SPDX-License-Identifier: BSD-3-Clause
"""Lightning: the loss is a module like any other; what it saw is logged without waiting for it."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flashmetric

N_CLASSES, N_FEATURES = 16, 24


class Embedding(lightning.LightningModule):
    """A network that is trained by semi-hard triplets."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(N_FEATURES, 64), nn.ReLU(), nn.Linear(64, 16))
        self.criterion = flashmetric.BatchSemiHardTripletLoss(
            margin=0.2, normalize=True, return_stats=True
        )
        self.history: list[torch.Tensor] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        inputs, labels = batch
        loss, stats = self.criterion(self.network(inputs), labels)
        self.log("active", stats.active_fraction)
        self.history.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(epochs: int = 3) -> list[float]:
    """The loss of every step."""
    lightning.seed_everything(0, verbose=False)
    labels = torch.arange(768) % N_CLASSES
    inputs = torch.randn(N_CLASSES, N_FEATURES)[labels] + 0.7 * torch.randn(768, N_FEATURES)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=96, shuffle=True)
    module = Embedding()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    return torch.stack(module.history).tolist()


if __name__ == "__main__":
    print("loss per step:", *(f"{loss:.4f}" for loss in main()))

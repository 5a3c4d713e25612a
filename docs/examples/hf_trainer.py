# SPDX-License-Identifier: BSD-3-Clause
"""Trainer of transformers: a small BERT made from its configuration returns the loss itself."""

import tempfile

import torch
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

import flashmetric

N_CLASSES, LENGTH, N_WORDS = 8, 6, 64


class Embedder(torch.nn.Module):
    """The first token's vector is the embedding; `labels` are classes."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        self.bert = BertModel(BertConfig(vocab_size=N_WORDS, intermediate_size=64, **sizes))
        self.criterion = flashmetric.BatchHardTripletLoss(margin=0.3, normalize=True)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        embeddings = self.bert(input_ids).last_hidden_state[:, 0]
        return {"loss": self.criterion(embeddings, labels), "embeddings": embeddings}


def main(epochs: int = 4) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(0)
    labels = torch.arange(256) % N_CLASSES
    # Each class has words of its own, among words of all.
    words = torch.randint(0, N_WORDS, (256, LENGTH))
    words[:, ::2] = (labels * 8)[:, None] + torch.randint(0, 8, (256, LENGTH // 2))
    data = [{"input_ids": ids, "labels": int(y)} for ids, y in zip(words, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=5e-3,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
        )
        trainer = Trainer(model=Embedder(), args=options, train_dataset=data)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print("loss per step:", *(f"{loss:.4f}" for loss in main()))

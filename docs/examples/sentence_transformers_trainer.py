# SPDX-License-Identifier: BSD-3-Clause
"""SentenceTransformerTrainer with a batch-hard loss, with one import changed; nothing is loaded."""

import tempfile

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

# Was: from sentence_transformers import losses
from flashmetric.compat import sentence_transformers as losses

TOPICS = ("goal match team score", "stock bank share price", "rain cloud storm wind")


def main(epochs: int = 4) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(0)
    words = " ".join(TOPICS).split()
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)])
    topics = [topic.split() for topic in TOPICS]
    pairs = [(f"{a} {b}", n) for n, topic in enumerate(topics) for a in topic for b in topic]
    sentences, labels = zip(*pairs, strict=True)
    data = Dataset.from_dict({"sentence": list(sentences), "label": list(labels)})
    with tempfile.TemporaryDirectory() as folder:
        options = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            learning_rate=0.05,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=options,
            train_dataset=data,
            loss=losses.BatchHardTripletLoss(model, margin=1.0),
        )
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print("loss per step:", *(f"{loss:.4f}" for loss in main()))

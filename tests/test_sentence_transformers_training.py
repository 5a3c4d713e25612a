# SPDX-License-Identifier: BSD-3-Clause
"""SentenceTransformerTrainer with the losses of flashmetric.compat: the losses of its own."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch

from compat_data import BATCH, SIDES

pytestmark = pytest.mark.slow

WORDS = ["[UNK]", *(f"w{i}" for i in range(40))]
PAIRS = ("ContrastiveLoss", "OnlineContrastiveLoss")
NAMES = (*BATCH, *SIDES)
REASON = "trains with sentence-transformers 6.2"


@pytest.fixture(scope="module")
def library():
    found = pytest.importorskip("sentence_transformers", reason=REASON)
    for needed in ("accelerate", "datasets"):
        pytest.importorskip(needed, reason=REASON)
    return found


def _model(library):
    """Words to vectors, from a vocabulary made here; the same one every time."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    ids = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    words = StaticEmbedding(tokenizer, embedding_dim=16)
    return library.SentenceTransformer(modules=[words], device="cpu")


def _data(name):
    from datasets import Dataset

    texts = [f"w{i} w{7 * i % 40}" for i in range(48)]
    if name == "TripletLoss":
        columns = {"anchor": texts, "positive": texts[6:] + texts[:6], "negative": texts[::-1]}
    elif name in PAIRS:
        columns = {"first": texts, "second": texts[::-1], "label": [i % 2 for i in range(48)]}
    else:
        columns = {"sentence": texts, "label": [i % 6 for i in range(48)]}
    return Dataset.from_dict(columns)


def _trained(library, losses, name, folder):
    """The loss of every step, and the embeddings of the network after them."""
    model = _model(library)
    options = library.SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=12,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=3,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = library.SentenceTransformerTrainer(
        model=model, args=options, train_dataset=_data(name), loss=getattr(losses, name)(model)
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return torch.tensor(logged), next(model.parameters()).detach()


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_as_with_theirs(library, tmp_path, name):
    modules = (
        "flashmetric.compat.sentence_transformers",
        "sentence_transformers.sentence_transformer.losses",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trainer and what it uses
        ours, theirs = (
            _trained(library, importlib.import_module(module), name, tmp_path) for module in modules
        )
    assert len(ours[0]) == 8
    assert ours[0][-1] != ours[0][0]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)

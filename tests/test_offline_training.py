# SPDX-License-Identifier: BSD-3-Clause
"""What training takes from offline mining: pairs for a contrastive loss, a data set of triplets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flashmetric import (
    Pairs,
    TripletDataset,
    contrastive_pairs_loss,
    load_mined,
    mine_offline,
    mine_pairs,
    reference,
    triplet_loss,
    triplet_margin_loss,
)
from samples import class_batch


def _hardest_pairs(rows, labels, ignored=None):
    """Row by row, from the float64 keys."""
    key = reference.rank_key(rows, rows, distance="euclidean", normalize=False)
    found = []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i and labels[j] != ignored]
        if labels[i] == ignored:
            continue
        same = [j for j in others if labels[j] == labels[i]]
        other = [j for j in others if labels[j] != labels[i]]
        found += [(i, max(same, key=lambda j: (key[i, j], -j)), 1)] if same else []
        found += [(i, min(other, key=lambda j: (key[i, j], j)), 0)] if other else []
    return found


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("ignored", [None, 2])
def test_the_hardest_pairs_of_every_row(chunk, impl, ignored):
    rows, labels = class_batch(40, 5, 9)
    labels[:4] = torch.tensor([100, 101, 102, 100])  # two classes of one row
    options = {"ignore_label": ignored, "impl": impl, "queries_per_chunk": chunk}
    pairs = mine_pairs(rows, labels, **options)
    assert isinstance(pairs, Pairs)
    assert torch.stack(pairs, dim=1).tolist() == [
        list(pair) for pair in _hardest_pairs(rows, labels, ignored)
    ]


def test_rows_with_one_kind_of_pair_only():
    rows = torch.tensor([[0.0], [1.0], [5.0]])
    assert mine_pairs(rows, torch.zeros(3)).similar.tolist() == [1, 1, 1]
    assert mine_pairs(rows, torch.arange(3)).similar.tolist() == [0, 0, 0]
    assert len(mine_pairs(rows[:1], torch.zeros(1)).x1) == 0


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_pairs_on_disk(tmp_path, name):
    rows, labels = class_batch(40, 5, 9)
    expected = mine_pairs(rows, labels)
    options = {"queries_per_chunk": 15, "out": tmp_path / name}
    for mined in (mine_pairs(rows.numpy(), labels.numpy(), **options), load_mined(tmp_path / name)):
        assert isinstance(mined, Pairs)
        for ours, theirs in zip(mined, expected, strict=True):
            assert torch.equal(ours, theirs)
    with pytest.raises(
        ValueError, match=r"\[mine_offline\] out must be new, .* differs in mining, op"
    ):
        mine_offline(rows, labels, **options)


def test_pairs_feed_the_contrastive_loss():
    rows, labels = class_batch(40, 5, 9)
    leaf = rows.requires_grad_()
    contrastive_pairs_loss(*mine_pairs(rows.detach(), labels), embeddings=leaf).backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.count_nonzero() > 0


def test_pairs_message():
    rows, labels = class_batch(8, 3, 2)
    with pytest.raises(ValueError, match=r"^\[mine_pairs\] distance must be one of"):
        mine_pairs(rows, labels, distance="l2")
    with pytest.raises(ValueError, match=r"^\[mine_pairs\] labels must have shape"):
        mine_pairs(rows, labels[:3])


def _mined(n=40):
    rows, labels = class_batch(n, 5, 9)
    return rows, labels, mine_offline(rows, labels)


def test_samples_of_triplets():
    rows, labels, triplets = _mined()
    dataset = TripletDataset(TensorDataset(rows, labels), triplets)
    assert len(dataset) == len(triplets.anchor)
    for t in (0, 7, -1):
        for (row, label), index in zip(dataset[t], triplets, strict=True):
            assert torch.equal(row, rows[index[t]])
            assert label == labels[index[t]]
    assert len(list(dataset)) == len(dataset)
    with pytest.raises(IndexError, match=r"\[TripletDataset\] index must lie in"):
        dataset[len(dataset)]


def test_triplets_of_every_kind():
    rows, _, triplets = _mined()
    expected = TripletDataset(rows, triplets)
    arrays = [column.numpy().astype(np.int32) for column in triplets]
    for kind in (tuple(triplets), arrays, [column.tolist() for column in triplets]):
        dataset = TripletDataset(rows, kind)
        assert all(torch.equal(a, b) for a, b in zip(dataset[3], expected[3], strict=True))


def test_positives_and_negatives_of_references():
    rows, labels, _ = _mined()
    refs, ref_labels = class_batch(30, 5, 9, seed=1)
    triplets = mine_offline(rows, labels, ref_embeddings=refs, ref_labels=ref_labels)
    anchor, positive, negative = TripletDataset(rows, triplets, references=refs)[5]
    assert torch.equal(anchor, rows[triplets.anchor[5]])
    assert torch.equal(positive, refs[triplets.positive[5]])
    assert torch.equal(negative, refs[triplets.negative[5]])


@pytest.mark.parametrize("name", ["folder", "file.npz", None])
def test_workers_and_pickling(tmp_path, name):
    rows, labels, triplets = _mined(4000)
    out = None if name is None else tmp_path / name
    if out is not None:
        mine_offline(rows, labels, out=out)
    dataset = TripletDataset(range(4000), triplets if out is None else str(out))
    pickled = pickle.dumps(dataset)
    assert out is None or len(pickled) < 2000, "the indices stay on disk"
    for each in (dataset, pickle.loads(pickled)):
        loader = DataLoader(each, batch_size=500, num_workers=2)
        columns = zip(*loader, strict=True)
        for ours, theirs in zip(columns, triplets, strict=True):
            assert torch.equal(torch.cat(ours), theirs)


def test_the_loss_of_the_samples_is_the_loss_of_the_batch():
    rows, labels, triplets = _mined()
    loader = DataLoader(TripletDataset(rows, triplets), batch_size=len(triplets.anchor))
    (batch,) = loader
    assert triplet_margin_loss(*batch).item() == triplet_loss(rows, labels).item()


ONE = torch.tensor([0])
ERRORS = [
    ((ONE, ONE), "triplets must be three columns or a path; got tuple."),
    (7, "triplets must be three columns or a path; got int."),
    ((ONE, ONE, torch.tensor([0, 1])), "triplets must be of one length; got [1, 1, 2]."),
    ((ONE, ONE.float(), ONE), "triplets.positive must be integers or bools; got torch.float32."),
    ((ONE, ONE, ONE[None]), "triplets.negative must have shape (N,), one per sample; got (1, 1)."),
]


@pytest.mark.parametrize(("triplets", "message"), ERRORS, ids=[e[1] for e in ERRORS])
def test_message(triplets, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        TripletDataset([1.0], triplets)
    assert str(caught.value) == f"[TripletDataset] {message}"


def test_a_path_must_hold_triplets(tmp_path):
    rows, labels = class_batch(8, 3, 2)
    mine_pairs(rows, labels, out=tmp_path / "pairs")
    with pytest.raises(ValueError, match=r"\[TripletDataset\] .* holds pairs"):
        TripletDataset(rows, tmp_path / "pairs")
    with pytest.raises(ValueError, match=r"\[load_mined\] out must hold a complete result"):
        TripletDataset(rows, tmp_path / "nothing")

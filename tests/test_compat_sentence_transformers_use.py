# SPDX-License-Identifier: BSD-3-Clause
"""Losses of flashmetric.compat.sentence_transformers where the library's own are used."""

from __future__ import annotations

import copy
import importlib
import pickle
import warnings

import pytest
import torch
from torch import nn

from compat_data import BATCH, SIDES, rows_of
from flashmetric.compat import fuse, patch
from fresh_python import run_python

pytestmark = pytest.mark.slow  # the import alone

NAMES = (*BATCH, *SIDES)
PATH = "sentence_transformers.sentence_transformer.losses"


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip(PATH, reason="compares with sentence-transformers 6.2")


@pytest.fixture(scope="module")
def ours(theirs):  # noqa: ARG001  skips without them
    return importlib.import_module("flashmetric.compat.sentence_transformers")


def _sides(name):
    return SIDES.get(name, 1)


def test_constructor_configuration_and_citation_are_theirs(ours, theirs):
    for name in NAMES:
        mine, other = (getattr(module, name)(nn.Linear(2, 2)) for module in (ours, theirs))
        assert isinstance(mine, type(other))
        assert type(mine).__init__ is type(other).__init__
        assert mine.get_config_dict() == other.get_config_dict()
        if hasattr(other, "citation"):
            assert mine.citation == other.citation
        assert mine.state_dict().keys() == other.state_dict().keys()
        mine.load_state_dict(other.state_dict())


def test_what_is_not_fused_passes_through(ours, theirs):
    assert set(theirs.__all__) <= set(dir(ours))
    for name in set(theirs.__all__) - set(NAMES):
        assert getattr(ours, name) is getattr(theirs, name)
    with pytest.raises(AttributeError, match="no_such_loss"):
        ours.no_such_loss  # noqa: B018


def test_without_the_library_one_sentence_says_what_to_install():
    script = """
import sys
sys.modules["sentence_transformers"] = None
try:
    import flashmetric.compat.sentence_transformers
except ModuleNotFoundError as missing:
    print(missing)
"""
    sentence = "flashmetric.compat.sentence_transformers needs sentence-transformers: pip install"
    assert run_python(script).startswith(sentence)


def test_copies_and_pickles(ours):
    labels, rows = torch.arange(8) % 3, rows_of([0] * 8)
    for name in BATCH:
        criterion = getattr(ours, name)(nn.Identity())
        expected = criterion.compute_loss_from_embeddings(rows, labels)
        for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
            assert torch.equal(twin.compute_loss_from_embeddings(rows, labels), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_graph(ours, name):
    torch._dynamo.reset()
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    criterion = getattr(ours, name)(nn.Identity())
    leaves = [side.float().requires_grad_() for side in rows_of(labels.tolist(), _sides(name))]

    def loss(*rows):
        return criterion.compute_loss_from_embeddings(list(rows), labels)

    expected = loss(*leaves)  # the labels of the first batch are looked at: a graph break there too
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    grads = (torch.autograd.grad(value, leaves) for value in (found, expected))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(list(grad) for grad in grads))


def test_autocast(ours, theirs):
    """Embeddings of a network in bfloat16: a loss of the dtype of theirs, near it."""
    network, labels = nn.Linear(5, 4), torch.tensor([0, 1, 0, 1, 1, 0])
    for name in NAMES:
        inputs = [side.float() for side in rows_of(labels.tolist(), _sides(name))]
        values = []
        for module in (ours, theirs):
            criterion = getattr(module, name)(network)
            with torch.autocast("cpu", torch.bfloat16):
                embeddings = [network(side) for side in inputs]
                values.append(criterion.compute_loss_from_embeddings(embeddings, labels))
            values[-1].backward()
        assert values[0].dtype == torch.float32
        torch.testing.assert_close(*values, rtol=0.02, atol=1e-3, check_dtype=False)


def test_patch_reaches_every_import_path(ours, theirs):
    with patch("sentence_transformers"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old path, which many use
        from sentence_transformers import losses
        from sentence_transformers.sentence_transformer.losses.batch_all_triplet import (
            BatchAllTripletLoss,
        )

        assert BatchAllTripletLoss is ours.BatchAllTripletLoss
        for name in NAMES:
            assert getattr(losses, name) is getattr(ours, name)
            assert getattr(theirs, name) is getattr(ours, name)
        soft = losses.BatchHardSoftMarginTripletLoss(nn.Identity())
        soft.compute_loss_from_embeddings(rows_of([0, 1]), torch.tensor([0, 1]))
    for name in NAMES:
        assert getattr(theirs, name).__module__.startswith(PATH)


def test_fuse_takes_their_objects(ours, theirs):
    labels = torch.arange(8) % 2
    for name in NAMES:
        rows = rows_of([0] * 8, _sides(name))
        loss = getattr(theirs, name)(nn.Linear(2, 2))
        twin = fuse(loss)
        assert type(twin) is getattr(ours, name)
        assert dict(twin.named_parameters()) == dict(loss.named_parameters())
        assert twin.get_config_dict() == loss.get_config_dict()
        expected = loss.compute_loss_from_embeddings(rows, labels)
        torch.testing.assert_close(twin.compute_loss_from_embeddings(rows, labels), expected)
        assert fuse(twin) is twin


def test_fuse_says_what_it_cannot_take(theirs):
    class Own(theirs.BatchHardTripletLoss):
        pass

    model = nn.Identity()
    with pytest.raises(TypeError, match="Own extends BatchHardTripletLoss and may override"):
        fuse(Own(model))
    with pytest.raises(TypeError, match="MultipleNegativesRankingLoss has no fused equivalent"):
        fuse(theirs.MultipleNegativesRankingLoss(model))
    with pytest.raises(TypeError, match="miner must be None for BatchHardTripletLoss"):
        fuse(theirs.BatchHardTripletLoss(model), nn.Identity())
    loss = theirs.BatchAllTripletLoss(model, distance_metric=torch.cdist)
    with pytest.raises(ValueError, match="distance_metric of BatchAllTripletLoss must be one of"):
        fuse(loss)

# SPDX-License-Identifier: BSD-3-Clause
"""The nn.Modules are their functional twins, and behave as modules should."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch

import flashmetric
from compare import assert_same_bits
from flashmetric import functional
from op_db import OP
from samples import class_batch

# Keywords of a function that its module takes at call time; all others are fixed when it is made.
CALL_TIME = {
    "triplet_loss": {
        *("embeddings", "labels", "ref_embeddings", "ref_labels"),
        *("same_mask", "self_index", "weights"),
    },
    "triplet_margin_loss": {
        *("anchor", "positive", "negative", "embeddings", "ref_embeddings", "weights")
    },
}
MODULES = {
    flashmetric.TripletLoss: "triplet_loss",
    flashmetric.BatchHardTripletLoss: "triplet_loss",
    flashmetric.TripletMarginLoss: "triplet_margin_loss",
}
EXAMPLES = [
    flashmetric.TripletLoss(),
    flashmetric.TripletLoss(0.3, distance="cosine", reduction="sum", invalid="count"),
    flashmetric.BatchHardTripletLoss(margin=0.2, normalize=True, ignore_label=3),
    flashmetric.TripletMarginLoss(soft_margin=True, swap=True, reduction="mean_active"),
]
ids = [repr(module) for module in EXAMPLES]


def _call(module):
    rows, labels = class_batch(24, 6, 6)
    if isinstance(module, flashmetric.TripletMarginLoss):
        return module(rows, rows.roll(1, 0), rows.roll(2, 0))
    return module(rows, labels)


@pytest.mark.parametrize("name", ["TripletLoss", "TripletMarginLoss"])
def test_a_module_is_its_function_for_every_row(name):
    module_class = getattr(flashmetric, name)
    op = OP[MODULES[module_class]]
    for row in op.rows:
        sample = op.sample(row, torch.float32)
        call_time = CALL_TIME[op.name]
        fixed = {k: v for k, v in sample.options.items() if k not in call_time}
        given = {k: v for k, v in sample.options.items() if k in call_time}
        assert_same_bits(module_class(**fixed)(**sample.tensors, **given), op.run(sample, "auto"))


@pytest.mark.parametrize("module_class", MODULES, ids=lambda c: c.__name__)
def test_a_module_takes_every_option_of_its_function_with_its_default(module_class):
    name = MODULES[module_class]
    function = inspect.signature(getattr(functional, name)).parameters
    fixed = inspect.signature(module_class).parameters
    called = set(inspect.signature(module_class.forward).parameters) - {"self"}
    expected = set(function) - CALL_TIME[name]
    if module_class is flashmetric.BatchHardTripletLoss:
        expected -= {"mining"}
    assert set(fixed) == expected
    assert called == CALL_TIME[name]
    for option in expected:
        assert fixed[option].default == function[option].default, option


@pytest.mark.parametrize("module", EXAMPLES, ids=ids)
def test_copies_give_the_same_bits(module):
    expected = _call(module)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for twin in (
        copy.deepcopy(module),
        copy.copy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
    ):
        assert type(twin) is type(module)
        assert_same_bits(_call(twin), expected)


@pytest.mark.parametrize("module", EXAMPLES, ids=ids)
def test_a_loss_has_no_state(module):
    assert module.state_dict() == {}
    assert list(module.parameters()) == []
    module.load_state_dict({})
    assert_same_bits(_call(copy.deepcopy(module).double().eval()), _call(module))


def test_a_module_shows_its_options():
    text = repr(flashmetric.TripletLoss(margin=0.25, distance="cosine", reduction="sum"))
    assert text.startswith("TripletLoss(")
    for part in ("margin=0.25", "distance='cosine'", "reduction='sum'"):
        assert part in text


def test_batch_hard_is_the_hard_triplet_loss():
    rows, labels = class_batch(24, 6, 6)
    ours = flashmetric.BatchHardTripletLoss(0.4)(rows, labels)
    assert_same_bits(ours, flashmetric.TripletLoss(0.4, mining="hard")(rows, labels))


def test_a_margin_tensor_may_live_in_the_module():
    rows, labels = class_batch(24, 6, 6)
    module = flashmetric.TripletLoss(margin=torch.tensor(0.4))
    assert_same_bits(
        module(rows, labels), flashmetric.TripletLoss(margin=0.4)(rows, labels).clone()
    )


def test_statistics_come_beside_the_loss():
    loss, stats = flashmetric.TripletLoss(return_stats=True)(*class_batch(24, 6, 6))
    assert isinstance(stats, flashmetric.Stats)
    assert loss.shape == ()
    assert stats.valid_anchors == 24


def test_functional_re_exports_functions_only():
    public = {name for name in vars(functional) if not name.startswith("_")}
    exported = {name for name in functional.__all__}
    assert exported == {op for op in OP}
    assert exported <= public
    for name in exported:
        assert getattr(functional, name).__module__ != functional.__name__


def test_what_the_package_offers():
    expected = {
        *("TripletLoss", "BatchHardTripletLoss", "TripletMarginLoss"),
        *("mine_triplets", "pairwise_distances", "Triplets", "Stats", "functional"),
    }
    assert expected <= set(dir(flashmetric))
    assert flashmetric.mine_triplets is functional.mine_triplets
    assert flashmetric.pairwise_distances is functional.pairwise_distances
    assert isinstance(flashmetric.__version__, str)


@pytest.mark.parametrize("function", [op.function for op in OP.values()], ids=list(OP))
def test_options_are_keywords(function):
    """Only the tensors may be positional."""
    positional = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert positional in (
        ["embeddings", "labels"],
        ["anchor", "positive", "negative"],
        ["x", "y"],
    )

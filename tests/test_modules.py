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
from flashmetric._validate import RuleOptions
from op_db import OPS
from samples import class_batch

# Keywords of a function that its module takes at call time; all others are fixed when it is made.
_COMPARED = {
    *("embeddings", "labels", "ref_embeddings", "ref_labels"),
    *("same_mask", "self_index", "weights"),
}
_ROWS = {"embeddings", "ref_embeddings", "weights"}
CALL_TIME = {
    "triplet_loss": _COMPARED,
    "quadruplet_loss": _COMPARED,
    "margin_loss": _COMPARED,
    "contrastive_loss": _COMPARED,
    "online_contrastive_loss": _COMPARED,
    "triplet_margin_loss": {"anchor", "positive", "negative"} | _ROWS,
    "quadruplet_margin_loss": {"anchor", "positive", "negative1", "negative2"} | _ROWS,
    "contrastive_pairs_loss": {"x1", "x2", "similar"} | _ROWS,
}
MODULES = {
    flashmetric.TripletLoss: "triplet_loss",
    flashmetric.BatchHardTripletLoss: "triplet_loss",
    flashmetric.BatchSemiHardTripletLoss: "triplet_loss",
    flashmetric.BatchAllTripletLoss: "triplet_loss",
    flashmetric.TripletMarginLoss: "triplet_margin_loss",
    flashmetric.QuadrupletLoss: "quadruplet_loss",
    flashmetric.QuadrupletMarginLoss: "quadruplet_margin_loss",
    flashmetric.MarginLoss: "margin_loss",
    flashmetric.ContrastiveLoss: "contrastive_loss",
    flashmetric.ContrastivePairsLoss: "contrastive_pairs_loss",
    flashmetric.OnlineContrastiveLoss: "online_contrastive_loss",
}
# What a module of one mining rule does without; and what a module has of its own.
_RULE = set(RuleOptions._fields)
LACKING = {
    flashmetric.BatchHardTripletLoss: _RULE,
    flashmetric.BatchSemiHardTripletLoss: _RULE - {"fallback", "hardness"},
    flashmetric.BatchAllTripletLoss: _RULE,
}
OWN = {flashmetric.MarginLoss: {"learn_beta", "num_classes"}}
EXAMPLES = [
    flashmetric.TripletLoss(),
    flashmetric.TripletLoss(mining="easy_hard", positive_mining="semihard", negative_mining="hard"),
    flashmetric.BatchSemiHardTripletLoss(hardness=torch.tensor(0.7), fallback="drop"),
    flashmetric.BatchAllTripletLoss(torch.tensor(0.2), reduction="sum"),
    flashmetric.TripletLoss(0.3, distance="cosine", reduction="sum", invalid="count"),
    flashmetric.BatchHardTripletLoss(margin=0.2, normalize=True, ignore_label=3),
    flashmetric.TripletMarginLoss(soft_margin=True, swap=True, reduction="mean_active"),
    flashmetric.QuadrupletLoss(2.0, torch.tensor(0.1), reduction="none"),
    flashmetric.QuadrupletMarginLoss(margin2=3.0, distance="euclidean"),
    flashmetric.MarginLoss(beta=torch.tensor(1.5), mining="all", normalize=False),
    flashmetric.ContrastiveLoss(2.0, half=True, reduction="mean_pairs"),
    flashmetric.ContrastivePairsLoss(pos_margin=torch.tensor(0.5), power=1),
    flashmetric.OnlineContrastiveLoss(margin=torch.tensor(3.0), reduction="mean"),
]
ids = [repr(module) for module in EXAMPLES]


def _call(module):
    rows, labels = class_batch(24, 6, 6)
    turned = [rows.roll(n, 0) for n in range(4)]
    if isinstance(module, flashmetric.ContrastivePairsLoss):
        return module(*turned[:2], labels % 2)
    if isinstance(module, flashmetric.TripletMarginLoss):
        return module(*turned[:3])
    if isinstance(module, flashmetric.QuadrupletMarginLoss):
        return module(*turned)
    return module(rows, labels)


def _modules_of(op):
    return [each for each, name in MODULES.items() if name == op.function.__name__]


@pytest.mark.parametrize("op", [op for op in OPS if _modules_of(op)], ids=lambda op: op.name)
def test_a_module_is_its_function_for_every_row(op):
    module_class, call_time = _modules_of(op)[0], CALL_TIME[op.function.__name__]
    for row in op.rows:
        sample = op.sample(row, torch.float32)
        arguments = sample.arguments()
        fixed = {name: arguments.pop(name) for name in set(arguments) - call_time}
        assert_same_bits(module_class(**fixed)(**arguments), op.run(sample, "auto"))


@pytest.mark.parametrize("module_class", MODULES, ids=lambda c: c.__name__)
def test_a_module_takes_every_option_of_its_function_with_its_default(module_class):
    name = MODULES[module_class]
    function = inspect.signature(getattr(functional, name)).parameters
    fixed = inspect.signature(module_class).parameters
    called = set(inspect.signature(module_class.forward).parameters) - {"self"}
    expected = set(function) - CALL_TIME[name] - LACKING.get(module_class, set())
    assert set(fixed) == expected | OWN.get(module_class, set())
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
    assert exported == {op.function.__name__ for op in OPS}
    assert exported <= public
    for name in exported:
        assert getattr(functional, name).__module__ != functional.__name__


def test_what_the_package_offers():
    expected = {
        *(module.__name__ for module in MODULES),
        *functional.__all__,
        *("Triplets", "Stats", "functional"),
    }
    assert expected <= set(dir(flashmetric))
    assert flashmetric.mine_triplets is functional.mine_triplets
    assert flashmetric.pairwise_distances is functional.pairwise_distances
    assert isinstance(flashmetric.__version__, str)


@pytest.mark.parametrize("name", functional.__all__)
def test_options_are_keywords(name):
    """Only the tensors may be positional."""
    positional = [
        name
        for name, parameter in inspect.signature(getattr(functional, name)).parameters.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert positional in (
        ["embeddings", "labels"],
        ["anchor", "positive", "negative"],
        ["anchor", "positive", "negative1", "negative2"],
        ["x1", "x2", "similar"],
        ["x", "y"],
    )

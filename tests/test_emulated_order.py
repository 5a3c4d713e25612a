# SPDX-License-Identifier: BSD-3-Clause
"""Blocks of a GPU come in any order: here in two, of which equal inputs give equal bits."""

from __future__ import annotations

import pytest

import emulation
from compare import assert_same_bits
from dense_beside_float64 import LOSSES, batch, with_references
from op_db import OP
from samples import cotangent_for
from test_emulated_gpu import main_loop, module  # noqa: F401  fixtures
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
NAMES = (*LOSSES, "triplet_loss", "online_contrastive_loss")


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("classes", ["four_each", "two"])
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_blocks_changes_nothing(main_loop, monkeypatch, name, classes, references):  # noqa: F811
    """By which rows of a class find their places, among other things."""
    gpu, environment = main_loop
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    sample = batch(name, 300, 20, classes)
    if references:
        sample = with_references(sample, 260)
    cotangent = cotangent_for(OP[name].run(sample))
    with emulation.on_the_gpu(gpu):
        value, grads = gradients(OP[name], sample, cotangent)
        monkeypatch.setenv("EMULATED_BACKWARDS", "1")
        again, others = gradients(OP[name], sample, cotangent)
    assert_same_bits(value, again)
    for key, grad in grads.items():
        assert_same_bits(grad, others[key], what=f"gradient of {key}")

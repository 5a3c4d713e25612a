# SPDX-License-Identifier: BSD-3-Clause
"""Classes of pytorch-metric-learning in training: compiled, scaled, checkpointed, distributed."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fresh_python import run_python
from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners

from flashmetric.compat.pytorch_metric_learning import losses, miners

NAMES = ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_compiles_to_a_full_graph(name):
    """Those of the peer do not: their sizes depend on the data."""
    rows, labels = class_batch(24, 6, 8)
    rows.requires_grad_()
    loss = getattr(losses, name)()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(rows, labels), rows)
    (expected,) = torch.autograd.grad(loss(rows, labels), rows)
    torch.testing.assert_close(grad, expected, rtol=0, atol=0)


@pytest.mark.parametrize("miner", ["BatchHardMiner", "TripletMarginMiner"])
def test_a_miner_compiles_with_graph_breaks(miner):
    rows, labels = class_batch(24, 6, 8)
    loss, mine = losses.TripletMarginLoss(margin=0.3), getattr(miners, miner)()
    compiled = torch.compile(lambda x, y: loss(x, y, mine(x, y)), backend="aot_eager")
    expected = their_losses.TripletMarginLoss(margin=0.3)(
        rows, labels, getattr(their_miners, miner)()(rows, labels)
    )
    torch.testing.assert_close(compiled(rows, labels), expected)


def _train(kind: Any, mining: Any, autocast: bool, checkpointed: bool) -> list[float]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss_of, miner = kind.TripletMarginLoss(margin=0.2), mining.BatchHardMiner()
    values = []
    for step in range(6):
        rows, labels = class_batch(32, 12, 8, seed=step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            x = checkpoint(network, rows, use_reentrant=False) if checkpointed else network(rows)
            # Autocast would give bfloat16, whose distances the two round differently.
            x = x.float()
            loss = loss_of(x, labels, miner(x, labels))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_training_goes_the_same_way(autocast, checkpointed):
    ours = _train(losses, miners, autocast, checkpointed)
    assert ours == pytest.approx(
        _train(their_losses, their_miners, autocast, checkpointed), rel=1e-3
    )
    assert ours[0] != ours[-1]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("miner", [None, "BatchHardMiner", "TripletMarginMiner", "PairMarginMiner"])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_around_the_loss(name, miner, reentrant):
    """It is computed twice, from another tensor of the same rows: mined in it, or before it."""
    rows, labels = class_batch(24, 6, 8, dtype=torch.float64)
    found = []
    for kind, mining in ((losses, miners), (their_losses, their_miners)):
        loss, mine = getattr(kind, name)(), miner and getattr(mining, miner)()

        def mined_in_it(x, loss=loss, mine=mine):
            return loss(x, labels, mine and mine(x, labels))

        def mined_before(x, loss=loss, mine=mine):
            pairs = mine and mine(x, labels)
            return checkpoint(lambda y: loss(y, labels, pairs), x, use_reentrant=reentrant)

        for call in (
            mined_in_it,
            mined_before,
            lambda x, f=mined_in_it: checkpoint(f, x, use_reentrant=reentrant),
        ):
            leaf = rows.clone().requires_grad_()
            value = call(1.0 * leaf)
            value.backward()
            found.append([value.detach(), leaf.grad])
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])


def test_distributed_data_parallel(tmp_path):
    """Two processes, with the peer's wrapper: each parameter gets the gradient it gets there."""
    script = textwrap.dedent(
        """
        import os, sys
        import torch, torch.distributed as dist
        from pytorch_metric_learning import losses as theirs
        from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
        from flashmetric.compat.pytorch_metric_learning import losses as ours

        rank, path = int(sys.argv[1]), sys.argv[2]
        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)
        grads = []
        for kind in (ours, theirs):
            for efficient in (False, True):
                torch.manual_seed(0)
                network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 5))
                torch.manual_seed(rank + 1)
                loss = DistributedLossWrapper(kind.TripletMarginLoss(), efficient=efficient)
                loss(network(torch.randn(24, 6)), torch.arange(24) % 8).backward()
                grads.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        for one, other in zip(grads[:2], grads[2:]):
            torch.testing.assert_close(one, other)
        dist.barrier()
        dist.destroy_process_group()
        print("same", flush=True)
        os._exit(0)  # threads of gloo may still run, and end the interpreter's exit by an abort
        """
    )
    store = str(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:  # a Python each: a forked one may inherit a held lock
        outputs = list(pool.map(lambda rank: run_python(script, rank, store), ("0", "1")))
    assert [output.strip() for output in outputs] == ["same", "same"]

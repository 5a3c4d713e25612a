# SPDX-License-Identifier: BSD-3-Clause
"""Wrappers of pytorch-metric-learning around fused losses and miners: as around its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from fresh_python import run_python

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners

from flashmetric.compat.pytorch_metric_learning import losses, miners
from pml_grid import assert_equal, batch_of

KINDS = ((losses, miners), (their_losses, their_miners))
FUSED = sorted(losses.__all__)
MINERS = {
    "none": lambda _: None,
    "hard": lambda kind: kind.BatchHardMiner(),
    "easy semihard": lambda kind: kind.BatchEasyHardMiner(),
    "all hard": lambda kind: kind.BatchEasyHardMiner(pos_strategy="all", neg_strategy="hard"),
    "margin": lambda kind: kind.TripletMarginMiner(margin=0.3),
    "pairs": lambda kind: kind.PairMarginMiner(pos_margin=0.2, neg_margin=1.2),
    "weighted": lambda kind: kind.DistanceWeightedMiner(cutoff=0.3),  # draws as the peer
}
FALLS_BACK = pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")


class _Unlabelled(torch.nn.Module):
    """A loss of views, called as one of labels."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, rows: Any, _labels: Any, _pairs: Any, refs: Any, _ref_labels: Any) -> Any:
        return self.loss(rows, refs)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", [name for name in FUSED if name != "MarginLoss"])
def test_self_supervised_loss(name, symmetric):
    for n in (2, 7):
        views = [batch_of((1,) * n, seed) for seed in (n, n + 1)]
        wrapped = [
            _Unlabelled(kind.SelfSupervisedLoss(getattr(kind, name)(), symmetric=symmetric))
            for kind, _ in KINDS
        ]
        assert_equal(*wrapped, *views[0], refs=views[1])


@pytest.mark.parametrize("name", FUSED)
def test_cross_batch_memory_takes_the_same_losses(name):
    for kind, _ in KINDS:
        wrapped = kind.CrossBatchMemory(getattr(kind, name)(), 7, 40)
        assert type(wrapped.loss).__name__ in wrapped.supported_losses()
    if name == "MarginLoss":
        for kind, _ in KINDS:
            with pytest.raises(Exception, match="SelfSupervisedLoss not supported for MarginLoss"):
                kind.SelfSupervisedLoss(getattr(kind, name)())


@FALLS_BACK
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_cross_batch_memory(name, miner, masked):
    """Batches while the queue fills, and as many after it has come round."""
    results = []
    for kind, mining in KINDS:
        torch.manual_seed(0)
        wrapped = kind.CrossBatchMemory(getattr(kind, name)(), 7, 30, MINERS[miner](mining))
        values = []
        for seed in range(5):
            rows, labels = batch_of((1, 6, 2, 3), seed)
            rows.requires_grad_()
            mask = torch.arange(12) % 3 != 0 if masked else None
            value = wrapped(rows, labels, enqueue_mask=mask)
            values += [value.detach(), *torch.autograd.grad(value, rows)]
        results.append([*values, wrapped.embedding_memory, wrapped.label_memory])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", FUSED)
def test_cross_batch_memory_takes_a_tuple_beside_its_own(name):
    """Mined in the batch, with positions of the queue: the tuple is read and appended."""
    results = []
    for kind, mining in KINDS:
        wrapped = kind.CrossBatchMemory(getattr(kind, name)(), 7, 30, mining.BatchHardMiner())
        for seed in range(3):
            rows, labels = batch_of((4, 4, 4), seed)
            rows.requires_grad_()
            value = wrapped(rows, labels, mining.BatchEasyHardMiner()(rows, labels))
            results.append([value.detach(), *torch.autograd.grad(value, rows)])
    for one, other in zip(results[:3], results[3:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def _several(kind: Any, mining: Any) -> list[Any]:
    """MultipleLosses of every fused loss: with a tuple, a miner each, names and weights."""
    made = [getattr(kind, name)() for name in FUSED]
    mined = [MINERS[name](mining) for name in ("hard", "none", "margin", "pairs")]
    named = dict(zip(FUSED, made, strict=True))
    weights = dict(zip(FUSED, (0.5, 1.0, 2.0, 0.0), strict=True))
    some = {name: miner for name, miner in zip(FUSED, mined, strict=True) if miner is not None}
    return [
        kind.MultipleLosses(made),
        kind.MultipleLosses(made, weights=[0.3, 1.0, 0.7, 2.0]),
        kind.MultipleLosses(named, some, weights),
    ]


@pytest.mark.parametrize("miner", [name for name in MINERS if name != "weighted"])
def test_multiple_losses(miner):
    rows, labels = batch_of((4, 4, 4), 4)
    for position in range(3):
        own_miners = position == 2
        mine = None if own_miners else [MINERS[miner](mining) for _, mining in KINDS]
        several = [_several(*both)[position] for both in KINDS]
        called = [_WithoutReferences(each) for each in several]
        assert_equal(*called, rows, labels, None if mine == [None, None] else mine)


class _WithoutReferences(torch.nn.Module):
    def __init__(self, several: Any) -> None:
        super().__init__()
        self.several = several

    def forward(self, rows: Any, labels: Any, pairs: Any) -> Any:
        return self.several(rows, labels, pairs)


TWO_PROCESSES = """
import os, sys, warnings
import torch, torch.distributed as dist
from pytorch_metric_learning import losses as their_losses, miners as their_miners
from pytorch_metric_learning.utils import distributed as wrappers
from flashmetric.compat.pytorch_metric_learning import losses, miners

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)

def step(kind, mining, loss, miner, efficient, memory=False):
    torch.manual_seed(0)
    network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(6, 5).double())
    torch.manual_seed(rank + 1)
    rows, labels = torch.randn(24, 6).double(), torch.arange(24) % 8
    criterion = getattr(kind, loss)()
    if memory:
        criterion = kind.CrossBatchMemory(criterion, 5, 96, getattr(mining, miner)())
    wrapped = wrappers.DistributedLossWrapper(criterion, efficient=efficient)
    mine = wrappers.DistributedMinerWrapper(getattr(mining, miner)(), efficient=efficient)
    found = []
    for _ in range(2):
        embeddings = network(rows)
        given = (embeddings, labels)
        value = wrapped(*given) if memory else wrapped(*given, mine(*given))
        network.zero_grad()
        value.backward()
        found += [value.detach(), *(p.grad.clone() for p in network.parameters())]
    return found

cases = [
    (loss, miner, efficient, False)
    for loss in losses.__all__
    for miner in ("BatchHardMiner", "TripletMarginMiner", "PairMarginMiner")
    for efficient in (False, True)
]
cases += [(loss, "BatchHardMiner", False, True) for loss in losses.__all__]
for case in cases:
    ours, theirs = step(losses, miners, *case), step(their_losses, their_miners, *case)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
dist.barrier()
dist.destroy_process_group()
print("same", len(cases), flush=True)
os._exit(0)  # threads of gloo may still run, and end the interpreter's exit by an abort
"""


def test_two_processes_with_a_miner(tmp_path):
    """Both wrappers of the peer, efficient and not: each parameter gets the gradient it gets there,
    from tuples over the rows of every process."""
    store = str(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:  # a Python each: a forked one may inherit a held lock
        outputs = list(pool.map(lambda rank: run_python(TWO_PROCESSES, rank, store), ("0", "1")))
    assert [output.strip() for output in outputs] == ["same 28", "same 28"]

# SPDX-License-Identifier: BSD-3-Clause
"""Who is timed: every way to compute the batch-hard triplet loss and its gradient.

A contender turns a problem into a *step*: a function without arguments that runs forward and
backward once. A new contender is one `build` function and one row of CONTENDERS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from flashmetric._compat import apply_of
from flashmetric.cli import machine
from flashmetric.cli.bench.eager import gram_batch_hard
from flashmetric.cli.bench.problems import MARGIN, Problem

__all__ = [
    "CONTENDERS",
    "FLOOR",
    "UNIT",
    "Contender",
    "Loss",
    "Outcome",
    "Step",
    "pytorch_metric_learning",
    "sentence_transformers",
]

# (loss, gradient of the embeddings); None for the bare products.
Outcome = tuple[Tensor, Tensor] | None
Step = Callable[[], Outcome]
Loss = Callable[[Tensor, Tensor], Tensor]

UNIT = "matmul"


@dataclass(frozen=True)
class Contender:
    """A row of the benchmark.

    `invalid` is how it treats an anchor without a positive or a negative (None: no loss at all).
    `needs` are the distributions it cannot run without.
    """

    name: str
    title: str
    build: Callable[[Problem], Step]
    invalid: str | None = "drop"
    needs: tuple[str, ...] = ()
    isa: str | None = None

    def unavailable(self) -> str:
        """Why it cannot run here, "" if it can."""
        missing = [name for name in self.needs if machine.package_version(name) is None]
        if missing:
            return f"not installed: pip install {' '.join(missing)}"
        return _isa_unavailable(self.isa) if self.isa else ""


def _isa_unavailable(isa: str) -> str:
    facts = machine.isa_facts()
    if isa not in facts["compiled"]:
        return f"no {isa} kernels compiled"
    if not facts["compiled"][isa]:
        return f"this CPU has no {isa}"
    return f"{isa} is the instruction set in use anyway" if facts["in_use"] == isa else ""


def _training_step(problem: Problem, loss_of: Loss) -> Step:
    embeddings = problem.embeddings().requires_grad_()
    labels = problem.labels()

    def step() -> Outcome:
        embeddings.grad = None
        loss = loss_of(embeddings, labels)
        loss.backward()
        assert embeddings.grad is not None
        return loss.detach(), embeddings.grad

    return step


def _matmul(problem: Problem) -> Step:
    embeddings = problem.embeddings()

    def step() -> Outcome:
        torch.matmul(embeddings, embeddings.T)
        return None

    return step


def _mm_out(problem: Problem) -> Step:
    embeddings = problem.embeddings()
    buffer = torch.empty(problem.batch, problem.batch)

    def step() -> Outcome:
        torch.mm(embeddings, embeddings.T, out=buffer)
        return None

    return step


def _ours(impl: str) -> Callable[[Problem], Step]:
    def build(problem: Problem) -> Step:
        triplet_loss = importlib.import_module("flashmetric.functional").triplet_loss
        return _training_step(
            problem, lambda x, labels: triplet_loss(x, labels, margin=MARGIN, impl=impl)
        )

    return build


def _ours_forced(isa: str) -> Callable[[Problem], Step]:
    def build(problem: Problem) -> Step:
        kernels: Any = importlib.import_module("flashmetric._C")
        plain = _ours("fused")(problem)
        usual = kernels.isa()

        def step() -> Outcome:
            kernels.force_isa(isa)
            try:
                return plain()
            finally:
                kernels.force_isa(usual)

        return step

    return build


def _eager(problem: Problem) -> Step:
    return _training_step(problem, lambda x, labels: gram_batch_hard(x, labels, MARGIN))


def _compiled(problem: Problem) -> Step:
    torch._dynamo.reset()
    compiled = torch.compile(gram_batch_hard, fullgraph=True, dynamic=False)
    return _training_step(problem, lambda x, labels: compiled(x, labels, MARGIN))


def pytorch_metric_learning() -> Loss:
    package: Any = importlib.import_module("pytorch_metric_learning")
    for part in ("distances", "losses", "miners", "reducers"):
        importlib.import_module(f"pytorch_metric_learning.{part}")
    distance = package.distances.LpDistance(normalize_embeddings=False, p=2)
    miner = package.miners.BatchHardMiner(distance=distance)
    # Its default reducer averages over active triplets only; ours and the others over all.
    loss = package.losses.TripletMarginLoss(
        margin=MARGIN, distance=distance, reducer=package.reducers.MeanReducer()
    )
    return lambda x, labels: loss(x, labels, miner(x, labels))


def sentence_transformers() -> Loss:
    losses: Any = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    loss = losses.BatchHardTripletLoss(model=torch.nn.Identity(), margin=MARGIN)
    return lambda x, labels: loss.compute_loss_from_embeddings([x], labels)


def _peer(loss: Callable[[], Loss]) -> Callable[[Problem], Step]:
    return lambda problem: _training_step(problem, loss())


class _Nothing(Function):
    """A loss that computes nothing, and keeps what a loss keeps."""

    @staticmethod
    def forward(embeddings: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings.new_zeros(()), torch.empty_like(embeddings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Tensor:
        gradient: Tensor = ctx.saved_tensors[1]
        return gradient


def _nothing(problem: Problem) -> Step:
    apply = apply_of(_Nothing)
    return _training_step(problem, lambda x, _: apply(x)[0])


# What PyTorch asks of any loss written in Python, whatever it computes.
FLOOR = Contender("floor", "an autograd.Function that does nothing", _nothing, invalid=None)

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(UNIT, "torch.matmul(x, x.T)", _matmul, invalid=None),
        Contender("mm_out", "torch.mm(x, x.T, out=buffer)", _mm_out, invalid=None),
        Contender("flashmetric", "FlashMetric", _ours("fused")),
        Contender("flashmetric_avx2", "FlashMetric, AVX2", _ours_forced("avx2"), isa="avx2"),
        Contender("eager", "torch eager", _eager),
        Contender("compiled", "torch.compile", _compiled),
        Contender(
            "pytorch_metric_learning",
            "pytorch-metric-learning",
            _peer(pytorch_metric_learning),
            needs=("pytorch-metric-learning",),
        ),
        Contender(
            "sentence_transformers",
            "sentence-transformers",
            _peer(sentence_transformers),
            invalid="count",
            needs=("sentence-transformers",),
        ),
        Contender("reference", "FlashMetric reference", _ours("reference")),
    )
}

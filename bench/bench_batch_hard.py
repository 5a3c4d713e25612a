# SPDX-License-Identifier: BSD-3-Clause
"""Batch-hard triplet loss, forward and backward, of every contender: `pytest bench`.

The problems and contenders of `python -m flashmetric bench`, under pytest-benchmark, for what
that is good at: `--benchmark-save`, `--benchmark-compare`, `--benchmark-histogram`. Tests run one
after the other here; the ratios in the documents come from the command, which interleaves.
"""

import functools
import warnings

import pytest

from flashmetric.cli.bench.agreement import Truth, compare, truth_of
from flashmetric.cli.bench.contenders import CONTENDERS, Contender
from flashmetric.cli.bench.problems import QUICK, Problem

PROBLEMS = (*QUICK, Problem(1024, 128, "skewed"), Problem(1024, 128, "two"))

truth = functools.cache(truth_of)


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda row: row.name)
def test_forward_and_backward(benchmark, problem: Problem, contender: Contender):
    if why := contender.unavailable():
        pytest.skip(why)
    benchmark.group = problem.name
    with warnings.catch_warnings():
        # Those of the peers are theirs.
        warnings.simplefilter("ignore")
        step = contender.build(problem)
        outcome = step()
        if outcome is not None and contender.invalid is not None:
            expected: Truth = truth(problem, contender.invalid)
            found = compare(*outcome, expected)
            assert found.holds, found
        benchmark(step)

# SPDX-License-Identifier: BSD-3-Clause
"""`pytorch_metric_learning.reducers`, unchanged: fused losses hand them what they reduce."""

from typing import Any

from pytorch_metric_learning import reducers as _peer


def __getattr__(name: str) -> Any:
    return getattr(_peer, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_peer)})

# SPDX-License-Identifier: BSD-3-Clause
"""`pytorch_metric_learning.reducers`, unchanged: fused losses hand them what they reduce."""

from pytorch_metric_learning import reducers as _peer

from flashmetric.compat._peer import passing_through

__getattr__, __dir__ = passing_through(globals(), _peer)

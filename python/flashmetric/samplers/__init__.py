# SPDX-License-Identifier: BSD-3-Clause
"""Which samples meet in a batch, and which identities are kept for validation.

pk          PKSampler: P classes, K samples of each, for DataLoader(batch_sampler=...)
identities  split_identities: whole identities, never samples of one on both sides
_seating    how many batches there can be, and who sits in which
"""

from .identities import split_identities
from .pk import PKSampler

__all__ = ["PKSampler", "split_identities"]

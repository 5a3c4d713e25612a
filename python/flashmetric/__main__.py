# SPDX-License-Identifier: BSD-3-Clause
"""`python -m flashmetric`: info, selftest, demo and bench."""

from __future__ import annotations

import sys

from flashmetric.cli import main

if __name__ == "__main__":
    sys.exit(main())

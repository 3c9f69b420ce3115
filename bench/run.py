"""Everything in docs/benchmarks.md, measured again on this machine: run it as root from the checkout.

    python bench/run.py [--quick | --full] [--only PART…] [--place DIR] [--out DIR] [--publish]

Writes results.json, a CSV file for each table and the plots to build/bench; with --publish also docs/benchmarks.md and
docs/benchmarks/. --quick takes about a minute and proves little, --full takes more turns and larger downloads.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # `bench` and `tests` are packages of the checkout
    sys.exit(importlib.import_module("bench.suite").main(__doc__))

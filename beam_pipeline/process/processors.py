"""The number of processors."""

from __future__ import annotations

import os


def count_processors() -> int:
    """Return the number of processors of this machine that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The processors that this process may use."""

from __future__ import annotations

import os


def count_processors() -> int:
    """Of this machine, those that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

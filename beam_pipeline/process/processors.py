"""The number of processors, and whether there is a GPU."""

from __future__ import annotations

import os
from pathlib import Path

_processes = 1


def count_processors() -> int:
    """Return the number of processors that this process may use, at least 1.

    It is a share if `share` was called.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (there or 1) // _processes)


def share(processes: int) -> None:
    """Make `count_processors` return this process's share of the processors.

    Args:
      processes: Number of processes that do the same work.
    """
    global _processes
    _processes = processes


def has_gpu() -> bool:
    """Return whether NVIDIA's driver shows a GPU that this process may use."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    return not is_hidden and any(Path("/dev").glob("nvidia[0-9]*"))

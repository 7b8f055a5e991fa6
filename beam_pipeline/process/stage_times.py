"""Wall time by stage in this process, for the progress that it reports while a job runs."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping

_lock = threading.Lock()
_microseconds: collections.Counter[str] = collections.Counter()


def add(stage: str, microseconds: int) -> None:
    with _lock:
        _microseconds[stage] += microseconds


def read() -> Mapping[str, int]:
    """Return the microseconds of each stage since the process began."""
    with _lock:
        return dict(_microseconds)

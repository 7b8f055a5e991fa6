"""How the command ends before its time, and what it says then."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

remove_at_end: list[str] = []  # files, by a signal, after which nothing else is done


def complain(message: str, status: int) -> int:
    sys.stderr.write(f"beam_pipeline: {' '.join(message.split())}\n")
    sys.stderr.flush()
    return status


def end_at_once(message: str) -> None:
    """Has Ctrl-C and SIGTERM end the process at once: the threads of a run could not be persuaded to. The next run clears up."""

    def end(number: int, unused_frame: Any) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        complain(message, 1)
        # That is all there is to say: threads and workers would each tell at length what they have lost.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _kill_workers(os.getpid())
        for path in remove_at_end:
            Path(path).unlink(missing_ok=True)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def _kill_workers(process: int) -> None:
    """Ends the processes that a process has started, and theirs."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                _kill_workers(child)
                os.kill(child, signal.SIGKILL)

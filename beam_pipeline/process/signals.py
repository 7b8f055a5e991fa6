"""How the command ends before its time, and what it says then."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from beam_pipeline.process import console

_at_end: list[Callable[[], Any]] = []
_PATIENCE = 5.0  # seconds for what is called at the end


@contextlib.contextmanager
def calling_at_end(function: Callable[[], Any]) -> Iterator[None]:
    """Call a function if the process ends meanwhile, by a signal or by `end`, after which nothing else is done."""
    _at_end.append(function)
    try:
        yield
    finally:
        _at_end.remove(function)


def end_on_signals(message: str) -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal end the process at once with a message. The next run clears up."""

    def handle(number: int, unused_frame: Any) -> None:
        end(message, 128 + number)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    # `nohup` ignores it.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)


def end(message: str, status: int) -> None:
    """End the process and those that it started, from any thread; the threads of a run could not be persuaded to."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    console.complain(message, status)
    # Threads and workers would each report at length what they have lost.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _kill_workers(os.getpid())
    # In a thread, as what they need may be held by the one that was interrupted. In their order: a lease, which is taken
    # last, is given back last, as threads still write.
    thread = threading.Thread(target=_call_all, args=[list(_at_end)], daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    os._exit(status)


def _call_all(functions: Sequence[Callable[[], Any]]) -> None:
    for function in functions:
        with contextlib.suppress(Exception):
            function()


def _kill_workers(process: int) -> None:
    """Ends the processes that a process has started, and theirs."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                _kill_workers(child)
                os.kill(child, signal.SIGKILL)

"""Early termination of the command, by a signal or a fatal error."""

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

_interruptions: list[Callable[[], str]] = []
_at_end: list[Callable[[], Any]] = []
_PATIENCE = 5.0  # time limit of the functions that are called at the end, in seconds


@contextlib.contextmanager
def calling_at_end(function: Callable[[], Any]) -> Iterator[None]:
    """Return a context in which a function is called if the process ends early.

    The process ends early by a signal or by `end`; `finally` clauses do not run then.
    """
    _at_end.append(function)
    try:
        yield
    finally:
        _at_end.remove(function)


@contextlib.contextmanager
def describing_interruption(describe: Callable[[], str]) -> Iterator[None]:
    """Return a context in which `describe` returns the message of an end by a signal."""
    _interruptions.append(describe)
    try:
        yield
    finally:
        _interruptions.remove(describe)


def end_on_signals(message: str) -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal end the process at once with a message.

    `describing_interruption` replaces the message.

    The next run removes what this one leaves. The exit status is 128 plus the number of the signal.
    """

    def handle(number: int, unused_frame: Any) -> None:
        end(_interruptions[-1]() if _interruptions else message, 128 + number)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    # `nohup` makes the process ignore SIGHUP.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)


def end(message: str, status: int) -> None:
    """End the process and its child processes, from any thread.

    The threads of a run cannot be stopped otherwise.
    """
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    console.complain(message, status)
    # Threads and workers would each log long errors about lost connections.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _kill_workers(os.getpid())
    # In a thread, since the interrupted thread may hold a lock that they need. In the order in
    # which they were added: a lease, which is taken last, is released last, since threads still
    # write.
    thread = threading.Thread(target=_call_all, args=[list(_at_end)], daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    os._exit(status)


def _call_all(functions: Sequence[Callable[[], Any]]) -> None:
    for function in functions:
        with contextlib.suppress(Exception):
            function()


def _kill_workers(process: int) -> None:
    """Kill the child processes of a process, and their children."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                _kill_workers(child)
                os.kill(child, signal.SIGKILL)

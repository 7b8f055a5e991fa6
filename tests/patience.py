"""Waiting in tests: for what should end soon, but not forever."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable

PATIENCE = 10  # seconds after which a test counts as hanging


def in_time(work: Callable, *arguments: object):
    """Return the result of `work`; fail if it takes longer than `PATIENCE`."""
    result: concurrent.futures.Future = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(work(*arguments))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(PATIENCE)


def wait_until(condition: Callable[[], object]) -> bool:
    give_up_at = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    return bool(condition())

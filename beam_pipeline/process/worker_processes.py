"""A parallel map over processes, and processes that end with the one that started them."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from beam_pipeline.process.processors import count_processors

_T = TypeVar("_T")
_R = TypeVar("_R")
_MANY = 200  # minimum number of examples for which processes are started


def map_in_processes(
    function: Callable[[_T], _R], items: Sequence[_T], examples: int
) -> Iterator[_R]:
    """Map a function over items in parallel processes, one per processor.

    A small number of examples is processed in this process.

    Args:
      function: A function that can be pickled.
      items: The arguments.
      examples: Number of examples in all items, as a measure of the work.

    Yields:
      The results, in the order of the items.
    """
    processes = min(count_processors(), len(items))
    if processes < 2 or examples < _MANY:
        yield from map(function, items)
        return
    # A fork of a process with threads may deadlock.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, end_with_parent) as executor:
        yield from executor.map(function, items)


def end_with_parent() -> None:
    """End this process, which `multiprocessing` has started, as soon as its parent has died.

    It could wait forever otherwise, to write a result that nobody reads.
    """
    parent = multiprocessing.parent_process()
    assert parent

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()

"""Work in several processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from beam_pipeline.process.processors import count_processors

_T = TypeVar("_T")


_R = TypeVar("_R")


_MANY = 200  # examples for which processes are started


def map_in_processes(function: Callable[[_T], _R], items: Sequence[_T], examples: int) -> Iterator[_R]:
    """Maps in order, in as many processes as there are processors; in this one if it is about few examples."""
    processes = min(count_processors(), len(items))
    if processes < 2 or examples < _MANY:
        yield from map(function, items)
        return
    # A fork of a process with threads may come to a halt.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as executor:
        yield from executor.map(function, items)

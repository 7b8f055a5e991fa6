"""Tests that threads process many elements at a time and keep their order.

The order holds whether an element succeeds or fails.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.pvalue import TaggedOutput
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_pipeline.process import processors
from beam_pipeline.transforms import thread_map
from beam_pipeline.transforms.thread_map import ThreadMap


@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    nbytes: int = 1


def halve(item: Item) -> Item | TaggedOutput:
    """Halve an even number after a delay of 0; tag an odd one after a delay of 2 ms."""
    time.sleep(0.002 * (item.number % 2))
    return TaggedOutput("odd", item) if item.number % 2 else Item(item.number // 2)


def drive(dofn: ThreadMap, items: list[Item]) -> tuple[list, list]:
    """Return what a bundle emits while elements arrive, and at its end."""
    dofn.start_bundle()
    early = [outcome for item in items for outcome in dofn.process(item)]
    return early, [getattr(outcome, "value", outcome) for outcome in dofn.finish_bundle()]


@pytest.mark.parametrize("number", [0, 1, 5, 100])
def test_every_element_comes_through_a_runner_once(number):
    with TestPipeline(runner=FnApiRunner()) as pipeline:
        halved = (
            pipeline
            | beam.Create([Item(n) for n in range(number)])
            | beam.ParDo(ThreadMap("stage", halve, max_in_flight=3)).with_outputs(
                "odd", main="even"
            )
        )
        assert_that(
            halved.even, equal_to([Item(n // 2) for n in range(0, number, 2)]), label="even"
        )
        assert_that(halved.odd, equal_to([Item(n) for n in range(1, number, 2)]), label="odd")


def test_order_is_kept_and_the_number_in_flight_is_limited():
    def dawdle(item: Item) -> Item:
        time.sleep(0.02 * (item.number % 2 == 0))
        return item

    early, late = drive(ThreadMap("stage", dawdle, max_in_flight=4), [Item(n) for n in range(10)])
    assert [item.number for item in early] == list(range(6))
    assert [item.number for item in late] == [6, 7, 8, 9]


def test_large_elements_are_not_heaped_up():
    early, late = drive(
        ThreadMap("stage", lambda item: item, max_in_flight=100),
        [Item(n, nbytes=30 << 20) for n in range(5)],
    )
    assert (len(early), len(late)) == (3, 2)
    early, late = drive(
        ThreadMap("stage", lambda item: item, max_in_flight=100), [Item(0, nbytes=1 << 30)]
    )
    assert (len(early), len(late)) == (1, 0)


@pytest.mark.skipif(processors.count_processors() < 2, reason="one processor, one thread")
def test_several_elements_are_worked_on_at_a_time():
    both = threading.Barrier(2, timeout=60)

    def meet(item: Item) -> Item:
        both.wait()
        return item

    _, late = drive(ThreadMap("stage", meet, max_in_flight=2), [Item(0), Item(1)])
    assert len(late) == 2


def test_what_goes_wrong_in_a_thread_ends_the_bundle():
    def fail(item: Item) -> Item:
        raise OSError("no space left")

    with (
        pytest.raises(Exception, match="no space left"),
        TestPipeline(runner=FnApiRunner()) as pipeline,
    ):
        _ = pipeline | beam.Create([Item(0)]) | beam.ParDo(ThreadMap("stage", fail))


def test_a_bundle_begins_with_nothing_of_one_that_was_broken_off():
    dofn = ThreadMap("stage", lambda item: item, max_in_flight=4)
    dofn.start_bundle()
    assert not list(dofn.process(Item(0)))
    early, late = drive(dofn, [Item(1)])
    assert (early, late) == ([], [Item(1)])


def test_what_a_bundle_that_was_broken_off_has_not_begun_is_never_done():
    held, done = threading.Event(), []

    def wait(item: Item) -> Item:
        held.wait(60)
        done.append(item.number)
        return item

    dofn, begun = (
        ThreadMap("stage", wait, max_in_flight=100),
        min(thread_map.MAX_THREADS, processors.count_processors()),
    )
    dofn.start_bundle()
    for index in range(begun + 3):
        assert not list(dofn.process(Item(index)))
    dofn.start_bundle()
    held.set()
    assert drive(dofn, [Item(99)]) == ([], [Item(99)])
    assert set(done) <= {*range(begun), 99}


@pytest.mark.skipif(sys.platform != "linux", reason="a process has one priority")
@pytest.mark.parametrize("low_priority", [False, True])
def test_threads_beside_the_network_have_low_priority(low_priority):
    def priority(item: Item) -> Item:
        return Item(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    _, [item] = drive(ThreadMap("stage", priority, low_priority=low_priority), [Item(0)])
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert item.number > own if low_priority else item.number == own

"""Tests of the pace of requests."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from beam_pipeline.config import RETRY_DEADLINE
from beam_pipeline.fetching.errors import FetchError
from beam_pipeline.fetching.pace import Pace


async def take_turns(pace: Pace, count: int) -> list[float]:
    """Return the times of turns that are asked for at once."""
    times: list[float] = []
    slots = asyncio.Semaphore(count)

    async def take() -> None:
        await pace.acquire(slots)
        times.append(time.monotonic())

    await asyncio.gather(*(take() for _ in range(count)))
    return times


def test_turns_are_spaced():
    async def run() -> list[float]:
        return await take_turns(Pace(0.05), 4)

    times = asyncio.run(run())
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.05


def test_the_first_turn_may_wait_and_a_pause_delays_all():
    async def run() -> list[float]:
        began = time.monotonic()
        pace = Pace(0.0, next_turn=0.1)
        [first] = await take_turns(pace, 1)
        waiting = asyncio.ensure_future(take_turns(pace, 2))
        pace.pause(0.2)
        return [first - began, *(later - first for later in await waiting)]

    first, *others = asyncio.run(run())
    assert first >= 0.1
    assert min(others) >= 0.2


def test_slowing_down_never_speeds_up():
    pace = Pace(0.05)
    pace.slow_down(0.1)
    pace.slow_down(0.01)
    assert pace.interval == 0.1


def test_a_pause_that_comes_before_the_slot_counts():
    async def run() -> float:
        pace, slots = Pace(0.0), asyncio.Semaphore(1)
        await slots.acquire()
        waiting = asyncio.ensure_future(pace.acquire(slots))
        await asyncio.sleep(0.01)
        began = time.monotonic()
        pace.pause(0.1)
        slots.release()
        await asyncio.sleep(0.05)
        await asyncio.wait_for(slots.acquire(), 1)  # it is free while the pause lasts
        slots.release()
        await waiting
        assert slots.locked()
        return time.monotonic() - began

    assert asyncio.run(run()) >= 0.1


def test_a_pause_that_is_too_long_is_not_waited_for():
    async def run() -> None:
        pace = Pace(0.0)
        pace.pause(RETRY_DEADLINE + 100)
        for _ in range(2):
            with pytest.raises(FetchError) as caught:
                await take_turns(pace, 1)
            assert caught.value.reason == "http_429"

    asyncio.run(run())


def test_a_cancelled_turn_leaves_it_to_the_next():
    async def run() -> None:
        pace = Pace(0.05)
        await take_turns(pace, 1)
        waiting = asyncio.ensure_future(take_turns(pace, 1))
        while not pace._lock.locked():
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait_for(take_turns(pace, 1), 5)

    asyncio.run(run())

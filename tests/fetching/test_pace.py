"""Tests of the pace of requests."""

from __future__ import annotations

import asyncio
import itertools
import time

from beam_pipeline.fetching.pace import Pace


async def take_turns(pace: Pace, count: int) -> list[float]:
    """Return the times of turns that are asked for at once."""
    times: list[float] = []

    async def take() -> None:
        async with pace.turn():
            times.append(time.monotonic())

    await asyncio.gather(*(take() for _ in range(count)))
    return times


def test_turns_are_spaced():
    async def run() -> list[float]:
        return await take_turns(Pace(0.05), 4)

    times = asyncio.run(run())
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.05


def test_the_first_turn_may_wait_and_a_pause_delays_all():
    async def run() -> tuple[float, float, float]:
        began = time.monotonic()
        pace = Pace(0.0, next_turn=0.1)
        [first] = await take_turns(pace, 1)
        waiting = asyncio.ensure_future(take_turns(pace, 2))
        pace.pause(0.2)
        assert pace.wait > 0.1
        return first - began, *(time - first for time in await waiting)

    first, *others = asyncio.run(run())
    assert first >= 0.1
    assert min(others) >= 0.2


def test_slowing_down_never_speeds_up():
    async def run() -> list[float]:
        pace = Pace(0.05)
        pace.slow_down(0.1)
        pace.slow_down(0.01)
        return await take_turns(pace, 2)

    first, second = asyncio.run(run())
    assert second - first >= 0.1


def test_a_cancelled_turn_leaves_it_to_the_next():
    async def run() -> None:
        pace = Pace(0.05)
        await take_turns(pace, 1)
        waiting = asyncio.ensure_future(take_turns(pace, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait_for(take_turns(pace, 1), 5)

    asyncio.run(run())

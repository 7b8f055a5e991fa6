"""Tests of the client for images."""

from __future__ import annotations

import asyncio

from web import open_client

from beam_pipeline.fetching import web_client
from beam_pipeline.fetching.web_client import Bundle


def test_large_bodies_count_for_more_and_never_wait_for_one_another():
    assert [web_client.cost(bytes(size)) for size in (1, 2**20 - 1, 2**20, 5 * 2**20)] == [
        1,
        1,
        2,
        6,
    ]
    assert web_client.cost(bytes(100 * 2**20)) == web_client.MAX_COST

    async def run() -> None:
        async with open_client() as client:
            bundle = Bundle(web_client.MAX_COST)
            large = bytes(20 * 2**20)
            first, second = (asyncio.ensure_future(client.reserve(bundle, large)) for _ in range(2))
            await asyncio.wait([first, second], timeout=0.1)
            assert first.done() and not second.done()
            for _ in range(web_client.cost(large)):
                bundle.budget.release()
            await asyncio.wait_for(second, 5)

    asyncio.run(run())

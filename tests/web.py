"""A client for tests: it fetches from servers on loopback, by names that a resolver makes up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Failure, ImageRef
from beam_pipeline.fetching.web_client import Bundle, WebClient


class Names(AbstractResolver):
    """A resolver that knows only the given names, and records the queries.

    It never answers for a name whose address is `hang`.
    """

    def __init__(self, **addresses: Sequence[str]):
        self.addresses = {name.replace("_", "."): list(found) for name, found in addresses.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if self.addresses.get(host) == ["hang"]:
            await asyncio.Event().wait()
        if host not in self.addresses:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def open_client(names: Names | None = None, processes: int = 1, **options):
    config = Config(
        **{
            "input": "-",
            "output": "-",
            "allow_private_addresses": True,
            "fetch_timeout": 5,
            **options,
        }
    )
    slots = asyncio.Semaphore(config.fetch_concurrency)
    client = WebClient(config, slots, names or Names(), processes)
    try:
        yield client
    finally:
        await client.close()


def fetch_all(
    urls: Sequence[str], names: Names | None = None, **options
) -> list[EncodedImage | Failure]:
    """Fetch all URLs concurrently."""

    async def fetch() -> list[EncodedImage | Failure]:
        async with open_client(names, **options) as client:
            return await asyncio.gather(
                *(client.fetch(ImageRef("", url), Bundle(1000)) for url in urls)
            )

    return asyncio.run(fetch())


def fetch_one(url: str, names: Names | None = None, **options) -> EncodedImage | Failure:
    [outcome] = fetch_all([url], names, **options)
    assert outcome.ref == ImageRef("", url)
    return outcome


def summarize(outcome: EncodedImage | Failure) -> tuple[str, int]:
    return (outcome.reason if isinstance(outcome, Failure) else "image"), outcome.attempts

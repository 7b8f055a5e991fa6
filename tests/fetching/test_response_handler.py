"""Tests of what the adapter of aiohttp's response parser relies on."""

import asyncio

import aiohttp
import pytest

from beam_pipeline.fetching import response_handler

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage and more"


async def body_of(is_installed: bool) -> bytes:
    """Return the body of a response that has more bytes than its Content-Length."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(RESPONSE)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    connector = aiohttp.TCPConnector()
    if is_installed:
        response_handler.install(connector)
    async with server, aiohttp.ClientSession(connector=connector) as session:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10), session.get(f"http://127.0.0.1:{port}/") as response:
            return await response.read()


def test_connections_are_made_by_the_connectors_factory():
    assert asyncio.run(body_of(is_installed=True)) == b"image"


def test_aiohttp_itself_drops_a_body_with_surplus_bytes():
    """Once this fails, the adapter is no longer needed."""
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(body_of(is_installed=False))

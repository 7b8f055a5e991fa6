"""The aiohttp client session: its connections and headers."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from beam_pipeline.config import Config
from beam_pipeline.fetching import public_addresses, response_handler


@dataclasses.dataclass
class Connection:
    """The connection of a request, passed as `trace_request_ctx`.

    Attributes:
      reused: Whether an earlier request used the connection.
    """

    reused: bool = False


async def _note_new(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.reused = False


async def _note_reused(_session: object, context: Any, _parameters: object) -> None:
    context.trace_request_ctx.reused = True


def open_session(config: Config, resolver: AbstractResolver) -> aiohttp.ClientSession:
    """Open a session in the running event loop.

    Each request needs a Connection as its `trace_request_ctx`.

    Args:
      config: The options.
      resolver: Resolves host names.
    """
    allow_private = config.allow_private_addresses
    connector = public_addresses.make_connector(allow_private, config.fetch_concurrency, resolver)
    response_handler.install(connector)
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(_note_new)
    tracing.on_connection_reuseconn.append(_note_reused)
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[tracing],
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": config.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
        # The deadline is set around each request. A host that needs more than half of it for name
        # resolution and connection counts as down.
        timeout=aiohttp.ClientTimeout(total=None, connect=config.fetch_timeout / 2),
    )

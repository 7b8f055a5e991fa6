"""Interpretation of robots.txt (RFC 9309). Pure functions."""

from __future__ import annotations

import re

from beam_pipeline.fetching.path_rules import PathRules

PATH = "/robots.txt"
# The RFC requires at least this many bytes; the rest of a larger file is ignored.
MAX_BYTES = 500 * 1024

# A line, with the misspellings that crawlers accept.
_LINE = re.compile(
    r"\s*(?:(?P<agent>user[ -]?agent)|(?P<allow>allow)|(?P<disallow>d[ailos]+w)"
    r"|(?P<delay>crawl[ -]delay))(?:\s*:|\s)(?P<value>[^#]*)",
    re.IGNORECASE,
)
_FIELDS = {"allow": "Allow", "disallow": "Disallow", "delay": "Crawl-delay"}
_TOKEN = re.compile(r"[\w-]+")
_EVERYONE = "*"


def parse(body: bytes, user_agent: str) -> PathRules:
    """Return the rules of a robots.txt for an agent.

    They are those of all groups that name the agent; if there are none, of all groups for `*`.
    Only these are kept, because a file of 500 KiB can combine thousands of agents with thousands of
    rules. Whatever is not a rule is ignored.

    Args:
      body: The file; what follows `MAX_BYTES` is ignored.
      user_agent: Our User-Agent header. Only its product token is compared, ignoring case.
    """
    product = product_token(user_agent)
    groups: dict[str, list[str]] = {}
    agents: set[str] = set()
    is_head = False
    text = body[:MAX_BYTES].decode("utf-8-sig", errors="replace")
    for match in filter(None, map(_LINE.match, text.splitlines())):
        value = match["value"].strip()
        if match["agent"]:
            agents = (agents if is_head else set()) | ({_agent(value)} & {product, _EVERYONE})
            is_head = True
            for agent in agents:
                groups.setdefault(agent, [])
            continue
        # Crawl-delay counts as a rule, which the RFC leaves open: a group may have nothing else.
        is_head = False
        kind = next(name for name in _FIELDS if match[name])
        if value:
            for agent in agents:
                groups[agent].append(f"{_FIELDS[kind]}: {value}")
    return PathRules(groups.get(product, groups.get(_EVERYONE, ())))


def product_token(user_agent: str) -> str:
    """Return the name of an agent in lower case, without its version.

    >>> product_token("ImageBot/2.0 (me@example.com)")
    'imagebot'
    """
    token = _TOKEN.match(user_agent.strip())
    return token[0].lower() if token else ""


def _agent(value: str) -> str:
    return _EVERYONE if value.split()[:1] == [_EVERYONE] else product_token(value)

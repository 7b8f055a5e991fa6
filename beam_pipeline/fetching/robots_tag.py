"""X-Robots-Tag header -> whether an image may be taken. Pure."""

from __future__ import annotations

import re

from beam_pipeline.config import DISALLOWING

# Google's robots meta tag specification; its page on X-Robots-Tag has the grammar.
_VALUED = frozenset({"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"})
_PLAIN = DISALLOWING | {
    *("all", "follow", "index", "indexifembedded", "noarchive", "nocache", "nofollow", "noodp"),
    *("nositelinkssearchbox", "nosnippet", "notranslate", "noydir"),
}
_EVERYONE = frozenset({"", "*", "all", "robots"})


def disallows(tag: str, user_agent: str) -> bool:
    """Whether a tag keeps all agents, or ours, from taking an image; in doubt it does.

    Args:
      tag: A header: directives, comma-separated. `AGENT: ` before one limits it, and those that
        follow up to the next agent, to that agent.
      user_agent: Our User-Agent header, of which the product name counts.
    """
    ours = _EVERYONE | {_product(user_agent)}
    agents = [""]
    for part in re.split("[,;]", tag):
        named, directives = _parse(part)
        agents = named or agents
        if not DISALLOWING.isdisjoint(directives) and not ours.isdisjoint(agents):
            return True
    return False


def _parse(part: str) -> tuple[list[str], list[str]]:
    """Splits `[AGENT:] DIRECTIVE [: VALUE]` into agents and directives, both in lower case."""
    *names, last = part.split(":")
    names = [_product(name) for name in names]
    for index, name in enumerate(names):
        if name in _VALUED:
            return names[:index], [name]
    directives = last.lower().split()
    # Not the name of an agent, but of a directive that is not known, or a piece of a date.
    if _PLAIN.isdisjoint(directives):
        names = []
    return names, directives


def _product(user_agent: str) -> str:
    return user_agent.partition("/")[0].strip().lower()

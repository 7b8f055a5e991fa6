"""Interpretation of X-Robots-Tag headers. Pure functions."""

from __future__ import annotations

import itertools
import re

from beam_pipeline.config import DISALLOWING

# An image at an archive repeats the headers of its origin.
HEADERS = ("X-Robots-Tag", "X-Archive-Orig-X-Robots-Tag")
# Source: Google's robots meta tag specification. Its page on X-Robots-Tag has the grammar.
_VALUED = frozenset({"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"})
_PLAIN = DISALLOWING | {
    *("all", "follow", "index", "indexifembedded", "noarchive", "nocache", "nofollow", "noodp"),
    *("nositelinkssearchbox", "nosnippet", "notranslate", "noydir"),
}
_DIRECTIVES = _VALUED | _PLAIN
_QUOTES = "\"'"
_EVERYONE = frozenset({"", "*", "all", "robots"})


def disallows(tag: str, user_agent: str) -> bool:
    """Return whether a tag forbids all agents, or ours, to use an image; True in case of doubt.

    Args:
      tag: The value of a header: comma-separated directives. `AGENT: ` before a directive limits
        it, and all directives up to the next agent, to that agent.
      user_agent: Our User-Agent header. Only its product name is compared.
    """
    ours = _EVERYONE | {_product(user_agent)}
    agents = [""]
    for part in re.split("[,;]", tag):
        named, words = _parse(part)
        agents = named or agents
        if not DISALLOWING.isdisjoint(words) and not ours.isdisjoint(agents):
            return True
    return False


def _parse(part: str) -> tuple[list[str], list[str]]:
    """Split `[AGENT:] DIRECTIVE [: VALUE]` into agents and possible directives, in lower case."""
    fields = [[word.strip(_QUOTES) for word in field.split()] for field in part.lower().split(":")]
    # A name without a known directive is not an agent, but another directive or part of a date.
    first = next(
        (index for index, words in enumerate(fields) if not _DIRECTIVES.isdisjoint(words)), 0
    )
    words = []
    for before, field in itertools.pairwise([[], *fields[first:]]):
        has_value = bool(before) and before[-1] in _VALUED
        words += field[1:] if has_value else field
    return [_product(" ".join(names)) for names in fields[:first]], words


def _product(user_agent: str) -> str:
    return user_agent.partition("/")[0].strip().lower()

"""Rules for the paths of a site: which of them match a URL. Pure.

robots.txt and tdmrep.json have the same patterns (RFC 9309, 2.2.2 and 2.2.3): `*` matches any
characters, `$` the end, and of several matching patterns the longest decides.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from protego import Protego

# Comparing a URL takes up to 1 ns for each of its characters times each character of the rules.
# Patterns can be made so that it does.
MAX_WORK = 200_000_000
SMALL_WORK = 1_000_000
_MAX_SEARCHED = 20  # rules among which the one that decides is looked for
_AGENT = "*"
_DISALLOW = "Disallow:"
_LITERAL = re.compile(r"[\w/.-]*", re.ASCII)


class PathRules:
    """Rules that allow or disallow paths.

    Attributes:
      size: Number of characters.
    """

    def __init__(self, rules: Iterable[str] = ()):
        """Initialize the rules.

        Args:
          rules: Lines `Allow: PATTERN`, `Disallow: PATTERN` and `Crawl-delay: SECONDS`.
        """
        lines = list(rules)
        self.size = sum(map(len, lines))
        self._parsed = _parse(*lines) if lines else None
        self._disallowing = sorted(
            ((_literal_start(line), line) for line in lines if line.startswith(_DISALLOW)),
            key=lambda pair: len(pair[1]),
            reverse=True,
        )

    @property
    def crawl_delay(self) -> float:
        """Seconds between requests; 0 without a rule."""
        return (self._parsed.crawl_delay(_AGENT) if self._parsed else None) or 0.0

    def work(self, path: str) -> int:
        """Return a bound of the time that `find` takes, in nanoseconds."""
        return self.size * len(path)

    def find(self, path: str) -> str | None:
        """Return the line that disallows a path; None if it is allowed.

        If the comparison would take too long, it counts as disallowed.

        Args:
          path: Path and query of a URL, percent-encoded.
        """
        if self.work(path) > MAX_WORK:
            return f"{self.size:,} bytes of rules are too long for a URL of {len(path):,} bytes"
        if self._parsed is None or _allows(self._parsed, path):
            return None
        matching = (line for start, line in self._disallowing if path.startswith(start))
        candidates = itertools.islice(matching, _MAX_SEARCHED)
        return next((line for line in candidates if not _allows(_parse(line), path)), "Disallow")


def _literal_start(line: str) -> str:
    """Return the start of a pattern that a path has as it is, without a wildcard or an encoding."""
    return _LITERAL.match(line.removeprefix(_DISALLOW).strip())[0]  # type: ignore[index]


def _parse(*lines: str) -> Protego:
    return Protego.parse("\n".join([f"User-agent: {_AGENT}", *lines]))


def _allows(rules: Protego, path: str) -> bool:
    return rules.can_fetch(f"http://site{path}", _AGENT)

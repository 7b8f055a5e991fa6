"""Reservations of text and data mining: the TDM Reservation Protocol (TDMRep). Pure functions.

Source: the final report of W3C's TDMRep community group. The header of a response goes before the
file of the site.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from beam_pipeline.fetching.path_rules import PathRules

PATH = "/.well-known/tdmrep.json"
MAX_BYTES = 500 * 1024

# An image at an archive repeats the headers of its origin.
_PREFIXES = ("", "X-Archive-Orig-")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class Reservations:
    """The content of `tdmrep.json`: which paths of a site are reserved."""

    def __init__(self, policies: Mapping[str, tuple[bool, str]] = {}):
        """Initialize the reservations.

        Args:
          policies: By pattern, whether its paths are reserved, and the URL of a policy or "".
        """
        self._policies = policies
        self.rules = PathRules(
            f"{'Disallow' if is_reserved else 'Allow'}: {pattern}"
            for pattern, (is_reserved, _) in policies.items()
        )

    def find(self, path: str) -> str | None:
        """Return why a path is reserved; None if it is not.

        Args:
          path: Path and query of a URL, percent-encoded.
        """
        line = self.rules.find(path)
        if line is None:
            return None
        pattern = line.removeprefix("Disallow: ")
        _, policy = self._policies.get(pattern, (True, ""))
        return _describe(f"tdmrep.json: {pattern} is reserved", policy)


def parse(body: bytes) -> Reservations:
    """Return the content of `tdmrep.json`. A file that is not valid reserves nothing."""
    try:
        entries = json.loads(body) if len(body) <= MAX_BYTES else ()
    except (ValueError, RecursionError):
        entries = ()
    policies: dict[str, tuple[bool, str]] = {}
    for entry in entries if isinstance(entries, list) else ():
        location = entry.get("location") if isinstance(entry, dict) else None
        if isinstance(location, str) and location.strip():
            policy = entry.get("tdm-policy")
            policies[_pattern(location.strip())] = (
                _is_one(entry.get("tdm-reservation")),
                policy if isinstance(policy, str) else "",
            )
    return Reservations(policies)


def check_headers(headers: Mapping[str, str], otherwise: str | None) -> str | None:
    """Return why the headers of a response reserve it; None if they do not.

    Args:
      headers: The headers.
      otherwise: The answer of the site's file, which counts if no header says 0 or 1.
    """
    for prefix in _PREFIXES:
        value = headers.get(f"{prefix}tdm-reservation", "").strip()
        if value == "1":
            policy = headers.get(f"{prefix}tdm-policy", "").strip()
            return _describe(f"{prefix}tdm-reservation: 1", policy)
        if value == "0":
            return None
    return otherwise


def _describe(rule: str, policy: str) -> str:
    return f"{rule}; tdm-policy: {policy}" if policy else rule


def _is_one(value: Any) -> bool:
    return value in (1, "1") and value is not True


def _pattern(location: str) -> str:
    """Return a location as the pattern of a line, which no character of it ends."""
    text = location.encode(errors="replace").decode()
    quoted = urllib.parse.quote(text, safe=_PRINTABLE.replace("#", ""))
    return quoted if quoted.startswith(("/", "*")) else f"/{quoted}"

"""Formatting of numbers and untrusted text for the report. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from beam_pipeline.process import plurals

_MAX_TEXT = 200  # characters of a URL or a path
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def breakable(text: str, longest_run: int = 40, longest: int = _MAX_TEXT) -> Markup:
    """Return a URL, path or name as HTML that breaks after its slashes.

    Each segment is an element. The page keeps a segment on one line if it fits, and otherwise
    breaks it at its punctuation. Longer texts and runs are shortened in their middle, so that an
    untrusted URL cannot fill the page.

    Args:
      text: Untrusted text.
      longest_run: Maximum number of characters of a run of letters and digits.
      longest: Maximum number of characters of the complete text.

    >>> breakable("http://a.example/b<c.jpg")
    Markup('<span>http://</span><wbr><span>a.<wbr>example/</span><wbr><span>b&lt;c.<wbr>jpg</span>')
    """
    text = shorten(text, longest)
    text = re.sub(
        rf"[^\W_]{{{longest_run + 1},}}",
        lambda run: shorten(run[0], longest_run),
        text,
    )
    segments = re.findall(r"/*[^/]+/*|/+", text)
    return Markup("<wbr>").join(Markup(f"<span>{_break_segment(part)}</span>") for part in segments)


def _break_segment(segment: str) -> Markup:
    parts = re.split(r"(?<=[-_.?&=+,;~])|(?=%)", segment)
    return Markup("<wbr>").join(filter(None, parts))


def shorten(text: str, longest: int) -> str:
    """Replace the middle of a text of more than `longest` characters with an ellipsis.

    >>> shorten("http://a.example/one/two/three.jpg", 24)
    'http://a.exampl…hree.jpg'
    """
    end = longest // 3
    return text if len(text) <= longest else f"{text[: longest - end - 1]}…{text[-end:]}"


def abbreviate_url(url: str) -> str:
    """Return the host and the file name of a URL, or the file name of a path.

    >>> abbreviate_url("http://a.example/one/two/three.jpg")
    'a.example/…/three.jpg'
    """
    text = re.sub(r"^\w+://", "", url)
    match = re.fullmatch(r"([^/]*)/.*/([^/]+)", text, re.DOTALL)
    if not match:
        return text
    return f"{match[1]}/…/{match[2]}" if match[1] else match[2]


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun as `plurals.count` does, with a no-break space between."""
    return _keep_together(plurals.count(number, noun, plural))


def _keep_together(text: str) -> str:
    """Replace the first space of a text, behind its number, with a no-break space."""
    return text.replace(" ", "\N{NO-BREAK SPACE}", 1)


def format_bytes(number: float) -> str:
    """Return a number of bytes in a suitable unit, with a no-break space: `20.5 MB`."""
    unit, [text] = align_bytes([number])
    return f"{text}\N{NO-BREAK SPACE}{unit}"


def align_bytes(numbers: Sequence[float]) -> tuple[str, list[str]]:
    """Return a unit suitable for the smallest of some numbers of bytes, and all numbers in it.

    >>> align_bytes([1_073_000, 87_100])
    ('kB', ['1,073.0', '87.1'])
    """
    power = 0
    while min(numbers, default=0) >= 1000 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    return _UNITS[power], [f"{number / 1000**power:,.{min(power, 1)}f}" for number in numbers]


def format_duration(seconds: float) -> str:
    """Return a duration in a suitable unit, with a no-break space: `90 seconds`, `3.5 hours`."""
    if seconds < 180:
        return count(round(seconds), "second")
    minutes, hours = f"{seconds / 60:.0f} minutes", f"{seconds / 3600:,.1f} hours"
    return _keep_together(minutes if seconds < 10_800 else hours)

"""Numbers with their nouns. Pure."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, in the plural (by default with an s) unless it is 1.

    >>> count(1, "duplicate"), count(1200, "duplicate")
    ('1 duplicate', '1,200 duplicates')
    """
    return f"{number:,} {inflect(number, noun, plural)}"


def inflect(number: int, noun: str, plural: str = "") -> str:
    """Return a noun in the plural unless the number is 1."""
    return noun if number == 1 else plural or f"{noun}s"

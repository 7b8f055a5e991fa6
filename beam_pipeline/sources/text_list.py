"""Text lists of URLs: `URL` or `ID<whitespace>URL`, one a line."""

from __future__ import annotations

import codecs
import collections
import itertools
import re
from collections.abc import Iterator, Sequence

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef
from beam_pipeline.sources import columns, text_lines, url_table
from beam_pipeline.sources.source import IMAGE_SUFFIXES

_COLUMN_OPTIONS = ("id_column", "class_column", "sha256_column", "md5_column", "keep_columns")
_SAMPLE = 20  # lines by which a table is recognized
_SPACES = re.compile(f"[{columns.ASCII_SPACE}]+")
_URL = re.compile(r"https?://", re.IGNORECASE)
# Few URLs end in the name of an image, a comma and words, as the rows of a table do.
_URL_AND_WORDS = re.compile(
    rf"[^,]*(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})\"?(?:,[\w\" -]*)+", re.IGNORECASE
)


def recognizes(path: str, head: bytes) -> bool:
    return True


def read_refs(path: str, config: Config) -> Iterator[ImageRef | None]:
    """Yield the images of the lines; None for a blank line or a comment.

    With `--url_column`, the text is read as a table, whatever its name.

    Raises:
      UsageError: The list cannot be read to its end, or is a table.
    """
    if config.url_column is not None:
        yield from url_table.read_refs(path, config)
        return
    for option in _COLUMN_OPTIONS:
        if (value := getattr(config, option)) is not None:
            raise UsageError(
                f"--{option} {value} needs a table, but {path} is a text list: if it is a table, "
                "give --url_column too"
            )
    lines = text_lines.read_lines(path, config)
    sample = list(itertools.islice(lines, 10 * _SAMPLE))
    entries = filter(None, (_entry(line[: text_lines.MAX_LINE]) for line in sample))
    _refuse_table(path, list(itertools.islice(entries, _SAMPLE)))
    too_long = f"a line longer than {text_lines.MAX_LINE:,} bytes"
    for number, line in enumerate(itertools.chain(sample, lines), 1):
        if len(line) > text_lines.MAX_LINE:
            yield columns.failed_row(path, number, too_long)
        else:
            yield parse_line(line)


def parse_line(line: bytes) -> ImageRef | None:
    """Parse a line; return None for a blank line or a comment.

    Args:
      line: The line in UTF-8; if it is not valid UTF-8, it is decoded as Latin-1.
    """
    # `bytes.split` splits at ASCII whitespace only. URLs in Latin-1 contain other spaces.
    fields = line.removeprefix(codecs.BOM_UTF8).split()
    text = text_lines.to_text(b" ".join(fields))
    if not text or text.startswith("#"):
        return None
    first, *others = text.split(" ")
    return ImageRef(first, others[-1]) if others else ImageRef("", first)


def _entry(line: bytes) -> str:
    """Return the text of a line; empty for a blank line or a comment."""
    text = text_lines.to_text(line).strip(columns.ASCII_SPACE)
    return "" if text.startswith("#") else text


def _fields(text: str) -> list[str]:
    return _SPACES.split(text)


def _refuse_table(path: str, entries: Sequence[str]) -> None:
    """Raise UsageError if most lines are rows of a table, or the first one is a header."""
    if not entries:
        return
    positions = [position for text in entries if (position := _position_of_url(text)) is not None]
    if header := _header(entries):
        raise UsageError(
            f"{path} looks like a table; {columns.listed(header)}: rename it to .csv or .tsv, or "
            "give --url_column NAME"
        )
    if 2 * len(positions) > len(entries):
        [(position, _)] = collections.Counter(positions).most_common(1)
        raise UsageError(
            f"{path} looks like a table whose column {position} is the URL: give "
            f"--url_column {position}"
        )


def _header(entries: Sequence[str]) -> list[str]:
    """Return the names in the first line if it is the header of a table; else an empty list."""
    delimiter = "\t" if "\t" in entries[0] else ","
    names = [name.strip(' "') for name in entries[0].split(delimiter)]
    has_url_column = any(name.lower() in columns.URL_NAMES for name in names)
    if len(names) == 1 or not has_url_column or _URL.search(entries[0]):
        return []
    # Lines of `ID<tab>URL` may have a title.
    is_list = delimiter == "\t" and 2 * sum(map(_is_listed, entries)) >= len(entries)
    return [] if is_list else names


def _is_listed(text: str) -> bool:
    """Return whether a line is `URL` or `ID URL`."""
    *others, url = _fields(text)
    if any(map(_URL.search, others)) or not _URL.match(url):
        return False
    return bool(others) or not _URL_AND_WORDS.fullmatch(url)


def _position_of_url(text: str) -> int | None:
    """Return the column, from 1, of the URL in a row of a table; None for a line of a list."""
    if _is_listed(text):
        return None
    cells = text.split("\t" if "\t" in text else ",")
    starts = (position for position, cell in enumerate(cells, 1) if _URL.match(cell.strip(' "')))
    return next(starts, None) if len(cells) > 1 else None

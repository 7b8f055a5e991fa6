"""Tables of URLs as text: .csv and .tsv, with a header or without."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef
from beam_pipeline.sources import columns, paths, text_lines

ENDINGS = (".csv", ".tsv")
# Maximum length of a record that quoted line ends continue over several lines, bytes.
_MAX_RECORD = 2 * text_lines.MAX_LINE


def recognizes(path: str, head: bytes) -> bool:
    return paths.ending(path) in ENDINGS


def read_refs(path: str, config: Config) -> Iterator[ImageRef | None]:
    """Yield the images of the rows; None for a blank row.

    Values are quoted as in RFC 4180, except in a .tsv without a header, where captions contain
    stray quotes. A quote that is never closed costs only its own row.

    Raises:
      UsageError: The file cannot be read to its end, or lacks a column.
    """
    lines = text_lines.read_lines(path, config)
    lines = itertools.dropwhile(lambda line: not text_lines.to_text(line).strip(), lines)
    first = next(lines, None)
    if first is None:
        return
    has_header = re.fullmatch("[0-9]+", config.url_column or "") is None
    delimiter = _delimiter(path, first)
    quoting = csv.QUOTE_MINIMAL if has_header or delimiter == "," else csv.QUOTE_NONE
    records = _read_records(itertools.chain([first], lines), delimiter, quoting)
    head = next(records)
    if head is None:
        raise UsageError(f"{path} begins with a row of more than {text_lines.MAX_LINE:,} bytes")
    if has_header:
        names = [name.strip() for name in head]
        _check_header(path, names, config)
    else:
        names = [str(number) for number in range(1, len(head) + 1)]
        records = itertools.chain([head], records)
    found = columns.resolve(path, names, config)
    positions = [(name, names.index(name)) for name in found.names]
    for row, fields in enumerate(records, 1):
        if fields is None:
            yield columns.failed_row(path, row, f"more than {text_lines.MAX_LINE:,} bytes")
        elif not fields:
            yield None
        elif len(fields) != len(names):
            yield columns.failed_row(path, row, f"{len(fields)} values, not {len(names)}")
        else:
            values = {name: fields[position] for name, position in positions}
            yield columns.make_ref(path, row, found, values)


def _delimiter(path: str, first: bytes) -> str:
    known = {".csv": ",", ".tsv": "\t"}
    return known.get(paths.ending(path)) or ("\t" if b"\t" in first else ",")


def _check_header(path: str, names: list[str], config: Config) -> None:
    """Raise UsageError if the first row holds a URL, so that it is not a header."""
    position = next((position for position, name in enumerate(names, 1) if "://" in name), None)
    if position is not None and not columns.has_url(names, config):
        raise UsageError(
            f"{path} has no header: its first row holds a URL in column {position}; give "
            f"--url_column {position}"
        )


class _Lines:
    """The lines of a table, of which `csv.reader` takes as many as a record needs.

    Attributes:
      taken: The lines of the record so far.
    """

    def __init__(self, lines: Iterator[bytes]):
        self._lines, self._length = lines, 0
        self.taken: list[bytes] = []

    def begin_record(self) -> None:
        self.taken.clear()
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        self._length += len(line)
        if len(line) > text_lines.MAX_LINE or self._length > _MAX_RECORD:
            raise csv.Error
        return text_lines.to_text(line)


def _read_records(
    lines: Iterator[bytes], delimiter: str, quoting: int
) -> Iterator[list[str] | None]:
    """Yield the fields of each record; none for a blank line, None for a line that is too long.

    If quotes are not closed or misplaced, each line of the record is one of its own.
    """
    source = _Lines(lines)
    reader = csv.reader(source, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    while True:
        source.begin_record()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            for line in source.taken:
                yield _parse_line(line, delimiter, quoting)
        else:
            yield record


def _parse_line(line: bytes, delimiter: str, quoting: int) -> list[str] | None:
    if len(line) > text_lines.MAX_LINE:
        return None
    text = text_lines.to_text(line).rstrip("\r\n")
    [record] = csv.reader([text], delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    return record

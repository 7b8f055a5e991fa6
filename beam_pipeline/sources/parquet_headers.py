"""Parses the footer and the page headers of Parquet files, which are untrusted. Pure.

Both are structs in Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator

_MAX_DEPTH = 16  # of structs and lists; the format has 8
# Types of Thrift's compact protocol.
_BOOLEANS, _BYTE, _VARINTS, _DOUBLE, _BINARY, _LIST, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 9, 12


def parse_extents(footer: bytes) -> Iterator[tuple[int, int]]:
    """Parse a Parquet FileMetaData, in Thrift's compact protocol.

    Yields:
      The position and size of the chunk of each column in each row group that has rows.

    Raises:
      IndexError, ValueError: The footer is damaged.
    """
    for groups in _values(footer, 0, 4, _LIST):
        for group in _elements(footer, groups):
            rows = [_parse_integer(footer, value) for value in _values(footer, group, 3)]
            for chunks in _values(footer, group, 1, _LIST) if any(rows) else ():
                for chunk in _elements(footer, chunks):
                    for metadata in _values(footer, chunk, 3, _STRUCT):
                        yield _parse_extent(footer, metadata)


def _parse_extent(footer: bytes, metadata: int) -> tuple[int, int]:
    """Parse the position and size of a chunk from the ColumnMetaData at a position."""
    numbers = {
        field: [_parse_integer(footer, value) for value in _values(footer, metadata, field)]
        for field in (7, 9, 11)  # total_compressed_size, data_page_offset, dictionary_page_offset
    }
    if not (numbers[7] and numbers[9]):
        raise ValueError("its footer is damaged")
    start, dictionary = numbers[9][-1], (numbers[11] or [0])[-1]
    return dictionary if 0 < dictionary < start else start, numbers[7][-1]


def _values(data: bytes, position: int, wanted: int, type_: int | None = None) -> Iterator[int]:
    """Yield the position of the value of a field in the struct at a position, if it is there.

    Args:
      data: A message.
      position: Position of the struct.
      wanted: Number of the field.
      type_: Type that it must have; None for an integer.

    Raises:
      ValueError: It has another type.
    """
    field = 0
    while data[position]:
        field, found, position = _parse_field(data, position, field)
        if field == wanted:
            if found not in (_VARINTS if type_ is None else (type_,)):
                raise ValueError("its footer is damaged")
            yield position
        position = _skip(data, position, found)


def _elements(data: bytes, position: int) -> Iterator[int]:
    """Yield the positions of the elements of the list of structs at a position.

    Raises:
      ValueError: They are not structs.
    """
    count, type_, position = _parse_list(data, position)
    if count and type_ != _STRUCT:
        raise ValueError("its footer is damaged")
    for _ in range(count):
        yield position
        position = _skip(data, position, type_)


def _parse_list(data: bytes, position: int) -> tuple[int, int, int]:
    """Parse the beginning of a list: return its length, type and the position of its elements."""
    count, type_ = data[position] >> 4, data[position] & 15
    if count < 15:
        return count, type_, position + 1
    count, position = _parse_varint(data, position + 1)
    return count, type_, position


def _parse_integer(data: bytes, position: int) -> int:
    number = _parse_varint(data, position)[0]
    return number >> 1 ^ -(number & 1)


def parse_page_header(data: bytes) -> tuple[int, int, int]:
    """Parse a Parquet PageHeader, in Thrift's compact protocol.

    Returns:
      The size of the page, decompressed; its size as it is stored; and the size of the header, in
      bytes.

    Raises:
      IndexError: The header is longer than `data`.
      ValueError: The header is invalid.
    """
    sizes = {}
    field = position = 0
    while data[position]:
        field, type_, position = _parse_field(data, position, field)
        end = _skip(data, position, type_)
        if field in (2, 3) and type_ in _VARINTS:
            sizes[field] = _parse_integer(data, position)
        position = end
    if min(sizes.get(2, -1), sizes.get(3, -1)) < 0:
        raise ValueError("a page header is damaged")
    return sizes[2], sizes[3], position + 1


def _parse_field(data: bytes, position: int, field: int) -> tuple[int, int, int]:
    """Parse the beginning of a field: return its number, type and the position of its value."""
    delta, type_ = data[position] >> 4, data[position] & 15
    if delta:
        return field + delta, type_, position + 1
    return _parse_integer(data, position + 1), type_, _parse_varint(data, position + 1)[1]


def _parse_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, position
        if shift > 63:
            raise ValueError("a page header is damaged")


def _skip(data: bytes, position: int, type_: int, depth: int = 0) -> int:
    """Return the position behind a value."""
    if depth > _MAX_DEPTH:
        raise ValueError("a page header is damaged")
    if type_ in _BOOLEANS:
        return position
    if type_ in (_BYTE, _DOUBLE):
        return position + (1 if type_ == _BYTE else 8)
    if type_ in _VARINTS:
        return _parse_varint(data, position)[1]
    if type_ == _BINARY:
        size, position = _parse_varint(data, position)
        return position + size
    if type_ == _STRUCT:
        while data[position]:
            _, inner, position = _parse_field(data, position, 0)
            position = _skip(data, position, inner, depth + 1)
        return position + 1
    if type_ == _LIST:
        count, inner, position = _parse_list(data, position)
        for _ in range(count):
            # In a list, a boolean takes a byte.
            inner = _BYTE if inner in _BOOLEANS else inner
            position = _skip(data, position, inner, depth + 1)
            data[position - 1]  # a list cannot be longer than the message
        return position
    raise ValueError("a header is damaged")  # the format has no sets and maps

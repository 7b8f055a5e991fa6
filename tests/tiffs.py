"""TIFF files of kinds that Pillow cannot write, assembled by hand (TIFF 6.0)."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

_SHORT, _LONG = 3, 4
_ROWS, _TILE = 7, 16  # rows per strip; side of a tile


class Layout(NamedTuple):
    """How samples are stored in a file.

    Attributes:
      order: The byte order, `<` or `>`.
      planar: Each channel has a plane of its own.
      tiled: In tiles instead of strips.
      compressed: By deflate.
    """

    order: Literal["<", ">"]
    planar: bool
    tiled: bool
    compressed: bool


_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
LAYOUTS = [
    Layout(order, *flags)
    for order in _ORDERS
    for flags in itertools.product([False, True], repeat=3)
]


def write_tiff(
    samples: np.ndarray, photometric: int, layout: Layout, **tags: int | list[int]
) -> bytes:
    """Return a TIFF of samples.

    Args:
      samples: uint8, uint16, uint32, int or float (H, W, C), as they are stored.
      photometric: The PhotometricInterpretation.
      layout: How the samples are stored.
      tags: Additional tags by number: `t338=[2]`.
    """
    height, width, channels = samples.shape
    planes = np.split(samples, channels, axis=-1) if layout.planar else [samples]
    pieces = [_encode(piece, layout) for plane in planes for piece in _cut(plane, layout.tiled)]
    offsets = np.cumsum([8, *(len(piece) + len(piece) % 2 for piece in pieces)]).tolist()
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    fields = {
        256: [width],
        257: [height],
        258: [samples.dtype.itemsize * 8] * channels,
        259: [8 if layout.compressed else 1],
    }
    fields |= {
        262: [photometric],
        277: [channels],
        284: [2 if layout.planar else 1],
        339: [kind] * channels,
    }
    where, lengths = (324, 325) if layout.tiled else (273, 279)
    fields |= {where: offsets[:-1], lengths: [len(piece) for piece in pieces]}
    fields |= {322: [_TILE], 323: [_TILE]} if layout.tiled else {278: [_ROWS]}
    fields |= {
        int(name[1:]): value if isinstance(value, list) else [value] for name, value in tags.items()
    }
    body = b"".join(piece + bytes(len(piece) % 2) for piece in pieces)
    header = (b"II*\0" if layout.order == "<" else b"MM\0*") + struct.pack(
        layout.order + "I", offsets[-1]
    )
    return header + body + _directory(fields, offsets[-1], layout.order)


def _cut(plane: np.ndarray, tiled: bool) -> Iterator[np.ndarray]:
    height, width = plane.shape[:2]
    if not tiled:
        yield from (plane[top : top + _ROWS] for top in range(0, height, _ROWS))
        return
    padded = np.pad(plane, ((0, -height % _TILE), (0, -width % _TILE), (0, 0)))
    for top in range(0, height, _TILE):
        yield from (
            padded[top : top + _TILE, left : left + _TILE] for left in range(0, width, _TILE)
        )


def _encode(piece: np.ndarray, layout: Layout) -> bytes:
    data = piece.astype(piece.dtype.newbyteorder(layout.order)).tobytes()
    return zlib.compress(data) if layout.compressed else data


def _directory(fields: dict[int, list[int]], offset: int, order: str) -> bytes:
    behind_at = offset + 2 + 12 * len(fields) + 4
    entries, behind = b"", b""
    for tag, values in sorted(fields.items()):
        kind, letter = (
            (_LONG, "I") if max(values) >= 1 << 16 or tag in (273, 279, 324, 325) else (_SHORT, "H")
        )
        value = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(value) > 4:
            value, behind = (
                struct.pack(order + "I", behind_at + len(behind)),
                behind + value + bytes(len(value) % 2),
            )
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    return struct.pack(order + "H", len(fields)) + entries + bytes(4) + behind

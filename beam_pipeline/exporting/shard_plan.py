"""Which examples of a dataset go into which exported shard. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from beam_pipeline.naming import SPLITS
from beam_pipeline.reading.dataset_dir import DatasetDir, Shard


@dataclasses.dataclass(frozen=True)
class Piece:
    """Examples of a shard of the dataset, without those that are excluded.

    Attributes:
      shard: The shard.
      start: Index of the first example in the shard.
      stop: Index after the last one.
    """

    shard: Shard
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """A shard to write.

    Attributes:
      name: Its file name.
      split: The split of its examples.
      examples: Number of examples.
      pieces: Where they are, in order.
    """

    name: str
    split: str
    examples: int
    pieces: tuple[Piece, ...]


def plan(folder: DatasetDir, examples_per_shard: int, suffix: str) -> Iterator[PlannedShard]:
    """Yield the shards of an export, split by split; all of a split are full but the last.

    Args:
      folder: The dataset; its excluded examples are left out.
      examples_per_shard: Maximum number of examples in a shard.
      suffix: The ending of the file names.
    """
    for split in SPLITS:
        groups = _group(folder.shards(split), examples_per_shard)
        for number, (examples, pieces) in enumerate(groups):
            yield PlannedShard(f"{split}-{number:06}{suffix}", split, examples, pieces)


def _group(shards: Sequence[Shard], size: int) -> Iterator[tuple[int, tuple[Piece, ...]]]:
    """Yield the examples of shards in groups: their number, at most `size`, and their pieces."""
    pieces: list[Piece] = []
    number = 0
    for shard in shards:
        start = 0
        while start < shard.kept:
            stop = min(shard.kept, start + size - number)
            pieces.append(Piece(shard, shard.position(start), shard.position(stop - 1) + 1))
            number += stop - start
            start = stop
            if number == size:
                yield number, tuple(pieces)
                pieces, number = [], 0
    if number:
        yield number, tuple(pieces)

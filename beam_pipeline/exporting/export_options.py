"""The options of an export, and its failures."""

from __future__ import annotations

import dataclasses
from typing import Final

from beam_pipeline.reading import dataset_dir
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.reading.export_info import Format

# The ending of the shards of each format.
SUFFIXES: Final[dict[Format, str]] = {"webdataset": ".tar", "array_record": ".array_record"}


class ExportError(Exception):
    """The dataset is broken or has changed. The message is one line."""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported, and to where.

    Attributes:
      dataset: The folder of the dataset.
      to: The format.
      output: The folder for the export.
      examples_per_shard: Maximum number of examples in a shard.
      exclude: Some of `near_duplicates.KINDS`.
    """

    dataset: str
    to: Format
    output: str
    examples_per_shard: int
    exclude: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """The ending of the file names."""
        return SUFFIXES[self.to]

    def open_dataset(self) -> DatasetDir:
        """Open the dataset. Raises what `dataset_dir.open_dataset_dir` does."""
        return dataset_dir.open_dataset_dir(self.dataset, exclude=self.exclude)

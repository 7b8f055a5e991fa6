"""The Beam graph of an export.

    Start -> PlanShards -> Distribute -> WriteShards -> Finish

Names of files are shuffled, never examples: each worker reads the examples of the shards that it
writes. So the files are the same on each run and runner.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsList

from beam_pipeline import naming
from beam_pipeline.dataset_info import ExampleFile
from beam_pipeline.exporting import array_record_shards, shard_plan, webdataset_shards
from beam_pipeline.exporting.export_options import ExportError, ExportOptions
from beam_pipeline.exporting.shard_plan import Piece, PlannedShard
from beam_pipeline.reading import class_labels, export_info, numpy_reader
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.reading.export_info import ExportInfo
from beam_pipeline.storage import any_path, filesystem
from beam_pipeline.transforms.ticks import Ticks


def build(pipeline: beam.Pipeline, options: ExportOptions, ticks: Ticks | None = None) -> None:
    """Add the graph to a pipeline.

    Args:
      pipeline: An empty pipeline, on any runner.
      options: The options of the export.
      ticks: Counts written examples for the progress line, on the machine of the command; None
        elsewhere.
    """
    written = (
        pipeline
        | "Start" >> beam.Create([options])
        | "PlanShards" >> beam.FlatMap(plan_shards)
        | "Distribute" >> beam.Reshuffle()
        | "WriteShards" >> beam.ParDo(WriteShards(options, ticks))
    )
    _ = pipeline | "End" >> beam.Create([options]) | "Finish" >> beam.Map(finish, AsList(written))


def plan_shards(options: ExportOptions) -> Iterator[PlannedShard]:
    """Yield the shards to write.

    Raises:
      ExportError: A shard of the dataset is missing, or has another size than `dataset.json` lists.
    """
    with _as_export_error():
        folder = options.open_dataset()
        check_sizes(folder)
        yield from shard_plan.plan(folder, options.examples_per_shard, options.suffix)


def check_sizes(folder: DatasetDir) -> None:
    """Raise ExportError if the files of a dataset do not match its `dataset.json`."""
    sizes = any_path.list_files(folder.path)
    shards = folder.shards(*naming.SPLITS)
    for shard in shards:
        if sizes.get(shard.name) != shard.bytes:
            raise ExportError(
                f"{shard.path} has {sizes.get(shard.name, 'no')} bytes, {naming.DATASET_INFO} "
                f"lists {shard.bytes}"
            )
    examples = sum(shard.examples for shard in shards)
    if examples != folder.info.counts.examples:
        raise ExportError(
            f"{folder.path}/{naming.DATASET_INFO} lists {folder.info.counts.examples:,} examples, "
            f"its files hold {examples:,}"
        )


class WriteShards(beam.DoFn):
    """Writes the shards of an export. Emits an ExampleFile for each."""

    def __init__(self, options: ExportOptions, ticks: Ticks | None = None):
        self._options, self._ticks = options, ticks

    def setup(self) -> None:
        with _as_export_error():
            folder = self._options.open_dataset()
        self._folder = folder.without_lists
        self._labels = class_labels.label_classes(folder.info.classes)

    def process(self, shard: PlannedShard) -> Iterator[ExampleFile]:
        path = any_path.join(self._options.output, shard.name)
        with _as_export_error():
            records = self._read(shard)
            if self._options.to == "webdataset":
                with filesystem.create(path) as file:
                    webdataset_shards.write_shard(
                        file, records, self._folder.info.features, self._labels
                    )
            else:
                with filesystem.create_from_disk(path) as local_path:
                    array_record_shards.write_shard(local_path, records, self._folder.is_compressed)
        size = filesystem.size_of(path)
        yield ExampleFile(shard.name, shard.split, shard.examples, size)  # type: ignore[arg-type]

    def _read(self, shard: PlannedShard) -> Iterator[bytes]:
        for piece in shard.pieces:
            for record in read_piece(self._folder, piece):
                yield record
                if self._ticks:
                    self._ticks.example()


def read_piece(folder: DatasetDir, piece: Piece) -> Iterator[bytes]:
    """Yield the records of a piece; verify all checksums.

    Raises:
      ExportError: The shard does not hold as many examples as `dataset.json` lists.
      ValueError: The shard, which the message names, is broken.
    """
    shard, excluded = piece.shard, frozenset(piece.shard.excluded)
    index = piece.start
    stored = numpy_reader.read_stored(folder, shard, piece.start)
    for _, record in itertools.islice(stored, piece.stop - piece.start):
        if index not in excluded:
            yield record
        index += 1
    if index < piece.stop or (index == shard.examples and next(stored, None)):
        raise ExportError(f"{shard.path} does not hold {shard.examples:,} examples")


def finish(options: ExportOptions, files: Sequence[ExampleFile]) -> None:
    """Write `export.json`, which makes the export complete.

    Args:
      options: The options of the export.
      files: The shards that were written, in any order.

    Raises:
      ExportError: They do not hold the examples of the dataset.
    """
    with _as_export_error():
        folder = options.open_dataset()
    for split in naming.SPLITS:
        wanted = sum(shard.kept for shard in folder.shards(split))
        written = sum(file.examples for file in files if file.split == split)
        if written != wanted:
            raise ExportError(
                f"{options.output} holds {written:,} {split} examples, {folder.path} has {wanted:,}"
            )
    info = ExportInfo(
        description=(f"{folder.info.description} Exported to {options.to} by beam_pipeline."),
        format_version=export_info.FORMAT_VERSION,
        format=options.to,
        examples_per_shard=options.examples_per_shard,
        excluded=sorted(options.exclude),
        files=sorted(files, key=lambda file: file.name),
        dataset=folder.without_lists.info,
    )
    path = any_path.join(options.output, naming.EXPORT_INFO)
    filesystem.write_bytes(path, info.to_json().encode())


@contextlib.contextmanager
def _as_export_error() -> Iterator[None]:
    """Convert the errors of reading a dataset to ExportError, whose message is one line."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise ExportError(str(error)) from error

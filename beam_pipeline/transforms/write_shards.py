"""The sinks of a run: shards of examples, and files of failures with one line each.

Beam's `FileBasedSink` writes bundles without a shuffle, under temporary names, and renames the
files when all are complete. Here it also limits the records of a file and reports what each file
holds.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io import filebasedsink, iobase
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from beam_pipeline import naming
from beam_pipeline.elements import EncodedExample, Failure, Shard
from beam_pipeline.storage import filesystem
from beam_pipeline.transforms.write_metadata import ShardRows

FAILURES_PER_SHARD = 1_000_000

_BYTES = Metrics.counter(naming.WRITE, "bytes")
_MICROSECONDS = Metrics.counter(naming.WRITE, "microseconds")


class _Writer(iobase.Writer):
    """Writes one file.

    `close` returns the temporary path and the number of records. Errors name the file.
    """

    def __init__(self, writer: Any):
        """Initialize the writer.

        Args:
          writer: The writer of a `FileBasedSink`.
        """
        self._writer = writer

    def write(self, value: Any) -> None:
        """Write bytes."""
        began = time.perf_counter()
        with filesystem.naming(self._writer.temp_shard_path):
            self._writer.write(value)
        _BYTES.inc(len(value))
        _MICROSECONDS.inc(round((time.perf_counter() - began) * 1e6))

    def close(self) -> tuple[str, int]:
        with filesystem.naming(self._writer.temp_shard_path):
            return self._writer.close(), self._writer.num_records_written

    def at_capacity(self) -> bool:
        return self._writer.at_capacity()


class _ExampleWriter(_Writer):
    """Writes a shard of EncodedExample, and the rows of its examples to another file."""

    def __init__(self, writer: Any, rows_path: str):
        super().__init__(writer)
        self._rows_path = rows_path
        self._rows = FileSystems.create(rows_path, compression_type=CompressionTypes.UNCOMPRESSED)

    def write(self, value: EncodedExample) -> None:
        super().write(value.stored)
        with filesystem.naming(self._rows_path):
            self._rows.write(b"%d %s" % (len(value.stored), value.row))

    def close(self) -> tuple[str, int]:
        with filesystem.naming(self._rows_path):
            self._rows.close()
        return super().close()


class FileSink(filebasedsink.FileBasedSink):
    """Writes bytes, and yields the `Shard` of each file and the temporary name it had.

    They are JSON because Beam's results are str. Unlike Beam's sink, it keeps and yields files that
    an earlier attempt to finalize already renamed.
    """

    def __init__(self, prefix: str, suffix: str, records_per_file: int):
        """Initialize the sink.

        Args:
          prefix: Path of the files up to the shard numbers.
          suffix: The part of the path after the shard numbers.
          records_per_file: Maximum number of records in a file.
        """
        super().__init__(
            prefix,
            coders.BytesCoder(),
            file_name_suffix=suffix,
            shard_name_template=naming.SHARD_TEMPLATE,
            compression_type=CompressionTypes.UNCOMPRESSED,
            max_records_per_shard=records_per_file,
            skip_if_empty=True,
        )
        self._prefix, self._suffix = prefix, suffix

    def write_encoded_record(self, file_handle: Any, encoded_value: bytes) -> None:
        file_handle.write(encoded_value)

    def open_writer(self, init_result: str, uid: str) -> _Writer:
        return _Writer(super().open_writer(init_result, uid))

    def pre_finalize(self, init_result: str, writer_results: Iterable[tuple[str, int]]) -> None:
        """Delete the files of another attempt whose places are taken by new ones.

        Beam's sink deletes all that are there. An engine may repeat this step after the files were
        renamed, and they would be lost.
        """
        results = sorted(writer_results)
        if not results:
            return
        new = filesystem.list_folder(FileSystems.split(results[0][0])[0])
        paths = [
            self._final_path(index, len(results))
            for index, (temporary, _) in enumerate(results)
            if temporary in new
        ]
        folder, name = FileSystems.split(self._prefix)
        existing = filesystem.list_folder(folder, f"{name}*{self._suffix}")
        FileSystems.delete([path for path in paths if path in existing])

    def finalize_write(
        self,
        init_result: str,
        writer_results: Iterable[tuple[str, int]],
        unused_pre_finalize_results: Any,
    ) -> Iterator[str]:
        results = sorted(writer_results)
        for _ in super().finalize_write(
            init_result, [path for path, _ in results], unused_pre_finalize_results
        ):
            pass
        for index, (temporary, records) in enumerate(results):
            path = self._final_path(index, len(results))
            size = FileSystems.match([path])[0].metadata_list[0].size_in_bytes
            shard = Shard(filesystem.base_name(path), records, size)
            yield json.dumps([dataclasses.asdict(shard), filesystem.base_name(temporary)])

    def _final_path(self, index: int, files: int) -> str:
        return f"{self._prefix}{naming.shard_numbers(index, files)}{self._suffix}"


class ExampleSink(FileSink):
    """Writes EncodedExample; the rows of a shard are in the folder `rows`, under the shard's
    temporary name.
    """

    def __init__(self, prefix: str, compression: str, examples_per_shard: int, rows: str):
        """Initialize the sink.

        Args:
          prefix: Path of the shards up to their numbers.
          compression: `none` or `gzip`.
          examples_per_shard: Maximum number of examples in a shard.
          rows: Folder for the rows of the examples.
        """
        suffix = {"none": ".tfrecord", "gzip": ".tfrecord.gz"}[compression]
        super().__init__(prefix, suffix, examples_per_shard)
        self._rows = rows

    def open_writer(self, init_result: str, uid: str) -> _ExampleWriter:
        writer = filebasedsink.FileBasedSink.open_writer(self, init_result, uid)
        name = filesystem.base_name(writer.temp_shard_path)
        return _ExampleWriter(writer, FileSystems.join(self._rows, name))


class WriteExamples(beam.PTransform):
    """Write EncodedExamples as TFRecords, without a shuffle.

    Returns a PCollection of one `ShardRows` per file.

    Attributes:
      prefix: Path of the shards up to their numbers.
      split: The split of the examples.
      compression: `none` or `gzip`.
      examples_per_shard: Maximum number of examples in a shard.
      rows: Folder for the rows of the examples, for `write_metadata.WriteMetadata`.
    """

    def __init__(
        self, prefix: str, split: str, compression: str, examples_per_shard: int, rows: str
    ):
        super().__init__()
        self._sink = ExampleSink(prefix, compression, examples_per_shard, rows)
        self._split, self._rows = split, rows

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        return (
            examples
            | "Write" >> iobase.Write(self._sink)
            | "ReadShards" >> beam.Map(read_shard_rows, self._split, self._rows)
        )


class WriteFailures(beam.PTransform):
    """Write failures as lines of JSON, without a shuffle.

    Returns a PCollection of one `Shard` per file.

    Attributes:
      prefix: Path of the shards up to their numbers.
    """

    def __init__(self, prefix: str):
        super().__init__()
        self._sink = FileSink(prefix, ".jsonl", FAILURES_PER_SHARD)

    def expand(self, failures: beam.PCollection) -> beam.PCollection:
        return (
            failures
            | "Encode" >> beam.Map(encode_failure)
            | "Write" >> iobase.Write(self._sink)
            | "ReadShards" >> beam.Map(read_shard)
        )


def encode_failure(failure: Failure) -> bytes:
    return json.dumps(failure.as_json()).encode() + b"\n"


def read_shard(result: str) -> Shard:
    shard, _ = json.loads(result)
    return Shard(**shard)


def read_shard_rows(result: str, split: str, folder: str) -> ShardRows:
    shard, name = json.loads(result)
    return ShardRows(Shard(**shard), split, FileSystems.join(folder, name))

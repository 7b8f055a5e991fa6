"""Where a run ends: shards of examples, lines of failures.

Beam's file sinks write bundles where they are, under temporary names, and rename them when all are whole. What they do not
tell is how much each file holds, and what they do not offer is a limit on that.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io import filebasedsink, iobase, textio, tfrecordio
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from beam_pipeline import elements, naming
from beam_pipeline.elements import Failure
from beam_pipeline.storage import filesystem

FAILURES_PER_SHARD = 1_000_000

_BYTES, _MICROSECONDS = Metrics.counter("write", "bytes"), Metrics.counter("write", "microseconds")


class _CountingWriter(filebasedsink.FileBasedSinkWriter):
    """Closes to its temporary path and the number of its records. Its errors name the file."""

    def write(self, value: bytes) -> None:
        began = time.perf_counter()
        with filesystem.naming(self.temp_shard_path):
            super().write(value)
        _BYTES.inc(len(value))
        _MICROSECONDS.inc(round((time.perf_counter() - began) * 1e6))

    def close(self) -> tuple[str, int]:
        with filesystem.naming(self.temp_shard_path):
            return super().close(), self.num_records_written


class _CountingSink(filebasedsink.FileBasedSink):
    """A file sink that limits the records of a file and yields each file's `elements.Shard`, as JSON since Beam has results as str.

    It also yields files that an earlier attempt at finishing had already renamed, which Beam's own leaves out.
    """

    def open_writer(self, init_result: str, uid: str) -> _CountingWriter:
        opened = super().open_writer(init_result, uid)
        opened.__class__ = _CountingWriter
        return opened

    def pre_finalize(self, init_result: str, writer_results: Iterable[tuple[str, int]]) -> None:
        super().pre_finalize(init_result, [path for path, _ in writer_results])

    def finalize_write(
        self, init_result: str, writer_results: Iterable[tuple[str, int]], unused_pre_finalize_results: Any
    ) -> Iterator[str]:
        results = sorted(writer_results)
        for _ in super().finalize_write(init_result, [path for path, _ in results], unused_pre_finalize_results):
            pass
        for number, (_, records) in enumerate(results):
            path = self._get_final_name(number, len(results))
            size = FileSystems.match([path])[0].metadata_list[0].size_in_bytes
            yield json.dumps(dataclasses.asdict(elements.Shard(filesystem.base_name(path), records, size)))


class _TFRecordSink(_CountingSink, tfrecordio._TFRecordSink):
    pass


class _TextSink(_CountingSink, textio._TextSink):
    pass


class WriteExamples(beam.PTransform):
    """Writes serialized examples, bytes, as TFRecords where they are, with no shuffle. Returns a Shard a file.

    Attributes:
      prefix: Path of the shards up to their numbers.
      compression: `none` or `gzip`.
      examples_per_shard: No shard holds more.
    """

    def __init__(self, prefix: str, compression: str, examples_per_shard: int):
        super().__init__()
        packed = compression == "gzip"
        self._sink = _TFRecordSink(
            prefix,
            coders.BytesCoder(),
            file_name_suffix=".tfrecord.gz" if packed else ".tfrecord",
            num_shards=0,
            shard_name_template=naming.SHARD_TEMPLATE,
            compression_type=CompressionTypes.GZIP if packed else CompressionTypes.UNCOMPRESSED,
        )
        self._sink.max_records_per_shard = examples_per_shard
        self._sink.skip_if_empty = True

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        return examples | iobase.Write(self._sink) | "ReadShards" >> beam.Map(read_shard)


class WriteFailures(beam.PTransform):
    """Writes failures as lines of JSON. Returns a Shard a file."""

    def __init__(self, prefix: str):
        super().__init__()
        self._sink = _TextSink(
            prefix,
            file_name_suffix=".jsonl",
            shard_name_template=naming.SHARD_TEMPLATE,
            coder=coders.BytesCoder(),
            max_records_per_shard=FAILURES_PER_SHARD,
            skip_if_empty=True,
        )

    def expand(self, failures: beam.PCollection) -> beam.PCollection:
        lines = failures | "EncodeFailures" >> beam.Map(encode_failure)
        return lines | iobase.Write(self._sink) | "ReadShards" >> beam.Map(read_shard)


def encode_failure(failure: Failure) -> bytes:
    return json.dumps(failure.as_json()).encode()


def read_shard(line: str) -> elements.Shard:
    return elements.Shard(**json.loads(line))

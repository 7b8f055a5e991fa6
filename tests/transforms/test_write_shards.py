"""Tests that shards hold all elements, at most the allowed number each, and report their size."""

import json
import os
from pathlib import Path

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.elements import EncodedExample, Failure, ImageRef, Shard
from beam_pipeline.records import gzip_members, tfrecord
from beam_pipeline.transforms import write_shards


def written(records, sink, folder):
    """Write elements with a sink; return the shards that it reports, by name."""
    path = folder / "shards.jsonl"
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        files = pipeline | beam.Create(records) | sink
        shards = files | beam.Map(lambda file: getattr(file, "shard", file))
        lines = shards | beam.Map(
            lambda shard: json.dumps([shard.name, shard.records, shard.bytes])
        )
        _ = lines | beam.io.WriteToText(str(path), shard_name_template="")
    return sorted(
        (Shard(*json.loads(line)) for line in path.read_text().splitlines()),
        key=lambda shard: shard.name,
    )


def write_examples(folder, compression="none", examples_per_shard=10):
    return write_shards.WriteExamples(
        str(folder / "lab_images_"), "train", compression, examples_per_shard, str(folder / "rows")
    )


def encode(record: bytes, row: bytes, compression: str = "none") -> EncodedExample:
    frame = tfrecord.frame(record)
    stored = gzip_members.compress_frame(frame) if compression == "gzip" else frame
    return EncodedExample(record, stored, row)


sinks_by_compression = [("none", ".tfrecord", ""), ("gzip", ".tfrecord.gz", "GZIP")]


@pytest.mark.parametrize(("compression", "suffix", "tf_compression"), sinks_by_compression)
def test_examples_are_all_there_and_counted(tmp_path, compression, suffix, tf_compression):
    examples = [f"example {index}".encode() for index in range(25)]
    shards = written(
        [encode(example, b'"%s"\n' % example, compression) for example in examples],
        write_examples(tmp_path / "out", compression),
        tmp_path,
    )
    assert [shard.name for shard in shards] == [
        f"lab_images_{index:05}-of-00003{suffix}" for index in range(3)
    ]
    assert sorted(shard.records for shard in shards) == [5, 10, 10]
    found = []
    for shard in shards:
        path = tmp_path / "out" / shard.name
        records = [
            record.numpy()
            for record in tf.data.TFRecordDataset(str(path), compression_type=tf_compression)
        ]
        assert len(records) == shard.records
        assert path.stat().st_size == shard.bytes
        found += records
    assert sorted(found) == sorted(examples)
    assert sorted(os.listdir(tmp_path / "out")) == [*(shard.name for shard in shards), "rows"]
    rows = [path.read_bytes().splitlines() for path in (tmp_path / "out" / "rows").iterdir()]
    assert sorted(map(len, rows)) == [5, 10, 10]
    assert sorted(row for lines in rows for row in lines) == sorted(
        b'%d "%s"' % (len(encode(example, b"", compression).stored), example)
        for example in examples
    )


def test_no_example_gives_no_file(tmp_path):
    assert written([], write_examples(tmp_path / "out"), tmp_path) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_failures_are_lines_of_json(tmp_path):
    failures = [
        Failure(
            ImageRef("n1", "http://a/\u00e9.jpg"),
            "fetch",
            "dns",
            "line\nbreak \u2028",
            3,
            "http://a/",
        ),
        Failure(ImageRef("", "ftp://b"), "read", "unsupported_scheme", "ftp"),
    ]
    [shard] = written(
        failures,
        write_shards.WriteFailures(str(tmp_path / "failures-")),
        tmp_path,
    )
    assert (shard.name, shard.records) == ("failures-00000-of-00001.jsonl", 2)
    lines = (tmp_path / shard.name).read_text().splitlines()
    fields = sorted((json.loads(line) for line in lines), key=lambda line: line["url"])
    assert [list(line) for line in fields] == [
        ["id", "url", "name", "stage", "reason", "detail", "attempts", "final_url"]
    ] * 2
    assert fields == sorted(
        (failure.as_json() for failure in failures), key=lambda line: str(line["url"])
    )


def make_sink(folder: Path) -> write_shards.ExampleSink:
    return write_shards.ExampleSink(str(folder / "lab_images_"), "none", 2, str(folder / "rows"))


def write_two(sink: write_shards.ExampleSink, record: bytes) -> tuple[str, list[tuple[str, int]]]:
    """Write two files under temporary names, as an attempt at the step before the last does."""
    folder = sink.initialize_write()
    results = []
    for uid in ("a", "b"):
        writer = sink.open_writer(folder, uid)
        writer.write(encode(record, b"{}\n"))
        results.append(writer.close())
    return folder, results


@pytest.mark.parametrize("steps", ["finalize_write", "both"])
def test_a_second_attempt_at_finishing_returns_the_same(tmp_path, steps):
    sink = make_sink(tmp_path)
    folder, results = write_two(sink, b"record")
    sink.pre_finalize(folder, results)
    first = list(sink.finalize_write(folder, results, None))
    if steps == "both":
        sink.pre_finalize(folder, results)
    again = list(sink.finalize_write(folder, results, None))
    assert len(first) == 2
    assert first == again
    for result in first:
        rows = write_shards.read_shard_rows(result, "train", str(tmp_path / "rows"))
        assert Path(rows.path).read_bytes() == b"22 {}\n"
        assert (tmp_path / rows.shard.name).stat().st_size == rows.shard.bytes


def test_an_attempt_replaces_the_files_of_another_one(tmp_path):
    for record in (b"older", b"newer"):
        sink = make_sink(tmp_path)
        folder, results = write_two(sink, record)
        sink.pre_finalize(folder, results)
        made = list(sink.finalize_write(folder, results, None))
    names = [json.loads(result)[0]["name"] for result in made]
    assert sorted(path.name for path in tmp_path.glob("lab_images_*")) == names
    assert all(b"newer" in (tmp_path / name).read_bytes() for name in names)

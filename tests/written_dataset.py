"""Writing, analyzing and damaging a small dataset, as several tests need it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.config import Config
from beam_pipeline.dataset_info import Counts, DatasetInfo, InputFile, OtherHosts, TransformFile
from beam_pipeline.elements import EmbeddedImage, Failure, ImageRef, OutcomeCount, RgbImage, Shard
from beam_pipeline.metadata import commit_manifest
from beam_pipeline.reading import tf_reader
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import example_codec, gzip_members, metadata_table, tfrecord
from beam_pipeline.storage import any_path
from beam_pipeline.transforms import write_metadata
from beam_pipeline.transforms.analyze_examples import AnalyzeExamples

SIZE = 16
RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(12)]
PIXELS[0][:] = 0
PIXELS[1][:] = 255
FAILED = (("old.jpg", "http_404"), ("lost.jpg", "dns"))
EMBEDDINGS = RNG.standard_normal((len(PIXELS), 1001)).astype(np.float32)


def write_dataset(folder, encoding, compression="none", embedding=True, urls="http://a/{}"):
    """Write a dataset as a run does: twelve images in three shards, and two failures.

    Two of the images are for training.
    """
    options = Config(
        input="urls.txt",
        output=str(folder),
        encoding=encoding,
        compression=compression,
        image_size=SIZE,
        checkpoint="untrained" if embedding else "none",
    )
    shards, rows = [], []
    for shard_index, (prefix, part) in enumerate(
        [
            ("lab_images", range(0, 5)),
            ("lab_images", range(5, 10)),
            ("val_lab_images", range(10, 12)),
        ]
    ):
        name = f"{prefix}_{shard_index:05}-of-00003.tfrecord" + (
            ".gz" if compression == "gzip" else ""
        )
        rows_file = folder / f"{name}.rows"
        with (folder / name).open("wb") as writer, rows_file.open("wb") as lines:
            for index in part:
                image = RgbImage(
                    ImageRef(
                        f"n0000000{index % 3}_{index}",
                        urls.format(index),
                        image_class=f"n0000000{index % 3}",
                    ),
                    PIXELS[index],
                    (100 + index, 50),
                )
                embedded = EmbeddedImage(image, EMBEDDINGS[index] if embedding else None)
                record = example_codec.encode_example(embedded, encoding)
                stored = store(record, compression)
                writer.write(stored)
                lines.write(b"%d %s" % (len(stored), metadata_table.encode_row(embedded)))
        shards.append(Shard(name, len(part), (folder / name).stat().st_size))
        split = "validation" if prefix.startswith("val") else "train"
        rows.append(write_metadata.ShardRows(shards[-1], split, str(rows_file)))
    metadata = [
        write_metadata.write_file(plan, str(folder), ())
        for plan in write_metadata.plan_files("metadata-", rows)
    ]
    for rows_file in folder.glob("*.rows"):
        rows_file.unlink()
    failures = [
        Failure(ImageRef("", f"http://b/{name}"), "fetch", reason, "gone <b>for good</b>")
        for name, reason in FAILED
    ]
    (folder / "failures-00000-of-00001.jsonl").write_text(
        "".join(json.dumps(failure.as_json()) + "\n" for failure in failures)
    )
    failed = [
        Shard(
            "failures-00000-of-00001.jsonl",
            2,
            (folder / "failures-00000-of-00001.jsonl").stat().st_size,
        )
    ]
    counts = {"lines": 14, "failures/fetch/http_404": 1, "failures/fetch/dns": 1}
    outcomes: list[OutcomeCount] = [
        (("class", f"n0000000{index}", split), number)
        for index in range(3)
        for split, number in (("train", 3), ("validation", 1))
    ]
    outcomes += [
        (("host", "a", "example"), 12),
        (("host", "b", "http_404"), 1),
        (("host", "b", "dns"), 1),
    ]
    commit_manifest.finalize_commit(
        options,
        0,
        True,
        "",
        commit_manifest.NO_DIGESTS,
        counts,
        shards[:2],
        shards[2:],
        failed,
        metadata,
        [],
        outcomes,
    )
    return str(folder)


def store(record: bytes, compression: str) -> bytes:
    """Return a record as it is in a shard."""
    frame = tfrecord.frame(record)
    return gzip_members.compress_frame(frame) if compression == "gzip" else frame


def cut_shard(shard: Path, records: int) -> None:
    """Keep the first `records` records of a shard; with none, an empty file."""
    compression = "GZIP" if shard.suffix == ".gz" else ""
    kept = [
        record.numpy() for record in tf.data.TFRecordDataset(str(shard), compression).take(records)
    ]
    if not kept:
        shard.write_bytes(b"")
        return
    kind = "gzip" if compression else "none"
    shard.write_bytes(b"".join(store(record, kind) for record in kept))


def make_info(**fields: Any) -> DatasetInfo:
    """Return the description of an empty dataset with the given fields."""
    empty = DatasetInfo(
        description="",
        format_version=1,
        encoding="lab_uint8",
        compression="none",
        image_size=SIZE,
        embedding_size=0,
        features={},
        counts=Counts(0, 0, 0, 0, 0, {}),
        failures_by_stage={},
        classes={},
        hosts=[],
        other_hosts=OtherHosts(0, 0, 0),
        measures={},
        near_duplicates=None,
        repeated_content=[],
        checkpoint=InputFile(None, None),
        exclude_sha256=InputFile(None, None),
        class_file=InputFile(None, None),
        validation_ids=InputFile(None, None),
        options={},
        versions={},
        files=[],
        transform=[],
        failure_files=[],
        filtered_files=[],
        metadata_files=[],
    )
    return dataclasses.replace(empty, **fields)


def analyze(
    folder: DatasetDir, records: list[bytes], before: str | None = None, after: str | None = None
) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        transform = AnalyzeExamples(
            folder.path,
            folder.info.features,
            folder.info.encoding,
            before,
            after,
            f"{folder.path}/beam-temp-analysis",
        )
        _ = pipeline | beam.Create(records, reshuffle=False) | transform
    files = any_path.list_files(folder.path, "transform")
    listed = [TransformFile(name, size) for name, size in files.items()]
    folder.info.transform[:] = listed
    Path(folder.path, "dataset.json").write_text(folder.info.to_json())


def read_records(folder: DatasetDir) -> list[bytes]:
    return [record.numpy() for record in tf_reader.read_records(folder, "train")]

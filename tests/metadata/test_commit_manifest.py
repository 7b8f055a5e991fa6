"""Tests that a run fails unless its counts add up, and that only a dataset's files are touched."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from beam_pipeline.config import Config
from beam_pipeline.elements import Shard
from beam_pipeline.metadata import commit_manifest
from beam_pipeline.metadata.repeated_content import Repeat
from beam_pipeline.reading import dataset_dir

TRAIN = [
    Shard("lab_images_00001-of-00002.tfrecord", 2, 20),
    Shard("lab_images_00000-of-00002.tfrecord", 3, 30),
]
VALIDATION = [Shard("val_lab_images_00000-of-00001.tfrecord", 1, 10)]
FAILURES = [Shard("failures-00000-of-00001.jsonl", 4, 400)]
METADATA = [Shard("metadata-00000-of-00001.parquet", 6, 60)]
COUNTS: dict[str, int] = {
    "lines": 13,
    "ignored": 2,
    "duplicates": 1,
    "failures/fetch/dns": 3,
    "failures/fetch/http_404": 1,
}


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(input="urls.txt", output=str(tmp_path), checkpoint="untrained")


def close(
    config,
    counts=COUNTS,
    train=TRAIN,
    validation=VALIDATION,
    failures=FAILURES,
    number=0,
    is_last=True,
    metadata=METADATA,
):
    shards = (train, validation, failures, metadata)
    for shard in itertools.chain(*shards):
        Path(config.output, shard.name).touch()
    digests = {**commit_manifest.NO_DIGESTS, "checkpoint": "abc"}
    commit_manifest.finalize_commit(
        config, number, is_last, "digest", digests, counts, *shards, [], []
    )


def read_description(folder) -> dict | None:
    info = dataset_dir.read_info(folder)
    return dataclasses.asdict(info) if info else None


def test_the_description_matches_the_dataset(config):
    close(config)
    description = read_description(config.output)
    assert description is not None
    assert description["encoding"] == "lab_float32"
    assert description["image_size"] == 299
    assert description["embedding_size"] == 1001
    assert description["checkpoint"] == {"name": "untrained", "sha256": "abc"}
    assert description["exclude_sha256"] == {"name": None, "sha256": None}
    assert description["options"]["examples_per_shard"] == 500
    assert description["counts"] == {
        "lines": 13,
        "ignored": 2,
        "duplicates": 1,
        "examples": 6,
        "failures": 4,
        "failures_by_reason": {"dns": 3, "http_404": 1},
        "rescued": 0,
    }
    assert [
        (file["name"], file["split"], file["examples"], file["bytes"])
        for file in description["files"]
    ] == [
        ("lab_images_00000-of-00002.tfrecord", "train", 3, 30),
        ("lab_images_00001-of-00002.tfrecord", "train", 2, 20),
        ("val_lab_images_00000-of-00001.tfrecord", "validation", 1, 10),
    ]
    assert description["versions"]["apache-beam"].startswith("2.77")
    assert description["features"]["image_ab"]["shape"] == [299, 299, 2]


def test_a_dataset_without_embeddings_says_so(tmp_path):
    config = Config(input="urls.txt", output=str(tmp_path), checkpoint="none")
    close(config)
    description = read_description(config.output)
    assert description is not None
    assert description["embedding_size"] == 0
    assert "image_embedding" not in description["features"]


@pytest.mark.parametrize(
    "counts",
    [{**COUNTS, "lines": 12}, {**COUNTS, "duplicates": 2}, {**COUNTS, "failures/fetch/dns": 2}, {}],
)
def test_counts_that_do_not_match_end_the_run(config, counts):
    with pytest.raises(commit_manifest.CountMismatchError, match="do not add up"):
        close(config, counts)
    assert read_description(config.output) is None
    assert commit_manifest.read_commits(config.output) == []


@pytest.mark.parametrize("rows", [0, 5, 7])
def test_every_example_has_a_row_of_metadata(config, rows):
    metadata = [Shard("metadata-00000-of-00001.parquet", rows, 60)] if rows else []
    with pytest.raises(commit_manifest.CountMismatchError, match=f"{rows} rows of metadata"):
        close(config, metadata=metadata)
    close(config)
    description = read_description(config.output)
    assert description and description["metadata_files"] == [
        {"name": "metadata-00000-of-00001.parquet", "rows": 6, "bytes": 60}
    ]


def test_no_description(tmp_path):
    assert read_description(str(tmp_path)) is None
    assert read_description(str(tmp_path / "nowhere")) is None


def test_a_broken_description_is_named(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json .* not JSON"):
        read_description(str(tmp_path))


def test_commits_add_up(config, tmp_path):
    second = [Shard("lab_images_00001-00000-of-00001.tfrecord", 7, 70)]
    close(config, is_last=False)
    assert read_description(config.output) is None
    [first] = commit_manifest.read_commits(config.output)
    assert (first.train, first.is_last, first.list_digest) == (TRAIN[::-1], False, "digest")
    close(
        config,
        {"lines": 9, "ignored": 1, "failures/fetch/dns": 1},
        second,
        [],
        [Shard("failures-00001-00000.jsonl", 1, 9)],
        number=1,
        metadata=[Shard("metadata-00001-00000-of-00001.parquet", 7, 70)],
    )
    description = read_description(config.output)
    assert description is not None
    assert {
        key: description["counts"][key]
        for key in ("lines", "ignored", "duplicates", "examples", "failures")
    } == {
        "lines": 22,
        "ignored": 3,
        "duplicates": 1,
        "examples": 13,
        "failures": 5,
    }
    assert description["counts"]["failures_by_reason"] == {"dns": 4, "http_404": 1}
    assert [file["name"] for file in description["files"]] == sorted(
        [shard.name for shard in (*TRAIN, *second, *VALIDATION)],
        key=lambda name: (name.startswith("val"), name),
    )
    assert not list(tmp_path.glob("commit-*"))


def test_no_survivor_is_no_dataset(config):
    with pytest.raises(commit_manifest.CountMismatchError, match="no image succeeded: 2 dns"):
        close(
            config,
            {"lines": 2, "failures/fetch/dns": 2},
            [],
            [],
            [Shard("failures-00000-of-00001.jsonl", 2, 20)],
            metadata=[],
        )
    assert read_description(config.output) is None
    assert len(commit_manifest.read_commits(config.output)) == 1


def test_description_is_plain_json(config):
    close(config)
    description = read_description(config.output)
    assert json.loads(json.dumps(description)) == description


def test_a_shard_that_is_not_there_is_no_part_of_a_record(config):
    with pytest.raises(FileNotFoundError, match="lab_images"):
        commit_manifest.finalize_commit(
            config,
            0,
            True,
            "",
            commit_manifest.NO_DIGESTS,
            {"lines": 6},
            TRAIN,
            VALIDATION,
            [],
            METADATA,
            [],
            [],
        )
    assert commit_manifest.read_commits(config.output) == []


def test_credentials_are_in_no_description(tmp_path):
    urls, checkpoint = (
        "https://me:s3cr3t@a.example/urls.txt?sig=s3cr3t",
        "https://a.example/b?X-Goog-Signature=s3cr3t",
    )
    config = Config(output=str(tmp_path), input=urls, checkpoint=checkpoint)
    for name in (TRAIN[0].name, METADATA[0].name):
        (tmp_path / name).touch()
    repeat = Repeat("ab", 3, "https://a.example/b.jpg?X-Amz-Signature=s3cr3t")
    commit_manifest.finalize_commit(
        config,
        0,
        False,
        "",
        commit_manifest.NO_DIGESTS,
        {"lines": 2},
        TRAIN[:1],
        [],
        [],
        [Shard("metadata-00000-of-00001.parquet", 2, 60)],
        [repeat],
        [],
    )
    written = "".join(path.read_text() for path in tmp_path.glob("commit-*.json"))
    commit_manifest.finalize_commit(
        config, 1, True, "", commit_manifest.NO_DIGESTS, {"lines": 0}, [], [], [], [], [], []
    )
    written += (tmp_path / "dataset.json").read_text()
    assert "s3cr3t" not in written and "https://REDACTED@a.example/urls.txt?sig=REDACTED" in written

"""The names of the files and metrics that a run leaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SPLITS: Final = ("train", "validation")
# Prefixes of file names such as `lab_images_00000-of-00042.tfrecord`. The trainer of
# deep-koalarization reads the glob `lab_images_*.tfrecord`.
TRAIN_PREFIX, VALIDATION_PREFIX, FAILURES_PREFIX = "lab_images_", "val_lab_images_", "failures-"
METADATA_PREFIX = "metadata-"
SHARD_TEMPLATE = "SSSSS-of-NNNNN"
INDEX_SUFFIX = ".idx"

# Files other than shards and failures. Only dataset.json is always written.
DATASET_INFO, METRICS, REPORT, TRANSFORM, FILTERED_SAMPLE, NEAR_DUPLICATES = (
    "dataset.json",
    "metrics.json",
    "report.html",
    "transform",
    "filtered_sample.jsonl",
    "near_duplicates.parquet",
)

# Written last by an export.
EXPORT_INFO = "export.json"

# Of --statistics, with the names that colorization projects use.
POINTS, PRIOR = "pts_in_hull.npy", "prior_probs.npy"

# Descriptions for people and other programs, which a person may edit.
DESCRIPTIONS = CROISSANT, CARD = "croissant.json", "README.md"

# Files of a run that is in progress or was interrupted. STARTED is written at the start, so that
# the next run recognizes shards without a record as output of a run.
LOCK, STARTED = "run.lock", "run.json"
COMMIT_PREFIX = "commit-"
COMMIT_RECORD, COMMIT_BODIES, COMMIT_OUTCOMES, COMMIT_FILTERED = (
    ".json",
    ".bodies.jsonl",
    ".outcomes.jsonl",
    ".filtered.jsonl",
)
ANALYSIS_PREFIX, ROWS_PREFIX, LIST_PREFIX, TICKS_PREFIX = (
    "beam-temp-analysis-",
    "beam-temp-metadata-",
    "beam-temp-list-",
    "beam-temp-progress-",
)

# The namespaces of the workers' metrics, which metrics.json holds.
STAGES = FETCH, DECODE, KEEP, EMBED, ENCODE, WRITE = (
    "fetch",
    "decode",
    "keep",
    "embedding",
    "encode",
    "write",
)


def shard_numbers(index: int, shards: int) -> str:
    """Return the value of `SHARD_TEMPLATE` for one shard.

    >>> shard_numbers(3, 42)
    '00003-of-00042'
    """
    return f"{index:05}-of-{shards:05}"


def index_names(shards: Iterable[str]) -> list[str]:
    """Return the names of the indices of shards; other files have none.

    >>> index_names(["lab_images_00000-of-00001.tfrecord", "failures-00000-of-00001.jsonl"])
    ['lab_images_00000-of-00001.tfrecord.idx']
    """
    endings = (".tfrecord", ".tfrecord.gz")
    return [f"{name}{INDEX_SUFFIX}" for name in shards if name.endswith(endings)]

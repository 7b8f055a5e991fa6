"""The names of the files that a run leaves in its output folder."""

from __future__ import annotations

SPLITS = ("train", "validation")
# In front of the numbers of a file: `lab_images_00000-of-00042.tfrecord`. The trainer of deep-koalarization reads the glob
# `lab_images_*.tfrecord`.
TRAIN_PREFIX, VALIDATION_PREFIX, FAILURES_PREFIX = "lab_images_", "val_lab_images_", "failures-"
SHARD_TEMPLATE = "SSSSS-of-NNNNN"

# Beside shards and failures. Only the first is always there.
FORMAT_VERSION = 1  # of `dataset.json`
DESCRIPTION, METRICS, REPORT, TRANSFORM = "dataset.json", "metrics.json", "report.html", "transform"

# While a run is under way, or was interrupted. STARTED is written when it begins, so that the next run knows shards without
# a record as its own.
LOCK, STARTED = "run.lock", "run.json"
COMMIT_PREFIX = "commit-"
COMMIT_RECORD, COMMIT_BODIES, COMMIT_TALLIES = ".json", ".bodies.jsonl", ".tallies.jsonl"
ANALYSIS_PREFIX = "beam-temp-analysis-"


def shard_numbers(index: int, shards: int) -> str:
    """Return what `SHARD_TEMPLATE` stands for.

    >>> shard_numbers(3, 42)
    '00003-of-00042'
    """
    return f"{index:05}-of-{shards:05}"

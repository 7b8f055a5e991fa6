"""The names of the files that a run leaves in its output folder."""

from __future__ import annotations

SPLITS = ("train", "validation")
TRAIN_PREFIX, VALIDATION_PREFIX, FAILURES_PREFIX = "lab_images", "val_lab_images", "failures"

# Beside shards and failures. Only the first is always there.
DESCRIPTION, METRICS, REPORT, TRANSFORM = "dataset.json", "metrics.json", "report.html", "transform"

# While a run is under way, or was interrupted. STARTED is written when it begins, so that the next run knows shards without
# a record as its own.
LOCK, STARTED = "run.lock", "run.json"
COMMIT_PREFIX = "commit-"
COMMIT_RECORD, COMMIT_BODIES, COMMIT_TALLIES = ".json", ".bodies.jsonl", ".tallies.jsonl"
ANALYSIS_PREFIX = "beam-temp-analysis-"

"""The books of a run: what went in, what came out of it, and `dataset.json`, which says so and ends the run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from apache_beam.io.filesystems import FileSystems

import beam_pipeline
from beam_pipeline import files, records
from beam_pipeline.config import Config
from beam_pipeline.sinks import Shard

DESCRIPTION = "dataset.json"
_PACKAGES = ("apache-beam", "tensorflow", "pillow", "numpy", "scikit-image")


class BooksError(Exception):
    """What was written does not add up to what was read."""


def close_books(
    config: Config,
    checkpoint_sha256: str | None,
    counts: Mapping[str, int],
    train: Iterable[Shard],
    validation: Iterable[Shard],
    failures: Iterable[Shard],
) -> dict[str, Any]:
    """Balances the books and writes `dataset.json`. To be called last: where it stands, the dataset is whole.

    Args:
      config: The options.
      checkpoint_sha256: Of the checkpoint's files; None where there are none.
      counts: `lines`, `ignored`, `duplicates`, and `failures/REASON` for each reason.
      train, validation, failures: The files that were written.

    Returns:
      What `dataset.json` holds.

    Raises:
      BooksError: lines are not ignored + duplicates + examples + failures, or failures were lost on the way to their files.
    """
    shards = [("train", shard) for shard in _sorted(train)] + [("validation", shard) for shard in _sorted(validation)]
    reasons = {key.partition("/")[2]: number for key, number in sorted(counts.items()) if key.startswith("failures/")}
    totals = {
        "lines": counts.get("lines", 0),
        "ignored": counts.get("ignored", 0),
        "duplicates": counts.get("duplicates", 0),
        "examples": sum(shard.records for _, shard in shards),
        "failures": sum(shard.records for shard in failures),
    }
    told = totals["ignored"] + totals["duplicates"] + totals["examples"] + totals["failures"]
    if totals["lines"] != told or totals["failures"] != sum(reasons.values()):
        raise BooksError(f"the books do not balance, the dataset is not whole: {totals}, {reasons}")
    description = {
        "description": "CIE Lab planes and Inception-ResNet-v2 embeddings of images, as tf.train.Example in TFRecords",
        "encoding": config.encoding,
        "image_size": config.image_size,
        "embedding_size": records.EMBEDDING_SIZE if config.has_network else 0,
        "features": records.describe_features(config.encoding, config.image_size, config.has_network),
        "counts": {**totals, "failures_by_reason": reasons},
        "checkpoint": {"name": config.checkpoint, "sha256": checkpoint_sha256},
        "options": dataclasses.asdict(config),
        "versions": _versions(),
        "files": [{"name": shard.name, "split": split, "examples": shard.records, "bytes": shard.bytes} for split, shard in shards],
        "failure_files": [{"name": shard.name, "failures": shard.records, "bytes": shard.bytes} for shard in _sorted(failures)],
    }
    files.write_bytes(FileSystems.join(config.output, DESCRIPTION), json.dumps(description, indent=1).encode())
    return description


def read_description(folder: str) -> dict[str, Any] | None:
    """Reads a folder's `dataset.json`; None where there is none. Raises ValueError, which names it, if it is not JSON."""
    path = FileSystems.join(folder, DESCRIPTION)
    if not FileSystems.exists(path):
        return None
    try:
        return json.loads(files.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _sorted(shards: Iterable[Shard]) -> list[Shard]:
    return sorted(shards, key=lambda shard: shard.name)


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"beam_pipeline": beam_pipeline.__version__, "python": platform.python_version(), **versions}

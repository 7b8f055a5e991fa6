"""The manifest of a run: what went in, what came out of it, and `dataset.json`, which says so and ends the run.

A run is made of commits (`launch/commits.py`). Each leaves a record `commit-NNNNN.json` when it is complete, and the last one
adds them up to the `dataset.json` that takes their place.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import json
import platform
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems

import beam_pipeline
from beam_pipeline import naming
from beam_pipeline.config import Config
from beam_pipeline.elements import Shard, Tally
from beam_pipeline.metadata import outcome_counts, repeated_content
from beam_pipeline.metadata.repeated_content import Repeat
from beam_pipeline.naming import DESCRIPTION, TRANSFORM
from beam_pipeline.records import example_codec
from beam_pipeline.redaction import redact
from beam_pipeline.storage import any_path, filesystem

# Options that name a file which decides what the dataset holds.
DIGESTED = ("checkpoint", "exclude_sha256")
NO_DIGESTS: Mapping[str, str | None] = types.MappingProxyType(dict.fromkeys(DIGESTED))
_PACKAGES = ("apache-beam", "tensorflow", "tensorflow-transform", "pillow", "numpy", "scikit-image")


class CountMismatchError(Exception):
    """What was written does not add up to what was read, or is too little of it."""


@dataclasses.dataclass(frozen=True)
class CommitManifest:
    """The manifest of one commit.

    Attributes:
      counts: `lines`, `ignored`, `duplicates`, and `failures/STAGE/REASON` for each reason.
      train, validation, failures: The files that were written.
      is_last: No more of the list is left.
      list_digest: Of the list up to here, so that another list is not taken for its rest.
      options: Those that shape the dataset.
      digests: The sha256 of the files that options name, by option, in hex; None for one that names none.
    """

    counts: dict[str, int]
    train: list[Shard]
    validation: list[Shard]
    failures: list[Shard]
    is_last: bool
    list_digest: str
    options: dict[str, Any]
    digests: dict[str, str | None]

    @property
    def shards(self) -> list[Shard]:
        return [*self.train, *self.validation, *self.failures]

    @property
    def stages(self) -> dict[str, dict[str, int]]:
        """Failures by stage and reason."""
        stages: dict[str, dict[str, int]] = {}
        for key, number in sorted(self.counts.items()):
            kind, *names = key.split("/")
            if kind == "failures":
                stages.setdefault(names[0], {})[names[1]] = number
        return stages

    @property
    def reasons(self) -> dict[str, int]:
        reasons: collections.Counter[str] = collections.Counter()
        for stage in self.stages.values():
            reasons.update(stage)
        return dict(sorted(reasons.items()))

    def check_types(self) -> None:
        """Raise ValueError if a field, which JSON has given, is not of its type."""
        numbers = [*self.counts.values(), *(number for shard in self.shards for number in (shard.records, shard.bytes))]
        texts = [self.list_digest, *self.counts, *(shard.name for shard in self.shards)]
        if not (
            all(type(number) is int for number in numbers)
            and all(isinstance(text, str) for text in texts)
            and type(self.is_last) is bool
            and isinstance(self.options, dict)
            and isinstance(self.digests, dict)
        ):
            raise ValueError("the record of a commit has a field of a wrong type")

    def totals(self) -> dict[str, int]:
        """The whole numbers that have to balance."""
        return {
            **{key: self.counts.get(key, 0) for key in ("lines", "ignored", "duplicates")},
            "examples": sum(shard.records for shard in (*self.train, *self.validation)),
            "failures": sum(shard.records for shard in self.failures),
        }

    def check_counts(self) -> None:
        """Raises CountMismatchError unless lines = ignored + duplicates + examples + failures, and each failure is in a file."""
        totals = self.totals()
        told = sum(totals[key] for key in ("ignored", "duplicates", "examples", "failures"))
        if totals["lines"] != told or totals["failures"] != sum(self.reasons.values()):
            raise CountMismatchError(f"the counts do not add up, the dataset is not complete: {totals}, {self.reasons}")


def finalize_commit(
    config: Config,
    number: int,
    is_last: bool,
    list_digest: str,
    digests: Mapping[str, str | None],
    counts: Mapping[str, int],
    train: Iterable[Shard],
    validation: Iterable[Shard],
    failures: Iterable[Shard],
    bodies: Iterable[Repeat],
    tallied: Iterable[Tally],
    unused_analyzed: Iterable[Any] = (),
) -> None:
    """Balances the manifest of a commit and writes its record; after the last, `dataset.json`. To be called last.

    Raises:
      CountMismatchError: they do not add up; or as `finish`.
    """
    options = config.dataset_options()
    shards = _sorted(train), _sorted(validation), _sorted(failures)
    manifest = CommitManifest(dict(counts), *shards, is_last, list_digest, options, dict(digests))
    manifest.check_counts()
    path = FileSystems.join(config.output, f"{naming.COMMIT_PREFIX}{number:05}")
    repeated_content.write(path + naming.COMMIT_BODIES, bodies)
    outcome_counts.write(path + naming.COMMIT_TALLIES, tallied)
    # A record that outlives a loss of power has to find its shards.
    for shard in manifest.shards:
        filesystem.sync(FileSystems.join(config.output, shard.name))
    filesystem.write_bytes(path + naming.COMMIT_RECORD, json.dumps(dataclasses.asdict(manifest)).encode(), durable=True)
    if is_last:
        finish(config)


def read_commits(folder: str) -> list[CommitManifest]:
    """The records of the commits that are whole, in order. Raises ValueError if one is missing or broken."""
    paths = list(filesystem.list_folder(folder, f"{naming.COMMIT_PREFIX}[0-9]*{naming.COMMIT_RECORD}"))
    paths.sort(key=lambda path: (len(path), path))
    if [filesystem.base_name(path) for path in paths] != [
        f"{naming.COMMIT_PREFIX}{number:05}{naming.COMMIT_RECORD}" for number in range(len(paths))
    ]:
        raise ValueError("the record of a commit is missing")
    commits = []
    for record in (json.loads(filesystem.read_bytes(path)) for path in paths):
        for kind in ("train", "validation", "failures"):
            record[kind] = [Shard(**shard) for shard in record[kind]]
        commits.append(CommitManifest(**record))
        commits[-1].check_types()
    return commits


def finish(config: Config) -> None:
    """Adds the commits up and writes `dataset.json`: where it stands, the dataset is whole.

    Raises:
      CountMismatchError: the sum does not add up; not one image survived, or fewer than `--max_failed_fraction` lets.
    """
    manifest = add_up(read_commits(config.output))
    manifest.check_counts()
    totals = manifest.totals()
    reasons = ", ".join(f"{number} {reason}" for reason, number in manifest.reasons.items()) or "no image was asked for"
    if not totals["examples"]:
        raise CountMismatchError(f"not one image survived: {reasons}; failures-*.jsonl tell why, --overwrite tries again")
    if totals["failures"] > config.max_failed_fraction * (totals["failures"] + totals["examples"]):
        raise CountMismatchError(
            f"{totals['failures']} images failed and {totals['examples']} did not, which is more than --max_failed_fraction "
            f"{config.max_failed_fraction:g} allows: {reasons}; a higher one accepts it, --overwrite tries again"
        )
    repeated = repeated_content.most_repeated(
        sorted(filesystem.list_folder(config.output, f"{naming.COMMIT_PREFIX}[0-9]*{naming.COMMIT_BODIES}"))
    )
    tallied = outcome_counts.add_up(
        sorted(filesystem.list_folder(config.output, f"{naming.COMMIT_PREFIX}[0-9]*{naming.COMMIT_TALLIES}"))
    )
    description = json.dumps(describe(config, manifest, repeated, tallied), indent=1).encode()
    filesystem.write_bytes(FileSystems.join(config.output, DESCRIPTION), description, durable=True)
    for pattern in (naming.STARTED, f"{naming.COMMIT_PREFIX}[0-9]*"):
        FileSystems.delete(list(filesystem.list_folder(config.output, pattern)))


def add_up(commits: Sequence[CommitManifest]) -> CommitManifest:
    """The manifest of all commits together."""
    counts: collections.Counter[str] = collections.Counter()
    for commit in commits:
        counts.update(commit.counts)
    train, validation, failures = (
        _sorted(shard for commit in commits for shard in getattr(commit, kind)) for kind in ("train", "validation", "failures")
    )
    last = commits[-1]
    return CommitManifest(dict(counts), train, validation, failures, last.is_last, last.list_digest, last.options, last.digests)


def describe(config: Config, manifest: CommitManifest, repeated: Iterable[Repeat], tallied: dict[str, Any]) -> dict[str, Any]:
    """What `dataset.json` holds."""
    options = config.as_json()
    shards = [("train", shard) for shard in manifest.train] + [("validation", shard) for shard in manifest.validation]
    return {
        "description": "CIE Lab planes and Inception-ResNet-v2 embeddings of images, as tf.train.Example in TFRecords",
        "format_version": naming.FORMAT_VERSION,
        "encoding": config.encoding,
        "image_size": config.image_size,
        "embedding_size": example_codec.EMBEDDING_SIZE if config.has_network else 0,
        "features": example_codec.describe_features(config.encoding, config.image_size, config.has_network),
        "counts": {**manifest.totals(), "failures_by_reason": manifest.reasons},
        "failures_by_stage": manifest.stages,
        **tallied,
        "repeated_content": [{**repeat._asdict(), "url": redact(repeat.url)} for repeat in repeated],
        **{name: {"name": options[name], "sha256": manifest.digests[name]} for name in DIGESTED},
        "options": options,
        "versions": _versions(),
        "files": [{"name": shard.name, "split": split, "examples": shard.records, "bytes": shard.bytes} for split, shard in shards],
        "transform": [
            {"name": name, "bytes": size} for name, size in sorted(any_path.list_files(config.output, TRANSFORM).items())
        ],
        "failure_files": [{"name": shard.name, "failures": shard.records, "bytes": shard.bytes} for shard in manifest.failures],
    }


def _sorted(shards: Iterable[Shard]) -> list[Shard]:
    return sorted(shards, key=lambda shard: shard.name)


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"beam_pipeline": beam_pipeline.__version__, "python": platform.python_version(), **versions}

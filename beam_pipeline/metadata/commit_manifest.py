"""The manifest of a run: its inputs, its outputs, and `dataset.json`, which lists them.

A run consists of commits (`launch/commits.py`). Each writes a record `commit-NNNNN.json` when it is
complete. The last one merges the records into `dataset.json`, which replaces them and ends the run.
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
from beam_pipeline.dataset_info import (
    FORMAT_VERSION,
    Counts,
    DatasetInfo,
    ExampleFile,
    FailureFile,
    InputFile,
    MetadataFile,
    NearDuplicates,
    RepeatedBody,
    TransformFile,
    from_fields,
)
from beam_pipeline.elements import OutcomeCount, Shard
from beam_pipeline.metadata import (
    croissant,
    dataset_card,
    generated_text,
    outcome_counts,
    repeated_content,
)
from beam_pipeline.metadata.outcome_counts import Outcomes
from beam_pipeline.metadata.repeated_content import Repeat
from beam_pipeline.naming import DATASET_INFO, SPLITS, TRANSFORM
from beam_pipeline.records import example_codec, filtered_sample
from beam_pipeline.redaction import redact
from beam_pipeline.storage import any_path, filesystem

# Options that name a file on which the content of the dataset depends.
DIGESTED = ("checkpoint", "exclude_sha256", "class_file", "validation_ids")
NO_DIGESTS: Mapping[str, str | None] = types.MappingProxyType(dict.fromkeys(DIGESTED))
_PACKAGES = ("apache-beam", "tensorflow", "tensorflow-transform", "pillow", "numpy", "scikit-image")


class CountMismatchError(Exception):
    """The counts of outputs do not match those of inputs, or too few images succeeded."""


@dataclasses.dataclass(frozen=True)
class CommitManifest:
    """The manifest of one commit.

    Attributes:
      counts: `lines`, `ignored`, `duplicates`, and `failures/STAGE/REASON` for each reason.
      train, validation, failures, metadata: The files that were written.
      is_last: Whether the commit ends the list.
      list_digest: Digest of the list up to here, so that a run is not resumed with another list.
      options: The options that determine the dataset.
      digests: The sha256 of the files that options name, by option, in hex; None for an option that
        names no file.
      near_duplicates: Numbers of near-duplicates in all commits, if this is the last one and they
        were searched.
    """

    counts: dict[str, int]
    train: list[Shard]
    validation: list[Shard]
    failures: list[Shard]
    metadata: list[Shard]
    is_last: bool
    list_digest: str
    options: dict[str, Any]
    digests: dict[str, str | None]
    near_duplicates: NearDuplicates | None = None

    @property
    def shards(self) -> list[Shard]:
        return [*self.train, *self.validation, *self.failures, *self.metadata]

    @property
    def index_names(self) -> list[str]:
        return naming.index_names(shard.name for shard in self.shards)

    @property
    def images(self) -> int:
        """Number of images of the list, duplicates included."""
        return self.counts.get("lines", 0) - self.counts.get("ignored", 0)

    @property
    def stages(self) -> dict[str, dict[str, int]]:
        """The number of failures by stage and reason."""
        stages: dict[str, dict[str, int]] = {}
        for key, number in sorted(self.counts.items()):
            kind, *names = key.split("/")
            if kind == "failures":
                stages.setdefault(names[0], {})[names[1]] = number
        return stages

    @property
    def reasons(self) -> dict[str, int]:
        """The number of failures by reason."""
        reasons: collections.Counter[str] = collections.Counter()
        for stage in self.stages.values():
            reasons.update(stage)
        return dict(sorted(reasons.items()))

    def totals(self) -> dict[str, int]:
        """Return the totals that `check_counts` compares."""
        return {
            **{key: self.counts.get(key, 0) for key in ("lines", "ignored", "duplicates")},
            "examples": sum(shard.records for shard in (*self.train, *self.validation)),
            "failures": sum(shard.records for shard in self.failures),
        }

    def check_counts(self) -> None:
        """Check that the counts add up.

        Raises:
          CountMismatchError: Unless lines = ignored + duplicates + examples + failures, every
            failure is in a file, and every example has a row of metadata.
        """
        totals = self.totals()
        accounted = sum(totals[key] for key in ("ignored", "duplicates", "examples", "failures"))
        rows = sum(shard.records for shard in self.metadata)
        if (totals["lines"], totals["failures"], totals["examples"]) != (
            accounted,
            sum(self.reasons.values()),
            rows,
        ):
            raise CountMismatchError(
                f"the counts do not add up, the dataset is not complete: {totals}, {self.reasons}, "
                f"{rows} rows of metadata"
            )


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
    metadata: Iterable[Shard],
    bodies: Iterable[Repeat],
    outcomes: Iterable[OutcomeCount],
    dropped: Iterable[tuple[str, list[filtered_sample.Line]]] = (),
    near_duplicates: Iterable[NearDuplicates] = (),
    unused_analyzed: Iterable[Any] = (),
) -> None:
    """Check the counts of a commit and write its record; after the last one, `dataset.json`.

    Call it when all other files of the commit are written.

    Raises:
      CountMismatchError: The counts do not add up; or as in `finish`.
    """
    options = config.dataset_options()
    shards = _sorted(train), _sorted(validation), _sorted(failures), _sorted(metadata)
    found = next(iter(near_duplicates), None)
    manifest = CommitManifest(
        dict(counts), *shards, is_last, list_digest, options, dict(digests), found
    )
    manifest.check_counts()
    path = FileSystems.join(config.output, f"{naming.COMMIT_PREFIX}{number:05}")
    repeated_content.write(path + naming.COMMIT_BODIES, bodies)
    outcome_counts.write(path + naming.COMMIT_OUTCOMES, outcomes)
    lines = [line for _, sample in dropped for line in sample]
    _write_sample(path + naming.COMMIT_FILTERED, lines)
    # If a record survives a loss of power, so must its shards.
    for shard in manifest.shards:
        filesystem.sync(FileSystems.join(config.output, shard.name))
    filesystem.write_bytes(
        path + naming.COMMIT_RECORD, json.dumps(dataclasses.asdict(manifest)).encode(), durable=True
    )
    for prefix in (naming.ROWS_PREFIX, naming.TICKS_PREFIX):
        filesystem.remove_folder(FileSystems.join(config.output, f"{prefix}{number:05}"))
    FileSystems.delete(
        list(filesystem.list_folder(config.output, f"{naming.LIST_PREFIX}{number:05}"))
    )
    if is_last:
        finish(config)


def read_commits(folder: str) -> list[CommitManifest]:
    """Return the records of the complete commits, in order.

    Raises:
      ValueError: A record is missing or broken.
    """
    paths = list(
        filesystem.list_folder(folder, f"{naming.COMMIT_PREFIX}[0-9]*{naming.COMMIT_RECORD}")
    )
    paths.sort(key=lambda path: (len(path), path))
    if [filesystem.base_name(path) for path in paths] != [
        f"{naming.COMMIT_PREFIX}{index:05}{naming.COMMIT_RECORD}" for index in range(len(paths))
    ]:
        raise ValueError("the record of a part is missing")
    return [from_fields(json.loads(filesystem.read_bytes(path)), CommitManifest) for path in paths]


def finish(config: Config) -> None:
    """Merge the commits and write `dataset.json`: if it exists, the dataset is complete.

    Raises:
      CountMismatchError: The merged counts do not add up, no image succeeded, or the share of
        failures exceeds `--max_failed_fraction`.
    """
    manifest = add_up(read_commits(config.output))
    manifest.check_counts()
    totals = manifest.totals()
    reasons = (
        ", ".join(f"{number} {reason}" for reason, number in manifest.reasons.items())
        or "no image was asked for"
    )
    if not totals["examples"]:
        raise CountMismatchError(
            f"no image succeeded: {reasons}; failures-*.jsonl list why; give --overwrite to retry"
        )
    if totals["failures"] > config.max_failed_fraction * (totals["failures"] + totals["examples"]):
        raise CountMismatchError(
            f"{totals['failures']} images failed and {totals['examples']} did not, "
            f"which is more than --max_failed_fraction {config.max_failed_fraction:g} allows: "
            f"{reasons}; raise it to accept them, or give --overwrite to retry"
        )
    repeated = repeated_content.most_repeated(_list_of_commits(config, naming.COMMIT_BODIES))
    outcomes = outcome_counts.add_up(_list_of_commits(config, naming.COMMIT_OUTCOMES))
    dropped = filtered_sample.merge_files(
        filesystem.read_bytes(path) for path in _list_of_commits(config, naming.COMMIT_FILTERED)
    )
    filtered = _write_sample(FileSystems.join(config.output, naming.FILTERED_SAMPLE), dropped)
    info = describe(config, manifest, repeated, outcomes, filtered)
    _write_descriptions(config, info)
    path = FileSystems.join(config.output, DATASET_INFO)
    filesystem.write_bytes(path, info.to_json().encode(), durable=True)
    for pattern in (naming.STARTED, f"{naming.COMMIT_PREFIX}[0-9]*"):
        FileSystems.delete(list(filesystem.list_folder(config.output, pattern)))


def _list_of_commits(config: Config, suffix: str) -> list[str]:
    """Return the files of all commits with a suffix, in order."""
    pattern = f"{naming.COMMIT_PREFIX}[0-9]*{suffix}"
    return sorted(filesystem.list_folder(config.output, pattern))


def _write_sample(path: str, dropped: Sequence[filtered_sample.Line]) -> list[FailureFile]:
    """Write a sample of filtered images, and return the file; none is written without images."""
    if not dropped:
        return []
    data = filtered_sample.serialize(dropped)
    filesystem.write_bytes(path, data, durable=True)
    return [FailureFile(filesystem.base_name(path), len(dropped), len(data))]


def add_up(commits: Sequence[CommitManifest]) -> CommitManifest:
    """Return the merged manifest of all commits."""
    counts: collections.Counter[str] = collections.Counter()
    for commit in commits:
        counts.update(commit.counts)
    train, validation, failures, metadata = (
        _sorted(shard for commit in commits for shard in getattr(commit, kind))
        for kind in ("train", "validation", "failures", "metadata")
    )
    last = commits[-1]
    return CommitManifest(
        dict(counts),
        train,
        validation,
        failures,
        metadata,
        last.is_last,
        last.list_digest,
        last.options,
        last.digests,
        last.near_duplicates,
    )


def describe(
    config: Config,
    manifest: CommitManifest,
    repeated: Iterable[Repeat],
    outcomes: Outcomes,
    filtered: list[FailureFile],
) -> DatasetInfo:
    """Return the content of `dataset.json`."""
    options = config.as_json()
    files = [InputFile(name=options[name], sha256=manifest.digests[name]) for name in DIGESTED]
    return DatasetInfo(
        description=_summarize(config),
        format_version=FORMAT_VERSION,
        encoding=config.encoding,
        compression=config.compression,
        image_size=config.image_size,
        embedding_size=example_codec.EMBEDDING_SIZE if config.has_network else 0,
        features=example_codec.describe_features(
            config.encoding,
            config.image_size,
            config.has_network,
            bool(config.kept_columns),
            config.measures,
        ),
        counts=Counts(
            **manifest.totals(), failures_by_reason=manifest.reasons, rescued=outcomes.rescued
        ),
        failures_by_stage=manifest.stages,
        classes=outcomes.classes,
        hosts=outcomes.hosts,
        other_hosts=outcomes.other_hosts,
        measures=outcomes.measures,
        near_duplicates=manifest.near_duplicates,
        repeated_content=[
            RepeatedBody(repeat.sha256, repeat.count, redact(repeat.url)) for repeat in repeated
        ],
        **dict(zip(DIGESTED, files, strict=True)),
        options=options,
        versions=_versions(),
        files=[
            ExampleFile(shard.name, split, shard.records, shard.bytes)
            for split in SPLITS
            for shard in getattr(manifest, split)
        ],
        transform=_list_statistics(config.output),
        failure_files=[
            FailureFile(shard.name, shard.records, shard.bytes) for shard in manifest.failures
        ],
        filtered_files=filtered,
        metadata_files=[
            MetadataFile(shard.name, shard.records, shard.bytes) for shard in manifest.metadata
        ],
    )


def _write_descriptions(config: Config, info: DatasetInfo) -> None:
    """Write the files that describe the dataset, unless a person has written or edited them."""
    for name, module in ((naming.CROISSANT, croissant), (naming.CARD, dataset_card)):
        path = FileSystems.join(config.output, name)
        if generated_text.is_replaceable(path):
            data = generated_text.sign(module.describe(info, config.kept_columns))
            filesystem.write_bytes(path, data, durable=True)


def _summarize(config: Config) -> str:
    """Return what the records hold, in a few words."""
    planes = "sRGB pixels" if config.encoding == "rgb_png" else "CIE Lab planes"
    embeddings = " and Inception-ResNet-v2 embeddings" if config.has_network else ""
    return f"{planes}{embeddings} of images, as tf.train.Example in TFRecords"


def _list_statistics(folder: str) -> list[TransformFile]:
    sizes = any_path.list_files(folder, TRANSFORM)
    if sizes:
        there = any_path.list_files(folder)
        sizes |= {name: there[name] for name in (naming.POINTS, naming.PRIOR) if name in there}
    return [TransformFile(name, size) for name, size in sorted(sizes.items())]


def _sorted(shards: Iterable[Shard]) -> list[Shard]:
    return sorted(shards, key=lambda shard: shard.name)


def _versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "beam_pipeline": beam_pipeline.__version__,
        "python": platform.python_version(),
        **versions,
    }

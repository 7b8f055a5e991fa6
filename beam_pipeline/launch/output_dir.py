"""Checks, prepares and clears the folders of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

import beam_pipeline
from beam_pipeline import naming
from beam_pipeline.config import Config, UsageError
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.fetching import http_urls, kept_images, public_addresses
from beam_pipeline.metadata import commit_manifest, generated_text
from beam_pipeline.naming import (
    FAILURES_PREFIX,
    METADATA_PREFIX,
    METRICS,
    REPORT,
    TRAIN_PREFIX,
    TRANSFORM,
    VALIDATION_PREFIX,
)
from beam_pipeline.redaction import redact
from beam_pipeline.reporting import class_names
from beam_pipeline.sources import listing
from beam_pipeline.sources import paths as input_paths
from beam_pipeline.storage import any_path, filesystem

_DIGITS = "[0-9]" * 5
_SHARDS = tuple(
    f"{prefix}*{_DIGITS}-of-{_DIGITS}{suffix}"
    for prefix, suffix in (
        (TRAIN_PREFIX, ".tfrecord*"),
        (VALIDATION_PREFIX, ".tfrecord*"),
        (FAILURES_PREFIX, ".jsonl"),
        (METADATA_PREFIX, ".parquet*"),
    )
)
_RECORDS = tuple(f"{naming.COMMIT_PREFIX}{_DIGITS}*.{kind}" for kind in ("json", "jsonl", "sums"))
# Temporary names of `filesystem.write_bytes`.
_UNFINISHED = tuple(
    f"{name}.{'[0-9a-f]' * 32}.tmp"
    for name in (
        naming.DATASET_INFO,
        METRICS,
        REPORT,
        naming.FILTERED_SAMPLE,
        naming.NEAR_DUPLICATES,
        naming.POINTS,
        naming.PRIOR,
        *naming.DESCRIPTIONS,
        naming.STARTED,
        f"{naming.COMMIT_PREFIX}{_DIGITS}*",
    )
)
# Temporary names of Beam.
_TEMPORARY = (
    *(
        f"beam-temp-{name}*{'[0-9a-f]' * 32}/**"
        for name in (TRAIN_PREFIX, VALIDATION_PREFIX, FAILURES_PREFIX)
    ),
    *(
        f"{prefix}{_DIGITS}/**"
        for prefix in (naming.ANALYSIS_PREFIX, naming.ROWS_PREFIX, naming.TICKS_PREFIX)
    ),
    f"{naming.LIST_PREFIX}{_DIGITS}*",
)
_MAX_CHECKED = 10  # images checked in a folder of kept images
_MAX_MARK = 1 << 20  # bytes

# Only these are removed: another program's folder may be called transform as well.
_STATISTICS_FILES = (
    *(
        f"{TRANSFORM}/{name}/**"
        for name in ("transform_fn", "transformed_metadata", "metadata", "transform_tmp")
    ),
    naming.POINTS,
    naming.PRIOR,
)


def check(config: Config) -> None:
    """Check the files and folders that options name, without writing anything.

    Raises:
      UsageError: a folder cannot be reached or created, the output folder contains the list itself,
        or an option names an object store whose client is not installed.
    """
    for name, value in vars(config).items():
        try:
            filesystem.check_client(str(value))
        except ValueError as error:
            raise UsageError(f"--{name} {error}") from error
    _check_fallback(config)
    _check_folders(config)
    _check_input_is_elsewhere(config)
    if config.class_names:
        try:
            class_names.read(config.class_names)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if config.has_statistics and FileSystems.get_scheme(config.output) not in (None, "gs"):
        raise UsageError(
            "--statistics needs a folder that TensorFlow can write, on a disk or gs://, not "
            f"{config.output}. Leave it out."
        )


def _check_fallback(config: Config) -> None:
    shown = f"--fallback_url {redact(config.fallback_url)}"
    try:
        host = http_urls.parse(config.fallback_url).host
    except http_urls.UrlError as error:
        raise UsageError(f"{shown}: {error}") from error
    if not (config.allow_private_addresses or public_addresses.may_be_public(host or "")):
        raise UsageError(
            f"{shown} is not a public address: give --allow_private_addresses as well, which "
            "allows them for all URLs of the list"
        )


def _check_folders(config: Config) -> None:
    if set(config.output) & set("*?["):
        raise UsageError(
            f"--output {config.output} has *, ? or [ in its name. Choose another folder."
        )
    folders = {
        name: folder
        for name in ("output", "original_dir", "resized_dir")
        if (folder := getattr(config, name))
    }
    for folder in folders.values():
        if any_path.is_local(folder):
            _check_local_folder(Path(folder))
    for (name, folder), (other, other_folder) in itertools.combinations(folders.items(), 2):
        if _is_same_folder(folder, other_folder):
            raise UsageError(
                f"--{other} {other_folder} is also the folder of --{name}, whose files would be "
                "replaced. Choose another folder."
            )
    for name in ("original_dir", "resized_dir"):
        if name in folders:
            _check_kept(name, folders[name])
    try:
        filesystem.list_folder(config.output)
    # The exceptions of object store clients have no common base class.
    except Exception as error:
        raise UsageError(f"--output {config.output} cannot be reached: {error}") from error


def _is_same_folder(one: str, other: str) -> bool:
    if any_path.is_local(one) and any_path.is_local(other):
        return os.path.realpath(one) == os.path.realpath(other)
    return one.rstrip("/") == other.rstrip("/")


def _check_kept(option: str, folder: str) -> None:
    """Raise UsageError if a local folder of originals contains resized images, or the reverse.

    Only the first images are checked.
    """
    if not any_path.is_local(folder) or not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        images = (entry for entry in entries if entry.name.endswith(".jpeg") and entry.is_file())
        for entry in itertools.islice(images, _MAX_CHECKED):
            with open(entry.path, "rb") as file:
                head = file.read(kept_images.NOTE_BYTES)
            # A power failure may have truncated a file.
            if len(head) < kept_images.NOTE_BYTES or kept_images.was_resized_by_run(head) == (
                option == "resized_dir"
            ):
                continue
            kind = (
                "which no run has resized" if option == "resized_dir" else "which a run has resized"
            )
            raise UsageError(
                f"--{option} {folder} contains {entry.name}, {kind}. Choose another folder, so "
                "that resized and original images are not mixed."
            )


INPUTS = ("input", "images", "validation_input", "validation_images", "fallback_images")
_PATHS = (*INPUTS, "class_file", "validation_ids", "output", "original_dir", "resized_dir")


def _parts(config: Config, name: str) -> list[str]:
    """Return the paths in an option; none if it is not given."""
    value = getattr(config, name)
    if not value or name not in INPUTS:
        return [value] if value else []
    return input_paths.split(f"--{name}", value)


def make_absolute(config: Config) -> Config:
    """Return the options with absolute local paths.

    Workers that other programs start have other working directories.
    """
    names = (
        *_PATHS,
        *(["checkpoint"] if config.has_network and config.checkpoint != "untrained" else []),
    )
    changes: dict[str, Any] = {
        name: ",".join(os.path.abspath(part) if any_path.is_local(part) else part for part in parts)
        for name in names
        if (parts := _parts(config, name))
    }
    return dataclasses.replace(config, **changes)


def refuse_local_files(config: Config) -> None:
    """Raise UsageError if an option names a local file, for workers that cannot reach it."""
    for name in _PATHS:
        for part in filter(any_path.is_local, _parts(config, name)):
            raise UsageError(
                f"--{name} {part} is on this machine, which Dataflow's workers cannot reach. "
                "Give a path on gs://."
            )


def _check_input_is_elsewhere(config: Config) -> None:
    for path in listing.list_files(config):
        folder, name = FileSystems.split(path)
        inside = FileSystems.join(folder, "") == FileSystems.join(config.output, "")
        if "://" not in path + config.output:
            inside = Path(folder).resolve() == Path(config.output).resolve()
        if inside and any(fnmatch.fnmatch(name, shard) for shard in _SHARDS):
            raise UsageError(
                f"--input {path} is one of the files that --output {config.output} would replace. "
                "Choose another --output."
            )


def _check_local_folder(folder: Path) -> None:
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(
            f"{folder} cannot be created, because {nearest} is a file. Choose another folder."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            f"{folder} cannot be written: no permission for {nearest}. Choose another folder."
        )


def prepare(config: Config, commits: Sequence[commit_manifest.CommitManifest]) -> None:
    """Create the folders, clear the output folder, and mark it as the output of a run.

    Clearing removes the files of earlier runs, except those of complete commits.

    Args:
      config: The options.
      commits: The complete commits to keep.

    Raises:
      UsageError: a folder cannot be created or cleared.
    """
    keep = {
        name
        for commit in commits
        for name in (*commit.index_names, *(shard.name for shard in commit.shards))
    }
    records: tuple[str, ...] = (
        ()
        if commits
        else (
            *(set(naming.DESCRIPTIONS) - set(find_edited(config.output))),
            naming.DATASET_INFO,
            METRICS,
            REPORT,
            naming.FILTERED_SAMPLE,
            naming.NEAR_DUPLICATES,
            *_STATISTICS_FILES,
            *_RECORDS,
        )
    )
    for option in ("output", "original_dir", "resized_dir"):
        folder = getattr(config, option)
        if folder is None:
            continue
        try:
            if option == "output":
                clear(folder, (*records, *_SHARDS, *_UNFINISHED), keep)
            elif not FileSystems.get_scheme(folder):  # object stores list complete files only
                clear(folder, (f"*.jpeg.{kept_images.temporary_mark(config)}*.tmp",))
            _make(folder)
            if option == "output":
                mark = {
                    "started_by": f"beam_pipeline {beam_pipeline.__version__}",
                    "options": config.as_json(),
                }
                filesystem.write_bytes(
                    any_path.join(folder, naming.STARTED), json.dumps(mark, indent=1).encode()
                )
        # The exceptions of object store clients have no common base class.
        except Exception as error:
            raise UsageError(f"--{option} {folder} cannot be used: {error}") from error


def find_edited(folder: str) -> list[str]:
    """Return the names of the descriptions that a person has written or edited."""
    return [
        name
        for name in naming.DESCRIPTIONS
        if not generated_text.is_replaceable(any_path.join(folder, name))
    ]


def was_begun_by_run(folder: str) -> bool:
    """Return whether the folder has the mark of a run in progress or interrupted."""
    path = any_path.join(folder, naming.STARTED)
    try:
        mark = json.loads(filesystem.read_bytes(path, _MAX_MARK)) if any_path.exists(path) else None
    except (OSError, ValueError, RecursionError, BeamIOError):
        return False
    return isinstance(mark, dict) and str(mark.get("started_by", "")).startswith("beam_pipeline ")


def find_unknown(config: Config) -> str | None:
    """Return the name of a file or folder in the output folder, None if it is empty.

    Hidden files, the lock, and what other options name do not count.
    """
    folder = config.output
    named = [value for value in vars(config).values() if isinstance(value, str)]
    if any_path.is_local(folder):
        paths: Iterable[str] = sorted(map(str, Path(folder).glob("*")))
    else:
        paths = filesystem.list_folder(folder, "**", limit=_MAX_CHECKED)
    for path in paths:
        name = path.removeprefix(any_path.join(folder, ""))
        is_ours = name == naming.LOCK or any(f"{value}/".startswith(f"{path}/") for value in named)
        if not (is_ours or name.startswith(".") or name == "lost+found"):
            return name
    return None


def _make(folder: str) -> None:
    if FileSystems.get_scheme(folder):
        # An object store has no folders, and checks permissions only on a write.
        probe = FileSystems.join(folder, f"{naming.DATASET_INFO}.{uuid.uuid4().hex}.tmp")
        filesystem.write_bytes(probe, b"\n")
        FileSystems.delete([probe])
    elif not FileSystems.exists(folder):
        FileSystems.mkdirs(folder)


def clear_strays(folder: str, info: DatasetInfo) -> None:
    """Remove stray files beside a complete dataset.

    They are left by a run that was stopped at its very end, or by attempts that an engine repeated.

    Args:
      folder: The folder of the dataset.
      info: The content of its `dataset.json`.
    """
    listed = {*info.file_sizes, *info.index_names}
    started = (naming.STARTED,) if was_begun_by_run(folder) else ()
    clear(folder, (*started, *_RECORDS, *_SHARDS, *_UNFINISHED), listed)


def clear(folder: str, patterns: Sequence[str], keep: Container[str] = ()) -> None:
    """Remove files and temporary files from a folder.

    Args:
      folder: A folder on any filesystem that Beam supports.
      patterns: Globs of the files to remove, in this order.
      keep: Names of files that are not removed.
    """
    patterns = (*patterns, *_TEMPORARY)
    for pattern in patterns:
        FileSystems.delete(
            [
                path
                for path in filesystem.list_folder(folder, pattern)
                if filesystem.base_name(path) not in keep
            ]
        )
    if FileSystems.get_scheme(folder) is None:
        # On a disk, empty folders remain.
        for pattern in patterns:
            for emptied in (
                Path(folder).glob(pattern.removesuffix("/**")) if pattern.endswith("/**") else ()
            ):
                shutil.rmtree(emptied)
        with contextlib.suppress(OSError):
            Path(folder, TRANSFORM).rmdir()

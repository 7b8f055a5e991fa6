"""The folders of a run: whether they may be written, what is in them, and clearing them."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import shutil
import uuid
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apache_beam.io.filesystems import FileSystems

from beam_pipeline import books, files, finished, labels, sources
from beam_pipeline.config import Config, UsageError
from beam_pipeline.finished import METRICS, REPORT, TRANSFORM
from beam_pipeline.sinks import FAILURES_PREFIX, TRAIN_PREFIX, VALIDATION_PREFIX

_SHARDS = (f"{TRAIN_PREFIX}-*.tfrecord*", f"{VALIDATION_PREFIX}-*.tfrecord*", f"{FAILURES_PREFIX}-*.jsonl")
_UNFINISHED = (f"{books.DESCRIPTION}.*.tmp", f"{METRICS}.*.tmp", f"{REPORT}.*.tmp", f"{books.COMMIT_PREFIX}[0-9]*.tmp")


# A stranger's folder may be called transform as well.
_LEARNT = tuple(f"{TRANSFORM}/{name}/**" for name in ("transform_fn", "transformed_metadata", "metadata", "transform_tmp"))


class Found(NamedTuple):
    """What the output folder holds of the dataset that is asked for: `dataset.json` if it is whole, or its whole commits."""

    finished: dict[str, Any] | None
    commits: list[books.Books]


def check(config: Config) -> Found:
    """Makes sure of the folders, without writing to them.

    Raises:
      UsageError: the output folder holds another dataset or the list itself, one of the folders cannot be reached or made, or
        an option names an object store whose client is not installed.
    """
    for name, value in vars(config).items():
        try:
            files.check_client(str(value))
        except ValueError as error:
            raise UsageError(f"--{name} {error}") from error
    if set(config.output) & set("*?["):
        raise UsageError(f"--output {config.output}: a folder with *, ? or [ in its name cannot be used")
    for folder in filter(None, (config.output, config.original_dir, config.resized_dir)):
        if "://" not in folder:
            _check_local_folder(Path(folder))
    try:
        files.list_folder(config.output)
    # What an object store's client raises is its own affair.
    except Exception as error:
        raise UsageError(f"--output {config.output} cannot be reached: {error}") from error
    _check_input_is_elsewhere(config)
    if config.labels:
        try:
            labels.read(config.labels)
        except (OSError, ValueError) as error:
            raise UsageError(f"--labels {error}") from error
    if config.has_statistics and FileSystems.get_scheme(config.output) not in (None, "gs"):
        raise UsageError(
            f"--statistics needs a folder that TensorFlow can write, on a disk or gs://, not {config.output}; leave it out"
        )
    try:
        whole, commits = finished.read_description(config.output), books.read_commits(config.output)
        made_with = whole["options"] if whole else commits[-1].options if commits else {}
    except (ValueError, TypeError, LookupError) as error:
        if config.overwrite:
            return Found(None, [])
        raise UsageError(f"--output {config.output} holds a broken {books.DESCRIPTION} or commit: {error}; remove it") from error
    for name in () if whole or commits else (METRICS, REPORT):
        if finished.exists(FileSystems.join(config.output, name)):
            raise UsageError(f"--output {config.output} holds {name} without a dataset: move it away, or choose another folder")
    if config.overwrite and (whole or (commits and commits[-1].is_last)):
        return Found(None, [])
    wanted = config.dataset_options()
    different = [name for name, value in wanted.items() if made_with and made_with.get(name) != value]
    if different and config.overwrite:
        return Found(None, [])
    if different:
        raise UsageError(
            f"--output {config.output} holds {'a dataset' if whole else 'the beginning of a dataset'} made with "
            f"--{different[0]} {made_with.get(different[0])}, not {wanted[different[0]]}; "
            "give --overwrite to replace it, or another folder"
        )
    return Found(whole, commits)


_PATHS = ("input", "images", "output", "original_dir", "resized_dir")


def make_absolute(config: Config) -> Config:
    """The options with whole paths: workers that other programs start have other working directories."""
    names = (*_PATHS, *(["checkpoint"] if config.has_network and config.checkpoint != "untrained" else []))
    paths = {name: value for name in names if (value := getattr(config, name)) and finished.is_local(value)}
    return dataclasses.replace(config, **{name: os.path.abspath(path) for name, path in paths.items()})


def refuse_local_files(config: Config) -> None:
    """Raises UsageError if an option names a file of this machine, for workers that cannot reach it."""
    for name in _PATHS:
        if (value := getattr(config, name)) and finished.is_local(value):
            raise UsageError(f"--{name} {value} lies on this machine, which Dataflow's workers cannot reach; put it on gs://")


def _check_input_is_elsewhere(config: Config) -> None:
    for path in sources.list_files(config):
        folder, name = FileSystems.split(path)
        inside = FileSystems.join(folder, "") == FileSystems.join(config.output, "")
        if "://" not in path + config.output:
            inside = Path(folder).resolve() == Path(config.output).resolve()
        if inside and any(fnmatch.fnmatch(name, shard) for shard in _SHARDS):
            raise UsageError(f"--input {path} is part of what --output {config.output} would replace; choose another --output")


def _check_local_folder(folder: Path) -> None:
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"{folder} cannot be a folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written: no permission for {nearest}")


def prepare(config: Config, commits: Sequence[books.Books]) -> None:
    """Makes the folders, and clears the output folder of what an earlier run left there, but for its whole commits.

    Raises:
      UsageError: a folder cannot be made or cleared.
    """
    keep = {shard.name for commit in commits for shard in commit.shards}
    records = () if commits else (books.DESCRIPTION, METRICS, REPORT, *_LEARNT, f"{books.COMMIT_PREFIX}[0-9]*")
    for option in ("output", "original_dir", "resized_dir"):
        folder = getattr(config, option)
        if folder is None:
            continue
        try:
            if option == "output":
                clear(folder, (*records, *_SHARDS, *_UNFINISHED), keep)
            elif not FileSystems.get_scheme(folder):  # object stores show no file that is not whole
                clear(folder, ("*.jpeg.*.tmp",))
            _make(folder)
        # What an object store's client raises is its own affair.
        except Exception as error:
            raise UsageError(f"--{option} {folder} cannot be used: {error}") from error


def _make(folder: str) -> None:
    if FileSystems.get_scheme(folder):
        # An object store has no folders, and tells only at writing what may be written.
        probe = FileSystems.join(folder, f"{books.DESCRIPTION}.{uuid.uuid4().hex}.tmp")
        files.write_bytes(probe, b"may this be written?")
        FileSystems.delete([probe])
    elif not FileSystems.exists(folder):
        FileSystems.mkdirs(folder)


def clear_strays(folder: str, description: dict[str, Any]) -> None:
    """Removes what a run that was stopped at its very end, or attempts that an engine repeated, left beside a whole dataset."""
    listed = {file["name"] for file in (*description["files"], *description["failure_files"])}
    clear(folder, (f"{books.COMMIT_PREFIX}[0-9]*", *_SHARDS, *_UNFINISHED), listed)


def clear(folder: str, patterns: Sequence[str], keep: Container[str] = ()) -> None:
    """Removes the files of some patterns, in that order, and temporary ones; but not those whose names are in `keep`."""
    patterns = (*patterns, "beam-temp-*/**")
    for pattern in patterns:
        FileSystems.delete([path for path in files.list_folder(folder, pattern) if files.base_name(path) not in keep])
    if FileSystems.get_scheme(folder) is None:
        # What is left of them is empty.
        for pattern in patterns:
            for emptied in Path(folder).glob(pattern.removesuffix("/**")) if pattern.endswith("/**") else ():
                shutil.rmtree(emptied)
        with contextlib.suppress(OSError):
            Path(folder, TRANSFORM).rmdir()

"""Finds what the output folder already holds.

That is the requested dataset, the first commits of it, another dataset, or nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from apache_beam.io.filesystem import BeamIOError

from beam_pipeline import naming
from beam_pipeline.config import Config, UsageError
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.launch import output_dir
from beam_pipeline.metadata import commit_manifest
from beam_pipeline.reading import dataset_dir
from beam_pipeline.storage import filesystem

# Options that name a file, or a server, which determines the content of the dataset.
_FILES = {*commit_manifest.DIGESTED, "fallback_url"}
# Options that a config without a list of URLs does not have.
_OF_LISTS = {"fallback", "fallback_url"}


class ExistingOutput(NamedTuple):
    """The dataset in the output folder.

    Attributes:
      info: The description of the dataset if it is complete; None otherwise.
      commits: The records of the complete commits, if the dataset is incomplete.
    """

    info: DatasetInfo | None = None
    commits: Sequence[commit_manifest.CommitManifest] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The options that the dataset was made with; empty if there is no dataset."""
        return self.info.options if self.info else self.commits[-1].options if self.commits else {}

    @property
    def digests(self) -> dict[str, str | None]:
        """The sha256 of the files that options name, in hex; empty if there is no dataset."""
        if self.info:
            return {name: getattr(self.info, name).sha256 for name in commit_manifest.DIGESTED}
        return self.commits[-1].digests if self.commits else {}


def adopt_options(config: Config, given: Collection[str]) -> Config:
    """Replace the options that were not given by those of the dataset in the output folder.

    So a default, which may depend on other options, never prevents a run from being resumed. With
    `--overwrite`, nothing is replaced.

    Args:
      config: The options.
      given: Names of the options that the user gave.

    Returns:
      The new options.

    Raises:
      UsageError: the dataset's record is broken, or names a file that only the user may name.
    """
    if config.overwrite:
        return config
    existing = _read(config)
    made_with = existing.options
    names = (set(config.dataset_options()) & set(made_with)) - {*output_dir.INPUTS, *given}
    if not (config.input or config.validation_input):
        names -= _OF_LISTS
    for name in _FILES & names if not existing.info else ():
        value = made_with[name]
        # A record is untrusted, and holds no credentials.
        if value not in (getattr(config, name), "untrained", "none"):
            raise UsageError(
                f"--output {config.output} was begun with --{name} {value}: give that option again"
            )
    if existing.info:
        # A complete dataset needs none of its input files.
        names -= _FILES
    try:
        return dataclasses.replace(config, **{name: made_with[name] for name in names})
    except (UsageError, TypeError) as error:
        raise _broken(config, error) from error


def find(
    config: Config, given: Collection[str], digests: Mapping[str, str | None]
) -> ExistingOutput:
    """Find the requested dataset, or its first commits, in the output folder.

    Args:
      config: The options.
      given: Names of the options that the user gave.
      digests: The sha256 of files that options name, in hex, as far as they are known.

    Returns:
      The output that the run need not make again; empty if `--overwrite` replaces it.

    Raises:
      UsageError: the folder holds another dataset, or files that no run has written.
    """
    found = _read(config)
    if not found.options:
        if not config.overwrite:
            _check_is_ours(config)
        return ExistingOutput()
    if config.overwrite and (found.info or found.commits[-1].is_last):
        return ExistingOutput()
    difference = _find_difference(config, given, digests, found)
    if difference and config.overwrite:
        return ExistingOutput()
    if difference:
        kind = "a dataset" if found.info else "the beginning of a dataset"
        raise UsageError(
            f"--output {config.output} holds {kind} {difference}; give --overwrite to replace it, "
            "or another folder"
        )
    return found


def _read(config: Config) -> ExistingOutput:
    try:
        found = ExistingOutput(
            dataset_dir.read_info(config.output), commit_manifest.read_commits(config.output)
        )
        is_without_examples = not any((*part.train, *part.validation) for part in found.commits)
        if found.commits and found.commits[-1].is_last and is_without_examples:
            # No image succeeded: there is nothing to resume, and the next command may be corrected.
            return ExistingOutput()
        info = found.info
        if info and info.counts.examples != sum(file.examples for file in info.files):
            raise ValueError("its files hold another number of examples than its counts")
    # A folder or a pipe may be in the place of a file.
    except (ValueError, RecursionError, OSError, BeamIOError) as error:
        if config.overwrite:
            return ExistingOutput()
        raise _broken(config, error) from error
    return found


def _broken(config: Config, error: Exception) -> UsageError:
    return UsageError(
        f"--output {config.output} holds a broken {naming.DATASET_INFO} or file of a part: "
        f"{error}; remove it"
    )


def _find_difference(
    config: Config, given: Collection[str], digests: Mapping[str, str | None], found: ExistingOutput
) -> str | None:
    """Describe how a dataset differs from the requested one; return None if it does not."""
    # For a complete dataset, only files that the user has named are compared.
    compared = [
        name
        for name in config.dataset_options()
        if not (found.info and name in _FILES and name not in given)
    ]
    for name in compared:
        if name in digests:
            if found.digests.get(name) != digests[name]:
                return f"made with another --{name}, or with one whose content has changed since"
        elif found.options.get(name) != config.dataset_options()[name]:
            was, wanted = found.options.get(name), config.dataset_options()[name]
            if was is None:
                return f"made without --{name}, not with {wanted}"
            return f"made with --{name} {was}, not {'without it' if wanted is None else wanted}"
    if found.commits and not found.info:
        sizes = {
            filesystem.base_name(path): size
            for path, size in filesystem.list_folder(config.output).items()
        }
        for commit in found.commits:
            for shard in commit.shards:
                if shard.name in sizes and sizes[shard.name] != shard.bytes:
                    return f"whose file {shard.name} is damaged"
            for name in (*(shard.name for shard in commit.shards), *commit.index_names):
                if name not in sizes:
                    return f"whose file {name} is missing"
    return None


def _check_is_ours(config: Config) -> None:
    """Raise UsageError if the output folder holds files that no run has written."""
    if output_dir.was_begun_by_run(config.output):
        return
    if name := output_dir.find_unknown(config):
        raise UsageError(
            f"--output {config.output} contains {name}, which no run has written: choose an empty "
            "or new folder, or give --overwrite, which replaces files with the names of a dataset "
            "and leaves all others"
        )

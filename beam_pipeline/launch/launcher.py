"""Checks the options, runs the graph commit by commit, and reports the result."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import gc
import hashlib
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_pipeline import naming, pipeline
from beam_pipeline.config import (
    URLS_PER_COMMIT,
    URLS_PER_COMMIT_WITHOUT_NETWORK,
    Config,
    UsageError,
)
from beam_pipeline.elements import WHOLE_LIST
from beam_pipeline.embedding import checkpoints
from beam_pipeline.fetching import image_fetcher
from beam_pipeline.launch import commits, existing_output, folder_lock, output_dir, runner_options
from beam_pipeline.launch.commits import ListChangedError
from beam_pipeline.launch.progress import ProgressLine
from beam_pipeline.metadata import commit_manifest, worker_metrics
from beam_pipeline.metadata.commit_manifest import CommitManifest
from beam_pipeline.process import signals
from beam_pipeline.process.console import complain, write_line
from beam_pipeline.reading import dataset_dir
from beam_pipeline.redaction import redact
from beam_pipeline.sources import url_list
from beam_pipeline.storage import any_path
from beam_pipeline.transforms.ticks import Ticks


def run(config: Config, given: Collection[str], beam_argv: Sequence[str]) -> int:
    """Check the options, make the dataset, and print a summary.

    Args:
      config: The options.
      given: Names of the options that the user gave.
      beam_argv: The arguments for Beam.

    Returns:
      The exit status: 0 done, 1 the job failed.

    Raises:
      UsageError: the options, the input or the output folder are not usable.
    """
    config = dataclasses.replace(config, output=config.output.rstrip("/") or "/")
    beam_options = runner_options.parse_options(beam_argv)
    if not runner_options.is_in_this_process(beam_options):
        config = output_dir.make_absolute(config)
    if not runner_options.reaches_local_files(beam_options):
        output_dir.refuse_local_files(config)
    if not (runner_options.is_in_this_process(beam_options) or config.urls_per_commit):
        url_list.refuse_pipe(config)
    if config.report and not runner_options.waits_for_job(beam_options):
        raise UsageError(
            "--report needs a command that waits for the job: leave it out, and give "
            "python -m beam_pipeline.report later"
        )
    output_dir.check(config)
    with folder_lock.hold(config.output, beam_options):
        return run_locked(config, given, beam_options)


def run_locked(config: Config, given: Collection[str], beam_options: PipelineOptions) -> int:
    """Make the dataset as `run` does, while this process holds the lock of the output folder."""
    config = existing_output.adopt_options(config, given)
    excluded = (
        url_list.read_digests(config.exclude_sha256) if config.exclude_sha256 else frozenset()
    )
    digests = {
        **commit_manifest.NO_DIGESTS,
        "exclude_sha256": _digest(excluded) if excluded else None,
    }
    existing = existing_output.find(config, given, {"exclude_sha256": digests["exclude_sha256"]})
    if existing.finished:
        write_line(f"{config.output} is complete; --overwrite makes it again")
        finish(config, beam_options, existing.finished)
        return 0
    url_list.check_readable(config)
    if config.has_network:
        digests["checkpoint"] = checkpoints.verify(config.checkpoint, config.checkpoint_sha256)
    if existing.commits:
        existing = existing_output.find(config, given, digests)
    output_dir.prepare(config, existing.commits)
    if existing.commits:
        images = sum(
            commit.counts.get("lines", 0) - commit.counts.get("ignored", 0)
            for commit in existing.commits
        )
        write_line(f"resuming after {images:,} images in {config.output}")

    job = Job(config, beam_options, digests, excluded)
    try:
        if runner_options.is_in_this_process(beam_options):
            # Keeps the main thread free to handle signals; a call of the network takes seconds.
            with concurrent.futures.ThreadPoolExecutor(1, "run") as executor:
                executor.submit(make_dataset, job, existing.commits).result()
        else:
            if runner_options.job_outlives_command(beam_options):
                signals.end_on_signals(
                    "Interrupted. The job may still run; wait for its end before you give the same "
                    "command again."
                )
            make_dataset(job, existing.commits)
            if not runner_options.waits_for_job(beam_options):
                write_line(
                    f"the job is on its way; when it is done, {config.output} holds "
                    f"{naming.DESCRIPTION}"
                )
                return 0
        description = dataset_dir.read_description(config.output)
    except UsageError:
        raise
    except Exception as error:
        if config.verbose:
            sys.stderr.write(redact(traceback.format_exc()))
        return complain(explain(error), 1)
    if description is None:
        return complain(f"the job has ended without {config.output}/{naming.DESCRIPTION}", 1)
    finish(config, beam_options, description)
    return 0


class Job(NamedTuple):
    """The inputs that all runs of the graph share.

    Attributes:
      config: The options.
      beam_options: Beam's options.
      digests: The sha256 of the files that options name, in hex.
      excluded: The sha256 of bodies that are not photographs, in hex.
    """

    config: Config
    beam_options: PipelineOptions
    digests: Mapping[str, str | None]
    excluded: frozenset[str]


def finish(config: Config, beam_options: PipelineOptions, description: dict[str, Any]) -> None:
    """Print a summary of a run, and write the report if it is requested.

    Errors of the report are reported and never invalidate the dataset.
    """
    output_dir.clear_strays(config.output, description)
    write_line(summarize(description, config.output))
    is_there = any_path.exists(any_path.join(config.output, naming.REPORT))
    if config.report is False or (
        config.report is None and (is_there or not runner_options.is_in_this_process(beam_options))
    ):
        return
    # The charts' library takes 26 MB, which a run does not need before its end.
    from beam_pipeline.reporting import page

    try:
        write_line(f"{page.write(config.output, config.class_names)}: what came of it, to look at")
    except Exception as error:
        complain(f"{config.output} has no report: {error}", 0)


def make_dataset(job: Job, done: Sequence[CommitManifest]) -> None:
    """Run the graph for the commits that are not done yet.

    If the list has changed and `--overwrite` is given, run it for the complete list.
    """
    try:
        run_commits(job, done)
    except ListChangedError:
        if not job.config.overwrite:
            raise
        output_dir.prepare(job.config, [])
        run_commits(job, [])


def run_commits(job: Job, done: Sequence[CommitManifest]) -> None:
    """Run the graph once for each commit that is not done yet, or once for the complete list.

    A run in this process, or one with `--urls_per_commit`, uses commits.
    """
    config, beam_options = job.config, job.beam_options
    if done and done[-1].is_last:
        commit_manifest.finish(config)
        return
    is_local, name = (
        runner_options.is_in_this_process(beam_options),
        runner_options.name_of(beam_options),
    )
    size = config.urls_per_commit
    if size is None and is_local:
        size = URLS_PER_COMMIT if config.has_network else URLS_PER_COMMIT_WITHOUT_NETWORK
        size *= runner_options.count_workers(beam_options)
    if done and not size:
        raise UsageError(
            f"--output {config.output} holds the first commits of a dataset: go on with the "
            "DirectRunner or --urls_per_commit, or remove them"
        )
    if size and not runner_options.waits_for_job(beam_options):
        raise UsageError(
            "--urls_per_commit needs a command that waits for each commit's job: leave it out"
        )
    with (
        tempfile.NamedTemporaryFile(prefix="ticks-") as file,
        ProgressLine(file.name, sys.stderr) as progress,
    ):
        # A reference here keeps the state of hosts across commits.
        fetcher = image_fetcher.shared_fetcher(config) if is_local else None
        if is_local and sys.stderr.isatty():
            threading.Thread(
                target=_count_images, args=(config, done, progress), daemon=True
            ).start()
        for commit in commits.plan(config, size, done) if size else [WHOLE_LIST]:
            # A portable runner removes its name from the options.
            beam_options.view_as(StandardOptions).runner = name
            graph = beam.Pipeline(
                runner=runner_options.make_runner(beam_options), options=beam_options
            )
            ticks = Ticks(file.name) if is_local and sys.stderr.isatty() else None
            pipeline.build(graph, config, commit, job.digests, job.excluded, ticks)
            began = time.monotonic()
            result = graph.run()
            if page := runner_options.job_page(result, beam_options):
                write_line(page)
            if runner_options.waits_for_job(beam_options):
                result.wait_until_finish()
                keep_metrics(config.output, result, time.monotonic() - began)
            # A graph that has run has reference cycles, which hold files and memory that the next
            # one needs.
            del graph
            gc.collect()
        if fetcher:
            fetcher.close()


def keep_metrics(folder: str, result: Any, seconds: float) -> None:
    """Save the metrics of workers. Errors are reported and never invalidate the dataset."""
    try:
        worker_metrics.add(folder, result, seconds)
    # The exceptions of engines for their metrics have no common base class.
    except Exception as error:
        complain(f"what the workers have counted is not kept: {error}", 0)


def summarize(description: dict[str, Any], folder: str) -> str:
    """Return a summary of a dataset in a few lines for a person."""
    counts = description["counts"]
    splits = [file["split"] for file in description["files"]]
    noun = "images" if description["options"]["images"] else "lines"
    lines = [
        f"{counts['lines']:,} {noun}: {counts['ignored']:,} ignored, "
        f"{counts['duplicates']:,} duplicates, "
        f"{counts['examples']:,} examples, {counts['failures']:,} failures"
    ]
    lines += [
        f"  {number:>9,} {reason}"
        for reason, number in sorted(counts["failures_by_reason"].items(), key=lambda x: -x[1])
    ]
    lines.append(
        f"{folder}: {splits.count('train')} training and {splits.count('validation')} "
        "validation shards"
    )
    return "\n".join(lines)


def _count_images(config: Config, done: Sequence[CommitManifest], progress: ProgressLine) -> None:
    with contextlib.suppress(UsageError):
        images = sum(1 for _ in url_list.read_refs(config, collections.Counter()))
        progress.total = images - sum(
            manifest.counts.get("lines", 0) - manifest.counts.get("ignored", 0) for manifest in done
        )


def _digest(digests: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def explain(error: Exception) -> str:
    """Return the cause of a job's failure in one line.

    The text of Beam's errors contains the complete traceback of the worker.
    """
    summary = re.sub(
        r" \[while running '.*?'\]$",
        "",
        runner_options.last_line(str(error)) or type(error).__name__,
    )
    own = re.fullmatch(r"(?:beam_pipeline\.[\w.]+): (.*)", summary)
    return own[1] if own else f"the job failed: {summary}"

"""Checks the options, runs the graph commit by commit, and reports the result."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import re
import sys
import traceback
from collections.abc import Collection, Sequence

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_pipeline import naming
from beam_pipeline.config import (
    Config,
    UsageError,
)
from beam_pipeline.dataset_info import DatasetInfo
from beam_pipeline.embedding import checkpoints
from beam_pipeline.launch import execution, existing_output, folder_lock, output_dir, runner_options
from beam_pipeline.metadata import commit_manifest
from beam_pipeline.process import signals
from beam_pipeline.process.console import complain, write_line
from beam_pipeline.process.plurals import count
from beam_pipeline.reading import dataset_dir
from beam_pipeline.redaction import redact
from beam_pipeline.sources import id_files, listing
from beam_pipeline.storage import any_path

JOB_LIVES_ON = (
    "Interrupted. The job may still run; wait for its end before you run the same command again."
)


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
    beam_options = runner_options.parse_options(beam_argv, runner_options.choose_processes(config))
    if not runner_options.is_in_this_process(beam_options):
        config = output_dir.make_absolute(config)
    if not runner_options.reaches_local_files(beam_options):
        output_dir.refuse_local_files(config)
    if not (config.parts or runner_options.waits_for_job(beam_options)):
        listing.refuse_pipe(config)
    if config.parts and not runner_options.makes_template(beam_options):
        raise UsageError(
            "--parts is for the launcher of a Flex Template, which gives --template_location: "
            "leave it out"
        )
    if config.parts and beam_options.view_as(StandardOptions).no_wait_until_finish:
        raise UsageError(
            "--parts needs a launcher that waits for the job of each part: leave out "
            "--no_wait_until_finish"
        )
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
        id_files.read_digests(config.exclude_sha256) if config.exclude_sha256 else frozenset()
    )
    known = {
        "exclude_sha256": _digest(excluded) if excluded else None,
        **{name: id_files.read_digest(config, name) for name in ("class_file", "validation_ids")},
    }
    digests = {**commit_manifest.NO_DIGESTS, **known}
    existing = existing_output.find(config, given, known)
    if existing.info:
        write_line(f"{config.output} is complete; give --overwrite to make it again")
        finish(config, beam_options, existing.info)
        return 0
    listing.check_readable(config)
    if config.has_network:
        digests["checkpoint"] = checkpoints.verify(config.checkpoint, config.checkpoint_sha256)
    if existing.commits:
        existing = existing_output.find(config, given, digests)
    was_begun = output_dir.was_begun_by_run(config.output)
    output_dir.prepare(config, existing.commits)
    if was_begun and not existing.commits:
        write_line(f"no part is complete in {config.output}: starting with the first image")
    if existing.commits:
        images = sum(commit.images for commit in existing.commits)
        write_line(f"resuming after {count(images, 'image')} in {config.output}")

    job = execution.Job(config, beam_options, digests, excluded)
    try:
        if runner_options.is_in_this_process(beam_options):
            # Keeps the main thread free to handle signals; a call of the network takes seconds.
            with concurrent.futures.ThreadPoolExecutor(1, "run") as executor:
                executor.submit(execution.make_dataset, job, existing.commits).result()
        else:
            with contextlib.ExitStack() as stack:
                if runner_options.job_outlives_command(beam_options):
                    stack.enter_context(signals.describing_interruption(lambda: JOB_LIVES_ON))
                execution.make_dataset(job, existing.commits)
            if not runner_options.waits_for_job(beam_options):
                write_line(
                    f"The job is submitted. When it is done, {config.output} contains "
                    f"{naming.DATASET_INFO}."
                )
                return 0
        info = dataset_dir.read_info(config.output)
    except UsageError:
        raise
    except Exception as error:
        if config.verbose:
            sys.stderr.write(redact(traceback.format_exc()))
        return complain(explain(error), 1)
    if info is None:
        return complain(f"the job has ended without {config.output}/{naming.DATASET_INFO}", 1)
    for name in output_dir.find_edited(config.output):
        write_line(
            f"{name} is kept, because a person has written or edited it: check that it describes "
            "this dataset"
        )
    finish(config, beam_options, info)
    return 0


def finish(config: Config, beam_options: PipelineOptions, info: DatasetInfo) -> None:
    """Print a summary of a run, and write the report if it is requested.

    Errors of the report are reported and never invalidate the dataset.
    """
    output_dir.clear_strays(config.output, info)
    write_line(summarize(info, config.output))
    is_there = any_path.exists(any_path.join(config.output, naming.REPORT))
    if config.report is False or (
        config.report is None and (is_there or not runner_options.is_in_this_process(beam_options))
    ):
        return
    # The charts' library takes 26 MB, which a run does not need before its end.
    from beam_pipeline.reporting import page

    try:
        write_line(f"report: {page.write(config.output, config.class_names)}")
    except Exception as error:
        complain(f"{config.output} has no report: {error}", 0)


def summarize(info: DatasetInfo, folder: str) -> str:
    """Return a summary of a dataset in a few lines for a person."""
    counts = info.counts
    splits = [file.split for file in info.files]
    noun = "image" if info.options["images"] else "line"
    rescued = f" ({counts.rescued:,} rescued by a fallback)" if counts.rescued else ""
    lines = [
        f"{count(counts.lines, noun)}: {counts.ignored:,} ignored, "
        f"{count(counts.duplicates, 'duplicate')}, {count(counts.examples, 'example')}{rescued}, "
        f"{count(counts.failures, 'failure')}"
    ]
    lines += [
        f"  {number:>9,} {reason}"
        for reason, number in sorted(counts.failures_by_reason.items(), key=lambda x: -x[1])
    ]
    lines.append(
        f"{folder}: {splits.count('train'):,} training and "
        f"{count(splits.count('validation'), 'validation shard')}"
    )
    if info.near_duplicates:
        lines.append(info.near_duplicates.describe())
    return "\n".join(lines)


def _digest(digests: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def explain(error: Exception) -> str:
    """Return the cause of a job's failure in one line.

    The text of Beam's errors contains the complete traceback of the worker.
    """
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return (
            f"the job server or the engine does not answer: {error.code().name}, {error.details()}"
        )
    summary = re.sub(
        r" \[while running '.*?'\]$",
        "",
        runner_options.last_line(str(error)) or type(error).__name__,
    )
    own = re.fullmatch(r"(?:beam_pipeline\.[\w.]+): (.*)", summary)
    return own[1] if own else f"the job failed: {summary}"

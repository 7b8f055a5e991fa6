"""Checks the options of an export, runs its graph, and reports the result."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline import naming
from beam_pipeline.config import UsageError
from beam_pipeline.exporting import array_record_shards, graph, output_folder
from beam_pipeline.exporting.export_options import ExportError, ExportOptions
from beam_pipeline.launch import execution, folder_lock, launcher, runner_options
from beam_pipeline.launch.progress import Progress
from beam_pipeline.process import signals
from beam_pipeline.process.console import complain, write_line
from beam_pipeline.process.plurals import count
from beam_pipeline.reading import export_info
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.redaction import redact
from beam_pipeline.storage import any_path, filesystem
from beam_pipeline.transforms.ticks import TickFile, Ticks


def run(options: ExportOptions, overwrite: bool, verbose: bool, beam_argv: Sequence[str]) -> int:
    """Check the options, export the dataset, and print a summary.

    Args:
      options: The options of the export.
      overwrite: Whether to replace an earlier export.
      verbose: Whether to print the traceback of a failure.
      beam_argv: The arguments for Beam.

    Returns:
      The exit status: 0 done, 1 the job failed.

    Raises:
      UsageError: The options, the dataset or the output folder are not usable.
    """
    options = dataclasses.replace(options, output=options.output.rstrip("/") or "/")
    beam_options = runner_options.parse_options(beam_argv)
    if not runner_options.is_in_this_process(beam_options):
        options = _make_absolute(options)
    if not runner_options.reaches_local_files(beam_options):
        refuse_local_folders(options)
    folder = _check(options)
    with folder_lock.hold(options.output, beam_options):
        output_folder.prepare(options.output, overwrite)
        try:
            _run_graph(options, folder, beam_options)
            if not runner_options.waits_for_job(beam_options):
                write_line(
                    f"The job is submitted. When it is done, {options.output} contains "
                    f"{naming.EXPORT_INFO}."
                )
                return 0
            info = export_info.read(options.output)
        except UsageError:
            raise
        except Exception as error:
            if verbose:
                sys.stderr.write(redact(traceback.format_exc()))
            return complain(launcher.explain(error), 1)
        if info is None:
            path = any_path.join(options.output, naming.EXPORT_INFO)
            return complain(f"the job has ended without {path}", 1)
        output_folder.remove_temporary(options.output)
    numbers = dict.fromkeys(naming.SPLITS, 0)
    for file in info.files:
        numbers[file.split] += file.examples
    write_line(
        f"{options.output}: {numbers['train']:,} examples for training and "
        f"{numbers['validation']:,} for validation in {count(len(info.files), 'shard')}"
    )
    return 0


def _make_absolute(options: ExportOptions) -> ExportOptions:
    """Return the options with absolute local paths, for workers in other working directories."""
    paths = {
        name: os.path.abspath(path)
        for name in ("dataset", "output")
        if any_path.is_local(path := getattr(options, name))
    }
    return dataclasses.replace(options, **paths)


def refuse_local_folders(options: ExportOptions) -> None:
    """Raise UsageError if a folder is local, for workers that cannot reach it."""
    for path in filter(any_path.is_local, (options.dataset, options.output)):
        raise UsageError(
            f"{path} is on this machine, which Dataflow's workers cannot reach. Give a path on "
            "gs://."
        )


def _check(options: ExportOptions) -> DatasetDir:
    """Check the options without writing anything; return the dataset.

    Raises:
      UsageError: The dataset is missing or broken, the output folder has an unusable name, or a
        library is not installed.
    """
    if set(options.output) & set("*?["):
        raise UsageError(
            f"--output {options.output} has *, ? or [ in its name. Choose another folder."
        )
    try:
        filesystem.check_client(options.output)
        if options.to == "array_record":
            array_record_shards.check_installed()
        folder = options.open_dataset()
        graph.check_sizes(folder)
    except (ExportError, *filesystem.READ_ERRORS) as error:
        raise UsageError(str(error)) from error
    return folder


def _run_graph(options: ExportOptions, folder: DatasetDir, beam_options: PipelineOptions) -> None:
    with contextlib.ExitStack() as stack:
        if not runner_options.is_in_this_process(beam_options):
            if runner_options.job_outlives_command(beam_options):
                stack.enter_context(signals.describing_interruption(lambda: launcher.JOB_LIVES_ON))
            _submit(options, beam_options, runner_options.make_runner(beam_options))
            return
        file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="ticks-"))
        ticks = TickFile(file.name)
        progress = stack.enter_context(Progress(ticks, sys.stderr))
        progress.total = sum(shard.kept for shard in folder.shards(*naming.SPLITS))
        pool = stack.enter_context(execution.make_pool(beam_options))
        runner = pool.make_runner() if pool else runner_options.make_runner(beam_options)
        # Keeps the main thread free to handle signals.
        executor = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "export"))
        executor.submit(_submit, options, beam_options, runner, ticks).result()


def _submit(
    options: ExportOptions,
    beam_options: PipelineOptions,
    runner: Any,
    ticks: Ticks | None = None,
) -> None:
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    graph.build(pipeline, options, ticks)
    result = pipeline.run()
    if page := runner_options.job_page(result, beam_options):
        write_line(page)
    if runner_options.waits_for_job(beam_options):
        result.wait_until_finish()

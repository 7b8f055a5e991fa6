"""Runs the graph, once for each commit or once for the complete list."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_pipeline import naming, pipeline
from beam_pipeline.config import ENGINE_PART, Config, UsageError
from beam_pipeline.elements import WHOLE_LIST, Commit, ListFile
from beam_pipeline.fetching import image_fetcher
from beam_pipeline.launch import commits, output_dir, runner_options
from beam_pipeline.launch.commits import ListChangedError, PartSize
from beam_pipeline.launch.progress import Progress
from beam_pipeline.launch.worker_pool import WorkerPool
from beam_pipeline.metadata import commit_manifest, worker_metrics
from beam_pipeline.metadata.commit_manifest import CommitManifest
from beam_pipeline.process import signals
from beam_pipeline.process.console import complain, write_line
from beam_pipeline.process.plurals import count
from beam_pipeline.sources import listing, part_list
from beam_pipeline.storage import any_path
from beam_pipeline.transforms.ticks import WRITE_INTERVAL, TickFile, TickFolder, Ticks


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


def make_dataset(job: Job, done: Sequence[CommitManifest]) -> None:
    """Run the graph for the commits that are not done yet.

    If the list has changed and `--overwrite` is given, run it for the complete list.
    """
    try:
        _run_rest(job, done)
    except ListChangedError:
        if not job.config.overwrite:
            raise
        output_dir.prepare(job.config, [])
        _run_rest(job, [])


def _run_rest(job: Job, done: Sequence[CommitManifest]) -> None:
    config = job.config
    is_local = runner_options.is_in_this_process(job.beam_options)
    if done and done[-1].is_last:
        commit_manifest.finish(config)
        return
    if is_local:
        _run_here(job, done)
    elif config.parts or runner_options.waits_for_job(job.beam_options):
        _run_jobs(job, done)
    elif done:
        raise UsageError(
            f"--output {config.output} holds the first parts of a dataset: resume with a command "
            "that waits for its jobs, or with a template and --parts; or remove them"
        )
    elif config.urls_per_commit:
        raise UsageError(
            "--urls_per_commit needs a command that waits for the job of each part, or a template "
            "and --parts: leave it out"
        )
    else:
        _run_commits(job, [WHOLE_LIST])


def _run_jobs(job: Job, done: Sequence[CommitManifest]) -> None:
    """Run the rest of the list on an engine, one job for each part, and report the progress."""
    config = job.config
    size = config.urls_per_commit or ENGINE_PART
    images, failures = _count_done(done)
    source = TickFolder(config.output, len(done))
    part_jobs = runner_options.PartJobs(job.beam_options)
    with Progress(
        source, sys.stderr, images, failures, terminal_interval=WRITE_INTERVAL
    ) as progress:
        parts = commits.plan(config, lambda: size, done)
        for commit in _counting_beside(parts, config, progress):
            if commit.file_prefix:
                write_line(
                    f"part {commit.index + 1}: {count(commit.images, 'image')} after {images:,} "
                    "complete ones. If its job or the cluster dies, give the same command again."
                )
            assert commit.refs is not None and not isinstance(commit.refs, ListFile)
            path = any_path.join(config.output, f"{naming.LIST_PREFIX}{commit.index:05}")
            part_jobs.prepare(commit)
            part = dataclasses.replace(commit, refs=part_list.write(path, commit.refs))
            _run_commits(job, [part], TickFolder(config.output, commit.index))
            images += commit.images
            made = commit_manifest.read_commits(config.output)
            if not commit.is_last and len(made) != commit.index + 1:
                raise RuntimeError(f"the job of part {commit.index + 1} has left no record")
            # After the last part there are none.
            failed = _count_done(made[-1:])[1] if made else 0
            progress.complete_part(commit.images, failed)


def _count_done(done: Sequence[CommitManifest]) -> tuple[int, int]:
    """Return the numbers of images, and of failures among them, in complete parts."""
    return (
        sum(manifest.images for manifest in done),
        sum(sum(manifest.reasons.values()) for manifest in done),
    )


def _run_here(job: Job, done: Sequence[CommitManifest]) -> None:
    """Run the rest of the list on this machine, and report the progress."""
    config, beam_options = job.config, job.beam_options
    workers = runner_options.count_workers(beam_options)
    part_size = PartSize(workers, config.urls_per_commit)
    images, failures = _count_done(done)
    # This reference keeps the state of hosts from commit to commit. Processes have their own.
    has_processes = runner_options.has_processes(beam_options)
    fetcher = None if has_processes else image_fetcher.shared_fetcher(config)
    with (
        tempfile.NamedTemporaryFile(prefix="ticks-") as file,
        Progress(TickFile(file.name), sys.stderr, images, failures) as progress,
        signals.describing_interruption(progress.describe_interruption),
        make_pool(beam_options) as pool,
    ):

        def complete(commit: Commit, seconds: float) -> None:
            part_size.adapt(len(commit.refs or ()), seconds)
            progress.complete_part(commit.images)

        parts = _counting_beside(commits.plan(config, part_size, done), config, progress)
        _run_commits(job, parts, TickFile(file.name), complete, pool)
    if fetcher:
        fetcher.close()


def make_pool(
    beam_options: PipelineOptions,
) -> contextlib.AbstractContextManager[WorkerPool | None]:
    """Return the worker processes; None if the worker is a thread of this process."""
    if not runner_options.has_processes(beam_options):
        return contextlib.nullcontext()
    runner_options.use_pool(beam_options)
    workers = runner_options.count_workers(beam_options)
    write_line(f"{count(workers, 'worker process', 'worker processes')} on this machine")
    return WorkerPool(workers)


def _run_commits(
    job: Job,
    parts: Iterable[Commit],
    ticks: Ticks | None = None,
    complete: Callable[[Commit, float], None] = lambda commit, seconds: None,
    pool: WorkerPool | None = None,
) -> None:
    """Run the graph for each commit; `complete` is called with the seconds that it took."""
    beam_options = job.beam_options
    name = runner_options.name_of(beam_options)
    processes = runner_options.count_workers(beam_options)
    for commit in parts:
        # A portable runner removes its name from the options.
        beam_options.view_as(StandardOptions).runner = name
        runner = pool.make_runner() if pool else runner_options.make_runner(beam_options)
        graph = beam.Pipeline(runner=runner, options=beam_options)
        pipeline.build(graph, job.config, commit, job.digests, job.excluded, ticks, processes)
        began = time.monotonic()
        result = graph.run()
        if page := runner_options.job_page(result, beam_options):
            write_line(page)
        if runner_options.waits_for_job(beam_options):
            result.wait_until_finish()
            seconds = time.monotonic() - began
            _keep_metrics(job.config.output, result, seconds)
            complete(commit, seconds)
        # A graph that has run has reference cycles, which hold files and memory that the next
        # one needs.
        del graph, runner
        gc.collect()


def _keep_metrics(folder: str, result: Any, seconds: float) -> None:
    """Save the metrics of workers. Errors are reported and never invalidate the dataset."""
    try:
        worker_metrics.add(folder, result, seconds)
    # The exceptions of engines for their metrics have no common base class.
    except Exception as error:
        complain(f"the workers' metrics could not be saved: {error}", 0)


def _counting_beside(
    parts: Iterable[Commit], config: Config, progress: Progress
) -> Iterator[Commit]:
    """Yield the parts of the list; count its images in a thread once the first part is known.

    Two threads that read a long list at once, up to the first image that is left, would slow each
    other down.
    """

    def count_all() -> None:
        with contextlib.suppress(UsageError):
            progress.total = listing.count_images(config)

    counting = threading.Thread(target=count_all, daemon=True)
    for commit in parts:
        if not counting.ident:
            counting.start()
        yield commit

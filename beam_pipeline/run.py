"""The command: argv -> Config and Beam's options -> the graph -> run -> a summary."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import ctypes
import gc
import logging
import os
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

# Beam and TensorFlow are imported where they are needed: --help and a mistyped command are answered at once.
from beam_pipeline import command_line, signals
from beam_pipeline.config import URLS_PER_COMMIT, URLS_PER_COMMIT_WITHOUT_NETWORK, Config, UsageError
from beam_pipeline.signals import complain

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipeline.books import Books
    from beam_pipeline.progress import ProgressLine


_M_ARENA_MAX = -8  # of malloc.h


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Gives its exit status: 0 done, 1 the job failed or no image survived, 2 the command is not usable."""
    signals.end_at_once("stopped; what is whole is kept, and the same command goes on")
    _bound_arenas()
    try:
        config, beam_argv = command_line.parse(sys.argv[1:] if argv is None else argv)
        _quieten(config.verbose)
        return run(config, beam_argv)
    except UsageError as error:
        return complain(str(error), 2)


def run(config: Config, beam_argv: Sequence[str]) -> int:
    """Checks what the options name, makes the dataset, and tells what came of it. Gives the exit status."""
    from beam_pipeline import books, checkpoints, finished, outputs, runners, sources

    beam_options = runners.parse_options(beam_argv)
    if not runners.is_in_this_process(beam_options):
        config = outputs.make_absolute(config)
    if not runners.reaches_local_files(beam_options):
        outputs.refuse_local_files(config)
    if config.report and not runners.waits_for_job(beam_options):
        raise UsageError(
            "--report needs a command that waits for the job: leave it out, and give python -m beam_pipeline.report later"
        )
    found = outputs.check(config)
    if found.finished:
        print(f"{config.output} is complete; --overwrite makes it anew")
        finish(config, beam_options, found.finished)
        return 0
    sources.check_readable(config)
    if config.exclude_sha256:
        sources.read_digests(config.exclude_sha256)
    sha256 = checkpoints.verify(config.checkpoint) if config.has_network else None
    if found.commits and found.commits[-1].checkpoint_sha256 != sha256:
        raise UsageError(f"--checkpoint {config.checkpoint} has changed since the run was begun; --output needs another folder")
    outputs.prepare(config, found.commits)
    if found.commits:
        print(f"going on after {len(found.commits):,} whole commits in {config.output}")

    try:
        if runners.is_in_this_process(beam_options):
            # Keeps the main thread free, as it is the one that hears signals, and a call of the network takes seconds.
            with concurrent.futures.ThreadPoolExecutor(1, "run") as executor:
                executor.submit(make_dataset, config, beam_options, found.commits, sha256).result()
        else:
            if runners.job_outlives_command(beam_options):
                signals.end_at_once(
                    "stopped waiting; the job may go on, and has to have ended before the same command is given again"
                )
            make_dataset(config, beam_options, found.commits, sha256)
            if not runners.waits_for_job(beam_options):
                print(f"the job is on its way; when it is done, {config.output} holds {books.DESCRIPTION}")
                return 0
        description = finished.read_description(config.output)
    except UsageError:
        raise
    except Exception as error:
        if config.verbose:
            traceback.print_exc()
        return complain(explain(error), 1)
    if description is None:
        return complain(f"the job has ended without {config.output}/{books.DESCRIPTION}", 1)
    finish(config, beam_options, description)
    return 0


def finish(config: Config, beam_options: PipelineOptions, description: dict[str, Any]) -> None:
    """Tells what has come of a run; writes the report if it is wanted. What goes wrong then costs nothing that is made."""
    from beam_pipeline import finished, outputs, report, runners

    outputs.clear_strays(config.output, description)
    print(summarize(description, config.output))
    is_there = finished.exists(finished.join(config.output, finished.REPORT))
    if config.report is False or (config.report is None and (is_there or not runners.is_in_this_process(beam_options))):
        return
    try:
        print(f"{report.write(config.output, config.labels)}: what came of it, to look at")
    # The dataset is whole without.
    except Exception as error:
        complain(f"{config.output} has no report: {error}", 0)


def make_dataset(config: Config, beam_options: PipelineOptions, done: Sequence[Books], sha256: str | None) -> None:
    """Runs the graph for what is not done yet; for all of it if the list has changed and may be begun anew."""
    from beam_pipeline import outputs
    from beam_pipeline.commits import ListChangedError

    try:
        run_commits(config, beam_options, done, sha256)
    except ListChangedError:
        if not config.overwrite:
            raise
        outputs.prepare(config, [])
        run_commits(config, beam_options, [], sha256)


def run_commits(config: Config, beam_options: PipelineOptions, done: Sequence[Books], sha256: str | None) -> None:
    """Runs the graph: once, or on this machine once for each commit that is not done yet."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import StandardOptions

    from beam_pipeline import books, commits, fetch, pipeline, runners
    from beam_pipeline.progress import ProgressLine, Ticks

    if done and done[-1].is_last:
        books.finish(config, sha256)
        return
    is_local, name = runners.is_in_this_process(beam_options), runners.name_of(beam_options)
    size = config.urls_per_commit
    if size is None and is_local:
        size = URLS_PER_COMMIT if config.has_network else URLS_PER_COMMIT_WITHOUT_NETWORK
        size *= runners.count_workers(beam_options)
    if done and not size:
        raise UsageError(
            f"--output {config.output} holds the first commits of a dataset: go on with the DirectRunner or --urls_per_commit, "
            "or remove them"
        )
    if size and not runners.waits_for_job(beam_options):
        raise UsageError("--urls_per_commit needs a command that waits for each commit's job: leave it out")
    with tempfile.NamedTemporaryFile(prefix="beam_pipeline-") as file, ProgressLine(file.name, sys.stderr) as progress:
        signals.remove_at_end.append(file.name)
        # Held here, what is known of hosts outlives a commit.
        fetcher = fetch.shared_fetcher(config) if is_local else None
        if is_local and sys.stderr.isatty():
            threading.Thread(target=_count_images, args=(config, done, progress), daemon=True).start()
        for commit in commits.plan(config, size, done) if size else [commits.WHOLE_LIST]:
            # A portable runner takes its name out of the options.
            beam_options.view_as(StandardOptions).runner = name
            graph = beam.Pipeline(runner=runners.make_runner(beam_options), options=beam_options)
            pipeline.build(graph, config, commit, sha256, Ticks(file.name) if is_local and sys.stderr.isatty() else None)
            began = time.monotonic()
            result = graph.run()
            if page := runners.job_page(result, beam_options):
                print(page, flush=True)
            if runners.waits_for_job(beam_options):
                result.wait_until_finish()
                keep_metrics(config.output, result, time.monotonic() - began)
            # A graph that has run is a knot of references, whose files and memory the next one needs.
            del graph
            gc.collect()
        if fetcher:
            fetcher.close()


def keep_metrics(folder: str, result: Any, seconds: float) -> None:
    """Keeps what workers have counted. What goes wrong is told, and costs nothing that is made."""
    from beam_pipeline import metrics

    try:
        metrics.add(folder, result, seconds)
    # An engine's metrics are its own affair.
    except Exception as error:
        complain(f"what the workers have counted is not kept: {error}", 0)


def summarize(description: dict[str, Any], folder: str) -> str:
    """What a run has made, in a few lines for a person."""
    counts = description["counts"]
    splits = [file["split"] for file in description["files"]]
    lines = [
        f"{counts['lines']:,} lines: {counts['ignored']:,} ignored, {counts['duplicates']:,} duplicates, "
        f"{counts['examples']:,} examples, {counts['failures']:,} failures"
    ]
    lines += [f"  {number:>9,} {reason}" for reason, number in sorted(counts["failures_by_reason"].items(), key=lambda x: -x[1])]
    lines.append(f"{folder}: {splits.count('train')} training and {splits.count('validation')} validation shards")
    return "\n".join(lines)


def _count_images(config: Config, done: Sequence[Books], progress: ProgressLine) -> None:
    from beam_pipeline import sources

    with contextlib.suppress(UsageError):
        images = sum(1 for _ in sources.read_refs(config, collections.Counter()))
        progress.total = images - sum(books.counts.get("lines", 0) - books.counts.get("ignored", 0) for books in done)


def _quieten(verbose: bool) -> None:
    """Keeps to themselves what Beam and TensorFlow have to say about themselves."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if verbose:
        # The second hands on what workers say in processes of their own.
        for name in ("beam_pipeline", "apache_beam.runners.portability.local_job_service"):
            logging.getLogger(name).setLevel(logging.INFO)
    else:
        for name in ("apache_beam", "tensorflow", "absl", "root"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _bound_arenas() -> None:
    """Has glibc keep two heaps, here and in workers: with one for each thread, memory grows by what none gives back."""
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def explain(error: Exception) -> str:
    """The gist of what ended a job, in one line; Beam's errors hold the worker's whole traceback."""
    from beam_pipeline import runners

    gist = re.sub(r" \[while running '.*?'\]$", "", runners.last_line(str(error)) or type(error).__name__)
    own = re.fullmatch(r"(?:beam_pipeline\.[\w.]+): (.*)", gist)
    return own[1] if own else f"the job failed: {gist}"


if __name__ == "__main__":
    sys.exit(main())

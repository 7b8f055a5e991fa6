"""Runs a command until its end or until it is killed, and checks what it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from beam_pipeline import dataset, naming
from beam_pipeline.metadata import commit_manifest
from benchmarks.measure import ROOT
from benchmarks.soak_figures import Sample, descendants, take_sample
from benchmarks.soak_inputs import OK, Inputs

INTERVAL = 0.5  # seconds between samples
_GRACE = 120.0  # seconds in which the workers of a killed command end; some still import


class Execution(NamedTuple):
    """One execution of the command.

    Attributes:
      status: Exit status; the negative number of the signal that ended it.
      seconds: Its duration.
      samples: Its resources over time.
      text: What it printed.
      problems: What it left: processes, or temporary files unless it was killed.
    """

    status: int
    seconds: float
    samples: list[Sample]
    text: str
    problems: list[str]


def execute(
    command: list[str], source: Path, output: Path, part: int, kill_after: float | None = None
) -> Execution:
    """Run a command.

    Args:
      command: The program and its arguments.
      source: The folder of its input.
      output: The folder of its dataset.
      part: Number of images in a part of the list.
      kill_after: Seconds after which the command is ended by SIGKILL; None for never.
    """
    samples: list[Sample] = []
    family: list[int] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile("w+") as log:
        environment = {**os.environ, "TMPDIR": temporary}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                seconds = time.monotonic() - began
                if kill_after is not None and seconds >= kill_after:
                    family = descendants(process.pid)
                    break
                parts = len(list(output.glob(f"{naming.COMMIT_PREFIX}*{naming.COMMIT_RECORD}")))
                samples.append(take_sample(process.pid, source, seconds, parts * part))
                time.sleep(INTERVAL if kill_after is None else min(INTERVAL, kill_after - seconds))
        finally:
            process.kill()  # which does nothing to a process that has ended
        status = process.wait()
        seconds = time.monotonic() - began
        problems = [f"process {one} outlives the command" for one in _wait_for_end(family)]
        if not family:
            problems += [f"{name} is left in TMPDIR" for name in os.listdir(temporary)]
        log.seek(0)
        return Execution(status, seconds, samples, log.read(), problems)


def _wait_for_end(processes: list[int]) -> list[int]:
    """Wait for the end of processes. Return those that still run when the time is up."""
    deadline = time.monotonic() + _GRACE
    while (running := [one for one in processes if _runs(one)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return running


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # what nobody has waited for


def check(folder: Path, inputs: Inputs) -> tuple[int, list[str]]:
    """Compare the complete parts of a dataset with what was put in.

    Args:
      folder: A dataset, complete or not.
      inputs: The input, and the possible outcomes of each image.

    Returns:
      The number of images in the complete parts, duplicates included, and what does not reconcile.
    """
    problems: list[str] = []
    is_complete = (folder / naming.DATASET_INFO).exists()
    if is_complete:
        info = dataset.read_info(folder)
        images = info.counts.lines - info.counts.ignored
        sizes = info.file_sizes
        tables = [file.name for file in info.metadata_files]
        failures = [file.name for file in info.failure_files]
        expected = (inputs.lines, inputs.ignored, inputs.duplicates)
        counts = (info.counts.lines, info.counts.ignored, info.counts.duplicates)
        if counts != expected:
            problems.append(f"lines, ignored, duplicates are {counts}, not {expected}")
    else:
        commits = commit_manifest.read_commits(str(folder)) if folder.exists() else []
        for commit in commits:
            commit.check_counts()
        images = sum(commit.images for commit in commits)
        sizes = {shard.name: shard.bytes for commit in commits for shard in commit.shards}
        tables = [shard.name for commit in commits for shard in commit.metadata]
        failures = [shard.name for commit in commits for shard in commit.failures]
    for name, size in sizes.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != size:
            problems.append(f"{name} is missing or has not {size} bytes")
    found: dict[str, str] = {}
    damaged = 0
    for url, outcome in _read_outcomes(folder, tables, failures):
        if url in found:
            problems.append(f"{url} occurs twice")
        found[url] = outcome
        if url not in inputs.outcomes and outcome == "corrupt_container":
            damaged += 1
        elif outcome not in inputs.outcomes.get(url, ()):
            problems.append(f"{url} became {outcome or 'an example'}")
    if is_complete and (missing := inputs.outcomes.keys() - found.keys()):
        problems.append(f"{len(missing)} images are lost, such as {min(missing)}")
    if is_complete and damaged != inputs.damaged:
        problems.append(f"{damaged} damaged containers are reported, not {inputs.damaged}")
    return images, problems


def _read_outcomes(
    folder: Path, tables: list[str], failures: list[str]
) -> Iterator[tuple[str, str]]:
    for name in tables:
        for url in pq.read_table(folder / name, columns=["url"])["url"].to_pylist():
            yield url, OK
    for name in failures:
        for line in (folder / name).read_text().splitlines():
            failure = json.loads(line)
            yield failure["url"], failure["reason"]


def validate(folder: Path) -> list[str]:
    """Return what `python -m beam_pipeline.validate` finds."""
    command = [sys.executable, "-m", "beam_pipeline.validate", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [f"validate: {done.stdout}{done.stderr}"] if done.returncode else []


def resumed_at(text: str) -> int:
    """Return the number of images after which a command says that it resumes.

    >>> resumed_at("resuming after 1,200 images in /tmp/out")
    1200
    >>> resumed_at("no part is complete in /tmp/out: starting with the first image")
    0
    """
    match = re.search(r"resuming after ([\d,]+) image", text)
    return int(match[1].replace(",", "")) if match else 0


class Kill(NamedTuple):
    """A SIGKILL: seconds after the start of the command, and the images complete by then."""

    seconds: float
    images: int


class Round(NamedTuple):
    """A dataset whose command was killed several times.

    Attributes:
      kills: The kills.
      last: The execution that completed the dataset.
      problems: What is wrong; none is expected.
    """

    kills: list[Kill]
    last: Execution
    problems: list[str]


def run_with_kills(
    command: list[str], output: Path, part: int, inputs: Inputs, delays: list[float]
) -> Round:
    """Make a dataset with a command that is killed after each delay, then validate it.

    Args:
      command: The program and its arguments.
      output: The folder of its dataset, which is removed at the end.
      part: Number of images in a part of the list.
      inputs: The input, and the possible outcomes of each image.
      delays: Seconds from a start of the command to its kill, in order.
    """
    kills: list[Kill] = []
    problems: list[str] = []
    images = 0
    for delay in [*delays, None]:
        was_complete = (output / naming.DATASET_INFO).exists()
        execution = execute(command, inputs.folder, output, part, delay)
        problems += execution.problems
        if execution.status >= 0:
            if execution.status:
                problems.append(
                    f"the command ends with status {execution.status}: {execution.text[-2000:]}"
                )
            if not was_complete and resumed_at(execution.text) != images:
                problems.append(
                    f"it resumes after {resumed_at(execution.text)} images, not {images}"
                )
            break
        images, wrong = check(output, inputs)
        problems += wrong
        kills.append(Kill(execution.seconds, images))
    problems += check(output, inputs)[1] + validate(output)
    shutil.rmtree(output)
    return Round(kills, execution, problems)

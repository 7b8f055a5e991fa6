"""An endurance run over every kind of input: `make soak`.

For two fifths of the time, rounds: a dataset is made by a command that is ended by SIGKILL at
random moments and given again. After each kill the parts that are complete are compared with what
was put in, image by image; so is the dataset at the end, and `validate` reads it.

A command that is killed starts anew, and cannot show a leak. So for the rest of the time, one
command after the other makes a dataset without an interruption. The memory, open files and threads
of the command and its workers are sampled and must be flat.

The origin of the tests, on loopback, serves the URLs. The results are written to
`benchmarks/SOAK.md`.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import measure, soak_inputs
from benchmarks.soak_figures import (
    KEPT_OPEN,
    STRETCHES,
    TOLERANCES,
    at_even_times,
    fit,
    rate,
    steady,
    table,
)
from benchmarks.soak_inputs import Inputs
from benchmarks.soak_runs import Execution, Round, run_with_kills

RESULTS = measure.ROOT / "benchmarks" / "SOAK.md"
KILLED = 0.4  # share of the time
FEWEST = 12  # parts of a long run: what a part opens and closes hides a trend in fewer
OPTIONS = "--image_size 64 --encoding lab_uint8 --validation_fraction 0.1"


class Kind(NamedTuple):
    """A kind of run.

    Attributes:
      name: For the tables.
      write: Writes its input into a folder: the number of images, and the random choices.
      options: The options of the command.
      part: Number of images in a part of a long run.
      slowness: The factor by which its rounds have fewer images.
    """

    name: str
    write: Callable[[Path, int, random.Random], Inputs]
    options: str
    part: int
    slowness: int = 1


def make_kinds(origin: str) -> list[Kind]:
    urls = functools.partial(_write_urls, origin=origin)
    folder = functools.partial(soak_inputs.write_images, kinds="folder")
    fetching = (
        "--checkpoint none --fetch_timeout 4 --fetch_attempts 2 --fetch_concurrency 64 "
        "--host_concurrency 64 --max_image_bytes 1000000"
    )
    return [
        Kind("URLs", urls, fetching, 500),
        Kind("images", soak_inputs.write_images, "--checkpoint none", 500),
        Kind("URLs, 2 processes", urls, f"{fetching} --direct_num_workers 2", 500),
        Kind(
            "images, 2 processes",
            soak_inputs.write_images,
            "--checkpoint none --direct_num_workers 2",
            500,
        ),
        Kind("network", folder, "--checkpoint untrained --statistics", 20, slowness=10),
    ]


def _write_urls(folder: Path, images: int, rng: random.Random, origin: str) -> Inputs:
    return soak_inputs.write_urls(folder, images, origin, rng)


class Result(NamedTuple):
    """A round or a long run, and the kind and number of its images."""

    kind: Kind
    images: int
    round: Round


def run_once(kind: Kind, images: int, part: int, rng: random.Random, delays: list[float]) -> Result:
    """Write an input, make a dataset of it, and remove both."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        written, output = Path(folder, "input"), Path(folder, "dataset")
        written.mkdir()
        inputs = kind.write(written, images, rng)
        command = [sys.executable, "-m", "beam_pipeline.run", "--output", str(output)]
        command += [*inputs.arguments, *OPTIONS.split(), *kind.options.split()]
        command += ["--urls_per_commit", str(part)]
        done = run_with_kills(command, output, part, inputs, delays)
    for problem in done.problems:
        print(f"FAIL {kind.name}: {problem}", flush=True)
    print(
        f"{kind.name}: {images:,} images, {len(done.kills)} kills, "
        f"{done.last.seconds:.0f} s for the last command",
        flush=True,
    )
    return Result(kind, images, done)


def run_rounds(
    kinds: list[Kind], images: int, kills: int, rng: random.Random, until: float
) -> list[Result]:
    """Make datasets with kills, of each kind at least one, until the time is up."""
    results: list[Result] = []
    spans = dict.fromkeys((kind.name for kind in kinds), 15.0)
    for kind in itertools.cycle(kinds):
        if len(results) >= len(kinds) and time.monotonic() > until:
            return results
        delays = [rng.uniform(0.5, spans[kind.name]) for _ in range(kills)]
        number = images // kind.slowness
        results.append(run_once(kind, number, max(1, number // 5), rng, delays))
        last = results[-1].round.last.seconds
        spans[kind.name] = max(spans[kind.name], last)
    raise AssertionError("a cycle has no end")


def run_long(kinds: list[Kind], rng: random.Random, until: float) -> list[Result]:
    """Make a dataset of each kind without an interruption, in equal shares of the time.

    A short run of three parts tells how many images the time is enough for.
    """
    results = []
    for index, kind in enumerate(kinds):
        end = time.monotonic() + (until - time.monotonic()) / (len(kinds) - index)
        short = run_once(kind, 3 * kind.part, kind.part, rng, [])
        speed = rate(short.round.last.samples) or short.images / short.round.last.seconds
        # Writing the input and validating the dataset take time as well.
        images = max(FEWEST * kind.part, round(speed * (end - time.monotonic()) * 0.8))
        long = run_once(kind, images, kind.part, rng, [])
        problems = short.round.problems + long.round.problems
        results.append(long._replace(round=long.round._replace(problems=problems)))
    return results


def describe_rounds(results: list[Result]) -> str:
    by_kind: dict[str, list[Result]] = collections.defaultdict(list)
    for result in results:
        by_kind[result.kind.name].append(result)
    rows = []
    for name, own in by_kind.items():
        kills = [kill for result in own for kill in result.round.kills]
        seconds = [kill.seconds for kill in kills] or [0.0]
        rows.append(
            [
                name,
                len(own),
                f"{sum(result.images for result in own):,}",
                len(kills),
                f"{min(seconds):.1f} to {max(seconds):.1f} s",
                sum(kill.images > 0 for kill in kills),
                sum(len(result.round.problems) for result in own),
            ]
        )
    head = ["input", "datasets", "images", "kills", "after", "with complete parts", "problems"]
    return table(head, rows)


def describe_trends(results: list[Result]) -> tuple[str, bool]:
    """Return a table of the trends of long runs, and whether all figures are flat."""
    rows, is_flat = [], True
    for result in results:
        samples = steady(result.round.last.samples)
        cells = [
            f"{result.images:,}",
            str(result.kind.part),
            f"{result.round.last.seconds / 60:.1f}",
        ]
        try:
            trends = [fit(samples, figure) for figure in TOLERANCES]
        except ValueError as error:
            cells += [str(error), *[""] * (len(TOLERANCES) - 1), "NO"]
            is_flat = False
        else:
            cells += [f"{one.median:.0f}, {one.rise:+.1f}" for one in trends]
            is_flat &= all(one.is_flat for one in trends)
            cells.append("yes" if all(one.is_flat for one in trends) else "NO")
        rows.append([result.kind.name, *cells, len(result.round.problems)])
    head = ["input", "images", "in a part", "minutes", "memory, MB", "open files", "threads"]
    head += ["flat", "problems"]
    return table(head, rows), is_flat


def describe_course(execution: Execution) -> str:
    rows = [
        [
            f"{sample.seconds / 60:.1f}",
            f"{sample.images:,}",
            f"{sample.megabytes:.0f}",
            sample.files,
            sample.threads,
            sample.processes,
        ]
        for sample in at_even_times([one for one in execution.samples if one.images], 10)
    ]
    head = ["minute", "images", "memory, MB", "open files", "threads", "processes"]
    return table(head, rows)


def describe(
    options: argparse.Namespace, minutes: float, rounds: list[Result], long: list[Result]
) -> tuple[str, bool]:
    """Return the content of SOAK.md, and whether everything is as it must be."""
    trends, is_flat = describe_trends(long)
    problems = [problem for result in (*rounds, *long) for problem in result.round.problems]
    share, amount = TOLERANCES["megabytes"]
    courses = "\n\n".join(
        f"### {result.kind.name}\n\n{describe_course(result.round.last)}" for result in long
    )
    text = f"""# Endurance

{measure.describe_machine()} {minutes:.0f} minutes, seed {options.seed}. Written by `make soak`.

## SIGKILL at random moments

Each dataset was made by a command that was killed up to {options.kills} times and given again.
After each kill, the complete parts were compared with what was put in, image by image: an example,
or a failure with the expected reason. So was the dataset at the end, and `validate` read it. No
process may outlive a killed command by more than two minutes, and no temporary file one that ends.

{describe_rounds(rounds)}

- **URLs**: lists (text, gzip) and tables (`.csv`, `.tsv`, `.jsonl`, `.parquet`) of URLs on
  loopback, a third of them of {len(soak_inputs.FAULTY_URLS)} kinds that are faulty or slow.
- **images**: a folder, a tar, a tar of tars, a `.tar.gz`, a zip, a WebDataset shard and Parquet
  rows, a tenth of the images damaged, and a damaged tar.
- **network**: a folder, with the network (untrained), statistics and near-duplicates.

## Long runs

One command without an interruption for each input. Each figure is the sum over the command and its
workers: the median, and the rise of a line from the first third to the last part. The line is
fitted to the lowest values of {STRETCHES} stretches of this time, because a part of the list closes
what it opens. It is flat if the rise of the memory is at most {share:.0%} of the median or
{amount:.0f} MB, and that of open files and of threads at most 3. A process keeps the containers
open that it has read, so up to {KEPT_OPEN} different files of the input are not counted.

{trends}

{courses}
"""
    if problems:
        listed = "\n".join(f"- {problem.splitlines()[0]}" for problem in problems[:20])
        text += f"\n## Problems\n\n{listed}\n"
    return text, is_flat and not problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="duration (%(default)s)")
    parser.add_argument("--images", type=int, default=600, help="images of a round (%(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="kills of a round (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all choices (%(default)s)")
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    with measure.serve(["tests/origin.py"]) as origin:
        kinds = make_kinds(origin)
        until = began + KILLED * 60 * options.minutes
        rounds = run_rounds(kinds, options.images, options.kills, rng, until)
        long = run_long(kinds, rng, began + 60 * options.minutes)
    text, is_good = describe(options, (time.monotonic() - began) / 60, rounds, long)
    RESULTS.write_text(text)
    print(text)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

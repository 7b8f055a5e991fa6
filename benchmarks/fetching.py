"""Fetching, beside img2dataset: the same origin, list and size, in one run. `make bench-fetching`.

An origin on loopback answers each request after 200 ms. Rates and processor times are the difference between a long list and a
short one, so that start-up is left out; medians of several rounds, in each of which every row has its turn.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DELAY, IN_FLIGHT, SIZE = 0.2, 64, 299
SHORT, LONG = 300, 2100
PHOTOGRAPHS = 100  # different ones, which the origin keeps; a query makes each URL another


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """An origin in a process of its own, whose processor time is not ours."""
    origin = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "origin.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert origin.stdin and origin.stdout
    yield origin.stdout.readline().strip()
    origin.stdin.close()
    origin.wait()


def write_list(path: Path, origin: str, number: int, delay: float) -> None:
    prefix = f"delay/{delay}/" if delay else ""
    urls = (f"{origin}{prefix}sized/500/375/{index % PHOTOGRAPHS}.jpg?{index}" for index in range(number))
    path.write_text("".join(f"{url}\n" for url in urls))


def beam_pipeline(encoding: str) -> Callable[[Path, Path], list[str]]:
    def command(urls: Path, output: Path) -> list[str]:
        options = f"--checkpoint none --allow_private_addresses --encoding {encoding} --fetch_concurrency {IN_FLIGHT}"
        options += f" --host_concurrency {IN_FLIGHT} --image_size {SIZE}"
        return [sys.executable, "-m", "beam_pipeline.run", "--input", str(urls), "--output", str(output), *options.split()]

    return command


def fetching_alone(urls: Path, output: Path) -> list[str]:
    program = f"from benchmarks.fetching import fetch_all; fetch_all({str(urls)!r}, {str(output)!r})"
    return [sys.executable, "-c", program]


def fetch_all(urls: str, output: str) -> None:
    """Fetches a list with what a worker process fetches with, and notes how many images came."""
    import asyncio
    import collections

    from beam_pipeline import sources
    from beam_pipeline.config import Config
    from beam_pipeline.elements import EncodedImage
    from beam_pipeline.fetch import Fetcher

    options = {"fetch_concurrency": IN_FLIGHT, "host_concurrency": IN_FLIGHT, "allow_private_addresses": True}
    config = Config(input=urls, output=output, **options)  # type: ignore[arg-type]
    fetcher, room = Fetcher(config), asyncio.Semaphore(10**9)
    futures = [fetcher.submit(ref, room) for ref in sources.read_refs(config, collections.Counter())]
    Path(output).mkdir()
    came = sum(isinstance(future.result(), EncodedImage) for future in futures)
    (Path(output) / "dataset.json").write_text(json.dumps({"counts": {"examples": came}}))
    fetcher.close()


def img2dataset(python: str) -> Callable[[Path, Path], list[str]]:
    def command(urls: Path, output: Path) -> list[str]:
        options = (
            f"--processes_count 1 --thread_count {IN_FLIGHT} --image_size {SIZE} --resize_mode border --resize_only_if_bigger False"
        )
        options += (
            " --output_format files --input_format txt --timeout 10 --retries 0 --compute_hash None --number_sample_per_shard 10000"
        )
        program = str(Path(python).parent / "img2dataset")
        return [program, "--url_list", str(urls), "--output_folder", str(output), *options.split()]

    return command


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of the processors, that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def count_written(output: Path) -> int:
    """How many images a run has written, so that a row that failed does not pass for a quick one."""
    if (output / "dataset.json").exists():
        return json.loads((output / "dataset.json").read_text())["counts"]["examples"]
    return len(list(output.rglob("*.jpg")))


def slope(make: Callable[[Path, Path], list[str]], origin: str, delay: float, folder: Path) -> tuple[float, float]:
    """Images a second, and processor milliseconds an image."""
    results = []
    for number in (SHORT, LONG):
        urls, output = folder / f"{number}.txt", folder / f"{number}-{time.monotonic_ns()}"
        write_list(urls, origin, number, delay)
        results.append(measure(make(urls, output)))
        assert count_written(output) == number, f"{count_written(output)} of {number} images written"
        subprocess.run(["rm", "-r", str(output)], check=True)
    (short_clock, short_processor), (long_clock, long_processor) = results
    return (LONG - SHORT) / (long_clock - short_clock), (long_processor - short_processor) / (LONG - SHORT) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--img2dataset", required=True, help="the python of an environment that has img2dataset")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: dict[str, tuple[Callable[[Path, Path], list[str]], float]] = {
        "beam_pipeline, fetching alone": (fetching_alone, DELAY),
        "beam_pipeline, fetching alone, answers at once": (fetching_alone, 0.0),
        "beam_pipeline, rgb_png": (beam_pipeline("rgb_png"), DELAY),
        "beam_pipeline, rgb_png, answers at once": (beam_pipeline("rgb_png"), 0.0),
        "beam_pipeline, lab_float32": (beam_pipeline("lab_float32"), DELAY),
        "beam_pipeline, lab_float32, answers at once": (beam_pipeline("lab_float32"), 0.0),
        "img2dataset, JPEG": (img2dataset(options.img2dataset), DELAY),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as folder, serve() as origin:
        for _ in range(options.rounds):
            for name, (make, delay) in rows.items():
                figures[name].append(slope(make, origin, delay, Path(folder)))
                print(
                    f"{name}: {figures[name][-1][0]:.0f} images a second, {figures[name][-1][1]:.1f} ms",
                    file=sys.stderr,
                    flush=True,
                )

    rates = {name: statistics.median(rate for rate, _ in values) for name, values in figures.items()}
    lines = [
        "# Fetching\n",
        f"{datetime.date.today()}, {os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}; "
        f"photographs of 500x375 made {SIZE}x{SIZE}, {IN_FLIGHT} requests in flight to an origin that answers after {DELAY:g} s on "
        f"the same machine; medians of {options.rounds} rounds. Made by `make bench-fetching`.\n",
        "| | images a second | processor ms an image | of what is possible |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in figures.items():
        share = ""
        if f"{name}, answers at once" in rates:
            possible = min(IN_FLIGHT / DELAY, rates[f"{name}, answers at once"])
            share = f"{rates[name] / possible:.0%}"
        lines.append(f"| {name} | {rates[name]:.0f} | {statistics.median(ms for _, ms in values):.1f} | {share} |")
    lines.append(
        f"\nWhat is possible is {IN_FLIGHT} / {DELAY:g} s = {IN_FLIGHT / DELAY:.0f} images a second, or what the processor does "
        "when the origin answers at once, whichever is less. img2dataset fetches, resizes and writes; beam_pipeline works out Lab "
        "as well (`lab_float32`), and keeps images without loss."
    )
    text = "\n".join(lines) + "\n"
    (Path(__file__).parent / "FETCHING.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""What the benchmarks share: commands measured from outside, in turns, beside servers that are processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parent.parent
SHORT, LONG = 300, 2100

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Usage:
    """Of a command and all that it started: `seconds` on the clock and of the processors, `megabytes` of the largest process."""

    seconds: float
    processor: float
    megabytes: float


def measure(command: Sequence[str], processors: set[int] | None = None) -> Usage:
    """Runs a command, on these processors only if they are given. Raises CalledProcessError if it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if processors:
        os.sched_setaffinity(process.pid, processors)
    megabytes = 0.0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        megabytes = max(megabytes, _peak_memory(process.pid))
        time.sleep(0.1)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(time.monotonic() - began, used.ru_utime + used.ru_stime, megabytes)


def _peak_memory(process: int) -> float:
    """Of a process or of one that it has started, in megabytes; what the system tells at the end counts its parent's too."""
    peak = 0.0
    with contextlib.suppress(OSError):
        told = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
        peak = int(told[1]) / 1024 if told else 0.0
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            peak = max([peak, *map(_peak_memory, map(int, path.read_text().split()))])
    return peak


def job(urls: Path, output: Path, options: str = "--checkpoint none") -> list[str]:
    """The command that makes a dataset of a list on loopback."""
    command = [sys.executable, "-m", "beam_pipeline.run", "--report=false", "--input", str(urls), "--output", str(output)]
    return [*command, *["--allow_private_addresses", "--host_concurrency", "64"], *options.split()]


def program(text: str, *arguments: object) -> list[str]:
    """A command that runs `main(...)` of some module of this folder: `network.start`."""
    module, _, function = text.partition(".")
    return [sys.executable, "-c", f"from benchmarks import {module}; {module}.{function}{tuple(map(str, arguments))!r}"]


def count_written(output: Path) -> int:
    """How many images a run has written, so that one that failed does not pass for a quick one."""
    if (output / "dataset.json").exists():
        return json.loads((output / "dataset.json").read_text())["counts"]["examples"]
    return len([*output.rglob("*.jpg"), *output.rglob("*.png")])


def slope(
    make: Callable[[Path, Path], list[str]],
    write_list: Callable[[Path, int], Path],
    folder: Path,
    short: int = SHORT,
    long: int = LONG,
    processors: set[int] | None = None,
) -> tuple[float, float]:
    """Images a second and processor ms an image, as the difference of a long list and a short one: start-up is left out."""
    used = []
    for number in (short, long):
        output = folder / "output"
        used.append(measure(make(write_list(folder / "list.txt", number), output), processors))
        assert count_written(output) == number, f"{count_written(output)} of {number} images written"
        shutil.rmtree(output)
    images = long - short
    return images / (used[1].seconds - used[0].seconds), (used[1].processor - used[0].processor) / images * 1000


def in_turns(rounds: int, rows: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measures each row once in every round, so that what else the machine does comes over all of them."""
    figures: dict[str, list[T]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, take in rows.items():
            figures[name].append(take())
            print(f"{name}: {figures[name][-1]}", file=sys.stderr, flush=True)
    return figures


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@contextlib.contextmanager
def serve(command: Sequence[str]) -> Iterator[str]:
    """Starts an origin that prints its URL and serves until its input is closed. Gives the URL."""
    origin = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert origin.stdin and origin.stdout
    yield origin.stdout.readline().strip()
    origin.stdin.close()
    origin.wait()


def describe_machine() -> str:
    """The date, the machine and the versions, for the head of a table."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in Path("/proc/cpuinfo").read_text()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("apache-beam", "tensorflow", "keras", "numpy", "pillow", "scikit-image", "aiohttp")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{datetime.date.today()}; {os.cpu_count()} processors ({cpu[1] if cpu else platform.machine()}; {', '.join(known)}), "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}."
    )

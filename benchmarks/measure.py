"""Helpers of the benchmarks: run commands in turns and measure them from outside.

Servers are separate processes.
"""

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
    """Resources of a command and its descendants.

    Attributes:
      seconds: Wall time.
      processor: Processor time, in seconds.
      megabytes: Peak memory of the largest process.
    """

    seconds: float
    processor: float
    megabytes: float


def measure(command: Sequence[str], processors: set[int] | None = None) -> Usage:
    """Run a command and measure it.

    Args:
      command: The program and its arguments.
      processors: The processors on which it may run; None for all of them.

    Raises:
      subprocess.CalledProcessError: The command failed.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
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
    """Return the peak memory in megabytes of a process or of one of its descendants.

    The largest of them counts. The value that the system reports at the end is not used, because it
    includes the memory of the parent.
    """
    peak = 0.0
    with contextlib.suppress(OSError):
        match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
        peak = int(match[1]) / 1024 if match else 0.0
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            peak = max([peak, *map(_peak_memory, map(int, path.read_text().split()))])
    return peak


def job(urls: Path, output: Path, options: str = "--checkpoint none") -> list[str]:
    """Return the command that makes a dataset of a list on loopback."""
    command = [
        sys.executable,
        "-m",
        "beam_pipeline.run",
        "--report=false",
        "--input",
        str(urls),
        "--output",
        str(output),
    ]
    return [*command, *["--allow_private_addresses", "--host_concurrency", "64"], *options.split()]


def program(text: str, *arguments: object) -> list[str]:
    """Return a command that calls a function of this package, such as `network.start`."""
    module, _, function = text.partition(".")
    return [
        sys.executable,
        "-c",
        f"from benchmarks import {module}; {module}.{function}{tuple(map(str, arguments))!r}",
    ]


def ask(command: list[str]) -> str:
    """Return the last line that a command prints."""
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout.splitlines()[-1]


def count_written(output: Path) -> int:
    """Return the number of images that a run has written.

    It keeps a failed run from passing for a fast one.
    """
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
    """Return images per second and processor milliseconds per image.

    Both are the difference between a long list and a short one, which excludes start-up.
    """
    used = []
    for number in (short, long):
        output = folder / "output"
        used.append(measure(make(write_list(folder / "list.txt", number), output), processors))
        assert count_written(output) == number, (
            f"{count_written(output)} of {number} images written"
        )
        shutil.rmtree(output)
    images = long - short
    return images / (used[1].seconds - used[0].seconds), (
        used[1].processor - used[0].processor
    ) / images * 1000


def in_turns(rounds: int, rows: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure each row once per round, so that other load on the machine affects all rows."""
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
    """Start an origin that prints its URL and serves until its input closes. Yield the URL."""
    origin = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert origin.stdin and origin.stdout
    yield origin.stdout.readline().strip()
    origin.stdin.close()
    origin.wait()


def describe_machine() -> str:
    """Return the date, the machine and the versions, for the head of a table."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    known = [
        flag
        for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        if flag in Path("/proc/cpuinfo").read_text()
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("apache-beam", "tensorflow", "keras", "numpy", "pillow", "scikit-image", "aiohttp")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"{datetime.date.today()}; {os.cpu_count()} processors "
        f"({cpu[1] if cpu else platform.machine()}; {', '.join(known)}), "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}."
    )

"""Profile the job without the network: `make profile`.

Prints where the interpreter's lock is held, or where processors are used with `--processors`: by
thread, by module of Beam and of this package (inclusive), and by function (exclusive). The images
are photographs of 500x375 that another process serves on loopback.
"""

from __future__ import annotations

import argparse
import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measure, photographs

RATE = 200  # samples a second


def summarize(stacks: str, rows: int) -> str:
    """Return tables of the shares of samples, from the raw format of py-spy."""
    kinds: dict[str, collections.Counter[str]] = {
        "thread": collections.Counter(),
        "module (inclusive)": collections.Counter(),
        "function (exclusive)": collections.Counter(),
    }
    total = 0
    for line in stacks.splitlines():
        stack, count = line.rsplit(" ", 1)
        thread, *frames = stack.split(";")
        total += int(count)
        kinds["thread"][re.sub(r"thread \(\w+\): |[_-]\d+", "", thread)] += int(count)
        kinds["function (exclusive)"][frames[-1] if frames else thread] += int(count)
        modules = {re.sub(r".* \((.*?)(:\d+)?\)$", r"\1", frame) for frame in frames}
        for module in modules:
            if module.startswith(("beam_pipeline", "apache_beam", "aiohttp")):
                kinds["module (inclusive)"][module] += int(count)
    lines = [f"{total} samples"]
    for kind, counts in kinds.items():
        lines += ["", f"| {kind} | share |", "| --- | --- |"]
        lines += [f"| {name} | {n / total:.1%} |" for name, n in counts.most_common(rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=25, help="of each table")
    parser.add_argument("--processors", action="store_true", help="sample all running threads")
    parser.add_argument("--options", default="--checkpoint none", help="of the job")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as root,
        photographs.serve() as origin,
    ):
        urls = photographs.write_list(Path(root) / "list.txt", options.images, origin)
        stacks = Path(root) / "stacks.txt"
        sampling = ["--rate", str(RATE), "--threads", "--format", "raw", "--output", str(stacks)]
        subprocess.run(
            [
                str(Path(sys.executable).with_name("py-spy")),
                "record",
                *sampling,
                *(["--nolineno"] if options.processors else ["--gil", "--nolineno"]),
                "--",
                *measure.job(urls, Path(root) / "output", options.options),
            ],
            cwd=measure.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        print(summarize(stacks.read_text(), options.rows))


if __name__ == "__main__":
    main()

"""Measure what `--obey_robots_txt` costs: `python -m benchmarks.robots`.

A list of photographs on 200 hosts, which are addresses of loopback, with and without the option.
Each host has a robots.txt, and answers each request after 200 ms. The rates are the difference
between the list and a short one of one host, which excludes start-up and includes the files of the
other hosts.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from benchmarks import measure, photographs

HOSTS, DELAY, SHORT = 200, 0.2, 300
ROBOTS = "User-agent: *\n" + "".join(f"Disallow: /private{index}/\n" for index in range(20))
ROWS = {
    "without": lambda urls, output: measure.job(urls, output, "--checkpoint none"),
    "with": lambda urls, output: measure.job(urls, output, "--checkpoint none --obey_robots_txt"),
}


def host_of(index: int) -> str:
    return f"127.0.1.{index + 1}"


def write_list(path: Path, number: int, port: str) -> Path:
    """Write a list of `number` URLs; one of at most `SHORT` has only one host."""
    hosts = HOSTS if number > SHORT else 1
    path.write_text(
        "".join(f"http://{host_of(index % hosts)}:{port}/{index}.jpg\n" for index in range(number))
    )
    return path


async def serve() -> None:
    pictures = photographs.make_photographs()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(DELAY)
        if request.path == "/robots.txt":
            return web.Response(text=ROBOTS)
        if not request.path.endswith(".jpg"):
            return web.Response(status=404)
        index = int(request.path.strip("/").removesuffix(".jpg"))
        return web.Response(body=pictures[index % len(pictures)], content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = 0
    for index in range(HOSTS):
        await web.TCPSite(runner, host_of(index), port, backlog=1024).start()
        port = runner.addresses[0][1]
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = ["-c", "import asyncio; from benchmarks import robots; asyncio.run(robots.serve())"]
    with tempfile.TemporaryDirectory() as folder, measure.serve(server) as port:
        write = functools.partial(write_list, port=port)
        rows = {
            name: functools.partial(measure.slope, make, write, Path(folder), SHORT, options.images)
            for name, make in ROWS.items()
        }
        figures = measure.in_turns(options.rounds, rows)
    print(f"{measure.describe_machine()} {options.images:,} images on {HOSTS} hosts:")
    for index, unit in enumerate(("images/s", "processor ms an image")):
        without, obeying = (
            measure.median([values[index] for values in figures[row]]) for row in ROWS
        )
        print(
            f"{without:.3g} {unit}, {obeying:.3g} with --obey_robots_txt: {obeying / without:.3f}"
        )


if __name__ == "__main__":
    main()

"""A long run through every kind of failure: `make soak`.

The list has 20,000 URLs on loopback. A third of them are faulty, in every way that the origin of
the tests knows. The network is not used. At the end the counts must add up, the memory must be what
it was after the first 2,000 images, and no thread, socket or file may be left open.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.measure import serve

COMMIT = 2_000
GOOD = (
    "good/{}.jpg",
    "good/{}.png",
    "good/{}.webp",
    "chunked/{}.jpg",
    "gzip/{}.jpg",
    "redirect/2/{}.jpg",
    "delay/0.1/{}.jpg",
)
FAULTY = (
    "status/404/{}.jpg",
    "status/410/{}.jpg",
    "status/500/{}.jpg",
    "flaky/1/503/{}.jpg",
    "retry-after/1/{}.jpg",
    "redirect-loop?{}",
    "redirect-nowhere?{}",
    "redirect-to?url=ftp://a/{}",
    "redirect-to?url=http://127.0.0.1:1/{}",
    "html/{}.jpg",
    "cut/{}.jpg",
    "half/{}.jpg",
    "empty/{}.jpg",
    "slow/0.3/{}.jpg",
    "hang?{}",
    "endless/{}.jpg",
    "endless-headers?{}",
    "huge-header/100000/{}.jpg",
    "reset?{}",
    "reset-body/{}.jpg",
    "garbage?{}",
    "bomb/50000000/{}.jpg",
    "large/40000000/{}.jpg",
    "large-unannounced/40000000/{}.jpg",
    "robots/{}.jpg?tag=noai",
    "type/text%2Fhtml/{}.jpg",
)


def write_list(path: Path, origin: str, images: int) -> None:
    rng = random.Random(0)
    with path.open("w") as file:
        for index in range(images):
            kind = rng.choice(FAULTY) if rng.random() < 1 / 3 else rng.choice(GOOD)
            file.write(origin + kind.format(index) + "\n")


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def sample(output: Path, samples: list[float], done: threading.Event) -> None:
    """Record the memory after each completed commit."""
    while not done.wait(0.05):
        if len(list(output.glob("commit-*.json"))) > len(samples):
            samples.append(resident_megabytes())


def open_things() -> tuple[list[str], list[str]]:
    """Return the open files and sockets, and the names of the threads."""
    gc.collect()
    handles = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            handles.append(os.readlink(handle))
        except OSError:  # the handle of this listing itself
            continue
    return handles, [thread.name for thread in threading.enumerate()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=20_000, help="URLs in the list (default: %(default)s)"
    )
    images = parser.parse_args().images
    from beam_pipeline import run

    with tempfile.TemporaryDirectory() as folder, serve(["tests/origin.py"]) as origin:
        urls, output = Path(folder, "urls.txt"), Path(folder, "dataset")
        fixed = (
            "--checkpoint none --allow_private_addresses --fetch_timeout 1 --fetch_attempts 2 "
            "--encoding lab_uint8"
        )
        fixed += " --host_concurrency 64 --max_image_bytes 10000000 --image_size 128"
        arguments = ["--input", str(urls), "--output", str(output), *fixed.split()]
        # A first run opens what Beam and the project open once per process; it is not a leak.
        urls.write_text(f"{origin}good/first.jpg\n")
        assert run.main([*arguments, "--urls_per_commit", str(COMMIT)]) == 0
        before = open_things()

        write_list(urls, origin, images)
        samples: list[float] = []
        done = threading.Event()
        sampler = threading.Thread(target=sample, args=(output, samples, done))
        sampler.start()
        began = time.monotonic()
        status = run.main([*arguments, "--urls_per_commit", str(COMMIT), "--overwrite"])
        seconds = time.monotonic() - began
        done.set()
        sampler.join()
        counts = json.loads((output / "dataset.json").read_text())["counts"]
        time.sleep(6)  # the server closes the connections that were kept alive
        after = open_things()

    growth = max(samples[-2:]) / samples[0]
    left_files = collections.Counter(after[0]) - collections.Counter(before[0])
    left_threads = collections.Counter(after[1]) - collections.Counter(before[1])
    reported = counts["ignored"] + counts["duplicates"] + counts["examples"] + counts["failures"]
    checks = {
        f"it ends with status 0, after {seconds:.0f} s": status == 0,
        f"the counts add up: {counts}": counts["lines"] == reported == images,
        f"memory at the end is {growth:.2f} times that after {COMMIT} images "
        f"(MB: {list(map(round, samples))})": growth < 1.1,
        f"no file or socket is left open {list(left_files)[:5]}": sum(left_files.values()) == 0,
        f"no thread is left {list(left_threads)[:5]}": sum(left_threads.values()) == 0,
    }
    for text, holds in checks.items():
        print("ok  " if holds else "FAIL", text)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Compare fetching with img2dataset: `make bench-fetching`.

Both fetch the same list from the same origin at the same image size, in one run. The origin is on
loopback and answers each request after 200 ms. Rates and processor times are the difference between
a long list and a short one, which excludes start-up. They are medians of several rounds; every row
is measured once per round.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure, photographs

DELAY, IN_FLIGHT, SIZE = 0.2, 64, 299


def beam_pipeline(encoding: str) -> Callable[[Path, Path], list[str]]:
    options = (
        f"--checkpoint none --encoding {encoding} "
        f"--fetch_concurrency {IN_FLIGHT} --image_size {SIZE}"
    )
    return lambda urls, output: measure.job(urls, output, options)


def fetching_alone(urls: Path, output: Path) -> list[str]:
    return measure.program("fetching.fetch_all", urls, output)


def fetch_all(urls: str, output: str) -> None:
    """Fetch a list with a worker's fetcher, and write the number of fetched images."""
    import collections

    from beam_pipeline.config import Config
    from beam_pipeline.elements import EncodedImage
    from beam_pipeline.fetching.image_fetcher import Fetcher
    from beam_pipeline.fetching.web_client import Bundle
    from beam_pipeline.sources import listing

    options = {
        "fetch_concurrency": IN_FLIGHT,
        "host_concurrency": IN_FLIGHT,
        "allow_private_addresses": True,
    }
    config = Config(input=urls, output=output, **options)  # type: ignore[arg-type]
    fetcher, bundle = Fetcher(config), Bundle(10**9)
    futures = [
        fetcher.submit(ref, bundle) for ref in listing.read_refs(config, collections.Counter())
    ]
    Path(output).mkdir()
    came = sum(isinstance(future.result(), EncodedImage) for future in futures)
    (Path(output) / "dataset.json").write_text(json.dumps({"counts": {"examples": came}}))
    fetcher.close()


def img2dataset(python: str, options: str = "") -> Callable[[Path, Path], list[str]]:
    def command(urls: Path, output: Path) -> list[str]:
        every = (
            f"--processes_count 1 --thread_count {IN_FLIGHT} --image_size {SIZE}"
            " --resize_mode border --resize_only_if_bigger False"
            " --output_format files --input_format txt --timeout 10 --retries 0"
            " --compute_hash None --number_sample_per_shard 10000"
        )
        program = str(Path(python).parent / "img2dataset")
        return [
            program,
            "--url_list",
            str(urls),
            "--output_folder",
            str(output),
            *every.split(),
            *options.split(),
        ]

    return command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--img2dataset", required=True, help="the python of an environment that has img2dataset"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    commands: dict[str, tuple[Callable[[Path, Path], list[str]], float]] = {
        "beam_pipeline, fetching alone": (fetching_alone, DELAY),
        "beam_pipeline, fetching alone, answers at once": (fetching_alone, 0.0),
        "beam_pipeline, rgb_png": (beam_pipeline("rgb_png"), DELAY),
        "beam_pipeline, rgb_png, answers at once": (beam_pipeline("rgb_png"), 0.0),
        "beam_pipeline, lab_float32": (beam_pipeline("lab_float32"), DELAY),
        "beam_pipeline, lab_float32, answers at once": (beam_pipeline("lab_float32"), 0.0),
        "img2dataset, JPEG": (img2dataset(options.img2dataset), DELAY),
    }
    with tempfile.TemporaryDirectory() as folder, photographs.serve() as origin:
        rows = {
            name: functools.partial(
                measure.slope,
                command,
                functools.partial(photographs.write_list, origin=origin, delay=delay),
                Path(folder),
            )
            for name, (command, delay) in commands.items()
        }
        figures = measure.in_turns(options.rounds, rows)

    rates = {name: measure.median([rate for rate, _ in values]) for name, values in figures.items()}
    lines = [
        "# Fetching\n",
        f"{measure.describe_machine()} Photographs of {photographs.WIDTH}x{photographs.HEIGHT} "
        f"resized to {SIZE}x{SIZE}, {IN_FLIGHT} "
        f"requests in flight to an origin that answers after {DELAY:g} s on the same machine; "
        f"medians of {options.rounds} rounds. "
        "Written by `make bench-fetching`.\n",
        "| | images a second | processor ms an image | share of the possible rate |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in figures.items():
        share = ""
        if f"{name}, answers at once" in rates:
            share = f"{rates[name] / min(IN_FLIGHT / DELAY, rates[f'{name}, answers at once']):.0%}"
        lines.append(
            f"| {name} | {rates[name]:.0f} "
            f"| {measure.median([ms for _, ms in values]):.1f} | {share} |"
        )
    lines.append(
        f"\nThe possible rate is {IN_FLIGHT} / {DELAY:g} s = {IN_FLIGHT / DELAY:.0f} "
        "images a second, or the rate when the origin answers at once, "
        "whichever is less. img2dataset fetches, resizes and writes; beam_pipeline "
        "also computes Lab (`lab_float32`), and stores images without loss."
    )
    text = "\n".join(lines) + "\n"
    (measure.ROOT / "benchmarks" / "FETCHING.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

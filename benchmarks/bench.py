"""Measure the performance of the job: `make bench`.

Prints one table and writes it to `benchmarks/RESULTS.md`. Each figure is a ratio of two
measurements that take turns in one run: medians of several rounds. The images are photographs of
500x375 from an origin on loopback, in a process of its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from beam_pipeline.config import FIRST_PART, MAX_PART, PART_SECONDS
from beam_pipeline.process.processors import count_processors
from benchmarks import fetching, measure, photographs
from benchmarks.measure import job, median, program
from benchmarks.network import BATCH

DECODING = ("decode", "sha256", "resize", "lab", "measures")
ENCODINGS = ("lab_float32", "lab_uint8", "rgb_png")
STEADY_BATCHES = 6
# The images between which the rate is taken: in the second part, once batches have grown.
FIRST_STEADY = FIRST_PART + 64
LAST_STEADY = FIRST_STEADY + STEADY_BATCHES * BATCH
RESULTS = measure.ROOT / "benchmarks" / "RESULTS.md"

Row = tuple[str, str, str, str, str]


def row(
    name: str,
    measured: float,
    beside: float,
    unit: str,
    goal: str = "",
    measured_how: str = "",
    beside_how: str = "",
) -> Row:
    """Return a row of two figures in the same unit, each with its remark."""
    return (
        name,
        f"{measured:.3g} {unit}{measured_how}",
        f"{beside:.3g} {unit}{beside_how}",
        f"{measured / beside:.2f}",
        goal,
    )


class Bench:
    """The figures of the table: one method each, which yields rows.

    A row is (what, measured, beside, ratio, to reach).
    """

    def __init__(self, folder: Path, origin: str, checkpoint: Path, img2dataset: str, rounds: int):
        self._folder, self._origin, self._checkpoint, self._img2dataset = (
            folder,
            origin,
            checkpoint,
            img2dataset,
        )
        self._rounds = rounds
        self._bare_rates: dict[str, float] = {}

    def end_to_end(self) -> Iterator[Row]:
        """Compare the rate inside a part with that of the network, and time the change of parts."""
        gaps: list[float] = []

        def run(precision: str) -> float:
            _, times = self._time_images(precision, LAST_STEADY + 3 * BATCH)
            gaps.append(times[FIRST_PART] - times[FIRST_PART - 1])
            return (LAST_STEADY - FIRST_STEADY) / (times[LAST_STEADY] - times[FIRST_STEADY])

        for precision, goal in (("float32", "0.98"), ("bfloat16", "0.96")):
            figures = measure.in_turns(
                self._rounds,
                {
                    "run": partial(run, precision),
                    "bare": partial(self._bare_rate, precision),
                },
            )
            self._bare_rates[precision] = median(figures["bare"])
            name = f"a. end to end / bare network, {precision}"
            yield row(name, median(figures["run"]), self._bare_rates[precision], "images/s", goal)
        name = "a. from the last image of a part to the first of the next / a part"
        yield row(name, median(gaps), PART_SECONDS, "s")

    def bfloat16_error(self) -> Iterator[Row]:
        reported = json.loads(measure.ask(program("network.compare_precisions")))
        measured = (
            f"{reported['mean']:.3f} (largest {reported['largest']:.2f}, "
            f"least cosine {reported['cosine']:.5f})"
        )
        deviation = reported["deviation"]
        name = (
            "a. mean error of bfloat16 logits / their deviation from image to image, "
            "untrained weights"
        )
        yield name, measured, f"{deviation:.2f}", f"{reported['mean'] / deviation:.4f}", ""

    def statistics(self) -> Iterator[Row]:
        """Compare the cost of `--statistics` per image with that of the network.

        A commit takes some additional seconds, which are not included.
        """
        options = {name: f"--checkpoint none --statistics={name}" for name in ("true", "false")}
        rows = {
            name: partial(self._milliseconds, partial(self._job, arguments))
            for name, arguments in options.items()
        }
        figures = measure.in_turns(self._rounds, rows)
        more = median(figures["true"]) - median(figures["false"])
        for precision in ("float32", "bfloat16"):
            network = self._network_milliseconds(precision)
            name = f"a. --statistics / bare network, {precision}, of a processor for an image"
            yield row(name, more, network, "ms", "0.03")

    def curation(self) -> Iterator[Row]:
        """Compare the cost of measures and hashes per image with that of the network."""
        costs = json.loads(measure.ask(program("curation.measure_costs")))
        reported = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
        for precision in ("float32", "bfloat16"):
            network = self._network_milliseconds(precision)
            name = (
                f"a. measures and hashes / bare network, {precision}, of a processor for an image"
            )
            yield row(
                name, sum(costs.values()), network, "ms", "0.03", measured_how=f" ({reported})"
            )

    def without_network(self) -> Iterator[Row]:
        rows: dict[str, Callable[[], float]] = {
            encoding: partial(
                self._milliseconds, partial(self._job, f"--checkpoint none --encoding {encoding}")
            )
            for encoding in ("lab_float32", "rgb_png")
        }
        rows["jpg"] = partial(self._milliseconds, fetching.img2dataset(self._img2dataset))
        # Here the quality is zlib's level; img2dataset's default is meant for JPEG.
        png = "--encode_format png --encode_quality 1"
        rows["png"] = partial(self._milliseconds, fetching.img2dataset(self._img2dataset, png))
        kernels: list[dict[str, float]] = []

        def take_kernels() -> float:
            pinned = [
                "taskset",
                "-c",
                "0",
                sys.executable,
                "-m",
                "benchmarks.kernels",
                self._origin,
            ]
            kernels.append(json.loads(measure.ask(pinned)))
            return sum(kernels[-1].values())

        figures = measure.in_turns(self._rounds, {**rows, "kernels": take_kernels})
        kernel = {name: median([taken[name] for taken in kernels]) for name in kernels[0]}
        for encoding, parts, other in (
            (
                "lab_float32",
                (*DECODING, "scale", "crc", "write", "request"),
                "jpg",
            ),
            ("rgb_png", (*DECODING, "png", "crc png", "write png", "request"), "png"),
        ):
            own, those, theirs = (
                median(figures[encoding]),
                sum(kernel[part] for part in parts),
                median(figures[other]),
            )
            reported = ", ".join(
                f"{part.removesuffix(' png')} {kernel[part]:.2f}" for part in parts
            )
            name = f"b. without the network, on one processor, {encoding}"
            goal = {"jpg": "1.35", "png": "0.6"}[other]
            yield row(f"{name} / img2dataset, {other.upper()}", own, theirs, "ms", goal)
            yield row(
                f"{name}, Beam, threads and bookkeeping / the calls that do the work",
                own - those,
                those,
                "ms",
                "1.3 ms",
                beside_how=f" ({reported})",
            )

    def inputs(self) -> Iterator[Row]:
        """Compare reading from containers with fetching the same bytes from loopback."""

        def write(path: Path, images: int) -> Path:
            folder = photographs.write_folder(path.with_suffix(f".{images}"), images)
            if kind == "a tar of tars":
                return photographs.write_tar(folder, path.with_suffix(f".{images}.tar"))
            if kind == "Parquet":
                return photographs.write_parquet(folder, path.with_suffix(f".{images}.parquet"))
            return folder

        def read(images: Path, output: Path) -> list[str]:
            command = job(images, output)
            command[command.index("--input")] = "--images"
            return command

        sources: dict[str, dict[int, Path]] = {"a folder": {}, "a tar of tars": {}, "Parquet": {}}
        for kind, written in sources.items():
            for images in (measure.SHORT, measure.LONG):
                written[images] = write(self._folder / f"{kind.replace(' ', '_')}.x", images)
        rows: dict[str, Callable[[], float]] = {
            "loopback": partial(self._milliseconds, partial(self._job, "--checkpoint none"))
        }
        for kind, written in sources.items():
            rows[kind] = partial(self._milliseconds, read, partial(_get, written))
        figures = measure.in_turns(self._rounds, rows)
        for kind, goal in (("a folder", "1.0"), ("a tar of tars", "1.0"), ("Parquet", "1.1")):
            name = f"b. without the network, on one processor, {kind} / the same bytes by HTTP"
            yield row(name, median(figures[kind]), median(figures["loopback"]), "ms", goal)

    def start_up(self) -> Iterator[Row]:
        parts: list[dict[str, float]] = []

        def take_parts() -> float:
            parts.append(
                json.loads(
                    measure.ask(program("network.start", self._checkpoint, time.monotonic()))
                )
            )
            return parts[-1]["ready"]

        figures = measure.in_turns(
            self._rounds,
            {
                "first image": lambda: self._time_images("float32", 100)[0],
                "parts": take_parts,
                "no network": self._start_without_network,
            },
        )
        first = median(figures["first image"])
        imported, filled, ready = (
            median([part[name] for part in parts]) for name in ("imported", "filled", "ready")
        )
        name = "c. command to first image"
        yield row(
            f"{name} / imports, and the network filled",
            first,
            filled,
            "s",
            "1.3",
            beside_how=f" (imports {imported:.3g})",
        )
        yield row(
            f"{name} / the same, and the network traced and optimized", first, ready, "s", "1.1"
        )
        alone = f"{median(figures['no network']):.3g} s"
        yield f"{name}, without the network", alone, "", "", "4 s"

    def memory_and_growth(self) -> Iterator[Row]:
        sizes = (1_000, 4_000, 16_000)
        # 16,000 images in float32 take 17 GB: the run would measure the disk.
        options = "--checkpoint none --encoding lab_uint8"
        figures = measure.in_turns(
            self._rounds, {str(size): partial(self._use, size, options) for size in sizes}
        )
        seconds = {size: median([used.seconds for used in figures[str(size)]]) for size in sizes}
        base = median([used.megabytes for used in figures["1000"]])
        for size in (5_000, 20_000):
            name = f"d. peak memory, {size:,} images / 1,000, without the network (once)"
            yield row(name, self._use(size, options).megabytes, base, "MB", "1.05")
        few, many = (
            self._use(size, "--checkpoint untrained --precision bfloat16").megabytes
            for size in (200, 1_000)
        )
        yield row(
            "d. peak memory, 1,000 images / 200, with the network (once)", many, few, "MB", "1.10"
        )
        early, late = (seconds[4_000] - seconds[1_000]) / 3, (seconds[16_000] - seconds[4_000]) / 12
        reported = ", ".join(f"{size:,} in {seconds[size]:.1f} s" for size in sizes)
        name = "g. growth: seconds for 1,000 images more after 4,000 / after 1,000, lab_uint8"
        yield row(name, late, early, "s", "0.95 to 1.05", measured_how=f" ({reported})")

    def long_list(self) -> Iterator[Row]:
        lines, skip, urls = 14_000_000, 13_999_000, self._folder / "long.txt"
        with urls.open("w") as file:
            file.writelines(
                f"n{line % 21841:08}_{line}\thttp://farm{line % 9}.example.org/{line:016x}.jpg\n"
                for line in range(skip)
            )
            file.writelines(
                f"n_{line}\t{self._origin}/0.0/{line}.jpg\n" for line in range(skip, lines)
            )
        used = self._use_list(urls, f"--checkpoint none --skip {skip} --count 100")
        urls.unlink()
        short = self._use(100)
        name = "g. 100 images after 13,999,000 of 14 million lines / the first 100 of a list (once)"
        reported = (
            f"{used.seconds:.1f} s, {used.megabytes:.0f} MB",
            f"{short.seconds:.1f} s, {short.megabytes:.0f} MB",
        )
        yield name, *reported, f"{used.megabytes / short.megabytes:.2f} (MB)", ""

    def encodings(self) -> Iterator[Row]:
        for encoding in ENCODINGS:
            for compression in ("none", "gzip"):
                # Several shards, because the reader reads several in parallel.
                output, images, shards = self._folder / "read", 500, "--examples_per_shard 25"
                urls = photographs.write_list(self._folder / "list.txt", images, self._origin)
                measure.measure(
                    job(
                        urls,
                        output,
                        f"--checkpoint none --encoding {encoding} "
                        f"--compression {compression} {shards}",
                    )
                )
                files = json.loads((output / "dataset.json").read_text())["files"]
                size = sum(file["bytes"] for file in files) / images
                rates = json.loads(measure.ask(program("reading.read", output)))
                written = float(
                    measure.ask(program("reading.write", encoding, compression, self._folder))
                )
                name = f"{encoding}{', gzip' if compression == 'gzip' else ''}"
                reported = (
                    f"{size:,.0f} bytes",
                    f"written in {written:.1f} ms, read in {rates['milliseconds']:.1f} ms",
                )
                goal = {
                    "lab_float32, gzip": "4 ms more than without; read in 2 ms",
                    "rgb_png": "read in 4 ms",
                }.get(name, "")
                yield f"e. {name}: an example", *reported, "", goal
                yield row(
                    f"f. {name}: load / parsing alone", rates["load"], rates["bare"], "images/s"
                )
                rate = float(measure.ask(program("reading.read_at_random", output)))
                goal = {"lab_uint8": "2,000", "lab_uint8, gzip": "200"}.get(name, "")
                yield f"f. {name}: examples[i]", f"{rate:,.0f} images/s", "", "", goal
                subprocess.run(["rm", "-r", output], check=True)

    def workers(self) -> Iterator[Row]:
        modes = {
            "2 worker threads": "--direct_num_workers 2 --direct_running_mode multi_threading",
            "2 worker processes": "--direct_num_workers 2 --direct_running_mode multi_processing",
        }
        # All images in one part, however many workers there are.
        one_part = f"--urls_per_commit {MAX_PART}"
        without_network = f"--checkpoint none {one_part}"
        rows: dict[str, Callable[[], float]] = {
            "1 worker on 1 processor": partial(self._rate, without_network, {0}),
            "1 worker": partial(self._rate, without_network),
            **{
                name: partial(self._rate, f"{without_network} {mode}")
                for name, mode in modes.items()
            },
            "1 plain loop": partial(self._loop, 1),
            "2 plain loops": partial(self._loop, 2),
        }
        rates = {
            name: median(values) for name, values in measure.in_turns(self._rounds, rows).items()
        }
        one_processor, loop = rates["1 worker on 1 processor"], rates["1 plain loop"]
        name = "h. two processors / one: decoding, resizing and Lab in plain loops"
        yield row(name, rates["2 plain loops"], loop, "images/s")
        for name in modes:
            yield row(
                f"h. {name} / 1 worker, without the network",
                rates[name],
                rates["1 worker"],
                "images/s",
            )
        for name in ("1 worker", *modes):
            yield row(
                f"h. {name} / 1 worker on 1 processor, without the network",
                rates[name],
                one_processor,
                "images/s",
                "1.8",
            )
        network = f"--checkpoint untrained --precision bfloat16 {one_part}"
        rows = {
            "1 worker": partial(self._rate, network, short=64, long=256),
            **{
                name: partial(self._rate, f"{network} {mode}", short=64, long=256)
                for name, mode in modes.items()
            },
        }
        rates = {
            name: median(values) for name, values in measure.in_turns(self._rounds, rows).items()
        }
        for name, mode in modes.items():
            loads = self._count_loads(f"{network} {mode}")
            loaded = f", network loaded {loads} times"
            yield row(
                f"h. {name} / 1 worker, bfloat16",
                rates[name],
                rates["1 worker"],
                "images/s",
                measured_how=loaded,
            )

    def _start_without_network(self) -> float:
        urls, began = self._write_list(self._folder / "list.txt", 100), time.monotonic()
        with self._output() as output:
            process = subprocess.Popen(
                job(urls, output), cwd=measure.ROOT, stderr=subprocess.DEVNULL
            )
            written = _wait_for_record(output, process)
            process.wait()
        return written - began

    def _time_images(self, precision: str, images: int) -> tuple[float, list[float]]:
        """Run the command with the network.

        Returns:
          The seconds from the start of the command to the first image written, and the time at
          which it reported each image.
        """
        urls = photographs.write_list(self._folder / "list.txt", images, self._origin)
        options = f"--checkpoint {self._checkpoint} --precision {precision} --verbose"
        began = time.monotonic()
        with self._output() as output:
            process = subprocess.Popen(
                job(urls, output, options), cwd=measure.ROOT, stderr=subprocess.PIPE, text=True
            )
            assert process.stderr
            with concurrent.futures.ThreadPoolExecutor(1) as executor:
                written = executor.submit(_wait_for_record, output, process)
                times = [time.monotonic() for line in process.stderr if self._origin in line]
            process.wait()
        assert len(times) == images
        return written.result() - began, times

    def _bare_rate(self, precision: str) -> float:
        return float(measure.ask(program("network.bare", precision, STEADY_BATCHES)))

    def _network_milliseconds(self, precision: str) -> float:
        """Return the processor milliseconds of the network for an image, measured if need be."""
        if precision not in self._bare_rates:
            self._bare_rates[precision] = self._bare_rate(precision)
        return 1000 * count_processors() / self._bare_rates[precision]

    def _milliseconds(
        self,
        make: Callable[[Path, Path], list[str]],
        write: Callable[[Path, int], Path] | None = None,
    ) -> float:
        """Return processor milliseconds per image on one processor.

        Two processors that share a core would slow each other down.
        """
        return measure.slope(make, write or self._write_list, self._folder, processors={0})[1]

    def _rate(
        self, options: str, processors: set[int] | None = None, short: int = 300, long: int = 3_300
    ) -> float:
        return measure.slope(
            partial(self._job, options), self._write_list, self._folder, short, long, processors
        )[0]

    def _use(self, images: int, options: str = "--checkpoint none") -> measure.Usage:
        return self._use_list(
            photographs.write_list(self._folder / "list.txt", images, self._origin), options
        )

    def _use_list(self, urls: Path, options: str) -> measure.Usage:
        with self._output() as output:
            return measure.measure(job(urls, output, options))

    def _count_loads(self, options: str) -> int:
        urls = photographs.write_list(self._folder / "list.txt", 100, self._origin)
        with self._output() as output:
            done = subprocess.run(
                job(urls, output, f"{options} --verbose"),
                cwd=measure.ROOT,
                check=True,
                stderr=subprocess.PIPE,
                text=True,
            )
        return done.stderr.count("loaded the network")

    def _loop(self, processes: int) -> float:
        loops = [
            subprocess.Popen(
                program("kernels.repeat", 10), cwd=measure.ROOT, stdout=subprocess.PIPE, text=True
            )
            for _ in range(processes)
        ]
        return sum(float(loop.communicate()[0]) for loop in loops)

    def _job(self, options: str, urls: Path, output: Path) -> list[str]:
        return job(urls, output, options)

    def _write_list(self, path: Path, images: int) -> Path:
        return photographs.write_list(path, images, self._origin)

    @contextlib.contextmanager
    def _output(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder) / "dataset"


def _get(written: Mapping[int, Path], unused_path: Path, images: int) -> Path:
    return written[images]


def _wait_for_record(output: Path, process: subprocess.Popen[Any]) -> float:
    """Return the time at which a shard, still under a temporary name, is not empty."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if any(path.stat().st_size for path in output.glob("beam-temp-lab_images*/*")):
                return time.monotonic()
        time.sleep(0.02)
    raise RuntimeError("the run has ended without a record")


def write_checkpoint(path: Path) -> Path:
    """Write a checkpoint of the published one's size, with untrained weights."""
    import tensorflow as tf

    from beam_pipeline.embedding import checkpoints

    variables = checkpoints.expected_variables()
    weights = [checkpoints.untrained_weights(name, shape) for name, shape in variables.items()]
    tf.raw_ops.Save(filename=str(path), tensor_names=list(variables), data=weights)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--img2dataset", required=True, help="the python of an environment that has img2dataset"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only",
        nargs="*",
        help="names of methods of Bench: the rows of others stay as they are, "
        "whenever they were taken",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, photographs.serve() as origin:
        checkpoint = write_checkpoint(Path(folder) / "inception_resnet_v2.ckpt")
        bench = Bench(Path(folder), origin, checkpoint, options.img2dataset, options.rounds)
        figures = [
            bench.end_to_end,
            bench.bfloat16_error,
            bench.statistics,
            bench.curation,
            bench.without_network,
            bench.inputs,
            bench.start_up,
        ]
        figures += [bench.memory_and_growth, bench.long_list, bench.encodings, bench.workers]
        for figure in figures:
            if not options.only or figure.__name__ in options.only:
                rows += figure()
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if options.only and RESULTS.exists():
        names = {row[0] for row in rows}
        old = [line for line in RESULTS.read_text().splitlines() if re.match(r"\| [a-h]\.", line)]
        lines += [line for line in old if line.split(" | ")[0].removeprefix("| ") not in names]
    text = "\n".join(
        [
            "# Results\n",
            f"{measure.describe_machine()} {photographs.WIDTH}x{photographs.HEIGHT} JPEGs "
            "from an origin on the same machine; "
            f"medians of {options.rounds} rounds that take turns. "
            "Rows marked once were measured once; e and f use one dataset each. "
            "Written by `make bench`"
            f"{', which measured some rows at another time' if options.only else ''}.\n",
            "| figure | measured | beside | ratio | to reach |",
            "| --- | --- | --- | --- | --- |",
            *sorted(lines, key=lambda line: line[2]),
            "",
        ]
    )
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()

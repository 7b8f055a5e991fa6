"""Measure the network on a machine with a GPU, alone and in the job: `make bench-gpu`.

Prints one table. It also runs without a GPU, on the processors, which takes an hour; `--images` and
`--batches` make it shorter.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

from beam_pipeline.config import Config
from beam_pipeline.launch import runner_options
from benchmarks import measure, photographs

BATCH_SIZES = (32, 64, 128, 256)
PRECISIONS = ("float32", "bfloat16")


def describe_devices() -> None:
    """Print the GPUs that TensorFlow uses."""
    import tensorflow as tf

    names = [
        tf.config.experimental.get_device_details(device).get("device_name", device.name)
        for device in tf.config.list_physical_devices("GPU")
    ]
    print(", ".join(names) or "no GPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="of the job")
    parser.add_argument("--batches", type=int, default=30, help="of the network alone")
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS)
    parser.add_argument("--batch_sizes", nargs="*", type=int, default=BATCH_SIZES)
    options = parser.parse_args()
    print(f"{measure.describe_machine()} {measure.ask(measure.program('gpu.describe_devices'))}.\n")
    print("| | images a second |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder, photographs.serve() as origin:
        write_list = functools.partial(photographs.write_list, origin=origin)
        for precision in options.precisions:
            rates = {}
            for size in options.batch_sizes:
                command = measure.program("network.bare", precision, options.batches, size)
                rates[size] = float(measure.ask(command))
                print(f"| network alone, {precision}, batches of {size} | {rates[size]:.1f} |")
            best = max(rates, key=lambda size: rates[size])
            arguments = f"--checkpoint untrained --precision {precision} --batch_size {best}"
            processes = runner_options.choose_processes(Config(input="list", output=folder))
            rate, milliseconds = measure.slope(
                functools.partial(measure.job, options=arguments),
                write_list,
                Path(folder),
                short=options.images // 10,
                long=options.images,
            )
            print(
                f"| the job, {precision}, batches of {best}, worker processes: {processes}; "
                f"{milliseconds:.1f} ms of a processor an image | {rate:.1f} |"
            )


if __name__ == "__main__":
    main()

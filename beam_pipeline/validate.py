"""Read a dataset again and report whether it is complete.

Run it with `python -m beam_pipeline.validate DATASET`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from beam_pipeline.images import lab_color
from beam_pipeline.naming import SPLITS
from beam_pipeline.process import console
from beam_pipeline.reading import dataset_dir, numpy_reader, validation
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.reporting import class_names

_EXPORTED, _MAX_REPORTED = 100, 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 the dataset is complete, 1 it is not, 2 there is no dataset, or the command
      line is not usable.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipeline.validate", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="the folder, on any filesystem that Beam supports"
    )
    parser.add_argument(
        "--show", metavar="N", type=_count, default=0, help="number of examples to print first"
    )
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="write those, or the first 100, as NAME.jpeg and NAME.grey.jpeg",
    )
    parser.add_argument(
        "--class_names",
        metavar="FILE",
        help="class names, to print the best: imagenet1000_clsid_to_human.pkl or text",
    )
    options = parser.parse_args(argv)
    if options.class_names and not options.show:
        parser.error("--class_names names the classes of what --show N prints")
    try:
        folder = dataset_dir.open_dataset_dir(options.dataset)
        names = class_names.read(options.class_names) if options.class_names else None
        if options.export:
            Path(options.export).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        return console.complain(str(error), 2)
    number = options.show or (_EXPORTED if options.export else 0)
    try:
        # The check below reports broken examples.
        with contextlib.suppress(ValueError, LookupError, TypeError):
            for example in itertools.islice(_examples(folder), number):
                if options.show:
                    console.write_line(describe_example(example, names))
                if options.export:
                    export(example, Path(options.export))
    except OSError as error:
        return console.complain(f"--export {error}", 2)
    reported = itertools.count(1)

    def report(problem: str) -> None:
        if (count := next(reported)) <= _MAX_REPORTED:
            console.write_line(problem)
        elif count == _MAX_REPORTED + 1:
            console.write_line("... and more problems, which are not listed")

    problems, verdict = validation.check(folder, report)
    console.write_line(verdict)
    return 1 if problems else 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of examples")
    return int(text)


def _examples(folder: DatasetDir) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        yield from numpy_reader.Examples([folder], split)


def describe_example(example: dict[str, Any], names: list[str] | None = None) -> str:
    """Format an example in a few lines for a person.

    Args:
      example: An example as `dataset.examples` returns it.
      names: The 1,000 class names, to list the best five classes; None for no such line.

    Returns:
      The texts and numbers of the example, and the dtype, shape, range and mean of each array.
    """
    lines = [ascii(example["image_name"].decode(errors="replace"))[1:-1]]
    for name, value in example.items():
        if isinstance(value, np.ndarray):
            text = (
                f"{value.dtype} {value.shape}, {value.min():.3f} to {value.max():.3f}, "
                f"mean {value.mean():.3f}"
            )
        else:
            text = (
                ascii(value.decode(errors="replace"))[1:-1]
                if isinstance(value, bytes)
                else str(value)
            )
        if name != "image_name":
            lines.append(f"  {name:<16} {text}")
    if names and "image_embedding" in example:
        lines.append(
            f"  {'best classes':<16} "
            f"{'; '.join(class_names.best(example['image_embedding'], names))}"
        )
    return "\n".join(lines)


def export(example: dict[str, Any], folder: Path) -> None:
    """Write an example's image to a folder as NAME.jpeg (colour) and NAME.grey.jpeg, quality 92."""
    # `image_name` is untrusted: in a broken dataset it may be any path.
    name = hashlib.md5(example["image_url"], usedforsecurity=False).hexdigest()
    pixels = lab_color.lab_to_rgb(lab_color.unscale_lab(example["image_l"], example["image_ab"]))
    grey = lab_color.lab_to_rgb(
        lab_color.unscale_lab(example["image_l"], np.zeros_like(example["image_ab"]))
    )
    Image.fromarray(pixels).save(folder / f"{name}.jpeg", quality=92)
    Image.fromarray(grey).convert("L").save(folder / f"{name}.grey.jpeg", quality=92)


if __name__ == "__main__":
    sys.exit(console.run(main))

"""The command that reads a finished dataset again and tells whether it is whole: `python -m beam_pipeline.validate DATASET`."""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from beam_pipeline.images import lab_color
from beam_pipeline.launch import console
from beam_pipeline.reading import dataset_dir, numpy_reader
from beam_pipeline.reading.dataset_dir import SPLITS, Folder
from beam_pipeline.reporting import class_names, sampling
from beam_pipeline.reporting.sampling import ShardSurvey

# What a run writes beside the dataset itself.
BESIDE = (dataset_dir.DESCRIPTION, dataset_dir.METRICS, dataset_dir.REPORT)
_EXPORTED, _TOLD = 100, 100


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Gives its exit status: 0 the dataset is whole, 1 it is not, 2 there is none, or the command is wrong."""
    parser = argparse.ArgumentParser(prog="python -m beam_pipeline.validate", description=__doc__, allow_abbrev=False)
    parser.add_argument("dataset", metavar="DATASET", help="the folder, on any filesystem that Beam knows")
    parser.add_argument("--show", metavar="N", type=_count, default=0, help="print so many examples first")
    parser.add_argument("--export", metavar="DIR", help="write those, or the first 100, as NAME.jpeg and NAME.grey.jpeg")
    parser.add_argument("--labels", metavar="FILE", help="class names, to print the best: imagenet1000_clsid_to_human.pkl or text")
    options = parser.parse_args(argv)
    if options.labels and not options.show:
        parser.error("--labels names the classes of what --show N prints")
    try:
        folder = dataset_dir.find(options.dataset)
        names = class_names.read(options.labels) if options.labels else None
        if options.export:
            Path(options.export).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        return console.complain(str(error), 2)
    number = options.show or (_EXPORTED if options.export else 0)
    try:
        # What is wrong with them is told by the check.
        with contextlib.suppress(ValueError, LookupError, TypeError):
            for example in itertools.islice(_examples(folder), number):
                if options.show:
                    console.write_line(describe_example(example, names))
                if options.export:
                    export(example, Path(options.export))
    except OSError as error:
        return console.complain(f"--export {error}", 2)
    told = itertools.count(1)

    def tell(problem: str) -> None:
        if (number := next(told)) <= _TOLD:
            console.write_line(problem)
        elif number == _TOLD + 1:
            console.write_line("... and more")

    problems, verdict = check(folder, tell)
    console.write_line(verdict)
    return 1 if problems else 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"it is a number of examples, not {text!r}")
    return int(text)


def check(folder: Folder, tell: Callable[[str], None] = lambda problem: None) -> tuple[list[str], str]:
    """Reads a dataset again, and holds it against its `dataset.json`.

    Args:
      folder: Of the dataset.
      tell: Called with each problem when it is found.

    Returns:
      What is wrong, each in a line that names the file; and the verdict, in a line or more.
    """
    problems: list[str] = []
    surveys: list[ShardSurvey] = []
    try:
        for problem in _find_problems(folder, surveys):
            problems.append(problem)
            tell(problem)
    except (LookupError, TypeError, AttributeError) as error:
        problems.append(f"{dataset_dir.DESCRIPTION} is not as a run writes it: {type(error).__name__}: {error}")
        tell(problems[-1])
    return problems, f"{folder.path} is not whole: {len(problems):,} problems" if problems else _describe(folder, surveys)


def _find_problems(folder: Folder, surveys: list[ShardSurvey]) -> Iterator[str]:
    """Tells of all that is wrong; adds what it has found in each shard."""
    yield from _check_files(folder)
    yield from _check_counts(folder.description)
    reasons, wrong = sampling.check_failures(folder)
    yield from wrong
    if not wrong and reasons != folder.description["counts"]["failures_by_reason"]:
        yield f"the files of failures tell {reasons}, {dataset_dir.DESCRIPTION} others"
    shards = folder.shards(*SPLITS)
    task = functools.partial(sampling.check_shard, folder.head)
    for found in sampling.map_in_processes(task, shards, sum(shard.examples for shard in shards)):
        surveys.append(found)
        yield from found.problems
    yield from _find_repeated_names(surveys)


def _check_files(folder: Folder) -> Iterator[str]:
    there = dataset_dir.list_files(folder.path)
    description = folder.description
    listed = {file["name"]: file["bytes"] for kind in ("files", "failure_files", "transform") for file in description[kind]}
    for name, size in listed.items():
        if name not in there:
            yield f"{name} is missing"
        elif there[name] != size:
            yield f"{name} has {there[name]:,} bytes, {dataset_dir.DESCRIPTION} tells {size:,}"
    for name in sorted({name.partition("/")[0] for name in set(there) - set(listed) - set(BESIDE)}):
        yield f"{name} is foreign: {dataset_dir.DESCRIPTION} does not list {'all in it' if name == dataset_dir.TRANSFORM else 'it'}"


def _check_counts(description: dict[str, Any]) -> Iterator[str]:
    counts = description["counts"]
    if counts["lines"] != sum(counts[key] for key in ("ignored", "duplicates", "examples", "failures")):
        yield f"{dataset_dir.DESCRIPTION} does not balance: {counts}"
    for key, name in (("examples", "files"), ("failures", "failure_files")):
        if counts[key] != (total := sum(file[key] for file in description[name])):
            yield f"{dataset_dir.DESCRIPTION} tells {counts[key]:,} {key}, its files hold {total:,}"


def _find_repeated_names(surveys: Sequence[ShardSurvey]) -> Iterator[str]:
    """Tells of each image that stands twice, in one split or in both. Names take some 50 bytes each."""
    names = np.frombuffer(b"".join(found.names for found in surveys), "S16")
    places = np.repeat(np.arange(len(surveys)), [len(found.names) // 16 for found in surveys])
    order = np.argsort(names, kind="stable")
    again = np.flatnonzero(names[order[1:]] == names[order[:-1]])
    for index in again:
        one, other = (surveys[places[order[place]]].shard for place in (index, index + 1))
        # NumPy drops zeros at the end of bytes.
        name = bytes(names[order[index]]).ljust(16, b"\0").hex() + ".jpeg"
        where = "in both splits" if one.split != other.split else "twice"
        yield f"{name} stands {where}: in {one.name} and in {other.name}"


def _describe(folder: Folder, surveys: Sequence[ShardSurvey]) -> str:
    counts = collections.Counter(dict.fromkeys(SPLITS, 0))
    ranges: dict[str, tuple[float, float]] = {}
    for found in surveys:
        counts[found.shard.split] += found.examples
        for name, (least, largest) in found.ranges.items():
            known = ranges.get(name, (least, largest))
            ranges[name] = min(known[0], least), max(known[1], largest)
    lines = [
        f"{folder.path} is whole: {counts['train']:,} examples for training and {counts['validation']:,} for validation "
        f"in {len(surveys):,} shards"
    ]
    lines += [f"  {name:<16} {least:.4g} to {largest:.4g}" for name, (least, largest) in ranges.items()]
    return "\n".join(lines)


def _examples(folder: Folder) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        yield from numpy_reader.Examples(folder, split)


def describe_example(example: dict[str, Any], names: list[str] | None = None) -> str:
    """An example in a few lines: its texts, and of each array shape, range and mean; the best five classes if there are names."""
    lines = [ascii(example["image_name"].decode(errors="replace"))[1:-1]]
    for name, value in example.items():
        if isinstance(value, np.ndarray):
            told = f"{value.dtype} {value.shape}, {value.min():.3f} to {value.max():.3f}, mean {value.mean():.3f}"
        else:
            told = ascii(value.decode(errors="replace"))[1:-1] if isinstance(value, bytes) else str(value)
        if name != "image_name":
            lines.append(f"  {name:<16} {told}")
    if names and "image_embedding" in example:
        lines.append(f"  {'best classes':<16} {'; '.join(class_names.best(example['image_embedding'], names))}")
    return "\n".join(lines)


def export(example: dict[str, Any], folder: Path) -> None:
    """Writes an example's image, in colour and in grey, as JPEG."""
    # That of a dataset which is not whole may be any path.
    name = hashlib.md5(example["image_url"], usedforsecurity=False).hexdigest()
    pixels = lab_color.lab_to_rgb(lab_color.unscale_lab(example["image_l"], example["image_ab"]))
    grey = lab_color.lab_to_rgb(lab_color.unscale_lab(example["image_l"], np.zeros_like(example["image_ab"])))
    Image.fromarray(pixels).save(folder / f"{name}.jpeg", quality=92)
    Image.fromarray(grey).convert("L").save(folder / f"{name}.grey.jpeg", quality=92)


if __name__ == "__main__":
    sys.exit(console.run(main))

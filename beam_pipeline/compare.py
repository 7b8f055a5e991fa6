"""Compare two datasets: options, counts, and the images that died, changed, revived or moved.

Run it with `python -m beam_pipeline.compare A B`. It reads metadata-*.parquet, and no image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence

from beam_pipeline.process import console
from beam_pipeline.reading import comparison, dataset_dir
from beam_pipeline.reading.comparison import Comparison

_MEANINGS = {
    "died": "in A, not in B",
    "revived": "in B, not in A",
    "changed": "another sha256",
    "moved": "another split",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 the images are the same, 1 they differ, 2 a dataset cannot be read, or the
      command line is not usable.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipeline.compare", description=__doc__, allow_abbrev=False
    )
    for name, help_text in (("a", "the first folder"), ("b", "the second folder")):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{help_text}, on any filesystem that Beam supports",
        )
    parser.add_argument(
        "--list",
        metavar="N",
        type=_count,
        default=5,
        help="number of URLs to list for each change (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    folders = options.a, options.b
    try:
        a, b = map(dataset_dir.open_dataset_dir, folders)
        found = comparison.compare(a, b, options.list)
    except (OSError, ValueError) as error:
        return console.complain(str(error), 2)
    if options.json:
        console.write_line(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        for line in describe(found, folders):
            console.write_line(line)
    return 1 if found.differs else 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of URLs")
    return int(text)


def describe(found: Comparison, folders: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a comparison for a person."""
    for index, (letter, folder) in enumerate(zip("AB", folders, strict=True)):
        numbers = {name: pair[index] for name, pair in found.counts.items()}
        yield (
            f"{letter}: {folder}: {numbers['train']:,} training, "
            f"{numbers['validation']:,} validation, {numbers['failures']:,} failed"
        )
    yield "options that differ:" if found.options else "The options are the same."
    for name, (in_a, in_b) in found.options.items():
        yield f"  {'' if ' ' in name else '--'}{name}: {in_a} -> {in_b}"
    yield "images:"
    yield f"  {found.same:>12,} the same"
    for name, meaning in _MEANINGS.items():
        change = getattr(found, name)
        yield f"  {change.images:>12,} {name} ({meaning})"
        for reason, number in change.reasons.items():
            yield f"  {number:>16,} {reason}"
        for url in change.urls:
            yield f"                   {ascii(url)[1:-1]}"


if __name__ == "__main__":
    sys.exit(console.run(main))

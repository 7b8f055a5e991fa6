"""The page about a finished dataset, `report.html` in its folder: `python -m beam_pipeline.report DATASET`.

One file that asks for nothing from the network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from beam_pipeline import console, finished, labels
from beam_pipeline.finished import REPORT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Gives its exit status: 0 done, 1 a shard cannot be read, 2 the command is not usable."""
    parser = argparse.ArgumentParser(prog="python -m beam_pipeline.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("dataset", metavar="DATASET", help="the folder, on any filesystem that Beam knows")
    parser.add_argument(
        "--labels", metavar="FILE", help="class names: imagenet1000_clsid_to_human.pkl or text; by default those of the run"
    )
    options = parser.parse_args(argv)
    try:
        finished.find(options.dataset)
        if options.labels:
            labels.read(options.labels)
    except (OSError, ValueError) as error:
        return console.complain(str(error), 2)
    try:
        console.write_line(write(options.dataset, options.labels))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        told = (
            str(error) if isinstance(error, (OSError, ValueError)) else f"{finished.DESCRIPTION} lacks what a run writes: {error!r}"
        )
        return console.complain(f"{told}; python -m beam_pipeline.inspect {options.dataset} tells more", 1)
    return 0


def write(path: str, labels_path: str | None = None) -> str:
    """Writes the report of a finished dataset into its folder. Gives the report's path.

    Args:
      path: The folder, on any filesystem that Beam knows.
      labels_path: A list of class names, as `labels.read` takes it.

    Raises:
      FileNotFoundError: the folder holds no finished dataset.
      ValueError: a shard, or the list of names, is broken.
    """
    # The processes that read shards import this module, and need neither Beam nor charts.
    from beam_pipeline import files, page

    html = page.render(finished.find(path), labels.read(labels_path) if labels_path else None)
    target = finished.join(path, REPORT)
    files.write_bytes(target, html.encode(errors="backslashreplace"))
    return target


if __name__ == "__main__":
    sys.exit(console.run(main))

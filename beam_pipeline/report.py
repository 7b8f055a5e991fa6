"""Write report.html, a page about a complete dataset, to its folder.

Run it with `python -m beam_pipeline.report DATASET`. The page is one file and loads nothing from
the network.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from beam_pipeline.process import console
from beam_pipeline.reading import dataset_dir
from beam_pipeline.reporting import class_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 done, 1 a shard cannot be read, 2 the command line is not usable.
    """
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipeline.report", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="the folder, on any filesystem that Beam supports"
    )
    parser.add_argument(
        "--class_names",
        metavar="FILE",
        help="class names: imagenet1000_clsid_to_human.pkl or text; by default those of the run",
    )
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        dataset_dir.open_dataset_dir(options.dataset)
        if options.class_names:
            class_names.read(options.class_names)
    except (OSError, ValueError) as error:
        return console.complain(str(error), 2)
    # Processes that read shards import this module but need neither Beam nor charts.
    from beam_pipeline.reporting import page

    try:
        console.write_line(page.write(options.dataset, options.class_names))
    except (OSError, ValueError) as error:
        return console.complain(
            f"{error}; run python -m beam_pipeline.validate {options.dataset} for more", 1
        )
    return 0


if __name__ == "__main__":
    sys.exit(console.run(main))

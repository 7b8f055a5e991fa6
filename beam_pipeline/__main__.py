"""The command that lists the commands: `python -m beam_pipeline`."""

from __future__ import annotations

import sys

from beam_pipeline.process import console

_COMMANDS = """\
python -m beam_pipeline.run             make a dataset; also installed as beam-pipeline
python -m beam_pipeline.validate        read a dataset again and report whether it is complete
python -m beam_pipeline.compare         compare two datasets, without reading their images
python -m beam_pipeline.export          write a dataset as WebDataset or ArrayRecord
python -m beam_pipeline.report          write report.html, a page about a dataset
python -m beam_pipeline.flex_template   print the container spec of Dataflow's Flex Template
Each has --help."""


def main() -> int:
    console.write_line(_COMMANDS)
    return 0


if __name__ == "__main__":
    sys.exit(console.run(main))

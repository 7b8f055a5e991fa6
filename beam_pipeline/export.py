"""Write the examples of a dataset in the format of another library, without computing anything.

Run it with `python -m beam_pipeline.export DATASET --to webdataset --output DIR`.
"""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Sequence

from beam_pipeline.config import UsageError
from beam_pipeline.launch import command_line
from beam_pipeline.process import beam_settings, console, signals
from beam_pipeline.process.console import complain
from beam_pipeline.reading import near_duplicates
from beam_pipeline.reading.export_info import Format


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 done, 1 the job failed, 2 the command line, the dataset or the output
      folder is not usable.
    """
    signals.end_on_signals(
        "Interrupted. Run the same command with --overwrite to start the export again."
    )
    beam_settings.prepare()
    settings, beam_argv = _make_parser().parse_known_args(argv)
    try:
        command_line.check_beam_flags(beam_argv, {f"--{name}" for name in vars(settings)})
        beam_settings.quieten(settings.verbose)
        # Beam takes seconds to import; --help and most usage errors respond at once.
        from beam_pipeline.exporting.export_options import ExportOptions
        from beam_pipeline.launch import export_launcher

        options = ExportOptions(
            settings.dataset,
            settings.to,
            settings.output,
            settings.examples_per_shard,
            settings.exclude,
        )
        with beam_settings.temporary_folder():
            return export_launcher.run(options, settings.overwrite, settings.verbose, beam_argv)
    except UsageError as error:
        return complain(str(error), 2)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipeline.export",
        description=__doc__,
        epilog="The dataset comes first. Any other option goes to Beam, such as --runner or "
        "--direct_num_workers.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="the folder, on any filesystem that Beam supports"
    )
    parser.add_argument("--to", required=True, choices=typing.get_args(Format), help="the format")
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder for the shards, which holds nothing"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the export that --output already holds"
    )
    parser.add_argument(
        "--examples_per_shard",
        metavar="N",
        type=_positive,
        default=500,
        help="maximum number of examples in a shard (default: 500)",
    )
    parser.add_argument(
        "--exclude",
        metavar="KINDS",
        type=_kinds,
        default=(),
        help=f"examples to leave out: {','.join(near_duplicates.KINDS)}, or one of them; as in "
        "dataset.load",
    )
    parser.add_argument("--verbose", action="store_true", help="log Beam's messages")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of examples")
    return int(text)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := set(kinds) - set(near_duplicates.KINDS):
        raise argparse.ArgumentTypeError(
            f"{min(unknown)!r} is not known: it is {' or '.join(near_duplicates.KINDS)}"
        )
    return kinds


if __name__ == "__main__":
    sys.exit(console.run(main))

"""The main command: argv -> Config and Beam's options -> launch/launcher.py -> exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from beam_pipeline.config import UsageError
from beam_pipeline.launch import command_line
from beam_pipeline.process import beam_settings, console, signals
from beam_pipeline.process.console import complain


def cli() -> int:
    """Run the command with the arguments of this process. Return its exit status."""
    return console.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      The exit status: 0 done, 1 the job failed or no example was written, 2 the command line is not
      usable.
    """
    signals.end_on_signals(
        "Interrupted. Completed parts are kept; run the same command again to resume."
    )
    beam_settings.prepare()
    try:
        config, given, beam_argv = command_line.parse(sys.argv[1:] if argv is None else argv)
        beam_settings.quieten(config.verbose)
        # Beam and TensorFlow take seconds to import; --help and most usage errors respond at once.
        from beam_pipeline.launch import launcher

        with beam_settings.temporary_folder():
            return launcher.run(config, given, beam_argv)
    except UsageError as error:
        return complain(str(error), 2)


if __name__ == "__main__":
    sys.exit(cli())

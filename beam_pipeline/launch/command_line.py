"""The command-line parser: argv -> Config and Beam's arguments.

It is generated from Config's fields. Beam is imported only for flags that are not the project's.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import typing
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import beam_pipeline
from beam_pipeline.config import Config, Group, UsageError, choices_of, type_of


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(f"{message}; --help lists the options")


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"it must be true or false, not {text!r}")
    return text == "true"


class CommandLine(NamedTuple):
    """A parsed command line.

    Attributes:
      config: The options.
      given: Names of the options that the user gave.
      beam_argv: The arguments for Beam, in order.
    """

    config: Config
    given: frozenset[str]
    beam_argv: list[str]


def parse(argv: Sequence[str]) -> CommandLine:
    """Split a command line into the project's own options and Beam's.

    Raises:
      UsageError: a flag is neither the project's nor Beam's, or the value of an option is missing
        or invalid.
    """
    values, rest = _make_parser().parse_known_args(argv)
    check_beam_flags(rest)
    return CommandLine(Config(**vars(values)), frozenset(vars(values)), rest)


def _make_parser() -> _Parser:
    parser = _Parser(
        prog="python -m beam_pipeline.run",
        usage="%(prog)s --input FILE --output FOLDER [OPTION ...]",
        description=(
            "Turn images into TFRecords of CIE Lab planes and Inception-ResNet-v2 embeddings."
        ),
        epilog=(
            "Example: %(prog)s --input urls.txt --output data/tfrecords --validation_fraction 0.02"
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=beam_pipeline.__version__)
    groups = {name: parser.add_argument_group(name) for name in typing.get_args(Group)}
    for field in dataclasses.fields(Config):
        help_text = field.metadata["help"]
        # A default of None, False or an empty string adds nothing to the help text.
        if field.default not in (None, "") and field.default is not False:
            help_text = f"{help_text} (default: {field.default})"
        help_text = help_text.replace("%", "%%")
        group = groups[field.metadata["group"]]
        group.add_argument(
            f"--{field.name}", help=help_text, default=argparse.SUPPRESS, **_value_of(field)
        )
    beam_group = parser.add_argument_group("Beam")
    beam_group.description = (
        "Any other option goes to Beam, such as --runner (default: DirectRunner) or "
        "--direct_num_workers."
    )
    return parser


def _value_of(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """Return the arguments of `add_argument` that describe the value of an option."""
    kind = type_of(field.name)
    if kind is bool:
        # The value is optional on a command line, but a Flex Template's launcher always passes one.
        return {"nargs": "?", "const": True, "type": _boolean, "metavar": "true|false"}
    choices = choices_of(field.name)
    if choices:
        return {"type": kind, "metavar": "{" + ",".join(choices) + "}"}
    return {"type": kind, "metavar": field.metadata["metavar"] or {int: "N", float: "X"}[kind]}


def check_beam_flags(beam_argv: Sequence[str], own: Collection[str] | None = None) -> None:
    """Refuse flags that are neither the command's nor Beam's, which Beam itself would ignore.

    Args:
      beam_argv: The arguments for Beam.
      own: The flags of the command; by default those of `Config`.

    Raises:
      UsageError: a flag is unknown; the message names it and the closest known flag.
    """
    # The launcher of Flex Templates checks parameters itself, and adds its own flags.
    is_checked = any(argument.startswith("--template_location") for argument in beam_argv)
    if is_checked or not beam_argv:
        return
    if own is None:
        own = {f"--{field.name}" for field in dataclasses.fields(Config)}
    known = {*own, *_beam_flags()}
    previous = ""
    for argument in beam_argv:
        flag = argument.partition("=")[0]
        if flag.startswith("-") and not re.fullmatch(r"-[\d.]+", flag):
            if flag not in known:
                likely = difflib.get_close_matches(flag, own, 1) or difflib.get_close_matches(
                    flag, sorted(known), 1
                )
                raise UsageError(
                    f"{flag} is not an option; "
                    + (f"did you mean {likely[0]}?" if likely else "--help lists them")
                )
        elif not previous.startswith("-") or "=" in previous:
            raise UsageError(f"{argument!r} is where an option was expected; --help lists them")
        previous = argument


class _FlagRecorder:
    """Records the flags that Beam's options add to a parser."""

    def __init__(self) -> None:
        self.flags: set[str] = set()

    def add_argument(self, *flags: str, **_settings: Any) -> None:
        self.flags.update(flags)

    add_value_provider_argument = add_argument


def _beam_flags() -> set[str]:
    """Return the flags of Beam. Importing Beam takes a second or two."""
    from apache_beam.options.pipeline_options import PipelineOptions

    recorder = _FlagRecorder()
    for options in PipelineOptions.__subclasses__():
        # Beam documents this method as the hook of subclasses, in spite of its name.
        options._add_argparse_args(recorder)  # type: ignore[arg-type]
    return recorder.flags

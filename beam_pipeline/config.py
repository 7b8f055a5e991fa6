"""Config: every option, its default, its help text and its check, once.

A new option is one field here and one use elsewhere: the command line is made from the fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any, Literal

import beam_pipeline

PUBLISHED_CHECKPOINT = "http://download.tensorflow.org/models/inception_resnet_v2_2016_08_30.tar.gz"

# How patient fetching is; the rest is options.
RETRY_DEADLINE = 180.0  # seconds in which the last try for an image must begin, however long a server asks to wait
BACKOFF = 0.5  # seconds before the second try; doubled for each further one, with jitter
MAX_REDIRECTS = 10
HOST_STRIKES = 8  # failed name look-ups or connections in a row after which a host is given up

Resize = Literal["pad", "crop", "stretch"]
Encoding = Literal["lab_float32", "lab_uint8", "rgb_png"]
Compression = Literal["none", "gzip"]
Precision = Literal["float32", "bfloat16"]


class UsageError(Exception):
    """The command line, the input, the checkpoint or the output folder is not usable. One line: what, and what to do."""


def _option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    shapes_dataset: bool = True,
) -> Any:
    """A field with its help text and check. `shapes_dataset`: another value would give another dataset."""
    metadata = {"help": help, "range": (at_least, at_most), "shapes_dataset": shapes_dataset}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a run. Raises UsageError where one makes no sense."""

    input: str | None = _option(
        "list of image URLs, one `URL` or `ID URL` a line: a path, glob or URL on any filesystem Beam knows; "
        "plain, .gz, .bz2 or .tgz. The failures-*.jsonl of an earlier run are a list too",
        None,
    )
    images: str | None = _option("glob of image files to take instead of downloading", None)
    output: str = _option("folder for the dataset", shapes_dataset=False)
    checkpoint: str = _option(
        "weights of Inception-ResNet-v2: a TF1 .ckpt (V1 file or V2 prefix), the .tar.gz it comes in, or the URL of that; "
        "`untrained`: fixed pseudo-random weights, for trying things out; `none`: no embedding",
        PUBLISHED_CHECKPOINT,
    )
    skip: int = _option("leave out the first images of the list", 0, at_least=0)
    count: int | None = _option("take at most so many images after that; all by default", None, at_least=1)
    image_size: int = _option("side of the stored square image, pixels", 299, at_least=1, at_most=8192)
    resize: Resize = _option("pad (fit inside, white around), crop (fill, cut the centre) or stretch", "pad")
    encoding: Encoding = _option(
        "lab_float32; lab_uint8 (a quarter the size, rounded); rgb_png (about an eighth, lossless, Lab is worked out at reading)",
        "lab_float32",
    )
    compression: Compression = _option("of the TFRecord files: none or gzip", "none")
    examples_per_shard: int = _option("no shard holds more", 500, at_least=1)
    validation_fraction: float = _option(
        "share of the images written as validation, chosen by a hash of the URL", 0.0, at_least=0, at_most=1
    )
    batch_size: int = _option("images in one call of the network", 32, at_least=1, shapes_dataset=False)
    precision: Precision = _option("of the network: float32, or bfloat16, which is faster", "float32")
    fetch_concurrency: int = _option("requests in flight in one worker process", 64, at_least=1, shapes_dataset=False)
    host_concurrency: int = _option("requests in flight to one host, in one worker process", 16, at_least=1, shapes_dataset=False)
    fetch_timeout: float = _option(
        "seconds for one image, from the first byte asked to the last byte got", 10.0, at_least=0.001, shapes_dataset=False
    )
    fetch_attempts: int = _option("tries for one image, in all", 3, at_least=1, shapes_dataset=False)
    max_image_bytes: int = _option("larger files are refused before they are read", 32 * 2**20, at_least=1)
    max_image_pixels: int = _option("larger images are refused before they are decoded", 64_000_000, at_least=1)
    user_agent: str = _option("sent with each request", f"beam_pipeline/{beam_pipeline.__version__}", shapes_dataset=False)
    allow_private_addresses: bool = _option(
        "let URLs lead to loopback, private, link-local and other non-public addresses", False, shapes_dataset=False
    )
    original_dir: str | None = _option(
        "folder where downloaded files are kept, and taken from by a later run", None, shapes_dataset=False
    )
    resized_dir: str | None = _option(
        "folder where resized images are kept, lossless, and taken from by a later run", None, shapes_dataset=False
    )
    overwrite: bool = _option("replace a dataset that the output folder already holds", False, shapes_dataset=False)
    verbose: bool = _option("log each image's name as it is written", False, shapes_dataset=False)

    def __post_init__(self) -> None:
        if (self.input is None) == (self.images is None):
            raise UsageError("give --input URL_LIST or --images GLOB, one of the two")
        for field in dataclasses.fields(self):
            value, (low, high) = getattr(self, field.name), field.metadata["range"]
            if value == "" or (isinstance(value, str) and not value.isprintable()):
                raise UsageError(f"--{field.name} needs a value in printable characters, not {value!r}")
            if isinstance(value, (int, float)) and not low <= value <= high:
                bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
                raise UsageError(f"--{field.name} {value} is out of range: it must be {bound}")
            choices = _choices(field)
            if choices and value not in choices:
                raise UsageError(f"--{field.name} {value} is not known: choose one of {', '.join(choices)}")

    @property
    def has_network(self) -> bool:
        return self.checkpoint != "none"

    def dataset_options(self) -> dict[str, Any]:
        """The options that decide what stands in the dataset; the others decide how fast, or how much is told."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.metadata["shapes_dataset"]}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UsageError(f"{message}; --help lists the options")


def parse(argv: Sequence[str]) -> tuple[Config, list[str]]:
    """Takes the project's own options out of a command line.

    Returns:
      The Config, and what else the command line holds, in order: Beam's part.

    Raises:
      UsageError: an option is missing, has no value or one that makes no sense.
    """
    parser = _Parser(
        prog="python -m beam_pipeline.run",
        description="Turns a list of image URLs into TFRecords of CIE Lab planes and Inception-ResNet-v2 embeddings.",
        epilog="Any other flag goes to Beam, such as --runner (DirectRunner by default) or --direct_num_workers.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for field in dataclasses.fields(Config):
        if field.type == "bool":
            kind: dict[str, Any] = {"action": "store_true"}
        else:
            kind = {"type": _base_type(field), "choices": _choices(field), "metavar": _metavar(field)}
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        # A default of None or False says nothing that the help text does not.
        shown = argparse.SUPPRESS if default is None or default is False else default
        parser.add_argument(f"--{field.name}", help=field.metadata["help"], required=required, default=shown, **kind)
    options, rest = parser.parse_known_args(argv)
    return Config(**vars(options)), rest


def option_names() -> list[str]:
    return [field.name for field in dataclasses.fields(Config)]


def _hint(field: dataclasses.Field) -> Any:
    return typing.get_type_hints(Config)[field.name]


def _choices(field: dataclasses.Field) -> tuple[str, ...] | None:
    hint = _hint(field)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else None


def _base_type(field: dataclasses.Field) -> type:
    hint = _hint(field)
    if typing.get_origin(hint) is Literal:
        return str
    return next(kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None))


def _metavar(field: dataclasses.Field) -> str:
    choices = _choices(field)
    return "{" + ",".join(choices) + "}" if choices else {str: "TEXT", int: "N", float: "X"}[_base_type(field)]

"""Config: every option, its default, its help text and its check, once.

A new option is one field here and one use elsewhere: the command line is made from the fields.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from typing import Any, Literal

import beam_pipeline
from beam_pipeline.redaction import redact

PUBLISHED_CHECKPOINT = "https://storage.googleapis.com/download.tensorflow.org/models/inception_resnet_v2_2016_08_30.tar.gz"

# How patient fetching is; the rest is options.
RETRY_DEADLINE = 180.0  # seconds waited between the tries for one image, in all, however long a server asks for
BACKOFF = 0.5  # seconds before the second try; doubled for each further one, with jitter
MAX_REDIRECTS = 10
# X-Robots-Tag directives under which an image is not taken; `none` is short for noindex and nofollow.
DISALLOWING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Where hosts redirect to for images that are gone: Flickr, Imgur.
PLACEHOLDER_URL = r"https?://[^/]*/(.*/)?photo_unavailable[^/]*|https?://i\.imgur\.com/removed\.png.*"
# Bodies that stood behind so many URLs are told in dataset.json, the most frequent ones first.
REPEATED, REPEATED_TOLD = 3, 100
# Failures closer together are one fault: of a moment, or of all requests in flight.
STRIKE_SPACING = 5.0  # seconds
HOST_STRIKES = 8  # failed name look-ups or connections in a row after which a host is given up

# Hosts that are told one by one in dataset.json, those with the most images.
HOSTS_TOLD = 100

# Side of the square image that the network sees, pixels.
NETWORK_SIZE = 299

# Images in one commit of a run on this machine, if the user gives no number.
URLS_PER_COMMIT, URLS_PER_COMMIT_WITHOUT_NETWORK = 2_000, 10_000

# URLs in a commit for which it is worth while to start an analysis, which takes two seconds.
_MANY = 1_000

Resize = Literal["pad", "crop", "stretch"]
Encoding = Literal["lab_float32", "lab_uint8", "rgb_png"]
Compression = Literal["none", "gzip"]
Precision = Literal["float32", "bfloat16"]


class UsageError(Exception):
    """The command line, the input, the checkpoint or the output folder is not usable. One line: what, and what to do."""


def _option(
    help: str,
    default: Any,
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
    output: str = _option("folder for the dataset; required", "", shapes_dataset=False)
    checkpoint: str = _option(
        "weights of Inception-ResNet-v2: a TF1 .ckpt (V1 file or V2 prefix), the .tar.gz it comes in, or the URL of that; "
        "`untrained`: fixed pseudo-random weights, for trying things out; `none`: no embedding",
        PUBLISHED_CHECKPOINT,
    )
    checkpoint_sha256: str | None = _option(
        "refuse any other --checkpoint: the sha256, in hex, of the file that it names, so of the archive as it is downloaded; of a "
        "V2 prefix, of its .index and .data files one after the other",
        None,
        shapes_dataset=False,
    )
    skip: int = _option("leave out the first images of the list", 0, at_least=0)
    count: int | None = _option("take at most so many images after that; all by default", None, at_least=1)
    image_size: int = _option(
        "side of the stored square image, pixels; the network always sees 299x299, made from the original",
        299,
        at_least=1,
        at_most=8192,
    )
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
        "seconds for one try at an image, from name look-up to last byte, redirects included",
        10.0,
        at_least=0.001,
        shapes_dataset=False,
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
    exclude_sha256: str | None = _option(
        "file with the sha256 of bodies that are no photographs, one in hex a line; images with such a body fail as `placeholder`",
        None,
    )
    retry_reasons: str | None = _option(
        "with failures-*.jsonl as --input: take only the images that failed for these reasons, comma-separated; all by default",
        None,
    )
    max_failed_fraction: float = _option(
        "end with status 1, and without dataset.json, if more than that share of the images failed",
        1.0,
        at_least=0,
        at_most=1,
        shapes_dataset=False,
    )
    urls_per_commit: int | None = _option(
        "images of the list in one commit: an interrupted run loses no more. On the DirectRunner 2,000, or 10,000 without the "
        "network, which is minutes; elsewhere all",
        None,
        at_least=1,
        shapes_dataset=False,
    )
    class_names: str | None = _option(
        "names of the 1,000 classes, to show in the report: imagenet1000_clsid_to_human.pkl or the same as text; nothing in it "
        "is executed",
        None,
        shapes_dataset=False,
    )
    statistics: bool | None = _option(
        "also write transform/: mean and variance of embeddings and Lab, and how frequent colours are, for tensorflow_transform. "
        "By default where it takes next to no time: with the network, up to 299 pixels and from 1,000 URLs a commit, not for "
        "rgb_png; on a disk",
        None,
    )
    report: bool | None = _option("write report.html at the end; by default on the DirectRunner", None, shapes_dataset=False)
    overwrite: bool = _option("replace a dataset that the output folder already holds", False, shapes_dataset=False)
    verbose: bool = _option("log each image's name as it is written", False, shapes_dataset=False)

    def __post_init__(self) -> None:
        if not self.output:
            raise UsageError("give --output FOLDER, for the dataset")
        if (self.input is None) == (self.images is None):
            raise UsageError("give --input URL_LIST or --images GLOB, one of the two")
        if self.checkpoint_sha256 is not None:
            if self.checkpoint in ("untrained", "none"):
                raise UsageError(f"--checkpoint_sha256 needs a file as --checkpoint, not {self.checkpoint}")
            if not re.fullmatch("[0-9a-fA-F]{64}", self.checkpoint_sha256):
                raise UsageError(f"--checkpoint_sha256 {self.checkpoint_sha256!r} is no sha256: it must be 64 digits in hex")
        for field in dataclasses.fields(self):
            value, (low, high) = getattr(self, field.name), field.metadata["range"]
            choices = choices_of(field.name)
            if choices and value not in choices:
                raise UsageError(f"--{field.name} {value!r} is not known: choose one of {', '.join(choices)}")
            if value == "" or (isinstance(value, str) and not value.isprintable()):
                raise UsageError(f"--{field.name} needs a value in printable characters, not {value!r}")
            if isinstance(value, (int, float)) and not (low <= value <= high and value < math.inf):
                bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
                raise UsageError(f"--{field.name} {value} is out of range: it must be a finite number, {bound}")

    @property
    def has_network(self) -> bool:
        return self.checkpoint != "none"

    @property
    def has_statistics(self) -> bool:
        if self.statistics is not None:
            return self.statistics
        is_cheap = self.encoding != "rgb_png" and self.image_size <= 299 and (self.urls_per_commit or _MANY) >= _MANY
        return self.has_network and is_cheap and "://" not in self.output

    def dataset_options(self) -> dict[str, Any]:
        """Return the options that decide what the dataset holds, without credentials; others decide speed, or what is logged."""
        shaping = {field.name for field in dataclasses.fields(self) if field.metadata["shapes_dataset"]}
        return {name: value for name, value in self.as_json().items() if name in shaping}

    def as_json(self) -> dict[str, Any]:
        """Return all options as `dataset.json` holds them: without credentials, with the default of `statistics` worked out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.input:
            # A shell may number the pipe of the same command differently the next time.
            values["input"] = re.sub(r"^/(dev|proc/self)/fd/\d+$", "/dev/fd", self.input)
        redacted = {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}
        # It depends on options that may change from one start to the next.
        return {**redacted, "statistics": self.has_statistics}


def type_of(name: str) -> type:
    """The type of an option's values: str, int, float or bool."""
    hint = typing.get_type_hints(Config)[name]
    if typing.get_origin(hint) is Literal:
        return str
    return next(kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None))


def choices_of(name: str) -> tuple[str, ...]:
    """The values that an option may have; empty if there is no list of them."""
    hint = typing.get_type_hints(Config)[name]
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()

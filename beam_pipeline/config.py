"""Config: the only definition of every option, with its default, help text and check.

The command line is generated from the fields. A new option needs one field here and its use
elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from typing import Any, Literal

import beam_pipeline
from beam_pipeline.redaction import redact

PUBLISHED_CHECKPOINT = (
    "https://storage.googleapis.com/download.tensorflow.org/models/"
    "inception_resnet_v2_2016_08_30.tar.gz"
)

# Limits of retries and redirects; the other limits of fetching are options.
# Maximum total wait between the attempts at one image, in seconds, even if a server asks for more.
RETRY_DEADLINE = 180.0
BACKOFF = 0.5  # seconds before the second attempt; doubled for each later one, with jitter
MAX_REDIRECTS = 10
# X-Robots-Tag directives that exclude an image; `none` is short for noindex and nofollow.
DISALLOWING = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
# Redirect targets of hosts for removed images: Flickr, Imgur.
PLACEHOLDER_URL = (
    r"https?://[^/]*/(.*/)?photo_unavailable[^/]*|https?://i\.imgur\.com/removed\.png.*"
)
# Failures of an image that is gone, for which `--fallback` and `--fallback_images` are asked.
GONE = frozenset({"http_404", "http_410", "dns", "connect", "placeholder"})
# An archive redirects to the capture nearest to a time. This one is before all of them: the
# earliest capture shows what was there when the list was made, rather than what replaced it.
CAPTURE_TIME = "19960101000000"
# Limits on requests to the archive: in flight, and seconds from one to the next.
ARCHIVE_CONCURRENCY, ARCHIVE_INTERVAL = 4, 1.0
# Bodies returned by at least REPEATED URLs are listed in dataset.json, the most frequent ones
# first, at most MAX_REPEATED of them.
REPEATED, MAX_REPEATED = 3, 100
# Failures closer together count as one: a momentary fault, or one of all requests in flight.
BREAKER_SPACING = 5.0  # seconds
# Consecutive failed DNS look-ups or connections after which a host is skipped.
BREAKER_FAILURES = 8

# Maximum number of hosts listed in dataset.json, those with the most images.
MAX_HOSTS = 100

# Side of the network's square input image, pixels.
NETWORK_SIZE = 299

# Default number of images in a part of a run on this machine: the first part has FIRST_PART for
# each worker process, later ones as many as take PART_SECONDS at the measured rate, within the
# bounds. The command holds up to 6 kB of memory for each image of a part.
PART_SECONDS = 120.0
MIN_PART, FIRST_PART, MAX_PART_PER_PROCESS, MAX_PART = 100, 200, 10_000, 100_000
# The same of a job on an engine, whose start takes minutes.
ENGINE_PART = 500_000

# Minimum number of URLs in a commit that justifies an analysis, which takes two seconds to start.
_MANY = 1_000

Group = Literal[
    "input", "output", "images", "curation", "network", "fetching", "reliability", "reporting"
]
Resize = Literal["pad", "crop", "stretch"]
Encoding = Literal["lab_float32", "lab_uint8", "rgb_png"]
Compression = Literal["none", "gzip"]
Precision = Literal["float32", "bfloat16"]
FilterPreset = Literal["zhang2016", "bigcolor", "unicolor"]
Fallback = Literal["none", "wayback"]


class UsageError(Exception):
    """The command line, the input, the checkpoint or the output folder is not usable.

    The message is one line: what is wrong, and what to do.
    """


def _option(
    help: str,
    default: Any,
    *,
    group: Group,
    metavar: str = "",
    at_least: float = -math.inf,
    at_most: float = math.inf,
    shapes_dataset: bool = True,
) -> Any:
    """Return a field of `Config`.

    Args:
      help: The help text. It states the default if that is not a fixed value.
      default: The value if the user gives none.
      group: The heading in `--help`.
      metavar: The placeholder of the value in `--help`; `N` or `X` for numbers.
      at_least, at_most: The range of a number, bounds included.
      shapes_dataset: Whether the content of the dataset depends on the value.
    """
    metadata = {
        "help": help,
        "group": group,
        "metavar": metavar,
        "range": (at_least, at_most),
        "shapes_dataset": shapes_dataset,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a run.

    Raises:
      UsageError: an option is missing, has the wrong type, is out of range, or contradicts another.
    """

    input: str | None = _option(
        "lists of image URLs, one `URL` or `ID URL` a line, or tables with a column of URLs: .csv, "
        ".tsv, .jsonl, .parquet; also .gz, .bz2, .tgz. The failures-*.jsonl of an earlier run are "
        "a list too",
        None,
        group="input",
        metavar="FILE|GLOB|URL,...",
    )
    images: str | None = _option(
        "images to read instead of downloading: folders, image files, .tar, .tar.gz, .zip, "
        "WebDataset shards, .parquet",
        None,
        group="input",
        metavar="PATH|GLOB,...",
    )
    url_column: str | None = _option(
        "column of the URLs in a table; its number, from 1, in a table without a header (default: "
        "the only one called url, image_url, originalurl or uri, in any case)",
        None,
        group="input",
        metavar="NAME|N",
    )
    id_column: str | None = _option(
        "column of the IDs in a table (default: id, image_id, imageid, key, uid or sample_id, in "
        "any case, if there is one)",
        None,
        group="input",
        metavar="NAME|N",
    )
    class_column: str | None = _option(
        "column of the classes in a table", None, group="input", metavar="NAME|N"
    )
    sha256_column: str | None = _option(
        "column of SHA-256 digests in a table, in hex: an image whose body has another digest "
        "fails as `wrong_digest`",
        None,
        group="input",
        metavar="NAME|N",
    )
    md5_column: str | None = _option(
        "the same for MD5 digests", None, group="input", metavar="NAME|N"
    )
    image_column: str = _option(
        "column of the images in Parquet files of --images", "image", group="input", metavar="NAME"
    )
    keep_columns: str | None = _option(
        "columns of a table, or keys of WebDataset's JSON, that the records keep as image_metadata",
        None,
        group="input",
        metavar="NAME,...",
    )
    class_file: str | None = _option(
        "classes by image ID: lines or CSV of `ID,CLASS`, of which the first word of CLASS counts, "
        "such as LOC_val_solution.csv; goes before all other sources of classes",
        None,
        group="input",
        metavar="FILE",
    )
    skip: int = _option("leave out the first N images of the list", 0, group="input", at_least=0)
    count: int | None = _option(
        "take at most N images after that (default: all)", None, group="input", at_least=1
    )
    retry_reasons: str | None = _option(
        "with failures-*.jsonl as --input: take only the images that failed for these reasons, "
        "separated by commas (default: all)",
        None,
        group="input",
        metavar="REASON,...",
    )
    exclude_sha256: str | None = _option(
        "file with the SHA-256 digests of bodies that are not photographs, one in hex a line; "
        "images with such a body fail as `placeholder`",
        None,
        group="input",
        metavar="FILE",
    )
    output: str = _option(
        "folder of the dataset; required",
        "",
        group="output",
        metavar="FOLDER",
        shapes_dataset=False,
    )
    overwrite: bool = _option(
        "replace a dataset that the output folder already holds",
        False,
        group="output",
        shapes_dataset=False,
    )
    encoding: Encoding = _option(
        "lab_float32; lab_uint8 (a quarter of the size, rounded); rgb_png (about a ninth, "
        "lossless, converted to Lab when it is read)",
        "lab_float32",
        group="output",
    )
    compression: Compression = _option("of the TFRecord files", "none", group="output")
    examples_per_shard: int = _option(
        "maximum number of examples in a shard", 500, group="output", at_least=1
    )
    validation_fraction: float = _option(
        "share of the images written as validation, chosen by a hash of the URL",
        0.0,
        group="output",
        at_least=0,
        at_most=1,
    )
    validation_input: str | None = _option(
        "lists or tables of URLs that are validation; all else is training",
        None,
        group="output",
        metavar="FILE|GLOB|URL,...",
    )
    validation_images: str | None = _option(
        "images that are validation, in any form that --images takes; all else is training",
        None,
        group="output",
        metavar="PATH|GLOB,...",
    )
    validation_ids: str | None = _option(
        "file of IDs, file names or URLs, one a line, that are validation; all else is training",
        None,
        group="output",
        metavar="FILE",
    )
    stratify: bool = _option(
        "take the same share of each class for --validation_fraction, within one image",
        False,
        group="output",
    )
    statistics: bool | None = _option(
        "also write transform/: mean and variance of embeddings and Lab, and the frequency of "
        "colours, for tensorflow_transform (default: where it costs less than 3% of the time: with "
        "the network, up to 299 pixels, from 1,000 URLs a part, not for rgb_png, on a disk)",
        None,
        group="output",
    )
    original_dir: str | None = _option(
        "folder where downloaded files are kept, and read from by a later run",
        None,
        group="output",
        metavar="FOLDER",
        shapes_dataset=False,
    )
    resized_dir: str | None = _option(
        "folder where resized images are kept, lossless, and read from by a later run",
        None,
        group="output",
        metavar="FOLDER",
        shapes_dataset=False,
    )
    image_size: int = _option(
        "side of the stored square image, pixels; the network always sees 299x299, made from the "
        "original",
        299,
        group="images",
        at_least=1,
        at_most=8192,
    )
    resize: Resize = _option(
        "pad (fit inside, white around), crop (fill, cut the centre) or stretch",
        "pad",
        group="images",
    )
    max_image_bytes: int = _option(
        "maximum size of an image file, bytes", 32 * 2**20, group="images", at_least=1
    )
    max_image_pixels: int = _option(
        "maximum width times height of an image, pixels", 64_000_000, group="images", at_least=1
    )
    min_side: int | None = _option(
        "drop images whose shorter side is less than N pixels", None, group="curation", at_least=1
    )
    max_aspect_ratio: float | None = _option(
        "drop images whose longer side is more than X times the shorter one",
        None,
        group="curation",
        at_least=1,
    )
    drop_grey: bool | None = _option(
        "drop images without a pixel whose |a*| or |b*| exceeds 5 (Zhang et al. 2016)",
        None,
        group="curation",
    )
    drop_tinted: bool | None = _option(
        "drop images in one hue, such as sepia: tint of at most 22, and not grey",
        None,
        group="curation",
    )
    min_colorfulness: float | None = _option(
        "drop images whose colorfulness_abs is less than X: published projects use 10 and 15",
        None,
        group="curation",
        at_least=0,
    )
    filter_preset: FilterPreset | None = _option(
        "the filter of a published project: zhang2016 (--drop_grey), bigcolor (--min_colorfulness "
        "15), unicolor (10); options beside it win",
        None,
        group="curation",
    )
    near_duplicates: bool | None = _option(
        "find images that look the same, and training images like a validation image, by PDQ hash "
        "(default: with the network, where it costs less than 1% of the time)",
        None,
        group="curation",
    )
    measures: bool = _option(
        "also write the measures of colour and light, which metadata-*.parquet holds, as features "
        "of the records",
        False,
        group="curation",
    )
    checkpoint: str = _option(
        "weights of Inception-ResNet-v2: a TF1 .ckpt (V1 file or V2 prefix), the .tar.gz it comes "
        "in, or the URL of that; `untrained`: fixed pseudo-random weights, for trying things out; "
        "`none`: no embedding",
        PUBLISHED_CHECKPOINT,
        group="network",
        metavar="FILE|URL",
    )
    checkpoint_sha256: str | None = _option(
        "refuse any other --checkpoint: the SHA-256 digest, in hex, of the file that it names, so "
        "of the archive as it is downloaded; of a V2 prefix, of its .index and .data files one "
        "after the other",
        None,
        group="network",
        metavar="HEX",
        shapes_dataset=False,
    )
    precision: Precision = _option(
        "of the network; bfloat16 is faster on processors that support it",
        "float32",
        group="network",
    )
    batch_size: int = _option(
        "images in one call of the network", 32, group="network", at_least=1, shapes_dataset=False
    )
    fetch_concurrency: int = _option(
        "requests in flight; on an engine, in each worker process",
        64,
        group="fetching",
        at_least=1,
        shapes_dataset=False,
    )
    host_concurrency: int = _option(
        "requests in flight to one host; on an engine, in each worker process",
        16,
        group="fetching",
        at_least=1,
        shapes_dataset=False,
    )
    fetch_timeout: float = _option(
        "seconds for one attempt at an image, from name look-up to last byte, with redirects",
        10.0,
        group="fetching",
        at_least=0.001,
        shapes_dataset=False,
    )
    fetch_attempts: int = _option(
        "attempts at an image", 3, group="fetching", at_least=1, shapes_dataset=False
    )
    user_agent: str = _option(
        "sent with each request",
        f"beam_pipeline/{beam_pipeline.__version__}",
        group="fetching",
        metavar="TEXT",
        shapes_dataset=False,
    )
    obey_robots_txt: bool = _option(
        "request only what robots.txt allows (RFC 9309), at the pace of its Crawl-delay, and what "
        "tdmrep.json and the header tdm-reservation do not reserve (TDMRep)",
        False,
        group="fetching",
    )
    fallback: Fallback = _option(
        "wayback: ask the Internet Archive for images that are gone (404, 410, no name, no "
        "connection, placeholder), at most one request a second",
        "none",
        group="fetching",
    )
    fallback_url: str = _option(
        "another server with the protocol of --fallback wayback; if its path is not /web/, with "
        "the path of its captures",
        "https://web.archive.org",
        group="fetching",
        metavar="URL",
    )
    fallback_images: str | None = _option(
        "images that you have, looked up by the ID of an image that is gone, before --fallback: "
        "folders, .tar, .zip",
        None,
        group="fetching",
        metavar="PATH|GLOB,...",
    )
    allow_private_addresses: bool = _option(
        "let URLs lead to loopback, private, link-local and other non-public addresses",
        False,
        group="fetching",
        shapes_dataset=False,
    )
    urls_per_commit: int | None = _option(
        "images in one part of the list; an interrupted run repeats at most one part (default: "
        f"about two minutes' worth on the DirectRunner, at least {MIN_PART}, at most "
        f"{MAX_PART_PER_PROCESS:,} for each worker process and {MAX_PART:,} in total; on an "
        f"engine, where each part is a job, {ENGINE_PART:,})",
        None,
        group="reliability",
        at_least=1,
        shapes_dataset=False,
    )
    parts: bool = _option(
        "in a Flex Template: let the launcher submit a job for each part of the list and wait for "
        "it, so that a failed job costs one part; elsewhere the command does so by itself",
        False,
        group="reliability",
        shapes_dataset=False,
    )
    max_failed_fraction: float = _option(
        "exit with status 1, and without dataset.json, if a larger share of the images fails",
        1.0,
        group="reliability",
        at_least=0,
        at_most=1,
        shapes_dataset=False,
    )
    report: bool | None = _option(
        "write report.html at the end (default: on the DirectRunner)",
        None,
        group="reporting",
        shapes_dataset=False,
    )
    class_names: str | None = _option(
        "names of the 1,000 classes, shown in the report: imagenet1000_clsid_to_human.pkl or the "
        "same as text; nothing in it is executed",
        None,
        group="reporting",
        metavar="FILE",
        shapes_dataset=False,
    )
    verbose: bool = _option(
        "log each image's name as it is written", False, group="reporting", shapes_dataset=False
    )

    def __post_init__(self) -> None:
        if not self.output:
            raise UsageError("--output is missing. Give a folder for the dataset.")
        if (self.input is None) == (self.images is None):
            raise UsageError("Give either --input URL_LIST or --images PATH.")
        self._check_splits()
        if self.checkpoint_sha256 is not None:
            if self.checkpoint in ("untrained", "none"):
                raise UsageError(
                    f"--checkpoint_sha256 needs a file as --checkpoint, not {self.checkpoint}. "
                    "Leave it out."
                )
            if not re.fullmatch("[0-9a-fA-F]{64}", self.checkpoint_sha256):
                raise UsageError(
                    f"--checkpoint_sha256 {self.checkpoint_sha256!r} is not a sha256. Give 64 "
                    "hexadecimal digits."
                )
        for field in dataclasses.fields(self):
            value, (low, high) = getattr(self, field.name), field.metadata["range"]
            choices = choices_of(field.name)
            if not _has_type(value, field.name):
                raise UsageError(
                    f"--{field.name} {value!r} has the wrong type. Give a value of type "
                    f"{type_of(field.name).__name__}."
                )
            if choices and value is not None and value not in choices:
                raise UsageError(
                    f"--{field.name} {value!r} is unknown. Choose one of {', '.join(choices)}."
                )
            if value == "" or (isinstance(value, str) and not value.isprintable()):
                raise UsageError(
                    f"--{field.name} {value!r} is empty or has unprintable characters. Give "
                    "another value."
                )
            if isinstance(value, (int, float)) and not (low <= value <= high and value < math.inf):
                bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
                raise UsageError(
                    f"--{field.name} {value} is out of range. Give a finite number, {bound}."
                )

        self._check_fallback()

    def _check_fallback(self) -> None:
        is_asked = self.fallback != "none"
        if self.has_fallback and not (self.input or self.validation_input):
            option = "fallback" if is_asked else "fallback_images"
            raise UsageError(
                f"--{option} is for lists of URLs, and --images names images that you have. Leave "
                "it out."
            )
        [default] = (
            field.default for field in dataclasses.fields(self) if field.name == "fallback_url"
        )
        if self.fallback_url != default and not is_asked:
            raise UsageError("--fallback_url needs --fallback wayback.")
        if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", self.fallback_url):
            raise UsageError(
                f"--fallback_url {self.fallback_url} is not the URL of a server. Give one such as "
                f"{default}."
            )

    def _check_splits(self) -> None:
        names = ("validation_fraction", "validation_input", "validation_images", "validation_ids")
        if len(given := [name for name in names if getattr(self, name)]) > 1:
            raise UsageError(f"Give at most one of {', '.join(f'--{name}' for name in given)}.")
        if self.stratify and not self.validation_fraction:
            raise UsageError("--stratify needs --validation_fraction.")

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """The names in `--keep_columns`."""
        return split_names(self.keep_columns)

    def share_requests(self, processes: int) -> Config:
        """Return a copy with one process's share, at least 1, of the limits on requests."""
        return dataclasses.replace(
            self,
            fetch_concurrency=max(1, self.fetch_concurrency // processes),
            host_concurrency=max(1, self.host_concurrency // processes),
        )

    @property
    def has_fallback(self) -> bool:
        return self.fallback != "none" or bool(self.fallback_images)

    @property
    def has_network(self) -> bool:
        return self.checkpoint != "none"

    @property
    def has_statistics(self) -> bool:
        if self.statistics is not None:
            return self.statistics
        is_cheap = (
            self.encoding != "rgb_png"
            and self.image_size <= 299
            and (self.urls_per_commit or _MANY) >= _MANY
        )
        return self.has_network and is_cheap and "://" not in self.output

    @property
    def has_near_duplicates(self) -> bool:
        return self.has_network if self.near_duplicates is None else self.near_duplicates

    def dataset_options(self) -> dict[str, Any]:
        """Return the options that determine the content of the dataset, without credentials.

        The others affect only speed, or what is logged.
        """
        shaping = {
            field.name for field in dataclasses.fields(self) if field.metadata["shapes_dataset"]
        }
        return {name: value for name, value in self.as_json().items() if name in shaping}

    def as_json(self) -> dict[str, Any]:
        """Return all options as `dataset.json` holds them.

        Credentials are redacted, and defaults that depend on other options are resolved.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.input:
            values["input"] = stable_path(self.input)
        redacted = {
            name: redact(value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        # These defaults depend on options that may change between runs.
        return {
            **redacted,
            "statistics": self.has_statistics,
            "near_duplicates": self.has_near_duplicates,
        }


def stable_path(paths: str) -> str:
    """Return paths, separated by commas, without the numbers of pipes.

    A shell may give the pipe of the same command another number the next time.
    """
    pipe = r"(?<![^,])(?:/dev/stdin|/(?:dev|proc/self)/fd/\d+)(?![^,])"
    return re.sub(pipe, "/dev/fd", paths)


@functools.cache
def _hint_of(name: str) -> Any:
    return typing.get_type_hints(Config)[name]


def _has_type(value: Any, name: str) -> bool:
    """Return whether a value, which may come from a file, has the type of the option."""
    if value is None:
        return type(None) in typing.get_args(_hint_of(name))
    kind = type_of(name)
    return type(value) is kind or (kind is float and type(value) is int)


def type_of(name: str) -> type:
    """Return the type of an option's values: str, int, float or bool."""
    if choices_of(name):
        return str
    hint = _hint_of(name)
    return next(kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None))


def choices_of(name: str) -> tuple[str, ...]:
    """Return the values that an option accepts; empty if it is not an enumeration."""
    hint = _hint_of(name)
    kinds = (hint, *typing.get_args(hint))
    enumeration = next((kind for kind in kinds if typing.get_origin(kind) is Literal), None)
    return typing.get_args(enumeration)


def split_names(value: str | None) -> tuple[str, ...]:
    """Return the names in an option that separates them by commas.

    >>> split_names("caption, license")
    ('caption', 'license')
    """
    names = (value or "").split(",")
    return tuple(name.strip() for name in names if name.strip())

r"""The complete Beam graph.

    ReadRefs -> DropDuplicates -> CheckUrls -> FetchImages -> CheckBodies -> DecodeImages
        |             |               \__ failures __\_____________\____________\___> CountReasons,
        |             |                                            |                WriteFailures
        |             |                                            \_ digests ____> CountBodies
        |             |         -> EmbedImages -> Encode..Examples -> Write..Examples
        \__ counts ___\_________________________________________________________> FinalizeCommit

Image data is never shuffled. DropDuplicates groups names and URLs only, which also distributes the
work and mixes the hosts. Everything after it is one fused stage; only its file names, reasons and
sha256 are combined. Expensive work runs in threads: downloads; decoding, in parallel with the
network; conversion to Lab and serialization, in one step while an image is in the processor's
cache.
"""

from __future__ import annotations

import collections
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsDict, AsList, TaggedOutput

from beam_pipeline import naming
from beam_pipeline.config import NETWORK_SIZE, REPEATED, Config
from beam_pipeline.elements import (
    WHOLE_LIST,
    Commit,
    EmbeddedImage,
    EncodedImage,
    Failure,
    ImageRef,
    RgbImage,
)
from beam_pipeline.fetching import http_urls, kept_images
from beam_pipeline.images import decoding, png_notes
from beam_pipeline.metadata import commit_manifest, repeated_content
from beam_pipeline.records import example_codec
from beam_pipeline.sources import url_list
from beam_pipeline.transforms import count_outcomes, write_shards
from beam_pipeline.transforms.fetch_images import FetchImages
from beam_pipeline.transforms.thread_map import MAX_BYTES, MAX_THREADS, ThreadMap
from beam_pipeline.transforms.ticks import Ticks

_LOGGER = logging.getLogger(__name__)
FILE_THREADS = 16  # they mostly wait for a disk or an object store


def build(
    pipeline: beam.Pipeline,
    config: Config,
    commit: Commit = WHOLE_LIST,
    digests: Mapping[str, str | None] = commit_manifest.NO_DIGESTS,
    excluded: frozenset[str] = frozenset(),
    ticks: Ticks | None = None,
) -> None:
    """Add the graph that makes a dataset, or one commit of it, to a pipeline.

    Args:
      pipeline: An empty pipeline, on any runner.
      config: The options.
      commit: The part of the list; the complete list by default.
      digests: The sha256 of the files that options name, in hex, for `dataset.json`; workers refuse
        another checkpoint.
      excluded: The sha256 of bodies that are not photographs, in hex.
      ticks: Counts processed images for the progress line, on the machine of the run; None
        elsewhere.

    Raises:
      UsageError: the graph reads the list itself, and that is a pipe.
    """
    if commit.refs is None:
        url_list.refuse_pipe(config)
    lines = (
        pipeline
        | "Start" >> beam.Create([commit])
        | "ReadRefs" >> beam.FlatMap(read_refs, config).with_outputs("counts", main="main")
    )
    unique = (
        lines.main
        | "GroupByName" >> beam.GroupByKey()
        | "DropDuplicates" >> beam.FlatMap(drop_duplicates).with_outputs("counts", main="main")
    )
    checked = unique.main | "CheckUrls" >> beam.FlatMap(check_url, config).with_outputs(
        "failures", main="main"
    )
    fetched = checked.main | "FetchImages" >> beam.ParDo(FetchImages(config)).with_outputs(
        "failures", main="main"
    )
    bodies = fetched.main | "CheckBodies" >> beam.FlatMap(check_body, excluded).with_outputs(
        "failures", "digests", main="main"
    )
    decoded = bodies.main | "DecodeImages" >> in_threads(decode_image, config).with_outputs(
        "failures", main="main"
    )
    pictures = decoded.main
    if config.original_dir or config.resized_dir:
        pictures |= "KeepImages" >> in_threads(kept_images.keep, config, threads=FILE_THREADS)
    embedded = pictures | "EmbedImages" >> embed_images(config, digests.get("checkpoint"))

    encoded, shards = {}, {}
    splits = embedded | "Split" >> beam.Partition(validation_index, 2, config.validation_fraction)  # type: ignore[arg-type]
    for split, prefix, part in zip(
        ("Train", "Validation"),
        (naming.TRAIN_PREFIX, naming.VALIDATION_PREFIX),
        splits,
        strict=True,
    ):
        encode = beam.ParDo(
            ThreadMap(encode_example, config, ticks, low_priority=config.has_network)
        )
        encoded[split] = part | f"Encode{split}Examples" >> encode
        path = FileSystems.join(config.output, prefix + commit.label)
        sink = write_shards.example_sink(path, config.compression, config.examples_per_shard)
        shards[split] = encoded[split] | f"Write{split}Examples" >> write_shards.WriteFiles(sink)
    if config.has_statistics:
        analyzed = encoded["Train"] | "AnalyzeExamples" >> analyze(config, commit)
    else:
        analyzed = pipeline | "AnalyzeNothing" >> beam.Create([None])
    failures = (
        checked.failures,
        fetched.failures,
        bodies.failures,
        decoded.failures,
    ) | "Failures" >> beam.Flatten()
    reasons = failures | "CountReasons" >> beam.Map(count_reason, ticks)
    sink = write_shards.failure_sink(
        FileSystems.join(config.output, naming.FAILURES_PREFIX + commit.label)
    )
    failure_lines = failures | "EncodeFailures" >> beam.Map(write_shards.encode_failure)
    written = failure_lines | "WriteFailures" >> write_shards.WriteFiles(sink)

    counted = (
        bodies.digests
        | "CountBodies" >> beam.CombinePerKey(repeated_content.merge)
        | "ListBodies" >> beam.MapTuple(list_body)
    )
    if commit == WHOLE_LIST:
        counted |= "KeepRepeated" >> beam.Filter(lambda body: body.times >= REPEATED)

    survived = embedded | "TallyExamples" >> beam.ParDo(count_outcomes.CountOutcomes())
    failed = failures | "TallyFailures" >> beam.ParDo(count_outcomes.CountOutcomes())
    tallied = (
        (survived, failed) | "Tallies" >> beam.Flatten() | "SumTallies" >> beam.CombinePerKey(sum)
    )
    counts = (
        (lines.counts, unique.counts, reasons)
        | "Counts" >> beam.Flatten()
        | "Sum" >> beam.CombinePerKey(sum)
    )
    _ = (
        pipeline
        | "End" >> beam.Create([config])
        | "FinalizeCommit"
        >> beam.Map(
            commit_manifest.finalize_commit,
            commit.number,
            commit.is_last,
            commit.list_digest,
            dict(digests),
            AsDict(counts),
            AsList(shards["Train"]),
            AsList(shards["Validation"]),
            AsList(written),
            AsList(counted),
            AsList(tallied),
            AsList(analyzed),
        )
    )


def read_refs(
    commit: Commit, config: Config
) -> Iterator[tuple[str, tuple[int, ImageRef]] | TaggedOutput]:
    """Read the images of a commit.

    Yields:
      `(name, (index, image))`, where the index identifies the first of several images with one
      name; then the counts, such as `("lines", 3)`, with the tag "counts".
    """
    counts = collections.Counter(commit.counts)
    for number, ref in enumerate(
        url_list.read_refs(config, counts) if commit.refs is None else commit.refs
    ):
        yield ref.name, (number, ref)
    yield from (TaggedOutput("counts", count) for count in counts.items())


def drop_duplicates(
    group: tuple[str, Iterable[tuple[int, ImageRef]]],
) -> Iterator[ImageRef | TaggedOutput]:
    first, *others = sorted(group[1], key=lambda numbered: numbered[0])
    yield first[1]
    if others:
        yield TaggedOutput("counts", ("duplicates", len(others)))


def check_url(ref: ImageRef, config: Config) -> Iterator[ImageRef | TaggedOutput]:
    failure = None if config.images else url_list.check_length(ref) or http_urls.check_url(ref)
    yield TaggedOutput("failures", failure) if failure else ref


def check_body(
    image: EncodedImage, excluded: frozenset[str]
) -> Iterator[EncodedImage | TaggedOutput]:
    """Separate placeholders from images, and count bodies.

    Yields:
      `(sha256 in hex, (1, URL))` with the tag "digests"; then the image, or a `Failure` with the
      tag "failures" if its sha256 is excluded.
    """
    digest = hashlib.sha256(image.data).hexdigest()
    yield TaggedOutput("digests", (digest, (1, image.ref.url_text)))
    if digest in excluded:
        detail = f"its sha256 {digest} is excluded"
        yield TaggedOutput(
            "failures",
            Failure(image.ref, "fetch", "placeholder", detail, image.attempts, image.final_url),
        )
    else:
        yield image


def in_threads(
    function: Callable[[Any, Config], Any], config: Config, threads: int | None = None
) -> beam.ParDo:
    """Return a ParDo that maps images in threads while the worker's thread computes embeddings.

    It works up to one batch ahead, within `MAX_BYTES`, so that the next batch is ready when the
    network can start it.
    """
    ahead = min(max(config.batch_size, MAX_THREADS), 1 + MAX_BYTES // (3 * config.image_size**2))
    return beam.ParDo(
        ThreadMap(function, config, ahead=ahead, low_priority=config.has_network, threads=threads)
    )


def decode_image(image: EncodedImage, config: Config) -> RgbImage | TaggedOutput:
    try:
        network_size = NETWORK_SIZE if config.has_network else None
        decoded = decoding.decode(
            image.data, config.image_size, config.resize, config.max_image_pixels, network_size
        )
        original_size = png_notes.read_note(image.data) if image.is_resized else None
        # An image that an earlier run kept has no attempts.
        body = image.data if config.original_dir and image.attempts and not config.images else None
        return RgbImage(
            image.ref,
            decoded.pixels,
            original_size or decoded.original_size,
            decoded.network_pixels,
            body,
        )
    except decoding.DecodeError as error:
        failure = Failure(
            image.ref, "decode", error.reason, error.detail, image.attempts, image.final_url
        )
        return TaggedOutput("failures", failure)


def list_body(sha256: str, count_and_url: tuple[int, str]) -> repeated_content.Repeat:
    return repeated_content.Repeat(sha256, *count_and_url)


def embed_images(config: Config, checkpoint_sha256: str | None) -> beam.PTransform:
    if not config.has_network:
        return beam.Map(lambda image: EmbeddedImage(image, None))
    # Importing TensorFlow takes seconds and half a gigabyte; a run without the network skips it.
    from apache_beam.ml.inference.base import RunInference

    from beam_pipeline.embedding.inception_resnet_v2 import EmbeddingHandler

    return RunInference(
        EmbeddingHandler(config.checkpoint, config.precision, config.batch_size, checkpoint_sha256)
    )


def analyze(config: Config, commit: Commit) -> beam.PTransform:
    """Return a transform that computes statistics of training examples with tensorflow_transform.

    It emits one element once the statistics are written.
    """
    from beam_pipeline.transforms.analyze_examples import AnalyzeExamples

    def sums_of(number: int) -> str:
        return FileSystems.join(config.output, f"{naming.COMMIT_PREFIX}{number:05}.sums")

    features = example_codec.describe_features(
        config.encoding, config.image_size, config.has_network
    )
    return AnalyzeExamples(
        config.output,
        {"encoding": config.encoding, "features": features},
        before=sums_of(commit.number - 1) if commit.number else None,
        after=None if commit.is_last else sums_of(commit.number),
        temporary=FileSystems.join(config.output, f"{naming.ANALYSIS_PREFIX}{commit.number:05}"),
    )


def validation_index(image: EmbeddedImage, partitions: int, fraction: float) -> int:
    """Return the split of an image: 0 for training, 1 for validation.

    It depends only on the name, a hash of the URL, so it is the same on every run and runner.
    """
    return int(int(image.ref.name[:8], 16) < fraction * 2**32)


def encode_example(image: EmbeddedImage, config: Config, ticks: Ticks | None) -> bytes:
    if config.verbose:
        _LOGGER.info("%s %s", image.ref.name, image.ref.url_text)
    if ticks:
        ticks.example()
    return example_codec.encode_example(image, config.encoding)


def count_reason(failure: Failure, ticks: Ticks | None) -> tuple[str, int]:
    if ticks:
        ticks.failure()
    Metrics.counter("failures", failure.reason).inc()
    return f"failures/{failure.stage}/{failure.reason}", 1

r"""The complete Beam graph.

    ReadRefs -> DropDuplicates -> CheckRefs -> FetchImages -> CheckBodies
        |             |               |             |             |   \__ digests __> CountBodies
        |             |         -> DecodeImages -> FilterImages
        |             |               |             |   \__ dropped _______________> SampleDropped
        |             |               \_ failures __\______________________________> CountReasons,
        |             |                                                             WriteFailures
        |             |         -> EmbedImages -> Encode..Examples -> Write..Examples
        |             |                               \__ rows _> WriteMetadata
        |             |                                              \_> FindNearDuplicates
        \__ counts ___\____________________________________________________________> FinalizeCommit

Image data is never shuffled. DropDuplicates groups names and URLs only, which also distributes the
work and mixes the hosts; GroupRows groups those of images that only a complete archive or row group
gives. Everything after it is one fused stage; only its file names, reasons, sha256 and a few small
pictures are combined. Expensive work runs in threads: downloads; decoding, conversion to Lab and
measures, in parallel with the network; serialization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.pvalue import AsDict, AsList

from beam_pipeline import naming
from beam_pipeline.config import REPEATED, Config
from beam_pipeline.elements import WHOLE_LIST, Commit, EmbeddedImage
from beam_pipeline.fetching import kept_images
from beam_pipeline.metadata import commit_manifest, repeated_content
from beam_pipeline.records import filtered_sample
from beam_pipeline.sources import listing
from beam_pipeline.transforms import count_outcomes, write_metadata, write_shards
from beam_pipeline.transforms.decode_images import check_body, decode_image
from beam_pipeline.transforms.encode_examples import encode_example, validation_index
from beam_pipeline.transforms.fetch_images import FetchImages
from beam_pipeline.transforms.filter_images import SampleDropped, filter_image
from beam_pipeline.transforms.find_near_duplicates import FindNearDuplicates
from beam_pipeline.transforms.read_refs import check_ref, drop_duplicates, group_of, read_refs
from beam_pipeline.transforms.thread_map import MAX_BYTES, MAX_THREADS, ThreadMap
from beam_pipeline.transforms.ticks import Ticks

_PIXEL_BYTES = 15  # of an RgbImage: uint8 RGB, float32 Lab
FILE_THREADS = 16  # they mostly wait for a disk or an object store
_SPLITS = {"Train": naming.TRAIN_PREFIX, "Validation": naming.VALIDATION_PREFIX}


def build(
    pipeline: beam.Pipeline,
    config: Config,
    commit: Commit = WHOLE_LIST,
    digests: Mapping[str, str | None] = commit_manifest.NO_DIGESTS,
    excluded: frozenset[str] = frozenset(),
    ticks: Ticks | None = None,
    processes: int = 1,
) -> None:
    """Add the graph that makes a dataset, or one commit of it, to a pipeline.

    Args:
      pipeline: An empty pipeline, on any runner.
      config: The options.
      commit: The part of the list; the complete list by default.
      digests: The sha256 of the files that options name, in hex, for `dataset.json`; workers refuse
        another checkpoint.
      excluded: The sha256 of bodies that are not photographs, in hex.
      ticks: Counts processed images for the progress line; None if nobody waits for the job.
      processes: Number of worker processes that share the limits on requests.

    Raises:
      UsageError: the graph reads the list itself, and that is a pipe.
    """
    if commit.refs is None:
        listing.refuse_pipe(config)

    def path(prefix: str) -> str:
        return FileSystems.join(config.output, prefix + commit.file_prefix)

    part = pipeline | "Start" >> beam.Create([commit])
    refs = part | "ReadRefs" >> flat_map(read_refs, config, tags=["counts"])
    groups = refs.main | "GroupByName" >> beam.GroupByKey()
    unique = groups | "DropDuplicates" >> flat_map(drop_duplicates, tags=["counts"])
    checked = unique.main | "CheckRefs" >> flat_map(check_ref)
    refs_to_fetch = checked.main | "GroupRows" >> group_rows(config)
    fetched = refs_to_fetch | "FetchImages" >> tagged(
        beam.ParDo(FetchImages(config.share_requests(processes), processes, excluded))
    )
    bodies = fetched.main | "CheckBodies" >> flat_map(
        check_body, excluded, tags=["failures", "digests"]
    )
    decoded = bodies.main | "DecodeImages" >> tagged(
        in_threads(naming.DECODE, decode_image, config)
    )
    images = decoded.main
    if config.original_dir or config.resized_dir:
        images |= "KeepImages" >> in_threads(
            naming.KEEP, kept_images.keep, config, threads=FILE_THREADS
        )
    filtered = images | "FilterImages" >> flat_map(
        filter_image, config, tags=["failures", "dropped"]
    )
    embedded = filtered.main | "EmbedImages" >> embed_images(config, digests.get("checkpoint"))

    rows = FileSystems.join(config.output, f"{naming.ROWS_PREFIX}{commit.index:05}")
    examples, written, shards = {}, {}, {}
    splits = embedded | "Split" >> beam.Partition(validation_index, 2, config.validation_fraction)  # type: ignore[arg-type]
    for (split, prefix), name, images in zip(_SPLITS.items(), naming.SPLITS, splits, strict=True):
        encode = ThreadMap(
            naming.ENCODE, encode_example, config, ticks, low_priority=config.has_network
        )
        examples[split] = images | f"Encode{split}Examples" >> beam.ParDo(encode)
        written[split] = examples[split] | f"Write{split}Examples" >> write_shards.WriteExamples(
            path(prefix), name, config.compression, config.examples_per_shard, rows
        )
        shards[split] = written[split] | f"{split}Shards" >> beam.Map(lambda one: one.shard)
    metadata_files = tuple(written.values()) | "WriteMetadata" >> write_metadata.WriteMetadata(
        config.output, commit.file_prefix, config.kept_columns
    )
    near_duplicates = metadata_files | "FindNearDuplicates" >> find_near_duplicates(config, commit)
    analyzed = examples["Train"] | "AnalyzeExamples" >> analyze(config, commit)

    failed = [step.failures for step in (checked, fetched, bodies, decoded, filtered)]
    failures = failed | "Failures" >> beam.Flatten()
    failure_files = failures | "WriteFailures" >> write_shards.WriteFailures(
        path(naming.FAILURES_PREFIX)
    )
    reasons = failures | "CountReasons" >> beam.Map(count_outcomes.count_reason, ticks)
    counts = (
        (refs.counts, unique.counts, reasons)
        | "Counts" >> beam.Flatten()
        | "SumCounts" >> beam.CombinePerKey(sum)
    )
    outcomes = (embedded, failures, filtered.dropped) | "SumOutcomes" >> sum_outcomes(config)
    sample = (
        filtered.dropped
        | "SampleDropped" >> beam.ParDo(SampleDropped(config.resize))
        | "MergeSamples" >> beam.CombinePerKey(filtered_sample.merge)
    )
    repeated = bodies.digests | "CountBodies" >> count_bodies(
        at_least=REPEATED if commit == WHOLE_LIST else 1
    )
    _ = (
        pipeline
        | "End" >> beam.Create([config])
        | "FinalizeCommit"
        >> beam.Map(
            commit_manifest.finalize_commit,
            commit.index,
            commit.is_last,
            commit.list_digest,
            dict(digests),
            counts=AsDict(counts),
            train=AsList(shards["Train"]),
            validation=AsList(shards["Validation"]),
            failures=AsList(failure_files),
            metadata=AsList(metadata_files),
            bodies=AsList(repeated),
            outcomes=AsList(outcomes),
            dropped=AsList(sample),
            near_duplicates=AsList(near_duplicates),
            unused_analyzed=AsList(analyzed),
        )
    )


def flat_map(
    function: Callable[..., Any], *arguments: Any, tags: Sequence[str] = ("failures",)
) -> beam.PTransform:
    """Return a FlatMap whose tagged outputs, and `main`, are attributes of its result."""
    return beam.FlatMap(function, *arguments).with_outputs(*tags, main="main")


@beam.ptransform_fn
def group_rows(refs: beam.PCollection, config: Config) -> beam.PCollection:
    """Group the images that are read in one go. Other images are each a group of one."""
    if not (config.images or config.validation_images):
        return refs | "Single" >> beam.Map(lambda ref: [ref])
    return (
        refs
        | "KeyByGroup" >> beam.Map(lambda ref: (group_of(ref), ref))
        | "Group" >> beam.GroupByKey()
        | "Images" >> beam.Values()
    )


def tagged(step: beam.ParDo) -> beam.PTransform:
    return step.with_outputs("failures", main="main")


def in_threads(
    stage: str,
    function: Callable[[Any, Config], Any],
    config: Config,
    threads: int | None = None,
) -> beam.ParDo:
    """Return a ParDo that maps images in threads while the worker's thread computes embeddings.

    It works up to one batch ahead, within `MAX_BYTES`, so that the next batch is ready when the
    network can start it.
    """
    batch = config.batch_size if config.has_network else 0
    max_in_flight = min(
        max(batch, MAX_THREADS), 1 + MAX_BYTES // (_PIXEL_BYTES * config.image_size**2)
    )
    return beam.ParDo(
        ThreadMap(
            stage,
            function,
            config,
            max_in_flight=max_in_flight,
            low_priority=config.has_network,
            threads=threads,
        )
    )


def embed_images(config: Config, checkpoint_sha256: str | None) -> beam.PTransform:
    if not config.has_network:
        return beam.Map(lambda image: EmbeddedImage(image, None))
    # Importing TensorFlow takes seconds and half a gigabyte; a run without the network skips it.
    from apache_beam.ml.inference.base import RunInference

    from beam_pipeline.embedding.inception_resnet_v2 import EmbeddingHandler

    return RunInference(
        EmbeddingHandler(config.checkpoint, config.precision, config.batch_size, checkpoint_sha256)
    )


@beam.ptransform_fn
def analyze(examples: beam.PCollection, config: Config, commit: Commit) -> beam.PCollection:
    """Compute statistics of training examples if requested; emit one element at the end."""
    if not config.has_statistics:
        return examples.pipeline | beam.Create([None])
    # Imports TensorFlow.
    from beam_pipeline.transforms.analyze_examples import analyze_commit

    records = examples | "TakeRecord" >> beam.Map(lambda example: example.record)
    return records | analyze_commit(config, commit)


@beam.ptransform_fn
def sum_outcomes(results: tuple[beam.PCollection, ...], config: Config) -> beam.PCollection:
    """Sum the outcomes of examples, failures and dropped images."""
    # Each apart: some runners materialize what is flattened.
    counted = [
        result
        | f"Count{name}Outcomes"
        >> beam.ParDo(count_outcomes.CountOutcomes(config.validation_fraction))
        for name, result in zip(("Example", "Failure", "Dropped"), results, strict=True)
    ]
    return counted | beam.Flatten() | beam.CombinePerKey(sum)


@beam.ptransform_fn
def find_near_duplicates(
    files: beam.PCollection, config: Config, commit: Commit
) -> beam.PCollection:
    """Find near-duplicates among all images if requested; emit nothing before the last commit."""
    if not (config.has_near_duplicates and commit.is_last):
        return files.pipeline | beam.Create([])
    earlier = commit_manifest.read_commits(config.output) if commit.index else []
    return files | FindNearDuplicates(
        config.output, [file for commit in earlier for file in commit.metadata]
    )


@beam.ptransform_fn
def count_bodies(digests: beam.PCollection, at_least: int) -> beam.PCollection:
    """Count equal bodies; emit a `repeated_content.Repeat` for those that occur often enough."""
    return (
        digests
        | "Merge" >> beam.CombinePerKey(repeated_content.merge)
        | "List" >> beam.MapTuple(lambda sha256, body: repeated_content.Repeat(sha256, *body))
        | "KeepRepeated" >> beam.Filter(lambda body: body.count >= at_least)
    )

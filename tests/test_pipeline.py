"""Tests of the graph: its results for a list of all kinds, and that it never shuffles pixels."""

import collections
import dataclasses
import gzip
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from origin import image
from PIL import Image

from beam_pipeline import naming, pipeline
from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Commit, ImageRef
from beam_pipeline.images import decoding, lab_color
from beam_pipeline.launch import output_dir
from beam_pipeline.reading import dataset_dir, validation
from beam_pipeline.records import tfrecord
from beam_pipeline.sources.text_lines import MAX_LINE
from beam_pipeline.transforms import write_metadata

SIZE = 32
SHUFFLES = (
    "beam:transform:group_by_key:v1",
    "beam:transform:reshuffle:v1",
    "beam:transform:combine_per_key:v1",
    # Beam's own runner materializes what is flattened.
    "beam:transform:flatten:v1",
)


NO_PIXELS = ("failures", "digests")  # outputs, without pixels, of steps that hold pixels
# Steps that emit names, counts, or rows of sums.
NO_PIXELS_OUT = (
    *("WriteBundles", "CountExampleOutcomes", "ApplySavedModel"),
    # Of dropped images: counts, and a few small pictures.
    *("CountDroppedOutcomes", "SampleDropped"),
)


def make_config(folder: Path, lines: list[str], **options) -> Config:
    (folder / "urls.txt").write_text("\n".join(lines) + "\n")
    options = {
        "image_size": SIZE,
        "checkpoint": "none",
        "fetch_timeout": 2,
        "allow_private_addresses": True,
        **options,
    }
    return Config(input=str(folder / "urls.txt"), output=str(folder / "dataset"), **options)


def build_and_run(config: Config) -> dict:
    with beam.Pipeline(runner=FnApiRunner()) as graph:
        pipeline.build(graph, config)
    return json.loads(Path(config.output, "dataset.json").read_text())


def read_examples(config: Config, description: dict, split: str = "train") -> dict[str, dict]:
    """Return the examples of a split by URL, read with TensorFlow's own reader and parser."""
    examples = {}
    for file in description["files"]:
        if file["split"] == split:
            kind = "GZIP" if file["name"].endswith(".gz") else ""
            for record in tf.data.TFRecordDataset(
                f"{config.output}/{file['name']}", compression_type=kind
            ):
                feature = tf.train.Example.FromString(record.numpy()).features.feature
                examples[feature["image_url"].bytes_list.value[0].decode()] = feature
    return examples


def read_failures(config: Config) -> dict[str, dict]:
    lines = [
        line
        for path in Path(config.output).glob("failures-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {failure["url"]: failure for failure in map(json.loads, lines)}


def expected_pixels(name: str) -> np.ndarray:
    return decoding.decode(image(name), SIZE, "pad", 10**6).pixels


def test_every_line_is_accounted_for(origin, tmp_path):
    good = [f"n{index}\t{origin.url(f'good/{index}.jpg')}" for index in range(12)]
    failing = {
        origin.url("status/404"): ("fetch", "http_404"),
        origin.url("html/page.jpg"): ("decode", "not_an_image"),
        origin.url("half/half.jpg"): ("decode", "truncated"),
        origin.url("empty/nothing.jpg"): ("fetch", "empty"),
        origin.url("redirect-loop"): ("fetch", "too_many_redirects"),
        "gopher://127.0.0.1/old": ("read", "unsupported_scheme"),
        "nonsense": ("read", "invalid_url"),
    }
    lines = ["# a list", "", *good, *failing, good[3], origin.url("good/3.jpg"), "nonsense"]
    config = make_config(tmp_path, lines, examples_per_shard=5)
    description = build_and_run(config)

    assert {
        key: description["counts"][key]
        for key in ("lines", "ignored", "duplicates", "examples", "failures")
    } == {
        "lines": len(lines),
        "ignored": 2,
        "duplicates": 3,
        "examples": 12,
        "failures": 7,
    }
    examples = read_examples(config, description)
    assert sorted(examples) == sorted(line.split("\t")[1] for line in good)
    for url, feature in examples.items():
        number = url.rpartition("/")[2].removesuffix(".jpg")
        assert feature["image_id"].bytes_list.value == [f"n{number}".encode()]
        l, ab = lab_color.scale_lab(lab_color.rgb_to_lab(expected_pixels(f"{number}.jpg")))
        np.testing.assert_array_equal(np.float32(feature["image_l"].float_list.value), l.ravel())
        np.testing.assert_array_equal(np.float32(feature["image_ab"].float_list.value), ab.ravel())
    failures = read_failures(config)
    assert {
        url: (failure["stage"], failure["reason"]) for url, failure in failures.items()
    } == failing
    assert failures[origin.url("half/half.jpg")]["attempts"] == 1
    assert description["counts"]["failures_by_reason"] == collections.Counter(
        reason for _, reason in failing.values()
    )
    info = dataset_dir.open_dataset_dir(config.output).info
    assert sorted(path.name for path in Path(config.output).iterdir()) == sorted(
        [*info.file_sizes, *info.index_names, *naming.DESCRIPTIONS, "dataset.json"]
    )
    assert sorted(file["examples"] for file in description["files"]) == [2, 5, 5]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("encoding", ["lab_float32", "lab_uint8", "rgb_png"])
def test_encodings(origin, tmp_path, encoding, compression):
    config = make_config(
        tmp_path, [origin.url("good/a.png")], encoding=encoding, compression=compression
    )
    description = build_and_run(config)
    [feature] = read_examples(config, description).values()
    assert set(feature) == set(description["features"])
    if encoding == "rgb_png":
        stored = np.asarray(Image.open(io.BytesIO(feature["image_png"].bytes_list.value[0])))
        np.testing.assert_array_equal(stored, expected_pixels("a.png"))
    else:
        wanted = (lab_color.scale_lab if encoding == "lab_float32" else lab_color.quantize_lab)(
            lab_color.rgb_to_lab(expected_pixels("a.png"))
        )
        for name, plane in zip(("image_l", "image_ab"), wanted, strict=True):
            if encoding == "lab_uint8":
                assert feature[name].bytes_list.value == [plane.tobytes()]
            else:
                np.testing.assert_array_equal(
                    np.float32(feature[name].float_list.value), plane.ravel()
                )


def test_validation_is_chosen_by_the_url(origin, tmp_path):
    urls = [origin.url(f"good/{index}.jpg") for index in range(40)]
    config = make_config(tmp_path, urls, validation_fraction=0.3)
    description = build_and_run(config)
    train, validation = (
        set(read_examples(config, description, split)) for split in ("train", "validation")
    )
    assert train | validation == set(urls) and not train & validation
    assert validation == {url for url in urls if int(ImageRef("", url).name[:8], 16) / 2**32 < 0.3}
    assert train and validation


def read_rows(config: Config) -> list[dict[str, Any]]:
    return [
        row
        for file in dataset_dir.open_dataset_dir(config.output).info.metadata_files
        for row in pq.read_table(f"{config.output}/{file.name}").to_pylist()
    ]


def stored_at(config: Config, row: dict, compression: str) -> bytes:
    """Return the record at the offset in a row of metadata."""
    with open(f"{config.output}/{row['shard']}", "rb") as file:
        file.seek(row["offset"])
        opened: Any = gzip.GzipFile(fileobj=file) if compression == "gzip" else file
        return next(tfrecord.read_records(opened, row["shard"]))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_row_of_metadata_for_each_record(origin, tmp_path, compression, monkeypatch):
    monkeypatch.setattr(write_metadata, "MAX_ROWS", 8)
    urls = [origin.url(f"redirect/1/good/{index}.jpg") for index in range(30)]
    config = make_config(
        tmp_path,
        urls,
        validation_fraction=0.3,
        examples_per_shard=4,
        compression=compression,
        keep_columns="caption, number",
    )
    refs = [
        ImageRef(
            f"n{index}",
            url,
            image_class=f"class {index % 3}",
            metadata=json.dumps({"caption": f"image {index}", "number": index, "url": "x"}),
        )
        for index, url in enumerate(urls)
    ]
    counts = {"lines": 15}
    for index, part in enumerate((refs[:15], refs[15:])):
        with beam.Pipeline(runner=FnApiRunner()) as graph:
            pipeline.build(graph, config, Commit(index, part, counts, is_last=index == 1))
    opened = dataset_dir.open_dataset_dir(config.output)
    assert validation.check(opened)[0] == []
    assert {file.name[:14] for file in opened.info.metadata_files} == {
        "metadata-00000",
        "metadata-00001",
    }
    assert all(file.rows <= 8 for file in opened.info.metadata_files)
    rows = read_rows(config)
    assert sorted(row["url"] for row in rows) == sorted(urls)
    for row in rows:
        index = urls.index(row["url"])
        kind = "GZIP" if compression == "gzip" else ""
        records = list(tf.data.TFRecordDataset(f"{config.output}/{row['shard']}", kind))
        feature = tf.train.Example.FromString(records[row["index"]].numpy()).features.feature
        assert feature["image_url"].bytes_list.value == [row["url"].encode()]
        assert stored_at(config, row, compression) == records[row["index"]].numpy()
        assert row["sha256"] == hashlib.sha256(image(f"{index}.jpg")).hexdigest()
        assert row["final_url"] == origin.url(f"good/{index}.jpg")
        assert (row["id"], row["class"]) == (f"n{index}", f"class {index % 3}")
        assert (row["caption"], row["number"]) == (f"image {index}", str(index))
        assert (row["original_width"], row["original_height"]) == (96, 72)
        assert row["name"] == ImageRef("", row["url"]).name
    assert {row["split"] for row in rows} == {"train", "validation"}


def test_the_digest_of_a_body_is_not_that_of_the_resized_image(origin, tmp_path):
    url = origin.url("good/1.jpg")
    folders = {name: str(tmp_path / name) for name in ("original_dir", "resized_dir")}
    body = hashlib.sha256(image("1.jpg")).hexdigest()
    sources = []
    for kept in (folders, {"original_dir": folders["original_dir"]}, folders):
        config = make_config(tmp_path, [url], **kept)
        output_dir.prepare(config, [])
        build_and_run(config)
        [row] = read_rows(config)
        sources.append((row["sha256"], row["final_url"]))
    assert sources == [(body, url), (body, None), (None, None)]


def test_a_folder_of_images(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(image(f"{index}.jpg"))
    (tmp_path / "3.jpg").write_text("no image")
    config = Config(
        images=str(tmp_path / "*.jpg"),
        output=str(tmp_path / "dataset"),
        image_size=SIZE,
        checkpoint="none",
    )
    description = build_and_run(config)
    assert sorted(read_examples(config, description)) == [
        str(tmp_path / f"{index}.jpg") for index in range(3)
    ]
    assert read_failures(config)[str(tmp_path / "3.jpg")]["reason"] == "not_an_image"


def test_what_was_kept_is_not_fetched_again(origin, tmp_path):
    urls = [origin.url(f"good/{index}.jpg") for index in range(6)]
    folders = {
        "original_dir": str(tmp_path / "originals"),
        "resized_dir": str(tmp_path / "resized"),
    }
    for folder in folders.values():
        Path(folder).mkdir()
    config = make_config(tmp_path, urls, **folders)
    first = read_examples(config, build_and_run(config))
    names = sorted(ImageRef("", url).name for url in urls)
    assert sorted(path.name for path in Path(folders["original_dir"]).iterdir()) == names
    assert sorted(path.name for path in Path(folders["resized_dir"]).iterdir()) == names
    assert (Path(folders["original_dir"]) / ImageRef("", urls[2]).name).read_bytes() == image(
        "2.jpg"
    )
    resized = Image.open(Path(folders["resized_dir"]) / ImageRef("", urls[2]).name)
    np.testing.assert_array_equal(np.asarray(resized), expected_pixels("2.jpg"))

    asked = len(origin.requests)
    for taken in (
        {"resized_dir": folders["resized_dir"]},
        {"original_dir": folders["original_dir"]},
    ):
        again = make_config(tmp_path, urls, **taken)
        output_dir.prepare(again, [])
        assert read_examples(again, build_and_run(again)) == first
    assert len(origin.requests) == asked


def test_a_list_from_a_pipe_is_refused_where_workers_would_read_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    config = Config(
        input=str(tmp_path / "pipe"), output=str(tmp_path / "dataset"), checkpoint="none"
    )
    with pytest.raises(UsageError, match="is a pipe"):
        pipeline.build(beam.Pipeline(runner=FnApiRunner()), config)


def test_a_line_that_is_too_long_is_a_failure(origin, tmp_path):
    long = origin.url("good/" + "x" * MAX_LINE)
    description = build_and_run(
        config := make_config(tmp_path, [origin.url("good/1.jpg"), long, long, " " * MAX_LINE])
    )
    assert description["counts"]["failures_by_reason"] == {"invalid_url": 3}
    assert (description["counts"]["examples"], description["counts"]["duplicates"]) == (1, 0)
    assert all("longer than" in failure["detail"] for failure in read_failures(config).values())


def test_rows_of_a_table_that_cannot_be_used_are_failures(origin, tmp_path):
    table = tmp_path / "urls.csv"
    url = origin.url("good/1.jpg")
    table.write_text(f"id,url,sum\nn1,{url},\nn2,,\n\nn3,{url}\nn4,{url}?4,x\nn5,{url},\n")
    config = make_config(tmp_path, [], md5_column="sum")
    config = dataclasses.replace(config, input=str(table))
    counts = build_and_run(config)["counts"]
    assert counts["failures_by_reason"] == {"invalid_url": 2, "invalid_digest": 1}
    names = ("lines", "ignored", "duplicates", "examples")
    assert [counts[name] for name in names] == [6, 1, 1, 1]
    assert set(read_failures(config)) == {f"{table}#{row}" for row in (2, 4, 5)}


def find_shuffled_pixels(components: Any) -> tuple[list[str], list[str]]:
    """Follow the outputs of FetchImages down to the writing of shards.

    Args:
      components: The components of a graph, as in Beam's proto.

    Returns:
      The steps that hold pixels, and those among them that shuffle.
    """
    leaves = [step for step in components.transforms.values() if not step.subtransforms]
    shuffling = {
        name
        for step in components.transforms.values()
        if step.spec.urn in SHUFFLES
        for name in step.inputs.values()
    }
    [fetch] = [
        step
        for step in leaves
        if step.unique_name == "FetchImages" or step.unique_name.startswith("FetchImages/ParDo")
    ]
    holding = [name for tag, name in fetch.outputs.items() if tag not in NO_PIXELS]
    steps, shuffled = [fetch.unique_name], []
    for name in holding:
        if name in shuffling:
            shuffled.append(name)
        for step in leaves:
            if name in step.inputs.values():
                steps.append(step.unique_name)
                if not any(name in step.unique_name for name in NO_PIXELS_OUT):
                    holding += [
                        output
                        for tag, output in step.outputs.items()
                        if tag not in NO_PIXELS and output not in holding
                    ]
    return steps, shuffled


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"checkpoint": "untrained"},
        {"encoding": "rgb_png", "validation_fraction": 0.5},
        {"statistics": True},
        {"drop_grey": True, "near_duplicates": True},
    ],
)
def test_no_pixels_are_shuffled(tmp_path, options):
    graph = beam.Pipeline(runner=FnApiRunner())
    pipeline.build(graph, make_config(tmp_path, ["http://a/b.jpg"], **options))
    steps, shuffled = find_shuffled_pixels(graph.to_runner_api().components)
    assert shuffled == []
    analysis = ["AnalyzeExamples/ReadBatch", "ApplySavedModel"] if options.get("statistics") else []
    for passed in (
        *analysis,
        "DecodeImages",
        "EmbedImages",
        "EncodeTrainExamples",
        "WriteTrainExamples",
        "WriteValidationExamples",
    ):
        assert any(passed in step for step in steps), (
            f"{passed} was not reached, so nothing was looked at"
        )


def test_a_shuffle_of_pixels_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "embed_images", lambda *unused: beam.Reshuffle())
    graph = beam.Pipeline(runner=FnApiRunner())
    pipeline.build(graph, make_config(tmp_path, ["http://a/b.jpg"]))
    assert find_shuffled_pixels(graph.to_runner_api().components)[1]

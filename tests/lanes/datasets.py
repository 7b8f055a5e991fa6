"""Run the command, and compare datasets that were made on different engines."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import archives
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from origin import Origin, image
from PIL import Image
from skimage.color import lab2rgb

from beam_pipeline import dataset, naming
from beam_pipeline.dataset_info import Statistics
from beam_pipeline.reading import dataset_dir, near_duplicates, validation
from beam_pipeline.reading.statistics import read as read_statistics
from beam_pipeline.storage import any_path
from beam_pipeline.storage.filesystem import list_folder, read_bytes

SIZE = 299
EXAMPLES_PER_SHARD = 8
# Each worker process takes most of a minute to build the network: few tests need it.
NETWORK = ("--checkpoint", "untrained")
OPTIONS = (
    *("--checkpoint", "none", "--allow_private_addresses", "--fetch_timeout", "5"),
    *(
        "--examples_per_shard",
        str(EXAMPLES_PER_SHARD),
        "--validation_fraction",
        "0.2",
        "--batch_size",
        "8",
    ),
)


CONTAINER_OPTIONS = (
    *("--checkpoint", "none", "--validation_fraction", "0.2", "--image_size", "64"),
    *("--drop_grey", "--near_duplicates"),
)


class Dataset(NamedTuple):
    """The content of a dataset folder.

    Attributes:
      examples: The split and the features, by URL.
      failures: The stage and the reason, by URL.
      description: `dataset.json`.
      statistics: The statistics in `transform/`; None if there are none.
      clusters: The URLs in each cluster of near-duplicates.
      filtered: The sample of filtered images.
    """

    examples: dict[str, tuple[str, dict[str, Any]]]
    failures: dict[str, tuple[str, str]]
    description: dict[str, Any]
    statistics: Statistics | None
    clusters: set[frozenset[str]]
    filtered: bytes


def write_list(path: Path, origin: Origin, good: int = 48) -> None:
    """Write a list of every kind of line.

    It has images of several shapes and formats, repeated lines, and failures of each stage.
    """
    shapes = ((320, 240), (120, 200), (299, 299))
    names = [f"{index}.{('jpg', 'png', 'webp')[index % 3]}" for index in range(good)]
    lines = [
        f"n{index % 3:08}_{index}\t"
        f"{origin.url(f'sized/{shapes[index % 3][0]}/{shapes[index % 3][1]}/{name}')}"
        for index, name in enumerate(names)
    ]
    lines += [
        *(origin.url(f"status/{code}/x{code}.jpg") for code in (404, 410, 500)),
        *(
            origin.url(path)
            for path in ("html/page.jpg", "half/half.jpg", "empty/nothing.jpg", "redirect-loop")
        ),
        *("gopher://127.0.0.1/old.jpg", "nonsense"),
    ]
    path.write_text("\n".join(["# a list", *lines, lines[0], lines[5]]) + "\n")


def write_containers(folder: Path) -> str:
    """Write a tar of tars, a compressed tar, a zip and a Parquet file of images.

    Each has two classes, a file that is not an image, and a grey image.

    Returns:
      The value of `--images`.
    """
    members = {
        f"{wnid}/{wnid}_{number}.JPEG": image(f"{wnid}_{number}.jpg", 80, 60)
        for wnid in archives.WNIDS
        for number in range(12)
    }
    members[f"{archives.WNIDS[0]}/broken.JPEG"] = b"not an image"
    grey = io.BytesIO()
    Image.open(io.BytesIO(image("grey.jpg", 80, 60))).convert("L").save(grey, "JPEG")
    members[f"{archives.WNIDS[1]}/grey.JPEG"] = grey.getvalue()
    inner = {
        f"{wnid}.tar": archives.make_tar(
            (name.partition("/")[2], body) for name, body in members.items() if wnid in name
        )
        for wnid in archives.WNIDS
    }
    (folder / "train.tar").write_bytes(archives.make_tar(inner.items()))
    (folder / "train.tgz").write_bytes(archives.make_tar(members.items(), "w:gz"))
    with zipfile.ZipFile(folder / "train.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members.items():
            file.writestr(name, body)
    rows = [
        {"image": {"bytes": body, "path": name}, "label": archives.WNIDS.index(name[:9])}
        for name, body in members.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet", row_group_size=10)
    return ",".join(str(folder / f"train.{ending}") for ending in ("tar", "tgz", "zip", "parquet"))


@contextlib.contextmanager
def job(
    arguments: Sequence[str | Path], cwd: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the command as a user would; all processes end with the `with` block."""
    command = [sys.executable, "-m", "beam_pipeline.run", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_job(
    arguments: Sequence[str | Path], cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    with job(arguments, cwd, **environment) as process:
        output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def read_dataset(folder: str | Path) -> Dataset:
    """Read a complete dataset, local or remote; fail if its folder holds any other file."""
    folder = str(folder)
    problems, _ = validation.check(dataset_dir.open_dataset_dir(folder))
    assert problems == []
    description = json.loads(read_bytes(f"{folder}/dataset.json"))
    examples = {}
    for split in ("train", "validation"):
        for example in dataset.load(folder, split).as_numpy_iterator():
            url = example["image_url"].decode()
            assert url not in examples, f"{url} occurs twice"
            examples[url] = (split, example)
    lines = [
        line
        for path in list_folder(folder, "failures-*.jsonl")
        for line in read_bytes(path).splitlines()
    ]
    failures = {
        failure["url"]: (failure["stage"], failure["reason"]) for failure in map(json.loads, lines)
    }
    assert len(failures) == len(lines)
    sample = f"{folder}/{naming.FILTERED_SAMPLE}"
    has_statistics = any_path.is_local(folder) and any_path.exists(f"{folder}/{naming.TRANSFORM}")
    return Dataset(
        examples,
        failures,
        description,
        read_statistics(dataset_dir.open_dataset_dir(folder)) if has_statistics else None,
        _read_clusters(folder),
        read_bytes(sample) if any_path.exists(sample) else b"",
    )


def _read_clusters(folder: str) -> set[frozenset[str]]:
    table = near_duplicates.read_table(folder, dataset.read_info(folder))
    clusters = collections.defaultdict(set)
    for row in table.to_pylist():
        clusters[row["cluster"]].add(row["url"])
    return set(map(frozenset, clusters.values()))


def assert_right(made: Dataset) -> None:
    """Check the examples against Pillow and scikit-image, the counts, and the size of shards.

    Each example must be what they make of the image of its URL.
    """
    counts = made.description["counts"]
    assert (
        counts["examples"]
        == len(made.examples)
        == sum(file["examples"] for file in made.description["files"])
    )
    assert counts["failures"] == len(made.failures)
    assert counts["lines"] == sum(
        counts[key] for key in ("ignored", "duplicates", "examples", "failures")
    )
    assert max(file["examples"] for file in made.description["files"]) <= EXAMPLES_PER_SHARD
    for url, (_, example) in made.examples.items():
        assert example["image_name"].decode() == hashlib.md5(url.encode()).hexdigest() + ".jpeg"
        lab = np.concatenate([(example["image_l"] + 1) * 50, example["image_ab"] * 127], axis=-1)
        # Another library resizes: some values differ by one level, few by two.
        difference = np.abs(255 * lab2rgb(lab) - _expected_pixels(url))
        assert difference.max() < 2.1 and difference.mean() < 0.05, url


def assert_makes_the_same(
    engine: Sequence[str | Path],
    url_list: Path,
    output: Path,
    reference: Dataset,
    slots: int,
    *others: str,
) -> None:
    """Run the job on an engine with `slots` slots, and compare its dataset."""
    done = run_job([*engine, "--input", url_list, "--output", output, *OPTIONS, *others])
    assert done.returncode == 0, done.stderr
    made = read_dataset(output)
    assert_right(made)
    assert_same(made, reference)
    assert made.statistics, "nothing was learnt"
    assert_full_shards(made, slots)


def assert_reads_containers(
    engine: Sequence[str | Path], containers: str, output: Path, reference: Dataset
) -> None:
    """Read containers on an engine, and compare the dataset with that of the DirectRunner."""
    done = run_job([*engine, "--images", containers, "--output", output, *CONTAINER_OPTIONS])
    assert done.returncode == 0, done.stderr
    assert_has_containers(read_dataset(output), reference)


def assert_has_containers(made: Dataset, reference: Dataset) -> None:
    """Check the dataset of the containers against that of the DirectRunner."""
    assert made.description["counts"]["examples"] == 4 * 24
    assert {reason for _, reason in made.failures.values()} == {"not_an_image", "grey"}
    # Each image is in the four containers.
    assert sorted(map(len, made.clusters)) == [4] * 24
    assert set(archives.WNIDS) < set(made.description["classes"])
    assert_same(made, reference)


def assert_full_shards(made: Dataset, slots: int) -> None:
    """Check that all shards are full but one per slot: each slot makes one bundle."""
    for split in ("train", "validation"):
        sizes = [file["examples"] for file in made.description["files"] if file["split"] == split]
        assert len(sizes) <= sum(sizes) // EXAMPLES_PER_SHARD + slots, sizes


def _expected_pixels(url: str) -> np.ndarray:
    width, height, name = url.split("/")[-3:]
    picture = Image.open(io.BytesIO(image(name, int(width), int(height)))).convert("RGB")
    ratio = min(SIZE / picture.width, SIZE / picture.height)
    side = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    square = Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(
        picture.resize(side, Image.Resampling.LANCZOS),
        ((SIZE - side[0]) // 2, (SIZE - side[1]) // 2),
    )
    return np.asarray(square)


def assert_same(made: Dataset, reference: Dataset) -> None:
    """Check that examples, splits and failures are equal, and embeddings, if any, to 1e-4."""
    assert made.failures == reference.failures
    assert (made.clusters, made.filtered) == (reference.clusters, reference.filtered)
    for name in ("counts", "failures_by_stage", "classes", "hosts", "measures"):
        assert made.description[name] == reference.description[name]
    if made.statistics:
        assert reference.statistics
        for name, value in made.statistics._asdict().items():
            np.testing.assert_allclose(
                value, getattr(reference.statistics, name), rtol=1e-3, atol=1e-3, err_msg=name
            )
    assert set(made.examples) == set(reference.examples)
    for url, (split, example) in made.examples.items():
        other_split, other = reference.examples[url]
        assert split == other_split
        assert set(example) == set(other)
        for name, value in example.items():
            if name == "image_embedding":
                assert value.shape == (1001,)
                np.testing.assert_allclose(value, other[name], rtol=1e-4, atol=1e-4, err_msg=url)
            else:
                np.testing.assert_array_equal(value, other[name], err_msg=f"{name} of {url}")

"""Tests of curation by the command: what each filter drops, that counts reconcile, resuming."""

from __future__ import annotations

import collections
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image, ImageFilter

from beam_pipeline import dataset, report, run, validate
from beam_pipeline.images import lab_color, measures


def tone(grey: np.ndarray, ink: tuple[int, ...], paper: tuple[int, ...]) -> Image.Image:
    """Return a grey image, (H, W), as a print with the colours of an ink and a paper."""
    share = grey[..., None] / 255
    return Image.fromarray(np.rint((1 - share) * ink + share * np.array(paper)).astype(np.uint8))


def make_images(folder: Path) -> None:
    """Write photographs, and made images of which a filter drops each."""
    folder.mkdir()
    astronaut = Image.fromarray(skimage.data.astronaut())
    grey = np.asarray(astronaut.convert("L"))
    images = {
        "astronaut": astronaut,
        "coffee": Image.fromarray(skimage.data.coffee()),
        "cat": Image.fromarray(skimage.data.chelsea()),
        "grey_rgb": Image.fromarray(np.repeat(grey[..., None], 3, 2)),
        "grey_mode_l": Image.fromarray(grey),
        "grey_cmyk": Image.merge(
            "CMYK", [Image.new("L", (512, 512))] * 3 + [Image.fromarray(255 - grey)]
        ),
        "white_page": Image.new("RGB", (300, 400), "white"),
        "night": Image.fromarray(grey // 40),
        "sepia": tone(grey, (55, 35, 15), (245, 232, 205)),
        "cyanotype": tone(grey, (60, 80, 105), (200, 222, 240)),
        "flat": Image.new("RGB", (300, 300), (40, 90, 160)),
        "narrow": astronaut.crop((0, 0, 120, 512)),
        "thumbnail": astronaut.resize((90, 90)),
        "pale": Image.blend(astronaut, Image.fromarray(np.repeat(grey[..., None], 3, 2)), 0.85),
        "blurred": astronaut.filter(ImageFilter.GaussianBlur(3)),
    }
    for name, image in images.items():
        image.save(folder / f"{name}.jpg", quality=95)


EXPECTED = {
    "grey": {"grey_rgb", "grey_mode_l", "grey_cmyk", "white_page", "night"},
    "tinted": {"sepia", "cyanotype", "flat"},
    "too_elongated": {"narrow"},
    "too_small": {"thumbnail"},
    "low_colorfulness": {"pale"},
}
FILTERS = "--min_side 100 --max_aspect_ratio 3 --drop_grey --drop_tinted --min_colorfulness 15"


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curation") / "images"
    make_images(folder)
    return folder


def make(images: Path, output: Path, *options: str) -> int:
    fixed = "--runner DirectRunner --checkpoint none --image_size 96"
    return run.main(["--images", str(images), "--output", str(output), *fixed.split(), *options])


def dropped(output: Path) -> dict[str, set[str]]:
    found = collections.defaultdict(set)
    for file in output.glob("failures-*.jsonl"):
        for failure in map(json.loads, file.read_text().splitlines()):
            assert failure["stage"] == "filter" and failure["detail"]
            found[failure["reason"]].add(failure["id"])
    return dict(found)


@pytest.fixture(scope="module")
def filtered(images) -> Path:
    output = images.parent / "filtered"
    assert make(images, output, *FILTERS.split(), "--measures", "--encoding", "rgb_png") == 0
    return output


def test_each_filter_drops_what_a_person_would(filtered):
    assert dropped(filtered) == EXPECTED
    info = dataset.read_info(filtered)
    assert info.counts.failures_by_reason == {
        reason: len(names) for reason, names in EXPECTED.items()
    }
    assert info.counts.examples == 4
    assert validate.main([str(filtered)]) == 0


def test_rows_and_records_hold_the_measures(filtered):
    rows = pq.read_table(filtered / "metadata-00000-of-00001.parquet").to_pylist()
    examples = list(dataset.examples(filtered))
    tensors = list(dataset.load(filtered))
    assert len(rows) == len(examples) == len(tensors) == 4
    for row, example, tensor in zip(rows, examples, tensors, strict=True):
        lab = lab_color.unscale_lab(example["image_l"], example["image_ab"])
        if row["id"] == "astronaut":  # a square: it has no padding
            expected = measures.measure(lab_color.lab_to_rgb(lab), lab)._asdict()
            assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-3)
        for name in measures.Measures._fields:
            assert example[name] == row[name] == tensor[name].numpy()


def test_padding_does_not_count(images, tmp_path):
    """Measures of the middle band are those without padding."""
    for resize in ("pad", "stretch"):
        assert make(images, tmp_path / resize, "--resize", resize) == 0
    by_resize = {
        resize: {
            row["id"]: row
            for file in (tmp_path / resize).glob("metadata-*.parquet")
            for row in pq.read_table(file).to_pylist()
        }
        for resize in ("pad", "stretch")
    }
    # White padding would give the night a white 99th percentile.
    for name in ("night", "narrow", "coffee"):
        padded, stretched = (by_resize[resize][name] for resize in ("pad", "stretch"))
        assert padded["brightness_p99"] == pytest.approx(stretched["brightness_p99"], abs=0.03)
        assert padded["colorfulness"] == pytest.approx(stretched["colorfulness"], rel=0.05, abs=1)


def test_histograms_count_all_images(filtered):
    info = dataset.read_info(filtered)
    assert set(info.measures) == set(measures.Measures._fields)
    for counts in info.measures.values():
        assert (sum(counts.examples), sum(counts.filtered)) == (4, 11)
    chroma = info.measures["max_chroma_ab"]
    assert sum(chroma.filtered[:5]) >= len(EXPECTED["grey"])
    assert sum(chroma.examples[:5]) == 0


def test_the_report_shows_what_was_filtered(filtered):
    assert report.main([str(filtered)]) == 0
    page = (filtered / "report.html").read_text()
    section = page[page.index('<h2 id="filtered">') : page.index("<h3>Measures of all images")]
    assert section.count("<img ") == sum(map(len, EXPECTED.values()))
    for reason, names in EXPECTED.items():
        assert f"<b>{reason}</b>" in section
        assert all(f"{name}.jpg" in section for name in names)


def test_a_run_without_filters_has_no_sample(images, tmp_path):
    assert make(images, tmp_path, "--count", "2") == 0
    assert not (tmp_path / "filtered_sample.jsonl").exists()
    assert "No image was filtered." in (tmp_path / "report.html").read_text()


def test_parts_add_up(images, filtered, tmp_path):
    """A run in parts filters as a run in one part does. `test_interruption` kills runs."""
    part = ("--urls_per_commit", "4", *FILTERS.split(), "--measures", "--encoding", "rgb_png")
    assert make(images, tmp_path, *part) == 0
    assert dropped(tmp_path) == EXPECTED
    one, parts = dataset.read_info(filtered), dataset.read_info(tmp_path)
    assert one.measures == parts.measures
    assert (tmp_path / "filtered_sample.jsonl").read_bytes() == (
        filtered / "filtered_sample.jsonl"
    ).read_bytes()


@pytest.fixture(scope="module")
def similar(tmp_path_factory) -> Path:
    """Return a dataset in parts, in which two training images are like validation images."""
    folder = tmp_path_factory.mktemp("similar")
    photographs, validation = folder / "train", folder / "validation"
    photographs.mkdir()
    validation.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = Image.fromarray(getattr(skimage.data, name)())
        image.save(photographs / f"{name}.jpg", quality=95)
        smaller = image.resize((image.width * 3 // 4, image.height * 3 // 4))
        if name in ("astronaut", "coffee"):
            smaller.save(validation / f"{name}_small.jpg", quality=60)
        if name in ("astronaut", "chelsea"):
            smaller.save(photographs / f"{name}_small.jpg", quality=60)
    for split in (photographs, validation):
        Image.new("RGB", (200, 200), "red").save(split / "flat.png")
    options = ("--validation_images", str(validation), "--near_duplicates")
    assert make(photographs, folder / "dataset", *options, "--urls_per_commit", "4") == 0
    return folder / "dataset"


def ids(examples) -> list[str]:
    return sorted(example["image_id"].decode() for example in examples)


ALL = [
    *("astronaut", "astronaut_small", "chelsea", "chelsea_small", "coffee", "flat", "rocket"),
]


def test_leaks_are_found_over_all_parts(similar, capsys):
    found = dataset.read_info(similar).near_duplicates
    assert found and (found.clusters, found.images, found.largest, found.leaks) == (3, 7, 3, 3)
    assert found.not_compared == 2
    rows = pq.read_table(similar / "near_duplicates.parquet").to_pylist()
    clusters = collections.defaultdict(list)
    for row in rows:
        clusters[row["cluster"]].append(Path(row["url"]).stem)
    assert {frozenset(names) for names in clusters.values()} == {
        frozenset({"astronaut", "astronaut_small"}),
        frozenset({"coffee", "coffee_small"}),
        frozenset({"chelsea", "chelsea_small"}),
    }
    assert validate.main([str(similar)]) == 0
    printed = capsys.readouterr().out
    assert "3 training images like a validation image" in printed
    assert "train/coffee.jpg is like " in printed and "validation/coffee_small.jpg" in printed


@pytest.mark.parametrize(
    ("exclude", "train", "validation"),
    [
        ((), ALL, ["astronaut_small", "coffee_small", "flat"]),
        (
            ("leaks",),
            ["chelsea", "chelsea_small", "flat", "rocket"],
            ["astronaut_small", "coffee_small", "flat"],
        ),
        ("leaks", None, None),
        (("near_duplicates",), None, ["astronaut_small", "coffee_small", "flat"]),
        (("leaks", "near_duplicates"), None, ["astronaut_small", "coffee_small", "flat"]),
    ],
)
def test_every_reader_leaves_out_what_is_excluded(similar, exclude, train, validation):
    for split, expected in (("train", train), ("validation", validation)):
        examples = dataset.examples(similar, split, exclude)
        tensors = dataset.load(similar, split, exclude=exclude)
        assert len(examples) == tensors.cardinality() == len(list(examples))
        assert ids(examples) == ids(examples[index] for index in range(len(examples)))
        assert ids(examples) == sorted(tensor["image_id"].numpy().decode() for tensor in tensors)
        if expected is not None:
            assert ids(examples) == expected
    if "near_duplicates" in exclude:
        kept = ids(dataset.examples(similar, "train", exclude))
        # One of the two cats, whose names are hashes of their paths.
        assert len(kept) == 3 and {"flat", "rocket"} < set(kept)


def test_what_cannot_be_excluded(similar, filtered):
    with pytest.raises(ValueError, match="'others' is not known: it is leaks or near_duplicates"):
        dataset.examples(similar, exclude=("others",))
    with pytest.raises(ValueError, match="exclude is None, not a sequence of leaks or"):
        dataset.examples(similar, exclude=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made without --near_duplicates"):
        dataset.load(filtered, exclude=("leaks",))


def test_the_report_shows_leaks_pair_beside_pair(similar):
    page = (similar / "report.html").read_text()
    section = page[page.index('<h2 id="near-duplicates">') : page.index('<h2 id="colours">')]
    assert section.count("<img ") == 3
    assert "3\u00a0training images" in section or "3 training images" in section
    assert "coffee.jpg" in section and "coffee_small.jpg" in section


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: None, "cannot be read"),
        (lambda table: table.slice(1), "dataset.json lists"),
        (lambda table: table.drop_columns(["split"]), "cannot be read"),
        (
            lambda table: table.set_column(5, "index", pa.array([999] * len(table))),
            "not in the dataset",
        ),
        (lambda table: table.set_column(4, "shard", pa.array(["../x"] * len(table))), "not in the"),
    ],
)
def test_a_broken_table_is_named(similar, tmp_path, capsys, change, message):
    folder = tmp_path / "dataset"
    shutil.copytree(similar, folder)
    path = folder / "near_duplicates.parquet"
    changed = change(pq.read_table(path))
    if changed is None:
        path.write_bytes(b"PAR1")
    else:
        pq.write_table(changed, path)
    for read in (dataset.examples, dataset.load):
        with pytest.raises(ValueError, match=message) as caught:
            read(folder, exclude=("leaks",))
        assert "near_duplicates.parquet" in str(caught.value)
    assert validate.main([str(folder)]) == 1
    assert message in capsys.readouterr().out


def test_a_dataset_without_similar_images(images, tmp_path):
    assert make(images, tmp_path, "--count", "1", "--near_duplicates") == 0
    found = dataset.read_info(tmp_path).near_duplicates
    assert found and found.clusters == 0
    assert not (tmp_path / "near_duplicates.parquet").exists()
    assert len(dataset.examples(tmp_path, exclude=("leaks", "near_duplicates"))) == 1
    assert "No two images look the same" in (tmp_path / "report.html").read_text()


def test_a_retry_takes_filtered_images(origin, tmp_path):
    urls, first, second = (tmp_path / name for name in ("urls.txt", "first", "second"))
    urls.write_text("".join(origin.url(f"{name}.jpg") + "\n" for name in range(3)))
    fixed = "--runner DirectRunner --checkpoint none --image_size 16 --allow_private_addresses"
    strict = [*fixed.split(), "--min_side", "4000"]
    assert run.main(["--input", str(urls), "--output", str(first), *strict]) == 1
    failures = str(first / "failures-00000-of-00001.jsonl")
    options = ("--input", failures, "--output", str(second), "--retry_reasons", "too_small")
    assert run.main([*options, *fixed.split()]) == 0
    assert dataset.read_info(second).counts.examples == 3

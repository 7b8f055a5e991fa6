"""Tests of each form of input, from a small file of that very layout to a dataset.

The commands are those of docs/inputs.md.
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from origin import Origin, image

from beam_pipeline import dataset, run, validate

DOCS = Path(__file__).parents[1] / "docs" / "inputs.md"
CLASSES = ("n01440764", "n01443537")
TRAIN = {f"{wnid}_{index}": wnid for wnid in CLASSES for index in range(4)}
VALIDATION = {f"ILSVRC2012_val_{index:08}": CLASSES[index % 2] for index in range(1, 4)}


def body(name: str) -> bytes:
    return image(f"good/{name}.jpg")


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))


def tar_of_tars(path: Path, mode: str = "w") -> None:
    inner = {}
    for wnid in CLASSES:
        tar(
            path.parent / "inner.tar",
            {f"{name}.JPEG": body(name) for name, own in TRAIN.items() if own == wnid},
        )
        inner[f"{wnid}.tar"] = (path.parent / "inner.tar").read_bytes()
    (path.parent / "inner.tar").unlink()
    tar(path, inner, mode)


def write_kaggle_csv(path: Path) -> None:
    rows = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for name, wnid in VALIDATION.items()]
    path.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


def write_folders(folder: Path) -> None:
    for split, images in (("train", TRAIN), ("val", VALIDATION)):
        for name, wnid in images.items():
            path = folder / "imagenet" / split / wnid / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body(name))
    (folder / "imagenet" / "train" / "notes.txt").write_text("no image")


def write_official(folder: Path) -> None:
    tar_of_tars(folder / "ILSVRC2012_img_train.tar")
    tar(
        folder / "ILSVRC2012_img_val.tar",
        {f"{name}.JPEG": body(name) for name in VALIDATION},
    )
    write_kaggle_csv(folder / "val.csv")


def write_compressed(folder: Path) -> None:
    tar_of_tars(folder / "winter21_whole.tar.gz", "w:gz")


def write_kaggle(folder: Path) -> None:
    path = folder / "imagenet-object-localization-challenge.zip"
    root = "ILSVRC/Data/CLS-LOC"
    with zipfile.ZipFile(path, "w") as archive:
        for index, (name, wnid) in enumerate(TRAIN.items()):
            method = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            archive.writestr(f"{root}/train/{wnid}/{name}.JPEG", body(name), method)
        for name in VALIDATION:
            archive.writestr(f"{root}/val/{name}.JPEG", body(name))
        archive.writestr("LOC_synset_mapping.txt", "n01440764 tench")
    write_kaggle_csv(folder / "LOC_val_solution.csv")
    (folder / "val_ids.txt").write_text("\n".join(VALIDATION))


def write_hugging_face(folder: Path) -> None:
    (folder / "data").mkdir()
    label = {"names": list(CLASSES), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    for split, images in (("train", TRAIN), ("validation", VALIDATION)):
        rows = [
            {
                "image": {"bytes": body(name), "path": f"{name}_{wnid}.JPEG"},
                "label": CLASSES.index(wnid),
            }
            for name, wnid in images.items()
        ]
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)


def write_webdataset(folder: Path) -> None:
    for shard, wnid in enumerate(CLASSES):
        members = {}
        for name in (name for name, own in TRAIN.items() if own == wnid):
            members[f"{name}.cls"] = str(CLASSES.index(wnid)).encode()
            members[f"{name}.jpg"] = body(name)
            members[f"{name}.json"] = json.dumps({"json_key": name, "other": 1}).encode()
        tar(folder / f"imagenet22k-train-{shard:04}.tar", members)


FORMS: dict[str, Callable[[Path], None]] = {
    "ImageNet as class folders": write_folders,
    "ImageNet as the official archives": write_official,
    "ImageNet-21K as the compressed archive": write_compressed,
    "ImageNet from Kaggle": write_kaggle,
    "ImageNet from Hugging Face": write_hugging_face,
    "WebDataset shards": write_webdataset,
}


def command(heading: str) -> list[str]:
    """Return the options that docs/inputs.md gives under a heading."""
    section = DOCS.read_text().split(f"### {heading}\n")[1]
    found = re.search(r"^    (--(?:.*\\\n)*.*)$", section, re.MULTILINE)
    assert found is not None
    return shlex.split(found[1].replace("\\\n", ""))


def read(folder: Path) -> dict[str, tuple[str, str, int]]:
    """Return the split, class and label of each example, by ID."""
    return {
        example["image_id"].decode(): (
            split,
            example["image_class"].decode(),
            example["image_label"],
        )
        for split in ("train", "validation")
        for example in dataset.examples(folder, split)
    }


def make(folder: Path, monkeypatch: Any, options: list[str], *others: str) -> None:
    monkeypatch.chdir(folder)
    fixed = "--output out --checkpoint none --image_size 16 --encoding lab_uint8 --report=false"
    assert run.main([*options, *fixed.split(), *others]) == 0


@pytest.mark.parametrize("heading", FORMS)
def test_images_in_each_form(tmp_path, monkeypatch, heading):
    FORMS[heading](tmp_path)
    options = command(heading)
    make(tmp_path, monkeypatch, options)
    info = dataset.read_info("out")
    assert info.counts.failures == info.counts.ignored == info.counts.duplicates == 0
    found = read(Path("out"))
    names = {name.removesuffix(f"_{own}") for name in found for own in CLASSES}
    classes = dict(zip(CLASSES, CLASSES, strict=True))
    if heading == "WebDataset shards":
        classes = dict(zip(CLASSES, ("0", "1"), strict=True))
    for name, (split, image_class, label) in found.items():
        plain = next(n for n in (*TRAIN, *VALIDATION) if name.startswith(n))
        own = {**TRAIN, **VALIDATION}[plain]
        assert (image_class, label) == (classes[own], CLASSES.index(own))
        if "--stratify" not in options:
            assert split == ("train" if plain in TRAIN else "validation")
    has_validation = any(option.startswith("--validation_") for option in options)
    is_split = has_validation and "--stratify" not in options
    assert len(found) == len(TRAIN) + len(VALIDATION) * is_split, names
    totals = {name: sum(splits.values()) for name, splits in info.classes.items()}
    assert sum(totals.values()) == len(found) and set(totals) == set(classes.values())


def rows_of(origin: Origin, count: int = 5) -> list[dict[str, Any]]:
    return [
        {"url": origin.url(f"good/{index}.jpg"), "caption": f'a "cat", {index}', "index": index}
        for index in range(count)
    ]


def metadata(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(example["image_metadata"]) for example in dataset.examples(folder)]


def test_laion(origin, tmp_path, monkeypatch):
    rows = [
        {"URL": row["url"], "TEXT": row["caption"], "similarity": 0.5} for row in rows_of(origin)
    ]
    (tmp_path / "laion").mkdir()
    for part in range(2):
        table = pa.Table.from_pylist(rows[3 * part : 3 * part + 3])
        pq.write_table(table, tmp_path / "laion" / f"part-{part:05}.parquet")
    make(
        tmp_path,
        monkeypatch,
        command("LAION and other Parquet tables"),
        "--allow_private_addresses",
    )
    kept = metadata(Path("out"))
    assert sorted(row["TEXT"] for row in kept) == sorted(row["TEXT"] for row in rows)
    assert {row["similarity"] for row in kept} == {0.5}


def test_kept_columns_of_the_metadata_are_compared_with_the_records(
    origin, tmp_path, monkeypatch, capsys
):
    table = pa.Table.from_pylist(rows_of(origin))
    pq.write_table(table, tmp_path / "urls.parquet")
    options = ["--input", "urls.parquet", "--keep_columns", "caption,url,index"]
    make(tmp_path, monkeypatch, options, "--allow_private_addresses")
    assert validate.main(["out"]) == 0
    [path] = Path("out").glob("metadata-*.parquet")
    rows = pq.read_table(path)
    assert set(rows["kept_url"].to_pylist()) == set(table["url"].to_pylist())
    captions = rows["caption"].to_pylist()
    changed = rows.set_column(
        rows.schema.get_field_index("caption"), "caption", [["other", *captions[1:]]]
    )
    pq.write_table(changed, path)
    capsys.readouterr()
    assert validate.main(["out"]) == 1
    assert "row 0 does not match record 0" in capsys.readouterr().out


def test_cc12m(origin, tmp_path, monkeypatch):
    lines = [f'{row["url"]}\t"{row["caption"]}' for row in rows_of(origin)]
    (tmp_path / "cc12m.tsv").write_text("\n".join(lines) + "\n")
    make(tmp_path, monkeypatch, command("CC3M and CC12M"), "--allow_private_addresses")
    captions = sorted(row["2"] for row in metadata(Path("out")))
    assert captions == sorted(f'"{row["caption"]}' for row in rows_of(origin))


def test_openimages(origin, tmp_path, monkeypatch):
    def md5(index: int) -> str:
        digest = hashlib.md5(image(f"{index}.jpg")).digest()
        return base64.b64encode(digest).decode()

    with open(tmp_path / "train-images.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageID", "Subset", "OriginalURL", "License", "Author", "OriginalMD5"])
        for row in rows_of(origin):
            digest = md5(0 if row["index"] == 4 else row["index"])
            writer.writerow([f"id{row['index']}", "train", row["url"], "by", "A, B", digest])
    make(tmp_path, monkeypatch, command("OpenImages"), "--allow_private_addresses")
    info = dataset.read_info("out")
    assert info.counts.failures_by_reason == {"wrong_digest": 1}
    assert sorted(read(Path("out"))) == ["id0", "id1", "id2", "id3"]
    assert metadata(Path("out"))[0] == {"License": "by", "Author": "A, B"}


def test_a_text_list(origin, tmp_path, monkeypatch):
    lines = [f"n01440764_{row['index']}\t{row['url']}" for row in rows_of(origin)]
    (tmp_path / "fall11_urls.txt").write_text("\n".join(lines) + "\n")
    make(tmp_path, monkeypatch, command("A text list"), "--allow_private_addresses")
    assert set(read(Path("out")).values()) == {("train", "n01440764", 0)}


def test_kinds_may_be_mixed(tmp_path, monkeypatch):
    write_official(tmp_path)
    write_hugging_face(tmp_path)
    tar(tmp_path / "more.tgz", {"a/x.jpg": body("x"), "b/y.png": body("y")}, "w:gz")
    options = ["--images", "ILSVRC2012_img_train.tar,data/train-*.parquet,more.tgz"]
    make(tmp_path, monkeypatch, options)
    assert dataset.read_info("out").counts.examples == 2 * len(TRAIN) + 2


def test_an_image_in_both_inputs_is_a_duplicate_and_stays_in_validation(tmp_path, monkeypatch):
    write_folders(tmp_path)
    options = ["--images", "imagenet", "--validation_images", "imagenet/val"]
    make(tmp_path, monkeypatch, options)
    info = dataset.read_info("out")
    assert info.counts.duplicates == len(VALIDATION)
    assert {split for name, (split, *_) in read(Path("out")).items() if name in VALIDATION} == {
        "validation"
    }


def test_a_stratified_split_takes_the_same_share_of_each_class(tmp_path, monkeypatch):
    for wnid, count in (("a", 40), ("b", 7), ("c", 1)):
        (tmp_path / "photos" / wnid).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "photos" / wnid / f"{index}.jpg").write_bytes(body(f"{wnid}{index}"))
    options = ["--images", "photos", "--validation_fraction", "0.25", "--stratify"]
    make(tmp_path, monkeypatch, options)
    for splits in dataset.read_info("out").classes.values():
        total = splits["train"] + splits["validation"]
        assert abs(splits["validation"] - 0.25 * total) <= 1


def test_a_container_that_has_changed_since_is_refused(tmp_path, monkeypatch, capsys):
    from beam_pipeline import pipeline

    write_official(tmp_path)
    options = ["--images", "ILSVRC2012_img_train.tar", "--urls_per_commit", "3"]
    build = pipeline.build

    def break_second(graph, config, commit, *others):
        if commit.index == 1:
            raise RuntimeError("the machine dies")
        return build(graph, config, commit, *others)

    monkeypatch.chdir(tmp_path)
    fixed = ["--output", "out", "--checkpoint", "none", "--image_size", "16", "--report=false"]
    with monkeypatch.context() as broken:
        broken.setattr("beam_pipeline.pipeline.build", break_second)
        assert run.main([*options, *fixed]) == 1
    data = Path("ILSVRC2012_img_train.tar").read_bytes()
    Path("ILSVRC2012_img_train.tar").write_bytes(data + bytes(512))
    assert run.main([*options, *fixed]) == 2
    assert "has changed since the run began" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["ImageNet-21K as the compressed archive", "tar", "parquet"])
def test_parts_of_containers_add_up(tmp_path, monkeypatch, form):
    write_compressed(tmp_path)
    write_official(tmp_path)
    write_hugging_face(tmp_path)
    path = {"tar": "ILSVRC2012_img_train.tar", "parquet": "data/train-00000-of-00001.parquet"}
    options = ["--images", path.get(form, "winter21_whole.tar.gz"), "--urls_per_commit", "3"]
    make(tmp_path, monkeypatch, options)
    assert len(read(Path("out"))) == len(TRAIN) == dataset.read_info("out").counts.lines


CUT = {"corrupt_container": 1}


def start_of(path: Path, name: str) -> int:
    with tarfile.open(path) as archive:
        return archive.getmember(name).offset_data


@pytest.mark.parametrize(
    ("write", "reasons"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: start_of(path, "c.jpg") + 100]), CUT),
        (lambda path: tar(path, {"a/../../x.jpg": body("x"), "/y.jpg": body("y")}), {}),
    ],
)
def test_damaged_and_hostile_archives(tmp_path, monkeypatch, write, reasons):
    path = tmp_path / "images.tar"
    tar(path, {f"{name}.jpg": body(name) for name in ("a", "b", "c")})
    before = sorted(tmp_path.parent.iterdir())
    write(path)
    make(tmp_path, monkeypatch, ["--images", "images.tar"])
    info = dataset.read_info("out")
    assert info.counts.failures_by_reason == reasons
    assert info.counts.examples >= 2 and sorted(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "data/train-00000-of-00001.parquet"], "give it as --images"),
        (["--input", "data"], "is a folder: give it as --images"),
        (["--images", "urls.txt"], "is a list of URLs: give it as --input"),
        (["--images", "empty"], "holds no image"),
        (["--images", "nowhere/*.jpg"], "matches no file"),
        (["--images", "data/*", "--image_column", "img"], "its columns are image, label"),
        (["--images", "data", "--validation_ids", "none.txt"], "--validation_ids none.txt"),
        (
            ["--images", "data", "--validation_ids", "a", "--validation_fraction", "0.1"],
            "at most one of",
        ),
    ],
)
def test_what_cannot_be_read_is_named_before_anything_is_made(
    tmp_path, monkeypatch, capsys, options, said
):
    write_hugging_face(tmp_path)
    (tmp_path / "urls.txt").write_text("http://127.0.0.1/a\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run.main([*options, "--output", "out", "--checkpoint", "none"]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1
    assert not list(Path("out").glob("*.tfrecord"))


def records(folder: Path) -> list[tuple[str, str, bytes]]:
    """Return the URL, the split and the planes of each example."""
    return sorted(
        (example["image_url"].decode(), split, example["image_ab"].tobytes())
        for split in ("train", "validation")
        for example in dataset.examples(folder, split)
    )


def test_runs_over_containers_that_are_killed_lose_nothing(tmp_path):
    names = [f"{wnid}_{index}" for wnid in CLASSES for index in range(16)]
    tar(tmp_path / "a.tar", {f"x/{name}.jpg": body(name) for name in names})
    tar(tmp_path / "b.tgz", {f"y/{name}.jpg": body(name) for name in names}, "w:gz")
    rows = [{"image": {"bytes": body(name), "path": f"{name}.jpg"}} for name in names]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=20)
    fixed = "--images a.tar,b.tgz,c.parquet --checkpoint none --image_size 16 --report=false"
    fixed += " --urls_per_commit 24 --validation_fraction 0.3 --encoding lab_uint8"
    command = [sys.executable, "-m", "beam_pipeline.run", *fixed.split()]
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parents[1])}

    def start(output: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--output", output],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    assert start("whole").wait() == 0
    for part in range(2):
        process = start("killed")
        deadline = time.monotonic() + 60
        # After some part, and at some moment of the next one.
        while not (tmp_path / "killed" / f"commit-{2 * part:05}.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1 * part)
        process.kill()
        process.communicate()
    process = start("killed")
    assert process.wait() == 0, process.communicate()
    assert len(records(tmp_path / "whole")) == 3 * len(names)
    assert records(tmp_path / "killed") == records(tmp_path / "whole")

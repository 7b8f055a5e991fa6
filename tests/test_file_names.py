"""Tests of image files whose names are not UTF-8 or are unusual.

The files pass through the complete command and through all readers of its dataset.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from origin import image
from PIL import Image

from beam_pipeline import dataset, report, run, validate

ROOT = Path(__file__).parent.parent
NAMES = [
    b"\xe9 \xff%E9.jpg",
    b"\xf0\x9f.jpg",
    "é犬.jpg".encode(),
    b"b[1]\\.jpg",
    b"new\nline.jpg",
    b"same1\xe9.jpg",
    b"same2\xe9.jpg",
]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Return a folder of images: three have the same bytes, and two fail."""
    folder = tmp_path / os.fsdecode(b"photos \xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    for name in NAMES:
        content = image(
            "same.jpg" if name.startswith(b"same") else f"{hashlib.md5(name).hexdigest()}.jpg"
        )
        (folder / os.fsdecode(name)).write_bytes(content)
    (folder / "same3.jpg").write_bytes(image("same.jpg"))
    (folder / os.fsdecode(b"broken \xe9.jpg")).write_text("no image")
    os.mkfifo(folder / os.fsdecode(b"pipe \xe9.jpg"))
    return folder


def paths_of(folder: Path) -> set[bytes]:
    return {bytes(folder) + b"/" + name for name in (*NAMES, b"same3.jpg")}


def options(photos: Path, output: Path, *others: str) -> list[str]:
    fixed = "--checkpoint none --image_size 16 --validation_fraction 0.3"
    return [
        "--images",
        f"{photos.parent}/photos*/*.jpg",
        "--output",
        str(output),
        *fixed.split(),
        *others,
    ]


@pytest.mark.parametrize(
    "others",
    [
        ["--urls_per_commit", "3", "--encoding", "rgb_png"],
        ["--verbose", "--direct_num_workers", "2", "--direct_running_mode", "multi_processing"],
    ],
    ids=["commits", "processes"],
)
def test_a_name_that_is_not_utf8_survives(photos, tmp_path, others):
    output = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipeline.run", *options(photos, output, *others)],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    described = json.loads((output / "dataset.json").read_bytes())
    assert described["counts"]["failures_by_reason"] == {"not_an_image": 1, "not_found": 1}

    assert validate.main([str(output), "--show", "9", "--export", str(tmp_path / "pictures")]) == 0
    assert report.main([str(output)]) == 0
    for read in (
        dataset.examples,
        lambda path, split: dataset.load(path, split).as_numpy_iterator(),
    ):
        urls = {
            example["image_url"]
            for split in ("train", "validation")
            for example in read(str(output), split=split)
        }
        assert urls == paths_of(photos)

    # Text holds bytes that are not UTF-8 percent-encoded; the name is still that of the original
    # bytes.
    [repeated] = described["repeated_content"]
    assert (repeated["count"], repeated["url"]) == (3, f"{tmp_path}/photos %E9/same1%E9.jpg")
    lines = [
        line for path in output.glob("failures-*.jsonl") for line in path.read_text().splitlines()
    ]
    failures = {failure["url"]: failure for failure in map(json.loads, lines)}
    for name in ("broken %E9.jpg", "pipe %E9.jpg"):
        failure = failures[f"{tmp_path}/photos %E9/{name}"]
        path = bytes(photos) + b"/" + os.fsencode(name.replace("%E9", "\udce9"))
        assert failure["name"] == hashlib.md5(path).hexdigest() + ".jpeg"
        assert failure["final_url"] == failure["url"]
    for text in [described, *failures.values()]:
        json.dumps(text, ensure_ascii=False).encode()


def test_what_is_kept_of_a_name_that_is_not_utf8_is_taken_again(photos, tmp_path):
    kept = [
        "--original_dir",
        str(tmp_path / "originals"),
        "--resized_dir",
        str(tmp_path / "resized"),
        "--report=false",
    ]
    assert run.main(options(photos, tmp_path / "first", *kept)) == 0
    names = {hashlib.md5(path).hexdigest() + ".jpeg" for path in paths_of(photos)}
    assert {path.name for path in (tmp_path / "resized").iterdir()} == names
    for path in (tmp_path / "resized").iterdir():
        assert Image.open(io.BytesIO(path.read_bytes())).size == (16, 16)
    assert run.main(options(photos, tmp_path / "second", *kept)) == 0

"""Tests of kept images: they are unchanged, are used again, and replace no other files."""

import dataclasses
import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from origin import Origin, image
from PIL import Image

from beam_pipeline import run
from beam_pipeline.config import Config
from beam_pipeline.elements import ImageRef, RgbImage
from beam_pipeline.fetching import kept_images
from beam_pipeline.images import png_notes
from beam_pipeline.launch import output_dir

REF = ImageRef("n01_1", "http://a.example/b.jpg")
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def config(tmp_path) -> Config:
    for name in ("original", "resized"):
        (tmp_path / name).mkdir()
    folders: dict[str, Any] = {
        "original_dir": str(tmp_path / "original"),
        "resized_dir": str(tmp_path / "resized"),
    }
    return Config(
        input="urls.txt", output=str(tmp_path / "out"), checkpoint="none", image_size=16, **folders
    )


def keep(config: Config, body: bytes | None = b"body") -> None:
    kept = kept_images.keep(RgbImage(REF, PIXELS, (40, 30), body=body), config)
    assert kept.body is None and kept.pixels is PIXELS


def test_the_body_and_the_pixels_are_kept(config, tmp_path):
    keep(config)
    assert (tmp_path / "original" / REF.name).read_bytes() == b"body"
    with Image.open(tmp_path / "resized" / REF.name) as resized:
        assert np.array_equal(np.asarray(resized), PIXELS) and resized.info == {
            "resize": "pad",
            "original": "40x30",
        }


def test_the_resized_image_goes_first_and_the_body_second(config, tmp_path):
    keep(config)
    kept = kept_images.read(config, REF)
    assert kept and kept.is_resized and kept.attempts == 0
    (tmp_path / "resized" / REF.name).unlink()
    kept = kept_images.read(config, REF)
    assert kept and not kept.is_resized and kept.data == b"body"
    (tmp_path / "original" / REF.name).unlink()
    assert kept_images.read(config, REF) is None


def test_a_file_that_no_run_has_resized_is_never_replaced(config, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "beam_pipeline")
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    (tmp_path / "resized" / REF.name).write_bytes(file.getvalue())
    keep(config)
    assert (tmp_path / "resized" / REF.name).read_bytes() == file.getvalue()
    keep(config)
    assert caplog.text.count("is not replaced, as no run has resized it") == 1


def test_a_large_file_that_no_run_has_resized_is_never_replaced(config, tmp_path):
    (tmp_path / "resized" / REF.name).write_bytes(bytes(2000))
    keep(dataclasses.replace(config, max_image_bytes=1000))
    assert (tmp_path / "resized" / REF.name).read_bytes() == bytes(2000)


def test_an_image_that_was_resized_otherwise_is_replaced(config, tmp_path):
    (tmp_path / "resized" / REF.name).write_bytes(
        png_notes.encode_png(PIXELS[:8, :8], resize="pad", original="40x30")
    )
    assert kept_images.read(config, REF) is None
    keep(config)
    kept = kept_images.read(config, REF)
    assert kept and kept.is_resized


@pytest.mark.parametrize("length", [0, 8, 90, 200, -1])
def test_a_resized_image_that_is_cut_off_is_made_anew(config, tmp_path, length):
    keep(config)
    path = tmp_path / "resized" / REF.name
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    (tmp_path / "original" / REF.name).unlink()
    assert kept_images.read(config, REF) is None
    output_dir.check(dataclasses.replace(config, input=__file__))
    if length in (0, 200, -1):
        keep(config)
        assert path.read_bytes() == whole


def test_an_image_without_a_note_is_not_taken_as_resized(config, tmp_path):
    (tmp_path / "resized" / REF.name).write_bytes(png_notes.encode_png(PIXELS))
    assert kept_images.read(config, REF) is None


def test_a_resized_image_is_not_taken_as_an_original(config, tmp_path):
    """The --resized_dir of an earlier run may be given as --original_dir."""
    (tmp_path / "original" / REF.name).write_bytes(
        png_notes.encode_png(PIXELS, resize="pad", original="40x30")
    )
    assert kept_images.read(config, REF) is None


@pytest.mark.parametrize("folder", ["original", "resized"])
def test_a_folder_in_the_place_of_a_file_is_neither_read_nor_written(config, tmp_path, folder):
    (tmp_path / folder / REF.name).mkdir()
    assert kept_images.read(config, REF) is None
    keep(config)
    assert kept_images.read(config, REF) is not None
    assert (tmp_path / folder / REF.name).is_dir()


def test_an_empty_file_is_not_there(config, tmp_path):
    (tmp_path / "original" / REF.name).touch()
    assert kept_images.read(config, REF) is None


def command(urls: Path, output: Path, *others: str) -> list[str]:
    fixed = (
        "--checkpoint none --image_size 16 --allow_private_addresses --report=false "
        "--fetch_attempts 1"
    )
    return ["--input", str(urls), "--output", str(output), *fixed.split(), *others]


def test_a_body_that_does_not_decode_is_not_kept_and_asked_for_again(origin: Origin, tmp_path):
    originals = tmp_path / "originals"
    urls = [origin.url(path) for path in ("good/1.jpg", "half/2.jpg", "html/3.jpg")]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    assert (
        run.main(
            command(tmp_path / "urls.txt", tmp_path / "first", "--original_dir", str(originals))
        )
        == 0
    )
    assert [path.name for path in originals.iterdir()] == [ImageRef("", urls[0]).name]
    before = len(origin.requests)
    assert (
        run.main(
            command(tmp_path / "urls.txt", tmp_path / "second", "--original_dir", str(originals))
        )
        == 0
    )
    assert len(origin.requests) == before + 2


def test_originals_in_the_folder_of_resized_images_survive(origin: Origin, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text("".join(origin.url(f"good/{index}.jpg\n") for index in range(4)))
    assert (
        run.main(command(urls, tmp_path / "first", "--original_dir", str(tmp_path / "kept"))) == 0
    )
    assert (
        run.main(command(urls, tmp_path / "second", "--resized_dir", str(tmp_path / "kept"))) == 2
    )
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "kept").iterdir()}
    assert digests == {hashlib.sha256(image(f"{index}.jpg")).digest() for index in range(4)}


def test_a_folder_in_the_place_of_an_original_costs_no_image(origin: Origin, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text(origin.url("good/1.jpg\n"))
    (tmp_path / "kept" / ImageRef("", origin.url("good/1.jpg")).name).mkdir(parents=True)
    assert run.main(command(urls, tmp_path / "out", "--original_dir", str(tmp_path / "kept"))) == 0
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]["examples"] == 1


def test_what_is_being_retried_is_not_taken_from_there(origin: Origin, tmp_path):
    """A truncated original remains after an interrupted download without a known length."""
    urls, kept = tmp_path / "urls.txt", tmp_path / "kept"
    urls.write_text(origin.url("good/1.jpg\n") + origin.url("good/2.jpg\n"))
    kept.mkdir()
    broken = kept / ImageRef("", origin.url("good/1.jpg")).name
    broken.write_bytes(image("1.jpg")[:300])
    assert run.main(command(urls, tmp_path / "first", "--original_dir", str(kept))) == 0
    assert json.loads((tmp_path / "first" / "dataset.json").read_text())["counts"][
        "failures_by_reason"
    ] == {"truncated": 1}
    failures = Path(tmp_path / "first" / "failures-*.jsonl")
    assert run.main(command(failures, tmp_path / "second", "--original_dir", str(kept))) == 0
    assert json.loads((tmp_path / "second" / "dataset.json").read_text())["counts"]["examples"] == 1
    assert broken.read_bytes() == image("1.jpg")


def test_a_file_larger_than_images_may_be_is_not_there(config, tmp_path):
    (tmp_path / "original" / REF.name).write_bytes(bytes(1000))
    assert kept_images.read(dataclasses.replace(config, max_image_bytes=1000), REF)
    assert kept_images.read(dataclasses.replace(config, max_image_bytes=999), REF) is None

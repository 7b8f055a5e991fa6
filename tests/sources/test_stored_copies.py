"""Tests of the images of --fallback_images, from their containers to the images of a list."""

from __future__ import annotations

import collections
import zipfile
from pathlib import Path

import archives
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import EncodedImage, ImageRef
from beam_pipeline.fetching.stored_images import read_file
from beam_pipeline.sources import listing, registry, stored_copies


def make_config(tmp_path: Path, copies: Path | str, lines: str = "n1_0 http://a/0\n") -> Config:
    (tmp_path / "urls.txt").write_text(lines)
    return Config(input=str(tmp_path / "urls.txt"), output="out", fallback_images=str(copies))


def read_refs(config: Config) -> list[ImageRef]:
    return list(listing.read_refs(config, collections.Counter()))


def read_copy(ref: ImageRef) -> bytes | None:
    if ref.fallback is None:
        return None
    image = read_file(ImageRef("", ref.fallback.url, location=ref.fallback.location), 10**6)
    assert isinstance(image, EncodedImage)
    return image.data


def write(kind: str, tmp_path: Path) -> Path:
    """Write images in a container; return its path."""
    path = tmp_path / f"images.{kind}"
    if kind == "folder":
        for name, data in archives.files(*archives.inner_names("n01440764")):
            (path / "n01440764").mkdir(parents=True, exist_ok=True)
            (path / "n01440764" / name).write_bytes(data)
    elif kind == "tar of tars":
        path.write_bytes(archives.make_train_tar())
    elif kind == "zip":
        path.write_bytes(archives.make_kaggle_zip(zipfile.ZIP_DEFLATED))
    elif kind == "tar":
        path.write_bytes(archives.make_tar(archives.files(*archives.inner_names("n01440764"))))
    elif kind == "tar.gz":
        path.write_bytes(archives.make_train_tar("w:gz"))
    else:
        rows = [{"image": {"bytes": b"x", "path": "n01440764_0.JPEG"}}]
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "tar of tars", "zip"])
def test_are_found_by_their_id(tmp_path, kind):
    path = write(kind, tmp_path)
    lines = "n01440764_2 http://a/2\nn09999999_1 http://a/1\nn01440764_0 http://a/0\n"
    found, missing, other = read_refs(make_config(tmp_path, path, lines))
    assert read_copy(found) == archives.body("n01440764_2.JPEG")
    assert read_copy(other) == archives.body("n01440764_0.JPEG")
    assert missing.fallback is None
    assert found.fallback and found.fallback.url.startswith(str(path))
    assert found.fallback.url.endswith("n01440764_2.JPEG")


def test_of_several_with_an_id_the_first_counts(tmp_path):
    for folder in ("b", "a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_text(folder)
    copies = f"{tmp_path / 'b'},{tmp_path / 'a'}"
    [ref] = read_refs(make_config(tmp_path, copies, "1 http://a/1\n"))
    assert read_copy(ref) == b"b"


def test_many(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_copies, "_BATCH", 7)
    names = [f"{index}.jpg" for index in range(50)]
    (tmp_path / "a.tar").write_bytes(archives.make_tar(archives.files(*names)))
    lines = "".join(f"{index} http://a/{index}\n" for index in range(60))
    refs = read_refs(make_config(tmp_path, tmp_path / "a.tar", lines))
    assert [read_copy(ref) for ref in refs] == [*map(archives.body, names), *[None] * 10]


def test_an_image_without_an_id_has_none(tmp_path):
    (tmp_path / ".jpg").write_text("no stem")
    (tmp_path / "1.jpg").write_text("1")
    config = make_config(tmp_path, f"{tmp_path}/*.jpg", "1 http://a/1\nhttp://a/2\n")
    assert [read_copy(ref) for ref in read_refs(config)] == [b"1", None]


@pytest.mark.parametrize("kind", ["tar.gz", "parquet"])
def test_that_are_read_from_front_to_back_are_refused(tmp_path, kind):
    path = write(kind, tmp_path)
    config = make_config(tmp_path, path)
    with pytest.raises(UsageError) as caught:
        listing.check_readable(config)
    assert str(caught.value) == (
        f"--fallback_images {path} can only be read from front to back. Give a folder, a .tar that "
        "is not compressed, or a .zip."
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.tar", "matches no file"), ("list.txt", "list of URLs"), ("empty", "holds no image")],
)
def test_what_holds_none_is_refused(tmp_path, name, message):
    (tmp_path / "list.txt").write_text("http://a/1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        listing.check_readable(make_config(tmp_path, tmp_path / name))


def test_a_list_without_ids_is_refused(tmp_path):
    path = write("tar", tmp_path)
    with pytest.raises(UsageError, match="needs IDs, and the first image of"):
        listing.check_readable(make_config(tmp_path, path, "http://a/0\n"))


def test_damage_costs_what_is_behind_it(tmp_path, capsys):
    data = archives.make_tar(archives.files("1.jpg", "2.jpg"))
    (tmp_path / "a.tar").write_bytes(data[:1024] + b"damage" * 100)
    lines = "1 http://a/1\n2 http://a/2\n"
    first, second = read_refs(make_config(tmp_path, tmp_path / "a.tar", lines))
    assert read_copy(first) == archives.body("1.jpg")
    assert second.fallback is None
    assert "damaged" in capsys.readouterr().err


def test_are_listed_once_in_a_run(tmp_path, monkeypatch):
    path, listed = write("tar", tmp_path), []
    find_images = registry.find_images

    def note(path: str):
        listed.append(path)
        return find_images(path)

    monkeypatch.setattr(registry, "find_images", note)
    config = make_config(tmp_path, path)
    listing.check_readable(config)
    for _ in range(2):
        read_refs(config)
    assert listing.count_images(config) == 1
    assert listed == [str(path)]


def test_another_container_is_another_list(tmp_path):
    path = write("tar", tmp_path)
    config = make_config(tmp_path, path)
    before = listing.identify_containers(config)
    assert str(path) in before
    path.write_bytes(archives.make_tar(archives.files("other.jpg")))
    assert listing.identify_containers(config) != before

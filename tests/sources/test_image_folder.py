"""Tests that every image of a folder is found, and nothing outside it."""

import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from archives import body, list_images, make_config, read_bodies, write
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.config import UsageError
from beam_pipeline.elements import Extent, Failure, ImageRef
from beam_pipeline.fetching.stored_images import read_file
from beam_pipeline.sources import image_file, image_folder, registry
from beam_pipeline.sources.source import stem


def read(path: Path | str) -> list[ImageRef]:
    return list_images(str(path))


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body(name))


def test_all_images_below_a_folder(tmp_path):
    names = [
        "a/x.JPEG", "a.jpg", "n01440764/n01440764_1.JPEG", "n01440764/n01440764_2.jpg",
        "n01443537/deep/er/y.PnG", "z.gif", "z.tif", "z.tiff", "z.webp", "é #1.bmp", ".jpg",
    ]  # fmt: skip
    fill(tmp_path, *names, "readme.txt", "n01440764/labels.csv", "jpg")
    assert registry.find_images(str(tmp_path)) is image_folder
    refs = read(tmp_path)
    assert {ref.url for ref in refs} == {f"{tmp_path}/{name}" for name in names}
    assert len(refs) == len(names)
    assert read_bodies(refs) == {f"{tmp_path}/{name}": body(name) for name in names}
    by_url = {ref.url.removeprefix(f"{tmp_path}/"): ref for ref in refs}
    ref = by_url["n01443537/deep/er/y.PnG"]
    assert (ref.id, ref.folder) == ("y", f"{tmp_path}/n01443537/deep/er")
    assert ref.location == Extent(ref.url)
    assert read(f"{tmp_path}/") == refs


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    names = [f"{folder}/{name}.jpg" for folder in "abc" for name in "xyz"]
    orders = []
    for seed in range(2):
        shuffled = random.Random(seed).sample(names, len(names))
        fill(tmp_path / str(seed), *shuffled)
        urls = [ref.url for ref in read(tmp_path / str(seed))]
        orders.append([url.removeprefix(f"{tmp_path}/{seed}/") for url in urls])
    assert orders[0] == orders[1] == sorted(names)


def test_links(tmp_path):
    fill(tmp_path / "outside", "x.jpg")
    fill(tmp_path / "photos", "a.jpg")
    photos = tmp_path / "photos"
    (photos / "cycle").symlink_to(photos)
    (photos / "folder.jpg").symlink_to(tmp_path / "outside")
    (photos / "link.jpg").symlink_to(tmp_path / "outside/x.jpg")
    (photos / "broken.jpg").symlink_to(tmp_path / "none")
    os.mkfifo(photos / "pipe.jpg")
    refs = read(photos)
    assert [ref.url.rpartition("/")[2] for ref in refs] == [
        "a.jpg", "broken.jpg", "link.jpg", "pipe.jpg",
    ]  # fmt: skip
    outcomes = [read_file(ref, 10**6) for ref in refs]
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False, True]


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"\xe9\n.jpg")
    fill(tmp_path, name)
    [ref] = read(tmp_path)
    assert ref.url == f"{tmp_path}/{name}" and ref.id == name[:-4]
    assert read_bodies([ref]) == {ref.url: body(name)}


def test_folders_deeper_than_python_recurses(tmp_path):
    depth = sys.getrecursionlimit() + 200
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        assert [ref.url.count("/d") for ref in read(tmp_path)] == [depth]
    finally:
        os.close(here)
        # pytest's own cleaning recurses.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all folders")
def test_a_folder_that_cannot_be_read(tmp_path):
    fill(tmp_path, "a.jpg", "b/x.jpg", "c.jpg")
    (tmp_path / "b").chmod(0)
    refs = read(tmp_path)
    (tmp_path / "b").chmod(0o700)
    assert [ref.problem and ref.problem.reason for ref in refs] == [None, "not_found", None]


def test_a_subfolder_that_disappears_is_a_failure(tmp_path):
    fill(tmp_path, "a.jpg", "b/x.jpg", "c.jpg")
    refs = image_folder.read_refs(str(tmp_path), make_config())
    first = next(refs)
    (tmp_path / "b/x.jpg").unlink()
    (tmp_path / "b").rmdir()
    others = list(refs)
    assert first.problem is None
    assert [ref.problem and ref.problem.reason for ref in others] == ["not_found", None]


@pytest.mark.parametrize("names", [(), ("readme.txt",)])
def test_a_folder_without_an_image_is_refused(tmp_path, names):
    fill(tmp_path, *names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"{tmp_path} holds no image"):
        read(tmp_path)


def test_only_one_folders_names_are_in_memory(tmp_path):
    for folder in range(100):
        fill(tmp_path, *(f"{folder}/{'x' * 60}{number}.jpg" for number in range(50)))
    tracemalloc.start()
    count = sum(1 for _ in image_folder.read_refs(str(tmp_path), make_config()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5000
    assert peak < 100_000


# Single files.


@pytest.mark.parametrize("name", ["x.jpg", "X.JPEG", "photo", "#1", "a.b.png", ".jpg", "http:__x"])
def test_a_single_file(tmp_path, name):
    path = write(tmp_path / name, body(name))
    assert registry.find_images(path) is image_file
    [ref] = read(path)
    assert (ref.url, ref.location, ref.folder) == (path, Extent(path), str(tmp_path))
    assert ref.id == stem(name)


@pytest.mark.parametrize(
    "data",
    [
        b"http://a.example/1.jpg\n",
        b"\xef\xbb\xbf# list\n\nn1_2\thttps://a.example/1.jpg\n",
        b"url,text\nhttp://a.example/1.jpg,dog\n",
        b'{"url": "http://a.example/1.jpg"}\n',
    ],
)
def test_a_list_of_urls_is_refused(tmp_path, data):
    path = write(tmp_path / "urls.txt", data)
    with pytest.raises(UsageError, match="give it as --input"):
        read(path)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=600))
def test_any_bytes_have_a_kind(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("files") / "file", data)
    kind = registry.find_images(path)
    assert kind in registry.IMAGE_SOURCES

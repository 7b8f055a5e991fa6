"""Tests that every image of a zip archive is found and read, and that damage costs no more."""

import io
import os
import struct
import tracemalloc
import zipfile

import pytest
from archives import (
    WNIDS,
    body,
    extent,
    inner_names,
    make_config,
    make_kaggle_zip,
    read_bodies,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.config import UsageError
from beam_pipeline.elements import Extent, Failure, ImageRef
from beam_pipeline.fetching.stored_images import read_file
from beam_pipeline.sources import registry, zip_archives


def read(path: str, **options) -> list[ImageRef]:
    assert registry.find_images(path) is zip_archives
    return list(zip_archives.read_refs(path, make_config(**options)))


def problems(refs: list[ImageRef]) -> list[str]:
    return [ref.problem.reason for ref in refs if ref.problem]


def make_zip(
    *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED
) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_kaggles_layout(tmp_path, method):
    path = write(tmp_path / "imagenet.zip", make_kaggle_zip(method))
    refs = read(path)
    folder = "ILSVRC/Data/CLS-LOC/train"
    names = [f"{folder}/{wnid}/{name}" for wnid in WNIDS for name in inner_names(wnid)]
    assert [(ref.url, ref.folder, ref.problem) for ref in refs] == [
        (f"{path}#{name}", name.rpartition("/")[0], None) for name in names
    ]
    assert refs[0].id == "n01440764_0"
    for ref in refs:
        assert isinstance(ref.location, Extent)
        assert ref.location.is_deflated == (method == zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        assert read_bodies(refs) == {f"{path}#{name}": archive.read(name) for name in names}


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(
        st.tuples(NAMES, st.binary(max_size=300), st.sampled_from([0, 8])), min_size=1, max_size=5
    ),
    comment=st.binary(max_size=50),
    before=st.binary(max_size=50),
)
def test_the_same_is_read_as_by_the_standard_library(tmp_path_factory, members, comment, before):
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    with path.open("wb") as file:
        file.write(before)
        with zipfile.ZipFile(file, "w") as archive:
            for name, data, method in members:
                archive.writestr(zipfile.ZipInfo(f"{name}.jpg"), data or b"1", method)
            archive.comment = comment
    try:
        refs = list(zip_archives.read_refs(str(path), make_config()))
    except UsageError:
        assert before
        return
    with zipfile.ZipFile(path) as archive:
        expected = [
            (f"{path}#{info.orig_filename}", archive.read(info)) for info in archive.infolist()
        ]
    assert [(ref.url, *read_bodies([ref]).values()) for ref in refs] == expected


def test_an_archive_of_more_than_4_gib(tmp_path):
    path = tmp_path / "x.zip"
    with path.open("wb") as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        archive.writestr("a.jpg", b"first")
        file.seek(5 << 30)  # a hole
        archive.start_dir = file.tell()
        archive.writestr("b.jpg", b"second")
    refs = read(str(path))
    assert extent(refs[1]).offset > 5 << 30
    assert list(read_bodies(refs).values()) == [b"first", b"second"]


def test_many_members(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(70_000):
            archive.writestr(zipfile.ZipInfo(f"{number}.jpg"), b"")
    tracemalloc.start()
    count = sum(1 for _ in zip_archives.read_refs(str(path), make_config()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 70_000
    assert peak < 1 << 20


def test_unsupported_members_are_problems(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    packed = bytearray(make_zip(("a.jpg", b"1"), ("locked.jpg", b"2"), (link, b"/etc/passwd")))
    flags = packed.index(b"PK\1\2", packed.index(b"PK\1\2") + 1) + 8
    packed[flags] |= 1
    with zipfile.ZipFile(buffer := io.BytesIO(bytes(packed)), "a") as archive:
        for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            archive.writestr(f"{method}.jpg", b"x" * 100, method)
        archive.writestr("b.jpg", b"b")
    path = write(tmp_path / "x.zip", buffer.getvalue())
    refs = read(path)
    assert [ref.url.removeprefix(f"{path}#") for ref in refs if ref.problem] == [
        "locked.jpg", "link.jpg", "12.jpg", "14.jpg",
    ]  # fmt: skip
    assert problems(refs) == ["unsupported_member"] * 4
    assert list(read_bodies(refs).values()) == [b"1", b"b"]


def test_an_encrypted_archive_is_refused(tmp_path):
    packed = bytearray(make_zip(("folder/", b""), ("a.txt", b"1"), ("b.jpg", b"2")))
    place = 0
    while (place := packed.find(b"PK\1\2", place + 1)) > 0:
        packed[place + 8] |= 1
    path = write(tmp_path / "x.zip", bytes(packed))
    with pytest.raises(UsageError, match="encrypted"):
        read(path)


def test_large_members_and_bombs(tmp_path):
    packed = bytearray(
        make_zip(("bomb.jpg", bytes(10 << 20)), ("lie.jpg", bytes(10 << 20)), method=8)
    )
    # The second one claims to be small.
    entry = packed.index(b"PK\1\2", packed.index(b"PK\1\2") + 1)
    packed[entry + 24 : entry + 28] = struct.pack("<L", 100)
    refs = read(write(tmp_path / "x.zip", bytes(packed)), max_image_bytes=1 << 20)
    assert problems(refs) == ["too_large"]
    outcome = read_file(refs[1], 1 << 20)
    assert isinstance(outcome, Failure) and outcome.reason == "too_large"


KAGGLE = make_kaggle_zip(zipfile.ZIP_DEFLATED)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(4, len(KAGGLE) - 1))
def test_a_truncated_archive_has_no_directory(tmp_path_factory, size):
    path = write(tmp_path_factory.mktemp("zip") / "x.zip", KAGGLE[:size])
    [ref] = read(path)
    assert ref.problem and ref.problem.reason == "corrupt_container"
    assert "cut off" in ref.problem.detail


@settings(max_examples=80, deadline=None)
@given(place=st.integers(4, len(KAGGLE)), garbage=st.binary(min_size=1, max_size=100))
def test_garbage_never_raises_anything_else(tmp_path_factory, place, garbage):
    data = KAGGLE[:place] + garbage + KAGGLE[place + len(garbage) :]
    path = write(tmp_path_factory.mktemp("zip") / "x.zip", data)
    try:
        refs = list(zip_archives.read_refs(path, make_config()))
    except UsageError as error:
        assert path in str(error)
        return
    for ref in refs:
        if ref.location:
            read_file(ref, 1 << 20)


@pytest.mark.parametrize(
    ("field", "value"), [(12, 2**32 - 1), (16, 2**32 - 1), (12, 2**31), (16, 2**31)]
)
def test_a_directory_that_claims_4_gb(tmp_path, field, value):
    packed = bytearray(make_zip(("a.jpg", b"1")))
    end = packed.rindex(b"PK\5\6")
    packed[end + field : end + field + 4] = struct.pack("<L", value)
    [ref] = read(write(tmp_path / "x.zip", bytes(packed)))
    assert ref.problem and ref.problem.reason == "corrupt_container"


def test_a_damaged_local_header_costs_its_image(tmp_path):
    packed = bytearray(make_zip(("a.jpg", b"1"), ("b.jpg", b"2")))
    packed[packed.index(b"PK\3\4", 4)] = 0
    refs = read(write(tmp_path / "x.zip", bytes(packed)))
    assert [bool(ref.problem) for ref in refs] == [False, True]
    assert problems(refs) == ["corrupt_container"]


def test_names_are_just_names(tmp_path):
    names = ["../../up.jpg", "/absolute.jpg", "C:\\x.jpg", "two.jpg"]
    path = write(tmp_path / "x.zip", make_zip(*((name, body(name)) for name in names)))
    assert read_bodies(read(path)) == {f"{path}#{name}": body(name) for name in names}
    assert os.listdir(tmp_path) == ["x.zip"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"text", "is not a zip archive"),
        (make_zip(), "holds no image"),
        (make_zip(("a.txt", b"1"), ("folder.jpg/", b"")), "holds no image"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, data, message):
    path = write(tmp_path / "x.zip", data)
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    assert path in str(caught.value) and len(str(caught.value).splitlines()) == 1
